"""Deribit: its names, channels, requests and replies (JSON-RPC over websocket and HTTP, docs.deribit.com)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from appliance.exchanges import deribit_messages as messages
from appliance.exchanges.exchange import (
    Acknowledged,
    Control,
    Credits,
    Line,
    LoggedIn,
    NoSession,
    Question,
    Refusal,
    Rejected,
    Rules,
    Session,
    Trouble,
    Volume,
)
from appliance.exchanges.past import Past

if TYPE_CHECKING:
    from appliance.exchanges.decoder import Decoder
    from appliance.exchanges.instruments import Instruments

REST_PATH = "/api/v2"
WS_PATH = "/ws/api/v2"

# Policy page: 500 channels in one subscription message, 32 kB a request. A margin for whatever counts them otherwise.
SUBSCRIBE_CHANNELS_MAX = 500
REQUEST_BYTES_MAX = 32_000

HEARTBEAT_S = 30  # the policy page asks for 30 to 60
RENEW_AT = 0.8  # of a token's life
RENEW_S_MAX = 24 * 3600.0  # asyncio's timers reach farther, a suspended machine does not
RENEW_AGAIN_S, RENEW_PAUSE_S_MIN = 5.0, 0.1
OPENING_TRIES = 3

# 30,000 for subscriptions at 3,000, 50,000 for all else at 500, each refilled by 10,000 a second: kept as one pool of the smaller
# size, of which 5,000 stay for the answers to test requests, which cannot wait.
CREDITS = Credits(room=25_000, per_s=10_000, request=500, subscribe=3_000)


class Deribit:
    """Every product through the wildcard channels of its kinds. A trade's identity is its instrument and `trade_seq` (T14)."""

    name = "deribit"
    rest_url = "https://www.deribit.com"
    by_channel = True
    paths = (REST_PATH, WS_PATH)
    # Weights are requests, of which 20 a second are allowed, and get_instruments once in ten seconds. Connects are not limited.
    rules = Rules(
        connects=60, connects_window_s=300.0, messages_per_s=10, weight_per_minute=300, connections=32, credits=CREDITS,
        past_per_s=4.0,
        # Whatever ends a login ends raw channels without a word, for both legs at once perhaps.
        verify_s=15.0,
    )  # fmt: skip

    # BTC's trade ids rose by 58,524 in 22.5 h of 16 and 17 August 2026, 0.7 a second: this leaves room for all currencies on a busy day.
    # Bytes are those of the local exchange's market; raw channels, which bring more frames than those of 100 ms.
    volume = Volume(trades_per_s=20, record_bytes=550, raw_bytes=55, raw_bytes_again=25)

    def __init__(self, interval: str = "raw", client_id: str | None = None, client_secret: str | None = None) -> None:
        self._interval = interval
        self._client_id = client_id
        self._client_secret = client_secret

    def with_options(self, options: Mapping[str, str | None]) -> "Deribit":
        return Deribit(options["interval"] or "raw", options["client_id"], options["client_secret"])

    def discovery(self) -> Question:
        return Question("/public/get_instruments?currency=any&expired=false", weight=50)

    def instruments(self, body: bytes) -> dict[str, str]:
        """Those that are halted or locked too: they trade again, ids going on."""
        return dict(messages.listed(body))

    def past(self, name: str, from_id: int | None, trades: int) -> Question:
        count = min(trades, self.rules.past_trades)
        path = f"/public/get_last_trades_by_instrument?instrument_name={quote(name)}&count={count}"
        if from_id is None:
            return Question(f"{path}&sorting=desc", weight=1)
        return Question(f"{path}&start_seq={max(from_id, 1)}&end_seq={from_id + count - 1}&sorting=asc", weight=1)

    def past_trades(self, name: str, body: bytes) -> Past:
        return messages.past(name, body)

    def refusal(self, status: int, headers: Mapping[str, str], body: bytes, now_s: float) -> Refusal:
        return messages.refusal(status, headers, body, now_s)

    def streams(self, names: Iterable[str]) -> list[str]:
        """The same whatever is listed: a wildcard brings what is listed later too."""
        return [
            *(f"trades.{kind}.any.{self._interval}" for kind in messages.KINDS),
            *(f"instrument.state.{kind}.any" for kind in messages.KINDS),
            "platform_state",
        ]

    def brings_trades(self, stream: str) -> bool:
        return stream.startswith("trades.")

    def connect_path(self, streams: Sequence[str]) -> tuple[str, list[str]]:
        return "", list(streams)

    def subscribe(self, streams: Sequence[str], requests: Iterator[int]) -> list[tuple[int, bytes]]:
        frames = []
        batch: list[str] = []
        for stream in streams:
            if batch and (len(batch) == SUBSCRIBE_CHANNELS_MAX or len(self._subscribe([*batch, stream], 2**53)) > REQUEST_BYTES_MAX):
                frames.append(batch)
                batch = []
            batch.append(stream)
        if batch:
            frames.append(batch)
        return [(request := next(requests), self._subscribe(batch, request)) for batch in frames]

    def _subscribe(self, channels: Sequence[str], request: int) -> bytes:
        method = "private/subscribe" if isinstance(self.session(), Login) else "public/subscribe"
        return messages.rpc(method, {"channels": list(channels)})(request)

    def list_subscriptions(self, request: int) -> bytes | None:
        return None

    def session(self) -> Session:
        if self._client_id is None or self._client_secret is None:
            return Heartbeats()
        return Login(self._client_id, self._client_secret)

    def control(self, payload: bytes) -> Control | None:
        return messages.control(payload)

    def decoder(self, instruments: "Instruments") -> "Decoder":
        from appliance.exchanges.deribit_decoder import DeribitDecoder  # not loaded by the REST worker

        return DeribitDecoder(instruments)


