"""What a walk through folders must know, so that a damaged or hostile file system does no harm.

Owns that a folder is gone into once: in a sound file system it lies in one place. In another it may
hold itself, or lie in many; whoever went into it each time would come to no end. And that a name
comes once in a folder. Must not know what is done with folders and names. Memory is bounded.
Concurrency: one walk is one task's.
"""

from collections import OrderedDict
from collections.abc import Collection

from restorefs.errors import DamagedError, UnsupportedError
from restorefs.tree.nodeid import NodeId

_MAX_FOLDERS = 50_000
_MAX_NAMES = 200_000
_MAX_LINKS = 400_000


class Walk:
    """The folders that one walk has been in: of those that are not above a folder, the last ones
    are remembered."""

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
        if len(self._been_in) > _MAX_FOLDERS:
            self._been_in.popitem(last=False)


class Names:
    """The names of the folders that a walk is in, to tell those that come twice in one folder.

    Remembered as numbers of 64 bits that nobody can foresee. A link is what does harm: what comes
    behind it under its name, such as a folder, would be taken out of an archive to where it leads.
    So links are remembered where there is no room for more names of other files.
    """

    def __init__(self) -> None:
        self._open: list[set[int]] = []
        self._kept = 0

    def open(self) -> None:
        """Go into a folder of the present one."""
        self._open.append(set())

    def close(self) -> None:
        """Leave the present folder."""
        self._kept -= len(self._open.pop())

    def check(self, name: bytes, *, is_link: bool) -> None:
        """Take a name of the present folder. Raises DamagedError for one that was there before,
        UnsupportedError for a link that cannot be remembered."""
        names, number = self._open[-1], hash(name)
        if number in names:
            raise DamagedError("its folder has this name twice: only the first one is taken")
        if self._kept < (_MAX_LINKS if is_link else _MAX_NAMES):
            names.add(number)
            self._kept += 1
        elif is_link:
            raise UnsupportedError(f"more than {_MAX_LINKS} names to tell apart, links among them")
