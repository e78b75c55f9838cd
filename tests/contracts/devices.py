"""Block devices that watch or disturb what a reader does with them.

Concurrency: as BlockDevice asks, any number of reads in flight; counts are exact because nothing
is awaited between a read's count and its answer.
"""

from restorefs.block.base import BlockDevice, ByteLength, ByteOffset, Piece
from restorefs.errors import StorageError


class MemoryDevice(BlockDevice):
    """Bytes in memory."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.size = len(content)

    async def _read(self, offset: ByteOffset, length: ByteLength) -> bytes:
        return self.content[offset : offset + length]

    async def map(self, offset: ByteOffset, length: ByteLength) -> list[Piece]:
        self.check_range(offset, length)
        return [Piece(self, offset, length)]


class WatchedDevice(BlockDevice):
    """Another device, with every read counted, and failing where a test says so.

    fail_at: the numbers of the reads, counted from 0, that raise StorageError.
    """

    def __init__(self, parent: BlockDevice) -> None:
        self.parent = parent
        self.size = parent.size
        self.reads = 0
        self.fail_at: frozenset[int] = frozenset()

    async def _read(self, offset: ByteOffset, length: ByteLength) -> bytes:
        number = self.reads
        self.reads += 1
        if number in self.fail_at:
            raise StorageError(f"read {number} fails because the test wants it to")
        return await self.parent.read(offset, length)

    def _expect(self, offset: ByteOffset, length: ByteLength) -> None:
        self.parent.expect(offset, length)

    async def map(self, offset: ByteOffset, length: ByteLength) -> list[Piece]:
        return await self.parent.map(offset, length)


class TooManySteps(BaseException):
    """A walk took more than its share; no Exception, so that no reader can swallow it."""


class MeteredDevice(MemoryDevice):
    """Bytes in memory that can be read so often and so much, and then never again."""

    def __init__(self, content: bytes, reads: int, length: ByteLength) -> None:
        super().__init__(content)
        self._reads_left = reads
        self._length_left = length

    async def _read(self, offset: ByteOffset, length: ByteLength) -> bytes:
        self._reads_left -= 1
        self._length_left -= length
        if self._reads_left < 0:
            raise TooManySteps("too many reads")
        if self._length_left < 0:
            raise TooManySteps("too many bytes read")
        return await super()._read(offset, length)
