"""Recipes for FAT12, FAT16 and FAT32 images of every geometry, made by dosfstools and mtools.

Owns how an image is made, and what mtools says of it. Knows nothing of the reader. What no program
writes is patched in, at places that are looked for by what must be there. Images are small and
sparse; each is built once per test session, when a test first asks for it.

Concurrency: none.
"""

import os
import re
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.images.tree import content
from tests.tools import require, run

KIB, MIB = 1 << 10, 1 << 20

SIZES = (0, 1, 511, 512, 513, 4095, 4096, 4097, 65_535, 65_536, 65_537, 100_000)

NAMES = (
    "UPPER.TXT",
    "lower.txt",
    "lowbase.TXT",
    "LOWEXT.txt",
    "Mixed.Case",
    "NOEXT",
    "lownoext",
    "two.dots.txt",
    ".hidden",
    "with space",
    "+,;=[]",
    "a",
    "ÄÖÜ.ÑÉ",
    "größe-日本語-🙂",
    "Привет, мир.txt",
    *(f"{count:03d}" + "x" * (count - 3) for count in (12, 13, 14, 25, 26, 27, 39, 200, 254, 255)),
    *(letter * 85 for letter in "語"),
)

TIMES = {
    "1980": datetime(1980, 1, 1, tzinfo=UTC),
    "1999": datetime(1999, 12, 31, 23, 59, 58, tzinfo=UTC),
    "2000-leap": datetime(2000, 2, 29, 12, 30, 2, tzinfo=UTC),
    "2038-later": datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),
    "2099": datetime(2099, 12, 31, 23, 59, 58, tzinfo=UTC),
}

ATTRIBUTES = {
    "none": ("-a",),
    "archive": ("+a",),
    "readonly": ("+r",),
    "hidden": ("-a", "+h"),
    "system": ("-a", "+s"),
    "all": ("+r", "+h", "+s", "+a"),
}

CREATED = datetime(2021, 3, 4, 5, 6, 7, 890_000, tzinfo=UTC)
ACCESSED = datetime(2022, 5, 6, tzinfo=UTC)
"""Of the file attributes/all."""

MANY = tuple(f"entry number {number}" for number in range(600))


@dataclass(frozen=True, slots=True)
class Recipe:
    """mkfs.fat's options, and the image's size in bytes. small: holds few files."""

    options: tuple[str, ...]
    size: int
    small: bool = False


RECIPES: dict[str, Recipe] = {
    "fat12_512": Recipe(("-F12", "-s1"), 2000 * KIB),
    "fat12_1k_one_fat": Recipe(("-F12", "-s2", "-f1"), 3000 * KIB),
    "fat12_16k": Recipe(("-F12", "-s32"), 40 * MIB),
    "fat16_512": Recipe(("-F16", "-s1"), 8 * MIB),
    "fat16_2k": Recipe(("-F16", "-s4"), 64 * MIB),
    "fat16_32k": Recipe(("-F16", "-s64"), 256 * MIB),
    "fat16_64k_one_fat": Recipe(("-F16", "-s128", "-f1"), 512 * MIB),
    "fat16_sectors_4k": Recipe(("-F16", "-S4096", "-s1"), 64 * MIB),
    "fat32_512": Recipe(("-F32", "-s1"), 40 * MIB),
    "fat32_4k": Recipe(("-F32", "-s8"), 300 * MIB),
    "fat32_64k": Recipe(("-F32", "-s128"), 4200 * MIB),
    "fat32_one_fat": Recipe(("-F32", "-s2", "-f1"), 80 * MIB),
    "fat32_sectors_4k": Recipe(("-F32", "-S4096", "-s2"), 600 * MIB),
    "fat32_four_fats": Recipe(("-F32", "-s1", "-f4"), 40 * MIB),
    "fat12_small": Recipe(("-F12", "-s1", "-r64"), 1000 * KIB, small=True),
    "fat16_small": Recipe(("-F16", "-s1", "-r64", "-f1"), 4 * MIB, small=True),
    "fat32_small": Recipe(("-F32", "-s1", "-R8"), 34 * MIB, small=True),
}


