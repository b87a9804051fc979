"""A websocket client that does only what it is told: no pong, no close, no reading ahead by itself."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from tests.local_exchange import LocalExchange

CHUNK_BYTES = 32 * 1024
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def path_of(names: list[str], more: str = "") -> str:
    """The path of a combined stream of trades."""
    return "/stream?streams=" + "/".join(f"{quote(name.lower())}@trade" for name in names) + more


class Wire:
    """One connection; `status` and `head` are the answer to its upgrade."""

    def __init__(self, exchange: LocalExchange, path: str, *, ca_file: Path | None = None) -> None:
        self.socket: socket.socket = socket.create_connection(("127.0.0.1", exchange.port), 10)
        if exchange.ca_file is not None:
            context = ssl.create_default_context(cafile=str(ca_file or exchange.ca_file))
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self.reader = StreamReader()
        head = (
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        self.socket.sendall(head.encode())
        received = b""
        while b"\r\n\r\n" not in received:
            some = self.socket.recv(CHUNK_BYTES)
            assert some, f"closed before an answer: {received!r}"
            received += some
        answer, _, early = received.partition(b"\r\n\r\n")
        self.head = answer.decode()
        self.status = int(self.head.split()[1])
        self.reader.feed_data(early)

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def send(self, text: str | bytes, opcode: Opcode = Opcode.TEXT) -> None:
        self.socket.sendall(Frame(opcode, text.encode() if isinstance(text, str) else text).serialize(mask=True))

    def frame(self, within_s: float = 10.0) -> Frame | None:
        """The next frame as it came, control frames and fragments included; None at the end of the stream."""
        self.socket.settimeout(within_s)
        parser = Frame.parse(self.reader.read_exact, mask=False, max_size=None)
        while True:
            try:
                next(parser)
            except StopIteration as done:
                frame: Frame = done.value
                return frame
            except EOFError:
                return None
            some = self.socket.recv(CHUNK_BYTES)
            if some:
                self.reader.feed_data(some)
            else:
                self.reader.feed_eof()

    def frames(self) -> Iterator[Frame]:
        """All frames up to CLOSE or the end of the stream."""
        while (frame := self.frame()) is not None:
            yield frame
            if frame.opcode is Opcode.CLOSE:
                return

    def rest(self) -> bytes:
        """What comes up to the end of the stream, as it comes."""
        received = bytes(self.reader.buffer)
        while some := self.socket.recv(CHUNK_BYTES):
            received += some
        return received

    def text(self) -> bytes:
        """The payload of the next text frame."""
        while (frame := self.frame()) is not None:
            if frame.opcode is Opcode.TEXT:
                return bytes(frame.data)
        raise AssertionError("the stream ended")
