"""Fixtures of the ring of real programs; each is owned by the module it comes from."""

import pytest

pytest.register_assert_rewrite("tests.contracts.catalog")

from tests.images.ntfs import ntfs_images  # noqa: E402
from tests.mariadb import mariadb  # noqa: E402

__all__ = ["mariadb", "ntfs_images"]
