"""Asking the exchange's past for what the feed did not bring, at the exchange's pace, one question at a time."""

import asyncio
import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import count

from loguru import logger

from appliance.exchanges.exchange import Exchange, Refusal, Trouble
from appliance.feed.backoff import Backoff
from appliance.feed.chunk import Chunk
from appliance.feed.ledger import ChunkLedger
from appliance.feed.limits import Door, Limits
from appliance.feed.quest import CAUGHT_UP_S, First, Gap, Successors, Wanted
from appliance.feed.worker import RestWorker

LOOK_S = 0.25  # between two looks at what is missing
LOOK_AGAIN_S = 600.0  # at gaps that found no room, or were given up for now
PART_BYTES = 8 * 1024
SUBSCRIBE_S = 15.0  # from a listing to our subscription; the exchange may take 10 s to acknowledge
QUESTS_MAX = 10_000  # under way; further gaps wait in the window, where they are known anyway

Quest = Gap | Successors | First
GapKey = tuple[int, str, int, int, int]
"""Chunk, asset, era, first and last id as told."""
Sleep = Callable[[float], Awaitable[None]]


class Backfill:
    """One exchange's questions about the past, for all chunks. Loop thread only; `run` it once."""

    def __init__(
        self,
        exchange: Exchange,
        worker: RestWorker,
        limits: Limits,
        backoff: Backoff,
        chunks: Callable[[], Iterable[Chunk]],
        now_s: Callable[[], float],
        *,
        hours: float,
        trades_max: int,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._exchange = exchange
        self._worker = worker
        self._limits = limits
        self._backoff = backoff
        self._chunks = chunks
        self._now_s = now_s
        self._retained_s = hours * 3600
        self._trades_max = trades_max
        self._sleep = sleep
        self._gaps: deque[Gap] = deque()  # the newest last, and asked first
        self._successors: deque[Successors | First] = deque()
        self._later: list[tuple[float, int, Quest]] = []  # by when they may be asked again
        self._under_way: dict[Quest, GapKey] = {}
        self._given_up: set[GapKey] = set()  # said once, not at each look
        self._numbers = count()
        self._looked_s: dict[int, float] = {}
        self._log = logger.bind(exchange=exchange.name)

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            self._look()
            quest = self._next()
            wanted = quest.question() if quest is not None else None
            if quest is None:
                await self._sleep(LOOK_S)
            elif wanted is not None:
                await self._pursue(quest, wanted)
            else:
                self._end(quest)

    def _look(self) -> None:
        """Take up what has come to be missing."""
        for chunk in self._chunks():
            ledger = chunk.pipeline.ledger
            for gap in ledger.take_gaps():
                self._add_gap(chunk, *gap)
            self._ask_for_the_listed(ledger)
            if chunk.legs.up:
                self._ask_for_successors(ledger)
            if self._now_s() - self._looked_s.get(chunk.number, 0.0) >= LOOK_AGAIN_S:
                self._looked_s[chunk.number] = self._now_s()
                known = {*self._under_way.values(), *self._given_up}
                for gap in ledger.open_gaps():
                    if (chunk.number, *gap[:4]) not in known:
                        self._add_gap(chunk, *gap)

    def _ask_for_the_listed(self, ledger: ChunkLedger) -> None:
        heard_s = self._now_s() + SUBSCRIBE_S
        for asset, known in ledger.take_listed():
            trades_max = self._exchange.rules.past_trades
            if known is None:
                self._successors.append(First(ledger, asset, trades_max, heard_s))
            else:
                self._successors.append(Successors(ledger, asset, known, trades_max, heard_s))

    def _ask_for_successors(self, ledger: ChunkLedger) -> None:
        """Of all that nobody listened to, the most active first: those that traded last."""
        for asset, known in ledger.take_deaf():
            quest = Successors(ledger, asset, known, self._exchange.rules.past_trades, self._now_s())
            if known is None:
                # A baseline for what is quiet. Of what trades the feed itself brings it, and may be behind the database.
                self._again(quest, CAUGHT_UP_S)
            else:
                self._successors.append(quest)

    def _add_gap(self, chunk: Chunk, asset: str, era: int, from_id: int, to_id: int, opened_s: float) -> None:
        if len(self._under_way) >= QUESTS_MAX:
            return
        key = (chunk.number, asset, era, from_id, to_id)
        ledger = chunk.pipeline.ledger
        if to_id - from_id >= self._trades_max:
            ledger.give_up(asset, era, (from_id, to_id - self._trades_max), f"beyond {self._trades_max:,} trades of one gap")
            from_id = to_id - self._trades_max + 1
        if self._now_s() - opened_s > self._retained_s:
            ledger.give_up(asset, era, (from_id, to_id), f"missing for more than {self._retained_s / 3600:g} h")
            self._given_up.add(key)
            return
        gap = Gap(ledger, asset, era, (from_id, to_id), opened_s, self._exchange.rules.past_trades)
        self._under_way[gap] = key
        self._gaps.append(gap)

    def _end(self, quest: Quest) -> None:
        self._under_way.pop(quest, None)

    def _next(self) -> Quest | None:
        if self._later and self._later[0][0] <= self._now_s():
            return heapq.heappop(self._later)[2]
        if self._gaps:
            return self._gaps.pop()
        return self._successors.popleft() if self._successors else None

    async def _pursue(self, quest: Quest, wanted: Wanted) -> None:
        """Ask one question, when it may be asked."""
        question = self._exchange.past(wanted.asset, wanted.from_id, wanted.trades)
        await self._sleep(max(self._limits.banned_s(Door.REST), self._limits.weight_delay_s(question.weight)))
        self._limits.count_weight(question.weight)
        answer = await self._worker.past(wanted.asset, wanted.from_id, wanted.trades)
        if isinstance(answer, Refusal):
            if answer.trouble == Trouble.BANNED and answer.retry_after_s is not None:
                self._limits.ban(Door.REST, answer.retry_after_s)
            delay_s = self._backoff.after_refusal(answer)
            level = "WARNING" if answer.trouble in (Trouble.AWAY, Trouble.BANNED) else "ERROR"
            self._log.bind(event="backfill_refused").log(level, f"past trades: {answer.reason}. Asking again in {delay_s:.1f} s")
            self._put_last(quest)
            await self._sleep(delay_s)  # what refuses one question refuses all
            return
        self._backoff.reset()
        for part in _parts(answer.messages):
            quest.ledger.take(part)
            await self._sleep(0)  # the feed goes first
        again_s = quest.answer(wanted, answer.ids, self._now_s(), self._retained_s)
        if again_s is not None:
            self._again(quest, again_s)
        else:
            self._end(quest)
        await self._sleep(1 / self._exchange.rules.past_per_s)

    def _put_last(self, quest: Quest) -> None:
        """Behind all others: if it was refused for what it asks, of an instrument that is gone, they must not wait for it."""
        if isinstance(quest, Gap):
            self._gaps.appendleft(quest)
        else:
            self._successors.append(quest)

    def _again(self, quest: Quest, delay_s: float) -> None:
        heapq.heappush(self._later, (self._now_s() + delay_s, next(self._numbers), quest))


def _parts(messages: Sequence[bytes]) -> Iterator[list[bytes]]:
    """So much at a time that committing it holds up nobody."""
    part: list[bytes] = []
    for message in messages:
        part.append(message)
        if sum(map(len, part)) >= PART_BYTES:
            yield part
            part = []
    yield part
