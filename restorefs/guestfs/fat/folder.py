"""One folder: its bytes, and the entries in them.

Owns where a folder's entries lie and where they end. A place in a folder is a slot, 32 bytes; an
inode is the place of a file's entry on the volume, in the same unit. Must not know what the
entries lead to.

Concurrency: any number of calls may be in flight; what is remembered only grows.
"""

from bisect import bisect_right
from typing import NamedTuple

import trio

from restorefs.block.base import ByteLength, ByteOffset
from restorefs.errors import DamagedError
from restorefs.guestfs.base import Inode
from restorefs.guestfs.fat.directory import (
    MOST_SLOTS,
    Decoded,
    Named,
    decode_entries,
    find_end,
)
from restorefs.guestfs.fat.layout import ENTRY_SIZE
from restorefs.guestfs.pieces import PieceReader

_WINDOW = 64 << 10


class Stretch(NamedTuple):
    """A part of a folder that is in one piece on the volume, in bytes."""

    position: int
    offset: ByteOffset
    length: ByteLength


class Part(NamedTuple):
    """Some entries of a folder. start: what their slots count from. behind: the slot to go on at.
    ended: there are no more."""

    start: int
    found: list[Named]
    behind: int
    ended: bool


class Folder:
    """A folder. fault: why its chain breaks off, "" where it does not."""

    def __init__(
        self, reader: PieceReader, stretches: list[Stretch], fault: str, codepage: str
    ) -> None:
        self._reader = reader
        self._stretches = stretches
        self._positions = [stretch.position for stretch in stretches]
        self._fault = fault
        self._codepage = codepage
        self._slots = sum(stretch.length for stretch in stretches) // ENTRY_SIZE
        # Where the mark is that ends the folder, and how many slots are known not to have it.
        self._end: int | None = None
        self._before_end = 0

    async def read(self, position: int, length: ByteLength) -> bytes:
        """Return bytes of the folder, fewer only at its end. Raises StorageError, DamagedError."""
        end = min(position + length, self._slots * ENTRY_SIZE)
        number = bisect_right(self._positions, position) - 1
        parts = []
        while position < end:
            stretch = self._stretches[number]
            inside = position - stretch.position
            count = min(stretch.length - inside, end - position)
            parts.append(await self._reader.read(stretch.offset + inside, count))
            position += count
            number += 1
        return b"".join(parts)

    def inode_at(self, slot: int) -> Inode:
        """Return the inode of the entry in a slot."""
        position = slot * ENTRY_SIZE
        stretch = self._stretches[bisect_right(self._positions, position) - 1]
        return (stretch.offset + position - stretch.position) // ENTRY_SIZE

    async def part(self, slot: int, window: ByteLength = _WINDOW) -> Part:
        """Return the entries from a slot on that lie in the next `window` bytes.

        Raises DamagedError where the folder goes on but nothing more can be read.
        """
        if await self._is_behind_end(slot):
            return Part(slot, [], slot, True)
        if slot >= self._slots:
            if self._fault:
                raise DamagedError(f"a folder's chain of clusters breaks off: {self._fault}")
            return Part(slot, [], slot, True)
        # The name of the first entry may begin before it.
        start = max(0, slot - MOST_SLOTS + 1)
        data = await self.read(start * ENTRY_SIZE, (slot - start) * ENTRY_SIZE + window)
        last = start + len(data) // ENTRY_SIZE == self._slots
        decoded = decode_entries(data, self._codepage, last=last)
        behind = start + decoded.slots
        self._note(start, decoded)
        found = decoded.found
        while found and start + found[0].slot < slot:
            del found[0]
        ended = decoded.ended or (behind >= self._slots and not self._fault)
        return Part(start, found, behind, ended)

    def _note(self, start: int, decoded: Decoded) -> None:
        behind = start + decoded.slots
        if decoded.ended:
            self._end = behind
        elif start <= self._before_end:
            self._before_end = max(self._before_end, behind)

    async def _is_behind_end(self, slot: int) -> bool:
        """Tell whether a slot is not before the mark that ends the folder: what is there is old.

        Going on where a listing stopped, this is known; a slot out of the blue is looked into.
        """
        while self._end is None and self._before_end < min(slot, self._slots):
            start = self._before_end
            data = await self.read(start * ENTRY_SIZE, _WINDOW)
            end = find_end(data)
            if end is not None:
                self._end = start + end
            else:
                self._before_end = max(self._before_end, start + len(data) // ENTRY_SIZE)
            await trio.lowlevel.checkpoint()
        return self._end is not None and slot >= self._end
