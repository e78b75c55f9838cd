"""What every GroupScheme must do, whatever its format.

Subclass GroupSchemeContract in a test module of the scheme (named Test...), say which scheme is
meant, and list sound sets of members. Owns only what the seam in restorefs/volumes/groups.py
promises.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import pytest

from restorefs.block.base import BlockDevice
from restorefs.errors import DamagedError, RestoreError, StorageError
from restorefs.volumes.groups import Group, GroupScheme, GroupVolume
from tests.contracts.devices import MemoryDevice, WatchedDevice
from tests.images.signatures import SAMPLES

STEP = 1 << 20
SHOWN = 32 << 20
"""No more of a volume is read by a test: thin volumes may claim any size."""

Contents = Sequence[bytes]


async def groups_of(scheme: type[GroupScheme], contents: Contents) -> Sequence[Group]:
    """Return the groups on some devices, after checking what holds for all groups."""
    members = [await scheme.read_member(MemoryDevice(content)) for content in contents]
    groups = await scheme.assemble(members)
    for group in groups:
        await check_group(scheme, group)
    assert [group.uuid for group in groups] == sorted(group.uuid for group in groups)
    return groups


async def check_group(scheme: type[GroupScheme], group: Group) -> None:
    """Assert what holds for every group, damaged ones too."""
    assert group.scheme == scheme.kind
    assert group.present <= group.wanted
    uuids = [volume.uuid for volume in group.volumes]
    assert uuids == sorted(uuids)
    names = [volume.name for volume in group.volumes]
    assert len(set(names)) == len(names)
    for volume in group.volumes:
        assert volume.name not in (b"", b".", b"..")
        assert not set(b"/\0") & set(volume.name)
        assert volume.members <= group.wanted
        assert (volume.device is None) == (volume.error is not None)
        if volume.device is not None:
            assert volume.device.size > 0
            await check_map(volume.device)


async def check_map(device: BlockDevice) -> None:
    """Assert that a map covers what it should, or says why not."""
    length = min(device.size, SHOWN)
    try:
        pieces = await device.map(0, length)
    except RestoreError:
        return
    assert sum(piece.length for piece in pieces) == length
    for piece in pieces:
        assert piece.offset >= 0
        assert piece.length > 0
        assert piece.disk is None or piece.offset + piece.length <= piece.disk.size


async def digest(volume: GroupVolume) -> str:
    """Return the SHA-256 of a volume's first bytes, or the name of what it raises."""
    if volume.device is None:
        return _kind(volume.error)
    found = hashlib.sha256()
    length = min(volume.device.size, SHOWN)
    try:
        for at in range(0, length, STEP):
            found.update(await volume.device.read(at, min(STEP, length - at)))
    except RestoreError as error:
        return _kind(error)
    return found.hexdigest()


def _kind(error: RestoreError | None) -> str:
    """Return the name of an error's kind: what is missing is a kind of storage that fails."""
    return "StorageError" if isinstance(error, StorageError) else type(error).__name__


async def digests(groups: Sequence[Group]) -> dict[tuple[str, bytes], str]:
    """Return what each volume reads as, by group and name."""
    return {
        (group.uuid, volume.name): await digest(volume)
        for group in groups
        for volume in group.volumes
    }


