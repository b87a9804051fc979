"""What a chunk's exchange tells beside trades: listings, expiries, the state of the platform."""

from collections.abc import Iterable, Mapping

from loguru import logger

from appliance.exchanges.exchange import Announced, InstrumentChanged
from appliance.exchanges.instruments import UNLISTED_MAX, Instruments
from appliance.feed.history import ENDED, LISTED
from appliance.feed.pipeline import Pipeline

RESERVED = {"record", "exchange", "chunk", "event"}


class News:
    """Told by every leg, written down once. Loop thread only, between socket reads."""

    def __init__(self, chunk: int, pipeline: Pipeline, instruments: Instruments, *, first_id_known: bool = True) -> None:
        """`first_id_known`: the ids of what is listed begin at 1, and nothing is listed twice; else its first trades are asked for."""
        self._first_id_known = first_id_known
        self._pipeline = pipeline
        self._instruments = instruments
        # Of these it is no news that they are listed: of an earlier run, or on the exchange's list.
        self._known = set(instruments.names())
        # The exchange is believed these, and beside them so many names that only the wire brings.
        self._believed = set(self._known)
        self._believe(())
        self._list_was_had = False
        self._ended: set[str] = set()
        self._states: dict[str, str] = {}
        self._announced: dict[tuple[str, object], object] = {}
        self._log = logger.bind(chunk=chunk)

    def begin_late(self) -> None:
        """Its chunk begins while others run: what has never traded here was listed since the list before."""
        self._known = {name for name in self._known if self._pipeline.has_traded(name)}
        self._list_was_had = True

    def hear(self, news: InstrumentChanged | Announced) -> None:
        if isinstance(news, InstrumentChanged):
            self._change(news)
            return
        about = (news.event, news.subject)
        if self._announced.get(about) != news.fields:
            self._announced[about] = news.fields
            self._log.bind(event=news.event).warning(f"the exchange says: {dict(news.fields)}")
            self._pipeline.status(news.event, **{name: value for name, value in news.fields.items() if name not in RESERVED})

    def take_list(self, listed: Mapping[str, str], since_ms: int = 0) -> None:
        """All names that the exchange lists now, with the kinds of those that are wanted. `since_ms`: the time of the list before this one.

        What it has and the last one had not was listed meanwhile, even if no leg heard of it; what we have and it has not has ended.
        """
        for name in sorted(self._known - listed.keys() - self._ended):
            # Of an earlier run may be names that have their place and nothing else.
            if self._list_was_had or self._pipeline.has_traded(name):
                self._end(name, "not listed")
        for name in sorted(listed):
            is_new = self._list_was_had and name not in self._known
            if is_new or (not self._first_id_known and name in self._known and self._pipeline.has_ended(name)):
                self._list(name, listed[name], since_ms)
        self._known = set(listed)
        self._list_was_had = True
        self._believe(listed)

    def _believe(self, listed: Iterable[str]) -> None:
        self._believed |= set(listed).intersection(self._instruments.names())
        self._instruments.names_max = len(self._believed) + UNLISTED_MAX

    def _change(self, news: InstrumentChanged) -> None:
        if self._states.get(news.name) == news.state:
            return
        self._states[news.name] = news.state
        if news.lists:
            self._ended.discard(news.name)
            if self._list_was_had and news.name not in self._known:
                self._list(news.name, news.kind)
        elif news.ends and news.name not in self._ended:
            self._end(news.name, news.state)

    def _list(self, name: str, kind: str, since_ms: int = 0) -> None:
        self._known.add(name)
        self._ended.discard(name)
        if not self._is_wanted(name):
            return
        if not self._first_id_known:
            # Its record first: at a start the trades behind it find that their beginning is not known.
            self._pipeline.status(LISTED, asset=name, kind=kind, since_ts_ms=since_ms)
            self._pipeline.list_since(name, kind, since_ms)
            self._log.bind(event=LISTED).info(f"{name} ({kind}) was listed")
            return
        # Before the record is written: a trade that comes between must find the baseline.
        self._pipeline.list_new(name, kind)
        self._pipeline.status(LISTED, asset=name, kind=kind)
        self._log.bind(event=LISTED).info(f"{name} ({kind}) was listed")

    def _end(self, name: str, state: str) -> None:
        self._ended.add(name)
        found = self._instruments.find(name)
        if found < 0 or not self._is_wanted(name) or not self._pipeline.end(name):
            return
        self._pipeline.status(ENDED, asset=name, kind=self._instruments.kind(found), state=state)
        self._log.bind(event=ENDED).info(f"{name} trades no more: {state}")

    def _is_wanted(self, name: str) -> bool:
        return self._instruments.wanted is None or self._instruments.wanted(name)
