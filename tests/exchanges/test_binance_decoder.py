"""The compiled decoder says of every frame what the plain one says: recorded, composed, mutated and hostile frames."""

import io
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.exchanges.binance_decoder import BinanceDecoder
from appliance.exchanges.instruments import Instruments
from tests.exchanges import reference_decoder

CAPTURES = Path(os.environ.get("MDC_CAPTURES", Path(__file__).parents[3] / "shared" / "captures")) / "binance"
SYMBOLS = ["BTCUSDT", "ETHUSDT", "币安人生USDT", 'A"\\B', "1000SATSUSDT"]

FRAME = (
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1790649901913,"s":"BTCUSDT","t":6720857582,'
    b'"p":"83034.29000000","q":"0.00062000","T":1790649901913,"m":true,"M":true}}'
)
OLD_FRAME = (
    b'{"e":"trade","E":1672515782136,"s":"ETHUSDT","t":12345,"p":"0.001","q":"100","b":88,"a":50,"T":1672515782136,"m":false,"M":true}'
)
MICROSECONDS = FRAME.replace(b"1790649901913", b"1790649901913123")
FUTURES = (
    b'{"stream":"kiteusdt@trade","data":{"e":"trade","E":1764079443353,"T":1764079443353,"s":"KITEUSDT","t":57635348,'
    b'"p":"0.1006800","q":"55","X":"MARKET","m":true}}'
)
CHINESE = FRAME.replace(b"BTCUSDT", "币安人生USDT".encode())
ESCAPED = CHINESE.replace("币安人生USDT".encode(), b"\\u5e01\\u5b89\\u4eba\\u751fUSDT").replace(b'"e":"trade"', b'"\\u0065":"tr\\u0061de"')
BOOK = b'{"stream":"btcusdt@bookTicker","data":{"u":50093277421,"s":"BTCUSDT","b":"61822.01","B":"1.45","a":"61822.02","A":"4.2"}}'
DEPTH = b'{"stream":"b@depth","data":{"e":"depthUpdate","U":1,"b":[["61737.6","0.0"],["1","2"]],"a":[],"x":{"y":[{"z":-1.5e-7}]}}}'
OTHERS = [
    BOOK,
    DEPTH,
    b'{"result":null,"id":1}',
    b'{"result":["btcusdt@trade"],"id":3}',
    b'{"error":{"code":2,"msg":"Invalid request: invalid stream"},"id":1}',
    b'{"e":"serverShutdown","E":1770123456789}',
    b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}',
    b'{"stream":"!ticker@arr","data":[{"e":"24hrTicker"},{"e":"trade"}]}',
    b"[]",
    b"[1,2.5,{}]",
    b"{}",
    b"null",
    b"17",
    b'"text"',
    b' \r\n\t{"e":5}\n',
]
SEEDS = [FRAME, OLD_FRAME, MICROSECONDS, FUTURES, CHINESE, ESCAPED, *OTHERS]


def decoder() -> BinanceDecoder:
    instruments = Instruments("BINANCE")
    for symbol in SYMBOLS:
        instruments.add(symbol)
    return BinanceDecoder(instruments)


DECODER = decoder()  # one for all: what a frame leaves behind must not reach the next
BEHIND = b'}]"},1e5\\x' * 8


def check(payload: bytes) -> str:
    """Both decoders on one frame, also with other bytes right behind it; the outcome they agree on."""
    expected = reference_decoder.decode(payload, SYMBOLS)
    assert DECODER.decode(payload) == expected
    assert DECODER.decode(payload + BEHIND, len(payload)) == expected
    return expected[0]


def with_field(key: str, value: str) -> bytes:
    """FRAME with another spelling of one field's value."""
    before, _, after = FRAME.decode().partition(f'"{key}":')
    end = after.index('",') + 1 if after.startswith('"') else min(after.index(mark) for mark in ",}" if mark in after)
    return f'{before}"{key}":{value}{after[end:]}'.encode()


@pytest.mark.skipif(not CAPTURES.is_dir(), reason=f"no recorded frames: {CAPTURES} is not there, set MDC_CAPTURES")
def test_every_recorded_frame_means_what_the_plain_decoder_says() -> None:
    outcomes: Counter[str] = Counter()
    differing = []
    with (CAPTURES / "ws.jsonl.zst").open("rb") as file:
        for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8", newline="\n"):
            frame = json.loads(line)["raw"].encode()
            decoded = DECODER.decode(frame)
            outcomes[decoded[0]] += 1
            if decoded != reference_decoder.decode(frame, SYMBOLS):
                differing.append(frame)
    assert differing == []
    assert outcomes == {"OTHER": 108_988, "TRADES": 26_023, "WRONG_VENUE": 115, "UNKNOWN_SYMBOL": 1}


