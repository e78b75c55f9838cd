"""From a file's blocks to the volume's.

Owns the walk through lists and trees of extents, the check of block numbers, and their
translation to extents of bytes. Must not know what the blocks hold.
Source: "Data Extents", "Extent List" and "B+tree Extent List".

Concurrency: any number of calls may be in flight.
"""

from typing import TypeAlias

from restorefs.block.base import ByteLength, ByteOffset
from restorefs.errors import DamagedError
from restorefs.guestfs.base import Extent, Inode
from restorefs.guestfs.limits import Limits
from restorefs.guestfs.lru import Lru
from restorefs.guestfs.pieces import PieceReader
from restorefs.guestfs.xfs.btree import (
    ExtentLeaf,
    Node,
    decode_extent_block,
    decode_extent_root,
)
from restorefs.guestfs.xfs.checksum import LONG_BTREE, Header, verify
from restorefs.guestfs.xfs.extents import (
    RECORD_SIZE,
    ExtentRecord,
    Run,
    decode_extents,
    fill,
)
from restorefs.guestfs.xfs.inode_record import FORMAT_BTREE, FORMAT_EXTENTS, Fork
from restorefs.guestfs.xfs.layout import Superblock

_KEPT_TREE_BYTES = 2 << 20
_ENDLESS = 1 << 64

NodeMemory: TypeAlias = Lru[tuple[Inode, int], Node | ExtentLeaf]


class Volume:
    """The blocks of a file system, by number."""

    def __init__(self, reader: PieceReader, superblock: Superblock, limits: Limits) -> None:
        self.reader = reader
        self.superblock = superblock
        self.limits = limits
        self.block_bits = superblock.block_bits
        self.block_size = superblock.block_size
        self.checked = superblock.checked
        # Decoded tree blocks, so that a read in the middle of a file finds its way without I/O.
        self.nodes: NodeMemory = Lru(_KEPT_TREE_BYTES // superblock.block_size)

    def place(self, block: int, count: int = 1) -> ByteOffset:
        """Return where blocks lie. Raises DamagedError unless they may be a file's."""
        if not self.superblock.holds_blocks(block, count):
            raise DamagedError(f"blocks {block} to {block + count} lie outside the file system")
        return self.superblock.block_offset(block)

    def verify(self, raw: bytes, header: Header, owner: int, offset: ByteOffset, what: str) -> None:
        """Raise DamagedError unless a block of metadata is what it should be (checksum)."""
        if self.checked:
            verify(raw, header, self.superblock.meta_uuid, owner, offset, what)


class BlockMap:
    """Where the blocks of one fork of an inode lie."""

    def __init__(self, volume: Volume, inode: Inode, fork: Fork) -> None:
        """Raises DamagedError where the fork has no blocks, or its list is damaged."""
        self._volume = volume
        self._inode = inode
        self._root: Node | ExtentLeaf
        if fork.form == FORMAT_EXTENTS:
            size = fork.extents * RECORD_SIZE
            if size > len(fork.raw):
                raise DamagedError(f"inode {inode} has no room for {fork.extents} extents")
            self._root = ExtentLeaf(decode_extents(fork.raw[:size]))
        elif fork.form == FORMAT_BTREE:
            self._root = decode_extent_root(fork.raw)
            if self._root.level > volume.limits.tree_depth:
                raise DamagedError(f"the extents of inode {inode} are too deep a tree")
        else:
            raise DamagedError(f"inode {inode} has no blocks")

    async def runs(self, first: int, end: int) -> list[Run]:
        """Return where the blocks from `first` up to `end` lie, merged and checked.

        Raises DamagedError, StorageError.
        """
        records: list[ExtentRecord] = []
        await self._collect(self._root, first, end, records)
        runs = fill(records, first, end)
        for block, count in runs:
            if block is not None:
                self._volume.place(block, count)
        return runs

    async def extents(self, offset: ByteOffset, length: ByteLength) -> list[Extent]:
        """Return extents in order, covering the range exactly, neighbours merged.

        Raises DamagedError, StorageError.
        """
        if not length:
            return []
        bits = self._volume.block_bits
        first, end = offset >> bits, (offset + length - 1 >> bits) + 1
        skip = offset - (first << bits)
        extents: list[Extent] = []
        for block, count in await self.runs(first, end):
            size = min((count << bits) - skip, length)
            place = None if block is None else self._volume.place(block, count) + skip
            _append(extents, place, size)
            length -= size
            skip = 0
        return extents

    async def _collect(
        self,
        node: Node | ExtentLeaf,
        first: int,
        end: int,
        records: list[ExtentRecord],
        limit: int = _ENDLESS,
    ) -> None:
        """Add the records below a node that are about blocks from `first` up to `end`.

        limit: where the node behind this one begins.
        """
        if isinstance(node, ExtentLeaf):
            records += node.about(first, end)
            if len(records) > self._volume.limits.extents_per_map:
                raise DamagedError(f"inode {self._inode} lies in too many pieces")
            return
        for index in range(node.from_child(first), len(node.children)):
            key = node.keys[index]
            if key >= end:
                break
            next_key = node.keys[index + 1] if index + 1 < len(node.keys) else limit
            child = await self._node(node.children[index], node.level - 1)
            # So that no block is below two others, however many times a damaged tree names it.
            start, stop = child.span
            if not key <= start < stop <= next_key:
                raise DamagedError(f"the extents of inode {self._inode} are no tree")
            await self._collect(child, first, end, records, next_key)

    async def _node(self, block: int, level: int) -> Node | ExtentLeaf:
        volume = self._volume
        node = volume.nodes.get((self._inode, block))
        if node is None:
            offset = volume.place(block)
            raw = await volume.reader.read(offset, volume.block_size)
            what = f"a block of the extents of inode {self._inode}"
            volume.verify(raw, LONG_BTREE, self._inode, offset, what)
            node = decode_extent_block(raw, level, volume.checked)
            volume.nodes.put((self._inode, block), node)
        found = node.level if isinstance(node, Node) else 0
        if found != level:
            raise DamagedError(f"the extents of inode {self._inode} are no tree")
        return node


def _append(extents: list[Extent], place: ByteOffset | None, size: ByteLength) -> None:
    """Add an extent. Blocks that adjoin by number were merged before; the last block of one
    group and the first of the next one do not, but lie side by side."""
    if extents:
        last = extents[-1]
        if place is not None and last.offset is not None and last.offset + last.length == place:
            extents[-1] = Extent(last.offset, last.length + size)
            return
    extents.append(Extent(place, size))
