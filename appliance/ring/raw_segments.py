"""The segments of the raw lane on disk: found, read as the frames that they hold, deleted by age. docs/raw-lane.md is the byte table."""

import os
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import zstandard

from appliance.errors import NotARing
from appliance.ring.layout import crc32c
from appliance.ring.raw_writer import BLOCK_HEADER, FORMAT, HEADER

DIRECTORY = "raw"  # below the journal's
MAGIC = b"MDCRAWS\0"
ENTRIES_BYTES_MAX = 64 << 20  # of a block: a message has 16 MiB at most

_NAME = re.compile(r"^(?P<exchange>[a-z0-9]+)_trade_chunk(?P<chunk>\d+)\.(?P<created>\d+)\.raw$")
_HEADER = struct.Struct("<8sIIIIqq32s64sI")  # of 140 bytes; zeros up to HEADER
_CRC = 136
_BLOCK = struct.Struct("<IIIIqqQ")
_ENTRY = struct.Struct("<qIBBH")
_SHED = struct.Struct("<qqQQ")
_FRAME, _SHED_KIND = 1, 2
_ZSTD = b"\x28\xb5\x2f\xfd"


@dataclass(slots=True, frozen=True, order=True)
class RawSegment:
    """One segment file, by its name; in order of chunk and time."""

    exchange: str
    chunk: int
    created_ns: int
    path: Path


@dataclass(slots=True, frozen=True)
class Frame:
    """One message as a leg received it."""

    recv_ns: int
    chunk: int
    leg: int
    payload: bytes


@dataclass(slots=True, frozen=True)
class Shed:
    """Frames that the lane did not keep: it had no room for them. Receive times of the first and the last one."""

    chunk: int
    first_ns: int
    last_ns: int
    frames: int
    bytes: int


@dataclass(slots=True, frozen=True)
class Began:
    """A writer's first segment: what came between the frame before this and the one behind it was not kept, or there was none."""

    chunk: int
    started_ns: int


@dataclass(slots=True, frozen=True)
class Unreadable:
    """Bytes of a segment that are no whole block: torn at its end, or damaged."""

    chunk: int
    path: Path
    offset: int
    bytes: int
    torn: bool
    """Nothing readable follows in this segment: as `kill -9` or a power cut leaves it."""


Item = Frame | Shed | Began | Unreadable


def segments(directory: Path, exchange: str | None = None, chunk: int | None = None) -> list[RawSegment]:
    """The raw segments in a directory; none where it is not there."""
    found = []
    for path in directory.iterdir() if directory.is_dir() else ():
        match = _NAME.match(path.name)
        if match is None:
            continue
        segment = RawSegment(match["exchange"], int(match["chunk"]), int(match["created"]), path)
        if exchange in (None, segment.exchange) and chunk in (None, segment.chunk):
            found.append(segment)
    return sorted(found)


def header(exchange: str, chunk: int, host: str, started_ns: int) -> bytes:
    """What a segment begins with; its writer fills in `created_ns` and the CRC."""
    return _HEADER.pack(MAGIC, FORMAT, HEADER, chunk, 0, 0, started_ns, exchange.encode(), host.encode()[:63], 0).ljust(HEADER, b"\0")


