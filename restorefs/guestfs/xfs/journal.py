"""Whether a log is clean.

Owns the search for the log's head: the block behind the one that was written last. Of a clean log
the last record says that the file system was unmounted. Must not know what records mean.
Source: "Journaling Log".

Concurrency: any number of calls may be in flight.
"""

from restorefs.block.base import BlockDevice, ByteLength, ByteOffset
from restorefs.errors import DamagedError
from restorefs.guestfs.xfs.layout import Superblock
from restorefs.guestfs.xfs.logrecord import (
    BLOCK_BITS,
    BLOCK_SIZE,
    cycle_of,
    decode_record_header,
    is_unmount,
)

_LAST_RECORD: ByteLength = 32 << 10
"""How far before the head the record of an unmount begins at most, but for padding."""


async def is_clean(device: BlockDevice, superblock: Superblock) -> bool:
    """Say whether the log on the file system's own device is clean.

    Raises DamagedError where the log lies outside the device, StorageError.
    """
    if not superblock.holds_blocks(superblock.log_start, superblock.log_blocks):
        raise DamagedError("the log lies outside the file system")
    start = superblock.block_offset(superblock.log_start)
    return await _Ring(device, superblock, start).is_clean()


async def is_external_clean(device: BlockDevice, superblock: Superblock) -> bool:
    """Say whether the log on a device of its own is clean.

    Raises DamagedError where it is not this file system's, StorageError.
    """
    return await _Ring(device, superblock, 0).is_clean()


class _Ring:
    """The blocks of a log, of 512 bytes, by number."""

    def __init__(self, device: BlockDevice, superblock: Superblock, start: ByteOffset) -> None:
        self._device = device
        self._start = start
        self._uuid = superblock.uuid
        self._stripe = superblock.log_stripe
        self._count = superblock.log_blocks << superblock.block_bits - BLOCK_BITS
        if self._count <= _LAST_RECORD >> BLOCK_BITS:
            raise DamagedError("the log is too small")
        device.check_range(start, self._count << BLOCK_BITS)

    async def is_clean(self) -> bool:
        first = cycle_of(await self._block(0))
        head = await self._head(first)
        # What was written last is of the first block's turn, unless that is yet to come again.
        before = min(self._count, (_LAST_RECORD + self._stripe) >> BLOCK_BITS)
        blocks = await self._before(head, before)
        for distance in range(1, before + 1):
            number = (head - distance) % self._count
            raw = blocks[-distance * BLOCK_SIZE :][:BLOCK_SIZE]
            record = decode_record_header(raw, number)
            if record is None:
                continue
            if record.uuid != self._uuid:
                raise DamagedError("the log is of another file system")
            if record.blocks != distance or record.operations != 1:
                return False
            operation = (distance - record.header_blocks) * BLOCK_SIZE
            return is_unmount(blocks[-operation:])
        return False

    async def _head(self, first: int) -> int:
        """Return the first block that was not written in the turn of block 0; 0 where all were:
        found by halving, as turns only grow toward it."""
        low, high = 0, self._count
        if cycle_of(await self._block(high - 1)) == first:
            return 0
        while high - low > 1:
            middle = (low + high) // 2
            if cycle_of(await self._block(middle)) == first:
                low = middle
            else:
                high = middle
        return high

    async def _block(self, number: int) -> bytes:
        return await self._device.read(self._start + (number << BLOCK_BITS), BLOCK_SIZE)

    async def _before(self, head: int, count: int) -> bytes:
        """Return the blocks before the head, around the ring's end."""
        first = max(0, head - count)
        raw = await self._device.read(
            self._start + (first << BLOCK_BITS), head - first << BLOCK_BITS
        )
        missing = count - (head - first)
        if not missing:
            return raw
        start = self._start + (self._count - missing << BLOCK_BITS)
        return await self._device.read(start, missing << BLOCK_BITS) + raw
