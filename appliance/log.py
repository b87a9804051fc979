"""The log of a process that must not wait for it: structured lines on standard error, bounded in number and in rate.

Everybody logs with loguru's `logger`, facts beside the words: `logger.bind(event="leg_lost", chunk=0, leg=1).warning("connection lost")`.
`event` names the kind, by which the rate is limited; without one the line of code is the kind. What the standard library's
`logging` is told (asyncio, picows, warnings) takes the same way.
"""

import json
import logging
import os
import queue
import select
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from pathlib import PurePath
from types import TracebackType
from typing import TYPE_CHECKING

from loguru import logger

if TYPE_CHECKING:
    from loguru import Message, Record

LINES_MAX = 10_000  # waiting to be written; a few MB
TEXT_CHARACTERS_MAX = 1_000  # of one value: a peer decides how long its message is
CLOSE_S = 2.0  # a stalled reader of standard error must not stall the drain

# Of one kind: so many at once, then one in so many seconds.
BURST = 20
REFILL_S = 5.0
KINDS_MAX = 1_000

HIDDEN = "***"
DROPPED = "lines were dropped: nobody reads standard error"

# sd-daemon(3): the journal takes a line's priority from such a prefix.
PRIORITIES = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "SUCCESS": 5, "INFO": 6}


class Log:
    """The running log. `start` makes one, `close` or leaving the context writes out what waits, for a bounded time."""

    def __init__(self, handler: int, rate_limit: "RateLimit", sink: "_Dropping", listener: QueueListener) -> None:
        self._handler = handler
        self._rate_limit = rate_limit
        self._sink = sink
        self._listener = listener
        self._closed = False

    @property
    def dropped(self) -> int:
        """Lines lost because nobody took them from us."""
        return self._sink.dropped

    def close(self) -> None:
        """End it. What is logged afterwards goes nowhere."""
        if self._closed:
            return
        self._closed = True
        logging.captureWarnings(False)
        logging.getLogger().handlers.clear()
        if held_back := self._rate_limit.untold():
            logger.bind(held_back=held_back).info("lines of kinds that came too often were held back")
        logger.remove(self._handler)
        self._sink.tell_dropped()
        # QueueListener.stop waits for its thread, and that one perhaps for a reader that never comes.
        closing = threading.Thread(target=self._listener.stop, daemon=True)
        closing.start()
        closing.join(CLOSE_S)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def start(level: str = "INFO", as_json: bool = False, *, secrets: Sequence[str] = (), fd: int = 2, lines_max: int = LINES_MAX) -> Log:
    """Send all logging of this process to `fd`. The caller never waits: when `lines_max` lines wait, further ones are counted instead."""
    waiting: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    render = Json() if as_json else Text(for_journal=_is_journal(fd))
    rate_limit = RateLimit(time.monotonic)
    sink = _Dropping(waiting, render, secrets, lines_max)
    listener = QueueListener(waiting, _Descriptor(fd))
    listener.start()
    logger.remove()
    handler = logger.add(
        sink.write, level=level, format=_only_exception, filter=rate_limit, colorize=False, diagnose=False, backtrace=False
    )
    logging.basicConfig(handlers=[_Intercept()], level=level, force=True)
    logging.captureWarnings(True)
    return Log(handler, rate_limit, sink, listener)


