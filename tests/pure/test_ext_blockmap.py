"""Where a file's bytes lie: extent trees, indirect blocks and inline data, built by hand."""

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restorefs.errors import DamagedError
from restorefs.guestfs.base import Extent
from restorefs.guestfs.ext.blockmap import ContentMap, NodeMemory, Volume
from restorefs.guestfs.ext.extents import ExtentMap, decode_node, verify_node
from restorefs.guestfs.ext.indirect import IndirectMap
from restorefs.guestfs.ext.inline import InlineMap, inline_regions
from restorefs.guestfs.ext.inode_record import InodeFormat, decode_body
from restorefs.guestfs.ext.layout import decode_superblock
from restorefs.guestfs.limits import Limits
from restorefs.guestfs.pieces import PieceReader
from tests.contracts.devices import MemoryDevice, WatchedDevice
from tests.pure.ext_bytes import (
    BLOCK,
    BLOCKS,
    INLINE_DATA_FL,
    extent,
    extent_node,
    index,
    inode,
    pointers,
    superblock,
)

UNWRITTEN = 32768
PER_BLOCK = BLOCK // 4
SUPERBLOCK = decode_superblock(superblock())


def volume(blocks: dict[int, bytes] | None = None, limits: Limits = Limits()) -> Volume:  # noqa: B008
    content = bytearray(BLOCKS * BLOCK)
    for number, block in (blocks or {}).items():
        content[number * BLOCK : number * BLOCK + len(block)] = block
    device = WatchedDevice(MemoryDevice(bytes(content)))
    return Volume(PieceReader(device), SUPERBLOCK, limits)


def extents(root: bytes, blocks: dict[int, bytes] | None = None) -> ExtentMap:
    place = volume(blocks)
    return ExtentMap(place, NodeMemory(place), 12, root.ljust(60, b"\0"), None)


def indirect(*root: int, blocks: dict[int, bytes] | None = None) -> IndirectMap:
    place = volume(blocks)
    return IndirectMap(place, NodeMemory(place), 12, pointers(*root))


def at(block: int, count: int = 1) -> Extent:
    return Extent(block * BLOCK, count * BLOCK)


def hole(count: int) -> Extent:
    return Extent(None, count * BLOCK)


async def blocks_of(content: ContentMap, first: int, count: int) -> list[Extent]:
    return await content.extents(first * BLOCK, count * BLOCK)


# --- extent trees ---------------------------------------------------------------------------------


async def test_extents_holes_and_what_was_never_written() -> None:
    content = extents(
        extent_node(0, extent(2, 3, 20), extent(5, UNWRITTEN + 2, 40), extent(9, 1, 50))
    )
    assert await blocks_of(content, 0, 12) == [hole(2), at(20, 3), hole(4), at(50), hole(2)]
    assert await blocks_of(content, 3, 1) == [at(21)]
    assert await blocks_of(content, 100, 5) == [hole(5)]


async def test_any_range_of_bytes() -> None:
    content = extents(extent_node(0, extent(1, 2, 20), extent(3, 1, 22)))
    assert await content.extents(0, 0) == []
    assert await content.extents(1000, 100) == [Extent(None, 24), Extent(20 * BLOCK, 76)]
    assert await content.extents(BLOCK + 1, 3 * BLOCK - 2) == [
        Extent(20 * BLOCK + 1, 3 * BLOCK - 2)
    ]


async def test_the_longest_extents() -> None:
    with pytest.raises(DamagedError):  # longer than this file system
        await blocks_of(extents(extent_node(0, extent(0, UNWRITTEN, 20))), 0, 1)
    content = extents(extent_node(0, extent(0, 2 * UNWRITTEN - 1, 20)))
    assert await blocks_of(content, 0, UNWRITTEN) == [hole(UNWRITTEN)]


async def test_a_tree_of_three_levels() -> None:
    inner = extent_node(1, index(0, 11), index(100, 12), capacity=84)
    content = extents(
        extent_node(2, index(0, 10)),
        {
            10: inner,
            11: extent_node(0, extent(0, 1, 30), extent(50, 1, 31), capacity=84),
            12: extent_node(0, extent(100, 2, 32), capacity=84),
        },
    )
    assert await blocks_of(content, 49, 53) == [
        hole(1),
        at(31),
        hole(49),
        at(32, 2),
    ]
    assert await blocks_of(content, 99, 4) == [hole(1), at(32, 2), hole(1)]


