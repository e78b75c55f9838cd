"""The MBR partition table, with extended partitions.

Owns telling such a table from a boot sector that only looks like one, and the chain of extended
boot records. Must not know what the partitions hold, except for the few signatures that tell
which sector size a table counts in: it does not say so itself. Any number of tables may be read
at once; nothing is kept.

Format: UEFI specification 2.10 section 5.2 (the record and its four slots); "Extended boot
record" in Microsoft's documentation of basic disks; Linux' partition numbering (admin-guide):
slots are 1 to 4, logical partitions 5 and up in the order of the chain. Offsets:

    440  u32  disk signature            446  4 slots of 16 bytes         510  55 AA
    slot: +0 u8 0x00 or 0x80 (active)   +4 u8 type   +8 u32 first sector   +12 u32 sectors
"""

import struct
from typing import NamedTuple

from restorefs.block.base import BlockDevice, ByteOffset
from restorefs.errors import DamagedError
from restorefs.volumes.base import Volume, VolumeScheme, VolumeTable
from restorefs.volumes.partition import make_partition, overlap_notes
from restorefs.volumes.partition_types import (
    MBR_DYNAMIC_DISK,
    MBR_EXTENDED,
    MBR_PROTECTIVE,
    MBR_TYPES,
    UNKNOWN,
)

RECORD_SIZE = 512
_SIGNATURE = b"\x55\xaa"
_SLOTS_OFFSET = 446
_SLOT = struct.Struct("<B3xB3xII")
_BPB = struct.Struct("<HBHB4xB")
"""From byte 11: bytes per sector, sectors per cluster, reserved sectors, FATs, ..., media."""

# Far above what anybody makes; Linux itself stops at 256 partitions a disk.
_MAX_RECORDS = 256

# What a partition's first bytes may show, to tell the sector size: (offset, bytes).
_KNOWN_STARTS = (
    (510, _SIGNATURE),  # FAT, NTFS, exFAT, an extended boot record
    (1080, b"\x53\xef"),  # ext2, ext3, ext4
    (0, b"XFSB"),
    (0, b"LUKS\xba\xbe"),
    (512, b"LABELONE"),  # LVM2
    (4086, b"SWAPSPACE2"),
    (65600, b"_BHRfS_M"),  # Btrfs
)
_KNOWN_START_LENGTH = 65608


class Slot(NamedTuple):
    """A used slot of a table: number from 1; first sector and how many, as stored."""

    number: int
    type: int
    first: int
    sectors: int


class Record(NamedTuple):
    """A master boot record: the disk's signature and its used slots."""

    disk_signature: int
    slots: list[Slot]

    @property
    def protective(self) -> bool:
        """The record only keeps others off a GPT disk."""
        return any(slot.type == MBR_PROTECTIVE for slot in self.slots)


def used_slots(sector: bytes) -> list[Slot]:
    """Decode the used slots of a 512-byte MBR or EBR; one without sectors is not in use."""
    slots = (
        Slot(number, *_SLOT.unpack_from(sector, _SLOTS_OFFSET + 16 * (number - 1))[1:])
        for number in range(1, 5)
    )
    return [slot for slot in slots if slot.sectors]


def starts_like_boot_sector(sector: bytes) -> bool:
    """Tell whether a sector has the header of a FAT, NTFS, exFAT or BitLocker boot sector.

    Source: Microsoft, "FAT: General Overview of On-Disk Format" 1.03, boot sector and BPB.
    """
    if sector[3:11] in (b"NTFS    ", b"EXFAT   ", b"-FVE-FS-"):
        return True
    sector_size, cluster, reserved, fats, media = _BPB.unpack_from(sector, 11)
    return (
        (sector[0] == 0xE9 or (sector[0] == 0xEB and sector[2] == 0x90))
        and sector_size in (512, 1024, 2048, 4096)
        and cluster.bit_count() == 1
        and reserved != 0
        and fats != 0
        and (media == 0xF0 or media >= 0xF8)
    )


def decode_record(sector: bytes, disk_size: ByteOffset) -> Record | None:
    """Decode a disk's first 512 bytes, or return None where they are no partition table.

    Boot sectors of file systems end in 55 AA too. What tells them apart is the four slots: every
    first byte is 0x00 or 0x80 in a table, and is boot code or text elsewhere. A table without
    partitions is none. Where a boot sector's header is there as well (a disk that was a floppy
    once, and partitioned later), the slots must hold up to a closer look.
    """
    if len(sector) < RECORD_SIZE or sector[510:512] != _SIGNATURE:
        return None
    if any(sector[_SLOTS_OFFSET + 16 * number] not in (0x00, 0x80) for number in range(4)):
        return None
    slots = used_slots(sector)
    if all(slot.type == 0 for slot in slots):
        return None
    if starts_like_boot_sector(sector) and not _are_sound(slots, disk_size):
        return None
    return Record(int.from_bytes(sector[440:444], "little"), slots)


