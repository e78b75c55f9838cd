"""Recipes for NTFS images: made by mkntfs, filled by ntfs-3g.

Owns how an image gets a feature that ntfs-3g can write. What it cannot (CompactOS, stale index
blocks, a fragmented MFT ...) is built byte by byte elsewhere. Knows nothing of the reader. Images
are small and sparse; each is built once per test session, when a test first asks for it.

ntfs-3g works on the image file itself, in the foreground, so that its end can be waited for:
after a mount is gone, everything is in the file.

Concurrency: none.
"""

import os
import random
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.images import tree
from tests.tools import require, require_root, run, unmount, wait_until

MIB = 1 << 20

READONLY, HIDDEN, SYSTEM, ARCHIVE, TEMPORARY, SPARSE = 0x1, 0x2, 0x4, 0x20, 0x100, 0x200
REPARSE, COMPRESSED, OFFLINE, NOT_INDEXED = 0x400, 0x800, 0x1000, 0x2000
"""File attributes (MS-FSCC 2.6)."""

MOUNT_POINT, SYMLINK, WSL_SYMLINK, APPEXECLINK = 0xA0000003, 0xA000000C, 0xA000001D, 0x8000001B
"""Reparse tags (MS-FSCC 2.1.2.1)."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an image is built. cluster, sector: bytes."""

    name: str
    cluster: int
    sector: int
    build: Callable[[Path], None]


RECIPES: dict[str, Recipe] = {}


def recipe(cluster: int = 4096, sector: int = 512) -> Callable[[Callable[..., None]], object]:
    """Enter a function that builds an image at a path into RECIPES, under its own name."""

    def enter(build: Callable[[Path], None]) -> Callable[[Path], None]:
        RECIPES[build.__name__] = Recipe(build.__name__, cluster, sector, build)
        return build

    return enter


class Images:
    """The images of one test session, built when first asked for. They must not be changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str) -> Path:
        """Return an image's path. Skips the test when a tool for it is missing."""
        require("mkntfs", "ntfs-3g", "fusermount3")
        require_root()
        path = self._folder / f"{name}.img"
        if not path.exists():
            unfinished = self._folder / f"{name}.unfinished"
            unfinished.unlink(missing_ok=True)
            RECIPES[name].build(unfinished)
            unfinished.chmod(0o444)
            unfinished.rename(path)
        return path


@pytest.fixture(scope="session")
def ntfs_images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return Images(tmp_path_factory.mktemp("ntfs"))


# Programs


def mkntfs(
    image: Path,
    size: int,
    cluster: int = 4096,
    *options: str,
    label: str = "A volume",
    sector: int = 512,
) -> None:
    """Make an empty file system of `size` bytes."""
    with image.open("wb") as file:
        file.truncate(size)
    labelled = ["-L", label] if label else []
    run(
        "mkntfs", "-F", "-Q", "-q", "-c", str(cluster), "-s", str(sector),
        "-p", "2048", "-H", "255", "-S", "63", *labelled, *options, image,
    )  # fmt: skip


@contextmanager
def ntfs_3g(image: Path, options: str) -> Iterator[Path]:
    """Mount an image by ntfs-3g; its process has ended when the block has."""
    require("ntfs-3g", "fusermount3")
    require_root()
    folder = Path(tempfile.mkdtemp(prefix="restorefs-ntfs-3g-"))
    try:
        with tempfile.TemporaryFile() as log:
            server = subprocess.Popen(
                ["ntfs-3g", "-o", f"no_detach,{options}", str(image), str(folder)],
                stdout=log,
                stderr=log,
            )
            try:
                wait_until(
                    lambda: folder.is_mount() or server.poll() is not None, "ntfs-3g has mounted"
                )
                log.seek(0)
                assert server.poll() is None, log.read()
                try:
                    yield folder
                finally:
                    unmount(folder)
            finally:
                server.wait(timeout=60)
    finally:
        folder.rmdir()


@contextmanager
def writable(image: Path, options: str = "streams_interface=xattr") -> Iterator[bytes]:
    """Mount an image to put files into it; yields the root."""
    with ntfs_3g(image, f"rw,noatime,special_files=wsl,big_writes,{options}") as root:
        yield os.fsencode(root)


