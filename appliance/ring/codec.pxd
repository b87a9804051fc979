"""How a trade becomes the payload of a record."""
from libc.stdint cimport int32_t, int64_t

from appliance.trade cimport TradeFields

cdef enum:
    TRADE_PAYLOAD_BYTES_MAX = 1024   # what `encode` writes at most, the trade's own tail apart


cdef class TradeEncoder:
    """Trades as JSON. One thread; `stamp` belongs to the `encode` just before it."""
    cdef Py_ssize_t writer_ts_at     # offset of the time that `stamp` fills in
    cdef int64_t ms_begins_ns        # the millisecond whose digits are in `ms_digits`
    cdef char[13] ms_digits

    cdef char* put_ms(self, char* out, int64_t time_ns) noexcept nogil
    cdef Py_ssize_t encode(
        self, const TradeFields* trade, const char* prefix, int32_t prefix_bytes,
        int64_t recv_ns, int64_t parse_ns, int64_t enqueue_ns, char* out,
    ) noexcept nogil
    cdef void stamp(self, char* out, int64_t write_ns) noexcept nogil
