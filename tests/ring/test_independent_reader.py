"""A second reader, made from docs/ring-format.md alone: struct, mmap and a CRC table of its own.

It parses offsets and types out of the page's tables, so the page cannot drift from the code.
"""

import itertools
import mmap
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from appliance.ring import layout
from appliance.ring.journal import JournalReader
from appliance.ring.reader import Corrupt, Record, RingReader
from tests.streams import ROOMY, Chunk

PAGE = (Path(__file__).parents[2] / "docs" / "ring-format.md").read_text()
FORMATS = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i64": "q"}


@dataclass(frozen=True)
class Field:
    offset: int
    type: str

    @property
    def format(self) -> str:
        if self.type in FORMATS:
            return "<" + FORMATS[self.type]
        kind, _, size = self.type.partition(" ")
        assert kind in ("bytes", "text"), f"type {self.type!r} in ring-format.md"
        return f"<{size}s"

    @property
    def size(self) -> int:
        sizes = {"histogram": 32 + 8 * CONSTANTS["HISTOGRAM_BUCKETS"], "mark": 16}
        array = re.fullmatch(r"(\w+)\[(\d+)\]", self.type)
        if array:
            return Field(0, array[1]).size * int(array[2])
        return sizes.get(self.type) or struct.calcsize(self.format)

    def of(self, data: Any, base: int = 0) -> Any:
        (value,) = struct.unpack_from(self.format, data, base + self.offset)
        return value.rstrip(b"\0").decode() if self.type.startswith("text") else value


def table(title: str) -> dict[str, Field]:
    """The byte table of one section: field name → offset and type."""
    body = PAGE.split(f"{title}\n", 1)[1].split("\n#", 1)[0]
    rows = re.findall(r"^\| (\d+) \| `([^`]+)` \| `([^`]+)` \|", body, re.MULTILINE)
    return {name: Field(int(offset), type) for offset, type, name in rows}


CONSTANTS = {name: int(value) for name, value in re.findall(r"^\| `([A-Z_]+)` \| (\d+) \|", PAGE, re.MULTILINE)}
TYPES = {name: int(value) for value, name in re.findall(r"^\| (\d+) \| `([A-Z_]+)` \|", PAGE, re.MULTILINE)}
FLAGS = {name: int(value, 16) for name, value in re.findall(r"^\| `([A-Z_]+)` \| (0x\w+) \|", PAGE, re.MULTILINE)}
RECORD = table("### Record")
PADDING = table("### Padding")
META = table("## The `.meta` file")
SEGMENT = table("## A journal segment")


def crc_table() -> list[int]:
    result = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        result.append(byte)
    return result


CRC_TABLE = crc_table()


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


Parsed = tuple[int, ...]


