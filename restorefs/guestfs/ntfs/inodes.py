"""Inodes: their numbers, and what stat(2) shows of them.

Owns the numbering: a file has the number of its record; a named stream of it has, in the upper
bits, its place among the file's streams, from 1 on. Record 0 has a number of its own, since no
inode is 0; and all that folders name, but is not there, has one number together. Must not know how
attributes are stored.

Concurrency: any number of calls may be in flight.
"""

import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import trio

from restorefs.errors import DamagedError, NotFoundError, UnsupportedError
from restorefs.guestfs.base import Attributes, DirEntry, Inode
from restorefs.guestfs.decoders.ntfs_record import FOLDER_MODE, plain_files
from restorefs.guestfs.ntfs.attributes import (
    WOF_STREAM,
    Summary,
    plain_attributes,
    require_content,
    special_attributes,
    standard_of,
    stream_attributes,
    summarise,
)
from restorefs.guestfs.ntfs.files import File, FileTable, decode_file
from restorefs.guestfs.ntfs.folder import Name
from restorefs.guestfs.ntfs.layout import (
    DATA,
    DOS_RECALL_ON_DATA_ACCESS,
    EA,
    MFT,
    RECORD_MASK,
    REPARSE_POINT,
    RecordNumber,
    checked_record,
    decode_header,
)
from restorefs.guestfs.ntfs.links import Links
from restorefs.guestfs.ntfs.mft import Places
from restorefs.guestfs.ntfs.names import shown
from restorefs.guestfs.ntfs.reparse import (
    EA_BYTES,
    KINDS,
    REPARSE_BYTES,
    Reparse,
    WslMetadata,
    decode_eas,
    decode_reparse,
    decode_wsl,
    stub_name,
)

MFT_INODE: Inode = 1 << 35
"""Of record 0. More than any record's number, and few enough bits for a node id."""
NOTHING_INODE: Inode = MFT_INODE + 1
"""Of all that folders name, but is not there: the record is another file's by now, or there is
none. One number, as whoever numbers inodes would keep those of many."""
_STREAM_SHIFT = 48
_MAX_STREAMS = (1 << 15) - 1
_PACE = 256
_TYPE_MASK = 0o170000
_NO_WSL = WslMetadata(None, None, None, None)


class Special(NamedTuple):
    """What makes a file something else than it looks. reparse: None for no reparse point."""

    reparse: Reparse | None
    wsl: WslMetadata

    @property
    def tag(self) -> int:
        return self.reparse.tag if self.reparse else 0

    @property
    def is_link(self) -> bool:
        return KINDS.get(self.tag) == stat.S_IFLNK


class Node(NamedTuple):
    """An inode: a file, and which of its streams it is (UTF-16LE, b"" for the file itself)."""

    inode: Inode
    file: File
    stream: bytes


def inode_of(number: RecordNumber) -> Inode:
    """Return the inode of a file's record."""
    return number or MFT_INODE


