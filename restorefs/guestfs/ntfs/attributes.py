"""What stat(2) shows of a file.

Owns the meaning of a file's attributes for that. Pure. Sources: linux-ntfs,
"$STANDARD_INFORMATION", "$FILE_NAME"; for what tags and WSL say, reparse.py.
"""

import stat
from typing import NamedTuple

from restorefs.block.base import ByteLength
from restorefs.errors import DamagedError
from restorefs.guestfs.base import Attributes, Inode
from restorefs.guestfs.decoders.ntfs_record import FILE_MODE, FOLDER_MODE
from restorefs.guestfs.ntfs.files import File
from restorefs.guestfs.ntfs.layout import (
    DATA,
    DOS,
    DOS_SYSTEM,
    EA,
    EPOCH,
    FILE_NAME,
    I30,
    INDEX_ALLOCATION,
    REPARSE_POINT,
    STANDARD_INFORMATION,
    Attribute,
    Standard,
    decode_sizes,
    decode_standard,
)
from restorefs.guestfs.ntfs.reparse import KINDS, WOF, WslMetadata

WOF_STREAM = "WofCompressedData".encode("utf-16-le")
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


def standard_of(file: File) -> Standard:
    """Return a file's standard information alone. Raises DamagedError as summarise() does."""
    found = [decode_standard(a[6]) for a in file.attributes if a[0] == STANDARD_INFORMATION]
    if not found:
        raise DamagedError(f"file {file.number} has no standard information")
    return found[-1]


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
