"""Binance spot `<symbol>@trade` frames."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from appliance.exchanges.decoder cimport Decoder, Outcome
from appliance.exchanges.json_cursor cimport Token
from appliance.exchanges.json_index cimport JsonIndex
from appliance.trade cimport TradeFields

cdef enum:
    DECIMAL_BYTES_MAX = 40           # of a price or size
    LONG_KEYS_MAX = 128              # of more than one letter, in one object; no frame of Binance has more than a few

cdef struct Level:
    uint64_t letters[2]              # which one-letter keys are there, a bit for each ASCII character
    Token values[128]                # of one-letter keys, by letter
    Token long_keys[128]
    int32_t long_keys_count
    bint futures                     # has a key that only futures have
    bint has_stream
    bint has_data
    uint8_t stream_kind              # TokenKind
    uint8_t data_kind


cdef class BinanceDecoder(Decoder):
    """Combined and raw frames, old and new schema; one trade a frame. One thread."""
    cdef JsonIndex index
    cdef Level outer                 # the frame's own fields
    cdef Level inner                 # those of its `data`
    cdef char px_room[40]            # only for a price that is spelled with escapes
    cdef char sz_room[40]
    cdef TradeFields trade
    cdef bint trade_waits

    cdef Outcome judge(self, Level* level) noexcept nogil
    cdef Outcome match_usual(self, const char* payload, Py_ssize_t size) noexcept nogil
    cdef Outcome accept(
        self, const char* name, Py_ssize_t name_bytes, int64_t trade_id, int64_t time, bint buyer_is_maker
    ) noexcept nogil
