from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.feed.window import EventKind, Window
from appliance.ring.reader import RingReader

LISTED: str
ENDED: str
HOLE_REOPENED: str
NO_SUCH_TRADE: str
STATUS_EVENTS: dict[str, EventKind]

@dataclass(slots=True, frozen=True)
class Restored:
    records: int
    holes: list[tuple[int, int]]
    recorded: list[tuple[int, int]]

def snapshot(window: Window, exchange: str, chunk: int, with_ended: bool = False, lost: Sequence[tuple[int, int]] = ()) -> list[bytes]: ...
def snapshot_position(path: Path) -> int: ...
def restore(window: Window, ring: RingReader, journal_dir: Path | None, adopt: bool = False) -> Restored: ...
