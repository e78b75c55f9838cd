"""Sets of directory entries, from bytes to values.

Owns how entries form sets, when a set may be believed, and where to go on behind one that may
not. Does no I/O and knows no clusters: offsets are in the bytes given. A damaged set costs only
itself. Source: sections 6 and 7.4 to 7.9.
"""

import struct
import sys
from array import array
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from restorefs.block.base import ByteLength, ByteOffset
from restorefs.errors import DamagedError, RestoreError, UnsupportedError
from restorefs.guestfs.base import Nanoseconds
from restorefs.guestfs.exfat import layout
from restorefs.guestfs.exfat.layout import BENIGN, ENTRY_SIZE, FILE, NAME, SECONDARY, STREAM

LARGEST_SET: ByteLength = 256 * ENTRY_SIZE

ATTRIBUTE_READ_ONLY, ATTRIBUTE_FOLDER = 0x01, 0x10
ALLOCATION_POSSIBLE, NO_FAT_CHAIN = 1, 2

_CHARACTERS = 15  # of a File Name entry
_FEWEST_TOGETHER = 4
_STREAM_BYTE = bytes((STREAM,))
_IMPOSSIBLE_NAMES = frozenset((b"", b".", b".."))

# A File entry and the Stream Extension behind it (7.4, 7.6).
_FILE_AND_STREAM = struct.Struct("<xBHHxxIIIBBBBB7x" + "xBxBHxxQ4xIQ")


class FileSet(NamedTuple):
    """What a set says of a file. offset, end: of the set. unknown: the type of a critical entry
    that is not known, else 0. Times are None where they cannot be."""

    offset: ByteOffset
    end: ByteOffset
    name: bytes
    attributes: int
    flags: int
    first_cluster: int
    valid_length: ByteLength
    length: ByteLength
    mtime_ns: Nanoseconds | None
    atime_ns: Nanoseconds | None
    created_ns: Nanoseconds | None
    unknown: int

    @property
    def is_folder(self) -> bool:
        return bool(self.attributes & ATTRIBUTE_FOLDER)

    @property
    def has_allocation(self) -> bool:
        return bool(self.flags & ALLOCATION_POSSIBLE and self.first_cluster)

    @property
    def is_contiguous(self) -> bool:
        """The clusters are neighbours, and the FAT does not mean them."""
        return bool(self.flags & NO_FAT_CHAIN)


@dataclass(slots=True)
class Decoded:
    """What some of a folder's bytes hold.

    next: where to go on; a set that goes on behind the bytes starts there. ended: nothing comes
    behind. singles: entries that stand for themselves and belong to the volume. error: why not
    everything could be decoded.
    """

    sets: list[FileSet] = field(default_factory=list)
    next: ByteOffset = 0
    ended: bool = False
    singles: list[bytes] = field(default_factory=list)
    error: RestoreError | None = None

    def note(self, error: RestoreError) -> None:
        """Keep the first error; that something is not supported comes before damage."""
        if self.error is None or (
            isinstance(error, UnsupportedError) and not isinstance(self.error, UnsupportedError)
        ):
            self.error = error


def decode_sets(region: bytes, offset: ByteOffset, *, whole: bool, is_root: bool) -> Decoded:
    """Decode the sets of a region of a folder from an offset on.

    whole: the folder ends with the region. Never raises.
    """
    found = Decoded()
    append = found.sets.append
    size = len(region)
    checksums = _checksums_together(region, offset)
    while offset + ENTRY_SIZE <= size:
        kind = region[offset]
        if kind == FILE:
            end = offset + ENTRY_SIZE * (region[offset + 1] + 1)
            if end > size and not whole:
                break
            try:
                append(decode_file_set(region, offset, checksums.get(offset)))
                offset = end
            except DamagedError as error:
                found.note(error)
                offset = _behind_secondaries(region, offset + ENTRY_SIZE)
        elif kind == layout.END_OF_FOLDER:
            found.ended = True
            if any(region[offset::ENTRY_SIZE]) and _has_file_sets(region, offset):
                found.note(DamagedError("a folder has names behind its end"))
            break
        elif kind < layout.IN_USE:
            offset += ENTRY_SIZE
        else:
            if not whole and not kind & SECONDARY:
                # What it is depends on what is behind it.
                length = set_length(region[offset : offset + ENTRY_SIZE]) if kind & BENIGN else 0
                if offset + max(length, 2 * ENTRY_SIZE) > size:
                    break
            offset = _take_other(region, offset, is_root, found)
    found.next = offset
    return found


