"""Folders as one archive, made while it is sent.

Owns the walk, what happens to what cannot be read, and that memory stays bounded: one batch of
names for each level, a piece of content, and the pieces under way. Nothing is written to disk.

What cannot be read is never left out silently. A file whose first MiB cannot be read is not in the
archive, and named in its last entry (unread.py); one that fails later ends the archive there, for
its size was promised. An archive that is not to be taken for a whole one is cut off before its end:
that the connection was broken is not told by every protocol, and soon forgotten. Must not know the
formats.

Concurrency: one task reads and one compresses and sends, with few pieces between them; both end
when the client leaves.
"""

import os
import stat
from collections.abc import AsyncGenerator, Collection
from typing import NamedTuple

import trio
from starlette.requests import Request
from starlette.responses import Response

from restorefs.catalog.records import DiskRecord
from restorefs.control import audit
from restorefs.control.files import PIECE, disposition
from restorefs.control.limits import Limits
from restorefs.control.metrics import ApiFigures
from restorefs.control.mounts import Mounts
from restorefs.control.pack_tar import TarPacker
from restorefs.control.pack_zip import ZipPacker
from restorefs.control.packing import Member, Packer, Room, Share
from restorefs.control.paths import Paths, Place
from restorefs.control.problems import ProblemError
from restorefs.control.query import Query, form_body
from restorefs.control.streaming import BrokenOffError, Streamed, Write
from restorefs.control.unread import NAME as ERRORS_NAME
from restorefs.control.unread import Unread
from restorefs.control.walking import Names, Walk
from restorefs.control.who import who_asks
from restorefs.errors import DamagedError, RestoreError, UnsupportedError
from restorefs.guestfs.base import Attributes
from restorefs.tree.namespace import safe_name
from restorefs.tree.nodeid import NodeId
from restorefs.tree.tree import Listed, Tree

PACKERS: dict[str, type[ZipPacker] | type[TarPacker]] = {"zip": ZipPacker, "tar.zst": TarPacker}
_MAX_DEPTH = 256
_MAX_KEPT = 256 << 20  # bytes of what formats keep until an archive's end, of all archives
_MAX_LINKS = 100_000  # files with several names that are remembered,
_MAX_LINK_BYTES = 16 << 20  # and bytes of these names
_MAX_PATHS = 2000
_UNDER_WAY = 2
_KINDS = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)


class Archives:
    """Folders of mounted disks as archives."""

    def __init__(
        self, tree: Tree, paths: Paths, mounts: Mounts, limits: Limits, figures: ApiFigures
    ) -> None:
        self._tree = tree
        self._paths = paths
        self._mounts = mounts
        self._limits = limits
        self._figures = figures
        self._threads = trio.CapacityLimiter(2)
        self._room = Room(_MAX_KEPT)

    async def archive(self, request: Request) -> Response:
        form = await form_body(request) if request.method == "POST" else b""
        query = Query(request, "path", "format", "errors", form=form)
        record = self._mounts.find(who_asks(request), request.path_params["mount_id"])
        packer = PACKERS[query.choice("format", PACKERS) or "zip"]
        abort = query.choice("errors", ("abort", "list")) != "list"
        paths = query.several("path") or ["/"]
        if len(paths) > _MAX_PATHS:
            raise ProblemError(400, f"more than {_MAX_PATHS} paths")
        tops: dict[bytes, Place] = {}
        for path in paths:
            place = await self._paths.find(record, path, follow=len(paths) == 1)
            tops[_free_name(_top_name(place, record), tops)] = place
        for place in tops.values():
            if place.is_folder:  # what cannot even be looked into is a problem, not an archive
                await self._tree.readdir(place.entry.node)
            elif not packer.has_hard_links and stat.S_IFMT(place.mode) not in _KINDS:
                raise ProblemError(422, f"{place.shown} is a device or the like: a zip has none")
        name = next(iter(tops)) if len(tops) == 1 else _top_name(None, record)

        async def make(write: Write) -> None:
            with self._room.shared() as share:
                await _Archive(self._tree, packer, self._threads, share, write, abort).run(tops)

        self._limits.archives.take()
        if request.method != "HEAD":
            shown = ", ".join(place.shown for place in tops.values())
            audit.note(who_asks(request), "archive", record, shown)
        headers = {
            "Content-Type": packer.media_type,
            "Content-Disposition": disposition(name + packer.suffix.encode()),
            "Cache-Control": "no-store",
        }
        return Streamed(make, headers, limit=self._limits.archives, count=self._figures.count_bytes)


