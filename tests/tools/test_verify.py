"""`mdc verify`: it finds each kind of damage that the format can show, and none where there is none."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import NotARing
from appliance.ring import examination
from appliance.ring.layout import BLOCK, JOURNAL_HEADER, RECORD_HEADER, RecordType, crc32c
from appliance.ring.reader import Record, RingReader, SegmentReader
from appliance.tools import verify
from tests.streams import DEADLINE_S, ROOMY, Chunk, until


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every hole is old enough to be judged, but for the tests that want it otherwise."""
    monkeypatch.setattr(examination, "GRACE_NS", -1)


def verdicts(directory: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[dict[str, Any]]]:
    code = verify.run(rings=directory, as_json=True)
    return code, json.loads(capsys.readouterr().out)


def flip(path: Path, offset: int, mask: int = 1) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ mask]))


def rewrite(path: Path, offset: int, change: Callable[[bytearray], None]) -> None:
    """Change the record at `offset` and give it a checksum that fits."""
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack_from("<I", data, offset)
    record = data[offset : offset + length]
    change(record)
    struct.pack_into("<I", record, 8, crc32c(bytes(record[:8] + record[12:])))
    data[offset : offset + length] = record
    path.write_bytes(data)


def records(path: Path) -> list[int]:
    """Offsets of all records in a segment."""
    data = path.read_bytes()
    offset, found = JOURNAL_HEADER, []
    while offset < len(data):
        (length,) = struct.unpack_from("<I", data, offset)
        if length == 0:
            break
        if data[offset + 4] != RecordType.PADDING:
            found.append(offset)
        offset += -(-length // 8) * 8
    return found


def wait_beyond(ring: RingReader, sequence: int) -> None:
    until(lambda: ring.committed_sequence > sequence, "the next record")


def written(tmp_path: Path, *, trades: int = 1500, segments: int = 2) -> Chunk:
    """A ring with its journal, closed in good order."""
    with Chunk(tmp_path, options=ROOMY) as chunk:
        for n in range(segments):
            for trade_id in range(n * trades // segments, (n + 1) * trades // segments):
                chunk.trade(("BTCUSDT", "ETHUSDT", "币安人生USDT")[trade_id % 3], trade_id // 3)
            if n + 1 < segments:
                chunk.turn()
    return chunk


@pytest.mark.parametrize("directory", ["ring_dir", "journal_dir"])
def test_what_was_written_is_good(tmp_path: Path, capsys: pytest.CaptureFixture[str], directory: str) -> None:
    chunk = written(tmp_path, segments=3)
    code, (verdict,) = verdicts(getattr(chunk, directory), capsys)
    assert code == 0
    assert verdict["good"]
    assert (verdict["first_sequence"], verdict["last_sequence"], verdict["trades"]) == (1, 1500, 1500)
    assert (verdict["instruments"], verdict["segments"], verdict["duplicates"], verdict["faults"]) == (3, 3, 0, 0)
    assert (verdict["compared_bytes"] > 400_000) == (directory == "ring_dir")


def test_people_get_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chunk = written(tmp_path)
    assert verify.run(rings=chunk.ring_dir, as_json=False) == 0
    out, err = capsys.readouterr()
    assert "binance 0" in out
    assert "good" in out
    assert err == ""  # no progress bar without a terminal


def test_a_ring_alone_is_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, journal=False) as chunk:
        chunk.trades("BTCUSDT", 1, 3000)
        code, (verdict,) = verdicts(chunk.ring_dir, capsys)
    assert code == 0
    assert verdict["last_sequence"] == 3000
    assert verdict["first_sequence"] > 1


def test_a_live_ring_is_good_while_it_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = (
        "import sys; from pathlib import Path; from tests.streams import ROOMY, Chunk\n"
        f"chunk = Chunk(Path({str(tmp_path)!r}), options=ROOMY)\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1; chunk.trade('BTCUSDT', n)\n"
        "    if n % 100 == 0: chunk.beat()\n"
        "    if n % 5000 == 0: chunk.turn()\n"
        "    if n == 3000: print('on', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", writer], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"on\n"
            ring = RingReader(tmp_path / "ring" / "binance_trade_chunk0.meta")
            last = 0
            for _ in range(5):
                wait_beyond(ring, last)
                code, (verdict,) = verdicts(tmp_path / "ring", capsys)
                assert verdict["fault_list"] == []
                assert code == 0
                assert verdict["last_sequence"] > last
                last = verdict["last_sequence"]
            ring.close()
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(DEADLINE_S)
    # It was killed in mid-write: what was committed is good, in the ring and in the journal alone.
    for directory in ("ring", "journal"):
        code, (verdict,) = verdicts(tmp_path / directory, capsys)
        assert verdict["fault_list"] == []
        assert code == 0
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trade("ETHUSDT", 1)
    code, (verdict,) = verdicts(tmp_path / "ring", capsys)
    assert verdict["fault_list"] == []
    assert code == 0


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.999])
def test_every_flipped_byte_of_a_record_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str], share: float) -> None:
    chunk = written(tmp_path, segments=1)
    (segment,) = chunk.segments
    offsets = records(segment)
    offset = offsets[int(len(offsets) * share)]
    original = segment.read_bytes()
    (length,) = struct.unpack_from("<I", original, offset)
    for byte in [*range(RECORD_HEADER), RECORD_HEADER + 5, length - 1]:
        for mask in (1, 0x80):
            flip(segment, offset + byte, mask)
            code, (verdict,) = verdicts(chunk.ring_dir, capsys)
            assert code == 1, f"byte {byte} ^ {mask}"
            assert not verdict["good"]
            code, _ = verdicts(chunk.journal_dir, capsys)
            # In the newest segment's last block nothing follows that would show it from an incomplete copy.
            assert code == 1 or share == 0.999
            flip(segment, offset + byte, mask)
    assert segment.read_bytes() == original


