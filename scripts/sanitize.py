"""The compiled modules under sanitizers: `python -m scripts.sanitize [address|thread] [--build-only]`.

address: AddressSanitizer and UndefinedBehaviorSanitizer, and the tests of all that reads bytes from elsewhere.
thread: ThreadSanitizer, and writer, flusher and readers as threads on one mapping, see tests/proofs/ring_threads.pyx.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from scripts.instrument import ROOT, Kind

ADDRESS = Kind(
    "address",
    ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    ["libasan.so", "libubsan.so", "libstdc++.so.6"],
    environment={
        # Python leaks by design at its end; a suite that leaks shows in the soak test.
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:strict_string_checks=1:detect_stack_use_after_return=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    },
)
THREAD = Kind(
    "thread",
    # TSan knows no fences, and says so: every word that only a fence orders is an atomic, so it has nothing to say of it.
    ["-fsanitize=thread", "-Wno-tsan"],
    ["libtsan.so"],
    environment={"TSAN_OPTIONS": "exitcode=66:halt_on_error=0:report_signal_unsafe=0:history_size=7"},
    extra={"tests/proofs/ring_threads.pyx": "appliance/ring_threads.pyx"},
)
# What parses, copies and indexes: the ring with its processes, the decoders on their corpus, the windows.
TESTS = [
    "tests/ring",
    "tests/exchanges",
    "tests/feed/test_window.py",
    "tests/feed/test_spill.py",
    "tests/tools/test_verify.py",
    "tests/sim/test_tape.py",
]
SUPPRESSIONS = ROOT / "tests" / "proofs" / "threads.supp"


def address(tests: list[str]) -> int:
    """Exit status of the tests."""
    # Captured in Python alone: what a sanitizer says as it ends the process must not end with it.
    done = ADDRESS.run("-m", "pytest", "-q", "--capture=sys", "-p", "no:cacheprovider", *(tests or TESTS))
    print(done.stdout, end="")
    return int(done.returncode != 0)


def threads(mode: str, records: int, suppressed: bool = True) -> tuple[int, str]:
    """Exit status and words of one run of writer, flusher and two readers; mode "safe", "lossy" or "ring"."""
    options = THREAD.environment["TSAN_OPTIONS"] + (f":suppressions={SUPPRESSIONS}" if suppressed else "")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        done = THREAD.run("-m", "tests.proofs.threads", mode, str(records), place, TSAN_OPTIONS=options)
    return done.returncode, done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=["address", "thread"], nargs="?")
    parser.add_argument("tests", nargs="*", help="address: these tests alone")
    parser.add_argument("--build-only", action="store_true")
    options = parser.parse_args()
    status = 0
    for kind in [ADDRESS, THREAD]:
        if options.which not in (None, kind.name):
            continue
        if why := kind.missing():
            print(f"{kind.name}: cannot run: {why}", file=sys.stderr)
            return 3
        print(f"{kind.name}: building {kind.build()}", flush=True)
        if options.build_only:
            continue
        if kind is ADDRESS:
            status |= address(options.tests)
        else:
            for mode, records in ("ring", 1_000_000), ("safe", 300_000), ("lossy", 6_000):
                ended, words = threads(mode, records)
                print(f"thread: {mode}: {words.strip()}")
                status |= int(ended != 0)
    return status


if __name__ == "__main__":
    sys.exit(main())
