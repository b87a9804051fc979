"""What an exchange's dialect is to the local exchange's server: bytes and times in, answers out, no sockets.

One module per exchange implements it; the server, the feeds and the faults know no exchange.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from websockets.frames import Close, Frame

from appliance.sim.faults import Faults, Kind, Strikes

JSON = "application/json;charset=UTF-8"


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request; header names in lower case."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    address: str = "127.0.0.1"
    body: bytes = b""
    connections: int = 1
    """Of this address that are open now, this one among them."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP response."""

    status: int
    body: bytes = b""
    headers: Sequence[tuple[str, str]] = ()
    content_type: str = JSON
    cut: bool = False
    """Whether the connection ends when half of the body that was announced is sent."""


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


class Feed(Protocol):
    """Where frames come from, and what is told of the connections that get them."""

    def changed(self, connection: "Recipient") -> None:
        """Opened, or subscribed to something else."""

    def left(self, connection: "Recipient") -> None:
        """Gets nothing any more."""

    def resumed(self) -> None:
        """A connection that had enough asks for more."""

    def stats(self) -> Mapping[str, object]:
        """What was generated and sent so far."""

    async def run(self, frames: "Callable[[Hashable], Frames]") -> None:
        """Sends for ever, or until all is sent; `frames` makes the renderer of an audience."""


class Recipient(Protocol):
    """A connection as a feed sees it."""

    @property
    def audience(self) -> Hashable | None:
        """What it is subscribed to: equal audiences get equal bytes. None: nothing."""

    @property
    def writable(self) -> bool:
        """Asks for more."""

    def receptive(self, now_s: float) -> bool:
        """Whether anything would get through just now."""

    def deliver(self, data: bytes, frames: int) -> None:
        """Send so many whole frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What the command line asks for, checked."""

    capture: Path | None
    rate: float | None
    """Trades (of a recording: frames) a second; None: as fast as they are taken."""
    count: int | None
    symbols: int
    listing: Path | None
    seed: int
    start_after: int
    faults: Faults


class Frames(Protocol):
    """Renders the current batch for everyone who wants the same."""

    @property
    def frames(self) -> int: ...

    @property
    def held(self) -> int:
        """Trades of earlier batches that were not rendered yet."""

    def render(self) -> bytes: ...

    def late(self, now_us: int) -> bytes:
        """What was held back and is due now."""


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
    """One exchange. Its module `appliance.sim.<exchange>` has `assemble(setup) -> (dialect, feed)`."""

    @property
    def strikes(self) -> Strikes:
        """The faults that have struck."""

    @property
    def requests(self) -> Mapping[str, int]:
        """REST requests so far, by path."""

    def answer(self, request: Request, now_s: float) -> Reply | None:
        """A REST request's reply; None: it is never answered."""

    def upgrade(self, request: Request, now_s: float) -> Session | Reply | None:
        """A websocket handshake: a session, or a refusal; None: it is never answered."""

    def frames(self, audience: Hashable) -> Frames:
        """A renderer of what that audience gets."""

    def garbage(self, kind: Kind) -> Frame:
        """A frame that no client should choke on. `fragmented` is no frame of its own: it is how a trade is sent."""
