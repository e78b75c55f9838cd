"""The structures of exFAT, from bytes to values.

Owns the boot region, time stamps, and the entries that stand for themselves. Does no I/O.
Source: sections 3 (boot region), 6.2 (entries), 7.2, 7.3, 7.5 (single entries), 7.4.8 (times).
"""

import datetime
import struct
from dataclasses import dataclass
from functools import lru_cache

from restorefs.block.base import ByteLength, ByteOffset
from restorefs.errors import DamagedError
from restorefs.guestfs.base import Nanoseconds

ENTRY_SIZE: ByteLength = 32
FIRST_CLUSTER = 2

# EntryType (6.2.1): bit 7 in use, bit 6 secondary, bit 5 benign, and a code.
END_OF_FOLDER = 0x00
IN_USE, SECONDARY, BENIGN = 0x80, 0x40, 0x20
ALLOCATION_BITMAP, UPCASE_TABLE, VOLUME_LABEL, FILE = 0x81, 0x82, 0x83, 0x85
VOLUME_GUID = 0xA0
STREAM, NAME = 0xC0, 0xC1

# VolumeFlags (3.1.13)
ACTIVE_FAT, VOLUME_DIRTY, MEDIA_FAILURE = 1, 2, 4

# FAT entries (4.1)
FAT_BAD, FAT_END = 0xFFFFFFF7, 0xFFFFFFFF

BOOT_REGION_SECTORS = 12
LARGEST_BOOT_REGIONS: ByteLength = 2 * BOOT_REGION_SECTORS << 12
_SIGNATURE = b"\xeb\x76\x90EXFAT   "  # JumpBoot, FileSystemName
_BOOT = struct.Struct("<64xQQIIIIIIHHBBBBB")
_UNCHECKED = (106, 107, 112)  # VolumeFlags and PercentInUse change without the checksum
_LARGEST_CLUSTER_BITS = 25


@dataclass(frozen=True, slots=True)
class BootSector:
    """A boot sector (3.1). Offsets, lengths and sizes are in bytes."""

    size: ByteLength
    fat_offset: ByteOffset
    fat_length: ByteLength
    heap_offset: ByteOffset
    clusters: int
    root_cluster: int
    serial: int
    revision: int
    flags: int
    sector_bits: int
    cluster_bits: int
    fats: int

    @property
    def cluster_size(self) -> ByteLength:
        return 1 << self.cluster_bits

    @property
    def end_cluster(self) -> int:
        """The number behind the last cluster's."""
        return FIRST_CLUSTER + self.clusters

    @property
    def heap_end(self) -> ByteOffset:
        return self.heap_offset + (self.clusters << self.cluster_bits)

    @property
    def active_fat_offset(self) -> ByteOffset:
        """Where the FAT to be used begins (3.1.13.1)."""
        second = self.fats == 2 and self.flags & ACTIVE_FAT
        return self.fat_offset + (self.fat_length if second else 0)

    def offset_of(self, cluster: int) -> ByteOffset:
        """Return where a cluster begins."""
        return self.heap_offset + (cluster - FIRST_CLUSTER << self.cluster_bits)


def has_signature(sector: bytes) -> bool:
    """Say whether a sector calls itself a boot sector of exFAT (3.1.1 to 3.1.3, 3.1.20)."""
    return sector[:11] == _SIGNATURE and not any(sector[11:64]) and sector[510:512] == b"\x55\xaa"


