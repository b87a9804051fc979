"""The REST side of the local Binance: requests, weights, mistakes (rest-api.md and errors.md of binance-spot-api-docs)."""

import json
import re
from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl, urlsplit

from appliance.sim.binance_listing import SPOT_GROUPS, Filter, Listing
from appliance.sim.dialect import Printed, PrintedTrade, Reply, Request
from appliance.sim.faults import Answer, Faults, Limits, Rest, Strikes

STATUSES = ("TRADING", "HALT", "BREAK")
BAN_AFTER_REFUSALS = 10
"""So many requests in one minute after the first 429 become a ban. Binance names no number."""

BLOCKED = (
    b'{"code":0,"msg":"Service unavailable from a restricted location according to \'b. Eligibility\' in '
    b'https://www.binance.com/en/terms. Please contact customer service if you believe you received this message in error."}'
)
HTML = b"<!DOCTYPE html>\n<html><head><title>Just a moment</title></head><body><h1>403 Forbidden</h1></body></html>\n"
NOT_FOUND = Reply(404, b"<html><body><h2>404 Not found</h2></body></html>", content_type="text/html")


class Refused(Exception):
    """A request's mistake, in the exchange's own number and words; HTTP 400."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.reply = Reply(400, error(code, message))


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
        return used, Reply(429, error(-1003, text), [("Retry-After", str(60 - int(now_s % 60)))])

    @staticmethod
    def _banned(until_s: float, now_s: float) -> Reply:
        return Reply(418, _banned_body(until_s), [("Retry-After", str(max(1, round(until_s - now_s))))])


class BinanceRest:
    """The endpoints of `/api/v3` that the appliance asks."""

    def __init__(self, listing: Listing, printed: Printed, faults: Faults, strikes: Strikes) -> None:
        self.requests: dict[str, int] = {}
        """So far, by path."""
        self._listing = listing
        self._printed = printed
        self._faults = faults.all(Rest)
        self._strikes = strikes
        self._limits: Limits = faults.limits
        self._weights = Weights(self._limits.weight_per_minute, self._limits.ban_s)
        self._bodies: dict[Filter, bytes] = {}
        self._changes = 0
        self._routes: dict[str, tuple[int, Callable[[Mapping[str, str], int, float], bytes]]] = {
            "/api/v3/ping": (1, self._ping),
            "/api/v3/time": (1, self._time),
            "/api/v3/exchangeInfo": (20, self._exchange_info),
            "/api/v3/trades": (25, self._trades),
            "/api/v3/historicalTrades": (25, self._historical_trades),
        }

    def answer(self, request: Request, now_s: float) -> Reply | None:
        """The reply; None: never answered."""
        url = urlsplit(request.target)
        self.requests[url.path] = self.requests.get(url.path, 0) + 1
        for fault in self._faults:
            if url.path.endswith(fault.path) and self._strikes.hit(fault, fault.times):
                return faulty(fault.answer, fault.retry_after_s, now_s)
        if url.path not in self._routes:
            return NOT_FOUND
        weight, route = self._routes[url.path]
        used, refusal = self._weights.spend(request.address, weight, now_s)
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
        if self._changes != self._listing.changes:
            self._changes = self._listing.changes
            self._bodies.clear()
        if wanted not in self._bodies:
            self._bodies[wanted] = self._listing.body(wanted, int(now_s * 1_000))
        return self._bodies[wanted]

    def _filter(self, query: Mapping[str, str]) -> Filter:
        _expect(query, ("symbol", "symbols", "permissions", "showPermissionSets", "symbolStatus"))
        names = _list(query, "symbols") if "symbols" in query else [query["symbol"]] if "symbol" in query else None
        if names is not None:
            if "permissions" in query or "symbolStatus" in query or {"symbol", "symbols"} <= query.keys():
                raise Refused(-1128, "Combination of optional parameters invalid.")
            if any(name not in self._listing for name in names):
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
        return _rows(self._printed.rows(self._listed(query), None, _limit(query), int(now_s * 1_000_000)), unit)

    def _historical_trades(self, query: Mapping[str, str], unit: int, now_s: float) -> bytes:
        _expect(query, ("symbol", "limit", "fromId"))
        from_id = _number(query, "fromId") if "fromId" in query else None
        # From a database that follows the market with a delay; `trades` above comes from memory.
        until_us = int(now_s * 1_000_000) - self._limits.rest_lag_ms * 1_000
        return _rows(self._printed.rows(self._listed(query), from_id, _limit(query), until_us), unit)

    def _listed(self, query: Mapping[str, str]) -> str:
        name = query.get("symbol", "")
        if not name:
            raise Refused(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
        if name not in self._listing:
            raise Refused(-1121, "Invalid symbol.")
        return name


def error(code: int, message: str) -> bytes:
    """The body of an error."""
    return json.dumps({"code": code, "msg": message}, ensure_ascii=False, separators=(",", ":")).encode()


def _banned_body(until_s: float) -> bytes:
    return error(
        -1003,
        f"Way too much request weight used; IP banned until {int(until_s * 1_000)}. "
        "Please use WebSocket Streams for live updates to avoid bans.",
    )


def faulty(answer: Answer, retry_after_s: int, now_s: float) -> Reply | None:
    """The reply of a fault; None for a request that is never answered."""
    retry = [("Retry-After", str(retry_after_s))]
    match answer:
        case "timeout":
            return None
        case "html":
            return Reply(200, HTML, content_type="text/html")
        case "truncated":
            return Reply(200, b'{"timezone":"UTC","serverTime":17900')
        case "cut":
            return Reply(200, b'{"timezone":"UTC","serverTime":17900', cut=True)
        case "301":
            return Reply(301, b"", [("Location", "/api/v4/moved")])
        case "403":
            return Reply(403, HTML, content_type="text/html")
        case "404" | "410":
            return Reply(int(answer), b"<html><body><h2>Not found</h2></body></html>", content_type="text/html")
        case "418":
            return Reply(418, _banned_body(now_s + retry_after_s), retry)
        case "429":
            return Reply(429, error(-1003, "Too many requests; please use the websocket for live updates to avoid polling the API."), retry)
        case "451":
            return Reply(451, BLOCKED)
        case "500":
            return Reply(500, error(-1000, "An unknown error occurred while processing the request."))
        case "503":
            return Reply(503, error(-1008, "Request throttled by system-level protection."))


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
