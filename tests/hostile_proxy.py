"""A websocket peer that turns hostile: it hands on what a local exchange sends, and between two frames adds bytes of its own."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count

FIN = 0x80
CONTINUATION, TEXT, CLOSE, PING = 0x0, 0x1, 0x8, 0x9
CHUNK_BYTES = 1 << 16

Attack = Callable[[bytes], Iterable[bytes]]
"""From the payload of the last text frame that was handed on, the bytes to send; they may be without end."""


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0) -> bytes:
    """One frame as a server sends it."""
    size = len(payload)
    head = bytes([(FIN if fin else 0) | reserved | opcode])
    if size < 126:
        return head + bytes([size]) + payload
    return head + (b"\x7e" + size.to_bytes(2, "big") if size < 1 << 16 else b"\x7f" + size.to_bytes(8, "big")) + payload


class HostileProxy:
    """In a thread of its own, in front of the exchange at `port`. Connection `connection` is attacked, once, behind `after` text frames."""

    def __init__(self, port: int, attack: Attack, connection: int = 1, after: int = 200) -> None:
        self.attacked = threading.Event()
        """All that the attack has to send is sent, or its connection has ended."""
        self._port = port
        self._attack = attack
        self._connection = connection
        self._after = after
        self._numbers = count()
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._stop = asyncio.Event()
        self.port = 0

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._thread.start()
        self._listening.wait()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._hand_on, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stop.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _hand_on(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        number = next(self._numbers)
        exchange, to_exchange = await asyncio.open_connection("127.0.0.1", self._port)
        upwards = asyncio.create_task(_copy(client, to_exchange))
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                to_client.write(await exchange.readuntil(b"\r\n\r\n"))
                await self._downwards(exchange, to_client, number == self._connection)
        finally:
            upwards.cancel()
            for writer in (to_client, to_exchange):
                writer.transport.abort()

    async def _downwards(self, exchange: asyncio.StreamReader, to_client: asyncio.StreamWriter, is_hostile: bool) -> None:
        texts = 0
        while True:
            whole, opcode, payload = await _read_frame(exchange)
            to_client.write(whole)
            await to_client.drain()
            texts += opcode == TEXT and len(payload) > 150  # no acknowledgement: trades
            if is_hostile and texts == self._after:
                is_hostile = False
                try:
                    for part in self._attack(payload):
                        to_client.write(part)
                        await to_client.drain()
                finally:
                    self.attacked.set()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


async def _read_frame(reader: asyncio.StreamReader) -> tuple[bytes, int, bytes]:
    """The frame as it came, its opcode, its payload; a server's frames are not masked."""
    head = await reader.readexactly(2)
    size = head[1]
    if size >= 126:
        more = await reader.readexactly(2 if size == 126 else 8)
        head, size = head + more, int.from_bytes(more, "big")
    payload = await reader.readexactly(size)
    return head + payload, head[0] & 0x0F, payload


@contextmanager
def hostile_proxy(port: int, attack: Attack, connection: int = 1, after: int = 200) -> Iterator[HostileProxy]:
    proxy = HostileProxy(port, attack, connection, after)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
