"""Every format version that was ever written is still read: one journal of each lies in `golden/`."""

from decimal import Decimal
from pathlib import Path

from appliance import Boundary, Gap, Status, Trade, open_rings

GOLDEN = Path(__file__).with_name("golden")


def test_a_journal_of_version_1_reads_as_it_was_written() -> None:
    values = list(open_rings(GOLDEN / "v1"))
    assert [type(value) for value in values] == [Boundary, Trade, Trade, Trade, Trade, Trade, Gap, Status]
    trades = [value for value in values if isinstance(value, Trade)]
    assert [trade.exchange_trade_id for trade in trades] == [6720857581, 6720857582, 6720857585, 6720857584, 6720857583]
    assert [trade.sz for trade in trades] == [Decimal(f"0.0006{last}000") for last in "12543"]
    assert {(trade.asset, trade.px, trade.exchange_ts_ms, trade.recv_ts_ns) for trade in trades} == {
        ("BTCUSDT", Decimal("83034.29000000"), 1790649901913, 1790649901914000000)
    }
    gap = next(value for value in values if isinstance(value, Gap))
    assert (gap.asset, gap.from_id, gap.to_id) == ("BTCUSDT", 6720857583, 6720857584)
