"""The pool with real qemu-nbd processes: attached once, shared, let go, and what goes wrong.

Time is a MockClock's where an hour must pass. That a server runs or has ended is the kernel's word.
"""

import errno
import logging
import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from restorefs.catalog.records import DiskRecord
from restorefs.errors import (
    AttachTimeoutError,
    BusyError,
    CatalogError,
    DamagedError,
    RestoreError,
    StorageError,
)
from restorefs.session import starter
from restorefs.session.disk import AttachedDisk
from restorefs.session.pool import Pool
from restorefs.session.qcow2 import Chain
from restorefs.session.unchanged import ChangedError
from tests.real.attached import (
    MemoryCatalog,
    disk_content,
    disk_record,
    ended,
    qcow2,
    running_pool,
    servers,
    state,
    until,
)
from tests.tools import require, run

HOUR = 3600.0
CONTENTS = [disk_content((1 << 20) + number * 512) for number in range(3)]


@pytest.fixture(autouse=True)
def _tools() -> None:
    require("qemu-img", "qemu-nbd", "setpriv")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Sequence[DiskRecord]:
    """Three disks, numbered from 1; their contents are CONTENTS."""
    folder = tmp_path_factory.mktemp("pool")
    return [
        disk_record(qcow2(content, folder / f"{number}.qcow2"), number)
        for number, content in enumerate(CONTENTS, 1)
    ]


async def check(disk: AttachedDisk) -> None:
    """Assert that a disk reads right."""
    content = CONTENTS[disk.record.id - 1]
    assert await disk.device.read(0, len(content)) == content


async def read_anew(disk: AttachedDisk, offset: int) -> None:
    """Read a page that cannot be in the cache: metadata is read in whole slots."""
    disk.device.cache.unpin(await disk.device.cache.pin(disk.device, offset, 4096))


async def use_once(pool: Pool, record: DiskRecord) -> int:
    """Use a disk; return its server's process id."""
    async with pool.use(record) as disk:
        await check(disk)
        return disk.server.process.pid


async def failure_of(pool: Pool, record: DiskRecord) -> RestoreError:
    with pytest.raises(RestoreError) as caught:
        await use_once(pool, record)
    return caught.value


# Attaching


async def test_however_many_ask_one_server_is_started(records: Sequence[DiskRecord]) -> None:
    catalog = MemoryCatalog()
    async with running_pool(catalog) as pool:
        disks: list[AttachedDisk] = []
        all_there = trio.Event()

        async def ask() -> None:
            async with pool.use(records[0]) as disk:
                disks.append(disk)
                await all_there.wait()
                await check(disk)

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(ask)
            await until(lambda: len(disks) == 50)
            assert len(set(map(id, disks))) == 1
            assert disks[0].in_use == 50
            assert servers() == [disks[0].server.process.pid]
            all_there.set()
        assert disks[0].in_use == 0
        await until(lambda: catalog.calls)
        assert catalog.calls == [("attach", 1)]
        assert pool.find(1) is disks[0]
        assert list(pool.attached) == disks[:1]


async def test_disks_are_attached_side_by_side(records: Sequence[DiskRecord]) -> None:
    async with running_pool() as pool, trio.open_nursery() as nursery:
        for record in records:
            nursery.start_soon(use_once, pool, record)
        await until(lambda: len(list(pool.attached)) == 3)
        assert len(servers()) == 3


async def test_a_cancelled_request_leaves_the_attaching_to_the_others(
    records: Sequence[DiskRecord],
) -> None:
    async with running_pool() as pool, trio.open_nursery() as nursery:
        impatient = trio.CancelScope()

        async def ask_in_vain() -> None:
            with impatient:
                await use_once(pool, records[0])

        nursery.start_soon(ask_in_vain)
        nursery.start_soon(use_once, pool, records[0])
        await trio.lowlevel.checkpoint()
        impatient.cancel()
        await until(lambda: pool.find(1))
    assert impatient.cancelled_caught


async def test_the_attach_record(records: Sequence[DiskRecord], mock_clock: MockClock) -> None:
    catalog = MemoryCatalog()
    async with running_pool(catalog) as pool:
        async with pool.use(records[0]) as disk:
            await until(lambda: catalog.rows)
            row = catalog.rows[1]
            assert row.backup_disk_id == 1
            assert row.mount_path == "/mnt/restore/backups/b1/disk0"
            assert row.socket_path == str(disk.server.socket_path)
            assert row.filesystem_type == disk.filesystems == ""
            assert row.created_at == disk.attached_at
            assert row.expires_at is not None
            assert row.expires_at - row.last_accessed_at == timedelta(hours=1)
        mock_clock.jump(600)
        await use_once(pool, records[0])
        mock_clock.jump(61)
        await until(lambda: ("touch", 1) in catalog.calls)
        assert await pool.detach(1, "the test wants it")
        await until(lambda: not catalog.rows)
        assert catalog.calls[-1] == ("forget", 1)


