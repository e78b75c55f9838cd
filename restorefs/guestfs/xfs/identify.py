"""Which superblock to believe, and what it says for people.

Owns the search for a usable superblock, the primary one or a group's copy, and the volume's
Identity. Must not know what is in the file system.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from uuid import UUID

from restorefs.block.base import BlockDevice, ByteLength, ByteOffset
from restorefs.errors import DamagedError, UnsupportedError
from restorefs.guestfs.base import Identity
from restorefs.guestfs.pieces import PieceReader
from restorefs.guestfs.xfs import features as f
from restorefs.guestfs.xfs.journal import is_clean, is_external_clean
from restorefs.guestfs.xfs.layout import (
    LARGEST_SUPERBLOCK,
    MAGIC,
    SMALLEST_SUPERBLOCK,
    UUID_PLACE,
    Superblock,
    decode_superblock,
    glance,
    has_free_space_header,
)

KIND = "xfs"

_LATER_GROUPS = (1, 2, 3)
_USUAL_BLOCK_SIZE = 4096
_USUAL_GROUPS = 4
_SUPPORTED_VERSIONS = (4, 5)
_DIRTY = "journal needs recovery"


@dataclass(frozen=True, slots=True)
class FoundSuperblock:
    """A usable superblock. `group` is 0 for the primary one; `damage` says why it is not that."""

    superblock: Superblock
    group: int = 0
    damage: str = ""


async def find_superblock(reader: PieceReader) -> FoundSuperblock | None:
    """Return the primary superblock or, if it is damaged, a usable copy of it.

    Returns None for a volume that is not of this kind. Without a signature, the primary superblock
    counts as damaged only if the rest of its group's header is there, and if its sector is blank
    or has the UUID of a copy: otherwise a copy is what mkfs left behind for whom the volume belongs
    to now. Raises DamagedError where the primary superblock is damaged and no usable copy was
    found.
    """
    size = reader.device.size
    if size < SMALLEST_SUPERBLOCK:
        return None
    start = await _read(reader, 0)
    signed = start[:4] == MAGIC
    damage = "the primary superblock has lost its signature"
    if signed:
        try:
            return FoundSuperblock(decode_superblock(start))
        except DamagedError as error:
            damage = str(error)
    elif not has_free_space_header(start):
        return None
    blank = not any(start[:SMALLEST_SUPERBLOCK])
    for group, offset in _copies(start, size):
        copy = await _read_copy(reader, group, offset)
        if copy is not None and (signed or blank or copy.uuid == start[UUID_PLACE]):
            return FoundSuperblock(copy, group, damage)
    if signed:
        raise DamagedError(f"{damage}, and no usable copy was found")
    return None


async def _read(reader: PieceReader, offset: ByteOffset) -> bytes:
    return await reader.read(offset, min(LARGEST_SUPERBLOCK, reader.device.size - offset))


def _copies(damaged: bytes, size: ByteLength) -> Iterator[tuple[int, ByteOffset]]:
    """Yield where copies may be: each group begins with one. First, where the damaged superblock
    says that groups are; then, where mkfs.xfs puts them unless told otherwise."""
    block_size = int.from_bytes(damaged[4:8], "big")
    ag_blocks = int.from_bytes(damaged[84:88], "big")
    lengths = [block_size * ag_blocks]
    usual = -(-(size // _USUAL_BLOCK_SIZE) // _USUAL_GROUPS) * _USUAL_BLOCK_SIZE
    lengths += [usual, usual - _USUAL_BLOCK_SIZE]
    for length in lengths:
        for group in _LATER_GROUPS:
            if 0 < group * length <= size - SMALLEST_SUPERBLOCK:
                yield group, group * length


async def _read_copy(reader: PieceReader, group: int, offset: ByteOffset) -> Superblock | None:
    raw = await _read(reader, offset)
    try:
        # mkfs.xfs leaves the mark of its being under way (at 126) in copies of version 4.
        superblock = decode_superblock(raw, is_copy=True)
    except DamagedError:
        return None
    in_place = group < superblock.ag_count and superblock.ag_offset(group) == offset
    return superblock if in_place else None


async def identify(device: BlockDevice) -> Identity | None:
    """Return what the volume holds if it is XFS.

    Raises StorageError only: a damaged superblock without a copy is described, not raised.
    """
    reader = PieceReader(device)
    try:
        found = await find_superblock(reader)
    except DamagedError as error:
        return _describe_damaged(await _read(reader, 0), str(error))
    return await describe(found, reader) if found else None


def _describe_damaged(raw: bytes, damage: str) -> Identity | None:
    """Say what a damaged superblock says; None where not even its size of a block is one."""
    superblock = glance(raw)
    if superblock is None:
        return None
    return Identity(
        kind=KIND,
        readable=True,
        label=superblock.label.decode(errors="replace"),
        uuid=_uuid(superblock.uuid),
        size=superblock.size,
        notes=(damage,),
    )


def _uuid(raw: bytes) -> str:
    return str(UUID(bytes=raw)) if any(raw) else ""


async def describe(found: FoundSuperblock, reader: PieceReader) -> Identity:
    """Say for people what a superblock, and the log, say."""
    superblock = found.superblock
    notes = list(_notes(found, reader.device))
    clean: bool | None = None
    if not superblock.log_start:
        notes.append("the journal is on another device")
    else:
        try:
            clean = await is_clean(reader, superblock)
        except DamagedError as error:
            notes.append(str(error))
    identity = Identity(
        kind=KIND,
        readable=True,
        label=superblock.label.decode(errors="replace"),
        uuid=_uuid(superblock.uuid),
        size=superblock.size,
        log_uuid="" if superblock.log_start else _uuid(superblock.uuid),
        notes=tuple(notes),
    )
    return _with_log(identity, superblock, clean)


async def describe_log(identity: Identity, superblock: Superblock, log: BlockDevice) -> Identity:
    """Add what the log on another device says. Raises DamagedError, StorageError."""
    return _with_log(identity, superblock, await is_external_clean(log, superblock))


def _with_log(identity: Identity, superblock: Superblock, clean: bool | None) -> Identity:
    notes = identity.notes
    if clean is False and _DIRTY not in notes:
        notes = (*notes, _DIRTY)
    if superblock.incompat & f.INCOMPAT_NEEDS_REPAIR:
        clean = False
    return replace(identity, clean=clean, notes=notes)


def _notes(found: FoundSuperblock, device: BlockDevice) -> Iterator[str]:
    superblock = found.superblock
    if found.damage:
        yield f"{found.damage}: the copy in group {found.group} is used"
    if superblock.incompat & f.INCOMPAT_NEEDS_REPAIR:
        yield "marked as in need of xfs_repair"
    if superblock.size > device.size:
        yield f"the file system has {superblock.size} bytes, its volume only {device.size}"
    unknown = f.names_of(superblock.ro_compat & ~sum(f.RO_COMPAT_NAMES), f.RO_COMPAT_NAMES)
    if unknown:
        yield f"unknown read-only features: {', '.join(unknown)}"
    try:
        require_readable(superblock)
    except UnsupportedError as error:
        yield str(error)


def require_readable(superblock: Superblock) -> None:
    """Raise UnsupportedError naming every incompatible feature that restorefs does not read."""
    unsupported = f.names_of(superblock.incompat & ~f.READABLE_INCOMPAT, f.INCOMPAT_NAMES)
    if superblock.version not in _SUPPORTED_VERSIONS:
        unsupported.append(f"version {superblock.version}")
    if not superblock.version_bits & f.VERSION_DIR_V2:
        unsupported.append("folders of version 1")
    features2 = superblock.features2 & ~f.READABLE_FEATURES2
    unsupported += [f"features2 {name}" for name in f.names_of(features2, {})]
    if unsupported:
        raise UnsupportedError(f"unsupported XFS features: {', '.join(unsupported)}")
