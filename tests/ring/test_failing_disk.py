"""The flusher on a disk that fails on command, and the journal that is left: T24, and what a power cut takes."""

import random
from pathlib import Path

import pytest

from appliance.ring.reader import Lapped, Record, RingReader
from appliance.ring.store import ChunkStore
from tests.fuse_disk import EIO, ENOSPC, EROFS, FuseDisk
from tests.ring.sequenced import Place, append, append_until_full, options, sequences
from tests.ring.test_flusher import await_flush
from tests.streams import until


def opened(root: Path, blocks: int = 4) -> tuple[Place, ChunkStore]:
    place = Place(root)
    store = place.open(options(capacity_blocks=blocks))
    store.start()
    return place, store


def await_failure(store: ChunkStore) -> None:
    assert store.flusher is not None
    store.flusher.wake()
    until(lambda: store.flusher is not None and store.flusher.failing, "the failure")


@pytest.mark.parametrize("number", [EIO, ENOSPC, EROFS])
def test_a_segment_that_could_not_be_cut_when_it_failed_is_cut_before_the_next_one_begins(
    tmp_path: Path, fuse_disk: FuseDisk, number: int
) -> None:
    """A disk that takes no write takes no cut either; what stands behind `flushed` must not stand before the hole."""
    place, store = opened(tmp_path)
    append(store, 300)
    await_flush(store)
    fuse_disk.fail(write=number, make=number)
    append(store, 1)
    await_failure(store)
    store.writer.lossy = True
    append(store, 3000)
    fuse_disk.heal()
    await_flush(store)
    assert store.flusher is not None
    hole = store.flusher.take_hole()
    assert hole is not None
    store.writer.lossy = False
    append(store, 100)
    assert store.drain(10)
    items = place.journal()
    assert [(item.from_sequence, item.to_sequence) for item in items if isinstance(item, Lapped)] == [hole[:2]]
    kept = sequences(item for item in items if not isinstance(item, Lapped))
    assert kept == [*range(1, hole[0]), *range(hole[1] + 1, store.writer.committed_sequence + 1)]


@pytest.mark.parametrize("what", ["write", "sync"])
def test_what_was_said_to_be_on_disk_is_there_after_errors_and_a_power_cut(tmp_path: Path, fuse_disk: FuseDisk, what: str) -> None:
    """T24: after an error of fdatasync the next one reports success, and what it was called for is not on disk."""
    place, store = opened(tmp_path, blocks=16)
    for _ in range(5):
        append(store, 200)
        await_flush(store)
        fuse_disk.fail(1, **{what: EIO})
        append(store, 200)
        await_failure(store)
    assert store.flush(10)
    ring = RingReader(place.meta_path)
    flushed_sequence = ring.flushed_sequence
    ring.close()
    fuse_disk.cut_power()
    append_until_full(store)
    assert not store.drain(10)
    del store
    fuse_disk.restore_power()
    place.reboot()
    store = place.open()
    assert store.origin.last_sequence >= flushed_sequence == 2000
    store.start()
    append(store, 10)
    assert store.drain(10)
    assert place.journaled() == list(range(1, store.writer.committed_sequence + 1))


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_power_cut_takes_nothing_that_was_flushed(tmp_path: Path, fuse_disk: FuseDisk, kept: float) -> None:
    """Whatever part of the rest the disk had taken: sectors, lengths, names."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    place = Place(tmp_path)
    promised: set[int] = set()
    for _ in range(8):
        store = place.open(options(capacity_blocks=16, segment_bytes=1 << 18))
        assert store.origin.last_sequence >= max(promised, default=0)
        store.start()
        for _ in range(chance.randrange(1, 12)):
            append(store, chance.randrange(1, 300))
            if chance.random() < 0.5 and store.flusher is not None and not store.flusher.turning:
                store.turn(store.writer.begin_block())
            if chance.random() < 0.5:
                await_flush(store)
        fuse_disk.cut_power(chance.randrange(1 << 30), kept)
        ring = RingReader(place.meta_path)
        promised |= set(range(store.origin.last_sequence + 1, ring.flushed_sequence + 1))
        ring.close()
        store.drain(10)
        del store
        fuse_disk.restore_power()
        place.reboot()
    store = place.open()
    store.start()
    append(store, 10)
    assert store.drain(10)
    found = [item.sequence for item in place.journal() if isinstance(item, Record)]
    assert promised <= set(found)
    assert found == sorted(set(found))
