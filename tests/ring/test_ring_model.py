"""The ring against the obvious model: a list of all records, and where each of them lies in the stream."""

import shutil
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from appliance.clock import unix_ns
from appliance.ring.layout import PAYLOAD_MAX, RECORD_HEADER, RecordType, offsets
from appliance.ring.reader import Corrupt, Lapped, Record, RingReader
from tests.ring.sequenced import BLOCK, Place, append, options, payload_of, poll_all

# What is left of the block behind a record is what goes wrong, so payloads are chosen by it as well as by size.
SIZES = st.one_of(
    st.integers(0, 300).map(lambda size: ("size", size)),
    st.sampled_from([0, 1, 7, 8, 1000, 30000, PAYLOAD_MAX - 8, PAYLOAD_MAX - 1, PAYLOAD_MAX]).map(lambda size: ("size", size)),
    st.sampled_from([0, 1, 7, 8, 9, 56, 64, 72]).map(lambda left: ("leave", left)),
)
BATCHES = st.lists(st.tuples(SIZES, st.sampled_from([1, 2, 5, 100, 600])), min_size=1, max_size=8)
FOLLOWERS = st.integers(0, 2)


@dataclass
class Entry:
    position: int
    end: int
    epoch: int
    payload: bytes


class Follower:
    """A reader and the sequence that it must account for next."""

    def __init__(self, reader: RingReader, expected: int) -> None:
        self.reader = reader
        self.expected = expected


