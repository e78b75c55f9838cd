"""The request handlers: decode what is asked, ask the tree, encode the answer.

Owns which requests are answered, and the open folders. Must not know what a node is. Writes never
get here: the mount is read-only, and the kernel answers EROFS itself.

Files have no OPEN: it gives ENOSYS, after which the kernel opens without asking, keeps what it has
read, and asks with every READ. Folders do: what is wrong with one is an error of opendir(3), which
everybody checks, and not of readdir(3).

Concurrency: see server.py. Between the return of Tree.read() and the copy that the kernel makes
there is no await, so a view of a cache slot may be given.
"""

import errno
import itertools
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, TypeVar

from restorefs.counters import FUSE
from restorefs.errors import LookAgainError, NoAttributeError, NotFoundError, RestoreError
from restorefs.fuse import protocol
from restorefs.fuse.denying import Denying
from restorefs.fuse.listing import OpenFolder
from restorefs.fuse.protocol import FOPEN_CACHE_DIR, FOPEN_KEEP_CACHE, Opcode
from restorefs.fuse.request import Request
from restorefs.fuse.server import Answering, Handler
from restorefs.fuse.walk import Walks
from restorefs.tree.nodeid import NodeId, is_above
from restorefs.tree.tree import GUEST_TTL, Tree

T = TypeVar("T")


