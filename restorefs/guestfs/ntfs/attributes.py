"""What stat(2) shows of a file.

Owns the meaning of a file's attributes for that. Pure. Sources: linux-ntfs,
"$STANDARD_INFORMATION", "$FILE_NAME"; for what tags and WSL say, reparse.py.
"""

import stat
import struct
from typing import NamedTuple

from restorefs.block.base import ByteLength
from restorefs.errors import DamagedError
from restorefs.guestfs.base import Attributes, Inode
from restorefs.guestfs.ntfs.files import File
from restorefs.guestfs.ntfs.layout import (
    ATTRIBUTE_LIST,
    COMPRESSION_MASK,
    DATA,
    DOS,
    DOS_SYSTEM,
    EA,
    EPOCH,
    FILE_NAME,
    I30,
    IN_USE,
    INDEX_ALLOCATION,
    IS_FOLDER,
    NAME_OFFSET,
    REPARSE_POINT,
    SPARSE,
    STANDARD_INFORMATION,
    Attribute,
    Standard,
    decode_sizes,
    decode_standard,
)
from restorefs.guestfs.ntfs.reparse import KINDS, WOF, WslMetadata

WOF_STREAM = "WofCompressedData".encode("utf-16-le")
FOLDER_MODE = stat.S_IFDIR | 0o755
FILE_MODE = stat.S_IFREG | 0o644
_LINK_MODE = stat.S_IFLNK | 0o777
_NAMESPACE_AT = 0x41
_MAX_SIZE: ByteLength = 1 << 62


class Summary(NamedTuple):
    """The attributes of a file that make up its appearance. data, allocation, packed: the first
    piece of its content, its folder's index, and the stream that WOF compressed."""

    standard: Standard
    links: int
    data: Attribute | None
    allocation: Attribute | None
    packed: Attribute | None
    reparse: Attribute | None
    ea: Attribute | None

    @property
    def is_plain(self) -> bool:
        """Nothing makes the file something else than it looks."""
        return self.reparse is None and self.ea is None


def summarise(file: File) -> Summary:
    """Find out what a file's attributes are. Raises DamagedError."""
    standard = data = allocation = packed = reparse = ea = None
    links = 0
    for attribute in file.attributes:
        kind = attribute[0]
        if kind == DATA:
            if not attribute[5]:
                if not attribute[1]:
                    data = attribute
                elif attribute[1] == WOF_STREAM:
                    packed = attribute
        elif kind == FILE_NAME:
            body = attribute[6]
            if len(body) <= _NAMESPACE_AT or body[_NAMESPACE_AT] != DOS:
                links += 1
        elif kind == STANDARD_INFORMATION:
            standard = decode_standard(attribute[6])
        elif kind == INDEX_ALLOCATION:
            if attribute[1] == I30 and not attribute[5]:
                allocation = attribute
        elif kind == REPARSE_POINT:
            reparse = reparse or attribute
        elif kind == EA:
            ea = ea or attribute
    if standard is None:
        raise DamagedError(f"file {file.number} has no standard information")
    return tuple.__new__(Summary, (standard, links, data, allocation, packed, reparse, ea))


def plain_attributes(file: File, summary: Summary, inode: Inode) -> Attributes:
    """Return what stat(2) shows of a file without reparse point and EAs. Raises DamagedError."""
    standard, links, data, allocation, _, _, _ = summary
    if file.is_folder:
        size, blocks = sizes_of(allocation)
        mode, links = FOLDER_MODE, 1
    else:
        size, blocks = sizes_of(data)
        mode = FILE_MODE
    created, modified, changed, accessed, _, _ = standard
    return tuple.__new__(
        Attributes,
        (
            inode,
            mode,
            links or 1,
            0,
            0,
            0,
            size,
            blocks,
            (accessed - EPOCH) * 100,
            (modified - EPOCH) * 100,
            (changed - EPOCH) * 100,
            (created - EPOCH) * 100,
        ),
    )


_HEADER = struct.Struct("<16xHxxHHI4xQ")  # as decode_header()
_COMMON = struct.Struct("<IIBBH4xIH")  # kind, length, nonresident, name; value
_STANDARD = struct.Struct("<QQQQ")
_SIZES = struct.Struct("<Q16xQQQQ")  # lowest; reserved, size, valid, allocated
_LEAST_RESIDENT, _LEAST_NONRESIDENT, _LEAST_FIRST = 24, 64, 72
_ANY_COMPRESSION = COMPRESSION_MASK | SPARSE
_SPECIAL = frozenset((ATTRIBUTE_LIST, REPARSE_POINT, EA))


