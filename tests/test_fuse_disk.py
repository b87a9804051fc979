"""The disk of the fault tests does what it is told: else they prove nothing."""

import errno
import os
import threading
from pathlib import Path

import pytest

from tests.fuse_disk import EIO, ENOSPC, EROFS, FuseDisk
from tests.streams import until


def written(path: Path, content: bytes, sync: bool = True, direct: bool = False) -> None:
    fd = os.open(path, os.O_CREAT | os.O_RDWR | (os.O_DIRECT if direct else 0))
    try:
        os.write(fd, content)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def sync_names(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def test_a_healthy_one_keeps_what_is_written(fuse_disk: FuseDisk) -> None:
    path = fuse_disk.directory / "a"
    written(path, b"content")
    path.rename(fuse_disk.directory / "b")
    assert (fuse_disk.directory / "b").read_bytes() == b"content"
    assert [one.name for one in fuse_disk.directory.iterdir()] == ["b"]
    os.truncate(fuse_disk.directory / "b", 4)
    assert (fuse_disk.directory / "b").read_bytes() == b"cont"
    (fuse_disk.directory / "b").unlink()
    assert list(fuse_disk.directory.iterdir()) == []


@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_a_power_cut_loses_what_was_not_synced_and_nothing_else(fuse_disk: FuseDisk, kept: float) -> None:
    path = fuse_disk.directory / "a"
    written(path, b"1" * 8192)
    sync_names(fuse_disk.directory)
    fd = os.open(path, os.O_RDWR)
    os.pwrite(fd, b"2" * 8192, 8192)
    written(fuse_disk.directory / "nameless", b"synced, but not its name")
    fuse_disk.cut_power(seed=1, kept=kept)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        os.pwrite(fd, b"3", 0)
    os.close(fd)
    fuse_disk.restore_power()
    found = path.read_bytes()
    assert found[:8192] == b"1" * 8192
    if kept == 0.0:
        assert found[8192:] == b""
        assert [one.name for one in fuse_disk.directory.iterdir()] == ["a"]
    else:
        sectors = {found[at : at + 512] for at in range(8192, len(found), 512)}
        assert sectors == {b"2" * 512, bytes(512)}, "some are there and some are not"


def test_a_sync_that_failed_has_lost_its_writes_although_the_next_one_succeeds(fuse_disk: FuseDisk) -> None:
    """T24, fsyncgate: a program that calls it again is told that all is well."""
    path = fuse_disk.directory / "a"
    written(path, b"1" * 512)
    sync_names(fuse_disk.directory)
    fd = os.open(path, os.O_RDWR)
    os.pwrite(fd, b"2" * 512, 512)
    fuse_disk.fail(times=1, sync=EIO)
    with pytest.raises(OSError, match=os.strerror(EIO)):
        os.fdatasync(fd)
    os.fdatasync(fd)
    os.close(fd)
    assert path.read_bytes() == b"1" * 512 + b"2" * 512, "and it still looks so"
    fuse_disk.cut_power()
    fuse_disk.restore_power()
    assert path.read_bytes() == b"1" * 512


@pytest.mark.parametrize("number", [EIO, ENOSPC, EROFS])
def test_errors_come_and_go(fuse_disk: FuseDisk, number: int) -> None:
    path = fuse_disk.directory / "a"
    fuse_disk.fail(write=number, make=number)
    with pytest.raises(OSError, match=os.strerror(number)):
        written(path, b"1")
    assert fuse_disk.counts()["failed"] == 1
    fuse_disk.heal()
    written(path, b"1")
    assert path.read_bytes() == b"1"


def test_a_stall_holds_up_writes_until_it_ends_and_no_reads(fuse_disk: FuseDisk) -> None:
    path, other = fuse_disk.directory / "a", fuse_disk.directory / "b"
    written(path, b"1")
    written(other, b"other")
    fuse_disk.stall()
    writer = threading.Thread(target=written, args=(path, b"2"))
    writer.start()
    assert other.read_bytes() == b"other"
    fuse_disk.heal()
    until(lambda: path.read_bytes() == b"2", "the write")
    writer.join()


def test_direct_writes_are_taken(fuse_disk: FuseDisk) -> None:
    """The journal is written past the page cache where that is possible: it is here."""
    fd = os.open(fuse_disk.directory / "a", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    os.posix_fallocate(fd, 0, 1 << 20)
    os.close(fd)
    assert (fuse_disk.directory / "a").stat().st_size == 1 << 20
