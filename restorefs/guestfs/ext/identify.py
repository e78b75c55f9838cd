"""Which superblock to believe, and what it says for people.

Owns the search for a usable superblock, the primary one or a copy, and the volume's Identity.
Must not know what is in the file system.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from restorefs.block.base import BlockDevice, ByteOffset
from restorefs.errors import DamagedError, UnsupportedError
from restorefs.guestfs.base import Identity
from restorefs.guestfs.ext import features as f
from restorefs.guestfs.ext.layout import (
    CHECKSUM_CRC32C,
    LATEST_REVISION,
    STATE_CLEAN,
    STATE_ERRORS,
    SUPERBLOCK_OFFSET,
    SUPERBLOCK_SIZE,
    Superblock,
    decode_superblock,
    looks_like_superblock,
)
from restorefs.guestfs.pieces import PieceReader

# Where mke2fs puts copies, unless told otherwise: a group has as many blocks as a block has bits,
# 16 times as many with bigalloc; sparse_super and sparse_super2 have a copy in group 1 of all but
# the smallest file systems.
_BLOCK_SIZES = (4096, 1024, 2048, 8192, 16384, 32768, 65536)
_USUAL_PLACES = 3
_BIGALLOC_RATIO = 16
_LATER_GROUPS = (3, 5, 7, 9)
_GEOMETRY = struct.Struct("<IIII")


@dataclass(frozen=True, slots=True)
class FoundSuperblock:
    """A usable superblock. `group` is 0 for the primary one; `damage` says why it is not that.
    `orphaned`: nothing is left of the primary one."""

    superblock: Superblock
    group: int = 0
    damage: str = ""
    orphaned: bool = False


async def find_superblock(reader: PieceReader) -> FoundSuperblock | None:
    """Return the primary superblock or, if it is damaged, a usable copy of it.

    Returns None for a volume that is not of this kind. Without a signature, the primary
    superblock counts as damaged only if a copy has the same UUID, or if the volume's first two
    KiB are blank; otherwise a copy is what mkfs left behind for whom the volume belongs to now.
    Raises DamagedError where the primary superblock is damaged and there is no usable copy.
    """
    if reader.device.size < SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE:
        return None
    start = await reader.read(0, SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE)
    raw = start[SUPERBLOCK_OFFSET:]
    signed, blank = looks_like_superblock(raw), not any(start)
    damage = "the primary superblock has lost its signature"
    if signed:
        try:
            return FoundSuperblock(decode_superblock(raw))
        except DamagedError as error:
            damage = str(error)
    places = _own_backup_places(raw) + _BACKUP_PLACES if signed else _BACKUP_PLACES
    if not signed and not blank:
        places = places[:_USUAL_PLACES]
    other = None
    for group, offset in places:
        copy = await _read_backup(reader, group, offset)
        if copy and copy.uuid == raw[0x68:0x78]:
            return FoundSuperblock(copy, group, damage, orphaned=blank)
        if copy and not other:
            other = FoundSuperblock(copy, group, damage, orphaned=blank)
    if signed and not other:
        raise DamagedError(f"{damage}, and no usable copy was found")
    return other if signed or blank else None


def _usual_backup_places() -> Iterator[tuple[int, ByteOffset]]:
    """Yield groups and byte offsets, the most likely ones first."""
    for block_size in _BLOCK_SIZES:
        first_block = 1 if block_size == 1024 else 0
        yield 1, (first_block + block_size * 8) * block_size
    for block_size in _BLOCK_SIZES:
        yield 1, block_size * 8 * _BIGALLOC_RATIO * block_size
    for block_size in _BLOCK_SIZES:
        first_block = 1 if block_size == 1024 else 0
        for group in _LATER_GROUPS:
            yield group, (first_block + group * block_size * 8) * block_size


_BACKUP_PLACES = tuple(_usual_backup_places())


def _own_backup_places(damaged: bytes) -> tuple[tuple[int, ByteOffset], ...]:
    """Return where a damaged superblock's own s_first_data_block, s_log_block_size and
    s_blocks_per_group lead to."""
    first_block, log_block_size, _, blocks_per_group = _GEOMETRY.unpack_from(damaged, 0x14)
    return tuple(
        (group, (first_block + group * blocks_per_group) << 10 + log_block_size)
        for group in (1, *_LATER_GROUPS)
    )


async def _read_backup(reader: PieceReader, group: int, offset: ByteOffset) -> Superblock | None:
    if offset + SUPERBLOCK_SIZE > reader.device.size:
        return None
    raw = await reader.read(offset, SUPERBLOCK_SIZE)
    try:
        superblock = decode_superblock(raw)
    except DamagedError:
        return None
    in_place = superblock.first_block(group) << superblock.block_bits == offset
    return superblock if in_place and superblock.group_number == group else None


async def identify(device: BlockDevice) -> Identity | None:
    """Return what the volume holds if it is of this kind ("ext2", "ext3", "ext4", "jbd").

    Raises StorageError only: a damaged superblock without a copy is described, not raised.
    """
    reader = PieceReader(device)
    try:
        found = await find_superblock(reader)
    except DamagedError as error:
        raw = await reader.read(SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE)
        compat, incompat, ro_compat = (
            int.from_bytes(raw[offset : offset + 4], "little") for offset in (0x5C, 0x60, 0x64)
        )
        kind = f.kind_of(compat, incompat, ro_compat)
        return Identity(kind=kind, readable=True, notes=(str(error),))
    return describe(found, device) if found else None


def describe(found: FoundSuperblock, device: BlockDevice) -> Identity:
    """Say for people what a superblock says."""
    superblock = found.superblock
    is_journal = superblock.kind == "jbd"
    recovery = bool(superblock.incompat & f.INCOMPAT_RECOVER)
    clean: bool | None = superblock.state & STATE_CLEAN != 0 and not (
        recovery or superblock.state & STATE_ERRORS
    )
    if is_journal or found.group:
        clean = None  # neither is kept up to date
    return Identity(
        kind=superblock.kind,
        readable=not is_journal,
        holds_files=not is_journal,
        label=superblock.label.decode(errors="replace"),
        uuid=str(UUID(bytes=superblock.uuid)) if any(superblock.uuid) else "",
        size=superblock.size,
        clean=clean,
        from_copy=found.orphaned,
        notes=tuple(_notes(found, device)),
    )


def _notes(found: FoundSuperblock, device: BlockDevice) -> Iterator[str]:
    superblock = found.superblock
    if found.damage:
        yield f"{found.damage}: the copy in block group {found.group} is used"
    if superblock.kind == "jbd":
        yield "a journal on a device of its own, not a file system"
        return
    if found.group:
        yield "whether the journal needs recovery is not known"
    else:
        yield from _state_notes(superblock)
    if superblock.size > device.size:
        yield f"the file system has {superblock.size} bytes, its volume only {device.size}"
    unknown = f.names_of(superblock.ro_compat & ~sum(f.RO_COMPAT_NAMES), f.RO_COMPAT_NAMES)
    if unknown:
        yield f"unknown read-only features: {', '.join(unknown)}"
    try:
        require_readable(superblock)
    except UnsupportedError as error:
        yield str(error)


def _state_notes(superblock: Superblock) -> Iterator[str]:
    if superblock.incompat & f.INCOMPAT_RECOVER:
        yield "journal needs recovery"
    if not superblock.state & STATE_CLEAN:
        yield "not cleanly unmounted"
    if superblock.state & STATE_ERRORS:
        yield "Linux found errors in it"
    if superblock.last_orphan or superblock.ro_compat & f.RO_COMPAT_ORPHAN_PRESENT:
        yield "deleted files may still take space (orphan inodes)"


def require_readable(superblock: Superblock) -> None:
    """Raise UnsupportedError naming every incompatible feature that restorefs does not read."""
    unsupported = f.names_of(superblock.incompat & ~f.READABLE_INCOMPAT, f.INCOMPAT_NAMES)
    if superblock.revision > LATEST_REVISION:
        unsupported.append(f"revision {superblock.revision}")
    if superblock.has_metadata_checksums and superblock.checksum_type != CHECKSUM_CRC32C:
        unsupported.append(f"metadata checksums of type {superblock.checksum_type}")
    if unsupported:
        raise UnsupportedError(f"unsupported {superblock.kind} features: {', '.join(unsupported)}")
