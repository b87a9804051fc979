"""One exchange of a demonstration: a local exchange, the appliance that collects from it, the directories of both."""

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import time
import tomllib
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from appliance.errors import CheckFailed, ConfigError, NotARing
from appliance.ring.chunk import metas
from appliance.ring.examination import Verdict, examinations
from appliance.tools import stats
from appliance.tools.count import Count

START_S = 60.0  # on a slow machine that has just compiled everything
END_S = 15.0  # the appliance promises to drain within ten
LAST_WORDS = 5
PR_SET_PDEATHSIG = 1  # linux/prctl.h
LOGIN = "DERIBIT_"  # variables of an account; the local exchange knows none and would refuse it


class Rig:
    """Start the exchange, then the appliance, each on an ExitStack that ends them; when the appliance has ended, count."""

    def __init__(self, config: Path, data: Path, rings: Path) -> None:
        """Make this exchange's directories in both. Raises ConfigError for a file that is not a demonstration's."""
        try:
            wanted = tomllib.loads(config.read_text())["exchange"]
            self.name = str(wanted["name"])
            self._flags = ["--exchange", self.name, "--port", "0", "--symbols", str(wanted["local_symbols"])]
            self._flags += ["--rate", str(wanted["local_rate"]), "--seed", str(wanted["local_seed"])]
        except OSError as error:
            raise ConfigError(f"{config}: {error.strerror}; expected a configuration as configs/demo.toml is one") from None
        except ValueError as error:
            raise ConfigError(f"{config}: this is not TOML: {error}") from None
        except KeyError as error:
            raise ConfigError(f"{config}: its [exchange] has no {error}; expected one with local = true, as in configs/demo.toml") from None
        self._data = data / self.name
        self.ring = rings / self.name
        self.journal = self._data / "journal"
        if self._data.exists():
            raise ConfigError(f"{config}: another configuration is for {self.name} too; expected one for each exchange")
        self.journal.mkdir(parents=True)
        self.ring.mkdir()
        # A copy: it stays beside what came of it, and no .env with the settings of an appliance in production does.
        self._config = Path(shutil.copy(config, self._data))
        self._exchange: subprocess.Popen[bytes]
        self._appliance: subprocess.Popen[bytes]
        self._rest_url = ""
        self._started = 0.0

    def start_exchange(self, running: ExitStack, program: Sequence[str]) -> None:
        """Does not wait until it listens."""
        self._exchange = running.enter_context(self._child("exchange", [*program, *self._flags], {}))

    def start_appliance(self, running: ExitStack, program: Sequence[str], seconds: float) -> None:
        """As soon as the exchange listens. Raises CheckFailed when it does not."""
        urls = self._told()
        self._rest_url = urls["rest_url"]
        settings = {
            "MDC_EXCHANGE__LOCAL": "false",
            "MDC_EXCHANGE__REST_URL": urls["rest_url"],
            "MDC_EXCHANGE__WS_URL": urls["ws_url"],
            "MDC_RING__DIR": str(self.ring.resolve()),
            "MDC_JOURNAL__DIR": str(self.journal.resolve()),
        }
        command = [*program, "--config", str(self._config), "--duration", str(seconds)]
        self._appliance = running.enter_context(self._child("appliance", command, settings))
        self._started = time.monotonic()

    def left_s(self, seconds: float) -> float | None:
        """Of `seconds`, what the appliance has left; None when it has drained and ended. Raises CheckFailed when it failed."""
        status = self._appliance.poll()
        if status:
            raise self._failed(f"the appliance ended with exit status {status}", "appliance")
        if status == 0:
            return None
        spent_s = time.monotonic() - self._started
        if spent_s > START_S and not metas(self.ring):
            raise self._failed("the appliance did not come up", "appliance")
        if spent_s > seconds + START_S:
            raise self._failed("the appliance did not end in time", "appliance")
        return max(seconds - spent_s, 0.0)

    def count(self) -> Count:
        """What was sent, committed and written, when the appliance has ended and the exchange still answers."""
        rows = stats.read(self.ring) if metas(self.ring) else []
        return Count(self._sent(), rows, _verdicts(self.ring), _verdicts(self.journal))

    def _log(self, name: str) -> Path:
        return self._data / f"{name}.log"

    @contextmanager
    def _child(self, name: str, command: Sequence[str], settings: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
        """A child that ends with us, in order if we end in order, and by the kernel's hand if not."""
        libc = ctypes.CDLL(None)

        def end_with_us() -> None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

        environment = {variable: value for variable, value in os.environ.items() if not variable.startswith(LOGIN)}
        with self._log(name).open("wb") as log:
            # A session of its own: Ctrl-C is for us, who then end it. We have no threads, so preexec_fn is safe.
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if name == "exchange" else log, stderr=log,
                env={**environment, **settings}, start_new_session=True, preexec_fn=end_with_us,
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

    def _told(self) -> dict[str, Any]:
        """The one line that the exchange prints when it listens."""
        assert self._exchange.stdout is not None
        ready, _, _ = select.select([self._exchange.stdout], [], [], START_S)
        line = self._exchange.stdout.readline() if ready else b""
        try:
            told: dict[str, Any] = json.loads(line)
        except ValueError:
            raise self._failed(f"the local exchange did not start: it said {line!r}", "exchange") from None
        return told

    def _failed(self, what: str, name: str) -> CheckFailed:
        """With the last words of that child."""
        log = self._log(name)
        words = log.read_text(errors="replace").splitlines()[-LAST_WORDS:]
        return CheckFailed("\n    ".join([f"{self.name}: {what}; the end of {log}:", *words]))

    def _sent(self) -> int | None:
        """How many trades the local exchange wrote to at least one connection, by its own count."""
        try:
            with urllib.request.urlopen(f"{self._rest_url}/sim/stats", timeout=10) as answer:
                return int(json.load(answer)["trades_sent"])
        except (OSError, ValueError, KeyError):
            return None


def _verdicts(directory: Path) -> list[Verdict]:
    try:
        chunks = examinations(directory)
    except NotARing:
        return []  # the appliance made none: the count says so
    return [chunk.verdict(lambda size: None) for chunk in chunks]
