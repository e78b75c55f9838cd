"""A journal on another disk of the backup is found by the file system's UUID."""

from pathlib import Path

import pytest

from restorefs.catalog.records import DiskRecord
from restorefs.guestfs.base import Identity
from tests.images.xfs import Images, log_of, xfs_images
from tests.real.attached import disk_record, qcow2, running_pool

__all__ = ["xfs_images"]


async def identity_of(disks: list[DiskRecord]) -> Identity:
    """Return what is known of the first disk's file system once it has been opened."""
    async with running_pool(disks=disks) as pool, pool.use(disks[0]) as disk:
        assert disk.whole is not None
        filesystem = (await disk.guest(0)).filesystem
        assert disk.whole.identity == filesystem.identity
        return filesystem.identity


@pytest.mark.parametrize(
    ("name", "clean"), [("xfs_external_log", True), ("xfs_external_dirty", False)]
)
async def test_a_journal_on_another_disk_is_looked_at(
    name: str, clean: bool, xfs_images: Images, tmp_path: Path
) -> None:
    image = xfs_images(name)
    disks = [
        disk_record(qcow2(image, tmp_path / "0.qcow2")),
        disk_record(tmp_path / "gone.qcow2", 2, index=1),
        disk_record(qcow2(log_of(image), tmp_path / "2.qcow2"), 3, index=2),
    ]
    identity = await identity_of(disks)
    assert identity.clean is clean
    assert ("journal needs recovery" in identity.notes) is not clean
    assert (await identity_of(disks[:2])).clean is None, "nobody has seen it"
