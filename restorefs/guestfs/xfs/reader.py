"""The XFS reader.

Owns the GuestFilesystem of this format: puts the parts together and answers the seam's questions
with them. Must not know any bytes of the format.

Concurrency: any number of calls may be in flight; the parts keep only what never changes.
"""

import stat
from collections.abc import Mapping
from typing import ClassVar, Self

from restorefs.block.base import BlockDevice, ByteLength, ByteOffset
from restorefs.errors import (
    DamagedError,
    IsAFolderError,
    NotAFolderError,
    NotALinkError,
    NotFoundError,
    UnsupportedError,
)
from restorefs.guestfs.base import (
    DEFAULT_OPTIONS,
    Attributes,
    Extent,
    GuestFilesystem,
    GuestOptions,
    Identity,
    Inode,
    Listing,
)
from restorefs.guestfs.limits import DEFAULT_LIMITS, Limits
from restorefs.guestfs.lru import Lru
from restorefs.guestfs.pieces import PieceReader
from restorefs.guestfs.xfs.attributes import read_attributes
from restorefs.guestfs.xfs.blockmap import Volume
from restorefs.guestfs.xfs.files import FileTable
from restorefs.guestfs.xfs.folder import Folder
from restorefs.guestfs.xfs.identify import (
    KIND,
    FoundSuperblock,
    describe,
    describe_log,
    find_superblock,
    identify,
    require_readable,
)
from restorefs.guestfs.xfs.inodes import InodeTable
from restorefs.guestfs.xfs.listing import list_entries
from restorefs.guestfs.xfs.search import find

_KEPT_ATTRIBUTES = 4


class XfsFilesystem(GuestFilesystem):
    """An XFS file system."""

    kinds: ClassVar[tuple[str, ...]] = (KIND,)

    def __init__(
        self, reader: PieceReader, found: FoundSuperblock, identity: Identity, limits: Limits
    ) -> None:
        self.identity = identity
        self.root = found.superblock.root
        self._superblock = found.superblock
        self._volume = Volume(reader, found.superblock, limits)
        self._inodes = InodeTable(self._volume, believe_trees=bool(identity.clean))
        self._files = FileTable(self._volume, self._inodes)
        # Programs ask for one attribute after the other, and a file may have thousands.
        self._attributes: Lru[Inode, dict[bytes, bytes]] = Lru(_KEPT_ATTRIBUTES)

    @classmethod
    async def probe(cls, device: BlockDevice) -> Identity | None:
        return await identify(device)

    @classmethod
    async def open(
        cls,
        device: BlockDevice,
        options: GuestOptions = DEFAULT_OPTIONS,
        limits: Limits = DEFAULT_LIMITS,
    ) -> Self:
        reader = PieceReader(device)
        found = await find_superblock(reader)
        if found is None:
            raise DamagedError("there is no XFS file system")
        require_readable(found.superblock)
        identity = await describe(found, reader)
        filesystem = cls(reader, found, identity, limits)
        try:
            await filesystem._folder(filesystem.root)
        except (NotFoundError, NotAFolderError) as error:
            raise DamagedError("the file system's root is not a folder") from error
        return filesystem

    async def show_log(self, device: BlockDevice) -> None:
        if not self.identity.log_uuid:
            raise UnsupportedError("this XFS keeps its journal on its own device")
        self.identity = await describe_log(self.identity, self._superblock, device)
        self._inodes.believe_trees = bool(self.identity.clean)

    async def attributes(self, inode: Inode) -> Attributes:
        return await self._inodes.attributes(inode)

    async def lookup(self, folder: Inode, name: bytes) -> Inode:
        return await find(await self._folder(folder), name)

    async def readdir(self, folder: Inode, cookie: int = 0) -> Listing:
        return await list_entries(await self._folder(folder), self._inodes, cookie)

    async def readlink(self, inode: Inode) -> bytes:
        file = await self._files.file(inode)
        if not stat.S_ISLNK(file.attributes.mode):
            raise NotALinkError(f"inode {inode} is not a symbolic link")
        return await self._files.link_target(file)

    async def xattrs(self, inode: Inode) -> Mapping[bytes, bytes]:
        fork = (await self._files.file(inode)).body.attributes
        if fork is None:
            return {}
        attributes = self._attributes.get(inode)
        if attributes is None:
            attributes = await read_attributes(self._volume, inode, fork)
            self._attributes.put(inode, attributes)
        return attributes

    async def map(self, inode: Inode, offset: ByteOffset, length: ByteLength) -> list[Extent]:
        file = await self._files.file(inode)
        if stat.S_ISDIR(file.attributes.mode):
            raise IsAFolderError(f"inode {inode} is a folder")
        if not stat.S_ISREG(file.attributes.mode):
            raise DamagedError(f"inode {inode} has no content")
        if file.realtime:
            raise UnsupportedError(f"the content of inode {inode} is on a realtime device")
        if not 0 <= offset <= offset + length <= file.attributes.size:
            raise DamagedError(f"inode {inode} ends before byte {offset + length}")
        return await file.content.extents(offset, length)

    async def _folder(self, inode: Inode) -> Folder:
        file = await self._files.file(inode)
        if not stat.S_ISDIR(file.attributes.mode):
            raise NotAFolderError(f"inode {inode} is not a folder")
        return Folder(self._volume, file)
