"""Whether an image file still holds everything that its disk needs.

qemu reads whatever lies behind the end of a file as zeros, without an error: a truncated image
would show files full of zeros, and a truncated L2 table the older content of the backing file. So
an image is shown to be whole before it is served. Owns that question for one image; must not know
about chains. Blocks: for a worker thread.

Two ways to the answer:

- The refcounts, a few reads: when all their blocks, the L1 table and all L2 tables lie in the file,
  and the last cluster with a refcount does too, then nothing is missing. A last cluster that is
  only partly there is legal where it needs no more: compressed clusters end anywhere, so do the L1
  and snapshot tables, and with extended L2 entries a cluster ends with its last subcluster.
- The L2 tables, all of them: precise, but slow (for 100 GB of disk 13 MB in 200 places, and some
  50 ms of computing), so only where the refcounts give no answer (stale in a dirty image; behind
  the end of the file for clusters that a killed writer had allocated but not written; an external
  file smaller than the disk) or a deep check was asked for.
"""

import struct
from collections.abc import Iterable, Iterator

from restorefs.errors import StorageError
from restorefs.session.qcow2.file import ImageBytes
from restorefs.session.qcow2.layout import (
    COMPRESSED,
    COPIED,
    OFFSET_MASK,
    READS_AS_ZERO,
    Header,
    compressed_length,
    last_refcount,
    may_reach_behind,
    used_length,
    words,
)

_SNAPSHOT = struct.Struct(">12xHH20xI")  # lengths of ID and name, and of the extra data
_REFCOUNT_BLOCKS_TRIED = 16  # all-zero ones at the end are legal, but unusual


def check_whole(file: ImageBytes, header: Header, data: ImageBytes | None, *, deep: bool) -> None:
    """Raise StorageError unless all that the disk needs lies in `file`, or in the external file
    `data`; it names the first byte of the disk that is lost. `deep` does not rely on refcounts.
    """
    mapping = _Mapping(file, header, data)
    for offset, size, what in (
        (header.refcount_table_offset, header.refcount_table_size, "its refcount table"),
        (*header.bitmap_directory, "its bitmap directory"),
    ):
        file.check_inside(offset, size, what)
    _check_snapshot_table(file, header)
    if mapping.lost_from is None and not deep:
        if data is None:
            shown_whole = _refcounts_show_whole(mapping)
        else:
            shown_whole = data.size >= header.virtual_size
        if shown_whole:
            return
    for position, _ in mapping.reaching(mapping.tables, mapping.stored.size):
        raise mapping.truncated(position)
    if mapping.lost_from is not None:
        raise mapping.truncated(mapping.lost_from)


