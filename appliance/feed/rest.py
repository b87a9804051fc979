"""The REST worker: a process that asks the exchange so that no large body is ever parsed beside the hot path.

It reads one question a line from standard input and writes one answer a line to standard output, both JSON objects:

    {"ask": "symbols", "include": ["*"], "exclude": ["*BRL"]}
    {"wanted": {"BTCUSDT": "Spot", …}, "unwanted": ["BTCBRL", …]}
    {"ask": "past", "name": "BTCUSDT", "from_id": 6720857582, "trades": 1000}
    {"ids": [6720857582, …], "messages": 1000}             and that many lines, each a message as the websocket brings it
    {"refusal": {"trouble": "banned", "reason": "HTTP 418, …", "retry_after_s": 120.0}}

It keeps no budget and waits for nothing: when to ask is the collector's decision (feed/discovery). It ends with its input.
"""

import argparse
import asyncio
import json
import signal
import ssl
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Required, TypedDict, cast
from urllib.parse import urlsplit

import httpx

from appliance.exchanges.exchange import BadReply, Exchange, Question, Refusal, Trouble, open_exchange
from appliance.exchanges.past import Past
from appliance.feed import tls
from appliance.feed.children import die_with_parent

CONNECT_S = 10.0
SILENCE_S = 20.0  # between two pieces of a reply
REPLY_S = 60.0  # from question to the last byte
REPLY_BYTES_MAX = 64 * 1024 * 1024  # exchangeInfo with all permission sets was 10 MB


class Ask(TypedDict, total=False):
    """One question of the collector's."""

    ask: Required[str]
    include: list[str]
    exclude: list[str]
    name: str
    from_id: int | None
    trades: int


class Rest:
    """The exchange's REST interface: questions out, facts or a Refusal back. Never raises for what the exchange does."""

    def __init__(
        self, exchange: Exchange, rest_url: str, ca_file: Path | None, *, connect_s: float = CONNECT_S, silence_s: float = SILENCE_S
    ) -> None:
        self._exchange = exchange
        self._rest_url = rest_url.rstrip("/").removesuffix(exchange.paths[0]) + exchange.paths[0]
        self._host = urlsplit(rest_url).hostname or rest_url
        self._client = httpx.AsyncClient(
            verify=tls.trust(ca_file),
            timeout=httpx.Timeout(silence_s, connect=connect_s),
            headers={"user-agent": "mdc-appliance"},
            trust_env=False,  # a proxy out of the environment would carry one half of the feed
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def symbols(self) -> dict[str, str] | Refusal:
        """Name and kind of all that can be traded now."""
        body = await self._body(self._exchange.discovery())
        if isinstance(body, Refusal):
            return body
        try:
            return self._exchange.instruments(body)
        except BadReply as error:
            return Refusal(Trouble.AWAY, str(error))

    async def past(self, name: str, from_id: int | None, trades: int) -> Past | Refusal:
        """Trades of an instrument from an id on; None: the newest."""
        body = await self._body(self._exchange.past(name, from_id, trades))
        if isinstance(body, Refusal):
            return body
        try:
            return self._exchange.past_trades(name, body)
        except BadReply as error:
            return Refusal(Trouble.AWAY, str(error))

    async def _body(self, question: Question) -> bytes | Refusal:
        """The body of a reply with status 200, or why there is none."""
        try:
            async with asyncio.timeout(REPLY_S), self._client.stream("GET", self._rest_url + question.path) as reply:
                body = bytearray()
                async for piece in reply.aiter_bytes():
                    body += piece
                    if len(body) > REPLY_BYTES_MAX:
                        return Refusal(Trouble.AWAY, f"a reply above {REPLY_BYTES_MAX} bytes")
        except (TimeoutError, httpx.TimeoutException) as error:
            return Refusal(Trouble.AWAY, f"{self._host} did not answer in time ({type(error).__name__})")
        except httpx.HTTPError as error:
            return self._failure(error)
        if reply.status_code == httpx.codes.OK:
            return bytes(body)
        return self._exchange.refusal(reply.status_code, _lower(reply.headers), bytes(body), time.time())

    def _failure(self, error: httpx.HTTPError) -> Refusal:
        """What a failure below HTTP means. httpx wraps the cause, which alone says it plainly."""
        for cause in _causes(error):
            if isinstance(cause, ssl.SSLError):
                return Refusal(Trouble.INSECURE, tls.reason(cause, self._host))
        return Refusal(Trouble.AWAY, f"{self._host}: {error or type(error).__name__}")


def _lower(headers: httpx.Headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def matches(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether the configuration wants an instrument."""
    return any(fnmatchcase(name, pattern) for pattern in include) and not any(fnmatchcase(name, pattern) for pattern in exclude)


async def _answer(rest: Rest, ask: Ask) -> tuple[dict[str, object], list[bytes]]:
    """The answer, and the messages that follow it."""
    if ask["ask"] == "past":
        past = await rest.past(ask["name"], ask["from_id"], ask["trades"])
        return ({"refusal": asdict(past)}, []) if isinstance(past, Refusal) else ({"ids": past.ids}, past.messages)
    if ask["ask"] != "symbols":
        raise ValueError(f"unknown question {ask['ask']!r}")
    found = await rest.symbols()
    if isinstance(found, Refusal):
        return {"refusal": asdict(found)}, []
    wanted = {symbol: kind for symbol, kind in found.items() if matches(symbol, ask["include"], ask["exclude"])}
    return {"wanted": wanted, "unwanted": sorted(found.keys() - wanted.keys())}, []


async def _serve(rest: Rest) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        while line := await reader.readline():
            answer, messages = await _answer(rest, cast(Ask, json.loads(line)))
            sys.stdout.buffer.write(json.dumps(answer | {"messages": len(messages)}).encode() + b"\n")
            sys.stdout.buffer.writelines(message + b"\n" for message in messages)
            sys.stdout.buffer.flush()
    finally:
        await rest.close()


def main() -> None:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the collector's to answer
    parser = argparse.ArgumentParser(prog="python -m appliance.feed.rest")
    parser.add_argument("--exchange", required=True)
    parser.add_argument("--rest-url", required=True)
    parser.add_argument("--ca-file", type=Path)
    options = parser.parse_args()
    asyncio.run(_serve(Rest(open_exchange(options.exchange), options.rest_url, options.ca_file)))


if __name__ == "__main__":
    main()
