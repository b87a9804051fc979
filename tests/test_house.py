"""House rules that no other tool checks."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINES_MAX = 800  # of one file; the compiled readers and the window are the longest
TEXTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("configs/*.toml")]
SOURCES = [
    path
    for folder in ("appliance", "tests", "benchmarks", "scripts")
    for path in sorted((ROOT / folder).rglob("*.p*"))
    if path.suffix in {".py", ".pyx", ".pxd"}
]
HOT = ["ring/writer", "ring/codec", "ring/flusher", "exchanges/instruments", "exchanges/decoder", "exchanges/binance_decoder",
       "feed/window", "feed/spill", "feed/handler"]  # fmt: skip


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if path.suffix in {".py", ".pyx", ".pxd"}], ids=lambda p: str(p.relative_to(ROOT))
)
def test_a_file_is_short_enough_to_be_one_thing(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LINES_MAX
    assert not re.fullmatch(r"utils?|helpers?|common|misc", path.stem)


@pytest.mark.parametrize("module", HOT)
def test_nothing_in_the_hot_path_takes_the_gil_unseen(module: str, tmp_path: Path) -> None:
    """Cython's performance hints name hidden uses of the GIL and bounds checks."""
    cython = shutil.which("cython", path=str(Path(sys.executable).parent))
    if cython is None:
        pytest.skip("cython is not installed beside this Python")
    source = ROOT / "appliance" / f"{module}.pyx"
    directives = "boundscheck=False,wraparound=False,cdivision=True,initializedcheck=False"
    done = subprocess.run(
        [cython, "-3", "--cplus", "-X", directives, "-o", str(tmp_path / "out.cpp"), str(source)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "performance hint" not in done.stderr + done.stdout


def test_constraints_pin_versions_and_name_no_place() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[\w.+]+( *;.*)?", line)] == []


def test_the_build_group_is_what_the_build_system_requires() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["dependency-groups"]["build"] == project["build-system"]["requires"]


def test_the_readme_names_commands_and_files_that_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z]+)", readme)) - {"of"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for link in re.findall(r"\]\(([^)]+)\)", readme):
        assert (ROOT / link).exists(), link
    help_text = subprocess.run(
        [sys.executable, "-c", "from appliance.cli import main; main()", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for verb in set(re.findall(r"^    mdc ([a-z]+)", readme, re.MULTILINE)):
        assert verb in help_text, verb


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_names_a_place_of_this_machine(path: Path) -> None:
    assert not re.search(r"/work/|/root/|/home/\w", path.read_text())


def test_no_text_names_a_place_of_one_machine() -> None:
    texts = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "configs").glob("*.toml"), ROOT / "Makefile"]
    assert [path for path in texts if re.search(r"/work/|/root/|/home/\w", path.read_text())] == []
