"""Binance lists and delists while the appliance runs: every trade from the first id on, on the connections that there are."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance import Status
from appliance.tools import coverage, verify
from tests.local_exchange import LocalExchange, local_exchange
from tests.system.appliance_process import Site, appliance, site

RATE = 1_000


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as one:
        yield one


def config(here: Site, exchange: LocalExchange, feed: str = "legs = 2", list_s: int = 1) -> Path:
    urls = f'rest_url = "{exchange.rest_url}"\nws_url = "{exchange.ws_url}"'
    return here.config(urls, feed=feed, symbols=f"list_s = {list_s}")


def told(here: Site, event: str, directory: Path | None = None) -> list[dict[str, Any]]:
    return [dict(value.fields) for value in here.values(directory) if isinstance(value, Status) and value.event == event]


def assert_whole(here: Site, trades: int) -> None:
    held = here.trades()
    assert len(held) == trades
    assert max(Counter(held).values()) == 1
    assert verify.run(rings=here.journal_dir, as_json=True) == 0
    assert coverage.run(rings=here.journal_dir, start=None, end=None, out=None, check=None, as_json=True) == 0


@pytest.mark.parametrize("first_id", [0, 1])
@pytest.mark.parametrize("legs", [1, 2])
def test_a_new_listing_is_held_from_its_first_trade_on_and_costs_no_connection(here: Site, legs: int, first_id: int) -> None:
    trades = 12 * RATE
    flags = ["--symbols", "10", "--rate", str(RATE), "--count", str(trades), "--start-after", str(legs)]
    fault = f"listing:after={4 * RATE},symbol=ETHUSDT,first_id={first_id}"
    with local_exchange(*flags, "--fault", fault) as exchange:
        with appliance(config(here, exchange, f"legs = {legs}")) as one:
            one.ready()
            one.wait(lambda: one.logged("ETHUSDT .* was listed"))
            exchange.wait(lambda stats: stats["finished"], 60.0)
            one.wait(lambda: len(here.trades(here.ring_dir)) == trades)
            assert one.stop() == 0
        assert exchange.stats()["websockets"] == legs
    new = sorted(number for name, number in here.trades() if name == "ETHUSDT")
    assert new == list(range(first_id, first_id + len(new)))
    assert [listed["asset"] for listed in told(here, "listed")] == ["ETHUSDT"]
    assert told(here, "lost") == told(here, "leaving") == []
    assert_whole(here, trades)


def test_a_listing_that_traded_only_before_anybody_listened_is_held_too(here: Site) -> None:
    trades = 5 * RATE
    flags = ["--symbols", "10", "--rate", str(RATE), "--count", str(trades), "--start-after", "2"]
    with (
        local_exchange(*flags, "--fault", f"listing:after={trades - 200},symbol=ETHUSDT,first_id=0") as exchange,
        appliance(config(here, exchange, list_s=3)) as one,
    ):
        one.ready()
        exchange.wait(lambda stats: stats["finished"], 60.0)
        assert told(here, "listed", here.ring_dir) == []
        one.wait(lambda: len(here.trades(here.ring_dir)) == trades)
        assert one.stop() == 0
    assert_whole(here, trades)


def test_a_listing_that_needs_a_chunk_of_its_own_gets_one_while_running(here: Site) -> None:
    trades = 12 * RATE
    flags = ["--symbols", "4", "--rate", str(RATE), "--count", str(trades), "--start-after", "2"]
    with (
        local_exchange(*flags, "--fault", f"listing:after={4 * RATE},symbol=ETHUSDT,first_id=0") as exchange,
        appliance(config(here, exchange, "legs = 2\nchunk_symbols = 3")) as one,
    ):
        one.ready()
        exchange.wait(lambda stats: stats["finished"], 60.0)
        one.wait(lambda: len(here.trades(here.ring_dir)) == trades)
        assert one.stop() == 0
    assert [name for name in here.rings() if name.endswith(".meta")] == ["binance_trade_chunk0.meta", "binance_trade_chunk1.meta"]
    assert [listed["asset"] for listed in told(here, "listed")] == ["ETHUSDT"]
    assert_whole(here, trades)


@pytest.mark.parametrize("gone", ["true", "false"])
def test_a_delisted_symbol_keeps_its_place_is_told_and_may_be_listed_again(here: Site, gone: str) -> None:
    trades = 14 * RATE
    flags = ["--symbols", "10", "--rate", str(RATE), "--count", str(trades), "--start-after", "2"]
    fault = f"delisting:after={3 * RATE},symbol=ETHUSDT,gone={gone},again={6 * RATE}"
    with (
        local_exchange(*flags, "--fault", fault) as exchange,
        appliance(config(here, exchange)) as one,
    ):
        one.ready()
        one.wait(lambda: one.logged("ETHUSDT trades no more"))
        exchange.wait(lambda stats: stats["finished"], 60.0)
        one.wait(lambda: len(here.trades(here.ring_dir)) == trades)
        assert one.stop() == 0
    assert [(ended["asset"], ended["state"]) for ended in told(here, "ended")] == [("ETHUSDT", "not listed")]
    assert [listed["asset"] for listed in told(here, "listed")] == ["ETHUSDT"]
    assert told(here, "stream_silent") == told(here, "silent") == told(here, "lost") == []
    assert_whole(here, trades)


def test_a_delisting_is_told_once_over_restarts_and_a_listing_while_nobody_ran_is_followed(here: Site) -> None:
    flags = ["--symbols", "10", "--rate", str(RATE), "--start-after", "2", "--count", str(40 * RATE)]
    fault = f"delisting:after={3 * RATE},symbol=ETHUSDT,again={20 * RATE}"
    with local_exchange(*flags, "--fault", fault) as exchange:
        path = config(here, exchange)
        with appliance(path) as one:
            one.ready()
            one.wait(lambda: one.logged("ETHUSDT trades no more"))
            assert one.stop() == 0
        with appliance(path) as one:
            one.ready()
            assert one.stop() == 0
        assert len(told(here, "ended")) == 1
        assert told(here, "listed") == []
        exchange.wait(lambda stats: stats["trades_generated"] > 24 * RATE, 60.0)
        with appliance(path) as one:
            one.ready()
            exchange.wait(lambda stats: stats["finished"], 60.0)
            one.wait(lambda: len(here.trades(here.ring_dir)) == 40 * RATE, 60.0)
            assert one.stop() == 0
    assert len(told(here, "ended")) == len(told(here, "listed")) == 1
    assert_whole(here, 40 * RATE)
