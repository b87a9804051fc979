"""A chunk's ring and journal over the deaths of its writers, reboots and damage."""

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.errors import CannotRun, NotARing
from appliance.ring.chunk import open_chunks
from appliance.ring.journal import JournalReader
from appliance.ring.layout import JOURNAL_HEADER, RECORD_HEADER, RecordType, crc32c, offsets
from appliance.ring.reader import Corrupt, Lapped, Record, RingReader, SegmentReader
from appliance.ring.store import ChunkStore
from tests.mounts import Mounts
from tests.ring.sequenced import BLOCK, EXCHANGE, Place, append, append_until_full, options, payload_of, poll_all, sequences
from tests.ring.test_processes import ROOT
from tests.streams import until

KILLS = 50


def flip(path: Path, offset: int) -> None:
    """Turn one bit of a file."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def kept(place: Place) -> list[int]:
    """Sequences of the good records of the journal."""
    return sequences(item for item in place.journal() if isinstance(item, Record))


def filled(place: Place, records: int) -> int:
    """A chunk that was written and ended in good order; its last sequence."""
    store = place.open()
    store.start()
    last = append(store, records)
    assert store.drain(10)
    return last


# Writers that die.


def test_whatever_was_committed_before_a_kill_9_is_there_exactly_once_afterwards(tmp_path: Path) -> None:
    """T3: a restart must not overwrite what is there. Fifty writers are killed at random moments, each takes over from the one before."""
    seed = int(os.environ.get("MDC_SEED", "0")) or random.randrange(1, 1 << 30)
    print(f"MDC_SEED={seed}")
    chance = random.Random(seed)
    place = Place(tmp_path)
    command = [sys.executable, "-m", "tests.ring.children", "breed", str(tmp_path)]
    breeder = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert breeder.stdin is not None
    assert breeder.stdout is not None
    committed = epoch = 0
    try:
        for _ in range(KILLS):
            breeder.stdin.write("\n")
            breeder.stdin.flush()
            pid = json.loads(breeder.stdout.readline())["pid"]
            moment = chance.choice([0, 1, 1, 2, 5, 20, 60, 100])  # reports to wait for; 0: at once, maybe before the ring is mapped
            said: list[dict[str, int]] = []
            with contextlib.suppress(ProcessLookupError):
                while len(said) < moment:
                    said.append(json.loads(breeder.stdout.readline()))
                os.kill(pid, signal.SIGKILL)
            while "dead" not in (report := json.loads(breeder.stdout.readline())):
                said.append(report)
            for report in said:
                if "epoch" in report:
                    assert report["last_sequence"] >= committed, "committed before the kill, unknown to the next writer"
                    assert report["epoch"] >= epoch
                    epoch = report["epoch"]
                else:
                    assert report["committed"] > committed
                    committed = report["committed"]
    finally:
        breeder.kill()
        breeder.communicate()
    assert committed > 1000
    assert epoch > KILLS // 2
    store = place.open()
    last = store.origin.last_sequence
    assert last >= committed
    assert place.everything() == list(range(1, last + 1))
    store.start()
    append(store, 1)
    assert store.drain(10)
    records = [item for item in place.journal() if isinstance(item, Record)]
    assert sequences(records) == list(range(1, last + 2))
    assert [record.epoch for record in records] == sorted(record.epoch for record in records)
    assert all(later.write_ns >= earlier.write_ns for earlier, later in itertools.pairwise(records))
    assert records[-1].epoch == store.origin.epoch + 1
    assert not list(place.journal_dir.glob(".*"))


def test_a_writer_that_ends_in_good_order_hands_over_sequence_and_epoch(tmp_path: Path) -> None:
    place = Place(tmp_path)
    assert filled(place, 100) == 100
    store = place.open()
    assert (store.origin.how, store.origin.last_sequence, store.origin.epoch) == ("ring", 100, 1)
    append(store, 1)
    ring = RingReader(place.meta_path)
    assert ring.epoch == 2
    assert ring.last_sequence == ring.committed_sequence == 101
    ring.close()


def test_a_full_ring_that_outlived_its_writer_is_written_out_without_a_hole(tmp_path: Path) -> None:
    """The writer dies when the disk is slow: nothing is flushed, `flushed` lies within a block, the next writer must not pad over it."""
    place = Place(tmp_path)
    filled(place, 77)
    for _ in range(3):
        store = place.open()
        last = append_until_full(store, size=40)
        del store
    store = place.open()
    assert store.origin.last_sequence == last
    store.start()
    append(store, 10)
    assert store.drain(10)
    assert place.journaled() == list(range(1, last + 11))


# The ring is gone.


def test_after_a_reboot_the_stream_goes_on_from_the_journal_at_the_next_block(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for boot in range(1, 5):
        store = place.open()
        assert store.origin.how == ("journal" if boot > 1 else "new")
        assert (store.origin.last_sequence, store.origin.epoch) == (400 * (boot - 1), boot - 1)
        assert store.writer.position % BLOCK == 0
        store.start()
        append(store, 400)
        ring = RingReader(place.meta_path)
        assert ring.first_sequence == 400 * (boot - 1) + 1
        ring.seek_sequence(1)
        assert sequences(poll_all(ring)) == list(range(ring.first_sequence, 400 * boot + 1))
        ring.close()
        assert store.drain(10)
        place.reboot()
    assert place.journaled() == list(range(1, 1601))


def test_what_was_before_this_ring_file_is_never_read_from_it(tmp_path: Path) -> None:
    """Its bytes before `first_position` were never written; the journal has what stood there."""
    place = Place(tmp_path)
    filled(place, 400)
    place.reboot()
    store = place.open()
    append(store, 10)
    ring = RingReader(place.meta_path)
    assert ring.oldest_position > 0
    assert ring.raw(ring.oldest_position - 64, 64) is None
    ring.seek_newest()
    assert ring.next_sequence == 411
    ring.close()


def test_a_reader_of_an_empty_ring_that_begins_late_in_the_stream_misses_nothing(tmp_path: Path) -> None:
    """first_position is not zero, nothing is committed, and then it is lapped before its first poll."""
    place = Place(tmp_path)
    filled(place, 400)
    place.reboot()
    store = place.open(journal=True)
    store.writer.lossy = True
    readers = []
    for seek in (RingReader.seek_oldest, RingReader.seek_newest, lambda ring: ring.seek_sequence(401), lambda ring: ring.seek_time(0)):
        ring = RingReader(place.meta_path)
        seek(ring)
        assert ring.poll() == []
        assert ring.last_sequence == 400
        readers.append(ring)
    append(store, 3000)
    for ring in readers:
        lapped, *rest = poll_all(ring)
        assert isinstance(lapped, Lapped)
        assert lapped.from_sequence == 401
        assert sequences(rest) == list(range(lapped.to_sequence + 1, 3401))
        ring.close()


def test_the_time_of_writing_never_falls_although_the_clock_was_set_back_over_a_reboot(tmp_path: Path) -> None:
    """T32: a clock that was an hour ahead. `write_ns` is what seeking and merging go by."""
    place = Place(tmp_path)
    filled(place, 10)
    (segment,) = place.segments
    last = [item for item in place.journal() if isinstance(item, Record)][-1]
    content = bytearray(segment.read_bytes())
    begin = JOURNAL_HEADER + last.position
    ahead_ns = last.write_ns + 3600 * 10**9
    struct.pack_into("<q", content, begin + 56, ahead_ns)
    record = bytes(content[begin : begin + RECORD_HEADER + len(last.payload)])
    struct.pack_into("<I", content, begin + 8, crc32c(record[:8] + record[12:]))
    segment.write_bytes(content)
    place.reboot()
    store = place.open()
    store.start()
    append(store, 1)
    assert store.drain(10)
    records = [item for item in place.journal() if isinstance(item, Record)]
    assert [record.write_ns for record in records[-2:]] == [ahead_ns, ahead_ns]


# The journal is gone.


def test_a_journal_that_was_emptied_is_written_again_from_the_ring(tmp_path: Path) -> None:
    place = Place(tmp_path)
    filled(place, 3000)
    for path in place.segments:
        path.unlink()
    ring = RingReader(place.meta_path)
    held = sequences(poll_all(ring))
    ring.close()
    store = place.open()
    assert (store.origin.how, store.origin.last_sequence) == ("ring", 3000)
    store.start()
    append(store, 5)
    assert store.drain(10)
    assert store.flusher is not None
    assert store.flusher.take_hole() is None
    assert place.journaled() == list(range(held[0], 3006))


def test_a_ring_that_had_no_journal_gets_one(tmp_path: Path) -> None:
    place = Place(tmp_path)
    store = place.open(journal=False)
    append(store, 100)
    del store
    store = place.open()
    store.start()
    ring = RingReader(place.meta_path)
    assert ring.journal_dir == place.journal_dir
    ring.close()
    append(store, 100)
    assert store.drain(10)
    assert place.journaled() == list(range(1, 201))


def test_a_journal_that_lost_its_tail_gets_it_again_from_the_ring(tmp_path: Path) -> None:
    """The disk came back from a copy: `flushed` in the ring says more than the journal holds. The times on disk start anew."""
    place = Place(tmp_path)
    filled(place, 300)
    (segment,) = place.segments
    os.truncate(segment, JOURNAL_HEADER + 10_000)
    kept = len(place.journaled())
    assert 0 < kept < 299
    store = place.open()
    assert store.origin.last_sequence == 300
    store.start()
    append(store, 10)
    assert store.drain(10)
    assert place.journaled() == list(range(1, 311))


# Shape and identity.


@pytest.mark.parametrize("blocks", [2, 16])
def test_another_capacity_keeps_what_was_not_flushed(tmp_path: Path, blocks: int) -> None:
    place = Place(tmp_path)
    filled(place, 100)
    store = place.open()  # its flusher never comes
    last = append_until_full(store)
    old = RingReader(place.meta_path)
    assert old.flushed < old.committed
    del store
    store = place.open(options(capacity_blocks=blocks))
    assert old.replaced
    assert (store.origin.how, store.origin.last_sequence, store.origin.epoch) == ("journal", last, 2)
    old.close()
    store.start()
    append(store, 100)
    assert place.data_path.stat().st_size == blocks * BLOCK
    assert store.drain(10)
    assert place.journaled() == list(range(1, last + 101))


def test_ring_and_journal_of_different_identity_are_refused_and_left_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    place, other = Place(tmp_path / "a"), Place(tmp_path / "b")
    store = place.open()
    append(store, 100)
    del store
    filled(other, 100)
    before = {path.name: path.read_bytes() for path in other.segments}
    for blocks in (4, 8):
        with pytest.raises(CannotRun, match="belong to different rings") as refused:
            ChunkStore.open(place.ring_dir, other.journal_dir, EXCHANGE, 0, options(capacity_blocks=blocks))
        assert refused.value.exit_code == 3
        assert {path.name: path.read_bytes() for path in other.segments} == before
    store = place.open()
    store.start()
    assert store.drain(10)
    assert place.journaled() == list(range(1, 101))


# Damage to the ring.


def overwrite(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def cut_to_three_blocks(place: Place) -> None:
    os.truncate(place.data_path, 3 * BLOCK)
    overwrite(place.meta_path, offsets()["capacity"], struct.pack("<Q", 3 * BLOCK))


def spoil_text_and_data(place: Place) -> None:
    overwrite(place.meta_path, 64, b"\xff" * 32)
    overwrite(place.data_path, 0, bytes(4 * BLOCK))


def set_committed(place: Place, position: int) -> None:
    overwrite(place.meta_path, offsets()["committed"], struct.pack("<Q", position))


DAMAGE: dict[str, Callable[[Place], object]] = {
    "data cut": lambda place: place.data_path.write_bytes(place.data_path.read_bytes()[:1000]),
    "data empty": lambda place: place.data_path.write_bytes(b""),
    "data missing": lambda place: place.data_path.rename(place.data_path.with_suffix(".gone")),
    "data all zero": lambda place: place.data_path.write_bytes(bytes(4 * BLOCK)),
    "data garbage": lambda place: place.data_path.write_bytes(random.Random(1).randbytes(4 * BLOCK)),
    "meta cut": lambda place: place.meta_path.write_bytes(place.meta_path.read_bytes()[:5000]),
    "meta empty": lambda place: place.meta_path.write_bytes(b""),
    "meta garbage": lambda place: place.meta_path.write_bytes(random.Random(2).randbytes(98304)),
    "meta garbage behind its magic": lambda place: place.meta_path.write_bytes(place.meta_path.read_bytes()[:12] + bytes(range(256)) * 384),
    "another format": lambda place: place.meta_path.write_bytes(place.meta_path.read_bytes().replace(b"\1", b"\x09", 1)),
    "exchange is no text": spoil_text_and_data,
    "committed far ahead": lambda place: set_committed(place, 1 << 40),
    "committed at the end of numbers": lambda place: set_committed(place, (1 << 64) - 1),
    "committed within a record": lambda place: set_committed(place, 24),
    "capacity that is no power of two": cut_to_three_blocks,
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_ring_that_is_no_ring_any_more_is_replaced_and_the_journal_goes_on(tmp_path: Path, case: str) -> None:
    place = Place(tmp_path)
    filled(place, 300)
    DAMAGE[case](place)
    store = place.open()
    assert (store.origin.how, store.origin.last_sequence) == ("journal", 300)
    store.start()
    append(store, 100)
    assert store.drain(10)
    assert place.journaled() == list(range(1, 401))


@pytest.mark.parametrize("case", [case for case in DAMAGE if case.startswith(("meta", "data"))])
def test_a_reader_of_a_damaged_ring_is_told(tmp_path: Path, case: str) -> None:
    place = Place(tmp_path)
    filled(place, 300)
    DAMAGE[case](place)
    try:
        reader = RingReader(place.meta_path)
    except (NotARing, FileNotFoundError):
        return
    assert all(isinstance(item, Corrupt) for item in poll_all(reader))
    reader.close()


# Damage to the journal.


def test_a_tail_torn_at_any_byte_of_the_last_record_is_an_open_end(tmp_path: Path, memory: Path) -> None:
    """A power cut in the midst of a write. All records before stay, the next start goes on behind them; in a copy it is no damage."""
    origin = Place(tmp_path)
    filled(origin, 20)
    (segment,) = origin.segments
    last = [item for item in origin.journal() if isinstance(item, Record)][-1]
    content = segment.read_bytes()
    begin = JOURNAL_HEADER + last.position
    end = begin + RECORD_HEADER + len(last.payload)
    assert end == len(content) or not any(content[end:])
    for cut in range(begin, end + 1):
        root = memory / "cut"
        root.mkdir()
        place = Place(root)
        whole = 20 if cut == end else 19
        for rest in (b"", bytes(1000)) if cut % 7 == 0 else (b"",):  # room made ahead, as the file system leaves it
            (place.journal_dir / segment.name).write_bytes(content[:cut] + rest)
            assert place.journaled() == list(range(1, whole + 1))
        store = place.open()
        assert (store.origin.how, store.origin.last_sequence) == ("journal", whole)
        del store
        assert place.segments[0].stat().st_size in (begin, (end + 7) // 8 * 8, end)
        shutil.rmtree(root)


def test_a_flipped_byte_in_a_closed_segment_costs_one_record_and_is_reported(tmp_path: Path) -> None:
    place = Place(tmp_path)
    store = place.open()
    store.start()
    append(store, 1500)
    store.turn(store.writer.begin_block())
    append(store, 100)
    assert store.drain(10)
    first, _ = place.segments
    records = {item.sequence: item for item in place.journal() if isinstance(item, Record)}
    flip(first, JOURNAL_HEADER + records[700].position + 70)
    items = place.journal()
    assert [(item.position, item.reason) for item in items if isinstance(item, Corrupt)] == [(records[700].position, "checksum")]
    assert sequences(item for item in items if isinstance(item, Record)) == sorted(set(records) - {700})


@pytest.mark.parametrize("which", ["early", "last_block", "last_record"])
def test_damage_in_the_newest_segment_costs_a_start_no_record_but_the_damaged_one(tmp_path: Path, which: str) -> None:
    place = Place(tmp_path)
    last = filled(place, 1500)
    (segment,) = place.segments
    records = {item.sequence: item for item in place.journal() if isinstance(item, Record)}
    victim = {"early": 20, "last_block": last - 3, "last_record": last}[which]
    flip(segment, JOURNAL_HEADER + records[victim].position + 70)
    assert [item.position for item in place.journal() if isinstance(item, Corrupt)] == [records[victim].position]
    place.reboot()
    store = place.open()
    assert store.origin.last_sequence == (last - 1 if victim == last else last)
    assert (store.origin.cut_bytes > 0) == (victim == last)
    store.start()
    append(store, 5)
    assert store.drain(10)
    assert kept(place) == [n for n in range(1, store.writer.committed_sequence + 1) if n != victim or victim == last]


@pytest.mark.parametrize("back", [3, 400])
def test_a_ring_that_is_still_there_mends_the_end_of_its_journal(tmp_path: Path, back: int) -> None:
    place = Place(tmp_path)
    last = filled(place, 1500)
    (segment,) = place.segments
    records = {item.sequence: item for item in place.journal() if isinstance(item, Record)}
    for victim in (last - 1, last - back):
        flip(segment, JOURNAL_HEADER + records[victim].position + 70)
    store = place.open()
    assert (store.origin.how, store.origin.last_sequence) == ("ring", last)
    store.start()
    append(store, 5)
    assert store.drain(10)
    whole = set(range(1, last + 6))
    same_block = records[last - back].position // BLOCK == records[last - 1].position // BLOCK
    assert kept(place) == sorted(whole if same_block else whole - {last - back})


def test_pages_that_a_power_cut_left_unwritten_never_stop_a_start(tmp_path: Path, memory: Path) -> None:
    """The disk may take the pages of a write in any order: a cut leaves some of them, over several blocks."""
    seed = int(os.environ.get("MDC_SEED", "0")) or random.randrange(1, 1 << 30)
    print(f"MDC_SEED={seed}")
    chance = random.Random(seed)
    origin = Place(tmp_path)
    filled(origin, 1500)
    (segment,) = origin.segments
    content = segment.read_bytes()
    records = [item for item in origin.journal() if isinstance(item, Record)]
    for _ in range(20):
        flushed = chance.randrange(200, 1300)  # the last record whose fdatasync returned
        begin = JOURNAL_HEADER + records[flushed].position
        torn = bytearray(content)
        for page in range(begin // 4096 + 1, len(content) // 4096 + 1):
            if chance.random() < 0.5:
                torn[page * 4096 : (page + 1) * 4096] = bytes(4096)
        root = memory / "cut"
        root.mkdir()
        place = Place(root)
        (place.journal_dir / segment.name).write_bytes(torn[: len(content)])
        left = kept(place)
        assert left[:flushed] == list(range(1, flushed + 1))
        store = place.open()
        assert store.origin.last_sequence == left[-1]
        store.start()
        append(store, 10)
        assert store.drain(10)
        assert kept(place) == [*left, *range(left[-1] + 1, left[-1] + 11)]
        del store
        shutil.rmtree(root)


def test_a_renamed_segment_is_told_by_its_name(tmp_path: Path) -> None:
    place = Place(tmp_path)
    filled(place, 100)
    (segment,) = place.segments
    renamed = segment.rename(segment.with_name("binance_trade_chunk0.77.journal"))
    with pytest.raises(NotARing, match=f"{renamed}.*sequence 1, not 77.*rename it back"):
        place.journal()
    place.reboot()
    with pytest.raises(NotARing, match="rename it back"):
        place.open()


@pytest.mark.parametrize("field", ["committed", "flushed", "claimed", "first_position"])
@pytest.mark.parametrize("value", [0, 1 << 48, (1 << 64) - 1])
def test_damaged_cursors_are_no_ring_and_a_start_goes_on_from_the_journal(tmp_path: Path, field: str, value: int) -> None:
    place = Place(tmp_path)
    last = filled(place, 300)
    offset = {"claimed": 4096, "committed": 4224, "flushed": 4352, "first_position": 176}[field]
    with place.meta_path.open("r+b") as meta:
        meta.seek(offset)
        before = struct.unpack("<Q", meta.read(8))[0]
        meta.seek(offset)
        meta.write(struct.pack("<Q", value))
    if value <= before and field in ("flushed", "first_position"):
        RingReader(place.meta_path).close()  # they may well be so
        return
    with pytest.raises(NotARing, match="cursors are damaged"):
        RingReader(place.meta_path)
    store = place.open()
    assert (store.origin.how, store.origin.last_sequence) == ("journal", last)


def test_marks_that_were_damaged_lead_no_reader_astray(tmp_path: Path) -> None:
    place = Place(tmp_path)
    filled(place, 300)
    with place.meta_path.open("r+b") as meta:
        meta.seek(offsets()["flush_marks_count"])
        meta.write(struct.pack("<Q", (1 << 64) - 1))
    ring = RingReader(place.meta_path)
    ring.persist_ns(ring.committed)
    ring.close()


def test_a_segment_that_got_its_name_and_no_record_is_taken_away(tmp_path: Path) -> None:
    place = Place(tmp_path)
    store = place.open()
    store.start()
    append(store, 300)
    store.turn(store.writer.begin_block())
    until(lambda: len(place.segments) == 2, "the segment")
    assert store.drain(10)
    place.reboot()
    store = place.open()
    assert store.origin.last_sequence == 300
    assert len(place.segments) == 1
    store.start()
    append(store, 10)
    assert store.drain(10)
    assert place.journaled() == list(range(1, 311))


def test_a_header_that_was_damaged_is_refused_by_name(tmp_path: Path) -> None:
    place = Place(tmp_path)
    filled(place, 10)
    (segment,) = place.segments
    content = bytearray(segment.read_bytes())
    content[50] ^= 1
    segment.write_bytes(content)
    with pytest.raises(NotARing, match=f"{segment}: the header's checksum does not match"):
        SegmentReader(segment)


# Directories that do not allow it.


def test_a_ring_directory_that_is_too_small_is_said_with_the_size_and_left_empty(
    tmp_path: Path, mounts: Mounts, open_files: Callable[[], set[str]]
) -> None:
    place = Place(tmp_path)
    before = open_files()
    for size in (BLOCK, 4 * BLOCK, 4 * BLOCK + 8192):  # no room for the data; for nothing else; for half of .meta
        mounts.tmpfs(place.ring_dir, size)
        with pytest.raises(CannotRun, match="No space left on device; the ring needs 0 MiB") as refused:
            place.open()
        assert refused.value.exit_code == 3
        assert list(place.ring_dir.iterdir()) == []
        mounts.unmount_all()
    assert open_files() == before


def test_a_ring_that_does_not_fit_in_its_new_size_stays_as_it_was(tmp_path: Path, mounts: Mounts) -> None:
    place = Place(tmp_path)
    mounts.tmpfs(place.ring_dir, 8 * BLOCK)
    filled(place, 100)
    reader = RingReader(place.meta_path)
    with pytest.raises(CannotRun, match="No space left"):
        place.open(options(capacity_blocks=16))
    assert not reader.replaced
    reader.close()
    store = place.open()
    assert (store.origin.how, store.origin.last_sequence) == ("ring", 100)


@pytest.mark.parametrize("role", ["ring", "journal"])
def test_a_read_only_directory_cannot_run(tmp_path: Path, mounts: Mounts, role: str) -> None:
    place = Place(tmp_path)
    fixed = mounts.tmpfs(place.ring_dir if role == "ring" else place.journal_dir, 1 << 20)
    filled(place, 10)
    mounts.make_read_only(fixed)
    with pytest.raises(CannotRun, match="Read-only file system"):
        place.open()


def test_a_ring_on_a_disk_works_as_well(tmp_path: Path) -> None:
    """Slower, hence a warning elsewhere; never an error."""
    if shutil.disk_usage(tmp_path).total == shutil.disk_usage("/dev/shm").total:
        pytest.skip("the temporary directory is a tmpfs itself")
    place = Place(tmp_path)
    assert filled(place, 2000) == 2000
    assert place.journaled() == list(range(1, 2001))


def test_retired_segments_leave_the_rest_readable(tmp_path: Path) -> None:
    place = Place(tmp_path)
    store = place.open()
    store.start()
    for _ in range(4):
        append(store, 200)
        store.turn(store.writer.begin_block())
        append(store, 1)
        assert store.flusher is not None
        store.flusher.wake()
        until(lambda: store.flusher is not None and not store.flusher.turning, "the turn")
    assert store.drain(10)
    place.segments[0].unlink()
    begin = int(place.segments[0].name.split(".")[1])
    assert place.journaled() == list(range(begin, 805))
    reader = JournalReader(place.journal_dir, EXCHANGE, 0)
    reader.seek_sequence(1)
    first = reader.poll(1)[0]
    assert isinstance(first, Record)
    assert first.sequence == begin
    assert first.type == RecordType.TRADE
    assert first.payload == payload_of(begin)
    reader.close()


def test_two_damages_side_by_side_do_not_hide_the_good_records_behind_them(tmp_path: Path) -> None:
    place = Place(tmp_path)
    last = filled(place, 400)
    (segment,) = place.segments
    records = [item for item in place.journal() if isinstance(item, Record)]
    first_of_last_block = next(item for item in records if item.position // BLOCK == records[-1].position // BLOCK)
    for victim in (records[first_of_last_block.sequence - 2], first_of_last_block):
        flip(segment, JOURNAL_HEADER + victim.position + 70)
    place.reboot()
    assert place.open().origin.last_sequence == last
    assert len(kept(place)) == last - 2


def test_until_the_first_flush_after_a_reboot_readers_go_from_the_journal_to_the_new_ring(tmp_path: Path) -> None:
    place = Place(tmp_path)
    filled(place, 30)
    place.reboot()
    store = place.open()  # nothing is flushed before it is started
    for sequence in range(31, 41):
        store.writer.append(RecordType.TRADE, payload_of(sequence))
    (reader,) = open_chunks(place.ring_dir)
    items: list[Record | Lapped | Corrupt] = []
    while found := reader.poll():
        items += found
    reader.close()
    assert sequences(items) == list(range(1, 41))


def test_a_replacement_that_was_killed_before_it_was_done_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path)
    filled(place, 10)

    def killed(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        with pytest.raises(SystemExit):
            place.open(options(capacity_blocks=8))
    store = place.open()
    ring = RingReader(place.meta_path)
    assert (store.origin.how, ring.replaced) == ("ring", False)
    assert sorted(path.name for path in place.ring_dir.iterdir()) == [place.data_path.name, place.meta_path.name]
    ring.close()
