"""File systems (and swap space), told by published signatures.

Owns one function per kind. Pure: works on what was read beforehand, and nothing a volume contains
makes it raise.
"""

import struct
import zlib
from typing import Literal
from uuid import UUID

from restorefs.guestfs.base import Identity
from restorefs.guestfs.recognise.evidence import Evidence, is_power_of_two
from restorefs.guestfs.recognise.wrappers import BCACHE_MAGIC, is_bcache
from restorefs.guestfs.xfs.logrecord import BLOCK_SIZE, MAGIC, decode_record_header

_LOG_SEARCHED = 128 << 10


def refs(e: Evidence) -> Identity | None:
    """Source: Prade, Gross and Dewald, "Forensic Analysis of the Resilient File System (ReFS)"."""
    if e.at(3, 13) != b"ReFS".ljust(13, b"\0") or e.at(16, 4) != b"FSRS":
        return None
    size = e.number(24, 8) * e.number(32, 4)
    return Identity("ReFS", uuid=f"{e.number(56, 8):016X}", size=size)


def xfs_external_log(e: Evidence) -> Identity | None:
    """Source: XFS Algorithms & Data Structures, "Journaling Log", Log Records.

    The log is a ring, so that the first of its records is not always in its first block; each says
    in which one it is.
    """
    start = e.at(0, _LOG_SEARCHED)
    found = start.find(MAGIC)
    while 0 <= found <= len(start) - BLOCK_SIZE:
        block, rest = divmod(found, BLOCK_SIZE)
        record = None
        if not rest:
            record = decode_record_header(start[found : found + BLOCK_SIZE], block)
        if record is not None:
            uuid = str(UUID(bytes=record.uuid))
            return Identity("xfs_external_log", holds_files=False, uuid=uuid)
        found = start.find(MAGIC, found + 1)
    return None


def btrfs(e: Evidence) -> Identity | None:
    """Source: btrfs documentation, "On-disk format", superblock; it says where it is."""
    base = 65536
    if e.at(base + 64, 8) != b"_BHRfS_M" or e.number(base + 48, 8) != base:
        return None
    devices = e.number(base + 136, 8)
    return Identity(
        "btrfs",
        label=e.text(base + 299, 256),
        uuid=e.uuid(base + 32),
        size=e.number(base + 112, 8) if devices == 1 else None,
        notes=(f"one of {devices} devices",) if devices != 1 else (),
    )


def apfs(e: Evidence) -> Identity | None:
    """Source: Apple File System Reference, nx_superblock_t; object type 1 is that."""
    block_size = e.number(36, 4)
    if (
        e.at(32, 4) != b"NXSB"
        or e.number(24, 2) != 1
        or not is_power_of_two(block_size, 4096, 65536)
    ):
        return None
    return Identity("apfs", uuid=e.uuid(72), size=e.number(40, 8) * block_size)


def hfsplus(e: Evidence) -> Identity | None:
    """Source: Apple TN1150, "HFS Plus Volume Format"; Inside Macintosh: Files, 2-60, for HFS.

    HFS+ inside an HFS wrapper is what the wrapper's drEmbedSigWord at 124 says.
    """
    signature = e.at(1024, 2)
    version = e.number(1026, 2, "big")
    if (signature, version) in ((b"H+", 4), (b"HX", 5)):
        block_size = e.number(1064, 4, "big")
        if is_power_of_two(block_size, 512, 1 << 30):
            size = e.number(1068, 4, "big") * block_size
            notes = ("HFSX",) if signature == b"HX" else ()
            return Identity("hfsplus", size=size, notes=notes)
    # A wrapper's or an HFS volume's allocation block is a multiple of 512 bytes.
    block_size = e.number(1044, 4, "big")
    if signature == b"BD" and block_size and block_size % 512 == 0:
        if e.at(1024 + 124, 2) == b"H+":
            return Identity("hfsplus", notes=("in an HFS wrapper",))
        length = min(e.number(1060, 1), 27)
        return Identity("hfs", label=e.text(1061, length, "mac-roman"))
    return None


def f2fs(e: Evidence) -> Identity | None:
    """Source: Linux, Documentation/filesystems/f2fs.rst and linux/f2fs_fs.h, superblock."""
    base = 1024
    block_shift = e.number(base + 16, 4)
    if e.number(base, 4) != 0xF2F52010 or not 12 <= block_shift <= 16:
        return None
    return Identity(
        "f2fs",
        label=e.text(base + 124, 1024, "utf-16-le"),
        uuid=e.uuid(base + 108),
        size=e.number(base + 36, 8) << block_shift,
    )


def squashfs(e: Evidence) -> Identity | None:
    """Source: "SquashFS binary format" (AgentD), section 2; versions before 4 differ."""
    major = e.number(28, 2)
    if e.at(0, 4) != b"hsqs":
        return None
    if 1 <= major < 4:
        return Identity("squashfs3")
    if major != 4 or e.number(12, 4) != 1 << min(e.number(22, 2), 20):
        return None
    return Identity("squashfs", size=e.number(40, 8))


def erofs(e: Evidence) -> Identity | None:
    """Source: Linux, Documentation/filesystems/erofs.rst and erofs_fs.h, superblock."""
    base = 1024
    block_shift = e.number(base + 12, 1)
    if e.number(base, 4) != 0xE0F5E1E2 or not 9 <= block_shift <= 16:
        return None
    return Identity(
        "erofs",
        label=e.text(base + 64, 16),
        uuid=e.uuid(base + 48),
        size=e.number(base + 36, 4) << block_shift,
    )


