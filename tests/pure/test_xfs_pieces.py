"""The pure parts of the XFS reader: from bytes that the documentation prescribes, or any bytes."""

import struct
from contextlib import suppress
from itertools import pairwise

import pytest
from google_crc32c import value
from hypothesis import given
from hypothesis import strategies as st

from restorefs.errors import DamagedError, NotFoundError, RestoreError
from restorefs.guestfs.xfs.btree import (
    ChunkLeaf,
    Node,
    decode_extent_block,
    decode_extent_root,
    decode_inode_block,
)
from restorefs.guestfs.xfs.checksum import LONG_BTREE, has_checksum, verify
from restorefs.guestfs.xfs.dabtree import IndexLeaf, decode_index, decode_pairs
from restorefs.guestfs.xfs.directory import (
    block_index,
    decode_record,
    decode_records,
)
from restorefs.guestfs.xfs.dirhash import folded_hash, name_hash
from restorefs.guestfs.xfs.extents import ExtentRecord, decode_extents, fill
from restorefs.guestfs.xfs.inode_record import (
    InodeFormat,
    check_inode,
    decode_attributes,
    decode_body,
    verified_records,
)
from restorefs.guestfs.xfs.layout import decode_superblock
from restorefs.guestfs.xfs.logrecord import decode_record_header
from restorefs.guestfs.xfs.shortform import decode_short_form
from restorefs.guestfs.xfs.xattr import decode_leaf, shown_value
from restorefs.guestfs.xfs.xattr import decode_short_form as decode_short_attributes

# Hashes, as xfs_db's "hash" tells them


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a", 0x00000061),
        ("ab", 0x000030E2),
        ("abc", 0x00187163),
        ("abcd", 0x0C38B1E4),
        ("abcde", 0x1C58F263),
        (".", 0x0000002E),
        ("..", 0x0000172E),
        ("größe", 0x26F11079),
        ("entry-12345", 0x62A92629),
    ],
)
def test_the_hash_of_a_name(name: str, expected: int) -> None:
    assert name_hash(name.encode()) == expected


def test_a_hash_that_ignores_case() -> None:
    assert folded_hash(b"ReadMe.TXT") == name_hash(b"readme.txt")
    assert folded_hash(b"\xc4\xd7\xdf\xde") == name_hash(b"\xe4\xd7\xdf\xfe")


# Extents


def packed(start: int, block: int, count: int, unwritten: bool) -> bytes:
    """Pack a record, bit by bit, as "Data Extents" draws it."""
    number = unwritten << 127 | start << 73 | block << 21 | count
    return number.to_bytes(16, "big")


records = st.tuples(
    st.integers(0, (1 << 54) - 1),
    st.integers(0, (1 << 52) - 1),
    st.integers(1, (1 << 21) - 1),
    st.booleans(),
)


@given(records)
def test_an_extent_record(record: tuple[int, int, int, bool]) -> None:
    start, block, count, unwritten = record
    expected = ExtentRecord(start, block, start + count, unwritten)
    assert decode_extents(packed(*record)) == [expected]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9), st.booleans()), max_size=12))
def test_what_extents_leave_out_and_what_is_unwritten_is_zeros(
    gaps: list[tuple[int, int, bool]],
) -> None:
    known: dict[int, int | None] = {}
    raw, position = b"", 0
    for number, (gap, count, unwritten) in enumerate(gaps):
        position += gap
        block = 1000 * (number + 1)
        raw += packed(position, block, count, unwritten)
        known |= {position + at: None if unwritten else block + at for at in range(count)}
        position += count
    first, end = 3, max(4, position + 5)
    runs = fill(decode_extents(raw), first, end)
    shown = [None if block is None else block + at for block, count in runs for at in range(count)]
    assert shown == [known.get(at) for at in range(first, end)]
    for (one, count), (other, _) in pairwise(runs):
        assert other != (None if one is None else one + count), "neighbours are merged"


@pytest.mark.parametrize("raw", [packed(5, 1, 3, False) + packed(7, 9, 1, False), bytes(16)])
def test_extents_that_overlap_or_are_empty_are_damaged(raw: bytes) -> None:
    with pytest.raises(DamagedError):
        decode_extents(raw)


# Trees


def test_the_root_of_a_tree_of_extents_has_its_pointers_behind_all_keys() -> None:
    fork = struct.pack(">HH", 1, 2) + struct.pack(">QQ", 0, 50) + bytes(8)
    fork += struct.pack(">QQ", 77, 88) + bytes(8)
    assert decode_extent_root(fork) == Node(1, (0, 50), (77, 88))


