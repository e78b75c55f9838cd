"""The attached disks: attach on first access, share, let go.

Owns which disks are attached and for how long. Must not know the tree, FUSE, or any format.

Concurrency and invariants:
- Attaching is single flight: one task of the pool's nursery attaches, all who want the disk wait.
- `len(_attached) + len(_attaching) <= max_attached`. When it is full, the least recently used disk
  without a request under way is let go; when all have one: BusyError.
- A disk leaves `_attached` before the first await of letting it go. Requests that still use it
  finish on it (bounded by the read timeout); a new one attaches again.
- A server that dies takes its disk out of the pool; the reads in flight fail, the next attaches.
- Time is trio's clock, so that tests need not wait.
"""

import functools
import itertools
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import trio

from restorefs.block.cache import BlockCache, CachedDisk
from restorefs.block.nbd import NbdTransport
from restorefs.catalog.records import DiskRecord
from restorefs.errors import (
    AttachTimeoutError,
    BusyError,
    DamagedError,
    KeyNeededError,
    RestoreError,
    StorageError,
    UnsupportedError,
)
from restorefs.guestfs.base import DEFAULT_OPTIONS, GuestOptions
from restorefs.session.disk import AttachedDisk, identify_all
from restorefs.session.ledger import Ledger
from restorefs.session.once import Once
from restorefs.session.qcow2 import inspect_chain
from restorefs.session.qemu_nbd import QemuNbd
from restorefs.volumes.registry import read_table

log = logging.getLogger(__name__)
_TOUCH_SECONDS = 60.0
_END_SECONDS = 10.0
_LOGGED_PER_DISK = 50


