"""The guest file system seam.

Owns what a file system is to the layers above: inodes with attributes, folders, and a map from a
file's bytes to the volume's. A reader maps; it never copies plain file data: the block layer
reads it. Only encoded content (compressed, encrypted) is decoded by its reader. Must not know
about backups, FUSE or caching policy. Names, link targets and attribute names are bytes, exactly
as stored. All offsets and lengths are bytes, times are ns since 1970 UTC (may be negative).

Concurrency: any number of calls may be in flight on one file system. The content never changes.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Self, TypeAlias

from restorefs.block.base import BlockDevice, ByteLength, ByteOffset
from restorefs.errors import UnsupportedError
from restorefs.guestfs.limits import DEFAULT_LIMITS, Limits

Inode: TypeAlias = int
Nanoseconds: TypeAlias = int


class Attributes(NamedTuple):
    """What stat(2) shows. `mode` has the type bits; `blocks` counts 512-byte units; `rdev` is a
    Linux dev_t as os.makedev makes it; `created_ns` is None where the format has no such time."""

    inode: Inode
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: ByteLength
    blocks: int
    atime_ns: Nanoseconds
    mtime_ns: Nanoseconds
    ctime_ns: Nanoseconds
    created_ns: Nanoseconds | None = None


class DirEntry(NamedTuple):
    """One name of a folder, without "." and "..".

    kind: the type bits of a mode (stat.S_IFDIR ...) as the folder records them, 0 if it does not.
    cookie: pass it to readdir() to go on behind this entry; more than 0, below 2**63, and the
        same each time.
    attributes: None where the inode could not be read: the name is listed, and asking for the
        file gives the error.
    """

    name: bytes
    inode: Inode
    kind: int
    cookie: int
    attributes: Attributes | None


class Listing(NamedTuple):
    """The next entries of a folder, some hundreds or thousands. `complete`: none come behind them;
    only then may `entries` be empty."""

    entries: Sequence[DirEntry]
    complete: bool


class Extent(NamedTuple):
    """A run of a file's bytes. `offset` is on the volume; None is a hole (zeros). Where `encoded`
    is set, the bytes must be asked from read_encoded() instead, and `offset` is None."""

    offset: ByteOffset | None
    length: ByteLength
    encoded: bool = False


@dataclass(frozen=True, slots=True)
class Identity:
    """What a volume holds, from its first bytes alone.

    kind: as blkid names it: "ext4", "ntfs", "swap", "LVM2_member", "crypto_LUKS" ...
    readable: restorefs has a reader for it.
    holds_files: False for swap and the like, which never are folders.
    encrypted: needs a key first.
    clean: False when a journal needs recovery or the volume is marked dirty; None if unknown.
    log_uuid: where the journal is on a device of its own, what that is known by; then `clean` is
        None until the reader was shown it (GuestFilesystem.show_log).
    from_copy: told by a copy of a superblock whose place at the start is empty: it may be left over
        from before whatever else is recognised on the volume.
    notes: for people, such as "journal needs recovery".
    """

    kind: str
    readable: bool = False
    holds_files: bool = True
    encrypted: bool = False
    label: str = ""
    uuid: str = ""
    size: ByteLength | None = None
    clean: bool | None = None
    log_uuid: str = ""
    from_copy: bool = False
    notes: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class GuestOptions:
    """What whoever mounts chose. show_system_files: list what a format keeps for itself in its root
    (NTFS: $MFT and its like). oem_codepage: Python's name of the character set that FAT's short
    names are in."""

    show_system_files: bool = False
    oem_codepage: str = "cp437"


DEFAULT_OPTIONS = GuestOptions()


class GuestFilesystem(ABC):
    """An opened file system on one volume."""

    kinds: ClassVar[tuple[str, ...]]
    """The Identity.kind values that this reader opens."""

    identity: Identity
    root: Inode

    @classmethod
    @abstractmethod
    async def probe(cls, device: BlockDevice) -> Identity | None:
        """Return what the volume holds if it is of this kind, else None. Never raises
        DamagedError for foreign content; StorageError passes."""

    @classmethod
    @abstractmethod
    async def open(
        cls,
        device: BlockDevice,
        options: GuestOptions = DEFAULT_OPTIONS,
        limits: Limits = DEFAULT_LIMITS,
    ) -> Self:
        """Open the file system. Raises UnsupportedError naming every unknown incompatible
        feature, DamagedError when its base structures are unusable."""

    async def show_log(self, device: BlockDevice) -> None:
        """Take note of the journal that identity.log_uuid names: `identity` says afterwards
        whether it is clean. Raises DamagedError, StorageError."""
        raise UnsupportedError(f"{self.identity.kind} keeps no journal on another device")

    @abstractmethod
    async def attributes(self, inode: Inode) -> Attributes:
        """Raises NotFoundError for an inode that is not in use, DamagedError."""

    @abstractmethod
    async def lookup(self, folder: Inode, name: bytes) -> Inode:
        """Return the inode of a name in a folder; b".." gives the parent (of the root: itself).
        Raises NotFoundError, NotAFolderError, DamagedError."""

    @abstractmethod
    async def readdir(self, folder: Inode, cookie: int = 0) -> Listing:
        """Return a folder's next entries with attributes, behind the entry whose cookie is given.
        The first of a large folder come soon, so they are few. Raises NotAFolderError,
        DamagedError, UnsupportedError (a folder that is partly elsewhere, by name)."""

    @abstractmethod
    async def readlink(self, inode: Inode) -> bytes:
        """Raises NotALinkError, DamagedError."""

    @abstractmethod
    async def xattrs(self, inode: Inode) -> Mapping[bytes, bytes]:
        """Return all extended attributes under the names that Linux shows (b"user.x",
        b"system.posix_acl_access" ...) with the values that Linux shows. Without I/O where the
        inode has none. Raises DamagedError."""

    @abstractmethod
    async def map(self, inode: Inode, offset: ByteOffset, length: ByteLength) -> list[Extent]:
        """Say where a file's bytes lie: extents in order, covering the range exactly, adjacent
        ones merged. The range must lie inside the file's size. Raises IsAFolderError,
        DamagedError, UnsupportedError (encrypted content and the like, by name)."""

    async def read_encoded(
        self, inode: Inode, offset: ByteOffset, length: ByteLength
    ) -> bytes | bytearray:
        """Return decoded bytes of a range that map() called encoded."""
        raise UnsupportedError(f"{self.identity.kind} has no encoded content")
