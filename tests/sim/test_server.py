"""The local exchange as a process, over real sockets."""

import http.client
import json
import os
import re
import selectors
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from websockets.frames import Close, Frame, Opcode
from websockets.sync.client import connect

from appliance.errors import ConfigError
from appliance.feed.children import PARENT_PID
from appliance.sim import server
from appliance.sim.delivery import split
from appliance.sim.synthetic import e8
from appliance.sim.tape import Tape
from tests.local_exchange import LocalExchange, local_exchange
from tests.sim.wire import CHUNK_BYTES, Wire, path_of

DISCOVERY = "/api/v3/exchangeInfo?permissions=SPOT&symbolStatus=TRADING&showPermissionSets=false"


def get(exchange: LocalExchange, target: str) -> bytes:
    context = ssl.create_default_context(cafile=str(exchange.ca_file)) if exchange.ca_file else None
    with urllib.request.urlopen(exchange.rest_url + target, timeout=10, context=context) as reply:
        body: bytes = reply.read()
        return body


def listed(exchange: LocalExchange) -> list[str]:
    return [symbol["symbol"] for symbol in json.loads(get(exchange, DISCOVERY))["symbols"]]


def trades_of(frames: list[Frame]) -> list[dict[str, Any]]:
    return [json.loads(bytes(frame.data))["data"] for frame in frames if frame.opcode is Opcode.TEXT]


def drained(wire: Wire) -> list[Frame]:
    """Everything that was sent up to the answer of our CLOSE."""
    wire.send(b"\x03\xe8", Opcode.CLOSE)
    frames = list(wire.frames())
    assert frames[-1].opcode is Opcode.CLOSE
    return frames[:-1]


def started(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "appliance.sim.server", "--exchange", "binance", *flags],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture(scope="module")
def healthy() -> Iterator[LocalExchange]:
    """One exchange for the tests that need no other."""
    with local_exchange("--symbols", "3", "--rate", "2000") as exchange:
        yield exchange


# Start and end


