"""What each leg brought and how much earlier, in `.meta` and in the minute's status record."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance import Status, open_rings
from appliance.exchanges.binance_decoder import BinanceDecoder
from appliance.exchanges.instruments import Instruments
from appliance.feed.pipeline import Pipeline
from appliance.ring.layout import PAYLOAD_MAX
from appliance.ring.store import StoreOptions
from appliance.tools import stats

OPTIONS = StoreOptions(capacity_bytes=1 << 24, segment_bytes=1 << 24, flush_interval_ms=1, mlock=False)
FRAME = (
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1790649901913,"s":"BTCUSDT","t":%d,"p":"1.50","q":"2.0",'
    b'"T":1790649901913,"m":true,"M":true}}'
)


def trade(number: int) -> bytes:
    return FRAME % number


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    with opened(tmp_path, 3) as one:
        yield one


@contextmanager
def opened(root: Path, legs: int) -> Iterator[Pipeline]:
    (root / "ring").mkdir()
    (root / "journal").mkdir()
    instruments = Instruments("BINANCE")
    instruments.add("BTCUSDT")
    decoder = BinanceDecoder(instruments)
    one = Pipeline.open(root / "ring", root / "journal", "binance", 0, decoder, OPTIONS, legs=legs, gap_grace_ms=0)
    yield one
    assert one.drain("the test is over", 5.0)


def legs(tmp_path: Path) -> list[dict[str, Any]]:
    (row,) = stats.read(tmp_path / "ring")
    return list(row["legs"])


def minutes(tmp_path: Path) -> list[dict[str, Any]]:
    return [dict(value.fields) for value in open_rings(tmp_path / "ring") if isinstance(value, Status) and value.event == "minute"]


def test_wins_second_copies_and_what_only_one_leg_brought(pipeline: Pipeline, tmp_path: Path) -> None:
    path = pipeline.path
    for number in range(100):
        path.commit_message(trade(number), 0)
    for number in range(90):  # ten are leg 0's alone
        path.commit_message(trade(number), 1)
    for number in range(50):  # third copies say nothing more
        path.commit_message(trade(number), 2)
    for number in range(100, 105):
        path.commit_message(trade(number), 1)
        path.commit_message(trade(number), 0)
    pipeline.minute.end()
    zero, one, two = legs(tmp_path)
    assert (zero["wins"], zero["shared"], zero["only"], zero["duplicates"]) == (100, 90, 10, 5)
    assert (one["wins"], one["shared"], one["only"], one["duplicates"]) == (5, 5, 0, 90)
    assert (two["wins"], two["only"], two["duplicates"]) == (0, 0, 50)
    assert (zero["lead_ns"]["count"], one["lead_ns"]["count"], two["lead_ns"]["count"]) == (90, 5, 0)


def test_a_second_connection_of_the_same_leg_is_no_second_leg(pipeline: Pipeline, tmp_path: Path) -> None:
    """While a successor takes over, one leg brings all twice."""
    for number in range(10):
        pipeline.path.commit_message(trade(number), 0)
        pipeline.path.commit_message(trade(number), 0)
    (zero,) = legs(tmp_path)
    assert (zero["wins"], zero["shared"], zero["duplicates"]) == (10, 0, 10)


def test_what_rest_brought_counts_for_no_leg(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.path.commit_message(trade(1), 0)
    pipeline.path.commit_message(trade(3), 0)
    pipeline.path.backfill(trade(2))
    pipeline.path.commit_message(trade(2), 1)
    zero, one = legs(tmp_path)
    assert (zero["wins"], zero["shared"], one["wins"], one["duplicates"]) == (2, 0, 0, 1)


def test_a_minute_tells_what_has_come_since_the_last_one(pipeline: Pipeline, tmp_path: Path) -> None:
    for number in range(10):
        pipeline.path.commit_message(trade(number), 0)
        pipeline.path.commit_message(trade(number), 1)
    pipeline.minute.tell()
    pipeline.path.commit_message(trade(12), 1)
    pipeline.path.commit_message(trade(12), 0)
    pipeline.turn()
    pipeline.minute.tell()
    first, second = minutes(tmp_path)
    assert first["clock_error_ns"] is None
    assert first["counters"]["trades"] == 10
    assert first["counters"]["duplicates"] == 10
    assert first["recv_to_commit_ns"]["count"] == 10
    assert 0 < first["recv_to_commit_ns"]["p50"] <= first["recv_to_commit_ns"]["p999"] <= first["recv_to_commit_ns"]["max"]
    assert [leg["wins"] for leg in first["legs"]] == [10, 0, 0]
    assert [leg["lead_ns"]["count"] for leg in first["legs"]] == [10, 0, 0]
    assert second["from_ts_ms"] == first["to_ts_ms"]
    assert second["counters"]["trades"] == 1
    assert second["recv_to_commit_ns"]["count"] == 1
    assert (second["gaps_open"], second["missing_ids"]) == (1, 2)
    assert [leg["wins"] for leg in second["legs"]] == [0, 1, 0]
    assert [leg["lead_ns"]["count"] for leg in second["legs"]] == [0, 1, 0]


def test_a_minute_is_told_by_the_clock_and_a_longer_rest_at_the_end(tmp_path: Path) -> None:
    with opened(tmp_path, 1) as one:
        now_s = 0.0
        one.minute = type(one.minute)(one.path, one.store.writer, 1, one.status, lambda: now_s)
        for now_s in range(0, 181, 2):  # noqa: B007 - the clock reads it
            one.turn()
        assert len(minutes(tmp_path)) == 3
        now_s = 200.0
    assert len(minutes(tmp_path)) == 4


def test_the_record_of_all_legs_and_the_largest_numbers_is_small(tmp_path: Path) -> None:
    with opened(tmp_path, 8) as one:
        for name in one.path.counters():
            one.store.writer.add_to(name, (1 << 62) - 1)
        one.minute.tell()
        assert len(json.dumps(minutes(tmp_path)[-1])) < PAYLOAD_MAX // 4
        for name in one.path.counters():
            one.store.writer.set_counter(name, 0)
