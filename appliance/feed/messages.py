"""How many frames we may still send on one connection: the exchange counts them, pongs too, and cuts whoever sends more (T29)."""

from collections import deque
from collections.abc import Callable

# The exchange counts on arrival, where our second may have been pressed together on the way.
WINDOW_S = 1.2
FOR_PONGS = 2  # messages of each second that only a pong may use


class MessageBudget:
    """The frames sent on one connection in the last second. `now_s` is any clock that no one sets."""

    def __init__(self, per_second: int, now_s: Callable[[], float]) -> None:
        self._per_second = per_second
        self._now_s = now_s
        self._sent_s: deque[float] = deque(maxlen=per_second)

    def request_delay_s(self) -> float:
        """Seconds until a request may be sent so that pongs still fit; 0 when now."""
        return self._delay_s(self._per_second - FOR_PONGS)

    def pong_delay_s(self) -> float:
        """Seconds until a pong may be sent; 0 when now, as ever unless pings come in floods."""
        return self._delay_s(self._per_second)

    def count(self) -> None:
        """Call with each frame sent."""
        self._sent_s.append(self._now_s())

    def _delay_s(self, allowed: int) -> float:
        if len(self._sent_s) < allowed:
            return 0.0
        return max(0.0, self._sent_s[-allowed] + WINDOW_S - self._now_s())
