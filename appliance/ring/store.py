"""One chunk's ring and journal together: made, taken over after a crash, flushed, closed."""

import errno
import os
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import CannotRun, NotARing
from appliance.ring import journal
from appliance.ring.flusher import Flusher
from appliance.ring.layout import BLOCK, new_meta, offsets
from appliance.ring.mapping import Mapping
from appliance.ring.reader import Corrupt, Record, RingReader
from appliance.ring.writer import Writer

_OFFSETS = offsets()


@dataclass(slots=True, frozen=True)
class StoreOptions:
    """How a chunk is kept. Sizes in bytes; `capacity_bytes` is a power of two of at least two blocks."""

    capacity_bytes: int
    segment_bytes: int = 256 << 20
    segment_minutes: float = 60.0
    flush_interval_ms: int = 50
    sync_writes: bool = False
    mlock: bool = True


@dataclass(slots=True, frozen=True)
class Origin:
    """What a start found: the stream goes on behind this."""

    how: str  # "new", "ring" (it outlived its writer), "journal" (the ring was gone or unfit)
    last_sequence: int
    epoch: int
    last_write_ns: int  # 0: unknown
    cut_bytes: int = 0  # of the journal's end, that were no record


class ChunkStore:
    """The writer and the flusher of one chunk. The directories' Ownership must be held."""

    def __init__(
        self, writer: Writer, flusher: Flusher | None, origin: Origin, options: StoreOptions, mappings: tuple[Mapping, Mapping]
    ) -> None:
        self.writer = writer
        self.flusher = flusher
        self.origin = origin
        self.locked = mappings[1].locked_bytes == mappings[1].size
        self._options = options
        self._turned_at = writer.position
        self._turned_monotonic = time.monotonic()

    @classmethod
    def open(cls, ring_dir: Path, journal_dir: Path | None, exchange: str, chunk: int, options: StoreOptions) -> "ChunkStore":
        """Make the ring, or go on with what is there. Raises CannotRun when a directory does not allow it."""
        name = f"{exchange}_trade_chunk{chunk}"
        meta_path = ring_dir / f"{name}.meta"
        try:
            origin = _prepare(meta_path, journal_dir, exchange, chunk, options)
            meta = _map(meta_path, options.mlock)
            data = _map(meta_path.with_suffix(".data"), options.mlock)
        except OSError as error:
            needs = f"; the ring needs {options.capacity_bytes >> 20} MiB, the journal {2 * options.segment_bytes >> 20} MiB ahead"
            raise CannotRun(
                f"{error.filename or meta_path}: {error.strerror}{needs if error.errno in (errno.ENOSPC, errno.ENOMEM) else ''}"
            ) from error
        writer = Writer(meta, data, origin.last_sequence, origin.last_write_ns, journal_dir is not None)
        flusher = None
        if journal_dir is not None:
            flusher = Flusher(meta, data, journal_dir, name, options.segment_bytes, options.flush_interval_ms, options.sync_writes)
        return cls(writer, flusher, origin, options, (meta, data))

    def start(self) -> None:
        """Begin to flush."""
        if self.flusher is not None:
            self.flusher.start()

    def await_room(self, room_bytes: int, timeout_s: float, lossy: bool = True) -> bool:
        """Wait until the flusher has made room. False if the disk did not take it in time: then mode lossy, if that is allowed."""
        deadline_s = time.monotonic() + timeout_s
        while self.flusher is not None and self.writer.room_bytes < room_bytes:
            if self.flusher.failing or time.monotonic() > deadline_s:
                self.writer.lossy = self.writer.lossy or lossy
                return False
            self.flusher.wake()
            time.sleep(0.005)
        return True

    def turn_due(self) -> bool:
        """Whether the next segment should begin, by size or age."""
        if self.flusher is None or self.flusher.turning:
            return False
        written = self.writer.position - self._turned_at
        age_s = time.monotonic() - self._turned_monotonic
        return written >= self._options.segment_bytes or (age_s >= self._options.segment_minutes * 60 and written > 0)

    def turn(self, position: int) -> None:
        """The block at `position`, which begins with a snapshot, begins the next segment."""
        self._turned_at = position
        self._turned_monotonic = time.monotonic()
        if self.flusher is not None:
            self.flusher.turn(position)

    def flush(self, timeout_s: float) -> bool:
        """Have all that is committed now on disk; False after a disk error, or if it took too long."""
        return self.flusher is None or self.flusher.flush(timeout_s)

    def drain(self, timeout_s: float) -> bool:
        """Flush all that is committed and end the flusher; False if the disk did not take it in time."""
        drained = self.flusher.stop(timeout_s) if self.flusher is not None else True
        if drained:
            self.writer.retire()
        return drained


