from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t, uint8_t

from appliance.ring.layout cimport Meta, RecordType
from appliance.ring.mapping cimport Mapping


cdef class Writer:
    """The one writer of one ring; one thread. `claim` and `commit` are the hot path."""
    cdef Mapping meta_mapping
    cdef Mapping data_mapping
    cdef Meta* meta
    cdef char* data
    cdef uint64_t capacity
    cdef readonly uint64_t position      # where the next record or padding begins
    cdef readonly uint64_t sequence      # of the last record
    cdef uint64_t claimed                # as stored in .meta, or what a dead writer left there
    cdef uint64_t flushed_seen           # block of `flushed` as last read: a lower bound, another core owns its cache line
    cdef uint32_t epoch
    cdef int64_t last_write_ns
    cdef readonly bint journaled         # a flusher follows: mode safe holds back, else the ring just goes round
    cdef char* staging                   # one record is made here, then copied

    cdef uint64_t room(self) noexcept nogil
    cdef char* claim(self, uint64_t payload_bytes_max) noexcept nogil
    cdef int64_t write_time(self) noexcept nogil
    cdef uint64_t commit(
        self, RecordType type, uint64_t payload_bytes, uint16_t flags,
        int64_t recv_ns, int64_t parse_ns, int64_t enqueue_ns, int64_t write_ns,
    ) noexcept nogil
    cdef void pad_to_block(self) noexcept nogil
    cdef void announce(self, uint64_t end) noexcept nogil
    cdef void store_padding(self, uint64_t position, uint64_t size) noexcept nogil
    cdef void count(self, int counter, uint64_t amount) noexcept nogil
