"""Who may write into a directory: one process, one exchange, as long as it lives."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.errors import CannotRun, RingBusy
from appliance.ring.ownership import Ownership
from tests.mounts import Mounts
from tests.ring.sequenced import Place, append

HOLDER = """
import subprocess, sys
from pathlib import Path
from appliance.ring.ownership import Ownership
owned = Ownership.take(Path(sys.argv[1]), Path(sys.argv[2]), "binance")
child = subprocess.Popen(["sleep", "60"], close_fds=False, stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
sys.stdin.read()
"""


def hold(place: Place) -> tuple[subprocess.Popen[str], int]:
    """A process that owns both directories and has a child; the child's pid."""
    command = [sys.executable, "-c", HOLDER, str(place.ring_dir), str(place.journal_dir)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    return holder, int(holder.stdout.readline())


def end(holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.communicate()


def test_a_second_writer_is_refused_and_told_which_directory_is_taken(tmp_path: Path) -> None:
    """T25: two collectors in one directory."""
    place = Place(tmp_path)
    holder, child = hold(place)
    try:
        with pytest.raises(RingBusy, match=str(place.ring_dir)) as refused:
            Ownership.take(place.ring_dir, place.journal_dir, "binance")
        assert refused.value.exit_code == 3
        with pytest.raises(RingBusy, match=str(place.journal_dir)):
            Ownership.take(tmp_path / "another ring", place.journal_dir, "binance")
        with pytest.raises(RingBusy, match=str(place.ring_dir)):
            Ownership.take(place.ring_dir, tmp_path / "another journal", "binance")
    finally:
        end(holder)
        os.kill(child, signal.SIGKILL)


def test_kill_9_releases_the_locks_although_a_child_lives_on(tmp_path: Path) -> None:
    """The descriptors are close-on-exec: a child that outlives its parent must not hold the lock."""
    place = Place(tmp_path)
    holder, child = hold(place)
    end(holder)
    try:
        os.kill(child, 0)
        with Ownership.take(place.ring_dir, place.journal_dir, "binance"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_refused_start_leaves_the_other_directory_free(tmp_path: Path, open_files: Callable[[], set[str]]) -> None:
    place = Place(tmp_path)
    before = open_files()
    with Ownership.take(tmp_path / "ring of another", place.journal_dir, "binance"), pytest.raises(RingBusy):
        Ownership.take(place.ring_dir, place.journal_dir, "binance")
    with Ownership.take(place.ring_dir, place.journal_dir, "binance"):
        pass
    assert open_files() == before


@pytest.mark.parametrize("role", ["ring", "journal"])
def test_a_directory_of_another_exchange_is_refused(tmp_path: Path, role: str) -> None:
    place = Place(tmp_path)
    store = place.open()
    append(store, 1)
    store.start()
    assert store.drain(10)
    ring_dir, journal_dir = (place.ring_dir, tmp_path / "new") if role == "ring" else (tmp_path / "new", place.journal_dir)
    with pytest.raises(CannotRun, match=f"(?s){role} directory.*'binance'.*expected 'deribit'"):
        Ownership.take(ring_dir, journal_dir, "deribit")
    with Ownership.take(place.ring_dir, place.journal_dir, "binance"):
        pass


def test_missing_directories_are_made(tmp_path: Path) -> None:
    ring_dir, journal_dir = tmp_path / "a" / "ring", tmp_path / "b" / "journal"
    with Ownership.take(ring_dir, journal_dir, "binance"):
        assert ring_dir.is_dir()
        assert journal_dir.is_dir()


def test_a_ring_alone_needs_no_journal_directory(tmp_path: Path) -> None:
    with Ownership.take(tmp_path / "ring", None, "binance"), pytest.raises(RingBusy):
        Ownership.take(tmp_path / "ring", None, "binance")


@pytest.mark.parametrize("role", ["ring", "journal"])
def test_a_read_only_directory_is_named_with_what_was_expected(tmp_path: Path, mounts: Mounts, role: str) -> None:
    fixed = mounts.tmpfs(tmp_path / "fixed", 1 << 20)
    mounts.make_read_only(fixed)
    ring_dir, journal_dir = (fixed, tmp_path / "new") if role == "ring" else (tmp_path / "new", fixed)
    with pytest.raises(CannotRun, match=f"{role} directory {fixed}: .*Read-only file system; expected a directory"):
        Ownership.take(ring_dir, journal_dir, "binance")


def test_a_file_in_the_directory_s_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ring").write_text("")
    with pytest.raises(CannotRun, match="ring directory"):
        Ownership.take(tmp_path / "ring", None, "binance")
