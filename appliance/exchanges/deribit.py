"""Deribit: its names, channels, requests and replies (JSON-RPC over websocket and HTTP, docs.deribit.com)."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import simdjson

from appliance.exchanges.exchange import (
    Acknowledged,
    Announced,
    BadReply,
    Control,
    Credits,
    Demand,
    InstrumentChanged,
    Line,
    LoggedIn,
    NoSession,
    Question,
    Refusal,
    Rejected,
    Rules,
    Session,
    ShuttingDown,
    Subscribed,
    Trouble,
    told_seconds,
)

if TYPE_CHECKING:
    from appliance.exchanges.decoder import Decoder
    from appliance.exchanges.instruments import Instruments

REST_PATH = "/api/v2"
WS_PATH = "/ws/api/v2"
KINDS = ("future", "option", "spot", "future_combo", "option_combo")  # of the trades channels; `any` is not among them

# Policy page: 500 channels in one subscription message, 32 kB a request. A margin for whatever counts them otherwise.
SUBSCRIBE_CHANNELS_MAX = 500
REQUEST_BYTES_MAX = 32_000

HEARTBEAT_S = 30  # the policy page asks for 30 to 60
RENEW_AT = 0.8  # of a token's life
RENEW_S_MAX = 24 * 3600.0  # asyncio's timers reach farther, a suspended machine does not
OPENING_TRIES = 3

CONTROL_BYTES_MAX = 256 * 1024  # what is longer is no control message and is not parsed on the loop
NAME_BYTES_MAX = 64  # of a name in a chunk's table

# Reactions by code (articles/errors, the complete table).
CREDENTIALS = {13004, 12003}  # refused for good; 12003: too many failed logins
BLOCKED = {12005}  # this country or address
LOGIN_LOST = {10000, 13009, 13778}
THROTTLED = {10028, 10066}
MAINTENANCE = {11051}
# Passes by itself, and the connection is as good as before: at 08:00 UTC a settlement must not cost a leg that delivers.
PASSING = {10040, 10041, 10047, 11094, 13025, 13028, 13503, 13888}
PASSING_S = 2.0
THROTTLED_S = 10.0  # a pool of credits is full again after 5 s
MAINTENANCE_S = 15.0
TOO_MANY_CONNECTIONS_S = 30.0

# 30,000 for subscriptions at 3,000, 50,000 for all else at 500, each refilled by 10,000 a second: kept as one pool of the smaller
# size, of which 5,000 stay for the answers to test requests, which cannot wait.
CREDITS = Credits(room=25_000, per_s=10_000, request=500, subscribe=3_000)


class Deribit:
    """Every product through the wildcard channels of its kinds. A trade's identity is its instrument and `trade_seq` (T14)."""

    name = "deribit"
    by_channel = True
    paths = (REST_PATH, WS_PATH)
    # 20 requests a second are refilled; get_instruments once in ten seconds; connects are not limited, connections are.
    rules = Rules(
        connects=60, connects_window_s=300.0, messages_per_s=10, weight_per_minute=60, connections=32, credits=CREDITS,
        # Whatever ends a login ends raw channels without a word, for both legs at once perhaps.
        verify_s=15.0,
    )  # fmt: skip

    def __init__(self, interval: str = "raw", client_id: str | None = None, client_secret: str | None = None) -> None:
        self._interval = interval
        self._client_id = client_id
        self._client_secret = client_secret

    def with_options(self, options: Mapping[str, str | None]) -> "Deribit":
        return Deribit(options["interval"] or "raw", options["client_id"], options["client_secret"])

    def discovery(self) -> Question:
        return Question("/public/get_instruments?currency=any&expired=false", weight=10)

    def instruments(self, body: bytes) -> dict[str, str]:
        """Those that are halted or locked too: they trade again, ids going on."""
        return dict(_listed(body))

    def refusal(self, status: int, headers: Mapping[str, str], body: bytes, now_s: float) -> Refusal:
        code, said = _said(body)
        if code is not None:
            return _refusal(code, f"HTTP {status}: {said}")
        if status == 429:
            # The 33rd connection of this address.
            wait_s = told_seconds(headers.get("retry-after", ""), now_s) or TOO_MANY_CONNECTIONS_S
            return Refusal(Trouble.BANNED, f"HTTP 429, too many connections from this address: {said}", wait_s)
        if status == 451:
            return Refusal(Trouble.BLOCKED, f"HTTP 451, not served from this location: {said}")
        if status == 403:
            return Refusal(Trouble.FORBIDDEN, f"HTTP 403, refused by the exchange's firewall: {said}")
        if status in (301, 302, 307, 308, 404, 410):
            where = f" to {headers['location']}" if "location" in headers else ""
            return Refusal(Trouble.MOVED, f"HTTP {status}, moved{where} or retired; a newer version may be needed: {said}")
        return Refusal(Trouble.AWAY, f"HTTP {status}: {said}")

    def streams(self, names: Iterable[str]) -> list[str]:
        """The same whatever is listed: a wildcard brings what is listed later too."""
        return [
            *(f"trades.{kind}.any.{self._interval}" for kind in KINDS),
            *(f"instrument.state.{kind}.any" for kind in KINDS),
            "platform_state",
        ]

    def connect_path(self, streams: Sequence[str]) -> tuple[str, list[str]]:
        return "", list(streams)

    def subscribe(self, streams: Sequence[str], requests: Iterator[int]) -> list[tuple[int, bytes]]:
        frames = []
        batch: list[str] = []
        for stream in streams:
            if batch and (len(batch) == SUBSCRIBE_CHANNELS_MAX or len(self._subscribe([*batch, stream], 2**53)) > REQUEST_BYTES_MAX):
                frames.append(batch)
                batch = []
            batch.append(stream)
        if batch:
            frames.append(batch)
        return [(request := next(requests), self._subscribe(batch, request)) for batch in frames]

    def _subscribe(self, channels: Sequence[str], request: int) -> bytes:
        method = "private/subscribe" if self._logs_in else "public/subscribe"
        return rpc(method, {"channels": list(channels)})(request)

    def list_subscriptions(self, request: int) -> bytes | None:
        return None

    def session(self) -> Session:
        if self._client_id is not None and self._client_secret is not None:
            return Login(self._client_id, self._client_secret)
        return Heartbeats()

    @property
    def _logs_in(self) -> bool:
        return self._client_id is not None and self._client_secret is not None

    def control(self, payload: bytes) -> Control | None:
        if len(payload) > CONTROL_BYTES_MAX:
            return None
        try:
            message = json.loads(payload)
        except (ValueError, RecursionError):
            return None
        return _control(message) if isinstance(message, dict) else None

    def decoder(self, instruments: "Instruments") -> "Decoder":
        from appliance.exchanges.deribit_decoder import DeribitDecoder  # not loaded by the REST worker

        return DeribitDecoder(instruments)


