"""The collector's end of the REST worker: starts it, asks it, starts it again when it dies."""

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loguru import logger

from appliance.exchanges.exchange import Refusal, Trouble
from appliance.exchanges.past import Past
from appliance.feed.children import Child

ANSWER_S = 90.0  # above the worker's own limit for one reply
STOP_S = 1.0


@dataclass(frozen=True, slots=True)
class Listing:
    """The symbols that can be traded now: those that the configuration wants, with their kinds, and the others."""

    wanted: dict[str, str]
    unwanted: list[str]


class RestWorker:
    """One worker process, one question at a time. Loop thread only."""

    def __init__(self, exchange: str, rest_url: str, ca_file: Path | None) -> None:
        self._command = [sys.executable, "-m", "appliance.feed.rest", "--exchange", exchange, "--rest-url", rest_url]
        if ca_file is not None:
            self._command += ["--ca-file", str(ca_file)]
        self._child: Child | None = None
        self._asking = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """Of the process that runs now; None before the first question."""
        return self._child.pid if self._child is not None else None

    async def symbols(self, include: Sequence[str], exclude: Sequence[str]) -> Listing | Refusal:
        """What the exchange lists, or why there is no answer."""
        answer = await self._ask({"ask": "symbols", "include": list(include), "exclude": list(exclude)})
        return answer if isinstance(answer, Refusal) else Listing(answer["wanted"], answer["unwanted"])

    async def past(self, name: str, from_id: int | None, trades: int) -> Past | Refusal:
        """Trades of an instrument from an id on, or the newest, or why there is no answer."""
        answer = await self._ask({"ask": "past", "name": name, "from_id": from_id, "trades": trades})
        return answer if isinstance(answer, Refusal) else Past(answer["lines"], answer["ids"])

    async def stop(self) -> None:
        if self._child is not None:
            await self._child.stop(STOP_S)
            self._child = None

    async def _ask(self, question: dict[str, object]) -> Refusal | dict[str, Any]:
        async with self._asking:
            try:
                if self._child is None:
                    self._child = await Child.start("rest worker", self._command)
                self._child.write_line(json.dumps(question).encode())
                async with asyncio.timeout(ANSWER_S):
                    answer = json.loads(await self._child.read_line())
                    answer["lines"] = [await self._child.read_line() for _ in range(answer.get("messages", 0))]
                if "refusal" in answer:
                    return Refusal(Trouble(answer["refusal"]["trouble"]), answer["refusal"]["reason"], answer["refusal"]["retry_after_s"])
                return dict(answer)
            except (OSError, TimeoutError, ValueError) as error:
                if self._child is None:
                    return Refusal(Trouble.AWAY, f"the REST worker could not be started: {error}")
            # Dead, or stuck: an answer that comes later must not be taken for that of the next question.
            status = await self._child.stop(STOP_S)
            self._child = None
            logger.bind(event="worker_lost").error(f"the REST worker ended with status {status}; it is started again")
            return Refusal(Trouble.AWAY, f"the REST worker ended with status {status}")
