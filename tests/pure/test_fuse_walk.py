"""Which folders a walker is expected to open next, and that a wrong guess costs only itself."""

import time

import pytest
import trio
import trio.testing

from restorefs.errors import DamagedError
from restorefs.fuse.listing import OpenFolder
from restorefs.fuse.walk import Walks
from restorefs.guestfs.base import Attributes
from restorefs.tree.nodeid import NodeId
from restorefs.tree.tree import Batch, Entry, Listed, Tree

# 1 has 2, 5 and 8 in it, 2 has 3 and 4, and so on: numbered in the order of a walk.
FOLDERS = {1: (2, 5, 8), 2: (3, 4), 3: (), 4: (), 5: (6, 7), 6: (), 7: (), 8: (9,), 9: ()}
WALKER, OTHER = 100, 200
FOLDER = Attributes(0, 0o040755, 2, 0, 0, 0, 0, 0, 0, 0, 0)


class Folders(Tree):
    """Lists FOLDERS, with a file and a broken inode among them. `held` keeps listings waiting."""

    def __init__(self) -> None:
        self.listed: list[int] = []
        self.broken: set[int] = set()
        self.held: trio.Event | None = None
        self.walks = Walks(self.open, self.open_again)

    async def readdir(self, node: NodeId, cookie: int = 0) -> Batch:
        self.listed.append(node)
        await (trio.lowlevel.checkpoint() if self.held is None else self.held.wait())
        if node in self.broken:
            raise DamagedError("broken")
        items = [Listed(b"%d" % n, Entry(NodeId(n), FOLDER, 1), n) for n in FOLDERS[node]]
        file = FOLDER._replace(mode=0o100644)
        items.insert(1, Listed(b"file", Entry(NodeId(50), file, 1), 50))
        items.append(Listed(b"broken", Entry(NodeId(51), None, 1, 0o040000), 51))
        return Batch(items, complete=True)

    async def parent(self, node: NodeId) -> NodeId:
        return node

    async def open(self, node: NodeId, parent: NodeId | None) -> OpenFolder:
        assert parent is None or node in FOLDERS[parent]
        return OpenFolder(self, node, await self.readdir(node), parent)

    async def open_again(self, node: NodeId, parent: NodeId | None) -> OpenFolder:
        assert parent is None or node in FOLDERS[parent]
        return OpenFolder(self, node, None, parent)

    async def visit(self, pid: int, node: int) -> bool:
        """Open and read a folder as operations.py does; True if it was ready."""
        ready = self.walks.take(pid, NodeId(node))
        folder = ready or await self.walks.open(pid, NodeId(node))
        assert folder.node == node
        await folder.open()
        assert await folder.read(0, 32 << 10)
        await self.walks.go_on(pid)
        return ready is not None


async def test_a_walk_is_foreseen_from_its_third_folder_on() -> None:
    folders = Folders()
    ready = [await folders.visit(WALKER, node) for node in range(1, 10)]
    assert ready == [False] * 3 + [True] * 6
    assert folders.listed == list(range(1, 10)), "each once"
    assert not folders.walks.is_worth_it(WALKER), "it is at its end"


async def test_no_more_than_two_folders_are_made_ready() -> None:
    folders = Folders()
    for node in (1, 2, 3):
        await folders.visit(WALKER, node)
    assert folders.listed == [1, 2, 3, 4, 5]


async def test_who_looks_here_and_there_has_nothing_made_ready() -> None:
    folders = Folders()
    visited = [1, 5, 7, 1, 8, 2, 4, 1, 2]
    for node in visited:
        assert not await folders.visit(WALKER, node)
    assert folders.listed == visited


async def test_a_walker_that_leaves_out_a_folder_is_followed() -> None:
    folders = Folders()
    for node in (1, 2, 3):
        await folders.visit(WALKER, node)
    assert not await folders.visit(WALKER, 8), "4 and 5 were ready, and are not taken for it"
    assert not await folders.visit(WALKER, 9)
    assert not await folders.visit(WALKER, 4), "nor kept"


async def test_who_opens_a_folder_above_to_come_back_up_is_no_other_walker() -> None:
    folders = Folders()
    ready = [await folders.visit(WALKER, node) for node in (1, 2, 3, 4, 1, 5, 6, 7, 5, 1, 8, 9)]
    down = [False, False, False, True]
    assert ready == [*down, False, True, True, True, False, False, True, True]


async def test_what_is_opened_to_come_back_up_is_read_when_it_is_listed() -> None:
    folders = Folders()
    for node in (1, 2, 3, 4):
        await folders.visit(WALKER, node)
    listed = list(folders.listed)
    again = await folders.walks.open(WALKER, NodeId(1))
    await again.open()
    assert again.take(0, 32 << 10) is None
    assert folders.listed == listed
    first = await folders.walks.open(OTHER, NodeId(1))
    await first.open()
    assert await again.read(0, 32 << 10) == first.take(0, 32 << 10)
    assert folders.listed == [*listed, 1, 1]
    assert again.subfolders == list(FOLDERS[1])


