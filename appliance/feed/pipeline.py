"""One chunk from frame to disk: its ring and journal, what is known of its ids, and its share of the loop's turns."""

import json
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from loguru import logger

from appliance.clock import unix_ns
from appliance.errors import CannotRun
from appliance.exchanges.decoder import Decoder
from appliance.feed import history
from appliance.feed.handler import HotPath
from appliance.feed.ledger import ChunkLedger
from appliance.feed.minute import Minute
from appliance.feed.pressure import Pressure
from appliance.feed.raw_lane import RawLane
from appliance.feed.reopening import reopen
from appliance.feed.window import EventKind, Window
from appliance.ring.layout import BLOCK, PAYLOAD_MAX, RecordType
from appliance.ring.reader import RingReader
from appliance.ring.store import ChunkStore, StoreOptions

SNAPSHOT_AGAIN_S = 1.0  # when it found no room
SNAPSHOT_S = 600.0  # a start replays ten minutes at most beyond a segment's beginning
COUNT_MAX = (1 << 63) - 1  # what a counter shows of more
HOLES_REPEATED = 64  # of this process, newest; an older one's record is on disk by then
SLOW = "the disk took less than the feed brought"
RAW_DRAIN_S = 1.0  # for what the raw lane still has; all chunks' lanes write at the same time
DRAIN_ROOM_S = 0.05  # between two looks at what was read and found no room
WAITING_RECORDS_MAX = 4096
START_ROOM_S = 10.0  # for the flusher to take what a killed writer left in the ring
ROOM_FOR_RECORDS_BYTES = 1 << 20  # what a turn may write, snapshots apart

_STATUS_EVENTS = {kind: event for event, kind in history.STATUS_EVENTS.items()}


