"""What all partition tables have in common.

Owns how one slot of a table becomes a volume. Must not know any table's format. Pure: no I/O.
"""

from collections.abc import Sequence

from restorefs.block.base import BlockDevice, ByteLength, ByteOffset, Window
from restorefs.errors import DamagedError
from restorefs.volumes.base import Volume
from restorefs.volumes.partition_types import PartitionType

_OVERLAPS_NAMED = 8


def make_partition(
    disk: BlockDevice,
    number: int,
    start: ByteOffset,
    size: ByteLength,
    kind: PartitionType,
    *,
    type_code: str,
    uuid: str,
    label: str = "",
) -> Volume:
    """Return the partition in slot `number` (from 1), the bytes [start, start + size) of a disk.

    Never raises: a partition that leaves the disk is a volume with an error and no device, so
    that the others stay readable.
    """
    error = None
    if size <= 0:
        error = DamagedError("the partition ends before it starts")
    elif start + size > disk.size:
        error = DamagedError(
            f"the partition leaves the disk: it is bytes {start} to {start + size},"
            f" the disk has {disk.size}"
        )
    return Volume(
        name=b"part%d" % number,
        index=number,
        device=None if error else Window(disk, start, size),
        start=start,
        type_name=kind.name,
        type_code=type_code,
        label=label,
        uuid=uuid,
        reserved=kind.reserved,
        error=error,
    )


def overlap_notes(volumes: Sequence[Volume]) -> list[str]:
    """Return a note naming readable partitions that share bytes, or nothing if none do."""
    placed = sorted(
        (volume.start, volume.start + volume.device.size, volume.name.decode())
        for volume in volumes
        if volume.device is not None and volume.start is not None
    )
    pairs: list[str] = []
    furthest_end, furthest_name = 0, ""
    for start, end, name in placed:
        if start < furthest_end:
            pairs.append(f"{furthest_name} and {name}")
        if end > furthest_end:
            furthest_end, furthest_name = end, name
    if not pairs:
        return []
    rest = len(pairs) - _OVERLAPS_NAMED
    more = f" and {rest} more" if rest > 0 else ""
    return [f"partitions overlap: {', '.join(pairs[:_OVERLAPS_NAMED])}{more}"]