async def test_a_catalog_that_is_down_delays_nobody(
    records: Sequence[DiskRecord], caplog: pytest.LogCaptureFixture
) -> None:
    catalog = MemoryCatalog()
    catalog.error = CatalogError("no route to host")
    async with running_pool(catalog) as pool:
        await use_once(pool, records[0])
        await until(lambda: "no route to host" in caplog.text)
    assert {record.levelname for record in caplog.records} == {"WARNING"}


# Letting go


async def test_what_nobody_has_used_for_an_hour_is_let_go(
    records: Sequence[DiskRecord], mock_clock: MockClock
) -> None:
    catalog = MemoryCatalog()
    async with running_pool(catalog) as pool:
        pid = await use_once(pool, records[0])
        pidfd = os.pidfd_open(pid)
        await wait_all_tasks_blocked()
        for _ in range(59):
            mock_clock.jump(60)
            await wait_all_tasks_blocked()
        assert servers() == [pid]
        mock_clock.jump(121)
        await ended(pidfd)
        await until(lambda: not catalog.rows)
        assert servers() == []
        assert pool.find(1) is None
        assert await use_once(pool, records[0]) != pid, "and attached again when it is wanted"


async def test_the_hour_begins_anew_with_each_use(
    records: Sequence[DiskRecord], mock_clock: MockClock
) -> None:
    async with running_pool() as pool:
        pids = set()
        for _ in range(10):
            pids.add(await use_once(pool, records[0]))
            await wait_all_tasks_blocked()
            mock_clock.jump(0.9 * HOUR)
            await wait_all_tasks_blocked()
        assert servers() == list(pids)


async def test_a_disk_in_use_is_not_idle_however_long_it_takes(
    records: Sequence[DiskRecord], mock_clock: MockClock
) -> None:
    async with running_pool() as pool:
        async with pool.use(records[0]) as disk:
            pidfd = os.pidfd_open(disk.server.process.pid)
            mock_clock.jump(5 * HOUR)
            await wait_all_tasks_blocked()
            await check(disk)
        await wait_all_tasks_blocked()
        mock_clock.jump(0.9 * HOUR)
        await wait_all_tasks_blocked()
        assert pool.find(1) is disk
        mock_clock.jump(0.2 * HOUR)
        await ended(pidfd)


async def test_an_idle_timeout_of_zero_keeps_disks(
    records: Sequence[DiskRecord], mock_clock: MockClock
) -> None:
    catalog = MemoryCatalog()
    async with running_pool(catalog, idle_timeout=0) as pool:
        pid = await use_once(pool, records[0])
        for _ in range(3):
            await wait_all_tasks_blocked()
            mock_clock.jump(1000 * HOUR)
        await wait_all_tasks_blocked()
        assert servers() == [pid]
        await until(lambda: catalog.rows)
        assert catalog.rows[1].expires_at is None


async def test_only_what_is_idle_goes(records: Sequence[DiskRecord], mock_clock: MockClock) -> None:
    async with running_pool() as pool:
        pidfd = os.pidfd_open(await use_once(pool, records[0]))
        await wait_all_tasks_blocked()
        mock_clock.jump(0.6 * HOUR)
        kept = await use_once(pool, records[1])
        await wait_all_tasks_blocked()
        mock_clock.jump(0.6 * HOUR)
        await ended(pidfd)
        assert servers() == [kept]


async def test_detaching_waits_for_the_requests_under_way(records: Sequence[DiskRecord]) -> None:
    catalog = MemoryCatalog()
    async with running_pool(catalog) as pool, trio.open_nursery() as nursery:
        detached = trio.Event()

        async def detach() -> None:
            assert await pool.detach(1, "the test wants it")
            detached.set()

        async with pool.use(records[0]) as disk:
            old = disk.server.process.pid
            pidfd = os.pidfd_open(old)
            nursery.start_soon(detach)
            await wait_all_tasks_blocked()
            assert not detached.is_set()
            await check(disk)
            new = await use_once(pool, records[0])
            assert new != old, "who comes now gets a server of its own"
            assert set(servers()) == {old, new}
            await check(disk)
        await detached.wait()
        await ended(pidfd)
        await until(lambda: servers() == [new])
        successor = pool.find(1)
        assert successor is not None
        await use_once(pool, records[1])
        await until(lambda: 2 in catalog.rows)  # and so all before it is written
        assert catalog.rows[1].socket_path == str(successor.server.socket_path)


