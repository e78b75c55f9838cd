"""One attached disk: its server, its connection, and what is on it.

Owns the objects that live exactly as long as the disk is attached. Must not know when it is let go
(that is the pool's) or what the tree calls it.

Concurrency: opened once by the pool; guest() may be called by any task, a file system is opened
once however many ask. `in_use` counts the requests under way; close() is only called at zero.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import trio

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
from restorefs.session.filedata import FileReader
from restorefs.session.once import Once
from restorefs.session.qemu_nbd import QemuNbd
from restorefs.volumes.base import WHOLE_DISK_INDEX, Volume, VolumeTable

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Guest:
    """An opened file system, its root's attributes, and the reader of its files."""

    filesystem: GuestFilesystem
    root: Attributes
    files: FileReader


@dataclass(slots=True)
class Content:
    """What a volume holds: its identity (None: nothing known), or why that could not be found."""

    volume: Volume
    identity: Identity | None = None
    error: RestoreError | None = None
    opened: Once[Guest] | None = None

    @property
    def is_folder(self) -> bool:
        """It holds files, or may: what is not read yet is a folder that says so."""
        if self.volume.error is not None or self.error is not None:
            return not self.volume.reserved
        return self.identity is not None and self.identity.holds_files


@dataclass(slots=True)
class AttachedDisk:
    """A disk that is served by a qemu-nbd of ours."""

    record: DiskRecord
    server: QemuNbd
    transport: NbdTransport
    device: CachedDisk
    table: VolumeTable
    contents: Mapping[int, Content]
    nursery: trio.Nursery
    options: GuestOptions = DEFAULT_OPTIONS
    attached_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    last_access: float = field(default_factory=trio.current_time)
    in_use: int = 0
    idle: trio.Event = field(default_factory=trio.Event)

    @property
    def whole(self) -> Content | None:
        """The content of a disk without a partition table, else None."""
        return self.contents.get(WHOLE_DISK_INDEX)

    @property
    def whole_guest(self) -> Guest | None:
        """The file system of a disk without a partition table, if it is open already."""
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
        if content.error is not None:
            await _identify(content)
            if content.error is not None:
                raise content.error
        volume, identity = content.volume, content.identity
        if volume.device is None or identity is None:
            raise UnsupportedError("nothing that restorefs recognises is stored here")
        filesystem = await open_guest(volume.device, identity, self.options)
        for note in filesystem.identity.notes:
            where = [self.transport.name, *([os.fsdecode(volume.name)] if volume.name else [])]
            log.info("%s: %s", "/".join(where), note)
        root = await filesystem.attributes(filesystem.root)
        return Guest(filesystem, root, FileReader(filesystem, volume.device))

    def release(self) -> None:
        """End one use; the last one is told to whoever waits for that."""
        self.in_use -= 1
        self.last_access = trio.current_time()
        if self.in_use == 0:
            self.idle.set()
            self.idle = trio.Event()


async def identify_all(table: VolumeTable) -> dict[int, Content]:
    """Find out what every volume holds, all at once; an error stays with its volume."""
    contents = {volume.index: Content(volume) for volume in table.volumes}
    async with trio.open_nursery() as nursery:
        for content in contents.values():
            nursery.start_soon(_identify, content)
    return contents


def _named(volume: Volume, error: RestoreError) -> RestoreError:
    name = os.fsdecode(volume.name)
    return type(error)(f"{name}: {error}" if name else str(error))


async def _identify(content: Content) -> None:
    volume = content.volume
    if volume.device is None:
        content.error = DamagedError(volume.error or "the volume's bytes cannot be found")
        return
    try:
        content.identity = await identify(volume.device)
        content.error = None
    except RestoreError as error:
        content.error = error
    except Exception as error:  # a bug in one reader costs one volume, not the disk's others
        log.exception("unexpected error in what recognises volumes")
        content.error = DamagedError(f"internal error: {error!r}")
