"""The block cache, with transports that answer when and how the test says.

The expected bytes are those that the transport was given.
"""

import random
from collections.abc import Callable, Sequence

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from restorefs.block.base import Piece
from restorefs.block.cache import (
    LARGE_SLOT,
    MAX_IN_FLIGHT,
    SMALL_SLOT,
    BlockCache,
    CachedDisk,
    Slot,
)
from restorefs.errors import DamagedError, RestoreError, StorageError
from tests.contracts.transports import PromptTransport, ScriptedTransport

CONTENT = random.Random(1).randbytes(6 << 20)
SMALL_SLOTS, LARGE_SLOTS = 64, 32
"""What the smallest cache has."""
LARGE = SMALL_SLOT + 1
"""The shortest range that needs a large slot."""


class Reader:
    """A task that pins a range and keeps it until it is told to let go, or is cancelled."""

    def __init__(self, disk: CachedDisk, offset: int, length: int) -> None:
        self.disk = disk
        self.offset = offset
        self.length = length
        self.slot: Slot | None = None
        self.had: Slot | None = None  # still, when the slot is another range's
        self.error: RestoreError | None = None
        self.cancelled = trio.CancelScope()
        self.let_go = trio.Event()

    async def run(self) -> None:
        with self.cancelled:
            try:
                self.slot = await self.disk.cache.pin(self.disk, self.offset, self.length)
                self.had = self.slot
            except RestoreError as error:
                self.error = error
                return
            try:
                await self.let_go.wait()
            finally:
                self.check()
                self.disk.cache.unpin(self.slot)
                self.slot = None

    def check(self) -> None:
        """Assert that the slot, if there is one, has the disk's bytes."""
        if self.slot is not None:
            assert isinstance(self.disk.transport, ScriptedTransport)
            content = self.disk.transport.content
            end = self.offset + self.length
            assert bytes(self.slot.view[: self.length]) == content[self.offset : end]


def new_disk(cache: BlockCache, content: bytes = CONTENT) -> tuple[CachedDisk, ScriptedTransport]:
    transport = ScriptedTransport(content)
    return CachedDisk(cache, transport), transport


def start(nursery: trio.Nursery, disk: CachedDisk, *starts: int, length: int) -> list[Reader]:
    """Start a reader at each multiple of the length."""
    readers = [Reader(disk, number * length, length) for number in starts]
    for reader in readers:
        nursery.start_soon(reader.run)
    return readers


async def fill(nursery: trio.Nursery, cache: BlockCache, length: int, slots: int) -> list[Reader]:
    """Hold every slot of a region, with disks of their own; return the readers."""
    readers: list[Reader] = []
    while len(readers) < slots:
        disk, transport = new_disk(cache)
        count = min(MAX_IN_FLIGHT, slots - len(readers))
        readers += start(nursery, disk, *range(count), length=length)
        await wait_all_tasks_blocked()
        transport.answer_all()
    await wait_all_tasks_blocked()
    assert all(reader.slot is not None for reader in readers)
    return readers


def end(readers: Sequence[Reader]) -> None:
    for reader in readers:
        reader.let_go.set()


# Loading


async def test_many_readers_of_a_range_make_one_request(nursery: trio.Nursery) -> None:
    disk, transport = new_disk(BlockCache(0))
    readers = start(nursery, disk, *[3] * 50, length=4096)
    await wait_all_tasks_blocked()
    assert transport.asked == [(3 * 4096, 4096)]
    assert all(reader.slot is None for reader in readers)
    transport.answer()
    await wait_all_tasks_blocked()
    for reader in readers:
        assert reader.slot is not None
        reader.check()
    end(readers)


async def test_a_range_that_is_there_is_not_asked_again(nursery: trio.Nursery) -> None:
    cache = BlockCache(0)
    disk, transport = new_disk(cache)
    readers = start(nursery, disk, 0, length=4096)
    await wait_all_tasks_blocked()
    transport.answer()
    await wait_all_tasks_blocked()
    slot = await cache.pin(disk, 0, 4096)
    assert slot.view[:4096] == CONTENT[:4096]
    cache.unpin(slot)
    assert cache.prefetch(disk, 0, 4096)
    assert len(transport.asked) == 1
    assert (cache.hits, cache.misses) == (1, 1)
    end(readers)


async def test_the_same_range_of_two_disks_is_two_ranges(nursery: trio.Nursery) -> None:
    cache = BlockCache(0)
    disk, transport = new_disk(cache)
    other, other_transport = new_disk(cache, CONTENT[::-1])
    readers = start(nursery, disk, 1, length=512) + start(nursery, other, 1, length=512)
    await wait_all_tasks_blocked()
    transport.answer()
    other_transport.answer()
    await wait_all_tasks_blocked()
    for reader in readers:
        assert reader.slot is not None
    end(readers)  # each checks its bytes


async def test_a_prefetched_range_is_waited_for_not_asked_again(nursery: trio.Nursery) -> None:
    cache = BlockCache(0)
    disk, transport = new_disk(cache)
    assert cache.prefetch(disk, 0, LARGE)
    readers = start(nursery, disk, 0, length=LARGE)
    await wait_all_tasks_blocked()
    assert readers[0].slot is None
    transport.answer()
    await wait_all_tasks_blocked()
    assert readers[0].slot is not None
    assert transport.asked == [(0, LARGE)]
    end(readers)


