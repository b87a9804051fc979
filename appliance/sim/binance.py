"""The local Binance: REST requests, websocket handshakes and control messages, as bytes in and bytes out.

Sources: rest-api.md, web-socket-streams.md, errors.md of binance-spot-api-docs. What those leave open is said where it is decided.
"""

import json
import random
import re
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from websockets.frames import Close, Frame, Opcode

from appliance.sim.binance_listing import SPOT_GROUPS, Filter, Listing
from appliance.sim.dialect import Frames, Printed, PrintedTrade, Reply, Request, Session, Step
from appliance.sim.faults import EVERY, Answer, Faults, Hole, Kind, LongSubscribe, Rest, Schema, Shutdown, TooManyStreams, Upgrade
from appliance.sim.render import Renderer
from appliance.sim.tape import Tape

POLICY_VIOLATION: Final = 1008
GOING_AWAY: Final = 1001

STATUSES = ("TRADING", "HALT", "BREAK")
BAN_AFTER_REFUSALS = 10
"""So many requests in one minute after the first 429 become a ban. Binance names no number."""

ID_TEXT = re.compile(r"[0-9A-Za-z_-]{1,36}")
METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
BLOCKED = (
    b'{"code":0,"msg":"Service unavailable from a restricted location according to \'b. Eligibility\' in '
    b'https://www.binance.com/en/terms. Please contact customer service if you believe you received this message in error."}'
)
HTML = b"<!DOCTYPE html>\n<html><head><title>Just a moment</title></head><body><h1>403 Forbidden</h1></body></html>\n"


@dataclass(frozen=True, slots=True)
class Audience:
    """What a connection gets: equal audiences get equal bytes."""

    symbols: frozenset[int]
    combined: bool
    microseconds: bool
    whole: bool
    """Sees also what a `hole` fault withholds from others."""


