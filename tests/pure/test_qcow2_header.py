"""The decoding of qcow2 structures, on bytes built by hand from the specification."""

import re
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from restorefs.errors import KeyNeededError, RestoreError, StorageError, UnsupportedError
from restorefs.session.qcow2 import inspect_chain
from restorefs.session.qcow2.layout import (
    COMPRESSED,
    cluster_size_of,
    compressed_length,
    last_refcount,
    may_reach_behind,
    parse_header,
    used_length,
)

BACKING_FORMAT, FEATURE_NAMES = 0xE2792ACA, 0x6803F857
DATA_FILE, BITMAPS, UNKNOWN = 0x44415441, 0x23852875, 0x12345678


@dataclass
class Built:
    """A header, field by field; `bytes()` gives the first cluster."""

    version: int = 3
    cluster_bits: int = 9
    size: int = 64 * 512
    encryption: int = 0
    l1_entries: int = 1
    l1_offset: int = 3 * 512
    refcount_offset: int = 512
    refcount_clusters: int = 1
    snapshots: int = 0
    snapshots_offset: int = 0
    incompatible: int = 0
    compatible: int = 0
    autoclear: int = 0
    refcount_order: int = 4
    header_length: int = 112
    compression: int = 0
    backing: bytes = b""
    backing_offset: int | None = None
    backing_size: int | None = None
    extensions: list[tuple[int, bytes]] = field(default_factory=list)

    def __bytes__(self) -> bytes:
        rest = b""
        for kind, data in self.extensions:
            rest += struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)
        rest += bytes(8)
        length = 72 if self.version == 2 else self.header_length
        at = length + len(rest) if self.backing else 0
        if self.backing_offset is not None:
            at = self.backing_offset
        name_size = len(self.backing) if self.backing_size is None else self.backing_size
        head = struct.pack(
            ">4sIQIIQIIQQIIQ",
            b"QFI\xfb",
            self.version,
            at,
            name_size,
            self.cluster_bits,
            self.size,
            self.encryption,
            self.l1_entries,
            self.l1_offset,
            self.refcount_offset,
            self.refcount_clusters,
            self.snapshots,
            self.snapshots_offset,
        )
        if self.version == 3:
            head += struct.pack(
                ">QQQIIB",
                self.incompatible,
                self.compatible,
                self.autoclear,
                self.refcount_order,
                self.header_length,
                self.compression,
            )
            head = head[: self.header_length].ljust(self.header_length, b"\0")
        return (head + rest + self.backing).ljust(1 << min(self.cluster_bits, 21), b"\0")


def feature_name(kind: int, bit: int, name: bytes) -> bytes:
    return bytes([kind, bit]) + name.ljust(46, b"\0")


def image() -> bytearray:
    """A whole image with clusters of 512 bytes: header, refcount table and block, L1, L2, data."""
    table = struct.pack(">Q", 2 * 512).ljust(512, b"\0")
    block = struct.pack(">8H", 1, 1, 1, 1, 1, 1, 1, 0).ljust(512, b"\0")
    l1 = struct.pack(">Q", 1 << 63 | 4 * 512).ljust(512, b"\0")
    l2 = struct.pack(">QQ", 1 << 63 | 5 * 512, 1 << 63 | 6 * 512).ljust(512, b"\0")
    return bytearray(bytes(Built()) + table + block + l1 + l2 + b"a" * 512 + b"b" * 512)


def test_version_3() -> None:
    header = parse_header(
        bytes(
            Built(
                cluster_bits=16,
                size=(5 << 30) + 300,
                l1_entries=20,
                l1_offset=0x30000,
                refcount_offset=0x10000,
                snapshots=2,
                snapshots_offset=0x50000,
                incompatible=0b11001,
                compression=1,
                refcount_order=0,
            )
        )
    )
    assert header.cluster_size == 65536
    assert header.virtual_size == 5 << 30, "the rest of a sector is not part of the disk"
    assert (header.l1_offset, header.l1_entries) == (0x30000, 20)
    assert (header.refcount_table_offset, header.refcount_table_size) == (0x10000, 65536)
    assert (header.snapshots, header.snapshots_offset) == (2, 0x50000)
    assert header.refcount_bits == 1
    assert header.dirty
    assert header.extended_l2
    assert header.compression_type == "zstd"
    assert not header.external_data
    assert header.backing_name is None
    assert header.backing_format is None
    assert header.bitmap_directory == (0, 0)


