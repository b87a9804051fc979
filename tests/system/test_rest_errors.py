"""What REST may answer instead of data, while ids are missing and at a first start: the table of tests/system/rest_errors.py.

The rows of a module run beside each other, for most of the time of each is waiting.
"""

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from tests.local_exchange import local_exchange
from tests.system.appliance_process import site
from tests.system.collecting import collecting
from tests.system.rest_errors import ERRORS, EXCHANGES, LISTING, Error, Outcome, refusals, while_running

pytestmark = pytest.mark.xdist_group("rest_errors")  # in one process, so that each row runs once

AT_ONCE = 3
LONG = bool(os.environ.get("MDC_LONG"))
RUNNING = [(error, exchange) for error in ERRORS if LONG or not error.in_matrix for exchange in EXCHANGES]
# Binance's others are in test_collector.
STARTS_ELSEWHERE = {"403", "404", "451", "503", "html", "truncated"}
STARTING = [
    (error, exchange)
    for error in ERRORS
    for exchange in EXCHANGES
    if exchange == "deribit" or error.answer not in STARTS_ELSEWHERE
]  # fmt: skip


def names(cases: list[tuple[Error, str]]) -> list[str]:
    return [f"{error.name}, {exchange}" for error, exchange in cases]


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Outcome | None]]]:
    """Each row that was asked for, by the name of its test."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        begun: dict[str, Future[Outcome | None]] = {}
        # Those that wait longest first.
        for item in sorted(request.session.items, key=lambda item: "no answer" not in item.name):
            if isinstance(item, pytest.Function) and item.path == request.path:
                error, exchange = cast(tuple[Error, str], (item.callspec.params["error"], item.callspec.params["exchange"]))
                directory = tmp_path_factory.mktemp("row")
                running = partial(while_running, to_the_end=LONG)
                row: Callable[[Error, str, Path], Outcome | None] = running if "running" in item.name else at_a_first_start
                begun[item.nodeid] = pool.submit(row, error, exchange, directory)
        yield begun
        for one in begun.values():
            one.cancel()


@pytest.mark.parametrize(("error", "exchange"), RUNNING, ids=names(RUNNING))
def test_while_running_nothing_is_lost_and_no_more_asked_than_is_right(
    request: pytest.FixtureRequest, outcomes: dict[str, Future[Outcome | None]], error: Error, exchange: str
) -> None:
    outcome = outcomes[request.node.nodeid].result()
    assert outcome is not None
    assert outcome.complaints() == [], outcome


@pytest.mark.parametrize(("error", "exchange"), STARTING, ids=names(STARTING))
def test_a_first_start_without_a_list_ends_or_waits_or_goes_on_and_says_so(
    request: pytest.FixtureRequest, outcomes: dict[str, Future[Outcome | None]], error: Error, exchange: str
) -> None:
    outcomes[request.node.nodeid].result()


def at_a_first_start(error: Error, exchange: str, directory: Path) -> None:
    """The list of instruments is answered so for ever. Binance's symbols are then unknown; Deribit's channels bring whole kinds."""
    fault = f"rest:path={LISTING[exchange].rpartition('/')[2]},answer={error.answer}"
    flags = ["--symbols", "5", "--rate", "500", "--fault", fault]
    with site(directory) as here, local_exchange(*flags, name=exchange) as local, collecting(here, local, exchange) as one:
        if error.answer == "451":
            assert one.ended(60.0) == 2
            (said,) = [line for line in one.log if line.startswith("mdc: error")]
            assert re.search(error.said, said)
            assert "No retry helps" in said
            assert not one.logged("Traceback")
            return
        one.wait(lambda: refusals(one, "discovery_refused"), 60.0)
        refusal = refusals(one, "discovery_refused")[0]
        assert re.search(error.said, refusal["message"])
        assert re.search(r"Asking again in [0-9.]+ s$", refusal["message"])
        assert refusal["level"] == ("ERROR" if error.slow else "WARNING")
        if exchange == "deribit":
            one.ready()
            assert one.logged("no list of instruments yet; each is known when it trades")
            one.wait(lambda: len(here.trades(here.ring_dir)) > 100)
        else:
            assert not one.was_notified("READY=1")
        if error.wait_s is not None:
            assert local.stats()["rest"][LISTING[exchange]] == 1  # not asked again before its time
        assert one.stop() == 0
