"""The flusher: what is on disk, since when, in which file, and what is said when the disk does not take it."""

import os
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.clock import unix_ns
from appliance.ring.layout import JOURNAL_HEADER, PAYLOAD_MAX, RecordType
from appliance.ring.reader import Lapped, Record, RingReader, SegmentReader
from appliance.ring.store import ChunkStore
from tests.mounts import Mounts
from tests.ring.sequenced import BLOCK, Place, append, append_until_full, options, payload_of, sequences
from tests.streams import until


def await_flush(store: ChunkStore) -> None:
    assert store.flusher is not None
    store.flusher.wake()
    until(lambda: store.writer.flushed == store.writer.committed, "the flush")


def rotate(store: ChunkStore) -> int:
    """Let the next record begin a segment; its sequence."""
    until(lambda: not store.flusher.turning if store.flusher else True, "the turn before")
    store.turn(store.writer.begin_block())
    return store.writer.committed_sequence + 1


def test_all_that_is_flushed_is_the_ring_s_stream_byte_for_byte(tmp_path: Path) -> None:
    place = Place(tmp_path)
    store = place.open(options(capacity_blocks=64))
    store.start()
    for round_ in range(6):
        append(store, 700)
        if round_ % 2:
            rotate(store)
    append(store, 1)
    await_flush(store)
    ring = RingReader(place.meta_path)
    files = [SegmentReader(path) for path in place.segments]
    begins = [file.first_position for file in files]
    assert len(files) == 4
    for file, end in zip(files, [*begins[1:], ring.committed], strict=True):
        for position in range(file.first_position, end, BLOCK):
            size = min(BLOCK, end - position)
            assert file.raw(position, size) == ring.raw(position, size)
    for file in files:
        file.close()
    ring.close()
    assert store.drain(10)
    assert place.journaled() == list(range(1, 4202))


def test_a_turn_begins_a_segment_at_that_block_and_cuts_the_one_before(tmp_path: Path) -> None:
    place = Place(tmp_path)
    before_ns = unix_ns()
    store = place.open(options(capacity_blocks=16, segment_bytes=4 << 20))
    store.start()
    append(store, 100)
    first = rotate(store)
    append(store, 50)
    await_flush(store)
    old, new = place.segments
    assert [path.name for path in (old, new)] == ["binance_trade_chunk0.1.journal", f"binance_trade_chunk0.{first}.journal"]
    position = store.writer.position
    reader = SegmentReader(new)
    assert (reader.first_sequence, reader.first_position, reader.epoch, reader.chunk, reader.exchange) == (101, BLOCK, 1, 0, "binance")
    ring = RingReader(place.meta_path)
    assert (reader.ring_id, reader.host) == (ring.ring_id, os.uname().nodename)
    head = new.read_bytes()[:JOURNAL_HEADER]
    (created_ns,) = struct.unpack_from("<q", head, 64)
    assert before_ns < created_ns < unix_ns()
    assert not any(head[172:])
    reader.close()
    assert old.stat().st_size == JOURNAL_HEADER + BLOCK
    assert new.stat().st_size == JOURNAL_HEADER + (4 << 20), "room is made ahead"
    assert store.drain(10)
    assert new.stat().st_size == JOURNAL_HEADER + position - BLOCK, "cut to its length when it ends"
    assert ring.counters()["segments"] == 2
    ring.close()


def test_a_turn_at_a_block_that_is_flushed_already_begins_an_empty_segment(tmp_path: Path) -> None:
    """The turn comes exactly at `flushed` and `committed`: the next record is still to come."""
    place = Place(tmp_path)
    store = place.open()
    store.start()
    append(store, 1, size=PAYLOAD_MAX)
    await_flush(store)
    assert store.writer.flushed == store.writer.committed == BLOCK
    rotate(store)
    assert store.flusher is not None
    store.flusher.wake()
    until(lambda: len(place.segments) == 2, "the segment")
    append(store, 3)
    assert store.drain(10)
    assert [path.name.split(".")[1] for path in place.segments] == ["1", "2"]
    assert place.journaled() == [1, 2, 3, 4]


