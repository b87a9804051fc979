"""What tells two copies of a trade apart: 32 bits of its price and size."""
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from appliance.trade cimport TradeFields


cdef inline uint64_t mixed(uint64_t state, const char* text, Py_ssize_t size) noexcept nogil:
    cdef uint64_t word = 0
    while size >= 8:
        memcpy(&word, text, 8)
        state = (state ^ word) * <uint64_t>0x9E3779B97F4A7C15
        state ^= state >> 29
        text += 8
        size -= 8
    word = 0
    while size > 0:
        size -= 1
        word = word << 8 | <unsigned char>text[size]
    state = (state ^ word) * <uint64_t>0x9E3779B97F4A7C15
    return state ^ state >> 29


cdef inline uint32_t fingerprint_of(const TradeFields* trade) noexcept nogil:
    """Of price and size, as they are spelled; never 0, which means not known."""
    cdef uint64_t state = mixed(<uint64_t>trade.px_bytes << 32 | <uint64_t>trade.sz_bytes, trade.px, trade.px_bytes)
    return <uint32_t>(mixed(state, trade.sz, trade.sz_bytes) >> 32) | 1
