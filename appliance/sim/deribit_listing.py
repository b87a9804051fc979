"""What the local Deribit lists: instruments of every product."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice, product

KINDS = ("future", "option", "spot", "future_combo", "option_combo")
CURRENCIES = ("BTC", "ETH", "USDC", "USDT", "EURR")
EXPIRIES = ("2OCT26", "25DEC26", "26MAR27", "25JUN27", "24SEP27", "31DEC27")
CREATED_MS = 1_534_167_754_000
NEVER_MS = 32_503_708_800_000  # how the exchange says that a perpetual does not expire

# One of each product first, so that the smallest market has them all.
FIRST = (
    ("BTC-PERPETUAL", "future"),
    ("ETH-PERPETUAL", "future"),
    ("BTC_USDC-PERPETUAL", "future"),
    ("BTC-25DEC26-72000-C", "option"),
    ("BTC_USDC", "spot"),
    ("BTC-25DEC26", "future"),
    ("BTC-FS-25DEC26_PERP", "future_combo"),
    ("BTC-CS-25DEC26-72000_75000", "option_combo"),
    ("XRP_USDC-25DEC26-0d625-C", "option"),
    ("SOL_USDC-PERPETUAL", "future"),
    ("ETH_BTC", "spot"),
    ("ETH-26MAR27", "future"),
    ("BTC-25DEC26-75000-C", "option"),
)
OPEN, UNLISTED = "open", "unlisted"
ENDED = ("delivered", "archivized")


@dataclass(frozen=True, slots=True)
class Instrument:
    """One instrument by the exchange's own words."""

    name: str
    kind: str
    shown: Mapping[str, object] = field(default_factory=dict, compare=False)
    """As a recorded list has it; empty: made up."""

    @property
    def currency(self) -> str:
        """The group that its channels and requests name: what it settles in, of spot what it is quoted in."""
        base = self.name.partition("-")[0]
        return base.rpartition("_")[2]

    @property
    def trade_id_prefix(self) -> str:
        """Ids of BTC are digits; all others carry the name of their book."""
        base = self.name.partition("-")[0]
        return "" if base == "BTC" else f"{base}-"

    @property
    def legs(self) -> list[str]:
        """Names of the instruments that a combo consists of, as far as its own name tells: FS and CS."""
        match self.name.split("-"):
            case [base, "FS", expiries]:
                return [f"{base}-{'PERPETUAL' if one == 'PERP' else one}" for one in expiries.split("_")]
            case [base, "CS", expiry, strikes]:
                return [f"{base}-{expiry}-{strike}-C" for strike in strikes.split("_")]
        return []

    def as_json(self, state: str = OPEN) -> dict[str, object]:
        """As `public/get_instruments` shows it."""
        if self.shown:
            return dict(self.shown) | ({"state": state, "is_active": False} if state != OPEN else {})
        base = self.name.partition("-")[0].partition("_")[0]
        linear = "_" in self.name.partition("-")[0]
        quote = self.currency if linear else "USD"
        shown: dict[str, object] = {
            "kind": self.kind, "instrument_name": self.name, "instrument_type": "linear" if linear else "reversed", "base_currency": base,
            "quote_currency": quote, "counter_currency": quote, "contract_size": 10,
            "min_trade_amount": 10, "tick_size": 0.5, "tick_size_steps": [], "is_active": state == OPEN, "state": state,
            "creation_timestamp": CREATED_MS, "expiration_timestamp": NEVER_MS, "maker_commission": 0.0, "taker_commission": 0.0005,
        }  # fmt: skip
        if self.kind != "spot":
            shown |= {
                "settlement_currency": self.currency,
                "settlement_period": "perpetual" if self.name.endswith("PERPETUAL") else "month",
            }
        if self.kind == "option":
            strike, option_type = self.name.split("-")[2:]
            shown |= {"strike": float(strike.replace("d", ".")), "option_type": "call" if option_type == "C" else "put"}
        return shown


@dataclass(frozen=True, slots=True)
class Change:
    """An instrument came into a state."""

    instrument: Instrument
    state: str


