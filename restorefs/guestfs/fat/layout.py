"""The boot sector of FAT12, FAT16 and FAT32: bytes to values.

Owns what lies where on the volume. Must not do I/O. Source: spec, "Boot Sector and BPB", "FAT Type
Determination", "FAT Data Structure".
"""

import struct
from dataclasses import dataclass

from restorefs.block.base import ByteLength, ByteOffset

BOOT_SECTOR_SIZE = 512
ENTRY_SIZE = 32
FIRST_CLUSTER = 2

NO_LABEL = b"NO NAME    "

_BOOT_SIGNATURE = b"\x55\xaa"
_MOST_CLUSTERS = {12: 4084, 16: 65_524, 32: 0x0FFFFFF5}
_STATE_DIRTY = 0x01
_MIRRORING_OFF = 0x80


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where things lie, in bytes, and what the boot sector says of the volume.

    bits: 12, 16 or 32, the width of a FAT's entry. fats: how many copies, each `fat_size` bytes.
    active_fat: the only copy that is kept up to date, None where all are. clusters: how many; the
    first has number 2. root_cluster: of FAT32 only, where the root lies in `root_size` bytes
    otherwise. version: of FAT32, 0 is the only known one. label: as stored, b"" for none.
    serial: None where there is none. dirty: whoever wrote last did not finish.
    """

    bits: int
    cluster_size: ByteLength
    clusters: int
    fats: int
    fat_start: ByteOffset
    fat_size: ByteLength
    active_fat: int | None
    root_start: ByteOffset
    root_size: ByteLength
    root_cluster: int
    data_start: ByteOffset
    size: ByteLength
    version: int
    label: bytes
    serial: int | None
    dirty: bool

    @property
    def end_cluster(self) -> int:
        """The number behind the last cluster's."""
        return FIRST_CLUSTER + self.clusters

    @property
    def too_many_clusters(self) -> bool:
        return self.clusters > _MOST_CLUSTERS[self.bits]

    def cluster_start(self, cluster: int) -> ByteOffset:
        return self.data_start + (cluster - FIRST_CLUSTER) * self.cluster_size


def decode_boot_sector(sector: bytes) -> Geometry | None:
    """Decode the first 512 bytes of a volume; None where they are no FAT's.

    Every rule of spec for the BPB must hold, and the FATs must have room for as many clusters as
    the volume has; neither is so by chance in a partition table's boot code.
    """
    if len(sector) < BOOT_SECTOR_SIZE:
        return None
    # 11 u16 bytes per sector, 13 u8 sectors per cluster, 14 u16 reserved sectors, 16 u8 FATs,
    # 17 u16 root entries, 19 u16 sectors, 21 u8 media, 22 u16 sectors per FAT; 32 u32 sectors
    sector_size, cluster, reserved, fats, root_entries, sectors16, media, fat_sectors16 = (
        struct.unpack_from("<HBHBHHBH", sector, 11)
    )
    # FAT32: 36 u32 sectors per FAT, 40 u16 flags, 42 u16 version, 44 u32 root's cluster
    sectors32, fat_sectors32, flags, version, root_cluster = struct.unpack_from(
        "<IIHHI", sector, 32
    )
    sectors = sectors16 or sectors32
    fat_sectors = fat_sectors16 or fat_sectors32
    if (
        not (sector[0] == 0xE9 or (sector[0] == 0xEB and sector[2] == 0x90))
        or sector[510:512] != _BOOT_SIGNATURE
        or sector_size not in (512, 1024, 2048, 4096)
        or cluster not in (1, 2, 4, 8, 16, 32, 64, 128)
        or not reserved
        or not fats
        or not fat_sectors
        or not (media == 0xF0 or media >= 0xF8)
        or bool(root_entries) != bool(fat_sectors16)
    ):
        return None
    wide = fat_sectors16 == 0
    active_fat = flags & 0x0F if wide and flags & _MIRRORING_OFF else None
    if active_fat is not None and active_fat >= fats:
        return None
    root_sectors = -(-root_entries * ENTRY_SIZE // sector_size)
    root_start = reserved + fats * fat_sectors
    clusters = (sectors - root_start - root_sectors) // cluster
    bits = 32 if wide else 12 if clusters <= _MOST_CLUSTERS[12] else 16
    if clusters <= 0 or fat_sectors * sector_size * 8 < (clusters + FIRST_CLUSTER) * bits:
        return None
    # Behind the BPB: +1 u8 state, +2 u8 what follows (0x29 all, 0x28 the serial), serial, label.
    extended = 64 if wide else 36
    state, signature, serial, label = struct.unpack_from("<xBBI11s", sector, extended)
    return Geometry(
        bits=bits,
        cluster_size=cluster * sector_size,
        clusters=clusters,
        fats=fats,
        fat_start=reserved * sector_size,
        fat_size=fat_sectors * sector_size,
        active_fat=active_fat,
        root_start=root_start * sector_size,
        root_size=root_entries * ENTRY_SIZE,
        root_cluster=root_cluster & 0x0FFFFFFF if wide else 0,
        data_start=(root_start + root_sectors) * sector_size,
        size=sectors * sector_size,
        version=version if wide else 0,
        label=label if signature == 0x29 and label != NO_LABEL else b"",
        serial=serial if signature in (0x28, 0x29) else None,
        dirty=bool(state & _STATE_DIRTY),
    )
