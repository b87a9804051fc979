"""Reading whole chunks side by side, with a bar on the terminal of how far that is."""

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from appliance.ring.examination import Advance, Examination

T = TypeVar("T")


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
