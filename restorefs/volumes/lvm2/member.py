"""What an LVM2 physical volume says of itself and of its group.

Owns reading the label and every copy of the text that the device has. A copy that is damaged is a
failure to be told of, not an error: another one, here or on another member, may be good.

Concurrency: any number of members may be read at once; nothing is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import trio

from restorefs.block.base import BlockDevice
from restorefs.errors import DamagedError, RestoreError, StorageError
from restorefs.volumes.groups import Member
from restorefs.volumes.lvm2.layout import (
    LABEL_SECTORS,
    METADATA_HEADER_SIZE,
    SECTOR,
    Area,
    Label,
    Location,
    decode_label,
    decode_metadata_header,
)
from restorefs.volumes.lvm2.layout import crc as checksum_of
from restorefs.volumes.lvm2.metadata import VolumeGroup, decode_group
from restorefs.volumes.lvm2.text import parse

_LONG = 256 << 10
"""A text that is longer, of a thousand volumes or so, is not parsed in the event loop."""


@dataclass(frozen=True, slots=True)
class Copies:
    """The copies of the text on one member: good ones, and what is wrong with the others."""

    label: Label
    groups: Sequence[VolumeGroup]
    failures: Sequence[RestoreError]


async def read_member(device: BlockDevice) -> Member:
    """Return a member. Raises DamagedError where it has no good label, StorageError."""
    label = decode_label(await device.read(0, min(LABEL_SECTORS * SECTOR, device.size)))
    found: dict[int, VolumeGroup] = {}  # by checksum: both areas usually hold the same
    failures: list[RestoreError] = []
    for number, area in enumerate(label.metadata, 1):
        try:
            location = await _locate(device, area)
            if location is not None and location.checksum not in found:
                found[location.checksum] = await _read_group(device, location)
        except StorageError:
            raise
        except RestoreError as error:
            failures.append(DamagedError(f"metadata area {number} is damaged: {error}"))
    copies = Copies(label, list(found.values()), failures)
    newest = max(copies.groups, key=lambda group: group.seqno, default=None)
    if newest is None:
        return Member(label.uuid, device, metadata=copies)
    return Member(
        uuid=label.uuid,
        device=device,
        group_uuid=newest.uuid,
        group_name=newest.name,
        wanted=frozenset(member.uuid for member in newest.members.values()),
        metadata=copies,
    )


async def _locate(device: BlockDevice, area: Area) -> Location | None:
    return decode_metadata_header(await device.read(area.offset, METADATA_HEADER_SIZE), area)


async def _read_group(device: BlockDevice, location: Location) -> VolumeGroup:
    text = b"".join([await device.read(part.offset, part.size) for part in location.ranges])
    if checksum_of(text) != location.checksum:
        raise DamagedError("the checksum of its text is wrong")
    if len(text) <= _LONG:
        return _decoded(text)
    return await trio.to_thread.run_sync(_decoded, text)


def _decoded(text: bytes) -> VolumeGroup:
    return decode_group(parse(text))