class Images:
    """The images of one test session, built when first asked for. They must not be changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str) -> Path:
        """Return an image's path. Skips the test when a tool for it is missing."""
        require("mkfs.fat", "mcopy", "mmd", "mdel", "mattrib", "mshowfat")
        path = self._folder / f"{name}.img"
        if not path.exists():
            unfinished = self._folder / f"{name}.unfinished"
            unfinished.unlink(missing_ok=True)
            make(unfinished, *RECIPES[name].options, size=RECIPES[name].size)
            sources = self._folder / "sources"
            if not sources.exists():
                write_sources(sources)
            fill(unfinished, sources, 40 if RECIPES[name].small else len(MANY))
            unfinished.chmod(0o444)
            unfinished.rename(path)
        return path

    def extracted(self, name: str) -> Path:
        """Return a folder into which mtools copied everything that is in an image."""
        image = self(name)
        folder = self._folder / name
        if not folder.exists():
            unfinished = self._folder / f"{name}.tree"
            unfinished.mkdir()
            extract(image, unfinished)
            unfinished.rename(folder)
        return folder


@pytest.fixture(scope="session")
def fat_images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return Images(tmp_path_factory.mktemp("fat"))


def make(image: Path, *options: str, size: int) -> None:
    """Make an empty file system with a fixed label and serial number."""
    image.touch()
    os.truncate(image, size)
    run("mkfs.fat", "-n", "A LABEL", "-i", "89ABCDEF", *options, image)


def mtool(program: str, image: Path, *arguments: str | Path) -> str:
    """Run one of mtools, in UTC, with names in UTF-8 and short names in code page 437."""
    environment = {
        **os.environ,
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
        "MTOOLS_SKIP_CHECK": "1",
        "DEFAULT_CODEPAGE": "437",
        "MTOOLSRC": os.devnull,
    }
    return run(program, "-i", image, *arguments, env=environment)


def write_sources(folder: Path) -> None:
    """Make on the machine's own file system what goes into every image."""
    for name in ("sizes", "names", "times", "attributes", "many", "fragments"):
        (folder / name).mkdir(parents=True)
    for size in SIZES:
        (folder / "sizes" / str(size)).write_bytes(content(size, size))
    for name in NAMES:
        (folder / "names" / name).write_text(name)
    for name, time in TIMES.items():
        path = folder / "times" / name
        path.write_text(name)
        os.utime(path, (time.timestamp(), time.timestamp()))
    for name in ATTRIBUTES:
        (folder / "attributes" / name).write_text(name)
    for name in MANY:
        (folder / "many" / name).touch()
    for number in range(40):
        (folder / "fragments" / f"small{number}").write_bytes(content(number, 100))
    (folder / "fragments" / "pieces").write_bytes(content("pieces", 150_000))


def fill(image: Path, sources: Path, many: int) -> None:
    """Copy the sources into an empty image, so many of those in the folder "many"."""
    copy = ("-m", "-o")
    mtool("mmd", image, "::sizes", "::names", "::times", "::attributes", "::many", "::FRAGS")
    mtool("mmd", image, "::A long folder name", "::A long folder name/below", "::lowerdir")
    mtool("mmd", image, "::A long folder name/below/it", "::empty")
    # mtools does not enlarge a folder by more than a cluster for one name.
    room = sorted((sources / "many").iterdir())[:80]
    mtool("mcopy", image, *copy, *room, "::names")
    mtool("mdel", image, *(f"::names/{path.name}" for path in room))
    for name in ("sizes", "names", "times", "attributes", "many"):
        files = sorted((sources / name).iterdir(), key=lambda path: (len(path.name), path.name))
        files = files[:many]
        mtool("mcopy", image, *copy, *files, f"::{name}")
    small = sorted((sources / "fragments").glob("small*"))
    mtool("mcopy", image, *copy, *small, "::FRAGS")
    mtool("mdel", image, *(f"::FRAGS/{path.name}" for path in small[::2]))
    forget_free_cluster(image)
    mtool("mcopy", image, *copy, sources / "fragments/pieces", "::FRAGS")
    mtool("mcopy", image, *copy, sources / "sizes/4097", "::A long folder name/below/it/file")
    mtool("mdel", image, "::many/entry number 7", "::names/two.dots.txt")
    for name, changes in ATTRIBUTES.items():
        mtool("mattrib", image, *changes, f"::attributes/{name}")
    mtool("mattrib", image, "+h", "::empty")
    mtool("mcopy", image, *copy, sources / "sizes/4097", "::NOXATTR")
    mtool("mcopy", image, *copy, sources / "sizes/4097", "::DELETED")
    mtool("mdel", image, "::DELETED")
    mtool("mattrib", image, "-a", "::NOXATTR")
    # mtools sets all times alike.
    set_times(image, b"ALL     ", CREATED, ACCESSED)
    patch(image, (entry_place(image, b"NOXATTR ") + 13, bytes(5)))


