"""The superblock, and the geometry that follows from it.

Owns the decoding of a superblock and the translation of XFS's numbers of blocks and inodes to
bytes. Pure. Field names and offsets are those of "Superblocks".
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple

from restorefs.block.base import ByteLength, ByteOffset
from restorefs.errors import DamagedError
from restorefs.guestfs.base import Inode
from restorefs.guestfs.xfs import features as f
from restorefs.guestfs.xfs.checksum import has_checksum

MAGIC = b"XFSB"
SMALLEST_SUPERBLOCK: ByteLength = 512
LARGEST_SUPERBLOCK: ByteLength = 32_768
"""A superblock fills a sector, of sb_sectsize bytes."""

UUID_PLACE = slice(32, 48)  # sb_uuid
_CRC_OFFSET = 224  # sb_crc
_FREE_SPACE_MAGIC = b"XAGF"
_LATEST_VERSION = 5

# sb_blocksize, sb_dblocks, (sb_rblocks, sb_rextents), sb_uuid, sb_logstart, sb_rootino,
# (sb_rbmino, sb_rsumino, sb_rextsize), sb_agblocks, sb_agcount, (sb_rbmblocks), sb_logblocks,
# sb_versionnum, sb_sectsize, sb_inodesize, sb_inopblock, sb_fname, sb_blocklog, sb_sectlog,
# sb_inodelog, sb_inopblog, sb_agblklog, (sb_rextslog), sb_inprogress
_FIELDS = struct.Struct(">4xIQ16x16sQQ16x4xII4xIHHHH12sBBBBBxB")
# sb_dirblklog, (sb_logsectlog, sb_logsectsize), sb_logsunit, sb_features2, sb_bad_features2,
# (sb_features_compat), sb_features_ro_compat, sb_features_incompat, sb_features_log_incompat
_LATER_FIELDS = struct.Struct(">B3xIII4xIII")
_LATER_OFFSET = 192
_LSN_OFFSET = 240  # sb_lsn: the turn of the log, and the block in it
_META_UUID_OFFSET = 248


@dataclass(frozen=True, slots=True)
class Superblock:
    """What a superblock says. Blocks and inodes are XFS's own numbers: the number of the
    allocation group (AG) in their upper bits, the one in the group in the lower ones."""

    version: int
    version_bits: int
    features2: int
    incompat: int
    ro_compat: int
    log_incompat: int
    uuid: bytes
    meta_uuid: bytes
    """What version 5 puts into the headers of all metadata."""
    label: bytes
    block_bits: int
    blocks_count: int
    sector_size: ByteLength
    inode_bits: int
    ag_blocks: int
    ag_count: int
    ag_block_bits: int
    dir_block_bits: int
    """Of the size of a folder's block in bytes."""
    root: Inode
    log_start: int
    """The log's first block; 0 where it is on another device."""
    log_blocks: int
    log_stripe: ByteLength
    last_log_block: int
    """The log's block, of 512 bytes, with the last change of the superblock; 0 if not known."""

    @property
    def block_size(self) -> ByteLength:
        return 1 << self.block_bits

    @property
    def inode_size(self) -> ByteLength:
        return 1 << self.inode_bits

    @property
    def size(self) -> ByteLength:
        return self.blocks_count << self.block_bits

    @property
    def checked(self) -> bool:
        """Metadata has checksums, and headers that say what it belongs to: version 5."""
        return self.version == _LATEST_VERSION

    @property
    def has_file_types(self) -> bool:
        """Folders record the types of what they name."""
        if self.checked:
            return bool(self.incompat & f.INCOMPAT_FILE_TYPE)
        return bool(self.features2 & f.FEATURES2_FILE_TYPE)

    @property
    def ignores_case(self) -> bool:
        return bool(self.version_bits & f.VERSION_ASCII_CI)

    @property
    def ag_inode_bits(self) -> int:
        """How many of an inode number's lower bits count inside its group."""
        return self.ag_block_bits + self.block_bits - self.inode_bits

    def blocks_of_ag(self, ag: int) -> int:
        """Return how many blocks a group has; the last one may have fewer."""
        return min(self.ag_blocks, self.blocks_count - ag * self.ag_blocks)

    def inodes_of_ag(self, ag: int) -> int:
        """Return how many inodes a group would have if it had nothing else."""
        return self.blocks_of_ag(ag) << self.block_bits - self.inode_bits

    def ag_offset(self, ag: int) -> ByteOffset:
        """Return where a group begins on the volume."""
        return ag * self.ag_blocks << self.block_bits

    def block_offset(self, block: int) -> ByteOffset:
        """Return where a block, by XFS's number, lies on the volume."""
        ag = block >> self.ag_block_bits
        in_ag = block - (ag << self.ag_block_bits)
        return ag * self.ag_blocks + in_ag << self.block_bits

    def holds_blocks(self, block: int, count: int) -> bool:
        """Say whether blocks, by the first one's number, lie in one group, behind its start."""
        ag = block >> self.ag_block_bits
        in_ag = block - (ag << self.ag_block_bits)
        return ag < self.ag_count and in_ag > 0 and in_ag + count <= self.blocks_of_ag(ag)

    def inode_offset(self, inode: Inode) -> ByteOffset | None:
        """Return where an inode's record would lie on the volume; None for a number that no
        inode has ("On-disk Inode", "Inode Numbers")."""
        ag = inode >> self.ag_inode_bits
        in_ag = inode - (ag << self.ag_inode_bits)
        block = in_ag >> self.block_bits - self.inode_bits
        if not 0 <= ag < self.ag_count or not 0 < block < self.blocks_of_ag(ag):
            return None
        return self.ag_offset(ag) + (in_ag << self.inode_bits)


