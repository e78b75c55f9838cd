"""Trees of everything a Linux file system can hold, made through a writable mount.

Owns what is worth putting into an image whatever its format; the recipes beside it choose the
parts their format can hold. Contents are made from seeds, so that two builds have the same bytes.
Paths are bytes. Concurrency: none.
"""

# ruff: noqa: PTH101, PTH102, PTH104, PTH108, PTH118, PTH211 - paths here are bytes, which pathlib does not take

import os
import random
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

from tests.tools import run

SECOND = 10**9
MIB = 1 << 20

ODD_NAMES = (
    b"with space",
    b"with\nnewline",
    b"with\\backslash",
    b"-dash",
    b"*?[glob]",
    "größe-日本語-🙂".encode(),
    b"latin1-gr\xf6\xdfe",
    b"\xff\xfe\x80",
    b"\x01\x7f",
    b"...",
    b"..hidden",
    b"a",
    b"n" * 254,
    b"m" * 255,
    bytes(range(1, 0x2F)) + bytes(range(0x30, 0x100)),
)

TIMES_NS = {
    # Every epoch of a 34-bit signed count of seconds, its ends among them.
    b"1901": -(2**31) * SECOND,
    b"1901-last-ns": -(2**31) * SECOND + 999_999_999,
    b"1960": -315_619_200 * SECOND + 123_456_789,
    b"1969": -1,
    b"1970": 0,
    b"1970-first-ns": 1,
    b"2001": 10**9 * SECOND + 5,
    b"2038": (2**31 - 1) * SECOND + 999_999_999,
    b"2038-later": 2**31 * SECOND,
    b"2106": (2**32 - 1) * SECOND + 1,
    b"2106-later": 2**32 * SECOND + 2,
    b"2242": (2**33 - 2**31 + 2**32 - 1) * SECOND,
    b"2400": 13_569_465_600 * SECOND + 987_654_321,
    b"2446": (2**34 - 2**31 - 1) * SECOND,
}


def content(seed: object, length: int) -> bytes:
    """Return `length` bytes that are the same for the same seed and never zero."""
    numbers = random.Random(str(seed))
    pieces = [numbers.randbytes(min(MIB, length - start)) for start in range(0, length, MIB)]
    return b"".join(pieces).replace(b"\0", b"\1")


