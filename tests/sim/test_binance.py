"""REST and handshakes of the local Binance, with a clock of our own and no socket."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from appliance.errors import ConfigError
from appliance.sim import faults
from appliance.sim.binance import Binance, assemble
from appliance.sim.binance_session import Audience, BinanceSession
from appliance.sim.dialect import Reply, Request, Setup
from appliance.sim.synthetic import SyntheticFeed

NOW_S = 1_790_649_900.0  # the beginning of a minute
DISCOVERY = "/api/v3/exchangeInfo?permissions=SPOT&symbolStatus=TRADING&showPermissionSets=false"


def exchange(*specs: str, symbols: int = 20, listing: Path | None = None) -> tuple[Binance, SyntheticFeed]:
    setup = Setup(capture=None, rate=1.0, count=None, symbols=symbols, listing=listing, seed=1, start_after=1, faults=faults.parse(specs))
    dialect, feed = assemble(setup)
    assert isinstance(dialect, Binance)
    assert isinstance(feed, SyntheticFeed)
    return dialect, feed


def get(dialect: Binance, target: str, now_s: float = NOW_S, **headers: str) -> Reply:
    reply = dialect.answer(Request("GET", target, {name.replace("_", "-"): value for name, value in headers.items()}), now_s)
    assert reply is not None
    return reply


def body(dialect: Binance, target: str, now_s: float = NOW_S, **headers: str) -> Any:
    reply = get(dialect, target, now_s, **headers)
    assert reply.status == 200, reply.body
    return json.loads(reply.body)


# exchangeInfo


def test_discovery_lists_so_many_symbols_of_the_peculiar_kinds_too() -> None:
    dialect, _ = exchange(symbols=500)
    symbols = body(dialect, DISCOVERY)["symbols"]
    assert all(symbol["status"] == "TRADING" and symbol["permissionSets"] == [] for symbol in symbols)
    names = [symbol["symbol"] for symbol in symbols]
    assert len(names) == len(set(names)) == 500
    assert {"BTCUSDT", "币安人生USDT", "1INCHUSDT"} <= set(names)
    assert all(name == name.upper() for name in names)
    assert names == [symbol["symbol"] for symbol in body(exchange(symbols=500)[0], DISCOVERY)["symbols"]]


def test_without_filters_halted_symbols_and_other_groups_are_shown_as_on_the_exchange() -> None:
    dialect, _ = exchange()
    symbols = body(dialect, "/api/v3/exchangeInfo")["symbols"]
    assert {symbol["status"] for symbol in symbols} == {"TRADING", "BREAK"}
    assert all(symbol["permissions"] == [] and symbol["permissionSets"] for symbol in symbols)
    groups = {group for symbol in symbols for sets in symbol["permissionSets"] for group in sets}
    assert {"SPOT", "LEVERAGED", "MARGIN"} <= groups
    assert not any(symbol["permissionSets"] == [["TRD_GRP_004"]] for symbol in symbols), "hidden unless asked for"
    hidden = body(dialect, "/api/v3/exchangeInfo?permissions=TRD_GRP_004&showPermissionSets=true")["symbols"]
    assert any(symbol["permissionSets"] == [["TRD_GRP_004"]] for symbol in hidden)


def test_symbols_are_chosen_by_name() -> None:
    dialect, _ = exchange()
    assert [s["symbol"] for s in body(dialect, "/api/v3/exchangeInfo?symbol=ETHUSDT")["symbols"]] == ["ETHUSDT"]
    several = "/api/v3/exchangeInfo?symbols=" + quote('["币安人生USDT","BTCUSDT"]')
    assert [s["symbol"] for s in body(dialect, several)["symbols"]] == ["币安人生USDT", "BTCUSDT"]


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/api/v3/exchangeInfo?symbol=NONE", -1121),
        ('/api/v3/exchangeInfo?symbols=["BTCUSDT","NONE"]', -1121),
        ("/api/v3/exchangeInfo?symbol=BTCUSDT&permissions=SPOT", -1128),
        ("/api/v3/exchangeInfo?symbol=BTCUSDT&symbolStatus=TRADING", -1128),
        ("/api/v3/exchangeInfo?symbolStatus=OPEN", -1122),
        ("/api/v3/exchangeInfo?symbols=[BTC", -1100),
        ("/api/v3/exchangeInfo?showPermissionSets=no", -1130),
        ("/api/v3/exchangeInfo?what=1", -1101),
        ("/api/v3/trades", -1102),
        ("/api/v3/trades?symbol=NONE", -1121),
        ("/api/v3/trades?symbol=btcusdt", -1121),
        ("/api/v3/trades?symbol=BTCUSDT&limit=x", -1100),
        ("/api/v3/trades?symbol=BTCUSDT&limit=0", -1130),
        ("/api/v3/trades?symbol=BTCUSDT&fromId=1", -1101),
        ("/api/v3/historicalTrades?symbol=BTCUSDT&fromId=", -1105),
        ("/api/v3/historicalTrades?symbol=BTCUSDT&fromId=-1", -1100),
        ("/api/v3/ping?x=1", -1101),
    ],
)
def test_a_mistake_is_http_400_with_its_code(target: str, code: int) -> None:
    reply = get(exchange()[0], target)
    assert reply.status == 400
    assert json.loads(reply.body)["code"] == code


def test_a_recorded_listing_is_served_as_it_is_and_traded(tmp_path: Path) -> None:
    symbols = [
        {"symbol": "AAAUSDT", "status": "TRADING", "isSpotTradingAllowed": True, "permissions": ["SPOT", "MARGIN"]},
        {"symbol": "BBBUSDT", "status": "TRADING", "isSpotTradingAllowed": False, "permissions": ["LEVERAGED"]},
        {"symbol": "CCCUSDT", "status": "BREAK", "isSpotTradingAllowed": True, "permissions": ["SPOT"]},
    ]
    (tmp_path / "body.json").write_text(json.dumps({"timezone": "UTC", "other": [1], "symbols": symbols}))
    (tmp_path / "list.json").write_text(json.dumps(symbols))
    full, feed = exchange(listing=tmp_path / "body.json")
    everything = body(full, "/api/v3/exchangeInfo")
    assert everything["symbols"] == symbols
    assert everything["other"] == [1]
    assert feed.tape.symbol_count == 1
    bare, _ = exchange(listing=tmp_path / "list.json")
    assert [s["symbol"] for s in body(bare, DISCOVERY)["symbols"]] == ["AAAUSDT"]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"symbols":3}', '{"symbols":[]}'])
def test_a_listing_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "listing.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"--exchange-info .*listing\.json"):
        exchange(listing=path)


# Trades


def printed(feed: SyntheticFeed, trades: int, now_s: float) -> None:
    feed.tape.print_trades(trades, int(now_s * 1e6))


def test_past_trades_are_those_of_the_stream() -> None:
    dialect, feed = exchange("rest_lag_ms=500", symbols=1)
    printed(feed, 5, NOW_S)
    first = feed.tape.first_id(0)
    rows = body(dialect, f"/api/v3/historicalTrades?symbol=BTCUSDT&fromId={first + 1}&limit=3", NOW_S + 1)
    assert [row["id"] for row in rows] == [first + 1, first + 2, first + 3]
    px_e8, sz_e8, maker = feed.tape.trade(0, first + 1)
    assert list(rows[0]) == ["id", "price", "qty", "quoteQty", "time", "isBuyerMaker", "isBestMatch"]
    assert int(rows[0]["price"].replace(".", "")) == px_e8
    assert int(rows[0]["qty"].replace(".", "")) == sz_e8
    assert rows[0]["quoteQty"] == f"{px_e8 * sz_e8 // 10**16}.{px_e8 * sz_e8 // 10**8 % 10**8:08}"
    assert rows[0]["time"] == int(NOW_S * 1_000)
    assert rows[0]["isBuyerMaker"] is maker


def test_the_database_lags_behind_the_stream_and_memory_does_not() -> None:
    dialect, feed = exchange("rest_lag_ms=500", symbols=1)
    printed(feed, 5, NOW_S)
    assert body(dialect, "/api/v3/historicalTrades?symbol=BTCUSDT", NOW_S + 0.4) == []
    assert len(body(dialect, "/api/v3/trades?symbol=BTCUSDT", NOW_S + 0.4)) == 5
    assert len(body(dialect, "/api/v3/historicalTrades?symbol=BTCUSDT", NOW_S + 0.6)) == 5


def test_no_more_than_a_thousand_trades_are_told_and_the_last_ones_without_an_id() -> None:
    dialect, feed = exchange("rest_lag_ms=0", symbols=1)
    printed(feed, 3_000, NOW_S)
    end = feed.tape.next_id(0)
    last = body(dialect, "/api/v3/historicalTrades?symbol=BTCUSDT&limit=5000")
    assert [row["id"] for row in last] == list(range(end - 1_000, end))
    assert len(body(dialect, "/api/v3/historicalTrades?symbol=BTCUSDT")) == 500


def test_ids_below_the_retention_floor_bring_the_oldest_kept() -> None:
    dialect, feed = exchange("rest_lag_ms=0,retained_trades=128", symbols=1)
    printed(feed, 1_000, NOW_S)
    rows = body(dialect, "/api/v3/historicalTrades?symbol=BTCUSDT&fromId=1&limit=2")
    assert rows[0]["id"] == feed.tape.next_id(0) - 128


def test_microseconds_are_asked_for_by_header() -> None:
    dialect, feed = exchange("rest_lag_ms=0", symbols=1)
    printed(feed, 1, NOW_S + 0.123456)
    (row,) = body(dialect, "/api/v3/trades?symbol=BTCUSDT", NOW_S + 1, x_mbx_time_unit="MICROSECOND")
    assert row["time"] == int((NOW_S + 0.123456) * 1e6)
    assert body(dialect, "/api/v3/time", NOW_S)["serverTime"] == int(NOW_S * 1_000)
    assert body(dialect, "/api/v3/ping") == {}


# Weights


def test_weights_are_counted_per_minute_and_address() -> None:
    dialect, _ = exchange()
    get(dialect, DISCOVERY)
    headers = dict(get(dialect, "/api/v3/trades?symbol=BTCUSDT").headers)
    assert headers["X-MBX-USED-WEIGHT-1M"] == headers["X-MBX-USED-WEIGHT"] == "45"
    other = dialect.answer(Request("GET", "/api/v3/ping", {}, "127.0.0.2"), NOW_S)
    assert other is not None
    assert dict(other.headers)["X-MBX-USED-WEIGHT-1M"] == "1"
    assert dict(get(dialect, "/api/v3/ping", NOW_S + 60).headers)["X-MBX-USED-WEIGHT-1M"] == "1"


def test_too_much_weight_is_refused_until_the_minute_is_over() -> None:
    dialect, _ = exchange("weight_per_minute=40")
    assert get(dialect, DISCOVERY, NOW_S + 10).status == 200
    refused = get(dialect, "/api/v3/trades?symbol=BTCUSDT", NOW_S + 15)
    assert refused.status == 429
    assert dict(refused.headers)["Retry-After"] == "45"
    assert json.loads(refused.body)["code"] == -1003
    assert get(dialect, "/api/v3/ping", NOW_S + 60).status == 200


def test_asking_on_after_429_is_banned_by_418() -> None:
    """T8."""
    dialect, _ = exchange("weight_per_minute=1,ban_s=120")
    statuses = [get(dialect, "/api/v3/ping", NOW_S).status for _ in range(13)]
    assert statuses == [200] + 10 * [429] + 2 * [418]
    banned = get(dialect, "/api/v3/ping", NOW_S + 100)
    assert banned.status == 418
    assert dict(banned.headers)["Retry-After"] == "20"
    assert f"banned until {int((NOW_S + 120) * 1_000)}" in json.loads(banned.body)["msg"]
    assert get(dialect, "/api/v3/ping", NOW_S + 121).status == 200


@pytest.mark.parametrize("status", [301, 403, 404, 410, 418, 429, 451, 500, 503])
def test_refusals_are_switched_on_by_a_fault_for_a_path_and_so_often(status: int) -> None:
    dialect, _ = exchange(f"rest:answer={status},path=exchangeInfo,times=1,retry_after_s=7")
    assert get(dialect, "/api/v3/ping").status == 200
    refused = get(dialect, DISCOVERY)
    assert refused.status == status
    if status in {418, 429}:
        assert dict(refused.headers)["Retry-After"] == "7"
    assert get(dialect, DISCOVERY).status == 200


def test_a_200_may_be_html_or_cut_off_or_never_come() -> None:
    assert get(exchange("rest:answer=html")[0], DISCOVERY).body.startswith(b"<!DOCTYPE html>")
    with pytest.raises(json.JSONDecodeError):
        json.loads(get(exchange("rest:answer=truncated")[0], DISCOVERY).body)
    assert exchange("rest:answer=timeout")[0].answer(Request("GET", DISCOVERY), NOW_S) is None


# Handshakes


def upgrade(dialect: Binance, target: str, now_s: float = NOW_S) -> object:
    return dialect.upgrade(Request("GET", target), now_s)


def audience(dialect: Binance, target: str) -> Audience | None:
    session = upgrade(dialect, target)
    assert isinstance(session, BinanceSession)
    return session.audience


def test_every_form_of_path_is_understood() -> None:
    dialect, _ = exchange()
    assert audience(dialect, "/ws") is None
    assert audience(dialect, "/stream") is None
    assert audience(dialect, "/stream?timeUnit=microsecond") is None
    assert audience(dialect, "/ws/btcusdt@trade") == Audience(frozenset({0}), False, False, False)
    assert audience(dialect, "/ws/btcusdt@trade/ethusdt@trade") == Audience(frozenset({0, 1}), False, False, False)
    assert audience(dialect, "/stream?streams=btcusdt@trade/ethusdt@trade") == Audience(frozenset({0, 1}), True, False, False)
    assert audience(dialect, "/stream?streams=btcusdt@trade&timeUnit=MICROSECOND") == Audience(frozenset({0}), True, True, False)
    assert audience(dialect, "/stream?timeUnit=microsecond&streams=btcusdt@trade") == Audience(frozenset({0}), True, True, False)
    assert audience(dialect, f"/stream?streams={quote('币安人生usdt@trade', safe='')}") == Audience(frozenset({2}), True, False, False)
    assert audience(dialect, "/stream?streams=BTCUSDT@trade") is None


def test_a_long_url_is_refused() -> None:
    dialect, _ = exchange()
    fits = "/stream?streams=" + "a" * (8_000 - 16)
    assert isinstance(upgrade(dialect, fits), BinanceSession)
    refused = upgrade(dialect, fits + "a")
    assert isinstance(refused, Reply)
    assert refused.status == 414
    assert isinstance(upgrade(exchange("uri_bytes_max=9000")[0], fits + "a"), BinanceSession)


def test_other_paths_and_too_many_streams_are_refused() -> None:
    dialect, _ = exchange("streams_max=2")
    for target, status in (("/other", 404), ("/wsx", 404), ("/stream?streams=a@trade/b@trade/c@trade", 400)):
        refused = upgrade(dialect, target)
        assert isinstance(refused, Reply)
        assert refused.status == status


def test_300_connections_in_five_minutes_are_allowed() -> None:
    dialect, _ = exchange()
    for i in range(300):
        assert isinstance(upgrade(dialect, "/ws", NOW_S + i), BinanceSession)
    refused = upgrade(dialect, "/ws", NOW_S + 299.5)
    assert isinstance(refused, Reply)
    assert refused.status == 429
    assert dict(refused.headers)["Retry-After"] == "1"
    assert isinstance(upgrade(dialect, "/ws", NOW_S + 300.5), BinanceSession)


@pytest.mark.parametrize("status", [403, 418, 429, 451])
def test_upgrades_are_refused_by_a_fault(status: int) -> None:
    dialect, _ = exchange(f"upgrade:answer={status},times=1")
    refused = upgrade(dialect, "/ws")
    assert isinstance(refused, Reply)
    assert refused.status == status
    assert isinstance(upgrade(dialect, "/ws"), BinanceSession)


def test_an_upgrade_may_never_be_answered() -> None:
    assert upgrade(exchange("upgrade:answer=timeout")[0], "/ws") is None


# Listings


@pytest.mark.parametrize("fault", ["listing:symbol=NONE", "delisting:symbol=NONE"])
def test_a_listing_of_what_there_is_not_is_refused(fault: str) -> None:
    with pytest.raises(ConfigError, match="no symbol 'NONE'"):
        exchange(fault)
    with pytest.raises(ConfigError, match="needs a symbol beside it"):
        exchange(fault, symbols=1)
