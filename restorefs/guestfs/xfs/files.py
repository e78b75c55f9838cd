"""What is inside an inode.

Owns the content map of each file, a small memory of them, and symbolic links' targets. Must not
know about folders or attributes. Sources: "Data Extents", "Symbolic Links".

Concurrency: any number of calls may be in flight.
"""

import stat
from dataclasses import dataclass
from functools import cached_property

from restorefs.block.base import ByteLength, ByteOffset
from restorefs.errors import DamagedError
from restorefs.guestfs.base import Attributes, Inode
from restorefs.guestfs.lru import Lru
from restorefs.guestfs.xfs.blockmap import BlockMap, Volume
from restorefs.guestfs.xfs.checksum import REMOTE, verify
from restorefs.guestfs.xfs.inode_record import (
    FLAG_REALTIME,
    FORMAT_LOCAL,
    InodeBody,
    decode_attributes,
    decode_body,
)
from restorefs.guestfs.xfs.inodes import InodeTable

_KEPT_FILES = 1024
_LINK_MAGIC = b"XSLM"  # xfs_dsymlink_hdr: sl_magic, sl_offset, sl_bytes, sl_crc
_LINK_HEAD: ByteLength = 56


@dataclass(frozen=True)
class File:
    """An inode, and where its content is."""

    volume: Volume
    inode: Inode
    attributes: Attributes
    body: InodeBody

    @cached_property
    def content(self) -> BlockMap:
        """Where the data's blocks lie. Raises DamagedError where it has none."""
        return BlockMap(self.volume, self.inode, self.body.data)

    @property
    def realtime(self) -> bool:
        """Its data is on the realtime device."""
        return bool(self.body.flags & FLAG_REALTIME) and stat.S_ISREG(self.attributes.mode)

    @property
    def inline(self) -> bytes | None:
        """The data, where it is inside the inode. Raises DamagedError."""
        if self.body.data.form != FORMAT_LOCAL:
            return None
        size = self.attributes.size
        if size > len(self.body.data.raw):
            raise DamagedError(f"inode {self.inode} has no room for {size} bytes")
        return self.body.data.raw[:size]


class FileTable:
    """All files of a file system."""

    def __init__(self, volume: Volume, inodes: InodeTable) -> None:
        self._volume = volume
        self._inodes = inodes
        self._files: Lru[Inode, File] = Lru(_KEPT_FILES)

    async def file(self, inode: Inode) -> File:
        """Raises NotFoundError, DamagedError."""
        file = self._files.get(inode)
        if file is None:
            record = await self._inodes.record(inode)
            attributes = decode_attributes(record, inode, self._inodes.form)
            body = decode_body(record, inode, self._inodes.form)
            file = File(self._volume, inode, attributes, body)
            self._files.put(inode, file)
        return file

    async def link_target(self, file: File) -> bytes:
        """Return the target of a symbolic link. Raises DamagedError."""
        size = file.attributes.size
        if not 0 < size <= self._volume.limits.link_bytes:
            raise DamagedError(f"link {file.inode} claims a target of {size} bytes")
        target = file.inline
        if target is None:
            target = await self._remote_target(file, size)
        if len(target) != size or b"\0" in target:
            raise DamagedError(f"the target of link {file.inode} is damaged")
        return target

    async def _remote_target(self, file: File, size: ByteLength) -> bytes:
        """Return a target that lies in blocks of its own ("Remote Symbolic Links")."""
        volume = self._volume
        room = volume.block_size - (_LINK_HEAD if volume.checked else 0)
        target = b""
        for block, count in await file.content.runs(0, -(-size // room)):
            if block is None:
                break  # Behind a header there is more room in several blocks than in each.
            offset = volume.place(block, count)
            raw = await volume.reader.read(offset, count << volume.block_bits)
            target += self._part(file, offset, raw, len(target)) if volume.checked else raw
        return target if volume.checked else target[:size]

    def _part(self, file: File, offset: ByteOffset, raw: bytes, position: int) -> bytes:
        """Return the part of a target that a run of blocks holds, behind its header."""
        what = f"the target of link {file.inode}"
        if raw[:4] != _LINK_MAGIC:
            raise DamagedError(f"{what} has lost its signature")
        verify(raw, REMOTE, self._volume.superblock.meta_uuid, file.inode, offset, what)
        start = int.from_bytes(raw[4:8], "big")
        length = int.from_bytes(raw[8:12], "big")
        if start != position or not 0 < length <= len(raw) - _LINK_HEAD:
            raise DamagedError(f"{what} is out of order")
        return raw[_LINK_HEAD : _LINK_HEAD + length]
