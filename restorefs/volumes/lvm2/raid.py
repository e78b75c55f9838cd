"""LVM2's RAID volumes: dm-raid on pairs of an image and its metadata.

Owns which legs may be read, and where: a leg that failed, or is being rebuilt, has a Missing in the
place of what is out of date, so that the devices above read another one, or compute it.

Source: lvmraid(7); Linux, Documentation/admin-guide/device-mapper/dm-raid.rst.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from restorefs.block.base import BlockDevice, ByteLength, Window
from restorefs.errors import DamagedError, StorageError, UnsupportedError
from restorefs.volumes.devices.concatenated import concatenated
from restorefs.volumes.devices.mirrored import Mirrored
from restorefs.volumes.devices.missing import not_there
from restorefs.volumes.devices.parity import MAX_MEMBERS, Consistent, Parity
from restorefs.volumes.devices.striped import Striped
from restorefs.volumes.lvm2 import dmraid
from restorefs.volumes.lvm2.builder import Builder
from restorefs.volumes.lvm2.dmraid import ALL, Bitmap, Superblock
from restorefs.volumes.lvm2.layout import SECTOR
from restorefs.volumes.lvm2.metadata import LogicalVolume, Segment

_LAYOUTS = {
    (5, 0): "raid5_la", (5, 1): "raid5_ra", (5, 2): "raid5_ls", (5, 3): "raid5_rs",
    (5, 4): "raid5_0", (5, 5): "raid5_n",
    (6, 5): "raid6_n_6", (6, 8): "raid6_zr", (6, 9): "raid6_nr", (6, 10): "raid6_nc",
    (6, 16): "raid6_la_6", (6, 17): "raid6_ra_6", (6, 18): "raid6_ls_6", (6, 19): "raid6_rs_6",
}  # fmt: skip
"""MD's numbers of level and layout, and the names of dm-raid."""

_SHORT = {"raid5": "raid5_ls", "raid6": "raid6_zr"}
RAID_TYPES = (
    "raid1", "raid10", "raid10_near", "raid4", "raid5", "raid6", *_LAYOUTS.values(),
)  # fmt: skip


@dataclass(slots=True)
class _Leg:
    """image: what holds the data. superblock: None where it cannot be read; then the image is not
    used either, for nothing says whether it is up to date. lost: the metadata is not at hand. why:
    the image is not used, or ""."""

    image: BlockDevice
    metadata: BlockDevice
    superblock: Superblock | None = None
    lost: bool = False
    why: str = ""


async def make_raid0(builder: Builder, volume: LogicalVolume, segment: Segment) -> BlockDevice:
    """RAID 0 has nothing that could be out of date; its metadata only tells of reshaping."""
    if segment.kind == "raid0":
        names = segment.names("raid0_lvs")
        images = [await builder.part(volume, name) for name in _few(volume, names)]
    else:
        legs = await _legs(builder, volume, segment)
        images = [leg.image for leg in legs]
        known = [leg.superblock for leg in legs if leg.superblock is not None]
        if any((s.level, s.chunk) != (0, segment.number("stripe_size")) for s in known):
            raise DamagedError(f"the metadata of the logical volume {volume.name} is not of RAID 0")
    if segment.number("stripe_count") != len(images):
        raise DamagedError(f"the logical volume {volume.name} has {len(images)} stripes")
    chunk = segment.number("stripe_size") * SECTOR
    return Striped(images, chunk, builder.size_of(segment))


async def make_raid(builder: Builder, volume: LogicalVolume, segment: Segment) -> BlockDevice:
    """RAID 1, 4, 5, 6 and 10. Raises UnsupportedError while it is reshaped."""
    legs = await _legs(builder, volume, segment)
    if segment.number("device_count") != len(legs):
        raise DamagedError(f"the logical volume {volume.name} has {len(legs)} legs")
    known = [leg.superblock for leg in legs if leg.superblock is not None]
    if not known:
        return _unknown(volume, legs, builder.size_of(segment))
    newest = max(known, key=lambda superblock: superblock.events)
    _check(volume, segment, newest, len(legs))
    for index, leg in enumerate(legs):
        leg.why = leg.why or _why_not(leg, index, newest)
    images = [_up_to_date(volume, leg, index) for index, leg in enumerate(legs)]
    size = _size(builder, volume, segment, newest)
    if newest.level in (1, 10):
        builder.notes += _lost(volume, legs, newest)
    if newest.level == 1:
        return Mirrored(_synchronised(images, newest.synchronised * SECTOR, newest.failed), size)
    chunk = newest.chunk * SECTOR
    if newest.level == 10:
        return _striped_mirrors(volume, images, newest, size)
    layout = "raid4" if newest.level == 4 else _LAYOUTS[newest.level, newest.layout]
    never = "NOTSYNCED" in volume.flags  # lvcreate --nosync: parity fits only some of what follows
    consistent = _nowhere if never else await _consistent(legs, newest)
    return Parity(images, chunk, layout, size, consistent)


