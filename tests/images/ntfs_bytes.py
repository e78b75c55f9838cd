"""NTFS volumes byte by byte: what ntfs-3g cannot or will not write.

Owns the structures as the published documentation has them (libfsntfs' "New Technologies File
System (NTFS)", the linux-ntfs documentation, MS-FSCC for reparse points), written down a second
time on purpose. Knows nothing of the reader. A test fills a Volume with files, whose attributes
it may give runs, sizes, flags and homes of any kind, and writes it to a sparse image file.

Concurrency: none.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

STANDARD_INFORMATION, ATTRIBUTE_LIST, FILE_NAME, OBJECT_ID = 0x10, 0x20, 0x30, 0x40
SECURITY_DESCRIPTOR = 0x50
VOLUME_NAME, VOLUME_INFORMATION, DATA, INDEX_ROOT = 0x60, 0x70, 0x80, 0x90
INDEX_ALLOCATION, BITMAP, REPARSE_POINT, EA_INFORMATION, EA = 0xA0, 0xB0, 0xC0, 0xD0, 0xE0
LOGGED_UTILITY_STREAM, END = 0x100, 0xFFFFFFFF
"""Attribute types ("The attribute types")."""

COMPRESSED, ENCRYPTED, SPARSE = 0x0001, 0x4000, 0x8000
"""Flags of an attribute ("MFT attribute data flags")."""

A_READ_ONLY, A_HIDDEN, A_SYSTEM, A_ARCHIVE = 0x1, 0x2, 0x4, 0x20
A_SPARSE, A_REPARSE, A_COMPRESSED, A_OFFLINE = 0x200, 0x400, 0x800, 0x1000
A_ENCRYPTED, A_RECALL_ON_OPEN, A_RECALL_ON_DATA = 0x4000, 0x40000, 0x400000
A_FOLDER = 0x10000000
"""FILE_ATTRIBUTE_* (MS-FSCC 2.6), and the bit that a $FILE_NAME has for a folder."""

POSIX, WIN32, DOS, WIN32_AND_DOS = 0, 1, 2, 3
"""Namespaces of a name."""

I30 = "$I30"

IN_USE, IS_FOLDER = 0x0001, 0x0002
"""Flags of a FILE record."""

NODE, LAST = 0x0001, 0x0002
"""Flags of an index entry: has a sub-node, ends its node."""

STRIDE = 512
"""Fixups protect each 512 bytes, whatever the sector size."""

TIME = 0x01D5_0000_1234_5678
"""A FILETIME in 2019, for every time of which a test says nothing."""

MFT, MFT_MIRROR, LOG_FILE, VOLUME, ATTR_DEF, ROOT, CLUSTER_BITMAP, BOOT = range(8)
BAD_CLUSTERS, SECURE, UPCASE, EXTEND = range(8, 12)
FIRST_FREE = 24
"""Numbers of FILE records."""

Run: TypeAlias = tuple[int | None, int]
"""First cluster (None: a hole) and number of clusters."""


def padded(data: bytes, unit: int) -> bytes:
    return data + bytes(-len(data) % unit)


def utf16(name: str) -> bytes:
    """Encode a name; lone surrogates stay as they are."""
    return name.encode("utf-16-le", "surrogatepass")


def fixed_up(data: bytes, usa_offset: int, number: int = 0x0101) -> bytes:
    """Return a FILE or INDX structure as it lies on disk: the last two bytes of each stride moved
    into the update sequence array ("The fix-up values")."""
    result = bytearray(data)
    result[usa_offset : usa_offset + 2] = struct.pack("<H", number)
    for index in range(len(data) // STRIDE):
        end = (index + 1) * STRIDE
        slot = usa_offset + 2 + 2 * index
        result[slot : slot + 2] = data[end - 2 : end]
        result[end - 2 : end] = struct.pack("<H", number)
    return bytes(result)


def signed(number: int) -> bytes:
    """Return the shortest little-endian two's complement of a number."""
    length = 1
    while not -(1 << 8 * length - 1) <= number < 1 << 8 * length - 1:
        length += 1
    return number.to_bytes(length, "little", signed=True)


def mapping_pairs(runs: Iterable[Run]) -> bytes:
    """Encode a run list ("Data runs"): lengths, and clusters relative to the run before."""
    result, before = b"", 0
    for cluster, count in runs:
        length = signed(count)
        where = b""
        if cluster is not None:
            where = signed(cluster - before)
            before = cluster
        result += bytes([len(where) << 4 | len(length)]) + length + where
    return result + b"\0"


