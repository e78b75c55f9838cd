"""The contract of every GuestFilesystem, kept by the FAT reader."""

from collections.abc import AsyncIterator

import pytest

from restorefs.guestfs.fat.reader import FatFilesystem
from tests.contracts.guestfs import GuestFilesystemContract, Known
from tests.images.fat import Images, entry_place
from tests.real.fat_trees import opened

ALL_ATTRIBUTES = bytes.fromhex(
    "3078323700000300030000001100000027000000000000000000000000000000"
    "00000000000000002097ef15b410d7010000000000000000"
)
"""What Samba's own library (samba.dcerpc.xattr of python3-samba 4.17) makes of read-only, hidden,
system and archive, and of tests.images.fat's CREATED."""


class TestFatContract(GuestFilesystemContract):
    reader = FatFilesystem

    @pytest.fixture(
        params=["fat12_1k_one_fat", "fat16_512", "fat32_512", "fat32_64k", "fat32_sectors_4k"]
    )
    async def known(
        self, request: pytest.FixtureRequest, fat_images: Images
    ) -> AsyncIterator[Known]:
        image = fat_images(request.param)
        tree = fat_images.extracted(request.param)
        async with opened(image) as (fs, device):
            yield Known(
                fs=fs,
                device=device,
                file=b"NOXATTR",
                content=(tree / "NOXATTR").read_bytes(),
                sparse=b"FRAGS/pieces",
                sparse_content=(tree / "FRAGS/pieces").read_bytes(),
                has_holes=False,
                folder=b"many",
                names=frozenset(path.name.encode() for path in (tree / "many").iterdir()),
                nested=b"A long folder name/below",
                link=None,
                target=None,
                attributed=b"attributes/all",
                xattrs={b"user.DOSATTRIB": ALL_ATTRIBUTES},
                # The entry that is deleted behind one that is there.
                unused=entry_place(image, b"\xe5ELETED ") // 32,
            )