class Heartbeats(NoSession):
    """A connection without a login: only heartbeats, without which an idle socket is cut (T17)."""

    async def begin(self, line: Line) -> Refusal | None:
        answer = await _answered(line, rpc("public/set_heartbeat", {"interval": HEARTBEAT_S}))
        return None if isinstance(answer, Acknowledged) else _unopened("set_heartbeat", answer)


class Login(Heartbeats):
    """A connection with a login of its own: its token ends with the socket and takes no session slot (scope `connection`)."""

    def __init__(self, client_id: str, client_secret: str) -> None:
        self._client_id = client_id
        self._client_secret = client_secret
        self._token: LoggedIn | None = None
        self._told = False

    async def begin(self, line: Line) -> Refusal | None:
        """Log in, and only then go on: a request sent before the answer is refused (T16)."""
        params = {"grant_type": "client_credentials", "client_id": self._client_id, "client_secret": self._client_secret}
        return await self._log_in(line, params) or await super().begin(line)

    async def keep(self, line: Line) -> Refusal | None:
        """Renew the token in good time, for as long as the connection lives."""
        while self._token is not None:
            await line.sleep(min(self._token.expires_s * RENEW_AT, RENEW_S_MAX))
            refreshed = await self._log_in(line, {"grant_type": "refresh_token", "refresh_token": self._token.refresh_token})
            # A refresh token that is dead as well: what always works is a login.
            if refreshed is not None and (refusal := await self.begin(line)) is not None:
                return refusal
        return None

    async def _log_in(self, line: Line, params: Mapping[str, object]) -> Refusal | None:
        answer = await _answered(line, rpc("public/auth", params))
        if not isinstance(answer, LoggedIn):
            return _unopened("login", answer)
        self._token = answer
        if "read_write" in answer.scope and not self._told:
            self._told = True
            line.warn("scope_too_wide", f"the key may do more than read ({answer.scope}); one that reads only is enough")
        return None


