"""The ext2, ext3 and ext4 reader.

Owns the GuestFilesystem of these formats: puts the parts together and answers the seam's
questions with them. Must not know any bytes of the format.

Concurrency: any number of calls may be in flight; the parts keep only what never changes.
"""

import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
from restorefs.guestfs.ext.blockmap import Volume
from restorefs.guestfs.ext.files import FileTable
from restorefs.guestfs.ext.folder import Folder
from restorefs.guestfs.ext.identify import (
    FoundSuperblock,
    describe,
    find_superblock,
    identify,
    require_readable,
)
from restorefs.guestfs.ext.inodes import InodeTable
from restorefs.guestfs.ext.layout import ROOT_INODE
from restorefs.guestfs.ext.listing import list_entries
from restorefs.guestfs.ext.search import find
from restorefs.guestfs.limits import DEFAULT_LIMITS, Limits
from restorefs.guestfs.pieces import PieceReader


class ExtFilesystem(GuestFilesystem):
    """An ext2, ext3 or ext4 file system."""

    kinds: ClassVar[tuple[str, ...]] = ("ext2", "ext3", "ext4")
    root = ROOT_INODE

    def __init__(self, reader: PieceReader, found: FoundSuperblock, limits: Limits) -> None:
        self.identity = describe(found, reader.device)
        self._superblock = found.superblock
        self._volume = Volume(reader, found.superblock, limits)
        self._inodes = InodeTable(reader, found)
        self._files = FileTable(self._volume, self._inodes, found.superblock)

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
            raise DamagedError("there is no ext2, ext3 or ext4 file system")
        require_readable(found.superblock)
        filesystem = cls(reader, found, limits)
        try:
            await filesystem._folder(ROOT_INODE)
        except (NotFoundError, NotAFolderError) as error:
            raise DamagedError("the file system's root is not a folder") from error
        return filesystem

    async def attributes(self, inode: Inode) -> Attributes:
        return await self._inodes.attributes(inode)

    async def lookup(self, folder: Inode, name: bytes) -> Inode:
        with _naming(folder):
            return await find(await self._folder(folder), name)

    async def readdir(self, folder: Inode, cookie: int = 0) -> Listing:
        with _naming(folder):
            return await list_entries(await self._folder(folder), self._inodes, cookie)

    async def readlink(self, inode: Inode) -> bytes:
        if not stat.S_ISLNK((await self.attributes(inode)).mode):
            raise NotALinkError(f"inode {inode} is not a symbolic link")
        return await self._files.link_target(inode)

    async def xattrs(self, inode: Inode) -> Mapping[bytes, bytes]:
        return await self._files.xattrs(inode)

    async def map(self, inode: Inode, offset: ByteOffset, length: ByteLength) -> list[Extent]:
        file = await self._files.file(inode)
        if stat.S_ISDIR(file.attributes.mode):
            raise IsAFolderError(f"inode {inode} is a folder")
        if file.encrypted:
            raise UnsupportedError(f"the content of inode {inode} is encrypted (fscrypt)")
        if not 0 <= offset <= offset + length <= file.attributes.size:
            raise DamagedError(f"inode {inode} ends before byte {offset + length}")
        return await file.content.extents(offset, length)

    async def _folder(self, inode: Inode) -> Folder:
        if not stat.S_ISDIR((await self.attributes(inode)).mode):
            raise NotAFolderError(f"inode {inode} is not a folder")
        return Folder(self._volume, self._superblock, await self._files.file(inode))


@contextmanager
def _naming(folder: Inode) -> Iterator[None]:
    """Say of damage which folder has it, unless that was said."""
    try:
        yield
    except DamagedError as error:
        if f" {folder}" in str(error):
            raise
        raise DamagedError(f"folder {folder}: {error}") from None
