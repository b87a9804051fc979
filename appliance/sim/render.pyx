"""The websocket frames of a tape's trades, in Binance's spelling."""
from collections.abc import Sequence

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memmove

from appliance.sim.tape cimport Tape, TapeTrade

cdef enum:
    HEADER_BYTES_MAX = 4       # unmasked, up to 65,535 bytes of payload
    SHORT_PAYLOAD_MAX = 125    # RFC 6455, 5.2
    # Everything of a frame that is neither name: keys, the header, and numbers at their widest.
    FIXED_BYTES_MAX = 400

cdef struct Template:
    char* text                 # NULL: not subscribed
    int32_t head_bytes         # `text` up to the event time
    int32_t name_bytes         # and from there up to the trade id

cdef char[200] PAIRS           # "00" "01" … "99"
cdef int pair
for pair in range(100):
    PAIRS[2 * pair] = b"0"[0] + pair // 10
    PAIRS[2 * pair + 1] = b"0"[0] + pair % 10


cdef inline char* put_digits(char* out, uint64_t value, int digits) noexcept nogil:
    """Exactly so many digits, with leading zeros."""
    cdef char* end = out + digits
    while digits >= 2:
        digits -= 2
        memcpy(out + digits, &PAIRS[2 * (value % 100)], 2)
        value //= 100
    if digits:
        out[0] = <char>(48 + value % 10)
    return end


cdef inline char* put_int(char* out, uint64_t value) noexcept nogil:
    cdef int digits = 1
    cdef uint64_t limit = 10
    while value >= limit and digits < 19:
        digits += 1
        limit *= 10
    return put_digits(out, value, digits)


