"""Files' bytes through the cache, with a guest that says where they lie and disks that answer late.

The expected bytes are put together from the same layout by slicing: a plain model without a cache.
"""

import random
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from restorefs.block.base import BlockDevice, Piece, Window
from restorefs.block.cache import BlockCache, CachedDisk
from restorefs.errors import DamagedError, NotFoundError, StorageError
from restorefs.guestfs.base import (
    DEFAULT_OPTIONS,
    Attributes,
    Extent,
    GuestFilesystem,
    GuestOptions,
    Inode,
    Listing,
)
from restorefs.guestfs.limits import DEFAULT_LIMITS, Limits
from restorefs.session.filedata import UNIT, Data, FileReader
from tests.contracts.devices import MemoryDevice
from tests.contracts.transports import PromptTransport, ScriptedTransport

KIB = 1 << 10
DISK = random.Random(1).randbytes((6 << 20) + 512)
SECOND_DISK = random.Random(2).randbytes(1 << 20)


class Part(NamedTuple):
    """A run of a file: where it lies on the volume, or `hole`, or `encoded`."""

    where: int | str
    length: int


class Layout:
    """A file, as runs in order."""

    def __init__(self, *parts: Part, volume: bytes = DISK) -> None:
        self.parts = parts
        pieces = []
        for number, (where, length) in enumerate(parts):
            if isinstance(where, int):
                pieces.append(volume[where : where + length])
            elif where == "hole":
                pieces.append(bytes(length))
            else:
                pieces.append(bytes([number % 255 + 1]) * length)
        self.content = b"".join(pieces)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        begin = 0
        for where, size in self.parts:
            low, high = max(offset, begin), min(offset + length, begin + size)
            if low < high:
                at = where + low - begin if isinstance(where, int) else None
                yield Extent(at, high - low, where == "encoded")
            begin += size


class Guest(GuestFilesystem):
    """A file system that has nothing but the layouts of files, by inode."""

    kinds = ()
    root = 2

    def __init__(self, *layouts: Layout) -> None:
        self.files = dict(enumerate(layouts, 10))
        self.decoded: list[tuple[int, int]] = []
        self.short = 0

    def _file(self, inode: Inode) -> Layout:
        if inode not in self.files:
            raise NotFoundError(f"no inode {inode}")
        return self.files[inode]

    async def attributes(self, inode: Inode) -> Attributes:
        size = len(self._file(inode).content)
        return Attributes(inode, 0o100644, 1, 0, 0, 0, size, 0, 0, 0, 0)

    async def map(self, inode: Inode, offset: int, length: int) -> list[Extent]:
        await trio.lowlevel.checkpoint()
        assert length > 0
        assert 0 <= offset <= offset + length <= len(self._file(inode).content)
        return list(self._file(inode).extents(offset, length))

    async def read_encoded(self, inode: Inode, offset: int, length: int) -> bytes:
        await trio.lowlevel.checkpoint()
        self.decoded.append((offset, length))
        return self._file(inode).content[offset : offset + length - self.short]

    @classmethod
    async def probe(cls, device: BlockDevice) -> None:
        raise NotImplementedError

    @classmethod
    async def open(
        cls,
        device: BlockDevice,
        options: GuestOptions = DEFAULT_OPTIONS,
        limits: Limits = DEFAULT_LIMITS,
    ) -> "Guest":
        raise NotImplementedError

    async def lookup(self, folder: Inode, name: bytes) -> Inode:
        raise NotImplementedError

    async def readdir(self, folder: Inode, cookie: int = 0) -> Listing:
        raise NotImplementedError

    async def readlink(self, inode: Inode) -> bytes:
        raise NotImplementedError

    async def xattrs(self, inode: Inode) -> Mapping[bytes, bytes]:
        raise NotImplementedError


