"""The wrong answers that other readers gave for legal ext images, each a case of its own.

DESIGN section 8 lists them under "ext". The kernel gives the right answers; what made the wrong
one wrong is also said here in so many words.
"""

import struct
from pathlib import Path

import pytest

from restorefs.errors import DamagedError
from tests.images import tree
from tests.images.ext import I_BLOCK, Images, inode_offset, patch, peek
from tests.listing import entries_of
from tests.manifest import Manifest, assert_same_tree
from tests.real.ext_trees import copy_of, expected_tree, found_tree, opened


async def same_below(image: Path, path: bytes) -> Manifest:
    """Return the part of a tree at a path, after comparing it with the kernel's."""
    expected = expected_tree(image, image.stem, path)
    found = await found_tree(image, path)
    assert not any(entry.errors for entry in expected.values())
    assert_same_tree(expected, found)
    return found


@pytest.mark.parametrize("name", ["ext4_inline_256", "ext4_inline_512", "ext4_inline_1024"])
async def test_inline_data_over_60_bytes(name: str, ext_images: Images) -> None:
    found = await same_below(ext_images(name), b"inline-files")
    # The kernel counts one unit of 512 bytes for them; with a block they would have at least two.
    inline = [entry for entry in found.values() if entry.blocks == 1 and entry.size > 60]
    assert len(inline) > 40


@pytest.mark.parametrize("name", ["ext4_inline_256", "ext4_inline_512", "ext4_inline_1024"])
async def test_inline_folders(name: str, ext_images: Images) -> None:
    found = await same_below(ext_images(name), b"inline-folders")
    for count in (0, 1, 3, 5, 8, 24, 60):
        folder = b"inline-folders/with-%d" % count
        assert {path for path in found if path.startswith(folder + b"/")} == {
            b"%s/%03d" % (folder, number) for number in range(count)
        }
    assert found[b"inline-folders/with-5"].blocks == 0


@pytest.mark.parametrize("name", ["ext2_1k", "ext4_1k_old_features", "ext4_1k_checksums"])
async def test_last_entry_at_the_end_of_a_block(name: str, ext_images: Images) -> None:
    image = ext_images(name)
    for folder, last in ((b"full-block-0", b"z" * 4), (b"full-block-1", b"z" * 200)):
        found = await same_below(image, folder)
        assert folder + b"/" + last in found


@pytest.mark.parametrize("name", ["ext2_1k", "ext2_4k_inode_256", "ext3_1k"])
async def test_sparse_tail_is_zeros_and_not_the_boot_block(name: str, ext_images: Images) -> None:
    image = ext_images(name)
    assert peek(image, 0, 1024) == b"BOOT" * 256
    found = await same_below(image, b"holes")
    for path in (b"holes/behind", b"holes/behind-one-byte", b"holes/only"):
        segments = found[path].segments
        assert segments is not None
        assert not segments or segments[-1][1] < found[path].size


@pytest.mark.parametrize(
    "name", ["ext2_1k", "ext3_1k", "ext3_2k", "ext3_4k_over_4_gib", "ext4_from_ext3"]
)
async def test_holes_of_every_level_of_indirect_blocks(name: str, ext_images: Images) -> None:
    found = await same_below(ext_images(name), b"indirect-holes")
    assert found[b"indirect-holes"].segments is not None
    assert len(found[b"indirect-holes"].segments) >= 8


async def test_ext3_files_over_4_gib(ext_images: Images) -> None:
    image = ext_images("ext3_4k_over_4_gib")
    found = await same_below(image, b".")
    assert found[b"at-4-gib"].size == (1 << 32) + 100_000
    async with opened(image) as (fs, device):
        inode = await fs.lookup(fs.root, b"at-4-gib")
        content = b""
        for extent in await fs.map(inode, (1 << 32) - 8, 32):
            assert extent.offset is not None
            content += await device.read(extent.offset, extent.length)
    assert content == bytes(5) + b"before and after" + bytes(11)


@pytest.mark.parametrize("name", ["ext2_last_inode", "ext4_last_inode"])
async def test_a_file_on_the_last_inode(name: str, ext_images: Images) -> None:
    image = ext_images(name)
    (last,) = struct.unpack("<I", peek(image, 1024, 4))  # s_inodes_count
    await same_below(image, b".")
    async with opened(image) as (fs, _):
        names = {entry.inode: entry.name for entry in await entries_of(fs, fs.root)}
        assert names[last].startswith(b"file-")
        assert (await fs.attributes(last)).inode == last


@pytest.mark.parametrize("extra", [0, 4, 24, 28, 32])
@pytest.mark.parametrize("name", ["ext4_extra_isize", "ext4_extra_isize_512"])
async def test_attributes_behind_an_extra_isize(name: str, extra: int, ext_images: Images) -> None:
    image = ext_images(name)
    found = await same_below(image, b"attributes-%d" % extra)
    found |= await same_below(image, b"block-%d" % extra)
    assert found[b"block-%d" % extra].xattrs[b"user.large"] == b"L" * 300
    if extra:  # With no extra size there is no room for attributes in the inode.
        assert found[b"attributes-%d" % extra].xattrs == {
            b"user.a": b"value-a",
            b"user.b": b"value-b",
        }


@pytest.mark.parametrize("name", ["ext4_times", "ext3_times_inode_128"])
async def test_times_before_1970_and_after_2038(name: str, ext_images: Images) -> None:
    image = ext_images(name)
    found = await same_below(image, b".")
    assert found[b"times/1901"].mtime_ns == tree.TIMES_NS[b"1901"]
    if name == "ext4_times":
        for each in (b"1969", b"1960", b"2038-later", b"2106-later", b"2446"):
            assert found[b"times/" + each].mtime_ns == tree.TIMES_NS[each]


@pytest.mark.parametrize("name", ["ext2_1k", "ext4_default", "ext4_inline_256"])
async def test_names_that_are_not_utf_8(name: str, ext_images: Images) -> None:
    found = await same_below(ext_images(name), b"names")
    for each in tree.ODD_NAMES:
        assert b"names/" + each in found


@pytest.mark.parametrize(
    ("root_depth", "node_depth"), [(1, 1), (2, 1), (5, 4), (5, 5), (0xFFFF, 0xFFFE)]
)
async def test_a_self_pointing_extent_node(
    root_depth: int, node_depth: int, ext_images: Images, tmp_path: Path
) -> None:
    name = "ext4_small_plain"
    image = copy_of(ext_images(name), tmp_path)
    root = inode_offset(image, "/mapped") + I_BLOCK
    magic, entries, _, depth = struct.unpack("<4H", peek(image, root, 8))
    assert (magic, entries >= 1, depth) == (0xF30A, True, 1)
    _, node = struct.unpack("<2I", peek(image, root + 12, 8))  # ei_block, ei_leaf_lo
    patch(image, root + 6, struct.pack("<H", root_depth))
    header = struct.pack("<4HI", 0xF30A, 1, 84, node_depth, 0)
    patch(image, node * 1024, header + struct.pack("<2I2H", 0, node, 0, 0))
    async with opened(image) as (fs, device):
        mapped = await fs.lookup(fs.root, b"mapped")
        size = (await fs.attributes(mapped)).size
        reads = device.reads
        with pytest.raises(DamagedError):
            await fs.map(mapped, 0, size)
        assert device.reads < reads + 20
    expected = expected_tree(ext_images(name), name)
    found = await found_tree(image)
    assert found.pop(b"mapped").errors.keys() == {"content"}
    del expected[b"mapped"]
    assert_same_tree(expected, found)
