"""Metadata in pieces, from a disk behind a cache. The expected bytes are the transport's."""

import random

import trio
from trio.testing import wait_all_tasks_blocked

from restorefs.block.base import Window
from restorefs.block.cache import MAX_IN_FLIGHT, BlockCache, CachedDisk
from restorefs.guestfs.pieces import PIECE_SIZE, PieceReader
from tests.contracts.transports import PromptTransport, ScriptedTransport

COUNT = 50
CONTENT = random.Random(1).randbytes(COUNT * PIECE_SIZE + 100)


def piece(number: int) -> bytes:
    return CONTENT[number * PIECE_SIZE :][:PIECE_SIZE]


async def test_scattered_pieces_are_loaded_together(nursery: trio.Nursery) -> None:
    transport = ScriptedTransport(CONTENT)
    reader = PieceReader(CachedDisk(BlockCache(0), transport))
    numbers = [2, 3, 11, 30, COUNT]
    found: list[bytes] = []

    async def read() -> None:
        found.extend(await reader.pieces(numbers))

    nursery.start_soon(read)
    await wait_all_tasks_blocked()
    assert [offset // PIECE_SIZE for offset, _ in transport.asked] == numbers
    transport.answer_all()
    await wait_all_tasks_blocked()
    assert found == [piece(number) for number in numbers]


async def test_many_pieces_keep_the_server_busy(nursery: trio.Nursery) -> None:
    transport = ScriptedTransport(CONTENT)
    reader = PieceReader(CachedDisk(BlockCache(0), transport))
    done = trio.Event()

    async def read() -> None:
        assert await reader.read(0, len(CONTENT)) == CONTENT
        done.set()

    nursery.start_soon(read)
    for number in range(COUNT + 1):
        await wait_all_tasks_blocked()
        assert len(transport.waiting) >= min(MAX_IN_FLIGHT, COUNT + 1 - number) - 1
        transport.answer()
    await done.wait()
    assert len(transport.asked) == COUNT + 1


async def test_what_was_read_last_is_not_read_again(nursery: trio.Nursery) -> None:
    transport = PromptTransport(CONTENT, random.Random(1))
    nursery.start_soon(transport.serve)
    reader = PieceReader(Window(CachedDisk(BlockCache(0), transport), 0, len(CONTENT)))
    for _ in range(3):
        assert await reader.pieces([1, 5]) == [piece(1), piece(5)]
        assert await reader.read(PIECE_SIZE - 10, 20) == CONTENT[PIECE_SIZE - 10 :][:20]
    assert len(transport.asked) == 3
    nursery.cancel_scope.cancel()
