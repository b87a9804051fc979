"""`mdc audit`: samples of what is held, compared with what the exchange says over REST."""

import asyncio
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from random import Random, random
from statistics import NormalDist

from aiolimiter import AsyncLimiter

from appliance.clock import unix_ns
from appliance.config.schema import checked_rest_url
from appliance.errors import CannotRun, ConfigError
from appliance.exchanges.exchange import Exchange, Trouble, open_exchange
from appliance.exchanges.instruments import Instruments
from appliance.exchanges.past import Past
from appliance.feed.backoff import Backoff
from appliance.feed.limits import Door, Limits
from appliance.feed.rest import Rest
from appliance.tools.sample import Sample, Sampler
from appliance.trade import Trade

CONFIDENCE = 0.95
REFUSALS_MAX = 5  # in a row, before it is given up
MINUTE_S = 60.0
SHOWN = 20

Fields = dict[str, str | int]


@dataclass(frozen=True, slots=True)
class Finding:
    """One trade that is not as the exchange has it."""

    asset: str
    id: int
    what: str
    """missing: not held. differs: held, with other values. not_traded: held, and the exchange does not show it between its neighbours."""
    held: Fields | None
    exchange: Fields | None


@dataclass(slots=True)
class Report:
    """What was compared so far; `error_rate_at_most` holds with 95 % confidence, if the samples are as good as any."""

    exchange: str
    samples: int = 0
    empty: int = 0
    """Samples that the exchange could not confirm: it does not keep trades for so long, or not yet."""
    instruments: int = 0
    trades: int = 0
    errors: int = 0
    error_rate: float = 0.0
    error_rate_at_most: float = 1.0
    findings: list[Finding] = field(default_factory=list)

    def add(self, sample: Sample, trades: int, findings: Sequence[Finding], seen: set[str]) -> None:
        self.samples += 1
        self.empty += trades == 0
        if trades:
            seen.add(sample.asset)
        self.instruments = len(seen)
        self.trades += trades
        self.errors += len(findings)
        self.findings += findings
        del self.findings[: -SHOWN * 5]
        self.error_rate = self.errors / self.trades if self.trades else 0.0
        self.error_rate_at_most = at_most(self.errors, self.trades)

    @property
    def sentence(self) -> str:
        compared = f"{self.trades:,} trades of {self.instruments:,} instruments in {self.samples:,} samples"
        bound = f"at most {self.error_rate_at_most:.2g} with 95 % confidence"
        if not self.trades:
            return f"Nothing could be compared: {self.samples:,} samples, none of which the exchange confirmed."
        if not self.errors:
            return f"All as the exchange has it: {compared}. Error rate 0, {bound}."
        return f"NOT as the exchange has it: {self.errors:,} of {compared}. Error rate {self.error_rate:.2g}, {bound}."


def at_most(errors: int, trades: int) -> float:
    """The one-sided upper bound of a rate by Wilson's score interval, at CONFIDENCE; 1 when nothing is known."""
    if not trades:
        return 1.0
    z2 = NormalDist().inv_cdf(CONFIDENCE) ** 2
    rate = errors / trades
    middle = rate + z2 / (2 * trades)
    spread = math.sqrt(z2 * (rate * (1 - rate) / trades + z2 / (4 * trades * trades)))
    return min(1.0, (middle + spread) / (1 + z2 / trades))


def compare(sample: Sample, past: Past, exchange: Exchange) -> tuple[int, list[Finding]]:
    """How many trades could be compared, and those that are wrong; what is `missing` here may stand elsewhere."""
    instruments = Instruments(exchange.name.upper())
    instruments.add(sample.asset, sample.kind)
    decoder = exchange.decoder(instruments)
    theirs = {int(trade["sequence_id"]): trade for message in past.messages for trade in decoder.decode(message)[1]}
    if not past.ids:
        return 0, []
    ids = [
        one
        for one in range(max(sample.first_id, past.ids[0]), min(sample.last_id, past.ids[-1]) + 1)
        if one in theirs or one in sample.held
    ]
    findings = []
    for one in ids:
        held = _of_journal(sample.held[one]) if one in sample.held else None
        said = _of_exchange(theirs[one]) if one in theirs else None
        if held is None or said is None:
            findings.append(Finding(sample.asset, one, "missing" if held is None else "not_traded", held, said))
        elif not _same(held, said):
            findings.append(Finding(sample.asset, one, "differs", held, said))
    return len(ids), findings


def _same(held: Fields, said: Fields) -> bool:
    # By value: the two interfaces of an exchange may spell a number differently.
    return all(Decimal(held[name]) == Decimal(said[name]) if name in ("px", "sz") else held[name] == said[name] for name in held)


