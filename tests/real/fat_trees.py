"""Trees of one FAT image, as mtools shows it and as the reader does.

Owns opening both sides; the comparison is tests/manifest.py's. Concurrency: none.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from restorefs.block.file import FileDevice
from restorefs.guestfs.fat.reader import FatFilesystem
from tests.contracts.devices import WatchedDevice
from tests.manifest import Manifest, manifest_of_guest

NOT_SHOWN = ("nlink", "blocks", "atime_ns", "ctime_ns", "xattrs", "segments")
"""What is lost when mtools copies a tree out of an image."""


async def found_tree(image: Path) -> Manifest:
    """Return the manifest by the reader."""
    async with opened(image) as (fs, device):
        return await manifest_of_guest(fs, device)


@asynccontextmanager
async def opened(image: Path) -> AsyncIterator[tuple[FatFilesystem, WatchedDevice]]:
    """Open an image with the reader."""
    with FileDevice(image) as file:
        device = WatchedDevice(file)
        yield await FatFilesystem.open(device), device
