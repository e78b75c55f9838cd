"""Manifests: everything that can be seen of a tree of files, and how two of them differ.

Owns the comparison that decides whether restorefs shows a guest as its own kernel does. Takes a
tree from a mount (the kernel's or ours) or straight from a reader; knows no format. A manifest
maps paths, relative to the root and as bytes, to entries; the root itself is b".".

Concurrency: none; one file after the other.

For people: `python -m tests.manifest ROOT [--json]` shows a tree, and
`python -m tests.manifest ROOT OTHER` says how a second one differs from it.
"""

# ruff: noqa: PTH115, PTH116, PTH208 - paths here are bytes, which pathlib does not take

import argparse
import errno
import hashlib
import json
import os
import stat
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

from restorefs.block.base import BlockDevice
from restorefs.errors import RestoreError
from restorefs.guestfs.base import Attributes, DirEntry, GuestFilesystem, Inode
from tests.listing import listings

PIECE = 1 << 20
WHOLE_HASH_LIMIT = 64 << 20
"""Up to this size the digest is the content's plain SHA-256. Above, it is that of the size and of
each piece that is not all zeros, with its offset: a sparse file of terabytes takes the time that
its data takes."""

Segment: TypeAlias = tuple[int, int]
"""A half-open range of a file's bytes that is data, not a hole."""


@dataclass(slots=True)
class Entry:
    """One path of a tree.

    mode: with the type bits. blocks: in units of 512 bytes. link_group: the least of all paths
    that are this same file (hard links), its own path where there is only one. digest, segments:
    of regular files; segments is None where the source cannot tell holes from data.
    errors: what could not be read ("attributes", "xattrs", "names", "target", "content"), with
    the errno's name; the fields concerned then have no meaning.
    """

    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    blocks: int = 0
    rdev: int = 0
    nlink: int = 0
    mtime_ns: int = 0
    atime_ns: int = 0
    ctime_ns: int = 0
    target: bytes | None = None
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    link_group: bytes = b""
    digest: str | None = None
    segments: tuple[Segment, ...] | None = None
    errors: dict[str, str] = field(default_factory=dict)


Manifest: TypeAlias = dict[bytes, Entry]

FIELDS = tuple(each.name for each in fields(Entry))


def compare(expected: Manifest, found: Manifest, ignore: Collection[str] = ()) -> list[str]:
    """Return every difference between two trees, one line each, readable for people.

    ignore: names of fields not to compare, such as "atime_ns". Hole maps are compared where both
    sides have one; of errors, what could not be read, not the errno.
    """
    unknown = set(ignore) - set(FIELDS)
    assert not unknown, f"no such fields: {unknown}"
    compared = [name for name in FIELDS if name not in ignore]
    lines = []
    for path in sorted(expected.keys() | found.keys()):
        shown = repr(path)[1:]
        if path not in found:
            lines.append(f"{shown}: missing")
        elif path not in expected:
            lines.append(f"{shown}: not expected")
        else:
            lines += (
                f"{shown}: {what}"
                for name in compared
                for what in field_differences(name, expected[path], found[path])
            )
    return lines


def assert_same_tree(expected: Manifest, found: Manifest, ignore: Collection[str] = ()) -> None:
    """Raise AssertionError listing the first differences between two trees, if there are any."""
    differences = compare(expected, found, ignore)
    rest = f"\n... and {len(differences) - 40} more" if len(differences) > 40 else ""
    assert not differences, "\n" + "\n".join(differences[:40]) + rest


def field_differences(name: str, expected: Entry, found: Entry) -> Iterator[str]:
    """Yield how one field of two entries differs."""
    one, other = getattr(expected, name), getattr(found, name)
    if one == other:
        return
    if name == "xattrs":
        for key in sorted(one.keys() | other.keys()):
            if one.get(key) != other.get(key):
                yield (
                    f"xattr {repr(key)[1:]} should be {abbreviated(one.get(key))},"
                    f" is {abbreviated(other.get(key))}"
                )
    elif name == "segments":
        if one is not None and other is not None:
            yield f"data should lie at {first_difference(one, other)}"
    elif name == "errors":
        if one.keys() != other.keys():
            yield f"errors should be {one}, are {other}"
    elif name == "mode":
        yield f"mode should be {stat.filemode(one)} {one:o}, is {stat.filemode(other)} {other:o}"
    else:
        yield f"{name} should be {abbreviated(one)}, is {abbreviated(other)}"


