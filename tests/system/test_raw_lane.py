"""The raw lane end to end: what a local exchange sent is what `mdc replay` prints, and decoded anew it is what the journal has."""

import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from appliance import Status, Trade, open_rings
from appliance.ring.layout import RecordType
from appliance.ring.raw_segments import segments
from appliance.ring.reader import RingReader
from appliance.ring.store import ChunkStore, StoreOptions
from tests.local_exchange import LocalExchange, local_exchange
from tests.mounts import Mounts
from tests.system.appliance_process import Site, appliance, site
from tests.system.deribit_site import config as deribit_config
from tests.system.deribit_site import deribit_site

LANE = "raw_hours = 1"
FRAMES = 8_000
TOKEN = '_token"'


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as one:
        yield one


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with deribit_site(tmp_path, monkeypatch) as one:
        yield one


def replay(directory: Path, *flags: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", "from appliance.cli import main; main()", "replay", "--raw", str(directory), *flags],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def binance_config(here: Site, exchange: LocalExchange, feed: str = "legs = 2", journal: str = LANE) -> Path:
    return here.config(f'rest_url = "{exchange.rest_url}"\nws_url = "{exchange.ws_url}"', feed=feed, journal=journal)


def nth(number: int) -> int:
    """Which trade frame this is: two of a hundred are none."""
    return number - 2 * (number // 100 + (number % 100 > 50))


def binance_frame(number: int) -> str:
    """Also what is no trade, and what is broken."""
    if number % 100 == 50:
        return f'{{"stream":"btcusdt@kline_1m","data":{{"e":"kline","n":{number}}}}}'
    if number % 100 == 51:
        return f'{{"stream":"btcusdt@trade","data":{{"e":"trade","t":{number}'
    number = nth(number)
    symbol = ("BTCUSDT", "ETHUSDT")[number % 2]
    return (
        f'{{"stream":"{symbol.lower()}@trade","data":{{"e":"trade","E":1790649901913,"s":"{symbol}","t":{7_000_000 + number // 2},"p":'
        f'"{83_034 + number % 77}.29000000","q":"0.000{number % 97 + 100}","T":{1790649901913 + number},'
        f'"m":{str(number % 3 == 0).lower()},"M":true}}}}'
    )


def deribit_frame(number: int) -> str:
    if number % 100 in (50, 51):
        return f'{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"ticker.BTC-PERPETUAL.raw","data":{{"n":{number}}}}}}}'
    number = nth(number)
    rows = ",".join(
        f'{{"timestamp":{1790649901913 + number},"price":{83_034 + number % 77}.5,"direction":"{("buy", "sell")[number % 2]}",'
        f'"instrument_name":"{name}","index_price":83000.25,"trade_id":"{90_000_000 + 2 * number + at}","trade_seq":{7_000_000 + number},'
        f'"amount":{number % 9 + 1}.0,"mark_price":83001.75,"tick_direction":{number % 4}}}'
        for at, name in enumerate(("BTC-PERPETUAL", "ETH-PERPETUAL"))
    )
    return f'{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"trades.future.any.raw","data":[{rows}]}}}}'


def frames(directory: Path) -> dict[int, list[str]]:
    """By leg, in the order of `mdc replay --json`."""
    code, out, _ = replay(directory, "--json")
    assert code == 0
    by_leg: defaultdict[int, list[str]] = defaultdict(list)
    for line in map(json.loads, out.splitlines()):
        assert list(line) == ["recv_ts_ns", "leg", "chunk", "frame"]
        by_leg[line["leg"]].append(line["frame"])
    return by_leg


def compared(directory: Path, *flags: str) -> tuple[int, dict[str, Any]]:
    code, out, err = replay(directory, "--compare", "--json", *flags)
    assert code in (0, 1), err
    (one,) = json.loads(out)
    return code, one


@pytest.mark.parametrize("name", ["binance", "deribit"])
def test_what_was_sent_is_replayed_and_decoded_anew_it_is_the_journal(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    here: Site = request.getfixturevalue("here" if name == "binance" else "there")
    sent = [(binance_frame if name == "binance" else deribit_frame)(number) for number in range(FRAMES)]
    capture = tmp_path / "frames.jsonl"
    capture.write_text("\n".join(sent))
    with local_exchange("--capture", str(capture), "--start-after", "2", name=name) as exchange:
        config = binance_config(here, exchange) if name == "binance" else deribit_config(here, exchange, journal=LANE)
        with appliance(config) as one:
            one.ready()
            exchange.wait(lambda stats: stats["finished"] and stats["unsent_bytes"] == 0)
            assert one.stop() == 0
    replayed = frames(here.journal_dir)
    assert sorted(replayed) == [0, 1]
    assert len(replayed[0]) > len(sent)
    for leg, texts in replayed.items():
        of_the_recording = set(sent)
        assert [text for text in texts if text in of_the_recording] == sent, leg
        # The others are answers to requests of ours; the one to a login is left out.
        assert len(texts) - len(sent) < 20
        assert not any(TOKEN in text for text in texts)
    if name == "deribit":
        assert not any(b"mdc-demo-secret" in path.read_bytes() for path in here.journal_dir.rglob("*") if path.is_file())
    code, out, _ = replay(here.journal_dir, "--decode", "--json")
    assert code == 0
    anew = [json.loads(line, parse_float=str) for line in out.splitlines()]
    stored = [json.loads(value.payload, parse_float=str) for value in open_rings(here.journal_dir) if isinstance(value, Trade)]
    ours = {"writer_ts_ms", "parse_ts_ms", "enqueue_ts_ms", "redecoded"}
    assert [{key: one[key] for key in one if key not in ours} for one in anew] == [
        {key: one[key] for key in one if key not in ours} for one in stored
    ]
    assert len(stored) > FRAMES * 0.9
    for directory in (here.journal_dir, here.journal_dir / "raw", here.ring_dir):
        code, verdict = compared(directory)
        assert (code, verdict["equal"], verdict["copies"]) == (0, len(stored), len(stored))
        assert verdict["outcomes"].get("MALFORMED", 0) == (2 * FRAMES // 100 if name == "binance" else 0)
    shown = replay(here.journal_dir, "--decode", "--filter", stored[0]["asset"])[1].splitlines()
    assert len(shown) == sum(one["asset"] == stored[0]["asset"] for one in stored)
    assert all(stored[0]["asset"] in line for line in shown)


def test_a_time_chooses_frames_and_their_trades(here: Site) -> None:
    with local_exchange("--symbols", "20", "--rate", "4000") as exchange, appliance(binance_config(here, exchange)) as one:
        one.ready()
        exchange.wait(lambda stats: stats["trades_sent"] > 16_000)
        assert one.stop() == 0
    every = [json.loads(line) for line in replay(here.journal_dir, "--json")[1].splitlines()]
    first, last = (every[len(every) * share // 4]["recv_ts_ns"] // 1_000 * 1_000 for share in (1, 3))
    limits = ("--from", iso(first), "--to", iso(last))
    within = [json.loads(line) for line in replay(here.journal_dir, "--json", *limits)[1].splitlines()]
    assert within == [one for one in every if first <= one["recv_ts_ns"] < last]
    code, verdict = compared(here.journal_dir, *limits)
    assert (code, verdict["frames"]) == (0, len(within))
    assert verdict["equal"] + verdict["copies"] > len(within) * 0.9


def iso(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{time_ns // 1_000 % 1_000_000:06}"


def test_killed_in_between_the_lane_is_read_up_to_its_last_whole_block(here: Site) -> None:
    """T25, T26: each start has segments of its own, and what a kill cost is not taken for a difference."""
    with local_exchange("--symbols", "20", "--rate", "5000", "--fault", "connects=100000") as exchange:
        config = binance_config(here, exchange)
        for start in range(3):
            with appliance(config) as one:
                one.ready()
                one.wait(lambda start=start: len(segments(here.journal_dir / "raw")) > start)  # type: ignore[misc]
                ring = RingReader(here.ring_dir / "binance_trade_chunk0.meta")
                before = ring.committed_sequence
                one.wait(lambda ring=ring, before=before: ring.committed_sequence > before + 10_000)  # type: ignore[misc]
                ring.close()
                if start < 2:
                    one.process.send_signal(signal.SIGKILL)
                    one.ended()
                else:
                    assert one.stop() == 0
    oldest = segments(here.journal_dir / "raw")[0].path
    oldest.write_bytes(oldest.read_bytes()[:-300])  # torn, as by a power cut
    code, out, err = replay(here.journal_dir, "--json")
    assert code == 0
    assert "are no whole block" in err
    assert len(out.splitlines()) > 20_000
    code, verdict = compared(here.journal_dir)
    assert (code, verdict["differing"], verdict["not_in_journal"], verdict["not_in_frames"]) == (0, 0, 0, 0)
    assert verdict["equal"] > 20_000
    assert verdict["uncovered"] > 0
    assert verdict["unreadable_bytes"] > 0


def test_a_journal_that_differs_is_told_field_by_field(here: Site, tmp_path: Path) -> None:
    sent = [binance_frame(number) for number in range(2_000)]
    capture = tmp_path / "frames.jsonl"
    capture.write_text("\n".join(sent))
    with (
        local_exchange("--capture", str(capture), "--start-after", "1") as exchange,
        appliance(binance_config(here, exchange, feed="legs = 1")) as one,
    ):
        one.ready()
        exchange.wait(lambda stats: stats["finished"] and stats["unsent_bytes"] == 0)
        assert one.stop() == 0
    changed = here.journal_dir / "copy"
    changed.mkdir()
    (changed / "binance_chunks.json").write_bytes((here.journal_dir / "binance_chunks.json").read_bytes())
    # What another decoder might have made of them: other digits, and one trade of another id.
    rewrite(here, changed)
    (changed / "raw").symlink_to(here.journal_dir / "raw")
    code, verdict = compared(changed)
    assert code == 1
    assert (verdict["differing"], verdict["not_in_journal"], verdict["not_in_frames"]) == (1, 1, 1)
    (difference,) = verdict["differences"]
    assert (difference["asset"], difference["id"]) == ("BTCUSDT", 7_000_100)
    assert difference["fields"] == {"px": ["1.29000000", "83080.29000000"]}
    assert [one["id"] for one in verdict["not_in_journal_list"]] == [7_000_200]
    assert [one["id"] for one in verdict["not_in_frames_list"]] == [9_000_200]
    code, out, _ = replay(changed, "--compare")
    assert code == 1
    assert "px: journal 1.29000000, frame 83080.29000000" in out


def rewrite(here: Site, directory: Path) -> None:
    """A journal with the same trades, but for two of them."""
    ring_dir = directory / "ring"
    ring_dir.mkdir()
    store = ChunkStore.open(ring_dir, directory, "binance", 0, StoreOptions(capacity_bytes=1 << 22, segment_bytes=1 << 22, mlock=False))
    store.start()
    for value in open_rings(here.journal_dir):
        if isinstance(value, Trade):
            payload = value.payload
            if (value.asset, value.exchange_trade_id) == ("BTCUSDT", 7_000_100):
                payload = payload.replace(b'"px":83080', b'"px":1')
            if (value.asset, value.exchange_trade_id) == ("BTCUSDT", 7_000_200):
                payload = payload.replace(b'"exchange_trade_id":7000200', b'"exchange_trade_id":9000200')
            store.writer.append(RecordType.TRADE, payload, 0, value.recv_ts_ns)
    assert store.drain(10.0)


def test_a_full_disk_of_the_lane_alone_never_stops_the_feed(here: Site, mounts: Mounts) -> None:
    here.journal_dir.mkdir()
    mounts.tmpfs(here.journal_dir / "raw", 1 << 20)
    with local_exchange("--symbols", "20", "--rate", "20000") as exchange:
        config = binance_config(here, exchange, journal=f"{LANE}\nraw_buffer_mb = 1")
        with appliance(config) as one:
            one.ready()
            ring = RingReader(here.ring_dir / "binance_trade_chunk0.meta")
            one.wait(lambda: ring.counters()["raw_shed"] > 10_000)
            assert ring.mode == "safe"
            one.wait(lambda: one.logged("raw_failing") and one.logged("raw_shedding"))
            for segment in segments(here.journal_dir / "raw")[:-1] or segments(here.journal_dir / "raw"):
                segment.path.unlink()
            one.wait(lambda: one.logged("keeps all frames again"))
            assert one.stop() == 0
            assert ring.counters()["gaps_open"] == 0
            ring.close()
    assert {"raw_shedding", "raw_shed"} <= set(here.events())
    code, _, err = replay(here.journal_dir, "--json")
    assert code == 0
    assert "frames were shed here" in err
    code, verdict = compared(here.journal_dir)
    assert (code, verdict["differing"], verdict["not_in_journal"], verdict["not_in_frames"]) == (0, 0, 0, 0)


def test_what_is_older_than_its_hours_is_deleted_whole_and_said_so(here: Site) -> None:
    with local_exchange("--symbols", "5", "--rate", "2000", "--fault", "connects=100000") as exchange:
        config = binance_config(here, exchange)
        for _ in range(2):
            with appliance(config) as one:
                one.ready()
                one.wait(lambda: any(path.stat().st_size > 256 for path in (here.journal_dir / "raw").glob("*.raw")))
                assert one.stop() == 0
        old, young = segments(here.journal_dir / "raw")
        hours_ago_ns = young.created_ns - 2 * 3_600_000_000_000
        os.utime(old.path, ns=(hours_ago_ns, hours_ago_ns))
        with appliance(config) as one:
            one.ready()
            one.wait(lambda: not old.path.exists())
            assert one.stop() == 0
    assert young.path.exists()
    (deleted,) = (value for value in open_rings(here.journal_dir) if isinstance(value, Status) and value.event == "raw_segments_deleted")
    assert (deleted.fields["segments"], deleted.fields["first"]) == (1, old.path.name)


def test_off_it_leaves_no_trace_and_replay_says_what_is_missing(here: Site) -> None:
    with local_exchange("--symbols", "5", "--rate", "1000") as exchange, appliance(binance_config(here, exchange, journal="")) as one:
        one.ready()
        exchange.wait(lambda stats: stats["trades_sent"] > 500)
        assert one.stop() == 0
    assert not (here.journal_dir / "raw").exists()
    code, out, err = replay(here.journal_dir)
    assert (code, out) == (3, "")
    assert "raw_hours" in err
