"""A socket that is open and brings nothing: found by the chunk's own rhythm, replaced, and nothing is lost."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance import Status
from appliance.tools import verify
from tests.local_exchange import local_exchange
from tests.system.appliance_process import Site, appliance, site
from tests.system.deribit_site import config as deribit_config

TRADES = 28_000


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as one:
        yield one


def told(here: Site, event: str, directory: Path | None = None) -> list[dict[str, Any]]:
    return [dict(value.fields) for value in here.values(directory) if isinstance(value, Status) and value.event == event]


@pytest.mark.parametrize("fault", ["stall:after_frames=200,connection=1", "mute:connection=1"])
@pytest.mark.parametrize("name", ["binance", "deribit"])
def test_a_mute_leg_is_replaced_in_seconds_while_the_other_brings_all(here: Site, name: str, fault: str) -> None:
    """T6."""
    flags = ["--symbols", "20", "--rate", "2000", "--count", str(TRADES), "--start-after", "2", "--fault", fault]
    with local_exchange(*flags, name=name) as exchange:
        urls = f'rest_url = "{exchange.rest_url}"\nws_url = "{exchange.ws_url}"'
        feed = "legs = 2\nbackfill = false"
        path = here.config(urls, feed=feed) if name == "binance" else deribit_config(here, exchange, "100ms", feed=feed)
        with appliance(path) as one:
            one.ready()
            one.wait(lambda: told(here, "handover", here.ring_dir))
            exchange.wait(lambda stats: stats["finished"], 60.0)
            one.wait(lambda: len(here.trades(here.ring_dir)) == TRADES)
            assert one.stop() == 0
    trades = here.trades()
    assert len(trades) == TRADES
    assert max(Counter(trades).values()) == 1
    assert here.gaps() == []
    (mute,) = told(here, "mute")
    assert mute["silent_ms"] < 30_000
    assert mute["verdict"] == ("dead_subscription" if fault.startswith("mute") else "dead_socket")
    assert told(here, "lost") == []
    assert verify.run(rings=here.journal_dir, as_json=True) == 0


def test_the_only_leg_falls_silent_and_what_it_missed_comes_over_rest(here: Site) -> None:
    flags = ["--symbols", "20", "--rate", "1000", "--count", str(TRADES), "--fault", "stall:after_frames=5000,connection=0"]
    with local_exchange(*flags) as exchange:
        urls = f'rest_url = "{exchange.rest_url}"\nws_url = "{exchange.ws_url}"'
        with appliance(here.config(urls, feed="legs = 1")) as one:
            one.ready()
            exchange.wait(lambda stats: stats["finished"], 80.0)
            one.wait(lambda: len(here.trades(here.ring_dir)) == TRADES, 60.0)
            assert one.stop() == 0
    trades = here.trades()
    assert len(trades) == TRADES
    assert max(Counter(trades).values()) == 1
    assert told(here, "silent")[0]["silent_ms"] <= 60_000
    assert told(here, "heard_again")[0]["verdict"] in ("dead_streams", "quiet_market")
    assert len(told(here, "connected")) >= 2
    assert verify.run(rings=here.journal_dir, as_json=True) == 0
