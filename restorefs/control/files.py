"""The calls about one mount's files: listing, download, preview.

Owns these calls' headers: ranges, ETags, and names that are safe in a header.

Concurrency: a folder's rows are written as JSON step by step (listing.py) while they are sent, so
that many entries hold up nobody, and are never there as a whole.
"""

import os
import re
import stat
from collections.abc import Iterable, Mapping
from email.utils import formatdate, parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import quote

import trio
from starlette.requests import Request
from starlette.responses import Response

from restorefs.catalog.records import DiskRecord
from restorefs.control import audit
from restorefs.control.limits import Limits
from restorefs.control.listing import SORTS, Listings, Steps
from restorefs.control.metrics import ApiFigures
from restorefs.control.mounts import Mounts
from restorefs.control.paths import Paths, Place, TooManyLinksError
from restorefs.control.problems import ProblemError, as_json
from restorefs.control.query import Query
from restorefs.control.rows import Json, Row, describe, etag, type_of
from restorefs.control.sniff import Kind, text_of, told_by
from restorefs.control.streaming import Streamed, Write
from restorefs.control.who import who_asks
from restorefs.errors import (
    DamagedError,
    IsAFolderError,
    NotAFolderError,
    NotFoundError,
    RestoreError,
)
from restorefs.tree.tree import Tree

PIECE = 1 << 20
_MAX_TEXT = 1 << 20
_MAX_IMAGE = 32 << 20
_SMALL = 1000  # rows that are written as JSON at once
_BATCH = 500
_LARGE = 10_000  # rows: an answer with more is one of few
_MAX_FOLLOWED = 1000  # links of one page
SANDBOX = "sandbox; default-src 'none'"


class Files:
    """Files of mounted disks."""

    def __init__(
        self, tree: Tree, paths: Paths, mounts: Mounts, limits: Limits, figures: ApiFigures
    ) -> None:
        self._tree = tree
        self._paths = paths
        self._mounts = mounts
        self._limits = limits
        self._figures = figures
        self._steps = Steps()
        self._listings = Listings(tree, self._steps)

    # --- listing ------------------------------------------------------------------------------

    async def files(self, request: Request) -> Response:
        query = Query(request, "path", "offset", "limit", "sort", "folders_first", "q", "find")
        record = self._record(request)
        sort = query.choice("sort", SORTS) or "name"
        first = query.flag("folders_first", True)
        offset, limit = query.number("offset", 0), query.number("limit", 2**53, 1)
        place = await self._paths.find(record, query.text("path") or "/")
        entry = place.entry
        if not place.is_folder:
            raise NotAFolderError(f"{place.shown} is not a folder")
        rows = await self._listings.rows(entry.node, entry.generation, sort, first)
        found = {}
        if part := query.text("q"):
            rows = await self._listings.containing(rows, part)
        if beginning := query.text("find"):
            found["found"] = await self._listings.first_beginning(rows, beginning)
        shown = range(*slice(offset, offset + limit).indices(len(rows)))
        links = await self._links(record, place, (rows[index] for index in shown))
        about = {
            "mount_id": request.path_params["mount_id"],
            "path": place.shown,
            "total_count": len(rows),
            "offset": offset,
        } | found

        def render(some: range) -> bytes:
            rendered = (rows[index] for index in some)
            return as_json(
                [describe(row, place.path) | links.get(row.name, {}) for row in rendered]
            )

        if len(shown) <= _SMALL:
            body = as_json(about)[:-1] + b',"files":' + render(shown) + b"}"
            return Response(body, media_type="application/json")

        async def make(write: Write) -> None:
            before = as_json(about)[:-1] + b',"files":['
            for start in range(0, len(shown), _BATCH):
                piece = await self._steps.one(render, shown[start : start + _BATCH])
                await write(before + piece[1:-1])
                before = b","
            await write(b"]}")

        place_of = self._limits.listings if len(shown) > _LARGE else None
        if place_of is not None:
            place_of.take()
        return Streamed(make, {"Content-Type": "application/json"}, limit=place_of)

    async def _links(
        self, record: DiskRecord, place: Place, rows: Iterable[Row]
    ) -> dict[bytes, Json]:
        """Return what to tell of the links among some rows."""
        found: dict[bytes, Json] = {}
        for row in rows:
            if row.kind != stat.S_IFLNK or not row.mode:
                continue
            if len(found) >= _MAX_FOLLOWED:
                break
            path = os.fsdecode(place.path.rstrip(b"/") + b"/" + row.name)
            told: Json = {}
            try:
                told["target"] = os.fsdecode(await self._tree.readlink(row.node))
                told["target_type"] = None
                told["target_type"] = type_of((await self._paths.find(record, path)).mode)
            except (NotFoundError, NotAFolderError, TooManyLinksError):
                pass  # it leads nowhere
            except (RestoreError, ProblemError) as error:
                told["error"] = str(error)
            found[row.name] = told
            await trio.lowlevel.checkpoint()
        return found

    # --- one file -----------------------------------------------------------------------------

    async def download(self, request: Request) -> Response:
        query = Query(request, "path")
        record = self._record(request)
        place = await self._file(record, query.needed("path"))
        attributes = place.entry.attributes
        assert attributes is not None
        tag = etag(record.id, place.entry.generation, place.entry.node, attributes)
        headers = {
            "Accept-Ranges": "bytes",
            "ETag": tag,
            "Cache-Control": "private, no-cache",
            "Content-Security-Policy": SANDBOX,
        }
        modified = attributes.mtime_ns // 1_000_000_000
        if 0 <= modified < 2**37:
            headers["Last-Modified"] = formatdate(modified, usegmt=True)
        if _matches(request.headers.get("if-none-match"), tag):
            return Response(None, 304, headers)
        start, end, status = 0, attributes.size, 200
        if (asked := request.headers.get("range")) and _may_range(request, tag, modified):
            found = _range(asked, attributes.size)
            if found is not None:
                start, end = found
                status = 206
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{attributes.size}"
        name = place.path.rpartition(b"/")[2]
        headers |= {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(end - start),
            "Content-Disposition": disposition(name),
        }
        # Also of HEAD: what fails at once is a problem.
        first = await self._piece(place, start, end)

        answer = self._streamed(place, first, start + len(first), end, headers, status)
        if request.method == "GET":
            audit.note(who_asks(request), "download", record, _shown(place, start, end))
        return answer

    async def preview(self, request: Request) -> Response:
        query = Query(request, "path", "bytes")
        most = query.number("bytes", _MAX_TEXT, 1, _MAX_TEXT)
        record = self._record(request)
        place = await self._file(record, query.needed("path"))
        attributes = place.entry.attributes
        assert attributes is not None
        size = attributes.size
        first = await self._piece(place, 0, min(size, _MAX_TEXT))
        kind = told_by(first)
        if kind is None or (kind is not Kind.TEXT and size > _MAX_IMAGE):
            raise ProblemError(415, "neither text nor an image that can be shown; download it")
        position, end = len(first), size
        if kind is Kind.TEXT:
            position = end = min(len(first), most)
            first = text_of(first[:end]).encode()
        headers = {
            "Content-Type": kind.value,
            "Content-Length": str(len(first) + end - position),
            "Content-Security-Policy": SANDBOX,
            "Cache-Control": "private, no-cache",
            "Content-Disposition": "inline",
            "X-Frame-Options": "SAMEORIGIN",
            "ETag": etag(record.id, place.entry.generation, place.entry.node, attributes),
        }
        if end < size:
            headers["X-Truncated"] = "true"
        if request.method == "HEAD":  # who asks what it is
            return Response(None, headers=headers)
        answer = self._streamed(place, first, position, end, headers)
        audit.note(who_asks(request), "preview", record, _shown(place, 0, end))
        return answer

    def _streamed(
        self,
        place: Place,
        first: bytes,
        position: int,
        end: int,
        headers: Mapping[str, str],
        status: int = 200,
    ) -> Response:
        """Return an answer of a first piece and then a file's content from a position on."""

        async def make(write: Write) -> None:
            piece, sent = first, position
            await write(piece)
            while sent < end:
                piece = await self._piece(place, sent, end)
                await write(piece)
                sent += len(piece)

        limit = self._limits.downloads
        limit.take()
        return Streamed(make, headers, status=status, limit=limit, count=self._figures.count_bytes)

    async def _piece(self, place: Place, start: int, end: int) -> bytes:
        """Return the next bytes, up to a whole MiB of the file: those are one slot of the cache."""
        if start >= end:
            return b""
        length = min(PIECE - start % PIECE, end - start)
        data = bytes(await self._tree.read(place.entry.node, start, length))
        if len(data) != length:
            raise DamagedError(f"the file ends after {start + len(data)} bytes, before its size")
        return data

    async def _file(self, record: DiskRecord, path: str) -> Place:
        place = await self._paths.find(record, path)
        if place.is_folder:
            raise IsAFolderError(f"{place.shown} is a folder; ask for it as an archive")
        if not stat.S_ISREG(place.mode):
            raise ProblemError(422, f"{place.shown} is not a file with content")
        return place

    def _record(self, request: Request) -> DiskRecord:
        return self._mounts.find(who_asks(request), request.path_params["mount_id"])


