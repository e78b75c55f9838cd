"""The volume scheme seam.

Owns what a volume is to the layers above: a name, a stable index, and a block device. Must not
know about file systems, backups or FUSE.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from restorefs.block.base import BlockDevice, ByteOffset
from restorefs.errors import RestoreError

WHOLE_DISK_INDEX = 0


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume of a disk.

    name: the folder's name, such as b"part2"; b"" for a whole disk without a table.
    index: the same number for the same volume at every attach; 0 for the whole disk, otherwise
        the partition's number; volumes of groups are numbered behind the partitions.
    start: byte offset on the disk, for people; None where the volume is not one run of bytes.
    type_name: what the table says it holds, such as "Linux filesystem" or "EFI system".
    type_code: the table's own code, "0x83" or a GUID in upper case.
    label, uuid: the table's (PARTLABEL, PARTUUID), not the file system's; "" where there is none.
    reserved: the table says that this never holds files (MSR, BIOS boot, swap, extended).
    error: why the volume's bytes cannot be read, or None.
    """

    name: bytes
    index: int
    device: BlockDevice | None
    start: ByteOffset | None = None
    type_name: str = ""
    type_code: str = ""
    label: str = ""
    uuid: str = ""
    reserved: bool = False
    error: RestoreError | None = None


@dataclass(frozen=True, slots=True)
class VolumeTable:
    """All volumes that a scheme found on a disk, in the table's order.

    scheme: "gpt", "mbr", "none" (the whole disk is one volume).
    notes: what people should know, such as "primary GPT damaged, backup table used".
    """

    scheme: str
    volumes: Sequence[Volume]
    sector_size: int = 512
    uuid: str = ""
    notes: Sequence[str] = ()


class VolumeScheme(ABC):
    """A way to divide a disk."""

    kind: ClassVar[str]

    @classmethod
    @abstractmethod
    async def read_table(cls, device: BlockDevice) -> VolumeTable | None:
        """Return the disk's volumes, or None where the disk does not use this scheme.

        Raises DamagedError when it does, but neither the table nor a copy of it can be used.
        """
