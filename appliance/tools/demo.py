"""The demonstration behind `make demo`: a local exchange, the appliance, a look at both, and an honest count at the end."""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from appliance.errors import NotARing
from appliance.ring.chunk import metas
from appliance.ring.examination import Verdict, examinations
from appliance.ring.layout import RecordType
from appliance.ring.reader import Record, RingReader
from appliance.tools.stats import row
from appliance.tools.tail import Lines
from appliance.trade import Trade

INTERRUPTED = 130
APPLIANCE = [sys.executable, "-c", "from appliance.cli import appliance_main; appliance_main()"]
LINES_SHOWN = 8
TICK_S = 0.25
START_S = 30.0  # until the rings are there
DRAIN_S = 15.0  # the appliance promises ten
SHM = Path("/dev/shm")
SHM_FREE_BYTES = 512 << 20  # two rings of 64 MiB, with room to spare
PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(slots=True, frozen=True)
class Place:
    """Where a demonstration keeps its files."""

    data: Path
    ring: Path

    @classmethod
    def make(cls, parent: Path) -> "Place":
        """A fresh data directory under `parent`, and a ring directory in memory where there is room for it."""
        parent.mkdir(parents=True, exist_ok=True)
        data = Path(tempfile.mkdtemp(prefix=time.strftime("demo-%Y%m%d-%H%M%S-"), dir=parent))
        if os.access(SHM, os.W_OK) and shutil.disk_usage(SHM).free > SHM_FREE_BYTES:
            return cls(data, Path(tempfile.mkdtemp(prefix="mdc-demo-", dir=SHM)))
        (data / "ring").mkdir()
        return cls(data, data / "ring")

    @property
    def journal(self) -> Path:
        return self.data / "journal"

    @property
    def log(self) -> Path:
        return self.data / "appliance.log"

    def remove_ring(self) -> None:
        shutil.rmtree(self.ring, ignore_errors=True)


class View:
    """What goes through the rings, read from shared memory alone."""

    def __init__(self, directory: Path) -> None:
        self.rings = [RingReader(path) for _, _, path in metas(directory)]
        for ring in self.rings:
            ring.seek_newest()
        self.rates = [0.0] * len(self.rings)
        self._lines = Lines([], as_json=False, verbose=False)
        self._shown: deque[str] = deque(maxlen=LINES_SHOWN)
        self._read = [(time.monotonic(), ring.committed_sequence) for ring in self.rings]

    def look(self) -> None:
        """Take in what has come since the last look; of the trades, one a ring."""
        for index, ring in enumerate(self.rings):
            now, (before, sequence_before) = time.monotonic(), self._read[index]
            sequence = ring.committed_sequence
            if now - before >= 1.0:
                self.rates[index] = (sequence - sequence_before) / (now - before)
                self._read[index] = (now, sequence)
            trades = [item for item in ring.poll(100_000) if isinstance(item, Record) and item.type == RecordType.TRADE]
            if trades:
                self._shown.append(self._lines.trade(Trade.from_record(trades[-1], ring.chunk)))

    def rows(self) -> list[dict[str, Any]]:
        return [row(ring) for ring in self.rings]

    @property
    def newest(self) -> str:
        return self._shown[-1] if self._shown else ""

    def picture(self, seconds: float) -> Group:
        """For a terminal."""
        table = Table(show_edge=False, pad_edge=False)
        for name in ("ring", "records/s", "sequence", "flushed", "p50 µs", "p99 µs", "max µs"):
            table.add_column(name, justify="left" if name == "ring" else "right", no_wrap=True)
        for found, rate in zip(self.rows(), self.rates, strict=True):
            latency = found["recv_to_commit_ns"]
            table.add_row(
                f"{found['exchange']} {found['chunk']}", f"{rate:,.0f}", f"{found['committed_seq']:,}", f"{found['flushed_seq']:,}",
                *(f"{latency[key] / 1000:,.1f}" for key in ("p50", "p99", "max")),
            )  # fmt: skip
        return Group(table, Text(), *(Text(line) for line in self._shown), Text(f"\n{seconds:.0f} s more; Ctrl-C ends it earlier", "dim"))

    def line(self) -> str:
        """For a log."""
        rows = self.rows()
        latency = worst(rows)
        return (
            f"{sum(self.rates):9,.0f} records/s  sequences {' '.join(str(found['committed_seq']) for found in rows)}"
            f"  flushed {' '.join(str(found['flushed_seq']) for found in rows)}"
            f"  recv to commit p50 {latency['p50']:.1f} p99 {latency['p99']:.1f} max {latency['max']:.1f} µs"
        )

    def close(self) -> None:
        for ring in self.rings:
            ring.close()


