"""A tar in the pax format (POSIX.1-2001), piece by piece, as one stream of zstd.

Owns what of a file becomes which header: names as they are, byte by byte, times in ns, owners,
links. Must not know where the files come from.

Concurrency: compressing takes a thread; the rest is quick.
"""

import os
import stat
import tarfile
from functools import partial

import trio
import zstandard

from restorefs.control.packing import Member, Packer, Put, Share

_LEVEL = 3
_END = bytes(2 * tarfile.BLOCKSIZE)
_TORN = b"this archive is not complete"
_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


class TarPacker(Packer):
    """Writes a tar."""

    media_type = "application/zstd"
    suffix = ".tar.zst"
    has_hard_links = True

    def __init__(self, put: Put, threads: trio.CapacityLimiter, share: Share) -> None:
        self._put = put
        self._threads = threads
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
        self._size = 0

    async def begin(self, member: Member, target: bytes = b"", hard: bool = False) -> None:
        info = tarfile.TarInfo(os.fsdecode(member.name))
        found = member.attributes
        kind = stat.S_IFMT(found.mode)
        info.type = tarfile.LNKTYPE if hard else _TYPES[kind]
        info.mode = stat.S_IMODE(found.mode)
        info.uid, info.gid = found.uid, found.gid
        seconds, rest = divmod(found.mtime_ns, 1_000_000_000)
        info.mtime = seconds
        if rest and seconds >= 0:
            info.pax_headers = {"mtime": f"{seconds}.{rest:09d}"}
        elif rest:  # before 1970 a fraction counts backwards
            info.pax_headers = {"mtime": f"-{-seconds - 1}.{1_000_000_000 - rest:09d}"}
        info.linkname = os.fsdecode(target)
        if kind in (stat.S_IFCHR, stat.S_IFBLK) and not hard:
            info.devmajor, info.devminor = os.major(found.rdev), os.minor(found.rdev)
        self._size = info.size = found.size if info.type == tarfile.REGTYPE else 0
        await self._put(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

    async def data(self, piece: bytes) -> None:
        await self._put(piece)

    async def end(self) -> None:
        if rest := self._size % tarfile.BLOCKSIZE:
            await self._put(bytes(tarfile.BLOCKSIZE - rest))

    async def finish(self) -> None:
        await self._put(_END)

    async def encode(self, piece: bytes) -> bytes:
        compress = partial(self._compressor.compress, piece)
        return await trio.to_thread.run_sync(compress, limiter=self._threads)

    def encode_end(self) -> bytes:
        return self._compressor.flush()

    def encode_cut(self) -> bytes:
        # Half a header, and of a second frame no more than its begin: neither tar nor zstd takes
        # that for an end. They give out all in front of it, which zstd does of whole frames only.
        torn = self._compressor.compress(_TORN)
        return torn + self._compressor.flush() + zstandard.FRAME_HEADER
