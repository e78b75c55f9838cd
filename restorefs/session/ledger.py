"""Tells the catalog which disks are attached, behind the back of those who read.

Owns the order of what is written and that a catalog which is down delays nobody: writes go through
a queue to a worker thread, one at a time; a failure is a warning. Must not know why a disk comes
or goes.
"""

import logging
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import trio

from restorefs.catalog.base import Catalog
from restorefs.catalog.records import AttachRecord
from restorefs.errors import CatalogError
from restorefs.session.disk import AttachedDisk

log = logging.getLogger(__name__)
_QUEUE = 10_000


class Ledger:
    """The attach records of this daemon."""

    def __init__(self, catalog: Catalog, mountpoint: Path, idle_timeout: float) -> None:
        """`idle_timeout` in seconds, 0 for never: it gives the records their expiry."""
        self._catalog = catalog
        self._mountpoint = mountpoint
        self._idle_timeout = idle_timeout
        self._send, self._receive = trio.open_memory_channel[Callable[[], None]](_QUEUE)

    async def run(self) -> None:
        """Write until close() was called and everything before it is written."""
        async for write in self._receive:
            try:
                await trio.to_thread.run_sync(write)
            except CatalogError as error:
                log.warning("the attach record was not written: %s", error)
            except Exception:
                log.exception("the attach record was not written")

    def close(self) -> None:
        """Take no more records."""
        self._send.close()

    def attached(self, disk: AttachedDisk) -> None:
        record = self._record(disk)
        self._put(lambda: self._catalog.record_attach(record))

    def touched(self, disk: AttachedDisk) -> None:
        record = self._record(disk)
        self._put(lambda: self._catalog.touch_attach(record))

    def detached(self, disk: AttachedDisk) -> None:
        self._put(lambda: self._catalog.forget_attach(disk.record.id))

    def _put(self, write: Callable[[], None]) -> None:
        try:
            self._send.send_nowait(write)
        except trio.WouldBlock:
            log.warning("the catalog is too slow: an attach record was not written")

    def _record(self, disk: AttachedDisk) -> AttachRecord:
        accessed = disk.last_accessed_at
        keeps = timedelta(seconds=self._idle_timeout)
        folder = self._mountpoint / "backups" / disk.record.backup_id
        return AttachRecord(
            backup_disk_id=disk.record.id,
            mount_path=_text(folder / f"disk{disk.record.disk_index}"),
            socket_path=_text(disk.server.socket_path),
            filesystem_type=disk.filesystems,
            created_at=disk.attached_at,
            last_accessed_at=accessed,
            expires_at=accessed + keeps if self._idle_timeout else None,
        )


def _text(path: Path) -> str:
    """Return a path as a database takes it: what is not UTF-8 is replaced."""
    return os.fsencode(path).decode(errors="replace")
