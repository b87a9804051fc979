"""Deribit trade notifications: {"jsonrpc":"2.0","method":"subscription","params":{"channel":"trades.…","data":[…]}}.

A frame is walked whole before anything of it is believed. Keys may come in any order, in the spelling of 2021 as in that of
2026, and unknown ones are passed over (among them `legs`: a combo's legs come on their own channels too); a known key that comes
twice makes the frame malformed. Numbers are kept as written, exponents too.
"""
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

from appliance.exchanges.decoder cimport MALFORMED, OTHER, TRADES, UNKNOWN_SYMBOL
from appliance.exchanges.instruments cimport NAME_BYTES_MAX
from appliance.exchanges.json_cursor cimport NULL_, NUMBER, STRING, JsonCursor, Token
from appliance.exchanges.json_index cimport JsonIndex
from appliance.trade cimport SIDE_BUY, SIDE_SELL

cdef enum:
    EXPONENT_DIGITS_MAX = 2          # so that each is finite as a double
    KEY_BYTES_MAX = 32               # of a key that is spelled with escapes
    CHANNEL_BYTES_MAX = 128

cdef int64_t OLDEST_MS = 1_000_000_000_000  # as in binance_decoder: a time of this century, in ms
cdef int64_t NEWEST_MS = 4_102_444_800_000

cdef uint32_t REQUIRED = (
    1 << <int>TIMESTAMP | 1 << <int>PRICE | 1 << <int>AMOUNT | 1 << <int>DIRECTION | 1 << <int>INSTRUMENT_NAME | 1 << <int>TRADE_SEQ
    | 1 << <int>TRADE_ID
)


cdef inline bint is_text(const char* text, size_t size, const char* expected, size_t expected_size) noexcept nogil:
    return size == expected_size and memcmp(text, expected, size) == 0


cdef inline Key key_of(const char* name, size_t size) noexcept nogil:
    """Which key of a row this is; KEYS: none that is kept."""
    if size == 5:
        return PRICE if memcmp(name, b"price", 5) == 0 else KEYS
    if size == 6:
        return AMOUNT if memcmp(name, b"amount", 6) == 0 else KEYS
    if size == 8:
        if memcmp(name, b"trade_id", 8) == 0:
            return TRADE_ID
        return COMBO_ID if memcmp(name, b"combo_id", 8) == 0 else KEYS
    if size == 9:
        if memcmp(name, b"timestamp", 9) == 0:
            return TIMESTAMP
        if memcmp(name, b"direction", 9) == 0:
            return DIRECTION
        if memcmp(name, b"trade_seq", 9) == 0:
            return TRADE_SEQ
        return CONTRACTS if memcmp(name, b"contracts", 9) == 0 else KEYS
    if size == 10:
        return MARK_PRICE if memcmp(name, b"mark_price", 10) == 0 else KEYS
    if size == 11:
        if memcmp(name, b"index_price", 11) == 0:
            return INDEX_PRICE
        return LIQUIDATION if memcmp(name, b"liquidation", 11) == 0 else KEYS
    if size == 14:
        if memcmp(name, b"tick_direction", 14) == 0:
            return TICK_DIRECTION
        if memcmp(name, b"block_trade_id", 14) == 0:
            return BLOCK_TRADE_ID
        return COMBO_TRADE_ID if memcmp(name, b"combo_trade_id", 14) == 0 else KEYS
    if size == 15:
        return INSTRUMENT_NAME if memcmp(name, b"instrument_name", 15) == 0 else KEYS
    if size == 18:
        return STARBASE_TIMESTAMP if memcmp(name, b"starbase_timestamp", 18) == 0 else KEYS
    return IV if is_text(name, size, b"iv", 2) else KEYS


cdef inline const char* tail_name(int key) noexcept nogil:
    """How the kept value of a key is introduced."""
    if key == INDEX_PRICE:
        return b',"index_price":'
    if key == MARK_PRICE:
        return b',"mark_price":'
    if key == IV:
        return b',"iv":'
    if key == TICK_DIRECTION:
        return b',"tick_direction":'
    if key == CONTRACTS:
        return b',"contracts":'
    if key == LIQUIDATION:
        return b',"liquidation":'
    if key == BLOCK_TRADE_ID:
        return b',"block_trade_id":'
    if key == COMBO_ID:
        return b',"combo_id":'
    return b',"combo_trade_id":'


cdef inline size_t length(const char* text) noexcept nogil:
    cdef size_t size = 0
    while text[size]:
        size += 1
    return size


