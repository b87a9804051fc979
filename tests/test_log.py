"""The log: what a line looks like, and that nothing that happens to standard error ever stops the caller."""

import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from appliance import log
from tests.streams import until

ROOT = Path(__file__).parent.parent


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe that stands for standard error: read, write."""
    reading, writing = os.pipe()
    yield reading, writing
    os.close(writing)
    os.close(reading)


def written(pipe: tuple[int, int]) -> list[str]:
    """The lines in the pipe, which holds them all."""
    os.set_blocking(pipe[0], False)
    try:
        return os.read(pipe[0], 1 << 16).decode().splitlines()
    except BlockingIOError:
        return []


def test_a_line_has_time_level_origin_words_and_facts(pipe: tuple[int, int]) -> None:
    with log.start(fd=pipe[1]):
        logger.bind(chunk=0, leg=1, path=Path("/run/mdc"), why='said "no"', none=None).warning("connection lost")
    [line] = written(pipe)
    time_, rest = line.split(" ", 1)
    assert time_.startswith("20")
    assert time_.endswith("Z")
    assert rest == f'WARNING {__name__}: connection lost  chunk=0  leg=1  path=/run/mdc  why="said \\"no\\""  none=None'


def test_json_is_one_object_a_line_with_the_facts_beside_the_words(pipe: tuple[int, int]) -> None:
    with log.start(fd=pipe[1], as_json=True):
        logger.bind(chunk=0, ok=True, path=Path("/run"), text="a\nb").info("two\nlines")
        try:
            raise ValueError("inner")
        except ValueError:
            logger.exception("it failed")
    first, second = map(json.loads, written(pipe))
    assert first.pop("time").endswith("Z")
    assert first == {"level": "INFO", "origin": __name__, "message": "two\nlines", "chunk": 0, "ok": True, "path": "/run", "text": "a\nb"}
    assert second["level"] == "ERROR"
    assert "ValueError: inner" in second["traceback"]


def test_what_a_peer_sends_stays_on_its_line_and_is_cut(pipe: tuple[int, int]) -> None:
    with log.start(fd=pipe[1]):
        logger.bind(payload="x\n2026-01-01 ERROR forged", colour="\x1b[31m").info("bad\r\nframe <red>{}</red> {x}")
        logger.bind(payload="y" * 10_000_000).info("huge")
    first, second = written(pipe)
    assert "bad\\r\\nframe <red>{}</red> {x}" in first
    assert "\x1b" not in first
    assert len(second) < 2_000
    assert "10000000 characters" in second


def test_only_the_configured_level_and_above_is_logged(pipe: tuple[int, int]) -> None:
    with log.start("WARNING", fd=pipe[1]):
        logger.info("no")
        logging.getLogger("picows").info("no")
        logger.warning("yes")
    assert len(written(pipe)) == 1


def test_the_standard_librarys_loggers_and_warnings_take_the_same_way(pipe: tuple[int, int]) -> None:
    with log.start(fd=pipe[1], as_json=True):
        logging.getLogger("picows").info("frame of %d bytes", 3)
        logging.getLogger("asyncio").log(25, "odd {level}")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old habit", stacklevel=1)
    lines = [json.loads(line) for line in written(pipe)]
    assert [(line["origin"], line["message"]) for line in lines[:2]] == [("picows", "frame of 3 bytes"), ("asyncio", "odd {level}")]
    assert "old habit" in lines[2]["message"]


def test_an_exception_shows_its_traceback_without_the_variables(pipe: tuple[int, int]) -> None:
    with log.start(fd=pipe[1]):
        password = "hunter2"
        try:
            raise ValueError(len(password))
        except ValueError:
            logger.exception("login failed")
    text = "\n".join(written(pipe))
    assert "ValueError: 7" in text
    assert "'hunter2'" not in text.replace('password = "hunter2"', "")


@pytest.mark.parametrize("as_json", [False, True])
def test_secrets_never_reach_the_line(as_json: bool, pipe: tuple[int, int]) -> None:
    with log.start(fd=pipe[1], as_json=as_json, secrets=['hunter"2', ""]):
        logger.bind(answer='{"token": "hunter"2"}').warning('refused hunter"2')
        try:
            raise ValueError('hunter"2')
        except ValueError:
            logger.exception("boom")
        logging.getLogger("picows").warning('sent hunter"2')
        for characters in range(990, 1001):  # about where a long text is cut
            logger.bind(answer="x" * characters + 'hunter"2').warning("x" * characters + 'hunter"2')
    text = "\n".join(written(pipe))
    assert "hun" not in text
    assert text.count("***") >= 4


def test_the_journal_gets_priorities_and_keeps_the_time_itself(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    status = os.fstat(pipe[1])
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    with log.start("DEBUG", fd=pipe[1]):
        logger.error("bad")
        logger.debug("fine")
    assert written(pipe) == [f"<3>ERROR   {__name__}: bad", f"<7>DEBUG   {__name__}: fine"]


def test_one_kind_in_plenty_is_held_back_and_counted_while_others_pass(pipe: tuple[int, int]) -> None:
    with log.start(fd=pipe[1], as_json=True):
        for number in range(1_000):
            logger.bind(event="malformed", number=number).warning("not a trade")
        logger.bind(event="leg_lost").warning("connection lost")
    lines = [json.loads(line) for line in written(pipe)]
    assert sum(line.get("event") == "malformed" for line in lines) == log.BURST
    assert sum(line.get("event") == "leg_lost" for line in lines) == 1
    assert lines[-1]["held_back"] == 1_000 - log.BURST


def test_a_kind_passes_again_after_a_while_and_says_how_many_were_held_back() -> None:
    now_s = 0.0
    limit = log.RateLimit(lambda: now_s)
    passed = []
    handler = logger.add(lambda message: passed.append(message.record["extra"].get("held_back")), filter=limit, format="{message}")
    try:
        for _ in range(log.BURST + 5):
            logger.bind(event="x").info("again")
        now_s = log.REFILL_S + 0.1
        logger.bind(event="x").info("again")
        logger.bind(event="x").info("again")
    finally:
        logger.remove(handler)
    assert passed == [None] * log.BURST + [5]
    assert limit.untold() == 1


def test_the_kinds_that_are_remembered_are_bounded() -> None:
    limit = log.RateLimit(lambda: 0.0)
    passed: list[str] = []
    handler = logger.add(passed.append, filter=limit, format="{message}")
    try:
        for number in range(3 * log.KINDS_MAX):
            logger.bind(event=f"kind {number}").info("once")
    finally:
        logger.remove(handler)
    assert len(passed) == 3 * log.KINDS_MAX


def test_a_stalled_standard_error_costs_lines_and_never_time(pipe: tuple[int, int]) -> None:
    """The pipe takes 64 KiB and nobody reads: the caller goes on, and what is missing is counted where it is missing."""
    started = log.start(fd=pipe[1], lines_max=50)
    longest_s = 0.0
    for number in range(3_000):
        begin = time.monotonic()
        logger.bind(event=f"kind {number % 900}").info("x" * 900)
        longest_s = max(longest_s, time.monotonic() - begin)
    dropped = started.dropped
    assert dropped > 1_000
    assert longest_s < 0.5  # a blocked write would last for ever

    lines: list[str] = []

    def read() -> None:
        with os.fdopen(os.dup(pipe[0])) as stream:
            lines.extend(stream)

    threading.Thread(target=read, daemon=True).start()
    deadline = time.monotonic() + 10
    while not any("nobody reads" in line for line in lines) and time.monotonic() < deadline:
        logger.info("after the stall")
        time.sleep(0.01)
    started.close()
    # Behind the last line of the log: what is still on its way through the pipe has then been read.
    os.write(pipe[1], b"end\n")
    until(lambda: "end\n" in lines, "the end of what the log wrote", within_s=10.0)
    told = [int(line.rpartition("dropped=")[2]) for line in lines if "nobody reads" in line]
    assert sum(told) >= dropped


def test_a_process_whose_standard_error_nobody_reads_ends_in_time_and_well() -> None:
    script = """
        from loguru import logger
        from appliance import log
        with log.start(lines_max=1000) as started:
            for number in range(3000):
                logger.bind(event=str(number % 900)).info("x" * 900)
        print(started.dropped)
    """
    begin = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        dropped = int(process.stdout.readline())
        code = process.wait(timeout=20)
    assert (code, dropped > 500) == (0, True)
    assert time.monotonic() - begin < log.CLOSE_S + 8


def test_a_closed_standard_error_is_no_error() -> None:
    script = (
        "import os; os.close(2)\nfrom loguru import logger\nfrom appliance import log\nwith log.start(): logger.error('x')\nprint('ok')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (0, "ok\n")
