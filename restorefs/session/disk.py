"""One attached disk: its server, its connection, and what is on it.

Owns the objects that live exactly as long as the disk is attached. Must not know when it is let go
(that is the pool's) or what the tree calls it, or how volumes across disks are put together
(assembly.py).

Concurrency: opened once by the pool; guest() may be called by any task, a file system is opened
once however many ask. `in_use` counts the requests under way; close() is only called at zero.
"""

import logging
import math
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeAlias

import trio

from restorefs.block.base import BlockDevice
from restorefs.block.cache import CachedDisk
from restorefs.block.nbd import NbdTransport
from restorefs.catalog.records import DiskRecord
from restorefs.errors import (
    DamagedError,
    GoneError,
    RestoreError,
    StorageError,
    UnsupportedError,
)
from restorefs.guestfs.base import (
    DEFAULT_OPTIONS,
    Attributes,
    GuestFilesystem,
    GuestOptions,
    Identity,
)
from restorefs.guestfs.registry import identify, open_guest
from restorefs.session.asker import Described
from restorefs.session.filedata import FileReader
from restorefs.session.once import Once
from restorefs.session.qemu_nbd import QemuNbd
from restorefs.session.unchanged import Unchanged
from restorefs.volumes.base import WHOLE_DISK_INDEX, Volume, VolumeTable
from restorefs.volumes.groups import Member

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Guest:
    """An opened file system, its root's attributes, and the reader of its files."""

    filesystem: GuestFilesystem
    root: Attributes
    files: FileReader


@dataclass(slots=True)
class Content:
    """What a volume holds: its identity (None: nothing known), or why that could not be found.

    is_member: it is part of a group, whose volumes are shown instead. elsewhere: the number of the
    disk whose folder shows this volume, where it is not this disk's.
    """

    volume: Volume
    identity: Identity | None = None
    error: RestoreError | None = None
    opened: Once[Guest] | None = None
    is_member: bool = False
    elsewhere: int | None = None

    @property
    def is_shown(self) -> bool:
        """The disk's folder has a name for it."""
        return self.is_folder or self.elsewhere is not None

    @property
    def is_folder(self) -> bool:
        """It holds files, or may: what is not read yet is a folder that says so."""
        if self.is_member or self.elsewhere is not None:
            return False
        if self.volume.error is not None or self.error is not None:
            return not self.volume.reserved
        return self.identity is not None and self.identity.holds_files


Look: TypeAlias = Callable[[BlockDevice], Awaitable[None]]
Find: TypeAlias = Callable[[str, str, Look], Awaitable[bool]]
"""Finds a volume of a backup by the kind and UUID of what it holds, and has it looked at; False
where there is none."""


