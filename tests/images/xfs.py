"""Recipes for XFS images: one for each feature and each known wrong answer.

Owns how an image gets a feature: by mkfs.xfs, the kernel, xfs_io, xfs_db, or a patch where no
program would write such a thing. Knows nothing of the reader. Images are sparse; each is built
once per test session, when a test first asks for it.

Concurrency: none.
"""

# ruff: noqa: PTH108, PTH118, PTH211 - many paths here are bytes, which pathlib does not take

import ctypes
import os
import random
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.images import tree
from tests.tools import loop_device, loop_mount, require, require_root, run, unmount

MIB = 1 << 20
UUID = "6f0d6c1e-1c2a-4f0e-9f0b-2f4b8f2f9a01"
READ_ONLY = "ro,norecovery,noatime,nouuid"
DEVICES = ((0, 0), (1, 3), (255, 255), (8, 256), (256, 1), (511, (1 << 18) - 1))
NO_RESERVES = "reflink=0,rmapbt=0,finobt=0,inobtcount=0"
"""Without what keeps space free for its own growth."""
FEATURES_INCOMPAT = 216  # sb_features_incompat
NEEDS_REPAIR, EXCHANGE_RANGE, PARENT = 0x10, 0x40, 0x80


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an image is built. log: its journal is in a file of its own, beside it."""

    name: str
    build: Callable[[Path], None]
    log: bool

    def mounted(self, image: Path) -> AbstractContextManager[Path]:
        """Mount the image read-only, without recovery, by the kernel."""
        return mounted_with_log(image) if self.log else loop_mount(image, "xfs", READ_ONLY)


RECIPES: dict[str, Recipe] = {}


def recipe(build: Callable[[Path], None]) -> Callable[[Path], None]:
    """Enter a function that builds an image at a path into RECIPES, under its own name."""
    RECIPES[build.__name__] = Recipe(build.__name__, build, log=False)
    return build


def recipe_with_log(build: Callable[[Path], None]) -> Callable[[Path], None]:
    """Enter a function that builds an image, and its journal at log_of(path)."""
    RECIPES[build.__name__] = Recipe(build.__name__, build, log=True)
    return build


def log_of(image: Path) -> Path:
    return image.with_suffix(".log")


class Images:
    """The images of one test session, built when first asked for. They must not be changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str) -> Path:
        """Return an image's path. Skips the test when a tool for it is missing."""
        require("mkfs.xfs", "xfs_db", "xfs_io", "setfacl", "fallocate", "cp")
        require_root()
        path = self._folder / f"{name}.img"
        if not path.exists():
            try:
                RECIPES[name].build(path)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            path.chmod(0o444)
        return path


@pytest.fixture(scope="session")
def xfs_images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return Images(tmp_path_factory.mktemp("xfs"))


# Programs


def mkfs(image: Path, *options: str, size: int = 320 * MIB, meta: str = "") -> None:
    """Make an empty file system of `size` bytes with a fixed UUID. meta: more for -m."""
    with image.open("wb") as file:
        file.truncate(size)
    metadata = f"uuid={UUID}{',' if meta else ''}{meta}"
    run("mkfs.xfs", "-q", "-f", "-K", "-L", "a label", "-m", metadata, *options, image)


@contextmanager
def writable(image: Path, options: str = "") -> Iterator[Path]:
    """Mount an image to put files into it."""
    with loop_mount(image, "xfs", f"rw,noatime,nouuid{options}") as root:
        yield root


@contextmanager
def mounted_with_log(image: Path, options: str = READ_ONLY) -> Iterator[Path]:
    """Mount an image whose journal is in a file of its own."""
    folder = image.with_suffix(".mount")
    folder.mkdir(exist_ok=True)
    write = "rw" in options.split(",")
    with (
        loop_device(image, writable=write) as device,
        loop_device(log_of(image), writable=write) as log,
    ):
        run("mount", "-t", "xfs", "-o", f"{options},logdev={log}", device, folder)
        try:
            yield folder
        finally:
            unmount(folder)


def xfs_db(image: Path, *commands: str, write: bool = False) -> str:
    """Run xfs_db commands and return what they printed."""
    given = [part for command in commands for part in ("-c", command)]
    return run("xfs_db", "-x" if write else "-r", *given, image)


