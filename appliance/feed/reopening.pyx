"""Ids that came, were committed, and are missing again: their records are lost."""
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memmove

from appliance.feed.window cimport HOLES_MAX, NONE, WINDOW_IDS, Hole, Sequence, Window

from appliance.ring.intervals import Intervals


def reopen(Window window not None, int32_t instrument, int64_t from_id, int64_t to_id, int64_t opened_ns) -> list[tuple[int, int]]:
    """Have the window miss these ids of the current era, each part as a gap that is told already: the parts that it did not miss before."""
    cdef Sequence* sequence
    cdef int64_t low, high
    window.check(instrument)
    sequence = &window.sequences[instrument]
    if sequence.baseline == NONE:
        return []
    low, high = max(from_id, sequence.baseline), min(to_id, sequence.highest)
    parts = Intervals((hole[0], hole[1]) for hole in window.holes(instrument)).without(low, high) if low <= high else []
    for first, last in parts:
        insert(window, instrument, first, last, opened_ns)
    return parts


cdef void insert(Window window, int32_t instrument, int64_t from_id, int64_t to_id, int64_t opened_ns):
    cdef Sequence* sequence = &window.sequences[instrument]
    cdef Hole* holes = &window.hole_lists[instrument * HOLES_MAX]
    cdef int32_t number = 0
    cdef int64_t trade_id
    if sequence.holes == HOLES_MAX:
        window.merge_closest(instrument)
    while number < sequence.holes and holes[number].to_id < from_id:
        number += 1
    if number < sequence.holes and holes[number].from_id <= to_id:
        return  # what was merged holds it now
    memmove(&holes[number + 1], &holes[number], (sequence.holes - number) * sizeof(Hole))
    sequence.holes += 1
    holes[number].from_id = from_id
    holes[number].to_id = to_id
    holes[number].opened_ns = opened_ns
    if 0 < number < sequence.holes - 1 and holes[number - 1].gap_from != NONE and holes[number - 1].gap_from == holes[number + 1].gap_from:
        # Between two pieces of one gap: a piece of that, too.
        holes[number].gap_from = holes[number - 1].gap_from
        holes[number].gap_to = holes[number - 1].gap_to
    else:
        holes[number].gap_from = from_id
        holes[number].gap_to = to_id
        window.gaps_open += 1
    window.missing_ids += to_id - from_id + 1
    for trade_id in range(max(from_id, sequence.highest - WINDOW_IDS + 1), to_id + 1):
        sequence.seen[(trade_id % WINDOW_IDS) >> 6] &= ~(<uint64_t>1 << (trade_id & 63))
