"""The flusher: one native thread that copies the ring's byte stream to disk and says how far it is safe there."""
import os
import threading
import time

from libc.errno cimport EINTR, EINVAL, EIO, ENOENT, ENOSPC, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free
from libc.string cimport memcpy, memset
from posix.fcntl cimport O_CLOEXEC, O_CREAT, O_RDWR, O_TRUNC
from posix.stat cimport fstat, struct_stat
from posix.unistd cimport close, fdatasync, fsync, ftruncate, pwrite, read, write

from appliance.clock cimport monotonic_ns, now_ns
from appliance.ring.atomics cimport (
    add,
    fence_acquire,
    fence_release,
    load_acquire,
    load_relaxed,
    store_relaxed,
    store_release,
)
from appliance.ring.crc32c cimport crc32c
from appliance.ring.layout cimport (
    BLOCK_BYTES,
    F_BYTES,
    F_ERRORS,
    F_FLUSHES,
    F_LAST_ERRNO,
    F_OVERTAKEN_BYTES,
    F_SEGMENTS,
    FLUSH_MARKS,
    FORMAT_VERSION,
    JOURNAL_HEADER_BYTES,
    PADDING,
    RECORD_HEADER_BYTES,
    JournalHeader,
    Meta,
    RecordHeader,
    align_up,
    block_end,
    observe,
)
from appliance.ring.mapping cimport Mapping

cdef extern from "<fcntl.h>" nogil:
    int O_DIRECT
    int openat(int directory, const char* path, int flags, int mode)
    int fallocate(int fd, int mode, int64_t offset, int64_t size)

cdef extern from "<stdlib.h>" nogil:
    void* aligned_alloc(size_t alignment, size_t size)

cdef extern from "<stdio.h>" nogil:
    int renameat(int old_directory, const char* old, int new_directory, const char* new)

cdef extern from "<unistd.h>" nogil:
    int unlinkat(int directory, const char* path, int flags)

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int value, int flags)
    int EFD_CLOEXEC
    int EFD_NONBLOCK

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd* fds, unsigned long count, int timeout_ms)
    short POLLIN

cdef extern from "<cerrno>" nogil:
    """
    static inline void set_errno(int value) { errno = value; }
    """
    void set_errno(int value)

cdef enum:
    SPAN_BYTES_MAX = 4 << 20         # one pwrite; small, so that an overtaken span is noticed early
    NAME_BYTES = 512
    PAGE_BYTES = 4096                # of a direct write's position, size and address
    HOLES_MAX = 64                   # not yet taken by the writer; a turn of its loop takes all
    LAST_TRIES = 100                 # at a stop, while the ring overtakes the copy
    SLICE_MS_MAX = 10                # between two looks at how much waits
    RETRY_NS = 1_000_000_000         # after a disk error


