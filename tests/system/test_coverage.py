"""`mdc coverage` of what the appliance recorded from local exchanges that withhold, forget and never made trades."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.tools import coverage
from tests.local_exchange import local_exchange
from tests.system.appliance_process import Site, site
from tests.system.test_backfill import accounted, collecting, gaps_closed


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as one:
        yield one


def cover(directory: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = coverage.run(rings=directory, start=None, end=None, out=None, check=None, as_json=True)
    return code, json.loads(capsys.readouterr().out)


def lacking(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [lack for chunk in document["chunks"] for one in chunk["instruments"] for lack in one["lacking"]]


@pytest.mark.parametrize("name", ["binance", "deribit"])
def test_what_was_fetched_or_never_existed_leaves_the_tape_whole(here: Site, capsys: pytest.CaptureFixture[str], name: str) -> None:
    flags = ["--symbols", "10", "--rate", "1000", "--count", "5000", "--fault", "hole:after=1000,trades=7"]
    never = ["--fault", "hole:after=2000,trades=5,fillable=false"]
    with local_exchange(*flags, *never, name=name) as exchange, collecting(here, exchange, name) as one:
        one.ready()
        exchange.wait(lambda stats: stats["finished"])
        one.wait(lambda: gaps_closed(here) == 2, 120.0)
        _, live = cover(here.ring_dir, capsys)
        assert one.stop() == 0
    code, document = cover(here.journal_dir, capsys)
    assert code == 0, document["sentence"]
    assert "5 ids between them proven never to have been traded" in document["sentence"]
    instruments = [one for chunk in document["chunks"] for one in chunk["instruments"]]
    assert sum(one["trades"] for one in instruments) == 4_995
    assert sum(last - first + 1 for one in instruments for first, last in one["backfilled"]) == 7
    assert [(lack["state"], lack["to_id"] - lack["from_id"] + 1) for lack in lacking(document)] == [("never_existed", 5)]
    certificate = here.directory / "live.json"
    certificate.write_text(json.dumps(live))
    elsewhere = here.directory / "elsewhere"
    shutil.copytree(here.journal_dir, elsewhere)
    assert coverage.run(rings=elsewhere, start=None, end=None, out=None, check=certificate, as_json=False) == 0


@pytest.mark.parametrize("name", ["binance", "deribit"])
def test_what_the_exchange_has_forgotten_is_said_to_be_missing(here: Site, capsys: pytest.CaptureFixture[str], name: str) -> None:
    flags = ["--symbols", "2", "--rate", "1000", "--fault", "retained_trades=64", "--count", "4000"]
    with local_exchange(*flags, name=name) as exchange:
        with collecting(here, exchange, name) as one:
            one.ready()
            exchange.wait(lambda stats: stats["trades_generated"] > 1_000)
            assert one.stop() == 0
        exchange.wait(lambda stats: stats["trades_generated"] > 2_000)
        with collecting(here, exchange, name) as one:
            one.ready()
            exchange.wait(lambda stats: stats["finished"], 120.0)
            one.wait(lambda: accounted(here) == 4_000, 120.0)
            assert one.stop() == 0
    code, document = cover(here.journal_dir, capsys)
    assert code == 1
    assert document["sentence"].startswith("The tape is not whole: ")
    held = sum(one["trades"] for chunk in document["chunks"] for one in chunk["instruments"])
    missing = sum(lack["to_id"] - lack["from_id"] + 1 for lack in lacking(document))
    assert held + missing == 4_000
    assert {lack["reason"] for lack in lacking(document) if lack["state"] == "not_collected"} == {"older than what the exchange keeps"}
    (deaf,) = document["chunks"][0]["deaf"][1:-1]  # between the two lives
    assert deaf[1] > deaf[0]