def test_a_trade_is_decoded_digit_for_digit() -> None:
    assert DECODER.decode(FRAME) == (
        "TRADES",
        [
            {
                "asset": "BTCUSDT",
                "trade_id": 6720857582,
                "sequence_id": 6720857582,
                "exchange_ts_ms": 1790649901913,
                "exchange_ts_ns": 0,
                "px": "83034.29000000",
                "sz": "0.00062000",
                "side": "Sell",
                "tail": "",
            }
        ],
    )


def test_microseconds_are_known_by_their_magnitude() -> None:
    """T20."""
    outcome, (trade,) = DECODER.decode(MICROSECONDS)
    assert (outcome, trade["exchange_ts_ms"], trade["exchange_ts_ns"]) == ("TRADES", 1790649901913, 1790649901913123000)


def test_the_old_schema_and_unknown_keys_are_trades() -> None:
    """T18."""
    assert check(OLD_FRAME) == "TRADES"
    assert check(FRAME.replace(b'"M":true', b'"M":false,"new":[{"deep":{"er":[null,1e-400]}}],"N":"x"')) == "TRADES"
    assert check(FRAME.replace(b'"stream"', b'"ping":{"a":1},"stream"')) == "TRADES"


def test_unicode_symbols_are_found_plain_and_escaped() -> None:
    """T19."""
    assert check(CHINESE) == check(ESCAPED) == "TRADES"
    assert check(with_field("s", '"A\\"\\\\B"')) == check(with_field("s", '"\\u0041\\u0022\\u005cB"')) == "TRADES"
    assert check(with_field("s", '"\\ud83d\\ude00"')) == check(with_field("s", '"\\ud83d"')) == "UNKNOWN_SYMBOL"


def test_a_futures_shaped_trade_is_of_the_wrong_venue() -> None:
    assert check(FUTURES) == check(FRAME.replace(b'"M"', b'"X"')) == check(FRAME.replace(b'"M"', b'"st"')) == "WRONG_VENUE"
    assert check(FUTURES.replace(b'"p":"0.1006800",', b"")) == "WRONG_VENUE"


@pytest.mark.parametrize("frame", OTHERS, ids=lambda frame: frame.decode()[:40])
def test_what_is_no_trade_is_another_frame(frame: bytes) -> None:
    assert check(frame) == "OTHER"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[(key, value) for key in "pq" for value in ("1", "1.0e5", '"NaN"', '"Infinity"', '""', '"01."', '"01"', '"1."', '".5"', '"-1"')],
        *[
            (key, value)
            for key in "pq"
            for value in ('" 1"', '"1 "', '"+1"', '"0x1"', '"1e"', '"1e400"', '"1,5"', f'"{"9" * 41}"', '"1\\n"')
        ],
        *[(key, value) for key in "pq" for value in ("null", "true", "[]", '{"a":1}', '"\uff11"', '"1\\u0061"')],
        *[("t", value) for value in ('"1"', "1.0", "1e3", "-1", "-0", "01", "9999999999999999999", "null", "true", "[1]", "NaN", "0x1")],
        *[
            ("T", value)
            for value in ("0", "1790649901", "4102444800000", "999999999999", "1790649901913123456", '"1790649901913"', "1.79e12")
        ],
        *[("m", value) for value in ("null", "0", '"true"', "True", "tru", "truee", "[]")],
        *[("s", value) for value in ("null", "7", "[]", '"\\q"', '"\\u12"', '"\\u12g4"', '"a\tb"')],
        *[("stream", value) for value in ("null", "1", "{}")],
        *[("M", value) for value in ("NaN", "+1", "01", ".5", "1.", "nul", "'x'", "Infinity", "-", "1e", "\x00")],
    ],
)
def test_a_field_that_cannot_be_makes_the_whole_frame_malformed(key: str, value: str) -> None:
    assert check(with_field(key, value)) == "MALFORMED"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[(key, value) for key in "pq" for value in ('"0"', '"0.0"', '"1e5"', '"1E-07"', f'"{"9" * 40}"', '"\\u0031.5"', '"0.1e+10"')],
        *[("t", value) for value in ("0", "1", "4294967296", "999999999999999999")],
        *[("T", value) for value in ("1000000000000", "4102444799999", "1000000000000000", "4102444799999999")],
        *[("E", value) for value in ("null", '"later"', "1.5e3")],
        ("stream", '"ethusdt@trade"'),
    ],
)
def test_a_field_that_can_be_is_taken_as_it_is_spelled(key: str, value: str) -> None:
    assert check(with_field(key, value)) == "TRADES"


