"""Trees of one NTFS image, as ntfs-3g shows it and as the reader does.

Owns opening both sides, and what ntfs-3g says in another way than the design: each such difference
is made by name, from what ntfs-3g itself says elsewhere or from what the recipe wrote. The
comparison is tests/manifest.py's. Concurrency: none.
"""

import errno
import hashlib
import os
import posixpath
import stat
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from restorefs.block.file import FileDevice
from restorefs.guestfs.base import GuestFilesystem
from restorefs.guestfs.ntfs.reader import NtfsFilesystem
from tests.contracts.devices import WatchedDevice
from tests.images.ntfs import (
    EPOCH,
    OTHER_POINTS,
    RECIPES,
    Link,
    drives_of,
    links_of,
    readable,
)
from tests.manifest import (
    Entry,
    Manifest,
    assert_same_tree,
    joined,
    manifest_of_guest,
    manifest_of_path,
)

SYSTEM_XATTRS = (
    b"system.ntfs_attrib_be",
    b"system.ntfs_crtime_be",
    b"system.ntfs_acl",
    b"system.ntfs_object_id",
    b"system.ntfs_dos_name",
    b"system.ntfs_reparse_data",
)
"""What both have a name for and ntfs-3g does not list."""

NORMAL = b"\0\0\0\x80"


@asynccontextmanager
async def opened(image: Path) -> AsyncIterator[tuple[NtfsFilesystem, WatchedDevice]]:
    """Open an image with the reader."""
    with FileDevice(image) as file:
        device = WatchedDevice(file)
        yield await NtfsFilesystem.open(device), device


async def found_tree(image: Path, top: bytes = b".") -> Manifest:
    """Return the manifest by the reader, its links' targets as paths of the image.

    AssertionError unless user.DOSATTRIB says what the other attributes do.
    """
    async with opened(image) as (fs, device):
        manifest = await manifest_of_guest(fs, device, top)
    for entry in manifest.values():
        dosattrib = entry.xattrs.pop(b"user.DOSATTRIB", None)
        if dosattrib is not None:
            check_dosattrib(dosattrib, entry.xattrs)
    return manifest


def check_dosattrib(value: bytes, xattrs: Mapping[bytes, bytes]) -> None:
    """Assert that Samba would read out of user.DOSATTRIB what the NTFS attributes say.

    Version 3 (Samba's librpc/idl/xattr.idl): a text, then numbers aligned to 4 bytes at most.
    """
    flags = int.from_bytes(xattrs[b"system.ntfs_attrib_be"], "big") & 0xFFFF
    text = b"0x%x\0" % flags
    assert value.startswith(text)
    at = (len(text) + 1) // 2 * 2
    assert struct.unpack_from("<HH", value, at) == (3, 3)
    at = (at + 4 + 3) // 4 * 4
    valid, attributes, _ = struct.unpack_from("<III", value, at)
    assert attributes == flags
    assert valid & 0x11 == 0x11, "attributes and creation time are valid"
    at += 12
    created = struct.unpack_from("<QQQQ", value, at)[2]
    assert created == int.from_bytes(xattrs[b"system.ntfs_crtime_be"], "big")


def expected_tree(image: Path, top: bytes = b".") -> Manifest:
    """Return the manifest by ntfs-3g, with what the design shows in another way."""
    with readable(image) as root:
        manifest = manifest_of_path(root, top)
        for path, entry in manifest.items():
            restate(entry, os.fsencode(root) + b"/" + path)
    for name in OTHER_POINTS:
        entry = manifest.get(b"reparse/" + name.encode())
        if entry is not None:
            restate_other(entry)
    return manifest


async def assert_same_as_ntfs_3g(image: Path, name: str) -> Manifest:
    """Compare everything that the reader shows of an image with ntfs-3g; return what ntfs-3g does.

    Access times are as stored, modes and owners those that the mount was told, the design's.
    """
    expected, found = expected_tree(image), await found_tree(image)
    recipe = RECIPES[name]
    if b"reparse" in expected:
        settle_links(expected, found, links_of(*drives_of(recipe.cluster)))
    settle_resident(expected, found, max(1024, recipe.sector))
    assert_same_tree(expected, found)
    return expected


@contextmanager
def fsntfs(image: Path) -> Iterator[Any]:
    """Open an image with libfsntfs: a second reader that shares no code with ntfs-3g."""
    pyfsntfs = pytest.importorskip("pyfsntfs")
    volume = pyfsntfs.volume()
    volume.open(str(image))
    try:
        yield volume
    finally:
        volume.close()