def test_every_flush_leaves_a_mark_that_dates_its_records(tmp_path: Path) -> None:
    place = Place(tmp_path)
    store = place.open(options(capacity_blocks=16))
    store.start()
    ring = RingReader(place.meta_path)
    assert ring.persist_ns(8) is None
    times = []
    for _ in range(5):
        append(store, 20)
        before_ns = unix_ns()
        await_flush(store)
        times.append((before_ns, store.writer.committed, unix_ns()))
    for before_ns, position, after_ns in times:
        found_ns = ring.persist_ns(position)
        assert found_ns is not None
        assert found_ns <= after_ns
        later = ring.persist_ns(position - 1)
        assert later is not None
        assert later <= found_ns
        if (position, before_ns) != (times[0][1], times[0][0]):
            assert found_ns > times[0][0]
    append(store, 1)
    assert ring.persist_ns(store.writer.committed + 8) is None
    assert store.drain(10)
    ring.close()


def test_marks_older_than_the_last_4096_are_unknown_not_wrong(tmp_path: Path) -> None:
    place = Place(tmp_path)
    store = place.open(options(capacity_blocks=64, sync_writes=True))
    store.start()
    ring = RingReader(place.meta_path)
    append(store, 1)
    first = store.writer.committed
    until(lambda: ring.persist_ns(first) is not None, "the first mark")
    assert store.drain(10)
    # The marks of 4,096 later flushes, as a flusher leaves them.
    with place.meta_path.open("r+b") as meta:
        meta.seek(32768)
        meta.write(b"".join(struct.pack("<Qq", first + 8 * (i + 1), 1000 + i) for i in range(4096)))
        meta.seek(28672)
        meta.write(struct.pack("<Q", 2 * 4096))
    assert ring.persist_ns(first) is None
    assert ring.persist_ns(first + 8) is None, "the oldest mark is being overwritten"
    assert ring.persist_ns(first + 8 * 3) == 1002
    assert ring.persist_ns(first + 8 * 4096) == 1000 + 4095
    assert ring.persist_ns(first + 8 * 4097) is None
    ring.close()


def test_what_an_earlier_ring_had_on_disk_is_not_dated_by_the_first_flush_of_this_one(tmp_path: Path) -> None:
    """After a reboot the marks begin anew; records of before are older than all of them."""
    place = Place(tmp_path)
    store = place.open()
    store.start()
    append(store, 10)
    end = store.writer.committed
    assert store.drain(10)
    del store
    place.reboot()
    store = place.open()
    store.start()
    append(store, 10)
    await_flush(store)
    ring = RingReader(place.meta_path)
    assert ring.persist_ns(end) is None
    assert ring.persist_ns(store.writer.committed) is not None
    ring.close()
    assert store.drain(10)


