"""File records by number.

Owns where a record lies (the MFT is a file itself, in pieces, described by its own first record),
its verification, and a small memory of records that were asked for, or will be. Must not know what
a file contains.
Source: linux-ntfs, "$MFT" and "$MFTMirr".

Concurrency: any number of calls may be in flight. What two of them read twice is the same.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Self, TypeAlias

import trio

from restorefs.block.base import ByteLength, ByteOffset
from restorefs.errors import DamagedError, NotFoundError
from restorefs.guestfs.limits import Limits
from restorefs.guestfs.lru import Lru
from restorefs.guestfs.ntfs.layout import (
    ATTRIBUTE_LIST,
    DATA,
    IN_USE,
    MFT,
    RECORD_MASK,
    Attribute,
    Boot,
    ListEntry,
    RecordNumber,
    checked_record,
    decode_attribute_list,
    decode_attributes,
    decode_header,
    decode_sizes,
)
from restorefs.guestfs.ntfs.runs import HOLE, Runs
from restorefs.guestfs.ntfs.streams import read_pieces, read_plain
from restorefs.guestfs.pieces import PIECE_BITS, PIECE_SIZE, PieceReader

_KEPT_RECORD_BYTES = 2 << 20
_PIECES_AT_ONCE = 16
_RECORDS_AT_ONCE = 256
_MAX_RECORDS = 1 << 32
_NOTED = 8
LIST_BYTES: ByteLength = 1 << 20
"""More than an attribute list may have (256 KiB in Windows)."""

Places: TypeAlias = list[tuple[RecordNumber, ByteOffset]]
"""Records, and where they begin in a piece of the volume."""
Visitor: TypeAlias = Callable[[bytes, Places], None]
"""What is shown a piece of the volume, and the records in it as they are stored: not verified."""


class Mft:
    """All file records of a volume."""

    def __init__(self, reader: PieceReader, boot: Boot, limits: Limits) -> None:
        self.reader = reader
        self.boot = boot
        self.limits = limits
        self._damage: list[str] = []
        self._more_damage = 0
        self.count = 0
        self._runs = Runs()
        self._records: Lru[RecordNumber, bytes] = Lru(_KEPT_RECORD_BYTES // boot.record_size)

    @classmethod
    async def open(cls, reader: PieceReader, boot: Boot, limits: Limits) -> Self:
        """Find all pieces of the MFT. Raises DamagedError."""
        mft = cls(reader, boot, limits)
        record = await mft._first_record()
        attributes = decode_attributes(record, MFT)
        first = next(
            (a for a in attributes if a.kind == DATA and not a.name and not a.lowest), None
        )
        if first is None or first.resident:
            raise DamagedError("the MFT has no content")
        mft._add_piece(first)
        sizes = decode_sizes(first)
        mft.count = min(sizes.valid // boot.record_size, _MAX_RECORDS)
        await mft._add_listed(attributes, record)
        if mft._runs.clusters << boot.cluster_bits < sizes.valid:
            mft._note("some of the MFT is lost")
        return mft

    @property
    def damage(self) -> list[str]:
        """What is wrong with the MFT itself, for people: the first of it, and how much more."""
        more = f"and {self._more_damage} more of this kind"
        return [*self._damage, more] if self._more_damage else self._damage

    def _note(self, damage: str) -> None:
        if len(self._damage) < _NOTED:
            self._damage.append(damage)
        else:
            self._more_damage += 1

    async def _first_record(self) -> bytes:
        """Return record 0, or its copy where it cannot be read."""
        boot = self.boot
        try:
            return await self._copy_of_first(boot.mft << boot.cluster_bits)
        except DamagedError as error:
            damage = str(error)
        try:
            record = await self._copy_of_first(boot.mft_mirror << boot.cluster_bits)
        except DamagedError:
            raise DamagedError(f"{damage}; neither can $MFTMirr be used") from None
        self._note(f"{damage}: its copy in $MFTMirr is used")
        return record

    async def _copy_of_first(self, offset: ByteOffset) -> bytes:
        data = await self.reader.read(offset, self.boot.record_size)
        try:
            record = checked_record(data, 0, self.boot.record_size, MFT)
        except NotFoundError as error:
            raise DamagedError(str(error)) from None
        if not decode_header(record).flags & IN_USE:
            raise DamagedError("the MFT's own record is not in use")
        return record

    def _add_piece(self, piece: Attribute) -> None:
        self._runs.append(piece, self.boot.clusters, self.limits.extents_per_map)

    async def _add_listed(self, attributes: Sequence[Attribute], record: bytes) -> None:
        """Add the pieces that lie in other records; each must lie in what is known before it. One
        that is lost loses its own files only."""
        lists = [a for a in attributes if a.kind == ATTRIBUTE_LIST]
        if not lists:
            return
        base = MFT | decode_header(record).sequence << 48
        try:
            stream = await read_pieces(lists, self.boot, self.limits)
            if stream.size > LIST_BYTES:
                raise DamagedError("it is too large")  # noqa: TRY301
            data = await read_plain(stream, self.boot.cluster_bits, self.reader, 0, stream.size)
            entries = decode_attribute_list(data)
        except DamagedError as error:
            self._note(f"the MFT's attribute list: {error}")
            return
        for entry in sorted(entries, key=lambda entry: entry.lowest):
            if entry.kind != DATA or entry.name or entry.lowest < self._runs.clusters:
                continue
            await trio.lowlevel.checkpoint()
            try:
                for piece in await self.pieces_in(entry.reference, base, [entry]):
                    self._check_gap(piece)
                    self._runs.append_gap(piece.lowest)
                    self._add_piece(piece)
            except DamagedError as error:
                self._note(f"some of the MFT is lost: {error}")

    def _check_gap(self, piece: Attribute) -> None:
        if piece.lowest > self.count * self.boot.record_size >> self.boot.cluster_bits:
            raise DamagedError("a piece of the MFT lies behind its end")

    # --- one record ---------------------------------------------------------------------------

    async def record(self, number: RecordNumber, sequence: int = 0) -> bytes:
        """Return a record that is in use, fixups applied.

        sequence: what a reference says, if it is one. Raises NotFoundError, DamagedError (also for
        a stale reference, whose record belongs to another file by now).
        """
        record = await self.any_record(number)
        own, _, flags, _, _ = decode_header(record)
        if not flags & IN_USE:
            raise NotFoundError(f"file record {number} is not in use")
        if sequence and sequence != own:
            raise DamagedError(f"a reference to file record {number} is stale")
        return record

    async def any_record(self, number: RecordNumber) -> bytes:
        """Return a record, in use or not. Raises NotFoundError, DamagedError."""
        record = self._records.get(number)
        if record is None:
            size = self.boot.record_size
            if not 0 <= number < self.count:
                raise NotFoundError(f"there is no file record {number}")
            parts = [
                await self.reader.read(offset, length)
                for offset, length in self._places(number * size, size)
            ]
            record = checked_record(b"".join(parts), 0, size, number)
            self._records.put(number, record)
        return record

    async def pieces_in(
        self, reference: int, base: int, entries: Iterable[ListEntry]
    ) -> list[Attribute]:
        """Return those pieces of attributes in an extension record that a list names.

        base: the reference of the record with the list. Raises DamagedError where the record
        belongs to another file, or has not got them.
        """
        number = reference & RECORD_MASK
        try:
            record = await self.record(number, reference >> 48)
        except NotFoundError as error:
            raise DamagedError(f"an attribute list is damaged: {error}") from None
        if decode_header(record).base != base:
            raise DamagedError(f"file record {number} belongs to another file")
        found = {(a.kind, a.name, a.lowest, a.ident): a for a in decode_attributes(record, number)}
        pieces = []
        for entry in entries:
            piece = found.get((entry.kind, entry.name, entry.lowest, entry.ident))
            if piece is None:
                raise DamagedError(f"file record {number} lacks a listed attribute")
            pieces.append(piece)
        return pieces

    def _places(
        self, start: ByteOffset, length: ByteLength
    ) -> Iterator[tuple[ByteOffset, ByteLength]]:
        """Yield where a range of the MFT lies on the volume. Raises DamagedError for a hole."""
        bits = self.boot.cluster_bits
        end = start + length
        position = start >> bits << bits
        for lcn, clusters in self._runs.between(start >> bits, (end - 1 >> bits) + 1):
            if lcn == HOLE:
                raise DamagedError("the MFT has a hole")
            behind = position + (clusters << bits)
            skip = max(start - position, 0)
            yield (lcn << bits) + skip, min(behind, end) - position - skip
            position = behind

    # --- many records -------------------------------------------------------------------------

    async def visit(self, numbers: Iterable[RecordNumber], see: Visitor) -> None:
        """Show where records lie to `see`, piece by piece of the volume, fetched together.

        What cannot be read so (records that lie in two pieces, or that are not there) is left
        out. Raises StorageError: the rest of a folder would look damaged, too.
        """
        by_piece = self._by_piece(numbers)
        wanted = sorted(by_piece)
        seen = 0
        for start in range(0, len(wanted), _PIECES_AT_ONCE):
            batch = wanted[start : start + _PIECES_AT_ONCE]
            try:
                pieces = await self.reader.pieces(batch)
            except DamagedError:  # behind the device's end
                continue
            for piece, data in zip(batch, pieces, strict=True):
                places = by_piece[piece]
                if seen + len(places) > _RECORDS_AT_ONCE:
                    await trio.lowlevel.checkpoint()
                    seen = 0
                see(data, places)
                seen += len(places)

    async def fetch(self, numbers: Iterable[RecordNumber]) -> None:
        """Read records together that will be asked for one by one. Raises StorageError."""
        await self.visit(numbers, self._keep)

    def _keep(self, piece: bytes, places: Places) -> None:
        size = self.boot.record_size
        for number, offset in places:
            with suppress(DamagedError, NotFoundError):  # who asks for it is told
                self.keep(number, checked_record(piece, offset, size, number))

    def keep(self, number: RecordNumber, record: bytes) -> None:
        """Remember a verified record that was met, and will be asked for."""
        self._records.put(number, record)

    def _by_piece(self, numbers: Iterable[RecordNumber]) -> dict[int, Places]:
        """Return, for each piece of the volume, the records that lie in it, and where."""
        size = self.boot.record_size
        by_piece: dict[int, Places] = {}
        places: Places = []
        # Where the next records lie, as far as the run of the last one goes.
        start = end = shift = 0
        # And as far as the piece of the last one goes: offsets in the MFT.
        first = behind = 0
        for number in sorted(numbers):
            if not start <= number < end:
                if not 0 <= number < self.count:
                    continue
                start, end, shift = self._run_around(number)
                behind = 0
                if end <= start:
                    start = end = 0
                    continue
            offset = number * size
            if offset >= behind:
                first = (offset + shift & -PIECE_SIZE) - shift
                behind = first + PIECE_SIZE
                places = by_piece.setdefault(offset + shift >> PIECE_BITS, [])
            if offset + size <= behind:
                places.append((number, offset - first))
        return by_piece

    def _run_around(self, number: RecordNumber) -> tuple[RecordNumber, RecordNumber, int]:
        """Return which records lie in one run from this one on, and what to add to an offset in
        the MFT to get that on the volume; no records where this one is split."""
        size, bits = self.boot.record_size, self.boot.cluster_bits
        start = number * size
        first = start >> bits
        for lcn, clusters in self._runs.between(first, self._runs.clusters):
            if lcn == HOLE:
                break
            end = min((first + clusters << bits) // size, self.count)
            shift = lcn - first << bits
            # The device may end before the volume does.
            end = min(end, (self.reader.device.size - shift) // size)
            return number, end, shift
        return 0, 0, 0
