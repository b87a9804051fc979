"""Recorded Binance frames through local exchange, appliance, ring and journal: every trade once, digit for digit."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from appliance.ring.journal import JournalReader
from appliance.ring.layout import RecordType
from appliance.ring.reader import Record, RingReader
from tests.local_exchange import local_exchange
from tests.system.appliance_process import Site, appliance, site

CAPTURES = Path(os.environ.get("MDC_CAPTURES", Path(__file__).parents[2].parent / "shared" / "captures")) / "binance"
RECORDINGS = {"hft/btcusdt_20240808", "hft/ethusdt_20240808", "hft/btcusdt_20240809"}
FRAMES = 133_192
TRADES = 26_010


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as one:
        yield one


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three spot recordings as one file for `mdc sim --capture`."""
    source = CAPTURES / "ws.jsonl.zst"
    if not source.exists():
        pytest.skip(f"no recording {source}: set MDC_CAPTURES")
    path = tmp_path_factory.mktemp("recording") / "spot.jsonl"
    kept = 0
    with source.open("rb") as packed, path.open("wb") as out:
        text = zstandard.ZstdDecompressor().stream_reader(packed).read()
        for line in text.splitlines(keepends=True):
            if json.loads(line)["conn"] in RECORDINGS:
                out.write(line)
                kept += 1
    assert kept == FRAMES
    return path


def expected(recording: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """By symbol and id, what the record of each recorded trade must say; numbers as they are spelled."""
    trades = {}
    for line in recording.read_text().splitlines():
        frame = json.loads(json.loads(line)["raw"])
        data = frame.get("data", {})
        if data.get("e") == "trade":
            trades[data["s"], data["t"]] = {
                "exchange": "BINANCE",
                "asset": data["s"],
                "kind": "Spot",
                "px": data["p"],
                "sz": data["q"],
                "side": "Sell" if data["m"] else "Buy",
                "exchange_trade_id": data["t"],
                "exchange_ts_ms": data["T"],
            }
    return trades


def read(reader: JournalReader | RingReader) -> list[dict[str, Any]]:
    """Every trade's JSON; a number with a point keeps its digits as text."""
    trades = []
    while items := reader.poll():
        for item in items:
            assert isinstance(item, Record), item
            if item.type == RecordType.TRADE:
                trades.append(json.loads(item.payload, parse_float=str))
    return trades


@pytest.mark.parametrize("legs", [1, 2])
@pytest.mark.parametrize("tls", [(), ("--tls",)], ids=["ws", "wss"])
def test_every_recorded_trade_is_once_in_ring_and_journal_digit_for_digit(
    here: Site, recording: Path, tls: tuple[str, ...], legs: int
) -> None:
    with local_exchange("--capture", str(recording), "--start-after", str(legs), *tls) as exchange:
        ca_file = f'\nca_file = "{exchange.ca_file}"' if exchange.ca_file else ""
        config = here.config(f'rest_url = "{exchange.rest_url}"\nws_url = "{exchange.ws_url}"{ca_file}', feed=f"legs = {legs}")
        with appliance(config) as one:
            one.ready()
            exchange.wait(lambda stats: stats["frames_sent"] == legs * FRAMES and stats["unsent_bytes"] == 0)
            assert one.stop() == 0
    ring = RingReader(here.ring_dir / "binance_trade_chunk0.meta")
    counters = ring.counters()
    recorded = expected(recording)
    assert len(recorded) == TRADES
    for source in (JournalReader(here.journal_dir, "binance", 0), ring):
        found = read(source)
        assert Counter((trade["asset"], trade["exchange_trade_id"]) for trade in found) == Counter(recorded.keys())
        for trade in found:
            fields = recorded[trade["asset"], trade["exchange_trade_id"]]
            assert list(trade)[: len(fields)] == list(fields)
            assert {name: trade[name] for name in fields} == fields
            assert trade["recv_ts_ms"] <= trade["parse_ts_ms"] <= trade["enqueue_ts_ms"] <= trade["writer_ts_ms"]
    assert counters["trades"] == TRADES
    assert counters["duplicates"] == (legs - 1) * TRADES
    # Whatever else was sent changed nothing: acknowledgements, pings and the 107,182 recorded frames that are no trades.
    assert counters["other_frames"] >= legs * (FRAMES - TRADES)
    assert counters["malformed"] == counters["wrong_venue"] == counters["unknown_symbol"] == 0
    assert counters["gaps_open"] == counters["gaps_closed"] == 0
    ring.close()
