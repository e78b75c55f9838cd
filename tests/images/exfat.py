"""Recipes for exFAT images, and the changes no program would make.

Owns how an image is made (mkfs.exfat, then files through exfat-fuse) and how its bytes are
changed: by code of its own, from Microsoft's "exFAT file system specification". Knows nothing of
the reader. Images are small and sparse; each is built once per test session, when a test first
asks for it.

Concurrency: none.
"""

import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.images.tree import SECOND, content
from tests.tools import require, require_root, run, unmount

KIB, MIB = 1 << 10, 1 << 20
ENTRY = 32

NAMES = (
    "with space",
    "-dash",
    "größe",
    "日本語",
    "🙂🙃",
    "ΑΒΓαβγ",
    "ЁЖёж",
    "...",
    "..hidden",
    "a",
    "fifteen letters",
    "sixteen letters.",
    "n" * 255,
    "ü" * 255,
    "語" * 255,
    "🙂" * 127,
    "MiXeD cAsE.TxT",
    "semi;colon,comma=plus+[brackets]",
)

TIMES_NS = {
    "1980": 315_532_800 * SECOND,
    "odd": 1_000_000_001 * SECOND,
    "leap": 1_582_934_398 * SECOND,
    "2038": 2_147_483_648 * SECOND,
    "2100": 4_107_542_398 * SECOND,
}
"""Not later: 2100 is a leap year to exfat-fuse."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an image is built. Sizes in bytes; sector: of the loop device it is made on; boundary:
    what its parts are aligned to."""

    cluster: int
    size: int
    fill: Callable[[Path, int], None]
    label: str = "a label"
    sector: int = 512
    boundary: int = MIB


class Images:
    """The images of one test session, built when first asked for. They must not be changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str) -> Path:
        """Return an image's path. Skips the test when a tool for it is missing."""
        require("mkfs.exfat", "mount.exfat-fuse", "losetup")
        require_root()
        path = self._folder / f"{name}.img"
        if not path.exists():
            unfinished = self._folder / f"{name}.unfinished"
            unfinished.unlink(missing_ok=True)
            build(RECIPES[name], unfinished)
            unfinished.chmod(0o444)
            unfinished.rename(path)
        return path


@pytest.fixture(scope="session")
def exfat_images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return Images(tmp_path_factory.mktemp("exfat"))


def build(recipe: Recipe, image: Path) -> None:
    with image.open("wb") as file:
        file.truncate(recipe.size)
    with loop(image, recipe.sector, writable=True) as device:
        sizes = ("-c", str(recipe.cluster), "-b", str(recipe.boundary))
        run("mkfs.exfat", *sizes, "-L", recipe.label, device)
        with fuse_mount(device, "rw") as root:
            recipe.fill(root, recipe.cluster)


# Programs


@contextmanager
def loop(image: Path, sector: int = 512, *, writable: bool = False) -> Iterator[str]:
    """Attach an image to a loop device with sectors of a size."""
    options = [] if writable else ["--read-only"]
    device = run(
        "losetup", "--find", "--show", "--sector-size", str(sector), *options, image
    ).strip()
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


@contextmanager
def fuse_mount(device: str, mode: str) -> Iterator[Path]:
    """Mount a device by exfat-fuse, with the modes that restorefs shows."""
    folder = Path(tempfile.mkdtemp(prefix="restorefs-exfat-"))
    options = f"{mode},fmask=0133,dmask=0022,noatime"
    try:
        # Times are shown without regard to the zone that this machine is in.
        run("mount.exfat-fuse", "-o", options, device, folder, env={**os.environ, "TZ": "UTC"})
        try:
            yield folder
        finally:
            unmount(folder)
    finally:
        folder.rmdir()


@contextmanager
def mounted(image: Path, sector: int = 512) -> Iterator[Path]:
    """Mount an image read-only by exfat-fuse, the program to be believed."""
    with loop(image, sector) as device, fuse_mount(device, "ro") as root:
        yield root


# What images hold


