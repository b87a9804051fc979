"""What is wrong with keys that are each right in themselves, and with what they name on this machine."""

import ssl
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from urllib.parse import urlsplit

import appliance.exchanges
from appliance.config.mistakes import Key, Mistake, expected_of, shown
from appliance.config.schema import Settings
from appliance.exchanges.exchange import open_exchange

RESERVE_MB_A_LEG = 4  # what a leg may still bring after reading was paused


def contradictions(settings: Settings, where: Mapping[Key, str]) -> Iterator[Mistake]:
    """Each as one mistake; `where` says of a key where its value came from."""

    def against(section: str, key: str, value: object, problem: str, expected: str, *involves: Key) -> Mistake:
        return Mistake((section, key), problem, shown(value), where.get((section, key), "built-in default"), expected, frozenset(involves))

    exchange, ring, journal = settings.exchange, settings.ring, settings.journal
    if not _is_installed(exchange.name):
        expected = f"one of {', '.join(_installed())}"
        yield against("exchange", "name", exchange.name, "this version has no such exchange", expected)
    else:
        rest_path, ws_path = open_exchange(exchange.name).paths
        for key, url, path in (("rest_url", exchange.rest_url, rest_path), ("ws_url", exchange.ws_url, ws_path)):
            if urlsplit(url).path not in ("", path):
                ends = f"a URL that ends at the host{f' or with {path}' if path else ''}: the program appends the path itself"
                yield against("exchange", key, url, "something else stands behind the host", ends, ("exchange", "name"))
    if missing := _missing_login(settings):
        problem = f"raw channels need a login, and {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set"
        expected = 'both in the environment, in .env or as systemd credentials; or interval = "100ms", which needs no account'
        yield against("deribit", "interval", settings.deribit.interval, problem, expected)
    for key, url in (("rest_url", exchange.rest_url), ("ws_url", exchange.ws_url)):
        if not url and not exchange.local:
            problem = "it is missing, and local is not true"
            yield Mistake(("exchange", key), problem, "", "", expected_of(("exchange", key)), frozenset({("exchange", "local")}))
        if url and exchange.local:
            problem = "local = true starts an exchange with addresses of its own, and this names another"
            yield against("exchange", key, url, problem, "either local = true or the URLs", ("exchange", "local"))
    if exchange.ca_file is not None and (problem := _unfit_certificates(exchange.ca_file)):
        yield against("exchange", "ca_file", str(exchange.ca_file), problem, expected_of(("exchange", "ca_file")))

    for pattern in settings.symbols.include:
        if any(fnmatchcase(pattern, other) for other in settings.symbols.exclude):
            problem = f"exclude takes away all that {pattern!r} includes"
            expected = "patterns that leave something"
            yield against("symbols", "exclude", settings.symbols.exclude, problem, expected, ("symbols", "include"))

    reserve_mb = settings.feed.legs * RESERVE_MB_A_LEG
    if ring.capacity_mb < 2 * reserve_mb:
        problem = f"back-pressure reserves {RESERVE_MB_A_LEG} MiB for each of {settings.feed.legs} legs, and that is more than half of it"
        yield against("ring", "capacity_mb", ring.capacity_mb, problem, f"at least {2 * reserve_mb}, or fewer legs", ("feed", "legs"))

    ring_dir, journal_dir = ring.dir.resolve(), journal.dir.resolve()
    if ring_dir == journal_dir or ring_dir in journal_dir.parents or journal_dir in ring_dir.parents:
        problem = f"it is the directory of the rings, {ring.dir}, or one lies inside the other"
        expected = "two directories apart: rings on tmpfs, journal on a disk"
        yield against("journal", "dir", str(journal.dir), problem, expected, ("ring", "dir"))
    csv = settings.metrics.csv
    if csv is not None and ring_dir in csv.resolve().parents:
        problem = f"it lies in the directory of the rings, {ring.dir}, and would fill their memory"
        yield against("metrics", "csv", str(csv), problem, "a file elsewhere, e.g. in the directory of the journal", ("ring", "dir"))


def _missing_login(settings: Settings) -> list[str]:
    """The variables that a login to the exchange needs and that are not set."""
    deribit = settings.deribit
    if settings.exchange.name != "deribit" or deribit.interval != "raw" or settings.exchange.local:
        return []
    wanted = {"DERIBIT_CLIENT_ID": deribit.client_id, "DERIBIT_CLIENT_SECRET": deribit.client_secret}
    return [variable for variable, value in wanted.items() if value is None]


def _is_installed(name: str) -> bool:
    return name in {module.name for module in iter_modules(appliance.exchanges.__path__)} and _is_exchange(name)


def _installed() -> list[str]:
    return [module.name for module in iter_modules(appliance.exchanges.__path__) if _is_exchange(module.name)]


def _is_exchange(module: str) -> bool:
    """An exchange's module holds an `EXCHANGE`; the others of the package are what exchanges are made of."""
    return hasattr(import_module(f"appliance.exchanges.{module}"), "EXCHANGE")


def _unfit_certificates(path: Path) -> str:
    """Why a file of certificates cannot be used; empty when it can."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        return "it holds no certificate"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return ""