async def test_a_detach_that_is_cancelled_still_ends_the_server(
    records: Sequence[DiskRecord],
) -> None:
    catalog = MemoryCatalog()
    async with running_pool(catalog) as pool, trio.open_nursery() as nursery:
        impatient = trio.CancelScope()

        async def detach() -> None:
            with impatient:
                await pool.detach(1, "the test wants it")

        async with pool.use(records[0]) as disk:
            pidfd = os.pidfd_open(disk.server.process.pid)
            nursery.start_soon(detach)
            await wait_all_tasks_blocked()
            impatient.cancel()
            await wait_all_tasks_blocked()
        await ended(pidfd)
        await until(lambda: not catalog.rows)


async def test_detaching_what_is_not_attached(records: Sequence[DiskRecord]) -> None:
    async with running_pool() as pool:
        assert not await pool.detach(1, "the test wants it")
        await use_once(pool, records[0])
        assert await pool.detach(1, "the test wants it")
        assert not await pool.detach(1, "the test wants it")


async def test_the_end_lets_everything_go_also_what_is_in_use_or_on_its_way(
    records: Sequence[DiskRecord],
) -> None:
    async def hold(pool: Pool, record: DiskRecord) -> None:
        async with pool.use(record):
            await trio.sleep_forever()

    with trio.CancelScope() as everything:
        async with running_pool() as pool, trio.open_nursery() as users:
            folder = pool.settings.runtime_dir
            users.start_soon(hold, pool, records[0])
            await until(lambda: pool.find(1))
            users.start_soon(pool.detach, 1, "the test wants it")
            users.start_soon(use_once, pool, records[1])
            await until(lambda: pool.find(2))
            users.start_soon(hold, pool, records[2])
            await until(lambda: len(servers()) == 3)
            everything.cancel()
    assert servers() == []
    assert not folder.exists()


async def test_the_end_waits_for_requests_but_not_for_ever(
    records: Sequence[DiskRecord], mock_clock: MockClock
) -> None:
    released = trio.Event()

    async def hold(pool: Pool, record: DiskRecord) -> None:
        async with pool.use(record):
            await released.wait()

    async def watch() -> None:
        await wait_all_tasks_blocked()  # the pool has been told to end
        mock_clock.jump(9)
        await wait_all_tasks_blocked()
        assert len(servers()) == 3
        mock_clock.jump(2)

    async with trio.open_nursery() as nursery:
        async with running_pool() as pool:
            for record in records:
                nursery.start_soon(hold, pool, record)
            await until(lambda: len(list(pool.attached)) == 3)
            nursery.start_soon(watch)
        released.set()


# Slots


async def test_the_least_recently_used_idle_disk_makes_room(
    records: Sequence[DiskRecord], mock_clock: MockClock
) -> None:
    async with running_pool(max_attached=2) as pool:
        first = await use_once(pool, records[0])
        mock_clock.jump(1)
        second = os.pidfd_open(await use_once(pool, records[1]))
        mock_clock.jump(1)
        assert await use_once(pool, records[0]) == first
        mock_clock.jump(1)
        third = await use_once(pool, records[2])
        await ended(second)
        assert set(servers()) == {first, third}


async def test_a_disk_in_use_does_not_make_room(
    records: Sequence[DiskRecord], mock_clock: MockClock
) -> None:
    async with running_pool(max_attached=2) as pool, pool.use(records[0]) as disk:
        mock_clock.jump(1)
        second = os.pidfd_open(await use_once(pool, records[1]))
        mock_clock.jump(1)
        await use_once(pool, records[2])
        await ended(second)
        await check(disk)


async def test_when_all_are_in_use_there_is_no_room(
    records: Sequence[DiskRecord], caplog: pytest.LogCaptureFixture
) -> None:
    async with running_pool(max_attached=2) as pool:
        async with pool.use(records[0]) as one, pool.use(records[1]) as two:
            error = await failure_of(pool, records[2])
            assert type(error) is BusyError
            assert error.errno == errno.EBUSY
            assert "all 2 disks" in str(error)
            assert "--max-attached" in str(error)
            assert pool.failures[3].errno == errno.EBUSY
            assert len(servers()) == 2
            await check(one)
            await check(two)
        await use_once(pool, records[2])
        assert pool.failures == {}
        assert len(servers()) == 2
    assert len(caplog.records) == 1


