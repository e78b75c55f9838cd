"""Inodes, from bytes that the documentation prescribes."""

import os
import stat

import pytest

from restorefs.errors import DamagedError, NotFoundError
from restorefs.guestfs.base import Attributes
from restorefs.guestfs.ext.inode_record import (
    InodeFormat,
    check_inode,
    decode_attributes,
    decode_body,
    decode_value_inode,
)
from tests.pure.ext_bytes import EXTENTS_FL, INLINE_DATA_FL, inode, pointers

HUGE_FILE_FL, EA_INODE_FL, ENCRYPT_FL = 0x40000, 0x200000, 0x800
SECOND = 10**9


def form(
    *,
    size: int = 256,
    huge_file: bool = True,
    large_dir: bool = False,
    uid16: bool = False,
    wide_blocks: bool = True,
) -> InodeFormat:
    return InodeFormat(
        size=size,
        block_bits=12,
        huge_file=huge_file,
        large_dir=large_dir,
        uid16=uid16,
        wide_blocks=wide_blocks,
        checksum_seed=None,
    )


def attributes(kind: InodeFormat | None = None, **fields: object) -> Attributes:
    kind = kind or form()
    fields = {"i_mode": 0o100644, "i_links_count": 1} | fields
    return decode_attributes(inode(kind.size, **fields), 12, kind)


def test_every_field() -> None:
    found = attributes(
        i_mode=0o104755,
        i_uid=0x1170,
        l_i_uid_high=1,
        i_gid=0xFFFE,
        l_i_gid_high=0xFFFF,
        i_size_lo=5,
        i_size_high=3,
        i_links_count=7,
        i_blocks_lo=9,
        l_i_blocks_high=2,
        i_extra_isize=32,
        i_atime=1,
        i_mtime=2,
        i_ctime=3,
        i_crtime=4,
        i_atime_extra=10 << 2,
        i_mtime_extra=20 << 2,
        i_ctime_extra=30 << 2,
        i_crtime_extra=40 << 2,
    )
    assert found == Attributes(
        inode=12,
        mode=0o104755,
        nlink=7,
        uid=0x11170,
        gid=0xFFFFFFFE,
        rdev=0,
        size=(3 << 32) + 5,
        blocks=(2 << 32) + 9,
        atime_ns=SECOND + 10,
        mtime_ns=2 * SECOND + 20,
        ctime_ns=3 * SECOND + 30,
        created_ns=4 * SECOND + 40,
    )


# The table of "Inode Timestamps": extra epoch bits, the 32 bits as a signed number, and the time.
EPOCHS = [
    (0, -0x80000000, -0x80000000),
    (0, -1, -1),
    (0, 0, 0),
    (0, 0x7FFFFFFF, 0x7FFFFFFF),
    (1, -0x80000000, 0x80000000),
    (1, -1, 0xFFFFFFFF),
    (1, 0, 0x100000000),
    (1, 0x7FFFFFFF, 0x17FFFFFFF),
    (2, -0x80000000, 0x180000000),
    (2, 0x7FFFFFFF, 0x27FFFFFFF),
    (3, -0x80000000, 0x280000000),
    (3, 0x7FFFFFFF, 0x37FFFFFFF),
]


@pytest.mark.parametrize(("epoch", "stored", "seconds"), EPOCHS)
def test_times_from_1901_to_2446(epoch: int, stored: int, seconds: int) -> None:
    found = attributes(i_extra_isize=28, i_mtime=stored, i_mtime_extra=999_999_999 << 2 | epoch)
    assert found.mtime_ns == seconds * SECOND + 999_999_999
    assert found.atime_ns == 0
    assert attributes(form(size=128), i_mtime=stored).mtime_ns == stored * SECOND


@pytest.mark.parametrize(
    ("extra_size", "reached"),
    [
        (4, ""),
        (8, "c"),
        (12, "cm"),
        (16, "cma"),
        (20, "cmaC"),
        (24, "cmaCX"),
        (28, "cmaCX"),
        (32, "cmaCX"),
        (128, "cmaCX"),
        (0, "cmaCX"),  # as Linux does
    ],
)
def test_only_fields_within_the_extra_size_count(extra_size: int, reached: str) -> None:
    found = attributes(
        i_extra_isize=extra_size,
        i_ctime_extra=4,
        i_mtime_extra=4,
        i_atime_extra=4,
        i_crtime=5,
        i_crtime_extra=4,
    )
    assert found.ctime_ns == ("c" in reached)
    assert found.mtime_ns == ("m" in reached)
    assert found.atime_ns == ("a" in reached)
    created = 5 * SECOND + ("X" in reached)
    assert found.created_ns == (created if "C" in reached else None)


def test_a_small_record_has_no_time_of_creation() -> None:
    assert attributes(form(size=128)).created_ns is None


