"""One chunk's pipeline from frame to journal, over restarts: what it has recorded, and what it says is recorded."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from appliance import GapClosed, Lapped, Status, Trade, open_rings
from appliance.exchanges.binance_decoder import BinanceDecoder
from appliance.exchanges.instruments import Instruments
from appliance.feed.pipeline import Pipeline
from appliance.ring import journal
from appliance.ring.layout import JOURNAL_HEADER, RecordType
from appliance.ring.reader import Record, RingReader, SegmentReader
from appliance.ring.store import StoreOptions
from appliance.tools import verify

MANY = [f"S{number:03}USDT" for number in range(400)]
OPTIONS = StoreOptions(capacity_bytes=1 << 24, segment_bytes=1 << 22, flush_interval_ms=1, mlock=False)


class Place:
    """The directories of one chunk."""

    def __init__(self, root: Path) -> None:
        self.ring_dir, self.journal_dir = root / "ring", root / "journal"
        self.ring_dir.mkdir()
        self.journal_dir.mkdir()

    def open(self, symbols: list[str], grace_ms: int = 0, adopt: bool = False) -> Pipeline:
        instruments = Instruments("BINANCE")
        for symbol in symbols:
            instruments.add(symbol)
        decoder = BinanceDecoder(instruments)
        return Pipeline.open(self.ring_dir, self.journal_dir, "binance", 0, decoder, OPTIONS, legs=1, gap_grace_ms=grace_ms, adopt=adopt)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def btcusdt() -> Instruments:
    instruments = Instruments("BINANCE")
    instruments.add("BTCUSDT")
    return instruments


def trade(number: int, symbol: str = "BTCUSDT") -> bytes:
    data = {"e": "trade", "E": 1790649901913, "s": symbol, "t": number, "p": "1.50", "q": "2.0", "T": 1790649901913, "m": True, "M": True}
    return json.dumps({"stream": f"{symbol.lower()}@trade", "data": data}, separators=(",", ":")).encode()


def fill(pipeline: Pipeline, until: Callable[[int], bool]) -> None:
    """Write records without a flusher until so little room is left."""
    assert pipeline.store.flusher is not None
    assert pipeline.store.flush(5.0)
    assert pipeline.store.flusher.stop(5.0)
    while not until(pipeline.store.writer.room_bytes):
        pipeline.store.writer.append(RecordType.STATUS, b'{"record":"status","event":"x"}' + b" " * 20_000)


def test_a_restart_from_a_segment_that_begins_amid_older_records_tells_nothing_that_is_not_so(place: Place) -> None:
    """The oldest segment that retention left repeats the block of the restart before; its snapshot says what those records had come to."""
    pipeline = place.open(["BTCUSDT"])
    for number in [*range(1000, 1800), *range(1810, 1900)]:  # 1800 to 1809 are lost by every leg
        pipeline.path.commit_message(trade(number))
    number, block = 1900, pipeline.store.writer.committed >> 16
    while pipeline.store.writer.committed >> 16 == block:
        pipeline.path.commit_message(trade(number))
        number += 1
    pipeline.turn()  # the gap record lies in the block that the next segment repeats
    assert pipeline.drain("stop", 5.0)
    pipeline = place.open(["BTCUSDT"])
    pipeline.path.commit_message(trade(number))
    assert pipeline.drain("stop", 5.0)
    assert len(journal.retire(place.journal_dir, "binance", 0, 1 << 62, 0)) == 1
    pipeline = place.open(["BTCUSDT"])
    assert pipeline.store.writer.committed_sequence > 0
    pipeline.turn()
    assert pipeline.drain("stop", 5.0)
    told = list(open_rings(place.journal_dir))
    assert [value for value in told if isinstance(value, GapClosed)] == []
    assert [(value.event, value.fields["from_id"]) for value in told if isinstance(value, Status)] == [("baseline", 1000)]


def test_no_snapshot_says_of_a_gap_that_it_is_recorded_before_it_is(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    child = os.fork()
    if child == 0:
        pipeline = place.open(MANY, grace_ms=0)
        for symbol in MANY:
            pipeline.path.commit_message(trade(100, symbol))
        while pipeline.turn() is not None:
            pass
        for symbol in MANY:
            pipeline.path.commit_message(trade(105, symbol))
        fill(pipeline, lambda room: room < (1 << 20) + 25_000)
        for _ in range(5):
            pipeline.turn()
        os._exit(0)  # as a kill -9 leaves it
    assert os.waitpid(child, 0)[1] == 0
    pipeline = place.open(MANY)
    for _ in range(20):
        pipeline.turn()
        assert pipeline.store.flush(5.0)
    assert pipeline.drain("stop", 5.0)
    assert verify.run(rings=place.ring_dir, as_json=True) == 0
    (verdict,) = json.loads(capsys.readouterr().out)
    assert verdict["recorded_ids"] == 4 * len(MANY)


def test_a_snapshot_that_finds_no_room_waits_for_it(place: Place) -> None:
    pipeline = place.open(MANY, grace_ms=60_000)
    for number in range(0, 240, 2):  # every second id is lost: large states
        for symbol in MANY:
            while pipeline.path.commit_message(trade(4_000_000_000 + number, symbol)) != "TRADES":
                pipeline.path.catch_up()
        assert pipeline.store.flush(5.0)
    pipeline.turn()
    fill(pipeline, lambda room: room < (1 << 20) + 200_000)
    before = pipeline.store.writer.committed_sequence
    pipeline.store.turn_due = lambda: True  # type: ignore[method-assign]
    pipeline.turn()
    assert pipeline.store.writer.committed_sequence == before


def test_a_record_of_a_type_that_a_later_version_writes_is_passed_over(place: Place) -> None:
    pipeline = place.open(["BTCUSDT"])
    pipeline.path.commit_message(trade(1))
    pipeline.store.writer.append(9, b"\x01 of a later version")
    assert pipeline.drain("stop", 5.0)
    for directory in (place.ring_dir, place.journal_dir):
        assert verify.run(rings=directory, as_json=True) == 0
    pipeline = place.open(["BTCUSDT"])
    pipeline.path.commit_message(trade(2))
    assert pipeline.drain("stop", 5.0)
    assert verify.run(rings=place.ring_dir, as_json=True) == 0


def test_ids_that_no_exchange_has_end_nothing(place: Place) -> None:
    pipeline = place.open(MANY[:12])
    for symbol in MANY[:12]:
        for number in (1, 999_999_999_999_999_999):
            pipeline.path.commit_message(trade(number, symbol))
    pipeline.turn()
    assert pipeline.drain("stop", 5.0)
    pipeline = place.open(MANY[:12])
    pipeline.turn()
    assert pipeline.drain("stop", 5.0)


def test_a_status_that_is_longer_than_a_record_is_shortened_and_blocks_nothing(place: Place) -> None:
    pipeline = place.open(["BTCUSDT"])
    pipeline.status("long", names=["name"] * 20_000, count=20_000)
    pipeline.status("next")
    assert pipeline.drain("stop", 5.0)
    told = [value for value in open_rings(place.journal_dir) if isinstance(value, Status)]
    assert [(value.event, value.fields.get("count")) for value in told] == [("long", 20_000), ("next", None)]


@pytest.mark.parametrize("adopt", [True, False])
def test_an_instrument_that_has_ended_leaves_the_snapshots_where_it_never_returns(place: Place, adopt: bool) -> None:
    """A year of options is a hundred thousand names; a symbol that was delisted may be listed again, its ids going on."""
    pipeline = place.open(["BTCUSDT", "OLDUSDT"], adopt=adopt)
    for symbol in ("BTCUSDT", "OLDUSDT"):
        for number in (1, 2, 3):
            pipeline.path.commit_message(trade(number, symbol))
    assert pipeline.end("OLDUSDT")
    pipeline.status("ended", asset="OLDUSDT", kind="Spot", state="delivered")
    pipeline.turn()
    assert pipeline.drain("stop", 5.0)
    pipeline = place.open(["BTCUSDT", "OLDUSDT"], adopt=adopt)
    assert not pipeline.end("OLDUSDT")
    pipeline.path.commit_message(trade(3, "OLDUSDT"))
    pipeline.turn()
    assert pipeline.drain("stop", 5.0)
    read = [
        item
        for segment in journal.segments(place.journal_dir, "binance", 0)
        for item in SegmentReader(segment.path).poll(1_000)
        if isinstance(item, Record)
    ]
    snapshots = [item.payload for item in read if item.type == RecordType.SNAPSHOT]
    assert b"BTCUSDT" in snapshots[-1]
    assert (b"OLDUSDT" in snapshots[-1]) == (not adopt)
    traded = [value.exchange_trade_id for value in open_rings(place.journal_dir) if isinstance(value, Trade) and value.asset == "OLDUSDT"]
    assert traded == [1, 2, 3]


@pytest.mark.parametrize("left", [None, JOURNAL_HEADER], ids=["nothing", "its header"])
def test_what_a_segment_held_that_is_gone_is_recorded_also_where_later_snapshots_know_of_it(place: Place, left: int | None) -> None:
    """As when a disk took nothing for a while, and the writer was killed before its record of that was written."""
    number = 1000
    for _ in range(4):
        pipeline = place.open(["BTCUSDT"])
        for _ in range(300):  # more than a block
            pipeline.path.commit_message(trade(number))
            number += 1
        assert pipeline.drain("stop", 5.0)
    gone, following = journal.segments(place.journal_dir, "binance", 0)[1:3]
    if left is None:
        gone.path.unlink()
    else:
        os.truncate(gone.path, left)
    pipeline = place.open(["BTCUSDT"])
    assert pipeline.drain("stop", 5.0)
    (lost,) = [value for value in open_rings(place.journal_dir) if isinstance(value, Lapped)]
    found = journal.JournalReader(place.journal_dir, "binance", 0)
    holes = [json.loads(item.payload) for item in found if isinstance(item, Record) and item.type == RecordType.HOLE]
    assert [(hole["from_sequence"], hole["to_sequence"], hole["reason"]) for hole in holes] == [
        (lost.from_sequence, lost.to_sequence, "found at a start")
    ]
    assert lost.to_sequence == following.first_sequence - 1


def test_copies_that_differ_in_their_event_time_alone_are_one_trade(place: Place) -> None:
    """T2: `E` is when a connection's frame was made, and no part of the trade."""
    pipeline = Pipeline.open(place.ring_dir, place.journal_dir, "binance", 0, BinanceDecoder(btcusdt()), OPTIONS, legs=2, gap_grace_ms=0)
    for number in range(1000, 1010):
        frame = trade(number)
        assert frame.count(b'"E":1790649901913') == 1
        for leg, late_ms in ((0, 0), (1, 1)):
            copy = frame.replace(b'"E":1790649901913', b'"E":%d' % (1790649901913 + late_ms))
            assert pipeline.path.commit_message(copy, leg) == "TRADES"
    counters = pipeline.path.counters()
    assert (counters["trades"], counters["duplicates"], counters["conflicting"]) == (10, 10, 0)
    assert pipeline.drain("stop", 5.0)
    assert [value.exchange_trade_id for value in open_rings(place.journal_dir) if isinstance(value, Trade)] == list(range(1000, 1010))


