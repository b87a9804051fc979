"""The trades of frames as received, decoded anew, against those in the journal: instrument by instrument, id by id, field by field."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.errors import NotARing
from appliance.ring.journal import JournalReader
from appliance.ring.journal import segments as journal_segments
from appliance.ring.layout import Flags, RecordType
from appliance.ring.raw_segments import Began, Frame, RawReader, RawSegment, Shed, Unreadable
from appliance.ring.reader import Record
from appliance.tools.redecoder import Redecoded, Redecoder, wire

KEPT = 1_000  # of each list
SHOWN = 20  # for people
MARGIN_NS = 600_000_000_000  # the journal is read from so long before: a frame may be the second copy of what came earlier
LEAD_NS = 10_000_000_000  # and so far ahead of the frames: what found no room in the ring was written later
OURS = {"writer_ts_ms", "recv_ts_ms", "parse_ts_ms", "enqueue_ts_ms", "era", "backfilled"}

Key = tuple[bytes, int]


@dataclass(slots=True)
class Difference:
    """A trade that both have, and not alike: by field (in the journal, in the frame), None where it is not there."""

    asset: str
    id: int
    recv_ts_ns: int
    fields: dict[str, tuple[Any, Any]]


@dataclass(slots=True)
class Lone:
    """A trade that one of them has alone."""

    asset: str
    id: int
    recv_ts_ns: int


@dataclass(slots=True)
class Comparison:
    """One chunk's."""

    exchange: str
    chunk: int
    frames: int = 0
    copies: int = 0
    """Trades of frames that had come before."""
    equal: int = 0
    differing: int = 0
    differences: list[Difference] = field(default_factory=list)
    not_in_journal: int = 0
    not_in_journal_list: list[Lone] = field(default_factory=list)
    not_in_frames: int = 0
    not_in_frames_list: list[Lone] = field(default_factory=list)
    uncovered: int = 0
    """Trades in the journal from times of which the lane says that it does not have all frames."""
    backfilled: int = 0
    """Trades in the journal that came over REST: no frame brought them."""
    unsettled: int = 0
    """Trades of frames that are newer than the journal's end."""
    shed: int = 0
    unreadable_bytes: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        return not (self.differing or self.not_in_journal or self.not_in_frames)

    def as_json(self) -> dict[str, Any]:
        """What `--compare --json` prints: docs/json-output.md."""
        lone = {"not_in_journal_list": self.not_in_journal_list, "not_in_frames_list": self.not_in_frames_list}
        return {
            "exchange": self.exchange,
            "chunk": self.chunk,
            "good": self.good,
            "frames": self.frames,
            "copies": self.copies,
            "equal": self.equal,
            "differing": self.differing,
            "differences": [
                {"asset": one.asset, "id": one.id, "recv_ts_ns": one.recv_ts_ns, "fields": one.fields} for one in self.differences
            ],
            "not_in_journal": self.not_in_journal,
            "not_in_frames": self.not_in_frames,
            **{name: [{"asset": one.asset, "id": one.id, "recv_ts_ns": one.recv_ts_ns} for one in ones] for name, ones in lone.items()},
            "uncovered": self.uncovered,
            "backfilled": self.backfilled,
            "unsettled": self.unsettled,
            "shed": self.shed,
            "unreadable_bytes": self.unreadable_bytes,
            "outcomes": self.outcomes,
        }


class _Journal:
    """The journal's trades, read alongside the frames."""

    def __init__(self, journal_dir: Path, exchange: str, chunk: int, from_ns: int) -> None:
        if not journal_segments(journal_dir, exchange, chunk):
            raise NotARing(f"{journal_dir}: holds no journal of {exchange} chunk {chunk} to compare with")
        self._reader = JournalReader(journal_dir, exchange, chunk)
        self._reader.seek_time(from_ns)
        self._items: Iterator[Any] = iter(self._reader)
        self._held: Record | None = None
        self.newest_ns = 0  # written

    def until(self, recv_ns: int) -> Iterable[Record]:
        """The trades on, up to the first one that was received after `recv_ns`."""
        while True:
            record = self._held or next(self._items, None)
            self._held = None
            if record is None:
                return
            if not isinstance(record, Record):
                continue
            self.newest_ns = max(self.newest_ns, record.write_ns)
            if record.type != RecordType.TRADE:
                continue
            if record.recv_ns > recv_ns and not record.flags & Flags.FLAG_BACKFILLED:
                self._held = record
                return
            yield record

    def close(self) -> None:
        self._reader.close()


