"""What stat(2) shows of a file.

Owns the meaning of a file's attributes for that. Pure. Sources: linux-ntfs,
"$STANDARD_INFORMATION", "$FILE_NAME"; for what tags and WSL say, reparse.py.
"""

import stat
import struct
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from restorefs.block.base import ByteLength, ByteOffset
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
    END,
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
    STRIDE,
    Attribute,
    RecordNumber,
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


class RecordForm(NamedTuple):
    """How a file record of `size` bytes is laid out by Windows, and others: `unpack` decodes at
    once its header as checked_record() and decode_header() do (magic; where its update sequence is,
    and how long; sequence, first, flags, used, base, own number, update sequence number), the
    attribute at `first` (kind, length, nonresident, length of the name, size and offset of the
    value; the times of $STANDARD_INFORMATION: created, modified, changed, accessed), and the ends
    of the strides."""

    size: ByteLength
    first: ByteOffset
    unpack: Callable[[bytes, ByteOffset], tuple[Any, ...]]

    @classmethod
    def of(cls, size: ByteLength) -> Self:
        # Attributes begin behind an update sequence of one number more than there are strides.
        first = _SEQUENCE_AT + 2 * (size // STRIDE + 1) + 7 & -8
        form = f"<4sHH8xH2xHHI4xQ4xI2s{first - _SEQUENCE_AT - 2}xIIBB6xIH2xQQQQ"
        for end in range(STRIDE - 2, size, STRIDE):
            form += f"{end - struct.calcsize(form)}x2s"
        return cls(size, first, struct.Struct(form).unpack_from)


_SEQUENCE_AT = 0x30
# kind, length, nonresident, length and offset of the name, flags, size and offset of the value.
_COMMON = struct.Struct("<IIBBHH2xIH")
_USUAL_VALUE_AT, _USUAL_NAME_AT = 24, 64
_LEAST_STANDARD = 36
_SIZES = struct.Struct("<16xQ8xH6xQQ8xQ")  # lowest; offset of the runs; reserved, size, allocated
_LEAST_RESIDENT, _LEAST_NONRESIDENT, _LEAST_WITH_ALLOCATED = 24, 64, 72
_ANY_COMPRESSION = COMPRESSION_MASK | SPARSE
_NOT_PLAIN = frozenset((0, STANDARD_INFORMATION, ATTRIBUTE_LIST, REPARSE_POINT, EA, END))
_END_MARKER = END.to_bytes(4, "little")
# From here on in a stride, so many bytes reach the two at its end, which its fixup replaces.
_NO_ROOM_FOR_COMMON = STRIDE - 1 - _COMMON.size
_NO_ROOM_FOR_SIZES = STRIDE - 1 - _LEAST_WITH_ALLOCATED
_NO_ROOM_FOR_NAME = STRIDE - 1 - _USUAL_VALUE_AT - NAME_OFFSET


def quick_attributes(
    piece: bytes, start: ByteOffset, form: RecordForm, number: RecordNumber, sequence: int
) -> Attributes | None:
    """Return what plain_attributes() does of the record of a plain file, or None where anything
    about it is not plain, or damaged: then it takes the long way.

    This is the innermost loop of every listing: one pass over a record where it lies in a piece of
    the volume, without an object for each attribute. Its fixups are verified, but not applied: a
    record is not plain where something to decode lies at the end of a stride. sequence: of the
    reference that led here, 0 for any.
    """
    size, usual_first, unpack_record = form
    (
        magic, array_at, count, own_sequence, first, flags, used, base, own, written,
        kind, length, nonresident, name_length, value_size, value,
        created, modified, changed, accessed, *ends,
    ) = unpack_record(piece, start)  # fmt: skip
    if magic != b"FILE" or array_at != _SEQUENCE_AT or first != usual_first:
        return None
    if ends.count(written) != count - 1 or (count - 1) * STRIDE != size:
        return None
    if own != number & 0xFFFFFFFF or not number or not flags & IN_USE or base:
        return None
    if sequence and sequence != own_sequence:
        return None
    if kind != STANDARD_INFORMATION or nonresident or name_length or value != _USUAL_VALUE_AT:
        return None
    if not _LEAST_STANDARD <= value_size <= length - value or length & 7:
        return None
    used = start + min(used, size)
    last_attribute, last_end = used - _LEAST_RESIDENT, used - 4  # an end marker comes behind it
    is_folder = flags & IS_FOLDER
    content = INDEX_ALLOCATION if is_folder else DATA
    content_size, blocks, links = 0 if is_folder else -1, 0, 0
    unpack = _COMMON.unpack_from
    position = start + first + length
    while position <= last_attribute:
        inside = position - start & STRIDE - 1
        kind, length, nonresident, name_length, name, packed, value_size, value = unpack(
            piece, position
        )
        end = position + length
        if (
            inside >= _NO_ROOM_FOR_COMMON
            or length < _LEAST_RESIDENT
            or length & 7
            or end > last_end
        ):
            return None
        if nonresident:
            if length < _LEAST_NONRESIDENT:
                return None
        elif value + value_size > length:
            return None
        if name_length and name + 2 * name_length > length:
            return None
        if kind == FILE_NAME:
            if nonresident or value != _USUAL_VALUE_AT or value_size < NAME_OFFSET:
                return None
            if inside >= _NO_ROOM_FOR_NAME:
                return None
            links += piece[position + _USUAL_VALUE_AT + _NAMESPACE_AT] != DOS
        elif kind == content and (is_folder or not name_length):
            if is_folder and not (nonresident and name == _USUAL_NAME_AT and name_length == 4):
                return None
            if is_folder and piece[position + name : position + name + 8] != I30:
                return None
            if not nonresident:
                content_size, blocks = value_size, value_size + 511 >> 9
            else:
                if inside >= _NO_ROOM_FOR_SIZES or length < _LEAST_WITH_ALLOCATED:
                    return None
                lowest, runs, reserved, content_size, allocated = _SIZES.unpack_from(
                    piece, position
                )
                if lowest or content_size >= _MAX_SIZE or content_size > reserved:
                    return None
                if not packed & _ANY_COMPRESSION or runs < _LEAST_WITH_ALLOCATED:
                    allocated = reserved
                blocks = allocated >> 9
        elif kind in _NOT_PLAIN:
            return None
        position = end
        if piece[end : end + 4] == _END_MARKER:
            break
    else:
        return None
    if content_size < 0:
        return None
    return tuple.__new__(
        Attributes,
        (
            number,
            FOLDER_MODE if is_folder else FILE_MODE,
            1 if is_folder else links or 1,
            0,
            0,
            0,
            content_size,
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
