"""The exFAT reader.

Owns the GuestFilesystem of this format: puts the parts together and answers the seam's questions
with them. Must not know any bytes of the format.

Concurrency: any number of calls may be in flight; the parts keep only what never changes.
"""

import stat
from collections.abc import Mapping
from contextlib import aclosing
from typing import ClassVar, NamedTuple, Self

import trio

from restorefs.block.base import BlockDevice, ByteLength, ByteOffset
from restorefs.errors import (
    DamagedError,
    IsAFolderError,
    NotAFolderError,
    NotALinkError,
    RestoreError,
    UnsupportedError,
)
from restorefs.guestfs import dosattrib
from restorefs.guestfs.base import (
    DEFAULT_OPTIONS,
    Attributes,
    DirEntry,
    Extent,
    GuestFilesystem,
    GuestOptions,
    Identity,
    Inode,
    Listing,
)
from restorefs.guestfs.exfat.chain import Chain, Chains
from restorefs.guestfs.exfat.directory import FileSet
from restorefs.guestfs.exfat.files import ROOT_INODE, FileTable
from restorefs.guestfs.exfat.folder import (
    FIRST_WINDOW,
    LARGEST_FOLDER,
    WINDOW,
    Folder,
    Found,
    cookie_of,
)
from restorefs.guestfs.exfat.identify import FoundBoot, Volume, examine, find_boot, identify
from restorefs.guestfs.exfat.layout import ENTRY_SIZE
from restorefs.guestfs.exfat.search import Names, Parents
from restorefs.guestfs.limits import DEFAULT_LIMITS, Limits
from restorefs.guestfs.lru import Lru
from restorefs.guestfs.pieces import PieceReader

_KEPT_STATES = 4096
_ROOT_MODE = stat.S_IFDIR | 0o755
_DOS_ATTRIBUTES = 0x37  # read-only, hidden, system, folder, archive


class _Checked(NamedTuple):
    """A part of a folder that was looked at."""

    error: RestoreError | None


_NOTHING = _Checked(None)


