"""The content of files and streams.

Owns what a file's bytes are: those of its stream, compressed ones decoded, and those that Windows
shows in place of it (WOF); and which content is refused because it is not on the volume or needs a
key. Sources: linux-ntfs, "concepts" (compression); MS-FSCC 2.1.2.1 for what tags mean.

Concurrency: any number of calls may be in flight. What two of them decode twice is the same.
"""

import stat
from typing import NamedTuple

from restorefs.block.base import ByteLength, ByteOffset
from restorefs.errors import DamagedError, IsAFolderError, UnsupportedError
from restorefs.guestfs.base import Extent, Inode
from restorefs.guestfs.lru import Lru
from restorefs.guestfs.ntfs.attributes import WOF_STREAM, require_content, summarise
from restorefs.guestfs.ntfs.files import File, FileTable
from restorefs.guestfs.ntfs.inodes import Inodes
from restorefs.guestfs.ntfs.kept import Kept
from restorefs.guestfs.ntfs.layout import (
    DATA,
    DOS_RECALL,
    LOGGED_UTILITY_STREAM,
    RecordNumber,
)
from restorefs.guestfs.ntfs.lznt1 import decode_units
from restorefs.guestfs.ntfs.reparse import DEDUP, KINDS, WOF, stub_name
from restorefs.guestfs.ntfs.runs import HOLE, Runs
from restorefs.guestfs.ntfs.streams import (
    Stream,
    extents_of,
    stored_extents,
    stored_in_unit,
)
from restorefs.guestfs.ntfs.wof import WofFile

_EFS = "$EFS".encode("utf-16-le")
_KEPT_SOURCES = 256
_KEPT_UNITS = 64
_LARGEST_KEPT_UNIT: ByteLength = 64 << 10
_UNITS_AT_ONCE: ByteLength = 1 << 20
_EMPTY = Stream(0, 0, b"", Runs(), 0, encrypted=False)

_UnitKey = tuple[RecordNumber, bytes, int]


class Source(NamedTuple):
    """Where the bytes of an inode come from. name: of the stream. wof: decodes them instead."""

    number: RecordNumber
    name: bytes
    stream: Stream
    wof: WofFile | None


