"""One websocket connection of the local Deribit, with a clock of our own and no socket; and what it answers over HTTP."""

import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Any

import pytest
from websockets.frames import Close, Frame, Opcode

from appliance.errors import ConfigError
from appliance.sim import faults
from appliance.sim.deribit import assemble
from appliance.sim.deribit_session import CLIENT_ID, CLIENT_SECRET, Audience
from appliance.sim.dialect import Reply, Request, Session, Setup, Step
from appliance.sim.synthetic import SyntheticFeed

LOGIN = {"grant_type": "client_credentials", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
RAW = "trades.future.any.raw"


class Market:
    """The exchange, its connections and its HTTP interface, at a time of our own."""

    def __init__(self, *specs: str, symbols: int = 13) -> None:
        self.now_s = 1_790_000_000.0
        setup = Setup(capture=None, rate=None, count=None, symbols=symbols, listing=None, seed=1, start_after=1, faults=faults.parse(specs))
        self.dialect, self.feed = assemble(setup)

    def print_trades(self, trades: int) -> None:
        assert isinstance(self.feed, SyntheticFeed)
        self.feed.tape.print_trades(trades, int(self.now_s * 1e6))

    def http(self, path: str, body: object = None, connections: int = 1) -> tuple[int, Any]:
        text = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
        request = Request("GET" if body is None else "POST", path, {}, "127.0.0.1", text, connections)
        reply = self.dialect.answer(request, self.now_s)
        assert reply is not None
        return reply.status, json.loads(reply.body) if reply.content_type.startswith("application/json") else reply.body

    def connect(self, connections: int = 1) -> "Client":
        session = self.dialect.upgrade(Request("GET", "/ws/api/v2", connections=connections), self.now_s)
        assert session is not None
        assert not isinstance(session, Reply), session.status
        return Client(self, session)


class Client:
    """One connection."""

    def __init__(self, market: Market, session: Session) -> None:
        self.market = market
        self.session = session
        self._request = 0

    def send(self, text: bytes) -> list[Step]:
        return self.session.received(Frame(Opcode.TEXT, text), self.market.now_s)

    def ask(self, method: str, **params: object) -> dict[str, Any]:
        """The first answer to a request."""
        self._request += 1
        steps = self.send(json.dumps({"jsonrpc": "2.0", "id": self._request, "method": method, "params": params}).encode())
        answer = messages(steps)[0]
        assert answer["id"] == self._request
        assert {"usIn", "usOut", "usDiff", "testnet"} <= answer.keys()
        return answer

    def code(self, method: str, **params: object) -> int:
        return int(self.ask(method, **params)["error"]["code"])

    @property
    def channels(self) -> set[str]:
        """The trades channels that it gets."""
        audience = self.session.audience
        assert audience is None or isinstance(audience, Audience)
        return set(audience.channels) if audience else set()

    def subscribe(self, *channels: str, private: bool = False) -> list[str]:
        channels_taken: list[str] = self.ask(f"{'private' if private else 'public'}/subscribe", channels=channels)["result"]
        return channels_taken

    def wait(self, seconds: float) -> list[Step]:
        self.market.now_s += seconds
        return self.session.due(self.market.now_s)


def messages(steps: Sequence[Step]) -> list[dict[str, Any]]:
    return [json.loads(bytes(step.data)) for step in steps if isinstance(step, Frame)]


def closes(steps: Sequence[Step]) -> list[str]:
    return [step.reason for step in steps if isinstance(step, Close)]


# The envelope


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b'{"jsonrpc":"2.0","method":"public/test"}', 11050),
        (b'{"jsonrpc":"2.0","id":true,"method":"public/test"}', 11050),
        (b'[{"jsonrpc":"2.0","id":1,"method":"public/test"}]', 11050),
        (b"{", -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"public/nothing"}', -32601),
        (b'{"id":1,"method":"public/test","params":{"x":"' + b"y" * 33_000 + b'"}}', -32600),
    ],
    ids=["no-id", "id-is-no-number", "batch", "no-json", "no-such-method", "over-32-kB"],
)  # fmt: skip
def test_a_request_that_is_wrong_is_answered_with_its_code(text: bytes, code: int) -> None:
    (answer,) = messages(Market().connect().send(text))
    assert answer["error"]["code"] == code


