"""The raw lane's buffer: every frame comes out whole and in order, or is counted where it is missing."""

import struct

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from appliance.ring.raw_buffer import RawBuffer

FRAME, SHED = 1, 2

Pushed = list[tuple[int, int, bytes]]


def entries(taken: bytes) -> list[tuple[int, int, int, bytes]]:
    """(kind, recv_ns, leg, payload) by the byte table of docs/raw-lane.md."""
    found, at = [], 0
    while at < len(taken):
        recv_ns, size, kind, leg, reserved = struct.unpack_from("<qIBBH", taken, at)
        assert reserved == 0
        found.append((kind, recv_ns, leg, taken[at + 16 : at + 16 + size]))
        end = at + 16 + size
        at += 16 + -(-size // 16) * 16
        assert not any(taken[end:at]), "what fills up is zero"
    assert at == len(taken)
    return found


class BufferAgainstModel(RuleBasedStateMachine):
    """Frames are numbered: what is missing between two that came out is exactly what the entry between them tells."""

    @initialize(capacity=st.sampled_from([4096, 8192]))
    def open(self, capacity: int) -> None:
        self.buffer = RawBuffer(capacity)
        self.pushed: Pushed = []
        self.seen = 0
        self.told = 0

    @rule(sizes=st.lists(st.one_of(st.integers(0, 300), st.integers(0, 9000)), max_size=60), leg=st.integers(0, 7))
    def push(self, sizes: list[int], leg: int) -> None:
        for size in sizes:
            number = len(self.pushed)
            payload = (number.to_bytes(4, "little") * (size // 4 + 1))[:size]
            self.buffer.keep(payload, 1_000 + number, leg)
            self.pushed.append((1_000 + number, leg, payload))

    @rule(limit=st.integers(1, 9000))
    def take(self, limit: int) -> None:
        taken = self.buffer.take(limit)
        found = entries(taken)
        assert len(taken) <= limit or len(found) == 1
        for kind, recv_ns, leg, payload in found:
            if kind == SHED:
                first_ns, last_ns, frames, size = struct.unpack("<qqQQ", payload)
                missing = self.pushed[self.seen : self.seen + frames]
                assert (first_ns, last_ns, size) == (missing[0][0], missing[-1][0], sum(len(one[2]) for one in missing))
                self.seen += frames
                self.told += frames
            else:
                assert kind == FRAME
                assert (recv_ns, leg, payload) == self.pushed[self.seen]
                self.seen += 1

    @rule()
    def tell(self) -> None:
        self.buffer.tell()

    @invariant()
    def counts_what_came(self) -> None:
        if hasattr(self, "buffer"):
            assert self.buffer.frames + self.buffer.shed == len(self.pushed)

    def teardown(self) -> None:
        if not hasattr(self, "buffer"):
            return
        while self.buffer.waiting_bytes:
            self.take(1 << 20)
        assert self.buffer.tell()
        self.take(1 << 20)
        assert (self.seen, self.told) == (len(self.pushed), self.buffer.shed)


TestBuffer = BufferAgainstModel.TestCase


def test_a_buffer_that_overflows_counts_exactly_what_it_shed() -> None:
    buffer = RawBuffer(4096)
    for number in range(1000):
        buffer.keep(b"x" * 100, number)
    assert (buffer.frames, buffer.shed) == (4096 // 128, 1000 - 4096 // 128)
    assert not buffer.tell(), "no room even for that"
    assert len(entries(buffer.take(4096))) == 32
    buffer.keep(b"y", 5000, 3)
    shed, frame = entries(buffer.take(4096))
    assert struct.unpack("<qqQQ", shed[3]) == (32, 999, 968, 96_800)
    assert frame == (FRAME, 5000, 3, b"y")


@pytest.mark.parametrize("capacity", [0, 1000, 4097, 2048])
def test_only_a_power_of_two_is_taken(capacity: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        RawBuffer(capacity)
