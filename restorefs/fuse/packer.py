"""The records of a listing, packed many at once: the innermost loop of every listing.

Owns the short way to a READDIRPLUS reply. Compiled by Cython; the same answers uncompiled. An entry
without attributes, or with numbers that the kernel has no room for, takes the long way, by
protocol.py, which says how records are laid out.

Concurrency: one thread only, as all is put together in one place; nothing of it is kept.
"""

import stat
from collections.abc import Sequence
from typing import Any

import cython

from restorefs.fuse.protocol import dirent_only, direntplus
from restorefs.tree.nodeid import NodeId
from restorefs.tree.tree import Listed

LARGEST = 4096
"""Bytes that a record of the longest name has room in."""
COMPILED: bool = cython.compiled
_SECOND = cython.declare(cython.longlong, 1_000_000_000)
_BLOCK_SIZE = cython.declare(cython.uint, 4096)
_HEAD = cython.declare(cython.Py_ssize_t, 152)  # bytes before a name
_ROOM = cython.declare(cython.Py_ssize_t, 1 << 20)  # the largest reply that the kernel takes
# What is packed is put together here and copied out, as to make room for it takes longer than that.
_BUFFER = bytearray(_ROOM)
_VIEW = memoryview(_BUFFER)
_WORDS = cython.declare(cython.ulonglong[::1], _VIEW.cast("Q"))
_TIMES = cython.declare(cython.longlong[::1], _VIEW.cast("q"))
_HALVES = cython.declare(cython.uint[::1], _VIEW.cast("I"))
_FOLDER_TYPE = stat.S_IFDIR >> 12


def pack(
    items: Sequence[Listed], first: int, size: int, shift: int, folders: list[NodeId]
) -> tuple[bytes, int]:
    """Pack items from the `first` on, as many as fit into `size` bytes. Returns the records, and
    the number of the item behind them.

    shift: what the kernel's offsets are more than the items' cookies. folders: gets the nodes of
    the folders among the items packed, those that have attributes.
    """
    room: cython.Py_ssize_t = min(max(size, 0), _ROOM)
    at: cython.Py_ssize_t = 0
    number: cython.Py_ssize_t = first
    count: cython.Py_ssize_t = len(items)
    length: cython.Py_ssize_t
    behind: cython.Py_ssize_t
    item: tuple[Any, ...]
    entry: tuple[Any, ...]
    values: tuple[Any, ...]
    while number < count:
        # Slices are plain tuples, into which compiled code looks in no time.
        item = items[number][:3]
        name = item[0]
        length = len(name)
        behind = at + (_HEAD + length + 7 & ~7)
        if behind > room:
            break
        entry = item[1][:5]
        values = entry[1][:11] if entry[1] is not None else ()
        if values and values[1] >> 12 == _FOLDER_TYPE:
            folders.append(entry[0])
        _WORDS[(behind >> 3) - 1] = 0  # what is behind the name up to the next record
        if values and _put(at, entry, values, length, item[2] + shift):
            _VIEW[at + _HEAD : at + _HEAD + length] = name
        else:
            _VIEW[at:behind] = _long_way(items[number], shift)
        at = behind
        number += 1
    return bytes(_VIEW[:at]), number


@cython.cfunc
@cython.exceptval(-1)
def _put(
    at: cython.Py_ssize_t,
    entry: tuple[Any, ...],
    values: tuple[Any, ...],
    length: cython.Py_ssize_t,
    cookie: Any,
) -> cython.int:
    """Put all but the name of a record at a multiple of 8; 0 where that takes the long way. The
    tuples are those of an Entry and of its Attributes."""
    try:
        node: cython.ulonglong = entry[0]
        ttl: cython.ulonglong = entry[2]
        generation: cython.ulonglong = entry[4]
        offset: cython.ulonglong = cookie
        mode: cython.uint = values[1]
        nlink: cython.uint = values[2]
        uid: cython.uint = values[3]
        gid: cython.uint = values[4]
        rdev: cython.uint = values[5]
        size: cython.ulonglong = values[6]
        blocks: cython.ulonglong = values[7]
        atime: cython.longlong = values[8]
        mtime: cython.longlong = values[9]
        ctime: cython.longlong = values[10]
        at >>= 3
        _WORDS[at] = _WORDS[at + 5] = _WORDS[at + 16] = node
        _WORDS[at + 1] = generation
        _WORDS[at + 2] = _WORDS[at + 3] = ttl
        _WORDS[at + 4] = 0  # no fractions of a second to keep it
        _WORDS[at + 6] = size
        _WORDS[at + 7] = blocks
        _WORDS[at + 17] = offset
        _TIMES[at + 8] = atime // _SECOND
        _TIMES[at + 9] = mtime // _SECOND
        _TIMES[at + 10] = ctime // _SECOND
        at <<= 1
        _HALVES[at + 22] = atime % _SECOND
        _HALVES[at + 23] = mtime % _SECOND
        _HALVES[at + 24] = ctime % _SECOND
        _HALVES[at + 25] = mode
        _HALVES[at + 26] = nlink
        _HALVES[at + 27] = uid
        _HALVES[at + 28] = gid
        _HALVES[at + 29] = rdev
        _HALVES[at + 30] = _BLOCK_SIZE
        _HALVES[at + 31] = 0  # flags
        _HALVES[at + 36] = length
        _HALVES[at + 37] = mode >> 12
    except (OverflowError, ValueError):  # the latter from a memoryview, where this is not compiled
        return 0
    return 1


def _long_way(item: Listed, shift: int) -> bytes:
    name, (node, attributes, ttl, kind, generation), cookie = item
    if attributes is None:
        return dirent_only(name, node, kind, cookie + shift)
    return direntplus(name, node, generation, attributes, ttl, cookie + shift)
