"""Every XFS image, compared with the kernel's own mount of it in everything that can be seen."""

import pytest

from tests.images.xfs import RECIPES, Images
from tests.manifest import assert_same_tree
from tests.real.xfs_trees import expected_tree, found_tree


@pytest.mark.parametrize("name", RECIPES)
async def test_the_reader_shows_what_the_kernel_shows(name: str, xfs_images: Images) -> None:
    image = xfs_images(name)
    expected = expected_tree(image, name)
    assert len(expected) > 3
    assert not any(entry.errors for entry in expected.values())
    assert_same_tree(expected, await found_tree(image))
