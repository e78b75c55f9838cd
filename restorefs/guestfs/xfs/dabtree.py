"""The index blocks of folders and of attributes.

Owns the decoding of inner nodes, of the leaves of folders, and the search for a hash in them.
Pure. Source: "Directories", "Leaf Directories" and "Node Directories".
"""

import struct
from bisect import bisect_left, bisect_right
from typing import NamedTuple

from restorefs.errors import DamagedError

_MAGIC_OFFSET = 8
NODE_MAGICS = (b"\xfe\xbe", b"\x3e\xbe")
_LEAF_MAGICS = ((b"\xd2\xf1", b"\xd2\xff"), (b"\x3d\xf1", b"\x3d\xff"))
_COUNTS_OFFSETS = (12, 56)
_HEADS = (16, 64)
_PAIR_SIZE = 8
_ADDRESS_BITS = 3


class IndexNode(NamedTuple):
    """An inner node: the last hash in each child, and the children's blocks. `level` is 1 above
    the leaves."""

    level: int
    hashes: tuple[int, ...]
    children: tuple[int, ...]

    def first_with(self, hash_: int) -> int | None:
        """Return the block of the first child that may have a hash; None where none may."""
        index = bisect_left(self.hashes, hash_)
        return self.children[index] if index < len(self.children) else None


class IndexLeaf(NamedTuple):
    """Hashes in order, the positions of the entries that have them, and the block of the next
    leaf, 0 for none."""

    hashes: tuple[int, ...]
    addresses: tuple[int, ...]
    next_block: int

    def find(self, hash_: int) -> list[int]:
        """Return the positions of all entries with a hash."""
        first, end = bisect_left(self.hashes, hash_), bisect_right(self.hashes, hash_)
        # Stale pairs have no address.
        return [address << _ADDRESS_BITS for address in self.addresses[first:end] if address]


def magic_of(block: bytes) -> bytes:
    """Return what kind of block an index block says it is."""
    return block[_MAGIC_OFFSET : _MAGIC_OFFSET + 2]


def next_of(block: bytes) -> int:
    """Return the block behind this one on its level, 0 for none (forw)."""
    return int.from_bytes(block[:4], "big")


def decode_index(block: bytes, checked: bool) -> IndexNode | IndexLeaf:
    """Decode a block of a folder's index. Raises DamagedError."""
    magic = magic_of(block)
    if magic == NODE_MAGICS[checked]:
        return decode_node(block, checked)
    if magic not in _LEAF_MAGICS[checked]:
        raise DamagedError("a directory's index block has lost its signature")
    count, _ = struct.unpack_from(">HH", block, _COUNTS_OFFSETS[checked])
    return decode_pairs(_pairs(block, count, checked), next_of(block))


def decode_node(block: bytes, checked: bool) -> IndexNode:
    """Decode an inner node (xfs_da_intnode). Raises DamagedError."""
    count, level = struct.unpack_from(">HH", block, _COUNTS_OFFSETS[checked])
    numbers = struct.unpack(f">{2 * count}I", _pairs(block, count, checked))
    if not count or not level:
        raise DamagedError("an index node has no children")
    if any(map(int.__gt__, numbers[::2], numbers[2::2])):
        raise DamagedError("an index node is out of order")
    return IndexNode(level, numbers[::2], numbers[1::2])


def decode_pairs(raw: bytes, next_block: int) -> IndexLeaf:
    """Decode packed hashes and addresses (xfs_dir2_leaf_entry). Raises DamagedError."""
    numbers = struct.unpack(f">{len(raw) // 4}I", raw)
    hashes = numbers[::2]
    if any(map(int.__gt__, hashes, hashes[1:])):
        raise DamagedError("a directory's index is out of order")
    return IndexLeaf(hashes, numbers[1::2], next_block)


def _pairs(block: bytes, count: int, checked: bool) -> bytes:
    start = _HEADS[checked]
    end = start + count * _PAIR_SIZE
    if end > len(block):
        raise DamagedError("an index block claims more than it has room for")
    return block[start:end]
