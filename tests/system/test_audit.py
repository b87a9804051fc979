"""`mdc audit`: what the appliance recorded, against the exchange that it came from, and against one that says otherwise."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import CannotRun, ConfigError
from appliance.tools import audit, sample
from tests.local_exchange import LocalExchange, local_exchange
from tests.system.appliance_process import Site, site
from tests.system.collecting import collecting
from tests.tools.test_verify import records, rewrite


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(sample, "SETTLED_NS", 0)
    with site(tmp_path) as one:
        yield one


def record(here: Site, exchange: LocalExchange, name: str, trades: int) -> None:
    with collecting(here, exchange, name, legs=2, backfill=False) as one:
        one.ready()
        exchange.wait(lambda stats: stats["trades_sent"] >= trades)
        assert one.stop() == 0


def audited(
    here: Site, exchange: LocalExchange, capsys: pytest.CaptureFixture[str], name: str, samples: int = 30
) -> tuple[int, dict[str, Any]]:
    code = audit.run(
        rings=here.journal_dir, exchange=name, rest_url=exchange.rest_url, ca_file=None, samples=samples, follow=False, share=0.5,
        seed=1, as_json=True,
    )  # fmt: skip
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["binance", "deribit"])
def test_what_was_recorded_is_what_the_exchange_has(here: Site, capsys: pytest.CaptureFixture[str], name: str) -> None:
    with local_exchange("--symbols", "10", "--rate", "2000", "--count", "6000", "--start-after", "2", name=name) as exchange:
        record(here, exchange, name, 6_000)
        code, report = audited(here, exchange, capsys, name)
    assert (code, report["errors"], report["empty"]) == (0, 0, 0)
    assert report["trades"] > 300
    assert report["instruments"] > 5
    assert report["error_rate_at_most"] < 0.01
    assert report["sentence"].startswith("All as the exchange has it: ")


@pytest.mark.parametrize("name", ["binance", "deribit"])
def test_what_was_lost_is_found_missing(here: Site, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """T21: the oracle is the exchange's own answer for these ids, not that they follow each other."""
    flags = ["--symbols", "2", "--rate", "2000", "--count", "6000", "--start-after", "2", "--fault", "hole:after=1500,trades=9,every=500"]
    with local_exchange(*flags, name=name) as exchange:
        record(here, exchange, name, 5_000)
        code, report = audited(here, exchange, capsys, name)
    assert code == 1
    assert {finding["what"] for finding in report["findings"]} == {"missing"}
    missing = {(gap.asset, one) for gap in here.gaps() for one in range(gap.from_id, gap.to_id + 1)}
    assert {(finding["asset"], finding["id"]) for finding in report["findings"]} <= missing
    assert report["error_rate"] > 0


def test_a_price_that_is_not_the_exchange_s_is_found(here: Site, capsys: pytest.CaptureFixture[str]) -> None:
    with local_exchange("--symbols", "2", "--rate", "2000", "--count", "3000", "--start-after", "2") as exchange:
        record(here, exchange, "binance", 3_000)
        (segment,) = here.journal_dir.glob("*.journal")
        for offset in records(segment):
            rewrite(segment, offset, another_price)
        code, report = audited(here, exchange, capsys, "binance", 2)
    assert code == 1
    assert {finding["what"] for finding in report["findings"]} == {"differs"}
    assert report["errors"] == report["trades"] > 0
    assert report["sentence"].startswith("NOT as the exchange has it: ")


def another_price(record: bytearray) -> None:
    begin = record.find(b'"px":') + len('"px":')
    if begin >= len('"px":'):
        record[begin] = ord("1") if record[begin] != ord("1") else ord("2")


def test_what_cannot_be_asked_is_said(here: Site, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--symbols", "2", "--rate", "2000", "--count", "2000", "--start-after", "2"]
    with local_exchange(*flags, "--fault", "rest:answer=404,path=historicalTrades") as exchange:
        record(here, exchange, "binance", 2_000)
        with pytest.raises(CannotRun, match="the exchange does not answer: HTTP 404"):
            audited(here, exchange, capsys, "binance")
        with pytest.raises(ConfigError, match="holds trades of binance; --exchange says deribit"):
            audited(here, exchange, capsys, "deribit")


@pytest.mark.parametrize(("errors", "trades", "bound"), [(0, 0, 1.0), (0, 1_000, 0.0027), (1_000, 1_000, 1.0), (5, 1_000, 0.01023)])
def test_the_bound_is_wilson_s(errors: int, trades: int, bound: float) -> None:
    assert audit.at_most(errors, trades) == pytest.approx(bound, rel=0.02)
