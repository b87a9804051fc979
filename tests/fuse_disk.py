"""A journal directory on a disk that fails on command: errors, stalls, a slow pace, a power cut."""

import errno
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from appliance.feed.children import PARENT_PID
from tests.mounts import Mounts

EIO, ENOSPC, EROFS = errno.EIO, errno.ENOSPC, errno.EROFS


class FuseDisk:
    """A mounted `fuse_server`, commanded from here. Every command is in force when it returns."""

    def __init__(self, backing: Path, mountpoint: Path) -> None:
        self.directory = mountpoint
        backing.mkdir()
        mountpoint.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "tests.fuse_server", str(backing), str(mountpoint)]
        environ = os.environ | {PARENT_PID: str(os.getpid())}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ)
        if not self._answer().get("mounted"):
            pytest.fail(f"the FUSE disk was not mounted at {mountpoint}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Heals: a process that hangs in a stalled disk could not even be killed."""
        self.heal()

    def fail(self, times: int = 0, **errors: int) -> None:
        """Operations of these kinds end in this errno: `write`, `sync` (of files and directory), `make` (all else that changes it)."""
        self._do("fail", errors=errors, times=times)

    def heal(self) -> None:
        """No more errors, stalls or slowness."""
        self.fail()
        self._do("pace", bytes_per_s=0)
        self._do("stall", on=False)

    def stall(self) -> None:
        """Writes and syncs hang until `heal`; reads go on."""
        self._do("stall", on=True)

    def pace(self, bytes_per_s: int) -> None:
        """Writes no faster than this."""
        self._do("pace", bytes_per_s=bytes_per_s)

    def cut_power(self, seed: int = 0, kept: float = 0.0) -> None:
        """Now. Each sector that was not synced is kept with this probability; every operation fails until `restore_power`."""
        self._do("cut", seed=seed, kept=kept)

    def restore_power(self) -> None:
        """What the platter has is what there is."""
        self._do("restore")

    def counts(self) -> dict[str, int]:
        """Operations so far, begun ones too, by kind; `failed` ones among them; `bytes` written."""
        counts: dict[str, int] = self._do("counts")
        return counts

    def end(self) -> None:
        """The process is gone, and with it whatever hung in it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _do(self, what: str, **arguments: object) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, **arguments}).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer()["done"]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            pytest.fail(f"the FUSE disk's process ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def missing() -> str | None:
    """Why there can be no FUSE disk here; None: there can."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "no FUSE disk without /dev/fuse that we may open"
    try:
        importlib.import_module("mfusepy")
    except (OSError, ImportError, AttributeError) as error:
        return f"no FUSE disk: {error} (Debian's package libfuse3-3, Python's mfusepy)"
    return None


@pytest.fixture
def fuse_disk(tmp_path: Path, mounts: Mounts) -> Iterator[FuseDisk]:
    """A FUSE disk, mounted at `tmp_path / "journal"` where no one else sees it."""
    if (why := missing()) is not None:
        pytest.skip(why)
    disk = FuseDisk(tmp_path / "platter", tmp_path / "journal")
    try:
        yield disk
    finally:
        disk.end()
        mounts.unmount(disk.directory)
