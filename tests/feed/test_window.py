"""De-duplication and gaps against a model that keeps every id, through snapshots, restarts and new eras."""

import json
import random
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from appliance.exchanges.instruments import Instruments
from appliance.feed.window import Event, EventKind, Verdict, Window

GRACE_NS = 100
FIRST_TS_MS = 1_700_000_000_000
JUMP_IDS = 1_000_000
WINDOW_IDS = 1024


def window_of(*names: str) -> Window:
    instruments = Instruments("BINANCE")
    for name in names:
        instruments.add(name)
    return Window(instruments)


def verdicts(window: Window, ids: list[int], ts_ms: int = FIRST_TS_MS) -> list[str]:
    return [window.offer(0, trade_id, exchange_ts_ms=ts_ms)[0].name for trade_id in ids]


def kinds(window: Window) -> list[tuple[str, int, int]]:
    return [(event.kind.name, event.from_id, event.to_id) for event in window.take_events()]


class Model:
    """One instrument: every id that came, when each missing one was first missed, and the gaps that were told."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.missed_ns: dict[int, int] = {}
        self.gap_of: dict[int, tuple[int, int]] = {}
        self.left: Counter[tuple[int, int]] = Counter()
        self.closed: list[tuple[int, int]] = []
        self.baseline = self.highest = -1

    def judge(self, trade_id: int, now_ns: int) -> Verdict:
        if self.baseline < 0:
            self.baseline = self.highest = trade_id
        elif trade_id < self.baseline:
            if trade_id <= self.highest - WINDOW_IDS:
                return Verdict.BEFORE_BASELINE
            for missing in range(trade_id + 1, self.baseline):
                self.missed_ns[missing] = now_ns
            self.seen.add(trade_id)
            self.baseline = trade_id
            return Verdict.LATE
        elif trade_id in self.seen:
            return Verdict.DUPLICATE
        elif trade_id < self.highest:
            self.seen.add(trade_id)
            del self.missed_ns[trade_id]
            gap = self.gap_of.get(trade_id)
            if gap is not None:
                self.left[gap] -= 1
                if self.left[gap] == 0:
                    del self.left[gap]
                    self.closed.append(gap)
            return Verdict.LATE
        for missing in range(self.highest + 1, trade_id):
            self.missed_ns[missing] = now_ns
        self.seen.add(trade_id)
        self.highest = trade_id
        return Verdict.FIRST

    def tell(self, gap: tuple[int, int]) -> None:
        for missing in range(gap[0], gap[1] + 1):
            self.gap_of[missing] = gap
            self.left[gap] += 1

    def holes(self) -> list[tuple[int, int, bool]]:
        holes: list[tuple[int, int, bool]] = []
        for missing in sorted(self.missed_ns):
            if holes and holes[-1][1] == missing - 1:
                holes[-1] = (holes[-1][0], missing, holes[-1][2])
            else:
                holes.append((missing, missing, missing in self.gap_of))
        return holes


class WindowAgainstModel(RuleBasedStateMachine):
    """Whatever two legs bring, in whatever order, with restarts in between: each id once, and the holes are the missing ids."""

    @initialize(first=st.sampled_from([0, 1, 5000, 6_720_857_582]))
    def begin(self, first: int) -> None:
        self.window = window_of("BTCUSDT", "ETHUSDT")
        self.model = Model()
        self.next_id = first
        self.now_ns = 1000
        # What a ring holds: trades as (id, recv_ns), and events. A snapshot is the state before log[snapshot_at].
        self.log: list[tuple[int, int] | Event] = []
        self.snapshot: bytes | None = None
        self.snapshot_at = 0

    def offer(self, trade_id: int) -> None:
        expected = self.model.judge(trade_id, self.now_ns)
        assert self.window.offer(1, trade_id, exchange_ts_ms=FIRST_TS_MS + trade_id, now_ns=self.now_ns) == (expected, 0)
        if expected in {Verdict.FIRST, Verdict.LATE}:
            self.log.append((trade_id, self.now_ns))

    @rule(skip=st.one_of(st.just(0), st.integers(0, 3), st.integers(1010, 1040)))
    def next_trade(self, skip: int) -> None:
        self.next_id += skip if len(self.model.missed_ns) < 4000 else 0
        self.offer(self.next_id)
        self.next_id += 1

    @precondition(lambda self: len(self.model.holes()) < 150)  # far from where holes are merged
    @rule(
        count=st.integers(1, 40), losses=st.tuples(st.floats(0, 0.9), st.floats(0, 0.9)), lag=st.integers(0, 50), seed=st.integers(0, 2**32)
    )
    def two_legs(self, count: int, losses: tuple[float, float], lag: int, seed: int) -> None:
        chance = random.Random(seed)
        arrivals = [
            (number + leg * lag + chance.random() * 3, self.next_id + number)
            for leg, loss in enumerate(losses)
            for number in range(count)
            if chance.random() >= loss
        ]
        for _, trade_id in sorted(arrivals):
            self.offer(trade_id)
        self.next_id += count

    @precondition(lambda self: self.model.missed_ns and len(self.model.holes()) < 150)
    @rule(data=st.data())
    def late_trades(self, data: st.DataObject) -> None:
        for trade_id in data.draw(st.lists(st.sampled_from(sorted(self.model.missed_ns)), max_size=30)):
            self.offer(trade_id)

    @precondition(lambda self: self.model.missed_ns)
    @rule(number=st.integers(0, 1000), backwards=st.booleans())
    def backfill(self, number: int, backwards: bool) -> None:
        holes = self.model.holes()
        first, last, _ = holes[number % len(holes)]
        for trade_id in range(first, last + 1)[:: -1 if backwards else 1]:
            self.offer(trade_id)

    @precondition(lambda self: self.model.seen)
    @rule(back=st.one_of(st.integers(0, 40), st.integers(0, 5000)))
    def any_id_again(self, back: int) -> None:
        self.offer(max(self.model.highest - back, 0))

    @rule(elapsed_ns=st.integers(0, 2 * GRACE_NS))
    def time_passes(self, elapsed_ns: int) -> None:
        self.now_ns += elapsed_ns
        holes = self.model.holes()
        due = [(first, last) for first, last, told in holes if not told and self.now_ns - self.model.missed_ns[first] >= GRACE_NS]
        assert self.window.due(self.now_ns, GRACE_NS) == len(due)
        events = [event for event in self.window.take_events() if event.kind is not EventKind.BASELINE]
        assert sorted((event.from_id, event.to_id) for event in events if event.kind is EventKind.HOLE_DUE) == due
        closed = [(event.from_id, event.to_id) for event in events if event.kind is EventKind.HOLE_CLOSED]
        assert sorted(closed) == sorted(self.model.closed)
        assert len(events) == len(due) + len(closed)
        self.model.closed = []
        for gap in due:
            self.model.tell(gap)
        self.log += events

    @precondition(lambda self: self.model.seen)
    @rule()
    def snapshot_taken(self) -> None:
        # The record is written in a turn of the loop, after the events.
        self.time_passes(0)
        self.snapshot = self.window.snapshot(1)
        self.snapshot_at = len(self.log)

    @rule(from_snapshot=st.booleans())
    def killed_and_restarted(self, from_snapshot: bool) -> None:
        self.window = window_of("BTCUSDT", "ETHUSDT")
        start = 0
        if from_snapshot and self.snapshot is not None:
            assert self.window.restore(self.snapshot) == 1
            start = self.snapshot_at
        for entry in self.log[start:]:
            if not isinstance(entry, Event):
                trade_id, recv_ns = entry
                self.window.replay(1, trade_id, exchange_ts_ms=FIRST_TS_MS + trade_id, recv_ns=recv_ns)
            elif entry.kind is EventKind.HOLE_DUE:
                self.window.replay_gap(1, entry.from_id, entry.to_id)
            else:
                self.window.recorded(*entry[:5])
        self.window.finish_replay()

    @invariant()
    def holes_are_the_missing_ids(self) -> None:
        if not hasattr(self, "window"):
            return
        assert self.window.holes(1) == self.model.holes()
        assert self.window.missing_ids == len(self.model.missed_ns)
        assert self.window.gaps_open == len(self.model.left)
        assert self.window.merged == self.window.events_lost == 0
        assert self.window.holes(0) == []


TestWindow = WindowAgainstModel.TestCase
TestWindow.settings = settings(max_examples=300, stateful_step_count=30, deadline=None)


def test_each_trade_is_told_apart() -> None:
    window = window_of("BTCUSDT")
    assert verdicts(window, [100, 100, 99, 101, 104, 101, 103, 103, 102, 105]) == [
        *("FIRST", "DUPLICATE", "LATE", "FIRST", "FIRST", "DUPLICATE", "LATE", "DUPLICATE", "LATE", "FIRST"),
    ]
    assert kinds(window) == [("BASELINE", 100, 100)]
    assert (window.missing_ids, window.gaps_open) == (0, 0)


def test_the_leg_that_is_read_first_need_not_be_the_one_that_began_first() -> None:
    """What the other leg has from before the first trade seen is no less a trade; what neither has is a gap."""
    window = window_of("BTCUSDT")
    assert verdicts(window, [2000, 1997, 1997, 1998, 976, 977]) == ["FIRST", "LATE", "DUPLICATE", "LATE", "BEFORE_BASELINE", "LATE"]
    assert window.holes(0) == [(978, 1996, False), (1999, 1999, False)]
    assert window.missing_ids == 1020


def test_a_straggler_within_the_grace_is_no_gap() -> None:
    """T11."""
    window = window_of("BTCUSDT")
    verdicts(window, [1, 4])
    assert window.due(GRACE_NS - 1, GRACE_NS) == 0
    verdicts(window, [2, 3])
    assert window.due(GRACE_NS, GRACE_NS) == 0
    assert kinds(window) == [("BASELINE", 1, 1)]


def test_a_gap_is_closed_by_its_last_id_in_whatever_order() -> None:
    window = window_of("BTCUSDT")
    verdicts(window, [10, 20])
    assert window.due(GRACE_NS, GRACE_NS) == 1
    assert window.due(10 * GRACE_NS, GRACE_NS) == 0
    verdicts(window, [15, 11, 19, 13, 17, 12, 14, 18])
    assert (window.missing_ids, window.gaps_open, window.holes(0)) == (1, 1, [(16, 16, True)])
    verdicts(window, [16])
    assert (window.missing_ids, window.gaps_open, window.holes(0)) == (0, 0, [])
    assert kinds(window) == [("BASELINE", 10, 10), ("HOLE_DUE", 11, 19), ("HOLE_CLOSED", 11, 19)]


@pytest.mark.parametrize(("px", "sz"), [(b"2", b"1"), (b"1", b"2"), (b"1.0", b"1"), (b"11", b"")])
def test_a_copy_that_differs_is_told_and_not_committed(px: bytes, sz: bytes) -> None:
    window = window_of("BTCUSDT")
    window.offer(0, 7, px=b"1", sz=b"1")
    window.offer(0, 9, px=b"83034.29000000", sz=b"0.00062000")
    assert window.offer(0, 7, px=px, sz=sz)[0] is Verdict.CONFLICT
    assert window.offer(0, 9, px=b"83034.29000000", sz=b"0.00062000")[0] is Verdict.DUPLICATE
    assert window.offer(0, 9, px=b"83034.29000000", sz=b"0.00062001")[0] is Verdict.CONFLICT
    assert kinds(window)[1:] == [("COPIES_DIFFER", 7, 7), ("COPIES_DIFFER", 9, 9)]


def test_the_fingerprint_of_an_id_does_not_outlive_the_window() -> None:
    window = window_of("BTCUSDT")
    for trade_id in range(3000):
        assert window.offer(0, trade_id, px=b"%d" % trade_id)[0] is Verdict.FIRST
    for trade_id in range(3000):
        assert window.offer(0, trade_id, px=b"%d" % trade_id)[0] is Verdict.DUPLICATE
    assert window.offer(0, 3000 - 1024, px=b"other")[0] is Verdict.CONFLICT
    assert window.offer(0, 3000 - 1025, px=b"other")[0] is Verdict.DUPLICATE


def test_a_jump_is_one_event_and_its_ids_are_still_welcome() -> None:
    window = window_of("BTCUSDT")
    assert verdicts(window, [5, 6 + JUMP_IDS, 8 + 2 * JUMP_IDS]) == ["FIRST"] * 3
    assert kinds(window) == [("BASELINE", 5, 5), ("JUMP", 7 + JUMP_IDS, 7 + 2 * JUMP_IDS)]
    assert window.due(GRACE_NS, GRACE_NS) == 1
    assert kinds(window) == [("HOLE_DUE", 6, 5 + JUMP_IDS)]
    assert verdicts(window, [6, 7 + JUMP_IDS, 6]) == ["LATE", "LATE", "DUPLICATE"]
    assert (window.gaps_open, window.missing_ids) == (2, 2 * JUMP_IDS - 1)


@pytest.mark.parametrize("jump", [2_000, 10**12])
def test_behind_a_jump_that_was_none_both_legs_go_on_and_no_copy_is_taken_for_a_new_era(jump: int) -> None:
    """One leg brings an absurd id; then both bring what follows, one some trades behind the other, and all of it newer than that."""
    window = window_of("BTCUSDT")
    assert verdicts(window, [*range(5000, 5010), 5009 + jump]) == ["FIRST"] * 11
    newer = FIRST_TS_MS + 1
    assert verdicts(window, [*range(5005, 5010)], newer) == ["DUPLICATE"] * 5
    for trade_id in range(5010, 5010 + min(jump - 1, 3000)):
        assert window.offer(0, trade_id, exchange_ts_ms=newer)[0].name == "LATE"
        assert window.offer(0, trade_id - 5, exchange_ts_ms=newer)[0].name == "DUPLICATE"
    assert not [kind for kind, _, _ in kinds(window) if kind.startswith("ERA")]


def test_ids_that_begin_again_lose_no_trade() -> None:
    """T11: every trade after the restart is first once, under an era of its own, on two legs."""
    window = window_of("BTCUSDT")
    verdicts(window, [*range(5000, 5010), 5012])
    later = FIRST_TS_MS + 1
    judged = [window.offer(0, trade_id, exchange_ts_ms=later) for trade_id in (1, 1, 2, 2, 3, 3, 4, 4, 7, 6, 6)]
    assert [era for _, era in judged] == [1] * 11
    assert [verdict.name for verdict, _ in judged] == ["FIRST", "DUPLICATE"] * 4 + ["FIRST", "LATE", "DUPLICATE"]
    # What the old era missed is told before it is forgotten.
    assert kinds(window) == [("BASELINE", 5000, 5000), ("HOLE_DUE", 5010, 5011), ("ERA", 1, 3)]
    assert window.holes(0) == [(5, 5, False)]
    # The slower leg still brings the end of the old era.
    assert window.offer(0, 5012, exchange_ts_ms=FIRST_TS_MS) == (Verdict.DUPLICATE, 0)
    assert window.offer(0, 5013, exchange_ts_ms=FIRST_TS_MS) == (Verdict.FIRST, 0)
    assert window.offer(0, 5013, exchange_ts_ms=FIRST_TS_MS) == (Verdict.DUPLICATE, 0)
    assert window.offer(0, 8, exchange_ts_ms=later) == (Verdict.FIRST, 1)


def test_ids_that_begin_again_with_losses_open_holes_in_the_new_era() -> None:
    window = window_of("BTCUSDT")
    verdicts(window, [9000])
    judged = [window.offer(0, trade_id, exchange_ts_ms=FIRST_TS_MS + 1)[0].name for trade_id in (12, 10, 15, 11, 14)]
    assert judged == ["FIRST", "FIRST", "FIRST", "LATE", "LATE"]
    assert window.holes(0) == [(13, 13, False)]
    assert window.missing_ids == 1


def test_an_old_copy_is_no_new_era_however_far_below() -> None:
    window = window_of("BTCUSDT")
    verdicts(window, [*range(1, 6000)])
    assert verdicts(window, [1, 2, 3, 4, 5]) == ["DUPLICATE"] * 5
    assert [event.kind for event in window.take_events()] == [EventKind.BASELINE]


def test_an_era_that_the_old_ids_refute_is_never_used_again() -> None:
    window = window_of("BTCUSDT")
    verdicts(window, [9000])
    assert window.offer(0, 1, exchange_ts_ms=FIRST_TS_MS + 1) == (Verdict.FIRST, 1)
    assert window.offer(0, 9001, exchange_ts_ms=FIRST_TS_MS + 2) == (Verdict.FIRST, 0)
    assert kinds(window)[1:] == [("ERA_REFUTED", 1, 1)]
    later = FIRST_TS_MS + 3
    assert [window.offer(0, trade_id, exchange_ts_ms=later) for trade_id in (1, 2, 3, 4)] == [(Verdict.FIRST, 2)] * 4
    assert kinds(window) == [("ERA", 1, 3)]


@pytest.mark.parametrize("killed_after", range(1, 12))
def test_a_new_era_survives_a_restart_at_any_point(killed_after: int) -> None:
    trades = [(9000, 0), (9002, 0), (1, 1), (2, 1), (9003, 2), (3, 3), (4, 3), (5, 3), (7, 3), (6, 3), (9004, 4), (8, 3)]

    def offer(window: Window, number: int) -> tuple[Verdict, int]:
        return window.offer(0, trades[number][0], exchange_ts_ms=FIRST_TS_MS + trades[number][1])

    def state(window: Window) -> object:
        return json.loads(window.snapshot(0)), window.missing_ids, window.gaps_open

    unbroken, killed = window_of("BTCUSDT"), window_of("BTCUSDT")
    restored = window_of()
    for number in range(killed_after):
        verdict, era = offer(unbroken, number)
        killed.replay(0, trades[number][0], era, exchange_ts_ms=FIRST_TS_MS + trades[number][1])
        assert verdict is Verdict.FIRST or verdict is Verdict.LATE
    restored.restore(unbroken.snapshot(0))
    assert state(restored) == state(killed) == state(unbroken)
    for number in range(killed_after, len(trades)):
        assert offer(restored, number) == offer(killed, number) == offer(unbroken, number)
    assert state(restored) == state(killed) == state(unbroken)


def test_too_many_holes_are_merged_and_counted_and_lose_nothing() -> None:
    window = window_of("BTCUSDT")
    every_second = list(range(0, 4000, 2))
    assert verdicts(window, every_second) == ["FIRST"] * 2000
    assert len(window.holes(0)) == 256
    assert window.merged == 1999 - 256
    assert verdicts(window, every_second[-512:]) == ["DUPLICATE"] * 512
    missing = [trade_id + 1 for trade_id in every_second[:-1]]
    random.Random(1).shuffle(missing)
    assert set(verdicts(window, missing)) == {"LATE"}
    # What is left is what was merged away: ids that came before, and that would now come twice.
    assert window.missing_ids == sum(last - first + 1 for first, last, _ in window.holes(0))


def test_a_merged_gap_is_due_again_as_one() -> None:
    window = window_of("BTCUSDT")
    verdicts(window, [0, 100, 200])
    window.due(GRACE_NS, GRACE_NS)
    verdicts(window, [50])  # two pieces of the first gap
    verdicts(window, list(range(1000, 1000 + 5 * 253, 5)))
    window.take_events()
    gaps_open = window.gaps_open
    holes = window.holes(0)
    assert len(holes) == 256
    verdicts(window, [5000])
    assert len(window.holes(0)) == 256
    (event,) = window.take_events()
    assert (event.kind, event.from_id, event.to_id) == (EventKind.MERGED, 1, 99)
    assert window.gaps_open == gaps_open - 1
    assert window.holes(0)[0] == (1, 99, False)


def test_events_beyond_the_queue_are_counted_and_no_gap_is_forgotten() -> None:
    names = [f"S{number}" for number in range(400)]
    window = window_of(*names)
    for instrument in range(400):
        for trade_id in range(0, 60, 2):
            window.offer(instrument, trade_id, now_ns=0)
    assert window.events_waiting == 400
    window.offer(0, 0, px=b"other")
    told = 0
    while due := window.due(GRACE_NS, GRACE_NS):
        assert window.events_waiting == min(4096, window.events_waiting)
        told += due
        window.take_events()
    assert told == window.gaps_open == window.missing_ids == 400 * 29
    assert window.events_lost == 0
    for trade_id in range(5000):
        window.offer(0, 0, px=b"9%d" % trade_id)
    assert (window.events_waiting, window.events_lost) == (2049, 5000 - 2049)  # the other half is for gaps


def test_instruments_that_are_added_get_their_state_with_grow() -> None:
    window = window_of("BTCUSDT")
    verdicts(window, [5, 7])
    window.instruments.add("ETHUSDT")
    with pytest.raises(IndexError):
        window.offer(1, 5)
    window.grow()
    assert window.offer(1, 5)[0] is Verdict.FIRST
    assert window.holes(0) == [(6, 6, False)]


def test_a_snapshot_is_compact_json_that_names_its_instrument() -> None:
    window = window_of("币安人生USDT", "ETHUSDT")
    verdicts(window, [100, 101, 104])
    window.due(GRACE_NS, GRACE_NS)
    snapshot = window.snapshot(0)
    assert json.loads(snapshot) == {
        "asset": "币安人生USDT",
        "kind": "Spot",
        "era": 0,
        "baseline": 100,
        "highest": 104,
        "highest_ts_ms": FIRST_TS_MS,
        "window": "19",
        "holes": [[102, 103, 0, 102, 103]],
    }
    assert b" " not in snapshot
    assert json.loads(window.snapshot(1)) == {"asset": "ETHUSDT", "kind": "Spot", "era": 0, "baseline": None}


def test_a_snapshot_in_a_new_process_adds_its_instruments() -> None:
    window = window_of("BTCUSDT", "ETHUSDT")
    verdicts(window, [100, 104])
    restored = window_of()
    assert [restored.restore(window.snapshot(instrument)) for instrument in (1, 0)] == [0, 1]
    assert restored.instruments.names() == ["ETHUSDT", "BTCUSDT"]
    assert restored.holes(1) == [(101, 103, False)]
    assert restored.offer(0, 77)[0] is Verdict.FIRST
    restored.restore(window.snapshot(0))
    assert restored.missing_ids == 3


def test_a_gap_that_closed_before_its_record_was_written_is_told_as_closed() -> None:
    window = window_of("BTCUSDT")
    for trade_id in (1, 4, 2, 3):
        window.replay(0, trade_id)
    window.replay_gap(0, 2, 3)
    window.recorded(EventKind.BASELINE, 0, 0, 1, 1)
    assert window.finish_replay() == 1
    assert kinds(window) == [("HOLE_CLOSED", 2, 3)]
    assert window.gaps_open == 0


def test_events_whose_records_were_lost_with_the_process_are_told_after_the_replay() -> None:
    window = window_of("BTCUSDT")
    for trade_id in (1, 3 + JUMP_IDS):
        window.replay(0, trade_id)
    assert window.events_waiting == 0
    assert window.finish_replay() == 2
    assert kinds(window) == [("BASELINE", 1, 1), ("JUMP", 2, 2 + JUMP_IDS)]


def test_news_of_a_listing_that_come_behind_its_first_trades_make_the_ids_before_them_missing() -> None:
    window = window_of("OPTION")
    assert verdicts(window, [3, 4]) == ["FIRST", "FIRST"]
    window.listed(0, 50)
    assert window.missing_ids == 2
    assert verdicts(window, [1, 2]) == ["LATE", "LATE"]
    window.due(10 * GRACE_NS, GRACE_NS)
    assert window.missing_ids == 0


def test_news_of_a_listing_say_nothing_of_an_instrument_that_has_traded_for_long() -> None:
    window = window_of("OPTION")
    verdicts(window, [5_000])
    window.listed(0, 50)
    assert window.missing_ids == 0


def test_news_of_a_listing_that_come_late_take_no_id_of_the_window_for_seen() -> None:
    """Id 0 and id 4,096 have the same place in it."""
    window = window_of("OPTION")
    verdicts(window, [1, *range(4_000, 4_096), *range(4_097, 5_000)])
    window.listed(0, 50)
    assert verdicts(window, [4_096]) == ["LATE"]


def past(window: Window, ids: Iterable[int], ts_ms: int) -> list[str]:
    return [window.offer(0, number, exchange_ts_ms=ts_ms)[0].name for number in ids]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("live", [3, 5_000])
def test_all_that_a_new_listing_traded_before_it_was_heard_is_wanted(first: int, live: int) -> None:
    window = window_of("NEW")
    window.listed_since(0, 1_000)
    assert past(window, range(live, live + 2_000), 3_000) == 2_000 * ["FIRST"]
    again = window_of("NEW")
    again.restore(window.snapshot(0))
    for one in (window, again):
        assert past(one, range(first, live), 2_000) == (live - first) * ["LATE"]
        assert one.missing_ids == 0
        one.begins(0)
        assert not one.is_new(0)
        assert past(one, range(first, live + 2_000), 2_000) == (live + 2_000 - first) * ["DUPLICATE"]


def test_a_listing_that_has_not_traded_survives_a_restart() -> None:
    window = window_of("NEW")
    window.listed_since(0, 1_000)
    again = window_of("NEW")
    again.restore(window.snapshot(0))
    assert again.is_new(0)
    assert past(again, [7, 0], 2_000) == ["FIRST", "LATE"]


def test_one_that_is_listed_again_goes_on_where_it_was() -> None:
    window = window_of("OLD")
    past(window, range(100, 200), 500)
    window.end(0)
    assert window.has_ended(0)
    window.listed_since(0, 1_000)
    assert not window.has_ended(0)
    assert not window.is_new(0)
    assert past(window, [202], 2_000) == ["FIRST"]
    assert window.missing_ids == 2


def test_what_has_ended_is_over_when_nothing_of_it_is_missing_and_lives_when_it_trades_again() -> None:
    window = window_of("OPTION")
    verdicts(window, [1, 3])
    assert window.end(0)
    assert not window.end(0)
    assert not window.is_over(0)
    again = window_of()
    again.restore(window.snapshot(0))
    assert not again.end(0)
    for one in (window, again):
        assert verdicts(one, [2]) == ["LATE"]
        assert one.is_over(0)
        assert verdicts(one, [3]) == ["DUPLICATE"]
        assert verdicts(one, [4]) == ["FIRST"]
        assert not one.is_over(0)
        assert one.end(0)
