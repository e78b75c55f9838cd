"""Where a file's holes are: SEEK_DATA and SEEK_HOLE over a guest's map.

Owns how far a search looks at a time, so that a file of terabytes with two blocks in it is searched
in a few steps, and one in a million pieces takes no more memory for it than a read does. Must not
know any format. What has to be decoded is data; space that was reserved and never written is a
hole, as it is to Linux.

Concurrency: others have a turn between the steps.
"""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio

from restorefs.block.base import ByteLength, ByteOffset
from restorefs.errors import NoDataError
from restorefs.guestfs.base import Extent

Map: TypeAlias = Callable[[ByteOffset, ByteLength], Awaitable[list[Extent]]]
"""GuestFilesystem.map of one file."""

_FIRST_STEP = 1 << 20
_LONGEST_STEP = 512 << 20
"""Bytes that are looked at in one go: at most some 100,000 pieces, of blocks of 4 KiB."""
_MAX_STEPS = 1 << 10
"""Of longest steps; those in files beyond 512 GiB are longer."""


async def find_data(extents: Map, size: ByteLength, start: ByteOffset) -> ByteOffset:
    """Return the first byte from `start` on that is data. Raises NoDataError where none comes, and
    what the reader does."""
    found = await _find(extents, size, start, hole=False)
    if found is None:
        raise NoDataError("only a hole comes behind this")
    return found


async def find_hole(extents: Map, size: ByteLength, start: ByteOffset) -> ByteOffset:
    """Return the first byte from `start` on that is in a hole; the end of the file counts as one.
    Raises NoDataError for a start that is not inside the file, and what the reader does."""
    if not 0 <= start < size:
        raise NoDataError("the file ends before this")
    found = await _find(extents, size, start, hole=True)
    return size if found is None else found


async def _find(
    extents: Map, size: ByteLength, start: ByteOffset, *, hole: bool
) -> ByteOffset | None:
    if start < 0:
        return None
    longest = max(_LONGEST_STEP, size // _MAX_STEPS)
    step = _FIRST_STEP
    position = start
    while position < size:
        for extent in await extents(position, min(step, size - position)):
            if (extent.offset is None and not extent.encoded) is hole:
                return position
            position += extent.length
        step = min(2 * step, longest)
        await trio.lowlevel.checkpoint()
    return None
