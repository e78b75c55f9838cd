"""Files by number: a base record, and what its attribute list adds from extension records.

Owns the way from a record to all attributes of a file, to their streams, and a small memory of
both. Must not know what the attributes mean. Source: linux-ntfs, "$ATTRIBUTE_LIST".

Concurrency: any number of calls may be in flight. What two of them read twice is the same.
"""

from collections import defaultdict
from collections.abc import Sequence

import trio

from restorefs.block.base import ByteLength, ByteOffset, Place
from restorefs.errors import DamagedError, NotFoundError
from restorefs.guestfs.ntfs.kept import Kept
from restorefs.guestfs.ntfs.layout import (
    ATTRIBUTE_LIST,
    IN_USE,
    IS_FOLDER,
    RECORD_MASK,
    Attribute,
    ListEntry,
    RecordNumber,
    decode_attribute_list,
    decode_attributes,
    decode_header,
)
from restorefs.guestfs.ntfs.mft import LIST_BYTES, Mft
from restorefs.guestfs.ntfs.streams import Stream, extents_of, read_pieces, read_plain

_KEPT_FILES = 1024
_KEPT_STREAMS = 256


class File:
    """A file with all its attributes, those of a kind and name in the order of their clusters."""

    __slots__ = ("_groups", "attributes", "is_folder", "number", "sequence")

    def __init__(
        self,
        number: RecordNumber,
        sequence: int,
        is_folder: bool,
        attributes: Sequence[Attribute],
    ) -> None:
        self.number = number
        self.sequence = sequence
        self.is_folder = is_folder
        self.attributes = attributes
        self._groups: dict[tuple[int, bytes], list[Attribute]] | None = None

    def _grouped(self) -> dict[tuple[int, bytes], list[Attribute]]:
        """Return the attributes by kind and name. A file may have thousands, and each is asked
        for by its name: they are gone through once."""
        groups = self._groups
        if groups is None:
            groups = self._groups = {}
            for attribute in self.attributes:
                groups.setdefault((attribute[0], attribute[1]), []).append(attribute)
        return groups

    def pieces(self, kind: int, name: bytes = b"") -> Sequence[Attribute]:
        """Return the pieces of an attribute; none where the file has not got it."""
        return self._grouped().get((kind, name), ())

    def names(self, kind: int) -> list[bytes]:
        """Return the stored names of all attributes of a kind, each once."""
        return [name for other, name in self._grouped() if other == kind]


class FileTable:
    """All files of a volume."""

    def __init__(self, mft: Mft) -> None:
        self.mft = mft
        self._files: Kept[RecordNumber, File] = Kept(_KEPT_FILES)
        self._streams: Kept[tuple[RecordNumber, int, bytes], Stream] = Kept(_KEPT_STREAMS)

    async def file(self, number: RecordNumber, sequence: int = 0) -> File:
        """Return a file.

        sequence: what a reference to it says. Raises NotFoundError for a record that is not in use
        or is part of another file, DamagedError.
        """
        file = self._files.get(number)
        if file is None or (sequence and sequence != file.sequence):
            record = await self.mft.record(number, sequence)
            file, attribute_lists = decode_file(record, number)
            if attribute_lists:
                file = await self._with_listed(file, attribute_lists)
            self._files.put(number, file, len(file.attributes))
        return file

    async def _with_listed(self, file: File, lists: list[Attribute]) -> File:
        """Return a file with the attributes that its list names.

        Those in its own record all belong to it; those in others only if they are listed.
        """
        mft = self.mft
        stream = await read_pieces(lists, mft.boot, mft.limits)
        if stream.size > LIST_BYTES:
            raise DamagedError(f"the attribute list of file {file.number} is too large")
        data = await read_plain(stream, mft.boot.cluster_bits, mft.reader, 0, stream.size)
        by_record: dict[int, list[ListEntry]] = defaultdict(list)
        for entry in decode_attribute_list(data):
            if entry.reference & RECORD_MASK != file.number:
                by_record[entry.reference].append(entry)
        base = file.number | file.sequence << 48
        attributes = list(file.attributes)
        await mft.fetch({reference & RECORD_MASK for reference in by_record})
        for reference, entries in by_record.items():
            await trio.lowlevel.checkpoint()
            attributes += await mft.pieces_in(reference, base, entries)
        attributes.sort(key=lambda a: (a.kind, a.name, a.lowest))
        return File(file.number, file.sequence, file.is_folder, attributes)

    async def stream(self, file: File, kind: int, name: bytes = b"") -> Stream | None:
        """Return the stream of an attribute, None where the file has not got it.

        Raises DamagedError, UnsupportedError.
        """
        key = (file.number, kind, name)
        stream = self._streams.get(key)
        if stream is None:
            pieces = file.pieces(kind, name)
            if not pieces:
                return None
            stream = await read_pieces(pieces, self.mft.boot, self.mft.limits)
            self._streams.put(key, stream, len(stream.runs.starts))
        return stream

    async def read(
        self, stream: Stream, offset: ByteOffset, length: ByteLength, *, once: bool = False
    ) -> bytes:
        """Return bytes of a stream of the format's own. Raises DamagedError.

        once: nobody is likely to ask again for them or for others nearby, so that nothing is
        remembered.
        """
        mft = self.mft
        reader = mft.reader.device if once else mft.reader
        return await read_plain(stream, mft.boot.cluster_bits, reader, offset, length)

    def expect(self, stream: Stream, ranges: Sequence[Place]) -> None:
        """Say that ranges of a stream will be read soon. Raises DamagedError."""
        bits = self.mft.boot.cluster_bits
        self.mft.reader.expect(
            [
                (extent.offset, extent.length)
                for offset, length in ranges
                for extent in extents_of(stream, bits, offset, length, length)
                if extent.offset is not None
            ]
        )

    async def value(self, file: File, kind: int, limit: ByteLength, name: bytes = b"") -> bytes:
        """Return a small attribute's whole value, b"" where the file has not got it.

        Raises DamagedError, also for more than `limit` bytes.
        """
        pieces = file.pieces(kind, name)
        if pieces and pieces[0].resident:
            return pieces[0].body
        stream = await self.stream(file, kind, name)
        if stream is None:
            return b""
        if stream.size > limit:
            raise DamagedError(f"attribute {kind:#x} of file {file.number} is too large")
        return await self.read(stream, 0, stream.size)


def decode_file(record: bytes, number: RecordNumber) -> tuple[File, list[Attribute]]:
    """Return a file as far as its base record goes, and the pieces of its attribute list, if any.

    Raises NotFoundError for a record that is not in use or not a base record, DamagedError.
    """
    sequence, _, flags, _, base = decode_header(record)
    if not flags & IN_USE:
        raise NotFoundError(f"file record {number} is not in use")
    if base:
        raise NotFoundError(f"file record {number} is a part of file {base & RECORD_MASK}")
    attributes = decode_attributes(record, number)
    # The list is the second attribute of a file that has one.
    lists = [a for a in attributes if a[0] == ATTRIBUTE_LIST]
    is_folder = bool(flags & IS_FOLDER)
    return File(number, sequence, is_folder, attributes), lists
