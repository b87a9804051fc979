"""What must hold on this machine before an appliance starts: directories, memory, disk, locks. Nothing is changed."""

import fcntl
import json
import os
import pwd
import resource
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from math import ceil
from pathlib import Path

from appliance.config import Settings
from appliance.config.layers import PREFIX, SEPARATOR
from appliance.config.mistakes import SECTIONS
from appliance.exchanges.exchange import open_exchange

MIB = 1 << 20
GB = 1_000_000_000

# Binance listed 1,262 spot symbols that traded in August 2024; the rest is room for listings.
SYMBOLS_ESTIMATE = 1_600
TMPFS_OVERHEAD = 1.05  # page tables, .meta files
SEGMENTS_AHEAD = 2  # the one being written, and the next, made before it is needed
CAP_IPC_LOCK = 14

WHY_TMPFS = (
    "on a disk each write-back makes the hot path wait: commit p99.9 of 14 to 16 µs and up to 4.2 ms, instead of 0.28 µs and 20 µs on tmpfs"
)


class State(StrEnum):
    """FAIL: it will not run, or not collect everything. WARN: it will run, slower or shorter than need be."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    NOT_APPLICABLE = "n/a"


@dataclass(slots=True, frozen=True)
class Check:
    """One thing that was examined. `why` and `fix` where it is not as wanted."""

    id: str
    state: State
    found: str
    wanted: str = ""
    why: str = ""
    fix: str = ""


def examine(settings: Settings, environ: Mapping[str, str] | None = None) -> list[Check]:
    """All checks, in the order in which they are best mended."""
    ring_dir, journal_dir, name = settings.ring.dir, settings.journal.dir, settings.exchange.name
    return [
        *_variables(os.environ if environ is None else environ),
        _directory("ring.dir", ring_dir),
        _owned("ring.lock", ring_dir, name),
        _on_tmpfs(ring_dir),
        _ring_space(settings),
        _memory(settings),
        _mlock(settings),
        _directory("journal.dir", journal_dir),
        _owned("journal.lock", journal_dir, name),
        _on_disk(journal_dir),
        _journal_space(settings),
    ]


def exit_code(checks: Iterable[Check]) -> int:
    """0 when nothing fails, else 1."""
    return int(any(check.state == State.FAIL for check in checks))


def as_json(checks: Iterable[Check]) -> str:
    """The checks as a JSON list."""
    return json.dumps([asdict(check) for check in checks], indent=2, ensure_ascii=False)


def as_text(checks: Iterable[Check]) -> str:
    """The checks as lines: state, id, what was found; below what is not good, why that matters and what to do."""
    checks = list(checks)
    lines = []
    for check in checks:
        wanted = f"  (wanted {check.wanted})" if check.wanted and check.state != State.PASS else ""
        lines.append(f"{check.state.upper():<4}  {check.id:<14} {check.found}{wanted}")
        if check.state in (State.WARN, State.FAIL):
            lines += [f"      {word}: {text}" for word, text in (("why", check.why), ("fix", check.fix)) if text]
    count = {state: sum(check.state == state for check in checks) for state in State}
    verdict = "it can run" if not count[State.FAIL] else "it cannot run like this"
    lines.append(f"{count[State.PASS]} passed, {count[State.WARN]} warnings, {count[State.FAIL]} failed: {verdict}")
    return "\n".join(lines)


def _variables(environ: Mapping[str, str]) -> Iterator[Check]:
    """Variables that look like keys of ours and are none: only a double underscore makes one."""
    for name in sorted(environ):
        section = name.removeprefix(PREFIX).partition("_")[0].lower()
        if name.startswith(PREFIX) and SEPARATOR not in name and section in SECTIONS:
            meant = name.replace(f"_{section.upper()}_", f"_{section.upper()}{SEPARATOR}", 1)
            why = f"only variables with {SEPARATOR} between section and key are read"
            yield Check("environment", State.WARN, f"{name} is ignored", meant, why, f"rename it to {meant}, or unset it")


def _directory(id: str, path: Path) -> Check:
    me = _user(os.geteuid())
    wanted = f"a directory that {me} can write"
    mend = f"mkdir -p {path} && chown {me} {path} as root, or name another directory in the configuration"
    try:
        if not path.exists():
            parent = _existing(path)
            if parent.is_dir() and _is_writable(parent):
                return Check(id, State.PASS, f"{path} will be made in {parent}", wanted)
            return Check(id, State.FAIL, f"{path} is missing, and {me} cannot make it in {parent}", wanted, "", mend)
        if not path.is_dir():
            return Check(id, State.FAIL, f"{path} is a file", wanted, "", mend)
        status = path.stat()
    except OSError as error:
        return Check(id, State.FAIL, f"{path}: {error.strerror}", wanted, "", mend)
    found = f"{path}, owner {_user(status.st_uid)}, mode {status.st_mode & 0o7777:04o}"
    if not _is_writable(path):
        return Check(id, State.FAIL, f"{found}, not writable for {me}", wanted, "", mend)
    if status.st_mode & 0o002:
        return Check(id, State.WARN, found, "a mode without write for others", "anybody could replace the data", f"chmod o-w {path}")
    return Check(id, State.PASS, found, wanted)


def _owned(id: str, path: Path, exchange: str) -> Check:
    """Whether another appliance writes there, or another exchange's files are there."""
    wanted = f"no other appliance, no files but those of {exchange}"
    mend = "stop that one, or give this one directories of its own"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return Check(id, State.PASS, "free", wanted)
    except OSError as error:
        return Check(id, State.NOT_APPLICABLE, f"{path}: {error.strerror}", wanted)
    try:
        # Shared: two checks at once do not see each other. Let go at once.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return Check(id, State.FAIL, f"{path} belongs to a running appliance", wanted, "a directory has one writer", mend)
    finally:
        os.close(fd)
    for file in sorted(path.glob("*_trade_chunk*")):
        if (other := file.name.partition("_trade_chunk")[0]) != exchange:
            return Check(id, State.FAIL, f"{path} holds {file.name}, of {other}", wanted, "a directory belongs to one exchange", mend)
    return Check(id, State.PASS, "free", wanted)


