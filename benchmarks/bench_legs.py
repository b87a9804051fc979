"""What does the second leg cost: CPU per trade, and time from receive to commit, with two legs to the same with one?

`pytest benchmarks/bench_legs.py` prints the table that docs/reliability.md keeps. The whole appliance collects over real sockets what the
local exchange sends at a fixed rate, with one leg and with two in turn; the CPU's ratio is the gate.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pytest

from benchmarks.loopback import run, summary, write_config
from tests.local_exchange import local_exchange

RATE = 5_000
SECONDS = 12
TRADES = RATE * SECONDS
SYMBOLS = 400
PAIRS = 5
# 1.06 to 1.30 in four runs on two shared cores: a second socket to read and decode, but one ring, one journal, one loop.
CPU_RATIO_MOST = 2.0


@dataclass(slots=True, frozen=True)
class Cost:
    """One run of the appliance: all its threads and children, from the first trade to the last."""

    cpu_s_per_million: float
    p50_us: float
    p99_us: float
    duplicates: int


def measure(legs: int, ring_dir: Path, journal_dir: Path) -> Cost:
    """Every trade must have come; with two legs each of them twice."""
    for directory in (ring_dir, journal_dir):
        directory.mkdir()
    cores = sorted(os.sched_getaffinity(0))
    flags = ("--symbols", str(SYMBOLS), "--rate", str(RATE), "--count", str(TRADES), "--start-after", str(legs))
    with local_exchange(*flags) as exchange:
        os.sched_setaffinity(exchange.process.pid, {cores[0]})
        config = write_config(ring_dir, journal_dir, exchange, legs, SYMBOLS, journal=True)
        samples, result = run(config, ring_dir / "ring", exchange, TRADES, cores[-1])
    assert (result["exit_status"], result["committed"], result["gaps_open"]) == (0, TRADES, 0)
    latency = result["recv_to_commit_ns"]
    cpu_us = summary(samples, TRADES, None)["cpu_us_per_trade"]
    return Cost(cpu_us, latency["p50"] / 1_000, latency["p99"] / 1_000, result["duplicates"])


def test_a_second_leg_costs_less_than_the_first(tmpfs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    costs: dict[int, list[Cost]] = {1: [], 2: []}
    for number in range(2 * PAIRS):
        legs = 1 + number % 2
        costs[legs].append(measure(legs, tmpfs / str(number), tmp_path / str(number)))
    assert all(one.duplicates == 0 for one in costs[1])
    assert all(one.duplicates == TRADES for one in costs[2])
    ratios = {name: ratio(costs, name) for name in ("cpu_s_per_million", "p50_us", "p99_us")}
    with capsys.disabled():
        print(f"\n\n| {RATE:,} trades/s, medians of {PAIRS} runs each | 1 leg | 2 legs | ratio |\n|---|---:|---:|---:|")
        for name, text, digits in (
            ("cpu_s_per_million", "CPU seconds for 1,000,000 trades", 1),
            ("p50_us", "receive to commit, p50, µs", 1),
            ("p99_us", "receive to commit, p99, µs", 1),
        ):
            one, two = (median(getattr(cost, name) for cost in costs[legs]) for legs in (1, 2))
            print(f"| {text} | {one:,.{digits}f} | {two:,.{digits}f} | {ratios[name]:.2f} |")
    assert ratios["cpu_s_per_million"] <= CPU_RATIO_MOST


def ratio(costs: dict[int, list[Cost]], name: str) -> float:
    """The median over the pairs, whose runs stand next to each other: what slows the machine down slows both."""
    quotients: list[float] = [getattr(two, name) / getattr(one, name) for one, two in zip(costs[1], costs[2], strict=True)]
    return median(quotients)
