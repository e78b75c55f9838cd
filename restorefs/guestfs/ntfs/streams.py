"""Streams: the values of attributes, resident or in clusters, and where their bytes lie.

Owns how a range of a stream becomes extents: holes, what lies behind the valid data, compression
units. Pure but for the pause between the pieces of a long run list. Source: linux-ntfs,
"concepts" (attribute header, data runs, compression).

What is resident counts as encoded: on the volume the ends of a record's strides are replaced by
its fixups, so that its bytes do not lie there as they are.
"""

from collections.abc import Sequence

import trio

from restorefs.block.base import BlockDevice, ByteLength, ByteOffset, Place
from restorefs.errors import DamagedError, UnsupportedError
from restorefs.guestfs.base import Extent
from restorefs.guestfs.limits import Limits
from restorefs.guestfs.ntfs.layout import (
    COMPRESSED,
    COMPRESSION_MASK,
    ENCRYPTED,
    Attribute,
    Boot,
    decode_sizes,
)
from restorefs.guestfs.ntfs.runs import HOLE, Runs
from restorefs.guestfs.pieces import PieceReader

_MAX_UNIT_BITS = 16
_USUAL_UNIT_BITS = 4
_MAX_UNIT: ByteLength = 64 << 20
_MAX_SIZE: ByteLength = 1 << 62


class Stream:
    """The value of an attribute. `valid` is how far it was ever written: zeros follow. `value` is
    set where it is resident, else `runs`. `unit_bits`: log2 of the bytes in a compression unit; 0
    where it is not compressed."""

    __slots__ = ("encrypted", "runs", "size", "unit_bits", "valid", "value")

    def __init__(
        self,
        size: ByteLength,
        valid: ByteLength,
        value: bytes | None,
        runs: Runs,
        unit_bits: int,
        encrypted: bool,
    ) -> None:
        self.size = size
        self.valid = valid
        self.value = value
        self.runs = runs
        self.unit_bits = unit_bits
        self.encrypted = encrypted


async def read_pieces(pieces: Sequence[Attribute], boot: Boot, limits: Limits) -> Stream:
    """Return the stream that an attribute's pieces, ordered by their first cluster, are.

    Raises DamagedError where they contradict each other, UnsupportedError for a compression that
    nobody described.
    """
    first = pieces[0]
    encrypted = bool(first.flags & ENCRYPTED)
    if first.resident:
        if len(pieces) > 1:
            raise DamagedError("an attribute is resident, and in pieces")
        size = len(first.body)
        return Stream(size, size, first.body, Runs(), 0, encrypted)
    sizes = decode_sizes(first)
    if sizes.size > min(_MAX_SIZE, sizes.reserved) or sizes.allocated > _MAX_SIZE:
        raise DamagedError(f"an attribute claims {sizes.size} bytes")
    if first.flags & COMPRESSION_MASK not in (0, COMPRESSED):
        raise UnsupportedError(f"NTFS compression of type {first.flags & COMPRESSION_MASK}")
    unit_bits = 0
    if first.flags & COMPRESSED:
        # Windows XP did not always say it (libfsntfs, "Compression unit size").
        unit_bits = (sizes.unit_bits or _USUAL_UNIT_BITS) + boot.cluster_bits
        if sizes.unit_bits > _MAX_UNIT_BITS or 1 << unit_bits > _MAX_UNIT:
            raise DamagedError(f"an attribute claims compression units of 2**{unit_bits} bytes")
    runs = Runs()
    for number, piece in enumerate(pieces):
        if piece.resident:
            raise DamagedError("an attribute is resident, and in pieces")
        if number:
            await trio.lowlevel.checkpoint()
        runs.append(piece, boot.clusters, limits.extents_per_map)
    valid = sizes.valid
    if runs.clusters << boot.cluster_bits < valid:
        raise DamagedError("an attribute has fewer clusters than bytes")
    return Stream(sizes.size, valid, None, runs, unit_bits, encrypted)


def extents_of(
    stream: Stream, cluster_bits: int, offset: ByteOffset, length: ByteLength, most: int
) -> list[Extent]:
    """Say where a range of a stream lies: as GuestFilesystem.map() does.

    Raises DamagedError for more than `most` pieces.
    """
    if not length:
        return []
    if stream.value is not None:
        return [Extent(None, length, encoded=True)]
    end = offset + length
    written = min(end, stream.valid)
    if stream.unit_bits:
        found = _unit_extents(stream, cluster_bits, offset, written)
    else:
        found = _plain_extents(stream, cluster_bits, offset, written)
    if end > max(written, offset):
        _add(found, None, end - max(written, offset))
    if len(found) > most:
        raise DamagedError(f"a range of a file lies in more than {most} pieces")
    return found


