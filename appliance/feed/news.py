"""What a chunk's exchange tells beside trades: listings, expiries, the state of the platform."""

from loguru import logger

from appliance.exchanges.exchange import Announced, InstrumentChanged
from appliance.exchanges.instruments import Instruments
from appliance.feed.history import LISTED
from appliance.feed.pipeline import Pipeline


class News:
    """Told by every leg, written down once. Loop thread only, between socket reads."""

    def __init__(self, chunk: int, pipeline: Pipeline, instruments: Instruments) -> None:
        self.all_listed = False
        """Whether the exchange's list was had: only then is a name that it did not hold a new one, whose ids begin at 1."""
        self._pipeline = pipeline
        self._instruments = instruments
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

    def _change(self, news: InstrumentChanged) -> None:
        if self._states.get(news.name) == news.state:
            return
        self._states[news.name] = news.state
        if news.lists and self.all_listed and news.name not in self._instruments:
            # Before the record is written: a trade that comes between must find the baseline.
            self._pipeline.list_new(news.name, news.kind)
            self._pipeline.status(LISTED, asset=news.name, kind=news.kind)
            self._log.bind(event=LISTED).info(f"{news.name} ({news.kind}) was listed")
        elif news.ends and news.name in self._instruments:
            self._pipeline.status("ended", asset=news.name, kind=news.kind, state=news.state)
            self._log.bind(event="ended").info(f"{news.name} trades no more: {news.state}")


RESERVED = {"record", "exchange", "chunk", "event"}
