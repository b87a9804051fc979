"""A websocket server that does what a test tells it to, on a real socket, and the listener of a client without a ring."""

import asyncio
import json
from array import array
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar, cast
from urllib.parse import unquote

import picows
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener

from appliance.feed.connection import Connection

DEADLINE_S = 20.0
SYMBOLS = ["BTCUSDT", "ETHUSDT"]  # of which an ear keeps the ids
T = TypeVar("T")


def run(test: Callable[[], Awaitable[T]]) -> T:
    """Run an async test on the loop of production, never longer than the deadline."""

    async def bounded() -> T:
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await test()
        finally:
            for _ in range(20):  # a transport that was closed is gone some turns of the loop later
                await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(bounded())


async def fact(holds: Callable[[], object]) -> None:
    """Wait until something is so; the test's deadline bounds it."""
    while not holds():  # noqa: ASYNC110 - any fact, not only those that have an event
        await asyncio.sleep(0.005)


class Peer(WSListener):
    """The server's end of one connection: what came, and what is answered to requests."""

    def __init__(self, server: "Server", path: str) -> None:
        self.server = server
        self.path = path
        self.frames: list[tuple[int, bytes, float]] = []
        self.streams = [stream for stream in unquote(path).partition("streams=")[2].split("/") if stream]
        self.transport: WSTransport | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.server.peers.append(self)
        self.server.greet(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        payload = frame.get_payload_as_bytes()
        self.frames.append((int(frame.msg_type), payload, asyncio.get_running_loop().time()))  # type: ignore[call-overload]
        if frame.msg_type == WSMsgType.TEXT:
            self.server.answer(self, json.loads(payload))
        elif frame.msg_type == WSMsgType.PING and self.server.answers_pings:
            transport.send_pong(payload)
        elif frame.msg_type == WSMsgType.CLOSE and self.server.answers_close:
            self.server.before_close(self)
            transport.send_close()
            transport.disconnect()

    def send(self, message: object) -> None:
        assert self.transport is not None
        self.transport.send(WSMsgType.TEXT, message if isinstance(message, bytes) else json.dumps(message).encode())

    def of_type(self, message_type: int) -> list[bytes]:
        return [payload for kind, payload, _ in self.frames if kind == message_type]

    def requests(self, method: str) -> list[dict[str, Any]]:
        return [request for request in map(json.loads, self.of_type(0x1)) if request["method"] == method]


class Server:
    """A loopback exchange. Override the hooks by assignment; `refuse` is a status to refuse upgrades with."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.attempts = 0
        self.refuse: tuple[int, bytes, dict[str, str]] | None = None
        self.answers_pings = True
        self.answers_close = True
        self.silent_streams: set[str] = set()  # acknowledged and never listed
        self.greet: Callable[[Peer], None] = lambda peer: None
        self.before_close: Callable[[Peer], None] = lambda peer: None
        self.answer: Callable[[Peer, dict[str, Any]], None] = self.usual_answer
        self.port = 0

    def usual_answer(self, peer: Peer, request: dict[str, Any]) -> None:
        if request["method"] == "LIST_SUBSCRIPTIONS":
            peer.send({"result": [s for s in peer.streams if s not in self.silent_streams], "id": request["id"]})
        else:
            peer.streams += request["params"]
            peer.send({"result": None, "id": request["id"]})

    async def __aenter__(self) -> "Server":
        self._server = await picows.ws_create_server(self._accept, "127.0.0.1", 0, enable_auto_pong=False)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        for peer in self.peers:
            assert peer.transport is not None
            peer.transport.disconnect(graceful=False)
        self._server.close()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def _accept(self, request: WSUpgradeRequest) -> Peer | WSUpgradeResponseWithListener:
        self.attempts += 1
        if self.refuse is not None:
            status, body, headers = self.refuse
            return WSUpgradeResponseWithListener(_refusal(status, body, headers), None)
        return Peer(self, request.path.decode())


def _refusal(status: int, body: bytes, headers: dict[str, str]) -> WSUpgradeResponse:
    if status in (301, 302, 307):
        return cast(WSUpgradeResponse, WSUpgradeResponse.create_redirect_response(status, headers["Location"]))
    return cast(WSUpgradeResponse, WSUpgradeResponse.create_error_response(status, body, headers))


class Ear(WSListener):
    """The client's listener without decoder and ring: a frame that has a "stream" is a trade."""

    def __init__(self, control: Connection) -> None:
        self.control = control
        self.frames = 0
        self.trades = 0
        self.heard: list[bytes] = []
        self.ids = array("q", [-1] * len(SYMBOLS))
        self.last = (0, 0)

    def last_trade(self) -> tuple[int, int]:
        return self.last

    def last_ids(self) -> bytes:
        return self.ids.tobytes()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.control.on_connected(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.control.on_disconnected(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.frames += 1
        payload = frame.get_payload_as_bytes()
        if b'"e":"trade"' in payload:
            self.trades += 1
            self.heard.append(payload)
            data = json.loads(payload)["data"]
            if data["s"] in SYMBOLS:
                self.ids[SYMBOLS.index(data["s"])] = data["t"]
        else:
            self.control.on_other_frame(1, int(frame.msg_type), payload)  # type: ignore[call-overload]


def trade(number: int, symbol: str = "BTCUSDT") -> bytes:
    return b'{"stream":"%s@trade","data":{"e":"trade","s":"%s","t":%d}}' % (symbol.lower().encode(), symbol.encode(), number)


def trades(numbers: Iterable[int]) -> list[bytes]:
    return [trade(number) for number in numbers]