@pytest.mark.parametrize(
    ("visited", "again"),
    [((1, 2), 1), ((1, 2, 3, 4), 4), ((1, 2, 3, 4, 1), 1)],
    ids=["before it is a walk", "the folder that it is in", "a second time"],
)
async def test_what_may_be_listed_again_is_read_when_it_is_opened(
    visited: tuple[int, ...], again: int
) -> None:
    folders = Folders()
    for node in visited[:4]:
        await folders.visit(WALKER, node)
    for node in visited[4:]:
        await folders.walks.open(WALKER, NodeId(node))
    before = folders.listed.count(again)
    await folders.walks.open(WALKER, NodeId(again))
    assert folders.listed.count(again) == before + 1


async def test_a_walk_may_come_back_up_to_a_folder_many_times() -> None:
    folders = Folders()
    for node in (1, 2, 3, 4):
        await folders.visit(WALKER, node)
    for node in (5, 6, 7, 8):
        await folders.walks.open(WALKER, NodeId(1))
        await folders.visit(WALKER, node)
    assert folders.listed.count(1) == 1


async def test_who_asks_for_the_names_of_another_folder_may_know_those_of_this_one() -> None:
    folders = Folders()
    walks = folders.walks
    for node in (1, 2):
        await folders.visit(WALKER, node)
    walks.ask(WALKER, NodeId(1))
    await folders.visit(WALKER, 3)
    assert walks.knows_names(WALKER)
    walks.ask(WALKER, NodeId(3))
    await folders.visit(WALKER, 4)
    assert not walks.knows_names(WALKER)


async def test_after_a_while_a_folder_above_is_read_when_it_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folders = Folders()
    for node in (1, 2, 3, 4):
        await folders.visit(WALKER, node)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 60)
    await folders.walks.open(WALKER, NodeId(1))
    assert folders.listed.count(1) == 2


async def test_two_openings_at_once_know_their_parents() -> None:
    folders = Folders()
    await folders.visit(WALKER, 1)
    folders.held = trio.Event()
    async with trio.open_nursery() as nursery:
        for node in (2, 5):
            nursery.start_soon(folders.walks.open, WALKER, NodeId(node))
            await trio.testing.wait_all_tasks_blocked()
        folders.held.set()
    for node in (2, 5, 2):  # each asks with the parent that it is believed to have
        await folders.walks.open(WALKER, NodeId(node))


async def test_a_walk_that_starts_over_is_followed_from_there() -> None:
    folders = Folders()
    for node in (1, 2, 3, 4, 5):
        await folders.visit(WALKER, node)
    ready = [await folders.visit(WALKER, node) for node in (1, 2, 3, 4, 5, 6, 7, 8, 9)]
    assert ready == [False] * 4 + [True] * 5


async def test_every_process_has_a_walk_of_its_own() -> None:
    folders = Folders()
    for node in (1, 2, 3, 4):
        await folders.visit(WALKER, node)
        assert not await folders.visit(OTHER, 9 - node)
    assert await folders.visit(WALKER, 5)


async def test_many_processes_are_not_remembered_for_ever() -> None:
    folders = Folders()
    for node in (1, 2, 3):
        await folders.visit(WALKER, node)
    for pid in range(1000, 1100):
        await folders.visit(pid, 1)
    assert not await folders.visit(WALKER, 4)


async def test_what_cannot_be_made_ready_is_left_to_who_opens_it() -> None:
    folders = Folders()
    folders.broken.add(4)
    for node in (1, 2, 3):
        await folders.visit(WALKER, node)
    assert folders.walks.take(WALKER, NodeId(4)) is None
    try:
        await folders.walks.open(WALKER, NodeId(4))
    except DamagedError:
        pass
    else:
        raise AssertionError("it is broken for its walker, too")
    assert not await folders.visit(WALKER, 5)
    assert await folders.visit(WALKER, 6), "the walk goes on"


async def test_what_is_being_made_ready_is_waited_for() -> None:
    folders = Folders()
    for node in (1, 2):
        await folders.visit(WALKER, node)
    found: list[OpenFolder] = []

    async def open_next() -> None:
        found.append(await folders.walks.open(WALKER, NodeId(4)))

    third = await folders.walks.open(WALKER, NodeId(3))
    await third.open()
    folders.held = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(folders.walks.go_on, WALKER)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(open_next)
        await trio.testing.wait_all_tasks_blocked()
        assert not found
        folders.held.set()
    assert found[0].node == 4
    assert folders.listed.count(4) == 1


async def test_what_gets_ready_too_late_is_not_taken_for_something_else() -> None:
    folders = Folders()
    for node in (1, 2):
        await folders.visit(WALKER, node)
    third = await folders.walks.open(WALKER, NodeId(3))
    await third.open()
    held = folders.held = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(folders.walks.go_on, WALKER)
        await trio.testing.wait_all_tasks_blocked()
        folders.held = None
        assert not await folders.visit(WALKER, 8)
        held.set()
    assert not await folders.visit(WALKER, 4)