def first_difference(one: tuple[Segment, ...], other: tuple[Segment, ...]) -> str:
    """Say where two lists of segments begin to differ."""
    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    return (
        f"{list(one[same : same + 3])}, is at {list(other[same : same + 3])}"
        f" (segment {same} of {len(one)} and {len(other)})"
    )


def abbreviated(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text)} characters)"


class Digest:
    """The digest of a file's content, fed in order; see WHOLE_HASH_LIMIT."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._whole = size <= WHOLE_HASH_LIMIT
        self._position = 0
        self._piece = bytearray()
        self._hash = hashlib.sha256(b"" if self._whole else size.to_bytes(8, "big"))

    def data(self, data: bytes) -> None:
        """Feed bytes of any length."""
        view = memoryview(data)
        while view:
            room = PIECE - len(self._piece)
            self._piece += view[:room]
            view = view[room:]
            if len(self._piece) == PIECE:
                self._end_piece()

    def hole(self, length: int) -> None:
        """Feed zeros."""
        while length > 0:
            if not self._whole and not self._piece and length >= PIECE:
                step = length - length % PIECE
                self._position += step
            else:
                step = min(length, PIECE - len(self._piece))
                self.data(bytes(step))
            length -= step

    def finish(self) -> str:
        """Return the digest. AssertionError unless exactly the file's size was fed."""
        self._end_piece()
        assert self._position == self._size, f"{self._position} bytes read of {self._size}"
        return self._hash.hexdigest()

    def _end_piece(self) -> None:
        if self._whole:
            self._hash.update(self._piece)
        elif self._piece.strip(b"\0"):
            self._hash.update(self._position.to_bytes(8, "big"))
            self._hash.update(self._piece)
        self._position += len(self._piece)
        self._piece.clear()


# From a mounted tree


def manifest_of_path(root: Path, top: bytes = b".", largest: int | None = None) -> Manifest:
    """Read the tree below a folder by system calls, staying on its file system.

    top: the path, relative to the root, of the only part to read. largest: the size in bytes up to
    which content is read; a larger file has no digest. Mount the tree read-only and
    noatime where access times are to be compared. An OSError of a single file becomes a note in
    its entry's `errors`.
    """
    base = os.fsencode(root)
    device = os.stat(base).st_dev
    holes = tells_holes(device)
    manifest: Manifest = {}
    paths_of: defaultdict[int, list[bytes]] = defaultdict(list)
    pending = [top]
    while pending:
        path = pending.pop()
        full = joined(base, path)
        entry = manifest[path] = Entry(link_group=path)
        with noted(entry, "attributes"):
            found = os.lstat(full)
        if entry.errors:
            continue
        fill_attributes(entry, attributes_of_stat(found))
        paths_of[found.st_ino].append(path)
        with noted(entry, "xattrs"):
            entry.xattrs = xattrs_of_path(full)
        if stat.S_ISDIR(entry.mode) and found.st_dev == device:
            with noted(entry, "names"):
                pending += [joined(path, name) for name in os.listdir(full)]
        elif stat.S_ISLNK(entry.mode):
            with noted(entry, "target"):
                entry.target = os.readlink(full)
        elif stat.S_ISREG(entry.mode) and (largest is None or entry.size <= largest):
            with noted(entry, "content"):
                entry.digest, entry.segments = content_of_path(full, entry.size, holes)
    name_link_groups(manifest, paths_of.values())
    return manifest


def tells_holes(device: int) -> bool:
    """Say whether SEEK_HOLE means anything on the mounted file system with this st_dev.

    A FUSE mount without an lseek handler calls everything data, which is no map. Ours has one.
    """
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        mount, _, source = line.partition(b" - ")
        if os.fsdecode(mount.split()[2]) == number:
            kind = source.split()[0]
            return kind == b"fuse.restorefs" or not kind.startswith(b"fuse")
    return True


