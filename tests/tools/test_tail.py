"""`mdc tail`: one line a trade, live, filtered, as JSON; it says what it lost and ends quietly."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.errors import ConfigError, NotARing
from appliance.ring.layout import Flags, RecordType
from appliance.tools import tail
from tests.streams import ROOMY, Chunk, trade_payload

LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+ +(Buy |Sell) px=[\d.]+ sz=[\d.]+$")


def once(chunk: Chunk, *, filters: list[str] | None = None, as_json: bool = False, verbose: bool = False, start: str = "oldest") -> int:
    return tail.run(rings=chunk.ring_dir, filters=filters or [], poll_ms=1, start=start, once=True, as_json=as_json, verbose=verbose)


@contextmanager
def following(chunk: Chunk, start: str = "oldest") -> Iterator[subprocess.Popen[str]]:
    """`mdc tail` in a process of its own, from where the test wants it."""
    program = (
        # A test run in the background ignores SIGINT, and so would its children.
        "import signal, sys; from pathlib import Path; from appliance.tools import tail; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"sys.exit(tail.run(rings=Path({str(chunk.ring_dir)!r}), filters=[], poll_ms=1, start={start!r}, "
        "once=False, as_json=True, verbose=True))"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_lines_look_as_the_contract_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.append(RecordType.TRADE, trade_payload("BTC-PERPETUAL", 1, px="102049.5", sz="1280.0"))
        chunk.append(RecordType.TRADE, trade_payload("BTCUSDT", 2, px="1.10", sz="0.00000001", side="Buy"))
        assert once(chunk) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2025-11-08 20:12:11 BTC-PERPETUAL  Sell px=102049.5 sz=1280.0",
        "2025-11-08 20:12:11 BTCUSDT        Buy  px=1.10 sz=0.00000001",
    ]


def test_wide_and_long_names_stay_aligned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trade("BTC_USDC-29MAR26-120000-C", 1)
        chunk.trade("币安人生USDT", 1)
        assert once(chunk) == 0
    long, wide = capsys.readouterr().out.splitlines()
    assert all(LINE.match(line) for line in (long, wide))
    assert wide.index("Sell") + 4 == long.index("Sell")  # four characters there are two columns wide each


def test_filters_are_shell_patterns_on_the_symbol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        for asset in ("BTCUSDT", "ETHUSDT", "ETHBTC", "SOLUSDT"):
            chunk.trade(asset, 1)
        assert once(chunk, filters=["eth*", "SOL?SDT"]) == 0
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()] == ["ETHUSDT", "ETHBTC", "SOLUSDT"]


def test_json_is_the_records_own_with_what_a_reader_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trade("BTCUSDT", 1, px="0.10")
        chunk.trade("BTCUSDT", 4, flags=int(Flags.FLAG_BACKFILLED))
        chunk.gap("BTCUSDT", 2, 3)
        chunk.flush()
        assert once(chunk, as_json=True) == 0
    plain, backfilled, gap = capsys.readouterr().out.splitlines()
    assert plain.startswith(trade_payload("BTCUSDT", 1, px="0.10").decode()[:-1] + ',"persist_ts_ms":')
    assert "backfilled" not in plain
    assert json.loads(backfilled)["backfilled"] is True
    assert list(json.loads(backfilled))[-1] == "persist_ts_ms"
    assert {"record": "gap", "from_id": 2, "to_id": 3}.items() <= json.loads(gap).items()
    assert "exchange_trade_id" not in json.loads(gap)


def test_verbose_shows_what_is_no_trade(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.event(RecordType.BOUNDARY, event="start", last_sequence=0)
        chunk.event(RecordType.STATUS, event="connected", leg=1)
        chunk.trade("BTCUSDT", 1)
        chunk.gap("BTCUSDT", 2, 3)
        chunk.event(RecordType.GAP_CLOSED, asset="BTCUSDT", from_id=2, to_id=3)
        chunk.event(RecordType.HOLE, from_sequence=5, to_sequence=9)
        assert once(chunk) == 0
        assert len(capsys.readouterr().out.splitlines()) == 1
        assert once(chunk, verbose=True) == 0
    said = [line.partition(" -- ")[2] for line in capsys.readouterr().out.splitlines()]
    assert said == [
        "boundary: start last_sequence=0",
        "status: connected leg=1",
        "",
        "gap: BTCUSDT ids 2 to 3 are missing",
        "gap closed: BTCUSDT ids 2 to 3",
        "hole: records 5 to 9 are not in the journal",
    ]


def test_from_a_time_and_from_nonsense(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trade("BTCUSDT", 1)
        assert once(chunk, start="2020-01-01") == 0
        assert len(capsys.readouterr().out.splitlines()) == 1
        assert once(chunk, start="2199-01-01T00:00") == 0
        assert capsys.readouterr().out == ""
        with pytest.raises(ConfigError, match="found 'soon'"):
            once(chunk, start="soon")
    with pytest.raises(NotARing):
        tail.run(rings=tmp_path, filters=[], poll_ms=1, start="now", once=True, as_json=False, verbose=False)


def test_it_follows_live_and_ends_with_0_on_sigint(tmp_path: Path) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trade("BTCUSDT", 1)
        with following(chunk) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert json.loads(process.stdout.readline())["exchange_trade_id"] == 1
            for trade_id in range(2, 50):
                chunk.trade("BTCUSDT", trade_id)
                assert json.loads(process.stdout.readline())["exchange_trade_id"] == trade_id
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
            assert process.stderr.read() == ""


def test_a_closed_pipe_ends_it_quietly(tmp_path: Path) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trade("BTCUSDT", 1)
        with following(chunk) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            for trade_id in range(2, 5000):
                chunk.trade("BTCUSDT", trade_id)
                if process.poll() is not None:
                    break
            assert process.wait(20) == 0
            assert process.stderr.read() == ""


def test_what_was_lost_is_said_on_stderr_with_the_exact_number(tmp_path: Path) -> None:
    with Chunk(tmp_path, journal=False) as chunk:
        chunk.trade("BTCUSDT", 1)
        with following(chunk) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.send_signal(signal.SIGSTOP)
            chunk.trades("BTCUSDT", 2, 3000)
            process.send_signal(signal.SIGCONT)
            following_id = json.loads(process.stdout.readline())["exchange_trade_id"]
            said = process.stderr.readline()
    assert f"lapped, {following_id - 2} records lost (sequence 2 to {following_id - 1})" in said
