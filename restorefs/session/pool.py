"""The attached disks: attach on first access, share, let go.

Owns which disks are attached and for how long. Must not know the tree, FUSE, or any format.

Concurrency and invariants:
- Attaching is single flight: one task of the pool's nursery attaches, all who want the disk wait.
- `len(_attached) + _starting <= max_attached`. When it is full, the least recently used disk
  without a request under way is let go; when all have one for some seconds: BusyError.
- Disks that share volumes (assembly.py) are a unit: they are let go together, and none of them
  while another is in use. Attaching a disk never waits for another one; assembling its volumes,
  which may need others attached, comes behind that, and who uses a disk waits for both.
- A unit leaves `_attached` before the first await of letting it go. Requests that still use it
  finish on it (bounded by the read timeout); a new one attaches again.
- A server that dies takes its disk out of the pool; the reads in flight fail, the next attaches.
- Time is trio's clock, so that tests need not wait.
"""

import functools
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import trio

from restorefs.block.cache import BlockCache
from restorefs.catalog.records import DiskRecord
from restorefs.counters import Seconds
from restorefs.errors import (
    AttachTimeoutError,
    BusyError,
    DamagedError,
    GoneError,
    KeyNeededError,
    LookAgainError,
    RestoreError,
    StorageError,
    UnsupportedError,
)
from restorefs.session.asker import Described, describe_asker
from restorefs.session.assembly import Indexes, Others, assemble, is_whole
from restorefs.session.disk import AttachedDisk, Look
from restorefs.session.ledger import Ledger
from restorefs.session.once import Once
from restorefs.session.settings import PoolSettings
from restorefs.session.starter import Starter
from restorefs.session.unchanged import ChangedError, Unchanged

log = logging.getLogger(__name__)
_TOUCH_SECONDS = 60.0
_LOOK_SECONDS = 10.0
_SLOT_SECONDS = 3.0
_END_SECONDS = 10.0
_OTHERS_SECONDS = 2.0
_TRY_AGAIN_SECONDS = 60.0
_PATIENCE = 30  # times as long as the last attempt took
_LOGGED_PER_DISK = 50
_ATTACH_BOUNDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)


