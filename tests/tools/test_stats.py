"""`mdc stats`: what docs/json-output.md promises, read from .meta alone."""

import json
import os
from pathlib import Path

import pytest

from appliance.errors import NotARing
from appliance.tools import stats
from tests.streams import ROOMY, Chunk

PROMISED = {
    "exchange", "chunk", "committed_seq", "flushed_seq", "trades", "bytes", "duplicates", "gaps_open", "gaps_closed", "backfilled",
    "malformed", "reconnects", "recv_to_commit_ns",
}  # fmt: skip


def test_json_holds_what_the_contract_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, 0, ROOMY) as zero, Chunk(tmp_path, 1, ROOMY) as one:
        zero.trades("BTCUSDT", 1, 10)
        zero.store.writer.add_to("duplicates", 3)
        zero.store.writer.set_counter("gaps_open", 2)
        one.trades("ETHUSDT", 1, 4)
        zero.flush()
        one.flush()
        assert stats.run(rings=zero.ring_dir, as_json=True, watch=False) == 0
        rows = json.loads(capsys.readouterr().out)
    assert [row["chunk"] for row in rows] == [0, 1]
    for row in rows:
        assert row.keys() >= PROMISED
        assert {"p50", "p99", "p999", "max", "count"} <= row["recv_to_commit_ns"].keys()
        assert row["exchange"] == "binance"
        assert row["writer_pid"] == os.getpid()
    assert rows[0]["committed_seq"] == rows[0]["flushed_seq"] == rows[0]["records"] == 10
    assert (rows[0]["duplicates"], rows[0]["gaps_open"], rows[1]["committed_seq"]) == (3, 2, 4)
    assert rows[0]["bytes"] == rows[0]["committed_position"]


def test_the_table_names_each_ring_and_what_its_writer_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.beat()
        chunk.trades("BTCUSDT", 1, 1234)
        chunk.flush()
        assert stats.state(stats.read(chunk.ring_dir)[0]) == "running"
        assert stats.run(rings=chunk.ring_dir, as_json=False, watch=False) == 0
        out = capsys.readouterr().out
        assert "binance 0" in out
    assert stats.state(stats.read(chunk.ring_dir)[0]) == "ended"


def test_what_a_leg_is_worth_is_said_with_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, 0, ROOMY) as chunk:
        count = chunk.store.writer.add_to
        count("leg0_connects")
        assert stats.read(chunk.ring_dir)[0]["legs_worth"] == "No trade came on any leg yet."
        count("leg0_wins", 999_990)
        assert "alone brought all 999,990 trades" in stats.read(chunk.ring_dir)[0]["legs_worth"]
        count("leg0_shared", 999_990)
        count("leg1_connects", 2)
        count("leg1_losses")
        count("leg1_wins", 10)
        count("leg1_shared", 3)
        for name, value in (("leads", 3), ("lead_p50_ns", 1_200), ("lead_p99_ns", 4_500_000), ("lead_max_ns", 2_000_000_000)):
            count(f"leg1_{name}", value)
        (row,) = stats.read(chunk.ring_dir)
        assert [leg["only"] for leg in row["legs"]] == [0, 7]
        assert row["legs"][1]["lead_ns"] == {"count": 3, "p50": 1_200, "p99": 4_500_000, "max": 2_000_000_000}
        assert row["legs"][1]["losses"] == 1
        assert row["legs"][1]["age_ms"] is None
        assert row["legs_worth"] == (
            "1,000,000 trades came on 2 legs. Without leg 0 none would be missing; 100 % came on it first. Without leg 1 7 of them "
            "(0.0007 %) would be missing; 0.001 % came on it first, in the median 1.2 µs and at p99 4.5 ms before the next."
        )
        assert stats.run(rings=chunk.ring_dir, as_json=False, watch=False) == 0
        assert "Without leg 1 7 of them" in " ".join(capsys.readouterr().out.split())


def test_a_ring_without_a_journal_says_so(tmp_path: Path) -> None:
    with Chunk(tmp_path, journal=False) as chunk:
        chunk.trade("BTCUSDT", 1)
        (row,) = stats.read(chunk.ring_dir)
        assert row["journal_dir"] is None
        assert row["mode"] == "lossy"


def test_a_journal_directory_has_no_counters(tmp_path: Path) -> None:
    with Chunk(tmp_path) as chunk:
        chunk.trade("BTCUSDT", 1)
    with pytest.raises(NotARing, match="counters live in a ring directory"):
        stats.run(rings=chunk.journal_dir, as_json=True, watch=False)