def test_it_says_where_it_listens_and_ends_by_sigterm() -> None:
    with local_exchange() as exchange:
        assert exchange.rest_url == f"http://127.0.0.1:{exchange.port}"
        assert exchange.ws_url == f"ws://127.0.0.1:{exchange.port}"
        with Wire(exchange, path_of(["BTCUSDT"])) as wire:
            exchange.process.send_signal(signal.SIGTERM)
            closes = [frame for frame in wire.frames() if frame.opcode is Opcode.CLOSE]
            assert [Close.parse(frame.data).code for frame in closes] == [1001]
        assert exchange.process.wait(10) == 0


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"exchange": "kraken"}, "--exchange 'kraken'"),
        ({"fault": ["garbge"]}, "Did you mean 'garbage'?"),
        ({"rate": "fast"}, "--rate 'fast'"),
        ({"rate": "0"}, "--rate '0'"),
        ({"symbols": 0}, "--symbols 0"),
        ({"count": 0}, "--count 0"),
        ({"capture": Path("/nowhere")}, "--capture /nowhere"),
        ({"exchange_info": Path("/nowhere")}, "--exchange-info /nowhere"),
    ],
)
def test_a_mistake_names_its_option(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        server.run(**{"exchange": "binance", "port": 0, **asked})


def test_a_mistake_on_the_command_line_ends_with_2_and_one_line() -> None:
    ended = started("--fault", "stall:after=1")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("mdc sim: --fault 'stall:after=1': no key 'after'.")
    assert ended.stderr.count("\n") == 1


def test_a_port_in_use_ends_with_3() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = started("--port", str(taken.getsockname()[1]))
    assert ended.returncode == 3
    assert "cannot listen on 127.0.0.1" in ended.stderr


def test_it_does_not_outlive_the_process_that_started_it() -> None:
    program = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-m', 'appliance.sim.server', '--exchange', 'binance'], stdout=subprocess.PIPE)\n"
        "print(child.stdout.readline().decode(), flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        port = int(json.loads(parent.stdout.readline())["listening"].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), 10) as probe:
            parent.kill()
            with suppress(ConnectionResetError):
                assert probe.recv(1) == b"", "its sockets go with it"


def test_it_ends_at_once_when_its_parent_died_while_it_was_loading() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    command = [sys.executable, "-m", "appliance.sim.server", "--exchange", "binance"]
    ended = subprocess.run(command, env=os.environ | {PARENT_PID: str(gone.pid)}, capture_output=True, timeout=30, check=False)
    assert ended.stdout == b""
    assert ended.returncode == 0


# REST


def test_one_http_connection_serves_many_requests(healthy: LocalExchange) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", healthy.port, timeout=10)) as client:
        client.connect()
        before = client.sock
        for _ in range(3):
            client.request("GET", "/api/v3/ping")
            assert client.getresponse().read() == b"{}"
        assert client.sock is before


def test_a_body_of_ten_megabytes_arrives_whole(tmp_path: Path) -> None:
    symbols = [{"symbol": f"S{i}USDT", "status": "TRADING", "filters": ["x" * 5_000]} for i in range(2_000)]
    path = tmp_path / "info.json"
    path.write_text(json.dumps({"symbols": symbols}))
    with local_exchange("--exchange-info", str(path)) as exchange:
        body = get(exchange, "/api/v3/exchangeInfo")
        assert len(body) > 10_000_000
        assert json.loads(body)["symbols"] == symbols


@pytest.mark.parametrize("request_", [b"nonsense\r\n\r\n", b"POST /api/v3/ping HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"])
def test_a_bad_request_is_answered_and_harms_nobody(healthy: LocalExchange, request_: bytes) -> None:
    with socket.create_connection(("127.0.0.1", healthy.port), 10) as client:
        client.sendall(request_)
        assert client.recv(CHUNK_BYTES)[:10] == b"HTTP/1.1 4"
    assert get(healthy, "/api/v3/ping") == b"{}"


def test_a_request_may_be_left_without_an_answer() -> None:
    with local_exchange("--fault", "rest:answer=timeout,path=ping") as exchange:
        with pytest.raises(TimeoutError):
            urllib.request.urlopen(exchange.rest_url + "/api/v3/ping", timeout=0.3)
        assert exchange.stats()["rest"] == {"/api/v3/ping": 1}


# Trades


def test_nothing_is_printed_before_somebody_listens_and_count_is_kept_exactly() -> None:
    with local_exchange("--symbols", "50", "--rate", "20000", "--count", "3000") as exchange:
        assert exchange.stats()["trades_generated"] == 0
        names = listed(exchange)
        with Wire(exchange, path_of(names)) as wire:
            exchange.wait(lambda stats: stats["finished"])
            trades = trades_of(drained(wire))
        stats = exchange.stats()
        assert len(trades) == stats["trades_generated"] == stats["trades_sent"] == stats["frames_sent"] == 3_000
        last: dict[str, int] = {}
        for trade in trades:
            assert trade["t"] == last.get(trade["s"], trade["t"] - 1) + 1
            last[trade["s"]] = trade["t"]
        assert abs(trades[-1]["T"] / 1_000 - time.time()) < 30


def test_the_digits_can_be_told_from_the_seed_alone() -> None:
    with local_exchange("--symbols", "5", "--rate", "max", "--count", "500", "--seed", "9") as exchange:
        names = listed(exchange)
        tape = Tape(5, 9)
        with Wire(exchange, path_of(names)) as wire:
            for _ in range(500):
                trade = json.loads(wire.text())["data"]
                px_e8, sz_e8, maker = tape.trade(names.index(trade["s"]), trade["t"])
                assert (trade["p"], trade["q"], trade["m"]) == (e8(px_e8), e8(sz_e8), maker)


def read_together(exchange: LocalExchange, wires: list[Wire]) -> list[bytes]:
    """What each of them got, as it came, once all trades are printed and all of them arrived."""
    received = [bytearray(wire.reader.buffer) for wire in wires]
    with selectors.DefaultSelector() as selector:
        for wire, into in zip(wires, received, strict=True):
            wire.socket.settimeout(0)
            selector.register(wire.socket, selectors.EVENT_READ, (wire.socket, into))
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            ready = selector.select(0.05)
            for key, _ in ready:
                sock, into = key.data
                with suppress(BlockingIOError, ssl.SSLWantReadError):
                    while some := sock.recv(CHUNK_BYTES):
                        into += some
            if not ready and exchange.stats()["finished"] and exchange.stats()["bytes_sent"] == sum(map(len, received)):
                return [bytes(into) for into in received]
    raise AssertionError(f"not all arrived within 20 s: {exchange.stats()}")


@pytest.mark.parametrize("tls", [False, True])
def test_at_full_speed_two_legs_get_every_frame_and_the_same_bytes(tls: bool) -> None:
    count = 200_000
    flags = ["--symbols", "400", "--rate", "max", "--count", str(count), "--start-after", "2", *(["--tls"] if tls else [])]
    with local_exchange(*flags) as exchange, ExitStack() as stack:
        path = path_of([symbol["symbol"] for symbol in json.loads(get(exchange, DISCOVERY))["symbols"]])
        legs = [stack.enter_context(Wire(exchange, path)) for _ in range(2)]
        first, second = read_together(exchange, legs)
        assert first == second
        assert sum(1 for _ in split(first)) == count
        stats = exchange.stats()
        assert stats["trades_sent"] == count
        assert stats["frames_sent"] == 2 * count
        assert stats["dropped_slow_bytes"] == 0


def test_a_client_that_does_not_read_holds_the_generator_up_and_loses_nothing() -> None:
    count = 400_000
    with local_exchange("--symbols", "10", "--rate", "max", "--count", str(count)) as exchange:
        with Wire(exchange, path_of(listed(exchange))) as wire:
            first = exchange.wait(lambda stats: stats["unsent_bytes"] > 0)
            assert first["unsent_bytes"] < 4 * 1024 * 1024, "bounded"
            assert not exchange.stats()["finished"]
            (received,) = read_together(exchange, [wire])
        assert sum(1 for _ in split(received)) == count


def test_a_client_that_does_not_read_is_cut_off_when_the_market_does_not_wait() -> None:
    with local_exchange("--symbols", "10", "--rate", "200000", "--fault", "unsent_mb=1") as exchange:
        names = listed(exchange)
        with Wire(exchange, path_of(names)), Wire(exchange, path_of(names)) as other:
            deadline = time.monotonic() + 20
            while exchange.stats()["dropped_slow_bytes"] == 0:
                assert time.monotonic() < deadline
                for _ in range(200):
                    assert other.socket.recv(CHUNK_BYTES), "who reads is not disturbed"
            assert exchange.stats()["connections"] == 1


@pytest.mark.parametrize("tls", [False, True])
def test_a_close_is_answered_behind_everything_that_was_sent_before(tls: bool) -> None:
    with local_exchange("--symbols", "10", "--rate", "max", *(["--tls"] if tls else [])) as exchange:
        with Wire(exchange, path_of(listed(exchange))) as wire:
            exchange.wait(lambda stats: stats["unsent_bytes"] > 0)
            frames = drained(wire)
        stats = exchange.wait(lambda stats: stats["connections"] == 0)
        assert len(frames) == stats["frames_sent"] == stats["trades_sent"]


def test_who_subscribes_later_gets_all_from_then_on(healthy: LocalExchange) -> None:
    with Wire(healthy, "/ws") as wire, Wire(healthy, path_of(["BTCUSDT"])) as early:
        early.frame()
        wire.send('{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}')
        assert wire.text() == b'{"result":null,"id":1}'
        ids = [json.loads(wire.text())["t"] for _ in range(300)]
        assert ids == list(range(ids[0], ids[0] + 300))
        wire.send('{"method":"UNSUBSCRIBE","params":["btcusdt@trade"],"id":2}')
        while json.loads(text := wire.text()).get("id") != 2:
            assert json.loads(text)["e"] == "trade"
        wire.send('{"method":"LIST_SUBSCRIPTIONS","id":3}')
        assert json.loads(wire.text()) == {"result": [], "id": 3}, "no trade came between"


def test_raw_and_microseconds_and_unicode(healthy: LocalExchange) -> None:
    with Wire(healthy, path_of(["币安人生USDT"], "&timeUnit=MICROSECOND")) as wire:
        message = json.loads(wire.text())
        assert message["stream"] == "币安人生usdt@trade"
        assert message["data"]["s"] == "币安人生USDT"
        assert message["data"]["T"] > 10**15
    with Wire(healthy, "/ws/btcusdt@trade") as wire:
        assert list(json.loads(wire.text())) == ["e", "E", "s", "t", "p", "q", "T", "m", "M"]


def test_an_ordinary_client_understands_it() -> None:
    with local_exchange(
        "--symbols", "2", "--rate", "1000", "--fault", "ping_interval_s=0.05,pong_timeout_s=0.5,messages_per_s=1000"
    ) as exchange:
        with connect(exchange.ws_url + path_of(["BTCUSDT", "ETHUSDT"])) as client:
            for _ in range(1_500):
                client.recv(timeout=10)
        assert exchange.stats()["pongs_received"] > 10
        assert exchange.stats()["closed_by_client"] == 1


# Faults


def test_without_pongs_the_connection_is_closed_by_its_time_limit() -> None:
    with local_exchange("--fault", "ping_interval_s=0.1,pong_timeout_s=0.3") as exchange, Wire(exchange, "/ws") as wire:
        frames = list(wire.frames())
        assert [frame.opcode for frame in frames[:2]] == [Opcode.PING, Opcode.PING]
        assert Close.parse(frames[-1].data) == Close(1008, "Pong timeout")
        assert exchange.stats()["closes_sent"] == {"1008 Pong timeout": 1}


def test_too_many_messages_close_the_connection(healthy: LocalExchange) -> None:
    with Wire(healthy, "/ws") as wire:
        for _ in range(6):
            wire.send(b"", Opcode.PONG)
        (close,) = wire.frames()
        assert Close.parse(close.data) == Close(1008, "")


def test_an_upgrade_refused_is_plain_http() -> None:
    with local_exchange("--fault", "upgrade:answer=451") as exchange, Wire(exchange, "/ws") as wire:
        assert wire.status == 451
        assert b"restricted location" in wire.rest()


def test_a_request_that_is_no_handshake_is_refused(healthy: LocalExchange) -> None:
    with socket.create_connection(("127.0.0.1", healthy.port), 10) as client:
        client.sendall(b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        assert client.recv(CHUNK_BYTES).startswith(b"HTTP/1.1 400")


def frames_until_reset(wire: Wire) -> int:
    frames = 0
    try:
        while wire.frame():
            frames += 1
    except ConnectionResetError:
        return frames
    pytest.fail("the connection ended without a reset")


def test_a_reset_comes_in_the_middle_of_a_frame() -> None:
    """What a client has not read when it comes, the kernel drops: a slow one may have to look more than once to see the half."""
    with local_exchange("--symbols", "1", "--rate", "2000", "--fault", "reset:after_frames=100,times=50") as exchange:
        for resets in range(1, 51):
            with Wire(exchange, path_of(["BTCUSDT"])) as wire:
                frames = frames_until_reset(wire)
                assert frames <= 100
                assert exchange.stats()["resets"] == resets
                if frames == 100 and wire.reader.buffer:
                    return
        pytest.fail("half a frame was never seen before a reset")


def test_so_many_resets_and_no_more() -> None:
    with local_exchange("--symbols", "1", "--rate", "2000", "--fault", "reset:after_frames=100,times=1") as exchange:
        with Wire(exchange, path_of(["BTCUSDT"])) as wire:
            assert frames_until_reset(wire) <= 100
        with Wire(exchange, path_of(["BTCUSDT"])) as wire:
            assert sum(1 for _ in range(200) if wire.frame()) == 200
        assert exchange.stats()["resets"] == 1


def test_a_stream_may_end_without_a_close() -> None:
    """T4."""
    flags = ("--symbols", "1", "--rate", "2000", "--fault", "eof:after_frames=50")
    with local_exchange(*flags) as exchange, Wire(exchange, path_of(["BTCUSDT"])) as wire:
        frames = list(wire.frames())
    assert [frame.opcode for frame in frames] == 50 * [Opcode.TEXT]


def test_a_stalled_connection_is_silent_while_pings_flow_and_the_others_go_on() -> None:
    """T6."""
    faults = ("--fault", "stall:after_frames=20,connection=0", "--fault", "ping_interval_s=0.1")
    with local_exchange("--symbols", "1", "--rate", "2000", *faults) as exchange, ExitStack() as stack:
        stalled, other = (stack.enter_context(Wire(exchange, path_of(["BTCUSDT"]))) for _ in range(2))
        assert sum(1 for _ in range(500) if other.frame()) == 500
        opcodes = [frame.opcode for frame in (stalled.frame() for _ in range(23)) if frame]
        assert opcodes.count(Opcode.TEXT) == 20
        assert opcodes.count(Opcode.PING) == 3


def test_an_ack_is_no_proof_of_data() -> None:
    """T5."""
    with (
        local_exchange("--rate", "2000", "--fault", "mute", "--fault", "ping_interval_s=0.1") as exchange,
        Wire(exchange, "/stream") as wire,
    ):
        wire.send('{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}')
        assert json.loads(wire.text()) == {"result": None, "id": 1}
        assert [frame.opcode for frame in (wire.frame(), wire.frame()) if frame] == 2 * [Opcode.PING]
        stats = exchange.stats()
        assert stats["trades_generated"] > 0
        assert stats["trades_sent"] == 0


@pytest.mark.parametrize("fillable", [True, False])
def test_a_hole_of_the_streams_is_known_to_rest_or_not(fillable: bool) -> None:
    fault = f"hole:after=100,trades=5,fillable={str(fillable).lower()}"
    with local_exchange("--symbols", "1", "--rate", "5000", "--count", "300", "--fault", fault, "--fault", "rest_lag_ms=0") as exchange:
        with Wire(exchange, path_of(["BTCUSDT"])) as wire:
            exchange.wait(lambda stats: stats["finished"])
            ids = [trade["t"] for trade in trades_of(drained(wire))]
        assert len(ids) == exchange.stats()["trades_sent"] == 295
        assert ids == [*range(ids[0], ids[0] + 100), *range(ids[0] + 105, ids[0] + 300)]
        rows = json.loads(get(exchange, f"/api/v3/historicalTrades?symbol=BTCUSDT&fromId={ids[0] + 98}&limit=10"))
        missing = {ids[0] + 100 + i for i in range(5)}
        assert (missing <= {row["id"] for row in rows}) is fillable
        assert missing.isdisjoint({row["id"] for row in rows}) is not fillable


def test_a_hole_of_one_leg_is_filled_by_the_other() -> None:
    with local_exchange(
        "--symbols", "1", "--rate", "max", "--count", "300", "--start-after", "2", "--fault", "hole:after=100,trades=5,connection=0"
    ) as exchange:
        with Wire(exchange, path_of(["BTCUSDT"])) as holed, Wire(exchange, path_of(["BTCUSDT"])) as whole:
            assert len(trades_of([frame for frame in (whole.frame() for _ in range(300)) if frame])) == 300
            assert len(trades_of(drained(holed))) == 295
        assert exchange.stats()["trades_sent"] == 300


def test_a_connection_that_joins_may_get_what_the_others_had() -> None:
    flags = ("--symbols", "1", "--rate", "max", "--count", "1000", "--fault", "duplicates:frames=50")
    with local_exchange(*flags) as exchange, Wire(exchange, path_of(["BTCUSDT"])) as first:
        ids = [json.loads(first.text())["data"]["t"] for _ in range(1_000)]
        with Wire(exchange, path_of(["BTCUSDT"])) as second:
            assert [json.loads(second.text())["data"]["t"] for _ in range(50)] == ids[-50:]


def test_garbage_of_every_kind_takes_no_trade_away() -> None:
    with local_exchange("--symbols", "1", "--rate", "max", "--count", "600", "--fault", "garbage:every=40") as exchange:
        trades: list[int] = []
        others, message = 0, b""
        with Wire(exchange, path_of(["BTCUSDT"])) as wire:
            while len(trades) < 600:
                frame = wire.frame()
                assert frame is not None
                if frame.opcode not in {Opcode.TEXT, Opcode.CONT}:
                    others += 1
                    continue
                message += bytes(frame.data)
                if frame.fin:
                    good = message.startswith(b'{"stream":"btcusdt@trade"') and b'"E":1790649901913' not in message
                    if good:
                        trades.append(json.loads(message)["data"]["t"])
                    others += not good
                    message = b""
        assert trades == list(range(trades[0], trades[0] + 600))
        assert others >= 14


def test_lifetime_and_shutdown_end_connections_by_close() -> None:
    with local_exchange("--fault", "lifetime_s=0.2") as exchange, Wire(exchange, "/ws") as wire:
        (close,) = wire.frames()
        assert close.opcode is Opcode.CLOSE
    with local_exchange("--fault", "shutdown:after_s=0.1,within_s=0.2") as exchange, Wire(exchange, "/stream") as wire:
        assert json.loads(wire.text())["stream"] == "!serverShutdown"
        (close,) = wire.frames()
        assert close.opcode is Opcode.CLOSE


# TLS


@pytest.mark.parametrize("fault", ["tls_expired", "tls_wrong_name"])
def test_a_bad_certificate_is_refused_by_a_client_that_looks(fault: str) -> None:
    with local_exchange("--tls", "--fault", fault) as exchange:
        said = {"tls_expired": "expired", "tls_wrong_name": "(?i)hostname mismatch"}[fault]
        with pytest.raises(ssl.SSLCertVerificationError, match=said):
            Wire(exchange, "/ws")
        assert exchange.stats()["websockets"] == 0


def test_a_good_certificate_is_good_for_its_own_authority_alone() -> None:
    with local_exchange("--tls") as exchange:
        assert exchange.rest_url.startswith("https://")
        assert exchange.ws_url.startswith("wss://")
        with Wire(exchange, "/ws") as wire:
            assert wire.status == 101
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            urllib.request.urlopen(exchange.rest_url + "/api/v3/ping", timeout=10)
    assert exchange.ca_file is not None
    assert not exchange.ca_file.exists(), "gone with it"


def rest(exchange: LocalExchange, target: str) -> Any:
    with urllib.request.urlopen(f"{exchange.rest_url}/api/v3/{target}", timeout=10) as reply:
        return json.load(reply)


def lists(exchange: LocalExchange, name: str) -> bool:
    symbols = rest(exchange, "exchangeInfo?permissions=SPOT&symbolStatus=TRADING")["symbols"]
    return name in {symbol["symbol"] for symbol in symbols}


@pytest.mark.parametrize("first_id", [0, 1])
def test_a_symbol_is_listed_and_trades_from_its_first_id_on(first_id: int) -> None:
    flags = [
        "--symbols",
        "3",
        "--rate",
        "5000",
        "--fault",
        f"listing:after=5000,symbol=ETHUSDT,first_id={first_id}",
        "--fault",
        "rest_lag_ms=0",
    ]
    with local_exchange(*flags) as exchange:
        assert not lists(exchange, "ETHUSDT")
        with Wire(exchange, path_of(["BTCUSDT"])):
            exchange.wait(lambda stats: stats["trades_generated"] > 6_000)
            assert lists(exchange, "ETHUSDT")
            ids = [row["id"] for row in rest(exchange, "historicalTrades?symbol=ETHUSDT&fromId=0&limit=100")]
    assert ids == list(range(first_id, first_id + 100))


@pytest.mark.parametrize("gone", ["true", "false"])
def test_a_symbol_is_delisted_and_listed_again_and_its_ids_go_on(gone: str) -> None:
    fault = f"delisting:after=5000,symbol=ETHUSDT,gone={gone},again=10000"
    with (
        local_exchange("--symbols", "3", "--rate", "5000", "--fault", fault, "--fault", "rest_lag_ms=0") as exchange,
        Wire(exchange, path_of(["BTCUSDT"])),
    ):
        exchange.wait(lambda stats: not lists(exchange, "ETHUSDT"))
        exchange.wait(lambda stats: lists(exchange, "ETHUSDT"))
        exchange.wait(lambda stats: stats["trades_generated"] > 20_000)
        newest = rest(exchange, "historicalTrades?symbol=ETHUSDT&limit=1")[0]["id"]
        first = rest(exchange, "historicalTrades?symbol=ETHUSDT&fromId=0&limit=1")[0]["id"]
        rows = [
            row
            for begin in range(first, newest, 1_000)
            for row in rest(exchange, f"historicalTrades?symbol=ETHUSDT&fromId={begin}&limit=1000")
        ]
    assert max(later["time"] - row["time"] for row, later in pairwise(rows)) > 1_500
    assert [row["id"] for row in rows[: newest - first]] == list(range(first, newest))
