"""Which folder is opened next, by a program that walks a tree.

Owns the foresight: a walk opens a folder's first subfolder next, or the next of its siblings, or of
those of a folder above, in the order in which they were listed (find, du, os.walk, and nearly all
others where that is the order of the names). Who has done so twice is expected to go on, and the
next folder is made ready while the walker looks at the last one. Must not know how that is done.

Concurrency: a process has one walk, of which one folder at a time is being made ready.
"""

import stat
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence

import trio

from restorefs.errors import RestoreError
from restorefs.fuse.listing import OpenFolder
from restorefs.tree.nodeid import NodeId
from restorefs.tree.tree import Listed

_MAX_WALKS = 32
_SURE = 2

Open = Callable[[NodeId], Awaitable[OpenFolder]]


class _Walk:
    """levels: for each folder that the walk is in, the subfolders that it has not been in yet."""

    def __init__(self) -> None:
        self.levels: list[deque[NodeId]] = []
        self.expected: NodeId | None = None
        self.kept_to = 0
        self.ready: OpenFolder | None = None
        self.opening: trio.Event | None = None

    def enter(self, node: NodeId) -> None:
        """Note that a folder is opened, and what that says of this walk."""
        self.kept_to = self.kept_to + 1 if node == self.expected else 0
        while self.levels and node not in self.levels[-1]:
            self.levels.pop()
        if self.levels:
            passed = self.levels[-1]
            while passed.popleft() != node:
                pass

    def list(self, subfolders: Sequence[NodeId]) -> None:
        """Note what is in the folder that was entered."""
        self.levels.append(deque(subfolders))
        self.expected = next((level[0] for level in reversed(self.levels) if level), None)


class Walks:
    """The walks of all processes."""

    def __init__(self, open_folder: Open) -> None:
        self._open = open_folder
        self._walks: OrderedDict[int, _Walk] = OrderedDict()

    def enter(self, pid: int, node: NodeId) -> OpenFolder | None:
        """Note that a process opens a folder; return it if it is ready."""
        walk = self._walks.get(pid)
        if walk is None:
            walk = self._walks[pid] = _Walk()
            if len(self._walks) > _MAX_WALKS:
                self._walks.popitem(last=False)
        walk.enter(node)
        ready, walk.ready = walk.ready, None
        return ready if ready is not None and ready.node == node else None

    async def coming(self, pid: int, node: NodeId) -> OpenFolder | None:
        """Return a folder that is being made ready, when it is; None if it is not."""
        walk = self._walks.get(pid)
        if walk is None or walk.opening is None or walk.expected != node:
            return None
        await walk.opening.wait()
        ready, walk.ready = walk.ready, None
        return ready if ready is not None and ready.node == node else None

    def list(self, pid: int, items: Sequence[Listed]) -> bool:
        """Note what is in the folder that a process opened; True if the next is worth making
        ready."""
        walk = self._walks.get(pid)
        if walk is None:
            return False
        walk.list([item.entry.node for item in items if _is_folder(item)])
        return walk.kept_to >= _SURE and walk.expected is not None and walk.opening is None

    async def prepare(self, pid: int) -> None:
        """Make the next folder ready. What goes wrong is met again by who opens it."""
        walk = self._walks.get(pid)
        if walk is None or walk.expected is None:
            return
        walk.opening = trio.Event()
        try:
            walk.ready = await self._open(walk.expected)
        except RestoreError:
            return
        finally:
            walk.opening.set()
            walk.opening = None


def _is_folder(item: Listed) -> bool:
    attributes = item.entry.attributes
    return attributes is not None and stat.S_ISDIR(attributes.mode)
