"""What can be configured: every key with its type, range, default and meaning.

A key that is not here is a mistake. What is expected of a value stands beside its type, in the words an operator reads.
"""

from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr


class Level(StrEnum):
    """What is logged: this severity and what is graver."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


def _setting(default: Any, meaning: str, expected: str, **limits: Any) -> Any:
    return Field(default=default, description=meaning, json_schema_extra={"expected": expected}, **limits)


def _whole(default: int, low: int, high: int, meaning: str) -> Any:
    return _setting(default, meaning, f"a whole number from {low:,} to {high:,}", ge=low, le=high)


def _switch(default: bool, meaning: str) -> Any:
    return _setting(default, meaning, "true or false")


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("it does not begin with /, and where the program is started must not matter")
    return path


def is_loopback(host: str) -> bool:
    """Whether a URL's host never leaves this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _url(secure: str, plain: str, url: str) -> str:
    """A URL without a closing slash: what the program asks for is appended to it."""
    if not url:
        return url
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"it is no URL: {error}") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("it carries a user or password, and no secret belongs into a URL")
    if parts.scheme not in (secure, plain):
        raise ValueError(f"its scheme is {parts.scheme!r}" if parts.scheme else "it has no scheme")
    if not host or any(letter.isspace() for letter in parts.netloc):
        raise ValueError("it names no host")
    if parts.query or parts.fragment:
        raise ValueError("a query stands behind the host, and the program appends the path itself")
    if parts.scheme == plain and not is_loopback(host):
        raise ValueError(f"{plain}:// is not encrypted, and {host} is not this machine")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def checked_rest_url(url: str) -> str:
    """The URL, if credentials and data may travel there. Raises ValueError."""
    return _url("https", "http", url)


def _ws_url(url: str) -> str:
    return _url("wss", "ws", url)


def _power_of_two(number: int) -> int:
    if number & (number - 1):
        below = 1 << (number.bit_length() - 1)
        raise ValueError(f"it is no power of two; the nearest are {below} and {2 * below}")
    return number


def _codec(codec: str) -> str:
    if codec == "binary":
        raise ValueError("the binary codec is not in this version")
    return codec


def _patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in patterns:
        if not pattern or not pattern.isprintable() or any(letter.isspace() for letter in pattern):
            raise ValueError(f"{pattern!r} is empty, or has characters that no name has")
    return patterns


def _upper(text: object) -> object:
    return text.upper() if isinstance(text, str) else text


# strict (below) would refuse the text that a path or a level is written as, and TOML's list for a tuple.
AbsolutePath = Annotated[Path, Field(strict=False), AfterValidator(_absolute)]
Patterns = Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_patterns)]
CaselessLevel = Annotated[Level, Field(strict=False), BeforeValidator(_upper)]

_DIRECTORY = "an absolute path of a directory"


class Section(BaseModel):
    """One table of the file. Strict: TOML has types, so "2" is no number and 1 is no boolean."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class ExchangeSettings(Section):
    """Where the trades come from."""

    name: str = _setting(..., "the exchange", 'an exchange of this version, e.g. "binance"')
    rest_url: Annotated[str, AfterValidator(checked_rest_url)] = _setting(
        "", "the exchange's REST interface", "https:// (http:// for this machine only), a host, maybe a port"
    )
    ws_url: Annotated[str, AfterValidator(_ws_url)] = _setting(
        "", "the exchange's websocket", "wss:// (ws:// for this machine only), a host, maybe a port"
    )
    ca_file: AbsolutePath | None = _setting(
        None, "a private authority's certificates, trusted beside the system's", "an absolute path of a PEM file with certificates"
    )
    local: bool = _switch(False, "start a local exchange and take its trades: no network, no account")
    local_symbols: int = _whole(500, 1, 10_000, "instruments of the local exchange")
    local_rate: Annotated[int, Field(ge=1, le=10_000_000)] | Literal["max"] = _setting(
        3_000, "trades per second of the local exchange", 'a whole number from 1 to 10,000,000, or "max"'
    )
    local_seed: int = _whole(1, 0, 2**32 - 1, "the local exchange makes the same trades for the same seed")


class SymbolsSettings(Section):
    """Which instruments, by shell patterns on the exchange's own names."""

    include: Patterns = _setting(("*",), "instruments to collect", 'a list of shell patterns, at least one, e.g. ["*"]', min_length=1)
    exclude: Patterns = _setting((), "instruments left out of these", 'a list of shell patterns, e.g. ["*TRY"]')
    list_s: int = _whole(600, 1, 86_400, "the exchange's list is asked for again after this")


