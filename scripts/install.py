"""Sets up this checkout: Debian packages, .venv, pinned Python packages, compiled modules. Quick when nothing has changed.

    python3 scripts/install.py [GROUP ...]      GROUP: dependency groups of pyproject.toml, e.g. test lint

Nothing outside the checkout is touched but missing Debian packages, and those only as root. pip reads its usual
configuration (index, certificates). This runs on a bare python3; one that is too old gets as far as the message about it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

OLDEST, NEWEST = (3, 11), (3, 13)
ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STATE = VENV / "installed.json"  # what is installed, by the hashes of what decides it
LOG = ROOT / "build" / "install.log"
BUILT_WITH = ("cython=", "picows=", "pysimdjson=")  # what the compiled modules take in: another version means compiling anew
MESSAGE_LINES = 25  # of a failed command's output
REDRAW_S = 0.2


class CannotInstall(Exception):
    """Set-up cannot go on; the message says why and what to do."""


class Step:
    """One line of progress. Use as a context manager; `now` is what a terminal shows meanwhile."""

    running: list[Step] = []  # noqa: RUF012  # all steps of this process
    redrawing = threading.Lock()

    def __init__(self, title: str) -> None:
        self.title = title
        self.now = ""
        self.began = time.monotonic()

    def __enter__(self) -> Step:
        self.running.append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self.redrawing:
            self.running.remove(self)
            if sys.stdout.isatty():
                sys.stdout.write("\r\033[K")
            failed = "" if kind is None else "  FAILED"
            print(f"  {time.monotonic() - self.began:5.1f} s  {self.title}{failed}", flush=True)

    @classmethod
    def redraw_for_ever(cls) -> None:
        """On a terminal, show what the running steps are at."""
        while True:
            time.sleep(REDRAW_S)
            with cls.redrawing:
                if cls.running:
                    steps = " | ".join(f"{step.title}: {step.now}"[:70] for step in cls.running)
                    width = shutil.get_terminal_size().columns - 12
                    sys.stdout.write(f"\r\033[K  {time.monotonic() - cls.running[0].began:5.1f} s  {steps[:width]}")
                    sys.stdout.flush()


def run(
    step: Step,
    *command: object,
    watch: Callable[[str], str] = str.strip,
    finishes: bool = False,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a command to its end, its output into the log; `watch` makes of a line what the step is at. Raises CannotInstall.

    Ctrl-C ends the command with all its children, unless it is one that `finishes`.
    """
    words = [str(word) for word in command]
    LOG.parent.mkdir(exist_ok=True)
    lines = [f"$ {' '.join(words)}\n"]
    process = subprocess.Popen(
        words,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            lines.append(line)
            step.now = watch(line) or step.now
        status = process.wait()
    except KeyboardInterrupt:
        if not finishes:
            os.killpg(process.pid, signal.SIGTERM)
        process.communicate()
        raise
    with LOG.open("a", encoding="utf-8") as log:
        log.writelines(lines)
    if status:
        raise CannotInstall(f"{''.join(lines[-MESSAGE_LINES:])}\n{step.title}: exit status {status}; all of its output is in {LOG}")


def hash_of(paths: Iterable[Path], *further: object) -> str:
    """One hash over the content of files, and over what else decides."""
    digest = hashlib.sha256(repr(further).encode())
    for path in sorted(paths):
        digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def check_python() -> None:
    """Raises CannotInstall when this Python is none that the packages are made for."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return
    found = ".".join(str(part) for part in sys.version_info[:3])
    wanted = " to ".join(".".join(str(part) for part in version) for version in (OLDEST, NEWEST))
    raise CannotInstall(
        f"Python {wanted} is needed, and {sys.executable} is {found}. Name another one: `make PYTHON=python3.11 ...`.\n"
        "Debian 12 and 13 and Ubuntu 24.04 bring one as python3; on Ubuntu 22.04: sudo apt-get install python3.11"
    )


def missing_packages() -> list[str]:
    """The Debian packages that are wanting here. Raises CannotInstall when they could not help."""
    name = "python{}.{}".format(*sys.version_info)
    wanting = {
        f"{name}-venv": importlib.util.find_spec("ensurepip") is None,
        f"{name}-dev": not Path(sysconfig.get_path("include"), "Python.h").is_file(),
    }
    if any(wanting.values()) and sys.base_prefix != "/usr":
        raise CannotInstall(
            f"{sys.executable} is not the system's Python and lacks ensurepip or Python.h, which Debian packages cannot add to it. "
            "Complete that installation, or name another Python: `make PYTHON=/usr/bin/python3 ...`"
        )
    wanting["g++"] = shutil.which(os.environ.get("CXX", "g++").split()[0]) is None
    return [package for package, wants in wanting.items() if wants]


def install_packages(packages: list[str]) -> None:
    """Install Debian packages as root. Raises CannotInstall with the command for others."""
    with Step(f"Debian packages {' '.join(packages)}") as step:
        # Not ended half-way: that leaves the package database broken.
        def apt_get(*words: str) -> None:
            wait = ("-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0")
            run(step, "apt-get", *wait, *words, finishes=True, environment={"DEBIAN_FRONTEND": "noninteractive"})

        install = ("install", "-y", "--no-install-recommends", *packages)
        known = subprocess.run(["apt-cache", "show", *packages], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
        if known:
            try:
                return apt_get(*install)
            except CannotInstall:
                step.now = "once more, with new lists"
        apt_get("update")
        apt_get(*install)


def check_rights(packages: list[str]) -> None:
    """Raises CannotInstall with the exact command when these packages cannot be installed from here."""
    command = f"apt-get install --no-install-recommends {' '.join(packages)}"
    if shutil.which("apt-get") is None:
        raise CannotInstall(f"There is no apt-get here. Install what Debian calls: {' '.join(packages)}")
    if os.geteuid() != 0:
        raise CannotInstall(f"Debian packages are missing. Install them, then run the same again:\n\n    sudo {command}\n")


def read_state() -> dict[str, object]:
    """What an earlier run has installed; empty when the virtual environment cannot be used by this one."""
    try:
        state: dict[str, object] = json.loads(STATE.read_text())
    except (OSError, ValueError):
        return {}
    return state if state.get("venv") == venv_key() and PYTHON.exists() else {}


def venv_key() -> str:
    """A virtual environment belongs to one Python and to one place."""
    return f"{sys.version} {sys.base_prefix} {VENV}"


def note(state: dict[str, object], **news: object) -> None:
    """Remember what has been installed."""
    state.update(news)
    STATE.write_text(json.dumps(state, indent=1))


def install_python_packages(state: dict[str, object], groups: list[str]) -> None:
    """Make .venv and install the pinned packages of `groups`, and the checkout itself as an editable package."""
    key = hash_of([ROOT / "pyproject.toml", ROOT / "constraints.txt"])
    have = state.get("groups") if state.get("packages") == key else []
    assert isinstance(have, list)
    if state and set(groups) <= set(have):
        return
    if not state:
        with Step(f".venv with Python {sys.version.split()[0]}") as step:
            shutil.rmtree(VENV, ignore_errors=True)
            run(step, sys.executable, "-m", "venv", VENV)
        note(state, venv=venv_key())
    wanted = sorted({*groups, *have})
    with Step(f"Python packages for: {' '.join(['run', *wanted])}") as step:
        # --no-compile: what is used gets compiled when it is first used.
        pip = [PYTHON, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar=off", "--no-compile"]
        # A new .venv has the pip of its Python, which may not know dependency groups; setuptools must be there to read setup.py.
        run(step, *pip, "--constraint=constraints.txt", "--upgrade", "pip", "setuptools")
        chosen = [f"--group={group}" for group in wanted]
        editable = ["--no-build-isolation", "--config-settings=editable_mode=compat", "--editable=."]
        run(step, *pip, "--constraint=constraints.txt", *chosen, *editable, environment={"MDC_COMPILED_IN_PLACE": "1"})
    note(state, packages=key, groups=wanted)


def compile_modules(state: dict[str, object]) -> None:
    """Compile what has changed, in place, on all cores."""
    sources = [path for suffix in ("pyx", "pxd", "hpp") for path in (ROOT / "appliance").rglob(f"*.{suffix}")]
    pins = [pin for pin in (ROOT / "constraints.txt").read_text().splitlines() if pin.lower().startswith(BUILT_WITH)]
    flags = hash_of([ROOT / "setup.py"], sys.version, pins)
    key = hash_of(sources, flags)
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    modules = [path for path in sources if path.suffix == ".pyx"]
    if state.get("modules") == key and all(path.with_suffix(suffix).exists() for path in modules):
        return
    done = 0

    def watch(line: str) -> str:
        nonlocal done
        done += line.startswith("building ")
        return line.strip() if "Cythonizing" in line else f"{done} of {len(modules)}" if done else ""

    with Step(f"compiled modules: {len(modules)}") as step:
        other_flags = state.get("flags") not in (None, flags)
        command = [PYTHON, "setup.py", "build_ext", "--inplace", *(["--force"] if other_flags else [])]
        run(step, *command, watch=watch, environment={"CYTHON_FORCE_REGEN": str(int(other_flags))})
    note(state, modules=key, flags=flags)


def install(groups: list[str]) -> None:
    """Everything in its order; the compiler comes while Python packages do. Raises CannotInstall."""
    check_python()
    packages = missing_packages()
    further = [package for package in packages if not package.endswith("-venv")]
    if packages:
        check_rights(packages)
    first = [package for package in packages if package not in further]
    if first:
        install_packages(first)
    failures: list[CannotInstall] = []

    def install_further() -> None:
        try:
            install_packages(further)
        except CannotInstall as failure:
            failures.append(failure)

    beside = threading.Thread(target=install_further)
    if further:
        beside.start()
    try:
        state = read_state()
        install_python_packages(state, groups)
    finally:
        if further:
            beside.join()
    if failures:
        raise failures[0]
    compile_modules(state)


def main() -> int:
    """0 when the checkout is ready, 1 with a message when it cannot be made so, 130 after Ctrl-C."""
    began = time.monotonic()
    LOG.unlink(missing_ok=True)
    if sys.stdout.isatty():
        threading.Thread(target=Step.redraw_for_ever, daemon=True).start()
    try:
        install(["build", *sys.argv[1:]])
    except CannotInstall as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the next run goes on from here", file=sys.stderr)
        return 130
    if LOG.exists():
        print(f"  {time.monotonic() - began:5.1f} s  in all: .venv is ready", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
