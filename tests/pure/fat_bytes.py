"""FAT volumes built byte by byte from the format's documentation, for what no program writes.

Owns small volumes in memory: a boot sector, the FATs, entries, clusters. Knows nothing of the
reader. Source: Microsoft, "FAT: General Overview of On-Disk Format".
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

SECTOR = 512
END = {12: 0xFFF, 16: 0xFFFF, 32: 0x0FFFFFFF}
CLUSTERS = {12: 100, 16: 5000, 32: 400}


def entry(
    stored: bytes,
    attributes: int = 0x20,
    cluster: int = 0,
    size: int = 0,
    *,
    flags: int = 0,
    times: tuple[int, int, int, int, int, int] = (0, 0, 0, 0, 0, 0),
) -> bytes:
    """Return the 32 bytes of an entry. times: creation's 10 ms, time and date, date of access, time
    and date of modification."""
    assert len(stored) == 11
    fraction, created_time, created_date, accessed, time, date = times
    return struct.pack(
        "<11sBBBHHHHHHHI",
        stored,
        attributes,
        flags,
        fraction,
        created_time,
        created_date,
        accessed,
        cluster >> 16,
        time,
        date,
        cluster & 0xFFFF,
        size,
    )


def checksum(stored: bytes) -> int:
    total = 0
    for byte in stored:
        total = ((total & 1) * 0x80 + (total >> 1) + byte) % 256
    return total


def long_entries(name: str, stored: bytes) -> list[bytes]:
    """Return the entries of a long name, in the order in which they are stored."""
    units = name.encode("utf-16-le", "surrogatepass")
    if len(units) % 26:
        units += b"\0\0"
        units += b"\xff" * (-len(units) % 26)
    parts = [units[at : at + 26] for at in range(0, len(units), 26)]
    found = []
    for number, part in enumerate(parts, start=1):
        order = number | 0x40 * (number == len(parts))
        found.append(
            struct.pack("<B10sBBB12sH4s", order, part[:10], 0x0F, 0, checksum(stored),
                        part[10:22], 0, part[22:])
        )  # fmt: skip
    return found[::-1]


def named(name: str, stored: bytes, *args: int, **more: int) -> bytes:
    """Return all entries of a file with a long name."""
    return b"".join(long_entries(name, stored)) + entry(stored, *args, **more)  # type: ignore[arg-type]


DOT, DOTDOT = b".".ljust(11), b"..".ljust(11)


def folder(cluster: int, parent: int, *entries: bytes) -> bytes:
    """Return the content of a folder."""
    head = entry(DOT, 0x10, cluster) + entry(DOTDOT, 0x10, parent)
    return head + b"".join(entries)


@dataclass
class Volume:
    """A volume with clusters of 512 bytes. chains: each a list of clusters; fat: single values of
    the first FAT, by cluster; second_fat: of the second, where it differs. content: by cluster, of
    any length. root: entries; on FAT32 they lie in cluster 2. flags: FAT32's, in the boot sector.
    state: of entry 1; by default a cleanly unmounted volume's."""

    bits: int
    root: Sequence[bytes] = ()
    chains: Sequence[Sequence[int]] = ()
    content: dict[int, bytes] = field(default_factory=dict)
    fat: dict[int, int] = field(default_factory=dict)
    second_fat: dict[int, int] = field(default_factory=dict)
    fats: int = 2
    flags: int = 0
    state: int | None = None
    boot_state: int = 0
    label: bytes = b"NO NAME    "

    @property
    def reserved(self) -> int:
        return 32 if self.bits == 32 else 1

    @property
    def fat_sectors(self) -> int:
        return -(-(CLUSTERS[self.bits] + 2) * self.bits // 8 // SECTOR)

    @property
    def root_start(self) -> int:
        return (self.reserved + self.fats * self.fat_sectors) * SECTOR

    @property
    def data_start(self) -> int:
        return self.root_start + (0 if self.bits == 32 else SECTOR * 4)

    def place(self, cluster: int) -> int:
        return self.data_start + (cluster - 2) * SECTOR

    def build(self) -> bytes:
        clusters = CLUSTERS[self.bits]
        data = bytearray(self.data_start + clusters * SECTOR)
        data[:512] = self.boot_sector(len(data) // SECTOR)
        root = b"".join(self.root)
        if self.bits == 32:
            assert len(root) <= SECTOR
            data[self.place(2) : self.place(2) + len(root)] = root
        else:
            data[self.root_start : self.root_start + len(root)] = root
        for cluster, content in self.content.items():
            data[self.place(cluster) : self.place(cluster) + len(content)] = content
        end = END[self.bits]
        values = {0: end & ~7, 1: end if self.state is None else self.state}
        if self.bits == 32:
            values[2] = end
        for chain in self.chains:
            values.update(zip(chain, [*chain[1:], end], strict=True))
        for copy in range(self.fats):
            own = {**values, **self.fat, **(self.second_fat if copy else {})}
            start = (self.reserved + copy * self.fat_sectors) * SECTOR
            table = self.table(own)
            data[start : start + len(table)] = table
        return bytes(data)

    def table(self, values: dict[int, int]) -> bytes:
        """Return the bytes of a FAT; all entries of a FAT12 make one number."""
        number = 0
        for index, value in values.items():
            number |= value << index * self.bits
        return number.to_bytes(-(-(CLUSTERS[self.bits] + 2) * self.bits // 8), "little")

    def boot_sector(self, sectors: int) -> bytes:
        wide = self.bits == 32
        bpb = struct.pack(
            "<HBHBHHBHHHII",
            *(SECTOR, 1, self.reserved, self.fats, 0 if wide else 64, 0, 0xF8),
            *(0 if wide else self.fat_sectors, 63, 255, 0, sectors),
        )
        if wide:
            bpb += struct.pack("<IHHIHH12x", self.fat_sectors, self.flags, 0, 2, 1, 6)
        bpb += struct.pack("<BBBI11s8s", 0x80, self.boot_state, 0x29, 0x1234ABCD, self.label, b"")
        return (b"\xeb\x58\x90testtest" + bpb).ljust(510, b"\0") + b"\x55\xaa"
