"""The hot path: one websocket frame in, its trades committed to one ring."""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset
from picows.picows cimport WSFrame, WSListener, WSMsgType, WSTransport

from appliance.clock cimport now_ns
from appliance.exchanges.decoder cimport MALFORMED, OTHER, TRADES, UNKNOWN_SYMBOL, WRONG_VENUE, Decoder, Outcome
from appliance.feed.spill cimport Spill, SpilledMessage
from appliance.feed.window cimport BEFORE_BASELINE, CONFLICT, DUPLICATE, FIRST, LATE, NONE, Verdict, Window
from appliance.ring.codec cimport TRADE_PAYLOAD_BYTES_MAX, TradeEncoder
from appliance.ring.layout cimport (
    C_BACKFILLED,
    C_BEFORE_BASELINE,
    C_CONFLICTING,
    C_DUPLICATES,
    C_FILTERED,
    C_FRAMES,
    C_LATE,
    C_LEG_DUPLICATES,
    C_LEG_FRAMES,
    C_LEG_SHARED,
    C_LEG_WINS,
    C_MALFORMED,
    C_OTHER_FRAMES,
    C_READS,
    C_SHED,
    C_TRADES,
    C_UNKNOWN_SYMBOL,
    C_WRONG_VENUE,
    FLAG_BACKFILLED,
    FLAG_LATE,
    LEGS_MAX,
    TRADE,
    Histogram,
    observe,
    summarize,
    summarize_since,
)
from appliance.ring.atomics cimport load_relaxed
from appliance.ring.writer cimport Writer
from appliance.trade cimport TradeFields

import picows

from appliance.exchanges.decoder import Outcome as OutcomeName
from appliance.ring.layout import COUNTER_NAMES

cdef extern from "<string.h>" nogil:
    void* memmem(const void* text, size_t size, const void* wanted, size_t wanted_size)

cdef const char* TOKEN = b'_token"'  # of "access_token", "refresh_token"

cdef enum:
    BACKFILL = -1                    # in place of a leg: fetched over REST
    SPILLED = 100                    # beside Outcome: not decoded yet, no room
    RECORD_EXPANSION = 3
    HEARD_MORE = 256                 # instruments that a connection's memory grows by, beyond those that there are

PICOWS_VERSION = "2.3.1"
MESSAGE_BYTES_MAX = 16 << 20  # whole or in fragments; what is longer is no trade of any exchange

if picows.__version__ != PICOWS_VERSION:
    # Its classes are laid out in memory as compiled against; Cython does not check that.
    raise ImportError(f"picows {picows.__version__} is installed, this build needs exactly {PICOWS_VERSION}: reinstall mdc-appliance")


