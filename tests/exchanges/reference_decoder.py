"""What a Binance frame means, slowly and plainly: json.loads, then one rule after the other."""

import json
import re
from collections.abc import Container
from typing import Any

DEPTH_MAX = 64
LONG_KEYS_MAX = 128
DECIMAL = re.compile(r"(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?")
YEAR_2001_MS = 1_000_000_000_000
YEAR_2100_MS = 4_102_444_800_000

Outcome = tuple[str, list[dict[str, Any]]]


class Fields(list[tuple[str, Any]]):
    """A JSON object as its pairs: repeated keys are still there."""

    def repeats_a_key(self) -> bool:
        return len({key for key, _ in self}) < len(self)

    def has_too_many_keys(self) -> bool:
        return sum(len(key) != 1 or not key.isascii() for key, _ in self) > LONG_KEYS_MAX


class Number(str):
    """A JSON number as it is spelled."""


def refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def depth(value: object) -> int:
    if isinstance(value, Fields):
        return 1 + max((depth(inner) for _, inner in value), default=0)
    if isinstance(value, list):
        return 1 + max((depth(inner) for inner in value), default=0)
    return 0


def whole(value: object) -> int | None:
    return int(value) if isinstance(value, Number) and re.fullmatch("[0-9]{1,18}", value) else None


def is_decimal(value: object) -> bool:
    return type(value) is str and len(value) <= 40 and DECIMAL.fullmatch(value) is not None


def decode(payload: bytes, symbols: Container[str]) -> Outcome:
    try:
        text = payload.decode()
        frame = json.loads(text, parse_float=Number, parse_int=Number, parse_constant=refuse, object_pairs_hook=Fields)
        too_deep = depth(frame) > DEPTH_MAX
    except (ValueError, RecursionError):
        return "MALFORMED", []
    if too_deep:
        return "MALFORMED", []
    if not isinstance(frame, Fields):
        return "OTHER", []
    if frame.repeats_a_key() or frame.has_too_many_keys():
        return "MALFORMED", []
    outer = dict(frame)
    data = outer.get("data")
    if isinstance(data, Fields) and (data.repeats_a_key() or data.has_too_many_keys()):
        return "MALFORMED", []
    if "stream" in outer and type(outer["stream"]) is not str:
        return "MALFORMED", []
    if "data" in outer and not isinstance(data, Fields):
        return "OTHER", []
    event = dict(data) if isinstance(data, Fields) else outer
    if type(event.get("e")) is not str or event["e"] != "trade":
        return "OTHER", []
    if "X" in event or "st" in event:
        return "WRONG_VENUE", []
    return trade(event, symbols)


def trade(event: dict[str, Any], symbols: Container[str]) -> Outcome:
    trade_id, time = whole(event.get("t")), whole(event.get("T"))
    px, sz, symbol, buyer_is_maker = event.get("p"), event.get("q"), event.get("s"), event.get("m")
    if trade_id is None or time is None or not is_decimal(px) or not is_decimal(sz):
        return "MALFORMED", []
    if type(symbol) is not str or type(buyer_is_maker) is not bool:
        return "MALFORMED", []
    if YEAR_2001_MS <= time < YEAR_2100_MS:
        exchange_ts_ms, exchange_ts_ns = time, 0
    elif YEAR_2001_MS * 1000 <= time < YEAR_2100_MS * 1000:
        exchange_ts_ms, exchange_ts_ns = time // 1000, time * 1000
    else:
        return "MALFORMED", []
    if symbol not in symbols:
        return "UNKNOWN_SYMBOL", []
    return "TRADES", [
        {
            "asset": symbol,
            "trade_id": trade_id,
            "sequence_id": trade_id,
            "exchange_ts_ms": exchange_ts_ms,
            "exchange_ts_ns": exchange_ts_ns,
            "px": px,
            "sz": sz,
            "side": "Sell" if buyer_is_maker else "Buy",
            "tail": "",
        }
    ]