def _are_sound(slots: list[Slot], disk_size: ByteOffset) -> bool:
    """Tell whether slots have types, lie behind the table, on the disk, and share no sector.

    Or cover a GPT disk: the size of that slot is often a maximum, not the disk's.
    """
    if any(slot.type == MBR_PROTECTIVE and slot.first == 1 for slot in slots):
        return True
    end = 1
    for slot in sorted(slots, key=lambda slot: slot.first):
        if slot.type == 0 or slot.first < end:
            return False
        end = slot.first + slot.sectors
    return end * 512 <= disk_size


class Mbr(VolumeScheme):
    """An MBR disk. A GPT disk has an MBR too: ask for GPT first."""

    kind = "mbr"

    @classmethod
    async def read_table(cls, device: BlockDevice) -> VolumeTable | None:
        """Return primary, extended and logical partitions; None for anything but an MBR disk.

        Never raises DamagedError: what is wrong with a chain of logical partitions is a note.
        """
        if device.size < RECORD_SIZE:
            return None
        record = decode_record(await device.read(0, RECORD_SIZE), device.size)
        if record is None or record.protective or await _is_dynamic_disk(device, record):
            return None
        sector_size = await _find_sector_size(device, record.slots)
        volumes = [_partition(device, record, slot, 0, sector_size) for slot in record.slots]
        notes: list[str] = []
        for slot in record.slots:
            if slot.type in MBR_EXTENDED:
                logical = await _read_chain(device, slot.first, sector_size, notes)
                number = max(4, volumes[-1].index)
                volumes += [
                    _partition(device, record, found._replace(number=index), base, sector_size)
                    for index, (base, found) in enumerate(logical, number + 1)
                ]
        notes += overlap_notes([volume for volume in volumes if not _is_extended(volume)])
        signature = record.disk_signature
        return VolumeTable(
            scheme=cls.kind,
            volumes=volumes,
            sector_size=sector_size,
            uuid=f"{signature:08x}" if signature else "",
            notes=notes,
        )


def _partition(
    device: BlockDevice, record: Record, slot: Slot, base: int, sector_size: int
) -> Volume:
    """Return the volume of a slot whose first sector counts from sector `base`."""
    # As Linux makes them up: the disk's signature and the partition's number, in hexadecimal.
    uuid = f"{record.disk_signature:08x}-{slot.number:02x}" if record.disk_signature else ""
    return make_partition(
        device,
        slot.number,
        (base + slot.first) * sector_size,
        slot.sectors * sector_size,
        MBR_TYPES.get(slot.type, UNKNOWN),
        type_code=f"0x{slot.type:02x}",
        uuid=uuid,
    )


def _is_extended(volume: Volume) -> bool:
    return int(volume.type_code, 16) in MBR_EXTENDED


async def _read_chain(
    device: BlockDevice, extended: int, sector_size: int, notes: list[str]
) -> list[tuple[int, Slot]]:
    """Follow a chain of extended boot records from sector `extended`.

    Returns the logical partitions in order, each with the sector that its first sector counts
    from: its own record. Links count from the start of the extended partition. What ends the
    chain early is added to `notes`. Only the first two slots are in use; the others of an EBR
    may hold anything.
    """
    found: list[tuple[int, Slot]] = []
    seen: set[int] = set()
    position = extended
    while True:
        if position in seen or len(seen) == _MAX_RECORDS:
            why = "runs in a circle" if position in seen else f"has over {_MAX_RECORDS} records"
            notes.append(f"the chain of logical partitions {why}: the rest of it is not shown")
            return found
        seen.add(position)
        try:
            sector = await device.read(position * sector_size, RECORD_SIZE)
        except DamagedError:
            sector = b""
        if sector[510:512] != _SIGNATURE:
            notes.append(
                f"no boot record of a logical partition at sector {position}:"
                " the chain ends there, and what came after it is not shown"
            )
            return found
        link = None
        for slot in used_slots(sector):
            if slot.number > 2:
                continue
            if slot.type in MBR_EXTENDED:
                link = link or slot
            else:
                found.append((position, slot))
        if link is None:
            return found
        position = extended + link.first


async def _find_sector_size(device: BlockDevice, slots: list[Slot]) -> int:
    """Tell whether a table counts in sectors of 512 or of 4096 bytes.

    512, unless every partition fits on the disk counted in 4096 too, and more of them then start
    with something known.
    """
    if any((slot.first + slot.sectors) * 4096 > device.size for slot in slots):
        return 512
    known = {
        size: sum([await _is_known_start(device, slot.first * size) for slot in slots])
        for size in (512, 4096)
    }
    return 4096 if known[4096] > known[512] else 512


async def _is_known_start(device: BlockDevice, offset: ByteOffset) -> bool:
    head = await device.read(offset, min(_KNOWN_START_LENGTH, device.size - offset))
    return any(head.startswith(magic, at) for at, magic in _KNOWN_STARTS)


async def _is_dynamic_disk(device: BlockDevice, record: Record) -> bool:
    """Tell whether the disk belongs to the Logical Disk Manager, whose table is another.

    Its MBR only covers the disk, as a GPT's does. Source: Linux-NTFS project, LDM documentation:
    type 0x42, and the first private header in sector 6.
    """
    return (
        any(slot.type == MBR_DYNAMIC_DISK for slot in record.slots)
        and device.size >= 7 * 512
        and await device.read(6 * 512, 8) == b"PRIVHEAD"
    )
