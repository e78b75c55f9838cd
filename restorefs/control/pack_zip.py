"""A zip, piece by piece (PKWARE's APPNOTE 6.3.9, its section numbers below; the fields for Unix as
Info-ZIP's extrafld.txt describes them).

Owns the bytes of the format. Nothing is known of a file's content when its header is sent, so sizes
and CRC come behind it (4.3.9), in 64 bits always where the file may need it. The standard
library's zipfile keeps some KiB for every member until the end; here it is the member's record in
the central directory, some 100 bytes.

Concurrency: compressing a large piece takes a thread; the rest is quick.
"""

import re
import stat
import struct
import zlib
from functools import partial
from time import gmtime

import trio

from restorefs.control.packing import Member, Packer, Put, Share
from restorefs.errors import UnsupportedError

_LEVEL = 1
_INLINE = 32 << 10  # bytes that are compressed in the loop
_PIECE = 1 << 20
_DIRECTORY_SIGNATURE = b"PK\1\2"
_LOCAL = struct.Struct("<4s5H3I2H")  # 4.3.7
_DESCRIPTOR = struct.Struct("<4sIQQ")  # 4.3.9.2
_CENTRAL = struct.Struct("<4s6H3I5H2I")  # 4.3.12
_END64 = struct.Struct("<4sQ2H2I4Q")  # 4.3.14
_LOCATOR64 = struct.Struct("<4sIQI")  # 4.3.15
_END = struct.Struct("<4s4H2IH")  # 4.3.16
_VERSION = 45  # 4.4.3: zip64
_MADE_ON_UNIX = 3 << 8 | _VERSION
_BEHIND, _UTF8 = 1 << 3, 1 << 11  # 4.4.4
_STORED, _DEFLATED = 0, 8
_FULL32 = 0xFFFFFFFF
_FULL16 = 0xFFFF
_ESCAPED = re.compile(rb"%(?=[0-9A-Fa-f]{2})")


