"""What stat(2) shows of plain NTFS files, straight from their file records.

Owns the short way to that: one pass over a record where it lies in a piece of the volume. It is the
innermost loop of every listing. Whatever is not plain about a record, or is damaged, or would take
more than the usual numbers, is left to the long way (ntfs/attributes.py), which says why. Pure.

Fixups are verified and not applied: a record is not plain where something that is decoded lies at
the end of a stride. Every access is bounds-checked, compiled or not; no index can be negative.

A machine's word has 64 bits (see Py_ssize_t): numbers of up to 32 bits have room in it.

Format: linux-ntfs, "concepts" (file record, attribute header, fixup), "$STANDARD_INFORMATION",
"$FILE_NAME".

Concurrency: keeps nothing.
"""

import stat
from collections.abc import Mapping, Sequence
from typing import Any

import cython

from restorefs.guestfs.base import Attributes

__all__ = ["COMPILED", "FILE_MODE", "FOLDER_MODE", "plain_files"]

COMPILED: bool = cython.compiled
FOLDER_MODE = stat.S_IFDIR | 0o755
FILE_MODE = stat.S_IFREG | 0o644

_FILE = cython.declare(cython.Py_ssize_t, 0x454C4946)  # "FILE"
_I30 = cython.declare(cython.ulonglong, 0x0030_0033_0049_0024)  # "$I30", UTF-16
_STRIDE = cython.declare(cython.Py_ssize_t, 512)
_SEQUENCE_AT = cython.declare(cython.Py_ssize_t, 0x30)
_IN_USE = cython.declare(cython.Py_ssize_t, 1)
_IS_FOLDER = cython.declare(cython.Py_ssize_t, 2)
_END = cython.declare(cython.Py_ssize_t, 0xFFFFFFFF)
_STANDARD_INFORMATION = cython.declare(cython.Py_ssize_t, 0x10)
_ATTRIBUTE_LIST = cython.declare(cython.Py_ssize_t, 0x20)
_FILE_NAME = cython.declare(cython.Py_ssize_t, 0x30)
_DATA = cython.declare(cython.Py_ssize_t, 0x80)
_INDEX_ALLOCATION = cython.declare(cython.Py_ssize_t, 0xA0)
_REPARSE_POINT = cython.declare(cython.Py_ssize_t, 0xC0)
_EA = cython.declare(cython.Py_ssize_t, 0xE0)
_COMPRESSED_OR_SPARSE = cython.declare(cython.Py_ssize_t, 0x80FF)
_DOS = cython.declare(cython.Py_ssize_t, 2)  # a name's namespace
_LEAST_STANDARD = cython.declare(cython.Py_ssize_t, 36)
_NAME_OFFSET = cython.declare(cython.Py_ssize_t, 0x42)  # of the name in $FILE_NAME
_NAMESPACE_AT = cython.declare(cython.Py_ssize_t, 0x41)
_VALUE_AT = cython.declare(cython.Py_ssize_t, 24)  # of an unnamed resident attribute
_NAME_AT = cython.declare(cython.Py_ssize_t, 64)  # of a non-resident one
_LEAST_RESIDENT = cython.declare(cython.Py_ssize_t, 24)
_LEAST_NONRESIDENT = cython.declare(cython.Py_ssize_t, 64)
_LEAST_WITH_ALLOCATED = cython.declare(cython.Py_ssize_t, 72)
# From here on in a stride, so many bytes reach the two at its end, which its fixup replaces.
_NO_ROOM_FOR_COMMON = cython.declare(cython.Py_ssize_t, 512 - 1 - 22)
_NO_ROOM_FOR_SIZES = cython.declare(cython.Py_ssize_t, 512 - 1 - 72)
_NO_ROOM_FOR_NAME = cython.declare(cython.Py_ssize_t, 512 - 1 - 24 - 0x42)
_MAX_SIZE = cython.declare(cython.ulonglong, 1 << 62)
_EPOCH = 116_444_736_000_000_000  # 1970, in 100 ns since 1601


