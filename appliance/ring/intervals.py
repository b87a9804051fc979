"""A set of integers kept as intervals."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator


class Intervals:
    """A set of integers, as intervals with both ends included."""

    def __init__(self, intervals: Iterable[tuple[int, int]]) -> None:
        self._intervals: list[tuple[int, int]] = []
        for first, last in sorted(intervals):
            if self._intervals and first <= self._intervals[-1][1] + 1:
                self._intervals[-1] = (self._intervals[-1][0], max(last, self._intervals[-1][1]))
            else:
                self._intervals.append((first, last))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """All of them, in order, none next to another."""
        return iter(self._intervals)

    def within(self, first: int, last: int) -> list[tuple[int, int]]:
        """The parts of `first` to `last` that are in the set."""
        result = []
        index = max(bisect_right(self._intervals, (first, last)) - 1, 0)
        for begin, end in self._intervals[index:]:
            if begin > last:
                break
            if end >= first:
                result.append((max(begin, first), min(end, last)))
        return result

    def without(self, first: int, last: int) -> list[tuple[int, int]]:
        """The parts of `first` to `last` that are not."""
        result = []
        for begin, end in self.within(first, last):
            if begin > first:
                result.append((first, begin - 1))
            first = end + 1
        if first <= last:
            result.append((first, last))
        return result
