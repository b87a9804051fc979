"""What a read brings beyond the ring's room is kept and committed later, in order; none of it is given up."""

from pathlib import Path

from picows import WSTransport

from appliance.exchanges.binance_decoder import BinanceDecoder
from appliance.exchanges.instruments import Instruments
from appliance.feed.handler import HotPath
from appliance.feed.window import Window
from appliance.ring.journal import JournalReader
from appliance.ring.layout import RecordType
from appliance.ring.reader import Record, RingReader
from appliance.ring.store import ChunkStore, StoreOptions
from tests.streams import until

CAPACITY = 1 << 20
TRADES = 12_000  # four times what the ring holds


class NoBrake:
    """A pressure that never pauses: as when all of it came in one read."""

    def pause(self, transport: WSTransport) -> None:
        raise AssertionError("nothing is read from a socket here")


def frame(trade_id: int) -> bytes:
    return (
        f'{{"stream":"btcusdt@trade","data":{{"e":"trade","E":1790649901913,"s":"BTCUSDT","t":{trade_id},"p":"83034.29000000",'
        '"q":"0.00062000","T":1790649901913,"m":true,"M":true}}'
    ).encode()


def open_path(directory: Path) -> tuple[ChunkStore, HotPath]:
    (directory / "ring").mkdir()
    (directory / "journal").mkdir()
    options = StoreOptions(capacity_bytes=CAPACITY, segment_bytes=CAPACITY, flush_interval_ms=1, mlock=False)
    store = ChunkStore.open(directory / "ring", directory / "journal", "binance", 0, options)
    instruments = Instruments("BINANCE")
    instruments.add("BTCUSDT", "Spot")
    return store, HotPath(BinanceDecoder(instruments), Window(instruments), store.writer, 0, NoBrake())


def test_a_read_larger_than_the_ring_loses_nothing(tmp_path: Path) -> None:
    """T13, T22."""
    store, path = open_path(tmp_path)
    outcomes = [path.commit_message(frame(trade_id)) for trade_id in range(1, TRADES + 1)]
    assert outcomes.count("TRADES") > 1000
    assert outcomes == sorted(outcomes, key=["TRADES", "SPILLED"].index), "none may overtake one that waits"
    store.start()
    until(lambda: path.catch_up() == 0, "the room for all that waits")
    assert path.commit_message(frame(TRADES + 1)) == "TRADES"
    assert store.drain(10)
    journal = JournalReader(tmp_path / "journal", "binance", 0)
    records = [item for item in journal if isinstance(item, Record) and item.type == RecordType.TRADE]
    ids = [int(record.payload.partition(b'"exchange_trade_id":')[2].partition(b",")[0]) for record in records]
    assert ids == list(range(1, TRADES + 2))
    assert all(record.recv_ns <= record.parse_ns <= record.write_ns for record in records)
    counters = RingReader(tmp_path / "ring" / "binance_trade_chunk0.meta").counters()
    assert (counters["shed"], counters["trades"], counters["frames"]) == (0, TRADES + 1, TRADES + 1)


def test_a_message_larger_than_the_ring_holds_nothing_up(tmp_path: Path) -> None:
    store, path = open_path(tmp_path)
    assert path.commit_message(b'{"e":"' + b"x" * (2 * CAPACITY) + b'"}') == "OTHER"
    assert path.commit_message(frame(1)) == "TRADES"
    store.start()
    assert store.drain(10)
