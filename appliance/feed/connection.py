"""One websocket's life: dialled, subscribed, kept alive, ended.

Every frame that is no trade comes here from the compiled listener (feed/handler). Everything that can go wrong becomes
an `Ending` that says how; what to do about it is the legs' decision.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from time import time
from typing import TYPE_CHECKING, Protocol, cast
from urllib.parse import urlsplit

from aiolimiter import AsyncLimiter
from loguru import logger
from picows import WSCloseCode, WSError, WSHandshakeError, WSListener, WSMsgType, WSTransport, ws_connect

from appliance.exchanges.exchange import (
    Announced,
    Control,
    Demand,
    Exchange,
    InstrumentChanged,
    Refusal,
    Rejected,
    ShuttingDown,
    Subscribed,
    Trouble,
)
from appliance.feed import tls
from appliance.feed.messages import MessageBudget

if TYPE_CHECKING:
    from loguru import Logger

PING, PONG, CLOSE = 0x9, 0xA, 0x8  # RFC 6455, section 5.2
OTHER = 1  # of exchanges/decoder.pxd, as the two below
OUTCOMES = {2: "malformed frame", 3: "trade of a symbol that this chunk does not have", 4: "trade in the shape of another market"}
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
CLOSE_S = 1.0  # for a CLOSE of ours to leave before the socket is dropped
DRAINED = "drained"  # the reason of an ending that we asked for and that took all under way
LATER_TRIES = 10  # before a connection that has nothing yet is given up
REPAIRS = 3  # times that streams which the exchange does not list are asked for again, one after the other


@dataclass(frozen=True, slots=True)
class Pace:
    """The times of one connection, in seconds."""

    dial_s: float = 15.0
    """From the name's look-up to the end of the upgrade."""
    quiet_s: float = 10.0
    """Without any frame, the exchange's pings included: then we ping. It pings every 20 s, so a healthy socket sees few of ours."""
    pong_s: float = 10.0
    answer_s: float = 15.0
    """For an acknowledgement; Binance is known to take 10 s for a long frame."""
    verify_s: float | None = None
    """Between two comparisons with the exchange's own list of subscriptions; None: as the exchange's rules say."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a connection ended. `refusal` is set when it never came to be, or when the exchange will not have it again so soon."""

    reason: str
    life_s: float
    refusal: Refusal | None = None


class Listener(Protocol):
    """What a connection reads of the compiled listener."""

    @property
    def frames(self) -> int:
        """All frames, of every type."""

    @property
    def trades(self) -> int:
        """Frames that held trades, whichever leg was first."""

    def last_ids(self) -> bytes:
        """The last id brought of each instrument, for feed/progress."""

    def last_trade(self) -> tuple[int, int]:
        """When the last trade was received (UNIX ns), and when the exchange says that it was made (ms)."""


