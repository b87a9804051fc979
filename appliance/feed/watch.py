"""The watch over what the legs of one chunk bring: silence told apart by its evidence.

A socket is judged by its frames and pings elsewhere (feed/connection). Here: a connection that brings nothing while another one of the
chunk brings trades, an instrument that one connection does not bring and another one does, and a chunk that is silent on all of them for
longer than its own rhythm makes likely. What does come may come late: then a connection that lags behind another one, and all that lag.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import exp
from typing import Any, Protocol

from loguru import logger

from appliance.clock import unix_ns
from appliance.feed.connection import Connection
from appliance.feed.lag import Brought, Lag
from appliance.feed.progress import Laggards
from appliance.trade import NS_PER_MS

WATCH_S = 1.0

# A connection that brings nothing while another one brings so many messages is mute, whatever its pings say (T6): in a busy chunk
# after seconds, in a quiet one after as long as it takes. The seconds are for what TCP sends again.
MUTE_TRADES = 20
MUTE_S = 5.0

# The same of one instrument, on a connection that brings others.
LAG_IDS = 3
LAG_STEPS = 10
ASKED_MAX = 2  # times that a stream is asked for again before its connection is replaced

# With one leg there is nothing to compare with but an instrument's own past.
RHYTHM_IDS = 1_000
RHYTHM_STEPS = 300
RHYTHM_INTERVALS = 300

SILENT_S = 300.0  # of a chunk that was never heard
SILENT_S_MIN = 10.0
SILENT_S_MAX = 3_600.0  # told in the end, also of a chunk that is always quiet (T5)
SILENT_LULLS = 3.0
SILENT_INTERVALS = 30.0
KNOWN_MESSAGES = 30.0
MEMORY_S = 3_600.0  # what came this long ago counts for a third (1/e) in the mean interval
LULL_MEMORY_S = 6 * 3_600.0
CLOCKS_MS = 1_000  # the exchange's clock and ours agree to this, or better
UNREACHABLE_S = 10.0

# A lag goes on for as long as it takes: it is told again each time that it has lasted twice as long. Who lags behind the other legs is
# replaced, and no more often than this: a path that is always slow is not mended by it.
LAGGING_AGAIN_S = 60.0

NAMES_MAX = 20  # of a record


class Tell(Protocol):
    def __call__(self, event: str, **fields: Any) -> None: ...


class Chunk(Protocol):
    """What is watched: the legs of one chunk."""

    tell: Tell
    draining: bool

    @property
    def subscribed(self) -> asyncio.Event: ...

    @property
    def connections(self) -> Sequence[Connection]: ...

    def deaf(self) -> None: ...

    def leg_of(self, connection: Connection) -> int: ...


class Rhythm:
    """How often messages with trades come, and how long a silence is unlikely. Steps of WATCH_S."""

    def __init__(self) -> None:
        self.silent_s = 0.0
        self._messages = 0.0
        self._watched_s = 0.0
        self._lull_s = 0.0

    def step(self, messages: int) -> None:
        """So many came in the last step."""
        if not messages:
            self.silent_s += WATCH_S
            return
        # A silence becomes a part of the rhythm when it is over.
        elapsed_s = self.silent_s + WATCH_S
        keep = exp(-elapsed_s / MEMORY_S)
        self._messages = self._messages * keep + messages
        self._watched_s = self._watched_s * keep + elapsed_s
        self._lull_s = max(self._lull_s * exp(-elapsed_s / LULL_MEMORY_S), self.silent_s)
        self.silent_s = 0.0

    @property
    def interval_s(self) -> float | None:
        """The mean between two messages; None: not known."""
        return self._watched_s / self._messages if self._messages >= KNOWN_MESSAGES else None

    @property
    def limit_s(self) -> float:
        """A longer silence is not the market's, most likely."""
        if (interval_s := self.interval_s) is None:
            return SILENT_S_MAX if self._messages else SILENT_S
        return min(SILENT_S_MAX, max(SILENT_S_MIN, SILENT_LULLS * self._lull_s, SILENT_INTERVALS * interval_s))


@dataclass(slots=True)
class Silence:
    """One of the whole chunk that was told."""

    due_s: float
    """Told again when it has lasted so long."""
    begun_ms: int
    newest_ms: int
    """Exchange time of the newest trade that was known when it was told."""
    proven: bool = False
    """There are trades of this time: REST has brought one."""


@dataclass(slots=True)
class Heard:
    """What one connection has brought of late."""

    trades: int
    silent_s: float = 0.0
    missed: int = 0
    laggards: Laggards = field(default_factory=Laggards)
    asked: dict[int, int] = field(default_factory=dict)