@dataclass(slots=True)
class Attribute:
    """One attribute record. With `value` it is resident, else `runs` (or `pairs`, the encoded run
    list itself) say where it is. record: 0 for the base FILE record, else its nth extension.

    size, allocated, valid: of the whole attribute; by default those that belong to the runs.
    lowest: the first VCN. unit: the compression unit as a power of two of clusters.
    """

    kind: int
    name: str = ""
    value: bytes | None = None
    runs: Sequence[Run] = ()
    size: int = 0
    allocated: int | None = None
    valid: int | None = None
    lowest: int = 0
    flags: int = 0
    unit: int = 0
    indexed: bool = False
    record: int = 0
    pairs: bytes | None = None
    highest: int | None = None
    instance: int = -1

    def encoded(self, cluster: int) -> bytes:
        name = utf16(self.name)
        if self.value is not None:
            start = len(padded(bytes(24) + name, 8))
            body = struct.pack("<IHBB", len(self.value), start, self.indexed, 0) + name
            body = (bytes(16) + body).ljust(start, b"\0") + self.value
            name_offset = 24
        else:
            counted = self.flags & (COMPRESSED | SPARSE) != 0 and not self.lowest
            name_offset = 72 if counted else 64
            pairs_offset = len(padded(bytes(name_offset) + name, 8))
            clusters = sum(count for _, count in self.runs)
            highest = self.lowest + clusters - 1 if self.highest is None else self.highest
            allocated = clusters * cluster if self.allocated is None else self.allocated
            valid = self.size if self.valid is None else self.valid
            sizes = (0, 0, 0) if self.lowest else (allocated, self.size, valid)
            body = bytes(16) + struct.pack(
                "<qqHH4x3Q", self.lowest, highest, pairs_offset, self.unit, *sizes
            )
            if counted:
                body += struct.pack("<Q", cluster * sum(n for at, n in self.runs if at is not None))
            pairs = mapping_pairs(self.runs) if self.pairs is None else self.pairs
            body = (body + name).ljust(pairs_offset, b"\0") + pairs
        body = padded(body, 8)
        head = struct.pack(
            "<IIBBHHH",
            self.kind,
            len(body),
            self.value is None,
            len(self.name.encode("utf-16-le", "surrogatepass")) // 2,
            name_offset,
            self.flags,
            max(self.instance, 0),
        )
        return head + body[16:]


def list_entry(attribute: Attribute, reference: int) -> bytes:
    """Encode one entry of an $ATTRIBUTE_LIST ("The attribute list entry")."""
    name = utf16(attribute.name)
    length = len(padded(bytes(26) + name, 8))
    head = struct.pack(
        "<IHBBQQH",
        attribute.kind,
        length,
        len(name) // 2,
        26,
        attribute.lowest,
        reference,
        attribute.instance,
    )
    return (head + name).ljust(length, b"\0")


@dataclass(slots=True)
class Name:
    """A name of a file: the parent's reference, the text and the namespace."""

    parent: int
    text: str
    namespace: int = POSIX


NodeEntry: TypeAlias = tuple[bytes, int, int | None]
"""A key, a reference, and the VCN of the node below, if there is one."""

Entry: TypeAlias = "tuple[File, Name] | tuple[bytes, int]"
"""A file and its name, or a raw key ($FILE_NAME) and a raw reference."""


