"""Every XFS image, compared with the kernel's own mount of it in everything that can be seen."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.images.xfs import RECIPES, Images
from tests.manifest import Manifest, assert_same_tree
from tests.real.xfs_trees import expected_tree, found_tree
from tests.tools import require, run


@pytest.mark.parametrize("name", RECIPES)
async def test_the_reader_shows_what_the_kernel_shows(name: str, xfs_images: Images) -> None:
    image = xfs_images(name)
    expected = expected_tree(image, name)
    assert len(expected) > 3
    assert not any(entry.errors for entry in expected.values())
    assert_same_tree(expected, await found_tree(image))


def without_content(manifest: Manifest) -> Manifest:
    return {path: replace(entry, digest=None) for path, entry in manifest.items()}


@pytest.mark.parametrize(
    "name", ["xfs_default", "xfs_1k", "xfs_folder_blocks_8k", "xfs_many_inodes", "xfs_aged_1k"]
)
async def test_what_xfs_metadump_and_mdrestore_make_of_an_image(
    name: str, xfs_images: Images, tmp_path: Path
) -> None:
    """As support is sent them: all the metadata of an image, and none of its content."""
    require("xfs_metadump", "xfs_mdrestore")
    image = xfs_images(name)
    dump, restored = tmp_path / "dump", tmp_path / "restored"
    run("xfs_metadump", "-o", "-a", image, dump)
    run("xfs_mdrestore", dump, restored)
    expected = without_content(expected_tree(image, name))
    assert_same_tree(expected, without_content(await found_tree(restored)))
