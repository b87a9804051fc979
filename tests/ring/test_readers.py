"""Readers of a damaged ring, of a journal that is being written, and of one that has holes."""

import os
import random
import threading
from pathlib import Path

import pytest

from appliance.ring.journal import JournalReader
from appliance.ring.layout import JOURNAL_HEADER, PAYLOAD_MAX
from appliance.ring.reader import Corrupt, Lapped, Record, RingReader, SegmentReader
from appliance.ring.store import ChunkStore
from tests.ring.sequenced import BLOCK, EXCHANGE, Place, append, options, poll_all, sequences
from tests.streams import until


def good(items: list[Record | Lapped | Corrupt]) -> list[int]:
    return sequences(item for item in items if isinstance(item, Record))


def flushed(store: ChunkStore) -> None:
    assert store.flusher is not None
    store.flusher.wake()
    until(lambda: store.writer.flushed == store.writer.committed, "the flush")


def turned(store: ChunkStore) -> None:
    """The next record begins a segment, and the flusher is there already."""
    assert store.flusher is not None
    store.turn(store.writer.begin_block())
    store.flusher.wake()
    until(lambda: store.flusher is not None and not store.flusher.turning, "the turn")


@pytest.mark.parametrize("garbage", ["zeros", "ones", "random"])
def test_a_damaged_block_of_the_ring_costs_that_block_wherever_one_seeks(tmp_path: Path, garbage: str) -> None:
    """Nothing damaged leads a reader out of the block, or the process out of the mapping; every seek still finds its record."""
    place = Place(tmp_path)
    store = place.open(options(capacity_blocks=16), journal=False)
    last = append(store, 2500)
    whole = RingReader(place.meta_path)
    records = [item for item in poll_all(whole) if isinstance(item, Record)]
    whole.close()
    blocks = sorted({record.position // BLOCK for record in records})
    chance = random.Random(5)
    for block in blocks[:-1]:
        begin = block * BLOCK % (16 * BLOCK)
        original = place.data_path.read_bytes()[begin : begin + BLOCK]
        damage = {"zeros": bytes(BLOCK), "ones": b"\xff" * BLOCK, "random": chance.randbytes(BLOCK)}[garbage]
        with place.data_path.open("r+b") as data:
            data.seek(begin)
            data.write(damage)
        lost = {record.sequence for record in records if record.position // BLOCK == block}
        reader = RingReader(place.meta_path)
        items = poll_all(reader)
        assert [item.position for item in items if isinstance(item, Corrupt)] == [block * BLOCK]
        assert good(items) == [record.sequence for record in records if record.sequence not in lost]
        for wanted in chance.sample(range(records[0].sequence, last + 1), 20):
            record = records[wanted - records[0].sequence]
            for by_time in (False, True):
                if by_time:
                    reader.seek_time(record.write_ns)
                else:
                    reader.seek_sequence(wanted)
                (item,) = reader.poll(1)
                if wanted in lost:
                    assert isinstance(item, Corrupt)
                else:
                    assert isinstance(item, Record)
                    assert item.sequence == wanted or (by_time and item.write_ns == record.write_ns)
        reader.close()
        with place.data_path.open("r+b") as data:
            data.seek(begin)
            data.write(original)
    assert store.writer.committed_sequence == last


def test_a_word_at_the_ring_s_very_end_that_looks_like_a_record_is_survived(tmp_path: Path) -> None:
    """Where padding of one word ends the mapping, a header must not be read beyond it."""
    place = Place(tmp_path)
    store = place.open(options(capacity_blocks=2), journal=False)
    append(store, 1, PAYLOAD_MAX)
    append(store, 1, PAYLOAD_MAX - 8)
    append(store, 1, 0)
    for word in (b"\x48\x00\x00\x00\x01\x00\x00\x00", b"\x08\x00\x00\x00\x01\x00\x00\x00", bytes(8), b"\xff" * 8):
        with place.data_path.open("r+b") as data:
            data.seek(2 * BLOCK - 8)
            data.write(word)
        reader = RingReader(place.meta_path)
        second, damage, third = reader.poll()
        assert good([second, third]) == [2, 3]
        assert damage == Corrupt(2 * BLOCK - 8, "length")
        for seek in (lambda ring: ring.seek_sequence(3), lambda ring: ring.seek_time(1 << 62), RingReader.seek_newest):
            seek(reader)
            assert good(reader.poll()) in ([], [3])
        reader.close()


def test_seeking_in_a_segment_finds_its_record_behind_damaged_blocks(tmp_path: Path) -> None:
    place = Place(tmp_path)
    store = place.open(options(capacity_blocks=64))
    store.start()
    last = append(store, 2500)
    assert store.drain(10)
    (segment,) = place.segments
    records = [item for item in place.journal() if isinstance(item, Record)]
    content = segment.read_bytes()
    chance = random.Random(6)
    blocks = (len(content) - JOURNAL_HEADER) // BLOCK
    for block in range(blocks):
        lost = {record.sequence for record in records if record.position // BLOCK == block}
        at = JOURNAL_HEADER + block * BLOCK
        segment.write_bytes(content[:at] + chance.randbytes(BLOCK) + content[at + BLOCK :])
        for limit in (None, store.writer.committed):
            reader = SegmentReader(segment, limit)
            for wanted in chance.sample(range(1, last + 1), 10):
                reader.seek_sequence(wanted)
                (item,) = reader.poll(1)
                if wanted in lost:
                    assert isinstance(item, Corrupt)
                else:
                    assert isinstance(item, Record)
                    assert item.sequence == wanted
                    reader.seek_time(item.write_ns)
                    (again,) = reader.poll(1)
                    assert isinstance(again, Record)
                    assert again.write_ns == item.write_ns
            reader.seek_sequence(last + 1)
            assert reader.poll() == []
            reader.close()


def test_a_limit_within_a_block_is_kept_to_the_byte(tmp_path: Path) -> None:
    place = Place(tmp_path)
    store = place.open(options(capacity_blocks=16))
    store.start()
    append(store, 400)
    assert store.drain(10)
    (segment,) = place.segments
    records = [item for item in place.journal() if isinstance(item, Record)]
    for record in records[::7]:
        reader = SegmentReader(segment, record.position)
        assert good(reader.poll(1 << 20)) == list(range(1, record.sequence))
        assert not reader.open_end
        reader.bound(record.position + 8 * 1024)
        rest = reader.poll(1)
        assert not rest or good(rest) == [record.sequence]
        reader.close()


def test_a_live_segment_gives_what_is_flushed_and_more_as_it_grows(tmp_path: Path) -> None:
    place = Place(tmp_path)
    store = place.open(options(capacity_blocks=16))
    store.start()
    append(store, 1)
    flushed(store)
    ring = RingReader(place.meta_path)
    reader = JournalReader(place.journal_dir, EXCHANGE, 0)
    seen: list[int] = []
    chance = random.Random(7)
    for round_ in range(120):
        append(store, chance.randrange(40))
        if round_ % 3 == 0:
            flushed(store)
        if round_ % 25 == 24:
            turned(store)
        reader.flushed, known = ring.flushed, ring.committed_sequence
        while items := reader.poll(chance.choice([1, 10, 1000])):
            seen += good(items)
            assert not any(isinstance(item, Corrupt | Lapped) for item in items), items
        assert seen[-1] <= known
    assert store.drain(10)
    reader.flushed = ring.flushed
    while items := reader.poll():
        seen += good(items)
    assert seen == list(range(1, store.writer.committed_sequence + 1))
    reader.close()
    ring.close()


def test_a_follower_without_a_ring_never_takes_bytes_that_are_being_written_for_damage(tmp_path: Path) -> None:
    """It reads what the flusher's pwrite has not finished: an open end, and later the rest of it."""
    place = Place(tmp_path)
    store = place.open(options(capacity_blocks=64, segment_bytes=4 << 20))
    store.start()
    append(store, 1)
    flushed(store)
    done = threading.Event()

    def write() -> None:
        for _ in range(40):
            append(store, 300)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    reader = JournalReader(place.journal_dir, EXCHANGE, 0)
    seen: list[int] = []
    while not done.is_set():
        items = reader.poll()
        assert not any(isinstance(item, Corrupt | Lapped) for item in items), items
        seen += good(items)
    writer.join()
    assert store.drain(10)
    while items := reader.poll():
        seen += good(items)
    assert seen == list(range(1, 12002))
    reader.close()


def test_a_follower_survives_restarts_that_write_a_segment_anew_under_its_name(tmp_path: Path) -> None:
    """A restart within a segment's first block replaces its file: who has the old one open must notice, and must read nothing twice."""
    place = Place(tmp_path)
    reader = JournalReader(place.journal_dir, EXCHANGE, 0)
    seen: list[int] = []
    for _ in range(8):
        store = place.open()
        store.start()
        append(store, 30)
        flushed(store)
        while items := reader.poll():
            seen += sequences(items)
        assert store.drain(10)
        del store
    while items := reader.poll():
        seen += sequences(items)
    assert seen == list(range(1, 241))
    assert len(place.segments) < 8
    reader.close()


def test_a_follower_whose_segment_is_retired_goes_on_in_the_next(tmp_path: Path) -> None:
    place = Place(tmp_path)
    store = place.open()
    store.start()
    for _ in range(4):
        append(store, 200)
        turned(store)
    append(store, 10)
    flushed(store)
    reader = JournalReader(place.journal_dir, EXCHANGE, 0)
    seen = sequences(reader.poll(50))
    segments = place.segments
    segments[0].unlink()
    segments[1].unlink()
    reader.refresh()
    items = []
    while found := reader.poll():
        items += found
    assert store.drain(10)
    lapped = [item for item in items if isinstance(item, Lapped)]
    # What is open can still be read; what is gone is said.
    assert [(item.from_sequence, item.to_sequence) for item in lapped] == [(201, 400)]
    assert seen + good(items) == [*range(1, 201), *range(401, 811)]
    reader.close()


def test_a_reader_opened_on_the_name_of_a_ring_sees_when_another_takes_it(tmp_path: Path) -> None:
    place = Place(tmp_path)
    store = place.open(journal=False)
    append(store, 10)
    old = RingReader(place.meta_path)
    assert old.inode == place.meta_path.stat().st_ino
    del store
    place.open(options(capacity_blocks=8), journal=False)
    assert old.replaced
    assert old.inode != place.meta_path.stat().st_ino
    assert sequences(old.poll()) == list(range(1, 11))
    new = RingReader(place.meta_path)
    assert new.inode == place.meta_path.stat().st_ino
    assert (new.ring_id, new.first_sequence, new.replaced) == (old.ring_id, 11, False)
    old.close()
    new.close()


def test_readers_leave_no_descriptor_behind(tmp_path: Path) -> None:
    place = Place(tmp_path)
    store = place.open()
    store.start()
    append(store, 100)
    assert store.drain(10)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counting, not naming
    for _ in range(3):
        reader = JournalReader(place.journal_dir, EXCHANGE, 0)
        reader.poll()
        reader.seek_sequence(50)
        reader.seek_time(0)
        reader.close()
        RingReader(place.meta_path).close()
        with pytest.raises(FileNotFoundError):
            RingReader(place.ring_dir / "absent.meta")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
