"""No tape that lacks something is certified as whole: what was taken from it, or never came, in every way that we could think of."""

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from appliance.clock import unix_ns
from appliance.feed.chunks import Chunks
from appliance.ring import examination
from appliance.ring.examination import examinations
from appliance.ring.layout import JOURNAL_HEADER, RecordType
from appliance.tools import coverage, verify
from appliance.tools.survey import compare_ends, survey
from tests.streams import ROOMY, Chunk, until
from tests.tools.test_verify import records, rewrite

Answer = tuple[int, dict[str, Any]]
Attack = Callable[[Chunk], None]

MINUTE: dict[str, Any] = {"counters": {}, "clock_error_ns": None}


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every hole is old enough to be judged, but for the tests that want it otherwise."""
    monkeypatch.setattr(examination, "GRACE_NS", -1)


@pytest.fixture
def cover(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    def answer(directory: Path, start: str | None = None, end: str | None = None) -> Answer:
        capsys.readouterr()
        code = coverage.run(rings=directory, start=start, end=end, out=None, check=None, as_json=True)
        document = json.loads(capsys.readouterr().out)
        assert code == (0 if document["whole"] else 1)
        assert document["whole"] == ("not whole" not in document["sentence"] and "damaged" not in document["sentence"])
        return code, document

    return answer


def lacking(document: dict[str, Any]) -> list[tuple[str, int, int, str]]:
    return [
        (one["asset"], lack["from_id"], lack["to_id"], lack["state"])
        for chunk in document["chunks"]
        for one in chunk["instruments"]
        for lack in one["lacking"]
    ]


def status(chunk: Chunk, event: str, **fields: object) -> None:
    chunk.event(RecordType.STATUS, event=event, **fields)


def snapshot(chunk: Chunk, **highest: int) -> None:
    """As the writer makes them: of each instrument that has traded, the first id and the highest."""
    states = [
        {"asset": asset, "kind": "Spot", "era": 0, "baseline": 1, "highest": last, "highest_ts_ms": 0, "window": "1", "holes": []}
        for asset, last in highest.items()
    ]
    chunk.event(RecordType.SNAPSHOT, parts=1, part=1, instruments=states)


def written(root: Path, number: int = 0, segments: int = 4) -> Chunk:
    """`segments` segments of 100 trades each, whole."""
    with Chunk(root, number, ROOMY) as chunk:
        for index in range(segments):
            snapshot(chunk, **({"BTCUSDT": 100 * index} if index else {}))
            chunk.trades("BTCUSDT", 100 * index + 1, 100 * index + 100)
            if index + 1 < segments:
                chunk.turn()
    return chunk


def replace(chunk: Chunk, index: int, other: Chunk) -> None:
    shutil.copy(other.segments[index], chunk.segments[index])


def at(seconds: float) -> str:
    """A time for --from and --to, from now on."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def test_nothing_taken_is_whole(tmp_path: Path, cover: Callable[..., Answer]) -> None:
    chunk = written(tmp_path)
    assert cover(chunk.journal_dir)[0] == cover(chunk.ring_dir)[0] == 0


def deleted(index: int) -> Attack:
    return lambda chunk: chunk.segments[index].unlink()


def truncated(index: int, left: int) -> Attack:
    return lambda chunk: os.truncate(chunk.segments[index], left)


def swapped(chunk: Chunk) -> None:
    one, other = chunk.segments[1:3]
    aside = one.rename(one.with_suffix(".aside"))
    other.rename(one)
    aside.rename(other)


def two_deleted(chunk: Chunk) -> None:
    for path in chunk.segments[1:3]:
        path.unlink()


def a_directory_instead(chunk: Chunk) -> None:
    path = chunk.segments[1]
    path.unlink()
    path.mkdir()


def emptied_before_an_empty_end(chunk: Chunk) -> None:
    """The newest segment has no record yet, and the one before it is gone: only a header tells."""
    os.truncate(chunk.segments[-1], JOURNAL_HEADER)
    chunk.segments[-2].unlink()