class Pipeline:
    """The writer's side of one chunk. Loop thread only; `path` is what its legs' handlers share."""

    def __init__(
        self,
        store: ChunkStore,
        window: Window,
        decoder: Decoder,
        exchange: str,
        chunk: int,
        legs: int,
        capacity_bytes: int,
        gap_grace_ms: int,
        lists_again: bool = False,
    ) -> None:
        self.store = store
        self.exchange = exchange
        self.chunk = chunk
        self._window = window
        self._lists_again = lists_again
        self._grace_ns = gap_grace_ms * 1_000_000
        self._pressure = Pressure(store, legs, capacity_bytes)
        self._holes: deque[tuple[int, int, str]] = deque(maxlen=HOLES_REPEATED)
        self._lost: list[tuple[int, int]] = []  # sequences of holes, until it is known which trades they were
        self._snapshot_sequence = 0
        self._waiting: deque[tuple[RecordType, bytes]] = deque()
        self._snapshot_due_s = time.monotonic() + SNAPSHOT_S
        self._watermark_ns = 0
        self.path = HotPath(decoder, window, store.writer, self._pressure.reserve_bytes, self._pressure)
        self._shed = self.path.shed
        self.ledger = ChunkLedger(window, self.path, self.status)
        self.minute = Minute(self.path, store.writer, legs, self.status)
        self.raw: RawLane | None = None

    @classmethod
    def open(
        cls,
        ring_dir: Path,
        journal_dir: Path | None,
        exchange: str,
        chunk: int,
        decoder: Decoder,
        options: StoreOptions,
        legs: int,
        gap_grace_ms: int,
        adopt: bool = False,
    ) -> "Pipeline":
        """Take over or make the chunk's ring, read back what it knows of the decoder's instruments, and begin to flush.

        `adopt`: also of instruments that the decoder does not have.
        """
        store = ChunkStore.open(ring_dir, journal_dir, exchange, chunk, options)
        window = Window(decoder.instruments)
        ring = RingReader(ring_dir / f"{exchange}_trade_chunk{chunk}.meta")
        try:
            restored = history.restore(window, ring, journal_dir, adopt)
        except OSError as error:
            raise CannotRun(
                f"{error.filename or journal_dir}: {error.strerror}; nothing is begun anew over a journal that cannot be read"
            ) from error
        finally:
            ring.close()
        pipeline = cls(
            store, window, decoder, exchange, chunk,
            legs=legs, capacity_bytes=options.capacity_bytes, gap_grace_ms=gap_grace_ms, lists_again=not adopt,
        )  # fmt: skip
        store.start()
        went_lossy = not store.await_room(options.capacity_bytes // 2, START_ROOM_S)
        pipeline._append(
            RecordType.BOUNDARY, event="start", origin=store.origin.how, previous_sequence=store.origin.last_sequence,
            previous_epoch=store.origin.epoch, replayed_records=restored.records, cut_bytes=store.origin.cut_bytes,
        )  # fmt: skip
        if store.origin.cut_bytes or restored.holes:
            logger.bind(chunk=chunk, event="journal_damaged").warning(
                f"the end of the journal was damaged or torn: {store.origin.cut_bytes} bytes that are no record cut off, "
                f"{sum(last - first + 1 for first, last in restored.holes)} records lost, as hole records say"
            )
        pipeline._lost += restored.recorded + restored.holes
        for first, last in restored.holes:
            pipeline._append(RecordType.HOLE, from_sequence=first, to_sequence=last, reason="found at a start")
        if went_lossy and store.flusher is not None:
            pipeline.status("journal_behind", mode="lossy", reason=store.flusher.error_text if store.flusher.failing else SLOW)
        pipeline._snapshot_due_s = 0.0  # in the first turn that finds room
        pipeline.turn()
        return pipeline

    def add(self, instruments: Iterable[tuple[str, str]]) -> None:
        """Take further instruments, as (name, kind); between socket reads."""
        for name, kind in instruments:
            self._window.instruments.add(name, kind)
        self._window.grow()

    def list_new(self, name: str, kind: str) -> None:
        """Take an instrument that was listed just now: its ids begin at 1, and one that does not come is missing."""
        instrument = self._window.instruments.add(name, kind)
        self._window.grow()
        self._window.listed(instrument, unix_ns())

    def list_since(self, name: str, kind: str, since_ms: int) -> None:
        """Take an instrument that was listed after this exchange time, or again: what was traded before we listen is to be asked for."""
        instrument = self._window.instruments.add(name, kind)
        self._window.grow()
        self._window.listed_since(instrument, since_ms)
        self.ledger.listed(name)

    def has_traded(self, name: str) -> bool:
        return self.ledger.highest(name) is not None

    def has_ended(self, name: str) -> bool:
        """By the exchange's word, and by no trade since."""
        found = self._window.instruments.find(name)
        return found >= 0 and self._window.has_ended(found)

    def end(self, name: str) -> bool:
        """An instrument that we have trades no more; False: that was known."""
        return self._window.end(self._window.instruments.find(name))

    def newest_ms(self) -> int:
        """Exchange time of the newest trade of any instrument; 0 before the first."""
        return self._window.newest_ms()

    def keep_raw(self, lane: RawLane) -> None:
        """Have the frames that come from now on kept as received."""
        self.raw = lane
        self.path.raw = lane.buffer

    def holes_to_refill(self) -> list[tuple[int, int]]:
        """Sequences that the journal lost, as soon as it tells which trades it lost with them: a snapshot behind them is on disk."""
        flushed = self.store.writer.flushed_sequence
        return [hole for hole in self._lost if hole[1] < self._snapshot_sequence <= flushed] if not self.store.writer.lossy else []

    def reopen(self, asset: str, era: int, from_id: int, to_id: int) -> int:
        """Trades that the journal lost: they are missing again, and a gap record says so; how many."""
        instrument = self._window.instruments.find(asset)
        if instrument < 0 or self._window.era(instrument) != era:
            self.ledger.give_up(asset, era, (from_id, to_id), "lost by the journal, and its ids have begun anew since")
            return 0
        now_ns = unix_ns()
        parts = reopen(self._window, instrument, from_id, to_id, now_ns)
        for first, last in parts:
            self._append(
                RecordType.GAP, asset=asset, from_id=first, to_id=last, detected_ts_ms=now_ns // 1_000_000,
                **({"era": era} if era else {}), reopened=True,
            )  # fmt: skip
            self.ledger.gap_told(instrument, era, first, last, now_ns)
        return sum(last - first + 1 for first, last in parts)

    def reopened(self, holes: Iterable[tuple[int, int]]) -> None:
        """All that the journal lost with these sequences is missing again."""
        for first, last in holes:
            self._lost.remove((first, last))
            self.status(history.HOLE_REOPENED, from_sequence=first, to_sequence=last)

    def status(self, event: str, **fields: object) -> None:
        """Write a status record: what happened to the feed, in the data itself."""
        self._append(RecordType.STATUS, event=event, **fields)

    def turn(self) -> dict[str, object] | None:
        """Every 50 ms: gaps, gauges, heartbeat, the journal's pace; the fields of a change of mode, for the log."""
        now_ns = unix_ns()
        writer = self.store.writer
        behind = self.path.catch_up()
        if self.raw is not None:
            self.raw.turn()
        self._window.due(now_ns, self._grace_ns)
        if writer.room_bytes > ROOM_FOR_RECORDS_BYTES:
            self._write_waiting()
            self._write_events()
            self._write_hole()
            turn_due = self.store.turn_due()
            # A snapshot says of a gap that it is recorded: so none before all records are written.
            if (turn_due or time.monotonic() >= self._snapshot_due_s) and not self._waiting and not self._window.events_waiting:
                self._snapshot(turn_due)
        writer.set_counter("gaps_open", self._window.gaps_open)
        # Absurd ids of a faulty feed may count further than 63 bits do.
        writer.set_counter("missing_ids", self._window.missing_ids if self._window.missing_ids >= 0 else COUNT_MAX)
        writer.set_counter("events_lost", self._window.events_lost)
        writer.set_counter("holes_merged", self._window.merged)
        if not behind:
            # Between two reads: whatever was received before now is committed.
            self._watermark_ns = now_ns
        self._tell_shed()
        self.minute.turn()
        writer.beat(self._watermark_ns)
        changed = self._pressure.turn()
        if changed is not None:
            self._append(RecordType.STATUS, **changed)
        return changed

    def drain(self, reason: str, timeout_s: float) -> bool:
        """After the last frame: record what is missing and why it ends, flush, end the flusher. False: the disk did not take it."""
        deadline_s = time.monotonic() + timeout_s
        if self.raw is not None:
            self.raw.stop(min(RAW_DRAIN_S, timeout_s / 2))
        while (waiting := self.path.catch_up()) and time.monotonic() < deadline_s:
            self.store.await_room(self._pressure.reserve_bytes, DRAIN_ROOM_S, lossy=False)
        if waiting:
            # Their ids are missing at the next start, and a gap record says so.
            self.store.writer.add_to("shed", waiting)
        self._window.due(unix_ns(), 0)
        self._write_waiting()
        self._write_events()
        # What the journal has lost shows when it takes data again, and is to be recorded before the end.
        self.store.flush((deadline_s - time.monotonic()) / 2)
        self._write_hole()
        self.minute.end()
        self._append(RecordType.BOUNDARY, event="stop", reason=reason)
        return self.store.drain(max(0.1, deadline_s - time.monotonic()))

    def _tell_shed(self) -> None:
        shed = self.path.shed
        if shed > self._shed:
            self.status("shed", trades=shed - self._shed)
            logger.bind(chunk=self.chunk, event="shed").error(
                f"{shed - self._shed} trades found no room in ring or memory while the disk took nothing; they are asked for over REST"
            )
        self._shed = shed

    def _write_events(self) -> None:
        writer = self.store.writer
        missing: dict[str, int] = {}
        closed = 0
        while writer.room_bytes > ROOM_FOR_RECORDS_BYTES and (events := self._window.take_events(64)):
            for kind, instrument, era, from_id, to_id, detected_ns in events:
                fields = {
                    "asset": self._window.instruments.name(instrument),
                    "from_id": from_id,
                    "to_id": to_id,
                    "detected_ts_ms": detected_ns // 1_000_000,
                } | ({"era": era} if era else {})
                match kind:
                    case EventKind.HOLE_DUE:
                        self._append(RecordType.GAP, **fields)
                        self.ledger.gap_told(instrument, era, from_id, to_id, detected_ns)
                        missing[str(fields["asset"])] = missing.get(str(fields["asset"]), 0) + to_id - from_id + 1
                    case EventKind.JUMP:
                        writer.add_to("jumps")
                        self._append(RecordType.GAP, **fields, jump=True)
                        self.ledger.gap_told(instrument, era, from_id, to_id, detected_ns)
                    case EventKind.HOLE_CLOSED:
                        writer.add_to("gaps_closed")
                        closed += 1
                        self._append(RecordType.GAP_CLOSED, **fields)
                    case _:
                        if kind == EventKind.BASELINE:
                            writer.add_to("baselines")
                        elif kind == EventKind.ERA:
                            writer.add_to("eras")
                        self._append(RecordType.STATUS, event=_STATUS_EVENTS[kind], **fields)
        if missing:
            logger.bind(chunk=self.chunk, event="gap").warning(
                f"no leg brought {sum(missing.values())} ids of {len(missing)} instruments, {min(missing)} among them; recorded as gaps"
            )
        if closed:
            logger.bind(chunk=self.chunk, event="gap_closed").info(f"{closed} gaps are closed")

    def _write_hole(self) -> None:
        flusher = self.store.flusher
        if flusher is None or (hole := flusher.take_hole()) is None:
            return
        while hole is not None:
            self._holes.append(hole)
            self._lost.append(hole[:2])
            hole = flusher.take_hole()
        # All of this process: the record of an earlier one may have stood in the later one. And a snapshot says again what is missing.
        for first, last, why in self._holes:
            self._append(RecordType.HOLE, from_sequence=first, to_sequence=last, reason=why or SLOW)
        self._snapshot_due_s = 0.0

    def _write_waiting(self) -> None:
        while self._waiting:
            try:
                self.store.writer.append(*self._waiting[0])
            except BlockingIOError:
                return
            self._waiting.popleft()

    def _snapshot(self, turns: bool) -> None:
        """Write all that is known of each instrument, if there is room; `turns`: it begins the next segment."""
        writer = self.store.writer
        payloads = history.snapshot(self._window, self.exchange.upper(), self.chunk, self._lists_again, self._lost)
        # Each part may leave most of a block to padding.
        if writer.room_bytes < (len(payloads) + 1) * BLOCK + sum(map(len, payloads)):
            self._snapshot_due_s = time.monotonic() + SNAPSHOT_AGAIN_S
            return
        if turns:
            # Told before anything stands in the block: a flush in between must not run past it.
            self.store.turn(writer.begin_block())
        for payload in payloads:
            self._snapshot_sequence = writer.append(RecordType.SNAPSHOT, payload)
        self._snapshot_due_s = time.monotonic() + SNAPSHOT_S

    def _append(self, type_: RecordType, **fields: object) -> None:
        record = {"record": type_.name.lower(), "exchange": self.exchange.upper(), "chunk": self.chunk} | fields
        if len(self._waiting) >= WAITING_RECORDS_MAX:
            self.store.writer.add_to("shed")
            self._waiting.popleft()
        payload = _encoded(record)
        if len(payload) > PAYLOAD_MAX:
            payload = _encoded({name: value for name, value in record.items() if isinstance(value, int) or len(str(value)) < 1_000})
        self._waiting.append((type_, payload))
        self._write_waiting()


def _encoded(record: dict[str, object]) -> bytes:
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()
