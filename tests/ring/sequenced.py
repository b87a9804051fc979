"""Records whose payload follows from their sequence, so that any reader can tell a torn or misplaced one."""

import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from appliance.ring.journal import JournalReader
from appliance.ring.layout import RecordType
from appliance.ring.reader import Corrupt, Lapped, Record, RingReader
from appliance.ring.store import ChunkStore, StoreOptions

EXCHANGE = "binance"
BLOCK = 1 << 16


def payload_of(sequence: int, size: int | None = None) -> bytes:
    """Every word of it names the sequence."""
    if size is None:
        size = sequence * 7919 % 600
    word = sequence.to_bytes(8, "little")
    return (word * (size // 8 + 1))[:size]


def options(capacity_blocks: int = 4, **others: object) -> StoreOptions:
    defaults: dict[str, object] = {"segment_bytes": 1 << 18, "flush_interval_ms": 1, "mlock": False}
    return StoreOptions(capacity_bytes=capacity_blocks * BLOCK, **(defaults | others))  # type: ignore[arg-type]


class Place:
    """A ring and a journal directory, and what is found in them."""

    def __init__(self, root: Path) -> None:
        self.ring_dir = root / "ring"
        self.journal_dir = root / "journal"
        for directory in (self.ring_dir, self.journal_dir):
            directory.mkdir(exist_ok=True)
        self.meta_path = self.ring_dir / f"{EXCHANGE}_trade_chunk0.meta"
        self.data_path = self.meta_path.with_suffix(".data")

    def open(self, wanted: StoreOptions | None = None, journal: bool = True) -> ChunkStore:
        return ChunkStore.open(self.ring_dir, self.journal_dir if journal else None, EXCHANGE, 0, wanted or options())

    def reboot(self) -> None:
        """Memory is gone, the disk stays."""
        shutil.rmtree(self.ring_dir)
        self.ring_dir.mkdir()

    @property
    def segments(self) -> list[Path]:
        return sorted(self.journal_dir.glob("*.journal"), key=lambda path: int(path.name.split(".")[1]))

    def journal(self) -> list[Record | Lapped | Corrupt]:
        reader = JournalReader(self.journal_dir, EXCHANGE, 0)
        try:
            return list(reader)
        finally:
            reader.close()

    def journaled(self) -> list[int]:
        """The journal's sequences; every item must be a good record."""
        return sequences(self.journal())

    def everything(self) -> list[int]:
        """The journal's sequences and behind them those that only the ring has."""
        found = self.journaled()
        ring = RingReader(self.meta_path)
        if found:
            ring.seek_sequence(found[-1] + 1)
        found += sequences(poll_all(ring))
        ring.close()
        return found


def append(store: ChunkStore, count: int, size: int | None = None) -> int:
    """Append `count` records; the last one's sequence. Waits where the journal is behind."""
    writer = store.writer
    for _ in range(count):
        sequence = writer.committed_sequence + 1
        while True:
            try:
                assert writer.append(RecordType.TRADE, payload_of(sequence, size)) == sequence
                break
            except BlockingIOError:
                time.sleep(0.0005)
    return writer.committed_sequence


def append_until_full(store: ChunkStore, size: int | None = None) -> int:
    """Append until mode safe holds back; the last sequence."""
    writer = store.writer
    while True:
        try:
            writer.append(RecordType.TRADE, payload_of(writer.committed_sequence + 1, size))
        except BlockingIOError:
            return writer.committed_sequence


def poll_all(reader: RingReader) -> list[Record | Lapped | Corrupt]:
    items: list[Record | Lapped | Corrupt] = []
    while found := reader.poll():
        items += found
    return items


def sequences(items: Iterable[Record | Lapped | Corrupt]) -> list[int]:
    found = []
    for item in items:
        assert isinstance(item, Record), item
        assert item.payload == payload_of(item.sequence, len(item.payload)), f"record {item.sequence} holds another one's bytes"
        found.append(item.sequence)
    return found
