"""What a walk through folders must know to come to an end.

Owns that a folder is gone into once: in a sound file system it lies in one place. In a damaged or
hostile one it may hold itself, or lie in many; whoever went into it each time would come to no end.
Must not know what is done with the folders. Memory is bounded: of those that are not above a
folder, the last ones are remembered. Concurrency: one walk is one task's.
"""

from collections import OrderedDict
from collections.abc import Collection

from restorefs.errors import DamagedError
from restorefs.tree.nodeid import NodeId

_MAX_REMEMBERED = 50_000


class Walk:
    """The folders that one walk has been in."""

    def __init__(self) -> None:
        self._been_in: OrderedDict[NodeId, None] = OrderedDict()

    def enter(self, folder: NodeId, above: Collection[NodeId]) -> None:
        """Go into a folder, `above` being those on the way to it. Raises DamagedError for one that
        the walk is in, or has been in."""
        if folder in above:
            raise DamagedError("this folder is inside itself: the file system is damaged there")
        if folder in self._been_in:
            self._been_in.move_to_end(folder)
            raise DamagedError("this folder lies in a second place: the file system is damaged")
        self._been_in[folder] = None
        if len(self._been_in) > _MAX_REMEMBERED:
            self._been_in.popitem(last=False)