def plain_files(
    piece: bytes,
    places: Sequence[tuple[int, int]],
    references: Mapping[int, int],
    size: int,
) -> list[Attributes | None]:
    """Return what stat(2) shows of each file record, None where it takes the long way.

    piece: bytes of the volume. places: the number of each record, and where in the piece it begins.
    references: by number; those that led here, with the sequence numbers that they expect (0: any).
    size: of a record, in bytes.
    """
    view: cython.const[cython.uchar][::1] = memoryview(piece)
    found: list[Attributes | None] = []
    for number, start in places:
        attributes = None
        if 0 <= start <= len(piece) - size:
            attributes = _plain_file(view, start, size, number, references[number] >> 48)
        found.append(attributes)
    return found


@cython.cfunc
def _plain_file(
    piece: cython.const[cython.uchar][::1],
    start: cython.Py_ssize_t,
    size: cython.Py_ssize_t,
    number: cython.Py_ssize_t,
    sequence: cython.Py_ssize_t,
) -> object:
    """Return the attributes of one record, or None. The record lies inside the piece."""
    if not _is_sound(piece, start, size, number, sequence):
        return None
    first: cython.Py_ssize_t = _u16(piece, start + 0x14)
    is_folder: cython.bint = _u16(piece, start + 0x16) & _IS_FOLDER != 0
    used: cython.Py_ssize_t = start + min(_u32(piece, start + 0x18), size)
    # An end marker comes behind the last attribute.
    last_attribute: cython.Py_ssize_t = used - 24
    last_end: cython.Py_ssize_t = used - 4
    position: cython.Py_ssize_t = start + first
    if not _is_standard_information(piece, position):
        return None
    times: cython.Py_ssize_t = position + 24
    position += _u32(piece, position + 4)

    kind: cython.Py_ssize_t
    length: cython.Py_ssize_t
    name_length: cython.Py_ssize_t
    name: cython.Py_ssize_t
    value_size: cython.Py_ssize_t
    value: cython.Py_ssize_t
    nonresident: cython.bint
    inside: cython.Py_ssize_t
    end: cython.Py_ssize_t
    content: cython.Py_ssize_t = _INDEX_ALLOCATION if is_folder else _DATA
    has_content: cython.bint = is_folder  # a folder may do without
    content_size: cython.ulonglong = 0
    allocated: cython.ulonglong = 0
    links: cython.Py_ssize_t = 0
    while True:
        if position > last_attribute:
            return None
        inside = position - start & _STRIDE - 1
        kind = _u32(piece, position)
        length = _u32(piece, position + 4)
        if inside >= _NO_ROOM_FOR_COMMON or length < _LEAST_RESIDENT or length & 7:
            return None
        end = position + length
        if end > last_end:
            return None
        nonresident = piece[position + 8] != 0
        name_length = piece[position + 9]
        name = _u16(piece, position + 10)
        value_size = _u32(piece, position + 16)
        value = _u16(piece, position + 20)
        if nonresident:
            if length < _LEAST_NONRESIDENT:
                return None
        elif value + value_size > length:
            return None
        if name_length and name + 2 * name_length > length:
            return None
        if kind == _FILE_NAME:
            if nonresident or value != _VALUE_AT or value_size < _NAME_OFFSET:
                return None
            if inside >= _NO_ROOM_FOR_NAME:
                return None
            links += piece[position + 24 + _NAMESPACE_AT] != _DOS
        elif kind == content and (is_folder or not name_length):
            if is_folder:
                if not nonresident or name != _NAME_AT or name_length != 4:
                    return None
                if _u64(piece, position + 64) != _I30:
                    return None
            has_content = True
            if not nonresident:
                content_size = value_size
                allocated = value_size + 511
            else:
                if inside >= _NO_ROOM_FOR_SIZES or length < _LEAST_WITH_ALLOCATED:
                    return None
                allocated = _u64(piece, position + 40)
                content_size = _u64(piece, position + 48)
                if _u64(piece, position + 16) or content_size > min(allocated, _MAX_SIZE - 1):
                    return None
                if (
                    _u16(piece, position + 12) & _COMPRESSED_OR_SPARSE
                    and _u16(piece, position + 32) >= _LEAST_WITH_ALLOCATED
                ):
                    allocated = _u64(piece, position + 64)
        elif not _is_for_nothing_else(kind):
            return None
        position = end
        if _u32(piece, position) == _END:
            break
    if not has_content:
        return None
    return tuple.__new__(
        Attributes,
        (
            number,
            FOLDER_MODE if is_folder else FILE_MODE,
            1 if is_folder else max(links, 1),
            0,
            0,
            0,
            content_size,
            allocated >> 9,
            _nanoseconds(piece, times + 24),
            _nanoseconds(piece, times + 8),
            _nanoseconds(piece, times + 16),
            _nanoseconds(piece, times),
        ),
    )


