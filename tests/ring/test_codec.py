"""A trade's payload: fields in the contract's order, digits as on the wire, bounded in length."""

import json

from hypothesis import given
from hypothesis import strategies as st

from appliance.exchanges.instruments import Instruments
from appliance.ring.codec import TradeEncoder

INT64 = st.integers(-(2**63), 2**63 - 1)
TIMES_NS = st.one_of(st.integers(10**18, 9 * 10**18), INT64)
DIGITS = st.from_regex(r"\A(0|[1-9][0-9]{0,18})(\.[0-9]{1,17})?(e-[0-9])?\Z").map(str.encode)
PAYLOAD_BYTES_MAX = 1024


def start_of_records(name: str, exchange: str = "BINANCE", kind: str = "Spot") -> bytes:
    instruments = Instruments(exchange)
    instruments.add(name, kind)
    return instruments.start_of_records(0)


def test_a_payload_is_the_json_of_the_contract() -> None:
    payload = TradeEncoder().encoded(
        start_of_records("BTCUSDT"),
        b"61597.20000000",
        b"0.00662000",
        sells=True,
        trade_id=3735690372,
        exchange_ts_ms=1723161515302,
        recv_ns=1723161515303_999_999,
        parse_ns=1723161515304_000_000,
        enqueue_ns=1723161515305_000_001,
        write_ns=1723161515306_123_456,
    )
    assert payload == (
        b'{"exchange":"BINANCE","asset":"BTCUSDT","kind":"Spot","px":61597.20000000,"sz":0.00662000,"side":"Sell",'
        b'"exchange_trade_id":3735690372,"exchange_ts_ms":1723161515302,"writer_ts_ms":1723161515306,'
        b'"recv_ts_ms":1723161515303,"parse_ts_ms":1723161515304,"enqueue_ts_ms":1723161515305}'
    )


def test_further_fields_stand_behind_the_fixed_ones() -> None:
    payload = TradeEncoder().encoded(
        start_of_records("BTC-PERPETUAL", "DERIBIT", "Perpetual"),
        b"101872.0",
        b"0.0001",
        sells=False,
        trade_id=2758805,
        exchange_ts_ms=1762631812784,
        recv_ns=10**18,
        parse_ns=10**18,
        enqueue_ns=10**18,
        write_ns=10**18,
        exchange_ts_ns=1762631812784_123_000,
        era=4294967295,
        tail=b',"exchange_trade_seq":77',
    )
    assert payload.endswith(
        b'"side":"Buy","exchange_trade_id":2758805,"exchange_ts_ms":1762631812784,"writer_ts_ms":1000000000000,'
        b'"recv_ts_ms":1000000000000,"parse_ts_ms":1000000000000,"enqueue_ts_ms":1000000000000,'
        b'"exchange_trade_seq":77,"exchange_ts_ns":1762631812784123000,"era":4294967295}'
    )


@given(
    name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=16),
    px=DIGITS,
    sz=DIGITS,
    sells=st.booleans(),
    trade_id=INT64,
    exchange_ts_ms=INT64,
    stamps=st.tuples(TIMES_NS, TIMES_NS, TIMES_NS, TIMES_NS),
    exchange_ts_ns=st.one_of(st.just(0), INT64),
    era=st.one_of(st.just(0), st.integers(0, 2**32 - 1)),
)
def test_every_trade_reads_back_as_it_was(
    name: str,
    px: bytes,
    sz: bytes,
    sells: bool,
    trade_id: int,
    exchange_ts_ms: int,
    stamps: tuple[int, int, int, int],
    exchange_ts_ns: int,
    era: int,
) -> None:
    recv_ns, parse_ns, enqueue_ns, write_ns = stamps
    payload = TradeEncoder().encoded(
        start_of_records(name),
        px,
        sz,
        sells=sells,
        trade_id=trade_id,
        exchange_ts_ms=exchange_ts_ms,
        recv_ns=recv_ns,
        parse_ns=parse_ns,
        enqueue_ns=enqueue_ns,
        write_ns=write_ns,
        exchange_ts_ns=exchange_ts_ns,
        era=era,
    )
    expected = {
        "exchange": "BINANCE",
        "asset": name,
        "kind": "Spot",
        "px": px.decode(),
        "sz": sz.decode(),
        "side": "Sell" if sells else "Buy",
        "exchange_trade_id": str(trade_id),
        "exchange_ts_ms": str(exchange_ts_ms),
        # It has a fixed width: times that have another are written as the first that fits.
        "writer_ts_ms": str(max(write_ns // 10**6, 10**12)),
        "recv_ts_ms": str(milliseconds(recv_ns)),
        "parse_ts_ms": str(milliseconds(parse_ns)),
        "enqueue_ts_ms": str(milliseconds(enqueue_ns)),
    }
    if exchange_ts_ns:
        expected["exchange_ts_ns"] = str(exchange_ts_ns)
    if era:
        expected["era"] = str(era)
    fields = json.loads(payload, parse_int=str, parse_float=str, object_pairs_hook=list)
    assert fields == list(expected.items())
    assert len(payload) <= PAYLOAD_BYTES_MAX


def milliseconds(time_ns: int) -> int:
    return abs(time_ns) // 10**6 * (1 if time_ns > 0 else -1)


def test_the_longest_payload_stays_within_its_bound() -> None:
    payload = TradeEncoder().encoded(
        start_of_records("\x01" * 64, "E" * 32, "K" * 16),
        b"1" * 40,
        b"1" * 40,
        sells=True,
        trade_id=-(2**63),
        exchange_ts_ms=-(2**63),
        recv_ns=-(2**63),
        parse_ns=-(2**63),
        enqueue_ns=-(2**63),
        write_ns=-(2**63),
        exchange_ts_ns=-(2**63),
        era=2**32 - 1,
    )
    json.loads(payload)
    assert len(payload) <= PAYLOAD_BYTES_MAX - 128
