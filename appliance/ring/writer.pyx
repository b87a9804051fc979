"""The writer of a ring: claim room, commit a record, never wait."""
import os
import time

from libc.stdint cimport int64_t, uint16_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from appliance.clock cimport now_ns
from appliance.ring.atomics cimport (
    add,
    copy_in,
    fence_release,
    load_acquire,
    load_relaxed,
    store_relaxed,
    store_release,
)
from appliance.ring.crc32c cimport crc32c_of_record
from appliance.ring.layout cimport (
    BLOCK_BYTES,
    C_BYTES,
    C_RECORDS,
    C_WRITE_CLAMPED,
    CODEC_JSON,
    MODE_LOSSY,
    MODE_SAFE,
    PADDING,
    PAYLOAD_BYTES_MAX,
    RECORD_BYTES_MAX,
    RECORD_HEADER_BYTES,
    Meta,
    RecordHeader,
    RecordType,
    align_up,
    block_end,
)
from appliance.ring.mapping cimport Mapping

from appliance.ring.layout import COUNTER_NAMES

COUNTER_OF_NAME = {name: index for index, name in COUNTER_NAMES.items()}


cdef class Writer:
    """Takes over the ring mapped by `meta` and `data`, which go on at `committed` and record `sequence`.

    The caller holds the directory's lock. `journaled`: a flusher follows, and in mode safe nothing that it has
    not flushed is overwritten. A new epoch begins: the first record starts a new block.
    """

    def __init__(self, Mapping meta, Mapping data, uint64_t sequence, uint64_t last_write_ns, bint journaled):
        self.meta_mapping = meta
        self.data_mapping = data
        self.meta = <Meta*>meta.address
        self.data = data.address
        self.capacity = data.size
        self.position = load_acquire(&self.meta.committed)  # ring.pml: W_TAKE
        self.claimed = max(load_acquire(&self.meta.claimed), self.position)  # ring.pml: W_GO_ON
        self.sequence = sequence
        self.last_write_ns = last_write_ns
        self.flushed_seen = load_acquire(&self.meta.flushed) & ~<uint64_t>(BLOCK_BYTES - 1)
        self.journaled = journaled
        self.epoch = self.meta.epoch + 1
        self.meta.epoch = self.epoch
        self.meta.writer_pid = os.getpid()
        self.meta.writer_started_ns = time.time_ns()
        store_relaxed(&self.meta.mode, MODE_SAFE if journaled else MODE_LOSSY)
        store_release(&self.meta.committed_sequence, sequence)
        memset(&self.meta.recv_to_commit_ns, 0, sizeof(self.meta.recv_to_commit_ns))
        memset(&self.meta.fdatasync_ns, 0, sizeof(self.meta.fdatasync_ns))
        self.pad_to_block()

    def __cinit__(self):
        self.staging = <char*>calloc(1, RECORD_BYTES_MAX + 64)
        if self.staging == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.staging)

    cdef uint64_t room(self) noexcept nogil:
        """Bytes until the oldest byte that must stay; without a journal, or in mode lossy, nothing must.

        The block that `flushed` lies in stays whole: a segment begins at a block, so the next one needs all of it. And
        because the end of the room is a block's end, a writer that takes over can always pad the block it finds begun.
        """
        if not self.journaled or load_relaxed(&self.meta.mode) != MODE_SAFE:
            return self.capacity
        self.flushed_seen = load_acquire(&self.meta.flushed) & ~<uint64_t>(BLOCK_BYTES - 1)  # ring.pml: W_ROOM
        if self.position - self.flushed_seen > self.capacity:
            return 0
        return self.flushed_seen + self.capacity - self.position

    cdef char* claim(self, uint64_t payload_bytes_max) noexcept nogil:
        """Where the payload goes; NULL when there is no room for the largest record and the padding it may need."""
        cdef uint64_t needed = align_up(RECORD_HEADER_BYTES + payload_bytes_max)
        cdef uint64_t left = block_end(self.position) - self.position
        if left < needed:
            needed += left
        if self.position + needed > self.flushed_seen + self.capacity and self.room() < needed:
            return NULL
        return self.staging + RECORD_HEADER_BYTES

    cdef int64_t write_time(self) noexcept nogil:
        """Now, for `commit`, held so that it never decreases: it is the key for seeking and merging."""
        cdef int64_t now = now_ns()
        if now >= self.last_write_ns:
            return now
        add(&self.meta.counters[<int>C_WRITE_CLAMPED], 1)
        return self.last_write_ns

    cdef uint64_t commit(
        self, RecordType type, uint64_t payload_bytes, uint16_t flags,
        int64_t recv_ns, int64_t parse_ns, int64_t enqueue_ns, int64_t write_ns,
    ) noexcept nogil:
        """Publish the payload that stands where `claim` pointed; its sequence. `write_ns` comes from `write_time`."""
        cdef RecordHeader* header = <RecordHeader*>self.staging
        cdef uint64_t length = RECORD_HEADER_BYTES + payload_bytes
        cdef uint64_t stride = align_up(length)
        cdef uint64_t padding = block_end(self.position) - self.position
        cdef uint64_t position = self.position
        cdef uint64_t end
        if padding >= stride:
            padding = 0
        self.last_write_ns = write_ns
        memset(self.staging + length, 0, stride - length)
        header.length = <unsigned int>length
        header.type = type
        header.codec = CODEC_JSON
        header.flags = flags
        header.epoch = self.epoch
        header.position = position + padding
        header.sequence = self.sequence + 1
        header.recv_ns = recv_ns
        header.parse_ns = parse_ns
        header.enqueue_ns = enqueue_ns
        header.write_ns = write_ns
        header.crc32c = crc32c_of_record(self.staging, length)

        end = position + padding + stride
        self.announce(end)
        if padding:
            self.store_padding(position, padding)
            position += padding
        copy_in(<uint64_t*>(self.data + (position & (self.capacity - 1))), <uint64_t*>self.staging, stride >> 3)  # ring.pml: W_DATA
        # Release: pairs with the acquire in Reader.next. The record must be visible before the cursor.
        store_release(&self.meta.committed, end)  # ring.pml: W_COMMIT
        self.sequence += 1
        # After `committed`, so that who reads the sequence first never finds it ahead of the position.
        store_release(&self.meta.committed_sequence, self.sequence)
        self.position = end
        add(&self.meta.counters[<int>C_BYTES], stride)
        add(&self.meta.counters[<int>C_RECORDS], 1)
        return self.sequence

    cdef inline void announce(self, uint64_t end) noexcept nogil:
        """Bytes up to `end` are about to change. Never goes down: a writer that died may have announced more."""
        if end > self.claimed:
            self.claimed = end
            store_relaxed(&self.meta.claimed, end)  # ring.pml: W_CLAIM
        # Readers must see `claimed` before any byte that changes: pairs with the acquire fences in RingReader.
        fence_release()  # ring.pml: W_FENCE

    cdef void store_padding(self, uint64_t position, uint64_t size) noexcept nogil:
        """Zeros up to a block's end, the first word says so. `claimed` covers them already."""
        cdef uint64_t* shared = <uint64_t*>(self.data + (position & (self.capacity - 1)))
        cdef uint64_t i
        store_relaxed(shared, size | (<uint64_t>PADDING << 32))  # ring.pml: W_PAD
        for i in range(1, size >> 3):
            store_relaxed(shared + i, 0)

    cdef void pad_to_block(self) noexcept nogil:
        """The next record begins a block."""
        cdef uint64_t size = block_end(self.position) - self.position
        if size == BLOCK_BYTES:
            return
        self.announce(self.position + size)
        self.store_padding(self.position, size)
        self.position += size
        store_release(&self.meta.committed, self.position)  # ring.pml: W_PADDED

    cdef void count(self, int counter, uint64_t amount) noexcept nogil:
        add(&self.meta.counters[counter], amount)

    def append(self, RecordType type, bytes payload, uint16_t flags=0, int64_t recv_ns=0):
        """Commit one record that is not of the hot path; its sequence.

        Raises ValueError for a payload above 65,472 bytes, BlockingIOError when the journal is so far behind that
        there is no room.
        """
        cdef uint64_t size = len(payload)
        if size > PAYLOAD_BYTES_MAX:
            raise ValueError(f"a record holds {PAYLOAD_BYTES_MAX} bytes at most, found {size}")
        cdef char* out = self.claim(size)
        if out == NULL:
            raise BlockingIOError("no room in the ring: the journal is behind")
        memcpy(out, <const char*>payload, size)
        cdef int64_t now = self.write_time()
        return self.commit(type, size, flags, recv_ns if recv_ns else now, now, now, now)

    def begin_block(self):
        """Pad, so that the next record begins a block; the position of that block."""
        if self.room() < (-self.position) % BLOCK_BYTES:
            raise BlockingIOError("no room in the ring: the journal is behind")
        self.pad_to_block()
        return self.position

    def add_to(self, str counter, int64_t amount=1):
        """Raise (or lower) one of layout.COUNTER_NAMES."""
        add(&self.meta.counters[<int>COUNTER_OF_NAME[counter]], <uint64_t>amount)

    def set_counter(self, str counter, uint64_t value):
        """Set one of layout.COUNTER_NAMES: a gauge."""
        store_relaxed(&self.meta.counters[<int>COUNTER_OF_NAME[counter]], value)

    def beat(self, int64_t watermark_ns):
        """Store the heartbeat, and that nothing received before `watermark_ns` will still come: never less than before."""
        watermark_ns = max(watermark_ns, <int64_t>self.meta.watermark_ns)
        # A clock that is set back must not break the promise: what comes now is held at it.
        self.last_write_ns = max(self.last_write_ns, watermark_ns)
        store_release(<uint64_t*>&self.meta.watermark_ns, <uint64_t>watermark_ns)
        store_release(<uint64_t*>&self.meta.heartbeat_ns, <uint64_t>now_ns())

    @property
    def committed(self) -> int:
        """Position after the last record."""
        return self.position

    @property
    def committed_sequence(self) -> int:
        return self.sequence

    @property
    def flushed(self) -> int:
        """Position known to be on disk."""
        return load_acquire(&self.meta.flushed)

    @property
    def flushed_sequence(self) -> int:
        """Of the newest record known to be on disk."""
        return load_acquire(&self.meta.flushed_sequence)

    @property
    def unflushed_bytes(self) -> int:
        return self.position - load_acquire(&self.meta.flushed)

    @property
    def room_bytes(self) -> int:
        """Bytes that can be committed before something unflushed would be overwritten."""
        return self.room()

    @property
    def lossy(self) -> bool:
        return load_relaxed(&self.meta.mode) == MODE_LOSSY

    @lossy.setter
    def lossy(self, bint value):
        store_relaxed(&self.meta.mode, MODE_LOSSY if value else MODE_SAFE)

    def retire(self):
        """No writer from here on; the ring stays for its readers."""
        self.meta.writer_pid = 0

    def close(self):
        """Let go of the mappings. Call nothing else afterwards."""
        self.meta = NULL
        self.data = NULL
        self.meta_mapping.close()
        self.data_mapping.close()
