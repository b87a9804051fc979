"""What the journal lost while the disk took nothing becomes missing again, so that it is asked for like any gap."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from loguru import logger

from appliance.feed.children import Child
from appliance.feed.chunk import Chunk

LOOK_S = 1.0
AGAIN_S = 60.0  # after a failure to read the journal
STOP_S = 2.0
AT_ONCE = 64  # spans between two turns of the loop: the feed goes first

Sleep = Callable[[float], Awaitable[None]]


class Refill:
    """Of all chunks. Loop thread only; `run` it once. The journal is read by a child process."""

    def __init__(self, journal_dir: Path, chunks: Callable[[], Iterable[Chunk]], sleep: Sleep = asyncio.sleep) -> None:
        self._journal_dir = journal_dir
        self._chunks = chunks
        self._sleep = sleep

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self._sleep(LOOK_S)
            for chunk in list(self._chunks()):
                holes = chunk.pipeline.holes_to_refill()
                if holes and not await self._refill(chunk, holes):
                    await self._sleep(AGAIN_S)

    async def _refill(self, chunk: Chunk, holes: list[tuple[int, int]]) -> bool:
        """False: the journal could not be read now."""
        pipeline = chunk.pipeline
        where = [str(self._journal_dir), pipeline.exchange, str(chunk.number), str(min(holes)[0])]
        child = await Child.start("lost ids", [sys.executable, "-m", "appliance.tools.lost", *where])
        try:
            line = await child.read_line()
            spans = json.loads(line)
        except ValueError:
            logger.bind(chunk=chunk.number, event="not_refilled").error(
                f"which trades the journal lost could not be found out (status {await child.wait()}); tried again in {AGAIN_S:.0f} s"
            )
            return False
        finally:
            await child.stop(STOP_S)
        ids = 0
        for number, (asset, era, from_id, to_id) in enumerate(spans, 1):
            ids += pipeline.reopen(asset, era, from_id, to_id)
            if number % AT_ONCE == 0:
                await self._sleep(0)
        pipeline.reopened(holes)
        logger.bind(chunk=chunk.number, event="holes_reopened").info(f"the journal lost {ids} trades; they are missing, and asked for")
        return True
