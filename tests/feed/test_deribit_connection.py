"""One connection to Deribit, over a real socket: login, heartbeats, subscriptions, and what the exchange says between trades."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiolimiter import AsyncLimiter
from picows import WSCloseCode

from appliance.exchanges import deribit_messages
from appliance.exchanges.deribit import HEARTBEAT_S, Deribit
from appliance.exchanges.exchange import Announced, InstrumentChanged, Trouble
from appliance.feed import tls
from appliance.feed.connection import Connection, Ending, Pace
from appliance.feed.limits import Limits
from tests.feed.scripted import Ear, Peer, Server, fact, run, trade

LOGIN = Deribit("raw", "id-1", "hush-1")
ANONYMOUS = Deribit("100ms")
PACE = Pace(answer_s=2.0)
METHODS = ("public/auth", "public/set_heartbeat", "private/subscribe")


class Desk:
    """How the exchange answers: each method's result, or what a test puts in its place."""

    def __init__(self, server: Server) -> None:
        self.expires_s = 1_000.0
        self.dropped: set[str] = set()
        self.scope = "connection mainaccount trade:read"
        self.instead: dict[str, Callable[[dict[str, Any]], dict[str, Any] | None]] = {}
        server.answer = self.answer

    def answer(self, peer: Peer, request: dict[str, Any]) -> None:
        method = request["method"]
        if method in self.instead:
            reply = self.instead[method](request)
        elif method == "public/auth":
            token = {"access_token": "A", "refresh_token": "R", "expires_in": self.expires_s, "scope": self.scope, "token_type": "bearer"}
            reply = {"result": token}
        elif method.endswith("/subscribe"):
            reply = {"result": [one for one in reversed(request["params"]["channels"]) if one not in self.dropped]}
        else:
            reply = {"result": "ok"}
        if reply is not None:
            peer.send({"jsonrpc": "2.0", "id": request["id"], **reply, "usIn": 1, "usOut": 2, "usDiff": 1, "testnet": False})


