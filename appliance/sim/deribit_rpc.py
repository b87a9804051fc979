"""JSON-RPC as Deribit speaks it: the envelope of replies, errors with their codes, notifications."""

import json
import time
from dataclasses import dataclass

REQUEST_BYTES_MAX = 32 * 1024

MESSAGES = {
    -32600: "request entity too large",
    -32601: "Method not found",
    -32602: "Invalid params",
    -32700: "Parse error",
    10000: "authorization_required",
    10028: "too_many_requests",
    10030: "must_be_websocket_request",
    10041: "settlement_in_progress",
    11050: "bad_request",
    11051: "system_maintenance",
    12003: "login_over_limit",
    13004: "invalid_credentials",
    13009: "unauthorized",
    13778: "raw_subscriptions_not_available_for_unauthorized",
}


class Refused(Exception):
    """A request that is answered with an error of this code."""

    def __init__(self, code: int, **data: str) -> None:
        super().__init__(MESSAGES[code])
        self.code = code
        self.data = data


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as far as its envelope is right."""

    id: int | str
    method: str
    params: dict[str, object]

    @classmethod
    def parse(cls, text: bytes) -> "Call":
        """Raises Refused; `id` is then not known to the caller."""
        if len(text) > REQUEST_BYTES_MAX:
            raise Refused(-32600)
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            raise Refused(-32700) from None
        if not isinstance(message, dict) or not isinstance(message.get("id"), int | str) or isinstance(message.get("id"), bool):
            raise Refused(11050)
        method, params = message.get("method"), message.get("params") or {}
        if not isinstance(method, str) or not isinstance(params, dict):
            raise Refused(11050)
        return cls(message["id"], method, params)


def result(number: int | str | None, value: bytes, asked_s: float) -> bytes:
    """A reply around a result that is JSON already; without a number to a GET."""
    head = b'{"jsonrpc":"2.0",' + (b'"id":%s,' % json.dumps(number).encode() if number is not None else b"")
    return head + b'"result":' + value + b"," + _dump(_times(asked_s))[1:]


def error(number: int | str | None, refused: Refused, asked_s: float) -> bytes:
    told: dict[str, object] = {"code": refused.code, "message": str(refused)}
    if refused.data:
        told["data"] = refused.data
    head: dict[str, object] = {"jsonrpc": "2.0"} if number is None else {"jsonrpc": "2.0", "id": number}
    return _dump(head | {"error": told} | _times(asked_s))


def notification(channel: str, data: object) -> bytes:
    return _dump({"jsonrpc": "2.0", "method": "subscription", "params": {"channel": channel, "data": data}})


def heartbeat(kind: str) -> bytes:
    return _dump({"jsonrpc": "2.0", "method": "heartbeat", "params": {"type": kind}})


def _times(asked_s: float) -> dict[str, object]:
    asked_us, now_us = int(asked_s * 1_000_000), time.time_ns() // 1_000
    return {"usIn": asked_us, "usOut": max(now_us, asked_us), "usDiff": max(now_us - asked_us, 0), "testnet": False}


def _dump(message: object) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()
