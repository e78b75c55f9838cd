"""The contract of every GuestFilesystem, kept by the XFS reader."""

from collections.abc import AsyncIterator

import pytest

from restorefs.guestfs.xfs.reader import XfsFilesystem
from tests.contracts.guestfs import GuestFilesystemContract, Known
from tests.images.xfs import RECIPES, Images, free_inode
from tests.manifest import xattrs_of_path
from tests.real.xfs_trees import opened


class TestXfsContract(GuestFilesystemContract):
    reader = XfsFilesystem

    @pytest.fixture(params=["xfs_1k", "xfs_2k_plain", "xfs_inode_2048", "xfs_nrext64"])
    async def known(
        self, request: pytest.FixtureRequest, xfs_images: Images
    ) -> AsyncIterator[Known]:
        name = request.param
        image = xfs_images(name)
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
                unused=free_inode(image),
            )
