"""What a volume holds, told by published signatures.

Owns the order in which kinds are tried, and their names for people. Recognising is not reading:
whoever can read a kind probes it too, and better. Pure: works on what was read beforehand
(Evidence), and nothing a volume contains makes it raise. Where a signature is short, structure or
a checksum must confirm it: calling foreign bytes a file system hides what is really there.
"""

from collections.abc import Callable
from typing import TypeAlias

from restorefs.guestfs.base import Identity
from restorefs.guestfs.recognise import filesystems, wrappers
from restorefs.guestfs.recognise.evidence import Evidence

Row: TypeAlias = Callable[[Evidence], Identity | None]

TITLES = {
    "apfs": "APFS",
    "bcache": "bcache",
    "bcachefs": "bcachefs",
    "BitLocker": "BitLocker",
    "btrfs": "Btrfs",
    "crypto_LUKS": "LUKS",
    "drbd": "DRBD",
    "erofs": "EROFS",
    "exfat": "exFAT",
    "f2fs": "F2FS",
    "gpt": "A GPT partition table in a volume",
    "hfs": "HFS",
    "hfsplus": "HFS+",
    "iso9660": "ISO 9660",
    "jfs": "JFS",
    "LDM_member": "Windows dynamic disk (LDM)",
    "linux_raid_member": "Linux MD RAID",
    "LVM2_member": "LVM2",
    "mbr": "An MBR partition table in a volume",
    "nilfs2": "NILFS2",
    "ntfs": "NTFS",
    "ReFS": "ReFS",
    "reiserfs": "ReiserFS",
    "squashfs": "SquashFS",
    "squashfs3": "SquashFS before version 4",
    "storage_spaces_member": "Windows Storage Spaces",
    "swap": "Swap space",
    "swsuspend": "Hibernated system",
    "udf": "UDF",
    "ufs": "UFS",
    "vfat": "FAT",
    "VMFS_volume_member": "VMFS",
    "xfs": "XFS",
    "xfs_external_log": "XFS journal",
    "zfs_member": "ZFS",
}
"""What people call a kind."""

WRAPPERS: tuple[Row, ...] = (
    wrappers.bitlocker,
    wrappers.luks,
    wrappers.lvm2_member,
    wrappers.md_member,
    wrappers.bcache,
    wrappers.zfs_member,
)
"""To be asked before anything else, readers too, because what they wrap may show through at its own
offset: the first member of an MD RAID 5 with its superblock at the end starts like the file system
on it, and reading that as one would return parity for data."""

OTHERS: tuple[Row, ...] = (
    # The first sector before what is further in: what is there was written later.
    filesystems.refs,
    filesystems.apfs,
    filesystems.squashfs,
    filesystems.hfsplus,
    filesystems.f2fs,
    filesystems.erofs,
    filesystems.nilfs2,
    filesystems.bcachefs,
    filesystems.swap,
    filesystems.jfs,
    filesystems.reiserfs,
    filesystems.btrfs,
    filesystems.udf,
    filesystems.iso9660,
    filesystems.ufs,
    filesystems.xfs_external_log,
    # These leave the start of the volume to others, or may be left over behind it.
    wrappers.drbd,
    wrappers.ldm_member,
    wrappers.storage_spaces_member,
    wrappers.vmfs_member,
)
"""To be asked after the readers."""


def first_match(rows: tuple[Row, ...], evidence: Evidence) -> Identity | None:
    """Return what the first row that recognises the evidence makes of it, or None."""
    return next((found for row in rows if (found := row(evidence))), None)
