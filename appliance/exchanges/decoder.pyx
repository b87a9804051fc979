"""What every exchange's decoder does: one frame in, its trades out."""
from appliance.trade cimport SIDE_SELL


cdef class Decoder:
    """Abstract: a subclass overrides `start` and `next`. One thread."""

    def __init__(self, Instruments instruments not None):
        self.instruments = instruments

    cdef Outcome start(self, const char* payload, Py_ssize_t size, Py_ssize_t readable) noexcept nogil:
        """Check the whole frame; only after TRADES does `next` bring any.

        `readable` is how many bytes from `payload` on may be read, at least `size`; what lies behind `size` never changes the outcome.
        """
        return MALFORMED

    cdef bint next(self, TradeFields* trade) noexcept nogil:
        """The frame's next trade; False when there is none. Its views live until the next `start`."""
        return False

    def decode(self, bytes payload not None, Py_ssize_t size = -1) -> tuple[str, list[dict]]:
        """Name of the outcome and all trades, for tests and tools. `size`: the frame is only that much of `payload`."""
        cdef TradeFields trade
        cdef Outcome outcome
        trades = []
        if size < 0 or size > len(payload):
            size = len(payload)
        outcome = self.start(payload, size, len(payload))
        while outcome == TRADES and self.next(&trade):
            if trade.instrument < 0:
                continue
            trades.append({
                "asset": self.instruments.name(trade.instrument),
                "trade_id": trade.trade_id,
                "sequence_id": trade.sequence_id,
                "exchange_ts_ms": trade.exchange_ts_ms,
                "exchange_ts_ns": trade.exchange_ts_ns,
                "px": trade.px[:trade.px_bytes].decode(),
                "sz": trade.sz[:trade.sz_bytes].decode(),
                "side": "Sell" if trade.side == SIDE_SELL else "Buy",
                "tail": trade.tail[:trade.tail_bytes].decode(),
            })
        return Outcome(outcome).name, trades
