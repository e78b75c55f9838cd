"""How an open folder is packed into replies, whatever their sizes and order."""

import struct
from collections.abc import Sequence

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from restorefs.errors import DamagedError
from restorefs.fuse import listing
from restorefs.fuse.listing import OpenFolder
from restorefs.guestfs.base import Attributes
from restorefs.tree.nodeid import NodeId
from restorefs.tree.tree import Batch, Entry, Listed, Tree

FOLDER, PARENT = NodeId(50), NodeId(40)
ATTRIBUTES = Attributes(0, 0o100644, 1, 2, 3, 0, 5, 8, 1_500_000_001, -1, 7)
ENTRY_OUT = 128  # sizeof(struct fuse_entry_out)
DIRENT = struct.Struct("=QQII")  # struct fuse_dirent


def listed(number: int, broken: bool = False) -> Listed:
    name = b"n" * (1 + number % 9) + b"%d" % number
    attributes = None if broken else ATTRIBUTES
    return Listed(name, Entry(NodeId(100 + number), attributes, 60, 0o100000), 10 * number + 5)


class Folder(Tree):
    """Lists given items in batches; a cookie in `broken` fails until it is taken out."""

    def __init__(self, items: Sequence[Listed], batch: int = 3) -> None:
        self.items = items
        self.batch = batch
        self.broken: set[int] = set()
        self.asked: list[int] = []
        self.held: trio.Event | None = None

    async def readdir(self, node: NodeId, cookie: int = 0) -> Batch:
        assert node == FOLDER
        self.asked.append(cookie)
        await (trio.lowlevel.checkpoint() if self.held is None else self.held.wait())
        if cookie in self.broken:
            raise DamagedError("broken here")
        rest = [item for item in self.items if item.cookie > cookie]
        return Batch(rest[: self.batch], complete=len(rest) <= self.batch)

    async def parent(self, node: NodeId) -> NodeId:
        await trio.lowlevel.checkpoint()
        return PARENT


def records(data: bytes) -> list[tuple[bytes, int, int, int]]:
    """Return the name, number, offset and node (0: no attributes) of each record, as the kernel
    reads struct fuse_direntplus."""
    found = []
    while data:
        node = int.from_bytes(data[:8], "little")
        number, offset, length, _kind = DIRENT.unpack_from(data, ENTRY_OUT)
        start = ENTRY_OUT + DIRENT.size
        found.append((data[start : start + length], number, offset, node))
        data = data[start + (length + 7 & ~7) :]
    return found


async def opened(tree: Folder) -> OpenFolder:
    return OpenFolder(tree, FOLDER, await tree.readdir(FOLDER))


def expected(items: Sequence[Listed]) -> list[tuple[bytes, int, int]]:
    dots = [(b".", FOLDER, 1), (b"..", PARENT, 2)]
    return [*dots, *((item.name, item.entry.node, item.cookie + 2) for item in items)]


async def whole(folder: OpenFolder, size: int, ahead: bool) -> list[tuple[bytes, int, int]]:
    """Read a folder from its beginning to its end, as operations.py does."""
    found: list[tuple[bytes, int, int]] = []
    offset = 0
    while True:
        data = folder.take(offset, size)
        if data is None:
            data = await folder.read(offset, size)
        if not data:
            return found
        found += [(name, number, at) for name, number, at, _ in records(data)]
        offset = found[-1][2]
        if ahead:
            folder.prepare()
            if folder.can_fetch:
                await folder.fetch()


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("size", [200, 400, 1000, 32 << 10])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 20])
async def test_every_name_once_whatever_the_size(count: int, size: int, ahead: bool) -> None:
    tree = Folder([listed(number) for number in range(count)])
    folder = await opened(tree)
    if ahead:
        await folder.open()
    assert await whole(folder, size, ahead) == expected(tree.items)
    assert await whole(folder, size, ahead) == expected(tree.items), "rewound"


