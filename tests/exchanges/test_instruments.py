"""The name table of a chunk: every name finds its own index, no other text finds one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.exchanges.instruments import Instruments

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=21).filter(lambda name: len(name.encode()) <= 64)


@given(st.lists(NAMES, unique=True, max_size=40), st.lists(NAMES))
def test_names_are_found_by_what_they_are(names: list[str], strangers: list[str]) -> None:
    instruments = Instruments("BINANCE")
    assert [instruments.add(name) for name in names] == list(range(len(names)))
    assert [instruments.add(name) for name in names] == list(range(len(names)))
    assert instruments.names() == names
    assert len(instruments) == len(names)
    for stranger in strangers:
        expected = names.index(stranger) if stranger in names else -1
        assert instruments.find(stranger) == expected
        assert (stranger in instruments) == (expected >= 0)


def test_a_table_that_grows_keeps_every_index() -> None:
    instruments = Instruments("BINANCE")
    names = [f"{number}SATSUSDT" for number in range(3000)]
    for name in names:
        instruments.add(name)
    assert [instruments.find(name) for name in names] == list(range(3000))


@given(NAMES, st.sampled_from(["Spot", "Perpetual", "Option"]))
def test_records_begin_with_the_name_as_json_text(name: str, kind: str) -> None:
    instruments = Instruments("DERIBIT")
    instruments.add(name, kind)
    start = instruments.start_of_records(0)
    assert json.loads(start + b"1}") == {"exchange": "DERIBIT", "asset": name, "kind": kind, "px": 1}
    assert list(json.loads(start + b"1}")) == ["exchange", "asset", "kind", "px"]


def test_the_start_of_a_record_is_as_in_the_contract() -> None:
    instruments = Instruments("BINANCE")
    instruments.add("币安人生USDT")
    assert instruments.start_of_records(0).decode() == '{"exchange":"BINANCE","asset":"币安人生USDT","kind":"Spot","px":'


@pytest.mark.parametrize("name", ["", "A" * 65, "币" * 22])
def test_names_that_no_record_could_hold_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected 1 to 64"):
        Instruments("BINANCE").add(name)


def test_sixty_four_bytes_are_a_name_even_if_each_is_escaped() -> None:
    instruments = Instruments("BINANCE")
    assert instruments.add("\x01" * 64) == 0
    assert instruments.find("\x01" * 64) == 0
    assert instruments.find("\x01" * 65) == -1


@pytest.mark.parametrize("instrument", [-1, 1])
def test_an_index_that_was_not_given_is_an_error(instrument: int) -> None:
    instruments = Instruments("BINANCE")
    instruments.add("BTCUSDT")
    with pytest.raises(IndexError):
        instruments.name(instrument)