async def test_one_slot_shared_by_two_disks(records: Sequence[DiskRecord]) -> None:
    """Whoever finds it taken is told so and may come again; both get through."""
    async with running_pool(max_attached=1) as pool:

        async def use_often(record: DiskRecord) -> None:
            uses = 0
            while uses < 10:
                try:
                    await use_once(pool, record)
                    uses += 1
                except BusyError:
                    await wait_all_tasks_blocked()
                assert len(servers()) <= 2, "one, and perhaps one that ends"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(use_often, records[0])
            nursery.start_soon(use_often, records[1])
        assert len(list(pool.attached)) == 1


async def test_each_slot_is_given_once(records: Sequence[DiskRecord]) -> None:
    """Three at once for two slots that idle disks have."""
    more = [disk_record(record.path, record.id + 10) for record in records]
    async with running_pool(max_attached=2) as pool, AsyncExitStack() as held:
        for record in records[:2]:
            await use_once(pool, record)
        ends: list[str] = []

        async def ask(record: DiskRecord) -> None:
            try:
                await held.enter_async_context(pool.use(record))
                ends.append("attached")
            except BusyError:
                ends.append("busy")

        async with trio.open_nursery() as nursery:
            for record in more:
                nursery.start_soon(ask, record)
        assert sorted(ends) == ["attached", "attached", "busy"]
        assert len(servers()) == 2


# What goes wrong


async def test_a_missing_image_names_the_file(
    records: Sequence[DiskRecord], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = tmp_path / "missing.qcow2"
    record = disk_record(image, 1)
    async with running_pool() as pool:
        for _ in range(3):
            error = await failure_of(pool, record)
            assert type(error) is StorageError
            assert str(image) in str(error)
            assert "No such file" in str(error)
        assert len(caplog.records) == 1, "logged once, however often it is asked for"
        assert "b1/disk0" in caplog.text
        assert pool.failures[1].reason == str(error)
        assert pool.failures[1].errno == errno.EIO
        assert servers() == []
        image.write_bytes(records[0].path.read_bytes())
        await use_once(pool, record)
        assert pool.failures == {}
        image.unlink()
        await pool.detach(1, "the test wants it")
        await failure_of(pool, record)
        assert len(caplog.records) == 2, "what went wrong again is told again"


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def spoil_header(path: Path) -> None:
    path.write_bytes(b"QFI\xfb" + bytes(100_000))


def not_qcow2(path: Path) -> None:
    path.write_bytes(bytes(100_000))


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, "truncated"),
        (spoil_header, "version"),
        (not_qcow2, "qcow2"),
        (fifo, "not a regular file"),
        (folder, "not a regular file"),
    ],
)
async def test_a_spoilt_image_says_what_is_wrong(
    damage: Callable[[Path], None], said: str, records: Sequence[DiskRecord], tmp_path: Path
) -> None:
    image = tmp_path / "spoilt.qcow2"
    image.write_bytes(records[0].path.read_bytes())
    damage(image)
    async with running_pool() as pool:
        error = await failure_of(pool, disk_record(image))
        assert error.errno in (errno.EIO, errno.EOPNOTSUPP)
        assert str(image) in str(error)
        assert said in str(error)


async def test_a_chain_that_leaves_the_repository_is_refused(
    records: Sequence[DiskRecord], tmp_path: Path
) -> None:
    image = tmp_path / "incremental.qcow2"
    base = records[0].path
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, image)
    record = disk_record(image)
    async with running_pool() as pool:  # by default: the image's own folder
        error = await failure_of(pool, record)
        assert isinstance(error, StorageError)
        assert str(base) in str(error)
        assert "outside" in str(error)
    async with running_pool(repositories=[tmp_path, base.parent]) as pool:
        await use_once(pool, record)


