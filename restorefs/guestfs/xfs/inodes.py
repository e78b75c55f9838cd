"""Inodes by number.

Owns where an inode's record lies, its verification, and a small memory of records that were asked
for, and of folders that were listed. Must not know what a file contains.

Concurrency: any number of calls may be in flight. What two of them read twice is the same.
"""

import stat
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import trio

from restorefs.block.base import ByteOffset
from restorefs.errors import DamagedError, NotFoundError
from restorefs.guestfs.base import Attributes, Inode
from restorefs.guestfs.lru import Lru
from restorefs.guestfs.pieces import PIECE_BITS, PIECE_SIZE
from restorefs.guestfs.xfs.allocation import InodeAllocation
from restorefs.guestfs.xfs.blockmap import Volume
from restorefs.guestfs.xfs.btree import CHUNK_INODES
from restorefs.guestfs.xfs.inode_record import (
    InodeFormat,
    check_inode,
    decode_attributes,
    verified_records,
)

_KEPT_RECORD_BYTES = 2 << 20
_PIECES_AT_ONCE = 16
_RECORDS_AT_ONCE = 256
_TYPE_MASK = 0o170000


class _Use(NamedTuple):
    """A bit for each inode from `first` on, and before `end`, that is not in use."""

    first: Inode
    end: Inode
    free: int

    def excludes(self, inode: Inode) -> bool:
        return bool(self.free >> inode - self.first & 1)


class InodeTable:
    """All inodes of a file system.

    believe_trees: the trees of inodes are up to date, as the log is clean. Otherwise, as for the
    kernel when it mounts without recovery, what a record says of itself must do: an inode that
    was made last may not be in its tree yet.
    """

    def __init__(self, volume: Volume, believe_trees: bool) -> None:
        self.form = InodeFormat.of(volume.superblock)
        self.believe_trees = believe_trees
        self._reader = volume.reader
        self._superblock = volume.superblock
        self._allocation = InodeAllocation(volume)
        self._records: Lru[Inode, bytes] = Lru(_KEPT_RECORD_BYTES // self.form.size)

    async def attributes(self, inode: Inode) -> Attributes:
        """Raises NotFoundError for an inode that is not in use, DamagedError."""
        return decode_attributes(await self.record(inode), inode, self.form)

    async def record(self, inode: Inode) -> bytes:
        """Return an inode's verified record. Raises NotFoundError where it is not in use,
        DamagedError."""
        record = self._records.get(inode)
        if record is None:
            offset = self._superblock.inode_offset(inode)
            if offset is None:
                raise NotFoundError(f"there is no inode {inode}")
            if (await self._use(inode)).excludes(inode):
                raise NotFoundError(f"inode {inode} is not in use")
            record = await self._reader.read(offset, self.form.size)
            check_inode(record, inode, self.form)
            self._records.put(inode, record)
        return record

    async def _use(self, inode: Inode) -> _Use:
        """Say what is known of the use of an inode, and of those behind it.

        With a damaged tree, records must speak for themselves, too.
        """
        bits = self._superblock.ag_inode_bits
        group = inode >> bits << bits
        if not self.believe_trees:
            return _Use(inode, group + self._superblock.inodes_of_ag(inode >> bits), 0)
        try:
            chunk = await self._allocation.chunk(inode)
        except DamagedError:
            return _Use(inode, inode + 1, 0)
        if chunk is None:
            return _Use(inode, inode + 1, 1)
        first = group + chunk.start
        return _Use(first, first + CHUNK_INODES, chunk.free)

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
        """Return where those of the inodes lie that are in use: for each piece of the volume,
        the inodes and their offsets in it."""
        by_piece = defaultdict(list)
        behind_device = self._reader.device.size - self.form.size
        # A group's inodes lie as their numbers say.
        use, shift = _Use(0, 0, 0), 0
        size = self.form.size
        for inode in sorted(inodes):
            if inode >= use.end:
                offset = self._superblock.inode_offset(inode)
                if offset is None:
                    continue
                use = await self._use(inode)
                shift = offset - inode * size
            if use.free and use.excludes(inode):
                continue
            offset = inode * size + shift
            if offset <= behind_device:
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