@contextmanager
def readable(image: Path, options: str = "streams_interface=xattr") -> Iterator[Path]:
    """Mount an image to see what ntfs-3g says of it, with the modes that the design gives."""
    with ntfs_3g(image, f"ro,noatime,dmask=022,fmask=133,uid=0,gid=0,{options}") as root:
        yield root


# Values that ntfs-3g takes as extended attributes


def set_flags(path: bytes, flags: int) -> None:
    """Set a file's attributes (MS-FSCC 2.6)."""
    os.setxattr(path, "system.ntfs_attrib_be", struct.pack(">I", flags))


def set_times(path: bytes, created: int, modified: int, accessed: int) -> None:
    """Set times, in units of 100 ns since 1601."""
    os.setxattr(path, "system.ntfs_times_be", struct.pack(">3Q", created, modified, accessed))


def set_reparse(path: bytes, tag: int, data: bytes) -> None:
    """Make a reparse point (MS-FSCC 2.1.2.2 and 2.1.2.3: a tag, the data's length, the data).

    Tags that are not Microsoft's have their owner's GUID in front of the data.
    """
    length = len(data) if tag & 0x80000000 else len(data) - 16
    os.setxattr(path, "system.ntfs_reparse_data", struct.pack("<IHH", tag, length, 0) + data)


def mount_point(target: str, shown: str) -> bytes:
    """Return a junction's data (MS-FSCC 2.1.2.5). target: as the kernel takes it, "\\??\\C:\\x"."""
    one, other = target.encode("utf-16-le"), shown.encode("utf-16-le")
    lengths = struct.pack("<4H", 0, len(one), len(one) + 2, len(other))
    return lengths + one + b"\0\0" + other + b"\0\0"


def symlink(target: str, shown: str, relative: bool) -> bytes:
    """Return a Windows symlink's data (MS-FSCC 2.1.2.4)."""
    one, other = target.encode("utf-16-le"), shown.encode("utf-16-le")
    header = struct.pack("<4HI", len(other), len(one), 0, len(other), relative)
    return header + other + one


def security_descriptor(entries: int) -> bytes:
    """Return a self-relative security descriptor (MS-DTYP 2.4.6) with a DACL of so many entries."""
    administrators = struct.pack("<BB6B2I", 1, 2, 0, 0, 0, 0, 0, 5, 32, 544)
    access = b""
    for number in range(entries):
        sid = struct.pack("<BB6B5I", 1, 5, 0, 0, 0, 0, 0, 5, 21, 1, 2, 3, 1000 + number)
        access += struct.pack("<BBHI", 0, 3, 8 + len(sid), 0x1200A9) + sid
    dacl = struct.pack("<BBHHH", 2, 0, 8 + len(access), entries, 0) + access
    owner = 20
    group = owner + len(administrators)
    header = struct.pack("<BBHIIII", 1, 0, 0x8004, owner, group, 0, group + len(administrators))
    return header + administrators + administrators + dacl


# Trees


def text(seed: object, length: int) -> bytes:
    """Return bytes that compress well, without repeating themselves exactly."""
    chance = random.Random(str(seed))
    words = [chance.randbytes(chance.randrange(2, 9)).hex().encode() for _ in range(200)]
    pieces = bytearray()
    while len(pieces) < length:
        pieces += chance.choice(words) + b" "
    return bytes(pieces[:length])


def mixed(seed: object, length: int) -> bytes:
    """Return text, zeros and random bytes in turn, in pieces of odd sizes."""
    chance = random.Random(str(seed))
    pieces = bytearray()
    while len(pieces) < length:
        size = chance.randrange(1, 90_000)
        kind = chance.randrange(3)
        pieces += (text(size, size), bytes(size), chance.randbytes(size))[kind]
    return bytes(pieces[:length])


def make_sizes(root: bytes, cluster: int) -> None:
    """Files around every size at which a layout changes: in the record, in clusters."""
    base = tree.folder(root, b"sizes")
    sizes = {0, 1, 7, 8, 9, 100, 300_000, *range(600, 760, 8), 511, 512, 513, 1023, 1024, 1025}
    sizes |= {cluster - 1, cluster, cluster + 1, 2 * cluster, 16 * cluster, 16 * cluster + 1}
    for size in sorted(each for each in sizes if each < 8 * MIB):
        tree.write(b"%s/%d" % (base, size), (0, tree.content(size, size)))
    for start, end in ((100, 5000), (5000, 100), (800, 600), (100_000, 0), (600, 900)):
        path = b"%s/from-%d-to-%d" % (base, start, end)
        tree.write(path, (0, tree.content(start, start)))
        tree.write(path, size=end)
    grown = base + b"/grown"
    for start in range(0, 200_000, 777):
        tree.write(grown, (start, tree.content(start, 777)))


