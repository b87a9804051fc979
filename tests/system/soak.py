"""The soak: 5,000 trades a second with a fault every few seconds, for as long as one likes.

`python -m tests.system.soak SECONDS [EXCHANGE]` prints what came of it; `make soak` runs an hour of each;
tests/system/test_soak.py runs two minutes.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from appliance.ring.examination import examinations
from appliance.tools.certificate import is_whole, sentence
from appliance.tools.survey import survey
from tests.local_exchange import LocalExchange, local_exchange
from tests.system.appliance_process import Appliance, Site, site
from tests.system.collecting import collecting
from tests.system.fault_matrix import GRACE_MS, give_login

RATE, SYMBOLS = 5_000, 20
LOOK_S = 1.0
HEAL_S = 300.0
FAULTS = (
    "hole:after=10000,trades=20,every=25000",  # every 5 s
    "hole:after=20000,trades=3,every=60000,connection=0",
    "reset:after_s=11",  # each connection, when it is that old
    "garbage:every=997",
    "duplicates:frames=100",
)


@dataclass(frozen=True, slots=True)
class Look:
    """What the process took at one moment."""

    rss_kb: int
    """Of memory that is its own: without rings and files."""
    descriptors: int
    threads: int


@dataclass(slots=True)
class Soak:
    """What came of it."""

    seconds: float
    sent: int = 0
    trades: int = 0
    whole: bool = False
    sentence: str = ""
    looks: list[Look] = field(default_factory=list, repr=False)

    def complaints(self) -> list[str]:
        """What is not as it must be."""
        found = [] if self.whole and self.trades == self.sent else [f"sent {self.sent:,}, held {self.trades:,}. {self.sentence}"]
        third = len(self.looks) // 3
        middle, last = self.looks[third : 2 * third], self.looks[2 * third :]
        before_kb, after_kb = median(look.rss_kb for look in middle), median(look.rss_kb for look in last)
        if after_kb > 1.1 * before_kb + 4_096:
            found.append(f"memory grows: {before_kb:,.0f} kB in the middle third, {after_kb:,.0f} kB in the last")
        for name in ("descriptors", "threads"):
            before, after = (median(getattr(look, name) for look in part) for part in (middle, last))
            if after > before + 1:
                found.append(f"{name} grow: {before} in the middle third, {after} in the last")
        return found

    def __str__(self) -> str:
        def spread(name: str) -> str:
            values = [getattr(look, name) for look in self.looks[len(self.looks) // 3 :]]
            return f"{min(values):,} to {max(values):,}"

        return (
            f"{self.seconds:.0f} s: sent {self.sent:,}, held {self.trades:,}; memory of its own {spread('rss_kb')} kB, "
            f"descriptors {spread('descriptors')}, threads {spread('threads')}\n{self.sentence}"
        )


def run(seconds: float, exchange: str, directory: Path) -> Soak:
    """Soak one appliance in a directory of its own."""
    soak = Soak(seconds)
    flags = ["--symbols", str(SYMBOLS), "--rate", str(RATE), "--count", str(int(seconds * RATE)), "--start-after", "2"]
    faults = [word for fault in FAULTS for word in ("--fault", fault)]
    give_login(directory)
    with site(directory) as here, local_exchange(*flags, *faults, name=exchange) as local:
        with collecting(here, local, exchange, "raw", legs=2, gap_grace_ms=GRACE_MS) as one:
            one.ready()
            _watch(one, local, soak)
            soak.sent = local.stats()["trades_generated"]
            deadline_s = time.monotonic() + HEAL_S
            while not _survey(here, soak) and time.monotonic() < deadline_s:
                time.sleep(LOOK_S)
            assert one.stop() == 0
        _survey(here, soak)
    return soak


def _watch(one: Appliance, local: LocalExchange, soak: Soak) -> None:
    while not local.stats(within_s=HEAL_S)["finished"]:
        soak.looks.append(_look(one.process.pid))
        time.sleep(LOOK_S)


def _look(pid: int) -> Look:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Look(int(status["RssAnon"].split()[0]), descriptors, int(status["Threads"]))


def _survey(here: Site, soak: Soak) -> bool:
    surveys = [survey(one, lambda size: None, digests=False) for one in examinations(here.journal_dir)]
    soak.trades = sum(one.trades for survey in surveys for one in survey.instruments)
    soak.whole, soak.sentence = is_whole(surveys), sentence(surveys)
    return soak.whole and soak.trades == soak.sent


def main(words: Sequence[str]) -> int:
    seconds = float(words[0])
    exchange = words[1] if len(words) > 1 else "binance"
    with tempfile.TemporaryDirectory() as directory:
        soak = run(seconds, exchange, Path(directory))
    print(soak)
    for complaint in soak.complaints():
        print(f"NOT as it must be: {complaint}")
    return 1 if soak.complaints() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
