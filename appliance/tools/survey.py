"""What one chunk holds of each instrument, and how each id that it lacks is accounted for."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from appliance.ring.examination import GRACE_NS, Advance, Examination, Ids, Verdict
from appliance.ring.intervals import Intervals
from appliance.ring.tally import FOREVER_MS, Held, Tally
from appliance.tools.events import Events, Key, Run

# Exchange clocks and ours differ, and a trade is written after it happened: where reading begins before the span of time.
SLACK_NS = 600_000_000_000
# Each chunk writes a record a minute at least: one that ends earlier than others by more than this has lost its end.
RHYTHM_MS = 120_000


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
    """The worst that status records of the span tell; None: none tells any."""
    clock_unknown_ms: int
    """For how much of the span, as far as it was recorded, no record tells it."""
    duplicates: int | None
    faults: int
    fault: str | None
    """The first of them. With one, nothing is certain: `mdc verify` tells all."""
    open_end: bool
    """The newest segment was copied while it was being written."""
    overtaken: int
    """Records that the writer overwrote in the ring before they could be read, and that no journal has."""
    unjudged_holes: list[Run]
    """Those of `holes` behind which no snapshot stands: which trades are lost with them is not known."""
    copies_differ: int
    """Trades of which two connections brought different copies; the first is held."""
    uncollected: dict[int, str]
    """Other chunks that were not collected when this one was, and why."""
    recorded_from_ts_ms: int | None
    recorded_to_ts_ms: int | None
    """By this host's clock: when the first record was written, and until when all that a leg brought is held."""
    written_to_ts_ms: int | None
    """Until when there would be records, if there was anything to write."""
    not_recorded: list[Run] = field(default_factory=list)
    """Parts of the span of which nothing is known: before the first record, or after the last one or the last leg."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def survey(examination: Examination, advance: Advance, from_ms: int = 0, to_ms: int = FOREVER_MS, *, digests: bool = True) -> Survey:
    """Read a chunk, as far as `examination` is told to."""
    tally, events = Tally(from_ms, to_ms, digests), Events(from_ms, to_ms)
    examination.scanner = tally
    examination.tell = events.take
    verdict = examination.verdict(advance)
    fault = verdict.fault_list[0] if verdict.fault_list else None
    began_ms, written_ms = (ns // 1_000_000 or None for ns in (tally.first_write_ns, examination.known_until_ns))
    heard_ms = written_ms
    if written_ms is not None and events.deaf and events.deaf[-1][1] is None:
        heard_ms = min(events.deaf[-1][0], written_ms)
    found = Survey(
        verdict.exchange,
        verdict.chunk,
        examination.first_position,
        examination.end_position,
        verdict.first_sequence,
        verdict.last_sequence,
        tally.last_write_ns,
        _instruments(tally.taken, events, verdict, examination.settled_ns, digests, whole=from_ms == 0 and to_ms == FOREVER_MS),
        [(begin, end) for begin, end in events.deaf if begin < to_ms and (end is None or end > from_ms)],
        verdict.missing_sequences,
        events.clock_error_ns,
        events.clock_unknown_ms(max(from_ms, began_ms or 0), min(to_ms, written_ms or 0)),
        events.duplicates,
        verdict.faults,
        None if fault is None else f"at position {fault.position}: {fault.reason}",
        verdict.open_end,
        examination.overtaken,
        [(first, last) for first, last in verdict.missing_sequences if last > events.snapshot_sequence],
        events.copies_differ,
        events.uncollected,
        began_ms,
        heard_ms,
        written_ms,
    )
    found.not_recorded = _not_recorded(found, from_ms, to_ms)
    return found


def compare_ends(surveys: Sequence[Survey]) -> None:
    """Of a tape without an end by the clock: put down what one chunk lacks at its end, and the others have."""
    newest_ms = max((survey.written_to_ts_ms or 0 for survey in surveys), default=0)
    for survey in surveys:
        if survey.recorded_to_ts_ms is not None and survey.recorded_to_ts_ms < newest_ms - RHYTHM_MS:
            survey.not_recorded.append((survey.recorded_to_ts_ms, newest_ms))


def _not_recorded(survey: Survey, from_ms: int, to_ms: int) -> list[Run]:
    begin_ms, end_ms = survey.recorded_from_ts_ms, survey.recorded_to_ts_ms
    if begin_ms is None or end_ms is None:
        return [(from_ms, to_ms)] if from_ms and to_ms < FOREVER_MS else []
    before = [(from_ms, min(begin_ms, to_ms))] if 0 < from_ms < begin_ms else []
    behind = [(max(from_ms, end_ms), to_ms)] if end_ms < to_ms < FOREVER_MS else []
    beyond = [(end_ms, from_ms)] if to_ms == FOREVER_MS and end_ms < from_ms else []
    return before + behind + beyond


def _instruments(taken: Iterable[Held], events: Events, verdict: Verdict, settled_ns: int, digests: bool, whole: bool) -> list[Instrument]:
    parts: defaultdict[Key, list[Held]] = defaultdict(list)
    for one in taken:
        parts[one.asset, one.era].append(one)
    unsettled, in_holes = _by_key(verdict.unsettled_holes), _by_key(verdict.lost_holes)
    keys = {*parts, *events.gaps, *events.highest}
    found = []
    for key in sorted(keys):
        held = parts[key]
        inside = [run for part in held for run in part.inside]
        for first, last in _at_the_ends(key, held, events):
            if verdict.missing_sequences:
                in_holes[key].append((first, last))
            elif any(part.began_ns > settled_ns and part.runs[0][0] > last for part in held):
                unsettled[key].append((first, last))
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


def _at_the_ends(key: Key, held: Sequence[Held], events: Events) -> list[Run]:
    """Ids below and above those that are held, which by snapshots are of the time that was read."""
    runs = _runs(held, "runs")
    floor = events.begins_above(key, runs[0][0] if runs else None)
    highest = events.highest.get(key)
    found = []
    if runs and floor is not None and floor < runs[0][0] - 1:
        found.append((floor + 1, runs[0][0] - 1))
    last = runs[-1][1] if runs else floor
    if highest is not None and last is not None and last < highest:
        found.append((last + 1, highest))
    return found


def _lacking(
    key: Key, held: Sequence[Held], inside: Sequence[Run], events: Events, unsettled: Intervals, in_holes: Intervals, whole: bool
) -> list[Lacking]:
    """Every id between those held, every id of a gap record and every one that the writer had, that no trade brought; of the span."""
    runs = _runs(held, "runs")
    gaps = events.gaps[key]
    baseline = min((part.baseline for part in held), default=0)
    between = [(low[1] + 1, high[0] - 1) for low, high in pairwise(runs) if high[0] > baseline]
    wanted = Intervals([*between, *_at_the_ends(key, held, events), *((first, last) for first, last, _ in gaps)])
    have = Intervals(runs)
    begin, end = (0, 1 << 62) if whole else _edges(held, runs, inside, events.before.get(key, -1))
    if begin > end:
        return []
    absent = [run for first, last in wanted.within(begin, end) for run in have.without(first, last)]
    return [one for first, last in absent for one in _settled(key, first, last, events, unsettled, in_holes)]


def _edges(held: Sequence[Held], runs: Sequence[Run], inside: Sequence[Run], known_before: int) -> Run:
    """First and last id that may have been traded in a span of time: those between what was traded before it and behind it."""
    if inside:
        first, last = min(inside)[0], max(end for _, end in inside)
        below = max([known_before, *(end for begin, end in runs if begin < first)])
        above = [begin for begin, end in runs if end > last]
        return min(below + 1, first), max(min(above) - 1, last) if above else 1 << 62
    before = max([known_before, *(part.before for part in held if part.before is not None)])
    behind = min((part.behind for part in held if part.behind is not None), default=1 << 62)
    return before + 1, behind - 1


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
