"""Deribit's notifications for a benchmark: a market of option chains, printed and spelled by the local exchange, in memory."""

import random
from typing import Literal

from appliance.sim import deribit_listing
from appliance.sim.delivery import payload_of, split
from appliance.sim.deribit_render import NotificationRenderer
from appliance.sim.tape import Tape

Interval = Literal["raw", "100ms"]

BATCH_US: dict[Interval, int] = {"raw": 0, "100ms": 100_000}
FIRST_US = 1_790_000_000_000_000


class Market:
    """Frames of all products on the wildcard channels, `trade_seq` of each instrument rising by 1 from call to call.

    Between two moments 100 ms apart 1 to `trades_max` trades are printed: in one notification for each channel that has some
    (100ms), or in one for each match (raw).
    """

    def __init__(self, interval: Interval, instruments: int, seed: int) -> None:
        listing = deribit_listing.synthetic(instruments)
        channels = [f"trades.{kind}.any.{interval}" for kind in deribit_listing.KINDS]
        self.instruments = [(one.name, one.kind) for one in listing.instruments]
        self._tape = Tape(instruments, seed, remember=64)
        self._renderer = NotificationRenderer(
            self._tape,
            [(one.name.encode(), one.trade_id_prefix.encode(), one.kind == "option") for one in listing.instruments],
            [(channel.encode(), sorted(listing.of_channel(channel) or ())) for channel in channels],
            batch_us=BATCH_US[interval],
            combos=listing.combos(),
        )
        self._chance = random.Random(seed)
        self._now_us = FIRST_US

    def notifications(self, trades: int, trades_max: int) -> list[bytes]:
        """The payloads that carry the next `trades` trades."""
        frames: list[bytes] = []
        while trades:
            self._now_us += 100_000
            trades -= self._tape.print_trades(min(trades, self._chance.randint(1, trades_max)), self._now_us)
            frames += map(payload_of, split(self._renderer.render()))
        assert self._renderer.held == 0, "all that was printed is in the frames"
        return frames
