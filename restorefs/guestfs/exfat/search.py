"""The search for a name in a folder, and for the folder that another one is in.

Owns when two names are the same, the indexes of folders that were searched, and the memory of
which folder is in which: exFAT records no parents, so that of a folder nobody came to from above
is found by looking through all folders, from the root on.

Concurrency: any number of searches may be in flight; one at a time looks through all folders.
"""

from array import array
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass

import trio

from restorefs.errors import DamagedError, NotFoundError, RestoreError
from restorefs.guestfs.base import Inode
from restorefs.guestfs.exfat.directory import utf16_of
from restorefs.guestfs.exfat.files import ROOT_INODE, FileTable
from restorefs.guestfs.exfat.folder import Folder, Found
from restorefs.guestfs.exfat.upcase import UpcaseTable
from restorefs.guestfs.lru import Lru

_LONGEST_NAME = 3 * 255
_KEPT_NAMES = 1 << 20
_KEPT_PARENTS = 1 << 16
_MOST_FOLDERS = 1 << 20

OpenFolder = Callable[[Inode], Awaitable[Folder]]


@dataclass(frozen=True, slots=True)
class _Index:
    """A folder's inodes in the order of their up-cased names' hashes.

    keys: some bits of a hash, and behind them the `inode_bits` of the inode. error: why the
    folder may have more.
    """

    keys: "array[int]"
    inode_bits: int
    error: RestoreError | None

    def candidates(self, upcased: str) -> list[Inode]:
        first = _key(upcased, 0, self.inode_bits)
        behind = first + (1 << self.inode_bits)
        keys = self.keys[bisect_left(self.keys, first) : bisect_left(self.keys, behind)]
        return [key - first for key in keys]


def _key(upcased: str, inode: Inode, inode_bits: int) -> int:
    return (hash(upcased) & (1 << 63 - inode_bits) - 1) << inode_bits | inode


class Names:
    """The names in the folders of one volume."""

    def __init__(self, files: FileTable, upcase: UpcaseTable) -> None:
        self._files = files
        self._upcase = upcase
        self._indexes: OrderedDict[Inode, _Index] = OrderedDict()
        self._kept = 0

    async def find(self, folder: Folder, name: bytes) -> Inode:
        """Return the inode of a name: of that very one or, if only one name is the same without
        regard to case, of that. Raises NotFoundError; DamagedError where the name is not found,
        but some of the folder could not be read."""
        text = utf16_of(name) if 0 < len(name) <= _LONGEST_NAME else None
        if text is None:
            raise NotFoundError("there is no such name")
        index = await self._index(folder)
        upcased = self._upcased(text)
        found = []
        for inode in index.candidates(upcased):
            each = await self._files.file(inode)
            if each.name == name:
                return inode
            other = utf16_of(each.name)
            if other is not None and self._upcased(other) == upcased:
                found.append(inode)
        if len(found) == 1:
            return found[0]
        if index.error is not None and not found:
            raise index.error
        raise NotFoundError("there is no such name")

    def _upcased(self, text: str) -> str:
        return text.translate(self._upcase)

    async def _index(self, folder: Folder) -> _Index:
        index = self._indexes.get(folder.inode)
        if index is not None:
            self._indexes.move_to_end(folder.inode)
            return index
        error: RestoreError | None = None
        keys: list[int] = []
        bits = self._files.inode_bits
        async with aclosing(folder.windows()) as windows:
            async for window in windows:
                error = error or window.error
                for inode, each in window.found:
                    text = each.name.decode("utf-8", "surrogatepass")
                    keys.append(_key(self._upcased(text), inode, bits))
        # Not in a thread: a sort holds the interpreter's lock, and would block the loop as long.
        keys.sort()
        index = _Index(array("Q", keys), bits, error)
        # No await from here on.
        if folder.inode not in self._indexes:
            self._indexes[folder.inode] = index
            self._kept += len(keys) + 64
            while self._kept > _KEPT_NAMES and len(self._indexes) > 1:
                _, old = self._indexes.popitem(last=False)
                self._kept -= len(old.keys) + 64
        return index


class Parents:
    """Which folder is in which."""

    def __init__(self, open_folder: OpenFolder) -> None:
        self._open = open_folder
        self._known: Lru[Inode, Inode] = Lru(_KEPT_PARENTS)
        self._searching = trio.Lock()

    def learn(self, folder: Inode, found: Iterable[Found]) -> None:
        """Keep which folders were found in a folder."""
        self._known.put_all((inode, folder) for inode, each in found if each.is_folder)

    async def parent(self, folder: Inode) -> Inode:
        """Return the folder that a folder is in. Raises DamagedError where none is found."""
        if folder == ROOT_INODE:
            return ROOT_INODE
        parent = self._known.get(folder)
        if parent is not None:
            return parent
        async with self._searching:
            parent = self._known.get(folder)
            return parent if parent is not None else await self._search(folder)

    async def _search(self, wanted: Inode) -> Inode:
        pending = deque([ROOT_INODE])
        seen = {ROOT_INODE}
        damage: RestoreError | None = None
        while pending:
            inode = pending.popleft()
            try:
                folder = await self._open(inode)
                async with aclosing(folder.windows()) as windows:
                    async for window in windows:
                        damage = damage or window.error
                        self.learn(inode, window.found)
                        below = [each for each, found in window.found if found.is_folder]
                        if wanted in below:
                            return inode
                        if len(seen) < _MOST_FOLDERS:
                            pending += [each for each in below if each not in seen]
                            seen.update(below)
            except (DamagedError, NotFoundError) as error:
                damage = damage or error
        raise DamagedError(f"no folder was found that folder {wanted} is in") from damage
