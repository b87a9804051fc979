"""The local Binance: what it lists, prints and allows, as bytes in and bytes out."""

from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from random import Random
from urllib.parse import unquote

from websockets.frames import Frame, Opcode

from appliance.errors import ConfigError
from appliance.sim import binance_listing
from appliance.sim.binance_garbage import garbage
from appliance.sim.binance_listing import Listing
from appliance.sim.binance_rest import NOT_FOUND, BinanceRest, error, faulty
from appliance.sim.binance_session import Audience, BinanceSession
from appliance.sim.capture import CaptureFeed, Recording, read_maybe_zstd
from appliance.sim.dialect import Dialect, Feed, Frames, Printed, Reply, Request, Session, Setup
from appliance.sim.faults import Delisted, Faults, Kind, Listed, Schema, Strikes, Upgrade
from appliance.sim.render import Renderer
from appliance.sim.synthetic import Plan, SyntheticFeed
from appliance.sim.tape import Tape


def assemble(setup: Setup) -> tuple[Dialect, Feed]:
    """The exchange that was asked for, and where its frames come from. Raises ConfigError."""
    listing = _recorded_listing(setup) if setup.listing else None
    faults, strikes = setup.faults, Strikes()
    if setup.capture is not None:
        recording = Recording.load(setup.capture)
        capture = CaptureFeed(recording, rate=setup.rate, count=setup.count, start_after=setup.start_after)
        listing = listing or binance_listing.named(recording.printed)
        return Binance(listing, capture, None, faults, strikes, setup.seed), capture
    listing = listing or binance_listing.synthetic(setup.symbols)
    names = listing.trading()
    if not names:
        raise ConfigError(f"--exchange-info {setup.listing}: lists no spot symbol that trades")
    tape = Tape(len(names), setup.seed, remember=faults.limits.retained_trades)
    plans = [*_listings(names, listing, tape, faults), *_delistings(names, listing, tape, faults)]
    synthetic = SyntheticFeed(tape, names, rate=setup.rate, count=setup.count, start_after=setup.start_after, faults=faults, plans=plans)
    return Binance(listing, synthetic, tape, faults, strikes, setup.seed, names), synthetic


def _listings(names: list[str], listing: Listing, tape: Tape, faults: Faults) -> list[Plan]:
    """Listed and traded in the same moment: whoever follows the list has missed the first trades."""
    plans = []
    for fault in faults.all(Listed):
        name = _named(names, "listing", fault.symbol)
        listing.withhold(name)
        tape.close(names.index(name))
        plans += [
            Plan(fault.after, partial(tape.begin, names.index(name), fault.first_id)),
            Plan(fault.after, partial(listing.trade, name)),
        ]
    return plans


def _delistings(names: list[str], listing: Listing, tape: Tape, faults: Faults) -> list[Plan]:
    plans = []
    for fault in faults.all(Delisted):
        name = _named(names, "delisting", fault.symbol)
        plans += [
            Plan(fault.after, partial(tape.close, names.index(name))),
            Plan(fault.after, partial(listing.withhold if fault.gone else listing.halt, name)),
        ]
        if fault.again:
            plans += [
                Plan(fault.after + fault.again, partial(tape.resume, names.index(name))),
                Plan(fault.after + fault.again, partial(listing.trade, name)),
            ]
    return plans


def _named(names: list[str], fault: str, name: str) -> str:
    if len(names) < 2:
        raise ConfigError(f"--fault {fault}: needs a symbol beside it that trades; take --symbols 2 or more")
    if name and name not in names:
        raise ConfigError(f"--fault {fault}: no symbol {name!r}; there are {', '.join(names[:5])}, …")
    return name or names[-1]


def _recorded_listing(setup: Setup) -> Listing:
    assert setup.listing is not None
    try:
        return binance_listing.recorded(read_maybe_zstd(setup.listing))
    except OSError as problem:
        raise ConfigError(f"--exchange-info {setup.listing}: {problem.strerror}") from None
    except ValueError as problem:
        raise ConfigError(f"--exchange-info {setup.listing}: {problem}") from None


