"""The search for names in folders, and for the folder that a folder is in.

Owns when a name means an entry: first as it is listed; then whatever the case of its letters; then
as the short name behind a long one. What fits several entries fits none but exactly. Names of
folders that were searched are kept, some thousands of them.

A folder knows the first cluster of the folder above, not where that one's entry is; so that is
looked for one level higher, unless the way down went through there.

Concurrency: any number of searches may be in flight; two may read the same folder, which is
harmless.
"""

from dataclasses import dataclass, field

import trio

from restorefs.errors import DamagedError, NotFoundError
from restorefs.guestfs.base import Inode
from restorefs.guestfs.fat.directory import decode_parent
from restorefs.guestfs.fat.files import ROOT, ROOT_CLUSTER, FileTable
from restorefs.guestfs.fat.folder import Folder
from restorefs.guestfs.fat.layout import ENTRY_SIZE
from restorefs.guestfs.fat.names import folded
from restorefs.guestfs.lru import Lru

_SEVERAL: Inode = -1
_KEPT_PARENTS = 1 << 16
_KEPT_INDEXES = 64
_KEPT_LARGE_INDEXES = 2
_LARGE = 2048


@dataclass(slots=True)
class Index:
    """The names of a folder. damage: why some may be missing."""

    exact: dict[bytes, Inode] = field(default_factory=dict)
    any_case: dict[str, Inode] = field(default_factory=dict)
    short: dict[str, Inode] = field(default_factory=dict)
    damage: DamagedError | None = None

    def add(self, name: bytes, alias: bytes | None, inode: Inode) -> None:
        """Enter an entry; of two with the same name the first counts, as in a listing."""
        if name in self.exact:
            return
        self.exact[name] = inode
        _enter(self.any_case, folded(name), inode)
        if alias is not None:
            _enter(self.short, folded(alias), inode)

    def find(self, name: bytes) -> Inode | None:
        found = self.exact.get(name)
        if found is None:
            text = folded(name)
            found = self.any_case.get(text) or self.short.get(text)
        return None if found == _SEVERAL else found


def _enter(names: dict[str, Inode], name: str, inode: Inode) -> None:
    names[name] = _SEVERAL if name in names else inode


class Search:
    """Finds names and parents on one volume."""

    def __init__(self, files: FileTable) -> None:
        self._files = files
        self._parents: Lru[Inode, Inode] = Lru(_KEPT_PARENTS)
        self._indexes: Lru[Inode, Index] = Lru(_KEPT_INDEXES)
        self._large_indexes: Lru[Inode, Index] = Lru(_KEPT_LARGE_INDEXES)

    def note_parent(self, child: Inode, parent: Inode) -> None:
        """Remember where a folder was seen."""
        self._parents.put(child, parent)

    async def find(self, inode: Inode, name: bytes) -> Inode:
        """Return the inode of a name in a folder.

        Raises NotFoundError; DamagedError where the name is not found but some of the folder
        cannot be read; NotAFolderError.
        """
        folder = await self._files.folder(inode)
        if name == b".":
            return inode
        if name == b"..":
            return await self._parent(inode, folder)
        index = self._indexes.get(inode) or self._large_indexes.get(inode)
        if index is None:
            index = await self._index(inode, folder)
            kept = self._indexes if len(index.exact) <= _LARGE else self._large_indexes
            kept.put(inode, index)
        found = index.find(name)
        if found is None:
            if index.damage:
                raise DamagedError(str(index.damage))
            raise NotFoundError(f"folder {inode} has no such name")
        return found

    async def _index(self, inode: Inode, folder: Folder) -> Index:
        """Read all names of a folder, as far as they can be read."""
        index = Index()
        slot, ended = 0, False
        while not ended:
            try:
                start, found, slot, ended = await folder.part(slot)
            except DamagedError as error:
                index.damage = error
                break
            for each in found:
                if each.impossible:
                    index.damage = DamagedError("a folder has an entry with an impossible name")
                    continue
                child = folder.inode_at(start + each.slot)
                index.add(each.name, each.alias, child)
                if each.entry.is_folder:
                    self.note_parent(child, inode)
            await trio.lowlevel.checkpoint()
        return index

    async def _parent(self, inode: Inode, folder: Folder) -> Inode:
        """Return the inode of the folder that a folder is in."""
        if inode == ROOT:
            return ROOT
        parent = self._parents.get(inode)
        if parent is None:
            parent = await self._inode_of_cluster(await self._cluster_above(folder))
            self.note_parent(inode, parent)
        return parent

    async def _cluster_above(self, folder: Folder) -> int:
        entry = decode_parent(await folder.read(0, 2 * ENTRY_SIZE))
        if entry is None:
            raise DamagedError('a folder has no ".." entry')
        return self._known_root(entry.cluster(self._files.geometry.bits))

    def _known_root(self, cluster: int) -> int:
        return ROOT_CLUSTER if cluster == self._files.geometry.root_cluster else cluster

    async def _inode_of_cluster(self, cluster: int) -> Inode:
        """Return the inode of the folder that begins at a cluster, by its entry one level higher.
        Raises DamagedError where that is not there."""
        if cluster == ROOT_CLUSTER:
            return ROOT
        bits = self._files.geometry.bits
        above_cluster = await self._cluster_above(await self._files.folder_at(cluster))
        above = await self._files.folder_at(above_cluster)
        slot, ended = 0, False
        while not ended:
            start, found, slot, ended = await above.part(slot)
            for each in found:
                if each.entry.is_folder and each.entry.cluster(bits) == cluster:
                    return above.inode_at(start + each.slot)
            await trio.lowlevel.checkpoint()
        raise DamagedError("the folder above a folder is in no other")