def _prepare(meta_path: Path, journal_dir: Path | None, exchange: str, chunk: int, options: StoreOptions) -> Origin:
    """Leave a ring of the wanted shape at `meta_path` whose cursors are true."""
    ring = _surviving(meta_path)
    try:
        theirs = journal.identity(journal_dir, exchange, chunk) if journal_dir else None
        # Before anything is cut: this ring's cursors say nothing of another one's journal.
        if ring is not None and theirs is not None and theirs != ring.ring_id:
            raise CannotRun(
                f"{meta_path} and the journal in {journal_dir} belong to different rings ({ring.ring_id[:8]}… and {theirs[:8]}…); "
                "use the journal directory that this ring was written with, or move the ring's files away"
            )
        end = journal.recover(journal_dir, exchange, chunk, *_known(ring)) if journal_dir else None
        if ring is not None and (end is None or end.position <= ring.committed):
            _set_flushed(ring, meta_path, journal_dir, end)
            _clear_replacement(meta_path)
            if ring.capacity == options.capacity_bytes:
                _set(meta_path, "journal_dir", (str(journal_dir.resolve()) if journal_dir else "").encode().ljust(3072, b"\0"))
                return Origin("ring", ring.last_sequence, ring.epoch, _last_write_ns(ring), end.cut_bytes if end else 0)
            if journal_dir is not None:
                _save_tail(ring, meta_path, journal_dir, options)
                end = journal.recover(journal_dir, exchange, chunk, *_known(ring))
        last_sequence = end.sequence if end else (ring.last_sequence if ring else 0)
        position = end.position if end else (ring.committed if ring else 0)
        stream = end or ring
        ring_id = bytes.fromhex(stream.ring_id) if stream else os.urandom(16)
        epoch = max(end.epoch if end else 0, ring.epoch if ring else 0)
        last_write_ns = end.write_ns if end else (_last_write_ns(ring) if ring else 0)
        _build(meta_path, options.capacity_bytes, new_meta(
            ring_id, exchange, chunk, socket.gethostname(), options.capacity_bytes, (position + BLOCK - 1) // BLOCK * BLOCK,
            last_sequence + 1, time.time_ns(), str(journal_dir.resolve()) if journal_dir else "", epoch,
        ))  # fmt: skip
        return Origin("journal" if position else "new", last_sequence, epoch, last_write_ns, end.cut_bytes if end else 0)
    finally:
        if ring is not None:
            ring.close()


def _surviving(meta_path: Path) -> RingReader | None:
    """The ring that is there, if all of its newest block is in order."""
    if not meta_path.exists():
        return None
    try:
        ring = RingReader(meta_path)
    except (NotARing, FileNotFoundError):
        return None
    if any(isinstance(item, Corrupt) for item in _newest_block(ring)) or ring.position != ring.committed:
        ring.close()
        return None
    return ring


def _clear_replacement(meta_path: Path) -> None:
    """Take back what a start that was killed had prepared: this ring goes on."""
    _set(meta_path, "replaced", struct.pack("<Q", 0))
    for path in (meta_path, meta_path.with_suffix(".data")):
        path.with_name(f".{path.name}.new").unlink(missing_ok=True)


