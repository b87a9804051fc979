"""The legs of a chunk, over real sockets, with a clock and waits of the test's own."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import ExchangeRefused
from appliance.exchanges.exchange import Rules
from appliance.feed.connection import Connection
from appliance.feed.legs import HANDOVER_S_MAX, HANDOVER_STEP_S, STAGGER_S
from appliance.feed.limits import Door
from tests.feed.legs_of_a_test import SHUTDOWN, STREAMS, alive, chunk
from tests.feed.scripted import Ear, Peer, Server, fact, run, trade, trades


def test_legs_start_staggered_and_each_brings_every_trade(tmp_path: Path) -> None:
    """T10."""

    async def test() -> None:
        async with Server() as server, chunk(server, tmp_path, legs=3) as (one, _):
            await fact(lambda: len(one.told("subscribed")) == 3)
            assert {fields["leg"] for fields in one.told("connected")} == {0, 1, 2}
            assert sorted(one.time.waits_s) == [0.0, STAGGER_S, 2 * STAGGER_S]
            for peer in server.peers:
                for frame in trades(range(10)):
                    peer.send(frame)
            await fact(lambda: [ear.trades for ear in one.ears] == [10, 10, 10])

    run(test)


def test_a_lost_leg_comes_back_within_half_a_second_and_the_other_is_untouched(tmp_path: Path) -> None:
    async def test() -> None:
        async with Server() as server, chunk(server, tmp_path) as (one, _):
            await fact(lambda: len(one.told("subscribed")) == 2)
            one.time.waits_s.clear()
            transport = server.peers[0].transport
            assert transport is not None
            transport.disconnect(graceful=False)
            await fact(lambda: len(one.told("subscribed")) == 3)
            assert one.time.waits_s[0] <= 0.5
            assert len(one.told("lost")) == 1
            assert len(alive(server)) == 2
            assert server.peers[1] in alive(server)

    run(test)


def test_connections_that_are_soon_lost_are_retried_for_ever_and_never_in_a_storm(tmp_path: Path) -> None:
    """T4, T27, T30."""

    async def test() -> None:
        async with Server() as server:
            server.greet = lambda peer: peer.transport.disconnect()  # type: ignore[union-attr]
            async with chunk(server, tmp_path, legs=1) as (one, life):
                await fact(lambda: server.attempts >= 30)
                assert one.time.waits_s[1:6] == pytest.approx([0.475, 0.95, 1.9, 3.8, 4.75])
                assert set(one.time.waits_s[6:]) == {4.75}
                assert not life.done()
                server.greet = lambda peer: None
                await one.legs.subscribed.wait()

    run(test)


def test_an_exchange_that_is_away_is_waited_out(tmp_path: Path) -> None:
    async def test() -> None:
        async with Server() as server:
            server.refuse = (503, b"<html>maintenance</html>", {})
            async with chunk(server, tmp_path, legs=1) as (one, _):
                await fact(lambda: server.attempts >= 15)
                assert max(one.time.waits_s) == pytest.approx(57.0)
                assert one.told("refused")[0]["trouble"] == "away"
                server.refuse = None
                await one.legs.subscribed.wait()

    run(test)


def test_a_ban_is_kept_on_file_and_waited_out_by_every_leg_and_by_a_new_process(tmp_path: Path) -> None:
    """T8."""

    async def test() -> None:
        async with Server() as server:
            server.refuse = (418, b"", {"Retry-After": "600"})
            async with chunk(server, tmp_path) as (one, _):
                begun_s = one.time.now_s
                await fact(lambda: server.attempts >= 3)
                assert one.time.now_s - begun_s >= 600.0
            server.refuse = None
            async with chunk(server, tmp_path, legs=1) as (two, _):
                assert two.time.now_s == begun_s
                await two.legs.subscribed.wait()
                assert two.time.now_s - begun_s >= 600.0
                assert two.limits.banned_s(Door.REST) == 0.0

    run(test)


def test_the_budget_of_connects_is_shared_by_all_legs(tmp_path: Path) -> None:
    rules = Rules(connects=10, connects_window_s=300.0, messages_per_s=5, weight_per_minute=6_000)

    async def test() -> None:
        async with Server() as server:
            server.greet = lambda peer: peer.transport.disconnect()  # type: ignore[union-attr]
            async with chunk(server, tmp_path, legs=4, rules=rules) as (one, _):
                begun_s = one.time.now_s
                await fact(lambda: server.attempts >= 31)
                assert one.time.now_s - begun_s >= 3 * 300.0 - 60.0

    run(test)


def test_451_is_the_end_only_before_anything_was_delivered(tmp_path: Path) -> None:
    async def test(fatal: bool) -> None:
        async with Server() as server:
            server.refuse = (451, b'{"code":0,"msg":"Service unavailable from a restricted location"}', {})
            async with chunk(server, tmp_path, legs=1, fatal=fatal) as (one, life):
                if fatal:
                    with pytest.raises(BaseExceptionGroup) as caught:
                        await life
                    refused = caught.value.split(ExchangeRefused)[0]
                    assert refused is not None
                    assert "restricted location" in str(_leaf(refused))
                else:
                    await fact(lambda: server.attempts >= 3)
                    assert min(one.time.waits_s[1:]) >= 200.0

    run(lambda: test(True))
    run(lambda: test(False))


def _leaf(error: BaseException) -> BaseException:
    return _leaf(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def test_an_announced_end_is_met_with_a_successor_before_the_old_connection_goes(tmp_path: Path) -> None:
    """T7, T9: nothing is lost, whatever the lead time."""

    async def test() -> None:
        async with Server() as server, chunk(server, tmp_path, legs=1) as (one, _):
            await one.legs.subscribed.wait()
            old = server.peers[0]
            held: list[dict[str, Any]] = []
            server.answer = lambda peer, request: held.append(request)  # the successor is not subscribed yet
            old.send(SHUTDOWN)
            await fact(lambda: len(server.peers) == 2 and held)
            assert len(alive(server)) == 2
            for number in range(5):
                old.send(trade(number))
            await fact(lambda: one.ears[0].trades == 5)
            server.usual_answer(server.peers[1], held[0])
            await fact(lambda: alive(server) == [server.peers[1]] and one.told("closed"))
            assert one.told("leaving") == [{"leg": 0, "reason": "the exchange announced the end of this connection"}]
            assert one.told("closed")[0]["reason"] == "drained"
            assert len(server.peers) == 2

    run(test)


def test_an_exchange_that_announces_the_end_of_every_connection_is_not_stormed(tmp_path: Path) -> None:
    """T7, T27."""

    async def test() -> None:
        async with Server() as server, chunk(server, tmp_path, legs=1) as (one, _):
            server.greet = lambda peer: peer.send(SHUTDOWN)
            await fact(lambda: len(one.told("leaving")) >= 8)
            waits_s = [wait_s for wait_s in one.time.waits_s if wait_s >= 0.25]
            assert len(waits_s) >= len(one.told("leaving")) - 2
            assert max(waits_s) > 2.0

    run(test)


def test_a_successor_that_does_not_deliver_does_not_end_the_one_that_does(tmp_path: Path) -> None:
    """T9."""

    async def test() -> None:
        async with Server() as server, chunk(server, tmp_path, legs=1) as (one, _):
            await one.legs.subscribed.wait()
            old = server.peers[0]
            old.send(SHUTDOWN)
            for number in range(300):
                old.send(trade(number))
                await asyncio.sleep(0.001)
            assert old in alive(server)
            assert len(one.told("subscribed")) == 2
            server.peers[1].send(trade(300))
            await fact(lambda: alive(server) == [server.peers[1]])

    run(test)


def test_the_old_connection_stays_until_the_new_one_has_reached_it_on_every_instrument_that_traded(tmp_path: Path) -> None:
    """T9, with one leg: what the new one has brought of one instrument proves nothing of another."""

    async def test() -> None:
        async with Server() as server, chunk(server, tmp_path, legs=1) as (one, _):
            await one.legs.subscribed.wait()
            old = server.peers[0]
            old.send(trade(10, "BTCUSDT"))
            old.send(trade(10, "ETHUSDT"))
            await fact(lambda: one.ears[0].trades == 2)
            old.send(SHUTDOWN)
            await fact(lambda: len(one.told("subscribed")) == 2)
            new = server.peers[1]
            old.send(trade(11, "BTCUSDT"))
            old.send(trade(11, "ETHUSDT"))
            new.send(trade(11, "BTCUSDT"))
            await fact(lambda: one.ears[0].trades == 4 and one.ears[1].trades == 1)
            seen = one.time.steps
            await fact(lambda: one.time.steps > seen + 100)
            assert old in alive(server)
            new.send(trade(12, "ETHUSDT"))  # 11 is the old one's, which has it: so the new one has come as far
            await fact(lambda: alive(server) == [new])
            assert [told["leg"] for told in one.told("handover")] == [0]

    run(test)


def test_the_old_connection_stays_while_it_is_behind_what_the_new_one_began_with(tmp_path: Path) -> None:
    """The new one begins at 15; 11 to 14 are on their way to the old one."""

    async def test() -> None:
        async with Server() as server, chunk(server, tmp_path, legs=1) as (one, _):
            await one.legs.subscribed.wait()
            old = server.peers[0]
            old.send(trade(10))
            await fact(lambda: one.ears[0].trades == 1)
            old.send(SHUTDOWN)
            await fact(lambda: len(server.peers) == 2)
            new = server.peers[1]
            new.send(trade(15))
            await fact(lambda: one.ears[1].trades == 1 and len(one.told("subscribed")) == 2)
            seen = one.time.steps
            await fact(lambda: one.time.steps > seen + 50)
            assert old in alive(server)
            for number in range(11, 15):
                old.send(trade(number))
            await fact(lambda: alive(server) == [new])
            assert one.ears[0].trades == 5

    run(test)


def test_a_quiet_chunk_hands_over_when_the_subscriptions_are_listed_and_a_ping_is_answered(tmp_path: Path) -> None:
    """T33."""

    async def test() -> None:
        async with Server() as server, chunk(server, tmp_path, legs=1) as (one, _):
            await one.legs.subscribed.wait()
            server.peers[0].send(SHUTDOWN)
            await fact(lambda: one.told("closed"))
            assert alive(server) == [server.peers[1]]
            assert server.peers[1].of_type(0x9) == [b"mdc"]

    run(test)


def test_a_successor_that_never_comes_as_far_is_itself_replaced_and_the_old_one_stays(tmp_path: Path) -> None:
    async def test() -> None:
        async with Server() as server, chunk(server, tmp_path, legs=1) as (one, _):
            await one.legs.subscribed.wait()
            old = server.peers[0]
            old.send(SHUTDOWN)
            await fact(lambda: len(one.told("subscribed")) == 2)
            old.send(trade(1))
            await fact(lambda: len(one.told("subscribed")) == 3)
            assert one.time.steps * HANDOVER_STEP_S >= HANDOVER_S_MAX
            assert "did not take over" in one.told("lost")[0]["reason"]
            assert alive(server) == [old, server.peers[2]]
            old.send(trade(2))
            server.peers[2].send(trade(2))
            await fact(lambda: alive(server) == [server.peers[2]])

    run(test)


def test_no_two_legs_roll_over_together_and_each_has_its_successor_before_it_goes(tmp_path: Path) -> None:
    """T10."""

    async def test() -> None:
        open_at_leaving: list[int] = []
        async with Server() as server, chunk(server, tmp_path, legs=3, rollover_s=3600.0) as (one, _):
            tell = one.legs.tell

            def watched(event: str, **fields: Any) -> None:
                tell(event, **fields)
                if event == "leaving":
                    assert len(one.told("leaving")) - len(one.told("closed")) == 1
                if event == "closed":
                    open_at_leaving.append(len(alive(server)))

            one.legs.tell = watched
            await fact(lambda: len(one.told("closed")) >= 9)
            assert {told["leg"] for told in one.told("leaving")} == {0, 1, 2}
            assert all("rollover" in told["reason"] for told in one.told("leaving"))
            assert min(open_at_leaving) >= 3
            assert one.told("lost") == []

    run(test)


def test_an_error_of_our_own_in_one_leg_does_not_end_the_other(tmp_path: Path) -> None:
    async def test() -> None:
        async with Server() as server, chunk(server, tmp_path) as (one, life):
            await fact(lambda: len(one.told("subscribed")) == 2)

            def broken(control: Connection) -> Ear:
                raise RuntimeError("planted")

            listen, one.listen = one.listen, broken  # type: ignore[method-assign]
            transport = server.peers[0].transport
            assert transport is not None
            transport.disconnect()
            await fact(lambda: server.attempts >= 4)
            one.listen = listen  # type: ignore[method-assign]
            await fact(lambda: len(one.told("subscribed")) == 3)
            assert server.peers[1] in alive(server)
            assert not life.done()

    run(test)


def test_new_streams_go_to_the_living_and_to_those_that_come_later(tmp_path: Path) -> None:
    async def test() -> None:
        async with Server() as server, chunk(server, tmp_path) as (one, _):
            await fact(lambda: len(one.told("subscribed")) == 2)
            one.legs.subscribe(["newusdt@trade"])
            await fact(lambda: all("newusdt@trade" in peer.streams for peer in server.peers))
            transport = server.peers[0].transport
            assert transport is not None
            transport.disconnect()
            await fact(lambda: len(server.peers) == 3)
            assert server.peers[2].streams == [*STREAMS, "newusdt@trade"]

    run(test)


def test_a_drain_takes_what_every_leg_still_has_and_opens_none_again(tmp_path: Path) -> None:
    async def test() -> None:
        async with Server() as server, chunk(server, tmp_path) as (one, life):
            await fact(lambda: len(one.told("subscribed")) == 2)

            def last(peer: Peer) -> None:
                for frame in trades(range(500)):
                    peer.send(frame)

            server.before_close = last
            await one.legs.drain(5.0)
            assert [json.loads(ear.heard[-1])["data"]["t"] for ear in one.ears] == [499, 499]
            await fact(lambda: len(one.told("closed")) == 2)
            assert server.attempts == 2
            assert alive(server) == []
            assert not life.done()  # the watch; the collector ends it

    run(test)