class Inodes:
    """All inodes of a volume."""

    def __init__(self, files: FileTable, links: Links) -> None:
        self._files = files
        self._links = links

    async def node(self, inode: Inode) -> Node:
        """Return an inode. Raises NotFoundError, DamagedError."""
        place, number = inode >> _STREAM_SHIFT, inode & RECORD_MASK
        if number == NOTHING_INODE:
            raise DamagedError("a folder's entry is damaged or stale: it leads to no file")
        if number == MFT_INODE:
            number = MFT
        elif number == MFT:
            raise NotFoundError("there is no inode 0")
        file = await self._files.file(number)
        if not place:
            return Node(inode, file, b"")
        names = stream_names(file)
        if place > len(names):
            raise NotFoundError(f"file {number} has no stream {place}")
        return Node(inode, file, names[place - 1])

    async def stream_inode(self, file: File, name: bytes) -> Inode:
        """Return the inode of a file's stream by its name as shown; as Windows does, without
        regard to case where only one fits. Raises NotFoundError."""
        names = [shown(stored) for stored in stream_names(file)]
        folded = name.decode("utf-8", "replace").casefold()
        found = [place for place, other in enumerate(names) if other == name] or [
            place
            for place, other in enumerate(names)
            if other.decode("utf-8", "replace").casefold() == folded
        ]
        if len(found) != 1:
            raise NotFoundError(f"file {file.number} has no such stream")
        return found[0] + 1 << _STREAM_SHIFT | inode_of(file.number)

    async def special(self, file: File) -> Special:
        """Return a file's reparse point and what WSL says of it. Raises DamagedError."""
        reparse = None
        raw = await self._files.value(file, REPARSE_POINT, REPARSE_BYTES)
        if raw:
            reparse = decode_reparse(raw)
        wsl = _NO_WSL
        if file.pieces(EA):
            wsl = decode_wsl(decode_eas(await self._files.value(file, EA, EA_BYTES)))
        return Special(reparse, wsl)

    async def keeper(self, file: File) -> str:
        """Return who may have files of a folder that the volume has not, "" for no one. Raises
        DamagedError.

        Sources: MS-FSCC 2.1.2.1 for tags; 2.6, FILE_ATTRIBUTE_RECALL_ON_DATA_ACCESS.
        """
        tag, owner = 0, ""
        if file.pieces(REPARSE_POINT) or file.pieces(EA):
            tag = (await self.special(file)).tag
            owner = stub_name(tag)
        dos = 0
        with suppress(DamagedError):  # its attributes say why
            dos = standard_of(file).dos
        if not owner and dos & DOS_RECALL_ON_DATA_ACCESS:
            owner = "an unknown filter" if tag else "recalled on access"
        return f"{owner}, reparse tag {tag:#x}" if owner and tag else owner

    async def attributes(self, inode: Inode) -> Attributes:
        """Raises NotFoundError, DamagedError."""
        node = await self.node(inode)
        attributes = await self._of_file(node.file, summarise(node.file))
        if node.stream:
            return stream_attributes(attributes, inode, node.file.pieces(DATA, node.stream)[0])
        return attributes

    async def _of_file(self, file: File, summary: Summary) -> Attributes:
        inode = inode_of(file.number)
        if summary.is_plain:
            require_content(file, summary)
            return plain_attributes(file, summary, inode)
        special = await self.special(file)
        if special.tag not in KINDS:
            require_content(file, summary)
        size = 0
        if special.is_link and special.reparse is not None:
            try:
                size = len(await self._links.target(file, special.reparse))
            except DamagedError:
                size = 0  # readlink() says why
        return special_attributes(file, summary, inode, special.tag, special.wsl, size)

    async def entries(self, names: Sequence[Name]) -> list[DirEntry]:
        """Return the entries of names, with the attributes of all files that can be read, whose
        records are fetched together. Raises StorageError."""
        by_number = {name[1] & RECORD_MASK: name[1] for name in names if not name[3]}
        plain, others = await self._read(by_number)
        entries: list[DirEntry] = []
        new = tuple.__new__
        for count, (name, reference, cookie, impossible) in enumerate(names, 1):
            if not count % _PACE:
                await trio.lowlevel.checkpoint()
            attributes = plain.get(reference)
            if impossible:
                inode, attributes = NOTHING_INODE, None
            elif attributes is not None:
                inode = attributes[0]
            else:
                inode, attributes = await self._referred(reference, others)
            kind = attributes[1] & _TYPE_MASK if attributes is not None else 0
            entries.append(new(DirEntry, (name, inode, kind, cookie, attributes)))
        return entries

    async def _read(
        self, references: Mapping[RecordNumber, int]
    ) -> tuple[dict[int, Attributes], dict[RecordNumber, bytes]]:
        """Return the attributes of the plain files among those referred to, by reference, and the
        records of the others, as far as they can be read. Raises StorageError."""
        plain: dict[int, Attributes] = {}
        others: dict[RecordNumber, bytes] = {}
        mft = self._files.mft
        size = mft.boot.record_size

        def see(piece: bytes, places: Places) -> None:
            shown = plain_files(piece, places, references, size)
            for (number, offset), attributes in zip(places, shown, strict=True):
                if attributes is None:
                    with suppress(DamagedError, NotFoundError):
                        others[number] = checked_record(piece, offset, size, number)
                    continue
                plain[references[number]] = attributes
                if attributes[1] == FOLDER_MODE:  # it is likely to be opened next
                    mft.keep(number, checked_record(piece, offset, size, number))

        await mft.visit(references, see)
        return plain, others

    async def _referred(
        self, reference: int, records: Mapping[RecordNumber, bytes]
    ) -> tuple[Inode, Attributes | None]:
        """Return the inode that a folder's reference leads to, and its attributes if it can be
        read. records: those that are at hand. Raises StorageError."""
        number = reference & RECORD_MASK
        mft = self._files.mft
        if number >= mft.count:
            return NOTHING_INODE, None
        with suppress(DamagedError, NotFoundError, UnsupportedError):
            record = records.get(number) or await mft.any_record(number)
            if _is_stale(record, reference):
                return NOTHING_INODE, None
            await trio.lowlevel.checkpoint()
            return inode_of(number), await self._of_record(record, number)
        return inode_of(number), None

    async def _of_record(self, record: bytes, number: RecordNumber) -> Attributes:
        """Return the attributes of a file whose record has been read."""
        file, attribute_lists = decode_file(record, number)
        if attribute_lists:
            file = await self._files.file(number)
        return await self._of_file(file, summarise(file))


def _is_stale(record: bytes, reference: int) -> bool:
    """Tell whether a reference is to a file that had the record before."""
    sequence = reference >> 48
    return sequence != 0 and sequence != decode_header(record)[0]


def stream_names(file: File) -> list[bytes]:
    """Return the stored names of a file's named streams, sorted, without what WOF keeps."""
    names = file.names(DATA)
    if file.pieces(REPARSE_POINT):
        names = [name for name in names if name != WOF_STREAM]
    return sorted(name for name in names if name)[:_MAX_STREAMS]
