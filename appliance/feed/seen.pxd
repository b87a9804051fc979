"""Which of the ids up to the highest one were seen: a bit for each of the last SEEN_IDS."""
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy, memset

cdef enum:
    SEEN_IDS = 1024

cdef struct Seen:
    int64_t highest
    uint64_t bits[16]                # bit id % SEEN_IDS


cdef inline bint is_set(const uint64_t* bits, int64_t trade_id) noexcept nogil:
    """Of an id among the last SEEN_IDS."""
    return bits[(trade_id % SEEN_IDS) >> 6] >> (trade_id & 63) & 1


cdef inline bint has(const Seen* seen, int64_t trade_id) noexcept nogil:
    """Whether it was seen, and is still known."""
    if not seen.highest - SEEN_IDS < trade_id <= seen.highest:
        return False
    return is_set(seen.bits, trade_id)


cdef inline void add(Seen* seen, int64_t trade_id) noexcept nogil:
    cdef int64_t skipped
    if trade_id <= seen.highest - SEEN_IDS:
        return
    if trade_id - seen.highest >= SEEN_IDS:
        memset(seen.bits, 0, sizeof(seen.bits))
    else:
        for skipped in range(seen.highest + 1, trade_id):
            seen.bits[(skipped % SEEN_IDS) >> 6] &= ~(<uint64_t>1 << (skipped & 63))
    seen.highest = max(seen.highest, trade_id)
    seen.bits[(trade_id % SEEN_IDS) >> 6] |= <uint64_t>1 << (trade_id & 63)


cdef inline void put(Seen* seen, int64_t highest, const uint64_t* bits) noexcept nogil:
    """Take over all that another window of as many ids knows."""
    seen.highest = highest
    memcpy(seen.bits, bits, sizeof(seen.bits))
