"""A scan that also counts: which ids of each instrument are held, how they came, and a digest of what the exchange said."""
import json
from dataclasses import dataclass
from hashlib import sha256

from libc.stdint cimport int64_t, uint64_t
from libcpp.string cimport string
from libcpp.vector cimport vector

from appliance.ring.layout cimport FLAG_BACKFILLED, FLAG_LEG_MASK, RECORD_HEADER_BYTES, RecordHeader
from appliance.ring.reader cimport StreamReader
from appliance.ring.scan cimport Run, Scanner, TradeKey

FOREVER_MS = 1 << 60


@dataclass(slots=True, frozen=True)
class Held:
    """One instrument's ids in one era. Runs of ids have both ends included.

    `runs`, `backfilled`: of the whole scan; `baseline`: the first id that it met; `began_ns`: when the first run began to be
    written. `before`, `behind`: the highest id traded before the span of time, the lowest traded behind it. `inside`: ids
    whose trade happened in the span of time, and so `trades`, `legs` (trades first brought by each leg) and `digest`: the
    sum modulo 2**256 of the SHA-256 (as big-endian number) of each trade's JSON text from its first byte to the end of
    exchange_ts_ms. The order of the trades does not matter to it.
    """

    asset: str
    era: int
    runs: list[tuple[int, int]]
    backfilled: list[tuple[int, int]]
    inside: list[tuple[int, int]]
    baseline: int
    began_ns: int
    before: int | None
    behind: int | None
    trades: int
    legs: list[int]
    digest: int


cdef list pairs(vector[Run]* runs):
    cdef size_t i
    return [(runs[0][i].first, runs[0][i].last) for i in range(runs.size())]


cdef class Tally(Scanner):

    def __init__(self, int64_t from_ms=0, int64_t to_ms=FOREVER_MS, bint digests=True) -> None:
        """Trades of from_ms <= exchange_ts_ms < to_ms (UNIX ms) are of the span."""
        self.from_ms = from_ms
        self.to_ms = to_ms
        self.digests = digests
        self.sums = {}
        self.taken = []

    def scan(self, StreamReader reader, uint64_t records_max=1 << 62, uint64_t until=1 << 62) -> list:
        items = Scanner.scan(self, reader, records_max, until)
        self.take_sums()
        return items

    cdef void counted(self, size_t index, const TradeKey* trade, const char* payload) noexcept nogil:
        cdef const RecordHeader* header = <const RecordHeader*>(payload - RECORD_HEADER_BYTES)
        cdef Count* count
        cdef string said
        while self.counts.size() <= index:
            self.counts.push_back(Count(0, [0, 0, 0, 0, 0, 0, 0, 0], -1, -1))
            self.backfilled.push_back(vector[Run]())
            self.inside.push_back(vector[Run]())
        if header.flags & FLAG_BACKFILLED:
            self.add_id(&self.backfilled[index], trade.id, 0)
        count = &self.counts[index]
        if trade.exchange_ts_ms < self.from_ms:
            count.before = max(count.before, trade.id)
            return
        if trade.exchange_ts_ms >= self.to_ms:
            count.behind = trade.id if count.behind < 0 else min(count.behind, trade.id)
            return
        self.add_id(&self.inside[index], trade.id, 0)
        count.trades += 1
        if not header.flags & FLAG_BACKFILLED:
            count.legs[header.flags & FLAG_LEG_MASK] += 1
        if self.digests:
            said.assign(payload, trade.said_end - payload)
            self.said.push_back(said)
            self.said_by.push_back(index)

    cdef object take_sums(self):
        """Put the digests of what was read into the sums, so that the texts need not be kept."""
        cdef size_t i
        cdef bytes text
        cdef dict sums = self.sums
        for i in range(self.said.size()):
            text = self.said[i]
            sums[self.said_by[i]] = sums.get(self.said_by[i], 0) + int.from_bytes(sha256(text).digest(), "big")
        self.said.clear()
        self.said_by.clear()

    def take_holes(self) -> list:
        """As of every scan; what was counted until now goes to `taken`, as Held, for ids are forgotten here."""
        cdef size_t i
        cdef bytes key
        self.take_sums()
        for i in range(self.keys.size()):
            key = self.keys[i]
            raw, _, era = key.partition(b"\0")
            self.taken.append(Held(
                json.loads(b'"' + raw + b'"'), int.from_bytes(era, "little"),
                pairs(&self.runs[i]), pairs(&self.backfilled[i]), pairs(&self.inside[i]), self.baselines[i],
                self.runs[i][0].began_ns,
                self.counts[i].before if self.counts[i].before >= 0 else None,
                self.counts[i].behind if self.counts[i].behind >= 0 else None,
                self.counts[i].trades, [count for count in self.counts[i].legs], self.sums.get(i, 0) % (1 << 256),
            ))
        self.counts.clear()
        self.backfilled.clear()
        self.inside.clear()
        self.sums.clear()
        return Scanner.take_holes(self)
