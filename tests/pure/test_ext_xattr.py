"""Extended attributes and access control lists, from bytes that the documentation prescribes."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restorefs.errors import DamagedError
from restorefs.guestfs.ext.xattr import Entry, decode_block, decode_entries, shown_value
from tests.pure import ext_bytes as samples


def entry(prefix: int, name: bytes, offset: int, size: int, value_inode: int = 0) -> bytes:
    head = struct.pack("<BBHIII", len(name), prefix, offset, value_inode, size, 0)
    return (head + name).ljust(16 + len(name) + 3 & ~3, b"\0")


def test_the_block_that_linux_wrote() -> None:
    raw = samples.XATTR_BLOCK_17
    found = {
        each.shown_name: raw[each.offset : each.offset + each.size] for each in decode_block(raw)
    }
    assert found == {b"user.block": b"v" * 300}


def test_values_in_an_inode_are_relative_to_the_first_entry() -> None:
    raw = bytes(164) + entry(1, b"a", 88, 4) + bytes(4)
    raw = raw.ljust(252, b"\0") + b"1234"
    assert decode_entries(raw, 164, 164) == [Entry(1, b"a", 252, 4, 0)]


@pytest.mark.parametrize(
    ("prefix", "name", "shown"),
    [
        (1, b"x", b"user.x"),
        (2, b"", b"system.posix_acl_access"),
        (3, b"", b"system.posix_acl_default"),
        (4, b"x", b"trusted.x"),
        (6, b"selinux", b"security.selinux"),
        (10, b"translator", b"gnu.translator"),
        (0, b"x", None),
        (5, b"lov", None),
        (7, b"data", None),
        (8, b"", None),
        (9, b"c", None),
        (200, b"x", None),
    ],
)
def test_names_as_linux_shows_them(prefix: int, name: bytes, shown: bytes | None) -> None:
    assert Entry(prefix, name, 0, 0, 0).shown_name == shown


@pytest.mark.parametrize(
    "entries",
    [
        entry(1, b"a", 0, 4),  # over the entries
        entry(1, b"a", 100, 4),  # cut off
        entry(1, b"a", 0xFFFF, 0xFFFFFFFF),
        entry(1, b"a\0b", 96, 4),
        b"".join(entry(1, b"n%d" % number, 0, 0) for number in range(5)),  # without an end
    ],
)
def test_damaged_entries(entries: bytes) -> None:
    raw = entries.ljust(100, b"\0")[:100]
    with pytest.raises(DamagedError):
        decode_entries(raw, 0, 0)


def test_values_elsewhere_have_no_place_here() -> None:
    raw = (entry(1, b"a", 0, 1 << 20, value_inode=13) + entry(1, b"b", 0, 0)).ljust(100, b"\0")
    assert decode_entries(raw, 0, 0) == [
        Entry(1, b"a", 0, 1 << 20, 13),
        Entry(1, b"b", 0, 0, 0),
    ]


@pytest.mark.parametrize(("magic", "blocks"), [(0xEA010000, 1), (0xEA020000, 2), (0, 0)])
def test_a_block_of_something_else(magic: int, blocks: int) -> None:
    with pytest.raises(DamagedError):
        decode_block(struct.pack("<IIII", magic, 1, blocks, 0).ljust(1024, b"\0"))


@given(st.binary(min_size=32, max_size=200))
def test_any_bytes_are_attributes_or_damage(raw: bytes) -> None:
    try:
        for each in decode_entries(raw, 0, 0):
            assert not each.size or each.value_inode or each.offset + each.size <= len(raw)
    except DamagedError:
        pass


USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
ACCESS = Entry(2, b"", 0, 0, 0)


def stored(*entries: tuple[int, int] | tuple[int, int, int]) -> bytes:
    parts = [struct.pack("<HHI" if len(each) == 3 else "<HH", *each) for each in entries]
    return struct.pack("<I", 1) + b"".join(parts)


def test_an_acl_as_linux_shows_it() -> None:
    value = stored(
        (USER_OBJ, 7), (USER, 6, 1000), (GROUP_OBJ, 5), (GROUP, 4, 70001), (MASK, 7), (OTHER, 0)
    )
    expected = struct.pack("<I", 2)
    for tag, permissions, identifier in (
        (USER_OBJ, 7, 0xFFFFFFFF),
        (USER, 6, 1000),
        (GROUP_OBJ, 5, 0xFFFFFFFF),
        (GROUP, 4, 70001),
        (MASK, 7, 0xFFFFFFFF),
        (OTHER, 0, 0xFFFFFFFF),
    ):
        expected += struct.pack("<HHI", tag, permissions, identifier)
    assert shown_value(ACCESS, value) == expected
    assert shown_value(Entry(3, b"", 0, 0, 0), value) == expected
    assert shown_value(Entry(1, b"x", 0, 0, 0), value) == value


def test_an_acl_without_entries_is_none() -> None:
    assert shown_value(ACCESS, stored()) is None


@pytest.mark.parametrize(
    "value",
    [
        b"",
        struct.pack("<I", 2),
        stored((USER_OBJ, 7)) + b"\x01",
        stored((USER_OBJ, 7), (USER, 6)),
        stored((0x40, 7)),
        stored((0, 7)),
    ],
)
def test_a_damaged_acl(value: bytes) -> None:
    with pytest.raises(DamagedError):
        shown_value(ACCESS, value)