def test_version_2_has_no_features_and_refcounts_of_16_bits() -> None:
    start = bytearray(bytes(Built(version=2, backing=b"base", extensions=[])))
    header = parse_header(bytes(start))
    assert header.version == 2
    assert header.refcount_bits == 16
    assert header.compression_type == "zlib"
    assert header.backing_name == b"base"


def test_version_2_with_the_backing_name_right_behind_the_header() -> None:
    start = bytearray(bytes(Built(version=2, backing_offset=72, backing_size=8)))
    start[72:80] = b"base.img"
    assert parse_header(bytes(start)).backing_name == b"base.img"


def test_extensions() -> None:
    header = parse_header(
        bytes(
            Built(
                incompatible=0b100,
                autoclear=1,
                backing=b"b\xff:\n",
                extensions=[
                    (UNKNOWN, b"ignored"),
                    (BACKING_FORMAT, b"qcow2"),
                    (DATA_FILE, b"disk.data"),
                    (BITMAPS, struct.pack(">IIQQ", 1, 0, 32, 0x600)),
                ],
            )
        )
    )
    assert header.backing_name == b"b\xff:\n"
    assert header.backing_format == "qcow2"
    assert header.external_data
    assert header.data_file == b"disk.data"
    assert header.bitmap_directory == (0x600, 32)


@pytest.mark.parametrize(
    "built",
    [
        Built(extensions=[(BITMAPS, struct.pack(">IIQQ", 1, 0, 32, 0x600))]),  # stale
        Built(autoclear=1),
        Built(autoclear=1, extensions=[(BITMAPS, bytes(16))]),
    ],
)
def test_bitmaps_that_are_not_valid_do_not_matter(built: Built) -> None:
    assert parse_header(bytes(built)).bitmap_directory == (0, 0)


def test_a_name_ends_at_a_nul_as_for_qemu() -> None:
    assert parse_header(bytes(Built(backing=b"base\0junk"))).backing_name == b"base"


def test_unknown_compatible_and_autoclear_features_are_no_obstacle() -> None:
    parse_header(bytes(Built(compatible=1 << 40, autoclear=1 << 41)))


@pytest.mark.parametrize(
    ("built", "expected"),
    [
        (
            Built(
                incompatible=1 << 7 | 1 << 9,
                extensions=[
                    (
                        FEATURE_NAMES,
                        feature_name(1, 7, b"another")
                        + feature_name(0, 7, b"time travel")
                        + feature_name(0, 0, b"dirty bit"),
                    )
                ],
            ),
            "time travel (bit 7), unnamed (bit 9)",
        ),
        (Built(version=1), "version 1"),
        (Built(version=4), "version 4"),
        (Built(encryption=3), "method 3"),
        (Built(incompatible=8, compression=2), "compression type 2"),
    ],
)
def test_what_is_not_known_is_refused_by_name(built: Built, expected: str) -> None:
    with pytest.raises(UnsupportedError, match=re.escape(expected)):
        parse_header(bytes(built))


@pytest.mark.parametrize(("method", "name"), [(1, "AES"), (2, "LUKS")])
def test_an_encrypted_image_needs_a_key(method: int, name: str) -> None:
    with pytest.raises(KeyNeededError, match=name):
        parse_header(bytes(Built(encryption=method)))


def test_a_corrupt_image_is_refused_with_what_to_do() -> None:
    with pytest.raises(StorageError, match="qemu-img check -r"):
        parse_header(bytes(Built(incompatible=0b10)))


