"""The tape of a synthetic market: which trade comes next, and what a past one was.

Price, size and side of a trade are a pure function of (seed, symbol, id); only its time is remembered. So any past trade can
be told again, to a REST client or to a test that checks digits, without keeping it.
"""
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

cdef enum:
    BATCH_TRADES_MAX = 65_536
    REMEMBERED_AT_FIRST = 64
    OCTAVES = 4                # of the price walk: its shape over 16, 256, 4,096 and 65,536 trades
    BURST_TRADES_MAX = 16

cdef uint64_t GOLDEN = 0x9E3779B97F4A7C15u
cdef int64_t ID_FLOOR = 4_294_967_296   # ids on the main net are beyond 32 bit


cdef inline uint64_t mix(uint64_t x) noexcept nogil:
    """The finalizer of splitmix64: every bit of the result depends on every bit of `x`."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu
    return x ^ (x >> 31)


cdef inline int64_t power_of_ten(int exponent) noexcept nogil:
    cdef int64_t power = 1
    while exponent > 0:
        power *= 10
        exponent -= 1
    return power


cdef inline int64_t walk_ticks(uint64_t key, int64_t trade_id) noexcept nogil:
    """How far the price of a trade is from its base: straight lines between random points, on several scales of time."""
    cdef int64_t ticks = <int64_t>(mix(key ^ <uint64_t>trade_id) % 3) - 1
    cdef int octave, bits
    cdef int64_t step, part, span, left, right
    for octave in range(1, OCTAVES + 1):
        bits = 4 * octave
        step = trade_id >> bits
        part = trade_id & ((1 << bits) - 1)
        span = <int64_t>4 << (2 * octave)      # a random walk goes as far as the root of its steps
        key += GOLDEN                          # other random points on each scale
        left = <int64_t>(mix(key ^ <uint64_t>step) % <uint64_t>span) - span // 2
        right = <int64_t>(mix(key ^ <uint64_t>(step + 1)) % <uint64_t>span) - span // 2
        ticks += left + (((right - left) * part) >> bits)
    return ticks


cdef class Tape:
    """Trades of `symbols` symbols; ids rise by exactly 1 per symbol, the busiest symbol is 0. One thread."""

    def __cinit__(self, int symbols, uint64_t seed, *, int64_t remember=262_144):
        if symbols < 1:
            raise ValueError(f"a tape needs at least one symbol, got {symbols}")
        self.symbol_count = symbols
        self.symbols = <TapeSymbol*>calloc(symbols, sizeof(TapeSymbol))
        self.batch = <TapeTrade*>malloc(BATCH_TRADES_MAX * sizeof(TapeTrade))
        if self.symbols == NULL or self.batch == NULL:
            raise MemoryError
        self.key = mix(seed + GOLDEN)
        self.remember_max = REMEMBERED_AT_FIRST
        while self.remember_max < remember:
            self.remember_max *= 2
        cdef int i
        for i in range(symbols):
            self._list_symbol(i)
        self._weigh_symbols()

    def __dealloc__(self):
        cdef int i
        if self.symbols != NULL:
            for i in range(self.symbol_count):
                free(self.symbols[i].times_us)
        free(self.symbols)
        free(self.batch)

    def _list_symbol(self, int i):
        cdef TapeSymbol* symbol = &self.symbols[i]
        cdef uint64_t random = mix(self.key + GOLDEN * <uint64_t>(i + 1))
        symbol.key = random
        symbol.tick_e8 = power_of_ten(<int>(random % 7))                   # 1e-8 .. 0.01
        symbol.base_ticks = 10_000 + <int64_t>((random >> 8) % 9_000_000)
        symbol.lot_e8 = power_of_ten(3 + <int>((random >> 40) % 6))        # 0.00001 .. 1
        symbol.first_id = ID_FLOOR + <int64_t>((random >> 16) % 5_000_000_000)
        symbol.next_id = symbol.first_id
        symbol.remembered_max = REMEMBERED_AT_FIRST
        symbol.times_us = <int64_t*>malloc(REMEMBERED_AT_FIRST * sizeof(int64_t))
        if symbol.times_us == NULL:
            raise MemoryError

    def _weigh_symbols(self):
        # Walker's alias method. The weights are Zipf's: a few symbols make most of the trades, as on the exchange.
        weights = [1.0 / (rank + 2) for rank in range(self.symbol_count)]
        total = sum(weights)
        shares = [weight * self.symbol_count / total for weight in weights]
        small = [i for i, share in enumerate(shares) if share < 1]
        large = [i for i, share in enumerate(shares) if share >= 1]
        for i in range(self.symbol_count):
            self.symbols[i].threshold, self.symbols[i].alias = 1.0, i
        while small and large:
            less, more = small.pop(), large.pop()
            self.symbols[less].threshold, self.symbols[less].alias = shares[less], more
            shares[more] -= 1 - shares[less]
            (small if shares[more] < 1 else large).append(more)

    cdef void describe(self, int32_t symbol, int64_t trade_id, TapeTrade* trade) noexcept nogil:
        cdef TapeSymbol* listed = &self.symbols[symbol]
        cdef uint64_t random = mix(listed.key + GOLDEN * <uint64_t>trade_id)
        trade.symbol = symbol
        trade.trade_id = trade_id
        trade.px_e8 = (listed.base_ticks + walk_ticks(listed.key, trade_id)) * listed.tick_e8
        # Sizes fall off like a power: shifting by a uniform number of bits halves the size as often as it doubles it.
        trade.sz_e8 = (1 + <int64_t>((random & 0xFFFFF) >> ((random >> 32) % 20))) * listed.lot_e8
        trade.buyer_is_maker = (random >> 40) & 1

    cdef int remember(self, TapeSymbol* symbol, int64_t trade_us) except -1:
        cdef int64_t known = symbol.next_id - symbol.first_id
        cdef int64_t* larger
        cdef int64_t trade_id
        if known == symbol.remembered_max and known < self.remember_max:
            larger = <int64_t*>malloc(2 * known * sizeof(int64_t))
            if larger == NULL:
                raise MemoryError
            for trade_id in range(symbol.first_id, symbol.next_id):
                larger[trade_id & (2 * known - 1)] = symbol.times_us[trade_id & (known - 1)]
            free(symbol.times_us)
            symbol.times_us = larger
            symbol.remembered_max = 2 * known
        symbol.times_us[symbol.next_id & (symbol.remembered_max - 1)] = trade_us
        return 0

    def print_trades(self, int count, int64_t now_us) -> int:
        """Make the next `count` trades (at most 65,536) the current batch, matched between the last call and `now_us`; how many."""
        cdef int64_t since_us = self.last_us if 0 < self.last_us <= now_us else now_us
        cdef int64_t trade_us = since_us
        cdef TapeTrade* trade
        cdef TapeSymbol* symbol
        cdef uint64_t random
        cdef int32_t drawn
        cdef int i
        count = max(0, min(count, <int>BATCH_TRADES_MAX))
        for i in range(count):
            if self.burst_left == 0:
                # One order that takes several others: same symbol, same moment.
                random = mix(self.key ^ (GOLDEN * self.draws))
                self.draws += 1
                drawn = <int32_t>((random >> 32) % <uint64_t>self.symbol_count)
                if <double>(random & 0xFFFFFFFFu) / 4294967296.0 >= self.symbols[drawn].threshold:
                    drawn = self.symbols[drawn].alias
                while self.symbols[drawn].closed:
                    drawn = (drawn + 1) % self.symbol_count
                self.burst_symbol = drawn
                random = mix(random)
                self.burst_left = 1
                while random & 1 and self.burst_left < BURST_TRADES_MAX:
                    self.burst_left += 1
                    random >>= 1
                trade_us = since_us + (now_us - since_us) * (i + 1) // count
            self.burst_left -= 1
            symbol = &self.symbols[self.burst_symbol]
            trade = &self.batch[i]
            self.describe(self.burst_symbol, symbol.next_id, trade)
            trade.trade_us = trade_us
            trade.event_us = now_us
            trade.sent = False
            trade.hidden = symbol.hidden_left > 0
            if trade.hidden:
                symbol.hidden_left -= 1
            self.remember(symbol, trade_us)
            symbol.next_id += 1
        self.batch_size = count
        self.printed += count
        self.last_us = now_us
        return count

    def sent_in_batch(self) -> int:
        """How many trades of the current batch were rendered for somebody."""
        cdef int i, sent = 0
        for i in range(self.batch_size):
            sent += self.batch[i].sent
        return sent

    def hide(self, int symbol, int64_t trades) -> tuple[int, int]:
        """Withhold the next trades of a symbol from the streams; returns their first and last id."""
        cdef TapeSymbol* listed = &self.symbols[symbol]
        first = listed.next_id + listed.hidden_left
        listed.hidden_left += trades
        return first, first + trades - 1

    def close(self, int symbol) -> None:
        """No more trades of this symbol. One at least must stay open."""
        self.symbols[symbol].closed = True
        if all(self.symbols[i].closed for i in range(self.symbol_count)):
            raise ValueError("a tape needs a symbol that trades")
        if self.burst_symbol == symbol:
            self.burst_left = 0

    def resume(self, int symbol) -> None:
        """It trades again, ids going on."""
        self.symbols[symbol].closed = False

    def begin(self, int symbol, int64_t first_id=1) -> None:
        """It trades from now on, and its first trade has this id. Not for one that has traded."""
        cdef TapeSymbol* listed = &self.symbols[symbol]
        if listed.next_id != listed.first_id:
            raise ValueError(f"symbol {symbol} has traded")
        listed.first_id = listed.next_id = first_id
        listed.closed = False

    def tick_e8(self, int symbol) -> int:
        return self.symbols[symbol].tick_e8

    def lot_e8(self, int symbol) -> int:
        return self.symbols[symbol].lot_e8

    def next_id(self, int symbol) -> int:
        """The id of the symbol's next trade."""
        return self.symbols[symbol].next_id

    def first_id(self, int symbol) -> int:
        """The id of its first trade on this tape."""
        return self.symbols[symbol].first_id

    def oldest_id(self, int symbol) -> int:
        """The oldest id whose time is still known; equals `next_id` before the first trade."""
        cdef TapeSymbol* listed = &self.symbols[symbol]
        return max(listed.first_id, listed.next_id - listed.remembered_max)

    def trade(self, int symbol, int64_t trade_id) -> tuple[int, int, bool]:
        """Price and size in units of 1e-8, and whether the buyer was the maker, of a trade past or to come."""
        cdef TapeTrade trade
        memset(&trade, 0, sizeof(TapeTrade))
        self.describe(symbol, trade_id, &trade)
        return trade.px_e8, trade.sz_e8, bool(trade.buyer_is_maker)

    def trade_us(self, int symbol, int64_t trade_id) -> int:
        """When a trade between `oldest_id` and `next_id` was matched, in UNIX microseconds."""
        cdef TapeSymbol* listed = &self.symbols[symbol]
        if not self.oldest_id(symbol) <= trade_id < listed.next_id:
            raise IndexError(f"trade {trade_id} of symbol {symbol} is not remembered")
        return listed.times_us[trade_id & (listed.remembered_max - 1)]
