"""`mdc tail`: trades as they come, a line each."""

import os
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

from rich.cells import cell_len

from appliance.ring.chunk import ChunkReader, Item
from appliance.ring.layout import Flags, RecordType
from appliance.ring.merge import Merge, Value, value_of
from appliance.ring.reader import Record
from appliance.trade import NS_PER_MS, Boundary, Damaged, Event, Gap, GapClosed, Hole, Lapped, Status, Trade

ASSET_COLUMNS = 14  # BTC-PERPETUAL and a space; longer names widen the column for all that follow


def run(*, rings: Path, filters: Sequence[str], poll_ms: int, start: str, once: bool, as_json: bool, verbose: bool) -> int:
    """Print what is in the rings or the journal at `rings` from `start` on; the exit code."""
    lines = Lines(filters, as_json, verbose)
    merge = Merge.open(rings, start, follow=not once)
    if not once and all(reader.ring is None for reader in merge.readers):
        print(f"mdc: {rings} is a journal: following what is added to it; --from oldest --once shows what it holds", file=sys.stderr)
    try:
        while not merge.ended:
            items = merge.poll()
            for line in lines.of(items):
                sys.stdout.write(line + "\n")
            sys.stdout.flush()
            if not items and not merge.ended:
                time.sleep(poll_ms / 1000)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # Python flushes stdout once more at exit, into a pipe that no one reads.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        merge.close()
    return 0


class Lines:
    """What `mdc tail` prints of each item: filtered, aligned, as text or as JSON."""

    def __init__(self, filters: Sequence[str], as_json: bool, verbose: bool) -> None:
        self.filters = [pattern.upper() for pattern in filters]
        self.as_json = as_json
        self.verbose = verbose
        self.columns = ASSET_COLUMNS
        self._wanted: dict[str, bool] = {}

    def of(self, items: Iterable[tuple[ChunkReader, Item]]) -> Iterable[str]:
        """The lines of these items; what was lost goes to stderr."""
        for reader, item in items:
            value = value_of(reader, item)
            if isinstance(value, Lapped | Damaged):
                print(loss(value), file=sys.stderr)
            elif value is not None and self.wants(value):
                assert isinstance(item, Record)
                if self.as_json:
                    yield as_json(item, value)
                elif isinstance(value, Trade):
                    yield self.trade(value)
                elif self.verbose:
                    yield event(value)

    def wants(self, value: Value) -> bool:
        """Whether the filters let it through; what is about no single instrument always passes."""
        if not self.filters or not isinstance(value, Trade | Gap | GapClosed):
            return True
        asset = value.asset
        if asset not in self._wanted:
            self._wanted[asset] = any(fnmatchcase(asset.upper(), pattern) for pattern in self.filters)
        return self._wanted[asset]

    def trade(self, trade: Trade) -> str:
        """`2025-11-08 20:12:11 BTC-PERPETUAL  Sell px=102049.5 sz=1280.0`: the exchange's time, UTC."""
        width = cell_len(trade.asset)
        self.columns = max(self.columns, width)
        padding = " " * (self.columns - width)
        late = "  backfilled" if trade.backfilled else ""
        return f"{clock(trade.exchange_ts_ms)} {trade.asset}{padding} {trade.side.value:<4} px={trade.px_digits} sz={trade.sz_digits}{late}"


def as_json(record: Record, value: Trade | Event) -> str:
    """The record's own JSON, digit for digit, and behind it what only a reader knows."""
    body = record.payload.decode()
    added = ""
    if record.type == RecordType.TRADE and record.flags & Flags.FLAG_BACKFILLED and '"backfilled":' not in body:
        added += ',"backfilled":true'
    if value.persist_ts_ms is not None:
        added += f',"persist_ts_ms":{value.persist_ts_ms}'
    return f"{body[:-1]}{added}}}" if added else body


def event(value: Event) -> str:
    """One line on a record that is no trade."""
    when = clock(value.writer_ts_ns // NS_PER_MS)
    match value:
        case Gap():
            return f"{when} -- gap: {value.asset} ids {value.from_id} to {value.to_id} are missing"
        case GapClosed():
            return f"{when} -- gap closed: {value.asset} ids {value.from_id} to {value.to_id}"
        case Hole():
            return f"{when} -- hole: records {value.from_sequence} to {value.to_sequence} are not in the journal"
        case Boundary() | Status():
            rest = {name: found for name, found in value.fields.items() if name not in ("record", "exchange", "chunk", "event")}
            return f"{when} -- {value.record}: {value.event}" + "".join(f" {name}={found}" for name, found in rest.items())
    return f"{when} -- {value.record}"


def loss(value: Lapped | Damaged) -> str:
    """One line on what this reader did not get."""
    where = f"{value.exchange} chunk {value.chunk}"
    if isinstance(value, Damaged):
        return f"mdc: {where}: bytes at position {value.position} are no valid record ({value.reason}); going on at the next good one"
    return f"mdc: {where}: lapped, {value.records} records lost (sequence {value.from_sequence} to {value.to_sequence})"


def clock(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms // 1000, UTC):%Y-%m-%d %H:%M:%S}"
