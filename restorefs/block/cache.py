"""The block cache: a fixed number of slots that disks are read into and replies are sent from.

Owns all bulk memory of the daemon. libnbd's Python binding (1.14) leaks one reference to the
buffer of every read, so buffers are made once, over two anonymous mappings, and used for ever:
memory is bounded by the budget whatever is read. Must not know about formats or FUSE.

Two regions, so that a stream does not push the folders out: small slots (64 KiB) for metadata and
random reads, large ones (1 MiB) for streams. A slot is found again under exactly the range it was
loaded with (disk, offset, length); content never changes, so overlapping slots are harmless. Small
slots that are expected together come by one request, which fills a large one: most of what a
request takes is not its bytes.

Concurrency: one trio loop, no locks. The invariants:
- A slot is free, loading, ready or failed. Only a ready slot without pins is evicted; a failed one
  is forgotten at once, so that the next reader tries again, and free when its waiters have gone.
  Where several were loaded together, their waiters are the next readers, each of its own slot:
  nobody is told of an error in what he does not want.
- Whoever uses a slot's bytes across an await holds a pin. A view may be used without one only
  until the next await.
- A load belongs to the disk, not to the task that asked first: a cancelled reader leaves the load
  running, because libnbd writes into the slot until the server answers or the handle is closed.
- One disk has at most MAX_IN_FLIGHT loads, a quarter of them of several small slots; all those of
  all disks are into a quarter of the small slots. So a slow disk cannot hold every slot.
- A load is never begun from within the end of another one: the transport is busy then.
"""

import contextlib
import mmap
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias

import trio

from restorefs.block.base import BlockDevice, ByteLength, ByteOffset, Piece, Place
from restorefs.errors import RestoreError

PAGE = 4096
SMALL_SLOT = 64 << 10
LARGE_SLOT = 1 << 20
MAX_IN_FLIGHT = 16
_TOGETHER = MAX_IN_FLIGHT // 4
"""How many of those may be of several small slots."""
_LOAD_SINGLY = RestoreError("it was read together with others")
"""Why a slot was not loaded whose neighbour may be to blame."""

Key: TypeAlias = tuple[int, ByteOffset, ByteLength]
Done: TypeAlias = Callable[[RestoreError | None], None]


class Slot:
    """A fixed piece of memory. `buffers` holds what the transport made of it, by length."""

    __slots__ = ("buffers", "error", "key", "loaded", "pins", "view")

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.buffers: dict[int, Any] = {}
        self.key: Key | None = None
        self.pins = 0
        self.loaded: trio.Event | None = None
        self.error: RestoreError | None = None


class Transport(Protocol):
    """What fills slots: a connection to the server of one disk."""

    size: ByteLength

    def submit(self, slot: Slot, offset: ByteOffset, length: ByteLength, done: Done) -> None:
        """Start to read into the slot's first `length` bytes; call `done` exactly once and later,
        from the loop, with what went wrong or None. Raises nothing."""


