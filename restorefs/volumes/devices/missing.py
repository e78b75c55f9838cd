"""Devices that cannot be read, and those that hold nothing."""

from typing import NoReturn

from restorefs.block.base import BlockDevice, ByteLength, ByteOffset, Piece
from restorefs.errors import MissingError, RestoreError


class Missing(BlockDevice):
    """A part that cannot be read, for a reason. `error` is a StorageError where it is only not at
    hand, and a copy elsewhere may be used instead; any other says that the structure is wrong."""

    def __init__(self, size: ByteLength, error: RestoreError) -> None:
        self.size = size
        self.error = error

    async def _read(self, offset: ByteOffset, length: ByteLength) -> bytes:
        return b"" if not length else self._fail()

    async def map(self, offset: ByteOffset, length: ByteLength) -> list[Piece]:
        self.check_range(offset, length)
        return [] if not length else self._fail()

    def _fail(self) -> NoReturn:
        raise type(self.error)(*self.error.args)


class Zeros(BlockDevice):
    """Nothing but zeros."""

    def __init__(self, size: ByteLength) -> None:
        self.size = size

    async def _read(self, offset: ByteOffset, length: ByteLength) -> bytes:
        return bytes(length)

    async def map(self, offset: ByteOffset, length: ByteLength) -> list[Piece]:
        self.check_range(offset, length)
        return [Piece(None, 0, length)]


def not_there(size: ByteLength, reason: str) -> Missing:
    """Return what reads as a MissingError with this reason."""
    return Missing(size, MissingError(reason))
