from pathlib import Path

from appliance.ring.raw_buffer import RawBuffer

FORMAT: int
HEADER: int
BLOCK_HEADER: int

class RawWriter:
    def __init__(
        self,
        buffer: RawBuffer,
        parent: Path | str,
        directory: str,
        prefix: str,
        header: bytes,
        *,
        newest_ns: int,
        segment_bytes: int,
        segment_s: float,
        keep_free_bytes: int,
        block_s: float = 1.0,
    ) -> None: ...
    @property
    def buffer(self) -> RawBuffer: ...
    @property
    def written_bytes(self) -> int: ...
    @property
    def dropped(self) -> int: ...
    @property
    def failing(self) -> bool: ...
    @property
    def error_text(self) -> str: ...
    def start(self) -> None: ...
    def finish(self) -> None: ...
    def stop(self, timeout_s: float) -> bool: ...