class Content:
    """The content of all files of a volume."""

    def __init__(self, files: FileTable, inodes: Inodes) -> None:
        self._files = files
        self._inodes = inodes
        self._bits = files.mft.boot.cluster_bits
        self._device = files.mft.reader.device
        self._most = files.mft.limits.extents_per_map
        self._sources: Kept[Inode, Source] = Kept(_KEPT_SOURCES)
        self._units: Lru[_UnitKey, bytes] = Lru(_KEPT_UNITS)

    async def map(self, inode: Inode, offset: ByteOffset, length: ByteLength) -> list[Extent]:
        """As GuestFilesystem.map()."""
        source = await self._source(inode)
        stream = source.stream
        if not length:
            return []
        if not 0 <= offset <= offset + length <= stream.size:
            raise DamagedError(f"inode {inode} ends before byte {offset + length}")
        if source.wof is not None:
            return [Extent(None, length, encoded=True)]
        return extents_of(stream, self._bits, offset, length, self._most)

    async def decoded(self, inode: Inode, offset: ByteOffset, length: ByteLength) -> bytes:
        """As GuestFilesystem.read_encoded()."""
        source = await self._source(inode)
        if source.wof is not None:
            return await source.wof.read(offset, length)
        return await self._decoded(source, offset, length)

    async def read(self, source: Source, offset: ByteOffset, length: ByteLength) -> bytes:
        """Return bytes of a stream, whatever way they are stored. The range must lie inside it."""
        if not 0 <= offset <= offset + length <= source.stream.size:
            raise DamagedError(f"file {source.number} ends before byte {offset + length}")
        parts = []
        extents = extents_of(source.stream, self._bits, offset, length, self._most)
        for extent in extents:
            if extent.encoded:
                parts.append(await self._decoded(source, offset, extent.length))
            elif extent.offset is None:
                parts.append(bytes(extent.length))
            else:
                parts.append(await self._device.read(extent.offset, extent.length))
            offset += extent.length
        return b"".join(parts)

    async def named(self, file: File, name: bytes) -> Source:
        """Return a file's own stream of a name: the one way to any stream's bytes. Raises
        DamagedError, UnsupportedError for one that is encrypted.

        A file's keys ($EFS) are for all its streams: one that lacks the flag is not believed.
        """
        stream = await self._files.stream(file, DATA, name) or _EMPTY
        has_keys = bool(file.pieces(LOGGED_UTILITY_STREAM, _EFS))
        if stream.encrypted or (has_keys and stream.size):
            raise UnsupportedError(f"the content of file {file.number} is encrypted (EFS)")
        return Source(file.number, name, stream, None)

    async def _source(self, inode: Inode) -> Source:
        source = self._sources.get(inode)
        if source is None:
            node = await self._inodes.node(inode)
            if node.stream:
                source = await self.named(node.file, node.stream)
            else:
                source = await self._main_source(node.file)
            self._sources.put(inode, source, len(source.stream.runs.starts))
        return source

    async def _main_source(self, file: File) -> Source:
        """Return where a file's own content comes from. Raises IsAFolderError, DamagedError,
        UnsupportedError by name for what is not on the volume."""
        summary = summarise(file)
        tag, data = 0, b""
        if summary.reparse is not None:
            reparse = (await self._inodes.special(file)).reparse
            if reparse is not None:
                tag, data = reparse.tag, reparse.data
        kind = KINDS.get(tag, stat.S_IFDIR if file.is_folder else stat.S_IFREG)
        if kind == stat.S_IFDIR:
            raise IsAFolderError(f"inode {file.number} is a folder")
        if kind != stat.S_IFREG:
            raise DamagedError(f"inode {file.number} has no content")
        require_content(file, summary)
        source = await self.named(file, b"")
        if tag == WOF:
            packed = await self.named(file, WOF_STREAM)

            async def read(offset: ByteOffset, length: ByteLength) -> bytes:
                return await self.read(packed, offset, length)

            wof = WofFile(data, source.stream.size, read, packed.stream.size)
            return source._replace(wof=wof)
        if tag:
            _require_local(tag, summary.standard.dos, source)
        return source

    async def _decoded(self, source: Source, offset: ByteOffset, length: ByteLength) -> bytes:
        stream = source.stream
        if stream.value is not None:
            return stream.value[offset : offset + length]
        bits = stream.unit_bits
        if not bits:
            raise DamagedError(f"file {source.number} has no encoded content")
        end = offset + length
        parts = []
        step = max(1, _UNITS_AT_ONCE >> bits)
        first, stop = offset >> bits, (end - 1 >> bits) + 1
        for start in range(first, stop, step):
            parts += await self._unit_bytes(source, range(start, min(start + step, stop)))
        data = b"".join(parts)
        skip = offset - (first << bits)
        return data if not skip and len(data) == length else data[skip : skip + length]

    async def _unit_bytes(self, source: Source, units: range) -> list[bytes]:
        """Return the decoded bytes of compression units, as far as they are valid."""
        stream, bits = source.stream, source.stream.unit_bits
        found: dict[int, bytes | None] = {
            unit: self._units.get((source.number, source.name, unit)) for unit in units
        }
        missing = [unit for unit, data in found.items() if data is None]
        if missing:
            extents = [stored_extents(stream, self._bits, unit) for unit in missing]
            for unit, places in zip(missing, extents, strict=True):
                if not places or stored_in_unit(stream, self._bits, unit) == 1 << (
                    bits - self._bits
                ):
                    raise DamagedError(f"unit {unit} of file {source.number} is not compressed")
            stored = await self._read_all(extents)
            sizes = [min(1 << bits, stream.valid - (unit << bits)) for unit in missing]
            decoded = await decode_units(list(zip(stored, sizes, strict=True)))
            found.update(zip(missing, decoded, strict=True))
            if 1 << bits <= _LARGEST_KEPT_UNIT:
                self._units.put_all(
                    ((source.number, source.name, unit), data)
                    for unit, data in zip(missing, decoded, strict=True)
                )
        return [data for data in found.values() if data is not None]

    async def _read_all(self, groups: list[list[Extent]]) -> list[bytes]:
        """Return the bytes of groups of extents; neighbours are read together."""
        places: list[list[int]] = []
        for group in groups:
            for offset, length, _ in group:
                assert offset is not None
                if places and places[-1][0] + places[-1][1] == offset:
                    places[-1][1] += length
                else:
                    places.append([offset, length])
        data = b"".join([await self._device.read(offset, length) for offset, length in places])
        stored = []
        position = 0
        for group in groups:
            length = sum(extent.length for extent in group)
            stored.append(data[position : position + length])
            position += length
        return stored


def _require_local(tag: int, dos: int, source: Source) -> None:
    """Raise UnsupportedError where a file's content is not on the volume, as its tag says.

    What a cloud provider has fetched completely is there like any other file's content. What it
    has not, has holes, or DOS attributes that say so; nor are those of unknown filters believed.
    """
    number = source.number
    if tag == DEDUP:
        raise UnsupportedError(f"the content of file {number} is in Data Deduplication's store")
    stream = source.stream
    has_holes = stream.value is None and (HOLE in stream.runs.lcns or stream.valid < stream.size)
    if has_holes or dos & DOS_RECALL:
        owner = stub_name(tag)
        raise UnsupportedError(
            f"the content of file {number} is not on the volume, or only in part"
            f" ({owner + ', ' if owner else ''}reparse tag {tag:#x})"
        )
