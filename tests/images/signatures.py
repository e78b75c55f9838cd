"""Volumes built by hand from the formats' documentation, for recognition.

Owns one sample per kind: just enough of its structures to be that kind, with the label and UUID
that must be found. tests/real asks blkid about the same bytes, so that a mistake here shows.
Pure: no I/O.
"""

import struct
import zlib
from dataclasses import dataclass
from uuid import UUID

KIB = 1024
ID = UUID("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0")


@dataclass(frozen=True)
class Sample:
    """kind, label, uuid: what must be found. blkid: it says the same of these bytes; others it
    does not know, asks more of, or takes label and UUID from somewhere else."""

    name: str
    kind: str
    content: bytes
    label: str = ""
    uuid: str = ""
    blkid: bool = True


def volume(size: int, *parts: tuple[int, bytes]) -> bytes:
    """Return `size` bytes that are zero but for the parts, each (offset, bytes)."""
    content = bytearray(size)
    for offset, data in parts:
        content[offset : offset + len(data)] = data
    assert len(content) == size
    return bytes(content)


def le(number: int, length: int) -> bytes:
    return number.to_bytes(length, "little")


def be(number: int, length: int) -> bytes:
    return number.to_bytes(length, "big")


def fat(bits: int, *, label: bytes = b"LABEL      ", sector_size: int = 512) -> bytes:
    """The boot sector of a FAT with as few clusters as its width allows."""
    clusters = {12: 1000, 16: 5000, 32: 66_000}[bits]
    fat_sectors = -(-(clusters + 2) * bits // 8 // sector_size)
    root_entries = 0 if bits == 32 else 512
    reserved = 32 if bits == 32 else 1
    sectors = reserved + 2 * fat_sectors + root_entries * 32 // sector_size + clusters
    bpb = struct.pack(
        "<HBHBHHBHHHII",
        *(sector_size, 1, reserved, 2, root_entries, 0, 0xF8, 0 if bits == 32 else fat_sectors),
        *(63, 255, 0, sectors),
    )
    extended = struct.pack("<BBBI11s8s", 0x80, 0, 0x29, 0xABCD1234, label, b"FAT%-5d" % bits)
    wide = struct.pack("<IHHIHH12x", fat_sectors, 0, 0, 2, 1, 6) if bits == 32 else b""
    return volume(
        sector_size,
        (0, b"\xeb\x58\x90mkfs.fat" + bpb + wide + extended),
        (510, b"\x55\xaa"),
    )


def ntfs() -> bytes:
    """The boot sector of an NTFS volume."""
    bpb = struct.pack("<HBHBHHBHHHII", 512, 8, 0, 0, 0, 0, 0xF8, 0, 63, 255, 2048, 0)
    extended = struct.pack("<IQQQIIQ", 0x00800080, 20479, 4, 2, 0xF6, 1, 0x1122334455667788)
    return volume(512, (0, b"\xeb\x52\x90NTFS    " + bpb + extended), (510, b"\x55\xaa"))


def bitlocker(jump: bytes) -> bytes:
    """The boot sector of a BitLocker volume."""
    identifier = UUID("4967d63b-2e29-4ad8-8399-f6a339e3d001").bytes_le
    bpb = struct.pack("<HBHBHHBHHHII", 512, 8, 0, 0, 0, 0, 0xF8, 0, 63, 255, 2048, 0)
    return volume(
        32 * KIB,
        (0, jump + b"-FVE-FS-" + bpb),
        (160, identifier + struct.pack("<QQQ", 4096, 8192, 12288)),
        (510, b"\x55\xaa"),
        *((offset, b"-FVE-FS-" + struct.pack("<HH", 68, 2)) for offset in (4096, 8192, 12288)),
    )


def bitlocker_to_go() -> bytes:
    """A FAT32 boot sector that is really BitLocker To Go."""
    identifier = UUID("4967d63b-2e29-4ad8-8399-f6a339e3d001").bytes_le
    return volume(
        32 * KIB,
        (0, fat(32, label=b"NO NAME    ")),
        (3, b"MSWIN4.1"),
        (424, identifier + struct.pack("<QQQ", 4096, 8192, 12288)),
        *((offset, b"-FVE-FS-" + struct.pack("<HH", 68, 2)) for offset in (4096, 8192, 12288)),
    )


def lvm2(sector: int) -> bytes:
    """A physical volume's label in one of the first four sectors, with its header behind it."""
    name = b"hFw05yFqeDrxN2E3tUiYaRD1Bsk3nv6M"
    covered = (le(32, 4) + b"LVM2 001" + name + le(1 << 20, 8)).ljust(512 - 20, b"\0")
    crc = zlib.crc32(covered, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
    label = b"LABELONE" + le(sector, 8) + le(crc, 4) + covered
    return volume(64 * KIB, (512 * sector, label))


def md1_superblock(offset: int, *, level: int = 5) -> bytes:
    """A version 1 MD superblock for three devices, which says that it is at `offset`."""
    roles = struct.pack("<3H", 0, 1, 2)
    head = struct.pack("<IIII", 0xA92B4EFC, 1, 0, 0) + ID.bytes + b"host:array".ljust(32, b"\0")
    array = struct.pack("<QiiQII", 1_700_000_000, level, 2, 2048, 128, 3)
    device = struct.pack("<QQQ", 0, 2048, offset // 512).rjust(24 + 32, b"\0")
    rest = struct.pack("<QII16sBBHIQQQ", 0, 0, 0, ID.bytes, 0, 0, 0, 0, 1_700_000_000, 7, 0)
    plain = (head + array + device + rest).ljust(216, b"\0")
    assert len(plain) == 216
    counted = plain + le(0, 4) + le(len(roles) // 2, 4) + bytes(32) + roles + bytes(2)
    total = sum(struct.unpack(f"<{len(counted) // 4}I", counted))
    checksum = ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF
    return plain + le(checksum, 4) + counted[220:]


def md_0_90(size: int, order: str = "<") -> tuple[int, bytes]:
    """Where a version 0.90 MD superblock lies on a device of `size` bytes, and its bytes."""
    uuid = struct.unpack(">4I", ID.bytes)
    words = [0] * 1024
    words[:12] = [0xA92B4EFC, 0, 90, 0, 0, uuid[0], 1_700_000_000, 1, 1024, 2, 2, 0]
    words[13:16] = uuid[1:]
    words[32:38] = [1_700_000_001, 1, 2, 2, 0, 0]
    total = sum(words)
    words[38] = ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF
    return size // 65536 * 65536 - 65536, struct.pack(f"{order}1024I", *words)


def _xdr(name: str, kind: int, value: bytes) -> bytes:
    def text(data: bytes) -> bytes:
        return be(len(data), 4) + data.ljust(-(-len(data) // 4) * 4, b"\0")

    body = text(name.encode()) + be(kind, 4) + be(1, 4) + (text(value) if kind == 9 else value)
    return be(len(body) + 8, 4) + be(len(body) + 8, 4) + body


def zfs() -> bytes:
    """The first label of a pool's only disk: name-value pairs and some uberblocks."""
    pairs = (
        _xdr("version", 8, be(5000, 8))
        + _xdr("name", 9, b"tank")
        + _xdr("state", 8, be(0, 8))
        + _xdr("txg", 8, be(4, 8))
        + _xdr("pool_guid", 8, be(7208373131973444310, 8))
        + _xdr("guid", 8, be(4171367780051055869, 8))
    )
    uberblock = struct.pack("<QQQQQ", 0x00BAB10C, 5000, 4, 1, 1_700_000_000)
    return volume(
        1024 * KIB,
        (16 * KIB, b"\x01\x01\0\0" + be(0, 4) + be(1, 4) + pairs),
        (128 * KIB - 40, le(0x210DA7AB10C7A11, 8)),
        *((128 * KIB + KIB * number, uberblock) for number in range(8)),
    )


def nilfs2(size: int) -> bytes:
    """A volume of `size` bytes with a superblock whose checksum is right."""
    superblock = bytearray(1024)
    struct.pack_into("<IHHHH", superblock, 0, 2, 0, 0x3434, 280, 0)
    struct.pack_into("<II", superblock, 12, 0x12345678, 0)
    struct.pack_into("<IQQQII", superblock, 20, 2, 8, size, 1, 2048, 5)
    superblock[152:168] = ID.bytes
    superblock[168:173] = b"label"
    crc = zlib.crc32(superblock[:280], 0x12345678 ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
    struct.pack_into("<I", superblock, 16, crc)
    return volume(size, (1024, bytes(superblock)))


def ldm_private_header() -> bytes:
    """The sector by which the Logical Disk Manager knows a disk as its own."""
    header = volume(
        512,
        (0, b"PRIVHEAD"),
        (12, be(2, 2) + be(12, 2)),
        (0x30, str(ID).encode()),
        (0xF0, b"WIN-Dg0"),
    )
    return header[:8] + be(sum(header), 4) + header[12:]


def swap(page: int, signature: bytes, order: str = "<") -> bytes:
    """Swap space of a machine with pages of `page` bytes."""
    header = struct.pack(f"{order}III", 1, 100, 0) + ID.bytes + b"label".ljust(16, b"\0")
    return volume(256 * KIB, (1024, header), (page - 10, signature))


def _ufs(base: int, magic: int, order: str) -> bytes:
    def number(value: int, length: int = 4) -> bytes:
        return le(value, length) if order == "<" else be(value, length)

    return volume(
        512 * KIB,
        (base + 8, number(16) + number(24) + number(32) + number(48)),
        (base + 44, number(1) + number(32768) + number(4096) + number(8)),
        (base + 144, number(0x6B02A4A4) + number(0x6B8B4567)),
        (base + 680, b"label" if magic == 0x19540119 else b""),
        (base + 1000, number(base, 8)),
        (base + 1372, number(magic)),
    )


def _md(minor: int, offset: int) -> Sample:
    content = volume(_WHOLE, (offset, md1_superblock(offset)))
    return Sample(f"md 1.{minor}", "linux_raid_member", content, "host:array", str(ID))


def _bcache(name: str, magic: UUID, own_sector: int, kind: str, *, blkid: bool) -> Sample:
    identities = ID.bytes + bytes(16) if kind == "bcache" else bytes(16) + ID.bytes
    body = le(own_sector, 8) + le(1, 8) + magic.bytes + identities + b"label".ljust(32, b"\0")
    return Sample(name, kind, volume(64 * KIB, (4104, body)), "label", str(ID), blkid)


_BCACHE = UUID("c68573f6-4e1a-45ca-8265-f57f48ba6d81")
_BCACHEFS = UUID("c68573f6-66ce-90a9-d96a-60cf803df7ef")
_WHOLE = 2048 * KIB
"""The size of samples with something at their end: blkid takes no smaller one for a RAID member."""
_DISC = [(32768 + 2048 * index, index) for index in range(4)]
_NXSB = b"NXSB" + le(4096, 4) + le(64, 8) + bytes(24) + ID.bytes
_HFSX_SIZES = be(4096, 4) + be(64, 4)


def _luks(version: int) -> Sample:
    label = b"label" if version == 2 else b"aes"
    content = volume(
        64 * KIB,
        (0, b"LUKS\xba\xbe" + be(version, 2)),
        (8, be(16384, 8) if version == 2 else b"aes"),
        (24, label if version == 2 else b""),
        (168, str(ID).encode()),
        (256, bytes(8)),
    )
    return Sample(
        f"luks{version}", "crypto_LUKS", content, "label" if version == 2 else "", str(ID)
    )


SAMPLES = (
    Sample("ntfs", "ntfs", volume(64 * KIB, (0, ntfs())), uuid="1122334455667788", blkid=False),
    *(
        Sample(f"fat{bits}", "vfat", volume(64 * KIB, (0, fat(bits))), "LABEL", "ABCD-1234", False)
        for bits in (12, 16, 32)
    ),
    Sample(
        "fat without a name",
        "vfat",
        volume(64 * KIB, (0, fat(16, label=b"NO NAME    "))),
        uuid="ABCD-1234",
    ),
    Sample(
        "xfs",
        "xfs",
        volume(
            64 * KIB,
            (0, b"XFSB" + be(4096, 4) + be(16384, 8)),
            (32, ID.bytes),
            (84, be(4096, 4) + be(4, 4)),
            (100, be(0xB4A5, 2) + be(512, 2) + be(512, 2) + be(8, 2) + b"label"),
            (120, bytes([12, 9, 9, 3, 12])),
        ),
        "label",
        str(ID),
        blkid=False,
    ),
    Sample(
        "btrfs",
        "btrfs",
        volume(
            128 * KIB,
            (65536 + 32, ID.bytes + le(65536, 8) + bytes(8) + b"_BHRfS_M"),
            (65536 + 112, le(1 << 30, 8)),
            (65536 + 136, le(1, 8) + le(4096, 4)),
            (65536 + 299, b"label"),
        ),
        "label",
        str(ID),
    ),
    Sample(
        "ReFS",
        "ReFS",
        volume(
            64 * KIB,
            (3, b"ReFS"),
            (16, b"FSRS" + struct.pack("<HHQIIHHIQQ", 512, 0, 128, 512, 128, 3, 0, 0, 0, 0x99)),
        ),
        uuid="0000000000000099",
        blkid=False,
    ),
    Sample("zfs", "zfs_member", zfs(), "tank", "7208373131973444310", blkid=False),
    _luks(1),
    _luks(2),
    Sample("bitlocker", "BitLocker", bitlocker(b"\xeb\x58\x90")),
    Sample("bitlocker of Vista", "BitLocker", bitlocker(b"\xeb\x52\x90")),
    Sample("bitlocker to go", "BitLocker", bitlocker_to_go()),
    *(
        Sample(
            f"lvm2 in sector {sector}",
            "LVM2_member",
            lvm2(sector),
            uuid="hFw05y-FqeD-rxN2-E3tU-iYaR-D1Bs-k3nv6M",
        )
        for sector in (0, 1, 3)
    ),
    _md(0, _WHOLE - 8192),
    _md(1, 0),
    _md(2, 4096),
    *(
        Sample(
            f"md 0.90 {order}",
            "linux_raid_member",
            volume(_WHOLE + 4096, md_0_90(_WHOLE + 4096, order)),
            uuid=str(ID),
        )
        for order in "<>"
    ),
    *(
        Sample(f"swap {page}", "swap", swap(page, b"SWAPSPACE2"), "label", str(ID))
        for page in (4096, 8192, 16384, 32768, 65536)
    ),
    Sample("swap big-endian", "swap", swap(4096, b"SWAPSPACE2", ">"), "label", str(ID)),
    Sample("swap before 2.2", "swap", volume(64 * KIB, (4086, b"SWAP-SPACE"))),
    *(
        Sample(
            f"suspended {mark.decode()}",
            "swsuspend",
            swap(4096, mark.ljust(10, b"\0")),
            "label",
            str(ID),
        )
        for mark in (b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001")
    ),
    Sample(
        "hfs+",
        "hfsplus",
        volume(64 * KIB, (1024, b"H+" + be(4, 2)), (1064, _HFSX_SIZES)),
    ),
    Sample(
        "hfsx",
        "hfsplus",
        volume(64 * KIB, (1024, b"HX" + be(5, 2)), (1064, _HFSX_SIZES)),
    ),
    Sample(
        "hfs+ in a wrapper",
        "hfsplus",
        volume(64 * KIB, (1024, b"BD"), (1044, be(4096, 4)), (1148, b"H+" + be(8, 2))),
        blkid=False,
    ),
    Sample(
        "hfs",
        "hfs",
        volume(64 * KIB, (1024, b"BD"), (1044, be(4096, 4)), (1060, b"\x05label")),
        "label",
    ),
    Sample("apfs", "apfs", volume(64 * KIB, (24, le(1, 2)), (32, _NXSB)), uuid=str(ID)),
    Sample(
        "f2fs",
        "f2fs",
        volume(
            64 * KIB,
            (1024, struct.pack("<IHHIIIIIIIQ", 0xF2F52010, 1, 16, 9, 3, 12, 9, 1, 1, 0, 16384)),
            (1024 + 108, ID.bytes + "label".encode("utf-16-le")),
        ),
        "label",
        str(ID),
    ),
    Sample(
        "iso9660",
        "iso9660",
        volume(
            64 * KIB,
            (32768, b"\0CD001\x01EL TORITO SPECIFICATION"),
            (34816, b"\x01CD001\x01"),
            (34816 + 40, b"LABEL".ljust(32)),
            (34816 + 80, le(32, 4)),
            (34816 + 128, le(2048, 2)),
            (36864, b"\xffCD001\x01"),
        ),
        "LABEL",
    ),
    *(
        Sample(
            f"udf with sectors of {sector}",
            "udf",
            volume(
                128 * KIB,
                (32768, b"\0BEA01\x01"),
                (32768 + sector, b"\0NSR03\x01"),
                (32768 + 2 * sector, b"\0TEA01\x01"),
            ),
            blkid=False,
        )
        for sector in (2048, 4096)
    ),
    Sample("ufs1", "ufs", _ufs(8192, 0x00011954, "<"), uuid="6b02a4a46b8b4567"),
    Sample("ufs1 big-endian", "ufs", _ufs(8192, 0x00011954, ">"), uuid="6b02a4a46b8b4567"),
    *(
        Sample(f"ufs2 at {base}", "ufs", _ufs(base, 0x19540119, "<"), "label", "6b02a4a46b8b4567")
        for base in (65536, 262144)
    ),
    _bcache("bcache", _BCACHE, 8, "bcache", blkid=False),
    _bcache("bcachefs", _BCACHEFS, 0, "bcachefs", blkid=False),
    _bcache("bcachefs before 6.7", _BCACHE, 0, "bcachefs", blkid=False),
    Sample(
        "squashfs",
        "squashfs",
        volume(
            64 * KIB,
            (0, b"hsqs" + struct.pack("<IIIIHHHHHHQQ", 1, 0, 131072, 0, 1, 17, 0, 1, 4, 0, 0, 221)),
        ),
    ),
    Sample("squashfs 3", "squashfs3", volume(64 * KIB, (0, b"hsqs"), (28, le(3, 2)))),
    *(
        Sample(
            f"reiserfs {magic.decode()} at {base}",
            "reiserfs",
            volume(
                256 * KIB,
                (base, le(64, 4)),
                (base + 44, le(4096, 2)),
                (base + 52, magic),
                (base + 84, ID.bytes + b"label"),
            ),
            label,
            uuid,
            blkid=False,
        )
        for magic, base, label, uuid in (
            (b"ReIsErFs", 8192, "", ""),
            (b"ReIsEr2Fs", 65536, "label", str(ID)),
            (b"ReIsEr3Fs", 65536, "label", str(ID)),
        )
    ),
    Sample(
        "jfs",
        "jfs",
        volume(
            64 * KIB,
            (32768, b"JFS1" + struct.pack("<IQIHHIHH", 1, 128, 4096, 12, 3, 512, 9, 0)),
            (32768 + 136, ID.bytes + b"label"),
        ),
        "label",
        str(ID),
        blkid=False,
    ),
    Sample("nilfs2", "nilfs2", nilfs2(1024 * KIB), "label", str(ID)),
    Sample(
        "erofs",
        "erofs",
        volume(
            64 * KIB,
            (1024, struct.pack("<IIIBBHQQII", 0xE0F5E1E2, 0, 0, 12, 0, 36, 1, 0, 0, 16)),
            (1024 + 48, ID.bytes + b"label"),
        ),
        "label",
        str(ID),
    ),
    Sample("vmfs", "VMFS_volume_member", volume(1028 * KIB, (1024 * KIB, le(0xC001D00D, 4)))),
    *(
        Sample(
            f"ldm at {base}",
            "LDM_member",
            volume(64 * KIB, (base, ldm_private_header())),
            "WIN-Dg0",
            str(ID),
            blkid=False,
        )
        for base in (3072, 64 * KIB - 512)
    ),
    Sample(
        "storage spaces", "storage_spaces_member", volume(64 * KIB, (0, b"SPACEDB ")), blkid=False
    ),
    *(
        Sample(
            f"drbd {magic:x}",
            "drbd",
            volume(
                _WHOLE,
                (_WHOLE - 4096 + 60, be(magic, 4)),
                (_WHOLE - 4096 + 80, be(4096, 4)),
            ),
        )
        for magic in (0x8374026B, 0x8374026D)
    ),
)
