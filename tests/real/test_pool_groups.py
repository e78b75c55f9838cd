"""Disks that share a volume: attached together, let go together, and looked for again."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

from restorefs.catalog.records import DiskRecord
from restorefs.errors import StorageError
from restorefs.session.pool import Pool
from tests.images.volume_group import MIB, volume_group
from tests.real.attached import MemoryCatalog, disk_record, qcow2, running_pool, servers, until
from tests.tools import require, require_root

HOUR = 3600.0
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
