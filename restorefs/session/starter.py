"""From a disk's record to the disk, attached: its image checked and served, its content recognised.

Owns the steps of attaching one disk, and that storage which hangs holds one thread. Must not know
which disks are attached, or for how long.

Concurrency: any number of disks may be started at once; each has its tasks in the caller's nursery.
"""

import functools
import itertools
import math
from pathlib import Path

import trio

from restorefs.block.cache import BlockCache, CachedDisk
from restorefs.block.nbd import NbdTransport, Trouble
from restorefs.catalog.records import DiskRecord
from restorefs.errors import AttachTimeoutError, RestoreError, StorageError
from restorefs.session.assembly import read_members
from restorefs.session.disk import AttachedDisk, Content, Find, identify_all
from restorefs.session.qcow2 import Chain, inspect_chain
from restorefs.session.qemu_nbd import QemuNbd
from restorefs.session.remote import Served, serve_image
from restorefs.session.settings import PoolSettings
from restorefs.session.unchanged import ChangedError, Unchanged
from restorefs.session.uri import RawDisk, parse
from restorefs.volumes.registry import read_table


class Starter:
    """Starts disks."""

    def __init__(self, settings: PoolSettings, cache: BlockCache) -> None:
        self._settings = settings
        self._cache = cache
        self._inspecting: set[int] = set()
        self._threads = trio.CapacityLimiter(math.inf)
        self._sockets = itertools.count(1)

    async def start(
        self, record: DiskRecord, nursery: trio.Nursery, find_volume: Find
    ) -> AttachedDisk:
        """Have a disk served, and look at what is on it; its tasks run in `nursery`. Raises
        StorageError, AttachTimeoutError, UnsupportedError, KeyNeededError, DamagedError."""
        served = await self._serve(record, nursery)
        try:
            device = CachedDisk(self._cache, served.transport)
            table = await read_table(device)
            contents = {volume.index: Content(volume) for volume in table.volumes}
            await identify_all(contents.values())
            members = await read_members(contents)
        except BaseException:
            await served.end()
            raise
        return AttachedDisk(
            record,
            served.server,
            served.transport,
            device,
            table,
            contents,
            nursery,
            find_volume,
            members,
            options=self._settings.guest_options,
            unchanged=served.unchanged,
        )

    async def _serve(self, record: DiskRecord, nursery: trio.Nursery) -> Served:
        """Start the server of what the record names, after a look at that. The caller ends it."""
        if record.scheme is None:
            return await self._serve_file(record, nursery)
        try:
            remote = parse(record.qcow2_path, self._settings.schemes, self._settings.web)
            try:
                if isinstance(remote, RawDisk):
                    server = QemuNbd.start(
                        remote.blockdev(), self._socket(record), shown=record.shown_path
                    )
                    return Served(server, await self._connect(nursery, record, server))
                return await serve_image(
                    remote,
                    functools.partial(self._socket, record),
                    functools.partial(self._connect, nursery, record),
                    *(self._cache, self._threads, record.shown_path),
                )
            except StorageError as error:
                raise type(error)(remote.explain(str(error))) from None
        except RestoreError as error:
            text = str(error).removeprefix(f"{record.name}: ")
            shown = record.shown_path
            raise type(error)(text if shown in text else f"{shown}: {text}") from None

    async def _serve_file(self, record: DiskRecord, nursery: trio.Nursery) -> Served:
        unchanged = Unchanged()
        try:
            chain = await self._inspect(record, unchanged)

            def trouble() -> StorageError | None:
                path = unchanged.written()
                return ChangedError.of(path) if path is not None else None

            server = QemuNbd.start(chain.blockdev(), self._socket(record))
            transport = await self._connect(nursery, record, server, trouble)
            try:
                path = await self.look_at(unchanged)
                if path is not None:
                    raise ChangedError.of(path)  # noqa: TRY301
            except BaseException:
                await Served(server, transport).end()
                raise
        except BaseException:
            unchanged.end()
            raise
        return Served(server, transport, unchanged)

    async def look_at(self, unchanged: Unchanged) -> Path | None:
        """Return a file of an image that changed."""
        return await trio.to_thread.run_sync(
            unchanged.changed, abandon_on_cancel=True, limiter=self._threads
        )

    def _socket(self, record: DiskRecord) -> Path:
        return self._settings.runtime_dir / f"disk{record.id}-{next(self._sockets)}.sock"

    async def _connect(
        self,
        nursery: trio.Nursery,
        record: DiskRecord,
        server: QemuNbd,
        trouble: Trouble | None = None,
    ) -> NbdTransport:
        """Connect to a server, which ends if that fails. Raises StorageError with what it said."""
        try:
            transport = await NbdTransport.connect(
                server.socket_path, record.name, self._settings.read_timeout, trouble
            )
        except StorageError as error:
            reason = server.reason() or str(error)
            await server.stop()
            raise StorageError(reason) from None
        except BaseException:
            await server.stop()
            raise
        nursery.start_soon(transport.run, name=f"nbd {record.name}")
        return transport

    async def _inspect(self, record: DiskRecord, unchanged: Unchanged) -> Chain:
        """Check the image's chain, and begin to watch it, in a thread of its own: storage that
        hangs holds only that."""
        if record.id in self._inspecting:
            raise AttachTimeoutError(
                f"{record.name}: {record.shown_path} still does not answer an earlier attempt"
            )
        path = record.path
        repositories = self._settings.repositories or (path.parent,)

        def inspect() -> Chain:
            try:
                chain = inspect_chain(path, repositories)
                unchanged.watch(chain.files)
                return chain
            finally:
                self._inspecting.discard(record.id)

        self._inspecting.add(record.id)
        return await trio.to_thread.run_sync(inspect, abandon_on_cancel=True, limiter=self._threads)
