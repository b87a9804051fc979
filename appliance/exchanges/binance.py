"""Binance spot: its names, URLs, requests and replies (web-socket-streams.md and rest-api.md of binance-spot-api-docs)."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast
from urllib.parse import quote

import simdjson

from appliance.exchanges.exchange import (
    BAN_S_MAX,
    Acknowledged,
    BadReply,
    Control,
    NoSession,
    Question,
    Refusal,
    Rejected,
    Rules,
    ShuttingDown,
    Subscribed,
    Trouble,
    Volume,
    told_seconds,
)
from appliance.exchanges.past import Past, elements

if TYPE_CHECKING:
    from appliance.exchanges.decoder import Decoder
    from appliance.exchanges.instruments import Instruments

# Measured by users at 8,004 and 4,088 bytes (2019..2024); nothing official. A longer SUBSCRIBE is answered 10 s late or never.
REQUEST_URI_BYTES_MAX = 8_000
SUBSCRIBE_BYTES_MAX = 4_000
SUBSCRIBE_STREAMS_MAX = 200
EMPTY_SUBSCRIBE_BYTES = len('{"method":"SUBSCRIBE","params":[],"id":}') + 20  # with the longest number

# A list of 1,024 streams with CJK names is about 40 kB. What is longer is no control message and is not parsed on the loop.
CONTROL_BYTES_MAX = 256 * 1024

NAME_BYTES_MAX = 64  # of a name in a chunk's table

# Where 418 and 429 come without Retry-After: the shortest ban that Binance names, and one weight window.
BAN_S = 120.0
RATE_LIMITED_S = 60.0
BANNED_UNTIL = re.compile(rb"banned until (\d{13})")


class Binance:
    """The spot market. `E` differs between connections (T2), so a trade's identity is its symbol and `t` alone."""

    name = "binance"
    rest_url = "https://api.binance.com"
    # 300 connects in 5 minutes are allowed per address; the rest is left to whatever else runs behind it.
    rules = Rules(connects=240, connects_window_s=300.0, messages_per_s=5, weight_per_minute=6_000)

    # benchmarks.loopback prints bytes and trades; of 26,139 recorded frames on one and two legs zstd leaves 16 and 26 bytes a trade.
    volume = Volume(trades_per_s=1_500, record_bytes=345, raw_bytes=16, raw_bytes_again=10)

    by_channel = False
    paths = ("", "")

    def with_options(self, options: Mapping[str, str | None]) -> "Binance":
        return self

    def session(self) -> NoSession:
        return NoSession()

    def discovery(self) -> Question:
        # Without showPermissionSets=false the reply is several times larger; `permissions` filters on their side instead.
        return Question("/api/v3/exchangeInfo?permissions=SPOT&symbolStatus=TRADING&showPermissionSets=false", weight=20)

    def instruments(self, body: bytes) -> dict[str, str]:
        return dict.fromkeys(_trading_spot(body), "Spot")

    def past(self, name: str, from_id: int | None, trades: int) -> Question:
        # Needs no key since July 2023. Of the database, which follows the market with a delay.
        limit = min(trades, self.rules.past_trades)
        begin = f"&fromId={from_id}" if from_id is not None else ""
        return Question(f"/api/v3/historicalTrades?symbol={quote(name)}{begin}&limit={limit}", weight=25)

    def past_trades(self, name: str, body: bytes) -> Past:
        return _past(name, body)

    def refusal(self, status: int, headers: Mapping[str, str], body: bytes, now_s: float) -> Refusal:
        said = _said(body)
        if status == 451:
            return Refusal(Trouble.BLOCKED, f"HTTP 451, not served from this location: {said}")
        if status == 403:
            return Refusal(Trouble.FORBIDDEN, f"HTTP 403, refused by the exchange's firewall: {said}")
        if status in (418, 429):
            seconds = _retry_after_s(headers, body, now_s, BAN_S if status == 418 else RATE_LIMITED_S)
            return Refusal(Trouble.BANNED, f"HTTP {status}, asked too often: {said}", seconds)
        if status in (301, 302, 307, 308, 404, 410):
            where = f" to {headers['location']}" if "location" in headers else ""
            return Refusal(Trouble.MOVED, f"HTTP {status}, moved{where} or retired; a newer version may be needed: {said}")
        return Refusal(Trouble.AWAY, f"HTTP {status}: {said}")

    def streams(self, names: Iterable[str]) -> list[str]:
        # Unicode lower case leaves CJK alone. A wrongly cased stream is acknowledged and silent.
        return [f"{name.lower()}@trade" for name in names]

    def brings_trades(self, stream: str) -> bool:
        return True

    def connect_path(self, streams: Sequence[str]) -> tuple[str, list[str]]:
        path = "/stream"
        for taken, stream in enumerate(streams):
            longer = f"{path}{'/' if taken else '?streams='}{quote(stream, safe='@!')}"
            if len(longer) > REQUEST_URI_BYTES_MAX:
                return path, list(streams[taken:])
            path = longer
        return path, []

    def subscribe(self, streams: Sequence[str], requests: Iterator[int]) -> list[tuple[int, bytes]]:
        frames: list[tuple[int, bytes]] = []
        batch: list[str] = []
        batch_bytes = EMPTY_SUBSCRIBE_BYTES
        for stream in streams:
            stream_bytes = len(json.dumps(stream, ensure_ascii=False).encode()) + 1
            if batch and (len(batch) == SUBSCRIBE_STREAMS_MAX or batch_bytes + stream_bytes > SUBSCRIBE_BYTES_MAX):
                frames.append(_subscribe(batch, next(requests)))
                batch, batch_bytes = [], EMPTY_SUBSCRIBE_BYTES
            batch.append(stream)
            batch_bytes += stream_bytes
        if batch:
            frames.append(_subscribe(batch, next(requests)))
        return frames

    def list_subscriptions(self, request: int) -> bytes:
        return b'{"method":"LIST_SUBSCRIPTIONS","id":%d}' % request

    def control(self, payload: bytes) -> Control | None:
        # Other streams' frames pass here too, at any rate: a search of the bytes first, JSON only where it finds something.
        if len(payload) > CONTROL_BYTES_MAX:
            return None
        if b'"result"' not in payload and b'"error"' not in payload and b"serverShutdown" not in payload:
            return None
        try:
            message = json.loads(payload)
        except (ValueError, RecursionError):
            return None
        return _control(message) if isinstance(message, dict) else None

    def decoder(self, instruments: "Instruments") -> "Decoder":
        from appliance.exchanges.binance_decoder import BinanceDecoder  # not loaded by the REST worker

        return BinanceDecoder(instruments)