class Refused(Exception):
    """A request's mistake, in the exchange's own number and words; HTTP 400."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.reply = Reply(400, _error(code, message))


class Weights:
    """The request weight of each address in the current minute, and who is banned."""

    def __init__(self, per_minute: int, ban_s: float) -> None:
        self.per_minute = per_minute
        self.ban_s = ban_s
        self._minute = 0
        self._used: dict[str, int] = {}
        self._refusals: dict[str, int] = {}
        self._banned_until_s: dict[str, float] = {}

    def spend(self, address: str, weight: int, now_s: float) -> tuple[int, Reply | None]:
        """The weight used so far with this request, and the refusal if it is too much."""
        if now_s < (until_s := self._banned_until_s.get(address, 0.0)):
            return self._used.get(address, 0), self._banned(until_s, now_s)
        if int(now_s // 60) != self._minute:
            self._minute = int(now_s // 60)
            self._used.clear()
            self._refusals.clear()
        used = self._used[address] = self._used.get(address, 0) + weight
        if used <= self.per_minute:
            return used, None
        refusals = self._refusals[address] = self._refusals.get(address, 0) + 1
        if refusals > BAN_AFTER_REFUSALS:
            self._banned_until_s[address] = now_s + self.ban_s
            return used, self._banned(now_s + self.ban_s, now_s)
        text = (
            f"Too much request weight used; current limit is {self.per_minute} request weight per 1 MINUTE. "
            "Please use WebSocket Streams for live updates to avoid polling the API."
        )
        return used, Reply(429, _error(-1003, text), [("Retry-After", str(60 - int(now_s % 60)))])

    @staticmethod
    def _banned(until_s: float, now_s: float) -> Reply:
        return Reply(418, _banned_body(until_s), [("Retry-After", str(max(1, round(until_s - now_s))))])


class Binance:
    """The exchange: what it lists, what it printed, what it allows."""

    def __init__(self, listing: Listing, printed: Printed, tape: Tape | None, faults: Faults, seed: int = 0) -> None:
        self.listing = listing
        self.printed = printed
        self.tape = tape
        self.faults = faults
        self.limits = faults.limits
        self.weights = Weights(self.limits.weight_per_minute, self.limits.ban_s)
        self.random = random.Random(seed)
        self.requests: dict[str, int] = {}
        """REST requests so far, by path."""
        self._names = listing.trading()
        self._symbols = {f"{name.lower()}@trade": i for i, name in enumerate(self._names)}
        self._bodies: dict[Filter, bytes] = {}
        self._connects: dict[str, deque[float]] = {}
        self._opened = 0
        self._hits: dict[int, int] = {}
        self._routes: dict[str, tuple[int, Callable[[Mapping[str, str], int, float], bytes]]] = {
            "/api/v3/ping": (1, self._ping),
            "/api/v3/time": (1, self._time),
            "/api/v3/exchangeInfo": (20, self._exchange_info),
            "/api/v3/trades": (25, self._trades),
            "/api/v3/historicalTrades": (25, self._historical_trades),
        }

    # REST

    def answer(self, request: Request, now_s: float) -> Reply | None:
        url = urlsplit(request.target)
        self.requests[url.path] = self.requests.get(url.path, 0) + 1
        for fault in self.faults.all(Rest):
            if url.path.endswith(fault.path) and self.hit(fault, fault.times):
                return _faulty(fault.answer, fault.retry_after_s, now_s)
        if url.path not in self._routes:
            return Reply(404, b"<html><body><h2>404 Not found</h2></body></html>", content_type="text/html")
        weight, route = self._routes[url.path]
        used, refusal = self.weights.spend(request.address, weight, now_s)
        unit = 1_000_000 if request.headers.get("x-mbx-time-unit", "").upper() == "MICROSECOND" else 1_000
        try:
            reply = refusal or Reply(200, route(dict(parse_qsl(url.query, keep_blank_values=True)), unit, now_s))
        except Refused as refused:
            reply = refused.reply
        counted = [("X-MBX-USED-WEIGHT", str(used)), ("X-MBX-USED-WEIGHT-1M", str(used))]
        return Reply(reply.status, reply.body, [*reply.headers, *counted])

    def _ping(self, query: Mapping[str, str], unit: int, now_s: float) -> bytes:
        _expect(query, ())
        return b"{}"

    def _time(self, query: Mapping[str, str], unit: int, now_s: float) -> bytes:
        _expect(query, ())
        return b'{"serverTime":%d}' % int(now_s * unit)

    def _exchange_info(self, query: Mapping[str, str], unit: int, now_s: float) -> bytes:
        wanted = self._filter(query)
        # Asked for again and again by many: made once a question. Its serverTime is that of the first time.
        if wanted not in self._bodies:
            self._bodies[wanted] = self.listing.body(wanted, int(now_s * 1_000))
        return self._bodies[wanted]

    def _filter(self, query: Mapping[str, str]) -> Filter:
        _expect(query, ("symbol", "symbols", "permissions", "showPermissionSets", "symbolStatus"))
        names = _list(query, "symbols") if "symbols" in query else [query["symbol"]] if "symbol" in query else None
        if names is not None:
            if "permissions" in query or "symbolStatus" in query or {"symbol", "symbols"} <= query.keys():
                raise Refused(-1128, "Combination of optional parameters invalid.")
            if any(name not in self.listing for name in names):
                raise Refused(-1121, "Invalid symbol.")
        status = query.get("symbolStatus")
        if status is not None and status not in STATUSES:
            raise Refused(-1122, "Invalid symbolStatus.")
        show = query.get("showPermissionSets", "true")
        if show not in {"true", "false"}:
            raise Refused(-1130, "Data sent for parameter 'showPermissionSets' is not valid.")
        groups = frozenset(_list(query, "permissions")) if "permissions" in query else SPOT_GROUPS
        return Filter(tuple(names) if names is not None else None, groups, status, show == "true")

    def _trades(self, query: Mapping[str, str], unit: int, now_s: float) -> bytes:
        _expect(query, ("symbol", "limit"))
        return _rows(self.printed.rows(self._listed(query), None, _limit(query), int(now_s * 1_000_000)), unit)

    def _historical_trades(self, query: Mapping[str, str], unit: int, now_s: float) -> bytes:
        _expect(query, ("symbol", "limit", "fromId"))
        from_id = _number(query, "fromId") if "fromId" in query else None
        # From a database that follows the market with a delay; `trades` above comes from memory.
        until_us = int(now_s * 1_000_000) - self.limits.rest_lag_ms * 1_000
        return _rows(self.printed.rows(self._listed(query), from_id, _limit(query), until_us), unit)

    def _listed(self, query: Mapping[str, str]) -> str:
        name = query.get("symbol", "")
        if not name:
            raise Refused(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
        if name not in self.listing:
            raise Refused(-1121, "Invalid symbol.")
        return name

    # Websocket

    def upgrade(self, request: Request, now_s: float) -> Session | Reply | None:
        for fault in self.faults.all(Upgrade):
            if self.hit(fault, fault.times):
                return _faulty(fault.answer, fault.retry_after_s, now_s)
        if len(request.target.encode()) > self.limits.uri_bytes_max:
            return Reply(414, b"<html><body><h1>414 Request-URI Too Large</h1></body></html>", content_type="text/html")
        if (wait_s := self._connect(request.address, now_s)) > 0:
            return Reply(429, _error(-1003, "Too many connection attempts."), [("Retry-After", str(int(wait_s) + 1))])
        path, _, query = request.target.partition("?")
        options = dict(part.partition("=")[::2] for part in query.split("&"))
        microseconds = options.get("timeUnit", "millisecond").upper() == "MICROSECOND"
        if path == "/stream":
            names, combined = options.get("streams", ""), True
        elif path == "/ws" or path.startswith("/ws/"):
            names, combined = path.removeprefix("/ws").removeprefix("/"), False
        else:
            return Reply(404, b"<html><body><h2>404 Not found</h2></body></html>", content_type="text/html")
        # The separator is the slash on the wire: a name's own would be encoded.
        streams = [unquote(name) for name in names.split("/") if name]
        if len(set(streams)) > self.limits.streams_max:
            return Reply(400, _error(2, f"more than {self.limits.streams_max} streams"))
        session = BinanceSession(self, self._opened, streams, combined=combined, microseconds=microseconds, now_s=now_s)
        self._opened += 1
        return session

    def _connect(self, address: str, now_s: float) -> float:
        """Counts an attempt; seconds until the next one is allowed, 0 when this one is."""
        attempts = self._connects.setdefault(address, deque())
        while attempts and attempts[0] <= now_s - self.limits.connects_window_s:
            attempts.popleft()
        if len(attempts) >= self.limits.connects:
            return attempts[0] + self.limits.connects_window_s - now_s
        attempts.append(now_s)
        return 0.0

    def symbol(self, stream: str) -> int | None:
        """The tape's symbol whose trades a stream carries; None for every other name, which is acknowledged all the same."""
        return self._symbols.get(stream)

    def sees_holes(self, connection: int) -> bool:
        """Whether a `hole` fault spares this connection."""
        holes = self.faults.all(Hole)
        return bool(holes) and all(hole.connection not in {EVERY, connection} for hole in holes)

    def hit(self, fault: object, times: int) -> bool:
        """Whether a fault strikes now; counts it. `times` = 0 is always."""
        hits = self._hits.get(id(fault), 0)
        if times and hits >= times:
            return False
        self._hits[id(fault)] = hits + 1
        return True

    def frames(self, audience: Hashable) -> Frames:
        assert isinstance(audience, Audience)
        assert self.tape is not None, "a recording has no renderer"
        names = [(i, self._names[i]) for i in sorted(audience.symbols)]
        schema = self.faults.one(Schema) or Schema()
        return Renderer(
            self.tape,
            [(i, json.dumps(f"{name.lower()}@trade", ensure_ascii=False).encode()[1:-1], name.encode()) for i, name in names],
            combined=audience.combined,
            microseconds=audience.microseconds,
            whole=audience.whole,
            order_ids=schema.order_ids,
            extra_key=schema.extra_key,
        )

    def garbage(self, kind: Kind) -> Frame:
        return Frame(Opcode.BINARY if kind == "binary" else Opcode.TEXT, _garbage(kind))


