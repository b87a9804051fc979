"""The demonstration behind `make demo`: a local exchange, the appliance, a look at what goes through, an honest count."""

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from appliance.errors import CheckFailed, MdcError, NotARing
from appliance.ring.chunk import metas
from appliance.ring.examination import Verdict, examinations
from appliance.ring.reader import RingReader
from appliance.tools.count import Count
from appliance.tools.stats import row
from appliance.tools.view import View

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
EXCHANGE = [sys.executable, "-m", "appliance.sim.server"]
APPLIANCE = [sys.executable, "-c", "from appliance.cli import appliance_main; appliance_main()"]
TICK_S = 0.25
LINE_S = 1.0
START_S = 60.0  # on a slow machine that has just compiled everything
END_S = 15.0  # the appliance promises to drain within ten
SHM = Path("/dev/shm")
SHM_FREE_BYTES = 512 << 20  # two rings of 64 MiB, with room to spare
PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(slots=True, frozen=True)
class Place:
    """Where a demonstration keeps its files."""

    data: Path
    ring: Path

    @classmethod
    def make(cls, parent: Path) -> "Place":
        """A fresh data directory under `parent`, and a ring directory in memory where there is room for it."""
        parent.mkdir(parents=True, exist_ok=True)
        data = Path(tempfile.mkdtemp(prefix=time.strftime("demo-%Y%m%d-%H%M%S-"), dir=parent))
        (data / "journal").mkdir()
        if os.access(SHM, os.W_OK) and shutil.disk_usage(SHM).free > SHM_FREE_BYTES:
            return cls(data, Path(tempfile.mkdtemp(prefix="mdc-demo-", dir=SHM)))
        (data / "ring").mkdir()
        return cls(data, data / "ring")

    @property
    def journal(self) -> Path:
        return self.data / "journal"

    def log(self, name: str) -> Path:
        return self.data / f"{name}.log"

    def remove_ring(self) -> None:
        shutil.rmtree(self.ring, ignore_errors=True)


def _command() -> Path:
    """`mdc` as it can be typed here."""
    mdc = Path(sys.executable).with_name("mdc")
    if not mdc.exists():
        return Path("mdc")
    return mdc.relative_to(Path.cwd()) if mdc.is_relative_to(Path.cwd()) else mdc


def run(*, seconds: float, config: Path, data: Path, exchange: Sequence[str] = EXCHANGE, appliance: Sequence[str] = APPLIANCE) -> int:
    """Run it and print the summary; 0 when nothing fell short."""
    console = Console(highlight=False, soft_wrap=True)
    place = Place.make(data)
    console.print(f"data directory: {place.data}   ring in memory: {place.ring}")
    try:
        with ExitStack() as running:
            count = _collect(running, console, place, seconds, config, exchange, appliance)
        console.print(count.summary())
        shortfalls = count.shortfalls()
        for shortfall in shortfalls:
            console.print(f"[bold red]fell short:[/] {shortfall}")
        if not shortfalls:
            console.print(f"read it again: {_command()} tail --rings {place.journal} --from oldest --once")
        return 1 if shortfalls else 0
    except MdcError as error:
        console.print(f"[bold red]fell short:[/] {error}")
        return 1
    except KeyboardInterrupt:
        console.print("interrupted")
        return INTERRUPTED
    finally:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing runs any more: let this be finished
        place.remove_ring()
        console.print(f"left behind: {place.data}")
        signal.signal(signal.SIGINT, before)


def _collect(
    running: ExitStack, console: Console, place: Place, seconds: float, config: Path, exchange: Sequence[str], appliance: Sequence[str]
) -> Count:
    """Run exchange and appliance, show what goes through, count what arrived. Raises CheckFailed when one of them fails."""
    wanted = tomllib.loads(config.read_text())["exchange"]
    command = [*exchange, "--exchange", wanted["name"], "--port", "0", "--symbols", str(wanted["local_symbols"])]
    command += ["--rate", str(wanted["local_rate"]), "--seed", str(wanted["local_seed"])]
    sim = running.enter_context(_child(command, place, "exchange", {}))
    urls = _told(sim, place)
    environment = {
        "MDC_EXCHANGE__LOCAL": "false",
        "MDC_EXCHANGE__REST_URL": urls["rest_url"],
        "MDC_EXCHANGE__WS_URL": urls["ws_url"],
        "MDC_RING__DIR": str(place.ring.resolve()),
        "MDC_JOURNAL__DIR": str(place.journal.resolve()),
    }
    command = [*appliance, "--config", str(config), "--duration", str(seconds)]
    child = running.enter_context(_child(command, place, "appliance", environment))
    _watch(child, place, seconds, console)
    console.print("verifying ring and journal …")
    return Count(_sent(urls["rest_url"]), _rows(place.ring), _verdicts(place.ring), _verdicts(place.journal))


