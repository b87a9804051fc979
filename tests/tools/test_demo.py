"""`make demo`: the count at its end is honest, and Ctrl-C leaves nothing but the directory it names."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.tools import demo
from tests.streams import DEADLINE_S, until

ROOT = Path(__file__).parents[2]

# Stands in for the appliance with its local exchange: two chunks, and the exchange's count at the drain.
STAND_IN = """
import json, os, signal, sys, threading
from pathlib import Path
from appliance.ring.store import ChunkStore
from tests.streams import ROOMY, Chunk, trade_payload

ring, journal = Path(os.environ["MDC_RING__DIR"]), Path(os.environ["MDC_JOURNAL__DIR"])
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
stores = [ChunkStore.open(ring, journal, "binance", n, ROOMY) for n in (0, 1)]
count = 0
for store in stores:
    store.start()
limit = {limit}
while not stop.is_set() and count < limit:
    count += 1
    store = stores[count % 2]
    store.writer.append(1, trade_payload("SYM%dUSDT" % (count % 2), count // 2))
    store.writer.add_to("trades")
    stop.wait(0.001)
{extra}
for store in stores:
    assert store.drain(20.0)
(ring / "local_exchange_stats.json").write_text(json.dumps({{"trades_sent": count + {off}}}))
print("last words", flush=True)
sys.exit({code})
"""

COMMIT = "store.writer.append(1, trade_payload('SYM0USDT', %d)); store.writer.add_to('trades')"


def program(tmp_path: Path) -> str:
    """A demonstration that goes on until it is ended."""
    return (
        "import signal, sys; from pathlib import Path; from appliance.tools import demo; signal.signal(signal.SIGTERM, demo._interrupt); "
        f"sys.exit(demo.run(seconds=60.0, config=Path('any.toml'), data=Path({str(tmp_path / 'data')!r}), "
        f"command={stand_in(tmp_path, limit=10**9)!r}))"
    )


def stand_in(tmp_path: Path, *, limit: int = 600, off: int = 0, code: int = 0, extra: str = "") -> list[str]:
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN.format(limit=limit, off=off, code=code, extra=extra))
    return [sys.executable, str(script)]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def run(tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = demo.run(seconds=1.0, config=Path("any.toml"), data=tmp_path / "data", command=command)
    out = capsys.readouterr().out
    (left,) = (tmp_path / "data").iterdir()
    assert f"left behind: {left}" in out
    assert not Path(re.findall(r"ring in memory: (\S+)", out)[0]).exists()
    return code, out


def test_all_that_was_sent_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(tmp_path, stand_in(tmp_path), capsys)
    assert "sent 600 = committed 600 = in the journal 600; 0 lost, 0 duplicated" in out
    assert "fell short" not in out
    assert code == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"off": 3}, "3 trades lost: sent 603, on disk 600"),
        ({"off": -1}, "1 trades never sent"),
        ({"limit": 0}, "no trade reached the journal"),
        ({"code": 3}, "the appliance ended with exit status 3; its last words:\n    last words"),
        ({"extra": f"{COMMIT % 1}"}, "1 trades stand in the journal twice"),
        ({"extra": "store.writer.add_to('trades')"}, "committed 601, on disk 600"),
        ({"extra": f"{COMMIT % 900}; count += 1"}, "trade ids are missing"),
    ],
    ids=["lost", "never-sent", "nothing", "exit-3", "twice", "not-on-disk", "hole"],
)  # fmt: skip
def test_whatever_falls_short_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object], said: str) -> None:
    code, out = run(tmp_path, stand_in(tmp_path, **change), capsys)  # type: ignore[arg-type]
    assert code == 1
    assert said in out


def test_an_appliance_that_does_not_start_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(tmp_path, [sys.executable, "-c", "print('no'); raise SystemExit(2)"], capsys)
    assert "the appliance ended with exit status 2; its last words:\n    no" in out
    assert code == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_nothing_running_and_nothing_but_the_data_directory(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", program(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        ring = Path(re.findall(r"ring in memory: (\S+)", first)[0])
        assert "records/s" in process.stdout.readline()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 1
        process.send_signal(number)
        assert process.wait(DEADLINE_S) == demo.INTERRUPTED
        said = process.stdout.read()
    assert not Path(f"/proc/{children[0]}").exists()
    assert not ring.exists()
    (left,) = (tmp_path / "data").iterdir()
    assert f"left behind: {left}" in said


def test_a_killed_demo_takes_the_appliance_with_it(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", program(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ring = Path(re.findall(r"ring in memory: (\S+)", process.stdout.readline())[0])
        process.stdout.readline()
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
    until(lambda: not Path(f"/proc/{child}").exists() or "zombie" in Path(f"/proc/{child}/status").read_text(), "the appliance's end")
    for path in ring.iterdir():
        path.unlink()
    ring.rmdir()
