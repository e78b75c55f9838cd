"""Disks served by real qemu-nbd processes, for the tests of what reads them.

Owns that every server ends, and that a pool leaves neither a process nor a socket behind.
Concurrency: for trio tests; waiting here takes real time, also under a MockClock.
"""

import math
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import trio

from restorefs.block.cache import BlockCache
from restorefs.block.nbd import NbdTransport
from restorefs.catalog.base import Catalog
from restorefs.catalog.records import AttachRecord, BackupRecord, DiskRecord
from restorefs.errors import CatalogError, StorageError
from restorefs.session.ledger import Ledger
from restorefs.session.pool import Pool
from restorefs.session.qcow2 import inspect_chain
from restorefs.session.qemu_nbd import QemuNbd
from restorefs.session.settings import PoolSettings
from restorefs.session.uri import DEFAULT_WEB, WebOptions
from tests.tools import run

_SECONDS = 60.0


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition that something outside of the loop brings about."""
    end = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        await trio.to_thread.run_sync(time.sleep, 0.001)


async def ended(pidfd: int) -> None:
    """Wait until a process has ended, and until those who wait for that have gone on."""
    try:
        await trio.lowlevel.wait_readable(pidfd)
    finally:
        os.close(pidfd)
    await trio.testing.wait_all_tasks_blocked()


def servers() -> Sequence[int]:
    """Return the process ids of the qemu-nbd and nbdkit children that the loop's thread has."""
    found = []
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        command = Path("/proc", pid, "cmdline").read_bytes()
        if (
            b"qemu-nbd" in command or b"nbdkit" in command or not command
        ):  # a zombie has no command line
            found.append(int(pid))
    return found


def state(pid: int) -> str:
    """Return a process's state as proc(5) says: "T" when it is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# Images


def disk_content(size: int) -> bytes:
    """Return the content of a disk: random, and in part zeros and repetitions."""
    chance = random.Random(size)
    content = bytearray()
    while len(content) < size:
        content += chance.randbytes(chance.randrange(200_000))
        content += bytes([chance.choice((0, 65))]) * chance.randrange(100_000)
    return bytes(content[:size])


def qcow2(raw: bytes | Path, image: Path, *options: str) -> Path:
    """Convert a raw disk."""
    if isinstance(raw, bytes):
        source = image.with_suffix(".raw")
        source.write_bytes(raw)
    else:
        source = raw
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, source, image)
    return image


# One disk


class Served(NamedTuple):
    """A server and a connection to it."""

    server: QemuNbd
    transport: NbdTransport

    @property
    def pid(self) -> int:
        return self.server.process.pid


@asynccontextmanager
async def served(
    image: Path | str, read_timeout: float = math.inf, name: str = "disk"
) -> AsyncIterator[Served]:
    """Serve a qcow2 image, or what a `json:` description says, and connect to it."""
    blockdev = inspect_chain(image, [image.parent]).blockdev() if isinstance(image, Path) else image
    with tempfile.TemporaryDirectory(prefix="restorefs-") as folder:
        server = QemuNbd.start(blockdev, Path(folder) / "disk.sock")
        try:
            transport = await NbdTransport.connect(server.socket_path, name, read_timeout)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.run)
                yield Served(server, transport)
                transport.close(StorageError("the test is over"))
        finally:
            await server.stop()
        assert list(Path(folder).iterdir()) == []


# A pool


class MemoryCatalog(Catalog):
    """A catalog that can be told what to say, and to fail; keeps the attach records.

    calls: the names and disks of what was written, in order.
    """

    def __init__(self, *backups: BackupRecord) -> None:
        self.said: Sequence[BackupRecord] = backups
        self.error: CatalogError | None = None
        self.rows: dict[int, AttachRecord] = {}
        self.calls: list[tuple[str, int]] = []

    def describe(self) -> str:
        return "the test's memory"

    def backups(self) -> Sequence[BackupRecord]:
        self._fail()
        return self.said

    def recover(self) -> int:
        raise NotImplementedError

    def record_attach(self, record: AttachRecord) -> None:
        self._note("attach", record.backup_disk_id)
        self.rows[record.backup_disk_id] = record

    def touch_attach(self, record: AttachRecord) -> None:
        self._note("touch", record.backup_disk_id)
        self.rows[record.backup_disk_id] = record

    def forget_attach(self, backup_disk_id: int) -> None:
        self._note("forget", backup_disk_id)
        del self.rows[backup_disk_id]

    def close(self) -> None:
        raise NotImplementedError

    def _note(self, what: str, disk_id: int) -> None:
        self._fail()
        self.calls.append((what, disk_id))

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


def disk_record(image: Path, number: int = 1, backup: str = "b1", index: int = 0) -> DiskRecord:
    return DiskRecord(number, backup, index, str(image))


@asynccontextmanager
async def running_pool(
    catalog: MemoryCatalog | None = None,
    *,
    repositories: Sequence[Path] = (),
    idle_timeout: float = 3600.0,
    max_attached: int = 64,
    attach_timeout: float = 20.0,
    read_timeout: float = 60.0,
    schemes: Sequence[str] = (),
    web: WebOptions = DEFAULT_WEB,
    disks: Sequence[DiskRecord] = (),
) -> AsyncIterator[Pool]:
    """Run a pool; when it has ended, all of its servers, sockets and records are gone. disks: all
    that the one backup has, where that matters."""
    catalog = catalog or MemoryCatalog()
    ledger = Ledger(catalog, Path("/mnt/restore"), idle_timeout)
    with tempfile.TemporaryDirectory(prefix="restorefs-") as folder:
        settings = PoolSettings(
            *(Path(folder), repositories, idle_timeout, max_attached, attach_timeout, read_timeout),
            schemes=schemes,
            web=web,
        )
        pool = Pool(settings, BlockCache(0), ledger, lambda _: disks)
        async with trio.open_nursery() as writing:
            writing.start_soon(ledger.run)
            try:
                async with trio.open_nursery() as running:
                    await running.start(pool.run)
                    yield pool
                    running.cancel_scope.cancel()
            finally:
                ledger.close()
        assert list(Path(folder).iterdir()) == []
        assert servers() == []
        assert list(pool.attached) == []
        if catalog.error is None:
            assert catalog.rows == {}