@pytest.mark.parametrize("key", ["e", "s", "t", "p", "q", "T", "m"])
def test_a_trade_without_one_of_its_fields_is_malformed(key: str) -> None:
    assert check(FRAME.replace(f'"{key}":'.encode(), b'"z":')) == ("OTHER" if key == "e" else "MALFORMED")


@pytest.mark.parametrize(
    "frame",
    [
        FRAME.replace(b'"M":true', b'"t":6720857582'),
        FRAME.replace(b'"M":true', b'"\\u0074":1'),
        FRAME.replace(b'"M":true', b'"b":1,"b":1'),
        FRAME.replace(b'"M":true', b'"long":1,"l\\u006fng":1'),
        FRAME.replace(b'"M":true', b'"":1,"":1'),
        FRAME[:-1] + b',"stream":"x"}',
        FRAME[:-1] + b',"data":{}}',
        FRAME[:-1] + b',"d\\u0061ta":{}}',
        b'{"a":1,"a":2}',
        FRAME.replace(b'"M":true', ",".join(f'"key{number}":0' for number in range(129)).encode()),
    ],
)
def test_a_repeated_key_makes_the_frame_malformed(frame: bytes) -> None:
    assert check(frame) == "MALFORMED"


def test_a_key_that_begins_like_another_is_not_repeated() -> None:
    for keys in (b'"long":1,"l\\u006f":1', b'"l\\u006f":1,"long":1', b'"tt":1,"ttt":1', b'"\\ud83d\\ude00":1,"\\ud83d":1'):
        assert check(FRAME.replace(b'"M":true', keys)) == "TRADES"


def test_as_many_keys_as_are_allowed_are_a_trade() -> None:
    assert check(FRAME.replace(b'"M":true', ",".join(f'"key{number}":0' for number in range(128)).encode())) == "TRADES"


@pytest.mark.parametrize("frame", SEEDS, ids=range(len(SEEDS)))
def test_a_frame_cut_anywhere_is_not_believed(frame: bytes) -> None:
    for end in range(len(frame)):
        outcome = check(frame[:end])
        assert outcome not in {"TRADES", "WRONG_VENUE", "UNKNOWN_SYMBOL"}
        check(frame[end:])


@pytest.mark.parametrize("behind", [b" ", b"\n\t ", b"{}", b"}", b"]", b",", b"0", b"\x00", FRAME, b'"', b"//"])
def test_nothing_but_white_space_may_stand_behind_a_frame(behind: bytes) -> None:
    assert check(FRAME + behind) == ("TRADES" if behind.isspace() else "MALFORMED")
    check(BOOK + behind)


@pytest.mark.parametrize("depth", [62, 63, 64, 65, 1_000, 10_000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_nesting_is_bounded(depth: int, opening: bytes, closing: bytes) -> None:
    nested = opening * depth + b"1" + closing * depth
    for frame in (nested, FRAME.replace(b'"M":true', b'"M":' + nested), opening * depth):
        check(frame)
    assert DECODER.decode(FRAME.replace(b'"M":true', b'"M":' + nested))[0] == ("TRADES" if depth <= 62 else "MALFORMED")
    assert check(FRAME) == "TRADES"


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\x00" * 100,
        bytes(range(256)) * 10,
        b"\xef\xbb\xbf" + FRAME,
        FRAME.replace(b"btcusdt", b"btc\xffusdt"),
        FRAME.replace(b"btcusdt", b"\xed\xa0\x80"),
        FRAME.replace(b"btcusdt", b"\xc0\xaf"),
        b"<html><body>403</body></html>",
        b'{"stream":',
        b"\\",
        b'"\\',
    ],
)
def test_garbage_is_malformed_and_the_next_frame_is_not_harmed(garbage: bytes) -> None:
    assert check(garbage) == "MALFORMED"
    assert check(FRAME) == "TRADES"


