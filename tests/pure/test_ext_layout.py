"""Superblocks and group descriptors, from bytes that the documentation prescribes."""

import struct

import pytest

from restorefs.errors import DamagedError
from restorefs.guestfs.ext.layout import (
    Superblock,
    decode_group,
    decode_superblock,
    looks_like_superblock,
)
from tests.pure import ext_bytes as samples
from tests.pure.ext_bytes import superblock

COMPAT_SPARSE_SUPER2, INCOMPAT_META_BG, INCOMPAT_64BIT = 0x200, 0x10, 0x80
RO_COMPAT_SPARSE_SUPER, RO_COMPAT_GDT_CSUM, RO_COMPAT_BIGALLOC = 0x1, 0x10, 0x200


def large(groups: int, **changes: object) -> Superblock:
    """A file system of blocks of 4 KiB with so many groups."""
    fields: dict[str, object] = {
        "s_log_block_size": 2,
        "s_first_data_block": 0,
        "s_blocks_per_group": 32768,
        "s_blocks_count_lo": groups * 32768,
        "s_inodes_per_group": 8192,
        "s_inodes_count": groups * 8192,
        "s_feature_ro_compat": RO_COMPAT_SPARSE_SUPER,
    }
    return decode_superblock(superblock(**(fields | changes)))


def test_what_mke2fs_wrote() -> None:
    decoded = decode_superblock(samples.SUPERBLOCK)
    assert decoded.kind == "ext4"
    assert decoded.block_size == 1024
    assert decoded.blocks_count == 4096
    assert decoded.inodes_count == 256
    assert decoded.inode_size == 256
    assert decoded.first_inode == 11
    assert decoded.descriptor_size == 64
    assert decoded.uuid.hex() == "0123456789abcdef0123456789abcdef"
    assert struct.pack("<4I", *decoded.hash_seed).hex() == "11111111222233334444555555555555"
    assert decoded.hash_version == 1
    assert decoded.groups == 1
    group = decode_group(decoded, 0, samples.GROUP, trust_flags=True)
    assert group.table == 35  # debugfs, imap


def test_fields_of_the_first_revision() -> None:
    decoded = decode_superblock(
        superblock(s_rev_level=0, s_first_ino=0, s_inode_size=0, s_feature_incompat=1 << 31)
    )
    assert (decoded.first_inode, decoded.inode_size, decoded.incompat) == (11, 128, 0)
    assert decoded.kind == "ext2"


def test_fields_with_upper_halves() -> None:
    narrow = decode_superblock(superblock(s_blocks_count_hi=1))
    assert narrow.blocks_count == samples.BLOCKS
    wide = decode_superblock(
        superblock(s_blocks_count_hi=1, s_feature_incompat=INCOMPAT_64BIT, s_desc_size=64)
    )
    assert wide.blocks_count == samples.BLOCKS + (1 << 32)


def test_a_label_ends_where_its_zeros_begin() -> None:
    assert decode_superblock(superblock(s_volume_name=b"data\0old")).label == b"data"
    assert decode_superblock(superblock(s_volume_name=b"sixteen bytes...")).label == (
        b"sixteen bytes..."
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"s_magic": 0xEF54},
        {"s_log_block_size": 7},
        {"s_log_block_size": 1 << 31},
        {"s_blocks_count_lo": 0},
        {"s_blocks_count_lo": 1},
        {"s_first_data_block": 2},
        {"s_blocks_per_group": 0},
        {"s_blocks_per_group": 8193},
        {"s_inodes_per_group": 0},
        {"s_inodes_per_group": 8193},
        {"s_inodes_count": 1},
        {"s_inodes_count": 33},
        {"s_inode_size": 0},
        {"s_inode_size": 64},
        {"s_inode_size": 192},
        {"s_inode_size": 2048},
        {"s_feature_incompat": INCOMPAT_64BIT, "s_desc_size": 32},
        {"s_feature_incompat": INCOMPAT_64BIT, "s_desc_size": 96},
        {"s_feature_incompat": INCOMPAT_64BIT, "s_desc_size": 2048},
        {
            "s_feature_incompat": INCOMPAT_64BIT,
            "s_desc_size": 64,
            "s_blocks_count_hi": 0xFFFFFFFF,
        },
        {"s_feature_ro_compat": RO_COMPAT_BIGALLOC, "s_log_cluster_size": 40},
    ],
)
def test_a_geometry_that_cannot_be(changes: dict[str, int]) -> None:
    with pytest.raises(DamagedError):
        decode_superblock(superblock(**changes))


