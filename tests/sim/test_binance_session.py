"""One websocket connection of the local Binance, with a clock of our own and no socket."""

import json
from random import Random
from typing import Any

import pytest
from websockets.frames import Close, Frame, Opcode

from appliance.sim import faults
from appliance.sim.binance_session import BinanceSession
from appliance.sim.faults import Strikes

SYMBOLS = {"btcusdt@trade": 0, "ethusdt@trade": 1, "币安人生usdt@trade": 2}


class Client:
    """Talks to one session at a time of its own."""

    def __init__(self, *specs: str, streams: tuple[str, ...] = (), combined: bool = True, number: int = 0) -> None:
        self.now_s = 1_000.0
        self.session = BinanceSession(
            SYMBOLS,
            streams,
            number=number,
            combined=combined,
            microseconds=False,
            now_s=self.now_s,
            faults=faults.parse(specs),
            strikes=Strikes(),
            random=Random(1),
        )

    def ask(self, request: object) -> Any:
        self.now_s += 1.0  # within the budget
        text = request if isinstance(request, bytes) else json.dumps(request, ensure_ascii=False).encode()
        steps = self.session.received(Frame(Opcode.TEXT, text), self.now_s)
        if not steps:
            return None
        (step,) = steps
        return step if isinstance(step, Close) else json.loads(bytes(step.data))

    def wait(self, seconds: float) -> list[Frame | Close]:
        self.now_s += seconds
        return self.session.due(self.now_s)

    @property
    def symbols(self) -> set[int]:
        return set(self.session.audience.symbols) if self.session.audience else set()


# Subscriptions


def test_requests_are_acknowledged_unwrapped_and_take_effect() -> None:
    client = Client()
    assert client.session.audience is None
    assert client.ask({"method": "SUBSCRIBE", "params": ["btcusdt@trade", "币安人生usdt@trade"], "id": 1}) == {"result": None, "id": 1}
    assert client.symbols == {0, 2}
    assert client.ask({"method": "UNSUBSCRIBE", "params": ["btcusdt@trade"], "id": "two"}) == {"result": None, "id": "two"}
    assert client.symbols == {2}
    assert client.ask({"method": "LIST_SUBSCRIPTIONS", "id": None}) == {"result": ["币安人生usdt@trade"], "id": None}


def test_an_unknown_or_wrongly_cased_stream_is_acknowledged_listed_and_silent() -> None:
    """T5."""
    client = Client()
    names = ["BTCUSDT@trade", "nothing@trade", "btcusdt@aggTrade"]
    assert client.ask({"method": "SUBSCRIBE", "params": names, "id": 1}) == {"result": None, "id": 1}
    assert client.ask({"method": "LIST_SUBSCRIPTIONS", "id": 2})["result"] == names
    assert client.session.audience is None


def test_combined_is_the_one_property() -> None:
    client = Client(streams=("btcusdt@trade",), combined=False)
    assert client.ask({"method": "GET_PROPERTY", "params": ["combined"], "id": 1}) == {"result": False, "id": 1}
    assert client.ask({"method": "SET_PROPERTY", "params": ["combined", True], "id": 2}) == {"result": None, "id": 2}
    assert client.session.audience is not None
    assert client.session.audience.combined


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"nonsense", 3),
        (b'{"method":', 3),
        (b"[" * 4_000, 3),
        (b"[1]", 2),
        ({"method": "SET_PROPERTY", "params": ["other", True], "id": "one"}, 0),
        ({"method": "SET_PROPERTY", "params": ["combined", "yes"], "id": "one"}, 1),
        ({"method": "SET_PROPERTY", "params": [1, True], "id": "one"}, 2),
        ({"method": "SET_PROPERTY", "params": ["combined", True, 1], "id": "one"}, 2),
        ({"method": "GET_PROPERTY", "params": ["other"], "id": "one"}, 0),
        ({"method": "GET_PROPERTY", "params": [], "id": "one"}, 2),
        ({"method": "SUBSCRIB", "params": ["btcusdt@trade"], "id": "one"}, 2),
        ({"params": ["btcusdt@trade"], "id": "one"}, 2),
        ({"method": "SUBSCRIBE", "params": "btcusdt@trade", "id": "one"}, 2),
        ({"method": "SUBSCRIBE", "params": [], "id": "one"}, 2),
        ({"method": "SUBSCRIBE", "params": [""], "id": "one"}, 2),
        ({"method": "SUBSCRIBE", "params": [7], "id": "one"}, 2),
        ({"method": "LIST_SUBSCRIPTIONS", "id": 1.5}, 2),
        ({"method": "LIST_SUBSCRIPTIONS", "id": 2**63}, 2),
        ({"method": "LIST_SUBSCRIPTIONS", "id": "x" * 37}, 2),
        ({"method": "LIST_SUBSCRIPTIONS", "id": True}, 2),
    ],
)
def test_a_mistake_is_answered_with_its_code_and_changes_nothing(request_: object, code: int) -> None:
    client = Client(streams=("ethusdt@trade",))
    subscribed = client.session.audience
    reply = client.ask(request_)
    if isinstance(request_, dict) and request_["id"] == "one":
        assert reply["id"] == "one"
    assert reply["error"]["code"] == code
    assert client.session.audience == subscribed


