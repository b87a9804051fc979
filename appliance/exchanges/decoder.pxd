"""What every exchange's decoder does: one frame in, its trades out."""
from appliance.exchanges.instruments cimport Instruments
from appliance.trade cimport TradeFields

cpdef enum Outcome:
    TRADES = 0
    OTHER = 1                        # well-formed, no trade
    MALFORMED = 2                    # not JSON, or a trade with a field that cannot be; nothing of it is used
    UNKNOWN_SYMBOL = 3               # a trade of an instrument that this chunk does not have
    WRONG_VENUE = 4                  # a trade in the shape of another market


cdef class Decoder:
    """Abstract. One thread; views into the payload live until the next `start`."""
    cdef readonly Instruments instruments

    cdef Outcome start(self, const char* payload, Py_ssize_t size, Py_ssize_t readable) noexcept nogil
    # `trade.instrument` below 0: one that is not known, and for which there is no room.
    cdef bint next(self, TradeFields* trade) noexcept nogil
