"""What an exchange is to the rest of the program: the questions it takes, and what its answers mean.

Bytes in, facts out: nothing here opens a socket, reads a clock or sleeps, so both ends are tested without a network.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from appliance.errors import ConfigError

if TYPE_CHECKING:
    from appliance.exchanges.decoder import Decoder
    from appliance.exchanges.instruments import Instruments


BAN_S_MAX = 3 * 24 * 3600.0  # the longest that an exchange names


class Trouble(StrEnum):
    """Why the exchange does not serve us; each has its own pace of asking again (feed/backoff)."""

    AWAY = "away"
    """No answer, a time-out, 5xx, not JSON: waited out."""
    BANNED = "banned"
    """418, 429: never again before `retry_after_s` is over."""
    FORBIDDEN = "forbidden"
    """403, a rule of a firewall in front of the exchange: asked rarely."""
    BLOCKED = "blocked"
    """451, a region the exchange does not serve: no restart mends it."""
    MOVED = "moved"
    """301, 404, 410: the interface was moved or retired."""
    INSECURE = "insecure"
    """The certificate is not the host's: never talked to."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is not the one asked for, in the operator's words."""

    trouble: Trouble
    reason: str
    retry_after_s: float | None = None


def told_seconds(retry_after: str, now_s: float) -> float:
    """Seconds that a Retry-After header asks for, as a number or as a date; 0: none, or none that makes sense."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - now_s
        except ValueError:
            return 0.0
    return min(max(seconds, 0.0), BAN_S_MAX) if math.isfinite(seconds) else 0.0


class BadReply(Exception):
    """A body with status 200 that is not what was asked for; the message says what it is."""


@dataclass(frozen=True, slots=True)
class Question:
    """One REST request: what stands behind the host, and what it costs of the exchange's budget."""

    path: str
    weight: int


@dataclass(frozen=True, slots=True)
class Rules:
    """What the exchange allows one address and one connection."""

    connects: int
    connects_window_s: float
    messages_per_s: int
    """Frames from us on one connection, pongs included."""
    weight_per_minute: int


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The request was taken. No proof that data will follow."""

    request: int


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The streams that this connection has, by the exchange's own list."""

    request: int
    streams: frozenset[str]


@dataclass(frozen=True, slots=True)
class Rejected:
    """The request was not taken; `request` is None where the exchange names none."""

    request: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class ShuttingDown:
    """The exchange will end this connection, without saying when."""


Control = Acknowledged | Subscribed | Rejected | ShuttingDown


class Exchange(Protocol):
    """One exchange. Its module in `appliance.exchanges` holds an instance named `EXCHANGE`."""

    @property
    def name(self) -> str: ...

    @property
    def rules(self) -> Rules: ...

    def discovery(self) -> Question:
        """The request whose reply lists all instruments."""

    def symbols(self, body: bytes) -> list[str]:
        """The names of what can be traded now, by a discovery reply. Raises BadReply."""

    def refusal(self, status: int, headers: Mapping[str, str], body: bytes, now_s: float) -> Refusal:
        """What an answer other than the wanted one means; `headers` in lower case, `now_s` UNIX time."""

    def stream(self, name: str) -> str:
        """The stream that carries the trades of an instrument."""

    def connect_path(self, streams: Sequence[str]) -> tuple[str, list[str]]:
        """What stands behind the websocket's host to get `streams`, and those of them that found no room in it."""

    def subscribe(self, streams: Sequence[str], requests: Iterator[int]) -> list[tuple[int, bytes]]:
        """Text frames that ask for `streams`, each within the exchange's limits and with its number out of `requests`."""

    def list_subscriptions(self, request: int) -> bytes:
        """The text frame that asks for this connection's subscriptions."""

    def control(self, payload: bytes) -> Control | None:
        """What a text frame that is no trade says; None: nothing that the connection must know."""

    def decoder(self, instruments: "Instruments") -> "Decoder":
        """A compiled decoder of this exchange's trade frames."""


def open_exchange(name: str) -> Exchange:
    """The exchange of that name. Raises ConfigError when there is no module for it."""
    try:
        module = import_module(f"appliance.exchanges.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"appliance.exchanges.{name}":
            raise
        raise ConfigError(f"[exchange] name = {name!r}: this version has no such exchange. Set it to 'binance'.") from None
    return cast(Exchange, module.EXCHANGE)