def field(image: Path, where: str, name: str) -> int:
    """Return one number that xfs_db prints of a structure, such as "sb 0", "agcount"."""
    found = re.search(r"= (0x[0-9a-f]+|\d+)", xfs_db(image, where, f"print {name}"))
    assert found, name
    return int(found[1], 0)


def inode_place(image: Path, inode: int) -> int:
    """Return where an inode's record lies in the image."""
    number = re.search(r"\((\d+)\)", xfs_db(image, f"convert inode {inode} byte"))
    assert number
    return int(number[1])


def block_offset(image: Path, block: int) -> int:
    """Return where a block, by its number, lies in the image."""
    number = re.search(r"\((\d+)\)", xfs_db(image, f"convert fsblock {block} byte"))
    assert number
    return int(number[1])


def blocks_of(image: Path, inode: int, fork: str = "") -> list[tuple[int, int, int, bool]]:
    """Return a fork's extents as xfs_db's bmap tells them: offset, block, count, unwritten.
    fork: "-a" for that of attributes."""
    said = xfs_db(image, f"inode {inode}", f"bmap {fork}")
    found = re.findall(
        r"offset (\d+) startblock (\d+) \(\d+/\d+\) count (\d+) flag (\d)", said
    )
    return [(int(o), int(b), int(c), f == "1") for o, b, c, f in found]


def free_inode(image: Path) -> int:
    """Return an inode that is not in use, beside others that are: the first free one that the
    groups' trees, of one leaf each, tell of."""
    bits = field(image, "sb 0", "agblklog") + field(image, "sb 0", "inopblog")
    for group in range(field(image, "sb 0", "agcount")):
        said = xfs_db(image, f"agi {group}", "addr root", "print")
        for start, free in re.findall(r"\d+:\[(\d+),(?:\w+,\d+,)?\d+,0x(\w+)\]", said):
            for bit in range(64):
                if int(free, 16) >> bit & 1:
                    return (group << bits) + int(start) + bit
    raise AssertionError("no inode is free")


def patch(image: Path, offset: int, data: bytes) -> None:
    """Overwrite bytes of an image."""
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def peek(image: Path, offset: int, length: int) -> bytes:
    with image.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def set_incompat(image: Path, bits: int) -> None:
    """Set more incompatible feature bits; xfs_db computes the checksum."""
    (old,) = struct.unpack(">I", peek(image, FEATURES_INCOMPAT, 4))
    xfs_db(image, "sb 0", f"write -d features_incompat {old | bits:#x}", write=True)


# What goes into them


def make_everything(root: Path, block: int, entries: int = 400) -> None:
    """Everything that XFS can hold, and one folder of so many entries."""
    base = os.fsencode(root)
    tree.make_sizes(base, block)
    tree.make_holes(base, block)
    tree.make_names(base)
    tree.make_symlinks(base, 1023)
    tree.make_special(base, DEVICES)
    tree.make_times(base)
    tree.make_folders(base, entries)
    tree.make_xattrs(base, block)
    tree.make_acls(base)
    tree.make_unwritten(base, block)


def make_many_attributes(root: bytes) -> None:
    """Attributes in all forms: inside the inode, in one block, in many, and far away."""
    base = tree.folder(root, b"many-xattrs")
    for count in (1, 5, 30, 400, 1500):
        path = b"%s/%d" % (base, count)
        tree.write(path)
        for number in range(count):
            value = tree.content(number, number % 90)
            os.setxattr(path, b"user.attribute-%d" % number, value)
    for size in (255, 256, 1000, 3000, 4000, 4040, 5000, 20_000, 65_536):
        path = b"%s/value-of-%d" % (base, size)
        tree.write(path)
        os.setxattr(path, b"user.value", tree.content(size, size))
        os.setxattr(path, b"trusted.value", tree.content(-size, size))
    mixed = tree.folder(base, b"mixed")
    for number in range(120):
        os.setxattr(mixed, b"security.n-%d" % number, tree.content(number, 37 * number))
    for number in range(0, 120, 3):
        os.removexattr(mixed, b"security.n-%d" % number)