# What mtools says


def extract(image: Path, folder: Path) -> None:
    """Copy everything out of an image, with times of modification and the read-only attribute."""
    mtool("mcopy", image, "-s", "-n", "-m", "-p", "::/", folder)


def clusters_of(image: Path, path: str) -> list[int]:
    """Return the clusters of a file, in order, by mshowfat."""
    clusters: list[int] = []
    shown = mtool("mshowfat", image, f"::{path}").rpartition("::")[2]
    for first, last in re.findall(r"<(\d+)(?:-(\d+))?>", shown):
        clusters += range(int(first), int(last or first) + 1)
    return clusters


def attributes_shown(image: Path) -> dict[str, str]:
    """Return by path, without the root's slash, the attribute letters of everything."""
    lines = mtool("mattrib", image, "-/", "-X", "::").splitlines()
    found = (re.fullmatch(r"([A-Z]*) ?::/(.*)", line) for line in lines)
    return {match[2]: match[1] for match in found if match}


def check(image: Path) -> None:
    """Let fsck.fat look at an image that should be sound."""
    run("fsck.fat", "-n", image)


# Patches


def entry_place(image: Path, stored: bytes) -> int:
    """Return where on the volume the only entry is whose name is stored in these bytes."""
    data = used_part(image)
    found = [match.start() for match in re.finditer(re.escape(stored), data)]
    places = [place for place in found if place % 32 == 0]
    assert len(places) == 1, f"{stored!r} is at {found}"
    return places[0]


def used_part(image: Path) -> bytes:
    """Return an image's bytes up to the last that mtools wrote; they are all at its start."""
    with image.open("rb") as file:
        return file.read(64 * MIB)


def patch(image: Path, *changes: tuple[int, bytes]) -> None:
    """Replace bytes of an image."""
    with image.open("r+b") as file:
        for offset, data in changes:
            file.seek(offset)
            file.write(data)


def forget_free_cluster(image: Path) -> None:
    """Let whoever writes next to a FAT32 look for free clusters from its start (spec, FSInfo)."""
    data = used_part(image)
    for sector_size in (512, 4096):
        if data[sector_size : sector_size + 4] == b"RRaA":
            patch(image, (sector_size + 492, struct.pack("<I", 2)))


def set_times(image: Path, stored: bytes, created: datetime, accessed: datetime) -> None:
    """Set when the file with this stored name was created and last used."""
    day, time, fraction = dos_time(created)
    fields = struct.pack("<BHHH", fraction, time, day, dos_time(accessed)[0])
    patch(image, (entry_place(image, stored) + 13, fields))


def dos_time(time: datetime) -> tuple[int, int, int]:
    """Return a time's date, time in units of two seconds, and 10 ms above that, as stored (spec,
    "Date and Time Formats")."""
    day = (time.year - 1980) << 9 | time.month << 5 | time.day
    seconds = time.hour << 11 | time.minute << 5 | time.second // 2
    return day, seconds, time.second % 2 * 100 + time.microsecond // 10_000
