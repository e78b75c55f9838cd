"""The names in a node of an NTFS folder's index, as they are listed.

Owns the short way to that: one pass over a node of plain entries. Whatever is not plain, or is
damaged, is left to the long way (ntfs/folder.py), which says why. Pure.

Every access is bounds-checked, compiled or not; no index can be negative.

Format: linux-ntfs, "concepts" (index entry), "$FILE_NAME".

Concurrency: keeps nothing.
"""

import cython

__all__ = ["COMPILED", "plain_names"]

COMPILED: bool = cython.compiled

_ENTRY_SIZE = cython.declare(cython.Py_ssize_t, 16)
_NAME_AT = cython.declare(cython.Py_ssize_t, 16 + 0x42)
_LAST = cython.declare(cython.Py_ssize_t, 2)
_DOS = cython.declare(cython.Py_ssize_t, 2)  # a name's namespace
_SPACE = cython.declare(cython.Py_ssize_t, 0x20)
_DOT = cython.declare(cython.Py_ssize_t, 0x2E)
_SLASH = cython.declare(cython.Py_ssize_t, 0x2F)
_DELETE = cython.declare(cython.Py_ssize_t, 0x7F)


def plain_names(
    data: bytes, start: int, end: int, base: int
) -> list[tuple[bytes, int, int, bool]] | None:
    """Return the names of the entries in data[start:end]: each with the file's reference, a cookie
    (`base` and the position behind the entry), and False; those of the namespace DOS left out.
    None where one of them takes the long way.
    """
    view: cython.const[cython.uchar][::1] = memoryview(data)
    found: list[tuple[bytes, int, int, bool]] = []
    name: bytearray = bytearray(255)
    text: cython.uchar[::1] = name
    position: cython.Py_ssize_t = start
    last: cython.Py_ssize_t = end
    behind: cython.Py_ssize_t
    units: cython.Py_ssize_t
    count: cython.Py_ssize_t
    at: cython.Py_ssize_t
    unit: cython.Py_ssize_t
    if position < 0 or last > len(data):
        return None
    while position + _ENTRY_SIZE <= last:
        behind = position + _u16(view, position + 8)
        if _u16(view, position + 12) & _LAST:
            if behind != last or behind - position < _ENTRY_SIZE:
                return None
            return found
        if position + _NAME_AT > behind or behind > last:
            return None
        units = view[position + _NAME_AT - 2]
        at = position + _NAME_AT
        if not units or at + 2 * units > behind:
            return None
        if view[at - 1] != _DOS:
            for count in range(units):
                unit = view[at]
                if view[at + 1] or unit < _SPACE or unit >= _DELETE or unit == _SLASH:
                    return None
                text[count] = cython.cast(cython.uchar, unit)
                at += 2
            if text[0] == _DOT and units <= 2:
                return None  # it may be "." or ".."
            found.append((bytes(name[:units]), _u64(view, position), base | behind, False))
        position = behind
    return None


@cython.cfunc
@cython.exceptval(-1)
def _u16(data: cython.const[cython.uchar][::1], at: cython.Py_ssize_t) -> cython.Py_ssize_t:
    return data[at] | data[at + 1] << 8


@cython.cfunc
@cython.exceptval(-1, check=True)
def _u64(data: cython.const[cython.uchar][::1], at: cython.Py_ssize_t) -> cython.ulonglong:
    low: cython.ulonglong = _u16(data, at) | _u16(data, at + 2) << 16
    high: cython.ulonglong = _u16(data, at + 4) | _u16(data, at + 6) << 16
    return high << 32 | low
