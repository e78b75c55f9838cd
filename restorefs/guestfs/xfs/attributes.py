"""The extended attributes of an inode.

Owns the walk through the fork of attributes. Source: "Extended Attributes".

Concurrency: any number of calls may be in flight.
"""

from restorefs.block.base import ByteOffset
from restorefs.errors import DamagedError
from restorefs.guestfs.base import Inode
from restorefs.guestfs.xfs.blockmap import BlockMap, Volume
from restorefs.guestfs.xfs.checksum import DA_BLOCK, REMOTE, verify
from restorefs.guestfs.xfs.dabtree import NODE_MAGICS, decode_node, magic_of, next_of
from restorefs.guestfs.xfs.inode_record import FORMAT_LOCAL, Fork
from restorefs.guestfs.xfs.xattr import (
    AS_STORED,
    LEAF_MAGICS,
    Entry,
    RemoteValue,
    decode_leaf,
    decode_short_form,
    shown_value,
)

_MAX_LEVELS = 5  # XFS_DA_NODE_MAXDEPTH
_REMOTE_MAGIC = b"XARM"  # xfs_attr3_rmt_hdr: rm_magic, rm_offset, rm_bytes, rm_crc
_REMOTE_HEAD = 56
_LARGEST_VALUE = 64 << 10


async def read_attributes(volume: Volume, inode: Inode, fork: Fork) -> dict[bytes, bytes]:
    """Return an inode's attributes as Linux shows them. Raises DamagedError, StorageError."""
    if fork.form == FORMAT_LOCAL:
        entries = decode_short_form(fork.raw)
        return await _values(volume, inode, None, entries)
    blocks = BlockMap(volume, inode, fork)
    return await _values(volume, inode, blocks, await _entries(volume, inode, blocks))


async def _values(
    volume: Volume, inode: Inode, blocks: BlockMap | None, entries: list[Entry]
) -> dict[bytes, bytes]:
    shown: dict[bytes, bytes] = {}
    room = volume.limits.xattr_bytes
    for name, stored in entries:
        value = stored
        if isinstance(value, RemoteValue):
            if blocks is None or value.size > _LARGEST_VALUE:
                raise DamagedError(f"an attribute of inode {inode} claims {value.size} bytes")
            value = await _remote_value(volume, inode, blocks, value)
        room -= len(value)
        if room < 0:
            raise DamagedError(f"the extended attributes of inode {inode} are too large")
        value_shown = shown_value(name, value)
        if value_shown is not None:
            shown[name] = value_shown
            if name in AS_STORED:
                shown[AS_STORED[name]] = value
    return shown


async def _entries(volume: Volume, inode: Inode, blocks: BlockMap) -> list[Entry]:
    """Return the entries of all leaves, from the first one on."""
    number = 0
    block = await _index_block(volume, inode, blocks, number)
    for _ in range(_MAX_LEVELS):
        if magic_of(block) != NODE_MAGICS[volume.checked]:
            break
        number = decode_node(block, volume.checked).children[0]
        block = await _index_block(volume, inode, blocks, number)
    entries: list[Entry] = []
    seen = {number}
    most = volume.limits.xattr_bytes // volume.block_size
    while len(seen) <= most:
        if magic_of(block) != LEAF_MAGICS[volume.checked]:
            raise DamagedError(f"the extended attributes of inode {inode} are damaged")
        entries += decode_leaf(block, volume.checked)
        number = next_of(block)
        if not number:
            return entries
        if number in seen:
            break
        seen.add(number)
        block = await _index_block(volume, inode, blocks, number)
    raise DamagedError(f"the extended attributes of inode {inode} do not end")


async def _index_block(volume: Volume, inode: Inode, blocks: BlockMap, number: int) -> bytes:
    ((offset, raw),) = await _read(volume, inode, blocks, number, 1)
    volume.verify(raw, DA_BLOCK, inode, offset, f"a block of the attributes of inode {inode}")
    return raw


async def _remote_value(
    volume: Volume, inode: Inode, blocks: BlockMap, value: RemoteValue
) -> bytes:
    """Return a value that lies in blocks of its own ("Remote Attribute Values")."""
    per_block = volume.block_size - (_REMOTE_HEAD if volume.checked else 0)
    parts = await _read(volume, inode, blocks, value.block, -(-value.size // per_block))
    if not volume.checked:
        return b"".join([raw for _, raw in parts])[: value.size]
    what = f"the value of an attribute of inode {inode}"
    found = b""
    for offset, raw in parts:
        if raw[:4] != _REMOTE_MAGIC:
            raise DamagedError(f"{what} has lost its signature")
        verify(raw, REMOTE, volume.superblock.meta_uuid, inode, offset, what)
        start, length = int.from_bytes(raw[4:8], "big"), int.from_bytes(raw[8:12], "big")
        if start != len(found) or length != min(per_block, value.size - start):
            raise DamagedError(f"{what} is out of order")
        found += raw[_REMOTE_HEAD : _REMOTE_HEAD + length]
    return found


async def _read(
    volume: Volume, inode: Inode, blocks: BlockMap, first: int, count: int
) -> list[tuple[ByteOffset, bytes]]:
    """Return blocks of the fork, each with its place on the volume."""
    size = volume.block_size
    found = []
    for block, length in await blocks.runs(first, first + count):
        if block is None:
            raise DamagedError(f"the extended attributes of inode {inode} have a hole")
        offset = volume.place(block, length)
        raw = await volume.reader.read(offset, length * size)
        found += [(offset + at, raw[at : at + size]) for at in range(0, len(raw), size)]
    return found
