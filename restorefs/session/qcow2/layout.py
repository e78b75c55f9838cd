"""What the bytes of a qcow2 image mean.

Owns the decoding of the header and its extensions, of mapping and refcount tables, and of where a
compressed cluster ends. Must not know about files, chains or qemu-nbd. Pure functions, callable
from any thread; every number that a loop or an allocation depends on is bounded here.

Source: the qcow2 specification of the QEMU project (docs/interop/qcow2), called "the
specification" below; QEMU's own limits, which bound what qemu-nbd will open, are named as such.
"""

import struct
import sys
import zlib
from array import array
from dataclasses import dataclass
from functools import cache

from restorefs.errors import KeyNeededError, StorageError, UnsupportedError

MAGIC = b"QFI\xfb"
OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00  # bits 9 to 55 of an L1, L2 or refcount table entry
COPIED = 1 << 63
COMPRESSED = 1 << 62
READS_AS_ZERO = 1

_FIXED = struct.Struct(">4sIQIIQIIQQIIQ")  # bytes 0 to 71, all that version 2 has
_VERSION_3 = struct.Struct(">QQQII")  # bytes 72 to 103
_EXTENSION = struct.Struct(">II")
_BITMAP_EXTENSION = struct.Struct(">8xQQ")  # size and offset of the bitmap directory
_COMPRESSION_TYPE_BYTE = 104

_DIRTY, _CORRUPT, _EXTERNAL_DATA, _COMPRESSION, _EXTENDED_L2 = (1 << bit for bit in range(5))
_KNOWN_INCOMPATIBLE = _DIRTY | _CORRUPT | _EXTERNAL_DATA | _COMPRESSION | _EXTENDED_L2

_BITMAPS_VALID = 1  # the autoclear feature

_BACKING_FORMAT = 0xE279_2ACA
_FEATURE_NAMES = 0x6803_F857
_BITMAPS = 0x2385_2875
_DATA_FILE_NAME = 0x4441_5441

_COMPRESSION_TYPES = {0: "zlib", 1: "zstd"}
_ENCRYPTIONS = {1: "AES", 2: "LUKS"}

# QEMU's limits.
_CLUSTER_BITS = range(9, 22)
_L1_TABLE_BYTES = 32 << 20
_REFCOUNT_TABLE_BYTES = 8 << 20
_SNAPSHOTS = 65_536
_NAME_BYTES = 1023

_ZEROS = bytes(4096)

_REPAIR = "try `qemu-img check -r all` on a copy of it"


@dataclass(frozen=True, slots=True)
class Header:
    """A header that qemu would open. Sizes and offsets are bytes unless the name says otherwise.

    virtual_size: what the guest sees, in whole sectors of 512 bytes.
    dirty: the refcounts may be stale.
    external_data: guest clusters lie in another file; data_file is its name as recorded, if it is.
    backing_name, backing_format: as recorded; None where nothing is.
    bitmap_directory: offset and size; 0, 0 where there is no valid one.
    """

    version: int
    cluster_size: int
    virtual_size: int
    l1_offset: int
    l1_entries: int
    refcount_table_offset: int
    refcount_table_size: int
    refcount_bits: int
    snapshots_offset: int
    snapshots: int
    dirty: bool
    extended_l2: bool
    compression_type: str
    external_data: bool
    data_file: bytes | None
    backing_name: bytes | None
    backing_format: str | None
    bitmap_directory: tuple[int, int]

    @property
    def l2_entry_words(self) -> int:
        return 2 if self.extended_l2 else 1

    @property
    def l2_table_reach(self) -> int:
        """How much of the disk one L2 table maps."""
        return self.cluster_size // (8 * self.l2_entry_words) * self.cluster_size

    @property
    def compressed_offset_bits(self) -> int:
        """How many bits of a compressed cluster's L2 entry are its offset; sectors follow."""
        return 62 - (self.cluster_size.bit_length() - 9)

    @property
    def compressed_size_limit(self) -> int:
        """What a compressed cluster may take at most, as its L2 entry counts sectors."""
        return 2 * self.cluster_size + 512


