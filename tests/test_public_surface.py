"""What the package shows, and what it does not load."""

import subprocess
import sys

import appliance

HEAVY = {"picows", "uvloop", "dynaconf", "numpy", "pyarrow", "pydantic", "loguru", "httpx", "rich", "typer", "simdjson", "asyncio"}


def test_all_is_the_whole_surface() -> None:
    assert appliance.__all__ == [
        "Boundary",
        "CannotRun",
        "CheckFailed",
        "ConfigError",
        "Damaged",
        "ExchangeRefused",
        "Gap",
        "GapClosed",
        "Hole",
        "Kind",
        "Lapped",
        "MdcError",
        "NotARing",
        "RingBusy",
        "Side",
        "Status",
        "Trade",
        "open_rings",
    ]
    for name in appliance.__all__:
        assert getattr(appliance, name).__doc__, f"{name} has no docstring"


def test_import_appliance_loads_nothing_heavy() -> None:
    program = "import sys, appliance; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert HEAVY.isdisjoint(loaded), HEAVY.intersection(loaded)