class RateLimit:
    """A filter: of each kind of event a burst, then a trickle. What was held back is counted in the next line of its kind."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._kinds: dict[object, _Allowance] = {}
        self._lock = threading.Lock()

    def __call__(self, record: "Record") -> bool:
        if record["level"].name == "CRITICAL":
            return True
        kind = record["extra"].get("event") or (record["name"], record["line"])
        with self._lock:
            if kind not in self._kinds and len(self._kinds) == KINDS_MAX:
                self._kinds.clear()
            allowance = self._kinds.setdefault(kind, _Allowance(BURST, self._now_s()))
            if not allowance.take(self._now_s()):
                return False
            if allowance.held_back:
                record["extra"]["held_back"] = allowance.held_back
                allowance.held_back = 0
            return True

    def untold(self) -> int:
        """Lines held back since the last line of their kind."""
        with self._lock:
            return sum(allowance.held_back for allowance in self._kinds.values())


@dataclass(slots=True)
class _Allowance:
    lines: float
    at_s: float
    held_back: int = 0

    def take(self, now_s: float) -> bool:
        self.lines = min(BURST, self.lines + (now_s - self.at_s) / REFILL_S)
        self.at_s = now_s
        if self.lines < 1:
            self.held_back += 1
            return False
        self.lines -= 1
        return True


class Text:
    """A record as one line for people, its facts as name=value; a traceback on further lines."""

    def __init__(self, for_journal: bool) -> None:
        self._for_journal = for_journal

    def __call__(self, record: "Record", trace: str) -> str:
        facts = "".join(f"  {name}={_quoted(value)}" for name, value in record["extra"].items())
        line = f"{_origin(record)}: {_printable(record['message'])}{facts}"
        return self._lines(record["time"], record["level"].name, [line, *(f"    {traced}" for traced in trace.splitlines())])

    def dropped(self, count: int) -> str:
        """The line that stands for lines which nobody took."""
        return self._lines(datetime.now(UTC), "WARNING", [f"log: {DROPPED}  dropped={count}"])

    def _lines(self, moment: datetime, level: str, lines: list[str]) -> str:
        lines[0] = f"{level:<7} {lines[0]}" if self._for_journal else f"{_utc(moment)} {level:<7} {lines[0]}"
        prefix = f"<{PRIORITIES.get(level, 7)}>" if self._for_journal else ""
        return "".join(f"{prefix}{line}\n" for line in lines)


class Json:
    """A record as one JSON object on a line: its facts, then `time`, `level`, `origin`, `message` and perhaps `traceback`."""

    def __call__(self, record: "Record", trace: str) -> str:
        facts = {
            name: value if isinstance(value, int | float | bool | None) else _cut(str(value)) for name, value in record["extra"].items()
        }
        fixed = {"time": _utc(record["time"]), "level": record["level"].name, "origin": _origin(record), "message": _cut(record["message"])}
        if trace:
            fixed["traceback"] = trace
        return json.dumps({**facts, **fixed}, ensure_ascii=False) + "\n"

    def dropped(self, count: int) -> str:
        """The line that stands for lines which nobody took."""
        fixed = {"time": _utc(datetime.now(UTC)), "level": "WARNING", "origin": "log", "message": DROPPED}
        return json.dumps({"dropped": count, **fixed}) + "\n"


class _Dropping(QueueHandler):
    """Puts lines into the queue; a full one is no reason to wait."""

    def __init__(
        self, waiting: "queue.SimpleQueue[logging.LogRecord]", render: Text | Json, secrets: Sequence[str], lines_max: int
    ) -> None:
        super().__init__(waiting)
        self._waiting = waiting
        self._render = render
        # As they stand, and as they are spelled within quotes.
        self._secrets = {spelled for secret in secrets if secret for spelled in (secret, json.dumps(secret, ensure_ascii=False)[1:-1])}
        self._lines_max = lines_max
        self.dropped = 0
        self._told = 0

    def write(self, message: "Message") -> None:
        # Before anything is cut, which could leave a part of a secret; and once more whatever else is in the line.
        record = message.record
        record["message"] = self._hidden(record["message"])
        record["extra"] = {name: self._hidden(value) if isinstance(value, str) else value for name, value in record["extra"].items()}
        self.enqueue(_raw(self._hidden(self._render(record, str(message)))))

    def _hidden(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return text

    def enqueue(self, record: logging.LogRecord) -> None:
        # A SimpleQueue's put never waits for a lock; its bound is kept here.
        if self._waiting.qsize() >= self._lines_max:
            self.dropped += 1
            return
        if self._told != self.dropped:
            self.tell_dropped()
        self._waiting.put(record)

    def tell_dropped(self) -> None:
        """One line about the lines that are missing before it."""
        if self._told != self.dropped:
            missing, self._told = self.dropped - self._told, self.dropped
            self._waiting.put(_raw(self._render.dropped(missing)))


class _Descriptor(logging.Handler):
    """Writes past sys.stderr: a thread that is stuck in its buffer's lock makes the interpreter abort at exit."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd

    def createLock(self) -> None:
        """None: one thread writes, and logging.shutdown would wait for the lock of a write that never ends."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        rest = memoryview(str(record.msg).encode(errors="replace"))
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                # A terminal that another program has set to non-blocking.
                select.select([], [self._fd], [], 1.0)
            except OSError:
                return


class _Intercept(logging.Handler):
    """What the standard library's loggers are told goes to loguru, under their name."""

    def emit(self, record: logging.LogRecord) -> None:
        def relabel(ours: "Record") -> None:
            ours["name"], ours["function"], ours["line"] = record.name, record.funcName, record.lineno

        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        logger.opt(exception=record.exc_info).patch(relabel).log(level, record.getMessage())


def _raw(line: str) -> logging.LogRecord:
    return logging.LogRecord("", logging.INFO, "", 0, line, None, None)


def _only_exception(record: "Record") -> str:
    """loguru formats the traceback, without the variables' values; the line is ours."""
    return "{exception}"


def _is_journal(fd: int) -> bool:
    """Whether systemd reads this descriptor into the journal."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"


def _origin(record: "Record") -> str:
    return (record["name"] or "").removeprefix("appliance.")


def _quoted(value: object) -> str:
    if isinstance(value, PurePath):
        value = str(value)
    if not isinstance(value, str):
        return _printable(str(value))
    plain = value.isprintable() and not any(letter in ' "=' for letter in value) and value
    return _cut(value) if plain else json.dumps(_cut(value), ensure_ascii=False)


def _printable(text: str) -> str:
    """Text that stays on its line, whatever a peer has put into it."""
    text = _cut(text)
    return text if text.isprintable() else "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_CHARACTERS_MAX else f"{text[:TEXT_CHARACTERS_MAX]}… ({len(text)} characters)"
