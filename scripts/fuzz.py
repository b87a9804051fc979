"""Coverage-guided fuzzing of what reads bytes from elsewhere: `python -m scripts.fuzz [TARGET ...] [--seconds N]`.

TARGET: binance, deribit (decoders), ring, journal (readers); all without one. libFuzzer, by way of atheris, on modules that
clang compiled with AddressSanitizer, UndefinedBehaviorSanitizer and edge counters. Corpora grow in build/fuzz-corpus/ and
are never committed; the decoders' begin with recorded frames, if $MDC_CAPTURES has any.
"""

import argparse
import importlib.util
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from scripts.instrument import ROOT, Kind

TARGETS = ["binance", "deribit", "ring", "journal"]
CORPUS = ROOT / "build" / "fuzz-corpus"
FOUND = ROOT / "build" / "fuzz-found"
HANG_S = 20  # for one input; a good one takes milliseconds
INPUT_BYTES_MAX = {"binance": 4096, "deribit": 4096, "ring": 256, "journal": 256}
CLANGS = ["clang", *(f"clang-{version}" for version in range(21, 13, -1))]


@dataclass(slots=True, frozen=True)
class Run:
    status: int
    executions: int
    edges: int  # reached, of the compiled modules
    words: str


def kind() -> Kind:
    compiler = next((name for name in CLANGS if shutil.which(name)), "clang")
    atheris = importlib.util.find_spec("atheris")
    runtime = Path(atheris.origin).parent.parent / "asan_with_fuzzer.so" if atheris and atheris.origin else Path("/no/atheris")
    return Kind(
        "fuzz",
        ["-fsanitize=address,undefined,fuzzer-no-link", "-fno-sanitize=function,vptr", "-fno-sanitize-recover=all", "-Wno-everything"],
        [str(runtime)],
        (compiler, compiler.replace("clang", "clang++")),
        {"ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:handle_segv=1"},
    )


def missing() -> str:
    """Why nothing can be fuzzed here; empty: it can."""
    if importlib.util.find_spec("atheris") is None:
        return "atheris is not installed (make fuzz installs it)"
    return kind().missing()


def fuzz(target: str, seconds: int) -> Run:
    """Fuzz one target for so long; a finding ends it, and lies in build/fuzz-found/."""
    corpus = CORPUS / target
    for directory in (corpus, FOUND):
        directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        done = kind().run(
            "-m",
            "tests.proofs.fuzz_target",
            target,
            place,
            f"-max_total_time={seconds}",
            f"-max_len={INPUT_BYTES_MAX[target]}",
            f"-timeout={HANG_S}",
            "-rss_limit_mb=4096",
            "-len_control=0",
            "-print_final_stats=1",
            f"-artifact_prefix={FOUND}/{target}-",
            str(corpus),
            timeout_s=seconds + 600,
        )
    executions = re.search(r"stat::number_of_executed_units: (\d+)", done.stdout)
    edges = re.findall(r"cov: (\d+)", done.stdout)
    return Run(done.returncode, int(executions[1]) if executions else 0, int(edges[-1]) if edges else 0, done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", choices=[*TARGETS, []], nargs="*")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    options = parser.parse_args()
    if why := missing():
        print(f"cannot fuzz: {why}", file=sys.stderr)
        return 3
    kind().build()
    status = 0
    for target in options.targets or TARGETS:
        run = fuzz(target, options.seconds)
        print(
            f"{target}: {run.executions:,} inputs in {options.seconds} s, {run.edges:,} edges: {'good' if run.status == 0 else 'FOUND'}",
            flush=True,
        )
        if run.status:
            print(run.words[-6000:])
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
