"""Disks read from real qemu-nbd processes, which are stopped and killed at bad moments.

The expected bytes are the raw disk's, from which qemu-img made the image.
"""

import fcntl
import json
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import termios
import time
from array import array
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from restorefs.block.base import BlockDevice, Window
from restorefs.block.cache import (
    LARGE_SLOT,
    MAX_IN_FLIGHT,
    SMALL_SLOT,
    BlockCache,
    CachedDisk,
    Slot,
)
from restorefs.block.nbd import NbdTransport
from restorefs.errors import AttachTimeoutError, RestoreError, StorageError
from restorefs.session.qcow2 import inspect_chain
from restorefs.session.qemu_nbd import QemuNbd
from tests.contracts.block import BlockDeviceContract
from tests.real.attached import Served, disk_content, ended, qcow2, served, until
from tests.tools import require

MIB = 1 << 20
DISK = disk_content(12 * MIB + 512)


@pytest.fixture(autouse=True)
def _tools() -> None:
    require("qemu-img", "qemu-nbd", "setpriv")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qcow2(DISK, tmp_path_factory.mktemp("nbd") / "disk.qcow2")


class TestCachedDisk(BlockDeviceContract):
    @pytest.fixture
    async def device(self, content: bytes, tmp_path: Path) -> AsyncIterator[BlockDevice]:
        async with served(qcow2(content, tmp_path / "disk.qcow2", "-c")) as disk:
            yield CachedDisk(BlockCache(0), disk.transport)


class TestWindowOfCachedDisk(BlockDeviceContract):
    @pytest.fixture
    async def device(self, content: bytes, tmp_path: Path) -> AsyncIterator[BlockDevice]:
        around = b"before" * 512 + content + b"behind" * 512
        async with served(qcow2(around, tmp_path / "disk.qcow2")) as disk:
            device = CachedDisk(BlockCache(0), disk.transport)
            yield Window(device, 6 * 512, len(content))


# Reading


async def test_many_readers_at_once_get_their_own_bytes(image: Path) -> None:
    """Of all sizes, through a cache that is smaller than the disk."""
    async with served(image) as disk:
        device = CachedDisk(BlockCache(0), disk.transport)
        assert device.size == len(DISK)

        async def read(seed: int) -> None:
            chance = random.Random(seed)
            for _ in range(40):
                length = chance.choice((512, 4096, 70_000, LARGE_SLOT))
                offset = chance.randrange(device.size - length)
                expected = DISK[offset : offset + length]
                if chance.random() < 0.5:
                    assert await device.read(offset, length) == expected
                else:
                    slot = await device.cache.pin(device, offset, length)
                    assert bytes(slot.view[:length]) == expected
                    device.cache.unpin(slot)

        async with trio.open_nursery() as nursery:
            for seed in range(2 * MAX_IN_FLIGHT):
                nursery.start_soon(read, seed)
        assert device.in_flight == 0


async def test_two_disks_in_one_cache(image: Path, tmp_path: Path) -> None:
    other = DISK[::-1]
    async with served(image) as one, served(qcow2(other, tmp_path / "other.qcow2")) as two:
        cache = BlockCache(0)
        first, second = CachedDisk(cache, one.transport), CachedDisk(cache, two.transport)

        async def compare(device: CachedDisk, content: bytes) -> None:
            for offset in range(0, device.size, 100_000):
                length = min(5000, device.size - offset)
                assert await device.read(offset, length) == content[offset : offset + length]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(compare, first, DISK)
            nursery.start_soon(compare, second, other)


