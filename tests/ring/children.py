"""Processes that write or read a ring, for tests that kill them: `python -m tests.ring.children ROLE …`; JSON lines on stdout."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from appliance.ring.layout import RecordType
from appliance.ring.ownership import Ownership
from appliance.ring.reader import Corrupt, Lapped, Record, RingReader
from tests.ring.sequenced import EXCHANGE, Place, append, options, payload_of


def say(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def write(root: str, blocks: str, records: str) -> None:
    """Write without a journal, as fast as it goes, once a line comes on stdin; the last record is a BOUNDARY."""
    store = Place(Path(root)).open(options(capacity_blocks=int(blocks)), journal=False)
    say(ready=True)
    sys.stdin.readline()
    for sequence in range(1, int(records) + 1):
        store.writer.append(RecordType.TRADE, payload_of(sequence))
    say(last=store.writer.append(RecordType.BOUNDARY, b"end"))


def read(root: str, laziness: str) -> None:
    """Read to the BOUNDARY; now and then stand still until the writer is `laziness` of the ring further."""
    reader = RingReader(Place(Path(root)).meta_path)
    say(ready=True)
    expected, records, lost, corrupt, torn, laps = 1, 0, 0, 0, 0, 0
    polls, ended = 0, False
    while not ended:
        items = reader.poll(256)
        for item in items:
            if isinstance(item, Record):
                assert item.sequence == expected, f"{item.sequence} came, {expected} was due"
                expected += 1
                records += 1
                ended = item.type == RecordType.BOUNDARY
                torn += not ended and item.payload != payload_of(item.sequence)
            elif isinstance(item, Lapped):
                assert item.from_sequence == expected
                expected += item.records
                lost += item.records
                laps += 1
            elif isinstance(item, Corrupt):
                corrupt += 1
        polls += bool(items)
        if items and polls % 20 == 0 and float(laziness):
            stand_still(reader, int(float(laziness) * reader.capacity))
    say(records=records, lost=lost, corrupt=corrupt, torn=torn, laps=laps, last=expected - 1)


def stand_still(reader: RingReader, size: int) -> None:
    """Until `size` more bytes are committed, or no more come."""
    wanted, last, idle = reader.committed + size, reader.committed, 0
    while reader.committed < wanted and idle < 200:
        os.sched_yield()
        idle = idle + 1 if reader.committed == last else 0
        last = reader.committed


def breed(root: str) -> None:
    """Fork a writer for each line on stdin: it takes over the ring, reports what it committed, and lives until it is killed."""
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            write_until_killed(Place(Path(root)), say)
        os.waitpid(child, 0)
        say(dead=child)


def write_until_killed(place: Place, say: Callable[..., None]) -> None:
    os.close(0)
    say(pid=os.getpid())
    with Ownership.take(place.ring_dir, place.journal_dir, EXCHANGE):
        store = place.open()
        say(how=store.origin.how, last_sequence=store.origin.last_sequence, epoch=store.origin.epoch)
        store.start()
        while True:
            say(committed=append(store, 23))
            if store.turn_due():
                store.turn(store.writer.begin_block())


if __name__ == "__main__":
    signal.alarm(120)  # a test that died leaves no process
    roles: dict[str, Callable[..., None]] = {"write": write, "read": read, "breed": breed}
    roles[sys.argv[1]](*sys.argv[2:])