def make_holes(root: bytes, cluster: int) -> None:
    """Sparse files: a hole in front, between, behind, alone, and many small ones."""
    base = tree.folder(root, b"holes")
    unit = max(cluster, 4096)
    one = tree.content("one", min(unit, 65_536))
    tree.write(base + b"/front", (37 * unit, one))
    tree.write(base + b"/between", (0, one), (40 * unit + 5, one))
    tree.write(base + b"/behind", (0, one), size=50 * unit + 9)
    tree.write(base + b"/behind-one-byte", (0, b"x"), size=30 * unit)
    tree.write(base + b"/only", size=48 * unit)
    tree.write(base + b"/only-one-byte", size=1)
    every = ((3 * n * 16 * 4096, tree.content(n, 4096)) for n in range(60))
    tree.write(base + b"/many", *every, size=60 * 3 * 16 * 4096 + 1)


def make_compressed(root: bytes, cluster: int) -> None:
    """Files compressed by ntfs-3g: of every kind of content, with every kind of end.

    Plain ones where clusters are larger than 4 KiB: NTFS compresses nothing then.
    """
    base = tree.folder(root, b"compressed")
    if cluster <= 4096:
        set_flags(base, COMPRESSED)
    contents = {
        b"text": text("text", 700_000),
        b"random": tree.content("random", 300_000),
        b"zeros": bytes(400_000),
        b"one-byte": b"x" * 300_000,
        b"mixed": mixed("mixed", 1_500_000),
        b"resident": b"resident",
    }
    for name, data in contents.items():
        tree.write(base + b"/" + name, (0, data))
    for size in (1000, 4095, 4096, 4097, 8191, 65_535, 65_536, 65_537, 69_632, 131_071, 131_073):
        tree.write(b"%s/text-%d" % (base, size), (0, text(size, size)))
        tree.write(b"%s/random-%d" % (base, size), (0, tree.content(size, size)))
        # Text, and then a tail that does not compress, as a unit of its own or as a part of one.
        tail = tree.content(("tail", size), min(size, 5000))
        tree.write(b"%s/random-tail-%d" % (base, size), (0, text(size, size - len(tail)) + tail))
    tree.write(base + b"/sparse", (0, b"front"), (900_000, text("s", 9000)), size=1_300_000)
    changed = base + b"/changed"
    tree.write(changed, (0, text("before", 400_000)))
    tree.write(changed, (70_000, tree.content("inside", 66_000)), (200_000, bytes(70_000)))
    tree.write(changed, (399_990, text("behind", 30_000)))
    cut = base + b"/cut"
    tree.write(cut, (0, text("cut", 400_000)))
    tree.write(cut, size=150_001)
    inside = tree.folder(base, b"inside")
    tree.write(inside + b"/inherits", (0, text("inherits", 100_000)))
    small = base + b"/in-small-pieces"
    for start in range(0, 150_000, 3001):
        tree.write(small, (start, text(start, 3001)))


SCRIPTS = (
    "Größe", "naïve", "Ωμέγα", "Привет", "שלום", "مرحبا", "हिन्दी", "ไทย", "日本語", "한국어",
    "中文繁體", "Ελλάδα ΐ", "İstanbul ıI", "ǅ ǆ Ǆ", "ﬁ ﬀ ß ẞ", "e\u0301 é", "\u200d\u200b zero",
    "\ue000 private", "\ufeff bom", "\ufffd \uffff end", "🙂 😀", "𝔘𝔫𝔦", "𠜎𠜱", "👩‍👩‍👧‍👦", "\U0010ffff last",
    "with space", " leading", "trailing ", "dot.", ".hidden", "...", "back\\slash", "c:olon",
    "*?<>|\"", "\x01\x02\x1f\x7f", "new\nline", "CON", "aux.txt", "$dollar", "100%", "~1", "-dash",
)  # fmt: skip

SURROGATES = (b"\xed\xa0\x80", b"a\xed\xbf\xbfb", b"\xed\xb0\x80\xed\xa0\x80", b"\xed\xa0\xbdx")
"""Names with surrogates that have no partner, in the encoding that WTF-8 gives them."""


