"""One appliance: composed from its configuration, kept running, drained."""

import asyncio
import logging
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from random import random

import uvloop
from loguru import logger

from appliance import log, preflight
from appliance.clock import unix_ns
from appliance.config import Settings
from appliance.errors import CannotRun, ConfigError, ExchangeRefused, MdcError
from appliance.exchanges.exchange import Refusal, Trouble, open_exchange
from appliance.feed import tls
from appliance.feed.backfill import Backfill
from appliance.feed.backoff import Backoff
from appliance.feed.chunk import Chunk
from appliance.feed.chunks import Chunks
from appliance.feed.discovery import Discovery
from appliance.feed.heartbeat import Heartbeat
from appliance.feed.limits import Limits, unstepped
from appliance.feed.local import Address, LocalExchange
from appliance.feed.notify import Notifier
from appliance.feed.refill import Refill
from appliance.feed.worker import Listing, RestWorker
from appliance.ring import journal, raw_segments
from appliance.ring.ownership import Ownership
from appliance.trade import NS_PER_MS

RETAIN_S = 60.0
CLOCKS_MS = 60_000  # the exchange's clock and ours agree to this, where a new listing is told from an old one that trades again

# SIGTERM is answered within 10 s: the legs' CLOSE, then the flushers, then the children.
DRAIN_S = 10.0
DRAIN_LEGS_S = 3.0
DRAIN_JOURNAL_S = 5.0


