"""What the LVM2 tests share: groups from contents of disks, and what a volume of them holds."""

import hashlib
from collections.abc import Sequence

from restorefs.errors import RestoreError
from restorefs.volumes.groups import Group, GroupVolume
from restorefs.volumes.lvm2.names import mapper_name
from restorefs.volumes.lvm2.scheme import Lvm2
from tests.contracts.groups import STEP, groups_of


async def group_of(contents: Sequence[bytes]) -> Group:
    """Return the only group on some disks."""
    (group,) = await groups_of(Lvm2, contents)
    return group


async def content_of(volume: GroupVolume) -> bytes:
    """Return all bytes of a volume. Raises what is wrong with it."""
    if volume.device is None:
        assert volume.error is not None
        raise volume.error
    size = volume.device.size
    parts = [await volume.device.read(at, min(STEP, size - at)) for at in range(0, size, STEP)]
    mapped = []
    for piece in await volume.device.map(0, size):
        if piece.disk is None:
            mapped.append(bytes(piece.length))
        else:
            mapped.append(await piece.disk.read(piece.offset, piece.length))
    assert b"".join(mapped) == b"".join(parts)
    assert await volume.device.read_through([(0, size)]) == b"".join(parts)
    return b"".join(parts)


async def said_by_us(group: Group) -> dict[str, tuple[int, str] | RestoreError]:
    """Return size and SHA-256 of each volume, "group/volume", or what is wrong with it."""
    found: dict[str, tuple[int, str] | RestoreError] = {}
    for volume in group.volumes:
        try:
            content = await content_of(volume)
        except RestoreError as error:
            found[plain_name(group, volume)] = error
        else:
            digest = hashlib.sha256(content).hexdigest()
            found[plain_name(group, volume)] = (len(content), digest)
    return found


def plain_name(group: Group, volume: GroupVolume) -> str:
    """Return "group/volume"."""
    prefix = mapper_name(group.name, "")
    assert volume.name.startswith(prefix)
    return f"{group.name}/{volume.name[len(prefix) :].replace(b'--', b'-').decode()}"


def named(group: Group, name: str) -> GroupVolume:
    """Return the volume of this name."""
    return next(v for v in group.volumes if plain_name(group, v) == f"{group.name}/{name}")