def make_names(root: bytes) -> None:
    """Names in every script and of every length, and folders 150 levels deep."""
    base = tree.folder(root, b"names")
    for number, name in enumerate(SCRIPTS):
        tree.write(base + b"/" + name.encode(), (0, b"%d" % number))
    for number, raw in enumerate(SURROGATES):
        tree.write(base + b"/" + raw, (0, b"%d" % number))
    for name in ("Case", "CASE", "case", "cAsE", "äÖ", "ÄÖ", "äö"):
        tree.write(base + b"/" + name.encode(), (0, name.encode()))
    lengths = tree.folder(base, b"lengths")
    for length in range(1, 256):
        for letter in ("n", "ж", "語"):
            tree.write(lengths + b"/" + (letter * length).encode(), (0, b"%d" % length))
        if length % 2 == 0:
            tree.write(lengths + b"/" + ("🙂" * (length // 2)).encode(), (0, b"%d" % length))
    deep = base
    for level in range(150):
        deep = tree.folder(deep, b"deep-%d" % level)
    tree.write(deep + b"/bottom", (0, b"down here"))


def make_folders(root: bytes, entries: int) -> None:
    """Folders: empty, emptied, with stale names between sound ones, and with many entries."""
    base = tree.folder(root, b"folders")
    tree.folder(base, b"empty")
    emptied, stale = tree.folder(base, b"emptied"), tree.folder(base, b"stale")
    for number in range(300):
        tree.write(b"%s/file-%d-%s" % (emptied, number, b"x" * 60))
        tree.write(b"%s/file-%d-%s" % (stale, number, b"x" * 60))
    for each in os.listdir(emptied):
        os.unlink(os.path.join(emptied, each))
    for each in sorted(os.listdir(stale))[5:]:
        os.unlink(os.path.join(stale, each))
    os.rename(stale + b"/" + sorted(os.listdir(stale))[0], stale + b"/renamed")
    many = tree.folder(base, b"many")
    for number in range(entries):
        tree.write(b"%s/entry-%d" % (many, number), (0, b"%d" % number))
    folders = tree.folder(base, b"of-folders")
    for number in range(40):
        tree.folder(folders, b"folder-%d" % number)


def make_links(root: bytes) -> None:
    """Hard links: some, in several folders, and more than one record can hold."""
    base = tree.folder(root, b"links")
    tree.write(base + b"/first", (0, b"same file"))
    os.link(base + b"/first", base + b"/second")
    os.link(base + b"/first", tree.folder(base, b"folder") + b"/third")
    many = tree.folder(base, b"many")
    tree.write(many + b"/link-0", (0, tree.content("links", 20_000)))
    for number in range(1, 120):
        os.link(many + b"/link-0", b"%s/link-%d-%s" % (many, number, b"x" * (number * 2)))
    os.unlink(many + b"/link-1-xx")
    tree.write(base + b"/a short name.text", (0, b"8.3"))
    os.setxattr(base + b"/a short name.text", "system.ntfs_dos_name", b"ASHORT~1.TEX")
    os.setxattr(tree.folder(base, b"a short folder"), "system.ntfs_dos_name", b"ASHORT~2")


def make_streams(root: bytes) -> None:
    """Alternate data streams of files and folders: few, many, empty, resident or not."""
    base = tree.folder(root, b"streams")

    def streamed(name: bytes, **streams: bytes) -> bytes:
        path = base + b"/" + name
        tree.write(path, (0, name))
        for stream, data in streams.items():
            os.setxattr(path, f"user.{stream}", data)
        return path

    streamed(b"small", a=b"1")
    streamed(b"empty", nothing=b"")
    streamed(b"several", a=b"1", B=b"22", größe=b"333", **{"日本語 🙂": b"4444"})
    streamed(b"large", large=tree.content("large", 65_536))
    streamed(b"middling", middling=tree.content("middling", 3000), small=b"beside it")
    streamed(b"many", **{f"number{n}": b"%d" % n for n in range(100)})
    streamed(b"long-name", **{"n" * 250: b"long name"})
    zone = b"[ZoneTransfer]\r\nZoneId=3\r\n"
    streamed(b"downloaded.exe", **{"Zone.Identifier": zone})
    folder = tree.folder(base, b"folder")
    os.setxattr(folder, "user.of", b"a folder")
    tree.write(folder + b"/inside")
    no_content = base + b"/no-content"
    tree.write(no_content)
    os.setxattr(no_content, "user.only", b"here")
    removed = streamed(b"removed", gone=b"x")
    os.removexattr(removed, "user.gone")


def make_large_streams(root: bytes, cluster: int) -> None:
    """Streams too large for an extended attribute; the mount must show them as file:stream."""
    base = tree.folder(root, b"large-streams")
    path = base + b"/file"
    tree.write(path, (0, b"the unnamed one"))
    tree.write(path + b":over", (0, tree.content("over", 65_537)))
    tree.write(path + b":huge", (0, tree.content("huge", 2_000_000)))
    tree.write(path + b":sparse", (500_000, b"behind a hole"))
    tree.write(path + b":small", (0, b"small"))
    folder = tree.folder(base, b"folder")
    tree.write(folder + b":huge", (0, tree.content("of a folder", 200_000)))
    compressed = tree.folder(base, b"compressed")
    if cluster <= 4096:
        set_flags(compressed, COMPRESSED)
    tree.write(compressed + b"/file", (0, text("unnamed", 50_000)))
    tree.write(compressed + b"/file:text", (0, text("named", 300_000)))


def make_special(root: bytes) -> None:
    """What WSL keeps in reparse points: symlinks, devices, fifos, sockets."""
    base = tree.folder(root, b"wsl")
    os.mkfifo(base + b"/fifo")
    os.mknod(base + b"/socket", 0o140755)
    for major, minor in ((1, 3), (255, 255), (8, 256), (256, 1), (4095, 1_048_575)):
        os.mknod(b"%s/c-%d-%d" % (base, major, minor), 0o020600, os.makedev(major, minor))
        os.mknod(b"%s/b-%d-%d" % (base, major, minor), 0o060600, os.makedev(major, minor))
    os.symlink(b"fifo", base + b"/symlink")
    os.symlink("../größe/日本語 🙂".encode(), base + b"/symlink-unicode")
    os.symlink(b"/mnt/c/Users", base + b"/symlink-absolute")
    os.symlink(b"t" * 1000, base + b"/symlink-long")


@dataclass(frozen=True, slots=True)
class Link:
    """A reparse point that is a link. leads_to: a path of the image, None where it leads to
    nothing that this volume can be sure to have; texts: then, the two texts that it is stored as."""

    is_folder: bool
    tag: int
    data: bytes
    leads_to: str | None
    texts: tuple[str, str]


def junction(target: str, shown: str, leads_to: str | None = None) -> Link:
    return Link(True, MOUNT_POINT, mount_point(target, shown), leads_to, (target, shown))


def windows_symlink(target: str, relative: bool, leads_to: str | None = None) -> Link:
    shown = target.removeprefix("\\??\\")
    return Link(False, SYMLINK, symlink(target, shown, relative), leads_to, (target, shown))


VOLUME = "\\??\\Volume{12345678-1234-1234-1234-123456789abc}"


def links_of(drive: str, other: str) -> dict[str, Link]:
    """Return links by their path below reparse/. drive: the volume's letter; other: another's."""
    here, there = f"\\??\\{drive}:", f"\\??\\{other}:"
    return {
        "junction": junction(here + r"\reparse\deep\er", drive + r":\reparse\deep\er", "reparse/deep/er"),
        "deep/junction-up": junction(here + "\\reparse", drive + ":\\reparse", "reparse"),
        "deep/er/junction-case": junction(here + r"\REPARSE\Deep", "x", "reparse/deep"),
        "junction-gone": junction(here + r"\no\such", drive + r":\no\such"),
        "junction-elsewhere": junction(there + r"\reparse\deep", other + r":\reparse\deep"),
        "junction-volume": junction(VOLUME + r"\reparse\deep", "", "reparse/deep"),
        "junction-volume-root": junction(VOLUME + "\\", ""),
        "folder-symlink": Link(True, SYMLINK, symlink(r"deep\er", "x", True), "reparse/deep/er", ("", "")),
        "symlink": windows_symlink(r"deep\er\file", True, "reparse/deep/er/file"),
        "deep/symlink-up": windows_symlink(r"..\file", True, "reparse/file"),
        "symlink-dangling": windows_symlink("no\\such\\größe \U0001f642", True, "reparse/no/such/größe \U0001f642"),
        "symlink-drive": windows_symlink(here + r"\reparse\file", False, "reparse/file"),
        "deep/er/symlink-rooted": windows_symlink(r"\reparse\file", True, "reparse/file"),
        "symlink-elsewhere": windows_symlink(there + r"\reparse\file", False),
        "symlink-unc": windows_symlink(r"\??\UNC\server\share\x", False),
    }  # fmt: skip


def drives_of(cluster: int) -> tuple[str, str]:
    """Return the letters for links_of() that fit an image: half of them are Windows' own."""
    return ("C", "D") if cluster <= 4096 else ("D", "C")


OTHER_POINTS = {
    "app-link": (APPEXECLINK, struct.pack("<I", 3) + "A\0B\0C\0".encode("utf-16-le")),
    "third-party": (0x00000099, bytes(range(16)) + b"of another make"),
}
"""Reparse points that are no links: path below reparse/, tag, data (with the owner's GUID)."""


def make_reparse_points(root: bytes, cluster: int) -> None:
    """Junctions, Windows symlinks and others."""
    drive, other = drives_of(cluster)
    if drive == "C":
        tree.folder(tree.folder(root, b"Windows"), b"System32")
    base = tree.folder(root, b"reparse")
    er = tree.folder(tree.folder(base, b"deep"), b"er")
    tree.write(base + b"/file", (0, b"led here"))
    tree.write(er + b"/file", (0, b"led there"))
    for name, link in links_of(drive, other).items():
        path = base + b"/" + name.encode()
        if link.is_folder:
            os.mkdir(path)
        else:
            tree.write(path)
        set_reparse(path, link.tag, link.data)
    for name, (tag, data) in OTHER_POINTS.items():
        tree.write(base + b"/" + name.encode())
        set_reparse(base + b"/" + name.encode(), tag, data)


TICK = 10_000_000
EPOCH = 116_444_736_000_000_000
"""1970 in units of 100 ns since 1601."""

TIMES = {
    b"1601": 1,
    b"1900": EPOCH - 2_208_988_800 * TICK + 1_234_567,
    b"1969": EPOCH - 1,
    b"1970": EPOCH,
    b"1970-first-tick": EPOCH + 1,
    b"2001": EPOCH + 10**9 * TICK + 7,
    b"2038": EPOCH + (2**31 - 1) * TICK + 9_999_999,
    b"2038-later": EPOCH + 2**31 * TICK,
    b"2106-later": EPOCH + 2**32 * TICK + 2,
    b"2242": EPOCH + 2**33 * TICK,
    b"2446": EPOCH + (2**34 - 2**31) * TICK + 3,
    b"9999": EPOCH + 253_402_300_799 * TICK,
}


def make_times(root: bytes) -> None:
    """Times from 1601 on, each of them different."""
    base = tree.folder(root, b"times")
    for name, time in TIMES.items():
        path = base + b"/" + name
        tree.write(path)
        set_times(path, time, time, time)
        tree.write(path + b"-differing")
        set_times(path + b"-differing", time, EPOCH + 3 * TICK + 3, EPOCH + 5 * TICK + 5)
    folder = tree.folder(base, b"folder")
    set_times(folder, EPOCH - 5, EPOCH + 15, EPOCH + 25)


def make_metadata(root: bytes) -> None:
    """DOS attributes, security descriptors, object ids."""
    base = tree.folder(root, b"metadata")
    for flags in (0, READONLY, HIDDEN, SYSTEM, ARCHIVE, TEMPORARY, OFFLINE, NOT_INDEXED, 0x3127):
        path = b"%s/flags-%04x" % (base, flags)
        # Not empty: Interix, and ntfs-3g after it, take system files of 0 and 1 bytes for fifos.
        tree.write(path, (0, b"flags"))
        set_flags(path, flags)
    set_flags(tree.folder(base, b"hidden-folder"), HIDDEN | SYSTEM)
    for entries in (0, 1, 3, 20, 500):
        path = b"%s/acl-%d" % (base, entries)
        tree.write(path)
        os.setxattr(path, "system.ntfs_acl", security_descriptor(entries))
    os.setxattr(tree.folder(base, b"acl-folder"), "system.ntfs_acl", security_descriptor(3))
    tree.write(base + b"/acl-as-another", (0, b"the same descriptor"))
    os.setxattr(base + b"/acl-as-another", "system.ntfs_acl", security_descriptor(3))
    tree.write(base + b"/object-id")
    os.setxattr(base + b"/object-id", "system.ntfs_object_id", bytes(range(1, 17)))
    tree.write(base + b"/object-id-long")
    os.setxattr(base + b"/object-id-long", "system.ntfs_object_id", bytes(range(101, 165)))


def make_common(root: bytes, cluster: int, entries: int = 400) -> None:
    """Everything above but the streams that need another kind of mount."""
    make_sizes(root, cluster)
    make_holes(root, cluster)
    make_names(root)
    make_folders(root, entries)
    make_links(root)
    make_streams(root)
    make_special(root)
    make_reparse_points(root, cluster)
    make_times(root)
    make_metadata(root)
    make_compressed(root, cluster)


def common_tree(image: Path, cluster: int, entries: int = 400) -> None:
    """Fill an image with everything that ntfs-3g can write."""
    with writable(image) as root:
        make_common(root, cluster, entries)
    with writable(image, "streams_interface=windows") as root:
        make_large_streams(root, cluster)


# Every geometry


@recipe()
def ntfs_4k(image: Path) -> None:
    """What mkntfs makes by default."""
    mkntfs(image, 64 * MIB)
    common_tree(image, 4096, entries=3000)


@recipe(512)
def ntfs_512(image: Path) -> None:
    """The smallest clusters: a record is two of them, an index block eight."""
    mkntfs(image, 64 * MIB, 512)
    common_tree(image, 512)


@recipe(1024)
def ntfs_1k(image: Path) -> None:
    mkntfs(image, 64 * MIB, 1024, label="größe 日本語 🙂")
    common_tree(image, 1024)


@recipe(2048)
def ntfs_2k(image: Path) -> None:
    mkntfs(image, 64 * MIB, 2048, label="")
    common_tree(image, 2048)


@recipe(8192)
def ntfs_8k(image: Path) -> None:
    """Clusters larger than an index block."""
    mkntfs(image, 96 * MIB, 8192, label="n" * 32)
    common_tree(image, 8192)


@recipe(65_536)
def ntfs_64k(image: Path) -> None:
    mkntfs(image, 512 * MIB, 65_536)
    common_tree(image, 65_536)


@recipe(1 << 20)
def ntfs_1m(image: Path) -> None:
    """Clusters beyond what old Windows knew: their size is written as a power of two."""
    mkntfs(image, 1024 * MIB, 1 << 20)
    small_tree_of_large_clusters(image)


@recipe(2 << 20)
def ntfs_2m(image: Path) -> None:
    """The largest clusters."""
    mkntfs(image, 1024 * MIB, 2 << 20)
    small_tree_of_large_clusters(image)


def small_tree_of_large_clusters(image: Path) -> None:
    with writable(image) as root:
        base = tree.folder(root, b"sizes")
        for size in (0, 1, 700, 1000, 65_537, (1 << 20) + 1, (4 << 20) + 5):
            tree.write(b"%s/%d" % (base, size), (0, tree.content(size, size)))
        tree.write(base + b"/holes", (5 << 20, b"far"), size=9 << 20)
        make_names(root)
        make_folders(root, 600)


@recipe(4096, 4096)
def ntfs_sector_4k(image: Path) -> None:
    """Sectors of 4096 bytes: one record and one index block to a sector."""
    mkntfs(image, 96 * MIB, 4096, sector=4096)
    common_tree(image, 4096)


@recipe(32_768, 4096)
def ntfs_sector_4k_clusters_32k(image: Path) -> None:
    mkntfs(image, 256 * MIB, 32_768, sector=4096)
    common_tree(image, 32_768)


@recipe(1024, 1024)
def ntfs_sector_1k(image: Path) -> None:
    mkntfs(image, 64 * MIB, 1024, sector=1024)
    common_tree(image, 1024)


# What needs an image of its own


@recipe()
def ntfs_empty(image: Path) -> None:
    mkntfs(image, 8 * MIB)


@recipe(1024)
def ntfs_fragmented(image: Path) -> None:
    """A file in as many runs as the free space has."""
    mkntfs(image, 32 * MIB, 1024)
    with writable(image) as root:
        filling = tree.folder(root, b"filling")
        count = 9000
        for number in range(count):
            tree.write(b"%s/%d" % (filling, number), (0, tree.content(number, 1024)))
        fill_up(root + b"/filler")
        # Every second cluster is free now, and nothing else is.
        for number in range(0, count, 2):
            os.unlink(b"%s/%d" % (filling, number))
        write_slowly(root + b"/fragmented", tree.content("fragmented", 2_500_000))


def write_slowly(path: bytes, data: bytes) -> None:
    """Write a file in pieces of 1 KiB: in larger ones, ntfs-3g gives up before the room ends."""
    tree.write(path, *((at, data[at : at + 1024]) for at in range(0, len(data), 1024)))
    assert os.stat(path).st_size == len(data)


def fill_up(path: bytes) -> None:
    """Write a file until the volume is full."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        for size in (MIB, 65_536, 4096, 1024):
            with suppress(OSError):
                while os.write(fd, b"f" * size) == size:
                    pass
    finally:
        os.close(fd)


@recipe(4096)
def ntfs_interleaved(image: Path) -> None:
    """Files that grew side by side, piece by piece, and sparse ones of a thousand pieces."""
    mkntfs(image, 96 * MIB)
    with writable(image) as root:
        files = [os.open(b"%s/grown-%d" % (root, n), os.O_WRONLY | os.O_CREAT) for n in range(6)]
        try:
            folder = tree.folder(root, b"folder")
            for number in range(500):
                for n, fd in enumerate(files):
                    os.pwrite(fd, tree.content((n, number), 4096), number * 4096)
                for n in range(10):
                    tree.write(b"%s/%d-%d-%s" % (folder, number, n, b"x" * 100))
        finally:
            for fd in files:
                os.close(fd)
        pieces = ((n * 2 * 65_536, tree.content(n, 4096)) for n in range(4000))
        tree.write(root + b"/sparse", *pieces)
        base = tree.folder(root, b"compressed")
        set_flags(base, COMPRESSED)
        files = [os.open(b"%s/grown-%d" % (base, n), os.O_WRONLY | os.O_CREAT) for n in range(4)]
        try:
            for number in range(40):
                for n, fd in enumerate(files):
                    os.pwrite(fd, text((n, number), 65_536), number * 65_536)
        finally:
            for fd in files:
                os.close(fd)


MANY = 100_000


@recipe()
def ntfs_many(image: Path) -> None:
    """A folder of 100,000 files."""
    mkntfs(image, 256 * MIB)
    with writable(image) as root:
        many = tree.folder(root, b"many")
        for number in range(MANY):
            path = b"%s/a file with a name, number %d.txt" % (many, number)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT))


@recipe(512)
def ntfs_small(image: Path) -> None:
    """A small tree with one of everything whose structure can be damaged."""
    mkntfs(image, 4 * MIB, 512)
    with writable(image) as root:
        tree.write(root + b"/resident", (0, b"a resident file"))
        tree.write(root + b"/victim", (0, tree.content("victim", 3000)))
        tree.write(root + b"/sparse", *((n * 32_768, b"%d" % n) for n in range(60)))
        folder = tree.folder(root, b"folder")
        for number in range(60):
            tree.write(b"%s/file-%d-%s" % (folder, number, b"x" * 60))
        for number in range(20):
            os.link(root + b"/victim", b"%s/link-%d-%s" % (folder, number, b"y" * 60))
        compressed = tree.folder(root, b"compressed")
        set_flags(compressed, COMPRESSED)
        tree.write(compressed + b"/text", (0, text("small", 70_000)))
        tree.write(compressed + b"/mixed", (0, mixed("small", 40_000)))
        os.setxattr(root + b"/victim", "user.stream", b"a stream")
        os.setxattr(root + b"/resident", "user.large", tree.content("large", 2000))
        os.setxattr(root + b"/resident", "system.ntfs_acl", security_descriptor(5))
        os.mkfifo(root + b"/fifo")
        os.mknod(root + b"/device", 0o020600, os.makedev(300, 70_000))
        os.symlink(b"folder/file-1", root + b"/wsl-symlink")
        tree.write(root + b"/symlink")
        set_reparse(root + b"/symlink", SYMLINK, symlink("folder\\x", "folder\\x", True))
        os.mkdir(root + b"/junction")
        set_reparse(root + b"/junction", MOUNT_POINT, mount_point("\\??\\D:\\folder", "D:\\folder"))