async def test_what_qemu_says_is_passed_on(
    records: Sequence[DiskRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the image goes between our look at it and the server's."""
    image = tmp_path / "going.qcow2"
    image.write_bytes(records[0].path.read_bytes())
    inspect = starter.inspect_chain

    def inspect_and_remove(path: Path, repositories: Sequence[Path]) -> Chain:
        chain = inspect(path, repositories)
        path.unlink()
        return chain

    monkeypatch.setattr(starter, "inspect_chain", inspect_and_remove)
    async with running_pool() as pool:
        error = await failure_of(pool, disk_record(image))
        assert type(error) is StorageError
        assert f"Could not open '{image}': No such file" in str(error)


async def test_a_damaged_partition_table_is_damage(tmp_path: Path) -> None:
    raw = tmp_path / "disk.raw"
    raw.write_bytes(bytes(4 << 20))
    run("sfdisk", "--quiet", raw, input="label: gpt\nsize=1M\n")
    with raw.open("r+b") as file:
        for offset in (512, (4 << 20) - 512):
            file.seek(offset + 8 + 4)
            file.write(b"\xff")
    record = disk_record(qcow2(raw, tmp_path / "disk.qcow2"))
    async with running_pool() as pool:
        error = await failure_of(pool, record)
        assert isinstance(error, DamagedError)
        assert pool.failures[1].errno == errno.EIO
        assert servers() == []


@pytest.fixture
def stopped_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a qemu-nbd first in the PATH that stops itself before it starts to serve."""
    programs = tmp_path / "programs"
    programs.mkdir()
    script = programs / "qemu-nbd"
    script.write_text('#!/bin/sh\nkill -STOP $$\nexec /usr/bin/qemu-nbd "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")


@pytest.mark.usefixtures("stopped_qemu")
async def test_a_server_that_does_not_answer_is_given_up(
    records: Sequence[DiskRecord], mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_pool() as pool:
        errors: list[RestoreError] = []

        async def fail() -> None:
            errors.append(await failure_of(pool, records[0]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(fail)
            await until(lambda: servers() and state(servers()[0]) == "T")
            mock_clock.jump(19)
            await wait_all_tasks_blocked()
            assert errors == []
            mock_clock.jump(2)
        for error in errors:
            assert type(error) is AttachTimeoutError
            assert error.errno == errno.ETIMEDOUT
            assert str(records[0].path) in str(error)
            assert "20 s" in str(error)
        assert servers() == []
        assert pool.failures[1].errno == errno.ETIMEDOUT
        monkeypatch.undo()
        await use_once(pool, records[0])
        assert pool.failures == {}


@pytest.mark.usefixtures("stopped_qemu")
async def test_other_disks_go_on_while_one_does_not_answer(
    records: Sequence[DiskRecord], mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_pool() as pool, trio.open_nursery() as nursery:
        nursery.start_soon(failure_of, pool, records[0])
        await until(lambda: servers() and state(servers()[0]) == "T")
        monkeypatch.undo()
        await use_once(pool, records[1])
        mock_clock.jump(21)


async def test_the_end_comes_also_while_a_server_does_not_answer(
    records: Sequence[DiskRecord], stopped_qemu: None
) -> None:
    async with trio.open_nursery() as nursery, running_pool() as pool:
        nursery.start_soon(failure_of, pool, records[0])
        await until(lambda: servers() and state(servers()[0]) == "T")


async def test_storage_that_hangs_is_not_asked_again_before_it_has_answered(
    records: Sequence[DiskRecord], mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that waits for hung storage cannot be ended; there is one of it, not hundreds."""
    inspect = starter.inspect_chain
    begun, answers = threading.Event(), threading.Event()

    def hang(path: Path, repositories: Sequence[Path]) -> Chain:
        begun.set()
        assert answers.wait(60)
        return inspect(path, repositories)

    async with running_pool() as pool:
        monkeypatch.setattr(starter, "inspect_chain", hang)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(failure_of, pool, records[0])
            await until(begun.is_set)
            mock_clock.jump(21)
        assert pool.failures[1].errno == errno.ETIMEDOUT
        begun.clear()
        error = await failure_of(pool, records[0])
        assert type(error) is AttachTimeoutError
        assert "earlier attempt" in str(error)
        assert not begun.is_set()
        monkeypatch.undo()
        await use_once(pool, records[1])
        answers.set()
        while isinstance(error, AttachTimeoutError):
            try:
                await use_once(pool, records[0])
                break
            except AttachTimeoutError:
                await until(answers.is_set)


async def test_a_killed_server_is_replaced_at_the_next_use(
    records: Sequence[DiskRecord], caplog: pytest.LogCaptureFixture
) -> None:
    catalog = MemoryCatalog()
    async with running_pool(catalog) as pool:
        old = await use_once(pool, records[0])
        os.kill(old, signal.SIGKILL)
        await until(lambda: pool.find(1) is None)
        await until(lambda: not catalog.rows)
        assert "ended" in pool.failures[1].reason
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert await use_once(pool, records[0]) != old
        assert pool.failures == {}


async def test_a_killed_server_fails_the_reads_under_way(records: Sequence[DiskRecord]) -> None:
    async with running_pool() as pool:
        ends: list[RestoreError] = []

        async def read(offset: int) -> None:
            with pytest.raises(StorageError) as caught:
                async with pool.use(records[0]) as disk:
                    await read_anew(disk, offset)
            ends.append(caught.value)

        async with pool.use(records[0]) as disk:
            pid = disk.server.process.pid
            os.kill(pid, signal.SIGSTOP)
            async with trio.open_nursery() as nursery:
                for number in range(8):
                    nursery.start_soon(read, number * 4096)
                await until(lambda: disk.device.in_flight == 8)
                os.kill(pid, signal.SIGKILL)
            assert len(ends) == 8
            await until(lambda: pool.find(1) is None)
            new = await use_once(pool, records[0])
            assert new != pid, "also while the dead one is still held"
        await until(lambda: servers() == [new])


async def test_storage_that_stops_answering_fails_the_reads_and_lets_the_disk_go(
    records: Sequence[DiskRecord], mock_clock: MockClock
) -> None:
    async with running_pool() as pool:
        async with trio.open_nursery() as nursery, pool.use(records[0]) as disk:
            pidfd = os.pidfd_open(disk.server.process.pid)
            os.kill(disk.server.process.pid, signal.SIGSTOP)

            async def read() -> None:
                with pytest.raises(AttachTimeoutError):
                    await read_anew(disk, 4096)

            nursery.start_soon(read)
            await wait_all_tasks_blocked()
            mock_clock.jump(61)
            await wait_all_tasks_blocked()
        await ended(pidfd)
        assert "did not answer" in pool.failures[1].reason
        await use_once(pool, records[0])
        assert pool.failures == {}


async def test_what_is_wrong_with_a_disk_is_remembered_until_it_is_attached_again(
    records: Sequence[DiskRecord], caplog: pytest.LogCaptureFixture
) -> None:
    async with running_pool() as pool:

        async def use_and_fail(error: Exception) -> None:
            with pytest.raises(type(error)):
                async with pool.use(records[0]):
                    raise error

        await use_and_fail(ValueError("a question that makes no sense"))
        assert pool.failures == {}
        for _ in range(2):
            await use_and_fail(DamagedError("inode 12 is damaged"))
        assert pool.failures[1].reason == "inode 12 is damaged"
        await use_once(pool, records[0])
        assert pool.failures[1].reason == "inode 12 is damaged"
        assert len(caplog.records) == 1
        for number in range(200):
            await use_and_fail(DamagedError(f"inode {number} is damaged"))
        assert len(caplog.records) < 60, "a disk full of damage does not fill the log"
        assert "further errors" in caplog.records[-1].message
        assert "199" in pool.failures[1].reason
        await pool.detach(1, "the test wants it")
        await use_once(pool, records[0])
        assert pool.failures == {}


async def test_a_bug_while_attaching_is_an_error_not_the_end(
    records: Sequence[DiskRecord],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def oops(device: object) -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    async with running_pool() as pool:
        monkeypatch.setattr(starter, "read_table", oops)
        with caplog.at_level(logging.ERROR):
            error = await failure_of(pool, records[0])
        assert "internal error" in str(error)
        assert servers() == []
        monkeypatch.undo()
        await use_once(pool, records[0])


async def test_a_disk_is_let_go_when_its_image_looks_different(
    records: Sequence[DiskRecord],
    mock_clock: MockClock,
) -> None:
    """As that of a network file system, where another host wrote to it."""
    record = records[0]
    async with running_pool() as pool:
        told: list[DiskRecord] = []
        pool.replaced = told.append
        async with pool.use(record) as disk:
            os.utime(record.qcow2_path, (1, 1))
            await wait_all_tasks_blocked()
            mock_clock.jump(11)
            await disk.transport.wait_closed()
            assert isinstance(disk.transport.closed, ChangedError)
            with pytest.raises(ChangedError):
                await read_anew(disk, 0)
        assert "was changed while" in pool.failures[record.id].reason
        with pytest.raises(RestoreError, match="not the same as before"):
            async with pool.use(record):
                pass
        assert told == [record]
        async with pool.use(record) as again:
            assert again.generation != disk.generation
            await read_anew(again, 0)
        assert pool.failures == {}
