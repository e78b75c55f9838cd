"""Which folder a walker is expected to open next, and that a wrong guess costs only itself."""

import stat

import trio
import trio.testing

from restorefs.errors import DamagedError
from restorefs.fuse.listing import OpenFolder
from restorefs.fuse.walk import Walks
from restorefs.guestfs.base import Attributes
from restorefs.tree.nodeid import NodeId
from restorefs.tree.tree import Batch, Entry, Listed, Tree

# 1 has 2 and 5 in it, 2 has 3 and 4, 5 has 6, and so on: numbered in the order of a walk.
TREE = {1: (2, 5, 8), 2: (3, 4), 3: (), 4: (), 5: (6, 7), 6: (), 7: (), 8: (9,), 9: ()}
WALKER, OTHER = 100, 200


class Opened:
    """Folders that are made ready ahead; `held` keeps them from becoming so."""

    def __init__(self) -> None:
        self.nodes: list[int] = []
        self.broken: set[int] = set()
        self.held: trio.Event | None = None

    async def __call__(self, node: NodeId) -> OpenFolder:
        self.nodes.append(node)
        await (trio.lowlevel.checkpoint() if self.held is None else self.held.wait())
        if node in self.broken:
            raise DamagedError("broken")
        return OpenFolder(Tree.__new__(Tree), node, Batch((), complete=True))


def items(node: int) -> list[Listed]:
    """Return what is in a folder: its subfolders, and a file and a broken inode among them."""
    folder = Attributes(0, stat.S_IFDIR, 2, 0, 0, 0, 0, 0, 0, 0, 0)
    file = folder._replace(mode=stat.S_IFREG)
    found = [Listed(b"%d" % n, Entry(NodeId(n), folder, 1), n) for n in TREE[node]]
    found.insert(1, Listed(b"file", Entry(NodeId(50), file, 1), 50))
    found.append(Listed(b"broken", Entry(NodeId(51), None, 1, stat.S_IFDIR), 51))
    return found


async def visit(walks: Walks, pid: int, node: int) -> bool:
    """Open and list a folder as operations.py does; True if it was ready."""
    folder = walks.enter(pid, NodeId(node))
    assert folder is None or folder.node == node
    if walks.list(pid, items(node)):
        await walks.prepare(pid)
    return folder is not None


async def test_a_walk_is_foreseen_from_its_third_folder_on() -> None:
    opened = Opened()
    walks = Walks(opened)
    ready = [await visit(walks, WALKER, node) for node in range(1, 10)]
    assert ready == [False] * 3 + [True] * 6
    assert opened.nodes == [4, 5, 6, 7, 8, 9]


async def test_who_looks_here_and_there_has_nothing_made_ready() -> None:
    opened = Opened()
    walks = Walks(opened)
    for node in (1, 5, 7, 1, 8, 2, 4, 1, 2):
        assert not await visit(walks, WALKER, node)
    assert opened.nodes == []


async def test_a_walker_that_turns_away_gets_what_it_asks_for() -> None:
    opened = Opened()
    walks = Walks(opened)
    for node in (1, 2, 3):
        await visit(walks, WALKER, node)
    assert opened.nodes == [4]
    assert not await visit(walks, WALKER, 8), "4 was ready, and is not taken for it"
    assert not await visit(walks, WALKER, 4), "nor kept"


async def test_every_process_has_a_walk_of_its_own() -> None:
    opened = Opened()
    walks = Walks(opened)
    for node in (1, 2, 3, 4):
        await visit(walks, WALKER, node)
        assert not await visit(walks, OTHER, 9 - node)
    assert await visit(walks, WALKER, 5)


async def test_many_processes_are_not_remembered_for_ever() -> None:
    walks = Walks(Opened())
    for node in (1, 2, 3):
        await visit(walks, WALKER, node)
    for pid in range(1000, 1100):
        await visit(walks, pid, 1)
    assert not await visit(walks, WALKER, 4)


async def test_what_cannot_be_made_ready_is_left_to_who_opens_it() -> None:
    opened = Opened()
    opened.broken.add(4)
    walks = Walks(opened)
    ready = [await visit(walks, WALKER, node) for node in range(1, 7)]
    assert ready == [False, False, False, False, True, True]


async def test_what_is_being_made_ready_is_waited_for() -> None:
    opened = Opened()
    walks = Walks(opened)
    for node in (1, 2):
        await visit(walks, WALKER, node)
    opened.held = trio.Event()
    found: list[OpenFolder | None] = []

    async def come() -> None:
        assert walks.enter(WALKER, NodeId(4)) is None
        found.append(await walks.coming(WALKER, NodeId(4)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(visit, walks, WALKER, 3)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(come)
        await trio.testing.wait_all_tasks_blocked()
        assert not found
        opened.held.set()
    assert found[0] is not None
    assert found[0].node == 4
    assert opened.nodes == [4], "once"
    assert await walks.coming(OTHER, NodeId(4)) is None
