"""Which boot region to believe, and what the volume says of itself.

Owns the choice between the main boot region and its backup, the entries of the root that belong
to the volume, and the volume's Identity. Must not know what is in the file system.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from restorefs.block.base import BlockDevice
from restorefs.errors import DamagedError, RestoreError, UnsupportedError
from restorefs.guestfs.base import Identity
from restorefs.guestfs.exfat import layout
from restorefs.guestfs.exfat.chain import Chains
from restorefs.guestfs.exfat.directory import Decoded, decode_sets
from restorefs.guestfs.exfat.layout import BootSector, has_right_checksum
from restorefs.guestfs.exfat.upcase import (
    LARGEST_TABLE,
    MANDATORY,
    UpcaseTable,
    decode_upcase_table,
)
from restorefs.guestfs.limits import Limits
from restorefs.guestfs.pieces import PieceReader

_ROOT_BYTES_LOOKED_AT = 64 << 10
_SECTOR_BITS = range(9, 13)


@dataclass(frozen=True, slots=True)
class FoundBoot:
    """A usable boot sector. damage: why the main one is not, where this is the backup."""

    boot: BootSector
    damage: str = ""


@dataclass(frozen=True, slots=True)
class Volume:
    """What the root's entries say of the volume. error: why the volume cannot be opened."""

    identity: Identity
    upcase: UpcaseTable
    error: RestoreError | None = None


async def find_boot(reader: PieceReader) -> FoundBoot | None:
    """Return the main boot sector or, if its region is damaged, the backup.

    Returns None for a volume that is not of this kind. The backup is believed only where the main
    boot sector still has its name, or the rest of the main region is what the backup says;
    otherwise it is what mkfs left behind for whom the volume belongs to now.
    Raises DamagedError where the volume is of this kind, and both are damaged.
    """
    region = await reader.read(0, min(reader.device.size, layout.LARGEST_BOOT_REGIONS))
    if len(region) < 512:
        return None
    signed = layout.has_signature(region)
    damage = "the main boot sector has lost its signature"
    if signed:
        try:
            boot = layout.decode_boot_sector(region)
        except DamagedError as error:
            damage = str(error)
        else:
            if has_right_checksum(region, boot.sector_bits):
                return FoundBoot(boot)
            damage = "the main boot region has a wrong checksum"
    named = region[3:11] == b"EXFAT   "
    for bits in _SECTOR_BITS:
        start = layout.BOOT_REGION_SECTORS << bits
        backup = region[start : 2 * start]
        if not layout.has_signature(backup):
            continue
        same_but_for_the_sector = region[1 << bits : start] == backup[1 << bits :]
        try:
            boot = layout.decode_boot_sector(backup)
        except DamagedError:
            continue
        if (
            boot.sector_bits == bits
            and (named or same_but_for_the_sector)
            and has_right_checksum(backup, bits)
        ):
            return FoundBoot(boot, damage)
    if signed and _is_sane(region):
        raise DamagedError(f"{damage}, and the backup of it cannot be used")
    return None


def _is_sane(sector: bytes) -> bool:
    """Say whether a signed sector also has possible sizes of sectors and clusters."""
    return 9 <= sector[108] <= 12 and sector[108] + sector[109] <= 25


async def identify(device: BlockDevice, limits: Limits) -> Identity | None:
    """Return what the volume holds if it is of this kind. Raises StorageError only."""
    reader = PieceReader(device)
    try:
        found = await find_boot(reader)
    except DamagedError as error:
        return Identity("exfat", readable=True, notes=(str(error),))
    if found is None:
        return None
    return (await examine(reader, found, Chains(reader, found.boot, limits))).identity


async def examine(reader: PieceReader, found: FoundBoot, chains: Chains) -> Volume:
    """Say what a boot sector and the root behind it say. Raises StorageError only."""
    boot = found.boot
    root = Decoded()
    error = _refusal(found)
    notes = list(_boot_notes(found, reader.device))
    if error is None:
        try:
            root = await _look_at_root(reader, boot, chains)
        except DamagedError as damage:
            error = damage
    if error is None and isinstance(root.error, UnsupportedError):
        error = root.error
    if error is not None:
        notes.append(str(error))
    label = ""
    upcase: UpcaseTable = MANDATORY
    tables = []
    for entry in root.singles:
        if entry[0] == layout.VOLUME_LABEL:
            label = label or layout.decode_label(entry)
        elif entry[0] == layout.VOLUME_GUID:
            notes.append(f"volume GUID {UUID(bytes_le=entry[6:22])}")
        elif entry[0] == layout.UPCASE_TABLE:
            tables.append(layout.decode_allocation(entry))
    if error is None:
        try:
            upcase = await _read_upcase(reader, chains, tables)
        except DamagedError as damage:
            notes.append(f"{damage}: only A to Z are found without regard to case")
    identity = Identity(
        "exfat",
        readable=True,
        label=label,
        uuid=f"{boot.serial >> 16:04X}-{boot.serial & 0xFFFF:04X}",
        size=boot.size,
        clean=None if found.damage else not boot.flags & layout.VOLUME_DIRTY,
        notes=tuple(notes),
    )
    return Volume(identity, upcase, error)


def _refusal(found: FoundBoot) -> RestoreError | None:
    major, minor = divmod(found.boot.revision, 256)
    if major != 1:
        return UnsupportedError(f"exFAT revision {major}.{minor:02} is not supported")
    if found.damage and found.boot.fats == 2:
        return DamagedError(f"{found.damage}, and which of the two FATs is in use is not known")
    return None


def _boot_notes(found: FoundBoot, device: BlockDevice) -> Iterator[str]:
    if found.damage:
        yield f"{found.damage}: its backup is used"
        yield "whether the volume is dirty is not known"
    else:
        if found.boot.flags & layout.VOLUME_DIRTY:
            yield "the volume is dirty: it was not cleanly unmounted"
        if found.boot.flags & layout.MEDIA_FAILURE:
            yield "its medium has reported failures"
    if found.boot.size > device.size:
        yield f"the file system has {found.boot.size} bytes, its volume only {device.size}"


async def _look_at_root(reader: PieceReader, boot: BootSector, chains: Chains) -> Decoded:
    """Decode the first entries of the root. Raises DamagedError where it has no cluster."""
    count = max(1, _ROOT_BYTES_LOOKED_AT >> boot.cluster_bits)
    chain = await chains.linked(boot.root_cluster, count, to_end=True)
    length = min(chain.length << boot.cluster_bits, _ROOT_BYTES_LOOKED_AT)
    parts = [
        await reader.read(extent.offset, extent.length)
        for extent in chains.extents(chain, 0, length)
        if extent.offset is not None
    ]
    return decode_sets(b"".join(parts), 0, whole=False, is_root=True)


async def _read_upcase(
    reader: PieceReader, chains: Chains, tables: list[layout.Allocation]
) -> UpcaseTable:
    if len(tables) != 1:
        raise DamagedError(
            "the volume has no up-case table" if not tables else "two up-case tables"
        )
    (table,) = tables
    if not 0 < table.length <= LARGEST_TABLE:
        raise DamagedError("the up-case table has an impossible size")
    count = -(-table.length // chains.cluster_size)
    chain = await chains.linked(table.first_cluster, count)
    parts = [
        await reader.read(extent.offset, extent.length)
        for extent in chains.extents(chain, 0, table.length)
        if extent.offset is not None
    ]
    return decode_upcase_table(b"".join(parts), table.checksum)
