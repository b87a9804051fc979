"""The examination of one chunk: is every record what was written, and does each follow from the one before."""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from appliance.clock import unix_ns
from appliance.errors import NotARing
from appliance.ring.chunk import metas
from appliance.ring.intervals import Intervals
from appliance.ring.journal import Segment, first_position, misnamed, segments
from appliance.ring.layout import BLOCK, JOURNAL_HEADER, RecordType
from appliance.ring.reader import Corrupt, Lapped, Record, RingReader, SegmentReader, StreamReader
from appliance.ring.scan import Fault, Jump, Scanner

# A missing id becomes a gap record after `gap_grace_ms`, a minute at most; a younger hole at the end of the data is not judged yet,
# unless the writer ended in good order: then it has recorded what it knew.
GRACE_NS = 61_000_000_000
ALIVE_NS = 1_000_000_000
FLUSH_DEADLINE_S = 5.0
STEP_RECORDS = 100_000
FOREVER = 1 << 62  # no position comes this far
KEPT = 1000  # faults kept for the report; all are counted

Advance = Callable[[int], None]

_NOTHING = Intervals([])
_EVENTS = {RecordType.GAP, RecordType.GAP_CLOSED, RecordType.HOLE, RecordType.BOUNDARY, RecordType.STATUS, RecordType.SNAPSHOT}


@dataclass(slots=True, frozen=True)
class Ids:
    """Trade ids of one instrument, both ends included."""

    asset: str
    era: int
    from_id: int
    to_id: int

    def __str__(self) -> str:
        era = f" (era {self.era})" if self.era else ""
        return f"{self.asset}{era} ids {self.from_id} to {self.to_id}"


@dataclass(slots=True)
class Verdict:
    """What was found in one chunk; `good` is the judgement. Field names are those of `--json`."""

    exchange: str
    chunk: int
    good: bool = True
    first_sequence: int = 0
    last_sequence: int = 0
    records: int = 0
    trades: int = 0
    duplicates: int = 0
    bytes: int = 0
    instruments: int = 0
    segments: int = 0
    compared_bytes: int = 0
    """Bytes that ring and journal both hold, and that were compared."""
    open_end: bool = False
    """The newest segment ends in bytes that are no record: a copy made while it was being written."""
    lapped: int = 0
    """Records that the writer overwrote in the ring before they were looked at."""
    recorded_holes: list[Ids] = field(default_factory=list)
    recorded_ids: int = 0
    unsettled_holes: list[Ids] = field(default_factory=list)
    unsettled_ids: int = 0
    unrecorded_holes: list[Ids] = field(default_factory=list)
    unrecorded_ids: int = 0
    missing_sequences: list[tuple[int, int]] = field(default_factory=list)
    """Sequences that a hole record accounts for."""
    lost_holes: list[Ids] = field(default_factory=list)
    """Ids whose records may be among those."""
    lost_ids: int = 0
    faults: int = 0
    fault_list: list[Fault] = field(default_factory=list)
    faults_left_off: int = 0
    """How many of the faults are not in the list, which ends at a thousand. The lists of holes have no end."""

    def fault(self, position: int, reason: str, sequence: int = 0) -> None:
        self.faults += 1
        if len(self.fault_list) < KEPT:
            self.fault_list.append(Fault(position, sequence, reason))
        else:
            self.faults_left_off += 1

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def examinations(directory: Path) -> "list[Examination]":
    """What there is to examine in a ring directory or a journal directory. Raises NotARing.

    Chunks whose ring is gone, while their journal lies beside that of another, are among them.
    """
    found = {(exchange, chunk): Examination(exchange, chunk, path, None) for exchange, chunk, path in metas(directory)}
    for journal_dir in {one.journal_dir for one in found.values() if one.journal_dir is not None} if found else {directory}:
        for name in {(segment.exchange, segment.chunk) for segment in segments(journal_dir)} - found.keys():
            found[name] = Examination(*name, None, journal_dir)
    if not found:
        raise NotARing(f"{directory}: holds neither *_trade_chunk*.meta nor *_trade_chunk*.journal; expected a ring or journal directory")
    return [found[name] for name in sorted(found)]


