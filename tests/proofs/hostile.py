"""A ring and a journal whose bytes someone changed: patches named by a few bytes, and what a reader may say of the result.

A reader may refuse the file, or report damage; it must come to an end, and a record that it hands out must be one that was
written, unless the patch gave the changed record its checksum.
"""

import contextlib
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import NotARing
from appliance.ring.layout import BLOCK, JOURNAL_HEADER, META_SIZE, RecordType, crc32c
from appliance.ring.reader import Corrupt, Lapped, Record, RingReader, SegmentReader, StreamReader
from appliance.ring.scan import Scanner
from tests.ring.sequenced import Place, options

# docs/ring-format.md: offset and bytes of what a patch can aim at.
RECORD = {"length": (0, 4), "type": (4, 1), "codec": (5, 1), "crc32c": (8, 4), "epoch": (12, 4), "position": (16, 8), "sequence": (24, 8),
          "write_ns": (56, 8), "payload": (64, 8), "payload+": (72, 8)}  # fmt: skip
META = {"magic": (0, 8), "format_version": (8, 4), "meta_bytes": (12, 4), "capacity": (32, 8), "block_bytes": (40, 4), "epoch": (44, 4),
        "chunk": (48, 4), "exchange": (64, 8), "first_position": (176, 8), "first_sequence": (184, 8), "journal_dir": (1024, 8),
        "claimed": (4096, 8), "committed": (4224, 8), "flushed": (4352, 8), "mode": (4736, 8), "flush_marks_count": (28672, 8),
        "histogram": (12288, 8)}  # fmt: skip
SEGMENT = {"format_version": (8, 4), "header_bytes": (12, 4), "block_bytes": (32, 4), "epoch": (36, 4), "chunk": (40, 4),
           "first_position": (48, 8), "first_sequence": (56, 8), "exchange": (72, 8), "crc32c": (168, 4)}  # fmt: skip
SEGMENT_CRC = 168
ITEMS_MAX = 20_000  # more than words in the stream of these rings: who says more goes in circles
PATCH_BYTES = 12


@dataclass(slots=True)
class Image:
    """One file as it was written, and as it is now."""

    path: Path
    good: bytes
    now: bytearray

    @classmethod
    def of(cls, path: Path) -> "Image":
        good = path.read_bytes()
        return cls(path, good, bytearray(good))

    def store(self) -> None:
        self.path.write_bytes(self.now)

    def restore(self) -> None:
        self.now = bytearray(self.good)

    def put(self, offset: int, value: bytes) -> None:
        if 0 <= offset <= len(self.now) - len(value):
            self.now[offset : offset + len(value)] = value

    def change(self, offset: int, size: int, value: int, relative: bool) -> None:
        """Set a number of `size` bytes, or add to it."""
        if not 0 <= offset <= len(self.now) - size:
            return
        if relative:
            value = int.from_bytes(self.now[offset : offset + size], "little") + (value & 0xFFFF) - (1 << 15)
        self.put(offset, (value % (1 << 8 * size)).to_bytes(size, "little"))

    def sign_record(self, offset: int) -> None:
        """Give the record at `offset` the checksum of what it says now."""
        if not 0 <= offset <= len(self.now) - 64:
            return
        length = int.from_bytes(self.now[offset : offset + 4], "little")
        if 64 <= length <= BLOCK and offset + length <= len(self.now):
            record = bytes(self.now[offset : offset + length])
            self.put(offset + 8, struct.pack("<I", crc32c(record[:8] + record[12:])))