def cluster_size_of(start: bytes) -> int:
    """Return the cluster size, given at least the first 24 bytes of an image.

    Raises StorageError when this is no qcow2 image or the number is absurd, UnsupportedError for
    a version that is not known.
    """
    if start[:4] != MAGIC:
        raise StorageError("not a qcow2 image")
    if len(start) < 24:
        raise StorageError("truncated: the file ends within the qcow2 header")
    version, bits = map(int, struct.unpack_from(">I12xI", start, 4))
    if version not in (2, 3):
        raise UnsupportedError(f"qcow version {version} is not read, only qcow2 version 2 and 3")
    if bits not in _CLUSTER_BITS:
        raise StorageError(f"damaged qcow2 header: clusters of 2**{bits} bytes")
    return 1 << bits


def parse_header(start: bytes) -> Header:
    """Decode the header, given the first cluster of an image (less where the file is shorter).

    Raises StorageError when it is damaged, truncated, or marked corrupt; UnsupportedError naming
    every feature that is not known; KeyNeededError for an encrypted image.
    """
    cluster_size = cluster_size_of(start)
    fixed_size = _FIXED.size
    if len(start) < fixed_size:
        raise StorageError("truncated: the file ends within the qcow2 header")
    (
        _,
        version,
        backing_offset,
        backing_size,
        _,
        size,
        encryption,
        l1_entries,
        l1_offset,
        refcount_offset,
        refcount_clusters,
        snapshots,
        snapshots_offset,
    ) = _FIXED.unpack_from(start)
    incompatible, autoclear, refcount_order, header_length = 0, 0, 4, fixed_size
    if version == 3:
        if len(start) < fixed_size + _VERSION_3.size:
            raise StorageError("truncated: the file ends within the qcow2 header")
        incompatible, _, autoclear, refcount_order, header_length = _VERSION_3.unpack_from(
            start, fixed_size
        )
        if not fixed_size + _VERSION_3.size <= header_length <= cluster_size:
            raise _damaged(f"a header length of {header_length}")
    backing_name = None
    if backing_offset:
        backing_name = _backing_name(
            start, backing_offset, backing_size, range(header_length, cluster_size + 1)
        )
    extensions = _extensions(start, header_length, backing_offset or cluster_size)
    _check_features(incompatible, encryption, extensions)
    if refcount_order > 6:
        raise _damaged(f"refcounts of 2**{refcount_order} bits")
    if incompatible & _EXTENDED_L2 and cluster_size < 1 << 14:
        raise _damaged(f"extended L2 entries with clusters of {cluster_size} bytes")
    header = Header(
        version=version,
        cluster_size=cluster_size,
        virtual_size=size & ~511,
        l1_offset=l1_offset,
        l1_entries=l1_entries,
        refcount_table_offset=refcount_offset,
        refcount_table_size=refcount_clusters * cluster_size,
        refcount_bits=1 << refcount_order,
        snapshots_offset=snapshots_offset,
        snapshots=snapshots,
        dirty=bool(incompatible & _DIRTY),
        extended_l2=bool(incompatible & _EXTENDED_L2),
        compression_type=_compression_type(start[:header_length], incompatible),
        external_data=bool(incompatible & _EXTERNAL_DATA),
        data_file=_string(extensions.get(_DATA_FILE_NAME)),
        backing_name=backing_name,
        backing_format=_format_name(extensions.get(_BACKING_FORMAT)),
        bitmap_directory=_bitmap_directory(extensions.get(_BITMAPS, b""), autoclear),
    )
    _check_tables(header)
    return header


def _damaged(what: str) -> StorageError:
    return StorageError(f"damaged qcow2 header: {what}; {_REPAIR}")


def _string(value: bytes | None) -> bytes | None:
    """Return a recorded string as qemu sees it: up to the first NUL; None if that is empty."""
    return (value or b"").partition(b"\0")[0] or None