class GroupSchemeContract(ABC):
    """The suite; see the module's text."""

    scheme: ClassVar[type[GroupScheme]]

    @staticmethod
    @abstractmethod
    def sets() -> Sequence[Contents]:
        """Return sound sets of devices, each of one group or more, none with a member missing."""

    async def test_a_sound_set_has_volumes_that_can_be_read(self) -> None:
        for contents in self.sets():
            groups = await groups_of(self.scheme, contents)
            assert groups
            for group in groups:
                assert group.volumes
                assert group.present == group.wanted
                assert group.name
                for volume in group.volumes:
                    assert volume.error is None, volume
                    assert len(await digest(volume)) == 64

    async def test_the_order_of_members_makes_no_difference(self) -> None:
        for contents in self.sets():
            there = await groups_of(self.scheme, contents)
            back = await groups_of(self.scheme, contents[::-1])
            assert [(g.uuid, g.name, g.wanted) for g in there] == [
                (g.uuid, g.name, g.wanted) for g in back
            ]
            assert await digests(there) == await digests(back)

    async def test_a_missing_member_changes_no_byte_and_hides_no_volume(self) -> None:
        for contents in self.sets():
            whole = await digests(await groups_of(self.scheme, contents))
            for number in range(len(contents)):
                rest = [*contents[:number], *contents[number + 1 :]]
                groups = await groups_of(self.scheme, rest)
                found = await digests(groups)
                if found:
                    assert {key for key in whole if key[0] in {g.uuid for g in groups}} == set(
                        found
                    )
                for key, value in found.items():
                    assert value in (whole[key], "StorageError"), (key, number)

    async def test_what_does_not_lie_on_a_missing_member_is_read(self) -> None:
        for contents in self.sets():
            whole = await digests(await groups_of(self.scheme, contents))
            for number, content in enumerate(contents):
                lost = (await self.scheme.read_member(MemoryDevice(content))).uuid
                rest = [*contents[:number], *contents[number + 1 :]]
                for group in await groups_of(self.scheme, rest):
                    for volume in group.volumes:
                        if lost not in volume.members:
                            assert await digest(volume) == whole[group.uuid, volume.name]

    async def test_a_member_that_is_there_twice_is_not_guessed_at(self) -> None:
        for contents in self.sets():
            twice = (await self.scheme.read_member(MemoryDevice(contents[0]))).uuid
            whole = await digests(await groups_of(self.scheme, contents))
            for group in await groups_of(self.scheme, [contents[0], *contents]):
                for volume in group.volumes:
                    found = await digest(volume)
                    if twice not in volume.members:
                        assert found == whole[group.uuid, volume.name]
                    else:
                        assert found in (DamagedError.__name__, whole[group.uuid, volume.name])

    async def test_foreign_content_is_no_member(self) -> None:
        foreign = [bytes(size) for size in (0, 1, 511, 512, 2048, 100_000)]
        foreign += [b"\xff" * 65536, *(sample.content for sample in SAMPLES)]
        for content in foreign:
            try:
                member = await self.scheme.read_member(MemoryDevice(content))
            except DamagedError:
                continue
            assert member.uuid, "it is one of the samples of the scheme itself"

    async def test_a_read_that_fails_stays_with_what_needs_it(self) -> None:
        for contents in self.sets():
            whole = await digests(await groups_of(self.scheme, contents))
            watched = [WatchedDevice(MemoryDevice(content)) for content in contents]
            members = [await self.scheme.read_member(device) for device in watched]
            before = [device.reads for device in watched]
            await self.scheme.assemble(members)
            needed = [device.reads for device in watched]
            for device, first, last in zip(watched, before, needed, strict=True):
                for number in {first, (first + last) // 2, last - 1} if last > first else ():
                    device.fail_at = frozenset({device.reads - first + number})
                    groups = await self.scheme.assemble(members)
                    device.fail_at = frozenset()
                    found = await digests(groups)
                    assert found.keys() == whole.keys()
                    for key, value in found.items():
                        assert value in (whole[key], "StorageError")

    async def test_no_members_are_no_groups(self) -> None:
        assert list(await self.scheme.assemble([])) == []

    @pytest.mark.parametrize("length", [0, 1, 512, 4096, 100_000])
    async def test_a_cut_device_is_an_answer_or_an_error(self, length: int) -> None:
        for contents in self.sets():
            for number, content in enumerate(contents):
                try:
                    await groups_of(
                        self.scheme,
                        [*contents[:number], content[:length], *contents[number + 1 :]],
                    )
                except RestoreError:
                    continue