@dataclass(slots=True, eq=False)
class AttachedDisk:
    """A disk that is served by a qemu-nbd of ours.

    contents: by the volumes' index. members: those that are parts of groups, by index too.
    companions: the disks that it shares volumes with; they are let go together. assembled: how the
    groups' volumes came into `contents`; None on a disk without members. attached_for: who asked.
    try_again_at: when it may be worth while to look again for what is missing (trio's clock).
    unchanged: the files that are served, if they are. generation: as DiskRecord has it, and another
    one for other files.
    """

    record: DiskRecord
    server: QemuNbd
    transport: NbdTransport
    device: CachedDisk
    table: VolumeTable
    contents: dict[int, Content]
    nursery: trio.Nursery
    find: Find
    members: Mapping[int, Member] = field(default_factory=dict)
    companions: "set[AttachedDisk]" = field(default_factory=set)
    assembled: Once[None] | None = None
    try_again_at: float = math.inf
    notes: list[str] = field(default_factory=list)
    options: GuestOptions = DEFAULT_OPTIONS
    unchanged: Unchanged | None = None
    generation: int = field(init=False)
    attached_for: Described | None = None
    attached_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    last_access: float = field(default_factory=trio.current_time)
    in_use: int = 0
    idle: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        of_record = self.record.generation
        unchanged = self.unchanged
        self.generation = unchanged.generation(of_record) if unchanged is not None else of_record

    @property
    def whole(self) -> Content | None:
        """The content of a disk that is one volume, else None."""
        whole = self.contents.get(WHOLE_DISK_INDEX)
        return whole if whole is not None and not whole.is_member else None

    @property
    def whole_guest(self) -> Guest | None:
        """The file system of a disk that is one volume, if it is open already."""
        whole = self.whole
        return whole.opened.value if whole is not None and whole.opened is not None else None

    @property
    def last_accessed_at(self) -> datetime:
        """The wall-clock time of the last access, UTC."""
        elapsed = trio.current_time() - self.last_access
        return datetime.fromtimestamp(datetime.now(UTC).timestamp() - elapsed, UTC)

    @property
    def filesystems(self) -> str:
        """The kinds of what was found, for the attach record."""
        found = [c.identity.kind for c in self.contents.values() if c.identity is not None]
        return ",".join(found)

    @property
    def unit(self) -> "set[AttachedDisk]":
        """All disks that are let go together with this one, itself included."""
        found, beyond = {self}, {self}
        while beyond := {other for disk in beyond for other in disk.companions} - found:
            found |= beyond
        return found

    def link_of(self, index: int) -> bytes | None:
        """Return where the link leads that stands for a volume which another disk shows; None for
        any other volume."""
        content = self.contents.get(index)
        if content is None or content.elsewhere is None:
            return None
        return b"../disk%d/%s" % (content.elsewhere, content.volume.name)

    async def guest(self, index: int) -> Guest:
        """Return a volume's file system, opened at first use.

        Raises UnsupportedError, KeyNeededError, DamagedError or StorageError, GoneError for an
        index that is not there. What the content is to blame for stays so while the disk is
        attached; a storage error is tried again.
        """
        content = self.contents.get(index)
        if content is None:
            raise GoneError(f"{self.transport.name} has no volume {index} any more")
        if content.error is not None and not isinstance(content.error, StorageError):
            raise _named(content.volume, content.error)
        if content.opened is None or isinstance(content.opened.error, StorageError):
            content.opened = Once()
            self.nursery.start_soon(content.opened.run, lambda: self._open(content))
        try:
            return await content.opened.wait()
        except RestoreError as error:
            raise _named(content.volume, error) from None

    async def _open(self, content: Content) -> Guest:
        if content.error is not None and content.identity is None:
            await _identify(content)
        if content.error is not None:
            raise content.error
        volume, identity = content.volume, content.identity
        if volume.device is None or identity is None:
            raise UnsupportedError("nothing that restorefs recognises is stored here")
        filesystem = await open_guest(volume.device, identity, self.options)
        await self._show_log(content, filesystem)
        for note in filesystem.identity.notes:
            where = [self.transport.name, *([os.fsdecode(volume.name)] if volume.name else [])]
            log.info("%s: %s", "/".join(where), note)
        root = await filesystem.attributes(filesystem.root)
        return Guest(filesystem, root, FileReader(filesystem, volume.device))

    async def _show_log(self, content: Content, filesystem: GuestFilesystem) -> None:
        """Show a file system its journal where that is on another volume of the backup."""
        wanted = filesystem.identity.log_uuid
        if not wanted:
            return
        kind = f"{filesystem.identity.kind}_external_log"
        try:
            found = await self.find(kind, wanted, filesystem.show_log)
        except (DamagedError, StorageError) as error:
            log.warning("%s: its journal cannot be looked at: %s", self.transport.name, error)
            found = True
        note = "a journal on another device was not found: its state is not known"
        if not found and note not in self.notes:
            self.notes.append(note)
        content.identity = filesystem.identity

    def release(self) -> None:
        """End one use; the last one is told to whoever waits for that."""
        self.in_use -= 1
        self.last_access = trio.current_time()
        if self.in_use == 0:
            self.idle.set()
            self.idle = trio.Event()


async def identify_all(contents: Iterable[Content]) -> None:
    """Find out what every volume holds, all at once; an error stays with its volume."""
    async with trio.open_nursery() as nursery:
        for content in contents:
            nursery.start_soon(_identify, content)


def _named(volume: Volume, error: RestoreError) -> RestoreError:
    name = os.fsdecode(volume.name)
    return type(error)(f"{name}: {error}" if name else str(error))


async def _identify(content: Content) -> None:
    volume = content.volume
    if volume.device is None:
        content.error = volume.error or DamagedError("the volume's bytes cannot be found")
        return
    try:
        content.identity = await identify(volume.device)
        content.error = None
    except RestoreError as error:
        content.error = error
    except Exception as error:  # a bug in one reader costs one volume, not the disk's others
        log.exception("unexpected error in what recognises volumes")
        content.error = DamagedError(f"internal error: {error!r}")
