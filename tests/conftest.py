"""Fixtures that more than one ring uses; each is owned by the module it comes from."""

import pytest

pytest.register_assert_rewrite("tests.contracts", "tests.images", "tests.manifest")

from tests.images.ext import ext_images  # noqa: E402

__all__ = ["ext_images"]
