"""FAT images of every geometry, compared with what mtools and The Sleuth Kit show of them."""

import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from restorefs.block.file import FileDevice
from restorefs.guestfs.base import Attributes, GuestFilesystem, Inode
from restorefs.guestfs.fat.reader import FatFilesystem
from tests.images.fat import RECIPES, Images, attributes_shown, check, clusters_of, mtool
from tests.listing import entries_of
from tests.manifest import assert_same_tree, manifest_of_path
from tests.real.fat_trees import NOT_SHOWN, found_tree, opened
from tests.tools import require, run, unavailable

try:
    import pytsk3
except ImportError:
    pytsk3 = None

LETTERS = {"R": 0x01, "H": 0x02, "S": 0x04, "D": 0x10, "A": 0x20}

LARGE = [name for name, recipe in RECIPES.items() if not recipe.small]

recipes = pytest.mark.parametrize("name", LARGE)


async def walk(
    fs: GuestFilesystem, folder: Inode, path: str = ""
) -> list[tuple[str, Inode, Attributes]]:
    """Return everything below a folder, by path."""
    found = []
    for entry in await entries_of(fs, folder):
        assert entry.attributes is not None
        where = f"{path}{entry.name.decode()}"
        found.append((where, entry.inode, entry.attributes))
        if entry.kind == stat.S_IFDIR:
            found += await walk(fs, entry.inode, f"{where}/")
    return found


@recipes
async def test_the_reader_shows_what_mtools_copies(name: str, fat_images: Images) -> None:
    image = fat_images(name)
    expected = manifest_of_path(fat_images.extracted(name))
    found = await found_tree(image)
    shown = attributes_shown(image)
    assert len(expected) > 650
    assert shown.keys() == {os.fsdecode(path) for path in found if path != b"."} | {""}
    for path, entry in expected.items():
        kind = stat.S_IFMT(entry.mode)
        # mtools neither gives the root times nor files the mode that the kernel shows.
        read_only = "R" in shown.get(os.fsdecode(path), "") and not stat.S_ISDIR(kind)
        entry.mode = kind | (0o444 if read_only else 0o644)
        if stat.S_ISDIR(kind):
            entry.mode = kind | 0o755
            entry.size = found[path].size
        if path == b".":
            entry.mtime_ns = 0
    assert_same_tree(expected, found, NOT_SHOWN)


