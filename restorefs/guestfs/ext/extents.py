"""Files mapped by an extent tree.

Owns the decoding and verification of the tree's nodes and the way through it. Source: "ifork",
section "Extent Tree".

Concurrency: any number of calls may be in flight.
"""

import struct
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from operator import lt
from typing import NamedTuple

import trio

from restorefs.errors import DamagedError
from restorefs.guestfs.base import Inode
from restorefs.guestfs.ext.blockmap import BlockMap, NodeMemory, Runs, Volume
from restorefs.guestfs.ext.checksum import crc32c

_HEADER = struct.Struct("<HHHH4x")  # eh_magic, eh_entries, eh_max, eh_depth, (eh_generation)
_INDEX = struct.Struct("<IIHH")  # ei_block, ei_leaf_lo, ei_leaf_hi, (ei_unused)
_EXTENT = struct.Struct("<IHHI")  # ee_block, ee_len, ee_start_hi, ee_start_lo
_ENTRY_SIZE = 12
_MAGIC = 0xF30A
_MAX_DEPTH = 5
_LONGEST_WRITTEN = 32768
_NO_BLOCK = 1 << 32
"""File blocks have 32 bits: the first number that none can have."""


class Node(NamedTuple):
    """A node: `starts` are the first file blocks of its entries, ascending; `depth` 0 is a leaf."""

    depth: int
    starts: Sequence[int]
    raw: bytes


def decode_node(raw: bytes) -> Node:
    """Decode a node: the 60 bytes of i_block, or a block. Raises DamagedError."""
    magic, entries, capacity, depth = _HEADER.unpack_from(raw)
    room = (len(raw) - _HEADER.size) // _ENTRY_SIZE
    if magic != _MAGIC or depth > _MAX_DEPTH or not entries <= capacity <= room:
        raise DamagedError("a node of an extent tree is damaged")
    end = _HEADER.size + entries * _ENTRY_SIZE
    starts = array("Q", (entry[0] for entry in _EXTENT.iter_unpack(raw[_HEADER.size : end])))
    if not all(map(lt, starts, starts[1:])):
        raise DamagedError("the entries of an extent tree are not in order")
    if depth and not entries:
        raise DamagedError("a node of an extent tree leads nowhere")
    return Node(depth, starts, raw)


def verify_node(raw: bytes, seed: int) -> None:
    """Verify the checksum behind a block's last possible entry (ext4_extent_tail).

    seed: inode_seed() of the file. Raises DamagedError.
    """
    end = _HEADER.size + int.from_bytes(raw[4:6], "little") * _ENTRY_SIZE
    stored = int.from_bytes(raw[end : end + 4], "little")
    if end + 4 > len(raw) or stored != crc32c(seed, raw[:end]):
        raise DamagedError("a node of an extent tree has a wrong checksum")


def child_block(node: Node, index: int) -> int:
    """Return the block of an inner node's entry."""
    _, low, high, _ = _INDEX.unpack_from(node.raw, _HEADER.size + index * _ENTRY_SIZE)
    return int(low | high << 32)


def extent_at(node: Node, index: int) -> tuple[int, int, int | None]:
    """Return a leaf's entry: first file block, number of blocks, first block on the volume; None
    where nothing was written yet, which reads as zeros. Raises DamagedError."""
    start, length, high, low = _EXTENT.unpack_from(node.raw, _HEADER.size + index * _ENTRY_SIZE)
    if not length:
        raise DamagedError("an extent has no blocks")
    if length > _LONGEST_WRITTEN:
        return start, length - _LONGEST_WRITTEN, None
    return start, length, low | high << 32


class ExtentMap(BlockMap):
    """One file's extent tree. `seed` is inode_seed() of the file, None without checksums."""

    def __init__(
        self,
        volume: Volume,
        memory: NodeMemory[Node],
        inode: Inode,
        i_block: bytes,
        seed: int | None,
    ) -> None:
        """Raises DamagedError where the root is damaged."""
        super().__init__(volume)
        self._memory = memory
        self._inode = inode
        self._seed = seed
        self._root = decode_node(i_block)

    async def _collect(self, first: int, end: int, runs: Runs) -> None:
        if end > _NO_BLOCK:
            raise DamagedError(f"inode {self._inode} is larger than an extent tree can map")
        position, leaves = first, 0
        while position < end:
            if leaves:
                await trio.lowlevel.checkpoint()
            leaf, leaf_end = await self._leaf(position)
            stop = min(end, leaf_end)
            if leaf:
                self._collect_leaf(leaf, position, stop, runs)
            else:
                runs.add(None, stop - position)
            position = stop
            leaves += 1

    async def _leaf(self, position: int) -> tuple[Node | None, int]:
        """Return the leaf that maps a file block, or None in a gap, and where either ends."""
        node, start, end = self._root, 0, _NO_BLOCK
        while node.depth:
            index = bisect_right(node.starts, position) - 1
            if index + 1 < len(node.starts):
                end = min(end, node.starts[index + 1])
            if index < 0:
                return None, end
            start = max(start, node.starts[index])
            child = await self._memory.get(self._inode, child_block(node, index), self._read_node)
            in_place = not child.starts or start <= child.starts[0] < end
            if child.depth != node.depth - 1 or not in_place:
                raise DamagedError(f"the extent tree of inode {self._inode} is tangled")
            node = child
        return node, end

    def _collect_leaf(self, leaf: Node, position: int, stop: int, runs: Runs) -> None:
        """Add what a leaf says of the file blocks from position up to stop."""
        before = max(bisect_right(leaf.starts, position) - 1, 0)
        previous_end = 0
        for index in range(before, len(leaf.starts)):
            start, length, block = extent_at(leaf, index)
            if start < previous_end:
                raise DamagedError("extents overlap")
            previous_end = start + length
            if start >= stop:
                break
            if block is not None:
                self._volume.check_blocks(block, length)
            if start > position:
                runs.add(None, start - position)
                position = start
            count = min(previous_end, stop) - position
            if count > 0:
                runs.add(None if block is None else block + position - start, count)
                position += count
        if position < stop:
            runs.add(None, stop - position)

    async def _read_node(self, block: int) -> Node:
        raw = await self._volume.block(block)
        if self._seed is not None:
            verify_node(raw, self._seed)
        return decode_node(raw)