cdef inline char* put_e8(char* out, int64_t value) noexcept nogil:
    """A decimal with exactly eight places, as the exchange writes prices and sizes."""
    out = put_int(out, <uint64_t>value // 100_000_000)
    out[0] = c"."
    return put_digits(out + 1, <uint64_t>value % 100_000_000, 8)


cdef inline char* put(char* out, const char* text, int size) noexcept nogil:
    memcpy(out, text, size)
    return out + size


cdef struct Stamp:
    int64_t time_us            # whose digits `text` holds: many trades share a moment
    int32_t text_bytes
    char[24] text


cdef class Renderer:
    """Frames for all connections that want the same: these streams, this wrapping, this time unit. One thread."""

    cdef Tape tape
    cdef Template* templates
    cdef char* scratch
    cdef Py_ssize_t scratch_bytes
    cdef Py_ssize_t frame_bytes_max
    cdef Stamp event, match
    cdef bint combined, microseconds, whole, order_ids, extra_key
    cdef readonly int frames

    def __cinit__(self, Tape tape not None, streams: Sequence[tuple[int, bytes, bytes]], *,
                  bint combined, bint microseconds=False, bint whole=False, bint order_ids=False, bint extra_key=False):
        self.tape = tape
        self.combined, self.microseconds, self.whole = combined, microseconds, whole
        self.order_ids, self.extra_key = order_ids, extra_key
        self.templates = <Template*>calloc(tape.symbol_count, sizeof(Template))
        if self.templates == NULL:
            raise MemoryError
        for symbol, stream, name in streams:
            self.add(symbol, stream, name)

    def __dealloc__(self):
        cdef int i
        if self.templates != NULL:
            for i in range(self.tape.symbol_count):
                free(self.templates[i].text)
        free(self.templates)
        free(self.scratch)

    cdef add(self, int symbol, bytes stream, bytes name):
        if not 0 <= symbol < self.tape.symbol_count:
            raise IndexError(f"the tape has no symbol {symbol}")
        head = b'{"stream":"%s","data":' % stream if self.combined else b""
        head += b'{"e":"trade","E":'
        name = b',"s":"%s","t":' % name
        cdef Template* template = &self.templates[symbol]
        if template.text != NULL:
            return
        template.text = <char*>malloc(len(head) + len(name))
        if template.text == NULL:
            raise MemoryError
        memcpy(template.text, <char*>head, len(head))
        memcpy(template.text + len(head), <char*>name, len(name))
        template.head_bytes, template.name_bytes = len(head), len(name)
        self.frame_bytes_max = max(self.frame_bytes_max, len(head) + len(name) + FIXED_BYTES_MAX)

    @property
    def held(self) -> int:
        """Nothing is ever held back."""
        return 0

    def late(self, now_us) -> bytes:
        return b""

    def render(self) -> bytes:
        """The frames of the tape's current batch that these connections get; `frames` is then their number."""
        cdef Py_ssize_t needed = self.frame_bytes_max * self.tape.batch_size
        if needed > self.scratch_bytes:
            free(self.scratch)
            self.scratch_bytes = 0
            self.scratch = <char*>malloc(needed)
            if self.scratch == NULL:
                raise MemoryError
            self.scratch_bytes = needed
        cdef char* end = self.render_batch(self.scratch)
        return PyBytes_FromStringAndSize(self.scratch, end - self.scratch)

    cdef char* render_batch(self, char* out) noexcept nogil:
        cdef TapeTrade* trade
        cdef int i, frames = 0
        for i in range(self.tape.batch_size):
            trade = &self.tape.batch[i]
            if self.templates[trade.symbol].text == NULL or (trade.hidden and not self.whole):
                continue
            out = self.render_frame(out, trade)
            trade.sent = True
            frames += 1
        self.frames = frames
        return out

    cdef inline char* render_frame(self, char* frame, const TapeTrade* trade) noexcept nogil:
        cdef char* payload = frame + HEADER_BYTES_MAX
        cdef char* out = self.render_payload(payload, trade)
        cdef Py_ssize_t size = out - payload
        frame[0] = <char>0x81        # FIN, text
        if size > SHORT_PAYLOAD_MAX:
            frame[1] = 126
            frame[2] = <char>(size >> 8)
            frame[3] = <char>size
            return out
        frame[1] = <char>size
        memmove(frame + 2, payload, size)
        return out - 2

    cdef inline char* render_payload(self, char* out, const TapeTrade* trade) noexcept nogil:
        cdef const Template* template = &self.templates[trade.symbol]
        out = put(out, template.text, template.head_bytes)
        out = self.put_time(out, &self.event, trade.event_us)
        out = put(out, template.text + template.head_bytes, template.name_bytes)
        out = put_int(out, <uint64_t>trade.trade_id)
        out = put(out, b',"p":"', 6)
        out = put_e8(out, trade.px_e8)
        out = put(out, b'","q":"', 7)
        out = put_e8(out, trade.sz_e8)
        out = put(out, b'"', 1)
        if self.order_ids:           # the schema before 2024-06-18
            out = put_int(put(out, b',"b":', 5), <uint64_t>trade.trade_id * 3)
            out = put_int(put(out, b',"a":', 5), <uint64_t>trade.trade_id * 3 + 1)
        out = put(out, b',"T":', 5)
        out = self.put_time(out, &self.match, trade.trade_us)
        if trade.buyer_is_maker:
            out = put(out, b',"m":true,"M":true', 18)
        else:
            out = put(out, b',"m":false,"M":true', 19)
        if self.extra_key:
            out = put(out, b',"Z":{"n":[1,"x"]}', 18)
        return put(out, b"}}", 2 if self.combined else 1)

    cdef inline char* put_time(self, char* out, Stamp* stamp, int64_t time_us) noexcept nogil:
        if stamp.time_us != time_us:
            stamp.time_us = time_us
            time_us = time_us if self.microseconds else time_us // 1000
            stamp.text_bytes = <int32_t>(put_int(stamp.text, <uint64_t>time_us) - stamp.text)
        return put(out, stamp.text, stamp.text_bytes)