class FeedSettings(Section):
    """How the exchange is listened to."""

    legs: int = _whole(2, 1, 8, "redundant connections per chunk")
    chunk_symbols: int = _whole(400, 1, 400, "instruments per chunk")
    rollover_hours: float = _setting(
        23.5,
        "a connection is replaced at this age, before the exchange ends it; 0: never",
        "a number from 0 to 23.9 (hours)",
        ge=0,
        le=23.9,
        allow_inf_nan=False,
    )
    gap_grace_ms: int = _whole(1_000, 10, 60_000, "a missing trade id becomes a gap record after this")
    lag_alarm_ms: int = _whole(5_000, 100, 3_600_000, "trades that come so much later than usual are an alarm")
    backfill: bool = _switch(True, "ask the exchange over REST for what is missing")
    backfill_hours: int = _whole(24, 1, 1_000_000, "what has been missing for longer is given up, and said so")
    backfill_max_trades: int = _whole(1_000_000, 1, 1_000_000_000, "of one gap; its oldest ids beyond are given up, and said so")


class RingSettings(Section):
    """The ring in shared memory, one per chunk."""

    dir: AbsolutePath = _setting(..., "where the rings are: on tmpfs", f"{_DIRECTORY} on tmpfs")
    # Up to 64 GiB; a power of two from 8 MiB on, because back-pressure reserves 4 MiB a leg.
    capacity_mb: Annotated[int, AfterValidator(_power_of_two)] = _setting(
        256, "MiB of one ring", "a power of two from 8 to 65,536 (MiB per chunk), e.g. 256", ge=8, le=65_536
    )
    codec: Annotated[Literal["json", "binary"], AfterValidator(_codec)] = _setting("json", "how a trade is written", '"json"')
    mlock: bool = _switch(True, "keep the ring's pages in memory")


class JournalSettings(Section):
    """The journal on disk: everything that was in the rings."""

    dir: AbsolutePath = _setting(..., "where the journal is: on a disk", f"{_DIRECTORY} on a disk")
    enabled: bool = _switch(True, "false: trades stay in the rings alone and are gone after a reboot; for measuring")
    sync_writes: bool = _switch(False, "flush continuously instead of every flush_interval_ms")
    flush_interval_ms: int = _whole(50, 1, 10_000, "committed records are on disk after about this long")
    segment_mb: int = _whole(256, 1, 16_384, "MiB of one segment; a full one is closed and the next begins")
    segment_minutes: int = _whole(60, 1, 1_440, "a segment is closed at this age, full or not")
    keep_hours: int = _whole(72, 0, 1_000_000, "older segments are deleted; 0: none for its age")
    keep_free_gb: float = _setting(
        5.0,
        "the oldest segments are deleted while less is free; 0: none for lack of space",
        "a number from 0 to 1,000,000 (GB)",
        ge=0,
        le=1e6,
        allow_inf_nan=False,
    )
    raw_hours: int = _whole(0, 0, 1_000_000, "frames as received are kept this long, beside the journal; 0: not at all")
    raw_buffer_mb: Annotated[int, AfterValidator(_power_of_two)] = _setting(
        32, "MiB of memory per chunk for frames on their way to disk", "a power of two from 1 to 1,024 (MiB per chunk)", ge=1, le=1_024
    )


class MetricsSettings(Section):
    """Numbers about the appliance itself."""

    csv: AbsolutePath | None = _setting(None, "metrics as CSV are written here", "an absolute path of a file")


class LogSettings(Section):
    """The log, on standard error."""

    level: CaselessLevel = _setting(Level.INFO, "the least severity that is logged", "DEBUG, INFO, WARNING or ERROR")
    as_json: bool = Field(
        default=False, alias="json", description="one JSON object a line", json_schema_extra={"expected": "true or false"}
    )


class DeribitSettings(Section):
    """What only Deribit has. Used when `[exchange] name` is "deribit"."""

    interval: Literal["raw", "100ms"] = _setting("raw", "raw needs a login, 100ms does not", '"raw" or "100ms"')
    client_id: SecretStr | None = _setting(None, "from DERIBIT_CLIENT_ID", "text", min_length=1)
    client_secret: SecretStr | None = _setting(None, "from DERIBIT_CLIENT_SECRET", "text", min_length=1)


class Settings(Section):
    """One appliance's whole configuration. Made by `config.load`, which also judges what the keys say together."""

    exchange: ExchangeSettings
    symbols: SymbolsSettings = SymbolsSettings()
    feed: FeedSettings = FeedSettings()
    ring: RingSettings
    journal: JournalSettings
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()
    deribit: DeribitSettings = DeribitSettings()

    def options(self) -> dict[str, str | None]:
        """The section of the exchange's own name, secrets in plain text; empty where it has none."""
        section = getattr(self, self.exchange.name, None)
        if not isinstance(section, Section):
            return {}
        values = {name: getattr(section, name) for name in type(section).model_fields}
        if self.exchange.local:
            # A local exchange has no accounts of ours: no login leaves for it.
            values = {name: None if isinstance(value, SecretStr) else value for name, value in values.items()}
        return {name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in values.items()}

    def secrets(self) -> list[str]:
        """What no log may show."""
        return [secret.get_secret_value() for secret in (self.deribit.client_id, self.deribit.client_secret) if secret is not None]
