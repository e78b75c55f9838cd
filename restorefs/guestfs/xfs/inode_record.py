"""Inodes as they are stored.

Owns the verification of an inode's record and the decoding of its fields. Pure: no I/O, nothing
kept. Field names and offsets are those of "On-disk Inode".
"""

import os
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from google_crc32c import value as _crc32c

from restorefs.block.base import ByteLength, ByteOffset
from restorefs.errors import DamagedError, NotFoundError
from restorefs.guestfs.base import Attributes, Inode
from restorefs.guestfs.xfs.checksum import has_checksum
from restorefs.guestfs.xfs.layout import Superblock

# di_format, di_aformat
FORMAT_DEVICE = 0
FORMAT_LOCAL = 1
FORMAT_EXTENTS = 2
FORMAT_BTREE = 3

FLAG_REALTIME = 0x1  # di_flags
_FLAG2_BIGTIME = 0x8  # di_flags2
_FLAG2_NREXT64 = 0x10
_FLAG2_METADATA = 0x20

_MAGIC = b"IN"
_CRC = 100
_LITERAL_V2 = 100
_LITERAL_V3 = 176
_IDENTITY = slice(152, 176)  # di_ino, di_uuid

# (di_magic), di_mode, di_version, di_format, di_onlink, di_uid, di_gid, di_nlink, (di_projid,
# di_flushiter), di_atime, di_mtime, di_ctime, di_size, di_nblocks
_CORE = struct.Struct(">2xHBBHIII4x8xQQQQQ")
# and, in version 3, (up to di_changecount, di_lsn), di_flags2, (di_cowextsize), di_crtime
_CORE_V3 = struct.Struct(_CORE.format + "48xQ16xQ")
# di_big_nextents at 24; di_nextents or di_big_anextents, di_anextents, di_forkoff, di_aformat,
# (di_dmevmask, di_dmstate), di_flags at 76
_FORKS = struct.Struct(">IHBB6xH")
_FORKS_OFFSET = 76

_SECOND = 1_000_000_000
_BIGTIME_EPOCH = (1 << 31) * _SECOND  # bigtime counts from 1901
_NS_MASK = 0xFFFFFFFF
_MINOR_BITS = 18
_MAJOR_MASK = 0x3FFF

_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)
_FILE_TYPES = frozenset(
    (*_DEVICES, stat.S_IFIFO, stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK, stat.S_IFSOCK)
)


@dataclass(frozen=True, slots=True)
class InodeFormat:
    """What must be known of a file system to decode its inodes. checked: they have checksums.
    sector_bits: how many bits from blocks to units of 512 bytes."""

    size: ByteLength
    checked: bool
    uuid: bytes
    sector_bits: int

    @classmethod
    def of(cls, superblock: Superblock) -> Self:
        return cls(
            size=superblock.inode_size,
            checked=superblock.checked,
            uuid=superblock.meta_uuid,
            sector_bits=superblock.block_bits - 9,
        )


def check_inode(raw: bytes, inode: Inode, form: InodeFormat) -> None:
    """Verify an inode's record of form.size bytes.

    Raises NotFoundError for one that is not in use, DamagedError for a wrong checksum, or one
    that is not this inode's.
    """
    if raw[:2] != _MAGIC:
        raise DamagedError(f"inode {inode} has lost its signature")
    if not form.checked:
        if raw[4] not in (1, 2):
            raise DamagedError(f"inode {inode} claims version {raw[4]}")
    elif raw[4] != 3 or not has_checksum(raw, _CRC):
        raise DamagedError(f"inode {inode} has a wrong checksum")
    elif raw[_IDENTITY] != inode.to_bytes(8, "big") + form.uuid:
        raise DamagedError(f"what is stored as inode {inode} is another's")
    if raw[2:4] == b"\0\0":  # di_mode
        raise NotFoundError(f"inode {inode} is not in use")


def verified_records(
    piece: bytes, wanted: Sequence[tuple[Inode, ByteOffset]], form: InodeFormat
) -> list[tuple[Inode, bytes]]:
    """Return those of the wanted records, given by their offsets in a piece of inodes, that can
    be read: what check_inode() says of each, but faster for many."""
    size, uuid = form.size, form.uuid
    cleared, first = b"", 0
    if form.checked:
        offsets = [offset for _, offset in wanted]
        first, behind = min(offsets), max(offsets) + size
        cleared = _without_checksums(piece[first:behind], size)
    found = []
    for inode, offset in wanted:
        record = piece[offset : offset + size]
        if (
            form.checked
            and record[:2] == _MAGIC
            and record[4] == 3
            and record[2:4] != b"\0\0"
            and record[_IDENTITY] == inode.to_bytes(8, "big") + uuid
        ):
            start = offset - first
            crc: int = _crc32c(cleared[start : start + size])
            if crc.to_bytes(4, "little") == record[_CRC : _CRC + 4]:
                found.append((inode, record))
                continue
        try:
            check_inode(record, inode, form)
        except (DamagedError, NotFoundError):
            continue
        found.append((inode, record))
    return found


