"""Binance spot `<symbol>@trade` frames: {"stream":"btcusdt@trade","data":{"e":"trade",…}} or the inner object alone.

A frame is walked once, whole, before anything of it is believed. Keys may come in any order and unknown ones are passed over;
a key that comes twice in the frame or in its `data` makes it malformed. Which trade it is says `s`, never the stream's name.
"""
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcmp

from appliance.exchanges.decoder cimport MALFORMED, OTHER, TRADES, UNKNOWN_SYMBOL, WRONG_VENUE
from appliance.exchanges.instruments cimport NAME_BYTES_MAX
from appliance.exchanges.json_cursor cimport FALSE_, JsonCursor, OBJECT, STRING, TRUE_
from appliance.exchanges.json_index cimport JsonIndex
from appliance.exchanges.usual_frame cimport UsualTrade, match_usual_trade
from appliance.trade cimport SIDE_BUY, SIDE_SELL

cdef enum:
    EXPONENT_DIGITS_MAX = 2          # so that each is finite as a double

# A trade time below 2100 and above 2001-09-09 can only be of one unit (times of Binance begin in 2017).
cdef int64_t OLDEST_MS = 1_000_000_000_000
cdef int64_t NEWEST_MS = 4_102_444_800_000


cdef inline bint is_text(const char* text, Py_ssize_t size, const char* expected, Py_ssize_t expected_size) noexcept nogil:
    return size == expected_size and memcmp(text, expected, size) == 0


cdef inline bint has(const Level* level, char letter) noexcept nogil:
    return level.letters[letter >> 6] >> (letter & 63) & 1


cdef inline bint is_decimal(Token* token, char* room) noexcept nogil:
    """A string that holds an unsigned JSON number. Should it be spelled with escapes, it is unescaped into `room`."""
    cdef ptrdiff_t exponent_digits
    if token.kind != STRING:
        return False
    if token.escaped:
        token.size = <uint32_t>max(JsonCursor.unescape(token[0], room, DECIMAL_BYTES_MAX), <ptrdiff_t>0)
        token.text = room
    if not 0 < token.size <= DECIMAL_BYTES_MAX or token.text[0] == c"-":
        return False
    exponent_digits = JsonCursor.exponent_digits(token.text, token.text + token.size)
    return 0 <= exponent_digits <= EXPONENT_DIGITS_MAX


cdef inline bint is_trade(const Token* kind) noexcept nogil:
    cdef char name_room[8]
    if kind.escaped:
        return is_text(name_room, JsonCursor.unescape(kind[0], name_room, sizeof(name_room)), b"trade", 5)
    return is_text(kind.text, kind.size, b"trade", 5)


cdef inline bint note_long_key(Level* level, const Token* key) noexcept nogil:
    """False: the key is there already, however it is spelled, or there are too many."""
    cdef int32_t number
    if level.long_keys_count == LONG_KEYS_MAX:
        return False
    for number in range(level.long_keys_count):
        if JsonCursor.same(key[0], level.long_keys[number]):
            return False
    level.long_keys[level.long_keys_count] = key[0]
    level.long_keys_count += 1
    return True


cdef bint collect(JsonCursor* cursor, Level* level, Level* inner) noexcept nogil:
    """Walk the object that the cursor is in. False: broken, or a key came twice. `inner`: take its `data` apart too; or NULL."""
    cdef JsonCursor at = cursor[0]
    cdef Token key
    cdef Token value
    cdef char name_room[8]
    cdef const char* name
    cdef Py_ssize_t name_bytes
    cdef unsigned char letter
    cdef uint64_t bit
    level.letters[0] = level.letters[1] = 0
    level.long_keys_count = 0
    level.futures = level.has_stream = level.has_data = False
    while at.next_field(&key):
        name = key.text
        name_bytes = key.size
        if key.escaped:
            name = name_room
            name_bytes = JsonCursor.unescape(key, name_room, sizeof(name_room))
        if name_bytes == 1:
            letter = <unsigned char>name[0] & 127  # UTF-8 was checked: one byte is ASCII
            bit = <uint64_t>1 << (letter & 63)
            if level.letters[letter >> 6] & bit or not at.value(&value):
                return False
            level.letters[letter >> 6] |= bit
            level.values[letter] = value
            continue
        if not note_long_key(level, &key):
            return False
        if inner != NULL and is_text(name, name_bytes, b"data", 4):
            level.has_data = True
            level.data_kind = OBJECT
            if at.enter_object():
                cursor[0] = at
                if not collect(cursor, inner, NULL):
                    return False
                at = cursor[0]
                continue
            if not at.value(&value):
                return False
            level.data_kind = value.kind
            continue
        if not at.value(&value):
            return False
        if inner != NULL and is_text(name, name_bytes, b"stream", 6):
            level.has_stream = True
            level.stream_kind = value.kind
        elif is_text(name, name_bytes, b"st", 2):
            level.futures = True
    level.futures = level.futures or has(level, c"X")
    cursor[0] = at
    return True


