"""What answers of the exchange's past settle, against an exchange that lacks, forgets and lags."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from appliance.feed.quest import CAUGHT_UP_S, First, Gap, Span, Successors, Wanted

PER_REPLY = 10
RETAINED_S = 1_000.0


@dataclass
class Exchange:
    """Ids that were traded, the oldest that is kept, the newest that its database has by now."""

    traded: set[int]
    oldest: int = 0
    newest: int = 1 << 60
    shown_per_s: float = 0.0
    bounded: bool = False
    """Asked for so many ids from one on, and not for so many trades."""

    def answer(self, wanted: Wanted) -> list[int]:
        kept = sorted(one for one in self.traded if self.oldest <= one <= self.newest)
        if wanted.from_id is None:
            return kept[-1:]
        below = wanted.from_id + wanted.trades if self.bounded else 1 << 60
        return [one for one in kept if wanted.from_id <= one < below][: min(wanted.trades, PER_REPLY)]


@dataclass
class Book:
    """What one instrument has and lacks."""

    held: set[int]
    settled: set[int] = field(default_factory=set)
    given_up: list[Span] = field(default_factory=list)
    evidence: list[tuple[Span, int, int]] = field(default_factory=list)
    begun: bool = False
    awaited: bool = False

    def missing(self, asset: str, era: int, span: Span) -> list[Span]:
        ids = [one for one in range(span[0], span[1] + 1) if one not in self.held and one not in self.settled]
        spans: list[Span] = []
        for one in ids:
            if spans and spans[-1][1] == one - 1:
                spans[-1] = (spans[-1][0], one)
            else:
                spans.append((one, one))
        return spans

    def highest(self, asset: str) -> int | None:
        return max(self.held, default=None)

    def take(self, messages: Sequence[bytes]) -> None:
        self.held |= {int(message) for message in messages}

    def settle(self, asset: str, era: int, span: Span, below: int, above: int) -> None:
        self.settled |= set(range(span[0], span[1] + 1))
        self.evidence.append((span, below, above))

    def give_up(self, asset: str, era: int, span: Span, reason: str) -> None:
        self.given_up.append(span)

    def begins(self, asset: str) -> None:
        self.begun = True

    def await_first(self, asset: str) -> None:
        self.awaited = True


def pursue(quest: Gap | Successors | First, exchange: Exchange, book: Book, begins_s: float = 0.0) -> float:
    """Until there is nothing to ask; when that was."""
    now_s = begins_s
    for _ in range(2_000):
        wanted = quest.question()
        if wanted is None:
            return now_s
        assert wanted.trades <= PER_REPLY
        ids = exchange.answer(wanted)
        book.take([str(one).encode() for one in ids])
        again_s = quest.answer(wanted, ids, now_s, RETAINED_S)
        if again_s is None:
            return now_s
        now_s += again_s
        exchange.newest += int(again_s * exchange.shown_per_s)
    raise AssertionError("it asks for ever")


@given(
    st.integers(1, 60),
    st.sets(st.integers(11, 70)),
    st.integers(0, 75),
    st.one_of(st.just(1 << 60), st.integers(5, 75)),
    st.floats(0.0, 5.0),
    st.booleans(),
)
def test_every_missing_id_is_fetched_proven_not_to_be_or_given_up(
    size: int, never_traded: set[int], oldest: int, newest: int, shown_per_s: float, bounded: bool
) -> None:
    gap = (11, 10 + size)
    traded = set(range(1, 200)) - {one for one in never_traded if one <= gap[1]}
    exchange = Exchange(traded, oldest, newest, shown_per_s, bounded)
    book = Book({one for one in traded if not gap[0] <= one <= gap[1]})
    pursue(Gap(book, "X", 0, gap, 0.0, PER_REPLY), exchange, book)
    # Never is an id said not to be that is.
    assert book.settled.isdisjoint(traded)
    for (low, high), below, above in book.evidence:
        assert gap[0] <= low <= high <= gap[1]
        assert (below, above) == (low - 1, high + 1)
    given_up = {one for low, high in book.given_up for one in range(low, high + 1)}
    left = {one for span in book.missing("X", 0, gap) for one in range(span[0], span[1] + 1)}
    assert left <= given_up
    # What the exchange keeps and shows in time is had.
    if oldest <= 10 and newest == 1 << 60:
        assert given_up == set()


@given(st.integers(0, 100), st.integers(0, 100))
def test_successors_are_had_up_to_the_newest(known: int, more: int) -> None:
    exchange = Exchange(set(range(1, known + more + 1)))
    book = Book(set(range(1, known + 1)))
    pursue(Successors(book, "X", known or None, PER_REPLY, 0.0), exchange, book)
    if known:
        assert book.held == exchange.traded
    else:
        assert book.held == ({more} if more else set())  # the baseline


def test_successors_that_the_database_did_not_have_at_once_are_had_although_no_live_trade_tells_of_them() -> None:
    exchange = Exchange(set(range(1, 40)), newest=12, shown_per_s=1.0)
    book = Book(set(range(1, 11)))
    ended_s = pursue(Successors(book, "X", 10, PER_REPLY, 0.0), exchange, book)
    assert max(book.held) == max(exchange.traded)  # what is missing below it is a gap
    assert ended_s < 2 * CAUGHT_UP_S


def test_the_newest_trade_shows_successors_that_are_not_kept_any_more() -> None:
    exchange = Exchange(set(range(1, 101)), oldest=95, bounded=True)
    book = Book(set(range(1, 11)))
    pursue(Successors(book, "X", 10, PER_REPLY, 0.0), exchange, book)
    assert max(book.held) == 100  # and what is missing below it is a gap


def test_a_live_trade_makes_the_question_for_successors_needless() -> None:
    book = Book({1, 2, 3})
    quest = Successors(book, "X", 3, PER_REPLY, 0.0)
    assert quest.question() == Wanted("X", 3, PER_REPLY)
    book.held.add(9)
    assert quest.question() is None


def test_a_trade_that_comes_between_two_answers_is_not_said_never_to_have_been() -> None:
    traded = set(range(1, 100)) - {20}
    exchange, book = Exchange(traded), Book(traded - {15, 16})
    quest = Gap(book, "X", 0, (15, 16), 0.0, PER_REPLY)
    exchange.traded = traded - {15, 16}
    wanted = quest.question()
    assert wanted is not None
    assert quest.answer(wanted, exchange.answer(wanted), 0.0, RETAINED_S) is not None
    book.held.add(16)  # from the other leg
    exchange.traded = traded
    pursue(quest, exchange, book)
    assert book.settled == set()
    assert book.missing("X", 0, (15, 16)) == []


def test_a_listing_is_asked_from_the_lowest_id_on_and_then_for_what_follows() -> None:
    exchange, book = Exchange(set(range(35))), Book(set())
    pursue(First(book, "NEW", PER_REPLY, heard_s=15.0), exchange, book)
    assert book.held == set(range(35))
    assert book.begun
    assert not book.awaited


def test_a_listing_whose_first_live_trade_is_known_is_asked_until_the_database_has_its_first() -> None:
    exchange, book = Exchange(set(range(35)), newest=-1, shown_per_s=0.5), Book({30})
    pursue(First(book, "NEW", PER_REPLY, heard_s=15.0), exchange, book)
    assert 0 in book.held
    assert book.begun


def test_a_listing_that_has_not_traded_is_awaited() -> None:
    exchange, book = Exchange(set()), Book(set())
    assert pursue(First(book, "NEW", PER_REPLY, heard_s=15.0), exchange, book) > 15.0 + CAUGHT_UP_S
    assert book.awaited
    assert not book.begun
