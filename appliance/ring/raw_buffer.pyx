"""The raw lane's buffer: frames as received, until its writer takes them.

A frame that finds no room is shed and counted, and an entry at that place tells how many there were, and of which time.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from appliance.ring.atomics cimport load_acquire, load_relaxed, store_release

cdef extern from "<stdlib.h>" nogil:
    void* aligned_alloc(size_t alignment, size_t size)

ENTRY = RAW_ENTRY_BYTES


cdef inline uint64_t align(uint64_t size) noexcept nogil:
    """Entries begin at multiples of 16: an entry without payload fits into whatever rest the buffer has at its end."""
    return (size + 15) & ~<uint64_t>15


cdef inline void put_entry(char* at, int kind, const char* payload, Py_ssize_t size, int64_t recv_ns, int leg) noexcept nogil:
    cdef RawEntry entry
    cdef uint64_t whole = align(RAW_ENTRY_BYTES + size)
    entry.recv_ns = recv_ns
    entry.size = <uint32_t>size
    entry.kind = kind
    entry.leg = leg
    entry.reserved = 0
    memset(at + whole - 16, 0, 16)
    memcpy(at, &entry, RAW_ENTRY_BYTES)
    memcpy(at + RAW_ENTRY_BYTES, payload, size)


cdef class RawBuffer:
    """`capacity` bytes, a power of two; all of them are touched here, so that no page is missing later."""

    def __init__(self, uint64_t capacity):
        if capacity < 4096 or capacity & (capacity - 1):
            raise ValueError(f"{capacity} bytes: expected a power of two from 4096 on")
        if self.bytes != NULL:
            raise RuntimeError("made twice")
        self.bytes = <char*>aligned_alloc(4096, capacity)
        if self.bytes == NULL:
            raise MemoryError
        memset(self.bytes, 0, capacity)
        self.capacity = capacity

    def __dealloc__(self):
        free(self.bytes)

    # The pushing thread

    cdef void push(self, const char* payload, Py_ssize_t size, int64_t recv_ns, int leg) noexcept nogil:
        """Keep a copy of a frame, or count it as shed. Never waits."""
        cdef uint64_t needed = align(RAW_ENTRY_BYTES + size)
        cdef char* at = NULL
        if self.span.frames == 0 or self.tell_shed():
            at = self.claim(needed)
        if at == NULL:
            if self.span.frames == 0:
                self.span.first_ns = recv_ns
            self.span.last_ns = recv_ns
            self.span.frames += 1
            self.span.bytes += size
            self.shed += 1
            return
        put_entry(at, RAW_FRAME, payload, size, recv_ns, leg)
        # Release: pairs with the acquire in `waiting` and `peek`; the entry is whole.
        store_release(&self.head, self.claimed + needed)
        self.frames += 1

    cdef char* claim(self, uint64_t needed) noexcept nogil:
        """Room for an entry that lies in one piece; NULL when there is none."""
        cdef uint64_t head = load_relaxed(&self.head)
        cdef uint64_t rest = self.capacity - (head & (self.capacity - 1))
        if rest >= needed:
            rest = 0
        if head + rest + needed - self.tail_seen > self.capacity:
            # Acquire: pairs with the release in `consume`; what lay there has been read.
            self.tail_seen = load_acquire(&self.tail)
            if head + rest + needed - self.tail_seen > self.capacity:
                return NULL
        if rest:
            # Published together with the entry behind it.
            put_entry(self.bytes + (head & (self.capacity - 1)), RAW_REST, NULL, 0, 0, 0)
        self.claimed = head + rest
        return self.bytes + (self.claimed & (self.capacity - 1))

    cdef bint tell_shed(self) noexcept nogil:
        """Put the entry that tells what was shed; False while there is no room even for that."""
        cdef char* at = self.claim(align(RAW_ENTRY_BYTES + sizeof(ShedSpan)))
        if at == NULL:
            return False
        put_entry(at, RAW_SHED, <const char*>&self.span, sizeof(ShedSpan), self.span.last_ns, 0)
        store_release(&self.head, self.claimed + align(RAW_ENTRY_BYTES + sizeof(ShedSpan)))
        memset(&self.span, 0, sizeof(ShedSpan))
        return True

    def tell(self) -> bool:
        """Put the entry that tells what was shed, if anything was, without waiting for the next frame; False: no room for it."""
        return self.span.frames == 0 or self.tell_shed()

    def keep(self, bytes payload not None, int64_t recv_ns, int leg = 0):
        """`push` for tests and tools."""
        self.push(<const char*>payload, len(payload), recv_ns, leg)

    # The taking thread

    cdef uint64_t waiting(self) noexcept nogil:
        """Bytes that wait to be taken."""
        return load_acquire(&self.head) - load_relaxed(&self.tail)

    cdef bint peek(self, uint64_t limit, RawSpan* span) noexcept nogil:
        """The oldest entries, `limit` bytes of them at most, or one that is larger; False: there are none. They live until `consume`."""
        cdef RawEntry entry
        cdef uint64_t head = load_acquire(&self.head)
        cdef uint64_t tail = load_relaxed(&self.tail)
        cdef uint64_t offset, whole
        memset(span, 0, sizeof(RawSpan))
        while tail + span.size < head:
            offset = (tail + span.size) & (self.capacity - 1)
            if span.size and offset == 0:
                break
            memcpy(&entry, self.bytes + offset, RAW_ENTRY_BYTES)
            if entry.kind == RAW_REST:
                if span.size:
                    break
                tail += self.capacity - offset
                store_release(&self.tail, tail)
                continue
            whole = align(RAW_ENTRY_BYTES + <uint64_t>entry.size)
            if span.size and span.size + whole > limit:
                break
            if span.size == 0:
                span.begin = self.bytes + offset
                span.first_ns = span.last_ns = entry.recv_ns
            span.size += whole
            span.frames += entry.kind == RAW_FRAME
            span.first_ns = min(span.first_ns, entry.recv_ns)
            span.last_ns = max(span.last_ns, entry.recv_ns)
        return span.size > 0

    cdef void consume(self, const RawSpan* span) noexcept nogil:
        """Give the room of the entries in `span` back."""
        # Release: pairs with the acquire in `claim`.
        store_release(&self.tail, load_relaxed(&self.tail) + span.size)

    @property
    def waiting_bytes(self) -> int:
        """What its writer has not taken yet."""
        return self.waiting()

    def take(self, uint64_t limit) -> bytes:
        """The oldest entries as they go to disk, given back at once; empty: there are none. For tests."""
        cdef RawSpan span
        if not self.peek(limit, &span):
            return b""
        taken = span.begin[:span.size]
        self.consume(&span)
        return taken
