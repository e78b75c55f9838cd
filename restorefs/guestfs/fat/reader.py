"""The FAT12, FAT16 and FAT32 reader.

Owns the GuestFilesystem of these formats: puts the parts together and answers the seam's
questions with them. Must not know any bytes of the format.

Concurrency: any number of calls may be in flight; the parts keep only what never changes.
"""

from collections.abc import Mapping
from typing import ClassVar, Self

from restorefs.block.base import BlockDevice, ByteLength, ByteOffset
from restorefs.errors import DamagedError, NotALinkError
from restorefs.guestfs import dosattrib
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
from restorefs.guestfs.fat.directory import SHOWN_BITS
from restorefs.guestfs.fat.files import ROOT, ROOT_CLUSTER, FileTable
from restorefs.guestfs.fat.identify import describe, read_geometry, require_readable
from restorefs.guestfs.fat.listing import list_entries
from restorefs.guestfs.fat.search import Search
from restorefs.guestfs.limits import DEFAULT_LIMITS, Limits
from restorefs.guestfs.pieces import PieceReader


class FatFilesystem(GuestFilesystem):
    """A FAT12, FAT16 or FAT32 file system."""

    kinds: ClassVar[tuple[str, ...]] = ("vfat",)
    root = ROOT

    def __init__(self, files: FileTable, identity: Identity) -> None:
        self.identity = identity
        self._files = files
        self._search = Search(files)

    @classmethod
    async def probe(cls, device: BlockDevice) -> Identity | None:
        reader = PieceReader(device)
        geometry = await read_geometry(reader)
        if geometry is None:
            return None
        codepage = DEFAULT_OPTIONS.oem_codepage
        files = FileTable(reader, geometry, codepage, DEFAULT_LIMITS)
        return await describe(files, codepage)

    @classmethod
    async def open(
        cls,
        device: BlockDevice,
        options: GuestOptions = DEFAULT_OPTIONS,
        limits: Limits = DEFAULT_LIMITS,
    ) -> Self:
        reader = PieceReader(device)
        geometry = await read_geometry(reader)
        if geometry is None:
            raise DamagedError("there is no FAT file system")
        require_readable(geometry)
        files = FileTable(reader, geometry, options.oem_codepage, limits)
        await files.folder_at(ROOT_CLUSTER)
        return cls(files, await describe(files, options.oem_codepage))

    async def attributes(self, inode: Inode) -> Attributes:
        return await self._files.attributes(inode)

    async def lookup(self, folder: Inode, name: bytes) -> Inode:
        return await self._search.find(folder, name)

    async def readdir(self, folder: Inode, cookie: int = 0) -> Listing:
        return await list_entries(self._files, self._search, folder, cookie)

    async def readlink(self, inode: Inode) -> bytes:
        if inode != ROOT:
            await self._files.entry(inode)
        raise NotALinkError(f"inode {inode} is not a link: FAT has none")

    async def xattrs(self, inode: Inode) -> Mapping[bytes, bytes]:
        """Return the DOS attributes as Samba keeps them; nothing where none is set."""
        if inode == ROOT:
            return {}
        entry = await self._files.entry(inode)
        shown = entry.attributes & SHOWN_BITS
        if not shown and entry.created_ns is None:
            return {}
        return {dosattrib.NAME: dosattrib.encode(shown, entry.created_ns)}

    async def map(self, inode: Inode, offset: ByteOffset, length: ByteLength) -> list[Extent]:
        return await self._files.extents(inode, offset, length)