def test_a_flipped_alignment_or_padding_byte_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chunk = written(tmp_path, segments=1)
    (segment,) = chunk.segments
    data = segment.read_bytes()
    aligned = next(o for o in records(segment) if struct.unpack_from("<I", data, o)[0] % 8)
    first_block_end = JOURNAL_HEADER + BLOCK
    for offset, reason in (
        (aligned + struct.unpack_from("<I", data, aligned)[0], "alignment byte is not zero"),
        (first_block_end - 1, "padding is not zero"),
    ):
        flip(segment, offset)
        code, (verdict,) = verdicts(chunk.journal_dir, capsys)
        assert code == 1
        assert [fault["reason"] for fault in verdict["fault_list"]] == [reason]
        flip(segment, offset)


@pytest.mark.parametrize(
    ("field", "format", "value", "reason"),
    [
        (24, "<Q", 9999, "sequence"),
        (12, "<I", 7, "epoch begins within a block"),
        (56, "<q", 1, "write_ns falls"),
    ],
    ids=["sequence", "epoch", "write_ns"],
)
def test_a_record_that_does_not_follow_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], field: int, format: str, value: int, reason: str
) -> None:
    chunk = written(tmp_path, segments=1)
    (segment,) = chunk.segments
    rewrite(segment, records(segment)[500], lambda record: struct.pack_into(format, record, field, value))
    code, (verdict,) = verdicts(chunk.journal_dir, capsys)
    assert code == 1
    assert any(reason in fault["reason"] for fault in verdict["fault_list"])


def test_a_trade_that_stands_twice_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("BTCUSDT", 1, 10)
        chunk.trade("BTCUSDT", 5)
    code, (verdict,) = verdicts(chunk.ring_dir, capsys)
    assert code == 1
    assert verdict["duplicates"] == 1
    assert verdict["fault_list"][0]["reason"] == "trade id stands in the stream twice"


def test_the_same_id_in_another_era_or_instrument_is_no_duplicate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("BTCUSDT", 1, 10)
        chunk.trades("ETHUSDT", 1, 10)
        for trade_id in range(1, 11):
            chunk.trade("BTCUSDT", trade_id, era=1)  # type: ignore[arg-type]
    code, (verdict,) = verdicts(chunk.ring_dir, capsys)
    assert code == 0
    assert (verdict["trades"], verdict["instruments"]) == (30, 3)


