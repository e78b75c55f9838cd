"""Entries of a folder: bytes to values.

Owns what an entry says: names, attributes, times, the first cluster. Must not do I/O, nor know
where a folder lies. Source: spec, "Directory Structure", "Long File Name Implementation".

Times on the volume are local times of nobody knows which zone. They are shown as if that were UTC,
as Linux does with its mount option tz=UTC. What an entry has no field for is filled as Linux does:
the time of change is that of modification.
"""

import functools
import stat
import struct
from datetime import date
from typing import NamedTuple

from restorefs.block.base import ByteLength
from restorefs.guestfs.base import Attributes, Inode, Nanoseconds
from restorefs.guestfs.fat.layout import ENTRY_SIZE
from restorefs.guestfs.fat.names import (
    SHORT_NAME_SIZE,
    checksum,
    long_name,
    repaired_name,
    short_name,
)

READ_ONLY = 0x01
VOLUME_LABEL = 0x08
FOLDER = 0x10
_LONG_NAME = 0x0F
_ATTRIBUTE_BITS = 0x3F
SHOWN_BITS = 0x37
"""All that describe a file: read-only, hidden, system, folder, archive."""

_END = 0x00
_DELETED = 0xE5
_LAST_PART = 0x40
_MOST_PARTS = 20
MOST_SLOTS = _MOST_PARTS + 1
"""How many entries of 32 bytes one name takes at most."""

_DOTS = (b".".ljust(SHORT_NAME_SIZE), b"..".ljust(SHORT_NAME_SIZE))

# 0 name, 11 u8 attributes, 12 u8 lower case, 13 u8 creation in 10 ms, 14 u16 its time, 16 u16 its
# date, 18 u16 date of access, 20 u16 cluster's high half, 22 u16 time, 24 u16 date of modification,
# 26 u16 cluster's low half, 28 u32 size
_ENTRY = struct.Struct("<11s3B7HI")
assert _ENTRY.size == ENTRY_SIZE


class Entry(NamedTuple):
    """An entry in use that is no part of a long name. cluster: the first, with its high half,
    which only FAT32 has."""

    stored_name: bytes
    attributes: int
    flags: int
    created_10ms: int
    created_time: int
    created_date: int
    accessed_date: int
    cluster_high: int
    modified_time: int
    modified_date: int
    cluster_low: int
    size: int

    def cluster(self, bits: int) -> int:
        """Return the first cluster, 0 for none."""
        if bits != 32:
            return self.cluster_low
        return (self.cluster_high << 16 | self.cluster_low) & 0x0FFFFFFF

    @property
    def is_folder(self) -> bool:
        return bool(self.attributes & FOLDER)

    @property
    def created_ns(self) -> Nanoseconds | None:
        if not self.created_date:
            return None
        return nanoseconds(self.created_date, self.created_time) + self.created_10ms * 10_000_000


class Named(NamedTuple):
    """An entry under its name. slot: the entry's place in what was decoded. alias: the short name
    where `name` is a long one. impossible: no file can be named so; the name is a repaired one."""

    slot: int
    name: bytes
    alias: bytes | None
    entry: Entry
    impossible: bool = False


class Decoded(NamedTuple):
    """What a part of a folder holds. slots: how many of its entries belong to what was decoded;
    the others are the beginning of a name that goes on behind the part. ended: the folder's end
    was met."""

    found: list[Named]
    slots: int
    ended: bool


def decode_entry(data: bytes) -> Entry | None:
    """Decode the 32 bytes of an entry; None where it is free, part of a long name, a volume label,
    or "." or ".."."""
    if data[0] in (_END, _DELETED) or data[11] & VOLUME_LABEL or data[:SHORT_NAME_SIZE] in _DOTS:
        return None
    return Entry._make(_ENTRY.unpack(data))


def decode_parent(data: bytes) -> Entry | None:
    """Decode the first 64 bytes of a folder; return its ".." entry, None where there is none."""
    entry = Entry._make(_ENTRY.unpack_from(data, ENTRY_SIZE))
    return entry if entry.stored_name == _DOTS[1] and entry.is_folder else None


def begins_as_folder(data: bytes) -> bool:
    """Tell whether a folder that is not the root starts with "." and "..", as all do."""
    return (
        data[:SHORT_NAME_SIZE] == _DOTS[0]
        and bool(data[11] & FOLDER)
        and decode_parent(data) is not None
    )


