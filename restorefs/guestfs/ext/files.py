"""What is inside an inode.

Owns the choice of the content map for each inode, a small memory of them, and the reading of
short contents (link targets, attribute values). Must not know about folders.

Concurrency: any number of calls may be in flight.
"""

import stat
from dataclasses import dataclass

from restorefs.block.base import ByteLength
from restorefs.errors import DamagedError, UnsupportedError
from restorefs.guestfs.base import Attributes, Inode
from restorefs.guestfs.ext.blockmap import ContentMap, NodeMemory, Volume
from restorefs.guestfs.ext.checksum import crc32c, inode_seed, xattr_block_checksum
from restorefs.guestfs.ext.extents import ExtentMap, Node
from restorefs.guestfs.ext.indirect import IndirectMap, Pointers
from restorefs.guestfs.ext.inline import InlineMap
from restorefs.guestfs.ext.inode_record import (
    FLAG_ENCRYPT,
    FLAG_EXTENTS,
    FLAG_INLINE_DATA,
    FLAG_SNAPFILE,
    I_BLOCK_SIZE,
    InodeBody,
    decode_attributes,
    decode_body,
    decode_value_inode,
)
from restorefs.guestfs.ext.inodes import InodeTable
from restorefs.guestfs.ext.layout import Superblock
from restorefs.guestfs.ext.xattr import (
    Entry,
    block_checksum_of,
    decode_block,
    decode_entries,
    shown_value,
)
from restorefs.guestfs.lru import Lru

_KEPT_FILES = 1024


@dataclass(frozen=True, slots=True)
class File:
    """An inode with its content map."""

    inode: Inode
    attributes: Attributes
    body: InodeBody
    record: bytes
    content: ContentMap

    @property
    def encrypted(self) -> bool:
        return bool(self.body.flags & FLAG_ENCRYPT)

    @property
    def inline(self) -> bool:
        return bool(self.body.flags & FLAG_INLINE_DATA)


class FileTable:
    """All files of a file system."""

    def __init__(self, volume: Volume, inodes: InodeTable, superblock: Superblock) -> None:
        self._volume = volume
        self._inodes = inodes
        # Attribute values have checksums whenever they lie in inodes of their own.
        self._value_seed = superblock.checksum_seed
        self._files: Lru[Inode, File] = Lru(_KEPT_FILES)
        self._extent_nodes: NodeMemory[Node] = NodeMemory(volume)
        self._pointers: NodeMemory[Pointers] = NodeMemory(volume)

    async def file(self, inode: Inode) -> File:
        """Return a regular file or a folder. Raises NotFoundError, DamagedError (also for
        another kind of file, which has no content), UnsupportedError."""
        file = self._files.get(inode)
        if file is None:
            record = await self._inodes.record(inode)
            attributes = decode_attributes(record, inode, self._inodes.form)
            if stat.S_IFMT(attributes.mode) not in (stat.S_IFREG, stat.S_IFDIR):
                raise DamagedError(f"inode {inode} has no content")
            body = decode_body(record, self._inodes.form)
            content = await self._content(inode, record, body)
            file = File(inode, attributes, body, record, content)
            self._files.put(inode, file)
        return file

    async def _content(self, inode: Inode, record: bytes, body: InodeBody) -> ContentMap:
        if body.flags & FLAG_SNAPFILE:
            raise UnsupportedError(f"inode {inode} is an ext4 snapshot, which is not supported")
        if body.flags & FLAG_INLINE_DATA:
            return InlineMap(record, body, await self._inodes.locate(inode))
        if body.flags & FLAG_EXTENTS:
            seed = self._volume.checksum_seed
            if seed is not None:
                seed = inode_seed(seed, inode, body.generation)
            return ExtentMap(self._volume, self._extent_nodes, inode, body.block, seed)
        return IndirectMap(self._volume, self._pointers, inode, body.block)

    async def link_target(self, inode: Inode) -> bytes:
        """Return a symbolic link's target ("ifork", section "Symbolic Links").

        The inode must be a link. Raises DamagedError, UnsupportedError for an encrypted one.
        """
        record = await self._inodes.record(inode)
        body = decode_body(record, self._inodes.form)
        if body.flags & FLAG_ENCRYPT:
            raise UnsupportedError(f"the target of link {inode} is encrypted (fscrypt)")
        size = decode_attributes(record, inode, self._inodes.form).size
        if not 0 < size <= self._volume.limits.link_bytes:
            raise DamagedError(f"link {inode} claims a target of {size} bytes")
        if size < I_BLOCK_SIZE and not body.flags & (FLAG_EXTENTS | FLAG_INLINE_DATA):
            target = body.block[:size]
        else:
            content = await self._content(inode, record, body)
            target = await self._read(content, size)
        if b"\0" in target:
            raise DamagedError(f"the target of link {inode} is damaged")
        return target

    async def xattrs(self, inode: Inode) -> dict[bytes, bytes]:
        """Return an inode's attributes as Linux shows them ("attributes"). Raises DamagedError."""
        record = await self._inodes.record(inode)
        decode_attributes(record, inode, self._inodes.form)
        body = decode_body(record, self._inodes.form)
        stored: list[tuple[Entry, bytes]] = []
        if body.body_xattrs is not None:
            entries = decode_entries(record, body.body_xattrs, body.body_xattrs)
            stored += [(entry, record) for entry in entries]
        if body.xattr_block:
            block = await self._xattr_block(body.xattr_block)
            stored += [(entry, block) for entry in decode_block(block)]
        shown: dict[bytes, bytes] = {}
        room = self._volume.limits.xattr_bytes
        for entry, raw in stored:
            name = entry.shown_name
            if name is None or name in shown:
                continue
            room -= entry.size
            if room < 0:
                raise DamagedError(f"the extended attributes of inode {inode} are too large")
            value = raw[entry.offset : entry.offset + entry.size]
            if entry.value_inode:
                value = await self._value(entry, inode, body.generation)
            value_shown = shown_value(entry, value)
            if value_shown is not None:
                shown[name] = value_shown
        return shown

    async def _xattr_block(self, number: int) -> bytes:
        block = await self._volume.block(number)
        seed = self._volume.checksum_seed
        if seed is not None and block_checksum_of(block) != xattr_block_checksum(
            seed, number, block
        ):
            raise DamagedError("a block of extended attributes has a wrong checksum")
        return block

    async def _value(self, entry: Entry, owner: Inode, owner_generation: int) -> bytes:
        """Return a value that lies in an inode of its own ("eainode")."""
        inode = entry.value_inode
        record = await self._inodes.record(inode)
        holder = decode_value_inode(record, inode)
        if holder.size != entry.size:
            raise DamagedError(f"inode {inode} does not hold the value of an attribute")
        content = await self._content(inode, record, decode_body(record, self._inodes.form))
        value = await self._read(content, entry.size)
        owned = (holder.owner, holder.generation) == (owner, owner_generation)
        if holder.checksum != crc32c(self._value_seed, value) and not owned:
            raise DamagedError(f"the attribute value in inode {inode} has a wrong checksum")
        return value

    async def _read(self, content: ContentMap, size: ByteLength) -> bytes:
        parts = []
        for extent in await content.extents(0, size):
            if extent.offset is None:
                parts.append(bytes(extent.length))
            else:
                parts.append(await self._volume.reader.read(extent.offset, extent.length))
        return b"".join(parts)