def test_replies_may_come_late_and_out_of_order() -> None:
    client = Market("late_reply:every=2,late_s=0.2").connect()
    assert client.send(b'{"id":6,"method":"public/get_time"}') != []
    assert client.send(b'{"id":7,"method":"public/test"}') == []
    assert client.send(b'{"id":8,"method":"public/test"}') != []
    assert client.wait(0.1) == []
    assert [answer["id"] for answer in messages(client.wait(0.11))] == [7]


# Login


def test_a_login_is_needed_for_raw_channels_and_a_wrong_one_is_refused() -> None:
    client = Market().connect()
    assert client.code("private/subscribe", channels=["platform_state"]) == 10000
    assert client.code("public/subscribe", channels=[RAW, "trades.spot.any.100ms"]) == 13778
    assert client.session.audience is None
    assert client.code("public/auth", **(LOGIN | {"client_secret": "wrong"})) == 13004
    granted = client.ask("public/auth", **LOGIN)["result"]
    assert granted["expires_in"] == 31_536_000
    assert granted["token_type"] == "bearer"
    assert client.subscribe(RAW, private=True) == [RAW]


def test_five_wrong_logins_lock_the_account() -> None:
    client = Market().connect()
    assert [client.code("public/auth", **(LOGIN | {"client_id": "x"})) for _ in range(6)] == [13004] * 5 + [12003]


def test_a_login_can_be_signed_instead_of_sending_the_secret() -> None:
    market = Market()
    client = market.connect()

    def signed(secret: str = CLIENT_SECRET, at_s: float | None = None) -> dict[str, object]:
        timestamp, nonce = int((at_s or market.now_s) * 1_000), "abcd"
        signature = hmac.new(secret.encode(), f"{timestamp}\n{nonce}\n".encode(), hashlib.sha256).hexdigest()
        return {
            "grant_type": "client_signature", "client_id": CLIENT_ID, "timestamp": timestamp, "nonce": nonce, "data": "",
            "signature": signature,
        }  # fmt: skip

    assert client.code("public/auth", **signed("wrong")) == 13004
    assert client.code("public/auth", **signed(at_s=market.now_s - 61)) == 13004
    assert "access_token" in client.ask("public/auth", **signed())["result"]


def test_a_token_ends_and_takes_raw_channels_with_it_unless_it_is_renewed() -> None:
    client = Market("expires_s=20").connect()
    first = client.ask("public/auth", **LOGIN)["result"]
    client.subscribe(RAW, "trades.spot.any.100ms")
    client.wait(16)
    assert client.code("public/auth", grant_type="refresh_token", refresh_token="other") == 13009
    second = client.ask("public/auth", grant_type="refresh_token", refresh_token=first["refresh_token"])["result"]
    assert second["refresh_token"] != first["refresh_token"]
    client.wait(16)
    assert RAW in client.channels
    client.wait(5)
    assert client.channels == {"trades.spot.any.100ms"}
    assert client.code("private/subscribe", channels=[RAW]) == 13009


# Heartbeats


def test_whoever_does_not_answer_a_test_request_is_cut_off_and_whoever_does_is_not() -> None:
    market = Market()
    silent, lively = market.connect(), market.connect()
    for client in (silent, lively):
        assert client.code("public/set_heartbeat", interval=9) == -32602
        assert client.ask("public/set_heartbeat", interval=10)["result"] == "ok"
    assert silent.wait(9.9) == []
    beats: dict[str, int] = {}
    cut: list[str] = []
    for _ in range(100):
        market.now_s += 0.5
        for message in messages(lively.wait(0)):
            kind = message["params"]["type"]
            beats[kind] = beats.get(kind, 0) + 1
            if kind == "test_request":
                assert lively.ask("public/test")["result"] == {"version": "1.2.26"}
        if not cut:
            cut += closes(silent.wait(0))
    assert beats == {"test_request": 3, "heartbeat": 2}
    assert cut == ["heartbeat"]
    lively.ask("public/disable_heartbeat")
    assert lively.wait(100) == []


