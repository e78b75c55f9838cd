import random
import struct

import pytest

from restorefs.errors import DamagedError
from restorefs.guestfs.exfat.chain import Chain, Chains
from restorefs.guestfs.exfat.layout import BootSector
from restorefs.guestfs.limits import Limits
from restorefs.guestfs.pieces import PieceReader
from tests.contracts.devices import MemoryDevice, WatchedDevice

FAT = 24 * 512
END = 0xFFFFFFFF


def chains_of(fat: list[int], limits: Limits | None = None) -> tuple[Chains, WatchedDevice]:
    """Return the chains of a volume whose clusters 2 and up have these FAT entries."""
    entries = [0xFFFFFFF8, END, *fat]
    length = (len(entries) * 4 + 511) // 512 * 512
    data = bytes(FAT) + struct.pack(f"<{len(entries)}I", *entries).ljust(length, b"\0")
    heap = FAT + length
    boot = BootSector(
        size=heap + len(fat) * 512,
        fat_offset=FAT,
        fat_length=length,
        heap_offset=heap,
        clusters=len(fat),
        root_cluster=2,
        serial=0,
        revision=0x100,
        flags=0,
        sector_bits=9,
        cluster_bits=9,
        fats=1,
    )
    device = WatchedDevice(MemoryDevice(data))
    return Chains(PieceReader(device), boot, limits or Limits()), device


def clusters_of(chain: Chain) -> list[int]:
    return [
        cluster + number
        for cluster, count in chain.pieces(0, chain.length)
        for number in range(count)
    ]


def linked(order: list[int], count: int) -> list[int]:
    """Return a FAT of `count` clusters in which these follow each other."""
    fat = [0] * count
    for cluster, following in zip(order, [*order[1:], END], strict=True):
        fat[cluster - 2] = following
    return fat


@pytest.mark.parametrize("shuffled", ["not", "a little", "all"])
@pytest.mark.parametrize("count", [1, 2, 63, 65, 5_000, 16_382, 16_383, 50_000])
async def test_chains_of_every_kind(count: int, shuffled: str) -> None:
    chance = random.Random(count)
    order = list(range(2, count + 2))
    if shuffled == "all":
        chance.shuffle(order)
    elif shuffled == "a little":
        for _ in range(count // 1000 + 1):
            start, end = sorted(chance.sample(range(count + 1), 2))
            order = order[end:] + order[start:end] + order[:start]
    chains, device = chains_of(linked(order, count))
    chain = await chains.linked(order[0], count)
    assert clusters_of(chain) == order
    assert chain.damage == ""
    reads = device.reads
    assert await chains.linked(order[0], count) is chain
    assert device.reads == reads <= 4
    for first in (0, count // 3, count - 1):
        pieces = list(chain.pieces(first, count))
        assert [c + n for c, k in pieces for n in range(k)] == order[first:]
    part = await chains.linked(order[0], (count + 1) // 2)
    assert clusters_of(part) == order[: (count + 1) // 2]


@pytest.mark.parametrize("to_end", [False, True])
@pytest.mark.parametrize("back_to", [0, 1, 5, 50, 98, 99])
@pytest.mark.parametrize("shuffled", [False, True])
async def test_cycles_end_where_they_begin(shuffled: bool, back_to: int, to_end: bool) -> None:
    order = list(range(2, 102))
    if shuffled:
        random.Random(7).shuffle(order)
    fat = linked(order, 100_000)
    fat[order[-1] - 2] = order[back_to]
    chains, _ = chains_of(fat)
    chain = await chains.linked(order[0], 90_000, to_end=to_end)
    assert clusters_of(chain) == order
    assert "comes back" in chain.damage


@pytest.mark.parametrize("value", [0, 1, 0xFFFFFFF7, END, 5_000])
async def test_chains_that_end_early(value: int) -> None:
    fat = linked(list(range(2, 102)), 200)
    fat[48] = value
    chains, _ = chains_of(fat)
    chain = await chains.linked(2, 100)
    assert clusters_of(chain) == list(range(2, 51))
    assert chain.damage
    assert sum(extent.length for extent in chains.extents(chain, 0, 49 * 512)) == 49 * 512
    with pytest.raises(DamagedError):
        chains.extents(chain, 49 * 512, 1)


async def test_the_last_cluster_has_no_neighbour() -> None:
    fat = linked(list(range(2, 102)), 100)
    fat[99] = 102
    chains, _ = chains_of(fat)
    assert not (await chains.linked(2, 100)).damage, "what the last one says is not asked"
    chain = await chains.linked(2, 100, to_end=True)
    assert chain.length == 100
    assert chain.damage


@pytest.mark.parametrize("first", [0, 1, 102, 0xFFFFFFFF])
async def test_a_first_cluster_that_is_none(first: int) -> None:
    chains, _ = chains_of(linked(list(range(2, 102)), 100))
    for chain in (await chains.linked(first, 3), chains.contiguous(first, 3)):
        assert chain.length == 0
        assert chain.damage


def test_contiguous_clusters() -> None:
    chains, device = chains_of([0] * 100)
    chain = chains.contiguous(50, 40)
    assert clusters_of(chain) == list(range(50, 90))
    chain = chains.contiguous(90, 40)
    assert clusters_of(chain) == list(range(90, 102))
    assert chain.damage
    assert device.reads == 0


async def test_extents_are_bounded() -> None:
    order = list(range(2, 202, 2))
    chains, _ = chains_of(linked(order, 300), Limits(extents_per_map=50))
    chain = await chains.linked(2, 100)
    assert len(chains.extents(chain, 0, 50 * 512)) == 50
    with pytest.raises(DamagedError, match="too many pieces"):
        chains.extents(chain, 0, 51 * 512)


@pytest.mark.parametrize("back", [False, True])
async def test_a_chain_is_kept_only_as_far_as_it_is_allowed(back: bool) -> None:
    order = [cluster for start in range(2, 3_002, 10) for cluster in (start, start + 1)]
    fat = linked(order, 3_100)
    if back:
        fat[order[-1] - 2] = order[0]
    chains, _ = chains_of(fat, Limits(extents_per_map=50))
    for to_end in (False, True):
        chain = await chains.linked(2, 3_000, to_end=to_end)
        assert clusters_of(chain) == order[:100]
        assert chain.runs == 50
        assert "too many pieces" in chain.damage
    exact = await chains.linked(2, 100)
    assert (exact.length, exact.damage) == (100, "")
