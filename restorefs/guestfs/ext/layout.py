"""The structures at fixed places of ext2, ext3 and ext4: superblock and group descriptors.

Owns the decoding of their bytes to values and the checks that make the values safe to use. Pure:
no I/O, nothing kept. Field names and offsets are those of "ext4 Data Structures and Algorithms",
chapters "super", "group_descr" and "blockgroup". All numbers are little-endian.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from restorefs.block.base import ByteLength, ByteOffset
from restorefs.errors import DamagedError
from restorefs.guestfs.ext import checksum
from restorefs.guestfs.ext import features as f

SUPERBLOCK_OFFSET: ByteOffset = 1024
SUPERBLOCK_SIZE: ByteLength = 1024
SUPERBLOCK_MAGIC = 0xEF53
ROOT_INODE = 2

STATE_CLEAN = 0x1  # s_state, table super_state
STATE_ERRORS = 0x2

CREATOR_LINUX = 0
CHECKSUM_CRC32C = 1  # s_checksum_type
LATEST_REVISION = 1  # s_rev_level, table super_revision

_MOUNT_UID16 = 0x10  # s_default_mount_opts, table super_mountopts
_FLAG_UNSIGNED_HASH = 0x2  # s_flags, table super_flags
_MAX_LOG_BLOCK_SIZE = 6
_BACKUP_BASES = (3, 5, 7)  # sparse_super: groups 0, 1 and the powers of these
_MAX_DESCRIPTOR_SIZE = 1024
GOOD_OLD_INODE_SIZE = 128
_GOOD_OLD_FIRST_INODE = 11


@dataclass(frozen=True, slots=True)
class Superblock:
    """What the superblock says ("super"), sane enough to compute with."""

    inodes_count: int
    blocks_count: int
    first_data_block: int
    block_bits: int
    cluster_bits: int
    blocks_per_group: int
    inodes_per_group: int
    state: int
    creator_os: int
    revision: int
    first_inode: int
    inode_size: ByteLength
    group_number: int
    compat: int
    incompat: int
    ro_compat: int
    uuid: bytes
    label: bytes
    last_orphan: int
    hash_seed: tuple[int, int, int, int]
    hash_version: int
    unsigned_hash: bool
    descriptor_size: ByteLength
    uid16: bool
    first_meta_bg: int
    backup_groups: tuple[int, int]
    checksum_type: int
    checksum_seed: int
    encoding: int

    @property
    def block_size(self) -> ByteLength:
        return 1 << self.block_bits

    @property
    def kind(self) -> str:
        """ "ext2", "ext3", "ext4" or "jbd", as blkid names it."""
        return f.kind_of(self.compat, self.incompat, self.ro_compat)

    @property
    def size(self) -> ByteLength:
        return self.blocks_count << self.block_bits

    @property
    def groups(self) -> int:
        blocks = self.blocks_count - self.first_data_block
        return -(-blocks // self.blocks_per_group)

    @property
    def descriptors_per_block(self) -> int:
        return self.block_size // self.descriptor_size

    @property
    def inode_table_blocks(self) -> int:
        return -(-self.inodes_per_group * self.inode_size >> self.block_bits)

    @property
    def has_metadata_checksums(self) -> bool:
        return bool(self.ro_compat & f.RO_COMPAT_METADATA_CSUM)

    def has_superblock(self, group: int) -> bool:
        """Say whether a group starts with a copy of the superblock ("super", "blockgroup")."""
        if group == 0:
            return True
        if self.compat & f.COMPAT_SPARSE_SUPER2:
            return group in self.backup_groups
        if not self.ro_compat & f.RO_COMPAT_SPARSE_SUPER:
            return True
        return group == 1 or any(_is_power(group, base) for base in _BACKUP_BASES)

    def first_block(self, group: int) -> int:
        return self.first_data_block + group * self.blocks_per_group

    def descriptor_block(self, index: int, copy: int) -> int:
        """Return where block `index` of the group descriptor table is, read from the copy that
        belongs to the superblock in group `copy` (0: the primary one).

        "blockgroup": the table follows the superblock; with meta_bg, from s_first_meta_bg on,
        each block of it lies in the first group that it describes, with a copy in the second.
        """
        if self.incompat & f.INCOMPAT_META_BG and index >= self.first_meta_bg:
            group = index * self.descriptors_per_block
            if copy and group + 1 < self.groups:
                group += 1
        elif copy:
            return self.first_block(copy) + 1 + index
        else:
            return (SUPERBLOCK_OFFSET >> self.block_bits) + 1 + index
        start = self.first_block(group)
        if group == 0:
            # Block 0 of a file system with 1 KiB blocks is the boot block, also with bigalloc.
            start = SUPERBLOCK_OFFSET >> self.block_bits
        return start + self.has_superblock(group)


def _is_power(number: int, base: int) -> bool:
    while number > 1 and number % base == 0:
        number //= base
    return number == 1


def looks_like_superblock(raw: bytes) -> bool:
    """Say whether 1,024 bytes carry the magic number and a block size that can be."""
    return _u16(raw, 0x38) == SUPERBLOCK_MAGIC and _u32(raw, 0x18) <= _MAX_LOG_BLOCK_SIZE


def decode_superblock(raw: bytes) -> Superblock:
    """Decode 1,024 bytes ("super"). Raises DamagedError for a wrong checksum or a geometry that
    cannot be. Says nothing about whether the features are supported."""
    if not looks_like_superblock(raw):
        raise DamagedError("the superblock has no signature or an impossible block size")
    revision = _u32(raw, 0x4C)  # s_rev_level
    dynamic = revision >= 1  # the fields from 0x54 on exist
    incompat = _u32(raw, 0x60) if dynamic else 0
    ro_compat = _u32(raw, 0x64) if dynamic else 0
    wide = bool(incompat & f.INCOMPAT_64BIT)
    uuid = raw[0x68:0x78]
    block_bits = 10 + _u32(raw, 0x18)  # s_log_block_size
    bigalloc = bool(ro_compat & f.RO_COMPAT_BIGALLOC)
    superblock = Superblock(
        inodes_count=_u32(raw, 0x0),
        blocks_count=_u32(raw, 0x4) | (_u32(raw, 0x150) << 32 if wide else 0),
        first_data_block=_u32(raw, 0x14),
        block_bits=block_bits,
        cluster_bits=min(10 + _u32(raw, 0x1C), 63) if bigalloc else block_bits,
        blocks_per_group=_u32(raw, 0x20),
        inodes_per_group=_u32(raw, 0x28),
        state=_u16(raw, 0x3A),
        creator_os=_u32(raw, 0x48),
        revision=revision,
        first_inode=_u32(raw, 0x54) if dynamic else _GOOD_OLD_FIRST_INODE,
        inode_size=_u16(raw, 0x58) if dynamic else GOOD_OLD_INODE_SIZE,
        group_number=_u16(raw, 0x5A) if dynamic else 0,
        compat=_u32(raw, 0x5C) if dynamic else 0,
        incompat=incompat,
        ro_compat=ro_compat,
        uuid=uuid,
        label=raw[0x78:0x88].split(b"\0", 1)[0],
        # s_jnl_blocks[15] and [16] hold the journal's i_size_high and i_size.
        last_orphan=_u32(raw, 0xE8),
        hash_seed=struct.unpack_from("<4I", raw, 0xEC),
        hash_version=raw[0xFC],
        unsigned_hash=bool(_u32(raw, 0x160) & _FLAG_UNSIGNED_HASH),
        descriptor_size=_u16(raw, 0xFE) if wide else 32,
        uid16=bool(_u32(raw, 0x100) & _MOUNT_UID16),
        first_meta_bg=_u32(raw, 0x104),
        backup_groups=struct.unpack_from("<2I", raw, 0x24C),
        checksum_type=raw[0x175],
        checksum_seed=_u32(raw, 0x270)
        if incompat & f.INCOMPAT_CSUM_SEED
        else checksum.crc32c(0xFFFFFFFF, uuid),
        encoding=_u16(raw, 0x27C),
    )
    _check_superblock(superblock, raw)
    return superblock


def _check_superblock(superblock: Superblock, raw: bytes) -> None:
    checked = superblock.has_metadata_checksums and superblock.checksum_type == CHECKSUM_CRC32C
    if checked and _u32(raw, 0x3FC) != checksum.crc32c(0xFFFFFFFF, raw[:0x3FC]):  # s_checksum
        raise DamagedError("the superblock's checksum is wrong")
    problem = next(_geometry_problems(superblock), None)
    if problem:
        raise DamagedError(f"the superblock cannot be right: {problem}")


def _geometry_problems(superblock: Superblock) -> Iterator[str]:
    """Name what contradicts the documentation; later checks rely on earlier ones."""
    if superblock.incompat & f.INCOMPAT_JOURNAL_DEV:
        return  # a journal device has no groups and no inodes
    bits, size = superblock.block_bits, superblock.block_size
    if not superblock.inode_size or superblock.inode_size & (superblock.inode_size - 1):
        yield f"inode size {superblock.inode_size}"
    if not GOOD_OLD_INODE_SIZE <= superblock.inode_size <= size:
        yield f"inode size {superblock.inode_size} with blocks of {size}"
    descriptor_size = superblock.descriptor_size
    smallest = 64 if superblock.incompat & f.INCOMPAT_64BIT else 32
    in_range = smallest <= descriptor_size <= _MAX_DESCRIPTOR_SIZE
    if descriptor_size & (descriptor_size - 1) or not in_range:
        yield f"group descriptor size {descriptor_size}"
    if not bits <= superblock.cluster_bits <= 30:
        yield f"cluster size 2^{superblock.cluster_bits}"
    clusters_per_group = superblock.blocks_per_group >> superblock.cluster_bits - bits
    if not 0 < clusters_per_group <= size * 8:
        yield f"{superblock.blocks_per_group} blocks per group"
    if not 0 < superblock.inodes_per_group <= size * 8:
        yield f"{superblock.inodes_per_group} inodes per group"
    if not superblock.first_data_block <= 1 < superblock.blocks_count >= 2:
        yield f"{superblock.blocks_count} blocks from block {superblock.first_data_block} on"
    if superblock.blocks_count << bits >= 1 << 63:
        yield f"{superblock.blocks_count} blocks"
    if (
        not ROOT_INODE
        <= superblock.inodes_count
        <= (superblock.groups * superblock.inodes_per_group)
    ):
        yield f"{superblock.inodes_count} inodes in {superblock.groups} groups"


class GroupDescriptor(NamedTuple):
    """Where a group's inodes are: `table` is the block its inode table starts with, of which the
    first `initialised` inodes were ever written."""

    table: int
    initialised: int


_BG_INODE_UNINIT = 0x1  # bg_flags, table bgflags


def decode_group(
    superblock: Superblock, group: int, raw: bytes, *, trust_flags: bool
) -> GroupDescriptor:
    """Decode one descriptor of s_desc_size bytes ("group_descr").

    trust_flags: False for a copy of the table, whose flags and counts are never updated.
    Raises DamagedError for a wrong checksum or an inode table outside the file system.
    """
    if superblock.has_metadata_checksums:
        checked, expected = True, checksum.group_crc32c(superblock.checksum_seed, group, raw)
    elif superblock.ro_compat & f.RO_COMPAT_GDT_CSUM:
        checked, expected = True, checksum.group_crc16(superblock.uuid, group, raw)
    else:
        checked, expected = False, 0
    if checked and expected != _u16(raw, 0x1E):  # bg_checksum
        raise DamagedError(f"the descriptor of block group {group} has a wrong checksum")
    wide = len(raw) >= 64
    table = _u32(raw, 0x8) | (_u32(raw, 0x28) << 32 if wide else 0)  # bg_inode_table
    end = table + superblock.inode_table_blocks
    if table <= superblock.first_data_block or end > superblock.blocks_count:
        raise DamagedError(f"the inode table of block group {group} lies outside the file system")
    initialised = superblock.inodes_per_group
    if checked and trust_flags:
        unused = _u16(raw, 0x1C) | (_u16(raw, 0x32) << 16 if wide else 0)  # bg_itable_unused
        initialised -= min(unused, initialised)
        if _u16(raw, 0x12) & _BG_INODE_UNINIT:
            initialised = 0
    return GroupDescriptor(table, initialised)


def _u16(raw: bytes, offset: ByteOffset) -> int:
    return int.from_bytes(raw[offset : offset + 2], "little")


def _u32(raw: bytes, offset: ByteOffset) -> int:
    return int.from_bytes(raw[offset : offset + 4], "little")
