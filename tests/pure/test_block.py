"""Devices over a file and over part of another device. The expected bytes are the file's."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from restorefs.block.base import BlockDevice, Piece, Window
from restorefs.block.file import FileDevice
from restorefs.errors import DamagedError, StorageError
from tests.contracts.block import BlockDeviceContract
from tests.contracts.devices import MemoryDevice


class TestFileDevice(BlockDeviceContract):
    @pytest.fixture
    def device(self, content: bytes, tmp_path: Path) -> Iterator[BlockDevice]:
        path = tmp_path / "disk"
        path.write_bytes(content)
        with FileDevice(path) as device:
            yield device

    async def test_a_file_that_was_cut_meanwhile_is_a_storage_error(
        self, device: FileDevice
    ) -> None:
        with device.path.open("r+b") as file:
            file.truncate(1000)
        with pytest.raises(StorageError, match="short read"):
            await device.read(0, 1001)
        assert len(await device.read(0, 1000)) == 1000


class TestWindow(BlockDeviceContract):
    @pytest.fixture
    def device(self, content: bytes) -> BlockDevice:
        return Window(MemoryDevice(b"before" * 100 + content + b"behind" * 100), 600, len(content))


class TestWindowOfAWindow(BlockDeviceContract):
    @pytest.fixture
    def device(self, content: bytes) -> BlockDevice:
        outer = Window(MemoryDevice(b"one" + b"two" + content + b"three"), 3, len(content) + 8)
        return Window(outer, 3, len(content))


async def test_a_window_maps_to_the_disk_below() -> None:
    disk = MemoryDevice(bytes(10_000))
    window = Window(Window(disk, 1000, 5000), 200, 300)
    assert await window.map(50, 100) == [Piece(disk, 1250, 100)]


@pytest.mark.parametrize(("start", "size"), [(-1, 10), (0, 101), (100, 1), (101, 0), (50, -1)])
def test_a_window_that_leaves_its_parent_is_damage(start: int, size: int) -> None:
    with pytest.raises(DamagedError):
        Window(MemoryDevice(bytes(100)), start, size)


async def test_a_window_may_be_empty() -> None:
    window = Window(MemoryDevice(bytes(100)), 100, 0)
    assert await window.read(0, 0) == b""
    with pytest.raises(DamagedError):
        await window.read(0, 1)