def nilfs2(e: Evidence) -> Identity | None:
    """Source: Linux, uapi/linux/nilfs2_ondisk.h, superblock, whose CRC must be right."""
    base = 1024
    length = e.number(base + 8, 2)
    if e.number(base + 6, 2) != 0x3434 or not 256 <= length <= 1024:
        return None
    superblock = e.at(base, length)
    seed, crc = struct.unpack_from("<II", superblock, 12)
    plain = superblock[:16] + bytes(4) + superblock[20:]
    if zlib.crc32(plain, seed ^ 0xFFFFFFFF) ^ 0xFFFFFFFF != crc:
        return None
    return Identity(
        "nilfs2",
        label=e.text(base + 168, 80),
        uuid=e.uuid(base + 152),
        size=e.number(base + 32, 8),
    )


_BCACHEFS_MAGIC = UUID("c68573f6-66ce-90a9-d96a-60cf803df7ef").bytes


def bcachefs(e: Evidence) -> Identity | None:
    """Source: "bcachefs: Principles of Operation", superblock; the user's UUID is the outer one."""
    magic = e.at(4096 + 24, 16)
    if magic != _BCACHEFS_MAGIC and (magic != BCACHE_MAGIC or is_bcache(e)):
        return None
    return Identity("bcachefs", label=e.text(4096 + 72, 32), uuid=e.uuid(4096 + 56))


def reiserfs(e: Evidence) -> Identity | None:
    """Source: Buchholz, "The structure of the Reiser file system", superblock."""
    for base in (65536, 8192):
        magic = e.at(base + 52, 10).rstrip(b"\0")
        block_size = e.number(base + 44, 2)
        if magic not in (b"ReIsErFs", b"ReIsEr2Fs", b"ReIsEr3Fs"):
            continue
        if not is_power_of_two(block_size, 512, 8192):
            continue
        size = e.number(base, 4) * block_size
        if magic == b"ReIsErFs":  # 3.5 has neither
            return Identity("reiserfs", size=size)
        label = e.text(base + 100, 16)
        return Identity("reiserfs", label=label, uuid=e.uuid(base + 84), size=size)
    return None


def jfs(e: Evidence) -> Identity | None:
    """Source: IBM, "JFS layout", superblock; sizes there are in 512-byte blocks."""
    base = 32768
    block_size, shift = struct.unpack("<IH", e.at(base + 16, 6))
    if (
        e.at(base, 4) != b"JFS1"
        or e.number(base + 4, 4) not in (1, 2)
        or not is_power_of_two(block_size, 512, 4096)
        or block_size != 1 << min(shift, 12)
    ):
        return None
    return Identity(
        "jfs",
        label=e.text(base + 152, 16),
        uuid=e.uuid(base + 136),
        size=e.number(base + 8, 8) * 512,
    )


_DISC_DESCRIPTORS = range(32768, 98304, 2048)
"""Where volume descriptors may be: from sector 16 on, one a sector. Sectors of 4096 bytes (UDF on
disks) only use every other one."""


def udf(e: Evidence) -> Identity | None:
    """Source: ECMA-167 part 2, section 8.3: an NSR descriptor behind a BEA01 descriptor."""
    identifiers = [e.at(offset + 1, 5) for offset in _DISC_DESCRIPTORS]
    if b"BEA01" not in identifiers:
        return None
    extended = identifiers[identifiers.index(b"BEA01") :]
    return Identity("udf") if b"NSR02" in extended or b"NSR03" in extended else None


def iso9660(e: Evidence) -> Identity | None:
    """Source: ECMA-119, section 8.4: the primary volume descriptor."""
    for offset in _DISC_DESCRIPTORS:
        kind, identifier = e.at(offset, 1), e.at(offset + 1, 5)
        if identifier != b"CD001":
            return None
        if kind == b"\x01":
            size = e.number(offset + 80, 4) * e.number(offset + 128, 2)
            return Identity("iso9660", label=e.text(offset + 40, 32), size=size)
    return None


def ufs(e: Evidence) -> Identity | None:
    """Source: FreeBSD, fs(5) and ufs/ffs/fs.h, struct fs: either byte order, four places.

    UFS2 says where its superblock is; without that, a leftover one would do.
    """
    orders: tuple[Literal["little", "big"], ...] = ("little", "big")
    for base in (65536, 8192, 0, 262144):
        for order in orders:
            magic = e.number(base + 1372, 4, order)
            block_size = e.number(base + 48, 4, order)
            if magic not in (0x00011954, 0x19540119):
                continue
            if not is_power_of_two(block_size, 4096, 65536):
                continue
            if magic == 0x19540119 and e.number(base + 1000, 8, order) != base:
                continue
            parts = [e.number(base + offset, 4, order) for offset in (144, 148)]
            return Identity(
                "ufs",
                label=e.text(base + 680, 32) if magic == 0x19540119 else "",
                uuid=f"{parts[0]:08x}{parts[1]:08x}" if any(parts) else "",
                notes=("UFS2" if magic == 0x19540119 else "UFS1",),
            )
    return None


_SUSPENDED = {b"S1SUSPEND\0", b"S2SUSPEND\0", b"ULSUSPEND\0", b"LINHIB0001"}


def swap(e: Evidence) -> Identity | None:
    """Source: Linux, linux/swap.h, union swap_header; suspend images: kernel/power/swap.c, uswsusp.

    The signature ends the first page, of the machine's page size.
    """
    for page in (4096, 8192, 16384, 32768, 65536):
        signature = e.at(page - 10, 10)
        if signature == b"SWAP-SPACE":
            return Identity("swap", holds_files=False)
        if signature == b"SWAPSPACE2" or signature in _SUSPENDED:
            kind = "swap" if signature == b"SWAPSPACE2" else "swsuspend"
            label, uuid = e.text(1052, 16), e.uuid(1036)
            return Identity(kind, holds_files=False, label=label, uuid=uuid)
    return None
