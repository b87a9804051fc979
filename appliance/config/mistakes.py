"""What is wrong with a configuration, in the words of the operator who wrote it."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from appliance.config.schema import Section, Settings
from appliance.errors import ConfigError

Key = tuple[str, ...]
"""A section and a key in it, in lower case. A key that stands outside of every section has one part."""

SECTIONS: dict[str, type[Section]] = {
    name: described.annotation
    for name, described in Settings.model_fields.items()
    if isinstance(described.annotation, type) and issubclass(described.annotation, Section)
}

FOUND_CHARACTERS_MAX = 80
HIDDEN = "***"

_SECRET = re.compile(r"secret|passw|token|api_?key|client_id|credential", re.IGNORECASE)
_USER_IN_URL = re.compile(r"//[^/@\s]*@")


@dataclass(slots=True, frozen=True)
class Mistake:
    """One thing to mend: which key, what was found and where, what was expected."""

    key: Key
    problem: str
    found: str = ""
    where: str = ""
    expected: str = ""
    involves: frozenset[Key] = field(default=frozenset())
    """Other keys that the problem is about; where one of them is wrong by itself, only that is told."""

    def __str__(self) -> str:
        head = in_brackets(self.key)
        if self.found:
            head += f" = {self.found}"
        if self.where:
            head += f"  ({self.where})"
        lines = [f"  {head}", f"      {self.problem}"]
        if self.expected:
            lines.append(f"      expected {self.expected}")
        return "\n".join(lines)


def refuse(path: Path, mistakes: Sequence[Mistake]) -> ConfigError:
    """All mistakes as one error, in the order of the sections."""
    order = list(SECTIONS)
    mistakes = sorted(mistakes, key=lambda mistake: order.index(mistake.key[0]) if mistake.key[0] in order else len(order))
    count = "one mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    return ConfigError("\n".join([f"{path}: {count} in the configuration", *map(str, mistakes)]))


def in_brackets(key: Key) -> str:
    """A key as it stands in the file: `[ring] capacity_mb`."""
    return f"[{key[0]}] {'.'.join(key[1:])}" if len(key) > 1 else key[0]


def shown(value: object) -> str:
    """A value as TOML writes it, short enough for a line, without a password that a URL may carry."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(value)
    text = _USER_IN_URL.sub(f"//{HIDDEN}@", text)
    return text if len(text) <= FOUND_CHARACTERS_MAX else text[: FOUND_CHARACTERS_MAX - 1] + "…"


def is_secret(key: Key) -> bool:
    """Whether a key's name says that its value is not for other eyes."""
    return any(_SECRET.search(part) for part in key)


def expected_of(key: Key) -> str:
    """What a value must be, as the schema says it."""
    section = SECTIONS.get(key[0])
    if section is None or len(key) < 2:
        return ""
    for name, described in section.model_fields.items():
        if key[1] == (described.alias or name) and isinstance(described.json_schema_extra, dict):
            return str(described.json_schema_extra["expected"])
    return ""


def keys_of(section: str) -> list[str]:
    """The names of a section's keys as the file spells them, without those that no file may hold."""
    names = [described.alias or name for name, described in SECTIONS[section].model_fields.items()]
    return [name for name in names if not is_secret((section, name))]


def unknown(key: Key, value: object, where: str) -> Mistake | None:
    """The mistake if the schema has no such key, with what was probably meant."""
    section = key[0]
    if len(key) == 1:
        return _outside(section, value, where)
    if section not in SECTIONS:
        sections = [f"[{one}]" for one in SECTIONS]
        return Mistake(
            (f"[{section}]",), _no_such("section", f"[{section}]", sections), where=where, expected=f"one of {', '.join(sections)}"
        )
    name = ".".join(key[1:])
    known = keys_of(section)
    if name in known:
        return None
    problem = _no_such("key", name, known)
    if homes := [other for other in SECTIONS if name in keys_of(other)]:
        problem = f"this key belongs in [{homes[0]}]"
    return Mistake(key, problem, shown(value), where, f"one of {', '.join(known)}")


def of_validation(error: ValidationError, where: Mapping[Key, str]) -> list[Mistake]:
    """pydantic's findings, one a key, in the order of the schema."""
    mistakes: dict[Key, Mistake] = {}
    for found in error.errors(include_url=False):
        key = tuple(str(part) for part in found["loc"][:2])
        if key in mistakes:  # alternatives of a union, items of a list
            continue
        expected = expected_of(key)
        if found["type"] == "missing":
            mistakes[key] = Mistake(key, "it is missing", expected=expected)
            continue
        value = HIDDEN if is_secret(key) else shown(_given(found["input"], found["loc"]))
        mistakes[key] = Mistake(key, _problem(found), value, where.get(key, ""), expected)
    return list(mistakes.values())


def _problem(found: ErrorDetails) -> str:
    reason = found.get("ctx", {}).get("error")
    if isinstance(reason, ValueError):
        return str(reason)
    value = found["input"]
    match found["type"]:
        case "greater_than_equal":
            return "it is too small"
        case "less_than_equal":
            return "it is too large"
        case "too_short" | "string_too_short":
            return "it is empty"
        case "literal_error" | "enum" if isinstance(value, str):
            return "it is none of the known values"
    return f"this is {_kind(value)}"


def _kind(value: object) -> str:
    """What TOML calls the type of a value, in plain words."""
    match value:
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list() | tuple():
            return "a list"
        case dict():
            return "a table"
    return "a date or time"


def _given(value: object, location: Iterable[int | str]) -> object:
    """A wrong item of a list stands for its list, as far as it can be told."""
    return [value] if any(isinstance(part, int) for part in location) else value


def _outside(name: str, value: object, where: str) -> Mistake:
    if name in SECTIONS:
        return Mistake((name,), "a section stands here as a key", shown(value), where, f"a table [{name}] with keys below it")
    homes = [section for section in SECTIONS if name in keys_of(section)]
    problem = "a key stands outside of every section"
    if homes:
        return Mistake((name,), problem, shown(value), where, f"it below {' or '.join(f'[{home}]' for home in homes)}")
    return Mistake((name,), problem, shown(value), where, f"keys only below one of {', '.join(f'[{section}]' for section in SECTIONS)}")


def _no_such(what: str, name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"there is no such {what}: did you mean {near[0]}?" if near else f"there is no such {what}"
