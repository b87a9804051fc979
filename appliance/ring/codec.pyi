from typing_extensions import disjoint_base

@disjoint_base
class TradeEncoder:
    def encoded(
        self,
        prefix: bytes,
        px: bytes,
        sz: bytes,
        *,
        sells: bool,
        trade_id: int,
        exchange_ts_ms: int,
        recv_ns: int,
        parse_ns: int,
        enqueue_ns: int,
        write_ns: int,
        exchange_ts_ns: int = 0,
        era: int = 0,
        tail: bytes = b"",
    ) -> bytes: ...
