"""Devices that hold the same, of which any will do."""

from collections.abc import Sequence
from contextlib import suppress

from restorefs.block.base import BlockDevice, ByteLength, ByteOffset, Piece, Place
from restorefs.errors import DamagedError, StorageError

_SMALLEST: ByteLength = 512
"""A range of this size is not cut any more to be read from different copies."""

_REASONS = 4


class Mirrored(BlockDevice):
    """The first of several copies that can be read, for each range anew.

    Copies come in the order of preference. What is out of date in one must not be readable there:
    whoever makes the mirror puts a Missing in its place. Only a StorageError asks the next copy: a
    damaged structure would not be any better there. A range that no copy has whole is cut in two,
    and again: where the parts that are missing end is not known here.
    """

    def __init__(self, copies: Sequence[BlockDevice], size: ByteLength | None = None) -> None:
        """Raises DamagedError where a copy is shorter than `size`."""
        smallest = min((copy.size for copy in copies), default=0)
        if not copies or (size is not None and smallest < size):
            raise DamagedError(f"{size} bytes do not fit on copies of {smallest} bytes")
        self.copies = tuple(copies)
        self.size = smallest if size is None else size

    async def _read(self, offset: ByteOffset, length: ByteLength) -> bytes:
        failed: list[str] = []
        for copy in self.copies:
            try:
                return await copy.read(offset, length)
            except StorageError as error:
                failed.append(str(error))
        if length <= _SMALLEST or len(self.copies) == 1:
            raise _none(failed)
        half = _middle(offset, length)
        return await self._read(offset, half) + await self._read(offset + half, length - half)

    async def read_through(self, places: Sequence[Place]) -> bytes:
        for offset, length in places:
            self.check_range(offset, length)
        for copy in self.copies:
            with suppress(StorageError):
                return await copy.read_through(places)
        # No copy has all of them: each by itself.
        return b"".join([await self.read(*place) for place in places])

    def _expect(self, offset: ByteOffset, length: ByteLength) -> None:
        self.copies[0].expect(offset, length)

    async def map(self, offset: ByteOffset, length: ByteLength) -> list[Piece]:
        self.check_range(offset, length)
        failed: list[str] = []
        for copy in self.copies:
            try:
                return await copy.map(offset, length)
            except StorageError as error:
                failed.append(str(error))
        if length <= _SMALLEST or len(self.copies) == 1:
            raise _none(failed)
        half = _middle(offset, length)
        return [
            *await self.map(offset, half),
            *await self.map(offset + half, length - half),
        ]


def _none(failed: Sequence[str]) -> StorageError:
    """Return why no copy can be read: what is wrong with each of the first few."""
    reasons = list(dict.fromkeys(failed))
    return StorageError("; ".join(reasons[:_REASONS]))


def _middle(offset: ByteOffset, length: ByteLength) -> ByteLength:
    """Return where to cut a range: on a multiple of the smallest size, never at an end of it."""
    end = (offset + length // 2) // _SMALLEST * _SMALLEST
    return end - offset if end > offset else length // 2
