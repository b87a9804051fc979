"""The same job in plain Python with msgspec: the rival that the compiled hot path is measured against."""

import mmap
import struct
import time
import zlib

import msgspec

_HEADER = struct.Struct("<IBBHIIQQqqqq")


class _Data(msgspec.Struct, gc=False):
    e: str
    E: int
    s: str
    t: int
    p: str
    q: str
    T: int
    m: bool


class _Frame(msgspec.Struct, gc=False):
    stream: str
    data: _Data


class PlainPython:
    """Decode, de-duplicate by id, encode the same JSON, checksum, commit into a memory map: one call a frame.

    Its checksum is zlib's CRC32, in C: Python has no CRC32C. Its checks are fewer: no grammar, no repeated keys.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._decode = msgspec.json.Decoder(_Frame).decode
        self._map = mmap.mmap(-1, capacity_bytes)
        self._capacity_bytes = capacity_bytes
        self._position = 0
        self._sequence = 0
        self._highest: dict[str, int] = {}

    def commit_messages(self, payloads: list[bytes]) -> int:
        """Take the frames; how many were committed."""
        committed = 0
        for payload in payloads:
            committed += self._commit(payload)
        return committed

    def _commit(self, payload: bytes) -> bool:
        recv_ns = time.time_ns()
        trade = self._decode(payload).data
        parse_ns = time.time_ns()
        highest = self._highest.get(trade.s, 0)
        if trade.t <= highest:
            return False
        self._highest[trade.s] = trade.t
        enqueue_ns = time.time_ns()
        side = "Sell" if trade.m else "Buy"
        write_ns = time.time_ns()
        record = (
            f'{{"exchange":"BINANCE","asset":"{trade.s}","kind":"Spot","px":{trade.p},"sz":{trade.q},"side":"{side}",'
            f'"exchange_trade_id":{trade.t},"exchange_ts_ms":{trade.T},"writer_ts_ms":{write_ns // 1_000_000},'
            f'"recv_ts_ms":{recv_ns // 1_000_000},"parse_ts_ms":{parse_ns // 1_000_000},"enqueue_ts_ms":{enqueue_ns // 1_000_000}}}'
        ).encode()
        length = _HEADER.size + len(record)
        stride = (length + 7) & ~7
        if self._position % self._capacity_bytes + stride > self._capacity_bytes:
            self._position += self._capacity_bytes - self._position % self._capacity_bytes
        offset = self._position % self._capacity_bytes
        self._sequence += 1
        identity = (length, 1, 0, 0, zlib.crc32(record), 1, self._position, self._sequence)
        _HEADER.pack_into(self._map, offset, *identity, recv_ns, parse_ns, enqueue_ns, write_ns)
        self._map[offset + _HEADER.size : offset + length] = record
        self._position += stride
        return True
