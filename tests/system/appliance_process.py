"""`mdc-appliance` as a process of its own, seen as an operator and systemd see it: exit status, log lines, notifications, files."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from appliance import Gap, Status, Trade, open_rings

DEADLINE_S = 30.0


class Site:
    """Directories and a configuration for one exchange; the ring lies on tmpfs."""

    def __init__(self, directory: Path, ring_dir: Path) -> None:
        self.directory = directory
        self.ring_dir = ring_dir
        self.journal_dir = directory / "journal"

    def config(self, exchange: str, **sections: str) -> Path:
        """A file with these `[exchange]` keys; `feed="legs = 1"` and so on add to the other sections."""
        texts = {
            "exchange": f'name = "binance"\n{exchange}',
            "ring": f'dir = "{self.ring_dir}"\ncapacity_mb = 16\nmlock = false',
            "journal": f'dir = "{self.journal_dir}"\nsegment_mb = 8\nkeep_free_gb = 0.0',
            "log": "json = true",
        }
        for name, text in sections.items():
            texts[name] = f"{texts.get(name, '')}\n{text}"
        path = self.directory / "mdc.toml"
        path.write_text("".join(f"[{name}]\n{text}\n" for name, text in texts.items()))
        return path

    def rings(self) -> list[str]:
        return sorted(path.name for path in self.ring_dir.glob("*_trade_chunk*"))

    def trades(self, directory: Path | None = None) -> list[tuple[str, int]]:
        """Symbol and id of every trade, in order of commit; of the journal if not said otherwise."""
        return [(value.asset, value.exchange_trade_id) for value in self.values(directory) if isinstance(value, Trade)]

    def events(self, directory: Path | None = None) -> list[str]:
        return [value.event for value in self.values(directory) if isinstance(value, Status)]

    def gaps(self) -> list[Gap]:
        return [value for value in self.values(None) if isinstance(value, Gap)]

    def values(self, directory: Path | None) -> Iterator[object]:
        yield from open_rings(directory or self.journal_dir)


@contextlib.contextmanager
def site(directory: Path) -> Iterator[Site]:
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="mdc-test-", dir=shared if shared.is_dir() else directory) as ring_dir:
        yield Site(directory, Path(ring_dir))


class Appliance:
    """A running mdc-appliance."""

    def __init__(self, process: subprocess.Popen[bytes], notifications: socket.socket) -> None:
        self.process = process
        self.log: list[str] = []
        self.notified: list[str] = []
        self._notifications = notifications
        self._threads = [threading.Thread(target=self._read_log), threading.Thread(target=self._read_notifications)]
        for thread in self._threads:
            thread.start()

    def wait(self, fact: Callable[[], object], within_s: float = DEADLINE_S) -> None:
        """Until something is so; the test fails when the process ends or the time is up before that."""
        deadline_s = time.monotonic() + within_s
        while not fact():
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                pytest.fail(f"did not come to pass; exit status {self.process.poll()}, log:\n" + "".join(self.log))
            time.sleep(0.02)  # the interval of a poll with a deadline

    def ready(self) -> None:
        self.wait(lambda: self.was_notified("READY=1"))

    def logged(self, pattern: str) -> bool:
        return any(re.search(pattern, line) for line in list(self.log))

    def was_notified(self, message: str) -> bool:
        return any(message in one.splitlines() or one.startswith(message) for one in list(self.notified))

    def stop(self, by: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(by)
        return self.ended()

    def ended(self, within_s: float = 15.0) -> int:
        """Its exit status, once it has ended."""
        try:
            status = self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            pytest.fail(f"did not end within {within_s} s, log:\n" + "".join(self.log))
        for thread in self._threads:
            thread.join()
        return status

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line.decode())

    def _read_notifications(self) -> None:
        self._notifications.settimeout(0.1)
        while True:
            try:
                self.notified.append(self._notifications.recv(4096).decode())
            except TimeoutError:
                if self.process.poll() is not None:
                    return


@contextlib.contextmanager
def appliance(config: Path, *flags: str, watchdog_s: float | None = None, environ: Mapping[str, str] | None = None) -> Iterator[Appliance]:
    """`mdc-appliance --config …` under a systemd of the test's own; killed at the end if it still runs."""
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
        address = f"{directory}/notify"
        notifications.bind(address)
        environ = {**os.environ, **(environ or {}), "NOTIFY_SOCKET": address}
        if watchdog_s is not None:
            environ["WATCHDOG_USEC"] = str(round(watchdog_s * 1_000_000))
        command = [sys.executable, "-c", "from appliance.cli import appliance_main; appliance_main()", "--config", str(config), *flags]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environ)
        one = Appliance(process, notifications)
        try:
            yield one
        finally:
            if process.poll() is None:
                process.kill()
                one.ended()
            if process.stderr is not None:
                process.stderr.close()
