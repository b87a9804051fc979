"""Cython's own opinion of the hot path: nothing in it takes the GIL or checks bounds where nobody sees it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOT = ["exchanges/binance_decoder", "exchanges/decoder", "exchanges/instruments", "feed/handler", "feed/spill", "feed/window",
       "ring/codec", "ring/flusher", "ring/raw_buffer", "ring/raw_writer", "ring/writer"]  # fmt: skip
DIRECTIVES = ["boundscheck=False", "wraparound=False", "cdivision=True", "initializedcheck=False"]  # as setup.py has them


@pytest.mark.parametrize("module", HOT)
def test_cython_has_no_performance_hint(module: str, tmp_path: Path) -> None:
    options = [word for directive in DIRECTIVES for word in ("-X", directive)]
    command = [sys.executable, "-m", "cython", "-3", "--cplus", *options, "-o", str(tmp_path / "out.cpp"), f"appliance/{module}.pyx"]
    compiled = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stderr
    assert "performance hint" not in compiled.stderr, compiled.stderr


def test_a_hint_would_be_seen(tmp_path: Path) -> None:
    source = tmp_path / "takes_the_gil.pyx"
    source.write_text("cdef void one() nogil:\n    pass\n\ncdef void two() noexcept nogil:\n    one()\n")
    compiled = subprocess.run([sys.executable, "-m", "cython", "-3", "--cplus", str(source)], capture_output=True, text=True)
    assert "performance hint" in compiled.stderr
