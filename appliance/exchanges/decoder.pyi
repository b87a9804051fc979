from enum import IntEnum

from typing_extensions import disjoint_base

from appliance.exchanges.instruments import Instruments

class Outcome(IntEnum):
    TRADES = 0
    OTHER = 1
    MALFORMED = 2
    UNKNOWN_SYMBOL = 3
    WRONG_VENUE = 4

@disjoint_base
class Decoder:
    @property
    def instruments(self) -> Instruments: ...
    def __init__(self, instruments: Instruments) -> None: ...
    def decode(self, payload: bytes, size: int = -1) -> tuple[str, list[dict[str, str | int]]]: ...
