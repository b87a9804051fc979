"""What may still be asked of the exchange, by a clock of our own, across restarts (T8)."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.exchanges.exchange import Refusal, Rules, Trouble
from appliance.feed.backoff import Backoff
from appliance.feed.limits import Door, Limits, unstepped
from appliance.feed.messages import MessageBudget

RULES = Rules(connects=5, connects_window_s=300.0, messages_per_s=5, weight_per_minute=100)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def restarted(directory: Path, clock: Clock) -> Limits:
    return Limits(directory, RULES, clock)


def test_a_ban_outlives_the_process_and_ends_when_it_was_said_to(tmp_path: Path, clock: Clock) -> None:
    restarted(tmp_path, clock).ban(Door.REST, 120.0)
    clock.now_s += 119.0
    limits = restarted(tmp_path, clock)
    assert limits.banned_s(Door.REST) == pytest.approx(1.0)
    assert limits.weight_delay_s(20) == pytest.approx(1.0)
    assert limits.banned_s(Door.WEBSOCKET) == 0.0
    clock.now_s += 1.0
    assert restarted(tmp_path, clock).weight_delay_s(20) == 0.0


def test_a_shorter_ban_does_not_end_a_longer_one(tmp_path: Path, clock: Clock) -> None:
    limits = restarted(tmp_path, clock)
    limits.ban(Door.WEBSOCKET, 600.0)
    limits.ban(Door.WEBSOCKET, 5.0)
    assert limits.connect_delay_s() == pytest.approx(600.0)


def test_restarts_do_not_empty_the_window_of_connects(tmp_path: Path, clock: Clock) -> None:
    for _ in range(RULES.connects):
        limits = restarted(tmp_path, clock)
        assert limits.connect_delay_s() == 0.0
        limits.count_connect()
        clock.now_s += 1.0
    assert restarted(tmp_path, clock).connect_delay_s() == pytest.approx(295.0)
    clock.now_s += 295.0
    assert restarted(tmp_path, clock).connect_delay_s() == 0.0


def test_never_more_connects_in_a_window_than_allowed_whatever_the_rhythm(tmp_path: Path, clock: Clock) -> None:
    limits, made, chance = restarted(tmp_path, clock), [], random.Random(7)
    for _ in range(200):
        clock.now_s += chance.choice([0.0, 0.1, 5.0, 70.0]) + limits.connect_delay_s()
        limits.count_connect()
        made.append(clock.now_s)
    for at_s in made:
        assert sum(at_s <= other_s < at_s + RULES.connects_window_s for other_s in made) <= RULES.connects


def test_restarts_do_not_empty_the_window_of_weights(tmp_path: Path, clock: Clock) -> None:
    limits = restarted(tmp_path, clock)
    for _ in range(4):
        limits.count_weight(20)
        clock.now_s += 2.0
    limits = restarted(tmp_path, clock)
    assert limits.weight_delay_s(20) == 0.0
    assert limits.weight_delay_s(40) == pytest.approx(52.0)  # the first of them has to leave
    assert limits.weight_delay_s(60) == pytest.approx(54.0)


def test_a_clock_set_back_does_not_lock_us_out(tmp_path: Path, clock: Clock) -> None:
    limits = restarted(tmp_path, clock)
    for _ in range(RULES.connects):
        limits.count_connect()
    clock.now_s -= 10 * 24 * 3600
    assert restarted(tmp_path, clock).connect_delay_s() == 0.0


def test_no_ban_is_longer_than_the_exchange_hands_out(tmp_path: Path, clock: Clock) -> None:
    limits = restarted(tmp_path, clock)
    limits.ban(Door.REST, 1e12)
    assert limits.banned_s(Door.REST) == 3 * 24 * 3600


@pytest.mark.parametrize("text", ["", "{", "[]", '{"banned_until_s":{"nowhere":1},"connects_s":[],"weights":[]}', '{"connects_s":7}'])
def test_a_damaged_file_does_not_stop_us(tmp_path: Path, clock: Clock, text: str) -> None:
    restarted(tmp_path, clock).count_connect()
    next(tmp_path.iterdir()).write_text(text)
    limits = restarted(tmp_path, clock)
    assert limits.connect_delay_s() == 0.0
    limits.ban(Door.REST, 60.0)
    assert restarted(tmp_path, clock).banned_s(Door.REST) == pytest.approx(60.0)


def test_a_directory_that_cannot_be_written_does_not_stop_us(tmp_path: Path, clock: Clock) -> None:
    limits = Limits(tmp_path / "gone", RULES, clock)
    limits.ban(Door.REST, 60.0)
    assert limits.banned_s(Door.REST) == pytest.approx(60.0)


def test_never_more_connections_are_open_than_one_address_may_have(tmp_path: Path, clock: Clock) -> None:
    limits = Limits(tmp_path, replace(RULES, connects=1_000, connections=4), clock)
    for _ in range(3):  # the fourth is the REST worker's
        assert limits.connect_delay_s() == 0.0
        limits.count_connect()
    assert limits.full
    assert limits.connect_delay_s() > 0.0
    limits.count_end()
    assert limits.connect_delay_s() == 0.0


def test_requests_leave_room_for_pongs_and_pongs_use_it(clock: Clock) -> None:
    """T29: pongs are counted by the exchange as all else."""
    budget = MessageBudget(5, clock)
    for _ in range(3):
        assert budget.request_delay_s() == 0.0
        budget.count()
    assert budget.request_delay_s() > 0.0
    for _ in range(2):
        assert budget.pong_delay_s() == 0.0
        budget.count()
    assert budget.pong_delay_s() > 0.0


def test_never_more_than_five_messages_in_any_second(clock: Clock) -> None:
    budget, sent, chance = MessageBudget(5, clock), [], random.Random(11)
    for _ in range(500):
        clock.now_s += chance.random() * 0.3
        if chance.random() < 0.5:
            clock.now_s += budget.request_delay_s()
        elif budget.pong_delay_s() > 0:
            continue
        budget.count()
        sent.append(clock.now_s)
    assert len(sent) > 250
    for at_s in sent:
        assert sum(at_s <= other_s < at_s + 1.0 for other_s in sent) <= 5


def test_the_first_retry_comes_within_half_a_second_and_losses_double_to_five_seconds() -> None:
    """T27: no storm."""
    backoff = Backoff(lambda: 1.0)
    assert [backoff.after_loss(1.0) for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert backoff.after_loss(60.0) == 0.5


def test_refusals_double_to_a_minute_and_never_end() -> None:
    """T4, T30."""
    backoff = Backoff(lambda: 1.0)
    away = Refusal(Trouble.AWAY, "")
    assert [backoff.after_refusal(away) for _ in range(10)] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert 0 < max(backoff.after_refusal(away) for _ in range(10_000)) <= 60.0
    assert backoff.after_loss(1.0) == 5.0


def test_waits_are_spread() -> None:
    waits = {Backoff(random.Random(seed).random).after_loss(1.0) for seed in range(20)}
    assert len(waits) == 20
    assert all(0.25 <= wait <= 0.5 for wait in waits)


@pytest.mark.parametrize("trouble", [Trouble.FORBIDDEN, Trouble.MOVED, Trouble.INSECURE, Trouble.BLOCKED])
def test_what_haste_cannot_mend_is_asked_slowly_from_the_first_time(trouble: Trouble) -> None:
    assert Backoff(lambda: 0.0).after_refusal(Refusal(trouble, "")) >= 45.0


def test_a_ban_is_waited_out_in_full() -> None:
    assert Backoff(lambda: 0.0).after_refusal(Refusal(Trouble.BANNED, "", 7_200.0)) > 7_200.0


@pytest.mark.parametrize("step_s", [3600.0, -3600.0])
def test_a_clock_that_is_set_while_we_run_neither_ends_a_ban_nor_prolongs_it(tmp_path: Path, clock: Clock, step_s: float) -> None:
    """T8: an hour forward would have us ask while banned; an hour back would keep us away for an hour more."""
    elapsed = Clock()
    limits = Limits(tmp_path, RULES, unstepped(clock, elapsed))
    limits.ban(Door.REST, 120.0)
    for _ in range(RULES.connects):
        limits.count_connect()
    limits.count_weight(RULES.weight_per_minute)
    clock.now_s += step_s
    assert limits.banned_s(Door.REST) == pytest.approx(120.0)
    assert limits.connect_delay_s() == pytest.approx(RULES.connects_window_s)
    elapsed.now_s += 60.0
    assert limits.weight_delay_s(1) == pytest.approx(60.0)
    elapsed.now_s += 60.0
    assert limits.weight_delay_s(1) == 0.0
