"""Files and folders by their inode.

Owns what an inode is (the place of a File entry on the volume, in units of 32 bytes), the way
from it to the entry's set, and what stat(2) shows of that. Must not know how folders are listed.

A set may go on in the folder's next cluster, and an inode does not say which folder that is: the
next cluster is the one that the FAT names or, in a folder without a chain, the neighbour. A set's
checksum says which.

Concurrency: any number of calls may be in flight.
"""

import stat

from restorefs.block.base import ByteLength, ByteOffset
from restorefs.errors import DamagedError, NotFoundError
from restorefs.guestfs.base import Attributes, Inode
from restorefs.guestfs.exfat.chain import Chain, Chains
from restorefs.guestfs.exfat.directory import (
    ATTRIBUTE_READ_ONLY,
    LARGEST_SET,
    FileSet,
    decode_file_set,
    set_length,
)
from restorefs.guestfs.exfat.layout import ENTRY_SIZE, FILE, FIRST_CLUSTER, BootSector
from restorefs.guestfs.lru import Lru
from restorefs.guestfs.pieces import PieceReader

ROOT_INODE: Inode = 1
"""A place in the boot sector."""

_KEPT_FILES = 1024
_FOLDER_MODES = (stat.S_IFDIR | 0o755, stat.S_IFDIR | 0o555)
_FILE_MODES = (stat.S_IFREG | 0o644, stat.S_IFREG | 0o444)


def inode_at(offset: ByteOffset) -> Inode:
    """Return the inode of the File entry at an offset on the volume."""
    return offset // ENTRY_SIZE


class FileTable:
    """The files of one volume."""

    def __init__(self, reader: PieceReader, boot: BootSector, chains: Chains) -> None:
        self._reader = reader
        self._boot = boot
        self._chains = chains
        self._kept: Lru[Inode, FileSet] = Lru(_KEPT_FILES)

    @property
    def inode_bits(self) -> int:
        """How many bits the largest inode has."""
        return inode_at(self._boot.heap_end).bit_length()

    async def file(self, inode: Inode) -> FileSet:
        """Return the set of an inode; its offsets mean nothing.

        Raises NotFoundError where there is no File entry, DamagedError.
        """
        found = self._kept.get(inode)
        if found is None:
            found = await self._read(inode)
            self._kept.put(inode, found)
        return found

    async def attributes(self, inode: Inode) -> Attributes:
        """Raises NotFoundError, DamagedError."""
        return self.attributes_of(inode, await self.file(inode))

    def attributes_of(self, inode: Inode, file: FileSet) -> Attributes:
        """Return what stat(2) shows of a set. Raises DamagedError for a size that cannot be."""
        size = file.length
        clusters = size + self._boot.cluster_size - 1 >> self._boot.cluster_bits
        if clusters > self._boot.clusters:
            raise DamagedError(f"a file claims {size} bytes, more than the volume has")
        modes = _FOLDER_MODES if file.is_folder else _FILE_MODES
        mtime = file.mtime_ns or 0
        # Not Attributes(...): this is the innermost loop of every listing.
        return tuple.__new__(
            Attributes,
            (
                inode,
                modes[file.attributes & ATTRIBUTE_READ_ONLY],
                1,
                0,
                0,
                0,
                size,
                clusters << self._boot.cluster_bits >> 9,
                file.atime_ns if file.atime_ns is not None else mtime,
                mtime,
                mtime,
                file.created_ns,
            ),
        )

    async def chain(self, file: FileSet, length: ByteLength) -> Chain:
        """Return the clusters of the first `length` bytes of a file. Raises DamagedError."""
        count = length + self._boot.cluster_size - 1 >> self._boot.cluster_bits
        if count > self._boot.clusters:
            raise DamagedError(f"a file claims {length} bytes, more than the volume has")
        if not count:
            return Chain()
        if not file.has_allocation:
            raise DamagedError("a file has a size, but no clusters")
        if file.is_contiguous:
            return self._chains.contiguous(file.first_cluster, count)
        return await self._chains.linked(file.first_cluster, count)

    async def _read(self, inode: Inode) -> FileSet:
        offset = inode * ENTRY_SIZE
        if not self._boot.heap_offset <= offset < self._boot.heap_end:
            raise NotFoundError(f"there is no inode {inode}")
        primary = await self._reader.read(offset, ENTRY_SIZE)
        if primary[0] != FILE:
            raise NotFoundError(f"there is no inode {inode}")
        length = set_length(primary)
        size = self._boot.cluster_size
        here = min(length, size - (offset - self._boot.heap_offset) % size)
        start = await self._reader.read(offset, here)
        if here == length:
            return decode_file_set(start, 0)
        cluster = FIRST_CLUSTER + (offset - self._boot.heap_offset >> self._boot.cluster_bits)
        count = 1 + -(-(length - here) // size)
        found: dict[bytes, FileSet] = {}
        damage = DamagedError(f"inode {inode} goes on in no cluster")
        for chain in (
            await self._chains.linked(cluster, count),
            self._chains.contiguous(cluster, count),
        ):
            try:
                rest = await self._content(chain, size, length - here)
                found[rest] = decode_file_set(start + rest, 0)
            except DamagedError as error:
                damage = error
        if len(found) > 1:
            raise DamagedError(f"inode {inode} goes on in two clusters")
        if not found:
            raise damage
        return found.popitem()[1]

    async def _content(self, chain: Chain, offset: ByteOffset, length: ByteLength) -> bytes:
        parts = [
            await self._reader.read(extent.offset, extent.length)
            for extent in self._chains.extents(chain, offset, min(length, LARGEST_SET))
            if extent.offset is not None
        ]
        return b"".join(parts)