def _backing_name(start: bytes, offset: int, size: int, room: range) -> bytes:
    if offset not in room or not size <= min(_NAME_BYTES, room[-1] - offset):
        raise _damaged(f"a backing file name of {size} bytes at byte {offset}")
    if offset + size > len(start):
        raise StorageError("truncated: the file ends within the backing file name")
    name = _string(start[offset : offset + size])
    if name is None:
        raise _damaged("an empty backing file name")
    return name


def _compression_type(header: bytes, incompatible: int) -> str:
    number = header[_COMPRESSION_TYPE_BYTE] if len(header) > _COMPRESSION_TYPE_BYTE else 0
    if bool(number) != bool(incompatible & _COMPRESSION):
        raise _damaged(f"compression type {number} contradicts the feature bit")
    if number not in _COMPRESSION_TYPES:
        raise UnsupportedError(f"qcow2 compression type {number}")
    return _COMPRESSION_TYPES[number]


def _format_name(value: bytes | None) -> str | None:
    name = _string(value)
    return None if name is None else name.decode("ascii", "backslashreplace")


def _bitmap_directory(value: bytes, autoclear: int) -> tuple[int, int]:
    if not autoclear & _BITMAPS_VALID or len(value) < _BITMAP_EXTENSION.size:
        return 0, 0
    size, offset = _BITMAP_EXTENSION.unpack_from(value)
    return offset, size


def _extensions(start: bytes, position: int, end: int) -> dict[int, bytes]:
    """Return the header extensions in [position, end) of the first cluster, by type."""
    found: dict[int, bytes] = {}
    while position + _EXTENSION.size <= min(end, len(start)):
        kind, length = _EXTENSION.unpack_from(start, position)
        if kind == 0:
            break
        position += _EXTENSION.size
        if length > end - position:
            raise _damaged(f"header extension 0x{kind:08x} of {length} bytes")
        if length > len(start) - position:
            raise StorageError("truncated: the file ends within a header extension")
        found[kind] = start[position : position + length]
        position += (length + 7) & ~7
    return found


def _check_features(incompatible: int, encryption: int, extensions: dict[int, bytes]) -> None:
    unknown = incompatible & ~_KNOWN_INCOMPATIBLE
    if unknown:
        table = extensions.get(_FEATURE_NAMES, b"")
        names = {
            table[at + 1]: table[at + 2 : at + 48].rstrip(b"\0").decode("ascii", "backslashreplace")
            for at in range(0, len(table) - 47, 48)
            if table[at] == 0  # an incompatible feature
        }
        bits = [bit for bit in range(64) if unknown >> bit & 1]
        listed = ", ".join(f"{names.get(bit) or 'unnamed'} (bit {bit})" for bit in bits)
        raise UnsupportedError(f"qcow2 features that are not known: {listed}")
    if encryption in _ENCRYPTIONS:
        raise KeyNeededError(f"the qcow2 image is encrypted ({_ENCRYPTIONS[encryption]})")
    if encryption:
        raise UnsupportedError(f"qcow2 encryption method {encryption}")
    if incompatible & _CORRUPT:
        raise StorageError(f"marked as corrupt by a program that wrote to it; {_REPAIR}")


