"""The contract of every GuestFilesystem, kept by the ext reader."""

from collections.abc import AsyncIterator

import pytest

from restorefs.guestfs.ext.reader import ExtFilesystem
from tests.contracts.guestfs import GuestFilesystemContract, Known
from tests.images.ext import RECIPES, Images, debugfs
from tests.manifest import xattrs_of_path
from tests.real.ext_trees import opened


class TestExtContract(GuestFilesystemContract):
    reader = ExtFilesystem

    @pytest.fixture(
        params=["ext2_1k", "ext3_2k", "ext4_1k_checksums", "ext4_bigalloc_4k", "ext4_inline_512"]
    )
    async def known(
        self, request: pytest.FixtureRequest, ext_images: Images
    ) -> AsyncIterator[Known]:
        name = request.param
        image = ext_images(name)
        with RECIPES[name].mounted(image) as root:
            content = (root / "sizes/300000").read_bytes()
            sparse_content = (root / "holes/every-second-block").read_bytes()
            names = frozenset(path.name.encode() for path in (root / "folders/many").iterdir())
            target = (root / "symlinks/100").readlink()
            xattrs = xattrs_of_path(bytes(root / "xattrs/several"))
        async with opened(image) as (fs, device):
            yield Known(
                fs=fs,
                device=device,
                file=b"sizes/300000",
                content=content,
                sparse=b"holes/every-second-block",
                sparse_content=sparse_content,
                folder=b"folders/many",
                names=names,
                nested=b"names/deep-0/deep-1",
                link=b"symlinks/100",
                target=bytes(target),
                attributed=b"xattrs/several",
                xattrs=xattrs,
                unused=int(debugfs(image, "find_free_inode").split(":")[1]),
            )
