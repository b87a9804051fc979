"""What a reader gets out of a ring or a journal: trades, and what the record says about its own wholeness."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, Protocol, Self, cast

NS_PER_MS = 1_000_000

# Flag bits of the record header (docs/ring-format.md); ring/layout.pxd has them for the compiled side.
LEG_MASK = 0x0007
BACKFILLED = 0x0008
LATE = 0x0010

# parse_float=str keeps price and size digit for digit; integers among them (`"px":100`) come as int and print the same.
_decode = cast(Callable[[str], dict[str, Any]], json.JSONDecoder(parse_float=str).decode)


class Side(StrEnum):
    """Who crossed the spread: the aggressor."""

    BUY = "Buy"
    SELL = "Sell"


class Kind(StrEnum):
    """What was traded."""

    SPOT = "Spot"
    PERPETUAL = "Perpetual"
    FUTURE = "Future"
    OPTION = "Option"
    SPREAD = "Spread"


_SIDES: Mapping[str, Side] = {side.value: side for side in Side}
_KINDS: Mapping[str, Kind] = {kind.value: kind for kind in Kind}


class RecordView(Protocol):
    """The parts of a record that values are made from; `appliance.ring.reader.Record` has them."""

    @property
    def sequence(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def flags(self) -> int: ...
    @property
    def recv_ns(self) -> int: ...
    @property
    def parse_ns(self) -> int: ...
    @property
    def enqueue_ns(self) -> int: ...
    @property
    def write_ns(self) -> int: ...
    @property
    def payload(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Trade:
    """One trade. Names as in the record's JSON; times are UNIX time, each as `*_ts_ms` and as `*_ts_ns`.

    `px` and `sz` make a Decimal of the exchange's own digits each time they are read; `px_float` and `sz_float` are cheaper.
    """

    exchange: str
    asset: str
    kind: Kind
    px_digits: str
    sz_digits: str
    side: Side
    exchange_trade_id: int
    exchange_ts_ns: int
    writer_ts_ns: int
    recv_ts_ns: int
    parse_ts_ns: int
    enqueue_ts_ns: int
    persist_ts_ns: int | None
    """When `fdatasync` returned for it; None: not yet on disk, or too long ago to be known."""
    exchange_trade_seq: int | None
    era: int
    chunk: int
    epoch: int
    sequence: int
    leg: int
    backfilled: bool
    late: bool
    payload: bytes = field(repr=False)

    @classmethod
    def from_record(cls, record: RecordView, chunk: int, persist_ts_ns: int | None = None) -> Self:
        """The trade in a record of type TRADE and codec JSON."""
        fields = _decode(record.payload.decode())
        flags = record.flags
        return cls(
            fields["exchange"],
            fields["asset"],
            _KINDS[fields["kind"]],
            str(fields["px"]),
            str(fields["sz"]),
            _SIDES[fields["side"]],
            fields["exchange_trade_id"],
            fields.get("exchange_ts_ns") or fields["exchange_ts_ms"] * NS_PER_MS,
            record.write_ns,
            record.recv_ns,
            record.parse_ns,
            record.enqueue_ns,
            persist_ts_ns,
            fields.get("exchange_trade_seq"),
            fields.get("era", 0),
            chunk,
            record.epoch,
            record.sequence,
            flags & LEG_MASK,
            bool(flags & BACKFILLED),
            bool(flags & LATE),
            record.payload,
        )

    @property
    def px(self) -> Decimal:
        return Decimal(self.px_digits)

    @property
    def sz(self) -> Decimal:
        return Decimal(self.sz_digits)

    @property
    def px_float(self) -> float:
        return float(self.px_digits)

    @property
    def sz_float(self) -> float:
        return float(self.sz_digits)

    @property
    def exchange_ts_ms(self) -> int:
        return self.exchange_ts_ns // NS_PER_MS

    @property
    def writer_ts_ms(self) -> int:
        return self.writer_ts_ns // NS_PER_MS

    @property
    def recv_ts_ms(self) -> int:
        return self.recv_ts_ns // NS_PER_MS

    @property
    def parse_ts_ms(self) -> int:
        return self.parse_ts_ns // NS_PER_MS

    @property
    def enqueue_ts_ms(self) -> int:
        return self.enqueue_ts_ns // NS_PER_MS

    @property
    def persist_ts_ms(self) -> int | None:
        return None if self.persist_ts_ns is None else self.persist_ts_ns // NS_PER_MS


@dataclass(frozen=True, slots=True)
class Event:
    """A record that is no trade: what the appliance knows about the completeness of its own trades."""

    exchange: str
    chunk: int
    epoch: int
    sequence: int
    writer_ts_ns: int
    persist_ts_ns: int | None
    fields: Mapping[str, Any] = field(hash=False)
    """The whole payload, including what has no attribute here."""

    @classmethod
    def from_record(cls, record: RecordView, chunk: int, persist_ts_ns: int | None = None) -> Self:
        """The event in a record of any type but TRADE."""
        fields = json.loads(record.payload)
        return cls(fields.get("exchange", ""), chunk, record.epoch, record.sequence, record.write_ns, persist_ts_ns, fields)

    @property
    def record(self) -> str:
        """The record's type as its JSON names it: `gap`, `gap_closed`, `hole`, `boundary`, `status`."""
        return str(self.fields["record"])

    @property
    def writer_ts_ms(self) -> int:
        return self.writer_ts_ns // NS_PER_MS

    @property
    def persist_ts_ms(self) -> int | None:
        return None if self.persist_ts_ns is None else self.persist_ts_ns // NS_PER_MS


@dataclass(frozen=True, slots=True)
class _Ids(Event):
    """An event about trade ids of one instrument, both ends included."""

    @property
    def asset(self) -> str:
        return str(self.fields["asset"])

    @property
    def era(self) -> int:
        return int(self.fields.get("era", 0))

    @property
    def from_id(self) -> int:
        return int(self.fields["from_id"])

    @property
    def to_id(self) -> int:
        return int(self.fields["to_id"])


@dataclass(frozen=True, slots=True)
class Gap(_Ids):
    """Trade ids that no leg delivered within the grace."""

    @property
    def detected_ts_ms(self) -> int:
        return int(self.fields["detected_ts_ms"])


@dataclass(frozen=True, slots=True)
class GapClosed(_Ids):
    """A gap of which every id is settled."""


@dataclass(frozen=True, slots=True)
class Hole(Event):
    """Records that were committed and that the journal does not have, both ends included."""

    @property
    def from_sequence(self) -> int:
        return int(self.fields["from_sequence"])

    @property
    def to_sequence(self) -> int:
        return int(self.fields["to_sequence"])


@dataclass(frozen=True, slots=True)
class Boundary(Event):
    """The writer began, went on or ended here."""

    @property
    def event(self) -> str:
        return str(self.fields["event"])


@dataclass(frozen=True, slots=True)
class Status(Event):
    """A connect, a loss, a shed, a clock step …, or the minute's summary."""

    @property
    def event(self) -> str:
        return str(self.fields["event"])


@dataclass(frozen=True, slots=True)
class Lapped:
    """Records that this reader lost: overwritten in the ring before they were read, and not in the journal either."""

    exchange: str
    chunk: int
    records: int
    from_sequence: int
    to_sequence: int


@dataclass(frozen=True, slots=True)
class Damaged:
    """Bytes behind the cursor that fail their checksum. Reading goes on at the next good record."""

    exchange: str
    chunk: int
    position: int
    reason: str
