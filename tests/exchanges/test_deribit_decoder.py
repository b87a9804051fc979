"""The compiled Deribit decoder says of every frame what the plain one says: recorded, composed, mutated and hostile frames."""

import io
import itertools
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.exchanges.deribit_decoder import DeribitDecoder
from appliance.exchanges.instruments import Instruments
from tests.exchanges import deribit_reference
from tests.exchanges.reference_decoder import Number

CAPTURES = Path(os.environ.get("MDC_CAPTURES", Path(__file__).parents[3] / "shared" / "captures")) / "deribit"
needs_captures = pytest.mark.skipif(not CAPTURES.is_dir(), reason=f"no recorded frames: {CAPTURES} is not there, set MDC_CAPTURES")

ROW = (
    '{"timestamp":1786740206308,"price":62863.5,"direction":"buy","instrument_name":"BTC-PERPETUAL","index_price":62860.11,'
    '"trade_id":"450000101","trade_seq":296244199,"amount":1.0e3,"mark_price":62863.68,"tick_direction":0,'
    '"starbase_match_id":214121762240081920,"contracts":100.0,"starbase_timestamp":1786740206308878197}'
)
OPTION = (
    '{"trade_seq":467,"trade_id":"ETH-450000377","timestamp":1786740300123,"tick_direction":2,"price":0.0525,"mark_price":5.253883e-2,'
    '"iv":45.91,"instrument_name":"ETH-25DEC26-7200-C","index_price":6930.31,"direction":"sell","amount":3.0,"liquidation":"M"}'
)
COMBO = (
    '{"legs":[{"instrument_name":"BTC-1","price":1.0,"trade_seq":5,"trade_id":"1","amount":2}],"timestamp":1786740300123,"price":-0.0004,'
    '"direction":"sell","instrument_name":"BTC-CS-19MAY26-70000_75000","trade_id":"450000380","trade_seq":1,"amount":12,'
    '"block_trade_id":"BLOCK-289556","combo_id":"BTC-CS-19MAY26-70000_75000","combo_trade_id":450000379,"iv":null}'
)


def frame(*rows: str, channel: str = "trades.future.any.raw") -> bytes:
    return f'{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"{channel}","data":[{",".join(rows)}]}}}}'.encode()


ONE = frame(ROW)
SEVERAL = frame(ROW, OPTION, COMBO, channel="trades.BTC.100ms")
TURNED = f'{{"params":{{"data":[{ROW},{OPTION}],"channel":"trades.any.any.raw"}},"method":"subscription","jsonrpc":"2.0"}}'.encode()
OTHERS = [
    frame(),
    b'{"params":{"type":"test_request"},"method":"heartbeat","jsonrpc":"2.0"}',
    b'{"jsonrpc":"2.0","id":1,"result":["trades.future.any.raw"],"usIn":1,"usOut":2,"usDiff":1,"testnet":false}',
    b'{"jsonrpc":"2.0","id":8,"error":{"code":-32602,"message":"Invalid params","data":{"reason":"wrong format"}}}',
    frame(ROW, channel="book.BTC-PERPETUAL.raw"),
    b'{"jsonrpc":"2.0","method":"subscription","params":{"channel":"ticker.BTC.raw","data":{"price":1}}}',
    b'{"method":"subscription","params":[1,2]}',
    b"[]",
    b"{}",
    b"17",
]


def decoder() -> DeribitDecoder:
    return DeribitDecoder(Instruments("DERIBIT"))


DECODER = decoder()  # one for all: what a frame leaves behind must not reach the next
BEHIND = b'}]"},1e5\\x' * 8


def check(payload: bytes) -> str:
    """Both decoders on one frame, also with other bytes right behind it; the outcome they agree on."""
    expected = deribit_reference.decode(payload)
    found, again = DECODER.decode(payload), DECODER.decode(payload + BEHIND, len(payload))
    assert found == again
    if b"\\" in payload:  # strings are kept as spelled, and the plain decoder no longer knows how that was
        for one in (*found[1], *expected[1]):
            del one["tail"]
    assert found == expected
    return expected[0]


