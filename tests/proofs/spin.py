"""The ring's protocol by Spin: one model, checked whole, and its weakened forms."""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

MODEL = Path(__file__).parents[2] / "appliance" / "ring" / "ring.pml"
MEMORY_MB_MAX = 4000
DEPTH_MAX = 1_000_000


@dataclass(slots=True, frozen=True)
class Verdict:
    states: int
    error: str  # what Spin found; empty: nothing, in any order
    whole: bool  # every state was looked at


def missing() -> str:
    """Why it cannot run here; empty: it can."""
    absent = [name for name in ("spin", "gcc") if shutil.which(name) is None]
    return f"{' and '.join(absent)} not installed" if absent else ""


def check(*names: str) -> Verdict:
    """Check the model with these names defined (`NAME` or `NAME=value`)."""
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(["spin", "-a", *(f"-D{name}" for name in names), str(MODEL)], cwd=place, check=True, capture_output=True)
        build = ["gcc", "-O2", "-w", "-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MB_MAX}", "-o", "pan", "pan.c"]
        subprocess.run(build, cwd=place, check=True, capture_output=True)
        said = subprocess.run(["./pan", f"-m{DEPTH_MAX}"], cwd=place, check=False, capture_output=True, text=True).stdout
    states = re.search(r"(\d+) states, stored", said)
    errors = re.search(r"errors: (\d+)", said)
    assert states, said
    assert errors, said
    found = re.search(r"^pan:\d+: (.+?) \(at depth", said, re.MULTILINE)
    whole = "Search not completed" not in said and "max search depth too small" not in said
    return Verdict(int(states[1]), found[1] if found else "" if errors[1] == "0" else said, whole)
