"""The redundant connections of one chunk: which ones live, and when one is replaced."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import chain
from typing import Any, Protocol

from loguru import logger

from appliance.errors import ExchangeRefused
from appliance.exchanges.exchange import Trouble
from appliance.feed.backoff import HEALTHY_S, Backoff
from appliance.feed.connection import DRAINED, Connection, Ending
from appliance.feed.lag import Lag
from appliance.feed.limits import Door, Limits
from appliance.feed.progress import Handover
from appliance.feed.watch import Watch

# Between the first connects of two legs, so that the exchange's 24 hours do not end for both at once (T10).
STAGGER_S = 2.0
RETIRE_S = 3.0  # for what is still under way to a leg that was replaced

DRAIN_TURNS = 100
HANDOVER_STEP_S = 0.05
# Both are heard for at least so long: what was traded just before a successor's subscriptions held reaches the older one by then.
HANDOVER_S_MIN = 1.0
HANDOVER_MUTE_S = 5.0  # an older one that brings nothing in this time while its successor does is not waited for
HANDOVER_S_MAX = 30.0  # a successor that still lacks something then is not fit to be one
LIFETIME_S = 24 * 3_600.0  # Binance ends every connection at this age
LEAVE_S = 60.0  # before that the old one goes in any case: its end is then a CLOSE that takes all under way
# Each leg rolls over a little earlier than the one before it, so that the legs' ages drift apart whatever has happened (T10).
ROLLOVER_SPREAD = 0.1
DOUBT_STEP_S = 0.5

# What no restart mends, and what does.
MENDED_BY = {
    Trouble.BLOCKED: "run it where the exchange serves, or set other URLs",
    Trouble.CREDENTIALS: "set the right key and secret (in the environment, or in .env beside the configuration; "
    "configs/deribit.toml names the variables); too many failed logins lock the account for a while",
}

Sleep = Callable[[float], Awaitable[None]]
Connect = Callable[[int, Sequence[str]], Connection]


class Tell(Protocol):
    """Where events go: a status record of the chunk."""

    def __call__(self, event: str, **fields: Any) -> None: ...


class Leg:
    """One leg: always one connection, for a moment two when a successor takes over from an older one."""

    def __init__(self, number: int, legs: "Legs", backoff: Backoff, rollover_s: float) -> None:
        self.connections: list[Connection] = []  # oldest first
        self._rollover_s = rollover_s
        self._number = number
        self._legs = legs
        self._backoff = backoff
        self._left_young = False  # the last successor was itself announced to end before it had lived for long
        self._log = legs.log.bind(leg=number)

    async def keep(self) -> None:
        """Connect, live, lose, wait, for ever. Raises ExchangeRefused on 451 while that is fatal."""
        await self._legs.sleep(STAGGER_S * self._number)
        async with asyncio.TaskGroup() as lives:
            while not self._legs.draining:
                await self._until_allowed()
                connection = self._legs.connect(self._number, list(self._legs.streams))
                self.connections.append(connection)  # at once: what is listed from now on must reach it
                life = lives.create_task(self._live(connection))
                leaving = lives.create_task(connection.leaving.wait())
                await asyncio.wait((life, leaving), return_when=asyncio.FIRST_COMPLETED)
                leaving.cancel()
                if life.done():
                    if not self._legs.draining:
                        await self._legs.sleep(self._wait_s(life.result()))
                else:
                    self._log.bind(event="leaving").info("opening the successor of a connection that will end")
                    self._tell("leaving", reason=connection.leaving_reason)
                    if connection.leaving_planned:
                        continue
                    wait_s = self._backoff.after_loss(connection.life_s)
                    if self._left_young:
                        # An exchange that shuts down may say so on every connection as it opens.
                        await self._legs.sleep(wait_s)
                    self._left_young = connection.life_s < HEALTHY_S

    async def _until_allowed(self) -> None:
        """Until neither a ban nor the budget of connects forbids another one; counts it."""
        limits = self._legs.limits
        while (delay_s := limits.connect_delay_s()) > 0:
            banned = limits.banned_s(Door.WEBSOCKET) > 0
            why = "a ban" if banned else f"{limits.connections} open connections" if limits.full else "the budget of connects"
            self._log.bind(event="connect_held").warning(f"not connecting for {delay_s:.0f} s because of {why}")
            await self._legs.sleep(delay_s)
        limits.count_connect()

    async def _live(self, connection: Connection) -> Ending:
        try:
            async with asyncio.TaskGroup() as watching:
                progress = watching.create_task(self._follow(connection))
                ending = await connection.run()
                progress.cancel()
        except* Exception as errors:  # ours, not the exchange's: one leg's mistake must not end the others
            self._log.bind(event="leg_failed").opt(exception=errors).error("an error of our own ended this connection")
            ending = Ending(f"internal error: {errors.exceptions[0]!r}", 0.0)
        finally:
            self.connections.remove(connection)
            self._legs.limits.count_end()
            if self._legs.up == 0:
                self._legs.deaf()
        if ending.refusal is None:
            event, level = ("closed", "INFO") if ending.reason == DRAINED else ("lost", "WARNING")
            self._log.bind(event=event).log(level, f"connection ended after {ending.life_s:.1f} s: {ending.reason}")
            self._tell(event, reason=ending.reason, life_ms=round(ending.life_s * 1_000))
        return ending

    async def _follow(self, connection: Connection) -> None:
        """Say how far a connection has come; when it has all streams, the ones before it may go."""
        await connection.opened.wait()
        self._tell("connected")
        await connection.subscribed.wait()
        streams, unlisted = len(self._legs.streams), sorted(connection.unlisted)
        self._log.bind(event="subscribed").info(f"subscribed to {streams - len(unlisted)} of {streams} streams")
        self._tell("subscribed", streams=streams, unlisted=unlisted)
        self._legs.subscribed.set()
        older = self.connections[: self.connections.index(connection)]
        if older:
            if not await self._has_taken_over(connection, older):
                return
            for one in older:
                await one.drain(RETIRE_S)
        await self._roll_over(connection)

    async def _roll_over(self, connection: Connection) -> None:
        """Replace a connection when it is old, unless another leg is just at that."""
        if not self._rollover_s:
            return
        await self._legs.sleep(max(0.0, self._rollover_s - connection.life_s))
        async with self._legs.rolling_over:
            connection.leave(f"rollover after {connection.life_s:.0f} s", planned=True)
            await asyncio.Event().wait()  # until it has ended, and this with it

    async def _has_taken_over(self, successor: Connection, older: Sequence[Connection]) -> bool:
        """Wait until nothing is lost when the older ones go; False: the successor did not come to that, and goes itself (T9)."""
        begun = [(one, Handover(one.last_ids())) for one in older]
        trades = sum(one.trades for one in older)
        if not await successor.answers_ping():
            successor.end("no answer to a ping before it took over")
            return False
        waited_s = 0.0
        while True:
            brought = successor.last_ids()
            steps = [handover.step(one.last_ids(), brought) for one, handover in begun if one.is_open]
            lacking = max((lacks for lacks, _ in steps), default=0)
            whole = not any(lacks or behind for lacks, behind in steps)
            # Too late for more, or the others are gone, or what is lacking they lack: they do not bring what is traded.
            patience_s = HANDOVER_MUTE_S if sum(one.trades for one in older) == trades else HANDOVER_S_MAX
            at_last = not steps or any(one.life_s > LIFETIME_S - LEAVE_S for one in older) or (waited_s >= patience_s and not lacking)
            if at_last or (whole and waited_s >= HANDOVER_S_MIN):
                self._tell("handover", reason=older[-1].leaving_reason, overlap_ms=round(waited_s * 1_000), lacking=lacking)
                return True
            if waited_s >= HANDOVER_S_MAX:
                successor.end(f"it did not take over: after {waited_s:.0f} s it lacks trades of {lacking} instruments that the older has")
                return False
            await self._legs.sleep(HANDOVER_STEP_S)
            waited_s += HANDOVER_STEP_S

    def _wait_s(self, ending: Ending) -> float:
        """Seconds until the next connection, by how the last one ended."""
        if ending.refusal is None:
            return self._backoff.after_loss(ending.life_s)
        refusal = ending.refusal
        if refusal.trouble in MENDED_BY and self._legs.blocked_is_fatal():
            raise ExchangeRefused(f"websocket: {refusal.reason}. No retry helps: {MENDED_BY[refusal.trouble]}.")
        if refusal.trouble == Trouble.BANNED and refusal.retry_after_s is not None:
            self._legs.limits.ban(Door.WEBSOCKET, refusal.retry_after_s)
        wait_s = self._backoff.after_refusal(refusal)
        level = "WARNING" if refusal.trouble in (Trouble.AWAY, Trouble.BANNED) else "ERROR"
        self._log.bind(event="refused").log(level, f"not connected: {refusal.reason}. Trying again in {wait_s:.1f} s")
        self._tell("refused", trouble=str(refusal.trouble), reason=refusal.reason, retry_ms=round(wait_s * 1_000))
        return wait_s

    def _tell(self, event: str, **fields: Any) -> None:
        self._legs.tell(event, leg=self._number, **fields)


class Legs:
    """The legs of one chunk. Each is supervised for itself and never given up (T30). Loop thread only."""

    def __init__(
        self,
        chunk: int,
        legs: int,
        streams: Sequence[str],
        connect: Connect,
        limits: Limits,
        tell: Tell,
        backoff: Callable[[], Backoff],
        *,
        blocked_is_fatal: Callable[[], bool],
        deaf: Callable[[], None] = lambda: None,
        rollover_s: float = 0.0,
        streams_of: Callable[[int], tuple[str, Sequence[str]]] = lambda instrument: (str(instrument), ()),
        newest_ms: Callable[[], int] = lambda: 0,
        has_ended: Callable[[int], bool] = lambda instrument: False,
        lag_alarm_ms: int = 5_000,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.deaf = deaf
        """Called when no leg is left that is subscribed, or after a time in which none may have had its streams."""
        self.subscribed = asyncio.Event()
        """One leg at least has been subscribed."""
        self.streams = dict.fromkeys(streams)
        self.connect = connect
        self.limits = limits
        self.tell = tell
        self.blocked_is_fatal = blocked_is_fatal
        self.sleep = sleep
        self.draining = False
        self.log = logger.bind(chunk=chunk)
        self.lag = Lag[Connection](lag_alarm_ms)
        """How late trades come."""
        self._watch = Watch(self, streams_of, newest_ms, sleep, chunk, self.lag, has_ended)
        self.rolling_over = asyncio.Lock()
        """Held by the leg whose connection is being replaced for its age."""
        self._legs = [Leg(number, self, backoff(), rollover_s * (1.0 - ROLLOVER_SPREAD * number / legs)) for number in range(legs)]

    async def run(self) -> None:
        """Keep every leg alive until cancelled. Raises ExchangeRefused, in a group, on 451 while that is fatal."""
        async with asyncio.TaskGroup() as self._tasks:
            for leg in self._legs:
                self._tasks.create_task(leg.keep())
            self._tasks.create_task(self._watch.run())

    def subscribe(self, streams: Iterable[str]) -> None:
        """Take more streams, on the connections that live and on all to come."""
        new = [stream for stream in streams if stream not in self.streams]
        self.streams.update(dict.fromkeys(new))
        for connection in self.connections:
            connection.subscribe(new)

    def doubt(self, since_s: float) -> None:
        """A connection was without some of its streams, at some time since then (the loop's time), and has them again now."""
        self._tasks.create_task(self._settle_doubt(since_s, asyncio.get_running_loop().time()))

    async def _settle_doubt(self, since_s: float, until_s: float) -> None:
        """Until another connection is known to have been whole all that time, or none is left that can have been: then nobody listened."""
        while True:
            whole = [one for one in self.connections if one.is_open and one.whole_since_s is not None and one.whole_since_s <= since_s]
            if not whole:
                self.deaf()
                return
            if any(one.verified_s >= until_s for one in whole):
                return
            await self.sleep(DOUBT_STEP_S)

    async def drain(self, timeout_s: float) -> None:
        """Say CLOSE on every connection, take what is still under way, open none again."""
        self.draining = True
        async with asyncio.TaskGroup() as tasks:
            for connection in self.connections:
                tasks.create_task(connection.drain(timeout_s))
        for _ in range(DRAIN_TURNS):  # each then tells how it ended, a few turns of the loop later
            if not self.connections:
                return
            await asyncio.sleep(0.001)

    @property
    def up(self) -> int:
        """Legs that are subscribed now."""
        return sum(any(one.is_open and one.subscribed.is_set() for one in leg.connections) for leg in self._legs)

    def ages_s(self) -> list[float | None]:
        """Of each leg's newest open connection; None: it has none."""
        return [max((one.life_s for one in leg.connections[-1:] if one.is_open), default=None) for leg in self._legs]

    def leg_of(self, connection: Connection) -> int:
        """The number of the leg that a living connection is of."""
        return next(number for number, leg in enumerate(self._legs) if connection in leg.connections)

    @property
    def connections(self) -> list[Connection]:
        return list(chain.from_iterable(leg.connections for leg in self._legs))
