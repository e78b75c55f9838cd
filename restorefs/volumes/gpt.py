"""The GUID partition table.

Owns which of a disk's two tables is used, and that neither is believed before its checksums are
right. Must not know what the partitions hold. Any number of tables may be read at once; nothing
is kept.

Format: UEFI specification 2.10, chapter 5. All numbers are little-endian, LBAs are sectors:

    LBA 0   an MBR whose only partition, of type 0xEE, covers the disk
    LBA 1   the header; the last LBA has its backup, each naming the other and its entry array
    entry   the partition's type and id, first and *last* LBA, name in UTF-16
"""

import struct
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from restorefs.block.base import BlockDevice, ByteLength
from restorefs.errors import DamagedError
from restorefs.volumes.base import Volume, VolumeScheme, VolumeTable
from restorefs.volumes.mbr import RECORD_SIZE, Record, decode_record, starts_like_boot_sector
from restorefs.volumes.partition import make_partition, overlap_notes
from restorefs.volumes.partition_types import GPT_TYPES, MBR_PROTECTIVE, UNKNOWN

SECTOR_SIZES = (512, 4096)
_SIGNATURE = b"EFI PART"
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
"""Signature, revision, header size, header CRC, reserved, own LBA, alternate LBA, first and last
usable LBA, disk GUID, LBA of the entry array, number and size of entries, CRC of the array."""

_ENTRY = struct.Struct("<16s16sQQQ72s")
"""Type GUID, partition GUID, first LBA, last LBA (inclusive), attributes, name."""

_UNUSED = bytes(16)

# Usual is 16 KiB: 128 entries of 128 bytes.
_MAX_ARRAY: ByteLength = 4 << 20


class Header(NamedTuple):
    """A header whose own checksum is right. array_size is in bytes."""

    disk_guid: uuid.UUID
    array_lba: int
    array_size: ByteLength
    array_crc: int
    entry_size: ByteLength


def decode_header(sector: bytes, lba: int) -> Header:
    """Decode the header that was read from `lba`; `sector` is one whole sector.

    Raises DamagedError saying what is wrong with it.
    """
    (
        signature,
        _revision,
        header_size,
        header_crc,
        _reserved,
        my_lba,
        _alternate,
        _first_usable,
        _last_usable,
        disk_guid,
        array_lba,
        entry_count,
        entry_size,
        array_crc,
    ) = _HEADER.unpack_from(sector)
    if signature != _SIGNATURE:
        raise DamagedError("it has no signature")
    if not _HEADER.size <= header_size <= len(sector):
        raise DamagedError(f"its header claims {header_size} bytes")
    # The checksum covers the header with its own field (bytes 16 to 20) as zeros.
    crc = zlib.crc32(sector[:16] + bytes(4) + sector[20:header_size])
    if crc != header_crc:
        raise DamagedError("the checksum of its header is wrong")
    if my_lba != lba:
        raise DamagedError(f"its header belongs to LBA {my_lba}, not {lba}")
    array_size = entry_count * entry_size
    if entry_size < _ENTRY.size or entry_size % 8 or array_size > _MAX_ARRAY:
        raise DamagedError(f"it claims {entry_count} entries of {entry_size} bytes")
    return Header(uuid.UUID(bytes_le=disk_guid), array_lba, array_size, array_crc, entry_size)


def decode_entries(
    array: bytes, header: Header, sector_size: int, device: BlockDevice
) -> list[Volume]:
    """Decode the used entries of an array whose checksum is right; slots count from 1."""
    volumes = []
    for slot, offset in enumerate(range(0, header.array_size, header.entry_size), 1):
        kind, identity, first, last, _attributes, name = _ENTRY.unpack_from(array, offset)
        if kind == _UNUSED:
            continue
        type_code = str(uuid.UUID(bytes_le=kind)).upper()
        volumes.append(
            make_partition(
                device,
                slot,
                first * sector_size,
                (last - first + 1) * sector_size,
                GPT_TYPES.get(type_code, UNKNOWN),
                type_code=type_code,
                label=name.decode("utf-16-le", "replace").partition("\0")[0],
                uuid=str(uuid.UUID(bytes_le=identity)),
            )
        )
    return volumes