def decode_boot_sector(sector: bytes) -> BootSector:
    """Decode a boot sector of at least 512 bytes, whatever its checksum says.

    Raises DamagedError where a field has a value that it must not have (3.1.4 to 3.1.16).
    """
    if not has_signature(sector):
        raise DamagedError("the boot sector has lost its signature")
    (
        _,  # PartitionOffset
        volume_length,
        fat_offset,
        fat_length,
        heap_offset,
        clusters,
        root_cluster,
        serial,
        revision,
        flags,
        sector_bits,
        cluster_shift,
        fats,
        _,  # DriveSelect
        _,  # PercentInUse
    ) = _BOOT.unpack_from(sector)
    cluster_bits = sector_bits + cluster_shift
    if not 9 <= sector_bits <= 12 or cluster_bits > _LARGEST_CLUSTER_BITS:
        raise DamagedError("the boot sector has impossible sizes of sectors and clusters")
    heap_end = heap_offset + (clusters << cluster_shift)
    if (
        fats not in (1, 2)
        or fat_offset < 2 * BOOT_REGION_SECTORS
        or fat_length << sector_bits < (clusters + FIRST_CLUSTER) * 4
        or fat_offset + fat_length * fats > heap_offset
        or not 0 < clusters <= 0xFFFFFFF5
        or heap_end > volume_length
        or not FIRST_CLUSTER <= root_cluster < FIRST_CLUSTER + clusters
    ):
        raise DamagedError("the boot sector's parts of the volume do not fit into it")
    return BootSector(
        size=volume_length << sector_bits,
        fat_offset=fat_offset << sector_bits,
        fat_length=fat_length << sector_bits,
        heap_offset=heap_offset << sector_bits,
        clusters=clusters,
        root_cluster=root_cluster,
        serial=serial,
        revision=revision,
        flags=flags,
        sector_bits=sector_bits,
        cluster_bits=cluster_bits,
        fats=fats,
    )


def has_right_checksum(region: bytes, sector_bits: int) -> bool:
    """Say whether the last sector of a boot region of 12 is the checksum of the others (3.4)."""
    covered = (BOOT_REGION_SECTORS - 1) << sector_bits
    checked = bytearray(region[:covered])
    for offset in sorted(_UNCHECKED, reverse=True):
        del checked[offset]
    expected = checksum32(checked).to_bytes(4, "little") * (1 << sector_bits - 2)
    return region[covered : BOOT_REGION_SECTORS << sector_bits] == expected


def checksum32(data: bytes | bytearray) -> int:
    """Return the checksum of the boot region (3.4) and of the up-case table (7.2.2)."""
    checksum = 0
    for byte in data:
        checksum = ((checksum & 1) << 31) + (checksum >> 1) + byte & 0xFFFFFFFF
    return checksum


def decode_label(entry: bytes) -> str:
    """Return what a Volume Label entry says (7.3)."""
    count = min(entry[1], 11)
    text = entry[2 : 2 + 2 * count].decode("utf-16-le", "replace")
    return text.partition("\0")[0].rstrip(" ")


@dataclass(frozen=True, slots=True)
class Allocation:
    """A single entry that has clusters (7.1, 7.2). checksum: of an up-case table."""

    first_cluster: int
    length: ByteLength
    checksum: int


_ALLOCATION = struct.Struct("<4xI12xIQ")


def decode_allocation(entry: bytes) -> Allocation:
    """Decode an Up-case Table entry (7.2) or, as far as it goes, an Allocation Bitmap entry."""
    checksum, first_cluster, length = _ALLOCATION.unpack(entry)
    return Allocation(first_cluster, length, checksum)


@lru_cache(4096)
def unix_ns(stamp: int, ten_ms: int, zone: int) -> Nanoseconds | None:
    """Return the time of a Timestamp, its 10msIncrement and its UtcOffset (7.4.8 to 7.4.10).

    Local time whose offset from UTC is not recorded is taken as UTC. None for a date or time of
    day that does not exist.
    """
    second, minute, hour = (stamp & 31) * 2, stamp >> 5 & 63, stamp >> 11 & 31
    if second > 58 or minute > 59 or hour > 23 or ten_ms > 199:
        return None
    try:
        date = datetime.date(1980 + (stamp >> 25), stamp >> 21 & 15, stamp >> 16 & 31)
    except ValueError:
        return None
    seconds = (date.toordinal() - _EPOCH) * 86400 + hour * 3600 + minute * 60 + second
    if zone & 0x80:
        quarters = (zone & 0x7F) - (0x80 if zone & 0x40 else 0)
        seconds -= quarters * 900
    return seconds * 1_000_000_000 + ten_ms * 10_000_000


_EPOCH = datetime.date(1970, 1, 1).toordinal()
