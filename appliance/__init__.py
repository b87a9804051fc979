"""The market data appliance: every trade of an exchange, read from shared memory or from disk.

>>> from appliance import Trade, open_rings
>>> for value in open_rings("/run/mdc/binance", start="now", follow=True):
...     if isinstance(value, Trade):
...         print(value.asset, value.side, value.px, value.sz)
"""

import time
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from os import PathLike
from pathlib import Path

from appliance.errors import CannotRun, CheckFailed, ConfigError, ExchangeRefused, MdcError, NotARing, RingBusy
from appliance.ring.merge import Merge, values
from appliance.trade import Boundary, Damaged, Gap, GapClosed, Hole, Kind, Lapped, Side, Status, Trade

POLL_S = 0.01  # how long a follower sleeps when there is nothing new


def open_rings(
    path: str | PathLike[str], start: str | datetime | int = "oldest", follow: bool = False
) -> Iterator[Trade | Gap | GapClosed | Hole | Boundary | Status | Lapped | Damaged]:
    """All rings or journals in the directory `path` as one stream, in the order of receipt.

    `start`: "oldest" (the oldest record that ring or journal holds), "now", an aware datetime, ISO 8601 text, "HH:MM" (UTC),
    or UNIX nanoseconds. It ends at what is committed when it is opened, unless `follow`. A reader that the writer overtakes
    goes on from the journal; Lapped says that the journal did not have it either. Raises NotARing when there is nothing to
    read, ConfigError for a bad `start`.
    """
    merge = Merge.open(Path(path), start, follow)
    return _until_closed(merge)


def _until_closed(merge: Merge) -> Iterator[Trade | Gap | GapClosed | Hole | Boundary | Status | Lapped | Damaged]:
    try:
        yield from values(merge, wait=partial(time.sleep, POLL_S))
    finally:
        merge.close()


__all__ = [
    "Boundary",
    "CannotRun",
    "CheckFailed",
    "ConfigError",
    "Damaged",
    "ExchangeRefused",
    "Gap",
    "GapClosed",
    "Hole",
    "Kind",
    "Lapped",
    "MdcError",
    "NotARing",
    "RingBusy",
    "Side",
    "Status",
    "Trade",
    "open_rings",
]