def quick_attributes(record: bytes, inode: Inode, sequence: int) -> Attributes | None:
    """Return what plain_attributes() does of the record of a plain file, or None where anything
    about it is not plain, or damaged: then it takes the long way.

    This is the innermost loop of every listing: one pass over the bytes, without an object for
    each attribute. What decode_attributes() calls damaged is None here. sequence: of the reference
    that led here, 0 for any.
    """
    own, position, flags, used, base = _HEADER.unpack_from(record)
    if not flags & IN_USE or base or (sequence and sequence != own):
        return None
    used = min(used, len(record))
    last_attribute, last_end = used - _LEAST_RESIDENT, used - 4  # an end marker comes behind it
    content = INDEX_ALLOCATION if flags & IS_FOLDER else DATA
    times = None
    size, blocks, links = 0 if flags & IS_FOLDER else -1, 0, 0
    unpack = _COMMON.unpack_from
    while position <= last_attribute:
        kind, length, nonresident, name_length, name, value_size, value = unpack(record, position)
        end = position + length
        if length < _LEAST_RESIDENT or length & 7 or end > last_end:
            return None
        if kind in _SPECIAL or not kind or (name_length and name + 2 * name_length > length):
            return None
        if nonresident:
            if length < _LEAST_NONRESIDENT:
                return None
        elif value + value_size > length:
            return None
        if kind == STANDARD_INFORMATION:
            if nonresident or value_size < 36:
                return None
            times = _STANDARD.unpack_from(record, position + value)
        elif kind == FILE_NAME:
            if nonresident or value_size < NAME_OFFSET:
                return None
            links += record[position + value + _NAMESPACE_AT] != DOS
        elif kind == content and (not name_length or content != DATA):
            name += position
            if record[name : name + 2 * name_length] != (b"" if content == DATA else I30):
                return None
            if not nonresident:
                size, blocks = value_size, value_size + 511 >> 9
            else:
                if length < _LEAST_FIRST:
                    return None
                lowest, reserved, size, _, allocated = _SIZES.unpack_from(record, position + 16)
                if lowest or size >= _MAX_SIZE or size > reserved:
                    return None
                packed = record[position + 12] | record[position + 13] << 8
                runs = record[position + 32] | record[position + 33] << 8
                if not packed & _ANY_COMPRESSION or runs < _LEAST_FIRST:
                    allocated = reserved
                blocks = allocated >> 9
        position = end
        if record[end : end + 4] == b"\xff\xff\xff\xff":
            break
    else:
        return None
    if times is None or size < 0:
        return None
    created, modified, changed, accessed = times
    is_folder = content != DATA
    return tuple.__new__(
        Attributes,
        (
            inode,
            FOLDER_MODE if is_folder else FILE_MODE,
            1 if is_folder else links or 1,
            0,
            0,
            0,
            size,
            blocks,
            (accessed - EPOCH) * 100,
            (modified - EPOCH) * 100,
            (changed - EPOCH) * 100,
            (created - EPOCH) * 100,
        ),
    )


def sizes_of(attribute: Attribute | None) -> tuple[ByteLength, int]:
    """Return the size of an attribute's value and its blocks of 512 bytes on the volume, given
    its first piece. Raises DamagedError."""
    if attribute is None:
        return 0, 0
    if attribute[4]:
        # Its bytes lie in the file's record; but programs take what has no blocks for a hole.
        size = len(attribute[6])
        return size, size + 511 >> 9
    sizes = decode_sizes(attribute)
    if sizes.size >= _MAX_SIZE or sizes.size > sizes.reserved:
        raise DamagedError(f"an attribute claims {sizes.size} bytes")
    return sizes.size, sizes.allocated >> 9


def require_content(file: File, summary: Summary) -> None:
    """Raise DamagedError for a file whose content is lost: every file has some, if only empty, but
    those that Windows keeps for itself."""
    if summary.data is None and not file.is_folder and not summary.standard.dos & DOS_SYSTEM:
        raise DamagedError(f"file {file.number} has lost its content")


def special_attributes(
    file: File, summary: Summary, inode: Inode, tag: int, wsl: WslMetadata, link_size: ByteLength
) -> Attributes:
    """Return what stat(2) shows of a file with a reparse point (tag 0 for none) or EAs.

    link_size: the length of a link's target. Raises DamagedError.
    """
    attributes = plain_attributes(file, summary, inode)
    mode, size, blocks, rdev = attributes.mode, attributes.size, attributes.blocks, 0
    kind = KINDS.get(tag)
    if kind == stat.S_IFLNK:
        mode, size, blocks = _LINK_MODE, link_size, 0
    elif kind is not None:
        mode, size, blocks = kind | stat.S_IMODE(FILE_MODE), 0, 0
        if kind in (stat.S_IFCHR, stat.S_IFBLK):
            rdev = wsl.rdev or 0
    elif tag == WOF and summary.packed is not None:
        blocks = sizes_of(summary.packed)[1]
    if wsl.mode is not None and kind != stat.S_IFLNK:
        mode = stat.S_IFMT(mode) | stat.S_IMODE(wsl.mode)
    return attributes._replace(
        mode=mode,
        nlink=summary.links or 1 if stat.S_IFMT(mode) != stat.S_IFDIR else 1,
        uid=wsl.uid or 0,
        gid=wsl.gid or 0,
        rdev=rdev,
        size=size,
        blocks=blocks,
    )


def stream_attributes(attributes: Attributes, inode: Inode, stream: Attribute) -> Attributes:
    """Return what stat(2) shows of a named stream of a file. Raises DamagedError."""
    size, blocks = sizes_of(stream)
    return attributes._replace(
        inode=inode, mode=FILE_MODE, nlink=1, rdev=0, size=size, blocks=blocks
    )
