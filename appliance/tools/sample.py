"""Samples of what a directory holds: an instrument at a time, both picked at random."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from appliance.ring.chunk import ChunkReader, Item, open_chunks
from appliance.ring.layout import RecordType
from appliance.ring.reader import Record
from appliance.trade import Trade

# Younger trades may still be on their way, to us or into the exchange's database.
SETTLED_NS = 60_000_000_000
LOOK_RECORDS = 5_000
TRIES = 60  # to find a time that has trades, each in an earlier part than the one before


@dataclass(frozen=True, slots=True)
class Sample:
    """Trades of one instrument that follow each other, by id; all of `first_id` to `last_id` that stand near each other."""

    asset: str
    kind: str
    first_id: int
    last_id: int
    held: dict[int, Trade]


class Sampler:
    """Picks samples from all chunks of a ring or journal directory. Each chunk, time and instrument found there is as likely."""

    def __init__(self, directory: Path, trades_max: int, random: Random) -> None:
        """Raises NotARing, OSError."""
        self._readers = open_chunks(directory)
        self._trades_max = trades_max
        self._random = random

    @property
    def exchanges(self) -> set[str]:
        """Whose trades they are."""
        return {reader.exchange for reader in self._readers}

    def pick(self, now_ns: int) -> Sample | None:
        """A sample of what was written a while before `now_ns` (UNIX ns); None when nothing was."""
        reader = self._random.choice(self._readers)
        reader.seek_oldest()
        oldest = next((item for item in reader.poll(1) if isinstance(item, Record)), None)
        if oldest is None:
            return None
        until_ns = now_ns - SETTLED_NS
        for _ in range(TRIES):
            if until_ns <= oldest.write_ns:
                return None
            begin_ns = self._random.randrange(oldest.write_ns, until_ns)
            trades = self._trades(reader, begin_ns, now_ns - SETTLED_NS)
            if trades:
                return self._of(self._random.choice(sorted(trades)), trades)
            until_ns = begin_ns
        return None

    def search(self, asset: str, ids: Iterable[int]) -> dict[int, Trade]:
        """Those of these ids that stand anywhere; reads everything."""
        wanted, found = set(ids), {}
        for reader in self._readers:
            reader.seek_oldest()
            while wanted and (items := reader.poll(LOOK_RECORDS)):
                for trade in _trades(reader, items):
                    if trade.asset == asset and identity(trade) in wanted:
                        found[identity(trade)] = trade
                        wanted.remove(identity(trade))
        return found

    def close(self) -> None:
        for reader in self._readers:
            reader.close()

    def _trades(self, reader: ChunkReader, begin_ns: int, until_ns: int) -> dict[str, list[Trade]]:
        """By instrument, what was written behind `begin_ns`, of the first era of ids."""
        found: defaultdict[str, list[Trade]] = defaultdict(list)
        reader.seek_time(begin_ns)
        read = 0
        while read < LOOK_RECORDS and (items := reader.poll(LOOK_RECORDS - read)):
            read += len(items)
            for trade in _trades(reader, items):
                if trade.writer_ts_ns < until_ns and trade.era == 0:
                    found[trade.asset].append(trade)
        return {asset: trades for asset, trades in found.items() if not all(trade.late for trade in trades)}

    def _of(self, asset: str, trades: dict[str, list[Trade]]) -> Sample:
        ids = [identity(trade) for trade in trades[asset] if not trade.late]
        first = min(ids)
        last = min(max(ids), first + self._trades_max - 1)
        held = {identity(trade): trade for trade in trades[asset] if first <= identity(trade) <= last}
        return Sample(asset, str(trades[asset][0].kind), first, last, held)


def identity(trade: Trade) -> int:
    """What rises by one from trade to trade of an instrument."""
    return trade.exchange_trade_id if trade.exchange_trade_seq is None else trade.exchange_trade_seq


def _trades(reader: ChunkReader, items: Iterable[Item]) -> Iterable[Trade]:
    for item in items:
        if isinstance(item, Record) and item.type == RecordType.TRADE:
            yield Trade.from_record(item, reader.chunk)
