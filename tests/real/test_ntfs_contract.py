"""The contract of every GuestFilesystem, kept by the NTFS reader."""

import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from restorefs.guestfs.ntfs.reader import NtfsFilesystem
from tests.contracts.guestfs import GuestFilesystemContract, Known
from tests.images.ntfs import Images, readable
from tests.manifest import Entry, manifest_of_path
from tests.real.ntfs_trees import check_dosattrib, opened, restate
from tests.tools import require

ATTRIBUTED = b"streams/several"


class TestNtfsContract(GuestFilesystemContract):
    reader = NtfsFilesystem

    @pytest.fixture(params=["ntfs_1k", "ntfs_512", "ntfs_64k", "ntfs_sector_4k"])
    async def known(
        self, request: pytest.FixtureRequest, ntfs_images: Images
    ) -> AsyncIterator[Known]:
        image = ntfs_images(request.param)
        with readable(image) as root:
            content = (root / "sizes/300000").read_bytes()
            sparse_content = (root / "holes/many").read_bytes()
            names = frozenset(path.name.encode() for path in (root / "folders/many").iterdir())
            target = (root / "wsl/symlink").readlink()
            xattrs = told(root)
        async with opened(image) as (fs, device):
            # What Samba reads has no counterpart in ntfs-3g: it is checked against the others.
            streams = await fs.lookup(fs.root, b"streams")
            found = await fs.xattrs(await fs.lookup(streams, b"several"))
            check_dosattrib(found[b"user.DOSATTRIB"], xattrs)
            yield Known(
                fs=fs,
                device=device,
                file=b"sizes/300000",
                content=content,
                sparse=b"holes/many",
                sparse_content=sparse_content,
                folder=b"folders/many",
                names=names,
                nested=b"names/deep-0/deep-1",
                link=b"wsl/symlink",
                target=bytes(target),
                attributed=ATTRIBUTED,
                xattrs=xattrs | {b"user.DOSATTRIB": found[b"user.DOSATTRIB"]},
                unused=unused_record(image),
            )

    async def test_having_no_xattrs_costs_no_read(self, known: Known) -> None:
        """No file has none: but what it has lies in its record, or is shared by many."""
        inode = await known.find(known.file)
        found = await known.fs.xattrs(inode)
        reads = known.device.reads
        assert await known.fs.xattrs(inode) == found
        assert known.device.reads == reads


def told(root: Path) -> dict[bytes, bytes]:
    """Return the extended attributes that ntfs-3g says of the attributed file."""
    entry: Entry = manifest_of_path(root, b"streams")[ATTRIBUTED]
    restate(entry, os.fsencode(root) + b"/" + ATTRIBUTED)
    return dict(entry.xattrs)


def unused_record(image: Path) -> int:
    """Return a file record behind those of the system that the MFT's bitmap calls free."""
    require("ntfscat")
    bitmap = subprocess.run(
        ["ntfscat", "--inode", "0", "--attribute", "0xb0", image], capture_output=True, check=True
    ).stdout
    bits = (
        number
        for number in range(64, len(bitmap) * 8)
        if not bitmap[number >> 3] >> (number & 7) & 1
    )
    return next(bits)
