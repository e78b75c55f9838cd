"""Partition tables built by hand from the UEFI specification (chapter 5).

Owns exact bytes, right or wrong in one thing at a time; knows nothing of the code that reads
them. Pure: no I/O. Sectors count in the table's own size.
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

DISK_ID = UUID("867916c8-e49d-4728-9256-2b97565d27c9")
LINUX = UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
MSR = UUID("e3c9e316-0b5c-4db8-817d-f92df00215ae")


# --- MBR ------------------------------------------------------------------------------------------


def slot(kind: int, first: int, sectors: int, status: int = 0) -> bytes:
    """One of the four slots of an MBR or EBR."""
    return struct.pack("<B3sB3sII", status, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", first, sectors)


UNUSED = bytes(16)


def record(*slots: bytes, signature: int = 0, code: bytes = b"") -> bytes:
    """An MBR or EBR: up to four slots, the disk's signature, and boot code or a boot sector."""
    sector = bytearray(code[:440].ljust(440, b"\0"))
    sector += struct.pack("<IH", signature, 0) + b"".join(slots).ljust(64, b"\0") + b"\x55\xaa"
    assert len(sector) == 512
    return bytes(sector)


def disk(sectors: int, *parts: tuple[int, bytes], sector_size: int = 512) -> bytes:
    """A disk of zeros but for the parts, each (sector, bytes)."""
    content = bytearray(sectors * sector_size)
    for sector, data in parts:
        offset = sector * sector_size
        content[offset : offset + len(data)] = data
    assert len(content) == sectors * sector_size
    return bytes(content)


# --- GPT ------------------------------------------------------------------------------------------

PROTECTIVE = record(slot(0xEE, 1, 0xFFFFFFFF))


def entry(
    first: int, last: int, kind: UUID = LINUX, name: bytes = b"", identity: int = 1, size: int = 128
) -> bytes:
    """An entry: first and last sector, both inclusive; the name is already in UTF-16."""
    plain = struct.pack(
        "<16s16sQQQ72s", kind.bytes_le, UUID(int=identity).bytes_le, first, last, 0, name
    )
    return plain.ljust(size, b"\0")


@dataclass
class Gpt:
    """A GPT disk of `sectors` sectors; everything else has its usual value.

    slots: the entries from slot 1 on, b"" for an unused one. claimed_*: what the headers say
    instead of the truth, with right checksums. backup_lba: where the backup header is, for a disk
    that has grown.
    """

    sectors: int
    slots: Sequence[bytes]
    sector_size: int = 512
    entry_size: int = 128
    entries: int = 128
    mbr: bytes = PROTECTIVE
    claimed_entries: int | None = None
    claimed_entry_size: int | None = None
    claimed_header_size: int = 92
    backup_lba: int | None = None

    @property
    def array(self) -> bytes:
        return b"".join(
            data.ljust(self.entry_size, b"\0") for data in [*self.slots, *[b""] * self.entries]
        )[: self.entries * self.entry_size]

    @property
    def array_sectors(self) -> int:
        return -(-len(self.array) // self.sector_size)

    @property
    def backup(self) -> int:
        return self.sectors - 1 if self.backup_lba is None else self.backup_lba

    def header(self, lba: int, alternate: int, array_lba: int) -> bytes:
        claimed = self.entries if self.claimed_entries is None else self.claimed_entries
        entry_size = self.claimed_entry_size or self.entry_size

        def pack(crc: int) -> bytes:
            return struct.pack(
                "<8sIIIIQQQQ16sQIII",
                *(b"EFI PART", 0x00010000, self.claimed_header_size, crc, 0, lba, alternate),
                *(2 + self.array_sectors, self.backup - self.array_sectors - 1),
                *(DISK_ID.bytes_le, array_lba, claimed, entry_size, zlib.crc32(self.array)),
            )

        covered = pack(0).ljust(self.sector_size, b"\0")[: self.claimed_header_size]
        return pack(zlib.crc32(covered))

    def build(self) -> bytes:
        backup_array = self.backup - self.array_sectors
        return disk(
            self.sectors,
            (0, self.mbr),
            (1, self.header(1, self.backup, 2)),
            (2, self.array),
            (backup_array, self.array),
            (self.backup, self.header(self.backup, 1, backup_array)),
            sector_size=self.sector_size,
        )


def overwrite(content: bytes, offset: int, data: bytes) -> bytes:
    """Return content with other bytes at an offset."""
    return content[:offset] + data + content[offset + len(data) :]