def _without_checksums(piece: bytes, size: int) -> bytes:
    cleared = bytearray(piece)
    for field in range(_CRC, _CRC + 4):
        cleared[field::size] = bytes(len(range(field, len(piece), size)))
    return bytes(cleared)


def decode_attributes(raw: bytes, inode: Inode, form: InodeFormat) -> Attributes:
    """Decode what stat(2) shows from a record that check_inode() accepts.

    Raises NotFoundError for a deleted inode, and one of the file system's own; DamagedError for
    one that cannot be a file.
    """
    if form.checked:
        (
            mode, _, stored, _, uid, gid, links, atime, mtime, ctime, size, blocks, flags2, crtime,
        ) = _CORE_V3.unpack_from(raw)  # fmt: skip
    else:
        (
            mode, version, stored, old_links, uid, gid, links, atime, mtime, ctime, size, blocks,
        ) = _CORE.unpack_from(raw)  # fmt: skip
        flags2 = crtime = 0
        if version == 1:
            links = old_links
    if not links or flags2 & _FLAG2_METADATA:
        raise NotFoundError(f"inode {inode} is {'not for files' if links else 'deleted'}")
    file_type = mode & 0xF000
    if file_type not in _FILE_TYPES or size >> 63 or blocks >> 54:
        raise DamagedError(f"inode {inode} claims mode {mode:#o} and {size} bytes")
    rdev = 0
    if file_type in _DEVICES:
        rdev = _decode_device(raw, inode, stored, form)
    if flags2 & _FLAG2_BIGTIME:
        atime -= _BIGTIME_EPOCH
        mtime -= _BIGTIME_EPOCH
        ctime -= _BIGTIME_EPOCH
        crtime -= _BIGTIME_EPOCH
    else:
        atime = _old_time(atime)
        mtime = _old_time(mtime)
        ctime = _old_time(ctime)
        crtime = _old_time(crtime)
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
            blocks << form.sector_bits,
            atime,
            mtime,
            ctime,
            crtime if form.checked else None,
        ),
    )


def _old_time(stored: int) -> int:
    """Decode signed seconds and nanoseconds, of 32 bits each ("Timestamps")."""
    seconds = stored >> 32
    if seconds >> 31:
        seconds -= 1 << 32
    return seconds * _SECOND + (stored & _NS_MASK)


def _decode_device(raw: bytes, inode: Inode, stored: int, form: InodeFormat) -> int:
    """Decode xfs_dev_t: 14 bits of major number and 18 of minor ("Special Files")."""
    if stored != FORMAT_DEVICE:
        raise DamagedError(f"inode {inode} is a device without a number")
    start = literal_start(form)
    number = int.from_bytes(raw[start : start + 4], "big")
    major = number >> _MINOR_BITS & _MAJOR_MASK
    return os.makedev(major, number & (1 << _MINOR_BITS) - 1)


def literal_start(form: InodeFormat) -> ByteOffset:
    """Return where an inode's forks begin in its record."""
    return _LITERAL_V3 if form.checked else _LITERAL_V2


class Fork(NamedTuple):
    """Where a file's data, or its attributes, are: how that is told, in how many extents, and
    the bytes that tell it."""

    form: int
    extents: int
    raw: bytes


class InodeBody(NamedTuple):
    """The fields of an inode that say where its content and its attributes are. `attributes` is
    None where it has none."""

    flags: int
    data: Fork
    attributes: Fork | None


def decode_body(raw: bytes, inode: Inode, form: InodeFormat) -> InodeBody:
    """Decode the rest of a record that check_inode() accepts. Raises DamagedError."""
    extents, attribute_extents, offset, attribute_form, flags = _FORKS.unpack_from(
        raw, _FORKS_OFFSET
    )
    flags2 = int.from_bytes(raw[120:128], "big") if form.checked else 0
    if flags2 & _FLAG2_NREXT64:
        attribute_extents = extents
        extents = int.from_bytes(raw[24:32], "big")
    start = literal_start(form)
    middle = start + 8 * offset if offset else form.size
    if middle > form.size:
        raise DamagedError(f"the attributes of inode {inode} lie outside of it")
    attributes = None
    if offset and (attribute_form != FORMAT_EXTENTS or attribute_extents):
        attributes = Fork(attribute_form, attribute_extents, raw[middle:])
    return InodeBody(flags, Fork(raw[5], extents, raw[start:middle]), attributes)
