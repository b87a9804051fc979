"""`mdc stats`: each ring's counters and latencies, and what each leg is good for, read from its .meta."""

import json
import time
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from appliance.clock import unix_ns
from appliance.errors import NotARing
from appliance.ring.chunk import metas
from appliance.ring.reader import RingReader
from appliance.trade import NS_PER_MS

STALLED_MS = 1000  # a writer beats every 50 ms
REFRESH_S = 1.0
OF_LEG = ("frames", "wins", "shared", "duplicates", "connects", "reconnects", "losses")


def run(*, rings: Path, as_json: bool, watch: bool) -> int:
    """Print one object or row a ring, once or every second; the exit code."""
    console = Console(highlight=False)
    try:
        rows = read(rings)
        if not watch:
            if as_json:
                print(json.dumps(rows, indent=2))
            else:
                console.print(shown(rows))
            return 0
        if as_json:
            while True:
                print(json.dumps(rows), flush=True)
                time.sleep(REFRESH_S)
                rows = read(rings)
        with Live(shown(rows), console=console, auto_refresh=False) as live:
            while True:
                before = {row["chunk"]: row for row in rows}
                time.sleep(REFRESH_S)
                rows = read(rings)
                live.update(shown(rows, before), refresh=True)
    except KeyboardInterrupt:
        return 0


def read(rings: Path) -> list[dict[str, Any]]:
    """What `--json` prints: docs/json-output.md names each field. Raises NotARing."""
    found = metas(rings)
    if not found:
        raise NotARing(f"{rings}: holds no *_trade_chunk*.meta; counters live in a ring directory, a journal has none")
    rows = []
    for _, _, path in found:
        ring = RingReader(path)
        try:
            rows.append(row(ring))
        finally:
            ring.close()
    return rows


def row(ring: RingReader) -> dict[str, Any]:
    """The stats of one ring."""
    flushed_seq = ring.flushed_sequence  # before the other cursor, so that it is never ahead of it
    flushed = ring.flushed
    heartbeat_ns = ring.heartbeat_ns
    counters = ring.counters()
    found = legs(counters, running=bool(ring.writer_pid))
    return {
        "exchange": ring.exchange,
        "chunk": ring.chunk,
        "committed_seq": ring.committed_sequence,
        "flushed_seq": flushed_seq,
        **counters,
        "recv_to_commit_ns": ring.histogram("recv_to_commit_ns"),
        "fdatasync_ns": ring.histogram("fdatasync_ns"),
        "mode": ring.mode,
        "epoch": ring.epoch,
        "writer_pid": ring.writer_pid,
        "writer_started_ms": ring.writer_started_ns // NS_PER_MS,
        "heartbeat_age_ms": (unix_ns() - heartbeat_ns) // NS_PER_MS if heartbeat_ns else None,
        "capacity_bytes": ring.capacity,
        "committed_position": ring.committed,
        "flushed_position": flushed,
        "ring_id": ring.ring_id,
        "host": ring.host,
        "journal_dir": None if ring.journal_dir is None else str(ring.journal_dir),
        "legs": found,
        "legs_worth": worth(found),
    }


def legs(counters: dict[str, int], *, running: bool) -> list[dict[str, Any]]:
    """What each leg that ever brought a frame has brought; `only`: the trades that no other leg has brought (so far)."""
    now_ms = unix_ns() // NS_PER_MS
    found = []
    for leg in takewhile(lambda leg: f"leg{leg}_frames" in counters, count()):
        of_leg = {name: counters[f"leg{leg}_{name}"] for name in OF_LEG}
        if not of_leg["connects"] and not of_leg["frames"]:
            continue
        opened_ms = counters[f"leg{leg}_opened_ms"]
        lead = {name: counters[f"leg{leg}_lead_{name}_ns"] for name in ("p50", "p99", "max")}
        found.append(
            {
                "leg": leg,
                "age_ms": max(0, now_ms - opened_ms) if opened_ms and running else None,
                **of_leg,
                "only": max(0, of_leg["wins"] - of_leg["shared"]),
                "lead_ns": {"count": counters[f"leg{leg}_leads"], **lead},
                "lag_ms": counters[f"leg{leg}_lag_ms"],
            }
        )
    return found


