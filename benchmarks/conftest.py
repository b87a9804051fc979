"""Places to measure on."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tmpfs() -> Iterator[Path]:
    """A directory in memory: where rings live."""
    shared_memory = Path("/dev/shm")
    directory = Path(tempfile.mkdtemp(prefix="mdc-bench-", dir=shared_memory if shared_memory.is_dir() else None))
    yield directory
    shutil.rmtree(directory)
