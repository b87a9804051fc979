from libc.stdint cimport int32_t, int64_t, uint64_t
from picows.picows cimport WSFrame, WSListener, WSTransport

from appliance.exchanges.decoder cimport Decoder, Outcome
from appliance.exchanges.instruments cimport Instruments
from appliance.feed.spill cimport Spill
from appliance.feed.window cimport Window
from appliance.ring.codec cimport TradeEncoder
from appliance.ring.layout cimport Histogram
from appliance.ring.raw_buffer cimport RawBuffer
from appliance.ring.writer cimport Writer


cdef struct Heard:                   # what one connection brought last
    int64_t* ids                     # by instrument; -1: none yet
    int32_t count
    int64_t recv_ns                  # of its last trade, and when the exchange says that was made; 0: none yet
    int64_t exchange_ts_ms


cdef class HotPath:
    """From one message to its committed records; shared by the legs of one chunk, one thread."""
    cdef Decoder decoder
    cdef Instruments instruments
    cdef Window window
    cdef TradeEncoder encoder
    cdef Writer writer
    cdef uint64_t reserve_bytes      # less room than this: reading must pause
    cdef object pressure
    cdef Histogram* leads            # LEGS_MAX: how much earlier a leg's copy came than the first from another leg, ns
    cdef Histogram* leads_before     # as of the last `minute`, as the two below
    cdef Histogram recv_to_commit_before
    cdef Histogram fdatasync_before
    cdef Spill spill                 # what found no room, to be committed before anything that comes later
    cdef public RawBuffer raw        # of the raw lane; None: it is off

    cdef Outcome commit_trades(
        self, const char* payload, Py_ssize_t size, Py_ssize_t readable, int64_t recv_ns, int leg, Heard* heard
    ) noexcept nogil
    cdef void grow(self, Heard* heard) noexcept nogil
    cdef int check(self, int leg) except -1
    cdef void keep_raw(self, const char* payload, Py_ssize_t size, int64_t recv_ns, int leg, int outcome) noexcept nogil
    cdef bint has_room_for(self, Py_ssize_t size) noexcept nogil
    cdef void commit_spilled(self) noexcept nogil
    cdef void count_outcome(self, Outcome outcome) noexcept nogil


cdef class FeedHandler(WSListener):
    """One leg of one chunk as picows sees it. Trades go to the ring, every other frame to `control`."""
    cdef HotPath path
    cdef object control
    cdef Heard heard
    cdef bytearray fragments         # of a message that comes in several frames; None between messages
    cdef bint read_begins
    cdef readonly int leg
    cdef readonly int64_t recv_ns    # of the socket read that brought the last frame (UNIX ns); 0 before the first
    cdef readonly int64_t frames
    cdef readonly int64_t trades     # messages that held trades, whichever leg was first

    cdef bint gather(self, WSFrame frame)
