from libc.stdint cimport int64_t, uint64_t, uint8_t

from appliance.ring.layout cimport Meta
from appliance.ring.mapping cimport Mapping


cdef class Flusher:
    """Copies what is committed into journal segments; runs on a thread of its own that never holds the GIL."""
    cdef Mapping meta_mapping
    cdef Mapping data_mapping
    cdef Meta* meta
    cdef char* data
    cdef uint64_t capacity
    cdef object thread
    cdef bytes prefix_bytes
    cdef const char* prefix         # <exchange>_trade_chunk<N>
    cdef int directory              # the journal directory
    cdef int wake_up                # an eventfd
    cdef uint64_t segment_bytes
    cdef int interval_ms
    cdef bint sync_writes
    # The flusher thread's own:
    cdef int segment                # -1: none open
    cdef int prepared               # the next segment's file, allocated ahead; -1: none
    cdef uint64_t segment_position  # where the open segment begins
    cdef uint64_t segment_first     # the sequence in its name
    cdef bint segment_named         # it has its name by now
    cdef uint64_t uncut_first       # of a segment that failed and could not be cut; 0: none
    cdef uint64_t uncut_bytes       # its length up to `flushed`, header included
    cdef uint64_t written           # bytes before this are in the open segment's file
    cdef uint64_t flushed
    cdef char* edge                 # one page: what the file has of the page that `written` lies in
    cdef char* header               # room for a segment's header block
    cdef uint64_t flushed_sequence
    cdef int64_t retry_at_ns
    cdef int failed                 # errno of the last disk error, until something was flushed again
    # Words between the threads:
    cdef uint64_t turn_at           # the block at which a new segment begins; 0: none wanted
    cdef uint64_t stopping
    cdef uint64_t urgent            # 1: try again now, whatever failed before
    cdef uint64_t hole_from[64]     # sequences that the journal lost, to be recorded by the writer
    cdef uint64_t hole_to[64]
    cdef int hole_errno[64]         # of the disk; 0: the ring overtook the copy
    cdef uint64_t holes             # published ever; the next goes to holes % 64
    cdef uint64_t holes_taken

    cdef void run(self) noexcept nogil
    cdef bint flush_once(self) noexcept nogil
    cdef bint write_span(self, uint64_t start, uint64_t end) noexcept nogil
    cdef bint lost(self, uint64_t position, uint64_t size) noexcept nogil
    cdef bint write_pages(self, const char* pages, uint64_t position, uint64_t size) noexcept nogil
    cdef bint open_segment(self) noexcept nogil
    cdef void close_segment(self) noexcept nogil
    cdef int create(self, const char* hidden) noexcept nogil
    cdef void unlink_prepared(self) noexcept nogil
    cdef void prepare(self) noexcept nogil
    cdef bint fail(self) noexcept nogil
    cdef void cut_failed(self) noexcept nogil
    cdef void mark(self) noexcept nogil
    cdef void publish_hole(self, uint64_t first, uint64_t last) noexcept nogil
    cdef bint overtaken(self, uint64_t position) noexcept nogil
    cdef uint64_t sequence_before(self, uint64_t position) noexcept nogil
    cdef void wait(self) noexcept nogil
