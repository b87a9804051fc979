from libc.stdint cimport int64_t, uint64_t
from libcpp.string cimport string
from libcpp.vector cimport vector

from appliance.ring.scan cimport Run, Scanner, TradeKey

cdef struct Count:
    uint64_t trades                  # of the span of time
    uint64_t[8] legs                 # of those, first brought by each
    int64_t before                   # the highest id that was traded before the span; -1: none
    int64_t behind                   # the lowest that was traded behind it; -1: none


cdef class Tally(Scanner):
    """What a scan found of each instrument, and a digest of what the exchange said."""
    cdef int64_t from_ms
    cdef int64_t to_ms
    cdef bint digests
    cdef vector[Count] counts                # per key
    cdef vector[vector[Run]] backfilled      # per key: ids that came over REST
    cdef vector[vector[Run]] inside          # per key: ids of the span
    cdef vector[string] said                 # of trades whose digest is due
    cdef vector[size_t] said_by
    cdef dict sums                           # per key
    cdef readonly list taken

    cdef object take_sums(self)
