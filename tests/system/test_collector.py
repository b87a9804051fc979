"""The whole appliance against a local exchange: what it collects, what it says, how it ends."""

import json
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from appliance import Status, Trade
from tests.local_exchange import LocalExchange, local_exchange
from tests.streams import running, until
from tests.system.appliance_process import Site, appliance, site

CAPTURES = Path(os.environ.get("MDC_CAPTURES", Path(__file__).parents[2].parent / "shared" / "captures")) / "binance" / "rest"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as one:
        yield one


def urls(exchange: LocalExchange) -> str:
    ca_file = f'\nca_file = "{exchange.ca_file}"' if exchange.ca_file else ""
    return f'rest_url = "{exchange.rest_url}"\nws_url = "{exchange.ws_url}"{ca_file}'


def another(trades: int, exchange: LocalExchange) -> None:
    """Until the exchange has sent so many more trades."""
    sent = exchange.stats()["trades_sent"]
    exchange.wait(lambda stats: stats["trades_sent"] > sent + trades)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize(("tls", "legs"), [((), 2), (("--tls",), 1)], ids=["ws, two legs", "wss, one leg"])
def test_every_trade_is_once_in_ring_and_journal(here: Site, tls: tuple[str, ...], legs: int) -> None:
    flags = ("--symbols", "30", "--rate", "20000", "--count", "30000", "--start-after", str(3 * legs), *tls)
    with local_exchange(*flags) as exchange:
        config = here.config(urls(exchange), feed=f"legs = {legs}\nchunk_symbols = 10")
        with appliance(config) as one:
            one.ready()
            exchange.wait(lambda stats: stats["trades_sent"] == 30_000)
            assert one.stop() == 0
    trades = here.trades()
    assert len(trades) == 30_000
    assert max(Counter(trades).values()) == 1
    assert sorted(here.trades(here.ring_dir)) == sorted(trades)
    assert here.gaps() == []
    for asset in {asset for asset, _ in trades}:
        ids = [trade_id for symbol, trade_id in trades if symbol == asset]
        assert sorted(ids) == list(range(min(ids), max(ids) + 1))
    assert here.events().count("connected") == 3 * legs


def test_a_stop_takes_all_that_was_sent_also_what_still_lies_in_the_sockets(here: Site) -> None:
    with local_exchange("--symbols", "20", "--rate", "20000") as exchange:
        with appliance(here.config(urls(exchange), feed="legs = 1")) as one:
            one.ready()
            another(1_000, exchange)
            one.process.send_signal(signal.SIGSTOP)
            another(20_000, exchange)
            one.process.send_signal(signal.SIGTERM)
            one.process.send_signal(signal.SIGCONT)
            assert one.ended() == 0
        stats = exchange.stats()
    assert len(here.trades()) == stats["trades_sent"]
    assert here.gaps() == []
    assert stats["closed_by_client"] == 1
    ends = [value.fields["reason"] for value in here.values(None) if isinstance(value, Status) and value.event == "closed"]
    assert ends == ["drained"]
    assert one.was_notified("STOPPING=1")


def test_a_real_body_of_1262_trading_symbols_makes_four_rings_and_a_restart_finds_each_symbol_in_its_own(here: Site) -> None:
    recording = CAPTURES / "exchangeInfo_2021-10-12.json.zst"
    if not recording.exists():
        pytest.skip(f"no recording {recording}: set MDC_CAPTURES")
    body = here.directory / "exchangeInfo.json"
    with recording.open("rb") as file:
        body.write_bytes(zstandard.ZstdDecompressor().stream_reader(file).read())
    with local_exchange("--exchange-info", str(body), "--rate", "5000") as exchange:
        config = here.config(urls(exchange), feed="legs = 1")
        places: list[dict[str, int]] = []
        for _ in range(2):
            with appliance(config) as one:
                one.ready()
                another(10_000, exchange)
                assert one.stop() == 0
            assert here.rings() == [f"binance_trade_chunk{number}.{part}" for number in range(4) for part in ("data", "meta")]
            places.append({value.asset: value.chunk for value in here.values(here.ring_dir) if isinstance(value, Trade)})
    assert len(set(places[0]) & set(places[1])) > 500
    assert all(places[1][symbol] == chunk for symbol, chunk in places[0].items() if symbol in places[1])


