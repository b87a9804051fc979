"""The local exchange of `[exchange] local = true`: a child process that needs no network, and its addresses."""

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import CannotRun
from appliance.feed.children import Child

START_S = 60.0  # at `--rate max` it renders its frames ahead
STOP_S = 2.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where an exchange is."""

    rest_url: str
    ws_url: str
    ca_file: Path | None = None


class LocalExchange:
    """A running local exchange."""

    def __init__(self, child: Child, address: Address) -> None:
        self._child = child
        self.address = address

    @classmethod
    async def start(cls, exchange: str, symbols: int, rate: int | str, seed: int) -> "LocalExchange":
        """Start one on a free port of the loopback. Raises CannotRun."""
        options = ["--exchange", exchange, "--port", "0", "--symbols", str(symbols), "--rate", str(rate), "--seed", str(seed)]
        child = await Child.start("local exchange", [sys.executable, "-m", "appliance.sim.server", *options])
        try:
            async with asyncio.timeout(START_S):
                line = await child.read_line()
            told = json.loads(line)
            ca_file = Path(told["ca_file"]) if "ca_file" in told else None
            return cls(child, Address(told["rest_url"], told["ws_url"], ca_file))
        except (TimeoutError, ValueError, KeyError):
            status = await child.stop(STOP_S)
            raise CannotRun(f"the local exchange did not start (status {status}); its own words stand above") from None
        except BaseException:
            await child.stop(STOP_S)
            raise

    async def watch(self) -> None:
        """Raises CannotRun when it ends before we do."""
        status = await self._child.wait()
        raise CannotRun(f"the local exchange ended with status {status}")

    async def stop(self) -> None:
        await self._child.stop(STOP_S)
