"""LVM2's old mirrors, and what is being moved: dm-mirror.

Which copy is right: the first one always, for whatever is out of date is copied from it, or that is
being moved from; once it has been moved, the last one. Another one only where the log says that it
is the same; a mirror without a log on disk is synchronised anew each time it is activated, so that
nothing says it of the others.

Source: lvmraid(7) and pvmove(8); Linux, Documentation/admin-guide/device-mapper/log.rst. The log:
+0 u32 "MiRr", +4 u32 version (2), +8 u64 regions; from byte 1024 on a bit for each region, the
lowest first, that is set where all copies are the same.
"""

import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby

from restorefs.block.base import BlockDevice, ByteLength, Window
from restorefs.errors import DamagedError, StorageError, UnsupportedError
from restorefs.volumes.devices.concatenated import concatenated
from restorefs.volumes.devices.mirrored import Mirrored
from restorefs.volumes.devices.missing import not_there
from restorefs.volumes.devices.parity import MAX_MEMBERS
from restorefs.volumes.lvm2.builder import Builder
from restorefs.volumes.lvm2.layout import SECTOR
from restorefs.volumes.lvm2.metadata import LogicalVolume, Segment

_HEADER = struct.Struct("<IIQ")
_MAGIC = 0x4D695272
_BITS_AT = 1024
_MAX_REGIONS = 1 << 24


async def make_mirror(builder: Builder, volume: LogicalVolume, segment: Segment) -> BlockDevice:
    """The copies of a mirror, or the old and the new place of what is being moved."""
    areas = segment.areas("mirrors")
    if not 0 < segment.number("mirror_count") == len(areas) <= MAX_MEMBERS:
        raise DamagedError(f"the logical volume {volume.name} has {len(areas)} copies")
    volumes = [name for name, _ in areas if name not in builder.group.members]
    if len(set(volumes)) != len(volumes):
        raise DamagedError(f"the logical volume {volume.name} has one copy twice")
    copies = [await builder.area(volume, name, at, segment.count) for name, at in areas]
    if segment.number("extents_moved", 0) == segment.count:
        copies = copies[-1:]  # all of it has been moved, and is written to the new place only
    size = builder.size_of(segment)
    same: list[tuple[bool, ByteLength]] = [(False, size)]
    if "mirror_log" in segment.keys:
        log = await builder.part(volume, segment.text("mirror_log"))
        region = segment.number("region_size") * SECTOR
        with suppress(StorageError):  # missing, too: then nothing is known of the other copies
            same = list(await _runs(log, region, size))
    return Mirrored([copies[0], *[_same(copy, same, volume) for copy in copies[1:]]], size)


def _same(
    copy: BlockDevice, runs: list[tuple[bool, ByteLength]], volume: LogicalVolume
) -> BlockDevice:
    """Return a copy, with what may not be the same as the first one missing."""
    parts: list[BlockDevice] = []
    start = 0
    for is_same, length in runs:
        if is_same:
            parts.append(Window(copy, start, length))
        else:
            why = f"nothing says that the copies of {volume.name} are the same there"
            parts.append(not_there(length, why))
        start += length
    return concatenated(parts)


async def _runs(
    log: BlockDevice, region: ByteLength, size: ByteLength
) -> Iterator[tuple[bool, ByteLength]]:
    """Return runs of bytes that are, or may not be, the same on all copies. Raises DamagedError."""
    if region <= 0:
        raise DamagedError("a mirror has regions of 0 bytes")
    magic, version, _ = _HEADER.unpack(await log.read(0, _HEADER.size))
    if magic != _MAGIC:
        raise DamagedError("the log of a mirror has no header")
    if version != 2:
        raise UnsupportedError(f"the log of a mirror has version {version}")
    count = -(-size // region)
    if count > _MAX_REGIONS:
        raise DamagedError(f"a mirror has {count} regions")
    bits = await log.read(_BITS_AT, -(-count // 8))
    states = ((bits[number // 8] >> number % 8 & 1, number) for number in range(count))
    return (
        (bool(state), sum(min(region, size - number * region) for _, number in regions))
        for state, regions in groupby(states, key=lambda item: item[0])
    )
