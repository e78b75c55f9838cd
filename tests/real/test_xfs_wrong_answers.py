"""The wrong answers that other readers gave for legal XFS images, each a case of its own.

DESIGN section 8 lists them under "XFS". The kernel gives the right answers; what made the wrong
one wrong is also said here in so many words.
"""

from pathlib import Path

import pytest

from restorefs.errors import NotFoundError, UnsupportedError
from restorefs.guestfs.xfs.reader import XfsFilesystem
from tests.images.xfs import (
    PARENT,
    Images,
    block_offset,
    blocks_of,
    inode_place,
    next_inode,
    patch,
    peek,
    set_incompat,
    xfs_db,
)
from tests.listing import entries_of
from tests.manifest import Manifest, assert_same_tree
from tests.real.xfs_trees import copy_of, expected_tree, found_tree, opened


async def same_below(image: Path, path: bytes) -> Manifest:
    """Return the part of a tree at a path, after comparing it with the kernel's."""
    expected = expected_tree(image, image.stem, path)
    found = await found_tree(image, path)
    assert not any(entry.errors for entry in expected.values())
    assert_same_tree(expected, found)
    return found


@pytest.mark.parametrize("name", ["xfs_default", "xfs_1k"])
async def test_unwritten_extents_are_zeros_and_not_stale_data(
    name: str, xfs_images: Images, tmp_path: Path
) -> None:
    image = copy_of(xfs_images(name), tmp_path)
    for each in ("whole", "part"):
        extents = blocks_of(image, next_inode(image, f"/unwritten/{each}"))
        size = image_block_size(image)
        unwritten = [extent for extent in extents if extent[3]]
        assert unwritten
        for _, block, count, _ in unwritten:
            patch(image, block_offset(image, block), b"stale!!!" * (count * size // 8))
    found = await same_below(image, b"unwritten")
    assert found[b"unwritten/whole"].segments == ()


def image_block_size(image: Path) -> int:
    return int.from_bytes(peek(image, 4, 4), "big")


async def test_all_of_2500_entries_of_folders_in_large_blocks(xfs_images: Images) -> None:
    image = xfs_images("xfs_folder_blocks_64k")
    found = await same_below(image, b"folders/many")
    assert len(found) == 2501
    assert {b"folders/many/entry-%d" % number for number in range(2500)} < found.keys()


async def test_a_folder_block_in_several_pieces(xfs_images: Images) -> None:
    image = xfs_images("xfs_folder_blocks_scattered")
    extents = blocks_of(image, next_inode(image, "/scattered"))
    assert any(count % 8 for _, _, count, _ in extents), "no folder block is in pieces"
    found = await same_below(image, b"scattered")
    assert len(found) == 1001


@pytest.mark.parametrize("name", ["xfs_default", "xfs_1k", "xfs_inode_2048"])
async def test_long_symlinks_without_their_headers(name: str, xfs_images: Images) -> None:
    image = xfs_images(name)
    inode = next_inode(image, "/symlinks/1023")
    if name != "xfs_inode_2048":
        start = block_offset(image, blocks_of(image, inode)[0][1])
        assert peek(image, start, 4) == b"XSLM"
    found = await same_below(image, b"symlinks")
    target = found[b"symlinks/1023"].target
    assert target is not None
    assert len(target) == 1023
    assert b"XSLM" not in target


@pytest.mark.parametrize("name", ["xfs_default", "xfs_1k", "xfs_nrext64", "xfs_parents"])
async def test_large_attributes_without_their_headers(name: str, xfs_images: Images) -> None:
    found = await same_below(xfs_images(name), b"many-xattrs")
    largest = found[b"many-xattrs/value-of-65536"].xattrs
    assert {len(value) for value in largest.values()} == {65_536}
    assert len(found[b"many-xattrs/1500"].xattrs) == 1500


async def test_parents_are_no_attributes(xfs_images: Images) -> None:
    found = await same_below(xfs_images("xfs_parents"), b"sizes")
    assert not any(entry.xattrs for entry in found.values())


@pytest.mark.parametrize(
    ("bit", "named"),
    [(1 << 31, "bit 0x80000000"), (1 << 12, "bit 0x1000"), (0x200, "zoned"), (0x400, "zone gaps")],
)
async def test_unknown_features_are_refused_by_name(
    bit: int, named: str, xfs_images: Images, tmp_path: Path
) -> None:
    image = copy_of(xfs_images("xfs_small"), tmp_path)
    set_incompat(image, bit | PARENT)
    with pytest.raises(UnsupportedError, match=f": {named}$"):
        async with opened(image):
            pass


async def test_unknown_features_that_only_matter_to_writers_are_not_refused(
    xfs_images: Images, tmp_path: Path
) -> None:
    image = copy_of(xfs_images("xfs_small"), tmp_path)
    set_ro_compat(image, 1 << 20)
    async with opened(image) as (fs, device):
        assert "unknown read-only features: bit 0x100000" in fs.identity.notes
        assert await entries_of(fs, fs.root)
        assert await XfsFilesystem.probe(device) == fs.identity


def set_ro_compat(image: Path, bit: int) -> None:
    old = int.from_bytes(peek(image, 212, 4), "big")
    xfs_db(image, "sb 0", f"write -d features_ro_compat {old | bit:#x}", write=True)


async def test_an_inode_in_a_chunk_that_was_given_back_is_not_shown(xfs_images: Images) -> None:
    image = xfs_images("xfs_given_back")
    gone = [int(line) for line in image.with_suffix(".gone").read_text().split()]
    still_there = 0
    async with opened(image) as (fs, _):
        assert fs.identity.clean
        for inode in gone[::25]:
            offset = inode_place(image, inode)
            still_there += peek(image, offset, 2) == b"IN" and peek(image, offset + 2, 2) != b"\0\0"
            with pytest.raises(NotFoundError):
                await fs.attributes(inode)
    assert still_there, "no record of the past is left that could mislead"