class Target:
    """A good ring and its journal in `root`, to be damaged and read over and over."""

    def __init__(self, root: Path, payloads: list[bytes], records: int) -> None:
        root.mkdir()
        self.place = Place(root)
        store = self.place.open(options(capacity_blocks=2, segment_bytes=1 << 20))
        store.start()
        writer = store.writer
        # Trades, and among them some that fill much of a block: padding of several sizes.
        for number in range(records):
            payload = payloads[number % len(payloads)] if number % 40 else b" " * (20_000 + 8 * number)
            while True:
                try:
                    writer.append(RecordType.TRADE if number % 40 else RecordType.STATUS, payload, recv_ns=1_700_000_000_000_000_000)
                    break
                except BlockingIOError:
                    assert store.flush(60)
        assert store.drain(60)
        self.segment = Image.of(self.place.segments[0])
        self.meta = Image.of(self.place.meta_path)
        self.data = Image.of(self.place.data_path)
        writer.close()
        self.written: dict[int, Record] = {}
        segment = SegmentReader(self.segment.path)
        for item in self._all(segment):
            assert isinstance(item, Record), item
            self.written[item.sequence] = item
        segment.close()

    def close(self) -> None:
        shutil.rmtree(self.place.ring_dir.parent)

    def _all(self, reader: StreamReader) -> Iterator[Record | Lapped | Corrupt]:
        said = 0
        while items := reader.poll(64):
            said += len(items)
            assert said < ITEMS_MAX, "the reader goes in circles"
            yield from items

    def _patch(self, data: bytes, header: Image, fields: dict[str, tuple[int, int]], stream: Image, stream_begins: int) -> bool:
        """Damage both by the patches in `data`; whether a record got a checksum that it did not have."""
        signed = False
        places = list(self.written.values())
        names, record_names = list(fields.values()), list(RECORD.values())
        for at in range(0, len(data) - PATCH_BYTES + 1, PATCH_BYTES):
            what, which, where, value = struct.unpack_from("<BBHQ", data, at)
            relative = bool(what & 0x80)
            match what & 7:
                case 0 | 1:
                    offset, size = names[which % len(names)]
                    header.change(offset, size, value, relative)
                case 2 | 3 | 4:
                    # The newest are those which a ring still has.
                    record = places[-1 - where % len(places)]
                    offset = stream_begins + (record.position if stream is self.segment else record.position % (len(stream.good)))
                    field, size = record_names[which % len(record_names)]
                    stream.change(offset + field, size, value, relative)
                    if what & 7 == 4:
                        signed = True
                        stream.sign_record(offset)
                case 5:
                    stream.put(stream_begins + where * 8 % max(8, len(stream.now) - stream_begins), value.to_bytes(8, "little"))
                case 6:
                    stream.put(stream_begins + where * 8 % max(8, len(stream.now) - stream_begins) + which % 8, bytes([value & 255]))
                case 7:
                    cut = header if which & 1 and header is not stream else stream
                    del cut.now[value % (len(cut.now) + 1) :]
        return signed

    def _judge(self, reader: StreamReader, signed: bool) -> None:
        for item in self._all(reader):
            if isinstance(item, Record) and not signed:
                assert item == self.written.get(item.sequence), f"record {item.sequence} was never written"

    def _scan(self, reader: StreamReader) -> None:
        scanner = Scanner()
        scanner.scan(reader)
        for _ in range(ITEMS_MAX):
            if not scanner.scan(reader):
                break
        else:
            raise AssertionError("the scan goes in circles")
        scanner.take_holes()

    def _ask(self, reader: RingReader | SegmentReader, question: int, signed: bool) -> None:
        """One of the things that a reader can be asked."""
        middle = max(self.written) // 2
        wanted = (0, middle, max(self.written), 1 << 62)[question >> 2 & 3]
        match question & 3:
            case 0:
                self._judge(reader, signed)
            case 1:
                reader.seek_sequence(wanted)
                self._judge(reader, signed)
            case 2:
                reader.seek_time(self.written[min(max(wanted, 1), max(self.written))].write_ns)
                self._judge(reader, signed)
            case 3 if wanted == 0:
                self._scan(reader)
            case 3 if isinstance(reader, RingReader):
                reader.seek_newest()
                self._judge(reader, signed)
                for position in reader.committed, self.written[middle].position:
                    reader.persist_ns(position)
                    with contextlib.suppress(ValueError):  # not committed, not whole words
                        reader.raw(position, 8)
                reader.counters()
                reader.histogram("recv_to_commit_ns")
                assert reader.last_sequence >= 0

    def ring(self, data: bytes) -> None:
        """Read a ring that all but the first byte of `data` damage; that one says what is asked of it."""
        signed = self._patch(data[1:], self.meta, META, self.data, 0)
        try:
            self.meta.store()
            self.data.store()
            reader = RingReader(self.place.meta_path)
            self._ask(reader, data[0] if data else 0, signed)
            reader.close()
        except (NotARing, OSError):
            pass
        finally:
            self.meta.restore()
            self.data.restore()

    def journal(self, data: bytes) -> None:
        """Read a segment likewise; the first byte also says whether its end is known, and whether its header has its checksum."""
        how = data[0] if data else 0
        signed = self._patch(data[1:], self.segment, SEGMENT, self.segment, JOURNAL_HEADER)
        if how & 0x80:
            self.segment.put(SEGMENT_CRC, struct.pack("<I", crc32c(bytes(self.segment.now[:SEGMENT_CRC]))))
        limit = max(record.position for record in self.written.values()) if how & 0x40 else None
        try:
            self.segment.store()
            reader = SegmentReader(self.segment.path, limit)
            self._ask(reader, how, signed)
            reader.close()
        except (NotARing, OSError):
            pass
        finally:
            self.segment.restore()


assert META["flush_marks_count"][0] < META_SIZE
