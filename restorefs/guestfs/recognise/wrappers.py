"""What other formats are stored inside of, told by published signatures.

Owns one function per kind. Pure: works on what was read beforehand, and nothing a volume contains
makes it raise.
"""

import struct
import zlib
from itertools import pairwise
from uuid import UUID

from restorefs.guestfs.base import Identity
from restorefs.guestfs.recognise.evidence import Evidence, is_power_of_two


def _part(kind: str, *notes: str, label: str = "", uuid: str = "") -> Identity:
    """Return the identity of a part of what holds files. It is a folder that says so: a disk whose
    root lies on LVM must not look as if it had none."""
    return Identity(kind, label=label, uuid=uuid, notes=notes)


# libbde, "BitLocker Drive Encryption (BDE) format": how a volume is encrypted, the same for all.
_BITLOCKER_IDS = {
    UUID("4967d63b-2e29-4ad8-8399-f6a339e3d001").bytes_le,
    UUID("92a84d3b-dd80-4d0e-9e4e-b1e3284eaed8").bytes_le,  # only the space in use
}


def bitlocker(e: Evidence) -> Identity | None:
    """Source: libbde, "BitLocker Drive Encryption (BDE) format", volume header.

    BitLocker To Go dresses as FAT32 and only shows its identifier, at 424.
    """
    fixed = e.at(0, 1) == b"\xeb" and e.at(3, 8) == b"-FVE-FS-"
    to_go = e.at(3, 8) == b"MSWIN4.1" and e.at(424, 16) in _BITLOCKER_IDS
    if not (fixed or to_go):
        return None
    return Identity("BitLocker", encrypted=True, notes=("BitLocker To Go",) if to_go else ())


def luks(e: Evidence) -> Identity | None:
    """Source: LUKS1 On-Disk Format 1.2.3, section 2.1; LUKS2 On-Disk Format 1.1.1, section 2.1.

    Of a later version only that it is LUKS is taken for known.
    """
    if e.at(0, 6) != b"LUKS\xba\xbe":
        return None
    version = e.number(6, 2, "big")
    return Identity(
        "crypto_LUKS",
        encrypted=True,
        label=e.text(24, 48) if version == 2 else "",
        uuid=e.text(168, 40) if version in (1, 2) else "",
        notes=(f"LUKS{version}",),
    )