def _known(ring: RingReader | None) -> tuple[int | None, int | None]:
    """What a surviving ring says of the journal: how far it is on disk, and from where on it can be written again."""
    return (None, None) if ring is None else (ring.flushed, ring.oldest_position)


def _set_flushed(ring: RingReader, meta_path: Path, journal_dir: Path | None, end: journal.JournalEnd | None) -> None:
    """Let the flusher go on where the journal really ends: it may have been emptied, cut or exchanged."""
    if journal_dir is None:
        flushed, sequence = ring.committed, ring.last_sequence
    elif end is None:
        # No journal of this ring here: what the ring still holds is written out first.
        flushed, sequence = ring.oldest_position, _sequence_at(ring, ring.oldest_position) - 1
    elif end.position < ring.first_position:
        # The ring was made behind the journal's end, at a block, and nothing of it is on disk yet.
        flushed, sequence = ring.first_position, ring.first_sequence - 1
    else:
        flushed, sequence = end.position, end.sequence
    if flushed < ring.flushed:
        _set(meta_path, "flush_marks_count", struct.pack("<Q", 0))  # the marks behind it are no longer true
    _set(meta_path, "flushed", struct.pack("<QQ", flushed, sequence))


def _newest_block(ring: RingReader) -> list[object]:
    """Every item of the block that `committed` lies behind."""
    if ring.committed <= ring.oldest_position:
        ring.seek_newest()
        return []
    ring.seek_position(max(ring.oldest_position, (ring.committed - 1) // BLOCK * BLOCK))
    return list(ring.poll(BLOCK))


def _last_write_ns(ring: RingReader) -> int:
    return max((item.write_ns for item in _newest_block(ring) if isinstance(item, Record)), default=0)


def _sequence_at(ring: RingReader, position: int) -> int:
    """Sequence of the first record at or after `position`, a block's start."""
    ring.seek_position(position)
    for item in ring.poll(1):
        if isinstance(item, Record):
            return item.sequence
    return ring.last_sequence + 1


def _save_tail(ring: RingReader, meta_path: Path, journal_dir: Path, options: StoreOptions) -> None:
    """Write out what a ring of another shape holds and the journal does not, before it is replaced."""
    if ring.flushed >= ring.committed:
        return
    flusher = Flusher(
        _map(meta_path, False), _map(meta_path.with_suffix(".data"), False), journal_dir, meta_path.stem, options.segment_bytes, 1, False
    )
    flusher.start()
    if not flusher.stop(timeout_s=60.0):
        raise CannotRun(
            f"{journal_dir}: the journal does not take what {meta_path} still holds ({flusher.error_text}); free the disk and start again"
        )


def _build(meta_path: Path, capacity_bytes: int, meta: bytes) -> None:
    """Make both files under other names, whole, and give them their names: `.data` first, `.meta` makes it a ring."""
    data_path = meta_path.with_suffix(".data")
    hidden = {path: path.with_name(f".{path.name}.new") for path in (data_path, meta_path)}
    try:
        for path, size, content in ((data_path, capacity_bytes, b""), (meta_path, len(meta), meta)):
            _write(hidden[path], size, content)
    except OSError as error:
        for made in hidden.values():
            made.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    if meta_path.exists():
        _set(meta_path, "replaced", struct.pack("<Q", 1))
    # A crash between the two leaves the old .meta with the new .data: of another size, or without the records it tells of.
    for path in (data_path, meta_path):
        hidden[path].rename(path)


def _write(path: Path, size: int, content: bytes) -> None:
    fd = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_RDWR | os.O_CLOEXEC, 0o640)
    try:
        os.posix_fallocate(fd, 0, size)
        os.pwrite(fd, content, 0)
    finally:
        os.close(fd)


def _set(meta_path: Path, field: str, content: bytes) -> None:
    fd = os.open(meta_path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.pwrite(fd, content, _OFFSETS[field])
    finally:
        os.close(fd)


def _map(path: Path, lock: bool) -> Mapping:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return Mapping(fd, True, lock)
    finally:
        os.close(fd)
