"""A second reader of the raw lane, made from docs/raw-lane.md alone: it parses its tables, so the page cannot drift from the code."""

import re
import struct
from pathlib import Path

import zstandard

from appliance.ring import raw_segments
from appliance.ring.layout import crc32c
from appliance.ring.raw_buffer import RawBuffer
from appliance.ring.raw_writer import RawWriter

PAGE = (Path(__file__).parents[2] / "docs" / "raw-lane.md").read_text()
CONSTANTS = {name: int(value) for name, value in re.findall(r"^\| `([A-Z_]+)` \| (\d+) \|", PAGE, re.MULTILINE)}
FIELDS = {name: (int(offset), type) for offset, type, name in re.findall(r"^\| (\d+) \| `([^`]+)` \| `([^`]+)` \|", PAGE, re.MULTILINE)}
FORMATS = {"u8": "<B", "u32": "<I", "u64": "<Q", "i64": "<q"}


def field(data: bytes, name: str, base: int = 0) -> int:
    offset, type = FIELDS[name]
    return int(struct.unpack_from(FORMATS[type], data, base + offset)[0])


def text(data: bytes, name: str) -> bytes:
    offset, type = FIELDS[name]
    return data[offset : offset + int(type.split()[1])].rstrip(b"\0")


def test_the_page_is_enough_to_read_a_segment(tmp_path: Path) -> None:
    buffer = RawBuffer(4096)
    frames = [(1_000 + number, number % 3, b"frame %d " % number * (number % 5)) for number in range(200)]
    for recv_ns, leg, payload in frames:
        buffer.keep(payload, recv_ns, leg)
    shed = buffer.shed
    assert shed
    writer = RawWriter(
        buffer, tmp_path, "raw", "deribit_trade_chunk7", raw_segments.header("deribit", 7, "a host", 99),
        newest_ns=0, segment_bytes=1 << 20, segment_s=600.0, keep_free_bytes=0, block_s=0.0,
    )  # fmt: skip
    writer.start()
    while not buffer.tell():
        pass
    assert writer.stop(10.0)
    (path,) = (tmp_path / "raw").iterdir()
    data = path.read_bytes()
    assert data[:8] == b"MDCRAWS\0"
    assert field(data, "format_version") == CONSTANTS["RAW_FORMAT_VERSION"]
    assert field(data, "header_bytes") == CONSTANTS["RAW_HEADER_BYTES"]
    assert (field(data, "chunk"), field(data, "started_ns"), text(data, "exchange"), text(data, "host")) == (7, 99, b"deribit", b"a host")
    assert path.name == f"deribit_trade_chunk7.{field(data, 'created_ns')}.raw"
    assert crc32c(data[: FIELDS["crc32c"][0]]) == field(data, "crc32c")
    found, told = [], []
    at = CONSTANTS["RAW_HEADER_BYTES"]
    while at < len(data):
        end = at + CONSTANTS["RAW_BLOCK_HEADER_BYTES"] + field(data, "block.length", at)
        assert crc32c(data[at + 4 : end]) == field(data, "block.crc32c", at)
        entries = zstandard.ZstdDecompressor().decompress(data[at + CONSTANTS["RAW_BLOCK_HEADER_BYTES"] : end])
        assert len(entries) == field(data, "block.entries_bytes", at)
        assert field(data, "block.reserved", at) == 0
        times, entry = [], 0
        while entry < len(entries):
            recv_ns, size, kind = (field(entries, f"entry.{name}", entry) for name in ("recv_ns", "size", "kind"))
            begin = entry + CONSTANTS["RAW_ENTRY_BYTES"]
            if kind == 1:
                found.append((recv_ns, field(entries, "entry.leg", entry), entries[begin : begin + size]))
            else:
                told.append(tuple(field(entries, f"shed.{name}", begin) for name in ("first_ns", "last_ns", "frames", "bytes")))
            times.append((recv_ns, kind))
            entry = begin + (size + 15) // 16 * 16
        assert field(data, "block.frames", at) == sum(kind == 1 for _, kind in times)
        assert field(data, "block.first_ns", at) == min(recv_ns for recv_ns, _ in times)
        assert field(data, "block.last_ns", at) == max(recv_ns for recv_ns, _ in times)
        at = (end + 7) // 8 * 8
    assert found == frames[: len(frames) - shed]
    lost = frames[len(frames) - shed :]
    assert told == [(lost[0][0], lost[-1][0], shed, sum(len(payload) for _, _, payload in lost))]
