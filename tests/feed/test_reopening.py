"""Ids that are missing again: gaps of a window that had them, closed when they come once more."""

from hypothesis import given
from hypothesis import strategies as st

from appliance.exchanges.instruments import Instruments
from appliance.feed.reopening import reopen
from appliance.feed.window import EventKind, Verdict, Window

HIGHEST = 3_000  # far more than a window has bits
SPANS = st.tuples(st.integers(0, HIGHEST + 50), st.integers(0, 400)).map(lambda span: (span[0], span[0] + span[1]))


def window_of(ids: range, missing: set[int]) -> Window:
    instruments = Instruments("BINANCE")
    instruments.add("BTCUSDT")
    window = Window(instruments)
    for trade_id in ids:
        if trade_id not in missing:
            window.offer(0, trade_id, exchange_ts_ms=trade_id)
    window.due(1, 0)
    window.take_events()
    return window


@given(st.sets(st.integers(11, HIGHEST - 1), max_size=20), st.lists(SPANS, min_size=1, max_size=5), st.booleans())
def test_exactly_the_ids_that_were_there_are_missing_again_and_closed_when_they_have_come(
    missing: set[int], spans: list[tuple[int, int]], newest_first: bool
) -> None:
    window = window_of(range(10, HIGHEST + 1), missing)
    again: set[int] = set()
    for first, last in spans:
        parts = reopen(window, 0, first, last, 1)
        new = {one for low, high in parts for one in range(low, high + 1)}
        assert new == set(range(max(first, 10), min(last, HIGHEST) + 1)) - missing - again
        again |= new
    assert window.missing_ids == len(missing | again)
    told = [(first, last) for first, last, is_told in window.holes(0) if is_told]
    assert told == [(first, last) for first, last, _ in window.holes(0)]
    for trade_id in sorted(missing | again, reverse=newest_first):
        assert window.offer(0, trade_id, exchange_ts_ms=trade_id)[0] is Verdict.LATE
        assert window.offer(0, trade_id, exchange_ts_ms=trade_id)[0] is Verdict.DUPLICATE
    assert (window.missing_ids, window.gaps_open, window.holes(0)) == (0, 0, [])
    assert {event.kind for event in window.take_events()} <= {EventKind.HOLE_CLOSED}


def test_nothing_is_missed_of_an_instrument_that_never_traded() -> None:
    instruments = Instruments("BINANCE")
    instruments.add("BTCUSDT")
    window = Window(instruments)
    window.grow()
    assert reopen(window, 0, 1, 100, 1) == []


def test_a_snapshot_knows_what_is_missing_again() -> None:
    window = window_of(range(10, HIGHEST + 1), set())
    reopen(window, 0, 20, 30, 5)
    other = Window(Instruments("BINANCE"))
    other.restore(window.snapshot(0))
    assert other.gaps(0) == [(20, 30, 5)]
