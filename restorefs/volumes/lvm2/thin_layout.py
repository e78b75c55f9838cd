"""The metadata of a thin pool, as bytes.

Pure. All numbers are little-endian; a metadata block has 4096 bytes.

Sources: Linux, Documentation/admin-guide/device-mapper/thin-provisioning.rst and
persistent-data.rst; the manual pages and the XML of thin_dump(8), for what each number means.

    superblock, in block 0: +0 u32 checksum, +4 u32 flags (1: needs a check), +8 u64 own block,
      +16 UUID, +32 u64 magic, +40 u32 version, +44 u32 time, +48 u64 transaction, +56 u64 root that
      is held, +64 and +192 128 bytes each for the space maps, +320 u64 root of the mappings,
      +328 u64 root of the devices' details, +336 u32 sectors of a data block, +340 u32 sectors of a
      metadata block, +344 u64 metadata blocks, +352, +356, +360 u32 features: compatible, for
      reading only, incompatible
    node: +0 u32 checksum, +4 u32 flags (1 internal, 2 leaf), +8 u64 own block, +16 u32 entries,
      +20 u32 room for how many, +24 u32 size of a value; from +32 u64 keys, then as many values

A checksum is CRC-32C of what follows it, XOR a number that differs from structure to structure. The
mappings are a tree from device to the root of another tree, from virtual block to u64: the data
block, and in the low 24 bits a time.
"""

import struct
from bisect import bisect_right
from itertools import pairwise
from typing import NamedTuple

from google_crc32c import extend

from restorefs.errors import DamagedError, UnsupportedError

BLOCK = 4096
HEADER = 32
TIME_BITS = 24
_SUPERBLOCK = struct.Struct("<IIQ16sQIIQQ128s128sQQIIQIII")
_NODE = struct.Struct("<IIQIIII")
_MAGIC = 27022010
_SUPERBLOCK_XOR = 160774
_NODE_XOR = 121107
_INTERNAL, _LEAF = 1, 2
_NEEDS_CHECK = 1


class Superblock(NamedTuple):
    """transaction: what the text must say too. data_block: bytes."""

    needs_check: bool
    transaction: int
    mappings: int
    data_block: int


class Node(NamedTuple):
    """A node of a tree: sorted keys, and a value, or the block of a child, for each."""

    leaf: bool
    keys: tuple[int, ...]
    values: tuple[int, ...]

    def find(self, key: int) -> int:
        """Return the index of the last key that is not greater, or -1."""
        return bisect_right(self.keys, key) - 1


def _checksum(raw: bytes, xor: int) -> int:
    # The kernel's CRC-32C does not invert at the end, google's does.
    return int(extend(0, raw[4:BLOCK])) ^ 0xFFFFFFFF ^ xor


def decode_superblock(raw: bytes) -> Superblock:
    """Raises DamagedError, and UnsupportedError for features that are not known."""
    (
        checksum, flags, block, _uuid, magic, version, _time, transaction, _held, _data_map,
        _metadata_map, mappings, _details, sectors, metadata_sectors, _blocks, _compatible,
        _read_only, incompatible,
    ) = _SUPERBLOCK.unpack_from(raw)  # fmt: skip
    if magic != _MAGIC or checksum != _checksum(raw, _SUPERBLOCK_XOR) or block != 0:
        raise DamagedError("the superblock of a thin pool is damaged")
    if version not in (1, 2) or incompatible:
        raise UnsupportedError(
            f"a thin pool has version {version} and incompatible features {incompatible:#x}"
        )
    if metadata_sectors * 512 != BLOCK or sectors == 0:
        raise DamagedError(f"a thin pool has blocks of {metadata_sectors} and {sectors} sectors")
    return Superblock(bool(flags & _NEEDS_CHECK), transaction, mappings, sectors * 512)


def decode_node(raw: bytes, block: int) -> Node:
    """Decode the node that was read from `block`. Raises DamagedError."""
    checksum, flags, own, count, room, value_size, _ = _NODE.unpack_from(raw)
    if checksum != _checksum(raw, _NODE_XOR) or own != block:
        raise DamagedError(f"block {block} of a thin pool's metadata is damaged")
    kind = flags & (_INTERNAL | _LEAF)
    if kind not in (_INTERNAL, _LEAF) or value_size != 8:
        raise DamagedError(f"block {block} of a thin pool's metadata is no node of mappings")
    if count > room or HEADER + room * (8 + value_size) > BLOCK:
        raise DamagedError(f"block {block} of a thin pool's metadata has {count} entries")
    keys = struct.unpack_from(f"<{count}Q", raw, HEADER)
    values = struct.unpack_from(f"<{count}Q", raw, HEADER + 8 * room)
    if any(a >= b for a, b in pairwise(keys)):
        raise DamagedError(f"block {block} of a thin pool's metadata is not in order")
    return Node(kind == _LEAF, keys, values)
