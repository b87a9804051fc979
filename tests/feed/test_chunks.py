"""A symbol's place in a chunk is for ever."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.errors import CannotRun
from appliance.feed.chunks import Chunks

SYMBOLS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
NAMES = [f"S{number:04}USDT" for number in range(1_262)]


def test_1262_symbols_make_four_chunks_of_at_most_400(tmp_path: Path) -> None:
    chunks = Chunks.load(tmp_path, "binance")
    assert sorted(chunks.assign(NAMES, 400)) == NAMES
    assert [len(chunks.symbols(number)) for number in range(len(chunks))] == [400, 400, 400, 62]


def test_a_restart_finds_every_symbol_where_it_was_in_whatever_order_the_exchange_lists_them(tmp_path: Path) -> None:
    first = Chunks.load(tmp_path, "binance")
    first.assign(NAMES, 400)
    first.save()
    second = Chunks.load(tmp_path, "binance")
    assert second.assign(reversed(NAMES), 400) == []
    assert [second.symbols(number) for number in range(4)] == [first.symbols(number) for number in range(4)]


def test_the_same_list_in_another_order_is_dealt_out_alike(tmp_path: Path) -> None:
    one, other = Chunks.load(tmp_path, "binance"), Chunks.load(tmp_path, "binance")
    one.assign(NAMES, 400)
    other.assign(reversed(NAMES), 400)
    assert [one.symbols(number) for number in range(4)] == [other.symbols(number) for number in range(4)]


def test_a_new_listing_takes_the_first_chunk_with_room_and_a_delisted_symbol_keeps_its_place(tmp_path: Path) -> None:
    chunks = Chunks.load(tmp_path, "binance")
    chunks.assign(["A", "B", "C"], 2)
    assert chunks.assign(["C", "币安人生USDT"], 2) == ["币安人生USDT"]  # A and B are no longer listed
    assert [chunks.symbols(number) for number in range(len(chunks))] == [("A", "B"), ("C", "币安人生USDT")]
    assert chunks.assign(["D"], 2) == ["D"]
    assert chunks.chunk_of("D") == 2


def test_a_changed_chunk_size_moves_nobody(tmp_path: Path) -> None:
    chunks = Chunks.load(tmp_path, "binance")
    chunks.assign(NAMES[:10], 5)
    chunks.save()
    smaller = Chunks.load(tmp_path, "binance")
    smaller.assign(NAMES[:12], 2)
    assert [smaller.chunk_of(name) for name in NAMES[:12]] == [0] * 5 + [1] * 5 + [2, 2]
    larger = Chunks.load(tmp_path, "binance")
    larger.assign(NAMES[:12], 7)
    assert [larger.chunk_of(name) for name in NAMES[:12]] == [0] * 5 + [1] * 5 + [0, 0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.lists(SYMBOLS, max_size=30), st.integers(1, 8)), max_size=8))
def test_no_symbol_ever_moves(tmp_path_factory: pytest.TempPathFactory, listings: list[tuple[list[str], int]]) -> None:
    directory = tmp_path_factory.mktemp("chunks")
    places: dict[str, int] = {}
    for symbols, room in listings:
        chunks = Chunks.load(directory, "binance")
        for symbol in chunks.assign(symbols, room):
            assert symbol not in places
            places[symbol] = chunks.chunk_of(symbol)
            assert list(chunks.symbols(places[symbol])).index(symbol) < room
        chunks.save()
        assert {symbol: Chunks.load(directory, "binance").chunk_of(symbol) for symbol in places} == places


def test_every_cut_and_every_flipped_byte_is_noticed_and_nothing_is_dealt_out_anew(tmp_path: Path) -> None:
    chunks = Chunks.load(tmp_path, "binance")
    chunks.assign(["AAA", "BBB", "币"], 2)
    chunks.save()
    whole = chunks.path.read_bytes()
    harmless = {len(whole) - 1}  # the last newline
    for at in range(len(whole)):
        damaged = [whole[:at]] if at not in harmless else []
        damaged.append(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        for text in damaged:
            chunks.path.write_bytes(text)
            found = loaded(tmp_path)
            if isinstance(found, CannotRun):
                assert str(chunks.path) in str(found)
            else:  # such as the number of symbols in the head, which is for people
                assert [found.symbols(number) for number in range(len(found))] == [("AAA", "BBB"), ("币",)], text


def loaded(directory: Path) -> Chunks | CannotRun:
    try:
        return Chunks.load(directory, "binance")
    except CannotRun as error:
        return error


def test_another_exchanges_file_is_refused(tmp_path: Path) -> None:
    chunks = Chunks.load(tmp_path, "binance")
    chunks.assign(["A"], 2)
    chunks.save()
    chunks.path.rename(tmp_path / "deribit_chunks.json")
    with pytest.raises(CannotRun, match="belongs to 'binance'"):
        Chunks.load(tmp_path, "deribit")


def test_a_directory_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    chunks = Chunks.load(tmp_path / "gone", "binance")
    chunks.assign(["A"], 2)
    with pytest.raises(CannotRun, match="cannot be written"):
        chunks.save()


def test_the_file_is_replaced_whole(tmp_path: Path) -> None:
    chunks = Chunks.load(tmp_path, "binance")
    chunks.assign(["A"], 2)
    chunks.save()
    before = chunks.path.stat()[stat.ST_INO]
    with chunks.path.open("rb") as old:
        chunks.assign(["B"], 2)
        chunks.save()
        assert b'"B"' not in old.read()
    assert chunks.path.stat()[stat.ST_INO] != before
    assert os.listdir(tmp_path) == [chunks.path.name]  # noqa: PTH208 - names alone