@pytest.mark.parametrize(
    "built",
    [
        Built(cluster_bits=8),
        Built(cluster_bits=22),
        Built(cluster_bits=0xFFFFFFFF),
        Built(header_length=96),
        Built(header_length=520),
        Built(l1_entries=0),
        Built(size=65 * 512),
        Built(size=(1 << 64) - 512),
        Built(l1_entries=(4 << 20) + 1),
        Built(l1_offset=0),
        Built(l1_offset=0x601),
        Built(l1_offset=1 << 63),
        Built(refcount_offset=0),
        Built(refcount_offset=513),
        Built(refcount_clusters=0),
        Built(refcount_clusters=(8 << 20) // 512 + 1),
        Built(refcount_order=7),
        Built(refcount_order=0xFFFFFFFF),
        Built(snapshots=65537, snapshots_offset=512),
        Built(snapshots=1, snapshots_offset=0),
        Built(incompatible=8, compression=0),
        Built(incompatible=0, compression=1),
        Built(incompatible=16, cluster_bits=13, l1_offset=0x6000, refcount_offset=0x2000),
        Built(backing=b"x" * 10, backing_size=1024),
        Built(backing_offset=500, backing_size=13),
        Built(backing_offset=513, backing_size=1),
        Built(backing_offset=8, backing_size=8),
        Built(backing_offset=1 << 63, backing_size=1),
        Built(backing_offset=200, backing_size=0),
        Built(backing=b"\0name"),
    ],
)
def test_absurd_numbers(built: Built) -> None:
    with pytest.raises(StorageError):
        parse_header(bytes(built))


def test_an_extension_that_leaves_its_area() -> None:
    start = bytearray(bytes(Built(extensions=[(UNKNOWN, b"x")])))
    struct.pack_into(">I", start, 116, 512 - 120)
    parse_header(bytes(start))
    struct.pack_into(">I", start, 116, 512 - 119)
    with pytest.raises(StorageError, match="extension"):
        parse_header(bytes(start))


def test_not_qcow2() -> None:
    for start in (b"", b"QFI", b"\0" * 512, b"KDMV" + bytes(508)):
        with pytest.raises(StorageError, match="not a qcow2 image"):
            cluster_size_of(start)


def test_a_header_cut_anywhere() -> None:
    built = Built(backing=b"base", extensions=[(BACKING_FORMAT, b"raw"), (UNKNOWN, bytes(30))])
    start = bytes(built)
    needed = start.index(b"base") + 4
    for length in range(needed):
        try:
            header = parse_header(start[:length])
        except StorageError:
            continue
        pytest.fail(f"cut to {length} of {needed} bytes: {header}")
    assert parse_header(start[:needed]).backing_name == b"base"


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=12))
def test_a_damaged_header_gives_a_result_or_an_error(changes: list[tuple[int, int]]) -> None:
    start = bytearray(
        bytes(Built(backing=b"base", extensions=[(BACKING_FORMAT, b"raw"), (DATA_FILE, b"data")]))
    )
    for position, value in changes:
        start[position] = value
    with suppress(RestoreError):
        parse_header(bytes(start))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_image_gives_a_result_or_an_error(tmp_path: Path, data: st.DataObject) -> None:
    content = image()
    interesting = [*range(104), *range(512, 520), *range(1024, 1040), *range(1536, 1544)]
    interesting += range(2048, 2064)
    changes = st.tuples(st.sampled_from(interesting), st.integers(0, 255))
    for position, value in data.draw(st.lists(changes, max_size=6)):
        content[position] = value
    del content[data.draw(st.integers(0, len(content))) :]
    path = tmp_path / "image"
    path.write_bytes(content)
    for deep in (False, True):
        with suppress(RestoreError):
            inspect_chain(path, [tmp_path], deep=deep)


def test_the_image_that_is_damaged_above_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(image())
    assert inspect_chain(path, [tmp_path]).virtual_size == 64 * 512
    path.write_bytes(image()[:-1])
    with pytest.raises(StorageError, match="from byte 512 of the disk"):
        inspect_chain(path, [tmp_path])


