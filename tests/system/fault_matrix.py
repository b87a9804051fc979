"""The fault matrix: each fault on each exchange with one leg and with two, what must come of it, and what came.

`python -m tests.system.fault_matrix` runs all of it and writes the table into docs/reliability.md; tests/system/test_fault_matrix.py
runs a part of it, or all with MDC_LONG=1.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from appliance import Gap, GapClosed, Status, Trade
from tests.local_exchange import LocalExchange, local_exchange
from tests.system.appliance_process import Site, site
from tests.system.collecting import collecting
from tests.system.deribit_site import LOGIN

ROOT = Path(__file__).parents[2]
EXCHANGES = ("binance", "deribit")
PAST = {"binance": "historicalTrades", "deribit": "get_last_trades_by_instrument"}
TRADES, RATE, SYMBOLS = 8_000, 2_000, 10
HEAL_S = 120.0
GRACE_MS = 200
BEGIN, END = "<!-- fault matrix -->", "<!-- end of the fault matrix -->"


@dataclass(frozen=True, slots=True)
class Fault:
    """One row: what befalls the feed. `{past}` in a SPEC is the exchange's path for past trades."""

    name: str
    specs: Sequence[str] = ()
    deribit: Sequence[str] | None = None
    """Where Deribit has another way to misbehave like this."""
    deribit_only: bool = False
    one_leg: bool = True
    """Whether it is of interest with a single leg."""
    spares_a_leg: bool = False
    """With two legs one is untouched: nothing may be lost, nor asked of REST."""
    never: int = 0
    """Ids that no trade has."""
    killed: bool = False

    def of(self, exchange: str) -> list[str]:
        specs = self.deribit if exchange == "deribit" and self.deribit is not None else self.specs
        return [word for spec in specs for word in ("--fault", spec.format(past=PAST[exchange]))]

    def befalls(self, exchange: str, legs: int) -> bool:
        return (exchange == "deribit" or not self.deribit_only) and (legs > 1 or self.one_leg)


HOLE = "hole:after=1500,trades=20"
FAULTS = (
    Fault("none", spares_a_leg=True),
    Fault("TCP reset of one connection", ["reset:after_s=1,connection=0,times=1"], spares_a_leg=True),
    Fault("end of file on one connection", ["eof:after_s=1,connection=0,times=1"], spares_a_leg=True),
    Fault("TCP reset of every connection", ["reset:after_s=1,times=2"]),
    Fault(
        "announced end (serverShutdown, maintenance)",
        ["shutdown:after_s=1,within_s=1,connection=0,times=1"],
        ["maintenance:after_s=1,lead_s=0.5,connection=0,times=1"],
        spares_a_leg=True,
    ),
    Fault("one connection stalls for 2 s", ["stall:after_s=1,for_s=2,connection=0"], spares_a_leg=True),
    Fault("one connection acknowledged and mute", ["mute:connection=0"], one_leg=False, spares_a_leg=True),
    Fault("garbage between the frames", ["garbage:every=100"], spares_a_leg=True),
    Fault("frames sent again after a reconnect", ["duplicates:frames=100", "reset:after_s=1,connection=0,times=1"], spares_a_leg=True),
    Fault("ids withheld from one connection", [f"{HOLE},connection=0"], spares_a_leg=True),
    Fault("ids withheld from all", [HOLE]),
    Fault("ids that no trade has", [f"{HOLE},fillable=false"], never=20),
    Fault("ids withheld, database 1.5 s late", [HOLE, "rest_lag_ms=1500"]),
    Fault("ids withheld, REST answers 503 twice", [HOLE, "rest:answer=503,path={past},times=2"]),
    Fault("ids withheld, REST answers 429", [HOLE, "rest:answer=429,path={past},times=1,retry_after_s=1"]),
    Fault("ids withheld, REST answers 418", [HOLE, "rest:answer=418,path={past},times=1,retry_after_s=2"]),
    Fault("ids withheld, REST answers HTML", [HOLE, "rest:answer=html,path={past},times=2"]),
    Fault("ids withheld, REST sends half a body", [HOLE, "rest:answer=truncated,path={past},times=2"]),
    Fault("login ends on one connection", ["logout:after_s=1,connection=0"], deribit_only=True, spares_a_leg=True),
    Fault("login ends on every connection", ["logout:after_s=1"], deribit_only=True),
    Fault("kill -9, and a new start", killed=True),
)  # fmt: skip


@dataclass(slots=True)
class Outcome:
    """What came of one fault. Times are milliseconds."""

    fault: Fault
    exchange: str
    legs: int
    sent: int = 0
    """Trades that the exchange made."""
    stored: int = 0
    duplicated: int = 0
    backfilled: int = 0
    never: int = 0
    """Ids that are proven never to have been traded."""
    past_requests: int = 0
    heal_ms: int = 0
    """From the first gap found to the last one closed."""
    silence_ms: int = 0
    """The longest time between two trades that a leg brought: what is at risk where REST has nothing."""
    open_gaps: int = 0

    @property
    def lost(self) -> int:
        return self.sent - self.stored

    def complaints(self) -> list[str]:
        """What is not as it must be."""
        found = []
        if self.lost or self.duplicated or self.open_gaps:
            found.append(f"lost {self.lost}, duplicated {self.duplicated}, gaps open {self.open_gaps}")
        if self.never != self.fault.never:
            found.append(f"{self.never} ids proven never to have been, {self.fault.never} were")
        if self.legs > 1 and self.fault.spares_a_leg and (self.past_requests or self.backfilled):
            found.append(f"{self.past_requests} REST requests although one leg was whole")
        return found


