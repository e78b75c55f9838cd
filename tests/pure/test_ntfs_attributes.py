"""The short way to a file's attributes against the long one, on damaged records, too."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from restorefs.errors import DamagedError, NotFoundError
from restorefs.guestfs.base import Attributes
from restorefs.guestfs.ntfs.attributes import plain_attributes, quick_attributes, summarise
from restorefs.guestfs.ntfs.files import decode_file
from tests.images.ntfs_bytes import (
    DATA,
    FILE_NAME,
    INDEX_ALLOCATION,
    INDEX_ROOT,
    IS_FOLDER,
    SPARSE,
    STANDARD_INFORMATION,
    Attribute,
    utf16,
)

IN_USE = 1
FIRST = 0x38
STANDARD = Attribute(STANDARD_INFORMATION, value=struct.pack("<4QI", 1, 2, 3, 4, 0).ljust(72))
NAME = Attribute(FILE_NAME, value=struct.pack("<Q56xBB", 5 << 48 | 5, 6, 1) + utf16("a name"))
LINK = Attribute(FILE_NAME, value=struct.pack("<Q56xBB", 5 << 48 | 5, 1, 0) + utf16("b"))
OUTSIDE = Attribute(DATA, runs=[(100, 3)], size=9000)
HOLES = Attribute(DATA, runs=[(100, 3), (None, 30)], size=90_000, flags=SPARSE)
STREAM = Attribute(DATA, "stream", value=b"of a stream")
ROOT = Attribute(INDEX_ROOT, "$I30", value=bytes(48))
BLOCKS = Attribute(INDEX_ALLOCATION, "$I30", runs=[(50, 4)], size=16_384)


def record(*attributes: Attribute, flags: int = IN_USE, size: int = 1024) -> bytes:
    """Return a FILE record as it is once its fixups are applied."""
    body = b"".join(attribute.encoded(4096) for attribute in attributes) + b"\xff" * 4 + bytes(4)
    head = struct.pack("<4sHHQHHHHIIQ", b"FILE", 0x30, 3, 0, 5, 1, FIRST, flags,
                       FIRST + len(body), size, 0)  # fmt: skip
    return (head.ljust(FIRST, b"\0") + body).ljust(size, b"\0")


RECORDS = [
    record(STANDARD, NAME, LINK, Attribute(DATA, value=b"resident")),
    record(STANDARD, NAME, OUTSIDE, STREAM),
    record(STANDARD, NAME, HOLES),
    record(STANDARD, NAME, ROOT, BLOCKS, flags=IN_USE | IS_FOLDER),
]


def long_way(raw: bytes) -> Attributes | None:
    """Return a plain file's attributes, None for any other."""
    try:
        file, lists = decode_file(raw, 77)
        summary = summarise(file)
        if lists or not summary.is_plain:
            return None
        return plain_attributes(file, summary, 77)
    except (DamagedError, NotFoundError):
        return None


def test_plain_files_go_the_short_way() -> None:
    for raw in RECORDS:
        assert long_way(raw) is not None
        assert quick_attributes(raw, 77, 5) == long_way(raw)
        assert quick_attributes(raw, 77, 6) is None, "the reference is stale"


BYTES = st.one_of(st.sampled_from([0, 1, 8, 0x18, 0x40, 0x48, 0x80, 0xFF]), st.integers(0, 255))


@given(
    st.sampled_from(RECORDS),
    st.lists(st.tuples(st.integers(0x10, 0x1FF), BYTES), max_size=4),
    st.sampled_from([256, 440, 512, 1024]),
)
def test_the_short_way_leads_where_the_long_one_does(
    raw: bytes, changes: list[tuple[int, int]], size: int
) -> None:
    damaged = bytearray(raw)
    for at, value in changes:
        damaged[at] = value
    damaged = damaged[:size]
    found = quick_attributes(bytes(damaged), 77, 0)
    assert found is None or found == long_way(bytes(damaged))


def test_every_byte_of_a_record() -> None:
    """Each byte alone, with values that lengths and offsets go wrong by."""
    for raw in RECORDS:
        (used,) = struct.unpack_from("<I", raw, 0x18)
        for at in range(0x10, used):
            for value in (0, 1, 0x10, 0x20, 0x38, 0xF8, 0xFF):
                damaged = raw[:at] + bytes([value]) + raw[at + 1 : used]
                found = quick_attributes(damaged, 77, 0)
                assert found is None or found == long_way(damaged), (at, value)
