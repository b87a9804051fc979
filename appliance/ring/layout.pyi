from enum import IntEnum

MAGIC_RING: bytes
MAGIC_JOURNAL: bytes
FORMAT: int
BLOCK: int
RECORD_HEADER: int
PAYLOAD_MAX: int
JOURNAL_HEADER: int
META_SIZE: int
COUNTER_NAMES: dict[int, str]
FLUSHER_COUNTER_NAMES: dict[int, str]

class RecordType(IntEnum):
    TRADE = 1
    GAP = 2
    GAP_CLOSED = 3
    HOLE = 4
    BOUNDARY = 5
    STATUS = 6
    SNAPSHOT = 7
    PADDING = 80

class Codec(IntEnum):
    CODEC_JSON = 0
    CODEC_BINARY = 1

class Flags(IntEnum):
    FLAG_LEG_MASK = 7
    FLAG_BACKFILLED = 8
    FLAG_LATE = 16

class Mode(IntEnum):
    MODE_SAFE = 0
    MODE_LOSSY = 1

def crc32c(data: bytes) -> int: ...
def crc32c_both_ways(data: bytes) -> tuple[int, int]: ...
def sizes() -> dict[str, int]: ...
def offsets() -> dict[str, int]: ...
def new_meta(
    ring_id: bytes,
    exchange: str,
    chunk: int,
    host: str,
    capacity: int,
    first_position: int,
    first_sequence: int,
    created_ns: int,
    journal_dir: str,
    epoch: int = 0,
) -> bytes: ...
