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
from restorefs.guestfs.decompress import decode_units
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
from restorefs.guestfs.ntfs.reparse import DEDUP, KINDS, WOF, stub_name
from restorefs.guestfs.ntfs.runs import HOLE, Runs
from restorefs.guestfs.ntfs.streams import (
    Stream,
    extents_of,
    stored_units,
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

    async def decoded(
        self, inode: Inode, offset: ByteOffset, length: ByteLength
    ) -> bytes | bytearray:
        """As GuestFilesystem.read_encoded()."""
        source = await self._source(inode)
        if source.wof is not None:
            return await source.wof.read(offset, length)
        return await self._decoded(source, offset, length)

    async def read(self, source: Source, offset: ByteOffset, length: ByteLength) -> bytes:
        """Return bytes of a stream, whatever way they are stored. The range must lie inside it."""
        if not 0 <= offset <= offset + length <= source.stream.size:
            raise DamagedError(f"file {source.number} ends before byte {offset + length}")
        parts: list[bytes | bytearray] = []
        extents = extents_of(source.stream, self._bits, offset, length, self._most)
        for extent in extents:
            if extent.encoded:
                parts.append(await self._decoded(source, offset, extent.length))
            elif extent.offset is None:
                parts.append(bytes(extent.length))
            else:
                parts.append(await self._device.read_through([(extent.offset, extent.length)]))
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

    async def _decoded(
        self, source: Source, offset: ByteOffset, length: ByteLength
    ) -> bytes | bytearray:
        stream = source.stream
        if stream.value is not None:
            return stream.value[offset : offset + length]
        bits = stream.unit_bits
        if not bits:
            raise DamagedError(f"file {source.number} has no encoded content")
        first, stop = offset >> bits, (offset + length - 1 >> bits) + 1
        parts: list[bytes | bytearray] = []
        unit = first
        while unit < stop:
            kept = self._units.get((source.number, source.name, unit))
            if kept is not None:
                parts.append(kept)
                unit += 1
            else:
                units = range(unit, min(unit + max(1, _UNITS_AT_ONCE >> bits), stop))
                parts.append(await self._unit_bytes(source, units))
                self._keep_cut(source, units, parts[-1], offset, offset + length)
                unit = units.stop
        skip = offset - (first << bits)
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        return data if not skip and len(data) == length else data[skip : skip + length]

    async def _unit_bytes(self, source: Source, units: range) -> bytearray:
        """Return the decoded bytes of compression units, as far as they are valid."""
        stream, bits = source.stream, source.stream.unit_bits
        places, bounds = stored_units(stream, self._bits, units)
        size = min(units.stop << bits, stream.valid) - (units.start << bits)
        if size <= 0:
            raise DamagedError(f"unit {units.start} of file {source.number} was never written")
        return await decode_units(await self._device.read_through(places), bounds, 1 << bits, size)

    def _keep_cut(
        self,
        source: Source,
        units: range,
        data: bytes | bytearray,
        start: ByteOffset,
        end: ByteOffset,
    ) -> None:
        """Remember those units of which [start, end) is only a part: the others are not asked for
        again soon, as the reader's own cache has them."""
        bits = source.stream.unit_bits
        if 1 << bits > _LARGEST_KEPT_UNIT:
            return
        for unit in {units[0], units[-1]}:
            begin = unit - units.start << bits
            behind = min(begin + (1 << bits), len(data))
            if start > unit << bits or end < (unit << bits) + behind - begin:
                piece = bytes(data[begin:behind])
                self._units.put((source.number, source.name, unit), piece)


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
