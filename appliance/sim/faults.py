"""Faults of the local exchange: what `--fault SPEC` may ask for, as checked values.

SPEC is `NAME` or `NAME:KEY=VALUE,KEY=VALUE`, or `KEY=VALUE,…` for a limit of the exchange itself. `HELP` lists them all.
"""

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from appliance.errors import ConfigError

Answer = Literal["301", "403", "404", "410", "418", "429", "451", "500", "503", "html", "truncated", "cut", "timeout"]
Kind = Literal[
    "truncated", "binary", "fragmented", "huge", "nan", "nested", "repeated", "futures", "wrong_symbol", "not_utf8", "empty", "depth"
]
EVERY = -1
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the healthy exchange allows, how often it pings and how much it remembers."""

    ping_interval_s: float = 20.0
    pong_timeout_s: float = 60.0
    lifetime_s: float = 86_400.0
    messages_per_s: int = 5
    streams_max: int = 1_024
    uri_bytes_max: int = 8_000
    subscribe_bytes_max: int = 4_088
    connects: int = 300
    connects_window_s: float = 300.0
    weight_per_minute: int = 6_000
    ban_s: float = 120.0
    rest_lag_ms: int = 500
    retained_trades: int = 262_144
    unsent_mb: int = 64
    expires_s: int = 31_536_000
    heartbeat_s_min: int = 10
    heartbeat_s_max: int = 3_600
    connections: int = 32
    liquidation_after_s: float = 3_600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """REST answers with this instead of data; `path` = the end of those paths, `times` = so often (0: always)."""

    answer: Answer = "503"
    path: str = ""
    times: int = 0
    retry_after_s: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """The websocket upgrade is answered with this."""

    answer: Answer = "451"
    times: int = 0
    retry_after_s: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LongSubscribe:
    """What becomes of a SUBSCRIBE above subscribe_bytes_max. The healthy exchange ignores it."""

    reaction: Literal["ignore", "late", "answer"] = "late"
    late_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TooManyStreams:
    """What a SUBSCRIBE beyond streams_max brings. The healthy exchange replies with an error."""

    reaction: Literal["error", "close"] = "close"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mute:
    """Subscriptions are acknowledged, then no data ever comes."""

    connection: int = EVERY


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """No data from a moment on, for for_s (0: for ever); socket open, pings flowing. What is missed is lost."""

    after_s: float = 0.0
    after_frames: int = 0
    for_s: float = 0.0
    connection: int = EVERY


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """From a moment on, for for_s (0: for ever), frames come late, in order: ever later for grow_s, then by by_s. Pings do not wait."""

    after_s: float = 0.0
    by_s: float = 8.0
    grow_s: float = 16.0
    for_s: float = 0.0
    connection: int = EVERY


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """A TCP reset in the middle of a frame; `times` = of so many connections in all (0: every one)."""

    after_s: float = 0.0
    after_frames: int = 0
    connection: int = EVERY
    times: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Eof:
    """The TCP stream ends cleanly between two frames, without CLOSE."""

    after_s: float = 0.0
    after_frames: int = 0
    connection: int = EVERY
    times: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shutdown:
    """serverShutdown when a connection is after_s old, then CLOSE within 0..within_s at random (close=false: none)."""

    after_s: float = 1.0
    within_s: float = 1.0
    close: bool = True
    connection: int = EVERY
    times: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """Synthetic only: ids withheld from the streams after so many trades; REST has them if fillable. `every` = again and again."""

    after: int = 1_000
    trades: int = 5
    every: int = 0
    symbol: str = ""
    fillable: bool = True
    connection: int = EVERY


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """Synthetic only: a connection that joins others first gets the last frames that they already had."""

    frames: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """After every so many frames one that no client should choke on, each kind in its turn (kinds=a+b)."""

    every: int = 1_000
    kinds: tuple[Kind, ...] = get_args(Kind)
    connection: int = EVERY


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """Synthetic only: trades with the order ids `b`, `a` of before 2024-06-18, or a key that nobody knows; Deribit's rows of a year."""

    order_ids: bool = False
    extra_key: bool = False
    generation: Literal["2021", "2025", "2026"] = "2026"


@dataclass(frozen=True, slots=True, kw_only=True)
class Logout:
    """Deribit only: the login of a connection ends when it is after_s old, and raw channels with it."""

    after_s: float = 5.0
    connection: int = EVERY


@dataclass(frozen=True, slots=True, kw_only=True)
class DropChannel:
    """Deribit only: subscriptions to this channel are left out of the answer, without a word."""

    channel: str = "trades.spot.any.raw"
    connection: int = EVERY


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintenance:
    """Deribit only: platform_state says maintenance when a connection is after_s old, and lead_s later it is closed."""

    after_s: float = 5.0
    lead_s: float = 1.0
    connection: int = EVERY
    times: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """Synthetic only: after so many trades an instrument (symbol; none: the last) is listed; its first id is first_id (Deribit's: 1)."""

    after: int = 1_000
    symbol: str = ""
    first_id: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Delisted:
    """Binance, synthetic only: after so many trades a symbol (none: the last) is halted, or gone; `again`: so many later it trades."""

    after: int = 1_000
    symbol: str = ""
    gone: bool = False
    again: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """Deribit, synthetic only: after so many trades an instrument (symbol; none: the last) settles, is delivered, archivized."""

    after: int = 1_000
    symbol: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """Deribit only: requests to subscribe are answered 10041 while a connection is after_s to after_s + for_s old."""

    after_s: float = 0.0
    for_s: float = 5.0
    connection: int = EVERY


