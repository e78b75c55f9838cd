"""The checksums and the headers of version 5's metadata.

Owns what makes a block of metadata the one that was asked for: its checksum, its file system, its
place and its owner. Pure. Source: "Self-Describing Metadata", and what each structure's chapter
says about its header.
"""

from typing import NamedTuple

from google_crc32c import value as _crc32c

from restorefs.block.base import ByteOffset
from restorefs.errors import DamagedError


def has_checksum(raw: bytes, offset: ByteOffset) -> bool:
    """Say whether the little-endian crc32c at `offset` is that of the bytes, taken as zero
    itself."""
    stored = raw[offset : offset + 4]
    computed: int = _crc32c(raw[:offset] + bytes(4) + raw[offset + 4 :])
    return stored == computed.to_bytes(4, "little")


class Header(NamedTuple):
    """Where a kind of block keeps its checksum, its place (in units of 512 bytes), its file
    system's UUID, and its owner, of so many bytes."""

    crc: ByteOffset
    place: ByteOffset
    uuid: ByteOffset
    owner: ByteOffset
    owner_size: int = 8


DIRECTORY_DATA = Header(crc=4, place=8, uuid=24, owner=40)  # xfs_dir3_blk_hdr
DA_BLOCK = Header(crc=12, place=16, uuid=32, owner=48)  # xfs_da3_blkinfo
LONG_BTREE = Header(crc=64, place=24, uuid=40, owner=56)  # xfs_btree_lblock, of extents
SHORT_BTREE = Header(crc=52, place=16, uuid=32, owner=48, owner_size=4)  # xfs_btree_sblock
REMOTE = Header(crc=12, place=40, uuid=16, owner=32)
"""xfs_attr3_rmt_hdr and xfs_dsymlink_hdr."""


def verify(
    raw: bytes, header: Header, uuid: bytes, owner: int, offset: ByteOffset, what: str
) -> None:
    """Raise DamagedError, naming `what`, unless a block is sound and is that of this owner, in
    the file system of this (meta) UUID, at this place of the volume."""
    if not has_checksum(raw, header.crc):
        raise DamagedError(f"{what} has a wrong checksum")
    if raw[header.uuid : header.uuid + 16] != uuid:
        raise DamagedError(f"{what} is of another file system")
    if raw[header.place : header.place + 8] != (offset >> 9).to_bytes(8, "big"):
        raise DamagedError(f"{what} is not in its place")
    stored = int.from_bytes(raw[header.owner : header.owner + header.owner_size], "big")
    if stored != owner:
        raise DamagedError(f"{what} belongs to {stored}, not to {owner}")