EXCHANGE = Binance()


def _trading_spot(body: bytes) -> Iterator[str]:
    try:
        symbols = cast(simdjson.Object, simdjson.Parser().parse(body))["symbols"]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError, RuntimeError):  # RuntimeError: simdjson's, too deep
        raise BadReply(f"no exchangeInfo: {_said(body)}") from None
    if not isinstance(symbols, simdjson.Array):
        raise BadReply(f"no exchangeInfo, its `symbols` is not a list: {_said(body)}")
    for symbol in symbols:
        if not isinstance(symbol, simdjson.Object):
            raise BadReply(f"no exchangeInfo, `symbols` holds other things than objects: {_said(body)}")
        name = symbol.get("symbol")
        if symbol.get("status") == "TRADING" and _is_spot(symbol) and isinstance(name, str) and _fits(name):
            yield name


def _past(name: str, body: bytes) -> Past:
    shown = json.dumps(name, ensure_ascii=False)
    messages, ids = [], []
    try:
        text = body.decode()
        if not text.lstrip().startswith("["):
            raise ValueError
        for row, _ in elements(text, text.index("[")):
            if not isinstance(row, dict) or type(row["id"]) is not int or type(row["time"]) is not int:
                raise ValueError
            px, sz = json.dumps(row["price"]), json.dumps(row["qty"])
            maker = "true" if row["isBuyerMaker"] else "false"
            messages.append(
                f'{{"e":"trade","E":{row["time"]},"s":{shown},"t":{row["id"]},"p":{px},"q":{sz},"T":{row["time"]},"m":{maker},"M":true}}'.encode()
            )
            ids.append(row["id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadReply(f"no list of past trades: {_said(body)}") from None
    return Past(messages, sorted(ids))


def _is_spot(symbol: Mapping[str, object]) -> bool:
    """Whether a symbol is of the spot market. `permissions` is the old form, empty since April 2024; then `permissionSets`."""
    if symbol.get("isSpotTradingAllowed") is False:
        return False
    sets = [list(group) for group in cast(Sequence[Sequence[str]], symbol.get("permissionSets") or [])]
    permissions = list(cast(Sequence[str], symbol.get("permissions") or []))
    if sets:
        return any("SPOT" in group for group in sets)
    return not permissions or "SPOT" in permissions


def _fits(name: str) -> bool:
    return name.isprintable() and 0 < len(name.encode()) <= NAME_BYTES_MAX


def _subscribe(streams: Sequence[str], request: int) -> tuple[int, bytes]:
    # Raw UTF-8: shorter than escapes, and the limit is in bytes.
    message = {"method": "SUBSCRIBE", "params": streams, "id": request}
    return request, json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


def _control(message: dict[str, object]) -> Control | None:
    data = message.get("data", message)
    if isinstance(data, dict) and data.get("e") == "serverShutdown":
        return ShuttingDown()
    request = message.get("id")
    request = request if isinstance(request, int) else None
    error = message.get("error")
    if error is not None:
        return Rejected(request, json.dumps(error, ensure_ascii=False)[:200])
    if request is None or "result" not in message:
        return None
    result = message["result"]
    if isinstance(result, list):
        return Subscribed(request, frozenset(stream for stream in result if isinstance(stream, str)))
    return Acknowledged(request)


def _said(body: bytes) -> str:
    """One line of what the exchange said: the message of its JSON error, else the beginning of the body."""
    try:
        error = json.loads(body[:4096])
        text = f"{error['code']} {error['msg']}"
    except (ValueError, KeyError, TypeError, RecursionError):
        text = body[:200].decode(errors="replace")
    text = " ".join(text.split())
    return f"{text[:160]!r}" if text else "an empty body"


def _retry_after_s(headers: Mapping[str, str], body: bytes, now_s: float, otherwise_s: float) -> float:
    """Seconds to stay away: the longer of Retry-After and the end that the body names."""
    seconds = told_seconds(headers.get("retry-after", ""), now_s)
    if until := BANNED_UNTIL.search(body):
        seconds = max(seconds, int(until[1]) / 1_000 - now_s)
    return min(seconds, BAN_S_MAX) if seconds > 0 else otherwise_s
