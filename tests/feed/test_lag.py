"""How late trades come, against what is usual: told when it lasts, told again when it is over, and never learned as a habit."""

from appliance.feed.lag import LATE_STEPS, USUAL_PARTS, USUAL_STEPS, Brought, Change, Lag

ALARM_MS = 5_000
START_MS = 1_790_000_000_000


class Clocks:
    """Steps of a second, with the lag of each leg's only connection in it; None: it brought nothing."""

    def __init__(self) -> None:
        self.now_ms = START_MS
        self.set_by_ms = 0
        self.lag = Lag[int](ALARM_MS, lambda: self.set_by_ms * 1_000_000)

    def step(self, *lags_ms: int | None, times: int = 1) -> Change[int]:
        for _ in range(times):
            self.now_ms += 1_000
            recv_ns = (self.now_ms + self.set_by_ms) * 1_000_000
            change = self.lag.step(
                {leg: Brought(leg, None if lag_ms is None else (recv_ns, self.now_ms - lag_ms)) for leg, lag_ms in enumerate(lags_ms)}
            )
        return change


def test_a_lag_that_lasts_is_told_once_and_told_when_it_is_over() -> None:
    """T28."""
    clocks = Clocks()
    clocks.step(40, 50, times=100)
    assert (clocks.lag.lag_ms, clocks.lag.usual_ms) == (40, 40)
    assert clocks.step(5_100, 5_200, times=LATE_STEPS - 1).late == frozenset()
    assert clocks.step(5_100, 5_200).late == {0, 1}
    assert clocks.lag.all_late
    assert (clocks.lag.lag_ms, clocks.lag.usual_ms) == (5_100, 40)
    assert clocks.step(1_200_000, 1_200_000, times=20).late == frozenset()
    assert clocks.step(60, 60, times=LATE_STEPS).in_time == {0, 1}
    assert not clocks.lag.all_late


def test_a_lag_never_becomes_usual_however_long_it_lasts() -> None:
    """T28: "live" for twenty minutes, and for days."""
    clocks = Clocks()
    clocks.step(40, times=10)
    clocks.step(20_000, times=3 * USUAL_STEPS * USUAL_PARTS)
    assert clocks.lag.all_late
    assert clocks.lag.usual_ms == 40


def test_a_lag_that_grows_slowly_is_found_as_well() -> None:
    """T28: a queue that fills by a few milliseconds a second."""
    clocks = Clocks()
    for second in range(3_000):
        clocks.step(40 + 3 * second)
    assert clocks.lag.all_late


def test_clocks_that_do_not_agree_are_no_lag() -> None:
    clocks = Clocks()
    assert clocks.step(-36_800, -36_700, times=100).late == frozenset()
    assert clocks.lag.usual_ms == -36_800
    assert clocks.step(-36_800 + ALARM_MS + 100, -36_800, times=LATE_STEPS).late == {0}


def test_clocks_that_drift_apart_within_an_hours_measure_are_no_lag() -> None:
    clocks = Clocks()
    for minute in range(24 * 60):
        clocks.step(minute, times=60)
        assert not clocks.lag.late


def test_a_step_of_our_own_clock_is_no_lag_in_either_direction() -> None:
    clocks = Clocks()
    clocks.step(40, times=10)
    for clocks.set_by_ms in (10_000, -10_000):
        # Stamped before the step, and looked at behind it.
        clocks.lag.step({0: Brought(0, ((clocks.now_ms + 40) * 1_000_000, clocks.now_ms))})
        assert clocks.step(40, times=3 * LATE_STEPS).late == frozenset()
        assert clocks.lag.lag_ms == clocks.lag.usual_ms == 40 + clocks.set_by_ms


def test_single_late_trades_and_a_burst_are_no_lag() -> None:
    clocks = Clocks()
    clocks.step(40, times=10)
    for _ in range(50):
        assert clocks.step(60_000, times=LATE_STEPS - 1).late == frozenset()
        clocks.step(40)


def test_a_silence_judges_nothing() -> None:
    clocks = Clocks()
    clocks.step(40, 40, times=10)
    assert clocks.step(None, None, times=10_000).late == frozenset()
    assert clocks.lag.usual_ms == 40
    clocks.step(9_000, 9_000, times=LATE_STEPS)
    clocks.step(None, None, times=10_000)
    assert clocks.lag.all_late


def test_one_connection_that_lags_behind_the_other_is_to_go() -> None:
    clocks = Clocks()
    clocks.step(40, 40, times=10)
    for _ in range(LATE_STEPS - 1):
        assert not clocks.step(40, 6_000).behind_ms
    found = clocks.step(40, 6_000)
    assert dict(found.behind_ms) == {1: 5_960}
    assert found.late == {1}
    assert not clocks.lag.all_late


def test_connections_that_lag_alike_are_not_to_go() -> None:
    clocks = Clocks()
    clocks.step(40, 40, times=10)
    for second in range(60):
        assert not clocks.step(8_000 + second, 9_000 + 2 * second).behind_ms
    assert clocks.lag.late == {0, 1}


def test_a_leg_in_handover_lags_no_more_than_its_better_connection() -> None:
    lag = Lag[str](ALARM_MS, lambda: 0)
    at_ns = START_MS * 1_000_000
    brought = {"old": Brought(0, (at_ns, START_MS - 9_000)), "other": Brought(1, (at_ns, START_MS - 40))}
    for _ in range(LATE_STEPS):
        lag.step(brought)
    assert lag.late == {0}
    for _ in range(LATE_STEPS):
        change = lag.step(brought | {"new": Brought(0, (at_ns, START_MS - 50))})
    assert change.in_time == {0}
    assert lag.by_leg() == {0: 50, 1: 40}


def test_a_connection_that_is_lost_while_it_lags_is_not_in_time_for_that() -> None:
    clocks = Clocks()
    clocks.step(40, times=10)
    clocks.step(9_000, times=LATE_STEPS)
    assert clocks.lag.step({}).in_time == frozenset()
    assert clocks.step(None).in_time == frozenset()
    assert clocks.step(40, times=LATE_STEPS).in_time == {0}
