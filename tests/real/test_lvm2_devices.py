"""LVM2 volumes of each kind as BlockDevices. The SHA-256 of their content is the kernel's."""

import hashlib

import pytest

from restorefs.block.base import BlockDevice
from tests.contracts.block import BlockDeviceContract
from tests.images.lvm.stored import disks, said
from tests.real.lvm2_volumes import content_of, group_of, named


class VolumeContract(BlockDeviceContract):
    """A volume of a stored set, some disks of which are missing."""

    set_ = ""
    name = ""
    missing: frozenset[int] = frozenset()

    @pytest.fixture
    async def content(self) -> bytes:
        group = await group_of(disks(self.set_))
        content = await content_of(named(group, self.name))
        found = (len(content), hashlib.sha256(content).hexdigest())
        assert found == said(self.set_)[f"{group.name}/{self.name}"]
        return content

    @pytest.fixture
    async def device(self) -> BlockDevice:
        contents = [disk for n, disk in enumerate(disks(self.set_)) if n not in self.missing]
        device = named(await group_of(contents), self.name).device
        assert device is not None
        return device


class TestThin(VolumeContract):
    set_, name = "thin", "snap-of-snap"


class TestThinWithExternalOrigin(VolumeContract):
    set_, name = "thin", "with-external"


class TestSnapshot(VolumeContract):
    set_, name = "snapshots", "before"


class TestSnapshotWithTwoAreas(VolumeContract):
    set_, name = "snapshots", "many"


class TestRaid10WithoutTwo(VolumeContract):
    set_, name, missing = "raid", "raid10x6", frozenset({1, 4})


class TestRaid4WithoutOne(VolumeContract):
    set_, name, missing = "raid", "raid4", frozenset({0})


class TestRaid6WithoutTwo(VolumeContract):
    set_, name, missing = "raid", "raid6_nc", frozenset({1, 3})


class TestRaidThatIsRebuilt(VolumeContract):
    set_, name = "syncing", "rebuilt5"


class TestMoved(VolumeContract):
    set_, name = "others", "moved"
