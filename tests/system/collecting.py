"""The appliance on a local exchange of either kind, with the feed as a test wants it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.local_exchange import LocalExchange
from tests.system.appliance_process import Appliance, Site, appliance
from tests.system.deribit_site import config as deribit_config


@contextmanager
def collecting(here: Site, exchange: LocalExchange, name: str, interval: str = "100ms", **feed: int) -> Iterator[Appliance]:
    """One leg with a short grace, if `feed` does not say otherwise; Deribit's raw channels want a login in the environment or .env."""
    keys = {"legs": 1, "gap_grace_ms": 100} | feed
    text = "\n".join(f"{key} = {str(value).lower()}" for key, value in keys.items())
    if name == "deribit":
        path = deribit_config(here, exchange, interval, feed=text)
    else:
        path = here.config(f'rest_url = "{exchange.rest_url}"\nws_url = "{exchange.ws_url}"', feed=text)
    with appliance(path) as one:
        yield one


def in_two_lives(here: Site, exchange: LocalExchange, name: str, *, until: int, since: int, settled: Callable[[], bool]) -> None:
    """Stopped when the exchange has made more than `until` trades, begun again after `since`, stopped when all is settled."""
    with collecting(here, exchange, name) as one:
        one.ready()
        exchange.wait(lambda stats: stats["trades_generated"] > until)
        assert one.stop() == 0
    exchange.wait(lambda stats: stats["trades_generated"] > since or stats["finished"], 40.0)
    with collecting(here, exchange, name) as one:
        one.ready()
        exchange.wait(lambda stats: stats["finished"], 120.0)
        one.wait(settled, 120.0)
        assert one.stop() == 0


def killed_in_between(
    here: Site, exchange: LocalExchange, *, when: Callable[[], bool], settled: Callable[[], bool], chunk_symbols: int = 400
) -> None:
    """Binance's: killed as soon as something is so, begun again at once, stopped when all is settled."""
    with collecting(here, exchange, "binance", chunk_symbols=chunk_symbols) as one:
        one.ready()
        one.wait(when)
        one.process.kill()
        one.process.wait()
    with collecting(here, exchange, "binance", chunk_symbols=chunk_symbols) as one:
        one.ready()
        exchange.wait(lambda stats: stats["finished"])
        one.wait(settled, 120.0)
        assert one.stop() == 0
