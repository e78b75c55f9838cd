"""The request handlers: decode the node id, ask the tree, encode the reply.

Owns the encoding of entries, and the position of each open folder. Must not know what a node is.
Writes never get here: the mount is read-only, and the kernel answers EROFS itself.

Concurrency: pyfuse3 runs every request as its own task. Between the return of read() and the copy
that pyfuse3 makes of the buffer there is no await, so a view of a cache slot may be returned.
"""

import itertools
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyfuse3

from restorefs.errors import NoAttributeError, NotFoundError, RestoreError
from restorefs.fuse.boundary import handler
from restorefs.session.filedata import Data
from restorefs.tree.nodeid import NodeId, is_above
from restorefs.tree.tree import GUEST_TTL, Entry, Listed, Tree

_DOTS = 2
"""Cookies that "." and ".." take; those of the tree come behind them."""
_NAME_MAX = 255
_BLOCK = 4096


@dataclass(slots=True)
class _OpenFolder:
    """An open folder: what of the last batch has not been sent, and the cookie it begins behind."""

    node: NodeId
    batch: list[Listed]
    position: int = 0
    cookie: int = 0
    dots: list[Listed] = field(default_factory=list)


class Operations(pyfuse3.Operations):
    """Serves a Tree."""

    supports_dot_lookup = True
    enable_acl = True

    def __init__(self, tree: Tree) -> None:
        super().__init__()
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
        sent = False
        if start_id < _DOTS:
            for item in (await self._dots(folder.node))[start_id:]:
                if not pyfuse3.readdir_reply(token, item.name, _encode(item.entry), item.cookie):
                    return
                sent = True
        cookie = max(start_id - _DOTS, 0)
        if cookie != folder.cookie:  # somebody seeks
            folder.batch, folder.position, folder.cookie = [], 0, cookie
        elif cookie == 0 and folder.position == 0 and not folder.batch:
            return  # an empty folder, as opendir() found
        while True:
            if folder.position == len(folder.batch):
                try:
                    folder.batch, folder.position = await self._tree.readdir(folder.node, cookie), 0
                except RestoreError:
                    if sent:
                        return  # what is in this reply counts; the next request gets the error
                    raise
                if not folder.batch:
                    return
            for item in itertools.islice(folder.batch, folder.position, None):
                entry = _encode(item.entry)
                if not pyfuse3.readdir_reply(token, item.name, entry, item.cookie + _DOTS):
                    return
                sent = True
                folder.position += 1
                cookie = folder.cookie = item.cookie

    async def _dots(self, node: NodeId) -> Sequence[Listed]:
        # The kernel ignores the attributes that a listing gives these two.
        here = Entry(node, None, 0, stat.S_IFDIR)
        try:
            parent = await self._tree.lookup(node, b"..")
        except RestoreError:
            parent = here  # damage there costs no name here
        return (Listed(b".", here, 1), Listed(b"..", parent, _DOTS))

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
        names = await self._tree.xattrs(NodeId(inode))
        # As the kernel's own file systems do: trusted.* is for root alone.
        return [name for name in names if ctx.uid == 0 or not name.startswith(b"trusted.")]

    @handler
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = _BLOCK
        data.f_namemax = _NAME_MAX
        return data


def _encode(entry: Entry) -> pyfuse3.EntryAttributes:
    """Encode an entry for the kernel."""
    encoded = pyfuse3.EntryAttributes()
    encoded.st_ino = entry.node
    attributes = entry.attributes
    if attributes is None:
        # Listed, but its inode cannot be read: nothing is cached, so that asking gives the error.
        encoded.st_mode = entry.kind or stat.S_IFREG
        encoded.entry_timeout = encoded.attr_timeout = 0
        return encoded
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
