"""The FUSE protocol's messages: bytes to values and back.

Owns their layouts, for the requests that a read-only file system gets. Must not do I/O or know
what a node is. Source: linux/fuse.h, version 7.31 of the protocol (Linux 5.4) and compatible later
ones; all numbers are in the machine's own byte order, and records are padded to 8 bytes.
"""

import struct
from enum import IntEnum, IntFlag
from struct import Struct
from typing import NamedTuple

from restorefs.guestfs.base import Attributes
from restorefs.tree.nodeid import NodeId

MAJOR = 7
MINOR = 31
BUFFER_SIZE = 16 << 10
"""Bytes that a request may take; the kernel demands at least 8 KiB."""
MAX_PAGES = 256
"""The largest read that the kernel may ask for: 1 MiB."""
_MAX_WRITE = 4096  # nothing is ever written, and the kernel's least
_BLOCK_SIZE = 4096
_NAME_MAX = 255
_SECOND = 1_000_000_000


class Opcode(IntEnum):
    """enum fuse_opcode."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    READLINK = 5
    OPEN = 14
    READ = 15
    STATFS = 17
    GETXATTR = 22
    LISTXATTR = 23
    INIT = 26
    OPENDIR = 27
    RELEASEDIR = 29
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    READDIRPLUS = 44
    LSEEK = 46


OPCODES: dict[int, Opcode] = {opcode.value: opcode for opcode in Opcode}


class InitFlag(IntFlag):
    """Of fuse_init_in and fuse_init_out."""

    ASYNC_READ = 1 << 0
    EXPORT_SUPPORT = 1 << 4
    DO_READDIRPLUS = 1 << 13
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    POSIX_ACL = 1 << 20
    MAX_PAGES = 1 << 22


# Not ASYNC_DIO: who waits for such a read cannot be ended, not even by SIGKILL.
WANTED = (
    InitFlag.ASYNC_READ  # several reads of one file at once
    | InitFlag.EXPORT_SUPPORT  # LOOKUP of "." and ".." works for every node
    | InitFlag.DO_READDIRPLUS  # names always come with their attributes
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.POSIX_ACL  # the kernel checks access with the guests' ACLs
    | InitFlag.MAX_PAGES
)
NEEDED = InitFlag.DO_READDIRPLUS | InitFlag.NO_OPEN_SUPPORT | InitFlag.MAX_PAGES

FOPEN_KEEP_CACHE = 1 << 1
FOPEN_CACHE_DIR = 1 << 3

HEADER = Struct("=IIQQIIIHH")
"""fuse_in_header: len, opcode, unique, nodeid, uid, gid, pid, total_extlen, padding."""
REPLY_HEADER = Struct("=IiQ")
"""fuse_out_header: len, error, unique."""

_INIT_IN = Struct("=IIII")  # major, minor, max_readahead, flags
_INIT_OUT = Struct("=IIIIHHIIHHI28x")  # ... max_background .. max_write, time_gran, max_pages
_HANDLE = Struct("=Q")  # how fuse_release_in begins; fuse_interrupt_in
_READ_IN = Struct("=QQI")  # fh, offset, size; the rest is about locks and flags
_LSEEK_IN = Struct("=QQII")  # fh, offset, whence, padding
_LSEEK_OUT = Struct("=Q")  # offset
_GETXATTR_IN = Struct("=II")  # size, padding; the name follows
_GETXATTR_OUT = Struct("=II")  # size, padding
_OPEN_IN = Struct("=II")  # flags, open_flags
_NOTIFY_INVAL_INODE = 2  # enum fuse_notify_code, where a reply has its errno
_NOTIFY_INVAL_ENTRY = 3
_INVAL_INODE = Struct("=Qqq")  # ino, off (negative: attributes alone), len
_INVAL_ENTRY = Struct("=QII")  # parent, namelen, flags; the name follows
_OPEN_OUT = Struct("=QII")  # fh, open_flags, padding
_STATFS_OUT = Struct("=5Q4I24x")  # blocks .. ffree, bsize, namelen, frsize, padding

# fuse_attr: ino, size, blocks, atime, mtime, ctime; their ns; mode, nlink, uid, gid, rdev,
# blksize, flags. Times are unsigned in the header's text and signed to the kernel.
_ATTR = "QQQqqqIIIIIIIIII"
_ATTR_OUT = Struct("=QII" + _ATTR)  # attr_valid, attr_valid_nsec, dummy
# fuse_entry_out: nodeid, generation, entry_valid, attr_valid, and their ns
_ENTRY = "QQQQII" + _ATTR
_ENTRY_OUT = Struct("=" + _ENTRY)
# fuse_dirent: ino, off, namelen, type; the name follows
_DIRENTPLUS = Struct("=" + _ENTRY + "QQII")
_NO_ENTRY = bytes(_ENTRY_OUT.size)
_DIRENT = Struct("=QQII")
_PADDING = [bytes(-length % 8) for length in range(8)]


class InitIn(NamedTuple):
    major: int
    minor: int
    max_readahead: int
    flags: int


class ReadIn(NamedTuple):
    """Of READ and READDIRPLUS; `size` in bytes."""

    handle: int
    offset: int
    size: int


class LseekIn(NamedTuple):
    """`whence` is os.SEEK_DATA or os.SEEK_HOLE; the kernel does all others itself."""

    offset: int
    whence: int


class GetxattrIn(NamedTuple):
    """Of GETXATTR and LISTXATTR, which has no name. A size of 0 asks for the size."""

    size: int
    name: bytes


def init_in(body: bytes) -> InitIn:
    return InitIn(*_INIT_IN.unpack_from(body))


def init_out(flags: int, max_readahead: int, max_background: int) -> bytes:
    """Pack the answer to INIT. `max_readahead` in bytes."""
    return _INIT_OUT.pack(
        MAJOR,
        MINOR,
        max_readahead,
        flags,
        max_background,
        max_background * 3 // 4,
        _MAX_WRITE,
        1,
        MAX_PAGES,
        0,
        0,
    )


def handle_in(body: bytes) -> int:
    """Return the first number of a body: a handle, or what INTERRUPT is about."""
    number: int = _HANDLE.unpack_from(body)[0]
    return number


def read_in(body: bytes) -> ReadIn:
    return ReadIn(*_READ_IN.unpack_from(body))


def lseek_in(body: bytes) -> LseekIn:
    _, offset, whence, _ = _LSEEK_IN.unpack_from(body)
    return LseekIn(offset, whence)


def lseek_out(offset: int) -> bytes:
    return _LSEEK_OUT.pack(offset)


def name_in(body: bytes) -> bytes:
    return body[:-1]


def getxattr_in(body: bytes) -> GetxattrIn:
    size, _ = _GETXATTR_IN.unpack_from(body)
    return GetxattrIn(size, body[_GETXATTR_IN.size : -1])


def getxattr_out(size: int) -> bytes:
    return _GETXATTR_OUT.pack(size, 0)


def open_in(body: bytes) -> int:
    """Return the flags of open(2), less those that the kernel acts on itself."""
    flags: int = _OPEN_IN.unpack_from(body)[0]
    return flags


def open_out(handle: int, flags: int) -> bytes:
    return _OPEN_OUT.pack(handle, flags, 0)


def forget_name(parent: NodeId, name: bytes) -> bytes:
    """Pack a message to the kernel: what a name means has changed, or it is gone."""
    body = _INVAL_ENTRY.pack(parent, len(name), 0) + name + b"\0"
    return REPLY_HEADER.pack(REPLY_HEADER.size + len(body), _NOTIFY_INVAL_ENTRY, 0) + body


def forget_attributes(node: NodeId) -> bytes:
    """Pack a message to the kernel: a node's attributes have changed."""
    body = _INVAL_INODE.pack(node, -1, 0)
    return REPLY_HEADER.pack(REPLY_HEADER.size + len(body), _NOTIFY_INVAL_INODE, 0) + body


