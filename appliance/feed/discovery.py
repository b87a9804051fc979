"""Asking the exchange what it lists: as often as it allows, for ever."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from loguru import logger

from appliance.exchanges.exchange import Exchange, Refusal, Trouble
from appliance.feed.backoff import Backoff
from appliance.feed.limits import Door, Limits
from appliance.feed.worker import Listing, RestWorker

Sleep = Callable[[float], Awaitable[None]]


class Discovery:
    """One exchange's list of symbols. An exchange that is away, slow or banning is waited out."""

    def __init__(
        self,
        exchange: Exchange,
        worker: RestWorker,
        limits: Limits,
        backoff: Backoff,
        include: Sequence[str],
        exclude: Sequence[str],
        again_s: float,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """`again_s`: from one list to the next question; a new listing is collected after this long at the latest."""
        self._exchange = exchange
        self._worker = worker
        self._limits = limits
        self._backoff = backoff
        self._include = include
        self._exclude = exclude
        self._again_s = again_s
        self._sleep = sleep
        self._log = logger.bind(exchange=exchange.name)

    async def answers(self) -> AsyncIterator[Listing | Refusal]:
        """What came of each question, the first at once, each next one when it may be asked."""
        while True:
            answer = await self._ask()
            yield answer
            if isinstance(answer, Refusal):
                delay_s = self._backoff.after_refusal(answer)
                level = "WARNING" if answer.trouble in (Trouble.AWAY, Trouble.BANNED) else "ERROR"
                self._log.bind(event="discovery_refused").log(level, f"discovery: {answer.reason}. Asking again in {delay_s:.1f} s")
                await self._sleep(delay_s)
            else:
                self._backoff.reset()
                await self._sleep(self._again_s)

    async def _ask(self) -> Listing | Refusal:
        if (ban_s := self._limits.banned_s(Door.REST)) > 0:  # of an earlier process, perhaps (T8)
            return Refusal(Trouble.BANNED, f"a ban has {ban_s:.0f} s to go", ban_s)
        weight = self._exchange.discovery().weight
        await self._sleep(self._limits.weight_delay_s(weight))
        self._limits.count_weight(weight)
        answer = await self._worker.symbols(self._include, self._exclude)
        if isinstance(answer, Refusal):
            if answer.trouble == Trouble.BANNED and answer.retry_after_s is not None:
                self._limits.ban(Door.REST, answer.retry_after_s)
        elif not answer.wanted and not answer.unwanted:
            return Refusal(Trouble.AWAY, "the list of symbols holds none that trades")
        return answer
