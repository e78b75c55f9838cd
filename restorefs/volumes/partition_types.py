"""What the type codes of partition tables mean.

Owns the names that people see and which types never hold files. Pure data: knows nothing of
disks. A code that is not listed has no name, which costs nothing: what a volume holds is told by
its content, never by its type.

Sources: UEFI specification 2.10 section 5.3.3; systemd's Discoverable Partitions Specification;
Microsoft's documentation of CREATE_PARTITION_PARAMETERS and of the MBR partition types; VMware,
Apple (TN2166), FreeBSD gpart(8) and Oracle's documentation for their own.
"""

from typing import NamedTuple


class PartitionType(NamedTuple):
    """name: for people. reserved: partitions of this type never hold files."""

    name: str
    reserved: bool = False


UNKNOWN = PartitionType("")

MBR_EXTENDED = frozenset({0x05, 0x0F, 0x85})
MBR_PROTECTIVE = 0xEE
MBR_DYNAMIC_DISK = 0x42

MBR_TYPES = {
    0x01: PartitionType("FAT12"),
    0x04: PartitionType("FAT16 below 32 MiB"),
    0x05: PartitionType("Extended", reserved=True),
    0x06: PartitionType("FAT16"),
    0x07: PartitionType("NTFS or exFAT"),
    0x0B: PartitionType("FAT32"),
    0x0C: PartitionType("FAT32 (LBA)"),
    0x0E: PartitionType("FAT16 (LBA)"),
    0x0F: PartitionType("Extended (LBA)", reserved=True),
    0x11: PartitionType("Hidden FAT12"),
    0x12: PartitionType("Vendor diagnostics"),
    0x14: PartitionType("Hidden FAT16 below 32 MiB"),
    0x16: PartitionType("Hidden FAT16"),
    0x17: PartitionType("Hidden NTFS or exFAT"),
    0x1B: PartitionType("Hidden FAT32"),
    0x1C: PartitionType("Hidden FAT32 (LBA)"),
    0x1E: PartitionType("Hidden FAT16 (LBA)"),
    0x27: PartitionType("Windows recovery"),
    0x41: PartitionType("PReP boot", reserved=True),
    0x42: PartitionType("Windows dynamic disk"),
    0x63: PartitionType("GNU Hurd or System V"),
    0x80: PartitionType("Old Minix"),
    0x81: PartitionType("Minix"),
    0x82: PartitionType("Linux swap", reserved=True),
    0x83: PartitionType("Linux filesystem"),
    0x85: PartitionType("Linux extended", reserved=True),
    0x88: PartitionType("Linux plain text"),
    0x8E: PartitionType("Linux LVM"),
    0xA5: PartitionType("FreeBSD"),
    0xA6: PartitionType("OpenBSD"),
    0xA8: PartitionType("Apple UFS"),
    0xA9: PartitionType("NetBSD"),
    0xAB: PartitionType("Apple boot"),
    0xAF: PartitionType("Apple HFS+"),
    0xBE: PartitionType("Solaris boot"),
    0xBF: PartitionType("Solaris"),
    0xDA: PartitionType("Non-filesystem data"),
    0xDE: PartitionType("Dell utility"),
    0xEA: PartitionType("Linux extended boot"),
    0xEB: PartitionType("BeOS filesystem"),
    0xEE: PartitionType("GPT protective", reserved=True),
    0xEF: PartitionType("EFI system"),
    0xFB: PartitionType("VMware VMFS"),
    0xFC: PartitionType("VMware core dump", reserved=True),
    0xFD: PartitionType("Linux RAID"),
}