class Joined(BlockDevice):
    """A volume that lies on two disks, with a stretch between that is stored nowhere."""

    GAP = 100_000

    def __init__(self, first: BlockDevice, second: BlockDevice, gap: int = GAP) -> None:
        self.disks = ((0, first), (first.size + gap, second))
        self.size = first.size + gap + second.size

    async def _read(self, offset: int, length: int) -> bytes:
        raise NotImplementedError

    async def map(self, offset: int, length: int) -> list[Piece]:
        self.check_range(offset, length)
        pieces = []
        position, end = offset, offset + length
        while position < end:
            for begin, disk in self.disks:
                if begin <= position < begin + disk.size:
                    stop = min(end, begin + disk.size)
                    pieces += await disk.map(position - begin, stop - position)
                    break
            else:
                stop = min(end, self.disks[1][0])
                pieces.append(Piece(None, 0, stop - position))
            position = stop
        return pieces


class World(NamedTuple):
    """Files of a guest on a disk, in the smallest cache there is."""

    guest: Guest
    files: FileReader
    transport: PromptTransport
    cache: BlockCache

    async def check(self, offset: int, length: int, inode: Inode = 10) -> Data:
        """Read, and compare with the model."""
        data = await self.files.read(inode, offset, length)
        expected = self.guest.files[inode].content[offset : offset + length]
        assert bytes(data) == expected, f"{len(expected)} bytes at {offset}"
        return data


@asynccontextmanager
async def world(*layouts: Layout, seed: int = 0) -> AsyncGenerator[World, None]:
    chance = random.Random(seed)
    async with trio.open_nursery() as nursery:
        transport = PromptTransport(DISK, chance)
        nursery.start_soon(transport.serve)
        cache = BlockCache(0)
        guest = Guest(*layouts)
        yield World(guest, FileReader(guest, CachedDisk(cache, transport)), transport, cache)
        nursery.cancel_scope.cancel()


def contiguous(size: int, at: int = 123 * KIB) -> Layout:
    return Layout(Part(at, size))


def scattered(size: int, seed: int) -> Layout:
    """A file of everything: short and long runs, holes, decoded runs."""
    chance = random.Random(seed)
    parts = []
    while size:
        length = min(size, chance.choice((1, 100, 512, 4096, 5000, 70_000, 300_000, UNIT)))
        where = chance.choice(("hole", "encoded", *[chance.randrange(len(DISK) - length)] * 6))
        parts.append(Part(where, length))
        size -= length
    return Layout(*parts)