def worst(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Latencies in µs, each that of the slowest ring."""
    return {key: max((found["recv_to_commit_ns"][key] for found in rows), default=0) / 1000 for key in ("p50", "p99", "p999", "max")}


def run(*, seconds: float, config: Path, data: Path, command: Sequence[str] = APPLIANCE) -> int:
    """Run it and print the summary; 0 when nothing fell short."""
    console = Console(highlight=False)
    place = Place.make(data)
    console.print(f"data directory: {place.data}   ring in memory: {place.ring}", soft_wrap=True)
    child = None
    try:
        child = _start([*command, "--config", str(config), "--duration", str(seconds)], place)
        shortfalls = _watch(child, place, seconds, console)
        rows = _rows(place.ring)
        sent = _sent(place.ring)
        console.print("verifying ring and journal …")
        verdicts, on_disk = _verdicts(place.ring), _verdicts(place.journal)
        shortfalls += judge(sent, rows, verdicts, on_disk)
        console.print(summary(sent, rows, verdicts, on_disk), soft_wrap=True)
        for shortfall in shortfalls:
            console.print(f"[bold red]fell short:[/] {shortfall}", soft_wrap=True)
        if shortfalls:
            console.print(f"log: {place.log}", soft_wrap=True)
            return 1
        console.print(f"read it again: mdc tail --rings {place.journal} --from oldest --once", soft_wrap=True)
        return 0
    except KeyboardInterrupt:
        console.print("interrupted: stopping the appliance …")
        return INTERRUPTED
    finally:
        if child is not None:
            _stop(child)
        place.remove_ring()
        console.print(f"left behind: {place.data}", soft_wrap=True)


def _start(command: Sequence[str], place: Place) -> subprocess.Popen[bytes]:
    place.journal.mkdir()
    libc = ctypes.CDLL(None)

    def end_with_us() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    environment = os.environ | {"MDC_RING__DIR": str(place.ring), "MDC_JOURNAL__DIR": str(place.journal)}
    with place.log.open("wb") as log:
        # A session of its own: Ctrl-C is for us, who then end it in order. No threads yet, so preexec_fn is safe.
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True, preexec_fn=end_with_us
        )


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Let it drain; a second Ctrl-C does not wait for that."""
    try:
        if child.poll() is None:
            child.terminate()
        child.wait(DRAIN_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        child.kill()
        child.wait()


def _watch(child: subprocess.Popen[bytes], place: Place, seconds: float, console: Console) -> list[str]:
    """Show what goes through until the appliance has drained and ended; what went wrong with it."""
    started = time.monotonic()
    while not metas(place.ring):
        if child.poll() is not None or time.monotonic() - started > START_S:
            return [_ending(child, place)]
        time.sleep(0.02)
    view = View(place.ring)
    try:
        if console.is_terminal:
            with Live(console=console, auto_refresh=False, transient=True) as live:
                while child.poll() is None and time.monotonic() - started < seconds + START_S + DRAIN_S:
                    view.look()
                    live.update(view.picture(max(seconds - (time.monotonic() - started), 0)), refresh=True)
                    time.sleep(TICK_S)
        else:
            said = 0.0
            while child.poll() is None and time.monotonic() - started < seconds + START_S + DRAIN_S:
                view.look()
                if time.monotonic() - said >= 1.0 and view.newest:
                    said = time.monotonic()
                    console.print(f"{view.line()}\n    {view.newest}", soft_wrap=True)
                time.sleep(TICK_S)
    finally:
        view.close()
    return [] if child.poll() == 0 else [_ending(child, place)]


def _ending(child: subprocess.Popen[bytes], place: Place) -> str:
    code = child.poll()
    what = "the appliance did not come up or did not end in time" if code is None else f"the appliance ended with exit status {code}"
    last = place.log.read_text(errors="replace").splitlines()[-5:]
    return "\n    ".join([f"{what}; its last words:", *last])


def _rows(ring: Path) -> list[dict[str, Any]]:
    rows = []
    for _, _, path in metas(ring):
        reader = RingReader(path)
        rows.append(row(reader))
        reader.close()
    return rows


def _sent(ring: Path) -> int | None:
    """How many trades the local exchange sent, by its own count; None when it left none."""
    try:
        return int(json.loads((ring / "local_exchange_stats.json").read_text())["trades_sent"])
    except (OSError, ValueError, KeyError):
        return None


def _verdicts(directory: Path) -> list[Verdict]:
    try:
        chunks = examinations(directory)
    except NotARing:
        return []  # the appliance made none: the count says so
    return [chunk.verdict(lambda size: None) for chunk in chunks]


def judge(sent: int | None, rows: Sequence[dict[str, Any]], verdicts: Sequence[Verdict], on_disk: Sequence[Verdict]) -> list[str]:
    """Everything that is not as it should be, a sentence each."""
    committed = sum(found["trades"] for found in rows)
    distinct = sum(verdict.trades - verdict.duplicates for verdict in on_disk)
    twice = sum(verdict.duplicates for verdict in on_disk)
    shortfalls = []
    if sent is None:
        shortfalls.append("the local exchange left no count of what it sent")
    elif sent != distinct:
        shortfalls.append(
            f"{abs(sent - distinct):,} trades {'lost' if sent > distinct else 'never sent'}: sent {sent:,}, on disk {distinct:,}"
        )
    if not distinct:
        shortfalls.append("no trade reached the journal")
    if committed != distinct + twice:
        shortfalls.append(f"committed {committed:,}, on disk {distinct + twice:,}")
    if twice:
        shortfalls.append(f"{twice:,} trades stand in the journal twice")
    missing = sum(verdict.recorded_ids + verdict.unsettled_ids + verdict.unrecorded_ids for verdict in on_disk)
    if missing:
        shortfalls.append(f"{missing:,} trade ids are missing")
    for verdict in [*verdicts, *on_disk]:
        shortfalls += [f"{verdict.exchange} {verdict.chunk}, position {fault.position}: {fault.reason}" for fault in verdict.fault_list[:3]]
        if not verdict.good and not verdict.faults:
            shortfalls.append(
                f"{verdict.exchange} {verdict.chunk}: verify finds {verdict.unrecorded_ids:,} ids missing without a gap record"
            )
    return list(dict.fromkeys(shortfalls))


def summary(sent: int | None, rows: Sequence[dict[str, Any]], verdicts: Sequence[Verdict], on_disk: Sequence[Verdict]) -> str:
    """The count, by symbol and id over the journal, and the latencies."""
    committed = sum(found["trades"] for found in rows)
    distinct = sum(verdict.trades - verdict.duplicates for verdict in on_disk)
    twice = sum(verdict.duplicates for verdict in on_disk)
    lost = "?" if sent is None else f"{max(sent - distinct, 0):,}"
    equals = "=" if sent == committed else "≠", "=" if committed == distinct else "≠"
    latency = worst(rows)
    return (
        f"sent {'?' if sent is None else f'{sent:,}'} {equals[0]} committed {committed:,} {equals[1]} in the journal {distinct:,}; "
        f"{lost} lost, {twice:,} duplicated ({sum(found['duplicates'] for found in rows):,} second copies turned away)\n"
        f"receive to commit: p50 {latency['p50']:.1f} µs, p99 {latency['p99']:.1f} µs, p99.9 {latency['p999']:.1f} µs, "
        f"max {latency['max']:.1f} µs (of the slower ring)\n"
        f"verified: {sum(verdict.records for verdict in verdicts):,} records, ring against journal "
        f"{sum(verdict.compared_bytes for verdict in verdicts) / 2**20:,.0f} MiB"
    )


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(
    seconds: Annotated[float, typer.Option(min=1.0, help="How long trades are collected.")] = 20.0,
    config: Annotated[Path, typer.Option(help="The appliance's configuration.")] = Path("configs/demo.toml"),
    data: Annotated[Path, typer.Option(help="Where the data directory is made.")] = Path("data"),
) -> None:
    """Collect from a local exchange for a while, show it, and count what arrived."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    raise typer.Exit(run(seconds=seconds, config=config, data=data))


if __name__ == "__main__":
    typer.run(main)
