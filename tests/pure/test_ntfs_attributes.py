"""The short way to a file's attributes against the long one, on damaged records, too."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restorefs.guestfs.base import Attributes
from restorefs.guestfs.ntfs.layout import ATTRIBUTE_LIST, EA, REPARSE_POINT
from tests.images.ntfs_bytes import (
    DATA,
    FILE_NAME,
    INDEX_ALLOCATION,
    INDEX_ROOT,
    IS_FOLDER,
    SPARSE,
    STANDARD_INFORMATION,
    Attribute,
    fixed_up,
    utf16,
)
from tests.ntfs_ways import long_way, short_way

IN_USE = 1
NUMBER = 77
STANDARD = Attribute(STANDARD_INFORMATION, value=struct.pack("<4QI", 1, 2, 3, 4, 0).ljust(72))
NAME = Attribute(FILE_NAME, value=struct.pack("<Q56xBB", 5 << 48 | 5, 6, 1) + utf16("a name"))
LINK = Attribute(FILE_NAME, value=struct.pack("<Q56xBB", 5 << 48 | 5, 1, 0) + utf16("b"))
OUTSIDE = Attribute(DATA, runs=[(100, 3)], size=9000)
HOLES = Attribute(DATA, runs=[(100, 3), (None, 30)], size=90_000, flags=SPARSE)
STREAM = Attribute(DATA, "stream", value=b"of a stream")
ROOT = Attribute(INDEX_ROOT, "$I30", value=bytes(48))
BLOCKS = Attribute(INDEX_ALLOCATION, "$I30", runs=[(50, 4)], size=16_384)


def record(*attributes: Attribute, flags: int = IN_USE, size: int = 1024, base: int = 0) -> bytes:
    """Return a FILE record as it is stored."""
    first = 0x30 + 2 * (size // 512 + 1) + 7 & -8
    body = b"".join(attribute.encoded(4096) for attribute in attributes) + b"\xff" * 4 + bytes(4)
    head = struct.pack("<4sHHQHHHHIIQHHI", b"FILE", 0x30, size // 512 + 1, 0, 5, 1, first, flags,
                       first + len(body), size, base, 0, 0, NUMBER)  # fmt: skip
    return fixed_up((head.ljust(first, b"\0") + body).ljust(size, b"\0"), 0x30)


RECORDS = [
    record(STANDARD, NAME, LINK, Attribute(DATA, value=b"resident")),
    record(STANDARD, NAME, OUTSIDE, STREAM),
    record(STANDARD, NAME, HOLES),
    record(STANDARD, NAME, ROOT, BLOCKS, flags=IN_USE | IS_FOLDER),
    record(STANDARD, NAME, OUTSIDE, size=4096),
]
BEFORE = bytes(40)
"""The record is not the first thing in a piece."""


def ways(raw: bytes, size: int) -> tuple[Attributes | None, Attributes | None]:
    """Return where both ways lead to from a stored record."""
    piece = BEFORE + raw
    start = len(BEFORE)
    return short_way(piece, start, size, NUMBER), long_way(piece, start, size, NUMBER)


def test_plain_files_go_the_short_way() -> None:
    for raw in RECORDS:
        short, long = ways(raw, len(raw))
        assert short is not None
        assert short == long
        size = len(raw)
        assert short_way(raw, 0, size, NUMBER, 5) == short
        assert short_way(raw, 0, size, NUMBER, 6) is None, "the reference is stale"
        assert short_way(raw, 0, size, NUMBER + 1, 5) is None, "it is another record"
        assert short_way(raw, 1, size, NUMBER) is None, "it is cut"
        assert short_way(raw, -1, size, NUMBER) is None


@pytest.mark.parametrize("size", [1024, 4096])
@pytest.mark.parametrize("more", [(), (LINK,), (LINK, LINK)])
def test_wherever_attributes_lie(size: int, more: tuple[Attribute, ...]) -> None:
    """Each attribute in turn lies across the end of a stride, whose two bytes were replaced."""
    short_ones = 0
    for length in range(1, 256):
        key = struct.pack("<Q56xBB", 5 << 48 | 5, length, 1) + utf16("\u0101" * length)
        name = Attribute(FILE_NAME, value=key)
        for content in (OUTSIDE, HOLES, Attribute(DATA, value=bytes(20)), ROOT, BLOCKS):
            is_folder = IS_FOLDER if content.kind in (INDEX_ROOT, INDEX_ALLOCATION) else 0
            for attributes in ((name, *more, content), (*more, name, content, STREAM)):
                raw = record(STANDARD, *attributes, flags=IN_USE | is_folder, size=size)
                if len(raw) != size:
                    continue
                short, long = ways(raw, size)
                assert long is not None
                assert short in (None, long)
                short_ones += short is not None
    assert short_ones > 1000


def test_what_is_not_a_plain_file() -> None:
    for raw in (
        record(STANDARD, NAME),
        record(STANDARD, NAME, OUTSIDE, flags=0),
        record(STANDARD, NAME, OUTSIDE, base=1 << 48 | 30),
        record(STANDARD, NAME, OUTSIDE, Attribute(REPARSE_POINT, value=bytes(8))),
        record(STANDARD, NAME, Attribute(EA, value=bytes(8)), OUTSIDE),
        record(STANDARD, Attribute(ATTRIBUTE_LIST, value=b""), NAME, OUTSIDE),
        record(NAME, OUTSIDE),
        record(STANDARD),
    ):
        assert ways(raw, 1024) == (None, None)


def test_fixups_are_verified() -> None:
    for raw in RECORDS:
        for end in range(510, len(raw), 512):
            for at in (end, end + 1):
                torn = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
                assert ways(torn, len(raw)) == (None, None)


BYTES = st.one_of(st.sampled_from([0, 1, 8, 0x18, 0x40, 0x48, 0x80, 0xFF]), st.integers(0, 255))


@given(
    st.sampled_from(RECORDS),
    st.lists(st.tuples(st.integers(0, 0x1FF), BYTES), max_size=4),
)
def test_the_short_way_leads_where_the_long_one_does(
    raw: bytes, changes: list[tuple[int, int]]
) -> None:
    damaged = bytearray(raw)
    for at, value in changes:
        damaged[at] = value
    short, long = ways(bytes(damaged), len(raw))
    assert short in (None, long)


def test_every_byte_of_a_record() -> None:
    """Each byte alone, with values that lengths and offsets go wrong by."""
    for raw in RECORDS:
        (used,) = struct.unpack_from("<I", raw, 0x18)
        for at in range(used):
            for value in (0, 1, 0x10, 0x20, 0x38, 0xF8, 0xFF):
                damaged = raw[:at] + bytes([value]) + raw[at + 1 :]
                short, long = ways(damaged, len(raw))
                assert short in (None, long), (at, value)
