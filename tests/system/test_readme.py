"""The README's commands do what it says, each as it stands there; only the directories and the exchange are the test's own."""

import html
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.local_exchange import LocalExchange, local_exchange
from tests.system.appliance_process import site

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^\$ (.+)$", README, re.MULTILINE)
DEADLINE_S = 90.0  # machines are shared


def environment(exchange: LocalExchange, ring_dir: Path, journal_dir: Path) -> dict[str, str]:
    """Keys from outside, as an operator may set them, in the place of configs/binance.toml's."""
    settings = {
        "EXCHANGE__REST_URL": exchange.rest_url,
        "EXCHANGE__WS_URL": exchange.ws_url,
        "RING__DIR": str(ring_dir),
        "RING__CAPACITY_MB": "16",
        "RING__MLOCK": "false",
        "JOURNAL__DIR": str(journal_dir),
        "JOURNAL__SEGMENT_MB": "8",
        "JOURNAL__KEEP_FREE_GB": "0.1",
        "METRICS__CSV": str(journal_dir / "metrics.csv"),
    }
    return {**os.environ, **{f"MDC_{key}": value for key, value in settings.items()}}


def words(command: str, ring_dir: Path, journal_dir: Path) -> list[str]:
    """What to execute: the console script's program by this Python, on the test's directories."""
    program, *rest = shlex.split(command.replace("/run/mdc/binance", str(ring_dir)).replace("/var/lib/mdc/binance", str(journal_dir)))
    entry = {".venv/bin/mdc": "main", ".venv/bin/mdc-appliance": "appliance_main"}[program]
    return [sys.executable, "-c", f"from appliance.cli import {entry}; {entry}()", *rest]


def lines_of(process: subprocess.Popen[str], wanted: int) -> list[str]:
    """So many lines of a command that goes on until Ctrl-C; then Ctrl-C."""
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(wanted)]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE_S)
    return lines


def test_the_first_screen_is_two_make_targets() -> None:
    assert COMMANDS[:2] == ["make demo", "make test"]
    assert all(command.startswith((".venv/bin/mdc ", ".venv/bin/mdc-appliance ")) for command in COMMANDS[2:])


def test_the_last_lines_of_the_demonstration_are_those_of_its_picture() -> None:
    quoted = re.search(r"```text\n(.+?)```", README, re.DOTALL)
    assert quoted is not None
    picture = html.unescape((ROOT / "docs" / "demo.svg").read_text()).replace("\N{NO-BREAK SPACE}", " ")
    assert [line for line in quoted[1].splitlines() if f">{line}<" not in picture] == []
    assert re.findall(r"(\w+): sent .+; 0 lost, 0 duplicated", quoted[1]) == ["binance", "deribit"]


def test_the_commands_for_production_work_as_they_stand_there(tmp_path: Path) -> None:
    with site(tmp_path) as here, local_exchange("--symbols", "20", "--rate", "2000") as exchange:
        ring_dir, journal_dir = here.ring_dir, tmp_path / "journal"
        environ = environment(exchange, ring_dir, journal_dir)

        def begin(command: str) -> subprocess.Popen[str]:
            pipe = subprocess.PIPE
            return subprocess.Popen(words(command, ring_dir, journal_dir), cwd=ROOT, env=environ, stdout=pipe, stderr=pipe, text=True)

        check, run, *readers = COMMANDS[2:]
        checked = begin(check)
        out, err = checked.communicate(timeout=DEADLINE_S)
        assert checked.returncode == 0, out + err
        with begin(run) as running:
            try:
                deadline = time.monotonic() + DEADLINE_S
                while not (trades := [path for path in ring_dir.glob("*.meta") if exchange.stats()["trades_sent"] > 2_000]):
                    assert running.poll() is None, running.communicate()
                    assert time.monotonic() < deadline
                    time.sleep(0.05)  # the interval of a poll with a deadline
                assert trades
                for command in readers:
                    with begin(command) as reader:
                        if "tail" in command and "--once" not in command:
                            assert all("px=" in line for line in lines_of(reader, 3)), command
                        else:
                            out, err = reader.communicate(timeout=DEADLINE_S)
                            assert reader.returncode == 0, f"{command}\n{out}{err}"
                            assert out, command
                snippet = re.search(r"```python\n(.+?)```", README, re.DOTALL)
                assert snippet is not None
                program = snippet[1].replace("/run/mdc/binance", str(ring_dir))
                shown = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S)
                assert shown.returncode == 0, shown.stderr
                assert re.search(r"^\S+ (Buy|Sell) [\d.]+ [\d.]+$", shown.stdout, re.MULTILINE)
            finally:
                running.send_signal(signal.SIGTERM)
                _, log = running.communicate(timeout=DEADLINE_S)
            assert running.returncode == 0, log


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`?make ([a-z]+)", README))))
def test_make_knows_each_target_that_the_readme_names(target: str) -> None:
    planned = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    assert planned.returncode == 0, planned.stderr
