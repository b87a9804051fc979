"""The synthetic feed: a tape's trades, at a rate or as fast as they are taken, to every connection that subscribed."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from appliance.sim.delivery import split
from appliance.sim.dialect import Frames, PrintedTrade, Recipient
from appliance.sim.faults import Duplicates, Faults, Hole
from appliance.sim.tape import Tape

BATCH_TRADES = 1_024
"""At most so many in a write: about 200 kB, and a turn of the loop below a millisecond."""

LATE_TRADES = 16_384
"""At most so many in one batch when the open loop has fallen behind."""

TICK_S = 0.001
LATE_S = 0.01


@dataclass(slots=True)
class _Audience:
    """Connections that get the same bytes."""

    key: Hashable
    frames: Frames | None = None
    """Made when it is first needed."""
    connections: list[Recipient] = field(default_factory=list)
    recent: deque[bytes] = field(default_factory=deque)


@dataclass(slots=True)
class _PlannedHole:
    hole: Hole
    at: int
    """Trades printed before it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What happens to the market after so many trades."""

    at: int
    happen: Callable[[], None]


class SyntheticFeed:
    """Prints trades once `start_after` connections are subscribed; stops after `count`, and then stays.

    With a rate it is an open loop: nobody's slowness delays anybody. Without one it waits for the slowest connection.
    """

    def __init__(
        self,
        tape: Tape,
        names: Sequence[str],
        *,
        rate: float | None,
        count: int | None,
        start_after: int,
        faults: Faults,
        plans: Sequence[Plan] = (),
    ) -> None:
        self.tape = tape
        self.sent = 0
        """Distinct trades that went to at least one connection."""
        self._index = {name: i for i, name in enumerate(names)}
        self._rate = rate
        self._count = count
        self._start_after = start_after
        self._audiences: dict[Hashable, _Audience] = {}
        self._of: dict[Recipient, Hashable] = {}
        self._wake = asyncio.Event()
        self._frames: Callable[[Hashable], Frames]
        self._duplicates = faults.one(Duplicates)
        self._holes = [_PlannedHole(hole, hole.after) for hole in faults.all(Hole)]
        self._plans = sorted(plans, key=lambda plan: plan.at)
        self._lost: dict[int, list[tuple[int, int]]] = {}

    # What connections tell

    def changed(self, connection: Recipient) -> None:
        wanted = connection.audience
        if wanted == self._of.get(connection):
            return
        self.left(connection)
        if wanted is None:
            return
        audience = self._audiences.get(wanted)
        if audience is None:
            audience = self._audiences[wanted] = _Audience(wanted)
        self._of[connection] = wanted
        if self._duplicates and audience.recent:
            repeated = list(split(b"".join(audience.recent)))[-self._duplicates.frames :]
            connection.deliver(b"".join(repeated), len(repeated))
        audience.connections.append(connection)
        self._wake.set()

    def left(self, connection: Recipient) -> None:
        if (key := self._of.pop(connection, None)) is not None:
            audience = self._audiences[key]
            audience.connections.remove(connection)
            if not audience.connections and not self._duplicates:
                del self._audiences[key]
                if not self._audiences and audience.frames is not None:
                    self.sent -= audience.frames.held  # nobody will get it
        self._wake.set()

    def resumed(self) -> None:
        self._wake.set()

    # What REST asks

    def rows(self, symbol: str, from_id: int | None, limit: int, until_us: int) -> list[PrintedTrade]:
        index = self._index.get(symbol)
        if index is None:
            return []
        tape = self.tape
        oldest, end = tape.oldest_id(index), tape.next_id(index)
        while end > oldest and tape.trade_us(index, end - 1) > until_us:
            end -= 1
        lost = self._lost.get(index, [])
        wanted = range(end - 1, oldest - 1, -1) if from_id is None else range(max(oldest, from_id), end)
        rows: list[PrintedTrade] = []
        for trade_id in wanted:
            if len(rows) == limit:
                break
            if not any(first <= trade_id <= last for first, last in lost):
                rows.append(self._row(index, trade_id))
        return rows if from_id is not None else rows[::-1]

    def _row(self, index: int, trade_id: int) -> PrintedTrade:
        px_e8, sz_e8, buyer_is_maker = self.tape.trade(index, trade_id)
        return PrintedTrade(trade_id, e8(px_e8), e8(sz_e8), self.tape.trade_us(index, trade_id), buyer_is_maker)

    # The loop

    async def run(self, frames: Callable[[Hashable], Frames]) -> None:
        self._frames = frames
        while len(self._of) < self._start_after:
            await self._waken()
        if self._rate is None:
            await self._run_closed_loop()
        else:
            await self._run_open_loop(self._rate)
        while any(audience.frames and audience.frames.held for audience in self._audiences.values()):
            self._deliver_late()
            await asyncio.sleep(LATE_S)

    def stats(self) -> Mapping[str, object]:
        return {
            "trades_generated": self.tape.printed,
            "trades_sent": self.sent - min((a.frames.held for a in self._audiences.values() if a.frames), default=0),
            "subscribed": len(self._of),
            "finished": self._left() == 0,
        }

    async def _run_closed_loop(self) -> None:
        while (left := self._left()) != 0:
            connections = [connection for audience in self._audiences.values() for connection in audience.connections]
            if not connections or not all(connection.writable for connection in connections):
                await self._waken()
                continue
            self._print(min(BATCH_TRADES, left or BATCH_TRADES))
            await asyncio.sleep(0)

    async def _run_open_loop(self, rate: float) -> None:
        began_s = time.monotonic()
        begun = self.tape.printed
        while (left := self._left()) != 0:
            late = int((time.monotonic() - began_s) * rate) - (self.tape.printed - begun)
            if late <= 0:
                self._deliver_late()
                await asyncio.sleep(max(TICK_S, 1 / rate))
                continue
            self._print(min(late, LATE_TRADES, left or LATE_TRADES))
            await asyncio.sleep(0 if late > LATE_TRADES else TICK_S)

    def _left(self) -> int | None:
        return None if self._count is None else max(0, self._count - self.tape.printed)

    def _print(self, count: int) -> None:
        count = self._up_to_next_event(count)
        self.tape.print_trades(count, time.time_ns() // 1_000)
        now_s = time.time()
        for audience in list(self._audiences.values()):
            # What nobody can get was not sent: it must not be counted as if it had been.
            if not any(connection.receptive(now_s) for connection in audience.connections):
                continue
            renderer = audience.frames = audience.frames or self._frames(audience.key)
            data = renderer.render()
            frames = renderer.frames
            if not frames:
                continue
            for connection in list(audience.connections):
                connection.deliver(data, frames)
            if self._duplicates:
                audience.recent.append(data)
                while len(audience.recent) > self._duplicates.frames:
                    audience.recent.popleft()
        self.sent += self.tape.sent_in_batch()

    def _deliver_late(self) -> None:
        """What a renderer held back for a batch of its own rhythm."""
        for audience in self._audiences.values():
            if audience.frames is not None and audience.frames.held:
                data = audience.frames.late(time.time_ns() // 1_000)
                for connection in list(audience.connections) if data else ():
                    connection.deliver(data, audience.frames.frames)

    def _up_to_next_event(self, count: int) -> int:
        """Opens the holes that are due, lets happen what is planned; the trades until the next of either, at most `count`."""
        while self._plans and self._plans[0].at <= self.tape.printed:
            self._plans.pop(0).happen()
        for planned in self._holes:
            if planned.at == self.tape.printed:
                hole = planned.hole
                symbol = self._index.get(hole.symbol, 0)
                first, last = self.tape.hide(symbol, hole.trades)
                if not hole.fillable:
                    self._lost.setdefault(symbol, []).append((first, last))
                if hole.every:
                    planned.at += hole.every
        next_at = [*(hole.at for hole in self._holes), *(plan.at for plan in self._plans)]
        return min([count, *(at - self.tape.printed for at in next_at if at > self.tape.printed)])

    async def _waken(self) -> None:
        self._wake.clear()
        await self._wake.wait()


def e8(value: int) -> str:
    """Digits as on the stream: eight places."""
    return f"{value // 10**8}.{value % 10**8:08}"
