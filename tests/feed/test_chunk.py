"""One chunk at work: real ring, real journal, real sockets."""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from appliance import Status, Trade, open_rings
from appliance.config import Settings
from appliance.exchanges.binance import EXCHANGE
from appliance.feed import tls
from appliance.feed.chunk import Chunk
from appliance.feed.limits import Limits
from tests.feed.scripted import Server, fact, run

FRAME = (
    b'{"stream":"%b@trade","data":{"e":"trade","E":1790649901913,"s":"%b","t":%d,"p":"83034.29000000","q":"0.00062000",'
    b'"T":1790649901913,"m":true,"M":true}}'
)


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as ring_dir:
        (tmp_path / "journal").mkdir()
        yield Settings.model_validate(
            {
                "exchange": {"name": "binance"},
                "feed": {"legs": 1},
                "ring": {"dir": ring_dir, "capacity_mb": 8, "mlock": False},
                "journal": {"dir": str(tmp_path / "journal"), "segment_mb": 1},
            }
        )


def trade(symbol: str, number: int) -> bytes:
    return FRAME % (symbol.lower().encode(), symbol.encode(), number)


def test_a_new_listing_is_collected_on_the_living_connection(settings: Settings) -> None:
    """T19: its name is Chinese."""

    async def test() -> None:
        async with Server() as server:
            limits = Limits(settings.ring.dir, EXCHANGE.rules, lambda: 1_790_000_000.0)
            chunk = Chunk.open(
                0, {"BTCUSDT": "Spot", "DELISTED": "Spot"}, ["BTCUSDT"], EXCHANGE, settings, server.url, tls.trust(None), limits,
                blocked_is_fatal=lambda: True,
            )  # fmt: skip
            life = asyncio.create_task(chunk.legs.run())
            await chunk.legs.subscribed.wait()
            peer = server.peers[0]
            assert peer.streams == ["btcusdt@trade"]
            peer.send(trade("BTCUSDT", 1))
            chunk.add({"BTCUSDT": "Spot", "币安人生USDT": "Spot"})
            await fact(lambda: "币安人生usdt@trade" in peer.streams)
            peer.send(trade("币安人生USDT", 7))
            peer.send(trade("BTCUSDT", 2))
            await fact(lambda: chunk.legs.connections[0].trades == 3)
            chunk.turn()
            await chunk.legs.drain(5.0)
            life.cancel()
            with suppress(asyncio.CancelledError):
                await life
            assert chunk.pipeline.drain("the test is over", 5.0)

    run(test)
    values = list(open_rings(settings.journal.dir))
    assert [(value.asset, value.exchange_trade_id) for value in values if isinstance(value, Trade)] == [
        ("BTCUSDT", 1),
        ("币安人生USDT", 7),
        ("BTCUSDT", 2),
    ]
    told = [value for value in values if isinstance(value, Status)]
    assert [value.event for value in told if value.event not in ("baseline",)] == ["connected", "subscribed", "subscribing", "closed"]
    assert [value.fields["symbols"] for value in told if value.event == "subscribing"] == [["币安人生USDT"]]
