"""What the loop does by the clock: each chunk's turn, the clock's offset, Python's garbage, signs of life."""

import asyncio
import gc
import time
from collections.abc import Callable, Iterable

from loguru import logger

from appliance import clock
from appliance.feed.chunk import Chunk
from appliance.feed.notify import Notifier

TURN_S = 0.05
CLOCK_S = 1.0
GARBAGE_S = 30.0  # the data plane makes none, the control plane little
SLOW_GARBAGE_S = 0.005
TELL_S = 5.0
CLOCK_STEP_NS = 1_000_000  # slewing moves both clocks alike, and reading the offset is exact to a microsecond


class Heartbeat:
    """The periodic duties of one collector. All run on the loop, so none falls within a socket read."""

    def __init__(self, chunks: Callable[[], Iterable[Chunk]], notifier: Notifier) -> None:
        self.ready_after_s: float | None = None
        """Seconds from the start to readiness; None: not ready yet."""
        self._chunks = chunks
        self._notifier = notifier
        self._began_s = time.monotonic()

    async def run(self) -> None:
        """Beat until cancelled."""
        gc.disable()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_every(TURN_S, self._turn))
            tasks.create_task(_every(CLOCK_S, self._read_clock))
            tasks.create_task(_every(GARBAGE_S, self._collect_garbage))
            tasks.create_task(_every(TELL_S, self._tell))
            if self._notifier.watchdog_s is not None:
                # From the loop itself: one that is stuck is to be seen.
                tasks.create_task(_every(self._notifier.watchdog_s, self._notifier.alive))

    def ready(self) -> None:
        """Every chunk is subscribed. What lives now lives to the end: the collector of garbage need not look at it again."""
        gc.collect()
        gc.freeze()
        self.ready_after_s = time.monotonic() - self._began_s
        self._notifier.ready()
        self._tell()

    def _turn(self) -> None:
        for chunk in self._chunks():
            chunk.turn()

    def _read_clock(self) -> None:
        step_ns = clock.refresh()
        if abs(step_ns) < CLOCK_STEP_NS:
            return
        logger.bind(event="clock_step", step_ms=step_ns / 1_000_000).warning("the system clock was set")
        for chunk in self._chunks():
            chunk.pipeline.store.writer.add_to("clock_steps")
            chunk.pipeline.status("clock_step", step_ns=step_ns)

    def _collect_garbage(self) -> None:
        began_s = time.perf_counter()
        found = gc.collect()
        took_s = time.perf_counter() - began_s
        if took_s > SLOW_GARBAGE_S:
            logger.bind(event="slow_garbage", took_ms=round(took_s * 1_000, 1), found=found).warning("collecting garbage held up the loop")

    def _tell(self) -> None:
        chunks = list(self._chunks())
        legs = [connection for chunk in chunks for connection in chunk.legs.connections]
        subscribed = sum(connection.subscribed.is_set() and connection.is_open for connection in legs)
        streams = sum(len(chunk.legs.streams) for chunk in chunks)
        state = "collecting" if self.ready_after_s is not None else "starting"
        self._notifier.status(f"{state}: {streams} streams in {len(chunks)} chunks, {subscribed} connections subscribed")
        if self.ready_after_s is None:
            self._notifier.still_starting()


async def _every(seconds: float, duty: Callable[[], None]) -> None:
    """Do it again and again. A turn that comes late is not made up for."""
    while True:
        await asyncio.sleep(seconds)
        duty()
