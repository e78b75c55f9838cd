"""Which inodes are in use.

Owns the walk through each group's tree of inodes. Where chunks of inodes were given back, old
records are left behind that look sound: only the tree says that they are none.
Source: "AG Inode Management", "Inode B+trees" and "Sparse Inodes".

Concurrency: any number of calls may be in flight.
"""

import struct

from restorefs.errors import DamagedError
from restorefs.guestfs.base import Inode
from restorefs.guestfs.lru import Lru
from restorefs.guestfs.xfs import features as f
from restorefs.guestfs.xfs.blockmap import Volume
from restorefs.guestfs.xfs.btree import Chunk, ChunkLeaf, Node, decode_inode_block
from restorefs.guestfs.xfs.checksum import SHORT_BTREE, has_checksum

_AGI_SECTOR = 2
_AGI = struct.Struct(">4s4xI8xII")  # agi_magicnum, agi_seqno, agi_root, agi_level
_AGI_MAGIC = b"XAGI"
_AGI_UUID = 296
_AGI_CRC = 312
_KEPT_BYTES = 1 << 20
_KEPT_GROUPS = 4096


class InodeAllocation:
    """The trees of inodes of all groups."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._superblock = volume.superblock
        self._sparse = bool(volume.superblock.incompat & f.INCOMPAT_SPARSE_INODES)
        self._roots: Lru[int, tuple[int, int]] = Lru(_KEPT_GROUPS)
        self._nodes: Lru[tuple[int, int], Node | ChunkLeaf] = Lru(_KEPT_BYTES // volume.block_size)

    async def chunk(self, inode: Inode) -> Chunk | None:
        """Return the chunk that an inode is in, by its number in its group; None where no chunk
        is. Raises DamagedError, StorageError."""
        ag = inode >> self._superblock.ag_inode_bits
        in_ag = inode - (ag << self._superblock.ag_inode_bits)
        block, levels = await self._root(ag)
        for level in range(levels - 1, -1, -1):
            node = await self._node(ag, block, level)
            if isinstance(node, ChunkLeaf):
                return node.find(in_ag)
            block = node.children[node.from_child(in_ag)]
        raise DamagedError(f"group {ag} has no tree of inodes")

    async def _root(self, ag: int) -> tuple[int, int]:
        """Return the block of a group's tree's root, and how many levels the tree has."""
        found = self._roots.get(ag)
        if found is not None:
            return found
        size = self._superblock.sector_size
        offset = self._superblock.ag_offset(ag) + _AGI_SECTOR * size
        raw = await self._volume.reader.read(offset, size)
        magic, number, root, levels = _AGI.unpack_from(raw)
        if magic != _AGI_MAGIC or number != ag:
            raise DamagedError(f"the inodes' header of group {ag} is damaged")
        if self._volume.checked and not (
            has_checksum(raw, _AGI_CRC)
            and raw[_AGI_UUID : _AGI_UUID + 16] == self._superblock.meta_uuid
        ):
            raise DamagedError(f"the inodes' header of group {ag} has a wrong checksum")
        if not 0 < levels <= self._volume.limits.tree_depth:
            raise DamagedError(f"the tree of inodes of group {ag} claims {levels} levels")
        self._roots.put(ag, (root, levels))
        return root, levels

    async def _node(self, ag: int, block: int, level: int) -> Node | ChunkLeaf:
        node = self._nodes.get((ag, block))
        if node is None:
            volume = self._volume
            offset = volume.place((ag << self._superblock.ag_block_bits) + block)
            raw = await volume.reader.read(offset, volume.block_size)
            volume.verify(raw, SHORT_BTREE, ag, offset, f"the tree of inodes of group {ag}")
            node = decode_inode_block(raw, level, volume.checked, self._sparse)
            self._nodes.put((ag, block), node)
        found = node.level if isinstance(node, Node) else 0
        if found != level:
            raise DamagedError(f"the inodes of group {ag} are no tree")
        return node
