"""What REST may answer instead of data, on each exchange, while ids are missing: what is done, how often it is asked, when all is held.

`python -m tests.system.rest_errors` runs all of it to the end and writes the table into docs/reliability.md (seven minutes: after 451
nothing is asked for five); tests/system/test_rest_errors.py runs what the fault matrix does not, and starts anew where minutes would have
to be waited.
"""

import json
import re
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from appliance import Gap, GapClosed, Trade
from tests.local_exchange import LocalExchange, local_exchange
from tests.system.appliance_process import Appliance, Site, site
from tests.system.collecting import collecting

ROOT = Path(__file__).parents[2]
EXCHANGES = ("binance", "deribit")
PAST = {"binance": "/api/v3/historicalTrades", "deribit": "public/get_last_trades_by_instrument"}
LISTING = {"binance": "/api/v3/exchangeInfo", "deribit": "public/get_instruments"}
TRADES, RATE, SYMBOLS, HOLE = 3_000, 1_000, 5, 20
HEAL_S = 480.0
REQUESTS_MAX = 4  # beside the refused ones: two to fill a gap, and as many again for a database that lags
SLOWLY_S = (45.0, 75.0)
BLOCKED_S = (225.0, 375.0)
BEGIN, END = "<!-- REST errors -->", "<!-- end of the REST errors -->"


@dataclass(frozen=True, slots=True)
class Error:
    """One row: what REST answers."""

    name: str
    answer: str
    """As `mdc sim --fault rest:answer=` takes it."""
    said: str
    """What the log says of it, as a pattern."""
    done: str
    times: int = 1
    """So often it is answered before all is well."""
    wait_s: tuple[float, float] | None = None
    """How long nothing may be asked after it, at least and at most; None: the quick retry, at first within half a second."""
    in_matrix: bool = False
    """Whether the fault matrix, or tests/system/test_collector.py for a start, has it too."""

    @property
    def slow(self) -> bool:
        """Whether a test cannot wait for it."""
        return self.wait_s in (SLOWLY_S, BLOCKED_S)


QUICKLY = "asked again after 0.5 s, doubled up to 60 s"
SLOWLY = "asked again after a minute"
BLOCKED = "asked again after five minutes; at a first start: exit status 2"
TOLD = "nothing asked before Retry-After is over, also not after a restart"
ERRORS = (
    Error("301", "301", "HTTP 301, moved to /api/v4/moved", SLOWLY, wait_s=SLOWLY_S),
    Error("403", "403", "HTTP 403, refused by the exchange's firewall", SLOWLY, wait_s=SLOWLY_S),
    Error("404", "404", "HTTP 404, moved or retired", SLOWLY, wait_s=SLOWLY_S),
    Error("410", "410", "HTTP 410, moved or retired", SLOWLY, wait_s=SLOWLY_S),
    Error("418, Retry-After 3 s", "418,retry_after_s=3", "HTTP 418", TOLD, wait_s=(3.0, 6.1)),
    Error("429, Retry-After 2 s, twice", "429,retry_after_s=2", "HTTP 429", TOLD, times=2, wait_s=(2.0, 5.1)),
    Error("451", "451", "HTTP 451, not served from this location", BLOCKED, wait_s=BLOCKED_S),
    Error("500 twice", "500", "HTTP 500", QUICKLY, times=2),
    Error("503 twice", "503", "HTTP 503", QUICKLY, times=2, in_matrix=True),
    Error("HTML twice", "html", "html", QUICKLY, times=2, in_matrix=True),
    Error("no JSON to its end, twice", "truncated", "no (list|answer|get_|exchangeInfo)", QUICKLY, times=2, in_matrix=True),
    Error("the connection ends in the body, twice", "cut", "without sending complete message body", QUICKLY, times=2),
    Error("no answer", "timeout", "did not answer in time", "given up after 20 s, and " + QUICKLY),
)


@dataclass(slots=True)
class Outcome:
    """What came of one error."""

    error: Error
    exchange: str
    restarted: bool = False
    stored: int = 0
    lost: int = 0
    duplicated: int = 0
    requests: int = 0
    """For past trades, the refused ones among them."""
    healed_s: float = 0.0
    """From the gap found to the gap closed."""
    waits_s: tuple[float, ...] = ()
    """What the log said after each refusal about when it asks again."""
    levels: frozenset[str] = frozenset()
    """Of these lines."""

    def complaints(self) -> list[str]:
        """What is not as it must be."""
        error, found = self.error, []
        if self.lost or self.duplicated:
            found.append(f"lost {self.lost}, duplicated {self.duplicated}")
        if len(self.waits_s) != error.times:
            found.append(f"{len(self.waits_s)} refusals in the log, {error.times} were made")
        least, most = error.wait_s or (0.25, 0.5 * 2**error.times)
        if any(not least <= wait_s <= most for wait_s in self.waits_s):
            found.append(f"waits of {self.waits_s} s, not {least} to {most}")
        if not self.restarted and self.healed_s < least * error.times:
            found.append(f"healed after {self.healed_s} s, before it could be asked")
        # A connection that is lost on a slow machine, and a restart, ask for what follows of each instrument.
        bound = error.times + REQUESTS_MAX + SYMBOLS * (2 if self.restarted else 1)
        if self.requests > bound:
            found.append(f"{self.requests} requests, more than {bound}")
        if self.levels - {"ERROR" if error.slow else "WARNING"}:
            found.append(f"told as {sorted(self.levels)}")
        return found