class Heartbeats(NoSession):
    """A connection without a login: only heartbeats, without which an idle socket is cut (T17)."""

    async def begin(self, line: Line) -> Refusal | None:
        answer = await _answered(line, messages.rpc("public/set_heartbeat", {"interval": HEARTBEAT_S}))
        return None if isinstance(answer, Acknowledged) else _unopened("set_heartbeat", answer)


class Login(Heartbeats):
    """A connection with a login of its own: its token ends with the socket and takes no session slot (scope `connection`)."""

    def __init__(self, client_id: str, client_secret: str) -> None:
        self._client_id = client_id
        self._client_secret = client_secret
        self._token: LoggedIn | None = None
        self._told = False

    async def begin(self, line: Line) -> Refusal | None:
        """Log in, and only then go on: a request sent before the answer is refused (T16)."""
        params = {"grant_type": "client_credentials", "client_id": self._client_id, "client_secret": self._client_secret}
        return await self._log_in(line, params) or await super().begin(line)

    async def keep(self, line: Line) -> Refusal | None:
        """Renew the token in good time, for as long as the connection lives. A failure ends nothing while the token holds."""
        while self._token is not None:
            wait_s = min(self._token.expires_s * RENEW_AT, RENEW_S_MAX)
            left_s = self._token.expires_s - wait_s
            await line.sleep(wait_s)
            while (refusal := await self._renew(line)) is not None:
                pause_s = min(max(refusal.retry_after_s or 0.0, RENEW_AGAIN_S), max(left_s / 2, RENEW_PAUSE_S_MIN))
                if refusal.trouble not in (Trouble.AWAY, Trouble.BANNED) or left_s < pause_s:
                    return refusal
                line.warn("not_renewed", f"the login holds for {left_s:.0f} s more and could not be renewed: {refusal.reason}")
                await line.sleep(pause_s)
                left_s -= pause_s
        return None

    async def _renew(self, line: Line) -> Refusal | None:
        """By the refresh token; by a login where that is dead as well, which always works."""
        assert self._token is not None
        params = {"grant_type": "refresh_token", "refresh_token": self._token.refresh_token}
        answer = await _answered(line, messages.rpc("public/auth", params))
        if isinstance(answer, Rejected) and answer.refusal is None and answer.again_s is None:
            return await self.begin(line)
        return self._take_login(line, answer)

    async def _log_in(self, line: Line, params: Mapping[str, object]) -> Refusal | None:
        return self._take_login(line, await _answered(line, messages.rpc("public/auth", params)))

    def _take_login(self, line: Line, answer: Control | None) -> Refusal | None:
        if not isinstance(answer, LoggedIn):
            return _unopened("login", answer)
        self._token = answer
        if "read_write" in answer.scope and not self._told:
            self._told = True
            line.warn("scope_too_wide", f"the key may do more than read ({answer.scope}); one that reads only is enough")
        return None


EXCHANGE = Deribit()


async def _answered(line: Line, question: Callable[[int], bytes]) -> Control | None:
    answer: Control | None = None
    for _ in range(OPENING_TRIES):
        answer = await line.ask(question)
        if isinstance(answer, Rejected) and answer.again_s is not None and answer.refusal is None:
            await line.sleep(answer.again_s)
        elif answer is not None:
            break
    return answer


def _unopened(what: str, answer: Control | None) -> Refusal:
    """Why a connection could not be opened."""
    if isinstance(answer, Rejected):
        return answer.refusal or Refusal(Trouble.AWAY, f"{what} refused: {answer.reason}")
    return Refusal(Trouble.AWAY, f"{what}: {'no answer' if answer is None else 'an answer to something else'}")
