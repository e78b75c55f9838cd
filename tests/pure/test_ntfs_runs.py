"""Run lists, and the extents that streams make of them; the first example is linux-ntfs' own."""

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restorefs.errors import DamagedError, UnsupportedError
from restorefs.guestfs.base import Extent
from restorefs.guestfs.limits import DEFAULT_LIMITS
from restorefs.guestfs.ntfs.layout import COMPRESSED, DATA, SPARSE, Attribute, Boot
from restorefs.guestfs.ntfs.runs import HOLE, Runs, decode_pairs
from restorefs.guestfs.ntfs.streams import extents_of, read_pieces, stored_units

BOOT = Boot(512, 12, 1 << 40, 1 << 28, 4, 2, 1024, 4096, 1)


def pairs(runs: list[tuple[int, int | None]]) -> bytes:
    """Encode runs of (length, first cluster or None), each number with 8 bytes."""
    found, before = b"", 0
    for length, lcn in runs:
        if lcn is None:
            found += b"\x08" + struct.pack("<Q", length)
        else:
            found += b"\x88" + struct.pack("<Qq", length, lcn - before)
            before = lcn
    return found + b"\0"


def piece(
    runs: list[tuple[int, int | None]],
    size: int = 0,
    valid: int | None = None,
    lowest: int = 0,
    flags: int = 0,
    unit: int = 0,
    reserved: int | None = None,
) -> Attribute:
    """reserved: the clusters that the header claims, those of the runs unless it lies."""
    clusters = sum(length for length, _ in runs)
    size = size or clusters << 12
    highest = (lowest + clusters - 1) & (1 << 64) - 1
    body = struct.pack("<QQHH4xQQQQ", lowest, highest, 72, unit,
                       (clusters if reserved is None else reserved) << 12, size,
                       size if valid is None else valid, 1 << 12)  # fmt: skip
    body = bytes(16) + body + pairs(runs)
    return Attribute(DATA, b"", flags, 0, False, lowest, body)


def test_the_documented_examples() -> None:
    # linux-ntfs, "Data Runs": examples 1 to 4.
    assert list(decode_pairs(bytes.fromhex("2118345600"), 0)) == [(0x18, 0x5634)]
    normal = bytes.fromhex("31 38 73 25 34 32 14 01 e5 11 02 31 42 aa 00 03 00")
    assert list(decode_pairs(normal, 0)) == [
        (0x38, 0x342573),
        (0x114, 0x342573 + 0x0211E5),
        (0x42, 0x342573 + 0x0211E5 + 0x0300AA),
    ]
    back = bytes.fromhex("11 30 60 21 10 00 01 11 20 e0 00")
    assert list(decode_pairs(back, 0)) == [(0x30, 0x60), (0x10, 0x160), (0x20, 0x140)]
    sparse = bytes.fromhex("11 30 20 01 60 11 10 30 00")
    assert list(decode_pairs(sparse, 0)) == [(0x30, 0x20), (0x60, HOLE), (0x10, 0x50)]


@pytest.mark.parametrize(
    "raw", ["21 18 34", "20 01 00", "91 01", "19 01", "11 00 05 00", "11 05 80 00", "01"]
)
def test_damaged_pairs(raw: str) -> None:
    with pytest.raises(DamagedError):
        list(decode_pairs(bytes.fromhex(raw), 0))


@given(st.binary(max_size=200))
def test_any_pairs_end(raw: bytes) -> None:
    with suppress(DamagedError):
        assert sum(1 for _ in decode_pairs(raw, 0)) <= len(raw)


def test_pieces_follow_each_other() -> None:
    runs = Runs()
    runs.append(piece([(4, 100), (3, None)]), 1000, 10)
    runs.append(piece([(2, None), (5, 200), (1, 205)], lowest=7), 1000, 10)
    assert runs.clusters == 15
    assert list(runs.between(0, 99)) == [(100, 4), (HOLE, 5), (200, 6)]
    assert list(runs.between(3, 10)) == [(103, 1), (HOLE, 5), (200, 1)]
    for wrong in (piece([(1, 5)], lowest=14), piece([(1, 5)], lowest=16)):
        with pytest.raises(DamagedError):
            runs.append(wrong, 1000, 10)


@pytest.mark.parametrize(
    "wrong",
    [
        piece([(1, 5), (5, 996)], lowest=7),
        piece([(1, n * 2) for n in range(11)], lowest=7),
        piece([(9, 103)], lowest=7)._replace(body=piece([(9, 103)], lowest=6).body),
    ],
    ids=["off the volume", "too many", "does not add up"],
)
def test_a_damaged_piece_leaves_what_is_known(wrong: Attribute) -> None:
    runs = Runs()
    runs.append(piece([(3, None), (4, 100)]), 1000, 10)
    with pytest.raises(DamagedError):
        runs.append(wrong, 1000, 10)
    assert (runs.starts.tolist(), runs.lcns.tolist()) == ([0, 3], [HOLE, 100])
    runs.append_gap(9)
    runs.append(piece([(1, 300)], lowest=9), 1000, 10)
    assert list(runs.between(0, 99)) == [(HOLE, 3), (100, 4), (HOLE, 2), (300, 1)]