class Listing:
    """The exchange's instruments, by the index that the tape gives their trades, and what became of them."""

    def __init__(self, instruments: Iterable[Instrument]) -> None:
        self.instruments = list(instruments)
        self.changes: list[Change] = []
        """Since the beginning; connections tell on what comes while they live."""
        self._states: dict[int, str] = {}
        self._index = {instrument.name: index for index, instrument in enumerate(self.instruments)}

    def __contains__(self, name: object) -> bool:
        return name in self._index and self._states.get(self._index[str(name)]) != UNLISTED

    def withhold(self, index: int) -> None:
        """Not listed before `change` says so."""
        self._states[index] = UNLISTED

    def change(self, index: int, state: str) -> None:
        self._states[index] = state
        self.changes.append(Change(self.instruments[index], state))

    def combos(self) -> dict[int, list[int]]:
        """The legs that are listed too, of each combo that has such."""
        found = {
            index: [self._index[leg] for leg in instrument.legs if leg in self._index] for index, instrument in enumerate(self.instruments)
        }
        return {index: legs for index, legs in found.items() if legs}

    def index(self, name: str) -> int:
        return self._index[name]

    def names(self) -> list[str]:
        return list(self._index)

    def of_channel(self, channel: str) -> frozenset[int] | None:
        """The instruments of a trades channel; None: there is no such channel."""
        match channel.split("."):
            case ["trades", kind, currency, _] if kind in KINDS and currency in (*CURRENCIES, "any"):
                return frozenset(
                    index
                    for index, instrument in enumerate(self.instruments)
                    if instrument.kind == kind and currency in ("any", instrument.currency)
                )
            case ["trades", name, _] if name in self:
                return frozenset([self._index[name]])
        return None

    def body(self, currency: str, kind: str | None, expired: bool) -> bytes:
        """The list that `public/get_instruments` answers with."""
        chosen = [
            instrument.as_json(state)
            for index, instrument in enumerate(self.instruments)
            if (state := self._states.get(index, OPEN)) != UNLISTED
            and (state in ENDED) == expired
            and currency in ("any", instrument.currency)
            and kind in (None, instrument.kind)
        ]
        return json.dumps(chosen, separators=(",", ":")).encode()


def synthetic(number: int) -> Listing:
    """`number` instruments: some of each product, and then option chains."""
    first = [Instrument(name, kind) for name, kind in FIRST]
    return Listing(islice([*first, *islice(_options(), max(0, number - len(first)))], number))


def named(names: Sequence[str]) -> Listing:
    """Instruments of these names, for recordings."""
    return Listing(Instrument(name, kind_of(name)) for name in names)


def recorded(body: bytes) -> Listing:
    """The instruments of a recorded reply. Raises ValueError."""
    reply = json.loads(body)
    rows = reply.get("result") if isinstance(reply, dict) else reply
    if not isinstance(rows, list) or not rows:
        raise ValueError("no list of instruments: expected a reply to public/get_instruments with a `result`")
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("instrument_name"), str) or not isinstance(row.get("kind"), str):
            raise ValueError(f"an instrument without instrument_name and kind: {str(row)[:100]}")
    return Listing(Instrument(row["instrument_name"], row["kind"], row) for row in rows)


def kind_of(name: str) -> str:
    """The exchange's kind by the shape of a name."""
    parts = name.split("-")
    if len(parts) == 1:
        return "spot"
    if len(parts) == 4 and parts[3] in ("C", "P"):
        return "option"
    if len(parts) == 2:
        return "future"
    return "future_combo" if parts[1] == "FS" else "option_combo"


def _options() -> Iterator[Instrument]:
    taken = {name for name, _ in FIRST}
    for step in count():
        for base, expiry, side in product(("BTC", "ETH", "SOL_USDC"), EXPIRIES, "CP"):
            name = f"{base}-{expiry}-{20_000 + 500 * step if base == 'BTC' else 1_000 + 25 * step}-{side}"
            if name not in taken:
                yield Instrument(name, "option")