def lvm2_member(e: Evidence) -> Identity | None:
    """Source: LVM2's metadata documentation: the label is in one of the first four sectors.

    +0 "LABELONE", +8 u64 own sector, +16 u32 CRC of the bytes from 20, +20 u32 where the
    physical volume's header starts, with its id of 32 characters; +24 "LVM2 001".
    """
    for sector in range(4):
        base = 512 * sector
        label = e.at(base, 512)
        if label[:8] != b"LABELONE" or label[24:32] != b"LVM2 001":
            continue
        own, crc, header = struct.unpack_from("<QII", label, 8)
        # CRC-32 with a start value of its own and without the final inversion.
        expected = zlib.crc32(label[20:], 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
        if own == sector and crc == expected and header <= 512 - 32:
            name = e.text(base + header, 32, "ascii")
            cuts = (0, 6, 10, 14, 18, 22, 26, 32)
            parts = [name[a:b] for a, b in pairwise(cuts)]
            return _part("LVM2_member", "part of an LVM2 volume group", uuid="-".join(parts))
    return None


_MD_MAGIC = 0xA92B4EFC


def md_member(e: Evidence) -> Identity | None:
    """Source: Linux RAID wiki, "RAID superblock formats"; md(4) for the positions.

    Version 1 is at the start (1.1), at 4 KiB (1.2), or 8 KiB before the end, rounded down to
    4 KiB (1.0), and says where it is. Version 0.90 is in the last whole 64 KiB but one.
    """
    for minor, offset in ((1, 0), (2, 4096), (0, (e.size // 512 - 16) // 8 * 4096)):
        if offset >= 0 and _is_md1(e.at(offset, 4096), offset):
            return _part(
                "linux_raid_member",
                "part of a Linux MD array",
                f"metadata 1.{minor}",
                label=e.text(offset + 32, 32),
                uuid=e.uuid(offset + 16),
            )
    offset = e.size // 65536 * 65536 - 65536
    superblock = e.at(offset, 4096)
    for order in ("<", ">"):
        words = struct.unpack(f"{order}1024I", superblock)
        # Words: 0 magic, 1 major, 2 minor (91: being reshaped), 5 and 13 to 15 the set's UUID,
        # 38 checksum.
        known = words[:2] == (_MD_MAGIC, 0) and words[2] in (90, 91)
        if known and words[38] == _folded_sum(words, words[38]):
            text = "".join(f"{words[index]:08x}" for index in (5, 13, 14, 15))
            return _part(
                "linux_raid_member",
                "part of a Linux MD array",
                "metadata 0.90",
                uuid=str(UUID(text)),
            )
    return None


def _is_md1(superblock: bytes, offset: int) -> bool:
    """Tell whether 4096 bytes from `offset` are a version 1 superblock with a right checksum."""
    magic, major = struct.unpack_from("<II", superblock)
    (own_sector,) = struct.unpack_from("<Q", superblock, 144)
    checksum = int.from_bytes(superblock[216:220], "little")
    roles = int.from_bytes(superblock[220:224], "little")
    length = 256 + 2 * roles
    if (magic, major, own_sector) != (_MD_MAGIC, 1, offset // 512) or length > len(superblock):
        return False
    padded = superblock[:length].ljust(4096, b"\0")
    return _folded_sum(struct.unpack("<1024I", padded), checksum) == checksum


def _folded_sum(words: tuple[int, ...], checksum: int) -> int:
    """Return MD's checksum: the sum of all words but the checksum, its carry added once."""
    total = sum(words) - checksum
    return ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF


BCACHE_MAGIC = UUID("c68573f6-4e1a-45ca-8265-f57f48ba6d81").bytes


def is_bcache(e: Evidence) -> bool:
    """Tell bcache from early bcachefs, whose magic is the same.

    bcache has the superblock's own sector, 8, where bcachefs has half of a checksum.
    """
    return e.at(4096 + 24, 16) == BCACHE_MAGIC and e.number(4096 + 8, 8) == 8


def bcache(e: Evidence) -> Identity | None:
    """Source: Linux, Documentation/admin-guide/bcache.rst and uapi/linux/bcache.h, cache_sb."""
    if not is_bcache(e):
        return None
    return _part(
        "bcache", "part of a bcache set", label=e.text(4096 + 72, 32), uuid=e.uuid(4096 + 40)
    )


def zfs_member(e: Evidence) -> Identity | None:
    """Source: ZFS On-Disk Specification (Sun, 2006), sections 1.2 and 1.3: the first label.

    At 16 KiB 112 KiB of name-value pairs, in XDR, that end with a checksum behind a magic.
    """
    magic = e.at(131072 - 40, 8)
    if 0x210DA7AB10C7A11 not in (int.from_bytes(magic, "little"), int.from_bytes(magic, "big")):
        return None
    pairs = _nvlist(e.at(16384, 112 << 10))
    name, guid = pairs.get(b"name"), pairs.get(b"pool_guid")
    if name is None or guid is None:
        return None
    length = int.from_bytes(name[:4], "big")
    return Identity(
        "zfs_member",
        label=name[4 : 4 + length].decode("utf-8", "replace"),
        uuid=str(int.from_bytes(guid[:8], "big")),
    )


def _nvlist(data: bytes) -> dict[bytes, bytes]:
    """Return the outermost pairs of an XDR name-value list: names and encoded values.

    A pair: u32 its length, u32 length decoded, u32 length of its name, the name padded to four
    bytes, u32 type, u32 number of elements, the value. A length of 0 ends the list.
    """
    pairs: dict[bytes, bytes] = {}
    if data[0] != 1:  # XDR
        return pairs
    offset = 12
    while offset + 12 <= len(data):
        length, _decoded, name_length = struct.unpack_from(">III", data, offset)
        if length < 20 or offset + length > len(data):
            break
        pair = data[offset + 12 : offset + length]
        pairs[pair[:name_length]] = pair[-(-name_length // 4) * 4 + 8 :]
        offset += length
    return pairs


def drbd(e: Evidence) -> Identity | None:
    """Source: DRBD User's Guide, "DRBD metadata": internal metadata ends with its superblock.

    Magics of versions 8.0, 8.4 after a crash, and 9; bitmap granularity at 80 confirms them. It
    comes last because the data is at the start of the volume, as if there were no DRBD.
    """
    base = e.size // 4096 * 4096 - 4096
    magic, granularity = e.number(base + 60, 4, "big"), e.number(base + 80, 4, "big")
    if magic not in (0x8374026B, 0x8374026C, 0x8374026D):
        return None
    if not is_power_of_two(granularity, 4096, 1 << 20):
        return None
    return _part("drbd", "part of a DRBD resource")


def ldm_member(e: Evidence) -> Identity | None:
    """Source: Linux-NTFS project, LDM documentation, "PRIVHEAD": the byte sum must be right.

    In sector 6 of an MBR disk, in the last sector of a GPT disk's metadata partition.
    """
    for base in (3072, e.size - 512):
        header = e.at(base, 512)
        if header[:8] == b"PRIVHEAD" and header[12:14] == b"\x00\x02":
            checksum = int.from_bytes(header[8:12], "big")
            if checksum == sum(header) - sum(header[8:12]):
                return _part(
                    "LDM_member",
                    "part of a Windows dynamic disk group",
                    label=e.text(base + 240, 31),
                    uuid=e.text(base + 48, 64),
                )
    return None


def storage_spaces_member(e: Evidence) -> Identity | None:
    """Source: none of Microsoft's; analyses agree that a pool's partition starts with this."""
    if e.at(0, 8) != b"SPACEDB ":
        return None
    return _part("storage_spaces_member", "part of a Windows storage pool")


def vmfs_member(e: Evidence) -> Identity | None:
    """Source: none of VMware's; the signature by which blkid(8) knows it, 1 MiB in.

    Last, because formatting such a volume otherwise does not always reach that far.
    """
    return Identity("VMFS_volume_member") if e.number(1 << 20, 4) == 0xC001D00D else None
