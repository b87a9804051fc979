"""The local Deribit: what it lists, prints and allows, as bytes in and bytes out."""

import json
from collections.abc import Hashable, Mapping
from urllib.parse import parse_qsl

from websockets.frames import Frame, Opcode

from appliance.errors import ConfigError
from appliance.sim import deribit_listing
from appliance.sim import deribit_rpc as rpc
from appliance.sim.binance_garbage import garbage
from appliance.sim.binance_rest import faulty
from appliance.sim.capture import CaptureFeed, Recording
from appliance.sim.deribit_listing import Listing
from appliance.sim.deribit_render import NotificationRenderer
from appliance.sim.deribit_rpc import Refused
from appliance.sim.deribit_session import Audience, DeribitSession
from appliance.sim.dialect import Dialect, Feed, Frames, Printed, PrintedTrade, Reply, Request, Session, Setup
from appliance.sim.faults import Faults, Kind, Rest, Schema, Strikes, Upgrade
from appliance.sim.synthetic import SyntheticFeed
from appliance.sim.tape import Tape

REST_PATH, WS_PATH = "/api/v2/", "/ws/api/v2"
BATCH_US = {"raw": 0, "100ms": 100_000, "agg2": 1_000_000}
ROWS_MAX = 1_000
DAY_US = 24 * 3600 * 1_000_000


def assemble(setup: Setup) -> tuple[Dialect, Feed]:
    """The exchange that was asked for, and where its frames come from. Raises ConfigError."""
    if setup.listing is not None:
        raise ConfigError("--exchange-info: a recorded list is of Binance; the local Deribit makes its own")
    faults, strikes = setup.faults, Strikes()
    if setup.capture is not None:
        recording = Recording.load(setup.capture)
        capture = CaptureFeed(recording, rate=setup.rate, count=setup.count, start_after=setup.start_after)
        return Deribit(deribit_listing.named(list(recording.printed)), capture, None, faults, strikes), capture
    listing = deribit_listing.synthetic(setup.symbols)
    tape = Tape(len(listing.instruments), setup.seed, remember=faults.limits.retained_trades)
    feed = SyntheticFeed(tape, listing.names(), rate=setup.rate, count=setup.count, start_after=setup.start_after, faults=faults)
    return Deribit(listing, feed, tape, faults, strikes), feed


class Deribit:
    """One exchange with its HTTP methods and its websocket connections."""

    def __init__(self, listing: Listing, printed: Printed, tape: Tape | None, faults: Faults, strikes: Strikes) -> None:
        self.strikes = strikes
        self._listing = listing
        self._printed = printed
        self._tape = tape
        self._faults = faults
        self._opened = 0
        self._requests: dict[str, int] = {}

    @property
    def requests(self) -> Mapping[str, int]:
        return self._requests

    def answer(self, request: Request, now_s: float) -> Reply | None:
        path, _, query = request.target.partition("?")
        method = path.removeprefix(REST_PATH)
        self._requests[method] = self._requests.get(method, 0) + 1
        for fault in self._faults.all(Rest):
            if path.endswith(fault.path) and self.strikes.hit(fault, fault.times):
                return faulty(fault.answer, fault.retry_after_s, now_s)
        if not path.startswith(REST_PATH):
            return Reply(404, b"<html><body><h1>404 Not Found</h1></body></html>", content_type="text/html")
        try:
            body = self._result(method, dict(parse_qsl(query)), now_s)
        except Refused as refused:
            return Reply(400, rpc.error(None, refused, now_s))
        # The list is large and rendered already.
        return Reply(200, rpc.result(0, None, now_s).replace(b'"id":0,', b"", 1).replace(b'"result":null', b'"result":' + body, 1))

    def _result(self, method: str, params: dict[str, str], now_s: float) -> bytes:
        match method:
            case "public/get_instruments":
                return self._listing.body(params.get("currency", "any"), params.get("kind"))
            case "public/get_last_trades_by_instrument":
                return self._last_trades(params, now_s)
            case "public/get_time":
                return b"%d" % int(now_s * 1_000)
            case "public/status":
                return b'{"locked":"false","locked_indices":[]}'
            case "public/test":
                return b'{"version":"1.2.26"}'
            case "public/set_heartbeat" | "public/subscribe":
                raise Refused(10030)
        raise Refused(-32601)

    def _last_trades(self, params: dict[str, str], now_s: float) -> bytes:
        name = params.get("instrument_name", "")
        if name not in self._listing:
            raise Refused(-32602, param="instrument_name", reason="wrong format")
        try:
            count = min(int(params.get("count", "10")), ROWS_MAX)
            first = int(params["start_seq"]) if "start_seq" in params else None
            last = int(params["end_seq"]) if "end_seq" in params else None
        except ValueError:
            raise Refused(-32602, param="start_seq", reason="wrong format") from None
        until_us = int(now_s * 1_000_000) - self._faults.limits.rest_lag_ms * 1_000
        rows = self._printed.rows(name, first, count + 1, until_us)
        # The main host forgets after a day, without a word.
        rows = [row for row in rows if (last is None or row.trade_id <= last) and row.trade_us > until_us - DAY_US]
        more = len(rows) > count
        rows = rows[:count] if first is not None else rows[-count:]
        if params.get("sorting", "default") != "asc":
            rows = rows[::-1]
        return json.dumps({"trades": [self._row(name, row) for row in rows], "has_more": more}, separators=(",", ":")).encode()

    def _row(self, name: str, row: PrintedTrade) -> dict[str, object]:
        index = self._listing.index(name)
        number = (index + 1) * 10**9 + row.trade_id % 10**9  # as the renderer has it
        return {
            "trade_seq": row.trade_id,
            "trade_id": f"{self._listing.instruments[index].trade_id_prefix}{number}",
            "timestamp": row.trade_us // 1_000,
            "tick_direction": row.trade_id & 3,
            "price": float(row.px),
            "instrument_name": name,
            "direction": "sell" if row.buyer_is_maker else "buy",
            "amount": float(row.sz),
        }

    def upgrade(self, request: Request, now_s: float) -> Session | Reply | None:
        for fault in self._faults.all(Upgrade):
            if self.strikes.hit(fault, fault.times):
                return faulty(fault.answer, fault.retry_after_s, now_s)
        if request.target.partition("?")[0] != WS_PATH:
            return Reply(404, b"<html><body><h1>404 Not Found</h1></body></html>", content_type="text/html")
        session = DeribitSession(self._listing, self._opened, now_s, self._faults, self.strikes)
        self._opened += 1
        return session

    def frames(self, audience: Hashable) -> Frames:
        assert isinstance(audience, Audience)
        assert self._tape is not None, "a recording is not rendered"
        channels = sorted(audience.channels)
        intervals = {channel.rpartition(".")[2] for channel in channels}
        schema = self._faults.one(Schema) or Schema()
        return NotificationRenderer(
            self._tape,
            [(one.name.encode(), one.trade_id_prefix.encode(), one.kind == "option") for one in self._listing.instruments],
            [(channel.encode(), sorted(self._listing.of_channel(channel) or ())) for channel in channels],
            generation=int(schema.generation),
            # One rhythm for a connection: whoever mixes them gets the quickest.
            batch_us=min(BATCH_US[interval] for interval in intervals),
            whole=audience.sees_holes,
        )

    def garbage(self, kind: Kind) -> Frame:
        return Frame(Opcode.BINARY if kind == "binary" else Opcode.TEXT, garbage(kind))