cdef class Flusher:
    """Follow the ring mapped by `meta` and `data` from its `flushed` cursor on.

    `segment_bytes` are allocated ahead for each segment. `interval_ms`: how long a committed byte waits for its
    fdatasync at most; `sync_writes`: no wait, one group commit after the other.
    """

    def __init__(self, Mapping meta, Mapping data, journal_dir, str prefix, uint64_t segment_bytes, int interval_ms,
                 bint sync_writes):
        self.meta_mapping = meta
        self.data_mapping = data
        self.meta = <Meta*>meta.address
        self.data = data.address
        self.capacity = data.size
        self.prefix_bytes = prefix.encode()
        self.prefix = self.prefix_bytes
        self.segment_bytes = segment_bytes
        self.interval_ms = interval_ms
        self.sync_writes = sync_writes
        self.flushed = load_acquire(&self.meta.flushed)
        self.flushed_sequence = self.meta.flushed_sequence
        self.directory = os.open(journal_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.wake_up = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.wake_up < 0:
            raise OSError(errno, os.strerror(errno))

    def __cinit__(self):
        self.directory = self.wake_up = self.segment = self.prepared = -1
        self.edge = <char*>aligned_alloc(PAGE_BYTES, PAGE_BYTES)
        self.header = <char*>aligned_alloc(PAGE_BYTES, JOURNAL_HEADER_BYTES)
        if self.edge == NULL or self.header == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.edge)
        free(self.header)
        for fd in (self.directory, self.wake_up, self.segment, self.prepared):
            if fd >= 0:
                close(fd)

    def start(self):
        """Begin to follow the ring."""
        self.thread = threading.Thread(target=self._run, name=f"flusher-{self.prefix_bytes.decode()}", daemon=True)
        self.thread.start()

    def _run(self):
        with nogil:
            self.run()

    def wake(self):
        """Flush now, not at the next interval."""
        cdef uint64_t one = 1
        if write(self.wake_up, &one, 8) != 8 and errno != EINTR:
            pass  # the counter is full: it wakes up anyway

    def flush(self, double timeout_s) -> bool:
        """Have all that is committed now on disk, at once even behind an error; False if the disk did not take it."""
        cdef uint64_t target = load_acquire(&self.meta.committed)
        cdef int64_t deadline_ns = monotonic_ns() + <int64_t>(timeout_s * 1e9)
        cdef uint64_t errors = load_acquire(&self.meta.flusher_counters[<int>F_ERRORS])
        store_release(&self.urgent, 1)
        while load_acquire(&self.meta.flushed) < target:
            if load_acquire(&self.meta.flusher_counters[<int>F_ERRORS]) != errors or monotonic_ns() > deadline_ns:
                return False
            self.wake()
            time.sleep(0.001)
        return True

    def turn(self, uint64_t position):
        """Begin a new segment at the block at `position`, which begins with a snapshot. One at a time: see `turning`."""
        store_release(&self.turn_at, position)

    @property
    def turning(self) -> bool:
        """Whether a turn is asked for that has not happened yet."""
        return load_acquire(&self.turn_at) != 0

    def take_hole(self):
        """(first, last) sequence that the journal lost, and the disk's error or "", once, for the record that says so; None mostly."""
        if load_acquire(&self.holes) == self.holes_taken:
            return None
        cdef uint64_t index = self.holes_taken % HOLES_MAX
        why = os.strerror(self.hole_errno[index]) if self.hole_errno[index] else ""
        hole = (self.hole_from[index], self.hole_to[index], why)
        store_release(&self.holes_taken, self.holes_taken + 1)
        return hole

    @property
    def errors(self) -> int:
        return load_relaxed(&self.meta.flusher_counters[<int>F_ERRORS])

    @property
    def error_text(self) -> str:
        """The last disk error in the system's words."""
        return os.strerror(load_relaxed(&self.meta.flusher_counters[<int>F_LAST_ERRNO]))

    @property
    def segments(self) -> int:
        return load_relaxed(&self.meta.flusher_counters[<int>F_SEGMENTS])

    @property
    def failing(self) -> bool:
        """Whether the last attempt to write ended in an error that has not been got over yet."""
        return self.retry_at_ns != 0

    def stop(self, double timeout_s) -> bool:
        """Flush what is committed, cut the segment to its length, end the thread. False if the disk did not let it."""
        store_release(&self.stopping, 1)
        self.wake()
        if self.thread is not None:
            self.thread.join(timeout_s)
            if self.thread.is_alive():
                return False
            self.thread = None
        return load_acquire(&self.meta.flushed) == load_acquire(&self.meta.committed)

    cdef void run(self) noexcept nogil:
        cdef bint stopping, clean
        cdef int tries = LAST_TRIES
        cdef uint64_t before
        self.mark()
        while True:
            # Before the flush: what was committed before `stop` was called is then covered by it.
            stopping = load_acquire(&self.stopping)
            if stopping:
                self.retry_at_ns = 0  # the last try: at once
            before = self.flushed
            clean = self.flush_once()
            if stopping and (self.flushed == load_acquire(&self.meta.committed) or self.retry_at_ns or tries == 0):
                break
            tries -= stopping
            if clean and self.sync_writes and self.flushed != before:
                continue
            if not stopping:
                self.wait()
        self.close_segment()
        if self.prepared >= 0:
            close(self.prepared)
            self.prepared = -1
        self.unlink_prepared()

    cdef void wait(self) noexcept nogil:
        """Until the interval is over, someone wakes us, or an eighth of the ring waits for the disk."""
        cdef pollfd event
        cdef uint64_t drained
        # 10 ms at most: at 2 million trades/s of 304 bytes 6 MB come meanwhile.
        cdef int slice_ms = 1 if self.sync_writes else min(max(1, self.interval_ms // 5), SLICE_MS_MAX)
        cdef int64_t until = monotonic_ns() + <int64_t>self.interval_ms * 1_000_000
        event.fd = self.wake_up
        event.events = POLLIN
        while True:
            event.revents = 0
            if poll(&event, 1, slice_ms) > 0:
                if read(self.wake_up, &drained, 8) == 8:
                    return
            if self.sync_writes or monotonic_ns() >= until:
                return
            if load_relaxed(&self.meta.committed) - self.flushed > self.capacity >> 3:
                return

    cdef bint flush_once(self) noexcept nogil:
        """One group commit: all that is committed, up to a turn. False after a disk error."""
        cdef uint64_t turn = load_acquire(&self.turn_at)
        # Acquire: pairs with the release in Writer.commit.
        cdef uint64_t target = load_acquire(&self.meta.committed)  # ring.pml: F_CURSOR
        cdef int64_t started
        cdef struct_stat status
        cdef uint64_t sequence = self.flushed_sequence
        if load_acquire(&self.urgent):
            store_release(&self.urgent, 0)
        elif self.retry_at_ns and monotonic_ns() < self.retry_at_ns:
            return False
        if target == self.flushed and not (turn and turn == self.flushed):
            return True
        if self.segment >= 0 and turn and turn <= self.flushed:
            self.close_segment()
        if self.segment < 0:
            if not self.open_segment():
                return self.fail()
            if turn and turn <= self.segment_position:
                store_release(&self.turn_at, 0)
                turn = 0
            self.prepare()
        if turn and target > turn:
            target = turn
        if self.written < target:
            if not self.write_span(self.written, target):
                return self.fail()
            self.written = target
        if self.written > self.flushed:
            sequence = self.sequence_before(self.written)
            if self.overtaken((self.written - 1) & ~<uint64_t>(BLOCK_BYTES - 1)):
                set_errno(0)
                return self.fail()
        started = monotonic_ns()
        while fdatasync(self.segment) != 0:
            if errno != EINTR:
                return self.fail()
        observe(&self.meta.fdatasync_ns, monotonic_ns() - started)
        if fstat(self.segment, &status) == 0 and status.st_nlink == 0:
            # Deleted under our hands: what is written into it now would be nowhere.
            set_errno(ENOENT)
            return self.fail()
        add(&self.meta.flusher_counters[<int>F_FLUSHES], 1)
        add(&self.meta.flusher_counters[<int>F_BYTES], self.written - self.flushed)
        self.retry_at_ns = self.failed = 0
        self.flushed_sequence = sequence
        self.flushed = self.written
        self.mark()
        store_release(&self.meta.flushed_sequence, self.flushed_sequence)
        # Release: pairs with the acquire in Writer.room and in readers; the bytes are on disk.
        store_release(&self.meta.flushed, self.flushed)  # ring.pml: F_FLUSHED
        return True

    cdef void mark(self) noexcept nogil:
        """Remember that all before `flushed` is on disk now; the first mark of a start says it of what was found there."""
        cdef uint64_t count = self.meta.flush_marks_count
        # Pairs with the acquire fence in RingReader.persist_ns: who sees the new mark sees the count before it.
        fence_release()
        store_relaxed(&self.meta.flush_marks[count % FLUSH_MARKS].position, self.flushed)
        store_relaxed(<uint64_t*>&self.meta.flush_marks[count % FLUSH_MARKS].time_ns, <uint64_t>now_ns())
        store_release(&self.meta.flush_marks_count, count + 1)

    cdef void publish_hole(self, uint64_t first, uint64_t last) noexcept nogil:
        """Have the writer record that the journal lost these sequences. Where none takes them, the last one grows."""
        cdef uint64_t next = self.holes
        if next - load_acquire(&self.holes_taken) == HOLES_MAX:
            store_relaxed(&self.hole_to[(next - 1) % HOLES_MAX], last)
            return
        self.hole_from[next % HOLES_MAX] = first
        self.hole_to[next % HOLES_MAX] = last
        self.hole_errno[next % HOLES_MAX] = self.failed
        store_release(&self.holes, next + 1)

    cdef bint overtaken(self, uint64_t position) noexcept nogil:
        """Whether the writer may have overwritten `position`; possible in mode lossy only."""
        fence_acquire()
        return load_relaxed(&self.meta.claimed) > position + self.capacity

    cdef bint write_span(self, uint64_t start, uint64_t end) noexcept nogil:
        """Copy [start, end) of the stream into the open segment; False on an error or when it was overtaken.

        The file is written past the page cache, in whole pages: those of the ring as they lie there, the ones at both
        ends by way of `edge`, which keeps what the file has of the last page, for the ring may lose that.
        """
        cdef uint64_t size, into
        while start < end:
            into = start & (PAGE_BYTES - 1)
            if into or end - start < PAGE_BYTES:
                size = min(end - start, PAGE_BYTES - into)
                memcpy(self.edge + into, self.data + (start & (self.capacity - 1)), size)
                memset(self.edge + into + size, 0, PAGE_BYTES - into - size)
                if self.lost(start, size) or not self.write_pages(self.edge, start - into, PAGE_BYTES):
                    return False
            else:
                size = min(end - start, self.capacity - (start & (self.capacity - 1)), <uint64_t>SPAN_BYTES_MAX)
                size &= ~<uint64_t>(PAGE_BYTES - 1)
                # ring.pml: F_COPY
                if not self.write_pages(self.data + (start & (self.capacity - 1)), start, size) or self.lost(start, size):
                    return False
            start += size
        return True

    cdef bint lost(self, uint64_t position, uint64_t size) noexcept nogil:
        """Whether `size` bytes copied from `position` may be a later record's; no disk error, but the segment's end."""
        if not self.overtaken(position):
            return False
        add(&self.meta.flusher_counters[<int>F_OVERTAKEN_BYTES], size)
        set_errno(0)
        return True

    cdef bint write_pages(self, const char* pages, uint64_t position, uint64_t size) noexcept nogil:
        """Write whole pages of the stream from `position` on into the open segment."""
        cdef uint64_t done = 0
        cdef ssize_t n
        while done < size:
            n = pwrite(self.segment, pages + done, size - done, position + done - self.segment_position + JOURNAL_HEADER_BYTES)
            if n < 0 and errno == EINTR:
                continue
            if n <= 0:
                if n == 0:
                    set_errno(EIO)
                return False
            done += n
        return True

    cdef bint fail(self) noexcept nogil:
        """End the segment at `flushed`: after an error nothing behind that is trusted, and nothing is retried in it."""
        cdef int why = errno
        if why:
            self.failed = why
            add(&self.meta.flusher_counters[<int>F_ERRORS], 1)
            store_relaxed(&self.meta.flusher_counters[<int>F_LAST_ERRNO], <uint64_t>why)
            self.retry_at_ns = monotonic_ns() + RETRY_NS
        cdef uint64_t size
        if self.segment >= 0:
            # Behind a hole that is still to be published `flushed` lies before the segment: it keeps its header only.
            size = max(self.flushed, self.segment_position) - self.segment_position + JOURNAL_HEADER_BYTES
            if ftruncate(self.segment, size) != 0 and self.segment_named:
                self.uncut_first = self.segment_first
                self.uncut_bytes = size
            close(self.segment)
            self.segment = -1
        return False

    cdef void cut_failed(self) noexcept nogil:
        """Cut the segment that a failing disk did not let us cut: what it holds behind `flushed` must not stand before a hole.

        By its name: the file system may have been mounted anew. Where even that fails on a disk that takes the next
        segment, the file is damaged for good, and readers say so of its end.
        """
        cdef char name[NAME_BYTES]
        cdef int fd
        if self.uncut_first == 0:
            return
        snprintf(name, NAME_BYTES, b"%s.%llu.journal", self.prefix, <unsigned long long>self.uncut_first)
        fd = openat(self.directory, name, O_RDWR | O_CLOEXEC, 0)
        if fd >= 0:
            if ftruncate(fd, self.uncut_bytes) == 0:
                fsync(fd)
            close(fd)
        self.uncut_first = 0

    cdef bint open_segment(self) noexcept nogil:
        """Begin a segment at the block that `flushed` lies in; what is on disk of it already is written again first.

        So the file holds, when it gets its name, all that the one before it held from there on. Where the ring has
        lost that block, the segment begins at the oldest block with some lead, and the sequences between are a hole.
        """
        cdef char name[NAME_BYTES]
        cdef char hidden[NAME_BYTES]
        cdef JournalHeader* header = <JournalHeader*>self.header
        cdef uint64_t claimed = load_acquire(&self.meta.claimed)
        cdef uint64_t start = self.flushed & ~<uint64_t>(BLOCK_BYTES - 1)  # ring.pml: F_SEGMENT
        cdef uint64_t committed = load_acquire(&self.meta.committed)
        cdef uint64_t first = self.flushed_sequence + 1
        cdef bint hole = claimed > start + self.capacity
        cdef ssize_t n
        if hole:
            start = (claimed - self.capacity + (self.capacity >> 3) + BLOCK_BYTES - 1) & ~<uint64_t>(BLOCK_BYTES - 1)
            if start >= committed:
                start = (committed - 1) & ~<uint64_t>(BLOCK_BYTES - 1)
        # Every block begins with a record; only where the stream ends, that is the one to come.
        if start < committed:
            first = load_relaxed(&(<const RecordHeader*>(self.data + (start & (self.capacity - 1)))).sequence)
        if self.overtaken(start):
            set_errno(0)
            return False
        self.segment_position = self.written = start
        self.segment_first = first
        self.segment_named = False
        snprintf(hidden, NAME_BYTES, b".%s.next", self.prefix)
        if self.prepared >= 0:
            self.segment = self.prepared
            self.prepared = -1
        else:
            self.segment = self.create(hidden)
            if self.segment < 0:
                return False
        memset(header, 0, sizeof(JournalHeader))
        memcpy(header.magic, b"MDCJRNL\0", 8)
        header.format_version = FORMAT_VERSION
        header.header_bytes = JOURNAL_HEADER_BYTES
        memcpy(header.ring_id, self.meta.ring_id, 16)
        header.block_bytes = BLOCK_BYTES
        header.epoch = self.meta.epoch
        header.chunk = self.meta.chunk
        header.codec = self.meta.codec
        header.first_position = start
        header.first_sequence = first
        header.created_ns = now_ns()
        memcpy(header.exchange, self.meta.exchange, 32)
        memcpy(header.host, self.meta.host, 64)
        header.crc32c = crc32c(header, 168)
        n = pwrite(self.segment, header, sizeof(JournalHeader), 0)
        if n != sizeof(JournalHeader):
            if n >= 0:
                set_errno(ENOSPC)
            return False
        if not hole and self.flushed > start:
            if not self.write_span(start, self.flushed):
                return False
            self.written = self.flushed
        if fdatasync(self.segment) != 0:
            return False
        self.cut_failed()
        snprintf(name, NAME_BYTES, b"%s.%llu.journal", self.prefix, <unsigned long long>first)
        if renameat(self.directory, hidden, self.directory, name) != 0:
            return False
        self.segment_named = True
        if fsync(self.directory) != 0:
            return False
        add(&self.meta.flusher_counters[<int>F_SEGMENTS], 1)
        if hole:
            self.publish_hole(self.flushed_sequence + 1, first - 1)
            self.failed = 0
            self.flushed = start
            self.flushed_sequence = first - 1
        return True

    cdef int create(self, const char* hidden) noexcept nogil:
        """A new file with its bytes allocated; without them where there is no room for all; -1 on an error."""
        cdef int fd = openat(self.directory, hidden, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC | O_DIRECT, 0o640)
        if fd < 0 and errno == EINVAL:
            # A file system without direct writes: the same pages go by way of its cache.
            fd = openat(self.directory, hidden, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0o640)
        if fd >= 0:
            fallocate(fd, 0, 0, JOURNAL_HEADER_BYTES + self.segment_bytes)
        return fd

    cdef void prepare(self) noexcept nogil:
        """Allocate the next segment's file, so that a turn costs a rename."""
        cdef char hidden[NAME_BYTES]
        if self.prepared < 0:
            snprintf(hidden, NAME_BYTES, b".%s.next", self.prefix)
            self.prepared = self.create(hidden)
            if self.prepared >= 0 and (fsync(self.prepared) != 0 or fsync(self.directory) != 0):
                close(self.prepared)
                self.prepared = -1

    cdef void unlink_prepared(self) noexcept nogil:
        cdef char hidden[NAME_BYTES]
        snprintf(hidden, NAME_BYTES, b".%s.next", self.prefix)
        unlinkat(self.directory, hidden, 0)

    cdef void close_segment(self) noexcept nogil:
        """Cut the open segment to its length; its data is on disk already."""
        if self.segment < 0:
            return
        if ftruncate(self.segment, self.flushed - self.segment_position + JOURNAL_HEADER_BYTES) == 0:
            fdatasync(self.segment)
        close(self.segment)
        self.segment = -1

    cdef uint64_t sequence_before(self, uint64_t position) noexcept nogil:
        """Sequence of the last record before `position`, by walking its block; nonsense when that is overtaken meanwhile."""
        cdef uint64_t sequence = self.flushed_sequence
        cdef uint64_t at = (position - 1) & ~<uint64_t>(BLOCK_BYTES - 1)
        cdef uint64_t word, length
        cdef const char* record
        while at < position:
            record = self.data + (at & (self.capacity - 1))
            word = load_relaxed(<const uint64_t*>record)
            length = <uint32_t>word
            if (word >> 32) & 0xFF == PADDING:
                break
            if length < RECORD_HEADER_BYTES or length > block_end(at) - at:
                break
            sequence = load_relaxed(&(<const RecordHeader*>record).sequence)
            at += align_up(length)
        return sequence
