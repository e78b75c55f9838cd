"""One folder: its content, and its listing.

Owns the order, the cookies and the batches: entries come as they are stored, a cookie is the
place behind a set, in entries. What cannot be decoded is said at the end of the listing, behind
everything that can. Must not know what the entries lead to.

Concurrency: any number of listings may be in flight.
"""

from collections.abc import AsyncGenerator
from typing import NamedTuple, TypeAlias

import trio

from restorefs.block.base import ByteLength, ByteOffset
from restorefs.errors import DamagedError, RestoreError
from restorefs.guestfs.base import Extent, Inode
from restorefs.guestfs.exfat.chain import Chain, Chains
from restorefs.guestfs.exfat.directory import Decoded, FileSet, decode_sets
from restorefs.guestfs.exfat.files import inode_at
from restorefs.guestfs.exfat.layout import ENTRY_SIZE
from restorefs.guestfs.pieces import PieceReader

LARGEST_FOLDER: ByteLength = 256 << 20
"""7.6.7."""

FIRST_WINDOW: ByteLength = 16 << 10
WINDOW: ByteLength = 64 << 10

Found: TypeAlias = tuple[Inode, FileSet]


class Window(NamedTuple):
    """Some of a folder. end: the offset behind it; complete: nothing comes behind."""

    found: list[Found]
    end: ByteOffset
    complete: bool
    error: RestoreError | None


class Folder:
    """A folder's content."""

    def __init__(
        self, reader: PieceReader, chains: Chains, inode: Inode, chain: Chain, *, is_root: bool
    ) -> None:
        self.inode = inode
        self.size: ByteLength = chain.length * chains.cluster_size
        self._reader = reader
        self._chains = chains
        self._chain = chain
        self._is_root = is_root

    async def window(self, start: ByteOffset, length: ByteLength) -> Window:
        """Decode the sets from an offset on: `length` bytes of them, more than the largest set."""
        end = min(self.size, start + length)
        if start >= end:
            return Window([], self.size, True, self._damage())
        extents = self._chains.extents(self._chain, start, end - start)
        region = await self._read(extents)
        decoded = decode_sets(region, 0, whole=end == self.size, is_root=self._is_root)
        complete = decoded.ended or end == self.size
        if complete and not decoded.ended and self._chain.damage:
            decoded.note(DamagedError(f"a folder could not be read to its end: {self._damage()}"))
        found = _placed(decoded, extents)
        return Window(found, start + decoded.next, complete, decoded.error)

    async def windows(self, start: ByteOffset = 0) -> AsyncGenerator[Window, None]:
        """Yield large windows from an offset on to the end; other tasks run in between. To be used
        with aclosing()."""
        complete = False
        while not complete:
            window = await self.window(start, WINDOW)
            yield window
            start, complete = window.end, window.complete
            await trio.lowlevel.checkpoint()

    def _damage(self) -> DamagedError | None:
        return DamagedError(self._chain.damage) if self._chain.damage else None

    async def _read(self, extents: list[Extent]) -> bytes:
        parts = [
            await self._reader.read(extent.offset, extent.length)
            for extent in extents
            if extent.offset is not None
        ]
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _placed(decoded: Decoded, extents: list[Extent]) -> list[Found]:
    """Give each set the inode that its place on the volume is."""
    found: list[Found] = []
    pending = iter(extents)
    end = base = 0
    for each in decoded.sets:
        offset = each[0]
        while offset >= end:
            extent = next(pending)
            base = (extent.offset or 0) - end
            end += extent.length
        found.append((inode_at(base + offset), each))
    return found


def cookie_of(start: ByteOffset, each: FileSet) -> int:
    """Return the cookie of a set in a window that starts at an offset."""
    return (start + each.end) // ENTRY_SIZE
