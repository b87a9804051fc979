"""Binance's names, requests and replies: from bytes to facts, on recorded bodies where there are any."""

import json
import os
from itertools import count
from pathlib import Path
from urllib.parse import unquote

import pytest
import zstandard

from appliance.errors import ConfigError
from appliance.exchanges.binance import EXCHANGE, REQUEST_URI_BYTES_MAX, SUBSCRIBE_BYTES_MAX, SUBSCRIBE_STREAMS_MAX
from appliance.exchanges.exchange import Acknowledged, BadReply, Refusal, Rejected, ShuttingDown, Subscribed, Trouble, open_exchange

CAPTURES = Path(os.environ.get("MDC_CAPTURES", Path(__file__).parents[2].parent / "shared" / "captures")) / "binance" / "rest"
NOW_S = 1_790_000_000.0


def body(name: str) -> bytes:
    path = CAPTURES / f"{name}.json.zst"
    if not path.exists():
        pytest.skip(f"no recording {path}: set MDC_CAPTURES")
    with path.open("rb") as file:
        return zstandard.ZstdDecompressor().stream_reader(file).read()


def info(*symbols: dict[str, object]) -> bytes:
    return json.dumps({"timezone": "UTC", "symbols": list(symbols)}, ensure_ascii=False).encode()


def names(reply: bytes) -> list[str]:
    return list(EXCHANGE.instruments(reply))


def refusal(status: int, said: bytes = b"", **headers: str) -> Refusal:
    return EXCHANGE.refusal(status, {name.replace("_", "-"): value for name, value in headers.items()}, said, NOW_S)


def test_a_full_recorded_body_gives_every_trading_spot_symbol_and_none_that_is_leveraged() -> None:
    reply = body("exchangeInfo_2021-10-12")
    expected = [s["symbol"] for s in json.loads(reply)["symbols"] if s["status"] == "TRADING" and "SPOT" in s["permissions"]]
    assert names(reply) == expected
    assert len(expected) == 1_222  # 1,262 are TRADING; 40 of them carry ["LEVERAGED"] alone


def test_the_newer_schemas_are_read_too() -> None:
    now = body("exchangeInfo_2025-08-07_trimmed25")
    assert names(now) == [s["symbol"] for s in json.loads(now)["symbols"] if s["status"] == "TRADING"]
    array = body("exchangeInfo_symbols_2023-10")
    assert len(names(b'{"symbols":' + array + b"}")) == sum(s["isSpotTradingAllowed"] for s in json.loads(array))


@pytest.mark.parametrize(
    ("symbol", "wanted"),
    [
        ({"status": "TRADING"}, True),
        ({"status": "TRADING", "isSpotTradingAllowed": True, "permissions": [], "permissionSets": []}, True),
        ({"status": "TRADING", "permissions": [], "permissionSets": [["SPOT", "MARGIN"], ["TRD_GRP_004"]]}, True),
        ({"status": "TRADING", "permissions": [], "permissionSets": [["TRD_GRP_004"]]}, False),
        ({"status": "TRADING", "permissions": ["SPOT"]}, True),
        ({"status": "TRADING", "permissions": ["LEVERAGED"]}, False),
        ({"status": "TRADING", "isSpotTradingAllowed": False, "permissionSets": [["SPOT"]]}, False),
        ({"status": "CANCEL_ONLY"}, False),
        ({"status": "A_STATUS_OF_NEXT_YEAR"}, False),
        ({}, False),
    ],
)
def test_a_symbol_is_taken_when_it_trades_on_the_spot_market(symbol: dict[str, object], wanted: bool) -> None:
    assert names(info({"symbol": "BTCUSDT", **symbol})) == (["BTCUSDT"] if wanted else [])


def test_names_beyond_ascii_are_taken_and_impossible_ones_left_out() -> None:
    """T19: 币安人生USDT is traded."""
    symbols: list[dict[str, object]] = [
        {"symbol": name, "status": "TRADING"} for name in ("币安人生USDT", "1INCHUSDT", "A" * 65, "", "A\nB", 7)
    ]
    assert names(info(*symbols)) == ["币安人生USDT", "1INCHUSDT"]


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"<html><body>maintenance</body></html>",
        b'{"code":-1003,"msg":"Too much request weight used"}',
        b"[]",
        b'{"symbols":{}}',
        b'{"symbols":[1]}',
        b'{"symbols":[{"symbol":"BTCUSDT"',
        b'{"symbols":' + b"[" * 10_000,
        b'{"symbols":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b"\xff\xfe",
    ],
)
def test_what_is_no_exchange_info_is_said_to_be_none(reply: bytes) -> None:
    with pytest.raises(BadReply, match="no exchangeInfo"):
        list(EXCHANGE.instruments(reply))


def test_400_usual_symbols_fit_the_url() -> None:
    streams = EXCHANGE.streams(f"COIN{number:04}USDT" for number in range(400))
    path, rest = EXCHANGE.connect_path(streams)
    assert rest == []
    assert unquote(path) == "/stream?streams=" + "/".join(streams)


def test_a_url_is_measured_in_encoded_bytes_and_what_finds_no_room_is_subscribed() -> None:
    """T19: each Chinese character costs nine bytes in a URL and three in a frame."""
    symbols = [f"我踏马来了{number}USDT" for number in range(400)]
    streams = EXCHANGE.streams(symbols)
    path, rest = EXCHANGE.connect_path(streams)
    assert 0 < len(rest) < 400
    assert REQUEST_URI_BYTES_MAX - 100 < len(path) <= REQUEST_URI_BYTES_MAX
    assert path.isascii()
    assert unquote(path).removeprefix("/stream?streams=").split("/") + rest == streams
    frames = EXCHANGE.subscribe(rest, count(7))
    assert [request for request, _ in frames] == list(range(7, 7 + len(frames)))
    assert [stream for _, frame in frames for stream in json.loads(frame)["params"]] == rest


