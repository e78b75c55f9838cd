"""Content inside an inode.

Owns where inline data lie: the first 60 bytes in i_block, the rest in the value of the attribute
"system.data" in the same inode. Source: "inlinedata".
"""

from typing import NamedTuple

from restorefs.block.base import ByteLength, ByteOffset
from restorefs.errors import DamagedError
from restorefs.guestfs.base import Extent
from restorefs.guestfs.ext.blockmap import ContentMap
from restorefs.guestfs.ext.inode_record import I_BLOCK_OFFSET, I_BLOCK_SIZE, InodeBody
from restorefs.guestfs.ext.xattr import INLINE_DATA_NAME, PREFIX_SYSTEM, decode_entries

PARENT_SIZE: ByteLength = 4
"""An inline folder starts with the number of its parent instead of "." and ".."."""


class InlineParts(NamedTuple):
    """Where the second part lies in the inode's record; the first one is all of i_block."""

    rest_offset: ByteOffset
    rest_size: ByteLength


def inline_parts(record: bytes, body: InodeBody) -> InlineParts:
    """Find the second part of an inode's inline data. Raises DamagedError."""
    if body.body_xattrs is not None:
        for entry in decode_entries(record, body.body_xattrs, body.body_xattrs):
            if entry.prefix == PREFIX_SYSTEM and entry.name == INLINE_DATA_NAME:
                if entry.value_inode:
                    raise DamagedError("inline data are not inside their inode")
                return InlineParts(entry.offset, entry.size)
    raise DamagedError('inline data have no attribute "system.data"')


def inline_regions(record: bytes, body: InodeBody) -> list[tuple[int, bytes]]:
    """Return an inline folder's two runs of records with their positions. Raises DamagedError."""
    offset, size = inline_parts(record, body)
    regions = [(PARENT_SIZE, body.block[PARENT_SIZE:]), (I_BLOCK_SIZE, record[offset:][:size])]
    return [(position, region) for position, region in regions if region]


class InlineMap(ContentMap):
    """A file inside its inode, whose record lies at `place` on the volume."""

    def __init__(self, record: bytes, body: InodeBody, place: ByteOffset) -> None:
        """Raises DamagedError."""
        offset, size = inline_parts(record, body)
        self._stored = (
            (place + I_BLOCK_OFFSET, 0, I_BLOCK_SIZE),
            (place + offset, I_BLOCK_SIZE, I_BLOCK_SIZE + size),
        )

    async def extents(self, offset: ByteOffset, length: ByteLength) -> list[Extent]:
        end = offset + length
        extents = []
        position = offset
        for place, start, stop in self._stored:
            count = min(end, stop) - max(position, start)
            if count > 0:
                extents.append(Extent(place + position - start, count))
                position += count
        if position < end:
            # A file that was made longer than what is stored reads as zeros from there on.
            extents.append(Extent(None, end - position))
        return extents
