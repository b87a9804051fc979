from libc.stdint cimport uint64_t


cdef class Mapping:
    """One file mapped shared; the address is valid as long as this object lives and is not closed."""
    cdef char* address
    cdef readonly uint64_t size
    cdef readonly uint64_t locked_bytes
    cdef bint mapped
