"""The websocket frames of a tape's trades, in Deribit's spelling: several trades a notification, numbers as Java prints them."""
from collections.abc import Mapping, Sequence

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memset
from libcpp.string cimport string
from libcpp.vector cimport vector

from appliance.sim.tape cimport Tape, TapeTrade

cdef int64_t E8 = 100_000_000
cdef int64_t IV_E8 = 4_591_000_000
cdef int64_t IDS_PER_INSTRUMENT = 1_000_000_000
cdef uint64_t MATCH_ID = 214_121_762_240_000_000  # beyond 2**53, as they are

# One trade in so many stands for its kind; primes, so that they meet.
cdef enum:
    BLOCK_EVERY = 211
    COMBO_LEG_EVERY = 97

cdef struct Product:
    string name
    string trade_id_prefix
    bint option
    vector[int32_t] legs         # of a combo
    int32_t combo                # that it is a leg of; -1: of none


cdef struct Channel:
    string head                  # of its notifications, up to the first trade
    string rows                  # of the notification in the making
    int32_t trades               # in it


cdef inline void put_int(string* out, uint64_t value) noexcept nogil:
    cdef char[20] digits
    cdef int at = 20
    while True:
        at -= 1
        digits[at] = <char>(48 + value % 10)
        value //= 10
        if value == 0:
            break
    out.append(digits + at, 20 - at)


