"""The local Deribit: what it lists, prints and allows, as bytes in and bytes out."""

from collections.abc import Hashable, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl

from websockets.frames import Frame, Opcode

from appliance.errors import ConfigError
from appliance.sim import deribit_listing
from appliance.sim import deribit_rpc as rpc
from appliance.sim.binance_garbage import garbage
from appliance.sim.binance_rest import faulty
from appliance.sim.capture import CaptureFeed, Recording, read_maybe_zstd
from appliance.sim.deribit_credits import Purse
from appliance.sim.deribit_listing import Listing
from appliance.sim.deribit_render import NotificationRenderer
from appliance.sim.deribit_rest import Questions
from appliance.sim.deribit_rpc import Call, Refused
from appliance.sim.deribit_session import SOCKET_METHODS, Audience, DeribitSession
from appliance.sim.dialect import Dialect, Feed, Frames, Printed, Reply, Request, Session, Setup
from appliance.sim.faults import Expiry, Faults, Kind, Listed, Rest, Schema, Strikes, Upgrade
from appliance.sim.synthetic import Plan, SyntheticFeed
from appliance.sim.tape import Tape

REST_PATH, WS_PATH = "/api/v2", "/ws/api/v2"
HISTORY_PATH = "/history/api/v2"  # what is a host of its own there
BATCH_US = {"raw": 0, "100ms": 100_000, "agg2": 1_000_000}
STEP_TRADES = 200  # from what is announced to what it announces, and from state to state
NOT_FOUND = Reply(404, b"<html><body><h1>404 Not Found</h1></body></html>", content_type="text/html")
TOO_MANY_CONNECTIONS = Reply(429, b"<html><body><h1>429 Too Many Requests</h1></body></html>", content_type="text/html")


def assemble(setup: Setup) -> tuple[Dialect, Feed]:
    """The exchange that was asked for, and where its frames come from. Raises ConfigError."""
    listing = _recorded_listing(setup.listing) if setup.listing is not None else None
    faults, strikes = setup.faults, Strikes()
    if setup.capture is not None:
        recording = Recording.load(setup.capture)
        capture = CaptureFeed(recording, rate=setup.rate, count=setup.count, start_after=setup.start_after)
        return Deribit(listing or deribit_listing.named(list(recording.printed)), capture, None, faults, strikes), capture
    listing = listing or deribit_listing.synthetic(setup.symbols)
    tape = Tape(len(listing.instruments), setup.seed, remember=faults.limits.retained_trades)
    plans = [*_listings(listing, tape, faults), *_expiries(listing, tape, faults)]
    feed = SyntheticFeed(
        tape, listing.names(), rate=setup.rate, count=setup.count, start_after=setup.start_after, faults=faults, plans=plans
    )
    return Deribit(listing, feed, tape, faults, strikes), feed


def _recorded_listing(path: Path) -> Listing:
    try:
        return deribit_listing.recorded(read_maybe_zstd(path))
    except OSError as problem:
        raise ConfigError(f"--exchange-info {path}: {problem.strerror}") from None
    except ValueError as problem:
        raise ConfigError(f"--exchange-info {path}: {problem}") from None


def _listings(listing: Listing, tape: Tape, faults: Faults) -> list[Plan]:
    plans = []
    for fault in faults.all(Listed):
        index = _named(listing, "listing", fault.symbol)
        listing.withhold(index)
        tape.close(index)
        plans += [
            Plan(fault.after, partial(listing.change, index, "open")),
            Plan(fault.after + STEP_TRADES, partial(tape.begin, index)),
        ]
    return plans


def _expiries(listing: Listing, tape: Tape, faults: Faults) -> list[Plan]:
    plans = []
    for fault in faults.all(Expiry):
        index = _named(listing, "expiry", fault.symbol)
        plans.append(Plan(fault.after, partial(tape.close, index)))
        for number, state in enumerate(("settlement", "delivered", "archivized")):
            plans.append(Plan(fault.after + number * STEP_TRADES, partial(listing.change, index, state)))
    return plans


def _named(listing: Listing, fault: str, name: str) -> int:
    if len(listing.instruments) < 2:
        raise ConfigError(f"--fault {fault}: needs --symbols 2 or more, as one must trade")
    if name and name not in listing:
        raise ConfigError(f"--fault {fault}: no instrument {name!r}; there are {', '.join(listing.names()[:5])}, …")
    return listing.index(name) if name else len(listing.instruments) - 1


