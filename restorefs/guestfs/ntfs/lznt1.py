"""The compression units of an NTFS attribute.

Owns the walk over the chunks of a unit and the rules for what they leave out. Pure: bytes in,
bytes out. Must not know where the bytes lie: finding out that a unit is compressed (fewer clusters
are allocated than it has), plain (all of them) or a hole (none) is the run list's business.

Format: MS-XCA 2.5 (LZNT1) and the linux-ntfs documentation, "Compression".
"""

from collections.abc import Sequence

from restorefs.block.base import ByteLength
from restorefs.errors import DamagedError
from restorefs.guestfs.decompress import LZNT1_CHUNK, Part, decode_parts, lznt1_chunk

_COMPRESSED = 0x8000  # in a chunk's header (MS-XCA 2.5.1.2)
_SIGNATURE_MASK, _SIGNATURE = 0x7000, 0x3000
_LENGTH_MASK = 0x0FFF  # of the header and the data, less three


def decode_unit(stored: bytes, size: ByteLength) -> bytes:
    """Decode one compression unit.

    stored: the clusters that are allocated for it, fewer than the unit has. What lies behind the
    end of the compressed data in them is not looked at.
    size: the bytes that are wanted from the unit's beginning: at most those inside the file's
    valid data. Exactly as many are returned.

    A chunk stands for 4096 bytes, or for what is left of `size`; a compressed one that holds fewer
    is filled up with zeros, and so is what comes after a marker of the end (a header of zero). A
    unit that begins with that marker holds nothing and is damaged: one of zeros only is a hole on
    NTFS. Raises DamagedError, also when `stored` ends before `size` bytes without a marker.
    """
    pieces: list[bytes] = []
    position = done = 0
    while done < size:
        header = int.from_bytes(stored[position : position + 2], "little")
        if not header and done and position + 2 <= len(stored):
            pieces.append(bytes(size - done))
            break
        end = position + (header & _LENGTH_MASK) + 3
        if header & _SIGNATURE_MASK != _SIGNATURE or end > len(stored):
            raise DamagedError(
                f"compressed data is damaged: no chunk at byte {position} of {len(stored)}"
            )
        wanted = min(LZNT1_CHUNK, size - done)
        if header & _COMPRESSED:
            pieces.append(lznt1_chunk(stored[position:end])[:wanted].ljust(wanted, b"\0"))
        elif end - position - 2 < wanted:
            raise DamagedError("compressed data is damaged: a plain chunk is too short")
        else:
            pieces.append(stored[position + 2 : position + 2 + wanted])
        done += wanted
        position = end
    return b"".join(pieces)


async def decode_units(units: Sequence[Part]) -> list[bytes]:
    """Decode several units, as decode_unit() does, off the event loop where they are many."""
    return await decode_parts(decode_unit, units)
