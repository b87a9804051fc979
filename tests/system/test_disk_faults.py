"""What a disk can do to the journal, and what the appliance makes of it: one row a fault."""

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.ring.layout import RecordType
from appliance.ring.reader import Record, RingReader
from tests.fuse_disk import EIO, ENOSPC, EROFS, FuseDisk
from tests.local_exchange import local_exchange
from tests.system.appliance_process import Site, appliance, site
from tests.system.verdict import verdict

RING_RECORDS = 60_000  # more than a ring of 16 MiB holds
FEW_RECORDS = 3_000


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as one:
        yield one


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A fault and what is expected of it."""

    fault: Callable[[FuseDisk], None]
    for_records: int
    """The fault lasts until so many more were committed."""
    said: str | None
    """In the log and the hole record; None: nothing is to be said, and the mode stays safe."""
    hole: bool
    """The journal lacks what the ring has lost by then."""
    rate: int = 10_000
    capacity_mb: int = 16


TABLE = {
    "EIO on one write": Row(fault=lambda disk: disk.fail(1, write=EIO), for_records=FEW_RECORDS, said="Input/output error", hole=False),
    "EIO on write": Row(fault=lambda disk: disk.fail(write=EIO), for_records=FEW_RECORDS, said="Input/output error", hole=False),
    "EIO on write, for long": Row(
        fault=lambda disk: disk.fail(write=EIO), for_records=RING_RECORDS, said="Input/output error", hole=True, rate=30_000
    ),
    "EIO on one fdatasync": Row(fault=lambda disk: disk.fail(1, sync=EIO), for_records=FEW_RECORDS, said="Input/output error", hole=False),
    "EIO on fdatasync": Row(fault=lambda disk: disk.fail(sync=EIO), for_records=FEW_RECORDS, said="Input/output error", hole=False),
    "EIO on fdatasync, for long": Row(
        fault=lambda disk: disk.fail(sync=EIO), for_records=RING_RECORDS, said="Input/output error", hole=True, rate=30_000
    ),
    "full": Row(
        fault=lambda disk: disk.fail(write=ENOSPC, make=ENOSPC), for_records=FEW_RECORDS, said="No space left on device", hole=False
    ),
    "full, for long": Row(
        fault=lambda disk: disk.fail(write=ENOSPC, make=ENOSPC), for_records=RING_RECORDS, said="No space left on device", hole=True,
        rate=30_000,
    ),
    "read-only": Row(
        fault=lambda disk: disk.fail(write=EROFS, sync=EROFS, make=EROFS), for_records=FEW_RECORDS, said="Read-only file system", hole=False
    ),
    "read-only, for long": Row(
        fault=lambda disk: disk.fail(write=EROFS, sync=EROFS, make=EROFS), for_records=RING_RECORDS, said="Read-only file system",
        hole=True, rate=30_000,
    ),
    "a stall of seconds": Row(fault=lambda disk: disk.stall(), for_records=20_000, said=None, hole=False),
    "a stall of more than the feed can wait": Row(
        fault=lambda disk: disk.stall(), for_records=RING_RECORDS, said="the disk took less than came for 10 s", hole=True, rate=20_000
    ),
    "slow": Row(fault=lambda disk: disk.pace(8_000_000), for_records=RING_RECORDS, said=None, hole=False),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_the_ring_goes_on_and_the_journal_has_all_or_says_what_it_lacks(here: Site, fuse_disk: FuseDisk, name: str) -> None:
    row = TABLE[name]
    with local_exchange("--symbols", "20", "--rate", str(row.rate), "--start-after", "2") as exchange:
        config = here.config(f'rest_url = "{exchange.rest_url}"\nws_url = "{exchange.ws_url}"', feed="legs = 2")
        with appliance(config) as one, fuse_disk:
            one.ready()
            ring = RingReader(here.ring_dir / "binance_trade_chunk0.meta")
            one.wait(lambda: ring.flushed_sequence > FEW_RECORDS)
            row.fault(fuse_disk)
            at = ring.committed_sequence
            if row.said is not None:
                one.wait(lambda: ring.mode == "lossy")
            one.wait(lambda: ring.committed_sequence > at + row.for_records, within_s=60)
            assert newest_trades(here, 100) > 50, "they are read"
            assert (ring.mode == "lossy") == (row.said is not None)
            fuse_disk.heal()
            one.wait(lambda: ring.mode == "safe" and ring.flushed_sequence > at + row.for_records)
            counters = ring.counters()
            ring.close()
            assert one.stop() == 0
            if row.said is not None:
                assert one.logged(f"journal_behind.*{row.said}")
                assert one.logged("journal_caught_up")
            assert bool(counters["flush_errors"]) == (row.said is not None and "stall" not in name)
        stats = exchange.stats()
    for directory in (here.ring_dir, here.journal_dir):
        code, found = verdict(directory)
        assert (code, found["fault_list"], found["unrecorded_ids"]) == (0, [], 0)
        assert bool(found["missing_sequences"]) == row.hole
    trades = Counter(here.trades())
    assert max(trades.values()) == 1
    lost = stats["trades_sent"] - len(trades)
    print(
        f"{name}: sent {stats['trades_sent']}, in the journal {len(trades)}, {counters['pauses']} pauses, {counters['flush_errors']} errors"
    )
    assert lost == 0 if not row.hole else lost <= sum(last - first + 1 for first, last in found["missing_sequences"])


def newest_trades(here: Site, count: int) -> int:
    """How many of the newest records a reader of the ring gets that are good trades: without the journal, which hangs perhaps."""
    ring = RingReader(here.ring_dir / "binance_trade_chunk0.meta")
    ring.seek_sequence(ring.committed_sequence - count)
    found = sum(isinstance(item, Record) and item.type == RecordType.TRADE for item in ring.poll(count))
    ring.close()
    return found


def test_a_stop_while_the_disk_stalls_says_so_and_the_next_start_writes_all(here: Site, fuse_disk: FuseDisk) -> None:
    with local_exchange("--symbols", "20", "--rate", "5000", "--start-after", "2", "--count", "10000") as exchange:
        config = here.config(f'rest_url = "{exchange.rest_url}"\nws_url = "{exchange.ws_url}"', feed="legs = 2")
        with appliance(config) as one, fuse_disk:
            one.ready()
            ring = RingReader(here.ring_dir / "binance_trade_chunk0.meta")
            one.wait(lambda: ring.flushed_sequence > FEW_RECORDS)
            fuse_disk.stall()
            exchange.wait(lambda stats: stats["finished"])
            one.wait(lambda: ring.counters()["trades"] == 10_000)
            ring.close()
            one.process.send_signal(signal.SIGTERM)
            one.wait(lambda: one.logged(r"the disk did not take all of chunks \[0\]"))
            fuse_disk.heal()
            assert one.ended() == 3
        with appliance(config) as one:
            one.ready()
            assert one.stop() == 0
    assert len(Counter(here.trades())) == len(here.trades()) == 10_000
    assert verdict(here.journal_dir)[0] == 0


def test_new_symbols_whose_place_the_disk_does_not_take_yet_hold_up_no_other(here: Site, fuse_disk: FuseDisk) -> None:
    flags = ("--symbols", "20", "--rate", "5000", "--start-after", "1", "--fault", "rest:path=exchangeInfo,times=4,retry_after_s=1")
    urls = 'rest_url = "{0.rest_url}"\nws_url = "{0.ws_url}"'
    with local_exchange("--symbols", "20") as exchange, appliance(here.config(urls.format(exchange), symbols='include = ["B*"]')) as one:
        one.ready()
        assert one.stop() == 0
    with local_exchange(*flags) as exchange, appliance(here.config(urls.format(exchange))) as one, fuse_disk:
        one.ready()
        ring = RingReader(here.ring_dir / "binance_trade_chunk0.meta")
        one.wait(lambda: ring.flushed_sequence > ring.first_sequence)
        made = fuse_disk.counts()["make"]
        fuse_disk.stall()
        one.wait(lambda: fuse_disk.counts()["make"] > made)
        at = ring.committed_sequence
        one.wait(lambda: ring.committed_sequence > at + 1_000)
        assert not one.logged("new symbols have their place")
        fuse_disk.heal()
        one.wait(lambda: one.logged("new symbols have their place"))
        ring.close()
        assert one.stop() == 0
