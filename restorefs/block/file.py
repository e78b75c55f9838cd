"""A local raw file as a block device, for tests and tools.

The daemon never opens images itself: it reads through NBD. Reads block the calling thread, so
this is not for the daemon's loop.
"""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from restorefs.block.base import BlockDevice, ByteLength, ByteOffset, Piece
from restorefs.errors import StorageError


class FileDevice(BlockDevice):
    """A raw image file, opened read-only. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.lseek(self._fd, 0, os.SEEK_END)

    async def _read(self, offset: ByteOffset, length: ByteLength) -> bytes:
        data = os.pread(self._fd, length, offset)
        if len(data) != length:
            raise StorageError(f"short read of {self.path}: {len(data)} of {length} bytes")
        return data

    async def map(self, offset: ByteOffset, length: ByteLength) -> list[Piece]:
        self.check_range(offset, length)
        return [Piece(self, offset, length)]

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