def worth(found: list[dict[str, Any]]) -> str:
    """Whether more than one leg is worth its cost, in sentences with numbers."""
    trades = sum(leg["wins"] for leg in found)
    if not trades:
        return "No trade came on any leg yet."
    if len(found) == 1:
        return f"Leg {found[0]['leg']} alone brought all {trades:,} trades: nothing to compare it with."
    sentences = [f"{trades:,} trades came on {len(found)} legs."]
    for leg in found:
        missing = f"{leg['only']:,} of them ({_percent(leg['only'], trades)}) would be missing" if leg["only"] else "none would be missing"
        later = f"{_percent(leg['wins'], trades)} came on it first"
        if leg["lead_ns"]["count"]:
            later += f", in the median {_duration(leg['lead_ns']['p50'])} and at p99 {_duration(leg['lead_ns']['p99'])} before the next"
        sentences.append(f"Without leg {leg['leg']} {missing}; {later}.")
    return " ".join(sentences)


def _percent(part: int, whole: int) -> str:
    """Three digits that count: a share of a millionth is not none."""
    return f"{100 * part / whole:.3g} %"


def _duration(ns: int) -> str:
    for unit, size in (("s", 1_000_000_000), ("ms", 1_000_000), ("µs", 1_000)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns} ns"


def state(row: dict[str, Any]) -> str:
    """What the writer is doing, in a word or two."""
    if not row["writer_pid"]:
        return "ended"
    age_ms = row["heartbeat_age_ms"]
    if age_ms is None or age_ms > STALLED_MS:
        return "no heartbeat" if age_ms is None else f"silent {age_ms / 1000:.0f} s"
    return "lossy" if row["mode"] == "lossy" and row["journal_dir"] else "running"


def shown(rows: list[dict[str, Any]], before: dict[int, dict[str, Any]] | None = None) -> Group:
    """The table, and what the legs are worth behind it."""
    lines = [f"{row['exchange']} {row['chunk']}: {row['legs_worth']}" for row in rows]
    return Group(table(rows, before), "", *lines)


def table(rows: list[dict[str, Any]], before: dict[int, dict[str, Any]] | None = None) -> Table:
    """The same for people, a column a ring; with the rows of `REFRESH_S` ago, rates too."""
    result = Table(show_edge=False, pad_edge=False)
    result.add_column("")
    for row in rows:
        result.add_column(f"{row['exchange']} {row['chunk']}", justify="right", no_wrap=True)
    result.add_row("writer", *(state(row) for row in rows))
    result.add_row("trades", *(f"{row['trades']:,}" for row in rows))
    if before is not None:
        rates = [(row["trades"] - before.get(row["chunk"], row)["trades"]) / REFRESH_S for row in rows]
        result.add_row("trades/s", *(f"{rate:,.0f}" for rate in rates))
    for name in ("duplicates", "gaps_open", "gaps_closed", "backfilled", "malformed", "legs_up", "reconnects"):
        result.add_row(name.replace("_", " "), *(f"{row[name]:,}" for row in rows))
    result.add_row("lag (usual), ms", *(f"{row['lag_ms']:,} ({row['lag_usual_ms']:,})" for row in rows))
    if any(row["raw_frames"] or row["raw_shed"] for row in rows):
        for name in ("raw_frames", "raw_shed"):
            result.add_row(name.replace("_", " "), *(f"{row[name]:,}" for row in rows))
    result.add_row("committed", *(f"{row['committed_seq']:,}" for row in rows))
    result.add_row("flushed", *(f"{row['flushed_seq']:,}" if row["journal_dir"] else "no journal" for row in rows), end_section=True)
    for name, key in (("p50", "p50"), ("p99", "p99"), ("p99.9", "p999"), ("max", "max")):
        result.add_row(f"recv to commit {name}, µs", *(f"{row['recv_to_commit_ns'][key] / 1000:,.1f}" for row in rows))
    result.add_row("fdatasync p99, ms", *(f"{row['fdatasync_ns']['p99'] / 1e6:,.1f}" for row in rows))
    return result
