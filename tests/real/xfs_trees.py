"""Trees of one XFS image, as the kernel shows it and as the reader does.

Owns opening both sides; the comparison is tests/manifest.py's. Concurrency: none.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from restorefs.block.file import FileDevice
from restorefs.guestfs.xfs.reader import XfsFilesystem
from tests.contracts.devices import WatchedDevice
from tests.images.xfs import RECIPES
from tests.manifest import Manifest, manifest_of_guest, manifest_of_path
from tests.tools import run


def expected_tree(image: Path, name: str, top: bytes = b".") -> Manifest:
    """Return the manifest by the kernel's own mount."""
    with RECIPES[name].mounted(image) as root:
        manifest = manifest_of_path(root, top)
    for entry in manifest.values():
        if entry.nlink > 1:
            # It was read by another of its names before: with pages in its cache, the kernel
            # calls unwritten blocks data.
            entry.segments = None
    return manifest


async def found_tree(image: Path, top: bytes = b".") -> Manifest:
    """Return the manifest by the reader."""
    async with opened(image) as (fs, device):
        return await manifest_of_guest(fs, device, top)


@asynccontextmanager
async def opened(image: Path) -> AsyncIterator[tuple[XfsFilesystem, WatchedDevice]]:
    """Open an image with the reader."""
    with FileDevice(image) as file:
        device = WatchedDevice(file)
        yield await XfsFilesystem.open(device), device


def copy_of(image: Path, folder: Path) -> Path:
    """Return a copy of an image that a test may damage."""
    copy = folder / image.name
    run("cp", "--sparse=always", "--no-preserve=mode", image, copy)
    return copy