class _Archive:
    """One archive while it is made."""

    def __init__(
        self,
        tree: Tree,
        packer: type[ZipPacker] | type[TarPacker],
        threads: trio.CapacityLimiter,
        share: Share,
        write: Write,
        abort: bool,
    ) -> None:
        self._tree = tree
        self._packer: Packer = packer(self._put, threads, share)
        self._write = write
        self._abort = abort
        self._gathered = bytearray()
        self._unread = Unread()
        self._names: dict[NodeId, bytes] = {}
        self._link_room = _MAX_LINK_BYTES
        self._send, self._receive = trio.open_memory_channel[bytes](_UNDER_WAY)

    async def run(self, tops: dict[bytes, Place]) -> None:
        """Make it. Raises BrokenOffError where it is to end as an incomplete one."""
        broken: list[RestoreError] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pack, tops, broken)
            async with self._receive:
                async for piece in self._receive:
                    if encoded := await self._packer.encode(piece):
                        await self._write(encoded)
        packer = self._packer
        whole = not broken and self._to_be_whole
        if encoded := packer.encode_end() if whole else packer.encode_cut():
            await self._write(encoded)
        if broken:
            raise broken[0]
        if not whole:
            raise BrokenOffError

    @property
    def _to_be_whole(self) -> bool:
        return not (self._unread.count and self._abort)

    async def _pack(self, tops: dict[bytes, Place], broken: list[RestoreError]) -> None:
        async with self._send:
            try:
                for name, place in tops.items():
                    await self._add_tree(name, place)
                if self._unread.count:
                    await self._add_errors(_free_name(ERRORS_NAME, tops))
                if self._to_be_whole:
                    await self._packer.finish()
            except RestoreError as error:
                broken.append(error)
            await self._flush()

    async def _put(self, piece: bytes) -> None:
        """Gather what is put: who compresses and sends gets pieces of a MiB."""
        self._gathered += piece
        if len(self._gathered) >= PIECE:
            await self._flush()

    async def _flush(self) -> None:
        piece = bytes(self._gathered)
        self._gathered.clear()
        await self._send.send(piece)

    # --- the walk -----------------------------------------------------------------------------

    async def _add_tree(self, name: bytes, place: Place) -> None:
        """Add a file, or a folder and all that is in it, depth first."""
        attributes = place.entry.attributes
        assert attributes is not None
        added = await self._add(name, place.entry.node, attributes)
        if not added or not stat.S_ISDIR(attributes.mode):
            return
        walk, names = Walk(), Names()
        # The folders between the top and here, with an iterator over the entries of each.
        open_folders: list[_OpenFolder] = []

        def go_into(path: bytes, node: NodeId) -> None:
            open_folders.append(_OpenFolder(path, node, self._entries(path, node)))
            names.open()

        walk.enter(place.entry.node, ())
        go_into(name, place.entry.node)
        try:
            while open_folders:
                folder = open_folders[-1]
                item = await anext(folder.entries, None)
                if item is None:
                    await open_folders.pop().entries.aclose()
                    names.close()
                    continue
                path = folder.path + b"/" + item.name
                try:
                    attributes = _checked(item, names)
                    if is_folder := stat.S_ISDIR(attributes.mode):
                        if len(open_folders) >= _MAX_DEPTH:
                            raise UnsupportedError(f"more than {_MAX_DEPTH} folders deep")
                        walk.enter(item.entry.node, [each.node for each in open_folders])
                except RestoreError as error:
                    self._unread.add(path, str(error))
                    continue
                if await self._add(path, item.entry.node, attributes) and is_folder:
                    go_into(path, item.entry.node)
        finally:
            for folder in open_folders:
                await folder.entries.aclose()

    async def _entries(self, path: bytes, folder: NodeId) -> AsyncGenerator[Listed, None]:
        cookie, complete = 0, False
        while not complete:
            try:
                batch = await self._tree.readdir(folder, cookie, stand_ins=False)
            except RestoreError as error:
                self._unread.add(path, f"not all of its names can be read: {error}")
                return
            for item in batch.items:
                yield item
                cookie = item.cookie
            complete = batch.complete
            await trio.lowlevel.checkpoint()

    async def _add(self, path: bytes, node: NodeId, attributes: Attributes) -> bool:
        """Add one file or empty folder; say whether it is in the archive."""
        kind = stat.S_IFMT(attributes.mode)
        several = attributes.nlink > 1 and kind != stat.S_IFDIR and self._packer.has_hard_links
        if kind not in _KINDS and (not self._packer.has_hard_links or kind == stat.S_IFSOCK):
            return False  # a zip has no devices, nothing has sockets
        member = Member(path, attributes)
        first = self._names.get(node) if several else None
        position, size = 0, attributes.size if kind == stat.S_IFREG and first is None else 0
        try:
            target = first
            if target is None:
                target = await self._tree.readlink(node) if kind == stat.S_IFLNK else b""
            piece = await self._piece(node, 0, size)
            await self._packer.begin(member, target, hard=first is not None)
        except RestoreError as error:
            self._unread.add(path, str(error))
            return False
        if several and first is None:
            self._remember(node, path)
        while piece:
            await self._packer.data(piece)
            position += len(piece)
            try:
                piece = await self._piece(node, position, size)
            except RestoreError as error:
                raise DamagedError(f"{os.fsdecode(path)}: {error}") from error
        await self._packer.end()
        return True

    def _remember(self, node: NodeId, path: bytes) -> None:
        """Keep in mind under what name a file is in the archive that has several. Where there is no
        room for it, the file is in the archive once more."""
        if len(self._names) < _MAX_LINKS and len(path) <= self._link_room:
            self._link_room -= len(path)
            self._names[node] = path

    async def _piece(self, node: NodeId, start: int, size: int) -> bytes:
        if start >= size:
            return b""
        length = min(PIECE, size - start)
        data = bytes(await self._tree.read(node, start, length))
        if len(data) != length:
            raise DamagedError(f"ends after {start + len(data)} bytes, before its size")
        return data

    async def _add_errors(self, name: bytes) -> None:
        text = self._unread.text()
        attributes = Attributes(0, stat.S_IFREG | 0o644, 1, 0, 0, 0, len(text), 0, 0, 0, 0)
        await self._packer.begin(Member(name, attributes))
        await self._packer.data(text)
        await self._packer.end()


class _OpenFolder(NamedTuple):
    """A folder whose entries are being added."""

    path: bytes
    node: NodeId
    entries: AsyncGenerator[Listed, None]


def _checked(item: Listed, names: Names) -> Attributes:
    """Return the attributes of an entry. Raises RestoreError for one that cannot be added."""
    name, attributes = item.name, item.entry.attributes
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise DamagedError("this cannot be a name")
    if attributes is None:
        raise DamagedError("its attributes cannot be read")
    names.check(name, is_link=stat.S_ISLNK(attributes.mode))
    return attributes


def _top_name(place: Place | None, record: DiskRecord) -> bytes:
    """Return what an archive's folder is called: as the folder, or as the disk."""
    if place is not None and place.path != b"/":
        return place.path.rpartition(b"/")[2]
    return safe_name(f"{record.backup_id}-disk{record.disk_index}")


def _free_name(name: bytes, taken: Collection[bytes]) -> bytes:
    number, free = 1, name
    while free in taken:
        number += 1
        free = name + b"-%d" % number
    return free
