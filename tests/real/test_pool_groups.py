"""Disks that share a volume: attached together, let go together, and looked for again."""

import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from restorefs.catalog.records import DiskRecord
from restorefs.errors import StorageError
from restorefs.session import pool as pool_module
from restorefs.session.assembly import Indexes, Others
from restorefs.session.disk import AttachedDisk
from restorefs.session.pool import Pool
from tests.images.volume_group import MIB, volume_group
from tests.mounted.disks import gpt
from tests.real.attached import MemoryCatalog, disk_record, qcow2, running_pool, servers, until
from tests.tools import require, require_root

HOUR = 3600.0
LVM = "E6D6D379-F507-44C2-A23C-238F2A3DF928"
CONTENT = b"".join(b"%07d\n" % number for number in range(MIB))


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Sequence[DiskRecord]:
    """Two disks with a volume across both: 3 MiB on each, which hold CONTENT."""
    require("qemu-img", "qemu-nbd", "setpriv")
    require_root()
    folder = tmp_path_factory.mktemp("groups")
    content = folder / "content"
    content.write_bytes(CONTENT)
    files = [folder / "0", folder / "1"]
    for file in files:
        file.write_bytes(bytes(8 * MIB))
    volume_group("vg", files, {"lv": ([(0, 0, 3), (1, 0, 3)], content)})
    return [
        disk_record(qcow2(file, folder / f"{index}.qcow2"), index + 1, index=index)
        for index, file in enumerate(files)
    ]


async def read(pool: Pool, disk: DiskRecord) -> bytes:
    """Return the first volume's first 6 MiB, or as much as can be read."""
    async with pool.use(disk) as attached:
        (device,) = [
            c.volume.device for c in attached.contents.values() if c.volume.name == b"vg-lv"
        ]
        assert device is not None
        found = b""
        try:
            for _ in range(6):
                found += await device.read(len(found), MIB)
        except StorageError:
            pass
        return found


