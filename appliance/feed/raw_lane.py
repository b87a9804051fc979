"""The raw lane of one chunk: frames as received, kept for some hours beside the journal; best effort, and never in a trade's way."""

import socket
from pathlib import Path
from typing import Protocol

from loguru import logger

from appliance.clock import unix_ns
from appliance.ring import raw_segments
from appliance.ring.raw_buffer import RawBuffer
from appliance.ring.raw_writer import RawWriter

SEGMENT_S = 600.0  # what is deleted at once
SEGMENT_BYTES_MAX = 64 << 20  # a reader takes it into memory
SLOW = "its thread or its disk took less than came"


class Tell(Protocol):
    """Where its events go: a status record of the chunk."""

    def __call__(self, event: str, **fields: object) -> None: ...


class Counters(Protocol):
    """The ring's counters."""

    def add_to(self, counter: str, amount: int = 1) -> None: ...


class RawLane:
    """The buffer that the hot path pushes into, and the thread that empties it. Loop thread only."""

    def __init__(self, chunk: int, buffer: RawBuffer, writer: RawWriter, counters: Counters, tell: Tell) -> None:
        self.buffer = buffer
        self._writer = writer
        self._counters = counters
        self._tell = tell
        self._log = logger.bind(chunk=chunk)
        self._counted = dict.fromkeys(("raw_frames", "raw_shed", "raw_bytes"), 0)
        self._shed = 0  # by the buffer, at the last turn
        self._shedding_since: tuple[int, int] | None = None  # (frames shed before, UNIX ns)
        self._failing = False
        writer.start()

    @classmethod
    def open(
        cls, journal_dir: Path, exchange: str, chunk: int, counters: Counters, tell: Tell,
        *, buffer_bytes: int, segment_bytes: int, keep_free_bytes: int,
    ) -> "RawLane":  # fmt: skip
        """Begin to keep frames of this chunk below `journal_dir`, which must be there. Each start has segments of its own."""
        newest = raw_segments.segments(journal_dir / raw_segments.DIRECTORY, exchange, chunk)[-1:]
        buffer = RawBuffer(buffer_bytes)
        writer = RawWriter(
            buffer, journal_dir, raw_segments.DIRECTORY, f"{exchange}_trade_chunk{chunk}",
            raw_segments.header(exchange, chunk, socket.gethostname(), unix_ns()),
            newest_ns=newest[0].created_ns if newest else 0,
            segment_bytes=min(segment_bytes, SEGMENT_BYTES_MAX), segment_s=SEGMENT_S, keep_free_bytes=keep_free_bytes,
        )  # fmt: skip
        return cls(chunk, buffer, writer, counters, tell)

    def turn(self) -> None:
        """Every 50 ms: counters, and what is to be said of shedding."""
        shed, failing = self.buffer.shed, self._writer.failing
        self._count()
        if failing and not self._failing:
            self._log.bind(event="raw_failing").error(f"the raw lane cannot write: {self._writer.error_text}; it tries again every second")
        self._failing = failing
        if shed > self._shed:
            if self._shedding_since is None:
                reason = self._writer.error_text or SLOW
                self._shedding_since = (self._shed, unix_ns())
                self._tell("raw_shedding", reason=reason)
                self._log.bind(event="raw_shedding").warning(f"the raw lane keeps not all frames: {reason}. Trades are not concerned")
        elif self._shedding_since is not None and self.buffer.tell():
            self._end_shedding()
        self._shed = shed

    def finish(self) -> None:
        """Ask it to write what it has; nothing may be pushed any more. `stop` waits for it."""
        self.turn()
        self.buffer.tell()
        self._writer.finish()

    def stop(self, timeout_s: float) -> None:
        """Write what it has, end its thread, count and say what the disk did not take."""
        self.finish()
        ended = self._writer.stop(timeout_s)
        self._count()
        dropped = self._writer.dropped
        if self._shedding_since is not None:
            self._end_shedding()
        if dropped or not ended:
            reason = self._writer.error_text or SLOW
            self._tell("raw_dropped", frames=dropped, reason=reason) if ended else self._tell("raw_dropped", reason=reason)
            self._log.bind(event="raw_dropped").warning(f"the disk did not take the raw lane's last frames: {reason}")

    def _end_shedding(self) -> None:
        assert self._shedding_since is not None
        before, since_ns = self._shedding_since
        self._shedding_since = None
        frames = self.buffer.shed - before
        self._tell("raw_shed", frames=frames, since_ts_ms=since_ns // 1_000_000)
        self._log.bind(event="raw_shed").warning(f"the raw lane keeps all frames again; {frames} were not kept")

    def _count(self) -> None:
        """Counters outlive the process: what is new is added."""
        now = {
            "raw_frames": self.buffer.frames,
            "raw_shed": self.buffer.shed + self._writer.dropped,
            "raw_bytes": self._writer.written_bytes,
        }
        for name, value in now.items():
            self._counters.add_to(name, value - self._counted[name])
        self._counted = now