def test_what_finds_no_room_in_ring_or_memory_is_counted_recorded_and_missing(place: Place) -> None:
    pipeline = place.open(["BTCUSDT"])
    for number in (1000, 1001):
        assert pipeline.path.commit_message(trade(number)) == "TRADES"
    pipeline.turn()
    fill(pipeline, lambda room: room < 30_000)
    with suppress(BlockingIOError):
        while True:
            pipeline.store.writer.append(RecordType.STATUS, b'{"record":"status","event":"x"}')
    number = 1002
    while (outcome := pipeline.path.commit_message(large(trade(number)))) == "SPILLED":
        number += 1
    assert outcome == "TRADES"
    assert pipeline.path.shed == 1
    pipeline.store.writer.lossy = True
    while pipeline.path.catch_up():
        pass
    pipeline.path.commit_message(trade(number + 1))
    pipeline.turn()
    pipeline.turn()
    ring = RingReader(place.ring_dir / "binance_trade_chunk0.meta")
    items = []
    while some := ring.poll():
        items += some
    told = [json.loads(item.payload) for item in items if isinstance(item, Record) and item.type in (RecordType.STATUS, RecordType.GAP)]
    assert [record["trades"] for record in told if record.get("event") == "shed"] == [1]
    assert [(record["from_id"], record["to_id"]) for record in told if record["record"] == "gap"] == [(number, number)]
    ring.close()


def large(frame: bytes) -> bytes:
    return frame[:-2] + b',"more":"' + b"x" * (4 << 20) + b'"}}'
