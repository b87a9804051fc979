"""What one chunk holds of each instrument, and how each id that it lacks is accounted for."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from appliance.ring.examination import GRACE_NS, Advance, Examination, Ids, Verdict
from appliance.ring.intervals import Intervals
from appliance.ring.layout import RecordType
from appliance.ring.reader import Record
from appliance.ring.tally import FOREVER_MS, Held, Tally

Run = tuple[int, int]
Key = tuple[str, int]
"""Asset and era."""

# Exchange clocks and ours differ, and a trade is written after it happened: where reading begins before the span of time.
SLACK_NS = 600_000_000_000


@dataclass(slots=True, frozen=True)
class Lacking:
    """Ids of one instrument that no record brought, both ends included, and what is known of them."""

    from_id: int
    to_id: int
    state: str
    """never_existed, open, not_collected, in_a_hole, unsettled or unrecorded; docs/coverage.md says what each is."""
    reason: str | None = None
    since_ts_ms: int | None = None
    """When it was found missing."""
    below: int | None = None
    above: int | None = None
    asked_ts_ms: int | None = None
    """Evidence that no trade has these ids: the exchange showed `below` and `above`, and at this time twice none between."""

    @property
    def ids(self) -> int:
        return self.to_id - self.from_id + 1

    @property
    def is_missing(self) -> bool:
        return self.state not in ("never_existed", "unsettled")


@dataclass(slots=True)
class Instrument:
    """One instrument and era, as the certificate has it."""

    asset: str
    era: int
    trades: int
    held: list[Run]
    backfilled: list[Run]
    legs: list[int]
    lacking: list[Lacking]
    digest: str | None

    @property
    def missing_ids(self) -> int:
        return sum(one.ids for one in self.lacking if one.is_missing)


@dataclass(slots=True)
class Events:
    """What the records that are no trades say."""

    gaps: defaultdict[Key, list[tuple[int, int, int | None]]] = field(default_factory=lambda: defaultdict(list))
    never: defaultdict[Key, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    given_up: defaultdict[Key, list[tuple[int, int, str]]] = field(default_factory=lambda: defaultdict(list))
    deaf: list[tuple[int, int | None]] = field(default_factory=list)
    """Spans without a subscribed leg, since the first start that was read: from and to (UNIX ms), None: to the end of the data."""
    clock_error_ns: int | None = None
    """The worst that was told; None: none was."""
    duplicates: int | None = None
    _legs: set[int] | None = None  # those that are subscribed; None: the stream began in the midst of a life, and does not say
    _last_ms: int = 0

    def take(self, record: Record) -> None:
        """A record that is no trade, in the order of the stream. Unknown ones are passed over; a spoilt payload is verify's to tell."""
        try:
            fields = json.loads(record.payload)
            if record.type == RecordType.GAP:
                self.gaps[_key(fields)].append((fields["from_id"], fields["to_id"], fields.get("detected_ts_ms")))
            elif record.type == RecordType.SNAPSHOT:
                for state in fields["instruments"]:
                    for first, last, opened_ns, gap_from, _ in state.get("holes", ()):
                        if gap_from >= 0:
                            self.gaps[_key(state)].append((first, last, opened_ns // 1_000_000))
            elif record.type in (RecordType.STATUS, RecordType.BOUNDARY):
                self._take_status(fields, record.write_ns // 1_000_000)
        except (ValueError, KeyError, TypeError):
            return

    def _take_status(self, fields: dict[str, Any], now_ms: int) -> None:
        event = fields["event"]
        if event == "no_such_trade":
            self.never[_key(fields)].append(fields)
        elif event == "not_collected" and "from_id" in fields:
            self.given_up[_key(fields)].append((fields["from_id"], fields["to_id"], str(fields["reason"])))
        elif event == "minute":
            error_ns, duplicates = fields.get("clock_error_ns"), fields.get("duplicates")
            if error_ns is not None:
                self.clock_error_ns = max(self.clock_error_ns or 0, int(error_ns))
            if duplicates is not None:
                self.duplicates = (self.duplicates or 0) + int(duplicates)
        elif event in ("start", "stop"):
            self._hear(set(), now_ms)
        elif self._legs is not None and event == "subscribed":
            self._hear({*self._legs, int(fields["leg"])}, now_ms)
        elif self._legs is not None and event in ("lost", "closed"):
            self._hear(self._legs - {int(fields["leg"])}, now_ms)
        self._last_ms = now_ms

    def _hear(self, legs: set[int], now_ms: int) -> None:
        if legs and self.deaf and self.deaf[-1][1] is None:
            self.deaf[-1] = (self.deaf[-1][0], now_ms)
        elif not legs and (self._legs or not self.deaf):
            # One that was killed did not say when: at the latest event it still lived.
            self.deaf.append((self._last_ms if self._legs else now_ms, None))
        self._legs = legs


def _key(fields: dict[str, Any]) -> Key:
    return str(fields["asset"]), int(fields.get("era", 0))


@dataclass(slots=True)
class Survey:
    """One chunk, read and judged. Times are UNIX ms; `from_ts_ms` inclusive, `to_ts_ms` exclusive, by the exchange's clock."""

    exchange: str
    chunk: int
    first_position: int
    end_position: int
    first_sequence: int
    last_sequence: int
    last_write_ns: int
    instruments: list[Instrument]
    deaf: list[tuple[int, int | None]]
    holes: list[Run]
    """Sequences that were committed and that the journal does not have."""
    clock_error_ns: int | None
    duplicates: int | None
    faults: int
    fault: str | None
    """The first of them. With one, nothing is certain: `mdc verify` tells all."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def survey(examination: Examination, advance: Advance, from_ms: int = 0, to_ms: int = FOREVER_MS, *, digests: bool = True) -> Survey:
    """Read a chunk, as far as `examination` is told to."""
    tally, events = Tally(from_ms, to_ms, digests), Events()
    examination.scanner = tally
    examination.tell = events.take
    verdict = examination.verdict(advance)
    fault = verdict.fault_list[0] if verdict.fault_list else None
    return Survey(
        verdict.exchange,
        verdict.chunk,
        examination.first_position,
        examination.end_position,
        verdict.first_sequence,
        verdict.last_sequence,
        tally.last_write_ns,
        _instruments(tally.taken, events, verdict, digests, whole=from_ms == 0 and to_ms == FOREVER_MS),
        [(begin, end) for begin, end in events.deaf if begin < to_ms and (end is None or end > from_ms)],
        verdict.missing_sequences,
        events.clock_error_ns,
        events.duplicates,
        verdict.faults,
        None if fault is None else f"at position {fault.position}: {fault.reason}",
    )


def _instruments(taken: Iterable[Held], events: Events, verdict: Verdict, digests: bool, whole: bool) -> list[Instrument]:
    parts: defaultdict[Key, list[Held]] = defaultdict(list)
    for one in taken:
        parts[one.asset, one.era].append(one)
    unsettled, in_holes = _by_key(verdict.unsettled_holes), _by_key(verdict.lost_holes)
    keys = {*parts, *(events.gaps if whole else ())}
    found = []
    for key in sorted(keys):
        held = parts[key]
        inside = [run for part in held for run in part.inside]
        lacking = _lacking(key, held, inside, events, Intervals(unsettled[key]), Intervals(in_holes[key]), whole)
        if not inside and not lacking:
            continue
        digest = sum(part.digest for part in held) % (1 << 256)
        spans = Intervals(inside)
        found.append(
            Instrument(
                key[0],
                key[1],
                sum(part.trades for part in held),
                list(spans),
                [run for first, last in _runs(held, "backfilled") for run in spans.within(first, last)],
                [sum(counts) for counts in zip(*(part.legs for part in held), strict=True)],
                lacking,
                f"{digest:064x}" if digests else None,
            )
        )
    return found


def _runs(held: Sequence[Held], name: str) -> list[Run]:
    return list(Intervals(run for part in held for run in getattr(part, name)))


def _by_key(holes: Iterable[Ids]) -> defaultdict[Key, list[Run]]:
    found: defaultdict[Key, list[Run]] = defaultdict(list)
    for ids in holes:
        found[ids.asset, ids.era].append((ids.from_id, ids.to_id))
    return found


def _lacking(
    key: Key, held: Sequence[Held], inside: Sequence[Run], events: Events, unsettled: Intervals, in_holes: Intervals, whole: bool
) -> list[Lacking]:
    """Every id between those held, and every id of a gap record, that no trade brought; of the span of time and at its edges."""
    runs = _runs(held, "runs")
    gaps = events.gaps[key]
    baseline = min((part.baseline for part in held), default=0)
    between = [(low[1] + 1, high[0] - 1) for low, high in pairwise(runs) if high[0] > baseline]
    wanted = Intervals([*between, *((first, last) for first, last, _ in gaps)])
    have = Intervals(runs)
    begin, end = (0, 1 << 62) if whole else _edges(runs, inside)
    absent = [run for first, last in wanted.within(begin, end) for run in have.without(first, last)]
    return [one for first, last in absent for one in _settled(key, first, last, events, unsettled, in_holes)]


def _edges(runs: Sequence[Run], inside: Sequence[Run]) -> Run:
    """First and last id that concern a span of time: those of its trades, and what is missing just before and behind them."""
    if not inside:
        return 1, 0
    first, last = min(inside)[0], max(end for _, end in inside)
    below = [end for begin, end in runs if begin < first]
    above = [begin for begin, end in runs if end > last]
    return (min(max(below) + 1, first) if below else 0, max(min(above) - 1, last) if above else 1 << 62)


def _settled(key: Key, first: int, last: int, events: Events, unsettled: Intervals, in_holes: Intervals) -> Iterable[Lacking]:
    """Absent ids, parted by what the records say of them; the strongest word first."""
    rest = [(first, last)]
    for said in events.never[key]:
        rest, taken = _part(rest, said["from_id"], said["to_id"])
        for run in taken:
            yield Lacking(*run, "never_existed", below=said["below"], above=said["above"], asked_ts_ms=said["asked_ts_ms"])
    for low, high, reason in events.given_up[key]:
        rest, taken = _part(rest, low, high)
        for run in taken:
            yield Lacking(*run, "not_collected", reason, _since(events, key, run))
    for low, high, since_ms in events.gaps[key]:
        rest, taken = _part(rest, low, high)
        for run in taken:
            yield Lacking(*run, "open", since_ts_ms=since_ms)
    for low, high in rest:
        for run in in_holes.within(low, high):
            yield Lacking(*run, "in_a_hole", "their records may be among those that the journal lacks")
        for begin, end in in_holes.without(low, high):
            for run in unsettled.within(begin, end):
                yield Lacking(*run, "unsettled", f"missing for less than {GRACE_NS // 1_000_000_000} s")
            for run in unsettled.without(begin, end):
                yield Lacking(*run, "unrecorded", "no record tells of them; mdc verify says more")


def _since(events: Events, key: Key, run: Run) -> int | None:
    times = [since_ms for low, high, since_ms in events.gaps[key] if low <= run[0] <= high and since_ms is not None]
    return min(times, default=None)


def _part(runs: Sequence[Run], low: int, high: int) -> tuple[list[Run], list[Run]]:
    """What of `runs` lies outside and inside of `low` to `high`."""
    span = Intervals([(low, high)])
    return [run for one in runs for run in span.without(*one)], [run for one in runs for run in span.within(*one)]