async def test_memory_stays_flat(image: Path) -> None:
    """libnbd's binding leaks a reference to the buffer of each read (see block/cache.py)."""
    async with served(image) as disk:
        device = CachedDisk(BlockCache(0), disk.transport)

        async def read(seed: int, times: int) -> None:
            chance = random.Random(seed)
            for _ in range(times):
                offset = chance.randrange(device.size // 4096) * 4096
                slot = await device.cache.pin(device, offset, 4096)
                assert slot.view[0] == DISK[offset]
                device.cache.unpin(slot)

        async def many(times: int) -> None:
            async with trio.open_nursery() as nursery:
                for seed in range(MAX_IN_FLIGHT):
                    nursery.start_soon(read, seed, times // MAX_IN_FLIGHT)

        await many(20_000)
        before = resident()
        await many(200_000)
        assert device.cache.misses > 180_000, "nearly all of them asked the server"
        assert resident() - before < 2 * MIB


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# Storage errors


async def test_a_bad_sector_is_an_error_and_the_rest_stays_readable(image: Path) -> None:
    """The storage fails one read; the connection, the other reads and the next attempt are fine."""
    bad = {"event": "none", "iotype": "read", "sector": 4 * MIB // 512, "errno": 5, "once": True}
    raw = {"driver": "file", "filename": str(image.with_suffix(".raw"))}
    node = {
        "driver": "raw",
        "file": {"driver": "blkdebug", "image": raw, "inject-error": [bad]},
    }
    async with served("json:" + json.dumps(node), name="b1/disk0") as disk:
        device = CachedDisk(BlockCache(0), disk.transport)
        assert await device.read(0, MIB) == DISK[:MIB]
        with pytest.raises(StorageError) as caught:
            await device.read(4 * MIB, 4096)
        assert str(caught.value).startswith("b1/disk0: reading 65536 bytes at 4194304 failed")
        assert "Input/output error" in str(caught.value)
        assert disk.transport.closed is None
        assert await device.read(8 * MIB, MIB) == DISK[8 * MIB :][:MIB]
        assert await device.read(4 * MIB, 4096) == DISK[4 * MIB :][:4096]


async def test_a_bad_sector_spoils_nothing_that_was_to_be_read_with_it(image: Path) -> None:
    bad = {"event": "none", "iotype": "read", "sector": 4 * MIB // 512, "errno": 5}
    raw = {"driver": "file", "filename": str(image.with_suffix(".raw"))}
    node = {
        "driver": "raw",
        "file": {"driver": "blkdebug", "image": raw, "inject-error": [bad | {"once": False}]},
    }
    async with served("json:" + json.dumps(node), name="b1/disk0") as disk:
        device = CachedDisk(BlockCache(64 << 20), disk.transport)
        begin = 4 * MIB - 7 * SMALL_SLOT
        device.expect(begin, 16 * SMALL_SLOT)
        assert device.in_flight == 1
        for offset in range(begin, begin + 16 * SMALL_SLOT, SMALL_SLOT):
            if offset == 4 * MIB:
                with pytest.raises(StorageError, match="reading 65536 bytes at 4194304 failed"):
                    await device.read(offset, 4096)
            else:
                assert await device.read(offset, SMALL_SLOT) == DISK[offset:][:SMALL_SLOT]
        assert device.in_flight == 0


# Servers that end


class Reads:
    """Reads of a disk at once, and how each ended; they begin when `go` is set."""

    def __init__(self, device: CachedDisk, count: int, go: trio.Event | None = None) -> None:
        self.device = device
        self.count = count
        self.go = go
        self.errors: list[RestoreError] = []

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(self.count):
                nursery.start_soon(self._read, number * SMALL_SLOT)

    async def _read(self, offset: int) -> None:
        if self.go is not None:
            await self.go.wait()
        try:
            assert await self.device.read(offset, 4096) == DISK[offset : offset + 4096]
        except RestoreError as error:
            self.errors.append(error)

    def check_all_failed(self, kind: type[RestoreError], message: str) -> None:
        assert len(self.errors) == self.count
        for error in self.errors:
            assert type(error) is kind
            assert message in str(error)


def wait_for_end(pid: int) -> None:
    """Wait for a child's end without letting the loop run."""
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(60_000)
    os.close(pidfd)


async def test_reads_in_flight_fail_when_the_server_is_killed(image: Path) -> None:
    cache = BlockCache(0)
    async with served(image, name="b1/disk0") as disk:
        device = CachedDisk(cache, disk.transport)
        os.kill(disk.pid, signal.SIGSTOP)
        reads = Reads(device, 2 * MAX_IN_FLIGHT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reads.run)
            await wait_all_tasks_blocked()
            assert device.in_flight == MAX_IN_FLIGHT
            assert reads.errors == []
            os.kill(disk.pid, signal.SIGKILL)
        reads.check_all_failed(StorageError, "b1/disk0: the NBD server ended")
        assert device.in_flight == 0
        await disk.transport.wait_closed()
        assert isinstance(disk.transport.closed, StorageError)
        with pytest.raises(StorageError, match="the NBD server ended"):
            await device.read(0, 1)
    async with served(image) as again:  # whose reads find all the slots of the cache
        fresh = CachedDisk(cache, again.transport)
        assert await fresh.read(0, len(DISK)) == DISK


async def test_a_read_may_be_what_finds_the_server_dead(image: Path) -> None:
    """Before the loop has heard of it: libnbd then fails the reads while they are submitted."""
    async with served(image, name="b1/disk0") as disk:
        device = CachedDisk(BlockCache(0), disk.transport)
        assert await device.read(0, 4096) == DISK[:4096]
        os.kill(disk.pid, signal.SIGKILL)
        wait_for_end(disk.pid)
        found: list[tuple[bool, str]] = []
        submitting = True

        def done(error: RestoreError | None) -> None:
            found.append((submitting, str(error)))

        for number in range(3):
            slot = Slot(memoryview(bytearray(SMALL_SLOT)))
            disk.transport.submit(slot, number * SMALL_SLOT, 4096, done)
        submitting = False
        await disk.transport.wait_closed()
        await wait_all_tasks_blocked()
        assert found == [(False, "b1/disk0: the NBD server ended")] * 3


async def test_readers_that_find_the_server_dead_do_not_spoil_each_others_slots(
    image: Path,
) -> None:
    cache = BlockCache(0)
    async with served(image) as dead, served(image) as alive:
        broken = CachedDisk(cache, dead.transport)
        sound = CachedDisk(cache, alive.transport)
        go = trio.Event()
        failing, reads = Reads(broken, 40, go), Reads(sound, 150, go)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(failing.run)
            nursery.start_soon(reads.run)
            await wait_all_tasks_blocked()
            os.kill(dead.pid, signal.SIGKILL)
            wait_for_end(dead.pid)
            go.set()
        failing.check_all_failed(StorageError, "ended")
        assert reads.errors == []
        await dead.transport.wait_closed()


def submit_many(disk: Served, count: int) -> list[tuple[Slot, RestoreError | None]]:
    """Submit more reads than the socket takes while the server does not read from it; return the
    list in which each appears when it is done."""
    found: list[tuple[Slot, RestoreError | None]] = []
    for _ in range(count):
        slot = Slot(memoryview(bytearray(512)))

        def done(error: RestoreError | None, slot: Slot = slot) -> None:
            found.append((slot, error))

        disk.transport.submit(slot, 512, 512, done)
    return found


async def test_more_requests_than_the_socket_takes(image: Path) -> None:
    async with served(image) as disk:
        os.kill(disk.pid, signal.SIGSTOP)
        found = submit_many(disk, 2000)
        await wait_all_tasks_blocked()
        assert found == []
        os.kill(disk.pid, signal.SIGCONT)
        await until(lambda: len(found) == 2000)
        assert all(error is None for _, error in found)
        assert all(slot.view == DISK[512:1024] for slot, _ in found)


async def test_replies_that_are_here_are_taken_together_but_not_all_at_once(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(image) as disk:
        await wait_all_tasks_blocked()
        fd = os.dup(disk.transport._handle.aio_get_fd())
        waits: list[int] = []

        async def wait(fd: int, direction: int) -> None:
            waits.append(len(found))
            await trio.lowlevel.wait_readable(fd)

        monkeypatch.setattr("restorefs.block.nbd._wait", wait)
        found = submit_many(disk, 40)
        here = array("i", [0])
        deadline = time.monotonic() + 60
        while here[0] < 40 * (512 + 16):  # a simple reply's header is 16 bytes
            assert time.monotonic() < deadline
            fcntl.ioctl(fd, termios.FIONREAD, here)
        os.close(fd)
        await until(lambda: len(found) == 40)
        assert all(error is None for _, error in found)
        steps = [after - before for before, after in pairwise([0, *waits])]
        assert max(steps) == 4


async def test_a_server_that_is_killed_while_its_socket_is_full(image: Path) -> None:
    async with served(image) as disk:
        os.kill(disk.pid, signal.SIGSTOP)
        found = submit_many(disk, 2000)
        await wait_all_tasks_blocked()
        os.kill(disk.pid, signal.SIGKILL)
        await disk.transport.wait_closed()
        await wait_all_tasks_blocked()
        assert len(found) == 2000
        assert all(isinstance(error, StorageError) for _, error in found)


@pytest.mark.parametrize("steps", range(6))
async def test_a_connection_may_be_closed_at_any_moment(image: Path, steps: int) -> None:
    """Also while the task that waits for the socket is about to."""
    async with served(image) as disk:
        os.kill(disk.pid, signal.SIGSTOP)
        found = submit_many(disk, 2000)
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        disk.transport.close(StorageError("let go"))
        await wait_all_tasks_blocked()
        assert len(found) == 2000
        assert all(isinstance(error, StorageError) for _, error in found)


async def test_a_closed_connection_fails_the_reads_in_flight_with_the_reason(image: Path) -> None:
    async with served(image) as disk:
        device = CachedDisk(BlockCache(0), disk.transport)
        os.kill(disk.pid, signal.SIGSTOP)
        reads = Reads(device, 5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reads.run)
            await wait_all_tasks_blocked()
            disk.transport.close(StorageError("let go"))
            disk.transport.close(StorageError("again"))
        reads.check_all_failed(StorageError, "let go")


async def test_a_cancelled_connection_fails_the_reads_in_flight(image: Path) -> None:
    async with served(image) as disk, trio.open_nursery() as nursery:
        second = QemuNbd.start(blockdev(image), disk.server.socket_path.with_name("second.sock"))
        try:
            transport = await NbdTransport.connect(second.socket_path, "second")
            running = trio.CancelScope()

            async def run() -> None:
                with running:
                    await transport.run()

            nursery.start_soon(run)
            device = CachedDisk(BlockCache(0), transport)
            os.kill(second.process.pid, signal.SIGSTOP)
            reads = Reads(device, 3)
            async with trio.open_nursery() as reading:
                reading.start_soon(reads.run)
                await wait_all_tasks_blocked()
                running.cancel()
            reads.check_all_failed(StorageError, "the connection was closed")
        finally:
            await second.stop()


async def test_storage_that_does_not_answer_is_given_up(image: Path, mock_clock: MockClock) -> None:
    async with served(image, read_timeout=60.0, name="b1/disk0") as disk:
        device = CachedDisk(BlockCache(0), disk.transport)
        await wait_all_tasks_blocked()
        mock_clock.jump(1000)  # nobody reads: nothing to give up
        await wait_all_tasks_blocked()
        assert await device.read(0, 4096) == DISK[:4096]
        mock_clock.jump(59)
        assert await device.read(MIB, 4096) == DISK[MIB:][:4096]
        os.kill(disk.pid, signal.SIGSTOP)
        reads = Reads(CachedDisk(BlockCache(0), disk.transport), 3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reads.run)
            await wait_all_tasks_blocked()
            mock_clock.jump(59)
            await wait_all_tasks_blocked()
            assert disk.transport.closed is None
            mock_clock.jump(2)
        reads.check_all_failed(AttachTimeoutError, "b1/disk0: the storage did not answer")
        assert isinstance(disk.transport.closed, AttachTimeoutError)


# The child


def blockdev(image: Path) -> str:
    return inspect_chain(image, [image.parent]).blockdev()


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A folder for sockets, which must be gone at the end."""
    with tempfile.TemporaryDirectory(prefix="restorefs-") as folder:
        yield Path(folder)
        assert list(Path(folder).iterdir()) == []


DAEMON = """
import sys, time
from pathlib import Path
from restorefs.session.qcow2 import inspect_chain
from restorefs.session.qemu_nbd import QemuNbd
server = QemuNbd.start(sys.argv[1], Path(sys.argv[2]))
print(server.process.pid, flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("stopped", [False, True])
async def test_the_child_dies_with_the_daemon_also_on_sigkill(
    image: Path, tmp_path: Path, stopped: bool
) -> None:
    with tempfile.TemporaryDirectory(prefix="restorefs-") as folder:
        path = Path(folder) / "disk.sock"
        daemon = subprocess.Popen(
            [sys.executable, "-c", DAEMON, blockdev(image), str(path)], stdout=subprocess.PIPE
        )
        try:
            assert daemon.stdout is not None
            child = int(daemon.stdout.readline())
            pidfd = os.pidfd_open(child)
            transport = await NbdTransport.connect(path, "disk")
            transport.close(StorageError("seen to serve"))
            await trio.lowlevel.checkpoint()
            if stopped:
                os.kill(child, signal.SIGSTOP)
        finally:
            daemon.kill()
            daemon.communicate()
        await ended(pidfd)


async def test_stopping_leaves_no_process_and_no_socket(image: Path, runtime: Path) -> None:
    server = QemuNbd.start(blockdev(image), runtime / "disk.sock")
    pid = server.process.pid
    assert Path(f"/proc/{pid}").exists()
    await server.stop()
    assert not Path(f"/proc/{pid}").exists(), "not even a zombie"


async def test_stopping_is_not_disturbed_by_cancellation(image: Path, runtime: Path) -> None:
    server = QemuNbd.start(blockdev(image), runtime / "disk.sock")
    with trio.CancelScope() as scope:
        scope.cancel()
        await server.stop()
    assert server.process.returncode == -signal.SIGKILL


async def test_the_child_does_not_hear_ctrl_c(image: Path, runtime: Path) -> None:
    server = QemuNbd.start(blockdev(image), runtime / "disk.sock")
    try:
        assert os.getsid(server.process.pid) == server.process.pid != os.getsid(0)
    finally:
        await server.stop()


async def test_a_stale_socket_is_no_obstacle(image: Path, runtime: Path) -> None:
    (runtime / "disk.sock").touch()
    server = QemuNbd.start(blockdev(image), runtime / "disk.sock")
    try:
        transport = await NbdTransport.connect(server.socket_path, "disk")
        assert transport.size == len(DISK)
        transport.close(StorageError("enough"))
    finally:
        await server.stop()


async def test_the_child_says_why_it_cannot_serve(tmp_path: Path, runtime: Path) -> None:
    missing = tmp_path / "missing.qcow2"
    node = {"driver": "qcow2", "file": {"driver": "file", "filename": str(missing)}}
    server = QemuNbd.start("json:" + json.dumps(node), runtime / "disk.sock")
    try:
        with pytest.raises(StorageError, match="b1/disk0"):
            await NbdTransport.connect(server.socket_path, "b1/disk0")
        said = server.reason()
        assert str(missing) in said
        assert "No such file" in said
        assert "\n" not in said
        assert server.reason() == "", "nothing more"
    finally:
        await server.stop()


async def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="b1/disk0: cannot connect"):
        await NbdTransport.connect(tmp_path / "no.sock", "b1/disk0")


async def test_a_server_that_cannot_be_started_is_a_storage_error(
    image: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(StorageError, match="cannot start qemu-nbd"):
        QemuNbd.start(blockdev(image), runtime / "missing" / "disk.sock")
    with pytest.raises(StorageError, match="cannot start qemu-nbd"):
        QemuNbd.start(blockdev(image), runtime / ("x" * 110))
    with pytest.raises(StorageError, match="cannot start qemu-nbd"):
        QemuNbd.start("x" * (1 << 20), runtime / "disk.sock")
    monkeypatch.setenv("PATH", str(runtime))
    with pytest.raises(StorageError, match="not installed"):
        QemuNbd.start(blockdev(image), runtime / "disk.sock")
    assert set(Path("/proc/self/fd").iterdir()) == before
