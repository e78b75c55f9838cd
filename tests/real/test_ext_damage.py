"""Damaged ext structures: what they describe is lost with an error, the rest is read as before.

Where the kernel has an answer to the same damage, the trees must be equal in what they lose.
"""

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from restorefs.errors import DamagedError, NotFoundError, RestoreError
from restorefs.guestfs.base import Inode
from restorefs.guestfs.ext.reader import ExtFilesystem
from tests.images.ext import (
    I_BLOCK,
    I_FILE_ACL,
    I_MODE,
    I_SIZE,
    RECIPES,
    SUPERBLOCK,
    Images,
    block_of,
    block_size,
    debugfs,
    file_blocks,
    inode_number,
    inode_offset,
    patch,
    peek,
)
from tests.listing import entries_of
from tests.manifest import Manifest, assert_same_tree
from tests.real.ext_trees import copy_of, expected_tree, found_tree, opened

EXTENT_LEAF, EXTENT_START = I_BLOCK + 12 + 4, I_BLOCK + 12 + 8


def flip(image: Path, offset: int) -> None:
    """Change one bit."""
    patch(image, offset, bytes([peek(image, offset, 1)[0] ^ 1]))


def path_offset(image: Path, path: str) -> int:
    """Return where the first block of a path's content lies."""
    return block_of(image, path, 0) * block_size(image)


def entry_offset(image: Path, folder: str, name: bytes) -> int:
    """Return where a folder's entry begins: 8 bytes in front of its name."""
    for block in file_blocks(image, folder):
        start = block * block_size(image)
        found = peek(image, start, block_size(image)).find(name)
        if found >= 0:
            return start + found - 8
    raise AssertionError(f"{name!r} is not in {folder}")


def xattr_block_offset(image: Path, path: str) -> int:
    block = int(debugfs(image, f"stat {path}").split("File ACL:")[1].split()[0])
    assert block
    return block * block_size(image)


async def sound_rest(image: Path, name: str, ext_images: Images, lost: dict[bytes, str]) -> None:
    """Assert that a damaged image shows all that the sound one does, but for what is lost.

    lost: for each path that cannot be read, what of it ("content" ...). Everything below a folder
    whose names are lost is expected to be missing.
    """
    expected = expected_tree(ext_images(name), name)
    found = await found_tree(image)
    for path, what in lost.items():
        assert found[path].errors.keys() == {what}, path
        del found[path]
        gone = [
            each
            for each in expected
            if each == path or (what == "names" and each.startswith(path + b"/"))
        ]
        for each in gone:
            del expected[each]
    # The links of a group may have been named after one that is lost.
    assert_same_tree(expected, found, ignore=["link_group"])


async def same_as_kernel(image: Path) -> Manifest:
    """Assert that the kernel's mount of a damaged image shows the same, and loses the same."""
    expected = expected_tree(image, image.stem)
    assert_same_tree(expected, await found_tree(image))
    return expected


# Found by checksums


@pytest.mark.parametrize("field", [I_SIZE, 0x10, 0x6C, 0x88, 0x90])
async def test_an_inode_with_a_wrong_checksum(
    field: int, ext_images: Images, tmp_path: Path
) -> None:
    name = "ext4_small_checksums"
    image = copy_of(ext_images(name), tmp_path)
    flip(image, inode_offset(image, "/victim") + field)
    await sound_rest(image, name, ext_images, {b"victim": "attributes"})
    await same_as_kernel(image)
    async with opened(image) as (fs, _):
        victim = await fs.lookup(fs.root, b"victim")
        listed = {entry.name: entry for entry in await entries_of(fs, fs.root)}
        assert listed[b"victim"].attributes is None
        assert listed[b"sound"].attributes is not None
        for question in (fs.attributes(victim), fs.xattrs(victim), fs.map(victim, 0, 1)):
            with pytest.raises(DamagedError):
                await question


async def test_a_folder_block_with_a_wrong_checksum(ext_images: Images, tmp_path: Path) -> None:
    name = "ext4_small_checksums"
    image = copy_of(ext_images(name), tmp_path)
    flip(image, entry_offset(image, "/folder", b"link-7") + 8)
    await sound_rest(image, name, ext_images, {b"folder": "names"})
    await same_as_kernel(image)
    async with opened(image) as (fs, _):
        folder = await fs.lookup(fs.root, b"folder")
        with pytest.raises(DamagedError):
            await fs.lookup(folder, b"no such name")


