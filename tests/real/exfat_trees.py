"""Trees of one exFAT image, as exfat-fuse shows it and as the reader does.

Owns opening both sides; the comparison is tests/manifest.py's. Concurrency: none.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from restorefs.block.file import FileDevice
from restorefs.guestfs.exfat.reader import ExfatFilesystem
from tests.contracts.devices import MemoryDevice, WatchedDevice
from tests.images.exfat import Image, mounted
from tests.manifest import Manifest, manifest_of_guest, manifest_of_path

IGNORED = ("xattrs",)
"""What exfat-fuse does not show."""


def expected_tree(image: Path, sector: int = 512) -> Manifest:
    """Return the manifest by exfat-fuse."""
    with mounted(image, sector) as root:
        expected = manifest_of_path(root)
    for entry in expected.values():
        assert entry.errors.pop("xattrs") == "ENOTSUP"
        assert not entry.errors
    return expected


async def found_tree(image: Path) -> Manifest:
    """Return the manifest by the reader."""
    async with opened(image) as (fs, device):
        return await manifest_of_guest(fs, device)


@asynccontextmanager
async def opened(image: Path) -> AsyncIterator[tuple[ExfatFilesystem, WatchedDevice]]:
    """Open an image with the reader."""
    with FileDevice(image) as file:
        device = WatchedDevice(file)
        yield await ExfatFilesystem.open(device), device


async def open_changed(image: Image) -> tuple[ExfatFilesystem, MemoryDevice]:
    """Open a changed image with the reader."""
    device = MemoryDevice(bytes(image.data))
    return await ExfatFilesystem.open(device), device
