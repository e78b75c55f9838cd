"""Trees of extents that no mkfs makes."""

import struct

import pytest

from restorefs.errors import DamagedError
from restorefs.guestfs.limits import DEFAULT_LIMITS
from restorefs.guestfs.pieces import PieceReader
from restorefs.guestfs.xfs.blockmap import BlockMap, Volume
from restorefs.guestfs.xfs.inode_record import FORMAT_BTREE, Fork
from restorefs.guestfs.xfs.layout import Superblock
from tests.contracts.devices import MeteredDevice

BLOCK = 1024
SUPERBLOCK = Superblock(
    version=4, version_bits=0xB4A4, features2=0, incompat=0, ro_compat=0, log_incompat=0,
    uuid=bytes(16), meta_uuid=bytes(16), label=b"", block_bits=10, blocks_count=64,
    sector_size=512, inode_bits=8, ag_blocks=64, ag_count=1, ag_block_bits=6, dir_block_bits=12,
    root=128, log_start=1, log_blocks=1, log_stripe=0, last_log_block=0,
)  # fmt: skip


def node(level: int, keys: list[int], children: list[int]) -> bytes:
    """Return a block of a tree (version 4)."""
    room = (BLOCK - 24) // 16
    raw = b"BMAP" + struct.pack(">HH", level, len(keys)) + b"\xff" * 16
    raw += struct.pack(f">{len(keys)}Q", *keys).ljust(8 * room, b"\0")
    return (raw + struct.pack(f">{len(children)}Q", *children)).ljust(BLOCK, b"\0")


def leaf(*records: tuple[int, int, int]) -> bytes:
    raw = b"BMAP" + struct.pack(">HH", 0, len(records)) + b"\xff" * 16
    for start, block, count in records:
        raw += (start << 73 | block << 21 | count).to_bytes(16, "big")
    return raw.ljust(BLOCK, b"\0")


def mapped(level: int, blocks: dict[int, bytes]) -> BlockMap:
    """Return the map of a fork whose root has one child, block 1."""
    image = b"".join(blocks.get(number, bytes(BLOCK)) for number in range(64))
    volume = Volume(
        PieceReader(MeteredDevice(image, reads=50, length=64 << 20)), SUPERBLOCK, DEFAULT_LIMITS
    )
    root = struct.pack(">HH", level, 1) + struct.pack(">Q", 0) + bytes(32)
    return BlockMap(volume, 131, Fork(FORMAT_BTREE, 1, root + struct.pack(">Q", 1) + bytes(32)))


async def test_a_sound_tree() -> None:
    tree = mapped(2, {1: node(1, [0, 10], [2, 3]), 2: leaf((0, 40, 5)), 3: leaf((10, 50, 2))})
    assert await tree.runs(3, 14) == [(43, 2), (None, 5), (50, 2), (None, 2)]
    assert await tree.runs(11, 12) == [(51, 1)]


async def test_a_tree_that_names_the_same_blocks_again_and_again_ends() -> None:
    keys = list(range(60))
    blocks = {number: node(9 - number, keys, [number + 1] * 60) for number in range(1, 9)}
    blocks[9] = leaf((0, 40, 1))
    with pytest.raises(DamagedError):
        await mapped(9, blocks).runs(0, 60)


@pytest.mark.parametrize("child", [1, 2, 0, 64, 1 << 40])
async def test_a_tree_that_leads_to_itself_or_nowhere(child: int) -> None:
    with pytest.raises(DamagedError):
        await mapped(2, {1: node(1, [0], [child]), 2: node(1, [0], [1])}).runs(0, 9)


async def test_blocks_outside_the_file_system() -> None:
    with pytest.raises(DamagedError):
        await mapped(1, {1: leaf((0, 60, 9))}).runs(0, 9)
