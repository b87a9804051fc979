"""The bytes of a ring and its journal as Python sees them: names, sizes, offsets, percentiles."""
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy

from appliance.ring.atomics cimport add, load_relaxed, store_relaxed
from appliance.ring.crc32c cimport crc32c as crc32c_of_bytes, crc32c_native, crc32c_table

MAGIC_RING = b"MDCRING\0"
MAGIC_JOURNAL = b"MDCJRNL\0"
FORMAT = FORMAT_VERSION
BLOCK = BLOCK_BYTES
RECORD_HEADER = RECORD_HEADER_BYTES
PAYLOAD_MAX = PAYLOAD_BYTES_MAX
JOURNAL_HEADER = JOURNAL_HEADER_BYTES
META_SIZE = META_BYTES

COUNTER_NAMES = {
    C_TRADES: "trades",
    C_BYTES: "bytes",
    C_RECORDS: "records",
    C_DUPLICATES: "duplicates",
    C_LATE: "late",
    C_GAPS_OPEN: "gaps_open",
    C_GAPS_CLOSED: "gaps_closed",
    C_MISSING_IDS: "missing_ids",
    C_BACKFILLED: "backfilled",
    C_MALFORMED: "malformed",
    C_UNKNOWN_SYMBOL: "unknown_symbol",
    C_WRONG_VENUE: "wrong_venue",
    C_OTHER_FRAMES: "other_frames",
    C_FRAMES: "frames",
    C_READS: "reads",
    C_CONFLICTING: "conflicting",
    C_JUMPS: "jumps",
    C_ERAS: "eras",
    C_BASELINES: "baselines",
    C_SHED: "shed",
    C_CONNECTS: "connects",
    C_RECONNECTS: "reconnects",
    C_PAUSES: "pauses",
    C_CLOCK_STEPS: "clock_steps",
    C_WRITE_CLAMPED: "write_clamped",
    C_BEFORE_BASELINE: "before_baseline",
    C_LEGS_UP: "legs_up",
    C_EVENTS_LOST: "events_lost",
    C_HOLES_MERGED: "holes_merged",
    C_FILTERED: "filtered",
    C_LAG_MS: "lag_ms",
    C_LAG_USUAL_MS: "lag_usual_ms",
    C_RAW_FRAMES: "raw_frames",
    C_RAW_SHED: "raw_shed",
    C_RAW_BYTES: "raw_bytes",
}
COUNTER_NAMES.update({
    start + leg: f"leg{leg}_{name}"
    for start, name in (
        (C_LEG_FRAMES, "frames"),
        (C_LEG_WINS, "wins"),
        (C_LEG_DUPLICATES, "duplicates"),
        (C_LEG_CONNECTS, "connects"),
        (C_LEG_RECONNECTS, "reconnects"),
        (C_LEG_SHARED, "shared"),
        (C_LEG_LOSSES, "losses"),
        (C_LEG_OPENED_MS, "opened_ms"),
        (C_LEG_LEADS, "leads"),
        (C_LEG_LEAD_P50_NS, "lead_p50_ns"),
        (C_LEG_LEAD_P99_NS, "lead_p99_ns"),
        (C_LEG_LEAD_MAX_NS, "lead_max_ns"),
        (C_LEG_LAG_MS, "lag_ms"),
    )
    for leg in range(LEGS_MAX)
})
FLUSHER_COUNTER_NAMES = {
    F_FLUSHES: "flushes",
    F_BYTES: "flushed_bytes",
    F_ERRORS: "flush_errors",
    F_SEGMENTS: "segments",
    F_OVERTAKEN_BYTES: "overtaken_bytes",
    F_LAST_ERRNO: "flush_errno",
}


def crc32c(data: bytes) -> int:
    """CRC32C of `data` as records carry it."""
    cdef const unsigned char[::1] view = data
    return crc32c_of_bytes(&view[0], len(data)) if len(data) else 0


def crc32c_both_ways(data: bytes) -> tuple[int, int]:
    """CRC32C by the processor's instruction and by the table; they never differ."""
    cdef const unsigned char[::1] view = data
    cdef const uint8_t* start = &view[0] if len(data) else NULL
    cdef uint32_t seed = 0xFFFFFFFF
    return (crc32c_native(seed, start, len(data)) ^ seed, crc32c_table(seed, start, len(data)) ^ seed)


def sizes() -> dict[str, int]:
    """Bytes of each structure, for the test that pins them."""
    return {
        "RecordHeader": sizeof(RecordHeader),
        "Meta": sizeof(Meta),
        "JournalHeader": sizeof(JournalHeader),
        "Histogram": sizeof(Histogram),
        "FlushMark": sizeof(FlushMark),
    }


