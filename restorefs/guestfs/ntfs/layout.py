"""The bytes of an NTFS volume: boot sector, file records, attributes.

Owns the decoding of these structures, without I/O, and the numbers that the format defines. What
lies in an attribute's value has a module of its own.

Sources, cited by their titles: "boot" is Microsoft's "How NTFS Works" (BPB and extended BPB);
"concepts", "$MFT", "$STANDARD_INFORMATION" and so on are pages of the linux-ntfs project's NTFS
documentation; "libfsntfs" is Joachim Metz's description of the format.
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from restorefs.block.base import ByteLength, ByteOffset
from restorefs.errors import DamagedError, NotFoundError, UnsupportedError

Cluster: TypeAlias = int
RecordNumber: TypeAlias = int

BOOT_SIZE = 512
_SIGNATURE = b"NTFS    "
_BOOT = struct.Struct("<HB")  # bytes per sector, sectors per cluster: at 0x0B
_EXTENDED_BOOT = struct.Struct("<QQQb3xb3xQ")  # at 0x28
_MIN_SECTOR, _MAX_SECTOR = 256, 4096
_MIN_CLUSTER, _MAX_CLUSTER = 256, 2 << 20
_MIN_BLOCK, _MAX_BLOCK = 256, 64 << 10
_MAX_CLUSTERS = 1 << 48

# File records with a meaning of their own ("Files").
MFT, LOG_FILE, VOLUME, ROOT, SECURE, UPCASE = 0, 2, 3, 5, 9, 10

# Attribute types ("Attributes").
STANDARD_INFORMATION = 0x10
ATTRIBUTE_LIST = 0x20
FILE_NAME = 0x30
OBJECT_ID = 0x40
SECURITY_DESCRIPTOR = 0x50
VOLUME_NAME = 0x60
VOLUME_INFORMATION = 0x70
DATA = 0x80
INDEX_ROOT = 0x90
INDEX_ALLOCATION = 0xA0
BITMAP = 0xB0
REPARSE_POINT = 0xC0
EA = 0xE0
LOGGED_UTILITY_STREAM = 0x100
END = 0xFFFFFFFF

I30 = "$I30".encode("utf-16-le")
"""The name of a folder's index, which is one of $FILE_NAME (type 0x30)."""

# Flags of an attribute ("concepts", attribute header).
COMPRESSED = 0x0001
COMPRESSION_MASK = 0x00FF
ENCRYPTED = 0x4000
SPARSE = 0x8000

# Flags of a file record ("concepts", file record).
IN_USE = 0x0001
IS_FOLDER = 0x0002

# DOS attributes ("$STANDARD_INFORMATION"; MS-FSCC 2.6 names them).
DOS_OFFLINE = 0x1000
DOS_RECALL_ON_OPEN = 0x40000
DOS_RECALL_ON_DATA_ACCESS = 0x400000
DOS_RECALL = DOS_OFFLINE | DOS_RECALL_ON_OPEN | DOS_RECALL_ON_DATA_ACCESS
DOS_SYSTEM = 0x4
DOS_FOLDER = 0x10

RECORD_MASK = (1 << 48) - 1
"""A reference is a record's number and, in its upper 16 bits, the record's sequence number."""


@dataclass(frozen=True, slots=True)
class Boot:
    """What the boot sector says. Sizes in bytes; clusters: how many there are."""

    sector_size: ByteLength
    cluster_bits: int
    size: ByteLength
    clusters: int
    mft: Cluster
    mft_mirror: Cluster
    record_size: ByteLength
    block_size: ByteLength
    serial: int

    @property
    def cluster_size(self) -> ByteLength:
        return 1 << self.cluster_bits


def looks_like_ntfs(sector: bytes) -> bool:
    """Tell whether a boot sector is NTFS' ("boot").

    What FAT keeps in the BPB (reserved sectors, FATs, root entries, sizes) is zero here.
    """
    sector = sector[:BOOT_SIZE]
    if len(sector) < BOOT_SIZE or sector[3:11] != _SIGNATURE or sector[510:512] != b"\x55\xaa":
        return False
    sector_size, _ = _BOOT.unpack_from(sector, 0x0B)
    (sectors,) = struct.unpack_from("<Q", sector, 0x28)
    return (
        _is_power_of_two(sector_size, _MIN_SECTOR, _MAX_SECTOR)
        and not any(sector[14:21] + sector[22:24] + sector[32:36])
        and sectors > 0
    )