def run(settings: Settings, duration_s: float | None) -> int:
    """Collect until SIGTERM, SIGINT or the end of `duration_s`; 0 when all that came is on disk. Raises MdcError, perhaps in a group."""
    with log.start(settings.log.level, settings.log.as_json, secrets=settings.secrets()):
        # picows tells of each connection too.
        logging.getLogger("picows").setLevel(logging.WARNING)
        for check in preflight.examine(settings):
            if check.state == preflight.State.WARN:
                logger.bind(event=check.id).warning(f"{check.id}: {check.found}; wanted {check.wanted}: {check.why}. {check.fix}")
        with (
            Ownership.take(settings.ring.dir, settings.journal.dir, settings.exchange.name),
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(Collector(settings).run(duration_s))
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done: a Ctrl-C too many must not make it a failure
    return 0


class Collector:
    """One running appliance. The directories' Ownership must be held; `run` it once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._exchange = open_exchange(settings.exchange.name).with_options(settings.options())
        self._limits = Limits(settings.ring.dir, self._exchange.rules, unstepped())
        self._places = Chunks.load(settings.journal.dir, self._exchange.name)
        self._notifier = Notifier()
        self._chunks: dict[int, Chunk] = {}
        self._heartbeat = Heartbeat(self._chunks.values, self._notifier)
        self._opened = asyncio.Event()
        self._asked_to_stop = asyncio.Event()
        self._why = ""
        self._local: LocalExchange | None = None
        self._worker: RestWorker | None = None
        self._kept = 0
        self._listed_ms: int | None = None  # when the last list came

    async def run(self, duration_s: float | None) -> None:
        """Collect until asked to stop, then drain. Raises what ended it before that."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number.name)
        if duration_s is not None:
            loop.call_later(duration_s, self._stop, f"{duration_s:g} s are over")
        work = asyncio.create_task(self._work())
        stopped = asyncio.create_task(self._asked_to_stop.wait())
        await asyncio.wait((work, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        try:
            await self._drain(work)
        finally:
            await self._stop_children()
            self._notifier.close()

    def _stop(self, why: str) -> None:
        if not self._asked_to_stop.is_set():
            self._why = why
            self._asked_to_stop.set()

    async def _work(self) -> None:
        """Everything that runs until the end. Never returns."""
        settings = self._settings
        async with asyncio.TaskGroup() as self._tasks:
            self._tasks.create_task(self._heartbeat.run())
            self._tasks.create_task(self._announce())
            self._tasks.create_task(self._retain())
            if settings.journal.raw_hours:
                self._tasks.create_task(self._retain_raw())
            self._address = Address(settings.exchange.rest_url, settings.exchange.ws_url, settings.exchange.ca_file)
            if settings.exchange.local:
                self._local = await LocalExchange.start(
                    self._exchange.name, settings.exchange.local_symbols, settings.exchange.local_rate, settings.exchange.local_seed
                )
                self._tasks.create_task(self._local.watch())
                self._address = self._local.address
            self._trust = tls.trust(self._address.ca_file)
            self._worker = RestWorker(self._exchange.name, self._address.rest_url, self._address.ca_file)
            if settings.feed.backfill:
                backfill = Backfill(
                    self._exchange, self._worker, self._limits, Backoff(random), self._chunks.values, time.time,
                    hours=settings.feed.backfill_hours, trades_max=settings.feed.backfill_max_trades,
                )  # fmt: skip
                self._tasks.create_task(backfill.run())
                self._tasks.create_task(Refill(settings.journal.dir, self._chunks.values).run())
            discovery = Discovery(
                self._exchange,
                self._worker,
                self._limits,
                Backoff(random),
                settings.symbols.include,
                settings.symbols.exclude,
                settings.symbols.list_s,
            )
            async for answer in discovery.answers():
                if isinstance(answer, Refusal):
                    self._go_on_without(answer)
                else:
                    await self._follow(answer)

    def _go_on_without(self, refusal: Refusal) -> None:
        """No list: collect what was collected before, if anything was. Raises ExchangeRefused on 451 at the start."""
        if refusal.trouble == Trouble.BLOCKED and not self._delivered():
            raise ExchangeRefused(f"discovery: {refusal.reason}. No retry helps: run it where the exchange serves, or set other URLs.")
        if self._exchange.by_channel and not self._chunks:
            logger.bind(event="without_list").warning("no list of instruments yet; each is known when it trades")
            self._collect_channels({})
        elif not self._chunks and len(self._places):
            known = [symbol for number in range(len(self._places)) for symbol in self._places.symbols(number)]
            logger.bind(event="without_list").warning(f"no list of symbols yet; going on with the {len(known)} of the last run")
            self._collect(dict.fromkeys(known, "Spot"))

    async def _follow(self, listing: Listing) -> None:
        """Collect what is listed and wanted, and what has its place from earlier."""
        if self._exchange.by_channel:
            if not listing.wanted:
                # What it names may be listed later, or has expired: the channels bring all kinds anyway.
                logger.bind(event="none_wanted").warning(
                    f"none of the {len(listing.unwanted)} listed instruments matches include and exclude; "
                    f"names look like {listing.unwanted[0]!r}"
                )
            self._collect_channels(listing.wanted)
            self._chunks[0].news.take_list({**dict.fromkeys(listing.unwanted, ""), **listing.wanted})
            return
        if not listing.wanted and not len(self._places):
            symbols = self._settings.symbols
            raise ConfigError(
                f"none of the {len(listing.unwanted)} symbols that trade on {self._exchange.name} matches "
                f"[symbols] include = {list(symbols.include)}, exclude = {list(symbols.exclude)}; names look like {listing.unwanted[0]!r}"
            )
        if new := self._places.assign(listing.wanted, self._settings.feed.chunk_symbols):
            try:
                # In a thread: a disk that stalls must not stop what is collected.
                await asyncio.to_thread(self._places.save)
            except CannotRun as error:
                # A disk that takes nothing now: what has its place is collected, the new ones with the next list.
                self._places.forget(new)
                if not len(self._places):
                    raise
                logger.bind(event="not_assigned").error(f"{len(new)} new symbols are not collected yet: {error}")
                known = listing.wanted | dict.fromkeys(listing.unwanted, "Spot")
                self._collect({symbol: kind for symbol, kind in known.items() if symbol in self._places}, is_list=True)
                return
            logger.bind(event="assigned").info(f"{len(new)} new symbols have their place in {len(self._places)} chunks")
        kept = [symbol for symbol in listing.unwanted if symbol in self._places]
        if len(kept) != self._kept:
            self._kept = len(kept)
            logger.bind(event="kept").warning(f"{len(kept)} symbols do not match include and exclude any more; having a place they stay")
        self._collect(listing.wanted | dict.fromkeys(kept, "Spot"), is_list=True)

    def _collect_channels(self, instruments: Mapping[str, str]) -> None:
        """All in chunk 0, whose streams bring whole kinds."""
        if 0 not in self._chunks:
            self._open(0, instruments, instruments)
        if instruments:
            self._chunks[0].add(instruments)
        self._opened.set()

    def _collect(self, symbols: Mapping[str, str], *, is_list: bool = False) -> None:
        """`is_list`: what is not among them is not listed."""
        by_chunk: dict[int, dict[str, str]] = {number: {} for number in self._chunks} if is_list else {}
        for symbol, kind in symbols.items():
            by_chunk.setdefault(self._places.chunk_of(symbol), {})[symbol] = kind
        before_ms = self._listed_ms
        if is_list:
            self._listed_ms = unix_ns() // NS_PER_MS
        for number, listed in sorted(by_chunk.items()):
            if number not in self._chunks:
                if not self._open(number, dict.fromkeys(self._places.symbols(number), "Spot") | listed, () if before_ms else listed):
                    continue
                if before_ms:
                    self._chunks[number].news.begin_late()
            chunk = self._chunks[number]
            if is_list:
                chunk.news.take_list(listed, 0 if before_ms is None else before_ms - CLOCKS_MS)
            chunk.add(listed)
        self._opened.set()

    def _open(self, number: int, symbols: Mapping[str, str], listed: Iterable[str]) -> bool:
        """False: there is no room for it, and that was said."""
        try:
            chunk = Chunk.open(
                number, symbols, listed, self._exchange, self._settings, self._address.ws_url, self._trust,
                self._limits, blocked_is_fatal=lambda: not self._delivered(),
            )  # fmt: skip
        except CannotRun as error:
            if not self._chunks:
                raise
            lacking = len(self._places.symbols(number))
            logger.bind(event="not_collected", chunk=number).error(f"{lacking} symbols are not collected: {error}")
            for other in self._chunks.values():
                other.pipeline.status("chunk_not_collected", not_collected=number, symbols=lacking, reason=str(error))
            return False
        self._chunks[number] = chunk
        self._tasks.create_task(chunk.legs.run())
        return True

    def _delivered(self) -> bool:
        """Whether any leg of any chunk has ever been subscribed."""
        return any(chunk.legs.subscribed.is_set() for chunk in self._chunks.values())

    async def _announce(self) -> None:
        await self._opened.wait()
        for chunk in list(self._chunks.values()):
            await chunk.legs.subscribed.wait()
        self._heartbeat.ready()
        logger.bind(event="ready", chunks=len(self._chunks)).info(f"ready after {self._heartbeat.ready_after_s:.2f} s")

    async def _retain(self) -> None:
        """Delete what the journal need not keep, and say so in what remains."""
        keep = self._settings.journal
        while True:
            await asyncio.sleep(RETAIN_S)
            older_than_ns = time.time_ns() - keep.keep_hours * 3_600_000_000_000 if keep.keep_hours else 0
            for chunk in list(self._chunks.values()):
                try:
                    # In a thread: to unlink a large file can take the disk a while.
                    deleted = await asyncio.to_thread(
                        journal.retire, keep.dir, self._exchange.name, chunk.number, older_than_ns, int(keep.keep_free_gb * 1e9)
                    )
                except OSError as error:
                    logger.bind(event="not_deleted", chunk=chunk.number).error(f"old segments stay: {error}")
                    continue
                if deleted:
                    first, last = deleted[0].name, deleted[-1].name
                    chunk.pipeline.status("segments_deleted", segments=len(deleted), first=first, last=last)
                    logger.bind(event="segments_deleted", chunk=chunk.number).info(f"deleted {len(deleted)} segments, {first} to {last}")

    async def _retain_raw(self) -> None:
        """Delete frames as received that are older than `raw_hours`, and the oldest ones before the journal lacks space."""
        keep = self._settings.journal
        directory = keep.dir / raw_segments.DIRECTORY
        await self._opened.wait()
        while True:
            older_than_ns = time.time_ns() - keep.raw_hours * 3_600_000_000_000
            for chunk in list(self._chunks.values()):
                try:
                    deleted = await asyncio.to_thread(
                        raw_segments.retire, directory, self._exchange.name, chunk.number, older_than_ns, int(keep.keep_free_gb * 1e9)
                    )
                except OSError as error:
                    logger.bind(event="not_deleted", chunk=chunk.number).error(f"old segments of the raw lane stay: {error}")
                    continue
                if deleted:
                    first, last = deleted[0].name, deleted[-1].name
                    chunk.pipeline.status("raw_segments_deleted", segments=len(deleted), first=first, last=last)
            await asyncio.sleep(RETAIN_S / 2)  # before the journal's turn, as a rule

    async def _drain(self, work: asyncio.Task[None]) -> None:
        """Take what is still under way, write it out, end. Raises what ended `work`, or CannotRun when the disk did not take all."""
        self._notifier.stopping(DRAIN_S)
        error: BaseException | None = None
        if work.done():
            error = work.exception()
        else:
            logger.bind(event="draining").info(f"draining: {self._why}")
            async with asyncio.TaskGroup() as tasks:
                for chunk in self._chunks.values():
                    tasks.create_task(chunk.legs.drain(DRAIN_LEGS_S))
            work.cancel()
            await asyncio.wait((work,))
            error = None if work.cancelled() else work.exception()
        late = self._drain_journals(self._why or f"error: {error!r}"[:200])
        if error is not None:
            raise _told_once(error)
        if late:
            raise CannotRun(
                f"the disk did not take all of chunks {late} within {DRAIN_JOURNAL_S:g} s. Nothing committed is lost while "
                f"{self._settings.ring.dir} stays as it is: the next start writes it out."
            )
        logger.bind(event="drained").info("drained: all that was committed is on disk")

    def _drain_journals(self, reason: str) -> list[int]:
        """Flush every chunk; the numbers of those that the disk did not take in time."""
        until_s = time.monotonic() + DRAIN_JOURNAL_S
        late = []
        for chunk in self._chunks.values():
            if chunk.pipeline.raw is not None:
                chunk.pipeline.raw.finish()
        for number, chunk in self._chunks.items():
            try:
                drained = chunk.pipeline.drain(reason, max(0.1, until_s - time.monotonic()))
            except Exception as error:  # one chunk's mistake must not cost the others their last records
                logger.bind(event="drain_failed", chunk=number).opt(exception=error).error("an error of our own ended this chunk's drain")
                drained = False
            if not drained:
                late.append(number)
        return late

    async def _stop_children(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            if self._worker is not None:
                tasks.create_task(self._worker.stop())
            if self._local is not None:
                tasks.create_task(self._local.stop())


def _told_once(error: BaseException) -> BaseException:
    """One error for the operator where several legs met the same; anything unexpected stays whole."""
    leaves = list(_leaves(error))
    expected = [leaf for leaf in leaves if isinstance(leaf, MdcError)]
    return max(expected, key=lambda leaf: leaf.exit_code) if len(expected) == len(leaves) else error


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