def _plain_extents(
    stream: Stream, cluster_bits: int, offset: ByteOffset, end: ByteOffset
) -> list[Extent]:
    found: list[Extent] = []
    if offset >= end:
        return found
    first, last = offset >> cluster_bits, (end - 1 >> cluster_bits) + 1
    position = first << cluster_bits
    for lcn, clusters in stream.runs.between(first, last):
        behind = position + (clusters << cluster_bits)
        skip = max(offset - position, 0)
        length = min(behind, end) - position - skip
        _add(found, None if lcn == HOLE else (lcn << cluster_bits) + skip, length)
        position = behind
    return found


def _unit_extents(
    stream: Stream, cluster_bits: int, offset: ByteOffset, end: ByteOffset
) -> list[Extent]:
    """A unit with all of its clusters is stored plainly, one without any is a hole, and any other
    is compressed."""
    found: list[Extent] = []
    unit_bits = stream.unit_bits
    while offset < end:
        unit = offset >> unit_bits
        behind = min(unit + 1 << unit_bits, end)
        stored = _stored_in_unit(stream, cluster_bits, unit)
        if not stored:
            _add(found, None, behind - offset)
        elif stored == 1 << unit_bits - cluster_bits:
            for extent in _plain_extents(stream, cluster_bits, offset, behind):
                _add(found, extent.offset, extent.length)
        else:
            _add(found, None, behind - offset, encoded=True)
        offset = behind
    return found


def _stored_in_unit(stream: Stream, cluster_bits: int, unit: int) -> int:
    """Return how many clusters are stored for a compression unit."""
    clusters_bits = stream.unit_bits - cluster_bits
    first = unit << clusters_bits
    return sum(
        clusters
        for lcn, clusters in stream.runs.between(first, first + (1 << clusters_bits))
        if lcn != HOLE
    )


def stored_units(
    stream: Stream, cluster_bits: int, units: range
) -> tuple[list[Place], list[ByteLength]]:
    """Say where the stored clusters of compressed units lie, holes left out, and where each unit
    begins among them, with the end of the last one.

    Raises DamagedError for a unit that is not compressed.
    """
    clusters_bits = stream.unit_bits - cluster_bits
    found: list[Extent] = []
    bounds = [0]
    for unit in units:
        first, count = unit << clusters_bits, 0
        for lcn, clusters in stream.runs.between(first, first + (1 << clusters_bits)):
            if lcn != HOLE:
                _add(found, lcn << cluster_bits, clusters << cluster_bits)
                count += clusters
        if not 0 < count < 1 << clusters_bits:
            raise DamagedError(f"compression unit {unit} is not compressed")
        bounds.append(bounds[-1] + (count << cluster_bits))
    return [(extent.offset or 0, extent.length) for extent in found], bounds


def _add(
    extents: list[Extent], offset: ByteOffset | None, length: ByteLength, encoded: bool = False
) -> None:
    """Append an extent, merged with the last one where it continues it."""
    if length <= 0:
        return
    if extents:
        last_offset, last_length, last_encoded = extents[-1]
        if last_encoded == encoded and (
            last_offset is offset is None
            or (
                last_offset is not None
                and offset is not None
                and last_offset + last_length == offset
            )
        ):
            extents[-1] = Extent(last_offset, last_length + length, encoded)
            return
    extents.append(Extent(offset, length, encoded))


async def read_plain(
    stream: Stream,
    cluster_bits: int,
    reader: PieceReader | BlockDevice,
    offset: ByteOffset,
    length: ByteLength,
) -> bytes:
    """Return bytes of a stream that must not be compressed, as those of the format itself.

    The range must lie inside the stream. Raises DamagedError.
    """
    if offset < 0 or length < 0 or offset + length > stream.size:
        raise DamagedError(f"bytes {offset} to {offset + length} lie behind an attribute's end")
    if stream.value is not None:
        return stream.value[offset : offset + length]
    if stream.unit_bits or stream.encrypted:
        raise DamagedError("an attribute of the file system itself is compressed or encrypted")
    parts = []
    for extent in extents_of(stream, cluster_bits, offset, length, length + 1):
        if extent.offset is None:
            parts.append(bytes(extent.length))
        else:
            parts.append(await reader.read(extent.offset, extent.length))
    return b"".join(parts)
