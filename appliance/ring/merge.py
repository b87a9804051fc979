"""The merge of all chunks of a directory into one stream, in the order in which the records were written."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, time, timedelta
from operator import itemgetter
from pathlib import Path

from appliance.clock import unix_ns
from appliance.errors import ConfigError
from appliance.ring.chunk import ChunkReader, Item, open_chunks
from appliance.ring.layout import RecordType
from appliance.ring.reader import Corrupt, Lapped, Record
from appliance.trade import Boundary, Damaged, Gap, GapClosed, Hole, Status, Trade
from appliance.trade import Lapped as LappedValue

Value = Trade | Gap | GapClosed | Hole | Boundary | Status | LappedValue | Damaged
Start = str | datetime | int

# A writer beats every 50 ms; one that has not for this long is dead or stalled, and others do not wait for it.
STALE_NS = 100_000_000
BATCH_RECORDS = 1024

_EVENTS: dict[int, type[Gap | GapClosed | Hole | Boundary | Status]] = {
    RecordType.GAP: Gap,
    RecordType.GAP_CLOSED: GapClosed,
    RecordType.HOLE: Hole,
    RecordType.BOUNDARY: Boundary,
    RecordType.STATUS: Status,
}
_FOREVER = 1 << 63


class _Lane:
    """One chunk's part of the merge: items read ahead, each with its time."""

    def __init__(self, reader: ChunkReader, end_sequence: int | None) -> None:
        self.reader = reader
        self.end_sequence = end_sequence  # inclusive; None: follow
        self.buffer: list[tuple[int, ChunkReader, Item]] = []
        self.newest_ns = 0  # of the last item read ahead
        self.bound_ns = 0  # nothing older than this will still come
        self.ended = False

    def fill(self, follow: bool) -> int:
        """Read ahead; the time before which nothing more will come from this lane."""
        if self.ended:
            return _FOREVER
        if self.buffer:
            return self.bound_ns
        watermark_ns = self._watermark_ns() if follow else _FOREVER
        items = self.reader.poll(BATCH_RECORDS)
        for item in items:
            if isinstance(item, Record):
                if self.end_sequence is not None and item.sequence > self.end_sequence:
                    self.ended = True
                    break
                self.newest_ns = item.write_ns
            self.buffer.append((self.newest_ns, self.reader, item))
        if not items:
            self.ended = not follow
        self.bound_ns = _FOREVER if self.ended else self.newest_ns
        if follow and not items:
            # A short batch says nothing: it may end with a segment.
            self.bound_ns = max(self.newest_ns, watermark_ns)
        return self.bound_ns

    def _watermark_ns(self) -> int:
        """Read before the records are: what it promises then holds for all that is not yet there."""
        ring = self.reader.ring
        if ring is None or unix_ns() - ring.heartbeat_ns > STALE_NS:
            return _FOREVER
        return ring.watermark_ns

    def take_until(self, bound_ns: int) -> list[tuple[int, ChunkReader, Item]]:
        if self.newest_ns <= bound_ns:
            taken, self.buffer = self.buffer, []
            return taken
        split = sum(entry[0] <= bound_ns for entry in self.buffer)
        taken, self.buffer = self.buffer[:split], self.buffer[split:]
        return taken


class Merge:
    """All chunks of a ring or journal directory as one stream by time of writing; within a chunk in sequence.

    Without `follow` it ends at what is committed when it is opened.
    """

    def __init__(self, readers: Sequence[ChunkReader], follow: bool = False) -> None:
        self.readers = readers
        self.follow = follow
        self._lanes = [_Lane(reader, None if follow else reader.committed_sequence) for reader in readers]

    @classmethod
    def open(cls, directory: Path, start: Start = "oldest", follow: bool = False) -> "Merge":
        """Raises NotARing, OSError, and ConfigError for a `start` that is neither a word nor a time."""
        merge = cls(open_chunks(directory), follow)
        merge.seek(start)
        return merge

    def seek(self, start: Start) -> None:
        """Go to "oldest", to "now" (only what comes from here on), or to a time; see `time_ns`."""
        for reader in self.readers:
            if start == "oldest":
                reader.seek_oldest()
            elif start == "now":
                reader.seek_newest()
            else:
                reader.seek_time(time_ns(start))

    @property
    def ended(self) -> bool:
        """Whether nothing more will come; never while following."""
        return all(lane.ended and not lane.buffer for lane in self._lanes)

    def poll(self) -> list[tuple[ChunkReader, Item]]:
        """The next items that nothing older can still precede, each with its chunk. Never waits."""
        bound_ns = min([lane.fill(self.follow) for lane in self._lanes])
        batch = [entry for lane in self._lanes for entry in lane.take_until(bound_ns)]
        if len(self._lanes) > 1:
            batch.sort(key=itemgetter(0))  # stable, and quick on a few sorted runs
        return [(reader, item) for _, reader, item in batch]

    def close(self) -> None:
        """Close all readers. Call nothing else afterwards."""
        for reader in self.readers:
            reader.close()


def values(merge: Merge, wait: Callable[[], object]) -> Iterator[Value]:
    """What the merge holds, as values for Python. `wait` is called when there is nothing for now, and may end it by raising."""
    while True:
        items = merge.poll()
        for reader, item in items:
            value = value_of(reader, item)
            if value is not None:
                yield value
        if merge.ended:
            return
        if not items:
            wait()


def value_of(reader: ChunkReader, item: Item) -> Value | None:
    """The value of one item; None for records that are of no use to a reader, such as snapshots."""
    if isinstance(item, Lapped):
        return LappedValue(reader.exchange.upper(), reader.chunk, item.records, item.from_sequence, item.to_sequence)
    if isinstance(item, Corrupt):
        return Damaged(reader.exchange.upper(), reader.chunk, item.position, item.reason)
    if item.type == RecordType.TRADE:
        return Trade.from_record(item, reader.chunk, reader.persist_ns(item))
    kind = _EVENTS.get(item.type)
    return None if kind is None else kind.from_record(item, reader.chunk, reader.persist_ns(item))


def time_ns(when: Start) -> int:
    """UNIX ns of an aware datetime, of ISO 8601 text (UTC unless it says otherwise), of HH:MM[:SS] (the last such moment, UTC)."""
    if isinstance(when, int):
        return when
    if isinstance(when, str):
        try:
            clock = time.fromisoformat(when) if len(when) <= len("HH:MM:SS") and ":" in when else None
            moment = datetime.fromisoformat(when) if clock is None else _last(clock)
        except ValueError:
            raise ConfigError(
                f"where to begin: found {when!r}; expected 'now', 'oldest', an ISO 8601 time such as 2025-11-08T20:12:11, or HH:MM (UTC)"
            ) from None
    else:
        moment = when
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000_000) * 1000


def _last(clock: time) -> datetime:
    now = datetime.now(UTC)
    moment = datetime.combine(now.date(), clock, UTC)
    return moment if moment <= now else moment - timedelta(days=1)
