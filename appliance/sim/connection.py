"""One accepted socket: HTTP requests, until one of them makes it a websocket."""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import cast

import h11
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import SEND_EOF, SERVER, State
from websockets.protocol import Protocol as Websocket
from websockets.utils import accept_key

from appliance.sim.delivery import Delivery, End
from appliance.sim.dialect import Dialect, Feed, Reply, Request, Session, Step
from appliance.sim.faults import Faults

BODY_BYTES_MAX = 1024 * 1024

HEAD_BYTES_MAX = 256 * 1024
"""Of a request's head. Far above what the exchange takes: refusing a long URL is the dialect's business."""

UNSENT_HIGH_BYTES = 1024 * 1024
"""Above this a connection does not ask for more. What the kernel's buffers hold comes on top."""

RESET_AFTER_S = 0.01
"""A reset throws away what has not left the process, and the frame before it should be cut in its middle."""

HALF_A_HEADER = b"\x81\x7e"

LINGER_S = 10.0
"""So long the client may take to end a closed connection."""

ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER on with no time: close() sends a reset."""


@dataclass(slots=True)
class Counters:
    """What the exchange has seen and sent, over all connections."""

    requests: int = 0
    websockets: int = 0
    """Opened so far."""
    upgrades_refused: int = 0
    frames_sent: int = 0
    """Of the feed."""
    bytes_sent: int = 0
    client_frames: int = 0
    pings_sent: int = 0
    pongs_received: int = 0
    closed_by_client: int = 0
    closes_sent: dict[str, int] = field(default_factory=dict)
    """By code and reason."""
    resets: int = 0
    dropped_slow_bytes: int = 0
    """Not sent because a client did not read."""


@dataclass(slots=True)
class Exchange:
    """What all connections share."""

    dialect: Dialect
    feed: Feed
    faults: Faults
    stats: Callable[[], bytes]
    counters: Counters = field(default_factory=Counters)
    connections: "set[Connection]" = field(default_factory=set)
    alone: asyncio.Event = field(default_factory=asyncio.Event)
    """No connection is open."""

    def __post_init__(self) -> None:
        self.alone.set()


class Connection(asyncio.Protocol):
    """Made by the server for each accepted socket. One thread: the loop's."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        self._request: h11.Request | None = None
        self._body = b""
        self._websocket: Websocket | None = None
        self._transport: asyncio.Transport
        self.address = ""
        self._message: list[bytes] = []
        self._session: Session | None = None
        self._delivery: Delivery
        self._ended = False
        self.writable = True

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=UNSENT_HIGH_BYTES)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else ""
        self._exchange.connections.add(self)
        self._exchange.alone.clear()

    def data_received(self, data: bytes) -> None:
        if self._websocket is not None:
            self._receive(data)
            return
        try:
            self._http.receive_data(data)
            self._serve()
        except h11.RemoteProtocolError as error:
            if self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                self._respond(Reply(error.error_status_hint, str(error).encode(), content_type="text/plain"))
            self._transport.close()

    def eof_received(self) -> bool:
        if self._websocket is not None:
            self._websocket.receive_eof()
        return False  # closes the transport once all is written

    def connection_lost(self, exc: Exception | None) -> None:
        self._exchange.connections.discard(self)
        if not self._exchange.connections:
            self._exchange.alone.set()
        self._leave()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self._exchange.feed.resumed()

    # HTTP

    def _serve(self) -> None:
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return
            if isinstance(event, h11.ConnectionClosed):
                self._transport.close()
                return
            if isinstance(event, h11.Request):
                self._request, self._body = event, b""
            elif isinstance(event, h11.Data):
                self._body += bytes(event.data)
                if len(self._body) > BODY_BYTES_MAX:
                    self._respond(Reply(413, b"", content_type="text/plain"))
                    self._transport.close()
                    return
            elif isinstance(event, h11.EndOfMessage):
                assert self._request is not None
                if not self._answer(self._request) or self._websocket is not None:
                    return
                if self._http.our_state is not h11.DONE:
                    self._transport.close()
                    return
                self._http.start_next_cycle()

    def _answer(self, received: h11.Request) -> bool:
        """Answers a request; False when it is left without an answer for ever."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in received.headers}
        same = sum(one.address == self.address for one in self._exchange.connections)
        # h11 lets only ASCII through.
        request = Request(received.method.decode(), received.target.decode(), headers, self.address, self._body, same)
        now_s = time.time()
        if headers.get("upgrade", "").lower() == "websocket":
            return self._upgrade(request, now_s)
        if request.target == "/sim/stats":
            self._respond(Reply(200, self._exchange.stats()))
            return True
        self._exchange.counters.requests += 1
        reply = self._exchange.dialect.answer(request, now_s)
        if reply is not None:
            self._respond(reply)
        return reply is not None

    def _respond(self, reply: Reply) -> None:
        length = 2 * len(reply.body) if reply.cut else len(reply.body)
        headers = [("Content-Type", reply.content_type), ("Content-Length", str(length)), *reply.headers]
        response = h11.Response(status_code=reply.status, headers=headers, reason=HTTPStatus(reply.status).phrase)
        # Without an end of the message the connection is closed behind it.
        for event in (response, h11.Data(data=reply.body), *(() if reply.cut else (h11.EndOfMessage(),))):
            if data := self._http.send(event):
                self._transport.write(data)

    # Websocket

    def _upgrade(self, request: Request, now_s: float) -> bool:
        key = request.headers.get("sec-websocket-key")
        counters = self._exchange.counters
        session = self._exchange.dialect.upgrade(request, now_s) if key else Reply(400, b"no Sec-WebSocket-Key", content_type="text/plain")
        if session is None:
            return False
        if isinstance(session, Reply):
            counters.upgrades_refused += 1
            self._respond(replace(session, headers=[*session.headers, ("Connection", "close")]))
            self._transport.close()
            return False
        assert key is not None
        headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept_key(key))]
        if switching := self._http.send(h11.InformationalResponse(status_code=101, headers=headers, reason="Switching Protocols")):
            self._transport.write(switching)
        exchange = self._exchange
        self._session = session
        self._delivery = Delivery(exchange.faults, counters.websockets, now_s, exchange.dialect.garbage, exchange.dialect.strikes)
        self._websocket = Websocket(SERVER, state=State.OPEN)
        counters.websockets += 1
        exchange.feed.changed(self)
        if early := self._http.trailing_data[0]:
            self._receive(early)
        return True

    @property
    def open(self) -> bool:
        """A websocket to which data may be sent."""
        websocket = self._websocket
        return websocket is not None and websocket.state is State.OPEN and not self._ended and not self._transport.is_closing()

    @property
    def unsent_bytes(self) -> int:
        """Written, and not yet taken by the kernel."""
        return self._transport.get_write_buffer_size()

    @property
    def audience(self) -> Hashable | None:
        return self._session.audience if self._session else None

    def receptive(self, now_s: float) -> bool:
        return self._delivery.plain or not self._delivery.silent(now_s)

    def deliver(self, data: bytes, frames: int) -> None:
        """Send whole frames of the feed. A client that does not read is cut off, and what waits for it is dropped and counted."""
        exchange = self._exchange
        delivered = self._delivery.through(data, frames, time.time()) if not self._delivery.plain else None
        unsent_bytes = self.unsent_bytes
        if unsent_bytes > exchange.faults.limits.unsent_mb * 1024 * 1024:
            exchange.counters.dropped_slow_bytes += unsent_bytes + len(data)
            self._reset()
            return
        if delivered is None:
            self._transport.write(data)
        else:
            if delivered.data:
                self._transport.write(delivered.data)
            data, frames = delivered.data, delivered.frames
            if delivered.end is not None:
                self._finish(delivered.end)
        exchange.counters.frames_sent += frames
        exchange.counters.bytes_sent += len(data)

    def tick(self, now_s: float) -> None:
        """Lets the exchange do what time brings."""
        if self._session is None or not self.open:
            return
        for step in self._session.due(now_s):
            self._send(step)
        if self.open and (held := self._delivery.due(now_s)).data:
            self._transport.write(held.data)
            self._exchange.counters.frames_sent += held.frames
            self._exchange.counters.bytes_sent += len(held.data)
        if self.open and (end := self._delivery.end(now_s)) is not None:
            self._transport.write(HALF_A_HEADER if end == "reset" else b"")
            self._finish(end)
        if self.open:
            self._exchange.feed.changed(self)  # a late request may have subscribed to more

    def close(self, code: int, reason: str = "") -> None:
        """Begins the closing handshake."""
        if self.open:
            self._send(Close(code, reason))
        elif self._websocket is None:
            self._transport.close()

    def _receive(self, data: bytes) -> None:
        assert self._websocket is not None
        assert self._session is not None
        if self._websocket.state is State.CLOSED:
            return
        self._websocket.receive_data(data)
        for frame in self._websocket.events_received():
            assert isinstance(frame, Frame)
            self._exchange.counters.client_frames += 1
            if frame.opcode is Opcode.CLOSE:
                self._exchange.counters.closed_by_client += 1
                continue
            if frame.opcode is Opcode.PONG:
                self._exchange.counters.pongs_received += 1
            if (message := self._whole(frame)) is not None and self.open:
                for step in self._session.received(message, time.time()):
                    self._send(step)
        self._flush()
        if self.open:
            self._exchange.feed.changed(self)

    def _whole(self, frame: Frame) -> Frame | None:
        """A frame as a message: fragments are put together; None while some are missing."""
        if frame.opcode in {Opcode.PING, Opcode.PONG}:
            return frame
        self._message.append(bytes(frame.data))
        if not frame.fin:
            return None
        data, self._message = b"".join(self._message), []
        return Frame(Opcode.TEXT, data)

    def _send(self, step: Step) -> None:
        assert self._websocket is not None
        if not self.open:
            return
        if isinstance(step, Close):
            name = f"{int(step.code)} {step.reason}".strip()
            closes = self._exchange.counters.closes_sent
            closes[name] = closes.get(name, 0) + 1
            self._websocket.send_close(step.code, step.reason)
            asyncio.get_running_loop().call_later(LINGER_S, self._transport.abort)
        else:
            if step.opcode is Opcode.PING:
                self._exchange.counters.pings_sent += 1
            self._transport.write(step.serialize(mask=False))
        self._flush()

    def _flush(self) -> None:
        """Writes what the protocol has to say, behind all frames already queued, and leaves the feed when it closes."""
        assert self._websocket is not None
        for data in self._websocket.data_to_send():
            if data != SEND_EOF:
                self._transport.write(data)
                continue
            self._end()
        if self._websocket.state is not State.OPEN:
            self._leave()

    def _end(self) -> None:
        """Ends our side once all is written."""
        if self._ended or self._transport.is_closing():
            return
        self._ended = True
        # Half a close: closing a socket with unread pongs in it would reset it, and the client would lose what it has not read.
        if self._transport.can_write_eof():
            self._transport.write_eof()
            asyncio.get_running_loop().call_later(LINGER_S, self._transport.abort)
        else:
            self._transport.close()

    def _finish(self, end: End) -> None:
        """Ends the connection as no websocket should."""
        self._leave()
        if end == "eof":
            self._end()
        else:
            self._ended = True
            asyncio.get_running_loop().call_later(RESET_AFTER_S, self._reset)

    def _leave(self) -> None:
        if self._session is not None:
            self._exchange.feed.left(self)

    def _reset(self) -> None:
        self._exchange.counters.resets += 1
        self._leave()
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        self._transport.abort()