@pytest.mark.parametrize("runs", [[(5, 996)], [(1, 1000)], [(1 << 40, 0)], [(1, 1 << 50)]])
def test_runs_off_the_volume(runs: list[tuple[int, int | None]]) -> None:
    with pytest.raises(DamagedError):
        Runs().append(piece(runs), 1000, 10)


def test_too_many_runs() -> None:
    with pytest.raises(DamagedError):
        Runs().append(piece([(1, n * 2) for n in range(11)]), 1000, 10)


async def test_extents_of_a_sparse_stream() -> None:
    stream = await read_pieces(
        [piece([(2, 10), (3, None), (2, 50)], size=6 * 4096 + 5)], BOOT, DEFAULT_LIMITS
    )
    size = stream.size
    assert extents_of(stream, 12, 0, size, 10) == [
        Extent(40_960, 8192),
        Extent(None, 12_288),
        Extent(204_800, 4101),
    ]
    assert extents_of(stream, 12, 8191, 2, 10) == [Extent(49_151, 1), Extent(None, 1)]
    assert extents_of(stream, 12, 0, 0, 10) == []
    with pytest.raises(DamagedError):
        extents_of(stream, 12, 0, size, 2)


@pytest.mark.parametrize("valid", [0, 1, 4095, 4096, 5000, 8192])
async def test_what_is_not_valid_is_a_hole(valid: int) -> None:
    stream = await read_pieces([piece([(2, 10)], valid=valid)], BOOT, DEFAULT_LIMITS)
    expected = [Extent(40_960, valid)] if valid else []
    expected += [Extent(None, 8192 - valid)] if valid < 8192 else []
    assert extents_of(stream, 12, 0, 8192, 10) == expected
    last = Extent(None if valid < 8192 else 40_960 + 8191, 1)
    assert extents_of(stream, 12, 8191, 1, 10) == [last]


async def test_units_are_plain_holes_or_compressed() -> None:
    runs: list[tuple[int, int | None]] = [
        (16, 100), (3, 200), (2, 300), (11, None), (16, None), (1, 400), (15, None),
    ]  # fmt: skip
    stream = await read_pieces(
        [piece(runs, size=(48 << 12) + 100, flags=COMPRESSED, unit=4)], BOOT, DEFAULT_LIMITS
    )
    assert extents_of(stream, 12, 0, stream.size, 10) == [
        Extent(100 << 12, 65_536),
        Extent(None, 65_536, encoded=True),
        Extent(None, 65_536),
        Extent(None, 100, encoded=True),
    ]
    assert stored_units(stream, 12, range(1, 2)) == (
        [(200 << 12, 3 << 12), (300 << 12, 2 << 12)],
        [0, 5 << 12],
    )
    assert stored_units(stream, 12, range(3, 4)) == ([(400 << 12, 1 << 12)], [0, 1 << 12])
    for unit in (0, 2, 4):
        with pytest.raises(DamagedError, match=f"unit {unit} is not compressed"):
            stored_units(stream, 12, range(unit, unit + 1))


async def test_units_whose_clusters_are_neighbours_are_read_together() -> None:
    runs: list[tuple[int, int | None]] = [
        (3, 100), (13, None), (5, 103), (11, None), (2, 90), (14, None),
    ]  # fmt: skip
    stream = await read_pieces(
        [piece(runs, size=48 << 12, flags=COMPRESSED, unit=4)], BOOT, DEFAULT_LIMITS
    )
    assert stored_units(stream, 12, range(3)) == (
        [(100 << 12, 8 << 12), (90 << 12, 2 << 12)],
        [0, 3 << 12, 8 << 12, 10 << 12],
    )


async def test_sparse_alone_is_not_compressed() -> None:
    stream = await read_pieces(
        [piece([(1, 100), (15, None)], flags=SPARSE, unit=4)], BOOT, DEFAULT_LIMITS
    )
    assert extents_of(stream, 12, 0, 65_536, 10) == [Extent(100 << 12, 4096), Extent(None, 61_440)]


async def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(UnsupportedError):
        await read_pieces([piece([(16, 100)], flags=2, unit=4)], BOOT, DEFAULT_LIMITS)
    with pytest.raises(DamagedError, match="fewer clusters"):
        await read_pieces([piece([(1, 100)], size=4097, reserved=2)], BOOT, DEFAULT_LIMITS)
    with pytest.raises(DamagedError, match="claims 4097 bytes"):
        await read_pieces([piece([(1, 100)], size=4097)], BOOT, DEFAULT_LIMITS)
    with pytest.raises(DamagedError):
        await read_pieces([piece([(16, 1)], flags=COMPRESSED, unit=40)], BOOT, DEFAULT_LIMITS)


async def test_resident_content_is_encoded() -> None:
    resident = Attribute(DATA, b"", 0, 0, True, 0, b"content")
    stream = await read_pieces([resident], BOOT, DEFAULT_LIMITS)
    assert extents_of(stream, 12, 2, 4, 10) == [Extent(None, 4, encoded=True)]
    with pytest.raises(DamagedError):
        await read_pieces([resident, resident], BOOT, DEFAULT_LIMITS)
