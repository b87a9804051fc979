"""Directories, a login and a configuration for the appliance on the local Deribit."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.sim.deribit_session import CLIENT_ID, CLIENT_SECRET
from tests.local_exchange import LocalExchange
from tests.system.appliance_process import Site, site

LOGIN = {"DERIBIT_CLIENT_ID": CLIENT_ID, "DERIBIT_CLIENT_SECRET": CLIENT_SECRET}


@contextmanager
def deribit_site(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """With the login in the environment."""
    for variable, value in LOGIN.items():
        monkeypatch.setenv(variable, value)
    with site(directory) as one:
        yield one


def config(here: Site, exchange: LocalExchange, interval: str = "raw", capacity_mb: int = 16, **sections: str) -> Path:
    path = here.config(f'rest_url = "{exchange.rest_url}"\nws_url = "{exchange.ws_url}"', deribit=f'interval = "{interval}"', **sections)
    text = path.read_text().replace('name = "binance"', 'name = "deribit"').replace("capacity_mb = 16", f"capacity_mb = {capacity_mb}")
    path.write_text(text)
    return path
