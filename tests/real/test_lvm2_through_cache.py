"""LVM2 volumes over disks in the block cache: many readers, few slots, answers in any order."""

import hashlib
import random

import pytest
import trio

from restorefs.block.cache import BlockCache, CachedDisk
from restorefs.volumes.groups import Group, GroupVolume
from restorefs.volumes.lvm2.scheme import Lvm2
from tests.contracts.transports import PromptTransport
from tests.images.lvm.stored import disks, said
from tests.real.lvm2_volumes import plain_name

STEP = 300_000


async def digest_of(volume: GroupVolume) -> tuple[int, str]:
    """Read a volume in three ways at once, which must agree."""
    assert volume.device is not None
    found = hashlib.sha256()
    for at in range(0, volume.device.size, STEP):
        length = min(STEP, volume.device.size - at)
        data = await volume.device.read(at, length)
        assert await volume.device.read_through([(at, length)]) == data
        mapped = []
        for piece in await volume.device.map(at, length):
            part = piece.disk and await piece.disk.read(piece.offset, piece.length)
            mapped.append(part or bytes(piece.length))
        assert b"".join(mapped) == data
        found.update(data)
    return volume.device.size, found.hexdigest()


@pytest.mark.parametrize(
    ("name", "missing"), [("raid", None), ("raid", 4), ("thin", None), ("nested", 1)]
)
async def test_all_volumes_at_once(name: str, missing: int | None, nursery: trio.Nursery) -> None:
    cache = BlockCache(8 << 20)
    members = []
    for number, content in enumerate(disks(name)):
        if number != missing:
            transport = PromptTransport(content, random.Random(number))
            nursery.start_soon(transport.serve)
            members.append(await Lvm2.read_member(CachedDisk(cache, transport)))
    (group,) = await Lvm2.assemble(members)
    found: dict[str, tuple[int, str]] = {}

    async def read(group: Group, volume: GroupVolume) -> None:
        found[plain_name(group, volume)] = await digest_of(volume)

    async with trio.open_nursery() as readers:
        for volume in group.volumes:
            if plain_name(group, volume) in said(name):
                readers.start_soon(read, group, volume)
    assert found == said(name)
