"""One file in every backup of a VM.

Owns the order of what is found and how two versions are told apart. Must not know how a path is
walked.

Concurrency: some disks are attached at once, each for as long as it is looked at.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import trio
from starlette.requests import Request
from starlette.responses import Response

from restorefs.catalog.records import BackupRecord
from restorefs.control import audit
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
class _Found:
    """What was found in one backup."""

    backup: BackupRecord
    version: Json | None = None
    state: tuple[object, ...] = ()
    errors: list[Json] = field(default_factory=list)


class Versions:
    """Versions of files."""

    def __init__(self, tree: Tree, paths: Paths, mounts: Mounts, limits: Limits) -> None:
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
        self._limits.searches.take()
        try:
            found = [_Found(backup) for backup in page]
            slots = trio.Semaphore(_AT_ONCE)
            async with trio.open_nursery() as nursery:
                for each in found:
                    nursery.start_soon(self._look, each, path, index, slots)
        finally:
            self._limits.searches.give_back()
        for each in found:
            if each.version is not None:
                record = next(
                    d for d in each.backup.disks if d.disk_index == each.version["disk_index"]
                )
                self._mounts.add(record)
                audit.note(who, "versions", record, each.version["path"])
        return JsonResponse(
            {
                "vm": vm,
                "path": path,
                "versions": _compared(found),
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
                    about = {"backup_id": record.backup_id, "disk_index": record.disk_index}
                    found.errors.append(about | describe(error))
                    continue
                found.version, found.state = _version(found.backup, place)
                found.version |= {
                    "mount_id": mount_id(record),
                    "disk_index": record.disk_index,
                }
                return


def _version(backup: BackupRecord, place: Place) -> tuple[Json, tuple[object, ...]]:
    attributes = place.entry.attributes
    assert attributes is not None
    told = {
        "backup_id": backup.id,
        "created_at": time_text(backup.created_at),
        "path": place.shown,
        "type": type_of(attributes.mode),
        "size": attributes.size,
        "modified_time": time_of(attributes.mtime_ns),
    }
    return told, (told["type"], attributes.size, attributes.mtime_ns)


def _compared(found: list[_Found]) -> list[Json]:
    """Return the versions, newest first, each compared with the next older one."""
    told = [(each.version, each.state) for each in found if each.version is not None]
    older: list[tuple[object, ...] | None] = [*(state for _, state in told[1:]), None]
    return [
        version | {"differs": None if before is None else state != before}
        for (version, state), before in zip(told, older, strict=True)
    ]
