"""One chunk as its readers see it: from the ring what the ring still holds, from the journal what it no longer does."""

import re
from pathlib import Path

from appliance.errors import NotARing
from appliance.ring.journal import JournalReader, segments
from appliance.ring.layout import RECORD_HEADER
from appliance.ring.reader import Corrupt, Lapped, Record, RingReader, SegmentReader

Item = Record | Lapped | Corrupt

_META_NAME = re.compile(r"^(?P<exchange>[a-z0-9]+)_trade_chunk(?P<chunk>\d+)\.meta$")
_END = 1 << 62  # no sequence comes this far


class ChunkReader:
    """Follow one chunk by sequence. A ring, its journal, or both; starts at the oldest record that either holds.

    Records come in sequence. Lapped means lost to this reader: neither in the ring any more nor in the journal.
    """

    def __init__(self, exchange: str, chunk: int, ring: RingReader | None, journal: JournalReader | None) -> None:
        self.exchange = exchange
        self.chunk = chunk
        self.ring = ring
        self.journal = journal
        self._expected = 0  # the next sequence; 0: not known
        self._ahead: list[Item] = []  # read from the ring, and to be given out after what is missing before them
        self._until: int | None = None  # the journal is read up to this sequence, exclusive; None: the ring is read
        self.seek_oldest()

    def seek_oldest(self) -> None:
        """Go to the oldest record that ring or journal holds."""
        self._ahead.clear()
        self._expected = 0
        self._until = None
        if self.ring is not None:
            self.ring.seek_oldest()
        if self.journal is not None:
            self.journal.seek_sequence(0)
            self._until = _END

    def seek_newest(self) -> None:
        """Go behind the newest record: only what comes from now on."""
        self._ahead.clear()
        if self.ring is not None:
            self.ring.seek_newest()
            self._expected = self.ring.next_sequence
            self._until = None
        elif self.journal is not None:
            self.journal.seek_sequence(_END)
            self._expected = 0
            self._until = _END

    def seek_time(self, time_ns: int) -> None:
        """Go to the first record written at or after `time_ns` (UNIX ns)."""
        self.seek_oldest()
        if self.journal is not None:
            self.journal.seek_time(time_ns)
        if self.ring is not None:
            self.ring.seek_time(time_ns)

    def poll(self, limit: int = 1024) -> list[Item]:
        """About `limit` items in sequence; empty when there is nothing more for now. Never waits."""
        if self._until is not None:
            items = self._from_journal(limit)
            if items or self._until is not None:
                return items
        items = self._from_ring(limit)
        if not items and self._until is not None:
            return self.poll(limit)
        return items

    def persist_ns(self, record: Record) -> int | None:
        """When the record was known to be on disk (UNIX ns); None: not yet, too long ago, or no ring to ask."""
        if self.ring is None:
            return None
        return self.ring.persist_ns(record.position + RECORD_HEADER + len(record.payload))

    @property
    def committed_sequence(self) -> int | None:
        """Sequence of the newest record; None without a ring: then only reading finds the end."""
        return None if self.ring is None else self.ring.committed_sequence

    def close(self) -> None:
        """Unmap and close. Call nothing else afterwards."""
        if self.ring is not None:
            self.ring.close()
        if self.journal is not None:
            self.journal.close()

    def _from_ring(self, limit: int) -> list[Item]:
        if self.ring is None:
            return []
        items: list[Item] = []
        found = self._ahead or self.ring.poll(limit)
        self._ahead = []
        for index, item in enumerate(found):
            if isinstance(item, Lapped):
                continue  # the next record's sequence says the same, and is right after damage too
            if isinstance(item, Record):
                if self._expected and item.sequence > self._expected:
                    self._ahead = found[index:]
                    self._fetch(item.sequence, items)
                    return items
                self._expected = item.sequence + 1
            items.append(item)
        if not found and self._reopen():
            return self._from_ring(limit)
        return items

    def _fetch(self, until: int, items: list[Item]) -> None:
        """Have what is missing before sequence `until` read from the journal; without one it is lost."""
        if self.journal is None:
            items.append(Lapped(self._expected, until - 1))
            self._expected = until
            return
        self.journal.seek_sequence(self._expected)
        self._until = until

    def _from_journal(self, limit: int) -> list[Item]:
        assert self.journal is not None
        assert self._until is not None
        if self.ring is not None:
            self.journal.flushed = self.ring.flushed
        items: list[Item] = []
        while found := self.journal.poll(limit):
            for item in found:
                if isinstance(item, Record):
                    if item.sequence >= self._until:
                        break
                    if item.sequence < self._expected:
                        continue
                    if self._expected and item.sequence > self._expected:
                        items.append(Lapped(self._expected, item.sequence - 1))
                    self._expected = item.sequence + 1
                if not isinstance(item, Lapped):
                    items.append(item)
            else:
                if items:
                    return items
                continue
            break
        if self.ring is None:
            return items
        # The journal ends here, or has given all that was asked of it: back to the ring.
        if self._until == _END:
            self._enter_ring()
        elif self._expected < self._until:
            items.append(Lapped(self._expected, self._until - 1))
            self._expected = self._until
        self._until = None
        return items

    def _enter_ring(self) -> None:
        """Go on in the ring where the journal ends."""
        assert self.ring is not None
        assert self.journal is not None
        segment = self.journal.reader
        if segment is not None and self._expected >= self.ring.first_sequence:
            # By position: the block may be overwritten in part already, and then no search by sequence finds the rest.
            self.ring.seek_position(segment.position)
        elif self._expected:
            self.ring.seek_sequence(self._expected)

    def _reopen(self) -> bool:
        """Follow the name to a ring that has taken this one's place; whether there is one."""
        assert self.ring is not None
        try:
            if self.ring.meta_path.stat().st_ino == self.ring.inode:
                return False
            ring = RingReader(self.ring.meta_path)
        except OSError:
            return False  # between two writers: the old one stays readable
        self.ring.close()
        self.ring = ring
        if self._expected:
            ring.seek_sequence(self._expected)
        return True


