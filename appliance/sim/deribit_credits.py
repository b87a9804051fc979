"""Deribit's rate limits: pools of credits that are refilled all the time (articles/rate-limits)."""

from dataclasses import dataclass, field

from appliance.sim.deribit_rpc import Refused


@dataclass(slots=True)
class Credits:
    """One pool."""

    room: float
    per_s: float
    left: float = field(init=False)
    at_s: float = 0.0

    def __post_init__(self) -> None:
        self.left = self.room

    def spend(self, cost: float, now_s: float) -> None:
        """Raises Refused when the pool has not so many."""
        if self.at_s:
            self.left = min(self.room, self.left + (now_s - self.at_s) * self.per_s)
        self.at_s = now_s
        if self.left < cost:
            raise Refused(10028)
        self.left -= cost


class Purse:
    """The pools of one account, or of one address that has not logged in: for all its connections together."""

    def __init__(self) -> None:
        self._requests = Credits(50_000, 10_000)
        self._subscribes = Credits(30_000, 10_000)
        # One in ten seconds, five at once over a websocket, as the stricter of two pages has it; over HTTP one a second.
        self._lists = {True: Credits(50_000, 1_000), False: Credits(500_000, 10_000)}

    def spend(self, method: str, websocket: bool, now_s: float) -> None:
        """Raises Refused."""
        match method:
            case "public/subscribe" | "private/subscribe":
                self._subscribes.spend(3_000, now_s)
            case "public/get_instruments":
                self._lists[websocket].spend(10_000, now_s)
            case _:
                self._requests.spend(500, now_s)
