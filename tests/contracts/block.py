"""What every BlockDevice must do, whatever is behind it.

Subclass BlockDeviceContract in a test module (named Test...), and give a fixture `device` that
holds just the bytes of the fixture `content`. Owns only what the seam in restorefs/block/base.py
promises.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import pytest
import trio

from restorefs.block.base import BlockDevice
from restorefs.errors import DamagedError

LENGTHS = (0, 1, 511, 512, 513, 4095, 4096, 65_535, 65_536, 65_537, 200_000)


def ranges(size: int) -> Iterator[tuple[int, int]]:
    """Yield offsets and lengths inside a device: at both ends, and some hundred between."""
    for length in (*LENGTHS, size):
        if length <= size:
            yield 0, length
            yield size - length, length
    chance = random.Random(size)
    for _ in range(200):
        offset = chance.randrange(size + 1)
        yield offset, chance.randrange(min(size - offset, chance.choice(LENGTHS)) + 1)


def outside(size: int) -> Sequence[tuple[int, int]]:
    """Return offsets and lengths that leave a device."""
    return (
        (-1, 0),
        (-1, 1),
        (-512, 1024),
        (0, -1),
        (size, -1),
        (size, 1),
        (size - 1, 2),
        (0, size + 1),
        (size + 1, 0),
        (size + 4096, 512),
        (1 << 63, 512),
        (0, 1 << 63),
    )


class BlockDeviceContract(ABC):
    """The suite; see the module's text."""

    @pytest.fixture
    def content(self) -> bytes:
        """Whole sectors, as images of disks have, but no whole slots of the cache."""
        return random.Random(1).randbytes(587 * 512)

    @abstractmethod
    def device(self, content: bytes) -> BlockDevice:
        """A fixture."""

    async def test_the_size_is_known(self, device: BlockDevice, content: bytes) -> None:
        assert device.size == len(content)

    async def test_reads_are_exact(self, device: BlockDevice, content: bytes) -> None:
        for offset, length in ranges(device.size):
            data = await device.read(offset, length)
            assert data == content[offset : offset + length], (offset, length)

    async def test_what_is_read_stays_as_it_was_read(
        self, device: BlockDevice, content: bytes
    ) -> None:
        first = await device.read(0, 4096)
        for offset in range(0, device.size - 4096, 4096):
            await device.read(offset, 4096)
        assert first == content[:4096]

    async def test_many_reads_at_once(self, device: BlockDevice, content: bytes) -> None:
        async def check(offset: int, length: int) -> None:
            assert await device.read(offset, length) == content[offset : offset + length]

        async with trio.open_nursery() as nursery:
            for offset, length in ranges(device.size):
                nursery.start_soon(check, offset, length)

    async def test_a_read_outside_is_damage(self, device: BlockDevice) -> None:
        for offset, length in outside(device.size):
            with pytest.raises(DamagedError):
                await device.read(offset, length)

    async def test_what_is_expected_is_read_right(
        self, device: BlockDevice, content: bytes
    ) -> None:
        for offset, length in ranges(device.size):
            device.expect(offset, length)
            device.expect(device.size - length, length)
            assert await device.read(offset, length) == content[offset : offset + length]

    async def test_to_expect_what_lies_outside_does_nothing(
        self, device: BlockDevice, content: bytes
    ) -> None:
        for offset, length in outside(device.size):
            device.expect(offset, length)
        assert await device.read(0, device.size) == content

    async def test_places_are_read_one_behind_the_other(
        self, device: BlockDevice, content: bytes
    ) -> None:
        assert await device.read_through([]) == b""
        places = list(ranges(device.size))
        for chosen in ([place] for place in places):
            (offset, length), data = chosen[0], await device.read_through(chosen)
            assert data == content[offset : offset + length], chosen
        data = await device.read_through(places)
        assert data == b"".join(content[offset : offset + length] for offset, length in places)

    async def test_places_outside_are_damage(self, device: BlockDevice) -> None:
        for place in outside(device.size):
            with pytest.raises(DamagedError):
                await device.read_through([(0, 512), place])

    async def test_a_map_outside_is_damage(self, device: BlockDevice) -> None:
        for offset, length in outside(device.size):
            with pytest.raises(DamagedError):
                await device.map(offset, length)

    async def test_the_map_covers_the_range_exactly(
        self, device: BlockDevice, content: bytes
    ) -> None:
        for offset, length in ranges(device.size):
            found = b""
            for piece in await device.map(offset, length):
                if piece.disk is None:
                    found += bytes(piece.length)
                else:
                    found += await piece.disk.read(piece.offset, piece.length)
            assert found == content[offset : offset + length], (offset, length)
