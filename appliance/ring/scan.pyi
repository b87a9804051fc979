from dataclasses import dataclass

from appliance.ring.reader import Corrupt, Lapped, Record, StreamReader

@dataclass(slots=True, frozen=True)
class Fault:
    position: int
    sequence: int
    reason: str

@dataclass(slots=True, frozen=True)
class Jump:
    position: int
    from_sequence: int
    to_sequence: int
    damages: int

@dataclass(slots=True, frozen=True)
class Hole:
    asset: str
    era: int
    from_id: int
    to_id: int
    began_ns: int
    jumps: range

class Scanner:
    records: int
    trades: int
    bytes: int
    first_sequence: int
    last_sequence: int
    epoch: int
    first_write_ns: int
    last_write_ns: int
    duplicates: int
    jumps: int
    def scan(self, reader: StreamReader, records_max: int = ..., until: int = ...) -> list[Record | Lapped | Corrupt | Fault | Jump]: ...
    @property
    def instruments(self) -> int: ...
    def take_holes(self) -> list[Hole]: ...
