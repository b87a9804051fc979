"""Frames as received through the exchange's compiled decoder once more."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from rich.cells import cell_len

from appliance.errors import NotARing
from appliance.exchanges.decoder import Decoder
from appliance.exchanges.exchange import open_exchange
from appliance.exchanges.instruments import Instruments
from appliance.feed.chunks import Chunks
from appliance.feed.window import Verdict, Window
from appliance.ring.codec import TradeEncoder
from appliance.ring.raw_segments import Frame
from appliance.tools.tail import ASSET_COLUMNS, clock


@dataclass(slots=True, frozen=True)
class Redecoded:
    """One trade of one frame."""

    recv_ns: int
    asset: str
    id: int
    """By which the exchange counts within the instrument: on Deribit `trade_seq`."""
    first: bool
    """No copy of it came before, in what was replayed."""
    side: str
    px: str
    sz: str
    exchange_ts_ms: int
    payload: bytes
    """The record's JSON. What only the appliance knew, when it was parsed and written, is the receive time here."""


class _Chunk:
    """What one chunk's decoder needs."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.instruments = decoder.instruments
        self.window = Window(decoder.instruments)
        self.starts: dict[str, tuple[int, bytes]] = {}


class Redecoder:
    """The decoder, the name tables and the judgement of copies, of all chunks of one exchange. `outcomes` counts frames."""

    def __init__(self, exchange: str, journal_dir: Path, filters: Sequence[str]) -> None:
        """Names that the wire does not bring are read from the assignment beside the journal. Raises NotARing without it."""
        self._exchange = open_exchange(exchange)
        self._places = None if self._exchange.by_channel else Chunks.load(journal_dir, exchange)
        self._journal_dir = journal_dir
        self._filters = [pattern.upper() for pattern in filters]
        self._wanted: dict[str, bool] = {}
        self._chunks: dict[int, _Chunk] = {}
        self._encoder = TradeEncoder()
        self._columns = ASSET_COLUMNS
        self.outcomes: Counter[str] = Counter()

    def trades(self, frame: Frame) -> list[Redecoded]:
        """The trades of a frame that the filters let through, copies too."""
        chunk = self._chunks.get(frame.chunk) or self._open(frame.chunk)
        outcome, found = chunk.decoder.decode(frame.payload)
        self.outcomes[outcome] += 1
        if len(chunk.window) < len(chunk.instruments):
            chunk.window.grow()
        trades = []
        for row in found:
            asset = str(row["asset"])
            if not self.wants(asset):
                continue
            if asset not in chunk.starts:
                instrument = chunk.instruments.find(asset)
                chunk.starts[asset] = instrument, chunk.instruments.start_of_records(instrument)
            instrument, start = chunk.starts[asset]
            number, exchange_ts_ms, side = int(row["sequence_id"]), int(row["exchange_ts_ms"]), str(row["side"])
            px, sz = str(row["px"]).encode(), str(row["sz"]).encode()
            verdict, era = chunk.window.offer(instrument, number, px=px, sz=sz, exchange_ts_ms=exchange_ts_ms, now_ns=frame.recv_ns)
            payload = self._encoder.encoded(
                start, px, sz, sells=side == "Sell", trade_id=int(row["trade_id"]), exchange_ts_ms=exchange_ts_ms,
                recv_ns=frame.recv_ns, parse_ns=frame.recv_ns, enqueue_ns=frame.recv_ns, write_ns=frame.recv_ns,
                exchange_ts_ns=int(row["exchange_ts_ns"]), era=era, tail=str(row["tail"]).encode(),
            )  # fmt: skip
            first = verdict in (Verdict.FIRST, Verdict.LATE, Verdict.BEFORE_BASELINE)
            trades.append(Redecoded(frame.recv_ns, asset, number, first, side, str(row["px"]), str(row["sz"]), exchange_ts_ms, payload))
        if chunk.window.events_waiting:
            chunk.window.take_events()
        return trades

    def wants(self, asset: str) -> bool:
        """Whether the filters let an instrument through."""
        if not self._filters:
            return True
        if asset not in self._wanted:
            self._wanted[asset] = any(fnmatchcase(asset.upper(), pattern) for pattern in self._filters)
        return self._wanted[asset]

    def lines_json(self, frame: Frame) -> Iterable[str]:
        """The record of each first copy, marked as decoded anew."""
        for trade in self.trades(frame):
            if trade.first:
                yield f'{trade.payload[:-1].decode()},"redecoded":true}}'

    def lines_text(self, frame: Frame) -> Iterable[str]:
        """The same as `mdc tail` shows trades."""
        for trade in self.trades(frame):
            if trade.first:
                width = cell_len(trade.asset)
                self._columns = max(self._columns, width)
                padding = " " * (self._columns - width)
                yield f"{clock(trade.exchange_ts_ms)} {trade.asset}{padding} {trade.side:<4} px={trade.px} sz={trade.sz}"

    def _open(self, number: int) -> _Chunk:
        instruments = Instruments(self._exchange.name.upper())
        if self._places is not None:
            if number >= len(self._places):
                raise NotARing(f"{self._places.path}: names no symbols of chunk {number}; it lies beside the journal, copy it too")
            for symbol in self._places.symbols(number):
                instruments.add(symbol, "Spot")
        chunk = self._chunks[number] = _Chunk(self._exchange.decoder(instruments))
        return chunk


def wire(payload: bytes) -> tuple[bytes, bytes]:
    """What of a record's JSON came over the wire: what stands before our own times, and what stands behind them."""
    head, _, rest = payload.partition(b',"writer_ts_ms":')
    tail = rest.partition(b',"enqueue_ts_ms":')[2].lstrip(b"0123456789")
    before, found, era = tail.partition(b',"era":')
    return head, before + era.lstrip(b"0123456789") if found else tail
