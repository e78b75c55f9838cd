"""Every ext image, compared with the kernel's own mount of it in everything that can be seen."""

import ctypes
import os
import stat

import pytest

from restorefs.guestfs.ext.reader import ExtFilesystem
from tests.images.ext import RECIPES, Images, debugfs
from tests.listing import entries_of, listings
from tests.manifest import assert_same_tree
from tests.real.ext_trees import expected_tree, found_tree, opened
from tests.tools import require, run

COMPARED_APART = ("ext4_encrypted", "ext4_three_index_levels")


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in COMPARED_APART])
async def test_the_reader_shows_what_the_kernel_shows(name: str, ext_images: Images) -> None:
    image = ext_images(name)
    expected = expected_tree(image, name)
    assert len(expected) > 3
    assert not any(entry.errors for entry in expected.values())
    assert_same_tree(expected, await found_tree(image))


async def test_encrypted_folders_as_the_kernel_shows_them_without_the_key(
    ext_images: Images,
) -> None:
    image = ext_images("ext4_encrypted")
    expected = expected_tree(image, "ext4_encrypted")
    unread = {path for path, entry in expected.items() if "content" in entry.errors}
    assert len(unread) > 800
    links = [entry for entry in expected.values() if entry.target is not None]
    assert len(links) == 4
    for entry in links:
        # The kernel shows an encoding of the encrypted target, a path that leads nowhere; the
        # reader says that it cannot read it.
        entry.target = None
        entry.errors["target"] = "EOPNOTSUPP"
    assert_same_tree(expected, await found_tree(image))


async def test_a_folder_with_three_index_levels(ext_images: Images) -> None:
    name = "ext4_three_index_levels"
    image = ext_images(name)
    with RECIPES[name].mounted(image) as root:
        expected = {each.name.encode(): each.inode() for each in os.scandir(root / "large")}
    async with opened(image) as (fs, _):
        large = await fs.lookup(fs.root, b"large")
        parts = [part async for part in listings(fs, large)]
        assert len(parts[0].entries) < 1000, "the first come soon"
        assert all(len(part.entries) < 10_000 for part in parts)
        entries = [entry for part in parts for entry in part.entries]
        assert len(entries) == len(expected) == 42_000
        assert {entry.name: entry.inode for entry in entries} == expected
        for entry in entries[::2000]:
            assert await fs.lookup(large, entry.name) == entry.inode
        assert await entries_of(fs, large, entries[30_000].cookie) == entries[30_001:]


class Statx(ctypes.Structure):
    """What statx(2) fills, as far as the time of creation."""

    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("before", ctypes.c_byte * 76),
        ("created_s", ctypes.c_int64),
        ("created_ns", ctypes.c_uint32),
        ("after", ctypes.c_byte * 164),
    )


STATX_BTIME = 0x800
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100


def created_ns(path: bytes) -> int | None:
    """Return when the kernel says a file was created, None where it cannot say."""
    libc = ctypes.CDLL(None, use_errno=True)
    found = Statx()
    result = libc.statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_BTIME, ctypes.byref(found))
    assert result == 0, os.strerror(ctypes.get_errno())
    if not found.mask & STATX_BTIME:
        return None
    return int(found.created_s) * 10**9 + int(found.created_ns)


@pytest.mark.parametrize(
    "name",
    ["ext4_default", "ext4_times", "ext3_times_inode_128", "ext4_extra_isize", "ext2_small"],
)
async def test_inode_numbers_and_creation_times(name: str, ext_images: Images) -> None:
    image = ext_images(name)
    async with opened(image) as (fs, _):
        with RECIPES[name].mounted(image) as root:
            checked = 0
            pending = [(os.fsencode(root), fs.root)]
            while pending:
                path, inode = pending.pop()
                assert inode == os.lstat(path).st_ino
                attributes = await fs.attributes(inode)
                assert attributes.created_ns == created_ns(path), path
                checked += 1
                if stat.S_ISDIR(attributes.mode):
                    entries = await entries_of(fs, inode)
                    pending += ((path + b"/" + each.name, each.inode) for each in entries)
            assert checked > 20


@pytest.mark.parametrize("name", RECIPES)
async def test_identity_is_what_blkid_says(name: str, ext_images: Images) -> None:
    require("blkid")
    image = ext_images(name)
    shown = run("blkid", "--probe", "--output", "export", image).splitlines()
    expected = dict(line.split("=", 1) for line in shown)
    async with opened(image) as (fs, device):
        identity = fs.identity
        assert await ExtFilesystem.probe(device) == identity
    assert identity.kind == expected["TYPE"]
    assert identity.label == expected.get("LABEL", "").replace("\\", "")
    assert identity.uuid == expected["UUID"]
    statistics = debugfs(image, "stats")
    blocks, block_size = (
        int(statistics.split(f"{field}:")[1].split()[0]) for field in ("Block count", "Block size")
    )
    assert identity.size == blocks * block_size
    features = debugfs(image, "features").split()
    assert identity.clean == ("needs_recovery" not in features)
    assert any("recovery" in note for note in identity.notes) == ("needs_recovery" in features)
