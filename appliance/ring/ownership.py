"""Ownership of a ring directory and its journal directory: one writer process, one exchange."""

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType

from appliance.errors import CannotRun, RingBusy


class Ownership:
    """The locks on both directories, held until `close` or the end of the process, however it ends."""

    def __init__(self, directories: list[int]) -> None:
        self._directories = directories

    @classmethod
    def take(cls, ring_dir: Path, journal_dir: Path | None, exchange: str) -> "Ownership":
        """Create both directories if need be and lock them. Raises RingBusy, CannotRun."""
        taken = cls([])
        try:
            for role, directory in (("ring", ring_dir), ("journal", journal_dir)):
                if directory is None:
                    continue
                taken._directories.append(_lock(role, directory))
                _refuse_other_exchange(role, directory, exchange)
        except BaseException:
            taken.close()
            raise
        return taken

    def close(self) -> None:
        """Let both directories go."""
        while self._directories:
            os.close(self._directories.pop())

    def __enter__(self) -> "Ownership":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _lock(role: str, directory: Path) -> int:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise CannotRun(
            f"{role} directory {directory}: {error.strerror}; expected a directory that user {os.geteuid()} can create and write"
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno != errno.EWOULDBLOCK:
            raise CannotRun(f"{role} directory {directory}: cannot be locked: {error.strerror}") from error
        raise RingBusy(
            f"{role} directory {directory} belongs to another running mdc-appliance; "
            "stop that one first, or give this one directories of its own"
        ) from error
    try:
        probe = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        os.close(probe)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
            os.close(fd)
            raise CannotRun(
                f"{role} directory {directory}: cannot be written: {error.strerror}; "
                f"expected a directory that user {os.geteuid()} can write"
            ) from error
    return fd


def _refuse_other_exchange(role: str, directory: Path, exchange: str) -> None:
    for path in [*directory.glob("*_trade_chunk*.meta"), *directory.glob("*_trade_chunk*.journal")]:
        found = path.name.partition("_trade_chunk")[0]
        if found != exchange:
            raise CannotRun(
                f"{role} directory {directory} holds {path.name}, a file of exchange {found!r}; expected {exchange!r} or nothing; "
                "give each exchange directories of its own"
            )
