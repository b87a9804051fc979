"""Deribit's names, kinds and requests: from bytes to facts, on recorded bodies where there are any, and through real HTTP."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import count
from pathlib import Path

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from appliance.exchanges.deribit import EXCHANGE
from appliance.exchanges.exchange import BadReply, Exchange, Refusal, Trouble
from appliance.feed.rest import Rest
from tests.feed.scripted import run

CAPTURES = Path(os.environ.get("MDC_CAPTURES", Path(__file__).parents[3] / "shared" / "captures")) / "deribit" / "rest"
RECORDED = sorted(CAPTURES.glob("get_instruments_*.json.zst"))
needs_captures = pytest.mark.skipif(not RECORDED, reason=f"no recorded bodies: {CAPTURES} has none, set MDC_CAPTURES")

# Policy page: "500 channels in one subscription message"; 32 kB a request, or -32600 "request entity too large".
CHANNELS_MAX = 500
FRAME_BYTES_MAX = 32_000

LOGGED_IN = EXCHANGE.with_options({"interval": "raw", "client_id": "id", "client_secret": "secret"})
KINDS = {"option": "Option", "spot": "Spot", "future_combo": "Spread", "option_combo": "Spread"}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=70)
NO_LISTS = {
    "empty": (b"", "empty"),
    "html": (b"<html><body>maintenance</body></html>", "maintenance"),
    "maintenance": (b'{"jsonrpc":"2.0","error":{"code":11051,"message":"system_maintenance"},"testnet":false}', "11051 system_maintenance"),
    "throttled": (b'{"jsonrpc":"2.0","error":{"code":10028,"message":"too_many_requests","data":{}}}', "10028 too_many_requests"),
    "truncated": (b'{"jsonrpc":"2.0","result":[{"instrument_name":"BTC-PERPET', "BTC-PERPET"),
    "of something else": (b'{"jsonrpc":"2.0","result":{"trades":[],"has_more":false}}', "has_more"),
    "text": (b'{"jsonrpc":"2.0","result":"ok"}', '"ok"'),
    "null": (b'{"jsonrpc":"2.0","result":null}', "null"),
    "no result": (b'{"jsonrpc":"2.0","id":7}', '"id":7'),
    "a number last": (b'{"result":[{"instrument_name":"ETH_BTC","kind":"spot"},17]}', "17"),
    "of text": (b'{"result":["BTC-PERPETUAL"]}', "BTC-PERPETUAL"),
    "of lists": (b'{"result":[[]]}', "[[]]"),
    "bare": (b'[{"instrument_name":"ETH_BTC","kind":"spot"}]', "ETH_BTC"),
    "bare number": (b"17", "17"),
    "bare text": (b'"result"', "result"),
    "half a character": (b'{"result":[{"instrument_name":"\\ud800","kind":"spot"}]}', "instrument_name"),
    "deep, open": (b'{"result":[' + b"[" * 10_000, "[[["),
    "deep lists": (b'{"result":' + b"[" * 5_000 + b"]" * 5_000 + b"}", "[[["),
    "deep objects": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, '{"a":{"a":'),
    "utf-16": ('{"result":[]}'.encode("utf-16"), "\ufffd"),
    "latin-1": ('{"result":[{"instrument_name":"é","kind":"spot"}]}'.encode("latin-1"), "instrument_name"),
    "error behind a byte order mark": (b'\xef\xbb\xbf{"error":{"code":11051,"message":"system_maintenance"}}', "system_maintenance"),
}


def recorded(path: Path) -> bytes:
    with path.open("rb") as file:
        return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read()


def reference(body: bytes) -> dict[str, str]:
    """Name and kind of each, by the documentation."""
    listed = [(instrument["instrument_name"], instrument["kind"]) for instrument in json.loads(body)["result"]]
    return {name: KINDS.get(kind) or ("Perpetual" if name.endswith("-PERPETUAL") else "Future") for name, kind in listed}


def body(*instruments: object) -> bytes:
    reply = {"jsonrpc": "2.0", "result": instruments, "usIn": 1, "usOut": 2, "usDiff": 1, "testnet": False}
    return json.dumps(reply, ensure_ascii=False).encode()


def listed(*instruments: dict[str, object]) -> dict[str, str]:
    return EXCHANGE.instruments(body(*instruments))


def one(name: object, kind: object = "option", **more: object) -> dict[str, object]:
    return {"instrument_name": name, "kind": kind, "is_active": True, **more}


@contextmanager
def server(answer: bytes, status: int = 200) -> Iterator[tuple[str, list[str]]]:
    """An HTTP server on loopback that answers every GET so: its URL, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *arguments: object) -> None:
            """A test has no use for it."""

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}", asked
        finally:
            http.shutdown()
            thread.join()