GPT_TYPES = {
    # UEFI
    "C12A7328-F81F-11D2-BA4B-00A0C93EC93B": PartitionType("EFI system"),
    "024DEE41-33E7-11D3-9D69-0008C781F39F": PartitionType("MBR partition scheme"),
    # Boot loaders without a file system
    "21686148-6449-6E6F-744E-656564454649": PartitionType("BIOS boot", reserved=True),
    "9E1A2D38-C612-4316-AA26-8B49521E5A8B": PartitionType("PReP boot", reserved=True),
    # Microsoft
    "E3C9E316-0B5C-4DB8-817D-F92DF00215AE": PartitionType("Microsoft reserved", reserved=True),
    "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7": PartitionType("Microsoft basic data"),
    "5808C8AA-7E8F-42E0-85D2-E1E90434CFB3": PartitionType("LDM metadata", reserved=True),
    "AF9B60A0-1431-4F62-BC68-3311714A69AD": PartitionType("LDM data"),
    "DE94BBA4-06D1-4D40-A16A-BFD50179D6AC": PartitionType("Windows recovery"),
    "E75CAF8F-F680-4CEE-AFA3-B001E56EFC2D": PartitionType("Windows Storage Spaces"),
    # Linux
    "0FC63DAF-8483-4772-8E79-3D69D8477DE4": PartitionType("Linux filesystem"),
    "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F": PartitionType("Linux swap", reserved=True),
    "A19D880F-05FC-4D3B-A006-743F0F84911E": PartitionType("Linux RAID"),
    "E6D6D379-F507-44C2-A23C-238F2A3DF928": PartitionType("Linux LVM"),
    "8DA63339-0007-60C0-C436-083AC8230908": PartitionType("Linux reserved", reserved=True),
    "7FFEC5C9-2D00-49B7-8941-3EA10A5586B7": PartitionType("Linux dm-crypt"),
    "CA7D7CCB-63ED-4C53-861C-1742536059CC": PartitionType("Linux LUKS"),
    "BC13C2FF-59E6-4262-A352-B275FD6F7172": PartitionType("Linux extended boot"),
    "933AC7E1-2EB4-4F13-B844-0E14E2AEF915": PartitionType("Linux /home"),
    "773F91EF-66D4-49B5-BD83-D683BF40AD16": PartitionType("Linux user's home"),
    "3B8F8425-20E0-4F3B-907F-1A25A76F98E8": PartitionType("Linux /srv"),
    "4D21B016-B534-45C2-A9FB-5C16E091FD2D": PartitionType("Linux /var"),
    "7EC6F557-3BC5-4ACA-B293-16EF5DF639D1": PartitionType("Linux /var/tmp"),
    "44479540-F297-41B2-9AF7-D131D5F0458A": PartitionType("Linux root (x86)"),
    "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709": PartitionType("Linux root (x86-64)"),
    "69DAD710-2CE4-4E3C-B16C-21A1D49ABED3": PartitionType("Linux root (ARM)"),
    "B921B045-1DF0-41C3-AF44-4C6F280D3FAE": PartitionType("Linux root (ARM64)"),
    "72EC70A6-CF74-40E6-BD49-4BDA08E8F224": PartitionType("Linux root (RISC-V 64)"),
    "C31C45E6-3F39-412E-80FB-4809C4980599": PartitionType("Linux root (PPC64LE)"),
    "5EEAD9A9-FE09-4A1E-A1D7-520D00531306": PartitionType("Linux root (S390X)"),
    "75250D76-8CC6-458E-BD66-BD47CC81A812": PartitionType("Linux /usr (x86)"),
    "8484680C-9521-48C6-9C11-B0720656F69E": PartitionType("Linux /usr (x86-64)"),
    "7D0359A3-02B3-4F0A-865C-654403E70625": PartitionType("Linux /usr (ARM)"),
    "B0E01050-EE5F-4390-949A-9101B17104E9": PartitionType("Linux /usr (ARM64)"),
    "2C7357ED-EBD2-46D9-AEC1-23D437EC2BF5": PartitionType("Linux root verity (x86-64)"),
    "DF3300CE-D69F-4C92-978C-9BFB0F38D820": PartitionType("Linux root verity (ARM64)"),
    "77FF5F63-E7B6-4633-ACF4-1565B864C0E6": PartitionType("Linux /usr verity (x86-64)"),
    "6E11A4E7-FBCA-4DED-B9E9-E1A512BB664E": PartitionType("Linux /usr verity (ARM64)"),
    # VMware
    "AA31E02A-400F-11DB-9590-000C2911D1B8": PartitionType("VMware VMFS"),
    "9D275380-40AD-11DB-BF97-000C2911D1B8": PartitionType("VMware core dump", reserved=True),
    "9198EFFC-31C0-11DB-8F78-000C2911D1B8": PartitionType("VMware reserved", reserved=True),
    "381CFCCC-7288-11E0-92EE-000C2911D0B2": PartitionType("VMware vSAN"),
    # BSD
    "516E7CB4-6ECF-11D6-8FF8-00022D09712B": PartitionType("FreeBSD disklabel"),
    "83BD6B9D-7F41-11DC-BE0B-001560B84F0F": PartitionType("FreeBSD boot", reserved=True),
    "516E7CB5-6ECF-11D6-8FF8-00022D09712B": PartitionType("FreeBSD swap", reserved=True),
    "516E7CB6-6ECF-11D6-8FF8-00022D09712B": PartitionType("FreeBSD UFS"),
    "516E7CBA-6ECF-11D6-8FF8-00022D09712B": PartitionType("FreeBSD ZFS"),
    "516E7CB8-6ECF-11D6-8FF8-00022D09712B": PartitionType("FreeBSD Vinum"),
    "49F48D32-B10E-11DC-B99B-0019D1879648": PartitionType("NetBSD swap", reserved=True),
    "49F48D5A-B10E-11DC-B99B-0019D1879648": PartitionType("NetBSD FFS"),
    "824CC7A0-36A8-11E3-890A-952519AD3F61": PartitionType("OpenBSD data"),
    # Apple
    "48465300-0000-11AA-AA11-00306543ECAC": PartitionType("Apple HFS+"),
    "7C3457EF-0000-11AA-AA11-00306543ECAC": PartitionType("Apple APFS"),
    "53746F72-6167-11AA-AA11-00306543ECAC": PartitionType("Apple Core Storage"),
    "426F6F74-0000-11AA-AA11-00306543ECAC": PartitionType("Apple boot"),
    "52414944-0000-11AA-AA11-00306543ECAC": PartitionType("Apple RAID"),
    # Solaris; its /usr is also what ZFS on Linux and macOS use
    "6A82CB45-1DD2-11B2-99A6-080020736631": PartitionType("Solaris boot"),
    "6A85CF4D-1DD2-11B2-99A6-080020736631": PartitionType("Solaris root"),
    "6A898CC3-1DD2-11B2-99A6-080020736631": PartitionType("Solaris /usr or ZFS"),
    "6A87C46F-1DD2-11B2-99A6-080020736631": PartitionType("Solaris swap", reserved=True),
    "6A8EF2E9-1DD2-11B2-99A6-080020736631": PartitionType("Solaris /var"),
    "6A90BA39-1DD2-11B2-99A6-080020736631": PartitionType("Solaris /home"),
    "6A945A3B-1DD2-11B2-99A6-080020736631": PartitionType("Solaris reserved", reserved=True),
    # Others
    "4FBD7E29-9D25-41B8-AFD0-062C0CEFF05D": PartitionType("Ceph OSD"),
    "FE3A2A5D-4F32-41A7-B725-ACCC3285A309": PartitionType("ChromeOS kernel", reserved=True),
    "3CB8E202-3B7E-47DD-8A3C-7FF2A13CFCEC": PartitionType("ChromeOS root"),
    "2E0A753D-9E48-43B0-8337-B15192CB1B5E": PartitionType("ChromeOS reserved", reserved=True),
}
