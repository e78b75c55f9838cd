"""The NTFS reader.

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
    NotAFolderError,
    NotALinkError,
    NotFoundError,
    RestoreError,
    StorageError,
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
from restorefs.guestfs.ntfs import identify
from restorefs.guestfs.ntfs.content import Content
from restorefs.guestfs.ntfs.files import File, FileTable
from restorefs.guestfs.ntfs.folder import Folders
from restorefs.guestfs.ntfs.inodes import Inodes, inode_of
from restorefs.guestfs.ntfs.layout import (
    RECORD_MASK,
    REPARSE_POINT,
    ROOT,
    Boot,
    decode_boot,
    require_known,
)
from restorefs.guestfs.ntfs.links import Links
from restorefs.guestfs.ntfs.mft import Mft
from restorefs.guestfs.ntfs.security import Security
from restorefs.guestfs.ntfs.xattrs import Xattrs
from restorefs.guestfs.pieces import PieceReader

_KEPT_PIECES = 64
"""More than others keep: the files of a folder were listed from pieces of the MFT, whose records
are not kept one by one, and are likely to be opened next."""


class NtfsFilesystem(GuestFilesystem):
    """An NTFS file system."""

    kinds: ClassVar[tuple[str, ...]] = ("ntfs",)
    has_streams: ClassVar[bool] = True
    root = ROOT

    def __init__(self, mft: Mft, boot: Boot, options: GuestOptions) -> None:
        self._boot = boot
        self._device = mft.reader.device
        self._files = FileTable(mft)
        self._folders = Folders(self._files, options.show_system_files)
        self._links = Links(self._files, self._folders)
        self._inodes = Inodes(self._files, self._links)
        self._content = Content(self._files, self._inodes)
        self._xattrs = Xattrs(self._files, self._inodes, self._content, Security(self._files))

    @classmethod
    async def probe(cls, device: BlockDevice) -> Identity | None:
        sector = await identify.boot_sector(device)
        if sector is None:
            return None
        try:
            return (await cls.open(device)).identity
        except StorageError:
            raise
        except RestoreError as error:
            return identify.of_boot_sector(sector, (str(error),))

    @classmethod
    async def open(
        cls,
        device: BlockDevice,
        options: GuestOptions = DEFAULT_OPTIONS,
        limits: Limits = DEFAULT_LIMITS,
    ) -> Self:
        sector = await identify.boot_sector(device)
        boot = decode_boot(sector or b"")
        require_known(boot)
        filesystem = cls(
            await Mft.open(PieceReader(device, _KEPT_PIECES), boot, limits), boot, options
        )
        try:
            await filesystem._folder(ROOT)
        except (NotFoundError, NotAFolderError) as error:
            raise DamagedError("the file system's root is not a folder") from error
        filesystem.identity = await identify.describe(
            boot, device, filesystem._files, filesystem._folders, filesystem._content
        )
        return filesystem

    async def attributes(self, inode: Inode) -> Attributes:
        return await self._inodes.attributes(inode)

    async def lookup(self, folder: Inode, name: bytes) -> Inode:
        file = await self._folder(folder)
        if name == b".":
            return folder
        if name == b"..":
            return inode_of((await self._folders.parent(file)).number)
        try:
            return inode_of((await self._child(file, name)).number)
        except NotFoundError:
            owner, colon, stream = name.rpartition(b":")
            if not colon or not stream:
                raise
            child = await self._child(file, owner) if owner else file
            return await self._inodes.stream_inode(child, stream)

    async def readdir(self, folder: Inode, cookie: int = 0) -> Listing:
        file = await self._folder(folder)
        names, complete = await self._folders.names(file, cookie)
        keeper = await self._inodes.keeper(file) if complete else ""
        if keeper:
            # What is here is listed, but never as if it were all.
            if not names:
                raise UnsupportedError(
                    f"folder {file.number} may have files that are not on the volume ({keeper})"
                )
            complete = False
        return Listing(await self._inodes.entries(names), complete)

    async def readlink(self, inode: Inode) -> bytes:
        node = await self._inodes.node(inode)
        special = await self._inodes.special(node.file)
        if node.stream or not special.is_link or special.reparse is None:
            raise NotALinkError(f"inode {inode} is not a link")
        return await self._links.target(node.file, special.reparse)

    async def xattrs(self, inode: Inode) -> Mapping[bytes, bytes]:
        return await self._xattrs.xattrs(inode)

    async def map(self, inode: Inode, offset: ByteOffset, length: ByteLength) -> list[Extent]:
        return await self._content.map(inode, offset, length)

    async def read_encoded(
        self, inode: Inode, offset: ByteOffset, length: ByteLength
    ) -> bytes | bytearray:
        return await self._content.decoded(inode, offset, length)

    async def _folder(self, inode: Inode) -> File:
        """Return a folder. Raises NotAFolderError, also for a link to one."""
        node = await self._inodes.node(inode)
        file = node.file
        if file.is_folder and not node.stream:
            if not file.pieces(REPARSE_POINT):
                return file
            if stat.S_ISDIR((await self.attributes(inode)).mode):
                return file
        raise NotAFolderError(f"inode {inode} is not a folder")

    async def _child(self, folder: File, name: bytes) -> File:
        """Return the file of a name in a folder. Raises NotFoundError, DamagedError."""
        reference = await self._folders.find(folder, name)
        number = reference & RECORD_MASK
        try:
            return await self._files.file(number, reference >> 48)
        except NotFoundError as error:
            raise DamagedError(f"the name leads to nothing: {error}") from None
