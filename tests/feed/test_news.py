"""What the exchange tells of its instruments, as it stands in the journal."""

from pathlib import Path

import pytest

from appliance import Gap, Status, open_rings
from appliance.exchanges.deribit_decoder import DeribitDecoder
from appliance.exchanges.exchange import Announced, InstrumentChanged
from appliance.exchanges.instruments import Instruments
from appliance.feed.news import News
from appliance.feed.pipeline import Pipeline
from appliance.ring.store import StoreOptions

OPTIONS = StoreOptions(capacity_bytes=1 << 24, segment_bytes=1 << 22, flush_interval_ms=1, mlock=False)
NEW, OLD = "BTC-25DEC26-90000-C", "BTC-25DEC26-70000-C"


class Feed:
    """A chunk of the exchange, its news, and what its journal says in the end."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("ring", "journal"):
            (root / name).mkdir(exist_ok=True)
        self.instruments = Instruments("DERIBIT")
        self.instruments.wanted = lambda name: not name.startswith("ETH")
        self.pipeline = Pipeline.open(
            root / "ring", root / "journal", "deribit", 0, DeribitDecoder(self.instruments), OPTIONS, legs=1, gap_grace_ms=0, adopt=True
        )
        self.news = News(0, self.pipeline, self.instruments)

    def state(self, name: str, state: str) -> None:
        self.news.hear(InstrumentChanged(name, "Option", state, lists=state == "open", ends=state == "delivered"))

    def trade(self, name: str, sequence: int) -> None:
        row = (
            f'{{"timestamp":1786740206308,"price":1.5,"direction":"buy","instrument_name":"{name}","trade_id":"{sequence}",'
            f'"trade_seq":{sequence},"amount":1.0}}'
        )
        head = '{"jsonrpc":"2.0","method":"subscription","params":{"channel":"trades.option.any.raw","data":['
        assert self.pipeline.path.commit_message(f"{head}{row}]}}}}".encode()) == "TRADES"

    def told(self) -> list[tuple[str, str]]:
        """Event and instrument of each status record, gaps by their ids."""
        self.pipeline.turn()
        assert self.pipeline.drain("the test is over", 5.0)
        values = list(open_rings(self.root / "journal"))
        gaps = [("gap", f"{value.asset} {value.from_id}-{value.to_id}") for value in values if isinstance(value, Gap)]
        return gaps + [(value.event, str(value.fields.get("asset", ""))) for value in values if isinstance(value, Status)]


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    return Feed(tmp_path)


def test_a_listing_that_a_leg_heard_is_told_once_and_what_is_on_the_first_list_is_no_news(feed: Feed) -> None:
    feed.news.take_list({OLD: "Option"})
    for _ in range(2):
        feed.state(OLD, "open")
        feed.state(NEW, "open")
    feed.state(NEW, "halted")
    feed.state(NEW, "open")
    feed.trade(NEW, 1)
    assert feed.told() == [("listed", NEW)]


def test_a_listing_that_no_leg_heard_is_found_on_the_next_list_and_its_first_trades_are_missing(feed: Feed) -> None:
    feed.news.take_list({OLD: "Option"})
    feed.trade(NEW, 4)
    feed.news.take_list({OLD: "Option", NEW: "Option"})
    assert feed.told() == [("gap", f"{NEW} 1-3"), ("listed", NEW), ("baseline", NEW)]


def test_what_is_left_out_is_neither_listed_nor_ended(feed: Feed) -> None:
    feed.news.take_list({"ETH_BTC": ""})
    feed.state("ETH-25DEC26-9000-C", "open")
    feed.state("ETH_BTC", "delivered")
    feed.news.take_list({})
    assert feed.told() == []


def test_an_expiry_is_told_once_by_state_or_by_the_list(feed: Feed) -> None:
    for name in (OLD, NEW):
        feed.trade(name, 1)
    feed.news.take_list({OLD: "Option", NEW: "Option"})
    feed.state(OLD, "delivered")
    feed.state(OLD, "archivized")
    feed.news.take_list({})
    feed.news.take_list({})
    assert [told for told in feed.told() if told[0] == "ended"] == [("ended", OLD), ("ended", NEW)]


def test_what_two_legs_announce_of_two_subjects_is_written_down_once_each(feed: Feed) -> None:
    for _ in range(2):
        for index in ("sol_usdc", "xrp_usdc"):
            feed.news.hear(Announced("platform_state", {"price_index": index, "locked": True}, index))
    assert feed.told() == [("platform_state", "")] * 2


class Listed(Feed):
    """A chunk of an exchange that only its list tells of."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.news = News(0, self.pipeline, self.instruments, first_id_known=False)


def test_by_lists_alone_a_symbol_is_listed_ended_and_listed_again_each_once(tmp_path: Path) -> None:
    feed = Listed(tmp_path)
    feed.news.take_list({OLD: "Option"})
    for listed in ({OLD: "Option", NEW: "Option"}, {NEW: "Option"}, {OLD: "Option", NEW: "Option"}):
        for _ in range(2):
            feed.news.take_list(listed, 1)
            feed.pipeline.add(listed.items())
        feed.trade(NEW, 7)
        if OLD in listed:
            feed.trade(OLD, 9)
    told = [one for one in feed.told() if one[0] in ("listed", "ended")]
    assert told == [("listed", NEW), ("ended", OLD), ("listed", OLD)]


def test_what_a_chunk_that_begins_late_has_was_listed_since(tmp_path: Path) -> None:
    feed = Listed(tmp_path)
    feed.pipeline.add([(NEW, "Option"), (OLD, "Option")])
    feed.trade(OLD, 9)
    feed.news = News(0, feed.pipeline, feed.instruments, first_id_known=False)
    feed.news.begin_late()
    feed.news.take_list({NEW: "Option", OLD: "Option"}, 1)
    assert [one for one in feed.told() if one[0] == "listed"] == [("listed", NEW)]


def test_names_that_have_their_place_and_nothing_else_are_not_ended_at_each_start(tmp_path: Path) -> None:
    feed = Listed(tmp_path)
    feed.pipeline.add([(NEW, "Option"), (OLD, "Option")])
    feed.trade(OLD, 9)
    feed.news = News(0, feed.pipeline, feed.instruments, first_id_known=False)
    feed.news.take_list({})
    assert [one for one in feed.told() if one[0] == "ended"] == [("ended", OLD)]


def test_the_wire_may_bring_so_many_more_names_than_the_exchange_lists(feed: Feed) -> None:
    before = feed.instruments.names_max
    feed.trade(OLD, 1)
    assert feed.instruments.names_max == before
    feed.news.take_list({OLD: "Option", NEW: "Option"})
    assert feed.instruments.names_max == before + 1
    feed.news.take_list({})
    assert feed.instruments.names_max == before + 1