def fill_tree(root: Path, cluster: int) -> None:
    """Everything that exfat-fuse can write."""
    sizes = root / "sizes"
    sizes.mkdir()
    cluster = min(cluster, 256 * KIB)
    for size in {0, 1, 511, 512, 513, 300_000, cluster - 1, cluster, cluster + 1, 5 * cluster + 7}:
        (sizes / str(size)).write_bytes(content(size, size))
    fill_sparse(root, cluster)
    names = root / "names"
    names.mkdir()
    for name in NAMES:
        (names / name).write_text(name)
    times = root / "times"
    times.mkdir()
    for name, time in TIMES_NS.items():
        (times / name).write_text(name)
        os.utime(times / name, ns=(time, time))
        (times / f"{name}-differing").write_text(name)
        os.utime(times / f"{name}-differing", ns=(TIMES_NS["1980"], time))
    (times / "folder").mkdir()
    os.utime(times / "folder", ns=(TIMES_NS["leap"], TIMES_NS["odd"]))
    deep = root
    for number in range(12):
        deep /= f"deep-{number}"
        deep.mkdir()
        (deep / "file").write_text(str(number))
    fill_folders(root, 300)
    fill_pieces(root, cluster)


def fill_sparse(root: Path, cluster: int) -> None:
    """Files that were made longer without writing."""
    sparse = root / "sparse"
    sparse.mkdir()
    for name, data, size in (
        ("only", b"", 10 * cluster + 3),
        ("behind", content("behind", 3 * cluster + 100), 9 * cluster),
        ("one-byte", b"x", 2 * cluster),
    ):
        (sparse / name).write_bytes(data)
        os.truncate(sparse / name, size)


def fill_folders(root: Path, entries: int) -> None:
    """Folders: empty, emptied, with stale names between sound ones, with many, and in pieces."""
    base = root / "folders"
    base.mkdir()
    for name in ("empty", "emptied", "stale", "many"):
        (base / name).mkdir()
    for number in range(100):
        (base / "emptied" / f"file-{number}").write_bytes(b"x")
        (base / "stale" / f"file-{number}").write_bytes(b"%d" % number)
    for number in range(100):
        (base / "emptied" / f"file-{number}").unlink()
        if number % 3:
            (base / "stale" / f"file-{number}").unlink()
    (base / "stale" / "file-0").rename(base / "stale" / "renamed to something longer")
    for number in range(entries):
        (base / "many" / f"entry number {number}").write_bytes(b"%d" % number)
    # Two folders that grow in turn have their clusters in turn: neither is contiguous.
    for name in ("one", "other"):
        (base / name).mkdir()
    for number in range(entries):
        for name in ("one", "other"):
            (base / name / f"{name} with a longer name, number {number}").touch()
    for number in range(30):
        (base / "one" / f"folder-{number}").mkdir()


