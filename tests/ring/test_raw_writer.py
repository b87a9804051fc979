"""Segments of the raw lane: written, cut anywhere, on a full disk, deleted; what was whole comes out, the rest is told."""

import os
import random
import struct
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
import zstandard
from hypothesis import given, settings

from appliance.errors import NotARing
from appliance.ring import raw_segments
from appliance.ring.layout import crc32c
from appliance.ring.raw_buffer import RawBuffer
from appliance.ring.raw_segments import Began, Frame, Item, RawReader, Shed, Unreadable
from appliance.ring.raw_writer import BLOCK_HEADER, HEADER, RawWriter
from tests.mounts import Mounts
from tests.streams import until


def open_writer(journal_dir: Path, *, capacity: int = 1 << 20, segment_bytes: int = 1 << 24, segment_s: float = 600.0) -> RawWriter:
    journal_dir.mkdir(exist_ok=True)
    older = raw_segments.segments(journal_dir / "raw")
    writer = RawWriter(
        RawBuffer(capacity), journal_dir, "raw", "binance_trade_chunk0", raw_segments.header("binance", 0, "host", len(older)),
        newest_ns=older[-1].created_ns if older else 0, segment_bytes=segment_bytes, segment_s=segment_s, keep_free_bytes=0, block_s=0.01,
    )  # fmt: skip
    writer.start()
    return writer


def frame(number: int) -> bytes:
    """Some that compress well and some that do not."""
    return random.Random(number).randbytes(200) if number % 3 else b'{"stream":"btcusdt@trade","data":{"t":%d}}' % number


def write(journal_dir: Path, blocks: int, frames: int = 20) -> None:
    """A segment of so many blocks."""
    writer = open_writer(journal_dir)
    for number in range(blocks * frames):
        writer.buffer.keep(frame(number), 1_000 + number, number % 2)
        if number % frames == frames - 1:
            written = writer.written_bytes
            until(lambda written=written: writer.written_bytes > written, "a block")  # type: ignore[misc]
    assert writer.stop(10.0)


def read(directory: Path, from_ns: int = 0, to_ns: int = 1 << 63) -> list[Item]:
    return list(RawReader(raw_segments.segments(directory), from_ns, to_ns))


def frames_of(items: list[Item]) -> list[Frame]:
    return [item for item in items if isinstance(item, Frame)]


