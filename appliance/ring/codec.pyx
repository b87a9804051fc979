"""How a trade becomes the payload of a record: the JSON of docs/json-output.md, field by field, with the digits of the wire."""
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from appliance.trade cimport SIDE_SELL

cdef enum:
    MS_NS = 1_000_000
    MS_DIGITS = 13                   # of a UNIX time in ms from 2001 to 2262, where nanoseconds end

cdef int64_t MS_LEAST = 1_000_000_000_000

cdef extern from *:
    int __builtin_clzll(unsigned long long number) noexcept nogil

cdef uint64_t[20] POWERS             # of ten
cdef char[200] PAIRS                 # "00" to "99"
for _pair in range(100):
    PAIRS[2 * _pair] = 48 + _pair // 10
    PAIRS[2 * _pair + 1] = 48 + _pair % 10
for _power in range(20):
    POWERS[_power] = 10 ** _power


cdef inline char* put(char* out, const char* text, Py_ssize_t size) noexcept nogil:
    memcpy(out, text, size)
    return out + size


cdef inline void put_digits(char* end, uint64_t number, int digits) noexcept nogil:
    """The last `digits` digits of `number`, ending before `end`."""
    cdef uint64_t rest
    while digits >= 2:
        rest = number // 100
        end -= 2
        memcpy(end, &PAIRS[2 * (number - rest * 100)], 2)
        number = rest
        digits -= 2
    if digits:
        (end - 1)[0] = <char>(c"0" + number % 10)


cdef inline int digits_of(uint64_t number) noexcept nogil:
    """How many decimal digits it has."""
    cdef int floor = (64 - __builtin_clzll(number | 1)) * 1233 >> 12  # of log10
    return floor + (number >= POWERS[floor] or number == 0)


cdef inline char* put_int(char* out, int64_t number) noexcept nogil:
    cdef uint64_t magnitude = <uint64_t>number
    cdef int digits
    if number < 0:
        out[0] = c"-"
        out += 1
        magnitude = 0 - magnitude
    digits = digits_of(magnitude)
    put_digits(out + digits, magnitude, digits)
    return out + digits


cdef class TradeEncoder:
    """Trades as JSON. One thread; `stamp` belongs to the `encode` just before it."""

    def __cinit__(self):
        self.ms_begins_ns = MS_LEAST * MS_NS
        put_digits(self.ms_digits + MS_DIGITS, <uint64_t>MS_LEAST, MS_DIGITS)

    cdef inline char* put_ms(self, char* out, int64_t time_ns) noexcept nogil:
        """A time of ours in ms. Most lie in the millisecond of the one before, whose digits are at hand."""
        cdef int64_t time_ms
        if <uint64_t>(time_ns - self.ms_begins_ns) >= MS_NS:
            time_ms = time_ns // MS_NS
            if time_ms < MS_LEAST:
                return put_int(out, time_ms)
            put_digits(self.ms_digits + MS_DIGITS, <uint64_t>time_ms, MS_DIGITS)
            self.ms_begins_ns = time_ms * MS_NS
        return put(out, self.ms_digits, MS_DIGITS)

    cdef Py_ssize_t encode(
        self, const TradeFields* trade, const char* prefix, int32_t prefix_bytes,
        int64_t recv_ns, int64_t parse_ns, int64_t enqueue_ns, char* out,
    ) noexcept nogil:
        """Write the trade to `out`, all but the write time; how many bytes: at most TRADE_PAYLOAD_BYTES_MAX and the tail."""
        cdef char* at = put(out, prefix, prefix_bytes)
        at = put(at, trade.px, trade.px_bytes)
        at = put(at, b',"sz":', 6)
        at = put(at, trade.sz, trade.sz_bytes)
        if trade.side == SIDE_SELL:
            at = put(at, b',"side":"Sell","exchange_trade_id":', 35)
        else:
            at = put(at, b',"side":"Buy","exchange_trade_id":', 34)
        at = put_int(at, trade.trade_id)
        at = put(at, b',"exchange_ts_ms":', 18)
        at = put_int(at, trade.exchange_ts_ms)
        at = put(at, b',"writer_ts_ms":', 16)
        self.writer_ts_at = at - out
        at = put(at, b"1000000000000", MS_DIGITS)
        at = put(at, b',"recv_ts_ms":', 14)
        at = self.put_ms(at, recv_ns)
        at = put(at, b',"parse_ts_ms":', 15)
        at = self.put_ms(at, parse_ns)
        at = put(at, b',"enqueue_ts_ms":', 17)
        at = self.put_ms(at, enqueue_ns)
        if trade.tail_bytes:
            at = put(at, trade.tail, trade.tail_bytes)
        if trade.exchange_ts_ns:
            at = put(at, b',"exchange_ts_ns":', 18)
            at = put_int(at, trade.exchange_ts_ns)
        if trade.era:
            at = put(at, b',"era":', 7)
            at = put_int(at, trade.era)
        at[0] = c"}"
        return at + 1 - out

    cdef void stamp(self, char* out, int64_t write_ns) noexcept nogil:
        """Fill in when the payload was complete. A clock that stands before 2001 reads as 2001 here, the header has it as it is."""
        cdef int64_t least_ns = MS_LEAST * MS_NS
        self.put_ms(out + self.writer_ts_at, max(write_ns, least_ns))

    def encoded(
        self, bytes prefix not None, bytes px not None, bytes sz not None, *, bint sells, int64_t trade_id, int64_t exchange_ts_ms,
        int64_t recv_ns, int64_t parse_ns, int64_t enqueue_ns, int64_t write_ns,
        int64_t exchange_ts_ns = 0, uint32_t era = 0, bytes tail not None = b"",
    ) -> bytes:
        """One trade's payload, for tools and tests. `prefix` is what `Instruments.start_of_records` returns."""
        cdef TradeFields trade
        cdef bytearray out = bytearray(TRADE_PAYLOAD_BYTES_MAX + len(tail))
        cdef Py_ssize_t size
        if len(prefix) > 512 or len(px) > 40 or len(sz) > 40:
            raise ValueError("a prefix has at most 512 bytes, px and sz have at most 40")
        trade.instrument = 0
        trade.trade_id = trade.sequence_id = trade_id
        trade.exchange_ts_ms = exchange_ts_ms
        trade.exchange_ts_ns = exchange_ts_ns
        trade.px = px
        trade.px_bytes = <int32_t>len(px)
        trade.sz = sz
        trade.sz_bytes = <int32_t>len(sz)
        trade.tail = tail
        trade.tail_bytes = <int32_t>len(tail)
        trade.era = era
        trade.side = sells
        size = self.encode(&trade, prefix, <int32_t>len(prefix), recv_ns, parse_ns, enqueue_ns, out)
        self.stamp(out, write_ns)
        return bytes(out[:size])