# Sound, but not for us to read.
_UNREAD = (UnsupportedError, KeyNeededError)
# What is wrong with a disk or its content, as opposed to with the question.
_NOTED = (*_UNREAD, StorageError, DamagedError, AttachTimeoutError)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a disk could not be attached or read the last time."""

    reason: str
    errno: int
    at: datetime


class Pool:
    """All disks that are attached. run() must run as long as it is used."""

    def __init__(
        self,
        settings: PoolSettings,
        cache: BlockCache,
        ledger: Ledger,
        siblings: Callable[[DiskRecord], Sequence[DiskRecord]] = lambda _: (),
    ) -> None:
        """siblings: gives all disks of the backup that a disk is of."""
        self.settings = settings
        self._siblings = siblings
        self.failures: dict[int, Failure] = {}
        self._logged: dict[int, set[str]] = {}
        self.cache = cache
        self.attach_seconds = Seconds(_ATTACH_BOUNDS)
        self.attach_failures: Counter[int] = Counter()
        self.bytes_read_before = 0
        """Read from disks that are attached no more."""
        self._ledger = ledger
        self._attached: dict[int, AttachedDisk] = {}
        self._attaching: dict[DiskRecord, Once[AttachedDisk]] = {}
        self._starting = 0  # those of them that have a slot
        self._room = trio.lowlevel.ParkingLot()
        self._nursery: trio.Nursery | None = None
        self._starter = Starter(settings, cache)
        self._unwanted: set[DiskRecord] = set()  # withdrawn while they are being attached
        # Kept as long as we run, also of disks that went: node ids are made of them, and a disk
        # may come back.
        self._indexes: dict[int, Indexes] = {}
        self._generations: dict[int, tuple[int, int]] = {}  # of the record, and of the disk
        self.replaced: Callable[[DiskRecord], None] = lambda _: None
        """Is told of a disk whose image is another one than before: nothing that was handed out of
        it means the same any more."""

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
                    while self._attached:
                        unit = self._take_out(next(iter(self._attached.values())))
                        ending.start_soon(self._end, unit, "the daemon ends")

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
        self._unwanted |= {record for record in self._attaching if record.id == disk_id}
        if (disk := self.find(disk_id)) is not None:
            self._end_soon(disk, why)

    def _is_attached(self, disk: AttachedDisk) -> bool:
        return self._attached.get(disk.record.id) is disk

    def _end_soon(self, disk: AttachedDisk, why: str) -> None:
        """Let a disk go without waiting for it, unless that is under way."""
        if self._is_attached(disk):
            assert self._nursery is not None
            self._nursery.start_soon(self._end, self._take_out(disk), why)

    def _take_out(self, disk: AttachedDisk) -> set[AttachedDisk]:
        """Take a disk's unit out of the pool: from here on a new request attaches again. Returns
        what was in the pool: others have been ended, or are being."""
        taken = {each for each in disk.unit if self._is_attached(each)}
        for each in taken:
            del self._attached[each.record.id]
        self._room.unpark_all()
        return taken

    async def attach(self, record: DiskRecord) -> AttachedDisk:
        """Return the disk, attaching it if need be; the caller sets it in use without an await."""
        while (disk := self._attached.get(record.id)) is not None:
            same = disk.record is record or disk.record == record  # nearly always the same object
            if same and (disk.try_again_at == math.inf or not self._may_try_again(disk)):
                return disk
            why = "what it lacked may be there now" if same else "the catalog says otherwise now"
            await self._let_go(disk, why)
        once = self._attaching.get(record)
        if once is None:
            assert self._nursery is not None, "the pool is not running"
            once = self._attaching[record] = Once()
            self._nursery.start_soon(
                self._attach_once, once, record, describe_asker(), name=f"attach {record.name}"
            )
        return await once.wait()

    def _may_try_again(self, disk: AttachedDisk) -> bool:
        in_use = any(each.in_use for each in disk.unit)
        return not in_use and trio.current_time() >= disk.try_again_at

    async def _attach_once(
        self, once: Once[AttachedDisk], record: DiskRecord, asker: Described | None
    ) -> None:
        try:
            await once.run(functools.partial(self._attach, record, asker))
        finally:
            del self._attaching[record]
            self._unwanted.discard(record)
        if once.error is None or isinstance(once.error, LookAgainError):
            self.failures.pop(record.id, None)
            self._logged.pop(record.id, None)
        else:
            self.attach_failures[once.error.errno] += 1
            self.note_failure(record, once.error)

    def note_failure(self, record: DiskRecord, error: RestoreError) -> None:
        """Remember why something of a disk could not be read; log each reason once."""
        reason = str(error).removeprefix(f"{record.name}: ")
        self.failures[record.id] = Failure(reason, error.errno, datetime.now(UTC))
        logged = self._logged.setdefault(record.id, set())
        if reason not in logged and len(logged) <= _LOGGED_PER_DISK:
            logged.add(reason)
            level = logging.WARNING if isinstance(error, _UNREAD) else logging.ERROR
            log.log(level, "%s: %s", record.name, reason)
            if len(logged) > _LOGGED_PER_DISK:
                log.warning("%s: further errors of this disk are not logged", record.name)

    async def _attach(self, record: DiskRecord, asker: Described | None) -> AttachedDisk:
        began = trio.current_time()
        with trio.move_on_after(self.settings.attach_timeout):
            leaving = await self._take_slot()
            try:
                await self._wait_ended(leaving, "its slot is needed")
                assert self._nursery is not None
                find_volume = functools.partial(self._find_volume, record)
                disk = await self._starter.start(record, self._nursery, find_volume)
            finally:
                self._starting -= 1  # attached below, without an await in between, or not at all
                self._room.unpark_all()
            self._nursery.start_soon(self._watch, disk, name=f"watch {record.name}")
            if disk.unchanged is not None:
                self._nursery.start_soon(self._watch_image, disk, disk.unchanged)
            if (other := self.find(record.id)) is not None:  # attached meanwhile
                self._end_soon(other, "the catalog says otherwise now")
            disk.attached_for = asker
            self._attached[record.id] = disk
            self._ledger.attached(disk)
            self.attach_seconds.add(trio.current_time() - began)
            log.info(
                "attached %s (%s) in %.0f ms for %s: %s",
                record.name,
                record.shown_path,
                (trio.current_time() - began) * 1000,
                asker or "the daemon itself",
                disk.filesystems or "nothing recognised",
            )
            if record in self._unwanted:
                self._end_soon(disk, "it left the catalog")
                raise GoneError("this backup is no longer in the catalog")
            self._require_same(disk)
            return disk
        raise AttachTimeoutError(
            f"{record.name}: attaching {record.shown_path} took more than"
            f" {self.settings.attach_timeout:g} s; its storage is slow or does not answer"
        )

    def _require_same(self, disk: AttachedDisk) -> None:
        """Raise LookAgainError for a disk whose image is not the one of the last time: who waits
        for it asks for a file of that one."""
        record = disk.record
        now = record.generation, disk.generation
        before = self._generations.get(record.id, now)
        self._generations[record.id] = now
        if before[0] == now[0] and before != now:
            log.warning("%s: %s is not the same as before", record.name, record.shown_path)
            self.replaced(record)
            raise LookAgainError(f"{record.name}: its image is not the same as before; look again")

    async def _take_slot(self) -> set[AttachedDisk]:
        """Take a slot for a disk that is to be started; return whom it was taken from: the least
        recently used idle disk, out of the pool now and still to be ended. Requests are short
        mostly: where every disk has one, wait a little for one to end."""
        deadline = trio.current_time() + _SLOT_SECONDS
        while len(self._attached) + self._starting >= self.settings.max_attached:
            attached = self._attached.values()
            idle = [disk for disk in attached if not any(d.in_use for d in disk.unit)]
            if idle:
                leaving = self._take_out(min(idle, key=_last_access))
                self._starting += 1
                return leaving
            with trio.move_on_at(deadline) as waiting:
                await self._room.park()
            if waiting.cancelled_caught:
                raise BusyError(
                    f"all {self.settings.max_attached} disks that may be attached are in use;"
                    " try again, or raise --max-attached"
                )
        self._starting += 1
        return set()

    def free(self, disk: AttachedDisk) -> None:
        """End one use of a disk."""
        disk.release()
        self._room.unpark_all()

    # --- volumes across disks -----------------------------------------------------------------

    async def assembled(self, disk: AttachedDisk) -> None:
        """Wait until a disk, which the caller keeps in use, has the volumes of its groups.

        Raises what keeps all of them from being known.
        """
        if not disk.members:
            return
        if disk.assembled is None:
            assert self._nursery is not None
            disk.assembled = Once()
            make = functools.partial(self._assemble, disk)
            self._nursery.start_soon(
                disk.assembled.run, make, name=f"assemble {disk.transport.name}"
            )
        await disk.assembled.wait()

    async def _assemble(self, disk: AttachedDisk) -> None:
        began = trio.current_time()
        disk.in_use += 1
        used: list[Use] = []
        try:
            others = await self._look_for_members(disk, used)
            await assemble(disk, others, self._indexes.setdefault(disk.record.id, {}))
            # No await from here to the end of the linking: both sides are in the pool, or neither.
            if not all(map(self._is_attached, (disk, *disk.companions))):
                disk.companions.clear()
                self._end_soon(disk, "a disk that it shares volumes with was let go")
                raise StorageError("a disk that it shares volumes with was let go; try again")
            for companion in disk.companions:
                companion.companions.add(disk)
            if others.failed and not is_whole(disk, others.disks):
                now = trio.current_time()
                disk.try_again_at = now + max(_TRY_AGAIN_SECONDS, _PATIENCE * (now - began))
            self._ledger.attached(disk)
            log.info(
                "%s has volumes of groups, %s: %s",
                disk.transport.name,
                "with " + ", ".join(sorted(d.transport.name for d in disk.companions))
                if disk.companions
                else "of its own",
                disk.filesystems or "nothing recognised",
            )
        finally:
            self.free(disk)
            for use in used:
                use.end()
                unit = use.disk.unit
                if use.attached_it and disk not in unit and not any(d.in_use for d in unit):
                    self._end_soon(use.disk, f"it shares nothing with {disk.record.name}")

    async def _look_for_members(self, disk: AttachedDisk, used: "list[Use]") -> Others:
        """Attach the other disks of a disk's backup, all at once. Those that its groups want may be
        there soon; the others are waited for a little, as one may claim to be what another is.
        `used` gets what keeps them in use."""
        failed: dict[int, RestoreError] = {}
        if is_whole(disk, ()):
            return Others((), failed)

        async def look(record: DiskRecord) -> None:
            use = Use(self, record)
            try:
                await use.begin()
            except RestoreError as error:
                failed[record.disk_index] = error
                return
            used.append(use)
            if is_whole(disk, [each.disk for each in used]):
                looking.cancel_scope.deadline = trio.current_time() + _OTHERS_SECONDS

        async with trio.open_nursery() as looking:
            for record in self._siblings(disk.record):
                if record.id != disk.record.id:
                    looking.start_soon(look, record)
        others = sorted((use.disk for use in used), key=lambda other: other.record.disk_index)
        return Others(others, failed)

    async def _find_volume(self, record: DiskRecord, kind: str, uuid: str, look: Look) -> bool:
        """Show `look` what holds something on a disk of a backup, beginning with the disk that
        asks, and keep that in use meanwhile; False where there is none."""
        siblings = [other for other in self._siblings(record) if other.id != record.id]
        for other in (record, *siblings):
            try:
                async with self.use(other) as disk:
                    for content in disk.contents.values():
                        identity, device = content.identity, content.volume.device
                        if identity is None or device is None:
                            continue
                        if (identity.kind, identity.uuid) == (kind, uuid):
                            await look(device)
                            return True
            except RestoreError as error:
                log.info("%s: not looked at for %s: %s", other.name, kind, error)
        return False

    async def _watch(self, disk: AttachedDisk) -> None:
        """Take a disk out of the pool when its server dies, or its image is changed."""
        await disk.transport.wait_closed()
        if self._attached.get(disk.record.id) is disk:
            said = disk.server.reason()
            reason = f"{disk.transport.closed}{': ' + said if said else ''}"
            self.note_failure(disk.record, StorageError(reason))
            changed = isinstance(disk.transport.closed, ChangedError)
            why = "its image was changed" if changed else "its server ended"
            await self._let_go(disk, why)

    async def _watch_image(self, disk: AttachedDisk, unchanged: Unchanged) -> None:
        """Have nothing more read of an image that is changed."""
        path: Path | None = None
        while path is None and disk.transport.closed is None:
            with trio.move_on_after(_LOOK_SECONDS):
                path = await unchanged.wait_written()
            if path is None:
                path = await self._starter.look_at(unchanged)
        if path is not None:
            disk.transport.close(ChangedError.of(path))

    async def _let_go(self, disk: AttachedDisk, why: str) -> None:
        """Let a disk go, and wait for it. Whoever waits may be cancelled: that cuts off nobody."""
        if self._is_attached(disk):
            await self._wait_ended(self._take_out(disk), why)

    async def _wait_ended(self, unit: set[AttachedDisk], why: str) -> None:
        """End disks that are out of the pool, and wait for that."""
        if not unit:
            return
        assert self._nursery is not None
        ended = trio.Event()
        self._nursery.start_soon(self._end, unit, why, ended)
        await ended.wait()

    async def _end(
        self, unit: set[AttachedDisk], why: str, ended: trio.Event | None = None
    ) -> None:
        """End the servers of disks that are no longer in the pool, after their last request."""
        try:
            with trio.move_on_after(_END_SECONDS):  # then they fail: storage may hang for ever
                while busy := [disk for disk in unit if disk.in_use]:
                    await busy[0].idle.wait()
        finally:  # also when cancelled: nobody else would ever do it
            for disk in unit:
                disk.transport.close(StorageError(f"{disk.transport.name}: detached"))
                if disk.unchanged is not None:
                    disk.unchanged.end()
            for disk in unit:
                self.bytes_read_before += disk.device.bytes_read
                await disk.server.stop()
                if disk.record.id not in self._attached:  # else the record is its successor's
                    self._ledger.detached(disk)
                log.info("detached %s: %s", disk.record.name, why)
            if ended is not None:
                ended.set()

    async def _let_idle_go(self) -> None:
        """Detach what nobody has used for the idle timeout; keep the records' times true."""
        timeout = self.settings.idle_timeout or math.inf
        noted: dict[int, float] = {}
        while True:
            now = trio.current_time()
            for disk in self.attached:
                if not self._is_attached(disk):  # let go while another was waited for
                    continue
                in_use = any(each.in_use for each in disk.unit)
                if not in_use and now - _last_access(disk) >= timeout:
                    await self._let_go(disk, f"not used for {timeout:g} s")
                elif disk.last_access > noted.get(disk.record.id, disk.last_access - 1):
                    self._ledger.touched(disk)
                noted[disk.record.id] = disk.last_access
            noted = {key: at for key, at in noted.items() if key in self._attached}
            soonest = min(map(_last_access, self.attached), default=now) + timeout
            await trio.sleep_until(min(max(soonest, now + timeout / 10), now + _TOUCH_SECONDS))


