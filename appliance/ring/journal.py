"""The journal of one chunk: its segments on disk, read as one stream, cut and deleted by rule."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from appliance.errors import NotARing
from appliance.ring.layout import BLOCK, JOURNAL_HEADER, RECORD_HEADER
from appliance.ring.reader import Corrupt, Lapped, Record, SegmentReader

_NAME = re.compile(r"^(?P<exchange>[a-z0-9]+)_trade_chunk(?P<chunk>\d+)\.(?P<first>\d+)\.journal$")


@dataclass(slots=True, frozen=True, order=True)
class Segment:
    """One segment file, by its name."""

    exchange: str
    chunk: int
    first_sequence: int
    path: Path


def segments(journal_dir: Path, exchange: str | None = None, chunk: int | None = None) -> list[Segment]:
    """The segments of a journal directory in stream order; all chunks unless one is named."""
    found = []
    for path in journal_dir.iterdir() if journal_dir.is_dir() else ():
        match = _NAME.match(path.name)
        if match is None:
            continue
        segment = Segment(match["exchange"], int(match["chunk"]), int(match["first"]), path)
        if exchange in (None, segment.exchange) and chunk in (None, segment.chunk):
            found.append(segment)
    return sorted(found)


class JournalReader:
    """All segments of one chunk as one stream: where a segment ends is where the next begins.

    `flushed`: the position up to which the newest segment may be read, for a journal that is being written;
    without it the end is found by reading.
    """

    def __init__(self, journal_dir: Path, exchange: str, chunk: int) -> None:
        self.journal_dir = journal_dir
        self.exchange = exchange
        self.chunk = chunk
        self.flushed: int | None = None
        self._segments: list[Segment] = []
        self._current: Segment | None = None
        self._inode = 0  # of the current segment's file: one that was ended by an error is replaced under its name
        self._reader: SegmentReader | None = None
        self._expected = 0  # the next sequence; 0: not known
        self.refresh()

    @property
    def reader(self) -> SegmentReader | None:
        """The reader of the segment that the cursor lies in."""
        return self._reader

    @property
    def open_end(self) -> bool:
        """Whether the newest segment ends in bytes that are no record: it was being written."""
        return self._reader is not None and self._reader.open_end

    def refresh(self) -> None:
        """Look for segments that have come or gone."""
        self._segments = segments(self.journal_dir, self.exchange, self.chunk)
        if self._reader is None or self._current is None:
            return
        if self._current in self._segments and _inode(self._current.path) not in (0, self._inode):
            self._continue_in(self._current)
        else:
            self._bound()

    def poll(self, limit: int = 1024) -> list[Record | Lapped | Corrupt]:
        """Up to `limit` items from the cursor on; empty at the end of the newest segment."""
        if self._reader is None:
            self.refresh()
            if not any(self._open(segment) for segment in self._segments):
                return []
        assert self._reader is not None
        while not (items := self._reader.poll(limit)):
            if (segment := self._next()) is None:
                self.refresh()
                # A new segment says where this one ends: further on, perhaps, than it was read.
                if (items := self._reader.poll(limit)) or self._next() is None:
                    break
            elif not self._continue_in(segment):
                self.refresh()
        return self._checked(items)

    def seek_sequence(self, sequence: int) -> None:
        """Go to record `sequence`, to the oldest when it is gone, to the end when it is still to come."""
        self.refresh()
        index = sum(segment.first_sequence <= sequence for segment in self._segments) - 1
        if any(self._open(segment) for segment in self._segments[max(index, 0) :]) and self._reader is not None:
            self._reader.seek_sequence(sequence)

    def seek_time(self, time_ns: int) -> None:
        """Go to the first record written at or after `time_ns` (UNIX ns)."""
        self.refresh()
        for segment in reversed(self._segments):
            if not self._open(segment) or self._reader is None:
                continue
            items = self._reader.poll(1)
            if segment is self._segments[0] or (items and isinstance(items[0], Record) and items[0].write_ns < time_ns):
                self._reader.seek_time(time_ns)
                return

    def close(self) -> None:
        """Close the open segment."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def __iter__(self) -> Iterator[Record | Lapped | Corrupt]:
        while items := self.poll():
            yield from items

    def _next(self) -> Segment | None:
        """The segment behind the current one."""
        return next((segment for segment in self._segments if self._current is not None and segment > self._current), None)

    def _open(self, segment: Segment) -> bool:
        """Go to the begin of a segment; False when it has been deleted by now."""
        try:
            inode = _inode(segment.path)
            reader = SegmentReader(segment.path)
        except FileNotFoundError:
            return False
        if reader.first_sequence != segment.first_sequence:
            raise NotARing(misnamed(segment, reader))
        self.close()
        self._current, self._inode, self._reader = segment, inode, reader
        self._expected = 0
        self._bound()
        return True

    def _continue_in(self, segment: Segment) -> bool:
        """Go on in a segment that may repeat the end of what was read: each begins at a block."""
        assert self._reader is not None
        position, expected = self._reader.position, self._expected
        if not self._open(segment):
            return False
        if position > self._reader.first_position:
            self._reader.seek_position(position)
        self._expected = expected
        return True

    def _bound(self) -> None:
        """The next segment's first position ends this one; the newest one ends at `flushed`."""
        assert self._reader is not None
        following = self._next()
        try:
            self._reader.bound(self.flushed if following is None else first_position(following.path))
        except FileNotFoundError:
            self._reader.bound(self._reader.position)  # both deleted: the next refresh finds what comes behind them

    def _checked(self, items: list[Record | Lapped | Corrupt]) -> list[Record | Lapped | Corrupt]:
        """`items`, and what is missing between two segments as Lapped: the journal does not have it."""
        checked: list[Record | Lapped | Corrupt] = []
        for item in items:
            if isinstance(item, Record):
                if self._expected and item.sequence > self._expected:
                    checked.append(Lapped(self._expected, item.sequence - 1))
                self._expected = item.sequence + 1
            else:
                self._expected = 0
            checked.append(item)
        return checked


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def first_position(path: Path) -> int:
    """Position of the stream at which the segment at `path` begins."""
    reader = SegmentReader(path)
    try:
        return reader.first_position
    finally:
        reader.close()