def test_a_hole_without_a_gap_record_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("BTCUSDT", 1, 10)
        chunk.trades("BTCUSDT", 15, 20)
        chunk.trades("币安人生USDT", 7, 8)
        chunk.trade("币安人生USDT", 10)
    code, (verdict,) = verdicts(chunk.ring_dir, capsys)
    assert code == 1
    assert verdict["unrecorded_ids"] == 5
    assert verdict["unrecorded_holes"] == [
        {"asset": "BTCUSDT", "era": 0, "from_id": 11, "to_id": 14},
        {"asset": "币安人生USDT", "era": 0, "from_id": 9, "to_id": 9},
    ]
    assert verify.run(rings=chunk.ring_dir, as_json=False) == 1
    assert "missing without a gap record: BTCUSDT ids 11 to 14" in capsys.readouterr().out


def test_a_recorded_hole_is_shown_and_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("BTCUSDT", 1, 10)
        chunk.trades("BTCUSDT", 15, 20)
        chunk.gap("BTCUSDT", 11, 14)
        chunk.late("BTCUSDT", 12)
    code, (verdict,) = verdicts(chunk.ring_dir, capsys)
    assert code == 0
    assert [(hole["from_id"], hole["to_id"]) for hole in verdict["recorded_holes"]] == [(11, 11), (13, 14)]
    assert verdict["recorded_ids"] == 3
    assert verify.run(rings=chunk.ring_dir, as_json=False) == 0
    assert "recorded gap: BTCUSDT ids 13 to 14" in capsys.readouterr().out


def test_a_gap_record_covers_no_more_than_it_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trade("BTCUSDT", 1)
        chunk.trade("BTCUSDT", 20)
        chunk.gap("BTCUSDT", 2, 9)
        chunk.gap("ETHUSDT", 10, 19)
        chunk.gap("BTCUSDT", 12, 19)
    code, (verdict,) = verdicts(chunk.ring_dir, capsys)
    assert code == 1
    assert verdict["unrecorded_holes"] == [{"asset": "BTCUSDT", "era": 0, "from_id": 10, "to_id": 11}]


def test_late_trades_fill_a_hole_in_any_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trade("BTCUSDT", 100)
        chunk.trade("BTCUSDT", 110)
        for trade_id in (105, 101, 109, 104, 106, 99, 98, 102, 108, 107, 103):
            chunk.late("BTCUSDT", trade_id)
    code, (verdict,) = verdicts(chunk.ring_dir, capsys)
    assert code == 0
    assert verdict["unrecorded_ids"] == verdict["recorded_ids"] == verdict["duplicates"] == 0


def test_a_hole_at_the_very_end_may_still_be_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "GRACE_NS", 60_000_000_000)
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trade("BTCUSDT", 1)
        chunk.trade("BTCUSDT", 3)
        code, (verdict,) = verdicts(chunk.ring_dir, capsys)
        assert code == 0
        assert verdict["unsettled_holes"] == [{"asset": "BTCUSDT", "era": 0, "from_id": 2, "to_id": 2}]
        chunk.event(RecordType.BOUNDARY, event="stop", reason="SIGTERM")
    code, (verdict,) = verdicts(chunk.ring_dir, capsys)
    assert code == 1
    assert verdict["unrecorded_ids"] == 1


def test_a_missing_segment_is_found_and_a_hole_record_accounts_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trade("BTCUSDT", 1)
        chunk.turn()
        chunk.event(RecordType.STATUS, event="minute")
        chunk.event(RecordType.STATUS, event="minute")
        chunk.turn()
        chunk.trade("BTCUSDT", 2)
        chunk.flush()
        chunk.segments[1].unlink()
        code, (verdict,) = verdicts(chunk.journal_dir, capsys)
        assert code == 1
        assert verdict["fault_list"][0]["reason"] == "sequences 2 to 3 are missing, and no hole record says so"
        chunk.event(RecordType.HOLE, from_sequence=2, to_sequence=3)
    code, (verdict,) = verdicts(chunk.journal_dir, capsys)
    assert code == 0
    assert verdict["missing_sequences"] == [[2, 3]]


