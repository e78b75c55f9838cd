"""The records of a listing, packed many at once: the innermost loop of every listing.

Owns the short way to a READDIRPLUS reply. Compiled by Cython; the same answers uncompiled. An entry
without attributes, or with numbers that the kernel has no room for, takes the long way, by
protocol.py, which says how records are laid out. Pure.
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
_FOLDER_TYPE = stat.S_IFDIR >> 12


def pack(
    items: Sequence[Listed], first: int, size: int, shift: int, folders: list[NodeId]
) -> tuple[bytes, int]:
    """Pack items from the `first` on, as many as fit into `size` bytes. Returns the records, and
    the number of the item behind them.

    shift: what the kernel's offsets are more than the items' cookies. folders: gets the nodes of
    the folders among the items packed, those that have attributes.
    """
    buffer = bytearray(max(size, 0) & ~7)
    view = memoryview(buffer)
    words: cython.ulonglong[::1] = view.cast("Q")
    times: cython.longlong[::1] = view.cast("q")
    halves: cython.uint[::1] = view.cast("I")
    room: cython.Py_ssize_t = len(buffer)
    at: cython.Py_ssize_t = 0
    number: cython.Py_ssize_t = first
    count: cython.Py_ssize_t = len(items)
    length: cython.Py_ssize_t
    behind: cython.Py_ssize_t
    while number < count:
        item = items[number]
        name, node, attributes = item[0], item[1][0], item[1][1]
        length = len(name)
        behind = at + (_HEAD + length + 7 & ~7)
        if behind > room:
            break
        if attributes is not None and attributes[1] >> 12 == _FOLDER_TYPE:
            folders.append(node)
        if _put(words, times, halves, at, item, length, shift):
            buffer[at + _HEAD : at + _HEAD + length] = name
        else:
            buffer[at:behind] = _long_way(item, shift)
        at = behind
        number += 1
    return bytes(view[:at]), number


@cython.cfunc
@cython.exceptval(-1)
def _put(
    words: cython.ulonglong[::1],
    times: cython.longlong[::1],
    halves: cython.uint[::1],
    at: cython.Py_ssize_t,
    item: Any,
    length: cython.Py_ssize_t,
    shift: cython.Py_ssize_t,
) -> cython.int:
    """Put all but the name of a record at a multiple of 8; 0 where that takes the long way."""
    attributes: Any = item[1][1]
    if attributes is None:
        return 0
    try:
        node: cython.ulonglong = item[1][0]
        ttl: cython.ulonglong = item[1][2]
        generation: cython.ulonglong = item[1][4]
        offset: cython.ulonglong = item[2] + shift
        mode: cython.uint = attributes[1]
        nlink: cython.uint = attributes[2]
        uid: cython.uint = attributes[3]
        gid: cython.uint = attributes[4]
        rdev: cython.uint = attributes[5]
        size: cython.ulonglong = attributes[6]
        blocks: cython.ulonglong = attributes[7]
        atime: cython.longlong = attributes[8]
        mtime: cython.longlong = attributes[9]
        ctime: cython.longlong = attributes[10]
        at >>= 3
        words[at] = words[at + 5] = words[at + 16] = node
        words[at + 1] = generation
        words[at + 2] = words[at + 3] = ttl
        words[at + 6] = size
        words[at + 7] = blocks
        words[at + 17] = offset
        times[at + 8] = atime // _SECOND
        times[at + 9] = mtime // _SECOND
        times[at + 10] = ctime // _SECOND
        at <<= 1
        halves[at + 22] = atime % _SECOND
        halves[at + 23] = mtime % _SECOND
        halves[at + 24] = ctime % _SECOND
        halves[at + 25] = mode
        halves[at + 26] = nlink
        halves[at + 27] = uid
        halves[at + 28] = gid
        halves[at + 29] = rdev
        halves[at + 30] = _BLOCK_SIZE
        halves[at + 36] = length
        halves[at + 37] = mode >> 12
    except (OverflowError, ValueError):  # the latter from a memoryview, where this is not compiled
        return 0
    return 1


def _long_way(item: Listed, shift: int) -> bytes:
    name, (node, attributes, ttl, kind, generation), cookie = item
    if attributes is None:
        return dirent_only(name, node, kind, cookie + shift)
    return direntplus(name, node, generation, attributes, ttl, cookie + shift)