async def test_loads_may_end_in_any_order(nursery: trio.Nursery) -> None:
    disk, transport = new_disk(BlockCache(0))
    readers = start(nursery, disk, 0, 1, 2, length=LARGE)
    await wait_all_tasks_blocked()
    last = transport.waiting[-1]
    transport.answer(2)
    await wait_all_tasks_blocked()
    assert [reader.offset for reader in readers if reader.slot] == [last.offset]
    transport.answer_all()
    await wait_all_tasks_blocked()
    assert all(reader.slot is not None for reader in readers)
    end(readers)


async def test_bytes_read_are_counted_when_they_are_there(nursery: trio.Nursery) -> None:
    disk, transport = new_disk(BlockCache(0))
    readers = start(nursery, disk, 0, 1, length=4096)
    await wait_all_tasks_blocked()
    assert disk.bytes_read == 0
    transport.answer()
    transport.fail(StorageError("no"))
    assert disk.bytes_read == 4096
    end(readers)


# Failing


async def test_a_failed_load_fails_its_readers_and_is_forgotten(nursery: trio.Nursery) -> None:
    disk, transport = new_disk(BlockCache(0))
    readers = start(nursery, disk, *[0] * 5, length=4096)
    await wait_all_tasks_blocked()
    transport.fail(StorageError("the disk is on fire"))
    await wait_all_tasks_blocked()
    for reader in readers:
        assert type(reader.error) is StorageError
        assert str(reader.error) == "the disk is on fire"
    assert len({id(reader.error) for reader in readers}) == 5, "one traceback for each"
    again = start(nursery, disk, 0, length=4096)
    await wait_all_tasks_blocked()
    assert len(transport.asked) == 2
    transport.answer()
    await wait_all_tasks_blocked()
    assert again[0].slot is not None
    end(again)


async def test_who_comes_between_the_failure_and_its_readers_asks_again(
    nursery: trio.Nursery,
) -> None:
    cache = BlockCache(0)
    disk, transport = new_disk(cache)
    others = await fill(nursery, cache, LARGE, LARGE_SLOTS - MAX_IN_FLIGHT)
    failing = start(nursery, disk, *range(MAX_IN_FLIGHT), length=LARGE)
    await wait_all_tasks_blocked()
    offset, _ = transport.asked[0]
    transport.fail(StorageError("no"))
    # The failed slot still has its reader: it must not become another range's yet.
    assert not cache.prefetch(disk, offset, LARGE)
    assert not cache.prefetch(disk, 100, LARGE)
    await wait_all_tasks_blocked()
    assert sum(reader.error is not None for reader in failing) == 1
    assert cache.prefetch(disk, 100, LARGE)
    transport.answer_all()
    end(failing + others)


async def test_failed_slots_are_used_again_in_their_own_region(nursery: trio.Nursery) -> None:
    cache = BlockCache(0)
    disk, transport = new_disk(cache)
    for length in (4096, LARGE):
        for _ in range(5):
            start(nursery, disk, *range(MAX_IN_FLIGHT), length=length)
            await wait_all_tasks_blocked()
            while transport.waiting:
                transport.fail(StorageError("no"))
            await wait_all_tasks_blocked()
    assert disk.in_flight == 0
    small = await fill(nursery, cache, 4096, SMALL_SLOTS)
    large = await fill(nursery, cache, LARGE, LARGE_SLOTS)
    end(small + large)


# Evicting


async def test_the_least_recently_used_range_goes_first() -> None:
    cache = BlockCache(0)
    disk, transport = new_disk(cache)
    for number in range(LARGE_SLOTS):
        assert cache.prefetch(disk, number * LARGE, LARGE)
        transport.answer()
    cache.unpin(await cache.pin(disk, 0, LARGE))  # now the newest
    assert cache.prefetch(disk, LARGE_SLOTS * LARGE, LARGE)
    transport.answer()
    before = cache.misses
    for number in (0, *range(2, LARGE_SLOTS + 1)):
        assert cache.prefetch(disk, number * LARGE, LARGE)
    assert cache.misses == before
    assert cache.prefetch(disk, LARGE, LARGE)
    assert cache.misses == before + 1
    transport.answer()


async def test_a_pinned_slot_is_never_evicted(nursery: trio.Nursery) -> None:
    cache = BlockCache(0)
    held = await fill(nursery, cache, LARGE, LARGE_SLOTS)
    disk, transport = new_disk(cache)
    assert not cache.prefetch(disk, 0, LARGE)
    waiting = start(nursery, disk, 0, 1, length=LARGE)
    await wait_all_tasks_blocked()
    assert transport.asked == []
    for reader in held:
        reader.check()
    wanted = held[7].slot
    held[7].let_go.set()
    await wait_all_tasks_blocked()
    assert [request.slot for request in transport.waiting] == [wanted]
    held[9].let_go.set()
    await wait_all_tasks_blocked()
    transport.answer_all()
    await wait_all_tasks_blocked()
    assert all(reader.slot is not None for reader in waiting)
    end(held + waiting)


