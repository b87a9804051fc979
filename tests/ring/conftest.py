"""What tests of the ring need from the machine."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def open_files() -> Callable[[], set[str]]:
    """The files that this process has open now, by name."""

    def listing() -> set[str]:
        found = set()
        for entry in Path("/proc/self/fd").iterdir():
            try:
                found.add(f"{entry.name} {entry.readlink()}")
            except OSError:
                continue  # the listing's own
        return found

    return listing


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A directory whose fsync costs nothing, for tests that start a writer hundreds of times."""
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shm) as directory:
        yield Path(directory)
