"""Silence told apart: one connection, one instrument, a whole chunk; by the others, by its own rhythm, by REST."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.clock import unix_ns
from appliance.feed.lag import LATE_STEPS
from appliance.feed.watch import (
    ASKED_MAX,
    LAG_IDS,
    LAG_STEPS,
    LAGGING_AGAIN_S,
    MUTE_S,
    MUTE_TRADES,
    RHYTHM_IDS,
    RHYTHM_INTERVALS,
    RHYTHM_STEPS,
    SILENT_S_MIN,
    UNREACHABLE_S,
    Rhythm,
)
from tests.feed.legs_of_a_test import Chunk, alive, chunk
from tests.feed.scripted import Peer, Server, fact, run, trade, trades


async def send(one: Chunk, peer: Peer, number: int, symbol: str = "BTCUSDT") -> None:
    """One trade, and wait until it was heard."""
    heard = sum(ear.trades for ear in one.ears)
    peer.send(trade(number, symbol))
    await fact(lambda: sum(ear.trades for ear in one.ears) > heard)


async def busy(one: Chunk, peers: list[Peer], seconds: int) -> int:
    """A trade a second on each, so that the rhythm is known; the last id."""
    for number in range(seconds):
        for peer in peers:
            await send(one, peer, number)
        await one.look()
    return seconds - 1


def test_a_leg_that_goes_mute_in_a_busy_chunk_is_replaced_within_seconds(tmp_path: Path) -> None:
    """T6: its pings are answered, its streams are listed, nothing comes."""

    async def test() -> None:
        async with Server() as server, chunk(server, tmp_path) as (one, _):
            await fact(lambda: len(one.told("subscribed")) == 2)
            await send(one, server.peers[0], 0)
            await one.look(2)
            for frame in trades(range(MUTE_TRADES)):
                server.peers[1].send(frame)
            await fact(lambda: max(ear.trades for ear in one.ears) == MUTE_TRADES)
            await one.look(int(MUTE_S) - 2)
            assert one.told("leaving") == []  # TCP may still send it again
            await one.look(3)
            await fact(lambda: len(one.told("subscribed")) == 3)
            (mute,) = one.told("mute")
            assert (mute["leg"], mute["verdict"], mute["others"]) == (0, "dead_socket", MUTE_TRADES)
            assert mute["silent_ms"] <= 2_000 + MUTE_S * 1_000
            assert "mute" in one.told("leaving")[0]["reason"]
            server.peers[2].send(trade(MUTE_TRADES))
            await fact(lambda: one.told("closed"))
            assert alive(server) == server.peers[1:]

    run(test)


def test_a_leg_that_was_never_heard_at_all_has_no_subscription(tmp_path: Path) -> None:
    """T5, T6."""

    async def test() -> None:
        async with Server() as server, chunk(server, tmp_path) as (one, _):
            await fact(lambda: len(one.told("subscribed")) == 2)
            await one.look(1)
            for number in range(30):
                await send(one, server.peers[1], number)
                await one.look()
            assert one.told("mute")[0]["verdict"] == "dead_subscription"

    run(test)


def test_a_quiet_chunk_takes_as_many_trades_to_find_a_mute_leg(tmp_path: Path) -> None:
    """T33: a few trades that one leg has and the other not yet prove nothing."""

    async def test() -> None:
        async with Server() as server, chunk(server, tmp_path) as (one, _):
            await fact(lambda: len(one.told("subscribed")) == 2)
            await one.look(1)
            for number in range(MUTE_TRADES - 1):
                await send(one, server.peers[1], number)
                await one.look(10)
            assert one.told("mute") == []
            await send(one, server.peers[1], MUTE_TRADES)
            await one.look()
            assert len(one.told("mute")) == 1

    run(test)


def test_a_chunk_that_was_never_heard_is_told_and_left_alone(tmp_path: Path) -> None:
    """T5, T33: nothing proves that anything is wrong, yet streams that have moved look just so."""

    async def test() -> None:
        async with Server() as server, chunk(server, tmp_path) as (one, _):
            await fact(lambda: len(one.told("subscribed")) == 2)
            await one.look(299)
            assert one.told("silent") == []
            await one.look(2)
            await fact(lambda: one.told("silent"))
            (silent,) = one.told("silent")
            assert (silent["verdict"], silent["pings_answered"], silent["usual_ms"]) == ("unknown", 2, None)
            assert one.told("deaf")  # so REST is asked
            assert one.told("leaving") == one.told("lost") == []
            assert len(server.peers) == 2

    run(test)


def test_a_chunk_that_was_busy_and_falls_silent_is_found_within_seconds_and_gets_new_connections(tmp_path: Path) -> None:
    async def test() -> None:
        async with Server() as server, chunk(server, tmp_path) as (one, _):
            await fact(lambda: len(one.told("subscribed")) == 2)
            last = await busy(one, server.peers[:2], 60)
            await one.look(int(SILENT_S_MIN))
            assert one.told("silent") == []
            await one.look(25)
            await fact(lambda: len(one.told("leaving")) == 2)
            silent = one.told("silent")[0]
            assert (silent["verdict"], silent["pings_answered"]) == ("unknown", 2)
            assert silent["silent_ms"] <= 31_000
            assert one.told("deaf")
            await fact(lambda: len(one.told("closed")) == 2)  # as quiet as their successors
            assert one.told("lost") == []
            await send(one, alive(server)[0], last + 1)
            await one.look(2)
            assert one.told("heard_again") == [{"verdict": "quiet_market"}]

    run(test)


def test_trades_that_only_rest_has_prove_that_the_streams_are_dead(tmp_path: Path) -> None:
    """T5."""

    async def test() -> None:
        async with Server() as server, chunk(server, tmp_path) as (one, _):
            await fact(lambda: len(one.told("subscribed")) == 2)
            one.newest_ms = unix_ns() // 1_000_000 - 1_000_000
            await one.look(301)
            await fact(lambda: one.told("silent"))
            one.newest_ms -= 1_000_000  # an old trade of a quiet instrument says nothing
            await one.look(10)
            assert len(one.told("silent")) == 1
            one.newest_ms = unix_ns() // 1_000_000 + 5_000
            await one.look(2)
            await fact(lambda: len(one.told("silent")) == 2)
            assert one.told("silent")[1]["verdict"] == "dead_streams"
            await fact(lambda: len(one.told("leaving")) == 2)
            await send(one, server.peers[-1], 1)
            await one.look(2)
            assert one.told("heard_again") == [{"verdict": "dead_streams"}]

    run(test)


def test_nobody_there_is_told_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with Server() as server, chunk(server, tmp_path) as (one, _):
            await fact(lambda: len(one.told("subscribed")) == 2)
            server.refuse = (503, b"", {})
            for peer in alive(server):
                assert peer.transport is not None
                peer.transport.disconnect()
            await fact(lambda: len(one.told("lost")) == 2)
            await one.look(3 * int(UNREACHABLE_S))
            assert [told["verdict"] for told in one.told("unreachable")] == ["dead_exchange"]
            assert one.told("silent") == []

    run(test)


def test_an_instrument_that_one_leg_does_not_bring_is_asked_for_again_and_then_its_connection_replaced(tmp_path: Path) -> None:
    """T5, T16: acknowledged, listed, never heard, while all else is."""

    async def test() -> None:
        async with Server() as server, chunk(server, tmp_path) as (one, _):
            await fact(lambda: len(one.told("subscribed")) == 2)
            deaf, whole = server.peers
            await send(one, whole, 0, "ETHUSDT")
            await one.look(2)
            number = 0

            async def second() -> None:
                nonlocal number
                number += 1
                await send(one, deaf, number)
                await send(one, whole, number)
                await send(one, whole, number, "ETHUSDT")
                await one.look()

            for _ in range(LAG_STEPS + LAG_IDS):
                await second()
            (silent,) = one.told("stream_silent")
            assert silent == {"leg": 0, "assets": ["ETHUSDT"], "instruments": 1, "asked_before": 0, "verdict": "dead_subscription"}
            await fact(lambda: [request["params"] for request in deaf.requests("SUBSCRIBE")] == [["ethusdt@trade"]])
            for _ in range(ASKED_MAX * (LAG_STEPS + LAG_IDS)):
                await second()
            await fact(lambda: one.told("leaving"))
            assert "dead subscription: ETHUSDT" in one.told("leaving")[0]["reason"]
            assert one.told("mute") == []

    run(test)


@pytest.mark.parametrize("ended", [True, False])
def test_an_instrument_that_trades_no_more_is_not_asked_for_again(tmp_path: Path, ended: bool) -> None:
    async def test() -> None:
        async with Server() as server, chunk(server, tmp_path, legs=1) as (one, _):
            await fact(lambda: len(one.told("subscribed")) == 1)
            one.ended = {1} if ended else set()
            for number in range(2):
                await send(one, server.peers[0], number * RHYTHM_IDS, "ETHUSDT")
                await one.look()
            for number in range(RHYTHM_STEPS + RHYTHM_INTERVALS):
                await send(one, server.peers[0], number)
                await one.look()
            assert [told["assets"] for told in one.told("stream_silent")] == ([] if ended else [["ETHUSDT"]])

    run(test)


def test_an_instrument_that_is_quiet_on_all_legs_is_nobodys_fault(tmp_path: Path) -> None:
    """T33."""

    async def test() -> None:
        async with Server() as server, chunk(server, tmp_path) as (one, _):
            await fact(lambda: len(one.told("subscribed")) == 2)
            for peer in server.peers:
                await send(one, peer, 0, "ETHUSDT")
            await busy(one, server.peers[:2], 100)
            assert one.told("stream_silent") == one.told("leaving") == one.told("mute") == []

    run(test)


@pytest.mark.parametrize("per_s", [0.02, 0.2, 2.0, 50.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_market_of_any_rate_is_not_taken_for_dead_in_a_week(per_s: float, seed: int) -> None:
    """T33: arrivals at random, at a rate that swings between a third of its mean and three times that."""
    chance = random.Random(seed)
    rhythm = Rhythm()
    told = 0
    for second in range(7 * 24 * 3_600 if per_s < 1 else 24 * 3_600):
        swing = 3.0 ** (1 - 2 * (second // 3_600 % 2))
        rhythm.step(int(chance.random() < per_s * swing) if per_s * swing < 1 else int(per_s * swing))
        told += rhythm.silent_s == rhythm.limit_s
    assert told == 0, seed


async def seconds(one: Chunk, peers: list[Peer], lags_ms: list[int], count: int) -> None:
    """So many, in each of which every connection that lives brings a trade, so late."""
    for _ in range(count):
        number = max(ear.trades for ear in one.ears) + 1
        now_ns = unix_ns()
        for ear, peer, lag_ms in zip(one.ears, peers, lags_ms, strict=True):
            if ear.control.is_open:
                ear.last = (now_ns, now_ns // 1_000_000 - lag_ms)
                await send(one, peer, number)
        await one.look()


def test_a_connection_that_lags_behind_the_other_is_told_and_replaced(tmp_path: Path) -> None:
    """T28."""

    async def test() -> None:
        async with Server() as server, chunk(server, tmp_path) as (one, _):
            await fact(lambda: len(one.told("subscribed")) == 2)
            await seconds(one, server.peers, [40, 40], 5)
            await seconds(one, server.peers, [40, 9_000], LATE_STEPS)
            (lagging,) = one.told("lagging")
            assert lagging["leg"] == 1
            assert lagging["lag_ms"] == pytest.approx(9_000, abs=2)
            assert lagging["usual_ms"] == pytest.approx(40, abs=2)
            await fact(lambda: one.told("leaving"))
            assert [told["leg"] for told in one.told("leaving")] == [1]
            assert "lagging" in one.told("leaving")[0]["reason"]
            await fact(lambda: one.told("closed"))
            assert one.told("caught_up") == []
            await seconds(one, server.peers, [40, 9_000, 45], LATE_STEPS)
            (caught_up,) = one.told("caught_up")
            assert "leg" not in caught_up
            await seconds(one, server.peers, [40, 9_000, 45], 2 * LATE_STEPS)
            assert len(one.told("lagging")) == len(one.told("leaving")) == 1

    run(test)


def test_a_lag_of_all_connections_is_told_again_and_replaces_none(tmp_path: Path) -> None:
    """T28: the exchange, the way to it, or ourselves."""

    async def test() -> None:
        async with Server() as server, chunk(server, tmp_path) as (one, _):
            await fact(lambda: len(one.told("subscribed")) == 2)
            await seconds(one, server.peers, [40, 40], 5)
            await seconds(one, server.peers, [9_000, 9_500], LATE_STEPS)
            (lagging,) = one.told("lagging")
            assert "leg" not in lagging
            await seconds(one, server.peers, [9_000, 9_500], int(LAGGING_AGAIN_S) + 1)
            assert len(one.told("lagging")) == 2
            await seconds(one, server.peers, [50, 60], LATE_STEPS)
            assert len(one.told("caught_up")) == 1
            assert one.told("leaving") == []

    run(test)


def test_a_leg_that_always_lags_is_replaced_once_a_minute_and_no_more(tmp_path: Path) -> None:
    async def test() -> None:
        async with Server() as server, chunk(server, tmp_path) as (one, _):
            await fact(lambda: len(one.told("subscribed")) == 2)
            await seconds(one, server.peers, [40, 40], 5)
            await seconds(one, server.peers, [40, 9_000], LATE_STEPS)
            await fact(lambda: one.told("closed"))
            await seconds(one, server.peers, [40, 9_000, 9_000], int(LAGGING_AGAIN_S) - 5)
            assert len(one.told("leaving")) == 1
            while len(one.told("leaving")) == 1:
                await seconds(one, server.peers, [40, 9_000, 9_000], 1)
            assert one.ears[0].trades >= LAGGING_AGAIN_S

    run(test)


def test_the_limit_follows_the_chunk(tmp_path: Path) -> None:
    def limit_s(step: Callable[[int], int], seconds: int) -> float:
        rhythm = Rhythm()
        for second in range(seconds):
            rhythm.step(step(second))
        return rhythm.limit_s

    assert limit_s(lambda second: 100, 60) == SILENT_S_MIN
    assert 100 < limit_s(lambda second: second % 10 == 0, 3_600) <= 400
    assert limit_s(lambda second: 0, 60) == 300.0
    assert limit_s(lambda second: second == 30, 60) == 3_600.0
