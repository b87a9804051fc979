from libc.stdint cimport int32_t, int64_t, uint64_t

cdef struct TapeTrade:
    int32_t symbol
    bint buyer_is_maker
    bint hidden  # a hole: printed, but withheld from the streams
    bint sent  # rendered for at least one connection
    int64_t trade_id
    int64_t px_e8  # in units of 1e-8, as is sz_e8
    int64_t sz_e8
    int64_t trade_us  # UNIX time at which it was matched
    int64_t event_us  # and published

cdef struct TapeSymbol:
    uint64_t key  # of its random numbers
    int64_t tick_e8
    int64_t base_ticks  # what its price walks about
    int64_t lot_e8
    int64_t first_id
    int64_t next_id
    bint closed  # does not trade now
    int64_t hidden_left  # so many of its next trades are withheld
    int64_t* times_us  # of the trades remembered, by the low bits of their id
    int64_t remembered_max  # power of two: how many `times_us` has room for
    double threshold  # of Walker's alias table: below it this symbol, else `alias`
    int32_t alias

cdef class Tape:
    cdef TapeSymbol* symbols
    cdef readonly int symbol_count
    cdef TapeTrade* batch
    cdef readonly int batch_size
    cdef readonly int64_t printed
    cdef uint64_t key
    cdef uint64_t draws
    cdef int64_t last_us
    cdef int64_t remember_max
    cdef int32_t burst_symbol
    cdef int32_t burst_left

    cdef void describe(self, int32_t symbol, int64_t trade_id, TapeTrade* trade) noexcept nogil
    cdef int remember(self, TapeSymbol* symbol, int64_t trade_us) except -1
