"""NTFS, FAT and exFAT images as Linux' own drivers show them, in a small emulated machine.

One boot looks at all of them, and lets the drivers write to some; a test for each image compares.
What a driver shows in another way is said here by name and with its reason; everything else must be
equal: names, types, modes, sizes, blocks, times in ns, hard links, contents.
"""

import stat
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.images import exfat, fat, ntfs
from tests.machine import Disk, look_at
from tests.manifest import Manifest, assert_same_tree
from tests.real import exfat_trees, fat_trees, ntfs_trees
from tests.tools import run

MASKS = "dmask=022,fmask=133,iocharset=utf8"
VFAT = ",utf8,codepage=437,tz=UTC"
NTFS = ("ntfs_4k", "ntfs_512", "ntfs_64k", "ntfs_2m", "ntfs_sector_4k")
EXFAT = ("exfat_512", "exfat_32k", "exfat_sectors_of_4k", "exfat_contiguous")
FAT = ("fat12_512", "fat16_2k", "fat16_sectors_4k", "fat32_4k")

WRITTEN = {
    "by_ntfs3": ("ntfs3", "ntfs_empty"),
    "by_vfat_on_fat16": ("vfat", "fat16_small"),
    "by_vfat_on_fat32": ("vfat", "fat32_small"),
    "by_exfat": ("exfat", "exfat_small"),
}
"""Images that a driver writes FILL to: the driver, and the image that it begins with."""

FILL = r"""
mkdir fresh; cd fresh
mkdir -p many deep/er/and/deeper
i=0; while [ $i -lt 400 ]; do echo $i > "many/a long file name, number $i.txt"; i=$((i+1)); done
i=0; while [ $i -lt 400 ]; do rm "many/a long file name, number $i.txt"; i=$((i+3)); done
for size in 1 100 500 600 700 800 1000 4096 5001 70000; do
  dd if=/dev/urandom of=deep/size-$size bs=$size count=1 2> /dev/null
done
: > deep/empty
i=0; while [ $i -lt 40 ]; do
  for name in one other third; do
    dd if=/dev/urandom bs=1500 count=1 2> /dev/null >> deep/er/grown-$name
  done
  i=$((i+1))
done
rm deep/er/grown-other
dd if=/dev/urandom of=deep/er/and/filled bs=40000 count=1 2> /dev/null
dd if=/dev/urandom of=deep/er/and/behind bs=1000 count=3 seek=90 2> /dev/null
truncate -s 60000 deep/er/and/sparse
dd if=/dev/urandom of=deep/er/and/cut bs=30000 count=1 2> /dev/null
truncate -s 10001 deep/er/and/cut
for name in größe 日本語 🙂 UPPER.TXT lower.txt MiXed.Txt lower.TXU UPPER.txv "a space" .hidden; do
  echo "$name" > "deep/$name"
done
mv deep/MiXed.Txt "many/moved and renamed"
mv deep/er/and deep/and
touch -d "2001-02-03 04:05:06" deep/size-1
"""

NOT_SHOWN = ("rdev", "atime_ns", "ctime_ns", "xattrs", "segments", "errors")
"""What the machine's busybox cannot tell."""


class Seen(NamedTuple):
    """An image and what the machine's kernel shows of it."""

    image: Path
    tree: Manifest


@pytest.fixture(scope="module")
def seen(
    ntfs_images: ntfs.Images,
    exfat_images: exfat.Images,
    fat_images: fat.Images,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Seen]:
    images = {name: ntfs_images(name) for name in NTFS}
    images |= {name: exfat_images(name) for name in EXFAT}
    images |= {name: fat_images(name) for name in FAT}
    folder = tmp_path_factory.mktemp("written")
    makers = {"ntfs3": ntfs_images, "vfat": fat_images, "exfat": exfat_images}
    for name, (driver, source) in WRITTEN.items():
        images[name] = folder / name
        run("cp", "--sparse=always", "--no-preserve=mode", makers[driver](source), images[name])
    disks = [
        *(Disk(images[name], "ntfs3", MASKS, ntfs.RECIPES[name].sector) for name in NTFS),
        *(Disk(images[name], "exfat", MASKS, exfat.RECIPES[name].sector) for name in EXFAT),
        *(Disk(images[name], "vfat", f"{MASKS}{VFAT}", sector_of_fat(name)) for name in FAT),
        *(
            Disk(images[name], driver, MASKS + (VFAT if driver == "vfat" else ""), fill=FILL)
            for name, (driver, _) in WRITTEN.items()
        ),
    ]
    trees = look_at(disks)
    return {name: Seen(images[name], tree) for name, tree in zip(images, trees, strict=True)}


