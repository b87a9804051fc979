from libc.stdint cimport int64_t, uint32_t

cdef extern from "appliance/exchanges/usual_frame.hpp" namespace "mdc" nogil:
    cdef cppclass UsualTrade:
        const char* symbol
        const char* px
        const char* sz
        int64_t trade_id
        int64_t time
        uint32_t symbol_bytes
        uint32_t px_bytes
        uint32_t sz_bytes
        bint buyer_is_maker

    bint match_usual_trade(const char* text, size_t size, UsualTrade* trade)
