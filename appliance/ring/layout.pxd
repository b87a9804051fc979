"""Every offset, flag and size of a ring and its journal; docs/ring-format.md is this file as a byte table.

All integers are little-endian, all structs are packed, all reserved and alignment bytes are zero.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    FORMAT_VERSION = 1
    BLOCK_BYTES = 65536              # no record crosses a block
    RECORD_HEADER_BYTES = 64
    WORD_BYTES = 8                   # records begin at multiples of this
    RECORD_BYTES_MAX = 65536         # a record fills a block at most
    PAYLOAD_BYTES_MAX = 65472        # RECORD_BYTES_MAX - RECORD_HEADER_BYTES
    META_BYTES = 98304
    JOURNAL_HEADER_BYTES = 65536     # one block, so that blocks of the stream stay aligned in the file
    LEGS_MAX = 8
    COUNTERS = 192
    FLUSHER_COUNTERS = 64
    HISTOGRAM_BUCKETS = 976
    FLUSH_MARKS = 4096

cpdef enum RecordType:
    PADDING = 0x50                   # one word: length and type; no sequence
    TRADE = 1
    GAP = 2                          # ids missing from the feed
    GAP_CLOSED = 3
    HOLE = 4                         # sequences that the journal does not have
    BOUNDARY = 5                     # the writer began, went on or ended here
    STATUS = 6
    SNAPSHOT = 7                     # sequence state of some instruments

cpdef enum Codec:
    CODEC_JSON = 0
    CODEC_BINARY = 1

cpdef enum Flags:
    FLAG_LEG_MASK = 0x0007           # which leg brought it
    FLAG_BACKFILLED = 0x0008         # fetched over REST
    FLAG_LATE = 0x0010               # its id is below an id committed before it

cpdef enum Mode:
    MODE_SAFE = 0                    # no byte is overwritten that is not flushed
    MODE_LOSSY = 1                   # the ring goes on, the journal gets a hole record

cdef packed struct RecordHeader:
    uint32_t length                  # header and payload; the next record begins at the next multiple of 8
    uint8_t type
    uint8_t codec
    uint16_t flags
    uint32_t crc32c                  # of bytes 0 to 8 and 12 to `length`
    uint32_t epoch
    uint64_t position                # of this record, in bytes since the ring was born
    uint64_t sequence                # from 1
    int64_t recv_ns                  # UNIX ns: the socket read that brought the frame
    int64_t parse_ns                 # decoded
    int64_t enqueue_ns               # claimed
    int64_t write_ns                 # payload complete

cdef packed struct Histogram:
    uint64_t count
    uint64_t sum
    uint64_t max
    uint64_t reserved
    uint64_t buckets[976]

cdef packed struct FlushMark:
    uint64_t position                # flushed up to here
    int64_t time_ns                  # after fdatasync returned

cdef packed struct Meta:
    # Identity: written before the ring gets its name, `epoch` and the writer at each start.
    char magic[8]                    # 0  "MDCRING\0"
    uint32_t format_version          # 8
    uint32_t meta_bytes              # 12
    uint8_t ring_id[16]              # 16  random, shared with the journal
    uint64_t capacity                # 32
    uint32_t block_bytes             # 40
    uint32_t epoch                   # 44
    uint32_t chunk                   # 48
    uint8_t codec                    # 52
    uint8_t reserved_53[3]
    int64_t created_ns               # 56
    char exchange[32]                # 64  lower case, NUL padded
    char host[64]                    # 96
    uint64_t writer_pid              # 160
    int64_t writer_started_ns        # 168
    uint64_t first_position          # 176  where this ring file begins in the stream
    uint64_t first_sequence          # 184  of the first record at or after it
    uint8_t reserved_192[832]
    char journal_dir[3072]           # 1024  absolute path, NUL padded; empty: no journal
    # Cursors: each alone on its cache line (128 bytes: two lines are fetched together).
    uint64_t claimed                 # 4096
    uint8_t reserved_4104[120]
    uint64_t committed               # 4224  the only published cursor
    uint64_t committed_sequence      # 4232  advisory: stored after `committed`, so never ahead of it
    uint8_t reserved_4240[112]
    uint64_t flushed                 # 4352
    uint64_t flushed_sequence        # 4360  advisory
    uint8_t reserved_4368[112]
    int64_t watermark_ns             # 4480  nothing older than this will come
    uint8_t reserved_4488[120]
    int64_t heartbeat_ns             # 4608
    uint8_t reserved_4616[120]
    uint64_t mode                    # 4736
    uint64_t replaced                # 4744  1: another ring took this name
    uint8_t reserved_4752[3440]
    uint64_t counters[192]           # 8192  stored by the writer's thread
    uint64_t flusher_counters[64]    # 9728  stored by the flusher's thread
    uint8_t reserved_10240[2048]
    Histogram recv_to_commit_ns      # 12288
    uint8_t reserved_20128[352]
    Histogram fdatasync_ns           # 20480
    uint8_t reserved_28320[352]
    uint64_t flush_marks_count       # 28672  marks written ever; the next goes to count % 4096
    uint8_t reserved_28680[4088]
    FlushMark flush_marks[4096]      # 32768

cdef packed struct JournalHeader:    # the first block of a segment; the stream follows
    char magic[8]                    # 0  "MDCJRNL\0"
    uint32_t format_version          # 8
    uint32_t header_bytes            # 12
    uint8_t ring_id[16]              # 16
    uint32_t block_bytes             # 32
    uint32_t epoch                   # 36
    uint32_t chunk                   # 40
    uint8_t codec                    # 44
    uint8_t reserved_45[3]
    uint64_t first_position          # 48
    uint64_t first_sequence          # 56
    int64_t created_ns               # 64
    char exchange[32]                # 72
    char host[64]                    # 104
    uint32_t crc32c                  # 168  of bytes 0 to 168
    uint8_t reserved_172[65364]


cdef enum Counter:                   # index into Meta.counters; names in layout.COUNTER_NAMES
    C_TRADES = 0
    C_BYTES                          # of records, alignment included, padding excluded
    C_RECORDS
    C_DUPLICATES                     # copies after the first
    C_LATE                           # first copies below the highest id
    C_GAPS_OPEN                      # gauge: gap records not closed
    C_GAPS_CLOSED
    C_MISSING_IDS                    # gauge: ids in open holes
    C_BACKFILLED
    C_MALFORMED
    C_UNKNOWN_SYMBOL
    C_WRONG_VENUE                    # futures-shaped trades on a spot socket
    C_OTHER_FRAMES                   # well-formed, no trade
    C_FRAMES
    C_READS                          # socket reads that brought a frame
    C_CONFLICTING                    # a later copy with another price or size
    C_JUMPS                          # ids jumped by more than a million
    C_ERAS                           # ids began again
    C_BASELINES                      # instruments first seen without history
    C_SHED                           # read and not stored: no room
    C_CONNECTS
    C_RECONNECTS
    C_PAUSES                         # reading paused for the journal
    C_CLOCK_STEPS
    C_WRITE_CLAMPED                  # write_ns held so that it never decreases
    C_BEFORE_BASELINE
    C_LEGS_UP                        # gauge: legs that are subscribed
    C_EVENTS_LOST                    # of the window: told to nobody
    C_HOLES_MERGED                   # in the window, for want of room
    C_FILTERED                       # trades of instruments that the configuration does not want
    C_LAG_MS                         # gauge: how long after its exchange time the newest trade was received; 0 also for less
    C_LAG_USUAL_MS                   # gauge: the least of the last hour
    C_LEG_FRAMES = 64                # + leg
    C_LEG_WINS = 72                  # + leg: first copies
    C_LEG_DUPLICATES = 80            # + leg
    C_LEG_CONNECTS = 88              # + leg
    C_LEG_SHARED = 96                # + leg: of its first copies, those that another leg brought too
    C_LEG_LOSSES = 104               # + leg: connections that ended otherwise than by our own CLOSE
    C_LEG_OPENED_MS = 112            # + leg: gauge: UNIX ms at which its newest connection was opened; 0: none is
    C_LEG_LEADS = 120                # + leg: gauge, as the three below: leads measured since the writer's start
    C_LEG_LEAD_P50_NS = 128          # + leg
    C_LEG_LEAD_P99_NS = 136          # + leg
    C_LEG_LEAD_MAX_NS = 144          # + leg
    C_LEG_RECONNECTS = 152           # + leg
    C_LEG_LAG_MS = 168               # + leg: gauge: C_LAG_MS of what this leg brought
    C_RAW_FRAMES = 160               # of the raw lane: taken in
    C_RAW_SHED                       # not kept: no room, or the disk did not take them at the end
    C_RAW_BYTES                      # compressed, on disk

cdef enum FlusherCounter:            # index into Meta.flusher_counters
    F_FLUSHES = 0
    F_BYTES
    F_ERRORS
    F_SEGMENTS
    F_OVERTAKEN_BYTES                # lost to the journal: the ring had been overwritten
    F_LAST_ERRNO


cdef inline uint64_t align_up(uint64_t size) noexcept nogil:
    return (size + 7) & ~<uint64_t>7


cdef inline uint64_t block_end(uint64_t position) noexcept nogil:
    """Position of the end of the block that `position` lies in."""
    return (position & ~<uint64_t>65535) + 65536


cdef void observe(Histogram* histogram, uint64_t value) noexcept nogil
cdef dict summarize(const Histogram* histogram)
cdef dict summarize_since(const Histogram* histogram, Histogram* before)


cdef extern from *:
    int __builtin_clzll(unsigned long long) noexcept nogil
