"""From a path that somebody typed to a node of the tree.

Owns that nothing leads out of the disk: a path is walked name by name in the tree, never in the
host's file system, and a link is followed inside its volume only, an absolute one from the
volume's root. `..` in what is typed is refused, and in a link stops at the volume's root. And that
a file is not said to be absent, or taken for another one, while a volume that may hold it cannot be
read. Must not know what is done with the node.
"""

import errno
import os
import stat
from contextlib import suppress
from typing import ClassVar, NamedTuple

from restorefs.catalog.records import DiskRecord
from restorefs.control.problems import ProblemError
from restorefs.control.unshown import Unshown, why_not_shown
from restorefs.errors import (
    DamagedError,
    GoneError,
    NotAFolderError,
    NotFoundError,
    RestoreError,
    StorageError,
)
from restorefs.session.disk import Content
from restorefs.session.pool import Pool
from restorefs.tree.nodeid import NodeId
from restorefs.tree.tree import Entry, Tree

_MAX_LINKS = 40  # as path_resolution(7)
_MAX_NAME = 1024  # NTFS: 255 characters, a colon and a stream's 255, in UTF-8
_MAX_NAMES = 2048


class TooManyLinksError(RestoreError):
    """Links that lead to links, round and round."""

    errno: ClassVar[int] = errno.ELOOP


class Place(NamedTuple):
    """Where a path led: `path` as it was found, and the entry there. `root`: the way to the root
    of the volume that it lies in, None for a disk's folder that has volumes in it."""

    path: bytes
    entry: Entry
    root: "tuple[bytes, NodeId] | None"

    @property
    def mode(self) -> int:
        return _mode(self.entry)

    @property
    def shown(self) -> str:
        """The path as JSON has it."""
        return os.fsdecode(self.path)

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)


def _mode(entry: Entry) -> int:
    assert entry.attributes is not None, "only a listing leaves them out"
    return entry.attributes.mode


def _all(errors: list[RestoreError]) -> str:
    return "; ".join(map(str, errors))


def names_of(path: str) -> list[bytes]:
    """Return the names of a typed path. Raises ProblemError for what cannot be one."""
    raw = os.fsencode(path)
    names = [name for name in raw.split(b"/") if name not in (b"", b".")]
    if b".." in names:
        raise ProblemError(422, "a path may not hold `..`")
    if b"\0" in raw:
        raise ProblemError(422, "a path may not hold NUL")
    if len(names) > _MAX_NAMES or any(len(name) > _MAX_NAME for name in names):
        raise ProblemError(422, "the path is too long")
    return names