# Subscriptions


def test_unknown_channels_are_left_out_without_a_word() -> None:
    client = Market().connect()
    assert client.subscribe("trades.nothing.any.100ms", "trades.NO-SUCH.100ms", "trades.future.any.1s") == []
    assert client.subscribe("trades.any.any.100ms", "trades.future.any.100ms") == ["trades.future.any.100ms"]
    known = ["trades.BTC-PERPETUAL.100ms", "trades.option.XRP.100ms", "instrument.state.any.any", "platform_state"]
    assert sorted(client.subscribe(*known)) == sorted({*known} - {"trades.option.XRP.100ms"})


def test_more_than_500_channels_are_refused() -> None:
    client = Market().connect()
    assert client.code("public/subscribe", channels=["platform_state"] * 501) == -32602
    assert client.code("public/subscribe", channels="platform_state") == -32602


def test_unsubscribing_names_what_was_removed() -> None:
    client = Market().connect()
    client.subscribe("trades.future.any.100ms", "trades.spot.any.100ms")
    assert client.ask("public/unsubscribe", channels=["trades.spot.any.100ms", "nothing"])["result"] == ["trades.spot.any.100ms"]
    assert client.ask("public/unsubscribe_all")["result"] == "ok"
    assert client.session.audience is None


def test_a_settlement_asks_to_come_later_and_maintenance_is_announced_before_the_end() -> None:
    client = Market("settlement:after_s=1,for_s=2", "maintenance:after_s=5,lead_s=1").connect()
    client.subscribe("platform_state")
    client.wait(1)
    assert client.code("public/subscribe", channels=["platform_state"]) == 10041
    client.wait(2)
    assert client.subscribe("platform_state") == ["platform_state"]
    (said,) = messages(client.wait(2))
    assert said["params"] == {"channel": "platform_state", "data": {"maintenance": True}}
    assert closes(client.wait(1)) == [""]


@pytest.mark.parametrize("fault", ["listing", "expiry"])
def test_an_instrument_that_is_not_there_can_neither_be_listed_nor_expire(fault: str) -> None:
    with pytest.raises(ConfigError, match=f"--fault {fault}: no instrument 'NOTHING'; there are BTC-PERPETUAL"):
        Market(f"{fault}:symbol=NOTHING")
    with pytest.raises(ConfigError, match="needs --symbols 2 or more"):
        Market(fault, symbols=1)


# Limits


@pytest.mark.parametrize(("method", "burst"), [("public/test", 100), ("public/subscribe", 10), ("public/get_instruments", 5)])
def test_whoever_asks_for_more_than_its_credits_is_told_so_and_cut_off(method: str, burst: int) -> None:
    """Shared by all connections of an account: the second one has no credits of its own."""
    market = Market()
    clients = [market.connect(), market.connect()]
    for number in range(burst):
        assert "result" in clients[number % 2].ask(method, channels=["platform_state"])
    text = json.dumps({"id": 1, "method": method, "params": {"channels": ["platform_state"]}}).encode()
    steps = clients[0].send(text)
    assert messages(steps)[0]["error"] == {"code": 10028, "message": "too_many_requests"}
    assert closes(steps) == ["too_many_requests"]
    market.now_s += 10.0
    assert "result" in clients[1].ask(method, channels=["platform_state"])


def test_a_login_has_credits_of_its_own() -> None:
    market = Market()
    anonymous, known = market.connect(), market.connect()
    known.ask("public/auth", **LOGIN)
    for _ in range(10):
        anonymous.subscribe("platform_state")
    assert known.subscribe("platform_state") == ["platform_state"]


