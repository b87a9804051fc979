from libc.stdint cimport int64_t, uint32_t, uint64_t

from appliance.ring.raw_buffer cimport RawBuffer, RawSpan

cdef enum:
    RAW_FORMAT_VERSION = 1
    RAW_HEADER_BYTES = 256           # before the blocks of a segment
    RAW_BLOCK_HEADER_BYTES = 40

cdef packed struct RawBlockHeader:   # its compressed entries follow, with zeros up to the next multiple of 8
    uint32_t crc32c                  # of bytes 4 to RAW_BLOCK_HEADER_BYTES + length
    uint32_t length                  # of the compressed entries
    uint32_t entries_bytes           # decompressed
    uint32_t frames
    int64_t first_ns                 # the least and the greatest receive time in it
    int64_t last_ns
    uint64_t reserved


cdef class RawWriter:
    """Takes frames from a RawBuffer, compresses and writes them, on a thread of its own."""
    cdef readonly RawBuffer buffer
    cdef object thread
    cdef object compressor
    cdef bytes packed                # the newest block's compressed entries
    cdef const char* packed_begin
    cdef uint64_t packed_size
    cdef bytes header_bytes
    cdef const char* header          # of each segment, but for its time and CRC
    cdef bytes directory_bytes       # where segments lie, below `parent`
    cdef bytes prefix_bytes
    cdef const char* directory
    cdef const char* prefix
    cdef int parent
    cdef int lane                    # where segments lie, while all is well; -1
    cdef int wake_up                 # an eventfd
    cdef uint64_t segment_bytes
    cdef int64_t segment_ns
    cdef int64_t block_ns
    cdef uint64_t keep_free_bytes
    # The writing thread's own:
    cdef int segment                 # -1: none open
    cdef uint64_t written            # of the open segment
    cdef int64_t opened_ns           # monotonic
    cdef int64_t created_ns          # of the newest segment; each has a later one
    cdef char* block                 # compressed and not yet written
    cdef uint64_t block_bytes        # 0: none
    cdef uint64_t block_room
    cdef uint64_t block_frames
    cdef int64_t waits_since_ns      # monotonic; 0: nothing waits
    cdef int64_t retry_at_ns         # monotonic; 0: the disk took the last block
    # Words between the threads:
    cdef uint64_t stopping
    cdef uint64_t failed             # errno of the last attempt; 0: it succeeded
    cdef uint64_t written_total
    cdef uint64_t dropped_total      # frames that were left when it was stopped

    cdef void run(self) noexcept nogil
    cdef bint is_due(self, bint stopping) noexcept nogil
    cdef bint make_block(self) noexcept nogil
    cdef bint compress(self, const RawSpan* span) noexcept with gil
    cdef bint write_block(self) noexcept nogil
    cdef bint open_directory(self) noexcept nogil
    cdef bint open_segment(self) noexcept nogil
    cdef void close_segment(self) noexcept nogil
    cdef bint fail(self) noexcept nogil
    cdef void drop_rest(self) noexcept nogil
    cdef void wait(self) noexcept nogil
