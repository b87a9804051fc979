"""Deribit `trades.…` notifications."""
from libc.stdint cimport int32_t, uint32_t
from libcpp.vector cimport vector

from appliance.exchanges.decoder cimport Decoder, Outcome
from appliance.exchanges.json_cursor cimport JsonCursor, Token
from appliance.exchanges.json_index cimport JsonIndex
from appliance.trade cimport TradeFields

cdef enum:
    DECIMAL_BYTES_MAX = 40           # of a price or amount
    VALUE_BYTES_MAX = 128            # of anything else that is kept
    UNKNOWN_KEYS_MAX = 64            # in one object

cdef enum Key:                       # of a row; those from INDEX_PRICE on are kept behind the fixed fields, in this order
    TIMESTAMP
    PRICE
    AMOUNT
    DIRECTION
    INSTRUMENT_NAME
    TRADE_SEQ
    STARBASE_TIMESTAMP
    TRADE_ID
    INDEX_PRICE
    MARK_PRICE
    IV
    TICK_DIRECTION
    CONTRACTS
    LIQUIDATION
    BLOCK_TRADE_ID
    COMBO_ID
    COMBO_TRADE_ID
    KEYS                             # how many; also: none of them

cdef struct Row:                     # of the frame, checked; its tail stands in `tails`
    TradeFields trade
    Token name
    size_t tail_begin


cdef class DeribitDecoder(Decoder):
    """Several trades a frame, rows of every generation. One thread."""
    cdef JsonIndex index
    cdef vector[Row] rows
    cdef vector[char] tails
    cdef size_t next_row
    cdef Token values[17]            # of the row that is being read
    cdef uint32_t present            # which of them
    cdef Token unknown_keys[64]      # of the object that is being read

    cdef bint read_params(self, JsonCursor* cursor, bint* trades, const char** kind) noexcept nogil
    cdef bint read_rows(self, JsonCursor* cursor) noexcept nogil
    cdef bint read_row(self, JsonCursor* cursor) noexcept nogil
    cdef bint accept_row(self) noexcept nogil
    cdef void render_tail(self, Row* row) noexcept nogil
    cdef void put(self, const char* text, size_t size) noexcept nogil
    cdef bint name_instruments(self, const char* kind) noexcept nogil