def size_and_serial(sector: bytes) -> tuple[ByteLength, str]:
    """Return the volume's size and its serial number as shown, of a sector that looks right."""
    sectors, *_, serial = _EXTENDED_BOOT.unpack_from(sector, 0x28)
    return sectors * _BOOT.unpack_from(sector, 0x0B)[0], f"{serial:016X}"


def decode_boot(sector: bytes) -> Boot:
    """Decode a boot sector ("boot"). Raises DamagedError."""
    if not looks_like_ntfs(sector):
        raise DamagedError("there is no NTFS boot sector")
    sector_size, per_cluster = _BOOT.unpack_from(sector, 0x0B)
    sectors, mft, mirror, per_record, per_block, serial = _EXTENDED_BOOT.unpack_from(sector, 0x28)
    # More than 128 sectors do not fit: from 0xF4 on it is the negative power of two.
    factor = 1 << 256 - per_cluster if per_cluster >= 0xE1 else per_cluster
    cluster_size = sector_size * factor
    if not _is_power_of_two(cluster_size, _MIN_CLUSTER, _MAX_CLUSTER):
        raise DamagedError(f"the boot sector claims clusters of {cluster_size} bytes")
    sizes = []
    for what, number in (("file records", per_record), ("index blocks", per_block)):
        size = 1 << min(-number, 63) if number < 0 else number * cluster_size
        if not _is_power_of_two(size, _MIN_BLOCK, _MAX_BLOCK):
            if what == "file records":
                raise DamagedError(f"the boot sector claims {what} of {size} bytes")
            size = 4096  # each index says it again
        sizes.append(size)
    clusters = sectors * sector_size // cluster_size
    if not clusters or clusters > _MAX_CLUSTERS:
        raise DamagedError(f"the boot sector claims {clusters} clusters")
    return Boot(
        sector_size,
        cluster_size.bit_length() - 1,
        sectors * sector_size,
        clusters,
        mft,
        mirror,
        sizes[0],
        sizes[1],
        serial,
    )


def _is_power_of_two(number: int, low: int, high: int) -> bool:
    return low <= number <= high and number.bit_count() == 1


# --- records ----------------------------------------------------------------------------------

STRIDE: ByteLength = 512
_UPDATE_SEQUENCE = struct.Struct("<HH")


def apply_fixups(data: bytes, start: ByteOffset, size: ByteLength) -> bytes:
    """Return a record of `size` bytes with the ends of its strides put back ("concepts",
    fixup). Raises DamagedError where one of them was not written together with the rest.

    A sequence may be longer than it needs to be (libfsntfs, "The fix-up values").
    """
    offset, count = _UPDATE_SEQUENCE.unpack_from(data, start + 4)
    if (count - 1) * STRIDE < size:
        raise DamagedError("a record has no update sequence")
    array = data[start + offset : start + offset + 2 * count]
    if offset + 2 * count > STRIDE - 2 or len(array) != 2 * count:
        raise DamagedError("a record's update sequence lies outside of it")
    strides = size // STRIDE
    low, high = slice(STRIDE - 2, None, STRIDE), slice(STRIDE - 1, None, STRIDE)
    record = bytearray(data[start : start + size])
    if record[low] != array[:1] * strides or record[high] != array[1:2] * strides:
        raise DamagedError("a record was not written completely (its fixups do not match)")
    record[low] = array[2 : 2 + 2 * strides : 2]
    record[high] = array[3 : 2 + 2 * strides : 2]
    return bytes(record)


class Header(NamedTuple):
    """The header of a file record. base: the reference of the record that this one belongs to,
    0 for a base record itself. first, used: where attributes begin, and where they end."""

    sequence: int
    first: ByteOffset
    flags: int
    used: ByteOffset
    base: int


