"""The raw lane beside a chunk's pipeline: what it keeps, what it leaves out, and what the records say when it does not keep up."""

from pathlib import Path

from appliance import Status, Trade, open_rings
from appliance.exchanges.deribit_decoder import DeribitDecoder
from appliance.exchanges.instruments import Instruments
from appliance.feed.pipeline import Pipeline
from appliance.feed.raw_lane import RawLane
from appliance.ring import raw_segments
from appliance.ring.raw_segments import Frame, RawReader, Shed
from appliance.ring.reader import RingReader
from appliance.ring.store import StoreOptions
from tests.mounts import Mounts
from tests.streams import until

OPTIONS = StoreOptions(capacity_bytes=1 << 24, segment_bytes=1 << 22, flush_interval_ms=1, mlock=False)


def trade(number: int) -> bytes:
    return (
        '{"jsonrpc":"2.0","method":"subscription","params":{"channel":"trades.future.any.raw","data":[{"timestamp":1790649901913,'
        f'"price":1.5,"direction":"buy","instrument_name":"BTC-PERPETUAL","trade_id":"{number}","trade_seq":{number},"amount":1.0}}]}}}}'
    ).encode()


def open_pipeline(root: Path, *, buffer_bytes: int = 1 << 20) -> Pipeline:
    for name in ("ring", "journal"):
        (root / name).mkdir(exist_ok=True)
    decoder = DeribitDecoder(Instruments("DERIBIT"))
    pipeline = Pipeline.open(root / "ring", root / "journal", "deribit", 0, decoder, OPTIONS, legs=1, gap_grace_ms=0, adopt=True)
    pipeline.keep_raw(
        RawLane.open(
            root / "journal",
            "deribit",
            0,
            pipeline.store.writer,
            pipeline.status,
            buffer_bytes=buffer_bytes,
            segment_bytes=1 << 24,
            keep_free_bytes=0,
        )
    )
    return pipeline


def items(root: Path) -> list[raw_segments.Item]:
    return list(RawReader(raw_segments.segments(root / "journal" / "raw")))


def counters(root: Path) -> dict[str, int]:
    ring = RingReader(root / "ring" / "deribit_trade_chunk0.meta")
    try:
        return ring.counters()
    finally:
        ring.close()


def statuses(root: Path) -> list[Status]:
    return [value for value in open_rings(root / "ring") if isinstance(value, Status) and value.event.startswith("raw_")]


def test_every_frame_that_reached_the_decoder_is_kept_whatever_became_of_it(tmp_path: Path) -> None:
    pipeline = open_pipeline(tmp_path)
    frames = [trade(1), b'{"no":"trade"}', b"{broken", trade(2), trade(2), b"\xff\xfe"]
    outcomes = [pipeline.path.commit_message(frame, leg=number % 2) for number, frame in enumerate(frames)]
    assert outcomes == ["TRADES", "OTHER", "MALFORMED", "TRADES", "TRADES", "MALFORMED"]
    pipeline.turn()
    assert pipeline.drain("stop", 5.0)
    kept = [item for item in items(tmp_path) if isinstance(item, Frame)]
    assert [(one.leg, one.payload) for one in kept] == [(number % 2, frame) for number, frame in enumerate(frames)]
    recv = [value.recv_ts_ns for value in open_rings(tmp_path / "journal") if isinstance(value, Trade)]
    assert recv == [kept[0].recv_ns, kept[3].recv_ns]
    assert counters(tmp_path)["raw_frames"] == 6
    assert statuses(tmp_path) == []


def test_the_answer_to_a_login_never_reaches_the_disk(tmp_path: Path) -> None:
    pipeline = open_pipeline(tmp_path)
    login = b'{"jsonrpc":"2.0","id":1,"result":{"access_token":"SECRET","expires_in":1,"refresh_token":"SECRET","scope":"x"}}'
    odd = b'{"id":1,"result":{"refresh_token":"SECRET"'
    for frame in (login, odd, trade(1)):
        pipeline.path.commit_message(frame)
    assert pipeline.drain("stop", 5.0)
    assert [item.payload for item in items(tmp_path) if isinstance(item, Frame)] == [trade(1)]


def test_counters_outlive_the_process_as_all_others_do(tmp_path: Path) -> None:
    for start in (1, 2):
        pipeline = open_pipeline(tmp_path)
        pipeline.path.commit_message(trade(start))
        assert pipeline.drain("stop", 5.0)
        assert counters(tmp_path)["raw_frames"] == start
    files = sum(path.stat().st_size for path in (tmp_path / "journal" / "raw").iterdir())
    assert counters(tmp_path)["raw_bytes"] == files


def test_a_full_disk_sheds_and_says_so_and_every_trade_is_in_the_journal(tmp_path: Path, mounts: Mounts) -> None:
    (tmp_path / "journal").mkdir()
    raw = mounts.tmpfs(tmp_path / "journal" / "raw", 1 << 16)
    (raw / "ballast").write_bytes(bytes(1 << 16))
    pipeline = open_pipeline(tmp_path, buffer_bytes=4096)
    number = 0
    while counters(tmp_path)["raw_shed"] == 0:
        number += 1
        assert pipeline.path.commit_message(trade(number)) == "TRADES"
        pipeline.turn()
    while not any(one.event == "raw_shedding" for one in statuses(tmp_path)):
        pipeline.turn()
    (raw / "ballast").unlink()

    def caught_up() -> bool:
        pipeline.turn()
        return any(one.event == "raw_shed" for one in statuses(tmp_path))

    until(caught_up, "the record that all is kept again")
    pipeline.path.commit_message(trade(number + 1))
    assert pipeline.drain("stop", 5.0)
    began, ended = statuses(tmp_path)
    assert began.event == "raw_shedding"
    assert began.fields["reason"]
    shed = counters(tmp_path)["raw_shed"]
    assert (ended.event, ended.fields["frames"]) == ("raw_shed", shed)
    assert [item.frames for item in items(tmp_path) if isinstance(item, Shed)] == [shed]
    assert sum(isinstance(item, Frame) for item in items(tmp_path)) == number + 1 - shed == counters(tmp_path)["raw_frames"]
    trades = [value.exchange_trade_seq for value in open_rings(tmp_path / "journal") if isinstance(value, Trade)]
    assert trades == list(range(1, number + 2))


def test_a_disk_that_is_full_to_the_end_costs_frames_and_says_how_many(tmp_path: Path, mounts: Mounts) -> None:
    (tmp_path / "journal").mkdir()
    raw = mounts.tmpfs(tmp_path / "journal" / "raw", 1 << 16)
    (raw / "ballast").write_bytes(bytes(1 << 16))
    pipeline = open_pipeline(tmp_path)
    for number in range(1, 11):
        pipeline.path.commit_message(trade(number))
    assert pipeline.drain("stop", 5.0)
    (dropped,) = statuses(tmp_path)
    assert (dropped.event, dropped.fields["frames"], dropped.fields["reason"]) == ("raw_dropped", 10, "No space left on device")
    assert counters(tmp_path)["raw_shed"] == 10