def restate(entry: Entry, full: bytes) -> None:
    """Say what ntfs-3g says of one path, as the design has it."""
    # Attributes that it has but does not list, and streams that it lists but that are too large
    # to be attributes.
    entry.errors.pop("xattrs", None)
    entry.xattrs = {}
    for name in (*map(os.fsencode, os.listxattr(full, follow_symlinks=False)), *SYSTEM_XATTRS):
        value = xattr(full, name)
        if value is not None:
            entry.xattrs[name] = value
    if b"system.ntfs_object_id" in entry.xattrs:
        # It adds the birth ids, which are not the file's own but in a table of the volume.
        entry.xattrs[b"system.ntfs_object_id"] = entry.xattrs[b"system.ntfs_object_id"][:16]
    if entry.xattrs[b"system.ntfs_attrib_be"] == NORMAL:
        # Its word for none, which is what is stored.
        entry.xattrs[b"system.ntfs_attrib_be"] = bytes(4)
    # Its stat(2) rounds times before 1970 to the wrong side and drops their fractions; the same
    # times are exact here. FILETIMEs in the order: created, modified, accessed, changed.
    times = struct.unpack(">4Q", os.getxattr(full, "system.ntfs_times_be", follow_symlinks=False))
    entry.mtime_ns, entry.atime_ns, entry.ctime_ns = ((each - EPOCH) * 100 for each in times[1:])
    # It counts 8.3 names as hard links.
    if b"system.ntfs_dos_name" in entry.xattrs and not stat.S_ISDIR(entry.mode):
        entry.nlink -= 1
    # It gives WSL's special files the mount's modes; WSL itself takes the one in $LXMOD.
    kind = stat.S_IFMT(entry.mode)
    if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
        attributes = os.getxattr(full, "system.ntfs_ea", follow_symlinks=False)
        at = attributes.index(b"$LXMOD\0") + 7
        entry.mode = int.from_bytes(attributes[at : at + 4], "little")
        assert stat.S_IFMT(entry.mode) == kind


def xattr(full: bytes, name: bytes) -> bytes | None:
    """Return an extended attribute, None for one that the file has not or that is too large."""
    try:
        return os.getxattr(full, name, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.E2BIG):
            return None
        if full.endswith(b"/.") and name == b"system.ntfs_dos_name" and error.errno == errno.EPERM:
            return None
        if error.errno != errno.EIO:
            raise
    # It says EIO where ERANGE is meant: Python tries with a small buffer first, getfattr asks for
    # the size.
    return subprocess.run(
        ["getfattr", "--no-dereference", "--absolute-names", "--only-values", "-n", name, full],
        check=True,
        stdout=subprocess.PIPE,
    ).stdout


def restate_other(entry: Entry) -> None:
    """Say of a reparse point that is no link what the design does: the file that it is on.

    ntfs-3g makes a link of it, whose target says that it does not know the tag.
    """
    assert entry.target is not None
    assert entry.target.startswith(b"unsupported reparse tag")
    entry.mode, entry.target, entry.size = stat.S_IFREG | 0o644, None, 0
    entry.digest = hashlib.sha256().hexdigest()


def settle_links(expected: Manifest, found: Manifest, links: Mapping[str, Link]) -> None:
    """Compare where Windows' links lead, by what the recipe wrote, and make both sides equal.

    ntfs-3g makes targets absolute, below its own mount, and knows no symlinks that lead nowhere.
    AssertionError for links that lead elsewhere.
    """
    for name, link in links.items():
        path = f"reparse/{name}"
        shown, entry = found[path.encode()], expected[path.encode()]
        assert stat.S_ISLNK(entry.mode)
        assert shown.target is not None, path
        assert shown.size == len(shown.target)
        target = shown.target.decode()
        if link.leads_to is None:
            assert target in link.texts, path
        else:
            leads_to = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
            assert leads_to.casefold() == link.leads_to.casefold(), path
        entry.target, entry.size = shown.target, shown.size


def settle_resident(expected: Manifest, found: Manifest, record: int) -> None:
    """Make the blocks of small files equal where the reader says that they have none.

    ntfs-3g counts the bytes of what lies in a file's record; the record has those blocks anyway.
    """
    for path, entry in expected.items():
        other = found.get(path)
        if entry.size < record and other is not None and other.blocks == 0:
            entry.blocks = 0


def streams_by_ntfs_3g(image: Path, paths: list[bytes]) -> dict[bytes, dict[bytes, bytes]]:
    """Return the content of all named streams of files, by path and name."""
    found: dict[bytes, dict[bytes, bytes]] = {}
    with readable(image) as root:
        for path in paths:
            full = joined(os.fsencode(root), path)
            listed = map(os.fsencode, os.listxattr(full, follow_symlinks=False))
            names = [each[5:] for each in listed if each.startswith(b"user.")]
            if names:
                found[path] = dict.fromkeys(names, b"")
    with readable(image, "streams_interface=windows") as root:
        for path, streams in found.items():
            for stream in streams:
                full = joined(os.fsencode(root), path) + b":" + stream
                with open(full, "rb") as file:
                    streams[stream] = file.read()
    return found


async def content_of(fs: GuestFilesystem, device: WatchedDevice, inode: int) -> bytes:
    """Return all bytes of a file."""
    size = (await fs.attributes(inode)).size
    pieces = []
    position = 0
    for extent in await fs.map(inode, 0, size):
        if extent.encoded:
            pieces.append(await fs.read_encoded(inode, position, extent.length))
        elif extent.offset is None:
            pieces.append(bytes(extent.length))
        else:
            pieces.append(await device.read(extent.offset, extent.length))
        position += extent.length
    return b"".join(pieces)


async def inode_at(fs: GuestFilesystem, path: bytes) -> int:
    """Look a path up, name by name."""
    inode = fs.root
    for name in path.split(b"/"):
        if name != b".":
            inode = await fs.lookup(inode, name)
    return inode
