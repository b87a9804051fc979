"""A scan of a whole stream at memory speed: is each record well formed, and does it follow from those before it."""
import json
from dataclasses import dataclass

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memchr, memcmp
from libcpp.vector cimport vector

from appliance.ring.layout cimport (
    BLOCK_BYTES,
    CODEC_JSON,
    RECORD_HEADER_BYTES,
    SNAPSHOT,
    TRADE,
    RecordHeader,
    align_up,
    block_end,
)
from appliance.ring.reader cimport (
    STEP_CORRUPT,
    STEP_LAPPED,
    STEP_NOTHING,
    STEP_RECORD,
    Step,
    StreamReader,
)

from appliance.ring.reader import Corrupt, Lapped

cdef extern from "<string.h>" nogil:
    void* memmem(const void* haystack, size_t haystack_size, const void* needle, size_t needle_size)


@dataclass(slots=True, frozen=True)
class Fault:
    """A record that breaks a rule of the format, although its checksum is right."""

    position: int
    sequence: int
    reason: str


@dataclass(slots=True, frozen=True)
class Jump:
    """Sequences that do not stand between two records that follow each other; a hole record may account for them.

    `damages`: how many of the Corrupt told just before lie between the two.
    """

    position: int
    from_sequence: int
    to_sequence: int
    damages: int


@dataclass(slots=True, frozen=True)
class Hole:
    """Trade ids of one instrument that no record brought, both ends included; `began_ns`: when the next id was written.

    The records of `jumps` (index of the first, and behind the last) are missing where these ids would stand.
    """

    asset: str
    era: int
    from_id: int
    to_id: int
    began_ns: int
    jumps: range


cdef const char* literal(const char* at, const char* end, const char* text, Py_ssize_t size) noexcept nogil:
    """Behind `text`, which must stand at `at`; NULL when it does not."""
    if at == NULL or end - at < size or memcmp(at, text, size) != 0:
        return NULL
    return at + size


cdef const char* until(const char* at, const char* end, char stop) noexcept nogil:
    """Where `stop` stands, from `at` on; NULL when it does not."""
    if at == NULL:
        return NULL
    return <const char*>memchr(at, stop, end - at)


cdef const char* string_end(const char* at, const char* end) noexcept nogil:
    """The closing quote of the JSON string whose first character is at `at`."""
    if at == NULL:
        return NULL
    while at < end and at[0] != c'"':
        at += 2 if at[0] == c'\\' else 1
    return at if at < end else NULL


cdef const char* number(const char* at, const char* end, int64_t* value) noexcept nogil:
    """Behind the integer that stands at `at`."""
    cdef bint negative = False
    cdef const char* begin
    if at == NULL:
        return NULL
    if at < end and at[0] == c'-':
        negative = True
        at += 1
    begin = at
    value[0] = 0
    # 18 digits always fit; 19 may overflow, and no exchange counts that far.
    while at < end and c'0' <= at[0] <= c'9':
        if at - begin == 18:
            return NULL
        value[0] = value[0] * 10 + (at[0] - c'0')
        at += 1
    if at == begin:
        return NULL
    if negative:
        value[0] = -value[0]
    return at


cdef bint read_key(const char* at, const char* end, TradeKey* key) noexcept nogil:
    """Instrument, era and id of a trade's JSON, whose first twelve fields stand in fixed order."""
    cdef int64_t ignored
    cdef const char* found
    at = literal(at, end, b'{"exchange":"', 13)
    at = literal(string_end(at, end), end, b'","asset":"', 11)
    key.asset = at
    at = string_end(at, end)
    key.asset_bytes = at - key.asset if at != NULL else 0
    at = literal(at, end, b'","kind":"', 10)
    at = literal(string_end(at, end), end, b'","px":', 7)
    at = literal(until(at, end, c','), end, b',"sz":', 6)
    at = literal(until(at, end, c','), end, b',"side":"', 9)
    at = literal(string_end(at, end), end, b'","exchange_trade_id":', 22)
    at = number(at, end, &key.id)
    at = number(literal(at, end, b',"exchange_ts_ms":', 18), end, &key.exchange_ts_ms)
    key.said_end = at
    at = number(literal(at, end, b',"writer_ts_ms":', 16), end, &ignored)
    at = number(literal(at, end, b',"recv_ts_ms":', 14), end, &ignored)
    at = number(literal(at, end, b',"parse_ts_ms":', 15), end, &ignored)
    at = number(literal(at, end, b',"enqueue_ts_ms":', 17), end, &ignored)
    key.era = 0
    if at == NULL or at == end or (end - 1)[0] != c'}':
        return False
    if at + 1 == end:
        return True
    found = <const char*>memmem(at, end - at, b',"era":', 7)
    if found != NULL and number(found + 7, end, &key.era) == NULL:
        return False
    # Deribit's trade ids are per currency; what rises by one per instrument is the sequence (T14).
    found = <const char*>memmem(at, end - at, b',"exchange_trade_seq":', 22)
    return found == NULL or number(found + 22, end, &key.id) != NULL


