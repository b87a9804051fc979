"""One fuzzed process, in the instrumented tree: `python -m tests.proofs.fuzz_target TARGET PLACE [libFuzzer's flags] CORPUS`.

TARGET: binance or deribit (a frame against the plain decoder), ring or journal (hostile bytes against what was written).
PLACE: a directory of this process's own, in memory.
"""

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import atheris
import zstandard

from appliance.exchanges.binance_decoder import BinanceDecoder
from appliance.exchanges.deribit_decoder import DeribitDecoder
from appliance.exchanges.instruments import Instruments
from tests.exchanges import deribit_reference, reference_decoder
from tests.proofs.hostile import Target

SYMBOLS = ["BTCUSDT", "ETHUSDT", "币安人生USDT", 'A"\\B', "1000SATSUSDT"]
BEHIND = b'}]"},1e5\\x' * 8  # what lies behind a frame never matters
NAMES_MAX = 10_000  # learned from fuzzed frames, before they are forgotten
FRAMES = 400  # recorded ones in the corpus at first, evenly taken
FRAME_BYTES_MAX = 4096


def frames(exchange: str) -> Iterator[bytes]:
    """Recorded frames of the exchange, if there are recordings here."""
    path = Path(os.environ["MDC_CAPTURES"]) / exchange / "ws.jsonl.zst" if "MDC_CAPTURES" in os.environ else Path()
    if not path.is_file():
        return
    with path.open("rb") as file:
        text = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        for number, line in enumerate(io.TextIOWrapper(text, encoding="utf-8", newline="\n")):
            if number % 300 == 0 and len(frame := json.loads(line)["raw"].encode()) <= FRAME_BYTES_MAX:
                yield frame


def sow(corpus: Path, exchange: str) -> None:
    for number, frame in zip(range(FRAMES), frames(exchange), strict=False):
        (corpus / f"recorded-{number}").write_bytes(frame)


def binance() -> Callable[[bytes], None]:
    instruments = Instruments("BINANCE")
    for symbol in SYMBOLS:
        instruments.add(symbol)
    decoder = BinanceDecoder(instruments)

    def one(data: bytes) -> None:
        expected = reference_decoder.decode(data, SYMBOLS)
        assert decoder.decode(data) == expected
        assert decoder.decode(data + BEHIND, len(data)) == expected

    return one


def deribit() -> Callable[[bytes], None]:
    decoder = DeribitDecoder(Instruments("DERIBIT"))

    def one(data: bytes) -> None:
        nonlocal decoder
        if len(decoder.instruments) > NAMES_MAX:
            decoder = DeribitDecoder(Instruments("DERIBIT"))
        expected = deribit_reference.decode(data)
        found, again = decoder.decode(data), decoder.decode(data + BEHIND, len(data))
        assert found == again
        if b"\\" in data:  # strings are kept as spelled, and the plain decoder no longer knows how that was
            for trade in (*found[1], *expected[1]):
                del trade["tail"]
        assert found == expected

    return one


def trades() -> list[bytes]:
    """Payloads as records carry them."""
    start = b'{"exchange":"BINANCE","asset":"%s","kind":"Spot","px":83034.29,"sz":0.00062,"side":"Sell","exchange_trade_id":%d,'
    end = b'"exchange_ts_ms":1790649901913,"writer_ts_ms":1790649901914,"recv_ts_ms":1790649901914,"parse_ts_ms":1790649901914,'
    names = [b"BTCUSDT", b"ETHUSDT", "币安人生USDT".encode()]
    return [start % (names[number % 3], 1000 + number) + end + b'"enqueue_ts_ms":1790649901914}' for number in range(220)]


def main() -> None:
    name, place, flags, corpus = sys.argv[1], Path(sys.argv[2]), sys.argv[3:-1], Path(sys.argv[-1])
    one: Callable[[bytes], None]
    if name in ("binance", "deribit"):
        sow(corpus, name)
        one = binance() if name == "binance" else deribit()
    else:
        # One that was never lapped, one that was.
        targets = [Target(place / str(records), trades(), records) for records in (60, 160)]

        def one(data: bytes) -> None:
            target = targets[data[0] >> 5 & 1 if data else 0]
            (target.ring if name == "ring" else target.journal)(data)

    atheris.Setup([sys.argv[0], *flags, str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