def make_links(path: bytes, count: int, first: int = 0) -> None:
    """Fill a folder with names of one file."""
    target = path + b"/entry-%d" % first
    tree.write(target, (0, b"the same for all"))
    for number in range(first + 1, first + count):
        os.link(target, b"%s/entry-%d" % (path, number))


def make_large_folders(root: bytes, count: int) -> None:
    """Two folders that grow in turns, so that both lie in many pieces; and one with gaps."""
    one, other = tree.folder(root, b"one"), tree.folder(root, b"other")
    for name in (one, other):
        tree.write(name + b"/file", (0, name))
    for number in range(count):
        os.link(one + b"/file", b"%s/entry-%d" % (one, number))
        os.link(other + b"/file", b"%s/%s-%d" % (other, b"long" * 20, number))
    gaps = tree.folder(root, b"gaps")
    make_links(gaps, 4000)
    for number in range(500, 3500):
        if number % 100:
            os.unlink(b"%s/entry-%d" % (gaps, number))


def punch(fd: int, offset: int, length: int) -> None:
    """Give a range of a file back (fallocate(2), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)."""
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (ctypes.c_int(fd), ctypes.c_int(3), ctypes.c_long(offset), ctypes.c_long(length))
    assert libc.fallocate(*arguments) == 0, os.strerror(ctypes.get_errno())


# Every feature, as mkfs.xfs and the kernel make it


@recipe
def xfs_default(image: Path) -> None:
    """What mkfs.xfs makes today; reflinked files, and attributes of all forms."""
    mkfs(image)
    with writable(image) as root:
        make_everything(root, 4096, entries=3000)
        make_many_attributes(os.fsencode(root))
        shared = root / "shared"
        shared.mkdir()
        tree.write(os.fsencode(shared / "one"), (0, tree.content("shared", 300_000)))
        run("cp", "--reflink=always", shared / "one", shared / "other")
        tree.write(os.fsencode(shared / "other"), (100_000, b"no longer shared"))
        run("xfs_io", "-c", f"reflink {shared / 'one'} 4096 8192 8192", shared / "other")


@recipe
def xfs_1k(image: Path) -> None:
    """1 KiB blocks: trees of extents of three levels, folders in tree form."""
    mkfs(image, "-b", "size=1024", "-i", "size=512")
    with writable(image) as root:
        base = os.fsencode(root)
        make_everything(root, 1024)
        make_many_attributes(base)
        make_large_folders(base, 3000)
        every_second = ((2 * n * 1024, b"%d" % n) for n in range(3000))
        tree.write(base + b"/deep-extents", *every_second)
    for path, levels in (("/deep-extents", 2), ("/one", 1), ("/other", 1)):
        assert field(image, f"inode {next_inode(image, path)}", "u3.bmbt.level") == levels


def next_inode(image: Path, path: str) -> int:
    """Return the inode of a path, as xfs_db finds it."""
    found = re.search(r"current inode number is (\d+)", xfs_db(image, f"path {path}", "inode"))
    assert found
    return int(found[1])


@recipe
def xfs_2k_plain(image: Path) -> None:
    """Version 5 with as few features as it can have."""
    mkfs(
        image, "-b", "size=2048", "-i", "size=512,sparse=0,nrext64=0",
        meta="bigtime=0,inobtcount=0,reflink=0,rmapbt=0,finobt=0",
    )  # fmt: skip
    with writable(image) as root:
        make_everything(root, 2048)


@recipe
def xfs_nrext64(image: Path) -> None:
    """Counters of extents of 64 bits, reverse mapping, sectors of 4 KiB."""
    mkfs(image, "-i", "nrext64=1", "-s", "size=4096", meta="rmapbt=1")
    with writable(image) as root:
        make_everything(root, 4096)
        make_many_attributes(os.fsencode(root))
        make_large_folders(os.fsencode(root), 500)


@recipe
def xfs_inode_1024(image: Path) -> None:
    mkfs(image, "-i", "size=1024", "-b", "size=2048")
    with writable(image) as root:
        make_everything(root, 2048)


@recipe
def xfs_inode_2048(image: Path) -> None:
    mkfs(image, "-i", "size=2048")
    with writable(image) as root:
        make_everything(root, 4096)
        make_many_attributes(os.fsencode(root))