async def pass_time(clock: MockClock, seconds: float) -> None:
    for _ in range(int(seconds // 60)):
        clock.jump(60)
        await wait_all_tasks_blocked()


async def test_none_is_let_go_while_another_is_used(
    disks: Sequence[DiskRecord], mock_clock: MockClock
) -> None:
    async with running_pool(disks=disks) as pool:
        assert await read(pool, disks[0]) == CONTENT[: 6 * MIB]
        pids = servers()
        assert len(pids) == 2
        for _ in range(4):
            await pass_time(mock_clock, HOUR / 2)
            assert await read(pool, disks[0]) == CONTENT[: 6 * MIB]
        assert servers() == pids
        mock_clock.jump(HOUR + 120)  # at once: while servers end, no time may pass
        await until(lambda: not servers())
        assert not pool.find(1)
        assert not pool.find(2)


async def test_the_records_are_those_of_both(disks: Sequence[DiskRecord]) -> None:
    catalog = MemoryCatalog()
    async with running_pool(catalog, disks=disks) as pool:
        await read(pool, disks[1])
        await until(lambda: catalog.rows.keys() == {1, 2})
        assert await pool.detach(1, "the test wants it")
        await until(lambda: not catalog.rows)


async def test_what_was_missing_is_looked_for_again_after_a_minute(
    disks: Sequence[DiskRecord], mock_clock: MockClock, tmp_path: Path
) -> None:
    late = disk_record(tmp_path / "late.qcow2", 2, index=1)
    both = [disks[0], late]
    async with running_pool(disks=both) as pool:
        assert await read(pool, disks[0]) == CONTENT[: 3 * MIB]
        late.path.write_bytes(disks[1].path.read_bytes())
        assert await read(pool, disks[0]) == CONTENT[: 3 * MIB], "not each time"
        mock_clock.jump(59)
        assert await read(pool, disks[0]) == CONTENT[: 3 * MIB]
        mock_clock.jump(2)
        async with pool.use(disks[0]) as in_use:
            assert await read(pool, disks[0]) == CONTENT[: 6 * MIB]
        assert pool.find(1) is in_use


def once_changed(
    monkeypatch: pytest.MonkeyPatch, then: Callable[[AttachedDisk, Others], Awaitable[None]]
) -> None:
    """Have something happen while a disk's volumes are put together, the first time."""
    real = pool_module.assemble

    async def assemble(disk: AttachedDisk, others: Others, indexes: Indexes) -> None:
        monkeypatch.setattr(pool_module, "assemble", real)
        await then(disk, others)
        await real(disk, others, indexes)

    monkeypatch.setattr(pool_module, "assemble", assemble)


@pytest.mark.parametrize("own", [False, True])
async def test_a_server_that_dies_while_volumes_are_put_together(
    own: bool, disks: Sequence[DiskRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_pool(disks=disks) as pool:

        async def die(disk: AttachedDisk, others: Others) -> None:
            dying = disk if own else others.disks[0]
            os.kill(dying.server.process.pid, signal.SIGKILL)
            await until(lambda: pool.find(dying.record.id) is not dying)

        once_changed(monkeypatch, die)
        with pytest.raises(StorageError):
            await read(pool, disks[0])
        for disk in disks:  # whatever is left of it is sound
            assert await read(pool, disk) == CONTENT[: 6 * MIB]
        assert len(servers()) == 2


async def test_a_disk_is_not_let_go_because_it_shares_nothing_while_its_unit_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tmp_path / "content"
    content.write_bytes(CONTENT)
    files = [tmp_path / str(number) for number in range(4)]
    for file in files:
        file.write_bytes(bytes(8 * MIB))
    volume_group("vga", files[:2], {"lv": ([(0, 0, 3), (1, 0, 3)], content)})
    volume_group("vgb", files[2:], {"lv": ([(0, 0, 3), (1, 0, 3)], content)})
    disks = [
        disk_record(qcow2(file, tmp_path / f"{index}.qcow2"), index + 1, index=index)
        for index, file in enumerate(files)
    ]
    async with running_pool(disks=disks) as pool:
        go_on, waiting, done = trio.Event(), trio.Event(), trio.Event()

        async def wait(_disk: AttachedDisk, _others: Others) -> None:
            waiting.set()
            await go_on.wait()

        async def look() -> None:
            async with pool.use(disks[0]):
                done.set()

        once_changed(monkeypatch, wait)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await waiting.wait()
            async with pool.use(disks[2]) as in_use:
                go_on.set()
                await done.wait()
                await wait_all_tasks_blocked()
                assert pool.find(3) is in_use


async def test_a_volume_keeps_its_number_whatever_comes_to_be_known(tmp_path: Path) -> None:
    """Node ids are made of it: what one means must not come to be another volume."""
    content = tmp_path / "content"
    content.write_bytes(CONTENT)
    for attempt in range(6):  # the groups' UUIDs are random, and they were numbered by those
        folder = tmp_path / str(attempt)
        folder.mkdir()
        files = [folder / name for name in ("a", "b0", "b1")]
        for file in files:
            file.write_bytes(bytes(8 * MIB))
        volume_group("vga", files[:1], {"lv": ([(0, 0, 3)], content)})
        volume_group("vgb", files[1:], {"lv": ([(0, 0, 3)], content)}, without_metadata=[0])
        first = gpt(folder / "first", (LVM, files[0]), (LVM, files[1]))
        late = disk_record(folder / "late.qcow2", 2, index=1)
        both = [disk_record(qcow2(first, folder / "0.qcow2")), late]
        async with running_pool(disks=both) as pool:
            before = await numbers(pool, both[0])
            assert set(before.values()) == {b"vga-lv"}
            qcow2(files[2], late.path)
            pool.withdraw(1, "the catalog says something else of it, such as its size")
            after = await numbers(pool, both[0])
            assert set(after.values()) == {b"vga-lv", b"vgb-lv"}
            assert after.items() >= before.items()


async def numbers(pool: Pool, disk: DiskRecord) -> dict[int, bytes]:
    """Return the numbers of a disk's group volumes."""
    async with pool.use(disk) as attached:
        return {i: c.volume.name for i, c in attached.contents.items() if b"-" in c.volume.name}