@recipes
async def test_files_lie_where_mtools_finds_them(name: str, fat_images: Images) -> None:
    image = fat_images(name)
    cluster, data_start = geometry_shown(image)
    async with opened(image) as (fs, _):
        seen = 0
        for path, inode, attributes in await walk(fs, fs.root):
            if path.startswith("names/"):
                continue  # Some of those mean several to mtools.
            if stat.S_ISREG(attributes.mode) and attributes.size > 1:
                clusters = clusters_of(image, path)
                assert len(clusters) == -(-attributes.size // cluster)
                pieces = [
                    (data_start + (number - 2) * cluster + inside)
                    for number in clusters
                    for inside in range(0, cluster, 512)
                ]
                places = [
                    extent.offset + inside
                    for extent in await fs.map(inode, 0, attributes.size)
                    if extent.offset is not None
                    for inside in range(0, extent.length, 512)
                ]
                assert places == pieces[: len(places)]
                assert len(places) == -(-attributes.size // 512)
                seen += 1
            elif stat.S_ISDIR(attributes.mode):
                assert attributes.size == len(clusters_of(image, path)) * cluster
                assert attributes.blocks == attributes.size // 512
        assert seen > 30
        pieces_of = await fs.lookup(await fs.lookup(fs.root, b"FRAGS"), b"pieces")
        extents = await fs.map(pieces_of, 0, 150_000)
        assert len(extents) > (5 if cluster <= 4096 else 1)


def geometry_shown(image: Path) -> tuple[int, int]:
    """Return the size of a cluster and where the first is, in bytes, as minfo shows it."""
    shown = mtool("minfo", image, "::")

    def number(what: str) -> int:
        match = re.search(rf"^{what}[:=] ?(\d+)", shown, re.MULTILINE)
        assert match, f"{what} is not in {shown}"
        return int(match[1])

    sector = number("sector size")
    fat = number("sectors per fat") or number("Big fatlen")
    root = -(-number("max available root directory slots") * 32 // sector)
    start = number("reserved \\(boot\\) sectors") + number("fats") * fat + root
    return number("cluster size") * sector, start * sector


@recipes
async def test_dos_attributes_are_those_that_mattrib_shows(name: str, fat_images: Images) -> None:
    image = fat_images(name)
    shown = attributes_shown(image)
    async with opened(image) as (fs, _):
        for path, inode, _ in await walk(fs, fs.root):
            value = (await fs.xattrs(inode)).get(b"user.DOSATTRIB", b"0x0\0")
            bits = sum(LETTERS[letter] for letter in shown[path])
            assert int(value.partition(b"\0")[0], 16) == bits, path


@recipes
async def test_short_names_and_any_case_lead_to_the_same_files(
    name: str, fat_images: Images
) -> None:
    image = fat_images(name)
    async with opened(image) as (fs, _):
        for folder in ("names", "many"):
            inode = await fs.lookup(fs.root, folder.encode())
            listed = {entry.name.decode(): entry.inode for entry in await entries_of(fs, inode)}
            aliases = short_names_shown(image, folder)
            assert len(aliases) > 5
            for long, short in aliases.items():
                for given in (long, short, short.lower(), long.swapcase()):
                    if len(given) == len(long) or given in (short, short.lower()):
                        found = await fs.lookup(inode, given.encode())
                        assert found == listed[long], (given, long)
            assert not set(listed) & set(aliases.values())


def short_names_shown(image: Path, folder: str) -> dict[str, str]:
    """Return the short names behind long ones, by those, as mdir shows them."""
    lines = mtool("mdir", image, f"::{folder}").splitlines()
    found = {}
    for line in lines:
        match = re.fullmatch(r"(.{8}) (.{3}) +\d+ \d{4}-\d\d-\d\d +\d+:\d\d  (.+?) ?", line)
        if match:
            base, extension = match[1].rstrip(), match[2].rstrip()
            found[match[3]] = f"{base}.{extension}" if extension else base
    return found


@recipes
async def test_folders_know_their_parent_without_having_been_walked(
    name: str, fat_images: Images
) -> None:
    image = fat_images(name)
    async with opened(image) as (fs, _):
        paths = {path: inode for path, inode, _ in await walk(fs, fs.root)}
    below = b"A long folder name/below/it"
    for path in ("A long folder name/below/it", "A long folder name/below", "many"):
        async with opened(image) as (fs, _):
            above = paths.get(path.rpartition("/")[0], fs.root)
            assert await fs.lookup(paths[path], b"..") == above, below


@pytest.mark.parametrize("name", [name for name in RECIPES if "four" not in name])
def test_fsck_finds_the_images_sound(name: str, fat_images: Images) -> None:
    require("fsck.fat")
    check(fat_images(name))


# A second opinion


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The Sleuth Kit takes FAT's times for local ones."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def told_by_tsk(folder: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what is below a folder, by path, but for what TSK makes up itself."""
    for each in folder:
        name = each.info.name.name.decode()
        if name in (".", "..") or name.startswith("$") or each.info.meta is None:
            continue
        if int(each.info.name.flags) != int(pytsk3.TSK_FS_NAME_FLAG_ALLOC):
            continue
        if "(Volume Label Entry)" in name:
            continue
        yield f"{path}{name}", each.info.meta
        if each.info.meta.type == pytsk3.TSK_FS_META_TYPE_DIR:
            yield from told_by_tsk(each.as_directory(), f"{path}{name}/")


@pytest.mark.usefixtures("utc")
@recipes
async def test_all_times_are_those_that_the_sleuth_kit_tells(name: str, fat_images: Images) -> None:
    if pytsk3 is None:
        unavailable("not installed: pytsk3")
    image = fat_images(name)
    volume = pytsk3.FS_Info(pytsk3.Img_Info(str(image)))
    told = dict(told_by_tsk(volume.open_dir("/")))
    async with opened(image) as (fs, _):
        found = await walk(fs, fs.root)
        # TSK writes ^ for what is not ASCII, and cuts what is long.
        same = [each for each in found if each[0] in told]
        assert len(told) == len(found)
        assert len(same) > len(found) - 15
        for path, _, attributes in same:
            meta = told[path]
            if path in ("times/2038-later", "times/2099"):
                assert meta.mtime == 0, "TSK knows these now"
                continue
            assert attributes.mtime_ns == meta.mtime * 10**9, path
            assert attributes.atime_ns == meta.atime * 10**9, path
            created = meta.crtime * 10**9 + meta.crtime_nano
            assert (attributes.created_ns or 0) == created, path
            assert attributes.size == meta.size, path


# Identity


@recipes
async def test_label_and_serial_are_those_that_blkid_shows(name: str, fat_images: Images) -> None:
    require("blkid")
    image = fat_images(name)
    told = run("blkid", "--probe", "--output", "export", image)
    with FileDevice(image) as device:
        identity = await FatFilesystem.probe(device)
    assert identity is not None
    assert f"TYPE={identity.kind}\n" in told
    assert f"UUID={identity.uuid}\n" in told
    assert f"LABEL={identity.label}\n".replace(" ", "\\ ") in told
    assert identity.notes == (name.partition("_")[0].upper(),)
    assert identity.clean
    assert identity.size is not None
    assert RECIPES[name].size - 65_536 * 16 < identity.size <= RECIPES[name].size
