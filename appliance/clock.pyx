"""The one clock of the process: CLOCK_MONOTONIC plus an offset to UNIX time that is read once a second.

Differences of two stamps are durations whatever happens to the system clock between two calls of `refresh`;
a step of the system clock shows as the value that `refresh` returns.
"""
from libc.stdint cimport int64_t
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec


cdef int64_t read_offset_ns() noexcept nogil:
    cdef timespec real
    cdef int64_t before = monotonic_ns()
    clock_gettime(CLOCK_REALTIME, &real)
    cdef int64_t after = monotonic_ns()
    return <int64_t>real.tv_sec * 1_000_000_000 + real.tv_nsec - (before + after) // 2


def refresh() -> int:
    """Read the offset to UNIX time anew; by how many nanoseconds it moved. Never call it within a socket read."""
    global realtime_offset_ns
    cdef int64_t old = realtime_offset_ns
    realtime_offset_ns = read_offset_ns()
    return realtime_offset_ns - old


def offset_ns() -> int:
    """What is added to CLOCK_MONOTONIC just now: a step of the system clock moves it, its slewing does not."""
    return realtime_offset_ns


def unix_ns() -> int:
    """Nanoseconds since the UNIX epoch by this process's clock."""
    return now_ns()


realtime_offset_ns = read_offset_ns()