async def _legs(builder: Builder, volume: LogicalVolume, segment: Segment) -> list[_Leg]:
    """Return the pairs of metadata and image. Raises UnsupportedError as decode_superblock()."""
    names = segment.names("raids")
    if len(names) % 2 or len(set(names)) != len(names):
        raise DamagedError(f"the logical volume {volume.name} has {len(names)} parts")
    legs = []
    for metadata_name, image_name in zip(names[::2], _few(volume, names[1::2]), strict=True):
        metadata = await builder.part(volume, metadata_name)
        image = await builder.part(volume, image_name)
        leg = _Leg(image, metadata)
        try:
            raw = await metadata.read(0, min(dmraid.SUPERBLOCK_SIZE, metadata.size))
        except StorageError as error:
            leg.lost, leg.why = True, str(error)
        else:
            leg.superblock = dmraid.decode_superblock(raw)
            if leg.superblock is None:
                leg.why = f"{metadata_name} holds no superblock"
        legs.append(leg)
    return legs


def _few(volume: LogicalVolume, names: list[str]) -> list[str]:
    if not 0 < len(names) <= MAX_MEMBERS or len(set(names)) != len(names):
        raise DamagedError(f"the logical volume {volume.name} has {len(names)} legs")
    return names


def _unknown(volume: LogicalVolume, legs: Sequence[_Leg], size: ByteLength) -> BlockDevice:
    """Return what an array reads as of which no superblock can be read."""
    if not all(leg.lost for leg in legs):
        raise DamagedError(f"no leg of the logical volume {volume.name} holds a superblock")
    return not_there(size, f"no leg of {volume.name} can be read: {legs[0].why}")


def _check(volume: LogicalVolume, segment: Segment, newest: Superblock, count: int) -> None:
    """Raise DamagedError where superblock and text contradict each other: one of them was not
    written yet when the snapshot was made, and the bytes would be in the wrong order."""
    level, layout = newest.level, newest.layout
    named = _SHORT.get(segment.kind, segment.kind)
    if level == 1:
        said = ["raid1"]
    elif level == 10:
        said = ["raid10", "raid10_near"]
    elif level == 4:
        said = ["raid4"]
    else:
        said = [_LAYOUTS.get((level, layout), "?")]
        said += ["raid4"] if (level, layout) in ((5, 4), (5, 5)) else []
    if named not in said or newest.legs != count:
        raise DamagedError(
            f"the logical volume {volume.name} is {segment.kind} on {count} legs, its metadata"
            f" says level {level}, layout {layout}, on {newest.legs} legs"
        )
    if level != 1 and newest.chunk != segment.number("stripe_size"):
        raise DamagedError(f"the logical volume {volume.name} has chunks of two different sizes")


def _why_not(leg: _Leg, index: int, newest: Superblock) -> str:
    """Return why a leg with a superblock is not used, or ""."""
    superblock = leg.superblock
    assert superblock is not None
    if superblock.position != index:
        return f"it says that it is leg {superblock.position}"
    if (newest.failed | superblock.failed) >> index & 1:
        return "it had failed"
    if superblock.events + 1 < newest.events:  # one less: it was being written just then
        return "it is out of date"
    return ""


def _up_to_date(volume: LogicalVolume, leg: _Leg, index: int) -> BlockDevice:
    """Return a leg's data, as far as it is up to date; the rest of it raises StorageError."""
    if leg.superblock is None or leg.why:
        return not_there(leg.image.size, f"leg {index} of {volume.name} is not used: {leg.why}")
    image = leg.image
    rebuilt = leg.superblock.rebuilt * SECTOR
    if leg.superblock.rebuilt == ALL or rebuilt >= image.size:
        return image
    rest = not_there(image.size - rebuilt, f"leg {index} of {volume.name} is not rebuilt there")
    return concatenated([Window(image, 0, rebuilt), rest]) if rebuilt else rest