class Connection:
    """One connection of one leg: `run` it once. It is the control of its listener. Loop thread only."""

    def __init__(
        self,
        exchange: Exchange,
        ws_url: str,
        streams: Sequence[str],
        listener: Callable[["Connection"], WSListener],
        trust: ssl.SSLContext,
        *,
        hear: Callable[[InstrumentChanged | Announced], None] = lambda news: None,
        lapsed: Callable[[float], None] = lambda since_s: None,
        pace: Pace | None = None,
        credits: AsyncLimiter | None = None,
        log: "Logger | None" = None,
    ) -> None:
        self.opened = asyncio.Event()
        """The exchange took the connection."""
        self.subscribed = asyncio.Event()
        """It lists our streams, or as many as it ever will."""
        self.leaving = asyncio.Event()
        """Another connection should take over: the exchange has announced the end, or we leave."""
        self.leaving_reason = ""
        self.leaving_planned = False
        """It is no sign of trouble that it leaves."""
        self.unlisted: frozenset[str] = frozenset()
        """Streams that the exchange does not list though it was asked for them repeatedly."""
        self.whole_since_s: float | None = None
        """Since when it has had all its streams, as far as the exchange's lists tell (the loop's time); None: it has not."""
        self.verified_s = 0.0
        """When that was last compared."""
        self._exchange = exchange
        self._session = exchange.session()
        self._hear = hear
        self._lapsed = lapsed  # called with `verified_s` of before, once it is whole again
        self._has_lapsed = False
        self._wanted = dict.fromkeys(streams)
        self._listed: set[str] = set()  # by the answers to our requests
        path, self._unasked = exchange.connect_path(streams)
        self._url = ws_url.rstrip("/").removesuffix(exchange.paths[1]) + exchange.paths[1] + path
        self._host = urlsplit(ws_url).hostname or ws_url
        self._make_listener = listener
        self._listener: Listener | None = None
        self._trust = trust
        self._pace = pace or Pace()
        self._log = log or logger
        self._loop = asyncio.get_running_loop()
        self._credits = credits
        self._costs = exchange.rules.credits
        self._budget = MessageBudget(exchange.rules.messages_per_s, self._loop.time)
        self._sending = asyncio.Lock()
        self._transport: WSTransport | None = None
        self._opened_s = 0.0
        self._reason = ""
        self._refused: Refusal | None = None
        self._over = False
        self._requests = count(1)  # numbers of our requests
        self._answers: dict[int, asyncio.Future[Control]] = {}
        self._asked_for_more = asyncio.Event()
        self._pong_came = asyncio.Event()
        self._latest_ping: bytes | None = None

    # What the legs call

    async def run(self) -> Ending:
        """Live until the end; says how it came. Cancelling drops the socket at once."""
        try:
            async with asyncio.timeout(self._pace.dial_s):
                transport, _ = await ws_connect(
                    lambda request, response: self._listen(),
                    self._url,
                    ssl_context=self._trust,
                    disconnect_on_exception=False,  # an error of ours must not cost the exchange's next trades
                    enable_auto_pong=False,  # a PING that we do not see would hide the end of a read from the clock stamp
                    websocket_handshake_timeout=self._pace.dial_s,
                    max_frame_size=MESSAGE_BYTES_MAX,
                    max_redirects=0,
                )
        except (OSError, TimeoutError, WSError) as error:
            return Ending("refused", 0.0, self._refusal(error))
        else:
            if self._transport is None:
                return Ending("refused", 0.0, Refusal(Trouble.AWAY, f"{self._host} closed the connection during the upgrade"))
            return await self._live(transport)
        finally:
            self._over = True  # given up while dialling: what still opens must not live
            if self._transport is not None:
                self._transport.disconnect(graceful=False)

    def end(self, reason: str) -> None:
        """Replace this connection: say CLOSE and drop the socket."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.send_close(WSCloseCode.GOING_AWAY)
            self._loop.call_later(CLOSE_S, self._transport.disconnect, False)

    def leave(self, reason: str, *, planned: bool = False) -> None:
        """Ask for a successor, and live until that has taken over."""
        if not self.leaving.is_set():
            self.leaving_reason = reason
            self.leaving_planned = planned
            self.leaving.set()

    async def answers_ping(self) -> bool:
        """Whether it answers a ping in time."""
        self._pong_came.clear()
        await self._send(lambda transport: transport.send_ping(b"mdc"))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pace.pong_s):
                await self._pong_came.wait()
        return self._pong_came.is_set()

    def ask_again(self, streams: Iterable[str]) -> None:
        """Ask once more for streams that the exchange has taken and does not bring; taken twice, nothing comes twice."""
        self._unasked += [stream for stream in streams if stream in self._wanted and stream not in self._unasked]
        self._asked_for_more.set()

    def refuse(self, refusal: Refusal) -> None:
        """End this connection for what the exchange said; the legs judge when another may be tried."""
        self._refused = self._refused or refusal
        self.end(refusal.reason)

    async def drain(self, timeout_s: float) -> None:
        """Say CLOSE and take all that is still under way: until the exchange's CLOSE or end of file, or the time is up."""
        transport = self._transport
        if transport is None or transport.is_disconnected:
            return
        self._reason = self._reason or DRAINED
        transport.underlying_transport.resume_reading()  # paused for want of room, perhaps: what lies there is spilled now
        transport.send_close(WSCloseCode.OK)
        try:
            async with asyncio.timeout(timeout_s):
                await transport.wait_disconnected()
        except TimeoutError:
            self._log.bind(event="drain_late").warning(
                f"no CLOSE from the exchange within {timeout_s:g} s; not waiting for what is under way"
            )
            transport.disconnect(graceful=False)
        except Exception as error:
            self._log.bind(event="drain_failed").warning(f"the connection ended otherwise than by CLOSE: {error}")

    def subscribe(self, streams: Iterable[str]) -> None:
        """Ask for more streams on the living connection."""
        new = [stream for stream in streams if stream not in self._wanted]
        self._wanted.update(dict.fromkeys(new))
        self._unasked += new
        self._asked_for_more.set()

    @property
    def life_s(self) -> float:
        """Seconds since it was opened."""
        return self._loop.time() - self._opened_s if self.opened.is_set() else 0.0

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_disconnected

    @property
    def trades(self) -> int:
        """Messages with trades that this connection brought, first copies or not."""
        return self._listener.trades if self._listener is not None else 0

    @property
    def is_reading(self) -> bool:
        """False: we ourselves do not read, for want of room."""
        return self._transport is not None and self._transport.underlying_transport.is_reading()

    def last_ids(self) -> bytes:
        """The last id that it brought of each instrument, as feed/progress compares them."""
        return self._listener.last_ids() if self._listener is not None else b""

    def last_trade(self) -> tuple[int, int]:
        """When the last trade that it brought was received (UNIX ns), and when the exchange says that it was made (ms); (0, 0): none."""
        return self._listener.last_trade() if self._listener is not None else (0, 0)

    # What the listener calls

    def on_connected(self, transport: WSTransport) -> None:
        if self._over:
            transport.disconnect(graceful=False)
            return
        self._transport = transport
        self._opened_s = self._loop.time()
        self.opened.set()

    def on_other_frame(self, outcome: int, message_type: int, payload: bytes) -> None:
        if message_type == PING:
            self._pong(payload)
        elif message_type == CLOSE:
            self._closed_by_peer()
        elif message_type == PONG:
            self._pong_came.set()
        else:
            self._read(outcome, payload)

    def on_disconnected(self, transport: WSTransport) -> None:
        """Nothing: `run` waits for the transport's end."""

    def on_violation(self, reason: str) -> None:
        self.end(f"websocket violation: {reason}")

    # Living

    def _listen(self) -> WSListener:
        listener = self._make_listener(self)
        self._listener = cast(Listener, listener)
        return listener

    async def _live(self, transport: WSTransport) -> Ending:
        async with asyncio.TaskGroup() as duties:
            keep = [duties.create_task(self._keep_session()), duties.create_task(self._keep_alive())]
            try:
                await transport.wait_disconnected()
            except Exception as error:  # what picows found wrong with a frame, or an error of our listener
                self._reason = self._reason or f"websocket violation: {error}"
            finally:
                for duty in keep:
                    duty.cancel()
        return Ending(self._reason or "closed without a CLOSE", self._loop.time() - self._opened_s, self._refused)

    async def _keep_alive(self) -> None:
        """Judge the socket by its frames and by an answered ping, never by a quiet stream (T33)."""
        while True:
            seen = self._frames()
            await asyncio.sleep(self._pace.quiet_s)
            if self._frames() != seen:
                continue
            await self._send(lambda transport: transport.send_ping(b"mdc"))
            await asyncio.sleep(self._pace.pong_s)
            if self._frames() == seen:
                self.end(f"no answer to a ping within {self._pace.pong_s:g} s")
                return

    def _frames(self) -> int:
        return self._listener.frames if self._listener is not None else 0

    # What the exchange's session calls

    async def ask(self, question: Callable[[int], bytes]) -> Control | None:
        request = next(self._requests)
        return await self._request(question(request), request, self._costs.request if self._costs else 0)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def warn(self, event: str, text: str) -> None:
        self._log.bind(event=event).warning(text)

    async def _keep_session(self) -> None:
        """Log in where that is needed, then subscribe, and keep both."""
        if await self._has_begun():
            async with asyncio.TaskGroup() as duties:
                duties.create_task(self._keep_subscribed())
                if (refusal := await self._session.keep(self)) is not None:
                    self.refuse(refusal)

    async def _has_begun(self) -> bool:
        refusal = await self._session.begin(self)
        if refusal is not None:
            self.refuse(refusal)
        return refusal is None

    async def _keep_subscribed(self) -> None:
        """Ask for what the URL had no room for, then hold the exchange's own list against ours, now and then again (T5)."""
        repairs = 0
        trades = self.trades
        while True:
            self._asked_for_more.clear()
            unasked, self._unasked = self._unasked, []
            await self._ask_for(unasked)
            missing = await self._missing()
            if missing and repairs < REPAIRS:
                self._log.bind(event="streams_missing").warning(
                    f"{len(missing)} of {len(self._wanted)} streams are not listed by the exchange, asking again: {_some(missing)}"
                )
                repairs += 1
                self._unasked += sorted(missing)
                self._has_lapsed |= self.subscribed.is_set()
                continue
            needed = {stream for stream in self._wanted if self._exchange.brings_trades(stream)}
            if missing and missing >= needed and self.trades == trades:
                reason = f"the exchange lists none of our {len(needed)} streams of trades"
                if self.subscribed.is_set():
                    self.end(reason)
                else:
                    self.refuse(Refusal(Trouble.AWAY, reason))  # each time a little later: it may never list them
                return
            repairs = 0
            self._tell_unlisted(frozenset(missing))
            self._tell_whole(not missing)
            self.subscribed.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pace.verify_s or self._exchange.rules.verify_s):
                    await self._asked_for_more.wait()
            trades = self.trades
            if self._listed:
                # Only an answer to the same request lists them: asked again, nothing is brought twice.
                self._listed.clear()
                self._unasked = list(self._wanted)

    async def _ask_for(self, streams: Sequence[str]) -> None:
        for request, frame in self._exchange.subscribe(streams, self._requests):
            answer = await self._asked_until_taken(frame, request)
            if isinstance(answer, Subscribed):
                self._listed |= answer.streams
            elif isinstance(answer, Rejected) and answer.refusal is not None:
                self.refuse(answer.refusal)
            elif isinstance(answer, Rejected) and answer.login_lost:
                self._log.bind(event="login_lost").warning(f"logging in again on the living connection: {answer.reason}")
                self._hear(Announced("login_lost", {"reason": answer.reason, "noticed_ts_ms": int(time() * 1_000)}))
                self._has_lapsed |= self.subscribed.is_set()
                await self._has_begun()
            elif isinstance(answer, Rejected):
                self._log.bind(event="subscribe_rejected").error(f"SUBSCRIBE refused: {answer.reason}")
            elif answer is None:
                self._log.bind(event="subscribe_unanswered").warning(f"SUBSCRIBE not answered within {self._pace.answer_s:g} s")

    async def _asked_until_taken(self, frame: bytes, request: int) -> Control | None:
        """Ask again what the exchange does not take just now; without end on a connection that serves us otherwise."""
        tries = 0
        while True:
            answer = await self._request(frame, request, self._costs.subscribe if self._costs else 0)
            if not isinstance(answer, Rejected) or answer.again_s is None:
                return answer
            if answer.refusal is not None and not self.subscribed.is_set():
                return answer
            tries += 1
            if tries == LATER_TRIES and not self.subscribed.is_set():
                return Rejected(request, answer.reason, refusal=Refusal(Trouble.AWAY, answer.reason))
            self._log.bind(event="subscribe_later").warning(f"SUBSCRIBE not taken just now, asking again: {answer.reason}")
            await asyncio.sleep(answer.again_s)

    async def _missing(self) -> set[str]:
        """Streams of ours that the exchange does not list; empty, with a warning, when it does not answer."""
        for _ in range(REPAIRS):
            request = next(self._requests)
            frame = self._exchange.list_subscriptions(request)
            if frame is None:
                return set(self._wanted) - self._listed
            answer = await self._request(frame, request, self._costs.request if self._costs else 0)
            if isinstance(answer, Subscribed):
                return set(self._wanted) - answer.streams
        self._log.bind(event="list_unanswered").warning("the exchange does not list our subscriptions; taken as made, asked again later")
        return set()

    def _tell_whole(self, whole: bool) -> None:
        before_s, self.verified_s = self.verified_s, self._loop.time()
        if not whole or self._has_lapsed:
            self.whole_since_s = None
        if self._has_lapsed:
            # When it lost them is not known: at some time since the last look.
            self._has_lapsed = False
            self._lapsed(before_s)
        if whole and self.whole_since_s is None:
            self.whole_since_s = self.verified_s

    def _tell_unlisted(self, missing: frozenset[str]) -> None:
        if missing and missing != self.unlisted:
            self._log.bind(event="streams_unlisted").error(
                f"{len(missing)} of {len(self._wanted)} streams are not delivered by the exchange: {_some(missing)}"
            )
        self.unlisted = missing

    async def _request(self, frame: bytes, request: int, cost: int) -> Control | None:
        """Send a request of that many credits and wait for its answer; None when none comes in time."""
        if self._credits is not None:
            await self._credits.acquire(cost)
        answer: asyncio.Future[Control] = self._loop.create_future()
        self._answers[request] = answer
        try:
            await self._send(lambda transport: transport.send(WSMsgType.TEXT, frame))
            async with asyncio.timeout(self._pace.answer_s):
                return await answer
        except TimeoutError:
            return None
        finally:
            del self._answers[request]

    async def _send(self, send: Callable[[WSTransport], None]) -> None:
        """Send one frame when the budget has room for it beside the pongs."""
        async with self._sending:
            await asyncio.sleep(self._budget.request_delay_s())
            if self._transport is not None:
                self._budget.count()
                send(self._transport)

    def _read(self, outcome: int, payload: bytes) -> None:
        control = self._exchange.control(payload)
        if control is None:
            if outcome != OTHER:
                shown = "an answer with a token" if b"_token" in payload else repr(payload[:200])
                self._log.bind(event=f"frame_{outcome}").warning(f"{OUTCOMES.get(outcome, outcome)}: {shown}")
        elif isinstance(control, ShuttingDown):
            self._log.bind(event="shutting_down").warning(control.reason)
            self.leave(control.reason)  # no lead time is promised (T7)
        elif isinstance(control, Demand):
            self._budget.count()
            if self._transport is not None:
                self._transport.send(WSMsgType.TEXT, control.frame(next(self._requests)))
        elif isinstance(control, InstrumentChanged | Announced):
            self._hear(control)
        elif isinstance(control, Rejected) and self._is_meant(control):
            assert control.refusal is not None
            self.refuse(control.refusal)
        elif control.request is None:
            self._log.bind(event="rejected").error(f"the exchange refused a request of ours: {control.reason}")
        elif (answer := self._answers.get(control.request)) is not None and not answer.done():
            answer.set_result(control)

    def _is_meant(self, rejected: Rejected) -> bool:
        """Whether a refusal that nobody waits for ends this connection: one without a request, or one that says to stay away."""
        if rejected.refusal is None or rejected.request in self._answers:
            return False
        return rejected.request is None or rejected.refusal.trouble == Trouble.BANNED

    def _pong(self, payload: bytes) -> None:
        """Echo a ping. In a flood of pings the latest is answered when the budget has room, as RFC 6455 5.5.3 allows."""
        if self._latest_ping is not None:
            self._latest_ping = payload
        elif (delay_s := self._budget.pong_delay_s()) > 0:
            self._latest_ping = payload
            self._loop.call_later(delay_s, self._pong_latest)
        else:
            self._send_pong(payload)

    def _pong_latest(self) -> None:
        payload, self._latest_ping = self._latest_ping, None
        if payload is not None:
            self._pong(payload)

    def _send_pong(self, payload: bytes) -> None:
        if self._transport is not None:
            self._budget.count()
            self._transport.send_pong(payload)

    def _closed_by_peer(self) -> None:
        transport = self._transport
        if transport is None:
            return
        said = transport.close_handshake.recv
        if said is not None:
            self._reason = self._reason or f"closed by the exchange: {int(said.code)} {said.reason or ''}".rstrip()  # type: ignore[call-overload]
        if not transport.is_close_frame_sent:
            transport.send_close(said.code if said is not None and said.code != WSCloseCode.NO_INFO else WSCloseCode.OK)
        transport.disconnect()
        self._loop.call_later(CLOSE_S, transport.disconnect, False)

    def _refusal(self, error: Exception) -> Refusal:
        """What a dial that failed means."""
        if isinstance(error, WSHandshakeError) and error.response is not None:
            headers = {name.lower(): value for name, value in error.response.headers.items()}
            return self._exchange.refusal(int(error.response.status), headers, error.raw_body or b"", time())
        if isinstance(error, ssl.SSLError):
            return Refusal(Trouble.INSECURE, tls.reason(error, self._host))
        if isinstance(error, TimeoutError):
            return Refusal(Trouble.AWAY, f"{self._host} did not answer within {self._pace.dial_s:g} s")
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Refusal(Trouble.AWAY, f"{self._host}: {said or type(error).__name__}")


def _some(streams: Iterable[str]) -> str:
    """The first few, for a log line."""
    names = sorted(streams)
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