def recorded() -> Iterator[bytes]:
    with (CAPTURES / "ws.jsonl.zst").open("rb") as file:
        text = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        for line in io.TextIOWrapper(text, encoding="utf-8", newline="\n"):
            yield json.loads(line)["raw"].encode()


def rows_of(body: Any) -> Iterator[dict[str, Any]]:
    """Every object of a REST body that is a trade."""
    if isinstance(body, dict):
        if "trade_seq" in body and "direction" in body:
            yield body
        body = list(body.values())
    if isinstance(body, list):
        for inner in body:
            yield from rows_of(inner)


@needs_captures
def test_every_recorded_frame_means_what_the_plain_decoder_says() -> None:
    outcomes = Counter(check(payload) for payload in recorded())
    assert outcomes == {"OTHER": 187, "TRADES": 12}
    assert sum(len(DECODER.decode(payload)[1]) for payload in recorded()) == 19


@needs_captures
def test_every_recorded_trade_of_rest_is_decoded_from_a_notification_of_it() -> None:
    found = 0
    for path in sorted((CAPTURES / "rest").glob("get_last_trades*.zst")):
        with path.open("rb") as file:
            text = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read()
        for row in rows_of(json.loads(text, parse_float=Number, parse_int=Number)):
            assert check(frame(as_json(row))) == "TRADES"
            found += 1
    assert found > 20