def _lost(volume: LogicalVolume, legs: Sequence[_Leg], newest: Superblock) -> list[str]:
    """Return a note where a copy is missing that the others do not call failed: if it was these
    that had failed, nothing at hand says so."""
    lost = [
        n for n, leg in enumerate(legs) if leg.superblock is None and not newest.failed >> n & 1
    ]
    numbers = ", ".join(str(number) for number in lost)
    return [f"{volume.name}: leg {numbers} is missing, and may have been newer"] if lost else []


def _size(
    builder: Builder, volume: LogicalVolume, segment: Segment, newest: Superblock
) -> ByteLength:
    """Return how many bytes of data an array has: the text counts the room for reshaping too, on
    each leg with data."""
    near = newest.layout & 0xFF
    lacking = {1: newest.legs - 1, 6: 2, 10: newest.legs - newest.legs // max(near, 1)}
    data = newest.legs - lacking.get(newest.level, 1)
    extents = segment.count - segment.number("reshape_count", 0) * data
    if extents <= 0:
        raise DamagedError(f"the logical volume {volume.name} is all room for reshaping")
    return extents * builder.extent_size


def _synchronised(images: Sequence[BlockDevice], end: ByteLength, failed: int) -> list[BlockDevice]:
    """Return copies of one another, of which only one is sure to be right behind `end`: the first
    that has not failed, for the others are being made the same as that. failed: a bit each."""
    source = next((index for index in range(len(images)) if not failed >> index & 1), 0)
    return [image if index == source else _until(image, end) for index, image in enumerate(images)]


def _until(image: BlockDevice, end: ByteLength) -> BlockDevice:
    if end >= image.size:
        return image
    rest = not_there(image.size - end, "the copies of a mirror are not synchronised there")
    return concatenated([Window(image, 0, end), rest]) if end else rest


def _striped_mirrors(
    volume: LogicalVolume, images: Sequence[BlockDevice], newest: Superblock, size: ByteLength
) -> BlockDevice:
    """RAID 10, "near": the copies of a chunk are next to each other."""
    near, far = newest.layout & 0xFF, newest.layout >> 8 & 0xFF
    if far != 1 or newest.layout >> 16 or not 1 < near <= len(images) or len(images) % near:
        raise UnsupportedError(
            f"the logical volume {volume.name} is RAID 10 with layout {newest.layout:#x}"
            f" on {len(images)} legs, which is not read"
        )
    chunk = newest.chunk * SECTOR
    pairs = len(images) // near
    # Synchronising counts sectors of the array: whole rows of it are done on every leg.
    rows = newest.synchronised * SECTOR // (chunk * pairs) if chunk else 0
    mirrors = [
        Mirrored(_synchronised(images[first : first + near], rows * chunk, newest.failed >> first))
        for first in range(0, len(images), near)
    ]
    return Striped(mirrors, chunk, size)


def _nowhere(offset: int, length: int) -> bool:
    return False


async def _consistent(legs: Sequence[_Leg], newest: Superblock) -> Consistent:
    """Return where the parity of an array can be relied on.

    An array that had lost a leg already is read as the kernel would. One whose leg is missing only
    here was complete, and where it was being written to, data and parity may not fit.
    """
    end = newest.synchronised * SECTOR
    bitmap = None
    lost = [index for index, leg in enumerate(legs) if leg.why and not newest.failed >> index & 1]
    if lost:
        try:
            bitmap = await _bitmap(legs, newest)
        except (DamagedError, StorageError):  # nothing says where it can be relied on
            end = 0

    def consistent(offset: int, length: int) -> bool:
        if offset + length > end:
            return False
        return bitmap is None or bitmap.clean(offset, length)

    return consistent


async def _bitmap(legs: Sequence[_Leg], newest: Superblock) -> Bitmap | None:
    """Return the bitmap of the newest leg; None where there is none. Raises DamagedError."""
    leg = next(leg for leg in legs if leg.superblock is newest)
    start = dmraid.BITMAP_OFFSET
    if leg.metadata.size < start + dmraid.BITMAP_HEADER:
        return None
    header = await leg.metadata.read(start, dmraid.BITMAP_HEADER)
    region, length = dmraid.decode_bitmap_header(header)
    if start + dmraid.BITMAP_HEADER + length > leg.metadata.size:
        raise DamagedError("the bitmap of writes of an array leaves its metadata")
    return Bitmap(region, await leg.metadata.read(start + dmraid.BITMAP_HEADER, length))