def test_the_local_exchange_of_the_configuration_needs_no_other(here: Site) -> None:
    config = here.config("local = true\nlocal_symbols = 20\nlocal_rate = 2000", feed="chunk_symbols = 10")
    with appliance(config, "--duration", "5") as one:
        one.ready()
        assert one.ended() == 0
    assert len(here.rings()) == 4
    assert len(here.trades()) > 100
    assert here.gaps() == []


def test_ready_alive_and_going_are_told_to_systemd(here: Site) -> None:
    with local_exchange("--symbols", "20", "--rate", "100") as exchange:
        with appliance(here.config(urls(exchange), feed="chunk_symbols = 10"), watchdog_s=0.6) as one:
            one.ready()
            one.wait(lambda: one.notified.count("WATCHDOG=1") >= 5)
            assert one.stop(signal.SIGINT) == 0
        assert one.was_notified("STOPPING=1")
        assert one.was_notified("STATUS=collecting: 20 streams in 2 chunks")


def test_an_exchange_that_is_away_is_waited_for_and_the_start_extended(here: Site) -> None:
    port = free_port()
    config = here.config(f'rest_url = "http://127.0.0.1:{port}"\nws_url = "ws://127.0.0.1:{port}"')
    with appliance(config) as one:
        one.wait(lambda: one.logged("discovery_refused"))
        one.wait(lambda: one.was_notified("EXTEND_TIMEOUT_USEC="))
        assert not one.was_notified("READY=1")
        with local_exchange("--symbols", "5", "--port", str(port)) as exchange:
            one.ready()
            exchange.wait(lambda stats: stats["trades_sent"] > 10)
            begun_s = time.monotonic()
            exchange.stop()
            one.wait(lambda: one.logged('"event": ?"refused"'))
            assert one.stop() == 0
            assert time.monotonic() - begun_s < 10.0
    assert len(here.trades()) > 0
    assert {"lost", "refused"} <= set(here.events())


@pytest.mark.parametrize("where", ["rest", "upgrade"])
def test_451_at_the_start_is_the_end_and_no_restart_helps(here: Site, where: str) -> None:
    with (
        local_exchange("--symbols", "5", "--fault", f"{where}:answer=451") as exchange,
        appliance(here.config(urls(exchange))) as one,
    ):
        assert one.ended() == 2
        errors = [line for line in one.log if line.startswith("mdc: error")]
        assert len(errors) == 1
        assert "451" in errors[0]
        assert not one.logged("Traceback")


@pytest.mark.parametrize(
    ("answer", "said"), [("403", "403"), ("html", "html"), ("404", "retired"), ("503", "503"), ("truncated", "exchangeInfo")]
)
def test_other_answers_at_the_start_are_waited_out_with_one_line_each(here: Site, answer: str, said: str) -> None:
    with (
        local_exchange("--symbols", "5", "--fault", f"rest:answer={answer}") as exchange,
        appliance(here.config(urls(exchange))) as one,
    ):
        one.wait(lambda: one.logged("discovery_refused"))
        lines = [json.loads(line) for line in one.log if "discovery_refused" in line]
        assert said in lines[0]["message"]
        assert one.stop() == 0


def test_a_ban_is_kept_over_a_restart_which_goes_on_with_the_symbols_it_knows(here: Site) -> None:
    """T8."""
    with local_exchange("--symbols", "5", "--rate", "500") as exchange, appliance(here.config(urls(exchange))) as one:
        one.ready()
        assert one.stop() == 0
    with local_exchange("--symbols", "5", "--rate", "500", "--fault", "rest:answer=418,retry_after_s=900") as exchange:
        config = here.config(urls(exchange))
        for said in ("HTTP 418", "a ban has 8"):
            with appliance(config) as one:
                one.ready()
                assert one.logged(said)
                assert one.logged("going on with the 5 of the last run")
                another(100, exchange)
                assert one.stop() == 0
        assert here.trades()


def test_a_certificate_of_another_host_is_never_accepted(here: Site) -> None:
    with (
        local_exchange("--symbols", "5", "--tls", "--fault", "tls_wrong_name") as exchange,
        appliance(here.config(urls(exchange))) as one,
    ):
        one.wait(lambda: one.logged("the certificate of 127.0.0.1 is refused"))
        assert one.stop() == 0


