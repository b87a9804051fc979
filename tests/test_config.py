"""Configuration: what is taken from where, and what an operator is told about each mistake."""

import json
import os
import string
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.config import Settings, load
from appliance.errors import ConfigError

CONFIGS = Path(__file__).parent.parent / "configs"

GOOD = """\
[exchange]
name = "binance"
rest_url = "https://api.binance.com"
ws_url = "wss://stream.binance.com:9443"
"""

DERIBIT = """\
[exchange]
name = "deribit"
rest_url = "https://www.deribit.com/api/v2"
ws_url = "wss://www.deribit.com/ws/api/v2"
"""

Load = Callable[..., Settings]


@pytest.fixture
def load_text(tmp_path: Path) -> Load:
    """Load a configuration of this text, this .env and these variables, and nothing of the machine's own."""

    def loaded(text: str | bytes, dotenv: str | None = None, **environ: str) -> Settings:
        path = tmp_path / "mdc.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        if dotenv is not None:
            (tmp_path / ".env").write_text(dotenv)
        return load(path, environ)

    return loaded


@pytest.fixture
def refusal(load_text: Load) -> Callable[..., str]:
    """The message about a configuration that is refused."""

    def message(text: str | bytes, dotenv: str | None = None, **environ: str) -> str:
        with pytest.raises(ConfigError) as caught:
            load_text(text, dotenv, **environ)
        return str(caught.value)

    return message


def test_a_minimal_file_gets_the_documented_defaults(load_text: Load) -> None:
    found = load_text(GOOD)
    assert (found.symbols.include, found.symbols.exclude) == (("*",), ())
    assert (found.feed.legs, found.feed.chunk_symbols) == (2, 400)
    assert (found.ring.dir, found.ring.capacity_mb, found.ring.codec, found.ring.mlock) == (Path("/run/mdc/binance"), 256, "json", True)
    assert (found.journal.dir, found.journal.sync_writes, found.journal.flush_interval_ms) == (Path("/var/lib/mdc/binance"), False, 50)
    assert (found.journal.segment_mb, found.journal.segment_minutes, found.journal.keep_hours) == (256, 60, 72)
    assert (found.log.level, found.log.as_json, found.metrics.csv) == ("INFO", False, None)


@pytest.mark.parametrize(
    ("name", "exchange"), [("binance", "binance"), ("demo", "binance"), ("deribit", "deribit"), ("demo-deribit", "deribit")]
)
def test_the_configurations_in_the_tree_are_good(name: str, exchange: str) -> None:
    login = {"DERIBIT_CLIENT_ID": "id", "DERIBIT_CLIENT_SECRET": "secret"}
    assert load(CONFIGS / f"{name}.toml", login).exchange.name == exchange


def test_deribit_needs_no_login_for_batches() -> None:
    found = load(CONFIGS / "deribit.toml", {"MDC_DERIBIT__INTERVAL": "100ms"})
    assert found.options() == {"interval": "100ms", "client_id": None, "client_secret": None}


def test_both_demonstrations_keep_to_their_own_directories() -> None:
    one, other = load(CONFIGS / "demo.toml", {}), load(CONFIGS / "demo-deribit.toml", {})
    assert {one.ring.dir, one.journal.dir}.isdisjoint({other.ring.dir, other.journal.dir})


def test_the_production_file_shows_the_defaults() -> None:
    shown = load(CONFIGS / "binance.toml", {})
    assert shown.feed == Settings.model_fields["feed"].default
    assert shown.log == Settings.model_fields["log"].default
    assert shown.ring == type(shown.ring)(dir=shown.ring.dir)
    assert shown.journal == type(shown.journal)(dir=shown.journal.dir)


