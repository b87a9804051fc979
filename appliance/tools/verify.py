"""`mdc verify`: the integrity of ring and journal, record by record."""

import json
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from appliance.ring.examination import KEPT, Verdict
from appliance.tools.examining import chunks, examined

SHOWN = 20  # of each list, for people


def run(*, rings: Path, as_json: bool) -> int:
    """Examine every chunk in the directory `rings`; 0 when all is good, else 1."""
    verdicts = examined("verify", chunks(rings), lambda chunk, advance: chunk.verdict(advance))
    if as_json:
        print(json.dumps([verdict.as_json() for verdict in verdicts], indent=2))
    else:
        report(verdicts, Console(highlight=False))
    return 0 if all(verdict.good for verdict in verdicts) else 1


def report(verdicts: list[Verdict], console: Console) -> None:
    """The same for people."""
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("chunk", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for name in ("sequences", "trades", "compared", "gaps"):
        table.add_column(name, justify="right", no_wrap=True)
    for verdict in verdicts:
        table.add_row(
            f"{verdict.exchange} {verdict.chunk}",
            "good" if verdict.good else "[bold red]BAD[/]",
            f"{verdict.first_sequence:,} to {verdict.last_sequence:,}",
            f"{verdict.trades:,}",
            f"{verdict.compared_bytes / 2**20:,.0f} MiB",
            f"{missing:,} ids" if (missing := verdict.recorded_ids + verdict.lost_ids) else "none",
        )
    console.print(table)
    for verdict in verdicts:
        where = f"{verdict.exchange} {verdict.chunk}:"
        if verdict.open_end:
            console.print(f"{where} open end: the newest segment was being written when it was copied", soft_wrap=True)
        if verdict.lapped:
            console.print(f"{where} {verdict.lapped:,} records were overwritten in the ring before they could be examined", soft_wrap=True)
        for first, last in verdict.missing_sequences[:SHOWN]:
            console.print(f"{where} recorded hole in the journal: sequences {first} to {last}", soft_wrap=True)
        if verdict.faults_left_off:
            console.print(f"{where} --json lists the first {KEPT:,} of {verdict.faults:,} faults", soft_wrap=True)
        _list(console, f"{where} recorded gap:", verdict.recorded_holes)
        _list(console, f"{where} missing with the records of a recorded hole:", verdict.lost_holes)
        _list(console, f"{where} missing, too recent to be judged:", verdict.unsettled_holes)
        _list(console, f"{where} [bold red]missing without a gap record:[/]", verdict.unrecorded_holes)
        _list(console, f"{where} [bold red]fault[/] at", [f"position {f.position}: {f.reason}" for f in verdict.fault_list], verdict.faults)


def _list(console: Console, label: str, lines: Iterable[object], total: int | None = None) -> None:
    lines = list(lines)
    for line in lines[:SHOWN]:
        console.print(f"{label} {line}", soft_wrap=True)
    more = (len(lines) if total is None else total) - SHOWN
    if more > 0:
        console.print(f"{label} … and {more:,} more (see --json)", soft_wrap=True)
