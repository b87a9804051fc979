"""The layers of the program: which module may import which, drawn with the size of each.

    python3 scripts/layers.py

Imports point down only. tests/test_layers.py holds the code to it.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "appliance"

# From the lowest up; a module of a layer imports its own layer and those before it.
LAYERS = ["trade errors clock", "ring", "exchanges", "config log preflight", "feed", "collector", "tools sim", "cli __init__"]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names.split()}
WHAT = [
    "words and values",
    "layout, writer, reader, flusher, journal: no exchange, no socket",
    "names, URLs, requests, decoding: bytes in, facts out",
    "configuration, checks before a start, log",
    "connections, legs, hot path, gaps, REST worker",
    "one process: start, signals, drain",
    "one verb each; the local exchange",
    "arguments; the public names",
]

SOURCES = {".py", ".pyx", ".pxd", ".hpp"}
IMPORT = re.compile(r"^\s*(?:from|import|cimport)\s+appliance\.(\w+)|^\s*from\s+appliance\s+c?import\s+([\w, ]+)", re.MULTILINE)


def sources() -> Iterator[Path]:
    """Every source file of the package."""
    yield from (path for path in sorted(PACKAGE.rglob("*")) if path.suffix in SOURCES)


def layer_of(path: Path) -> str:
    """The name of a file in `LAYERS`: its first folder, or its own name."""
    return path.relative_to(PACKAGE).parts[0].partition(".")[0]


def imports(path: Path) -> set[str]:
    """The parts of the package that a file imports, by their names in `LAYERS`."""
    found = set()
    for module, names in IMPORT.findall(path.read_text()):
        found |= {module} if module else {name.strip().partition(" ")[0] for name in names.split(",")}
    return found & RANK.keys()


def upward_imports(path: Path) -> list[str]:
    """What a file imports from above its own layer: none, in a good tree."""
    return sorted(name for name in imports(path) if RANK[name] > RANK[layer_of(path)])


def lines_of(path: Path) -> int:
    return len(path.read_text().splitlines())


def picture() -> str:
    """The layers, highest first, with each module and its lines."""
    rows = []
    for rank in range(len(LAYERS) - 1, -1, -1):
        files = [path for path in sources() if RANK[layer_of(path)] == rank]
        total = sum(map(lines_of, files))
        rows.append(f"{rank}  {', '.join(LAYERS[rank].split()):28} {WHAT[rank]}  ({total:,} lines)")
        modules: dict[str, int] = {}
        for path in files:
            name = str(path.relative_to(PACKAGE).with_suffix(""))
            modules[name] = modules.get(name, 0) + lines_of(path)
        line = "     "
        for name, lines in modules.items():
            if not lines:
                continue
            word = f"{name} {lines}"
            if len(line) + len(word) > 116:
                rows.append(line.rstrip(" ·"))
                line = "     "
            line += f"{word} · "
        rows.append(line.rstrip(" ·"))
    return "\n".join(rows)


if __name__ == "__main__":
    if "--quiet" not in sys.argv[1:]:
        print(picture())
    wrong = {path: names for path in sources() if (names := upward_imports(path))}
    for path, names in wrong.items():
        print(f"{path.relative_to(ROOT)} imports upwards: {', '.join(names)}", file=sys.stderr)
    sys.exit(bool(wrong))
