"""The bytes that other programs rely on: sizes, offsets, checksums."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from appliance.ring import layout


def test_the_sizes_of_all_structures_are_those_of_format_version_1() -> None:
    assert layout.FORMAT == 1
    assert layout.sizes() == {"RecordHeader": 64, "Meta": 98304, "JournalHeader": 65536, "Histogram": 7840, "FlushMark": 16}
    assert (layout.BLOCK, layout.RECORD_HEADER, layout.PAYLOAD_MAX) == (65536, 64, 65472)
    assert (layout.JOURNAL_HEADER, layout.META_SIZE) == (65536, 98304)


def test_the_offsets_within_meta_are_those_of_format_version_1() -> None:
    assert layout.offsets() == {
        "capacity": 32,
        "first_position": 176,
        "journal_dir": 1024,
        "claimed": 4096,
        "committed": 4224,
        "flushed": 4352,
        "watermark_ns": 4480,
        "heartbeat_ns": 4608,
        "mode": 4736,
        "replaced": 4744,
        "counters": 8192,
        "flusher_counters": 9728,
        "recv_to_commit_ns": 12288,
        "fdatasync_ns": 20480,
        "flush_marks_count": 28672,
        "flush_marks": 32768,
    }


def test_every_cursor_stands_alone_on_two_cache_lines() -> None:
    offsets = layout.offsets()
    cursors = sorted(offsets[name] for name in ("claimed", "committed", "flushed", "watermark_ns", "heartbeat_ns", "mode"))
    assert all(later - earlier >= 128 for earlier, later in itertools.pairwise(cursors))
    assert all(offset % 128 == 0 for offset in cursors)


def test_types_flags_and_counters_keep_their_numbers() -> None:
    assert {kind.name: kind.value for kind in layout.RecordType} == {
        "TRADE": 1, "GAP": 2, "GAP_CLOSED": 3, "HOLE": 4, "BOUNDARY": 5, "STATUS": 6, "SNAPSHOT": 7, "PADDING": 0x50,
    }  # fmt: skip
    assert (layout.Flags.FLAG_LEG_MASK, layout.Flags.FLAG_BACKFILLED, layout.Flags.FLAG_LATE) == (7, 8, 16)
    assert layout.COUNTER_NAMES[0] == "trades"
    assert layout.COUNTER_NAMES[72] == "leg0_wins"
    assert layout.COUNTER_NAMES[96 + 7] == "leg7_shared"
    assert layout.COUNTER_NAMES[152] == "leg0_reconnects"
    assert len(set(layout.COUNTER_NAMES.values())) == len(layout.COUNTER_NAMES)


def test_crc32c_of_the_known_vectors() -> None:
    """RFC 3720, appendix B.4, and the check value of the Castagnoli polynomial."""
    vectors = {
        b"123456789": 0xE3069283,
        bytes(32): 0x8A9136AA,
        b"\xff" * 32: 0x62A8AB43,
        bytes(range(32)): 0x46DD794E,
        bytes(reversed(range(32))): 0x113FDB5C,
        b"": 0,
    }
    for data, expected in vectors.items():
        assert layout.crc32c(data) == expected
        assert layout.crc32c_both_ways(data) == (expected, expected)


@given(st.binary(max_size=5000), st.integers(0, 15))
def test_the_instruction_and_the_table_agree_at_every_length_and_alignment(data: bytes, skipped: int) -> None:
    native, table = layout.crc32c_both_ways(data[skipped:])
    assert native == table == layout.crc32c(data[skipped:])


@given(st.binary(min_size=1, max_size=300), st.data())
def test_no_flipped_bit_goes_unnoticed(data: bytes, choose: st.DataObject) -> None:
    bit = choose.draw(st.integers(0, 8 * len(data) - 1))
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    assert layout.crc32c(bytes(flipped)) != layout.crc32c(data)
