"""Inodes as they are stored.

Owns the verification of an inode's record and the decoding of its fields. Pure: no I/O, nothing
kept. Field names and offsets are those of "inodes", unless another chapter is named. All numbers
are little-endian.
"""

import os
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from restorefs.block.base import ByteLength, ByteOffset
from restorefs.errors import DamagedError, NotFoundError
from restorefs.guestfs.base import Attributes, Inode, Nanoseconds
from restorefs.guestfs.ext import checksum
from restorefs.guestfs.ext import features as f
from restorefs.guestfs.ext.crypto_names import no_key_length
from restorefs.guestfs.ext.layout import CREATOR_LINUX, GOOD_OLD_INODE_SIZE, Superblock

# i_flags, table i_flags of "inodes".
FLAG_ENCRYPT = 0x800
FLAG_INDEX = 0x1000
FLAG_HUGE_FILE = 0x40000
FLAG_EXTENTS = 0x80000
FLAG_EA_INODE = 0x200000
FLAG_SNAPFILE = 0x01000000
FLAG_INLINE_DATA = 0x10000000
FLAG_CASEFOLD = 0x40000000

_UNUSUAL_FLAGS = FLAG_ENCRYPT | FLAG_HUGE_FILE | FLAG_EA_INODE | FLAG_INLINE_DATA
_CIPHERTEXT_PREFIX = 2  # an encrypted link's target follows its 16-bit length
_SECOND: Nanoseconds = 1_000_000_000
_REGULAR = stat.S_IFREG
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)
_FILE_TYPES = frozenset(
    (*_DEVICES, stat.S_IFIFO, stat.S_IFDIR, _REGULAR, stat.S_IFLNK, stat.S_IFSOCK)
)

# i_mode, i_uid, i_size_lo, i_atime, i_ctime, i_mtime, (i_dtime), i_gid, i_links_count,
# i_blocks_lo, i_flags, (i_osd1), i_block[0..1], (the rest of i_block), (i_generation),
# (i_file_acl_lo), i_size_high, (i_obso_faddr), l_i_blocks_high, (l_i_file_acl_high),
# l_i_uid_high, l_i_gid_high, (l_i_checksum_lo, l_i_reserved).
_INODE = struct.Struct("<HHIiii4xHHII4xII52x4x4xI4xH2xHH4x")
# i_extra_isize, (i_checksum_hi), i_ctime_extra, i_mtime_extra, i_atime_extra, i_crtime,
# i_crtime_extra.
_LARGE_INODE = struct.Struct(_INODE.format + "H2xIIIiI")
_NO_EXTRA = (4, 0, 0, 0, 0, 0)  # what a record of 128 bytes could say of itself
# i_extra_isize counts from 0x80; these reach to the end of the field of that name.
_REACHES_CHECKSUM_HI = 0x84 - 0x80
_REACHES_CRTIME = 0x94 - 0x80
_REACHES_CRTIME_EXTRA = 0x98 - 0x80
# What Linux writes as i_extra_isize: both halves of the checksum are in use.
_USUAL_EXTRA_SIZES = frozenset((b"\x1c\0", b"\x20\0"))
_EXTRA_TIMES = (0x88 - 0x80, 0x8C - 0x80, 0x90 - 0x80, _REACHES_CRTIME_EXTRA)


@dataclass(frozen=True, slots=True)
class InodeFormat:
    """What must be known of a file system to decode its inodes. `checksum_seed` is None where
    inodes have no checksum."""

    size: ByteLength
    block_bits: int
    huge_file: bool
    large_dir: bool
    uid16: bool
    wide_blocks: bool
    checksum_seed: int | None

    @classmethod
    def of(cls, superblock: Superblock) -> Self:
        checked = superblock.has_metadata_checksums and superblock.creator_os == CREATOR_LINUX
        return cls(
            size=superblock.inode_size,
            block_bits=superblock.block_bits,
            huge_file=bool(superblock.ro_compat & f.RO_COMPAT_HUGE_FILE),
            large_dir=bool(superblock.incompat & f.INCOMPAT_LARGEDIR),
            uid16=superblock.uid16,
            wide_blocks=bool(superblock.incompat & f.INCOMPAT_64BIT),
            checksum_seed=superblock.checksum_seed if checked else None,
        )