async def test_one_damaged_block_of_a_large_folder(ext_images: Images, tmp_path: Path) -> None:
    """Names of other blocks are found; a name that may have been in it is never called missing."""
    image = copy_of(ext_images("ext4_small_checksums"), tmp_path)
    assert len(file_blocks(image, "/indexed")) > 6
    flip(image, block_of(image, "/indexed", 3) * 1024 + 20)
    present = [b"%d-" % number + b"n" * 100 for number in range(60)]
    names = present + [b"no-such-name-%d" % number for number in range(60)]
    with RECIPES["ext4_small_checksums"].mounted(image) as root:
        expected = {name: errno_of_lstat(root / "indexed" / os.fsdecode(name)) for name in names}
    assert set(expected.values()) == {0, errno.ENOENT, errno.EBADMSG}
    async with opened(image) as (fs, _):
        indexed = await fs.lookup(fs.root, b"indexed")
        sound = await fs.lookup(fs.root, b"sound")
        with pytest.raises(DamagedError):
            await entries_of(fs, indexed)
        for name in names:
            try:
                assert await fs.lookup(indexed, name) == sound
                assert expected[name] == 0
            except DamagedError:
                assert expected[name] != 0
            except NotFoundError:
                assert expected[name] == errno.ENOENT


def errno_of_lstat(path: Path) -> int:
    """Return the errno that a path gives, 0 if it is there."""
    try:
        path.lstat()
    except OSError as error:
        return error.errno or errno.EIO
    return 0


async def test_an_extent_node_with_a_wrong_checksum(ext_images: Images, tmp_path: Path) -> None:
    name = "ext4_small_checksums"
    image = copy_of(ext_images(name), tmp_path)
    (node,) = struct.unpack("<I", peek(image, inode_offset(image, "/mapped") + EXTENT_LEAF, 4))
    flip(image, node * 1024 + 40)
    await sound_rest(image, name, ext_images, {b"mapped": "content"})


async def test_an_attribute_block_with_a_wrong_checksum(ext_images: Images, tmp_path: Path) -> None:
    name = "ext4_small_checksums"
    image = copy_of(ext_images(name), tmp_path)
    flip(image, xattr_block_offset(image, "/attributes") + 1000)
    await sound_rest(image, name, ext_images, {b"attributes": "xattrs"})
    await same_as_kernel(image)


async def test_a_group_descriptor_with_a_wrong_checksum(ext_images: Images, tmp_path: Path) -> None:
    image = copy_of(ext_images("ext4_small_checksums"), tmp_path)
    flip(image, 2 * 1024 + 8)  # bg_inode_table of group 0
    with pytest.raises(DamagedError):
        async with opened(image):
            pass


async def test_a_superblock_with_a_wrong_checksum_and_no_copy(
    ext_images: Images, tmp_path: Path
) -> None:
    image = copy_of(ext_images("ext4_small_checksums"), tmp_path)
    flip(image, SUPERBLOCK + 0x10)
    with pytest.raises(DamagedError):
        async with opened(image):
            pass


@pytest.mark.parametrize("damage", ["checksum", "blank"])
async def test_a_copy_stands_in_for_a_damaged_superblock(
    damage: str, ext_images: Images, tmp_path: Path
) -> None:
    name = "ext4_1k_checksums"
    image = copy_of(ext_images(name), tmp_path)
    if damage == "checksum":
        flip(image, SUPERBLOCK + 0x10)
    else:
        patch(image, SUPERBLOCK, bytes(1024))
    async with opened(image) as (fs, device):
        identity = await ExtFilesystem.probe(device)
        assert identity == fs.identity
        assert identity.clean is None
        assert any("copy" in note for note in identity.notes)
    assert_same_tree(expected_tree(ext_images(name), name), await found_tree(image))


# Found by their meaning alone


def bad_extent_start(image: Path, inode: int) -> None:
    patch(image, inode + EXTENT_START, struct.pack("<I", 0x00FF_FFFF))


def bad_extent_magic(image: Path, inode: int) -> None:
    patch(image, inode + I_BLOCK, b"\0\0")


def too_many_extents(image: Path, inode: int) -> None:
    patch(image, inode + I_BLOCK + 2, struct.pack("<H", 5))


