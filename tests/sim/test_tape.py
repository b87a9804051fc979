"""The synthetic market: its ids, its digits, its memory."""

import json
import re
from collections import Counter
from itertools import pairwise

from appliance.sim.delivery import payload_of, split
from appliance.sim.render import Renderer
from appliance.sim.synthetic import e8
from appliance.sim.tape import Tape

NOW_US = 1_790_649_901_913_456
KEYS = b'{"stream":"s%d@trade","data":{"e":"trade","E":%d,"s":"S%d","t":%d,"p":"%b","q":"%b","T":%d,"m":%b,"M":true}}'
DECIMAL = re.compile(r"(0|[1-9]\d*)\.\d{8}")


def renderer(tape: Tape, *, combined: bool = True, **options: bool) -> Renderer:
    names = [(i, b"s%d@trade" % i, b"S%d" % i) for i in range(tape.symbol_count)]
    return Renderer(tape, names, combined=combined, **options)


def printed(tape: Tape, frames: Renderer, batches: int, trades: int = 500) -> list[dict[str, object]]:
    """The data of the frames of some batches, 1 ms apart."""
    out: list[dict[str, object]] = []
    for batch in range(batches):
        tape.print_trades(trades, NOW_US + 1_000 * batch)
        out += [json.loads(payload_of(frame)) for frame in split(frames.render())]
    return out


def test_frames_have_the_exchange_s_own_spelling() -> None:
    tape = Tape(3, 7)
    tape.print_trades(20, NOW_US)
    for frame in split(renderer(tape).render()):
        data = json.loads(payload_of(frame))["data"]
        symbol = int(data["s"][1:])
        px_e8, sz_e8, maker = tape.trade(symbol, data["t"])
        values = (symbol, NOW_US // 1_000, symbol, data["t"], e8(px_e8).encode(), e8(sz_e8).encode(), data["T"])
        assert payload_of(frame) == KEYS % (*values, b"true" if maker else b"false")


def test_ids_rise_by_exactly_one_per_symbol_and_begin_beyond_32_bit() -> None:
    tape = Tape(50, 1)
    last: dict[object, int] = {}
    for message in printed(tape, renderer(tape, combined=False), 40):
        name, trade_id = message["s"], message["t"]
        assert isinstance(trade_id, int)
        assert trade_id == last.get(name, trade_id - 1) + 1
        assert trade_id > 2**32
        last[name] = trade_id
    assert len(last) == 50


def test_the_same_seed_prints_the_same_trades_and_another_seed_others() -> None:
    def run(seed: int) -> list[tuple[object, ...]]:
        tape = Tape(20, seed)
        return [(m["s"], m["t"], m["p"], m["q"], m["m"]) for m in printed(tape, renderer(tape, combined=False), 4)]

    assert run(5) == run(5)
    assert run(5) != run(6)


def test_prices_walk_sizes_spread_and_all_are_positive_decimals() -> None:
    tape = Tape(1, 3)
    messages = printed(tape, renderer(tape, combined=False), 20)
    assert all(DECIMAL.fullmatch(str(m["p"])) and DECIMAL.fullmatch(str(m["q"])) for m in messages)
    prices = [int(str(m["p"]).replace(".", "")) for m in messages]
    steps = [abs(b - a) // tape.tick_e8(0) for a, b in pairwise(prices)]
    assert min(prices) > 0
    assert len(set(prices)) > 20
    assert max(steps) < 40, "a price goes by small steps"
    assert all(int(str(m["q"]).replace(".", "")) > 0 for m in messages)
    assert {m["m"] for m in messages} == {True, False}


def test_a_few_symbols_make_most_trades_and_bursts_share_a_moment() -> None:
    tape = Tape(100, 2)
    messages = printed(tape, renderer(tape, combined=False, microseconds=True), 20)
    activity = Counter(m["s"] for m in messages)
    assert activity["S0"] > 5 * activity["S60"] > 0
    moments = Counter((m["s"], m["T"]) for m in messages)
    assert max(moments.values()) >= 4
    assert all(isinstance(m["E"], int) and isinstance(m["T"], int) and m["E"] >= m["T"] > 10**15 for m in messages)


def test_a_short_payload_has_a_short_header() -> None:
    tape = Tape(1, 1)
    frames = Renderer(tape, [(0, b"s@trade", b"S")], combined=False)
    sizes = set()
    for _ in range(50):
        tape.print_trades(1, NOW_US)
        data = frames.render()
        sizes.add(len(payload_of(data)))
        assert json.loads(payload_of(data))["s"] == "S"
    assert min(sizes) > 100


def test_old_order_ids_and_unknown_keys_can_be_added() -> None:
    tape = Tape(1, 1)
    tape.print_trades(1, NOW_US)
    old = json.loads(payload_of(renderer(tape, combined=False, order_ids=True).render()))
    assert list(old) == ["e", "E", "s", "t", "p", "q", "b", "a", "T", "m", "M"]
    new = json.loads(payload_of(renderer(tape, combined=False, extra_key=True).render()))
    assert list(new) == ["e", "E", "s", "t", "p", "q", "T", "m", "M", "Z"]


def test_hidden_trades_reach_only_those_who_see_holes() -> None:
    tape = Tape(1, 1)
    everyone, spared = renderer(tape, combined=False), renderer(tape, combined=False, whole=True)
    first, last = tape.hide(0, 3)
    tape.print_trades(10, NOW_US)
    seen = [json.loads(payload_of(frame))["t"] for frame in split(everyone.render())]
    assert seen == list(range(last + 1, first + 10))
    assert tape.sent_in_batch() == 7
    assert len(list(split(spared.render()))) == 10
    assert tape.sent_in_batch() == 10


def test_times_are_remembered_as_far_back_as_asked() -> None:
    tape = Tape(1, 1, remember=256)
    first = tape.next_id(0)
    times: dict[int, int] = {}
    for batch in range(150):
        now_us = NOW_US + batch * 1_000
        before = tape.next_id(0)
        tape.print_trades(7, now_us)
        times |= dict.fromkeys(range(before, tape.next_id(0)), now_us)
        assert tape.oldest_id(0) == max(first, tape.next_id(0) - 256) or tape.next_id(0) - first <= 256
        known = range(tape.oldest_id(0), tape.next_id(0))
        assert all(times[trade_id] - 1_000 <= tape.trade_us(0, trade_id) <= times[trade_id] for trade_id in known)
    assert tape.oldest_id(0) == tape.next_id(0) - 256
