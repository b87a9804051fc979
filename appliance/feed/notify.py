"""What systemd is told: that we are ready, alive, still starting, going (sd_notify(3)). Without systemd, nothing happens."""

import os
from collections.abc import Mapping

from sdnotify import SystemdNotifier  # type: ignore[import-untyped]

EXTEND_S = 60


class Notifier:
    """The notification socket of this process. Never blocks, never raises."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._notifier = SystemdNotifier() if environ.get("NOTIFY_SOCKET") else None
        if self._notifier is not None and self._notifier.socket is not None:
            self._notifier.socket.setblocking(False)
        ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        watchdog_us = environ.get("WATCHDOG_USEC", "")
        self.watchdog_s = int(watchdog_us) / 3_000_000 if ours and watchdog_us.isdigit() and int(watchdog_us) > 0 else None
        """Seconds between two signs of life, a third of what systemd waits for; None: it waits for none."""

    def ready(self) -> None:
        self._notify("READY=1")

    def alive(self) -> None:
        self._notify("WATCHDOG=1")

    def still_starting(self) -> None:
        """Ask for more time: an exchange that refuses is no reason to be killed."""
        self._notify(f"EXTEND_TIMEOUT_USEC={EXTEND_S * 1_000_000}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._notify(f"STATUS={text}")

    def stopping(self, drain_s: float) -> None:
        self._notify(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={round(drain_s * 1_000_000)}")

    def close(self) -> None:
        if self._notifier is not None and self._notifier.socket is not None:
            self._notifier.socket.close()

    def _notify(self, message: str) -> None:
        if self._notifier is not None:
            # sdnotify encodes latin-1 and swallows what does not fit.
            self._notifier.notify(message.encode("ascii", "replace").decode())
