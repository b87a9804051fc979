"""Small file systems that can be full or read-only, for tests."""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

_CLONE_NEWNS = 0x00020000
_MS_RDONLY, _MS_REMOUNT, _MS_REC, _MS_PRIVATE = 1, 32, 16384, 1 << 18
_MNT_DETACH = 2


class Mounts:
    """tmpfs mounts in a mount namespace of this process's own: no one else sees them, and none outlives it."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._mounted: list[Path] = []
        self._check(self._libc.unshare(_CLONE_NEWNS))
        self._check(self._libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None))

    def tmpfs(self, path: Path, size_bytes: int) -> Path:
        path.mkdir(exist_ok=True)
        self._check(self._libc.mount(b"tmpfs", os.fsencode(path), b"tmpfs", 0, f"size={size_bytes},mode=755".encode()))
        self._mounted.append(path)
        return path

    def make_read_only(self, path: Path) -> None:
        self._check(self._libc.mount(None, os.fsencode(path), None, _MS_REMOUNT | _MS_RDONLY, None))

    def unmount(self, path: Path) -> None:
        """Also of what another process of ours has mounted here."""
        self._check(self._libc.umount2(os.fsencode(path), _MNT_DETACH))

    def unmount_all(self) -> None:
        while self._mounted:
            self.unmount(self._mounted.pop())

    def _check(self, result: int) -> None:
        if result != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


@pytest.fixture(scope="session")
def _namespace() -> Mounts | str:
    try:
        return Mounts()
    except OSError as error:
        return f"mounting a tmpfs is not permitted here: {error}"


@pytest.fixture
def mounts(_namespace: Mounts | str) -> Iterator[Mounts]:
    if isinstance(_namespace, str):
        pytest.skip(_namespace)
    try:
        yield _namespace
    finally:
        _namespace.unmount_all()