def extent_depth_without_node(image: Path, inode: int) -> None:
    patch(image, inode + I_BLOCK + 6, struct.pack("<H", 1))


def extent_start_beyond_48_bits(image: Path, inode: int) -> None:
    patch(image, inode + I_BLOCK + 12 + 6, struct.pack("<H", 0xFFFF))


@pytest.mark.parametrize(
    "damage",
    [
        bad_extent_start,
        bad_extent_magic,
        too_many_extents,
        extent_depth_without_node,
        extent_start_beyond_48_bits,
    ],
)
async def test_a_damaged_extent_map(
    damage: Callable[[Path, int], None], ext_images: Images, tmp_path: Path
) -> None:
    name = "ext4_small_plain"
    image = copy_of(ext_images(name), tmp_path)
    damage(image, inode_offset(image, "/victim"))
    await sound_rest(image, name, ext_images, {b"victim": "content"})


@pytest.mark.parametrize("number", [0x00FF_FFFF, 4096, 0xFFFF_FFFF])
@pytest.mark.parametrize("slot", [0, 11, 12, 13])
async def test_a_block_number_outside_the_volume(
    number: int, slot: int, ext_images: Images, tmp_path: Path
) -> None:
    name = "ext2_small"
    image = copy_of(ext_images(name), tmp_path)
    patch(image, inode_offset(image, "/mapped") + I_BLOCK + 4 * slot, struct.pack("<I", number))
    await sound_rest(image, name, ext_images, {b"mapped": "content"})


def entry_without_length(image: Path, entry: int) -> None:
    patch(image, entry + 4, struct.pack("<H", 0))


def entry_shorter_than_its_name(image: Path, entry: int) -> None:
    patch(image, entry + 4, struct.pack("<H", 12))


def entry_longer_than_its_block(image: Path, entry: int) -> None:
    patch(image, entry + 4, struct.pack("<H", 4096))


def entry_of_odd_length(image: Path, entry: int) -> None:
    patch(image, entry + 4, struct.pack("<H", 17))


def entry_without_name(image: Path, entry: int) -> None:
    patch(image, entry + 6, b"\0")


@pytest.mark.parametrize(
    "damage",
    [
        entry_without_length,
        entry_shorter_than_its_name,
        entry_longer_than_its_block,
        entry_of_odd_length,
        entry_without_name,
    ],
)
@pytest.mark.parametrize("name", ["ext2_small", "ext4_small_plain"])
async def test_a_damaged_folder_entry(
    damage: Callable[[Path, int], None], name: str, ext_images: Images, tmp_path: Path
) -> None:
    image = copy_of(ext_images(name), tmp_path)
    entry = entry_offset(image, "/folder", b"link-10")
    damage(image, entry)
    await sound_rest(image, name, ext_images, {b"folder": "names"})
    async with opened(image) as (fs, _):
        folder = await fs.lookup(fs.root, b"folder")
        sound = await fs.lookup(fs.root, b"sound")
        lost = 0
        for number in range(20):
            try:
                assert await fs.lookup(folder, b"link-%d" % number) == sound
            except DamagedError:
                lost += 1
            except NotFoundError:
                lost += 1  # Only the name that is gone is no longer there.
                assert (damage, number) == (entry_without_name, 10)
        assert lost


@pytest.mark.parametrize("inode", [3, 8, 129, 0xFFFF_FFFF])
async def test_a_folder_entry_with_an_inode_that_does_not_exist(
    inode: Inode, ext_images: Images, tmp_path: Path
) -> None:
    image = copy_of(ext_images("ext2_small"), tmp_path)
    patch(image, entry_offset(image, "/folder", b"link-10"), struct.pack("<I", inode))
    async with opened(image) as (fs, _):
        folder = await fs.lookup(fs.root, b"folder")
        try:
            entries = await entries_of(fs, folder)
        except DamagedError:
            return
        assert len(entries) == 20
        assert [e.name for e in entries if e.attributes is None] == [b"link-10"]