@pytest.fixture(scope="module")
def segment(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """One of three blocks, and how long it is behind each."""
    directory = tmp_path_factory.mktemp("segment")
    write(directory, 3)
    (found,) = raw_segments.segments(directory / "raw")
    content, ends = found.path.read_bytes(), [HEADER]
    while ends[-1] < len(content):
        length = int.from_bytes(content[ends[-1] + 4 : ends[-1] + 8], "little")
        ends.append(ends[-1] + -(-(BLOCK_HEADER + length) // 8) * 8)
    assert len(ends) == 4
    return found.path, ends


def test_frames_come_out_as_they_were_received(tmp_path: Path) -> None:
    payloads = [b"", b"x", "币安".encode(), b"\xff\x00", bytes(5 << 20), random.Random(1).randbytes(3 << 20), *map(frame, range(5000))]
    writer = open_writer(tmp_path, capacity=16 << 20)
    for number, payload in enumerate(payloads):
        writer.buffer.keep(payload, number, number % 8)
    assert writer.stop(10.0)
    assert (writer.buffer.shed, writer.dropped) == (0, 0)
    began, *frames = read(tmp_path / "raw")
    assert isinstance(began, Began)
    assert frames == [Frame(number, 0, number % 8, payload) for number, payload in enumerate(payloads)]
    assert sum(path.stat().st_size for path in (tmp_path / "raw").iterdir()) == writer.written_bytes


def test_a_segment_cut_at_every_byte_is_read_up_to_its_last_whole_block(segment: tuple[Path, list[int]], tmp_path: Path) -> None:
    path, ends = segment
    content = path.read_bytes()
    whole = frames_of(read(path.parent))
    cut = tmp_path / path.name
    for size in range(len(content)):
        cut.write_bytes(content[:size])
        items = read(tmp_path)
        blocks = sum(end <= size for end in ends) - 1
        # The zeros behind a block's last byte need not be there.
        blocks += blocks + 1 < len(ends) and blocks >= 0 and content[size : ends[blocks + 1]].strip(b"\0") == b"" and size > ends[blocks]
        assert frames_of(items) == whole[: 20 * max(blocks, 0)]
        torn = [item for item in items if isinstance(item, Unreadable)]
        assert sum(item.bytes for item in torn) == (size if blocks < 0 else size - ends[blocks] if size > ends[blocks] else 0)
        assert all(item.torn for item in torn)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_flipped_bit_costs_its_block_and_no_other(segment: tuple[Path, list[int]], data: st.DataObject, tmp_path_factory: object) -> None:
    path, ends = segment
    content = bytearray(path.read_bytes())
    whole = frames_of(read(path.parent))
    at = data.draw(st.integers(HEADER, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    block = sum(end <= at for end in ends) - 1
    assert isinstance(tmp_path_factory, pytest.TempPathFactory)
    flipped = tmp_path_factory.mktemp("flipped") / path.name
    flipped.write_bytes(content)
    items = read(flipped.parent)
    if frames_of(items) == whole:
        assert path.read_bytes()[at] == 0, "only what fills up may change unseen"
        return
    assert frames_of(items) == whole[: 20 * block] + whole[20 * (block + 1) :]
    (bad,) = (item for item in items if isinstance(item, Unreadable))
    assert (bad.offset, bad.bytes, bad.torn) == (ends[block], ends[block + 1] - ends[block], block == 2)


ENTRY = struct.pack("<qIBBH", 5, 3, 1, 0, 0) + b"abc".ljust(16, b"\0")
HOSTILE = {
    "no zstd": b"\x28\xb5\x2f\xfd" + bytes(20),
    "more than it says": zstandard.compress(bytes(1 << 20)),
    "half an entry": zstandard.compress(ENTRY + bytes(8)),
    "an entry beyond the end": zstandard.compress(ENTRY + struct.pack("<qIBBH", 5, 1 << 31, 1, 0, 0)),
    "half a tale of what was shed": zstandard.compress(ENTRY + struct.pack("<qIBBH", 5, 8, 2, 0, 0) + bytes(16)),
}


@pytest.mark.parametrize("packed", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_block_that_no_writer_makes_is_told_and_harms_no_other(segment: tuple[Path, list[int]], tmp_path: Path, packed: bytes) -> None:
    path, ends = segment
    content = path.read_bytes()
    block = struct.pack("<IIIqqQ", len(packed), 64, 1, 0, 9_999, 0) + packed
    hostile = (struct.pack("<I", crc32c(block)) + block).ljust(-(-(len(block) + 4) // 8) * 8, b"\0")
    (tmp_path / path.name).write_bytes(content[: ends[1]] + hostile + content[ends[1] :])
    items = read(tmp_path)
    assert [one for one in frames_of(items) if one.payload != b"abc"] == frames_of(read(path.parent))
    (bad,) = (item for item in items if isinstance(item, Unreadable))
    assert (bad.offset, bad.bytes) == (ends[1], len(hostile))


@given(content=st.binary(max_size=2_000))
@settings(max_examples=200, deadline=None)
def test_any_bytes_behind_a_header_are_read_without_harm(segment: tuple[Path, list[int]], content: bytes) -> None:
    path, _ = segment
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / path.name).write_bytes(path.read_bytes()[:HEADER] + content)
        items = read(Path(directory))
    assert frames_of(items) == []
    assert sum(item.bytes for item in items if isinstance(item, Unreadable)) == len(content)


def test_times_choose_frames(segment: tuple[Path, list[int]]) -> None:
    found = frames_of(read(segment[0].parent, 1_015, 1_045))
    assert [one.recv_ns for one in found] == list(range(1_015, 1_045))


@pytest.mark.parametrize("offset", [0, 8, 16, 40])
def test_a_header_that_is_not_right_is_told(segment: tuple[Path, list[int]], tmp_path: Path, offset: int) -> None:
    content = bytearray(segment[0].read_bytes())
    content[offset] ^= 1
    (tmp_path / segment[0].name).write_bytes(content)
    with pytest.raises(NotARing):
        read(tmp_path)


def test_each_start_has_segments_of_its_own_and_names_sort_by_time(tmp_path: Path) -> None:
    """T3, T26."""
    for _ in range(3):
        write(tmp_path, 2)
    items = read(tmp_path / "raw")
    assert [item.started_ns for item in items if isinstance(item, Began)] == [0, 1, 2]
    assert len(frames_of(items)) == 120


def test_segments_end_by_size_and_by_age(tmp_path: Path) -> None:
    writer = open_writer(tmp_path, segment_bytes=20_000, segment_s=600.0)
    for number in range(5):
        written = writer.written_bytes
        writer.buffer.keep(random.Random(number).randbytes(15_000), number)
        until(lambda written=written: writer.written_bytes > written, "a block")  # type: ignore[misc]
    assert writer.stop(10.0)
    assert len(raw_segments.segments(tmp_path / "raw")) == 5
    aged = open_writer(tmp_path / "aged", segment_s=0.0)
    for number in range(3):
        written = aged.written_bytes
        aged.buffer.keep(b"x", number)
        until(lambda written=written: aged.written_bytes > written, "a block")  # type: ignore[misc]
    assert aged.stop(10.0)
    assert len(raw_segments.segments(tmp_path / "aged" / "raw")) == 3


def test_a_full_disk_sheds_and_counts_and_is_written_to_again(tmp_path: Path, mounts: Mounts) -> None:
    """T24: nothing is written again into a segment whose write failed."""
    mounts.tmpfs(tmp_path / "raw", 1 << 21)
    writer = open_writer(tmp_path, capacity=1 << 19)
    number = 0
    while not writer.failing:
        writer.buffer.keep(random.Random(number).randbytes(20_000), number)
        number += 1
        until(lambda: writer.failing or writer.buffer.waiting_bytes < 1 << 18, "room, or the error")
    assert writer.error_text == "No space left on device"
    for _ in range(100):
        writer.buffer.keep(random.Random(number).randbytes(20_000), number)
        number += 1
    shed = writer.buffer.shed
    assert shed > 0
    kept = frames_of(read(tmp_path / "raw"))
    assert [one.recv_ns for one in kept] == list(range(len(kept)))
    for one in raw_segments.segments(tmp_path / "raw"):
        one.path.unlink()
    until(lambda: not writer.failing, "the disk's recovery")
    until(lambda: writer.buffer.waiting_bytes == 0, "all that waited")
    writer.buffer.keep(b"after", number)
    assert writer.stop(10.0)
    assert writer.dropped == 0
    items = read(tmp_path / "raw")
    (told,) = (item for item in items if isinstance(item, Shed))
    assert (told.frames, told.bytes) == (shed, shed * 20_000)
    later = [one.recv_ns for one in frames_of(items)]
    assert later == [*range(len(kept), told.first_ns), number]
    assert told.last_ns == number - 1


def test_what_a_full_disk_does_not_take_at_the_end_is_counted(tmp_path: Path, mounts: Mounts) -> None:
    mounts.tmpfs(tmp_path / "raw", 1 << 16)
    writer = open_writer(tmp_path)
    for number in range(10):
        writer.buffer.keep(random.Random(number).randbytes(20_000), number)
    assert writer.stop(10.0)
    assert writer.dropped == 10
    assert list((tmp_path / "raw").iterdir()) == [], "a disk that stays full must not fill up with names"


def test_a_directory_that_is_deleted_under_its_hands_is_made_anew(tmp_path: Path) -> None:
    writer = open_writer(tmp_path)
    writer.buffer.keep(b"one", 1)
    until(lambda: writer.written_bytes > 0, "the first block")
    (found,) = raw_segments.segments(tmp_path / "raw")
    found.path.unlink()
    (tmp_path / "raw").rmdir()
    writer.buffer.keep(b"two", 2)
    until(lambda: bool(raw_segments.segments(tmp_path / "raw")), "the next segment")
    assert writer.stop(10.0)
    assert frames_of(read(tmp_path / "raw")) == [Frame(2, 0, 0, b"two")]
    assert (writer.buffer.shed, writer.dropped) == (0, 0)


def test_old_segments_are_deleted_whole_and_the_newest_stays(tmp_path: Path) -> None:
    for _ in range(3):
        write(tmp_path, 1)
    found = raw_segments.segments(tmp_path / "raw")
    for age, one in enumerate(reversed(found)):
        os.utime(one.path, ns=(0, 10_000 - age))
    assert raw_segments.retire(tmp_path / "raw", "binance", 0, 9_999, 0) == [found[0].path]
    assert raw_segments.retire(tmp_path / "raw", "binance", 0, 1 << 62, 0) == [found[1].path]
    assert raw_segments.retire(tmp_path / "raw", "binance", 0, 1 << 62, 1 << 62) == []
    assert raw_segments.retire(tmp_path / "none", "binance", 0, 1 << 62, 0) == []


def test_the_oldest_go_while_space_is_short(tmp_path: Path) -> None:
    for _ in range(3):
        write(tmp_path, 1)
    found = raw_segments.segments(tmp_path / "raw")
    assert raw_segments.retire(tmp_path / "raw", "binance", 0, 0, 1 << 62) == [one.path for one in found[:2]]
