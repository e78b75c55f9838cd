"""The parts of a volume by which formats are recognised, read once.

Owns which parts those are. Must not know any format. What was not read counts as zeros, which no
format's signature is. Immutable once gathered.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

from restorefs.block.base import BlockDevice, ByteLength, ByteOffset
from restorefs.errors import DamagedError, MissingError

_KIB = 1 << 10
_PIECE = 128 * _KIB

_FROM_START = (
    (0, _PIECE),  # nearly everything
    (256 * _KIB, 2 * _KIB),  # UFS, where a large boot loader precedes it
    (1024 * _KIB, 4 * _KIB),  # VMFS
)
_FROM_END = _PIECE  # MD 0.90 and 1.0, DRBD, LDM


@dataclass(frozen=True, slots=True)
class Evidence:
    """Some of a volume's bytes. size: of the volume. pieces: (offset, bytes) that were read.
    incomplete: others could not be, as they lie on a disk that is missing."""

    size: ByteLength
    pieces: Sequence[tuple[ByteOffset, bytes]]
    incomplete: bool = False

    @classmethod
    async def gather(cls, device: BlockDevice) -> Self:
        """Read what recognition needs: four reads at most, of at most 128 KiB each.

        Of a volume of which a disk is missing, or cannot be used, only the start has to be there.
        Raises StorageError, DamagedError.
        """
        wanted = [(start, min(length, device.size - start)) for start, length in _FROM_START]
        if device.size > _PIECE:
            wanted.append((device.size - _FROM_END, _FROM_END))
        pieces = []
        incomplete = False
        for start, length in wanted:
            if length > 0:
                try:
                    pieces.append((start, await device.read(start, length)))
                except (MissingError, DamagedError):
                    if not start:
                        raise
                    incomplete = True
        return cls(device.size, pieces, incomplete)

    def at(self, offset: ByteOffset, length: ByteLength) -> bytes:
        """Return exactly `length` bytes from `offset`."""
        found = (
            data[offset - start : offset - start + length]
            for start, data in self.pieces
            if start <= offset
        )
        return max(found, key=len, default=b"").ljust(length, b"\0")

    def number(
        self, offset: ByteOffset, length: ByteLength, order: Literal["little", "big"] = "little"
    ) -> int:
        """Return the unsigned number of `length` bytes at `offset`."""
        return int.from_bytes(self.at(offset, length), order)

    def text(self, offset: ByteOffset, length: ByteLength, encoding: str = "utf-8") -> str:
        """Return a text of at most `length` bytes, up to its NUL, without spaces at its end."""
        return self.at(offset, length).decode(encoding, "replace").partition("\0")[0].rstrip(" ")

    def uuid(self, offset: ByteOffset) -> str:
        """Return the UUID at `offset` as usually written, "" where there are only zeros."""
        data = self.at(offset, 16)
        return str(uuid.UUID(bytes=data)) if any(data) else ""


def is_power_of_two(number: int, low: int, high: int) -> bool:
    """Tell whether a number from [low, high] is a power of two, as sizes of blocks are."""
    return low <= number <= high and number.bit_count() == 1