class Paths:
    """The paths of all disks."""

    def __init__(self, tree: Tree, pool: Pool) -> None:
        self._tree = tree
        self._pool = pool
        self._unshown = Unshown()

    async def find(self, record: DiskRecord, path: str, *, follow: bool = True) -> Place:
        """Return where a path on a disk leads; `follow` a link at its end, too.

        Raises ProblemError for a path that cannot be, else what the tree raises.
        """
        names = names_of(path)
        folder = self._folder(record)
        if not names:
            whole = await self._is_whole(record)
            root = (b"", folder) if whole else None
            return Place(b"/", await self._tree.getattr(folder), root)
        if await self._is_whole(record):
            return await self._walk(b"", folder, names, follow)
        contents = await self._contents(record)
        named = [each for each in contents if each.volume.name == names[0]]
        if any(each.is_shown for each in named):
            root_node = await self._volume(record, names[0])
            return await self._walk(b"/" + names[0], root_node, names[1:], follow)
        if named:
            raise why_not_shown(named[0])
        return await self._search(record, names, contents, follow)

    async def _search(
        self, record: DiskRecord, names: list[bytes], contents: list[Content], follow: bool
    ) -> Place:
        """Look for a path on every volume, the largest first: /etc/hostname is on one of them. What
        is on a smaller one counts only if it is known not to be on the larger ones."""
        asked: list[bytes] = []
        failed: list[RestoreError] = []
        path = os.fsdecode(b"/" + b"/".join(names))
        for content in contents:
            volume = content.volume.name
            if not content.is_shown and not await self._may_hold_files(record, content):
                continue
            asked.append(volume)
            try:
                if not content.is_shown:
                    raise why_not_shown(content)
                root = await self._volume(record, volume)
                place = await self._walk(b"/" + volume, root, names, follow)
            except (NotFoundError, NotAFolderError):
                continue
            except GoneError:
                raise
            except RestoreError as error:
                failed.append(error)
                continue
            if failed:
                raise type(failed[0])(
                    f"{path!r} is on {os.fsdecode(volume)}, but may be on a larger volume as well:"
                    f" {_all(failed)}; ask for {place.shown!r} if that is the one"
                )
            return place
        if failed and len(failed) == len(asked):
            raise failed[0]
        if failed:  # it may well be there
            raise type(failed[0])(
                f"no {path!r} on the volumes that can be read, and {_all(failed)}"
            )
        where = ", ".join(map(os.fsdecode, asked)) or "none that has files"
        raise NotFoundError(f"no {path!r} on the disk's volumes ({where})")

    async def _may_hold_files(self, record: DiskRecord, content: Content) -> bool:
        """Whether a volume that has no folder may hold files; if that cannot be told, it may."""
        async with self._pool.use(record) as disk:
            with suppress(StorageError, DamagedError):
                return await self._unshown.may_hold_files(disk, content)
            return True

    def _folder(self, record: DiskRecord) -> NodeId:
        folder = self._tree.namespace.disk_folders.get(record.id)
        if folder is None:
            raise GoneError(f"{record.backup_id} is no longer in the catalog")
        return folder

    async def _is_whole(self, record: DiskRecord) -> bool:
        async with self._pool.use(record) as disk:
            return disk.whole is not None

    async def _contents(self, record: DiskRecord) -> list[Content]:
        """Return the volumes of a disk, the largest first."""
        async with self._pool.use(record) as disk:
            contents = [disk.contents[index] for index in sorted(disk.contents)]

        def size(content: Content) -> int:
            return content.volume.device.size if content.volume.device else 0

        return sorted(contents, key=size, reverse=True)

    async def _volume(self, record: DiskRecord, name: bytes) -> NodeId:
        """Return the root of a volume, which another disk's folder may show."""
        node = (await self._tree.lookup(self._folder(record), name)).node
        async with self._pool.use(record) as disk:
            elsewhere = next(
                (
                    content.elsewhere
                    for content in disk.contents.values()
                    if content.volume.name == name and content.is_shown
                ),
                None,
            )
        if elsewhere is None:
            return node
        for other in self._tree.siblings(record):
            if other.disk_index == elsewhere:
                return (await self._tree.lookup(self._folder(other), name)).node
        raise NotFoundError(f"the backup has no disk {elsewhere}, which {os.fsdecode(name)} is on")

    async def _walk(self, path: bytes, root: NodeId, names: list[bytes], follow: bool) -> Place:
        """Walk from a volume's root. Bounded: by the number of links, and each one's length."""
        tree = self._tree
        above: list[tuple[bytes, Entry]] = []  # the way from the root to where we are
        here = await tree.getattr(root)
        top = here
        todo = names[::-1]
        links = 0
        while todo:
            name = todo.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                if not stat.S_ISDIR(_mode(here)):
                    raise NotAFolderError(f"{os.fsdecode(above[-1][0])!r} is not a folder")
                if above:
                    above.pop()
                here = above[-1][1] if above else top
                continue
            if len(name) > _MAX_NAME or b"\0" in name or len(above) > _MAX_NAMES:
                raise NotFoundError(f"there is no {os.fsdecode(name[:80])!r}...")
            try:
                entry = await tree.lookup(here.node, name)
            except (NotFoundError, NotAFolderError) as error:
                way = b"/".join((path, *(each for each, _ in above)))
                shown = os.fsdecode(way) or "/"
                if isinstance(error, NotAFolderError):
                    raise NotAFolderError(f"{shown} is not a folder") from None
                raise NotFoundError(f"{shown} has no {os.fsdecode(name)!r}") from None
            if stat.S_ISLNK(_mode(entry)) and (todo or follow):
                links += 1
                if links > _MAX_LINKS:
                    raise TooManyLinksError(f"{os.fsdecode(name)!r}: too many links")
                target = await tree.readlink(entry.node)
                if target.startswith(b"/"):
                    above.clear()
                    here = top
                todo += target.split(b"/")[::-1]
                continue
            above.append((name, entry))
            here = entry
        found = path + b"".join(b"/" + name for name, _ in above)
        return Place(found or b"/", here, (path, root))
