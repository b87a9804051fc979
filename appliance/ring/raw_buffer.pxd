from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    RAW_ENTRY_BYTES = 16

cdef enum RawKind:
    RAW_FRAME = 1
    RAW_SHED = 2                     # an entry whose payload is a ShedSpan
    RAW_REST = 3                     # nothing more up to the buffer's end; never on disk

cdef packed struct RawEntry:         # its payload follows, with zeros up to the next multiple of 16
    int64_t recv_ns                  # UNIX ns: the socket read that brought the frame
    uint32_t size
    uint8_t kind
    uint8_t leg
    uint16_t reserved

cdef packed struct ShedSpan:
    int64_t first_ns                 # receive times of the first and the last frame that found no room
    int64_t last_ns
    uint64_t frames
    uint64_t bytes

cdef struct RawSpan:                 # whole entries that lie behind each other
    const char* begin
    uint64_t size
    uint64_t frames
    int64_t first_ns
    int64_t last_ns


cdef class RawBuffer:
    """Frames on their way to the raw lane's writer: one thread pushes, one takes."""
    cdef char* bytes
    cdef readonly uint64_t capacity
    # The pushing thread's own:
    cdef uint64_t tail_seen
    cdef uint64_t claimed            # where the entry of the last `claim` begins
    cdef readonly uint64_t frames    # kept
    cdef readonly uint64_t shed      # frames that found no room
    cdef ShedSpan span               # shed, and no entry tells of them yet
    cdef char apart[128]
    # Positions, in bytes since the buffer was made:
    cdef uint64_t head               # stored by the pushing thread
    cdef char further_apart[120]
    cdef uint64_t tail               # stored by the taking thread

    cdef void push(self, const char* payload, Py_ssize_t size, int64_t recv_ns, int leg) noexcept nogil
    cdef char* claim(self, uint64_t needed) noexcept nogil
    cdef bint tell_shed(self) noexcept nogil
    cdef uint64_t waiting(self) noexcept nogil
    cdef bint peek(self, uint64_t limit, RawSpan* span) noexcept nogil
    cdef void consume(self, const RawSpan* span) noexcept nogil
