"""From the description of a volume to the device that reads it.

Owns looking up what a volume lies on, each volume once, and the bounds on that: no volume lies on
itself, none is nested deeper than LVM nests, and none is a part of two others, so that a read is
no more work than the text is long. What the segment types are is in modules of their own.

Concurrency: one task assembles a group; nothing here is used after that but the devices.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from restorefs.block.base import BlockDevice, ByteLength, Window
from restorefs.errors import DamagedError, RestoreError, StorageError, UnsupportedError
from restorefs.volumes.devices.concatenated import concatenated
from restorefs.volumes.devices.missing import Missing, Zeros, not_there
from restorefs.volumes.devices.striped import Striped
from restorefs.volumes.lvm2.layout import SECTOR
from restorefs.volumes.lvm2.metadata import LogicalVolume, PhysicalVolume, Segment, VolumeGroup

if TYPE_CHECKING:
    from restorefs.volumes.lvm2.thin import Pool

MAX_DEPTH = 12
"""A thin volume on a pool on RAID on images that are being moved is six deep."""

_HARMLESS = {"RESHAPE", "RESHAPE_DATA_OFFSET"}
"""Flags of types that only keep older tools away: whether an array is being reshaped, and where its
data begins, is in its own metadata."""

Maker = Callable[["Builder", LogicalVolume, Segment], Awaitable[BlockDevice]]


class Builder:
    """Makes the devices of one group. devices: of the members at hand, by UUID; two where two
    devices say that they are the same member."""

    def __init__(
        self,
        group: VolumeGroup,
        devices: dict[str, Sequence[BlockDevice]],
        makers: dict[str, Maker],
        why_missing: str = "",
    ) -> None:
        self.group = group
        self.extent_size = group.extent_size
        self._devices = devices
        self._makers = makers
        self._why_missing = f": {why_missing}" if why_missing else ""
        self._made: dict[str, BlockDevice | RestoreError] = {}
        self._parents: dict[str, str] = {}
        self._building: list[str] = []
        self.pools: dict[str, Pool | RestoreError] = {}
        self.overlapping: frozenset[str] = frozenset()
        self.notes: list[str] = []

    async def device(self, name: str) -> BlockDevice:
        """Return what a volume of the group reads as. Raises DamagedError, UnsupportedError, and
        StorageError where what describes it cannot be read; what is only missing raises later."""
        made = self._made.get(name)
        if made is None:
            if name in self._building or len(self._building) >= MAX_DEPTH:
                chain = " on ".join([*self._building[-3:], name])
                raise DamagedError(f"logical volumes are nested without end: {chain}")
            self._building.append(name)
            try:
                made = await self._make(name)
            except RestoreError as error:
                made = error
            finally:
                self._building.pop()
            self._made[name] = made
        if isinstance(made, RestoreError):
            raise type(made)(*made.args)
        return made

    def volume(self, name: str) -> LogicalVolume:
        """Return a volume's description. Raises DamagedError where it has none that is sound."""
        volume = self.group.volumes.get(name)
        if volume is None:
            raise DamagedError(f"volume group {self.group.name} has no volume {name!r}")
        if volume.error is not None:
            raise DamagedError(*volume.error.args)
        if name in self.overlapping:
            raise DamagedError(f"the logical volume {name} has extents that another one has too")
        return volume

    async def part(self, parent: LogicalVolume, name: str) -> BlockDevice:
        """Return a volume that is part of another. Raises as device(), and DamagedError where it
        is part of a third one; only what a move is about is shared."""
        owner = self._parents.setdefault(name, parent.name)
        if owner != parent.name and "PVMOVE" not in self.volume(name).flags:
            raise DamagedError(f"the logical volume {name} is part of {owner} and {parent.name}")
        return await self.device(name)

    async def area(self, parent: LogicalVolume, name: str, extent: int, count: int) -> BlockDevice:
        """Return `count` extents from `extent` on of a physical or logical volume."""
        start, size = extent * self.extent_size, count * self.extent_size
        member = self.group.members.get(name)
        if member is not None:
            return self._on_member(member, extent, count)
        below = await self.part(parent, name)
        if start + size > below.size:
            raise DamagedError(f"the logical volume {parent.name} leaves its part {name}")
        return below if (start, size) == (0, below.size) else Window(below, start, size)

    def size_of(self, segment: Segment) -> ByteLength:
        return segment.count * self.extent_size

    async def _make(self, name: str) -> BlockDevice:
        volume = self.volume(name)
        segments = []
        for segment in volume.segments:
            make = self._makers.get(segment.kind)
            if make is None or segment.flags - _HARMLESS:
                raise UnsupportedError(
                    f"the logical volume {name} is of type {segment.type}, which is not read"
                )
            made = await make(self, volume, segment)
            # Room for reshaping counts as extents, but holds no data.
            if made.size != self.size_of(segment) and "reshape_count" not in segment.keys:
                raise DamagedError(f"the logical volume {name} has {made.size} bytes in a segment")
            segments.append(made)
        return concatenated(segments)

    def _on_member(self, member: PhysicalVolume, extent: int, count: int) -> BlockDevice:
        size = count * self.extent_size
        if extent + count > member.extents:
            raise DamagedError(
                f"extents {extent} to {extent + count} lie outside the physical volume"
                f" {member.uuid} of {member.extents}"
            )
        devices = self._devices.get(member.uuid, ())
        what = f"the physical volume {member.uuid} of volume group {self.group.name}"
        if "MISSING" in member.flags:
            return not_there(size, f"{what} was missing when the group changed: it is out of date")
        if not devices:
            hint = f" (it was {member.device_hint})" if member.device_hint else ""
            return not_there(size, f"{what} is missing{hint}{self._why_missing}")
        if len(devices) > 1:
            return Missing(size, DamagedError(f"{what} is on {len(devices)} devices"))
        return _window(devices[0], member.start + extent * self.extent_size, size, what)


def _window(device: BlockDevice, start: int, size: ByteLength, what: str) -> BlockDevice:
    """Return a part of a device; what lies behind its end reads as damaged."""
    inside = max(0, min(size, device.size - start))
    if inside == size:
        return Window(device, start, size)
    error = DamagedError(f"{what} lies on a device of only {device.size} bytes")
    rest = Missing(size - inside, error)
    return concatenated([Window(device, start, inside), rest]) if inside else rest


async def make_striped(builder: Builder, volume: LogicalVolume, segment: Segment) -> BlockDevice:
    """One area is linear; several take turns with chunks of stripe_size sectors."""
    areas = segment.areas("stripes")
    if not 0 < segment.number("stripe_count") == len(areas):
        raise DamagedError(f"the logical volume {volume.name} has {len(areas)} stripes")
    count, rest = divmod(segment.count, len(areas))
    if rest:
        raise DamagedError(
            f"the logical volume {volume.name} has {segment.count} extents on {len(areas)} stripes"
        )
    members = [await builder.area(volume, name, extent, count) for name, extent in areas]
    if len(members) == 1:
        return members[0]
    return Striped(members, segment.number("stripe_size") * SECTOR, builder.size_of(segment))


async def make_zero(builder: Builder, volume: LogicalVolume, segment: Segment) -> BlockDevice:
    """Nothing is stored."""
    return Zeros(builder.size_of(segment))


async def make_error(builder: Builder, volume: LogicalVolume, segment: Segment) -> BlockDevice:
    """What was lost: LVM puts this in the place of what a removed member had."""
    error = StorageError(f"a part of the logical volume {volume.name} was removed from its group")
    return Missing(builder.size_of(segment), error)