def asked_over_http(url: str) -> dict[str, str] | Refusal:
    async def ask() -> dict[str, str] | Refusal:
        rest = Rest(EXCHANGE, url, None)
        try:
            return await rest.symbols()
        finally:
            await rest.close()

    return run(ask)


# Instruments


@needs_captures
@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name.partition(".")[0])
def test_a_recorded_list_means_what_the_documentation_says_also_over_http(path: Path) -> None:
    reply = recorded(path)
    expected = reference(reply)
    found = EXCHANGE.instruments(reply)
    assert found == expected
    assert list(found) == list(expected), "in the order of the list"
    with server(reply) as (url, asked):
        assert asked_over_http(url) == expected
        assert asked_over_http(f"{url}/api/v2/") == expected, "a URL may be given with the path"
    assert asked == ["/api/v2/public/get_instruments?currency=any&expired=false"] * 2


@needs_captures
def test_the_recorded_lists_have_every_kind_but_spot() -> None:
    found = {path.name: EXCHANGE.instruments(recorded(path)) for path in RECORDED}
    assert sum(map(len, found.values())) == 1_033
    kinds = [kind for kinds in found.values() for kind in kinds.values()]
    assert {kind: kinds.count(kind) for kind in sorted(set(kinds))} == {"Future": 19, "Option": 981, "Perpetual": 20, "Spread": 13}


@pytest.mark.parametrize(
    ("kind", "name", "wanted"),
    [
        ("future", "BTC-PERPETUAL", "Perpetual"),
        ("future", "SOL_USDC-PERPETUAL", "Perpetual"),
        ("future", "BTC-25DEC26", "Future"),
        ("future", "BTC_USDC-3OCT26", "Future"),
        ("option", "BTC-27DEC24-100000-C", "Option"),
        ("option", "XRP_USDC-30JUN23-0d625-C", "Option"),
        ("spot", "BTC_USDC", "Spot"),
        ("future_combo", "BTC-FS-25DEC26_PERP", "Spread"),
        ("future_combo", "X-PERPETUAL", "Spread"),  # the exchange's word counts, not the name's shape
        ("option_combo", "BTC-CS-19MAY26-70000_75000", "Spread"),
        ("a_combo_of_next_year", "BTC-XX-1", "Spread"),
        ("a_kind_of_next_year", "BTC-XX-1", "Future"),
    ],
)
def test_the_kind_of_a_record_is_the_exchanges_and_perpetuals_are_told_by_name(kind: str, name: str, wanted: str) -> None:
    assert listed(one(name, kind)) == {name: wanted}


def test_names_are_data_to_the_last_letter() -> None:
    """A strike of 0.625 is `0d625`: no name is brought to upper or lower case, cut or made of its parts."""
    names = ["XRP_USDC-30JUN23-0d625-C", "MATIC_USDC-5MAR26-0d3-P", "steth_usdc", "A.B-PERPETUAL", 'A"B\\C', "COIN50_USDC-PERPETUAL", "1"]
    assert list(listed(*map(one, names))) == names


@pytest.mark.parametrize("more", [{}, {"is_active": False, "state": "settlement"}, {"is_active": None}, {"new": {"deep": [1]}}])
def test_what_is_listed_is_taken_whatever_its_state(more: dict[str, object]) -> None:
    """An instrument is not active for the seconds of its settlement; those that have expired are not asked for."""
    assert listed({"instrument_name": "BTC-25DEC26", "kind": "future", **more}) == {"BTC-25DEC26": "Future"}


