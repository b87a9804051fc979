"""The fields of one trade as the hot path carries them: views into the frame, no copies."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

cdef enum:
    SIDE_BUY = 0
    SIDE_SELL = 1

cdef struct TradeFields:
    int32_t instrument       # index in the chunk's Instruments; never negative when decoded
    int64_t trade_id         # Binance `t`; for JSON `exchange_trade_id`
    int64_t sequence_id      # rises by one per instrument: Binance `t`, Deribit `trade_seq`
    int64_t exchange_ts_ms
    int64_t exchange_ts_ns   # 0: the wire is no finer than milliseconds
    const char* px           # JSON number, digits as on the wire, not terminated
    const char* sz
    const char* tail         # further JSON fields, `,"name":value…` already rendered; NULL when none
    int32_t px_bytes
    int32_t sz_bytes
    int32_t tail_bytes
    uint32_t era             # set by the window: how often this instrument's ids began again
    uint8_t side             # SIDE_BUY | SIDE_SELL: the aggressor