@pytest.mark.parametrize(
    ("first", "second", "major", "minor"),
    [
        (0x0501, 0, 5, 1),
        (0xFFFF, 0x12345678, 255, 255),
        (0, 0x0801, 8, 1),
        (0, 0xFFFFFFFF, 0xFFF, 0xFFFFF),
        (0, 300 << 8 | 70000 & 0xFF | (70000 & ~0xFF) << 12, 300, 70000),
        (0, 0, 0, 0),
    ],
)
@pytest.mark.parametrize("kind", [stat.S_IFBLK, stat.S_IFCHR])
def test_device_numbers(kind: int, first: int, second: int, major: int, minor: int) -> None:
    found = attributes(i_mode=kind | 0o600, i_block=pointers(first, second))
    assert (os.major(found.rdev), os.minor(found.rdev)) == (major, minor)
    assert attributes(i_mode=0o10600, i_block=pointers(first, second)).rdev == 0


def test_only_files_have_large_sizes() -> None:
    wide = {"i_size_lo": 1, "i_size_high": 2}
    assert attributes(**wide).size == (2 << 32) + 1
    assert attributes(i_mode=0o40755, **wide).size == 1
    assert attributes(form(large_dir=True), i_mode=0o40755, **wide).size == (2 << 32) + 1


def test_blocks_are_counted_in_the_units_that_linux_shows() -> None:
    stored = {"i_blocks_lo": 8, "l_i_blocks_high": 1}
    assert attributes(**stored).blocks == (1 << 32) + 8
    assert attributes(form(huge_file=False), **stored).blocks == 8
    assert attributes(i_flags=HUGE_FILE_FL, i_blocks_lo=8).blocks == 64
    assert attributes(form(huge_file=False), i_flags=HUGE_FILE_FL, i_blocks_lo=8).blocks == 8
    # What lies in the inode counts as a sector, for tar and rsync.
    assert attributes(i_flags=INLINE_DATA_FL, i_size_lo=1).blocks == 1
    assert attributes(i_flags=INLINE_DATA_FL, i_size_lo=0).blocks == 0
    assert attributes(i_flags=INLINE_DATA_FL, i_size_lo=60, i_mode=0o40755).blocks == 0


def test_owners_of_16_bits() -> None:
    found = attributes(form(uid16=True), i_uid=5, l_i_uid_high=1, i_gid=6, l_i_gid_high=1)
    assert (found.uid, found.gid) == (5, 6)


def test_an_encrypted_link_is_as_long_as_it_is_shown() -> None:
    # Linux 6.18 showed targets of these lengths.
    link = {"i_mode": 0o120777, "i_flags": ENCRYPT_FL}
    assert attributes(i_size_lo=18, **link).size == 32
    assert attributes(i_size_lo=258, **link).size == 252
    assert attributes(i_size_lo=18, i_mode=0o120777).size == 18


@pytest.mark.parametrize("mode", [0, 0o644, 0x3000, 0x5000, 0x7000, 0x9000, 0xB000, 0xD000, 0xF000])
def test_a_mode_that_no_file_has(mode: int) -> None:
    with pytest.raises(DamagedError):
        attributes(i_mode=mode)


def test_what_is_no_file() -> None:
    with pytest.raises(NotFoundError):
        attributes(i_links_count=0)
    with pytest.raises(DamagedError):
        attributes(i_flags=EA_INODE_FL)
    with pytest.raises(DamagedError):
        attributes(i_size_high=1 << 31)
    with pytest.raises(NotFoundError):
        check_inode(bytes(256), 12, form())


@pytest.mark.parametrize("extra_size", [1, 2, 3, 30, 129, 132, 0xFFFC])
def test_an_impossible_extra_size(extra_size: int) -> None:
    with pytest.raises(DamagedError):
        check_inode(inode(i_mode=0o100644, i_extra_isize=extra_size), 12, form())


def test_where_contents_and_attributes_are() -> None:
    magic = b"\x00\x00\x02\xea"
    raw = bytearray(
        inode(
            i_mode=0o100644,
            i_flags=EXTENTS_FL,
            i_generation=77,
            i_file_acl_lo=5,
            l_i_file_acl_high=1,
            i_extra_isize=28,
            i_block=b"content",
        )
    )
    raw[156:160] = magic
    body = decode_body(bytes(raw), form())
    assert body.flags == EXTENTS_FL
    assert body.generation == 77
    assert body.block == b"content".ljust(60, b"\0")
    assert body.body_xattrs == 160
    assert body.xattr_block == (1 << 32) + 5
    assert decode_body(bytes(raw), form(wide_blocks=False)).xattr_block == 5
    raw[156] = 1
    assert decode_body(bytes(raw), form()).body_xattrs is None
    # An extra size of 0 says that there are no attributes, whatever the bytes say.
    raw[0x80:0x82], raw[128 + 4 : 128 + 8] = b"\0\0", magic
    assert decode_body(bytes(raw), form()).body_xattrs is None
    assert decode_body(bytes(raw[:128]), form(size=128)).body_xattrs is None


def test_an_inode_that_holds_a_value() -> None:
    holder = decode_value_inode(
        inode(
            i_mode=0o100600,
            i_flags=EA_INODE_FL,
            i_size_lo=9,
            i_atime=-1,
            i_mtime=13,
            i_generation=99,
        ),
        20,
    )
    assert holder == (9, 0xFFFFFFFF, 13, 99)
    with pytest.raises(DamagedError):
        decode_value_inode(inode(i_mode=0o100600), 20)
    with pytest.raises(DamagedError):
        decode_value_inode(inode(i_mode=0o40700, i_flags=EA_INODE_FL), 20)
