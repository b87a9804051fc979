"""What faults do to the frames of one connection."""

from websockets.frames import Frame, Opcode

from appliance.sim import faults
from appliance.sim.binance_garbage import garbage
from appliance.sim.delivery import Delivery, payload_of, split
from appliance.sim.faults import Kind, Strikes

FRAMES = [Frame(Opcode.TEXT, b"%0*d" % (20 + 30 * i, i)).serialize(mask=False) for i in range(8)]
DATA = b"".join(FRAMES)


def delivery(*specs: str, number: int = 0) -> Delivery:
    def made(kind: Kind) -> Frame:
        return Frame(Opcode.TEXT, garbage(kind))

    return Delivery(faults.parse(specs), number, 100.0, made, Strikes())


def test_frames_of_all_sizes_are_told_apart() -> None:
    sizes = [0, 1, 125, 126, 65_535, 65_536]
    frames = [Frame(Opcode.TEXT, b"x" * size).serialize(mask=False) for size in sizes]
    assert list(split(b"".join(frames))) == frames
    assert [len(payload_of(frame)) for frame in frames] == sizes


def test_a_healthy_connection_gets_the_same_bytes() -> None:
    healthy = delivery("reset:connection=1")
    assert healthy.plain
    assert healthy.through(DATA, 8, 100.0).data is DATA


def test_a_mute_connection_gets_nothing() -> None:
    mute = delivery("mute")
    assert mute.silent(100.0)
    assert mute.through(DATA, 8, 100.0).data == b""


def test_a_stall_begins_and_ends_in_its_time() -> None:
    stalled = delivery("stall:after_s=1,for_s=2")
    assert [bool(stalled.through(FRAMES[0], 1, now_s).frames) for now_s in (100.5, 101.0, 102.9, 103.1)] == [True, False, False, True]


def test_a_stall_by_frames_begins_behind_exactly_so_many() -> None:
    assert delivery("stall:after_frames=5").through(DATA, 8, 100.0).data == b"".join(FRAMES[:5])


def test_a_lag_grows_and_ends_and_nothing_is_lost() -> None:
    late = delivery("lag:after_s=1,by_s=4,grow_s=8,for_s=20")
    came: list[tuple[int, float]] = []
    for tenth in range(300):
        now_s = 100.0 + tenth / 10
        came += [(int(payload_of(frame)), now_s) for frame in split(late.due(now_s).data)]
        frame = Frame(Opcode.TEXT, b"%03d" % tenth).serialize(mask=False)
        came += [(int(payload_of(frame)), now_s) for frame in split(late.through(frame, 1, now_s).data)]
    assert [number for number, _ in came] == list(range(300))
    lags_s = {number: now_s - 100.0 - number / 10 for number, now_s in came}
    assert max(lags_s[9], lags_s[299]) < 0.001
    assert 0.9 < lags_s[20] < 1.1
    assert 3.9 < lags_s[100] < 4.1


def test_a_reset_cuts_the_next_frame_in_its_middle() -> None:
    cut = delivery("reset:after_frames=3").through(DATA, 8, 100.0)
    assert cut.end == "reset"
    assert cut.frames == 3
    assert cut.data == b"".join(FRAMES[:3]) + FRAMES[3][: len(FRAMES[3]) // 2]


def test_an_eof_comes_between_two_frames() -> None:
    cut = delivery("eof:after_frames=3").through(DATA, 8, 100.0)
    assert (cut.end, cut.data) == ("eof", b"".join(FRAMES[:3]))


def test_an_end_by_time_comes_without_a_frame_and_as_often_as_asked() -> None:
    ending = delivery("reset:after_s=1,times=1")
    assert [ending.end(now_s) for now_s in (100.5, 101.0, 102.0)] == [None, "reset", None]


def test_garbage_comes_between_the_frames_and_takes_none_away() -> None:
    mixed = delivery("garbage:every=3,kinds=nan+empty").through(DATA, 8, 100.0)
    frames = list(split(mixed.data))
    assert [frame for frame in frames if frame in FRAMES] == FRAMES
    assert [payload_of(frame) for frame in frames if frame not in FRAMES] == [garbage("nan"), garbage("empty")]
    assert mixed.frames == 8


def test_a_fragmented_trade_is_cut_at_every_byte_in_turn_and_stays_whole() -> None:
    """T12."""
    cutting = delivery("garbage:every=1,kinds=fragmented")
    payload = payload_of(FRAMES[0])
    cuts = set()
    for _ in range(3 * len(payload)):
        frames = list(split(cutting.through(FRAMES[0], 1, 100.0).data))
        assert [frame[0] for frame in frames] == [0x01, 0x8A, 0x00, 0x80]  # text, a pong between, two continuations
        parts = [payload_of(frame) for frame in frames]
        assert parts[0] + parts[2] + parts[3] == payload
        cuts.add(len(parts[0]))
    assert cuts == set(range(len(payload) + 1))
