"""A minute's status record: what the legs brought, how fast it was committed, and what was counted.

Files alone then answer how good an hour was. Its size is bounded: by the number of counters, and of legs.
"""

import time
from collections.abc import Callable
from typing import Any, Protocol

from appliance.clock import unix_ns
from appliance.feed.handler import HotPath
from appliance.ring.writer import Writer
from appliance.trade import NS_PER_MS

MINUTE_S = 60.0
GAUGES_S = 1.0  # a percentile goes through a thousand buckets
LEAST_S = 10.0  # a shorter rest at the end gets no record of its own
PERCENTILES = ("count", "p50", "p99", "p999", "max")

GAUGES = ("gaps_open", "missing_ids", "legs_up", "lag_ms", "lag_usual_ms")
OF_LEG = ("frames", "wins", "shared", "duplicates", "connects", "losses")


class Tell(Protocol):
    def __call__(self, event: str, **fields: Any) -> None: ...


class Minute:
    """Of one chunk. Loop thread only, between socket reads."""

    def __init__(self, path: HotPath, writer: Writer, legs: int, tell: Tell, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._writer = writer
        self._legs = legs
        self._tell = tell
        self._monotonic = monotonic
        self._counted = path.counters()
        self._begun_ms = unix_ns() // NS_PER_MS
        self._begun_s = monotonic()
        self._gauges_due_s = 0.0

    def turn(self) -> None:
        """Keep the gauges of `.meta`; tell of a minute that is over."""
        now_s = self._monotonic()
        if now_s >= self._gauges_due_s:
            self._gauges_due_s = now_s + GAUGES_S
            self._show_leads()
        if now_s - self._begun_s >= MINUTE_S:
            self.tell()

    def end(self) -> None:
        """No more will be counted: tell of the rest, if it is worth a record."""
        self._show_leads()
        if self._monotonic() - self._begun_s >= LEAST_S:
            self.tell()

    def tell(self) -> None:
        """Write the record of all since the last one."""
        counted, before = self._path.counters(), self._counted
        now_ms = unix_ns() // NS_PER_MS
        grown = {name: value - before[name] for name, value in counted.items() if not name.startswith("leg") and name not in GAUGES}
        self._tell(
            "minute",
            from_ts_ms=self._begun_ms,
            to_ts_ms=now_ms,
            clock_error_ns=None,  # nobody knows it yet
            **{name: counted[name] for name in GAUGES},
            counters={name: value for name, value in grown.items() if value},
            **{name: _shown(summary) for name, summary in self._path.latencies_since().items()},
            legs=[self._leg(leg, counted, before, now_ms) for leg in range(self._legs)],
        )
        self._counted, self._begun_ms, self._begun_s = counted, now_ms, self._monotonic()

    def _leg(self, leg: int, counted: dict[str, int], before: dict[str, int], now_ms: int) -> dict[str, object]:
        opened_ms = counted[f"leg{leg}_opened_ms"]
        grown = {name: counted[f"leg{leg}_{name}"] - before[f"leg{leg}_{name}"] for name in OF_LEG}
        return {
            "leg": leg,
            "age_ms": max(0, now_ms - opened_ms) if opened_ms else None,
            **grown,
            "lag_ms": counted[f"leg{leg}_lag_ms"],
            "lead_ns": _shown(self._path.lead_since(leg)),
        }

    def _show_leads(self) -> None:
        for leg in range(self._legs):
            lead = self._path.lead(leg)
            self._writer.set_counter(f"leg{leg}_leads", int(lead["count"]))
            for name in ("p50", "p99", "max"):
                self._writer.set_counter(f"leg{leg}_lead_{name}_ns", int(lead[name]))


def _shown(summary: dict[str, float]) -> dict[str, int]:
    return {name: int(summary[name]) for name in PERCENTILES}
