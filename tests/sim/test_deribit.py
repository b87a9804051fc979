"""The local Deribit as a process, over real sockets."""

import http.client
import json
import time
from typing import Any

import httpx
from websockets.frames import Opcode

from tests.local_exchange import LocalExchange, local_exchange
from tests.sim.wire import Wire

PATH = "/ws/api/v2"


def request(wire: Wire, method: str, **params: object) -> dict[str, Any]:
    """The answer, past all notifications."""
    wire.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
    while True:
        answer: dict[str, Any] = json.loads(wire.text())
        if "id" in answer:
            return answer


def notifications(wire: Wire, channel: str) -> Any:
    while True:
        message = json.loads(wire.text())
        if message.get("params", {}).get("channel") == channel:
            yield message["params"]["data"]


def instruments(exchange: LocalExchange, expired: bool = False) -> dict[str, str]:
    body = httpx.get(f"{exchange.rest_url}/api/v2/public/get_instruments", params={"currency": "any", "expired": expired}).json()
    return {one["instrument_name"]: one["state"] for one in body["result"]}


def test_a_client_that_ignores_heartbeats_is_closed_and_one_that_answers_is_not() -> None:
    with local_exchange("--symbols", "5", "--fault", "heartbeat_s_min=1", name="deribit") as exchange:
        with Wire(exchange, PATH) as deaf, Wire(exchange, PATH) as polite:
            assert request(deaf, "public/set_heartbeat", interval=1)["result"] == "ok"
            began_s = time.monotonic()
            last = list(deaf.frames())[-1]
            assert last.opcode is Opcode.CLOSE
            assert b"heartbeat" in last.data
            assert 1.5 < time.monotonic() - began_s < 5.0
            assert request(polite, "public/set_heartbeat", interval=1)["result"] == "ok"
            tested = 0
            while tested < 3:
                if json.loads(polite.text()).get("params", {}).get("type") == "test_request":
                    assert request(polite, "public/test")["result"] == {"version": "1.2.26"}
                    tested += 1
        assert exchange.stats()["closes_sent"] == {"1008 heartbeat": 1}


def test_a_listing_is_announced_then_trades_from_one_and_an_expiry_ends_it() -> None:
    flags = ["--symbols", "8", "--rate", "5000", "--fault", "listing:after=2000", "--fault", "expiry:after=4000,symbol=BTC-25DEC26"]
    with local_exchange(*flags, name="deribit") as exchange:
        before = instruments(exchange)
        assert len(before) == 7
        with Wire(exchange, PATH) as wire:
            kinds = ["option_combo", "future"]
            channels = [*(f"trades.{kind}.any.100ms" for kind in kinds), *(f"instrument.state.{kind}.any" for kind in kinds)]
            assert sorted(request(wire, "public/subscribe", channels=channels)["result"]) == sorted(channels)
            told: list[tuple[str, str]] = []
            listed: list[int] = []
            while ("BTC-25DEC26", "archivized") not in told or len(listed) < 5:
                params = json.loads(wire.text())["params"]
                if params["channel"].startswith("instrument.state"):
                    told.append((params["data"]["instrument_name"], params["data"]["state"]))
                else:
                    listed += [row["trade_seq"] for row in params["data"] if row["instrument_name"] == "BTC-CS-25DEC26-72000_75000"]
                    if told:
                        assert told[0] == ("BTC-CS-25DEC26-72000_75000", "open")
            assert listed[:5] == [1, 2, 3, 4, 5]
            assert told[1:] == [("BTC-25DEC26", state) for state in ("settlement", "delivered", "archivized")]
            sent = exchange.stats()["trades_sent"]
            exchange.wait(lambda stats: stats["trades_sent"] > sent + 2_000)
        after = instruments(exchange)
        assert after.keys() - before.keys() == {"BTC-CS-25DEC26-72000_75000"}
        assert before.keys() - after.keys() == {"BTC-25DEC26"}
        assert instruments(exchange, expired=True) == {"BTC-25DEC26": "archivized"}


def test_the_33rd_connection_is_refused_with_429_and_there_is_room_when_one_has_gone() -> None:
    with local_exchange("--symbols", "5", name="deribit") as exchange:
        wires = [Wire(exchange, PATH) for _ in range(32)]
        try:
            assert {wire.status for wire in wires} == {101}
            with Wire(exchange, PATH) as refused:
                assert refused.status == 429
            connection = http.client.HTTPConnection("127.0.0.1", exchange.port, timeout=10)
            connection.request("GET", "/api/v2/public/test")
            assert connection.getresponse().status == 429
            connection.close()
            wires.pop().__exit__()
            exchange.wait(lambda stats: stats["connections"] == 31)
            with Wire(exchange, PATH) as next_one:
                assert next_one.status == 101
        finally:
            for wire in wires:
                wire.__exit__()


def test_a_client_that_does_not_read_is_cut_off_while_another_goes_on() -> None:
    with local_exchange("--symbols", "50", "--rate", "200000", "--fault", "unsent_mb=1", name="deribit") as exchange:
        with Wire(exchange, PATH) as slow, Wire(exchange, PATH) as quick:
            for wire in (slow, quick):
                channels = [f"trades.{kind}.any.100ms" for kind in ("future", "option")]
                wire.send(json.dumps({"id": 1, "method": "public/subscribe", "params": {"channels": channels}}))
            rows = 0
            while exchange.stats()["connections"] == 2:
                for _ in range(50):
                    rows += json.loads(quick.text()).get("params", {}).get("data", [""])[0] != ""
            assert exchange.stats()["dropped_slow_bytes"] > 1_000_000
            assert quick.text()
        assert rows > 0


def test_a_stalled_connection_still_gets_its_heartbeats() -> None:
    flags = ["--symbols", "5", "--rate", "1000", "--fault", "stall:after_s=0.5", "--fault", "heartbeat_s_min=1"]
    with local_exchange(*flags, name="deribit") as exchange, Wire(exchange, PATH) as wire:
        request(wire, "public/set_heartbeat", interval=1)
        request(wire, "public/subscribe", channels=["trades.future.any.100ms"])
        kinds: list[str] = []
        while len(kinds) < 3:
            message = json.loads(wire.text())
            if message.get("method") == "heartbeat":
                kinds.append(message["params"]["type"])
                request(wire, "public/test")
        sent = exchange.stats()["trades_sent"]
        assert request(wire, "public/get_time")["result"]
        assert exchange.stats()["trades_sent"] == sent
