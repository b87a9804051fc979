"""One websocket's life, over real sockets, against an exchange that does what it must not."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.request import urlopen

import pytest
from picows import WSCloseCode, WSMsgType

from appliance.exchanges.binance import EXCHANGE
from appliance.exchanges.exchange import Trouble
from appliance.feed import tls
from appliance.feed.connection import Connection, Ending, Pace
from tests.feed.scripted import Ear, Peer, Server, fact, run, trade, trades
from tests.local_exchange import local_exchange

PING, PONG = 0x9, 0xA
STREAMS = ["btcusdt@trade", "ethusdt@trade", "币安人生usdt@trade"]
TRUST = tls.trust(None)
QUICK = Pace(dial_s=2.0, quiet_s=0.2, pong_s=0.2, answer_s=0.3, verify_s=60.0)
CALM = Pace(verify_s=60.0)


def connection(url: str, streams: list[str] = STREAMS, pace: Pace = CALM, trust: ssl.SSLContext = TRUST) -> tuple[Connection, list[Ear]]:
    ears: list[Ear] = []

    def listen(control: Connection) -> Ear:
        ears.append(Ear(control))
        return ears[-1]

    return Connection(EXCHANGE, url, streams, listen, trust, pace=pace), ears


@asynccontextmanager
async def living(
    url: str, streams: list[str] = STREAMS, pace: Pace = CALM
) -> AsyncIterator[tuple[Connection, list[Ear], asyncio.Task[Ending]]]:
    one, ears = connection(url, streams, pace)
    life = asyncio.create_task(one.run())
    try:
        yield one, ears, life
    finally:
        life.cancel()
        with suppress(asyncio.CancelledError):
            await life


def test_streams_in_the_url_are_verified_and_trades_arrive() -> None:
    async def test() -> None:
        async with Server() as server, living(server.url) as (one, ears, _):
            await one.subscribed.wait()
            assert server.peers[0].streams == STREAMS
            assert server.peers[0].requests("SUBSCRIBE") == []
            assert server.peers[0].requests("LIST_SUBSCRIPTIONS")
            for frame in trades(range(100)):
                server.peers[0].send(frame)
            await fact(lambda: ears[0].trades == 100)
            assert one.trades == 100

    run(test)


def test_pings_are_answered_with_their_own_payload() -> None:
    async def test() -> None:
        async with Server() as server, living(server.url) as (one, _, _):
            await one.subscribed.wait()
            transport = server.peers[0].transport
            assert transport is not None
            payloads = [b"1770123456789", b"", b"\x00\xff" * 60]
            for payload in payloads:
                transport.send_ping(payload)
            await fact(lambda: server.peers[0].of_type(PONG) == payloads)

    run(test)


def test_a_flood_of_pings_never_makes_us_send_more_than_the_exchange_allows() -> None:
    """T29: pongs count. The last ping of the flood is answered all the same."""

    async def test() -> None:
        async with Server() as server, living(server.url) as (one, _, _):
            await one.subscribed.wait()
            peer = server.peers[0]
            assert peer.transport is not None
            for number in range(50):
                peer.transport.send_ping(b"%d" % number)
            await fact(lambda: b"49" in peer.of_type(PONG))
            times = [at_s for _, _, at_s in peer.frames]
            assert all(sum(at_s <= other_s < at_s + 1.0 for other_s in times) <= EXCHANGE.rules.messages_per_s for at_s in times)

    run(test)


def test_what_the_url_has_no_room_for_is_subscribed_within_the_message_budget() -> None:
    """T19: 400 Chinese names do not fit the URL."""
    streams = [f"我踏马来了{number}usdt@trade" for number in range(400)]

    async def test() -> None:
        async with Server() as server, living(server.url, streams) as (one, _, _):
            await one.subscribed.wait()
            peer = server.peers[0]
            assert len(peer.path) <= 8_000
            assert sorted(peer.streams) == sorted(streams)
            assert len(peer.requests("SUBSCRIBE")) >= 3
            assert all(len(frame) <= 4_000 for frame in peer.of_type(0x1))
            times = [at_s for _, _, at_s in peer.frames]
            assert all(sum(at_s <= other_s < at_s + 1.0 for other_s in times) <= 3 for at_s in times)

    run(test)


def test_an_acknowledged_stream_that_is_not_listed_is_asked_for_again_then_reported() -> None:
    """T5: an ack is no proof of data."""

    async def test() -> None:
        async with Server() as server:
            server.silent_streams = {"ethusdt@trade"}
            async with living(server.url) as (one, _, _):
                await one.subscribed.wait()
                again = [request["params"] for request in server.peers[0].requests("SUBSCRIBE")]
                assert again == [["ethusdt@trade"]] * 3
                assert one.unlisted == {"ethusdt@trade"}

    run(test)


def test_a_dropped_stream_that_comes_back_when_asked_again_is_no_trouble() -> None:
    async def test() -> None:
        async with Server() as server:
            server.greet = lambda peer: peer.streams.remove("btcusdt@trade")
            async with living(server.url) as (one, _, _):
                await one.subscribed.wait()
                assert set(server.peers[0].streams) == set(STREAMS)
                assert one.unlisted == frozenset()

    run(test)


def test_a_connection_that_lists_none_of_our_streams_is_replaced() -> None:
    """T5: the endpoint moved, acks and pings are fine."""

    async def test() -> None:
        async with Server() as server:
            server.silent_streams = set(STREAMS)
            one, _ = connection(server.url)
            ending = await one.run()
            assert "none of our 3 streams" in ending.reason
            assert not one.subscribed.is_set()

    run(test)


def test_unanswered_requests_do_not_end_a_connection_that_answers_pings() -> None:
    """T33."""

    async def test() -> None:
        async with Server() as server:
            server.answer = lambda peer, request: None
            async with living(server.url, pace=QUICK) as (one, ears, life):
                await one.subscribed.wait()
                server.peers[0].send(trade(1))
                await fact(lambda: ears[0].trades == 1)
                assert not life.done()

    run(test)


def test_streams_can_be_added_while_it_lives() -> None:
    async def test() -> None:
        async with Server() as server, living(server.url) as (one, _, _):
            await one.subscribed.wait()
            one.subscribe(["newusdt@trade", "btcusdt@trade"])
            await fact(lambda: "newusdt@trade" in server.peers[0].streams)
            assert [request["params"] for request in server.peers[0].requests("SUBSCRIBE")] == [["newusdt@trade"]]

    run(test)


def test_a_quiet_connection_whose_peer_answers_pings_is_kept() -> None:
    """T33: no trade for many times the quiet period."""

    async def test() -> None:
        async with Server() as server, living(server.url, pace=QUICK) as (one, _, life):
            await one.subscribed.wait()
            await fact(lambda: len(server.peers[0].of_type(PING)) >= 4)
            assert not life.done()

    run(test)


def test_a_busy_connection_is_never_pinged() -> None:
    """T29: our pings count as messages."""

    async def test() -> None:
        async with Server() as server, living(server.url, pace=QUICK) as (one, ears, _):
            await one.subscribed.wait()
            peer = server.peers[0]
            for number in range(60):
                peer.send(trade(number))
                await asyncio.sleep(QUICK.quiet_s / 10)  # the rhythm of the trades
            await fact(lambda: ears[0].trades == 60)
            assert peer.of_type(PING) == []

    run(test)


def test_a_connection_whose_peer_does_not_answer_a_ping_is_ended() -> None:
    async def test() -> None:
        async with Server() as server:
            server.answers_pings = False
            one, _ = connection(server.url, pace=QUICK)
            ending = await one.run()
            assert "no answer to a ping" in ending.reason
            assert ending.refusal is None

    run(test)


def test_a_shutdown_notice_is_heard_among_the_trades() -> None:
    """T7."""

    async def test() -> None:
        async with Server() as server, living(server.url) as (one, ears, life):
            await one.subscribed.wait()
            server.peers[0].send(trade(1))
            server.peers[0].send({"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": 1}})
            server.peers[0].send(trade(2))
            await one.leaving.wait()
            await fact(lambda: ears[0].trades == 2)
            assert not life.done()

    run(test)


@pytest.mark.parametrize(
    ("close", "said"),
    [
        (lambda peer: peer.transport.send_close(WSCloseCode.POLICY_VIOLATION, "Pong timeout"), "1008 Pong timeout"),
        (lambda peer: peer.transport.disconnect(graceful=False), "without a CLOSE"),
        (lambda peer: peer.transport.disconnect(), "without a CLOSE"),
    ],
    ids=["close frame", "reset", "end of file"],
)
def test_each_end_says_how_it_came(close: Callable[[Peer], None], said: str) -> None:
    """T4: a clean end of file is an end like any other."""

    async def test() -> None:
        async with Server() as server, living(server.url) as (one, _, life):
            await one.subscribed.wait()
            close(server.peers[0])
            ending = await life
            assert said in ending.reason
            assert ending.refusal is None
            assert ending.life_s >= 0

    run(test)


def test_a_frame_that_breaks_the_protocol_ends_the_connection_and_not_the_frames_before_it() -> None:
    async def test() -> None:
        async with Server() as server, living(server.url) as (one, ears, life):
            await one.subscribed.wait()
            transport = server.peers[0].transport
            assert transport is not None
            server.peers[0].send(trade(1))
            transport.underlying_transport.write(b"\x83\x00")  # a reserved opcode
            ending = await life
            assert "violation" in ending.reason
            assert ears[0].trades == 1

    run(test)


def test_a_drain_takes_everything_that_was_sent_before_the_exchanges_close() -> None:
    async def test() -> None:
        async with Server() as server, living(server.url) as (one, ears, life):
            await one.subscribed.wait()

            def last_trades(peer: Peer) -> None:
                for frame in trades(range(1_000)):
                    peer.send(frame)

            server.before_close = last_trades
            await one.drain(5.0)
            assert ears[0].trades == 1_000
            assert (await life).reason == "drained"

    run(test)


def test_a_drain_does_not_wait_longer_than_allowed_for_a_peer_that_does_not_close() -> None:
    async def test() -> None:
        async with Server() as server, living(server.url) as (one, _, life):
            server.answers_close = False
            await one.subscribed.wait()
            begun_s = asyncio.get_running_loop().time()
            await one.drain(0.2)
            assert asyncio.get_running_loop().time() - begun_s < 2.0
            assert (await life).reason == "drained"

    run(test)


@pytest.mark.parametrize(
    ("status", "headers", "trouble", "retry_after_s"),
    [
        (451, {}, Trouble.BLOCKED, None),
        (403, {}, Trouble.FORBIDDEN, None),
        (429, {"Retry-After": "7"}, Trouble.BANNED, 7.0),
        (418, {"retry-after": "120"}, Trouble.BANNED, 120.0),
        (503, {}, Trouble.AWAY, None),
        (404, {}, Trouble.MOVED, None),
        (301, {"Location": "ws://127.0.0.1:1/"}, Trouble.MOVED, None),
    ],
)
def test_a_refused_upgrade_says_why(status: int, headers: dict[str, str], trouble: Trouble, retry_after_s: float | None) -> None:
    async def test() -> None:
        async with Server() as server:
            server.refuse = (status, b'{"code":0,"msg":"no"}', headers)
            one, ears = connection(server.url)
            refusal = (await one.run()).refusal
            assert refusal is not None
            assert (refusal.trouble, refusal.retry_after_s) == (trouble, retry_after_s)
            assert str(status) in refusal.reason
            assert ears == []
            assert not one.opened.is_set()

    run(test)


async def refusal_by(handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any], scheme: str = "ws", pace: Pace = QUICK) -> Any:
    """How a dial ends against a bare TCP server."""

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await handle(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        ended.set()

    ended = asyncio.Event()
    server = await asyncio.start_server(once, "127.0.0.1", 0)
    try:
        one, _ = connection(f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}", pace=pace)
        return (await one.run()).refusal
    finally:
        await ended.wait()
        server.close()
        await server.wait_closed()


def test_a_peer_that_hangs_up_during_the_upgrade_is_away() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()

    refusal = run(lambda: refusal_by(hang_up))
    assert refusal.trouble == Trouble.AWAY
    assert "closed the connection" in refusal.reason


def test_a_peer_that_never_answers_the_upgrade_is_given_up() -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    refusal = run(lambda: refusal_by(wait, pace=Pace(dial_s=0.3)))
    assert refusal.trouble == Trouble.AWAY
    assert "did not answer within" in refusal.reason


def test_a_web_page_instead_of_an_upgrade_is_quoted() -> None:
    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b"<html>Down for maintenance</html>"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()

    refusal = run(lambda: refusal_by(page))
    assert refusal.trouble == Trouble.AWAY
    assert "maintenance" in refusal.reason


def test_plain_text_where_tls_is_expected_is_never_talked_to() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    refusal = run(lambda: refusal_by(plain, "wss"))
    assert refusal.trouble == Trouble.INSECURE
    assert "127.0.0.1" in refusal.reason


def test_a_refused_or_unknown_host_is_away() -> None:
    async def test() -> None:
        async with Server() as server:
            port = server.port
        one, _ = connection(f"ws://127.0.0.1:{port}")
        refused = (await one.run()).refusal
        assert refused is not None
        assert refused.trouble == Trouble.AWAY
        other, _ = connection("ws://no-such-host.invalid")
        unknown = (await other.run()).refusal
        assert unknown is not None
        assert unknown.trouble == Trouble.AWAY
        assert "no-such-host.invalid" in unknown.reason

    run(test)


def test_a_dial_that_is_given_up_leaves_no_connection_behind() -> None:
    async def test() -> None:
        async with Server() as server:
            one, _ = connection(server.url)
            life = asyncio.create_task(one.run())
            await fact(lambda: server.attempts == 1)
            life.cancel()
            with suppress(asyncio.CancelledError):
                await life
            await fact(lambda: all(peer.transport is not None and peer.transport.is_disconnected for peer in server.peers))

    run(test)


def test_garbage_between_trades_costs_none_of_them() -> None:
    async def test() -> None:
        async with Server() as server, living(server.url) as (one, ears, life):
            await one.subscribed.wait()
            peer = server.peers[0]
            assert peer.transport is not None
            for number, garbage in enumerate([b"", b"{", b"[" * 10_000, b'{"result":' + b"[" * 10_000, b"\xff\xfe", b"x" * 10_000_000]):
                peer.send(trade(number))
                peer.transport.send(WSMsgType.TEXT, garbage)
            peer.transport.send(WSMsgType.BINARY, b"\x00" * 100)
            peer.send(trade(99))
            await fact(lambda: ears[0].trades == 7)
            assert not life.done()
            assert json.loads(ears[0].heard[-1])["data"]["t"] == 99

    run(test)


def test_an_encrypted_connection_to_a_trusted_exchange_brings_trades() -> None:
    with local_exchange("--tls", "--symbols", "1", "--rate", "1000") as exchange:
        trust = tls.trust(exchange.ca_file)
        with urlopen(f"{exchange.rest_url}{EXCHANGE.discovery().path}", context=trust) as reply:
            streams = EXCHANGE.streams(EXCHANGE.instruments(reply.read()))

        async def test() -> None:
            one, ears = connection(exchange.ws_url, streams, trust=trust)
            life = asyncio.create_task(one.run())
            await one.subscribed.wait()
            await fact(lambda: ears[0].trades > 10)
            await one.drain(5.0)
            assert (await life).reason == "drained"

        run(test)


@pytest.mark.parametrize(
    ("fault", "said"),
    [("tls_expired", "expired"), ("tls_wrong_name", "127.0.0.1"), ("tls_self_signed", "self-signed"), (None, "127.0.0.1")],
)
def test_a_certificate_that_is_not_in_order_is_refused(fault: str | None, said: str) -> None:
    """Expired; another host's; its own; of an authority that nobody named."""
    flags = ["--fault", fault] if fault else []
    with local_exchange("--tls", "--symbols", "5", *flags) as exchange:
        trust = tls.trust(exchange.ca_file if fault not in ("tls_self_signed", None) else None)

        async def test() -> Ending:
            one, _ = connection(exchange.ws_url, trust=trust)
            return await one.run()

        refusal = run(test).refusal
        assert refusal is not None
        assert refusal.trouble == Trouble.INSECURE
        assert said in refusal.reason
        assert exchange.stats()["connections"] == 0
