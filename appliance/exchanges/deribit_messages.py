"""Deribit's messages: the frames of requests, and what replies, notifications and lists say (JSON-RPC, docs.deribit.com)."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import cast

import simdjson

from appliance.exchanges.exchange import (
    Acknowledged,
    Announced,
    BadReply,
    Control,
    Demand,
    InstrumentChanged,
    LoggedIn,
    Refusal,
    Rejected,
    ShuttingDown,
    Subscribed,
    Trouble,
    told_seconds,
)
from appliance.exchanges.past import ROWS_A_MESSAGE, Past, elements

KINDS = ("future", "option", "spot", "future_combo", "option_combo")  # of the trades channels; `any` is not among them
CONTROL_BYTES_MAX = 256 * 1024  # what is longer is no control message and is not parsed on the loop
NAME_BYTES_MAX = 64  # of a name in a chunk's table

TRADES = re.compile(r'"trades"\s*:\s*\[')

# Reactions by code (articles/errors, the complete table).
CREDENTIALS = {13004, 12003}  # refused for good; 12003: too many failed logins
BLOCKED = {12005}  # this country or address
LOGIN_LOST = {10000, 13009, 13778}
THROTTLED = {10028}
MAINTENANCE = {11051}
# Passes by itself, and the connection is as good as before: at 08:00 UTC a settlement must not cost a leg that delivers.
PASSING = {10040, 10041, 10047, 10066, 11094, 13025, 13028, 13503, 13888}
PASSING_S = 2.0
THROTTLED_S = 10.0  # a pool of credits is full again after 5 s
MAINTENANCE_S = 15.0
TOO_MANY_CONNECTIONS_S = 30.0


def rpc(method: str, params: Mapping[str, object]) -> Callable[[int], bytes]:
    """A request's frame, given its number."""

    def frame(request: int) -> bytes:
        return json.dumps({"jsonrpc": "2.0", "id": request, "method": method, "params": params}, separators=(",", ":")).encode()

    return frame


def control(payload: bytes) -> Control | None:
    """What a text frame that is no trade says; None: nothing that a connection must know."""
    if len(payload) > CONTROL_BYTES_MAX:
        return None
    try:
        message = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return _fact(message) if isinstance(message, dict) else None


def refusal(status: int, headers: Mapping[str, str], body: bytes, now_s: float) -> Refusal:
    """What an HTTP answer other than the wanted one means."""
    code, said = _said(body)
    if code is not None and code in CREDENTIALS | BLOCKED | MAINTENANCE:
        return _refusal(code, f"HTTP {status}: {said}")
    if status in (418, 429) or code in THROTTLED:
        # Credits are spent, or the 33rd connection of this address was opened; whoever stands in front of the exchange says for how long.
        wait_s = told_seconds(headers.get("retry-after", ""), now_s) or (THROTTLED_S if code in THROTTLED else TOO_MANY_CONNECTIONS_S)
        return Refusal(Trouble.BANNED, f"HTTP {status}, too many requests or connections from this address: {said}", wait_s)
    if status == 451:
        return Refusal(Trouble.BLOCKED, f"HTTP 451, not served from this location: {said}")
    if status == 403:
        return Refusal(Trouble.FORBIDDEN, f"HTTP 403, refused by the exchange's firewall: {said}")
    if status in (301, 302, 307, 308, 404, 410):
        where = f" to {headers['location']}" if "location" in headers else ""
        return Refusal(Trouble.MOVED, f"HTTP {status}, moved{where} or retired; a newer version may be needed: {said}")
    return Refusal(Trouble.AWAY, f"HTTP {status}: {said}")


def listed(body: bytes) -> Iterator[tuple[str, str]]:
    """Name and kind of each instrument of a `get_instruments` reply. Raises BadReply."""
    try:
        result = cast(simdjson.Object, simdjson.Parser().parse(body))["result"]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError, RuntimeError):  # RuntimeError: simdjson's, too deep
        raise BadReply(f"no list of instruments: {_said(body)[1]}") from None
    if not isinstance(result, simdjson.Array):
        raise BadReply(f"no list of instruments, its `result` is not a list: {_said(body)[1]}")
    for instrument in result:
        if not isinstance(instrument, simdjson.Object):
            raise BadReply(f"no list of instruments, it holds other things than objects: {_said(body)[1]}")
        name, kind = instrument.get("instrument_name"), instrument.get("kind")
        if isinstance(name, str) and isinstance(kind, str) and _fits(name):
            yield name, kind_of(kind, name)


def past(name: str, body: bytes) -> Past:
    """The trades of a `get_last_trades_by_instrument` reply. Raises BadReply."""
    rows: list[tuple[int, str]] = []
    try:
        text = body.decode()
        found = TRADES.search(text)
        if found is None:
            raise ValueError
        for row, spelled in elements(text, found.end() - 1):
            if not isinstance(row, dict) or type(row["trade_seq"]) is not int or row["instrument_name"] != name:
                raise ValueError
            rows.append((row["trade_seq"], spelled))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadReply(f"no list of past trades: {_said(body)[1]}") from None
    rows.sort(key=lambda row: row[0])  # inside a millisecond they come in any order
    head = f'{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"trades.{name}.raw","data":['
    parts = [rows[begin : begin + ROWS_A_MESSAGE] for begin in range(0, len(rows), ROWS_A_MESSAGE)]
    # A line break can only be space between tokens, and ends a message on its way through a pipe.
    messages = [(head + ",".join(spelled for _, spelled in part).replace("\n", " ") + "]}}").encode() for part in parts]
    return Past(messages, [sequence for sequence, _ in rows])


def kind_of(kind: str, name: str) -> str:
    """The record's `kind` of an instrument of the exchange's kind. Futures are perpetual by their name."""
    if kind == "future":
        return "Perpetual" if name.endswith("-PERPETUAL") else "Future"
    # An unknown kind is a new product: its trades are kept under the nearest name (T18).
    return {"option": "Option", "spot": "Spot"}.get(kind, "Spread" if "combo" in kind else "Future")


def _fits(name: str) -> bool:
    return name.isprintable() and 0 < len(name.encode()) <= NAME_BYTES_MAX


def _fact(message: dict[str, object]) -> Control | None:
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
        return Rejected(request, reason, refusal=_refusal(code, reason), again_s=MAINTENANCE_S if code in MAINTENANCE else None)
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
        return Announced("platform_state", data, data.get("price_index"))
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