def attributes_of_stat(found: os.stat_result) -> Attributes:
    return Attributes(
        inode=found.st_ino,
        mode=found.st_mode,
        nlink=found.st_nlink,
        uid=found.st_uid,
        gid=found.st_gid,
        rdev=found.st_rdev,
        size=found.st_size,
        blocks=found.st_blocks,
        atime_ns=found.st_atime_ns,
        mtime_ns=found.st_mtime_ns,
        ctime_ns=found.st_ctime_ns,
    )


def xattrs_of_path(path: bytes) -> dict[bytes, bytes]:
    return {
        os.fsencode(name): os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
    }


def content_of_path(path: bytes, size: int, holes: bool) -> tuple[str, tuple[Segment, ...] | None]:
    """Return a file's digest and, where its file system tells, its data segments."""
    digest = Digest(size)
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # Before anything is read: with pages in its cache, the kernel calls unwritten blocks data.
        segments = tuple(data_segments(fd, size)) if holes else None
        position = 0
        for start, end in ((0, size),) if segments is None else segments:
            digest.hole(start - position)
            position = start
            while position < end:
                data = os.pread(fd, min(PIECE, end - position), position)
                assert data, f"{path!r} ends at {position}, its size is {size}"
                digest.data(data)
                position += len(data)
        digest.hole(size - position)
    finally:
        os.close(fd)
    return digest.finish(), segments


def data_segments(fd: int, size: int) -> Iterator[Segment]:
    """Yield a file's data segments as SEEK_DATA and SEEK_HOLE tell them."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end


# Straight from a reader


async def manifest_of_guest(
    fs: GuestFilesystem, device: BlockDevice, top: bytes = b"."
) -> Manifest:
    """Read a tree from a reader, and its file data from the device the reader was opened on.

    top: the path, relative to the root, of the only part to read. What a reader says twice must
    agree: AssertionError unless lookup(), also of b"..", attributes() and the entries' kinds fit
    what readdir() says. A RestoreError of a single file becomes a note in its entry's `errors`.
    """
    manifest: Manifest = {}
    paths_of: defaultdict[int, list[bytes]] = defaultdict(list)
    inode = fs.root
    for name in top.split(b"/") if top != b"." else ():
        inode = await fs.lookup(inode, name)
    pending = [(top, inode)]
    while pending:
        path, inode = pending.pop()
        entry = manifest[path] = Entry(link_group=path)
        with noted(entry, "attributes"):
            fill_attributes(entry, await fs.attributes(inode))
        if entry.errors:
            continue
        paths_of[inode].append(path)
        with noted(entry, "xattrs"):
            entry.xattrs = dict(await fs.xattrs(inode))
        if stat.S_ISDIR(entry.mode):
            with noted(entry, "names"):
                pending += await checked_children(fs, inode, path)
        elif stat.S_ISLNK(entry.mode):
            with noted(entry, "target"):
                entry.target = await fs.readlink(inode)
        elif stat.S_ISREG(entry.mode):
            with noted(entry, "content"):
                entry.digest, entry.segments = await content_of_guest(fs, device, inode, entry.size)
    name_link_groups(manifest, paths_of.values())
    return manifest


async def checked_children(
    fs: GuestFilesystem, folder: Inode, path: bytes
) -> list[tuple[bytes, Inode]]:
    """Return a folder's children by path, after asking for each of them in the other ways too."""
    children = []
    async with aclosing(listings(fs, folder)) as parts:
        async for part in parts:
            for entry in part.entries:
                where = joined(path, entry.name)
                await check_entry(fs, folder, entry, where)
                children.append((where, entry.inode))
    assert len(children) == len(set(children)), f"{path!r}: entries come twice"
    return children


async def check_entry(fs: GuestFilesystem, folder: Inode, entry: DirEntry, where: bytes) -> None:
    """Assert that a listed entry is what asking for it says."""
    assert await fs.lookup(folder, entry.name) == entry.inode, f"{where!r}: lookup differs"
    try:
        attributes = await fs.attributes(entry.inode)
    except RestoreError:
        assert entry.attributes is None, f"{where!r}: only readdir has attributes"
        return
    assert attributes == entry.attributes, f"{where!r}: readdir's attributes differ"
    assert attributes.inode == entry.inode, f"{where!r}: the inode differs"
    assert entry.kind in (0, stat.S_IFMT(attributes.mode)), f"{where!r}: kind differs"
    if stat.S_ISDIR(attributes.mode):
        with suppress(RestoreError):
            parent = await fs.lookup(entry.inode, b"..")
            assert parent == folder, f"{where!r}: its parent differs"