cdef class HotPath:
    """Decode, de-duplicate, encode and commit.

    A read that begins with less than `reserve_bytes` of room in the ring calls `pressure.pause(transport)`.
    """

    def __init__(self, Decoder decoder, Window window, Writer writer, uint64_t reserve_bytes, pressure):
        self.decoder = decoder
        self.instruments = decoder.instruments
        self.window = window
        self.encoder = TradeEncoder()
        self.writer = writer
        self.reserve_bytes = reserve_bytes
        self.pressure = pressure
        self.spill = Spill()
        # Before the first minute lies another writer's life.
        summarize_since(&writer.meta.recv_to_commit_ns, &self.recv_to_commit_before)
        summarize_since(&writer.meta.fdatasync_ns, &self.fdatasync_before)

    def __cinit__(self):
        self.leads = <Histogram*>calloc(2 * LEGS_MAX, sizeof(Histogram))
        if self.leads == NULL:
            raise MemoryError
        self.leads_before = self.leads + LEGS_MAX

    def __dealloc__(self):
        free(self.leads)

    cdef Outcome commit_trades(
        self, const char* payload, Py_ssize_t size, Py_ssize_t readable, int64_t recv_ns, int leg, Heard* heard
    ) noexcept nogil:
        """One message, of which `readable` bytes may be read from `payload` on. `heard`: of the connection that brought it, or NULL."""
        cdef TradeFields trade
        cdef Verdict verdict
        cdef char* out
        cdef const char* prefix
        cdef int32_t prefix_bytes = 0
        cdef Py_ssize_t payload_bytes
        cdef int64_t parse_ns, enqueue_ns, write_ns
        cdef int flags
        cdef Outcome outcome
        outcome = self.decoder.start(payload, size, readable)
        if outcome == TRADES and (self.spill.messages or not self.has_room_for(size)):
            if self.spill.push(payload, size, recv_ns, leg):
                return <Outcome>SPILLED
        if leg != BACKFILL:
            self.writer.count(C_FRAMES, 1)
            self.writer.count(C_LEG_FRAMES + leg, 1)
        if outcome != TRADES:
            self.count_outcome(outcome)
            return outcome
        if self.instruments.count > self.window.count:
            # Names that the wire brought for the first time.
            with gil:
                self.window.grow()
        if heard != NULL and self.instruments.count > heard.count:
            self.grow(heard)
        self.window.brought(leg, recv_ns)
        # Decoded, and at once claimed: one reading for both, until a further trade of the same message is claimed.
        parse_ns = enqueue_ns = now_ns()
        while self.decoder.next(&trade):
            if trade.instrument < 0:
                self.writer.count(C_UNKNOWN_SYMBOL, 1)
                continue
            if not self.instruments.is_wanted(trade.instrument):
                self.writer.count(C_FILTERED, 1)
                continue
            if leg == BACKFILL and not self.window.lacks(&trade):
                continue  # a neighbour of what was asked for, or it has come meanwhile
            out = self.writer.claim(TRADE_PAYLOAD_BYTES_MAX + trade.tail_bytes)
            if out == NULL:
                # Not judged either: its id stays missing, so that a gap record tells of it.
                self.writer.count(C_SHED, 1)
                continue
            verdict = self.window.judge(&trade, parse_ns)
            if heard != NULL:
                heard.recv_ns = recv_ns
                heard.exchange_ts_ms = trade.exchange_ts_ms
                if trade.instrument < heard.count:
                    heard.ids[trade.instrument] = trade.sequence_id
            if verdict == FIRST or verdict == LATE:
                prefix = self.instruments.prefix(trade.instrument, &prefix_bytes)
                payload_bytes = self.encoder.encode(&trade, prefix, prefix_bytes, recv_ns, parse_ns, enqueue_ns, out)
                write_ns = self.writer.write_time()
                self.encoder.stamp(out, write_ns)
                flags = (leg if leg != BACKFILL else FLAG_BACKFILLED) | (FLAG_LATE if verdict == LATE else 0)
                self.writer.commit(TRADE, payload_bytes, flags, recv_ns, parse_ns, enqueue_ns, write_ns)
                enqueue_ns = now_ns()
                self.writer.count(C_TRADES, 1)
                if leg != BACKFILL:
                    observe(&self.writer.meta.recv_to_commit_ns, max(enqueue_ns - recv_ns, <int64_t>0))
                    self.writer.count(C_LEG_WINS + leg, 1)
                else:
                    self.writer.count(C_BACKFILLED, 1)
                if verdict == LATE:
                    self.writer.count(C_LATE, 1)
            elif verdict == DUPLICATE or verdict == CONFLICT:
                self.writer.count(C_DUPLICATES, 1)
                if leg == BACKFILL:
                    continue
                self.writer.count(C_LEG_DUPLICATES + leg, 1)
                if self.window.winner != NONE:
                    self.writer.count(C_LEG_SHARED + self.window.winner, 1)
                    observe(&self.leads[self.window.winner], self.window.lead_ns)
                if verdict == CONFLICT:
                    self.writer.count(C_CONFLICTING, 1)
            elif verdict == BEFORE_BASELINE:
                self.writer.count(C_BEFORE_BASELINE, 1)
        return TRADES

    cdef inline void keep_raw(self, const char* payload, Py_ssize_t size, int64_t recv_ns, int leg, int outcome) noexcept nogil:
        """A copy for the raw lane, if there is one; called when the message's trades are committed, so that they never wait for it."""
        if self.raw is None:
            return
        if outcome != TRADES and outcome != SPILLED and memmem(payload, size, TOKEN, 7) != NULL:
            return  # the answer to a login: no secret goes to disk
        self.raw.push(payload, size, recv_ns, leg)

    cdef inline bint has_room_for(self, Py_ssize_t size) noexcept nogil:
        """Whether the ring takes every record that a message of `size` bytes may become; a record is three times its row at most."""
        cdef uint64_t needed = 2 * TRADE_PAYLOAD_BYTES_MAX + RECORD_EXPANSION * <uint64_t>size
        needed = min(needed, self.writer.capacity >> 1)  # what is larger than the ring is no list of trades
        return self.writer.position + needed <= self.writer.flushed_seen + self.writer.capacity or self.writer.room() >= needed

    cdef void commit_spilled(self) noexcept nogil:
        """Commit what was spilled, as far as the ring has room for it."""
        cdef SpilledMessage message
        cdef const char* payload = self.spill.front(&message)
        cdef int64_t messages
        while payload != NULL and self.has_room_for(message.size):
            messages = self.spill.messages
            self.spill.messages = 0  # so that it is not spilled again
            self.commit_trades(payload, message.size, message.size, message.recv_ns, <int>message.leg, NULL)
            self.spill.messages = messages
            self.spill.pop()
            payload = self.spill.front(&message)

    def catch_up(self) -> int:
        """Commit what was read and found no room, now that there is some; how many messages still wait. Between reads."""
        self.commit_spilled()
        return self.spill.messages

    cdef void count_outcome(self, Outcome outcome) noexcept nogil:
        if outcome == OTHER:
            self.writer.count(C_OTHER_FRAMES, 1)
        elif outcome == MALFORMED:
            self.writer.count(C_MALFORMED, 1)
        elif outcome == UNKNOWN_SYMBOL:
            self.writer.count(C_UNKNOWN_SYMBOL, 1)
        elif outcome == WRONG_VENUE:
            self.writer.count(C_WRONG_VENUE, 1)

    cdef void grow(self, Heard* heard) noexcept nogil:
        """Room for all instruments. Without memory for it, the new ones are not remembered."""
        cdef int32_t count = self.instruments.count + HEARD_MORE
        cdef int64_t* ids = <int64_t*>realloc(heard.ids, count * sizeof(int64_t))
        if ids == NULL:
            return
        memset(ids + heard.count, 0xff, (count - heard.count) * sizeof(int64_t))
        heard.ids = ids
        heard.count = count

    def counters(self) -> dict[str, int]:
        """The ring's counters by name, without the flusher's."""
        return {name: load_relaxed(&self.writer.meta.counters[<int>index]) for index, name in COUNTER_NAMES.items()}

    @property
    def shed(self) -> int:
        """Trades that found no room in ring or memory; their ids are missing."""
        return load_relaxed(&self.writer.meta.counters[<int>C_SHED])

    def lead(self, int leg) -> dict[str, float]:
        """By how many ns this leg's first copies came before another leg's, since the start: percentiles as of any histogram."""
        self.check(leg)
        return summarize(&self.leads[leg])

    def lead_since(self, int leg) -> dict[str, float]:
        """`lead`, since the last call for this leg."""
        self.check(leg)
        return summarize_since(&self.leads[leg], &self.leads_before[leg])

    def latencies_since(self) -> dict[str, dict[str, float]]:
        """Percentiles of `recv_to_commit_ns` and `fdatasync_ns` since the last call."""
        return {
            "recv_to_commit_ns": summarize_since(&self.writer.meta.recv_to_commit_ns, &self.recv_to_commit_before),
            "fdatasync_ns": summarize_since(&self.writer.meta.fdatasync_ns, &self.fdatasync_before),
        }

    cdef int check(self, int leg) except -1:
        if not 0 <= leg < LEGS_MAX:
            raise IndexError(f"no leg {leg}, there are {LEGS_MAX} at most")
        return 0

    def commit_message(self, bytes payload, int leg=0) -> str:
        """Take one message as a socket would bring it, from memory; the outcome's name. For tests and benchmarks."""
        cdef const char* start = payload
        cdef int64_t recv_ns = now_ns()
        cdef int outcome = <int>self.commit_trades(start, len(payload), len(payload), recv_ns, leg, NULL)
        self.keep_raw(start, len(payload), recv_ns, leg, outcome)
        return "SPILLED" if outcome == SPILLED else OutcomeName(outcome).name

    def backfill(self, bytes message) -> str:
        """Take a message of past trades, in the shape that a socket would bring; the outcome's name. Between reads."""
        cdef const char* start = message
        cdef int outcome = <int>self.commit_trades(start, len(message), len(message), now_ns(), BACKFILL, NULL)
        return "SPILLED" if outcome == SPILLED else OutcomeName(outcome).name

    def commit_messages(self, list payloads, int leg=0) -> int:
        """As `commit_message` for many; how many held trades."""
        cdef int64_t held = 0
        cdef int64_t recv_ns
        cdef Outcome outcome
        cdef bytes payload
        for payload in payloads:
            recv_ns = now_ns()
            outcome = self.commit_trades(<const char*>payload, len(payload), len(payload), recv_ns, leg, NULL)
            held += outcome == TRADES
            self.keep_raw(<const char*>payload, len(payload), recv_ns, leg, outcome)
        return held


