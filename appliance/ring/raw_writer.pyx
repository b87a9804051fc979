"""The raw lane's writer: one thread that compresses frames as received, block by block, into segments of their own.

It holds the GIL for the call of the compressor alone, once a block, and the compressor gives it back while it works.
"""
import os
import threading

import zstandard

from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport EEXIST, EINTR, ENOENT, ENOMEM, ENOSPC, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset
from posix.fcntl cimport O_CLOEXEC, O_CREAT, O_EXCL, O_RDONLY, O_RDWR
from posix.stat cimport fstat, struct_stat
from posix.unistd cimport close, fdatasync, ftruncate, pwrite, read, write

from appliance.clock cimport monotonic_ns, now_ns
from appliance.ring.atomics cimport add, load_acquire, store_release
from appliance.ring.crc32c cimport crc32c

cdef extern from "<fcntl.h>" nogil:
    int O_DIRECTORY
    int openat(int directory, const char* path, int flags, int mode)

cdef extern from "<sys/stat.h>" nogil:
    int mkdirat(int directory, const char* path, int mode)

cdef extern from "<unistd.h>" nogil:
    int unlinkat(int directory, const char* path, int flags)

cdef extern from "<sys/statvfs.h>" nogil:
    struct statvfs_t "statvfs":
        uint64_t f_bavail
        uint64_t f_frsize
    int fstatvfs(int fd, statvfs_t* status)

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
    static inline void set_raw_errno(int value) { errno = value; }
    """
    void set_errno "set_raw_errno"(int value)

cdef enum:
    ENTRIES_BYTES_MAX = 1 << 20      # of a block, if no single entry is larger
    NAME_BYTES = 512
    LOOK_MS = 20                     # between two looks at how much waits
    HEADER_CREATED_NS = 24           # offsets in a segment's header
    HEADER_CRC32C = 136

cdef int64_t RETRY_NS = 1_000_000_000  # after a disk error

FORMAT = RAW_FORMAT_VERSION
HEADER = RAW_HEADER_BYTES
BLOCK_HEADER = RAW_BLOCK_HEADER_BYTES


cdef class RawWriter:
    """Writes `<parent>/<directory>/<prefix>.<time>.raw`; makes the directory when it is not there.

    `header`: what each segment begins with, RAW_HEADER_BYTES, see raw_segments. `newest_ns`: the time in the name of the newest
    segment that is there. A segment ends at `segment_bytes` or at the age of `segment_s`; a block ends when its first frame
    has waited for `block_s`, which is what `kill -9` can cost. Nothing is written while the disk has
    less than `keep_free_bytes` left.
    """

    def __init__(
        self, RawBuffer buffer not None, parent, str directory not None, str prefix not None, bytes header not None, *,
        int64_t newest_ns, uint64_t segment_bytes, double segment_s, uint64_t keep_free_bytes,
        double block_s = 1.0,
    ):
        if len(header) != RAW_HEADER_BYTES:
            raise ValueError(f"a header has {RAW_HEADER_BYTES} bytes, not {len(header)}")
        self.buffer = buffer
        self.compressor = zstandard.ZstdCompressor(level=3, write_content_size=True)
        self.header_bytes = header
        self.header = self.header_bytes
        self.directory_bytes = directory.encode()
        self.directory = self.directory_bytes
        self.prefix_bytes = prefix.encode()
        self.prefix = self.prefix_bytes
        self.created_ns = newest_ns
        self.segment_bytes = segment_bytes
        self.segment_ns = <int64_t>(segment_s * 1e9)
        self.block_ns = <int64_t>(block_s * 1e9)
        self.keep_free_bytes = keep_free_bytes
        self.parent = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.wake_up = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.wake_up < 0:
            raise OSError(errno, os.strerror(errno))

    def __cinit__(self):
        self.parent = self.lane = self.wake_up = self.segment = -1

    def __dealloc__(self):
        free(self.block)
        for fd in (self.parent, self.lane, self.wake_up, self.segment):
            if fd >= 0:
                close(fd)

    def start(self):
        """Begin to take frames from the buffer."""
        self.thread = threading.Thread(target=self._run, name=f"raw-{self.prefix_bytes.decode()}", daemon=True)
        self.thread.start()

    def _run(self):
        with nogil:
            self.run()

    def finish(self):
        """Ask the thread to write what waits, once, and to end; `stop` waits for it."""
        cdef uint64_t one = 1
        store_release(&self.stopping, 1)
        if write(self.wake_up, &one, 8) != 8 and errno != EINTR:
            pass  # the counter is full: it wakes up anyway

    def stop(self, double timeout_s) -> bool:
        """Write what waits and end the thread; what the disk did not take is dropped and counted. False: it did not end in time.

        Nothing may be pushed any more.
        """
        self.finish()
        if self.thread is not None:
            self.thread.join(timeout_s)
            if self.thread.is_alive():
                return False
            self.thread = None
        return True

    @property
    def written_bytes(self) -> int:
        """Compressed, with the headers of segments and blocks, and on disk."""
        return load_acquire(&self.written_total)

    @property
    def dropped(self) -> int:
        """Frames that were taken in and had not been written when it ended."""
        return load_acquire(&self.dropped_total)

    @property
    def failing(self) -> bool:
        """Whether the disk refused the last attempt to write."""
        return load_acquire(&self.failed) != 0

    @property
    def error_text(self) -> str:
        """Why, in the system's words; empty when it did not."""
        cdef uint64_t failed = load_acquire(&self.failed)
        return os.strerror(failed) if failed else ""

    cdef void run(self) noexcept nogil:
        cdef bint stopping
        while True:
            # Before the look at the buffer: what was pushed before `finish` was called is then seen.
            stopping = load_acquire(&self.stopping)
            if stopping:
                self.retry_at_ns = 0  # the last try: at once
            while self.retry_at_ns == 0 or monotonic_ns() >= self.retry_at_ns:
                if self.block_bytes == 0 and not (self.is_due(stopping) and self.make_block()):
                    break
                if not self.write_block():
                    break
            if stopping:
                break
            self.wait()
        self.drop_rest()
        self.close_segment()

    cdef bint is_due(self, bint stopping) noexcept nogil:
        """Whether what waits should become a block now."""
        cdef uint64_t waiting = self.buffer.waiting()
        cdef int64_t now
        if waiting == 0:
            self.waits_since_ns = 0
            return False
        now = monotonic_ns()
        if self.waits_since_ns == 0:
            self.waits_since_ns = now
        return stopping or waiting >= <uint64_t>ENTRIES_BYTES_MAX or now - self.waits_since_ns >= self.block_ns

    cdef bint make_block(self) noexcept nogil:
        """Turn the oldest entries into `block`, and give their room back."""
        cdef RawSpan span
        cdef RawBlockHeader header
        cdef uint64_t length, whole
        cdef void* moved
        if not self.buffer.peek(ENTRIES_BYTES_MAX, &span):
            return False
        if not self.compress(&span):
            set_errno(ENOMEM)
            return self.fail()
        length = self.packed_size
        whole = (RAW_BLOCK_HEADER_BYTES + length + 7) & ~<uint64_t>7
        if whole > self.block_room:
            moved = realloc(self.block, whole)
            if moved == NULL:
                set_errno(ENOMEM)
                return self.fail()
            self.block = <char*>moved
            self.block_room = whole
        memset(&header, 0, sizeof(RawBlockHeader))
        header.length = <uint32_t>length
        header.entries_bytes = <uint32_t>span.size
        header.frames = <uint32_t>span.frames
        header.first_ns = span.first_ns
        header.last_ns = span.last_ns
        memset(self.block + whole - 8, 0, 8)
        memcpy(self.block, &header, RAW_BLOCK_HEADER_BYTES)
        memcpy(self.block + RAW_BLOCK_HEADER_BYTES, self.packed_begin, length)
        header.crc32c = crc32c(self.block + 4, RAW_BLOCK_HEADER_BYTES - 4 + length)
        memcpy(self.block, &header, 4)
        self.buffer.consume(&span)
        self.waits_since_ns = 0
        self.block_bytes = whole
        self.block_frames = span.frames
        return True

    cdef bint compress(self, const RawSpan* span) noexcept with gil:
        """Compress the entries into `packed`; False without memory for it."""
        try:
            self.packed = self.compressor.compress(PyMemoryView_FromMemory(<char*>span.begin, span.size, PyBUF_READ))
            self.packed_begin = self.packed
            self.packed_size = len(self.packed)
        except (MemoryError, zstandard.ZstdError):
            return False
        return True

    cdef bint write_block(self) noexcept nogil:
        """Append `block` to the segment, on disk when this returns; after an error the next attempt begins a new segment."""
        cdef struct_stat status
        cdef statvfs_t room
        cdef uint64_t done = 0
        cdef ssize_t n
        if self.segment >= 0 and (
            self.written + self.block_bytes > self.segment_bytes or monotonic_ns() - self.opened_ns > self.segment_ns
        ):
            self.close_segment()
        if not self.open_directory():
            return self.fail()
        if self.keep_free_bytes and fstatvfs(self.lane, &room) == 0 and room.f_bavail * room.f_frsize < self.keep_free_bytes:
            set_errno(ENOSPC)
            return self.fail()
        if self.segment < 0 and not self.open_segment():
            return self.fail()
        while done < self.block_bytes:
            n = pwrite(self.segment, self.block + done, self.block_bytes - done, self.written + done)
            if n < 0 and errno == EINTR:
                continue
            if n <= 0:
                if n == 0:
                    set_errno(ENOSPC)
                return self.fail()
            done += n
        while fdatasync(self.segment) != 0:
            if errno != EINTR:
                return self.fail()
        if fstat(self.segment, &status) == 0 and status.st_nlink == 0:
            # Deleted under our hands: what is written into it now would be nowhere.
            set_errno(ENOENT)
            return self.fail()
        add(&self.written_total, self.block_bytes + (RAW_HEADER_BYTES if self.written == <uint64_t>RAW_HEADER_BYTES else 0))
        self.written += self.block_bytes
        self.block_bytes = self.block_frames = 0
        self.retry_at_ns = 0
        store_release(&self.failed, 0)
        return True

    cdef bint open_directory(self) noexcept nogil:
        """Make it where it is not there; it may be a disk of its own."""
        if self.lane < 0:
            if mkdirat(self.parent, self.directory, 0o750) != 0 and errno != EEXIST:
                return False
            self.lane = openat(self.parent, self.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
        return self.lane >= 0

    cdef bint open_segment(self) noexcept nogil:
        cdef char name[NAME_BYTES]
        cdef char header[RAW_HEADER_BYTES]
        cdef uint32_t crc
        cdef ssize_t n
        # Names sort by time, also after the clock was set back.
        self.created_ns = max(now_ns(), self.created_ns + 1)
        snprintf(name, NAME_BYTES, b"%s.%lld.raw", self.prefix, <long long>self.created_ns)
        self.segment = openat(self.lane, name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0o640)
        if self.segment < 0:
            return False
        memcpy(header, self.header, RAW_HEADER_BYTES)
        memcpy(header + HEADER_CREATED_NS, &self.created_ns, 8)
        crc = crc32c(header, HEADER_CRC32C)
        memcpy(header + HEADER_CRC32C, &crc, 4)
        n = pwrite(self.segment, header, RAW_HEADER_BYTES, 0)
        if n != RAW_HEADER_BYTES:
            if n >= 0:
                set_errno(ENOSPC)
            return False
        self.written = RAW_HEADER_BYTES
        self.opened_ns = monotonic_ns()
        return True

    cdef void close_segment(self) noexcept nogil:
        if self.segment >= 0:
            close(self.segment)
            self.segment = -1
            self.written = 0

    cdef bint fail(self) noexcept nogil:
        """Remember what the disk said; leave the segment as it was before."""
        cdef char name[NAME_BYTES]
        cdef int why = errno
        if self.segment >= 0:
            if self.written > <uint64_t>RAW_HEADER_BYTES:
                if ftruncate(self.segment, self.written) != 0:
                    pass  # a torn block at its end, which readers know
            else:
                # It holds nothing: a disk that stays full must not fill up with names.
                snprintf(name, NAME_BYTES, b"%s.%lld.raw", self.prefix, <long long>self.created_ns)
                unlinkat(self.lane, name, 0)
            self.close_segment()
        if self.lane >= 0:
            close(self.lane)  # it may be another one by the next attempt
            self.lane = -1
        self.retry_at_ns = monotonic_ns() + RETRY_NS
        store_release(&self.failed, why if why else ENOSPC)
        return False

    cdef void drop_rest(self) noexcept nogil:
        """Count what is left, at the end."""
        cdef RawSpan span
        cdef uint64_t dropped = self.block_frames
        self.block_frames = self.block_bytes = 0
        while self.buffer.peek(ENTRIES_BYTES_MAX, &span):
            dropped += span.frames
            self.buffer.consume(&span)
        add(&self.dropped_total, dropped)

    cdef void wait(self) noexcept nogil:
        """Until there may be something to do."""
        cdef pollfd event
        cdef uint64_t drained
        event.fd = self.wake_up
        event.events = POLLIN
        event.revents = 0
        if poll(&event, 1, LOOK_MS) > 0 and read(self.wake_up, &drained, 8) != 8:
            pass  # somebody else's read of it: looked at anyway