SIZES = (
    0, 1, 4095, 4096, 4097, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 300_000,
    UNIT - 1, UNIT, UNIT + 1, 2 * UNIT, 2 * UNIT + 12_345, 3 * UNIT,
)  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
async def test_reads_at_both_ends_and_past_the_end(size: int) -> None:
    async with world(contiguous(size), scattered(size, size)) as w:
        for inode in (10, 11):
            for offset in (0, 1, size // 2, max(size - 4096, 0), max(size - 1, 0)):
                for length in (0, 1, 4096, 100_000, UNIT):
                    await w.check(offset, length, inode)
            for offset in (size, size + 1, size + 10 * UNIT):
                assert await w.files.read(inode, offset, 4096) == b""


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("step", [4096, 128 * KIB, 99_999, UNIT])
async def test_a_file_from_start_to_end(size: int, step: int) -> None:
    async with world(contiguous(size), scattered(size, size)) as w:
        for inode in (10, 11):
            for offset in range(0, size, step):
                await w.check(offset, step, inode)


async def test_a_file_from_end_to_start() -> None:
    size = 3 * UNIT + 5000
    async with world(contiguous(size), scattered(size, 5)) as w:
        for inode in (10, 11):
            for offset in reversed(range(0, size, 64 * KIB)):
                await w.check(offset, 64 * KIB, inode)


async def test_readers_side_by_side_in_a_small_cache() -> None:
    """Some read the same file in order, as the kernel's read-ahead does, some here and there; the
    cache has fewer slots than they want together."""
    layouts = [contiguous(3 * UNIT + n * 777, n * 50_001) for n in range(12)]
    layouts += [scattered(2 * UNIT, n) for n in range(4)]
    async with world(*layouts) as w:

        async def stream(inode: Inode, begin: int, step: int, length: int) -> None:
            for offset in range(begin, len(w.guest.files[inode].content), step):
                await w.check(offset, length, inode)

        async def wander(inode: Inode) -> None:
            chance = random.Random(inode)
            for _ in range(50):
                offset = chance.randrange(len(w.guest.files[inode].content))
                await w.check(offset, chance.choice((10, 4096, 70_000, UNIT)), inode)

        async with trio.open_nursery() as nursery:
            for inode in w.guest.files:
                nursery.start_soon(stream, inode, 0, 256 * KIB, 128 * KIB)
                nursery.start_soon(stream, inode, 128 * KIB, 256 * KIB, 128 * KIB)
                nursery.start_soon(stream, inode, 0, UNIT, UNIT)
                nursery.start_soon(wander, inode)


@st.composite
def files(draw: st.DrawFn) -> Layout:
    lengths = st.one_of(
        st.integers(1, 9000),
        st.sampled_from((512, 4096, 64 * KIB, UNIT)),
        st.integers(60 * KIB, 70 * KIB),
        st.integers(UNIT - 5000, UNIT + 5000),
    )
    parts = []
    for length in draw(st.lists(lengths, min_size=1, max_size=8)):
        offset = st.integers(0, len(DISK) - length)
        aligned = offset.map(lambda at: at - at % 4096)
        stored = st.sampled_from(("hole", "encoded"))
        where: int | str = draw(st.one_of(offset, aligned, stored))
        parts.append(Part(where, length))
    return Layout(*parts)


@settings(max_examples=60)
@given(files(), st.data())
async def test_any_layout_reads_right(layout: Layout, data: st.DataObject) -> None:
    size = len(layout.content)
    near = st.integers(-2, 2)
    borders = [0, size]
    for part in layout.parts:
        borders.append(borders[-2 if len(borders) == 2 else -1] + part.length)
    positions = st.one_of(
        st.integers(0, size + 10),
        st.builds(lambda at, by: max(at + by, 0), st.sampled_from(borders), near),
    )
    lengths = st.one_of(st.integers(0, UNIT), st.sampled_from((1, 4096, 128 * KIB, UNIT)))
    reads = data.draw(st.lists(st.tuples(positions, lengths), max_size=12))
    async with world(layout) as w:
        for offset, length in reads:
            await w.check(offset, length)
        async with trio.open_nursery() as nursery:
            for offset, length in reads:
                nursery.start_soon(w.check, offset, length)


# How it is read


async def test_one_run_is_sent_from_its_slot() -> None:
    """Without a copy; small, random and sequential alike."""
    async with world(contiguous(3 * UNIT, 0), contiguous(5000, 8192)) as w:
        views = [
            await w.check(2 * UNIT + 100, 5000),
            await w.check(1000, 4000, 11),
            *[await w.check(offset, 128 * KIB) for offset in range(0, 3 * UNIT, 128 * KIB)],
        ]
        slots = {id(slot.view.obj) for slot in w.transport.slots}
        for view in views:
            assert isinstance(view, memoryview)
            assert id(view.obj) in slots


async def test_a_random_read_loads_little() -> None:
    async with world(contiguous(3 * UNIT, 0)) as w:
        await w.check(2 * UNIT + 4096 * 3, 4096)
        assert w.transport.asked == [(2 * UNIT + 4096 * 3, 4096)]
        await w.check(5000, 3000)
        assert w.transport.asked[1:] == [(4096, 4096)]


async def test_a_small_file_is_read_with_its_neighbours() -> None:
    async with world(*[contiguous(1000, number * 4096) for number in range(16)]) as w:
        for inode in w.guest.files:
            await w.check(0, 4096, inode)
        assert w.transport.asked == [(0, 64 * KIB)]


async def test_a_stream_is_loaded_in_whole_units_ahead_of_its_reader() -> None:
    size = 5 * UNIT
    async with world(contiguous(size, 4096)) as w:
        for offset in range(0, UNIT, 128 * KIB):
            await w.check(offset, 128 * KIB)
        ahead = {at for at, length in w.transport.asked if length == UNIT}
        assert ahead == {4096 + number * UNIT for number in range(5)}
        before = len(w.transport.asked)
        for offset in range(UNIT, size, 128 * KIB):
            await w.check(offset, 128 * KIB)
        assert len(w.transport.asked) == before


def long(units: int) -> Layout:
    """A file whose every unit lies elsewhere on the disk."""
    return Layout(*(Part(number * 4096, UNIT) for number in range(units)))


async def test_a_stream_in_whole_units_uses_few_slots() -> None:
    units = 40
    async with world(long(units)) as w:
        for times in (1, 2):
            for offset in range(0, units * UNIT, UNIT):
                await w.check(offset, UNIT)
            # Each is loaded once on the way, but for the two before this was known for a stream.
            assert len(w.transport.asked) == units + (times - 1) * (units - 2)
        assert len(w.transport.slots) <= 8, "those two, the one that is sent, and those ahead"


async def test_a_stream_in_whole_units_leaves_what_others_have_read() -> None:
    units = 40
    async with world(long(units), contiguous(3 * UNIT, UNIT)) as w:
        for offset in range(0, 3 * UNIT, 200_000):
            await w.check(offset, 100_000, 11)
        others = list(w.transport.asked)
        for offset in range(0, units * UNIT, UNIT):
            await w.check(offset, UNIT)
        assert len(w.transport.asked) == len(others) + units
        for offset in range(0, 3 * UNIT, 200_000):
            await w.check(offset, 100_000, 11)
        assert len(w.transport.asked) == len(others) + units


async def test_a_unit_that_was_sent_in_part_is_still_there() -> None:
    units = 12
    async with world(long(units)) as w:
        for offset in range(0, units * UNIT, UNIT):
            await w.check(offset, UNIT - 4096)
            before = len(w.transport.asked)
            await w.check(offset + UNIT - 4096, 4096)
            if offset >= 2 * UNIT:  # until then nobody knows that this is a stream
                assert len(w.transport.asked) == before
        asked = w.transport.asked
        assert len(set(asked)) == len(asked)


async def test_readers_of_one_long_file_in_whole_units() -> None:
    """What one of them has sent and forgotten, another may wait for, or ask for again."""
    units = 20
    async with world(long(units)) as w:

        async def stream(begin: int) -> None:
            for offset in range(begin, units * UNIT, UNIT):
                await w.check(offset, UNIT)

        async with trio.open_nursery() as nursery:
            for reader in range(8):
                nursery.start_soon(stream, reader % 4 * UNIT)


async def test_holes_ask_for_nothing() -> None:
    async with world(Layout(Part("hole", 3 * UNIT))) as w:
        for offset in range(0, 3 * UNIT, 100_000):
            await w.check(offset, UNIT)
        assert len(await w.files.read(10, 0, 3 * UNIT)) == 3 * UNIT
        assert w.transport.asked == []


async def test_encoded_runs_are_decoded_by_their_reader_only_where_asked() -> None:
    async with world(Layout(Part(0, 5000), Part("encoded", 9000), Part("hole", 100))) as w:
        await w.check(4000, 3000)
        assert w.guest.decoded == [(5000, 2000)]


async def test_a_decoder_that_falls_short_is_damage() -> None:
    async with world(Layout(Part("encoded", 9000))) as w:
        w.guest.short = 1
        with pytest.raises(DamagedError, match="4095 bytes instead of 4096"):
            await w.files.read(10, 0, 4096)


async def test_files_on_a_part_of_a_disk() -> None:
    start, size = 1000 * 512, 5 * UNIT
    volume = DISK[start : start + size]
    layout = Layout(Part(100_000, 2 * UNIT + 100), Part(77, 5000), volume=volume)
    async with world() as w:
        guest = Guest(layout)
        device = Window(CachedDisk(w.cache, w.transport), start, size)
        part = w._replace(guest=guest, files=FileReader(guest, device))
        for offset in range(0, len(layout.content), 100_000):
            await part.check(offset, 100_000)


async def test_files_across_two_disks() -> None:
    volume = DISK + bytes(Joined.GAP) + SECOND_DISK
    border = len(DISK)
    layouts = [
        Layout(Part(border - 3000, 6000), volume=volume),
        Layout(Part(border - UNIT, 2 * UNIT + Joined.GAP), volume=volume),
        Layout(Part(border - UNIT // 2, UNIT + 300_000), volume=volume),
        Layout(Part(border + 10, 5000), volume=volume),
    ]
    async with world() as w, trio.open_nursery() as nursery:
        second = PromptTransport(SECOND_DISK, random.Random(3))
        nursery.start_soon(second.serve)
        joined = Joined(CachedDisk(w.cache, w.transport), CachedDisk(w.cache, second))
        guest = Guest(*layouts)
        both = w._replace(guest=guest, files=FileReader(guest, joined))
        for inode, layout in guest.files.items():
            for offset in range(0, len(layout.content), 100_000):
                await both.check(offset, 128 * KIB, inode)
            await both.check(0, len(layout.content), inode)
        nursery.cancel_scope.cancel()


async def test_an_extent_outside_of_the_volume_is_damage() -> None:
    layout = contiguous(10_000, len(DISK) - 5000)
    layout.content += bytes(5000)
    async with world(layout) as w:
        await w.check(0, 5000)
        with pytest.raises(DamagedError, match="outside"):
            await w.files.read(10, 4000, 2000)


async def test_bytes_that_cannot_be_read_are_an_error_never_zeros() -> None:
    transport = ScriptedTransport(DISK)
    guest = Guest(scattered(3 * UNIT, 1))
    files = FileReader(guest, CachedDisk(BlockCache(0), transport))
    failed = trio.Event()

    async def read() -> None:
        with pytest.raises(StorageError, match="bad sector"):
            await files.read(10, 0, UNIT)
        failed.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        transport.fail(StorageError("bad sector"), len(transport.waiting) - 1)
        while not failed.is_set():
            while len(transport.waiting) > 1:
                transport.answer()
            transport.fail(StorageError("bad sector"))
            await trio.testing.wait_all_tasks_blocked()


async def test_a_file_that_is_not_there() -> None:
    async with world() as w:
        with pytest.raises(NotFoundError):
            await w.files.read(99, 0, 1)


async def test_bytes_that_a_device_computes_are_read_from_it() -> None:
    border = len(DISK)
    volume = DISK + bytes(Joined.GAP) + SECOND_DISK
    across = Layout(Part(border - 5000, 5000 + Joined.GAP + 70_000), volume=volume)
    async with world() as w:
        joined = Joined(CachedDisk(w.cache, w.transport), MemoryDevice(SECOND_DISK))
        guest = Guest(scattered(3 * UNIT, 1), across, Layout(Part(border, 2 * UNIT), volume=volume))
        both = w._replace(guest=guest, files=FileReader(guest, joined))
        for inode, layout in guest.files.items():
            await both.check(0, len(layout.content), inode)
            for offset in range(0, len(layout.content), 70_000):
                await both.check(offset, 100_000, inode)


class Missing(BlockDevice):
    """A disk that is not there."""

    size = len(SECOND_DISK)

    async def _read(self, offset: int, length: int) -> bytes:
        raise NotImplementedError

    async def map(self, offset: int, length: int) -> list[Piece]:
        raise StorageError("its disk is missing")


async def test_what_lies_before_a_missing_part_is_readable() -> None:
    border = len(DISK)
    layout = Layout(Part(border - 3 * UNIT - 5000, 4 * UNIT), volume=DISK + bytes(2 * UNIT))
    async with world() as w:
        joined = Joined(CachedDisk(w.cache, w.transport), Missing(), gap=0)
        guest = Guest(layout)
        both = w._replace(guest=guest, files=FileReader(guest, joined))
        end = 3 * UNIT + 5000
        for offset in range(0, end, 100_000):
            await both.check(offset, min(100_000, end - offset))
        with pytest.raises(StorageError, match="its disk is missing"):
            await both.files.read(10, end - 100, 200)


async def test_what_lies_before_damage_is_readable() -> None:
    """Also by a stream, which looks ahead."""
    end = 3 * UNIT + 5000

    class Damaged(Guest):
        async def map(self, inode: Inode, offset: int, length: int) -> list[Extent]:
            if offset + length > end:
                raise DamagedError("an extent block is damaged")
            return await super().map(inode, offset, length)

    async with world() as w:
        guest = Damaged(contiguous(5 * UNIT, 0))
        both = w._replace(guest=guest, files=FileReader(guest, CachedDisk(w.cache, w.transport)))
        for offset in range(0, end, 100_000):
            await both.check(offset, min(100_000, end - offset))
        with pytest.raises(DamagedError, match="extent block"):
            await both.files.read(10, end - 100, 200)