cdef inline bint is_decimal(const Token* token, bint may_be_negative) noexcept nogil:
    """A JSON number, whose grammar was checked, of a size and magnitude that can be."""
    if token.kind != NUMBER or token.size > DECIMAL_BYTES_MAX or (token.text[0] == c"-" and not may_be_negative):
        return False
    if memchr(token.text, c"e", token.size) == NULL and memchr(token.text, c"E", token.size) == NULL:
        return True
    return JsonCursor.exponent_digits(token.text, token.text + token.size) <= EXPONENT_DIGITS_MAX


cdef inline int64_t whole(const char* text, size_t size) noexcept nogil:
    """The value of at most 19 digits; -1: other characters, or beyond 63 bits."""
    cdef uint64_t total = 0
    cdef size_t at
    if size == 0 or size > 19:
        return -1
    for at in range(size):
        if not c"0" <= text[at] <= c"9":
            return -1
        total = total * 10 + <uint64_t>(text[at] - c"0")
    return <int64_t>total if total <= 9223372036854775807ULL else -1


cdef inline int64_t numeric_part(const Token* trade_id) noexcept nogil:
    """The number at the end of a trade id: all of "403691824", what stands behind the dash of "ETH-284830839"; 0: there is none."""
    cdef size_t begin = trade_id.size
    while begin > 0 and c"0" <= trade_id.text[begin - 1] <= c"9":
        begin -= 1
    return max(whole(trade_id.text + begin, trade_id.size - begin), <int64_t>0)


cdef inline bint is_name(const Token* name) noexcept nogil:
    """Without spaces and control characters; UTF-8, which was checked, and without escapes."""
    cdef uint32_t at
    if name.kind != STRING or name.escaped or not 0 < name.size <= NAME_BYTES_MAX:
        return False
    for at in range(name.size):
        if <unsigned char>name.text[at] <= c" " or name.text[at] == 0x7F:
            return False
    return True


cdef inline const char* kind_of(const char* channel, size_t size) noexcept nogil:
    """The record's kind by the channel `trades.{kind}.{currency}.{interval}`; NULL for `trades.{instrument}.{interval}`.

    Futures are "Future": the name alone tells which are perpetual.
    """
    cdef const char* begin = channel + 7  # behind "trades."
    cdef const char* end = channel + size
    cdef const char* dot = <const char*>memchr(begin, c".", end - begin)
    cdef const char* second
    if dot == NULL:
        return NULL
    second = <const char*>memchr(dot + 1, c".", end - dot - 1)
    if second == NULL:
        return NULL
    if is_text(begin, dot - begin, b"option", 6):
        return b"Option"
    if is_text(begin, dot - begin, b"spot", 4):
        return b"Spot"
    return b"Spread" if is_text(dot - 6, 6, b"_combo", 6) else b"Future"


cdef inline const char* kind_by_name(const char* name, size_t size) noexcept nogil:
    """The kind by the shape of a name: BTC_USDC, BTC-25DEC26, BTC-25DEC26-72000-C, BTC-FS-25DEC26_PERP."""
    cdef size_t at
    cdef int dashes = 0
    for at in range(size):
        dashes += name[at] == c"-"
    if dashes == 0:
        return b"Spot"
    if dashes == 3 and name[size - 2] == c"-" and (name[size - 1] == c"C" or name[size - 1] == c"P"):
        return b"Option"
    return b"Future" if dashes == 1 else b"Spread"


cdef inline bint is_perpetual(const char* name, size_t size) noexcept nogil:
    return size > 10 and memcmp(name + size - 10, b"-PERPETUAL", 10) == 0


cdef bint unseen(const Token* keys, int count, const Token* key) noexcept nogil:
    """Whether a key stands not yet among these, however it is spelled."""
    cdef int number
    for number in range(count):
        if JsonCursor.same(keys[number], key[0]):
            return False
    return True


