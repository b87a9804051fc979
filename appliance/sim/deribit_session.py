"""One websocket connection as the local Deribit sees it: login, heartbeats, credits, channels (docs.deribit.com)."""

import hmac
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from websockets.frames import Close, Frame, Opcode

from appliance.sim import deribit_rpc as rpc
from appliance.sim.deribit_credits import Purse
from appliance.sim.deribit_listing import KINDS, Change, Listing
from appliance.sim.deribit_rest import Questions
from appliance.sim.deribit_rpc import Call, Refused
from appliance.sim.dialect import Step
from appliance.sim.faults import EVERY, DropChannel, Faults, Hole, LateReply, Logout, Maintenance, Settlement, Strikes

CLIENT_ID, CLIENT_SECRET = "mdc-demo", "mdc-demo-secret"
GOING_AWAY: Final = 1001
POLICY_VIOLATION: Final = 1008
CHANNELS_MAX = 500
HEARTBEAT_S_MIN = 10
LOGINS_FAILED_MAX = 5
INTERVALS = ("raw", "100ms", "agg2")
SIGNATURE_S = 60.0  # how far a signature's time may be from ours
SOCKET_METHODS = {
    "public/auth", "public/set_heartbeat", "public/disable_heartbeat", "public/subscribe", "private/subscribe",
    "public/unsubscribe", "private/unsubscribe", "public/unsubscribe_all",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Audience:
    """What a connection gets: equal audiences get equal bytes."""

    channels: frozenset[str]
    sees_holes: bool


class DeribitSession:
    """One connection: who it is, what it has subscribed to, what it owes."""

    def __init__(
        self,
        listing: Listing,
        questions: Questions,
        purse: Callable[[str], Purse],
        address: str,
        number: int,
        now_s: float,
        faults: Faults,
        strikes: Strikes,
    ) -> None:
        self.audience: Audience | None = None
        self._listing = listing
        self._changes_seen = len(listing.changes)
        self._questions = questions
        self._purse_of = purse
        self._purse = purse(address)
        self._faults = faults
        self._strikes = strikes
        self._number = number
        self._opened_s = now_s
        self._channels: dict[str, None] = {}
        self._token_until_s = 0.0
        self._refresh_token = ""
        self._logins_failed = 0
        self._heartbeat_s = 0
        self._next_beat_s = 0.0
        self._test_due_s = 0.0  # when an unanswered test_request closes the connection; 0: none is open
        self._beats = 0
        self._logouts = [f for f in faults.all(Logout) if f.connection in {EVERY, number}]
        self._maintenances = [f for f in faults.all(Maintenance) if f.connection in {EVERY, number}]
        self._settlements = [f for f in faults.all(Settlement) if f.connection in {EVERY, number}]
        self._late = next((f for f in faults.all(LateReply) if f.connection in {EVERY, number}), None)
        self._late_replies: list[tuple[float, Frame]] = []
        self._replies = 0
        self._close_s = now_s + faults.limits.lifetime_s
        holes = faults.all(Hole)
        self._sees_holes = bool(holes) and all(hole.connection not in {EVERY, number} for hole in holes)
        self._methods: dict[str, Callable[[Call, float], object]] = {
            "public/auth": self._auth,
            "public/test": self._test,
            "public/set_heartbeat": self._set_heartbeat,
            "public/disable_heartbeat": self._disable_heartbeat,
            "public/subscribe": self._subscribe,
            "private/subscribe": self._private_subscribe,
            "public/unsubscribe": self._unsubscribe,
            "private/unsubscribe": self._unsubscribe,
            "public/unsubscribe_all": self._unsubscribe_all,
        }

    def received(self, frame: Frame, now_s: float) -> list[Step]:
        if frame.opcode is not Opcode.TEXT:
            return []
        number: int | str | None = None
        try:
            call = Call.parse(bytes(frame.data))
            number = call.id
            if call.method not in self._methods and call.method not in self._questions:
                raise Refused(-32601)
            self._purse.spend(call.method, True, now_s)
            answer = rpc.result(call.id, self._answer(call, now_s), now_s)
        except Refused as refused:
            steps: list[Step] = [Frame(Opcode.TEXT, rpc.error(number, refused, now_s))]
            # Out of credits: the session is terminated.
            return [*steps, Close(POLICY_VIOLATION, "too_many_requests")] if refused.code == 10028 else steps
        self._replies += 1
        if self._late is not None and self._replies % self._late.every == 0:
            self._late_replies.append((now_s + self._late.late_s, Frame(Opcode.TEXT, answer)))
            return []
        return [Frame(Opcode.TEXT, answer)]

    def due(self, now_s: float) -> list[Step]:
        steps: list[Step] = []
        while self._late_replies and self._late_replies[0][0] <= now_s:
            steps.append(self._late_replies.pop(0)[1])
        while self._changes_seen < len(self._listing.changes):
            steps += self._changed(self._listing.changes[self._changes_seen], now_s)
            self._changes_seen += 1
        for logout in [f for f in self._logouts if self._opened_s + f.after_s <= now_s]:
            self._logouts.remove(logout)
            self._token_until_s = 0.0
        if self._token_until_s < now_s and any(channel.endswith(".raw") for channel in self._channels):
            # What only a login may have ends with it, without a word.
            self._channels = {channel: None for channel in self._channels if not channel.endswith(".raw")}
            self._settle()
        for maintenance in [f for f in self._maintenances if self._opened_s + f.after_s <= now_s]:
            self._maintenances.remove(maintenance)
            if self._strikes.hit(maintenance, maintenance.times):
                if "platform_state" in self._channels:
                    steps.append(self._told("platform_state", {"maintenance": True}))
                self._close_s = min(self._close_s, now_s + maintenance.lead_s)
        if self._close_s <= now_s:
            return [*steps, Close(GOING_AWAY, "")]
        if self._test_due_s and self._test_due_s <= now_s:
            return [*steps, Close(POLICY_VIOLATION, "heartbeat")]
        if self._heartbeat_s and self._next_beat_s <= now_s:
            self._next_beat_s = now_s + self._heartbeat_s
            self._beats += 1
            kind = "test_request" if self._beats % 2 else "heartbeat"
            if kind == "test_request" and not self._test_due_s:
                self._test_due_s = now_s + self._heartbeat_s
            steps.append(Frame(Opcode.TEXT, rpc.heartbeat(kind)))
        return steps

    def _answer(self, call: Call, now_s: float) -> bytes:
        own = self._methods.get(call.method)
        if own is None:
            return self._questions.result(call.method, call.params, now_s)
        return json.dumps(own(call, now_s), separators=(",", ":")).encode()

    def _changed(self, change: Change, now_s: float) -> list[Step]:
        """Notifications of an instrument's new state, on each channel that is wanted here."""
        one = change.instrument
        channels = [f"instrument.state.{kind}.{group}" for kind in (one.kind, "any") for group in (one.currency, "any")]
        data = {"timestamp": int(now_s * 1_000), "state": change.state, "instrument_name": one.name}
        return [self._told(channel, data) for channel in channels if channel in self._channels]

    def _told(self, channel: str, data: object) -> Step:
        return Frame(Opcode.TEXT, rpc.notification(channel, data))

    def _auth(self, call: Call, now_s: float) -> object:
        match call.params.get("grant_type"):
            case "client_credentials":
                if self._logins_failed >= LOGINS_FAILED_MAX:
                    raise Refused(12003)
                if (call.params.get("client_id"), call.params.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
                    self._logins_failed += 1
                    raise Refused(13004)
            case "client_signature":
                self._check_signature(call, now_s)
            case "refresh_token":
                if not self._refresh_token or call.params.get("refresh_token") != self._refresh_token:
                    raise Refused(13009, reason="invalid_token")
            case _:
                raise Refused(-32602, param="grant_type", reason="value required")
        expires_s = self._faults.limits.expires_s
        self._purse = self._purse_of(CLIENT_ID)
        self._token_until_s = now_s + expires_s
        self._refresh_token = f"{int(now_s * 1_000)}.1R{secrets.token_urlsafe(24)}"
        return {
            "access_token": f"{int(now_s * 1_000)}.1A{secrets.token_urlsafe(24)}", "token_type": "bearer", "expires_in": expires_s,
            "refresh_token": self._refresh_token, "scope": "connection mainaccount account:read trade:read", "enabled_features": [],
        }  # fmt: skip

    def _check_signature(self, call: Call, now_s: float) -> None:
        timestamp, nonce, data = (str(call.params.get(name, "")) for name in ("timestamp", "nonce", "data"))
        signed = hmac.new(CLIENT_SECRET.encode(), f"{timestamp}\n{nonce}\n{data}".encode(), "sha256").hexdigest()
        fresh = timestamp.isdigit() and abs(int(timestamp) / 1_000 - now_s) <= SIGNATURE_S
        if call.params.get("client_id") != CLIENT_ID or call.params.get("signature") != signed or not fresh:
            raise Refused(13004)

    def _test(self, call: Call, now_s: float) -> object:
        self._test_due_s = 0.0
        return {"version": "1.2.26"}

    def _set_heartbeat(self, call: Call, now_s: float) -> object:
        interval = call.params.get("interval")
        if not isinstance(interval, int) or interval < min(HEARTBEAT_S_MIN, self._faults.limits.heartbeat_s_min):
            raise Refused(-32602, param="interval", reason="must be at least 10")
        self._heartbeat_s = min(interval, self._faults.limits.heartbeat_s_max)
        self._next_beat_s = now_s + self._heartbeat_s
        return "ok"

    def _disable_heartbeat(self, call: Call, now_s: float) -> object:
        self._heartbeat_s = 0
        self._test_due_s = 0.0
        return "ok"

    def _private_subscribe(self, call: Call, now_s: float) -> object:
        if self._token_until_s < now_s:
            raise Refused(13009, reason="invalid_token") if self._refresh_token else Refused(10000)
        return self._subscribe(call, now_s)

    def _subscribe(self, call: Call, now_s: float) -> object:
        if any(one.after_s <= now_s - self._opened_s < one.after_s + one.for_s for one in self._settlements):
            raise Refused(10041)
        wanted = self._names(call)
        if self._token_until_s < now_s and any(name.endswith(".raw") for name in wanted):
            raise Refused(13778)
        dropped = {fault.channel for fault in self._faults.all(DropChannel) if fault.connection in {EVERY, self._number}}
        taken = [name for name in wanted if self._exists(name) and name not in dropped]
        self._channels |= dict.fromkeys(taken)
        self._settle()
        return taken[::-1]  # not in the order of the request

    def _unsubscribe(self, call: Call, now_s: float) -> object:
        gone = [name for name in self._names(call) if name in self._channels]
        for name in gone:
            del self._channels[name]
        self._settle()
        return gone

    def _unsubscribe_all(self, call: Call, now_s: float) -> object:
        self._channels.clear()
        self._settle()
        return "ok"

    def _names(self, call: Call) -> list[str]:
        names = call.params.get("channels")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise Refused(-32602, param="channels", reason="value required")
        if len(names) > CHANNELS_MAX:
            raise Refused(-32602, param="channels", reason=f"at most {CHANNELS_MAX}")
        return names

    def _exists(self, name: str) -> bool:
        if name.startswith("trades."):
            return name.rpartition(".")[2] in INTERVALS and self._listing.of_channel(name) is not None
        if name.startswith("instrument.state."):
            return len(parts := name.split(".")) == 4 and parts[2] in (*KINDS, "any")
        return name in ("platform_state", "platform_state.public_methods_state")

    def _settle(self) -> None:
        trades = frozenset(name for name in self._channels if name.startswith("trades."))
        self.audience = Audience(trades, self._sees_holes) if trades else None
