"""Real Deribit through the appliance: every recorded frame, list of instruments and trade, by value."""

import csv
import io
import itertools
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import zstandard

from appliance import Trade
from tests.exchanges import deribit_reference as reference
from tests.local_exchange import local_exchange
from tests.system.appliance_process import Site, appliance
from tests.system.deribit_site import config, deribit_site

CAPTURES = Path(os.environ.get("MDC_CAPTURES", Path(__file__).parents[3] / "shared" / "captures")) / "deribit"
pytestmark = pytest.mark.skipif(not CAPTURES.is_dir(), reason=f"no recorded frames: {CAPTURES} is not there, set MDC_CAPTURES")
BATCH_MS = 100
SOURCES = (
    "crypto-msg-parser", "nautilus_trader", "ziyangliu-666/FastMM", "text-index/idx22701524098", "text-index/idx54863319618",
    "text-index/idx27215998448", "text-index/idx28502824698",
)  # fmt: skip
LISTS = sorted(path.name for path in CAPTURES.glob("rest/get_instruments*")) if CAPTURES.is_dir() else []


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with deribit_site(tmp_path, monkeypatch) as one:
        yield one


def text_of(name: str) -> io.TextIOWrapper:
    raw = (CAPTURES / name).read_bytes()
    return io.TextIOWrapper(
        io.BytesIO(zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True).read()), "utf-8", newline=""
    )


@pytest.mark.parametrize("source", SOURCES)
def test_every_recorded_frame_goes_through_the_appliance_as_the_reference_has_it(here: Site, tmp_path: Path, source: str) -> None:
    """All frames of a source, those that are no trades too: replies, errors and heartbeats of somebody else's connection."""
    frames = [line["raw"] for line in map(json.loads, text_of("ws.jsonl.zst")) if line["conn"] == source]
    capture = tmp_path / "frames.jsonl"
    capture.write_text("\n".join(frames))
    with (
        local_exchange("--capture", str(capture), "--start-after", "2", name="deribit") as exchange,
        appliance(config(here, exchange)) as one,
    ):
        one.ready()
        exchange.wait(lambda stats: stats["finished"])
        assert one.stop() == 0
        assert exchange.stats()["websockets"] == 2
    wanted = [row for frame in frames for row in reference.decode(frame.encode())[1]]
    found = [value for value in here.values(None) if isinstance(value, Trade)]
    assert len(found) == len(wanted) > 0
    for trade, row in zip(found, wanted, strict=True):
        fields = json.loads(trade.payload, parse_float=str, parse_int=str)
        tail = json.loads("{" + row["tail"][1:] + "}", parse_float=str, parse_int=str)
        assert {name: fields[name] for name in tail} == tail
        assert (trade.asset, trade.exchange_trade_id, trade.exchange_trade_seq) == (row["asset"], row["trade_id"], row["sequence_id"])
        assert (trade.px_digits, trade.sz_digits, trade.side.value) == (row["px"], row["sz"], row["side"])
        assert trade.exchange_ts_ms == row["exchange_ts_ms"]
        assert fields.get("exchange_ts_ns") == (str(row["exchange_ts_ns"]) if row["exchange_ts_ns"] else None)


@pytest.mark.parametrize("name", LISTS)
def test_every_recorded_list_of_instruments_is_taken_and_all_of_them_are_recorded_with_their_kind(
    here: Site, tmp_path: Path, name: str
) -> None:
    body = text_of(f"rest/{name}").read()
    path = tmp_path / "instruments.json"
    path.write_text(body)
    with (
        local_exchange(
            "--exchange-info", str(path), "--rate", "20000", "--count", "40000", "--start-after", "2", name="deribit"
        ) as exchange,
        appliance(config(here, exchange)) as one,
    ):
        one.ready()
        exchange.wait(lambda stats: stats["finished"])
        assert one.stop() == 0
        sent = exchange.stats()["trades_sent"]
    plain = {"option": "Option", "spot": "Spot", "future_combo": "Spread", "option_combo": "Spread"}
    wanted = {
        one["instrument_name"]: plain.get(one["kind"], "Perpetual" if one["instrument_name"].endswith("-PERPETUAL") else "Future")
        for one in json.loads(body)["result"]
    }
    trades = [value for value in here.values(None) if isinstance(value, Trade)]
    assert len(trades) == sent == 40_000
    assert {trade.asset: str(trade.kind) for trade in trades} == wanted