@recipe
def xfs_64k_blocks(image: Path) -> None:
    """Blocks that are larger than this machine's pages."""
    mkfs(image, "-b", "size=65536", size=512 * MIB)
    with writable(image) as root:
        make_everything(root, 65536)
        make_many_attributes(os.fsencode(root))


@recipe
def xfs_striped(image: Path) -> None:
    """Stripes, also of the log; its last record is written in large pieces."""
    mkfs(image, "-d", "su=64k,sw=4", "-l", "size=64m,su=256k", size=640 * MIB)
    with writable(image, ",logbsize=256k") as root:
        make_everything(root, 4096)


@recipe
def xfs_many_inodes(image: Path) -> None:
    """A tree of inodes with two levels."""
    mkfs(
        image, "-b", "size=1024", "-d", "agcount=1", "-l", "size=4m", "--unsupported",
        size=128 * MIB,
    )  # fmt: skip
    with writable(image) as root:
        folder = tree.folder(os.fsencode(root), b"files")
        for number in range(4500):
            tree.write(b"%s/%d" % (folder, number))
        for number in range(0, 4500, 3):
            os.unlink(b"%s/%d" % (folder, number))
    assert field(image, "agi 0", "level") == 2


@recipe
def xfs_folder_blocks_8k(image: Path) -> None:
    """Folder blocks of eight blocks of 1 KiB."""
    mkfs(image, "-b", "size=1024", "-n", "size=8192")
    with writable(image) as root:
        make_large_folders(os.fsencode(root), 3000)
        tree.make_folders(os.fsencode(root), 400)


@recipe
def xfs_folder_blocks_64k(image: Path) -> None:
    """Folder blocks of 64 KiB; one folder of 2,500 names, of which others showed 653."""
    mkfs(image, "-n", "size=65536")
    with writable(image) as root:
        tree.make_folders(os.fsencode(root), 2500)
        make_large_folders(os.fsencode(root), 1500)


@recipe
def xfs_folder_blocks_scattered(image: Path) -> None:
    """Folder blocks of 8 KiB where no 8 KiB of space are free in one piece."""
    mkfs(
        image, "-b", "size=1024", "-n", "size=8192", "-d", "agcount=1", "-l", "size=4m",
        "--unsupported", size=64 * MIB, meta=NO_RESERVES,
    )  # fmt: skip
    with writable(image) as root:
        scattered = tree.folder(os.fsencode(root), b"scattered")
        tree.write(scattered + b"/file", (0, b"the same for all"))
        fill_with_holes(root, every=8192, length=4096)
        for number in range(999):
            os.link(scattered + b"/file", b"%s/%s-%d" % (scattered, b"long" * 10, number))


