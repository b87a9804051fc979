"""What ring and journal know of each instrument's ids: written as snapshots, read back at a start."""
import json
from dataclasses import dataclass
from pathlib import Path

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memchr

from appliance.exchanges.instruments cimport Instruments
from appliance.feed.window cimport Window
from appliance.ring.layout cimport (
    GAP,
    GAP_CLOSED,
    HOLE,
    RECORD_HEADER_BYTES,
    SNAPSHOT,
    STATUS,
    TRADE,
    RecordHeader,
)
from appliance.ring.reader cimport STEP_NOTHING, STEP_RECORD, RingReader, Step, StreamReader

from appliance.feed.reopening import reopen
from appliance.feed.window import EventKind
from appliance.ring.journal import Segment, first_position, segments
from appliance.ring.layout import BLOCK
from appliance.ring.reader import Record, SegmentReader

# Events of a window that stand as status records, by the records' `event`.
STATUS_EVENTS = {
    "baseline": EventKind.BASELINE,
    "id_era": EventKind.ERA,
    "id_era_refuted": EventKind.ERA_REFUTED,
    "copies_differ": EventKind.COPIES_DIFFER,
    "holes_merged": EventKind.MERGED,
}

# Events of the status records of an instrument whose first id will be 1, and of one that trades no more.
LISTED = "listed"
ENDED = "ended"
HOLE_REOPENED = "hole_reopened"  # sequences that the journal lost: the trades that they were are missing, as gap records say
NO_SUCH_TRADE = "no_such_trade"  # ids that the exchange does not have either
NEVER_TRADED = b'"baseline":null}'
SNAPSHOT_PAYLOAD_BYTES = 60_000  # of a record's 65,472
HOLE_REACH = 2  # rings: a hole is told when the ring has come so much further, or by none but a start


cdef extern from "<string.h>" nogil:
    void* memmem(const void* haystack, size_t haystack_bytes, const void* needle, size_t needle_bytes)


@dataclass(slots=True, frozen=True)
class Restored:
    """What a start has read back. `holes`: first and last sequence of each span that the journal lost and no hole record tells of;
    `recorded`: those that one tells of, while it is not known yet which trades they were.
    """

    records: int
    holes: list[tuple[int, int]]
    recorded: list[tuple[int, int]]


def snapshot(Window window, str exchange, int chunk, bint with_ended=False, lost=()) -> list[bytes]:
    """The payloads of one snapshot: every instrument that has traded and may trade again, some to a record.

    `with_ended`: also those that have ended, where an exchange lists them again, their ids going on. `lost`: first and last sequence
    of what the journal lost, until it is known which trades that were.
    """
    parts, part, size = [], [], 0
    for instrument in range(window.count):
        if window.is_over(instrument) and not with_ended:
            continue
        state = window.snapshot(instrument)
        if state.endswith(NEVER_TRADED):
            continue
        if part and size + len(state) > SNAPSHOT_PAYLOAD_BYTES:
            parts.append(part)
            part, size = [], 0
        part.append(state)
        size += len(state) + 1
    parts.append(part)
    head = {"record": "snapshot", "exchange": exchange, "chunk": chunk, "parts": len(parts)} | ({"lost": list(lost)} if lost else {})
    heads = [json.dumps({**head, "part": part}, separators=(",", ":")).encode().removesuffix(b"}") for part in range(1, len(parts) + 1)]
    return [b'%s,"instruments":[%s]}' % (head, b",".join(states)) for head, states in zip(heads, parts, strict=True)]


def restore(Window window, RingReader ring, journal_dir: Path | None, bint adopt=False) -> Restored:
    """Bring `window` to where the last writer left it: the newest complete snapshot, then every record behind it.

    `ring`: the chunk's ring, whose cursor is moved. Instruments that `window` does not have are passed over, or added with `adopt`.
    """
    cdef Replay replay = Replay(window, adopt)
    found = segments(journal_dir, ring.exchange, ring.chunk) if journal_dir is not None else []
    begin = len(found)
    before = _first_hole(found, ring.committed - min(ring.committed, HOLE_REACH * ring.capacity))
    while begin > 0:
        begin -= 1
        replay.begin_position = snapshot_position(found[begin].path)
        if replay.begin_position and begin < before:
            break
    if begin > 0:
        replay.last_sequence = _last_sequence(found, begin - 1)
    for index in range(begin, len(found)):
        reader = _opened(found, index)
        replay.read(reader)
        reader.close()
    replay.in_journal = False         # what the ring lacks behind it is the flusher's to tell
    if replay.last_sequence:
        ring.seek_sequence(replay.last_sequence + 1)
    else:
        ring.seek_oldest()
    replay.read(ring)
    window.finish_replay(replay.begin_position > 0 or replay.first_sequence <= 1)
    return Restored(replay.records, sorted(replay.unrecorded), sorted(replay.recorded))