EXCHANGE = Deribit()


def rpc(method: str, params: Mapping[str, object]) -> Callable[[int], bytes]:
    """A request's frame, given its number."""

    def frame(request: int) -> bytes:
        return json.dumps({"jsonrpc": "2.0", "id": request, "method": method, "params": params}, separators=(",", ":")).encode()

    return frame


async def _answered(line: Line, question: Callable[[int], bytes]) -> Control | None:
    answer: Control | None = None
    for _ in range(OPENING_TRIES):
        answer = await line.ask(question)
        if isinstance(answer, Rejected) and answer.again_s is not None:
            await line.sleep(answer.again_s)
        elif answer is not None:
            break
    return answer


def _unopened(what: str, answer: Control | None) -> Refusal:
    """Why a connection could not be opened."""
    if isinstance(answer, Rejected):
        return answer.refusal or Refusal(Trouble.AWAY, f"{what} refused: {answer.reason}")
    return Refusal(Trouble.AWAY, f"{what}: {'no answer' if answer is None else 'an answer to something else'}")


def _listed(body: bytes) -> Iterator[tuple[str, str]]:
    try:
        result = cast(simdjson.Object, simdjson.Parser().parse(body))["result"]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError):
        raise BadReply(f"no list of instruments: {_said(body)[1]}") from None
    if not isinstance(result, simdjson.Array):
        raise BadReply(f"no list of instruments, its `result` is not a list: {_said(body)[1]}")
    for instrument in result:
        if not isinstance(instrument, simdjson.Object):
            raise BadReply(f"no list of instruments, it holds other things than objects: {_said(body)[1]}")
        name, kind = instrument.get("instrument_name"), instrument.get("kind")
        if isinstance(name, str) and isinstance(kind, str) and _fits(name):
            yield name, kind_of(kind, name)


def kind_of(kind: str, name: str) -> str:
    """The record's `kind` of an instrument of the exchange's kind. Futures are perpetual by their name."""
    if kind == "future":
        return "Perpetual" if name.endswith("-PERPETUAL") else "Future"
    # An unknown kind is a new product: its trades are kept under the nearest name (T18).
    return {"option": "Option", "spot": "Spot"}.get(kind, "Spread" if "combo" in kind else "Future")


def _fits(name: str) -> bool:
    return name.isprintable() and 0 < len(name.encode()) <= NAME_BYTES_MAX


def _control(message: dict[str, object]) -> Control | None:
    method = message.get("method")
    params = message.get("params")
    if method == "heartbeat" and isinstance(params, dict):
        return Demand(rpc("public/test", {})) if params.get("type") == "test_request" else None
    if method == "subscription" and isinstance(params, dict):
        return _notified(str(params.get("channel")), params.get("data"))
    request = message.get("id")
    request = request if isinstance(request, int) else None
    error = message.get("error")
    if isinstance(error, dict):
        return _rejected(request, error)
    if request is None or "result" not in message:
        return None
    result = message["result"]
    if isinstance(result, list):
        return Subscribed(request, frozenset(channel for channel in result if isinstance(channel, str)))
    if isinstance(result, dict) and "access_token" in result:
        return _logged_in(request, result)
    return Acknowledged(request)