class _Region:
    """Slots of one size, with what they hold in the order of use; those that failed are in neither
    while somebody waits for them."""

    def __init__(self, slot_size: int, count: int, advice: int) -> None:
        """advice: for madvise(2), about huge pages."""
        arena = mmap.mmap(-1, slot_size * count, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # a kernel without huge pages only takes more faults
            arena.madvise(advice)
        memory = memoryview(arena)
        self.free = [Slot(memory[i * slot_size :][:slot_size]) for i in range(count)]
        self.held: OrderedDict[Key, Slot] = OrderedDict()

    def take(self, key: Key) -> Slot | None:
        """Return an unused slot, evicting the least recently used one that nobody pins."""
        if self.free:
            slot = self.free.pop()
        else:
            victim = next((k for k, s in self.held.items() if s.pins == 0), None)
            if victim is None:
                return None
            slot = self.held.pop(victim)
        slot.key, slot.error = key, None
        self.held[key] = slot
        return slot

    def give_back(self, slot: Slot) -> None:
        """Have a slot free that was taken, and that nobody pins."""
        assert slot.key is not None
        del self.held[slot.key]
        self.free.append(slot)


class BlockCache:
    """All slots of the daemon."""

    def __init__(self, budget: ByteLength = 256 << 20) -> None:
        """Map `budget` bytes, half of it small slots; memory is used as slots are.

        A stream drops what it has passed, so that a few large slots serve it; the metadata of a
        large folder is read more than once, and is in the small ones the next time if it fits.
        """
        # A listing uses many small slots for the first time, and some of them for one page: the
        # kernel's clearing of huge pages was a fifth of its time.
        small, huge = mmap.MADV_NOHUGEPAGE, mmap.MADV_HUGEPAGE
        small_slots = max(64, budget // 2 // SMALL_SLOT)
        self._grouped = 0  # small slots that are loaded together with others now
        self._most_grouped = small_slots // 4
        self._small = _Region(SMALL_SLOT, small_slots, small)
        self._most_together = min(LARGE_SLOT // SMALL_SLOT, self._most_grouped // _TOGETHER)
        self._large = _Region(LARGE_SLOT, max(32, budget // 2 // LARGE_SLOT), huge)
        self._room = trio.lowlevel.ParkingLot()
        self._serial = 0
        self.hits = 0
        self.misses = 0

    def next_serial(self) -> int:
        """Return a number that names a disk in keys and is never used again."""
        self._serial += 1
        return self._serial

    async def pin(self, disk: "CachedDisk", offset: ByteOffset, length: ByteLength) -> Slot:
        """Return a slot that holds the range, pinned: the caller unpins it.

        Raises what the transport failed with.
        """
        region = self._region(length)
        key = (disk.serial, offset, length)
        while True:
            slot = region.held.get(key) or self._load(disk, region, key)
            if slot is None:
                await self._room.park()
                continue
            slot.pins += 1
            if slot.loaded is None:
                region.held.move_to_end(key)
                self.hits += 1
                return slot
            try:
                await slot.loaded.wait()
            except BaseException:
                self.unpin(slot)
                raise
            error = slot.error
            if error is None:
                return slot
            self.unpin(slot)
            if error is not _LOAD_SINGLY:
                raise type(error)(*error.args)

    def prefetch(self, disk: "CachedDisk", offset: ByteOffset, length: ByteLength) -> bool:
        """Start to load a range unless it is there; False when there is no room to."""
        region = self._region(length)
        key = (disk.serial, offset, length)
        return key in region.held or self._load(disk, region, key) is not None

    def expect(self, disk: "CachedDisk", offset: ByteOffset, length: ByteLength) -> None:
        """Start to load the small slots of a range that are not there, as far as there is room."""
        start, end = offset - offset % SMALL_SLOT, offset + length
        while start < end:
            count = 0
            while count < self._most_together and self._lacks(
                disk, start + count * SMALL_SLOT, end
            ):
                count += 1
            if count > 1 and disk.together == _TOGETHER:
                break
            if count > 1 and self._load_together(disk, start, count):
                start += count * SMALL_SLOT
            elif self.prefetch(disk, start, min(SMALL_SLOT, disk.size - start)):
                start += SMALL_SLOT
            else:
                break

    def _lacks(self, disk: "CachedDisk", start: ByteOffset, end: ByteOffset) -> bool:
        """Tell whether a small slot begins before an end, is whole, and is not there."""
        if start >= end or start + SMALL_SLOT > disk.size:
            return False
        return (disk.serial, start, SMALL_SLOT) not in self._small.held

    def _load(self, disk: "CachedDisk", region: _Region, key: Key) -> Slot | None:
        """Start to read into a free slot; None when there is no room for another load."""
        if disk.in_flight >= MAX_IN_FLIGHT or (slot := region.take(key)) is None:
            return None
        self.misses += 1
        self._begin(slot)
        self._fill(disk, slot, key, partial(self._end, slot))
        return slot

    def _load_together(self, disk: "CachedDisk", start: ByteOffset, count: int) -> bool:
        """Start to read neighbours, none of which is there, into small slots by one request; False
        when there is no room for all of them."""
        if disk.in_flight >= MAX_IN_FLIGHT or self._grouped + count > self._most_grouped:
            return False
        key = (disk.serial, start, count * SMALL_SLOT)
        carrier = self._large.take(key) if key not in self._large.held else None
        if carrier is None:
            return False
        parts: list[Slot] = []
        for offset in range(start, start + count * SMALL_SLOT, SMALL_SLOT):
            part = self._small.take((disk.serial, offset, SMALL_SLOT))
            if part is None:
                self._large.give_back(carrier)
                for taken in parts:
                    self._end(taken, _LOAD_SINGLY)
                return False
            self._begin(part)
            parts.append(part)
        self.misses += count
        self._begin(carrier)
        disk.together += 1
        self._grouped += count
        self._fill(disk, carrier, key, partial(self._share_out, disk, carrier, parts))
        return True

    def _share_out(
        self, disk: "CachedDisk", carrier: Slot, parts: Sequence[Slot], error: RestoreError | None
    ) -> None:
        """Let small slots have what was read for them all, and the carrier be used again."""
        disk.together -= 1
        self._grouped -= len(parts)
        for number, part in enumerate(parts):
            if error is None:
                part.view[:] = carrier.view[number * SMALL_SLOT :][:SMALL_SLOT]
            self._end(part, None if error is None else _LOAD_SINGLY)
        self._end(carrier, error)
        self.drop(carrier)

    def _begin(self, slot: Slot) -> None:
        slot.loaded = trio.Event()
        slot.pins += 1  # the load's own

    def _fill(self, disk: "CachedDisk", slot: Slot, key: Key, then: Done) -> None:
        """Read what the key says into a slot, and tell `then` of it."""
        _, offset, length = key
        disk.in_flight += 1

        def done(error: RestoreError | None) -> None:
            disk.in_flight -= 1
            if error is None:
                disk.bytes_read += length
            then(error)
            self._room.unpark_all()  # the disk may load more, even while this slot is pinned

        disk.transport.submit(slot, offset, length, done)

    def _end(self, slot: Slot, error: RestoreError | None) -> None:
        """Let those go on who wait for a slot."""
        loaded = slot.loaded
        assert loaded is not None
        assert slot.key is not None
        if error is None:
            slot.loaded = None
        else:
            slot.error = error
            del self._region(len(slot.view)).held[slot.key]
        loaded.set()
        self.unpin(slot)

    def _region(self, length: ByteLength) -> _Region:
        return self._small if length <= SMALL_SLOT else self._large

    def drop(self, slot: Slot) -> None:
        """Forget what an unpinned slot holds, so that it is the next to be used: for a stream's
        megabyte that was sent whole, which the reader's own cache has now. Its bytes stay as they
        are until the next await."""
        if slot.pins == 0 and slot.key is not None:
            region = self._region(len(slot.view))
            if region.held.get(slot.key) is slot:
                region.give_back(slot)

    def unpin(self, slot: Slot) -> None:
        """Give back a pin."""
        slot.pins -= 1
        if slot.pins == 0:
            if slot.error is not None:
                self._region(len(slot.view)).free.append(slot)
            if self._room:
                self._room.unpark_all()


class CachedDisk(BlockDevice):
    """An attached disk, read through the cache."""

    def __init__(self, cache: BlockCache, transport: Transport) -> None:
        self.cache = cache
        self.transport = transport
        self.size = transport.size
        self.serial = cache.next_serial()
        self.in_flight = 0
        self.together = 0
        """Loads in flight that are of several small slots."""
        self.bytes_read = 0

    async def map(self, offset: ByteOffset, length: ByteLength) -> list[Piece]:
        self.check_range(offset, length)
        return [Piece(self, offset, length)]

    def _expect(self, offset: ByteOffset, length: ByteLength) -> None:
        self.cache.expect(self, offset, length)

    async def _read(self, offset: ByteOffset, length: ByteLength) -> bytes:
        """Read metadata: in aligned small slots, because its neighbours are wanted next."""
        if length == 0:
            return b""
        first = offset - offset % SMALL_SLOT
        if offset + length <= first + SMALL_SLOT:
            return await self._from_slot(first, offset, length)
        self.expect(offset, length)
        parts = []
        for start in range(first, offset + length, SMALL_SLOT):
            begin = max(offset, start)
            end = min(offset + length, start + SMALL_SLOT)
            parts.append(await self._from_slot(start, begin, end - begin))
        return b"".join(parts)

    async def read_through(self, places: Sequence[Place]) -> bytes:
        """Read all places at once: what is long in large slots, which are free again then; what is
        short as metadata, because its neighbours may be wanted next."""
        loads: list[_Load] = []
        for offset, length in places:
            self.check_range(offset, length)
            loads += _cut(offset, length, self.size)
        for load in loads:
            if not self.cache.prefetch(self, load.start, load.length):
                break
        parts = []
        for load in loads:
            slot = await self.cache.pin(self, load.start, load.length)
            parts.append(bytes(slot.view[load.skip : load.skip + load.wanted]))
            self.cache.unpin(slot)
            if load.passes:
                self.cache.drop(slot)
        return b"".join(parts)

    async def _from_slot(self, start: ByteOffset, offset: ByteOffset, length: ByteLength) -> bytes:
        slot = await self.cache.pin(self, start, min(SMALL_SLOT, self.size - start))
        data = bytes(slot.view[offset - start : offset - start + length])
        self.cache.unpin(slot)
        return data


class _Load(NamedTuple):
    """A range to have in a slot; the wanted bytes begin `skip` bytes into it. `passes`: nobody
    else is likely to want it."""

    start: ByteOffset
    length: ByteLength
    skip: int
    wanted: ByteLength
    passes: bool


def _cut(offset: ByteOffset, length: ByteLength, size: ByteLength) -> Iterator[_Load]:
    """Cut a range of a disk of `size` bytes into loads. Their lengths are few different ones, as
    a slot has a buffer for each that it ever had (as it has for each number of small slots)."""
    end = offset + length
    large = length > SMALL_SLOT
    while offset < end:
        start = offset - offset % (PAGE if large else SMALL_SLOT)
        span = SMALL_SLOT
        while large and 2 * span <= min(end - start, LARGE_SLOT):
            span *= 2
        span = min(span, size - start)
        wanted = min(end, start + span) - offset
        yield _Load(start, span, offset - start, wanted, passes=large)
        offset += wanted
