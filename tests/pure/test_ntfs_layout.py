"""The bytes of NTFS: values as the documentation gives them, and as Windows writes them."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restorefs.errors import DamagedError, NotFoundError
from restorefs.guestfs.ntfs.layout import (
    DATA,
    FILE_NAME,
    WIN32,
    apply_fixups,
    checked_record,
    decode_attribute_list,
    decode_attributes,
    decode_boot,
    decode_file_name,
    decode_header,
    decode_sizes,
    decode_standard,
    looks_like_ntfs,
    to_ns,
)
from tests.images.signatures import ntfs


def boot(
    sector: int = 512, per_cluster: int = 8, per_record: int = -10, per_block: int = -12
) -> bytes:
    raw = bytearray(ntfs())
    struct.pack_into("<HB", raw, 11, sector, per_cluster)
    struct.pack_into("<Q", raw, 40, 1 << 24)
    struct.pack_into("<b3xb", raw, 64, per_record, per_block)
    return bytes(raw)


@pytest.mark.parametrize(
    ("sector", "per_cluster", "cluster"),
    [
        (512, 1, 512),
        (512, 8, 4096),
        (512, 128, 65_536),
        (512, 0xF8, 128 << 10),  # from here on a negative power of two
        (512, 0xF4, 2 << 20),
        (4096, 1, 4096),
        (4096, 0xF7, 2 << 20),
    ],
)
def test_cluster_sizes(sector: int, per_cluster: int, cluster: int) -> None:
    found = decode_boot(boot(sector, per_cluster))
    assert found.cluster_size == 1 << found.cluster_bits == cluster
    assert found.clusters == (sector << 24) // cluster
    assert (found.record_size, found.block_size) == (1024, 4096)


def test_sizes_in_clusters() -> None:
    found = decode_boot(boot(512, 2, per_record=1, per_block=4))
    assert (found.record_size, found.block_size) == (1024, 4096)


@pytest.mark.parametrize("per_cluster", [0, 3, 0x80 + 1, 0xE0, 0xE1, 0xF3])
def test_impossible_clusters(per_cluster: int) -> None:
    with pytest.raises(DamagedError):
        decode_boot(boot(512, per_cluster))


@pytest.mark.parametrize("per_record", [0, 3, -1, -7, -128, 127])
def test_impossible_records(per_record: int) -> None:
    with pytest.raises(DamagedError):
        decode_boot(boot(per_record=per_record))


@given(st.binary(max_size=600))
def test_foreign_sectors(data: bytes) -> None:
    assert not looks_like_ntfs(data)


@given(st.binary(min_size=461, max_size=461))
def test_any_boot_sector_is_decoded_or_damaged(data: bytes) -> None:
    sector = b"\xeb\x52\x90NTFS    " + data[:499].ljust(499, b"\0") + b"\x55\xaa"
    try:
        found = decode_boot(sector)
    except DamagedError:
        return
    assert 256 <= found.cluster_size <= 2 << 20
    assert found.clusters


# --- records ----------------------------------------------------------------------------------


def record(
    *attributes: bytes, number: int = 77, flags: int = 1, base: int = 0, size: int = 1024
) -> bytes:
    """Return a FILE record as it lies on the volume, with an update sequence of 9."""
    strides = size // 512
    first = 0x30 + 2 * (strides + 1) + 7 & ~7
    body = b"".join(attributes) + b"\xff\xff\xff\xff\0\0\0\0"
    head = struct.pack(
        "<4sHHQHHHHIIQHHI",
        b"FILE", 0x30, strides + 1, 0, 5, 1, first, flags, first + len(body), size, base,
        9, 0, number,
    )  # fmt: skip
    raw = bytearray(head.ljust(first, b"\0") + body).ljust(size, b"\0")
    raw[0x30:0x32] = b"\x09\x00"
    for stride in range(strides):
        end = stride * 512 + 510
        raw[0x32 + 2 * stride : 0x34 + 2 * stride] = raw[end : end + 2]
        raw[end : end + 2] = b"\x09\x00"
    return bytes(raw)


def resident(kind: int, value: bytes, name: str = "") -> bytes:
    encoded = name.encode("utf-16-le")
    offset = 24 + len(encoded) + 7 & ~7
    length = offset + len(value) + 7 & ~7
    head = struct.pack("<IIBBHHHIHH", kind, length, 0, len(name), 24, 0, 3, len(value), offset, 0)
    return (head + encoded).ljust(offset, b"\0") + value.ljust(length - offset, b"\0")


def test_a_record_and_its_attributes() -> None:
    value = bytes(range(200)) * 4  # over the end of the first stride
    raw = record(resident(DATA, value), resident(DATA, b"other", "stream"), base=0)
    fixed = checked_record(raw, 0, 1024, 77)
    header = decode_header(fixed)
    assert (header.sequence, header.flags, header.base) == (5, 1, 0)
    one, other = decode_attributes(fixed, 77)
    assert (one.kind, one.name, one.resident, one.body) == (DATA, b"", True, value)
    assert (other.name.decode("utf-16-le"), other.body) == ("stream", b"other")
    assert value not in raw, "the volume has something else there"


@pytest.mark.parametrize("size", [512, 1024, 2048, 4096])
def test_fixups_of_every_stride(size: int) -> None:
    raw = record(resident(DATA, b"x" * 200), size=size)
    fixed = apply_fixups(raw, 0, size)
    assert len(fixed) == size
    for end in range(510, size, 512):
        assert fixed[end : end + 2] != b"\x09\x00"
        with pytest.raises(DamagedError):
            apply_fixups(raw[:end] + b"\x08\x00" + raw[end + 2 :], 0, size)
    assert apply_fixups(b"before" + raw, 6, size) == fixed


def test_what_is_no_record() -> None:
    raw = record(resident(DATA, b"x"))
    with pytest.raises(NotFoundError):
        checked_record(bytes(1024), 0, 1024, 0)
    for damaged in (b"BAAD" + raw[4:], b"INDX" + raw[4:], raw[:4] + b"\xff\xff" + raw[6:]):
        with pytest.raises(DamagedError):
            checked_record(damaged, 0, 1024, 77)
    with pytest.raises(DamagedError):
        checked_record(raw, 0, 1024, 78)


@given(st.lists(st.tuples(st.integers(0x30, 1023), st.integers(0, 255)), min_size=1, max_size=12))
def test_any_record_is_decoded_or_damaged(changes: list[tuple[int, int]]) -> None:
    raw = bytearray(record(resident(DATA, b"x" * 100), resident(FILE_NAME, b"y" * 80)))
    for at, value in changes:
        raw[at] = value
    try:
        for attribute in decode_attributes(bytes(raw), 77):
            if not attribute.resident:
                decode_sizes(attribute)
    except DamagedError:
        pass


def test_attribute_lists() -> None:
    name = "$I30".encode("utf-16-le")
    entry = struct.pack("<IHBBQQH", 0xA0, 40, 4, 26, 7, 5 << 48 | 99, 3) + name
    (found,) = decode_attribute_list(entry.ljust(40, b"\0"))
    assert found == (0xA0, name, 7, 5 << 48 | 99, 3)
    for cut in (39, 30):
        with pytest.raises(DamagedError):
            decode_attribute_list(entry.ljust(40, b"\0")[:cut])
    with pytest.raises(DamagedError):
        decode_attribute_list(entry[:4] + b"\0\0" + entry[6:])
    assert decode_attribute_list(b"") == []


def test_standard_information() -> None:
    old = struct.pack("<QQQQI", 1, 2, 3, 4, 0x20).ljust(48, b"\0")
    assert decode_standard(old) == (1, 2, 3, 4, 0x20, 0)
    new = old + struct.pack("<IIQQ", 0, 0x107, 0, 0)
    assert decode_standard(new) == (1, 2, 3, 4, 0x20, 0x107)
    with pytest.raises(DamagedError):
        decode_standard(old[:35])


def test_times() -> None:
    assert to_ns(116_444_736_000_000_000) == 0
    assert to_ns(116_444_735_999_999_999) == -100
    assert to_ns(0) == -11_644_473_600 * 10**9


def test_file_names() -> None:
    value = struct.pack("<Q56xBB", 5 << 48 | 5, 2, WIN32) + "ab".encode("utf-16-le")
    assert decode_file_name(value) == (5 << 48 | 5, WIN32, "ab".encode("utf-16-le"))
    for cut in (10, 66, 69):
        with pytest.raises(DamagedError):
            decode_file_name(value[:cut])