def _take_other(region: bytes, offset: ByteOffset, is_root: bool, found: Decoded) -> ByteOffset:
    """Take an entry in use that is no File entry; return the offset behind it."""
    kind = region[offset]
    behind = offset + ENTRY_SIZE
    if kind & SECONDARY:
        if not kind & BENIGN:
            found.note(DamagedError("a folder has parts of a name that has lost its beginning"))
    elif region[behind : behind + 1] == _STREAM_BYTE and not _is_sound_benign(region, offset):
        # This was a file's.
        found.note(DamagedError("a folder has a damaged entry"))
        return _behind_secondaries(region, behind)
    elif kind & BENIGN:
        if kind == layout.VOLUME_GUID and is_root:
            found.singles.append(region[offset:behind])
        # Not known, and by the format of no importance, as what belongs to it is.
        return _behind_secondaries(region, behind)
    elif not is_root or kind == layout.IN_USE:
        found.note(DamagedError(f"a folder has an impossible entry of type 0x{kind:02X}"))
    elif kind in (layout.ALLOCATION_BITMAP, layout.UPCASE_TABLE, layout.VOLUME_LABEL):
        found.singles.append(region[offset:behind])
    else:
        found.note(
            UnsupportedError(f"exFAT directory entries of type 0x{kind:02X} are not supported")
        )
    return behind


def _is_sound_benign(region: bytes, offset: ByteOffset) -> bool:
    """Say whether a set begins with a benign primary entry and has a right checksum (6.3.3)."""
    data = region[offset : offset + set_length(region[offset : offset + ENTRY_SIZE])]
    parts = data[ENTRY_SIZE::ENTRY_SIZE]
    if not data[0] & BENIGN or min(parts, default=0xFF) < layout.IN_USE | SECONDARY:
        return False
    return set_checksum(data) == int.from_bytes(data[2:4], "little")


def _behind_secondaries(region: bytes, offset: ByteOffset) -> ByteOffset:
    first = layout.IN_USE | SECONDARY
    while offset < len(region) and region[offset] >= first:
        offset += ENTRY_SIZE
    return offset


def _has_file_sets(region: bytes, offset: ByteOffset) -> bool:
    for start in range(offset, len(region), ENTRY_SIZE):
        if region[start] == FILE:
            try:
                decode_file_set(region, start)
            except DamagedError:
                continue
            return True
    return False


def set_length(primary: bytes) -> ByteLength:
    """Return how many bytes the set of a File entry has."""
    return ENTRY_SIZE * (primary[1] + 1)