class BinanceSession:
    """One websocket connection: its subscriptions, its pings, its budget of messages."""

    def __init__(self, exchange: Binance, number: int, streams: list[str], *, combined: bool, microseconds: bool, now_s: float) -> None:
        self.exchange = exchange
        self.number = number
        self.audience: Audience | None = None
        self._streams = dict.fromkeys(streams)  # in the order of subscription
        self._combined = combined
        self._microseconds = microseconds
        self._opened_s = now_s
        self._next_ping_s = now_s + exchange.limits.ping_interval_s
        self._pings: deque[tuple[bytes, float]] = deque()  # those not echoed
        self._messages: deque[float] = deque()
        self._late: deque[tuple[float, Frame]] = deque()
        self._shutdowns = [f for f in exchange.faults.all(Shutdown) if f.connection in {EVERY, number}]
        self._close_s = now_s + exchange.limits.lifetime_s
        self._settle()

    @property
    def streams(self) -> list[str]:
        return list(self._streams)

    def received(self, frame: Frame, now_s: float) -> list[Step]:
        # Pings, pongs and control messages all count (web-socket-streams.md, "Websocket Limits").
        while self._messages and self._messages[0] <= now_s - 1.0:
            self._messages.popleft()
        self._messages.append(now_s)
        if len(self._messages) > self.exchange.limits.messages_per_s:
            return [Close(POLICY_VIOLATION, "")]
        if frame.opcode is Opcode.PONG:
            self._echoed(bytes(frame.data))
        elif frame.opcode is Opcode.TEXT:
            return self._control(bytes(frame.data), now_s)
        return []

    def due(self, now_s: float) -> list[Step]:
        limits = self.exchange.limits
        steps: list[Step] = []
        while self._late and self._late[0][0] <= now_s:
            steps.append(self._late.popleft()[1])
        if self._pings and self._pings[0][1] + limits.pong_timeout_s <= now_s:
            return [*steps, Close(POLICY_VIOLATION, "Pong timeout")]
        for shutdown in [f for f in self._shutdowns if self._opened_s + f.after_s <= now_s]:
            self._shutdowns.remove(shutdown)
            if self.exchange.hit(shutdown, shutdown.times):
                steps.append(Frame(Opcode.TEXT, self._shutdown_notice(now_s)))
                if shutdown.close:
                    self._close_s = now_s + self.exchange.random.uniform(0, shutdown.within_s)
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

    def _control(self, text: bytes, now_s: float) -> list[Step]:
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
        reply = getattr(self, f"_{method.lower()}")(params, number)
        if method == "SUBSCRIBE" and len(text) > self.exchange.limits.subscribe_bytes_max:
            long = self.exchange.faults.one(LongSubscribe) or LongSubscribe(reaction="ignore")
            if long.reaction == "late":
                self._late.append((now_s + long.late_s, reply))
            if long.reaction != "answer":
                return []
        return [reply]

    def _subscribe(self, params: list[object], number: object) -> Step:
        names = _stream_names(params)
        if names is None:
            return _failed(2, "Invalid request: invalid stream", number)
        streams = self._streams | dict.fromkeys(names)
        if len(streams) > self.exchange.limits.streams_max:
            if self.exchange.faults.one(TooManyStreams):
                return Close(POLICY_VIOLATION, "")
            return _failed(2, f"Invalid request: more than {self.exchange.limits.streams_max} streams", number)
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
        symbols = frozenset(symbol for symbol in map(self.exchange.symbol, self._streams) if symbol is not None)
        whole = self.exchange.sees_holes(self.number)
        self.audience = Audience(symbols, self._combined, self._microseconds, whole) if symbols else None


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