class Range(NamedTuple):
    """A part of a file, half-open."""

    start: int
    end: int


def _range(asked: str, size: int) -> Range | None:
    """Return the one range that is asked for; None where the whole file is to be sent (RFC 9110,
    14.2): several ranges, other units, what is not understood. Raises ProblemError, 416."""
    match = re.fullmatch(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*", asked)
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first == "":  # the last so many bytes
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1 if last else size)
        if last and int(last) < int(first):
            return None
    if start >= end:
        raise ProblemError(416, f"the file has {size} bytes", {"Content-Range": f"bytes */{size}"})
    return Range(start, end)


def _may_range(request: Request, tag: str, modified: int) -> bool:
    """Whether If-Range, if there is one, still holds."""
    condition = request.headers.get("if-range")
    if condition is None:
        return True
    if condition.startswith(('"', "W/")):
        return condition.strip() == tag
    try:
        return int(parsedate_to_datetime(condition).timestamp()) == modified
    except (TypeError, ValueError, OverflowError):
        return False


def _matches(condition: str | None, tag: str) -> bool:
    if condition is None:
        return False
    tags = [each.strip().removeprefix("W/") for each in condition.split(",")]
    return "*" in tags or tag in tags


def disposition(name: bytes) -> str:
    """Return a Content-Disposition that is safe for every name (RFC 6266): a plain name in ASCII
    for old clients, and the true one encoded, as far as it is UTF-8."""
    text = name.decode("utf-8", "replace")
    text = "".join(each if each.isprintable() else "_" for each in text).strip() or "file"
    plain = re.sub(r"[^A-Za-z0-9 !#$&()+,.;=@^_`{}~\[\]-]", "_", text)
    plain = plain.replace(";", "_")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(text, safe='')}"


def _shown(place: Place, start: int, end: int) -> str:
    return f"{place.shown} bytes {start}-{end}"
