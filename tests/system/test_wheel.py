"""The wheel: complete, and at work outside the checkout."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `make wheel` makes it; what is compiled already is taken as it is."""
    directory = tmp_path_factory.mktemp("wheel")
    flags = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--wheel-dir", str(directory)]
    built = subprocess.run([sys.executable, "-m", "pip", "wheel", *flags, str(ROOT)], cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = directory.glob("*.whl")
    return path


def test_it_has_the_compiled_modules_their_types_and_the_licenses_and_no_c_plus_plus(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for source in (ROOT / "appliance").rglob("*.pyx"):
        module = source.relative_to(ROOT).with_suffix("")
        assert f"{module}{sysconfig.get_config_var('EXT_SUFFIX')}" in names
        assert f"{module}.pyi" in names
    assert "appliance/py.typed" in names
    assert "appliance/ring/layout.pxd" in names
    assert {name.rpartition("/")[2] for name in names if "/licenses/" in name} == {"LICENSE", "simdjson.txt"}
    assert [name for name in names if name.endswith((".cpp", ".pyx")) or name.startswith(("tests", "scripts", "benchmarks"))] == []


def test_it_runs_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    # The packages it needs come from where this Python has them; the checkout is on no path.
    packages = Path(str(metadata.distribution("picows").locate_file("")))
    program = """
import sys, pathlib, appliance
assert pathlib.Path(appliance.__file__).is_relative_to(sys.argv[1]), appliance.__file__
import appliance.feed.handler, appliance.exchanges.binance_decoder
from appliance.ring.reader import RingReader
from appliance.cli import main
sys.argv = ["mdc", "--version"]
main()
"""
    environ = {**os.environ, "PYTHONPATH": f"{place}{os.pathsep}{packages}"}
    command = [sys.executable, "-P", "-c", program, str(place)]
    shown = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("mdc 0.")
