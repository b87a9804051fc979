"""What one connection's frames go through before its socket: stalls, delays, cuts and garbage, or nothing at all."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import Literal

from websockets.frames import Frame, Opcode

from appliance.sim.faults import EVERY, Eof, Faults, Garbage, Kind, Lag, Mute, Reset, Stall, Strikes

End = Literal["reset", "eof"]


@dataclass(slots=True)
class Delivered:
    """Bytes for the socket, how many frames of the feed are whole in them, and whether the connection ends behind them."""

    data: bytes
    frames: int
    end: End | None = None


@dataclass(slots=True)
class _Stalled:
    """A stall of this connection, with the moment from which it holds."""

    stall: Stall
    since_s: float | None = field(default=None)


class Delivery:
    """The faults of connection `number`, applied to its frames in order."""

    def __init__(
        self,
        faults: Faults,
        number: int,
        opened_s: float,
        garbage: Callable[[Kind], Frame],
        strikes: Strikes,
    ) -> None:
        def here(fault: Mute | Stall | Lag | Reset | Eof | Garbage) -> bool:
            return fault.connection in {EVERY, number}

        self._opened_s = opened_s
        self._strikes = strikes
        self._garbage = garbage
        self._seen = 0
        self._cut = 0
        self._mute = any(here(fault) for fault in faults.all(Mute))
        self._stalls = [_Stalled(fault) for fault in faults.all(Stall) if here(fault)]
        self._lags = [fault for fault in faults.all(Lag) if here(fault)]
        self._held: deque[tuple[float, bytes, int]] = deque()  # by when they came
        self._ends: list[Reset | Eof] = [*filter(here, faults.all(Reset)), *filter(here, faults.all(Eof))]
        self._mixed = [(fault.every, cycle(fault.kinds)) for fault in faults.all(Garbage) if here(fault) and fault.every]
        self.plain = not (self._mute or self._stalls or self._lags or self._ends or self._mixed)
        """Every frame goes through untouched."""

    def silent(self, now_s: float) -> bool:
        """Whether nothing at all would get through just now."""
        return self._mute or any(self._holds(stalled, now_s) for stalled in self._stalls)

    def through(self, data: bytes, frames: int, now_s: float) -> Delivered:
        """What becomes of `frames` whole frames."""
        if self.plain:
            return Delivered(data, frames)
        out: list[bytes] = []
        sent = 0
        for frame in split(data):
            if (end := self.end(now_s)) is not None:
                cut = frame[: len(frame) // 2] if end == "reset" else b""
                return Delivered(b"".join([*out, cut]), sent, end)
            silent = self.silent(now_s)
            self._seen += 1
            if silent:
                continue
            sent += 1
            out.extend(self._mix(frame))
        if not self._lags:
            return Delivered(b"".join(out), sent)
        self._held.append((now_s, b"".join(out), sent))
        return self.due(now_s)

    def due(self, now_s: float) -> Delivered:
        """What was held back for long enough."""
        out: list[bytes] = []
        frames = 0
        delay_s = max((self._delay_s(lag, now_s) for lag in self._lags), default=0.0)
        while self._held and self._held[0][0] + delay_s <= now_s:
            _, data, held = self._held.popleft()
            out.append(data)
            frames += held
        return Delivered(b"".join(out), frames)

    def _delay_s(self, lag: Lag, now_s: float) -> float:
        since_s = now_s - self._opened_s - lag.after_s
        if since_s < 0 or (lag.for_s and since_s >= lag.for_s):
            return 0.0
        return min(lag.by_s, lag.by_s * since_s / lag.grow_s) if lag.grow_s else lag.by_s

    def end(self, now_s: float) -> End | None:
        """How the connection is to be ended now, if it is; that fault has then struck."""
        for fault in self._ends:
            due = self._seen >= fault.after_frames and now_s - self._opened_s >= fault.after_s
            if due and self._strikes.hit(fault, fault.times):
                return "eof" if isinstance(fault, Eof) else "reset"
        return None

    def _holds(self, stalled: _Stalled, now_s: float) -> bool:
        stall = stalled.stall
        if stalled.since_s is None:
            if self._seen < stall.after_frames or now_s - self._opened_s < stall.after_s:
                return False
            stalled.since_s = now_s
        return not stall.for_s or now_s - stalled.since_s < stall.for_s

    def _mix(self, frame: bytes) -> Iterator[bytes]:
        for every, kinds in self._mixed:
            if self._seen % every:
                continue
            kind = next(kinds)
            if kind == "fragmented":
                frame = self._fragments(frame)
            else:
                yield self._garbage(kind).serialize(mask=False)
        yield frame

    def _fragments(self, frame: bytes) -> bytes:
        """A trade's frame in three, cut one byte further each time, with a control frame between them as RFC 6455 allows."""
        payload = payload_of(frame)
        first = self._cut % (len(payload) + 1)
        second = min(len(payload), first + 1 + self._cut // (len(payload) + 1))
        self._cut += 1
        parts = [
            Frame(Opcode.TEXT, payload[:first], fin=False),
            Frame(Opcode.PONG, b""),  # unsolicited: nothing answers it
            Frame(Opcode.CONT, payload[first:second], fin=False),
            Frame(Opcode.CONT, payload[second:]),
        ]
        return b"".join(part.serialize(mask=False) for part in parts)


def split(data: bytes) -> Iterator[bytes]:
    """The single frames of unmasked, whole frames in a row."""
    start = 0
    while start < len(data):
        end = start + _header_bytes(data, start) + _payload_bytes(data, start)
        yield data[start:end]
        start = end


def payload_of(frame: bytes) -> bytes:
    """The payload of one unmasked frame."""
    return frame[_header_bytes(frame, 0) :]


def _header_bytes(data: bytes, start: int) -> int:
    return {126: 4, 127: 10}.get(data[start + 1], 2)


def _payload_bytes(data: bytes, start: int) -> int:
    header = _header_bytes(data, start)
    return data[start + 1] if header == 2 else int.from_bytes(data[start + 2 : start + header], "big")