@pytest.mark.parametrize("symbol", ["BTCUSDT", "我踏马来了USDT", 'A"B\\C'])
def test_subscribe_frames_stay_within_bytes_and_streams(symbol: str) -> None:
    streams = EXCHANGE.streams(f"{symbol}{number}" for number in range(1_000))
    frames = EXCHANGE.subscribe(streams, count(2**60))
    assert [stream for _, frame in frames for stream in json.loads(frame)["params"]] == streams
    for request, frame in frames:
        assert len(frame) <= SUBSCRIBE_BYTES_MAX
        assert len(json.loads(frame)["params"]) <= SUBSCRIBE_STREAMS_MAX
        assert json.loads(frame)["id"] == request
    for _, frame in frames[:-1]:
        assert len(frame) > SUBSCRIBE_BYTES_MAX - 100 or len(json.loads(frame)["params"]) == SUBSCRIBE_STREAMS_MAX


def test_a_stream_is_the_lower_case_name() -> None:
    assert EXCHANGE.streams(["1000SATSUSDT"]) == ["1000satsusdt@trade"]
    assert EXCHANGE.streams(["币安人生USDT"]) == ["币安人生usdt@trade"]


@pytest.mark.parametrize(
    ("frame", "meaning"),
    [
        ('{"result":null,"id":3}', Acknowledged(3)),
        ('{"id":3,"result":["btcusdt@trade","币安人生usdt@trade"]}', Subscribed(3, frozenset({"btcusdt@trade", "币安人生usdt@trade"}))),
        ('{"result":[],"id":3}', Subscribed(3, frozenset())),
        ('{"error":{"code":2,"msg":"Invalid request"},"id":1}', Rejected(1, '{"code": 2, "msg": "Invalid request"}')),
        ('{"error":{"code":3,"msg":"Invalid JSON"}}', Rejected(None, '{"code": 3, "msg": "Invalid JSON"}')),
        ('{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}', ShuttingDown()),
        ('{"e":"serverShutdown","E":1770123456789}', ShuttingDown()),
        ('{"stream":"btcusdt@bookTicker","data":{"u":1,"s":"BTCUSDT","b":"1","B":"2","a":"3","A":"4"}}', None),
        ('{"stream":"x@trade","data":{"e":"trade","s":"serverShutdown"}}', None),
        ('{"result":null}', None),
        ('{"result":' + "[" * 10_000, None),
        ("[]", None),
        ('"result"', None),
        ("", None),
        ('{"result":null,"id":3, "x":"' + "x" * 300_000 + '"}', None),
    ],
)
def test_control_frames_are_understood_and_all_else_is_nothing(frame: str, meaning: object) -> None:
    """T7: the shutdown is a text frame among the data."""
    assert EXCHANGE.control(frame.encode()) == meaning


@pytest.mark.parametrize(
    ("status", "trouble"),
    [(451, "blocked"), (403, "forbidden"), (418, "banned"), (429, "banned"), (301, "moved"), (404, "moved"), (410, "moved"), (500, "away"),
     (503, "away"), (400, "away"), (200, "away")],
)  # fmt: skip
def test_each_status_has_its_trouble(status: int, trouble: str) -> None:
    """T34: a retired interface is told from one that is away."""
    assert refusal(status).trouble == Trouble(trouble)


def test_a_ban_lasts_as_long_as_the_longer_of_header_and_body_says() -> None:
    said = b'{"code":-1003,"msg":"Way too much request weight used; IP banned until 1790000060000. Please use WebSocket Streams."}'
    assert refusal(418, said).retry_after_s == 60.0
    assert refusal(418, said, retry_after="120").retry_after_s == 120.0
    assert refusal(418, said, retry_after="3").retry_after_s == 60.0
    assert refusal(418, b"", retry_after="soon").retry_after_s == 120.0
    assert refusal(418, b"", retry_after="inf").retry_after_s == 120.0
    assert refusal(418, b"", retry_after="1e9").retry_after_s == 3 * 24 * 3600.0
    assert refusal(418, b"", retry_after="Thu, 01 Jan 1970 00:00:00 GMT").retry_after_s == 120.0
    assert refusal(418, b"", retry_after="Thu, 01 Jan 2099 00:00:00 GMT").retry_after_s == 3 * 24 * 3600.0
    assert refusal(429).retry_after_s == 60.0
    assert refusal(503, b"", retry_after="5").retry_after_s is None


def test_a_refusal_says_in_one_line_what_the_exchange_said() -> None:
    assert "1 BTC\\nUSD" not in refusal(500, b"a\nb\n  c").reason
    assert "a b c" in refusal(500, b"a\nb\n  c").reason
    assert "0 Service unavailable from" in refusal(451, b'{"code":0,"msg":"Service unavailable from a restricted location"}').reason
    assert "an empty body" in refusal(500).reason
    assert len(refusal(500, b"<html>" * 10_000).reason) < 300
    assert "https://new.example" in refusal(301, b"", location="https://new.example").reason


def test_an_exchange_is_found_by_its_name() -> None:
    assert open_exchange("binance") is EXCHANGE
    with pytest.raises(ConfigError, match="no such exchange"):
        open_exchange("nowhere")