def as_json(value: Any) -> str:
    """JSON with numbers as they were spelled."""
    if isinstance(value, Number):
        return value
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{as_json(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(as_json, value)) + "]"
    return json.dumps(value)


def test_a_trade_is_decoded_digit_for_digit() -> None:
    assert DECODER.decode(ONE) == (
        "TRADES",
        [
            {
                "asset": "BTC-PERPETUAL",
                "trade_id": 450000101,
                "sequence_id": 296244199,
                "exchange_ts_ms": 1786740206308,
                "exchange_ts_ns": 1786740206308878197,
                "px": "62863.5",
                "sz": "1.0e3",
                "side": "Buy",
                "tail": ',"exchange_trade_seq":296244199,"trade_id":"450000101","index_price":62860.11,"mark_price":62863.68,'
                '"tick_direction":0,"contracts":100.0',
            }
        ],
    )


def test_a_combo_is_one_trade_whatever_its_legs() -> None:
    """T15."""
    outcome, trades = DECODER.decode(frame(COMBO))
    assert (outcome, len(trades)) == ("TRADES", 1)
    assert (trades[0]["asset"], trades[0]["px"]) == ("BTC-CS-19MAY26-70000_75000", "-0.0004")
    tail = ',"block_trade_id":"BLOCK-289556","combo_id":"BTC-CS-19MAY26-70000_75000","combo_trade_id":450000379'
    assert str(trades[0]["tail"]).endswith(tail)


@pytest.mark.parametrize("payload", [ONE, SEVERAL, TURNED, *OTHERS])
def test_frames_cut_at_every_byte(payload: bytes) -> None:
    check(payload)
    for cut in range(len(payload)):
        check(payload[:cut])


def test_one_bad_row_spoils_its_frame_and_none_of_it_is_used() -> None:
    for bad in (ROW.replace("62863.5", '"62863.5"'), ROW.replace('"buy"', '"hold"'), ROW.replace("296244199", "0"), "17", "[]"):
        assert check(frame(ROW, bad, OPTION)) == "MALFORMED"


@pytest.mark.parametrize(
    ("channel", "name", "kind"),
    [
        ("trades.future.any.raw", "BTC-PERPETUAL", "Perpetual"),
        ("trades.future.USDC.100ms", "SOL_USDC-PERPETUAL", "Perpetual"),
        ("trades.future.any.raw", "BTC-3OCT26", "Future"),
        ("trades.option.any.raw", "XRP_USDC-30JUN27-0d625-C", "Option"),
        ("trades.spot.any.raw", "BTC_USDC", "Spot"),
        ("trades.future_combo.any.raw", "BTC-FS-25DEC26_PERP", "Spread"),
        ("trades.option_combo.any.agg2", "BTC-CS-19MAY26-70000_75000", "Spread"),
        ("trades.BTC-PERPETUAL.raw", "BTC-PERPETUAL", "Perpetual"),
        ("trades.BTC-25DEC26-72000-P.raw", "BTC-25DEC26-72000-P", "Option"),
        ("trades.ETH_BTC.raw", "ETH_BTC", "Spot"),
        ("trades.BTC-FS-25DEC26_PERP.raw", "BTC-FS-25DEC26_PERP", "Spread"),
        ("trades.new_kind.any.raw", "WHAT-EVER", "Future"),
    ],
)
def test_a_name_that_the_wire_brings_first_gets_its_kind_from_the_channel(channel: str, name: str, kind: str) -> None:
    """T31: a golden frame for each kind of channel."""
    fresh = decoder()
    assert fresh.decode(frame(ROW.replace("BTC-PERPETUAL", name), channel=channel))[0] == "TRADES"
    assert fresh.instruments.names() == [name]
    assert fresh.instruments.kind(0) == kind == deribit_reference.kind(channel, name)
    assert fresh.instruments.start_of_records(0) == f'{{"exchange":"DERIBIT","asset":"{name}","kind":"{kind}","px":'.encode()


def test_thousands_of_new_names_in_one_frame_are_each_learned_once() -> None:
    fresh = decoder()
    names = [f"BTC-25DEC26-{strike}-{side}" for strike in range(5000) for side in "CP"]
    rows = [OPTION.replace("ETH-25DEC26-7200-C", name) for name in names]
    for _ in range(2):
        outcome, trades = fresh.decode(frame(*rows, channel="trades.option.any.raw"))
        assert outcome == "TRADES"
        assert [trade["asset"] for trade in trades] == names == fresh.instruments.names()


def test_names_that_only_the_wire_brings_are_learned_up_to_a_bound_and_the_others_are_not_held() -> None:
    fresh = decoder()
    fresh.instruments.names_max = 3
    rows = [OPTION.replace("ETH-25DEC26-7200-C", f"BTC-25DEC26-{strike}-C") for strike in range(5)]
    outcomes = [fresh.decode(frame(row, channel="trades.option.any.raw"))[0] for row in rows]
    assert outcomes == ["TRADES"] * 3 + ["UNKNOWN_SYMBOL"] * 2
    assert len(fresh.instruments) == 3
    outcome, trades = fresh.decode(frame(*rows, channel="trades.option.any.raw"))
    assert (outcome, [trade["asset"] for trade in trades]) == ("TRADES", fresh.instruments.names())


NUMBERS = ["62863.5", "1.0e3", "2.288e-5", "1E+2", "0", "-0.5", "10", "0.0", "1e400", "01", "+1", "NaN", '"1"', "null", "1e"]
NUMBERS += ["1" * 41, "9" * 40]
IDS = ['"450000101"', '"ETH-284830839"', '"BTC_USDC-1041164"', '"x"', '""', "403691824", "null", "true", f'"{"9" * 20}"', f'"{"8" * 129}"']
WHOLE = ["1", "0", "-1", "9007199254740993", "9223372036854775807", "9223372036854775808", "1.5", "1e3", '"7"', "99999999999999999999"]
FIELDS: dict[str, list[str]] = {
    "timestamp": ["1786740206308", "1786740206308878", "1", "1786740206308.0", '"x"'],
    "price": NUMBERS,
    "amount": NUMBERS,
    "direction": ['"buy"', '"sell"', '"Buy"', "1", "null"],
    "instrument_name": ['"BTC-PERPETUAL"', '"BTC_USDC"', '"币安"', '""', '"a b"', f'"{"N" * 64}"', f'"{"N" * 65}"', "1"],
    "trade_seq": WHOLE,
    "trade_id": IDS,
    "starbase_timestamp": ["1786740206308878197", *WHOLE],
    "starbase_match_id": ["214121762240081920"],
    "index_price": NUMBERS,
    "mark_price": NUMBERS,
    "iv": NUMBERS,
    "tick_direction": ["0", "3", '"x"', "[]"],
    "contracts": NUMBERS,
    "liquidation": ['"M"', '"MT"', '"new"', "null", "false"],
    "block_trade_id": IDS,
    "combo_id": IDS,
    "combo_trade_id": IDS,
    "legs": ["[]", '[{"price":1,"price":2}]', "{"],
    "unknown": ["1", "{}", '"{"'],
}
GENERATIONS = {
    "2021": "trade_seq trade_id timestamp tick_direction price mark_price iv instrument_name index_price direction amount",
    "2025": "timestamp price amount direction index_price instrument_name trade_seq mark_price tick_direction contracts trade_id",
    "starbase": "timestamp price direction instrument_name index_price trade_id trade_seq amount mark_price tick_direction "
    "starbase_match_id contracts starbase_timestamp",
}
# By the exchange's kind: the names of its products, and what a record calls them.
PRODUCTS = {
    "future": {"BTC-PERPETUAL": "Perpetual", "SOL_USDC-PERPETUAL": "Perpetual", "BTC-25DEC26": "Future", "BTC_USDC-2OCT26": "Future"},
    "option": {"BTC-25DEC26-72000-C": "Option", "XRP_USDC-30JUN27-0d625-P": "Option"},
    "spot": {"BTC_USDC": "Spot", "ETH_BTC": "Spot"},
    "future_combo": {"BTC-FS-25DEC26_PERP": "Spread"},
    "option_combo": {"BTC-CS-19MAY26-70000_75000": "Spread", "ETH-STRG-19MAY26-74_79": "Spread"},
}


@st.composite
def good_rows(draw: st.DrawFn, names: list[str]) -> str:
    """A row of one generation, in its order or another, with or without what only some products have."""
    keys = GENERATIONS[draw(st.sampled_from(sorted(GENERATIONS)))].split()
    keys += draw(st.lists(st.sampled_from(["iv", "liquidation", "block_trade_id", "combo_id", "combo_trade_id"]), unique=True))
    keys = list(dict.fromkeys(keys))
    if draw(st.booleans()):
        keys = draw(st.permutations(keys))
    digits = st.from_regex(r"(0|[1-9][0-9]{0,11})(\.[0-9]{1,12})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)
    values = {
        "timestamp": str(draw(st.integers(1_500_000_000_000, 4_000_000_000_000))),
        "direction": draw(st.sampled_from(['"buy"', '"sell"'])),
        "instrument_name": f'"{draw(st.sampled_from(names))}"',
        "trade_id": draw(st.sampled_from(['"{}"', '"ETH-{}"', "{}"])).format(draw(st.integers(1, 2**60))),
        "trade_seq": str(draw(st.integers(1, 2**62))),
        "starbase_match_id": str(draw(st.integers(2**53, 2**62))),
        "starbase_timestamp": str(draw(st.integers(1_500_000_000_000_000_000, 2_000_000_000_000_000_000))),
        "tick_direction": str(draw(st.integers(0, 3))),
        "liquidation": '"T"',
        "block_trade_id": '"BLOCK-1"',
        "combo_id": '"BTC-FS-A_B"',
        "combo_trade_id": '"77"',
    }
    return "{" + ",".join(f'"{key}":{values.get(key) or draw(digits)}' for key in keys) + "}"


@given(st.data(), st.sampled_from(sorted(PRODUCTS)), st.sampled_from(["any", "BTC", "USDC"]), st.sampled_from(["raw", "100ms", "agg2"]))
@settings(max_examples=600, deadline=None)
def test_rows_of_every_generation_product_and_spelling(data: st.DataObject, product: str, currency: str, interval: str) -> None:
    kinds = PRODUCTS[product]
    rows = data.draw(st.lists(good_rows(list(kinds)), min_size=1, max_size=5))
    message = frame(*rows, channel=f"trades.{product}.{currency}.{interval}")
    assert check(message) == "TRADES"
    instruments = Instruments("DERIBIT")
    trades = DeribitDecoder(instruments).decode(message)[1]
    assert len(trades) == len(rows)
    for trade in trades:
        name = str(trade["asset"])
        assert instruments.kind(instruments.find(name)) == kinds[name]


@st.composite
def any_rows(draw: st.DrawFn) -> str:
    """Fields with values that can be and such that cannot, some of them twice."""
    keys = [*draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=24)), *GENERATIONS["2021"].split()]
    keys = draw(st.permutations(keys)) if draw(st.booleans()) else list(dict.fromkeys(keys))
    odd = draw(st.sampled_from([0, 0, 1, 10]))  # tenths of the values

    def value(key: str) -> str:
        return draw(st.sampled_from(FIELDS[key])) if draw(st.integers(0, 9)) < odd else FIELDS[key][0]

    return "{" + ",".join(f'"{key}":{value(key)}' for key in keys) + "}"