def decode_file_set(region: bytes, offset: ByteOffset, computed: int | None = None) -> FileSet:
    """Decode the set of a File entry (7.4). computed: its checksum, where that is known already.

    Raises DamagedError.
    """
    end = offset + ENTRY_SIZE * (region[offset + 1] + 1)
    # A File entry, a Stream Extension, a File Name: the least there is.
    if end > len(region) or end < offset + 3 * ENTRY_SIZE or region[offset + ENTRY_SIZE] != STREAM:
        raise DamagedError("a folder has an entry that is not complete")
    (
        _,  # SecondaryCount
        checksum,
        attributes,
        created,
        modified,
        accessed,
        created_10ms,
        modified_10ms,
        created_zone,
        modified_zone,
        accessed_zone,
        flags,
        name_length,
        _,  # NameHash
        valid_length,
        first_cluster,
        length,
    ) = _FILE_AND_STREAM.unpack_from(region, offset)
    start = offset + 2 * ENTRY_SIZE
    behind_name = start + ENTRY_SIZE * -(-name_length // _CHARACTERS)
    if not name_length or behind_name > end or _is_not_a_name(region[start:behind_name:ENTRY_SIZE]):
        raise DamagedError("a folder has an entry without its name")
    unknown = 0
    if behind_name < end:
        unknown = _unknown_critical(region[behind_name:end:ENTRY_SIZE])
    # Behind the tests of types: what passes them is skipped if it is damaged, so that no byte is
    # summed up twice.
    if computed is None:
        computed = set_checksum(region[offset:end])
    if computed != checksum:
        raise DamagedError("a folder has an entry with a wrong checksum")
    if name_length <= _CHARACTERS:
        raw = region[start + 2 : start + 2 + 2 * name_length]
    else:
        pieces = [
            region[piece + 2 : piece + ENTRY_SIZE]
            for piece in range(start, behind_name, ENTRY_SIZE)
        ]
        raw = b"".join(pieces)[: 2 * name_length]
    name = raw.decode("utf-16-le", "surrogatepass").encode("utf-8", "surrogatepass")
    if b"/" in name or b"\0" in name or name in _IMPOSSIBLE_NAMES:
        raise DamagedError("a folder has an entry with an impossible name")
    # Not FileSet(...): this is the innermost loop of every listing.
    return tuple.__new__(
        FileSet,
        (
            offset,
            end,
            name,
            attributes,
            flags,
            first_cluster,
            valid_length,
            length,
            layout.unix_ns(modified, modified_10ms, modified_zone),
            layout.unix_ns(accessed, 0, accessed_zone),
            layout.unix_ns(created, created_10ms, created_zone),
            unknown,
        ),
    )


def _is_not_a_name(types: bytes) -> bool:
    return types.count(NAME) != len(types)


def _unknown_critical(types: bytes) -> int:
    """Return the first type of entries behind the name that must be known and is not, or 0.

    Benign secondary entries (7.8, 7.9, later ones) may be ignored. Raises DamagedError for
    entries that cannot be in a set.
    """
    for kind in types:
        if kind < layout.IN_USE | SECONDARY:
            raise DamagedError("a folder has an entry with impossible parts")
        if not kind & BENIGN and kind != NAME:
            return kind
    return 0


@lru_cache(1)
def _rotated() -> list[int]:
    """Return the checksum's rotation of every sum of 16 bits and a byte."""
    return [((number & 1) << 15) + (number >> 1 & 0x7FFF) for number in range(0x10000 + 0x100)]


def set_checksum(data: bytes) -> int:
    """Return the checksum of a set of entries (6.3.3)."""
    rotated = _rotated()
    checksum = 0
    for byte in data[:2]:
        checksum = rotated[checksum] + byte
    for byte in data[4:]:
        checksum = rotated[checksum] + byte
    return checksum & 0xFFFF


def _checksums_together(region: bytes, offset: ByteOffset) -> dict[ByteOffset, int]:
    """Return the checksums of many sets by their offsets; not of all, and of some that are none.

    One at a time they would take most of the time of a listing. Here those of one length are
    computed side by side, in lanes of 32 bits of one large number.
    """
    places: dict[int, list[ByteOffset]] = {}
    size = len(region)
    while offset + ENTRY_SIZE <= size:
        kind = region[offset]
        if kind == layout.END_OF_FOLDER:
            break
        if kind != FILE:
            offset += ENTRY_SIZE
            continue
        end = offset + ENTRY_SIZE * (region[offset + 1] + 1)
        if end <= size:
            places.setdefault(end - offset, []).append(offset)
        offset = end
    found: dict[ByteOffset, int] = {}
    for length, offsets in places.items():
        if len(offsets) >= _FEWEST_TOGETHER:
            sets = b"".join([region[start : start + length] for start in offsets])
            found.update(zip(offsets, _checksums_of(sets, length), strict=True))
    return found


def _checksums_of(sets: bytes, length: ByteLength) -> "array[int]":
    """Return the checksums of sets of one length, as set_checksum() does."""
    count = len(sets) // length
    lane = int.from_bytes(b"\1\0\0\0" * count, "little")
    low, high, all_bits = lane, lane * 0x7FFF, lane * 0xFFFF
    checksums = 0
    column = bytearray(4 * count)
    for place in range(length):
        if place in (2, 3):
            continue
        column[::4] = sets[place::length]
        rotated = (checksums >> 1 & high) + ((checksums & low) << 15)
        checksums = rotated + int.from_bytes(column, "little") & all_bits
    result = array("I", checksums.to_bytes(4 * count, "little"))
    if sys.byteorder == "big":
        result.byteswap()
    return result


def utf16_of(name: bytes) -> str | None:
    """Return a name as text, lone surrogates kept; None for what no name can be."""
    try:
        text = name.decode("utf-8", "surrogatepass")
        again = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    except UnicodeError:
        return None
    return text if again == text else None
