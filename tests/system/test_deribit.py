"""The appliance on the local Deribit: logins, maintenance, channels that are dropped."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance import Status, Trade
from tests.local_exchange import local_exchange
from tests.system.appliance_process import Site, appliance
from tests.system.deribit_site import LOGIN, config, deribit_site


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with deribit_site(tmp_path, monkeypatch) as one:
        yield one


def test_a_wrong_secret_ends_the_start_and_is_never_shown(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERIBIT_CLIENT_SECRET", "hush-hush-hush")
    with local_exchange("--symbols", "20", name="deribit") as exchange, appliance(config(here, exchange)) as one:
        assert one.ended() == 2
        text = "".join(one.log)
        assert "13004 invalid_credentials" in text
        assert "hush" not in text


@pytest.mark.parametrize(
    ("fault", "said"), [("tls_expired", "expired"), ("tls_wrong_name", "mismatch"), ("tls_self_signed", "self-signed")]
)
def test_no_login_goes_to_a_host_whose_certificate_is_not_in_order(here: Site, fault: str, said: str) -> None:
    """Neither over REST nor by websocket, each with its reason; nothing is collected."""
    with local_exchange("--symbols", "13", "--rate", "1000", "--tls", "--fault", fault, name="deribit") as exchange:
        trusted = {"MDC_EXCHANGE__CA_FILE": str(exchange.ca_file)} if fault != "tls_self_signed" else {}
        with appliance(config(here, exchange), environ=trusted) as one:
            refused = f"the certificate of 127.0.0.1 is refused: .*{said}"
            one.wait(lambda: one.logged(f"discovery: {refused}"))
            one.wait(lambda: one.logged(f"not connected: {refused}"))
            stats = exchange.stats()
            assert one.stop() == 0
    assert (stats["rest"], stats["connections"], stats["trades_sent"]) == ({}, 0, 0)
    assert here.trades() == []
    assert "refused" in here.events()


def test_without_credentials_batches_need_no_account_and_raw_says_what_is_missing(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in LOGIN:
        monkeypatch.delenv(variable)
    with local_exchange("--symbols", "20", "--rate", "2000", name="deribit") as exchange:
        with appliance(config(here, exchange, "raw")) as one:
            assert one.ended() == 2
            assert "DERIBIT_CLIENT_ID and DERIBIT_CLIENT_SECRET are not set" in "".join(one.log)
        with appliance(config(here, exchange, "100ms")) as one:
            one.ready()
            exchange.wait(lambda stats: stats["trades_sent"] > 2_000)
            assert one.stop() == 0
        sent = exchange.stats()["trades_sent"]
    assert len(here.trades()) == sent
    assert here.gaps() == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("expires_s=2", None),
        ("logout:after_s=2,connection=0", None),
        ("maintenance:after_s=2,lead_s=0.5,connection=0", "announced maintenance"),
        ("drop_channel:connection=0,channel=trades.future.any.raw", "not delivered by the exchange: trades.future.any.raw"),
        ("heartbeat_s_max=1", None),
        ("reset:after_s=2,connection=0,times=1", "lost"),
    ],
)
def test_whatever_befalls_one_leg_nothing_is_lost_that_the_other_delivered(here: Site, fault: str, said: str | None) -> None:
    flags = ["--symbols", "300", "--rate", "5000", "--start-after", "2", "--fault", fault]
    with local_exchange(*flags, name="deribit") as exchange:
        with appliance(config(here, exchange)) as one:
            one.ready()
            exchange.wait(lambda stats: stats["trades_sent"] > 20_000)
            if said is not None:
                one.wait(lambda: one.logged(said))
            assert one.stop() == 0
        sent = exchange.stats()["trades_sent"]
    trades = here.trades()
    assert len(set(trades)) == len(trades) == sent
    assert here.gaps() == []


def test_what_both_legs_missed_is_a_gap_record(here: Site) -> None:
    with local_exchange("--symbols", "20", "--rate", "2000", "--fault", "hole:after=3000,trades=5", name="deribit") as exchange:
        with appliance(config(here, exchange, feed="backfill = false")) as one:
            one.ready()
            exchange.wait(lambda stats: stats["trades_generated"] > 8_000)
            assert one.stop() == 0
        sent = exchange.stats()["trades_sent"]
    assert len(here.trades()) == sent
    assert sum(gap.to_id - gap.from_id + 1 for gap in here.gaps()) == 5


def test_a_listing_and_an_expiry_are_followed_while_running_and_across_a_restart(here: Site) -> None:
    listed, expired = "BTC-25DEC26-75000-C", "BTC-25DEC26"
    flags = ["--symbols", "13", "--rate", "5000", "--fault", "listing:after=5000", "--fault", f"expiry:after=8000,symbol={expired}"]
    with local_exchange(*flags, "--start-after", "2", name="deribit") as exchange:
        with appliance(config(here, exchange)) as one:
            one.wait(lambda: one.logged(f"{expired} trades no more: delivered"))
            exchange.wait(lambda stats: stats["trades_sent"] > 12_000)
            assert one.stop() == 0
        with appliance(config(here, exchange)) as one:
            one.ready()
            assert one.stop() == 0
        sent = exchange.stats()["trades_sent"]
    values = list(here.values(None))
    trades = [value for value in values if isinstance(value, Trade)]
    # Of what happened between the two runs, and so was sent to nobody, the second may have fetched some already.
    assert len({(trade.asset, trade.exchange_trade_id) for trade in trades}) == len(trades)
    assert sent <= len(trades) <= sent + sum(trade.backfilled for trade in trades)
    assert [trade.exchange_trade_seq for trade in trades if trade.asset == listed][:3] == [1, 2, 3]
    told = [(value.event, value.fields["asset"]) for value in values if isinstance(value, Status) and value.event in ("listed", "ended")]
    assert told == [("listed", listed), ("ended", expired)]
    baselines = [value.fields["asset"] for value in values if isinstance(value, Status) and value.event == "baseline"]
    assert listed not in baselines
    # Only what the second run was down for may be missing, and nothing of what began or ended before.
    assert not {gap.asset for gap in here.gaps()} & {expired}


def test_a_new_listing_that_is_not_wanted_is_not_collected(here: Site) -> None:
    flags = ["--symbols", "13", "--rate", "5000", "--start-after", "2", "--fault", "listing:after=2000"]
    with (
        local_exchange(*flags, name="deribit") as exchange,
        appliance(config(here, exchange, symbols='include = ["*"]\nexclude = ["*-C"]')) as one,
    ):
        one.ready()
        exchange.wait(lambda stats: stats["trades_sent"] > 6_000)
        assert one.stop() == 0
    values = list(here.values(None))
    assert {value.asset for value in values if isinstance(value, Trade) and value.asset.endswith("-C")} == set()
    assert [value for value in values if isinstance(value, Status) and value.event == "listed"] == []


def test_a_settlement_during_which_nothing_can_be_subscribed_ends_no_connection(here: Site) -> None:
    flags = ["--symbols", "50", "--rate", "5000", "--start-after", "2", "--fault", "settlement:after_s=0,for_s=3"]
    with local_exchange(*flags, name="deribit") as exchange:
        with appliance(config(here, exchange)) as one:
            one.wait(lambda: one.logged("10041 settlement_in_progress"))
            one.ready()
            exchange.wait(lambda stats: stats["trades_sent"] > 10_000)
            assert one.stop() == 0
        stats = exchange.stats()
    assert stats["websockets"] == 2
    assert len(here.trades()) == stats["trades_sent"]


def test_eight_legs_that_ask_again_and_again_never_run_out_of_credits(here: Site) -> None:
    flags = ["--symbols", "20", "--rate", "1000", "--fault", "drop_channel:channel=trades.spot.any.raw"]
    with local_exchange(*flags, name="deribit") as exchange, appliance(config(here, exchange, capacity_mb=64, feed="legs = 8")) as one:
        one.wait(lambda: sum("not delivered by the exchange: trades.spot.any.raw" in line for line in one.log) == 8, 60.0)
        stats = exchange.stats()
        assert one.stop() == 0
    assert stats["closes_sent"] == {}
    assert stats["websockets"] == stats["connections"] == 8


def test_a_login_that_ends_on_both_legs_at_once_is_made_again_and_what_was_missed_is_a_gap(here: Site) -> None:
    flags = ["--symbols", "20", "--rate", "2000", "--count", "60000", "--start-after", "2", "--fault", "logout:after_s=4"]
    with local_exchange(*flags, name="deribit") as exchange:
        with appliance(config(here, exchange, feed="backfill = false")) as one:
            one.ready()
            exchange.wait(lambda stats: stats["finished"], 60.0)
            assert sum("logging in again on the living connection" in line for line in one.log) >= 2
            assert one.stop() == 0
        stats = exchange.stats()
    trades = here.trades()
    assert len(set(trades)) == len(trades) == stats["trades_sent"]
    assert stats["websockets"] >= 2  # the silence of both is found too, and met with new connections
    gaps = here.gaps()
    assert gaps
    for asset in {name for name, _ in trades}:
        held = [one.exchange_trade_seq or 0 for one in here.values(None) if isinstance(one, Trade) and one.asset == asset]
        missing = sum(gap.to_id - gap.from_id + 1 for gap in gaps if gap.asset == asset)
        # What was traded after the last one held, while nobody heard it, no later trade shows, and REST is not asked here.
        assert len(held) + missing == max(held) - min(held) + 1


@pytest.mark.parametrize("interval", ["raw", "100ms"])
def test_five_thousand_instruments_at_twenty_thousand_trades_a_second_lose_nothing(here: Site, interval: str) -> None:
    """Chains of options, most names first seen on the wire, several trades a frame."""
    flags = ["--symbols", "5000", "--rate", "20000", "--count", "150000", "--start-after", "2"]
    with local_exchange(*flags, name="deribit") as exchange:
        with appliance(config(here, exchange, interval, capacity_mb=128)) as one:
            one.ready()
            exchange.wait(lambda stats: stats["trades_sent"] == 150_000, 60.0)
            assert one.stop() == 0
        stats = exchange.stats()
    trades = [value for value in here.values(None) if isinstance(value, Trade)]
    assert len({(trade.asset, trade.exchange_trade_seq) for trade in trades}) == len(trades) == 150_000
    assert len({trade.asset for trade in trades}) > 4_500
    assert stats["frames_sent"] < 2 * 150_000 / (4 if interval == "100ms" else 1.5)
    assert here.gaps() == []


def test_no_child_inherits_the_login(here: Site) -> None:
    with local_exchange("--symbols", "20", name="deribit") as exchange, appliance(config(here, exchange)) as one:
        one.ready()
        children = Path(f"/proc/{one.process.pid}/task/{one.process.pid}/children").read_text().split()
        assert children
        for child in children:
            environment = Path(f"/proc/{child}/environ").read_bytes()
            assert b"DERIBIT" not in environment
            assert LOGIN["DERIBIT_CLIENT_SECRET"].encode() not in environment + Path(f"/proc/{child}/cmdline").read_bytes()
        assert one.stop() == 0


def test_killed_at_a_listing_and_at_an_expiry_it_loses_nothing_and_tells_each_once(here: Site) -> None:
    listed, expired = "BTC-25DEC26-75000-C", "BTC-25DEC26"
    flags = ["--symbols", "13", "--rate", "2000", "--count", "30000", "--start-after", "2"]
    faults = ["--fault", "listing:after=4000", "--fault", f"expiry:after=12000,symbol={expired}"]
    with local_exchange(*flags, *faults, name="deribit") as exchange:
        for said in (f"{listed} .* was listed", f"{expired} trades no more", None):
            with appliance(config(here, exchange, feed="gap_grace_ms = 100")) as one:
                if said is None:
                    one.ready()
                    exchange.wait(lambda stats: stats["finished"], 60.0)
                    one.wait(lambda: len(set(here.trades(here.ring_dir))) == 30_000, 120.0)
                    assert one.stop() == 0
                else:
                    one.wait(lambda said=said: one.logged(said), 40.0)  # type: ignore[misc]
                    one.process.kill()
                    one.process.wait()
    values = list(here.values(None))
    trades = [value for value in values if isinstance(value, Trade)]
    assert len({(trade.asset, trade.exchange_trade_seq) for trade in trades}) == len(trades) == 30_000
    told = [(value.event, value.fields["asset"]) for value in values if isinstance(value, Status) and value.event in ("listed", "ended")]
    assert sorted(told) == [("ended", expired), ("listed", listed)]


def test_two_exchanges_in_one_directory_are_refused_while_one_runs_and_when_it_has_ended(here: Site) -> None:
    with local_exchange("--symbols", "20", name="deribit") as exchange:
        deribit = config(here, exchange)
        binance = deribit.with_name("binance.toml")
        binance.write_text(deribit.read_text().replace('name = "deribit"', 'name = "binance"'))
        with appliance(deribit) as first:
            first.ready()
            with appliance(binance) as second:
                assert second.ended() == 3
                assert "belongs to another running mdc-appliance" in "".join(second.log)
            assert first.stop() == 0
        with appliance(binance) as second:
            assert second.ended() == 3
            assert "deribit" in "".join(second.log)


def test_the_kinds_of_all_products_are_recorded(here: Site) -> None:
    with local_exchange("--symbols", "12", "--rate", "2000", name="deribit") as exchange, appliance(config(here, exchange)) as one:
        one.ready()
        exchange.wait(lambda stats: stats["trades_sent"] > 3_000)
        assert one.stop() == 0
    values = list(here.values(None))
    kinds = {trade.asset: str(trade.kind) for trade in values if isinstance(trade, Trade)}
    assert set(kinds.values()) == {"Perpetual", "Future", "Option", "Spot", "Spread"}
    assert kinds["BTC_USDC-PERPETUAL"] == "Perpetual"
    assert kinds["BTC-FS-25DEC26_PERP"] == "Spread"
    assert [value.event for value in values if isinstance(value, Status) and value.event == "subscribed"]
