"""A recording, sent frame by frame as it was recorded."""

import asyncio
import base64
import json
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from websockets.frames import Frame, Opcode

from appliance.errors import CannotRun, ConfigError
from appliance.sim.dialect import Frames, PrintedTrade, Recipient

SLICE_FRAMES = 1_024
REPLAYED = b'{"recv_ts_ns":'  # as each line of mdc replay --json begins
TICK_S = 0.001
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@dataclass(slots=True)
class Recording:
    """The frames of a file, ready for the wire."""

    data: bytes = b""
    ends: list[int] = field(default_factory=list)
    """The position in `data` behind each frame."""
    trades: list[int] = field(default_factory=list)
    """How many trades there are up to and including each frame."""
    printed: dict[str, dict[int, PrintedTrade]] = field(default_factory=dict)
    """By symbol and id; the first copy counts."""

    @classmethod
    def load(cls, path: Path) -> "Recording":
        """Read `{"recv_ns":…,"conn":…,"raw":"…"}` lines, those of `mdc replay --json`, or one frame a line; zstd by its magic number.

        Raises ConfigError.
        """
        recording = cls()
        wire = bytearray()
        trades = 0
        try:
            lines = read_maybe_zstd(path).split(b"\n")
        except OSError as error:
            raise ConfigError(f"--capture {path}: {error.strerror}") from None
        except ValueError as error:
            raise ConfigError(f"--capture {path}: {error}") from None
        for number, line in enumerate(lines, 1):
            if not (line := line.rstrip(b"\r")):
                continue
            text = _frame(line, f"{path}:{number}")
            wire += Frame(Opcode.TEXT, text).serialize(mask=False)
            trades += recording._note(text)
            recording.ends.append(len(wire))
            recording.trades.append(trades)
        if not recording.ends:
            raise ConfigError(f"--capture {path}: holds no frame")
        recording.data = bytes(wire)
        return recording

    def _note(self, text: bytes) -> int:
        """Remember the trades of a frame for REST; how many it holds."""
        if b'"trade_seq"' in text:
            return self._note_rows(text)
        if b'"trade"' not in text:
            return 0
        try:
            message = json.loads(text)
        except ValueError:
            return 0
        trade = message.get("data", message) if isinstance(message, dict) else None
        if not isinstance(trade, dict) or trade.get("e") != "trade" or "X" in trade:
            return 0
        try:
            time_us = trade["T"] if trade["T"] > 10**14 else trade["T"] * 1_000
            row = PrintedTrade(trade["t"], trade["p"], trade["q"], time_us, trade["m"])
            self.printed.setdefault(trade["s"], {}).setdefault(row.trade_id, row)
        except (KeyError, TypeError):
            return 0
        return 1

    def _note_rows(self, text: bytes) -> int:
        """The same of a Deribit notification."""
        try:
            params = json.loads(text, parse_float=str)["params"]
            rows = params["data"] if params["channel"].startswith("trades.") else []
            for row in rows:
                time_us, sells = row["timestamp"] * 1_000, row["direction"] == "sell"
                trade = PrintedTrade(row["trade_seq"], str(row["price"]), str(row["amount"]), time_us, sells)
                self.printed.setdefault(row["instrument_name"], {}).setdefault(trade.trade_id, trade)
        except (ValueError, KeyError, TypeError, AttributeError):
            return 0
        return len(rows)


class CaptureFeed:
    """Sends the whole recording to each connection from its beginning, subscribed or not, once `start_after` are there."""

    def __init__(self, recording: Recording, *, rate: float | None, count: int | None, start_after: int) -> None:
        self._recording = recording
        self._frames = len(recording.ends) if count is None else min(count, len(recording.ends))
        self._rate = rate
        self._start_after = start_after
        self._next: dict[Recipient, int] = {}
        self._farthest = 0
        self._wake = asyncio.Event()
        self._began_s: dict[Recipient, float] = {}
        self._rows = {symbol: [rows[trade_id] for trade_id in sorted(rows)] for symbol, rows in recording.printed.items()}

    def changed(self, connection: Recipient) -> None:
        self._next.setdefault(connection, 0)
        self._wake.set()

    def left(self, connection: Recipient) -> None:
        self._next.pop(connection, None)
        self._began_s.pop(connection, None)
        self._wake.set()

    def resumed(self) -> None:
        self._wake.set()

    def rows(self, symbol: str, from_id: int | None, limit: int, until_us: int) -> list[PrintedTrade]:
        rows = [row for row in self._rows.get(symbol, []) if row.trade_us <= until_us]
        if from_id is None:
            return rows[-limit:]
        return [row for row in rows if row.trade_id >= from_id][:limit]

    def stats(self) -> Mapping[str, object]:
        trades = self._recording.trades
        return {
            "trades_generated": trades[self._frames - 1] if self._frames else 0,
            "trades_sent": trades[self._farthest - 1] if self._farthest else 0,
            "subscribed": len(self._next),
            "finished": bool(self._next) and all(at == self._frames for at in self._next.values()),
        }

    async def run(self, frames: Callable[[Hashable], Frames]) -> None:
        while len(self._next) < self._start_after:
            await self._waken()
        while True:
            waiting = [c for c, at in self._next.items() if at < self._frames and c.writable]
            if not waiting:
                await self._waken()
                continue
            for connection in waiting:
                self._send_slice(connection)
            await asyncio.sleep(0 if self._rate is None else TICK_S)

    def _send_slice(self, connection: Recipient) -> None:
        start = self._next[connection]
        end = min(start + SLICE_FRAMES, self._frames)
        if self._rate is not None:
            began_s = self._began_s.setdefault(connection, time.monotonic())
            end = min(end, 1 + int((time.monotonic() - began_s) * self._rate))
        if end <= start:
            return
        ends = self._recording.ends
        self._next[connection] = end
        self._farthest = max(self._farthest, end)
        connection.deliver(self._recording.data[ends[start - 1] if start else 0 : ends[end - 1]], end - start)

    async def _waken(self) -> None:
        self._wake.clear()
        await self._wake.wait()


def read_maybe_zstd(path: Path) -> bytes:
    """A file's bytes, decompressed if they are zstd by their magic number. Raises OSError, ValueError, CannotRun."""
    stored = path.read_bytes()
    if not stored.startswith(ZSTD_MAGIC):
        return stored
    try:
        import zstandard  # for recordings alone; Python has none of its own before 3.14
    except ModuleNotFoundError:
        raise CannotRun(
            f"{path} is compressed with zstd, which needs the package `zstandard`: pip install 'mdc-appliance[sim]', or unzstd the file"
        ) from None
    try:
        # Appended files hold several compressed parts (T26).
        return zstandard.ZstdDecompressor().stream_reader(stored, read_across_frames=True).read()
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from None


def _frame(line: bytes, where: str) -> bytes:
    """The frame of one line: the text of its `raw`, what `mdc replay` printed, or the line itself when it is a frame of the exchange."""
    replayed = line.startswith(REPLAYED)
    if not replayed and b'"raw"' not in line:
        return line
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"--capture {where}: neither a record nor a frame: {error}") from None
    if replayed and "frame_base64" in record:
        return base64.b64decode(record["frame_base64"])
    raw = record.get("frame" if replayed else "raw") if isinstance(record, dict) else None
    return raw.encode() if isinstance(raw, str) else line