async def content_of_guest(
    fs: GuestFilesystem, device: BlockDevice, inode: Inode, size: int
) -> tuple[str, tuple[Segment, ...]]:
    """Return a file's digest and data segments by its map."""
    digest = Digest(size)
    segments: list[Segment] = []
    position = 0
    for extent in await fs.map(inode, 0, size):
        end = position + extent.length
        if extent.offset is None and not extent.encoded:
            digest.hole(extent.length)
        else:
            if segments and segments[-1][1] == position:
                segments[-1] = (segments[-1][0], end)
            else:
                segments.append((position, end))
            for start in range(position, end, PIECE):
                length = min(PIECE, end - start)
                if extent.offset is None:
                    digest.data(await fs.read_encoded(inode, start, length))
                else:
                    digest.data(await device.read(extent.offset + start - position, length))
        position = end
    return digest.finish(), tuple(segments)


# Common to both


@contextmanager
def noted(entry: Entry, what: str) -> Iterator[None]:
    """Turn an OSError or RestoreError of the block into a note in the entry's `errors`."""
    try:
        yield
    except (OSError, RestoreError) as error:
        number = error.errno or errno.EIO
        entry.errors[what] = errno.errorcode.get(number, str(number))


def fill_attributes(entry: Entry, found: Attributes) -> None:
    for name in Attributes._fields:
        if name in FIELDS:
            setattr(entry, name, getattr(found, name))


def name_link_groups(manifest: Manifest, groups: Iterable[list[bytes]]) -> None:
    """Give all paths of one inode the least of them as their link_group."""
    for paths in groups:
        least = min(paths)
        for path in paths:
            manifest[path].link_group = least


def joined(folder: bytes, name: bytes) -> bytes:
    if name == b".":
        return folder
    return name if folder == b"." else folder + b"/" + name


# For people


def shown_text(data: bytes) -> str:
    return data.decode(errors="backslashreplace")


def as_json(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Return a manifest in JSON's types; bytes that are not UTF-8 become escapes."""

    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return shown_text(value)
        if isinstance(value, dict):
            return {plain(key): plain(each) for key, each in value.items()}
        return value

    return {
        shown_text(path): {name: plain(getattr(entry, name)) for name in FIELDS}
        for path, entry in sorted(manifest.items())
    }


def as_line(path: bytes, entry: Entry) -> str:
    """Return one entry the way `ls -l` would show it, were it thorough."""
    parts = [
        stat.filemode(entry.mode),
        f"{entry.nlink} {entry.uid}:{entry.gid} {entry.size} ({entry.blocks} blocks)",
        f"m={entry.mtime_ns} a={entry.atime_ns} c={entry.ctime_ns}",
        entry.digest or "-",
        shown_text(path),
    ]
    if entry.target is not None:
        parts.append(f"-> {shown_text(entry.target)}")
    if entry.link_group != path:
        parts.append(f"= {shown_text(entry.link_group)}")
    if stat.S_ISCHR(entry.mode) or stat.S_ISBLK(entry.mode):
        parts.append(f"device {os.major(entry.rdev)}:{os.minor(entry.rdev)}")
    parts += (f"{shown_text(name)}={value!r}" for name, value in sorted(entry.xattrs.items()))
    parts += (f"{what}: {error}" for what, error in entry.errors.items())
    return "  ".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.manifest", description=__doc__)
    parser.add_argument("root", type=Path, help="a folder, such as a mount's root")
    parser.add_argument("other", type=Path, nargs="?", help="a second one to compare with it")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--ignore", action="append", default=[], choices=FIELDS, metavar="FIELD")
    options = parser.parse_args()
    manifest = manifest_of_path(options.root)
    if options.other is not None:
        differences = compare(manifest, manifest_of_path(options.other), options.ignore)
        print(json.dumps(differences, indent=1) if options.json else "\n".join(differences))
        return 1 if differences else 0
    if options.json:
        print(json.dumps(as_json(manifest), indent=1))
    else:
        for path, entry in sorted(manifest.items()):
            print(as_line(path, entry))
    return 0


if __name__ == "__main__":
    sys.exit(main())
