"""The whole mount as a tree of nodes, without FUSE in it: what FUSE and HTTP both serve.

Owns the way from a node id to a backup, a disk, a volume and a guest's inode, and where each level
hands over to the next. Must not know who asks. Every method raises RestoreErrors only: NotFound
for a name, Gone for a node whose backup has left the catalog, and what attaching, the reader
and the storage raise.

Concurrency: nothing is locked; the namespace is replaced whole, so that after an await a backup may
be gone: what is looked up then may raise GoneError.
"""

import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from restorefs.block.base import ByteOffset
from restorefs.catalog.records import DiskRecord
from restorefs.errors import (
    DamagedError,
    GoneError,
    NotAFolderError,
    NotALinkError,
    NotFoundError,
    RestoreError,
    UnsupportedError,
)
from restorefs.guestfs.base import Attributes, GuestFilesystem
from restorefs.session.disk import AttachedDisk
from restorefs.session.filedata import Data
from restorefs.session.pool import Pool
from restorefs.tree.holes import find_data, find_hole
from restorefs.tree.namespace import Above, Changes, Namespace
from restorefs.tree.nodeid import MAX_INODE, VOLUME_FOLDER, GuestNode, NodeId, NodeIds, is_above
from restorefs.tree.presentation import Presentation
from restorefs.volumes.base import WHOLE_DISK_INDEX

ERROR_XATTR = b"user.restorefs.error"
ABOVE_TTL = 5
"""Seconds that a caller may keep what lies above the guests. A path there has one node id for ever;
the catalog can only change whether it is there, its time, and where a link leads."""
UNKNOWN_TTL = 0
"""Seconds that a caller may keep what a disk's folder looks like while nobody has looked inside:
what its root allows comes to be known with the first access."""
FLEETING_TTL = 1
"""Seconds that a caller may keep what a name in a disk's folder means: the disk may come to be
another backup's."""
GUEST_TTL = 86_400
"""Seconds that a caller may keep what lies in a guest: it never changes."""


_COOKIE_MASK = (1 << 62) - 1
_MAX_DELETED = 10_000


class Entry(NamedTuple):
    """A node with its attributes; they are None where the guest's inode could not be read, and
    `kind` is then what the folder says of it. `ttl` in whole seconds. `generation`: of the disk
    (DiskRecord), 0 above the guests."""

    node: NodeId
    attributes: Attributes | None
    ttl: int
    kind: int = 0
    generation: int = 0


class Listed(NamedTuple):
    """A name of a folder; `cookie` goes on behind it."""

    name: bytes
    entry: Entry
    cookie: int


class Batch(NamedTuple):
    """The next entries of a folder. `complete`: none come behind; only then may it be empty."""

    items: Sequence[Listed]
    complete: bool


