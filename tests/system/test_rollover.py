"""Connections are replaced for their age while trades come at full rate: nothing is lost, and nothing is asked for."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance import Status
from appliance.tools import verify
from tests.local_exchange import local_exchange
from tests.system.appliance_process import Site, appliance, site
from tests.system.deribit_site import config as deribit_config

ROLLOVER_S = 2.0
TRADES = 60_000


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as one:
        yield one


@pytest.mark.parametrize("legs", [1, 2])
@pytest.mark.parametrize("name", ["binance", "deribit"])
def test_rolling_over_again_and_again_under_load_loses_nothing(here: Site, name: str, legs: int) -> None:
    """T9, T10."""
    flags = ["--symbols", "50", "--rate", "4000", "--count", str(TRADES), "--start-after", str(legs)]
    feed = f"legs = {legs}\nrollover_hours = {ROLLOVER_S / 3600}"
    with local_exchange(*flags, name=name) as exchange:
        urls = f'rest_url = "{exchange.rest_url}"\nws_url = "{exchange.ws_url}"'
        path = here.config(urls, feed=feed) if name == "binance" else deribit_config(here, exchange, "100ms", feed=feed)
        with appliance(path) as one:
            one.ready()
            one.wait(lambda: "leaving" in here.events(here.ring_dir))
            requests = exchange.stats()["requests"]
            exchange.wait(lambda stats: stats["finished"], 60.0)
            one.wait(lambda: len(here.trades(here.ring_dir)) == TRADES)
            stats = exchange.stats()
            assert one.stop() == 0
    trades = here.trades()
    assert len(trades) == TRADES
    assert max(Counter(trades).values()) == 1
    assert here.gaps() == []
    assert stats["requests"] == requests, "REST was asked though nothing was missing"
    told = [value for value in here.values(None) if isinstance(value, Status)]
    leaving = [value.fields for value in told if value.event == "leaving"]
    assert len(leaving) >= 2 * legs
    assert all(str(fields["reason"]).startswith("rollover") for fields in leaving)
    assert stats["websockets"] >= 3 * legs
    assert [value for value in told if value.event == "lost"] == []
    assert all(value.fields["lacking"] == 0 for value in told if value.event == "handover")
    # In order of time: no leg begins to leave while another is at it.
    at_it = 0
    for value in told:
        at_it += (value.event == "leaving") - (value.event == "closed")
        assert at_it <= 1
    assert verify.run(rings=here.journal_dir, as_json=True) == 0
