"""What is to be asked of the exchange's past, and what its answers settle: no clock, no network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

SETTLE_S = 5.0  # between two answers of which both lack an id before it counts as never traded
LATE_S_MIN, LATE_S_MAX = 1.0, 60.0  # for a database that has not caught up with the stream
CAUGHT_UP_S = 30.0  # a database asked so long after a moment has what was traded until then
SHORT_TRIES = 3  # before it is asked for its newest trade, which says whether it has

Span = tuple[int, int]
"""First and last id, both included."""


class Ledger(Protocol):
    """One chunk's knowledge of its ids, and where past trades and findings go."""

    def missing(self, asset: str, era: int, span: Span) -> list[Span]:
        """What of `span` is missing still; nothing once the ids have begun anew."""

    def highest(self, asset: str) -> int | None:
        """The highest id; None before the first trade."""

    def take(self, messages: Sequence[bytes]) -> None:
        """Commit what of these trades is not there."""

    def settle(self, asset: str, era: int, span: Span, below: int, above: int) -> None:
        """No trade has these ids: the exchange has those on both sides of them, and twice none of these."""

    def give_up(self, asset: str, era: int, span: Span, reason: str) -> None:
        """They are not to be had any more."""

    def begins(self, asset: str) -> None:
        """The exchange has no trade below those that we have."""

    def await_first(self, asset: str) -> None:
        """It has not traded yet: to be asked for its first trades when it has."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One question: `trades` of them from an id on; None: the newest."""

    asset: str
    from_id: int | None
    trades: int


class Gap:
    """The ids of one gap, asked for until each is settled.

    Asked in ascending order, from the id below to the one above: an answer that holds a neighbour on each side of an id and not
    the id itself, twice, is the proof that there is none.
    """

    def __init__(self, ledger: Ledger, asset: str, era: int, span: Span, opened_s: float, trades_max: int) -> None:
        self.ledger = ledger
        self._asset = asset
        self._era = era
        self._span = span
        self._opened_s = opened_s
        self._trades_max = trades_max
        self._late_s = LATE_S_MIN
        self._lacked: set[Span] = set()  # by the answer before
        self._floor = span[0]  # what lies below is given up
        self._short = 0  # answers in a row that did not reach the end
        self._probes = False
        self._caught_up = False
        self._proven = -1  # an id that is proven not to be, and so need not be in an answer to prove those above it

    def question(self) -> Wanted | None:
        """The next one; None when nothing is missing any more."""
        holes = self._open()
        if not holes:
            return None
        if self._probes:
            return Wanted(self._asset, None, 1)
        first, last = holes[0]
        last = min(holes[-1][1], first + self._trades_max - 3)
        return Wanted(self._asset, first - 1, last - first + 3)

    def answer(self, asked: Wanted, ids: Sequence[int], now_s: float, retained_s: float) -> float | None:
        """What an answer settles, when its trades are committed; seconds until the next question, None when there is none."""
        if asked.from_id is None:
            self._probes, self._caught_up = False, bool(ids) and ids[-1] > self._span[1]
            return self._delay_s(now_s, retained_s) if not self._caught_up else 0.0
        first, last = asked.from_id + 1, asked.from_id + asked.trades - 2
        holes = self._open()
        if not holes:
            return None
        held = [one for one in ids if one >= asked.from_id]
        above = held[-1] if held else asked.from_id
        lacked = {(max(low, first), min(high, last, above - 1)) for low, high in holes if low <= min(last, above - 1) and high >= first}
        if held and held[0] > first and asked.from_id not in (0, self._proven):
            # The neighbour below, which we have, is not kept any more: nor need these have been.
            self._give_up((first, min(held[0] - 1, last)), "older than what the exchange keeps")
            return 0.0
        again = lacked & self._lacked
        for low, high in again:
            self.ledger.settle(self._asset, self._era, (low, high), low - 1, high + 1)
            self._proven = max(self._proven, high)
        self._lacked = lacked - again
        if self._lacked:
            return SETTLE_S
        if not self._open():
            return None
        if above >= last:
            self._late_s, self._short = LATE_S_MIN, 0
            return 0.0
        if self._caught_up:
            why = "the exchange shows later ones, and none of these" if held else "older than what the exchange keeps"
            self._give_up((max(first, above + 1), last), why)
            return 0.0
        self._short += 1
        self._probes = self._short % SHORT_TRIES == 0
        return 0.0 if self._probes else self._delay_s(now_s, retained_s)

    def _delay_s(self, now_s: float, retained_s: float) -> float:
        """Until a database that lags is asked again."""
        if now_s - self._opened_s > retained_s:
            self._give_up(self._span, "the exchange has shown no later trade for as long as it keeps any")
            return 0.0
        self._late_s = min(2 * self._late_s, LATE_S_MAX)
        return self._late_s

    def _open(self) -> list[Span]:
        holes = self.ledger.missing(self._asset, self._era, self._span)
        return [(max(low, self._floor), high) for low, high in holes if high >= self._floor]

    def _give_up(self, span: Span, reason: str) -> None:
        self._floor = span[1] + 1
        self.ledger.give_up(self._asset, self._era, span, reason)