def test_what_looks_like_a_superblock() -> None:
    assert looks_like_superblock(superblock())
    assert not looks_like_superblock(bytes(1024))
    assert not looks_like_superblock(b"\xff" * 1024)


def test_groups_with_a_copy_of_the_superblock() -> None:
    def copies(decoded: Superblock) -> list[int]:
        return [group for group in range(decoded.groups) if decoded.has_superblock(group)]

    assert copies(large(60)) == [0, 1, 3, 5, 7, 9, 25, 27, 49]
    assert copies(large(2)) == [0, 1]
    assert copies(large(1)) == [0]
    assert copies(large(6, s_feature_ro_compat=0)) == [0, 1, 2, 3, 4, 5]
    two = large(60, s_feature_compat=COMPAT_SPARSE_SUPER2, s_backup_bgs=struct.pack("<2I", 1, 59))
    assert copies(two) == [0, 1, 59]


def test_where_the_group_descriptors_are() -> None:
    plain = large(300)
    assert plain.descriptors_per_block == 128
    assert [plain.descriptor_block(index, 0) for index in range(3)] == [1, 2, 3]
    assert [plain.descriptor_block(index, 1) for index in range(3)] == [32769, 32770, 32771]
    small = decode_superblock(superblock())
    assert small.descriptor_block(0, 0) == 2
    # With bigalloc, blocks of 1 KiB may be counted from 0; the superblock stays in block 1.
    bigalloc = decode_superblock(
        superblock(
            s_first_data_block=0, s_feature_ro_compat=RO_COMPAT_BIGALLOC, s_log_cluster_size=4
        )
    )
    assert bigalloc.descriptor_block(0, 0) == 2


def test_where_the_group_descriptors_of_meta_groups_are() -> None:
    meta = large(300, s_feature_incompat=INCOMPAT_META_BG, s_first_meta_bg=1)
    assert meta.descriptor_block(0, 0) == 1
    # The groups 128 and 256 have no superblock, so the descriptors are their first blocks.
    assert meta.descriptor_block(1, 0) == 128 * 32768
    assert meta.descriptor_block(2, 0) == 256 * 32768
    assert meta.descriptor_block(1, 1) == 129 * 32768
    whole = large(300, s_feature_incompat=INCOMPAT_META_BG)
    assert whole.descriptor_block(0, 0) == 1
    assert whole.descriptor_block(0, 1) == 32768 + 1  # group 1 has a superblock


def test_inodes_that_were_never_used() -> None:
    decoded = decode_superblock(superblock(s_feature_ro_compat=RO_COMPAT_GDT_CSUM))
    plain = decode_superblock(superblock())
    raw = bytearray(struct.pack("<8xI6xHxxxxxxxxHH", samples.TABLE, 0, 20, 0))
    assert len(raw) == 32
    assert decode_group(plain, 0, bytes(raw), trust_flags=True).initialised == 32
    assert decode_group(decoded, 0, sealed(raw), trust_flags=True).initialised == 12
    assert decode_group(decoded, 0, sealed(raw), trust_flags=False).initialised == 32
    raw[0x12] = 1  # EXT4_BG_INODE_UNINIT
    assert decode_group(decoded, 0, sealed(raw), trust_flags=True).initialised == 0


def sealed(raw: bytearray) -> bytes:
    """Give a descriptor of group 0 its CRC-16, computed bit by bit."""
    value = 0xFFFF
    for byte in bytes(16) + bytes(4) + raw[:0x1E]:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
    return bytes(raw[:0x1E]) + value.to_bytes(2, "little")


@pytest.mark.parametrize("table", [0, 1, samples.BLOCKS, samples.BLOCKS - 7, 0xFFFFFFFF])
def test_an_inode_table_outside_the_file_system(table: int) -> None:
    with pytest.raises(DamagedError):
        decode_group(
            decode_superblock(superblock()), 0, struct.pack("<8xI20x", table), trust_flags=True
        )
