"""The binary structures of an LVM2 physical volume.

Pure: bytes in, values out. Owns the label, the physical volume's header and the header of a
metadata area. All numbers are little-endian; offsets and sizes are bytes.

Source: libvslvm, "Logical Volume Manager (LVM) format"; Red Hat, "Logical Volume Manager
Administration", appendix "LVM volume group metadata"; pvck(8), "--dump headers".
"""

import struct
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from restorefs.block.base import ByteLength, ByteOffset
from restorefs.errors import DamagedError

SECTOR = 512
LABEL_SECTORS = 4
"""A label is in one of the first four sectors."""

_LABEL = struct.Struct("<8sQII8s")
"""+0 "LABELONE", +8 its own sector, +16 checksum from byte 20 to the sector's end, +20 offset of
the physical volume's header in the sector, +24 "LVM2 001"."""

_HEADER = struct.Struct("<32sQ")
"""+0 UUID as 32 characters, +32 size of the device; then areas of data, and areas of metadata, each
a list of (offset, size) that an entry of zeros ends; then the extension."""

_AREA = struct.Struct("<QQ")
_EXTENSION = struct.Struct("<II")
"""+0 version, from 1; +4 flags: 1 used by a group. Bootloader areas follow, which nobody needs."""

_METADATA_HEADER = struct.Struct("<I16sIQQ")
"""+0 checksum from byte 4 to 512, +4 magic, +20 version, +24 offset on the device, +32 size."""

_LOCATION = struct.Struct("<QQII")
"""+0 offset in the area, +8 size, +16 checksum of the text, +20 flags."""

METADATA_HEADER_SIZE = 512
_MAGIC = b" LVM2 x[5A%r0N*>"
_IGNORED = 1
_CRC_START = 0xF597A6CF
_MAX_TEXT: ByteLength = 16 << 20
_UUID_CUTS = (0, 6, 10, 14, 18, 22, 26, 32)


class Area(NamedTuple):
    """A range of the device; data areas may have size 0, up to its end."""

    offset: ByteOffset
    size: ByteLength


class Label(NamedTuple):
    """What a physical volume says of itself. size: of the device, as it was formatted."""

    uuid: str
    size: ByteLength
    data: Sequence[Area]
    metadata: Sequence[Area]


class Location(NamedTuple):
    """Where the text of a metadata area is: ranges of the device to be read one after the other,
    two where it wraps, and the checksum of all of it."""

    ranges: Sequence[Area]
    checksum: int


def crc(data: bytes) -> int:
    """Return LVM's checksum: CRC-32 with a start value of its own and no final inversion."""
    return zlib.crc32(data, _CRC_START ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def uuid_text(raw: bytes) -> str:
    """Return a UUID as LVM's tools print it. Raises DamagedError unless it is 32 characters."""
    if len(raw) != 32 or not raw.translate(None, b"!#").isalnum():
        raise DamagedError(f"an LVM UUID is {raw!r}")
    text = raw.decode("ascii")
    return "-".join(text[start:end] for start, end in pairwise(_UUID_CUTS))


def decode_label(head: bytes) -> Label:
    """Decode the first good label in a device's first four sectors.

    Raises DamagedError where there is none.
    """
    wrong = "there is no LVM2 label"
    for sector in range(LABEL_SECTORS):
        raw = head[sector * SECTOR :][:SECTOR]
        if len(raw) < SECTOR or raw[:8] != b"LABELONE":
            continue
        _, own, checksum, offset, kind = _LABEL.unpack_from(raw)
        if kind != b"LVM2 001":
            wrong = f"the LVM label in sector {sector} is of type {kind!r}"
        elif checksum != crc(raw[20:]):
            wrong = f"the checksum of the LVM2 label in sector {sector} is wrong"
        elif own != sector:
            wrong = f"the LVM2 label in sector {sector} says that it is in sector {own}"
        elif not _LABEL.size <= offset <= SECTOR - _HEADER.size:
            wrong = f"the LVM2 label in sector {sector} has its header at {offset}"
        else:
            return _decode_header(raw[offset:])
    raise DamagedError(wrong)


def _decode_header(raw: bytes) -> Label:
    identity, size = _HEADER.unpack_from(raw)
    data, offset = _areas(raw, _HEADER.size)
    metadata, _ = _areas(raw, offset)
    return Label(uuid_text(identity), size, data, metadata)


def _areas(raw: bytes, offset: int) -> tuple[list[Area], int]:
    """Return a list of areas and where it ends."""
    areas: list[Area] = []
    while offset + _AREA.size <= len(raw):
        area = Area(*_AREA.unpack_from(raw, offset))
        offset += _AREA.size
        if area.offset == 0:
            return areas, offset
        areas.append(area)
    raise DamagedError("a list of areas in an LVM2 label has no end")


def decode_metadata_header(raw: bytes, area: Area) -> Location | None:
    """Return where the text of a metadata area is; None where there is none, or it is ignored.

    raw: the area's first 512 bytes. A group may be told not to use an area (pvchange
    --metadataignore): what is in there is out of date. Raises DamagedError.
    """
    if len(raw) < METADATA_HEADER_SIZE:
        raise DamagedError("the header of an LVM2 metadata area leaves the device")
    checksum, magic, version, start, size = _METADATA_HEADER.unpack_from(raw)
    if magic != _MAGIC or checksum != crc(raw[4:METADATA_HEADER_SIZE]):
        raise DamagedError("the header of an LVM2 metadata area is damaged")
    if version != 1:
        raise DamagedError(f"an LVM2 metadata area has version {version}")
    if start != area.offset or size > area.size or size <= METADATA_HEADER_SIZE:
        raise DamagedError(f"an LVM2 metadata area at {area.offset} says it is at {start}")
    # The first location is what was committed; the second what a command was about to commit.
    offset, length, text_checksum, flags = _LOCATION.unpack_from(raw, _METADATA_HEADER.size)
    if offset == 0 or length == 0 or flags & _IGNORED:
        return None
    room = size - METADATA_HEADER_SIZE
    if not METADATA_HEADER_SIZE <= offset < size or length > min(room, _MAX_TEXT):
        raise DamagedError(f"an LVM2 metadata area has its text at {offset}, {length} bytes")
    first = min(length, size - offset)
    ranges = [Area(start + offset, first)]
    if first < length:
        ranges.append(Area(start + METADATA_HEADER_SIZE, length - first))
    return Location(ranges, text_checksum)