cdef inline void put_number(string* out, int64_t e8) noexcept nogil:
    """A decimal with a point; thousands and thousandths with an exponent, as the exchange prints them."""
    cdef int64_t fraction
    cdef char[8] digits
    cdef int size = 8
    cdef int at
    if e8 >= 1000 * E8 and e8 % (100 * E8) == 0 and e8 < 10_000 * E8:
        put_number(out, e8 // 1000)
        out.append(b"e3", 2)
        return
    put_int(out, <uint64_t>(e8 // E8))
    fraction = e8 % E8
    for at in range(7, -1, -1):
        digits[at] = <char>(48 + fraction % 10)
        fraction //= 10
    while size > 1 and digits[size - 1] == c"0":
        size -= 1
    out.push_back(c".")
    out.append(digits, size)


cdef inline void put(string* out, const char* text) noexcept nogil:
    out.append(text)


cdef class NotificationRenderer:
    """Frames for all connections with the same channels. One thread.

    `instruments`: name, prefix of trade ids, whether an option, by the tape's index. `channels`: name and the indexes of its
    instruments. `batch_us`: how long trades wait for others of their channel; 0: those of one match go out at once.
    `combos`: the indexes of the legs, by that of the combo.
    """
    cdef Tape tape
    cdef vector[Product] products
    cdef vector[Channel] channels
    cdef vector[vector[int32_t]] channels_of
    cdef int generation
    cdef int64_t batch_us
    cdef int64_t due_us
    cdef bint whole
    cdef string out
    cdef readonly int frames
    cdef readonly int held       # trades that wait for their batch

    def __cinit__(self, Tape tape not None, instruments: Sequence[tuple[bytes, bytes, bool]],
                  channels: Sequence[tuple[bytes, Sequence[int]]], *, int generation=2026, int64_t batch_us=0, bint whole=False,
                  combos: Mapping[int, Sequence[int]] | None = None):
        cdef Product product
        cdef Channel channel
        self.tape = tape
        self.generation, self.batch_us, self.whole = generation, batch_us, whole
        for name, prefix, option in instruments:
            product.name, product.trade_id_prefix, product.option, product.combo = name, prefix, option, -1
            self.products.push_back(product)
        for combo, legs in (combos or {}).items():
            self.products[<int>combo].legs = legs
            for leg in legs:
                self.products[<int>leg].combo = combo
        self.channels_of.resize(tape.symbol_count)
        for number, (name, indexes) in enumerate(channels):
            channel.head = b'{"jsonrpc":"2.0","method":"subscription","params":{"channel":"%s","data":[' % name
            channel.trades = 0
            self.channels.push_back(channel)
            for index in indexes:
                self.channels_of[<int>index].push_back(number)

    def render(self) -> bytes:
        """The frames of the tape's current batch that go out now; `frames` is then their number."""
        cdef int i
        cdef const TapeTrade* trade
        cdef const TapeTrade* last = NULL
        self.out.clear()
        self.frames = 0
        with nogil:
            for i in range(self.tape.batch_size):
                trade = &self.tape.batch[i]
                if self.channels_of[trade.symbol].empty() or (trade.hidden and not self.whole):
                    continue
                if self.batch_us == 0 and last != NULL and (last.symbol != trade.symbol or last.trade_us != trade.trade_us):
                    self.finish_all()
                self.add(trade)
                self.tape.batch[i].sent = True
                last = trade
            if self.batch_us == 0:
                self.finish_all()
            elif last != NULL:
                self.finish_due(last.event_us)
        return self.taken()

    def row(self, int symbol, int64_t trade_id, int64_t trade_us) -> bytes:
        """One trade, past or to come, as its row stands on the stream."""
        cdef TapeTrade trade
        memset(&trade, 0, sizeof(TapeTrade))
        self.tape.describe(symbol, trade_id, &trade)
        trade.trade_us = trade_us
        self.out.clear()
        self.put_row(&self.out, &trade, self.combo_of(&trade))
        return self.taken()

    def late(self, int64_t now_us) -> bytes:
        """The frames of what waited for long enough; `frames` is then their number."""
        self.out.clear()
        self.frames = 0
        self.finish_due(now_us)
        return self.taken()

    cdef bytes taken(self):
        return PyBytes_FromStringAndSize(self.out.data(), self.out.size())

    cdef void add(self, const TapeTrade* trade) noexcept nogil:
        """One more trade to each channel that its instrument is on."""
        cdef size_t i
        cdef Channel* channel
        for i in range(self.channels_of[trade.symbol].size()):
            channel = &self.channels[self.channels_of[trade.symbol][i]]
            if channel.trades:
                channel.rows.push_back(c",")
            self.put_row(&channel.rows, trade, self.combo_of(trade))
            channel.trades += 1
            self.held += self.batch_us != 0
            if channel.rows.size() > 60_000:
                self.finish(channel)

    cdef void finish_due(self, int64_t now_us) noexcept nogil:
        """The batches, if their time has come."""
        if self.held and now_us >= self.due_us:
            self.finish_all()
            self.due_us = now_us + self.batch_us

    cdef void finish_all(self) noexcept nogil:
        cdef size_t i
        for i in range(self.channels.size()):
            self.finish(&self.channels[i])

    cdef void finish(self, Channel* channel) noexcept nogil:
        """Put the channel's notification on the wire."""
        cdef size_t size = channel.head.size() + channel.rows.size() + 3
        if channel.trades == 0:
            return
        self.out.push_back(<char>0x81)  # FIN, text
        if size < 126:
            self.out.push_back(<char>size)
        else:
            self.out.push_back(<char>126)
            self.out.push_back(<char>(size >> 8))
            self.out.push_back(<char>size)
        self.out.append(channel.head)
        self.out.append(channel.rows)
        put(&self.out, b"]}}")
        self.held -= channel.trades if self.batch_us else 0
        channel.rows.clear()
        channel.trades = 0
        self.frames += 1

    cdef int32_t combo_of(self, const TapeTrade* trade) noexcept nogil:
        """The combo that this trade is a leg of; -1: of none."""
        return self.products[trade.symbol].combo if trade.trade_id % COMBO_LEG_EVERY == 0 else -1

    cdef void put_row(self, string* out, const TapeTrade* trade, int32_t combo) noexcept nogil:
        if self.generation == 2021:
            put(out, b'{"trade_seq":')
            put_int(out, <uint64_t>trade.trade_id)
            self.put_trade_id(out, trade)
            self.put_time(out, trade)
            self.put_rest(out, trade)
        elif self.generation == 2025:
            put(out, b'{"timestamp":')
            put_int(out, <uint64_t>(trade.trade_us // 1000))
            self.put_rest(out, trade)
            put(out, b',"trade_seq":')
            put_int(out, <uint64_t>trade.trade_id)
            put(out, b',"contracts":')
            put_number(out, trade.sz_e8)
            self.put_trade_id(out, trade)
        else:
            put(out, b'{"timestamp":')
            put_int(out, <uint64_t>(trade.trade_us // 1000))
            self.put_rest(out, trade)
            self.put_trade_id(out, trade)
            put(out, b',"trade_seq":')
            put_int(out, <uint64_t>trade.trade_id)
            put(out, b',"starbase_match_id":')
            put_int(out, MATCH_ID + <uint64_t>trade.trade_id)
            put(out, b',"contracts":')
            put_number(out, trade.sz_e8)
            put(out, b',"starbase_timestamp":')
            put_int(out, <uint64_t>trade.trade_us * 1000 + <uint64_t>(trade.trade_id % 1000))
        if combo >= 0:
            put(out, b',"combo_id":"')
            out.append(self.products[combo].name)
            put(out, b'","combo_trade_id":"')
            put_int(out, self.number_of(combo, trade.trade_id))
            out.push_back(c'"')
        elif self.products[trade.symbol].legs.empty():
            if trade.trade_id % BLOCK_EVERY == 0:
                put(out, b',"block_trade_id":"BLOCK-')
                put_int(out, <uint64_t>(trade.trade_id // BLOCK_EVERY % 1_000_000))
                put(out, b'","block_trade_leg_count":2')
        else:
            self.put_legs(out, trade)
        out.push_back(c"}")

    cdef void put_legs(self, string* out, const TapeTrade* trade) noexcept nogil:
        """Inside a combo's row the trades of its legs, each as it stands on its own channel, tagged."""
        cdef size_t i
        cdef TapeTrade leg
        put(out, b',"legs":[')
        for i in range(self.products[trade.symbol].legs.size()):
            if i:
                out.push_back(c",")
            memset(&leg, 0, sizeof(TapeTrade))
            self.tape.describe(self.products[trade.symbol].legs[i], trade.trade_id, &leg)
            leg.trade_us = trade.trade_us
            self.put_row(out, &leg, trade.symbol)
        out.push_back(c"]")

    cdef void put_time(self, string* out, const TapeTrade* trade) noexcept nogil:
        put(out, b',"timestamp":')
        put_int(out, <uint64_t>(trade.trade_us // 1000))

    cdef void put_trade_id(self, string* out, const TapeTrade* trade) noexcept nogil:
        """Unique in its book, and no sequence."""
        put(out, b',"trade_id":"')
        out.append(self.products[trade.symbol].trade_id_prefix)
        put_int(out, self.number_of(trade.symbol, trade.trade_id))
        out.push_back(c'"')

    cdef uint64_t number_of(self, int32_t symbol, int64_t trade_id) noexcept nogil:
        # It rises by 2 to 4 from trade to trade, as where other instruments of the currency trade in between.
        cdef uint64_t number = 3 * <uint64_t>trade_id + <uint64_t>trade_id % 2
        return <uint64_t>(symbol + 1) * IDS_PER_INSTRUMENT + number % IDS_PER_INSTRUMENT

    cdef void put_rest(self, string* out, const TapeTrade* trade) noexcept nogil:
        """What stands in every generation of rows."""
        put(out, b',"tick_direction":')
        put_int(out, <uint64_t>(trade.trade_id & 3))
        put(out, b',"price":')
        put_number(out, trade.px_e8)
        put(out, b',"mark_price":')
        put_number(out, trade.px_e8 + 1)
        if self.products[trade.symbol].option:
            put(out, b',"iv":')
            put_number(out, IV_E8 + (trade.trade_id % 1000) * <int64_t>1_000_000)
        put(out, b',"instrument_name":"')
        out.append(self.products[trade.symbol].name)
        put(out, b'","index_price":')
        put_number(out, trade.px_e8 + 2)
        put(out, b',"direction":"sell","amount":' if trade.buyer_is_maker else b',"direction":"buy","amount":')
        put_number(out, trade.sz_e8)
