"""Nanoseconds since the UNIX epoch, read from a clock that no one sets."""
from libc.stdint cimport int64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

cdef int64_t realtime_offset_ns   # added to CLOCK_MONOTONIC; read anew by refresh()


cdef inline int64_t monotonic_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1_000_000_000 + now.tv_nsec


cdef inline int64_t now_ns() noexcept nogil:
    return monotonic_ns() + realtime_offset_ns
