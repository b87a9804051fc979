"""What the second leg is good for, as `mdc stats` says it of a running appliance."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.tools import stats
from tests.local_exchange import local_exchange
from tests.system.appliance_process import Site, appliance, site

TRADES = 30_000


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as one:
        yield one


def test_what_only_one_leg_brought_is_counted_for_it(here: Site) -> None:
    """Connection 0 never gets 5 of every 1,000 trades; the other has them."""
    flags = ["--symbols", "20", "--rate", "5000", "--count", str(TRADES), "--start-after", "2"]
    with local_exchange(*flags, "--fault", "hole:after=1000,trades=5,every=1000,connection=0") as exchange:
        urls = f'rest_url = "{exchange.rest_url}"\nws_url = "{exchange.ws_url}"'
        with appliance(here.config(urls, feed="legs = 2\nbackfill = false")) as one:
            one.ready()
            exchange.wait(lambda stats: stats["finished"], 40.0)
            one.wait(lambda: stats.read(here.ring_dir)[0]["trades"] == TRADES)
            one.wait(lambda: sum(leg["duplicates"] + leg["wins"] for leg in stats.read(here.ring_dir)[0]["legs"]) > 2 * TRADES - 200)
            assert all(leg["age_ms"] > 0 for leg in stats.read(here.ring_dir)[0]["legs"])
            assert one.stop() == 0
    (row,) = stats.read(here.ring_dir)
    zero, other = row["legs"]
    withheld = zero["only"] + other["only"]
    assert min(zero["only"], other["only"]) == 0
    assert 0 < withheld <= 5 * TRADES // 1_000
    assert zero["wins"] + other["wins"] == TRADES
    assert zero["lead_ns"]["count"] == zero["shared"]
    assert f"{withheld} of them" in row["legs_worth"]
    assert all(leg["age_ms"] is None for leg in row["legs"])
    assert here.gaps() == []
