"""What a FAT volume is, told by its boot sector, its table's first entries and its label.

Owns the Identity. Nothing is kept. Source: spec, "Boot Sector and BPB", "FAT Data Structure" for
the bits of entry 1, "Directory Structure" for the label.
"""

from restorefs.errors import DamagedError, UnsupportedError
from restorefs.guestfs.base import Identity
from restorefs.guestfs.fat.directory import find_label
from restorefs.guestfs.fat.files import ROOT_CLUSTER, FileTable
from restorefs.guestfs.fat.layout import (
    BOOT_SECTOR_SIZE,
    NO_LABEL,
    Geometry,
    decode_boot_sector,
)
from restorefs.guestfs.pieces import PieceReader

_LABEL_WINDOW = 64 << 10


async def read_geometry(reader: PieceReader) -> Geometry | None:
    """Read the boot sector; None where it is no FAT's. Raises StorageError."""
    if reader.device.size < BOOT_SECTOR_SIZE:
        return None
    # Not through the reader: a piece would have some of the first FAT too, which may be unreadable.
    return decode_boot_sector(await reader.device.read(0, BOOT_SECTOR_SIZE))


def require_readable(geometry: Geometry) -> None:
    """Raise UnsupportedError, DamagedError for what must not be read."""
    if geometry.version:
        major, minor = divmod(geometry.version, 256)
        raise UnsupportedError(f"FAT32 version {major}.{minor} is not supported")
    if geometry.too_many_clusters:
        raise DamagedError(
            f"the volume has {geometry.clusters} clusters, too many for FAT{geometry.bits}"
        )


async def describe(files: FileTable, codepage: str) -> Identity:
    """Say what a volume is. What is damaged says nothing. Raises StorageError."""
    geometry = files.geometry
    clean, notes = not geometry.dirty, [f"FAT{geometry.bits}"]
    if geometry.bits != 12:
        flags = await _flags(files)
        highest = 1 << min(geometry.bits, 28) - 1
        clean = clean and bool(flags & highest)
        if not flags & highest >> 1:
            notes.append("whoever used it met bad sectors")
    if not clean:
        notes.append("not cleanly unmounted")
    serial = geometry.serial
    return Identity(
        "vfat",
        readable=True,
        label=(await _label(files)).decode(codepage, "replace"),
        uuid=f"{serial >> 16:04X}-{serial & 0xFFFF:04X}" if serial else "",
        size=geometry.size,
        clean=clean,
        notes=tuple(notes),
    )


async def _flags(files: FileTable) -> int:
    try:
        return await files.table.flags()
    except DamagedError:
        return 0


async def _label(files: FileTable) -> bytes:
    """Return the root's label, else the boot sector's; people change the former only."""
    try:
        root = await files.folder_at(ROOT_CLUSTER)
        label = find_label(await root.read(0, _LABEL_WINDOW))
    except DamagedError:
        label = None
    if label is None or label == NO_LABEL:
        label = files.geometry.label
    if label[:1] == b"\x05":  # as in short names
        label = b"\xe5" + label[1:]
    return label.partition(b"\0")[0].rstrip(b" ")
