"""Volumes that a disk shares with others of its backup.

Owns how the members of volume groups are found on a backup's disks, and which disk's folder shows a
group's volumes: the lowest-numbered one that holds a part of it; the others have a link there. Must
not know any format, or when disks are let go.

Concurrency: assemble() is called once for an attached disk. The disks that it looks at are kept in
use by whoever gives them, until it returns.
"""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from restorefs.errors import DamagedError, RestoreError, StorageError
from restorefs.guestfs.base import Identity
from restorefs.session.disk import AttachedDisk, Content, identify_all
from restorefs.volumes.base import Volume
from restorefs.volumes.groups import Group, GroupScheme, GroupVolume, Member
from restorefs.volumes.registry import GROUP_SCHEMES, read_table

log = logging.getLogger(__name__)
_UUID_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Others:
    """The other disks of a backup, as far as they were looked at: those attached, and why others
    could not be, by disk number."""

    disks: Sequence[AttachedDisk]
    failed: Mapping[int, RestoreError]


async def read_members(contents: Mapping[int, Content]) -> dict[int, Member]:
    """Return what those volumes that are members of groups say of themselves, by index. What is
    wrong with one becomes its content's error."""
    members = {}
    for index, content in contents.items():
        scheme = _scheme_of(content)
        if scheme is None or content.volume.device is None:
            continue
        try:
            members[index] = await scheme.read_member(content.volume.device)
        except RestoreError as error:
            content.error = error
        except Exception as error:  # a bug in one scheme costs one volume, not the disk's others
            log.exception("unexpected error in a volume scheme")
            content.error = DamagedError(f"internal error: {error!r}")
    return members


def _scheme_of(content: Content) -> type[GroupScheme] | None:
    kind = content.identity.kind if content.identity is not None else ""
    return next((scheme for scheme in GROUP_SCHEMES if scheme.member_kind == kind), None)


def is_whole(disk: AttachedDisk, others: Iterable[AttachedDisk]) -> bool:
    """Tell whether all members are at hand of all groups that a disk has a part of."""
    at_hand = {m.uuid for each in (disk, *others) for m in each.members.values()}
    mine = [member for member in disk.members.values() if not member.orphan]
    if all(member.wanted for member in mine):
        return all(member.wanted <= at_hand for member in mine)
    # A member without a copy of its group's metadata: another one has it.
    told = [m for each in (disk, *others) for m in each.members.values() if m.wanted]
    return all(any(m.uuid in other.wanted <= at_hand for other in told) for m in mine)


Indexes: TypeAlias = dict[tuple[str, str], int]
"""The volume index of each of a disk's group volumes, by the UUIDs of the group and of the volume.
Node ids are made of it: one that was given is never given to another volume."""


async def assemble(disk: AttachedDisk, others: Others, indexes: Indexes) -> None:
    """Put the volumes of all groups that a disk has a part of into its contents.

    indexes: as known so far; what is new is added. Raises nothing: what is wrong with a volume, or
    with a member whose group is not known, stays with it.
    """
    holders = {m: each for each in (disk, *others.disks) for m in each.members.values()}
    named: dict[str, set[str]] = {}
    for member in holders:
        named.setdefault(member.group_name, set()).add(member.group_uuid)
    first = max(disk.contents, default=0) + 1
    shown: dict[int, Content] = {}
    for scheme in GROUP_SCHEMES:
        mine = {i: m for i, m in disk.members.items() if _scheme_of(disk.contents[i]) is scheme}
        if not mine:
            continue
        groups = await _groups_of(disk, scheme, mine, holders, _why(others))
        for number, member in mine.items():
            _settle(disk, disk.contents[number], member, groups, others)
        for group in groups:
            _note_missing(disk, group, others)
            places = [(m.uuid, each) for m, each in holders.items() if m.uuid in group.present]
            disk.companions |= {each for _, each in places if each is not disk}
            suffix = f"~{group.uuid[:_UUID_SHOWN]}" if len(named.get(group.name, ())) > 1 else ""
            for volume in group.volumes:
                free = max(first, *(number + 1 for number in indexes.values()), 0)
                index = indexes.setdefault((group.uuid, volume.uuid), free)
                content = _content(disk, index, volume, suffix, places)
                if content is not None:
                    shown[index] = content
    here = [content for content in shown.values() if content.elsewhere is None]
    await identify_all(here)
    for content in here:
        await _note_table(content)
    disk.contents.update(shown)


