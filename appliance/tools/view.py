"""The live view of ring directories: rate, latency, cursors and a few of the trades, read from shared memory alone."""

import time
from collections import defaultdict, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from appliance.ring.chunk import metas
from appliance.ring.layout import RecordType
from appliance.ring.reader import Record, RingReader
from appliance.tools.stats import row
from appliance.tools.tail import Lines
from appliance.trade import Trade

LINES_SHOWN = 8
RATE_S = 1.0
POLL_RECORDS = 100_000


class Pulse:
    """One ring, and how fast it grows."""

    def __init__(self, ring: RingReader) -> None:
        self.ring = ring
        self.rate = 0.0
        self._since = time.monotonic()
        self._sequence = ring.committed_sequence

    def take(self) -> None:
        now = time.monotonic()
        if now - self._since >= RATE_S:
            sequence = self.ring.committed_sequence
            self.rate = (sequence - self._sequence) / (now - self._since)
            self._since, self._sequence = now, sequence


class View:
    """All rings of these directories from now on, also those that are still to come; `look` a few times a second."""

    def __init__(self, directories: Sequence[Path]) -> None:
        self._directories = directories
        self._pulses: dict[Path, Pulse] = {}
        self._lines = Lines([], as_json=False, verbose=False)
        lines_each = max(LINES_SHOWN // len(directories), 1)
        self._shown: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=lines_each))  # by exchange

    def look(self) -> None:
        """Take in what has come since the last look; of the trades, one a ring is kept to be shown."""
        for directory in self._directories:
            for _, _, path in metas(directory):
                if path not in self._pulses:
                    self._pulses[path] = Pulse(RingReader(path))
        for pulse in self._pulses.values():
            pulse.take()
            trades = [item for item in pulse.ring.poll(POLL_RECORDS) if isinstance(item, Record) and item.type == RecordType.TRADE]
            if trades:
                self._shown[pulse.ring.exchange].append(self._lines.trade(Trade.from_record(trades[-1], pulse.ring.chunk)))

    def picture(self, note: str) -> Group:
        """For a terminal."""
        table = Table(show_edge=False, pad_edge=False)
        for name in ("ring", "records/s", "sequence", "flushed", "p50 µs", "p99 µs", "max µs"):
            table.add_column(name, justify="left" if name == "ring" else "right", no_wrap=True)
        for pulse in self._in_order():
            found = row(pulse.ring)
            latency = found["recv_to_commit_ns"]
            table.add_row(
                f"{found['exchange']} {found['chunk']}",
                f"{pulse.rate:,.0f}",
                f"{found['committed_seq']:,}",
                f"{found['flushed_seq']:,}",
                *(f"{latency[key] / 1000:,.1f}" for key in ("p50", "p99", "max")),
            )
        trades = [Text(f"{exchange:<8} {line}") for exchange, lines in sorted(self._shown.items()) for line in lines]
        return Group(table, Text(), *trades, Text(f"\n{note}", "dim"))

    def lines(self) -> list[str]:
        """For a log: of each exchange how its rings stand, and its newest trade; nothing before the first one."""
        return [line for exchange, trades in sorted(self._shown.items()) for line in (self._line(exchange), f"    {trades[-1]}")]

    def close(self) -> None:
        """Unmap. Call nothing else afterwards."""
        for pulse in self._pulses.values():
            pulse.ring.close()

    def _line(self, exchange: str) -> str:
        pulses = [pulse for pulse in self._in_order() if pulse.ring.exchange == exchange]
        rows = [row(pulse.ring) for pulse in pulses]
        latency = slowest(rows)
        committed, flushed = (" ".join(str(found[name]) for found in rows) for name in ("committed_seq", "flushed_seq"))
        return (
            f"{exchange:<8} {sum(pulse.rate for pulse in pulses):8,.0f} records/s  sequences {committed}  flushed {flushed}"
            f"  recv to commit p50 {latency['p50']:.1f} p99 {latency['p99']:.1f} max {latency['max']:.1f} µs"
        )

    def _in_order(self) -> list[Pulse]:
        return sorted(self._pulses.values(), key=lambda pulse: (pulse.ring.exchange, pulse.ring.chunk))


def slowest(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Latencies from receive to commit in µs, each that of the slowest ring."""
    return {key: max((found["recv_to_commit_ns"][key] for found in rows), default=0) / 1000 for key in ("p50", "p99", "p999", "max")}
