"""The power goes: what was on the platter is there again, the rest is found out, said, and asked for over REST."""

import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from appliance import Gap, Trade
from appliance.ring.journal import JournalReader
from appliance.ring.reader import Record, RingReader
from tests.fuse_disk import FuseDisk
from tests.local_exchange import local_exchange
from tests.system.appliance_process import Appliance, Site, appliance, site
from tests.system.verdict import verdict

RECORDS = 5_000
START_S_MAX = 20.0


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as one:
        yield one


def newest(ring: RingReader) -> Record:
    """The last committed record as it is now."""
    ring.seek_sequence(ring.committed_sequence)
    while not (items := [item for item in ring.poll(1) if isinstance(item, Record)]):
        ring.seek_sequence(ring.committed_sequence)
    return items[-1]


def cut(one: Appliance, here: Site, disk: FuseDisk, kept: float) -> tuple[int, Record]:
    """Power off, while it works; then on again, without a ring. What was said to be on disk, and the newest record, both just before."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    ring = RingReader(here.ring_dir / "binance_trade_chunk0.meta")
    one.wait(lambda: ring.flushed_sequence > RECORDS)
    # A moment that has nothing to do with that of a flush.
    until = ring.committed_sequence + random.Random(seed).randrange(500)
    one.wait(lambda: ring.committed_sequence >= until)
    flushed_sequence, last = ring.flushed_sequence, newest(ring)
    disk.cut_power(seed, kept)
    ring.close()
    one.process.send_signal(signal.SIGKILL)
    one.ended()
    disk.restore_power()
    for path in here.ring_dir.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return flushed_sequence, last


def recovered(here: Site) -> Record:
    """The journal's last good record before anything was mended."""
    reader = JournalReader(here.journal_dir, "binance", 0)
    records = [item for item in reader if isinstance(item, Record)]
    reader.close()
    return records[-1]


@pytest.mark.parametrize("sync_writes", [False, True], ids=["every 50 ms", "sync_writes"])
def test_what_a_power_cut_took_is_fetched_again(here: Site, fuse_disk: FuseDisk, sync_writes: bool) -> None:
    """0 lost with REST, whatever the disk had taken: all that was sent is in the journal once."""
    count = 60_000
    with local_exchange("--symbols", "20", "--rate", "5000", "--count", str(count), "--start-after", "2") as exchange:
        config = here.config(
            f'rest_url = "{exchange.rest_url}"\nws_url = "{exchange.ws_url}"', feed="legs = 2\ngap_grace_ms = 200",
            journal=f"sync_writes = {str(sync_writes).lower()}",
        )  # fmt: skip
        for kept in (0.0, 0.5):
            with appliance(config) as one:
                one.ready()
                flushed_sequence, _ = cut(one, here, fuse_disk, kept)
                assert recovered(here).sequence >= flushed_sequence
        with appliance(config) as one:
            began_s = time.monotonic()
            one.ready()
            assert time.monotonic() - began_s < START_S_MAX
            exchange.wait(lambda stats: stats["finished"], within_s=60)
            one.wait(lambda: len(Counter(here.trades(here.ring_dir))) == count)
            assert one.stop() == 0
    trades = Counter(here.trades())
    assert len(trades) == count
    for directory in (here.ring_dir, here.journal_dir):
        code, found = verdict(directory)
        assert code == 0, found


LOSS = "{}: {} of the committed records lost, {:.1f} ms of them; {} trades not collected, {:.0f} ms of the feed"


def gone(here: Site) -> tuple[int, float]:
    """Ids between the first and the last of each symbol that are not in the journal, and the longest time without any trade, in ms."""
    trades = [value for value in here.values(None) if isinstance(value, Trade)]
    ids: dict[str, set[int]] = {}
    for trade in trades:
        ids.setdefault(trade.asset, set()).add(trade.exchange_trade_id)
    lost = {(asset, one) for asset, found in ids.items() for one in range(min(found), max(found) + 1)}
    lost -= {(asset, one) for asset, found in ids.items() for one in found}
    told = {(value.asset, one) for value in here.values(None) if isinstance(value, Gap) for one in range(value.from_id, value.to_id + 1)}
    assert lost <= told, "each has its record"
    times = sorted(trade.exchange_ts_ms for trade in trades)
    return len(lost), max(after - before for before, after in pairwise(times))


@pytest.mark.parametrize(
    ("end", "journal"),
    [
        ("leg cut", "flush_interval_ms = 50"),
        ("kill -9", "flush_interval_ms = 50"),
        ("power cut", "flush_interval_ms = 50"),
        ("power cut", "sync_writes = true"),
    ],
    ids=lambda value: value.replace(" = ", "="),
)
def test_the_loss_window_without_rest(here: Site, fuse_disk: FuseDisk, end: str, journal: str) -> None:
    """What is lost when nothing can be asked for again, started again at once: printed, and each missing id is a gap record.

    make test ARGS='-k loss_window -s'
    """
    flags = ("--fault", "reset:after_s=4,times=1") if end == "leg cut" else ()
    with local_exchange("--symbols", "20", "--rate", "5000", "--fault", "connects=100000", *flags) as exchange:
        config = here.config(
            f'rest_url = "{exchange.rest_url}"\nws_url = "{exchange.ws_url}"', feed="legs = 1\ngap_grace_ms = 200\nbackfill = false",
            journal=journal,
        )  # fmt: skip
        records, record_ms = 0, 0.0
        with appliance(config) as one:
            one.ready()
            ring = RingReader(here.ring_dir / "binance_trade_chunk0.meta")
            if end == "leg cut":
                one.wait(lambda: ring.counters()["reconnects"] == 1)
            elif end == "kill -9":
                one.wait(lambda: ring.flushed_sequence > RECORDS)
                last = newest(ring)
                one.process.send_signal(signal.SIGKILL)
                one.ended()
            else:
                flushed_sequence, last = cut(one, here, fuse_disk, kept=0.0)
                found = recovered(here)
                assert found.sequence >= flushed_sequence
                records, record_ms = max(0, last.sequence - found.sequence), max(0.0, (last.write_ns - found.write_ns) / 1e6)
            if end == "leg cut":
                at = ring.committed_sequence
                one.wait(lambda: ring.committed_sequence > at + RECORDS)
                assert one.stop() == 0
            ring.close()
        if end != "leg cut":
            with appliance(config) as one:
                one.ready()
                ring = RingReader(here.ring_dir / "binance_trade_chunk0.meta")
                at = ring.committed_sequence
                one.wait(lambda: ring.committed_sequence > at + RECORDS)
                ring.close()
                assert one.stop() == 0
        if end == "kill -9":
            reader = JournalReader(here.journal_dir, "binance", 0)
            reader.seek_sequence(last.sequence)
            (again,) = (item for item in reader.poll(1) if isinstance(item, Record))
            reader.close()
            assert (again.sequence, again.payload) == (last.sequence, last.payload)
    lost, feed_ms = gone(here)
    print(LOSS.format(f"{end}, {journal}", records, record_ms, lost, feed_ms))
    assert verdict(here.journal_dir)[0] == 0
