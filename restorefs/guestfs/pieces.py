"""Metadata reads in large aligned pieces.

Owns the division of the volume into pieces of 64 KiB (the unit that the block layer caches) and
a small memory of recent ones. Must not know what is stored in them.

Concurrency: any number of reads may be in flight. Two that miss the same piece read it twice,
which is harmless, as the content never changes.
"""

from collections.abc import Sequence

from restorefs.block.base import BlockDevice, ByteLength, ByteOffset
from restorefs.guestfs.lru import Lru

PIECE_BITS = 16
PIECE_SIZE: ByteLength = 1 << PIECE_BITS
_KEPT_PIECES = 32
_LOADED_AT_ONCE = 16


class PieceReader:
    """Reads metadata of one volume."""

    def __init__(self, device: BlockDevice) -> None:
        self.device = device
        self._recent: Lru[int, bytes] = Lru(_KEPT_PIECES)

    async def read(self, offset: ByteOffset, length: ByteLength) -> bytes:
        """Return exactly `length` bytes. Raises DamagedError, StorageError as the device does."""
        self.device.check_range(offset, length)
        if not length:
            return b""
        first, last = offset >> PIECE_BITS, offset + length - 1 >> PIECE_BITS
        data = b"".join(await self.pieces(range(first, last + 1)))
        start = offset - (first << PIECE_BITS)
        return data[start : start + length]

    async def pieces(self, numbers: Sequence[int]) -> list[bytes]:
        """Return pieces by number, ascending, each of which begins on the device; the device's
        last piece may be short. Several are loaded while the first is waited for."""
        found = {number: self._recent.get(number) for number in numbers}
        missing = [number for number, data in found.items() if data is None]
        if len(missing) > 1:
            for number in missing[:_LOADED_AT_ONCE]:
                self.device.expect(*self._place(number))
        for position, number in enumerate(missing, _LOADED_AT_ONCE):
            piece = found[number] = await self.device.read(*self._place(number))
            self._recent.put(number, piece)
            if position < len(missing):
                self.device.expect(*self._place(missing[position]))
        return [data for data in found.values() if data is not None]

    def _place(self, number: int) -> tuple[ByteOffset, ByteLength]:
        start = number << PIECE_BITS
        return start, min(PIECE_SIZE, self.device.size - start)
