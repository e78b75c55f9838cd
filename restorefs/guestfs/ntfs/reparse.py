"""Reparse points and extended attributes: what makes a file something else than it looks.

Owns the tags, the decoding of their data, and of $EA. Pure. Sources: MS-FSCC 2.1.2 (reparse
points) and 2.4.15 (FILE_FULL_EA_INFORMATION); Microsoft's "File Permissions for WSL" for $LXUID,
$LXGID, $LXMOD and $LXDEV.
"""

import os
import stat
import struct
from typing import NamedTuple

from restorefs.errors import DamagedError

MOUNT_POINT = 0xA0000003
SYMLINK = 0xA000000C
WSL_SYMLINK = 0xA000001D
WOF = 0x80000017
DEDUP = 0x80000013
_CLOUD, _CLOUD_MASK = 0x9000001A, 0xFFFF0FFF
_STUBS = {
    0x80000006: "Hierarchical Storage Management",
    0x80000007: "Single Instance Storage",
    0x80000008: "Windows Image (WIM) mount",
    0x8000001E: "Azure File Sync",
    0x80000021: "OneDrive",
    0x9000001C: "Projected File System",
    0xC0000004: "Hierarchical Storage Management",
}

KINDS = {
    MOUNT_POINT: stat.S_IFLNK,
    SYMLINK: stat.S_IFLNK,
    WSL_SYMLINK: stat.S_IFLNK,
    0x80000023: stat.S_IFSOCK,
    0x80000024: stat.S_IFIFO,
    0x80000025: stat.S_IFCHR,
    0x80000026: stat.S_IFBLK,
}
"""The type bits of what a tag makes of a file, where it makes it another type."""

REPARSE_BYTES = 64 << 10
EA_BYTES = 1 << 20


def stub_name(tag: int) -> str:
    """Return who keeps the content of files and folders with this tag elsewhere, "" for other
    tags."""
    if tag & _CLOUD_MASK == _CLOUD:
        return "cloud file"
    return _STUBS.get(tag, "")


class Reparse(NamedTuple):
    """A reparse point: its tag, its data behind the header, and all its bytes."""

    tag: int
    data: bytes
    raw: bytes


_HEADER = struct.Struct("<IH2x")
_MICROSOFT = 0x80000000
_GUID_SIZE = 16


def decode_reparse(raw: bytes) -> Reparse:
    """Decode a reparse point's header (MS-FSCC 2.1.2.2, 2.1.2.3). Raises DamagedError."""
    if len(raw) < _HEADER.size:
        raise DamagedError("a reparse point is cut")
    tag, length = _HEADER.unpack_from(raw)
    start = _HEADER.size + (0 if tag & _MICROSOFT else _GUID_SIZE)
    if start + length > len(raw):
        raise DamagedError("a reparse point is cut")
    return Reparse(tag, raw[start : start + length], raw)


class LinkData(NamedTuple):
    """What a link's reparse point says, in UTF-16LE. relative: to the folder that it is in."""

    substitute: bytes
    shown: bytes
    relative: bool


_NAMES = struct.Struct("<HHHH")
_FLAGS = struct.Struct("<I")
_RELATIVE = 1


def decode_link(reparse: Reparse) -> LinkData:
    """Decode a symbolic link or a mount point (MS-FSCC 2.1.2.4, 2.1.2.5). Raises DamagedError."""
    data = reparse.data
    buffer = _NAMES.size + (_FLAGS.size if reparse.tag == SYMLINK else 0)
    if len(data) < buffer:
        raise DamagedError("a link is cut")
    names = _NAMES.unpack_from(data)
    relative = reparse.tag == SYMLINK and bool(_FLAGS.unpack_from(data, _NAMES.size)[0] & _RELATIVE)
    found = []
    for offset, length in (names[:2], names[2:]):
        if offset & 1 or length & 1 or buffer + offset + length > len(data):
            raise DamagedError("a link's target lies outside of its reparse point")
        found.append(data[buffer + offset : buffer + offset + length])
    return LinkData(found[0], found[1], relative)


_WSL_VERSION = 2


def decode_wsl_link(reparse: Reparse) -> bytes:
    """Return the target of a WSL link: UTF-8 behind a version number. Raises DamagedError."""
    data = reparse.data
    if len(data) < 5 or int.from_bytes(data[:4], "little") != _WSL_VERSION or b"\0" in data[4:]:
        raise DamagedError("a WSL link is damaged")
    return data[4:]


_EA = struct.Struct("<IBBH")


def decode_eas(data: bytes) -> dict[bytes, bytes]:
    """Decode $EA as far as it can be. Bounded by its bytes."""
    found: dict[bytes, bytes] = {}
    position = 0
    while position + _EA.size <= len(data):
        step, _, name_length, size = _EA.unpack_from(data, position)
        name = position + _EA.size
        value = name + name_length + 1
        if value + size > len(data):
            break
        found.setdefault(data[name : name + name_length], data[value : value + size])
        if step < _EA.size:
            break
        position += step
    return found


_MAX_MAJOR, _MAX_MINOR = (1 << 12) - 1, (1 << 20) - 1  # of Linux


class WslMetadata(NamedTuple):
    """What WSL keeps about a file, None for what it does not."""

    mode: int | None
    uid: int | None
    gid: int | None
    rdev: int | None


def decode_wsl(eas: dict[bytes, bytes]) -> WslMetadata:
    """Return what WSL says of a file."""

    def number(name: bytes) -> int | None:
        value = eas.get(name, b"")
        return int.from_bytes(value, "little") if len(value) == 4 else None

    device = eas.get(b"$LXDEV", b"")
    rdev = None
    if len(device) == 8:
        major, minor = struct.unpack("<II", device)
        if major <= _MAX_MAJOR and minor <= _MAX_MINOR:
            rdev = os.makedev(major, minor)
    return WslMetadata(number(b"$LXMOD"), number(b"$LXUID"), number(b"$LXGID"), rdev)
