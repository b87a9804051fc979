"""`mdc coverage`: each way in which an id can be settled or missing, and certificates that another host checks."""

import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.errors import CheckFailed, ConfigError
from appliance.ring import examination
from appliance.ring.layout import Flags, RecordType
from appliance.tools import coverage
from tests.streams import ROOMY, Chunk, trade_payload

BEGAN_MS = 1_762_632_731_000
BACKFILLED = int(Flags.FLAG_BACKFILLED | Flags.FLAG_LATE)

Answer = tuple[int, dict[str, Any]]


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every hole is old enough to be judged, but for the test that wants it otherwise."""
    monkeypatch.setattr(examination, "GRACE_NS", -1)


def cover(directory: Path, capsys: pytest.CaptureFixture[str], start: str | None = None, end: str | None = None) -> Answer:
    code = coverage.run(rings=directory, start=start, end=end, out=None, check=None, as_json=True)
    return code, json.loads(capsys.readouterr().out)


def instruments(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["asset"]: one for chunk in document["chunks"] for one in chunk["instruments"]}


def states(document: dict[str, Any], asset: str) -> list[tuple[int, int, str]]:
    return [(one["from_id"], one["to_id"], one["state"]) for one in instruments(document)[asset]["lacking"]]


def past(chunk: Chunk, asset: str, first: int, last: int) -> None:
    for trade_id in range(first, last + 1):
        chunk.trade(asset, trade_id, flags=BACKFILLED)


def status(chunk: Chunk, event: str, **fields: object) -> None:
    chunk.event(RecordType.STATUS, event=event, **fields)


@pytest.mark.parametrize("directory", ["ring_dir", "journal_dir"])
def test_a_tape_without_a_hole_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str], directory: str) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        for trade_id in range(10, 60):
            chunk.trade("BTCUSDT", trade_id, flags=trade_id % 2)
    code, document = cover(getattr(chunk, directory), capsys)
    assert (code, document["whole"]) == (0, True)
    assert document["sentence"] == "The tape is whole: 50 trades of 1 instruments, 50 live, 0 backfilled."
    one = instruments(document)["BTCUSDT"]
    assert (one["held"], one["trades"], one["legs"][:3], one["lacking"]) == ([[10, 59]], 50, [25, 25, 0], [])


def test_the_digest_is_of_the_exchange_s_own_words_in_any_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trade("币安人生USDT", 2)
        chunk.late("币安人生USDT", 1)
    _, document = cover(chunk.journal_dir, capsys)
    total = 0
    for trade_id in (1, 2):
        said = trade_payload("币安人生USDT", trade_id).partition(b',"writer_ts_ms"')[0]
        total += int.from_bytes(sha256(said).digest(), "big")
    assert instruments(document)["币安人生USDT"]["digest"] == f"{total % 2**256:064x}"


def test_each_id_that_no_leg_brought_is_accounted_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """T23: the certificate says how each id was settled."""
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("BTCUSDT", 1, 10)
        chunk.trades("BTCUSDT", 21, 30)
        chunk.trades("BTCUSDT", 41, 50)
        chunk.trades("BTCUSDT", 61, 70)
        for first in (11, 31, 51):
            chunk.gap("BTCUSDT", first, first + 9)
        past(chunk, "BTCUSDT", 11, 20)
        status(chunk, "no_such_trade", asset="BTCUSDT", from_id=31, to_id=40, below=30, above=41, asked_ts_ms=BEGAN_MS)
    code, document = cover(chunk.ring_dir, capsys)
    assert code == 1
    one = instruments(document)["BTCUSDT"]
    assert one["held"] == [[1, 30], [41, 50], [61, 70]]
    assert one["backfilled"] == [[11, 20]]
    assert states(document, "BTCUSDT") == [(31, 40, "never_existed"), (51, 60, "open")]
    evidence, missing = one["lacking"]
    assert (evidence["below"], evidence["above"], evidence["asked_ts_ms"]) == (30, 41, BEGAN_MS)
    assert missing["since_ts_ms"] is not None
    assert document["sentence"].startswith(
        "The tape is not whole: 10 ids of 1 instruments are missing (10 open), the first BTCUSDT 51 to 60"
    )


def test_what_was_given_up_stays_missing_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("BTCUSDT", 1, 2)
        chunk.trades("BTCUSDT", 11, 12)
        chunk.gap("BTCUSDT", 3, 10)
        status(chunk, "not_collected", asset="BTCUSDT", from_id=3, to_id=6, reason="older than what the exchange keeps")
    code, document = cover(chunk.journal_dir, capsys)
    assert code == 1
    assert states(document, "BTCUSDT") == [(3, 6, "not_collected"), (7, 10, "open")]
    assert instruments(document)["BTCUSDT"]["lacking"][0]["reason"] == "older than what the exchange keeps"


def test_a_hole_that_nobody_told_of_is_missing_once_the_grace_is_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("BTCUSDT", 1, 2)
        chunk.trades("BTCUSDT", 5, 6)
    code, document = cover(chunk.journal_dir, capsys)
    assert code == 1
    assert states(document, "BTCUSDT") == [(3, 4, "unrecorded")]
    monkeypatch.setattr(examination, "GRACE_NS", 61_000_000_000)
    code, document = cover(chunk.journal_dir, capsys)
    assert code == 0
    assert states(document, "BTCUSDT") == [(3, 4, "unsettled")]


def test_a_gap_before_the_first_trade_of_a_new_listing_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        status(chunk, "listed", asset="NEWUSDT", kind="Spot")
        chunk.trades("NEWUSDT", 4, 9)
        chunk.gap("NEWUSDT", 1, 3)
    code, document = cover(chunk.journal_dir, capsys)
    assert code == 1
    assert states(document, "NEWUSDT") == [(1, 3, "open")]


def test_a_span_of_time_has_its_trades_and_the_holes_at_its_edges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        for trade_id in [*range(1, 11), *range(13, 21), *range(23, 31), *range(33, 41)]:
            chunk.trade("BTCUSDT", trade_id, ts_ms=BEGAN_MS + trade_id * 1_000)
        for first in (11, 21, 31):
            chunk.gap("BTCUSDT", first, first + 1)
    code, document = cover(chunk.journal_dir, capsys, "2025-11-08T20:12:24", "2025-11-08T20:12:40")  # seconds 13 to 28
    assert code == 1
    one = instruments(document)["BTCUSDT"]
    assert one["held"] == [[13, 20], [23, 28]]
    assert one["trades"] == 14
    assert states(document, "BTCUSDT") == [(11, 12, "open"), (21, 22, "open")]


def test_a_time_without_a_leg_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """T1: a boundary is never silent."""
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.event(RecordType.BOUNDARY, event="start")
        status(chunk, "subscribed", leg=0)
        status(chunk, "subscribed", leg=1)
        status(chunk, "lost", leg=1, reason="reset")
        chunk.trades("BTCUSDT", 1, 3)
        status(chunk, "lost", leg=0, reason="reset")
        status(chunk, "subscribed", leg=1)
        chunk.event(RecordType.BOUNDARY, event="stop")
    _, document = cover(chunk.journal_dir, capsys)
    deaf = document["chunks"][0]["deaf"]
    assert len(deaf) == 3  # before the first subscription, between the legs, after the end
    assert [end is None for _, end in deaf] == [False, False, True]


def test_a_recorded_time_in_which_nothing_was_traded_has_nothing_to_certify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.event(RecordType.BOUNDARY, event="start")
    assert coverage.run(rings=chunk.journal_dir, start=None, end=None, out=None, check=None, as_json=False) == 0
    assert capsys.readouterr().out.startswith("There is nothing to certify")


def certified(chunk: Chunk, tmp_path: Path, directory: Path | None = None) -> Path:
    path = tmp_path / "certificate.json"
    coverage.run(rings=directory or chunk.journal_dir, start=None, end=None, out=path, check=None, as_json=False)
    return path


def check(directory: Path, path: Path) -> int:
    return coverage.run(rings=directory, start=None, end=None, out=None, check=path, as_json=False)


def test_a_certificate_holds_on_another_host_while_the_journal_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("BTCUSDT", 1, 500)
        chunk.turn()
        chunk.trades("BTCUSDT", 511, 900)
        chunk.gap("BTCUSDT", 501, 510)
        chunk.flush()
        path = certified(chunk, tmp_path, chunk.ring_dir)
        assert check(chunk.ring_dir, path) == 0
        past(chunk, "BTCUSDT", 501, 510)
        chunk.trades("BTCUSDT", 901, 1_000)
        chunk.turn()
        chunk.trades("BTCUSDT", 1_001, 1_010)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(chunk.journal_dir, elsewhere)
    assert check(elsewhere, path) == 0
    assert "as certified" in capsys.readouterr().out


def test_a_certificate_does_not_hold_where_a_segment_is_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("BTCUSDT", 1, 500)
        chunk.turn()
        chunk.trades("BTCUSDT", 501, 900)
    path = certified(chunk, tmp_path)
    chunk.segments[0].unlink()
    capsys.readouterr()
    assert check(chunk.journal_dir, path) == 1
    assert "first_sequence is 501, certified is 1" in capsys.readouterr().out


def test_a_changed_certificate_is_none(tmp_path: Path) -> None:
    with Chunk(tmp_path, options=ROOMY) as chunk:
        chunk.trades("BTCUSDT", 1, 5)
    path = certified(chunk, tmp_path)
    path.write_text(path.read_text().replace('"trades": 5', '"trades": 6'))
    with pytest.raises(CheckFailed, match="it was changed after it was made"):
        check(chunk.journal_dir, path)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"certificate": "mdc-coverage-9"}', "\0"])
def test_what_is_no_certificate_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "certificate.json"
    path.write_text(text)
    with pytest.raises(ConfigError):
        check(tmp_path, path)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_held_and_lacking_are_all_ids_each_once(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever came, in whatever order, and whatever the records say: every id from the first to the last is told in one way."""
    ids = data.draw(st.lists(st.integers(1, 60), min_size=2, unique=True))
    events = data.draw(
        st.lists(st.tuples(st.sampled_from(["gap", "no_such_trade", "not_collected"]), st.integers(1, 60), st.integers(0, 9)), max_size=6)
    )
    root = tmp_path_factory.mktemp("property")
    with Chunk(root) as chunk:
        for trade_id in ids:
            chunk.trade("BTCUSDT", trade_id)
        for event, first, more in events:
            if event == "gap":
                chunk.gap("BTCUSDT", first, first + more)
            else:
                status(chunk, event, asset="BTCUSDT", from_id=first, to_id=first + more, reason="", below=0, above=99, asked_ts_ms=1)
    out = root / "certificate"
    coverage.run(rings=chunk.journal_dir, start=None, end=None, out=out, check=None, as_json=False)
    (one,) = instruments(json.loads(out.read_text())).values()
    held = {number for first, last in one["held"] for number in range(first, last + 1)}
    lacking = [number for lack in one["lacking"] for number in range(lack["from_id"], lack["to_id"] + 1)]
    told = {number for event, first, more in events if event == "gap" for number in range(first, first + more + 1)}
    between = set(range(ids[0], max(ids) + 1))
    assert held == set(ids)
    assert len(lacking) == len(set(lacking))
    assert set(lacking) == {number for number in between | told if number not in held}
