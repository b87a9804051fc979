"""A disk that is full for longer than the ring lasts: what the journal lost is recorded, whatever ends the process."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.ring.reader import RingReader
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
