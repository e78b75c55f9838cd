"""What other readers of FAT got wrong (DESIGN section 8), and what a second FAT is for.

Expected: what mtools says of the same image.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

from restorefs.block.file import FileDevice
from restorefs.errors import DamagedError, StorageError
from restorefs.guestfs.fat.reader import FatFilesystem
from tests.contracts.devices import MeteredDevice
from tests.images.fat import RECIPES, Images, clusters_of, entry_place, mtool, patch
from tests.listing import entries_of
from tests.manifest import assert_same_tree, manifest_of_guest
from tests.real.fat_trees import found_tree, opened
from tests.tools import run

SMALL = ["fat12_small", "fat16_small", "fat32_small"]
SECTOR = 512


class Tables:
    """The FATs of an image, as its boot sector says, to be written by tests."""

    def __init__(self, image: Path) -> None:
        self.image = image
        with image.open("rb") as file:
            boot = file.read(SECTOR)
        self.bits = int(image.name[3:5])
        self.reserved = int.from_bytes(boot[14:16], "little") * SECTOR
        wide = slice(36, 40) if self.bits == 32 else slice(22, 24)
        self.size = int.from_bytes(boot[wide], "little") * SECTOR
        self.count = boot[16]

    def set(self, copies: Sequence[int], values: dict[int, int]) -> None:
        """Write entries; a table is one number of entries of so many bits."""
        for copy in copies:
            start = self.reserved + copy * self.size
            with self.image.open("rb") as file:
                file.seek(start)
                table = int.from_bytes(file.read(self.size), "little")
            for number, value in values.items():
                table &= ~((1 << self.bits) - 1 << number * self.bits)
                table |= value << number * self.bits
            patch(self.image, (start, table.to_bytes(self.size, "little")))

    @property
    def end(self) -> int:
        return (1 << min(self.bits, 28)) - 1


@pytest.fixture(params=SMALL)
def image(request: pytest.FixtureRequest, fat_images: Images, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    copy = tmp_path / f"{request.param}.img"
    run("cp", "--sparse=always", "--no-preserve=mode", fat_images(request.param), copy)
    return copy


async def content(image: Path, *path: bytes) -> bytes:
    async with opened(image) as (fs, device):
        inode = fs.root
        for name in path:
            inode = await fs.lookup(inode, name)
        found = b""
        for extent in await fs.map(inode, 0, (await fs.attributes(inode)).size):
            assert extent.offset is not None
            found += await device.read(extent.offset, extent.length)
        return found


async def test_a_chain_that_leads_back_is_followed_back(image: Path, tmp_path: Path) -> None:
    """The chain 10 -> 9 was read as 10, 11."""
    clusters = clusters_of(image, "FRAGS/pieces")[::-1]
    tables = Tables(image)
    links = dict(zip(clusters, [*clusters[1:], tables.end], strict=True))
    tables.set(range(tables.count), links)
    place = entry_place(image, b"PIECES  ")
    patch(image, (place + 26, clusters[0].to_bytes(2, "little")))
    assert clusters_of(image, "FRAGS/pieces") == clusters
    mtool("mcopy", image, "::FRAGS/pieces", tmp_path / "expected")
    found = await content(image, b"FRAGS", b"pieces")
    assert found == (tmp_path / "expected").read_bytes()
    assert len(found) == 150_000


async def test_lower_case_flags_count(fat_images: Images) -> None:
    """They were ignored: all such names came in upper case."""
    image = fat_images("fat16_512")
    shown = mtool("mdir", image, "-b", "::names")
    async with opened(image) as (fs, _):
        folder = await fs.lookup(fs.root, b"names")
        listed = {entry.name: entry.inode for entry in await entries_of(fs, folder)}
        with FileDevice(image) as device:
            for name, flags in {
                b"UPPER.TXT": 0,
                b"lower.txt": 0x18,
                b"lowbase.TXT": 0x08,
                b"LOWEXT.txt": 0x10,
                b"lownoext": 0x08,
            }.items():
                entry = await device.read(listed[name] * 32, 32)
                assert entry[12] == flags
                assert entry[:8].isupper()
                assert f"/{name.decode()}\n" in shown


async def test_a_chain_in_a_circle_ends(image: Path) -> None:
    """It never ended."""
    clusters = clusters_of(image, "FRAGS/pieces")
    tables = Tables(image)
    tables.set(range(tables.count), {clusters[200]: clusters[100]})
    device = MeteredDevice(image.read_bytes(), reads=100, length=4 << 20)
    fs = await FatFilesystem.open(device)
    inode = await fs.lookup(await fs.lookup(fs.root, b"FRAGS"), b"pieces")
    readable = 201 * SECTOR
    assert sum(extent.length for extent in await fs.map(inode, 0, readable)) == readable
    for start, length in ((readable, 1), (0, readable + 1), (0, 150_000), (149_999, 1)):
        with pytest.raises(DamagedError, match="circle"):
            await fs.map(inode, start, length)


async def test_a_folder_in_a_circle_ends(image: Path) -> None:
    clusters = clusters_of(image, "many")
    tables = Tables(image)
    tables.set(range(tables.count), {clusters[-1]: clusters[0]})
    async with opened(image) as (fs, _):
        folder = await fs.lookup(fs.root, b"many")
        found: list[bytes] = []
        cookie = 0
        try:
            while True:
                entries, complete = await fs.readdir(folder, cookie)
                found += [entry.name for entry in entries]
                if complete:
                    break
                cookie = entries[-1].cookie
        except DamagedError:
            pass
        # What is not used of the last cluster says that the folder ends there.
        assert len(found) == len(set(found)) == 39
        assert (await fs.attributes(folder)).size == len(clusters) * SECTOR


# --- the second FAT -----------------------------------------------------------------------------

TWO = ["fat12_512", "fat16_512", "fat32_512", "fat32_four_fats"]


@pytest.mark.parametrize("name", TWO)
async def test_a_lost_first_fat_makes_no_difference(
    name: str, fat_images: Images, tmp_path: Path
) -> None:
    assert "-f1" not in RECIPES[name].options
    original = fat_images(name)
    copy = tmp_path / original.name
    run("cp", "--sparse=always", "--no-preserve=mode", original, copy)
    tables = Tables(copy)
    patch(copy, (tables.reserved + 8, bytes(tables.size - 8)))
    assert_same_tree(await found_tree(original), await found_tree(copy))


class BadSectors(FileDevice):
    """A file some of whose bytes cannot be read."""

    bad = range(0)

    async def _read(self, offset: int, length: int) -> bytes:
        if offset < self.bad.stop and self.bad.start < offset + length:
            raise StorageError("these sectors are bad")
        return await super()._read(offset, length)


@pytest.mark.parametrize("name", ["fat32_4k", "fat32_512", "fat16_2k"])
async def test_an_unreadable_first_fat_makes_no_difference(name: str, fat_images: Images) -> None:
    image = fat_images(name)
    expected = await found_tree(image)
    tables = Tables(image)
    with BadSectors(image) as device:
        device.bad = range(tables.reserved, tables.reserved + tables.size)
        fs = await FatFilesystem.open(device)
        assert_same_tree(expected, await manifest_of_guest(fs, device))


async def test_bad_sectors_of_both_fats_are_said(fat_images: Images) -> None:
    image = fat_images("fat32_4k")
    tables = Tables(image)
    with BadSectors(image) as device:
        device.bad = range(tables.reserved, tables.reserved + 2 * tables.size)
        with pytest.raises(StorageError):
            await FatFilesystem.open(device)