def test_names_that_no_record_can_hold_are_left_out_and_the_others_are_kept() -> None:
    """As `_fits` has it: 1 to 64 bytes, all printable; beyond ASCII too."""
    kept = ["ETH_BTC", "N" * 64, "币安_USDC", "é" * 32]
    left_out: list[object] = [
        "",
        "N" * 65,
        "é" * 33,
        "币" * 22,
        "A\x00B",
        "A\nB",
        "\x7f",
        "\u202eCTB",
        "A\u00a0B",
        None,
        17,
        ["ETH_BTC"],
        {},
    ]
    strange: list[dict[str, object]] = [
        *map(one, left_out),
        {"kind": "spot"},
        {"instrument_name": "NO-KIND"},
        one("X", None),
        one("X", 1),
        {},
    ]
    assert listed(*strange, *map(one, kept), *strange) == dict.fromkeys(kept, "Option")


@given(st.lists(st.tuples(TEXT, st.sampled_from(["future", "option", "spot", "future_combo", "?"])), max_size=20))
@settings(deadline=None)
def test_a_list_of_any_names_gives_some_of_them_unchanged(instruments: list[tuple[str, str]]) -> None:
    found = listed(*(one(name, kind) for name, kind in instruments))
    assert list(found) == list(dict.fromkeys(name for name, _ in instruments if name.isprintable() and 0 < len(name.encode()) <= 64))


def test_an_empty_list_is_a_list() -> None:
    assert listed() == {}


@pytest.mark.parametrize(("reply", "said"), NO_LISTS.values(), ids=NO_LISTS)
def test_what_is_no_list_of_instruments_is_said_in_one_short_line(reply: bytes, said: str) -> None:
    with pytest.raises(BadReply, match="no list of instruments") as caught:
        EXCHANGE.instruments(reply)
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert len(message) < 300


def test_what_is_no_list_is_said_only_once_over_http() -> None:
    with server(b"<html><body>\nmaintenance\n</body></html>") as (url, asked):
        answer = asked_over_http(url)
    assert isinstance(answer, Refusal)
    assert answer.trouble == Trouble.AWAY
    assert "maintenance" in answer.reason
    assert len(asked) == 1


def test_an_error_of_the_exchange_comes_with_status_400_and_is_told_by_its_code() -> None:
    """T16."""
    with server(b'{"jsonrpc":"2.0","error":{"code":10028,"message":"too_many_requests"},"usIn":1}', 400) as (url, _):
        answer = asked_over_http(url)
    assert isinstance(answer, Refusal)
    assert answer.trouble == Trouble.BANNED
    assert "10028 too_many_requests" in answer.reason


@given(st.binary(max_size=200))
@settings(deadline=None)
@example(b'{"result":[]}')
def test_any_bytes_are_a_list_or_none(reply: bytes) -> None:
    try:
        found = EXCHANGE.instruments(reply)
    except BadReply:
        return
    assert found == {}


# Channels


@pytest.mark.parametrize("interval", ["raw", "100ms", "agg2", None])
def test_every_product_and_its_listings_are_on_wildcard_channels_whatever_is_listed(interval: str | None) -> None:
    """Kind `any` is none of the trades channels' kinds."""
    exchange = EXCHANGE.with_options({"interval": interval, "client_id": None, "client_secret": None})
    streams = exchange.streams([])
    kinds = ["future", "option", "spot", "future_combo", "option_combo"]
    assert [stream for stream in streams if stream.startswith("trades.")] == [f"trades.{kind}.any.{interval or 'raw'}" for kind in kinds]
    assert [stream for stream in streams if stream.startswith("instrument.")] == [f"instrument.state.{kind}.any" for kind in kinds]
    assert "platform_state" in streams
    assert len(set(streams)) == len(streams)
    assert exchange.streams(["BTC-PERPETUAL", "XRP_USDC-30JUN23-0d625-C"]) == streams
    assert exchange.connect_path(streams) == ("", streams)


