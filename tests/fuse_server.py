"""A disk that fails on command: a flat FUSE file system as a process of its own. Commands are JSON lines on stdin, answers on stdout.

It holds each file twice, as programs see it and as the platter has it: a write is on the platter after a sync of the file that
succeeded, a name after one of the directory. A power cut leaves what is on the platter, and any part of the rest.
"""

import errno
import json
import os
import random
import stat
import sys
import threading
import time
from pathlib import Path
from typing import Any

import mfusepy

from appliance.feed.children import die_with_parent

SECTOR_BYTES = 512  # what a disk writes whole or not at all
ROOT = "/"
NAMES_KEPT_MAX = 1_000  # states of the directory that a power cut may leave


class Platter:
    """What survives a power cut: the contents and names that were synced, and by chance some of what came later."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._directory.mkdir()
        self._pending: dict[int, list[tuple[int, bytes | None]]] = {}  # offset and bytes; None: cut to that length
        self._names: dict[str, int] = {}
        self._later_names: list[dict[str, int]] = []

    def path(self, number: int) -> Path:
        return self._directory / str(number)

    def write(self, number: int, offset: int, content: bytes) -> None:
        self._pending.setdefault(number, []).append((offset, content))

    def resize(self, number: int, size: int) -> None:
        self._pending.setdefault(number, []).append((size, None))

    def sync(self, number: int) -> None:
        """All of a file that was written before is on the platter now."""
        self._apply(number, self._pending.pop(number, []))

    def forget(self, number: int) -> None:
        """A sync failed: what was to be written counts as written from now on, and is not (T24)."""
        self._pending.pop(number, None)

    def name(self, names: dict[str, int]) -> None:
        """The directory was changed; not on the platter yet."""
        self._later_names = [*self._later_names[-NAMES_KEPT_MAX:], dict(names)]

    def sync_names(self, names: dict[str, int]) -> None:
        self._names = dict(names)
        self._later_names.clear()

    def cut(self, chance: random.Random, kept: float) -> dict[str, int]:
        """The power goes: of what was not synced each sector is there with this probability. The names that are left."""
        for number, pending in self._pending.items():
            survivors: list[tuple[int, bytes | None]] = []
            for offset, content in pending:
                if content is None:
                    survivors += [(offset, None)] if chance.random() < kept else []
                    continue
                for at in range(0, len(content), SECTOR_BYTES):
                    if chance.random() < kept:
                        survivors.append((offset + at, content[at : at + SECTOR_BYTES]))
            self._apply(number, survivors)
        self._pending.clear()
        if self._later_names and chance.random() < kept:
            self._names = chance.choice(self._later_names)
        self._later_names.clear()
        for name, number in self._names.items():
            assert name
            self.path(number).touch()
        return dict(self._names)

    def _apply(self, number: int, changes: list[tuple[int, bytes | None]]) -> None:
        fd = os.open(self.path(number), os.O_CREAT | os.O_RDWR)
        try:
            for offset, content in changes:
                if content is None:
                    os.ftruncate(fd, offset)
                else:
                    os.pwrite(fd, content, offset)
        finally:
            os.close(fd)


class Disk:
    """The file system's operations, as mfusepy calls them, from several threads; and what is wrong with it just now."""

    use_ns = True

    def __init__(self, directory: Path) -> None:
        self._live = directory / "live"
        self._live.mkdir()
        self._platter = Platter(directory / "platter")
        self._names: dict[str, int] = {}
        self._files = 0  # ever made
        self._lock = threading.RLock()
        self._flowing = threading.Event()  # cleared: writes and syncs hang
        self._flowing.set()
        self._pace = threading.Lock()  # a slow disk writes one thing at a time
        self._bytes_per_s = 0  # 0: as fast as it goes
        self._errors: dict[str, int] = {}
        self._times: dict[str, int] = {}
        self._counts = {"write": 0, "sync": 0, "make": 0, "failed": 0, "bytes": 0}
        self._off = False

    # What the tests command.

    def fail(self, errors: dict[str, int], times: int) -> None:
        """From now on each operation of these kinds (write, sync, make) ends in this errno; so many times, 0: always."""
        with self._lock:
            self._errors = dict(errors)
            self._times = dict.fromkeys(errors, times)

    def stall(self, on: bool) -> None:
        self._flowing.clear() if on else self._flowing.set()

    def pace(self, bytes_per_s: int) -> None:
        self._bytes_per_s = bytes_per_s

    def cut(self, seed: int, kept: float) -> None:
        """The power goes, now. Until `restore` every operation fails."""
        with self._lock:
            self._off = True
            self._names = self._platter.cut(random.Random(seed), kept)
        self._flowing.set()

    def restore(self) -> None:
        """The power is back: what the platter has is what there is."""
        with self._lock:
            for old in self._live.iterdir():
                old.unlink()
            for number in self._names.values():
                (self._live / str(number)).write_bytes(self._platter.path(number).read_bytes())
            self._errors, self._bytes_per_s, self._off = {}, 0, False

    def counts(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counts)

    # What programs do with it.

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        with self._lock:
            if path == ROOT:
                return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2, "st_uid": os.getuid(), "st_gid": os.getgid()}
            found = (self._live / str(self._number(path))).stat()
            names = ("st_mode", "st_nlink", "st_size", "st_blocks", "st_uid", "st_gid")
            times = {name: getattr(found, f"{name}_ns") for name in ("st_atime", "st_mtime", "st_ctime")}
            return {name: getattr(found, name) for name in names} | times

    def readdir(self, path: str, fh: int) -> list[str]:
        with self._lock:
            self._powered()
            return [".", "..", *self._names]

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self._live)
        names = ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_namemax")
        free = 0 if errno.ENOSPC in self._errors.values() else None
        return {name: getattr(found, name) if free is None or name not in ("f_bfree", "f_bavail") else free for name in names}

    def create(self, path: str, mode: int, flags: int) -> int:
        self._begin("make")
        with self._lock:
            self._files += 1
            number = self._files
            fd = os.open(self._live / str(number), os.O_CREAT | os.O_RDWR, stat.S_IMODE(mode))
            self._names[path[1:]] = number
            self._platter.resize(number, 0)
            self._platter.name(self._names)
            return fd

    def open(self, path: str, flags: int) -> int:
        with self._lock:
            self._powered()
            if flags & os.O_TRUNC:
                self.truncate(path, 0)
            return os.open(self._live / str(self._number(path)), os.O_RDWR)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        self._powered()
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self._begin("write")
        if self._bytes_per_s:
            with self._pace:
                time.sleep(len(data) / self._bytes_per_s)  # the speed of the disk
        with self._lock:
            self._powered()
            done = os.pwrite(fh, data, offset)
            self._platter.write(self._number_of(fh), offset, data)
            self._counts["bytes"] += done
            return done

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        self._begin("make")
        with self._lock:
            os.truncate(self._live / str(self._number(path)), length)
            self._platter.resize(self._number(path), length)
        return 0

    def fallocate(self, path: str, mode: int, offset: int, size: int, fh: int) -> int:
        self._begin("make")
        if mode:
            raise OSError(errno.EOPNOTSUPP, "fallocate")
        with self._lock:
            if os.fstat(fh).st_size < offset + size:
                os.ftruncate(fh, offset + size)
                self._platter.resize(self._number_of(fh), offset + size)
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        with self._lock:
            number = self._number_of(fh)
        try:
            self._begin("sync")
        except OSError:
            with self._lock:
                self._platter.forget(number)
            raise
        with self._lock:
            self._powered()
            self._platter.sync(number)
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        self._begin("sync")
        with self._lock:
            self._powered()
            self._platter.sync_names(self._names)
        return 0

    def unlink(self, path: str) -> int:
        self._begin("make")
        with self._lock:
            (self._live / str(self._number(path))).unlink()
            del self._names[path[1:]]
            self._platter.name(self._names)
        return 0

    def rename(self, old: str, new: str, flags: int = 0) -> int:
        self._begin("make")
        with self._lock:
            number = self._number(old)
            if (replaced := self._names.pop(new[1:], None)) is not None:
                (self._live / str(replaced)).unlink()
            del self._names[old[1:]]
            self._names[new[1:]] = number
            self._platter.name(self._names)
        return 0

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def chmod(self, path: str, mode: int) -> int:
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        return 0

    def init(self, path: str) -> None:
        """Mounted."""
        answer({"mounted": True})

    def destroy(self, path: str) -> None:
        """Unmounted."""

    def _number(self, path: str) -> int:
        try:
            return self._names[path[1:]]
        except KeyError:
            raise OSError(errno.ENOENT, path) from None

    def _number_of(self, fh: int) -> int:
        return int(Path(f"/proc/self/fd/{fh}").readlink().name.partition(" ")[0])  # "7", or "7 (deleted)"

    def _powered(self) -> None:
        if self._off:
            raise OSError(errno.EIO, "no power")

    def _begin(self, what: str) -> None:
        """Wait while the disk stalls; then fail if it shall."""
        with self._lock:
            self._counts[what] += 1
        self._flowing.wait()
        with self._lock:
            self._powered()
            number = self._errors.get(what, 0)
            if not number:
                return
            if self._times[what]:
                self._times[what] -= 1
                if not self._times[what]:
                    del self._errors[what]
            self._counts["failed"] += 1
            raise OSError(number, os.strerror(number))


def answer(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def obey(disk: Disk) -> None:
    """One command after the other, each answered when it is in force."""
    for line in sys.stdin:
        command: dict[str, Any] = json.loads(line)
        answer({"done": getattr(disk, command.pop("do"))(**command)})


def main(directory: str, mountpoint: str) -> None:
    die_with_parent()
    disk = Disk(Path(directory))
    threading.Thread(target=obey, args=(disk,), daemon=True).start()
    # Nothing is cached by the kernel: a power cut must not be survived there.
    mfusepy.FUSE(
        disk, mountpoint, foreground=True, fsname="fuse_disk", attr_timeout=0, entry_timeout=0, negative_timeout=0, hard_remove=True
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