def run(fault: Fault, exchange: str, legs: int, directory: Path) -> Outcome:
    """Let one fault befall one appliance in a directory of its own, until all is settled or HEAL_S are over."""
    flags = ["--symbols", str(SYMBOLS), "--rate", str(RATE), "--count", str(TRADES), "--start-after", str(legs), *fault.of(exchange)]
    outcome = Outcome(fault, exchange, legs)
    give_login(directory)
    with site(directory) as here, local_exchange(*flags, name=exchange) as local:
        with collecting(here, local, exchange, "raw", legs=legs, gap_grace_ms=GRACE_MS) as one:
            one.ready()
            if fault.killed:
                local.wait(lambda stats: stats["trades_generated"] > TRADES // 4)
                one.process.kill()
                one.ended()
                local.wait(lambda stats: stats["trades_generated"] > TRADES // 2)
            else:
                _until_settled(here, local, outcome)
                assert one.stop() == 0
        if fault.killed:
            with collecting(here, local, exchange, "raw", legs=legs, gap_grace_ms=GRACE_MS) as one:
                one.ready()
                _until_settled(here, local, outcome)
                assert one.stop() == 0
        _measure(outcome, list(here.values(None)), local.stats())
    return outcome


def give_login(directory: Path) -> None:
    """Deribit's, as an operator gives it: beside the configuration."""
    login = directory / ".env"
    login.write_text("".join(f"{name}={value}\n" for name, value in LOGIN.items()))
    login.chmod(0o600)


def _until_settled(here: Site, local: LocalExchange, outcome: Outcome) -> None:
    local.wait(lambda stats: stats["finished"], HEAL_S)
    deadline_s = time.monotonic() + HEAL_S
    while time.monotonic() < deadline_s:
        _measure(outcome, list(here.values(here.ring_dir)), local.stats())
        if not outcome.complaints():
            return
        time.sleep(0.2)  # the interval of a poll with a deadline


def _measure(outcome: Outcome, values: Sequence[object], stats: dict[str, Any]) -> None:
    trades = [value for value in values if isinstance(value, Trade)]
    gaps = [value for value in values if isinstance(value, Gap)]
    closed = [value for value in values if isinstance(value, GapClosed)]
    live = sorted(trade.recv_ts_ns for trade in trades if not trade.backfilled)
    outcome.sent = stats["trades_generated"] - outcome.fault.never
    outcome.stored = len({(trade.asset, trade.exchange_trade_id) for trade in trades})
    outcome.duplicated = len(trades) - outcome.stored
    outcome.backfilled = sum(trade.backfilled for trade in trades)
    outcome.never = sum(
        value.fields["to_id"] - value.fields["from_id"] + 1
        for value in values
        if isinstance(value, Status) and value.event == "no_such_trade"
    )
    outcome.past_requests = sum(count for path, count in stats["rest"].items() if path.endswith(PAST[outcome.exchange]))
    outcome.open_gaps = len(gaps) - len(closed)
    if gaps and closed:
        outcome.heal_ms = (max(value.writer_ts_ns for value in closed) - min(value.writer_ts_ns for value in gaps)) // 1_000_000
    outcome.silence_ms = max((after - before for before, after in pairwise(live)), default=0) // 1_000_000


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes in Markdown."""
    names = (
        "exchange",
        "legs",
        "sent",
        "stored",
        "lost",
        "duplicated",
        "backfilled",
        "never",
        "REST",
        "healed in ms",
        "longest silence ms",
    )
    lines = [f"| fault | {' | '.join(names)} |", f"|---|---|{'---:|' * (len(names) - 1)}"]
    for one in outcomes:
        cells = (
            one.legs, one.sent, one.stored, one.lost, one.duplicated, one.backfilled, one.never, one.past_requests,
            one.heal_ms, one.silence_ms,
        )  # fmt: skip
        lines.append(f"| {one.fault.name} | {one.exchange} | {' | '.join(f'{cell:,}' for cell in cells)} |")
    return "\n".join(lines)


def cases() -> list[tuple[Fault, str, int]]:
    return [(fault, exchange, legs) for fault in FAULTS for exchange in EXCHANGES for legs in (1, 2) if fault.befalls(exchange, legs)]


def main() -> int:
    """Run all of it; 1 when anything came otherwise than it must."""
    outcomes, wrong = [], 0
    for fault, exchange, legs in cases():
        with tempfile.TemporaryDirectory() as directory:
            outcome = run(fault, exchange, legs, Path(directory))
        outcomes.append(outcome)
        complaints = outcome.complaints()
        wrong += bool(complaints)
        print(f"{fault.name}, {exchange}, {legs} legs: {'; '.join(complaints) or 'as it must be'}", file=sys.stderr, flush=True)
    path = ROOT / "docs" / "reliability.md"
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{table(outcomes)}\n\n{END}{after}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
