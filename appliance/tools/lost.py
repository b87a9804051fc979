"""The trade ids whose records a journal lost from a sequence on: `python -m appliance.tools.lost JOURNAL_DIR EXCHANGE CHUNK SEQUENCE`.

The appliance runs it beside itself when a disk takes data again, and asks the exchange for what it prints: one line, a JSON array of
[asset, era, first id, last id].
"""

import json
import sys
from pathlib import Path

from appliance.feed.children import die_with_parent
from appliance.feed.history import snapshot_position
from appliance.ring.examination import FOREVER, Examination
from appliance.ring.journal import first_position, segments
from appliance.tools.survey import survey

Lost = tuple[str, int, int, int]


def lost(journal_dir: Path, exchange: str, chunk: int, sequence: int) -> list[Lost]:
    """All that is lost in recorded holes from `sequence` on, and perhaps of some before. Raises NotARing, OSError."""
    found = segments(journal_dir, exchange, chunk)
    # From a snapshot before it on: what traded only in the hole is known by that alone.
    begin = max(sum(one.first_sequence < sequence for one in found) - 1, 0)
    while begin > 0 and not snapshot_position(found[begin].path):
        begin -= 1
    examination = Examination(exchange, chunk, None, journal_dir)
    if begin > 0:
        examination.since_position = first_position(found[begin].path)
    surveyed = survey(examination, lambda size: None, digests=False)
    return [
        (instrument.asset, instrument.era, one.from_id, one.to_id)
        for instrument in surveyed.instruments
        for one in instrument.lacking
        if one.state == "in_a_hole" and one.to_id < FOREVER
    ]


if __name__ == "__main__":
    die_with_parent()
    place, name, number, first = sys.argv[1:]
    print(json.dumps(lost(Path(place), name, int(number), int(first)), ensure_ascii=False), flush=True)
