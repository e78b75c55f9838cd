"""Directory blocks, from bytes that the documentation prescribes or that Linux wrote."""

import stat
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restorefs.errors import DamagedError, RestoreError
from restorefs.guestfs.ext.directory import (
    KINDS,
    decode_index_root,
    decode_records,
    find_record,
    next_index_block,
    stored_hashes,
    verify_block,
)
from tests.pure import ext_bytes as samples
from tests.pure.ext_bytes import BLOCK, folder_block, record


def names(region: bytes) -> list[bytes]:
    return [name for _, name, *_ in decode_records(region, 0)]


def test_records_in_use() -> None:
    region = record(2, b".", 12, 2) + record(0, b"deleted", 20) + record(11, b"file", BLOCK - 32)
    assert decode_records(region, 4096) == [
        (2, b".", 2, 4096 + 12, 0),
        (11, b"file", 1, 4096 + BLOCK, 32),
    ]


def test_the_last_record_of_a_block() -> None:
    # It may end exactly where the block ends.
    name = b"n" * (BLOCK - 12 - 12 - 8 - 4)
    region = record(2, b".", 12) + record(2, b"..", 12) + record(0, b"", 772)
    region += record(15, b"n" * (BLOCK - len(region) - 8))
    assert len(region) == BLOCK
    assert names(region)[2:] == [b"n" * 220]
    assert len(name) > 220


def test_every_file_type() -> None:
    kinds = [stat.S_IFREG, stat.S_IFDIR, stat.S_IFCHR, stat.S_IFBLK]
    kinds += [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFLNK]
    assert list(KINDS[1:8]) == kinds
    assert KINDS[0] == KINDS[8] == KINDS[255] == 0


@pytest.mark.parametrize("length", [0, 0xFFFF])
def test_a_record_of_64_kib(length: int) -> None:
    region = (struct.pack("<IHBB", 11, length, 4, 1) + b"name").ljust(65536, b"\0")
    assert decode_records(region, 0) == [(11, b"name", 1, 65536, 0)]
    with pytest.raises(DamagedError):
        decode_records(region[:32768], 0)


@pytest.mark.parametrize(
    "region",
    [
        record(11, b"name", 10).ljust(BLOCK, b"\0"),  # shorter than a record
        record(11, b"a longer name", 16).ljust(BLOCK, b"\0"),  # shorter than its name
        struct.pack("<IHBB", 11, 22, 4, 1).ljust(BLOCK, b"\0"),  # not a multiple of four
        record(11, b"name", BLOCK + 4)[:BLOCK],  # beyond the block
        record(11, b"name", BLOCK - 8) + bytes(8),  # too little left for another
        record(11, b"name", BLOCK - 12) + bytes(12),  # a record of no length
        bytes(BLOCK),
    ],
)
def test_damaged_records(region: bytes) -> None:
    with pytest.raises(DamagedError):
        decode_records(region, 0)


def test_a_name_is_found_only_where_it_is_in_use() -> None:
    inside = record(11, b"kept", 60)  # a deleted record is in the slack of the one before it
    ghost = record(12, b"deleted")
    region = inside[:16] + ghost + inside[16 + len(ghost) :]
    region += record(0, b"unused", 20) + record(13, b"last", BLOCK - 80)
    assert find_record(region, b"kept") == 11
    assert find_record(region, b"last") == 13
    assert find_record(region, b"deleted") is None
    assert find_record(region, b"unused") is None
    assert find_record(region, b"las") is None
    assert find_record(region, b"ast") is None
    assert find_record(region, b"no such name") is None


def test_a_name_inside_another_one() -> None:
    region = folder_block((11, b"abc\x03\x01abc"), (12, b"xabc"), (13, b"abc"))
    assert find_record(region, b"abc") == 13


def test_a_name_behind_damage_is_not_missing() -> None:
    region = bytearray(folder_block((11, b"one"), (12, b"two")))
    region[4] = 13
    with pytest.raises(DamagedError):
        find_record(bytes(region), b"two")


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=15, unique=True))
def test_every_name_of_a_block_is_found(wanted: list[bytes]) -> None:
    region = folder_block(*enumerate(wanted, start=11))
    assert names(region) == wanted
    assert [find_record(region, name) for name in wanted] == list(range(11, 11 + len(wanted)))


@given(st.binary(min_size=12, max_size=256), st.binary(min_size=1, max_size=3))
def test_any_bytes_are_records_or_damage(region: bytes, name: bytes) -> None:
    try:
        for _, _, _, end, start in decode_records(region, 0):
            assert 0 <= start < end <= len(region)
        find_record(region, name)
    except RestoreError:
        pass


def test_hashes_behind_names() -> None:
    stored = record(11, b"sixteen bytes ..", 40)
    stored = stored[:24] + struct.pack("<II", 5, 6) + stored[32:]
    region = stored + record(12, b"n" * 20, 28)
    first, last = decode_records(region, 0)
    assert stored_hashes(region, first) == (5, 6)
    with pytest.raises(DamagedError):
        stored_hashes(region, last)


def test_the_index_that_linux_wrote() -> None:
    # debugfs, htree: version 1 (half MD4), no levels, and these first hashes.
    assert decode_index_root(samples.INDEX_ROOT_14) == (1, 0)
    expected = [
        (0x00000000, 1, 0x3DF90CE2),
        (0x3DF90CE0, 1, 0x3DF90CE2),
        (0x3DF90CE2, 5, 0x93316A66),
        (0x93316A66, 4, 0xAD125ED6),
        (0xAD125ED6, 2, 0xE0B6E532),
        (0xE0B6E532, 3, None),
        (0xFFFFFFFC, 3, None),
    ]
    for hash_, block, behind in expected:
        assert next_index_block(samples.INDEX_ROOT_14, hash_) == (block, behind)


def test_an_inner_block_of_an_index() -> None:
    entries = struct.pack("<HHI", 127, 2, 7) + struct.pack("<II", 0x100, 9)
    node = (struct.pack("<IHBB", 0, BLOCK, 0, 0) + entries).ljust(BLOCK, b"\0")
    assert next_index_block(node, 0xFE) == (7, 0x100)
    assert next_index_block(node, 0x100) == (9, None)


@pytest.mark.parametrize(("offset", "value"), [(0x18, 1), (0x1D, 9), (0x1E, 4)])
def test_a_damaged_root_of_an_index(offset: int, value: int) -> None:
    root = bytearray(samples.INDEX_ROOT_14)
    root[offset] = value
    with pytest.raises(DamagedError):
        decode_index_root(bytes(root))


@pytest.mark.parametrize(("limit", "count"), [(123, 0), (123, 124), (0xFFFF, 0xFFFF), (0, 0)])
def test_an_index_block_with_impossible_limits(limit: int, count: int) -> None:
    root = bytearray(samples.INDEX_ROOT_14)
    struct.pack_into("<HH", root, 0x20, limit, count)
    with pytest.raises(DamagedError):
        next_index_block(bytes(root), 0)
    with pytest.raises(DamagedError):
        verify_block(bytes(root), 0, first=True, indexed=True)


def test_a_block_without_a_checksum_where_there_should_be_one() -> None:
    with pytest.raises(DamagedError, match="no checksum"):
        verify_block(folder_block((11, b"name")), 0, first=False, indexed=True)
