"""One process under ThreadSanitizer: `python -m tests.proofs.threads safe|lossy|ring RECORDS DIRECTORY`.

safe: with a flusher, which nothing may overtake. lossy: with a flusher, which falls behind. ring: without one.
"""

import sys
import threading
from pathlib import Path

import appliance.ring_threads as ring_threads  # compiled in the instrumented tree alone

from appliance.ring.reader import RingReader
from tests.ring.sequenced import Place, options


def main(mode: str, records: int, directory: Path) -> None:
    place = Place(directory)
    store = place.open(options(capacity_blocks=4), journal=mode != "ring")
    store.start()
    store.writer.lossy = mode != "safe"
    readers = [RingReader(place.meta_path) for _ in range(2)]
    results: list[tuple[int, int]] = []

    def follow(reader: RingReader) -> None:
        results.append(ring_threads.read(reader, store.writer, records))

    threads = [threading.Thread(target=follow, args=(reader,)) for reader in readers]
    threads.append(threading.Thread(target=ring_threads.write, args=(store.writer, records)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == len(readers), "a reader ended with an error"
    assert all(seen + lost == records for seen, lost in results)
    drained = store.drain(60)
    assert drained
    overtaken = readers[0].counters()["overtaken_bytes"]
    assert (overtaken == 0) or mode != "safe"
    for reader in readers:
        reader.close()
    print(f"{records} records, readers (read, lapped) {sorted(results)}, flusher overtaken by {overtaken} bytes")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