@dataclass(slots=True, eq=False)
class File:
    """A base FILE record with all that belongs to it.

    entries: what a folder's $I30 index has: a file with one of its names, or a raw key with a raw
    reference; None for what is no folder. links: the record's link count, by default that of its
    names. name_record: in which of its records the nth name lies. extensions: the numbers of its
    extension FILE records, by default free ones; extension_base: whose they say they are;
    list_reference: what the list says instead of their number. list_outside: the $ATTRIBUTE_LIST
    is not resident, and has list_pieces runs. damage: changes the record's bytes on disk.

    Of a folder: index_size: of its index blocks, by default the volume's. index_flags: of its
    $INDEX_ROOT. index_pieces: the runs of its $INDEX_ALLOCATION, and index_records: the extension
    records that they are spread over. leaf_entries: at most so many in a leaf. stale_blocks: what
    index blocks hold that the bitmap calls free; in_use: that it calls used, though the tree does
    not lead there. freed_blocks: live ones that it calls free. stale_behind: what lies behind the
    end marker of each live one. damaged_blocks: changes a block on disk. block_offsets: where the
    blocks are, once the volume is written.
    """

    number: int
    sequence: int = 1
    attributes: list[Attribute] = field(default_factory=list)
    names: list[Name] = field(default_factory=list)
    entries: list[Entry] | None = None
    dos_attributes: int = A_ARCHIVE
    times: tuple[int, int, int, int] = (TIME, TIME + 1, TIME + 2, TIME + 3)
    flags: int = IN_USE
    links: int | None = None
    extensions: list[int] = field(default_factory=list)
    extension_base: int | None = None
    list_outside: bool = False
    list_pieces: int = 1
    list_reference: Callable[[int], int] | None = None
    damage: Callable[[bytearray], None] | None = None
    stale_blocks: list[list[tuple[bytes, int]]] = field(default_factory=list)
    stale_behind: list[tuple[bytes, int]] = field(default_factory=list)
    in_use: bool = False
    freed_blocks: tuple[int, ...] = ()
    damaged_blocks: dict[int, Callable[[bytearray], None]] = field(default_factory=dict)
    leaf_entries: int = 1 << 30
    index_size: int = 0
    index_flags: int = 0
    index_pieces: int = 1
    index_records: int = 0
    name_record: Callable[[int], int] | None = None
    block_offsets: list[int] = field(default_factory=list)

    @property
    def reference(self) -> int:
        return self.number | self.sequence << 48

    @property
    def is_folder(self) -> bool:
        return self.entries is not None

    def standard_information(self) -> bytes:
        return struct.pack(
            "<4QIIIIIIQQ",
            *self.times,
            self.dos_attributes,
            *(0, 0, 0, 0, 0, 0, 0),  # versions, class, owner, security id, quota, USN
        )

    def key(self, name: Name) -> bytes:
        """Encode a $FILE_NAME ("The file name attribute")."""
        data = next((a for a in self.attributes if a.kind == DATA and not a.name), None)
        size = 0 if data is None else len(data.value) if data.value is not None else data.size
        tag = 0
        for attribute in self.attributes:
            if attribute.kind == REPARSE_POINT and attribute.value is not None:
                (tag,) = struct.unpack_from("<I", attribute.value)
        flags = self.dos_attributes | (A_FOLDER if self.is_folder else 0)
        text = utf16(name.text)
        return (
            struct.pack("<Q4QQQII", name.parent, *self.times, size, size, flags, tag)
            + bytes([len(text) // 2, name.namespace])
            + text
        )


class Volume:
    """An NTFS volume in the making.

    cluster, sector, record, index: sizes in bytes. mft_runs: how many clusters each run of $MFT
    has, the last repeated as often as needed (empty: one run). mft_parts: how many of those runs
    the base record and each extension but the last describe.
    """

    def __init__(
        self,
        *,
        cluster: int = 4096,
        sector: int = 512,
        record: int = 1024,
        index: int = 4096,
        label: str = "built",
        flags: int = 0,
        mft_runs: Sequence[int] = (),
        mft_parts: Sequence[int] = (),
        mft_extensions: Sequence[int] = (),
        upcase: Sequence[int] | None = None,
    ) -> None:
        self.cluster, self.sector, self.record_size, self.index_size = (
            cluster,
            sector,
            record,
            index,
        )
        self.label, self.flags = label, flags
        self.mft_runs, self.mft_parts = list(mft_runs), list(mft_parts)
        self.mft_extensions = list(mft_extensions)
        self.mft_list_outside = False
        self.upcase = list(upcase) if upcase is not None else unicode_upcase()
        self.serial = 0x1234_5678_9ABC_DEF0
        self.files: dict[int, File] = {}
        self.raw_records: dict[int, bytes] = {}
        self._next_number = FIRST_FREE
        self._next_cluster = -(-8192 // cluster)
        self._writes: list[tuple[int, bytes]] = []
        self.reserved = set(mft_extensions)
        self.root = self._system_file(ROOT, ".", folder=True)
        self.extend = self._system_file(EXTEND, "$Extend", folder=True)

    # Space

    def allocate(self, clusters: int) -> int:
        """Return the first of so many clusters that are this caller's alone."""
        first = self._next_cluster
        self._next_cluster += clusters
        return first

    def put(self, cluster: int, data: bytes) -> None:
        """Write bytes from the start of a cluster."""
        self._writes.append((cluster * self.cluster, data))

    def put_at(self, offset: int, data: bytes) -> None:
        """Write bytes at an offset of the volume, over whatever was there."""
        self._writes.append((offset, data))

    def clusters_of(self, length: int) -> int:
        return -(-length // self.cluster)

    def store(self, data: bytes, pieces: int = 1, fill: bytes = b"\xee") -> list[Run]:
        """Write content, in so many runs that do not touch; return them. The rest of the last
        cluster is not zeros, as on a disk that was used before."""
        total = self.clusters_of(len(data))
        data += fill * min(total * self.cluster - len(data), 65_536)
        runs: list[Run] = []
        done = 0
        for piece in range(min(pieces, total)):
            count = (total - done) // (min(pieces, total) - piece)
            first = self.allocate(count)
            self.put(first, data[done * self.cluster : (done + count) * self.cluster])
            runs.append((first, count))
            done += count
            if pieces > 1:
                self.put(self.allocate(1), b"\xdd" * min(self.cluster, 4096))
        return runs

    # Files

    def new_number(self) -> int:
        while self._next_number in self.files or self._next_number in self.reserved:
            self._next_number += 1
        self._next_number += 1
        return self._next_number - 1

    def _system_file(self, number: int, name: str, *, folder: bool = False) -> File:
        file = File(number, sequence=max(number, 1), dos_attributes=A_HIDDEN | A_SYSTEM)
        file.entries = [] if folder else None
        self.files[number] = file
        parent = self.root if number != ROOT else file
        self.link(file, name, parent, WIN32_AND_DOS)
        return file

    def file(
        self,
        name: str,
        *attributes: Attribute,
        parent: File | None = None,
        namespace: int = POSIX,
        number: int | None = None,
        **fields: object,
    ) -> File:
        """Add a file with a name; **fields are those of File."""
        file = File(self.new_number() if number is None else number, **fields)  # type: ignore[arg-type]
        self.files[file.number] = file
        file.attributes += attributes
        self.link(file, name, parent or self.root, namespace)
        return file

    def folder(self, name: str, parent: File | None = None, **fields: object) -> File:
        """Add an empty folder."""
        return self.file(name, parent=parent, entries=[], dos_attributes=0, **fields)

    def link(self, file: File, name: str, parent: File, namespace: int = POSIX) -> None:
        """Give a file a name, in its record and in the folder's index."""
        given = Name(parent.reference, name, namespace)
        file.names.append(given)
        assert parent.entries is not None
        parent.entries.append((file, given))

    def resident(self, name: str, data: bytes, **fields: object) -> File:
        """Add a file whose content lies in its record."""
        return self.file(name, Attribute(DATA, value=data), **fields)  # type: ignore[arg-type]

    def outside(self, name: str, data: bytes, pieces: int = 1, **fields: object) -> File:
        """Add a file whose content lies in clusters."""
        data_attribute = Attribute(DATA, runs=self.store(data, pieces), size=len(data))
        return self.file(name, data_attribute, **fields)  # type: ignore[arg-type]

    # Indexes

    def _entries(self, folder: File) -> list[tuple[bytes, int]]:
        """Return a folder's index entries in collation order, with keys filled in."""
        result = []
        for what, which in folder.entries or ():
            if isinstance(what, File):
                assert isinstance(which, Name)
                result.append((what.key(which), what.reference))
            else:
                assert isinstance(which, int)
                result.append((what, which))
        return sorted(result, key=lambda entry: self.collation(entry[0]))

    def collation(self, key: bytes) -> tuple[list[int], bytes]:
        units = struct.unpack(f"<{key[64]}H", key[66 : 66 + 2 * key[64]])
        return [self.upcase[unit] for unit in units], key[66:]

    def _index(self, folder: File, room: int) -> None:
        """Build a folder's index ("The index"): a tree from its leaves up, until the rest has room
        in the root; then what is stale."""
        size = folder.index_size or self.index_size
        step = size // (self.cluster if size >= self.cluster else STRIDE)
        level: list[NodeEntry] = [(*entry, None) for entry in self._entries(folder)]
        end: int | None = None
        blocks: list[bytes] = []
        while len(node(level, end)) > room or (folder.leaf_entries < 1 << 30 and not blocks):
            most = folder.leaf_entries if end is None else 1 << 30
            above: list[NodeEntry] = []
            while True:
                here = taken(level, most, size - 24 - index_start(size))
                vcn = len(blocks) * step
                last = level[0][2] if level else end
                content = node(here, last)
                blocks.append(
                    index_block(size, vcn, content, folder.stale_behind, last is not None)
                )
                if not level:
                    break
                key, reference, _ = level.pop(0)
                above.append((key, reference, vcn))
            level, end = above, vcn
        live = len(blocks)
        for stale in folder.stale_blocks:
            content = node([(key, reference, None) for key, reference in stale], None)
            blocks.append(index_block(size, len(blocks) * step, content))
        content = node(level, end)
        header = struct.pack("<4I", 16, 16 + len(content), 16 + len(content), end is not None)
        root = struct.pack("<4I", FILE_NAME, 1, size, step) + header + content
        folder.attributes.append(Attribute(INDEX_ROOT, I30, root, flags=folder.index_flags))
        if blocks:
            self._place_blocks(folder, blocks)
            used = (1 << (len(blocks) if folder.in_use else live)) - 1
            used &= ~sum(1 << number for number in folder.freed_blocks)
            bits = used.to_bytes(-(-len(blocks) // 64) * 8, "little")
            bitmap = Attribute(BITMAP, I30, bits)
            if len(bits) > 8:
                bitmap.value, bitmap.runs, bitmap.size = None, self.store(bits), len(bits)
            folder.attributes.append(bitmap)

    def _place_blocks(self, folder: File, blocks: list[bytes]) -> None:
        """Store a folder's index blocks, and add its $INDEX_ALLOCATION, in one piece or more."""
        data = b"".join(blocks)
        runs = self.store(data, folder.index_pieces)
        folder.block_offsets = [
            self._offset_in(runs, number * len(blocks[0])) for number in range(len(blocks))
        ]
        for number, damage in folder.damaged_blocks.items():
            block = bytearray(blocks[number])
            damage(block)
            self.put_at(folder.block_offsets[number], bytes(block))
        share = -(-len(runs) // max(folder.index_records, 1))
        lowest = 0
        for at in range(0, len(runs), share):
            piece = Attribute(INDEX_ALLOCATION, I30, runs=runs[at : at + share], lowest=lowest)
            piece.size, piece.allocated = len(data), self.clusters_of(len(data)) * self.cluster
            piece.record = at // share + 1 if folder.index_records else 0
            folder.attributes.append(piece)
            lowest += sum(count for _, count in piece.runs)

    # FILE records

    def _record(
        self,
        number: int,
        sequence: int,
        links: int,
        flags: int,
        base: int,
        body: bytes,
        next_id: int,
    ) -> bytearray:
        strides = self.record_size // STRIDE
        start = len(padded(bytes(48 + 2 + 2 * strides), 8))
        body += struct.pack("<II", END, 0)
        head = b"FILE" + struct.pack(
            "<HHQHHHHIIQHHI",
            *(48, strides + 1, 0x1000),
            *(sequence, links, start, flags),
            *(start + len(body), self.record_size, base),
            *(next_id, 0, number),
        )
        record = head.ljust(start, b"\0") + body
        assert len(record) <= self.record_size - 2, f"record {number} is too full: {len(record)}"
        return bytearray(fixed_up(record.ljust(self.record_size, b"\0"), 48))

    def _finish_file(self, file: File) -> dict[int, bytes]:
        """Return the FILE records of a file, its own and its extensions', by number."""
        attributes = self._all_attributes(file)
        count = max(each.record for each in attributes)
        while len(file.extensions) < count:
            file.extensions.append(self.new_number())
        self.reserved.update(file.extensions)
        if count:
            attributes.insert(1, self._attribute_list(file, attributes))
        bodies = [
            b"".join(each.encoded(self.cluster) for each in attributes if each.record == index)
            for index in range(count + 1)
        ]
        flags = file.flags | (IS_FOLDER if file.is_folder else 0)
        links = len(file.names) if file.links is None else file.links
        next_id = len(attributes) + 1
        own = self._record(file.number, file.sequence, links, flags, 0, bodies[0], next_id)
        if file.damage:
            file.damage(own)
        base = file.reference if file.extension_base is None else file.extension_base
        result = {file.number: bytes(own)}
        for number, body in zip(file.extensions, bodies[1:], strict=False):
            result[number] = bytes(self._record(number, 1, 0, IN_USE, base, body, next_id))
        return result

    def _all_attributes(self, file: File) -> list[Attribute]:
        """Return a file's attributes but for the list, in their order and with their numbers."""
        attributes = [Attribute(STANDARD_INFORMATION, value=file.standard_information())]
        for number, name in enumerate(file.names):
            record = file.name_record(number) if file.name_record else 0
            attributes.append(
                Attribute(FILE_NAME, value=file.key(name), indexed=True, record=record)
            )
        if file.is_folder:
            taken = sum(len(each.encoded(self.cluster)) for each in attributes + file.attributes)
            # Besides: the headers of the record and of the index' three attributes, and the end.
            self._index(file, self.record_size - taken - 336)
        attributes += file.attributes
        attributes.sort(key=lambda each: (each.kind, each.name, each.lowest))
        for instance, each in enumerate(attributes):
            each.instance = instance
        return attributes

    def _attribute_list(self, file: File, attributes: list[Attribute]) -> Attribute:
        """Return the $ATTRIBUTE_LIST of a file's other attributes."""
        said = file.list_reference or (lambda number: number | 1 << 48)
        entries = b"".join(
            list_entry(
                each, said(file.extensions[each.record - 1]) if each.record else file.reference
            )
            for each in attributes
        )
        listed = Attribute(ATTRIBUTE_LIST, value=entries, instance=len(attributes))
        if file.list_outside:
            listed.value, listed.size = None, len(entries)
            listed.runs = self.store(entries, file.list_pieces)
        return listed

    # The volume's own files

    def _system_files(self) -> None:
        """Add what every volume has ("The metadata files")."""
        mirror_clusters = self.clusters_of(max(4 * self.record_size, self.cluster))
        self._mirror = self.allocate(mirror_clusters)
        self._own(
            MFT_MIRROR,
            "$MFTMirr",
            Attribute(DATA, runs=[(self._mirror, mirror_clusters)], size=4 * self.record_size),
        )
        log = b"\xff" * max(65_536, self.cluster)
        self._own(LOG_FILE, "$LogFile", Attribute(DATA, runs=self.store(log), size=len(log)))
        self._own(
            VOLUME,
            "$Volume",
            Attribute(VOLUME_NAME, value=utf16(self.label)),
            Attribute(VOLUME_INFORMATION, value=struct.pack("<QBBH", 0, 3, 1, self.flags)),
            Attribute(DATA, value=b""),
        )
        definitions = attribute_definitions()
        self._own(
            ATTR_DEF,
            "$AttrDef",
            Attribute(DATA, runs=self.store(definitions), size=len(definitions)),
        )
        boot = self.clusters_of(8192)
        self._own(BOOT, "$Boot", Attribute(DATA, runs=[(0, boot)], size=8192))
        case = struct.pack("<65536H", *self.upcase)
        self._own(UPCASE, "$UpCase", Attribute(DATA, runs=self.store(case), size=len(case)))
        empty = node([], None)
        header = struct.pack("<4I", 16, 16 + len(empty), 16 + len(empty), 0)
        blocks = self.index_size // (self.cluster if self.index_size >= self.cluster else STRIDE)
        self._own(
            SECURE,
            "$Secure",
            Attribute(DATA, "$SDS", b""),
            *(
                Attribute(
                    INDEX_ROOT,
                    name,
                    struct.pack("<4I", 0, collation, self.index_size, blocks) + header + empty,
                )
                for name, collation in (("$SDH", 0x12), ("$SII", 0x10))
            ),
        )
        self.files[SECURE].flags |= 0x8  # A view index, not one of names.

    def _own(self, number: int, name: str, *attributes: Attribute) -> File:
        file = self._system_file(number, name)
        file.attributes += attributes
        return file

    def write(self, path: Path) -> Path:
        """Finish the volume and write it to a sparse file; nothing can be added afterwards."""
        self._system_files()
        mft = self._system_file(MFT, "$MFT")
        bitmap = self._system_file(CLUSTER_BITMAP, "$Bitmap")
        bad = self._system_file(BAD_CLUSTERS, "$BadClus")
        records: dict[int, bytes] = {}
        for file in list(self.files.values()):
            if file not in (mft, bitmap, bad, self.root):
                records |= self._finish_file(file)
        self._place_mft(mft, max(self._next_number, *self.files, *self.reserved) + 1)
        records |= self._finish_file(mft)
        # The root's index has keys with sizes of all its files, so that it comes late.
        placeholder = Attribute(DATA, runs=[(0, 1)], size=1)
        bitmap.attributes.append(placeholder)
        records |= self._finish_file(self.root)
        self.allocate(16)  # Some space stays free.
        clusters = self._next_cluster + self.clusters_of(1 << 16)
        size = -(-clusters // 64) * 8
        used = ((1 << self._next_cluster + self.clusters_of(size)) - 1).to_bytes(size, "little")
        runs = self.store(used, fill=b"\0")
        placeholder.runs, placeholder.size, placeholder.valid = runs, size, size
        bad.attributes += [
            Attribute(DATA, value=b""),
            Attribute(DATA, "$Bad", runs=[(None, clusters)], size=clusters * self.cluster, valid=0),
        ]
        records |= self._finish_file(bitmap) | self._finish_file(bad) | self.raw_records
        self._write_mft(records)
        total = clusters * self.cluster
        boot = self.boot_sector(total // self.sector)
        with path.open("wb") as image:
            image.truncate(total + self.sector)
            for offset, data in self._writes:
                image.seek(offset)
                image.write(data)
            image.seek(0)
            image.write(boot)
            image.seek(total)
            image.write(boot)
        return path

    def _place_mft(self, mft: File, records: int) -> None:
        """Decide which clusters $MFT has, and in which FILE records that is written."""
        total = self.clusters_of(records * self.record_size)
        sizes = [*self.mft_runs, *self.mft_runs[-1:] * total] or [total]
        runs: list[Run] = []
        for count in sizes:
            if sum(length for _, length in runs) >= total:
                break
            runs.append((self.allocate(count), count))
            if self.mft_runs:
                self.put(self.allocate(1), b"\xcc" * min(self.cluster, 4096))  # runs do not touch
        if len(self.mft_runs) > 1:  # not in ascending order either
            same = [index for index in range(1, len(runs)) if runs[index][1] == runs[-1][1]]
            turned = [runs[index] for index in reversed(same)]
            for index, run in zip(same, turned, strict=True):
                runs[index] = run
        total = sum(count for _, count in runs)
        size = total * self.cluster
        self.mft_map = runs
        mft.extensions = list(self.mft_extensions)
        mft.list_outside = self.mft_list_outside
        done, lowest = 0, 0
        for part, count in enumerate([*self.mft_parts, len(runs)]):
            piece = runs[done : done + count]
            if not piece:
                break
            mft.attributes.append(
                Attribute(DATA, runs=piece, lowest=lowest, record=part, size=size, allocated=size)
            )
            done += len(piece)
            lowest += sum(length for _, length in piece)
        number = size // self.record_size
        bits = ((1 << number) - 1).to_bytes(-(-number // 64) * 8, "little")
        runs = self.store(bits, fill=b"\0")
        mft.attributes.append(Attribute(BITMAP, runs=runs, size=len(bits)))
        self._mft_records = number

    def mft_offset(self, number: int) -> int:
        """Return where a FILE record begins on the volume, once the volume is written."""
        return self._offset_in(self.mft_map, number * self.record_size)

    def _offset_in(self, runs: Sequence[Run], offset: int) -> int:
        """Return where a byte of some content is on the volume."""
        for first, count in runs:
            if offset < count * self.cluster:
                assert first is not None
                return first * self.cluster + offset
            offset -= count * self.cluster
        raise AssertionError("beyond the end")

    def _write_mft(self, records: dict[int, bytes]) -> None:
        for number in range(self._mft_records):
            if number not in records:
                flags = IN_USE if number < 16 else 0
                records[number] = bytes(self._record(number, max(number, 1), 0, flags, 0, b"", 1))
            data = records[number]
            for start in range(0, len(data), STRIDE):  # a record may be larger than a cluster
                at = self._offset_in(self.mft_map, number * self.record_size + start)
                self.put_at(at, data[start : start + STRIDE])
        self.put(self._mirror, b"".join(records[number] for number in range(4)))

    def boot_sector(self, sectors: int) -> bytes:
        """Encode the boot sector ("The volume header")."""
        per_cluster = self.cluster // self.sector
        first = self.mft_map[0][0]
        data = bytearray(self.sector)
        data[:11] = b"\xeb\x52\x90NTFS    "
        struct.pack_into("<HB", data, 11, self.sector, self._power(per_cluster))
        data[21] = 0xF8
        struct.pack_into("<HHI", data, 24, 63, 255, 0)
        struct.pack_into("<I", data, 36, 0x0080_0080)
        struct.pack_into("<QQQ", data, 40, sectors, first, self._mirror)
        struct.pack_into(
            "<B3xB3x", data, 64, self._size(self.record_size), self._size(self.index_size)
        )
        struct.pack_into("<Q", data, 72, self.serial)
        data[510:512] = b"\x55\xaa"
        return bytes(data)

    def _power(self, sectors: int) -> int:
        """Up to 128 sectors as they are, above as a negative power of two."""
        return sectors if sectors <= 128 else 256 - (sectors.bit_length() - 1)

    def _size(self, size: int) -> int:
        """In clusters, or below one cluster as a negative power of two of bytes."""
        return size // self.cluster if size >= self.cluster else 256 - (size.bit_length() - 1)


def index_start(size: int) -> int:
    """Where entries begin in an index block of a size, counted from its index header."""
    return len(padded(bytes(40 + 2 + 2 * (size // STRIDE)), 8)) - 24


def index_block(
    size: int,
    vcn: int,
    content: bytes,
    behind: Sequence[tuple[bytes, int]] = (),
    inner: bool = False,
) -> bytes:
    """Encode an index block ("The index entry"): a node's entries, and what lies behind them."""
    start = index_start(size)
    head = b"INDX" + struct.pack("<HHQQ", 40, size // STRIDE + 1, 0x1000, vcn)
    header = struct.pack("<4I", start, start + len(content), size - 24, inner)
    block = (head + header).ljust(24 + start, b"\0") + content
    assert len(block) <= size
    stale = node([(key, reference, None) for key, reference in behind], None)
    if behind and len(block + stale) <= size:
        block += stale
    return fixed_up(block.ljust(size, b"\0"), 40)


def taken(level: list[NodeEntry], most: int, room: int) -> list[NodeEntry]:
    """Take as many entries from the front as a node with a child of its end has room for."""
    here: list[NodeEntry] = []
    while level and len(here) < most and len(node([*here, level[0]], 1)) <= room:
        here.append(level.pop(0))
    return here


def node(entries: Sequence[NodeEntry], end: int | None) -> bytes:
    """Encode the entries of an index node: (key, reference, VCN of the node below or None), and
    the end marker with the last node below ("The index value")."""
    result = []
    for key, reference, below in entries:
        result.append(index_entry(key, reference, below, 0))
    result.append(index_entry(b"", 0, end, LAST))
    return b"".join(result)


def index_entry(key: bytes, reference: int, below: int | None, flags: int) -> bytes:
    tail = b"" if below is None else struct.pack("<Q", below)
    flags |= NODE if below is not None else 0
    body = padded(bytes(16) + key, 8)[16:]
    head = struct.pack("<QHHHH", reference, 16 + len(body) + len(tail), len(key), flags, 0)
    return head + body + tail


def unicode_upcase() -> list[int]:
    """Return an upper-case table as Unicode has it: single characters of the first plane."""
    table = list(range(65_536))
    for code in range(65_536):
        upper = chr(code).upper()
        if len(upper) == 1 and ord(upper) < 65_536 and not 0xD800 <= code < 0xE000:
            table[code] = ord(upper)
    return table


def attribute_definitions() -> bytes:
    """Return the content of $AttrDef ("The attribute types")."""
    rows = [
        ("$STANDARD_INFORMATION", 0x10, 0, 0x40, 0x30, 0x48),
        ("$ATTRIBUTE_LIST", 0x20, 0, 0x80, 0, -1),
        ("$FILE_NAME", 0x30, 1, 0x42, 0x44, 0x242),
        ("$OBJECT_ID", 0x40, 0, 0x40, 0, 0x100),
        ("$SECURITY_DESCRIPTOR", 0x50, 0, 0x80, 0, -1),
        ("$VOLUME_NAME", 0x60, 0, 0x40, 2, 0x100),
        ("$VOLUME_INFORMATION", 0x70, 0, 0x40, 0xC, 0xC),
        ("$DATA", 0x80, 0, 0, 0, -1),
        ("$INDEX_ROOT", 0x90, 0, 0x40, 0, -1),
        ("$INDEX_ALLOCATION", 0xA0, 0, 0x80, 0, -1),
        ("$BITMAP", 0xB0, 0, 0x80, 0, -1),
        ("$REPARSE_POINT", 0xC0, 0, 0x80, 0, 0x4000),
        ("$EA_INFORMATION", 0xD0, 0, 0x40, 8, 8),
        ("$EA", 0xE0, 0, 0, 0, 0x10000),
        ("$LOGGED_UTILITY_STREAM", 0x100, 0, 0x80, 0, 0x10000),
    ]
    result = b""
    for name, kind, collation, flags, least, most in rows:
        result += utf16(name).ljust(128, b"\0")
        result += struct.pack("<IIIIqq", kind, 0, collation, flags, least, most)
    return result + bytes(160)


# Values of attributes


def reparse(tag: int, data: bytes) -> Attribute:
    """Encode a reparse point: of Microsoft's (MS-FSCC 2.1.2.2), or with a GUID (2.1.2.3)."""
    guid = b"" if tag >> 31 else bytes(range(1, 17))
    return Attribute(REPARSE_POINT, value=struct.pack("<IHH", tag, len(data), 0) + guid + data)


def symlink(target: str, shown: str | None = None, *, relative: bool = False) -> Attribute:
    """Encode a symbolic link (MS-FSCC 2.1.2.4)."""
    one, other = utf16(target), utf16(target if shown is None else shown)
    head = struct.pack("<4HI", 0, len(one), len(one), len(other), relative)
    return reparse(0xA000000C, head + one + other)


def junction(target: str, shown: str = "") -> Attribute:
    """Encode a junction or mount point (MS-FSCC 2.1.2.5)."""
    one, other = utf16(target), utf16(shown)
    head = struct.pack("<4H", 0, len(one), len(one) + 2, len(other))
    return reparse(0xA0000003, head + one + b"\0\0" + other + b"\0\0")


def extended_attributes(values: dict[bytes, bytes]) -> list[Attribute]:
    """Encode $EA_INFORMATION and $EA (MS-FSCC 2.4.15, FILE_FULL_EA_INFORMATION)."""
    data = b""
    for name, value in values.items():
        length = len(padded(bytes(8) + name + b"\0" + value, 4))
        entry = struct.pack("<IBBH", length, 0, len(name), len(value)) + name + b"\0" + value
        data += entry.ljust(length, b"\0")
    packed = sum(5 + len(name) + len(value) for name, value in values.items())
    return [
        Attribute(EA_INFORMATION, value=struct.pack("<HHI", packed, 0, len(data))),
        Attribute(EA, value=data),
    ]


# LZNT1 (MS-XCA 2.5, and libfsntfs' "Compression"), enough of it for runs of one byte


def lznt1_chunk(data: bytes) -> bytes:
    """Encode up to 4 KiB: one byte many times over by a match with itself, other data stored."""
    if len(data) > 3 and data == data[:1] * len(data):
        length = len(data) - 1 - 3  # one literal; at position 1 the length has 12 bits
        body = b"\x02" + data[:1] + struct.pack("<H", length)
        return struct.pack("<H", 0xB000 | len(body) - 1) + body
    return struct.pack("<H", 0x3000 | len(data) - 1) + data


def lznt1(data: bytes) -> bytes:
    """Encode one compression unit, or what of it there is."""
    return b"".join(lznt1_chunk(data[at : at + 4096]) for at in range(0, len(data), 4096))


def compressed(
    volume: Volume,
    data: bytes,
    unit: int = 4,
    *,
    padded_end: bool = True,
    short_chunk: bool = False,
) -> Attribute:
    """Return a $DATA of LZNT1 units of 2**unit clusters, each stored plainly where it does not
    become smaller, and left out where it is zeros. padded_end: the run list ends with the last
    unit's hole, as Windows writes it; else with its data. short_chunk: the last chunk ends where
    the data does; else it is filled up with zeros, as ntfs-3g demands of one that is stored."""
    runs: list[Run] = []
    clusters = 1 << unit
    length = clusters * volume.cluster
    for at in range(0, len(data), length):
        plain = data[at : at + length]
        packed = lznt1(plain if short_chunk else padded(plain, min(4096, length)))
        if not plain.strip(b"\0"):
            runs.append((None, clusters))
        elif volume.clusters_of(len(packed)) < clusters:
            runs += volume.store(packed, fill=b"\0")
            if padded_end or at + length < len(data):
                runs.append((None, clusters - runs[-1][1]))
        else:
            runs += volume.store(plain.ljust(length, b"\0"))
    return Attribute(DATA, runs=runs, size=len(data), flags=COMPRESSED, unit=unit)
