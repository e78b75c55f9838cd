"""Search by name below a folder, as a stream of results.

Owns the records of the stream, and what a search is bounded by. Links are not followed, and no
folder is looked into twice, so it ends. Must not know what the names are.

Concurrency: the loop has a turn after every batch of names; the search ends when the client leaves.
"""

import os
import re
import stat
from fnmatch import translate
from typing import NamedTuple

import trio
from starlette.requests import Request
from starlette.responses import Response

from restorefs.control import audit
from restorefs.control.limits import Limits
from restorefs.control.mounts import Mounts
from restorefs.control.paths import Paths
from restorefs.control.problems import ProblemError, as_json, describe
from restorefs.control.query import Query
from restorefs.control.rows import Json, row_of, type_of
from restorefs.control.rows import describe as describe_row
from restorefs.control.streaming import Streamed, Write
from restorefs.control.walking import Walk
from restorefs.control.who import who_asks
from restorefs.errors import NotAFolderError, RestoreError, UnsupportedError
from restorefs.tree.nodeid import NodeId
from restorefs.tree.tree import Listed, Tree

_MAX_DEPTH = 100
_MAX_PATTERN = 255
_PROGRESS_SECONDS = 0.5


class Searches:
    """Searches in mounted disks."""

    def __init__(self, tree: Tree, paths: Paths, mounts: Mounts, limits: Limits) -> None:
        self._tree = tree
        self._paths = paths
        self._mounts = mounts
        self._limits = limits

    async def search(self, request: Request) -> Response:
        query = Query(request, "pattern", "path", "case", "type", "limit")
        record = self._mounts.find(who_asks(request), request.path_params["mount_id"])
        pattern = query.needed("pattern")
        kind = query.choice("type", ("file", "directory", "symlink"))
        limit = query.number("limit", 1000, 1, 100_000)
        matching = _compile(pattern, case=query.flag("case", False))
        place = await self._paths.find(record, query.text("path") or "/")
        if not place.is_folder:
            raise NotAFolderError(f"{place.shown} is not a folder")
        await self._tree.readdir(place.entry.node)  # what cannot be looked into is a problem

        async def make(write: Write) -> None:
            search = _Search(self._tree, write, matching, kind, limit)
            await search.run(place.path.rstrip(b"/"), place.entry.node)

        self._limits.searches.take()
        audit.note(who_asks(request), "search", record, f"{place.shown} {pattern}")
        headers = {"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"}
        return Streamed(make, headers, limit=self._limits.searches)


def _compile(pattern: str, *, case: bool) -> "re.Pattern[str]":
    if len(pattern) > _MAX_PATTERN:
        raise ProblemError(422, f"the pattern has more than {_MAX_PATTERN} characters")
    # A run of stars means the same as one, and matches in linear time.
    pattern = re.sub(r"\*+", "*", pattern)
    try:
        return re.compile(translate(pattern), 0 if case else re.IGNORECASE)
    except re.error as error:
        raise ProblemError(422, f"the pattern cannot be understood: {error}") from None


class _Folder(NamedTuple):
    """A folder to look into. `parent`: the path of the one that its name is in; kept apart, for all
    folders in that one share it. `above`: those on the way to it."""

    parent: bytes
    name: bytes
    node: NodeId
    above: tuple[NodeId, ...] = ()

    @property
    def path(self) -> bytes:
        return self.parent + b"/" + self.name if self.name else self.parent


class _Search:
    """One search under way."""

    def __init__(
        self,
        tree: Tree,
        write: Write,
        pattern: "re.Pattern[str]",
        kind: str | None,
        limit: int,
    ) -> None:
        self._tree = tree
        self._write = write
        self._matches = pattern.match
        self._kind = kind
        self._limit = limit
        self._walk = Walk()
        self._folders = self._entries = self._found = self._errors = 0
        self._limited = False
        self._told_at = trio.current_time()

    async def run(self, path: bytes, folder: NodeId) -> None:
        # The folders that are still to come, the next one last: those of one way down and their
        # siblings, so no more than names that were seen.
        todo = [_Folder(path, b"", folder)]
        while todo and not self._limited:
            todo += (await self._look_into(todo.pop()))[::-1]
        await self._tell(
            record="end",
            folders=self._folders,
            entries=self._entries,
            matches=self._found,
            errors=self._errors,
            complete=not self._errors,
            limited=self._limited,
        )

    async def _look_into(self, folder: _Folder) -> list[_Folder]:
        """Look at a folder's names; return its subfolders."""
        below: list[_Folder] = []
        path = folder.path
        above = (*folder.above, folder.node)
        self._folders += 1
        cookie, complete = 0, False
        while not complete:
            try:
                if len(above) > _MAX_DEPTH:
                    raise UnsupportedError(f"more than {_MAX_DEPTH} folders deep: search below it")
                if not cookie:
                    self._walk.enter(folder.node, folder.above)
                batch = await self._tree.readdir(folder.node, cookie, stand_ins=False)
            except RestoreError as error:
                await self._fail(path, error)
                break
            lines = []
            for item in batch.items:
                self._entries += 1
                cookie = item.cookie
                if item.entry.attributes is None and item.entry.kind in (0, stat.S_IFDIR):
                    item = await self._ask_for(item, path)
                attributes = item.entry.attributes
                mode = attributes.mode if attributes is not None else item.entry.kind
                if stat.S_ISDIR(mode) and attributes is not None:
                    below.append(_Folder(path, item.name, item.entry.node, above))
                if not self._matches(os.fsdecode(item.name)):
                    continue
                if self._kind is not None and type_of(mode) != self._kind:
                    continue
                if self._found == self._limit:
                    self._limited = True
                    break
                self._found += 1
                lines.append(as_json({"record": "match"} | describe_row(row_of(item), path)))
            if lines:
                await self._write(b"\n".join(lines) + b"\n")
            if self._limited:
                break
            complete = batch.complete
            await self._tell_progress(path)
            await trio.lowlevel.checkpoint()
        return below

    async def _ask_for(self, item: Listed, folder: bytes) -> Listed:
        """Return a name of a folder whose attributes are not listed with what can be known of it.
        If it may be a folder and that is nothing, what is below it is missing from the answer."""
        try:
            return item._replace(entry=await self._tree.getattr(item.entry.node))
        except RestoreError as error:
            await self._fail(folder + b"/" + item.name, error)
            return item

    async def _fail(self, path: bytes, error: RestoreError) -> None:
        self._errors += 1
        await self._tell(record="error", path=os.fsdecode(path) or "/", **describe(error))

    async def _tell_progress(self, path: bytes) -> None:
        now = trio.current_time()
        if now - self._told_at >= _PROGRESS_SECONDS:
            self._told_at = now
            await self._tell(
                record="progress",
                folders=self._folders,
                entries=self._entries,
                matches=self._found,
                path=os.fsdecode(path) or "/",
            )

    async def _tell(self, **record: object) -> None:
        told: Json = record
        await self._write(as_json(told) + b"\n")