class _Pairing:
    """Finds for each trade of a frame its record, and what is left over on either side."""

    def __init__(self, result: Comparison, from_ns: int, redecoder: Redecoder) -> None:
        self._result = result
        self._redecoder = redecoder
        self._from_ns = from_ns
        self._records: dict[Key, tuple[int, bytes]] = {}  # (recv_ns, payload) of records whose frame is still to come
        self._trades: dict[Key, Redecoded] = {}  # whose record is still to come
        self._before: dict[bytes, int] = {}  # highest id in the journal before the first frame
        self._filled: set[Key] = set()

    def record(self, record: Record) -> None:
        payload = record.payload
        key = _key(payload)
        if not self._redecoder.wants(_name(key[0])):
            return
        if record.flags & Flags.FLAG_BACKFILLED:
            self._result.backfilled += record.recv_ns >= self._from_ns
            self._filled.add(key)
        elif record.recv_ns < self._from_ns:
            self._before[key[0]] = max(key[1], self._before.get(key[0], -1))
        elif (trade := self._trades.pop(key, None)) is not None:
            self._judge(trade, payload)
        else:
            self._records[key] = record.recv_ns, payload

    def trade(self, trade: Redecoded) -> None:
        key = _key(trade.payload)
        if (record := self._records.pop(key, None)) is not None:
            self._judge(trade, record[1])
        elif not trade.first or key in self._filled or key[1] <= self._before.get(key[0], -1):
            self._result.copies += 1
        else:
            self._trades[key] = trade

    def finish(self, journal_end_ns: int, last_frame_ns: int, holes: Sequence[tuple[int, int]]) -> None:
        result = self._result
        for trade in self._trades.values():
            if trade.recv_ns > journal_end_ns:
                result.unsettled += 1
                continue
            result.not_in_journal += 1
            if len(result.not_in_journal_list) < KEPT:
                result.not_in_journal_list.append(Lone(trade.asset, trade.id, trade.recv_ns))
        for (asset, number), (recv_ns, _) in self._records.items():
            if recv_ns > last_frame_ns:
                continue
            if any(first <= recv_ns <= last for first, last in holes):
                result.uncovered += 1
                continue
            result.not_in_frames += 1
            if len(result.not_in_frames_list) < KEPT:
                result.not_in_frames_list.append(Lone(_name(asset), number, recv_ns))

    def _judge(self, trade: Redecoded, payload: bytes) -> None:
        if wire(payload) == wire(trade.payload):
            self._result.equal += 1
            return
        self._result.differing += 1
        if len(self._result.differences) < KEPT:
            theirs, ours = (json.loads(text, parse_float=str, parse_int=str) for text in (payload, trade.payload))
            fields = {
                name: (theirs.get(name), ours.get(name))
                for name in dict.fromkeys([*theirs, *ours])
                if name not in OURS and theirs.get(name) != ours.get(name)
            }
            self._result.differences.append(Difference(trade.asset, trade.id, trade.recv_ns, fields))


def compare(chosen: Sequence[RawSegment], journal_dir: Path, from_ns: int, to_ns: int, redecoder: Redecoder) -> Comparison:
    """One chunk's frames against its journal, as far as the frames go. Raises NotARing without a journal."""
    result = Comparison(chosen[0].exchange, chosen[0].chunk)
    journal: _Journal | None = None
    pairing: _Pairing | None = None
    holes: list[tuple[int, int]] = []
    last_ns, open_hole = 0, False
    for item in RawReader(chosen, from_ns, to_ns):
        match item:
            case Frame():
                if journal is None or pairing is None:
                    first_ns = max(from_ns, item.recv_ns)
                    journal = _Journal(journal_dir, result.exchange, result.chunk, first_ns - MARGIN_NS)
                    pairing = _Pairing(result, first_ns, redecoder)
                elif open_hole:
                    holes.append((last_ns, item.recv_ns))
                open_hole = False
                last_ns = max(last_ns, item.recv_ns)
                result.frames += 1
                for record in journal.until(item.recv_ns + LEAD_NS):
                    pairing.record(record)
                for trade in redecoder.trades(item):
                    pairing.trade(trade)
            case Shed():
                result.shed += item.frames
                holes.append((item.first_ns, item.last_ns))
            case Unreadable():
                result.unreadable_bytes += item.bytes
                open_hole = True
            case Began():
                open_hole = True
    if journal is not None and pairing is not None:
        for record in journal.until(last_ns + LEAD_NS):
            pairing.record(record)
        pairing.finish(journal.newest_ns, last_ns, holes)
        journal.close()
    result.outcomes = dict(redecoder.outcomes)
    return result


def report(comparisons: Sequence[Comparison]) -> str:
    """The same for people."""
    lines = []
    for one in comparisons:
        where = f"{one.exchange} {one.chunk}:"
        verdict = "the journal has what the frames say" if one.good else "NOT ALIKE"
        lines.append(f"{where} {verdict}: {one.equal:,} trades equal, {one.copies:,} further copies, in {one.frames:,} frames")
        for count, what in (
            (one.differing, "trades differ"),
            (one.not_in_journal, "trades of frames are not in the journal"),
            (one.not_in_frames, "trades of the journal are in no frame"),
            (one.uncovered, "trades of the journal are from times of which not all frames were kept"),
            (one.backfilled, "trades of the journal came over REST"),
            (one.unsettled, "trades of frames are newer than the journal's end"),
            (one.shed, "frames were shed"),
            (one.unreadable_bytes, "bytes of segments are no whole block"),
        ):
            if count:
                lines.append(f"{where} {count:,} {what}")
        for difference in one.differences[:SHOWN]:
            fields = ", ".join(f"{name}: journal {theirs}, frame {ours}" for name, (theirs, ours) in difference.fields.items())
            lines.append(f"{where} differs: {difference.asset} {difference.id}: {fields}")
        for label, ones in (("not in the journal", one.not_in_journal_list), ("in no frame", one.not_in_frames_list)):
            lines += [f"{where} {label}: {lone.asset} {lone.id}" for lone in ones[:SHOWN]]
    return "\n".join(lines)


def _key(payload: bytes) -> Key:
    """Instrument (as its JSON string) and id of a record."""
    begin = payload.index(b'"asset":') + 8
    asset = payload[begin : payload.index(b',"kind":', begin)]
    name = b'"exchange_trade_seq":'
    at = payload.find(name)
    if at < 0:
        name = b'"exchange_trade_id":'
        at = payload.index(name)
    at += len(name)
    end = at
    while payload[end] in b"-0123456789":
        end += 1
    return asset, int(payload[at:end])


def _name(asset: bytes) -> str:
    return str(json.loads(asset))