def test_large_frames_are_judged_up_to_the_bound_of_a_message() -> None:
    large = FRAME.replace(b'"M":true', b'"M":"' + b"x" * 10_000_000 + b'"')
    assert DECODER.decode(large)[0] == "TRADES"
    assert DECODER.decode(b"[" * 10_000_000)[0] == "MALFORMED"
    assert DECODER.decode(b"[" + b"0," * 4_000_000 + b"0]")[0] == "OTHER"
    bound = FRAME + b" " * (16 * 1024 * 1024 - len(FRAME))
    assert DECODER.decode(bound)[0] == "TRADES"
    assert DECODER.decode(bound + b" ")[0] == "MALFORMED"
    assert check(FRAME) == "TRADES"


PIECES = [*b'"{}[],: \\0e.-', b"null", b"true", b"NaN", b'"e":', b"\\u0065"]


@settings(max_examples=1500, deadline=None)
@given(st.data())
def test_mutated_frames_mean_the_same_to_both(data: st.DataObject) -> None:
    frame = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(frame)))
        piece = data.draw(st.one_of(st.binary(max_size=3), st.sampled_from(PIECES)))
        piece = bytes([piece]) if isinstance(piece, int) else piece
        frame[at : at + data.draw(st.integers(0, 3))] = piece
    check(bytes(frame))


def test_every_single_byte_of_a_frame_changed_means_the_same_to_both() -> None:
    changes = random.Random(3)
    for frame in (FRAME, OLD_FRAME, FUTURES, ESCAPED):
        for at in range(len(frame)):
            for byte in {*b'"\\{}[],: 0', frame[at] ^ 1 << changes.randrange(8), changes.randrange(256)}:
                check(frame[:at] + bytes([byte]) + frame[at + 1 :])
            check(frame[:at] + frame[at + 1 :])


TEXTS = st.text(max_size=8)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)
FIELDS = st.fixed_dictionaries(
    {
        "e": st.sampled_from(["trade", "trade", "trade", "aggTrade"]),
        "s": st.sampled_from([*SYMBOLS, "NONEUSDT"]),
        "t": st.integers(0, 2**62),
        "p": st.decimals(0, 10**9, places=8, allow_nan=False).map(str),
        "q": st.decimals(0, 10**9, places=4, allow_nan=False).map(lambda size: f"{size:f}"),
        "T": st.one_of(st.integers(10**12, 4 * 10**12), st.integers(10**15, 4 * 10**15), st.integers()),
        "m": st.booleans(),
    },
    optional={"E": VALUES, "M": VALUES, "b": VALUES, "X": VALUES, "st": VALUES, "nested": VALUES, "data": VALUES, "stream": VALUES},
)


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_composed_frames_mean_the_same_to_both(data: st.DataObject) -> None:
    fields = data.draw(FIELDS)
    if data.draw(st.booleans()):
        changed = data.draw(st.sampled_from(sorted(fields)))
        fields[changed] = data.draw(VALUES)
    order = data.draw(st.permutations(sorted(fields)))
    shuffled = {key: fields[key] for key in order}
    envelope = data.draw(
        st.sampled_from(
            [shuffled, {"stream": "x@trade", "data": shuffled}, {"data": shuffled, "id": 1, "stream": "y"}, {"data": [shuffled]}]
        )
    )
    spaces = data.draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r ")]))
    check(json.dumps(envelope, ensure_ascii=data.draw(st.booleans()), separators=spaces).encode())


@pytest.mark.parametrize("instructions", ["fallback", "westmere", "haswell", "icelake", "arm64"])
def test_every_set_of_instructions_brings_the_same_outcomes(instructions: str) -> None:
    """simdjson chooses at run time; those that this machine does not have are skipped."""
    program = (
        "from tests.exchanges.test_binance_decoder import *\n"
        "for frame in SEEDS:\n"
        "    for end in range(len(frame) + 1):\n"
        "        check(frame[:end]); check(frame[end:])\n"
        "test_every_single_byte_of_a_frame_changed_means_the_same_to_both()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"SIMDJSON_FORCE_IMPLEMENTATION": instructions},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "simdjson cannot be used" in result.stderr or result.returncode == -signal.SIGILL:
        pytest.skip(f"this machine has no {instructions}")
    assert result.stderr == ""
    assert result.returncode == 0
