"""XFS images that are damaged in one place: only what that place is about is lost."""

import struct
from pathlib import Path

import pytest

from restorefs.errors import DamagedError
from tests.images.xfs import (
    Images,
    block_offset,
    blocks_of,
    inode_place,
    next_inode,
    patch,
    peek,
    xfs_db,
)
from tests.listing import entries_of
from tests.manifest import assert_same_tree
from tests.real.xfs_trees import copy_of, expected_tree, found_tree, opened

NAME = "xfs_small"
BLOCK, FOLDER_BLOCK = 1024, 4096
INDEX = (1 << 35) // BLOCK


@pytest.fixture
def image(xfs_images: Images, tmp_path: Path) -> Path:
    return copy_of(xfs_images(NAME), tmp_path)


def place(image: Path, path: str, number: int = 0, fork: str = "") -> int:
    """Return where a block of a file, a folder, or of their attributes lies."""
    for offset, block, count, _ in blocks_of(image, next_inode(image, path), fork):
        if offset <= number < offset + count:
            return block_offset(image, block + number - offset)
    raise AssertionError(f"{path} has no block {number}")


def tree_block(image: Path, path: str) -> int:
    """Return where the first leaf of a file's tree of extents lies."""
    said = xfs_db(image, f"inode {next_inode(image, path)}", "print u3")
    return block_offset(image, int(said.split("ptrs[1-")[1].split("1:")[1].split()[0]))


def flip(image: Path, offset: int) -> None:
    patch(image, offset, bytes([peek(image, offset, 1)[0] ^ 0x10]))


async def assert_lost(
    image: Path, images: Images, lost: dict[bytes, str], below: bytes = b"\0"
) -> None:
    """Compare with the sound image: `lost` says which path lost what; what is below a path is not
    seen."""
    expected = expected_tree(images(NAME), NAME)
    found = await found_tree(image)
    assert {path: ",".join(entry.errors) for path, entry in found.items() if entry.errors} == lost
    for path in lost:
        del found[path], expected[path]
    for path in [path for path in expected if path.startswith(below + b"/")]:
        del expected[path]
    assert_same_tree(expected, found)


@pytest.mark.parametrize("path", ["block", "leaf", "node"])
@pytest.mark.parametrize("at", [0, 10, 30, 300, 900])
async def test_a_block_of_names(path: str, at: int, image: Path, xfs_images: Images) -> None:
    flip(image, place(image, f"/{path}") + at)
    await assert_lost(image, xfs_images, {path.encode(): "names"}, below=path.encode())


@pytest.mark.parametrize("path", ["leaf", "node"])
async def test_an_index_of_names(path: str, image: Path, xfs_images: Images) -> None:
    flip(image, place(image, f"/{path}", INDEX) + 100)
    await assert_lost(image, xfs_images, {})


async def test_a_block_of_names_that_belongs_to_another_folder(
    image: Path, xfs_images: Images
) -> None:
    patch(image, place(image, "/leaf"), peek(image, place(image, "/node"), FOLDER_BLOCK))
    await assert_lost(image, xfs_images, {b"leaf": "names"}, below=b"leaf")


async def test_a_block_of_names_that_belongs_elsewhere_in_the_folder(
    image: Path, xfs_images: Images
) -> None:
    patch(image, place(image, "/node", 4), peek(image, place(image, "/node"), FOLDER_BLOCK))
    await assert_lost(image, xfs_images, {b"node": "names"}, below=b"node")


async def test_a_file_s_inode(image: Path, xfs_images: Images) -> None:
    flip(image, inode_place(image, next_inode(image, "/list")) + 60)
    await assert_lost(image, xfs_images, {b"list": "attributes"})
    async with opened(image) as (fs, _):
        entries = {entry.name: entry for entry in await entries_of(fs, fs.root)}
        assert entries[b"list"].attributes is None
        assert entries[b"tree"].attributes is not None


async def test_another_file_s_record(image: Path, xfs_images: Images) -> None:
    offset = inode_place(image, next_inode(image, "/list"))
    patch(image, offset, peek(image, inode_place(image, next_inode(image, "/tree")), 512))
    await assert_lost(image, xfs_images, {b"list": "attributes"})


async def test_a_tree_of_extents(image: Path, xfs_images: Images) -> None:
    flip(image, tree_block(image, "/tree") + 500)
    await assert_lost(image, xfs_images, {b"tree": "content"})


async def test_a_long_link(image: Path, xfs_images: Images) -> None:
    flip(image, place(image, "/long-link") + 200)
    await assert_lost(image, xfs_images, {b"long-link": "target"})


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_a_block_of_attributes(number: int, image: Path, xfs_images: Images) -> None:
    flip(image, place(image, "/list", number, "-a") + 900)
    await assert_lost(image, xfs_images, {b"list": "xattrs"})


async def test_a_large_attribute(image: Path, xfs_images: Images) -> None:
    last = max(offset + count for offset, _, count, _ in attribute_blocks(image, "/tree"))
    flip(image, place(image, "/tree", last - 1, "-a") + 100)
    await assert_lost(image, xfs_images, {b"tree": "xattrs"})


def attribute_blocks(image: Path, path: str) -> list[tuple[int, int, int, bool]]:
    return blocks_of(image, next_inode(image, path), "-a")


@pytest.mark.parametrize("what", ["header", "tree"])
async def test_what_says_which_inodes_are_used(what: str, image: Path, xfs_images: Images) -> None:
    """Records can speak for themselves then."""
    header = 2 * 512
    (root,) = struct.unpack(">I", peek(image, header + 20, 4))
    flip(image, header + 30 if what == "header" else root * BLOCK + 60)
    await assert_lost(image, xfs_images, {})


async def test_the_log(image: Path, xfs_images: Images) -> None:
    (start,) = struct.unpack(">Q", peek(image, 48, 8))
    patch(image, block_offset(image, start), bytes(4 << 20))
    async with opened(image) as (fs, _):
        assert fs.identity.clean is False
    await assert_lost(image, xfs_images, {})


async def test_the_root(image: Path) -> None:
    (root,) = struct.unpack(">Q", peek(image, 56, 8))
    flip(image, inode_place(image, root) + 60)
    with pytest.raises(DamagedError):
        async with opened(image):
            pass