def _opened(found: list[Segment], index: int) -> SegmentReader:
    """The reader of a segment, which ends where the next begins, or sooner before a hole."""
    reader = SegmentReader(found[index].path)
    if index + 1 < len(found):
        reader.bound(min(reader.limit, first_position(found[index + 1].path)))
    return reader


def _first_hole(found: list[Segment], from_position: int) -> int:
    """Index of the first segment from `from_position` on before which sequences are missing; how many there are, if none.

    A snapshot behind a hole may have been written before the hole was known, and the record of the hole be lost with the writer: so a
    start begins before it.
    """
    first = len(found)
    for index in range(len(found) - 1, 0, -1):
        if first_position(found[index].path) < from_position:
            break
        if 0 < _last_sequence(found, index - 1) < found[index].first_sequence - 1:
            first = index
    return first


def _last_sequence(found: list[Segment], index: int) -> int:
    """Sequence of the last record of a segment, or of the last one before it when it has none; 0: not to be told."""
    reader = _opened(found, index)
    try:
        if reader.limit <= reader.first_position:
            return found[index].first_sequence - 1
        reader.seek_position(max(reader.first_position, (reader.limit - 1) // BLOCK * BLOCK))
        return max((item.sequence for item in reader.poll(BLOCK) if isinstance(item, Record)), default=0)
    finally:
        reader.close()


def snapshot_position(path: Path) -> int:
    """Position of the first complete snapshot among a segment's first records; 0: there is none.

    Before it may stand the block that the segment repeats, and of a restart the boundary record.
    """
    reader = SegmentReader(path)
    try:
        seen = position = 0
        for item in reader.poll(2048):
            if isinstance(item, Record) and item.type == SNAPSHOT:
                state = json.loads(item.payload)
                seen = seen + 1 if state["part"] == seen + 1 else 0
                position = item.position if state["part"] == 1 else position
                if seen == state["parts"]:
                    return position
        return 0
    finally:
        reader.close()


cdef class Replay:
    """Feeds records that were read back into a window."""
    cdef Window window
    cdef Instruments instruments
    cdef bint adopt
    cdef readonly int64_t records
    cdef int64_t begin_position       # of the snapshot that tells all that stands before it; 0: none does
    cdef int64_t first_sequence       # that was read back; 0: none
    cdef readonly int64_t last_sequence
    cdef bint in_journal
    cdef set recorded                 # those with one, until it is known which trades they were
    cdef set unrecorded               # spans of sequences that the journal lost, without a hole record so far

    def __init__(self, Window window, bint adopt):
        self.window = window
        self.adopt = adopt
        self.instruments = window.instruments
        self.in_journal = True
        self.unrecorded = set()
        self.recorded = set()

    cdef read(self, StreamReader reader):
        """All that `reader` has, from its cursor on."""
        cdef Step step
        cdef RecordHeader* header = <RecordHeader*>reader.buffer
        while True:
            step = reader.next()
            if step == STEP_NOTHING:
                reader.check()
                return
            if step != STEP_RECORD or <int64_t>header.sequence <= self.last_sequence:
                continue
            if self.in_journal and 0 < self.last_sequence < <int64_t>header.sequence - 1:
                self.unrecorded.add((self.last_sequence + 1, header.sequence - 1))
            self.last_sequence = header.sequence
            self.first_sequence = self.first_sequence or header.sequence
            if <int64_t>header.position < self.begin_position:
                continue
            self.records += 1
            if header.type == TRADE:
                self.trade(reader.buffer + RECORD_HEADER_BYTES, header.length - RECORD_HEADER_BYTES, header.recv_ns)
            elif header.type in (GAP, GAP_CLOSED, HOLE, STATUS, SNAPSHOT):
                self.other(json.loads(PyBytes_FromStringAndSize(
                    reader.buffer + RECORD_HEADER_BYTES, header.length - RECORD_HEADER_BYTES
                )))

    cdef trade(self, const char* payload, Py_ssize_t size, int64_t recv_ns):
        """One trade's JSON, which our own encoder wrote: only its name and its id are looked for."""
        cdef const char* end = payload + size
        cdef const char* name = field(payload, size, b'"asset":"', 9)
        if name == NULL:
            return
        cdef const char* name_end = <const char*>memchr(name, c'"', size - (name - payload))
        cdef const char* id_text = field(payload, size, b'"exchange_trade_seq":', 21)
        if id_text == NULL:
            id_text = field(payload, size, b'"exchange_trade_id":', 20)
        cdef const char* ts_text = field(payload, size, b'"exchange_ts_ms":', 17)
        cdef const char* era_text = field(payload, size, b'"era":', 6)
        if name_end == NULL or id_text == NULL or ts_text == NULL:
            return
        cdef int instrument = self.instruments.lookup(name, name_end - name)
        if instrument < 0 and self.adopt:
            told = json.loads(payload[:size])
            instrument = self.instruments.add(told["asset"], told["kind"])
            self.window.grow()
        if instrument >= 0:
            self.window.replay(
                instrument, number(id_text, end), <uint32_t>number(era_text, end) if era_text != NULL else 0,
                exchange_ts_ms=number(ts_text, end), recv_ns=recv_ns,
            )

    cdef other(self, dict record):
        """A record of what the window has told: it need not tell that again."""
        kind = record["record"]
        if kind == "hole":
            self.unrecorded.discard((record["from_sequence"], record["to_sequence"]))
            self.recorded.add((record["from_sequence"], record["to_sequence"]))
        elif kind == "status" and record["event"] == HOLE_REOPENED:
            self.recorded.discard((record["from_sequence"], record["to_sequence"]))
        if kind == "snapshot":
            self.recorded.update((first, last) for first, last in record.get("lost", ()))
            for state in record["instruments"]:
                if self.adopt or state["asset"] in self.instruments:
                    self.window.restore(json.dumps(state).encode())
        if "asset" not in record:
            return
        if kind == "status" and record["event"] == LISTED:
            if self.adopt or record["asset"] in self.instruments:
                instrument = self.instruments.add(record["asset"], record["kind"])
                self.window.grow()
                if "since_ts_ms" in record:
                    self.window.listed_since(instrument, record["since_ts_ms"])
                else:
                    self.window.listed(instrument)
            return
        if record["asset"] not in self.instruments:
            return
        instrument = self.instruments.find(record["asset"])
        if kind == "status" and record["event"] == ENDED:
            self.window.end(instrument)
            return
        if "from_id" not in record:
            return
        told = (instrument, record.get("era", 0), record["from_id"], record["to_id"])
        if kind == "status" and record["event"] == NO_SUCH_TRADE:
            self.window.replay_settled(instrument, record["from_id"], record["to_id"], record.get("era", 0))
            return
        if kind == "gap" and record.get("reopened"):
            if told[1] == self.window.era(instrument):
                reopen(self.window, instrument, record["from_id"], record["to_id"], record["detected_ts_ms"] * 1_000_000)
        elif kind == "gap":
            self.window.replay_gap(instrument, record["from_id"], record["to_id"], record.get("era", 0))
        elif kind == "gap_closed":
            self.window.recorded(EventKind.HOLE_CLOSED, *told)
        elif kind == "status" and record["event"] in STATUS_EVENTS:
            self.window.recorded(STATUS_EVENTS[record["event"]], *told)


cdef const char* field(const char* payload, Py_ssize_t size, const char* key, Py_ssize_t key_bytes) noexcept nogil:
    """What follows `key` in a record's JSON; NULL when it is not there."""
    cdef const char* found = <const char*>memmem(payload, size, key, key_bytes)
    return found + key_bytes if found != NULL else NULL


cdef int64_t number(const char* text, const char* end) noexcept nogil:
    cdef int64_t value = 0
    while text < end and c"0" <= text[0] <= c"9":
        value = value * 10 + (text[0] - c"0")
        text += 1
    return value
