"""`make demo`: the counts at its end are honest, and Ctrl-C leaves nothing but the directory it names."""

import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from appliance.tools import demo
from tests.streams import DEADLINE_S, running, until

ROOT = Path(__file__).parents[2]

# Stands in for the local exchange: it knows what it sent from a file that the other stand-in writes.
EXCHANGE = """
import http.server, json, os, sys
from pathlib import Path

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"trades_sent": int(Path(__file__).with_name(sys.argv[2] + ".sent").read_text())}).encode())

assert sys.argv[1:2] + sys.argv[3:] == ["--exchange", "--port", "0", "--symbols", "2", "--rate", "1000", "--seed", "1"], sys.argv
assert "DERIBIT_CLIENT_SECRET" not in os.environ
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
url = "http://127.0.0.1:%d" % server.server_port
print(json.dumps({"rest_url": url, "ws_url": url}), flush=True)
server.serve_forever()
"""

# Stands in for the appliance: two chunks, the trades of which it makes itself, as its configuration orders.
APPLIANCE = """
import os, signal, sys, time, tomllib
from pathlib import Path
from appliance.ring.store import ChunkStore
from tests.streams import ROOMY, trade_payload

config = tomllib.loads(Path(sys.argv[2]).read_text())
name, orders = config["exchange"]["name"], config["orders"]
assert os.environ["MDC_EXCHANGE__LOCAL"] == "false"
assert "DERIBIT_CLIENT_SECRET" not in os.environ
if "refuse" in orders:
    print(orders["refuse"])
    sys.exit(2)
ring, journal = Path(os.environ["MDC_RING__DIR"]), Path(os.environ["MDC_JOURNAL__DIR"])
told = []  # no Event: to set it in a handler while the same thread waits for it can lock up
signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
stores = [ChunkStore.open(ring, journal, name, n, ROOMY) for n in (0, 1)]
count = 0
for store in stores:
    store.start()
while not told and count < orders.get("limit", 200):
    count += 1
    store = stores[count % 2]
    store.writer.append(1, trade_payload("SYM%dUSDT" % (count % 2), count // 2))
    store.writer.add_to("trades")
    time.sleep(0.001)
exec(orders.get("extra", ""))
for store in stores:
    assert store.drain(20.0)
Path(__file__).with_name(name + ".sent").write_text(str(count + orders.get("off", 0)))
print("last words", flush=True)
sys.exit(orders.get("code", 0))
"""

COMMIT = "store.writer.append(1, trade_payload('SYM0USDT', %d)); store.writer.add_to('trades')"

Orders = Mapping[str, object]


def stand_ins(tmp_path: Path, **orders: Orders) -> dict[str, Any]:
    """Arguments of `demo.run` with which it runs a pair of these for each exchange that is named here."""
    exchange, appliance = tmp_path / "stand_in_exchange.py", tmp_path / "stand_in_appliance.py"
    exchange.write_text(EXCHANGE)
    appliance.write_text(APPLIANCE)
    configs = []
    for name, ordered in orders.items():
        config = tmp_path / f"{name}.toml"
        lines = ["[exchange]", f'name = "{name}"', "local_symbols = 2", "local_rate = 1000", "local_seed = 1", "[orders]"]
        lines += [f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}" for key, value in ordered.items()]
        config.write_text("\n".join(lines))
        configs.append(config)
    python = sys.executable
    return {"configs": configs, "data": tmp_path / "data", "exchange": [python, str(exchange)], "appliance": [python, str(appliance)]}


def program(tmp_path: Path) -> str:
    """A demonstration that goes on until it is ended."""
    endless: Orders = {"limit": 10**9}
    return (
        "import signal, sys; from pathlib import Path, PosixPath; from appliance.tools import demo; "
        # A test run in the background ignores SIGINT, and so would its children.
        "signal.signal(signal.SIGTERM, demo._interrupt); signal.signal(signal.SIGINT, demo._interrupt); "
        f"sys.exit(demo.run(seconds=60.0, **{stand_ins(tmp_path, binance=endless, deribit=endless)!r}))"
    )


