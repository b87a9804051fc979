"""Trades that come late over sockets that live: told, measured, and cured where another connection shows that it can be."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance import Status
from appliance.tools import stats, verify
from tests.local_exchange import local_exchange
from tests.system.appliance_process import Site, appliance, site
from tests.system.deribit_site import config as deribit_config

RATE = 500
LATE_BY_MS = 4_000
ALARM_MS = 1_500


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as one:
        yield one


def told(here: Site, event: str, directory: Path | None = None) -> list[dict[str, Any]]:
    return [dict(value.fields) for value in here.values(directory) if isinstance(value, Status) and value.event == event]


@pytest.mark.parametrize("name", ["binance", "deribit"])
def test_t28_a_leg_whose_trades_queue_up_is_told_and_replaced_and_nothing_is_lost(here: Site, name: str) -> None:
    """T28: its socket is open, its pings are answered, no id is missing; only the times tell."""
    flags = ["--symbols", "10", "--rate", str(RATE), "--start-after", "2"]
    fault = f"lag:after_s=4,by_s={LATE_BY_MS / 1_000:g},grow_s=6,connection=1"
    with local_exchange(*flags, "--fault", fault, name=name) as exchange:
        urls = f'rest_url = "{exchange.rest_url}"\nws_url = "{exchange.ws_url}"'
        feed = f"legs = 2\nbackfill = false\nlag_alarm_ms = {ALARM_MS}"
        path = here.config(urls, feed=feed) if name == "binance" else deribit_config(here, exchange, "100ms", feed=feed)
        with appliance(path) as one:
            one.ready()
            one.wait(lambda: told(here, "lagging", here.ring_dir))
            assert stats.read(here.ring_dir)[0]["lag_ms"] < ALARM_MS  # of the leg that is in time
            one.wait(lambda: told(here, "handover", here.ring_dir))
            one.wait(lambda: told(here, "caught_up", here.ring_dir))
            one.wait(lambda: one.logged('"lagging"'))
            assert one.stop() == 0
    lagging = told(here, "lagging")[0]
    assert lagging["lag_ms"] > ALARM_MS > lagging["usual_ms"]
    (leaving,) = told(here, "leaving")
    assert leaving["reason"].startswith("lagging")
    assert leaving["leg"] == lagging["leg"]
    assert told(here, "mute") == told(here, "silent") == told(here, "lost") == []
    assert here.gaps() == []
    assert max(Counter(here.trades()).values()) == 1
    assert verify.run(rings=here.journal_dir, as_json=True) == 0


def test_t28_all_that_comes_late_is_an_alarm_and_no_reason_to_reconnect(here: Site) -> None:
    """T28."""
    flags = ["--symbols", "10", "--rate", str(RATE), "--start-after", "2"]
    fault = f"lag:after_s=4,by_s={LATE_BY_MS / 1_000:g},grow_s=6,for_s=16"
    with local_exchange(*flags, "--fault", fault) as exchange:
        urls = f'rest_url = "{exchange.rest_url}"\nws_url = "{exchange.ws_url}"'
        with appliance(here.config(urls, feed=f"legs = 2\nbackfill = false\nlag_alarm_ms = {ALARM_MS}")) as one:
            one.ready()
            one.wait(lambda: any("leg" not in lagging for lagging in told(here, "lagging", here.ring_dir)))
            row = stats.read(here.ring_dir)[0]
            assert row["lag_ms"] - row["lag_usual_ms"] > ALARM_MS
            assert [leg["lag_ms"] > ALARM_MS for leg in row["legs"]] == [True, True]
            one.wait(lambda: any("leg" not in caught_up for caught_up in told(here, "caught_up", here.ring_dir)))
            one.wait(lambda: stats.read(here.ring_dir)[0]["lag_ms"] < ALARM_MS)
            assert one.stop() == 0
    assert told(here, "leaving") == told(here, "lost") == []
    assert here.gaps() == []


def test_trades_over_rest_are_never_late(here: Site) -> None:
    """What was traded while nobody listened is as old as that, and says nothing of the feed."""
    flags = ["--symbols", "5", "--rate", str(RATE), "--fault", "rest_lag_ms=100"]
    with local_exchange(*flags) as exchange:
        urls = f'rest_url = "{exchange.rest_url}"\nws_url = "{exchange.ws_url}"'
        path = here.config(urls, feed="legs = 1\nlag_alarm_ms = 300")
        with appliance(path) as one:
            one.ready()
            one.wait(lambda: here.trades(here.ring_dir))
            assert one.stop() == 0
        sent = exchange.stats()["trades_generated"]
        exchange.wait(lambda now: now["trades_generated"] > sent + 5 * RATE)
        with appliance(path) as one:
            one.ready()
            one.wait(lambda: stats.read(here.ring_dir)[0]["backfilled"] >= RATE)
            heard = stats.read(here.ring_dir)[0]["trades"]
            one.wait(lambda: stats.read(here.ring_dir)[0]["trades"] > heard + 8 * RATE)
            assert one.stop() == 0
    assert told(here, "lagging") == []