def test_patterns_that_match_nothing_are_a_configuration_error(here: Site) -> None:
    with (
        local_exchange("--symbols", "5") as exchange,
        appliance(here.config(urls(exchange), symbols='include = ["NOSUCH*"]')) as one,
    ):
        assert one.ended() == 2
        assert any("none of the 5 symbols" in line and "NOSUCH*" in line for line in one.log)


def test_a_second_appliance_in_the_same_directories_is_refused(here: Site) -> None:
    with local_exchange("--symbols", "5") as exchange:
        config = here.config(urls(exchange))
        with appliance(config) as first:
            first.ready()
            with appliance(config) as second:
                assert second.ended() == 3
                assert any("belongs to another running" in line for line in second.log)
            assert first.stop() == 0


def test_a_damaged_assignment_stops_the_start_and_moves_no_symbol(here: Site) -> None:
    with local_exchange("--symbols", "5") as exchange:
        config = here.config(urls(exchange))
        with appliance(config) as one:
            one.ready()
            assert one.stop() == 0
        (here.journal_dir / "binance_chunks.json").write_text('{"format": 1')
        with appliance(config) as one:
            assert one.ended() == 3
            assert any("damaged" in line and "binance_chunks.json" in line for line in one.log)


def test_resets_ends_of_file_and_shutdown_notices_lose_nothing_on_two_legs(here: Site) -> None:
    """T4, T7: each leg is cut again and again, never both."""
    faults = ["--fault", "reset:after_s=4,connection=0,times=1", "--fault", "shutdown:after_s=2,within_s=1,connection=1,times=1"]
    with local_exchange("--symbols", "5", "--rate", "2000", "--start-after", "2", *faults) as exchange:
        with appliance(here.config(urls(exchange))) as one:
            one.ready()
            one.wait(lambda: one.logged("leaving"))
            one.wait(lambda: one.logged("without a CLOSE"))
            another(4_000, exchange)
            assert one.stop() == 0
        sent = exchange.stats()["trades_sent"]
    trades = here.trades()
    assert max(Counter(trades).values()) == 1
    assert len(trades) == sent
    assert here.gaps() == []
    assert {"connected", "lost", "leaving"} <= set(here.events())


def test_what_was_committed_before_a_kill_is_there_after_it_and_no_child_is_left(here: Site) -> None:
    config = here.config("local = true\nlocal_symbols = 5\nlocal_rate = 3000")
    with appliance(config) as one:
        one.ready()
        one.wait(lambda: len(here.trades(here.ring_dir)) > 2_000)
        children = [int(pid) for pid in Path(f"/proc/{one.process.pid}/task/{one.process.pid}/children").read_text().split()]
        assert len(children) == 2
        before = here.trades(here.ring_dir)
        one.process.kill()
        one.ended()
        until(lambda: not any(running(child) for child in children), "the end of its children", within_s=10.0)
    with appliance(config) as one:
        one.ready()
        assert one.stop() == 0
    after = here.trades()
    assert after[: len(before)] == before


def test_garbage_in_the_live_stream_costs_no_trade_around_it_and_no_connection(here: Site) -> None:
    """Truncated, binary, fragmented, huge, not a number, nested, repeated, of another market, of an unknown symbol."""
    with local_exchange("--symbols", "5", "--rate", "3000", "--fault", "garbage:every=150") as exchange:
        with appliance(here.config(urls(exchange), feed="legs = 1")) as one:
            one.ready()
            another(8_000, exchange)
            assert one.stop() == 0
        sent = exchange.stats()["trades_sent"]
    assert len(here.trades()) == sent
    assert here.gaps() == []
    assert here.events().count("connected") == 1
    assert one.logged("malformed frame")


def test_a_stop_does_not_wait_for_an_exchange_that_hangs(here: Site) -> None:
    with local_exchange("--symbols", "5", "--rate", "1000") as exchange, appliance(here.config(urls(exchange))) as one:
        one.ready()
        another(1_000, exchange)
        exchange.process.send_signal(signal.SIGSTOP)
        try:
            begun_s = time.monotonic()
            assert one.stop() == 0
            assert time.monotonic() - begun_s < 10.0
        finally:
            exchange.process.send_signal(signal.SIGCONT)
    assert len(here.trades()) > 1_000
    assert here.gaps() == []
