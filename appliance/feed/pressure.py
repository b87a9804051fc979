"""Pressure: what is done when the journal does not keep up with the feed."""

import time
from collections.abc import Callable

from picows import WSTransport

from appliance.ring.store import ChunkStore

RESERVE_BYTES_PER_LEG = 4 << 20  # 800 KiB of frames were measured to come after a pause
PAUSE_S_MAX = 10.0  # longer, and the exchange drops a client that does not read


class Pressure:
    """Pauses the legs of one chunk while the ring is short of room; after too long, or a disk error, gives up the journal.

    In mode safe nothing unflushed is overwritten. In mode lossy the ring goes on and the journal gets a hole, until
    the flusher has caught up. Loop thread only.
    """

    def __init__(self, store: ChunkStore, legs: int, capacity_bytes: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.reserve_bytes = min(legs * RESERVE_BYTES_PER_LEG, capacity_bytes // 4)
        self._store = store
        self._capacity_bytes = capacity_bytes
        self._monotonic = monotonic
        self._paused: list[WSTransport] = []
        self._since = 0.0

    def pause(self, transport: WSTransport) -> None:
        """Called by the hot path at a read that finds less room than the reserve."""
        if transport in self._paused:
            return
        if not self._paused:
            self._since = self._monotonic()
            self._store.writer.add_to("pauses")
            if self._store.flusher is not None:
                self._store.flusher.wake()
        self._paused.append(transport)
        transport.underlying_transport.pause_reading()

    def turn(self) -> dict[str, object] | None:
        """Resume, or change the mode; the status record's fields if the mode changed."""
        writer, flusher = self._store.writer, self._store.flusher
        if flusher is None:
            return None
        if writer.lossy:
            if not flusher.failing and writer.unflushed_bytes < self._capacity_bytes // 8:
                writer.lossy = False
                return {"event": "journal_caught_up", "mode": "safe"}
            return None
        waited_s = self._monotonic() - self._since if self._paused else 0.0
        if flusher.failing or waited_s > PAUSE_S_MAX:
            writer.lossy = True
            self._resume()
            reason = flusher.error_text if flusher.failing else f"the disk took less than came for {PAUSE_S_MAX:g} s"
            return {"event": "journal_behind", "mode": "lossy", "reason": reason}
        if self._paused and writer.room_bytes > 2 * self.reserve_bytes:
            self._resume()
        return None

    def _resume(self) -> None:
        for transport in self._paused:
            if not transport.is_disconnected:
                transport.underlying_transport.resume_reading()
        self._paused.clear()
