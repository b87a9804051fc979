"""How long to wait before trying again."""

from collections.abc import Callable

from appliance.exchanges.exchange import Refusal, Trouble

FIRST_S = 0.5  # the longest first wait: one loss is mostly one connection's
ACCEPTED_S_MAX = 5.0  # the exchange takes us and drops us
REFUSED_S_MAX = 60.0
HEALTHY_S = 60.0  # a life this long begins anew

# What a quick retry cannot mend, and may make worse: 451 and 403 count requests, a certificate is renewed in hours.
SLOW_S = {Trouble.FORBIDDEN: 60.0, Trouble.MOVED: 60.0, Trouble.INSECURE: 60.0, Trouble.BLOCKED: 300.0, Trouble.CREDENTIALS: 300.0}


class Backoff:
    """The waits between one leg's lives, or between one question's tries. Never gives up (T4, T30)."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._next_s = FIRST_S

    def after_loss(self, life_s: float) -> float:
        """Seconds to wait after a connection that was accepted and lived so long."""
        if life_s >= HEALTHY_S:
            self.reset()
        return self._wait_s(ACCEPTED_S_MAX)

    def after_refusal(self, refusal: Refusal) -> float:
        """Seconds to wait after an attempt that came to nothing."""
        if refusal.trouble == Trouble.BANNED and refusal.retry_after_s is not None:
            # A little later than told, spread, so that legs do not all come back in the same instant.
            return refusal.retry_after_s + 1.0 + 2.0 * self._random()
        if slow_s := SLOW_S.get(refusal.trouble):
            return slow_s * (0.75 + 0.5 * self._random())
        return max(self._wait_s(REFUSED_S_MAX), (refusal.retry_after_s or 0.0) * (0.75 + 0.5 * self._random()))

    def reset(self) -> None:
        self._next_s = FIRST_S

    def _wait_s(self, longest_s: float) -> float:
        """Between half of the current step and all of it; the next step is twice as long."""
        step_s = min(self._next_s, longest_s)
        self._next_s = min(step_s * 2, REFUSED_S_MAX)
        return step_s * (0.5 + 0.5 * self._random())