class RawReader:
    """The frames of one chunk, in the order in which they came; an iterator, once.

    Only blocks with a frame received from `from_ns` on and before `to_ns` are unpacked, and only such frames come out.
    """

    def __init__(self, chosen: Sequence[RawSegment], from_ns: int = 0, to_ns: int = 1 << 63) -> None:
        self._segments = chosen
        self._from_ns = from_ns
        self._to_ns = to_ns
        self._unpacker = zstandard.ZstdDecompressor()

    def __iter__(self) -> Iterator[Item]:
        started_ns = -1
        for segment in self._segments:
            try:
                content = segment.path.read_bytes()
            except FileNotFoundError:
                continue  # its time was over
            if not content.rstrip(b"\0") or len(content) < HEADER:
                yield Unreadable(segment.chunk, segment.path, 0, len(content), torn=True)
                continue
            theirs = self._started_ns(segment, content)
            if theirs != started_ns:
                started_ns = theirs
                yield Began(segment.chunk, started_ns)
            yield from self._blocks(segment, memoryview(content))

    def _started_ns(self, segment: RawSegment, content: bytes) -> int:
        magic, version, header_bytes, chunk, _, _, started_ns, exchange, _, crc = _HEADER.unpack_from(content)
        if magic != MAGIC:
            raise NotARing(f"{segment.path}: not a segment of the raw lane; it begins with {magic!r}")
        if version != FORMAT or header_bytes != HEADER:
            raise NotARing(f"{segment.path}: format {version} of the raw lane, this version reads {FORMAT}")
        if crc32c(content[:_CRC]) != crc:
            raise NotARing(f"{segment.path}: its header is damaged (CRC32C); move it away to read the others")
        if (exchange.rstrip(b"\0").decode(), chunk) != (segment.exchange, segment.chunk):
            raise NotARing(
                f"{segment.path}: holds {exchange.rstrip(bytes(1)).decode()} chunk {chunk}, not what its name says; rename it back"
            )
        return int(started_ns)

    def _blocks(self, segment: RawSegment, content: memoryview) -> Iterator[Item]:
        at, bad = HEADER, -1
        while at < len(content):
            block = self._block(content, at)
            if block is None:
                bad = at if bad < 0 else bad
                at = self._behind(content, at)
                continue
            if bad >= 0:
                yield Unreadable(segment.chunk, segment.path, bad, at - bad, torn=False)
                bad = -1
            length, entries_bytes, first_ns, last_ns = block
            if last_ns >= self._from_ns and first_ns < self._to_ns:
                packed = content[at + BLOCK_HEADER : at + BLOCK_HEADER + length]
                try:
                    if zstandard.frame_content_size(packed) != entries_bytes:
                        raise zstandard.ZstdError("another size than the block says")
                    entries = self._unpacker.decompress(packed, max_output_size=entries_bytes)
                    yield from self._entries(segment.chunk, entries)
                except (zstandard.ZstdError, struct.error):  # a CRC that is right over what no writer of ours makes
                    yield Unreadable(segment.chunk, segment.path, at, _whole(length), torn=False)
            at += _whole(length)
        if bad >= 0:
            yield Unreadable(segment.chunk, segment.path, bad, len(content) - bad, torn=True)

    def _block(self, content: memoryview, at: int) -> tuple[int, int, int, int] | None:
        """(length, entries_bytes, first_ns, last_ns) of the block at `at`; None when it is none, or not whole."""
        if at + BLOCK_HEADER > len(content):
            return None
        crc, length, entries_bytes, _, first_ns, last_ns, reserved = _BLOCK.unpack_from(content, at)
        begin, end = at + BLOCK_HEADER, at + BLOCK_HEADER + length
        # What is cheap to see first: a search for the next good block looks at each word.
        if reserved or content[begin : begin + len(_ZSTD)] != _ZSTD or end > len(content) or entries_bytes > ENTRIES_BYTES_MAX:
            return None
        if crc32c(bytes(content[at + 4 : end])) != crc:
            return None
        return length, entries_bytes, first_ns, last_ns

    def _behind(self, content: memoryview, at: int) -> int:
        """Where to go on behind a bad block: at the next multiple of 8 that begins a good one, else at the end."""
        for candidate in range(at + 8, len(content) - BLOCK_HEADER, 8):
            if self._block(content, candidate) is not None:
                return candidate
        return len(content)

    def _entries(self, chunk: int, entries: bytes) -> Iterator[Item]:
        at = 0
        while at < len(entries):
            recv_ns, size, kind, leg, _ = _ENTRY.unpack_from(entries, at)
            begin = at + _ENTRY.size
            if begin + size > len(entries):
                raise struct.error("an entry is longer than its block")
            if kind == _FRAME and self._from_ns <= recv_ns < self._to_ns:
                yield Frame(recv_ns, chunk, leg, entries[begin : begin + size])
            elif kind == _SHED_KIND:
                yield Shed(chunk, *_SHED.unpack_from(entries, begin))
            at = begin + (size + 15) // 16 * 16


def _whole(length: int) -> int:
    return (BLOCK_HEADER + length + 7) // 8 * 8


def retire(directory: Path, exchange: str, chunk: int, older_than_ns: int, keep_free_bytes: int) -> list[Path]:
    """Delete segments last written before `older_than_ns` and, while the disk has less than `keep_free_bytes` left, the oldest.

    The newest one of the chunk stays. Returns what was deleted.
    """
    deleted = []
    for segment in segments(directory, exchange, chunk)[:-1]:
        try:
            old = segment.path.stat().st_mtime_ns < older_than_ns
        except FileNotFoundError:
            continue  # somebody else's deletion
        free = os.statvfs(directory)
        if not old and free.f_bavail * free.f_frsize >= keep_free_bytes:
            break
        segment.path.unlink(missing_ok=True)
        deleted.append(segment.path)
    return deleted
