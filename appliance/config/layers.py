"""Where values are given, from the weakest layer to the strongest: file, `.env`, environment, systemd credentials.

Everything is read here as it stands; only dynaconf's merging decides which layer wins. Its own loaders are not used: they
would search for files and read variables that are not ours, turn text of digits into numbers, and obey `@` tokens.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from dotenv.parser import parse_stream
from dynaconf import Dynaconf  # type: ignore[import-untyped]
from dynaconf.loaders.base import SourceMetadata  # type: ignore[import-untyped]
from pydantic import SecretStr

from appliance.config.mistakes import HIDDEN, SECTIONS, Key, Mistake, expected_of, is_secret, shown, unknown
from appliance.errors import ConfigError

PREFIX = "MDC_"
SEPARATOR = "__"

# What dynaconf takes for an instruction wherever it meets it in a value.
_INSTRUCTION = re.compile(r"^\s*@|^dynaconf_", re.IGNORECASE)

# The keys whose values no file may hold: variable, and credential of the unit (mdc@.service loads %i.client_id).
SECRETS: dict[Key, tuple[str, str]] = {
    ("deribit", "client_id"): ("DERIBIT_CLIENT_ID", "deribit.client_id"),
    ("deribit", "client_secret"): ("DERIBIT_CLIENT_SECRET", "deribit.client_secret"),
}


@dataclass(slots=True, frozen=True)
class Given:
    """One value as it was given."""

    key: Key
    value: object
    where: str


@dataclass(slots=True)
class Layers:
    """All that was given, the strongest last, and what is wrong with the way it was given."""

    given: list[Given] = field(default_factory=list)
    secrets: dict[Key, SecretStr] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def read_file(self, path: Path) -> None:
        """The configuration file. Raises ConfigError when it cannot be read as TOML at all."""
        text = _read_text(path, "configuration file")
        try:
            tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path}: this is not TOML: {error}") from None
        seen: set[Key] = set()
        for spelled, value in _leaves(tables):
            key = _folded(spelled)
            line = _line_of(text, spelled, value)
            where = f"{path} line {line}" if line else str(path)
            if is_secret(key):
                variables = " and ".join(variable for variable, _ in SECRETS.values())
                self._mistake(key, "a secret is in a file that others read", where, f"{variables} in the environment or .env", hidden=True)
            elif key in seen:
                self._mistake(key, "it is given twice, in upper and lower case", where, "it once")
            else:
                seen.add(key)
                self._give(Given(key, value, where))

    def read_dotenv(self, path: Path) -> None:
        """The `.env` file beside the configuration, if there is one. It never reaches os.environ."""
        if not path.exists():
            return
        variables: dict[str, str] = {}
        lines: dict[str, int] = {}
        for binding in parse_stream(StringIO(_read_text(path, "environment file"))):
            # A statement may begin with the empty lines before it.
            line = binding.original.line + len(binding.original.string) - len(binding.original.string.lstrip("\n"))
            if binding.error or (binding.key is not None and binding.value is None):
                self._mistake((path.name,), "this line is no assignment", f"{path} line {line}", "NAME=value")
            elif binding.key is not None and binding.value is not None:
                variables[binding.key] = binding.value
                lines[binding.key] = line
        self._read_variables(variables, {name: f"{name} in {path} line {line}" for name, line in lines.items()})

    def read_environment(self, environ: Mapping[str, str]) -> None:
        """The variables of the process that are ours."""
        self._read_variables(environ, {})

    def read_credentials(self, environ: Mapping[str, str]) -> None:
        """What systemd's LoadCredential= put into files for this process alone."""
        directory = environ.get("CREDENTIALS_DIRECTORY")
        if not directory:
            return
        for key, (_, name) in SECRETS.items():
            path = Path(directory) / name
            if path.exists():
                self._take_secret(key, _read_text(path, "credential").strip("\r\n"))

    def merged(self) -> dict[str, dict[str, Any]]:
        """Section, key, value: of each key the strongest."""
        # An empty list of loaders also keeps it from files that variables like SETTINGS_FILE_FOR_DYNACONF name.
        settings = Dynaconf(core_loaders=[], loaders=[], preload=[], includes=[], secrets=None, environments=False, load_dotenv=False)
        for given in self.given:
            source = SourceMetadata(loader="mdc", identifier=given.where, env="main")
            settings.set(".".join(given.key), given.value, loader_identifier=source, dotted_lookup=True, tomlfy=False)
        tables = {name.lower(): table for name, table in settings.as_dict().items()}
        merged: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
        for section, key in self.where():
            merged[section][key] = tables[section][key]
        return merged

    def where(self) -> dict[Key, str]:
        """Of each key, where the value came from that `merged` holds."""
        return {given.key: given.where for given in self.given}

    def _read_variables(self, variables: Mapping[str, str], lines: Mapping[str, str]) -> None:
        seen: set[Key] = set()
        for name, text in sorted(variables.items()):
            where = lines.get(name, f"{name} in the environment")
            for secret, (variable, _) in SECRETS.items():
                if name == variable:
                    self._take_secret(secret, text)
            if not name.startswith(PREFIX) or SEPARATOR not in name:
                continue
            key = _folded(tuple(name.removeprefix(PREFIX).split(SEPARATOR)))
            if key in SECRETS:
                self._mistake(key, "a secret has a variable of its own", where, SECRETS[key][0], hidden=True)
            elif key in seen:
                self._mistake(key, "it is given twice, in upper and lower case", where, "it once")
            else:
                seen.add(key)
                self._give(Given(key, text if _is_text(key) else _parsed(text), where))

    def _take_secret(self, key: Key, text: str) -> None:
        if text.strip():  # an empty variable is how an environment says that there is none
            self.secrets[key] = SecretStr(text)

    def _give(self, given: Given) -> None:
        if mistake := unknown(given.key, HIDDEN if is_secret(given.key) else given.value, given.where):
            self.mistakes.append(mistake)
        elif _instructs(given.value):
            problem = "a value that begins with @ or dynaconf_ is an instruction to the loader, and none is obeyed here"
            self.mistakes.append(Mistake(given.key, problem, shown(given.value), given.where, expected_of(given.key)))
        else:
            self.given.append(given)

    def _mistake(self, key: Key, problem: str, where: str, expected: str, hidden: bool = False) -> None:
        self.mistakes.append(Mistake(key, problem, HIDDEN if hidden else "", where, expected))


