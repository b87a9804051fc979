"""`mdc replay`: what the raw lane kept, frame by frame, or decoded anew."""

import base64
import heapq
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from appliance.errors import CheckFailed, NotARing
from appliance.ring.chunk import metas
from appliance.ring.merge import time_ns
from appliance.ring.raw_segments import DIRECTORY, Began, Frame, Item, RawReader, RawSegment, Shed, Unreadable, segments
from appliance.ring.reader import RingReader
from appliance.tools.redecoder import Redecoder

FOREVER_NS = 1 << 63


def run(*, raw: Path, start: str, end: str | None, filters: Sequence[str], decode: bool, compare: bool, as_json: bool) -> int:
    """Print the frames below `raw` that were received from `start` on and before `end`, the trades in them, or how they differ from
    the journal; the exit code: 1 when they differ."""
    lane, journal_dir = directories(raw)
    from_ns = 0 if start == "oldest" else time_ns(start)
    to_ns = FOREVER_NS if end is None else time_ns(end)
    if compare:
        from appliance.tools.comparison import compare as compared
        from appliance.tools.comparison import report

        comparisons = [
            compared(chosen, journal_dir, from_ns, to_ns, Redecoder(chosen[0].exchange, journal_dir, filters)) for chosen in chunks(lane)
        ]
        if not any(one.frames for one in comparisons):
            raise CheckFailed(f"{lane}: no frame was received in that time, so nothing was compared")
        print(json.dumps([one.as_json() for one in comparisons], indent=2) if as_json else report(comparisons))
        return 0 if all(one.good for one in comparisons) else 1
    items = heapq.merge(*(_timed(RawReader(chosen, from_ns, to_ns)) for chosen in chunks(lane)), key=lambda timed: timed[0])
    show: Callable[[Frame], Iterable[str]] = frame_json if as_json else frame_text
    if decode:
        redecoder = Redecoder(chunks(lane)[0][0].exchange, journal_dir, filters)
        show = redecoder.lines_json if as_json else redecoder.lines_text
    try:
        for _, item in items:
            if isinstance(item, Frame):
                for line in show(item):
                    sys.stdout.write(line + "\n")
            elif (said := loss(item)) is not None:
                sys.stdout.flush()
                print(said, file=sys.stderr)
        sys.stdout.flush()
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # Python flushes stdout once more at exit, into a pipe that no one reads.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def directories(raw: Path) -> tuple[Path, Path]:
    """The raw lane's directory and its journal's, given either, or the ring directory. Raises NotARing."""
    if segments(raw / DIRECTORY):
        return raw / DIRECTORY, raw
    if segments(raw):
        return raw, raw.parent
    for _, _, path in metas(raw) if raw.is_dir() else ():
        ring = RingReader(path)
        try:
            journal_dir = ring.journal_dir
        finally:
            ring.close()
        if journal_dir is not None and segments(journal_dir / DIRECTORY):
            return journal_dir / DIRECTORY, journal_dir
    raise NotARing(
        f"{raw}: holds no frames as received (*_trade_chunk*.raw); [journal] raw_hours has them kept, in <journal dir>/{DIRECTORY}"
    )


def chunks(lane: Path) -> list[list[RawSegment]]:
    """The segments of each chunk, oldest first."""
    by_chunk: dict[tuple[str, int], list[RawSegment]] = {}
    for segment in segments(lane):
        by_chunk.setdefault((segment.exchange, segment.chunk), []).append(segment)
    return list(by_chunk.values())


def frame_json(frame: Frame) -> Iterable[str]:
    """One JSON object: the frame as text, or in base64 where it is not UTF-8."""
    head = f'{{"recv_ts_ns":{frame.recv_ns},"leg":{frame.leg},"chunk":{frame.chunk},'
    try:
        yield f'{head}"frame":{json.dumps(frame.payload.decode(), ensure_ascii=False)}}}'
    except UnicodeDecodeError:
        yield f'{head}"frame_base64":"{base64.b64encode(frame.payload).decode()}"}}'


def frame_text(frame: Frame) -> Iterable[str]:
    """`2025-11-08 20:12:11.123456789 chunk 0 leg 1 {"stream":…`: the receive time, UTC."""
    when = f"{datetime.fromtimestamp(frame.recv_ns // 1_000_000_000, UTC):%Y-%m-%d %H:%M:%S}.{frame.recv_ns % 1_000_000_000:09}"
    yield f"{when} chunk {frame.chunk} leg {frame.leg} {frame.payload.decode(errors='backslashreplace')}"


def loss(item: Item) -> str | None:
    """One line on what the lane does not have."""
    match item:
        case Shed():
            span_s = (item.last_ns - item.first_ns) / 1e9
            return f"mdc: chunk {item.chunk}: {item.frames} frames were shed here, received within {span_s:.3f} s"
        case Unreadable(torn=True):
            return f"mdc: {item.path}: the last {item.bytes} bytes are no whole block: torn by a kill, or being written"
        case Unreadable():
            return f"mdc: {item.path}: {item.bytes} bytes at {item.offset} are damaged; going on at the next good block"
    return None


def _timed(items: Iterable[Item]) -> Iterator[tuple[int, Item]]:
    """Each with the receive time of the newest frame up to it, so that chunks can be merged."""
    newest_ns = 0
    for item in items:
        if isinstance(item, Frame):
            newest_ns = max(newest_ns, item.recv_ns)
        elif isinstance(item, Began):
            continue
        yield newest_ns, item
