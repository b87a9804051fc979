"""One chunk at work: its pipeline and its legs."""

import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import random
from typing import Any

from loguru import logger

from appliance.clock import unix_ns
from appliance.config import Settings
from appliance.exchanges.exchange import Exchange
from appliance.exchanges.instruments import Instruments
from appliance.feed.backoff import Backoff
from appliance.feed.connection import Connection
from appliance.feed.handler import FeedHandler
from appliance.feed.legs import Legs
from appliance.feed.limits import Limits
from appliance.feed.news import News
from appliance.feed.pipeline import Pipeline
from appliance.feed.raw_lane import RawLane
from appliance.feed.rest import matches
from appliance.ring.store import StoreOptions
from appliance.trade import NS_PER_MS

_MODE_CHANGED = {
    "journal_behind": (
        "the journal's disk does not take what comes (`reason`); the ring goes on without it, and what the journal lacks in the end is "
        "a hole record. Look at the disk, its free space and the kernel's log; writing goes on by itself when the disk takes data again"
    ),
    "journal_caught_up": "the journal's disk takes data again, and the journal has caught up",
}


class Chunk:
    """A chunk that is being collected. Loop thread only; `legs.run()` is the caller's task."""

    def __init__(self, number: int, pipeline: Pipeline, legs: Legs, exchange: Exchange, news: News) -> None:
        self.number = number
        self.news = news
        self.pipeline = pipeline
        self.legs = legs
        self._exchange = exchange

    @classmethod
    def open(
        cls,
        number: int,
        symbols: Mapping[str, str],
        listed: Iterable[str],
        exchange: Exchange,
        settings: Settings,
        ws_url: str,
        trust: ssl.SSLContext,
        limits: Limits,
        *,
        blocked_is_fatal: Callable[[], bool],
    ) -> "Chunk":
        """Open ring and journal for all `symbols` (name and kind) that have their place here, and legs for the `listed` ones.

        Raises CannotRun.
        """
        instruments = Instruments(exchange.name.upper())
        instruments.wanted = lambda name: matches(name, settings.symbols.include, settings.symbols.exclude)
        for symbol, kind in symbols.items():
            instruments.add(symbol, kind)
        options = StoreOptions(
            capacity_bytes=settings.ring.capacity_mb << 20,
            segment_bytes=settings.journal.segment_mb << 20,
            segment_minutes=settings.journal.segment_minutes,
            flush_interval_ms=settings.journal.flush_interval_ms,
            sync_writes=settings.journal.sync_writes,
            mlock=settings.ring.mlock,
        )
        journal_dir = settings.journal.dir if settings.journal.enabled else None
        pipeline = Pipeline.open(
            settings.ring.dir,
            journal_dir,
            exchange.name,
            number,
            exchange.decoder(instruments),
            options,
            legs=settings.feed.legs,
            gap_grace_ms=settings.feed.gap_grace_ms,
            adopt=exchange.by_channel,
        )
        if settings.journal.raw_hours:
            pipeline.keep_raw(
                RawLane.open(
                    settings.journal.dir,
                    exchange.name,
                    number,
                    pipeline.store.writer,
                    pipeline.status,
                    buffer_bytes=settings.journal.raw_buffer_mb << 20,
                    segment_bytes=settings.journal.segment_mb << 20,
                    keep_free_bytes=int(settings.journal.keep_free_gb * 1e9 / 2),
                )
            )
        log = logger.bind(chunk=number)
        connected: set[int] = set()
        news = News(number, pipeline, instruments, first_id_known=exchange.by_channel)

        def connect(leg: int, streams: Sequence[str]) -> Connection:
            def listen(control: Connection) -> FeedHandler:
                return FeedHandler(pipeline.path, leg, control)

            return Connection(
                exchange, ws_url, streams, listen, trust,
                hear=news.hear, lapsed=legs.doubt, credits=limits.credits, log=log.bind(leg=leg),
            )  # fmt: skip

        def tell(event: str, **fields: Any) -> None:
            pipeline.status(event, **fields)
            if event == "connected":
                counters = pipeline.store.writer
                counters.add_to("connects")
                counters.add_to(f"leg{fields['leg']}_connects")
                if fields["leg"] in connected:
                    counters.add_to("reconnects")
                    counters.add_to(f"leg{fields['leg']}_reconnects")
                connected.add(fields["leg"])
            elif event == "lost":
                pipeline.store.writer.add_to(f"leg{fields['leg']}_losses")

        def streams_of(instrument: int) -> tuple[str, list[str]]:
            name = instruments.name(instrument)
            return name, exchange.streams([name])

        legs = Legs(
            number, settings.feed.legs, exchange.streams(listed), connect, limits, tell,
            lambda: Backoff(random), blocked_is_fatal=blocked_is_fatal, deaf=pipeline.ledger.go_deaf,
            rollover_s=settings.feed.rollover_hours * 3_600.0, streams_of=streams_of,
            newest_ms=pipeline.newest_ms, has_ended=lambda instrument: pipeline.has_ended(instruments.name(instrument)),
            lag_alarm_ms=settings.feed.lag_alarm_ms,
        )  # fmt: skip
        log.bind(event="chunk_open").info(f"chunk of {len(legs.streams)} streams, {len(instruments)} instruments with its former ones")
        return cls(number, pipeline, legs, exchange, news)

    def add(self, symbols: Mapping[str, str]) -> None:
        """Collect those of the symbols (name and kind) that are not collected yet."""
        self.pipeline.add(symbols.items())
        if self._exchange.by_channel:
            return  # its streams bring whatever is listed
        new = [symbol for symbol in symbols if not self.legs.streams.keys() >= set(self._exchange.streams([symbol]))]
        if new:
            self.legs.subscribe(self._exchange.streams(new))
            self.pipeline.status("subscribing", symbols=new)

    def turn(self) -> None:
        """The loop's turn: each 50 ms, between two reads."""
        counters = self.pipeline.store.writer
        counters.set_counter("legs_up", self.legs.up)
        now_ms = unix_ns() // NS_PER_MS
        lag = self.legs.lag
        lags_ms = lag.by_leg()
        # Clocks that do not agree may make a lag negative.
        counters.set_counter("lag_ms", max(0, lag.lag_ms or 0))
        counters.set_counter("lag_usual_ms", max(0, lag.usual_ms or 0))
        for leg, age_s in enumerate(self.legs.ages_s()):
            counters.set_counter(f"leg{leg}_opened_ms", 0 if age_s is None else now_ms - round(age_s * 1_000))
            counters.set_counter(f"leg{leg}_lag_ms", max(0, lags_ms.get(leg, 0)))
        changed = self.pipeline.turn()
        if changed is not None:
            logger.bind(chunk=self.number, **changed).warning(_MODE_CHANGED[str(changed["event"])])