def check_inode(raw: bytes, inode: int, form: InodeFormat) -> None:
    """Verify an inode's record of form.size bytes ("inodes").

    Raises NotFoundError where the record was never used, DamagedError for a wrong checksum or
    an impossible i_extra_isize.
    """
    if raw[0x0:0x2] == b"\0\0" and raw[0x1A:0x1C] == b"\0\0":  # i_mode, i_links_count
        raise NotFoundError(f"inode {inode} is not in use")
    extra_size = _u16(raw, 0x80) if form.size > GOOD_OLD_INODE_SIZE else 0
    if extra_size & 3 or extra_size > form.size - GOOD_OLD_INODE_SIZE:
        raise DamagedError(f"inode {inode} claims {extra_size} extra bytes")
    if form.checksum_seed is not None:
        has_high_half = extra_size >= _REACHES_CHECKSUM_HI
        stored = _u16(raw, 0x7C) | (_u16(raw, 0x82) << 16 if has_high_half else 0)
        if stored != checksum.inode_checksum(form.checksum_seed, inode, raw, has_high_half):
            raise DamagedError(f"inode {inode} has a wrong checksum")


def verified_records(
    piece: bytes, wanted: Sequence[tuple[Inode, ByteOffset]], form: InodeFormat
) -> list[tuple[Inode, bytes]]:
    """Return those of the wanted records, given by their offsets in a piece of an inode table,
    that can be read: what check_inode() says of each, but faster for many."""
    size, seed = form.size, form.checksum_seed
    if seed is None or size == GOOD_OLD_INODE_SIZE:
        usual, cleared, first, seed = frozenset[bytes](), b"", 0, 0
    else:
        offsets = [offset for _, offset in wanted]
        first, behind = min(offsets), max(offsets) + size
        usual = _USUAL_EXTRA_SIZES
        cleared = checksum.without_inode_checksums(piece[first:behind], size)
    found = []
    for inode, offset in wanted:
        record = piece[offset : offset + size]
        if record[0x80:0x82] in usual:
            start = offset - first
            ingredients = (
                inode.to_bytes(4, "little") + record[0x64:0x68] + cleared[start : start + size]
            )
            value = checksum.crc32c(seed, ingredients)
            if value.to_bytes(4, "little") == record[0x7C:0x7E] + record[0x82:0x84]:
                found.append((inode, record))
                continue
        try:
            check_inode(record, inode, form)
        except (DamagedError, NotFoundError):
            continue
        found.append((inode, record))
    return found


def decode_attributes(raw: bytes, inode: int, form: InodeFormat) -> Attributes:
    """Decode what stat(2) shows from a record that check_inode() accepts ("inodes").

    Raises NotFoundError for a deleted inode, DamagedError for one that cannot be a file.
    """
    (
        mode,
        uid,
        size,
        atime,
        ctime,
        mtime,
        gid,
        links,
        blocks,
        flags,
        old_device,
        new_device,
        size_high,
        blocks_high,
        uid_high,
        gid_high,
        extra_size,
        ctime_extra,
        mtime_extra,
        atime_extra,
        crtime,
        crtime_extra,
    ) = (
        _LARGE_INODE.unpack_from(raw)
        if form.size > GOOD_OLD_INODE_SIZE
        else _INODE.unpack(raw) + _NO_EXTRA
    )
    if not links:
        raise NotFoundError(f"inode {inode} is deleted")
    if form.huge_file:
        blocks |= blocks_high << 32
    rdev = 0
    file_type = mode & 0xF000
    if file_type == _REGULAR or form.large_dir:
        size |= size_high << 32
    if file_type not in _FILE_TYPES or size >> 63:
        raise DamagedError(f"inode {inode} claims mode {mode:#o} and {size} bytes")
    if file_type in _DEVICES:
        rdev = _decode_device(old_device, new_device)
    if flags & _UNUSUAL_FLAGS:
        size, blocks = _unusual_size(inode, file_type, flags, size, blocks, form)
    if not form.uid16:
        uid |= uid_high << 16
        gid |= gid_high << 16
    if 0 < extra_size < _REACHES_CRTIME_EXTRA:
        # Linux takes 0 to mean that all fields it knows are in use.
        ctime_extra, mtime_extra, atime_extra, crtime_extra = (
            value if extra_size >= reach else 0
            for value, reach in zip(
                (ctime_extra, mtime_extra, atime_extra, 0), _EXTRA_TIMES, strict=True
            )
        )
    if (atime_extra | mtime_extra | ctime_extra | crtime_extra) & 3:  # after 2038
        atime += (atime_extra & 3) << 32
        mtime += (mtime_extra & 3) << 32
        ctime += (ctime_extra & 3) << 32
        crtime += (crtime_extra & 3) << 32
    created = None
    if not extra_size or extra_size >= _REACHES_CRTIME:
        created = crtime * _SECOND + (crtime_extra >> 2)
    # Not Attributes(...): this is the innermost loop of every listing.
    return tuple.__new__(
        Attributes,
        (
            inode,
            mode,
            links,
            uid,
            gid,
            rdev,
            size,
            blocks,
            atime * _SECOND + (atime_extra >> 2),
            mtime * _SECOND + (mtime_extra >> 2),
            ctime * _SECOND + (ctime_extra >> 2),
            created,
        ),
    )