_HEADER = struct.Struct("<16xHxxHHI4xQ")
_OWN_NUMBER = struct.Struct("<I")
_FIRST_WITH_NUMBER = 0x30


def decode_header(record: bytes) -> Header:
    """Decode a file record's header ("concepts", file record)."""
    return tuple.__new__(Header, _HEADER.unpack_from(record))


def checked_record(data: bytes, start: ByteOffset, size: ByteLength, number: RecordNumber) -> bytes:
    """Return a file record, verified and with its fixups applied.

    Raises NotFoundError for one that was never written, DamagedError.
    """
    magic = data[start : start + 4]
    if magic != b"FILE":
        if magic == b"\0\0\0\0":
            raise NotFoundError(f"file record {number} was never used")
        if magic == b"BAAD":
            raise DamagedError(f"file record {number} was marked bad by Windows")
        raise DamagedError(f"file record {number} is damaged")
    try:
        record = apply_fixups(data, start, size)
    except DamagedError as error:
        raise DamagedError(f"file record {number}: {error}") from None
    # Since NTFS 3.1 a record knows its number; before, the update sequence lay there.
    if _UPDATE_SEQUENCE.unpack_from(record, 4)[0] >= _FIRST_WITH_NUMBER:
        (own,) = _OWN_NUMBER.unpack_from(record, 0x2C)
        if own != number & 0xFFFFFFFF:
            raise DamagedError(f"where file record {number} should be is record {own}")
    return record


# --- attributes -------------------------------------------------------------------------------


class Attribute(NamedTuple):
    """An attribute, or a piece of one, as a record has it.

    name: UTF-16LE. body: the value of a resident one; of another, all its bytes, which
    runs.decode_pieces() understands. lowest: its first cluster number within the attribute.
    """

    kind: int
    name: bytes
    flags: int
    ident: int
    resident: bool
    lowest: int
    body: bytes


_COMMON = struct.Struct("<IIBBHHHIH")
_SMALLEST_RESIDENT, _SMALLEST_NONRESIDENT = 24, 64
_LOWEST = struct.Struct("<Q")


def decode_attributes(record: bytes, number: RecordNumber) -> list[Attribute]:
    """Decode the attributes of a file record ("concepts", attribute header). Raises DamagedError.

    Bounded by the record: an attribute has at least 24 bytes.
    """
    _, position, _, used, _ = _HEADER.unpack_from(record)
    used = min(used, len(record))
    found: list[Attribute] = []
    new = tuple.__new__
    while position + 4 <= used:
        if record[position : position + 4] == b"\xff\xff\xff\xff":
            return found
        if position + _SMALLEST_RESIDENT > used:
            break
        kind, length, nonresident, name_length, name_offset, flags, ident, size, offset = (
            _COMMON.unpack_from(record, position)
        )
        end = position + length
        if length < _SMALLEST_RESIDENT or length & 7 or end > used or not kind:
            break
        name = b""
        if name_length:
            if name_offset + 2 * name_length > length:
                break
            name = record[position + name_offset : position + name_offset + 2 * name_length]
        if nonresident:
            if length < _SMALLEST_NONRESIDENT:
                break
            body = record[position:end]
            lowest = _LOWEST.unpack_from(body, 16)[0]
        else:
            if offset + size > length:
                break
            body = record[position + offset : position + offset + size]
            lowest = 0
        found.append(new(Attribute, (kind, name, flags, ident, not nonresident, lowest, body)))
        position = end
    raise DamagedError(f"file record {number} has a damaged attribute at byte {position}")


class Sizes(NamedTuple):
    """The sizes of a non-resident attribute, from its first piece. unit_bits: the power of two of
    the clusters in a compression unit; 0 where there are none. allocated is what the attribute
    takes, without the holes of a sparse or compressed one."""

    highest: int
    runs: ByteOffset
    unit_bits: int
    reserved: ByteLength
    size: ByteLength
    valid: ByteLength
    allocated: ByteLength