def sector_of_fat(name: str) -> int:
    return 4096 if "-S4096" in fat.RECIPES[name].options else 512


def forget_subfolders(*trees: Manifest) -> None:
    """Linux counts a folder's subfolders among its links where the format has no links."""
    for tree in trees:
        for entry in tree.values():
            if stat.S_ISDIR(entry.mode):
                entry.nlink = 1


@pytest.mark.parametrize("name", NTFS)
async def test_ntfs3_shows_the_same(name: str, seen: dict[str, Seen]) -> None:
    image, expected = seen[name]
    found = await ntfs_trees.found_tree(image)
    assert len(expected) > 1000
    forget_subfolders(expected, found)
    for surrogate in ntfs.SURROGATES:
        # It leaves out names that are no text; ntfs-3g shows them.
        del found[b"names/" + surrogate]
    for time, entry in found.items():
        # It takes times before 1970 for unsigned numbers: 4294967196 ns for 1969's last tick.
        if entry.mtime_ns < 0:
            expected[time].mtime_ns = entry.mtime_ns
    # It keeps to the masks only below the root, and takes the write bits for the attribute R.
    expected[b"."].mode = found[b"."].mode
    for path in (b"metadata/flags-0001", b"metadata/flags-3127"):
        if path in expected:
            assert expected[path].mode == stat.S_IFREG | 0o444
            expected[path].mode = found[path].mode
    for path, entry in expected.items():
        shown = found[path]
        if path.startswith(b"wsl/"):
            # It does not know what WSL means by these tags: empty files, links to nowhere.
            assert stat.S_IFMT(entry.mode) in (stat.S_IFREG, stat.S_IFLNK)
            expected[path] = shown
        elif path.startswith(b"reparse/") and stat.S_ISLNK(entry.mode):
            # It shows the names that are stored for people; where links lead is compared with
            # what the recipe wrote, in test_ntfs_manifest.py.
            assert stat.S_ISLNK(shown.mode)
            entry.target, entry.size = shown.target, shown.size
        if entry.size < max(1024, ntfs.RECIPES[name].sector):
            # What lies in a file's record has no blocks of its own, or as many as it fills.
            entry.blocks = shown.blocks
    assert_same_tree(expected, found, NOT_SHOWN)


def forgive_exfat(expected: Manifest, found: Manifest) -> None:
    """Take out what the driver cannot say."""
    # It takes dots off the end of names, and then does not find them; exfat-fuse does.
    for path in [each for each in found if each.endswith(b".") and each != b"."]:
        del found[path]
    # The root's time is stored nowhere: it says that of the mount.
    expected[b"."].mtime_ns = found[b"."].mtime_ns


@pytest.mark.parametrize("name", EXFAT)
async def test_exfat_shows_the_same(name: str, seen: dict[str, Seen]) -> None:
    image, expected = seen[name]
    found = await exfat_trees.found_tree(image)
    assert len(expected) > 3
    forget_subfolders(expected, found)
    forgive_exfat(expected, found)
    assert_same_tree(expected, found, NOT_SHOWN)


@pytest.mark.parametrize("name", FAT)
async def test_vfat_shows_the_same(name: str, seen: dict[str, Seen]) -> None:
    image, expected = seen[name]
    found = await fat_trees.found_tree(image)
    assert len(expected) > 500
    forget_subfolders(expected, found)
    assert_same_tree(expected, found, NOT_SHOWN)


@pytest.mark.parametrize("name", WRITTEN)
async def test_what_linux_drivers_write(name: str, seen: dict[str, Seen]) -> None:
    image, expected = seen[name]
    trees = {"ntfs3": ntfs_trees, "vfat": fat_trees, "exfat": exfat_trees}
    driver = WRITTEN[name][0]
    found = await trees[driver].found_tree(image)
    assert len([path for path in expected if path.startswith(b"fresh/many/")]) == 267
    assert len([path for path in expected if path.startswith(b"fresh/deep/")]) > 25
    forget_subfolders(expected, found)
    if driver == "ntfs3":
        expected[b"."].mode = found[b"."].mode
        for path, entry in expected.items():
            if entry.size < 1024:
                entry.blocks = found[path].blocks
    if driver == "exfat":
        forgive_exfat(expected, found)
    assert_same_tree(expected, found, NOT_SHOWN)