# What is written into the file; the essential parts of the message: source, key, found, expected.
MISTAKES = {
    "unknown key": (GOOD + "[feed]\nleg = 3\n", ["line 6", "[feed] leg", "3", "no such key", "did you mean legs"]),
    "unknown section": (GOOD + "[jurnal]\nkeep_hours = 3\n", ["[jurnal]", "line 6", "did you mean [journal]"]),
    "empty unknown section": (GOOD + "[jurnal]\n", ["[jurnal]", "did you mean [journal]"]),
    "key in the wrong section": (GOOD + "[ring]\nsync_writes = true\n", ["[ring] sync_writes", "belongs in [journal]"]),
    "key outside of sections": ("legs = 3\n" + GOOD, ["line 1", "legs", "outside of every section", "[feed]"]),
    "section as a key": ("feed = 3\n" + GOOD, ["line 1", "feed = 3", "[feed]"]),
    "text for a number": (GOOD + '[feed]\nlegs = "2"\n', ["line 6", "[feed] legs", '"2"', "from 1 to 8"]),
    "number for a switch": (GOOD + "[journal]\nsync_writes = 1\n", ["[journal] sync_writes = 1", "true or false"]),
    "switch for a number": (GOOD + "[feed]\nlegs = true\n", ["[feed] legs = true", "from 1 to 8"]),
    "text for a list": (GOOD + '[symbols]\ninclude = "BTC*"\n', ["[symbols] include", '"BTC*"', "a list of shell patterns"]),
    "empty list": (GOOD + "[symbols]\ninclude = []\n", ["[symbols] include = []", "at least one"]),
    "number in a list": (GOOD + "[symbols]\nexclude = [1]\n", ["[symbols] exclude", "1", "a list of shell patterns"]),
    "blank in a pattern": (GOOD + '[symbols]\ninclude = ["BTC USDT"]\n', ["[symbols] include", "BTC USDT", "characters that no name has"]),
    "all excluded": (GOOD + '[symbols]\ninclude = ["BTC*"]\nexclude = ["*"]\n', ["[symbols] exclude", "BTC*", "leave something"]),
    "too small": (GOOD + "[feed]\nlegs = 0\n", ["[feed] legs = 0", "too small", "from 1 to 8"]),
    "too large": (GOOD + "[feed]\nchunk_symbols = 401\n", ["[feed] chunk_symbols = 401", "too large", "from 1 to 400"]),
    "no power of two": (GOOD + "[ring]\ncapacity_mb = 300\n", ["[ring] capacity_mb = 300", "power of two", "256 and 512"]),
    "capacity below the reserve": (GOOD + "[ring]\ncapacity_mb = 8\n", ["[ring] capacity_mb = 8", "2 legs", "at least 16"]),
    "binary codec": (GOOD + '[ring]\ncodec = "binary"\n', ["[ring] codec", '"binary"', "not in this version", '"json"']),
    "unknown codec": (GOOD + '[ring]\ncodec = "xml"\n', ["[ring] codec", '"xml"', '"json"']),
    "raw lane's memory": (GOOD + "[journal]\nraw_buffer_mb = 48\n", ["[journal] raw_buffer_mb = 48", "power of two", "32 and 64"]),
    "not a number": (GOOD + "[journal]\nkeep_free_gb = nan\n", ["[journal] keep_free_gb", "NaN", "a number from 0"]),
    "log level": (GOOD + '[log]\nlevel = "LOUD"\n', ["[log] level", '"LOUD"', "DEBUG, INFO, WARNING or ERROR"]),
    "a date": (GOOD + "[feed]\nlegs = 2020-01-01\n", ["[feed] legs", "2020-01-01", "from 1 to 8"]),
    "relative path": (GOOD + '[ring]\ndir = "rings"\n', ["[ring] dir", '"rings"', "does not begin with /", "absolute path"]),
    "one directory for both": (
        GOOD + '[ring]\ndir = "/data/mdc"\n[journal]\ndir = "/data/mdc"\n',
        ["[journal] dir", "/data/mdc", "line 8", "two directories apart"],
    ),
    "journal inside the ring": (
        GOOD + '[journal]\ndir = "/run/mdc/binance/journal"\n',
        ["[journal] dir", "/run/mdc/binance", "two directories"],
    ),
    "ring inside the journal": (GOOD + '[ring]\ndir = "/var/lib/mdc/../mdc/binance/x"\n', ["/var/lib/mdc/binance", "two directories"]),
    "metrics inside the ring": (GOOD + '[metrics]\ncsv = "/run/mdc/binance/m.csv"\n', ["[metrics] csv", "m.csv", "fill their memory"]),
    "exchange of a later version": (
        GOOD.replace("binance", "bybit", 1),
        ["line 2", '"bybit"', "this version has no such exchange", "binance, deribit"],
    ),
    "a module that is no exchange": (GOOD.replace("binance", "exchange", 1), ['"exchange"', "no such exchange", "binance"]),
    "exchange by a path": (GOOD.replace("binance", "../binance", 1), ['"../binance"', "no such exchange"]),
    "exchange missing": (GOOD.replace('name = "binance"\n', ""), ["[exchange] name", "missing", "binance"]),
    "url missing": (GOOD.replace("ws_url", "# ws_url"), ["[exchange] ws_url", "missing", "wss://"]),
    "url and local": (GOOD + "local = true\n", ["[exchange] rest_url", "local = true", "either"]),
    "plaintext": (GOOD.replace("wss://", "ws://"), ["line 4", "[exchange] ws_url", "ws://stream", "not encrypted", "wss://"]),
    "plaintext to a lookalike": (
        GOOD.replace("https://api.binance.com", "http://localhost.example"),
        ["rest_url", "localhost.example", "not encrypted"],
    ),
    "scheme of the other url": (GOOD.replace("wss://", "https://"), ["[exchange] ws_url", "https", "wss://"]),
    "path behind the host": (GOOD.replace("binance.com:9443", "binance.com/stream"), ["[exchange] ws_url", "/stream", "appends the path"]),
    "query behind the host": (GOOD.replace("binance.com:9443", "binance.com?streams=x"), ["[exchange] ws_url", "appends the path"]),
    "path of another exchange": (GOOD.replace("api.binance.com", "api.binance.com/api/v2"), ["[exchange] rest_url", "/api/v2"]),
    "no login": (DERIBIT, ["[deribit] interval", '"raw"', "DERIBIT_CLIENT_ID and DERIBIT_CLIENT_SECRET are not set", '"100ms"']),
    "wrong interval": (DERIBIT + '[deribit]\ninterval = "1s"\n', ["[deribit] interval", '"1s"', '"raw" or "100ms"']),
    "secret in the file": (DERIBIT + '[deribit]\nclient_secret = "hush"\n', ["[deribit] client_secret", "DERIBIT_CLIENT_SECRET"]),
    "no host": (GOOD.replace("wss://stream.binance.com:9443", "wss://:9443"), ["[exchange] ws_url", "names no host"]),
    "impossible port": (GOOD.replace("9443", "99999"), ["[exchange] ws_url", "99999", "no URL"]),
    "no certificates": (GOOD + 'ca_file = "/nowhere/ca.pem"\n', ["[exchange] ca_file", "/nowhere/ca.pem", "No such file"]),
    "unfit certificates": (GOOD + f'ca_file = "{CONFIGS / "demo.toml"}"\n', ["[exchange] ca_file", "no certificate", "PEM"]),
    "instruction to dynaconf": (GOOD + '[ring]\ndir = "@format {env[HOME]}"\n', ["[ring] dir", "@format {env[HOME]}", "instruction"]),
    "instruction in a list": (GOOD + '[symbols]\ninclude = ["BTC*", "@int 3"]\n', ["[symbols] include", "@int 3", "instruction"]),
    "merge marker of dynaconf": (GOOD + '[symbols]\ninclude = ["BTC*", "dynaconf_merge"]\n', ["[symbols] include", "instruction"]),
    "merge key of dynaconf": (GOOD + "[feed]\ndynaconf_merge = true\n", ["[feed] dynaconf_merge", "no such key"]),
    "one key in two cases": (GOOD + "[feed]\nlegs = 2\nLegs = 3\n", ["[feed] legs", "line 7", "twice"]),
    "a table for a key": (GOOD + "[feed.legs]\na = 1\n", ["[feed] legs", "this is a table", "from 1 to 8"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_source_key_found_and_expected(name: str, refusal: Callable[..., str]) -> None:
    text, parts = MISTAKES[name]
    message = refusal(text)
    assert "mdc.toml" in message
    for part in parts:
        assert part in message, message


def test_all_mistakes_are_in_one_message(refusal: Callable[..., str]) -> None:
    text = GOOD.replace("wss", "ws") + '[feed]\nleg = 1\nlegs = 9\n[ring]\ndir = "/run/a"\ncapacity_mb = 3\n[log]\nlevel = 3\n'
    message = refusal(text, MDC_JOURNAL__DIR="/run/a/b", MDC_FEED__GAP_GRACE_MS="soon", DERIBIT_CLIENT_ID="x")
    assert "7 mistakes" in message
    for key in (
        "[exchange] ws_url",
        "[feed] leg ",
        "[feed] legs",
        "[ring] capacity_mb",
        "[log] level",
        "[journal] dir",
        "[feed] gap_grace_ms",
    ):
        assert key in message, message


def test_what_follows_from_a_mistake_is_not_told_as_another(refusal: Callable[..., str]) -> None:
    assert "one mistake" in refusal(GOOD + "[feed]\nlegs = 9\n[ring]\ncapacity_mb = 8\n")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (b"[exchange\n", ["line 1", "column", "TOML"]),
        (GOOD.encode() + b"[feed]\nlegs = = 3\n", ["line 6", "column 8", "TOML"]),
        (GOOD.encode() + b"[exchange]\n", ["line 5", "TOML"]),
        (GOOD.encode() + b'# Z\xfcrich\n[log]\nlevel = "INFO"\n', ["line 5", "UTF-8"]),
        (b"\xef\xbb\xbf" + GOOD.encode(), ["byte order mark"]),
        (GOOD.encode("utf-16"), ["UTF-8"]),
        (b"", ["[exchange] name", "missing"]),
    ],
    ids=["open bracket", "two equal signs", "a table twice", "latin-1", "byte order mark", "utf-16", "empty"],
)
def test_a_file_that_cannot_be_read_as_toml_is_told_by_place(text: bytes, parts: list[str], refusal: Callable[..., str]) -> None:
    message = refusal(text)
    for part in ["mdc.toml", *parts]:
        assert part in message, message


def test_a_missing_file_and_a_directory_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mdc\.toml: there is no such"):
        load(tmp_path / "mdc.toml", {})
    with pytest.raises(ConfigError, match="this is a directory"):
        load(tmp_path, {})


def test_an_unreadable_file_is_told(tmp_path: Path) -> None:
    # Root may read everything; a loop of links is unreadable for root too.
    path = tmp_path / "mdc.toml"
    path.symlink_to(path)
    with pytest.raises(ConfigError, match=r"mdc\.toml.*cannot be read"):
        load(path, {})


def test_each_layer_is_stronger_than_the_one_below(load_text: Load) -> None:
    text = GOOD + "[feed]\nlegs = 3\nchunk_symbols = 30\ngap_grace_ms = 300\n"
    found = load_text(text, "MDC_FEED__CHUNK_SYMBOLS=40\nexport MDC_FEED__GAP_GRACE_MS='400'\n", MDC_FEED__GAP_GRACE_MS="500")
    assert (found.feed.legs, found.feed.chunk_symbols, found.feed.gap_grace_ms) == (3, 40, 500)


def test_a_stronger_list_replaces_the_weaker_one(load_text: Load) -> None:
    found = load_text(GOOD + '[symbols]\ninclude = ["A*", "B*"]\n', MDC_SYMBOLS__INCLUDE='["C*"]')
    assert found.symbols.include == ("C*",)


def test_keys_are_folded_to_lower_case(load_text: Load) -> None:
    found = load_text(GOOD + "[Feed]\nLEGS = 3\n", MDC_ring__Capacity_MB="64")
    assert (found.feed.legs, found.ring.capacity_mb) == (3, 64)


@pytest.mark.parametrize(
    ("variable", "text", "section", "key", "value"),
    [
        ("MDC_JOURNAL__SYNC_WRITES", "true", "journal", "sync_writes", True),
        ("MDC_JOURNAL__SYNC_WRITES", "True", "journal", "sync_writes", True),
        ("MDC_JOURNAL__KEEP_FREE_GB", "2", "journal", "keep_free_gb", 2.0),
        ("MDC_LOG__LEVEL", "debug", "log", "level", "DEBUG"),
        ("MDC_LOG__JSON", "true", "log", "as_json", True),
        ("MDC_EXCHANGE__LOCAL_RATE", "max", "exchange", "local_rate", "max"),
        ("MDC_EXCHANGE__LOCAL_RATE", "5000", "exchange", "local_rate", 5000),
        ("MDC_EXCHANGE__REST_URL", "http://127.0.0.1:8080/", "exchange", "rest_url", "http://127.0.0.1:8080"),
        ("MDC_EXCHANGE__WS_URL", "ws://[::1]:9", "exchange", "ws_url", "ws://[::1]:9"),
        ("MDC_EXCHANGE__WS_URL", "ws://localhost:9", "exchange", "ws_url", "ws://localhost:9"),
        ("MDC_SYMBOLS__INCLUDE", '["123", "币安人生*"]', "symbols", "include", ("123", "币安人生*")),
    ],
)
def test_a_variable_is_read_as_its_key_wants_it(variable: str, text: str, section: str, key: str, value: object, load_text: Load) -> None:
    assert getattr(getattr(load_text(GOOD, **{variable: text}), section), key) == value


@pytest.mark.parametrize(
    ("variable", "text", "parts"),
    [
        ("MDC_FEED__LEGS", "two", ["[feed] legs", '"two"', "from 1 to 8"]),
        ("MDC_FEED__LEGS", "", ["[feed] legs", '""', "from 1 to 8"]),
        ("MDC_FEED__LEGS", "2\nx = 3", ["[feed] legs", "from 1 to 8"]),
        ("MDC_FEED__LEGS", "@int 2", ["[feed] legs", "@int 2", "instruction"]),
        ("MDC_EXCHANGE__NAME", "123", ["[exchange] name", '"123"', "no such exchange"]),
        ("MDC_EXCHANGE__WSURL", "x", ["[exchange] wsurl", "did you mean ws_url"]),
        ("MDC_EXCHANGE__WS__URL", "x", ["[exchange] ws.url", "no such key"]),
        ("MDC_FED__LEGS", "2", ["[fed]", "did you mean [feed]"]),
        ("MDC_SYMBOLS__INCLUDE", "BTC*", ["[symbols] include", '"BTC*"', "a list of shell patterns"]),
    ],
)
def test_a_mistake_in_a_variable_names_the_variable(variable: str, text: str, parts: list[str], refusal: Callable[..., str]) -> None:
    message = refusal(GOOD, **{variable: text})
    for part in [variable, "in the environment", *parts]:
        assert part in message, message


def test_variables_without_a_double_underscore_are_no_keys(load_text: Load) -> None:
    assert load_text(GOOD, MDC_CAPTURES="/captures", MDC_RINGS="/run", MDC_FEED_LEGS="7", OTHER__FEED="x").feed.legs == 2


def test_variables_of_dynaconf_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "mdc.toml").write_text(GOOD)
    (tmp_path / "other.py").write_text("print('executed')\nFEED = {'legs': 7}\n")
    script = "import sys; from pathlib import Path; from appliance.config import load; print(load(Path(sys.argv[1])).feed.legs)"
    environ = {
        f"{name}_FOR_DYNACONF": str(tmp_path / "other.py") for name in ("SETTINGS_FILE", "SETTINGS_FILES", "INCLUDES", "PRELOAD", "SECRETS")
    }
    environ |= {
        "DYNACONF_FEED__LEGS": "6",
        "ENVVAR_PREFIX_FOR_DYNACONF": "OTHER",
        "OTHER_FEED__LEGS": "5",
        "MERGE_ENABLED_FOR_DYNACONF": "true",
    }
    environ |= {"PYTHONPATH": str(CONFIGS.parent)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "mdc.toml")], env=environ, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("2\n", "")


