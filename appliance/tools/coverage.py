"""`mdc coverage`: is the tape whole, and if not, what is missing."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from appliance.clock import unix_ns
from appliance.errors import CheckFailed, ConfigError
from appliance.ring.examination import Advance, Examination, examinations
from appliance.ring.merge import time_ns
from appliance.ring.tally import FOREVER_MS
from appliance.tools.certificate import certificate, differences, is_whole, moment, read, sentence
from appliance.tools.examining import chunks, examined
from appliance.tools.survey import SLACK_NS, Instrument, Survey, compare_ends, survey

SHOWN = 20  # of each list, for people


def run(*, rings: Path, start: str | None, end: str | None, out: Path | None, check: Path | None, as_json: bool) -> int:
    """Survey the directory `rings`; 0 when the tape is whole, else 1. With `check`, 0 when it is as that certificate says."""
    if check is not None:
        return _check(rings, check, as_json)
    from_ms = 0 if start is None else _time_ms("--from", start)
    to_ms = FOREVER_MS if end is None else _time_ms("--to", end)
    if from_ms >= to_ms:
        raise ConfigError(f"--from {start} is not before --to {end}")
    with_digests = as_json or out is not None

    def look(one: Examination, advance: Advance) -> Survey:
        if from_ms:
            one.begin_at(from_ms * 1_000_000 - SLACK_NS)
        return survey(one, advance, from_ms, to_ms, digests=with_digests)

    surveys = examined("coverage", chunks(rings), look)
    if end is None:
        compare_ends(surveys)
    if with_digests:
        text = json.dumps(certificate(surveys, from_ms, to_ms, unix_ns() // 1_000_000), indent=2, ensure_ascii=False)
        if out is not None:
            _write(out, text)
        if as_json:
            print(text)
    if not as_json:
        _report(surveys, Console(highlight=False))
        if out is not None:
            print(f"certificate: {out}")
    return 0 if is_whole(surveys) else 1


def _check(rings: Path, path: Path, as_json: bool) -> int:
    said = read(path)
    parts = {(part["exchange"], part["chunk"]): part for part in said["chunks"]}
    found = {(one.exchange, one.chunk): one for one in examinations(rings)}
    if absent := parts.keys() - found.keys():
        names = ", ".join(f"{exchange} {chunk}" for exchange, chunk in sorted(absent))
        raise CheckFailed(f"{rings}: has no chunk {names}, of which {path} tells")
    chosen = [found[key] for key in parts]
    for one in chosen:
        part = parts[one.exchange, one.chunk]
        one.since_position, one.until_position = part["first_position"], part["end_position"]
    from_ms, to_ms = said["from_ts_ms"] or 0, said["to_ts_ms"] or FOREVER_MS
    surveys = examined("coverage", chosen, lambda one, advance: survey(one, advance, from_ms, to_ms))
    wrong = [text for one in surveys for text in differences(parts[one.exchange, one.chunk], one)]
    if as_json:
        print(json.dumps({"good": not wrong, "differences": wrong, "sentence": said["sentence"]}, indent=2, ensure_ascii=False))
    elif wrong:
        print(f"The directory is not as {path} says:")
        for text in wrong[:SHOWN]:
            print(f"  {text}")
        if len(wrong) > SHOWN:
            print(f"  … and {len(wrong) - SHOWN:,} more (--json lists all)")
    else:
        print(f"The directory is as certified on {moment(said['made_ts_ms'])} UTC. {said['sentence']}")
    return 1 if wrong else 0


def _time_ms(option: str, text: str) -> int:
    try:
        return time_ns(text) // 1_000_000
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from None


def _write(path: Path, text: str) -> None:
    """Whole or not at all: a certificate that was cut short is none."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text + "\n")
    part.replace(path)


def _report(surveys: Sequence[Survey], console: Console) -> None:
    console.print(sentence(surveys), soft_wrap=True)
    instruments = [one for survey in surveys for one in survey.instruments]
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("instrument", no_wrap=True)
    for name in ("trades", "first id", "last id", "backfilled", "never existed", "missing"):
        table.add_column(name, justify="right", no_wrap=True)
    # What is missing first, then the most active.
    instruments.sort(key=lambda one: (-one.missing_ids, -one.trades))
    for one in instruments[:SHOWN]:
        table.add_row(*_row(one))
    if instruments:
        console.print(table)
    if len(instruments) > SHOWN:
        console.print(f"… and {len(instruments) - SHOWN:,} more instruments (--json lists all)")
    for chunk in surveys:
        _report_chunk(chunk, console)


def _row(one: Instrument) -> list[Any]:
    name = f"{one.asset} (era {one.era})" if one.era else one.asset
    first, last = (f"{one.held[0][0]}", f"{one.held[-1][1]}") if one.held else ("none", "none")
    backfilled = sum(last - first + 1 for first, last in one.backfilled)
    never = sum(lack.ids for lack in one.lacking if lack.state == "never_existed")
    return [name, f"{one.trades:,}", first, last, f"{backfilled:,}", f"{never:,}", f"{one.missing_ids:,}"]


def _report_chunk(survey: Survey, console: Console) -> None:
    where = f"{survey.exchange} {survey.chunk}:"
    missing = [(one, lack) for one in survey.instruments for lack in one.lacking if lack.state != "never_existed"]
    for one, lack in missing[:SHOWN]:
        since = f" since {moment(lack.since_ts_ms)}" if lack.since_ts_ms is not None else ""
        why = f": {lack.reason}" if lack.reason else ""
        state = lack.state.replace("_", " ")
        console.print(f"{where} {one.asset} ids {lack.from_id} to {lack.to_id} {state}{since}{why}", soft_wrap=True)
    if len(missing) > SHOWN:
        console.print(f"{where} … and {len(missing) - SHOWN:,} more (--json lists all)")
    ended = [(begin, end) for begin, end in survey.deaf if end is not None]
    if ended:
        seconds = sum(end - begin for begin, end in ended) / 1_000
        console.print(
            f"{where} no leg was subscribed in {len(ended)} spans of {seconds:,.1f} s in all; what was traded then is counted above"
        )
    for first, last in survey.holes[:SHOWN]:
        console.print(f"{where} the journal lacks sequences {first} to {last}, and says so", soft_wrap=True)
    for first, last in survey.not_recorded:
        console.print(f"{where} not recorded from {moment(first)} to {moment(last)} UTC", soft_wrap=True)
    if survey.overtaken:
        console.print(f"{where} {survey.overtaken:,} records were overwritten in the ring before they could be read", soft_wrap=True)
    if survey.copies_differ:
        console.print(f"{where} of {survey.copies_differ:,} trades the connections brought different copies; the first is held")
    if survey.open_end:
        console.print(f"{where} open end: the newest segment was being written when it was copied")
    if survey.recorded_from_ts_ms is not None and survey.recorded_to_ts_ms is not None:
        recorded = f"recorded from {moment(survey.recorded_from_ts_ms)} to {moment(survey.recorded_to_ts_ms)} UTC"
        console.print(f"{where} {recorded}; error of this host's clock {_clock(survey)}", soft_wrap=True)


def _clock(survey: Survey) -> str:
    if survey.clock_error_ns is None:
        return "unknown"
    unknown = f", but unknown for {survey.clock_unknown_ms / 1_000:,.1f} s" if survey.clock_unknown_ms else ""
    return f"at most {survey.clock_error_ns / 1e6:g} ms{unknown}"
