from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp.string cimport string
from libcpp.unordered_map cimport unordered_map
from libcpp.vector cimport vector

from appliance.ring.reader cimport StreamReader

cdef struct Run:
    int64_t first
    int64_t last
    int64_t began_ns                 # write_ns of the trade that jumped ahead and began it
    uint32_t began_jumps             # jumps of the sequence before that trade
    uint32_t ended_jumps             # and before the trade that brought `last`


cdef struct TradeKey:
    const char* asset                # as in the JSON, escapes and all
    Py_ssize_t asset_bytes
    int64_t id
    int64_t era
    int64_t exchange_ts_ms
    const char* said_end             # behind what the exchange said: the fields up to exchange_ts_ms


cdef class Scanner:
    """What the records of one chunk say about each other; the state survives from one segment to the next."""
    cdef readonly uint64_t records
    cdef readonly uint64_t trades
    cdef readonly uint64_t bytes             # of records, alignment included
    cdef readonly uint64_t first_sequence    # 0: no record yet
    cdef readonly uint64_t last_sequence
    cdef readonly uint32_t epoch
    cdef readonly int64_t first_write_ns     # of the first record
    cdef readonly int64_t last_write_ns
    cdef readonly uint64_t duplicates
    cdef unordered_map[string, size_t] index_of_key
    cdef vector[string] keys
    cdef vector[vector[Run]] runs            # per key: ids seen, sorted, disjoint
    cdef vector[int64_t] baselines           # per key: the first id seen
    cdef string key
    cdef readonly uint32_t jumps             # of the sequence: records that the stream does not have
    cdef uint32_t damages                    # told since the last good record
    cdef bint rejoined                       # records before this one could not be read: judge from here on

    cdef const char* judge(self, const char* record) noexcept nogil
    cdef const char* judge_trade(self, const char* payload, const char* end, int64_t write_ns) noexcept nogil
    cdef void counted(self, size_t index, const TradeKey* trade, const char* payload) noexcept nogil
    cdef bint add_id(self, vector[Run]* runs, int64_t id, int64_t write_ns) noexcept nogil
    cdef object judge_padding(self, StreamReader reader, uint64_t begin, uint64_t end, list items)