def decode_superblock(raw: bytes, *, is_copy: bool = False) -> Superblock:
    """Decode a superblock from at least SMALLEST_SUPERBLOCK bytes that begin with it; all of its
    sector must be there. is_copy: it is not the first group's. Raises DamagedError."""
    if raw[:4] != MAGIC:
        raise DamagedError("the superblock has lost its signature")
    (
        block_size, blocks_count, uuid, log_start, root, ag_blocks, ag_count, log_blocks,
        version_bits, sector_size, inode_size, inodes_per_block, label, block_bits, sector_bits,
        inode_bits, inode_per_block_bits, ag_block_bits, in_progress,
    ) = _FIELDS.unpack_from(raw)  # fmt: skip
    (
        dir_block_bits, log_stripe, features2, bad_features2, ro_compat, incompat, log_incompat,
    ) = _LATER_FIELDS.unpack_from(raw, _LATER_OFFSET)  # fmt: skip
    version = version_bits & f.VERSION_MASK
    if not (9 <= sector_bits <= 15 and sector_size == 1 << sector_bits):
        raise DamagedError(f"the superblock claims sectors of {sector_size} bytes")
    if version == _LATEST_VERSION and not has_checksum(raw[:sector_size], _CRC_OFFSET):
        raise DamagedError("the superblock has a wrong checksum")
    if version < _LATEST_VERSION:
        ro_compat = incompat = log_incompat = 0
        # Padding once moved sb_features2 to where sb_bad_features2 is: either counts.
        features2 = features2 | bad_features2 if version_bits & f.VERSION_MORE_BITS else 0
    superblock = Superblock(
        version=version,
        version_bits=version_bits,
        features2=features2,
        incompat=incompat,
        ro_compat=ro_compat,
        log_incompat=log_incompat,
        uuid=uuid,
        meta_uuid=raw[_META_UUID_OFFSET : _META_UUID_OFFSET + 16]
        if incompat & f.INCOMPAT_META_UUID
        else uuid,
        label=label.split(b"\0")[0],
        block_bits=block_bits,
        blocks_count=blocks_count,
        sector_size=sector_size,
        inode_bits=inode_bits,
        ag_blocks=ag_blocks,
        ag_count=ag_count,
        ag_block_bits=ag_block_bits,
        dir_block_bits=block_bits + dir_block_bits,
        root=root,
        log_start=log_start,
        log_blocks=log_blocks,
        log_stripe=log_stripe,
        last_log_block=int.from_bytes(raw[_LSN_OFFSET + 4 : _LSN_OFFSET + 8], "big")
        if version == _LATEST_VERSION
        else 0,
    )
    if (in_progress and not is_copy) or not _is_possible(superblock):
        raise DamagedError("the superblock is damaged")
    sizes = (block_size, inode_size, inodes_per_block, inode_per_block_bits)
    per_block_bits = block_bits - inode_bits
    if sizes != (1 << block_bits, 1 << inode_bits, 1 << per_block_bits, per_block_bits):
        raise DamagedError("the superblock contradicts itself")
    return superblock


def has_free_space_header(start: bytes) -> bool:
    """Say whether the first group's second sector is as it should be ("AG Free Space Management",
    AGF), whatever became of the first one."""
    return any(start.startswith(_FREE_SPACE_MAGIC, 1 << bits) for bits in range(9, 16))


class Glance(NamedTuple):
    """What even a damaged superblock says."""

    uuid: bytes
    label: bytes
    size: ByteLength


def glance(raw: bytes) -> Glance | None:
    """Look at a superblock that need not be sound; None where it cannot be one."""
    (
        block_size, blocks_count, uuid, _, _, _, _, _, _, _, _, _, label, block_bits, *_,
    ) = _FIELDS.unpack_from(raw)  # fmt: skip
    if raw[:4] != MAGIC or not 9 <= block_bits <= 16 or block_size != 1 << block_bits:
        return None
    return Glance(uuid, label.split(b"\0")[0], blocks_count << block_bits)


def _is_possible(superblock: Superblock) -> bool:
    """Say whether a geometry is one that Linux mounts."""
    s = superblock
    return (
        9 <= s.block_bits <= 16
        and 8 <= s.inode_bits <= min(11, s.block_bits)
        and s.block_bits <= s.dir_block_bits <= 16
        and 0 < s.ag_blocks <= 1 << 31
        and s.ag_block_bits == (s.ag_blocks - 1).bit_length()
        and (s.ag_count - 1) * s.ag_blocks < s.blocks_count <= s.ag_count * s.ag_blocks
        and s.blocks_count.bit_length() + s.block_bits < 64
        and s.log_stripe <= 1 << 20
        and s.inode_offset(s.root) is not None
    )
