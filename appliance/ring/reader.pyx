"""Readers of a ring and of a journal segment: copy, check, seek, say what was lapped or corrupt."""
import os
from pathlib import Path

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EINTR, ENXIO, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from posix.unistd cimport lseek, pread

from appliance.ring.atomics cimport copy_out, fence_acquire, load_acquire, load_relaxed
from appliance.ring.crc32c cimport crc32c, crc32c_of_record
from appliance.ring.layout cimport (
    BLOCK_BYTES,
    FLUSH_MARKS,
    FORMAT_VERSION,
    JOURNAL_HEADER_BYTES,
    META_BYTES,
    PADDING,
    RECORD_BYTES_MAX,
    RECORD_HEADER_BYTES,
    WORD_BYTES,
    FlushMark,
    JournalHeader,
    RecordHeader,
    align_up,
    block_end,
    summarize,
)
from appliance.ring.mapping cimport Mapping

from dataclasses import dataclass

from appliance.errors import NotARing
from appliance.ring.layout import COUNTER_NAMES, FLUSHER_COUNTER_NAMES, MAGIC_JOURNAL, MAGIC_RING


@dataclass(slots=True, frozen=True)
class Record:
    """One committed record: times in UNIX ns, payload as written."""

    type: int
    sequence: int
    position: int
    epoch: int
    flags: int
    codec: int
    recv_ns: int
    parse_ns: int
    enqueue_ns: int
    write_ns: int
    payload: bytes


@dataclass(slots=True, frozen=True)
class Lapped:
    """The writer overtook the reader: these records are no longer in the ring."""

    from_sequence: int
    to_sequence: int

    @property
    def records(self) -> int:
        return self.to_sequence - self.from_sequence + 1


@dataclass(slots=True, frozen=True)
class Corrupt:
    """Bytes behind the cursor that are no valid record; reading goes on at the next good one."""

    position: int
    reason: str


cdef extern from "<unistd.h>" nogil:
    int SEEK_DATA

cdef uint64_t POSITION_MAX = 1 << 62     # of a stream that can be: a century at 1 GB/s is less


cdef const char* fault(const char* record, uint64_t position, uint64_t available) noexcept nogil:
    """What is wrong with the record at `record`, read at `position`; NULL when it is good."""
    cdef const RecordHeader* header = <const RecordHeader*>record
    if header.length < RECORD_HEADER_BYTES or header.length > available:
        return b"length"
    if header.position != position:
        return b"position"
    if header.crc32c != crc32c_of_record(record, header.length):
        return b"checksum"
    return NULL


cdef class StreamReader:

    def __cinit__(self):
        self.buffer = <char*>calloc(1, RECORD_BYTES_MAX)
        if self.buffer == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.buffer)

    cdef Step next(self) noexcept nogil:
        """Go one step on; STEP_NOTHING at the end of what there is."""
        return STEP_NOTHING

    cdef Step accept(self) noexcept nogil:
        """`buffer` holds a good record: move past it, and say what a jump before it has skipped."""
        cdef RecordHeader* header = <RecordHeader*>self.buffer
        cdef uint64_t expected = self.next_sequence
        if expected and not self.skipped and header.sequence != expected:
            return self.corrupt(b"sequence")
        self.position += align_up(header.length)
        self.next_sequence = header.sequence + 1
        if self.skipped:
            self.skipped = False
            if expected and header.sequence > expected:
                self.lapped_from = expected
                self.lapped_to = header.sequence - 1
                self.held = True
                return STEP_LAPPED
        return STEP_RECORD

    cdef Step corrupt(self, const char* reason) noexcept nogil:
        self.corrupt_position = self.position
        self.corrupt_reason = reason
        self.position = block_end(self.position)
        self.next_sequence = 0
        return STEP_CORRUPT

    cdef object take(self):
        """The record in `buffer` as a Python object."""
        cdef RecordHeader* header = <RecordHeader*>self.buffer
        return Record(
            header.type, header.sequence, header.position, header.epoch, header.flags, header.codec,
            header.recv_ns, header.parse_ns, header.enqueue_ns, header.write_ns,
            PyBytes_FromStringAndSize(self.buffer + RECORD_HEADER_BYTES, header.length - RECORD_HEADER_BYTES),
        )

    def poll(self, int limit=1024) -> list:
        """Up to `limit` items in commit order: Record, Lapped or Corrupt. Empty at the end; never waits."""
        cdef list items = []
        cdef Step step
        while len(items) < limit:
            step = self.next()
            if step == STEP_NOTHING:
                break
            if step == STEP_RECORD:
                items.append(self.take())
            elif step == STEP_LAPPED:
                items.append(Lapped(self.lapped_from, self.lapped_to))
            else:
                items.append(Corrupt(self.corrupt_position, self.corrupt_reason.decode()))
        self.check()
        return items

    cdef int check(self) except -1:
        """Raise OSError for what could not be read: it is neither the end nor damage."""
        return 0