def _error(code: int, message: str) -> bytes:
    return _json({"code": code, "msg": message})


def _banned_body(until_s: float) -> bytes:
    return _error(
        -1003,
        f"Way too much request weight used; IP banned until {int(until_s * 1_000)}. "
        "Please use WebSocket Streams for live updates to avoid bans.",
    )


def _faulty(answer: Answer, retry_after_s: int, now_s: float) -> Reply | None:
    """The reply of a fault; None for a request that is never answered."""
    retry = [("Retry-After", str(retry_after_s))]
    match answer:
        case "timeout":
            return None
        case "html":
            return Reply(200, HTML, content_type="text/html")
        case "truncated":
            return Reply(200, b'{"timezone":"UTC","serverTime":17900')
        case "301":
            return Reply(301, b"", [("Location", "/api/v4/moved")])
        case "403":
            return Reply(403, HTML, content_type="text/html")
        case "404" | "410":
            return Reply(int(answer), b"<html><body><h2>Not found</h2></body></html>", content_type="text/html")
        case "418":
            return Reply(418, _banned_body(now_s + retry_after_s), retry)
        case "429":
            return Reply(429, _error(-1003, "Too many requests; please use the websocket for live updates to avoid polling the API."), retry)
        case "451":
            return Reply(451, BLOCKED)
        case "500":
            return Reply(500, _error(-1000, "An unknown error occurred while processing the request."))
        case "503":
            return Reply(503, _error(-1008, "Request throttled by system-level protection."))