def write(path: bytes, *pieces: tuple[int, bytes], size: int | None = None) -> None:
    """Write pieces at offsets, leaving holes between them; `size` puts the end elsewhere."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        for offset, data in pieces:
            os.pwrite(fd, data, offset)
        if size is not None:
            os.ftruncate(fd, size)
    finally:
        os.close(fd)


def folder(parent: bytes, name: bytes) -> bytes:
    """Make a folder and return its path."""
    path = os.path.join(parent, name)
    os.mkdir(path)
    return path


def make_sizes(root: bytes, block: int) -> None:
    """Files around every size at which a layout changes."""
    base = folder(root, b"sizes")
    sizes = {0, 1, 11, 12, 59, 60, 61, 100, 150, 156, 160, 161, 511, 512, 513, 300_000}
    sizes |= {block - 1, block, block + 1, 12 * block, 12 * block + 1, 13 * block + 7}
    if block <= 4096:
        single_indirect_end = (12 + block // 4) * block
        sizes |= {single_indirect_end, single_indirect_end + 3}
    for size in sorted(sizes):
        write(b"%s/%d" % (base, size), (0, content(size, size)))


def make_holes(root: bytes, block: int) -> None:
    """Sparse files: a hole in front, between, behind, alone, and many small ones."""
    base = folder(root, b"holes")
    one = content("one", block)
    write(base + b"/front", (7 * block, one))
    write(base + b"/between", (0, one), (20 * block + 5, one))
    write(base + b"/behind", (0, one), size=50 * block + 9)
    write(base + b"/behind-one-byte", (0, b"x"), size=3 * block)
    write(base + b"/only", size=1 << 20)
    write(base + b"/only-one-byte", size=1)
    write(base + b"/far", (0, one), (1 << 30, one), size=(1 << 30) + (1 << 20))
    every_second = [(2 * n * block, content(n, block)) for n in range(700)]
    write(base + b"/every-second-block", *every_second)


def make_indirect_holes(root: bytes, block: int) -> None:
    """A sparse file with data around each level of block maps with 4-byte block numbers.

    Whole sub-trees of each level are missing between the pieces; the last hole lies in the triple
    level. Reaches (block / 4)**2 blocks, so that 1 KiB blocks give 64 MiB and 4 KiB blocks 4 GiB.
    """
    per = block // 4
    double = 12 + per
    triple = double + per * per
    blocks = [0, 11, 13, double - 1, double, double + 3 * per + 5, triple - 1, triple]
    blocks += [triple + 2 * per - 1, triple + per * per + 7]
    pieces = [(n * block, content(n, block)) for n in blocks]
    write(root + b"/indirect-holes", *pieces, size=(triple + per * per + 4 * per) * block + 77)


def make_unwritten(root: bytes, block: int) -> None:
    """Files with allocated but unwritten blocks, beyond their end too, and punched holes."""
    base = folder(root, b"unwritten")
    whole = base + b"/whole"
    write(whole)
    run("fallocate", "-l", str(40 * block), os.fsdecode(whole))
    part = base + b"/part"
    write(part)
    run("fallocate", "-l", str(60 * block), os.fsdecode(part))
    write(part, (10 * block, content("part", 5 * block)), (33 * block + 3, b"tail"))
    beyond = base + b"/beyond-the-end"
    write(beyond, (0, content("beyond", 3 * block + 1)))
    run("fallocate", "-n", "-l", str(64 * block), os.fsdecode(beyond))
    punched = base + b"/punched"
    write(punched, (0, content("punched", 40 * block)))
    run("fallocate", "-p", "-o", str(4 * block), "-l", str(9 * block), os.fsdecode(punched))
    zeroed = base + b"/zeroed"
    write(zeroed, (0, content("zeroed", 40 * block)))
    run("fallocate", "-z", "-o", str(4 * block + 1), "-l", str(9 * block), os.fsdecode(zeroed))


def make_names(root: bytes) -> None:
    """Names that are not text, very long, or special to shells."""
    base = folder(root, b"names")
    for number, name in enumerate(ODD_NAMES):
        write(os.path.join(base, name), (0, b"%d" % number))
    deep = base
    for level in range(30):
        deep = folder(deep, b"deep-%d" % level)
    write(deep + b"/bottom", (0, b"down here"))


def make_symlinks(root: bytes, longest: int) -> None:
    """Symlinks around the length that still fits into an inode, up to `longest` bytes."""
    base = folder(root, b"symlinks")
    for length in (1, 30, 58, 59, 60, 61, 100, 155, 200, 1000, longest):
        os.symlink(content(length, length).replace(b"/", b"-"), b"%s/%d" % (base, length))
    os.symlink(b"../sizes/1", base + b"/good")
    os.symlink(b"/dev/null", base + b"/absolute")
    os.symlink(b"\xff\xfe", base + b"/not-utf-8")


DEVICES = ((0, 0), (1, 3), (255, 255), (8, 256), (256, 1), (4095, 1_048_575))


def make_special(root: bytes, devices: Iterable[tuple[int, int]] = DEVICES) -> None:
    """Device nodes with small and large numbers, fifos, sockets, hard links, odd modes."""
    base = folder(root, b"special")
    for kind, letter in ((stat.S_IFCHR, b"c"), (stat.S_IFBLK, b"b")):
        for major, minor in devices:
            path = b"%s/%s-%d-%d" % (base, letter, major, minor)
            os.mknod(path, kind | 0o600, os.makedev(major, minor))
    os.mkfifo(base + b"/fifo", 0o622)
    os.mknod(base + b"/socket", stat.S_IFSOCK | 0o755)
    links = folder(base, b"links")
    write(links + b"/first", (0, b"same file"))
    os.link(links + b"/first", links + b"/second")
    os.link(links + b"/first", base + b"/third")
    os.symlink(b"second", links + b"/symlink")
    os.link(links + b"/symlink", links + b"/symlink-again", follow_symlinks=False)
    os.link(base + b"/fifo", links + b"/fifo")
    for mode in (0o000, 0o400, 0o755, 0o4755, 0o2755, 0o1777, 0o7777):
        path = b"%s/mode-%04o" % (base, mode)
        write(path)
        os.chmod(path, mode)
    sticky = folder(base, b"folder-mode-3777")
    os.chmod(sticky, 0o3777)
    for owner in (1000, 65_534, 65_535, 65_536, 100_000, 2**32 - 2):
        path = b"%s/owner-%d" % (base, owner)
        write(path)
        os.chown(path, owner, owner - 1)


def make_times(root: bytes, names: Iterable[bytes] = TIMES_NS) -> None:
    """Files, a folder and a symlink with times from 1901 to 2446."""
    base = folder(root, b"times")
    for name in names:
        path = base + b"/" + name
        write(path)
        os.utime(path, ns=(TIMES_NS[name], TIMES_NS[name]))
        differing = path + b"-differing"
        write(differing)
        os.utime(differing, ns=(TIMES_NS[name], TIMES_NS[b"2001"]))
    os.utime(folder(base, b"folder"), ns=(3 * SECOND + 1, 4 * SECOND + 2))
    os.symlink(b"1970", base + b"/symlink")
    os.utime(base + b"/symlink", ns=(5 * SECOND, 6 * SECOND), follow_symlinks=False)


def make_folders(root: bytes, entries: int) -> None:
    """Folders: empty, emptied, with stale names between sound ones, and with many entries."""
    base = folder(root, b"folders")
    folder(base, b"empty")
    emptied = folder(base, b"emptied")
    stale = folder(base, b"stale")
    for number in range(200):
        write(b"%s/file-%d" % (emptied, number))
        write(b"%s/file-%d" % (stale, number))
    for number in range(200):
        os.unlink(b"%s/file-%d" % (emptied, number))
        if number % 3:
            os.unlink(b"%s/file-%d" % (stale, number))
    os.rename(stale + b"/file-0", stale + b"/renamed")
    many = folder(base, b"many")
    target = many + b"/entry-0"
    write(target, (0, b"the same for all"))
    for number in range(1, entries):
        os.link(target, b"%s/entry-%d" % (many, number))
    folders = folder(base, b"of-folders")
    for number in range(40):
        folder(folders, b"folder-%d" % number)


def make_xattrs(root: bytes, block: int) -> None:
    """Extended attributes in all namespaces, few and many, small and filling a block."""
    base = folder(root, b"xattrs")

    def attributed(name: bytes, **attributes: bytes) -> None:
        path = base + b"/" + name
        write(path, (0, name))
        for key, value in attributes.items():
            os.setxattr(path, key.replace("__", "."), value)

    attributed(b"small", user__a=b"1")
    attributed(b"empty", user__empty=b"")
    attributed(b"binary", user__binary=bytes(range(60)))
    attributed(b"several", user__a=b"1", user__b=b"22", trusted__c=b"333", security__d=b"4444")
    attributed(b"large", user__large=content("large", block // 2))
    attributed(b"both", user__large=content("both", block // 2), user__small=b"in the inode")
    attributed(b"shared-1", user__shared=content("shared", block // 2))
    attributed(b"shared-2", user__shared=content("shared", block // 2))
    attributed(b"long-name", **{"user." + "n" * 250: b"long name"})
    attributed(b"many", **{f"user.number{n}": b"%d" % n for n in range(block // 64)})
    attributed(b"capability", security__capability=struct.pack("<5I", 0x0200_0001, 0x400, 0, 0, 0))
    attributed(
        b"capability-of-root-1000",
        security__capability=struct.pack("<6I", 0x0300_0001, 0x400, 0, 0, 0, 1000),
    )
    inside = folder(base, b"folder")
    os.setxattr(inside, "user.of", b"a folder")
    os.symlink(b"nowhere", base + b"/symlink")
    os.setxattr(base + b"/symlink", "trusted.of", b"a symlink", follow_symlinks=False)
    os.mkfifo(base + b"/fifo")
    os.setxattr(base + b"/fifo", "trusted.of", b"a fifo")
    removed = base + b"/removed"
    write(removed)
    os.setxattr(removed, "user.gone", b"x")
    os.removexattr(removed, "user.gone")


def make_acls(root: bytes) -> None:
    """POSIX ACLs: access and default, short and long."""
    base = folder(root, b"acls")
    write(base + b"/access")
    run("setfacl", "-m", "u:1000:rw,g:2000:r,m::rw", os.fsdecode(base + b"/access"))
    write(base + b"/mask-only")
    run("setfacl", "-m", "m::r", os.fsdecode(base + b"/mask-only"))
    inherited = folder(base, b"default")
    run("setfacl", "-m", "d:u:70000:rwx,d:g:4294967294:rx,d:o::-", os.fsdecode(inherited))
    write(inherited + b"/file")
    folder(inherited, b"folder")
    write(base + b"/long")
    people = ",".join(f"u:{number}:r" for number in range(3000, 3020))
    run("setfacl", "-m", people, os.fsdecode(base + b"/long"))


def make_last_entry_at_block_end(root: bytes, block: int, tail: int) -> None:
    """Folders whose last entry's name ends exactly where the block's entries do.

    tail: bytes that the format keeps for itself at the end of a block.
    """
    for number, last in enumerate((b"z" * 4, b"z" * 200)):
        base = folder(root, b"full-block-%d" % number)
        room = block - tail - 24 - entry_size(len(last))
        names: list[bytes] = []
        while room:
            length = min(room, 264) - 8
            if 0 < room - entry_size(length) < 12:
                length -= 12
            names.append(b"%02d" % len(names) + b"x" * (length - 2))
            room -= entry_size(length)
        for name in [*names, last]:
            write(base + b"/" + name[:255])
        assert os.lstat(base).st_size == block, "the entries did not fill one block"


def entry_size(name_length: int) -> int:
    """Return the bytes of a folder entry with a header of 8 bytes, in units of 4."""
    return (8 + name_length + 3) // 4 * 4


def make_common(root: Path, block: int, entries: int) -> None:
    """Everything above that any Linux file system with POSIX ACLs takes."""
    base = os.fsencode(root)
    make_sizes(base, block)
    make_holes(base, block)
    make_names(base)
    make_symlinks(base, min(4095, block - 1))
    make_special(base)
    make_times(base)
    make_folders(base, entries)
    make_xattrs(base, block)
    make_acls(base)
