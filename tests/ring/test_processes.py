"""One writer process and several reader processes on real files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def child(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.ring.children", *(str(argument) for argument in arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def line(process: subprocess.Popen[str]) -> dict[str, int]:
    assert process.stdout is not None
    said = process.stdout.readline()
    assert said, f"{process.args!r} ended with {process.wait()}"
    found: dict[str, int] = json.loads(said)
    return found


@pytest.mark.parametrize(("blocks", "records"), [(2, 150_000), (16, 250_000)])
def test_each_reader_gets_every_record_once_and_in_order_or_the_exact_number_it_lost(tmp_path: Path, blocks: int, records: int) -> None:
    """No torn payload ever, whether a reader keeps up, lags behind by most of the ring, or is lapped several times over."""
    writer = child("write", tmp_path, blocks, records)
    readers = []
    try:
        line(writer)
        readers = [child("read", tmp_path, laziness) for laziness in (0, 0.9, 3)]
        for reader in readers:
            line(reader)
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
        last = line(writer)["last"]
        assert last == records + 1
        for reader in readers:
            found = line(reader)
            assert found["torn"] == found["corrupt"] == 0
            assert found["records"] + found["lost"] == found["last"] == last
            assert reader.wait() == 0
        assert found["laps"] > 0, "the laziest was never lapped: this test showed nothing"
    finally:
        for process in (writer, *readers):
            process.kill()
            process.communicate()
