"""The coverage certificate: what a directory holds, as one JSON document that another host can check against the journal."""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from appliance.errors import CheckFailed, ConfigError
from appliance.ring.tally import FOREVER_MS
from appliance.tools.survey import Survey

FORM = "mdc-coverage-1"
# What a check must find again; the rest follows from it, or is of the host that made the certificate.
CHECKED = ("first_sequence", "last_sequence", "holes", "unjudged_holes", "deaf", "copies_differ")


def certificate(surveys: Sequence[Survey], from_ms: int, to_ms: int, made_ts_ms: int) -> dict[str, Any]:
    """The document. Times are UNIX ms; `digest` is the SHA-256 of all else, as compact JSON with sorted keys."""
    body: dict[str, Any] = {
        "certificate": FORM,
        "made_ts_ms": made_ts_ms,
        "from_ts_ms": from_ms or None,
        "to_ts_ms": to_ms if to_ms < FOREVER_MS else None,
        "whole": is_whole(surveys),
        "sentence": sentence(surveys),
        "chunks": [survey.as_json() for survey in surveys],
    }
    return body | {"digest": _digest(body)}


def read(path: Path) -> dict[str, Any]:
    """A certificate from a file. Raises ConfigError when it is none, CheckFailed when it is not as it was made."""
    try:
        document = json.loads(path.read_bytes())
        form = document["certificate"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: {error!r}; expected a certificate that `mdc coverage --out` has written") from None
    if form != FORM:
        raise ConfigError(f"{path}: found a certificate of form {form!r}; this version reads {FORM!r}")
    found = document.pop("digest", None)
    if found != _digest(document):
        raise CheckFailed(f"{path}: its digest is {found}, that of its content is {_digest(document)}; it was changed after it was made")
    return dict(document)


def differences(said: dict[str, Any], found: Survey) -> list[str]:
    """In what the journal of a chunk is not as `said`, the certificate's part about it."""
    result = []
    now = json.loads(json.dumps(found.as_json()))
    where = f"{found.exchange} {found.chunk}"
    if found.faults:
        result.append(f"{where}: {found.faults} faults in the journal, the first {found.fault}; mdc verify tells all")
    for name in CHECKED:
        if said[name] != now[name]:
            result.append(f"{where}: {name} is {now[name]}, certified is {said[name]}")
    certified = {(one["asset"], one["era"]): one for one in said["instruments"]}
    held = {(one["asset"], one["era"]): one for one in now["instruments"]}
    for key in sorted(certified.keys() | held.keys()):
        if key not in held or key not in certified:
            result.append(f"{where}: {key[0]} is {'not in the journal' if key in certified else 'not in the certificate'}")
            continue
        for name, value in certified[key].items():
            if held[key][name] != value:
                result.append(f"{where}: {key[0]}: {name} is {_short(held[key][name])}, certified is {_short(value)}")
    return result


def is_whole(surveys: Sequence[Survey]) -> bool:
    """Whether no id is missing, nothing is damaged, and all of the span was recorded. Ids late by less than the grace do not count."""
    return not (
        any(one.missing_ids for survey in surveys for one in survey.instruments)
        or any(survey.faults or survey.overtaken or survey.unjudged_holes or survey.not_recorded for survey in surveys)
        or any(survey.recorded_from_ts_ms is None for survey in surveys)
        or _uncollected(surveys)
    )


def _uncollected(surveys: Sequence[Survey]) -> dict[tuple[str, int], str]:
    """Chunks that are not here, and of which one that is says that they were not collected; why."""
    here = {(survey.exchange, survey.chunk) for survey in surveys}
    told = {(survey.exchange, chunk): why for survey in surveys for chunk, why in survey.uncollected.items()}
    return {name: why for name, why in told.items() if name not in here}


def sentence(surveys: Sequence[Survey]) -> str:
    """The answer at one glance."""
    instruments = [one for survey in surveys for one in survey.instruments]
    lacking = [(instrument, one) for instrument in instruments for one in instrument.lacking]
    trades = sum(one.trades for one in instruments)
    backfilled = sum(last - first + 1 for one in instruments for first, last in one.backfilled)
    never = sum(one.ids for _, one in lacking if one.state == "never_existed")
    held = f"{trades:,} trades of {len({one.asset for one in instruments if one.trades}):,} instruments"
    faults = sum(survey.faults for survey in surveys)
    missing = [(instrument, one) for instrument, one in lacking if one.is_missing]
    if faults:
        fault = next(survey for survey in surveys if survey.faults)
        return f"The tape is damaged: {faults:,} faults, the first in {fault.exchange} chunk {fault.chunk} {fault.fault}; {held} were read."
    if missing:
        ids = sum(one.ids for _, one in missing)
        states = ", ".join(
            f"{sum(one.ids for _, one in missing if one.state == state):,} {state.replace('_', ' ')}"
            for state in dict.fromkeys(one.state for _, one in missing)
        )
        instrument, first = missing[0]
        return (
            f"The tape is not whole: {ids:,} ids of {len({one.asset for one, _ in missing}):,} instruments are missing ({states}), "
            f"the first {instrument.asset} {first.from_id} to {first.to_id}; {held} are held."
        )
    if lack := _unknown(surveys):
        return f"The tape is not whole: {lack}; {held} are held, and none is missing between them."
    if not trades:
        return "There is nothing to certify: no trade in this span of time."
    settled = f"{trades - backfilled:,} live, {backfilled:,} backfilled"
    proven = f", and {never:,} ids between them proven never to have been traded" if never else ""
    return f"The tape is whole: {held}, {settled}{proven}."


def _unknown(surveys: Sequence[Survey]) -> str:
    """The first thing of which the files say nothing, though no id shows it; empty: there is none."""
    for survey in surveys:
        where = f"{survey.exchange} chunk {survey.chunk}"
        if survey.recorded_from_ts_ms is None:
            return f"nothing of {where} was recorded"
        for begin_ms, end_ms in survey.not_recorded:
            return f"{where} was not recorded from {moment(begin_ms)} to {moment(end_ms)} UTC"
        for first, last in survey.unjudged_holes:
            return f"the journal of {where} lacks sequences {first} to {last}, and nothing behind them says which trades they were"
        if survey.overtaken:
            return f"{survey.overtaken:,} records of {where} were overwritten before they could be read"
    for (exchange, chunk), why in _uncollected(surveys).items():
        return f"{exchange} chunk {chunk} was not collected: {why}"
    return ""


def moment(ts_ms: int) -> str:
    """UNIX ms for people, in UTC."""
    return datetime.fromtimestamp(ts_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}..."
