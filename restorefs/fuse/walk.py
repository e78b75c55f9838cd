"""Which folders are opened next, by a program that walks a tree.

Owns the foresight: a walk opens a folder's first subfolder next, or the next of its siblings, or of
those of a folder above, in the order in which they were listed (find, du, os.walk, and nearly all
others where that is the order of the names). Who has done so twice is expected to go on, and the
next folders are made ready while the walker looks at the last one. To come back up, some open a
folder above once more (fts(3) does, out of deep ones): that is no turn. Must not know how a folder
is opened.

Concurrency: a process has one walk, of which one folder at a time is being made ready.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import trio

from restorefs.errors import RestoreError
from restorefs.fuse.listing import OpenFolder
from restorefs.tree.nodeid import NodeId

_MAX_WALKS = 32
_SURE = 2
_AHEAD = 2
_NEAR = 1000
_PAUSE = 10.0
"""Seconds behind which a walk may be over."""

Open = Callable[[NodeId, NodeId | None], Awaitable[OpenFolder]]
"""Opens a folder, given the one that it is in, if that is known."""


class _Place(NamedTuple):
    """Where a walk is: in a folder, whose subfolders (more may become known) from `come_to` on are
    still to come; and the place that it comes back to behind them."""

    folder: NodeId
    subfolders: Sequence[NodeId]
    come_to: int
    above: "_Place | None"

    def next(self) -> "tuple[NodeId, _Place] | None":
        """Return the folder that comes next, and the place behind it; None at the end."""
        place: _Place | None = self
        while place is not None:
            index = place.come_to
            if index < len(place.subfolders):
                return place.subfolders[index], place._replace(come_to=index + 1)
            place = place.above
        return None

    def within(self, folder: NodeId) -> "_Place | None":
        """Return the place in a folder that this one is in, or below; None for any other."""
        place: _Place | None = self
        while place is not None and place.folder != folder:
            place = place.above
        return place

    def behind(self, node: NodeId) -> "_Place | None":
        """Return the place behind a folder that comes soon; None for any other."""
        place: _Place | None = self
        while place is not None:
            index = place.come_to
            try:
                index = place.subfolders.index(node, index, index + _NEAR)
            except ValueError:
                place = place.above
            else:
                return place._replace(come_to=index + 1)
        return None


class _Walk:
    """The walk of one process. ready: the next folders, each with the place in it. opening: the
    one that is being made ready now. again: the beginning of a folder that was opened once more;
    the walk may start over from there. climbed_to: that folder, until the walk goes on. asked:
    whether the names of the folder that it is in were asked for; knew: whether those of the one
    before were not. stepped_at: when it went into it."""

    def __init__(self) -> None:
        self.place: _Place | None = None
        self.again: _Place | None = None
        self.climbed_to: NodeId | None = None
        self.asked = self.knew = False
        self.stepped_at = 0.0
        self.kept_to = 0
        self.turns = 0
        self.ready: deque[tuple[OpenFolder, _Place]] = deque()
        self.opening: NodeId | None = None
        self.opened = trio.Event()

    def take(self, node: NodeId) -> OpenFolder | None:
        """Go into a folder if it is ready."""
        if not self.ready or self.ready[0][0].node != node:
            return None
        folder, self.place = self.ready.popleft()
        self.kept_to += 1
        self._step()
        return folder

    def turn(self, node: NodeId) -> None:
        """Note that a folder is opened that was not ready: this may be no walk, or another one."""
        following = self.place.next() if self.place is not None else None
        self.kept_to = self.kept_to + 1 if following and following[0] == node else 0
        place = self.place.behind(node) if self.place is not None else None
        if place is None and self.again is not None:
            place = self.again.behind(node)
        self.place, self.again = place, None
        self.ready.clear()
        self.turns += 1
        self._step()

    def _step(self) -> None:
        self.climbed_to = None
        self.knew, self.asked = not self.asked, False
        self.stepped_at = time.monotonic()

    def climbs_to(self, inside: _Place) -> bool:
        """Tell whether a folder above is surely opened to come back up, and not to be listed."""
        is_under_way = time.monotonic() - self.stepped_at < _PAUSE
        is_first = self.climbed_to != inside.folder
        return inside is not self.place and self.kept_to >= _SURE and is_under_way and is_first

    def next(self) -> tuple[NodeId, _Place] | None:
        """Return the next folder that is worth making ready, and the place behind it."""
        if self.kept_to < _SURE or self.opening is not None or len(self.ready) >= _AHEAD:
            return None
        place = self.ready[-1][1] if self.ready else self.place
        return place.next() if place is not None else None


class Walks:
    """The walks of all processes."""

    def __init__(self, open_folder: Open, open_again: Open) -> None:
        """open_again: for a folder above, which its walker opened before and mostly does not list
        again."""
        self._open = open_folder
        self._open_again = open_again
        self._walks: OrderedDict[int, _Walk] = OrderedDict()

    def take(self, pid: int, node: NodeId) -> OpenFolder | None:
        """Return a folder that a process opens, if it is ready."""
        walk = self._walks.get(pid)
        if walk is None:
            return None
        self._walks.move_to_end(pid)
        return walk.take(node)

    async def open(self, pid: int, node: NodeId) -> OpenFolder:
        """Return a folder that a process opens and that is not ready. Raises what opening does."""
        walk = self._walks.get(pid)
        if walk is None:
            walk = self._walks[pid] = _Walk()
            if len(self._walks) > _MAX_WALKS:
                self._walks.popitem(last=False)
        self._walks.move_to_end(pid)
        if walk.opening == node:
            await walk.opened.wait()
            if (ready := walk.take(node)) is not None:
                return ready
        inside = walk.place.within(node) if walk.place is not None else None
        if inside is not None:
            open_it = self._open_again if walk.climbs_to(inside) else self._open
            folder = await open_it(node, inside.above.folder if inside.above else None)
            walk.again = inside._replace(subfolders=folder.subfolders, come_to=0)
            walk.climbed_to = node
            return folder
        walk.turn(node)
        above = walk.place
        folder = await self._open(node, above.folder if above is not None else None)
        walk.place = _Place(node, folder.subfolders, 0, above)
        return folder

    def ask(self, pid: int, node: NodeId) -> None:
        """Note that a process asks for the names of a folder."""
        walk = self._walks.get(pid)
        if walk is not None and walk.place is not None and walk.place.folder == node:
            walk.asked = True

    def knows_names(self, pid: int) -> bool:
        """Tell whether a process does without asking for names: the kernel has kept them."""
        walk = self._walks.get(pid)
        return walk is not None and walk.knew

    def is_worth_it(self, pid: int) -> bool:
        """Tell whether go_on() would do something."""
        walk = self._walks.get(pid)
        return walk is not None and walk.next() is not None

    async def go_on(self, pid: int) -> None:
        """Make the next folders ready. What goes wrong is met again by who opens them."""
        walk = self._walks.get(pid)
        while walk is not None and (following := walk.next()) is not None:
            node, behind = following
            turns = walk.turns
            walk.opening, walk.opened = node, trio.Event()
            try:
                folder = await self._open(node, behind.folder)
                await folder.open()
            except RestoreError:
                return
            finally:
                walk.opening = None
                walk.opened.set()
            if walk.turns == turns:
                walk.ready.append((folder, _Place(node, folder.subfolders, 0, behind)))
