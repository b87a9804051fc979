"""What the local Binance lists: its symbols and the exchangeInfo body that describes them."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

SPOT_GROUPS = frozenset({"SPOT", "MARGIN", "LEVERAGED"})
"""Groups whose symbols exchangeInfo shows without a `permissions` parameter."""

# First those with a peculiarity: ids, digits in front, not ASCII, one character.
KNOWN = ("BTCUSDT", "ETHUSDT", "币安人生USDT", "1000SATSUSDT", "1INCHUSDT", "TUSDT", "BNBBTC", "SOLFDUSD", "PEPETRY", "ETHBTC")
QUOTES = ("USDT", "FDUSD", "USDC", "BTC", "TRY", "ETH", "BNB", "EUR")
CONSONANTS, VOWELS = "BDFGKLMNPRSTVZ", "AEIOU"

Symbol = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Filter:
    """The parameters of an exchangeInfo request, already checked."""

    symbols: tuple[str, ...] | None = None
    groups: frozenset[str] = SPOT_GROUPS
    status: str | None = None
    show_sets: bool = True


class Listing:
    """The exchange's symbols, in the order in which exchangeInfo shows them."""

    def __init__(self, symbols: Sequence[Symbol], body: dict[str, Any] | None = None) -> None:
        self._symbols = {str(symbol["symbol"]): symbol for symbol in symbols}
        self._frame = {key: value for key, value in (body or _frame()).items() if key != "symbols"}
        self._unlisted: set[str] = set()
        self.changes = 0
        """So often it has become another list."""

    def __contains__(self, name: object) -> bool:
        return name in self._symbols and name not in self._unlisted

    def withhold(self, name: str) -> None:
        """Not on the list before `trade` says so."""
        self._unlisted.add(name)
        self.changes += 1

    def trade(self, name: str) -> None:
        """It trades from now on."""
        self._unlisted.discard(name)
        self._symbols[name] = self._symbols[name] | {"status": "TRADING"}
        self.changes += 1

    def halt(self, name: str) -> None:
        """It is listed, and trades no more."""
        self._symbols[name] = self._symbols[name] | {"status": "BREAK"}
        self.changes += 1

    def trading(self) -> list[str]:
        """The names of all spot symbols that trade now."""
        return [name for name, symbol in self._symbols.items() if _trades_spot(symbol)]

    def body(self, wanted: Filter, server_time: int) -> bytes:
        """The exchangeInfo reply."""
        reply = self._frame | {"serverTime": server_time, "symbols": list(self._chosen(wanted))}
        return json.dumps(reply, ensure_ascii=False, separators=(",", ":")).encode()

    def _chosen(self, wanted: Filter) -> Iterator[Symbol]:
        if wanted.symbols is not None:
            chosen: Iterable[Symbol] = (self._symbols[name] for name in wanted.symbols)
        else:
            chosen = (
                symbol
                for symbol in self._symbols.values()
                if symbol["symbol"] not in self._unlisted
                and (wanted.status is None or symbol.get("status") == wanted.status)
                and _groups(symbol) & wanted.groups
            )
        for symbol in chosen:
            yield symbol if wanted.show_sets or "permissionSets" not in symbol else symbol | {"permissionSets": []}


def synthetic(count: int) -> Listing:
    """`count` spot symbols that trade, beside them a tenth as many that are halted, and some of other markets."""
    names = _names(count + count // 10 + 3)
    symbols = [_symbol(name) for name in names[:count]]
    symbols += [_symbol(name, status="BREAK") for name in names[count:-3]]
    leveraged, group_only, not_spot = names[-3:]
    symbols.append(_symbol(leveraged, sets=[["LEVERAGED"]]))
    symbols.append(_symbol(group_only, sets=[["TRD_GRP_004"]]))
    symbols.append(_symbol(not_spot, sets=[["MARGIN"]]) | {"isSpotTradingAllowed": False})
    return Listing(symbols)


def named(names: Iterable[str]) -> Listing:
    """Spot symbols that trade, of these names."""
    return Listing([_symbol(name) for name in names])


def recorded(text: bytes) -> Listing:
    """From a recorded exchangeInfo body, or from its bare list of symbols. Raises ValueError."""
    body = json.loads(text)
    symbols = body if isinstance(body, list) else body.get("symbols") if isinstance(body, dict) else None
    if not isinstance(symbols, list) or not all(isinstance(symbol, dict) and "symbol" in symbol for symbol in symbols):
        raise ValueError("neither an exchangeInfo body nor a list of its symbols")
    return Listing(symbols, body if isinstance(body, dict) else None)


def _names(count: int) -> list[str]:
    names = dict.fromkeys(KNOWN[:count])
    number = 0
    while len(names) < count:
        syllables, rest = "", number // len(QUOTES) + 100
        while rest:
            rest, vowel = divmod(rest, len(VOWELS))
            rest, consonant = divmod(rest, len(CONSONANTS))
            syllables += CONSONANTS[consonant] + VOWELS[vowel]
        names.setdefault(("1000" if number % 50 == 49 else "") + syllables + QUOTES[number % len(QUOTES)])
        number += 1
    return list(names)


def _symbol(name: str, *, status: str = "TRADING", sets: list[list[str]] | None = None) -> Symbol:
    quote = next((quote for quote in QUOTES if name.endswith(quote) and name != quote), "USDT")
    return {
        "symbol": name,
        "status": status,
        "baseAsset": name.removesuffix(quote),
        "baseAssetPrecision": 8,
        "quoteAsset": quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"],
        "icebergAllowed": True,
        "ocoAllowed": True,
        "otoAllowed": True,
        "opoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "amendAllowed": True,
        "pegInstructionsAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": "0.00000001", "maxPrice": "1000000.00000000", "tickSize": "0.00000001"},
            {"filterType": "LOT_SIZE", "minQty": "0.00001000", "maxQty": "90000000.00000000", "stepSize": "0.00001000"},
        ],
        "permissions": [],  # empty since April 2024
        "permissionSets": [["SPOT", "TRD_GRP_004", "TRD_GRP_005"]] if sets is None else sets,
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["NONE", "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"],
    }


def _frame() -> dict[str, Any]:
    def limit(kind: str, interval: str, number: int, most: int) -> dict[str, object]:
        return {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": most}

    return {
        "timezone": "UTC",
        "serverTime": 0,
        "rateLimits": [
            limit("REQUEST_WEIGHT", "MINUTE", 1, 6_000),
            limit("ORDERS", "SECOND", 10, 100),
            limit("ORDERS", "DAY", 1, 200_000),
            limit("RAW_REQUESTS", "MINUTE", 5, 300_000),
        ],
        "exchangeFilters": [],
    }


def _groups(symbol: Symbol) -> frozenset[str]:
    """Of the new form (`permissionSets`) and of the old one (`permissions`); a bare listing counts as spot."""
    groups = {group for some in symbol.get("permissionSets") or [] for group in some}
    return frozenset(groups.union(symbol.get("permissions") or [])) or frozenset({"SPOT"})


def _trades_spot(symbol: Symbol) -> bool:
    return symbol.get("status") == "TRADING" and symbol.get("isSpotTradingAllowed") is not False and "SPOT" in _groups(symbol)