def statfs_out() -> bytes:
    """Pack a file system of unknown size."""
    return _STATFS_OUT.pack(0, 0, 0, 0, 0, _BLOCK_SIZE, _NAME_MAX, _BLOCK_SIZE, 0)


def absent_out(ttl: int) -> bytes:
    """Pack the answer to LOOKUP that a name is not there, for so many seconds."""
    return _ENTRY_OUT.pack(0, 0, ttl, *[0] * 19)


def entry_out(node: NodeId, generation: int, attributes: Attributes, ttl: int) -> bytes:
    """Pack a name's node and its attributes, for so many seconds. Where a node has another
    `generation` than the kernel knows, what it has of the node is worth nothing any more."""
    return _ENTRY_OUT.pack(node, generation, ttl, ttl, 0, 0, *_attr(node, attributes))


def attr_out(node: NodeId, attributes: Attributes, ttl: int) -> bytes:
    return _ATTR_OUT.pack(ttl, 0, 0, *_attr(node, attributes))


def _attr(node: NodeId, attributes: Attributes) -> tuple[int, ...]:
    _, mode, nlink, uid, gid, rdev, size, blocks, atime, mtime, ctime, _ = attributes
    atime, atime_ns = divmod(atime, _SECOND)
    mtime, mtime_ns = divmod(mtime, _SECOND)
    ctime, ctime_ns = divmod(ctime, _SECOND)
    times = (atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns)
    return (node, size, blocks, *times, mode, nlink, uid, gid, rdev, _BLOCK_SIZE, 0)


def direntplus(
    name: bytes, node: NodeId, generation: int, attributes: Attributes, ttl: int, cookie: int
) -> bytes:
    """Pack a name of a folder with its node and attributes; without them where the kernel has no
    room for a number."""
    _, mode, nlink, uid, gid, rdev, size, blocks, atime, mtime, ctime, _ = attributes
    length = len(name)
    try:
        packed = _DIRENTPLUS.pack(
            node, generation, ttl, ttl, 0, 0,
            node, size, blocks,
            atime // _SECOND, mtime // _SECOND, ctime // _SECOND,
            atime % _SECOND, mtime % _SECOND, ctime % _SECOND,
            mode, nlink, uid, gid, rdev, _BLOCK_SIZE, 0,
            node, cookie, length, mode >> 12,
        )  # fmt: skip
    except struct.error:
        return dirent_only(name, node, mode, cookie)
    return packed + name + _PADDING[length & 7]


def dirent_only(name: bytes, node: NodeId, kind: int, cookie: int) -> bytes:
    """Pack a name of a folder without attributes: the kernel asks for them when they are wanted.
    `kind`: the type bits of a mode, 0 if unknown."""
    length = len(name)
    return (
        _NO_ENTRY
        + _DIRENT.pack(node, cookie, length, kind >> 12 & 15)
        + name
        + _PADDING[length & 7]
    )