# Sound, but not for us to read.
_UNREAD = (UnsupportedError, KeyNeededError)
# What is wrong with a disk or its content, as opposed to with the question.
_NOTED = (*_UNREAD, StorageError, DamagedError, AttachTimeoutError)


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """`repositories`: folders that images must lie in; empty: the catalogued file's own folder.
    Times in seconds; an idle_timeout of 0 keeps disks attached."""

    runtime_dir: Path
    repositories: Sequence[Path] = ()
    idle_timeout: float = 3600.0
    max_attached: int = 64
    attach_timeout: float = 20.0
    read_timeout: float = 60.0
    guest_options: GuestOptions = DEFAULT_OPTIONS


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a disk could not be attached or read the last time."""

    reason: str
    errno: int
    at: datetime


class Pool:
    """All disks that are attached. run() must run as long as it is used."""

    def __init__(self, settings: PoolSettings, cache: BlockCache, ledger: Ledger) -> None:
        self.settings = settings
        self.failures: dict[int, Failure] = {}
        self._logged: dict[int, set[str]] = {}
        self.cache = cache
        self._ledger = ledger
        self._attached: dict[int, AttachedDisk] = {}
        self._attaching: dict[DiskRecord, Once[AttachedDisk]] = {}
        self._inspecting: set[int] = set()
        self._threads = trio.CapacityLimiter(math.inf)
        self._nursery: trio.Nursery | None = None
        self._sockets = itertools.count(1)

    @property
    def attached(self) -> Iterable[AttachedDisk]:
        """The disks that are attached now."""
        return tuple(self._attached.values())

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the attached disks until cancelled; then let every one go."""
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._let_idle_go, name="idle timer")
                task_status.started()
        finally:
            with trio.move_on_after(_END_SECONDS, shield=True):
                async with trio.open_nursery() as ending:
                    for disk in self.attached:
                        ending.start_soon(self._let_go, disk, "the daemon ends")

    def use(self, record: DiskRecord) -> "Use":
        """Return a context manager that gives the attached disk and keeps it attached.

        Entering raises StorageError, AttachTimeoutError, BusyError, KeyNeededError or DamagedError.
        """
        return Use(self, record)

    def find(self, disk_id: int) -> AttachedDisk | None:
        """Return the disk if it is attached."""
        return self._attached.get(disk_id)

    async def detach(self, disk_id: int, why: str) -> bool:
        """Let a disk go, after the requests under way; False if it was not attached."""
        disk = self._attached.get(disk_id)
        if disk is None:
            return False
        await self._let_go(disk, why)
        return True

    def withdraw(self, disk_id: int, why: str) -> None:
        """Let a disk go that left the catalog, without waiting for the requests under way."""
        self.failures.pop(disk_id, None)
        self._logged.pop(disk_id, None)
        self._end_soon(disk_id, why)

    def _end_soon(self, disk_id: int, why: str) -> None:
        disk = self._attached.pop(disk_id, None)
        if disk is not None:
            assert self._nursery is not None
            self._nursery.start_soon(self._end, disk, why)

    async def attach(self, record: DiskRecord) -> AttachedDisk:
        """Return the disk, attaching it if need be; the caller sets it in use without an await."""
        disk = self._attached.get(record.id)
        if disk is not None:
            if disk.record is record or disk.record == record:  # nearly always the same object
                return disk
            await self._let_go(disk, "the catalog says otherwise now")
        once = self._attaching.get(record)
        if once is None:
            assert self._nursery is not None, "the pool is not running"
            once = self._attaching[record] = Once()
            self._nursery.start_soon(
                self._attach_once, once, record, name=f"attach {_name(record)}"
            )
        return await once.wait()

    async def _attach_once(self, once: Once[AttachedDisk], record: DiskRecord) -> None:
        try:
            await once.run(functools.partial(self._attach, record))
        finally:
            del self._attaching[record]
        if once.error is None:
            self.failures.pop(record.id, None)
            self._logged.pop(record.id, None)
        else:
            self.note_failure(record, once.error)

    def note_failure(self, record: DiskRecord, error: RestoreError) -> None:
        """Remember why something of a disk could not be read; log each reason once."""
        reason = str(error).removeprefix(f"{_name(record)}: ")
        self.failures[record.id] = Failure(reason, error.errno, datetime.now(UTC))
        logged = self._logged.setdefault(record.id, set())
        if reason not in logged and len(logged) <= _LOGGED_PER_DISK:
            logged.add(reason)
            level = logging.WARNING if isinstance(error, _UNREAD) else logging.ERROR
            log.log(level, "%s: %s", _name(record), reason)
            if len(logged) > _LOGGED_PER_DISK:
                log.warning("%s: further errors of this disk are not logged", _name(record))

    async def _attach(self, record: DiskRecord) -> AttachedDisk:
        began = trio.current_time()
        with trio.move_on_after(self.settings.attach_timeout):
            await self._make_room()
            disk = await self._start(record)
            self._end_soon(record.id, "the catalog says otherwise now")  # attached meanwhile
            self._attached[record.id] = disk
            self._ledger.attached(disk)
            log.info(
                "attached %s (%s) in %.0f ms: %s",
                _name(record),
                record.qcow2_path,
                (trio.current_time() - began) * 1000,
                disk.filesystems or "nothing recognised",
            )
            return disk
        raise AttachTimeoutError(
            f"{_name(record)}: attaching {record.qcow2_path} took more than"
            f" {self.settings.attach_timeout:g} s; its storage is slow or does not answer"
        )

    async def _make_room(self) -> None:
        """Let the least recently used idle disk go when every slot is taken."""
        taken = len(self._attached) + len(self._attaching)  # this one is among them
        if taken <= self.settings.max_attached:
            return
        idle = [disk for disk in self._attached.values() if disk.in_use == 0]
        if not idle:
            raise BusyError(
                f"all {self.settings.max_attached} disks that may be attached are in use;"
                " try again, or raise --max-attached"
            )
        await self._let_go(min(idle, key=lambda disk: disk.last_access), "its slot is needed")

    async def _start(self, record: DiskRecord) -> AttachedDisk:
        """Inspect the chain, start qemu-nbd, connect, and look at what is on the disk."""
        assert self._nursery is not None
        name = _name(record)
        blockdev = await self._inspect(record)
        socket = self.settings.runtime_dir / f"disk{record.id}-{next(self._sockets)}.sock"
        server = QemuNbd.start(blockdev, socket)
        transport = None
        try:
            try:
                transport = await NbdTransport.connect(
                    server.socket_path, name, self.settings.read_timeout
                )
            except StorageError as error:
                raise StorageError(server.reason() or str(error)) from None
            self._nursery.start_soon(transport.run, name=f"nbd {name}")
            device = CachedDisk(self.cache, transport)
            table = await read_table(device)
            contents = await identify_all(table)
        except BaseException:
            if transport is not None:
                transport.close(StorageError(f"{name}: not attached"))
            await server.stop()
            raise
        disk = AttachedDisk(
            record,
            server,
            transport,
            device,
            table,
            contents,
            self._nursery,
            self.settings.guest_options,
        )
        self._nursery.start_soon(self._watch, disk, name=f"watch {name}")
        return disk

    async def _inspect(self, record: DiskRecord) -> str:
        """Check the image's chain in a thread of its own; storage that hangs holds only that."""
        if record.id in self._inspecting:
            raise AttachTimeoutError(
                f"{_name(record)}: {record.qcow2_path} still does not answer an earlier attempt"
            )
        path = record.qcow2_path
        repositories = self.settings.repositories or (path.parent,)

        def inspect() -> str:
            try:
                return inspect_chain(path, repositories).blockdev()
            finally:
                self._inspecting.discard(record.id)

        self._inspecting.add(record.id)
        return await trio.to_thread.run_sync(inspect, abandon_on_cancel=True, limiter=self._threads)

    async def _watch(self, disk: AttachedDisk) -> None:
        """Take a disk out of the pool when its server dies."""
        await disk.transport.wait_closed()
        if self._attached.get(disk.record.id) is disk:
            said = disk.server.reason()
            reason = f"{disk.transport.closed}{': ' + said if said else ''}"
            self.note_failure(disk.record, StorageError(reason))
            await self._let_go(disk, "its server ended")

    async def _let_go(self, disk: AttachedDisk, why: str) -> None:
        if self._attached.get(disk.record.id) is disk:
            del self._attached[disk.record.id]  # from here on a new request attaches again
            await self._end(disk, why)

    async def _end(self, disk: AttachedDisk, why: str) -> None:
        """End the server of a disk that is no longer in the pool, after its last request."""
        try:
            with trio.move_on_after(_END_SECONDS):  # then they fail: storage may hang for ever
                while disk.in_use:
                    await disk.idle.wait()
        finally:  # also when cancelled: nobody else would ever do it
            disk.transport.close(StorageError(f"{disk.transport.name}: detached"))
            await disk.server.stop()
            if disk.record.id not in self._attached:  # else the record is its successor's
                self._ledger.detached(disk)
            log.info("detached %s: %s", _name(disk.record), why)

    async def _let_idle_go(self) -> None:
        """Detach what nobody has used for the idle timeout; keep the records' times true."""
        timeout = self.settings.idle_timeout or math.inf
        noted: dict[int, float] = {}
        while True:
            now = trio.current_time()
            for disk in self.attached:
                if disk.in_use == 0 and now - disk.last_access >= timeout:
                    await self._let_go(disk, f"not used for {timeout:g} s")
                elif disk.last_access > noted.get(disk.record.id, disk.last_access - 1):
                    self._ledger.touched(disk)
                noted[disk.record.id] = disk.last_access
            noted = {key: at for key, at in noted.items() if key in self._attached}
            soonest = min((disk.last_access for disk in self.attached), default=now) + timeout
            await trio.sleep_until(min(max(soonest, now + timeout / 10), now + _TOUCH_SECONDS))


class Use:
    """One request's hold on a disk."""

    __slots__ = ("_disk", "_pool", "_record")

    def __init__(self, pool: Pool, record: DiskRecord) -> None:
        self._pool = pool
        self._record = record
        self._disk: AttachedDisk | None = None

    async def __aenter__(self) -> AttachedDisk:
        disk = await self._pool.attach(self._record)
        # It may have been let go between the end of its attaching and this task's turn.
        while self._pool.find(self._record.id) is not disk:
            disk = await self._pool.attach(self._record)
        self._disk = disk
        disk.in_use += 1
        return disk

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._disk is not None
        self._disk.release()
        if isinstance(error, _NOTED):
            self._pool.note_failure(self._record, error)


def _name(record: DiskRecord) -> str:
    return f"{record.backup_id}/disk{record.disk_index}"
