"""Serves what a URI names: an image on a web server, after a look at it, or a disk.

Owns what is asked of such an image before it is served. Must not know which disks are attached, nor
how qemu-nbd is started. Concurrency: any number of calls; whoever calls bounds how long it takes.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeAlias

import trio

from restorefs.block.cache import BlockCache, CachedDisk
from restorefs.block.nbd import NbdTransport
from restorefs.errors import StorageError
from restorefs.session.qcow2 import ChainError, ImageBytes, check_alone
from restorefs.session.qemu_nbd import QemuNbd
from restorefs.session.uri import Remote


class Served(NamedTuple):
    """A qemu-nbd and the connection to it."""

    server: QemuNbd
    transport: NbdTransport

    async def end(self) -> None:
        self.transport.close(StorageError(f"{self.transport.name}: not attached"))
        await self.server.stop()


Serve: TypeAlias = Callable[[str], Awaitable[Served]]
"""Starts qemu-nbd on a pseudo filename."""


async def serve_remote(
    remote: Remote, serve: Serve, cache: BlockCache, threads: trio.CapacityLimiter
) -> Served:
    """Start qemu-nbd on what a URI names. Raises StorageError, ChainError, UnsupportedError,
    KeyNeededError, AttachTimeoutError."""
    if not remote.is_image:
        return await serve(remote.blockdev())
    looked_at = await serve(remote.bytes_only())
    try:
        image = _RemoteImage(CachedDisk(cache, looked_at.transport))
        # Cancelled by what it reads.
        await trio.to_thread.run_sync(check_alone, image, limiter=threads)
    finally:
        await looked_at.end()
    served = await serve(remote.blockdev())
    # The web server may have shown us another header than qemu, which opens the data file that a
    # header names. It has done so by now, or never will.
    try:
        files = served.server.opened_files()
    except StorageError:
        await served.end()
        raise
    if files:
        await served.end()
        raise ChainError(f"it made qemu open {', '.join(files)}")
    return served


class _RemoteImage(ImageBytes):
    """The bytes of an image that qemu-nbd serves as they are, for a worker thread of the loop. They
    seem to end with a whole sector."""

    def __init__(self, device: CachedDisk) -> None:
        self._device = device
        self.size = device.size

    def read_upto(self, offset: int, length: int) -> bytes:
        """Raises StorageError, AttachTimeoutError."""
        length = max(0, min(length, self.size - offset))
        return trio.from_thread.run(self._device.read, offset, length)
