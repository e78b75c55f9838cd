"""One file in every backup of a VM.

Owns the order of what is found, and which version is compared with which. Must not know how a path
is walked, or what makes two versions different.

Concurrency: some disks are attached at once, each for as long as it is looked at.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise

import trio
from starlette.requests import Request
from starlette.responses import Response

from restorefs.catalog.records import BackupRecord, DiskRecord
from restorefs.control import audit
from restorefs.control.comparing import differs
from restorefs.control.disks import visible
from restorefs.control.limits import Limits
from restorefs.control.mounts import Mounts, mount_id
from restorefs.control.paths import Paths, Place, names_of
from restorefs.control.problems import JsonResponse, describe
from restorefs.control.query import Query, paged
from restorefs.control.rows import Json, time_of, type_of
from restorefs.control.status import time_text
from restorefs.control.who import who_asks
from restorefs.errors import NotAFolderError, NotFoundError, RestoreError
from restorefs.tree.tree import Tree

_AT_ONCE = 4
_DEFAULT, _MOST = 20, 100
_EARLIEST = datetime.min.replace(tzinfo=UTC)


@dataclass
class _Version:
    """The file in one backup."""

    backup: BackupRecord
    record: DiskRecord
    place: Place
    differs: bool | None = None

    def describe(self) -> Json:
        attributes = self.place.entry.attributes
        assert attributes is not None
        return {
            "backup_id": self.backup.id,
            "created_at": time_text(self.backup.created_at),
            "mount_id": mount_id(self.record),
            "disk_index": self.record.disk_index,
            "path": self.place.shown,
            "type": type_of(attributes.mode),
            "size": attributes.size,
            "modified_time": time_of(attributes.mtime_ns),
            "differs": self.differs,
        }


@dataclass
class _Found:
    """What was found in one backup."""

    backup: BackupRecord
    version: _Version | None = None
    errors: list[Json] = field(default_factory=list)

    @property
    def is_absent(self) -> bool:
        """Whether it is known that the backup does not hold the file."""
        return self.version is None and not self.errors

    def describe(self) -> Json:
        return {
            "backup_id": self.backup.id,
            "created_at": time_text(self.backup.created_at),
        }

    def fail(self, record: DiskRecord, error: RestoreError) -> None:
        about = self.describe() | {"disk_index": record.disk_index}
        self.errors.append(about | describe(error))


class Versions:
    """Versions of files."""

    def __init__(
        self, tree: Tree, paths: Paths, mounts: Mounts, limits: Limits, max_attached: int
    ) -> None:
        """max_attached: how many disks may be attached at once; half of that are ours at most."""
        self._at_once = max(1, min(_AT_ONCE, max_attached // 2))
        self._tree = tree
        self._paths = paths
        self._mounts = mounts
        self._limits = limits

    async def versions(self, request: Request) -> Response:
        query = Query(request, "vm", "path", "disk_index", "offset", "limit")
        who = who_asks(request)
        vm, path = query.needed("vm"), query.needed("path")
        names_of(path)  # refuse what cannot be one before anything is attached
        index = query.number("disk_index", 0) if query.text("disk_index") is not None else None
        backups = [b for b in visible(self._tree, who) if b.vm_name == vm]
        if not backups:
            raise NotFoundError(f"there is no VM {vm!r}")
        backups.sort(key=lambda each: (each.created_at or _EARLIEST, each.id), reverse=True)
        page, offset = paged(backups, query, _MOST, _DEFAULT)
        looked_at = backups[offset : offset + len(page) + 1]  # the last one's neighbour, too
        self._limits.versions.take()
        try:
            found = [_Found(backup) for backup in looked_at]
            slots = trio.Semaphore(self._at_once)
            async with trio.open_nursery() as nursery:
                for each in found:
                    nursery.start_soon(self._look, each, path, index, slots)
            holding = [each for each in found if each.version is not None]
            async with trio.open_nursery() as nursery:
                for newer, older in pairwise(holding):
                    nursery.start_soon(self._compare, newer, older, slots)
        finally:
            self._limits.versions.give_back()
        found = found[: len(page)]
        versions = [each.version for each in found if each.version is not None]
        for version in versions:
            self._mounts.add(who, version.record)
            audit.note(who, "versions", version.record, version.place.shown)
        return JsonResponse(
            {
                "vm": vm,
                "path": path,
                "versions": [version.describe() for version in versions],
                "absent": [each.describe() for each in found if each.is_absent],
                "errors": [error for each in found for error in each.errors],
                "total_count": len(backups),
                "offset": offset,
            }
        )

    async def _look(
        self, found: _Found, path: str, index: int | None, slots: trio.Semaphore
    ) -> None:
        """Look for the file on the disks of one backup, until it is found."""
        async with slots:
            for record in found.backup.disks:
                if index is not None and record.disk_index != index:
                    continue
                try:
                    place = await self._paths.find(record, path)
                except (NotFoundError, NotAFolderError):
                    continue
                except RestoreError as error:
                    found.fail(record, error)
                    continue
                found.version = _Version(found.backup, record, place)
                return

    async def _compare(self, newer: _Found, older: _Found, slots: trio.Semaphore) -> None:
        """Say of a version how it differs from the next older one."""
        version, before = newer.version, older.version
        assert version is not None
        assert before is not None
        async with slots:
            try:
                version.differs = await differs(self._tree, version.place.entry, before.place.entry)
            except RestoreError as error:
                newer.fail(version.record, error)