def test_ids_that_stood_in_a_recorded_hole_are_told_apart_from_those_that_nobody_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("ETHUSDT", 1, 3)
        chunk.trades("ETHUSDT", 6, 8)
        chunk.trade("BTCUSDT", 1)
        chunk.turn()
        chunk.trades("BTCUSDT", 2, 5)
        chunk.turn()
        chunk.trade("BTCUSDT", 6)
        chunk.trade("BTCUSDT", 9)
        chunk.flush()
        chunk.segments[1].unlink()
        chunk.event(RecordType.HOLE, from_sequence=8, to_sequence=11)
    code, (verdict,) = verdicts(chunk.journal_dir, capsys)
    assert code == 1
    assert verdict["lost_holes"] == [{"asset": "BTCUSDT", "era": 0, "from_id": 2, "to_id": 5}]
    assert verdict["unrecorded_holes"] == [
        {"asset": "ETHUSDT", "era": 0, "from_id": 4, "to_id": 5},
        {"asset": "BTCUSDT", "era": 0, "from_id": 7, "to_id": 8},
    ]


def test_ring_and_journal_are_compared_byte_for_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chunk = written(tmp_path, segments=1)
    flip(chunk.data_path, 1000)
    code, (verdict,) = verdicts(chunk.ring_dir, capsys)
    assert code == 1
    assert verdict["fault_list"] == [{"position": 1000, "sequence": 0, "reason": "ring and journal differ"}]
    code, _ = verdicts(chunk.journal_dir, capsys)
    assert code == 0


def test_a_foreign_journal_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    chunk, other = written(tmp_path / "a"), written(tmp_path / "b")
    for segment in chunk.segments:
        segment.unlink()
    for segment in other.segments:
        shutil.copy(segment, chunk.journal_dir)
    code, (verdict,) = verdicts(chunk.ring_dir, capsys)
    assert code == 1
    assert "the ring is" in verdict["fault_list"][0]["reason"]


def test_a_flushed_cursor_ahead_of_committed_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chunk = written(tmp_path)
    with chunk.meta_path.open("r+b") as meta:
        meta.seek(4352)
        meta.write(struct.pack("<Q", 1 << 40))
    code, (verdict,) = verdicts(chunk.ring_dir, capsys)
    assert code == 1
    assert "cursors are damaged" in verdict["fault_list"][0]["reason"]


@pytest.mark.parametrize("cut", [8, 63, 64, 100, 5000])
def test_a_copy_with_a_torn_end_has_an_open_end(tmp_path: Path, capsys: pytest.CaptureFixture[str], cut: int) -> None:
    chunk = written(tmp_path)
    segment = chunk.segments[-1]
    os.truncate(segment, segment.stat().st_size - cut)
    code, (verdict,) = verdicts(chunk.journal_dir, capsys)
    assert code == 0
    assert verdict["open_end"]
    assert verdict["last_sequence"] < 1500


def test_a_segment_cut_short_in_the_middle_of_the_journal_is_no_open_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chunk = written(tmp_path, segments=3)
    os.truncate(chunk.segments[1], chunk.segments[1].stat().st_size - 70_000)
    code, (verdict,) = verdicts(chunk.journal_dir, capsys)
    assert code == 1
    assert any("are missing, and no hole record says so" in fault["reason"] for fault in verdict["fault_list"])


def test_a_damaged_segment_header_is_one_fault_and_the_rest_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chunk = written(tmp_path, segments=3)
    flip(chunk.segments[1], 60)
    code, (verdict,) = verdicts(chunk.journal_dir, capsys)
    assert code == 1
    assert "checksum" in verdict["fault_list"][0]["reason"]
    assert verdict["last_sequence"] == 1500