async def test_a_damaged_index_never_hides_a_name(ext_images: Images, tmp_path: Path) -> None:
    image = copy_of(ext_images("ext4_small_plain"), tmp_path)
    root = path_offset(image, "/indexed")
    (limit, count) = struct.unpack("<2H", peek(image, root + 0x20, 4))
    assert 2 < count < limit
    for damage in (
        struct.pack("<2H", limit, 0),
        struct.pack("<2H", limit, 0xFFFF),
        struct.pack("<2HI", limit, count, 0x00FF_FFFF),
        struct.pack("<2HI", limit, count, 0),
    ):
        patch(image, root + 0x20, damage)
        async with opened(image) as (fs, _):
            indexed = await fs.lookup(fs.root, b"indexed")
            sound = await fs.lookup(fs.root, b"sound")
            for number in range(60):
                try:
                    found = await fs.lookup(indexed, b"%d-" % number + b"n" * 100)
                except DamagedError:
                    continue
                assert found == sound


@pytest.mark.parametrize("size", [0, 1 << 31, (1 << 32) - 1])
async def test_a_link_of_impossible_length(size: int, ext_images: Images, tmp_path: Path) -> None:
    image = copy_of(ext_images("ext4_small_plain"), tmp_path)
    for path in ("/fast", "/slow"):
        patch(image, inode_offset(image, path) + I_SIZE, struct.pack("<I", size))
    async with opened(image) as (fs, device):
        for name in (b"fast", b"slow"):
            reads = device.reads
            with pytest.raises(DamagedError):
                await fs.readlink(await fs.lookup(fs.root, name))
            assert device.reads < reads + 20


@pytest.mark.parametrize("number", [4096, 0xFFFF_FFFF])
async def test_an_attribute_block_outside_the_volume(
    number: int, ext_images: Images, tmp_path: Path
) -> None:
    name = "ext4_small_plain"
    image = copy_of(ext_images(name), tmp_path)
    patch(image, inode_offset(image, "/attributes") + I_FILE_ACL, struct.pack("<I", number))
    await sound_rest(image, name, ext_images, {b"attributes": "xattrs"})


@pytest.mark.parametrize(
    ("offset", "data"),
    [
        (0, b"\0\0\0\0"),  # h_magic
        (8, b"\2\0\0\0"),  # h_blocks
        (32 + 2, b"\xff\xff"),  # e_value_offs
        (32 + 8, b"\xff\xff\xff\x7f"),  # e_value_size
        (32 + 4, b"\x0b\0\0\0"),  # e_value_inum
    ],
)
async def test_a_damaged_attribute_block(
    offset: int, data: bytes, ext_images: Images, tmp_path: Path
) -> None:
    name = "ext4_small_plain"
    image = copy_of(ext_images(name), tmp_path)
    patch(image, xattr_block_offset(image, "/attributes") + offset, data)
    await sound_rest(image, name, ext_images, {b"attributes": "xattrs"})


@pytest.mark.parametrize("mode", [0o030644, 0o110644, 0o170000])
async def test_an_inode_of_no_known_kind(mode: int, ext_images: Images, tmp_path: Path) -> None:
    name = "ext4_small_plain"
    image = copy_of(ext_images(name), tmp_path)
    patch(image, inode_offset(image, "/victim") + I_MODE, struct.pack("<H", mode))
    await sound_rest(image, name, ext_images, {b"victim": "attributes"})


async def test_a_folder_that_contains_itself_is_only_named(
    ext_images: Images, tmp_path: Path
) -> None:
    image = copy_of(ext_images("ext4_small_plain"), tmp_path)
    folder = inode_number(image, "/folder")
    patch(image, entry_offset(image, "/folder", b"link-10"), struct.pack("<IHBB", folder, 16, 7, 2))
    async with opened(image) as (fs, _):
        inode = await fs.lookup(fs.root, b"folder")
        assert await fs.lookup(inode, b"link-10") == inode


# A volume that ends too early


@pytest.mark.parametrize("part", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("name", ["ext2_4k_inode_256", "ext3_1k", "ext4_2k_inode_128"])
async def test_a_truncated_volume(
    name: str, part: float, ext_images: Images, tmp_path: Path
) -> None:
    expected = expected_tree(ext_images(name), name)
    image = copy_of(ext_images(name), tmp_path)
    with image.open("r+b") as file:
        file.truncate(int(image.stat().st_size * part))
    try:
        found = await found_tree(image)
    except RestoreError:
        return
    sound = 0
    for path, entry in found.items():
        if entry.errors:
            continue
        sound += 1
        assert_same_tree({path: expected[path]}, {path: entry}, ignore=["link_group"])
    assert sound