cdef class FeedHandler(WSListener):
    """Leg `leg` of the chunk that `path` belongs to.

    `control` is the leg's control plane: on_connected(transport), on_disconnected(transport), on_violation(reason)
    when the connection must be replaced, and on_other_frame(outcome, message_type, payload) for every frame that
    brought no trade.
    """

    def __init__(self, HotPath path, int leg, control):
        self.path = path
        self.leg = leg
        self.control = control
        self.read_begins = True

    def __dealloc__(self):
        free(self.heard.ids)

    def last_ids(self) -> bytes:
        """The last id that this connection brought, an int64 by instrument; -1: none. Those beyond its end: none."""
        return PyBytes_FromStringAndSize(<char*>self.heard.ids, self.heard.count * sizeof(int64_t))

    def last_trade(self) -> tuple[int, int]:
        """When the last trade that this connection brought was received (UNIX ns) and made (exchange time, ms); (0, 0): none."""
        return self.heard.recv_ns, self.heard.exchange_ts_ms

    cpdef on_ws_connected(self, WSTransport transport):
        self.control.on_connected(transport)

    cpdef on_ws_disconnected(self, WSTransport transport):
        self.control.on_disconnected(transport)

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        cdef Outcome outcome
        cdef bytes message = None
        if self.read_begins:
            # One stamp for all frames of a read: what waited in the buffer behind others has its waiting counted.
            self.recv_ns = now_ns()
            self.path.writer.count(C_READS, 1)
            if self.path.writer.room() < self.path.reserve_bytes:
                self.path.pressure.pause(transport)
        self.read_begins = frame.last_in_buffer
        self.frames += 1
        if frame.rsv1 | frame.rsv2 | frame.rsv3:
            self.control.on_violation("a frame with bits of an extension that was never agreed on")
            return
        if frame.msg_type == WSMsgType.TEXT and frame.fin and self.fragments is None:
            outcome = self.path.commit_trades(
                frame.payload_ptr, frame.payload_size, frame.payload_size + frame.tail_size, self.recv_ns, self.leg, &self.heard
            )
            self.path.keep_raw(frame.payload_ptr, frame.payload_size, self.recv_ns, self.leg, <int>outcome)
        elif frame.msg_type == WSMsgType.TEXT or frame.msg_type == WSMsgType.CONTINUATION or (
            frame.msg_type == WSMsgType.BINARY and not frame.fin
        ):
            if not self.gather(frame):
                return
            message = bytes(self.fragments)
            self.fragments = None
            outcome = self.path.commit_trades(<const char*>message, len(message), len(message), self.recv_ns, self.leg, &self.heard)
            self.path.keep_raw(<const char*>message, len(message), self.recv_ns, self.leg, <int>outcome)
        elif frame.msg_type == WSMsgType.BINARY and frame.fin:
            self.path.writer.count(C_FRAMES, 1)
            self.path.writer.count(C_MALFORMED, 1)
            outcome = MALFORMED
        else:
            self.path.writer.count(C_OTHER_FRAMES, 1)
            outcome = OTHER  # ping, pong, close
        if outcome == TRADES or <int>outcome == SPILLED:
            self.trades += 1
        else:
            self.control.on_other_frame(
                <int>outcome, <int>frame.msg_type, frame.get_payload_as_bytes() if message is None else message
            )

    cdef bint gather(self, WSFrame frame):
        """Add a frame to the message in `fragments`; whether that is complete now."""
        if (frame.msg_type != WSMsgType.CONTINUATION) == (self.fragments is not None):
            self.fragments = None
            self.control.on_violation("a websocket message began within another, or went on without a beginning")
            return False
        if self.fragments is None:
            self.fragments = bytearray()
        self.fragments += frame.get_payload_as_bytes()
        if len(self.fragments) > MESSAGE_BYTES_MAX:
            self.fragments = None
            self.control.on_violation(f"a message above {MESSAGE_BYTES_MAX} bytes")
            return False
        return frame.fin