@pytest.mark.parametrize("how", ["segments_deleted", "directory_gone", "newest_deleted"])
def test_what_was_flushed_and_is_not_in_the_journal_is_missed(tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str) -> None:
    chunk = written(tmp_path, segments=3)
    for segment in chunk.segments[2:] if how == "newest_deleted" else chunk.segments:
        segment.unlink()
    if how == "directory_gone":
        chunk.journal_dir.rmdir()
    code, (verdict,) = verdicts(chunk.ring_dir, capsys)
    assert code == 1
    assert any("flushed up to here, but" in fault["reason"] for fault in verdict["fault_list"])


def test_segments_that_were_swapped_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chunk = written(tmp_path, segments=3)
    first, second, _ = chunk.segments
    aside = first.rename(first.with_suffix(".aside"))
    second.rename(first)
    aside.rename(second)
    code, (verdict,) = verdicts(chunk.journal_dir, capsys)
    assert code == 1
    assert "rename it back" in verdict["fault_list"][0]["reason"]


@pytest.mark.parametrize("name", ["data", "segment"])
def test_a_directory_in_the_place_of_a_file_is_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    chunk = written(tmp_path)
    victim = chunk.data_path if name == "data" else chunk.segments[0]
    victim.unlink()
    victim.mkdir()
    code, (verdict,) = verdicts(chunk.ring_dir if name == "data" else chunk.journal_dir, capsys)
    assert code == 1
    assert "is not a file" in verdict["fault_list"][0]["reason"]


@pytest.mark.parametrize("recorded", [True, False])
def test_damage_that_a_hole_record_accounts_for_is_no_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str], recorded: bool) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("BTCUSDT", 1, 9)
        chunk.flush()
        if recorded:
            chunk.event(RecordType.HOLE, from_sequence=5, to_sequence=5)
        else:
            chunk.trade("BTCUSDT", 10)
        chunk.flush()
    (segment,) = chunk.segments
    reader = SegmentReader(segment)
    fifth = [item.position for item in reader.poll(5) if isinstance(item, Record)][4]
    reader.close()
    flip(segment, BLOCK + fifth + 100)
    code, (verdict,) = verdicts(chunk.journal_dir, capsys)
    assert code == (0 if recorded else 1)
    assert verdict["faults"] == (0 if recorded else 2)  # the damage, and the sequence that it cost
    assert verdict["missing_sequences"] == ([[5, 5]] if recorded else [])


def test_a_copied_ring_whose_journal_went_on_is_compared_up_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("BTCUSDT", 1, 100)
        chunk.flush()
        copy = tmp_path / "copy"
        shutil.copytree(chunk.ring_dir, copy)
        for first in (101, 601):
            chunk.turn()
            chunk.trades("BTCUSDT", first, first + 499)
            chunk.flush()
        code, (verdict,) = verdicts(copy, capsys)
    assert (code, verdict["fault_list"]) == (0, [])


def test_several_chunks_are_each_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, 0, ROOMY) as zero, Chunk(tmp_path, 1, ROOMY) as one:
        zero.trades("BTCUSDT", 1, 10)
        one.trade("ETHUSDT", 1)
        one.trade("ETHUSDT", 1)
    code, found = verdicts(zero.ring_dir, capsys)
    assert code == 1
    assert [verdict["good"] for verdict in found] == [True, False]


def test_an_empty_ring_is_good_and_an_empty_directory_is_not_examined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path) as chunk:
        code, (verdict,) = verdicts(chunk.ring_dir, capsys)
    assert code == 0
    assert verdict["records"] == 0
    with pytest.raises(NotARing):
        verify.run(rings=tmp_path, as_json=True)
    assert NotARing.exit_code == 3


def test_what_is_not_yet_flushed_is_read_from_the_ring(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("BTCUSDT", 1, 10)
        chunk.flush()
        assert chunk.store.flusher is not None
        assert chunk.store.flusher.stop(DEADLINE_S)
        chunk.trades("BTCUSDT", 11, 20)
        code, (verdict,) = verdicts(chunk.ring_dir, capsys)
        assert code == 0
        assert verdict["last_sequence"] == 20
        code, (verdict,) = verdicts(chunk.journal_dir, capsys)
        assert verdict["last_sequence"] == 10
        chunk.store.writer.retire()
        chunk.close = lambda: None  # type: ignore[method-assign]