def metas(directory: Path) -> list[tuple[str, int, Path]]:
    """Exchange, chunk and `.meta` file of each ring in a directory. Raises NotARing when it is no directory."""
    if not directory.is_dir():
        what = "is a file" if directory.exists() else "does not exist"
        raise NotARing(f"{directory}: {what}; expected the [ring] dir or the [journal] dir of an appliance, or a copy of one")
    return sorted((match["exchange"], int(match["chunk"]), path) for path in directory.iterdir() if (match := _META_NAME.match(path.name)))


def open_chunks(directory: Path) -> list[ChunkReader]:
    """A reader for each chunk in a ring directory or a journal directory. Raises NotARing, OSError."""
    if found := metas(directory):
        return [_open_chunk(exchange, chunk, path) for exchange, chunk, path in found]
    names = sorted({(segment.exchange, segment.chunk) for segment in segments(directory)})
    if not names:
        raise NotARing(f"{directory}: holds neither *_trade_chunk*.meta nor *_trade_chunk*.journal; expected a ring or journal directory")
    return [ChunkReader(exchange, chunk, None, JournalReader(directory, exchange, chunk)) for exchange, chunk in names]


def _open_chunk(exchange: str, chunk: int, meta_path: Path) -> ChunkReader:
    ring = RingReader(meta_path)
    if ring.journal_dir is None:
        return ChunkReader(exchange, chunk, ring, None)
    for newest in segments(ring.journal_dir, exchange, chunk)[-1:]:
        segment = SegmentReader(newest.path)
        try:
            if segment.ring_id != ring.ring_id:
                raise NotARing(
                    f"{meta_path}: its ring_id is {ring.ring_id}, that of {segment.path} is {segment.ring_id}; "
                    "they are not of one stream: read each directory alone"
                )
        finally:
            segment.close()
    return ChunkReader(exchange, chunk, ring, JournalReader(ring.journal_dir, exchange, chunk))
