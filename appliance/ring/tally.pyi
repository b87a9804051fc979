from dataclasses import dataclass

from appliance.ring.scan import Scanner

FOREVER_MS: int

@dataclass(slots=True, frozen=True)
class Held:
    asset: str
    era: int
    runs: list[tuple[int, int]]
    backfilled: list[tuple[int, int]]
    inside: list[tuple[int, int]]
    baseline: int
    began_ns: int
    before: int | None
    behind: int | None
    trades: int
    legs: list[int]
    digest: int

class Tally(Scanner):
    taken: list[Held]
    def __init__(self, from_ms: int = ..., to_ms: int = ..., digests: bool = ...) -> None: ...