@dataclass(frozen=True, slots=True, kw_only=True)
class LateReply:
    """Deribit only: every so many replies one comes late_s late, after those to later requests."""

    every: int = 2
    late_s: float = 0.2
    connection: int = EVERY


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsExpired:
    """With --tls: the certificate has expired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsWrongName:
    """With --tls: the certificate is another host's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSelfSigned:
    """With --tls: the certificate is nobody's but its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """All faults asked for; without any, a healthy exchange."""

    limits: Limits = field(default_factory=Limits)
    faults: tuple[object, ...] = ()

    def all(self, kind: type[T]) -> list[T]:
        return [fault for fault in self.faults if isinstance(fault, kind)]

    def one(self, kind: type[T]) -> T | None:
        """The last of this kind: as on any command line, a later word replaces an earlier one."""
        return next(reversed(self.all(kind)), None)


class Strikes:
    """How often each fault has struck."""

    def __init__(self) -> None:
        self._hits: dict[int, int] = {}

    def hit(self, fault: object, times: int) -> bool:
        """Whether it strikes now, which is then counted; `times` = 0: always."""
        hits = self._hits.get(id(fault), 0)  # two equal faults are two
        if times and hits >= times:
            return False
        self._hits[id(fault)] = hits + 1
        return True


NAMES: dict[str, type[Any]] = {
    "rest": Rest,
    "upgrade": Upgrade,
    "long_subscribe": LongSubscribe,
    "too_many_streams": TooManyStreams,
    "mute": Mute,
    "stall": Stall,
    "lag": Lag,
    "reset": Reset,
    "eof": Eof,
    "shutdown": Shutdown,
    "hole": Hole,
    "duplicates": Duplicates,
    "garbage": Garbage,
    "schema": Schema,
    "logout": Logout,
    "drop_channel": DropChannel,
    "maintenance": Maintenance,
    "listing": Listed,
    "delisting": Delisted,
    "expiry": Expiry,
    "settlement": Settlement,
    "late_reply": LateReply,
    "tls_expired": TlsExpired,
    "tls_wrong_name": TlsWrongName,
    "tls_self_signed": TlsSelfSigned,
}


def parse(specs: Sequence[str]) -> Faults:
    """The faults that these SPECs ask for. Raises ConfigError with what was found and what is possible."""
    limits: dict[str, object] = {}
    faults = []
    for spec in specs:
        name, colon, rest = spec.partition(":")
        if not colon and "=" in spec:
            limits |= _values(spec, Limits, spec)
        elif name in NAMES:
            faults.append(NAMES[name](**_values(rest, NAMES[name], spec)))
        else:
            raise ConfigError(f"--fault {spec!r}: no fault is named {name!r}.{_meant(name, NAMES)} Possible: {', '.join(NAMES)}")
    return Faults(limits=Limits(**limits), faults=tuple(faults))  # type: ignore[arg-type]  # _values has checked each type


def _values(text: str, kind: type[Any], spec: str) -> dict[str, object]:
    types = get_type_hints(kind)
    values: dict[str, object] = {}
    for pair in filter(None, text.split(",")):
        key, equals, value = pair.partition("=")
        if key not in types:
            possible = ", ".join(types) or "none"
            raise ConfigError(f"--fault {spec!r}: no key {key!r}.{_meant(key, types)} Possible: {possible}")
        if not equals:
            raise ConfigError(f"--fault {spec!r}: {key} needs a value, as in {key}={_spelled(getattr(kind(), key))}")
        values[key] = _value(value, types[key], f"--fault {spec!r}: {key} = {value!r}")
    return values


def _value(text: str, kind: Any, where: str) -> object:
    if kind is str:
        return text
    if kind is bool:
        if text not in {"true", "false"}:
            raise ConfigError(f"{where}: expected true or false")
        return text == "true"
    if kind in {int, float}:
        try:
            number = kind(text)
        except ValueError:
            raise ConfigError(f"{where}: expected {'a whole number' if kind is int else 'a number'}") from None
        if not EVERY <= number < float("inf"):
            raise ConfigError(f"{where}: expected a number from 0 on")
        return number
    if kind == tuple[Kind, ...]:
        return tuple(_choice(part, get_args(Kind), where) for part in text.split("+"))
    return _choice(text, get_args(kind), where)


def _choice(text: str, choices: Sequence[str], where: str) -> str:
    if text not in choices:
        raise ConfigError(f"{where}: expected one of {', '.join(choices)}")
    return text


def _meant(word: str, words: Sequence[str] | dict[str, Any]) -> str:
    close = difflib.get_close_matches(word, words, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _spelled(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "+".join(value) if isinstance(value, tuple) else str(value)


def _described(name: str, kind: type[Any]) -> str:
    keys = ",".join(f"{key.name}={_spelled(getattr(kind(), key.name))}" for key in dataclasses.fields(kind))
    return f"  {name}{':' if name and keys else ''}{keys}\n      {kind.__doc__}"


HELP = "\n".join(
    [
        "SPEC is NAME or NAME:KEY=VALUE,KEY=VALUE (shown with its defaults; connection = the Nth websocket from 0, -1: every one):",
        *(_described(name, kind) for name, kind in NAMES.items()),
        f"REST and upgrade answers: {', '.join(get_args(Answer))}.",
        "or KEY=VALUE,KEY=VALUE of the exchange's own limits:",
        _described("", Limits),
    ]
)
