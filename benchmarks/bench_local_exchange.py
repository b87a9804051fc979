"""Is the local exchange ever the bottleneck? Trades a second to one client, from one core, through a real socket.

`pytest benchmarks/bench_local_exchange.py`: the client only counts bytes; the gate is that all of them come, fast enough.
"""

import json
import os
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tests.local_exchange import LocalExchange, local_exchange
from tests.sim.wire import Wire, path_of

TRADES = 5_000_000
SYMBOLS = 400
TRADES_PER_S_LEAST = 1_500_000


@pytest.fixture
def exchange() -> Iterator[LocalExchange]:
    """On a core of its own where there are two; it starts with the first subscription."""
    cores = sorted(os.sched_getaffinity(0))
    with local_exchange("--symbols", str(SYMBOLS), "--rate", "max", "--count", str(TRADES)) as running:
        os.sched_setaffinity(running.process.pid, {cores[0]})
        os.sched_setaffinity(0, set(cores[1:]) or set(cores))
        yield running
    os.sched_setaffinity(0, set(cores))


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_local_exchange_keeps_ahead_of_the_appliance(benchmark: BenchmarkFixture, exchange: LocalExchange) -> None:
    with urllib.request.urlopen(exchange.rest_url + "/api/v3/exchangeInfo?symbolStatus=TRADING&permissions=SPOT", timeout=10) as reply:
        names = [symbol["symbol"] for symbol in json.load(reply)["symbols"]]
    before_s = cpu_s(exchange.process.pid)
    seconds = 0.0
    received = 0

    def drain() -> None:
        nonlocal seconds, received
        into = bytearray(4 << 20)
        began_s = time.perf_counter()
        with Wire(exchange, path_of(names)) as wire:
            received = len(wire.reader.buffer)
            wire.socket.settimeout(0.5)
            try:
                while some := wire.socket.recv_into(into):
                    received += some
                    seconds = time.perf_counter() - began_s
            except TimeoutError:
                return  # half a second of silence: the end

    benchmark.pedantic(drain, rounds=1, iterations=1)
    stats = exchange.stats()
    assert stats["trades_sent"] == TRADES
    assert received == stats["bytes_sent"], "nothing is lost"
    cpu_ns = (cpu_s(exchange.process.pid) - before_s) / TRADES * 1e9
    benchmark.extra_info.update(
        trades_per_s=round(TRADES / seconds), mb_per_s=round(received / seconds / 1e6), cpu_ns_per_trade=round(cpu_ns)
    )
    print(f"\n{TRADES / seconds:,.0f} trades/s, {received / seconds / 1e6:,.0f} MB/s, {cpu_ns:.0f} ns CPU a trade")
    assert TRADES / seconds >= TRADES_PER_S_LEAST
