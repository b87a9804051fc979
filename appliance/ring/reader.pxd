from libc.stdint cimport uint32_t, uint64_t, uint8_t

from appliance.ring.layout cimport Meta, RecordHeader
from appliance.ring.mapping cimport Mapping

cdef enum Step:
    STEP_NOTHING        # nothing more for now
    STEP_RECORD         # `buffer` holds the next record
    STEP_LAPPED         # records lapped_from … lapped_to are gone; then STEP_RECORD follows
    STEP_CORRUPT        # `corrupt_position`, `corrupt_reason`; the next step goes on at the next block

cdef enum Peek:
    PEEK_HEADER         # of a record or padding that ends within its block
    PEEK_NOT_YET        # not committed
    PEEK_OVERTAKEN
    PEEK_DAMAGED


cdef class StreamReader:
    """A cursor in the byte stream of one ring or one journal segment; one thread, no locks, never in the writer's way."""
    cdef char* buffer                       # one record, header first, copied and checked
    cdef readonly uint64_t position         # of the next record or padding
    cdef readonly uint64_t next_sequence    # expected; 0: not known yet
    cdef readonly uint64_t corrupt_position
    cdef const char* corrupt_reason
    cdef readonly uint64_t lapped_from
    cdef readonly uint64_t lapped_to
    cdef bint skipped                       # the cursor jumped: the next record tells how far
    cdef bint held                          # `buffer` holds a record that was read to count a lap

    cdef Step next(self) noexcept nogil
    cdef Step accept(self) noexcept nogil
    cdef Step corrupt(self, const char* reason) noexcept nogil
    cdef object take(self)
    cdef int check(self) except -1


cdef class RingReader(StreamReader):
    cdef Mapping meta_mapping
    cdef Mapping data_mapping
    cdef Meta* meta
    cdef char* data
    cdef uint64_t mask
    cdef readonly uint64_t capacity
    cdef readonly str name
    cdef readonly str exchange
    cdef readonly str host
    cdef readonly str ring_id
    cdef readonly int chunk
    cdef readonly object journal_dir
    cdef readonly object meta_path
    cdef readonly long inode

    cdef check_cursors(self)
    cdef Step next(self) noexcept nogil
    cdef void resume(self) noexcept nogil
    cdef void seek_where(self, uint64_t wanted, bint by_time) noexcept
    cdef bint overtaken(self, uint64_t position) noexcept nogil
    cdef uint64_t oldest(self) noexcept nogil
    cdef Peek peek(self, uint64_t position, RecordHeader* header) noexcept nogil
    cdef uint64_t sequence_before(self, uint64_t position) noexcept nogil


cdef class SegmentReader(StreamReader):
    cdef int fd
    cdef char* block                        # the block that the cursor lies in, as far as it was read
    cdef uint64_t block_position
    cdef uint64_t block_bytes
    cdef readonly uint64_t limit            # position to stop at
    cdef readonly bint bounded              # `limit` is known to be committed; else found by reading
    cdef int failed                         # errno of a read that the disk refused; 0: none
    cdef uint64_t good_at                   # a good record behind the cursor, by an earlier search; 0: none known
    cdef readonly bint open_end             # ended before `limit` at bytes that are no record
    cdef readonly uint64_t first_position
    cdef readonly uint64_t first_sequence
    cdef readonly int epoch
    cdef readonly int chunk
    cdef readonly str exchange
    cdef readonly str host
    cdef readonly str ring_id
    cdef readonly object path

    cdef Step next(self) noexcept nogil
    cdef const char* look(self) noexcept nogil
    cdef Step at_bad_record(self, const char* reason) noexcept nogil
    cdef void seek_where(self, uint64_t wanted, bint by_time) noexcept
    cdef bint load(self) noexcept nogil
    cdef bint ends_here(self) noexcept nogil
    cdef Step corrupt(self, const char* reason) noexcept nogil
    cdef uint64_t good_record_in_block(self) noexcept nogil
    cdef bint good_record_after(self) noexcept nogil


cdef const char* fault(const char* record, uint64_t position, uint64_t available) noexcept nogil
