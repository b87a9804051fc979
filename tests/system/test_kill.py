"""`kill -9` at random moments: whatever was committed before is there afterwards, and the stream goes on.

MDC_KILLS=1000 make test ARGS='-k killed_again'
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance import Gap, Trade, open_rings
from appliance.ring.journal import JournalReader
from appliance.ring.reader import Record, RingReader
from tests.local_exchange import local_exchange
from tests.system.appliance_process import Site, appliance, site

KILLS = int(os.environ.get("MDC_KILLS", "50"))
ALIVE_S_MAX = 1.5 if "MDC_KILLS" in os.environ else 0.4
REMEMBERED = 2000  # of the newest records before each kill


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as one:
        yield one


def newest(meta: Path) -> list[Record]:
    """The last committed records as a reader finds them now."""
    ring = RingReader(meta)
    ring.seek_sequence(max(ring.committed_sequence - REMEMBERED, 1))
    records = [item for item in ring.poll(2 * REMEMBERED) if isinstance(item, Record)]
    ring.close()
    return records


def test_an_appliance_that_is_killed_again_and_again_loses_nothing_committed(here: Site) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    meta = here.ring_dir / "binance_trade_chunk0.meta"
    remembered: dict[int, Record] = {}
    with local_exchange("--symbols", "50", "--rate", "20000", "--fault", "connects=100000") as exchange:
        config = here.config(f'rest_url = "{exchange.rest_url}"\nws_url = "{exchange.ws_url}"', feed="legs = 2")
        for _ in range(KILLS):
            with appliance(config) as one:
                one.ready()
                before = RingReader(meta).committed_sequence
                one.wait(lambda before=before: RingReader(meta).committed_sequence > before + 100)  # type: ignore[misc]
                time.sleep(chance.random() * ALIVE_S_MAX)  # the random moment
                remembered |= {record.sequence: record for record in newest(meta)}
                one.process.send_signal(signal.SIGKILL)
                one.ended()
        with appliance(config) as one:
            one.ready()
            assert one.stop() == 0
    verified = subprocess.run(
        [sys.executable, "-c", "from appliance.cli import main; main()", "verify", "--rings", str(here.ring_dir)], check=False
    )
    assert verified.returncode == 0
    found = {item.sequence: item for item in JournalReader(here.journal_dir, "binance", 0) if isinstance(item, Record)}
    assert sorted(found) == list(range(1, max(found) + 1))
    assert {sequence: found[sequence] for sequence in remembered} == remembered
    assert {record.epoch for record in found.values()} == set(range(1, KILLS + 2))
    values = list(open_rings(here.journal_dir))
    trades = [(value.asset, value.exchange_trade_id) for value in values if isinstance(value, Trade)]
    assert max(Counter(trades).values()) == 1
    # Between the first and the last id of a symbol each one is there, or a gap record names it.
    missing = {(gap.asset, gap_id) for gap in values if isinstance(gap, Gap) for gap_id in range(gap.from_id, gap.to_id + 1)}
    for asset in {asset for asset, _ in trades}:
        ids = {trade_id for symbol, trade_id in trades if symbol == asset}
        assert {(asset, trade_id) for trade_id in range(min(ids), max(ids) + 1) if trade_id not in ids} <= missing
