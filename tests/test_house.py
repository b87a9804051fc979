"""Rules of the repository that no tool checks: pins, machine-independence, names, sizes, documents that must follow the code."""

import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts import layers

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LINES_MAX = 800  # a file larger than this is two things
NAMELESS = {"util", "utils", "helper", "helpers", "common", "misc"}


def tracked() -> list[Path]:
    """The files of the repository, or of the source tree without one."""
    listing = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def constraints() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def group(name: str) -> list[str]:
    """The requirements of a dependency group, with those of the groups it includes."""
    wanted: list[str] = []
    for entry in PROJECT["dependency-groups"][name]:
        wanted += [entry] if isinstance(entry, str) else group(entry["include-group"])
    return wanted


def test_constraints_are_exact_versions_and_name_no_place() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.+]*", line), line
        assert "://" not in line


def test_every_package_that_gets_installed_is_pinned() -> None:
    pins = constraints()
    waiting = [Requirement(text) for text in [*PROJECT["project"]["dependencies"], *group("dev"), "pip"]]
    seen: set[str] = set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in seen or (wanted.marker and not any(wanted.marker.evaluate({"extra": extra}) for extra in {"", *wanted.extras})):
            continue
        seen.add(name)
        assert name in pins, f"{wanted} is not in constraints.txt"
        assert wanted.specifier.contains(pins[name]), f"constraints.txt has {name}=={pins[name]}, wanted is {wanted}"
        try:
            further = [Requirement(text) for text in metadata.requires(name) or []]
        except metadata.PackageNotFoundError:
            continue  # of a group that is not installed here
        waiting += [one for one in further if not one.marker or any(one.marker.evaluate({"extra": e}) for e in {"", *wanted.extras})]


def test_what_compiles_the_modules_is_pinned_alike_in_each_place() -> None:
    assert sorted(PROJECT["dependency-groups"]["build"]) == sorted(PROJECT["build-system"]["requires"])
    assert PROJECT["dependency-groups"]["sim"] == PROJECT["project"]["optional-dependencies"]["sim"]
    for text in PROJECT["project"]["dependencies"]:
        if text.startswith(("picows", "pysimdjson")):
            assert text in PROJECT["build-system"]["requires"]


def test_no_module_is_a_room_without_a_name() -> None:
    assert [path for path in tracked() if path.stem in NAMELESS or NAMELESS & set(path.relative_to(ROOT).parts)] == []


def test_no_source_file_is_too_long() -> None:
    sources = [path for path in tracked() if path.suffix in {".py", ".pyx", ".pxd", ".hpp", ".sh"}]
    assert {str(path): lines for path in sources if (lines := len(path.read_text().splitlines())) > LINES_MAX} == {}


def test_compiled_modules_have_their_stub_and_make_nothing_for_one_processor_alone() -> None:
    for path in (ROOT / "appliance").rglob("*.pyx"):
        assert path.with_suffix(".pyi").exists(), f"{path} has no .pyi beside it"
    assert '"-march' not in (ROOT / "setup.py").read_text()


def test_make_targets_named_in_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for words in re.findall(r"(?:`|^\$ )make ((?:[a-z]+ ?)+)", path.read_text(), re.MULTILINE):
            assert set(words.split()) <= targets, f"{path.name}: make {words}"


def test_links_between_documents_lead_somewhere() -> None:
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
            assert "://" in link or (path.parent / link).exists(), f"{path.relative_to(ROOT)}: {link}"


def test_the_architecture_page_shows_the_layers_as_they_are_checked() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    for rank, (names, about) in enumerate(zip(layers.LAYERS, layers.WHAT, strict=True)):
        modules = ", ".join(f"`{name}`" for name in names.split())
        assert f"| {rank} | {modules} | {about} |" in page


def test_versions_agree() -> None:
    assert re.search(rf"^## ({re.escape(PROJECT['project']['version'])}|Unreleased)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_no_text_names_a_place_of_one_machine() -> None:
    texts = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "configs").glob("*.toml"), ROOT / "Makefile"]
    assert [path for path in texts if re.search(r"/work/|/root/|/home/\w", path.read_text())] == []