def test_the_interval_bounds_the_wait_and_sync_writes_does_not_wait(tmp_path: Path) -> None:
    """An hour's interval: only `wake`, an eighth of the ring, `sync_writes` or the end make it flush."""
    hour_ms = 3_600_000
    for name, sync_writes in (("interval", False), ("sync", True)):
        root = tmp_path / name
        root.mkdir()
        place = Place(root)
        store = place.open(options(capacity_blocks=16, flush_interval_ms=hour_ms, sync_writes=sync_writes))
        append(store, 5)
        store.start()  # what is committed before is taken at once
        until(lambda store=store: store.writer.flushed == store.writer.committed, "the first flush")  # type: ignore[misc]
        append(store, 5)
        if sync_writes:
            until(lambda store=store: store.writer.flushed == store.writer.committed, "the group commit")  # type: ignore[misc]
        else:
            unflushed = store.writer.unflushed_bytes
            assert unflushed > 0
            append(store, 5)
            assert store.writer.unflushed_bytes > unflushed
            before = store.writer.committed
            append(store, 16 * BLOCK // 8 // 500, size=500)
            until(lambda store=store, before=before: store.writer.flushed > before, "the flush of an eighth of the ring")  # type: ignore[misc]
            append(store, 5)
            await_flush(store)
            append(store, 5)
        assert store.drain(10)
        assert place.journaled() == list(range(1, store.writer.committed_sequence + 1))


def test_draining_leaves_whole_files_and_no_thread_or_descriptor(tmp_path: Path, open_files: Callable[[], set[str]]) -> None:
    place = Place(tmp_path)
    before = open_files()
    for _ in range(3):
        store = place.open()
        store.start()
        append(store, 500)
        assert store.drain(10)
        del store
    assert open_files() == before
    assert [path.name for path in place.journal_dir.iterdir() if path.suffix != ".journal"] == []
    assert place.journaled() == list(range(1, 1501))


def test_mode_safe_overwrites_nothing_that_is_not_on_disk(tmp_path: Path) -> None:
    """Filled to the last byte, with `flushed` in the midst of a block, and taken over by another writer: nothing is lost.

    A segment begins at a block, so the block that `flushed` lies in must stay whole; and a new writer pads the block
    that it finds begun.
    """
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for blocks in (2, 4):
        root = tmp_path / str(blocks)
        root.mkdir()
        place = Place(root)
        for _ in range(12):
            store = place.open(options(capacity_blocks=blocks))
            store.start()
            append(store, chance.randrange(1, 900), size=chance.choice([None, 0, 100, 5000]))
            assert store.drain(10)
            del store
            for _ in range(2):
                store = place.open(options(capacity_blocks=blocks))  # a writer whose flusher never comes
                append_until_full(store, chance.choice([None, 0, 100, 5000, 40000]))
                del store
        store = place.open(options(capacity_blocks=blocks))
        store.start()
        append(store, 1)
        assert store.drain(10)
        assert store.flusher is not None
        assert store.flusher.take_hole() is None
        assert place.journaled() == list(range(1, store.writer.committed_sequence + 1))


@pytest.mark.parametrize("blocks", [2, 4])
def test_the_largest_records_pass_through_the_smallest_ring(tmp_path: Path, blocks: int) -> None:
    """Mode safe must find room for padding and the largest record whatever `flushed` is; else it waits for ever."""
    place = Place(tmp_path)
    store = place.open(options(capacity_blocks=blocks))
    store.start()
    for size in (PAYLOAD_MAX, 0, PAYLOAD_MAX, 40000, 40000, 1, PAYLOAD_MAX - 8, PAYLOAD_MAX):
        append(store, 1, size)
    rotate(store)
    append(store, 1, PAYLOAD_MAX)
    assert store.drain(10)
    assert place.journaled() == list(range(1, 10))


def fill(directory: Path) -> Path:
    """A file that takes what room is left."""
    ballast = directory / "ballast"
    fd = os.open(ballast, os.O_CREAT | os.O_WRONLY)
    try:
        for size in (1 << 20, 1 << 16, 1 << 12):
            try:
                while True:
                    assert os.write(fd, bytes(size)) == size
            except (OSError, AssertionError):
                continue
    finally:
        os.close(fd)
    return ballast


class SmallDisk:
    """A chunk whose journal lies on a disk of 4 MiB."""

    def __init__(self, root: Path, mounts: Mounts) -> None:
        self.place = Place(root)
        mounts.tmpfs(self.place.journal_dir, 4 << 20)
        self.store = self.place.open(options(capacity_blocks=4, segment_bytes=BLOCK))
        self.store.start()

    def fail(self) -> Path:
        """Fill the disk and write until it is felt; what takes the room."""
        flusher = self.store.flusher
        assert flusher is not None
        ballast = fill(self.place.journal_dir)
        deadline = time.monotonic() + 20
        while not flusher.failing:
            assert time.monotonic() < deadline
            self.append_if_room()
            flusher.wake()
        return ballast

    def append_if_room(self) -> None:
        try:
            self.store.writer.append(RecordType.TRADE, payload_of(self.store.writer.committed_sequence + 1))
        except BlockingIOError:
            time.sleep(0.001)

    def recover(self, ballast: Path) -> None:
        ballast.unlink()
        await_flush(self.store)


def test_a_full_disk_in_mode_safe_loses_nothing_once_there_is_room_again(tmp_path: Path, mounts: Mounts) -> None:
    disk = SmallDisk(tmp_path, mounts)
    append(disk.store, 300)
    await_flush(disk.store)
    ballast = disk.fail()
    last = append_until_full(disk.store)
    assert disk.store.flusher is not None
    assert disk.store.flusher.error_text == os.strerror(28)
    disk.recover(ballast)
    append(disk.store, 100)
    assert disk.store.drain(10)
    assert disk.store.flusher.take_hole() is None
    assert disk.place.journaled() == list(range(1, last + 101))


def test_after_an_error_nothing_behind_flushed_is_trusted(tmp_path: Path, mounts: Mounts) -> None:
    """T24: fdatasync that is called again after an error reports success. The segment ends at `flushed` and is never touched again."""
    disk = SmallDisk(tmp_path, mounts)
    append(disk.store, 300)
    await_flush(disk.store)
    ballast = disk.fail()
    append_until_full(disk.store)
    ring = RingReader(disk.place.meta_path)
    flushed, flushed_sequence = ring.flushed, ring.flushed_sequence
    assert flushed < ring.committed
    assert sequences(item for item in disk.place.journal() if isinstance(item, Record)) == list(range(1, flushed_sequence + 1))
    ended = disk.place.segments[-1]
    reader = SegmentReader(ended)
    assert ended.stat().st_size == JOURNAL_HEADER + flushed - reader.first_position
    content = ended.read_bytes()
    disk.recover(ballast)
    assert ring.counters()["flush_errors"] > 0
    begins = flushed // BLOCK * BLOCK
    if reader.first_position < begins:
        assert ended.read_bytes() == content
    assert begins in {SegmentReader(path).first_position for path in disk.place.segments}, "the next one begins with the block of `flushed`"
    assert disk.store.drain(10)
    reader.close()
    ring.close()


def test_in_mode_lossy_the_ring_goes_on_and_the_hole_is_reported_exactly(tmp_path: Path, mounts: Mounts) -> None:
    disk = SmallDisk(tmp_path, mounts)
    store = disk.store
    assert store.flusher is not None
    append(store, 300)
    await_flush(store)
    ballast = disk.fail()
    store.writer.lossy = True
    append(store, 3000)
    ring = RingReader(disk.place.meta_path)
    assert ring.mode == "lossy"
    disk.recover(ballast)
    hole = store.flusher.take_hole()
    assert hole is not None
    assert store.flusher.take_hole() is None
    store.writer.lossy = False
    append(store, 100)
    assert store.drain(10)
    lapped = [item for item in disk.place.journal() if isinstance(item, Lapped)]
    assert [(item.from_sequence, item.to_sequence, "No space left on device") for item in lapped] == [hole]
    kept = sequences(item for item in disk.place.journal() if not isinstance(item, Lapped))
    assert kept == [*range(1, hole[0]), *range(hole[1] + 1, store.writer.committed_sequence + 1)]
    assert ring.flushed_sequence == store.writer.committed_sequence
    ring.close()


def test_a_second_hole_before_the_first_is_taken_is_reported_as_well(tmp_path: Path, mounts: Mounts) -> None:
    disk = SmallDisk(tmp_path, mounts)
    store = disk.store
    assert store.flusher is not None
    for _ in range(2):
        append(store, 200)
        await_flush(store)
        ballast = disk.fail()
        store.writer.lossy = True
        append(store, 3000)
        disk.recover(ballast)
        store.writer.lossy = False
    assert store.drain(10)
    holes = []
    while (hole := store.flusher.take_hole()) is not None:
        holes.append(hole[:2])
    assert len(holes) >= 2
    assert holes == [(item.from_sequence, item.to_sequence) for item in disk.place.journal() if isinstance(item, Lapped)]


def test_a_stop_makes_a_last_try_although_the_pause_after_an_error_is_not_over(tmp_path: Path, mounts: Mounts) -> None:
    disk = SmallDisk(tmp_path, mounts)
    append(disk.store, 300)
    ballast = disk.fail()
    ballast.unlink()
    assert disk.store.drain(10)
    assert disk.place.journaled() == list(range(1, disk.store.writer.committed_sequence + 1))


def test_a_stop_with_a_full_disk_says_so_and_keeps_the_ring(tmp_path: Path, mounts: Mounts) -> None:
    disk = SmallDisk(tmp_path, mounts)
    append(disk.store, 300)
    ballast = disk.fail()
    last = append_until_full(disk.store)
    assert not disk.store.drain(10)
    del disk.store
    ballast.unlink()
    store = disk.place.open(options(capacity_blocks=4, segment_bytes=BLOCK))
    store.start()
    append(store, 1)
    assert store.drain(10)
    assert disk.place.journaled() == list(range(1, last + 2))


def test_a_segment_that_is_deleted_while_it_is_written_is_noticed_and_followed_by_another(tmp_path: Path) -> None:
    place = Place(tmp_path)
    store = place.open()
    store.start()
    append(store, 1000)
    await_flush(store)
    (segment,) = place.segments
    segment.unlink()
    assert store.flusher is not None
    append(store, 1)
    until(lambda: store.flusher is not None and store.flusher.failing, "the error")
    assert store.flusher.error_text == "No such file or directory"
    append(store, 10)
    assert store.drain(10)
    found = sequences(place.journal())
    assert found == list(range(found[0], 1012))
    assert found[0] <= 1001