cdef class Scanner:

    def scan(self, StreamReader reader, uint64_t records_max=1 << 62, uint64_t until=1 << 62) -> list:
        """Judge up to `records_max` further records of `reader`, none at or behind position `until`.

        Returns what needs a word: every record that is no trade, and each Lapped (it ends the call), Corrupt, Fault
        and Jump. Ids are kept; see `take_holes`. The GIL is free while it runs.
        """
        cdef list items = []
        cdef uint64_t left = records_max
        cdef uint64_t before = reader.position
        cdef uint64_t expected = 0
        cdef RecordHeader* header = <RecordHeader*>reader.buffer
        cdef Step step = STEP_NOTHING
        cdef const char* reason
        cdef bint jumped = False
        while left and reader.position < until:
            reason = NULL
            with nogil:
                while left and reader.position < until:
                    before = reader.position
                    step = reader.next()
                    if step != STEP_RECORD:
                        break
                    left -= 1
                    expected = self.last_sequence + 1
                    jumped = expected > 1 and header.sequence > expected and not self.rejoined
                    self.jumps += jumped
                    self.rejoined = False
                    reason = self.judge(reader.buffer)
                    # The rest of a block was passed over: it has no checksum, so look at it.
                    if header.position != before and header.position == block_end(before):
                        break
                    if reason != NULL or header.type != TRADE or header.sequence != expected or self.damages:
                        break
            if step == STEP_NOTHING:
                break
            if step == STEP_LAPPED:
                items.append(Lapped(reader.lapped_from, reader.lapped_to))
                self.rejoined = True
                return items
            if step == STEP_CORRUPT:
                items.append(Corrupt(reader.corrupt_position, reader.corrupt_reason.decode()))
                self.damages += 1
                continue
            if header.position != before and header.position == block_end(before):
                self.judge_padding(reader, before, header.position, items)
            if jumped:
                items.append(Jump(header.position, expected, header.sequence - 1, self.damages))
            self.damages = 0
            if reason != NULL:
                items.append(Fault(header.position, header.sequence, reason.decode()))
            if header.type != TRADE:
                items.append(reader.take())
        reader.check()
        return items

    cdef const char* judge(self, const char* record) noexcept nogil:
        """What is wrong with a record whose checksum is right; NULL when nothing is."""
        cdef const RecordHeader* header = <const RecordHeader*>record
        cdef const char* reason = NULL
        cdef uint64_t stride = align_up(header.length)
        cdef uint64_t i
        if self.first_sequence == 0:
            self.first_sequence = header.sequence
            self.first_write_ns = header.write_ns
        elif header.sequence <= self.last_sequence:
            reason = b"sequence does not rise"
        elif header.epoch < self.epoch:
            reason = b"epoch falls"
        elif header.epoch > self.epoch and header.position % BLOCK_BYTES:
            reason = b"epoch begins within a block"
        elif header.write_ns < self.last_write_ns:
            reason = b"write_ns falls"
        for i in range(header.length, stride):
            if record[i]:
                reason = b"alignment byte is not zero"
        if header.codec != CODEC_JSON and header.type <= SNAPSHOT:
            reason = b"codec is unknown"
        elif header.type == TRADE:
            self.trades += 1
            if reason == NULL:
                reason = self.judge_trade(record + RECORD_HEADER_BYTES, record + header.length, header.write_ns)
        self.records += 1
        self.bytes += stride
        self.last_sequence = header.sequence
        self.epoch = header.epoch
        self.last_write_ns = header.write_ns
        return reason

    cdef const char* judge_trade(self, const char* payload, const char* end, int64_t write_ns) noexcept nogil:
        cdef TradeKey trade
        if not read_key(payload, end, &trade):
            return b"trade is not in the form of this format version"
        self.key.assign(trade.asset, trade.asset_bytes)
        if trade.era:
            self.key.append(1, <char>0)
            self.key.append(<const char*>&trade.era, sizeof(trade.era))
        cdef size_t* index = &self.index_of_key[self.key]     # from 1; 0: just inserted
        if index[0] == 0:
            self.keys.push_back(self.key)
            self.baselines.push_back(trade.id)
            self.runs.push_back(vector[Run]())
            index[0] = self.keys.size()
        if not self.add_id(&self.runs[index[0] - 1], trade.id, write_ns):
            self.duplicates += 1
            return b"trade id stands in the stream twice"
        self.counted(index[0] - 1, &trade, payload)
        return NULL

    cdef void counted(self, size_t index, const TradeKey* trade, const char* payload) noexcept nogil:
        """For a tally: a trade that is here for the first time; `index` is that of its instrument and era."""

    cdef bint add_id(self, vector[Run]* runs, int64_t id, int64_t write_ns) noexcept nogil:
        """Put one id into the sorted, disjoint runs of ids seen; False when it was there."""
        cdef Run run
        cdef Py_ssize_t low = 0
        cdef Py_ssize_t high = runs.size()
        cdef Py_ssize_t middle
        cdef Run* below = NULL
        cdef Run* above = NULL
        if high and id == runs.back().last + 1:
            runs.back().last = id
            runs.back().ended_jumps = self.jumps
            return True
        if high and id > runs.back().last:
            low = high
        while low < high:                       # the first run that begins behind id
            middle = (low + high) // 2
            if runs[0][middle].first <= id:
                low = middle + 1
            else:
                high = middle
        if low:
            below = &runs[0][low - 1]
            if id <= below.last:
                return False
        if low < <Py_ssize_t>runs.size():
            above = &runs[0][low]
        if below != NULL and below.last + 1 == id:
            below.last = id
            if above != NULL and above.first == id + 1:
                below.last = above.last
                below.ended_jumps = above.ended_jumps
                runs.erase(runs.begin() + low)
        elif above != NULL and above.first == id + 1:
            above.first = id
        else:
            run.first = id
            run.last = id
            # A late id in the midst of a hole splits it; the upper part is as old as the hole.
            run.began_ns = above.began_ns if above != NULL else write_ns
            run.began_jumps = above.began_jumps if above != NULL else self.jumps
            run.ended_jumps = self.jumps
            runs.insert(runs.begin() + low, run)
        return True

    cdef object judge_padding(self, StreamReader reader, uint64_t begin, uint64_t end, list items):
        """Behind its first word padding is zero."""
        raw = reader.raw(begin, end - begin)
        if raw is not None and raw.count(0, 8) != len(raw) - 8:
            items.append(Fault(begin, self.last_sequence, "padding is not zero"))

    @property
    def instruments(self) -> int:
        """Pairs of instrument and era seen."""
        return self.keys.size()

    def take_holes(self) -> list:
        """Ids missing between the first and the highest seen of each instrument and era.

        What lies below the first id seen is from before the scan: its gap records may be gone already. The ids are
        forgotten, so that the scan can go on behind records that it could not read.
        """
        cdef size_t i, j
        cdef vector[Run]* runs
        cdef bytes key
        result = []
        for i in range(self.keys.size()):
            runs = &self.runs[i]
            if runs.size() < 2:
                continue
            key = self.keys[i]
            raw, _, era = key.partition(b"\0")
            asset = json.loads(b'"' + raw + b'"')
            for j in range(1, runs.size()):
                if runs[0][j].first <= self.baselines[i]:
                    continue
                result.append(Hole(
                    asset, int.from_bytes(era, "little"), runs[0][j - 1].last + 1, runs[0][j].first - 1, runs[0][j].began_ns,
                    range(runs[0][j - 1].ended_jumps, runs[0][j].began_jumps),
                ))
        self.index_of_key.clear()
        self.keys.clear()
        self.baselines.clear()
        self.runs.clear()
        return result