class Binance:
    """One exchange with its REST endpoints and its websocket connections."""

    def __init__(
        self,
        listing: Listing,
        printed: Printed,
        tape: Tape | None,
        faults: Faults,
        strikes: Strikes,
        seed: int,
        names: Sequence[str] | None = None,
    ) -> None:
        """`names`: by the index that the tape gives their trades; None: those that trade now."""
        self.strikes = strikes
        self._rest = BinanceRest(listing, printed, faults, strikes)
        self._tape = tape
        self._faults = faults
        self._random = Random(seed)
        self._names = listing.trading() if names is None else list(names)
        self._symbols = {f"{name.lower()}@trade": i for i, name in enumerate(self._names)}
        self._connects: dict[str, deque[float]] = {}
        self._opened = 0

    @property
    def requests(self) -> Mapping[str, int]:
        return self._rest.requests

    def answer(self, request: Request, now_s: float) -> Reply | None:
        if request.method != "GET":
            return Reply(405, b"", [("Allow", "GET")])
        return self._rest.answer(request, now_s)

    def upgrade(self, request: Request, now_s: float) -> Session | Reply | None:
        limits = self._faults.limits
        for fault in self._faults.all(Upgrade):
            if self.strikes.hit(fault, fault.times):
                return faulty(fault.answer, fault.retry_after_s, now_s)
        if len(request.target) > limits.uri_bytes_max:
            return Reply(414, b"<html><body><h1>414 Request-URI Too Large</h1></body></html>", content_type="text/html")
        if (wait_s := self._connect(request.address, now_s)) > 0:
            return Reply(429, error(-1003, "Too many connection attempts."), [("Retry-After", str(int(wait_s) + 1))])
        path, _, query = request.target.partition("?")
        options = dict(part.partition("=")[::2] for part in query.split("&"))
        if path == "/stream":
            names, combined = options.get("streams", ""), True
        elif path == "/ws" or path.startswith("/ws/"):
            names, combined = path.removeprefix("/ws").removeprefix("/"), False
        else:
            return NOT_FOUND
        # Split before decoding: a slash in a name would be encoded.
        streams = dict.fromkeys(unquote(name) for name in names.split("/") if name)
        if len(streams) > limits.streams_max:
            return Reply(400, error(2, f"Invalid request: more than {limits.streams_max} streams"))
        session = BinanceSession(
            self._symbols,
            streams,
            number=self._opened,
            combined=combined,
            microseconds=options.get("timeUnit", "").upper() == "MICROSECOND",
            now_s=now_s,
            faults=self._faults,
            strikes=self.strikes,
            random=self._random,
        )
        self._opened += 1
        return session

    def _connect(self, address: str, now_s: float) -> float:
        """Counts an attempt; seconds until the next one is allowed, 0 when this one is."""
        limits = self._faults.limits
        attempts = self._connects.setdefault(address, deque())
        while attempts and attempts[0] <= now_s - limits.connects_window_s:
            attempts.popleft()
        if len(attempts) >= limits.connects:
            return attempts[0] + limits.connects_window_s - now_s
        attempts.append(now_s)
        return 0.0

    def frames(self, audience: Hashable) -> Frames:
        assert isinstance(audience, Audience)
        assert self._tape is not None, "a recording is not rendered"
        schema = self._faults.one(Schema) or Schema()
        return Renderer(
            self._tape,
            [(i, self._names[i].lower().encode() + b"@trade", self._names[i].encode()) for i in sorted(audience.symbols)],
            combined=audience.combined,
            microseconds=audience.microseconds,
            whole=audience.sees_holes,
            order_ids=schema.order_ids,
            extra_key=schema.extra_key,
        )

    def garbage(self, kind: Kind) -> Frame:
        return Frame(Opcode.BINARY if kind == "binary" else Opcode.TEXT, garbage(kind))
