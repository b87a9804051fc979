"""Which trade ids of each instrument have come, and which are missing: de-duplication and gaps by id, never by time.

An exchange's ids rise by one per instrument. Kept of each instrument: its highest id; for the WINDOW_IDS ids up to it a bit, and of
the first copy a fingerprint of price and size, its leg and when it was received; and the sorted list of open holes. An id above the
highest is new and opens a hole for what it skips; one that lies in a hole fills it; any other is a copy. A hole that stays open for
longer than a grace becomes a gap, which is told as an event and told again when it is closed.

Nothing is held back. An id far below the highest, in no hole and with a newer exchange time, may be the first after the exchange began
its ids anew: it is FIRST at once, labelled with the number of a new era. RESTART_TRADES such ids, while the old ones do not go on, make the
era the instrument's; if the old ones go on, the label is never used again.
"""
import json
from collections import namedtuple

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memmove, memset

from appliance.feed cimport seen
from appliance.feed.fingerprint cimport fingerprint_of

Event = namedtuple("Event", ["kind", "instrument", "era", "from_id", "to_id", "detected_ns"])


cdef enum:
    KNOWN = 0b01
    SHARED = 0b10                    # another leg brought it too
    LEG_BITS = 0b11100


cdef inline uint32_t stamp_of(int leg, int64_t recv_ns) noexcept nogil:
    """A leg and a time of receipt in 32 bits."""
    return <uint32_t>(recv_ns // LEAD_UNIT_NS % LEAD_UNITS) << 5 | <uint32_t>(leg & 7) << 2 | KNOWN


cdef class Window:
    """All instruments of one chunk. Its first loss of exactness is `merged`, its second `events_lost`; both are counted and stay 0."""

    def __cinit__(self, Instruments instruments not None):
        self.instruments = instruments
        self.unrecorded = {}
        self.events = <QueuedEvent*>malloc(EVENTS_MAX * sizeof(QueuedEvent))
        if self.events == NULL:
            raise MemoryError
        self.grow()

    def __dealloc__(self):
        free(self.sequences)
        free(self.hole_lists)
        free(self.copies)
        free(self.events)

    def __len__(self) -> int:
        """Instruments that have state here."""
        return self.count

    def grow(self) -> None:
        """Take in instruments that were added since. Never within a socket read: the tables may move."""
        cdef int32_t count = <int32_t>len(self.instruments)
        cdef int32_t instrument
        if count == self.count:
            return
        sequences = realloc(self.sequences, count * sizeof(Sequence))
        if sequences == NULL:
            raise MemoryError
        self.sequences = <Sequence*>sequences
        hole_lists = realloc(self.hole_lists, count * HOLES_MAX * sizeof(Hole))
        if hole_lists == NULL:
            raise MemoryError
        self.hole_lists = <Hole*>hole_lists
        copies = realloc(self.copies, count * WINDOW_IDS * sizeof(Copy))
        if copies == NULL:
            raise MemoryError
        self.copies = <Copy*>copies
        memset(&self.sequences[self.count], 0, (count - self.count) * sizeof(Sequence))
        memset(&self.copies[self.count * WINDOW_IDS], 0, (count - self.count) * WINDOW_IDS * sizeof(Copy))
        for instrument in range(self.count, count):
            self.sequences[instrument].baseline = NONE
        self.count = count

    def listed(self, int32_t instrument, int64_t now_ns = 0) -> None:
        """The instrument was listed just now: its first id is 1, also if a later one came before the news."""
        cdef Sequence* sequence
        self.check(instrument)
        sequence = &self.sequences[instrument]
        if sequence.baseline == NONE:
            self.begin(instrument, 0, 0, 0)
        elif 0 < sequence.baseline <= LISTED_IDS:
            self.lower_baseline(instrument, 0, 0, now_ns)

    def listed_since(self, int32_t instrument, int64_t since_ms) -> None:
        """It trades again, or for the first time, and did not at this exchange time. Of one without trades all since then are wanted,
        also those below the first that comes, until `begins` says that there are no others.
        """
        cdef Sequence* sequence
        self.check(instrument)
        sequence = &self.sequences[instrument]
        sequence.ended = False
        if sequence.baseline == NONE:
            sequence.listed_ms = max(since_ms, <int64_t>1)

    def begins(self, int32_t instrument) -> None:
        """Below what we have of it there is nothing."""
        self.check(instrument)
        self.sequences[instrument].listed_ms = 0

    def is_new(self, int32_t instrument) -> bool:
        """Whether it was listed while we ran, and `begins` was not said yet."""
        self.check(instrument)
        return self.sequences[instrument].listed_ms != 0

    def has_ended(self, int32_t instrument) -> bool:
        """By the exchange's word, and by no trade since."""
        self.check(instrument)
        return self.sequences[instrument].ended and self.sequences[instrument].highest == self.sequences[instrument].ended_highest

    def end(self, int32_t instrument) -> bool:
        """By the exchange's word it trades no more; False: known. A trade that comes all the same is judged as ever, and revives it."""
        cdef Sequence* sequence
        self.check(instrument)
        sequence = &self.sequences[instrument]
        if sequence.ended and sequence.highest == sequence.ended_highest:
            return False
        sequence.ended = True
        sequence.ended_highest = sequence.highest
        return True

    def is_over(self, int32_t instrument) -> bool:
        """Whether it has ended, and nothing of it is missing: a snapshot need not have it."""
        cdef Sequence* sequence
        self.check(instrument)
        sequence = &self.sequences[instrument]
        return sequence.ended and sequence.highest == sequence.ended_highest and sequence.holes == 0

    cdef void brought(self, int leg, int64_t recv_ns) noexcept nogil:
        """What is judged from now on came on this leg (below 0: on none) and was received then."""
        self.stamp = stamp_of(leg, recv_ns) if leg >= 0 else 0
        self.winner = NONE

    cdef void compare(self, Copy* first) noexcept nogil:
        """A copy of what came before: which leg was first and by how much, where this is the first copy from another leg."""
        cdef uint32_t later
        self.winner = NONE
        if self.stamp == 0 or first.stamp == 0 or first.stamp & SHARED:
            return
        if (first.stamp ^ self.stamp) & LEG_BITS == 0:
            return  # the same leg, on two connections
        later = ((self.stamp >> 5) - (first.stamp >> 5)) & (LEAD_UNITS - 1)
        # The one that was judged later may have been received a little before: then it had waited for room.
        self.lead_ns = <int64_t>later * LEAD_UNIT_NS if later < LEAD_UNITS // 2 else 0
        self.winner = <int>(first.stamp >> 2 & 7)
        first.stamp |= SHARED

    cdef bint lacks(self, const TradeFields* trade) noexcept nogil:
        """Whether a past trade is missing, or behind the highest. What is older than the baseline is not asked for."""
        cdef Sequence* sequence
        if trade.instrument >= self.count:
            return False
        sequence = &self.sequences[trade.instrument]
        if sequence.baseline == NONE or trade.sequence_id > sequence.highest:
            return trade.exchange_ts_ms >= sequence.listed_ms
        if trade.sequence_id < sequence.baseline:
            return 0 < sequence.listed_ms <= trade.exchange_ts_ms
        return self.hole_of(trade.instrument, trade.sequence_id) != NONE

    cdef Verdict judge(self, TradeFields* trade, int64_t now_ns) noexcept nogil:
        """What this copy of a trade is, by `sequence_id`; FIRST and LATE are to be committed. Sets `trade.era`.

        An instrument for which `grow` was not called has no state: all its trades are before its baseline.
        """
        cdef Sequence* sequence
        cdef Verdict verdict
        cdef int64_t trade_id = trade.sequence_id
        self.winner = NONE
        if trade.instrument >= self.count:
            trade.era = 0
            return BEFORE_BASELINE
        sequence = &self.sequences[trade.instrument]
        trade.era = sequence.era
        # Older than the era, and of ids as the era before had them: else it is the new era's, from a leg that lags.
        if trade.exchange_ts_ms <= sequence.era_ts_ms and trade_id > sequence.previous_highest - WINDOW_IDS and (
            trade.exchange_ts_ms < sequence.era_ts_ms or trade_id > sequence.highest + WINDOW_IDS
        ):
            trade.era = sequence.previous_era
            return self.admit_previous(trade.instrument, trade_id, now_ns)
        if trade_id <= sequence.highest - WINDOW_IDS and trade.exchange_ts_ms > sequence.highest_ts_ms:
            if sequence.baseline != NONE and self.hole_of(trade.instrument, trade_id) == NONE and not seen.has(&sequence.below, trade_id):
                verdict = self.admit_restart(trade.instrument, trade_id, trade.exchange_ts_ms, now_ns)
                trade.era = sequence.last_era
                return verdict
        return self.admit(trade.instrument, trade_id, trade.exchange_ts_ms, fingerprint_of(trade), now_ns)

    cdef Verdict admit(self, int32_t instrument, int64_t trade_id, int64_t ts_ms, uint32_t fingerprint, int64_t now_ns) noexcept nogil:
        """A trade of the current era."""
        cdef Sequence* sequence = &self.sequences[instrument]
        if sequence.baseline == NONE:
            self.begin(instrument, trade_id, ts_ms, fingerprint)
            self.emit(BASELINE, instrument, sequence.era, trade_id, trade_id, now_ns)
            return FIRST
        if trade_id <= sequence.highest:
            return self.admit_below(instrument, trade_id, fingerprint, now_ns)
        if sequence.restart_trades > 0 and ts_ms > sequence.restart_ts_ms:
            self.emit(
                ERA_REFUTED, instrument, sequence.restart_era,
                sequence.restart_ids[0], sequence.restart_ids[sequence.restart_trades - 1], now_ns,
            )
            sequence.restart_trades = 0
        self.advance(instrument, trade_id, ts_ms, fingerprint, now_ns)
        return FIRST

    cdef Verdict admit_below(self, int32_t instrument, int64_t trade_id, uint32_t fingerprint, int64_t now_ns) noexcept nogil:
        cdef Sequence* sequence = &self.sequences[instrument]
        cdef bint in_window = trade_id > sequence.highest - WINDOW_IDS
        cdef Copy* first
        cdef int32_t number
        if trade_id < sequence.baseline:
            if not in_window and sequence.listed_ms == 0:
                return BEFORE_BASELINE
            self.lower_baseline(instrument, trade_id, fingerprint, now_ns)
            return LATE
        if in_window and seen.is_set(sequence.seen, trade_id):
            first = &self.copies[instrument * WINDOW_IDS + trade_id % WINDOW_IDS]
            if first.fingerprint == fingerprint or first.fingerprint == 0 or fingerprint == 0:
                self.compare(first)
                return DUPLICATE
            self.emit(COPIES_DIFFER, instrument, sequence.era, trade_id, trade_id, now_ns)
            return CONFLICT
        number = self.hole_of(instrument, trade_id)
        if number == NONE and in_window:
            # Settled as no trade, and it comes all the same.
            self.mark(instrument, trade_id, fingerprint)
            return LATE
        if number == NONE:
            return DUPLICATE
        if in_window:
            self.mark(instrument, trade_id, fingerprint)
        else:
            seen.add(&sequence.below, trade_id)
        self.fill(instrument, number, trade_id)
        return LATE

    cdef void lower_baseline(self, int32_t instrument, int64_t trade_id, uint32_t fingerprint, int64_t now_ns) noexcept nogil:
        """The leg that was read first was not the one that is furthest back: what the other brings is new, and so what lies between."""
        cdef Sequence* sequence = &self.sequences[instrument]
        cdef Hole* holes = &self.hole_lists[instrument * HOLES_MAX]
        if trade_id + 1 < sequence.baseline:
            if sequence.holes == HOLES_MAX:
                self.merge_closest(instrument)
            memmove(&holes[1], &holes[0], sequence.holes * sizeof(Hole))
            holes[0].from_id = trade_id + 1
            holes[0].to_id = sequence.baseline - 1
            holes[0].opened_ns = now_ns
            holes[0].gap_from = holes[0].gap_to = NONE
            sequence.holes += 1
            sequence.unreported += 1
            self.missing_ids += sequence.baseline - 1 - trade_id
        sequence.baseline = trade_id
        if trade_id > sequence.highest - WINDOW_IDS:
            self.mark(instrument, trade_id, fingerprint)

    cdef Verdict admit_previous(self, int32_t instrument, int64_t trade_id, int64_t now_ns) noexcept nogil:
        """A slow leg still brings trades from before the ids began again; what is missing of those stays the gap it is."""
        cdef Sequence* sequence = &self.sequences[instrument]
        if trade_id > sequence.previous_highest + 1:
            self.emit(HOLE_DUE, instrument, sequence.previous_era, sequence.previous_highest + 1, trade_id - 1, now_ns)
        if trade_id <= sequence.previous_highest:
            return DUPLICATE
        sequence.previous_highest = trade_id
        return FIRST

    cdef Verdict admit_restart(self, int32_t instrument, int64_t trade_id, int64_t ts_ms, int64_t now_ns) noexcept nogil:
        """A trade whose id looks like the beginning of a new era, which is then `last_era`."""
        cdef Sequence* sequence = &self.sequences[instrument]
        cdef int32_t number
        for number in range(sequence.restart_trades):
            if sequence.restart_ids[number] == trade_id:
                return DUPLICATE
        if sequence.restart_trades == 0:
            sequence.last_era += 1
            sequence.restart_era = sequence.last_era
            sequence.restart_ts_ms = ts_ms
        sequence.restart_ids[sequence.restart_trades] = trade_id
        sequence.restart_trades += 1
        if sequence.restart_trades == RESTART_TRADES:
            self.begin_era(instrument, ts_ms, now_ns)
        return FIRST

    cdef void begin(self, int32_t instrument, int64_t trade_id, int64_t ts_ms, uint32_t fingerprint) noexcept nogil:
        cdef Sequence* sequence = &self.sequences[instrument]
        memset(sequence.seen, 0, sizeof(sequence.seen))
        memset(&sequence.below, 0, sizeof(sequence.below))
        sequence.baseline = sequence.highest = trade_id
        sequence.highest_ts_ms = ts_ms
        self.mark(instrument, trade_id, fingerprint)

    cdef void begin_era(self, int32_t instrument, int64_t ts_ms, int64_t now_ns) noexcept nogil:
        """The ids did begin again. Whatever the old era misses is told now, for no one will look for it again."""
        cdef Sequence* sequence = &self.sequences[instrument]
        cdef Hole* holes = &self.hole_lists[instrument * HOLES_MAX]
        cdef int64_t* ids = sequence.restart_ids
        cdef int32_t number
        cdef int32_t other
        for number in range(sequence.holes):
            if holes[number].gap_from == NONE:
                self.emit(HOLE_DUE, instrument, sequence.era, holes[number].from_id, holes[number].to_id, holes[number].opened_ns)
        self.drop_holes(instrument)
        for number in range(1, RESTART_TRADES):
            for other in range(number, 0, -1):
                if ids[other] < ids[other - 1]:
                    ids[other], ids[other - 1] = ids[other - 1], ids[other]
        sequence.previous_era = sequence.era
        sequence.previous_highest = sequence.highest
        sequence.era = sequence.restart_era
        sequence.era_ts_ms = sequence.restart_ts_ms
        sequence.restart_trades = 0
        self.emit(ERA, instrument, sequence.era, ids[0], ids[RESTART_TRADES - 1], now_ns)
        self.begin(instrument, ids[0], ts_ms, 0)
        for number in range(1, RESTART_TRADES):
            self.advance(instrument, ids[number], ts_ms, 0, now_ns)

    cdef void advance(self, int32_t instrument, int64_t trade_id, int64_t ts_ms, uint32_t fingerprint, int64_t now_ns) noexcept nogil:
        """A new highest id; those it skips are missing."""
        cdef Sequence* sequence = &self.sequences[instrument]
        cdef int64_t skipped
        if trade_id - sequence.highest > WINDOW_IDS:
            # If the jump was none, both legs go on there, and copies are no new era.
            seen.put(&sequence.below, sequence.highest, sequence.seen)
            memset(sequence.seen, 0, sizeof(sequence.seen))
        else:
            for skipped in range(sequence.highest + 1, trade_id):
                sequence.seen[(skipped % WINDOW_IDS) >> 6] &= ~(<uint64_t>1 << (skipped & 63))
        if trade_id > sequence.highest + 1:
            self.open_hole(instrument, sequence.highest + 1, trade_id - 1, now_ns)
        sequence.highest = trade_id
        sequence.highest_ts_ms = ts_ms
        self.mark(instrument, trade_id, fingerprint)

    cdef void mark(self, int32_t instrument, int64_t trade_id, uint32_t fingerprint) noexcept nogil:
        self.sequences[instrument].seen[(trade_id % WINDOW_IDS) >> 6] |= <uint64_t>1 << (trade_id & 63)
        self.copies[instrument * WINDOW_IDS + trade_id % WINDOW_IDS] = Copy(fingerprint, self.stamp)

    cdef int32_t hole_of(self, int32_t instrument, int64_t trade_id) noexcept nogil:
        """Number of the hole that the id lies in, or NONE."""
        cdef Hole* holes = &self.hole_lists[instrument * HOLES_MAX]
        cdef int32_t low = 0
        cdef int32_t high = self.sequences[instrument].holes
        cdef int32_t middle
        while low < high:
            middle = (low + high) // 2
            if holes[middle].to_id < trade_id:
                low = middle + 1
            else:
                high = middle
        if low < self.sequences[instrument].holes and holes[low].from_id <= trade_id:
            return low
        return NONE

    cdef void open_hole(self, int32_t instrument, int64_t from_id, int64_t to_id, int64_t now_ns) noexcept nogil:
        """Above all others."""
        cdef Sequence* sequence = &self.sequences[instrument]
        cdef Hole* hole
        if sequence.holes == HOLES_MAX:
            self.merge_closest(instrument)
        hole = &self.hole_lists[instrument * HOLES_MAX + sequence.holes]
        hole.from_id = from_id
        hole.to_id = to_id
        hole.opened_ns = now_ns
        hole.gap_from = hole.gap_to = NONE
        sequence.holes += 1
        sequence.unreported += 1
        self.missing_ids += to_id - from_id + 1
        if to_id - from_id >= JUMP_IDS and self.emit(JUMP, instrument, sequence.era, from_id, to_id, now_ns):
            hole.gap_from = from_id
            hole.gap_to = to_id
            sequence.unreported -= 1
            self.gaps_open += 1

    cdef void fill(self, int32_t instrument, int32_t number, int64_t trade_id) noexcept nogil:
        """A missing id came; it lies in hole `number`."""
        cdef Sequence* sequence = &self.sequences[instrument]
        cdef Hole* holes = &self.hole_lists[instrument * HOLES_MAX]
        if sequence.holes == HOLES_MAX and holes[number].from_id < trade_id < holes[number].to_id:
            self.merge_closest(instrument)
            number = self.hole_of(instrument, trade_id)
        self.missing_ids -= 1
        if holes[number].from_id == holes[number].to_id:
            self.close_hole(instrument, number)
        elif trade_id == holes[number].from_id:
            holes[number].from_id += 1
        elif trade_id == holes[number].to_id:
            holes[number].to_id -= 1
        else:
            memmove(&holes[number + 1], &holes[number], (sequence.holes - number) * sizeof(Hole))
            sequence.holes += 1
            holes[number].to_id = trade_id - 1
            holes[number + 1].from_id = trade_id + 1
            if holes[number].gap_from == NONE:
                sequence.unreported += 1

    cdef void close_hole(self, int32_t instrument, int32_t number) noexcept nogil:
        cdef Sequence* sequence = &self.sequences[instrument]
        cdef Hole* holes = &self.hole_lists[instrument * HOLES_MAX]
        cdef Hole closed = holes[number]
        sequence.holes -= 1
        memmove(&holes[number], &holes[number + 1], (sequence.holes - number) * sizeof(Hole))
        if closed.gap_from == NONE:
            sequence.unreported -= 1
            return
        # Other pieces of the same gap lie beside it.
        if number > 0 and holes[number - 1].gap_from == closed.gap_from:
            return
        if number < sequence.holes and holes[number].gap_from == closed.gap_from:
            return
        self.gaps_open -= 1
        self.emit(HOLE_CLOSED, instrument, sequence.era, closed.gap_from, closed.gap_to, closed.opened_ns)

    cdef void merge_closest(self, int32_t instrument) noexcept nogil:
        """Make room: the two holes with the fewest ids between them become one, with all other pieces of their gaps.

        A gap that was reported is gone with this; the merged hole is due again as a gap of its own.
        """
        cdef Sequence* sequence = &self.sequences[instrument]
        cdef Hole* holes = &self.hole_lists[instrument * HOLES_MAX]
        cdef int32_t first = 0
        cdef int32_t last
        cdef int32_t number
        for number in range(sequence.holes - 1):
            if holes[number + 1].from_id - holes[number].to_id < holes[first + 1].from_id - holes[first].to_id:
                first = number
        last = first + 1
        while first > 0 and holes[first].gap_from != NONE and holes[first - 1].gap_from == holes[first].gap_from:
            first -= 1
        while last + 1 < sequence.holes and holes[last].gap_from != NONE and holes[last + 1].gap_from == holes[last].gap_from:
            last += 1
        for number in range(first, last + 1):
            if holes[number].gap_from == NONE:
                sequence.unreported -= 1
            elif number == first or holes[number].gap_from != holes[number - 1].gap_from:
                self.gaps_open -= 1
            if number > first:
                self.missing_ids += holes[number].from_id - holes[number - 1].to_id - 1
                holes[first].opened_ns = min(holes[first].opened_ns, holes[number].opened_ns)
        holes[first].to_id = holes[last].to_id
        holes[first].gap_from = holes[first].gap_to = NONE
        sequence.unreported += 1
        memmove(&holes[first + 1], &holes[last + 1], (sequence.holes - last - 1) * sizeof(Hole))
        sequence.holes -= last - first
        self.merged += 1
        self.emit(MERGED, instrument, sequence.era, holes[first].from_id, holes[first].to_id, holes[first].opened_ns)

    def settle(self, int32_t instrument, int64_t from_id, int64_t to_id) -> int:
        """No trade has these ids, by the exchange's word: none of them is missing any more; how many were."""
        cdef Sequence* sequence
        cdef Hole* holes
        cdef int64_t low, high
        cdef int64_t settled = 0
        cdef int32_t number = 0
        cdef bint begins, ends
        self.check(instrument)
        sequence = &self.sequences[instrument]
        holes = &self.hole_lists[instrument * HOLES_MAX]
        while number < sequence.holes:
            low, high = max(holes[number].from_id, from_id), min(holes[number].to_id, to_id)
            if low > high:
                number += 1
                continue
            begins, ends = low == holes[number].from_id, high == holes[number].to_id
            if not begins and not ends and sequence.holes == HOLES_MAX:
                break  # no room for two pieces: it stays missing, and is asked for again
            self.missing_ids -= high - low + 1
            settled += high - low + 1
            if begins and ends:
                self.close_hole(instrument, number)
                continue
            if begins:
                holes[number].from_id = high + 1
            elif ends:
                holes[number].to_id = low - 1
            else:
                memmove(&holes[number + 1], &holes[number], (sequence.holes - number) * sizeof(Hole))
                sequence.holes += 1
                holes[number].to_id = low - 1
                holes[number + 1].from_id = high + 1
                sequence.unreported += holes[number].gap_from == NONE
            number += 1
        return settled

    cdef void drop_holes(self, int32_t instrument) noexcept nogil:
        cdef Sequence* sequence = &self.sequences[instrument]
        cdef Hole* holes = &self.hole_lists[instrument * HOLES_MAX]
        cdef int32_t number
        for number in range(sequence.holes):
            self.missing_ids -= holes[number].to_id - holes[number].from_id + 1
            if holes[number].gap_from != NONE and (number == 0 or holes[number - 1].gap_from != holes[number].gap_from):
                self.gaps_open -= 1
        sequence.holes = sequence.unreported = 0

    cpdef int32_t due(self, int64_t now_ns, int64_t grace_ns):
        """Tell every hole that has been open for at least `grace_ns` as a gap; how many. Those the queue has no room for wait."""
        cdef int32_t instrument
        cdef int32_t number
        cdef int32_t told = 0
        cdef Sequence* sequence
        cdef Hole* hole
        for instrument in range(self.count):
            sequence = &self.sequences[instrument]
            if sequence.unreported == 0:
                continue
            for number in range(sequence.holes):
                hole = &self.hole_lists[instrument * HOLES_MAX + number]
                if hole.gap_from != NONE or now_ns - hole.opened_ns < grace_ns:
                    continue
                if self.events_waiting == EVENTS_MAX:
                    return told
                self.emit(HOLE_DUE, instrument, sequence.era, hole.from_id, hole.to_id, hole.opened_ns)
                hole.gap_from = hole.from_id
                hole.gap_to = hole.to_id
                sequence.unreported -= 1
                self.gaps_open += 1
                told += 1
        return told

    cdef bint emit(
        self, EventKind kind, int32_t instrument, uint32_t era, int64_t from_id, int64_t to_id, int64_t detected_ns,
    ) noexcept nogil:
        """False: the queue is full."""
        cdef QueuedEvent* event
        # What only counts must not crowd out what a gap's record depends on.
        if self.events_waiting == EVENTS_MAX or (kind == COPIES_DIFFER and self.events_waiting > EVENTS_MAX // 2):
            self.events_lost += 1
            return False
        event = &self.events[(self.events_first + self.events_waiting) % EVENTS_MAX]
        event.kind = kind
        event.instrument = instrument
        event.era = era
        event.from_id = from_id
        event.to_id = to_id
        event.detected_ns = detected_ns
        self.events_waiting += 1
        return True

    cdef object take(self):
        cdef QueuedEvent* event = &self.events[self.events_first]
        self.events_first = (self.events_first + 1) % EVENTS_MAX
        self.events_waiting -= 1
        return Event(EventKind(event.kind), event.instrument, event.era, event.from_id, event.to_id, event.detected_ns)

    def take_events(self, int32_t limit = EVENTS_MAX) -> list[Event]:
        """The oldest events, at most `limit`, in the order in which they happened."""
        return [self.take() for _ in range(min(limit, self.events_waiting))]

    def offer(
        self, int32_t instrument, int64_t trade_id, *, bytes px not None = b"1", bytes sz not None = b"1",
        int64_t exchange_ts_ms = 0, int64_t now_ns = 0,
    ) -> tuple[Verdict, int]:
        """`judge` for tests and tools: the verdict and the era."""
        cdef TradeFields trade
        self.check(instrument)
        trade.instrument = instrument
        trade.sequence_id = trade_id
        trade.px = px
        trade.px_bytes = <int32_t>len(px)
        trade.sz = sz
        trade.sz_bytes = <int32_t>len(sz)
        trade.exchange_ts_ms = exchange_ts_ms
        return Verdict(self.judge(&trade, now_ns)), trade.era

    def gaps(self, int32_t instrument) -> list[tuple[int, int, int]]:
        """The gaps that were told and are open: first and last id as told, and when the first hole of it opened (UNIX ns)."""
        cdef Hole* holes
        cdef int32_t number
        self.check(instrument)
        holes = &self.hole_lists[instrument * HOLES_MAX]
        return [
            (holes[number].gap_from, holes[number].gap_to, holes[number].opened_ns)
            for number in range(self.sequences[instrument].holes)
            if holes[number].gap_from != NONE and (number == 0 or holes[number - 1].gap_from != holes[number].gap_from)
        ]

    def highest(self, int32_t instrument) -> tuple[int, int] | None:
        """The highest id and its exchange time in ms; None before the first trade."""
        self.check(instrument)
        if self.sequences[instrument].baseline == NONE:
            return None
        return self.sequences[instrument].highest, self.sequences[instrument].highest_ts_ms

    def newest_ms(self) -> int:
        """The latest exchange time of all instruments' highest ids; 0 before the first trade."""
        cdef int32_t instrument
        cdef int64_t newest = 0
        for instrument in range(self.count):
            newest = max(newest, self.sequences[instrument].highest_ts_ms)
        return newest

    def era(self, int32_t instrument) -> int:
        self.check(instrument)
        return self.sequences[instrument].era

    def holes(self, int32_t instrument) -> list[tuple[int, int, bool]]:
        """Open holes by id: from, to, whether told as a gap or as a part of one."""
        cdef Hole* holes
        self.check(instrument)
        holes = &self.hole_lists[instrument * HOLES_MAX]
        return [
            (holes[number].from_id, holes[number].to_id, holes[number].gap_from != NONE)
            for number in range(self.sequences[instrument].holes)
        ]

    def snapshot(self, int32_t instrument) -> bytes:
        """The instrument's state as one compact JSON object, for `restore`. Fingerprints are not in it.

        `window` is hexadecimal, its lowest bit is the highest id. A hole is [from, to, opened_ns, gap_from, gap_to], the last two
        -1 until it is reported.
        """
        cdef Sequence* sequence
        cdef Hole* holes
        cdef int64_t trade_id, below
        cdef unsigned char bits[128]  # WINDOW_IDS of them
        self.check(instrument)
        sequence = &self.sequences[instrument]
        state = {"asset": self.instruments.name(instrument), "kind": self.instruments.kind(instrument), "era": sequence.era}
        if sequence.baseline == NONE:
            state["baseline"] = None
            if sequence.listed_ms:
                state["listed_ms"] = sequence.listed_ms
            return json.dumps(state, ensure_ascii=False, separators=(",", ":")).encode()
        holes = &self.hole_lists[instrument * HOLES_MAX]
        memset(bits, 0, sizeof(bits))
        for trade_id in range(max(sequence.highest - WINDOW_IDS + 1, sequence.baseline), sequence.highest + 1):
            if seen.is_set(sequence.seen, trade_id):
                below = sequence.highest - trade_id
                bits[below >> 3] |= <unsigned char>(1 << (below & 7))
        state["baseline"] = sequence.baseline
        state["highest"] = sequence.highest
        state["highest_ts_ms"] = sequence.highest_ts_ms
        state["window"] = f"{int.from_bytes(bits[:sizeof(bits)], 'little'):x}"
        state["holes"] = [
            [holes[number].from_id, holes[number].to_id, holes[number].opened_ns, holes[number].gap_from, holes[number].gap_to]
            for number in range(sequence.holes)
        ]
        if sequence.ended and sequence.highest == sequence.ended_highest:
            state["ended"] = True
        if sequence.listed_ms:
            state["listed_ms"] = sequence.listed_ms
        if sequence.last_era:
            state["eras"] = {
                "last": sequence.last_era,
                "era_ts_ms": sequence.era_ts_ms,
                "previous": sequence.previous_era,
                "previous_highest": sequence.previous_highest,
                "restart": sequence.restart_era,
                "restart_ts_ms": sequence.restart_ts_ms,
                "restart_ids": [sequence.restart_ids[number] for number in range(sequence.restart_trades)],
            }
        return json.dumps(state, ensure_ascii=False, separators=(",", ":")).encode()

    def restore(self, bytes snapshot not None) -> int:
        """Put an instrument, which is added if it is not there, into the state of a snapshot; its index.

        Raises ValueError or KeyError for what `snapshot` did not write.
        """
        cdef Sequence* sequence
        cdef Hole* hole
        cdef int64_t trade_id
        cdef int32_t instrument
        state = json.loads(snapshot)
        instrument = self.instruments.add(state["asset"], state["kind"])
        self.grow()
        self.drop_holes(instrument)
        sequence = &self.sequences[instrument]
        memset(sequence, 0, sizeof(Sequence))
        memset(&self.copies[instrument * WINDOW_IDS], 0, WINDOW_IDS * sizeof(Copy))
        sequence.baseline = NONE
        sequence.era = sequence.last_era = state["era"]
        sequence.listed_ms = state.get("listed_ms", 0)
        if state["baseline"] is None:
            return instrument
        if len(state["holes"]) > HOLES_MAX:
            raise ValueError(f"snapshot of {state['asset']} has {len(state['holes'])} holes, at most {HOLES_MAX} are kept")
        sequence.baseline = state["baseline"]
        sequence.highest = state["highest"]
        sequence.highest_ts_ms = state["highest_ts_ms"]
        window = int(state["window"], 16)
        for trade_id in range(max(sequence.highest - WINDOW_IDS + 1, sequence.baseline), sequence.highest + 1):
            if window >> (sequence.highest - trade_id) & 1:
                self.mark(instrument, trade_id, 0)
        for from_id, to_id, opened_ns, gap_from, gap_to in state["holes"]:
            hole = &self.hole_lists[instrument * HOLES_MAX + sequence.holes]
            hole.from_id = from_id
            hole.to_id = to_id
            hole.opened_ns = opened_ns
            hole.gap_from = gap_from
            hole.gap_to = gap_to
            self.missing_ids += to_id - from_id + 1
            if gap_from == NONE:
                sequence.unreported += 1
            elif sequence.holes == 0 or (hole - 1).gap_from != gap_from:
                self.gaps_open += 1
            sequence.holes += 1
        if state.get("ended"):
            sequence.ended = True
            sequence.ended_highest = sequence.highest
        if "eras" in state:
            eras = state["eras"]
            sequence.last_era = eras["last"]
            sequence.era_ts_ms = eras["era_ts_ms"]
            sequence.previous_era = eras["previous"]
            sequence.previous_highest = eras["previous_highest"]
            sequence.restart_era = eras["restart"]
            sequence.restart_ts_ms = eras["restart_ts_ms"]
            for trade_id in eras["restart_ids"][:RESTART_TRADES]:
                sequence.restart_ids[sequence.restart_trades] = trade_id
                sequence.restart_trades += 1
        return instrument

    def replay(self, int32_t instrument, int64_t trade_id, uint32_t era = 0, *, int64_t exchange_ts_ms = 0, int64_t recv_ns = 0) -> None:
        """A trade read back from the ring or the journal, in their order: what `judge` made of it, without its fingerprint.

        Events that it causes are put aside, for their records may stand further on: see `recorded` and `finish_replay`.
        """
        cdef Sequence* sequence
        self.check(instrument)
        sequence = &self.sequences[instrument]
        if sequence.baseline == NONE:
            sequence.era = era
            sequence.last_era = max(sequence.last_era, era)
        if era == sequence.era:
            self.admit(instrument, trade_id, exchange_ts_ms, 0, recv_ns)
        elif era > sequence.era:
            if sequence.restart_trades > 0 and sequence.restart_era != era:
                sequence.restart_trades = 0
            if sequence.restart_trades == 0:
                sequence.last_era = era - 1
            self.admit_restart(instrument, trade_id, exchange_ts_ms, recv_ns)
        elif era == sequence.previous_era:
            self.admit_previous(instrument, trade_id, recv_ns)
        self.put_aside()

    def replay_gap(self, int32_t instrument, int64_t from_id, int64_t to_id, uint32_t era = 0) -> None:
        """A gap record read back: what is still missing of it is reported already."""
        cdef Sequence* sequence
        cdef Hole* hole
        cdef int32_t number
        cdef bint open = False
        self.check(instrument)
        self.recorded(HOLE_DUE, instrument, era, from_id, to_id)
        self.recorded(JUMP, instrument, era, from_id, to_id)
        sequence = &self.sequences[instrument]
        if era != sequence.era:
            return
        for number in range(sequence.holes):
            hole = &self.hole_lists[instrument * HOLES_MAX + number]
            if hole.to_id < from_id or hole.from_id > to_id:
                continue
            if hole.gap_from != NONE:
                return
            hole.gap_from = from_id
            hole.gap_to = to_id
            sequence.unreported -= 1
            open = True
        if open:
            self.gaps_open += 1
        elif sequence.baseline != NONE and sequence.baseline <= from_id and to_id <= sequence.highest:
            # All of it has come. Where the trades around it were not read back, nothing is known of it.
            self.emit(HOLE_CLOSED, instrument, era, from_id, to_id, 0)
            self.put_aside()

    def replay_settled(self, int32_t instrument, int64_t from_id, int64_t to_id, uint32_t era = 0) -> None:
        """A record read back of ids that no trade has."""
        self.check(instrument)
        if era == self.sequences[instrument].era:
            self.settle(instrument, from_id, to_id)
            self.put_aside()

    def recorded(self, int kind, int32_t instrument, uint32_t era, int64_t from_id, int64_t to_id) -> None:
        """A record of this event was read back, so that `finish_replay` need not tell it."""
        self.unrecorded.pop((kind, instrument, era, from_id, to_id), None)

    def finish_replay(self, bint from_the_begin=True) -> int:
        """Queue the events of the replay of which no record was read: the process died between trade and record. How many.

        A replay that is not from the begin of all, or from a snapshot, does not know whether a baseline was recorded before.
        """
        for event in self.unrecorded.values():
            if from_the_begin or event.kind != BASELINE:
                self.emit(event.kind, event.instrument, event.era, event.from_id, event.to_id, event.detected_ns)
        told = len(self.unrecorded)
        self.unrecorded.clear()
        return told

    cdef object put_aside(self):
        while self.events_waiting > 0:
            event = self.take()
            self.unrecorded[event[:5]] = event

    cdef int check(self, int32_t instrument) except -1:
        if not 0 <= instrument < self.count:
            raise IndexError(f"no instrument {instrument}, there are {self.count}")
        return 0