cdef class RingReader(StreamReader):
    """Follow one ring, given its `.meta` file. Starts at the oldest record. Raises NotARing, OSError."""

    def __init__(self, meta_path):
        self.meta_path = Path(meta_path)
        data_path = self.meta_path.with_suffix(".data")
        # Before the mapping: a ring that takes the name meanwhile shows as another inode, and the files are opened anew.
        self.inode = os.stat(self.meta_path).st_ino
        self.meta_mapping = map_file(self.meta_path)
        if self.meta_mapping.size < META_BYTES:
            raise NotARing(f"{meta_path}: {self.meta_mapping.size} bytes, a ring's .meta has {META_BYTES}")
        self.meta = <Meta*>self.meta_mapping.address
        if self.meta.magic[:8] != MAGIC_RING:
            raise NotARing(f"{meta_path}: does not begin as a ring's .meta does")
        if self.meta.format_version != FORMAT_VERSION:
            raise NotARing(f"{meta_path}: format version {self.meta.format_version}, this program reads {FORMAT_VERSION}")
        self.data_mapping = map_file(data_path)
        self.capacity = self.meta.capacity
        if self.data_mapping.size != self.capacity:
            raise NotARing(f"{data_path}: {self.data_mapping.size} bytes, its .meta says {self.capacity}")
        if self.capacity < 2 * BLOCK_BYTES or self.capacity & (self.capacity - 1) or self.meta.block_bytes != BLOCK_BYTES:
            raise NotARing(
                f"{meta_path}: capacity {self.capacity}, blocks of {self.meta.block_bytes}; expected a power of two and {BLOCK_BYTES}"
            )
        self.check_cursors()
        self.data = self.data_mapping.address
        self.mask = self.capacity - 1
        self.name = self.meta_path.stem
        self.exchange = text(self.meta.exchange[:32])
        self.host = text(self.meta.host[:64])
        self.ring_id = self.meta.ring_id[:16].hex()
        self.chunk = self.meta.chunk
        journal_dir = text(self.meta.journal_dir[:3072])
        self.journal_dir = Path(journal_dir) if journal_dir else None
        self.seek_oldest()

    cdef check_cursors(self):
        """Raise NotARing for cursors that no writer leaves behind: followed, they would lead anywhere."""
        # In this order: each only grows, so that a writer at work cannot make them look wrong.
        cdef uint64_t flushed = load_acquire(&self.meta.flushed)
        cdef uint64_t committed = load_acquire(&self.meta.committed)
        cdef uint64_t claimed = load_acquire(&self.meta.claimed)
        cdef uint64_t later = load_acquire(&self.meta.committed)
        cdef uint64_t first = self.meta.first_position
        if (
            not first <= flushed <= committed <= claimed <= later + self.capacity
            # A ring begins with a block, a record at a word; and no stream is so long that sums of positions overflow.
            or first % BLOCK_BYTES or committed % WORD_BYTES or later > POSITION_MAX
        ):
            raise NotARing(
                f"{self.meta_path}: cursors are damaged: first {first}, flushed {flushed}, committed {committed}, "
                f"claimed {claimed}, capacity {self.capacity}; remove the ring's two files, the journal has what was flushed"
            )

    cdef bint overtaken(self, uint64_t position) noexcept nogil:
        """Whether bytes at `position` may have changed. After a copy, behind an acquire fence, it judges the copy."""
        return load_relaxed(&self.meta.claimed) > position + self.capacity  # ring.pml: R_LAPPED

    cdef uint64_t oldest(self) noexcept nogil:
        """Position of the first block that is still whole."""
        cdef uint64_t claimed = load_acquire(&self.meta.claimed)
        if claimed <= self.meta.first_position + self.capacity:
            return self.meta.first_position
        return (claimed - self.capacity + BLOCK_BYTES - 1) & ~<uint64_t>(BLOCK_BYTES - 1)  # ring.pml: R_OLDEST

    cdef Step next(self) noexcept nogil:
        cdef uint64_t committed, length, word
        cdef uint64_t available
        cdef const uint64_t* shared
        cdef const char* reason
        if self.held:
            self.held = False
            return STEP_RECORD
        while True:
            # Acquire: pairs with the release in Writer.commit; all bytes before `committed` are visible.
            committed = load_acquire(&self.meta.committed)  # ring.pml: R_CURSOR
            if self.position >= committed:
                return STEP_NOTHING
            available = block_end(self.position) - self.position
            shared = <const uint64_t*>(self.data + (self.position & self.mask))
            word = load_relaxed(shared)  # ring.pml: R_FIRST
            length = <uint32_t>word
            if (word >> 32) & 0xFF != PADDING:
                if RECORD_HEADER_BYTES <= length <= available:
                    copy_out(<uint64_t*>self.buffer, shared, align_up(length) >> 3)  # ring.pml: R_COPY
            # Acquire fence: pairs with the release fence in Writer.announce. If any byte that was read belongs to a
            # later record, `claimed` is seen to cover it.
            fence_acquire()  # ring.pml: R_FENCE
            if self.overtaken(self.position):
                self.resume()
                continue
            if (word >> 32) & 0xFF == PADDING:
                if length != available:
                    return self.corrupt(b"padding")
                self.position += length
                continue
            if length < RECORD_HEADER_BYTES or length > available:
                return self.corrupt(b"length")
            reason = fault(self.buffer, self.position, available)
            if reason != NULL:
                return self.corrupt(reason)
            return self.accept()

    cdef void resume(self) noexcept nogil:
        """Lapped: go on an eighth of the ring behind the oldest block, so as not to be lapped again at once."""
        cdef uint64_t target = self.oldest() + ((self.capacity >> 3) & ~<uint64_t>(BLOCK_BYTES - 1))
        cdef uint64_t last = load_acquire(&self.meta.committed) & ~<uint64_t>(BLOCK_BYTES - 1)
        self.position = max(self.oldest(), min(target, last))
        self.skipped = True

    cdef Peek peek(self, uint64_t position, RecordHeader* header) noexcept nogil:
        """Copy the header at `position`, a multiple of 8."""
        cdef uint64_t available = block_end(position) - position
        if position >= load_acquire(&self.meta.committed):
            return PEEK_NOT_YET
        copy_out(<uint64_t*>header, <const uint64_t*>(self.data + (position & self.mask)), 1)
        # Damaged bytes must not lead beyond the block, which may be the mapping's last.
        if header.type != PADDING and available >= RECORD_HEADER_BYTES:
            copy_out(<uint64_t*>header, <const uint64_t*>(self.data + (position & self.mask)), RECORD_HEADER_BYTES >> 3)
        fence_acquire()
        if self.overtaken(position):
            return PEEK_OVERTAKEN
        if header.type == PADDING:
            return PEEK_HEADER if header.length == available else PEEK_DAMAGED
        if header.length < RECORD_HEADER_BYTES or header.length > available or header.position != position:
            return PEEK_DAMAGED
        return PEEK_HEADER

    cdef uint64_t sequence_before(self, uint64_t position) noexcept nogil:
        """Sequence of the last record that ends at or before `position`; 0 when it cannot be told any more."""
        cdef RecordHeader header
        cdef uint64_t sequence = 0
        cdef uint64_t at
        if position <= self.meta.first_position:
            return self.meta.first_sequence - 1
        at = (position - 1) & ~<uint64_t>(BLOCK_BYTES - 1)
        while at < position:
            if self.peek(at, &header) != PEEK_HEADER:
                return 0
            if header.type != PADDING:
                sequence = header.sequence
            at += align_up(header.length)
        return sequence

    def seek_oldest(self):
        """Go to the oldest record that the ring holds. If it is lapped before it is read, that counts."""
        self.seek_where(0, False)

    def seek_newest(self):
        """Go behind the newest record: only what comes from now on."""
        self.position = load_acquire(&self.meta.committed)
        cdef uint64_t last = self.sequence_before(self.position)
        self.next_sequence = last + 1 if last or self.position == self.meta.first_position else 0
        self.skipped = False
        self.held = False

    def seek_position(self, uint64_t position):
        """Go to `position`, where a record or a block begins; the oldest that this file ever had, if that lies before it."""
        self.position = max(position, self.meta.first_position)
        self.next_sequence = 0
        self.held = self.skipped = False

    def seek_sequence(self, uint64_t sequence):
        """Go to record `sequence`; to the oldest one when it is gone, behind the newest when it is still to come."""
        self.seek_where(sequence, False)

    def seek_time(self, int64_t time_ns):
        """Go to the first record written at or after `time_ns` (UNIX ns)."""
        self.seek_where(<uint64_t>max(time_ns, 0), True)

    cdef void seek_where(self, uint64_t wanted, bint by_time) noexcept:
        """Bisect over blocks, each of which begins with a record, then walk the last one."""
        cdef RecordHeader header
        cdef uint64_t low, high, middle, probe
        cdef uint64_t committed
        cdef Peek found
        while True:
            committed = load_acquire(&self.meta.committed)
            low = self.oldest() // BLOCK_BYTES
            high = max(low, (committed + BLOCK_BYTES - 1) // BLOCK_BYTES)
            # The last block in [low, high) whose first record is before `wanted`.
            while high - low > 1:
                middle = probe = (low + high) // 2
                found = self.peek(probe * BLOCK_BYTES, &header)
                while found == PEEK_DAMAGED and probe + 1 < high:
                    probe += 1
                    found = self.peek(probe * BLOCK_BYTES, &header)
                if found == PEEK_OVERTAKEN:
                    low = probe
                elif found == PEEK_HEADER and (<uint64_t>header.write_ns if by_time else header.sequence) < wanted:
                    low = probe
                else:
                    high = middle
            self.position = low * BLOCK_BYTES
            self.next_sequence = self.meta.first_sequence if self.position == self.meta.first_position else 0
            self.skipped = False
            self.held = False
            while self.peek(self.position, &header) == PEEK_HEADER:
                if header.type != PADDING:
                    self.next_sequence = header.sequence
                    if (<uint64_t>header.write_ns if by_time else header.sequence) >= wanted:
                        break
                    self.next_sequence += 1
                self.position += align_up(header.length)
            if not self.overtaken(self.position):
                return

    @property
    def committed(self) -> int:
        """Position after the last committed record."""
        return load_acquire(&self.meta.committed)

    @property
    def committed_sequence(self) -> int:
        """Sequence of the last committed record; what was committed in this instant may be missing."""
        return load_acquire(&self.meta.committed_sequence)

    @property
    def flushed(self) -> int:
        """Position known to be on disk."""
        return load_acquire(&self.meta.flushed)

    @property
    def flushed_sequence(self) -> int:
        return load_acquire(&self.meta.flushed_sequence)

    @property
    def oldest_position(self) -> int:
        """Position of the oldest block that is whole."""
        return self.oldest()

    @property
    def first_position(self) -> int:
        """Position at which this ring file begins in the stream."""
        return self.meta.first_position

    @property
    def first_sequence(self) -> int:
        """Sequence of the first record that this ring file ever held; older ones are in the journal alone."""
        return self.meta.first_sequence

    @property
    def last_sequence(self) -> int:
        """Sequence of the record that ends at `committed`, read from the record itself; for a ring without a writer."""
        return self.sequence_before(load_acquire(&self.meta.committed))

    @property
    def epoch(self) -> int:
        return self.meta.epoch

    @property
    def writer_pid(self) -> int:
        """The writer's process id; 0 after it has ended in good order."""
        return self.meta.writer_pid

    @property
    def writer_started_ns(self) -> int:
        return self.meta.writer_started_ns

    @property
    def heartbeat_ns(self) -> int:
        return <int64_t>load_acquire(<uint64_t*>&self.meta.heartbeat_ns)

    @property
    def watermark_ns(self) -> int:
        """Nothing received before this will still come."""
        return <int64_t>load_acquire(<uint64_t*>&self.meta.watermark_ns)

    @property
    def mode(self) -> str:
        """"safe" or "lossy"."""
        return "lossy" if load_relaxed(&self.meta.mode) else "safe"

    @property
    def replaced(self) -> bool:
        """Whether another ring took this one's name: open it anew."""
        return bool(load_relaxed(&self.meta.replaced))

    def counters(self) -> dict[str, int]:
        """All counters by name, the flusher's too."""
        result = {name: load_relaxed(&self.meta.counters[<int>index]) for index, name in COUNTER_NAMES.items()}
        for index, name in FLUSHER_COUNTER_NAMES.items():
            result[name] = load_relaxed(&self.meta.flusher_counters[<int>index])
        return result

    def histogram(self, str name) -> dict[str, float]:
        """count, mean, max and p50, p90, p99, p999 in ns of "recv_to_commit_ns" or "fdatasync_ns"."""
        if name == "recv_to_commit_ns":
            return summarize(&self.meta.recv_to_commit_ns)
        if name == "fdatasync_ns":
            return summarize(&self.meta.fdatasync_ns)
        raise KeyError(name)

    def persist_ns(self, uint64_t position) -> int | None:
        """When the byte before `position` was known to be on disk (UNIX ns); None: not yet, or too long ago."""
        cdef uint64_t count = load_acquire(&self.meta.flush_marks_count)
        # The oldest mark says only how far the unknown reaches.
        cdef uint64_t low = count - FLUSH_MARKS + 1 if count >= FLUSH_MARKS else 0
        cdef uint64_t high = count
        cdef uint64_t middle
        cdef FlushMark mark
        if count and load_relaxed(&self.meta.flush_marks[low % FLUSH_MARKS].position) >= position:
            return None
        while low < high:
            middle = low + (high - low) // 2
            if load_relaxed(&self.meta.flush_marks[middle % FLUSH_MARKS].position) < position:
                low = middle + 1
            else:
                high = middle
        if low == count:
            return None
        mark.time_ns = <int64_t>load_relaxed(<uint64_t*>&self.meta.flush_marks[low % FLUSH_MARKS].time_ns)
        fence_acquire()
        # Overwritten meanwhile: the flusher went round while we searched.
        if load_acquire(&self.meta.flush_marks_count) >= low + FLUSH_MARKS:
            return None
        return mark.time_ns

    def raw(self, uint64_t position, uint64_t size) -> bytes | None:
        """`size` bytes of the stream from `position` (both multiples of 8, within one block); None if overwritten."""
        if position % 8 or size % 8 or position + size > block_end(position):
            raise ValueError(f"{size} bytes at {position} are not whole words of one block")
        if position + size > load_acquire(&self.meta.committed):
            raise ValueError(f"{size} bytes at {position} are not committed")
        if position < self.meta.first_position:
            return None
        cdef bytes words = PyBytes_FromStringAndSize(NULL, size)
        copy_out(<uint64_t*><char*>words, <const uint64_t*>(self.data + (position & self.mask)), size >> 3)
        fence_acquire()
        return None if self.overtaken(position) else words

    def close(self):
        """Unmap. Call nothing else afterwards."""
        self.meta_mapping.close()
        self.data_mapping.close()
        self.meta = NULL


cdef class SegmentReader(StreamReader):
    """Read one journal segment. Raises NotARing, OSError.

    `limit`: position up to which the segment's bytes are known to be committed (the flushed cursor, or where the
    next segment begins); without it the end is found by reading, and bytes that are no record are its open end.
    """

    def __init__(self, path, limit=None):
        cdef JournalHeader* header
        self.path = Path(path)
        self.fd = open_file(self.path)
        head = os.pread(self.fd, JOURNAL_HEADER_BYTES, 0)
        if len(head) < JOURNAL_HEADER_BYTES or not head.startswith(MAGIC_JOURNAL):
            raise NotARing(f"{path}: does not begin as a journal segment does")
        header = <JournalHeader*><char*>head
        if header.format_version != FORMAT_VERSION:
            raise NotARing(f"{path}: format version {header.format_version}, this program reads {FORMAT_VERSION}")
        if header.crc32c != crc32c(<char*>head, 168):
            raise NotARing(f"{path}: the header's checksum does not match")
        if header.first_position % BLOCK_BYTES or header.first_position > POSITION_MAX:
            raise NotARing(f"{path}: the header is damaged: it begins at {header.first_position}, which is no block of a stream")
        self.first_position = header.first_position
        self.first_sequence = header.first_sequence
        self.epoch = header.epoch
        self.chunk = header.chunk
        self.exchange = text(header.exchange[:32])
        self.host = text(header.host[:64])
        self.ring_id = header.ring_id[:16].hex()
        self.position = self.first_position
        self.bound(limit)

    def __cinit__(self):
        self.fd = -1
        self.block = <char*>calloc(1, BLOCK_BYTES)
        if self.block == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.block)
        if self.fd >= 0:
            os.close(self.fd)

    def bound(self, limit=None):
        """Set how far the segment may be read; see the class. The cursor stays."""
        self.bounded = limit is not None
        size = os.fstat(self.fd).st_size
        self.limit = limit if self.bounded else self.first_position + max(size - JOURNAL_HEADER_BYTES, 0)
        self.open_end = False
        self.block_bytes = 0
        self.good_at = 0

    cdef bint load(self) noexcept nogil:
        """Read the block that the cursor lies in; False when there are no further bytes."""
        cdef uint64_t start = self.position & ~<uint64_t>(BLOCK_BYTES - 1)
        cdef uint64_t wanted = min(<uint64_t>BLOCK_BYTES, self.limit - start)
        cdef uint64_t got = 0
        cdef ssize_t n
        while got < wanted:
            n = pread(self.fd, self.block + got, wanted - got, start - self.first_position + JOURNAL_HEADER_BYTES + got)
            if n < 0 and errno == EINTR:
                continue
            if n < 0:
                self.failed = errno
            if n <= 0:
                break
            got += n
        self.block_position = start
        self.block_bytes = got
        return start + got > self.position

    cdef int check(self) except -1:
        if self.failed:
            raise OSError(self.failed, os.strerror(self.failed), str(self.path))
        return 0

    cdef Step next(self) noexcept nogil:
        cdef const char* reason
        while self.position < self.limit and not self.open_end and not self.failed:
            reason = self.look()
            if self.failed:
                return STEP_NOTHING
            if reason != NULL:
                return self.at_bad_record(reason)
            if (<const RecordHeader*>self.buffer).type != PADDING:
                return self.accept()
            self.position = block_end(self.position)
        return STEP_NOTHING

    cdef const char* look(self) noexcept nogil:
        """Put the record or the padding's first word at the cursor into `buffer`; what is wrong with it, or NULL."""
        cdef RecordHeader* header = <RecordHeader*>self.buffer
        cdef const char* record
        cdef const char* reason
        cdef uint64_t available
        if not self.block_position <= self.position < self.block_position + self.block_bytes:
            if not self.load():
                return b"missing bytes"
        record = self.block + (self.position - self.block_position)
        available = self.block_bytes - (self.position - self.block_position)
        if available < 8:
            return b"length"
        memcpy(header, record, 8)
        if header.type == PADDING:
            if header.length != block_end(self.position) - self.position:
                return b"padding"
            return NULL
        if available < RECORD_HEADER_BYTES:
            return b"length"
        reason = fault(record, self.position, available)
        if reason == NULL:
            memcpy(self.buffer, record, min(align_up(header.length), available))
        return reason

    cdef Step at_bad_record(self, const char* reason) noexcept nogil:
        """No record here: the end of what was written, or damage within it."""
        cdef RecordHeader* header = <RecordHeader*>self.buffer
        if self.bounded and self.ends_here():
            # The stream goes on in the next segment: at its next block after a reboot, further on behind a hole.
            return STEP_NOTHING
        if not self.bounded:
            # A segment that was cut to its length ends with a record: damage, not an end.
            if not self.good_record_after() and self.position + align_up(header.length) != self.limit:
                self.open_end = not self.failed
                return STEP_NOTHING
            # Were these bytes just not written yet when we came by?
            if self.look() == NULL:
                return self.next()
        return self.corrupt(reason)

    cdef Step corrupt(self, const char* reason) noexcept nogil:
        """Go on at the next good record of the block, else at the next block."""
        self.corrupt_position = self.position
        self.corrupt_reason = reason
        self.position = self.good_record_in_block() or block_end(self.position)
        self.next_sequence = 0
        return STEP_CORRUPT

    cdef bint ends_here(self) noexcept nogil:
        """Whether the file has no byte at the cursor or behind it."""
        cdef char byte
        return pread(self.fd, &byte, 1, self.position - self.first_position + JOURNAL_HEADER_BYTES) == 0

    cdef uint64_t good_record_in_block(self) noexcept nogil:
        """Position of the next good record of the cursor's block; 0: none."""
        cdef uint64_t at = self.position + WORD_BYTES
        if not self.block_position <= self.position < self.block_position + self.block_bytes and not self.load():
            return 0
        while at + RECORD_HEADER_BYTES <= self.block_position + self.block_bytes:
            # Nearly always its position tells already that here is none.
            if fault(self.block + (at - self.block_position), at, self.block_position + self.block_bytes - at) == NULL:
                return at
            at += WORD_BYTES
        return 0

    cdef bint good_record_after(self) noexcept nogil:
        """Whether a good record stands behind the cursor: then what lies here was once good as well."""
        cdef uint64_t here = self.position
        cdef int64_t data
        if self.good_at <= here:
            self.good_at = self.good_record_in_block()
        self.position = block_end(self.position)
        while self.good_at <= here and self.position < self.limit:
            # What was allocated ahead and never written need not be read.
            data = lseek(self.fd, self.position - self.first_position + JOURNAL_HEADER_BYTES, SEEK_DATA)
            if data < 0 and errno == ENXIO:
                break
            if data >= 0:
                self.position = (data - JOURNAL_HEADER_BYTES + self.first_position) & ~<uint64_t>(BLOCK_BYTES - 1)
            if not self.load():
                break
            if fault(self.block, self.position, self.block_bytes) == NULL:
                self.good_at = self.position
            else:
                self.good_at = self.good_record_in_block()
            self.position += BLOCK_BYTES
        self.position = here
        self.block_bytes = 0
        return self.good_at > here

    def seek_position(self, uint64_t position):
        """Go to the block that begins at `position`."""
        self.position = position
        self.next_sequence = 0
        self.held = self.skipped = False
        self.block_bytes = 0
        self.good_at = 0

    def seek_sequence(self, uint64_t sequence):
        """Go to record `sequence`, or to the first after it; to the end when it is still to come."""
        self.seek_where(sequence, False)

    def seek_time(self, int64_t time_ns):
        """Go to the first record written at or after `time_ns` (UNIX ns)."""
        self.seek_where(<uint64_t>max(time_ns, 0), True)

    cdef void seek_where(self, uint64_t wanted, bint by_time) noexcept:
        cdef uint64_t low = self.first_position // BLOCK_BYTES
        cdef uint64_t high = max(low, (self.limit + BLOCK_BYTES - 1) // BLOCK_BYTES)
        cdef uint64_t middle
        cdef uint64_t damaged = 0
        cdef Step step
        cdef const RecordHeader* header = <const RecordHeader*>self.buffer
        self.open_end = False
        while high - low > 1:
            middle = (low + high) // 2
            self.position = middle * BLOCK_BYTES
            self.block_bytes = 0
            # A block that is damaged, or not written yet, says nothing: it is walked to.
            if self.look() == NULL and (<uint64_t>header.write_ns if by_time else header.sequence) < wanted:
                low = middle
            else:
                high = middle
        self.position = low * BLOCK_BYTES
        self.next_sequence = 0
        self.block_bytes = 0
        self.held = self.skipped = False
        if low * BLOCK_BYTES < self.first_position:
            self.position = self.first_position
        while True:
            step = self.next()
            if step == STEP_CORRUPT:
                damaged = self.corrupt_position + 1
            elif step != STEP_RECORD:
                return
            elif (<uint64_t>header.write_ns if by_time else header.sequence) >= wanted:
                # What is damaged just before it may be what is wanted: that must not pass in silence.
                self.position = damaged - 1 if damaged else header.position
                self.next_sequence = 0 if damaged else header.sequence
                return
            else:
                damaged = 0

    def raw(self, uint64_t position, uint64_t size) -> bytes:
        """Up to `size` bytes of the stream from `position`."""
        return os.pread(self.fd, size, position - self.first_position + JOURNAL_HEADER_BYTES)

    def close(self):
        """Close the file. Call nothing else afterwards."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


cdef str text(bytes field):
    """A NUL padded text field; what is no UTF-8 is shown, not refused: it never decides what is read."""
    return field.partition(b"\0")[0].decode(errors="backslashreplace")


cdef int open_file(path) except -1:
    if not path.is_file() and path.exists():
        raise NotARing(f"{path}: is not a file")
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


cdef Mapping map_file(path):
    fd = open_file(path)
    try:
        if os.fstat(fd).st_size == 0:
            raise NotARing(f"{path}: is empty")
        return Mapping(fd, False)
    finally:
        os.close(fd)
