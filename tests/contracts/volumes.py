"""What every VolumeScheme must do, whatever its format.

Subclass VolumeSchemeContract in a test module of the scheme (named Test...), say which scheme is
meant, and list sound disks that use it. Owns only what the seam in restorefs/volumes/base.py
promises.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from typing import ClassVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from restorefs.block.base import BlockDevice
from restorefs.errors import RestoreError
from restorefs.volumes.base import VolumeScheme, VolumeTable
from tests.contracts.devices import MemoryDevice, MeteredDevice
from tests.images.signatures import SAMPLES

# Far above what any table takes: a chain of 256 boot records, and arrays of some MiB.
READS = 1000
LENGTH = 64 << 20


@cache
def used_places(content: bytes) -> Sequence[int]:
    """Return the offsets of the disk's pieces of 16 bytes that are not all zero."""
    return [at for at in range(0, len(content), 16) if any(content[at : at + 16])]


async def check_table(table: VolumeTable, disk: BlockDevice) -> None:
    """Assert what holds for every table, damaged ones too."""
    assert table.sector_size in (512, 4096)
    indexes = [volume.index for volume in table.volumes]
    assert len(set(indexes)) == len(indexes)
    assert all(index > 0 for index in indexes)
    names = [volume.name for volume in table.volumes]
    assert len(set(names)) == len(names)
    for volume in table.volumes:
        assert volume.name
        assert b"/" not in volume.name
        assert (volume.device is None) == (volume.error is not None)
        if volume.device is not None:
            assert volume.device.size > 0
            pieces = await volume.device.map(0, volume.device.size)
            assert sum(piece.length for piece in pieces) == volume.device.size
            for piece in pieces:
                assert piece.offset >= 0
                assert piece.disk is None or piece.offset + piece.length <= piece.disk.size
            if volume.start is not None:
                assert pieces[0].offset == volume.start
                assert volume.start + volume.device.size <= disk.size


class VolumeSchemeContract(ABC):
    """The suite; see the module's text."""

    scheme: ClassVar[type[VolumeScheme]]

    @staticmethod
    @abstractmethod
    def disks() -> Sequence[bytes]:
        """Return sound disks that use the scheme, with a volume or more on each."""

    async def test_a_sound_disk_has_volumes_inside_it(self) -> None:
        for content in self.disks():
            disk = MemoryDevice(content)
            table = await self.scheme.read_table(disk)
            assert table is not None
            assert table.scheme == self.scheme.kind
            assert table.volumes
            assert all(volume.error is None for volume in table.volumes)
            await check_table(table, disk)

    async def test_volumes_are_the_same_each_time(self) -> None:
        for content in self.disks():
            tables = [await self.scheme.read_table(MemoryDevice(content)) for _ in range(2)]
            first, second = (
                [(v.name, v.index, v.start, v.uuid) for v in table.volumes]
                for table in tables
                if table is not None
            )
            assert first == second

    async def test_foreign_content_is_none(self) -> None:
        foreign = [bytes(size) for size in (0, 1, 511, 512, 513, 4096, 8192, 100_000)]
        foreign += [b"\xff" * 65536, bytes(range(256)) * 256]
        foreign += [sample.content for sample in SAMPLES]
        for content in foreign:
            assert await self.scheme.read_table(MemoryDevice(content)) is None

    @given(data=st.data())
    @settings(
        max_examples=200,
        suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
    )
    async def test_a_damaged_disk_gives_a_table_or_a_restore_error(
        self, data: st.DataObject
    ) -> None:
        sound = data.draw(st.sampled_from(self.disks()))
        used = used_places(sound)
        content = bytearray(sound)
        for _ in range(data.draw(st.integers(1, 6))):
            at = data.draw(st.sampled_from(used)) + data.draw(st.integers(0, 15))
            value = data.draw(st.binary(min_size=1, max_size=8))
            content[at : at + len(value)] = value
        if data.draw(st.integers(0, 9)) == 0:
            del content[data.draw(st.integers(0, len(content))) :]
        disk = MeteredDevice(bytes(content), READS, LENGTH)
        try:
            table = await self.scheme.read_table(disk)
        except RestoreError:
            return
        if table is not None:
            await check_table(table, disk)