LONG = {"method": "SUBSCRIBE", "params": ["btcusdt@trade", *(f"{'x' * 30}{i:03}@trade" for i in range(100))], "id": 1}


def test_a_long_subscribe_is_ignored_by_the_healthy_exchange() -> None:
    client = Client()
    assert client.ask(LONG) is None
    assert client.wait(15) == []
    assert client.symbols == set()


def test_a_long_subscribe_can_be_taken_late() -> None:
    client = Client("long_subscribe:late_s=10")
    assert client.ask(LONG) is None
    assert client.wait(9.9) == []
    (reply,) = client.wait(0.2)
    assert isinstance(reply, Frame)
    assert json.loads(bytes(reply.data)) == {"result": None, "id": 1}
    assert client.symbols == {0}


def test_a_long_subscribe_can_be_taken_at_once() -> None:
    assert Client("long_subscribe:reaction=answer").ask(LONG) == {"result": None, "id": 1}


def test_more_streams_than_allowed_bring_an_error_or_a_close() -> None:
    many = {"method": "SUBSCRIBE", "params": [f"x{i}@trade" for i in range(4)], "id": 1}
    assert Client("streams_max=3").ask(many)["error"]["code"] == 2
    assert Client("streams_max=4").ask(many) == {"result": None, "id": 1}
    assert Client("streams_max=3", "too_many_streams").ask(many) == Close(1008, "")


# Time


def test_pings_come_every_20_s_and_an_echo_keeps_the_connection() -> None:
    client = Client()
    assert client.wait(19.9) == []
    for _ in range(10):
        (ping,) = client.wait(20)
        assert isinstance(ping, Frame)
        assert ping.opcode is Opcode.PING
        assert ping.data
        client.session.received(Frame(Opcode.PONG, ping.data), client.now_s)


@pytest.mark.parametrize("answer", [None, b"", b"other"])
def test_without_an_echo_of_the_payload_the_connection_is_closed_after_60_s(answer: bytes | None) -> None:
    client = Client()
    client.wait(20)
    for _ in range(2):
        if answer is not None:
            client.session.received(Frame(Opcode.PONG, answer), client.now_s)
        assert all(isinstance(step, Frame) for step in client.wait(20))
    assert client.wait(19.9) == []
    assert client.wait(0.2) == [Close(1008, "Pong timeout")]


def test_an_echo_of_a_later_ping_answers_the_earlier_ones() -> None:
    client = Client()
    client.wait(20)
    (ping,) = client.wait(20)
    assert isinstance(ping, Frame)
    client.session.received(Frame(Opcode.PONG, ping.data), client.now_s)
    assert all(isinstance(step, Frame) for step in [*client.wait(20), *client.wait(20)])


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG, Opcode.TEXT])
def test_more_than_five_frames_in_a_second_close_the_connection_whatever_they_are(opcode: Opcode) -> None:
    """T29."""
    client = Client()
    frame = Frame(opcode, b'{"method":"LIST_SUBSCRIPTIONS","id":1}')
    for _ in range(5):
        assert Close(1008, "") not in client.session.received(frame, client.now_s)
    assert client.session.received(frame, client.now_s) == [Close(1008, "")]


def test_five_frames_in_every_second_are_allowed() -> None:
    client = Client()
    for i in range(50):
        assert client.session.received(Frame(Opcode.PONG, b""), client.now_s + 0.2 * i) == []


def test_a_connection_ends_after_24_hours() -> None:
    client = Client("ping_interval_s=1000000")
    assert client.wait(86_399) == []
    assert client.wait(2) == [Close(1001, "")]


@pytest.mark.parametrize("combined", [True, False])
def test_a_shutdown_is_announced_and_follows_within_its_delay(combined: bool) -> None:
    """T7."""
    client = Client("shutdown:after_s=5,within_s=2", combined=combined)
    assert client.wait(4.9) == []
    (notice,) = client.wait(0.2)
    assert isinstance(notice, Frame)
    event = {"e": "serverShutdown", "E": 1_005_100}
    assert json.loads(bytes(notice.data)) == ({"stream": "!serverShutdown", "data": event} if combined else event)
    assert client.wait(2) == [Close(1001, "")]


def test_a_shutdown_may_be_announced_and_not_follow() -> None:
    client = Client("shutdown:after_s=5,close=false")
    assert len(client.wait(5)) == 1
    assert client.wait(10) == []


def test_a_shutdown_spares_the_other_connections() -> None:
    assert Client("shutdown:after_s=1,connection=1", number=0).wait(5) == []
