"""Folders, sorted and in pages.

Owns that a folder of 100,000 entries is read and sorted once for all of its pages, and that
neither holds up the loop. What a guest holds never changes, so a listing is kept under the
disk's generation; what is kept is bounded.
"""

import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import trio

from restorefs.control.rows import Row, row_of, type_of
from restorefs.tree.nodeid import NodeId, is_above
from restorefs.tree.tree import Tree

SORTS = ("name", "-name", "size", "-size", "time", "-time", "type", "-type")
_MAX_KEPT = 200_000
_SMALL = 2000  # rows that are sorted in the loop

_Key = tuple[NodeId, int, str, bool]


def containing(rows: Sequence[Row], part: str) -> Sequence[Row]:
    """Return the rows whose name contains a text, in any case."""
    wanted = part.lower()
    return [row for row in rows if wanted in os.fsdecode(row.name).lower()]


def first_beginning(rows: Sequence[Row], beginning: str) -> int | None:
    """Return which row is the first whose name begins so, in any case."""
    wanted = beginning.lower()
    names = (os.fsdecode(row.name).lower() for row in rows)
    return next((index for index, name in enumerate(names) if name.startswith(wanted)), None)


class Listings:
    """The folders that were listed last."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
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
        rows = await read_all(self._tree, folder)
        make = partial(sorted, rows, key=_order(sort, folders_first), reverse=False)
        found = make() if len(rows) <= _SMALL else await trio.to_thread.run_sync(make)
        if not is_above(folder):  # a disk's folder may come to be another's
            self._keep(key, found)
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
