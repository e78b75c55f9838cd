"""The blocks of B+trees.

Owns the decoding of the nodes of both kinds: trees of extents, with long pointers, and trees of a
group's inodes, with short ones. Pure; gets whole blocks that were verified.
Source: "Fixed Length Record B+trees", "Data Extents" and "AG Inode Management".
"""

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from operator import attrgetter
from typing import NamedTuple

from restorefs.block.base import ByteLength
from restorefs.errors import DamagedError
from restorefs.guestfs.xfs.extents import RECORD_SIZE, ExtentRecord, decode_extents

_HEAD = struct.Struct(">HH")  # bb_level, bb_numrecs
_HEAD_OFFSET = 4  # behind bb_magic
_ROOT_SIZE = 4  # xfs_bmdr_block: bb_level, bb_numrecs

_EXTENT_MAGICS = (b"BMAP", b"BMA3")
_EXTENT_HEADS = (24, 72)
_INODE_MAGICS = (b"IABT", b"IAB3")
_INODE_HEADS = (16, 56)
_CHUNK = struct.Struct(">IHBBQ")  # ir_startino, ir_holemask, ir_count, ir_freecount, ir_free
_CHUNK_SIZE = 16
CHUNK_INODES = 64
_INODES_PER_HOLE_BIT = 4


_start_of = attrgetter("start")


class Node(NamedTuple):
    """An inner node: the first key below each child, and the children. `level` is that of the
    node, the leaves' is 0."""

    level: int
    keys: Sequence[int]
    children: Sequence[int]

    @property
    def span(self) -> tuple[int, int]:
        """The first key, and one behind the last."""
        return self.keys[0], self.keys[-1] + 1

    def from_child(self, key: int) -> int:
        """Return the index of the child below which a key is, if it is anywhere."""
        return max(0, bisect_right(self.keys, key) - 1)


class ExtentLeaf(NamedTuple):
    records: Sequence[ExtentRecord]

    @property
    def span(self) -> tuple[int, int]:
        """The first block of the file that a record is about, and the one behind the last."""
        return (self.records[0].start, self.records[-1].end) if self.records else (0, 0)

    def about(self, first: int, end: int) -> Sequence[ExtentRecord]:
        """Return the records from which something of the blocks from `first` up to `end` may be
        learnt."""
        start = max(0, bisect_right(self.records, first, key=_start_of) - 1)
        return self.records[start : bisect_left(self.records, end, key=_start_of)]


class Chunk(NamedTuple):
    """64 inodes of a group, the first one's number in it, and a bit for each that is free."""

    start: int
    free: int


class ChunkLeaf(NamedTuple):
    starts: Sequence[int]
    chunks: Sequence[Chunk]

    def find(self, inode: int) -> Chunk | None:
        """Return the chunk that an inode, by its number in the group, is in."""
        index = bisect_right(self.starts, inode) - 1
        if index >= 0 and inode < self.starts[index] + CHUNK_INODES:
            return self.chunks[index]
        return None


def decode_extent_root(fork: bytes) -> Node:
    """Decode the root of a tree of extents, which is in an inode's fork. Raises DamagedError."""
    if len(fork) < _ROOT_SIZE:
        raise DamagedError("the root of a tree of extents has no room")
    level, count = _HEAD.unpack_from(fork)
    if not level:
        raise DamagedError("the root of a tree of extents is a leaf")
    return _decode_node(fork, _ROOT_SIZE, level, count, "Q", "Q")


def decode_extent_block(raw: bytes, level: int, checked: bool) -> Node | ExtentLeaf:
    """Decode a block of a tree of extents that must be of this level. Raises DamagedError."""
    start = _EXTENT_HEADS[checked]
    count = _head(raw, _EXTENT_MAGICS[checked], level)
    if level:
        return _decode_node(raw, start, level, count, "Q", "Q")
    end = start + count * RECORD_SIZE
    if end > len(raw):
        raise DamagedError("a tree's leaf has more records than room")
    return ExtentLeaf(decode_extents(raw[start:end]))


def decode_inode_block(raw: bytes, level: int, checked: bool, sparse: bool) -> Node | ChunkLeaf:
    """Decode a block of a group's tree of inodes that must be of this level. sparse: chunks may
    be incomplete. Raises DamagedError."""
    start = _INODE_HEADS[checked]
    count = _head(raw, _INODE_MAGICS[checked], level)
    if level:
        return _decode_node(raw, start, level, count, "I", "I")
    end = start + count * _CHUNK_SIZE
    if end > len(raw):
        raise DamagedError("a tree's leaf has more records than room")
    chunks = []
    for first, hole_mask, _, _, free in _CHUNK.iter_unpack(raw[start:end]):
        missing = _inodes_in_holes(hole_mask) if sparse and hole_mask else 0
        chunks.append(Chunk(first, free | missing))
    starts = [chunk.start for chunk in chunks]
    if any(one + CHUNK_INODES > other for one, other in pairwise(starts)):
        raise DamagedError("a tree of inodes is out of order")
    return ChunkLeaf(starts, chunks)


def _head(raw: bytes, magic: bytes, level: int) -> int:
    """Return how many records a block claims, after a look at what it is."""
    found, count = _HEAD.unpack_from(raw, _HEAD_OFFSET)
    if raw[:4] != magic or found != level:
        raise DamagedError("a tree's block is not what its parent says")
    return int(count)


def _decode_node(
    raw: bytes, start: ByteLength, level: int, count: int, key: str, pointer: str
) -> Node:
    size = struct.calcsize(">" + key + pointer)
    room = (len(raw) - start) // size
    if not 0 < count <= room:
        raise DamagedError("a tree's node has more children than room, or none")
    keys = struct.unpack_from(f">{count}{key}", raw, start)
    pointers = start + room * struct.calcsize(">" + key)
    children = struct.unpack_from(f">{count}{pointer}", raw, pointers)
    if any(one >= other for one, other in pairwise(keys)):
        raise DamagedError("a tree's node is out of order")
    return Node(level, keys, children)


def _inodes_in_holes(mask: int) -> int:
    """Spread ir_holemask, with a bit for 4 inodes, to a bit for each."""
    whole = (1 << _INODES_PER_HOLE_BIT) - 1
    return sum(whole << 4 * bit for bit in range(16) if mask >> bit & 1)
