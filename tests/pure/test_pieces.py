"""Metadata in pieces, from a disk behind a cache. The expected bytes are the transport's."""

import random
from itertools import pairwise

import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from restorefs.block.base import Window
from restorefs.block.cache import BlockCache, CachedDisk
from restorefs.guestfs.pieces import PIECE_SIZE, PieceReader, neighbours
from tests.contracts.transports import PromptTransport, ScriptedTransport

COUNT = 50
CONTENT = random.Random(1).randbytes(COUNT * PIECE_SIZE + 100)


def piece(number: int) -> bytes:
    return CONTENT[number * PIECE_SIZE :][:PIECE_SIZE]


def in_pieces(asked: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(offset // PIECE_SIZE, length // PIECE_SIZE) for offset, length in asked]


@given(st.sets(st.integers(0, 60)), st.integers(0, 4))
def test_neighbours_are_what_lies_close_together(numbers: set[int], gap: int) -> None:
    runs = list(neighbours(sorted(numbers), gap))
    within = [number for first, behind in runs for number in range(first, behind)]
    assert numbers <= set(within)
    assert within == sorted(set(within))
    assert all(first in numbers and behind - 1 in numbers for first, behind in runs)
    assert all(second[0] - first[1] > gap for first, second in pairwise(runs))
    for first, behind in runs:
        inside = sorted(number for number in numbers if first <= number < behind)
        assert all(second - first <= gap + 1 for first, second in pairwise(inside))


async def test_scattered_pieces_are_loaded_together(nursery: trio.Nursery) -> None:
    transport = ScriptedTransport(CONTENT)
    reader = PieceReader(CachedDisk(BlockCache(64 << 20), transport))
    numbers = [2, 3, 11, 30, COUNT]
    found: list[bytes] = []

    async def read() -> None:
        found.extend(await reader.pieces(numbers))

    nursery.start_soon(read)
    await wait_all_tasks_blocked()
    assert in_pieces(transport.asked) == [(2, 2), (11, 1), (30, 1), (COUNT, 0)]
    transport.answer_all()
    await wait_all_tasks_blocked()
    assert found == [piece(number) for number in numbers]


async def test_little_that_nobody_wants_is_read_along(nursery: trio.Nursery) -> None:
    transport = ScriptedTransport(CONTENT)
    reader = PieceReader(CachedDisk(BlockCache(64 << 20), transport))
    numbers = [1, 5, 10]
    found: list[bytes] = []

    async def read() -> None:
        found.extend(await reader.pieces(numbers))

    nursery.start_soon(read)
    await wait_all_tasks_blocked()
    assert in_pieces(transport.asked) == [(1, 5), (10, 1)], "3 between, and then 4"
    transport.answer_all()
    await wait_all_tasks_blocked()
    assert found == [piece(number) for number in numbers]
    assert await reader.read(3 * PIECE_SIZE, 10) == piece(3)[:10]
    assert len(transport.asked) == 2


async def test_many_pieces_keep_the_server_busy(nursery: trio.Nursery) -> None:
    transport = ScriptedTransport(CONTENT)
    reader = PieceReader(CachedDisk(BlockCache(64 << 20), transport))
    done = trio.Event()

    async def read() -> None:
        assert await reader.read(0, len(CONTENT)) == CONTENT
        done.set()

    nursery.start_soon(read)
    await wait_all_tasks_blocked()
    while transport.asked[-1][0] < COUNT * PIECE_SIZE:
        assert len(transport.waiting) >= 2
        transport.answer()
        await wait_all_tasks_blocked()
    transport.answer_all()
    await done.wait()
    assert sum(length for _, length in transport.asked) == len(CONTENT), "each once"
    assert len(transport.asked) <= 6


async def test_what_was_read_last_is_not_read_again(nursery: trio.Nursery) -> None:
    transport = PromptTransport(CONTENT, random.Random(1))
    nursery.start_soon(transport.serve)
    reader = PieceReader(Window(CachedDisk(BlockCache(64 << 20), transport), 0, len(CONTENT)))
    for _ in range(3):
        assert await reader.pieces([1, 6]) == [piece(1), piece(6)]
        assert await reader.read(PIECE_SIZE - 10, 20) == CONTENT[PIECE_SIZE - 10 :][:20]
    assert len(transport.asked) == 3
    nursery.cancel_scope.cancel()
