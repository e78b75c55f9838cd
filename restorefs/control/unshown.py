"""Volumes that have no folder: why that is so, and whether files may be on them all the same.

Owns what is said of them. Must not know paths.

Concurrency: looking whether a volume is empty reads it, up to a bound; what was found is kept, for
what a disk of a generation holds never changes.
"""

import os
from collections import OrderedDict

from restorefs.block.base import BlockDevice
from restorefs.errors import RestoreError, UnsupportedError
from restorefs.guestfs.recognise import TITLES
from restorefs.session.disk import AttachedDisk, Content

_PIECE = 1 << 20
_PIECES = 64
_MAX_KEPT = 10_000


def why_not_shown(content: Content) -> RestoreError:
    """Return what is to be said to who asks for a volume by its name, which has no folder."""
    volume, identity = content.volume, content.identity
    name = os.fsdecode(volume.name)
    if content.is_member:
        return UnsupportedError(f"{name} is a part of a group, whose volumes are shown instead")
    if (error := volume.error or content.error) is not None:
        return type(error)(f"{name}: {error}")
    if identity is not None:
        title = TITLES.get(identity.kind, identity.kind)
        return UnsupportedError(f"{name}: {title} holds no files")
    kind = f" ({volume.type_name})" if volume.type_name else ""
    return UnsupportedError(f"{name}{kind}: nothing that restorefs recognises is stored there")


class Unshown:
    """The volumes that nothing was recognised on."""

    def __init__(self) -> None:
        self._empty: OrderedDict[tuple[int, int, int], bool] = OrderedDict()

    async def may_hold_files(self, disk: AttachedDisk, content: Content) -> bool:
        """Say of a volume that has no folder whether files may be on it, that is whether something
        is stored on it that nobody knows. Raises StorageError, DamagedError."""
        volume = content.volume
        known = content.identity is not None or content.is_member or volume.reserved
        if known or volume.device is None:
            return False
        key = disk.record.id, disk.generation, volume.index
        if key not in self._empty:
            self._empty[key] = await _is_empty(volume.device)
            if len(self._empty) > _MAX_KEPT:
                self._empty.popitem(last=False)
        return not self._empty[key]


async def _is_empty(device: BlockDevice) -> bool:
    """Whether there are only zeros on a device: on all of a small one, on pieces from the begin to
    the end of a large one."""
    length = min(_PIECE, device.size)
    last, zeros = device.size - length, bytes(length)
    steps = min(_PIECES, -(-device.size // _PIECE))
    for step in range(steps):
        start = last * step // max(steps - 1, 1)
        if await device.read_through([(start, length)]) != zeros:
            return False
    return True
