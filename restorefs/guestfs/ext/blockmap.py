"""From a file's blocks to the volume's.

Owns what block maps have in common: the blocks of their trees, kept once read, the check of
block numbers, and the translation of runs of blocks to extents of bytes. Must not know either
way of mapping (extents, indirect).

Concurrency: any number of calls may be in flight.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from restorefs.block.base import ByteLength, ByteOffset
from restorefs.errors import DamagedError
from restorefs.guestfs.base import Extent, Inode
from restorefs.guestfs.ext.layout import Superblock
from restorefs.guestfs.limits import Limits
from restorefs.guestfs.lru import Lru
from restorefs.guestfs.pieces import PieceReader

_KEPT_TREE_BYTES = 2 << 20

_Node = TypeVar("_Node")


class Volume:
    """The blocks of a file system, by number."""

    def __init__(self, reader: PieceReader, superblock: Superblock, limits: Limits) -> None:
        self.block_bits = superblock.block_bits
        self.block_size = superblock.block_size
        self.limits = limits
        self.checksum_seed = superblock.checksum_seed if superblock.has_metadata_checksums else None
        self.reader = reader
        self._first = superblock.first_data_block + 1
        self._end = superblock.blocks_count

    def check_blocks(self, block: int, count: int) -> None:
        """Raise DamagedError unless these blocks may hold something that a file refers to."""
        if block < self._first or block + count > self._end:
            raise DamagedError(f"blocks {block} to {block + count} lie outside the file system")

    async def block(self, number: int) -> bytes:
        """Return one block of metadata. Raises DamagedError, StorageError."""
        self.check_blocks(number, 1)
        return await self.reader.read(number << self.block_bits, self.block_size)


class NodeMemory(Generic[_Node]):
    """Decoded tree blocks, so that a read in the middle of a file finds its way without I/O."""

    def __init__(self, volume: Volume) -> None:
        self._nodes: Lru[tuple[Inode, int], _Node] = Lru(_KEPT_TREE_BYTES // volume.block_size)

    async def get(self, inode: Inode, block: int, read: Callable[[int], Awaitable[_Node]]) -> _Node:
        """Return a node, read and verified on behalf of this inode."""
        node = self._nodes.get((inode, block))
        if node is None:
            node = await read(block)
            self._nodes.put((inode, block), node)
        return node


class Runs:
    """Collects runs of blocks in file order; merges neighbours."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._runs: list[tuple[int | None, int]] = []
        self._last: int | None = None

    def add(self, block: int | None, count: int) -> None:
        """Add `count` blocks from `block` on; None is a hole. Raises DamagedError."""
        if block is not None:
            self._volume.check_blocks(block, count)
        if self._runs:
            last, last_count = self._runs[-1]
            if block == (None if last is None else last + last_count):
                self._runs[-1] = (last, last_count + count)
                return
        if len(self._runs) >= self._volume.limits.extents_per_map:
            raise DamagedError("a file lies in too many pieces")
        self._runs.append((block, count))

    def extents(self, skip: ByteLength, length: ByteLength) -> list[Extent]:
        """Return the runs in bytes: `length` of them, without the first `skip`."""
        bits = self._volume.block_bits
        extents = []
        for block, count in self._runs:
            size = (count << bits) - skip
            size = min(size, length)
            extents.append(Extent(None if block is None else (block << bits) + skip, size))
            length -= size
            skip = 0
        return extents


class ContentMap(ABC):
    """Where a file's bytes lie."""

    @abstractmethod
    async def extents(self, offset: ByteOffset, length: ByteLength) -> list[Extent]:
        """Return extents in order, covering the range exactly, neighbours merged.

        Raises DamagedError, StorageError.
        """


class BlockMap(ContentMap):
    """A content map that works in blocks."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume

    async def extents(self, offset: ByteOffset, length: ByteLength) -> list[Extent]:
        if not length:
            return []
        bits = self._volume.block_bits
        first, end = offset >> bits, (offset + length - 1 >> bits) + 1
        runs = Runs(self._volume)
        await self._collect(first, end, runs)
        return runs.extents(offset - (first << bits), length)

    @abstractmethod
    async def _collect(self, first: int, end: int, runs: Runs) -> None:
        """Add all blocks of the file from `first` up to `end` to runs."""