class Watch:
    """Of one chunk. Loop thread only.

    `streams_of`: the streams that carry an instrument, and its name. `newest_ms`: exchange time of the newest trade,
    whoever brought it. `has_ended`: an instrument trades no more.
    """

    def __init__(
        self,
        chunk: Chunk,
        streams_of: Callable[[int], tuple[str, Sequence[str]]],
        newest_ms: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]],
        number: int,
        lag: Lag[Connection],
        has_ended: Callable[[int], bool] = lambda instrument: False,
    ) -> None:
        self._chunk = chunk
        self._lag = lag
        self._has_ended = has_ended
        self._lagging_s = 0.0
        self._lagging_due_s = 0.0
        self._replaced_s: dict[int, float] = {}  # by leg, in seconds watched
        self._watched_s = 0.0
        self._streams_of = streams_of
        self._newest_ms = newest_ms
        self._sleep = sleep
        self._log = logger.bind(chunk=number)
        self._rhythm = Rhythm()
        self._heard: dict[Connection, Heard] = {}
        self._silence: Silence | None = None
        self._unreachable_s = 0.0

    async def run(self) -> None:
        """Look every second, for ever."""
        while True:
            await self._sleep(WATCH_S)
            if not self._chunk.draining:
                await self._look()

    async def _look(self) -> None:
        living = [one for one in self._chunk.connections if one.is_open and one.subscribed.is_set()]
        self._reach(living)
        # Who does not read for want of room hears nothing, and that says nothing.
        reading = all(one.is_reading for one in living)
        before, self._heard = self._heard, {}
        grown: dict[Connection, int] = {}
        for one in living:
            heard = before.get(one) or Heard(0)  # what came before the first look counts too
            if not reading:
                self._heard[one] = Heard(one.trades, asked=heard.asked)
                continue
            grown[one] = one.trades - heard.trades
            heard.trades = one.trades
            self._heard[one] = heard
        if not grown:
            return
        self._find_mute(grown)
        self._find_dead_subscriptions(list(grown))
        self._judge_lag(grown)
        self._rhythm.step(max(grown.values()))
        await self._judge_silence(living)

    def _reach(self, living: Iterable[Connection]) -> None:
        """Nobody listens: each leg's records say why; one says that it is so of all."""
        if any(True for _ in living) or not self._chunk.subscribed.is_set():
            self._unreachable_s = 0.0
            return
        self._unreachable_s += WATCH_S
        if self._unreachable_s == UNREACHABLE_S:
            self._chunk.tell("unreachable", silent_ms=round(UNREACHABLE_S * 1_000), verdict="dead_exchange")
            self._log.bind(event="unreachable").error(f"no connection of any leg for {UNREACHABLE_S:.0f} s: the exchange, or the way to it")

    def _find_mute(self, grown: dict[Connection, int]) -> None:
        most = max(grown.values())
        for one, trades in grown.items():
            heard = self._heard[one]
            if trades:
                heard.silent_s, heard.missed = 0.0, 0
                continue
            heard.silent_s += WATCH_S
            heard.missed += most
            if heard.silent_s >= MUTE_S and heard.missed >= MUTE_TRADES and not one.leaving.is_set():
                verdict = "dead_socket" if one.trades else "dead_subscription"
                self._chunk.tell(
                    "mute", leg=self._chunk.leg_of(one), silent_ms=round(heard.silent_s * 1_000), others=heard.missed, verdict=verdict
                )
                one.leave(f"mute: no trade in {heard.silent_s:.0f} s while another connection brought {heard.missed} messages")

    def _find_dead_subscriptions(self, connections: Sequence[Connection]) -> None:
        ids = {one: one.last_ids() for one in connections}
        for one in connections:
            heard = self._heard[one]
            others = [brought for other, brought in ids.items() if other is not one]
            lagging = heard.laggards.step(ids[one], others, LAG_IDS, LAG_STEPS)
            if heard.silent_s >= LAG_STEPS * WATCH_S or one.leaving.is_set():
                continue  # it brings nothing at all: that is judged as a whole
            if lagging:
                self._ask_again(one, heard, lagging, "dead_subscription")
            elif not others:
                fallen = heard.laggards.fallen_silent(RHYTHM_IDS, RHYTHM_STEPS, RHYTHM_INTERVALS)
                fallen = [instrument for instrument in fallen if not self._has_ended(instrument)]
                if fallen:
                    self._ask_again(one, heard, fallen, "quiet_instrument_or_dead_subscription")

    def _ask_again(self, connection: Connection, heard: Heard, instruments: Sequence[int], verdict: str) -> None:
        found = [self._streams_of(instrument) for instrument in instruments]
        names = sorted(name for name, _ in found)[:NAMES_MAX]
        streams = {stream: None for _, streams in found for stream in streams}
        certain = verdict == "dead_subscription"
        asked = 0
        for instrument in instruments:
            asked = max(asked, heard.asked.get(instrument, 0))
            heard.asked[instrument] = heard.asked.get(instrument, 0) + certain
        leg = self._chunk.leg_of(connection)
        self._chunk.tell("stream_silent", leg=leg, assets=names, instruments=len(instruments), asked_before=asked, verdict=verdict)
        if certain and asked >= ASKED_MAX:
            connection.leave(f"dead subscription: {names[0]} and {len(instruments) - 1} more, asked for again {asked} times")
            return
        self._log.bind(event="stream_silent", leg=leg).warning(
            f"{len(instruments)} instruments are not brought on this leg, {names[0]} among them; their streams are asked for again"
        )
        connection.ask_again(streams)

    def _judge_lag(self, grown: dict[Connection, int]) -> None:
        """T28: whatever waits unread, here or elsewhere, is late; sockets, pings and ids are fine all the while."""
        self._watched_s += WATCH_S
        leg_of = self._chunk.leg_of
        change = self._lag.step({one: Brought(leg_of(one), one.last_trade() if trades else None) for one, trades in grown.items()})
        if self._lag.all_late and (change.late or self._lagging_s >= self._lagging_due_s):
            self._lagging_due_s = max(LAGGING_AGAIN_S, 2 * self._lagging_s)
            self._tell_lagging(None)
        elif not self._lag.all_late:
            for leg in sorted(change.late):
                self._tell_lagging(leg)
        self._lagging_s = self._lagging_s + WATCH_S if self._lag.late else 0.0
        if change.in_time and not self._lag.late:
            self._tell_caught_up(None)
        else:
            for leg in sorted(change.in_time):
                self._tell_caught_up(leg)
        for one, behind_ms in change.behind_ms.items():
            leg = leg_of(one)
            if not one.leaving.is_set() and self._watched_s - self._replaced_s.get(leg, -LAGGING_AGAIN_S) >= LAGGING_AGAIN_S:
                self._replaced_s[leg] = self._watched_s
                one.leave(f"lagging: its trades come {behind_ms / 1_000:.1f} s later than another connection's")

    def _tell_lagging(self, leg: int | None) -> None:
        found = self._lag_of(leg)
        self._chunk.tell("lagging", **found)
        log = self._log.bind(event="lagging")
        lag_s, usual_s = found["lag_ms"] / 1_000, found["usual_ms"] / 1_000
        said = f"trades are received {lag_s:.1f} s after the exchange made them, usual are {usual_s:.1f} s"
        if leg is None:
            log.error(f"{said}: all that this chunk brings is late")
        else:
            log.warning(f"on leg {leg} {said}")

    def _tell_caught_up(self, leg: int | None) -> None:
        self._chunk.tell("caught_up", **self._lag_of(leg))
        self._log.bind(event="caught_up").info("trades are received in time again" + ("" if leg is None else f" on leg {leg}"))

    def _lag_of(self, leg: int | None) -> dict[str, int]:
        """What the records say; None: of all legs."""
        lag_ms = self._lag.lag_ms if leg is None else self._lag.by_leg()[leg]
        return ({} if leg is None else {"leg": leg}) | {"lag_ms": lag_ms or 0, "usual_ms": self._lag.usual_ms or 0}

    async def _judge_silence(self, living: Sequence[Connection]) -> None:
        silent_s, silence = self._rhythm.silent_s, self._silence
        if not silent_s:
            if silence is not None:
                self._silence = None
                self._chunk.tell("heard_again", verdict="dead_streams" if silence.proven else "quiet_market")
            return
        if silence is None:
            if silent_s < self._rhythm.limit_s:
                return
            begun_ms = unix_ns() // NS_PER_MS - round(silent_s * 1_000)
            self._silence = Silence(2 * silent_s, begun_ms, self._newest_ms())
            # What REST has of this time is the evidence, and is not lost meanwhile.
            self._chunk.deaf()
            await self._tell_silence(living, "unknown")
        elif not silence.proven and self._newest_ms() > max(silence.newest_ms, silence.begun_ms + CLOCKS_MS):
            silence.proven = True
            await self._tell_silence(living, "dead_streams")
        elif silent_s >= silence.due_s:
            silence.due_s = 2 * silent_s
            self._chunk.deaf()
            await self._tell_silence(living, "dead_streams" if silence.proven else "quiet_market")

    async def _tell_silence(self, living: Sequence[Connection], verdict: str) -> None:
        """Say it with its evidence; replace what may be deaf."""
        silent_s, interval_s = self._rhythm.silent_s, self._rhythm.interval_s
        answered = sum(await asyncio.gather(*(one.answers_ping() for one in living)))
        verdict = verdict if answered else "dead_exchange"
        self._chunk.tell(
            "silent", silent_ms=round(silent_s * 1_000), usual_ms=None if interval_s is None else round(interval_s * 1_000, 3),
            connections=len(living), pings_answered=answered, verdict=verdict,
        )  # fmt: skip
        self._log.bind(event="silent").error(
            f"no trade on any leg for {silent_s:.0f} s, {answered} of {len(living)} connections answer a ping: {verdict.replace('_', ' ')}"
        )
        if verdict == "dead_streams" or (verdict == "unknown" and interval_s is not None):
            for one in living:
                one.leave(f"silent: no trade on any leg for {silent_s:.0f} s")