@pytest.mark.parametrize("most", [0, 7, 20, 100])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 20])
async def test_a_folder_that_is_read_to_its_end_first(
    count: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_MOST_KEPT", most)
    tree = Folder([listed(number) for number in range(count)])
    first = await listing.read_to_end(tree, FOLDER, await tree.readdir(FOLDER))
    assert first.complete == (count <= max(most, 3)), "all of it, if that is not too much to keep"
    asked = len(tree.asked)
    folder = OpenFolder(tree, FOLDER, first)
    assert await whole(folder, 32 << 10, True) == expected(tree.items)
    assert (len(tree.asked) > asked) == (not first.complete)


@pytest.mark.parametrize("most", [0, 100])
async def test_an_error_at_the_end_is_one_of_opening(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_MOST_KEPT", most)
    tree = Folder([listed(number) for number in range(20)])
    tree.broken.add(listed(17).cookie)
    with pytest.raises(DamagedError):
        await listing.read_to_end(tree, FOLDER, await tree.readdir(FOLDER))


async def test_the_next_reply_is_ready() -> None:
    tree = Folder([listed(number) for number in range(3)])
    folder = await opened(tree)
    await folder.open()
    data = folder.take(0, 32 << 10)
    assert data is not None
    assert len(records(data)) == 5
    folder.prepare()
    assert folder.take(records(data)[-1][2], 32 << 10) == b"", "and so is the end"
    assert tree.asked == [0]


async def test_subfolders_are_noted_once() -> None:
    folders = [listed(number) for number in range(7)]
    for place, item in enumerate(folders):
        if place % 2:
            attributes = ATTRIBUTES._replace(mode=0o040755)
            folders[place] = item._replace(entry=item.entry._replace(attributes=attributes))
    folder = await opened(Folder(folders))
    for size in (32 << 10, 400, 32 << 10):
        await whole(folder, size, True)
        assert folder.subfolders == [NodeId(101), NodeId(103), NodeId(105)]


async def test_numbers_that_the_kernel_has_no_room_for_cost_one_file() -> None:
    items = [listed(number) for number in range(3)]
    huge = items[1].entry._replace(attributes=ATTRIBUTES._replace(size=1 << 64))
    items[1] = items[1]._replace(entry=huge)
    data = await (await opened(Folder(items))).read(0, 32 << 10)
    assert [node for *_, node in records(data)] == [0, 0, 100, 0, 102]


async def test_a_reply_that_was_packed_for_more_room_is_packed_again() -> None:
    tree = Folder([listed(number) for number in range(9)])
    folder = await opened(tree)
    await folder.open()
    assert folder.take(0, 500) is None
    assert await whole(folder, 500, True) == expected(tree.items)


async def test_what_cannot_be_read_is_listed_without_attributes() -> None:
    tree = Folder([listed(0), listed(1, broken=True), listed(2)])
    data = await (await opened(tree)).read(0, 32 << 10)
    assert [node for *_, node in records(data)] == [0, 0, 100, 0, 102]
    assert [number for _, number, _, _ in records(data)] == [50, 40, 100, 101, 102]


async def test_an_error_ahead_is_told_to_who_gets_there() -> None:
    tree = Folder([listed(number) for number in range(6)])
    folder = await opened(tree)
    tree.broken.add(25)
    await folder.fetch()
    data = await folder.read(0, 32 << 10)
    assert [name for name, *_ in records(data)][2:] == [item.name for item in tree.items[:3]]
    with pytest.raises(DamagedError):
        await folder.read(27, 32 << 10)
    tree.broken.clear()
    data = await folder.read(27, 32 << 10)
    assert [name for name, *_ in records(data)] == [item.name for item in tree.items[3:]]


async def test_who_asks_while_a_batch_is_fetched_waits_for_that() -> None:
    tree = Folder([listed(number) for number in range(6)])
    folder = await opened(tree)
    first = await folder.read(0, 32 << 10)
    found: list[bytes] = []

    async def read_on() -> None:
        found.append(await folder.read(records(first)[-1][2], 32 << 10))

    tree.held = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(folder.fetch)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(read_on)
        await trio.testing.wait_all_tasks_blocked()
        tree.held.set()
    assert [name for name, *_ in records(found[0])] == [item.name for item in tree.items[3:]]
    assert tree.asked == [0, 25], "once"


async def test_two_readers_of_one_open_folder() -> None:
    """Threads that share it, each with an offset of its own, as pread would have."""
    tree = Folder([listed(number) for number in range(20)])
    folder = await opened(tree)
    results: list[list[tuple[bytes, int, int]]] = []

    async def read_all(size: int) -> None:
        results.append(await whole(folder, size, True))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_all, 400)
        nursery.start_soon(read_all, 700)
    assert results == [expected(tree.items)] * 2


@given(st.lists(st.tuples(st.integers(0, 22), st.integers(150, 2000), st.booleans()), max_size=30))
def test_seeking(steps: list[tuple[int, int, bool]]) -> None:
    """At any offset, in any order: what comes is what stands behind it."""
    tree = Folder([listed(number) for number in range(20)])
    complete = [(b"", 0, 0), *expected(tree.items)]

    async def seek() -> None:
        folder = await opened(tree)
        for position, size, ahead in steps:
            offset = complete[position][2]
            data = folder.take(offset, size)
            if data is None:
                data = await folder.read(offset, size)
            found = [(name, number, at) for name, number, at, _ in records(data)]
            assert found == complete[position + 1 :][: len(found)]
            assert found or position == len(complete) - 1
            if ahead:
                folder.prepare()
                if folder.can_fetch:
                    await folder.fetch()

    trio.run(seek)