def _on_tmpfs(path: Path) -> Check:
    kind = _file_system(path)
    if kind in ("tmpfs", "ramfs"):
        return Check("ring.tmpfs", State.PASS, kind, "tmpfs")
    if kind is None:
        return Check("ring.tmpfs", State.NOT_APPLICABLE, "/proc/self/mountinfo does not tell", "tmpfs")
    return Check("ring.tmpfs", State.WARN, kind, "tmpfs", WHY_TMPFS, "set [ring] dir to a directory below /run or /dev/shm")


def _on_disk(path: Path) -> Check:
    kind = _file_system(path)
    if kind is None:
        return Check("journal.disk", State.NOT_APPLICABLE, "/proc/self/mountinfo does not tell", "a disk")
    if kind in ("tmpfs", "ramfs"):
        mend = "set [journal] dir to a directory on a disk"
        return Check("journal.disk", State.WARN, kind, "a disk", "the journal is gone after a reboot or a power cut", mend)
    return Check("journal.disk", State.PASS, kind, "a disk")


def _chunks(settings: Settings) -> tuple[int, str, bool]:
    """How many chunks there will be, why so many, and whether that is certain."""
    include = settings.symbols.include
    if open_exchange(settings.exchange.name).by_channel:
        return 1, f"{settings.ring.capacity_mb} MiB for the channels of all instruments", True
    if settings.exchange.local:
        symbols, certain = settings.exchange.local_symbols, True
    elif not any(set("*?[") & set(pattern) for pattern in include):
        symbols, certain = len(include), True
    else:
        symbols, certain = SYMBOLS_ESTIMATE, False
    chunks = ceil(symbols / settings.feed.chunk_symbols)
    return chunks, f"{chunks} x {settings.ring.capacity_mb} MiB for {'' if certain else 'perhaps '}{symbols:,} symbols", certain


def _ring_bytes(settings: Settings) -> int:
    return int(_chunks(settings)[0] * settings.ring.capacity_mb * MIB * TMPFS_OVERHEAD)


def _ring_space(settings: Settings) -> Check:
    path = settings.ring.dir
    _, reckoned, certain = _chunks(settings)
    needed, free = _ring_bytes(settings), _free_bytes(path)
    if free is None:
        return Check("ring.space", State.NOT_APPLICABLE, f"{path}: cannot be asked", reckoned)
    free += _used_bytes(path, "*_trade_chunk*.data")  # taken over, or replaced
    found = f"{free / MIB:,.0f} MiB free or in use by these rings, {needed / MIB:,.0f} MiB needed: {reckoned}"
    if needed <= free:
        return Check("ring.space", State.PASS, found)
    one = settings.ring.capacity_mb * MIB * TMPFS_OVERHEAD
    state = State.FAIL if certain or free < one else State.WARN
    why = "symbols whose ring finds no room are not collected"
    return Check(
        "ring.space", state, found, "room for all rings", why, "a larger tmpfs (mount -o remount,size=…), or a smaller [ring] capacity_mb"
    )


def _memory(settings: Settings) -> Check:
    available = _proc_number("/proc/meminfo", "MemAvailable:", 10)
    if available is None or _file_system(settings.ring.dir) != "tmpfs":
        return Check("ring.memory", State.NOT_APPLICABLE, "the rings are not in memory, or /proc/meminfo does not tell")
    missing = max(0, _ring_bytes(settings) - _used_bytes(settings.ring.dir, "*_trade_chunk*.data"))
    found = f"{available / 1024:,.0f} MiB of memory available, {missing / MIB:,.0f} MiB more for the rings"
    if missing < available * 1024:
        return Check("ring.memory", State.PASS, found)
    return Check(
        "ring.memory", State.WARN, found, "memory for all rings", "the machine would swap, or end a process", "smaller [ring] capacity_mb"
    )