def test_the_list_is_asked_for_without_those_that_have_expired() -> None:
    question = EXCHANGE.discovery()
    assert question.path == "/public/get_instruments?currency=any&expired=false"
    # 1 in 10 s on the stricter of two pages.
    assert EXCHANGE.rules.weight_per_minute / question.weight <= 6


# Subscriptions

BASES = ["BTC", "ETH", "XRP_USDC", "SOMETHING_LONG_USDC"]
PARTS = ["FS", "CS", "25DEC26", "26MAR27_25DEC26", "70000_75000", "0d625_0d75", "PERPETUAL", "ICOND", "C", "P"]
SHORT = st.builds(lambda base, strike: f"trades.{base}-25DEC26-{strike}-C.raw", st.sampled_from(BASES), st.integers(0, 10**6))
COMBO = st.builds(
    lambda base, parts: f"trades.{'-'.join([base, *parts])}.100ms",
    st.sampled_from(BASES),
    st.lists(st.sampled_from(PARTS), min_size=1, max_size=12),
)
STRANGE = TEXT.filter(len)


@st.composite
def channels(draw: st.DrawFn) -> list[str]:
    """Up to 3,000 distinct names: few drawn ones, each many times, told apart by a number of any length."""
    samples = draw(st.lists(st.one_of(SHORT, COMBO, STRANGE), min_size=1, max_size=12))
    total = draw(st.sampled_from([0, 1, 2, 499, 500, 501, 999, 1_000, 1_001, 3_000]) | st.integers(0, 3_000))
    width = draw(st.integers(4, 120))
    return [f"{samples[number % len(samples)]}{number:0{width}}" for number in range(total)]


def check_subscriptions(exchange: Exchange, wanted: list[str], first_request: int) -> list[int]:
    """Check every frame on its own, and all together; the sizes in channels."""
    frames = exchange.subscribe(wanted, count(first_request))
    requests = [request for request, _ in frames]
    assert requests == list(range(first_request, first_request + len(frames)))
    asked: list[str] = []
    sizes: list[int] = []
    for request, frame in frames:
        message = json.loads(frame)
        assert message.keys() == {"jsonrpc", "id", "method", "params"}
        assert (message["jsonrpc"], message["id"]) == ("2.0", request)
        assert message["params"].keys() == {"channels"}
        assert 0 < len(message["params"]["channels"]) <= CHANNELS_MAX
        assert len(frame) <= FRAME_BYTES_MAX
        asked += message["params"]["channels"]
        sizes.append(len(message["params"]["channels"]))
    assert asked == wanted, "each channel once and in order"
    return sizes


@given(channels(), st.sampled_from([EXCHANGE, LOGGED_IN]), st.integers(0, 2**53))
@settings(deadline=None, max_examples=40)
@example([], EXCHANGE, 1)
@example([f"trades.BTC-CS-19MAY26-{n:0200}.raw" for n in range(3_000)], LOGGED_IN, 2**53)
def test_every_subscription_stays_within_the_exchanges_limits(wanted: list[str], exchange: Exchange, first_request: int) -> None:
    check_subscriptions(exchange, wanted, first_request)


def test_subscriptions_are_as_few_as_the_limits_allow() -> None:
    assert check_subscriptions(EXCHANGE, [f"trades.BTC-25DEC26-{n}-C.raw" for n in range(1_200)], 7) == [500, 500, 200]
    long = [f"trades.BTC-CS-19MAY26-{n:0200}.raw" for n in range(500)]
    sizes = check_subscriptions(EXCHANGE, long, 7)
    assert len(sizes) == -(-500 // sizes[0])
    assert (sizes[0] + 2) * len(json.dumps(long[0])) > FRAME_BYTES_MAX


def test_with_a_login_the_private_method_is_asked() -> None:
    streams = LOGGED_IN.streams([])
    [(request, frame)] = LOGGED_IN.subscribe(streams, count(3))
    assert request == 3
    assert json.loads(frame) == {"jsonrpc": "2.0", "id": 3, "method": "private/subscribe", "params": {"channels": streams}}
    [(_, frame)] = EXCHANGE.subscribe(streams, count(3))
    assert json.loads(frame)["method"] == "public/subscribe"
