"""The block device seam.

Owns what a device is to the layers above: a size, reads that are never short, and a map from a
range to the real disks underneath. Must not know what is stored on it. All offsets and lengths
are bytes; ranges are half-open. Concurrency: any number of reads may be in flight on one device.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from restorefs.errors import DamagedError

ByteOffset: TypeAlias = int
ByteLength: TypeAlias = int

Place: TypeAlias = tuple[ByteOffset, ByteLength]
"""A range of a device."""


class Piece(NamedTuple):
    """A run of bytes that lies on one real disk; `disk` is None where nothing is stored (zeros),
    and a device that computes its bytes (a degraded RAID) where they lie nowhere as they are."""

    disk: "BlockDevice | None"
    offset: ByteOffset
    length: ByteLength


class BlockDevice(ABC):
    """A randomly readable device of fixed size whose content never changes."""

    size: ByteLength

    async def read(self, offset: ByteOffset, length: ByteLength) -> bytes:
        """Return exactly `length` bytes from `offset`.

        Raises DamagedError when the range leaves the device (whoever computed it read a
        damaged structure), StorageError when the storage fails.
        """
        self.check_range(offset, length)
        return await self._read(offset, length)

    async def read_through(self, places: Sequence[Place]) -> bytes:
        """Return the bytes of places, one behind the other, in as few requests as it can: what is
        read to be decoded, and not again soon. Raises as read() does."""
        return b"".join([await self.read(offset, length) for offset, length in places])

    @abstractmethod
    async def _read(self, offset: ByteOffset, length: ByteLength) -> bytes:
        """Read a range that is known to lie inside the device."""

    def expect(self, offset: ByteOffset, length: ByteLength) -> None:
        """Say that a range will be read very soon, so that its load may begin.

        For whoever knows of several ranges before it waits for the first. Never waits and raises
        nothing: what is wrong with the range is for the read to say.
        """
        if offset >= 0 and length >= 0 and offset + length <= self.size:
            self._expect(offset, length)

    def _expect(self, offset: ByteOffset, length: ByteLength) -> None:  # noqa: B027
        """Begin to load a range that is known to lie inside the device, if that is of use."""

    @abstractmethod
    async def map(self, offset: ByteOffset, length: ByteLength) -> list[Piece]:
        """Say where a range lies on real disks: pieces in order, covering it exactly.

        Raises DamagedError when the range leaves the device or where a structure that says so is
        damaged, StorageError where that cannot be read, or a part of the device is missing.
        """

    def check_range(self, offset: ByteOffset, length: ByteLength) -> None:
        """Raise DamagedError unless [offset, offset + length) lies on the device."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise DamagedError(
                f"bytes {offset} to {offset + length} lie outside the device of {self.size} bytes"
            )


class Window(BlockDevice):
    """The part [start, start + size) of another device, such as a partition."""

    def __init__(self, parent: BlockDevice, start: ByteOffset, size: ByteLength) -> None:
        """Raises DamagedError when the window leaves its parent."""
        parent.check_range(start, size)
        self.parent = parent
        self.start = start
        self.size = size

    async def _read(self, offset: ByteOffset, length: ByteLength) -> bytes:
        return await self.parent.read(self.start + offset, length)

    def _expect(self, offset: ByteOffset, length: ByteLength) -> None:
        self.parent.expect(self.start + offset, length)

    async def read_through(self, places: Sequence[Place]) -> bytes:
        for offset, length in places:
            self.check_range(offset, length)
        return await self.parent.read_through(
            [(self.start + offset, length) for offset, length in places]
        )

    async def map(self, offset: ByteOffset, length: ByteLength) -> list[Piece]:
        self.check_range(offset, length)
        return await self.parent.map(self.start + offset, length)
