"""The local exchange as a process of its own, for tests that need a real exchange over real sockets."""

import json
import os
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from appliance.feed.children import PARENT_PID

START_S = 15.0


@dataclass(frozen=True, slots=True)
class LocalExchange:
    """A running exchange: where it listens, and what it has counted so far."""

    rest_url: str
    ws_url: str
    ca_file: Path | None
    process: subprocess.Popen[bytes]

    @property
    def port(self) -> int:
        return int(self.rest_url.rpartition(":")[2])

    def stats(self, within_s: float = 10.0) -> dict[str, Any]:
        """Its `/sim/stats`."""
        context = None
        if self.ca_file is not None:
            context = ssl.create_default_context()
            context.check_hostname = False  # its certificate may be wrong on purpose
            context.verify_mode = ssl.CERT_NONE
        with urllib.request.urlopen(f"{self.rest_url}/sim/stats", timeout=within_s, context=context) as reply:
            stats: dict[str, Any] = json.load(reply)
            return stats

    def wait(self, fact: Callable[[dict[str, Any]], object], within_s: float = 20.0) -> dict[str, Any]:
        """Its statistics as soon as they show a fact; the test fails when they do not within `within_s`."""
        deadline = time.monotonic() + within_s
        while True:
            stats = self.stats()
            if fact(stats):
                return stats
            if time.monotonic() > deadline:
                pytest.fail(f"the local exchange did not get there within {within_s} s: {stats}")
            time.sleep(0.02)  # the interval of a poll with a deadline

    def stop(self) -> int:
        """Ends it by SIGTERM as an operator would; its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            pytest.fail("the local exchange did not end within 10 s of SIGTERM")


@contextmanager
def local_exchange(*flags: str, name: str = "binance") -> Iterator[LocalExchange]:
    """`mdc sim` with these flags on a free port, gone at the end: `with local_exchange("--rate", "max") as exchange:`."""
    command = [sys.executable, "-m", "appliance.sim.server", "--exchange", name, *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {PARENT_PID: str(os.getpid())})
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            pytest.fail(f"the local exchange did not start, exit status {process.wait(START_S)}: {' '.join(command)}")
        ready = json.loads(line)
        exchange = LocalExchange(
            rest_url=ready["rest_url"],
            ws_url=ready["ws_url"],
            ca_file=Path(ready["ca_file"]) if "ca_file" in ready else None,
            process=process,
        )
        yield exchange
        exchange.stop()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()
