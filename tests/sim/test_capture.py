"""Recordings: every frame, in order, to everyone."""

import json
import os
import urllib.request
from pathlib import Path

import pytest

from appliance.errors import ConfigError
from appliance.sim.capture import Recording
from appliance.sim.delivery import payload_of, split
from tests.local_exchange import local_exchange
from tests.sim.wire import Wire


def trade(symbol: str, trade_id: int) -> str:
    data = {
        "e": "trade",
        "E": 1723161515302,
        "s": symbol,
        "t": trade_id,
        "p": "61597.20000000",
        "q": "0.00662000",
        "T": 1723161515301,
        "m": True,
    }
    return json.dumps({"stream": f"{symbol.lower()}@trade", "data": data | {"M": True}}, ensure_ascii=False)


FRAMES = [
    trade("BTCUSDT", 10),
    '{"result":null,"id":1}',
    trade("币安人生USDT", 7),
    "not json",
    trade("BTCUSDT", 12),
    trade("BTCUSDT", 11),
    trade("BTCUSDT", 12),
    '{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT","t":3,"p":"1.0","q":"1.0","T":1,"X":"MARKET","m":true}}',
    "x" * 70_000,
]


def jsonl(path: Path) -> Path:
    lines = [json.dumps({"recv_ns": None, "conn": "a", "raw": frame}) for frame in FRAMES]
    path.write_text("\n".join(lines) + "\n")
    return path


def payloads(recording: Recording) -> list[str]:
    return [payload_of(frame).decode() for frame in split(recording.data)]


def test_a_recording_is_read_from_jsonl_zstd_and_plain_lines(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    recorded = jsonl(tmp_path / "a.jsonl")
    compressed = tmp_path / "a.jsonl.zst"
    text = recorded.read_bytes()
    # Two compressed parts in one file, as an appending recorder leaves them (T26).
    compressed.write_bytes(zstandard.compress(text[:1_000]) + zstandard.compress(text[1_000:]))
    plain = tmp_path / "frames.txt"
    plain.write_text("\n".join(FRAMES))
    for path in (recorded, compressed, plain):
        assert payloads(Recording.load(path)) == FRAMES


def test_spot_trades_of_a_recording_are_known_to_rest_once_and_in_order(tmp_path: Path) -> None:
    recording = Recording.load(jsonl(tmp_path / "a.jsonl"))
    assert sorted(recording.printed["BTCUSDT"]) == [10, 11, 12]
    assert recording.trades[-1] == 5
    with local_exchange("--capture", str(tmp_path / "a.jsonl")) as exchange:
        with urllib.request.urlopen(exchange.rest_url + "/api/v3/exchangeInfo", timeout=10) as reply:
            assert [symbol["symbol"] for symbol in json.load(reply)["symbols"]] == ["BTCUSDT", "币安人生USDT"]
        with urllib.request.urlopen(exchange.rest_url + "/api/v3/historicalTrades?symbol=BTCUSDT&fromId=11", timeout=10) as reply:
            assert [row["id"] for row in json.load(reply)] == [11, 12]


def test_real_recordings_are_served_byte_for_byte() -> None:
    captures = Path(os.environ.get("MDC_CAPTURES", "../shared/captures")) / "binance" / "ws.jsonl.zst"
    if not captures.exists():
        pytest.skip(f"no recordings: {captures} is not there, and MDC_CAPTURES names no other place")
    zstandard = pytest.importorskip("zstandard")
    lines = zstandard.ZstdDecompressor().stream_reader(captures.read_bytes()).read().splitlines()
    recording = Recording.load(captures)
    assert payloads(recording) == [json.loads(line)["raw"] for line in lines]
    assert recording.trades[-1] == 26_024, "spot trades alone: a futures trade is none"


def test_an_empty_or_broken_recording_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("")
    with pytest.raises(ConfigError, match="holds no frame"):
        Recording.load(path)
    path.write_text('{"recv_ns":1,"raw":"x"}\n{"recv_ns":1,"raw":"x')
    with pytest.raises(ConfigError, match=r"a\.jsonl:2"):
        Recording.load(path)


@pytest.mark.parametrize("rate", ["max", "2000"])
def test_every_connection_gets_the_whole_recording_subscribed_or_not(tmp_path: Path, rate: str) -> None:
    with local_exchange("--capture", str(jsonl(tmp_path / "a.jsonl")), "--rate", rate, "--start-after", "2") as exchange:
        with Wire(exchange, "/ws") as first:
            assert exchange.stats()["frames_sent"] == 0, "it waits for the second"
            with Wire(exchange, "/stream?streams=ethusdt@trade") as second, Wire(exchange, "/stream") as third:
                for wire in (first, second, third):
                    assert [wire.text().decode() for _ in FRAMES] == FRAMES
        stats = exchange.stats()
        assert stats["frames_sent"] == 3 * len(FRAMES)
        assert stats["trades_generated"] == stats["trades_sent"] == 5


def test_what_replay_prints_is_taken_as_a_recording(tmp_path: Path) -> None:
    frames = [FRAMES[0].encode(), "币".encode(), b"\xff\x00"]
    lines = [
        json.dumps({"recv_ts_ns": 1, "leg": 0, "chunk": 0, "frame": FRAMES[0]}, separators=(",", ":")),
        json.dumps({"recv_ts_ns": 2, "leg": 1, "chunk": 0, "frame": "币"}, separators=(",", ":")),
        '{"recv_ts_ns":3,"leg":1,"chunk":0,"frame_base64":"/wA="}',
    ]
    path = tmp_path / "replayed.jsonl"
    path.write_text("\n".join(lines))
    recording = Recording.load(path)
    assert [payload_of(frame) for frame in split(recording.data)] == frames