def _mlock(settings: Settings) -> Check:
    if not settings.ring.mlock:
        return Check("ring.mlock", State.NOT_APPLICABLE, "[ring] mlock = false")
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    capabilities = _proc_number("/proc/self/status", "CapEff:", 16) or 0
    needed = _ring_bytes(settings)
    if limit == resource.RLIM_INFINITY or limit >= needed or capabilities >> CAP_IPC_LOCK & 1:
        return Check("ring.mlock", State.PASS, "the rings can be locked in memory")
    found = f"{limit / MIB:,.0f} MiB may be locked, {needed / MIB:,.0f} MiB needed"
    why = "pages of the ring could be swapped out, and the hot path would wait for them"
    return Check("ring.mlock", State.WARN, found, "a limit above that", why, "LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited")


def _journal_space(settings: Settings) -> Check:
    path, journal = settings.journal.dir, settings.journal
    free = _free_bytes(path)
    if not journal.enabled:
        why = "what the rings hold is gone after a reboot, and overwritten by what comes later"
        return Check("journal.space", State.WARN, "[journal] enabled = false", "true", why, "leave the key out, but for measuring")
    volume = open_exchange(settings.exchange.name).volume
    bytes_a_day = volume.journal_bytes_a_day()
    raw_a_day = volume.raw_bytes_a_day(settings.feed.legs) if journal.raw_hours else 0
    raw = f", and {_size(raw_a_day)} of frames as received" if raw_a_day else ""
    a_day = f"{_size(bytes_a_day)} a day at {volume.trades_per_s:,} trades/s{raw}"
    if free is None:
        return Check("journal.space", State.NOT_APPLICABLE, f"{path}: cannot be asked; {a_day}")
    kept_free = journal.keep_free_gb * GB
    ahead = _chunks(settings)[0] * SEGMENTS_AHEAD * journal.segment_mb * MIB
    room = max(0.0, free + _used_bytes(path, "*_trade_chunk*.journal") + _used_bytes(path / "raw", "*.raw") - kept_free)
    raw_bytes = raw_a_day * journal.raw_hours / 24
    hours = max(0.0, room - raw_bytes) / bytes_a_day * 24
    beside = f"keep_free_gb = {journal.keep_free_gb:g}" + (
        f" and {_size(raw_bytes)} for raw_hours = {journal.raw_hours}" if raw_a_day else ""
    )
    found = f"{free / GB:,.1f} GB free; {a_day}: room for {hours:,.0f} h beside {beside}"
    mend = f"a larger disk, or smaller [journal] keep_hours, keep_free_gb, segment_mb{', raw_hours' if raw_a_day else ''}"
    if room < ahead:
        wanted = f"{(ahead + kept_free) / GB:,.1f} GB for the segments that are made ahead"
        return Check("journal.space", State.FAIL, found, wanted, "the journal could not begin", mend)
    if hours < journal.keep_hours or raw_bytes > room:
        oldest = "the oldest frames as received, then the oldest segments" if raw_a_day else "the oldest segments"
        why = f"at that rate {oldest} are deleted for lack of space before their time"
        return Check("journal.space", State.WARN, found, f"keep_hours = {journal.keep_hours}", why, mend)
    return Check("journal.space", State.PASS, found)


def _size(count: float) -> str:
    return f"{count / GB:,.0f} GB" if count >= 10 * GB else f"{count / GB:,.1f} GB"


def _existing(path: Path) -> Path:
    """The path, or the nearest directory above it that exists."""
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _is_writable(path: Path) -> bool:
    return os.access(path, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _file_system(path: Path) -> str | None:
    """The type of the file system that a path is on or will be on."""
    try:
        real = _existing(path).resolve()
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    best, kind = Path("/"), None
    for line in mounts:
        before, _, behind = line.partition(" - ")
        mount = Path(before.split()[4].encode().decode("unicode_escape"))  # blanks are \040
        # A later mount on the same place hides the earlier one.
        if real.is_relative_to(mount) and mount.is_relative_to(best):
            best, kind = mount, behind.split()[0]
    return kind


def _free_bytes(path: Path) -> int | None:
    try:
        status = os.statvfs(_existing(path))
    except OSError:
        return None
    return status.f_bavail * status.f_frsize


def _used_bytes(path: Path, pattern: str) -> int:
    try:
        return sum(file.stat().st_blocks * 512 for file in path.glob(pattern))
    except OSError:
        return 0


def _proc_number(path: str, name: str, base: int) -> int | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1], base) for line in lines if line.startswith(name)), None)
