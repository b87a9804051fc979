"""The count of one exchange at the end of a demonstration: what was sent, what was committed, what is on disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from appliance.ring.examination import Verdict
from appliance.tools.view import slowest

FAULTS_SHOWN = 3


@dataclass(slots=True, frozen=True)
class Count:
    """Trades as three witnesses have them: the exchange, the counters in `.meta`, and each record of the journal."""

    sent: int | None
    """By the exchange's own count; None: it left none."""
    rows: Sequence[dict[str, Any]]
    """As `mdc stats --json` shows them."""
    ring: Sequence[Verdict]
    """Ring against journal."""
    journal: Sequence[Verdict]
    """The journal alone, from its first record on."""

    @property
    def committed(self) -> int:
        return sum(int(row["trades"]) for row in self.rows)

    @property
    def distinct(self) -> int:
        """Trades on disk by symbol and id."""
        return sum(verdict.trades - verdict.duplicates for verdict in self.journal)

    @property
    def twice(self) -> int:
        return sum(verdict.duplicates for verdict in self.journal)

    def shortfalls(self) -> list[str]:
        """Everything that is not as it should be, a sentence each."""
        found = []
        if self.sent is None:
            found.append("the local exchange left no count of what it sent")
        elif self.sent > self.distinct:
            found.append(f"{self.sent - self.distinct:,} trades lost: sent {self.sent:,}, on disk {self.distinct:,}")
        elif self.sent < self.distinct:
            found.append(f"{self.distinct - self.sent:,} trades were never sent: sent {self.sent:,}, on disk {self.distinct:,}")
        if not self.distinct:
            found.append("no trade reached the journal")
        if self.committed != self.distinct + self.twice:
            found.append(f"committed {self.committed:,}, on disk {self.distinct + self.twice:,}")
        if self.twice:
            found.append(f"{self.twice:,} trades stand in the journal twice")
        missing = sum(verdict.recorded_ids + verdict.unsettled_ids + verdict.unrecorded_ids for verdict in self.journal)
        if missing:
            found.append(f"{missing:,} trade ids are missing")
        for verdict in [*self.ring, *self.journal]:
            where = f"{verdict.exchange} {verdict.chunk}"
            found += [f"{where}, position {fault.position}: {fault.reason}" for fault in verdict.fault_list[:FAULTS_SHOWN]]
        return list(dict.fromkeys(found))

    def lines(self) -> list[str]:
        """Three lines for people."""
        latency = slowest(self.rows)
        sent = "?" if self.sent is None else f"{self.sent:,}"
        lost = "?" if self.sent is None else f"{max(self.sent - self.distinct, 0):,}"
        return [
            f"sent {sent} {equals(self.sent, self.committed)} committed {self.committed:,} "
            f"{equals(self.committed, self.distinct)} in the journal {self.distinct:,}; {lost} lost, {self.twice:,} duplicated "
            f"({sum(int(row['duplicates']) for row in self.rows):,} second copies turned away)",
            f"receive to commit: p50 {latency['p50']:.1f} µs, p99 {latency['p99']:.1f} µs, p99.9 {latency['p999']:.1f} µs, "
            f"max {latency['max']:.1f} µs" + (" (of the slower ring)" if len(self.rows) > 1 else ""),
            f"verified: {sum(verdict.records for verdict in self.journal):,} records of the journal, "
            f"{sum(verdict.compared_bytes for verdict in self.ring) / 2**20:,.1f} MiB of it against the ring",
        ]


def equals(one: int | None, other: int | None) -> str:
    return "=" if one == other else "≠"