def test_a_hole_in_a_chunk_of_inodes_is_not_in_use() -> None:
    head = b"IAB3" + struct.pack(">HH", 0, 1) + bytes(48)
    block = (head + struct.pack(">IHBBQ", 64, 0x8001, 56, 1, 1 << 20)).ljust(512, b"\0")
    leaf = decode_inode_block(block, 0, True, True)
    assert isinstance(leaf, ChunkLeaf)
    chunk = leaf.find(127)
    assert chunk is not None
    used = [bit for bit in range(64) if not chunk.free >> bit & 1]
    assert used == [bit for bit in range(4, 60) if bit != 20]
    assert leaf.find(63) is None
    assert leaf.find(128) is None


def test_all_entries_with_a_hash_are_found_but_not_stale_ones() -> None:
    pairs = [(1, 8), (5, 16), (5, 0), (5, 24), (9, 32)]
    leaf = decode_pairs(b"".join(struct.pack(">II", *pair) for pair in pairs), 0)
    assert leaf.find(5) == [16 << 3, 24 << 3]
    assert leaf.find(6) == []


def test_an_index_out_of_order_is_damaged() -> None:
    with pytest.raises(DamagedError):
        decode_pairs(struct.pack(">4I", 5, 1, 4, 2), 0)


# Folders


def entry(offset: int, inode: int, name: bytes, kind: int) -> bytes:
    raw = struct.pack(">QB", inode, len(name)) + name + bytes([kind])
    size = len(raw) + 2 + 7 & ~7
    return raw.ljust(size - 2, b"\0") + struct.pack(">H", offset)


def free(length: int) -> bytes:
    return struct.pack(">HH", 0xFFFF, length).ljust(length, b"\0")


def test_the_entries_of_a_block() -> None:
    block = b"XDD3".ljust(64, b"\0")
    block += entry(64, 131, b"first", 1) + free(40) + entry(128, 1 << 40, b"second name", 2)
    block += free(512 - len(block) - 8) + free(8)
    assert decode_records(block, 1024, True, True) == [
        (131, b"first", 1, (1024 + 64 >> 3) + 1),
        (1 << 40, b"second name", 2, (1024 + 128 >> 3) + 1),
    ]
    assert decode_record(block, 128, True, True) == (1 << 40, b"second name")
    assert decode_record(block, 88, True, True) is None
    with pytest.raises(DamagedError):
        decode_record(block, 8, True, True)


def test_a_folder_inside_an_inode() -> None:
    raw = struct.pack(">BBI", 1, 0, 128) + struct.pack(">BH", 3, 0x60) + b"abc" + b"\1"
    raw += struct.pack(">I", 131)
    assert decode_short_form(raw, True) == (128, [(131, b"abc", 1, 13)])
    with pytest.raises(DamagedError):
        decode_short_form(raw + b"\0", True)
    with pytest.raises(DamagedError):
        decode_short_form(raw[:-1], True)


# Attributes


def test_attributes_inside_an_inode() -> None:
    parts = [(b"one", b"1", 0), (b"two", b"22", 2), (b"three", b"", 4), (b"SGI_ACL_FILE", b"x", 2)]
    parts += [(b"hidden", b"x", 8), (b"unfinished", b"x", 0x80)]
    raw = b"".join(bytes([len(n), len(v), flags]) + n + v for n, v, flags in parts)
    raw = struct.pack(">HBx", len(raw) + 4, len(parts)) + raw
    assert [tuple(found) for found in decode_short_attributes(raw)] == [
        (b"user.one", b"1"),
        (b"trusted.two", b"22"),
        (b"security.three", b""),
        (b"system.posix_acl_access", b"x"),
    ]


def test_an_access_control_list_as_linux_shows_it() -> None:
    stored = struct.pack(">I", 2) + struct.pack(">IIHH", 1, 5, 6, 0)
    stored += struct.pack(">IIHH", 2, 1000, 4, 0)
    shown = struct.pack("<I", 2) + struct.pack("<HHI", 1, 6, 0xFFFFFFFF)
    shown += struct.pack("<HHI", 2, 4, 1000)
    assert shown_value(b"system.posix_acl_access", stored) == shown
    assert shown_value(b"user.posix_acl_access", stored) == stored
    assert shown_value(b"system.posix_acl_default", bytes(4)) is None
    with pytest.raises(DamagedError):
        shown_value(b"system.posix_acl_access", stored[:-1])


# Inodes


OLD = InodeFormat(size=256, checked=False, uuid=bytes(16), sector_bits=3)
NEW = InodeFormat(size=512, checked=True, uuid=b"u" * 16, sector_bits=3)


def old_inode(mode: int, version: int = 2, links: int = 1, **fields: int) -> bytes:
    raw = bytearray(256)
    struct.pack_into(">2sHBB", raw, 0, b"IN", mode, version, 0)
    struct.pack_into(">I" if version == 2 else ">H", raw, 16 if version == 2 else 6, links)
    for offset, number in fields.items():
        struct.pack_into(">Q", raw, int(offset[1:]), number)
    return bytes(raw)


