"""A disk that is full for longer than the ring lasts: what the journal lost is recorded, whatever ends the process."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance import Hole
from appliance.ring.examination import examinations
from appliance.ring.reader import RingReader
from appliance.tools import coverage
from appliance.tools.certificate import is_whole
from appliance.tools.survey import survey
from tests.local_exchange import local_exchange
from tests.mounts import Mounts
from tests.system.appliance_process import Appliance, Site, appliance, site
from tests.system.verdict import verdict

DISK_BYTES = 64 << 20
LOST_RECORDS = 60_000  # more than a ring of 16 MiB holds


@pytest.fixture
def here(tmp_path: Path, mounts: Mounts) -> Iterator[Site]:
    with site(tmp_path) as one:
        mounts.tmpfs(one.journal_dir, DISK_BYTES)
        yield one


def fill(directory: Path) -> Path:
    """A file that leaves no byte free."""
    ballast = directory / "ballast"
    fd = os.open(ballast, os.O_CREAT | os.O_WRONLY)
    try:
        for size in (1 << 16, 1 << 12):
            try:
                while os.write(fd, bytes(size)) == size:
                    pass
            except OSError:
                continue  # full
    finally:
        os.close(fd)
    return ballast


def lose(one: Appliance, here: Site) -> Path:
    """Fill the disk and let the ring lap what the journal lacks; the ballast."""
    ring = RingReader(here.ring_dir / "binance_trade_chunk0.meta")
    one.wait(lambda: ring.committed_sequence > 3_000)
    ballast = fill(here.journal_dir)
    one.wait(lambda: ring.mode == "lossy")
    one.wait(lambda: ring.committed_sequence > ring.flushed_sequence + LOST_RECORDS)
    ring.close()
    return ballast


@pytest.mark.parametrize("end", ["goes_on", "stopped_at_once", "killed_at_once", "killed_when_written_again", "stopped_while_full"])
def test_what_the_journal_lost_to_a_full_disk_is_recorded(here: Site, end: str) -> None:
    """T24."""
    with local_exchange("--symbols", "20", "--rate", "30000", "--fault", "connects=100000") as exchange:
        config = here.config(f'rest_url = "{exchange.rest_url}"\nws_url = "{exchange.ws_url}"', feed="legs = 1")
        with appliance(config) as one:
            one.ready()
            ballast = lose(one, here)
            if end == "stopped_while_full":
                assert one.stop() == 3
                ballast.unlink()
            else:
                ring = RingReader(here.ring_dir / "binance_trade_chunk0.meta")
                flushed = ring.flushed_sequence
                ballast.unlink()
                if end == "goes_on":
                    one.wait(lambda: ring.mode == "safe")
                elif end == "killed_when_written_again":
                    one.wait(lambda: ring.flushed_sequence > flushed)
                ring.close()
                if end.startswith("killed"):
                    one.process.send_signal(signal.SIGKILL)
                    one.ended()
                else:
                    assert one.stop() == 0
        if end not in ("goes_on", "stopped_at_once"):
            with appliance(config) as one:
                one.ready()
                assert one.stop() == 0
    for directory in (here.ring_dir, here.journal_dir):
        code, found = verdict(directory)
        assert (code, found["fault_list"], found["unrecorded_ids"]) == (0, [], 0)
        assert found["missing_sequences"]
        assert found["lost_ids"] + found["recorded_ids"] > LOST_RECORDS // 4


@pytest.mark.parametrize("end", ["goes_on", "killed_when_it_is_known", "killed_when_it_is_asked_for"])
def test_what_the_journal_lost_to_a_full_disk_is_fetched_again(here: Site, end: str) -> None:
    """The journal alone holds every trade afterwards."""
    trades = 100_000
    flags = ["--symbols", "4", "--rate", "30000", "--count", str(trades), "--start-after", "1", "--fault", "weight_per_minute=1000000"]
    with local_exchange(*flags) as exchange:
        config = here.config(f'rest_url = "{exchange.rest_url}"\nws_url = "{exchange.ws_url}"', feed="legs = 1")
        with appliance(config) as one:
            one.ready()
            ring = RingReader(here.ring_dir / "binance_trade_chunk0.meta")
            one.wait(lambda: ring.committed_sequence > 1_000)
            ballast = fill(here.journal_dir)
            exchange.wait(lambda stats: stats["finished"])
            one.wait(lambda: ring.counters()["trades"] == trades)
            ballast.unlink()
            one.wait(lambda: ring.mode == "safe")
            if end == "killed_when_it_is_known":
                one.wait(lambda: "hole_reopened" in here.events(here.ring_dir))
            elif end == "killed_when_it_is_asked_for":
                one.wait(lambda: ring.counters()["backfilled"] > 500)
            ring.close()
            if end != "goes_on":
                one.process.send_signal(signal.SIGKILL)
                one.ended()
            else:
                one.wait(lambda: whole(here), 60.0)
                assert one.stop() == 0
        if end != "goes_on":
            with appliance(config) as one:
                one.ready()
                one.wait(lambda: whole(here), 60.0)
                assert one.stop() == 0
        assert exchange.stats()["trades_generated"] == trades
    assert any(isinstance(value, Hole) for value in here.values(here.journal_dir))
    held = here.trades()
    assert len(held) == trades
    assert max(Counter(held).values()) == 1
    assert verdict(here.journal_dir)[0] == 0
    assert coverage.run(rings=here.journal_dir, start=None, end=None, out=None, check=None, as_json=True) == 0


def whole(here: Site) -> bool:
    surveys = [survey(one, lambda size: None, digests=False) for one in examinations(here.journal_dir)]
    return is_whole(surveys)
