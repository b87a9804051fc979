"""A process of ours that must not outlive us: the REST worker, the local exchange."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from typing import Self

PR_SET_PDEATHSIG = 1  # linux/prctl.h
# What a child of ours needs. All else stays with us: a login, a socket to systemd, whatever an operator's shell may hold.
INHERITED = {"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "VIRTUAL_ENV"}
INHERITED_PREFIXES = ("LC_", "PYTHON")
PARENT_PID = "MDC_PARENT_PID"  # who started a child, told to it in its environment


def die_with_parent() -> None:
    """In a child: be killed when the process that started us ends, however it ends. Call it first of all."""
    # Asked now, the kernel might already name another: a parent killed while we were still loading.
    parent = int(os.environ.pop(PARENT_PID, None) or os.getppid())
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it ended before the kernel knew of our wish
        sys.exit(0)


class Child:
    """A running child: our pipe to its standard input, our pipe from its standard output. Its stderr is ours."""

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self._process = process

    @classmethod
    async def start(cls, name: str, command: Sequence[str], line_bytes_max: int = 16 * 1024 * 1024) -> Self:
        # A session of its own: Ctrl-C reaches the collector alone, which then ends its children in order.
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, limit=line_bytes_max, start_new_session=True, env=_environment()
        )
        return cls(name, process)

    @property
    def pid(self) -> int:
        return self._process.pid

    def write_line(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")

    async def read_line(self) -> bytes:
        """One line without its end; empty when the child has closed its output."""
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).rstrip(b"\n")

    async def wait(self) -> int:
        """Its exit status, when it has ended."""
        return await self._process.wait()

    async def stop(self, grace_s: float) -> int:
        """SIGTERM, and SIGKILL when that is not enough; returns its exit status."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(grace_s):
                return await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            return await self._process.wait()
        finally:
            assert self._process.stdin is not None
            self._process.stdin.close()


def _environment() -> dict[str, str]:
    """Ours, as far as a child needs it, and our pid."""
    ours = {name: value for name, value in os.environ.items() if name in INHERITED or name.startswith(INHERITED_PREFIXES)}
    return ours | {PARENT_PID: str(os.getpid())}