class Gpt(VolumeScheme):
    """A GPT disk, with sectors of 512 or 4096 bytes."""

    kind = "gpt"

    @classmethod
    async def read_table(cls, device: BlockDevice) -> VolumeTable | None:
        """Return the partitions of the primary table, or of the backup where that is damaged.

        None where another table or a file system has the disk: a GPT that an MBR without a
        protective partition precedes is a leftover, and the backup alone proves nothing, for
        nobody who formats a whole disk wipes its end. Raises DamagedError when the disk is
        marked as GPT and both tables are damaged.
        """
        head = await device.read(0, min(2 * max(SECTOR_SIZES), device.size))
        record = decode_record(head[:RECORD_SIZE], device.size)
        protective = record is not None and record.protective
        if not protective and (record or starts_like_boot_sector(head.ljust(RECORD_SIZE, b"\0"))):
            return None

        failures = []
        for sector_size in _marked_sizes(head):
            try:
                table = await _read_copy(device, 1, sector_size)
            except DamagedError as error:
                failures.append(f"primary GPT damaged: {error}")
            else:
                return replace(table, notes=[*_mbr_notes(record), *table.notes])
        if not protective:
            return None
        failures = failures or ["primary GPT missing"]
        for sector_size, lba in _backup_places(head, device.size):
            try:
                table = await _read_copy(device, lba, sector_size)
            except DamagedError as error:
                failures.append(f"backup GPT at LBA {lba} damaged: {error}")
            else:
                used = f"{failures[0]}; the backup table at LBA {lba} is used"
                return replace(table, notes=[used, *_mbr_notes(record), *table.notes])
        raise DamagedError("; ".join(failures))


def _marked_sizes(head: bytes) -> list[int]:
    """Return the sector sizes for which a header stands at LBA 1."""
    return [size for size in SECTOR_SIZES if head.startswith(_SIGNATURE, size)]


def _backup_places(head: bytes, disk_size: ByteLength) -> Iterator[tuple[int, int]]:
    """Yield (sector size, LBA) where a backup header may be, likeliest first.

    A disk that has grown still has its backup where the primary says; only the backup's own
    checksums decide, so a damaged primary may be asked.
    """
    marked = _marked_sizes(head)
    for sector_size in marked:
        alternate = int.from_bytes(head[sector_size + 32 : sector_size + 40], "little")
        if alternate != disk_size // sector_size - 1:
            yield sector_size, alternate
    for sector_size in sorted(SECTOR_SIZES, key=lambda size: size not in marked):
        yield sector_size, disk_size // sector_size - 1


async def _read_copy(device: BlockDevice, lba: int, sector_size: int) -> VolumeTable:
    """Read the table whose header is at `lba`. Raises DamagedError if anything is wrong with it."""
    header = decode_header(await device.read(lba * sector_size, sector_size), lba)
    array = await device.read(header.array_lba * sector_size, header.array_size)
    if zlib.crc32(array) != header.array_crc:
        raise DamagedError("the checksum of its entries is wrong")
    volumes = decode_entries(array, header, sector_size, device)
    return VolumeTable(
        scheme=Gpt.kind,
        volumes=volumes,
        sector_size=sector_size,
        uuid=str(header.disk_guid),
        notes=overlap_notes(volumes),
    )


def _mbr_notes(record: Record | None) -> list[str]:
    if record is None:
        return ["there is no protective MBR"]
    others = [slot for slot in record.slots if slot.type != MBR_PROTECTIVE]
    return [f"hybrid MBR: its {len(others)} other partitions are not used"] if others else []
