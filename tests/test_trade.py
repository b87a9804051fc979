"""Values for Python readers: names of the JSON, digits of the wire, nanoseconds of the header."""

import dataclasses
import json
from decimal import Decimal

import pytest

from appliance import Gap, GapClosed, Kind, Side, Status, Trade
from appliance.ring.reader import Record
from tests.streams import trade_payload

NS = 1_762_632_731_123_456_789


def record(payload: bytes, flags: int = 0, type: int = 1) -> Record:
    return Record(
        type=type, sequence=7, position=4096, epoch=3, flags=flags, codec=0,
        recv_ns=NS, parse_ns=NS + 1_000_000, enqueue_ns=NS + 2_000_000, write_ns=NS + 3_000_000, payload=payload,
    )  # fmt: skip


def test_it_has_the_names_of_the_json() -> None:
    fields = json.loads(trade_payload("BTCUSDT", 42))
    trade = Trade.from_record(record(trade_payload("BTCUSDT", 42)), chunk=0)
    for name, value in fields.items():
        if name in ("px", "sz"):
            assert float(getattr(trade, name)) == value
        elif not name.endswith("_ts_ms") or name == "exchange_ts_ms":
            assert getattr(trade, name) == value


@pytest.mark.parametrize("digits", ["0.00000001", "61597.20000000", "100", "1e-7", "123456789012345678901234567890.12345678"])
def test_px_keeps_every_digit_of_the_wire(digits: str) -> None:
    trade = Trade.from_record(record(trade_payload("BTCUSDT", 1, px=digits, sz=digits)), chunk=0)
    assert str(trade.px_digits) == digits
    assert trade.px == trade.sz == Decimal(digits)
    assert trade.px_float == trade.sz_float == float(digits)


def test_times_are_the_headers_in_ns_and_in_ms() -> None:
    trade = Trade.from_record(record(trade_payload("BTCUSDT", 1)), chunk=0, persist_ts_ns=NS + 50_000_000)
    assert (trade.recv_ts_ns, trade.parse_ts_ns, trade.enqueue_ts_ns, trade.writer_ts_ns) == tuple(NS + i * 1_000_000 for i in range(4))
    assert trade.recv_ts_ms == NS // 1_000_000
    assert trade.writer_ts_ms == NS // 1_000_000 + 3
    assert trade.persist_ts_ms == NS // 1_000_000 + 50
    assert trade.exchange_ts_ms == 1762632731000
    assert trade.exchange_ts_ns == 1762632731000 * 1_000_000


def test_a_finer_exchange_time_is_kept() -> None:
    payload = trade_payload("BTCUSDT", 1)[:-1] + b',"exchange_ts_ns":1762632731000123000}'
    assert Trade.from_record(record(payload), chunk=0).exchange_ts_ns == 1762632731000123000


def test_what_is_not_on_disk_has_no_persist_time() -> None:
    trade = Trade.from_record(record(trade_payload("BTCUSDT", 1)), chunk=0)
    assert trade.persist_ts_ns is None
    assert trade.persist_ts_ms is None


@pytest.mark.parametrize(
    ("flags", "leg", "backfilled", "late"), [(0, 0, False, False), (1, 1, False, False), (0x0F, 7, True, False), (0x12, 2, False, True)]
)
def test_flags_say_where_it_came_from(flags: int, leg: int, backfilled: bool, late: bool) -> None:
    trade = Trade.from_record(record(trade_payload("BTCUSDT", 1), flags), chunk=2)
    assert (trade.leg, trade.backfilled, trade.late, trade.chunk) == (leg, backfilled, late, 2)


def test_sides_and_kinds_compare_with_their_text() -> None:
    trade = Trade.from_record(record(trade_payload("币安人生USDT", 2**53, side="Buy", era=4)), chunk=0)
    assert (trade.side, trade.kind) == ("Buy", "Spot")
    assert (trade.side, trade.kind) == (Side.BUY, Kind.SPOT)
    assert (trade.asset, trade.exchange_trade_id, trade.era) == ("币安人生USDT", 2**53, 4)


def test_it_is_a_value() -> None:
    one, same = (Trade.from_record(record(trade_payload("BTCUSDT", 1)), chunk=0) for _ in range(2))
    assert one == same
    assert len({one, same}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.asset = "ETHUSDT"  # type: ignore[misc]


def test_a_gap_names_its_ids() -> None:
    payload = (
        b'{"record":"gap","exchange":"BINANCE","chunk":0,"asset":"BTCUSDT","from_id":5,"to_id":9,"detected_ts_ms":1762632731000,"era":1}'
    )
    gap = Gap.from_record(record(payload, type=2), chunk=0)
    assert (gap.asset, gap.from_id, gap.to_id, gap.era, gap.detected_ts_ms) == ("BTCUSDT", 5, 9, 1, 1762632731000)
    assert gap.record == "gap"
    assert hash(gap) == hash(Gap.from_record(record(payload, type=2), chunk=0))
    assert GapClosed.from_record(record(payload, type=3), chunk=0).to_id == 9


def test_a_status_keeps_what_has_no_attribute() -> None:
    status = Status.from_record(record(b'{"record":"status","exchange":"BINANCE","chunk":0,"event":"connected","leg":1}', type=6), chunk=0)
    assert (status.event, status.fields["leg"], status.writer_ts_ms) == ("connected", 1, (NS + 3_000_000) // 1_000_000)