def test_the_33rd_connection_of_an_address_is_refused() -> None:
    market = Market()
    market.connect(connections=32)
    refused = market.dialect.upgrade(Request("GET", "/ws/api/v2", connections=33), market.now_s)
    assert isinstance(refused, Reply)
    assert refused.status == 429
    assert market.http("/api/v2/public/test", connections=33)[0] == 429


# HTTP


def test_http_takes_queries_and_json_and_says_what_only_a_websocket_may() -> None:
    market = Market()
    status, told = market.http("/api/v2/public/get_time")
    assert (status, told["result"]) == (200, 1_790_000_000_000)
    assert "id" not in told
    status, told = market.http("/api/v2", {"jsonrpc": "2.0", "id": "a", "method": "public/get_instruments", "params": {"currency": "ETH"}})
    assert status == 200
    assert told["id"] == "a"
    assert {one["instrument_name"] for one in told["result"]} == {"ETH-PERPETUAL", "ETH-26MAR27"}
    assert market.http("/api/v2/public/subscribe")[1]["error"]["code"] == 10030
    status, told = market.http("/api/v2/public/nothing")
    assert (status, told["error"]["code"]) == (400, -32601)
    assert market.http("/api/v2", b"{")[1]["error"]["code"] == -32700
    assert market.http("/elsewhere")[0] == 404


def test_the_list_has_every_product_and_what_a_recorded_one_has() -> None:
    instruments = Market().http("/api/v2/public/get_instruments?currency=any&expired=false")[1]["result"]
    assert {one["kind"] for one in instruments} == {"future", "option", "spot", "future_combo", "option_combo"}
    options = [one for one in instruments if one["kind"] == "option"]
    assert {one["strike"] for one in options} == {72000.0, 75000.0, 0.625}
    assert all(one["is_active"] and one["state"] == "open" for one in instruments)
    spot = Market().http("/api/v2/public/get_instruments?currency=BTC&kind=spot")[1]["result"]
    assert [one["instrument_name"] for one in spot] == ["ETH_BTC"]
    assert all("settlement_currency" not in one for one in spot)


# Past trades


def printed(market: Market, trades: int) -> None:
    market.print_trades(trades)
    market.now_s += 1.0


def rows(market: Market, query: str, host: str = "/api/v2") -> tuple[list[dict[str, Any]], bool]:
    path = f"{host}/public/get_last_trades_by_instrument?instrument_name=BTC-PERPETUAL&{query}"
    result = market.http(path)[1]["result"]
    return result["trades"], result["has_more"]


def test_the_main_host_gives_what_lies_between_two_sequences_up_to_a_thousand_and_forgets_after_a_day() -> None:
    market = Market()
    printed(market, 20_000)
    newest = rows(market, "count=1")[0][0]["trade_seq"]
    found, more = rows(market, f"start_seq={newest - 20}&end_seq={newest - 11}&count=1000&sorting=asc")
    assert [row["trade_seq"] for row in found] == list(range(newest - 20, newest - 10))
    assert not more
    found, more = rows(market, f"start_seq={newest - 1999}&count=5000&sorting=asc")
    assert len(found) == 1_000
    assert more
    assert len(rows(market, "count=3")[0]) == 3
    assert {"starbase_match_id", "starbase_timestamp", "contracts", "mark_price", "index_price"} <= found[0].keys()
    market.now_s += 24 * 3600
    assert rows(market, f"start_seq={newest - 20}&end_seq={newest - 11}&count=1000") == ([], False)


