"""The demonstration behind `make demo`: local exchanges and their appliances side by side, a look at what goes through, honest counts."""

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from appliance.errors import MdcError
from appliance.tools.count import Count
from appliance.tools.rig import Rig
from appliance.tools.view import View

CONFIGS = [Path("configs/demo.toml"), Path("configs/demo-deribit.toml")]
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
EXCHANGE = [sys.executable, "-m", "appliance.sim.server"]
APPLIANCE = [sys.executable, "-c", "from appliance.cli import appliance_main; appliance_main()"]
TICK_S = 0.25
LINE_S = 1.0
SHM = Path("/dev/shm")
SHM_FREE_BYTES = 512 << 20  # three rings of 64 MiB, with room to spare


@dataclass(slots=True, frozen=True)
class Place:
    """The directories of a demonstration; in each, every exchange has one of its own."""

    data: Path
    rings: Path

    @classmethod
    def make(cls, parent: Path) -> "Place":
        """A fresh data directory under `parent`, and one for the rings in memory where there is room for it."""
        parent.mkdir(parents=True, exist_ok=True)
        data = Path(tempfile.mkdtemp(prefix=time.strftime("demo-%Y%m%d-%H%M%S-"), dir=parent))
        if os.access(SHM, os.W_OK) and shutil.disk_usage(SHM).free > SHM_FREE_BYTES:
            return cls(data, Path(tempfile.mkdtemp(prefix="mdc-demo-", dir=SHM)))
        (data / "rings").mkdir()
        return cls(data, data / "rings")

    def remove_rings(self) -> None:
        shutil.rmtree(self.rings, ignore_errors=True)


def run(
    *, seconds: float, configs: Sequence[Path], data: Path, exchange: Sequence[str] = EXCHANGE, appliance: Sequence[str] = APPLIANCE
) -> int:
    """Run an exchange for each configuration and print the counts; 0 when nothing fell short."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    place = Place.make(data)
    console.print(f"data directory: {place.data}   rings: {place.rings}")
    try:
        rigs = [Rig(config, place.data, place.rings) for config in configs]
        with ExitStack() as running:
            counts = _collect(running, console, rigs, seconds, exchange, appliance)
        return _conclude(console, rigs, counts)
    except MdcError as error:
        _say_short(console, str(error))
        return 1
    except KeyboardInterrupt:
        console.print("interrupted")
        return INTERRUPTED
    finally:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing runs any more: let this be finished
        place.remove_rings()
        console.print(f"left behind: {place.data}")
        signal.signal(signal.SIGINT, before)


def _collect(
    running: ExitStack, console: Console, rigs: Sequence[Rig], seconds: float, exchange: Sequence[str], appliance: Sequence[str]
) -> list[Count]:
    """Run exchanges and appliances, show what goes through, count what arrived. Raises CheckFailed when one of them fails."""
    for rig in rigs:
        rig.start_exchange(running, exchange)
    for rig in rigs:
        rig.start_appliance(running, appliance, seconds)
    _watch(console, rigs, seconds)
    console.print("verifying rings and journals …")
    return [rig.count() for rig in rigs]


def _watch(console: Console, rigs: Sequence[Rig], seconds: float) -> None:
    """Show what goes through until the appliances have drained and ended. Raises CheckFailed when one does not do that."""
    view = View([rig.ring for rig in rigs])
    said = 0.0
    # Not started on a log: it would print its last picture there.
    live = Live(console=console, auto_refresh=False, transient=True)
    try:
        if console.is_terminal:
            live.start()
        while left := [left_s for rig in rigs if (left_s := rig.left_s(seconds)) is not None]:
            view.look()
            if console.is_terminal:
                live.update(view.picture(f"{max(left):.0f} s more; Ctrl-C stops it without a count"), refresh=True)
            elif time.monotonic() - said >= LINE_S and (lines := view.lines()):
                said = time.monotonic()
                console.print("\n".join(lines))
            time.sleep(TICK_S)
    finally:
        live.stop()
        view.close()


def _conclude(console: Console, rigs: Sequence[Rig], counts: Sequence[Count]) -> int:
    """Print the counts, and what fell short, or else how to read it all again; the exit code."""
    for rig, count in zip(rigs, counts, strict=True):
        console.print(f"{rig.name}: " + "\n    ".join(count.lines()))
    shortfalls = [f"{rig.name}: {shortfall}" for rig, count in zip(rigs, counts, strict=True) for shortfall in count.shortfalls()]
    for shortfall in shortfalls:
        _say_short(console, shortfall)
    if shortfalls:
        return 1
    for rig in rigs:
        console.print(f"read it again: {_command()} tail --rings {rig.journal} --from oldest --once")
    return 0


def _say_short(console: Console, what: str) -> None:
    console.print(Text.assemble(("fell short:", "bold red"), f" {what}"))


def _command() -> Path:
    """`mdc` as it can be typed here."""
    mdc = Path(sys.executable).with_name("mdc")
    if not mdc.exists():
        return Path("mdc")
    return mdc.relative_to(Path.cwd()) if mdc.is_relative_to(Path.cwd()) else mdc


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(
    seconds: Annotated[float, typer.Option(min=1.0, help="How long trades are collected.")] = 20.0,
    config: Annotated[list[Path], typer.Option(help="An appliance's configuration with a local exchange; repeatable.")] = CONFIGS,
    data: Annotated[Path, typer.Option(help="Where the data directory is made.")] = Path("data"),
) -> None:
    """Collect from local exchanges for a while, show it, and count what arrived."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    raise typer.Exit(run(seconds=seconds, configs=config, data=data))


if __name__ == "__main__":
    typer.run(main)
