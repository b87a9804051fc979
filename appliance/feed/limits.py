"""What this address may still ask of the exchange: bans, connects and request weight, kept across restarts.

A fresh process with an empty window is how four restarts in a minute become a ban, and asking while banned makes it longer (T8).
So all that counts is on file, in wall-clock time, before the request it stands for goes out.
"""

import json
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from aiolimiter import AsyncLimiter
from loguru import logger

from appliance.exchanges.exchange import BAN_S_MAX, Rules

WEIGHT_WINDOW_S = 60.0
REST_CONNECTIONS = 1  # of those that an address may have open, the worker's
FULL_S = 1.0  # until another look whether one of them has ended


def unstepped(wall_s: Callable[[], float] = time.time, monotonic_s: Callable[[], float] = time.monotonic) -> Callable[[], float]:
    """UNIX time as it is now, from here on counted by a clock that no one sets.

    A system clock that is set forward would end a ban at once, and one set back would prolong it by as much.
    """
    offset_s = wall_s() - monotonic_s()
    return lambda: monotonic_s() + offset_s


class Door(StrEnum):
    """Where bans are handed out, each for itself."""

    REST = "rest"
    WEBSOCKET = "websocket"


class Limits:
    """One exchange's limits. One thread; `now_s` is UNIX time that does not jump: see `unstepped`."""

    def __init__(self, directory: Path, rules: Rules, now_s: Callable[[], float]) -> None:
        self.credits = AsyncLimiter(rules.credits.room, rules.credits.room / rules.credits.per_s) if rules.credits else None
        """Of requests on all connections together, where the exchange counts so."""
        self.connections = 0
        """Open, or being opened."""
        self._path = directory / "limits.json"
        self._rules = rules
        self._now_s = now_s
        self._banned_until_s: dict[str, float] = {}
        self._connects_s: list[float] = []
        self._weights: list[tuple[float, int]] = []
        self._load()

    def banned_s(self, door: Door) -> float:
        """Seconds until this door may be tried again; 0 when it may."""
        return min(max(0.0, self._banned_until_s.get(door, 0.0) - self._now_s()), BAN_S_MAX)

    def ban(self, door: Door, seconds: float) -> None:
        """Stay away from a door. A shorter ban never ends a longer one."""
        until_s = self._now_s() + min(seconds, BAN_S_MAX)
        self._banned_until_s[door] = max(self._banned_until_s.get(door, 0.0), until_s)
        self._save()

    def connect_delay_s(self) -> float:
        """Seconds until a connection may be opened: the end of a ban, room in the window of connects, or among those that are open."""
        self._forget()
        delay_s = FULL_S if self.full else 0.0
        if len(self._connects_s) >= self._rules.connects:
            delay_s = max(delay_s, self._connects_s[-self._rules.connects] + self._rules.connects_window_s - self._now_s())
        return max(0.0, delay_s, self.banned_s(Door.WEBSOCKET))

    @property
    def full(self) -> bool:
        """Whether as many connections are open as one address may have."""
        return self.connections >= self._rules.connections - REST_CONNECTIONS

    def count_connect(self) -> None:
        """Call before each attempt, successful or not, and `count_end` after it."""
        self.connections += 1
        self._forget()
        self._connects_s.append(self._now_s())
        self._save()

    def count_end(self) -> None:
        """Call when a connection has ended, or never came to be."""
        self.connections -= 1

    def weight_delay_s(self, weight: int) -> float:
        """Seconds until a request of this weight may go out: the end of a ban, or room in the window of weights."""
        self._forget()
        room = self._rules.weight_per_minute - weight - sum(spent for _, spent in self._weights)
        delay_s = 0.0
        for at_s, spent in self._weights:
            if room >= 0:
                break
            room += spent
            delay_s = at_s + WEIGHT_WINDOW_S - self._now_s()
        return max(0.0, delay_s, self.banned_s(Door.REST))

    def count_weight(self, weight: int) -> None:
        """Call before each request."""
        self._forget()
        self._weights.append((self._now_s(), weight))
        self._save()

    def _forget(self) -> None:
        """Drop what has left the windows; what lies in the future is from before the clock was set back."""
        now_s = self._now_s()
        self._connects_s = [at_s for at_s in self._connects_s if 0 <= now_s - at_s < self._rules.connects_window_s]
        self._weights = [(at_s, spent) for at_s, spent in self._weights if 0 <= now_s - at_s < WEIGHT_WINDOW_S]

    def _load(self) -> None:
        try:
            found = json.loads(self._path.read_bytes())
            self._banned_until_s = {Door(door): float(until_s) for door, until_s in found["banned_until_s"].items()}
            self._connects_s = [float(at_s) for at_s in found["connects_s"]]
            self._weights = [(float(at_s), int(spent)) for at_s, spent in found["weights"]]
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.bind(event="limits_lost").warning(f"{self._path}: not readable ({error}); bans and windows begin anew")

    def _save(self) -> None:
        # On tmpfs, without fsync: it must outlive the process, and after a reboot its windows are over.
        content = {"banned_until_s": self._banned_until_s, "connects_s": self._connects_s, "weights": self._weights}
        new = self._path.with_suffix(".new")
        try:
            new.write_text(json.dumps(content))
            new.replace(self._path)
        except OSError as error:
            logger.bind(event="limits_not_kept").warning(f"{self._path}: not written ({error.strerror}); a restart will not know of it")
