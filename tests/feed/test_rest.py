"""Asking the exchange over REST: the worker process against a real server, and when it may be asked."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import pytest

from appliance.errors import ConfigError
from appliance.exchanges.binance import EXCHANGE
from appliance.exchanges.exchange import Refusal, Trouble
from appliance.feed import tls
from appliance.feed.backoff import Backoff
from appliance.feed.discovery import Discovery
from appliance.feed.limits import Limits
from appliance.feed.rest import Rest
from appliance.feed.worker import Listing, RestWorker
from tests.feed.scripted import run
from tests.local_exchange import local_exchange
from tests.streams import running, until


def asked(
    rest_url: str, ca_file: Path | None = None, include: tuple[str, ...] = ("*",), exclude: tuple[str, ...] = ()
) -> Listing | Refusal:
    """One question to a worker of its own."""

    async def ask() -> Listing | Refusal:
        worker = RestWorker("binance", rest_url, ca_file)
        try:
            return await worker.symbols(include, exclude)
        finally:
            await worker.stop()

    return run(ask)


def refused(answer: Listing | Refusal) -> Refusal:
    assert isinstance(answer, Refusal)
    return answer


def test_the_symbols_of_an_exchange_are_asked_for_and_sorted_by_patterns() -> None:
    with local_exchange("--symbols", "50") as exchange:
        everything = asked(exchange.rest_url)
        assert isinstance(everything, Listing)
        assert len(everything.wanted) == 50
        assert everything.unwanted == []
        first, second, *_ = everything.wanted
        some = asked(exchange.rest_url, include=(first, second), exclude=(f"{first[:-1]}?",))
        assert isinstance(some, Listing)
        assert first not in some.wanted
        assert set(some.wanted) | set(some.unwanted) == set(everything.wanted)


@pytest.mark.parametrize(
    ("answer", "trouble", "said"),
    [
        ("301", Trouble.MOVED, "301"),
        ("403", Trouble.FORBIDDEN, "403"),
        ("404", Trouble.MOVED, "retired"),
        ("410", Trouble.MOVED, "410"),
        ("418", Trouble.BANNED, "418"),
        ("429", Trouble.BANNED, "429"),
        ("451", Trouble.BLOCKED, "location"),
        ("500", Trouble.AWAY, "500"),
        ("503", Trouble.AWAY, "503"),
        ("html", Trouble.AWAY, "html"),
        ("truncated", Trouble.AWAY, ""),
    ],
)
def test_every_answer_that_is_no_list_is_named(answer: str, trouble: Trouble, said: str) -> None:
    """T34 among them."""
    with local_exchange("--symbols", "5", "--fault", f"rest:answer={answer},retry_after_s=77") as exchange:
        refusal = refused(asked(exchange.rest_url))
        assert refusal.trouble == trouble
        assert said in refusal.reason
        assert "\n" not in refusal.reason
        if trouble == Trouble.BANNED:
            assert refusal.retry_after_s is not None
            assert refusal.retry_after_s >= 77.0


def test_a_server_that_never_answers_is_away() -> None:
    async def ask(rest_url: str) -> dict[str, str] | Refusal:
        rest = Rest(EXCHANGE, rest_url, None, silence_s=0.3)
        try:
            return await rest.symbols()
        finally:
            await rest.close()

    with local_exchange("--symbols", "5", "--fault", "rest:answer=timeout") as exchange:
        answer = run(lambda: ask(exchange.rest_url))
        assert isinstance(answer, Refusal)
        assert answer.trouble == Trouble.AWAY
        assert "in time" in answer.reason


def test_a_server_that_is_not_there_is_away() -> None:
    with local_exchange("--symbols", "5") as exchange:
        gone = exchange.rest_url
    assert refused(asked(gone)).trouble == Trouble.AWAY
    unknown = refused(asked("https://no-such-host.invalid"))
    assert unknown.trouble == Trouble.AWAY
    assert "no-such-host.invalid" in unknown.reason


def test_a_private_authority_is_trusted_when_named_and_only_then() -> None:
    with local_exchange("--symbols", "5", "--tls") as exchange:
        assert isinstance(asked(exchange.rest_url, exchange.ca_file), Listing)
        stranger = refused(asked(exchange.rest_url))
        assert stranger.trouble == Trouble.INSECURE
        assert "127.0.0.1" in stranger.reason


@pytest.mark.parametrize(
    ("fault", "said"), [("tls_expired", "expired"), ("tls_wrong_name", "127.0.0.1"), ("tls_self_signed", "self-signed")]
)
def test_a_certificate_that_is_not_in_order_is_refused_with_its_reason(fault: str, said: str) -> None:
    with local_exchange("--symbols", "5", "--tls", "--fault", fault) as exchange:
        refusal = refused(asked(exchange.rest_url, exchange.ca_file if fault != "tls_self_signed" else None))
        assert refusal.trouble == Trouble.INSECURE
        assert said in refusal.reason
        assert exchange.stats()["rest"] == {}


def test_plain_text_where_tls_is_expected_is_never_talked_to() -> None:
    with local_exchange("--symbols", "5") as exchange:
        refusal = refused(asked(exchange.rest_url.replace("http://", "https://")))
        assert refusal.trouble == Trouble.INSECURE
        assert "TLS with 127.0.0.1 failed" in refusal.reason
        assert exchange.stats()["rest"] == {}


def test_a_file_that_is_no_certificate_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        tls.trust(tmp_path / "none.pem")
    (tmp_path / "some.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match="no certificate can be read"):
        tls.trust(tmp_path / "some.pem")


def test_a_worker_that_is_killed_is_started_again() -> None:
    async def ask(rest_url: str) -> None:
        worker = RestWorker("binance", rest_url, None)
        try:
            assert isinstance(await worker.symbols(["*"], []), Listing)
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            answers = [await worker.symbols(["*"], []) for _ in range(2)]
            assert isinstance(answers[-1], Listing)
        finally:
            await worker.stop()

    with local_exchange("--symbols", "5") as exchange:
        run(lambda: ask(exchange.rest_url))


PARENT = """
import asyncio, sys
from appliance.feed.worker import RestWorker

