"""Which chunk a symbol belongs to, for ever: the file that maps symbols to rings.

A symbol that has a place keeps it, listed or not, so a restart finds each symbol in the same ring. The file lies beside the
journal, which is meaningless without it; a damaged one is an error and never a reason to deal the symbols out anew.
"""

import json
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from appliance.errors import CannotRun

FORMAT = 1


class Chunks:
    """The assignment of one exchange's symbols. One thread."""

    def __init__(self, path: Path, exchange: str, chunks: list[list[str]]) -> None:
        self.path = path
        self.exchange = exchange
        self._chunks = chunks
        self._chunk_of = {symbol: number for number, symbols in enumerate(chunks) for symbol in symbols}

    @classmethod
    def load(cls, directory: Path, exchange: str) -> Self:
        """The assignment in `directory`, empty where there is none yet. Raises CannotRun when it is damaged or unreadable."""
        path = directory / f"{exchange}_chunks.json"
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return cls(path, exchange, [])
        except OSError as error:
            raise CannotRun(f"{path}: cannot be read ({error.strerror}). It says which symbol is in which ring.") from None
        return cls(path, exchange, _parsed(path, exchange, text))

    def __len__(self) -> int:
        return len(self._chunks)

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._chunk_of

    def symbols(self, chunk: int) -> Sequence[str]:
        """All symbols that have their place in a chunk, in order of arrival."""
        return tuple(self._chunks[chunk])

    def chunk_of(self, symbol: str) -> int:
        return self._chunk_of[symbol]

    def assign(self, symbols: Iterable[str], chunk_symbols: int) -> list[str]:
        """Give a place to each symbol that has none: the first chunk with room, else a new one. The new ones, in order of name."""
        new = sorted(set(symbols) - self._chunk_of.keys())
        for symbol in new:
            number = next((n for n, chunk in enumerate(self._chunks) if len(chunk) < chunk_symbols), len(self._chunks))
            if number == len(self._chunks):
                self._chunks.append([])
            self._chunks[number].append(symbol)
            self._chunk_of[symbol] = number
        return new

    def forget(self, symbols: Iterable[str]) -> None:
        """Take back an assignment that could not be saved."""
        for symbol in symbols:
            self._chunks[self._chunk_of.pop(symbol)].remove(symbol)
        while self._chunks and not self._chunks[-1]:
            self._chunks.pop()

    def save(self) -> None:
        """Replace the file; on disk when this returns. Raises CannotRun."""
        content = json.dumps(self._chunks, ensure_ascii=False, separators=(",", ":"))
        head = {"format": FORMAT, "exchange": self.exchange, "symbols": len(self._chunk_of), "crc32": zlib.crc32(content.encode())}
        new = self.path.with_suffix(".new")
        try:
            with new.open("w", encoding="utf-8") as file:
                file.write(f'{json.dumps(head)[:-1]}, "chunks": {content}}}\n')
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
            directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise CannotRun(f"{self.path}: cannot be written ({error.strerror}).") from None


def _parsed(path: Path, exchange: str, text: bytes) -> list[list[str]]:
    """The chunks in the file, or what is wrong with it."""
    try:
        found = json.loads(text)
        chunks = found["chunks"]
        content = json.dumps(chunks, ensure_ascii=False, separators=(",", ":"))
        if found["format"] != FORMAT:
            raise _damaged(path, f"format {found['format']!r}, this version knows {FORMAT}")
        if found["exchange"] != exchange:
            raise CannotRun(f"{path}: belongs to {found['exchange']!r}, not to {exchange!r}. One directory holds one exchange.")
        if zlib.crc32(content.encode()) != found["crc32"]:
            raise _damaged(path, "its checksum does not fit its content")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from None
    if len({symbol for chunk in chunks for symbol in chunk}) != sum(map(len, chunks)):
        raise _damaged(path, "a symbol stands in it twice")
    return [list(chunk) for chunk in chunks]


def _damaged(path: Path, found: str) -> CannotRun:
    return CannotRun(
        f"{path}: damaged ({found}). It says which symbol is in which ring; without it symbols would change rings. "
        "Restore it from a backup, or move ring and journal directory away together to begin anew."
    )
