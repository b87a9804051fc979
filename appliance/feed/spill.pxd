from libc.stdint cimport int64_t, uint64_t

cdef struct SpilledMessage:
    int64_t recv_ns
    int64_t size
    int64_t leg


cdef class Spill:
    """Messages that were read while the ring had no room, in their order. One thread."""
    cdef char* bytes
    cdef uint64_t begin              # of the oldest message's entry
    cdef uint64_t end
    cdef uint64_t allocated
    cdef readonly int64_t messages

    cdef bint push(self, const char* payload, Py_ssize_t size, int64_t recv_ns, int leg) noexcept nogil
    cdef const char* front(self, SpilledMessage* message) noexcept nogil
    cdef void pop(self) noexcept nogil
