"""The soak in its short form, two minutes of trades with a fault every few seconds; of the long forms only with MDC_LONG=1."""

import os
from pathlib import Path

import pytest

from tests.system.soak import run

SECONDS = 120.0


@pytest.mark.skipif(not os.environ.get("MDC_LONG"), reason="two minutes; MDC_LONG=1 runs it")
@pytest.mark.parametrize("exchange", ["binance", "deribit"])
def test_nothing_is_lost_and_nothing_grows_while_faults_go_on(tmp_path: Path, exchange: str) -> None:
    soak = run(SECONDS, exchange, tmp_path)
    assert soak.complaints() == [], soak
