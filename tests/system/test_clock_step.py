"""The system clock is set by an hour under a running appliance: its own view of it; never the machine's."""

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from appliance import Status, Trade
from appliance.ring.journal import JournalReader
from appliance.ring.reader import Record, RingReader
from tests.local_exchange import local_exchange
from tests.system.appliance_process import Site, appliance, site
from tests.system.verdict import verdict

HOUR_S = 3_600


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as one:
        yield one


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """`set_clock.c`, compiled, to be preloaded."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here (cc): the clock cannot be set for one process alone")
    path = tmp_path / "set_clock.so"
    source = Path(__file__).with_name("set_clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", str(path), str(source), "-ldl"], check=True)
    return path


@pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S], ids=["forward", "backward"])
def test_an_hour_s_step_loses_nothing_and_is_recorded(here: Site, library: Path, step_s: int) -> None:
    offset = here.directory / "offset"
    offset.write_text("0\n")
    environ = {"LD_PRELOAD": str(library), "MDC_CLOCK_OFFSET": str(offset)}
    with local_exchange("--symbols", "20", "--rate", "3000", "--start-after", "2") as exchange:
        config = here.config(f'rest_url = "{exchange.rest_url}"\nws_url = "{exchange.ws_url}"', feed="legs = 2")
        with appliance(config, environ=environ) as one:
            one.ready()
            ring = RingReader(here.ring_dir / "binance_trade_chunk0.meta")
            one.wait(lambda: ring.committed_sequence > 3_000)
            new = offset.with_suffix(".new")
            new.write_text(f"{step_s}\n")
            new.replace(offset)
            one.wait(lambda: ring.counters()["clock_steps"] == 1)
            at = ring.committed_sequence
            one.wait(lambda: ring.flushed_sequence > at + 10_000)
            counters = ring.counters()
            latency = {name: ring.histogram(name) for name in ("recv_to_commit_ns", "fdatasync_ns")}
            ring.close()
            assert one.stop() == 0, "\n".join(one.log)
            assert one.logged("the system clock was set")
        stats = exchange.stats()
    trades = Counter(here.trades())
    assert len(trades) == stats["trades_sent"]
    assert max(trades.values()) == 1
    assert here.gaps() == []
    assert (counters["reconnects"], counters["pauses"], counters["flush_errors"]) == (0, 0, 0)
    for name, found in latency.items():
        assert found["max"] < 60e9, f"{name}: no duration has the step in it"
    reader = JournalReader(here.journal_dir, "binance", 0)
    records = [item for item in reader if isinstance(item, Record)]
    reader.close()
    assert [record.sequence for record in records] == list(range(1, len(records) + 1))
    assert all(before.write_ns <= after.write_ns for before, after in pairwise(records)), "it is what readers seek by"
    (step,) = [value for value in here.values(None) if isinstance(value, Status) and value.event == "clock_step"]
    assert step.fields["step_ns"] == pytest.approx(step_s * 1e9, abs=1e9)
    absurd = [
        value for value in here.values(None)
        if isinstance(value, Trade) and not -1 <= value.writer_ts_ms - value.recv_ts_ms < 60_000
    ]  # fmt: skip
    print(f"{step_s:+d} s: {len(trades)} trades, {len(absurd)} whose time of writing is held at that before the step")
    assert bool(absurd) == (step_s < 0)
    assert all(value.sequence > step.sequence for value in absurd), "the record of the step stands before them"
    for directory in (here.ring_dir, here.journal_dir):
        assert verdict(directory)[0] == 0
