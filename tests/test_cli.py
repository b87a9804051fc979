"""The command line: which verb gets what, what is told where, and with which exit status a command ends."""

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import appliance.sim
import appliance.tools
from appliance import cli
from appliance.config import Settings
from appliance.errors import CannotRun, CheckFailed, ConfigError, ExchangeRefused, MdcError, RingBusy

ROOT = Path(__file__).parent.parent

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command as the console script does: exit status, standard output, standard error."""

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", list(words))
        with pytest.raises(SystemExit) as left:
            {"mdc": cli.main, "mdc-appliance": cli.appliance_main}[words[0]]()
        out, err = capfd.readouterr()
        return int(left.value.code or 0), out, err

    return command


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Put a function in the place of a verb's module; what the verb was called with."""

    def replace(package: ModuleType, name: str, answer: Callable[[], int] = lambda: 0) -> dict[str, Any]:
        called: dict[str, Any] = {}
        module = ModuleType(f"{package.__name__}.{name}")

        def fake(**options: Any) -> int:
            called.update(options)
            return answer()

        vars(module)["run"] = fake
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(package, name, module, raising=False)
        return called

    return replace


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    heavy = ["uvloop", "picows", "dynaconf", "pydantic", "loguru", "numpy", "pyarrow", "httpx", "simdjson"]
    script = f"import sys, appliance.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_tail_gets_its_options(run: Run, verb: Callable[..., dict[str, Any]]) -> None:
    called = verb(appliance.tools, "tail")
    assert run("mdc", "tail", "--rings", "/r")[0] == 0
    assert called == {
        "rings": Path("/r"), "filters": [], "poll_ms": 50, "start": "now", "once": False, "as_json": False, "verbose": False,
    }  # fmt: skip
    words = ["--filter", "BTC*", "--filter", "ETH*", "--poll-ms", "5", "--from", "oldest", "--once", "--json", "--verbose"]
    assert run("mdc", "tail", "--rings", "/r", *words)[0] == 0
    assert called == {
        "rings": Path("/r"), "filters": ["BTC*", "ETH*"], "poll_ms": 5, "start": "oldest", "once": True, "as_json": True, "verbose": True,
    }  # fmt: skip


