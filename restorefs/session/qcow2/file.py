"""One image file, open for inspection.

Owns opening and exact reads. Must not know what the bytes mean. Blocks: for a worker thread.
"""

import os
import stat
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from restorefs.errors import StorageError
from restorefs.session.unchanged import stamp


class ImageBytes(ABC):
    """The bytes of an image, wherever they are. size: how many there are."""

    size: int

    @abstractmethod
    def read_upto(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, fewer only where the image ends. Raises OSError or
        StorageError."""

    def check_inside(self, offset: int, length: int, what: str) -> None:
        """Raise StorageError unless the `length` bytes of `what` from `offset` lie in the file."""
        if offset + length > self.size:
            raise StorageError(
                f"truncated: the file has {self.size} bytes, but {what} lies at bytes"
                f" {offset} to {offset + length}"
            )

    def read(self, offset: int, length: int, what: str) -> bytes:
        """Return exactly the `length` bytes of `what` from `offset`. Raises OSError, StorageError
        when they do not lie in the file."""
        self.check_inside(offset, length, what)
        data = self.read_upto(offset, length)
        if len(data) != length:
            raise StorageError(f"short read of {what}: {len(data)} of {length} bytes")
        return data


class ImageFile(ImageBytes):
    """A regular file, opened read-only. Use as a context manager.

    identity: the same for two names of one file. size: in bytes. stamp: its state when opened.
    """

    def __init__(self, path: str) -> None:
        """Open `path`, which has no symbolic link at its end. Raises OSError, StorageError."""
        # O_NONBLOCK: what looks like an image may be a fifo.
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._fd)
            raise StorageError("not a regular file")
        self.path = path
        self.size = status.st_size
        self.identity = (status.st_dev, status.st_ino)
        self.stamp = stamp(status)

    def read_upto(self, offset: int, length: int) -> bytes:
        """Raises OSError."""
        return os.pread(self._fd, length, offset)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._fd)
