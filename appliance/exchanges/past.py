"""Past trades out of a REST reply, as messages of the websocket: what is fetched takes the same way as what is received."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

SPACE = re.compile(r"[ \t\n\r]*")
ROWS_A_MESSAGE = 50  # so that committing one is a matter of microseconds


@dataclass(frozen=True, slots=True)
class Past:
    """Trades of one instrument: messages as the websocket would have brought them, and all their ids in order."""

    messages: list[bytes]
    ids: list[int]


def elements(text: str, begin: int) -> Iterator[tuple[object, str]]:
    """The elements of the JSON array that begins at `begin`, each with its own spelling: digits stay as they were sent.

    Raises ValueError where it is no JSON.
    """
    decoder = json.JSONDecoder()
    at = _behind_space(text, begin + 1)
    while text[at : at + 1] != "]":
        value, end = decoder.raw_decode(text, at)
        yield value, text[at:end]
        at = _behind_space(text, end)
        if text[at : at + 1] == ",":
            at = _behind_space(text, at + 1)
        elif text[at : at + 1] != "]":
            raise ValueError(f"no end of the array at {at}")


def _behind_space(text: str, at: int) -> int:
    match = SPACE.match(text, at)
    assert match is not None, "it matches nothing too"
    return match.end()
