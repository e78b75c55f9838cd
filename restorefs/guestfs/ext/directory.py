"""The blocks of a folder.

Owns the decoding of directory records, the search for one name among them, and the checksums at
the end of a block. Pure: gets whole blocks, knows nothing of where they came from.
Source: "directory" for everything here, "inlinedata" for folders inside an inode.

A region is a run of records that ends where its bytes end: a block, or one of the two parts of
an inline folder. A position is a byte's offset in the folder.
"""

import stat
import struct
from bisect import bisect_right
from typing import NamedTuple, TypeAlias

from restorefs.errors import DamagedError
from restorefs.guestfs.base import Inode
from restorefs.guestfs.ext.checksum import crc32c

Position: TypeAlias = int

# inode, rec_len, name_len, file_type: ext4_dir_entry_2. Without the filetype feature the last
# byte is the upper half of name_len, which is 0 as names have at most 255 bytes.
_HEADER = struct.Struct("<IHBB")
_TAIL = struct.Struct("<IHBBI")  # ext4_dir_entry_tail
_TAIL_TYPE = 0xDE
_SMALLEST_RECORD = 12
_HASHES = struct.Struct("<II")  # ext4_extended_dir_entry_2

_ROOT_INFO = struct.Struct("<IBBBB")  # dx_root_info, behind "." and ".."
_ROOT_INFO_OFFSET = 0x18
_ROOT_LIMIT_OFFSET = 0x20
_NODE_LIMIT_OFFSET = 0x8
_LIMITS = struct.Struct("<HH")
_INDEX_ENTRY_SIZE = 8
_INDEX_TAIL_SIZE = 8
_MAX_LEVELS = 3

_KINDS = (
    0,
    stat.S_IFREG,
    stat.S_IFDIR,
    stat.S_IFCHR,
    stat.S_IFBLK,
    stat.S_IFIFO,
    stat.S_IFSOCK,
    stat.S_IFLNK,
)
KINDS = _KINDS + (0,) * (256 - len(_KINDS))
"""The type bits of a mode for each file_type, table ftype; 0 for what is not in it."""
NO_KINDS = (0,) * 256
"""The same for a folder that does not record file types."""


Record: TypeAlias = tuple[Inode, bytes, int, Position, int]
"""A record in use: inode, name, file_type as stored, the position behind the record, and the
offset of the record in its region. A plain tuple, as folders have very many."""


def decode_records(region: bytes, position: Position) -> list[Record]:
    """Return the records in use, in order; position is that of the region's first byte.

    Raises DamagedError unless the records fill the region exactly.
    """
    records = []
    unpack = _HEADER.unpack_from
    size = len(region)
    whole_block = size & 0xFFFF  # a record of 64 KiB does not fit its 16 bits
    start = 0
    while start < size:
        if size - start < _SMALLEST_RECORD:
            raise DamagedError(f"a directory record is cut off at byte {position + start}")
        inode, length, name_length, file_type = unpack(region, start)
        if not whole_block and length in (0, 0xFFFF):
            length = size
        end = start + length
        if length < name_length + 8 or length < _SMALLEST_RECORD or length & 3 or end > size:
            raise DamagedError(f"a directory record at byte {position + start} is damaged")
        if inode:
            name = region[start + 8 : start + 8 + name_length]
            records.append((inode, name, file_type, position + end, start))
        start = end
    return records


def decode_parent(block: bytes) -> Inode | None:
    """Return the inode of ".." from a folder's first block, where it is the second record; None
    where it is not there."""
    _, length, *_ = _HEADER.unpack_from(block)
    if _SMALLEST_RECORD <= length <= len(block) - _SMALLEST_RECORD:
        inode, _, name_length, _ = _HEADER.unpack_from(block, length)
        if block[length + 8 : length + 8 + name_length] == b"..":
            return int(inode)
    return None


def find_record(region: bytes, name: bytes) -> Inode | None:
    """Return the inode of a name, or None. Decodes nothing unless the name's bytes occur.

    Raises DamagedError where they do, but the records before them are damaged.
    """
    found = region.find(name)
    while found >= 0:
        if found >= 8 and region[found - 2] == len(name):
            for inode, other, *_ in decode_records(region, 0):
                if other == name:
                    return inode
            return None
        found = region.find(name, found + 1)
    return None