class Operations:
    """Serves a Tree."""

    def __init__(self, tree: Tree, denied: Collection[str] = ()) -> None:
        """denied: names of programs that may not look inside disks."""
        self._tree = tree
        self._folders: dict[int, OpenFolder] = {}
        self._walks = Walks(self._open_folder)
        self._begin_open = self._from_memory(self._open)
        self._handles = itertools.count(1)
        self.handlers: Mapping[int, Handler] = {
            Opcode.LOOKUP: self._from_memory(self._lookup),
            Opcode.GETATTR: self._from_memory(self._getattr),
            Opcode.READLINK: self._from_memory(self._readlink),
            Opcode.READ: self._read,
            Opcode.OPENDIR: self._opendir,
            Opcode.READDIRPLUS: self._readdirplus,
            Opcode.RELEASEDIR: self._releasedir,
            Opcode.GETXATTR: self._from_memory(self._getxattr),
            Opcode.LISTXATTR: self._from_memory(self._listxattr),
            Opcode.STATFS: self._statfs,
            Opcode.DESTROY: self._destroy,
            # Nodes are numbered for ever: there is nothing to forget.
            Opcode.FORGET: Request.drop,
            Opcode.BATCH_FORGET: Request.drop,
        }
        if denied:
            self.handlers = Denying(tree, denied).wrapped(self.handlers)

    def _from_memory(self, handler: Callable[[Request], Answering]) -> Handler:
        """Return a handler that answers at once what is asked about nodes above the disks: nothing
        of that waits, and it needs no task of its own."""

        def begin(request: Request) -> Answering | None:
            answering = handler(request)
            if self._tree.may_wait(request.node):
                return answering
            try:
                answering.send(None)
            except StopIteration:
                return None
            raise AssertionError("something above the disks waits")

        return begin

    async def _lookup(self, request: Request) -> None:
        asked = self._tree.lookup(request.node, protocol.name_in(request.body))
        try:
            entry = await self._looking_inside(request.node, asked)
        except NotFoundError:
            if is_above(request.node):
                raise
            request.reply(protocol.absent_out(GUEST_TTL))  # remembered, too
        else:
            node, attributes, ttl, _, generation = entry
            assert attributes is not None, "only a listing leaves them out"
            request.reply(protocol.entry_out(node, generation, attributes, ttl))

    async def _getattr(self, request: Request) -> None:
        node, attributes, ttl, *_ = await self._tree.getattr(request.node)
        assert attributes is not None, "only a listing leaves them out"
        request.reply(protocol.attr_out(node, attributes, ttl))

    async def _readlink(self, request: Request) -> None:
        request.reply(await self._tree.readlink(request.node))

    async def _read(self, request: Request) -> None:
        _, offset, size = protocol.read_in(request.body)
        data = await self._tree.read(request.node, offset, size)
        FUSE.read_bytes += len(data)
        request.reply(data)

    def _opendir(self, request: Request) -> Answering | None:
        self._tree.check_there(request.node)  # nothing is listed from memory when it has gone
        folder = self._walks.take(request.pid, request.node)
        if folder is None:
            return self._begin_open(request)
        self._reply_open(request, folder)
        return self._walks.go_on(request.pid) if self._walks.is_worth_it(request.pid) else None

    async def _open(self, request: Request) -> None:
        if is_above(request.node):
            opened = self._open_folder(request.node, None)
            folder = await self._looking_inside(request.node, opened)
        else:
            folder = await self._walks.open(request.pid, request.node)
        self._reply_open(request, folder)
        await folder.open()
        if not is_above(request.node):
            await self._walks.go_on(request.pid)

    async def _looking_inside(self, node: NodeId, answer: Coroutine[Any, Any, T]) -> T:
        """Await what may attach a disk. Where its folder looks different then, the kernel has let
        somebody in by what it looked like before. ESTALE has it walk the path again, and nobody
        sees that (path_lookup in Linux' "pathname lookup", LOOKUP_REVAL)."""
        before = self._tree.disk_attributes(node)
        error = None
        try:
            found = await answer
        except RestoreError as raised:
            error = raised
        if self._tree.disk_attributes(node) != before:
            raise LookAgainError("the disk's root is known now")
        if error is not None:
            raise error
        return found

    async def _open_folder(self, node: NodeId, parent: NodeId | None) -> OpenFolder:
        return OpenFolder(self._tree, node, await self._tree.readdir(node), parent)

    def _reply_open(self, request: Request, folder: OpenFolder) -> None:
        handle = next(self._handles)
        # The kernel may keep the listing of what never changes.
        flags = 0 if is_above(folder.node) else FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR
        if request.reply(protocol.open_out(handle, flags)):  # else nobody would ever close it
            self._folders[handle] = folder

    def _readdirplus(self, request: Request) -> Answering | None:
        handle, offset, size = protocol.read_in(request.body)
        folder = self._folders.get(handle)
        if folder is None:
            request.fail(errno.EBADF)
            return None
        self._tree.check_there(folder.node)
        ready = folder.take(offset, size)
        if ready is None:
            return self._read_folder(request, folder, offset, size)
        request.reply(ready)
        folder.prepare()
        return folder.fetch() if offset and folder.can_fetch else None

    async def _read_folder(
        self, request: Request, folder: OpenFolder, offset: int, size: int
    ) -> None:
        request.reply(await folder.read(offset, size))
        folder.prepare()
        if offset and folder.can_fetch:
            await folder.fetch()

    def _releasedir(self, request: Request) -> None:
        self._folders.pop(protocol.handle_in(request.body), None)
        request.reply()

    async def _getxattr(self, request: Request) -> None:
        size, name = protocol.getxattr_in(request.body)
        value = (await self._tree.xattrs(request.node)).get(name)
        if value is None:
            raise NoAttributeError("no such extended attribute")
        _reply_sized(request, value, size)

    async def _listxattr(self, request: Request) -> None:
        size, _ = protocol.getxattr_in(request.body)
        # As the kernel does: trusted.* is for root alone. And as ntfs-3g does: what only
        # NTFS can hold is for who asks by name, not for tools that copy every attribute they see.
        hidden = (b"system.ntfs_",) if request.uid == 0 else (b"system.ntfs_", b"trusted.")
        names = await self._tree.xattrs(request.node)
        shown = b"".join(name + b"\0" for name in names if not name.startswith(hidden))
        _reply_sized(request, shown, size)

    def _destroy(self, request: Request) -> None:
        request.reply()

    def _statfs(self, request: Request) -> None:
        request.reply(protocol.statfs_out())


def _reply_sized(request: Request, value: bytes, size: int) -> None:
    """Answer a request for a value that has room for `size` bytes; 0 asks for its length."""
    if not size:
        request.reply(protocol.getxattr_out(len(value)))
    elif len(value) <= size:
        request.reply(value)
    else:
        request.fail(errno.ERANGE)
