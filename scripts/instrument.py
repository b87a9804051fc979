"""Trees beside this one whose compiled modules watch themselves: `build/<kind>/` with sanitizers or counters compiled in."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREE = ["appliance", "tests", "scripts", "docs", "configs", "setup.py", "pyproject.toml", "README.md", "LICENSE", "licenses"]
# Frames can be walked, functions keep their names; what is undefined ends the process.
COMPILED = {".pyx", ".pxd", ".hpp"}
BUILT = "build/complete"  # in a tree: all its modules are there
COMMON = ["-O1", "-g1", "-fno-omit-frame-pointer"]


@dataclass(slots=True, frozen=True)
class Kind:
    """How the modules of one tree are compiled. `preload`: what Python, which is not instrumented itself, must load first."""

    name: str
    flags: list[str]
    preload: list[str]
    compilers: tuple[str, str] = ("gcc", "g++")
    environment: dict[str, str] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)  # further modules: file of this tree → where it is compiled

    @property
    def tree(self) -> Path:
        return ROOT / "build" / self.name

    def missing(self) -> str:
        """Why it cannot be had here; empty: it can."""
        for program in self.compilers:
            if shutil.which(program) is None:
                return f"{program} is not installed"
        for library in self.preload:
            if not self.library(library).is_file():
                return f"{self.compilers[1]} has no {library}"
        return ""

    def library(self, name: str) -> Path:
        if name.startswith("/"):
            return Path(name)
        found = subprocess.run([self.compilers[1], f"-print-file-name={name}"], capture_output=True, text=True, check=True)
        return Path(found.stdout.strip()).resolve()

    def _wanted(self) -> dict[Path, Path]:
        """Where each file of this tree lies in that one."""
        return {path: self.tree / path for path in sources()} | {Path(path): self.tree / there for path, there in self.extra.items()}

    def outdated(self) -> str:
        """Why what is built is not of this source; empty: it is."""
        if not (self.tree / BUILT).is_file():
            return f"nothing is built in build/{self.name}"
        changed = [str(path) for path, there in self._wanted().items() if path.suffix in COMPILED and not same(ROOT / path, there)]
        return f"build/{self.name} is older than {changed[0]}" if changed else ""

    def build(self) -> Path:
        """Bring the tree up to date: what has not changed is not compiled again."""
        self._copy()
        (self.tree / BUILT).unlink(missing_ok=True)
        environment = os.environ | {
            "CC": self.compilers[0],
            "CXX": self.compilers[1],
            "MDC_INSTRUMENT": " ".join(COMMON + self.flags),
        }
        command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
        subprocess.run(command, cwd=self.tree, env=environment, check=True)
        (self.tree / BUILT).touch()
        return self.tree

    def _copy(self) -> None:
        wanted = self._wanted()
        for path, there in wanted.items():
            if not same(ROOT / path, there):
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / path, there)
        keep = set(wanted.values())
        for path in self.tree.rglob("*.p*"):
            if path.suffix in {".py", ".pyx", ".pxd"} and path not in keep and self.tree / "build" not in path.parents:
                path.unlink()

    def run(self, *arguments: str, timeout_s: float | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        """Python with `arguments` in the tree, whose Python files are brought up to date; its two outputs as one."""
        self._copy()
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        variables |= {
            "LD_PRELOAD": " ".join(str(self.library(name)) for name in self.preload),
            "PYTHONMALLOC": "malloc",  # each object is a block of its own: one byte too far is seen
        }
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.tree,
            env=variables | self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
        )


def same(one: Path, other: Path) -> bool:
    """Whether `other` is a copy of `one` as it is now."""
    if not other.exists():
        return False
    before, after = one.stat(), other.stat()
    return (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)


def sources() -> list[Path]:
    """What belongs into a tree, without what is compiled or cached."""
    found = []
    for name in TREE:
        top = ROOT / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix not in {".so", ".cpp"}:
                found.append(path.relative_to(ROOT))
    return found
