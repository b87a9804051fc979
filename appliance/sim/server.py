"""The local exchange: REST and websocket on one port, for tests, benchmarks and the demo.

The sockets are asyncio's, HTTP is h11's, websocket frames are websockets': picows' server answers every handshake at once and
one request a connection, while this one must also be slow, silent and wrong.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from appliance.errors import CannotRun, ConfigError, MdcError
from appliance.feed.children import die_with_parent
from appliance.sim import faults
from appliance.sim.connection import Connection, Exchange
from appliance.sim.dialect import Dialect, Feed, Setup
from appliance.sim.faults import Faults
from appliance.sim.tls import Authority, throw_away

TICK_S = 0.01
"""How often connections are asked what is due: pings, time-outs."""

FAREWELL_S = 2.0
"""How long clients have to answer our CLOSE at the end."""

DEFAULT_RATE = 1_000.0
EXCHANGES = ("binance", "deribit")


def run(
    *,
    exchange: str,
    port: int,
    capture: Path | None = None,
    rate: str | None = None,
    count: int | None = None,
    symbols: int = 500,
    exchange_info: Path | None = None,
    seed: int = 1,
    tls: bool = False,
    fault: Sequence[str] = (),
    host: str = "127.0.0.1",
    start_after: int = 1,
) -> int:
    """Serve until SIGTERM or SIGINT. `rate` is in trades (of a recording: frames) a second, or `max`; None: 1,000, recordings max."""
    if list(fault) == ["help"]:
        print(faults.HELP)
        return 0
    if exchange not in EXCHANGES:
        raise ConfigError(f"--exchange {exchange!r}: the local exchange speaks {', '.join(EXCHANGES)}")
    assemble: Callable[[Setup], tuple[Dialect, Feed]] = import_module(f"appliance.sim.{exchange}").assemble
    asked = faults.parse(fault)
    per_s = _rate(rate, DEFAULT_RATE if capture is None else None)
    if symbols < 1:
        raise ConfigError(f"--symbols {symbols}: expected at least 1")
    if count is not None and count < 1:
        raise ConfigError(f"--count {count}: expected at least 1")
    setup = Setup(
        capture=capture,
        rate=per_s,
        count=count,
        symbols=symbols,
        listing=exchange_info,
        seed=seed,
        start_after=start_after,
        faults=asked,
    )
    with ExitStack() as stack:
        authority: Authority | None = None
        if tls:
            authority = throw_away(stack.enter_context(tempfile.TemporaryDirectory(prefix="mdc-sim-")), asked)

        async def serve() -> int:
            dialect, feed = assemble(setup)
            return await _Server(dialect, feed, asked).serve(host, port, authority)

        return _loop_run(serve())


class _Server:
    """Listens, lets time pass for all connections, and says farewell."""

    def __init__(self, dialect: Dialect, feed: Feed, asked: Faults) -> None:
        self._feed = feed
        self._dialect = dialect
        self._exchange = Exchange(dialect, feed, asked, self._stats)

    async def serve(self, host: str, port: int, authority: Authority | None) -> int:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        try:
            context = authority.context if authority else None
            server = await loop.create_server(lambda: Connection(self._exchange), host, port, ssl=context, backlog=512)
        except OSError as error:
            raise CannotRun(f"cannot listen on {host}:{port}: {error.strerror}") from None
        secure = "s" if authority else ""
        address = f"{host}:{server.sockets[0].getsockname()[1]}"
        ready = {"listening": address, "rest_url": f"http{secure}://{address}", "ws_url": f"ws{secure}://{address}"}
        print(json.dumps(ready | ({"ca_file": str(authority.ca_file)} if authority else {})), flush=True)
        async with asyncio.TaskGroup() as tasks:
            feeding = tasks.create_task(self._feed.run(self._dialect.frames))
            ticking = tasks.create_task(self._tick())
            await stop.wait()
            feeding.cancel()
            server.close()
            await self._say_farewell()
            ticking.cancel()
        trades, frames = self._feed.stats()["trades_sent"], self._exchange.counters.frames_sent
        print(f"mdc sim: sent {trades:,} trades; {frames:,} frames over all connections", file=sys.stderr)
        return 0

    async def _tick(self) -> None:
        while True:
            now_s = time.time()
            for connection in list(self._exchange.connections):
                connection.tick(now_s)
            await asyncio.sleep(TICK_S)

    async def _say_farewell(self) -> None:
        for connection in list(self._exchange.connections):
            connection.close(1001)
        with suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                await self._exchange.alone.wait()

    def _stats(self) -> bytes:
        counters = self._exchange.counters
        stats = {
            **self._feed.stats(),
            **{name: getattr(counters, name) for name in counters.__slots__},
            "connections": sum(connection.open for connection in self._exchange.connections),
            "unsent_bytes": sum(connection.unsent_bytes for connection in self._exchange.connections),
            "rest": self._dialect.requests,
        }
        return json.dumps(stats).encode()


def _loop_run(main: Coroutine[Any, Any, int]) -> int:
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.run(main)
    return uvloop.run(main)


def _rate(text: str | None, default: float | None) -> float | None:
    if text is None:
        return default
    if text == "max":
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise ConfigError(f"--rate {text!r}: expected a number above 0, or max")
    return rate


def _main(arguments: Sequence[str] | None = None) -> int:
    """`mdc sim` for programs that start it as their child: the same flags, and it never outlives its parent."""
    die_with_parent()
    parser = argparse.ArgumentParser(
        prog="mdc sim", description="A local exchange.", epilog=faults.HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--exchange", required=True, choices=EXCHANGES)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--capture", type=Path)
    parser.add_argument("--rate")
    parser.add_argument("--count", type=int)
    parser.add_argument("--symbols", type=int, default=500)
    parser.add_argument("--exchange-info", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--fault", action="append", default=[], metavar="SPEC", help="repeatable; see below")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--start-after", type=int, default=1, metavar="CONNECTIONS", help="send nothing before so many are subscribed")
    options = vars(parser.parse_args(arguments))
    try:
        return run(**options)
    except MdcError as error:
        print(f"mdc sim: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(_main())