def _of_journal(trade: Trade) -> Fields:
    return {
        "trade_id": trade.exchange_trade_id,
        "exchange_ts_ms": trade.exchange_ts_ms,
        "px": trade.px_digits,
        "sz": trade.sz_digits,
        "side": str(trade.side),
    }


def _of_exchange(trade: Fields) -> Fields:
    return {name: trade[name] for name in ("trade_id", "exchange_ts_ms", "px", "sz", "side")}


class Audit:
    """One exchange's audit of one directory."""

    def __init__(self, exchange: Exchange, rest: Rest, sampler: Sampler, banned_s: Callable[[], float], share: float) -> None:
        self.report = Report(exchange.name)
        self._exchange = exchange
        self._rest = rest
        self._sampler = sampler
        self._banned_s = banned_s  # the appliance's bans are ours: they are of the address
        self._backoff = Backoff(random)
        self._budget = AsyncLimiter(max(exchange.rules.weight_per_minute * share, 50.0), MINUTE_S)
        self._seen: set[str] = set()

    async def round(self, samples: int) -> None:
        """Take so many samples. Raises CannotRun when the exchange does not answer."""
        for _ in range(samples):
            sample = self._sampler.pick(unix_ns())
            if sample is None:
                return
            past = await self._ask(sample)
            trades, findings = compare(sample, past, self._exchange)
            missing = [finding.id for finding in findings if finding.what == "missing"]
            if missing:
                # What came late stands further on.
                elsewhere = self._sampler.search(sample.asset, missing)
                trades, findings = compare(replace(sample, held=sample.held | elsewhere), past, self._exchange)
            self.report.add(sample, trades, findings, self._seen)

    async def _ask(self, sample: Sample) -> Past:
        trades = sample.last_id - sample.first_id + 1
        question = self._exchange.past(sample.asset, sample.first_id, trades)
        reason = ""
        for _ in range(REFUSALS_MAX):
            await asyncio.sleep(self._banned_s())
            await self._budget.acquire(question.weight)
            answer = await self._rest.past(sample.asset, sample.first_id, trades)
            if isinstance(answer, Past):
                self._backoff.reset()
                return answer
            reason = answer.reason
            if answer.trouble not in (Trouble.AWAY, Trouble.BANNED):
                break
            delay_s = self._backoff.after_refusal(answer)
            print(f"mdc: {reason}; asking again in {delay_s:.0f} s", file=sys.stderr)
            await asyncio.sleep(delay_s)
        raise CannotRun(f"the exchange does not answer: {reason}")


def run(
    *, rings: Path, exchange: str, rest_url: str | None, ca_file: Path | None, samples: int, follow: bool, share: float,
    seed: int | None, as_json: bool,
) -> int:  # fmt: skip
    """Audit the directory `rings`; 0 when every trade compared is as the exchange has it, else 1. `share`: of its budget, 0 to 1."""
    one = open_exchange(exchange)
    try:
        url = checked_rest_url(rest_url or one.rest_url)
    except ValueError as error:
        raise ConfigError(
            f"--rest-url {rest_url!r}: {error}; expected https:// (http:// for this machine only), a host, maybe a port"
        ) from None
    sampler = Sampler(rings, one.rules.past_trades, Random(seed))

    def banned_s() -> float:
        return Limits(rings, one.rules, time.time).banned_s(Door.REST)

    try:
        if sampler.exchanges != {exchange}:
            raise ConfigError(f"{rings}: holds trades of {', '.join(sorted(sampler.exchanges))}; --exchange says {exchange}")
        return asyncio.run(_run(one, url, ca_file, sampler, banned_s, samples, follow, share, as_json))
    finally:
        sampler.close()


async def _run(
    exchange: Exchange, url: str, ca_file: Path | None, sampler: Sampler, banned_s: Callable[[], float],
    samples: int, follow: bool, share: float, as_json: bool,
) -> int:  # fmt: skip
    rest = Rest(exchange, url, ca_file)
    audit = Audit(exchange, rest, sampler, banned_s, share)
    try:
        while True:
            before = audit.report.samples
            await audit.round(samples)
            _publish(audit.report, as_json)
            if not follow:
                break
            if audit.report.samples == before:
                await asyncio.sleep(MINUTE_S)  # there is nothing old enough yet
    finally:
        await rest.close()
    if not audit.report.trades:
        raise CannotRun("nothing could be compared: no trade is older than a minute, or the exchange keeps none that old")
    return 1 if audit.report.errors else 0


def _publish(report: Report, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(report) | {"sentence": report.sentence}, ensure_ascii=False), flush=True)
        return
    print(report.sentence, flush=True)
    for finding in report.findings[-SHOWN:]:
        print(
            f"  {finding.asset} id {finding.id} {finding.what.replace('_', ' ')}: held {finding.held}, the exchange has {finding.exchange}"
        )