class ZipPacker(Packer):
    """Writes a zip."""

    media_type = "application/zip"
    suffix = ".zip"
    has_hard_links = False

    def __init__(self, put: Put, threads: trio.CapacityLimiter, share: Share) -> None:
        self._put_raw = put
        self._threads = threads
        self._share = share
        self._position = 0
        self._directory = bytearray()
        self._count = 0

    async def begin(self, member: Member, target: bytes = b"", hard: bool = False) -> None:
        assert not hard
        found = member.attributes
        name = _name(member.name) + (b"/" if stat.S_ISDIR(found.mode) else b"")
        if len(name) > _FULL16:
            raise UnsupportedError(
                f"its path has {len(name)} bytes in a zip, and may have {_FULL16}"
            )
        self._member = member
        self._name = name
        self._start = self._position
        self._deflate = (
            zlib.compressobj(_LEVEL, zlib.DEFLATED, -15)
            if stat.S_ISREG(found.mode) and found.size
            else None
        )
        self._crc = self._size = self._packed = 0
        self._flags = (_BEHIND if self._deflate else 0) | _UTF8
        self._method = _DEFLATED if self._deflate else _STORED
        content = target if stat.S_ISLNK(found.mode) else b""
        extra = _unix_fields(member)
        if self._deflate:
            # 4.5.3: sizes in 64 bits; says that those behind the content are, too.
            extra = struct.pack("<2H2Q", 1, 16, 0, 0) + extra
            sizes = (0, _FULL32, _FULL32)
        else:
            sizes = (zlib.crc32(content), len(content), len(content))
            self._crc, self._size, self._packed = sizes
        await self._put(
            _LOCAL.pack(
                *(b"PK\3\4", _VERSION, self._flags, self._method, *_dos_time(found.mtime_ns)),
                *(*sizes, len(self._name), len(extra)),
            )
            + self._name
            + extra
            + content
        )

    async def data(self, piece: bytes) -> None:
        assert self._deflate is not None
        self._crc = zlib.crc32(piece, self._crc)
        self._size += len(piece)
        await self._put_packed(await self._run(partial(self._deflate.compress, piece), len(piece)))

    async def end(self) -> None:
        if self._deflate is not None:
            await self._put_packed(self._deflate.flush())
            await self._put(_DESCRIPTOR.pack(b"PK\7\x08", self._crc, self._packed, self._size))
            self._deflate = None
        self._note()

    async def finish(self) -> None:
        start, size = self._position, len(self._directory)
        for at in range(0, size, _PIECE):
            await self._put(bytes(self._directory[at : at + _PIECE]))
        end64 = self._position
        counts = (self._count, self._count, size, start)
        await self._put(
            _END64.pack(b"PK\6\6", 44, _MADE_ON_UNIX, _VERSION, 0, 0, *counts)
            + _LOCATOR64.pack(b"PK\6\7", 0, end64, 1)
            + _END.pack(
                *(b"PK\5\6", 0, 0, min(self._count, _FULL16), min(self._count, _FULL16)),
                *(min(size, _FULL32), min(start, _FULL32), 0),
            )
        )

    def encode_cut(self) -> bytes:
        # Who looks for members without the directory sees by this where the last one ends.
        return _DIRECTORY_SIGNATURE

    def _note(self) -> None:
        """Keep the member's record for the central directory. Raises UnsupportedError."""
        found = self._member.attributes
        extra = _unix_fields(self._member)
        shown = [min(each, _FULL32) for each in (self._packed, self._size, self._start)]
        # 4.5.3: only what does not fit above, in this order.
        wide = [each for each in (self._size, self._packed, self._start) if each >= _FULL32]
        if wide:
            extra = struct.pack(f"<2H{len(wide)}Q", 1, 8 * len(wide), *wide) + extra
        dos = 0x10 if stat.S_ISDIR(found.mode) else 0
        record = (
            _CENTRAL.pack(
                *(_DIRECTORY_SIGNATURE, _MADE_ON_UNIX, _VERSION, self._flags, self._method),
                *(*_dos_time(found.mtime_ns), self._crc, shown[0], shown[1]),
                *(len(self._name), len(extra), 0, 0, 0),
                *((found.mode & 0xFFFF) << 16 | dos, shown[2]),
            )
            + self._name
            + extra
        )
        if not self._share.take(len(record)):
            raise UnsupportedError("too many files for the zips under way; a tar.zst has no limit")
        self._directory += record
        self._count += 1

    async def _run(self, compress: "partial[bytes]", size: int) -> bytes:
        if size <= _INLINE:
            return compress()
        return await trio.to_thread.run_sync(compress, limiter=self._threads)

    async def _put_packed(self, packed: bytes) -> None:
        self._packed += len(packed)
        if packed:
            await self._put(packed)

    async def _put(self, raw: bytes) -> None:
        self._position += len(raw)
        await self._put_raw(raw)


def _name(name: bytes) -> bytes:
    """Return a name in UTF-8. What is none, and a backslash, which Windows takes for a slash, are
    percent-encoded; and so is what would look like that, for no two names may become one."""
    name = _ESCAPED.sub(b"%25", name).replace(b"\\", b"%5C")
    try:
        name.decode()
    except UnicodeDecodeError:
        return b"".join(
            each.encode()
            if each < "\udc80" or each > "\udcff"
            else b"%%%02X" % (ord(each) - 0xDC00)
            for each in name.decode("utf-8", "surrogateescape")
        )
    return name


def _unix_fields(member: Member) -> bytes:
    """Return the time (extrafld.txt, "UT") and the owner ("ux") of a member."""
    found = member.attributes
    seconds = found.mtime_ns // 1_000_000_000
    time = struct.pack("<2HBi", 0x5455, 5, 1, seconds) if -(2**31) <= seconds < 2**31 else b""
    return time + struct.pack("<2H2BIBI", 0x7875, 11, 1, 4, found.uid, 4, found.gid)


def _dos_time(time_ns: int) -> tuple[int, int]:
    """Return a time and a date as MS-DOS has them (4.4.6): from 1980 on, in steps of 2 s, UTC."""
    seconds = min(max(time_ns // 1_000_000_000, 315_532_800), 4_354_819_198)
    at = gmtime(seconds)
    time = at.tm_hour << 11 | at.tm_min << 5 | at.tm_sec // 2
    return time, (at.tm_year - 1980) << 9 | at.tm_mon << 5 | at.tm_mday