@cython.cfunc
@cython.exceptval(-1)
def _is_sound(
    piece: cython.const[cython.uchar][::1],
    start: cython.Py_ssize_t,
    size: cython.Py_ssize_t,
    number: cython.Py_ssize_t,
    sequence: cython.Py_ssize_t,
) -> cython.int:
    """Tell whether a record is the one meant, in use, a base record, and written completely."""
    count: cython.Py_ssize_t = _u16(piece, start + 6)
    # Attributes begin behind an update sequence of one number more than there are strides.
    usual_first: cython.Py_ssize_t = (_SEQUENCE_AT + 2 * count + 7) // 8 * 8
    if (
        _u32(piece, start) != _FILE
        or _u16(piece, start + 4) != _SEQUENCE_AT
        or (count - 1) * _STRIDE != size
        or _u16(piece, start + 0x14) != usual_first
        or _u32(piece, start + 0x2C) != number & 0xFFFFFFFF
        or not number
        or not _u16(piece, start + 0x16) & _IN_USE
        or _u64(piece, start + 0x20)
        or (sequence and sequence != _u16(piece, start + 0x10))
    ):
        return 0
    low: cython.uchar = piece[start + _SEQUENCE_AT]
    high: cython.uchar = piece[start + _SEQUENCE_AT + 1]
    end: cython.Py_ssize_t = start + _STRIDE
    while end <= start + size:
        if piece[end - 2] != low or piece[end - 1] != high:
            return 0
        end += _STRIDE
    return 1


@cython.cfunc
@cython.exceptval(-1)
def _is_standard_information(
    piece: cython.const[cython.uchar][::1], position: cython.Py_ssize_t
) -> cython.int:
    """Tell whether the first attribute is $STANDARD_INFORMATION as usual. In a record, it ends
    before the first stride does."""
    length: cython.Py_ssize_t = _u32(piece, position + 4)
    value_size: cython.Py_ssize_t = _u32(piece, position + 16)
    return (
        _u32(piece, position) == _STANDARD_INFORMATION
        and piece[position + 8] == 0
        and piece[position + 9] == 0
        and _u16(piece, position + 20) == _VALUE_AT
        and length >= _VALUE_AT + _LEAST_STANDARD
        and length & 7 == 0
        and _LEAST_STANDARD <= value_size <= length - _VALUE_AT
    )


@cython.cfunc
@cython.exceptval(-1)
def _is_for_nothing_else(kind: cython.Py_ssize_t) -> cython.int:
    """Tell whether an attribute changes nothing of what is shown."""
    is_special: cython.bint = kind in (_ATTRIBUTE_LIST, _REPARSE_POINT, _EA)
    is_misplaced: cython.bint = kind in (0, _STANDARD_INFORMATION, _END)
    return not is_special and not is_misplaced


@cython.cfunc
def _nanoseconds(piece: cython.const[cython.uchar][::1], position: cython.Py_ssize_t) -> object:
    """Return a time in ns since 1970, which may take more than 64 bits."""
    ticks: Any = _u64(piece, position)
    return (ticks - _EPOCH) * 100


@cython.cfunc
@cython.exceptval(-1)
def _u16(piece: cython.const[cython.uchar][::1], at: cython.Py_ssize_t) -> cython.Py_ssize_t:
    return piece[at] | piece[at + 1] << 8


@cython.cfunc
@cython.exceptval(-1)
def _u32(piece: cython.const[cython.uchar][::1], at: cython.Py_ssize_t) -> cython.Py_ssize_t:
    return _u16(piece, at) | _u16(piece, at + 2) << 16


@cython.cfunc
@cython.exceptval(-1, check=True)
def _u64(piece: cython.const[cython.uchar][::1], at: cython.Py_ssize_t) -> cython.ulonglong:
    high: cython.ulonglong = _u32(piece, at + 4)
    return high << 32 | _u32(piece, at)
