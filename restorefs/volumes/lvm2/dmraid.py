"""The superblock and bitmap that dm-raid keeps beside each leg of an array.

Pure: bytes in, values out. All numbers are little-endian, positions are in sectors of 512 bytes.

Sources: Linux, Documentation/admin-guide/device-mapper/dm-raid.rst (the parameters and what they
mean, the version history); md(4) and the Linux RAID wiki, "RAID superblock formats" and "Bitmap",
for the bitmap. The superblock, in the first sector:

    +0   u32 "DmRd"           +4  u32 compatible features, 1: fields from +60 on
    +8   u32 legs             +12 u32 own position          +16 u64 events, grows with each change
    +24  u64 failed legs, a bit each                        +120 the same for legs from 64 on
    +32  u64 up to where this leg is rebuilt, all ones if it is
    +40  u64 up to where the array is synchronised, all ones if it is
    +48  u32 level  +52 u32 layout  +56 u32 chunk           +60 u32 flags, 1: being reshaped
    +64  u64 how far   +72 u32 new level  +76 u32 new layout  +80 u32 new chunk  +84 i32 legs more
    +88  u64 size of the array  +96 u64 where the leg's data begins  +104 u64 where it will begin
    +112 u64 size of a leg      +144 u32 incompatible features
"""

import struct
from typing import NamedTuple

from restorefs.errors import DamagedError, UnsupportedError

SUPERBLOCK_SIZE = 512
BITMAP_OFFSET = 4096
BITMAP_HEADER = 256
ALL = (1 << 64) - 1

_MAGIC = 0x64526D44
_BASIC = struct.Struct("<4I4Q3I")
_EXTENDED = struct.Struct("<IQIIIiQQQQ")
_RESHAPING = 1
_BITMAP = struct.Struct("<4sI16sQQQIII")
_DIRTY_STATES = 2 | 4  # stale, write error


class Superblock(NamedTuple):
    """failed: the positions of failed legs, a bit each. rebuilt, synchronised: sectors, ALL if
    nothing is left to do."""

    legs: int
    position: int
    events: int
    failed: int
    rebuilt: int
    synchronised: int
    level: int
    layout: int
    chunk: int


class Bitmap(NamedTuple):
    """Which regions may have been written to just then: bits, the lowest first. region: bytes."""

    region: int
    bits: bytes

    def clean(self, offset: int, length: int) -> bool:
        """Tell whether nothing was being written to in a range of bytes."""
        last = min((offset + length - 1) // self.region, 8 * len(self.bits) - 1)
        for number in range(offset // self.region, last + 1):
            if self.bits[number // 8] >> number % 8 & 1:
                return False
        return True


def decode_superblock(raw: bytes) -> Superblock | None:
    """Decode a superblock; None where there is none.

    Raises UnsupportedError for an array that is being reshaped, and for unknown features.
    """
    if len(raw) < SUPERBLOCK_SIZE:
        return None
    magic, features, legs, position, events, failed, rebuilt, synchronised, *shape = (
        _BASIC.unpack_from(raw)
    )
    level, layout, chunk = shape
    if magic != _MAGIC:
        return None
    if features & 1:
        (flags, reshaped, *new, _size, data_offset, new_offset, _leg) = _EXTENDED.unpack_from(
            raw, _BASIC.size
        )
        if flags & _RESHAPING or reshaped != ALL or new != [level, layout, chunk, 0]:
            raise UnsupportedError("a RAID volume that is being reshaped is not read")
        if data_offset or new_offset:
            raise UnsupportedError("a RAID volume with room for reshaping before its data")
        failed |= int.from_bytes(raw[120:144], "little") << 64
        unknown = int.from_bytes(raw[144:148], "little")
        if unknown:
            raise UnsupportedError(f"dm-raid has incompatible features {unknown:#x}")
    return Superblock(legs, position, events, failed, rebuilt, synchronised, level, layout, chunk)


def decode_bitmap_header(raw: bytes) -> tuple[int, int]:
    """Return the size of a region and the number of bytes of bits. Raises DamagedError."""
    magic, version, _uuid, _events, _cleared, sectors, state, region, _ = _BITMAP.unpack_from(raw)
    if magic != b"bitm" or version not in (3, 4, 5):
        raise DamagedError("an array has no bitmap of writes")
    if region < 512 or region & (region - 1) or state & _DIRTY_STATES:
        raise DamagedError("the bitmap of writes of an array is not valid")
    return region, (-(-sectors * 512 // region) + 7) // 8
