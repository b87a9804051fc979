"""Which names one chunk has, and the start of each one's records."""
from libc.stdint cimport int32_t, uint32_t

cdef enum:
    NAME_BYTES_MAX = 64              # UTF-8; the longest name seen on either exchange has 31

cdef struct Instrument:
    char name[64]
    int32_t name_bytes
    int32_t prefix_bytes
    bint wanted                      # by the configuration; what is not is counted and not kept
    char* prefix                     # `{"exchange":"BINANCE","asset":"BTCUSDT","kind":"Spot","px":`


cdef class Instruments:
    """The name table of one chunk. One thread; `add` never within a socket read."""
    cdef readonly str exchange
    cdef Instrument* items
    cdef int32_t count
    cdef int32_t room                # of `items`
    cdef int32_t* slots              # open addressing, -1 is free; at most half full
    cdef uint32_t slots_mask
    cdef list kinds
    cdef public int32_t names_max    # with so many, no further name that the wire brings is learned
    cdef public object wanted        # a function of the name; None: all are

    cdef int32_t lookup(self, const char* name, Py_ssize_t size) noexcept nogil
    cdef const char* prefix(self, int32_t instrument, int32_t* size) noexcept nogil
    cdef bint is_wanted(self, int32_t instrument) noexcept nogil
    cdef int32_t learn(self, const char* name, Py_ssize_t size, const char* kind) noexcept nogil
    cdef int enlarge(self) except -1
    cdef void enter(self, int32_t instrument) noexcept nogil
    cdef int check(self, int32_t instrument) except -1