@given(st.lists(any_rows(), max_size=3), st.sampled_from(["trades.option.any.raw", "trades.X.raw", "trades.", "quote.BTC", "trades"]))
@settings(max_examples=600, deadline=None)
def test_rows_of_any_fields(rows: list[str], channel: str) -> None:
    check(frame(*rows, channel=channel))


def test_mutated_frames() -> None:
    seed = int(os.environ.get("MDC_SEED", "0")) or random.randrange(1, 1 << 30)
    print(f"MDC_SEED={seed}")
    chance = random.Random(seed)
    outcomes: Counter[str] = Counter()
    for original in itertools.islice(itertools.cycle([ONE, SEVERAL, TURNED, *OTHERS]), 4000):
        mutated = bytearray(original)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(mutated))
            match chance.randrange(3):
                case 0:
                    mutated[at] = chance.choice(b'{}[]",:.-+eE019 azAZ\\\x00\xff')
                case 1:
                    del mutated[at : at + chance.randrange(1, 20)]
                case _:
                    begin = chance.randrange(len(mutated))
                    mutated[at:at] = mutated[begin : begin + chance.randrange(1, 40)]
            if not mutated:
                break
        outcomes[check(bytes(mutated))] += 1
    assert {"TRADES", "OTHER", "MALFORMED"} <= outcomes.keys()


def test_hostile_frames_are_malformed_or_passed_over_and_never_too_much() -> None:
    assert check(frame(ROW.replace('"tick_direction":0', '"tick_direction":0,"tick_direction":0'))) == "MALFORMED"
    assert check(frame(ROW.replace('"tick_direction":0', '"new":0,"new":0'))) == "MALFORMED"
    assert check(frame(ROW.replace('"tick_direction":0', ",".join(f'"new{n}":0' for n in range(65))))) == "MALFORMED"
    assert check(frame(ROW.replace('"tick_direction":0', f'"new":{"[" * 70}{"]" * 70}'))) == "MALFORMED"
    assert check(frame(ROW, channel="trades." + "x" * 200)) == "OTHER"
    assert check(b'{"params":' + b'{"channel":' * 10_000) == "MALFORMED"
    large = frame(*[ROW] * 40_000)
    assert len(large) > 12 << 20
    outcome, trades = DECODER.decode(large)
    assert (outcome, len(trades)) == ("TRADES", 40_000)
    assert DECODER.decode(large + bytes(5 << 20))[0] == "MALFORMED"