cdef class BinanceDecoder(Decoder):
    """Combined and raw frames, old and new schema; one trade a frame. One thread."""

    def __cinit__(self):
        self.index = JsonIndex()

    cdef Outcome start(self, const char* payload, Py_ssize_t size, Py_ssize_t readable) noexcept nogil:
        cdef JsonCursor cursor
        cdef Token value
        cdef Outcome usual
        self.trade_waits = False
        usual = self.match_usual(payload, size)
        if usual != OTHER:
            return usual
        if not self.index.build(payload, size):
            return MALFORMED
        cursor = JsonCursor(self.index.begins, self.index.count, payload, size)
        if not cursor.enter_object():
            cursor.value(&value)
            return OTHER if cursor.finish() else MALFORMED
        if not collect(&cursor, &self.outer, &self.inner) or not cursor.finish():
            return MALFORMED
        if self.outer.has_stream and self.outer.stream_kind != STRING:
            return MALFORMED
        if not self.outer.has_data:
            return self.judge(&self.outer)
        if self.outer.data_kind != OBJECT:
            return OTHER
        return self.judge(&self.inner)

    cdef Outcome judge(self, Level* level) noexcept nogil:
        cdef TradeFields* trade = &self.trade
        cdef const Token* kind = &level.values[c"e"]
        cdef const Token* symbol = &level.values[c"s"]
        cdef Token* px = &level.values[c"p"]
        cdef Token* sz = &level.values[c"q"]
        cdef const Token* buyer_is_maker = &level.values[c"m"]
        cdef char name_room[NAME_BYTES_MAX]
        cdef const char* name = symbol.text
        cdef Py_ssize_t name_bytes = symbol.size
        cdef int64_t trade_id

        if not has(level, c"e") or kind.kind != STRING or not is_trade(kind):
            return OTHER
        if level.futures:
            return WRONG_VENUE
        if not (has(level, c"s") and has(level, c"t") and has(level, c"p") and has(level, c"q") and has(level, c"T") and has(level, c"m")):
            return MALFORMED
        if symbol.kind != STRING or not is_decimal(px, self.px_room) or not is_decimal(sz, self.sz_room):
            return MALFORMED
        if buyer_is_maker.kind != TRUE_ and buyer_is_maker.kind != FALSE_:
            return MALFORMED
        trade_id = JsonCursor.whole_number(level.values[c"t"])
        if trade_id < 0:
            return MALFORMED
        if symbol.escaped:
            name = name_room
            name_bytes = JsonCursor.unescape(symbol[0], name_room, NAME_BYTES_MAX)
        trade.px = px.text
        trade.px_bytes = <int32_t>px.size
        trade.sz = sz.text
        trade.sz_bytes = <int32_t>sz.size
        return self.accept(name, name_bytes, trade_id, JsonCursor.whole_number(level.values[c"T"]), buyer_is_maker.kind == TRUE_)

    cdef Outcome match_usual(self, const char* payload, Py_ssize_t size) noexcept nogil:
        """Take the frame if it is spelled as nearly all are. OTHER: it is not, the parser must say what it is."""
        cdef UsualTrade usual
        if not match_usual_trade(payload, size, &usual):
            return OTHER
        self.trade.px = usual.px
        self.trade.px_bytes = <int32_t>usual.px_bytes
        self.trade.sz = usual.sz
        self.trade.sz_bytes = <int32_t>usual.sz_bytes
        return self.accept(usual.symbol, usual.symbol_bytes, usual.trade_id, usual.time, usual.buyer_is_maker)

    cdef Outcome accept(
        self, const char* name, Py_ssize_t name_bytes, int64_t trade_id, int64_t time, bint buyer_is_maker
    ) noexcept nogil:
        """A well-formed trade, whose price and size stand in `trade` already."""
        cdef TradeFields* trade = &self.trade
        if OLDEST_MS <= time < NEWEST_MS:
            trade.exchange_ts_ms = time
            trade.exchange_ts_ns = 0
        elif OLDEST_MS * 1000 <= time < NEWEST_MS * 1000:
            trade.exchange_ts_ms = time // 1000
            trade.exchange_ts_ns = time * 1000
        else:
            return MALFORMED
        trade.instrument = self.instruments.lookup(name, name_bytes) if name_bytes > 0 else -1
        if trade.instrument < 0:
            return UNKNOWN_SYMBOL
        trade.sequence_id = trade.trade_id = trade_id
        trade.tail = NULL
        trade.tail_bytes = 0
        trade.era = 0
        # The buyer's order was waiting in the book: the aggressor sold.
        trade.side = SIDE_SELL if buyer_is_maker else SIDE_BUY
        self.trade_waits = True
        return TRADES

    cdef bint next(self, TradeFields* trade) noexcept nogil:
        if not self.trade_waits:
            return False
        trade[0] = self.trade
        self.trade_waits = False
        return True