def offsets() -> dict[str, int]:
    """Offsets within `.meta` that the C compiler sees, for the test that pins them."""
    cdef bytearray room = bytearray(sizeof(Meta))
    cdef char* begin = room
    cdef Meta* meta = <Meta*>begin
    return {
        "capacity": <char*>&meta.capacity - begin,
        "first_position": <char*>&meta.first_position - begin,
        "journal_dir": <char*>&meta.journal_dir - begin,
        "claimed": <char*>&meta.claimed - begin,
        "committed": <char*>&meta.committed - begin,
        "flushed": <char*>&meta.flushed - begin,
        "watermark_ns": <char*>&meta.watermark_ns - begin,
        "heartbeat_ns": <char*>&meta.heartbeat_ns - begin,
        "mode": <char*>&meta.mode - begin,
        "replaced": <char*>&meta.replaced - begin,
        "counters": <char*>&meta.counters - begin,
        "flusher_counters": <char*>&meta.flusher_counters - begin,
        "recv_to_commit_ns": <char*>&meta.recv_to_commit_ns - begin,
        "fdatasync_ns": <char*>&meta.fdatasync_ns - begin,
        "flush_marks_count": <char*>&meta.flush_marks_count - begin,
        "flush_marks": <char*>&meta.flush_marks - begin,
    }


cdef int put(char* field, size_t field_bytes, str name, bytes value) except -1:
    """Store `value` and leave at least one zero byte behind it."""
    if len(value) >= field_bytes:
        raise ValueError(f"{name} {value!r} is longer than {field_bytes - 1} bytes")
    memcpy(field, <char*>value, len(value))
    return 0


def new_meta(bytes ring_id, str exchange, int chunk, str host, uint64_t capacity, uint64_t first_position,
             uint64_t first_sequence, int64_t created_ns, str journal_dir,
             int epoch=0) -> bytes:
    """The `.meta` file of an empty ring that begins at `first_position` with record `first_sequence`."""
    cdef bytearray content = bytearray(sizeof(Meta))
    cdef Meta* meta = <Meta*><char*>content
    put(meta.magic, sizeof(meta.magic) + 1, "magic", MAGIC_RING)
    put(<char*>meta.ring_id, sizeof(meta.ring_id) + 1, "ring_id", ring_id)
    put(meta.exchange, sizeof(meta.exchange), "exchange", exchange.encode())
    put(meta.host, sizeof(meta.host), "host", host.encode())
    put(meta.journal_dir, sizeof(meta.journal_dir), "journal_dir", journal_dir.encode())
    meta.format_version = FORMAT_VERSION
    meta.meta_bytes = META_BYTES
    meta.capacity = capacity
    meta.block_bytes = BLOCK_BYTES
    meta.epoch = epoch
    meta.chunk = chunk
    meta.created_ns = created_ns
    meta.first_position = meta.claimed = meta.committed = meta.flushed = first_position
    meta.first_sequence = first_sequence
    meta.committed_sequence = meta.flushed_sequence = first_sequence - 1
    return bytes(content)


cdef void observe(Histogram* histogram, uint64_t value) noexcept nogil:
    """Count one value. Buckets: 16 to a power of two, so a percentile is at most 1/16 too high."""
    cdef int exponent
    cdef uint64_t bucket = value
    if value >= 16:
        exponent = 63 - __builtin_clzll(value)
        bucket = <uint64_t>(exponent - 3) * 16 + ((value >> (exponent - 4)) & 15)
    add(&histogram.buckets[bucket], 1)
    add(&histogram.count, 1)
    add(&histogram.sum, value)
    if value > load_relaxed(&histogram.max):
        store_relaxed(&histogram.max, value)


cdef uint64_t bucket_top(int bucket) noexcept nogil:
    """The largest value that falls into `bucket`."""
    if bucket < 16:
        return bucket
    return ((<uint64_t>(17 + (bucket & 15))) << (bucket // 16 - 1)) - 1


cdef dict summarize(const Histogram* histogram):
    """Percentiles in the unit of the values: an upper bound each, at most 1/16 too high."""
    cdef uint64_t buckets[976]
    cdef uint64_t total = 0
    cdef uint64_t seen
    cdef int i
    for i in range(HISTOGRAM_BUCKETS):
        buckets[i] = load_relaxed(&histogram.buckets[i])
        total += buckets[i]
    cdef uint64_t largest = load_relaxed(&histogram.max)
    result = {"count": total, "max": largest, "mean": load_relaxed(&histogram.sum) / total if total else 0.0}
    for name, per_mille in (("p50", 500), ("p90", 900), ("p99", 990), ("p999", 999)):
        wanted = (total * per_mille + 999) // 1000
        seen = 0
        value = 0
        for i in range(HISTOGRAM_BUCKETS):
            seen += buckets[i]
            if seen >= wanted and total:
                value = min(bucket_top(i), largest)
                break
        result[name] = value
    return result


cdef dict summarize_since(const Histogram* histogram, Histogram* before):
    """`summarize` of what was counted since `before`, which then becomes the present. The maximum is one of a bucket, too."""
    cdef Histogram grown
    cdef uint64_t now
    cdef int i
    grown.count = grown.max = 0
    grown.sum = load_relaxed(&histogram.sum)
    now = grown.sum
    grown.sum -= before.sum
    before.sum = now
    for i in range(HISTOGRAM_BUCKETS):
        now = load_relaxed(&histogram.buckets[i])
        grown.buckets[i] = now - before.buckets[i]
        before.buckets[i] = now
        if grown.buckets[i]:
            grown.max = min(bucket_top(i), load_relaxed(&histogram.max))
    return summarize(&grown)