class Examination:
    """The examination of one chunk: the journal from its oldest record on, then what only the ring has.

    Set before `verdict`, when it is to be of a part: `since_position`, where a segment begins, and `until_position`; `scanner`,
    when it is to count as well; `tell`, called with every record that is no trade and what its JSON holds. What `tell` cannot
    read, and raises ValueError, KeyError or TypeError for, is a fault of the record.
    """

    def __init__(self, exchange: str, chunk: int, meta_path: Path | None, journal_dir: Path | None) -> None:
        self.exchange = exchange
        self.chunk = chunk
        self.result = Verdict(exchange, chunk)
        self.ring: RingReader | None = None
        if meta_path is not None:
            try:
                self.ring = RingReader(meta_path)
            except (NotARing, OSError) as error:
                self.result.fault(0, str(error))
        self.journal_dir = journal_dir if self.ring is None else self.ring.journal_dir
        self.scanner = Scanner()
        self.since_position = 0
        self.until_position = FOREVER
        self.tell: Callable[[Record, dict[str, Any]], None] = lambda record, fields: None
        self.first_position = FOREVER  # of what was read
        self.end_position = 0
        self.known_until_ns = 0  # all that was written before this was read
        self.settled_ns = 0  # a hole that began later is not judged yet
        self.overtaken = 0  # records between two that were read, overwritten in the ring before their turn
        self._ring_id: str | None = None  # of the segments
        self._newest = (0, 0)  # position and sequence at which the newest segment begins
        self._gaps: defaultdict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
        self._holes: list[tuple[int, int]] = []
        self._jumps: list[Jump] = []
        self._damage: list[tuple[Corrupt, Jump | None]] = []  # with the jump of the sequence behind it
        self._journal_end = 0
        self._lossy = self.ring is not None and self.ring.mode == "lossy"
        self._stopped_at = 0  # sequence of the record with which the writer ended in good order
        self._advance: Advance = lambda size: None

    def size(self) -> int:
        """About how many bytes there are to read."""
        journal = sum(max(segment.path.stat().st_size - JOURNAL_HEADER, 0) for segment in self._segments())
        return journal + (0 if self.ring is None else min(self.ring.committed, self.ring.capacity))

    def verdict(self, advance: Advance) -> Verdict:
        """Read everything, judge it, close the files."""
        self._advance = advance
        try:
            self._examine()
        except OSError as error:
            self.result.fault(0, f"{error.filename or self.journal_dir}: {error.strerror}; what lies behind could not be examined")
        self._conclude()
        return self.result

    def _examine(self) -> None:
        if self.ring is not None:
            watermark_ns = self.ring.watermark_ns  # before `committed`: what it promises holds for all before that
            flushed = self.ring.flushed  # before `committed`, which is never behind it
            target = self.ring.committed
            if flushed > target:
                self.result.fault(flushed, f"flushed cursor is ahead of committed ({target})")
            self._compare(self.ring)
            self._scan_journal(target)
            if self.journal_dir is not None and self._journal_end < min(flushed, self.until_position) > self.ring.first_position:
                ends = f"ends at position {self._journal_end}" if self._journal_end else "has no segment"
                self.result.fault(flushed, f"flushed up to here, but {self.journal_dir} {ends}")
            self._scan_ring(self.ring, target)
            if self.scanner.epoch > self.ring.epoch:
                self.result.fault(target, f"epoch {self.scanner.epoch} in a record, {self.ring.epoch} in .meta")
            if self.until_position == FOREVER:
                self.known_until_ns = watermark_ns
            self.ring.close()
        else:
            self._scan_journal(None)

    def begin_at(self, time_ns: int) -> None:
        """Leave out what was written before `time_ns` (UNIX ns), as far as whole segments go.

        One that cannot be read says nothing of its time: an older one is asked, and the damage is told when it is its turn.
        """
        for segment in reversed(self._segments()):
            try:
                reader = SegmentReader(segment.path)
            except (NotARing, OSError):
                continue
            try:
                items = reader.poll(1)
            except OSError:
                continue
            finally:
                reader.close()
            if items and isinstance(items[0], Record) and items[0].write_ns < time_ns:
                self.since_position = reader.first_position
                return

    def _segments(self) -> list[Segment]:
        found = [] if self.journal_dir is None else segments(self.journal_dir, self.exchange, self.chunk)
        if self.since_position == 0 and self.until_position == FOREVER:
            return found
        # Those that end where it is to begin, or begin where it is to end, are of no interest.
        ends = [self._begin(segment, FOREVER) for segment in found[1:]] + [FOREVER]
        return [
            segment
            for segment, end in zip(found, ends, strict=True)
            if end > self.since_position and self._begin(segment, 0) < self.until_position
        ]

    def _opened(self, flushed: int | None) -> Iterable[SegmentReader]:
        """The segments in order, each bounded by where the next begins, the newest by the flushed cursor if there is one."""
        found = self._segments()
        for index, segment in enumerate(found):
            try:
                reader = SegmentReader(segment.path)
            except (NotARing, OSError) as error:
                self.result.fault(0, str(error))
                continue
            try:
                if reader.first_sequence != segment.first_sequence:
                    self.result.fault(reader.first_position, misnamed(segment, reader))
                if (reader.exchange, reader.chunk) != (self.exchange, self.chunk):
                    self.result.fault(reader.first_position, f"{segment.path}: is of {reader.exchange} chunk {reader.chunk}")
                if index + 1 < len(found):
                    # Shorter than that after a power cut: then it was cut behind its last whole record.
                    reader.bound(min(reader.limit, self._begin(found[index + 1], reader.limit)))
                elif flushed is not None:
                    reader.bound(max(flushed, reader.first_position))
                yield reader
            finally:
                reader.close()

    def _begin(self, segment: Segment, otherwise: int) -> int:
        try:
            return first_position(segment.path)
        except (NotARing, OSError):
            return otherwise  # reported when it is its turn

    def _compare(self, ring: RingReader) -> None:
        """Ring and journal, byte for byte, where both hold the same positions."""
        for reader in self._opened(min(ring.flushed, ring.committed)):
            if reader.ring_id != ring.ring_id:
                self.result.fault(reader.first_position, f"{reader.path.name} is of ring {reader.ring_id}, the ring is {ring.ring_id}")
                continue
            position = max(ring.oldest_position, reader.first_position)
            end = min(reader.limit, ring.committed)  # of a copied ring the journal may have gone on
            while position < end:
                size = min(BLOCK - position % BLOCK, end - position)
                in_ring = ring.raw(position, size)
                if in_ring is None:
                    position = max(ring.oldest_position, position + size)
                    continue
                in_journal = reader.raw(position, size)
                if in_ring != in_journal:
                    same = next((i for i, (a, b) in enumerate(zip(in_ring, in_journal, strict=False)) if a != b), len(in_journal))
                    self.result.fault(position + same, "ring and journal differ")
                self.result.compared_bytes += size
                self._advance(size)
                position += size

    def _scan_journal(self, target: int | None) -> None:
        """All that is on disk; up to `target` where a flusher is at work on the rest."""
        flushed = None
        if self.ring is not None and target is not None:
            flushed = self._flushed(self.ring, target)
        for reader in self._opened(flushed):
            self.result.segments += 1
            self._ring_id = self._ring_id or reader.ring_id
            if self.ring is None and reader.ring_id != self._ring_id:
                before = f"those before it of {self._ring_id}"
                self.result.fault(reader.first_position, f"{reader.path.name} is of ring {reader.ring_id}, {before}")
            self._scan(reader, min(reader.limit, self.until_position))
            self._journal_end = reader.position
            self.result.open_end = reader.open_end
            self._newest = (reader.first_position, reader.first_sequence)

    def _flushed(self, ring: RingReader, target: int) -> int:
        """The flushed cursor, once it has reached `target` or there is no one left to move it."""
        deadline = time.monotonic() + FLUSH_DEADLINE_S
        while ring.flushed < target and unix_ns() - ring.heartbeat_ns < ALIVE_NS and time.monotonic() < deadline:
            time.sleep(0.01)
        return min(ring.flushed, ring.committed)

    def _scan_ring(self, ring: RingReader, target: int) -> None:
        """What only the ring has."""
        expected = self.scanner.last_sequence + 1
        if self._journal_end and expected >= ring.first_sequence:
            # By position: the block may be overwritten in part already, and then no search by sequence finds the rest.
            ring.seek_position(self._journal_end)
        elif self.scanner.last_sequence:
            ring.seek_sequence(expected)
        else:
            ring.seek_oldest()
        self._scan(ring, min(target, self.until_position))

    def _scan(self, reader: StreamReader, limit: int) -> None:
        self.first_position = min(self.first_position, reader.position)
        while True:
            before = reader.position
            items = self.scanner.scan(reader, STEP_RECORDS, limit)
            for item in items:
                self._take(item)
            self._advance(reader.position - before)
            self.end_position = max(self.end_position, reader.position)
            if not items and reader.position == before:
                return

    def _take(self, item: Record | Lapped | Corrupt | Fault | Jump) -> None:
        """Remember what a record that is no trade says, and what is wrong."""
        match item:
            case Fault():
                self.result.fault(item.position, item.reason, item.sequence)
            case Corrupt():
                self._damage.append((item, None))
            case Jump():
                self._jumps.append(item)
                for index in range(len(self._damage) - item.damages, len(self._damage)):
                    self._damage[index] = (self._damage[index][0], item)
            case Lapped():
                self.result.lapped += item.records
                self.overtaken += item.records if self.scanner.records else 0
                self._judge_holes()  # what was overwritten cannot be told from what is missing
            case Record():
                self._take_event(item)

    def _take_event(self, record: Record) -> None:
        if record.type not in _EVENTS:
            return
        try:
            fields = json.loads(record.payload)
            if not isinstance(fields, dict):
                raise TypeError(f"{type(fields).__name__} instead of an object")
            self._take_fields(record, fields)
            self.tell(record, fields)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            self.result.fault(record.position, f"payload of a record of type {record.type}: {error!r}", record.sequence)

    def _take_fields(self, record: Record, fields: dict[str, Any]) -> None:
        """Remember what the record says of ids and sequences that are missing."""
        if record.type == RecordType.HOLE:
            self._holes.append(span(fields, "sequence"))
        elif record.type == RecordType.GAP:
            self._gaps[instrument(fields)].append(span(fields, "id"))
        elif record.type == RecordType.SNAPSHOT:
            # It names the gaps that were recorded before it; of some the record may lie in a hole of the journal.
            for state in fields["instruments"]:
                for first, last, _, gap_from, _ in state.get("holes", ()):
                    if gap_from >= 0:
                        self._gaps[instrument(state)].append((int(first), int(last)))
        elif record.type == RecordType.BOUNDARY and fields["event"] == "stop":
            self._stopped_at = record.sequence

    def _judge_holes(self) -> None:
        """Sort the missing ids into recorded, lost with the journal, unsettled and unrecorded."""
        result = self.result
        result.instruments = max(result.instruments, self.scanner.instruments)
        recorded = {key: Intervals(gaps) for key, gaps in self._gaps.items()}
        accounted = Intervals(self._holes)
        self.settled_ns = self.scanner.last_write_ns - (0 if self._stopped_at == self.scanner.last_sequence else GRACE_NS)
        for hole in self.scanner.take_holes():
            gaps = recorded.get((hole.asset, hole.era), _NOTHING)
            for first, last in gaps.within(hole.from_id, hole.to_id):
                result.recorded_ids += last - first + 1
                result.recorded_holes.append(Ids(hole.asset, hole.era, first, last))
            for first, last in gaps.without(hole.from_id, hole.to_id):
                ids = Ids(hole.asset, hole.era, first, last)
                jumps = self._jumps[hole.jumps.start : hole.jumps.stop]
                if any(accounted.within(jump.from_sequence, jump.to_sequence) for jump in jumps):
                    result.lost_ids += last - first + 1
                    result.lost_holes.append(ids)
                elif hole.began_ns > self.settled_ns:
                    result.unsettled_ids += last - first + 1
                    result.unsettled_holes.append(ids)
                else:
                    result.unrecorded_ids += last - first + 1
                    result.unrecorded_holes.append(ids)

    def _conclude(self) -> None:
        result, scanner = self.result, self.scanner
        self._judge_holes()
        self.known_until_ns = max(self.known_until_ns, scanner.last_write_ns)
        position, sequence = self._newest
        if 0 < scanner.last_sequence < sequence - 1 and self.until_position == FOREVER:
            # No record behind its header shows that those before it are gone; the header does.
            self._jumps.append(Jump(position, scanner.last_sequence + 1, sequence - 1, 0))
        accounted = Intervals(self._holes)
        for damage, jump in self._damage:
            # A start that found it has written down which records it cost.
            if jump is None or accounted.without(jump.from_sequence, jump.to_sequence):
                result.fault(damage.position, f"no valid record: {damage.reason}")
        for jump in self._jumps:
            for first, last in accounted.without(jump.from_sequence, jump.to_sequence):
                lossy = "; the disk is not taking the journal now (mode lossy)" if self._lossy else ""
                result.fault(jump.position, f"sequences {first} to {last} are missing, and no hole record says so{lossy}", last + 1)
            result.missing_sequences += accounted.within(jump.from_sequence, jump.to_sequence)
        result.first_sequence = scanner.first_sequence
        result.last_sequence = scanner.last_sequence
        result.records = scanner.records
        result.trades = scanner.trades
        result.duplicates = scanner.duplicates
        result.bytes = scanner.bytes
        result.good = not result.faults and not result.unrecorded_holes


def instrument(fields: dict[str, Any]) -> tuple[str, int]:
    """Name and era of the instrument that a record speaks of. Raises KeyError, TypeError, ValueError."""
    asset = fields["asset"]
    if not isinstance(asset, str):
        raise TypeError(f"asset is {asset!r}")
    return asset, int(fields.get("era", 0))


def span(fields: dict[str, Any], of: str) -> tuple[int, int]:
    """The ids or sequences that a record speaks of, both ends included. Raises KeyError, TypeError, ValueError."""
    first, last = fields[f"from_{of}"], fields[f"to_{of}"]
    if not isinstance(first, int) or not isinstance(last, int):
        raise TypeError(f"from_{of} is {first!r}, to_{of} {last!r}")
    if first > last:
        raise ValueError(f"from_{of} {first} is above to_{of} {last}")
    return first, last