def test_the_history_host_widens_to_whole_milliseconds_unordered_and_keeps_everything() -> None:
    market = Market()
    printed(market, 20_000)  # all within a moment
    newest = rows(market, "count=1")[0][0]["trade_seq"]
    market.now_s += 48 * 3600
    wanted = set(range(newest - 20, newest - 10))
    found, more = rows(market, f"start_seq={newest - 20}&end_seq={newest - 11}&count=10000&sorting=asc", "/history/api/v2")
    sequences = [row["trade_seq"] for row in found]
    assert wanted < set(sequences)
    assert sequences != sorted(sequences)
    assert not more
    assert not any(key.startswith("starbase") for key in found[0])
    pushed_out, more = rows(market, f"start_seq={newest - 20}&end_seq={newest - 11}&count=10&sorting=asc", "/history/api/v2")
    assert more
    assert {row["trade_seq"] for row in pushed_out} != wanted
    assert {row.get("liquidation") for row in found} <= {None, "T"}


def test_a_liquidation_is_told_an_hour_later() -> None:
    market = Market()
    printed(market, 20_000)
    assert not any("liquidation" in row for row in rows(market, "count=1000")[0])
    market.now_s += 3_600
    assert any(row.get("liquidation") == "T" for row in rows(market, "count=1000")[0])


def test_the_same_questions_may_be_asked_on_a_websocket() -> None:
    market = Market()
    printed(market, 1_000)
    answer = market.connect().ask("public/get_last_trades_by_instrument", instrument_name="BTC-PERPETUAL", count=2)
    assert answer["result"]["trades"] == rows(market, "count=2")[0]


# Trades as they stand on the stream


def notified(market: Market, *channels: str, trades: int = 5_000) -> list[dict[str, Any]]:
    client = market.connect()
    client.ask("public/auth", **LOGIN)
    client.subscribe(*channels)
    assert client.session.audience is not None
    renderer = market.dialect.frames(client.session.audience)
    market.print_trades(trades)
    data, found = renderer.render(), []
    while data:
        size, head = (data[1], 2) if data[1] < 126 else (int.from_bytes(data[2:4]), 4)
        found.append(json.loads(data[head : head + size]))
        data = data[head + size :]
    return found


def test_a_combo_trade_carries_its_legs_and_a_leg_names_its_combo() -> None:
    market = Market()
    combo = notified(market, "trades.BTC-FS-25DEC26_PERP.raw")[0]["params"]["data"][0]
    assert [leg["instrument_name"] for leg in combo["legs"]] == ["BTC-25DEC26", "BTC-PERPETUAL"]
    assert {leg["combo_id"] for leg in combo["legs"]} == {"BTC-FS-25DEC26_PERP"}
    assert {leg["combo_trade_id"] for leg in combo["legs"]} == {combo["trade_id"]}
    perpetual = [row for frame in notified(market, "trades.BTC-PERPETUAL.raw") for row in frame["params"]["data"]]
    assert any(row.get("combo_id") == "BTC-FS-25DEC26_PERP" and isinstance(row["combo_trade_id"], str) for row in perpetual)
    assert any(row.get("block_trade_id", "").startswith("BLOCK-") and row["block_trade_leg_count"] == 2 for row in perpetual)


@pytest.mark.parametrize("interval", ["raw", "100ms"])
@pytest.mark.parametrize("generation", ["2021", "2025", "2026"])
def test_sequences_are_contiguous_in_each_instrument_and_several_trades_share_a_frame(generation: str, interval: str) -> None:
    market = Market(f"schema:generation={generation}")
    frames = notified(market, *(f"trades.{kind}.any.{interval}" for kind in ("future", "option", "spot", "future_combo", "option_combo")))
    sequences: dict[str, list[int]] = {}
    for frame in frames:
        for row in frame["params"]["data"]:
            sequences.setdefault(row["instrument_name"], []).append(row["trade_seq"])
    assert sum(map(len, sequences.values())) == 5_000
    assert all(seen == list(range(seen[0], seen[0] + len(seen))) for seen in sequences.values())
    assert max(len(frame["params"]["data"]) for frame in frames) > 3
    last = frames[-1]["params"]["data"][-1]
    assert ("starbase_match_id" in last) == (generation == "2026")
    assert ("contracts" in last) == (generation != "2021")
