"""The volume group seam: volumes made of members that may lie on several disks.

Owns what a group is to the layers above: which members it wants, and its volumes, each with the
members that hold a part of it. Must not know which disk a member lies on, nor file systems,
backups or FUSE.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from restorefs.block.base import BlockDevice
from restorefs.errors import RestoreError


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A device that is part of a group, such as an LVM physical volume. Compared by identity.

    uuid: the member's own, as the format's tools print it.
    group_uuid: of the group; "" where the member does not say (an orphan, or one without a copy of
        the metadata, which another member has).
    group_name: for people; "" like group_uuid.
    wanted: UUIDs of the members that the group has according to this one; empty if it does not say.
    orphan: it says that it belongs to no group.
    failure: why what it says of its group cannot be used.
    metadata: what the scheme itself wants to remember of it.
    """

    uuid: str
    device: BlockDevice
    group_uuid: str = ""
    group_name: str = ""
    wanted: frozenset[str] = frozenset()
    orphan: bool = False
    failure: RestoreError | None = None
    metadata: object = None


@dataclass(frozen=True, slots=True)
class GroupVolume:
    """One volume of a group.

    name: the folder's name, as device-mapper names it: b"vg0-root".
    uuid: the volume's own.
    type_name: how it is laid out, for people: "linear", "striped", "raid5", "thin" ...
    members: UUIDs of the members that hold any part of it, missing ones included.
    device: None where nothing of it can be read, and then `error` says why; a StorageError may be
        gone when the group is assembled again. Where only a part cannot be read (a missing member
        without a copy), reading or mapping that part raises StorageError.
    """

    name: bytes
    uuid: str
    type_name: str
    members: frozenset[str]
    device: BlockDevice | None
    error: RestoreError | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """A group as assembled from the members at hand.

    wanted: the UUIDs of all its members; present: of those at hand. volumes: those that people see,
    sorted by UUID (not by name: of two groups with one name each keeps its order). notes: what
    people should know, such as "the newest metadata is damaged, an older copy is used".
    """

    scheme: str
    name: str
    uuid: str
    wanted: frozenset[str]
    present: frozenset[str]
    volumes: Sequence[GroupVolume]
    notes: Sequence[str] = field(default_factory=tuple)


class GroupScheme(ABC):
    """A way to make volumes of members."""

    kind: ClassVar[str]
    member_kind: ClassVar[str]
    """The Identity.kind of a device that is a member."""

    @classmethod
    @abstractmethod
    async def read_member(cls, device: BlockDevice) -> Member:
        """Return what a device that was recognised as a member says of itself.

        Raises DamagedError when no copy of its label or header can be used, StorageError. Damaged
        metadata is not an error here: another member may have a good copy.
        """

    @classmethod
    @abstractmethod
    async def assemble(cls, members: Sequence[Member], why_missing: str = "") -> Sequence[Group]:
        """Return the groups of all given members, sorted by UUID. why_missing: where others may
        be, for people; it is told with the errors of what is missing. Members may be missing, given
        twice (a UUID on two devices: DamagedError in what touches it), or of several groups.

        Never raises for one volume's or one group's sake: the error stays with the volume; a group
        none of whose metadata can be used is left out, and the caller says so of its members.
        StorageError of the metadata of a volume stays with that volume.
        """