class _Mapping:
    """The L1 table and how guest clusters are found through it.

    stored: the file that holds the guest clusters.
    tables: (index in the L1 table, offset of the L2 table), ascending by index, before the first
        that is not in the file; each offset once, so walking them reads no more than the file has.
    lost_from: where on the disk the first L2 table begins to map that is not in the file, or None.
    """

    def __init__(self, file: ImageBytes, header: Header, data: ImageBytes | None) -> None:
        self.file = file
        self.header = header
        self.stored = data or file
        self.tables: list[tuple[int, int]] = []
        self.lost_from: int | None = None
        used = -(-header.virtual_size // header.l2_table_reach)  # the rest: memory of snapshots
        l1 = words(file.read(header.l1_offset, header.l1_entries * 8, "its L1 table"))[:used]
        for index, entry in enumerate(l1):
            offset = entry & OFFSET_MASK
            if offset + header.cluster_size > file.size:
                self.lost_from = index * header.l2_table_reach
                break
            if offset % header.cluster_size:
                raise StorageError(f"damaged: L2 table {index} is said to lie at byte {offset}")
            if offset:
                self.tables.append((index, offset))
        if len({offset for _, offset in self.tables}) != len(self.tables):
            raise StorageError("damaged: parts of the disk share one L2 table")

    def truncated(self, position: int) -> StorageError:
        file = "the file" if self.stored is self.file else "its external data file"
        return StorageError(
            f"truncated: from byte {position} of the disk on, content lies behind the end of {file}"
            f" ({self.stored.size} bytes)"
        )

    def reaching(self, tables: Iterable[tuple[int, int]], limit: int) -> Iterator[tuple[int, int]]:
        """Yield (position on the disk, end in the file) of each cluster that some L2 tables map
        and whose content ends behind byte `limit` of the file."""
        header = self.header
        size, step = header.cluster_size, header.l2_entry_words
        offset_mask = (1 << header.compressed_offset_bits) - 1
        harmless = limit - header.compressed_size_limit
        for table_index, table_offset in tables:
            start = table_index * header.l2_table_reach
            used = -(-(header.virtual_size - start) // size)
            data = self.file.read(table_offset, size, "an L2 table")
            if not may_reach_behind(data, header, limit):
                continue
            table = words(data)
            for index, entry in enumerate(table[: used * step : step]):
                position = start + index * size
                if entry & COMPRESSED:
                    if entry & offset_mask <= harmless:
                        continue  # most of them, also in the table that reaches the limit
                    end = self._compressed_end(entry)
                else:
                    bitmap = table[index * 2 + 1] if header.extended_l2 else None
                    end = self._standard_end(entry, bitmap, header.virtual_size - position)
                if end > limit:
                    yield position, end

    def _standard_end(self, entry: int, bitmap: int | None, room: int) -> int:
        """Return where the content of a standard cluster ends, 0 if it has none in the file.

        bitmap: of its subclusters, with extended L2 entries. room: bytes up to the disk's end.
        """
        size = self.header.cluster_size
        if bitmap is not None:
            used = (bitmap & 0xFFFF_FFFF).bit_length() * size // 32
        else:
            used = 0 if entry & READS_AS_ZERO and self.header.version > 2 else size
        offset = entry & OFFSET_MASK
        if not used or not (offset or (entry & COPIED and self.stored is not self.file)):
            return 0
        return offset + min(used, room)

    def _compressed_end(self, entry: int) -> int:
        """Return where the data of a compressed cluster ends, exactly where that matters."""
        offset_bits = self.header.compressed_offset_bits
        offset = entry & (1 << offset_bits) - 1
        more_sectors = (entry & COMPRESSED - 1) >> offset_bits
        end = (offset | 511) + 1 + more_sectors * 512
        if end <= self.file.size or offset >= self.file.size:
            return end
        # The last sector may be declared further than the file goes: decoding tells.
        data = self.file.read_upto(offset, end - offset)
        length = compressed_length(data, self.header.compression_type, self.header.cluster_size)
        return end if length is None else offset + length


def _refcounts_show_whole(mapping: _Mapping) -> bool:
    """Return True if the refcounts prove that no cluster is missing, False if they do not tell."""
    file, header = mapping.file, mapping.header
    last = None if header.dirty else _last_allocated(file, header)
    if last is None:
        return False
    start, references = last
    end = start + header.cluster_size
    if end <= file.size:
        return True
    if start >= file.size:
        return False
    # Only a part of the last cluster is there. Tables are known to be whole: find everything else
    # that refers to it, beginning where a writer that goes through the disk in order has ended.
    l1_end = header.l1_offset + header.l1_entries * 8
    references -= header.l1_offset < end and start < l1_end
    references -= start == header.bitmap_directory[0]
    references -= header.snapshots > 0 and start == header.snapshots_offset
    if references <= 0:
        return True
    for _, content_end in mapping.reaching(reversed(mapping.tables), start):
        if content_end > file.size:
            return False
        references -= 1
        if not references:
            return True
    return False


def _last_allocated(file: ImageBytes, header: Header) -> tuple[int, int] | None:
    """Return offset and refcount of the last cluster that has a refcount; None if that is unknown,
    because refcount blocks are missing too."""
    size = header.cluster_size
    table_offset, table_size = header.refcount_table_offset, header.refcount_table_size
    table = file.read(table_offset, table_size, "its refcount table")
    used = -(-used_length(table) // 8) * 8
    blocks = [(index, entry & ~511) for index, entry in enumerate(words(table[:used])) if entry]
    if any(offset + size > file.size for _, offset in blocks):
        return None
    for index, offset in reversed(blocks[-_REFCOUNT_BLOCKS_TRIED:]):
        block = file.read(offset, size, "a refcount block")
        if last := last_refcount(block, header.refcount_bits):
            number, references = last
            return (index * size * 8 // header.refcount_bits + number) * size, references
    return None


def _check_snapshot_table(file: ImageBytes, header: Header) -> None:
    """Raise StorageError unless the table of internal snapshots lies in the file."""
    position = header.snapshots_offset
    for _ in range(header.snapshots):
        entry = file.read(position, _SNAPSHOT.size, "its snapshot table")
        id_length, name_length, extra_length = _SNAPSHOT.unpack(entry)
        length = _SNAPSHOT.size + id_length + name_length + extra_length
        file.check_inside(position, length, "its snapshot table")
        position += -(-length // 8) * 8
