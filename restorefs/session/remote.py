"""Serves an image of a web server, after a look at it.

Owns what is asked of such an image before it is served. Must not know which disks are attached, nor
how a server is started. Concurrency: any number of calls; whoever calls bounds how long it takes.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

import trio

from restorefs.block.cache import BlockCache, CachedDisk
from restorefs.block.nbd import NbdTransport
from restorefs.errors import StorageError
from restorefs.session.qcow2 import ChainError, ImageBytes, check_alone
from restorefs.session.qemu_nbd import QemuNbd
from restorefs.session.unchanged import Unchanged
from restorefs.session.uri import WebImage


class Served(NamedTuple):
    """A qemu-nbd and the connection to it. unchanged: the files that it serves, if they are."""

    server: QemuNbd
    transport: NbdTransport
    unchanged: Unchanged | None = None

    async def end(self) -> None:
        if self.unchanged is not None:
            self.unchanged.end()
        self.transport.close(StorageError(f"{self.transport.name}: not attached"))
        await self.server.stop()


Connect: TypeAlias = Callable[[QemuNbd], Awaitable[NbdTransport]]
"""Connects to a server."""


async def serve_image(
    web: WebImage,
    sockets: Callable[[], Path],
    connect: Connect,
    cache: BlockCache,
    threads: trio.CapacityLimiter,
    shown: str,
) -> Served:
    """Start nbdkit on an image of a web server, and qemu-nbd on that, and connect.

    shown: what stands for the image in messages. Raises StorageError, ChainError, UnsupportedError,
    KeyNeededError, AttachTimeoutError.
    """
    nbdkit = QemuNbd.launch("nbdkit", web.arguments, sockets(), web.password)
    try:
        transport = await connect(nbdkit)
        try:
            image = _RemoteImage(CachedDisk(cache, transport))
            # Cancelled by what it reads.
            await trio.to_thread.run_sync(check_alone, image, limiter=threads)
        finally:
            transport.close(StorageError(f"{transport.name}: looked at"))
        blockdev = web.blockdev(nbdkit.socket_path)
        server = QemuNbd.start(blockdev, sockets(), shown=shown, below=nbdkit)
    except BaseException:
        await nbdkit.stop()
        raise
    try:
        served = Served(server, await connect(server))
    except BaseException:
        await server.stop()
        raise
    # The web server may have shown us another header than qemu, which opens the data file that a
    # header names. It has done so by now, or never will.
    try:
        files = server.opened_files()
    except StorageError:
        await served.end()
        raise
    if files:
        await served.end()
        raise ChainError(f"it made qemu open {', '.join(files)}")
    return served


class _RemoteImage(ImageBytes):
    """The bytes of an image that nbdkit serves as they are, for a worker thread of the loop."""

    def __init__(self, device: CachedDisk) -> None:
        self._device = device
        self.size = device.size

    def read_upto(self, offset: int, length: int) -> bytes:
        """Raises StorageError, AttachTimeoutError."""
        length = max(0, min(length, self.size - offset))
        return trio.from_thread.run(self._device.read, offset, length)
