"""Checksums, against published values and against what mke2fs and Linux wrote."""

from collections.abc import Callable, Sequence

import pytest

from restorefs.errors import DamagedError
from restorefs.guestfs.ext import checksum
from restorefs.guestfs.ext.directory import verify_block
from restorefs.guestfs.ext.extents import verify_node
from restorefs.guestfs.ext.inode_record import InodeFormat, check_inode, verified_records
from restorefs.guestfs.ext.layout import decode_group, decode_superblock
from restorefs.guestfs.ext.xattr import block_checksum_of
from tests.pure import ext_bytes as samples

SUPERBLOCK = decode_superblock(samples.SUPERBLOCK)
SEED = SUPERBLOCK.checksum_seed
FORM = InodeFormat.of(SUPERBLOCK)


def seed_of(number: int, record: bytes) -> int:
    return checksum.inode_seed(SEED, number, int.from_bytes(record[0x64:0x68], "little"))


def check_group(raw: bytes) -> None:
    decode_group(SUPERBLOCK, 0, raw, trust_flags=True)


def check_xattrs(raw: bytes) -> None:
    if checksum.xattr_block_checksum(SEED, 17, raw) != block_checksum_of(raw):
        raise DamagedError("wrong")


CASES: dict[str, tuple[bytes, Callable[[bytes], object], Sequence[int]]] = {
    # All but s_checksum_type, which says that there is another checksum: that is refused later.
    "superblock": (
        samples.SUPERBLOCK,
        decode_superblock,
        [*range(0x175), *range(0x176, 1024)],
    ),
    "group": (samples.GROUP, check_group, range(64)),
    "inode": (samples.INODE_12, lambda raw: check_inode(raw, 12, FORM), range(256)),
    "xattrs": (samples.XATTR_BLOCK_17, check_xattrs, range(1024)),
    "folder": (
        samples.FOLDER_BLOCK_2,
        lambda raw: verify_block(raw, seed_of(2, bytes(256)), first=True, indexed=False),
        range(1024),
    ),
    "index": (
        samples.INDEX_ROOT_14,
        lambda raw: verify_block(raw, seed_of(14, samples.INODE_14), first=True, indexed=True),
        range(0x20 + 5 * 8),  # five entries are in use
    ),
    "extents": (
        samples.EXTENT_NODE_12,
        lambda raw: verify_node(raw, seed_of(12, samples.INODE_12)),
        range(1024),
    ),
}


def test_crc32c_of_the_published_test_vectors() -> None:
    # RFC 3720, section B.4; there with a final inversion.
    assert checksum.crc32c(0xFFFFFFFF, bytes(32)) ^ 0xFFFFFFFF == 0x8A9136AA
    assert checksum.crc32c(0xFFFFFFFF, b"\xff" * 32) ^ 0xFFFFFFFF == 0x62A8AB43
    assert checksum.crc32c(0xFFFFFFFF, bytes(range(32))) ^ 0xFFFFFFFF == 0x46DD794E


def test_crc32c_goes_on_from_a_seed() -> None:
    half = checksum.crc32c(0xFFFFFFFF, b"1234")
    assert checksum.crc32c(half, b"56789") ^ 0xFFFFFFFF == 0xE3069283


def test_crc16_of_the_published_check_value() -> None:
    # "CRC-16/MODBUS" and "CRC-16/ARC" of the catalogue of parametrised CRC algorithms.
    assert checksum.crc16(0xFFFF, b"123456789") == 0x4B37
    assert checksum.crc16(0, b"123456789") == 0xBB3D


@pytest.mark.parametrize("name", CASES)
def test_what_linux_wrote_is_right(name: str) -> None:
    raw, check, _ = CASES[name]
    check(raw)


@pytest.mark.parametrize("name", CASES)
def test_every_changed_byte_is_noticed(name: str) -> None:
    raw, check, covered = CASES[name]
    for offset in covered:
        damaged = bytearray(raw)
        damaged[offset] ^= 0x10
        with pytest.raises(DamagedError):
            check(bytes(damaged))


def test_a_structure_of_another_place_is_noticed() -> None:
    with pytest.raises(DamagedError):
        check_inode(samples.INODE_12, 13, FORM)
    with pytest.raises(DamagedError):
        decode_group(SUPERBLOCK, 1, samples.GROUP, trust_flags=True)
    with pytest.raises(DamagedError):
        verify_node(samples.EXTENT_NODE_12, seed_of(13, samples.INODE_13))
    assert checksum.xattr_block_checksum(SEED, 18, samples.XATTR_BLOCK_17) != block_checksum_of(
        samples.XATTR_BLOCK_17
    )


def test_many_inodes_are_verified_as_each_of_them() -> None:
    damaged = bytearray(samples.INODE_13)
    damaged[4] ^= 1
    piece = samples.INODE_12 + bytes(damaged) + samples.INODE_14 + bytes(256) + samples.INODE_13
    wanted = [(12, 0), (13, 256), (14, 512), (15, 768), (13, 1024), (12, 1024)]
    assert verified_records(piece, wanted, FORM) == [
        (12, samples.INODE_12),
        (14, samples.INODE_14),
        (13, samples.INODE_13),
    ]


@pytest.mark.parametrize(
    "text",
    [
        # Written by mke2fs 1.47.0 with uninit_bg: descriptors of 64 and of 32 bytes.
        "030000001300000023000000ae0ff500020004000000000000000000f5000a08" + "00" * 32,
        "030000001300000023000000ae0ff500020004000000000000000000f5005f52",
    ],
)
def test_a_group_descriptor_under_the_older_checksum(text: str) -> None:
    raw, uuid = bytes.fromhex(text), bytes.fromhex("0123456789abcdef0123456789abcdef")
    assert checksum.group_crc16(uuid, 0, raw) == int.from_bytes(raw[0x1E:0x20], "little")
    assert checksum.group_crc16(uuid, 1, raw) != int.from_bytes(raw[0x1E:0x20], "little")
