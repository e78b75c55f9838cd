"""The request handlers: decode what is asked, ask the tree, encode the answer.

Owns which requests are answered, and the open folders. Must not know what a node is. Writes never
get here: the mount is read-only, and the kernel answers EROFS itself.

Files have no OPEN: it gives ENOSYS, after which the kernel opens without asking, keeps what it has
read, and asks with every READ. Folders do: what is wrong with one is an error of opendir(3), which
everybody checks, and not of readdir(3). But for who opens a folder as if it were a file, which
opendir(3) does nowhere: nfs-ganesha does so to ask for attributes, and one folder that cannot be
read must not keep it from listing the one above. Listing it gives the error. And but for a folder
that is opened to come back up in a walk: it was read when the walk went down.

Concurrency: see server.py. Between the return of Tree.read() and the copy that the kernel makes
there is no await, so a view of a cache slot may be given.
"""

import errno
import itertools
import os
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, TypeVar

from restorefs.counters import FUSE
from restorefs.errors import (
    GoneError,
    LookAgainError,
    NoAttributeError,
    NotFoundError,
    RestoreError,
)
from restorefs.fuse import access, protocol
from restorefs.fuse.denying import Denying
from restorefs.fuse.listing import OpenFolder, read_to_end
from restorefs.fuse.protocol import FOPEN_CACHE_DIR, FOPEN_KEEP_CACHE, Opcode
from restorefs.fuse.request import Request
from restorefs.fuse.server import Answering, Handler
from restorefs.fuse.walk import Walks
from restorefs.tree.nodeid import NodeId, is_above
from restorefs.tree.tree import GUEST_TTL, Tree

T = TypeVar("T")
_ACL = b"system.posix_acl_access"


class Operations:
    """Serves a Tree."""

    def __init__(self, tree: Tree, denied: Collection[str] = ()) -> None:
        """denied: names of programs that may not look inside disks."""
        self._tree = tree
        self._folders: dict[int, OpenFolder] = {}
        self._unreadable: dict[int, RestoreError] = {}  # open folders that cannot be listed
        self._walks = Walks(self._open_folder, self._open_again)
        self._begin_open = self._from_memory(self._open)
        self._handles = itertools.count(1)
        self.handlers: Mapping[int, Handler] = {
            Opcode.LOOKUP: self._from_memory(self._lookup),
            Opcode.GETATTR: self._from_memory(self._getattr),
            Opcode.READLINK: self._from_memory(self._readlink),
            Opcode.READ: self._read,
            Opcode.LSEEK: self._lseek,
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
            entry = await self._looking_inside(request, asked, access.SEARCH)
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

    async def _lseek(self, request: Request) -> None:
        offset, whence = protocol.lseek_in(request.body)
        if whence == os.SEEK_DATA:
            found = await self._tree.find_data(request.node, offset)
        elif whence == os.SEEK_HOLE:
            found = await self._tree.find_hole(request.node, offset)
        else:
            request.fail(errno.EINVAL)
            return
        request.reply(protocol.lseek_out(found))

    def _opendir(self, request: Request) -> Answering | None:
        self._tree.check_there(request.node)  # nothing is listed from memory when it has gone
        folder = self._walks.take(request.pid, request.node)
        if folder is None:
            return self._begin_open(request)
        self._reply_open(request, folder)
        # Whoever asks for the names does so at once, and looks at them then: not before that.
        return self._go_on(request.pid) if self._walks.knows_names(request.pid) else None

    def _go_on(self, pid: int) -> Answering | None:
        """Make the next folders of a walk ready, if there are some."""
        return self._walks.go_on(pid) if self._walks.is_worth_it(pid) else None

    async def _open(self, request: Request) -> None:
        try:
            if is_above(request.node):
                opened = self._open_folder(request.node, None)
                folder = await self._looking_inside(request, opened, access.LIST)
            else:
                folder = await self._walks.open(request.pid, request.node)
        except (GoneError, LookAgainError):
            raise
        except RestoreError as error:
            if protocol.open_in(request.body) & os.O_DIRECTORY:
                raise
            self._reply_unreadable(request, error)
            return
        self._reply_open(request, folder)
        await folder.open()
        if not is_above(request.node) and self._walks.knows_names(request.pid):
            await self._walks.go_on(request.pid)

    async def _looking_inside(
        self, request: Request, answer: Coroutine[Any, Any, T], wanted: int
    ) -> T:
        """Await what may attach a disk. Where its folder looks different then, the kernel has let
        somebody in by what it looked like before. Whoever is not surely allowed in gets ESTALE: it
        has the kernel walk the path again, and nobody sees that (path_lookup in Linux' "pathname
        lookup", LOOKUP_REVAL), but for clients of the kernel's NFS server, which walks none."""
        before = self._tree.disk_attributes(request.node)
        error = None
        try:
            found = await answer
        except RestoreError as raised:
            error = raised
        if self._tree.disk_attributes(request.node) != before:
            await self._check_again(request, wanted)
        if error is not None:
            raise error
        return found

    async def _check_again(self, request: Request, wanted: int) -> None:
        """Raise LookAgainError unless whoever asks is surely allowed what is wanted."""
        has_acl = _ACL in await self._tree.xattrs(request.node)
        now = self._tree.disk_attributes(request.node)
        if now is None or not access.is_sure(request, now, has_acl, wanted):
            raise LookAgainError("the disk's root is known now")

    async def _open_folder(self, node: NodeId, parent: NodeId | None) -> OpenFolder:
        first = await self._tree.readdir(node)
        if self._tree.lists_whole:
            first = await read_to_end(self._tree, node, first)
        return OpenFolder(self._tree, node, first, parent)

    async def _open_again(self, node: NodeId, parent: NodeId | None) -> OpenFolder:
        if self._tree.lists_whole:
            return await self._open_folder(node, parent)
        return OpenFolder(self._tree, node, None, parent)

    def _reply_open(self, request: Request, folder: OpenFolder) -> None:
        handle = next(self._handles)
        # The kernel may keep the listing of what never changes.
        flags = 0 if is_above(folder.node) else FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR
        if request.reply(protocol.open_out(handle, flags)):  # else nobody would ever close it
            self._folders[handle] = folder

    def _reply_unreadable(self, request: Request, error: RestoreError) -> None:
        handle = next(self._handles)
        if request.reply(protocol.open_out(handle, 0)):
            self._unreadable[handle] = error

    def _readdirplus(self, request: Request) -> Answering | None:
        handle, offset, size = protocol.read_in(request.body)
        if handle in self._unreadable:
            request.fail_with(self._unreadable[handle])
            return None
        folder = self._folders.get(handle)
        if folder is None:
            request.fail(errno.EBADF)
            return None
        self._tree.check_there(folder.node)
        if not offset:
            self._walks.ask(request.pid, folder.node)
        ready = folder.take(offset, size)
        if ready is None:
            return self._read_folder(request, folder, offset, size)
        request.reply(ready)
        folder.prepare()
        if not offset:
            return self._go_on(request.pid)
        return folder.fetch() if folder.can_fetch else None

    async def _read_folder(
        self, request: Request, folder: OpenFolder, offset: int, size: int
    ) -> None:
        request.reply(await folder.read(offset, size))
        folder.prepare()
        if offset and folder.can_fetch:
            await folder.fetch()

    def _releasedir(self, request: Request) -> None:
        handle = protocol.handle_in(request.body)
        self._folders.pop(handle, None)
        self._unreadable.pop(handle, None)
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