def test_a_dotenv_never_reaches_the_environment(load_text: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(os.environ)
    found = load_text(GOOD, "# comment\n\nMDC_FEED__LEGS=3\nOTHER=${HOME}\nDERIBIT_CLIENT_ID=abc\n")
    assert found.feed.legs == 3
    assert dict(os.environ) == before


def test_a_mistake_in_a_dotenv_names_file_and_line(refusal: Callable[..., str]) -> None:
    message = refusal(GOOD, "# comment\n\nMDC_FEED__LEGS=33\nnonsense here\nMDC_FEED__GAP_GRACE_MS\n")
    assert "MDC_FEED__LEGS in " in message
    for line in ("line 3", "line 4", "line 5"):
        assert f".env {line}" in message, message


def test_secrets_come_from_variables_dotenv_and_credentials_in_this_order(load_text: Load, tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "deribit.client_secret").write_text("0042\n")
    (credentials / "other").write_text("x")
    dotenv = "DERIBIT_CLIENT_ID=from-dotenv\nDERIBIT_CLIENT_SECRET=from-dotenv\n"
    found = load_text(GOOD, dotenv, DERIBIT_CLIENT_ID="123", CREDENTIALS_DIRECTORY=str(credentials)).deribit
    assert found.client_id is not None
    assert found.client_secret is not None
    assert (found.client_id.get_secret_value(), found.client_secret.get_secret_value()) == ("123", "0042")


@pytest.mark.parametrize(
    "text",
    [
        GOOD + '[deribit]\nclient_secret = "hunter2"\n',
        GOOD + '[deribit]\nclient_id = "hunter2"\n',
        GOOD + 'api_key = "hunter2"\n',
        GOOD + '[secrets]\nbinance = "hunter2"\n',
        'DERIBIT_CLIENT_SECRET = "hunter2"\n' + GOOD,
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_shown(text: str, refusal: Callable[..., str]) -> None:
    message = refusal(text)
    assert "hunter2" not in message
    assert "a secret is in a file that others read" in message
    assert "DERIBIT_CLIENT_SECRET" in message


def test_no_message_shows_a_secret(refusal: Callable[..., str], load_text: Load) -> None:
    message = refusal(GOOD.replace("wss://", "wss://user:hunter2@"), MDC_DERIBIT__CLIENT_SECRET="hunter2", MDC_EXCHANGE__PASSWORD="hunter2")
    assert "hunter2" not in message
    assert "DERIBIT_CLIENT_SECRET" in message
    found = load_text(GOOD, DERIBIT_CLIENT_SECRET="hunter2")
    assert "hunter2" not in repr(found) + str(found) + found.model_dump_json()
    assert found.secrets() == ["hunter2"]


NAMES = st.text(string.ascii_uppercase + string.digits + "币安人生", min_size=1, max_size=12)
REUSED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)


@REUSED
@given(names=st.lists(NAMES, min_size=1, max_size=5))
def test_names_stay_text_by_file_and_by_variable(names: list[str], load_text: Load) -> None:
    """All-digit names too: "123" is no number."""
    spelled = json.dumps(names, ensure_ascii=False)
    assert load_text(GOOD + f"[symbols]\ninclude = {spelled}\n").symbols.include == tuple(names)
    assert load_text(GOOD, MDC_SYMBOLS__INCLUDE=spelled).symbols.include == tuple(names)


@REUSED
@given(name=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(lambda name: name.strip("./")))
def test_a_path_in_a_variable_is_taken_as_it_stands(name: str, load_text: Load) -> None:
    assert load_text(GOOD, MDC_METRICS__CSV=f"/srv/{name}").metrics.csv == Path(f"/srv/{name}")


@REUSED
@given(number=st.integers())
def test_a_number_is_taken_in_its_range_and_else_told(number: int, load_text: Load) -> None:
    if 1 <= number <= 8:
        assert load_text(GOOD, MDC_FEED__LEGS=str(number)).feed.legs == number
    else:
        with pytest.raises(ConfigError, match=r"\[feed\] legs = -?\d+"):
            load_text(GOOD, MDC_FEED__LEGS=str(number))


@REUSED
@given(junk=st.binary(max_size=200), behind=st.booleans())
def test_whatever_the_file_holds_the_answer_is_settings_or_a_message(junk: bytes, behind: bool, load_text: Load) -> None:
    with suppress(ConfigError):
        load_text(GOOD.encode() + junk if behind else junk)


SCALARS = st.one_of(st.text(max_size=20), st.integers(), st.floats(), st.booleans(), st.dates(), st.lists(st.text(max_size=5), max_size=3))
KEYS = st.sampled_from(
    ["name", "legs", "dir", "include", "codec", "level", "client_id", "x", "_", "dynaconf_merge", "a.b", "a__b", "items", ""]
)


@REUSED
@given(section=st.sampled_from(["exchange", "feed", "ring", "symbols", "other", "", "load_dotenv"]), key=KEYS, value=SCALARS)
def test_whatever_a_key_holds_the_answer_is_settings_or_a_message(section: str, key: str, value: object, load_text: Load) -> None:
    spelled = value if not isinstance(value, str | list | bool) else json.dumps(value)
    with suppress(ConfigError):
        load_text(f"[{json.dumps(section)}]\n{json.dumps(key)} = {spelled}\n", **{f"MDC_{section}__{key}".replace("\0", ""): str(value)})