class RingAgainstModel(RuleBasedStateMachine):
    """A reader gets every committed record once and in order, or is told exactly how many it lost."""

    @initialize(blocks=st.sampled_from([2, 2, 4, 16]))
    def open(self, blocks: int) -> None:
        self.root = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.place = Place(self.root)
        self.options = options(capacity_blocks=blocks)
        self.capacity = blocks * BLOCK
        self.store = self.place.open(self.options, journal=False)
        self.epoch = 1
        self.entries: list[Entry] = []  # entry i is record i + 1
        self.end = 0
        self.claimed = 0
        self.batches: list[tuple[int, int]] = []  # time before it, first sequence
        self.followers = [Follower(RingReader(self.place.meta_path), 1) for _ in range(3)]

    def teardown(self) -> None:
        if hasattr(self, "root"):
            for follower in self.followers:
                follower.reader.close()
            shutil.rmtree(self.root)

    # What the writer does.

    def place_of(self, payload_bytes: int) -> tuple[int, int]:
        stride = (RECORD_HEADER + payload_bytes + 7) // 8 * 8
        left = BLOCK - self.end % BLOCK
        position = self.end if stride <= left else self.end + left
        return position, position + stride

    @rule(batch=BATCHES)
    def commit(self, batch: list[tuple[tuple[str, int], int]]) -> None:
        self.batches.append((self.tick(), len(self.entries) + 1))
        for (kind, number), times in batch:
            for _ in range(times if kind == "size" and number <= 1000 else min(times, 3)):
                # "leave": what remains of this block is `number` bytes, or the next multiple of 8 below.
                size = number if kind == "size" else BLOCK - self.end % BLOCK - RECORD_HEADER - number
                self.append(size if 0 <= size <= PAYLOAD_MAX else number)
        assert self.store.writer.committed == self.end
        self.tick()

    def append(self, size: int) -> None:
        sequence = len(self.entries) + 1
        payload = payload_of(sequence, size)
        assert self.store.writer.append(RecordType.STATUS, payload) == sequence
        position, self.end = self.place_of(size)
        self.entries.append(Entry(position, self.end, self.epoch, payload))
        self.claimed = max(self.claimed, self.end)

    def tick(self) -> int:
        """A time behind all that was written and before all that will be."""
        before = unix_ns()
        while (now := unix_ns()) == before:
            pass
        return now

    @rule()
    def writer_restarts(self) -> None:
        del self.store
        self.store = self.place.open(self.options, journal=False)
        self.epoch += 1
        self.end = (self.end + BLOCK - 1) // BLOCK * BLOCK
        self.claimed = max(self.claimed, self.end)
        assert self.store.origin.how == ("ring" if self.epoch > 1 else "new")
        assert self.store.origin.last_sequence == self.store.writer.committed_sequence == len(self.entries)

    @rule(size=st.sampled_from([0, 100, 40000, PAYLOAD_MAX]), written=st.floats(0, 1))
    def writer_dies_in_the_midst_of_a_record(self, size: int, written: float) -> None:
        """`claimed` says so, some of the bytes are there, `committed` is as it was. Then another writer goes on."""
        del self.store
        position, end = self.place_of(size)
        self.claimed = max(self.claimed, end)
        with self.place.meta_path.open("r+b") as meta:
            meta.seek(offsets()["claimed"])
            meta.write(struct.pack("<Q", self.claimed))
        with self.place.data_path.open("r+b") as data:
            for at in range(self.end, position + int((end - position) * written) // 8 * 8, 8):
                data.seek(at % self.capacity)
                data.write(b"\xdb" * 8)
        witness = Follower(RingReader(self.place.meta_path), self.oldest)
        self.check(witness, poll_all(witness.reader))
        assert witness.expected == len(self.entries) + 1
        witness.reader.close()
        self.store = self.place.open(self.options, journal=False)
        self.epoch += 1
        self.end = (self.end + BLOCK - 1) // BLOCK * BLOCK
        self.claimed = max(self.claimed, self.end)

    # What readers do.

    @property
    def oldest(self) -> int:
        """Sequence of the first record that is in a block of which nothing has been claimed again; behind the last: none."""
        whole = max(0, (self.claimed - self.capacity + BLOCK - 1) // BLOCK * BLOCK)
        return next((i + 1 for i, entry in enumerate(self.entries) if entry.position >= whole), len(self.entries) + 1)

    @rule(
        number=FOLLOWERS,
        how=st.sampled_from(["opened", "oldest", "newest", "sequence", "time"]),
        where=st.floats(0, 1),
        beyond=st.sampled_from([0, 0, 1, 1000]),
    )
    def a_follower_goes_elsewhere(self, number: int, how: str, where: float, beyond: int) -> None:
        follower = self.followers[number]
        oldest, newest = self.oldest, len(self.entries)
        match how:
            case "opened":
                follower.reader.close()
                follower.reader = RingReader(self.place.meta_path)
                follower.expected = oldest
            case "oldest":
                follower.reader.seek_oldest()
                follower.expected = oldest
            case "newest":
                follower.reader.seek_newest()
                follower.expected = newest + 1
            case "sequence":
                wanted = int(where * (newest + 1)) + beyond
                follower.reader.seek_sequence(wanted)
                follower.expected = min(max(wanted, oldest), newest + 1)
            case "time" if self.batches:
                time_ns, first = self.batches[min(int(where * len(self.batches)), len(self.batches) - 1)]
                follower.reader.seek_time(time_ns)
                follower.expected = max(first, oldest)

    @rule(number=FOLLOWERS, limit=st.sampled_from([1, 2, 10, 500]))
    def a_follower_reads_a_little(self, number: int, limit: int) -> None:
        items = self.followers[number].reader.poll(limit)
        assert len(items) <= limit
        self.check(self.followers[number], items)

    @rule(number=FOLLOWERS)
    def a_follower_catches_up(self, number: int) -> None:
        self.check(self.followers[number], poll_all(self.followers[number].reader))
        assert self.followers[number].expected == len(self.entries) + 1

    def check(self, follower: Follower, items: list[Record | Lapped | Corrupt]) -> None:
        for item in items:
            if isinstance(item, Lapped):
                assert item.from_sequence == follower.expected
                assert item.records == item.to_sequence - item.from_sequence + 1 > 0
                # The cursor stood behind the record before: perhaps at padding, which may be overwritten before what follows it.
                cursor = self.entries[item.from_sequence - 2].end if item.from_sequence > 1 else 0
                assert cursor + self.capacity < self.claimed, "reported as lost, yet it is there"
                follower.expected += item.records
                continue
            assert isinstance(item, Record), item
            assert item.sequence == follower.expected
            entry = self.entries[item.sequence - 1]
            assert (item.position, item.epoch, item.type) == (entry.position, entry.epoch, RecordType.STATUS)
            assert item.payload == entry.payload
            follower.expected += 1

    @invariant()
    def the_cursors_are_true(self) -> None:
        if not hasattr(self, "store"):
            return
        assert self.store.writer.committed == self.end
        assert self.store.writer.committed_sequence == len(self.entries)


RingAgainstModel.TestCase.settings = settings(
    max_examples=80,
    stateful_step_count=40,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestRing = RingAgainstModel.TestCase


@pytest.mark.parametrize("left", [0, 8, 16, 56, 64])
def test_what_is_left_of_a_block_is_padding_of_at_least_a_word(tmp_path: Path, left: int) -> None:
    """A record may end exactly with its block; 8 bytes hold only the padding's own word; 64 hold a record without payload."""
    place = Place(tmp_path)
    store = place.open(journal=False)
    append(store, 1, size=PAYLOAD_MAX - left)
    assert store.writer.committed == BLOCK - left
    append(store, 1, size=1 if left == 64 else 0)
    reader = RingReader(place.meta_path)
    _first, second = reader.poll()
    assert isinstance(second, Record)
    assert second.position == BLOCK
    if left > 0:
        padding = reader.raw(BLOCK - left, left)
        assert padding is not None
        assert padding == struct.pack("<II", left, RecordType.PADDING) + bytes(left - 8)
    reader.close()


def test_a_record_without_payload_fits_into_the_last_64_bytes(tmp_path: Path) -> None:
    place = Place(tmp_path)
    store = place.open(journal=False)
    append(store, 1, size=PAYLOAD_MAX - 64)
    append(store, 1, size=0)
    assert store.writer.committed == BLOCK
    reader = RingReader(place.meta_path)
    assert [item.position for item in reader.poll() if isinstance(item, Record)] == [0, BLOCK - 64]
    reader.close()


def test_a_payload_beyond_the_maximum_is_refused(tmp_path: Path) -> None:
    store = Place(tmp_path).open(journal=False)
    with pytest.raises(ValueError, match="65472"):
        store.writer.append(RecordType.STATUS, bytes(PAYLOAD_MAX + 1))
    assert store.writer.append(RecordType.STATUS, bytes(PAYLOAD_MAX)) == 1