class Deribit:
    """One exchange with its HTTP methods and its websocket connections."""

    def __init__(self, listing: Listing, printed: Printed, tape: Tape | None, faults: Faults, strikes: Strikes) -> None:
        self.strikes = strikes
        self._listing = listing
        self._tape = tape
        self._faults = faults
        self._opened = 0
        self._requests: dict[str, int] = {}
        self._purses: dict[str, Purse] = {}
        schema = faults.one(Schema) or Schema()
        self._generation = int(schema.generation)

        def questions(history: bool) -> Questions:
            # The history host has rows without what the new engine added.
            renderer = self._renderer((), min(self._generation, 2025) if history else self._generation) if tape is not None else None
            return Questions(listing, printed, renderer, faults, history=history)

        self._questions, self._history = questions(False), questions(True)

    @property
    def requests(self) -> Mapping[str, int]:
        return self._requests

    def answer(self, request: Request, now_s: float) -> Reply | None:
        path, _, query = request.target.partition("?")
        for fault in self._faults.all(Rest):
            if path.endswith(fault.path) and self.strikes.hit(fault, fault.times):
                self._count(path.removeprefix(REST_PATH).strip("/"))
                return faulty(fault.answer, fault.retry_after_s, now_s)
        if request.connections > self._faults.limits.connections:
            return TOO_MANY_CONNECTIONS
        questions = self._history if path.startswith(HISTORY_PATH) else self._questions
        root = HISTORY_PATH if questions is self._history else REST_PATH
        if request.method not in ("GET", "POST") or not (path == root or path.startswith(root + "/")):
            return NOT_FOUND if request.method in ("GET", "POST") else Reply(405, b"", [("Allow", "GET, POST")])
        number: int | str | None = None
        try:
            if request.method == "POST":
                call = Call.parse(request.body)
                number = call.id
            else:
                call = Call("", path.removeprefix(root).strip("/"), dict(parse_qsl(query)))
            self._count(call.method)
            if call.method in SOCKET_METHODS:
                raise Refused(10030)
            if call.method not in questions:
                raise Refused(-32601)
            self._purse(request.address).spend(call.method, False, now_s)
            return Reply(200, rpc.result(number, questions.result(call.method, call.params, now_s), now_s))
        except Refused as refused:
            return Reply(400, rpc.error(number, refused, now_s))

    def _count(self, method: str) -> None:
        self._requests[method] = self._requests.get(method, 0) + 1

    def upgrade(self, request: Request, now_s: float) -> Session | Reply | None:
        for fault in self._faults.all(Upgrade):
            if self.strikes.hit(fault, fault.times):
                return faulty(fault.answer, fault.retry_after_s, now_s)
        if request.target.partition("?")[0] != WS_PATH:
            return NOT_FOUND
        if request.connections > self._faults.limits.connections:
            return TOO_MANY_CONNECTIONS
        session = DeribitSession(
            self._listing, self._questions, self._purse, request.address, self._opened, now_s, self._faults, self.strikes
        )
        self._opened += 1
        return session

    def frames(self, audience: Hashable) -> Frames:
        assert isinstance(audience, Audience)
        channels = sorted(audience.channels)
        intervals = {channel.rpartition(".")[2] for channel in channels}
        # One rhythm for a connection: whoever mixes them gets the quickest.
        batch_us = min(BATCH_US[interval] for interval in intervals)
        return self._renderer(channels, self._generation, batch_us, audience.sees_holes)

    def _renderer(self, channels: "list[str] | tuple[()]", generation: int, batch_us: int = 0, whole: bool = False) -> NotificationRenderer:
        assert self._tape is not None, "a recording is not rendered"
        return NotificationRenderer(
            self._tape,
            [(one.name.encode(), one.trade_id_prefix.encode(), one.kind == "option") for one in self._listing.instruments],
            [(channel.encode(), sorted(self._listing.of_channel(channel) or ())) for channel in channels],
            generation=generation,
            batch_us=batch_us,
            whole=whole,
            combos=self._listing.combos(),
        )

    def _purse(self, owner: str) -> Purse:
        return self._purses.setdefault(owner, Purse())

    def garbage(self, kind: Kind) -> Frame:
        return Frame(Opcode.BINARY if kind == "binary" else Opcode.TEXT, garbage(kind))
