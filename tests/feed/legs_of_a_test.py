"""One chunk's legs over real sockets, with a clock and waits of the test's own."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from appliance.exchanges.binance import EXCHANGE
from appliance.exchanges.exchange import Rules
from appliance.feed import tls
from appliance.feed.backoff import Backoff
from appliance.feed.connection import Connection, Pace
from appliance.feed.legs import HANDOVER_STEP_S, Legs
from appliance.feed.limits import Limits
from appliance.feed.watch import WATCH_S
from tests.feed.scripted import SYMBOLS, Ear, Peer, Server, fact

STREAMS = ["btcusdt@trade", "ethusdt@trade"]
TRUST = tls.trust(None)
SHUTDOWN = {"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": 1}}
RULES = Rules(connects=1_000, connects_window_s=300.0, messages_per_s=5, weight_per_minute=6_000)


class Time:
    """Waits take no time, but are written down and move the clock; the watch over mute legs turns when the test says."""

    def __init__(self) -> None:
        self.now_s = 1_790_000_000.0
        self.waits_s: list[float] = []
        self.steps = 0
        self.watch = asyncio.Event()

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        if seconds == WATCH_S:
            await self.watch.wait()
            self.watch.clear()
            return
        if seconds == HANDOVER_STEP_S:
            self.steps += 1
            await asyncio.sleep(0.002)
            return
        self.waits_s.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)


class Chunk:
    """One chunk's legs, and what they told."""

    def __init__(self, url: str, directory: Path, legs: int, rules: Rules, fatal: bool, rollover_s: float = 0.0) -> None:
        self.time = Time()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.ears: list[Ear] = []
        self.limits = Limits(directory, rules, self.time)
        self.url = url
        self.newest_ms = 0
        self.ended: set[int] = set()
        self.legs = Legs(
            0, legs, STREAMS, self.connect, self.limits, self.tell, lambda: Backoff(lambda: 0.9),
            blocked_is_fatal=lambda: fatal, rollover_s=rollover_s, sleep=self.time.sleep,
            streams_of=lambda instrument: (SYMBOLS[instrument], [STREAMS[instrument]]), newest_ms=lambda: self.newest_ms,
            has_ended=lambda instrument: instrument in self.ended,
            deaf=lambda: self.events.append(("deaf", {})),
        )  # fmt: skip

    def connect(self, leg: int, streams: Sequence[str]) -> Connection:
        return Connection(EXCHANGE, self.url, streams, self.listen, TRUST, pace=Pace())

    def listen(self, control: Connection) -> Ear:
        self.ears.append(Ear(control))
        return self.ears[-1]

    def tell(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))

    async def look(self, times: int = 1) -> None:
        """Let so many seconds pass for the watch."""
        for _ in range(times):
            self.time.watch.set()
            await fact(lambda: not self.time.watch.is_set())

    def told(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.events if name == event]


@asynccontextmanager
async def chunk(
    server: Server, directory: Path, legs: int = 2, rules: Rules = RULES, fatal: bool = False, rollover_s: float = 0.0
) -> AsyncIterator[tuple[Chunk, asyncio.Task[None]]]:
    one = Chunk(server.url, directory, legs, rules, fatal, rollover_s)
    life = asyncio.create_task(one.legs.run())
    try:
        yield one, life
    finally:
        life.cancel()
        with suppress(asyncio.CancelledError, BaseExceptionGroup):
            await life


def alive(server: Server) -> list[Peer]:
    return [peer for peer in server.peers if peer.transport is not None and not peer.transport.is_disconnected]