_NONRESIDENT = struct.Struct("<24xQHH4xQQQ")
_COMPRESSED_SIZE = struct.Struct("<Q")


def decode_sizes(attribute: Attribute) -> Sizes:
    """Decode a non-resident attribute's header. Raises DamagedError."""
    highest, runs, unit_bits, reserved, size, valid = _NONRESIDENT.unpack_from(attribute.body)
    allocated = reserved
    if (
        attribute.flags & (COMPRESSION_MASK | SPARSE)
        and len(attribute.body) >= 72
        and (runs >= 72 and not attribute.lowest)
    ):
        (allocated,) = _COMPRESSED_SIZE.unpack_from(attribute.body, 64)
    return Sizes(highest, runs, unit_bits, reserved, size, min(valid, size), allocated)


class ListEntry(NamedTuple):
    """An entry of an attribute list: in which record a piece of an attribute lies."""

    kind: int
    name: bytes
    lowest: int
    reference: int
    ident: int


_LIST_ENTRY = struct.Struct("<IHBBQQH")


def decode_attribute_list(data: bytes) -> list[ListEntry]:
    """Decode an attribute list ("$ATTRIBUTE_LIST"). Raises DamagedError."""
    found = []
    position = 0
    while position + _LIST_ENTRY.size <= len(data):
        kind, length, name_length, name_offset, lowest, reference, ident = _LIST_ENTRY.unpack_from(
            data, position
        )
        end = position + length
        if not kind or kind == END:
            break
        name_end = name_offset + 2 * name_length
        if length < _LIST_ENTRY.size or end > len(data) or (name_length and name_end > length):
            raise DamagedError("an attribute list is damaged")
        name = data[position + name_offset : position + name_end] if name_length else b""
        found.append(ListEntry(kind, name, lowest, reference, ident))
        position = end
    else:
        if any(data[position:]):
            raise DamagedError("an attribute list is cut")
    return found


class Standard(NamedTuple):
    """$STANDARD_INFORMATION: times in 100 ns since 1601, DOS attributes, security id (0 before
    NTFS 3.0)."""

    created: int
    modified: int
    changed: int
    accessed: int
    dos: int
    security: int


_STANDARD = struct.Struct("<QQQQI")
_SECURITY_ID = struct.Struct("<I")


def decode_standard(value: bytes) -> Standard:
    """Decode $STANDARD_INFORMATION. Raises DamagedError."""
    if len(value) < _STANDARD.size:
        raise DamagedError("a file's standard information is cut")
    security = _SECURITY_ID.unpack_from(value, 0x34)[0] if len(value) >= 0x38 else 0
    return tuple.__new__(Standard, (*_STANDARD.unpack_from(value), security))


EPOCH = 116_444_736_000_000_000
"""1970 in 100 ns since 1601."""


def to_ns(filetime: int) -> int:
    """Return ns since 1970 of a time in 100 ns since 1601."""
    return (filetime - EPOCH) * 100


# --- names ------------------------------------------------------------------------------------

POSIX, WIN32, DOS, WIN32_AND_DOS = range(4)
NAME_OFFSET = 0x42


class FileName(NamedTuple):
    """A $FILE_NAME: where a file is linked. name: UTF-16LE."""

    parent: int
    namespace: int
    name: bytes


_FILE_NAME = struct.Struct("<Q56xBB")


def decode_file_name(value: bytes) -> FileName:
    """Decode a $FILE_NAME ("$FILE_NAME"). Raises DamagedError."""
    if len(value) < NAME_OFFSET:
        raise DamagedError("a file's name is cut")
    parent, length, namespace = _FILE_NAME.unpack_from(value)
    if NAME_OFFSET + 2 * length > len(value):
        raise DamagedError("a file's name is cut")
    return FileName(parent, namespace, value[NAME_OFFSET : NAME_OFFSET + 2 * length])


def require_known(boot: Boot) -> None:
    """Raise UnsupportedError where the volume's geometry is one that is not read."""
    if boot.record_size % STRIDE:
        raise UnsupportedError(f"NTFS with file records of {boot.record_size} bytes")
