"""What backfilling writes down about ids that it cannot have: once, however often it looks at them again."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from appliance import Status, open_rings
from appliance.exchanges.exchange import Refusal, Trouble, open_exchange
from appliance.exchanges.past import Past
from appliance.feed.backfill import LOOK_AGAIN_S, Backfill
from appliance.feed.backoff import Backoff
from appliance.feed.chunk import Chunk
from appliance.feed.limits import Limits
from appliance.feed.pipeline import Pipeline
from appliance.feed.worker import RestWorker
from tests.feed.test_minute import opened, trade

LAST = 10_001
MOST = 100
LOOKS = 20


class Archive:
    """Trades up to `LAST`, but none older than `oldest`, in the place of the worker and the network behind it."""

    def __init__(self, oldest: int) -> None:
        self._oldest = oldest
        self.asked = 0

    async def past(self, name: str, from_id: int | None, trades: int) -> Past | Refusal:
        self.asked += 1
        first = LAST if from_id is None else max(from_id, self._oldest)
        ids = list(range(first, min(first + trades, LAST + 1)))
        return Past([trade(one) for one in ids], ids)


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    with opened(tmp_path, 1) as one:
        yield one


def given_up(tmp_path: Path) -> list[dict[str, Any]]:
    return [dict(value.fields) for value in open_rings(tmp_path / "ring") if isinstance(value, Status) and value.event == "not_collected"]


async def look_often(pipeline: Pipeline, tmp_path: Path, archive: Archive, now_s: float) -> None:
    """`LOOKS` times as long as it is between two looks at all open gaps, by a clock of our own."""
    exchange = open_exchange("binance")
    clock = SimpleNamespace(now_s=now_s)
    end_s = now_s + LOOKS * LOOK_AGAIN_S

    async def sleep(seconds: float) -> None:
        clock.now_s += max(seconds, 1.0)
        pipeline.turn()
        if clock.now_s > end_s:
            raise asyncio.CancelledError
        await asyncio.sleep(0)

    chunk = cast(Chunk, SimpleNamespace(number=0, pipeline=pipeline, legs=SimpleNamespace(up=0)))
    limits = Limits(tmp_path, exchange.rules, lambda: clock.now_s)
    backfill = Backfill(
        exchange, cast(RestWorker, archive), limits, Backoff(lambda: 0.5), lambda: [chunk], lambda: clock.now_s,
        hours=1_000, trades_max=MOST, sleep=sleep,
    )  # fmt: skip
    with pytest.raises(asyncio.CancelledError):
        await backfill.run()


@pytest.mark.parametrize(
    ("oldest", "told"),
    [(1, [(2, LAST - MOST - 1)]), (LAST - 10, [(2, LAST - MOST - 1), (LAST - MOST, LAST - 11)])],
    ids=["beyond_the_most", "older_than_kept"],
)
def test_what_is_given_up_is_said_once(pipeline: Pipeline, tmp_path: Path, oldest: int, told: list[tuple[int, int]]) -> None:
    pipeline.path.commit_message(trade(1))
    pipeline.path.commit_message(trade(LAST))
    pipeline.turn()
    archive = Archive(oldest)
    (gap,) = pipeline.ledger.open_gaps()
    asyncio.run(look_often(pipeline, tmp_path, archive, gap[-1]))
    assert archive.asked >= 1
    assert [(one["from_id"], one["to_id"]) for one in given_up(tmp_path)] == told


class Refusing(Archive):
    """It refuses what is asked from an id on."""

    def __init__(self, from_id: int) -> None:
        super().__init__(1)
        self._from_id = from_id

    async def past(self, name: str, from_id: int | None, trades: int) -> Past | Refusal:
        if from_id is not None and from_id >= self._from_id:
            return Refusal(Trouble.AWAY, "HTTP 400: '-1121 Invalid symbol.'")
        return await super().past(name, from_id, trades)


def test_a_question_that_is_refused_for_ever_keeps_no_other_waiting(pipeline: Pipeline, tmp_path: Path) -> None:
    for number in (1, 50, 51, 100):
        pipeline.path.commit_message(trade(number))
    pipeline.turn()
    *_, newest = pipeline.ledger.open_gaps()
    asyncio.run(look_often(pipeline, tmp_path, Refusing(51), newest[-1]))
    assert [gap[2:4] for gap in pipeline.ledger.open_gaps()] == [(52, 99)]


def test_of_a_span_that_was_given_up_in_part_the_rest_is_said(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.ledger.give_up("BTCUSDT", 0, (10, 20), "first")
    pipeline.ledger.give_up("BTCUSDT", 0, (10, 20), "again")
    pipeline.ledger.give_up("BTCUSDT", 0, (5, 25), "more")
    pipeline.ledger.give_up("BTCUSDT", 1, (10, 20), "another era")
    assert [(one["from_id"], one["to_id"], one["reason"]) for one in given_up(tmp_path)] == [
        (10, 20, "first"), (5, 9, "more"), (21, 25, "more"), (10, 20, "another era"),
    ]  # fmt: skip
