"""What a chunk's exchange tells beside trades: listings, expiries, the state of the platform."""

from collections.abc import Collection

from loguru import logger

from appliance.exchanges.exchange import Announced, InstrumentChanged
from appliance.exchanges.instruments import Instruments
from appliance.feed.history import ENDED, LISTED
from appliance.feed.pipeline import Pipeline

RESERVED = {"record", "exchange", "chunk", "event"}


class News:
    """Told by every leg, written down once. Loop thread only, between socket reads."""

    def __init__(self, chunk: int, pipeline: Pipeline, instruments: Instruments) -> None:
        self._pipeline = pipeline
        self._instruments = instruments
        self._known = len(instruments)  # of these it is not news that they are listed: of an earlier run, or on the exchange's list
        self._list_was_had = False
        self._listed: set[str] = set()
        self._ended: set[str] = set()
        self._states: dict[str, str] = {}
        self._announced: dict[str, object] = {}
        self._log = logger.bind(chunk=chunk)

    def hear(self, news: InstrumentChanged | Announced) -> None:
        if isinstance(news, InstrumentChanged):
            self._change(news)
        elif self._announced.get(news.event) != news.fields:
            self._announced[news.event] = news.fields
            self._log.bind(event=news.event).warning(f"the exchange says: {dict(news.fields)}")
            self._pipeline.status(news.event, **{name: value for name, value in news.fields.items() if name not in RESERVED})

    def take_list(self, listed: Collection[str]) -> None:
        """All names that the exchange lists now. What it has and we had not is no news any more; what we have and it has not has ended."""
        for name in self._instruments.names()[: self._known]:
            if name not in listed and name not in self._ended:
                self._end(name, self._instruments.kind(self._instruments.find(name)), "not listed")
        self._known = len(self._instruments)
        self._list_was_had = True

    def _change(self, news: InstrumentChanged) -> None:
        if self._states.get(news.name) == news.state:
            return
        self._states[news.name] = news.state
        found = self._instruments.find(news.name)
        if news.lists:
            self._ended.discard(news.name)
            if self._list_was_had and not 0 <= found < self._known and news.name not in self._listed:
                self._list(news)
        elif news.ends and found >= 0 and news.name not in self._ended:
            self._end(news.name, news.kind, news.state)

    def _list(self, news: InstrumentChanged) -> None:
        self._listed.add(news.name)
        if self._instruments.wanted is not None and not self._instruments.wanted(news.name):
            return
        # Before the record is written: a trade that comes between must find the baseline.
        self._pipeline.list_new(news.name, news.kind)
        self._pipeline.status(LISTED, asset=news.name, kind=news.kind)
        self._log.bind(event=LISTED).info(f"{news.name} ({news.kind}) was listed")

    def _end(self, name: str, kind: str, state: str) -> None:
        self._ended.add(name)
        if not self._pipeline.end(name):
            return
        self._pipeline.status(ENDED, asset=name, kind=kind, state=state)
        self._log.bind(event=ENDED).info(f"{name} trades no more: {state}")
