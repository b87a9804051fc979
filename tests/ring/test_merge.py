"""The merge of a directory's chunks, and the reader of one chunk beneath it: nothing lost, nothing twice, in order."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from appliance import ConfigError, Gap, Lapped, NotARing, Status, Trade, open_rings
from appliance.clock import unix_ns
from appliance.ring.chunk import open_chunks
from appliance.ring.layout import RecordType
from appliance.ring.merge import Merge, time_ns
from appliance.ring.reader import Record
from tests.streams import ROOMY, Chunk, until


def ids(values: Iterator[object]) -> list[int]:
    return [value.exchange_trade_id for value in values if isinstance(value, Trade)]


def test_a_ring_without_a_journal_is_read_to_its_end(tmp_path: Path) -> None:
    with Chunk(tmp_path, options=ROOMY, journal=False) as chunk:
        chunk.trades("BTCUSDT", 1, 3000)
        assert ids(open_rings(chunk.ring_dir)) == list(range(1, 3001))


def test_oldest_begins_in_the_journal_and_goes_on_in_the_ring(tmp_path: Path) -> None:
    with Chunk(tmp_path) as chunk:
        chunk.trades("BTCUSDT", 1, 3000)
        ring = open_chunks(chunk.ring_dir)[0].ring
        assert ring is not None
        first = ring.poll(1)[0]
        assert isinstance(first, Record)
        assert first.sequence > 1
        assert ids(open_rings(chunk.ring_dir)) == list(range(1, 3001))


def test_a_journal_directory_reads_the_same_without_any_ring(tmp_path: Path) -> None:
    with Chunk(tmp_path) as chunk:
        chunk.trades("BTCUSDT", 1, 1500)
        chunk.turn()
        chunk.trades("BTCUSDT", 1501, 3000)
        chunk.flush()
        assert ids(open_rings(chunk.journal_dir)) == list(range(1, 3001))
    assert ids(open_rings(chunk.journal_dir)) == list(range(1, 3001))


def test_a_lapped_reader_continues_from_the_journal_without_loss(tmp_path: Path) -> None:
    with Chunk(tmp_path) as chunk:
        chunk.trades("BTCUSDT", 1, 10)
        merge = Merge.open(chunk.ring_dir, "oldest", follow=True)
        seen: list[int] = []

        def drain() -> None:
            while items := merge.poll():
                seen.extend(item.sequence for _, item in items if isinstance(item, Record))

        drain()
        last = 10
        for lap in (200, 3000, 5, 9000):  # not lapped, lapped, not lapped, lapped many times
            chunk.trades("BTCUSDT", last + 1, last + lap)
            last += lap
            drain()
        assert seen == list(range(1, last + 1))
        merge.close()


def test_a_reader_lapped_again_while_it_reads_the_journal_loses_nothing(tmp_path: Path) -> None:
    with Chunk(tmp_path) as chunk:
        chunk.trades("BTCUSDT", 1, 10)
        reader = open_chunks(chunk.ring_dir)[0]
        seen: list[int] = []
        last = 10
        for _ in range(40):
            chunk.trades("BTCUSDT", last + 1, last + 400)
            last += 400
            seen += [item.sequence for item in reader.poll(350) if isinstance(item, Record)]
        while items := reader.poll(350):
            seen += [item.sequence for item in items if isinstance(item, Record)]
        assert seen == list(range(1, last + 1))
        reader.close()


def test_without_a_journal_a_lapped_reader_is_told_exactly_how_many_it_lost(tmp_path: Path) -> None:
    with Chunk(tmp_path, journal=False) as chunk:
        values = open_rings(chunk.ring_dir, follow=True)
        chunk.trades("BTCUSDT", 1, 10)
        seen = ids(itertools.islice(values, 10))
        chunk.trades("BTCUSDT", 11, 3000)
        lapped = next(values)
        assert isinstance(lapped, Lapped)
        following = next(values)
        assert isinstance(following, Trade)
        assert lapped.from_sequence == 11 == len(seen) + 1
        assert lapped.records == lapped.to_sequence - lapped.from_sequence + 1 == following.sequence - 11


def test_a_follower_moves_to_the_ring_that_took_the_name(tmp_path: Path) -> None:
    with Chunk(tmp_path) as chunk:
        chunk.trades("BTCUSDT", 1, 100)
        chunk.flush()
        merge = Merge.open(chunk.ring_dir, "oldest", follow=True)
        seen = [item for _, item in itertools.chain(merge.poll(), merge.poll())]
    with Chunk(tmp_path, options=ROOMY) as chunk:  # another capacity: a new file
        chunk.trades("BTCUSDT", 101, 200)
        while len(seen) < 200:
            found = merge.poll()
            assert found, f"only {len(seen)} of 200 came"
            seen += [item for _, item in found]
        assert [item.sequence for item in seen if isinstance(item, Record)] == list(range(1, 201))
    merge.close()


def test_chunks_merge_by_time_of_writing(tmp_path: Path) -> None:
    with Chunk(tmp_path, 0, ROOMY) as zero, Chunk(tmp_path, 1, ROOMY) as one, Chunk(tmp_path, 2, ROOMY) as two:
        for n in range(3000):
            (zero, one, two, one)[n * n % 4 if n % 7 else n % 3].trade("BTCUSDT", n)
        for directory in (zero.ring_dir, zero.journal_dir):
            for chunk in (zero, one, two):
                chunk.flush()
            values = [value for value in open_rings(directory) if isinstance(value, Trade)]
            assert [value.exchange_trade_id for value in values] == list(range(3000))
            assert {value.chunk for value in values} == {0, 1, 2}


def test_a_follower_of_two_live_rings_holds_back_what_the_other_may_still_precede(tmp_path: Path) -> None:
    with Chunk(tmp_path, 0, ROOMY) as zero, Chunk(tmp_path, 1, ROOMY) as one:
        zero.beat()
        one.beat()
        merge = Merge.open(zero.ring_dir, "oldest", follow=True)
        zero.trade("BTCUSDT", 1)
        zero.beat()  # one's watermark is older than that trade: it might still write an older one
        # Should this process be held up here, `one` counts as dead and nothing waits for it: then nothing is shown.
        began_ns = unix_ns()
        early = merge.poll()
        assert early == [] or unix_ns() - began_ns > 50_000_000
        one.trade("ETHUSDT", 2)
        one.beat()
        zero.beat()
        seen = [item for _, item in early]

        def both() -> bool:
            seen.extend(item for _, item in merge.poll())
            return len(seen) == 2

        until(both, "both trades")
        assert [item.payload[30:40] for item in seen if isinstance(item, Record)] == [b'"BTCUSDT",', b'"ETHUSDT",']
        merge.close()


def test_a_dead_writer_holds_no_one_up(tmp_path: Path) -> None:
    with Chunk(tmp_path, 0, ROOMY) as zero, Chunk(tmp_path, 1, ROOMY):  # neither ever beats
        merge = Merge.open(zero.ring_dir, "oldest", follow=True)
        zero.trade("BTCUSDT", 1)
        assert len(merge.poll()) == 1
        merge.close()


def test_now_gives_only_what_comes(tmp_path: Path) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("BTCUSDT", 1, 100)
        values = open_rings(chunk.ring_dir, start="now", follow=True)
        chunk.trades("BTCUSDT", 101, 103)
        assert ids(itertools.islice(values, 3)) == [101, 102, 103]


@pytest.mark.parametrize("directory", ["ring_dir", "journal_dir"])
def test_a_time_begins_at_the_first_record_written_then(tmp_path: Path, directory: str) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("BTCUSDT", 1, 700)
        before_ns = unix_ns()
        moment = datetime.fromtimestamp(before_ns / 1e9, UTC)
        until(lambda: unix_ns() > before_ns + 2_000_000)
        chunk.trades("BTCUSDT", 701, 900)
        chunk.flush()
        assert ids(open_rings(getattr(chunk, directory), start=before_ns)) == list(range(701, 901))
        assert ids(open_rings(getattr(chunk, directory), start=moment + timedelta(milliseconds=1))) == list(range(701, 901))


def test_events_come_as_values_and_snapshots_do_not(tmp_path: Path) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.event(RecordType.STATUS, event="connected", leg=0)
        chunk.trade("BTCUSDT", 1)
        chunk.event(RecordType.SNAPSHOT, instruments=[])
        chunk.gap("BTCUSDT", 2, 3)
        chunk.trade("BTCUSDT", 4)
        assert [type(value) for value in open_rings(chunk.ring_dir)] == [Status, Trade, Gap, Trade]


def test_what_is_on_disk_says_when_it_got_there(tmp_path: Path) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("BTCUSDT", 1, 5)
        chunk.flush()
        for value in open_rings(chunk.ring_dir):
            assert isinstance(value, Trade)
            assert value.persist_ts_ns is not None
            assert value.persist_ts_ns > value.writer_ts_ns


def test_a_flipped_byte_in_the_ring_is_reported_and_its_block_read_from_the_journal(tmp_path: Path) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        merge = Merge.open(chunk.ring_dir, "now", follow=True)
        chunk.trades("BTCUSDT", 1, 2000)
        chunk.flush()
        with chunk.data_path.open("r+b") as data:
            data.seek(70_000)
            byte = data.read(1)
            data.seek(70_000)
            data.write(bytes([byte[0] ^ 1]))
        seen = []
        while items := merge.poll():
            seen += [item for _, item in items]
        assert [item.sequence for item in seen if isinstance(item, Record)] == list(range(1, 2001))
        assert sum(not isinstance(item, Record) for item in seen) == 1
        merge.close()


def test_a_directory_with_nothing_in_it_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotARing, match=r"holds neither \*_trade_chunk\*\.meta nor"):
        open_rings(tmp_path)
    with pytest.raises(NotARing, match="does not exist"):
        open_rings(tmp_path / "absent")


def test_a_ring_and_a_foreign_journal_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with Chunk(tmp_path / "a") as one, Chunk(tmp_path / "b") as other:
        one.trade("BTCUSDT", 1)
        other.trade("BTCUSDT", 1)
        one.flush()
        other.flush()
    for segment in one.segments:
        segment.unlink()
    other.segments[0].rename(one.journal_dir / other.segments[0].name if other.segments else "")
    with pytest.raises(NotARing, match="not of one stream"):
        open_rings(one.ring_dir)


def test_times_are_read_as_people_write_them() -> None:
    second = 1_000_000_000
    assert time_ns("2025-11-08T20:12:11") == time_ns("2025-11-08 20:12:11+00:00") == 1762632731 * second
    assert time_ns("2025-11-08T21:12:11.5+01:00") == 1762632731 * second + second // 2
    now = unix_ns()
    clock = time_ns(f"{datetime.now(UTC) - timedelta(minutes=5):%H:%M}")
    assert 0 < now - clock < 7 * 60 * second
    ahead = time_ns(f"{datetime.now(UTC) + timedelta(minutes=5):%H:%M}")
    assert 0 < now - ahead < 24 * 3600 * second
    with pytest.raises(ConfigError, match="expected 'now', 'oldest'"):
        time_ns("yesterday")


def test_chunks_whose_journals_have_many_segments_are_followed_in_the_order_of_writing(tmp_path: Path) -> None:
    with Chunk(tmp_path, 0) as zero, Chunk(tmp_path, 1) as one:
        for turn in range(6):
            for number in range(700):
                zero.trade("BTCUSDT", 700 * turn + number)
                one.trade("ETHUSDT", 700 * turn + number)
            zero.turn()
            one.turn()
        zero.flush()
        one.flush()
        merge = Merge.open(zero.ring_dir, "oldest", follow=True)
        times: list[int] = []

        def all_read() -> bool:
            zero.beat()
            one.beat()
            times.extend(item.write_ns for _, item in merge.poll() if isinstance(item, Record))
            return len(times) == 2 * 6 * 700

        until(all_read, "all records")
        merge.close()
    assert times == sorted(times)
