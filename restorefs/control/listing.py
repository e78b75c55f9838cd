"""Folders, sorted and in pages.

Owns that a folder of 100,000 entries is read and sorted once for all of its pages. What a guest
holds never changes, so a listing is kept under the disk's generation; what is kept is bounded.

Concurrency: what goes through very many entries does so in steps of a few milliseconds, one step of
all such work at each turn of the loop. A thread would do worse: it takes Python from the loop at
every one of the loop's system calls.
"""

import heapq
import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, TypeVar

import trio

from restorefs.control.rows import Row, row_of, type_of
from restorefs.tree.nodeid import NodeId, is_above
from restorefs.tree.tree import Tree

SORTS = ("name", "-name", "size", "-size", "time", "-time", "type", "-type")
T = TypeVar("T")
_MAX_KEPT = 200_000
_STEP = 1000  # rows

_Key = tuple[NodeId, int, str, bool]


class Steps:
    """What takes long, step by step."""

    def __init__(self) -> None:
        self._turn = trio.Lock()

    async def each(self, rows: Sequence[Row], step: Callable[[Sequence[Row]], T]) -> list[T]:
        """Return what a step makes of each part of some rows."""
        return [
            await self.one(step, rows[start : start + _STEP])
            for start in range(0, len(rows), _STEP)
        ]

    async def one(self, step: Callable[..., T], *args: Any) -> T:
        """Do one step when it is its turn."""
        async with self._turn:
            return step(*args)


class Listings:
    """The folders that were listed last."""

    def __init__(self, tree: Tree, steps: Steps) -> None:
        self._tree = tree
        self._steps = steps
        self._kept: OrderedDict[_Key, Sequence[Row]] = OrderedDict()

    async def rows(
        self, folder: NodeId, generation: int, sort: str, folders_first: bool
    ) -> Sequence[Row]:
        """Return all entries of a folder, sorted. Raises what the tree does."""
        key = (folder, generation, sort, folders_first)
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found
        in_another_order = (rows for kept, rows in self._kept.items() if kept[:2] == key[:2])
        rows = next(in_another_order, None)
        if rows is None:
            rows = await read_all(self._tree, folder)
        found = await self._sorted(rows, _order(sort, folders_first))
        if not is_above(folder):  # a disk's folder may come to be another's
            self._keep(key, found)
        return found

    async def containing(self, rows: Sequence[Row], part: str) -> Sequence[Row]:
        """Return the rows whose name contains a text, in any case."""
        wanted = part.lower()

        def step(some: Sequence[Row]) -> list[Row]:
            return [row for row in some if wanted in os.fsdecode(row.name).lower()]

        return [row for found in await self._steps.each(rows, step) for row in found]

    async def first_beginning(self, rows: Sequence[Row], beginning: str) -> int | None:
        """Return which row is the first whose name begins so, in any case."""
        wanted = beginning.lower()

        def step(some: Sequence[Row]) -> list[bool]:
            return [os.fsdecode(row.name).lower().startswith(wanted) for row in some]

        found = (each for some in await self._steps.each(rows, step) for each in some)
        return next((index for index, begins in enumerate(found) if begins), None)

    async def _sorted(self, rows: Sequence[Row], order: Callable[[Row], Any]) -> Sequence[Row]:
        parts = await self._steps.each(rows, lambda some: sorted(some, key=order))
        merged = heapq.merge(*parts, key=order)
        found: list[Row] = []
        while some := await self._steps.one(lambda: list(islice(merged, _STEP))):
            found += some
        return found

    def _keep(self, key: _Key, rows: Sequence[Row]) -> None:
        self._kept[key] = rows
        kept = sum(map(len, self._kept.values()))
        while kept > _MAX_KEPT and len(self._kept) > 1:
            kept -= len(self._kept.popitem(last=False)[1])


async def read_all(tree: Tree, folder: NodeId) -> list[Row]:
    """Return all entries of a folder as they come."""
    rows: list[Row] = []
    cookie, complete = 0, False
    while not complete:
        batch = await tree.readdir(folder, cookie, stand_ins=False)
        rows += map(row_of, batch.items)
        complete = batch.complete
        if batch.items:
            cookie = batch.items[-1].cookie
        await trio.lowlevel.checkpoint()
    return rows


def _order(sort: str, folders_first: bool) -> Callable[[Row], Any]:
    """Return a key to sort by; of equal ones, the name decides."""
    down = sort.startswith("-")

    def name_of(row: Row) -> Any:
        folded = row.name.lower()
        return _Descending(folded) if sort == "-name" else folded

    def first(row: Row) -> bool:
        return folders_first and row.kind != stat.S_IFDIR

    if sort in ("size", "-size"):
        return lambda row: (first(row), -row.size if down else row.size, row.name)
    if sort in ("time", "-time"):
        return lambda row: (first(row), -row.mtime_ns if down else row.mtime_ns, row.name)
    if sort in ("type", "-type"):
        order = ("other", "symlink", "file", "directory")
        sign = 1 if down else -1
        return lambda row: (sign * order.index(type_of(row.kind)), row.name.lower(), row.name)
    return lambda row: (first(row), name_of(row), row.name)


class _Descending:
    """Bytes that sort the other way round."""

    __slots__ = ("_of",)

    def __init__(self, of: bytes) -> None:
        self._of = of

    def __lt__(self, other: "_Descending") -> bool:
        return other._of < self._of

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Descending) and other._of == self._of

    def __hash__(self) -> int:
        return hash(self._of)
