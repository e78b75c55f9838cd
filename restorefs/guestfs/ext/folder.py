"""One folder: its blocks, its parent, and how its names are shown.

Owns the way from a folder's inode to verified runs of records. Must not know what the entries
are. Sources: "directory", "inlinedata"; which hash Linux shows as part of an encrypted name was
compared with Linux itself.

Concurrency: any number of calls may be in flight.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from restorefs.errors import DamagedError
from restorefs.guestfs.base import Inode
from restorefs.guestfs.ext import features as f
from restorefs.guestfs.ext.blockmap import Volume
from restorefs.guestfs.ext.checksum import inode_seed
from restorefs.guestfs.ext.crypto_names import encode_no_key_name
from restorefs.guestfs.ext.directory import (
    IndexRoot,
    Position,
    Record,
    decode_index_root,
    decode_parent,
    stored_hashes,
    verify_block,
)
from restorefs.guestfs.ext.dirhash import LEGACY_UNSIGNED, folder_hash
from restorefs.guestfs.ext.files import File
from restorefs.guestfs.ext.inline import PARENT_SIZE, inline_regions
from restorefs.guestfs.ext.inode_record import FLAG_CASEFOLD, FLAG_INDEX
from restorefs.guestfs.ext.layout import ROOT_INODE, Superblock

NameForm: TypeAlias = Callable[[bytes, list[Record]], list[bytes]]
"""Returns the shown names of records, given the region that they are in."""


class Folder:
    """One folder's content, in regions."""

    def __init__(self, volume: Volume, superblock: Superblock, file: File) -> None:
        """Raises DamagedError where the folder's size cannot be."""
        self.file = file
        self._volume = volume
        self._superblock = superblock
        self._inline = inline_regions(file.record, file.body) if file.inline else None
        self._seed: int | None = None
        size = file.attributes.size
        if self._inline is not None:
            self.end: Position = self._inline[-1][0] + len(self._inline[-1][1])
            return
        self.end = size
        limit = min(volume.limits.folder_bytes, superblock.size)
        if not 0 < size <= limit or size % volume.block_size:
            raise DamagedError(f"folder {file.inode} claims {size} bytes")
        if volume.checksum_seed is not None:
            self._seed = inode_seed(volume.checksum_seed, file.inode, file.body.generation)

    @property
    def ignores_case(self) -> bool:
        has_feature = self._superblock.incompat & f.INCOMPAT_CASEFOLD
        return bool(has_feature and self.file.body.flags & FLAG_CASEFOLD)

    @property
    def indexed(self) -> bool:
        """The folder has a hash tree."""
        return bool(self.file.body.flags & FLAG_INDEX) and self._inline is None

    @property
    def checked(self) -> bool:
        """The folder's blocks have checksums."""
        return self._seed is not None

    @property
    def has_file_types(self) -> bool:
        return bool(self._superblock.incompat & f.INCOMPAT_FILETYPE)

    @property
    def encoding(self) -> int:
        return self._superblock.encoding

    async def regions(
        self, position: Position, length: int
    ) -> tuple[list[tuple[Position, bytes]], Position]:
        """Return the regions from the one at `position` on, some `length` bytes of them, and
        the position behind them. They are not verified; a hole is an empty region."""
        if self._inline is not None:
            return [
                (start, region) for start, region in self._inline if start + len(region) > position
            ], self.end
        size = self._volume.block_size
        start = position - position % size
        end = min(self.end, start + max(length, size))
        regions: list[tuple[Position, bytes]] = []
        for extent in await self.file.content.extents(start, end - start):
            data = b""
            if extent.offset is not None:
                data = await self._volume.reader.read(extent.offset, extent.length)
            regions += [
                (start + offset, data[offset : offset + size])
                for offset in range(0, extent.length, size)
            ]
            start += extent.length
        return regions, end

    def verify(self, position: Position, region: bytes) -> None:
        """Raise DamagedError for a hole or a block with a wrong checksum."""
        if not region:
            raise DamagedError(f"folder {self.file.inode} has a hole at byte {position}")
        if self._seed is not None:
            verify_block(region, self._seed, first=position == 0, indexed=self.indexed)

    async def block(self, number: int) -> bytes:
        """Return a block, verified. Raises DamagedError."""
        position = number * self._volume.block_size
        if position >= self.end:
            raise DamagedError(f"folder {self.file.inode} has no block {number}")
        ((_, region),), _ = await self.regions(position, 1)
        self.verify(position, region)
        return region

    async def parent(self) -> Inode:
        """Return the folder that this one is in. Raises DamagedError."""
        if self.file.inode == ROOT_INODE:
            return ROOT_INODE
        if self._inline is not None:
            return int.from_bytes(self.file.body.block[:PARENT_SIZE], "little")
        parent = decode_parent(await self.block(0))
        if not parent:
            raise DamagedError(f'folder {self.file.inode} has no ".."')
        return parent

    async def name_form(self) -> NameForm:
        """Return how the folder's names are shown. Raises DamagedError, UnsupportedError."""
        if not self.file.encrypted:
            return plain_names
        if self.ignores_case:
            return lambda region, records: [
                encode_no_key_name(record[1], stored_hashes(region, record)) for record in records
            ]
        hash_name = await self._hash_shown()
        return lambda region, records: [
            encode_no_key_name(name, hash_name(name)) for _, name, *_ in records
        ]

    async def _hash_shown(self) -> Callable[[bytes], tuple[int, int]]:
        """Return the hash of a name that Linux computes when it lists this folder: none where it
        reads the folder without an index."""
        one_block = self._inline is not None or self.end == self._volume.block_size
        if self._superblock.compat & f.COMPAT_DIR_INDEX:
            if self.indexed:
                return self.hasher((await self.index_root()).version)
            if one_block:
                return self.hasher(self._superblock.hash_version)
        return lambda name: (0, 0)

    async def index_root(self) -> IndexRoot:
        """Raises DamagedError."""
        return decode_index_root(await self.block(0))

    def hasher(self, version: int) -> Callable[[bytes], tuple[int, int]]:
        """Return the function that a stored hash version means: whether its characters have
        signs depends on the machine that made the file system ("super", s_flags)."""
        if version < LEGACY_UNSIGNED and self._superblock.unsigned_hash:
            version += LEGACY_UNSIGNED
        return partial(folder_hash, version=version, seed=self._superblock.hash_seed)


def plain_names(region: bytes, records: list[Record]) -> list[bytes]:
    """Return names as they are stored. Raises DamagedError for one that cannot be a name."""
    names = [record[1] for record in records]
    together = b"".join(names)
    if b"/" in together or b"\0" in together or not all(names):
        raise DamagedError("a folder has an entry with an impossible name")
    return names
