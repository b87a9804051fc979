"""`make demo`: the count at its end is honest, and Ctrl-C leaves nothing but the directory it names."""

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from appliance.tools import demo
from tests.streams import DEADLINE_S, running, until

ROOT = Path(__file__).parents[2]

# Stands in for the local exchange: it knows what it sent from a file that the other stand-in writes.
EXCHANGE = """
import http.server, json, sys
from pathlib import Path

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({{"trades_sent": int(Path({sent!r}).read_text())}}).encode())

assert sys.argv[1:] == ["--exchange", "binance", "--port", "0", "--symbols", "2", "--rate", "1000", "--seed", "1"], sys.argv
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
url = "http://127.0.0.1:%d" % server.server_port
print(json.dumps({{"rest_url": url, "ws_url": url}}), flush=True)
server.serve_forever()
"""

# Stands in for the appliance: two chunks, the trades of which it makes itself.
APPLIANCE = """
import json, os, signal, sys, threading
from pathlib import Path
from appliance.ring.store import ChunkStore
from tests.streams import ROOMY, Chunk, trade_payload

assert os.environ["MDC_EXCHANGE__LOCAL"] == "false"
ring, journal = Path(os.environ["MDC_RING__DIR"]), Path(os.environ["MDC_JOURNAL__DIR"])
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
stores = [ChunkStore.open(ring, journal, "binance", n, ROOMY) for n in (0, 1)]
count = 0
for store in stores:
    store.start()
while not stop.is_set() and count < {limit}:
    count += 1
    store = stores[count % 2]
    store.writer.append(1, trade_payload("SYM%dUSDT" % (count % 2), count // 2))
    store.writer.add_to("trades")
    stop.wait(0.001)
{extra}
for store in stores:
    assert store.drain(20.0)
Path({sent!r}).write_text(str(count + {off}))
print("last words", flush=True)
sys.exit({code})
"""

COMMIT = "store.writer.append(1, trade_payload('SYM0USDT', %d)); store.writer.add_to('trades')"


def stand_ins(tmp_path: Path, *, limit: int = 200, off: int = 0, code: int = 0, extra: str = "") -> dict[str, Any]:
    """Arguments of `demo.run` with which it runs these two."""
    sent = str(tmp_path / "sent")
    (tmp_path / "stand_in_exchange.py").write_text(EXCHANGE.format(sent=sent))
    (tmp_path / "stand_in_appliance.py").write_text(APPLIANCE.format(sent=sent, limit=limit, off=off, code=code, extra=extra))
    config = tmp_path / "demo.toml"
    config.write_text('[exchange]\nname = "binance"\nlocal = true\nlocal_symbols = 2\nlocal_rate = 1000\nlocal_seed = 1\n')
    return {
        "config": config,
        "data": tmp_path / "data",
        "exchange": [sys.executable, str(tmp_path / "stand_in_exchange.py")],
        "appliance": [sys.executable, str(tmp_path / "stand_in_appliance.py")],
    }


def program(tmp_path: Path) -> str:
    """A demonstration that goes on until it is ended."""
    return (
        "import signal, sys; from pathlib import Path, PosixPath; from appliance.tools import demo; "
        # A test run in the background ignores SIGINT, and so would its children.
        "signal.signal(signal.SIGTERM, demo._interrupt); signal.signal(signal.SIGINT, demo._interrupt); "
        f"sys.exit(demo.run(seconds=60.0, **{stand_ins(tmp_path, limit=10**9)!r}))"
    )


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def run(tmp_path: Path, arguments: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = demo.run(seconds=1.0, **arguments)
    out = capsys.readouterr().out
    (left,) = arguments["data"].iterdir()
    assert f"left behind: {left}" in out
    assert not Path(re.findall(r"ring in memory: (\S+)", out)[0]).exists()
    return code, out


def test_all_that_was_sent_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(tmp_path, stand_ins(tmp_path), capsys)
    assert "sent 200 = committed 200 = in the journal 200; 0 lost, 0 duplicated" in out
    assert "fell short" not in out
    assert code == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"off": 3}, "3 trades lost: sent 203, on disk 200"),
        ({"off": -1}, "1 trades were never sent"),
        ({"limit": 0}, "no trade reached the journal"),
        ({"code": 3}, "the appliance ended with exit status 3"),
        ({"extra": f"{COMMIT % 1}"}, "1 trades stand in the journal twice"),
        ({"extra": "store.writer.add_to('trades')"}, "committed 201, on disk 200"),
        ({"extra": f"{COMMIT % 900}; count += 1"}, "trade ids are missing"),
    ],
    ids=["lost", "never-sent", "nothing", "exit-3", "twice", "not-on-disk", "hole"],
)  # fmt: skip
def test_whatever_falls_short_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object], said: str) -> None:
    code, out = run(tmp_path, stand_ins(tmp_path, **change), capsys)  # type: ignore[arg-type]
    assert code == 1
    assert said in out


def test_an_appliance_that_does_not_start_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failing = [sys.executable, "-c", "print('no such key'); raise SystemExit(2)"]
    code, out = run(tmp_path, stand_ins(tmp_path) | {"appliance": failing}, capsys)
    assert "the appliance ended with exit status 2; the end of" in out
    assert "    no such key" in out
    assert code == 1
    code, out = run(tmp_path, stand_ins(tmp_path) | {"exchange": failing, "data": tmp_path / "again"}, capsys)
    assert "the local exchange did not start" in out
    assert code == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_nothing_running_and_nothing_but_the_data_directory(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", program(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        ring = Path(re.findall(r"ring in memory: (\S+)", first)[0])
        assert "records/s" in process.stdout.readline()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 2
        process.send_signal(number)
        assert process.wait(DEADLINE_S) == demo.INTERRUPTED
        said = process.stdout.read()
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert not ring.exists()
    (left,) = (tmp_path / "data").iterdir()
    assert f"left behind: {left}" in said


def test_a_killed_demo_takes_exchange_and_appliance_with_it(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", program(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ring = Path(re.findall(r"ring in memory: (\S+)", process.stdout.readline())[0])
        process.stdout.readline()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
    until(lambda: not any(running(child) for child in children), "the end of exchange and appliance")
    for path in ring.iterdir():
        path.unlink()
    ring.rmdir()
