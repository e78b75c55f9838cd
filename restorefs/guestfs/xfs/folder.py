"""One folder: its blocks and its parent.

Owns the way from a folder's inode to verified blocks of names and of its index. Must not know how
names are listed or searched. Source: "Directories".

Concurrency: any number of calls may be in flight.
"""

from typing import NamedTuple

from restorefs.block.base import ByteOffset
from restorefs.errors import DamagedError
from restorefs.guestfs.base import Inode
from restorefs.guestfs.xfs.blockmap import Volume
from restorefs.guestfs.xfs.checksum import DA_BLOCK, DIRECTORY_DATA
from restorefs.guestfs.xfs.dabtree import IndexLeaf, IndexNode, decode_index
from restorefs.guestfs.xfs.directory import (
    INDEX_START,
    Position,
    Record,
    decode_records,
)
from restorefs.guestfs.xfs.files import File
from restorefs.guestfs.xfs.shortform import decode_short_form


class Region(NamedTuple):
    """A block of names: its position in the folder, its place on the volume, its bytes."""

    position: Position
    offset: ByteOffset
    raw: bytes


class Folder:
    """One folder's content."""

    def __init__(self, volume: Volume, file: File) -> None:
        """Raises DamagedError where the folder's size cannot be."""
        self.file = file
        self._volume = volume
        superblock = volume.superblock
        self.checked = superblock.checked
        self.has_file_types = superblock.has_file_types
        self.ignores_case = superblock.ignores_case
        self.block_size = 1 << superblock.dir_block_bits
        self.end: Position = file.attributes.size
        self.short_form: tuple[Inode, list[Record]] | None = None
        inline = file.inline
        if inline is not None:
            self.short_form = decode_short_form(inline, self.has_file_types)
            return
        limit = min(volume.limits.folder_bytes, INDEX_START)
        if not 0 < self.end <= limit or self.end % self.block_size:
            raise DamagedError(f"folder {file.inode} claims {self.end} bytes")

    async def regions(self, position: Position, length: int) -> tuple[list[Region], Position]:
        """Return the blocks of names from the one at `position` on, some `length` bytes of them,
        and the position behind them. They are not verified. Blocks without a name may be holes,
        which are left out."""
        size = self.block_size
        start = position - position % size
        end = min(self.end, start + max(length, size))
        return await self._blocks(start, end), end

    async def _blocks(self, start: Position, end: Position) -> list[Region]:
        """Read blocks of the folder; one may lie in several pieces."""
        volume, size = self._volume, self.block_size
        regions: list[Region] = []
        parts: list[tuple[ByteOffset, bytes]] = []
        missing = size
        extents = await self.file.content.extents(start, end - start)
        if len(extents) > 1:
            for extent in extents:
                if extent.offset is not None:
                    volume.reader.device.expect(extent.offset, extent.length)
        for extent in extents:
            if extent.offset is None:
                if parts or extent.length % size:
                    raise DamagedError(f"folder {self.file.inode} has half a block")
                start += extent.length
                continue
            data = await volume.reader.read(extent.offset, extent.length)
            used = 0
            while used < len(data):
                part = data[used : used + missing]
                parts.append((extent.offset + used, part))
                used += len(part)
                missing -= len(part)
                if not missing:
                    raw = b"".join([each for _, each in parts])
                    regions.append(Region(start, parts[0][0], raw))
                    start += size
                    parts, missing = [], size
        if parts:
            raise DamagedError(f"folder {self.file.inode} has half a block")
        return regions

    def verify(self, region: Region) -> None:
        """Raise DamagedError for a block of names that is not what it should be."""
        what = f"a block of folder {self.file.inode}"
        self._volume.verify(region.raw, DIRECTORY_DATA, self.file.inode, region.offset, what)

    def records(self, region: Region) -> list[Record]:
        """Return a block's entries, verified. Raises DamagedError."""
        self.verify(region)
        return decode_records(region.raw, region.position, self.checked, self.has_file_types)

    async def block(self, position: Position) -> Region:
        """Return the block of names that a position is in, verified. Raises DamagedError."""
        if position < self.end:
            regions, _ = await self.regions(position, 1)
            if regions:
                self.verify(regions[0])
                return regions[0]
        raise DamagedError(f"folder {self.file.inode} has no names at byte {position}")

    async def index(self, number: int) -> IndexNode | IndexLeaf:
        """Return a block of the index by its number, in file-system blocks. Raises DamagedError."""
        position = number << self._volume.block_bits
        if not INDEX_START <= position < 2 * INDEX_START:
            raise DamagedError(f"folder {self.file.inode} has no index block {number}")
        regions = await self._blocks(position, position + self.block_size)
        if not regions:
            raise DamagedError(f"folder {self.file.inode} has no index block {number}")
        what = f"an index block of folder {self.file.inode}"
        raw = regions[0].raw
        self._volume.verify(raw, DA_BLOCK, self.file.inode, regions[0].offset, what)
        return decode_index(raw, self.checked)

    @property
    def index_root(self) -> int:
        """The number of the index's first block."""
        return INDEX_START >> self._volume.block_bits

    async def parent(self) -> Inode:
        """Return the folder that this one is in. Raises DamagedError."""
        if self.short_form is not None:
            return self.short_form[0]
        for inode, name, *_ in self.records(await self.block(0)):
            if name == b"..":
                return inode
        raise DamagedError(f'folder {self.file.inode} has no ".."')
