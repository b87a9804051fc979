"""The fault matrix, in its short form: each fault once, on the exchanges and with the legs in turn. MDC_LONG=1: all of it."""

import os
from pathlib import Path

import pytest

from tests.system.fault_matrix import FAULTS, Fault, cases, run


def in_turn() -> list[tuple[Fault, str, int]]:
    """Each fault once."""
    found = []
    for number, fault in enumerate(FAULTS):
        of_it = [case for case in cases() if case[0] is fault]
        found.append(of_it[number % len(of_it)])
    return found


CHOSEN = cases() if os.environ.get("MDC_LONG") else in_turn()


@pytest.mark.parametrize(
    ("fault", "exchange", "legs"), CHOSEN, ids=[f"{fault.name}, {exchange}, {legs}" for fault, exchange, legs in CHOSEN]
)
def test_nothing_is_lost_whatever_befalls_the_feed(tmp_path: Path, fault: Fault, exchange: str, legs: int) -> None:
    outcome = run(fault, exchange, legs, tmp_path)
    assert outcome.complaints() == [], outcome