async def test_a_loading_slot_is_never_evicted(nursery: trio.Nursery) -> None:
    cache = BlockCache(0)
    disks = [new_disk(cache) for _ in range(LARGE_SLOTS // MAX_IN_FLIGHT)]
    for disk, _ in disks:
        for number in range(MAX_IN_FLIGHT):
            assert cache.prefetch(disk, number * LARGE, LARGE)
    late, transport = new_disk(cache)
    assert not cache.prefetch(late, 0, LARGE)
    waiting = start(nursery, late, 0, length=LARGE)
    await wait_all_tasks_blocked()
    assert transport.asked == []
    disks[0][1].answer()
    await wait_all_tasks_blocked()
    assert transport.asked == [(0, LARGE)]
    transport.answer()
    end(waiting)


async def test_small_ranges_do_not_evict_large_ones(nursery: trio.Nursery) -> None:
    cache = BlockCache(0)
    large = await fill(nursery, cache, LARGE, LARGE_SLOTS)
    for _ in range(3):
        end(await fill(nursery, cache, SMALL_SLOT, SMALL_SLOTS))
        await wait_all_tasks_blocked()
    end(large)
    await wait_all_tasks_blocked()
    before = cache.misses
    for reader in large:
        cache.unpin(await cache.pin(reader.disk, reader.offset, LARGE))
    assert cache.misses == before


async def test_memory_is_bounded_by_the_budget(nursery: trio.Nursery) -> None:
    budget = 64 << 20
    cache = BlockCache(budget)
    slots: set[Slot] = set()
    for length in (1, 4096, SMALL_SLOT, LARGE, LARGE_SLOT):
        disk, transport = new_disk(cache)
        for _ in range(budget // SMALL_SLOT):
            offset = random.randrange(disk.size - length)
            cache.prefetch(disk, offset, length)
            transport.answer_all()
        sizes = {len(slot.view) for slot in transport.slots}
        assert sizes == {SMALL_SLOT if length <= SMALL_SLOT else LARGE_SLOT}
        slots |= transport.slots
    assert sum(len(slot.view) for slot in slots) == budget
    assert len({id(slot.view.obj) for slot in slots}) == 2, "two mappings"


# Dropping


@pytest.mark.parametrize("length", [4096, LARGE])
async def test_a_dropped_slot_is_the_next_to_be_used(length: int) -> None:
    cache = BlockCache(0)
    disk, transport = new_disk(cache)
    for number in range(5):
        assert cache.prefetch(disk, number * length, length)
        transport.answer()
    slot = await cache.pin(disk, 2 * length, length)
    cache.unpin(slot)
    cache.drop(slot)
    assert slot.view[:length] == CONTENT[2 * length : 3 * length], "its bytes stay for now"
    assert cache.prefetch(disk, 9 * length, length)
    assert [request.slot for request in transport.waiting] == [slot]
    transport.answer()
    before = cache.misses
    for number in (0, 1, 3, 4, 9):
        assert cache.prefetch(disk, number * length, length)
    assert cache.misses == before, "and nothing else was forgotten"


async def test_a_dropped_range_is_loaded_again(nursery: trio.Nursery) -> None:
    cache = BlockCache(0)
    disk, transport = new_disk(cache)
    for number in (0, 1):
        assert cache.prefetch(disk, number * LARGE, LARGE)
        transport.answer()
    slot = await cache.pin(disk, 0, LARGE)
    cache.unpin(slot)
    cache.drop(slot)
    assert cache.prefetch(disk, 7 * LARGE, LARGE)  # other bytes where these were
    transport.answer()
    again = start(nursery, disk, 0, length=LARGE)
    await wait_all_tasks_blocked()
    assert again[0].slot is None, "nobody gets what is not there yet"
    assert transport.asked == [(number * LARGE, LARGE) for number in (0, 1, 7, 0)]
    transport.answer()
    await wait_all_tasks_blocked()
    assert again[0].slot is not None
    end(again)  # it checks its bytes


@pytest.mark.parametrize(
    ("place", "asked"),
    [
        ((1 << 20, 1 << 20), [(1 << 20, 1 << 20)]),
        ((4096, 512 << 10), [(4096, 512 << 10)]),
        (
            (5000, 600 << 10),  # pages, in pieces whose lengths are few different ones
            [(4096, 512 << 10), (528_384, 64 << 10), (593_920, 64 << 10)],
        ),
        ((0, 2 << 20), [(0, 1 << 20), (1 << 20, 1 << 20)]),
        ((6 * (1 << 20) - 70_000, 70_000), [(6_221_456 - 3728, 65_536), (6_283_264, 8192)]),
    ],
)
async def test_what_is_read_through_takes_few_requests_and_no_room(
    place: tuple[int, int], asked: list[tuple[int, int]], nursery: trio.Nursery
) -> None:
    transport = PromptTransport(CONTENT, random.Random(1))
    nursery.start_soon(transport.serve)
    disk = CachedDisk(BlockCache(0), transport)
    offset, length = place
    for _ in range(2):
        assert await disk.read_through([place]) == CONTENT[offset : offset + length]
    assert transport.asked == asked * 2


async def test_short_places_are_asked_for_at_once_and_kept_with_their_neighbours(
    nursery: trio.Nursery,
) -> None:
    cache = BlockCache(0)
    disk, transport = new_disk(cache)
    read = trio.Event()

    async def reader() -> None:
        data = await disk.read_through([(70_000, 8192), (SMALL_SLOT - 512, 1024), (0, 512)])
        assert data == CONTENT[70_000:78_192] + CONTENT[65_024:66_048] + CONTENT[:512]
        read.set()

    nursery.start_soon(reader)
    await wait_all_tasks_blocked()
    assert transport.asked == [(SMALL_SLOT, SMALL_SLOT), (0, SMALL_SLOT)]
    transport.answer_all()
    await read.wait()
    assert await disk.read(100, 100) == CONTENT[100:200]
    assert len(transport.asked) == 2


async def test_a_stream_that_drops_leaves_the_others_their_slots(nursery: trio.Nursery) -> None:
    cache = BlockCache(0)
    held = await fill(nursery, cache, LARGE, LARGE_SLOTS - 1)
    end(held)
    await wait_all_tasks_blocked()
    disk, transport = new_disk(cache)
    for number in range(2 * LARGE_SLOTS):
        assert cache.prefetch(disk, number * LARGE, LARGE)
        transport.answer()
        slot = await cache.pin(disk, number * LARGE, LARGE)
        cache.unpin(slot)
        cache.drop(slot)
    assert len(transport.slots) == 1
    before = cache.misses
    for reader in held:
        cache.unpin(await cache.pin(reader.disk, reader.offset, LARGE))
    assert cache.misses == before


async def test_a_slot_that_somebody_pins_is_not_dropped(nursery: trio.Nursery) -> None:
    cache = BlockCache(0)
    disk, transport = new_disk(cache)
    first, second = start(nursery, disk, 0, 0, length=LARGE)
    await wait_all_tasks_blocked()
    (slot,) = transport.slots
    cache.drop(slot)  # the server may still write into it
    transport.answer()
    cache.drop(slot)  # it is there, and its readers have not had their turn
    await wait_all_tasks_blocked()
    assert first.slot is second.slot is slot
    first.let_go.set()
    await wait_all_tasks_blocked()
    cache.drop(slot)
    others = await fill(nursery, cache, LARGE, LARGE_SLOTS - 1)
    second.check()
    assert cache.prefetch(disk, 0, LARGE)
    assert not cache.prefetch(disk, LARGE, LARGE)
    second.let_go.set()
    await wait_all_tasks_blocked()
    cache.drop(slot)
    assert cache.prefetch(disk, LARGE, LARGE)
    assert [request.slot for request in transport.waiting] == [slot]
    transport.answer()
    end(others)


async def test_a_failed_slot_is_not_dropped(nursery: trio.Nursery) -> None:
    cache = BlockCache(0)
    disk, transport = new_disk(cache)
    others = await fill(nursery, cache, LARGE, LARGE_SLOTS - 1)
    readers = start(nursery, disk, 0, length=LARGE)
    await wait_all_tasks_blocked()
    (slot,) = transport.slots
    transport.fail(StorageError("no"))
    cache.drop(slot)
    assert not cache.prefetch(disk, LARGE, LARGE), "its reader has not had its turn"
    await wait_all_tasks_blocked()
    assert readers[0].error is not None
    cache.drop(slot)  # it is free already, and must not become so twice
    assert cache.prefetch(disk, LARGE, LARGE)
    assert not cache.prefetch(disk, 2 * LARGE, LARGE)
    transport.answer()
    end(others)


async def test_a_slot_that_was_dropped_is_not_dropped_again(nursery: trio.Nursery) -> None:
    cache = BlockCache(0)
    disk, transport = new_disk(cache)
    assert cache.prefetch(disk, 0, LARGE)
    transport.answer()
    slot = await cache.pin(disk, 0, LARGE)
    cache.unpin(slot)
    for _ in range(3):
        cache.drop(slot)
    others = await fill(nursery, cache, LARGE, LARGE_SLOTS)
    assert len({reader.slot for reader in others}) == LARGE_SLOTS
    end(others)  # each checks its bytes


async def test_a_dropped_slot_whose_range_is_in_another_one_now(nursery: trio.Nursery) -> None:
    cache = BlockCache(0)
    disk, transport = new_disk(cache)
    slots = []
    for number in (0, 1):
        assert cache.prefetch(disk, number * LARGE, LARGE)
        transport.answer()
        slots.append(await cache.pin(disk, number * LARGE, LARGE))
    for slot in slots:
        cache.unpin(slot)
        cache.drop(slot)
    assert cache.prefetch(disk, 0, LARGE)
    assert [request.slot for request in transport.waiting] == slots[1:]
    transport.answer()
    cache.drop(slots[0])
    before = cache.misses
    assert cache.prefetch(disk, 0, LARGE)
    assert cache.misses == before
    others = await fill(nursery, cache, LARGE, LARGE_SLOTS)
    assert len({reader.slot for reader in others}) == LARGE_SLOTS
    end(others)  # each checks its bytes


# Sharing


async def test_a_disk_has_so_many_loads_in_flight_and_others_go_on(nursery: trio.Nursery) -> None:
    cache = BlockCache(0)
    slow, slow_transport = new_disk(cache)
    waiting = start(nursery, slow, *range(3 * MAX_IN_FLIGHT), length=4096)
    await wait_all_tasks_blocked()
    assert len(slow_transport.waiting) == slow.in_flight == MAX_IN_FLIGHT
    assert not cache.prefetch(slow, 1 << 20, 4096)
    disk, transport = new_disk(cache)
    for number in range(3 * SMALL_SLOTS):
        other = start(nursery, disk, number, length=4096)
        await wait_all_tasks_blocked()
        transport.answer()
        await wait_all_tasks_blocked()
        assert other[0].slot is not None
        end(other)
    for _ in range(3 * MAX_IN_FLIGHT):
        slow_transport.answer()
        await wait_all_tasks_blocked()
        assert slow.in_flight <= MAX_IN_FLIGHT
    assert all(reader.slot is not None for reader in waiting)
    end(waiting)


async def test_a_cancelled_reader_leaves_the_load_to_the_others(nursery: trio.Nursery) -> None:
    disk, transport = new_disk(BlockCache(0))
    first, second = start(nursery, disk, 0, 0, length=4096)
    await wait_all_tasks_blocked()
    first.cancelled.cancel()
    await wait_all_tasks_blocked()
    assert disk.in_flight == 1
    transport.answer()
    await wait_all_tasks_blocked()
    assert second.slot is not None
    assert len(transport.asked) == 1
    second.let_go.set()


async def test_a_load_whose_only_reader_was_cancelled_goes_on(nursery: trio.Nursery) -> None:
    cache = BlockCache(0)
    disk, transport = new_disk(cache)
    held = await fill(nursery, cache, LARGE, LARGE_SLOTS - 1)
    reader = start(nursery, disk, 0, length=LARGE)[0]
    await wait_all_tasks_blocked()
    reader.cancelled.cancel()
    await wait_all_tasks_blocked()
    # The server may still write into the slot.
    assert not cache.prefetch(disk, 1, LARGE)
    transport.answer()
    assert cache.prefetch(disk, 1, LARGE), "and now its pin is gone"
    transport.answer()
    end(held)


async def test_readers_that_are_cancelled_while_they_wait_for_room(nursery: trio.Nursery) -> None:
    cache = BlockCache(0)
    held = await fill(nursery, cache, LARGE, LARGE_SLOTS)
    disk, transport = new_disk(cache)
    waiting = start(nursery, disk, 0, 1, 2, length=LARGE)
    await wait_all_tasks_blocked()
    for reader in waiting[:2]:
        reader.cancelled.cancel()
    await wait_all_tasks_blocked()
    held[0].let_go.set()
    await wait_all_tasks_blocked()
    assert transport.asked == [(2 * LARGE, LARGE)]
    transport.answer()
    end(held + waiting)


# Any order of all of this

Step = tuple[str, int, int]
STEPS = st.tuples(
    st.sampled_from(
        (
            *("pin", "pin", "pin_small", "prefetch", "expect"),
            *("answer", "answer", "fail", "end", "cancel", "drop"),
        )
    ),
    st.integers(0, 3),  # the disk, or how many
    st.integers(0, 40),  # the range, or which one
)


class World:
    """A cache with four disks, its readers, and what must hold whatever happens."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.cache = BlockCache(0)
        self.disks = [new_disk(self.cache, CONTENT[n:] + CONTENT[:n]) for n in range(4)]
        self.readers: list[Reader] = []
        self.nursery = nursery

    def pin(self, which: int, number: int) -> None:
        disk, _ = self.disks[which]
        self.readers += start(self.nursery, disk, *range(number, number + 9), length=LARGE)

    def pin_small(self, which: int, number: int) -> None:
        disk, _ = self.disks[which]
        self.readers += start(self.nursery, disk, *range(number, number + 9), length=SMALL_SLOT)

    def expect(self, which: int, number: int) -> None:
        disk, _ = self.disks[which]
        disk.expect(number * SMALL_SLOT, (number % 7 + 1) * 3 * SMALL_SLOT)

    def prefetch(self, which: int, number: int) -> None:
        disk, transport = self.disks[which]
        for near in range(number, number + 5):
            before = len(transport.asked)
            there = self.cache.prefetch(disk, near * LARGE, LARGE)
            assert there or len(transport.asked) == before

    def answer(self, count: int, number: int) -> None:
        for _, transport in self.disks:
            for _ in range(1 + 4 * count):
                if transport.waiting:
                    transport.answer(number % len(transport.waiting))

    def fail(self, which: int, number: int) -> None:
        _, transport = self.disks[which]
        if transport.waiting:
            transport.fail(StorageError("no"), number % len(transport.waiting))

    def end(self, count: int, number: int) -> None:
        holders = [reader for reader in self.readers if reader.slot is not None]
        end(holders[number :: 4 - count])

    def cancel(self, count: int, number: int) -> None:
        for reader in self.readers[number :: 7 - count]:
            reader.cancelled.cancel()

    def drop(self, count: int, number: int) -> None:
        """Drop slots that readers have or had, whatever is in them now."""
        for reader in self.readers[number % 8 :: 4 - count]:
            if reader.had is not None:
                self.cache.drop(reader.had)

    def check(self) -> None:
        requests = [(disk, r) for disk, transport in self.disks for r in transport.waiting]
        keys = {(disk.serial, r.offset, r.length) for disk, r in requests}
        assert len(keys) == len(requests), "a range is loaded once"
        for disk, transport in self.disks:
            assert disk.in_flight == len(transport.waiting) <= MAX_IN_FLIGHT
        holders = [reader for reader in self.readers if reader.slot is not None]
        held: dict[Slot, tuple[int, int, int]] = {}
        for reader in holders:
            reader.check()
            assert reader.slot is not None
            key = (reader.disk.serial, reader.offset, reader.length)
            assert held.setdefault(reader.slot, key) == key, "a slot holds one range"
        loading = {r.slot for _, r in requests}
        assert len(loading) == len(requests)
        for region, count in ((self.cache._large, LARGE_SLOTS), (self.cache._small, SMALL_SLOTS)):
            kept = [*region.free, *region.held.values()]
            assert len({id(slot) for slot in kept}) == len(kept), "each is in one place"
            assert len(kept) == count, "and none is lost (a failed one is free by now)"
        assert loading.isdisjoint(held)
        for size, count in ((LARGE_SLOT, LARGE_SLOTS), (SMALL_SLOT, SMALL_SLOTS)):
            assert sum(len(slot.view) == size for slot in loading | held.keys()) <= count

    async def finish(self) -> None:
        """Answer everything and let everything go: nobody may be left waiting."""
        while self.nursery.child_tasks:
            assert any(transport.waiting for _, transport in self.disks) or any(
                reader.slot is not None for reader in self.readers
            ), "somebody waits for nothing"
            self.answer(3, 0)
            end(self.readers)
            await wait_all_tasks_blocked()
            self.check()
        for _, transport in self.disks:
            transport.answer_all()
        assert all(disk.in_flight == 0 for disk, _ in self.disks)
        end(await fill(self.nursery, self.cache, LARGE, LARGE_SLOTS))
        end(await fill(self.nursery, self.cache, SMALL_SLOT, SMALL_SLOTS))


@settings(max_examples=40)
@given(st.lists(STEPS, max_size=30))
async def test_nothing_is_mixed_up_or_lost_whatever_happens(steps: Sequence[Step]) -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        for name, first, second in steps:
            step: Callable[[int, int], None] = getattr(world, name)
            step(first, second)
            await wait_all_tasks_blocked()
            world.check()
        await world.finish()


# A disk


@pytest.mark.parametrize("size", [1, 4095, SMALL_SLOT, SMALL_SLOT + 1, 10 * SMALL_SLOT - 512])
async def test_a_disk_reads_right_whatever_its_size(size: int, nursery: trio.Nursery) -> None:
    transport = PromptTransport(CONTENT[:size], random.Random(size))
    nursery.start_soon(transport.serve)
    disk = CachedDisk(BlockCache(0), transport)
    assert disk.size == size
    chance = random.Random(size)
    edges = [0, 1, size // 2, size - 1, size, SMALL_SLOT - 1, SMALL_SLOT, SMALL_SLOT + 1]
    edges += [chance.randrange(size) for _ in range(10)]
    edges = [edge for edge in edges if edge <= size]
    for begin in edges:
        for stop in edges:
            if begin <= stop:
                assert await disk.read(begin, stop - begin) == CONTENT[begin:stop]
    with pytest.raises(DamagedError):
        await disk.read(0, size + 1)
    nursery.cancel_scope.cancel()


async def test_reading_nothing_asks_for_nothing(nursery: trio.Nursery) -> None:
    transport = PromptTransport(CONTENT, random.Random(1))
    nursery.start_soon(transport.serve)
    disk = CachedDisk(BlockCache(0), transport)
    for offset in (0, 1, SMALL_SLOT, disk.size):
        assert await disk.read(offset, 0) == b""
    assert transport.asked == []
    nursery.cancel_scope.cancel()


async def test_a_disk_reads_metadata_in_aligned_slots(nursery: trio.Nursery) -> None:
    disk, transport = new_disk(BlockCache(0), CONTENT[: 3 * SMALL_SLOT + 100])

    async def read(offset: int, length: int) -> None:
        assert await disk.read(offset, length) == CONTENT[offset : offset + length]

    for offset in (100, 5000, SMALL_SLOT - 10):  # neighbours
        nursery.start_soon(read, offset, 10)
    await wait_all_tasks_blocked()
    nursery.start_soon(read, SMALL_SLOT - 1, 2 * SMALL_SLOT + 50)
    await wait_all_tasks_blocked()
    assert transport.asked == [
        (0, SMALL_SLOT),
        (SMALL_SLOT, 2 * SMALL_SLOT),
        (3 * SMALL_SLOT, 100),
    ]
    transport.answer_all()


async def test_a_read_that_needs_more_slots_than_there_are(nursery: trio.Nursery) -> None:
    transport = PromptTransport(CONTENT, random.Random(1))
    nursery.start_soon(transport.serve)
    disk = CachedDisk(BlockCache(0), transport)
    assert await disk.read(1, len(CONTENT) - 1) == CONTENT[1:]
    nursery.cancel_scope.cancel()


async def test_a_read_fails_as_its_load_does(nursery: trio.Nursery) -> None:
    disk, transport = new_disk(BlockCache(0))
    failed = trio.Event()

    async def read() -> None:
        with pytest.raises(StorageError, match="bad sector"):
            await disk.read(0, 3 * SMALL_SLOT)
        failed.set()

    nursery.start_soon(read)
    await wait_all_tasks_blocked()
    while not failed.is_set():
        transport.fail(StorageError("bad sector"))
        await wait_all_tasks_blocked()
    assert transport.asked[0] == (0, 3 * SMALL_SLOT)
    transport.answer_all()


async def test_what_was_to_be_read_together_fails_alone(nursery: trio.Nursery) -> None:
    """One bad sector takes nothing else with it, and what nobody wants is not read again."""
    disk, transport = new_disk(BlockCache(64 << 20))
    disk.expect(0, 6 * SMALL_SLOT)
    readers = start(nursery, disk, 0, 1, 2, 5, length=SMALL_SLOT)
    await wait_all_tasks_blocked()
    assert transport.asked == [(0, 6 * SMALL_SLOT)]
    transport.fail(StorageError("bad sector"))
    await wait_all_tasks_blocked()
    wanted = [(number * SMALL_SLOT, SMALL_SLOT) for number in (0, 1, 2, 5)]
    assert sorted(transport.asked[1:]) == wanted
    while transport.waiting:
        if transport.waiting[0].offset == 2 * SMALL_SLOT:
            transport.fail(StorageError("bad sector"))
        else:
            transport.answer()
    await wait_all_tasks_blocked()
    assert [reader.error is not None for reader in readers] == [False, False, True, False]
    end(readers)  # each checks its bytes
    assert disk.bytes_read == 3 * SMALL_SLOT
    assert disk.in_flight == 0


async def test_neighbours_need_a_large_slot_only_until_they_are_there(
    nursery: trio.Nursery,
) -> None:
    cache = BlockCache(0)
    disk, transport = new_disk(cache)
    for number in range(0, 60, 4):
        disk.expect(number * SMALL_SLOT, 4 * SMALL_SLOT)
        transport.answer_all()
    assert cache.misses == 60
    assert len({slot for slot in transport.slots if len(slot.view) == LARGE_SLOT}) == 1
    end(await fill(nursery, cache, LARGE, LARGE_SLOTS))


async def test_neighbours_are_read_singly_where_there_is_no_large_slot(
    nursery: trio.Nursery,
) -> None:
    cache = BlockCache(0)
    held = await fill(nursery, cache, LARGE, LARGE_SLOTS)
    disk, transport = new_disk(cache)
    disk.expect(0, 3 * SMALL_SLOT)
    assert transport.asked == [(number * SMALL_SLOT, SMALL_SLOT) for number in range(3)]
    transport.answer_all()
    end(held)


async def test_neighbours_are_read_singly_where_there_are_not_enough_small_slots(
    nursery: trio.Nursery,
) -> None:
    cache = BlockCache(0)
    held = await fill(nursery, cache, SMALL_SLOT, SMALL_SLOTS - 2)
    disk, transport = new_disk(cache)
    disk.expect(0, 3 * SMALL_SLOT)
    assert transport.asked == [(number * SMALL_SLOT, SMALL_SLOT) for number in range(2)]
    transport.answer_all()
    end(held)
    await wait_all_tasks_blocked()
    end(await fill(nursery, cache, SMALL_SLOT, SMALL_SLOTS))
    end(await fill(nursery, cache, LARGE, LARGE_SLOTS))


async def test_a_range_that_is_there_in_a_large_slot_is_no_carrier(nursery: trio.Nursery) -> None:
    cache = BlockCache(0)
    disk, transport = new_disk(cache)
    reader = start(nursery, disk, 0, length=3 * SMALL_SLOT)
    await wait_all_tasks_blocked()
    disk.expect(0, 3 * SMALL_SLOT)
    assert transport.asked[1:] == [(0, SMALL_SLOT), (SMALL_SLOT, 2 * SMALL_SLOT)]
    transport.answer_all()
    await wait_all_tasks_blocked()
    end(reader)  # checks its bytes
    await wait_all_tasks_blocked()
    end(await fill(nursery, cache, LARGE, LARGE_SLOTS))


async def test_a_slow_disk_leaves_the_smallest_cache_to_others(nursery: trio.Nursery) -> None:
    cache = BlockCache(0)
    slow, transport = new_disk(cache)
    for number in range(0, 90, 10):
        slow.expect(number * SMALL_SLOT, 9 * SMALL_SLOT)
    for number in range(9, 90, 10):
        slow.expect(number * SMALL_SLOT, 1)
    loading = sum(length for _, length in transport.asked) // SMALL_SLOT
    assert MAX_IN_FLIGHT < loading <= SMALL_SLOTS // 4 + MAX_IN_FLIGHT
    end(await fill(nursery, cache, SMALL_SLOT, SMALL_SLOTS - loading))
    transport.answer_all()


async def test_a_slow_disk_has_few_slots_waiting_for_neighbours(nursery: trio.Nursery) -> None:
    slow, transport = new_disk(BlockCache(64 << 20))
    for number in range(0, 90, 2):
        slow.expect(number * SMALL_SLOT, 2 * SMALL_SLOT)
    assert transport.asked == [(n * 2 * SMALL_SLOT, 2 * SMALL_SLOT) for n in range(4)]
    for number in range(1, 90, 2):  # those that are not there yet
        slow.expect(number * SMALL_SLOT, 1)
    assert len(transport.waiting) == slow.in_flight == MAX_IN_FLIGHT
    transport.answer()
    slow.expect(80 * SMALL_SLOT, 2 * SMALL_SLOT)
    assert transport.asked[-1] == (80 * SMALL_SLOT, 2 * SMALL_SLOT)
    transport.answer_all()
    assert slow.together == 0


async def test_slow_disks_together_have_few_slots_waiting_for_neighbours(
    nursery: trio.Nursery,
) -> None:
    cache = BlockCache(64 << 20)
    slots = (64 << 20) // 2 // SMALL_SLOT
    disks = [new_disk(cache) for _ in range(20)]
    for disk, _ in disks:
        disk.expect(0, 64 * SMALL_SLOT)
    loading = sum(length for _, transport in disks for _, length in transport.asked)
    singles = sum(length == SMALL_SLOT for _, transport in disks for _, length in transport.asked)
    assert loading // SMALL_SLOT - singles == slots // 4
    assert loading // SMALL_SLOT < slots
    for _, transport in disks:
        transport.answer_all()
    disks[-1][0].expect(90 * SMALL_SLOT, 2 * SMALL_SLOT)
    assert disks[-1][1].asked[-1] == (90 * SMALL_SLOT, 2 * SMALL_SLOT)
    disks[-1][1].answer_all()


async def test_what_is_expected_is_loaded_while_something_else_is_waited_for(
    nursery: trio.Nursery,
) -> None:
    disk, transport = new_disk(BlockCache(0))
    wanted = (3, 20, 7)
    for number in wanted:
        disk.expect(number * SMALL_SLOT + 100, 1000)
    assert transport.asked == [(number * SMALL_SLOT, SMALL_SLOT) for number in wanted]
    transport.answer_all()
    for number in wanted:
        start = number * SMALL_SLOT + 100
        assert await disk.read(start, 1000) == CONTENT[start : start + 1000]
    assert len(transport.asked) == len(wanted)


async def test_no_more_is_loaded_than_what_is_read(nursery: trio.Nursery) -> None:
    """Neither in order nor scattered: metadata has no read-ahead that guesses."""
    transport = PromptTransport(CONTENT, random.Random(1))
    nursery.start_soon(transport.serve)
    disk = CachedDisk(BlockCache(0), transport)
    last = disk.size // SMALL_SLOT - 1
    numbers = [
        *range(20),
        *random.Random(2).sample(range(20, last), 40),
        *range(last, last - 5, -1),
    ]
    for number in numbers:
        await disk.read(number * SMALL_SLOT, 1)
    assert {offset // SMALL_SLOT for offset, _ in transport.asked} == set(numbers)
    nursery.cancel_scope.cancel()


async def test_a_failure_of_what_was_expected_is_nobodys_until_it_is_read(
    nursery: trio.Nursery,
) -> None:
    disk, transport = new_disk(BlockCache(0))
    read = trio.Event()

    async def read_first() -> None:
        assert await disk.read(0, 10) == CONTENT[:10]
        read.set()

    disk.expect(0, 10)
    disk.expect(SMALL_SLOT, 10)
    nursery.start_soon(read_first)
    await wait_all_tasks_blocked()
    transport.fail(StorageError("bad sector"), 1)
    transport.answer()
    await read.wait()
    transport.asked.clear()
    nursery.start_soon(disk.read, SMALL_SLOT, 10)
    await wait_all_tasks_blocked()
    assert transport.asked == [(SMALL_SLOT, SMALL_SLOT)], "it is tried again"
    transport.answer()


async def test_what_a_slow_disk_expects_leaves_the_others_their_slots(
    nursery: trio.Nursery,
) -> None:
    cache = BlockCache(0)
    slow, slow_transport = new_disk(cache)
    for number in range(50):
        slow.expect(number * SMALL_SLOT, 1)
    assert len(slow_transport.waiting) == slow.in_flight == MAX_IN_FLIGHT
    readers = await fill(nursery, cache, SMALL_SLOT, SMALL_SLOTS - MAX_IN_FLIGHT)
    end(readers)  # each checks its bytes
    slow_transport.answer_all()


async def test_what_is_expected_finds_no_room_without_a_word(nursery: trio.Nursery) -> None:
    cache = BlockCache(0)
    held = await fill(nursery, cache, SMALL_SLOT, SMALL_SLOTS)
    disk, transport = new_disk(cache)
    disk.expect(0, 5 * SMALL_SLOT)
    assert transport.asked == []
    end(held)
    await wait_all_tasks_blocked()
    disk.expect(0, 5 * SMALL_SLOT)
    assert transport.asked == [(0, 4 * SMALL_SLOT), (4 * SMALL_SLOT, SMALL_SLOT)]
    transport.answer_all()


async def test_a_disk_is_its_own_map() -> None:
    disk, _ = new_disk(BlockCache(0))
    assert await disk.map(1000, 5000) == [Piece(disk, 1000, 5000)]
