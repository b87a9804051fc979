# distutils: language = c++
"""Nanoseconds per stage of the hot path, each in a loop of its own. Built by the benchmark that reads it."""
from libc.stdint cimport int32_t, int64_t, uint32_t

from appliance.clock cimport monotonic_ns, now_ns
from appliance.exchanges.decoder cimport Decoder
from appliance.exchanges.instruments cimport Instruments
from appliance.feed.window cimport Window
from appliance.ring.codec cimport TRADE_PAYLOAD_BYTES_MAX, TradeEncoder
from appliance.ring.crc32c cimport crc32c_of_record
from appliance.ring.layout cimport TRADE
from appliance.ring.writer cimport Writer
from appliance.trade cimport TradeFields


def clock(int64_t rounds) -> float:
    cdef int64_t started = monotonic_ns()
    cdef int64_t total = 0
    for _ in range(rounds):
        total += now_ns()
    return (monotonic_ns() - started) / rounds if total else 0.0


def crc(int64_t rounds, bytes record) -> float:
    cdef const char* start = record
    cdef size_t size = len(record)
    cdef uint32_t total = 0
    cdef int64_t started = monotonic_ns()
    for _ in range(rounds):
        total ^= crc32c_of_record(start, size)
    return (monotonic_ns() - started) / rounds if total != 1 else 0.0


def decode(Decoder decoder, list payloads) -> float:
    """Per trade, however many a payload holds."""
    cdef TradeFields trade
    cdef bytes payload
    cdef int64_t trades = 0
    cdef int64_t started = monotonic_ns()
    for payload in payloads:
        decoder.start(<const char*>payload, len(payload), len(payload))
        while decoder.next(&trade):
            trades += 1
    return (monotonic_ns() - started) / trades


def judge(Window window, int64_t rounds, int64_t first_id) -> float:
    cdef TradeFields trade
    cdef int64_t i
    trade.instrument = 0
    trade.px = trade.sz = b"61597.20000000"
    trade.px_bytes = trade.sz_bytes = 14
    trade.exchange_ts_ms = 1723161515302
    cdef int64_t started = monotonic_ns()
    for i in range(rounds):
        trade.trade_id = trade.sequence_id = first_id + i
        window.judge(&trade, started)
    return (monotonic_ns() - started) / rounds


def encode(Decoder decoder, bytes payload, int64_t rounds) -> float:
    cdef TradeFields trade
    cdef char[2048] out
    cdef int32_t prefix_bytes = 0
    cdef TradeEncoder encoder = TradeEncoder()
    cdef Instruments instruments = decoder.instruments
    decoder.start(<const char*>payload, len(payload), len(payload))
    decoder.next(&trade)
    cdef int64_t started = monotonic_ns()
    for _ in range(rounds):
        encoder.encode(&trade, instruments.prefix(trade.instrument, &prefix_bytes), prefix_bytes, started, started, started, out)
        encoder.stamp(out, started)
    return (monotonic_ns() - started) / rounds


def commit(Writer writer, int64_t rounds, int64_t payload_bytes) -> float:
    cdef int64_t started = monotonic_ns()
    for _ in range(rounds):
        writer.claim(TRADE_PAYLOAD_BYTES_MAX)
        writer.commit(TRADE, payload_bytes, 0, started, started, started, started)
    return (monotonic_ns() - started) / rounds
