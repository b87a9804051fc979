"""What the records of one chunk that are no trades say: of missing ids, of its legs, of the host's clock."""

from collections import defaultdict
from typing import Any

from appliance.ring.examination import instrument, span
from appliance.ring.intervals import Intervals
from appliance.ring.layout import RecordType
from appliance.ring.reader import Record
from appliance.ring.tally import FOREVER_MS

Run = tuple[int, int]
Key = tuple[str, int]
"""Asset and era."""

_OTHERS_BELOW = 1024  # the news of a listing is not later than so many of its trades


class Events:
    """Taken in the order of the stream. Times are UNIX ms; `from_ms` inclusive and `to_ms` exclusive bound the span of interest."""

    def __init__(self, from_ms: int = 0, to_ms: int = FOREVER_MS) -> None:
        self._from_ms = from_ms
        self._to_ms = to_ms
        self.gaps: defaultdict[Key, list[tuple[int, int, int | None]]] = defaultdict(list)
        """First and last id, and when they were found missing."""
        self.never: defaultdict[Key, list[dict[str, Any]]] = defaultdict(list)
        self.given_up: defaultdict[Key, list[tuple[int, int, str]]] = defaultdict(list)
        self.deaf: list[tuple[int, int | None]] = []
        """Spans without a subscribed leg, since the first start that was read: from and to, None: to the end of the data."""
        self.highest: dict[Key, int] = {}
        """The highest id that the writer had, by the newest snapshot."""
        self.before: dict[Key, int] = {}
        """The highest id that the writer had before the span, by a snapshot."""
        self.snapshot_sequence = 0
        """Where the newest complete snapshot begins; 0: there is none."""
        self.uncollected: dict[int, str] = {}
        """Other chunks, of which was said that they are not collected, and why."""
        self.copies_differ = 0
        self.duplicates: int | None = None
        self.clock_error_ns: int | None = None
        """The worst that was told; None: none was."""
        self._clock_known: list[Run] = []
        self._floor: dict[Key, int] = {}  # the highest id of the first snapshot that has any
        self._new: dict[Key, int] = {}  # their first ids: the first snapshot did not have them, so they began behind it
        self._listed: set[str] = set()
        self._part_1 = 0
        self._legs: set[int] | None = None  # those that are subscribed; None: the stream began in the midst of a life, and does not say
        self._last_ms = 0

    def take(self, record: Record, fields: dict[str, Any]) -> None:
        """Unknown events are passed over. Raises KeyError, TypeError or ValueError for a known one that is not as it must be."""
        if record.type == RecordType.GAP:
            self.gaps[instrument(fields)].append((*span(fields, "id"), _whole(fields.get("detected_ts_ms"))))
        elif record.type == RecordType.SNAPSHOT:
            self._take_snapshot(record, fields)
        elif record.type in (RecordType.STATUS, RecordType.BOUNDARY):
            self._take_status(fields, record.write_ns // 1_000_000)

    def begins_above(self, key: Key, first_held: int | None) -> int | None:
        """Of the ids above this one none was before what was read; None: not known. `first_held` is the lowest that is held."""
        if key in self._new and first_held is None:
            return self._new[key] - 1
        if key in self._floor:
            return self._floor[key]
        if key[0] in self._listed and key[1] == 0 and first_held is not None and first_held <= _OTHERS_BELOW:
            return 0
        return None

    def clock_unknown_ms(self, begin_ms: int, end_ms: int) -> int:
        """For how much of this time no record bounds the error of the host's clock."""
        if begin_ms >= end_ms:
            return 0
        return sum(last - first + 1 for first, last in Intervals(self._clock_known).without(begin_ms, end_ms - 1))

    def _take_snapshot(self, record: Record, fields: dict[str, Any]) -> None:
        for state in fields["instruments"]:
            key = instrument(state)
            for first, last, opened_ns, gap_from, _ in state.get("holes", ()):
                if gap_from >= 0:
                    self.gaps[key].append((int(first), int(last), opened_ns // 1_000_000))
            if (highest := _whole(state.get("highest"))) is None:
                continue
            if self.snapshot_sequence and key not in self.highest and key[0] not in self._listed:
                self._new[key] = int(state["baseline"])
            self._floor.setdefault(key, highest)
            self.highest[key] = max(highest, self.highest.get(key, highest))
            if state.get("highest_ts_ms", FOREVER_MS) < self._from_ms:
                self.before[key] = self.highest[key]
        part, parts = fields.get("part", 1), fields.get("parts", 1)
        if part == 1:
            self._part_1 = record.sequence
        if part == parts and self._part_1:
            self.snapshot_sequence = self._part_1

    def _take_status(self, fields: dict[str, Any], now_ms: int) -> None:
        event = fields["event"]
        if event == "no_such_trade":
            first, last = span(fields, "id")
            if not fields["below"] < first <= last < fields["above"] or not isinstance(fields["asked_ts_ms"], int):
                raise ValueError(f"ids {first} to {last} are not between {fields['below']} and {fields['above']}")
            self.never[instrument(fields)].append(fields)
        elif event == "not_collected":
            self.given_up[instrument(fields)].append((*span(fields, "id"), str(fields["reason"])))
        elif event == "chunk_not_collected":
            self.uncollected[int(fields["not_collected"])] = str(fields["reason"])
        elif event == "listed":
            self._listed.add(str(fields["asset"]))
        elif event == "copies_differ":
            self.copies_differ += 1
        elif event == "minute":
            self._take_minute(fields)
        elif event in ("start", "stop"):
            self._hear(set(), now_ms)
        elif self._legs is not None and event == "subscribed":
            self._hear({*self._legs, int(fields["leg"])}, now_ms)
        elif self._legs is not None and event in ("lost", "closed"):
            self._hear(self._legs - {int(fields["leg"])}, now_ms)
        self._last_ms = now_ms

    def _take_minute(self, fields: dict[str, Any]) -> None:
        begin_ms, end_ms = int(fields["from_ts_ms"]), int(fields["to_ts_ms"])
        if end_ms <= self._from_ms or begin_ms >= self._to_ms:
            return
        self.duplicates = (self.duplicates or 0) + int(fields["counters"].get("duplicates", 0))
        error_ns = _whole(fields["clock_error_ns"])
        if error_ns is None:
            return
        if error_ns < 0:
            raise ValueError(f"clock_error_ns is {error_ns}")
        self.clock_error_ns = max(self.clock_error_ns or 0, error_ns)
        if begin_ms < end_ms:
            self._clock_known.append((begin_ms, end_ms - 1))

    def _hear(self, legs: set[int], now_ms: int) -> None:
        if legs and self.deaf and self.deaf[-1][1] is None:
            self.deaf[-1] = (self.deaf[-1][0], now_ms)
        elif not legs and (self._legs or not self.deaf):
            # One that was killed did not say when: at the latest event it still lived.
            self.deaf.append((self._last_ms if self._legs else now_ms, None))
        self._legs = legs


def _whole(value: object) -> int | None:
    if value is not None and not isinstance(value, int):
        raise TypeError(f"{value!r} instead of a whole number")
    return value