class IndependentReader:
    """Follows "How to read a live ring" step by step, on any bytes that hold a stretch of the stream."""

    def __init__(self, data: Any, begin: int, end: int, offset_of: Any) -> None:
        self.data, self.position, self.end, self.offset_of = data, begin, end, offset_of

    def __iter__(self) -> Iterator[tuple[dict[str, Any], bytes]]:
        block = CONSTANTS["BLOCK_BYTES"]
        while self.position < self.end:
            at = self.offset_of(self.position)
            left = block - self.position % block
            length = PADDING["length"].of(self.data, at)
            if length == 0:
                return  # room made ahead
            if PADDING["type"].of(self.data, at) == TYPES["PADDING"]:
                assert length == left
                assert not any(self.data[at + 8 : at + length])
                self.position += length
                continue
            assert CONSTANTS["RECORD_HEADER_BYTES"] <= length <= left
            raw = bytes(self.data[at : at + length])
            header = {name: field.of(raw) for name, field in RECORD.items()}
            assert header["position"] == self.position
            assert header["crc32c"] == crc32c(raw[:8] + raw[12:])
            stride = -(-length // CONSTANTS["WORD_BYTES"]) * CONSTANTS["WORD_BYTES"]
            assert not any(self.data[at + length : at + stride])
            yield header, raw[CONSTANTS["RECORD_HEADER_BYTES"] :]
            self.position += stride


def read_ring(meta_path: Path) -> list[tuple[dict[str, Any], bytes]]:
    with meta_path.open("rb") as meta_file, meta_path.with_suffix(".data").open("rb") as data_file:
        meta = mmap.mmap(meta_file.fileno(), 0, access=mmap.ACCESS_READ)
        data = mmap.mmap(data_file.fileno(), 0, access=mmap.ACCESS_READ)
        assert META["magic"].of(meta) == b"MDCRING\0"
        assert META["format_version"].of(meta) == CONSTANTS["FORMAT_VERSION"]
        assert META["meta_bytes"].of(meta) == CONSTANTS["META_BYTES"] == len(meta)
        capacity = META["capacity"].of(meta)
        assert capacity == len(data)
        committed = META["committed"].of(meta)
        block = CONSTANTS["BLOCK_BYTES"]
        oldest = max(META["first_position"].of(meta), -(-(META["claimed"].of(meta) - capacity) // block) * block)
        found = list(IndependentReader(data, oldest, committed, lambda position: position % capacity))
        meta.close()
        data.close()
        return found


def read_journal(paths: list[Path]) -> list[tuple[dict[str, Any], bytes]]:
    found = []
    begins = [SEGMENT["first_position"].of(path.read_bytes()) for path in paths]
    for path, begin, end in zip(paths, begins, [*begins[1:], None], strict=True):
        data = path.read_bytes()
        assert SEGMENT["magic"].of(data) == b"MDCJRNL\0"
        assert SEGMENT["crc32c"].of(data) == crc32c(data[: SEGMENT["crc32c"].offset])
        header = SEGMENT["header_bytes"].of(data)
        assert header == CONSTANTS["JOURNAL_HEADER_BYTES"]
        last = begin + len(data) - header
        records = list(IndependentReader(data, begin, last if end is None else min(end, last), lambda p, b=begin, h=header: h + p - b))
        if records:
            assert records[0][0]["sequence"] == SEGMENT["first_sequence"].of(data)
        found += records
    return found


def as_compiled(found: list[tuple[dict[str, Any], bytes]]) -> list[Record]:
    return [Record(**{k: v for k, v in header.items() if k not in ("length", "crc32c")}, payload=payload) for header, payload in found]


def payload_sizes() -> list[int]:
    """Sizes that leave every kind of padding: none, one word, more than a header."""
    header, block = CONSTANTS["RECORD_HEADER_BYTES"], CONSTANTS["BLOCK_BYTES"]
    sizes = [1, 7, 8, 9, 300, CONSTANTS["PAYLOAD_BYTES_MAX"], CONSTANTS["PAYLOAD_BYTES_MAX"] - 8, block // 2 - header, block // 2 - header]
    return sizes + [1 + n * 37 % 900 for n in range(900)]


def test_the_pages_tables_are_there() -> None:
    assert len(RECORD) == 12
    assert len(META) == 38
    assert len(SEGMENT) == 14
    assert len(TYPES) == 8


def test_sizes_and_offsets_are_those_of_the_compiled_side() -> None:
    sizes, offsets = layout.sizes(), layout.offsets()
    assert sizes["RecordHeader"] == CONSTANTS["RECORD_HEADER_BYTES"]
    assert max(field.offset + field.size for field in RECORD.values()) == sizes["RecordHeader"]
    assert sizes["Meta"] == CONSTANTS["META_BYTES"]
    assert max(field.offset + field.size for field in META.values()) == sizes["Meta"]
    assert sizes["JournalHeader"] == CONSTANTS["JOURNAL_HEADER_BYTES"]
    assert sizes["Histogram"] == Field(0, "histogram").size
    assert sizes["FlushMark"] == Field(0, "mark").size
    assert {name: META[name].offset for name in offsets} == offsets


@pytest.mark.parametrize("fields", [RECORD, META, SEGMENT], ids=["record", "meta", "segment"])
def test_fields_are_in_order_and_do_not_overlap(fields: dict[str, Field]) -> None:
    plain = [field for name, field in fields.items() if "." not in name]
    for one, following in itertools.pairwise(plain):
        assert one.offset + one.size <= following.offset


def test_types_flags_and_constants_are_those_of_the_compiled_side() -> None:
    assert {name: int(member) for name, member in layout.RecordType.__members__.items()} == TYPES
    assert {f"FLAG_{name}": value for name, value in FLAGS.items()} == {
        name: int(member) for name, member in layout.Flags.__members__.items()
    }
    assert CONSTANTS["BLOCK_BYTES"] == layout.BLOCK
    assert CONSTANTS["PAYLOAD_BYTES_MAX"] == layout.PAYLOAD_MAX
    assert CONSTANTS["FORMAT_VERSION"] == layout.FORMAT


def test_both_crcs_agree_with_the_page() -> None:
    assert crc32c(b"123456789") == layout.crc32c(b"123456789") == int(re.findall(r"`123456789` is `(0x\w+)`", PAGE)[0], 16)


@pytest.mark.parametrize("journal", [True, False], ids=["journal", "no-journal"])
def test_it_reads_a_ring_as_the_compiled_reader_does(tmp_path: Path, journal: bool) -> None:
    with Chunk(tmp_path, journal=journal) as chunk:
        for n, size in enumerate(payload_sizes()):
            chunk.append(
                1 + n % 7, bytes(65 + (n + i) % 26 for i in range(min(size, 50))) * (size // 50) + b"x" * (size % 50), flags=n % 32
            )
        found = as_compiled(read_ring(chunk.meta_path))
        ring = RingReader(chunk.meta_path)
        expected = ring.poll(10_000)
        assert found == expected
        assert found[-1].sequence == len(payload_sizes())
        assert found[0].sequence > 1  # the ring went round
        ring.close()


def test_it_reads_a_journal_as_the_compiled_reader_does(tmp_path: Path) -> None:
    with Chunk(tmp_path) as chunk:
        for n, size in enumerate(payload_sizes()):
            chunk.append(1 + n % 7, b"y" * size, flags=n % 32)
            if n % 300 == 299:
                chunk.turn()
        chunk.flush()
        paths = chunk.segments
        assert len(paths) >= 3
        live = as_compiled(read_journal(paths))
    closed = as_compiled(read_journal(chunk.segments))
    expected = [item for item in JournalReader(chunk.journal_dir, "binance", 0) if not isinstance(item, Corrupt)]
    assert live == closed == expected
    assert [record.sequence for record in closed] == list(range(1, len(payload_sizes()) + 1))


def test_it_reads_what_a_second_epoch_adds(tmp_path: Path) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("BTCUSDT", 1, 50)
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("BTCUSDT", 51, 99)
        found = as_compiled(read_ring(chunk.meta_path))
    assert [record.sequence for record in found] == list(range(1, 100))
    assert {record.epoch for record in found} == {1, 2}
    assert as_compiled(read_journal(chunk.segments)) == found


def test_the_time_on_disk_is_that_of_the_first_mark_behind_the_record(tmp_path: Path) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        ends = []
        for n in range(20):
            chunk.trade("BTCUSDT", n)
            chunk.flush()
            ends.append(chunk.store.writer.committed)
        meta = chunk.meta_path.read_bytes()
        count = META["flush_marks_count"].of(meta)
        base = META["flush_marks"].offset
        marks = [(META["mark.position"].of(meta, base + 16 * i), META["mark.time_ns"].of(meta, base + 16 * i)) for i in range(count)]
        ring = RingReader(chunk.meta_path)
        for end in ends:
            assert ring.persist_ns(end) == next(time_ns for position, time_ns in marks if position >= end)
        ring.close()


def test_a_histogram_is_bucketed_as_the_page_says(tmp_path: Path) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        for n in range(5):
            chunk.trade("BTCUSDT", n)
            chunk.flush()
        ring = RingReader(chunk.meta_path)
        meta = chunk.meta_path.read_bytes()
        base = META["fdatasync_ns"].offset
        buckets = struct.unpack_from(f"<{CONSTANTS['HISTOGRAM_BUCKETS']}Q", meta, base + META["histogram.buckets"].offset)
        largest = META["histogram.max"].of(meta, base)
        highest_bit = largest.bit_length() - 1
        expected = 16 * (highest_bit - 3) + ((largest >> (highest_bit - 4)) & 15)
        assert max(index for index, count in enumerate(buckets) if count) == expected
        assert sum(buckets) == META["histogram.count"].of(meta, base) == ring.histogram("fdatasync_ns")["count"]
        ring.close()
