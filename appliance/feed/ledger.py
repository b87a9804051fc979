"""What one chunk has and lacks, by name and id: between its window and those who ask for the past."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from appliance.feed.handler import HotPath
from appliance.feed.history import NO_SUCH_TRADE
from appliance.feed.quest import Span
from appliance.feed.window import Window
from appliance.ring.intervals import Intervals

GAPS_MAX = 4096  # told and not yet taken; what is beyond is found by the next look at all of them

GIVEN_UP_MAX = 16_384  # instruments and eras of which is remembered what was given up; then it is said again

NOT_COLLECTED = "not_collected"


class Tell(Protocol):
    def __call__(self, event: str, **fields: object) -> None: ...


class ChunkLedger:
    """Loop thread only, between socket reads."""

    def __init__(self, window: Window, path: HotPath, tell: Tell, now_s: Callable[[], float] = time.time) -> None:
        self._window = window
        self._path = path
        self._tell = tell
        self._now_s = now_s
        self._gaps: list[tuple[str, int, int, int, float]] = []
        self._given_up: dict[tuple[str, int], Intervals] = {}
        self._deaf_since: list[tuple[str, int | None]] = []
        # Those of an earlier run whose first trades were not settled are asked for again.
        self._listed = [name for number, name in enumerate(window.instruments.names()) if window.is_new(number)]
        self._unheard: set[str] = set()
        self.go_deaf()

    def gap_told(self, instrument: int, era: int, from_id: int, to_id: int, detected_ns: int) -> None:
        """A gap record was written."""
        if len(self._gaps) < GAPS_MAX:
            self._gaps.append((self._window.instruments.name(instrument), era, from_id, to_id, detected_ns / 1e9))

    def take_gaps(self) -> list[tuple[str, int, int, int, float]]:
        """Gaps told since the last call: asset, era, first and last id, when it opened."""
        gaps, self._gaps = self._gaps, []
        return gaps

    def open_gaps(self) -> list[tuple[str, int, int, int, float]]:
        """All that were told and are still open, also by earlier runs; the longest open first."""
        instruments = self._window.instruments
        found = [
            (instruments.name(number), self._window.era(number), from_id, to_id, opened_ns / 1e9)
            for number in range(len(self._window))
            for from_id, to_id, opened_ns in self._window.gaps(number)
        ]
        return sorted(found, key=lambda gap: gap[4])

    def go_deaf(self) -> None:
        """Nobody listens from now on: what follows is to be asked for when somebody does again."""
        if not self._deaf_since:
            self._deaf_since = [(asset, self.highest(asset)) for asset in self._assets()]

    def take_deaf(self) -> list[tuple[str, int | None]]:
        """The instruments as they were when nobody was left to listen, with their last ids; once."""
        deaf, self._deaf_since = self._deaf_since, []
        return deaf

    def listed(self, asset: str) -> None:
        """It trades for the first time, or again."""
        if asset not in self._listed:
            self._listed.append(asset)

    def take_listed(self) -> list[tuple[str, int | None]]:
        """Those listed since the last call, and those whose first trade has come since, with their last ids; None: not traded before."""
        heard = [asset for asset in self._unheard if self.highest(asset) is not None]
        self._unheard.difference_update(heard)
        listed, self._listed = [*self._listed, *heard], []
        found = self._window.instruments.find
        return [(asset, None if self._window.is_new(found(asset)) else self.highest(asset)) for asset in listed]

    def await_first(self, asset: str) -> None:
        self._unheard.add(asset)

    def begins(self, asset: str) -> None:
        self._window.begins(self._window.instruments.find(asset))

    def _assets(self) -> list[str]:
        """Names of all instruments that may trade, those that traded last first."""
        instruments = self._window.instruments
        alive = [number for number in range(len(self._window)) if not self._window.is_over(number)]
        traded = {number: self._window.highest(number) for number in alive}
        alive.sort(key=lambda number: -(known[1] if (known := traded[number]) is not None else -1))
        names = map(instruments.name, alive)
        return [name for name in names if instruments.wanted is None or instruments.wanted(name)]

    def missing(self, asset: str, era: int, span: Span) -> list[Span]:
        instrument = self._window.instruments.find(asset)
        if instrument < 0 or self._window.era(instrument) != era:
            return []
        low, high = span
        return [(max(low, first), min(high, last)) for first, last, _ in self._window.holes(instrument) if first <= high and last >= low]

    def highest(self, asset: str) -> int | None:
        known = self._window.highest(self._window.instruments.find(asset))
        return known[0] if known is not None else None

    def take(self, messages: Sequence[bytes]) -> None:
        for message in messages:
            self._path.backfill(message)

    def settle(self, asset: str, era: int, span: Span, below: int, above: int) -> None:
        # Its record first: the closing of the gap is told in the next turn, behind it.
        self._tell(NO_SUCH_TRADE, **_ids(asset, era, span), below=below, above=above, asked_ts_ms=int(self._now_s() * 1_000))
        self._window.settle(self._window.instruments.find(asset), *span)

    def give_up(self, asset: str, era: int, span: Span, reason: str) -> None:
        """Told once in this life: they stay missing, and are looked at again and again."""
        told = self._given_up.get((asset, era), Intervals([]))
        for part in told.without(*span):
            self._tell(NOT_COLLECTED, **_ids(asset, era, part), reason=reason)
        if len(self._given_up) >= GIVEN_UP_MAX:
            self._given_up.clear()
        self._given_up[asset, era] = Intervals([*told, span])


def _ids(asset: str, era: int, span: Span) -> dict[str, object]:
    return {"asset": asset, "from_id": span[0], "to_id": span[1]} | ({"era": era} if era else {})