def _check_tables(header: Header) -> None:
    """Raise StorageError for tables whose place or size no program would have chosen."""
    needed = -(-header.virtual_size // header.l2_table_reach)
    if not needed <= header.l1_entries <= _L1_TABLE_BYTES // 8:
        raise _damaged(
            f"an L1 table of {header.l1_entries} entries for {header.virtual_size} bytes"
        )
    if not 0 < header.refcount_table_size <= _REFCOUNT_TABLE_BYTES:
        raise _damaged(f"a refcount table of {header.refcount_table_size} bytes")
    if header.snapshots > _SNAPSHOTS:
        raise _damaged(f"{header.snapshots} internal snapshots")
    tables = {"refcount table": header.refcount_table_offset}
    if header.l1_entries:
        tables["L1 table"] = header.l1_offset
    if header.snapshots:
        tables["snapshot table"] = header.snapshots_offset
    for name, offset in tables.items():
        if not offset or offset % header.cluster_size or offset >> 63:
            raise _damaged(f"the {name} at byte {offset}")


def words(data: bytes) -> "array[int]":
    """Decode big-endian 64-bit numbers."""
    values = array("Q", data)
    if sys.byteorder == "little":
        values.byteswap()
    return values


def used_length(data: bytes) -> int:
    """Return the length of `data` without the zero bytes at its end."""
    end = len(data)
    while end and data[max(end - len(_ZEROS), 0) : end] == _ZEROS[:end]:
        end -= min(end, len(_ZEROS))
    return len(data[:end].rstrip(b"\0"))


def may_reach_behind(table: bytes, header: Header, limit: int) -> bool:
    """Return False if surely no cluster that an L2 table refers to ends behind `limit` in the file.

    The table is taken as one number with an entry for a digit, so that a handful of operations on
    long integers do what takes a loop over the entries 10 to 30 times as long.
    """
    last_harmless = limit - header.compressed_size_limit
    if last_harmless < 0:
        return True
    ones = _ones(len(table), header.l2_entry_words)
    entries = int.from_bytes(table)
    compressed = entries >> 62 & ones
    compressed_mask = (1 << min(header.compressed_offset_bits, 56)) - 1
    offsets = entries & (compressed * compressed_mask + (ones - compressed) * OFFSET_MASK)
    # What is added makes any greater offset carry into bit 56.
    missing = (1 << 56) - 1 - min(last_harmless, (1 << 56) - 1)
    return bool(offsets + ones * missing & ones << 56)


@cache
def _ones(length: int, entry_words: int) -> int:
    return int.from_bytes(
        (1).to_bytes(8).ljust(8 * entry_words, b"\0") * (length // 8 // entry_words)
    )


def last_refcount(block: bytes, bits: int) -> tuple[int, int] | None:
    """Return index and value of the last refcount in a block that is not 0; None if all are.

    Numbers of less than a byte fill it from the least significant bit on.
    """
    used = used_length(block)
    if not used:
        return None
    if bits >= 8:
        index = (used - 1) * 8 // bits
        return index, int.from_bytes(block[index * bits // 8 : (index + 1) * bits // 8])
    place = (block[used - 1].bit_length() - 1) // bits
    value = block[used - 1] >> place * bits & (1 << bits) - 1
    return (used - 1) * 8 // bits + place, value


def compressed_length(data: bytes, compression_type: str, cluster_size: int) -> int | None:
    """Return how many bytes of `data` a compressed cluster takes that starts there; None where it
    needs more than there are, or is damaged."""
    if compression_type == "zstd":
        return _zstd_frame_length(data)
    stream = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    try:
        # Asked for no more than a cluster, it takes no more input than that needs.
        produced = stream.decompress(data, cluster_size)
    except zlib.error:
        return None
    if len(produced) < cluster_size:
        return None
    return len(data) - len(stream.unconsumed_tail) - len(stream.unused_data)


def _zstd_frame_length(data: bytes) -> int | None:
    """Return the length of the Zstandard frame (RFC 8878, 3.1.1) at the start of `data`."""
    if len(data) < 5 or data[:4] != b"\x28\xb5\x2f\xfd":
        return None
    descriptor = data[4]
    single_segment = descriptor >> 5 & 1
    content_size = (single_segment, 2, 4, 8)[descriptor >> 6]
    dictionary_id = (0, 1, 2, 4)[descriptor & 3]
    position = 5 + (1 - single_segment) + dictionary_id + content_size
    last = False
    while not last:
        block = int.from_bytes(data[position : position + 3], "little")
        last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
        position += 3 + (1 if kind == 1 else size)  # kind 1: one byte, repeated
        if position > len(data) or kind == 3:
            return None
    position += 4 if descriptor & 4 else 0  # checksum
    return position if position <= len(data) else None