class Use:
    """One request's hold on a disk."""

    __slots__ = ("_disk", "_pool", "_record", "attached_it")

    def __init__(self, pool: Pool, record: DiskRecord) -> None:
        self._pool = pool
        self._record = record
        self._disk: AttachedDisk | None = None
        self.attached_it = False

    @property
    def disk(self) -> AttachedDisk:
        """The disk, between begin() and end()."""
        assert self._disk is not None
        return self._disk

    async def begin(self) -> AttachedDisk:
        """Attach the disk and keep it; it may not have the volumes of its groups yet."""
        self.attached_it = self._pool.find(self._record.id) is None
        disk = await self._pool.attach(self._record)
        # It may have been let go between the end of its attaching and this task's turn.
        while self._pool.find(self._record.id) is not disk:
            disk = await self._pool.attach(self._record)
        self._disk = disk
        disk.in_use += 1
        return disk

    def end(self) -> None:
        """Keep the disk no longer."""
        self._pool.free(self.disk)

    async def __aenter__(self) -> AttachedDisk:
        disk = await self.begin()
        if disk.members:
            try:
                await self._pool.assembled(disk)
            except RestoreError as error:
                self._pool.note_failure(self._record, error)
                self.end()
                raise
            except BaseException:
                self.end()
                raise
        return disk

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()
        if isinstance(error, _NOTED):
            self._pool.note_failure(self._record, error)


def _last_access(disk: AttachedDisk) -> float:
    """Return when a disk, or one that it shares volumes with, was used last."""
    return max(each.last_access for each in disk.unit)