def real_trades() -> list[dict[str, str]]:
    rows = csv.DictReader(text_of("trades_btc_2026-08.csv.zst"))
    return sorted(rows, key=lambda row: (int(row["timestamp_ms"]), int(row["trade_id"])))


def notifications(rows: list[dict[str, str]], interval: str) -> Iterator[str]:
    """The dump's trades as the websocket would have sent them. It has no trade_seq: here it counts from 1 in each instrument."""
    sequences: defaultdict[str, Iterator[int]] = defaultdict(lambda: itertools.count(1))

    def key(row: dict[str, str]) -> tuple[Any, ...]:
        kind = "option" if row["instrument_name"].endswith(("-C", "-P")) else "future"
        at_ms = int(row["timestamp_ms"])
        return (kind, row["instrument_name"], at_ms) if interval == "raw" else (at_ms // BATCH_MS, kind)

    for batch, group in itertools.groupby(sorted(rows, key=key) if interval != "raw" else rows, key=key):
        kind = batch[0] if interval == "raw" else batch[1]
        data = [
            f'{{"timestamp":{row["timestamp_ms"]},"price":{row["price"]},"direction":"{row["direction"]}",'
            f'"instrument_name":"{row["instrument_name"]}","index_price":{row["index_price"]},"trade_id":"{row["trade_id"]}",'
            f'"trade_seq":{next(sequences[row["instrument_name"]])},"amount":{row["amount"]},"mark_price":{row["mark_price"]}'
            + (f',"iv":{row["iv"]}' if row["iv"] else "")
            + "}"
            for row in group
        ]
        head = f'{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"trades.{kind}.any.{interval}","data":['
        yield head + ",".join(data) + "]}}"


@pytest.mark.parametrize("legs", [1, 2])
@pytest.mark.parametrize("interval", ["raw", "100ms"])
def test_every_real_trade_is_there_once_and_in_order_and_equal_by_value(here: Site, tmp_path: Path, interval: str, legs: int) -> None:
    """T14: gaps are what trade_seq lacks; trade_id, which is per currency, jumps from trade to trade."""
    rows = real_trades()
    assert len(rows) == 6918
    capture = tmp_path / "frames.jsonl"
    capture.write_text("\n".join(notifications(rows, interval)))
    with (
        local_exchange("--capture", str(capture), "--start-after", str(legs), name="deribit") as exchange,
        appliance(config(here, exchange, interval, feed=f"legs = {legs}")) as one,
    ):
        one.ready()
        exchange.wait(lambda stats: stats["finished"])
        assert one.stop() == 0
    found = [value for value in here.values(None) if isinstance(value, Trade)]
    assert len(found) == 6918
    wanted: defaultdict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for frame in notifications(rows, interval):
        for row in json.loads(frame, parse_float=Decimal)["params"]["data"]:
            value = (
                int(row["trade_id"]),
                row["trade_seq"],
                row["timestamp"],
                Decimal(row["price"]),
                Decimal(row["amount"]),
                row["direction"],
            )
            wanted[row["instrument_name"]].append(value)
    got: defaultdict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for trade in found:
        got[trade.asset].append(
            (trade.exchange_trade_id, trade.exchange_trade_seq, trade.exchange_ts_ms, trade.px, trade.sz, trade.side.value.lower())
        )
    assert got == wanted
    assert {trade.kind for trade in found if trade.asset.endswith("-C")} == {"Option"}
    assert {str(trade.kind) for trade in found if trade.asset == "BTC-PERPETUAL"} == {"Perpetual"}
    lacking = 0
    for values in wanted.values():
        numbers = sorted(value[1] for value in values)
        lacking += numbers[-1] - numbers[0] + 1 - len(numbers)
    assert sum(gap.to_id - gap.from_id + 1 for gap in here.gaps()) == lacking
    assert sum(after[0] != before[0] + 1 for values in wanted.values() for before, after in pairwise(values)) > 1_000
