"""Whether a log is clean.

Owns the search for the log's head: the block behind the one that was written last. Of a clean log
the last record says that the file system was unmounted. Must not know what records mean.
Source: "Journaling Log".

Concurrency: any number of calls may be in flight.
"""

from itertools import pairwise

from restorefs.block.base import BlockDevice, ByteLength, ByteOffset
from restorefs.errors import DamagedError
from restorefs.guestfs.pieces import PieceReader
from restorefs.guestfs.xfs.layout import Superblock
from restorefs.guestfs.xfs.logrecord import (
    BLOCK_BITS,
    cycle_of,
    decode_record_header,
    is_unmount,
)

_GUESSED = 64  # blocks
_LAST_RECORD: ByteLength = 32 << 10
"""How far before the head the record of an unmount begins at most, but for padding."""


async def is_clean(reader: PieceReader, superblock: Superblock) -> bool:
    """Say whether the log on the file system's own device is clean.

    Raises DamagedError where the log lies outside the device, StorageError.
    """
    if not superblock.holds_blocks(superblock.log_start, superblock.log_blocks):
        raise DamagedError("the log lies outside the file system")
    start = superblock.block_offset(superblock.log_start)
    return await _Ring(reader, superblock, start).is_clean()


async def is_external_clean(device: BlockDevice, superblock: Superblock) -> bool:
    """Say whether the log on a device of its own is clean.

    Raises DamagedError where it is not this file system's, StorageError.
    """
    return await _Ring(PieceReader(device), superblock, 0).is_clean()


class _Ring:
    """The blocks of a log, of 512 bytes, by number."""

    def __init__(self, reader: PieceReader, superblock: Superblock, start: ByteOffset) -> None:
        self._reader = reader
        self._start = start
        self._uuid = superblock.uuid
        self._stripe = superblock.log_stripe
        self._hint = superblock.last_log_block
        self._count = superblock.log_blocks << superblock.block_bits - BLOCK_BITS
        if self._count <= _LAST_RECORD >> BLOCK_BITS:
            raise DamagedError("the log is too small")
        reader.device.check_range(start, self._count << BLOCK_BITS)

    async def is_clean(self) -> bool:
        head = await self._guess()
        if head is None:
            head = await self._search()
        reach = min(self._count, (_LAST_RECORD + self._stripe) >> BLOCK_BITS)
        blocks = await self._before(head, reach)
        for distance in range(1, reach + 1):
            number = (head - distance) % self._count
            record = decode_record_header(_block(blocks, reach - distance), number)
            if record is None:
                continue
            if record.uuid != self._uuid:
                raise DamagedError("the log is of another file system")
            if record.blocks != distance or record.operations != 1:
                return False
            return is_unmount(_block(blocks, reach - distance + record.header_blocks))
        return False

    async def _guess(self) -> int | None:
        """Return the head, if it is soon behind what changed the superblock last, as it is when
        the file system was unmounted: turns grow smaller only there, and at the ring's end."""
        if not 0 < self._hint < self._count:
            return None
        blocks = await self._read(self._hint, min(_GUESSED, self._count - self._hint))
        turns = [cycle_of(_block(blocks, at)) for at in range(len(blocks) >> BLOCK_BITS)]
        for number, (turn, next_turn) in enumerate(pairwise(turns), self._hint + 1):
            if next_turn < turn:
                return number
        return None

    async def _search(self) -> int:
        """Return the first block that was not written in the turn of block 0; 0 where all were:
        found by halving."""
        low, high = 0, self._count
        first = cycle_of(await self._read(low, 1))
        if cycle_of(await self._read(high - 1, 1)) == first:
            return 0
        while high - low > 1:
            middle = (low + high) // 2
            if cycle_of(await self._read(middle, 1)) == first:
                low = middle
            else:
                high = middle
        return high

    async def _before(self, head: int, count: int) -> bytes:
        """Return the blocks before the head, around the ring's end."""
        first = max(0, head - count)
        missing = count - (head - first)
        blocks = await self._read(first, head - first)
        if missing:
            blocks = await self._read(self._count - missing, missing) + blocks
        return blocks

    async def _read(self, number: int, count: int) -> bytes:
        return await self._reader.read(self._start + (number << BLOCK_BITS), count << BLOCK_BITS)


def _block(blocks: bytes, number: int) -> bytes:
    return blocks[number << BLOCK_BITS : number + 1 << BLOCK_BITS]