def test_stats_and_verify_get_their_options(run: Run, verb: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    stats, verify = verb(appliance.tools, "stats"), verb(appliance.tools, "verify", lambda: 1)
    assert run("mdc", "stats", "--rings", "/r", "--watch")[0] == 0
    assert stats == {"rings": Path("/r"), "as_json": False, "watch": True}
    monkeypatch.setenv("MDC_RINGS", "/from/the/environment")
    assert run("mdc", "verify", "--json")[0] == 1
    assert verify == {"rings": Path("/from/the/environment"), "as_json": True}


def test_replay_gets_its_options(run: Run, verb: Callable[..., dict[str, Any]]) -> None:
    called = verb(appliance.tools, "replay", lambda: 1)
    words = ["--from", "20:10", "--to", "20:15", "--compare", "--filter", "BTC*", "--json"]
    assert run("mdc", "replay", "--raw", "/j", *words)[0] == 1
    assert called == {
        "raw": Path("/j"), "start": "20:10", "end": "20:15", "filters": ["BTC*"], "decode": False, "compare": True, "as_json": True,
    }  # fmt: skip


@pytest.mark.parametrize("words", [["--decode", "--compare"], ["--filter", "BTC*"]])
def test_replay_refuses_what_makes_no_sense(words: list[str], run: Run) -> None:
    code, out, err = run("mdc", "replay", "--raw", "/j", *words)
    assert (code, out) == (2, "")
    assert words[-1] in err or "--filter" in err


def test_sim_gets_its_options(run: Run, verb: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    called = verb(appliance.sim, "server")
    (tmp_path / "frames").write_text("")
    words = ["--port", "9001", "--capture", f"{tmp_path}/frames", "--rate", "max", "--count", "7", "--symbols", "3", "--seed", "5", "--tls"]
    assert run("mdc", "sim", "--exchange", "binance", *words, "--fault", "a", "--fault", "b:1")[0] == 0
    assert called == {
        "exchange": "binance", "host": "127.0.0.1", "port": 9001, "capture": tmp_path / "frames", "rate": "max", "count": 7, "symbols": 3,
        "exchange_info": None, "seed": 5, "tls": True, "fault": ["a", "b:1"], "start_after": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["mdc", "tial"], ["tial", "Did you mean", "tail"]),
        (["mdc", "tail"], ["Missing option", "--rings"]),
        (["mdc", "tail", "--rings", "/r", "--poll-ms", "0"], ["--poll-ms", "1"]),
        (["mdc", "tail", "--rings", "/r", "--form", "now"], ["--form", "--from"]),
        (["mdc", "sim", "--rate", "fast"], ["--rate", "fast", "max"]),
        (["mdc", "sim", "--rate", "0"], ["--rate", "0"]),
        (["mdc", "sim", "--capture", "/nowhere"], ["--capture", "/nowhere"]),
        (["mdc-appliance"], ["Missing option", "--config"]),
        (["mdc-appliance", "--config", "x", "--duration", "0"], ["--duration", "0"]),
        (["mdc-appliance", "--config", "x", "--duration", "nan"], ["--duration", "nan"]),
        (["mdc-appliance", "--config", "x", "--json"], ["--json", "--check"]),
        (["mdc-appliance", "--config", "/nowhere.toml"], ["mdc: error:", "/nowhere.toml", "no such"]),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_wrong(words: list[str], parts: list[str], run: Run) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    for part in parts:
        assert part in err, err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CheckFailed("it is not whole"), 1),
        (ConfigError("no such exchange"), 2),
        (ExchangeRefused("451"), 2),
        (CannotRun("no room"), 3),
        (RingBusy("/run/mdc is taken"), 3),
        (MdcError("something"), 3),
    ],
)
def test_an_error_is_told_in_one_line_with_its_exit_status(
    error: MdcError, code: int, run: Run, verb: Callable[..., dict[str, Any]]
) -> None:
    def fail() -> int:
        raise error

    verb(appliance.tools, "stats", fail)
    assert run("mdc", "stats", "--rings", "/r") == (code, "", f"mdc: error: {error}\n")


def test_the_errors_of_a_task_group_are_each_told(run: Run, verb: Callable[..., dict[str, Any]]) -> None:
    def fail() -> int:
        raise BaseExceptionGroup("tasks", [RingBusy("taken"), ExceptionGroup("inner", [ConfigError("refused")])])

    verb(appliance.tools, "stats", fail)
    assert run("mdc", "stats", "--rings", "/r") == (3, "", "mdc: error: taken\nmdc: error: refused\n")