def _expect(query: Mapping[str, str], known: tuple[str, ...]) -> None:
    if any(key not in known for key in query):
        raise Refused(-1101, f"Too many parameters; expected '{len(known)}' and received '{len(query)}'.")


def _number(query: Mapping[str, str], key: str) -> int:
    text = query[key]
    if not text:
        raise Refused(-1105, f"Parameter '{key}' was empty.")
    if not re.fullmatch(r"[0-9]{1,20}", text):
        raise Refused(-1100, f"Illegal characters found in parameter '{key}'; legal range is '^[0-9]{{1,20}}$'.")
    return int(text)


def _limit(query: Mapping[str, str]) -> int:
    limit = _number(query, "limit") if "limit" in query else 500
    if limit == 0:
        raise Refused(-1130, "Data sent for parameter 'limit' is not valid.")
    return min(limit, 1_000)


def _list(query: Mapping[str, str], key: str) -> list[str]:
    """`SPOT` as well as `["SPOT","MARGIN"]`."""
    text = query[key]
    if not text.startswith("["):
        return [text]
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise Refused(-1100, f"Illegal characters found in parameter '{key}'.")
    return values


def _rows(trades: list[PrintedTrade], unit: int) -> bytes:
    return b"[%s]" % b",".join(_row(trade, unit) for trade in trades)


def _row(trade: PrintedTrade, unit: int) -> bytes:
    quote_e16 = int(trade.px.replace(".", "")) * int(trade.sz.replace(".", ""))
    quote = f"{quote_e16 // 10**16}.{quote_e16 // 10**8 % 10**8:08}"
    side = "true" if trade.buyer_is_maker else "false"
    time = trade.trade_us * unit // 1_000_000
    return (
        f'{{"id":{trade.trade_id},"price":"{trade.px}","qty":"{trade.sz}","quoteQty":"{quote}",'
        f'"time":{time},"isBuyerMaker":{side},"isBestMatch":true}}'
    ).encode()


def _garbage(kind: Kind) -> bytes:
    head = b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1790649901913,"s":"BTCUSDT","t":1,'
    tail = b'"T":1790649901913,"m":true,"M":true}}'
    match kind:
        case "truncated":
            return head + b'"p":"83034.29000000","q":"0.0006'
        case "binary":
            return bytes(range(256)) * 2
        case "huge":
            return b'{"stream":"!ticker@arr","data":"' + b"x" * (10 * 1024 * 1024 - 64) + b'"}'
        case "nan":
            return head + b'"p":"NaN","q":NaN,' + tail
        case "nested":
            return b'{"a":' * 10_000 + b"1" + b"}" * 10_000
        case "repeated":
            return head + b'"p":"1.00000000","p":"2.00000000","q":"1.00000000",' + tail
        case "futures":
            return (
                b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1790649901913,"T":1790649901913,"s":"BTCUSDT",'
                b'"t":1,"p":"83034.30","q":"0.002","X":"MARKET","m":true}}'
            )
        case "wrong_symbol":
            return (head + b'"p":"1.00000000","q":"1.00000000",' + tail).replace(b"BTC", b"NOT-LISTED").replace(b"btc", b"not-listed")
        case "not_utf8":
            return head + b'"p":"1.0\xff\xfe","q":"1.00000000",' + tail
        case "empty":
            return b""
        case "depth":
            return (
                b'{"stream":"btcusdt@depth","data":{"e":"depthUpdate","E":1790649901913,"s":"BTCUSDT","U":157,"u":160,'
                b'"b":[["83034.29000000","10.00000000"]],"a":[["83034.30000000","0.00000000"]]}}'
            )
        case "fragmented":
            raise ValueError("`fragmented` is how a trade is sent, no frame of its own")