def fill_pieces(root: Path, cluster: int) -> None:
    """Files that grow in turn, so that none of them is contiguous."""
    base = root / "pieces"
    base.mkdir()
    count = max(3, min(60, (2 * MIB) // cluster))
    for number in range(count):
        for name in ("one", "other"):
            with (base / name).open("ab") as file:
                file.write(content((name, number), cluster))
    with (base / "one").open("ab") as file:
        file.write(b"tail")


def fill_small(root: Path, cluster: int) -> None:
    """A little of everything, for images that are read hundreds of times."""
    fill_folders(root, 40)
    fill_pieces(root, cluster)
    fill_sparse(root, cluster)
    (root / "names").mkdir()
    for name in NAMES[:12]:
        (root / "names" / name).write_text(name)


def fill_few(root: Path, cluster: int) -> None:
    """What fits into some tens of clusters."""
    (root / "folder" / "nested").mkdir(parents=True)
    (root / "folder" / "nested" / "file").write_text("in a folder in a folder")
    (root / "names").mkdir()
    for name in NAMES[:12]:
        (root / "names" / name).touch()
    (root / "large").write_bytes(content("large", cluster + 12_345))
    (root / "longer").write_bytes(content("longer", 1000))
    os.truncate(root / "longer", cluster + 1)
    for number in range(2):
        for name in ("one", "other"):
            with (root / name).open("ab") as file:
                file.write(content((name, number), cluster - number))


def fill_contiguous(root: Path, cluster: int) -> None:
    """Folders and files of several clusters, each written when nothing else is."""
    for name in ("first", "second", "third"):
        (root / name).mkdir()
        for number in range(200):
            (root / name / f"an empty file, number {number}").touch()
    for name in ("first", "second", "third"):
        (root / f"{name} large").write_bytes(content(name, 7 * cluster + 3))


def fill_many(root: Path, cluster: int) -> None:
    many = root / "many"
    many.mkdir()
    for number in range(5_000):
        (many / f"one of very many entries, {number:06}").touch()


RECIPES = {
    "exfat_512": Recipe(512, 16 * MIB, fill_tree),
    "exfat_4k": Recipe(4 * KIB, 32 * MIB, fill_tree),
    "exfat_32k": Recipe(32 * KIB, 96 * MIB, fill_tree),
    "exfat_128k": Recipe(128 * KIB, 512 * MIB, fill_tree, label=""),
    "exfat_32m": Recipe(32 * MIB, 1024 * MIB, fill_few, label="größe 語"),
    "exfat_sectors_of_4k": Recipe(4 * KIB, 48 * MIB, fill_tree, sector=4096),
    "exfat_small": Recipe(512, 2 * MIB, fill_small, boundary=64 * KIB),
    "exfat_contiguous": Recipe(512, 8 * MIB, fill_contiguous, boundary=64 * KIB),
    "exfat_many": Recipe(4 * KIB, 64 * MIB, fill_many),
}


# Changes


def checksum16(data: bytes) -> int:
    """EntrySetChecksum, figure 2 of the specification."""
    checksum = 0
    for index, byte in enumerate(data):
        if index not in (2, 3):
            checksum = ((checksum << 15 | checksum >> 1) + byte) & 0xFFFF
    return checksum


def checksum32(data: bytes, skipped: tuple[int, ...] = ()) -> int:
    """BootChecksum and TableChecksum, figures 1 and 3."""
    checksum = 0
    for index, byte in enumerate(data):
        if index not in skipped:
            checksum = ((checksum << 31 | checksum >> 1) + byte) & 0xFFFFFFFF
    return checksum


class Image:
    """An image in memory that a test changes."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        (self.fat, _, self.heap, self.clusters, self.root) = [
            number << (self.data[108] if place < 3 else 0)
            for place, number in enumerate(struct.unpack_from("<5I", data, 80))
        ]
        self.sector = 1 << self.data[108]
        self.cluster = 1 << self.data[108] + self.data[109]

    def set_of(self, name: str) -> int:
        """Return where the one set with this name of up to 15 characters begins."""
        raw = name.encode("utf-16-le", "surrogatepass")
        found = []
        at = self.data.find(raw, self.heap)
        while at >= 0:
            start = at - 2 - 2 * ENTRY
            if (
                at % ENTRY == 2
                and self.data[start] == 0x85
                and self.data[start + ENTRY + 3] == len(raw) // 2
            ):
                found.append(start)
            at = self.data.find(raw, at + 2)
        (start,) = found
        return start

    def seal(self, start: int) -> None:
        """Make the checksum of a set right."""
        end = start + ENTRY * (self.data[start + 1] + 1)
        struct.pack_into("<H", self.data, start + 2, checksum16(bytes(self.data[start:end])))

    def put(self, name: str, place: int, form: str, *numbers: int) -> None:
        """Write numbers into a set, at a place counted from its beginning, and seal it."""
        start = self.set_of(name)
        struct.pack_into(form, self.data, start + place, *numbers)
        self.seal(start)

    def get(self, name: str, place: int, form: str) -> int:
        """Read a number from a set."""
        (number,) = struct.unpack_from(form, self.data, self.set_of(name) + place)
        return int(number)

    def offset_of(self, cluster: int) -> int:
        return self.heap + (cluster - 2) * self.cluster

    def fat_entry(self, cluster: int) -> int:
        return int(struct.unpack_from("<I", self.data, self.fat + 4 * cluster)[0])

    def set_fat_entry(self, cluster: int, value: int) -> None:
        struct.pack_into("<I", self.data, self.fat + 4 * cluster, value)

    def seal_boot(self, start: int = 0) -> None:
        """Make the checksum of a boot region right."""
        covered = 11 * self.sector
        region = bytes(self.data[start : start + covered])
        checksum = checksum32(region, (106, 107, 112)).to_bytes(4, "little")
        self.data[start + covered : start + covered + self.sector] = checksum * (self.sector // 4)


ATTRIBUTES, CREATED, MODIFIED, ACCESSED = 4, 8, 12, 16
CREATED_10MS, MODIFIED_10MS, CREATED_ZONE, MODIFIED_ZONE, ACCESSED_ZONE = 20, 21, 22, 23, 24
FLAGS, NAME_LENGTH = ENTRY + 1, ENTRY + 3
VALID_LENGTH, FIRST_CLUSTER, LENGTH = ENTRY + 8, ENTRY + 20, ENTRY + 24
"""Where fields lie in a set (tables 27 and 33)."""
