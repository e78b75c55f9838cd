"""Metadata reads in large aligned pieces.

Owns the division of the volume into pieces of 64 KiB (the unit that the block layer caches) and
a small memory of recent ones. Must not know what is stored in them.

Concurrency: any number of reads may be in flight. Two that miss the same piece read it twice,
which is harmless, as the content never changes.
"""

from collections.abc import Iterable, Iterator, Sequence

from restorefs.block.base import BlockDevice, ByteLength, ByteOffset, Place
from restorefs.guestfs.lru import Lru

PIECE_BITS = 16
PIECE_SIZE: ByteLength = 1 << PIECE_BITS
_KEPT_PIECES = 32
_AT_ONCE = 16
_GAP = 3
"""Pieces that are read along with those around them: that costs less than one more request, and
they are likely to be wanted, too."""


def neighbours(numbers: Sequence[int], gap: int = 0) -> Iterator[tuple[int, int]]:
    """Yield the first and the number behind the last of those among ascending numbers between which
    at most `gap` are missing."""
    if not numbers:
        return
    first = behind = numbers[0]
    for number in numbers:
        if number > behind + gap:
            yield first, behind
            first = number
        behind = number + 1
    yield first, behind


class PieceReader:
    """Reads metadata of one volume."""

    def __init__(self, device: BlockDevice, kept: int = _KEPT_PIECES) -> None:
        """kept: pieces to remember."""
        self.device = device
        self._recent: Lru[int, bytes] = Lru(kept)

    async def read(self, offset: ByteOffset, length: ByteLength) -> bytes:
        """Return exactly `length` bytes. Raises DamagedError, StorageError as the device does."""
        self.device.check_range(offset, length)
        if not length:
            return b""
        first, last = offset >> PIECE_BITS, offset + length - 1 >> PIECE_BITS
        start = offset - (first << PIECE_BITS)
        data = self._recent.get(first) if first == last else None
        if data is None:
            data = b"".join(await self.pieces(range(first, last + 1)))
        return data[start : start + length]

    async def pieces(self, numbers: Sequence[int]) -> list[bytes]:
        """Return pieces by number, ascending, each of which begins on the device; the device's
        last piece may be short. Several are loaded while the first is waited for."""
        found = {number: self._recent.get(number) for number in numbers}
        missing = [number for number, data in found.items() if data is None]
        for position, number in enumerate(missing):
            if position % _AT_ONCE == 0 and len(missing) > 1:
                self._expect(missing[position : position + 2 * _AT_ONCE])
            piece = found[number] = await self.device.read(*self._place(number))
            self._recent.put(number, piece)
        return [data for data in found.values() if data is not None]

    def expect(self, places: Iterable[Place]) -> None:
        """Say that places on the device will be read soon, through this or directly."""
        numbers: set[int] = set()
        for offset, length in places:
            numbers.update(range(offset >> PIECE_BITS, (offset + length - 1 >> PIECE_BITS) + 1))
        if numbers:
            self._expect(sorted(numbers))

    def _expect(self, numbers: Sequence[int]) -> None:
        """Have pieces loaded, and what lies between them where that is little."""
        for first, behind in neighbours(numbers, _GAP):
            start = first << PIECE_BITS
            self.device.expect(start, min(behind << PIECE_BITS, self.device.size) - start)

    def _place(self, number: int) -> tuple[ByteOffset, ByteLength]:
        start = number << PIECE_BITS
        return start, min(PIECE_SIZE, self.device.size - start)
