"""Which trade ids of each instrument have come, and which are missing."""
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from appliance.exchanges.instruments cimport Instruments
from appliance.feed.seen cimport Seen
from appliance.trade cimport TradeFields

cdef enum:
    WINDOW_IDS = 1024                # from the highest id down: bits and fingerprints
    HOLES_MAX = 256                  # per instrument; beyond, neighbours are merged and counted
    EVENTS_MAX = 4096
    LISTED_IDS = 1024                # the news of a listing is not later than so many of its trades
    JUMP_IDS = 1_000_000             # a longer hole is one question, not a list of requests
    RESTART_TRADES = 3               # so many ids of a new era make it the era
    NONE = -1                        # no such id
    LEAD_UNIT_NS = 1024              # a power of two
    LEAD_UNITS = 1 << 27             # times of receipt are kept modulo this: leads of up to a minute are told apart

cpdef enum Verdict:
    FIRST = 0                        # commit
    LATE = 1                         # commit, flagged: its id fills a hole
    DUPLICATE = 2
    CONFLICT = 3                     # a copy that differs in price or size from the first
    BEFORE_BASELINE = 4              # older than what we began with, and than the window

cpdef enum EventKind:
    HOLE_DUE = 0                     # missing for longer than the grace: a gap
    HOLE_CLOSED = 1                  # the last missing id of a gap has come
    BASELINE = 2                     # first trade of an instrument without history
    JUMP = 3                         # a gap of more than JUMP_IDS, told at once
    ERA = 4                          # ids began again: these are the first of the new era
    ERA_REFUTED = 5                  # they did not, the old ids went on; these carry an era that no others will
    COPIES_DIFFER = 6                # the event of Verdict.CONFLICT
    MERGED = 7                       # too many holes: what lies between two now counts as missing too; due again as one gap

cdef struct QueuedEvent:
    EventKind kind
    int32_t instrument
    uint32_t era
    int64_t from_id
    int64_t to_id
    int64_t detected_ns              # of a gap: when its hole opened

cdef struct Hole:
    int64_t from_id
    int64_t to_id
    int64_t opened_ns
    int64_t gap_from                 # the reported gap that this is what is left of; NONE: not reported yet
    int64_t gap_to

cdef struct Copy:                    # what is kept of the first copy of an id in the window
    uint32_t fingerprint             # of price and size; 0: not known
    uint32_t stamp                   # which leg brought it, and when: `stamp_of`; 0: not known

cdef struct Sequence:
    int64_t highest
    int64_t baseline                 # NONE: no trade yet
    int64_t highest_ts_ms            # exchange time of `highest`
    int64_t era_ts_ms                # exchange time at which `era` began; 0: it is the first we know
    uint32_t era
    int32_t holes
    int32_t unreported               # of the holes
    int32_t restart_trades           # used entries of `restart_ids`
    uint64_t seen[16]                # bit id % WINDOW_IDS, for the WINDOW_IDS ids up to `highest`
    Seen below                       # of the ids below the window: those that it held before a jump, and those that came since
    int64_t restart_ids[3]           # far below the highest and newer: perhaps a new era
    int64_t restart_ts_ms            # exchange time of the first of them
    uint32_t restart_era
    uint32_t last_era                # the highest number given to any era
    int64_t previous_highest         # of the era before
    uint32_t previous_era
    bint ended                       # trades no more, by the exchange's word
    int64_t ended_highest            # `highest` when it said so
    int64_t listed_ms                # it was listed while we ran, and not before this exchange time; its first id is not known. 0: else


cdef class Window:
    """De-duplication and gap detection of one chunk, by id: exact, in bounded memory. One thread."""
    cdef readonly Instruments instruments
    cdef readonly int64_t missing_ids       # in all open holes
    cdef readonly int64_t gaps_open         # reported and not closed
    cdef readonly int64_t merged            # times that holes became one for want of room
    cdef readonly int64_t events_lost       # the queue was full
    cdef readonly int32_t events_waiting
    cdef int32_t events_first
    cdef int32_t count                      # instruments that have state here
    cdef Sequence* sequences
    cdef Hole* hole_lists                   # HOLES_MAX an instrument, sorted
    cdef Copy* copies                       # WINDOW_IDS an instrument, by id
    cdef uint32_t stamp                     # of the trades that are judged now
    cdef int winner                         # after a DUPLICATE that is the first copy from another leg: the leg that was first; else NONE
    cdef int64_t lead_ns                    # by so much; exact to LEAD_UNIT_NS
    cdef QueuedEvent* events
    cdef dict unrecorded                    # events of a replay of which no record was read yet

    cdef void brought(self, int leg, int64_t recv_ns) noexcept nogil
    cdef void compare(self, Copy* first) noexcept nogil
    cdef bint lacks(self, const TradeFields* trade) noexcept nogil
    cdef Verdict judge(self, TradeFields* trade, int64_t now_ns) noexcept nogil
    cpdef int32_t due(self, int64_t now_ns, int64_t grace_ns)

    cdef Verdict admit(self, int32_t instrument, int64_t trade_id, int64_t ts_ms, uint32_t fingerprint, int64_t now_ns) noexcept nogil
    cdef Verdict admit_below(self, int32_t instrument, int64_t trade_id, uint32_t fingerprint, int64_t now_ns) noexcept nogil
    cdef void lower_baseline(self, int32_t instrument, int64_t trade_id, uint32_t fingerprint, int64_t now_ns) noexcept nogil
    cdef Verdict admit_previous(self, int32_t instrument, int64_t trade_id, int64_t now_ns) noexcept nogil
    cdef Verdict admit_restart(self, int32_t instrument, int64_t trade_id, int64_t ts_ms, int64_t now_ns) noexcept nogil
    cdef void advance(self, int32_t instrument, int64_t trade_id, int64_t ts_ms, uint32_t fingerprint, int64_t now_ns) noexcept nogil
    cdef void begin(self, int32_t instrument, int64_t trade_id, int64_t ts_ms, uint32_t fingerprint) noexcept nogil
    cdef void begin_era(self, int32_t instrument, int64_t ts_ms, int64_t now_ns) noexcept nogil
    cdef void mark(self, int32_t instrument, int64_t trade_id, uint32_t fingerprint) noexcept nogil
    cdef int32_t hole_of(self, int32_t instrument, int64_t trade_id) noexcept nogil
    cdef void open_hole(self, int32_t instrument, int64_t from_id, int64_t to_id, int64_t now_ns) noexcept nogil
    cdef void fill(self, int32_t instrument, int32_t number, int64_t trade_id) noexcept nogil
    cdef void close_hole(self, int32_t instrument, int32_t number) noexcept nogil
    cdef void merge_closest(self, int32_t instrument) noexcept nogil
    cdef bint emit(
        self, EventKind kind, int32_t instrument, uint32_t era, int64_t from_id, int64_t to_id, int64_t detected_ns,
    ) noexcept nogil
    cdef object take(self)
    cdef object put_aside(self)
    cdef void drop_holes(self, int32_t instrument) noexcept nogil
    cdef int check(self, int32_t instrument) except -1