@pytest.mark.parametrize("shown", [False, True])
def test_a_defect_is_short_and_its_traceback_is_for_the_asking(
    shown: bool, run: Run, verb: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> int:
        raise KeyError("px")

    monkeypatch.setenv("MDC_TRACEBACK", "1" if shown else "")
    verb(appliance.tools, "stats", fail)
    code, out, err = run("mdc", "stats", "--rings", "/r")
    assert (code, out) == (3, "")
    assert err.startswith("mdc: error: unexpected KeyError: 'px' (in ")
    assert ("Traceback" in err, "MDC_TRACEBACK=1" in err) == (shown, not shown)


def test_ctrl_c_exits_130_without_a_word(run: Run, verb: Callable[..., dict[str, Any]]) -> None:
    def interrupted() -> int:
        raise BaseExceptionGroup("tasks", [KeyboardInterrupt()])

    verb(appliance.tools, "stats", interrupted)
    assert run("mdc", "stats", "--rings", "/r") == (130, "", "")


def test_ctrl_c_in_a_process_of_its_own() -> None:
    script = (
        "import sys, types, time, appliance.tools; from appliance import cli\n"
        "def run(**_):\n    print('running', flush=True); time.sleep(60); return 0\n"
        "appliance.tools.stats = types.SimpleNamespace(run=run)\n"
        "sys.argv = ['mdc', 'stats', '--rings', '/r']; cli.main()"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "")


def test_a_reader_that_has_seen_enough_is_no_error(verb: Callable[..., dict[str, Any]]) -> None:
    script = (
        "import sys, types, appliance.tools; from appliance import cli\n"
        "def run(**_):\n    while True: print('x' * 1000, flush=True)\n"
        "appliance.tools.stats = types.SimpleNamespace(run=run)\n"
        "sys.argv = ['mdc', 'stats', '--rings', '/r']; cli.main()"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert isinstance(process.stdout, io.TextIOWrapper)
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
        assert (process.wait(timeout=20), err) == (0, "")


@pytest.mark.parametrize("command", ["mdc", "mdc-appliance"])
def test_version_is_one_line_with_status_0(command: str, run: Run) -> None:
    code, out, err = run(command, "--version")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"mdc \S.*\n", out)


@pytest.mark.parametrize("words", [["mdc-appliance"], ["mdc"], *(["mdc", verb] for verb in ("tail", "stats", "verify", "replay", "sim"))])
def test_help_has_examples(words: list[str], run: Run) -> None:
    code, out, _ = run(*words, "--help")
    assert code == 0
    assert "xamples" in out


def config(tmp_path: Path, text: str = "") -> Path:
    path = tmp_path / "mdc.toml"
    path.write_text(
        f'[exchange]\nname = "binance"\nlocal = true\n[ring]\ndir = "{tmp_path}/ring"\n[journal]\ndir = "{tmp_path}/journal"\n{text}'
    )
    return path


def test_check_reports_and_changes_nothing(tmp_path: Path, run: Run) -> None:
    path = config(tmp_path, "keep_free_gb = 0\nkeep_hours = 0\n[metrics]\n")
    code, out, err = run("mdc-appliance", "--config", str(path), "--check")
    assert (code, err) == (0, "")
    assert "PASS  ring.dir" in out
    assert "45 GB a day" in out
    assert list(tmp_path.iterdir()) == [path]
    code, out, err = run("mdc-appliance", "--config", str(path), "--check", "--json")
    assert (code, err, out[0]) == (0, "", "[")


def test_check_exits_1_when_the_machine_does_not_fit(tmp_path: Path, run: Run) -> None:
    (tmp_path / "ring").write_text("")
    code, out, _ = run("mdc-appliance", "--config", str(config(tmp_path)), "--check")
    assert code == 1
    assert "FAIL  ring.dir" in out


def test_a_mistake_in_the_configuration_exits_2_with_or_without_check(tmp_path: Path, run: Run) -> None:
    path = config(tmp_path, "[feed]\nlegs = 9\nleg = 1\n")
    for words in ([], ["--check"], ["--check", "--json"]):
        code, out, err = run("mdc-appliance", "--config", str(path), *words)
        assert (code, out) == (2, "")
        assert err.startswith(f"mdc: error: {path}: 2 mistakes")
        assert "[feed] legs = 9" in err


def test_the_appliance_gets_settings_and_duration(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    collector = ModuleType("appliance.collector")

    def collect(settings: Settings, duration_s: float | None) -> int:
        called.extend([settings.exchange.name, duration_s])
        return 0

    vars(collector)["run"] = collect
    monkeypatch.setitem(sys.modules, collector.__name__, collector)
    monkeypatch.setattr(appliance, "collector", collector, raising=False)
    assert run("mdc-appliance", "--config", str(config(tmp_path)), "--duration", "2.5")[0] == 0
    assert called == ["binance", 2.5]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a process of another user")
def test_an_unreadable_configuration_is_told(tmp_path: Path) -> None:
    path = config(tmp_path)
    path.chmod(0o000)
    script = f"import sys; from appliance import cli; sys.argv = ['mdc-appliance', '--config', {str(path)!r}]; cli.appliance_main()"
    # Root reads everything, unless these are taken from it.
    humble = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]
    done = subprocess.run([*humble, sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.search("not readable|Permission denied", done.stderr)