async def test_blocks_in_front_of_a_tree_are_a_hole() -> None:
    content = extents(
        extent_node(1, index(10, 11)), {11: extent_node(0, extent(12, 1, 30), capacity=84)}
    )
    assert await blocks_of(content, 0, 14) == [hole(12), at(30), hole(1)]


async def test_a_node_is_read_once() -> None:
    place = volume({11: extent_node(0, extent(0, 4, 30), capacity=84)})
    content = ExtentMap(
        place, NodeMemory(place), 12, extent_node(1, index(0, 11)).ljust(60, b"\0"), None
    )
    await blocks_of(content, 0, 1)
    device = place.reader.device
    assert isinstance(device, WatchedDevice)
    before = device.reads
    assert await blocks_of(content, 3, 1) == [at(33)]
    assert device.reads == before


async def test_a_node_that_points_to_itself() -> None:
    for depth in range(1, 6):
        node = extent_node(depth, index(0, 11), capacity=84)
        with pytest.raises(DamagedError):
            await blocks_of(extents(extent_node(depth, index(0, 11)), {11: node}), 0, 1)


async def test_a_node_that_maps_other_blocks_than_its_parent_says() -> None:
    leaf = extent_node(0, extent(5, 1, 30), capacity=84)
    content = extents(extent_node(1, index(0, 11), index(5, 11)), {11: leaf})
    with pytest.raises(DamagedError):
        await blocks_of(content, 0, 1)
    assert await blocks_of(content, 5, 1) == [at(30)]


@pytest.mark.parametrize(
    "root",
    [
        bytes(60),
        b"\x0b" + extent_node(0)[1:],
        extent_node(6, index(0, 11)),
        extent_node(0, capacity=5),
        struct.pack("<HHHHI", 0xF30A, 2, 1, 0, 0) + bytes(48),
        extent_node(1),
        extent_node(0, extent(5, 1, 20), extent(5, 1, 21)),
        extent_node(0, extent(5, 1, 20), extent(4, 1, 21)),
    ],
)
def test_a_damaged_node(root: bytes) -> None:
    with pytest.raises(DamagedError):
        decode_node(root.ljust(60, b"\0"))


@pytest.mark.parametrize(
    "entries",
    [
        [extent(0, 0, 20)],
        [extent(0, 1, 0)],
        [extent(0, 1, 1)],
        [extent(0, 1, BLOCKS)],
        [extent(0, 2, BLOCKS - 1)],
        [extent(0, 1, 20 | 1 << 32)],
        [extent(0, 2, 20), extent(1, 1, 30)],
    ],
)
async def test_a_damaged_extent(entries: list[bytes]) -> None:
    with pytest.raises(DamagedError):
        await blocks_of(extents(extent_node(0, *entries)), 0, 3)


async def test_a_file_larger_than_a_tree_can_map() -> None:
    content = extents(extent_node(0, extent(0, 1, 20)))
    assert await blocks_of(content, (1 << 32) - 1, 1) == [hole(1)]
    with pytest.raises(DamagedError):
        await blocks_of(content, 1 << 32, 1)


async def test_a_map_of_too_many_pieces() -> None:
    place = volume(limits=Limits(extents_per_map=3))
    root = extent_node(0, extent(0, 1, 20), extent(1, 1, 30), extent(2, 1, 40), extent(3, 1, 50))
    content = ExtentMap(place, NodeMemory(place), 12, root, None)
    assert len(await blocks_of(content, 0, 3)) == 3
    with pytest.raises(DamagedError):
        await blocks_of(content, 0, 4)


@given(st.binary(min_size=12, max_size=60))
def test_any_bytes_are_a_node_or_damage(raw: bytes) -> None:
    with suppress(DamagedError):
        decode_node(raw)
    with suppress(DamagedError):
        verify_node(raw, 0)


# --- indirect blocks ------------------------------------------------------------------------------


async def test_direct_blocks_and_a_sparse_tail() -> None:
    content = indirect(20, 21, 0, 23)
    assert await blocks_of(content, 0, 12) == [at(20, 2), hole(1), at(23), hole(8)]
    assert await blocks_of(content, 4, 1000) == [hole(1000)]