def test_two_parts_of_the_disk_in_one_l2_table(tmp_path: Path) -> None:
    content = image()
    struct.pack_into(">Q", content, 24, 128 * 512)
    struct.pack_into(">I", content, 36, 2)
    struct.pack_into(">Q", content, 3 * 512 + 8, 4 * 512)
    path = tmp_path / "image"
    path.write_bytes(content)
    with pytest.raises(StorageError, match="share one L2 table"):
        inspect_chain(path, [tmp_path])


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, 32, 64])
@given(data=st.data())
def test_last_refcount(bits: int, data: st.DataObject) -> None:
    count = 64 * 8 // bits
    values = [0] * count
    places = data.draw(st.lists(st.integers(0, count - 1), max_size=4))
    for place in places:
        values[place] = data.draw(st.integers(1, (1 << bits) - 1))
    if bits < 8:
        per_byte = 8 // bits
        block = bytes(
            sum(value << index * bits for index, value in enumerate(values[at : at + per_byte]))
            for at in range(0, count, per_byte)
        )
    else:
        block = b"".join(value.to_bytes(bits // 8) for value in values)
    expected = (max(places), values[max(places)]) if places else None
    assert last_refcount(block, bits) == expected


@given(st.binary(max_size=20), st.integers(0, 3), st.integers(-10, 10))
def test_used_length(head: bytes, blocks: int, more: int) -> None:
    data = head + bytes(max(blocks * 4096 + more, 0))
    assert used_length(data) == len(data.rstrip(b"\0"))


@pytest.mark.parametrize("extended", [False, True])
@settings(max_examples=40)
@given(data=st.data())
def test_may_reach_behind_never_overlooks_a_cluster(extended: bool, data: st.DataObject) -> None:
    header = parse_header(
        bytes(
            Built(
                cluster_bits=14,
                l1_offset=0xC000,
                refcount_offset=0x4000,
                incompatible=16 if extended else 0,
            )
        )
    )
    entries = [0] * 2048
    limit = data.draw(st.integers(0, 1 << 58))
    last = 0
    for place in data.draw(st.lists(st.integers(0, 2047), max_size=5, unique=True)):
        offset = data.draw(st.one_of(st.integers(0, 1 << 40), st.integers(0, limit))) % (1 << 56)
        flags = data.draw(st.sampled_from([0, 1 << 63, COMPRESSED]))
        if extended and place % 2:
            entries[place] = data.draw(st.integers(0, (1 << 64) - 1))  # a bitmap
        elif flags == COMPRESSED:
            more_sectors = data.draw(st.integers(0, 63))
            entries[place] = flags | more_sectors << 56 | offset
            last = max(last, (offset | 511) + 1 + more_sectors * 512)
        else:
            offset &= ~0x3FFF
            entries[place] = flags | offset
            last = max(last, offset + 16384 if offset else 0)
    if last > limit:
        assert may_reach_behind(struct.pack(">2048Q", *entries), header, limit)
    if last < limit - 64 * 1024:
        assert not may_reach_behind(struct.pack(">2048Q", *entries), header, limit)


def test_length_of_a_deflate_cluster() -> None:
    content = bytes(range(256)) * 16
    packer = zlib.compressobj(9, wbits=-12)
    packed = packer.compress(content) + packer.flush()
    length = compressed_length(packed + b"next", "zlib", 4096)
    assert length is not None
    assert length <= len(packed)
    assert compressed_length(packed[:length], "zlib", 4096) == length
    for cut in range(length - 4):
        assert compressed_length(packed[:cut], "zlib", 4096) is None
    assert compressed_length(b"\xff" * 100, "zlib", 4096) is None


def zstd_block(kind: int, size: int, content: bytes, *, last: bool = False) -> bytes:
    return (size << 3 | kind << 1 | last).to_bytes(3, "little") + content


@pytest.mark.parametrize(
    ("descriptor", "fields"),
    [
        (0b0000_0000, 1),  # window
        (0b0010_0000, 1),  # single segment: content size of one byte
        (0b0110_0000, 2),  # content size of two
        (0b1000_0000, 1 + 4),
        (0b1100_0000, 1 + 8),
        (0b0000_0011, 1 + 4),  # dictionary
        (0b1010_0001, 4 + 1),
    ],
)
@pytest.mark.parametrize("checksum", [False, True])
def test_length_of_a_zstd_cluster(descriptor: int, fields: int, checksum: bool) -> None:
    frame = b"\x28\xb5\x2f\xfd" + bytes([descriptor | checksum << 2]) + b"\x01" * fields
    frame += zstd_block(0, 5, b"aaaaa") + zstd_block(1, 90000, b"b") + zstd_block(2, 3, b"ccc")
    frame += zstd_block(0, 2, b"dd", last=True) + b"sum!" * checksum
    assert compressed_length(frame + b"next", "zstd", 65536) == len(frame)
    for cut in range(len(frame)):
        assert compressed_length(frame[:cut], "zstd", 65536) is None
    assert compressed_length(b"\x28\xb5\x2f\xfd\x00\x00\xff\xff\xff", "zstd", 65536) is None
