"""What an exchange is to the rest of the program: the questions it takes, and what its answers mean.

Bytes in, facts out: nothing here opens a socket, reads a clock or sleeps, so both ends are tested without a network.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from appliance.errors import ConfigError
from appliance.exchanges.past import Past

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
    CREDENTIALS = "credentials"
    """The login was refused: no restart mends it, and many more tries lock the account."""


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
class Credits:
    """What requests on all websockets together may cost: a pool that is refilled all the time."""

    room: int
    per_s: int
    request: int
    subscribe: int


@dataclass(frozen=True, slots=True)
class Rules:
    """What the exchange allows one address and one connection."""

    connects: int
    connects_window_s: float
    messages_per_s: int
    """Frames from us on one connection, pongs included."""
    weight_per_minute: int
    connections: int = 1 << 20
    """At the same time, REST included."""
    verify_s: float = 600.0
    """Between two comparisons of our subscriptions with the exchange's own list."""
    credits: Credits | None = None
    """None: requests cost nothing but their number."""
    past_trades: int = 1_000
    """In one reply."""
    past_per_s: float = 2.0
    """Requests for past trades, so that discovery and other programs of this address have theirs."""


@dataclass(frozen=True, slots=True)
class Volume:
    """What a busy day of all its instruments brings, to reckon disk space with. Bytes are of one trade."""

    trades_per_s: int
    """The day's average."""
    record_bytes: int
    """In the ring and the journal: header, JSON and padding."""
    raw_bytes: int
    """Of the frame as received, compressed, by the first leg."""
    raw_bytes_again: int
    """By each further leg: much of it is a repetition."""

    def journal_bytes_a_day(self) -> int:
        return self.record_bytes * self.trades_per_s * 86_400

    def raw_bytes_a_day(self, legs: int) -> int:
        return (self.raw_bytes + (legs - 1) * self.raw_bytes_again) * self.trades_per_s * 86_400


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
    login_lost: bool = False
    """Logged in again, the same request may be taken."""
    refusal: Refusal | None = None
    """Set where this connection has no future, and a new one only as this says."""
    again_s: float | None = None
    """The same request may be taken after so many seconds, by a connection that serves otherwise even if `refusal` is set."""


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """The login was taken; it is to be renewed within `expires_s`."""

    request: int
    expires_s: float
    refresh_token: str = field(repr=False)
    scope: str


@dataclass(frozen=True, slots=True)
class Demand:
    """The exchange wants to see a frame of ours, at once; `frame` makes it, given the request's number."""

    frame: Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class ShuttingDown:
    """The exchange will end this connection, without saying when."""

    reason: str = "the exchange announced the end of this connection"


@dataclass(frozen=True, slots=True)
class InstrumentChanged:
    """An instrument was listed, or its state changed."""

    name: str
    kind: str
    state: str
    lists: bool
    """It trades from now on; ids begin at 1 if it is new to us."""
    ends: bool
    """It trades no more, for good."""


@dataclass(frozen=True, slots=True)
class Announced:
    """Something the operator and the data should know: a status record of this name and these fields."""

    event: str
    fields: Mapping[str, object]
    subject: object = None
    """What it speaks of: the same said again of the same subject is no news."""


Control = Acknowledged | Subscribed | Rejected | LoggedIn | Demand | ShuttingDown | InstrumentChanged | Announced


class Line(Protocol):
    """A living connection, as an exchange's session sees it."""

    async def ask(self, question: Callable[[int], bytes]) -> Control | None:
        """Send the frame that `question` makes of a request's number; its answer, None when none came in time."""

    async def sleep(self, seconds: float) -> None: ...

    def warn(self, event: str, text: str) -> None:
        """Tell the operator."""


class Session(Protocol):
    """What one connection needs beside its subscriptions: a login, heartbeats. One connection's; never shared."""

    async def begin(self, line: Line) -> Refusal | None:
        """Before the first subscription, and again when a request was rejected for want of a login; why it must end, or None."""

    async def keep(self, line: Line) -> Refusal | None:
        """Runs beside the connection after `begin`; may end early, with why the connection must end, or None."""


class NoSession:
    """For exchanges where a connection needs nothing more."""

    async def begin(self, line: Line) -> Refusal | None:
        return None

    async def keep(self, line: Line) -> Refusal | None:
        return None


class Exchange(Protocol):
    """One exchange. Its module in `appliance.exchanges` holds an instance named `EXCHANGE`."""

    @property
    def name(self) -> str: ...

    @property
    def rules(self) -> Rules: ...

    @property
    def volume(self) -> Volume: ...

    @property
    def rest_url(self) -> str:
        """Where its REST interface is, for tools that read no configuration."""

    @property
    def by_channel(self) -> bool:
        """Whether streams carry whole kinds of instruments, all into chunk 0; else each instrument has a stream and a place."""

    def with_options(self, options: Mapping[str, str | None]) -> "Exchange":
        """The same exchange with the configuration's section of its name, secrets in plain text."""

    @property
    def paths(self) -> tuple[str, str]:
        """What stands behind the host before all else, of REST and of the websocket; URLs may be given with or without it."""

    def discovery(self) -> Question:
        """The request whose reply lists all instruments."""

    def instruments(self, body: bytes) -> dict[str, str]:
        """Name and kind of all that can be traded now, by a discovery reply. Raises BadReply."""

    def past(self, name: str, from_id: int | None, trades: int) -> Question:
        """The request for an instrument's trades from an id on, `trades` of them or as many as one reply may hold; None: the newest."""

    def past_trades(self, name: str, body: bytes) -> Past:
        """What its reply holds. Raises BadReply."""

    def refusal(self, status: int, headers: Mapping[str, str], body: bytes, now_s: float) -> Refusal:
        """What an answer other than the wanted one means; `headers` in lower case, `now_s` UNIX time."""

    def streams(self, names: Iterable[str]) -> list[str]:
        """The streams that carry the trades of these instruments."""

    def brings_trades(self, stream: str) -> bool:
        """Whether a stream carries trades; a connection without any such is of no use."""

    def connect_path(self, streams: Sequence[str]) -> tuple[str, list[str]]:
        """What stands behind the websocket's host to get `streams`, and those of them that found no room in it."""

    def subscribe(self, streams: Sequence[str], requests: Iterator[int]) -> list[tuple[int, bytes]]:
        """Text frames that ask for `streams`, each within the exchange's limits and with its number out of `requests`."""

    def list_subscriptions(self, request: int) -> bytes | None:
        """The text frame that asks for this connection's subscriptions; None: only an answer to `subscribe` names them."""

    def session(self) -> Session:
        """What a new connection needs beside its subscriptions."""

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
        raise ConfigError(f"[exchange] name = {name!r}: this version has no such exchange. Expected one of binance, deribit.") from None
    return cast(Exchange, module.EXCHANGE)
