"""What a Deribit frame means, slowly and plainly: json.loads, then one rule after the other."""

import json
import re
from typing import Any

from tests.exchanges.reference_decoder import DEPTH_MAX, YEAR_2001_MS, YEAR_2100_MS, Fields, Number, Outcome, depth, refuse

KEYS_MAX = 64
KEPT = (
    "index_price", "mark_price", "iv", "tick_direction", "contracts", "liquidation", "block_trade_id", "combo_id", "combo_trade_id",
)  # fmt: skip
REQUIRED = ("timestamp", "price", "amount", "direction", "instrument_name", "trade_seq", "trade_id")
KNOWN = {*REQUIRED, *KEPT, "starbase_timestamp"}
NAME = re.compile(r"[^\x00-\x20\x7f]+")


def whole(value: object) -> int:
    if not isinstance(value, Number) or not re.fullmatch("[0-9]{1,19}", value) or int(value) > 2**63 - 1:
        return -1
    return int(value)


def is_decimal(value: object, signed: bool) -> bool:
    if not isinstance(value, Number) or len(value) > 40 or (value.startswith("-") and not signed):
        return False
    exponent = re.search(r"[eE][+-]?([0-9]+)$", value)
    return exponent is None or len(exponent[1]) <= 2


def spelled(value: object) -> str:
    return value if isinstance(value, Number) else json.dumps(value, ensure_ascii=False)


def has_known_twice(row: Fields) -> bool:
    return row.repeats_a_key() or sum(key not in KNOWN for key, _ in row) > KEYS_MAX


def trade(row: object) -> dict[str, Any] | None:
    """One row as a trade; None: it cannot be one."""
    if not isinstance(row, Fields) or has_known_twice(row):
        return None
    found = {key: value for key, value in row if value is not None}
    if any(key not in found for key in REQUIRED):
        return None
    name, trade_id = found["instrument_name"], found["trade_id"]
    sequence, time = whole(found["trade_seq"]), whole(found["timestamp"])
    if (
        type(name) is not str
        or not NAME.fullmatch(name)
        or len(name.encode()) > 64
        or not isinstance(trade_id, str)
        or len(spelled(trade_id)) > 130
    ):
        return None
    if not is_decimal(found["price"], signed=True) or not is_decimal(found["amount"], signed=False):
        return None
    if type(found["direction"]) is not str or found["direction"] not in ("buy", "sell"):
        return None
    if sequence < 1 or not YEAR_2001_MS <= time < YEAR_2100_MS:
        return None
    if len(trade_id.encode()) > 128:
        return None
    kept = {key: value for key in KEPT if isinstance(value := found.get(key), str) and len(value.encode()) <= 128}
    digits = re.search(r"[0-9]*$", trade_id)
    number = int(digits[0]) if digits and 0 < len(digits[0]) <= 19 and int(digits[0]) < 2**63 else 0
    time_ns = whole(found.get("starbase_timestamp"))
    return {
        "asset": name,
        "trade_id": number,
        "sequence_id": sequence,
        "exchange_ts_ms": time,
        "exchange_ts_ns": time_ns if YEAR_2001_MS <= time_ns // 1_000_000 < YEAR_2100_MS else 0,
        "px": str(found["price"]),
        "sz": str(found["amount"]),
        "side": found["direction"].capitalize(),
        "tail": f',"exchange_trade_seq":{found["trade_seq"]},"trade_id":{spelled(trade_id)}'
        + "".join(f',"{key}":{spelled(value)}' for key, value in kept.items()),
    }


def decode(payload: bytes) -> Outcome:
    try:
        frame = json.loads(payload.decode(), parse_float=Number, parse_int=Number, parse_constant=refuse, object_pairs_hook=Fields)
        too_deep = depth(frame) > DEPTH_MAX
    except (ValueError, RecursionError):
        return "MALFORMED", []
    if too_deep:
        return "MALFORMED", []
    if not isinstance(frame, Fields):
        return "OTHER", []
    if frame.repeats_a_key() or len(frame) > KEYS_MAX:
        return "MALFORMED", []
    outer = dict(frame)
    params = outer.get("params")
    if not isinstance(params, Fields):
        return "OTHER", []
    if params.repeats_a_key() or len(params) > KEYS_MAX:
        return "MALFORMED", []
    inner = dict(params)
    channel = inner.get("channel")
    if type(channel) is not str or not channel.startswith("trades.") or not 7 < len(channel) <= 128 or "data" not in inner:
        return "OTHER", []
    if type(inner["data"]) is not list:
        return "MALFORMED", []
    trades = [trade(row) for row in inner["data"]]
    if None in trades:
        return "MALFORMED", []
    if not trades or type(outer.get("method")) is not str or outer["method"] != "subscription":
        return "OTHER", []
    return "TRADES", [one for one in trades if one is not None]


def kind(channel: str, name: str) -> str:
    """The record's kind of an instrument that is seen for the first time on a channel."""
    parts = channel.split(".")
    if len(parts) == 4:
        found = {"option": "Option", "spot": "Spot"}.get(parts[1], "Spread" if parts[1].endswith("_combo") else "Future")
    elif "-" not in name:
        found = "Spot"
    elif re.fullmatch(r"[^-]*-[^-]*-[^-]*-[CP]", name):
        found = "Option"
    else:
        found = "Future" if name.count("-") == 1 else "Spread"
    return "Perpetual" if found == "Future" and re.fullmatch(".+-PERPETUAL", name) else found