def _unusual_size(
    inode: Inode, file_type: int, flags: int, size: int, blocks: int, form: InodeFormat
) -> tuple[int, int]:
    """Return the size and the blocks that Linux shows where flags change them."""
    if flags & FLAG_EA_INODE:
        raise DamagedError(f"inode {inode} holds an attribute's value, not a file")
    if flags & FLAG_HUGE_FILE and form.huge_file:
        blocks <<= form.block_bits - 9
    if flags & FLAG_INLINE_DATA and file_type == _REGULAR:
        # Nothing is allocated, but Linux does not let the file look like a hole.
        blocks += (size + 511) >> 9
    if flags & FLAG_ENCRYPT and file_type == stat.S_IFLNK and size > _CIPHERTEXT_PREFIX:
        # As Linux shows the target without the key: encoded.
        size = no_key_length(size - _CIPHERTEXT_PREFIX)
    return size, blocks


def _decode_device(old: int, new: int) -> int:
    """Decode i_block[0] (8 bits each) or, where that is 0, i_block[1] (12 and 20 bits)."""
    if old:
        return os.makedev(old >> 8 & 0xFF, old & 0xFF)
    return os.makedev(new >> 8 & 0xFFF, (new & 0xFF) | (new >> 12 & 0xFFF00))


class InodeBody(NamedTuple):
    """The fields of an inode that say where its content and its attributes are."""

    flags: int
    generation: int
    xattr_block: int
    block: bytes
    """The 60 bytes of i_block."""
    body_xattrs: ByteOffset | None
    """Where attribute entries start in the record; None where it has none."""


_XATTR_MAGIC = b"\x00\x00\x02\xea"  # h_magic of "attributes"
I_BLOCK_OFFSET: ByteOffset = 0x28
I_BLOCK_SIZE: ByteLength = 60


def decode_body(raw: bytes, form: InodeFormat) -> InodeBody:
    """Decode the rest of a record that check_inode() accepts ("inodes", "attributes")."""
    xattr_block = _u32(raw, 0x68)  # i_file_acl_lo
    if form.wide_blocks:
        xattr_block |= _u16(raw, 0x76) << 32  # l_i_file_acl_high
    body_xattrs = None
    if form.size > GOOD_OLD_INODE_SIZE:
        extra_size = _u16(raw, 0x80)
        start = GOOD_OLD_INODE_SIZE + extra_size
        if extra_size and raw[start : start + 4] == _XATTR_MAGIC:
            body_xattrs = start + 4
    return InodeBody(
        flags=_u32(raw, 0x20),
        generation=_u32(raw, 0x64),
        xattr_block=xattr_block,
        block=raw[I_BLOCK_OFFSET : I_BLOCK_OFFSET + I_BLOCK_SIZE],
        body_xattrs=body_xattrs,
    )


class ValueInode(NamedTuple):
    """An inode that holds one attribute's value ("eainode"). `owner` and `generation` name the
    one owning inode where an old implementation wrote it; then `checksum` says nothing."""

    size: ByteLength
    checksum: int
    owner: int
    generation: int


def decode_value_inode(raw: bytes, inode: int) -> ValueInode:
    """Decode a record that check_inode() accepts and that must hold an attribute's value.

    i_atime is the value's checksum, i_mtime the owner ("inodes"). Raises DamagedError.
    """
    if not _u32(raw, 0x20) & FLAG_EA_INODE or not stat.S_ISREG(_u16(raw, 0x0)):
        raise DamagedError(f"inode {inode} does not hold an attribute's value")
    return ValueInode(
        size=_u32(raw, 0x4) | _u32(raw, 0x6C) << 32,
        checksum=_u32(raw, 0x8),
        owner=_u32(raw, 0x10),
        generation=_u32(raw, 0x64),
    )


def _u16(raw: bytes, offset: ByteOffset) -> int:
    return int.from_bytes(raw[offset : offset + 2], "little")


def _u32(raw: bytes, offset: ByteOffset) -> int:
    return int.from_bytes(raw[offset : offset + 4], "little")
