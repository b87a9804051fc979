"""Peers that break every rule: each costs a counter or a new connection; no memory, no trade, and nothing of the other leg."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import pytest

from appliance.exchanges.instruments import UNLISTED_MAX
from appliance.tools import stats
from tests.hostile_proxy import CHUNK_BYTES, CLOSE, CONTINUATION, PING, TEXT, Attack, frame, hostile_proxy
from tests.local_exchange import local_exchange
from tests.system.appliance_process import Appliance, Site, appliance, site
from tests.system.deribit_site import LOGIN
from tests.system.deribit_site import config as deribit_config

TRADES, RATE = 4_000, 2_000
FRAMES = 100_000  # of a flood
NAMES = 20_000  # of a storm
MEMORY_KB_MAX = 65_536  # more than before, at any time: a message of 16 MiB may come, and is held twice while it is put together
NAMES_KB_MAX = 196_608  # of 16,384 names that no list has, 9 kB each


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as one:
        yield one


def flood(one: bytes) -> Attack:
    """Many times the same frame, some hundred to a write."""
    return lambda _: repeat(one * 500, FRAMES // 500)


def endless_frame(_: bytes) -> Iterator[bytes]:
    yield b"\x81\x7f" + (1 << 62).to_bytes(8, "big")
    yield from repeat(b"x" * CHUNK_BYTES)


def endless_message(_: bytes) -> Iterator[bytes]:
    yield frame(TEXT, b"{", fin=False)
    yield from repeat(frame(CONTINUATION, b" " * CHUNK_BYTES, fin=False))


def message_of_17_mib(_: bytes) -> Iterator[bytes]:
    yield frame(TEXT, b'{"a":"' + b"x" * (17 << 20) + b'"}')


def trade(payload: bytes, ids: Callable[[int], int], name: str | None = None) -> bytes:
    """The trade in `payload`, of either exchange, with another id, and of another instrument."""
    message = json.loads(payload)
    rows = message["params"]["data"] if "params" in message else [message["data"]]
    for row in rows[:1]:
        if "params" in message:
            row["trade_seq"] = ids(row["trade_seq"])
            row["trade_id"] = f"{int(row['trade_id'].rpartition('-')[2]) + (1 << 40)}"
            row["instrument_name"] = name or row["instrument_name"]
            message["params"]["data"] = [row]
        else:
            row["t"] = ids(row["t"])
            row["s"] = name or row["s"]
            message["stream"] = f"{row['s'].lower()}@trade"
    return frame(TEXT, json.dumps(message, separators=(",", ":")).encode())


def symbol_storm(payload: bytes) -> Iterator[bytes]:
    for number in range(NAMES):
        yield trade(payload, lambda _: 1, f"STORM{number}-1JAN30" if b"params" in payload else f"STORM{number}")


@dataclass(frozen=True, slots=True)
class Row:
    attack: Attack
    counter: str
    """Of `mdc stats`, that tells of it; by at least `least`."""
    least: int = 1
    more_trades: int = 0
    """That it makes up, and that nobody can tell from true ones."""
    exchanges: tuple[str, ...] = ("binance",)
    gaps: bool = False
    """It makes ids missing."""
    memory_kb_max: int = MEMORY_KB_MAX


BOTH = ("binance", "deribit")
TABLE = {
    "a frame without end": Row(endless_frame, "leg1_reconnects"),
    "a message without end": Row(endless_message, "leg1_reconnects"),
    "a message of 17 MiB": Row(message_of_17_mib, "leg1_reconnects"),
    "a compressed frame, never agreed": Row(lambda _: [frame(TEXT, b"{}", reserved=0x40)], "leg1_reconnects"),
    "a masked frame": Row(lambda _: [b"\x81\x82abcd" + bytes([ord("{") ^ ord("a"), ord("}") ^ ord("b")])], "leg1_reconnects"),
    "an opcode that is none": Row(lambda _: [frame(0x3, b"{}")], "leg1_reconnects"),
    "a continuation of nothing": Row(lambda _: [frame(CONTINUATION, b"{}")], "leg1_reconnects"),
    "a flood of CLOSE": Row(flood(frame(CLOSE, b"\x03\xe8")), "leg1_reconnects"),
    "a flood of empty frames": Row(flood(frame(TEXT)), "malformed", FRAMES),
    "a flood of pings": Row(flood(frame(PING, b"1234")), "other_frames", FRAMES),
    "a flood of garbage": Row(flood(frame(TEXT, b"\xff" * 30)), "malformed", FRAMES),
    "an id that jumps by 10^12": Row(
        lambda last: [trade(last, lambda one: one + 10**12)], "jumps", more_trades=1, exchanges=BOTH, gaps=True
    ),
    "an id that goes back by 10^6": Row(lambda last: [trade(last, lambda one: one - 10**6)], "before_baseline"),
    "a storm of symbols": Row(symbol_storm, "unknown_symbol", NAMES),
    "a storm of new instruments": Row(
        symbol_storm, "unknown_symbol", NAMES - UNLISTED_MAX, exchanges=("deribit",), memory_kb_max=NAMES_KB_MAX
    ),
}
CASES = [(what, name) for what, row in TABLE.items() for name in row.exchanges]


def memory_kb(one: Appliance) -> int:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{one.process.pid}/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0])


@pytest.mark.parametrize(("what", "name"), CASES, ids=[f"{what}, {name}" for what, name in CASES])
def test_a_hostile_peer_costs_a_counter_and_nothing_else(here: Site, what: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = TABLE[what]
    for variable, value in LOGIN.items():
        monkeypatch.setenv(variable, value)
    flags = ["--symbols", "10", "--rate", str(RATE), "--count", str(TRADES), "--start-after", "2"]
    most_kb = 0
    with local_exchange(*flags, name=name) as exchange, hostile_proxy(exchange.port, row.attack) as proxy:
        feed = "legs = 2\nbackfill = false"
        if name == "binance":
            path = here.config(f'rest_url = "{exchange.rest_url}"\nws_url = "{proxy.ws_url}"', feed=feed)
        else:
            path = deribit_config(here, exchange, feed=feed)
            path.write_text(path.read_text().replace(exchange.ws_url, proxy.ws_url))
        with appliance(path) as one:
            one.ready()
            before_kb = memory_kb(one)

            def counted() -> bool:
                nonlocal most_kb
                most_kb = max(most_kb, memory_kb(one))
                (ring,) = stats.read(here.ring_dir)
                return proxy.attacked.is_set() and ring[row.counter] >= row.least

            one.wait(counted)
            exchange.wait(lambda found: found["finished"], 60.0)
            sent = exchange.stats()["trades_generated"]
            one.wait(lambda: stats.read(here.ring_dir)[0]["trades"] >= sent)
            most_kb = max(most_kb, memory_kb(one))
            assert one.stop() == 0
    trades = here.trades()
    assert max(Counter(trades).values()) == 1
    true = [one for one in trades if not one[0].startswith("STORM")]
    assert len(true) == sent + row.more_trades
    assert bool(here.gaps()) == row.gaps
    print(f"{what}, {name}: memory {before_kb:,} kB before, {most_kb:,} kB at most; {len(one.log)} log lines")
    assert most_kb - before_kb < row.memory_kb_max
    assert len(one.log) < 200