class Tree:
    """The nodes of one mount."""

    def __init__(self, pool: Pool, presentation: Presentation, started_ns: int) -> None:
        """`started_ns` is the time shown for folders that have none of their own."""
        self._owner = os.geteuid(), os.getegid()
        self.namespace = Namespace((), started_ns)
        self._pool = pool
        self._presentation = presentation
        self._started_ns = started_ns
        self._ids = NodeIds()
        self._roots: dict[int, tuple[DiskRecord, Attributes]] = {}  # of whole disks, once known
        self._gone: dict[int, int] = {}  # the generation of each disk that left the catalog
        self.deleted: dict[str, str] = {}
        """The backups that left the catalog while we run, the last ones, with their VMs' names."""

    def replace(self, namespace: Namespace, changes: Changes) -> None:
        """Have the tree be as another namespace says."""
        for disk_id in changes.gone:
            self._roots.pop(disk_id, None)
            # Not over one that went before: its files may still be open.
            self._gone.setdefault(disk_id, self.namespace.disks[disk_id].generation)
        for disk_id in self._gone.keys() & namespace.disks.keys():
            if namespace.disks[disk_id].generation != self._gone.pop(disk_id):
                self._ids.retire(disk_id)
        for backup_id in self.namespace.backups.keys() - namespace.backups.keys():
            self.deleted[backup_id] = self.namespace.backups[backup_id].vm_name
        while len(self.deleted) > _MAX_DELETED:
            del self.deleted[next(iter(self.deleted))]
        self.namespace = namespace

    def renew(self, record: DiskRecord) -> Changes:
        """Let nothing that was handed out of a disk mean anything any more: its image is another
        one. Returns what whoever has seen the tree must not believe any more."""
        self._ids.retire(record.id)
        self._roots.pop(record.id, None)
        return self.namespace.around(record)

    def _require_current(self, disk: AttachedDisk) -> None:
        """Raise GoneError unless a disk, whose files are to get node ids, is still what the catalog
        means by its number. To be asked behind the last await: ids of a disk that was replaced
        meanwhile would be the new one's."""
        record = self.namespace.disks.get(disk.record.id)
        meant = disk.record
        if record is not meant and (record is None or record.generation != meant.generation):
            raise GoneError("this backup is no longer in the catalog")

    # --- what callers ask ---------------------------------------------------------------------

    async def getattr(self, node: NodeId) -> Entry:
        """Return a node's attributes. Above the guests this never attaches."""
        if is_above(node):
            return self._above_entry(self._above(node))
        record, guest_node = self._guest_node(node)
        async with self._pool.use(record) as disk:
            if guest_node.inode == VOLUME_FOLDER:
                return await self._volume_entry(disk, guest_node.volume)
            guest = await disk.guest(guest_node.volume)
            attributes = await guest.filesystem.attributes(guest_node.inode)
            return self._guest_entry(disk, node, attributes)

    async def lookup(self, parent: NodeId, name: bytes) -> Entry:
        """Return the entry of a name; b"." and b".." work for every node, also for files."""
        if name == b".":
            return await self.getattr(parent)
        if name == b"..":
            return await self.getattr(await self.parent(parent))
        if is_above(parent):
            above = self._above(parent)
            if above.disk is not None:
                async with self._pool.use(above.disk) as disk:
                    return _fleeting(await self._lookup_in_disk(disk, name))
            child = (above.children or {}).get(name)
            if child is None:
                raise NotFoundError(f"no {os.fsdecode(name)!r} in {os.fsdecode(above.name)!r}")
            return self._above_entry(self._above(child))
        record, guest_node = self._guest_node(parent)
        async with self._pool.use(record) as disk:
            return await self._lookup_in_guest(disk, guest_node, name)

    async def parent(self, node: NodeId) -> NodeId:
        """Return the folder that a folder is in; of the root, itself."""
        if is_above(node):
            return self._above(node).parent
        record, guest_node = self._guest_node(node)
        if guest_node.inode == VOLUME_FOLDER:
            return self._disk_folder(record)
        async with self._pool.use(record) as disk:
            filesystem = (await disk.guest(guest_node.volume)).filesystem
            inode = await filesystem.lookup(guest_node.inode, b"..")
            return self._encode(disk, guest_node.volume, inode, filesystem.root)

    async def readdir(self, node: NodeId, cookie: int = 0, *, stand_ins: bool = True) -> Batch:
        """Return a folder's next entries behind the one whose cookie is given. `stand_ins`: what
        cannot be read has attributes all the same, where the presentation says so; only for those
        who have no other way to say of a name that it cannot be read."""
        if is_above(node):
            above = self._above(node)
            if above.disk is None:
                return Batch(self._list_above(above, cookie), complete=True)
            async with self._pool.use(above.disk) as disk:
                if disk.whole is None:
                    items = [item for item in await self._list_disk(disk) if item.cookie > cookie]
                    found = Batch(items, complete=True)
                else:
                    where = GuestNode(above.disk.id, WHOLE_DISK_INDEX, VOLUME_FOLDER)
                    found = await self._list_guest(disk, where, cookie, stand_ins)
                fleeting = [item._replace(entry=_fleeting(item.entry)) for item in found.items]
                return Batch(fleeting, found.complete)
        record, guest_node = self._guest_node(node)
        async with self._pool.use(record) as disk:
            return await self._list_guest(disk, guest_node, cookie, stand_ins)

    async def readlink(self, node: NodeId) -> bytes:
        """Return a link's target as it is stored."""
        if is_above(node):
            target = self._above(node).target
            if target is None:
                raise NotALinkError("not a link")
            return target
        record, guest_node = self._guest_node(node)
        async with self._pool.use(record) as disk:
            if guest_node.inode == VOLUME_FOLDER and (link := disk.link_of(guest_node.volume)):
                return link
            guest = await disk.guest(guest_node.volume)
            return await guest.filesystem.readlink(_inode(guest_node, guest.filesystem.root))

    async def xattrs(self, node: NodeId) -> Mapping[bytes, bytes]:
        """Return all extended attributes; a disk's folder tells its last error, unattached."""
        if is_above(node):
            disk_record = self._above(node).disk
            return await self._disk_xattrs(disk_record) if disk_record is not None else {}
        record, guest_node = self._guest_node(node)
        async with self._pool.use(record) as disk:
            if guest_node.inode == VOLUME_FOLDER and disk.link_of(guest_node.volume):
                return {}
            try:
                guest = await disk.guest(guest_node.volume)
            except RestoreError as error:
                if guest_node.inode != VOLUME_FOLDER:
                    raise
                return {ERROR_XATTR: os.fsencode(str(error))}
            return await self._shown_xattrs(
                guest.filesystem, _inode(guest_node, guest.filesystem.root)
            )

    def may_wait(self, node: NodeId) -> bool:
        """Tell whether what is asked about a node, or about names in it, may have to wait. What is
        above the disks is answered from memory: there, no method awaits anything."""
        above = self.namespace.get(node) if is_above(node) else None
        return not is_above(node) or (above is not None and above.disk is not None)

    @property
    def lists_whole(self) -> bool:
        """Whoever lists a folder would take an error behind its first names for its end."""
        return self._presentation.lists_whole

    def disk_attributes(self, node: NodeId) -> Attributes | None:
        """Return what a disk's folder is shown with at the moment, None for any other node; never
        attaches."""
        above = self.namespace.get(node) if is_above(node) else None
        if above is None or above.disk is None:
            return None
        return self._disk_entry(above, above.disk).attributes

    def check_there(self, node: NodeId) -> None:
        """Raise GoneError for a node whose backup left the catalog; never attaches."""
        if is_above(node):
            self._above(node)
        else:
            self._guest_node(node)

    async def read(self, node: NodeId, offset: int, length: int) -> Data:
        """Return up to `length` bytes of a file, fewer only at its end. A memoryview is valid
        until the caller's next await."""
        record, guest_node = self._guest_node(node)
        async with self._pool.use(record) as disk:
            guest = await disk.guest(guest_node.volume)
            return await guest.files.read(guest_node.inode, offset, length)

    async def find_data(self, node: NodeId, start: ByteOffset) -> ByteOffset:
        """Return where a file's next data begins. Raises NoDataError where none comes."""
        record, guest_node = self._guest_node(node)
        async with self._pool.use(record) as disk:
            guest = (await disk.guest(guest_node.volume)).filesystem
            size = (await guest.attributes(guest_node.inode)).size
            return await find_data(partial(guest.map, guest_node.inode), size, start)

    async def find_hole(self, node: NodeId, start: ByteOffset) -> ByteOffset:
        """Return where a file's next hole begins, of which one is behind its end. Raises
        NoDataError there."""
        record, guest_node = self._guest_node(node)
        async with self._pool.use(record) as disk:
            guest = (await disk.guest(guest_node.volume)).filesystem
            size = (await guest.attributes(guest_node.inode)).size
            return await find_hole(partial(guest.map, guest_node.inode), size, start)

    def siblings(self, record: DiskRecord) -> Sequence[DiskRecord]:
        """Return all disks of the backup that a disk is of."""
        backup = self.namespace.backups.get(record.backup_id)
        return backup.disks if backup is not None else ()

    # --- above the guests ---------------------------------------------------------------------

    def _above(self, node: NodeId) -> Above:
        found = self.namespace.get(node)
        if found is None:
            raise GoneError("this backup is no longer in the catalog")
        return found

    def _above_entry(self, above: Above) -> Entry:
        if above.disk is not None:
            return self._disk_entry(above, above.disk)
        if above.target is not None:
            attributes = self._link(above.target, above.time_ns)
        else:
            attributes = self._plain(stat.S_IFDIR | 0o555, above.time_ns)
        return Entry(above.node, attributes, ABOVE_TTL)

    def _disk_entry(self, above: Above, record: DiskRecord) -> Entry:
        """Return a disk's folder. It is its file system's root where it has no partition table,
        which is known once somebody has looked inside: asking for attributes never attaches."""
        disk = self._pool.find(record.id)
        if disk is not None and disk.whole_guest is not None:
            self._roots[record.id] = record, disk.whole_guest.root
        of, attributes = self._roots.get(record.id, (record, None))
        ttl = ABOVE_TTL
        if attributes is None or of != record:
            attributes = self._plain(stat.S_IFDIR | 0o555, above.time_ns)
            if disk is None or disk.whole is not None:
                ttl = UNKNOWN_TTL
        return Entry(above.node, self._presentation.attributes(attributes), ttl)

    async def _disk_xattrs(self, record: DiskRecord) -> dict[bytes, bytes]:
        """Return the last error of a disk, and what its root has where that is its folder and
        somebody has looked inside."""
        shown: dict[bytes, bytes] = {}
        disk = self._pool.find(record.id)
        if disk is not None and disk.whole_guest is not None:
            async with self._pool.use(record) as used:
                filesystem = (await used.guest(WHOLE_DISK_INDEX)).filesystem
                shown.update(await self._shown_xattrs(filesystem, filesystem.root))
        failure = self._pool.failures.get(record.id)
        if failure is not None:
            shown[ERROR_XATTR] = os.fsencode(failure.reason)
        return shown

    def _plain(self, mode: int, time_ns: int) -> Attributes:
        return Attributes(0, mode, 2, *self._owner, 0, 0, 0, time_ns, time_ns, time_ns)

    def _link(self, target: bytes, time_ns: int) -> Attributes:
        plain = self._plain(stat.S_IFLNK | 0o777, time_ns)
        return plain._replace(nlink=1, size=len(target))

    def _list_above(self, above: Above, cookie: int) -> list[Listed]:
        """List in the order of the node ids: a cookie stays true when others come and go."""
        if above.children is None:
            raise NotAFolderError("not a folder")
        children = sorted(
            (node & _COOKIE_MASK, name, self._above(node)) for name, node in above.children.items()
        )
        return [
            Listed(name, self._above_entry(child), position)
            for position, name, child in children
            if position > cookie and not child.hidden
        ]

    def _disk_folder(self, record: DiskRecord) -> NodeId:
        node = self.namespace.disk_folders.get(record.id)
        if node is None:
            raise GoneError("this backup is no longer in the catalog")
        return node

    # --- a disk's folder ----------------------------------------------------------------------

    async def _lookup_in_disk(self, disk: AttachedDisk, name: bytes) -> Entry:
        if disk.whole is not None:
            where = GuestNode(disk.record.id, WHOLE_DISK_INDEX, VOLUME_FOLDER)
            return await self._lookup_in_guest(disk, where, name)
        for index, content in disk.contents.items():
            if content.volume.name == name and content.is_shown:
                return await self._volume_entry(disk, index)
        raise NotFoundError(f"no {os.fsdecode(name)!r} on {disk.transport.name}")

    async def _list_disk(self, disk: AttachedDisk) -> list[Listed]:
        return [
            Listed(content.volume.name, await self._volume_entry(disk, index), index)
            for index, content in sorted(disk.contents.items())
            if content.is_shown
        ]

    async def _volume_entry(self, disk: AttachedDisk, index: int) -> Entry:
        """Return the folder of a volume: its root's attributes, or plain ones where it cannot be
        opened, so that it can be listed; looking inside then gives the error. Or a link, to the
        disk whose folder shows it."""
        self._require_current(disk)
        node = self._ids.encode(disk.record.id, index, VOLUME_FOLDER)
        link = disk.link_of(index)
        if link is not None:
            return self._on_disk(disk, node, self._link(link, self._started_ns), FLEETING_TTL)
        try:
            guest = await disk.guest(index)
            attributes = await guest.filesystem.attributes(guest.filesystem.root)
        except RestoreError:
            plain = self._plain(stat.S_IFDIR | 0o555, self._started_ns)
            return self._on_disk(disk, node, plain, FLEETING_TTL)
        return self._guest_entry(disk, node, attributes)

    # --- inside a guest -----------------------------------------------------------------------

    def _guest_node(self, node: NodeId) -> tuple[DiskRecord, GuestNode]:
        guest_node = self._ids.decode(node)
        record = self.namespace.disks.get(guest_node.disk_id) if guest_node else None
        if guest_node is None or record is None:
            raise GoneError("this backup is no longer in the catalog")
        return record, guest_node

    def _encode(self, disk: AttachedDisk, volume: int, inode: int, root: int) -> NodeId:
        """Number a guest's file; its root is the volume's folder, or the disk's where the disk
        has no partition table."""
        self._require_current(disk)
        if inode != root:
            return self._ids.encode(disk.record.id, volume, inode)
        if volume == WHOLE_DISK_INDEX:
            return self._disk_folder(disk.record)
        return self._ids.encode(disk.record.id, volume, VOLUME_FOLDER)

    def _guest_entry(self, disk: AttachedDisk, node: NodeId, attributes: Attributes) -> Entry:
        shown = self._presentation.attributes(attributes)
        return self._on_disk(disk, node, shown, GUEST_TTL)

    def _on_disk(self, disk: AttachedDisk, node: NodeId, shown: Attributes, ttl: int) -> Entry:
        return Entry(node, shown, ttl, 0, disk.generation)

    async def _shown_xattrs(self, filesystem: GuestFilesystem, inode: int) -> Mapping[bytes, bytes]:
        found = await filesystem.xattrs(inode)
        return self._presentation.xattrs(found, filesystem.has_streams)

    async def _lookup_in_guest(self, disk: AttachedDisk, where: GuestNode, name: bytes) -> Entry:
        filesystem = (await disk.guest(where.volume)).filesystem
        root = filesystem.root
        folder = _inode(where, root)
        try:
            inode = await filesystem.lookup(folder, name)
        except NotFoundError:
            stored = self._presentation.stored_name(name)
            if stored is None:
                raise
            inode = await filesystem.lookup(folder, stored)
        node = self._encode(disk, where.volume, inode, root)
        if is_above(node):
            return self._above_entry(self._above(node))
        try:
            return self._guest_entry(disk, node, await filesystem.attributes(inode))
        except NotFoundError as error:  # the name is there, so this is damage, not absence
            raise DamagedError(
                f"{os.fsdecode(name)!r} names an inode not in use: {error}"
            ) from None

    async def _stand_in(self, filesystem: GuestFilesystem, inode: int, kind: int) -> Attributes:
        """Return what a file is listed with whose inode cannot be read: an error whatever is done
        with it, and nobody's but the daemon's. Not empty: of an empty file nothing is read."""
        with suppress(DamagedError, NotFoundError, UnsupportedError):
            return await filesystem.attributes(inode)
        shown_kind = stat.S_IFDIR if kind == stat.S_IFDIR else stat.S_IFREG
        return Attributes(inode, shown_kind, 1, *self._owner, 0, 1, 0, 0, 0, 0)

    async def _list_guest(
        self, disk: AttachedDisk, where: GuestNode, start: int, stand_ins: bool
    ) -> Batch:
        filesystem = (await disk.guest(where.volume)).filesystem
        listing = await filesystem.readdir(_inode(where, filesystem.root), start)
        self._require_current(disk)
        disk_id, volume = where.disk_id, where.volume
        base = self._ids.base(disk_id, volume)
        encode, overrides = self._ids.encode, self._presentation.overrides
        show, renames = self._presentation.attributes, self._presentation.renames
        stands_in = stand_ins and self._presentation.stands_in
        generation = disk.generation
        new = tuple.__new__  # not Listed(...): this is the innermost loop of every listing
        items: list[Listed] = []
        for name, inode, kind, cookie, attributes in listing.entries:
            if base is not None and inode <= MAX_INODE:
                node = base | inode
            else:
                node = encode(disk_id, volume, inode)
            if attributes is None and stands_in:
                attributes = await self._stand_in(filesystem, inode, kind)
            if overrides and attributes is not None:
                attributes = show(attributes)
            if renames:
                name = self._presentation.name(name)
            entry = new(Entry, (node, attributes, GUEST_TTL, kind, generation))
            items.append(new(Listed, (name, entry, cookie)))
        if stands_in:
            self._require_current(disk)
        return Batch(items, listing.complete)


def _fleeting(entry: Entry) -> Entry:
    """Return an entry that is found by a name above the guests: the name may come to mean another
    backup's disk, so nobody may keep it for long."""
    return entry._replace(ttl=FLEETING_TTL)


def _inode(where: GuestNode, root: int) -> int:
    return root if where.inode == VOLUME_FOLDER else where.inode
