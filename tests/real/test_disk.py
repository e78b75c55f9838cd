"""What is on an attached disk: opened once, and tried again only where that may help.

The devices fail when the test says so, which no server can be told; the file system is mke2fs's.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from restorefs.block.base import BlockDevice
from restorefs.errors import DamagedError, GoneError, StorageError, UnsupportedError
from restorefs.guestfs import registry
from restorefs.session.disk import AttachedDisk, Content, Guest, Look, identify_all
from restorefs.volumes.base import Volume, VolumeTable
from tests.contracts.devices import MemoryDevice, WatchedDevice
from tests.real.attached import disk_record
from tests.tools import require, run

ALWAYS = frozenset(range(100_000))


@pytest.fixture(scope="module")
def ext4(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    require("mke2fs")
    image = tmp_path_factory.mktemp("disk") / "ext4"
    run("mke2fs", "-q", "-t", "ext4", image, "2M")
    return image.read_bytes()


async def nothing_else(_kind: str, _uuid: str, _look: Look) -> bool:
    """A backup without other disks."""
    await trio.lowlevel.checkpoint()
    return False


async def attached(nursery: trio.Nursery, *volumes: Volume) -> AttachedDisk:
    table = VolumeTable("gpt", volumes)
    contents = {volume.index: Content(volume) for volume in volumes}
    await identify_all(contents.values())
    return AttachedDisk(
        record=disk_record(Path("/srv/disk.qcow2")),
        server=cast(Any, None),
        transport=cast(Any, SimpleNamespace(name="b1/disk0")),
        device=cast(Any, None),
        table=table,
        contents=contents,
        nursery=nursery,
        find=nothing_else,
    )


def part(device: BlockDevice, index: int = 1, **more: Any) -> Volume:
    return Volume(b"part%d" % index, index, device, **more)


async def test_a_file_system_is_opened_once_however_many_ask(
    ext4: bytes, nursery: trio.Nursery
) -> None:
    device = WatchedDevice(MemoryDevice(ext4))
    disk = await attached(nursery, part(device))
    await disk.guest(1)
    once = device.reads
    disk = await attached(nursery, part(device))
    identified = device.reads - once
    found: list[Guest] = []

    async def ask() -> None:
        found.append(await disk.guest(1))

    async with trio.open_nursery() as asking:
        for _ in range(20):
            asking.start_soon(ask)
    assert len(set(map(id, found))) == 1
    assert device.reads - once - identified == once - identified


async def test_who_is_cancelled_does_not_disturb_the_others(
    ext4: bytes, nursery: trio.Nursery
) -> None:
    disk = await attached(nursery, part(MemoryDevice(ext4)))
    with trio.CancelScope() as scope:
        scope.cancel()
        await disk.guest(1)
    assert scope.cancelled_caught
    assert (await disk.guest(1)).filesystem.identity.kind == "ext4"


async def test_a_storage_error_while_opening_is_tried_again(
    ext4: bytes, nursery: trio.Nursery
) -> None:
    device = WatchedDevice(MemoryDevice(ext4))
    disk = await attached(nursery, part(device))
    device.fail_at = ALWAYS
    for _ in range(2):
        with pytest.raises(StorageError, match="part1: "):
            await disk.guest(1)
    device.fail_at = frozenset()
    assert (await disk.guest(1)).filesystem.identity.kind == "ext4"


async def test_a_storage_error_while_identifying_is_tried_again(
    ext4: bytes, nursery: trio.Nursery
) -> None:
    device = WatchedDevice(MemoryDevice(ext4))
    device.fail_at = ALWAYS
    disk = await attached(nursery, part(device))
    assert disk.contents[1].is_folder, "it may hold files"
    assert disk.filesystems == ""
    for _ in range(2):
        with pytest.raises(StorageError, match="part1: read"):
            await disk.guest(1)
    device.fail_at = frozenset()
    assert (await disk.guest(1)).filesystem.identity.kind == "ext4"
    assert disk.contents[1].error is None
    assert disk.filesystems == "ext4"


async def test_one_volume_that_cannot_be_read_spoils_no_other(
    ext4: bytes, nursery: trio.Nursery
) -> None:
    bad = WatchedDevice(MemoryDevice(ext4))
    bad.fail_at = ALWAYS
    disk = await attached(nursery, part(bad, 1), part(MemoryDevice(ext4), 2))
    assert (await disk.guest(2)).filesystem.identity.kind == "ext4"
    with pytest.raises(StorageError):
        await disk.guest(1)


async def test_damage_stays_and_is_not_read_again(ext4: bytes, nursery: trio.Nursery) -> None:
    spoilt = bytearray(ext4)
    spoilt[1024 + 24 : 1024 + 28] = b"\xff\xff\xff\x7f"  # s_log_block_size
    device = WatchedDevice(MemoryDevice(bytes(spoilt)))
    disk = await attached(nursery, part(device))
    before = None
    for _ in range(3):
        with pytest.raises((DamagedError, UnsupportedError), match="part1: "):
            await disk.guest(1)
        assert before in (None, device.reads)
        before = device.reads


async def test_a_volume_without_bytes_says_why(nursery: trio.Nursery) -> None:
    lost = Volume(b"part1", 1, None, error=DamagedError("it lies behind the disk's end"))
    reserved = Volume(
        b"part2", 2, None, reserved=True, error=DamagedError("it lies behind the disk's end")
    )
    disk = await attached(nursery, lost, reserved)
    assert disk.contents[1].is_folder
    assert not disk.contents[2].is_folder
    with pytest.raises(DamagedError, match="part1: it lies behind"):
        await disk.guest(1)


async def test_an_unformatted_volume_is_no_folder(nursery: trio.Nursery) -> None:
    disk = await attached(nursery, part(MemoryDevice(bytes(1 << 20))))
    assert not disk.contents[1].is_folder
    with pytest.raises(UnsupportedError, match="nothing that restorefs recognises"):
        await disk.guest(1)


async def test_a_volume_that_is_not_there(nursery: trio.Nursery) -> None:
    disk = await attached(nursery)
    with pytest.raises(GoneError, match="b1/disk0 has no volume 7"):
        await disk.guest(7)


async def test_uses_are_counted(nursery: trio.Nursery) -> None:
    disk = await attached(nursery)
    disk.in_use = 2
    disk.release()
    waiting = disk.idle
    assert not waiting.is_set()
    disk.release()
    assert waiting.is_set()
    assert not disk.idle.is_set(), "for the next to wait for"


async def test_a_bug_in_recognising_costs_one_volume(
    ext4: bytes,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken, sound = part(MemoryDevice(bytes(4096))), part(MemoryDevice(ext4), 2)

    async def identify(device: BlockDevice) -> Any:
        if device is broken.device:
            raise ZeroDivisionError("oops")
        return await registry.identify(device)

    monkeypatch.setattr("restorefs.session.disk.identify", identify)
    disk = await attached(nursery, broken, sound)
    assert "oops" in caplog.text
    with pytest.raises(DamagedError, match="internal error"):
        await disk.guest(1)
    assert (await disk.guest(2)).filesystem.identity.kind == "ext4"
