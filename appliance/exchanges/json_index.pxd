"""Where the tokens of a JSON text begin (json_index.hpp)."""
from libc.stdint cimport uint32_t
from libcpp cimport bool

cdef extern from "appliance/exchanges/json_index.hpp" namespace "mdc" nogil:
    cdef cppclass Stage1 "mdc::JsonIndex":
        bool usable() noexcept
        bool build(const char* text, size_t size) noexcept
        const uint32_t* begins() noexcept
        uint32_t count() noexcept


cdef class JsonIndex:
    """The index of one text at a time, and the memory for it. One thread."""
    cdef Stage1 stage1
    cdef const uint32_t* begins      # of the tokens; until the next `build`
    cdef uint32_t count

    cdef bint build(self, const char* text, Py_ssize_t size) noexcept nogil
