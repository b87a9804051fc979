"""What the feed did not bring is asked for over REST: the appliance on local exchanges that withhold trades."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance import Gap, GapClosed, Status, Trade
from appliance.tools import verify
from tests.local_exchange import LocalExchange, local_exchange
from tests.system.appliance_process import Appliance, Site, appliance, site
from tests.system.deribit_site import config as deribit_config


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as one:
        yield one


@contextmanager
def collecting(here: Site, exchange: LocalExchange, name: str, legs: int = 1, chunk_symbols: int = 400) -> Iterator[Appliance]:
    feed = f"legs = {legs}\nchunk_symbols = {chunk_symbols}\ngap_grace_ms = 100"
    if name == "deribit":
        path = deribit_config(here, exchange, "100ms", feed=feed)
    else:
        path = here.config(f'rest_url = "{exchange.rest_url}"\nws_url = "{exchange.ws_url}"', feed=feed)
    with appliance(path) as one:
        yield one


def gaps_closed(here: Site) -> int:
    return sum(isinstance(value, GapClosed) for value in here.values(here.ring_dir))


@pytest.mark.parametrize("name", ["binance", "deribit"])
def test_ids_that_no_leg_brought_are_fetched_and_their_gaps_closed(here: Site, name: str) -> None:
    flags = ["--symbols", "10", "--rate", "1000", "--fault", "rest_lag_ms=300", "--fault", "hole:after=1000,trades=7,every=1500"]
    with local_exchange(*flags, "--count", "6000", name=name) as exchange, collecting(here, exchange, name) as one:
        one.ready()
        exchange.wait(lambda stats: stats["finished"])
        one.wait(lambda: gaps_closed(here) == 4)
        assert one.stop() == 0
    values = list(here.values(None))
    trades = [value for value in values if isinstance(value, Trade)]
    assert len({(trade.asset, trade.exchange_trade_id) for trade in trades}) == len(trades) == 6_000
    assert sum(trade.backfilled for trade in trades) == 28
    assert all(trade.late for trade in trades if trade.backfilled)
    gaps = [(value.asset, value.from_id, value.to_id) for value in values if isinstance(value, Gap)]
    assert sorted(gaps) == sorted((value.asset, value.from_id, value.to_id) for value in values if isinstance(value, GapClosed))
    assert sum(last - first + 1 for _, first, last in gaps) == 28
    assert verify.run(rings=here.journal_dir, as_json=True) == 0


@pytest.mark.parametrize("name", ["binance", "deribit"])
def test_ids_that_the_exchange_does_not_have_either_are_proven_so(here: Site, name: str) -> None:
    flags = ["--symbols", "10", "--rate", "1000", "--fault", "hole:after=1000,trades=5,fillable=false", "--count", "4000"]
    with local_exchange(*flags, name=name) as exchange, collecting(here, exchange, name) as one:
        one.ready()
        one.wait(lambda: gaps_closed(here) == 1, 120.0)
        assert one.stop() == 0
    values = list(here.values(None))
    assert sum(isinstance(value, Trade) for value in values) == 3_995
    (gap,) = [value for value in values if isinstance(value, Gap)]
    (said,) = [value.fields for value in values if isinstance(value, Status) and value.event == "no_such_trade"]
    assert (said["asset"], said["from_id"], said["to_id"]) == (gap.asset, gap.from_id, gap.to_id)
    assert (said["below"], said["above"]) == (gap.from_id - 1, gap.to_id + 1)


@pytest.mark.parametrize("name", ["binance", "deribit"])
def test_what_was_traded_while_the_appliance_was_down_is_fetched_at_its_start(here: Site, name: str) -> None:
    with local_exchange("--symbols", "10", "--rate", "500", "--count", "8000", name=name) as exchange:
        with collecting(here, exchange, name) as one:
            one.ready()
            exchange.wait(lambda stats: stats["trades_generated"] > 2_000)
            assert one.stop() == 0
        before = len(here.trades())
        exchange.wait(lambda stats: stats["trades_generated"] > 4_000)
        with collecting(here, exchange, name) as one:
            one.ready()
            exchange.wait(lambda stats: stats["finished"], 120.0)
            one.wait(lambda: len(here.trades(here.ring_dir)) == 8_000, 120.0)
            assert one.stop() == 0
    trades = [value for value in here.values(None) if isinstance(value, Trade)]
    assert before < 4_000
    assert len({(trade.asset, trade.exchange_trade_id) for trade in trades}) == len(trades) == 8_000
    assert verify.run(rings=here.journal_dir, as_json=True) == 0


PAST = {"binance": "historicalTrades", "deribit": "get_last_trades_by_instrument"}


@pytest.mark.parametrize("answer", ["429", "503", "html"])
@pytest.mark.parametrize("name", ["binance", "deribit"])
def test_an_exchange_that_does_not_answer_is_asked_again(here: Site, name: str, answer: str) -> None:
    refusal = f"rest:answer={answer},path={PAST[name]},times=2,retry_after_s=1"
    flags = ["--symbols", "10", "--rate", "2000", "--fault", "hole:after=1000,trades=7", "--count", "4000", "--fault", refusal]
    with local_exchange(*flags, name=name) as exchange, collecting(here, exchange, name) as one:
        one.ready()
        exchange.wait(lambda stats: stats["finished"])
        one.wait(lambda: gaps_closed(here) == 1, 120.0)
        assert one.logged("past trades: ")
        assert one.stop() == 0
    trades = here.trades()
    assert len(set(trades)) == len(trades) == 4_000


@pytest.mark.parametrize("name", ["binance", "deribit"])
def test_what_the_exchange_does_not_keep_any_more_is_said_to_be_given_up(here: Site, name: str) -> None:
    flags = ["--symbols", "2", "--rate", "1000", "--fault", "retained_trades=64", "--count", "8000"]
    with local_exchange(*flags, name=name) as exchange:
        with collecting(here, exchange, name) as one:
            one.ready()
            exchange.wait(lambda stats: stats["trades_generated"] > 2_000)
            assert one.stop() == 0
        exchange.wait(lambda stats: stats["trades_generated"] > 4_000)
        with collecting(here, exchange, name) as one:
            one.ready()
            exchange.wait(lambda stats: stats["finished"], 120.0)
            one.wait(lambda: accounted(here) == 8_000, 120.0)
            assert one.stop() == 0
    values = list(here.values(None))
    assert accounted(here) == 8_000
    given_up = [value.fields for value in values if isinstance(value, Status) and value.event == "not_collected"]
    assert {one["reason"] for one in given_up} == {"older than what the exchange keeps"}
    assert verify.run(rings=here.journal_dir, as_json=True) == 0  # recorded, so not a fault of the journal


def accounted(here: Site) -> int:
    """Ids that are held or said to be given up."""
    values = list(here.values(here.ring_dir))
    given_up = [value.fields for value in values if isinstance(value, Status) and value.event == "not_collected"]
    return sum(isinstance(value, Trade) for value in values) + sum(int(one["to_id"]) - int(one["from_id"]) + 1 for one in given_up)


def test_a_killed_appliance_goes_on_with_the_gaps_that_were_open(here: Site) -> None:
    flags = ["--symbols", "10", "--rate", "1000", "--fault", "hole:after=1000,trades=7", "--count", "6000"]
    refusal = ["--fault", "rest:answer=503,path=historicalTrades,times=6"]
    with local_exchange(*flags, *refusal) as exchange:
        with collecting(here, exchange, "binance") as one:
            one.ready()
            one.wait(lambda: any(isinstance(value, Gap) for value in here.values(here.ring_dir)))
            one.process.kill()
            one.process.wait()
        with collecting(here, exchange, "binance") as one:
            one.ready()
            exchange.wait(lambda stats: stats["finished"])
            one.wait(lambda: len(here.trades(here.ring_dir)) == 6_000, 120.0)
            assert one.stop() == 0
    trades = here.trades()
    assert len(set(trades)) == len(trades) == 6_000
    assert verify.run(rings=here.journal_dir, as_json=True) == 0


def test_gaps_open_in_several_chunks_are_all_taken_up_again(here: Site) -> None:
    holes = [f"hole:after=500,trades=3,symbol={symbol}" for symbol in ("BTCUSDT", "ETHUSDT", "TUSDT", "ETHBTC")]
    flags = ["--symbols", "10", "--rate", "1000", "--count", "6000", *(text for hole in holes for text in ("--fault", hole))]
    refusal = ["--fault", "rest:answer=503,path=historicalTrades,times=2"]
    with local_exchange(*flags, *refusal) as exchange:
        with collecting(here, exchange, "binance", chunk_symbols=2) as one:
            one.ready()
            one.wait(lambda: len({value.chunk for value in here.values(here.ring_dir) if isinstance(value, Gap)}) >= 3)
            one.process.kill()
            one.process.wait()
        with collecting(here, exchange, "binance", chunk_symbols=2) as one:
            one.ready()
            exchange.wait(lambda stats: stats["finished"])
            one.wait(lambda: len(here.trades(here.ring_dir)) == 6_000, 120.0)
            assert one.stop() == 0
    trades = here.trades()
    assert len(set(trades)) == len(trades) == 6_000