async def main():
    worker = RestWorker("binance", sys.argv[1], None)
    await worker.symbols(["*"], [])
    print(worker.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_worker_does_not_outlive_a_collector_that_is_killed() -> None:
    with local_exchange("--symbols", "5") as exchange:
        parent = subprocess.Popen([sys.executable, "-c", PARENT, exchange.rest_url], stdout=subprocess.PIPE)
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert Path(f"/proc/{worker}/cmdline").read_bytes().count(b"appliance.feed.rest")
        parent.kill()
        parent.wait()
        parent.stdout.close()
        until(lambda: not running(worker), "the end of the worker", within_s=10.0)


class Answers:
    """A worker that answers as told, and notes when it was asked."""

    def __init__(self, now_s: Callable[[], float], *answers: Listing | Refusal) -> None:
        self.now_s = now_s
        self.answers = list(answers)
        self.asked_s: list[float] = []

    async def symbols(self, include: object, exclude: object) -> Listing | Refusal:
        self.asked_s.append(self.now_s())
        return self.answers.pop(0)


class Time:
    def __init__(self, now_s: float = 1_790_000_000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        await asyncio.sleep(0)


LISTING = Listing({"BTCUSDT": "Spot"}, [])
AWAY = Refusal(Trouble.AWAY, "HTTP 503")


def conversation(directory: Path, clock: Time, *answers: Listing | Refusal) -> tuple[list[Listing | Refusal], list[float]]:
    """What a discovery yields until its worker has given all its answers, and when it asked."""

    async def talk() -> tuple[list[Listing | Refusal], list[float]]:
        worker = Answers(clock, *answers)
        limits = Limits(directory, EXCHANGE.rules, clock)
        discovery = Discovery(EXCHANGE, worker, limits, Backoff(lambda: 1.0), ["*"], [], 600.0, clock.sleep)  # type: ignore[arg-type]
        heard: list[Listing | Refusal] = []
        async for answer in discovery.answers():
            heard.append(answer)
            if not worker.answers:
                break
        return heard, worker.asked_s

    bound: Callable[[], Awaitable[tuple[list[Listing | Refusal], list[float]]]] = talk
    return run(bound)


def test_an_exchange_that_is_away_is_asked_again_and_again_at_a_growing_distance(tmp_path: Path) -> None:
    """T4."""
    heard, asked_s = conversation(tmp_path, Time(), *[AWAY] * 9, LISTING)
    assert heard[-1] == LISTING
    assert [round(later - earlier, 1) for earlier, later in pairwise(asked_s)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


def test_a_list_is_asked_for_again_every_ten_minutes(tmp_path: Path) -> None:
    _, asked_s = conversation(tmp_path, Time(), LISTING, LISTING)
    assert asked_s[1] - asked_s[0] == 600.0


def test_a_ban_is_waited_out_also_by_the_next_process_which_says_so_without_asking(tmp_path: Path) -> None:
    """T8."""
    clock = Time()
    begun_s = clock.now_s
    heard, asked_s = conversation(tmp_path, clock, Refusal(Trouble.BANNED, "HTTP 418", 600.0))
    assert asked_s == [begun_s]
    clock.now_s = begun_s + 10.0
    heard, asked_s = conversation(tmp_path, clock, LISTING)
    assert isinstance(heard[0], Refusal)
    assert heard[0].trouble == Trouble.BANNED
    assert heard[-1] == LISTING
    assert asked_s[0] >= begun_s + 600.0


def test_many_restarts_do_not_spend_more_weight_than_allowed(tmp_path: Path) -> None:
    """T8: a fresh process has not an empty window."""
    clock = Time()
    asked_s: list[float] = []
    for _ in range(650):
        asked_s += conversation(tmp_path, clock, LISTING)[1]
        clock.now_s += 0.01
    weight, allowed = EXCHANGE.discovery().weight, EXCHANGE.rules.weight_per_minute
    for at_s in asked_s:
        assert weight * sum(at_s <= other_s < at_s + 60.0 for other_s in asked_s) <= allowed


def test_an_empty_list_is_an_exchange_in_maintenance(tmp_path: Path) -> None:
    heard, _ = conversation(tmp_path, Time(), Listing({}, []), LISTING)
    assert isinstance(heard[0], Refusal)
    assert "none that trades" in heard[0].reason
