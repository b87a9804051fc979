"""All chunks of a directory, read whole and side by side, with a bar on the terminal of how far that is."""

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from appliance.errors import CannotRun
from appliance.feed.chunks import Chunks
from appliance.ring.examination import Advance, Examination, examinations

T = TypeVar("T")


def chunks(directory: Path) -> list[Examination]:
    """Every chunk that is or should be in a ring or journal directory; one that is gone is a fault. Raises NotARing."""
    found = {(one.exchange, one.chunk): one for one in examinations(directory)}
    places = {(one.exchange, one.journal_dir or directory) for one in found.values()}
    for exchange, beside in sorted(places):
        try:
            assigned = Chunks.load(beside, exchange)
        except CannotRun as error:
            next(one for one in found.values() if one.exchange == exchange).result.fault(0, str(error))
            continue
        for number in set(range(len(assigned))) - {chunk for name, chunk in found if name == exchange}:
            absent = found[exchange, number] = Examination(exchange, number, None, None)
            absent.result.fault(0, f"neither ring nor journal is here; {assigned.path} has {len(assigned.symbols(number))} symbols in it")
    return [found[name] for name in sorted(found)]


def examined(verb: str, chunks: Sequence[Examination], look: Callable[[Examination, Advance], T]) -> list[T]:
    """What `look` makes of each chunk, in their order; it is called in threads, and tells how many bytes it has read."""
    with Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True,
    ) as progress:  # fmt: skip
        task = progress.add_task(verb, total=sum(chunk.size() for chunk in chunks))

        def advance(size: int) -> None:
            progress.advance(task, size)

        with ThreadPoolExecutor(os.cpu_count()) as threads:
            return list(threads.map(lambda chunk: look(chunk, advance), chunks))