def error(code: int, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def asked(server: Server) -> list[str]:
    """The methods of all requests on all connections, in order."""
    return [json.loads(payload)["method"] for peer in server.peers for payload in peer.of_type(0x1)]


@asynccontextmanager
async def connected(
    server: Server, exchange: Deribit = LOGIN, pace: Pace = PACE, credits: AsyncLimiter | None = None
) -> AsyncIterator[tuple[Connection, "asyncio.Task[Ending]", list[InstrumentChanged | Announced]]]:
    heard: list[InstrumentChanged | Announced] = []
    connection = Connection(exchange, server.url, exchange.streams([]), Ear, tls.trust(None), hear=heard.append, pace=pace, credits=credits)
    life = asyncio.create_task(connection.run())
    try:
        yield connection, life, heard
    finally:
        life.cancel()
        with suppress(asyncio.CancelledError):
            await life


def test_a_connection_logs_in_before_it_asks_for_anything() -> None:
    """T16."""

    async def test() -> None:
        async with Server() as server:
            desk = Desk(server)
            answers: list[dict[str, Any]] = []
            desk.instead["public/auth"] = lambda request: answers.append(request)
            async with connected(server) as (connection, _, _):
                await fact(lambda: answers)
                assert asked(server) == ["public/auth"]
                assert answers[0]["params"] == {"grant_type": "client_credentials", "client_id": "id-1", "client_secret": "hush-1"}
                del desk.instead["public/auth"]
                desk.answer(server.peers[0], answers[0])
                await connection.subscribed.wait()
                assert asked(server) == list(METHODS)
                heartbeat, subscribe = (json.loads(payload)["params"] for payload in server.peers[0].of_type(0x1)[1:])
                assert heartbeat == {"interval": HEARTBEAT_S}
                assert subscribe == {"channels": LOGIN.streams([])}
                assert server.peers[0].path == "/ws/api/v2"

    run(test)


def test_without_a_login_only_public_methods_are_used() -> None:
    async def test() -> None:
        async with Server() as server:
            Desk(server)
            async with connected(server, ANONYMOUS) as (connection, _, _):
                await connection.subscribed.wait()
                assert asked(server) == ["public/set_heartbeat", "public/subscribe"]

    run(test)


def test_a_refused_login_ends_the_connection_for_good_and_names_no_secret() -> None:
    async def test() -> None:
        async with Server() as server:
            Desk(server).instead["public/auth"] = lambda request: error(13004, "invalid_credentials")
            async with connected(server) as (_, life, _):
                ending = await life
        assert ending.refusal is not None
        assert ending.refusal.trouble == Trouble.CREDENTIALS
        assert "13004 invalid_credentials" in ending.reason
        assert "hush-1" not in repr(ending)
        assert asked(server) == ["public/auth"]

    run(test)


def test_channels_that_the_answer_leaves_out_are_asked_for_again_and_then_named() -> None:
    """T31."""

    async def test() -> None:
        async with Server() as server:
            Desk(server).dropped = {"trades.spot.any.raw"}
            async with connected(server) as (connection, _, _):
                await connection.subscribed.wait()
                assert connection.unlisted == {"trades.spot.any.raw"}
                again = [request["params"]["channels"] for request in server.peers[0].requests("private/subscribe")[1:]]
                assert again == [["trades.spot.any.raw"]] * 3

    run(test)


def test_subscriptions_are_held_against_the_exchange_again_and_again() -> None:
    """T5."""

    async def test() -> None:
        async with Server() as server:
            Desk(server)
            async with connected(server, pace=Pace(answer_s=2.0, verify_s=0.05)):
                await fact(lambda: len(server.peers[0].requests("private/subscribe")) >= 3 if server.peers else False)
                for request in server.peers[0].requests("private/subscribe"):
                    assert request["params"]["channels"] == LOGIN.streams([])

    run(test)


def test_the_token_is_renewed_before_it_expires() -> None:
    async def test() -> None:
        async with Server() as server:
            desk = Desk(server)
            desk.expires_s = 1.0
            async with connected(server) as (connection, _, _):
                await connection.subscribed.wait()
                began_s = time.monotonic()
                await fact(lambda: len(server.peers[0].requests("public/auth")) == 3)
                assert time.monotonic() - began_s < 2.0
                first, *renewed = (request["params"] for request in server.peers[0].requests("public/auth"))
                assert first["grant_type"] == "client_credentials"
                assert renewed == [{"grant_type": "refresh_token", "refresh_token": "R"}] * 2
                assert len(server.peers) == 1

    run(test)


def test_a_refresh_token_that_is_dead_is_replaced_by_a_login_on_the_living_socket() -> None:
    async def test() -> None:
        async with Server() as server:
            desk = Desk(server)
            desk.expires_s = 0.5
            usual = desk.answer

            def answer(peer: Peer, request: dict[str, Any]) -> None:
                if request.get("params", {}).get("grant_type") == "refresh_token":
                    peer.send({"jsonrpc": "2.0", "id": request["id"], **error(13009, "invalid_token")})
                else:
                    usual(peer, request)

            server.answer = answer
            async with connected(server) as (connection, _, _):
                await fact(lambda: len(server.peers[0].requests("public/auth")) >= 5 if server.peers else False)
                grants = [request["params"]["grant_type"] for request in server.peers[0].requests("public/auth")[:5]]
                assert grants == ["client_credentials", "refresh_token", "client_credentials", "refresh_token", "client_credentials"]
                assert connection.is_open

    run(test)


def test_a_login_that_was_lost_in_mid_stream_is_made_again_and_everything_subscribed_again() -> None:
    """T16."""

    async def test() -> None:
        async with Server() as server:
            desk = Desk(server)
            async with connected(server, pace=Pace(answer_s=2.0, verify_s=0.05)) as (connection, _, _):
                await connection.subscribed.wait()
                desk.instead["private/subscribe"] = lambda request: error(13009, "unauthorized")
                await fact(lambda: len(server.peers[0].requests("public/auth")) >= 2)
                desk.instead.clear()
                seen = len(server.peers[0].requests("private/subscribe"))
                await fact(lambda: len(server.peers[0].requests("private/subscribe")) > seen + 1)
                assert server.peers[0].requests("private/subscribe")[-1]["params"]["channels"] == LOGIN.streams([])
                assert connection.unlisted == frozenset()
                assert len(server.peers) == 1

    run(test)


def test_a_test_request_is_answered_at_once() -> None:
    """T17."""

    async def test() -> None:
        async with Server() as server:
            Desk(server)
            async with connected(server) as (connection, _, _):
                await connection.subscribed.wait()
                peer = server.peers[0]
                for _ in range(3):
                    peer.send({"params": {"type": "heartbeat"}, "method": "heartbeat", "jsonrpc": "2.0"})
                    peer.send({"params": {"type": "test_request"}, "method": "heartbeat", "jsonrpc": "2.0"})
                await fact(lambda: len(peer.requests("public/test")) == 3)
                numbers = [request["id"] for request in map(json.loads, peer.of_type(0x1))]
                assert len(set(numbers)) == len(numbers)

    run(test)


def test_too_many_requests_end_the_connection_and_say_how_long_to_stay_away() -> None:
    async def test() -> None:
        async with Server() as server:
            Desk(server).instead["private/subscribe"] = lambda request: error(10028, "too_many_requests")
            async with connected(server) as (_, life, _):
                ending = await life
        assert ending.refusal is not None
        assert (ending.refusal.trouble, ending.refusal.retry_after_s) == (Trouble.BANNED, 10.0)

    run(test)


def test_maintenance_asks_for_a_successor_and_listings_are_told() -> None:
    async def test() -> None:
        async with Server() as server:
            Desk(server)
            async with connected(server) as (connection, _, heard):
                await connection.subscribed.wait()

                def notify(channel: str, data: dict[str, Any]) -> None:
                    server.peers[0].send({"jsonrpc": "2.0", "method": "subscription", "params": {"channel": channel, "data": data}})

                option = "XRP_USDC-30JUN27-0d625-C"
                notify("instrument.state.option.any", {"timestamp": 1, "state": "open", "instrument_name": option})
                notify("instrument.state.future.any", {"timestamp": 1, "state": "archivized", "instrument_name": "BTC-25DEC26"})
                notify("platform_state", {"price_index": "sol_usdc", "locked": True})
                await fact(lambda: len(heard) == 3)
                assert not connection.leaving.is_set()
                notify("platform_state", {"maintenance": True})
                await connection.leaving.wait()
                assert heard == [
                    InstrumentChanged(option, "Option", "open", lists=True, ends=False),
                    InstrumentChanged("BTC-25DEC26", "Future", "archivized", lists=False, ends=True),
                    Announced("platform_state", {"price_index": "sol_usdc", "locked": True}, "sol_usdc"),
                ]

    run(test)


PASSING = (10040, 10041, 10047, 10066, 11094, 13025, 13028, 13503, 13888)
ENDING = {
    10028: Trouble.BANNED,
    12003: Trouble.CREDENTIALS,
    12005: Trouble.BLOCKED,
    13004: Trouble.CREDENTIALS,
}
LOGIN_LOST = (10000, 13009, 13778)
OTHERS = (10020, 11050, -32602, -32000)  # and whatever else is not named


def after_code(code: int, check: Callable[[Connection, "asyncio.Task[Ending]", Server, Desk], Awaitable[None]]) -> None:
    """A connection that is subscribed, and whose next requests to subscribe are answered with an error of this code."""

    async def test() -> None:
        async with Server() as server:
            desk = Desk(server)
            async with connected(server, pace=Pace(answer_s=2.0, verify_s=0.05)) as (connection, life, _):
                await connection.subscribed.wait()
                desk.instead["private/subscribe"] = lambda request: error(code, "said so")
                await check(connection, life, server, desk)

    run(test)


@pytest.mark.parametrize("code", PASSING)
def test_what_passes_by_itself_is_asked_again_and_ends_no_connection(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a settlement both legs meet it in the same second: to end them would lose what they go on to deliver."""
    monkeypatch.setattr(deribit_messages, "PASSING_S", 0.02)

    async def check(connection: Connection, life: "asyncio.Task[Ending]", server: Server, desk: Desk) -> None:
        seen = len(server.peers[0].requests("private/subscribe"))
        await fact(lambda: len(server.peers[0].requests("private/subscribe")) > seen + 6)
        assert not life.done()
        del desk.instead["private/subscribe"]
        seen = len(server.peers[0].requests("private/subscribe"))
        await fact(lambda: len(server.peers[0].requests("private/subscribe")) > seen + 2)
        assert connection.is_open
        assert connection.unlisted == frozenset()
        assert len(server.peers) == 1

    after_code(code, check)


@pytest.mark.parametrize("code", ENDING)
def test_what_does_not_pass_ends_the_connection_and_says_when_to_come_again(code: int) -> None:
    async def check(connection: Connection, life: "asyncio.Task[Ending]", server: Server, desk: Desk) -> None:
        ending = await life
        assert ending.refusal is not None
        assert ending.refusal.trouble == ENDING[code]
        assert f"{code} said so" in ending.refusal.reason
        assert (ending.refusal.retry_after_s is not None) == (code == 10028)

    after_code(code, check)


@pytest.mark.parametrize("code", LOGIN_LOST)
def test_a_lost_login_is_made_again_on_the_living_socket(code: int) -> None:
    async def check(connection: Connection, life: "asyncio.Task[Ending]", server: Server, desk: Desk) -> None:
        await fact(lambda: len(server.peers[0].requests("public/auth")) >= 2)
        del desk.instead["private/subscribe"]
        seen = len(server.peers[0].requests("private/subscribe"))
        await fact(lambda: len(server.peers[0].requests("private/subscribe")) > seen)
        assert not life.done()

    after_code(code, check)


@pytest.mark.parametrize("code", OTHERS)
def test_a_connection_that_has_lost_every_channel_is_replaced_and_one_that_delivers_is_not(code: int) -> None:
    """What no one can mend by asking again: an unknown name, a mistake of ours, a method that is gone."""

    async def check(connection: Connection, life: "asyncio.Task[Ending]", server: Server, desk: Desk) -> None:
        seen = len(server.peers[0].requests("private/subscribe"))

        refused = desk.instead["private/subscribe"]

        def refused_beside_a_trade(request: dict[str, Any]) -> dict[str, Any] | None:
            server.peers[0].send(trade(1))
            return refused(request)

        desk.instead["private/subscribe"] = refused_beside_a_trade
        await fact(lambda: len(server.peers[0].requests("private/subscribe")) >= seen + 8)
        assert not life.done()
        assert connection.unlisted == set(LOGIN.streams([]))
        desk.instead["private/subscribe"] = refused
        assert "lists none of our" in (await life).reason

    after_code(code, check)


def test_maintenance_that_is_said_in_an_answer_ends_no_connection_that_delivers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deribit_messages, "MAINTENANCE_S", 0.02)

    async def check(connection: Connection, life: "asyncio.Task[Ending]", server: Server, desk: Desk) -> None:
        seen = len(server.peers[0].requests("private/subscribe"))
        await fact(lambda: len(server.peers[0].requests("private/subscribe")) > seen + 6)
        assert not life.done()

    after_code(11051, check)


def test_maintenance_that_a_new_connection_meets_is_waited_out_at_a_distance() -> None:
    async def test() -> None:
        async with Server() as server:
            Desk(server).instead["private/subscribe"] = lambda request: error(11051, "system_maintenance")
            async with connected(server) as (_, life, _):
                ending = await life
        assert ending.refusal is not None
        assert (ending.refusal.trouble, ending.refusal.retry_after_s) == (Trouble.AWAY, deribit_messages.MAINTENANCE_S)

    run(test)


def test_a_renewal_that_fails_ends_nothing_while_the_login_holds() -> None:
    """Both legs renew within seconds of each other."""

    async def test() -> None:
        async with Server() as server:
            desk = Desk(server)
            desk.expires_s = 2.0
            async with connected(server) as (connection, life, _):
                await connection.subscribed.wait()
                desk.instead["public/auth"] = lambda request: error(11051, "system_maintenance")
                await fact(lambda: len(server.peers[0].requests("public/auth")) >= 3)
                assert not life.done()
                desk.instead.clear()
                seen = len(server.peers[0].requests("public/auth"))
                await fact(lambda: len(server.peers[0].requests("public/auth")) >= seen + 2)
                assert not life.done()
                assert len(server.peers) == 1

    run(test)


def test_a_refusal_of_too_many_requests_counts_whatever_it_answers() -> None:
    """The answer to a test request is waited for by nobody."""

    async def test() -> None:
        async with Server() as server:
            Desk(server).instead["public/test"] = lambda request: error(10028, "too_many_requests")
            async with connected(server) as (connection, life, _):
                await connection.subscribed.wait()
                server.peers[0].send({"params": {"type": "test_request"}, "method": "heartbeat", "jsonrpc": "2.0"})
                ending = await life
        assert ending.refusal is not None
        assert ending.refusal.trouble == Trouble.BANNED

    run(test)


def test_a_key_that_never_gets_a_channel_is_tried_at_a_distance() -> None:
    async def test() -> None:
        async with Server() as server:
            Desk(server).dropped = {stream for stream in LOGIN.streams([]) if stream.startswith("trades.")}
            async with connected(server) as (_, life, _):
                ending = await life
        assert ending.refusal is not None
        assert ending.refusal.trouble == Trouble.AWAY
        assert "lists none of our 5 streams of trades" in ending.reason

    run(test)


def test_a_connection_that_is_too_slow_is_closed_by_the_exchange_and_says_so() -> None:
    async def test() -> None:
        async with Server() as server:
            Desk(server)
            async with connected(server) as (connection, life, _):
                await connection.subscribed.wait()
                transport = server.peers[0].transport
                assert transport is not None
                transport.send_close(WSCloseCode.POLICY_VIOLATION, b"connection_too_slow")
                ending = await life
        assert ending.refusal is None  # another one is opened at once
        assert "connection_too_slow" in ending.reason

    run(test)


def test_no_more_credits_are_spent_than_the_account_has_on_all_connections_together() -> None:
    """10028 would end them all (T8)."""

    async def test() -> None:
        async with Server() as server:
            desk = Desk(server)
            desk.dropped = {"trades.spot.any.raw"}
            spent: list[tuple[float, int]] = []
            usual = server.answer

            def answer(peer: Peer, request: dict[str, Any]) -> None:
                spent.append((time.monotonic(), 3_000 if request["method"].endswith("subscribe") else 500))
                usual(peer, request)

            server.answer = answer
            limits = Limits(Path("/nonexistent"), LOGIN.rules, time.time)
            async with AsyncExitStack() as stack:
                all_eight = [await stack.enter_async_context(connected(server, credits=limits.credits)) for _ in range(8)]
                for connection, _, _ in all_eight:
                    await connection.subscribed.wait()
            assert sum(cost for _, cost in spent) == 8 * (2 * 500 + 4 * 3_000)
            for number, (from_s, _) in enumerate(spent):
                total = 0
                for at_s, cost in spent[number:]:
                    total += cost
                    assert total <= 30_000 + 10_000 * (at_s - from_s)

    run(test)