cdef class DeribitDecoder(Decoder):

    def __cinit__(self):
        self.index = JsonIndex()

    cdef Outcome start(self, const char* payload, Py_ssize_t size, Py_ssize_t readable) noexcept nogil:
        cdef JsonCursor cursor
        cdef Token key
        cdef Token value
        cdef Token seen[UNKNOWN_KEYS_MAX]
        cdef int seen_count = 0
        cdef bint subscription = False
        cdef bint trades = False
        cdef const char* kind = NULL
        self.next_row = 0
        self.rows.clear()
        self.tails.clear()
        if not self.index.build(payload, size):
            return MALFORMED
        cursor = JsonCursor(self.index.begins, self.index.count, payload, size)
        if not cursor.enter_object():
            cursor.value(&value)
            return OTHER if cursor.finish() else MALFORMED
        while cursor.next_field(&key):
            if seen_count == UNKNOWN_KEYS_MAX or not unseen(seen, seen_count, &key):
                return MALFORMED
            seen[seen_count] = key
            seen_count += 1
            if is_text(key.text, key.size, b"params", 6) and cursor.enter_object():
                if not self.read_params(&cursor, &trades, &kind):
                    return MALFORMED
            elif not cursor.value(&value):
                return MALFORMED
            elif is_text(key.text, key.size, b"method", 6):
                subscription = value.kind == STRING and is_text(value.text, value.size, b"subscription", 12)
        if not cursor.finish():
            return MALFORMED
        if not trades or not subscription or self.rows.size() == 0:
            return OTHER
        return TRADES if self.name_instruments(kind) else UNKNOWN_SYMBOL

    cdef bint read_params(self, JsonCursor* cursor, bint* trades, const char** kind) noexcept nogil:
        """Walk the object that the cursor is in. False: broken, or rows that cannot be."""
        cdef Token key
        cdef Token value
        cdef Token seen[UNKNOWN_KEYS_MAX]
        cdef int seen_count = 0
        cdef JsonCursor data
        cdef bint deferred = False
        cdef bint known = False
        while cursor.next_field(&key):
            if seen_count == UNKNOWN_KEYS_MAX or not unseen(seen, seen_count, &key):
                return False
            seen[seen_count] = key
            seen_count += 1
            if is_text(key.text, key.size, b"data", 4):
                if known and trades[0]:
                    if not self.read_rows(cursor):
                        return False
                    continue
                # The channel stands behind it, or is another one: then nothing of it is a trade.
                data = cursor[0]
                deferred = not known
            if not cursor.value(&value):
                return False
            if is_text(key.text, key.size, b"channel", 7):
                known = True
                if value.kind == STRING and 7 < value.size <= CHANNEL_BYTES_MAX and memcmp(value.text, b"trades.", 7) == 0:
                    trades[0] = True
                    kind[0] = kind_of(value.text, value.size)
        if cursor.broken():
            return False
        return not (deferred and trades[0]) or self.read_rows(&data)

    cdef bint read_rows(self, JsonCursor* cursor) noexcept nogil:
        """The array of trades. False: it is none, or one of them cannot be."""
        cdef JsonCursor at = cursor[0]
        if not at.enter_array():
            return False
        while at.next_element():
            if not at.enter_object() or not self.read_row(&at) or not self.accept_row():
                return False
        cursor[0] = at
        return not at.broken()

    cdef bint read_row(self, JsonCursor* cursor) noexcept nogil:
        """Take the object that the cursor is in apart, into `values`. False: broken, or a key came twice."""
        cdef JsonCursor at = cursor[0]
        cdef Token key
        cdef Token value
        cdef char room[KEY_BYTES_MAX]
        cdef Py_ssize_t size
        cdef Key known
        cdef uint32_t present = 0
        cdef int unknown = 0
        while at.next_field(&key):
            if not key.escaped:
                known = key_of(key.text, key.size)
            else:
                size = JsonCursor.unescape(key, room, KEY_BYTES_MAX)
                known = key_of(room, size) if size > 0 else KEYS
            if known == KEYS:
                if unknown == UNKNOWN_KEYS_MAX or not unseen(self.unknown_keys, unknown, &key) or not at.value(&value):
                    return False
                self.unknown_keys[unknown] = key
                unknown += 1
                continue
            if present >> <int>known & 1 or not at.value(&value):
                return False
            if value.kind != NULL_:
                self.values[<int>known] = value
                present |= 1 << <int>known
        self.present = present
        cursor[0] = at
        return not at.broken()

    cdef bint accept_row(self) noexcept nogil:
        """Make a trade of `values`. False: it cannot be one."""
        cdef Row row
        cdef TradeFields* trade = &row.trade
        cdef const Token* direction = &self.values[<int>DIRECTION]
        cdef const Token* trade_id = &self.values[<int>TRADE_ID]
        cdef const Token* px = &self.values[<int>PRICE]
        cdef const Token* sz = &self.values[<int>AMOUNT]
        cdef int64_t time_ns
        cdef int key
        if self.present & REQUIRED != REQUIRED:
            return False
        # A combo is priced as a difference of its legs, below zero too.
        if not is_decimal(px, True) or not is_decimal(sz, False) or not is_name(&self.values[<int>INSTRUMENT_NAME]):
            return False
        if trade_id.kind != STRING and trade_id.kind != NUMBER or trade_id.size > VALUE_BYTES_MAX:
            return False
        if is_text(direction.text, direction.size, b"buy", 3):
            trade.side = SIDE_BUY
        elif is_text(direction.text, direction.size, b"sell", 4):
            trade.side = SIDE_SELL
        else:
            return False
        if direction.kind != STRING or self.values[<int>TRADE_SEQ].kind != NUMBER or self.values[<int>TIMESTAMP].kind != NUMBER:
            return False
        for key in range(<int>INDEX_PRICE, <int>KEYS):
            if self.values[key].size > VALUE_BYTES_MAX or self.values[key].kind not in (STRING, NUMBER):
                self.present &= ~(<uint32_t>1 << key)  # odd, and not needed: the trade is kept without it (T18)
        trade.sequence_id = whole(self.values[<int>TRADE_SEQ].text, self.values[<int>TRADE_SEQ].size)
        trade.exchange_ts_ms = whole(self.values[<int>TIMESTAMP].text, self.values[<int>TIMESTAMP].size)
        if trade.sequence_id < 1 or not OLDEST_MS <= trade.exchange_ts_ms < NEWEST_MS:
            return False
        trade.exchange_ts_ns = 0
        if self.present >> <int>STARBASE_TIMESTAMP & 1:
            time_ns = whole(self.values[<int>STARBASE_TIMESTAMP].text, self.values[<int>STARBASE_TIMESTAMP].size)
            if OLDEST_MS <= time_ns // 1_000_000 < NEWEST_MS:
                trade.exchange_ts_ns = time_ns
        trade.trade_id = numeric_part(trade_id)
        trade.instrument = -1
        trade.px = px.text
        trade.px_bytes = <int32_t>px.size
        trade.sz = sz.text
        trade.sz_bytes = <int32_t>sz.size
        trade.era = 0
        trade.tail = NULL
        row.name = self.values[<int>INSTRUMENT_NAME]
        self.render_tail(&row)
        self.rows.push_back(row)
        return True

    cdef void render_tail(self, Row* row) noexcept nogil:
        """What the record has behind the fixed fields, as on the wire."""
        cdef const Token* value = &self.values[<int>TRADE_ID]
        cdef const Token* sequence = &self.values[<int>TRADE_SEQ]
        cdef const char* name
        cdef int key
        row.tail_begin = self.tails.size()
        self.put(b',"exchange_trade_seq":', 22)
        self.put(sequence.text, sequence.size)
        self.put(b',"trade_id":', 12)
        # Quotes stand around a string's text.
        self.put(value.text - (value.kind == STRING), value.size + 2 * (value.kind == STRING))
        for key in range(<int>INDEX_PRICE, <int>KEYS):
            if self.present >> key & 1:
                value = &self.values[key]
                name = tail_name(key)
                self.put(name, length(name))
                self.put(value.text - (value.kind == STRING), value.size + 2 * (value.kind == STRING))
        row.trade.tail_bytes = <int32_t>(self.tails.size() - row.tail_begin)

    cdef void put(self, const char* text, size_t size) noexcept nogil:
        cdef size_t at = self.tails.size()
        self.tails.resize(at + size)
        memcpy(self.tails.data() + at, text, size)

    cdef bint name_instruments(self, const char* kind) noexcept nogil:
        """Find each row's instrument; one that was never seen is learned, or -1 if there is no room for it. False: no row has one."""
        cdef size_t number
        cdef size_t unknown = 0
        cdef Row* row
        cdef const char* own
        for number in range(self.rows.size()):
            row = &self.rows[number]
            row.trade.tail = self.tails.data() + row.tail_begin
            row.trade.instrument = self.instruments.lookup(row.name.text, row.name.size)
            if row.trade.instrument >= 0:
                continue
            own = kind if kind != NULL else kind_by_name(row.name.text, row.name.size)
            if is_text(own, length(own), b"Future", 6) and is_perpetual(row.name.text, row.name.size):
                own = b"Perpetual"
            row.trade.instrument = self.instruments.learn(row.name.text, row.name.size, own)
            unknown += row.trade.instrument < 0
        return unknown < self.rows.size()

    cdef bint next(self, TradeFields* trade) noexcept nogil:
        if self.next_row == self.rows.size():
            return False
        trade[0] = self.rows[self.next_row].trade
        self.next_row += 1
        return True