def decode_entries(data: bytes, codepage: str, *, last: bool) -> Decoded:
    """Decode a part of a folder. last: nothing comes behind it.

    A long name counts only if all its parts are there, in order, and carry the checksum of the
    short name behind them; else the short name is shown.
    """
    found: list[Named] = []
    slot, count = 0, len(data) // ENTRY_SIZE
    while slot < count:
        at = slot * ENTRY_SIZE
        first, attributes = data[at], data[at + 11]
        if first == _END:
            return Decoded(found, slot, True)
        if first == _DELETED:
            slot += 1
            continue
        name = None
        if attributes & _ATTRIBUTE_BITS == _LONG_NAME:
            parts = first & ~_LAST_PART
            if not first & _LAST_PART or not 1 <= parts <= _MOST_PARTS:
                slot += 1
                continue
            if slot + parts >= count and not last:
                return Decoded(found, slot, False)
            name = _long_name_at(data, at, parts)
            if name is None:
                slot += 1
                continue
            slot += parts
            at = slot * ENTRY_SIZE
        entry = decode_entry(data[at : at + ENTRY_SIZE])
        if entry is not None:
            alias = short_name(entry.stored_name, entry.flags, codepage)
            if name is not None:
                found.append(Named(slot, name, alias, entry))
            elif alias is not None:
                found.append(Named(slot, alias, None, entry))
            else:
                repaired = repaired_name(entry.stored_name, entry.flags, codepage)
                found.append(Named(slot, repaired, None, entry, True))
        slot += 1
    return Decoded(found, slot, False)


def _long_name_at(data: bytes, at: int, parts: int) -> bytes | None:
    """Return the long name whose parts begin at a byte, None where they are no sound name of the
    entry behind them."""
    behind = at + parts * ENTRY_SIZE
    if behind + ENTRY_SIZE > len(data):
        return None
    stored = data[behind : behind + SHORT_NAME_SIZE]
    if stored[0] in (_END, _DELETED) or data[behind + 11] & VOLUME_LABEL:
        return None
    expected = checksum(stored)
    pieces = []
    for number in range(1, parts + 1):
        part = behind - number * ENTRY_SIZE
        order = number | _LAST_PART if number == parts else number
        if (
            data[part] != order
            or data[part + 11] & _ATTRIBUTE_BITS != _LONG_NAME
            or data[part + 12]  # another kind than a name
            or data[part + 13] != expected
        ):
            return None
        pieces.append(data[part + 1 : part + 11])
        pieces.append(data[part + 14 : part + 26])
        pieces.append(data[part + 28 : part + 32])
    return long_name(b"".join(pieces))


def find_label(data: bytes) -> bytes | None:
    """Return the label that entries of the root say, None where none does."""
    for at in range(0, len(data) - ENTRY_SIZE + 1, ENTRY_SIZE):
        if data[at] == _END:
            return None
        attributes = data[at + 11] & _ATTRIBUTE_BITS
        if (
            data[at] != _DELETED
            and attributes != _LONG_NAME
            and attributes & (VOLUME_LABEL | FOLDER) == VOLUME_LABEL
        ):
            return data[at : at + SHORT_NAME_SIZE]
    return None


def find_end(data: bytes) -> int | None:
    """Return the slot of the mark behind which a folder has no more entries, if it is there."""
    found = data[::ENTRY_SIZE].find(_END)
    return found if found >= 0 else None


def attributes_of(entry: Entry, inode: Inode, size: ByteLength, cluster_size: int) -> Attributes:
    """Return what stat shows. size: of the content, for folders too.

    Modes as Linux shows them: read-only takes the right to write from files; on folders Windows
    uses that bit for something else. nlink is 1, which says of a folder that its subfolders are
    not counted.
    """
    if entry.attributes & FOLDER:
        mode = stat.S_IFDIR | 0o755
    elif entry.attributes & READ_ONLY:
        mode = stat.S_IFREG | 0o444
    else:
        mode = stat.S_IFREG | 0o644
    modified = nanoseconds(entry.modified_date, entry.modified_time)
    blocks = -(-size // cluster_size) * (cluster_size // 512)
    # Not Attributes(...): this is the innermost loop of every listing.
    return tuple.__new__(
        Attributes,
        (
            *(inode, mode, 1, 0, 0, 0, size, blocks),
            *(nanoseconds(entry.accessed_date, 0), modified, modified, entry.created_ns),
        ),
    )


def root_attributes(inode: Inode, size: ByteLength, cluster_size: int) -> Attributes:
    """Return what stat shows of the root, which has no entry and so no times."""
    blocks = -(-size // cluster_size) * (cluster_size // 512)
    return Attributes(inode, stat.S_IFDIR | 0o755, 1, 0, 0, 0, size, blocks, 0, 0, 0)


def nanoseconds(day: int, time: int) -> Nanoseconds:
    """Return a stored date and time (hours, minutes and double seconds) as of 1970.

    What no clock shows (31 hours) counts on, as Linux does it.
    """
    seconds = (time >> 11) * 3600 + (time >> 5 & 0x3F) * 60 + (time & 0x1F) * 2
    return (_day_start(day) + seconds) * 1_000_000_000


@functools.lru_cache(maxsize=4096)
def _day_start(day: int) -> int:
    """Return when a stored date (years since 1980, month, day) begins, in seconds since 1970.

    Month 0 and day 0, of a date never set, are taken for 1 as Linux does.
    """
    month = min(max(day >> 5 & 0x0F, 1), 12)
    first = date((day >> 9) + 1980, month, 1).toordinal() - date(1970, 1, 1).toordinal()
    return (first + max(day & 0x1F, 1) - 1) * 86_400
