"""Every exFAT image, compared with what exfat-fuse shows of it."""

import pytest

from restorefs.guestfs.exfat.reader import ExfatFilesystem
from tests.images.exfat import NAMES, RECIPES, TIMES_NS, Images
from tests.listing import entries_of, listings
from tests.manifest import assert_same_tree, manifest_of_guest
from tests.real.exfat_trees import IGNORED, expected_tree, found_tree, opened
from tests.tools import require, run


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "exfat_many"])
async def test_the_reader_shows_what_exfat_fuse_shows(name: str, exfat_images: Images) -> None:
    image = exfat_images(name)
    expected = expected_tree(image, RECIPES[name].sector)
    assert len(expected) > (20 if name == "exfat_32m" else 150)
    assert_same_tree(expected, await found_tree(image), ignore=IGNORED)


async def test_names_and_times_are_those_that_were_written(exfat_images: Images) -> None:
    async with opened(exfat_images("exfat_4k")) as (fs, _):
        names = await fs.lookup(fs.root, b"names")
        assert {entry.name.decode() for entry in await entries_of(fs, names)} == set(NAMES)
        times = await fs.lookup(fs.root, b"times")
        for name, time in TIMES_NS.items():
            attributes = await fs.attributes(await fs.lookup(times, name.encode()))
            assert attributes.mtime_ns == attributes.ctime_ns == time
            assert attributes.atime_ns == time - time % 2_000_000_000
            assert attributes.created_ns is not None
            assert attributes.created_ns > TIMES_NS["leap"]


@pytest.mark.parametrize("name", RECIPES)
async def test_identity_is_what_blkid_says(name: str, exfat_images: Images) -> None:
    require("blkid")
    image = exfat_images(name)
    shown = run("blkid", "--probe", "--output", "export", image).splitlines()
    expected = dict(line.split("=", 1) for line in shown)
    async with opened(image) as (fs, device):
        assert await ExfatFilesystem.probe(device) == fs.identity
    assert fs.identity.kind == expected["TYPE"]
    assert fs.identity.label == RECIPES[name].label
    if fs.identity.label.isascii():  # blkid shows others in caret notation
        assert fs.identity.label == expected.get("LABEL", "").replace("\\", "")
    assert fs.identity.uuid == expected["UUID"]
    assert fs.identity.size == RECIPES[name].size
    assert fs.identity.clean is True
    assert fs.identity.notes == ()


async def test_a_folder_of_thousands(exfat_images: Images) -> None:
    async with opened(exfat_images("exfat_many")) as (fs, device):
        many = await fs.lookup(fs.root, b"many")
        parts = [part async for part in listings(fs, many)]
        assert len(parts[0].entries) < 1000, "the first come soon"
        entries = [entry for part in parts for entry in part.entries]
        names = [b"one of very many entries, %06d" % number for number in range(5_000)]
        assert [entry.name for entry in entries] == names
        assert await entries_of(fs, many, entries[3_000].cookie) == entries[3_001:]
        assert await fs.lookup(many, names[0]) == entries[0].inode
        reads = device.reads
        for entry in entries[::50]:
            assert await fs.lookup(many, entry.name.upper()) == entry.inode
        assert device.reads < reads + 100, "each search reads a little"


async def test_the_parent_of_a_folder_nobody_came_to_from_above(exfat_images: Images) -> None:
    image = exfat_images("exfat_512")
    async with opened(image) as (fs, _):
        above = [fs.root]
        for number in range(12):
            above.append(await fs.lookup(above[-1], b"deep-%d" % number))
    async with opened(image) as (fs, _):
        for folder, parent in reversed(list(zip(above[1:], above, strict=False))):
            assert await fs.lookup(folder, b"..") == parent


async def test_every_entry_by_its_inode_alone(exfat_images: Images) -> None:
    """Also those that go on in another cluster of their folder."""
    image = exfat_images("exfat_512")
    async with opened(image) as (fs, device):
        shown = {}
        await manifest_of_guest(fs, device)
        pending = [fs.root]
        while pending:
            for entry in await entries_of(fs, pending.pop()):
                shown[entry.inode] = entry.attributes
                if entry.kind == 0o040000:
                    pending.append(entry.inode)
    assert len(shown) > 1000
    crossing = 0
    async with opened(image) as (fs, _):
        for inode, attributes in shown.items():
            assert await fs.attributes(inode) == attributes
            crossing += inode % 16 > 13
    assert crossing > 50