@contextmanager
def _child(command: Sequence[str], place: Place, name: str, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A child that ends with us, in order if we end in order, and by the kernel's hand if not."""
    libc = ctypes.CDLL(None)

    def end_with_us() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    with place.log(name).open("wb") as log:
        # A session of its own: Ctrl-C is for us, who then end it. We have no threads, so preexec_fn is safe.
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if name == "exchange" else log, stderr=log,
            env=os.environ | environment, start_new_session=True, preexec_fn=end_with_us,
        )  # fmt: skip
    try:
        yield child
    finally:
        try:
            child.terminate()
            child.wait(END_S)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):  # a second Ctrl-C does not wait
            child.kill()
            child.wait()
        if child.stdout is not None:
            child.stdout.close()


def _told(sim: subprocess.Popen[bytes], place: Place) -> dict[str, Any]:
    """The one line that the exchange prints when it listens."""
    assert sim.stdout is not None
    ready, _, _ = select.select([sim.stdout], [], [], START_S)
    line = sim.stdout.readline() if ready else b""
    try:
        told: dict[str, Any] = json.loads(line)
    except ValueError:
        raise CheckFailed(_last_words(f"the local exchange did not start: it said {line!r}", place.log("exchange"))) from None
    return told


def _watch(child: subprocess.Popen[bytes], place: Place, seconds: float, console: Console) -> None:
    """Show what goes through until the appliance has drained and ended. Raises CheckFailed when it does not do that."""
    started = time.monotonic()
    while child.poll() is None and not metas(place.ring):
        if time.monotonic() - started > START_S:
            raise CheckFailed(_last_words("the appliance did not come up", place.log("appliance")))
        time.sleep(TICK_S / 10)
    view = View(place.ring)
    said = 0.0
    # Not started on a log: it would print its last picture there.
    live = Live(console=console, auto_refresh=False, transient=True)
    try:
        if console.is_terminal:
            live.start()
        while child.poll() is None:
            left_s = seconds - (time.monotonic() - started)
            if left_s < -START_S:
                raise CheckFailed(_last_words("the appliance did not end in time", place.log("appliance")))
            view.look()
            if console.is_terminal:
                live.update(view.picture(f"{max(left_s, 0):.0f} s more; Ctrl-C stops it without a count"), refresh=True)
            elif view.newest and time.monotonic() - said >= LINE_S:
                said = time.monotonic()
                console.print(f"{view.line()}\n    {view.newest}")
            time.sleep(TICK_S)
    finally:
        live.stop()
        view.close()
    if child.returncode:
        raise CheckFailed(_last_words(f"the appliance ended with exit status {child.returncode}", place.log("appliance")))


def _last_words(what: str, log: Path) -> str:
    return "\n    ".join([f"{what}; the end of {log}:", *log.read_text(errors="replace").splitlines()[-5:]])


def _sent(rest_url: str) -> int | None:
    """How many trades the local exchange wrote to at least one connection, by its own count."""
    try:
        with urllib.request.urlopen(f"{rest_url}/sim/stats", timeout=10) as answer:
            return int(json.load(answer)["trades_sent"])
    except (OSError, ValueError, KeyError):
        return None


def _rows(ring: Path) -> list[dict[str, Any]]:
    rows = []
    for _, _, path in metas(ring):
        reader = RingReader(path)
        rows.append(row(reader))
        reader.close()
    return rows


def _verdicts(directory: Path) -> list[Verdict]:
    try:
        chunks = examinations(directory)
    except NotARing:
        return []  # the appliance made none: the count says so
    return [chunk.verdict(lambda size: None) for chunk in chunks]


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(
    seconds: Annotated[float, typer.Option(min=1.0, help="How long trades are collected.")] = 20.0,
    config: Annotated[Path, typer.Option(help="The appliance's configuration, with a local exchange.")] = Path("configs/demo.toml"),
    data: Annotated[Path, typer.Option(help="Where the data directory is made.")] = Path("data"),
) -> None:
    """Collect from a local exchange for a while, show it, and count what arrived."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    raise typer.Exit(run(seconds=seconds, config=config, data=data))


if __name__ == "__main__":
    typer.run(main)
