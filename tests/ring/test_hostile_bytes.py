"""Files that no writer leaves behind, each found by fuzzing (scripts/fuzz.py): an error in words, never a hang or worse."""

import struct
from pathlib import Path

import pytest

from appliance.errors import NotARing
from appliance.ring.layout import BLOCK, RecordType, crc32c, offsets
from appliance.ring.reader import Record, RingReader, SegmentReader
from appliance.ring.scan import Fault, Scanner
from tests.ring.sequenced import Place, append, options

SEGMENT_FIRST_POSITION, SEGMENT_CRC = 48, 168  # docs/ring-format.md


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place(tmp_path)
    store = found.open(options(capacity_blocks=2))
    store.start()
    append(store, 100)
    assert store.drain(60)
    return found


def set_cursors(place: Place, **values: int) -> None:
    with place.meta_path.open("r+b") as meta:
        for name, value in values.items():
            meta.seek(offsets()[name])
            meta.write(struct.pack("<Q", value))


@pytest.mark.parametrize("first", [4, 8, BLOCK - 8])
def test_a_ring_that_begins_within_a_block_is_refused(place: Place, first: int) -> None:
    """Its reader went round for ever, or read a word that lay across the end of the mapping."""
    set_cursors(place, first_position=first)
    with pytest.raises(NotARing, match="cursors are damaged"):
        RingReader(place.meta_path)


def test_a_ring_whose_cursor_lies_within_a_word_is_refused(place: Place) -> None:
    end = RingReader(place.meta_path).committed
    set_cursors(place, committed=end + 4, claimed=end + 4)
    with pytest.raises(NotARing, match="cursors are damaged"):
        RingReader(place.meta_path)


@pytest.mark.parametrize("committed", [(1 << 62) + 8, (1 << 63) + 8, (1 << 64) - 8])
def test_a_ring_whose_cursors_would_overflow_is_refused(place: Place, committed: int) -> None:
    set_cursors(place, committed=committed, claimed=committed)
    with pytest.raises(NotARing, match="cursors are damaged"):
        RingReader(place.meta_path)


@pytest.mark.parametrize("first", [8, (1 << 62) + BLOCK, (1 << 64) - BLOCK])
def test_a_segment_that_begins_where_no_stream_does_is_refused(place: Place, first: int) -> None:
    """Its checksum is right, so the header was made so; it ended in an OverflowError."""
    path = place.segments[0]
    content = bytearray(path.read_bytes())
    struct.pack_into("<Q", content, SEGMENT_FIRST_POSITION, first)
    struct.pack_into("<I", content, SEGMENT_CRC, crc32c(bytes(content[:SEGMENT_CRC])))
    path.write_bytes(content)
    with pytest.raises(NotARing, match="the header is damaged"):
        SegmentReader(path)


@pytest.mark.parametrize("digits", [18, 19, 20, 400])
def test_an_id_of_any_length_is_judged_without_overflow(tmp_path: Path, digits: int) -> None:
    """Under UndefinedBehaviorSanitizer this says more: the sum overflowed before its digits were counted."""
    place = Place(tmp_path)
    store = place.open(options(capacity_blocks=2), journal=False)
    payload = (
        b'{"exchange":"BINANCE","asset":"BTCUSDT","kind":"Spot","px":1,"sz":1,"side":"Sell","exchange_trade_id":%s,"exchange_ts_ms":1,'
        b'"writer_ts_ms":1,"recv_ts_ms":1,"parse_ts_ms":1,"enqueue_ts_ms":1}' % (b"9" * digits)
    )
    store.writer.append(RecordType.TRADE, payload)
    faults = [item.reason for item in Scanner().scan(RingReader(place.meta_path)) if isinstance(item, Fault)]
    assert faults == ([] if digits <= 18 else ["trade is not in the form of this format version"])
    assert [type(item) for item in RingReader(place.meta_path).poll()] == [Record]