def stored_hashes(region: bytes, record: Record) -> tuple[int, int]:
    """Return the hashes behind a name in a folder that is encrypted and ignores case.

    Raises DamagedError where the record has no room for them.
    """
    _, name, _, _, start = record
    offset = start + 8 + (len(name) + 3 & ~3)
    if offset + _HASHES.size > len(region):
        raise DamagedError("a directory record has no room for its hash")
    hash_, minor_hash = _HASHES.unpack_from(region, offset)
    return hash_, minor_hash


def verify_block(block: bytes, seed: int, *, first: bool, indexed: bool) -> None:
    """Verify a block's checksum under metadata_csum.

    seed: inode_seed() of the folder. first: it is the folder's first block. indexed: the folder
    has a hash tree (FLAG_INDEX). Raises DamagedError.
    """
    if indexed and (first or _is_index_node(block)):
        _verify_index(block, seed)
        return
    tail_start = len(block) - _TAIL.size
    inode, length, name_length, file_type, stored = _TAIL.unpack_from(block, tail_start)
    if inode or name_length or length != _TAIL.size or file_type != _TAIL_TYPE:
        raise DamagedError("a directory block has no checksum")
    if stored != crc32c(seed, block[:tail_start]):
        raise DamagedError("a directory block has a wrong checksum")


def _is_index_node(block: bytes) -> bool:
    """Say whether one unused record hides the whole block: an interior node (dx_node)."""
    inode, length, name_length, _ = _HEADER.unpack_from(block)
    whole = length == len(block) or (len(block) == 0x10000 and length in (0, 0xFFFF))
    return not inode and not name_length and whole


def _verify_index(block: bytes, seed: int) -> None:
    limits = _NODE_LIMIT_OFFSET if _is_index_node(block) else _ROOT_LIMIT_OFFSET
    limit, count = _LIMITS.unpack_from(block, limits)
    tail_start = limits + limit * _INDEX_ENTRY_SIZE
    if not count <= limit or tail_start + _INDEX_TAIL_SIZE > len(block):
        raise DamagedError("a directory's index block has no room for its checksum")
    # The checksum covers the entries in use and the tail, with the checksum itself as zero.
    covered = block[: limits + count * _INDEX_ENTRY_SIZE]
    covered += block[tail_start : tail_start + 4] + bytes(4)
    stored = int.from_bytes(block[tail_start + 4 : tail_start + 8], "little")
    if stored != crc32c(seed, covered):
        raise DamagedError("a directory's index block has a wrong checksum")


class IndexRoot(NamedTuple):
    """What an indexed folder's first block says (dx_root_info): which hash, and how many levels
    of index blocks lie between it and the records."""

    version: int
    levels: int


def decode_index_root(block: bytes) -> IndexRoot:
    """Raises DamagedError."""
    reserved, version, length, levels, _ = _ROOT_INFO.unpack_from(block, _ROOT_INFO_OFFSET)
    if reserved or length != _ROOT_INFO.size or levels > _MAX_LEVELS:
        raise DamagedError("a directory's index has a damaged root")
    return IndexRoot(version, levels)


def next_index_block(block: bytes, hash_: int) -> tuple[int, int | None]:
    """Return the block of the folder that a hash leads to from an index block (dx_entry), and
    the hash that the block behind it starts with, None for the last one.

    Raises DamagedError.
    """
    limits = _NODE_LIMIT_OFFSET if _is_index_node(block) else _ROOT_LIMIT_OFFSET
    limit, count = _LIMITS.unpack_from(block, limits)
    end = limits + count * _INDEX_ENTRY_SIZE
    if not 0 < count <= limit or end > len(block):
        raise DamagedError("a directory's index block is damaged")
    # The first entry has its limits where the others have their hash, which would be 0.
    numbers = struct.unpack(f"<{2 * count}I", block[limits:end])
    hashes, blocks = numbers[2::2], numbers[1::2]
    index = bisect_right(hashes, hash_)
    return blocks[index], hashes[index] if index < len(hashes) else None
