"""What an exchange's dialect is to the local exchange's server: bytes and times in, answers out, no sockets.

One module per exchange implements it; the server, the feeds and the faults know no exchange.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from websockets.frames import Close, Frame

from appliance.sim.faults import Kind

JSON = "application/json;charset=UTF-8"


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request; header names in lower case."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    address: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP response."""

    status: int
    body: bytes = b""
    headers: Sequence[tuple[str, str]] = ()
    content_type: str = JSON


Step = Frame | Close
"""What a session wants sent. After a Close nothing more."""


class Printed(Protocol):
    """What a feed knows of past trades, for REST."""

    def rows(self, symbol: str, from_id: int | None, limit: int, until_us: int) -> "list[PrintedTrade]":
        """Trades in order of id, none later than `until_us`: from `from_id` on, or the last ones. Empty for an unknown symbol."""


@dataclass(frozen=True, slots=True)
class PrintedTrade:
    """A past trade: digits as on the stream."""

    trade_id: int
    px: str
    sz: str
    trade_us: int
    buyer_is_maker: bool


class Frames(Protocol):
    """Renders the current batch for everyone who wants the same."""

    @property
    def frames(self) -> int: ...

    def render(self) -> bytes: ...


class Session(Protocol):
    """One websocket connection as the exchange sees it. All times are UNIX seconds."""

    @property
    def audience(self) -> Hashable | None:
        """What it is subscribed to: equal audiences get equal bytes. None: nothing."""

    def received(self, frame: Frame, now_s: float) -> list[Step]:
        """A frame of the client, pongs and pings included (the server echoes pings itself)."""

    def due(self, now_s: float) -> list[Step]:
        """What the passing of time brings: pings, time-outs, announcements. Called many times a second."""


class Dialect(Protocol):
    """One exchange."""

    def answer(self, request: Request, now_s: float) -> Reply | None:
        """A REST request's reply; None: it is never answered."""

    def upgrade(self, request: Request, now_s: float) -> Session | Reply | None:
        """A websocket handshake: a session, or a refusal; None: it is never answered."""

    def frames(self, audience: Hashable) -> Frames:
        """A renderer of what that audience gets."""

    def garbage(self, kind: Kind) -> Frame:
        """A frame that no client should choke on. `fragmented` is no frame of its own: it is how a trade is sent."""