def _read_text(path: Path, what: str) -> str:
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such {what}; expected the path of a file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: this is a directory; expected a {what}, e.g. {path / 'binance.toml'}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}: line {line} has bytes that are not UTF-8; save the {what} as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: the {what} cannot be read: {error.strerror}") from None
    if text.startswith("\ufeff"):
        raise ConfigError(f"{path}: begins with a byte order mark; save the {what} as UTF-8 without one")
    return text


def _leaves(tables: Mapping[str, Any]) -> Iterator[tuple[Key, object]]:
    for section, table in tables.items():
        if not isinstance(table, dict):
            yield (section,), table
        elif not table and section.lower() not in SECTIONS:
            yield (section, ""), table
        else:
            for key, value in table.items():
                yield (section, key), value


def _folded(key: Key) -> Key:
    return tuple(part.lower() for part in key)


def _instructs(value: object) -> bool:
    if isinstance(value, dict):
        return _instructs(list(value)) or _instructs(list(value.values()))
    if isinstance(value, list):
        return any(_instructs(item) for item in value)
    return isinstance(value, str) and _INSTRUCTION.search(value) is not None


def _is_text(key: Key) -> bool:
    """Whether a key's value is text, so that a variable's value is taken as it stands."""
    section = SECTIONS.get(key[0])
    for name, described in (section.model_fields if section else {}).items():
        if key[1:] == ((described.alias or name),):
            return _holds_text(described.annotation)
    return True


def _holds_text(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin is Literal:
        return all(isinstance(one, str) for one in get_args(annotation))
    if origin in (Union, UnionType):
        return all(_holds_text(one) for one in get_args(annotation) if one is not NoneType)
    if get_args(annotation) and hasattr(annotation, "__metadata__"):
        return _holds_text(get_args(annotation)[0])
    return isinstance(annotation, type) and issubclass(annotation, str | Path | SecretStr)


def _parsed(text: str) -> object:
    """A variable's value as TOML would read it in the file; text that is no TOML stays text."""
    spelled = {"True": "true", "False": "false"}.get(text.strip(), text)
    try:
        found = tomllib.loads(f"value = {spelled}")
    except tomllib.TOMLDecodeError:
        return text
    return found["value"] if len(found) == 1 else text


def _line_of(text: str, key: Key, value: object) -> int | None:
    """The line that sets a key, where it is plain to see: one candidate below the section's head, on a line of its own."""
    section = ""
    lines: list[int] = []
    for number, line in enumerate(text.splitlines(), 1):
        head = re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line)
        if head:
            section = head[1].strip("\"'")
        elif (section, *_name_on(line)) == (key if len(key) > 1 else ("", *key)):
            lines.append(number)
    return lines[0] if len(lines) == 1 else None


def _name_on(line: str) -> Iterable[str]:
    found = re.match(r"""\s*["']?([^\s"'=#\[\]]+)["']?\s*=""", line)
    return (found[1],) if found else ()