def fill_with_holes(root: Path, every: int, length: int) -> None:
    """Leave free space only in pieces of `length` bytes."""
    run("xfs_io", "-x", "-c", "resblks 0", root)
    fd = os.open(root / "filler", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        size, end = 16 * MIB, 0
        while size >= 4096:
            try:
                os.posix_fallocate(fd, end, size)
            except OSError:
                size //= 2
            else:
                end += size
        for offset in range(0, end - every, every):
            punch(fd, offset, length)
    finally:
        os.close(fd)


@recipe
def xfs_given_back(image: Path) -> None:
    """Chunks of inodes that were given back; which ones is in a file beside the image."""
    mkfs(image)
    gone = []
    with writable(image) as root:
        folder = tree.folder(os.fsencode(root), b"files")
        for number in range(1500):
            path = b"%s/%d" % (folder, number)
            tree.write(path, (0, b"from the past"))
            gone.append(os.lstat(path).st_ino)
        run("xfs_io", "-c", "syncfs", root)
    with writable(image) as root:
        for number in range(1500):
            os.unlink(b"%s/files/%d" % (os.fsencode(root), number))
        make_links(tree.folder(os.fsencode(root), b"others"), 3)
        gone = sorted(set(gone) - {each.lstat().st_ino for each in root.rglob("*")})
    image.with_suffix(".gone").write_text("\n".join(map(str, gone)))


def age(root: Path, seed: int, steps: int) -> None:
    """Do what happens to files in the course of time, in an order that the seed gives."""
    chance = random.Random(seed)
    base = os.fsencode(root)
    folders, files = [base], [base + b"/first"]
    tree.write(files[0], (0, b"first"))
    for step in range(steps):
        path, folder = chance.choice(files), chance.choice(folders[-30:])
        new = b"%s/%d%s" % (folder, step, b"n" * chance.choice((0, 0, 3, 20, 100, 240)))
        what = chance.random()
        if what < 0.03 and len(folders) < 200:
            folders.append(tree.folder(folder, b"folder-%d" % step))
        elif what < 0.35 or len(files) < 20:
            tree.write(new, (0, tree.content(step, chance.choice((0, 10, 700, 5000, 40_000)))))
            files.append(new)
        elif what < 0.55:
            os.unlink(path)
            files.remove(path)
        elif what < 0.6:
            os.rename(path, new)
            files[files.index(path)] = new
        elif what < 0.64:
            os.link(path, new)
            files.append(new)
        elif what < 0.74:
            piece = tree.content(step, chance.choice((1, 100, 3000, 20_000)))
            tree.write(path, (chance.randrange(1 << chance.choice((10, 16, 20))), piece))
        elif what < 0.78:
            os.truncate(path, chance.randrange(1 << 17))
        elif what < 0.84:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            if chance.random() < 0.5:
                punch(fd, chance.randrange(1 << 16), chance.randrange(1, 1 << 15))
            else:
                os.posix_fallocate(fd, chance.randrange(1 << 17), chance.randrange(1, 1 << 16))
            os.close(fd)
        elif what < 0.95:
            target = folder if chance.random() < 0.1 and folder != base else path
            value = tree.content(step, chance.choice((0, 5, 60, 250, 900, 5000)))
            with suppress(OSError):  # such as for want of space for a value
                os.setxattr(target, b"user.%d" % chance.randrange(30), value)
        else:
            for name in os.listxattr(path)[:3]:
                os.removexattr(path, name)


@recipe
def xfs_aged(image: Path) -> None:
    mkfs(image, "-i", "nrext64=1", meta="rmapbt=1")
    with writable(image) as root:
        age(root, 1, 6000)


@recipe
def xfs_aged_1k(image: Path) -> None:
    mkfs(image, "-b", "size=1024")
    with writable(image) as root:
        age(root, 2, 6000)


@recipe
def xfs_aged_dirty(image: Path) -> None:
    """One that was in use, and partly written back, when the snapshot was made."""
    mkfs(
        image, "-b", "size=1024", "-d", "agcount=1", "-l", "size=5m", "--unsupported",
        size=192 * MIB,
    )  # fmt: skip
    with writable(image) as root:
        age(root, 3, 3000)
        run("fsfreeze", "--freeze", root)
        run("fsfreeze", "--unfreeze", root)
        later = root / "folder-later"
        later.mkdir()
        age(later, 4, 6000)
        run("xfs_io", "-x", "-c", "shutdown", root)
        run("cp", "--sparse=always", image, image.with_suffix(".copy"))
    image.with_suffix(".copy").replace(image)


@recipe
def xfs_many_groups(image: Path) -> None:
    """8 TiB in groups of 1 TiB, so that inode numbers are longer than 32 bits."""
    mkfs(image, "-l", "size=64m", size=8 << 40)
    with writable(image, ",inode64") as root:
        base = os.fsencode(root)
        for number in range(16):
            folder = tree.folder(base, b"folder-%d" % number)
            for name in range(5):
                path = b"%s/%d" % (folder, name)
                tree.write(path, (name << 40, tree.content(path, 5000)))
            make_links(tree.folder(folder, b"block-form"), 60)
            make_links(tree.folder(folder, b"leaf-form"), 400)
            make_links(tree.folder(folder, b"short-form"), 3)
        assert max(each.inode() for each in os.scandir(root)) >> 32


@recipe
def xfs_sparse_inodes(image: Path) -> None:
    """Free space in pieces too small for 64 inodes, so that chunks of them have holes."""
    mkfs(
        image, "-d", "agcount=1", "-l", "size=16m", "--unsupported", size=64 * MIB,
        meta=NO_RESERVES,
    )  # fmt: skip
    with writable(image) as root:
        fill_with_holes(root, every=36 << 10, length=28 << 10)
        folder = tree.folder(os.fsencode(root), b"files")
        for number in range(1000):
            tree.write(b"%s/%d" % (folder, number), (0, b"%d" % number))
    assert re.search(r":\[\d+,0x(?!0,)", xfs_db(image, "agi 0", "addr root", "print"))


@recipe
def xfs_parents(image: Path) -> None:
    """Parent pointers, which are attributes, and the mark of exchange-range."""
    mkfs(image)
    set_incompat(image, PARENT | EXCHANGE_RANGE)
    with writable(image) as root:
        make_everything(root, 4096)
        make_many_attributes(os.fsencode(root))
        inode = (root / "sizes/1").lstat().st_ino
    # xfs_db ends at what it does not know: this inode's attributes (di_forkoff is at 82).
    assert peek(image, inode_place(image, inode) + 82, 1) != b"\0"


@recipe
def xfs_other_uuid(image: Path) -> None:
    """A UUID that was changed: headers keep the old one (meta_uuid)."""
    mkfs(image)
    with writable(image) as root:
        make_everything(root, 4096)
    xfs_db(image, "uuid 11111111-2222-3333-4444-555555555555", write=True)


@recipe_with_log
def xfs_external_log(image: Path) -> None:
    """The journal on a device of its own."""
    log = log_of(image)
    with log.open("wb") as file:
        file.truncate(64 * MIB)
    mkfs(image, "-l", f"logdev={log},size=64m")
    with mounted_with_log(image, "rw,noatime") as root:
        make_everything(root, 4096)


def copy_while_mounted(image: Path, *, log: bool = False) -> None:
    """Replace an image by what it is while it is mounted and being written to."""
    copies = [image.with_suffix(".copy"), log_of(image).with_suffix(".log-copy")]
    with mounted_with_log(image, "rw,noatime") if log else writable(image) as root:
        make_links(tree.folder(os.fsencode(root), b"last"), 100)
        run("xfs_io", "-c", "syncfs", root)
        make_links(tree.folder(os.fsencode(root), b"very-last"), 10)
        run("xfs_io", "-x", "-c", "shutdown -f", root)
        run("cp", "--sparse=always", image, copies[0])
        if log:
            run("cp", "--sparse=always", log_of(image), copies[1])
    copies[0].replace(image)
    if log:
        copies[1].replace(log_of(image))


@recipe
def xfs_dirty(image: Path) -> None:
    """A log that needs recovery."""
    mkfs(image)
    with writable(image) as root:
        make_everything(root, 4096)
    copy_while_mounted(image)


@recipe
def xfs_frozen(image: Path) -> None:
    """As a snapshot of a machine that was asked to hold still."""
    mkfs(image)
    with writable(image) as root:
        make_everything(root, 4096)
        run("fsfreeze", "--freeze", root)
        try:
            run("cp", "--sparse=always", image, image.with_suffix(".copy"))
        finally:
            run("fsfreeze", "--unfreeze", root)
    image.with_suffix(".copy").replace(image)


@recipe_with_log
def xfs_external_dirty(image: Path) -> None:
    """A log on a device of its own that needs recovery."""
    xfs_external_log(image)
    copy_while_mounted(image, log=True)


@recipe
def xfs_small(image: Path) -> None:
    """A small one for damage of every kind: blocks of 1 KiB, everything in few bytes."""
    mkfs(
        image, "-b", "size=1024", "-d", "agcount=2", "-l", "size=4m", "--unsupported",
        size=34 * MIB,
    )  # fmt: skip
    with writable(image) as root:
        base = os.fsencode(root)
        make_links(tree.folder(base, b"block"), 20)
        make_links(tree.folder(base, b"leaf"), 150)
        make_links(tree.folder(base, b"node"), 700)
        tree.folder(base, b"empty")
        tree.write(base + b"/list", (0, b"first"), (5000, b"second"), (20_000, b"third"))
        tree.write(base + b"/tree", *((2 * n * 1024, b"%d" % n) for n in range(80)))
        os.symlink(b"short", base + b"/link")
        os.symlink(b"long" * 200, base + b"/long-link")
        for number in range(100):
            os.setxattr(base + b"/list", b"user.attribute-%d" % number, b"value" * 5)
        os.setxattr(base + b"/tree", b"user.large", b"large" * 500)
        os.setxattr(base + b"/block", b"user.small", b"small")
        run("setfacl", "-m", "u:1000:rw", root / "tree")
