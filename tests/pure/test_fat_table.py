"""Chains in tables of random numbers, against a walk that remembers where it was."""

import dataclasses
from array import array
from typing import Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from restorefs.guestfs.fat.layout import decode_boot_sector
from restorefs.guestfs.fat.table import Chain, Table, entries_of_12_bits
from restorefs.guestfs.limits import Limits
from tests.contracts.devices import MemoryDevice
from tests.pure.fat_bytes import CLUSTERS, END, Volume
from tests.turns import Turns

MOST = 40
"""Chains are built of so many clusters, so that they meet themselves often."""


def table_of(bits: int, values: dict[int, int], limits: Limits) -> Table:
    data = Volume(bits, fat=values, fats=1).build()
    geometry = decode_boot_sector(data[:512])
    assert geometry is not None
    assert (geometry.bits, geometry.clusters) == (bits, CLUSTERS[bits])
    return Table(MemoryDevice(data), geometry, limits)


def expected(values: dict[int, int], first: int, end: int) -> tuple[list[int], bool]:
    """Return the clusters of a chain before it repeats any, and whether it ends as it should."""
    found: list[int] = []
    seen = set()
    cluster = first
    while 2 <= cluster < end and cluster not in seen:
        found.append(cluster)
        seen.add(cluster)
        cluster = values.get(cluster, 0)
    return found, cluster == END_MARK


END_MARK = -1


def clusters(chain: Chain) -> list[int]:
    return [
        run.cluster + number for run in chain.runs(0, chain.length) for number in range(run.length)
    ]


tables = st.dictionaries(
    st.integers(2, MOST),
    st.one_of(st.integers(2, MOST), st.just(END_MARK), st.integers(0, 1)),
    max_size=MOST,
)
# Mostly runs, now and then a jump.
runs = st.lists(st.tuples(st.integers(2, MOST), st.integers(2, MOST)), max_size=6).map(
    lambda jumps: {**{n: n + 1 for n in range(2, MOST)}, MOST: END_MARK, **dict(jumps)}
)


@pytest.mark.parametrize("bits", [12, 16, 32])
@given(values=st.one_of(tables, runs), first=st.integers(0, MOST + 1), needed=st.integers(1, 60))
@example(values={n: n + 1 for n in range(2, 20)} | {20: 10}, first=2, needed=60)
@settings(max_examples=200)
async def test_a_chain_is_followed_as_far_as_it_is_one(
    bits: Literal[12, 16, 32], values: dict[int, int], first: int, needed: int
) -> None:
    stored = {number: END[bits] if value < 0 else value for number, value in values.items()}
    table = table_of(bits, stored, Limits())
    sound, ends = expected(values, first, 2 + CLUSTERS[bits])
    if bits == 32:  # where cluster 2 is the root's, unless said otherwise
        sound, ends = expected({2: END_MARK, **values}, first, 2 + CLUSTERS[bits])
    whole = await table.whole_chain(first)
    assert clusters(whole) == sound
    assert bool(whole.fault) == (not ends)
    chain = await table.chain(first, needed)
    assert clusters(chain) == sound[:needed]
    assert bool(chain.fault) == (len(sound) < needed)
    for start in range(0, chain.length, 3):
        for end in (start, start + 1, start + 7, chain.length):
            found = [
                cluster
                for run in chain.runs(start, end)
                for cluster in range(run.cluster, run.cluster + run.length)
            ]
            assert found == sound[:needed][start:end]


async def test_a_folder_larger_than_allowed_is_cut() -> None:
    values = {n: n + 1 for n in range(2, 90)} | {90: END[12]}
    table = table_of(12, values, Limits(folder_bytes=10 * 512))
    chain = await table.whole_chain(2)
    assert chain.length == 10
    assert chain.fault


async def test_more_pieces_than_allowed_are_cut() -> None:
    values = {n: n - 1 for n in range(3, 90)} | {2: END[12]}
    table = table_of(12, values, Limits(extents_per_map=10))
    chain = await table.chain(89, 80)
    assert clusters(chain) == list(range(89, 79, -1))
    assert chain.fault


# Not at places that are round numbers.
SCATTERED = [number for number in range(60_000, 2, -1) if number % 4096]


def scattered_table(last: int) -> Table:
    """Return a table in which SCATTERED is a chain, whose last cluster leads to `last`."""
    entries = array("I", bytes(4 * 60_001))
    for cluster, following in zip(SCATTERED, [*SCATTERED[1:], last], strict=True):
        entries[cluster] = following
    geometry = decode_boot_sector(Volume(32, fats=1).build()[:512])
    assert geometry is not None
    geometry = dataclasses.replace(geometry, clusters=len(entries) - 2, fat_start=0)
    return Table(MemoryDevice(entries.tobytes()), geometry, Limits())


@pytest.mark.parametrize("last", [END[32], SCATTERED[0], SCATTERED[30_000]])
async def test_others_have_their_turn_while_a_chain_is_followed(last: int) -> None:
    table = scattered_table(last)
    async with Turns() as turns:
        chain = await table.chain(SCATTERED[0], 2 * len(SCATTERED))
    assert chain.length == len(SCATTERED)
    assert chain.fault
    # A circle is followed until it is noticed, and again to where it begins.
    steps = len(SCATTERED) * (1 if last == END[32] else 2)
    assert turns.count >= steps // 10_000


@given(st.lists(st.integers(0, 0xFFF), max_size=30))
def test_entries_of_12_bits(values: list[int]) -> None:
    number = sum(value << 12 * index for index, value in enumerate(values))
    data = number.to_bytes(-(-len(values) * 3 // 2), "little")
    assert list(entries_of_12_bits(data, len(values))) == values
