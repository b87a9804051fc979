"""What connections have brought, compared: handovers, and instruments that one of them does not bring."""

from array import array

from hypothesis import given
from hypothesis import strategies as st

from appliance.feed.progress import Handover, Laggards


def ids(*numbers: int) -> bytes:
    return array("q", numbers).tobytes()


def test_nothing_traded_and_nothing_is_lacking() -> None:
    assert Handover(ids(5, -1)).step(ids(5, -1), ids(-1, -1)) == (0, 0)
    assert Handover(b"").step(b"", b"") == (0, 0)


def test_what_was_proven_once_need_not_hold_at_the_next_instant() -> None:
    handover = Handover(ids(5, 5))
    assert handover.step(ids(6, 6), ids(6, -1)) == (1, 0)
    assert handover.step(ids(9, 6), ids(6, 6)) == (0, 0)


def test_an_instrument_that_came_meanwhile_counts() -> None:
    handover = Handover(b"")
    assert handover.step(ids(1), b"") == (1, 0)
    assert handover.step(ids(1), ids(2)) == (0, 0)


@given(st.data())
def test_a_handover_that_is_complete_loses_nothing(data: st.DataObject) -> None:
    """Two connections of one exchange, each behind it by its own delay, and a drain that ends the older one where it stands."""
    begins = data.draw(st.integers(1, 30))  # the first id of the successor
    old, new = data.draw(st.integers(0, 20)), begins - 1
    handover = Handover(ids(old))
    for _ in range(60):
        last = max(old, new)
        old = data.draw(st.integers(old, last + 3))
        new = data.draw(st.integers(new, last + 3))
        heard = new if new >= begins else -1
        steps = handover.step(ids(old), ids(heard))
        if steps == (0, 0) and heard >= 0:
            assert begins <= old + 1
            return


def test_an_instrument_that_others_bring_and_this_one_does_not_is_found() -> None:
    laggards = Laggards()
    assert laggards.step(ids(-1, 7), [ids(-1, 7)], 3, 5) == []
    found = [laggards.step(ids(-1, 7 + step), [ids(10 + step, 7 + step)], 3, 5) for step in range(1, 12)]
    assert found[:5] == [[]] * 5
    assert [0] in found
    assert all(one in ([], [0]) for one in found)


def test_what_others_brought_before_this_one_listened_is_no_evidence() -> None:
    laggards = Laggards()
    assert all(laggards.step(ids(-1), [ids(1_000_000)], 3, 5) == [] for _ in range(100))


def test_a_burst_after_a_long_silence_that_is_still_under_way_is_no_evidence() -> None:
    laggards = Laggards()
    for _ in range(1_000):
        laggards.step(ids(10), [ids(10)], 3, 5)
    assert laggards.step(ids(10), [ids(500)], 3, 5) == []
    assert laggards.step(ids(500), [ids(500)], 3, 5) == []
    assert all(laggards.step(ids(500), [ids(500)], 3, 5) == [] for _ in range(100))


def test_a_slow_leg_that_comes_on_is_none_that_lacks() -> None:
    laggards = Laggards()
    assert all(laggards.step(ids(step), [ids(step + 1_000)], 3, 5) == [] for step in range(100))


def test_an_instrument_that_falls_silent_is_told_once_by_its_own_rhythm() -> None:
    laggards = Laggards()
    for step in range(100):
        laggards.step(ids(step, step // 50), [], 3, 5)
        assert laggards.fallen_silent(50, 20, 30) == []
    found = []
    for _ in range(100):
        laggards.step(ids(99, 1), [], 3, 5)
        found += laggards.fallen_silent(50, 20, 30)
    assert found == [0]