async def test_each_level_of_indirect_blocks() -> None:
    double, triple = 12 + PER_BLOCK, 12 + PER_BLOCK + PER_BLOCK**2
    blocks = {
        40: pointers(60, 61, 0, 63, count=PER_BLOCK),
        41: pointers(0, 42, count=PER_BLOCK),
        42: pointers(70, count=PER_BLOCK),
        43: pointers(0, 0, 44, count=PER_BLOCK),
        44: pointers(45, count=PER_BLOCK),
        45: pointers(0, 80, count=PER_BLOCK),
    }
    content = indirect(*[0] * 11, 20, 40, 41, 43, blocks=blocks)
    assert await blocks_of(content, 11, 6) == [at(20), at(60, 2), hole(1), at(63), hole(1)]
    assert await blocks_of(content, double + PER_BLOCK - 1, 3) == [hole(1), at(70), hole(1)]
    first = triple + 2 * PER_BLOCK**2
    assert await blocks_of(content, first, 3) == [hole(1), at(80), hole(1)]
    # The end of what pointers can map, through holes of every size.
    last = triple + PER_BLOCK**3
    assert await blocks_of(content, first + 2, last - first - 2) == [hole(last - first - 2)]
    with pytest.raises(DamagedError):
        await blocks_of(content, last, 1)


async def test_a_file_that_is_one_hole() -> None:
    whole = 12 + PER_BLOCK + PER_BLOCK**2 + PER_BLOCK**3
    assert await blocks_of(indirect(), 0, whole) == [hole(whole)]


@pytest.mark.parametrize("block", [1, BLOCKS, 0xFFFFFFFF])
async def test_pointers_outside_the_file_system(block: int) -> None:
    with pytest.raises(DamagedError):
        await blocks_of(indirect(block), 0, 1)
    for slot in (12, 13, 14):
        first = 12 + sum(PER_BLOCK**level for level in range(1, slot - 11))
        with pytest.raises(DamagedError):
            await blocks_of(indirect(*[0] * slot, block), first, 1)


# --- inline data ----------------------------------------------------------------------------------


def with_rest(rest: bytes | None, value_inode: int = 0) -> bytes:
    """Return an inode with 60 bytes in i_block, and more in the attribute "system.data"."""
    raw = bytearray(
        inode(i_mode=0o100644, i_flags=INLINE_DATA_FL, i_extra_isize=32, i_block=b"b" * 60)
    )
    if rest is not None:
        raw[160:164] = b"\x00\x00\x02\xea"
        offset = 256 - 164 - (len(rest) + 3 & ~3)
        entry = struct.pack("<BBHIII", 4, 7, offset, value_inode, len(rest), 0) + b"data"
        raw[164 : 164 + len(entry)] = entry
        raw[164 + offset : 164 + offset + len(rest)] = rest
    return bytes(raw)


FORM = InodeFormat.of(SUPERBLOCK)
PLACE = 5000


def inline(raw: bytes) -> InlineMap:
    return InlineMap(raw, decode_body(raw, FORM), PLACE)


async def test_inline_data_of_any_length() -> None:
    content = inline(with_rest(b""))
    assert await content.extents(0, 60) == [Extent(PLACE + 40, 60)]
    assert await content.extents(10, 5) == [Extent(PLACE + 50, 5)]
    assert await content.extents(0, 0) == []
    content = inline(with_rest(b"r" * 30))
    assert await content.extents(0, 90) == [Extent(PLACE + 40, 60), Extent(PLACE + 224, 30)]
    assert await content.extents(59, 2) == [Extent(PLACE + 99, 1), Extent(PLACE + 224, 1)]
    assert await content.extents(70, 20) == [Extent(PLACE + 234, 20)]


async def test_inline_data_of_a_file_that_was_made_longer() -> None:
    assert await inline(with_rest(b"r" * 4)).extents(62, 100) == [
        Extent(PLACE + 254, 2),
        Extent(None, 98),
    ]


@pytest.mark.parametrize("raw", [with_rest(None), with_rest(b"r" * 8, value_inode=13)])
def test_inline_data_without_their_second_part(raw: bytes) -> None:
    with pytest.raises(DamagedError):
        inline(raw)


def test_the_two_parts_of_an_inline_folder() -> None:
    raw = with_rest(b"r" * 24)
    assert inline_regions(raw, decode_body(raw, FORM)) == [(4, b"b" * 56), (60, b"r" * 24)]
    raw = with_rest(b"")
    assert inline_regions(raw, decode_body(raw, FORM)) == [(4, b"b" * 56)]
