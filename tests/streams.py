"""Rings and journals made without any exchange, for tests of what reads them; and how a test waits for a fact."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from appliance.clock import unix_ns
from appliance.ring.layout import Flags, RecordType
from appliance.ring.store import ChunkStore, StoreOptions

SMALL = StoreOptions(capacity_bytes=1 << 18, segment_bytes=1 << 20, flush_interval_ms=1, mlock=False)
ROOMY = StoreOptions(capacity_bytes=1 << 24, segment_bytes=1 << 24, flush_interval_ms=1, mlock=False)
DEADLINE_S = 20.0


def until(fact: Callable[[], bool], what: str = "the fact", within_s: float = DEADLINE_S) -> None:
    """Wait for a fact, not for a time; fail when it does not come."""
    deadline = time.monotonic() + within_s
    while not fact():
        assert time.monotonic() < deadline, f"{what} did not come within {within_s} s"
        time.sleep(0.001)


def running(pid: int | str) -> bool:
    """Whether a process is still there, and not only its exit status."""
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def trade_payload(
    asset: str, trade_id: int, px: str = "1.50", sz: str = "2", side: str = "Sell", era: int = 0, ts_ms: int = 1762632731000
) -> bytes:
    """A trade's JSON in the fixed order of its fields."""
    name = json.dumps(asset, ensure_ascii=False)
    tail = f',"era":{era}' if era else ""
    return (
        f'{{"exchange":"BINANCE","asset":{name},"kind":"Spot","px":{px},"sz":{sz},"side":"{side}","exchange_trade_id":{trade_id},'
        f'"exchange_ts_ms":{ts_ms},"writer_ts_ms":{ts_ms + 4},"recv_ts_ms":{ts_ms + 1},'
        f'"parse_ts_ms":{ts_ms + 2},"enqueue_ts_ms":{ts_ms + 3}{tail}}}'
    ).encode()


class Chunk:
    """The writer's side of one chunk, and the flusher's when there is a journal."""

    def __init__(self, root: Path, chunk: int = 0, options: StoreOptions = SMALL, journal: bool = True) -> None:
        self.ring_dir = root / "ring"
        self.journal_dir = root / "journal"
        self.ring_dir.mkdir(exist_ok=True)
        self.journal_dir.mkdir(exist_ok=True)
        self.meta_path = self.ring_dir / f"binance_trade_chunk{chunk}.meta"
        self.data_path = self.meta_path.with_suffix(".data")
        self.chunk = chunk
        self.store = ChunkStore.open(self.ring_dir, self.journal_dir if journal else None, "binance", chunk, options)
        self.store.start()

    @property
    def segments(self) -> list[Path]:
        found = self.journal_dir.glob(f"binance_trade_chunk{self.chunk}.*.journal")
        return sorted(found, key=lambda path: int(path.name.split(".")[1]))

    def append(self, type: int, payload: bytes, flags: int = 0) -> int:
        while True:
            try:
                return int(self.store.writer.append(type, payload, flags))
            except BlockingIOError:
                time.sleep(0.001)  # the journal is behind: safe mode at work

    def trade(self, asset: str, trade_id: int, *, flags: int = 0, **fields: str) -> int:
        return self.append(RecordType.TRADE, trade_payload(asset, trade_id, **fields), flags)  # type: ignore[arg-type]

    def trades(self, asset: str, first: int, last: int) -> None:
        for trade_id in range(first, last + 1):
            self.trade(asset, trade_id)

    def late(self, asset: str, trade_id: int) -> int:
        return self.trade(asset, trade_id, flags=int(Flags.FLAG_LATE))

    def event(self, type: RecordType, **fields: object) -> int:
        body = {"record": type.name.lower(), "exchange": "BINANCE", "chunk": self.chunk, **fields}
        return self.append(type, json.dumps(body).encode())

    def gap(self, asset: str, from_id: int, to_id: int) -> int:
        return self.event(RecordType.GAP, asset=asset, from_id=from_id, to_id=to_id, era=0, detected_ts_ms=unix_ns() // 1_000_000)

    def beat(self) -> None:
        self.store.writer.beat(unix_ns())

    def flush(self) -> None:
        """Wait until all that is committed is on disk."""
        writer = self.store.writer
        assert self.store.flusher is not None
        self.store.flusher.wake()
        until(lambda: writer.flushed == writer.committed, "the flush")

    def turn(self) -> None:
        """Let the next record begin the next segment."""
        self.flush()
        self.store.turn(self.store.writer.begin_block())

    def close(self) -> None:
        """End the writer in good order."""
        if self.store.writer is not None:
            assert self.store.drain(DEADLINE_S)

    def __enter__(self) -> "Chunk":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
