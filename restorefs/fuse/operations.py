"""The request handlers: decode the node id, ask the tree, encode the reply.

Owns the encoding of entries, and the position of each open folder. Must not know what a node is.
Writes never get here: the mount is read-only, and the kernel answers EROFS itself.

Concurrency: pyfuse3 runs every request as its own task. Between the return of read() and the copy
that pyfuse3 makes of the buffer there is no await, so a view of a cache slot may be returned.
"""

import itertools
import stat
from collections.abc import Sequence
from dataclasses import dataclass

import pyfuse3

from restorefs.errors import NoAttributeError, NotFoundError, RestoreError
from restorefs.fuse.boundary import handler
from restorefs.guestfs.base import Attributes
from restorefs.session.filedata import Data
from restorefs.tree.nodeid import NodeId, is_above
from restorefs.tree.tree import GUEST_TTL, Batch, Entry, Tree

_DOTS = 2
"""Cookies that "." and ".." take; those of the tree come behind them."""
_NAME_MAX = 255
_BLOCK = 4096
_UNKNOWN = Attributes(0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0)


@dataclass(slots=True)
class _OpenFolder:
    """An open folder: the last batch, how many of its items have been sent, and the cookie of the
    last one sent."""

    node: NodeId
    batch: Batch
    position: int = 0
    cookie: int = 0


class Operations(pyfuse3.Operations):
    """Serves a Tree."""

    supports_dot_lookup = True
    enable_acl = True

    def __init__(self, tree: Tree, request_timeout: float) -> None:
        """`request_timeout` in seconds bounds every request; math.inf where the kernel does not."""
        super().__init__()
        self.request_timeout = request_timeout
        self._tree = tree
        self._folders: dict[int, _OpenFolder] = {}
        self._handles = itertools.count(1)

    @handler
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        try:
            return _encode(await self._tree.lookup(NodeId(parent_inode), name))
        except NotFoundError:
            if is_above(NodeId(parent_inode)):
                raise
            absent = pyfuse3.EntryAttributes()  # node 0: the kernel remembers that it is absent
            absent.entry_timeout = GUEST_TTL
            return absent

    @handler
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return _encode(await self._tree.getattr(NodeId(inode)))

    @handler
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        return await self._tree.readlink(NodeId(inode))

    @handler
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        self._tree.check_open(NodeId(inode))
        return pyfuse3.FileInfo(fh=inode, keep_cache=True)

    @handler
    async def read(  # type: ignore[override]  # pyfuse3 takes any buffer, its stub says bytes
        self, fh: int, off: int, size: int
    ) -> Data:
        return await self._tree.read(NodeId(fh), off, size)

    async def release(self, fh: int) -> None:
        """Nothing is kept for an open file: its handle is its node id."""

    @handler
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        node = NodeId(inode)
        folder = _OpenFolder(node, await self._tree.readdir(node))
        handle = next(self._handles)
        self._folders[handle] = folder
        return handle

    @handler
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        folder = self._folders[fh]
        self._tree.check_there(folder.node)  # nothing is listed from memory when it has gone
        sent = False
        if start_id < _DOTS:
            dots = await self._dots(folder.node)
            for cookie, name, node in dots[start_id:]:
                if not pyfuse3.readdir_reply(token, name, _folder_entry(node), cookie):
                    return
                sent = True
        cookie = max(start_id - _DOTS, 0)
        if cookie != folder.cookie:  # somebody seeks
            folder.batch, folder.position = Batch((), complete=False), 0
            folder.cookie = cookie
        reused = pyfuse3.EntryAttributes()
        while True:
            for item in itertools.islice(folder.batch.items, folder.position, None):
                entry = _encode(item.entry, reused)
                if not pyfuse3.readdir_reply(token, item.name, entry, item.cookie + _DOTS):
                    return
                sent = True
                folder.position += 1
                folder.cookie = item.cookie
            if folder.batch.complete:
                return
            try:
                batch = await self._tree.readdir(folder.node, folder.cookie)
            except RestoreError:
                if sent:
                    return  # what is in this reply counts; the next request gets the error
                raise
            folder.batch, folder.position = batch, 0

    async def _dots(self, node: NodeId) -> tuple[tuple[int, bytes, NodeId], ...]:
        """Return the cookie, name and node of "." and ".."."""
        try:
            parent = await self._tree.parent(node)
        except RestoreError:
            parent = node  # damage there costs no name here
        return (1, b".", node), (_DOTS, b"..", parent)

    @handler
    async def releasedir(self, fh: int) -> None:
        self._folders.pop(fh, None)

    @handler
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        value = (await self._tree.xattrs(NodeId(inode))).get(name)
        if value is None:
            raise NoAttributeError("no such extended attribute")
        return value

    @handler
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        # As the kernel does: trusted.* is for root alone. And as ntfs-3g does: what only
        # NTFS can hold is for who asks by name, not for tools that copy every attribute they see.
        hidden = (b"system.ntfs_",) if ctx.uid == 0 else (b"system.ntfs_", b"trusted.")
        names = await self._tree.xattrs(NodeId(inode))
        return [name for name in names if not name.startswith(hidden)]

    @handler
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = _BLOCK
        data.f_namemax = _NAME_MAX
        return data


def _folder_entry(node: NodeId) -> pyfuse3.EntryAttributes:
    """Encode "." or "..", of which the kernel takes the number and the type only."""
    encoded = pyfuse3.EntryAttributes()
    encoded.st_ino = node
    encoded.st_mode = stat.S_IFDIR
    return encoded


def _encode(
    entry: Entry, encoded: pyfuse3.EntryAttributes | None = None
) -> pyfuse3.EntryAttributes:
    """Encode an entry for the kernel. A listing gives the object of the entry before, which is
    then overwritten whole."""
    encoded = encoded or pyfuse3.EntryAttributes()
    encoded.st_ino = entry.node
    attributes = entry.attributes
    if attributes is None:
        # Listed, but its inode cannot be read: nothing is cached, so that asking gives the error.
        attributes = _UNKNOWN._replace(mode=entry.kind or stat.S_IFREG)
        encoded.entry_timeout = encoded.attr_timeout = 0
    else:
        encoded.entry_timeout = encoded.attr_timeout = entry.ttl
    encoded.st_mode = attributes.mode
    encoded.st_nlink = attributes.nlink
    encoded.st_uid = attributes.uid
    encoded.st_gid = attributes.gid
    encoded.st_rdev = attributes.rdev
    encoded.st_size = attributes.size
    encoded.st_blocks = attributes.blocks
    encoded.st_atime_ns = attributes.atime_ns
    encoded.st_mtime_ns = attributes.mtime_ns
    encoded.st_ctime_ns = attributes.ctime_ns
    return encoded