class ExfatFilesystem(GuestFilesystem):
    """An exFAT file system."""

    kinds: ClassVar[tuple[str, ...]] = ("exfat",)
    root = ROOT_INODE

    def __init__(
        self,
        reader: PieceReader,
        found: FoundBoot,
        chains: Chains,
        volume: Volume,
        root: Chain,
        limits: Limits,
    ) -> None:
        self.identity = volume.identity
        self._reader = reader
        self._boot = found.boot
        self._chains = chains
        self._limits = limits
        self._root_chain = root
        self._files = FileTable(reader, found.boot, chains)
        self._names = Names(self._files, volume.upcase)
        self._parents = Parents(self._folder)
        # What is wrong in front of the cookies that were given.
        self._errors_before: Lru[tuple[Inode, int], _Checked] = Lru(_KEPT_STATES)

    @classmethod
    async def probe(cls, device: BlockDevice) -> Identity | None:
        return await identify(device, DEFAULT_LIMITS)

    @classmethod
    async def open(
        cls,
        device: BlockDevice,
        options: GuestOptions = DEFAULT_OPTIONS,
        limits: Limits = DEFAULT_LIMITS,
    ) -> Self:
        reader = PieceReader(device)
        found = await find_boot(reader)
        if found is None:
            raise DamagedError("there is no exFAT file system")
        chains = Chains(reader, found.boot, limits)
        volume = await examine(reader, found, chains)
        if volume.error is not None:
            raise volume.error
        most = max(1, min(LARGEST_FOLDER, limits.folder_bytes) >> found.boot.cluster_bits)
        root = await chains.linked(found.boot.root_cluster, most, to_end=True)
        return cls(reader, found, chains, volume, root, limits)

    async def attributes(self, inode: Inode) -> Attributes:
        if inode == ROOT_INODE:
            size = self._root_chain.length << self._boot.cluster_bits
            return Attributes(ROOT_INODE, _ROOT_MODE, 1, 0, 0, 0, size, size >> 9, 0, 0, 0)
        return await self._files.attributes(inode)

    async def lookup(self, folder: Inode, name: bytes) -> Inode:
        if name in (b".", b".."):
            await self._folder_set(folder)
            return folder if name == b"." else await self._parents.parent(folder)
        found = await self._names.find(await self._folder(folder), name)
        self._parents.learn(folder, [(found, await self._files.file(found))])
        return found

    async def readdir(self, folder: Inode, cookie: int = 0) -> Listing:
        opened = await self._folder(folder)
        start = cookie * ENTRY_SIZE
        length = WINDOW if cookie else FIRST_WINDOW
        error: RestoreError | None = None
        while True:
            window = await opened.window(start, length)
            error = error or window.error
            if window.found or window.complete:
                break
            start, length = window.end, WINDOW
            await trio.lowlevel.checkpoint()
        self._parents.learn(folder, window.found)
        entries = [self._entry(start, found) for found in window.found]
        if not window.complete:
            self._note_error(folder, cookie, entries[-1].cookie, error)
            return Listing(entries, False)
        error = await self._error_before(opened, cookie) or error
        if error is None:
            return Listing(entries, True)
        if entries:
            return Listing(entries, False)
        raise error

    async def readlink(self, inode: Inode) -> bytes:
        await self.attributes(inode)
        raise NotALinkError(f"inode {inode} is not a symbolic link")

    async def xattrs(self, inode: Inode) -> Mapping[bytes, bytes]:
        if inode == ROOT_INODE:
            return {}
        file = await self._files.file(inode)
        shown = file.attributes & _DOS_ATTRIBUTES
        if not shown and file.created_ns is None:
            return {}
        return {dosattrib.NAME: dosattrib.encode(shown, file.created_ns)}

    async def map(self, inode: Inode, offset: ByteOffset, length: ByteLength) -> list[Extent]:
        if inode == ROOT_INODE:
            raise IsAFolderError("the root is a folder")
        file = await self._files.file(inode)
        if file.is_folder:
            raise IsAFolderError(f"inode {inode} is a folder")
        _require_known(file)
        if not 0 <= offset <= offset + length <= file.length:
            raise DamagedError(f"inode {inode} ends before byte {offset + length}")
        if file.valid_length > file.length:
            raise DamagedError(f"inode {inode} has more valid bytes than bytes")
        stored = max(0, min(offset + length, file.valid_length) - offset)
        extents = []
        if stored:
            chain = await self._files.chain(file, file.valid_length)
            extents = self._chains.extents(chain, offset, stored)
        if stored < length:
            extents.append(Extent(None, length - stored))
        return extents

    async def _folder(self, inode: Inode) -> Folder:
        """Raises NotAFolderError, NotFoundError, DamagedError, UnsupportedError."""
        chain = self._root_chain
        file = await self._folder_set(inode)
        if file is not None:
            _require_known(file)
            if file.length > min(LARGEST_FOLDER, self._limits.folder_bytes):
                raise DamagedError(f"folder {inode} claims {file.length} bytes")
            chain = await self._files.chain(file, file.length)
        return Folder(self._reader, self._chains, inode, chain, is_root=file is None)

    async def _folder_set(self, inode: Inode) -> FileSet | None:
        """Return a folder's set, None for the root, which has none. Raises NotAFolderError,
        NotFoundError, DamagedError."""
        if inode == ROOT_INODE:
            return None
        file = await self._files.file(inode)
        if not file.is_folder:
            raise NotAFolderError(f"inode {inode} is not a folder")
        return file

    def _entry(self, start: ByteOffset, found: Found) -> DirEntry:
        inode, file = found
        attributes: Attributes | None
        try:
            attributes = self._files.attributes_of(inode, file)
        except DamagedError:
            attributes = None
        kind = stat.S_IFDIR if file.is_folder else stat.S_IFREG
        # Not DirEntry(...): this is the innermost loop of every listing.
        return tuple.__new__(DirEntry, (file.name, inode, kind, cookie_of(start, file), attributes))

    def _note_error(
        self, folder: Inode, cookie: int, next_cookie: int, error: RestoreError | None
    ) -> None:
        """Keep what was wrong between two cookies, where it is known what was in front of them."""
        before = self._errors_before.get((folder, cookie)) if cookie else _NOTHING
        if before is not None:
            checked = _Checked(before.error or error)
            self._errors_before.put((folder, next_cookie), checked)

    async def _error_before(self, folder: Folder, cookie: int) -> RestoreError | None:
        """Return what is wrong in a folder in front of a cookie."""
        if not cookie:
            return None
        checked = self._errors_before.get((folder.inode, cookie))
        if checked is None:
            error: RestoreError | None = None
            async with aclosing(folder.windows()) as windows:
                async for window in windows:
                    error = error or window.error
                    if window.end >= cookie * ENTRY_SIZE:
                        break
            checked = _Checked(error)
            self._errors_before.put((folder.inode, cookie), checked)
        return checked.error


def _require_known(file: FileSet) -> None:
    if file.unknown:
        raise UnsupportedError(
            f"exFAT directory entries of type 0x{file.unknown:02X} are not supported"
        )