def children_of(process: subprocess.Popen[str]) -> list[str]:
    """Two exchanges and two appliances."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 4
    return children


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for variable in ("DERIBIT_CLIENT_ID", "DERIBIT_CLIENT_SECRET"):
        monkeypatch.setenv(variable, "of an account that no demonstration may use")


def rings_of(said: str) -> Path:
    return Path(re.findall(r"rings: (\S+)", said)[0])


def run(arguments: dict[str, Any], capsys: pytest.CaptureFixture[str], seconds: float = 1.0) -> tuple[int, str]:
    code = demo.run(seconds=seconds, **arguments)
    out = capsys.readouterr().out
    (left,) = arguments["data"].iterdir()
    assert f"left behind: {left}" in out
    assert not rings_of(out).exists()
    return code, out


def test_two_exchanges_side_by_side_are_counted_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(stand_ins(tmp_path, binance={}, deribit={"limit": 150}), capsys)
    assert "binance: sent 200 = committed 200 = in the journal 200; 0 lost, 0 duplicated" in out
    assert "deribit: sent 150 = committed 150 = in the journal 150; 0 lost, 0 duplicated" in out
    assert "fell short" not in out
    assert code == 0
    (left,) = (tmp_path / "data").iterdir()
    assert {str(path.relative_to(left)) for path in left.glob("*/*")} == {
        f"{name}/{what}" for name in ("binance", "deribit") for what in ("journal", "exchange.log", "appliance.log", f"{name}.toml")
    }
    assert re.findall(r"read it again: .* --rings (\S+)", out) == [f"{left}/binance/journal", f"{left}/deribit/journal"]


def test_what_falls_short_at_one_exchange_leaves_the_count_of_the_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(stand_ins(tmp_path, binance={}, deribit={"off": 3}), capsys)
    assert "binance: sent 200 = committed 200 = in the journal 200; 0 lost, 0 duplicated" in out
    assert "deribit: sent 203 ≠ committed 200 = in the journal 200; 3 lost, 0 duplicated" in out
    assert re.findall("fell short: .*", out) == ["fell short: deribit: 3 trades lost: sent 203, on disk 200"]
    assert code == 1


@pytest.mark.parametrize(
    ("orders", "said"),
    [
        ({"off": 3}, "3 trades lost: sent 203, on disk 200"),
        ({"off": -1}, "1 trades were never sent"),
        ({"limit": 0}, "no trade reached the journal"),
        ({"code": 3}, "the appliance ended with exit status 3"),
        ({"extra": f"{COMMIT % 1}"}, "1 trades stand in the journal twice"),
        ({"extra": "store.writer.add_to('trades')"}, "committed 201, on disk 200"),
        ({"extra": f"{COMMIT % 900}; count += 1"}, "799 trade ids are missing"),
    ],
    ids=["lost", "never-sent", "nothing", "exit-3", "twice", "not-on-disk", "hole"],
)  # fmt: skip
def test_whatever_falls_short_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], orders: Orders, said: str) -> None:
    code, out = run(stand_ins(tmp_path, binance=orders), capsys)
    assert code == 1
    assert f"fell short: binance: {said}" in out


def test_one_appliance_that_does_not_start_ends_it_all_with_its_last_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(stand_ins(tmp_path, binance={"limit": 10**9}, deribit={"refuse": "no such key [ring] size"}), capsys, seconds=60.0)
    assert "fell short: deribit: the appliance ended with exit status 2; the end of" in out
    assert "    no such key [ring] size" in out
    assert code == 1


def test_one_exchange_that_does_not_start_ends_it_all_with_its_last_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = stand_ins(tmp_path, binance={"limit": 10**9}, deribit={})
    script = Path(arguments["exchange"][1])
    script.write_text(f"import sys\nif sys.argv[2] == 'deribit':\n    sys.exit('no such dialect')\n{EXCHANGE}")
    code, out = run(arguments, capsys, seconds=60.0)
    assert "fell short: deribit: the local exchange did not start" in out
    assert "    no such dialect" in out
    assert code == 1


def test_configurations_that_do_not_go_together_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = stand_ins(tmp_path, binance={})
    code, out = run(arguments | {"configs": arguments["configs"] * 2}, capsys)
    assert "binance.toml: another configuration is for binance too" in out
    assert code == 1
    code, out = run(arguments | {"configs": [ROOT / "configs" / "binance.toml"], "data": tmp_path / "again"}, capsys)
    assert "binance.toml: its [exchange] has no 'local_symbols'; expected one with local = true, as in configs/demo.toml" in out
    assert code == 1


def test_without_room_in_memory_the_rings_are_beside_the_journals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "SHM_FREE_BYTES", 1 << 60)
    code, out = run(stand_ins(tmp_path, binance={}), capsys)
    assert rings_of(out).is_relative_to(tmp_path / "data")
    assert code == 0


def test_the_real_exchanges_and_appliances_lose_nothing_and_can_be_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configs = []
    for config in demo.CONFIGS:
        slower, changes = re.subn(r"(?m)^(local_symbols|local_rate) = \d+", lambda key: f"{key[1]} = 200", (ROOT / config).read_text())
        assert changes == 2
        configs.append(tmp_path / config.name)
        configs[-1].write_text(slower)
    code = demo.run(seconds=3.0, configs=configs, data=tmp_path / "data")
    out = capsys.readouterr().out
    assert code == 0, out
    counts = dict(re.findall(r"(\w+): sent [\d,]+ = committed [\d,]+ = in the journal ([\d,]+); 0 lost, 0 duplicated", out))
    assert list(counts) == ["binance", "deribit"]
    for name, command in zip(counts, re.findall(r"read it again: (.+)", out), strict=True):
        _, *words = shlex.split(command)
        again = [sys.executable, "-c", "from appliance.cli import main; main()", *words]
        lines = subprocess.run(again, capture_output=True, text=True, check=True, timeout=DEADLINE_S).stdout.splitlines()
        assert len(lines) == int(counts[name].replace(",", "")) > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_nothing_running_and_nothing_but_the_data_directory(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", program(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        rings = rings_of(process.stdout.readline())
        assert "records/s" in process.stdout.readline()
        children = children_of(process)
        process.send_signal(number)
        assert process.wait(DEADLINE_S) == demo.INTERRUPTED
        said = process.stdout.read()
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert not rings.exists()
    (left,) = (tmp_path / "data").iterdir()
    assert f"left behind: {left}" in said


def test_a_killed_demo_takes_exchanges_and_appliances_with_it(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", program(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        rings = rings_of(process.stdout.readline())
        process.stdout.readline()
        children = children_of(process)
        process.kill()
    until(lambda: not any(running(child) for child in children), "the end of exchanges and appliances")
    shutil.rmtree(rings)
