"""Inodes by number.

Owns where an inode's record lies, its verification, and a small memory of records that were asked
for, and of folders that were listed. Must not know what a file contains.

Concurrency: any number of calls may be in flight. What two of them read twice is the same.
"""

import stat
from collections import defaultdict
from collections.abc import Iterable, Sequence

import trio

from restorefs.block.base import ByteOffset
from restorefs.errors import DamagedError, NotFoundError
from restorefs.guestfs.base import Attributes, Inode
from restorefs.guestfs.ext.identify import FoundSuperblock
from restorefs.guestfs.ext.inode_record import (
    InodeFormat,
    check_inode,
    decode_attributes,
    verified_records,
)
from restorefs.guestfs.ext.layout import ROOT_INODE, GroupDescriptor, decode_group
from restorefs.guestfs.lru import Lru
from restorefs.guestfs.pieces import PIECE_BITS, PIECE_SIZE, PieceReader

_KEPT_RECORD_BYTES = 2 << 20
_KEPT_GROUPS = 4096
_PIECES_AT_ONCE = 16
_RECORDS_AT_ONCE = 256
_TYPE_MASK = 0o170000


class InodeTable:
    """All inodes of a file system."""

    def __init__(self, reader: PieceReader, found: FoundSuperblock) -> None:
        self.form = InodeFormat.of(found.superblock)
        self._reader = reader
        self._superblock = found.superblock
        self._copy = found.group
        # A damaged descriptor is remembered by what is wrong with it.
        self._groups: Lru[int, GroupDescriptor | str] = Lru(_KEPT_GROUPS)
        self._records: Lru[Inode, bytes] = Lru(_KEPT_RECORD_BYTES // found.superblock.inode_size)

    async def attributes(self, inode: Inode) -> Attributes:
        """Raises NotFoundError for an inode that is not in use, DamagedError."""
        return decode_attributes(await self.record(inode), inode, self.form)

    async def record(self, inode: Inode) -> bytes:
        """Return an inode's verified record. Raises NotFoundError where it was never used,
        DamagedError."""
        record = self._records.get(inode)
        if record is None:
            offset = await self.locate(inode)
            record = await self._reader.read(offset, self.form.size)
            check_inode(record, inode, self.form)
            self._records.put(inode, record)
        return record

    async def locate(self, inode: Inode) -> ByteOffset:
        """Return where an inode's record lies on the volume. Raises as record() does."""
        start, end = await self._table((inode - 1) // self._superblock.inodes_per_group)
        if not self._is_for_files(inode):
            raise DamagedError(f"there is no inode {inode} for files")
        offset = start + inode * self.form.size
        if offset >= end:
            raise NotFoundError(f"inode {inode} was never used")
        self._reader.device.check_range(offset, self.form.size)
        return offset

    def _is_for_files(self, inode: Inode) -> bool:
        first, last = self._superblock.first_inode, self._superblock.inodes_count
        return first <= inode <= last or inode == ROOT_INODE

    async def attributes_of(self, inodes: Iterable[Inode]) -> dict[Inode, Attributes]:
        """Return the attributes of all inodes that can be read; fetches them piece by piece.

        Raises StorageError: the rest of the folder would look damaged, too.
        """
        found: dict[Inode, Attributes] = {}
        by_piece = await self._by_piece(inodes)
        numbers = sorted(by_piece)
        decoded = 0
        for start in range(0, len(numbers), _PIECES_AT_ONCE):
            batch = numbers[start : start + _PIECES_AT_ONCE]
            for number, piece in zip(batch, await self._reader.pieces(batch), strict=True):
                if decoded >= _RECORDS_AT_ONCE:
                    await trio.lowlevel.checkpoint()
                    decoded = 0
                records = verified_records(piece, by_piece[number], self.form)
                self._decode_into(found, records)
                decoded += len(records)
        return found

    async def _by_piece(self, inodes: Iterable[Inode]) -> dict[int, list[tuple[Inode, ByteOffset]]]:
        """Return where those of the inodes lie that can be located: for each piece of the
        volume, the inodes and their offsets in it."""
        by_piece = defaultdict(list)
        per_group, size = self._superblock.inodes_per_group, self.form.size
        behind_device = self._reader.device.size
        # The last inode of the group of the one before, and where that group's table is.
        last, start, end = 0, 0, 0
        for inode in sorted(inodes):
            if not self._is_for_files(inode):
                continue
            if inode > last:
                group = (inode - 1) // per_group
                last = (group + 1) * per_group
                try:
                    start, end = await self._table(group)
                except DamagedError:
                    start = end = 0
                end = min(end, behind_device) - size
            offset = start + inode * size
            if offset <= end:
                by_piece[offset >> PIECE_BITS].append((inode, offset & PIECE_SIZE - 1))
        return by_piece

    def _decode_into(
        self, found: dict[Inode, Attributes], records: Sequence[tuple[Inode, bytes]]
    ) -> None:
        """Decode what can be decoded."""
        for inode, record in records:
            try:
                attributes = decode_attributes(record, inode, self.form)
            except (DamagedError, NotFoundError):
                continue
            found[inode] = attributes
            if attributes[1] & _TYPE_MASK == stat.S_IFDIR:  # it is likely to be opened next
                self._records.put(inode, record)

    async def _table(self, group: int) -> tuple[ByteOffset, ByteOffset]:
        """Return where inode 0 would lie if all tables were as this group's is, and where the
        inodes end of which this group's table ever held something."""
        superblock = self._superblock
        descriptor = await self._group(group)
        start = descriptor.table << superblock.block_bits
        first = group * superblock.inodes_per_group + 1
        end = start + descriptor.initialised * superblock.inode_size
        return start - first * superblock.inode_size, end

    async def _group(self, group: int) -> GroupDescriptor:
        descriptor = self._groups.get(group)
        if descriptor is None and 0 <= group < self._superblock.groups:
            await self._read_descriptors(group)
            descriptor = self._groups.get(group)
        if not isinstance(descriptor, GroupDescriptor):
            raise DamagedError(descriptor or f"there is no block group {group}")
        return descriptor

    async def _read_descriptors(self, group: int) -> None:
        """Read the table's block that describes a group; keep all of it."""
        superblock = self._superblock
        per_block, size = superblock.descriptors_per_block, superblock.descriptor_size
        index = group // per_block
        block = superblock.descriptor_block(index, self._copy)
        raw = await self._reader.read(block << superblock.block_bits, superblock.block_size)
        first = index * per_block
        for number in range(first, min(first + per_block, superblock.groups)):
            start = (number - first) * size
            descriptor: GroupDescriptor | str
            try:
                descriptor = decode_group(
                    superblock, number, raw[start : start + size], trust_flags=not self._copy
                )
            except DamagedError as error:
                descriptor = str(error)
            self._groups.put(number, descriptor)
