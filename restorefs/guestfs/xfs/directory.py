"""The blocks of a folder that hold names.

Owns the decoding of their entries. Pure: gets whole blocks, knows nothing of where they came
from. Source: "Directories", "Block Directories" and "Leaf Directories".

A position is a byte's offset in the folder; entries begin at multiples of 8. A cookie is such a
unit of 8 bytes, behind the one where its entry begins.
"""

import stat
import struct
from typing import TypeAlias

from restorefs.errors import DamagedError
from restorefs.guestfs.base import Inode

Position: TypeAlias = int

POSITION_BITS = 3
INDEX_START: Position = 1 << 35
"""Where the index begins in the address space of a folder (XFS_DIR2_LEAF_OFFSET); behind it lies
what says where there is room for names."""

Record: TypeAlias = tuple[Inode, bytes, int, int]
"""A name: its inode, the name, file_type as stored, and its cookie. A plain tuple, as folders have
very many."""

KINDS = (
    0,
    stat.S_IFREG,
    stat.S_IFDIR,
    stat.S_IFCHR,
    stat.S_IFBLK,
    stat.S_IFIFO,
    stat.S_IFSOCK,
    stat.S_IFLNK,
    *(0 for _ in range(8, 256)),
)
"""The type bits of a mode for each file type; 0 for what is not in the table."""

_DATA_MAGICS = (b"XD2D", b"XDD3")
_BLOCK_MAGICS = (b"XD2B", b"XDB3")
_HEADS = (16, 64)  # xfs_dir2_data_hdr, xfs_dir3_data_hdr
_ENTRY = struct.Struct(">QB")  # inumber, namelen; name, (filetype), (padding), tag follow
_ENTRY_SIZE = 9
_SMALLEST_ENTRY = 16
_TAG_SIZE = 2
_FREE = 0xFFFF  # the first 16 bits of an unused entry; its length follows
_LAST_FREE = b"\xff\xff\x00\x08"  # in 8 bytes, too few for an entry
_TAIL = struct.Struct(">II")  # xfs_dir2_block_tail: count, stale
_LEAF_ENTRY_SIZE = 8


def is_block_form(block: bytes, checked: bool) -> bool:
    """Say whether a folder's first block is its only one, with its index at the end."""
    return block[:4] == _BLOCK_MAGICS[checked]


def decode_records(
    block: bytes, position: Position, checked: bool, has_types: bool
) -> list[Record]:
    """Return a block's entries, in order, "." and ".." among them.

    position: that of the block. checked: it is of version 5. has_types: entries have file types.
    Raises DamagedError unless the entries fill the block exactly.
    """
    records = []
    unpack = _ENTRY.unpack_from
    start, end = _HEADS[checked], _end_of_entries(block, checked)
    extra = _ENTRY_SIZE + has_types + _TAG_SIZE + 7
    first_cookie = (position >> POSITION_BITS) + 1
    file_type = 0
    while start < end:
        if end - start < _SMALLEST_ENTRY:
            if block[start : start + 4] == _LAST_FREE:
                break
            raise DamagedError(f"a directory entry is cut off at byte {position + start}")
        inode, length = unpack(block, start)
        if inode >> 48 == _FREE:
            size = inode >> 32 & 0xFFFF
            if size < 8 or size & 7:
                raise DamagedError(f"free space at byte {position + start} is damaged")
            start += size
            continue
        size = length + extra & ~7
        behind = start + _ENTRY_SIZE + length
        if not length or block[start + size - 2 : start + size] != start.to_bytes(2, "big"):
            raise DamagedError(f"a directory entry at byte {position + start} is damaged")
        if has_types:
            file_type = block[behind]
        name = block[start + _ENTRY_SIZE : behind]
        records.append((inode, name, file_type, first_cookie + (start >> POSITION_BITS)))
        start += size
    if start > end:
        raise DamagedError(f"the entries at byte {position} do not fill their block")
    return records


def decode_record(
    block: bytes, offset: int, checked: bool, has_types: bool
) -> tuple[Inode, bytes] | None:
    """Return the inode and the name of the entry at an offset that an index gave; None where no
    entry is. Raises DamagedError for an offset outside of the entries."""
    end = _end_of_entries(block, checked)
    if offset < _HEADS[checked] or offset + 16 > end:
        raise DamagedError("a directory's index leads outside of its entries")
    inode, length = _ENTRY.unpack_from(block, offset)
    size = length + _ENTRY_SIZE + has_types + _TAG_SIZE + 7 & ~7
    tag = block[offset + size - 2 : offset + size]
    if inode >> 48 == _FREE or offset + size > end or tag != offset.to_bytes(2, "big"):
        return None
    return inode, block[offset + _ENTRY_SIZE : offset + _ENTRY_SIZE + length]


def block_index(block: bytes) -> bytes:
    """Return the packed index of a folder of one block. Raises DamagedError."""
    return block[_index_start(block) : len(block) - _TAIL.size]


def _index_start(block: bytes) -> int:
    count, _ = _TAIL.unpack_from(block, len(block) - _TAIL.size)
    return len(block) - _TAIL.size - int(count) * _LEAF_ENTRY_SIZE


def _end_of_entries(block: bytes, checked: bool) -> int:
    """Return where the entries of a block end, after a look at what it is."""
    if block[:4] == _DATA_MAGICS[checked]:
        return len(block)
    if block[:4] != _BLOCK_MAGICS[checked]:
        raise DamagedError("a directory's block has lost its signature")
    end = _index_start(block)
    if end < _HEADS[checked]:
        raise DamagedError("a directory's block claims too large an index")
    return end