async def _note_table(content: Content) -> None:
    """Name a partition table, as a host of virtual machines has it in a volume: it divides what is
    shown as one, and is not read there."""
    volume = content.volume
    if content.identity is None and content.error is None and volume.device is not None:
        try:
            table = await read_table(volume.device)
        except RestoreError as error:
            content.error = error
        except Exception as error:
            log.exception("unexpected error in a volume scheme")
            content.error = DamagedError(f"internal error: {error!r}")
        else:
            if table.scheme != "none":
                content.identity = Identity(table.scheme, notes=("a disk within a volume",))


async def _groups_of(
    disk: AttachedDisk,
    scheme: type[GroupScheme],
    mine: Mapping[int, Member],
    known: Iterable[Member],
    why_missing: str,
) -> list[Group]:
    """Return the groups that a disk has a part of, sorted by UUID, those that it tells of itself
    first: these are the same whichever other disks are at hand."""
    names = {member.group_uuid for member in mine.values()}
    concerned = [m for m in known if "" in names or m.group_uuid in names or not m.group_uuid]
    own = list(mine.values())
    try:
        groups = await scheme.assemble([*own, *(m for m in concerned if m not in own)], why_missing)
    except Exception as error:  # a bug in one scheme costs its members, not the disk's others
        log.exception("unexpected error in a volume scheme")
        for index in mine:
            disk.contents[index].error = DamagedError(f"internal error: {error!r}")
        return []
    uuids = {member.uuid for member in own}
    found = [group for group in groups if group.present & uuids]
    return sorted(found, key=lambda group: (group.uuid not in names, group.uuid))


def _settle(
    disk: AttachedDisk, content: Content, member: Member, groups: Iterable[Group], others: Others
) -> None:
    """Say what a member's own folder is: none, where its group's volumes are shown instead."""
    if content.error is not None:
        return
    if any(member.uuid in group.present for group in groups):
        content.is_member = True
    elif member.orphan:
        content.is_member = True
        disk.notes.append(f"physical volume {member.uuid} belongs to no volume group")
    elif member.failure is not None:
        content.error = DamagedError(f"what it says of its volume group: {member.failure}")
    elif member.group_uuid:
        content.error = DamagedError(
            f"no copy of the metadata of volume group {member.group_name} can be used"
        )
    elif others.failed:
        content.error = StorageError(
            f"its volume group is described on another disk: {_why(others)}"
        )
    else:
        content.error = StorageError(
            "its volume group is described on another disk, which is not in this backup"
        )


def _note_missing(disk: AttachedDisk, group: Group, others: Others) -> None:
    disk.notes.extend(f"volume group {group.name}: {note}" for note in group.notes)
    missing = sorted(group.wanted - group.present)
    if missing:
        note = (
            f"volume group {group.name}: {len(missing)} of {len(group.wanted)} members are missing"
            f" ({', '.join(missing)}): {_why(others)}"
        )
        disk.notes.append(note)
        log.warning("%s: %s", disk.transport.name, note)


def _why(others: Others) -> str:
    """Say why what is missing may be."""
    if not others.failed:
        return "no disk of this backup in the catalog has it"
    return "; ".join(f"disk{number}: {error}" for number, error in sorted(others.failed.items()))


def _content(
    disk: AttachedDisk,
    index: int,
    volume: GroupVolume,
    suffix: str,
    places: Sequence[tuple[str, AttachedDisk]],
) -> Content | None:
    """Return a volume as a disk shows it; None where the disk has nothing of it. places: where the
    group's members are; one may be on several disks, which is an error of what touches it. suffix:
    tells volumes of groups of one name apart; all disks that share one know the same groups."""
    holders = [each for uuid, each in places if uuid in volume.members]
    home = min(each.record.disk_index for each in holders or (each for _, each in places))
    here = home == disk.record.disk_index
    if not here and disk not in holders:
        return None
    shown = Volume(
        volume.name + os.fsencode(suffix),
        index,
        volume.device,
        type_name=volume.type_name,
        uuid=volume.uuid,
        error=volume.error,
    )
    return Content(shown, error=volume.error, elsewhere=None if here else home)
