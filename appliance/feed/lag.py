"""How late the trades of one chunk come: from the exchange's clock to their receipt, against what is usual.

Receipt is stamped at the socket's read, so whatever waits before that, at the exchange, on the way or in the kernel, shows as a lag that
grows. The two clocks need not agree: a lag counts by how much it exceeds the least one of late. A step of our own clock changes none.
"""

from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from appliance import clock
from appliance.trade import NS_PER_MS

LATE_STEPS = 5  # in which trades came: so long it must be late before it is told, and in time before that is over
USUAL_STEPS = 60  # of one part of what is usual
USUAL_PARTS = 60  # an hour of steps in which trades came; a silence makes nothing usual
CLOCK_STEP_MS = 1.0  # the system clock is slewed by no more in a second

ConnectionT = TypeVar("ConnectionT", bound=Hashable)


class Usual:
    """The least lag of the last hour."""

    def __init__(self) -> None:
        self._parts: deque[float] = deque(maxlen=USUAL_PARTS)
        self._steps = 0

    def add(self, lag_ms: float) -> None:
        if self._steps % USUAL_STEPS == 0:
            self._parts.append(lag_ms)
        self._parts[-1] = min(self._parts[-1], lag_ms)
        self._steps += 1

    @property
    def ms(self) -> float | None:
        return min(self._parts, default=None)


@dataclass(frozen=True, slots=True)
class Brought:
    """By one connection: the last trade since the step before."""

    leg: int
    trade: tuple[int, int] | None
    """When it was received (UNIX ns), when the exchange says that it was made (ms); None: no further one has come."""


@dataclass(slots=True)
class _Leg:
    lag_ms: float = 0.0
    late: bool = False
    steps: int = 0
    """In a row that say otherwise."""

    def step(self, lag_ms: float, late: bool) -> None:
        self.lag_ms = lag_ms
        self.steps = 0 if late == self.late else self.steps + 1
        if self.steps == LATE_STEPS:
            self.late, self.steps = late, 0


@dataclass(frozen=True, slots=True)
class Change(Generic[ConnectionT]):
    """What a step has found."""

    late: frozenset[int]
    """Legs that began to lag."""
    in_time: frozenset[int]
    """Legs that lagged, and do not any more."""
    behind_ms: Mapping[ConnectionT, float]
    """Connections that have come later than another one of the chunk for so long that they should go; by how much."""


class Lag(Generic[ConnectionT]):
    """Of one chunk, stepped once a second with what its connections brought. Loop thread only."""

    def __init__(self, alarm_ms: int, offset_ns: Callable[[], int] = clock.offset_ns) -> None:
        self.late: frozenset[int] = frozenset()
        """Legs that lag."""
        self.all_late = False
        """All do that live and have brought a trade."""
        self._alarm_ms = alarm_ms
        self._offset_ns = offset_ns
        # Lags are kept by CLOCK_MONOTONIC: what is usual then does not move when the system clock is set.
        self._offset_ms = offset_ns() / NS_PER_MS
        self._usual = Usual()
        self._legs: dict[int, _Leg] = {}
        self._behind: dict[ConnectionT, int] = {}

    @property
    def usual_ms(self) -> int | None:
        """The least lag of the last hour, by the clocks as they are; None before the first trade."""
        return None if self._usual.ms is None else round(self._usual.ms + self._offset_ms)

    @property
    def lag_ms(self) -> int | None:
        """Of the leg that lags least: first copies come no later. None before the first trade."""
        return min(self.by_leg().values(), default=None)

    def by_leg(self) -> dict[int, int]:
        """The lag of each leg that has brought a trade, in ms."""
        return {number: round(leg.lag_ms + self._offset_ms) for number, leg in self._legs.items()}

    def step(self, brought: Mapping[ConnectionT, Brought]) -> Change[ConnectionT]:
        """By all connections that live."""
        offset_ms = self._offset_ns() / NS_PER_MS
        was_set = abs(offset_ms - self._offset_ms) > CLOCK_STEP_MS  # and stamps may be from before it, or from behind it
        self._offset_ms = offset_ms
        lags_ms: dict[ConnectionT, float] = {}
        if not was_set:
            for one, last in brought.items():
                if last.trade is not None:
                    recv_ns, exchange_ms = last.trade
                    lags_ms[one] = recv_ns / NS_PER_MS - offset_ms - exchange_ms
        if lags_ms:
            self._learn(min(lags_ms.values()))
        self._step_legs(lags_ms, brought)
        late = frozenset(number for number, leg in self._legs.items() if leg.late)
        change = Change(late - self.late, self.late - late, self._step_behind(lags_ms, brought))
        self.late = late
        self.all_late = bool(late) and late >= self._legs.keys()
        return change

    def _learn(self, lag_ms: float) -> None:
        """What is late on all connections becomes no habit."""
        if self._usual.ms is None or lag_ms <= self._usual.ms + self._alarm_ms:
            self._usual.add(lag_ms)

    def _step_legs(self, lags_ms: Mapping[ConnectionT, float], brought: Mapping[ConnectionT, Brought]) -> None:
        """A leg whose connection is being replaced has two, and lags no more than the better one."""
        of_leg: dict[int, float] = {}
        for one, lag_ms in lags_ms.items():
            leg = brought[one].leg
            of_leg[leg] = min(lag_ms, of_leg.get(leg, lag_ms))
        for leg, lag_ms in of_leg.items():
            assert self._usual.ms is not None
            self._legs.setdefault(leg, _Leg()).step(lag_ms, lag_ms > self._usual.ms + self._alarm_ms)
        living = {last.leg for last in brought.values()}
        # One that is gone is not in time for that: its next connection has to show it.
        self._legs = {number: leg for number, leg in self._legs.items() if leg.late or number in living}

    def _step_behind(self, lags_ms: Mapping[ConnectionT, float], brought: Mapping[ConnectionT, Brought]) -> dict[ConnectionT, float]:
        self._behind = {one: steps for one, steps in self._behind.items() if one in brought}
        found: dict[ConnectionT, float] = {}
        if len(lags_ms) < 2:
            return found  # nothing to compare with in this step
        best_ms = min(lags_ms.values())
        for one, lag_ms in lags_ms.items():
            self._behind[one] = self._behind.get(one, 0) + 1 if lag_ms - best_ms > self._alarm_ms else 0
            if self._behind[one] >= LATE_STEPS:
                found[one] = lag_ms - best_ms
        return found
