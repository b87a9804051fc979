"""How long does one Binance trade take from frame in memory to committed record, and how much of it goes where?

`pytest benchmarks/bench_frame_to_commit.py` prints both contenders' tables and the nanoseconds per stage; the gate is
the ratio of the two, measured in turn in one process.
"""

import gc
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from types import ModuleType

import pytest
from Cython.Build.Inline import load_dynamic
from picows import WSTransport
from pytest_benchmark.fixture import BenchmarkFixture

from appliance.exchanges.binance_decoder import BinanceDecoder
from appliance.exchanges.instruments import Instruments
from appliance.feed.handler import HotPath
from appliance.feed.window import Window
from appliance.ring.store import ChunkStore, StoreOptions
from benchmarks.plain_python import PlainPython

RATIO_LEAST = 6.0
TRADES = 20_000
SYMBOLS = 400
CAPACITY = 64 << 20
STAGE_ROUNDS = 200_000


def frames(first_id: int) -> list[bytes]:
    """Frames as Binance spells them, `SYMBOLS` symbols in turn."""
    return [
        (
            f'{{"stream":"sym{n % SYMBOLS}usdt@trade","data":{{"e":"trade","E":1790649901913,"s":"SYM{n % SYMBOLS}USDT",'
            f'"t":{first_id + n // SYMBOLS},"p":"83034.29000000","q":"0.00062000","T":1790649901913,"m":true,"M":true}}}}'
        ).encode()
        for n in range(TRADES)
    ]


class NoBrake:
    """No socket, so nothing to pause."""

    def pause(self, transport: WSTransport) -> None:
        raise AssertionError("nothing is read from a socket here")


class Compiled:
    """The appliance's hot path on a ring in tmpfs, without a journal behind it."""

    def __init__(self, directory: Path) -> None:
        self.instruments = Instruments("BINANCE")
        for n in range(SYMBOLS):
            self.instruments.add(f"SYM{n}USDT", "Spot")
        self.store = ChunkStore.open(directory, None, "binance", 0, StoreOptions(capacity_bytes=CAPACITY, mlock=False))
        self.decoder = BinanceDecoder(self.instruments)
        self.window = Window(self.instruments)
        path = HotPath(self.decoder, self.window, self.store.writer, 0, NoBrake())
        self.commit_messages: Callable[[list[bytes]], int] = path.commit_messages


@pytest.fixture
def compiled(tmp_path_factory: pytest.TempPathFactory, tmpfs: Path) -> Iterator[Compiled]:
    contender = Compiled(tmpfs)
    yield contender
    contender.store.drain(1.0)


class Batches:
    """Frames whose ids never repeat from one round to the next."""

    def __init__(self) -> None:
        self.first_id = 6_720_857_582

    def next(self) -> list[bytes]:
        batch = frames(self.first_id)
        self.first_id += TRADES // SYMBOLS
        return batch


@pytest.mark.benchmark(group="one frame to committed record, 20,000 a round")
def test_compiled_hot_path(benchmark: BenchmarkFixture, compiled: Compiled) -> None:
    batches = Batches()
    committed = benchmark.pedantic(compiled.commit_messages, setup=lambda: ((batches.next(),), {}), rounds=20, warmup_rounds=2)
    assert committed == TRADES


@pytest.mark.benchmark(group="one frame to committed record, 20,000 a round")
def test_plain_python(benchmark: BenchmarkFixture) -> None:
    batches = Batches()
    plain = PlainPython(CAPACITY)
    committed = benchmark.pedantic(plain.commit_messages, setup=lambda: ((batches.next(),), {}), rounds=20, warmup_rounds=2)
    assert committed == TRADES


def test_compiled_is_at_least_six_times_as_fast_as_plain_python(compiled: Compiled, capsys: pytest.CaptureFixture[str]) -> None:
    batches = Batches()
    plain = PlainPython(CAPACITY)
    times: dict[str, list[float]] = {"compiled": [], "plain Python": []}
    for _ in range(25):
        batch = batches.next()
        for name, contender in (("compiled", compiled.commit_messages), ("plain Python", plain.commit_messages)):
            gc.collect()
            started = time.perf_counter_ns()
            assert contender(batch) == TRADES
            times[name].append((time.perf_counter_ns() - started) / TRADES)
    ratio = median(slow / fast for slow, fast in zip(times["plain Python"], times["compiled"], strict=True))
    with capsys.disabled():
        fast, slow = median(times["compiled"]), median(times["plain Python"])
        print(f"\nframe to committed record: compiled {fast:.0f} ns, plain Python {slow:.0f} ns, ratio {ratio:.1f}")
    assert ratio >= RATIO_LEAST


def test_nanoseconds_per_stage(compiled: Compiled, stages: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints, gates nothing: the stages say where to look when the ratio falls."""
    batch = frames(6_720_857_582)
    for _ in range(2):  # the first round warms
        figures = {
            "clock, one of 4 readings": stages.clock(STAGE_ROUNDS),
            "decode and check": stages.decode(compiled.decoder, batch),
            "judge the id": stages.judge(compiled.window, STAGE_ROUNDS, 1_000_000_000),
            "encode as JSON": stages.encode(compiled.decoder, batch[0], STAGE_ROUNDS),
            "claim, CRC32C, commit": stages.commit(compiled.store.writer, STAGE_ROUNDS, 240),
            "of that, CRC32C of 304 bytes": stages.crc(STAGE_ROUNDS, bytes(304)),
        }
    with capsys.disabled():
        print("\nnanoseconds per stage")
        for stage, ns in figures.items():
            print(f"  {stage:30} {ns:6.1f}")
    assert all(ns > 0 for ns in figures.values())


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """benchmarks/stages.pyx, built against the installed package."""
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    source = Path(__file__).with_name("stages.pyx")
    root = Path(sys.modules["appliance"].__path__[0]).parent
    build = tmp_path_factory.mktemp("stages")
    extension = Extension("stages", [str(source)], language="c++", include_dirs=[str(root)], extra_compile_args=["-std=c++20", "-O3"])
    modules = cythonize([extension], language_level=3, build_dir=str(build), include_path=[str(root)], quiet=True)
    command = build_ext(Distribution({"ext_modules": modules}))
    command.build_lib = command.build_temp = str(build)
    command.ensure_finalized()
    command.run()
    module: ModuleType = load_dynamic("stages", str(next(build.rglob("stages*.so"))))
    return module
