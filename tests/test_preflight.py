"""What `--check` says about the machine, shown on directories that are made for it."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance import preflight
from appliance.config import Settings, load
from appliance.exchanges.exchange import open_exchange
from appliance.preflight import Check, State

SHM = Path("/dev/shm")

Examine = Callable[..., dict[str, Check]]


@pytest.fixture
def shm(tmp_path: Path) -> Iterator[Path]:
    """A place on tmpfs."""
    if not SHM.is_dir() or not os.access(SHM, os.W_OK):
        pytest.skip("no writable /dev/shm")
    path = SHM / f"mdc-test-{os.getpid()}-{tmp_path.name}"
    path.mkdir()
    yield path
    for file in path.iterdir():
        file.unlink()
    path.rmdir()


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Settings]:
    def made(**environ: str) -> Settings:
        path = tmp_path / "mdc.toml"
        path.write_text('[exchange]\nname = "binance"\nlocal = true\n')
        defaults = {"MDC_RING__DIR": f"{tmp_path}/ring", "MDC_JOURNAL__DIR": f"{tmp_path}/journal", "MDC_RING__CAPACITY_MB": "16"}
        return load(path, defaults | environ)

    return made


@pytest.fixture
def examine(settings: Callable[..., Settings]) -> Examine:
    return lambda **environ: {check.id: check for check in preflight.examine(settings(**environ), environ)}


def test_nothing_is_made_by_looking(examine: Examine, tmp_path: Path) -> None:
    checks = examine()
    assert checks["ring.dir"].state == checks["journal.dir"].state == State.PASS
    assert "will be made" in checks["ring.dir"].found
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mdc.toml"]


def test_a_ring_on_tmpfs_is_good_and_a_journal_there_is_not(examine: Examine, shm: Path, tmp_path: Path) -> None:
    checks = examine(MDC_RING__DIR=str(shm))
    assert checks["ring.tmpfs"].state == State.PASS
    checks = examine(MDC_JOURNAL__DIR=str(shm))
    assert checks["journal.disk"].state == State.WARN
    assert "power cut" in checks["journal.disk"].why


def test_a_ring_on_a_disk_is_a_warning_that_names_its_cost(examine: Examine, tmp_path: Path) -> None:
    check = examine()["ring.tmpfs"]
    if check.found == "tmpfs":
        pytest.skip("the temporary directory is on tmpfs")
    assert check.state == State.WARN
    assert "4.2 ms" in check.why


def test_a_file_in_the_place_of_a_directory_fails(examine: Examine, tmp_path: Path) -> None:
    (tmp_path / "ring").write_text("")
    assert examine()["ring.dir"].state == State.FAIL
    assert examine(MDC_RING__DIR=f"{tmp_path}/ring/below")["ring.dir"].state == State.FAIL


def test_a_place_that_this_user_cannot_write_fails(settings: Callable[..., Settings]) -> None:
    made = settings(MDC_RING__DIR="/mdc-nowhere/ring", MDC_JOURNAL__DIR="/mdc-nowhere/journal")
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        checks = {check.id: check for check in preflight.examine(made, {})}
    finally:
        if is_root:
            os.seteuid(0)
    assert checks["ring.dir"].state == checks["journal.dir"].state == State.FAIL
    assert "mkdir -p /mdc-nowhere/ring" in checks["ring.dir"].fix


def test_a_directory_that_others_may_write_is_a_warning(examine: Examine, tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal").chmod(0o777)
    assert examine()["journal.dir"].state == State.WARN


def test_a_running_appliance_is_seen_and_not_disturbed(examine: Examine, tmp_path: Path) -> None:
    (tmp_path / "ring").mkdir()
    fd = os.open(tmp_path / "ring", os.O_RDONLY)
    try:
        assert examine()["ring.lock"].state == State.PASS
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert examine()["ring.lock"].state == State.FAIL
        assert examine()["journal.lock"].state == State.PASS
    finally:
        os.close(fd)


def test_another_exchanges_files_are_seen(examine: Examine, tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "deribit_trade_chunk0.1.journal").write_text("")
    check = examine()["journal.lock"]
    assert check.state == State.FAIL
    assert "deribit" in check.found


def test_rings_that_find_no_room_fail_before_the_start(examine: Examine, shm: Path) -> None:
    room = os.statvfs(shm)
    enough_mb = 1 << (room.f_bavail * room.f_frsize // (1 << 20)).bit_length()
    check = examine(MDC_RING__DIR=str(shm), MDC_RING__CAPACITY_MB=str(min(enough_mb, 65_536)), MDC_FEED__CHUNK_SYMBOLS="1")["ring.space"]
    assert check.state == State.FAIL
    assert "500 symbols" in check.found


def test_the_journals_need_is_set_against_the_free_space(examine: Examine) -> None:
    check = examine()["journal.space"]
    assert "45 GB a day at 1,500 trades/s" in check.found
    assert "GB free" in check.found
    assert examine(MDC_JOURNAL__KEEP_HOURS="1000000")["journal.space"].state in (State.WARN, State.FAIL)
    full = examine(MDC_JOURNAL__KEEP_FREE_GB="999999")["journal.space"]
    assert full.state == State.FAIL
    assert "keep_free_gb" in full.fix


def test_each_exchange_has_its_own_figures(examine: Examine, settings: Callable[..., Settings]) -> None:
    check = {check.id: check for check in preflight.examine(settings(MDC_EXCHANGE__NAME="deribit", MDC_DERIBIT__INTERVAL="100ms"), {})}
    assert "1.0 GB a day at 20 trades/s" in check["journal.space"].found
    for name, frame_bytes in (("binance", 168), ("deribit", 500)):
        volume = open_exchange(name).volume
        assert 200 < volume.record_bytes < 1_000
        assert volume.raw_bytes_again < volume.raw_bytes < frame_bytes


def test_frames_as_received_are_part_of_the_reckoning(examine: Examine) -> None:
    """With `raw_hours` the same disk holds fewer hours of the journal, by what the frames of all legs take."""
    without = examine()["journal.space"]
    assert "frames" not in without.found
    for legs, a_day in (("1", "2.1 GB"), ("2", "3.4 GB")):
        check = examine(MDC_JOURNAL__RAW_HOURS="48", MDC_FEED__LEGS=legs, MDC_JOURNAL__KEEP_HOURS="0")["journal.space"]
        assert f"and {a_day} of frames as received" in check.found
        assert "for raw_hours = 48" in check.found
        assert room_h(check) < room_h(without)
    beyond = examine(MDC_JOURNAL__RAW_HOURS="1000000", MDC_JOURNAL__KEEP_HOURS="0")["journal.space"]
    assert beyond.state == State.WARN
    assert "frames as received" in beyond.why
    assert "raw_hours" in beyond.fix


def room_h(check: Check) -> int:
    return int(check.found.partition("room for ")[2].partition(" h")[0].replace(",", ""))


def test_a_variable_that_misses_an_underscore_is_pointed_out(examine: Examine) -> None:
    check = examine(MDC_EXCHANGE_WS_URL="wss://x", MDC_CAPTURES="/c", MDC_RINGS="/r")["environment"]
    assert check.state == State.WARN
    assert "MDC_EXCHANGE__WS_URL" in check.wanted


def test_the_report_is_the_same_for_people_and_programs(settings: Callable[..., Settings]) -> None:
    checks = preflight.examine(settings(), {})
    text = preflight.as_text(checks).splitlines()
    for item in json.loads(preflight.as_json(checks)):
        assert set(item) == {"id", "state", "found", "wanted", "why", "fix"}
        assert any(line.startswith(item["state"].upper()) and item["id"] in line and item["found"] in line for line in text)


def test_only_a_failure_makes_the_check_fail() -> None:
    good, warned, bad = (Check("x", state, "") for state in (State.PASS, State.WARN, State.FAIL))
    assert preflight.exit_code([good, warned]) == 0
    assert preflight.exit_code([good, bad]) == 1
