"""How much does a trade cost from socket to disk, and how long does it take? The whole appliance against the local exchange.

    .venv/bin/python -m benchmarks.loopback                       10 million trades as fast as they are taken
    .venv/bin/python -m benchmarks.loopback --rate 5000 --seconds 60
    .venv/bin/python -m benchmarks.loopback --rate 5000 --seconds 60 --no-journal

The exchange runs on one core, the appliance on another, rings in /dev/shm, the journal on the disk of --directory.
"""

import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from appliance.ring.reader import RingReader
from tests.local_exchange import LocalExchange, local_exchange

DISK_BYTES = 1 << 30
SPAN_BYTES = 4 << 20
DEADLINE_S = 600.0
TICKS = os.sysconf("SC_CLK_TCK")
START = "from appliance.cli import appliance_main; appliance_main()"


@dataclass(slots=True)
class Sample:
    """The appliance at one moment."""

    at_s: float
    trades: int
    cpu_s: float
    rss_mb: float


def main(
    trades: Annotated[int, typer.Option(help="how many trades, when --rate is max")] = 10_000_000,
    rate: Annotated[str, typer.Option(help="trades a second, or max")] = "max",
    seconds: Annotated[float, typer.Option(help="for how long, when --rate is a number")] = 60.0,
    symbols: int = 400,
    legs: int = 1,
    journal: bool = True,
    directory: Annotated[Path, typer.Option(help="where the journal is written")] = Path("data"),
    exchange_core: int = 0,
    appliance_core: int = 1,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Run once and print what was measured; status 1 when a trade was lost."""
    directory.mkdir(parents=True, exist_ok=True)
    count = trades if rate == "max" else round(float(rate) * seconds)
    disk = disk_speed(directory) if journal else None
    with (
        tempfile.TemporaryDirectory(prefix="mdc-loopback-", dir="/dev/shm") as ring_dir,
        tempfile.TemporaryDirectory(prefix="mdc-loopback-", dir=directory) as journal_dir,
        local_exchange("--symbols", str(symbols), "--rate", rate, "--count", str(count), "--start-after", str(legs)) as exchange,
    ):
        os.sched_setaffinity(exchange.process.pid, {exchange_core})
        config = write_config(Path(ring_dir), Path(journal_dir), exchange, legs, symbols, journal)
        samples, result = run(config, Path(ring_dir) / "ring", exchange, count, appliance_core)
        if journal:
            verified = subprocess.run(
                [sys.executable, "-c", "from appliance.cli import main; main()", "verify", "--rings", f"{ring_dir}/ring", "--json"],
                check=False, stdout=subprocess.PIPE,
            )  # fmt: skip
            result["verify"] = "good" if verified.returncode == 0 else f"exit status {verified.returncode}"
            result["in_journal"] = sum(chunk["trades"] for chunk in json.loads(verified.stdout))
    result |= summary(samples, count, disk)
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        show(result)
    whole = result["committed"] == count and (not journal or (result["in_journal"] == count and result["verify"] == "good"))
    raise typer.Exit(0 if whole else 1)


def disk_speed(directory: Path) -> float:
    """MB/s that the disk takes: allocated ahead, written past the page cache, then fdatasync, as the flusher does."""
    page = mmap.mmap(-1, SPAN_BYTES)
    page.write(os.urandom(SPAN_BYTES))
    path = directory / "disk-speed"
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    try:
        os.posix_fallocate(fd, 0, DISK_BYTES)
        os.fsync(fd)
        started = time.perf_counter()
        for offset in range(0, DISK_BYTES, SPAN_BYTES):
            os.pwrite(fd, page, offset)
        os.fdatasync(fd)
        return DISK_BYTES / 1e6 / (time.perf_counter() - started)
    finally:
        os.close(fd)
        path.unlink()


def write_config(ring_dir: Path, journal_dir: Path, exchange: LocalExchange, legs: int, symbols: int, journal: bool) -> Path:
    path = ring_dir / "mdc.toml"
    path.write_text(
        f'[exchange]\nname = "binance"\nrest_url = "{exchange.rest_url}"\nws_url = "{exchange.ws_url}"\n'
        f"[feed]\nlegs = {legs}\nchunk_symbols = {symbols}\n"
        f'[ring]\ndir = "{ring_dir}/ring"\ncapacity_mb = 256\nmlock = false\n'
        f'[journal]\ndir = "{journal_dir.resolve()}"\nenabled = {str(journal).lower()}\n[log]\nlevel = "WARNING"\n'
    )
    return path


def run(config: Path, ring_dir: Path, exchange: LocalExchange, count: int, core: int) -> tuple[list[Sample], dict[str, Any]]:
    """Samples from the first trade to the last, and the ring's own figures at the end."""
    process = subprocess.Popen([sys.executable, "-c", START, "--config", str(config)], preexec_fn=lambda: os.sched_setaffinity(0, {core}))
    samples: list[Sample] = []
    try:
        meta = ring_dir / "binance_trade_chunk0.meta"
        deadline_s = time.monotonic() + DEADLINE_S
        while not meta.exists() and process.poll() is None and time.monotonic() < deadline_s:
            time.sleep(0.01)
        ring = RingReader(meta)
        while process.poll() is None and time.monotonic() < deadline_s:
            trades = ring.counters()["trades"]
            if trades:
                samples.append(Sample(time.monotonic(), trades, cpu_s(process.pid), rss_mb(process.pid)))
            if trades >= count and ring.flushed in (0, ring.committed):
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        status = process.wait(30)
        counters = ring.counters()
        latency = ring.histogram("recv_to_commit_ns")
        sent = exchange.stats()["trades_sent"]
        ring.close()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return samples, {
        "exit_status": status,
        "sent": sent,
        "committed": counters["trades"],
        "duplicates": counters["duplicates"],
        "gaps_open": counters["gaps_open"],
        "pauses": counters["pauses"],
        "bytes": counters["bytes"],
        "recv_to_commit_ns": latency,
    }


def cpu_s(pid: int) -> float:
    """CPU seconds of a process, all its threads and its children, those that run and those that ended."""
    total = 0.0
    for each in [pid, *children(pid)]:
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        total += sum(int(ticks) for ticks in fields[11:15]) / TICKS
    return total


def children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


def rss_mb(pid: int) -> float:
    """Memory of the process beside the ring."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) / 1024


def summary(samples: list[Sample], count: int, disk: float | None) -> dict[str, Any]:
    first, last = samples[0], samples[-1]
    done = next(sample for sample in samples if sample.trades >= count)
    trades = last.trades - first.trades
    return {
        "trades_per_s": round((done.trades - first.trades) / (done.at_s - first.at_s)),
        "cpu_us_per_trade": round((last.cpu_s - first.cpu_s) / trades * 1e6, 3),
        "core_used": round((done.cpu_s - first.cpu_s) / (done.at_s - first.at_s), 3),
        "rss_mb_first": round(samples[len(samples) // 4].rss_mb, 1),
        "rss_mb_last": round(last.rss_mb, 1),
        "disk_mb_per_s": disk and round(disk),
    }


def show(result: dict[str, Any]) -> None:
    table = Table("figure", "value", title="loopback")
    for name, value in result.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {number / 1000:,.1f} µs" for key, number in value.items() if key != "count")
        table.add_row(name, f"{value:,}" if isinstance(value, int | float) else str(value))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
