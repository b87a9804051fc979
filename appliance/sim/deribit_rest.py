"""The local Deribit's questions and answers, the same over HTTP and over a websocket: lists, status, past trades."""

import json
from collections.abc import Callable, Mapping

from appliance.sim.deribit_listing import Listing
from appliance.sim.deribit_render import NotificationRenderer
from appliance.sim.deribit_rpc import Refused
from appliance.sim.dialect import Printed, PrintedTrade
from appliance.sim.faults import Faults

ROWS_MAX = 1_000
ROWS_MAX_OF_HISTORY = 10_000
ALL_ROWS = 1 << 20
DAY_US = 24 * 3600 * 1_000_000
SAME_MS_MAX = 256  # trades of one instrument in one millisecond that are looked for beside a bound
VERSION = b'{"version":"1.2.26"}'

Params = Mapping[str, object]


class Questions:
    """What anyone may ask. `history`: as the history host answers, which keeps everything and knows no nanoseconds."""

    def __init__(self, listing: Listing, printed: Printed, renderer: NotificationRenderer | None, faults: Faults, *, history: bool) -> None:
        self._listing = listing
        self._printed = printed
        self._renderer = renderer
        self._faults = faults
        self._history = history
        self._methods: dict[str, Callable[[Params, float], bytes]] = {
            "public/get_instruments": self._instruments,
            "public/get_last_trades_by_instrument": self._last_trades,
            "public/get_last_trades_by_instrument_and_time": self._last_trades,
            "public/get_time": lambda params, now_s: b"%d" % int(now_s * 1_000),
            "public/status": lambda params, now_s: b'{"locked":"false","locked_indices":[]}',
            "public/test": lambda params, now_s: VERSION,
            "public/hello": lambda params, now_s: VERSION,
        }

    def __contains__(self, method: object) -> bool:
        return method in self._methods

    def result(self, method: str, params: Params, now_s: float) -> bytes:
        """The answer's `result`, as JSON. Parameters may be text, as in a URL. Raises Refused."""
        return self._methods[method](params, now_s)

    def _instruments(self, params: Params, now_s: float) -> bytes:
        kind = params.get("kind")
        expired = str(params.get("expired", "false")).lower() == "true"
        return self._listing.body(str(params.get("currency", "any")), None if kind is None else str(kind), expired)

    def _last_trades(self, params: Params, now_s: float) -> bytes:
        name = str(params.get("instrument_name", ""))
        if name not in self._listing:
            raise Refused(-32602, param="instrument_name", reason="wrong format")
        count = min(_number(params, "count") or 10, ROWS_MAX_OF_HISTORY if self._history else ROWS_MAX)
        first, last = _number(params, "start_seq"), _number(params, "end_seq")
        since_ms, until_ms = _number(params, "start_timestamp"), _number(params, "end_timestamp")
        limits = self._faults.limits
        until_us = int(now_s * 1_000_000) - limits.rest_lag_ms * 1_000
        if self._history:
            rows = self._widened(name, first, last, until_us)
        else:
            rows = self._printed.rows(name, first or 0, ALL_ROWS, until_us)
            # The main host forgets after a day, without a word.
            rows = [row for row in rows if (last is None or row.trade_id <= last) and row.trade_us > until_us - DAY_US]
        rows = [row for row in rows if (since_ms or 0) <= row.trade_us // 1_000 <= (until_ms if until_ms is not None else 1 << 62)]
        more = len(rows) > count
        rows = rows[:count] if first is not None or since_ms is not None else rows[-count:]
        if params.get("sorting", "default") != "asc":
            rows = rows[::-1]
        told = b",".join(self._row(name, row, now_s) for row in rows)
        return b'{"trades":[%s],"has_more":%s}' % (told, b"true" if more else b"false")

    def _widened(self, name: str, first: int | None, last: int | None, until_us: int) -> list[PrintedTrade]:
        """All of the milliseconds of both bounds too, and in each millisecond in any order."""
        rows = self._printed.rows(name, max(0, (first or 0) - SAME_MS_MAX), ALL_ROWS, until_us)
        times = {row.trade_id: row.trade_us // 1_000 for row in rows}
        from_ms = times.get(first or 0, 0)
        to_ms = times.get(last if last is not None else -1)
        rows = [
            row
            for row in rows
            if (row.trade_id >= (first or 0) or row.trade_us // 1_000 == from_ms)
            and (last is None or row.trade_id <= last or row.trade_us // 1_000 == to_ms)
        ]
        return sorted(rows, key=lambda row: (row.trade_us // 1_000, row.trade_id * 0x9E3779B1 % 65_536))

    def _row(self, name: str, row: PrintedTrade, now_s: float) -> bytes:
        index = self._listing.index(name)
        # What was liquidated is said about an hour later, never on the stream.
        aged = now_s - row.trade_us / 1e6 > self._faults.limits.liquidation_after_s
        more = b',"liquidation":"T"' if aged and row.trade_id % 50 == 0 else b""
        if self._renderer is not None:
            return self._renderer.row(index, row.trade_id, row.trade_us)[:-1] + more + b"}"
        prefix = self._listing.instruments[index].trade_id_prefix
        shown = {
            "trade_seq": row.trade_id, "trade_id": f"{prefix}{row.trade_id}", "timestamp": row.trade_us // 1_000,
            "tick_direction": row.trade_id & 3, "price": float(row.px), "instrument_name": name,
            "direction": "sell" if row.buyer_is_maker else "buy", "amount": float(row.sz),
        }  # fmt: skip
        return json.dumps(shown, separators=(",", ":")).encode()[:-1] + more + b"}"


def _number(params: Params, name: str) -> int | None:
    if name not in params:
        return None
    try:
        return int(str(params[name]))
    except ValueError:
        raise Refused(-32602, param=name, reason="wrong format") from None