class Successors:
    """What follows an instrument's last id: asked after a time in which nobody listened, unless a live trade says it first."""

    def __init__(self, ledger: Ledger, asset: str, known: int | None, trades_max: int, heard_s: float) -> None:
        """`known`: the last id of that time; None: there was none, and the newest trade is to be the baseline. `heard_s`: when it ended."""
        self.ledger = ledger
        self._asset = asset
        self._trades_max = trades_max
        self._known = known
        self._heard_s = heard_s
        self._ask_newest = known is None
        self._done = False

    def question(self) -> Wanted | None:
        if self._done or self.ledger.highest(self._asset) != self._known:
            return None  # a live trade has come: if it is not the next one, that is a gap
        return Wanted(self._asset, None, 1) if self._ask_newest else Wanted(self._asset, self._known, self._trades_max)

    def answer(self, asked: Wanted, ids: Sequence[int], now_s: float, retained_s: float) -> float | None:
        known, self._known = self._known, self.ledger.highest(self._asset)
        if asked.from_id is not None and len(ids) >= self._trades_max:
            return 0.0
        # What was traded just before we listened again may not be in the database yet, and if nothing follows no live trade tells of it.
        wait_s = self._heard_s + CAUGHT_UP_S - now_s
        # An answer without the id that we have proves nothing: it is not kept any more, and so may be what followed it.
        self._done = wait_s <= 0 and (asked.from_id is None or known in ids)
        self._ask_newest = True
        return None if self._done else max(wait_s, 0.0)


class First:
    """The first trades of an instrument that was listed while we ran, and what follows them unless a live trade says it first.

    Its first id may be 0 or 1, and what was traded before we listened no live trade tells: the exchange is asked from the lowest on.
    """

    def __init__(self, ledger: Ledger, asset: str, trades_max: int, heard_s: float) -> None:
        """`heard_s`: from when on we listen to it."""
        self.ledger = ledger
        self._asset = asset
        self._trades_max = trades_max
        self._heard_s = heard_s
        self._late_s = LATE_S_MIN
        self._successors: Successors | None = None
        self._done = False

    def question(self) -> Wanted | None:
        if self._successors is not None:
            return self._successors.question()
        return None if self._done else Wanted(self._asset, 0, self._trades_max)

    def answer(self, asked: Wanted, ids: Sequence[int], now_s: float, retained_s: float) -> float | None:
        if self._successors is not None:
            return self._successors.answer(asked, ids, now_s, retained_s)
        heard = self.ledger.highest(self._asset)
        if ids or (heard is not None and now_s - self._heard_s > retained_s):
            self.ledger.begins(self._asset)
            self._successors = Successors(self.ledger, self._asset, heard, self._trades_max, self._heard_s)
            return 0.0
        if heard is None and now_s - self._heard_s > CAUGHT_UP_S:
            self._done = True
            self.ledger.await_first(self._asset)
            return None
        delay_s, self._late_s = self._late_s, min(2 * self._late_s, LATE_S_MAX)
        return delay_s
