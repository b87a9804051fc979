"""The ring's protocol in every order that a machine with weak ordering allows; and the code takes the steps of the model."""

import os
import re
from collections.abc import Callable

import pytest

from tests.proofs import spin

pytestmark = pytest.mark.skipif(bool(spin.missing()), reason=f"the model of the ring is not checked: {spin.missing()}")

STEP = re.compile(r"^ \*   ([A-Z]_\w+) +(\w+\.pyx) +(.+)$", re.MULTILINE)
TAG = re.compile(r"# ring\.pml: (\w+)")
# What no one but the steps may do: move a cursor that readers or writers go by.
CURSOR = re.compile(r"store_\w+\(&self\.meta\.(claimed|committed|flushed),")

# Small enough for each run of the tests; `make proofs` sets MDC_PROOFS=long and takes minutes.
SHORT = {
    "nobody dies": ("DEATHS=0", "LAST=7"),
    "a writer dies at any step": ("DEATHS=1", "LAST=6", "ROOM=5"),
    "mode safe with a flusher, a writer dies": ("SAFE", "DEATHS=1", "LAST=7", "ROOM=5"),
}
LONG = {
    "nobody dies": ("DEATHS=0", "LAST=10"),
    "a writer dies at any step": ("DEATHS=1", "LAST=7"),
    "mode safe with a flusher, a writer dies": ("SAFE", "DEATHS=1", "LAST=10"),
}
CASES = LONG if os.environ.get("MDC_PROOFS") == "long" else SHORT

WEAKENED = {
    "the commit is not a release": ("COMMIT_RELAXED", "DEATHS=0"),
    "no release fence behind the claim": ("NO_RELEASE_FENCE", "DEATHS=0"),
    "no claim": ("NO_CLAIM", "DEATHS=0"),
    "the claim comes behind the data": ("CLAIM_AFTER_DATA", "DEATHS=0"),
    "padding is written before it is claimed": ("PAD_BEFORE_CLAIM", "DEATHS=0"),
    "the reader's cursor is no acquire": ("CURSOR_RELAXED", "DEATHS=0"),
    "no acquire fence behind the copy": ("NO_ACQUIRE_FENCE", "DEATHS=0"),
    "the lap is looked for before the copy, not behind it": ("CHECK_BEFORE_COPY", "DEATHS=0"),
    "no look for a lap": ("NO_LAP_CHECK", "DEATHS=0"),
    "a lap is noticed one word late": ("LAP_CHECK_OFF_BY_ONE", "DEATHS=0"),
    "the next writer forgets what the dead one claimed": ("CLAIM_FALLS", "LAST=6", "ROOM=5"),
    "the next writer goes on at what was claimed, not at what was committed": ("GO_ON_AT_CLAIMED", "LAST=6", "ROOM=5"),
    "mode safe without a look at what is flushed": ("SAFE", "NO_ROOM_CHECK", "DEATHS=0"),
    "mode safe keeps what is not flushed, not its whole block": ("SAFE", "ROOM_TO_THE_BYTE", "DEATHS=0"),
    "flushed is not a release behind the copy": ("SAFE", "FLUSHED_RELAXED", "DEATHS=0"),
    "mode safe, and the commit is not a release": ("SAFE", "COMMIT_RELAXED", "DEATHS=0"),
}


@pytest.mark.parametrize("case", CASES)
def test_no_order_of_stores_and_loads_brings_a_reader_a_wrong_record(case: str, record_property: Callable[[str, object], None]) -> None:
    found = spin.check(*CASES[case])
    print(f"{case}: {found.states:,} states")
    record_property("states", found.states)
    assert found.error == ""
    assert found.whole
    assert found.states > 100_000, "so few orders show nothing"


@pytest.mark.parametrize("weakness", WEAKENED)
def test_each_step_is_needed(weakness: str) -> None:
    """The same model with one thing taken away: Spin finds an order that goes wrong."""
    assert "assertion violated" in spin.check(*WEAKENED[weakness]).error


def test_every_weakness_of_the_model_is_tried() -> None:
    names = set(re.findall(r"^#ifn?def (\w+)$", spin.MODEL.read_text(), re.MULTILINE))
    settings = {"LAST", "ROOM", "DEATHS", "SAFE"}
    assert names - settings == {name for defined in WEAKENED.values() for name in defined if "=" not in name} - settings


def test_the_code_takes_the_steps_of_the_model() -> None:
    """A changed order in the code, or a cursor moved elsewhere, must pass by the model."""
    text = spin.MODEL.read_text()
    table = {step: (file, code) for step, file, code in STEP.findall(text)}
    body = text[text.index("#define BLOCK") :]
    assert set(table) == set(re.findall(r"\b[WRF]_[A-Z_]+\b", body))
    found = {}
    for file in sorted({file for file, _ in table.values()}):
        lines = (spin.MODEL.parent / file).read_text().splitlines()
        for number, line in enumerate(lines):
            if tag := TAG.search(line):
                code = line[: tag.start()].strip() or lines[number + 1].strip()
                assert tag[1] not in found, f"{tag[1]} stands twice"
                found[tag[1]] = (file, code)
            assert not CURSOR.search(line) or TAG.search(line), f"{file}:{number + 1} moves a cursor and is no step of the model"
    assert found == table
