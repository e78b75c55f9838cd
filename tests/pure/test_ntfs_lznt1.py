"""NTFS compression units, built from the documentation; those of ntfs-3g are in tests/real."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restorefs.errors import DamagedError
from restorefs.guestfs.ntfs.lznt1 import decode_unit, decode_units

# The example of MS-XCA 3.3.
TUNE = bytes.fromhex(
    "38b08846232000204720410010a24701a045204400084501507900c0452005241388"
    "05b4024a44ef0358028c091601484500be009e000401189000"
)
TUNE_DECODED = (
    b"F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E E F# D E F# G F# D "
    b"E F# G F# E D E A F# F# G A A G F# E D D E F# E D D\0"
)


def plain(body: bytes) -> bytes:
    """An uncompressed chunk (MS-XCA 2.5.1.2)."""
    return struct.pack("<H", 0x3000 | len(body) - 1) + body


def literals(body: bytes) -> bytes:
    """A compressed chunk of literals only."""
    groups = b"".join(b"\0" + body[at : at + 8] for at in range(0, len(body), 8))
    return struct.pack("<H", 0xB000 | len(groups) - 1) + groups


def zeros() -> bytes:
    """A compressed chunk: one zero, and a reference to it for 4095 more."""
    return struct.pack("<HBBH", 0xB003, 2, 0, 0x0FFC)


A, B = bytes(range(256)) * 16, bytes(reversed(range(256))) * 16


def test_the_example_of_the_specification() -> None:
    assert decode_unit(TUNE, len(TUNE_DECODED)) == TUNE_DECODED


def test_what_lies_behind_the_data_is_not_looked_at() -> None:
    stored = zeros() + plain(A) + b"\xff" * 700
    assert decode_unit(stored, 8192) == bytes(4096) + A


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 8191, 8192])
def test_as_much_as_is_wanted(size: int) -> None:
    assert decode_unit(plain(A) + plain(B), size) == (A + B)[:size]


def test_a_plain_chunk_at_the_end_of_a_file_may_be_short() -> None:
    assert decode_unit(plain(A) + plain(B[:904]), 5000) == A + B[:904]


def test_a_compressed_chunk_that_holds_little_is_followed_by_zeros() -> None:
    stored = literals(b"little") + plain(B)
    assert decode_unit(stored, 8192) == b"little" + bytes(4090) + B
    assert decode_unit(stored, 10) == b"little" + bytes(4)


def test_zeros_follow_the_marker_of_the_end() -> None:
    assert decode_unit(plain(A) + b"\0\0" + b"\xff" * 100, 65536) == A + bytes(61440)


@pytest.mark.parametrize(
    ("stored", "size"),
    [
        (b"", 1),
        (b"\0", 1),
        (b"\0\0", 1),  # ends before it begins: a unit of zeros is a hole
        (bytes(4096), 65536),
        (plain(A), 4097),  # ends without a marker
        (plain(A) + b"\0", 4097),
        (plain(A)[:-1], 4096),  # a chunk is cut off
        (literals(b"little")[:-1], 4),
        (plain(A[:904]) + plain(B), 5000),  # too short for where it stands
        (struct.pack("<H", 0x0FFF) + A, 4096),  # wrong signature
        (struct.pack("<H", 0x8FFF) + A, 4096),
        (struct.pack("<H", 0xFFFF) + A, 4096),
        (struct.pack("<HBH", 0xB002, 1, 0x0FFC), 4096),  # refers to before the chunk
        (struct.pack("<HBBH", 0xB003, 2, 0, 0x0FFF), 4096),  # more than 4096 bytes
        (struct.pack("<HBBB", 0xB002, 2, 0, 0) + plain(A), 8192),  # half a reference
        (plain(A) + struct.pack("<HBH", 0xB002, 1, 0), 8192),  # the chunk before is no source
    ],
)
def test_damaged_units(stored: bytes, size: int) -> None:
    with pytest.raises(DamagedError):
        decode_unit(stored, size)


@given(st.binary(max_size=600), st.integers(0, 70_000))
def test_arbitrary_bytes_give_the_size_or_an_error(stored: bytes, size: int) -> None:
    with contextlib.suppress(DamagedError):
        assert len(decode_unit(stored, size)) == size


@pytest.mark.parametrize("count", [1, 100])
async def test_many_units(count: int) -> None:
    units = [(plain(A) + zeros(), 8192), (plain(B), 4096)] * count
    assert await decode_units(units) == [A + bytes(4096), B] * count