def _logged_in(request: int, result: dict[str, object]) -> LoggedIn | Rejected:
    expires_s, refresh_token, scope = result.get("expires_in"), result.get("refresh_token"), result.get("scope")
    if not isinstance(expires_s, int | float) or not expires_s > 0 or not isinstance(refresh_token, str):
        return Rejected(request, "the login's answer has no expires_in or no refresh_token")
    return LoggedIn(request, float(expires_s), refresh_token, str(scope or ""))


def _rejected(request: int | None, error: dict[str, object]) -> Rejected:
    code = error.get("code")
    reason = f"{code} {error.get('message')}"
    data = error.get("data")
    if isinstance(data, dict) and data:
        reason += f" ({', '.join(f'{name}: {value}' for name, value in data.items())})"
    reason = reason[:200]
    code = code if isinstance(code, int) else 0
    if code in LOGIN_LOST:
        return Rejected(request, reason, login_lost=True)
    if code in PASSING:
        return Rejected(request, reason, again_s=PASSING_S)
    if code in CREDENTIALS | BLOCKED | THROTTLED | MAINTENANCE:
        return Rejected(request, reason, refusal=_refusal(code, reason))
    return Rejected(request, reason)


def _refusal(code: int, reason: str) -> Refusal:
    if code in CREDENTIALS:
        return Refusal(Trouble.CREDENTIALS, reason)
    if code in BLOCKED:
        return Refusal(Trouble.BLOCKED, reason)
    if code in THROTTLED:
        return Refusal(Trouble.BANNED, reason, THROTTLED_S)
    return Refusal(Trouble.AWAY, reason, MAINTENANCE_S if code in MAINTENANCE else None)


def _notified(channel: str, data: object) -> Control | None:
    if not isinstance(data, dict):
        return None
    if channel.startswith("instrument.state."):
        kind = channel.split(".")[2]
        name, state = data.get("instrument_name"), data.get("state")
        if not isinstance(name, str) or not isinstance(state, str) or not _fits(name):
            return None
        if kind not in KINDS:  # a subscription to any
            kind = _kind_by_name(name)
        # Since 2026-01 the first `open` is the listing; the old words still come from the test net (T18).
        lists, ends = state in ("open", "created", "started"), state in ("delivered", "archivized", "terminated")
        return InstrumentChanged(name, kind_of(kind, name), state, lists, ends)
    if channel.startswith("platform_state"):
        if data.get("maintenance") is True:
            return ShuttingDown("the exchange announced maintenance")
        return Announced("platform_state", data)
    return None


def _kind_by_name(name: str) -> str:
    """The exchange's kind by the shape of a name: BTC-PERPETUAL, BTC-25DEC26, BTC-25DEC26-72000-C, BTC_USDC, BTC-FS-…, BTC-CS-…"""
    parts = name.split("-")
    if len(parts) == 1:
        return "spot"
    if len(parts) == 4 and parts[3] in ("C", "P"):
        return "option"
    if len(parts) == 2:
        return "future"
    return "future_combo" if parts[1] == "FS" else "option_combo"


def _said(body: bytes) -> tuple[int | None, str]:
    """The code of the exchange's own error, if it is one, and one line of what it said."""
    code = None
    try:
        error = json.loads(body[:65_536])["error"]
        code = error["code"] if isinstance(error["code"], int) else None
        text = f"{error['code']} {error['message']}"
    except (ValueError, KeyError, TypeError, RecursionError):
        text = body[:200].decode(errors="replace")
    text = " ".join(text.split())
    return code, f"{text[:160]!r}" if text else "an empty body"
