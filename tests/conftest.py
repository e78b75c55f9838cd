"""Fixtures that more than one ring uses; each is owned by the module it comes from."""

import hypothesis
import pytest

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("restorefs", deadline=None)
hypothesis.settings.load_profile("restorefs")
pytest.register_assert_rewrite("tests.contracts", "tests.images", "tests.manifest")

from tests.images.exfat import exfat_images  # noqa: E402
from tests.images.ext import ext_images  # noqa: E402
from tests.images.fat import fat_images  # noqa: E402
from tests.images.xfs import xfs_images  # noqa: E402

__all__ = ["exfat_images", "ext_images", "fat_images", "xfs_images"]
