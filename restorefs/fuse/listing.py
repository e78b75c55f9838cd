"""An open folder: where its reader is, and what it will ask for next.

Owns the packing of a listing into replies. Whoever lists a folder reads on: so the next reply is
packed, and the next batch fetched, while the reader looks at the last one. Must not know where
entries come from, or when it is asked to do so.

Concurrency: several requests may be under way on one folder, of threads that share it. All state is
changed without an await in between, and looked at again after each.
"""

import stat

import trio

from restorefs.compiled import require_current
from restorefs.errors import GoneError, RestoreError
from restorefs.fuse import packer
from restorefs.fuse.packer import LARGEST, pack
from restorefs.fuse.protocol import dirent_only
from restorefs.tree.nodeid import NodeId
from restorefs.tree.tree import Batch, Tree

require_current([packer])

_DOTS = 2
"""Offsets that "." and ".." take; the cookies of the tree come behind them."""
_USUAL_SIZE = 32 << 10
"""Bytes that a C library asks for (glibc's readdir)."""
_NOWHERE = -1
_MOST_KEPT = 50_000


async def read_to_end(tree: Tree, node: NodeId, first: Batch) -> Batch:
    """Read a folder to its end, for those who would take an error behind the first names for it.

    Returns one batch of all, or `first` where that would be too much to keep: what was read is read
    once more then. Raises what the tree does.
    """
    batch, items = first, list(first.items)
    while not batch.complete:
        batch = await tree.readdir(node, batch.items[-1].cookie)
        if len(items) <= _MOST_KEPT:
            items += batch.items
    return Batch(items, complete=True) if len(items) <= _MOST_KEPT else first


class OpenFolder:
    """One open folder. Offsets are those of READDIRPLUS: 0 is its beginning."""

    def __init__(
        self, tree: Tree, node: NodeId, first: Batch | None, parent: NodeId | None = None
    ) -> None:
        """`first` is the folder's first batch, None to have it read when somebody asks for it;
        `parent` the folder that it is in, if known."""
        self.node = node
        self.subfolders: list[NodeId] = []  # as far as they have been packed, each once
        self._collected_to = 0  # the offset to which that is
        self._tree = tree
        self._parent = parent
        self._batch = first or Batch((), complete=False)
        self._packed = 0  # items of the batch that have been packed
        self._at = _NOWHERE if first is None else 0  # the offset behind the last of them
        self._dots: list[bytes] = []
        self._ready: bytes | None = None  # what is packed already, for the offset
        self._ready_at = 0
        self._size = _USUAL_SIZE
        self._following: Batch | None = None  # the batch behind this one, if fetched
        self._fetching: trio.Event | None = None

    def take(self, offset: int, size: int) -> bytes | None:
        """Return what has been packed for an offset, b"" at the end; None if nothing has."""
        data = self._ready
        if data is None or self._ready_at != offset:
            return None
        self._ready = None
        self._size = size
        if len(data) <= size:
            return data
        self._at = _NOWHERE  # the batch may be another one by now
        return None

    async def read(self, offset: int, size: int) -> bytes:
        """Return the records behind an offset, at most `size` bytes; b"" at the end.

        Raises what the tree does.
        """
        if offset < _DOTS:
            await self._find_dots()
        while (data := self.take(offset, size)) is None:
            if self._at != offset:
                self._batch = await self._behind(max(offset - _DOTS, 0))
                self._packed, self._at = 0, offset
                self._ready = self._following = None
            if data := self._pack(size):
                return data
            if self._batch.complete:
                return b""
            await self._go_on()
        return data

    async def open(self) -> None:
        """Pack the first reply before it is asked for, unless that was done."""
        await self._find_dots()
        self.prepare()

    def prepare(self) -> None:
        """Pack the next reply, of what is in memory."""
        at = self._at
        if self._ready is None and (at >= _DOTS or (at >= 0 and self._dots)):
            data = self._pack(self._size)
            if data or self._batch.complete:
                self._ready, self._ready_at = data, at

    @property
    def can_fetch(self) -> bool:
        """There is a batch behind the present one, which nobody has asked for."""
        ahead = self._following is not None or self._fetching is not None
        return not (ahead or self._batch.complete)

    async def fetch(self) -> None:
        """Fetch the next batch, if can_fetch. What goes wrong is met again when it is needed."""
        batch = self._batch
        fetching = self._fetching = trio.Event()
        try:
            following = await self._behind(batch.items[-1].cookie)
        except RestoreError:
            return
        finally:
            fetching.set()
            self._fetching = None
        if batch is self._batch:
            self._following = following
            if self._packed == len(batch.items):
                self._turn_over()
                self.prepare()

    async def _go_on(self) -> None:
        """Have the next batch, all of this one being packed."""
        if self._fetching is not None:
            await self._fetching.wait()
        elif self._following is not None:
            self._turn_over()
        else:
            batch = self._batch
            following = await self._behind(batch.items[-1].cookie)
            if batch is self._batch:
                self._following = following
                self._turn_over()

    async def _behind(self, cookie: int) -> Batch:
        """Return the entries behind a cookie. Raises GoneError where they are another disk's."""
        batch = await self._tree.readdir(self.node, cookie)
        if batch.items and self._batch.items and _generation(batch) != _generation(self._batch):
            raise GoneError("this backup is no longer in the catalog")
        return batch

    def _turn_over(self) -> None:
        assert self._following is not None
        self._batch, self._following, self._packed = self._following, None, 0

    def _pack(self, size: int) -> bytes:
        """Pack the next records of the batch: as many as fit, but one at least."""
        dots = b"".join(self._dots[self._at :]) if self._at < _DOTS else b""
        collects = self._at == self._collected_to
        items = self._batch.items
        folders = self.subfolders if collects else []
        room = size - len(dots) if dots else max(size, LARGEST)
        data, behind = pack(items, self._packed, room, _DOTS, folders)
        if behind > self._packed:
            self._packed = behind
            self._at = items[behind - 1].cookie + _DOTS
        elif dots:
            self._at = _DOTS
        if collects:
            self._collected_to = self._at
        return dots + data

    async def _find_dots(self) -> None:
        """Pack "." and "..", of which the kernel takes the number and the type only."""
        if self._dots:
            return
        parent = self._parent
        if parent is None:
            try:
                parent = await self._tree.parent(self.node)
            except RestoreError:
                parent = self.node  # damage there costs no name here
        self._dots = [_dot(b".", self.node, 1), _dot(b"..", parent, _DOTS)]


def _generation(batch: Batch) -> int:
    return batch.items[0].entry.generation


def _dot(name: bytes, node: NodeId, offset: int) -> bytes:
    return dirent_only(name, node, stat.S_IFDIR, offset)
