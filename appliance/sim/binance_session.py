"""One websocket connection as the local Binance sees it: subscriptions, pings, the budget of messages (web-socket-streams.md)."""

import json
import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

from websockets.frames import Close, Frame, Opcode

from appliance.sim.dialect import Step
from appliance.sim.faults import EVERY, Faults, Hole, LongSubscribe, Shutdown, Strikes, TooManyStreams

POLICY_VIOLATION: Final = 1008
GOING_AWAY: Final = 1001

ID_TEXT = re.compile(r"[0-9A-Za-z_-]{1,36}")
METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")


@dataclass(frozen=True, slots=True)
class Audience:
    """What a connection gets: equal audiences get equal bytes."""

    symbols: frozenset[int]
    combined: bool
    microseconds: bool
    sees_holes: bool
    """Gets also what a `hole` fault withholds from others."""


class BinanceSession:
    """One websocket connection: its subscriptions, its pings, its budget of messages."""

    def __init__(
        self,
        symbols: Mapping[str, int],
        streams: Iterable[str],
        *,
        number: int,
        combined: bool,
        microseconds: bool,
        now_s: float,
        faults: Faults,
        strikes: Strikes,
        random: Random,
    ) -> None:
        self.audience: Audience | None = None
        self._symbols = symbols
        self._faults = faults
        self._limits = faults.limits
        self._strikes = strikes
        self._random = random
        self._sees_holes = _sees_holes(faults, number)
        self._streams = dict.fromkeys(streams)  # in the order of subscription
        self._combined = combined
        self._microseconds = microseconds
        self._opened_s = now_s
        self._next_ping_s = now_s + faults.limits.ping_interval_s
        self._pings: deque[tuple[bytes, float]] = deque()  # those not echoed
        self._messages: deque[float] = deque()
        self._late: deque[tuple[float, bytes]] = deque()  # requests taken later
        self._shutdowns = [f for f in faults.all(Shutdown) if f.connection in {EVERY, number}]
        self._close_s = now_s + faults.limits.lifetime_s
        self._settle()

    def received(self, frame: Frame, now_s: float) -> list[Step]:
        # Pings, pongs and control messages all count (web-socket-streams.md, "Websocket Limits").
        while self._messages and self._messages[0] <= now_s - 1.0:
            self._messages.popleft()
        self._messages.append(now_s)
        if len(self._messages) > self._limits.messages_per_s:
            return [Close(POLICY_VIOLATION, "")]
        if frame.opcode is Opcode.PONG:
            self._echoed(bytes(frame.data))
        elif frame.opcode is Opcode.TEXT:
            return self._take(bytes(frame.data), now_s)
        return []

    def due(self, now_s: float) -> list[Step]:
        limits = self._limits
        steps: list[Step] = []
        while self._late and self._late[0][0] <= now_s:
            steps.extend(self._control(self._late.popleft()[1]))
        if self._pings and self._pings[0][1] + limits.pong_timeout_s <= now_s:
            return [*steps, Close(POLICY_VIOLATION, "Pong timeout")]
        for shutdown in [f for f in self._shutdowns if self._opened_s + f.after_s <= now_s]:
            self._shutdowns.remove(shutdown)
            if self._strikes.hit(shutdown, shutdown.times):
                steps.append(Frame(Opcode.TEXT, self._shutdown_notice(now_s)))
                if shutdown.close:
                    self._close_s = now_s + self._random.uniform(0, shutdown.within_s)
        if self._close_s <= now_s:
            return [*steps, Close(GOING_AWAY, "")]
        if self._next_ping_s <= now_s:
            payload = b"%d" % int(now_s * 1_000)
            self._pings.append((payload, now_s))
            self._next_ping_s = max(self._next_ping_s + limits.ping_interval_s, now_s)
            steps.append(Frame(Opcode.PING, payload))
        return steps

    def _echoed(self, payload: bytes) -> None:
        """An answered ping answers the ones before it too; any other pong is unsolicited."""
        if any(payload == ping for ping, _ in self._pings):
            while self._pings.popleft()[0] != payload:
                pass

    def _shutdown_notice(self, now_s: float) -> bytes:
        event = b'{"e":"serverShutdown","E":%d}' % int(now_s * (1_000_000 if self._microseconds else 1_000))
        return b'{"stream":"!serverShutdown","data":%s}' % event if self._combined else event

    def _take(self, text: bytes, now_s: float) -> list[Step]:
        if len(text) > self._limits.subscribe_bytes_max:
            long = self._faults.one(LongSubscribe) or LongSubscribe(reaction="ignore")
            if long.reaction == "late":
                self._late.append((now_s + long.late_s, text))
            if long.reaction != "answer":
                return []
        return self._control(text)

    def _control(self, text: bytes) -> list[Step]:
        try:
            request = json.loads(text)
        except (ValueError, RecursionError):
            return [_failed(3, "Invalid JSON: expected value at line 1 column 1", None)]
        if not isinstance(request, dict):
            return [_failed(2, "Invalid request: expected an object", None)]
        number = request.get("id")
        if not _is_id(number):
            return [_failed(2, "Invalid request: request ID must be an integer, a string of up to 36 characters or null", None)]
        method, params = request.get("method"), request.get("params", [])
        if method is None:
            return [_failed(2, "Invalid request: missing field `method`", number)]
        if method not in METHODS:
            expected = ", ".join(f"`{name}`" for name in METHODS)
            return [_failed(2, f"Invalid request: unknown variant `{method}`, expected one of {expected}", number)]
        if not isinstance(params, list):
            return [_failed(2, "Invalid request: params must be a list", number)]
        step: Step = getattr(self, f"_{method.lower()}")(params, number)
        return [step]

    def _subscribe(self, params: list[object], number: object) -> Step:
        names = _stream_names(params)
        if names is None:
            return _failed(2, "Invalid request: invalid stream", number)
        streams = self._streams | dict.fromkeys(names)
        if len(streams) > self._limits.streams_max:
            if self._faults.one(TooManyStreams):
                return Close(POLICY_VIOLATION, "")
            return _failed(2, f"Invalid request: more than {self._limits.streams_max} streams", number)
        self._streams = streams
        self._settle()
        return _result(None, number)

    def _unsubscribe(self, params: list[object], number: object) -> Step:
        names = _stream_names(params)
        if names is None:
            return _failed(2, "Invalid request: invalid stream", number)
        for name in names:
            self._streams.pop(name, None)
        self._settle()
        return _result(None, number)

    def _list_subscriptions(self, params: list[object], number: object) -> Step:
        return _result(list(self._streams), number)

    def _set_property(self, params: list[object], number: object) -> Step:
        if len(params) > 2:
            return _failed(2, "Invalid request: too many parameters", number)
        if not params or not isinstance(params[0], str):
            return _failed(2, "Invalid request: property name must be a string", number)
        if params[0] != "combined":
            return _failed(0, "Unknown property", number)
        if len(params) < 2 or not isinstance(params[1], bool):
            return _failed(1, "Invalid value type: expected Boolean", number)
        self._combined = params[1]
        self._settle()
        return _result(None, number)

    def _get_property(self, params: list[object], number: object) -> Step:
        if len(params) > 1:
            return _failed(2, "Invalid request: too many parameters", number)
        if not params or not isinstance(params[0], str):
            return _failed(2, "Invalid request: property name must be a string", number)
        if params[0] != "combined":
            return _failed(0, "Unknown property", number)
        return _result(self._combined, number)

    def _settle(self) -> None:
        symbols = frozenset(self._symbols[stream] for stream in self._streams if stream in self._symbols)
        self.audience = Audience(symbols, self._combined, self._microseconds, self._sees_holes) if symbols else None


def _sees_holes(faults: Faults, number: int) -> bool:
    """Whether `hole` faults spare this connection."""
    holes = faults.all(Hole)
    return bool(holes) and all(hole.connection not in {EVERY, number} for hole in holes)


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _result(result: object, number: object) -> Frame:
    return Frame(Opcode.TEXT, _json({"result": result, "id": number}))


def _failed(code: int, message: str, number: object) -> Frame:
    return Frame(Opcode.TEXT, _json({"error": {"code": code, "msg": message}, "id": number}))


def _is_id(number: object) -> bool:
    if isinstance(number, bool):
        return False
    if isinstance(number, int):
        return -(2**63) <= number < 2**63
    return number is None or (isinstance(number, str) and ID_TEXT.fullmatch(number) is not None)


def _stream_names(params: list[object]) -> list[str] | None:
    """The streams of a request; None when one of them cannot be a stream's name at all."""
    names = [name for name in params if isinstance(name, str) and name and not any(c.isspace() or c in '"/' for c in name)]
    return names if len(names) == len(params) and names else None
