"""Which volume schemes there are, what divides a disk, and what joins disks.

Owns the order in which schemes are asked. Must not know any format. Any number of disks may be
read at once; nothing is kept.
"""

from restorefs.block.base import BlockDevice
from restorefs.volumes.base import WHOLE_DISK_INDEX, Volume, VolumeScheme, VolumeTable
from restorefs.volumes.gpt import Gpt
from restorefs.volumes.groups import GroupScheme
from restorefs.volumes.lvm2.scheme import Lvm2
from restorefs.volumes.mbr import Mbr

SCHEMES: tuple[type[VolumeScheme], ...] = (Gpt, Mbr)
"""GPT first: its disks start with an MBR that only says so."""

GROUP_SCHEMES: tuple[type[GroupScheme], ...] = (Lvm2,)
"""What makes volumes of members that may lie on several disks."""


async def read_table(device: BlockDevice) -> VolumeTable:
    """Return a disk's volumes; a disk without a table is one volume, with scheme "none".

    Raises DamagedError when the disk has a table of which no copy can be used, StorageError.
    """
    for scheme in SCHEMES:
        table = await scheme.read_table(device)
        if table is not None:
            return table
    whole = Volume(name=b"", index=WHOLE_DISK_INDEX, device=device, start=0)
    return VolumeTable(scheme="none", volumes=(whole,))
