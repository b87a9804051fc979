from enum import IntEnum
from typing import NamedTuple, Self

from typing_extensions import disjoint_base

from appliance.exchanges.instruments import Instruments

class Verdict(IntEnum):
    FIRST = 0
    LATE = 1
    DUPLICATE = 2
    CONFLICT = 3
    BEFORE_BASELINE = 4

class EventKind(IntEnum):
    HOLE_DUE = 0
    HOLE_CLOSED = 1
    BASELINE = 2
    JUMP = 3
    ERA = 4
    ERA_REFUTED = 5
    COPIES_DIFFER = 6
    MERGED = 7

class Event(NamedTuple):
    kind: EventKind
    instrument: int
    era: int
    from_id: int
    to_id: int
    detected_ns: int

@disjoint_base
class Window:
    @property
    def instruments(self) -> Instruments: ...
    @property
    def missing_ids(self) -> int: ...
    @property
    def gaps_open(self) -> int: ...
    @property
    def merged(self) -> int: ...
    @property
    def events_lost(self) -> int: ...
    @property
    def events_waiting(self) -> int: ...
    def __new__(cls, instruments: Instruments) -> Self: ...
    def listed(self, instrument: int, now_ns: int = 0) -> None: ...
    def end(self, instrument: int) -> bool: ...
    def is_over(self, instrument: int) -> bool: ...
    def grow(self) -> None: ...
    def due(self, now_ns: int, grace_ns: int) -> int: ...
    def take_events(self, limit: int = 4096) -> list[Event]: ...
    def offer(
        self,
        instrument: int,
        trade_id: int,
        *,
        px: bytes = b"1",
        sz: bytes = b"1",
        exchange_ts_ms: int = 0,
        now_ns: int = 0,
    ) -> tuple[Verdict, int]: ...
    def holes(self, instrument: int) -> list[tuple[int, int, bool]]: ...
    def snapshot(self, instrument: int) -> bytes: ...
    def restore(self, snapshot: bytes) -> int: ...
    def replay(self, instrument: int, trade_id: int, era: int = 0, *, exchange_ts_ms: int = 0, recv_ns: int = 0) -> None: ...
    def replay_gap(self, instrument: int, from_id: int, to_id: int, era: int = 0) -> None: ...
    def recorded(self, kind: int, instrument: int, era: int, from_id: int, to_id: int) -> None: ...
    def finish_replay(self, from_the_begin: bool = True) -> int: ...
