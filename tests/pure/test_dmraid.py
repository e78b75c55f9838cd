"""dm-raid's superblock and bitmap: what a kernel wrote, and what none would."""

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restorefs.errors import DamagedError, RestoreError, UnsupportedError
from restorefs.volumes.lvm2.dmraid import (
    ALL,
    BITMAP_HEADER,
    SUPERBLOCK_SIZE,
    Bitmap,
    Superblock,
    decode_bitmap_header,
    decode_superblock,
)
from tests.images.lvm.stored import disks


def written() -> list[tuple[bytes, bytes]]:
    """Return the superblocks on a disk, each with what follows it 4 KiB later."""
    disk = disks("raid")[1]
    places = [at for at in range(0, len(disk), 512) if disk[at : at + 4] == b"DmRd"]
    return [(disk[at : at + 512], disk[at + 4096 : at + 4096 + BITMAP_HEADER]) for at in places]


def test_what_a_kernel_wrote() -> None:
    found = [superblock for raw, _ in written() if (superblock := decode_superblock(raw))]
    assert len(found) > 15
    assert {superblock.position for superblock in found} <= {0, 1, 2}
    assert {(s.level, s.layout) for s in found} >= {(1, 0), (10, 0x102), (5, 2), (6, 8), (6, 19)}
    assert {(s.failed, s.rebuilt, s.synchronised) for s in found} == {(0, ALL, ALL)}
    assert Superblock(5, 1, 16, 0, ALL, ALL, 6, 8, 8) in found


def test_the_bitmap_that_a_kernel_wrote() -> None:
    found = [decode_bitmap_header(header) for _, header in written() if header[:4] == b"bitm"]
    assert (256 << 10, 1) in found


@pytest.mark.parametrize(
    ("at", "form", "value"),
    [
        (60, "<I", 1),
        (60, "<I", 3),
        (64, "<Q", 1000),
        (72, "<I", 4),
        (76, "<I", 3),
        (80, "<I", 256),
        (84, "<i", -1),
        (96, "<Q", 2048),
        (104, "<Q", 2048),
        (144, "<I", 1),
    ],
)
def test_an_array_that_is_being_changed_is_refused(at: int, form: str, value: int) -> None:
    raw = bytearray(written()[-1][0])
    struct.pack_into(form, raw, at, value)
    with pytest.raises(UnsupportedError):
        decode_superblock(bytes(raw))


def test_failed_legs_beyond_the_64th_are_known() -> None:
    raw = bytearray(written()[-1][0])
    struct.pack_into("<Q", raw, 24, 1 << 5)
    struct.pack_into("<Q", raw, 128, 1 << 2)
    superblock = decode_superblock(bytes(raw))
    assert superblock is not None
    assert superblock.failed == 1 << 5 | 1 << (128 + 2)


@pytest.mark.parametrize("raw", [b"", bytes(512), b"DmRd" + bytes(100), b"dMrD" + bytes(508)])
def test_what_is_none_is_none(raw: bytes) -> None:
    assert decode_superblock(raw) is None


@given(st.binary(min_size=SUPERBLOCK_SIZE - 4, max_size=SUPERBLOCK_SIZE - 4))
def test_any_superblock_is_an_answer_or_an_error(rest: bytes) -> None:
    with suppress(RestoreError):
        assert decode_superblock(b"DmRd" + rest) is not None


@pytest.mark.parametrize(("at", "value"), [(0, 1), (4, 9), (48, 2), (48, 4), (52, 0), (52, 1000)])
def test_a_bitmap_that_is_not_valid_is_damage(at: int, value: int) -> None:
    header = bytearray(next(header for _, header in written() if header[:4] == b"bitm"))
    struct.pack_into("<I", header, at, value)
    with pytest.raises(DamagedError):
        decode_bitmap_header(bytes(header))


def test_a_range_is_clean_where_no_region_of_it_is_marked() -> None:
    bitmap = Bitmap(4096, bytes([0b00000100, 0b1]))
    dirty = {2, 8}
    for first in range(12):
        for last in range(first, 12):
            expected = not dirty & set(range(first, last + 1))
            assert bitmap.clean(first * 4096, (last - first + 1) * 4096) == expected
            assert bitmap.clean(first * 4096 + 4095, (last - first) * 4096 + 1) == expected