def while_running(error: Error, exchange: str, directory: Path, *, to_the_end: bool) -> Outcome:
    """Ids are withheld from all legs, and the first questions for them are answered so.

    Where the answer is waited out for a minute and more, and this is not run `to_the_end`, the appliance is started again instead.
    """
    fault = f"rest:path={PAST[exchange].rpartition('/')[2]},times={error.times},answer={error.answer}"
    hole = f"hole:after=1000,trades={HOLE}"
    flags = ["--symbols", str(SYMBOLS), "--rate", str(RATE), "--count", str(TRADES), "--fault", hole, "--fault", fault]
    outcome = Outcome(error, exchange, restarted=error.slow and not to_the_end)
    with site(directory) as here, local_exchange(*flags, name=exchange) as local:
        with collecting(here, local, exchange) as one:
            one.ready()
            local.wait(lambda stats: stats["finished"], 60.0)
            if outcome.restarted:
                one.wait(lambda: len(refusals(one)) == 1, 60.0)
                # It hinders nothing else: all that was not withheld is held.
                one.wait(lambda: len(here.trades(here.ring_dir)) == TRADES - HOLE, 60.0)
            else:
                one.wait(lambda: is_whole(here), HEAL_S)
            measure_log(outcome, one)
            assert one.stop() == 0
        if outcome.restarted:
            with collecting(here, local, exchange) as one:
                one.ready()
                one.wait(lambda: is_whole(here), 60.0)
                assert one.stop() == 0
        measure(outcome, here, local)
    return outcome


def refusals(one: Appliance, event: str = "backfill_refused") -> list[dict[str, str]]:
    """What the log says about each answer that was none."""
    return [line for line in map(json.loads, list(one.log)) if line.get("event") == event]


def is_whole(here: Site) -> bool:
    values = list(here.values(here.ring_dir))
    gaps = sum(isinstance(value, Gap) for value in values) - sum(isinstance(value, GapClosed) for value in values)
    return gaps == 0 and len({(one.asset, one.exchange_trade_id) for one in values if isinstance(one, Trade)}) == TRADES


def measure_log(outcome: Outcome, one: Appliance) -> None:
    lines = refusals(one)
    for line in lines:
        assert re.search(outcome.error.said, line["message"]), line
    outcome.levels = frozenset(line["level"] for line in lines)
    outcome.waits_s = tuple(float(line["message"].rpartition("in ")[2].split()[0]) for line in lines)


def measure(outcome: Outcome, here: Site, local: LocalExchange) -> None:
    values = list(here.values(None))
    trades = [(value.asset, value.exchange_trade_id) for value in values if isinstance(value, Trade)]
    outcome.stored = len(trades)
    outcome.lost = TRADES - len(set(trades))
    outcome.duplicated = len(trades) - len(set(trades))
    outcome.requests = local.stats()["rest"].get(PAST[outcome.exchange], 0)
    closed = [value.writer_ts_ns for value in values if isinstance(value, GapClosed)]
    outcome.healed_s = (max(closed) - min(value.writer_ts_ns for value in values if isinstance(value, Gap))) / 1e9


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes in Markdown."""
    lines = ["| REST answers | what is done | exchange | lost | duplicated | requests | healed in s |", "|---|---|---|---:|---:|---:|---:|"]
    for one in outcomes:
        cells = f"{one.lost} | {one.duplicated} | {one.requests} | {one.healed_s:.1f}"
        lines.append(f"| {one.error.name} | {one.error.done} | {one.exchange} | {cells} |")
    return "\n".join(lines)


def main() -> int:
    """Run all of it; 1 when anything came otherwise than it must."""

    def run(error: Error, exchange: str) -> Outcome:
        with tempfile.TemporaryDirectory() as directory:
            return while_running(error, exchange, Path(directory), to_the_end=True)

    cases = [(error, exchange) for error in sorted(ERRORS, key=lambda error: error.slow, reverse=True) for exchange in EXCHANGES]
    with ThreadPoolExecutor(len(cases) // 2) as pool:
        found = dict(zip(cases, pool.map(lambda case: run(*case), cases), strict=True))
    outcomes = [found[error, exchange] for error in ERRORS for exchange in EXCHANGES]
    for one in outcomes:
        print(f"{one.error.name}, {one.exchange}: {'; '.join(one.complaints()) or 'as it must be'}", file=sys.stderr)
    path = ROOT / "docs" / "reliability.md"
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{table(outcomes)}\n\n{END}{after}")
    return 1 if any(one.complaints() for one in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
