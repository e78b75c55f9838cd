"""LVM2 as a GroupScheme.

Owns which of the many copies of a group's text is used, and how its volumes are listed. Nothing
is kept; groups may be assembled side by side.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import trio

from restorefs.block.base import BlockDevice
from restorefs.errors import DamagedError, RestoreError
from restorefs.volumes.groups import Group, GroupScheme, GroupVolume, Member
from restorefs.volumes.lvm2.builder import (
    MAX_DEPTH,
    Builder,
    Maker,
    make_error,
    make_striped,
    make_zero,
)
from restorefs.volumes.lvm2.member import Copies, read_member
from restorefs.volumes.lvm2.metadata import LogicalVolume, VolumeGroup, check_name
from restorefs.volumes.lvm2.mirror import make_mirror
from restorefs.volumes.lvm2.names import mapper_name
from restorefs.volumes.lvm2.raid import RAID_TYPES, make_raid, make_raid0
from restorefs.volumes.lvm2.snapshot import merged, open_snapshot
from restorefs.volumes.lvm2.thin import make_thin

_MAKERS: dict[str, Maker] = {
    "linear": make_striped,
    "striped": make_striped,
    "zero": make_zero,
    "error": make_error,
    "mirror": make_mirror,
    "raid0": make_raid0,
    "raid0_meta": make_raid0,
    "thin": make_thin,
    **dict.fromkeys(RAID_TYPES, make_raid),
}

_NOT_FOR_FILES = {"thin-pool", "snapshot"}
"""What thin volumes are read through, and what only says that another volume is a snapshot."""

_GROUP_NOTES = {
    "EXPORTED": "it is exported",
    "CLUSTERED": "it is clustered: another machine may have been writing to it",
    "PARTIAL": "it was incomplete when it was last changed",
}
_MAX_PARTS = 2048


class Lvm2(GroupScheme):
    """Volume groups of physical volumes."""

    kind: ClassVar[str] = "lvm2"
    member_kind: ClassVar[str] = "LVM2_member"

    @classmethod
    async def read_member(cls, device: BlockDevice) -> Member:
        """Return what a physical volume says of itself. See restorefs/volumes/groups.py."""
        return await read_member(device)

    @classmethod
    async def assemble(cls, members: Sequence[Member], why_missing: str = "") -> Sequence[Group]:
        """Return the groups of these members. See restorefs/volumes/groups.py."""
        newest: dict[str, VolumeGroup] = {}
        # In the same order always, so that the same copy wins where two claim to be the newest.
        members = sorted(members, key=lambda member: member.uuid)
        for member in members:
            for group in _copies(member).groups:
                known = newest.get(group.uuid)
                if known is None or group.seqno > known.seqno:
                    newest[group.uuid] = group
        return [await _assemble(newest[uuid], members, why_missing) for uuid in sorted(newest)]


def _copies(member: Member) -> Copies:
    assert isinstance(member.metadata, Copies)
    return member.metadata


async def _assemble(group: VolumeGroup, members: Sequence[Member], why_missing: str) -> Group:
    wanted = frozenset(member.uuid for member in group.members.values())
    devices: defaultdict[str, list[BlockDevice]] = defaultdict(list)
    for member in members:
        if member.uuid in wanted:
            devices[member.uuid].append(member.device)
    builder = Builder(group, dict(devices), _MAKERS, why_missing)
    builder.overlapping = _overlapping(group)
    notes = list(_notes(group, members, devices))
    volumes = []
    snapshots = _snapshots(group)
    merging = _merging(group)
    notes += [
        f"the snapshot {name!r} of {snapshots[name]!r} has nothing to read it from"
        for name in sorted(snapshots.keys() - group.volumes.keys())
    ]
    for volume in group.volumes.values():
        await trio.lowlevel.checkpoint()  # there may be thousands
        try:
            check_name(volume.name)
        except DamagedError as error:  # before anything else: it must not become a folder
            notes.append(f"a volume is left out: {error}")
            continue
        origin = snapshots.get(volume.name)
        if origin is not None:
            volumes.append(await _volume(builder, volume, origin, merging))
        elif volume.visible and not _NOT_FOR_FILES & {s.type for s in volume.segments}:
            volumes.append(await _volume(builder, volume, None, merging))
    return Group(
        scheme=Lvm2.kind,
        name=group.name,
        uuid=group.uuid,
        wanted=wanted,
        present=frozenset(devices),
        volumes=sorted(volumes, key=lambda volume: (volume.uuid, volume.name)),
        notes=[*notes, *builder.notes],
    )


async def _volume(
    builder: Builder, volume: LogicalVolume, origin: str | None, merging: set[str]
) -> GroupVolume:
    """Return a volume that people see, with what is wrong with it. origin: of a snapshot, whose
    store has its name; merging: the volumes that a snapshot is being merged into."""
    group = builder.group
    device, error = None, None
    try:
        if (origin or volume.name) in merging:
            raise merged(origin or volume.name)
        device = await builder.device(volume.name)
        if origin is not None:
            device = await open_snapshot(volume.name, await builder.device(origin), device)
    except RestoreError as caught:
        device, error = None, caught
    return GroupVolume(
        name=mapper_name(group.name, volume.name),
        uuid=volume.uuid,
        type_name=_type_name(volume) if origin is None else "snapshot",
        members=_members_of(group, [volume.name, origin] if origin else [volume.name]),
        device=device,
        error=error,
    )


def _snapshots(group: VolumeGroup) -> dict[str, str]:
    """Return the origins of snapshots by the volumes that store what changed, which people see as
    the snapshots."""
    found = {}
    for volume in group.volumes.values():
        for segment in volume.segments:
            store, origin = segment.keys.get("cow_store"), segment.keys.get("origin")
            if segment.type == "snapshot" and isinstance(store, str) and isinstance(origin, str):
                found[store] = origin
    return found


def _merging(group: VolumeGroup) -> set[str]:
    """Return the volumes that a snapshot is being merged into."""
    return {
        str(segment.keys.get("origin"))
        for volume in group.volumes.values()
        for segment in volume.segments
        if segment.type == "snapshot" and "merging_store" in segment.keys
    }


def _type_name(volume: LogicalVolume) -> str:
    """Return how a volume is laid out, as lvs(8) names it."""
    kinds = []
    for segment in volume.segments:
        linear = segment.type == "striped" and segment.keys.get("stripe_count") == 1
        kinds.append("linear" if linear else segment.kind)
    return ", ".join(dict.fromkeys(kinds)) or "unknown"


def _members_of(group: VolumeGroup, names: Iterable[str]) -> frozenset[str]:
    """Return the members that volumes lie on, by whatever they name in the text, as deep as a
    volume may lie. One with very many parts is said to lie on all members."""
    found: set[str] = set()
    level = list(names)
    seen = set(level)
    for _ in range(MAX_DEPTH):
        below = []
        for volume in (group.volumes.get(name) for name in level):
            for name in _named(volume) if volume is not None else ():
                if name in group.members:
                    found.add(group.members[name].uuid)
                elif name in group.volumes and name not in seen:
                    seen.add(name)
                    below.append(name)
        level = below
        if len(seen) > _MAX_PARTS:
            return frozenset(member.uuid for member in group.members.values())
    return frozenset(found)


def _named(volume: LogicalVolume) -> Iterator[str]:
    """Yield all words in a volume's segments that may name a part; `origin` of a thin snapshot
    only says where it came from."""
    for segment in volume.segments:
        for key, value in segment.keys.items():
            if isinstance(value, str) and key not in ("type", "origin"):
                yield value
            elif isinstance(value, list):
                yield from (item for item in value if isinstance(item, str))


def _overlapping(group: VolumeGroup) -> frozenset[str]:
    """Return the volumes that share extents of a member with another, or with themselves."""
    runs = []
    for volume in group.volumes.values():
        for segment in volume.segments:
            try:
                key = {"striped": "stripes", "linear": "stripes", "mirror": "mirrors"}[segment.type]
                areas = segment.areas(key)
            except (KeyError, DamagedError):  # of another kind; or its own error says so
                continue
            count = segment.count
            if key == "stripes" and areas:
                count = -(-count // len(areas))
            runs += [
                (name, start, start + count, volume.name)
                for name, start in areas
                if name in group.members
            ]
    runs.sort()
    bad: set[str] = set()
    on, furthest, last = "", 0, ""
    for name, start, end, volume_name in runs:
        if name != on:
            on, furthest = name, 0
        if start < furthest:
            bad |= {volume_name, last}
        if end > furthest:
            furthest, last = end, volume_name
    return frozenset(bad)


def _notes(
    group: VolumeGroup, members: Sequence[Member], devices: dict[str, list[BlockDevice]]
) -> Iterator[str]:
    """Yield what people should know of a group."""
    for flag, note in _GROUP_NOTES.items():
        if flag in group.flags:
            yield note
    for physical in group.members.values():
        count = len(devices.get(physical.uuid, ()))
        if count > 1:
            yield f"the physical volume {physical.uuid} is on {count} devices: neither is used"
        if count and "MISSING" in physical.flags:
            yield f"the physical volume {physical.uuid} is out of date: it is not used"
    for member in members:
        if member.uuid not in devices:
            if member.group_uuid == group.uuid:
                yield f"the physical volume {member.uuid} is no longer part of the group"
            continue
        for failure in _copies(member).failures:
            yield f"on the physical volume {member.uuid}, {failure}"
        for copy in _copies(member).groups:
            if copy.uuid == group.uuid and copy.seqno < group.seqno:
                yield (
                    f"the physical volume {member.uuid} has an older copy of the metadata,"
                    f" {copy.seqno} of {group.seqno}: the newest is used"
                )
            elif copy.uuid == group.uuid and copy != group:
                yield (
                    f"the metadata on the physical volume {member.uuid} has the same number as"
                    " another one, and says something else: it is not used"
                )