def test_times_before_1970_are_signed_and_the_oldest_bigtime_is_of_1901() -> None:
    raw = old_inode(0o100644, _32=(2**32 - 1) << 32 | 5, _40=2**31 << 32)
    attributes = decode_attributes(raw, 131, OLD)
    assert attributes.atime_ns == -(10**9) + 5
    assert attributes.mtime_ns == -(2**31) * 10**9
    assert attributes.created_ns is None


def test_the_oldest_inodes_count_their_links_elsewhere() -> None:
    assert decode_attributes(old_inode(0o100644, version=1, links=7), 131, OLD).nlink == 7


def test_an_unused_or_deleted_inode_is_not_found() -> None:
    with pytest.raises(NotFoundError):
        check_inode(old_inode(0), 131, OLD)
    with pytest.raises(NotFoundError):
        decode_attributes(old_inode(0o100644, links=0), 131, OLD)


# Whatever the bytes say


def survives(function: object, *arguments: object) -> None:
    with suppress(RestoreError):
        function(*arguments)  # type: ignore[operator]


@given(st.binary(min_size=512, max_size=512), st.booleans(), st.booleans())
def test_any_bytes_are_decoded_or_damaged(raw: bytes, checked: bool, flag: bool) -> None:
    heads = (b"", b"XD2D", b"XDD3", b"XD2B", b"XDB3", b"BMAP", b"BMA3", b"IABT", b"IAB3", b"XFSB")
    magics = (b"\xfe\xbe", b"\x3e\xbe", b"\xd2\xff", b"\x3d\xff", b"\xfb\xee", b"\x3b\xee")
    for head in heads:
        block = head + raw[len(head) :]
        survives(decode_records, block, 0, checked, flag)
        survives(decode_record, block, 8 * raw[0], checked, flag)
        survives(block_index, block)
        for level in (0, 1, raw[5]):
            survives(decode_extent_block, block[:4] + bytes([0, level]) + block[6:], level, checked)
            survives(
                decode_inode_block, block[:4] + bytes([0, level]) + block[6:], level, checked, flag
            )
        survives(decode_superblock, block)
    for magic in magics:
        block = raw[:8] + magic + raw[10:]
        survives(decode_index, block, checked)
        survives(decode_leaf, block, checked)
    survives(decode_extent_root, raw)
    survives(decode_short_form, raw[: raw[3]], flag)
    survives(decode_short_attributes, raw[: raw[3]])
    decode_record_header(raw, 0)
    form = NEW if checked else OLD
    for mode in (0o100644, 0o040755, 0o020600, raw[1] << 8):
        record = b"IN" + mode.to_bytes(2, "big") + raw[4 : form.size]
        survives(check_inode, record, 131, form)
        survives(decode_attributes, record, 131, form)
        survives(decode_body, record, 131, form)
        assert len(verified_records(record, [(131, 0)], form)) <= 1


@given(st.binary(min_size=80, max_size=200), st.integers(0, 639))
def test_one_changed_bit_is_noticed(raw: bytes, bit: int) -> None:
    plain = bytearray(raw)
    plain[24:32] = (4096 >> 9).to_bytes(8, "big")
    plain[40:56] = b"u" * 16
    plain[56:64] = (131).to_bytes(8, "big")
    plain[64:68] = bytes(4)
    plain[64:68] = value(bytes(plain)).to_bytes(4, "little")
    verify(bytes(plain), LONG_BTREE, b"u" * 16, 131, 4096, "it")
    for uuid, owner, place in ((b"v" * 16, 131, 4096), (b"u" * 16, 132, 4096), (b"u" * 16, 131, 0)):
        with pytest.raises(DamagedError):
            verify(bytes(plain), LONG_BTREE, uuid, owner, place, "it")
    plain[bit // 8] ^= 1 << bit % 8
    assert not has_checksum(bytes(plain), LONG_BTREE.crc)


def test_an_index_leaf_is_of_its_version() -> None:
    block = bytearray(512)
    block[8:10] = b"\xd2\xff"
    assert decode_index(bytes(block), False) == IndexLeaf((), (), 0)
    with pytest.raises(DamagedError):
        decode_index(bytes(block), True)


def test_a_short_attribute_at_the_very_end_of_a_block() -> None:
    block = bytearray(1024)
    block[8:10] = b"\x3b\xee"
    block[56:58] = (1).to_bytes(2, "big")
    block[80:88] = struct.pack(">IHBB", 0, 1018, 1, 0)
    block[1018:] = struct.pack(">HB", 0, 3) + b"end"
    assert [tuple(found) for found in decode_leaf(bytes(block), True)] == [(b"user.end", b"")]
    block[1018 + 2] = 4
    with pytest.raises(DamagedError):
        decode_leaf(bytes(block), True)