ATTACKS: dict[str, Attack] = {
    "a segment deleted in the middle": deleted(1),
    "two segments deleted in the middle": two_deleted,
    "a segment truncated in the middle": truncated(1, JOURNAL_HEADER + 5_000),
    "a segment truncated to its header": truncated(1, JOURNAL_HEADER),
    "a segment truncated to nothing": truncated(1, 0),
    "the newest truncated to nothing": truncated(-1, 0),
    "the newest empty, the one before it deleted": emptied_before_an_empty_end,
    "two segments swapped": swapped,
    "a directory in the place of a segment": a_directory_instead,
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_journal_that_lost_something_is_not_whole(tmp_path: Path, cover: Callable[..., Answer], attack: Attack) -> None:
    chunk = written(tmp_path)
    attack(chunk)
    assert cover(chunk.journal_dir)[0] == 1
    assert verify.run(rings=chunk.journal_dir, as_json=False) == 1


@pytest.mark.parametrize("index", [0, -1])
def test_what_is_gone_from_an_end_shows_in_the_span(tmp_path: Path, cover: Callable[..., Answer], index: int) -> None:
    """Retention deletes from the beginning, a copy may lack its end: what is left is whole, a span beyond it is not."""
    start = at(0)
    chunk = written(tmp_path)
    end = at(0)
    chunk.segments[index].unlink()
    code, document = cover(chunk.journal_dir)
    assert code == 0
    (one,) = document["chunks"]
    assert one["instruments"][0]["held"] == [[101, 400] if index == 0 else [1, 300]]
    code, document = cover(chunk.journal_dir, start, end)
    assert code == 1
    assert "was not recorded from" in document["sentence"]
    assert cover(chunk.ring_dir)[0] == (0 if index == 0 else 1)  # the ring knows what was on disk


def test_a_segment_of_another_ring_is_found_without_the_ring(tmp_path: Path, cover: Callable[..., Answer]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    chunk, other = written(tmp_path / "a"), written(tmp_path / "b")
    replace(chunk, 2, other)
    code, document = cover(chunk.journal_dir)
    assert code == 1
    assert "is of ring" in document["chunks"][0]["fault"]


def test_a_segment_of_another_chunk_is_found(tmp_path: Path, cover: Callable[..., Answer]) -> None:
    chunk, other = written(tmp_path), written(tmp_path, 1)
    replace(chunk, 1, other)
    assert cover(chunk.journal_dir)[0] == 1


@pytest.mark.parametrize(("start", "end"), [(None, 3_600.0), (-3_600.0, None), (3_600.0, None), (-7_200.0, -3_600.0), (3_600.0, 7_200.0)])
def test_a_span_that_was_not_recorded_is_not_whole(
    tmp_path: Path, cover: Callable[..., Answer], start: float | None, end: float | None
) -> None:
    chunk = written(tmp_path)
    code, document = cover(chunk.journal_dir, start and at(start), end and at(end))
    assert code == 1
    assert document["chunks"][0]["not_recorded"]
    assert "not recorded" in document["sentence"]


def test_a_span_after_the_last_leg_has_gone_is_not_whole_although_records_go_on(tmp_path: Path, cover: Callable[..., Answer]) -> None:
    """T1: the appliance ran, and heard nothing."""
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.event(RecordType.BOUNDARY, event="start")
        status(chunk, "subscribed", leg=0)
        start = at(0)
        chunk.trades("BTCUSDT", 1, 10)
        status(chunk, "lost", leg=0, reason="reset")
        gone_ms = unix_ns() // 1_000_000
        end = at(0.001)
        until(lambda: unix_ns() // 1_000_000 > gone_ms + 5)
        status(chunk, "refused", leg=0, reason="away")
    code, document = cover(chunk.journal_dir, start, end)
    assert code == 1
    assert document["chunks"][0]["not_recorded"]


def test_an_empty_ring_is_no_whole_tape(tmp_path: Path, cover: Callable[..., Answer]) -> None:
    with Chunk(tmp_path) as chunk:
        pass
    code, document = cover(chunk.ring_dir)
    assert code == 1
    assert "nothing of binance chunk 0 was recorded" in document["sentence"]


def test_a_quiet_instrument_s_hole_is_in_the_span_that_it_may_lie_in(tmp_path: Path, cover: Callable[..., Answer]) -> None:
    """Held before and behind the span, nothing inside: what is missing between them may have been traded in it."""
    now_ms = unix_ns() // 1_000_000
    with Chunk(tmp_path, options=ROOMY) as chunk:
        for trade_id in (1, 2):
            chunk.trade("BTCUSDT", trade_id, ts_ms=now_ms - 5)  # type: ignore[arg-type]
        start, end = at(0), at(0.02)
        behind_ms = unix_ns() // 1_000_000 + 25
        chunk.trade("BTCUSDT", 8, ts_ms=behind_ms)  # type: ignore[arg-type]
        chunk.gap("BTCUSDT", 3, 7)
        until(lambda: unix_ns() // 1_000_000 > behind_ms)
        status(chunk, "refused", leg=0, reason="")
    code, document = cover(chunk.journal_dir, start, end)
    assert code == 1
    assert lacking(document) == [("BTCUSDT", 3, 7, "open")]


def test_an_old_open_gap_is_not_of_a_later_span(tmp_path: Path, cover: Callable[..., Answer]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        state = {"asset": "BTCUSDT", "kind": "Spot", "era": 0, "baseline": 1, "highest": 50, "highest_ts_ms": 1_000, "window": "1"}
        chunk.event(RecordType.SNAPSHOT, parts=1, part=1, instruments=[state | {"holes": [[10, 20, 5_000_000, 10, 20]]}])
        start, now_ms = at(0), unix_ns() // 1_000_000
        for trade_id in range(51, 60):
            chunk.trade("BTCUSDT", trade_id, ts_ms=now_ms + 1)  # type: ignore[arg-type]
        until(lambda: unix_ns() // 1_000_000 > now_ms + 2)
        end = at(0)
        status(chunk, "refused", leg=0, reason="")
    _, document = cover(chunk.journal_dir, start, end)
    assert lacking(document) == []
    _, document = cover(chunk.journal_dir)
    assert lacking(document) == [("BTCUSDT", 10, 20, "open")]


def test_a_listing_begins_at_1(tmp_path: Path, cover: Callable[..., Answer]) -> None:
    """An instrument listed in the middle, whose first trades never came, and of which no gap record tells."""
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("BTCUSDT", 7, 20)
        status(chunk, "listed", asset="NEW-PERPETUAL", kind="Perpetual")
        chunk.trades("NEW-PERPETUAL", 4, 9)
    code, document = cover(chunk.journal_dir)
    assert code == 1
    assert lacking(document) == [("NEW-PERPETUAL", 1, 3, "unrecorded")]


def test_a_recent_listing_s_hole_is_not_judged_yet(tmp_path: Path, cover: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "GRACE_NS", 61_000_000_000)
    with Chunk(tmp_path, options=ROOMY) as chunk:
        status(chunk, "listed", asset="NEW-PERPETUAL", kind="Perpetual")
        chunk.trades("NEW-PERPETUAL", 4, 9)
    code, document = cover(chunk.journal_dir)
    assert code == 0
    assert lacking(document) == [("NEW-PERPETUAL", 1, 3, "unsettled")]


def test_a_symbol_listed_again_does_not_begin_at_1(tmp_path: Path, cover: Callable[..., Answer]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        status(chunk, "listed", asset="OLDUSDT", kind="Spot")
        chunk.trades("OLDUSDT", 1_000_004, 1_000_009)
    assert cover(chunk.journal_dir)[0] == 0


def test_what_followed_the_snapshot_is_missed_though_it_is_the_first_segment(tmp_path: Path, cover: Callable[..., Answer]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        snapshot(chunk, BTCUSDT=500)
        chunk.trades("BTCUSDT", 511, 520)
    code, document = cover(chunk.journal_dir)
    assert code == 1
    assert lacking(document) == [("BTCUSDT", 501, 510, "unrecorded")]


def lossy(root: Path, *, says: dict[str, int] | None) -> Chunk:
    """A journal that lost a segment, and says so; ids of three instruments stood there, of which only one traded on."""
    with Chunk(root, options=ROOMY) as chunk:
        snapshot(chunk, BTCUSDT=0, ETHUSDT=0)
        chunk.trades("BTCUSDT", 1, 10)
        chunk.trades("ETHUSDT", 1, 10)
        chunk.turn()
        chunk.trades("BTCUSDT", 11, 20)
        chunk.trades("ETHUSDT", 11, 20)
        chunk.trades("NEWUSDT", 1, 5)
        chunk.turn()
        chunk.trades("BTCUSDT", 21, 30)
        chunk.flush()
        chunk.segments[1].unlink()
        chunk.event(RecordType.HOLE, from_sequence=22, to_sequence=46)
        if says is not None:
            snapshot(chunk, **says)
    return chunk


def test_ids_that_stood_in_a_recorded_hole_are_missing_although_their_instruments_never_traded_again(
    tmp_path: Path, cover: Callable[..., Answer]
) -> None:
    chunk = lossy(tmp_path, says={"BTCUSDT": 30, "ETHUSDT": 20, "NEWUSDT": 5})
    code, document = cover(chunk.journal_dir)
    assert code == 1
    assert lacking(document) == [
        ("BTCUSDT", 11, 20, "in_a_hole"),
        ("ETHUSDT", 11, 20, "in_a_hole"),
        ("NEWUSDT", 1, 5, "in_a_hole"),
    ]
    assert document["chunks"][0]["unjudged_holes"] == []


def test_a_recorded_hole_behind_which_nothing_says_what_it_held_is_not_whole(tmp_path: Path, cover: Callable[..., Answer]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("BTCUSDT", 1, 10)
        chunk.turn()
        chunk.trades("ETHUSDT", 11, 20)
        chunk.turn()
        chunk.trades("BTCUSDT", 11, 20)
        chunk.flush()
        chunk.segments[1].unlink()
        chunk.event(RecordType.HOLE, from_sequence=11, to_sequence=20)
    code, document = cover(chunk.journal_dir)
    assert code == 1
    assert document["chunks"][0]["unjudged_holes"] == [[11, 20]]
    assert "lacks sequences 11 to 20" in document["sentence"]


@pytest.mark.parametrize("directory", ["ring_dir", "journal_dir"])
def test_a_chunk_of_which_nothing_is_left_is_missed(tmp_path: Path, cover: Callable[..., Answer], directory: str) -> None:
    chunk, gone = written(tmp_path, 0), written(tmp_path, 1)
    places = Chunks.load(chunk.journal_dir, "binance")
    places.assign(["BTCUSDT", "ETHUSDT"], 1)
    places.save()
    assert cover(getattr(chunk, directory))[0] == 0
    for path in [*gone.segments, gone.meta_path, gone.data_path]:
        path.unlink()
    code, document = cover(getattr(chunk, directory))
    assert code == 1
    assert "neither ring nor journal is here" in document["sentence"]
    assert verify.run(rings=getattr(chunk, directory), as_json=False) == 1


def test_a_chunk_whose_ring_is_gone_is_read_from_its_journal(tmp_path: Path, cover: Callable[..., Answer]) -> None:
    chunk, other = written(tmp_path, 0), written(tmp_path, 1)
    other.meta_path.unlink()
    other.segments[1].unlink()
    code, document = cover(chunk.ring_dir)
    assert code == 1
    assert [one["chunk"] for one in document["chunks"]] == [0, 1]


def test_a_chunk_that_was_not_collected_is_missed_in_a_copy_too(tmp_path: Path, cover: Callable[..., Answer]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("BTCUSDT", 1, 3)
        status(chunk, "chunk_not_collected", not_collected=1, symbols=400, reason="no room in /run")
    code, document = cover(chunk.journal_dir)
    assert code == 1
    assert "chunk 1 was not collected: no room in /run" in document["sentence"]


def test_a_damaged_assignment_is_a_fault(tmp_path: Path, cover: Callable[..., Answer]) -> None:
    chunk = written(tmp_path)
    (chunk.journal_dir / "binance_chunks.json").write_text("{")
    assert cover(chunk.journal_dir)[0] == 1


def test_a_chunk_that_ends_before_the_others_has_lost_its_end(tmp_path: Path) -> None:
    chunk = written(tmp_path, 0)
    written(tmp_path, 1)
    one, other = (survey(each, lambda size: None) for each in examinations(chunk.journal_dir))
    compare_ends([one, other])
    assert one.not_recorded == other.not_recorded == []
    assert other.written_to_ts_ms is not None
    other.written_to_ts_ms += 600_000
    compare_ends([one, other])
    assert one.not_recorded == [(one.recorded_to_ts_ms, other.written_to_ts_ms)]


@pytest.mark.parametrize(
    ("type", "payload"),
    [
        (RecordType.STATUS, b'{"record":"status","event":'),
        (RecordType.STATUS, b'["no object"]'),
        (RecordType.STATUS, b"\xff\xfe"),
        (RecordType.GAP, b"{}"),
        (RecordType.GAP, b'{"asset":"BTCUSDT","from_id":"3","to_id":7}'),
        (RecordType.GAP, b'{"asset":"BTCUSDT","from_id":7,"to_id":3}'),
        (RecordType.GAP, b'{"asset":["BTCUSDT"],"from_id":3,"to_id":7}'),
        (RecordType.HOLE, b'{"from_sequence":null,"to_sequence":7}'),
        (RecordType.SNAPSHOT, b'{"instruments":[{"asset":"BTCUSDT","era":0,"holes":[[1]]}]}'),
        (RecordType.GAP_CLOSED, b"{"),
        (RecordType.STATUS, b"[" * 20_000),
    ],
    ids=range(11),
)
def test_a_spoilt_record_is_told(tmp_path: Path, cover: Callable[..., Answer], type: RecordType, payload: bytes) -> None:
    """It may be the one that told of what is missing."""
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("BTCUSDT", 1, 10)
        chunk.append(type, payload)
    code, document = cover(chunk.journal_dir)
    assert code == 1
    assert "payload of a record" in document["chunks"][0]["fault"]
    assert verify.run(rings=chunk.journal_dir, as_json=False) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"event": "no_such_trade", "asset": "BTCUSDT", "from_id": 3, "to_id": 7},
        {"event": "no_such_trade", "asset": "BTCUSDT", "from_id": 3, "to_id": 7, "below": 3, "above": 8, "asked_ts_ms": 1},
        {"event": "no_such_trade", "asset": "BTCUSDT", "from_id": 3, "to_id": 7, "below": 2, "above": 8, "asked_ts_ms": None},
        {"event": "not_collected", "asset": "BTCUSDT", "from_id": 3, "to_id": 7},
        {"event": "minute"},
        MINUTE | {"event": "minute", "from_ts_ms": 1, "to_ts_ms": 2, "clock_error_ns": -5},
        {"no": "event"},
    ],
    ids=range(7),
)
def test_a_status_record_that_does_not_say_what_it_must_is_a_fault(
    tmp_path: Path, cover: Callable[..., Answer], fields: dict[str, object]
) -> None:
    """Without both neighbours and the time there is no evidence that a trade never was."""
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("BTCUSDT", 1, 2)
        chunk.trades("BTCUSDT", 8, 9)
        chunk.event(RecordType.STATUS, **fields)
    code, document = cover(chunk.journal_dir)
    assert code == 1
    assert "payload of a record" in document["chunks"][0]["fault"]


def test_unknown_events_and_records_are_passed_over(tmp_path: Path, cover: Callable[..., Answer]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("BTCUSDT", 1, 2)
        status(chunk, "of a later version", leg="none")
        chunk.append(77, b"no JSON")
    assert cover(chunk.journal_dir)[0] == 0


@pytest.mark.parametrize("spoilt", [0, 60, None], ids=["magic", "header", "emptied"])
def test_a_damaged_newest_segment_is_told_when_there_is_a_beginning(
    tmp_path: Path, cover: Callable[..., Answer], spoilt: int | None
) -> None:
    chunk = written(tmp_path)
    data = bytearray(chunk.segments[-1].read_bytes())
    if spoilt is None:
        data.clear()
    else:
        data[spoilt] ^= 1
    chunk.segments[-1].write_bytes(data)
    code, document = cover(chunk.journal_dir, at(-1))
    assert code == 1
    assert document["chunks"][0]["faults"] >= 1


def test_the_raw_lane_is_no_part_of_the_tape(tmp_path: Path, cover: Callable[..., Answer]) -> None:
    chunk = written(tmp_path)
    (chunk.journal_dir / "raw").mkdir()
    (chunk.journal_dir / "raw" / "binance_trade_chunk0.1762632731000000000.raw").write_bytes(b"\0" * 5_000)
    (chunk.journal_dir / "raw" / "binance_trade_chunk7.1.journal").write_bytes(b"")
    for directory in (chunk.journal_dir, chunk.ring_dir):
        assert cover(directory)[0] == 0
        assert verify.run(rings=directory, as_json=False) == 0


def test_more_than_a_thousand_holes_are_all_told(
    tmp_path: Path, cover: Callable[..., Answer], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        for trade_id in range(1, 5_001, 2):
            chunk.trade("BTCUSDT", trade_id)
    code, document = cover(chunk.journal_dir)
    assert code == 1
    assert len(lacking(document)) == 2_499
    assert "2,499 ids" in document["sentence"]
    monkeypatch.setattr(examination, "GRACE_NS", 61_000_000_000)
    code, document = cover(chunk.journal_dir)
    assert code == 0
    assert [state for *_, state in lacking(document)] == ["unsettled"] * 2_499
    verify.run(rings=chunk.journal_dir, as_json=True)
    (verdict,) = json.loads(capsys.readouterr().out)
    assert len(verdict["unsettled_holes"]) == verdict["unsettled_ids"] == 2_499


def test_faults_that_are_left_off_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        for _ in range(1_301):
            chunk.trade("BTCUSDT", 1)
    verify.run(rings=chunk.journal_dir, as_json=True)
    (verdict,) = json.loads(capsys.readouterr().out)
    assert (verdict["faults"], len(verdict["fault_list"]), verdict["faults_left_off"]) == (1_300, 1_000, 300)


@pytest.mark.parametrize(
    ("errors_ns", "worst_ns", "unknown"),
    [([None, None], None, 120_000), ([3, None, 5], 5, 60_000), ([7, 2], 7, 0), ([0], 0, 0), ([], None, 0)],
)
def test_the_worst_clock_error_is_of_the_minutes_that_tell_one(
    tmp_path: Path, cover: Callable[..., Answer], errors_ns: list[int | None], worst_ns: int | None, unknown: int
) -> None:
    """T32: what is not known is said, also beside what is."""
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("BTCUSDT", 1, 2)
        now_ms = unix_ns() // 1_000_000
        for number, error_ns in enumerate(errors_ns):
            begin_ms = now_ms + 60_000 * number
            status(chunk, "minute", **MINUTE | {"from_ts_ms": begin_ms, "to_ts_ms": begin_ms + 60_000, "clock_error_ns": error_ns})
        chunk.store.writer.beat(unix_ns() + 60_000_000_000 * len(errors_ns))
    _, document = cover(chunk.ring_dir)
    (one,) = document["chunks"]
    assert one["clock_error_ns"] == worst_ns
    assert abs(one["clock_unknown_ms"] - unknown) < 20_000  # what was before the first minute


def test_only_the_minutes_of_the_span_count(tmp_path: Path, cover: Callable[..., Answer]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("BTCUSDT", 1, 2)
        now_ms = unix_ns() // 1_000_000
        for ago_min, error_ns in ((30, 900), (0, 4)):
            begin_ms = now_ms - 60_000 * ago_min
            said = {"from_ts_ms": begin_ms, "to_ts_ms": begin_ms + 60_000, "clock_error_ns": error_ns, "counters": {"duplicates": 5}}
            status(chunk, "minute", **said)
    (one,) = cover(chunk.journal_dir, at(-60))[1]["chunks"]
    assert (one["clock_error_ns"], one["duplicates"]) == (4, 5)
    (one,) = cover(chunk.journal_dir)[1]["chunks"]
    assert (one["clock_error_ns"], one["duplicates"]) == (900, 10)


def test_people_are_told_what_is_unknown_of_the_clock(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chunk = written(tmp_path)
    coverage.run(rings=chunk.journal_dir, start=None, end=None, out=None, check=None, as_json=False)
    assert "error of this host's clock unknown" in capsys.readouterr().out


def test_each_leg_s_part_and_the_backfill_s_are_told_and_make_up_the_tape(tmp_path: Path, cover: Callable[..., Answer]) -> None:
    """T23: how each id was settled."""
    with Chunk(tmp_path, options=ROOMY) as chunk:
        for trade_id in range(1, 61):
            chunk.trade("BTCUSDT", trade_id, flags=trade_id % 3 if trade_id <= 50 else 0b11000)
    (one,) = cover(chunk.journal_dir)[1]["chunks"][0]["instruments"]
    assert one["backfilled"] == [[51, 60]]
    assert sum(one["legs"]) + 10 == one["trades"] == 60
    assert one["legs"][:3] == [16, 17, 17]


def test_a_record_in_an_unknown_codec_is_a_fault(tmp_path: Path, cover: Callable[..., Answer]) -> None:
    """It holds a trade that nobody could count."""
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("BTCUSDT", 1, 3)
    (segment,) = chunk.segments
    rewrite(segment, records(segment)[2], lambda record: record.__setitem__(5, 1))
    code, document = cover(chunk.journal_dir)
    assert code == 1
    assert "codec is unknown" in document["chunks"][0]["fault"]