@dataclass(slots=True, frozen=True)
class JournalEnd:
    """Where a chunk's journal ends on disk."""

    ring_id: str
    epoch: int
    position: int
    sequence: int
    write_ns: int
    cut_bytes: int = 0
    """What stood behind that and was no record: torn by a power cut, or damaged. Counted up to one block."""


def identity(journal_dir: Path, exchange: str, chunk: int) -> str | None:
    """The ring_id of a chunk's newest segment; None without segments."""
    for newest in segments(journal_dir, exchange, chunk)[-1:]:
        reader = SegmentReader(newest.path)
        try:
            return reader.ring_id
        finally:
            reader.close()
    return None


def recover(journal_dir: Path, exchange: str, chunk: int, flushed: int | None, in_ring: int | None = None) -> JournalEnd | None:
    """Cut the newest segment after its last good record, and say where that is; None without segments.

    `flushed`, `in_ring`: of a ring that outlived its writer, what is known to be on disk, so that nothing need be read
    up to there; and the oldest position that can be written again from it, where the disk has damaged the newest block.
    """
    for hidden in journal_dir.glob(f".{exchange}_trade_chunk{chunk}.next"):
        hidden.unlink()
    while found := segments(journal_dir, exchange, chunk):
        newest = found[-1]
        try:
            reader = SegmentReader(newest.path)
        except NotARing as error:
            raise NotARing(f"{error}; it is the newest segment: restore it or move it away, then start again") from None
        try:
            if newest.first_sequence != reader.first_sequence:
                raise NotARing(misnamed(newest, reader))
            end = _last_flushed(reader, flushed, in_ring) or _last_record(reader)
            size = end.position - reader.first_position + JOURNAL_HEADER
            if end.position != flushed:
                end = replace(end, cut_bytes=_written(reader.raw(end.position, BLOCK)))
        finally:
            reader.close()
        fd = os.open(newest.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_size > size:
                os.ftruncate(fd, size)
            os.fsync(fd)
        finally:
            os.close(fd)
        _fsync_directory(journal_dir)
        if end.position > reader.first_position or len(found) == 1:
            return end
        # It got its name and no record: the one before it holds the end.
        newest.path.unlink()
        _fsync_directory(journal_dir)
    return None


def misnamed(segment: Segment, reader: SegmentReader) -> str:
    """What to say of a segment whose name is not its own."""
    return f"{segment.path}: begins with sequence {reader.first_sequence}, not {segment.first_sequence} as its name says; rename it back"


def _last_flushed(reader: SegmentReader, flushed: int | None, in_ring: int | None) -> JournalEnd | None:
    """Where the newest segment ends by the ring's cursor, or before that a block that the ring still has; None: not to be told so."""
    if flushed is None or not reader.first_position <= flushed <= reader.limit:
        return None
    while True:
        # Reading one block is enough to know the last record's sequence.
        start = max(reader.first_position, (flushed - 1) // BLOCK * BLOCK)
        reader.bound(flushed)
        reader.seek_position(start)
        items = reader.poll(BLOCK)
        if reader.position == flushed and all(isinstance(item, Record) for item in items):
            return _end(reader, flushed, items)
        if in_ring is None or start < in_ring or start == reader.first_position:
            reader.bound()
            reader.seek_position(reader.first_position)
            return None
        flushed = start


def _last_record(reader: SegmentReader) -> JournalEnd:
    """Where the last good record ends. Damage before it stays: what it cost, a hole record says after the start."""
    end = _end(reader, reader.first_position, [])
    while items := reader.poll():
        good = [item for item in items if isinstance(item, Record)]
        if good:
            end = _end(reader, good[-1].position + (RECORD_HEADER + len(good[-1].payload) + 7) // 8 * 8, good)
    return end


def _end(reader: SegmentReader, position: int, items: Sequence[Record | Lapped | Corrupt]) -> JournalEnd:
    last = next((item for item in reversed(items) if isinstance(item, Record)), None)
    if last is None:
        return JournalEnd(reader.ring_id, reader.epoch, position, reader.first_sequence - 1, 0)
    return JournalEnd(reader.ring_id, max(reader.epoch, last.epoch), position, last.sequence, last.write_ns)


def _written(content: bytes) -> int:
    """How many of these bytes stand before the zeros of a file that was allocated ahead."""
    return len(content.rstrip(b"\0"))


def _fsync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def retire(journal_dir: Path, exchange: str, chunk: int, older_than_ns: int, keep_free_bytes: int) -> list[Path]:
    """Delete the oldest closed segments: those last written before `older_than_ns`, and more while free space is short.

    The newest segment stays, whatever the rules say. Returns what was deleted.
    """
    deleted = []
    closed = segments(journal_dir, exchange, chunk)[:-1]
    for segment in closed:
        free = os.statvfs(journal_dir)
        try:
            old = segment.path.stat().st_mtime_ns < older_than_ns
        except FileNotFoundError:
            continue  # somebody else's deletion
        short = free.f_bavail * free.f_frsize < keep_free_bytes
        if not old and not short:
            break
        segment.path.unlink(missing_ok=True)
        deleted.append(segment.path)
    return deleted
