"""Writer, flusher and readers as threads under ThreadSanitizer; the long forms are `make sanitize` and `make fuzz`.

Building the instrumented modules takes minutes, so these look at what is built and are skipped when nothing is, or what is
built is not of this source.
"""

import os
from collections.abc import Callable

import pytest

from scripts import fuzz, sanitize
from scripts.instrument import Kind

FUZZ_S = 12
LOSSY_RECORDS = 6_000  # each meeting costs ThreadSanitizer a millisecond, suppressed or not


def built(kind: Callable[[], Kind], missing: Callable[[], str], make: str) -> None:
    """Have the tree, or skip the test with the reason; with MDC_PROOFS=long it is built."""
    if why := missing():
        pytest.skip(f"not run: {why}")
    if os.environ.get("MDC_PROOFS") == "long":
        kind().build()
    elif why := kind().outdated():
        pytest.skip(f"not run: {why}; `make {make}` builds it, in minutes")


@pytest.fixture
def thread() -> None:
    built(lambda: sanitize.THREAD, sanitize.THREAD.missing, "sanitize")


@pytest.mark.usefixtures("thread")
@pytest.mark.parametrize(("mode", "records"), [("ring", 300_000), ("safe", 100_000)])
def test_threads_of_one_ring_do_not_race(mode: str, records: int) -> None:
    """Nothing is suppressed here: in mode safe the flusher too reads only what no one writes."""
    status, words = sanitize.threads(mode, records, suppressed=False)
    assert status == 0, words
    assert "WARNING" not in words


@pytest.mark.usefixtures("thread")
def test_the_one_race_that_is_meant_is_seen_and_named() -> None:
    """In mode lossy the flusher copies bytes that change and throws the copy away: it is seen without its suppression."""
    status, words = sanitize.threads("lossy", LOSSY_RECORDS, suppressed=False)
    assert status != 0
    assert "data race" in words
    assert "flusher overtaken by" in words
    status, words = sanitize.threads("lossy", LOSSY_RECORDS)
    assert status == 0, words


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_a_short_fuzz_finds_nothing(target: str) -> None:
    built(fuzz.kind, fuzz.missing, "fuzz")
    run = fuzz.fuzz(target, FUZZ_S)
    assert run.status == 0, run.words[-6000:]
    assert run.executions > 100
    assert run.edges > 100, "the modules tell no coverage: nothing guides this"
