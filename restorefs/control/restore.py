"""The calls that mount and unmount, as the product's GUI makes them.

Owns the fields of a mount. There is nothing to mount: the disk's folder is in the mount already, so
this attaches the disk.
"""

from datetime import timedelta
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from restorefs.catalog.records import DiskRecord
from restorefs.control import audit
from restorefs.control.disks import backup_of
from restorefs.control.mounts import Mounts, mount_id
from restorefs.control.problems import JsonResponse, ProblemError
from restorefs.control.query import Query, field, json_body
from restorefs.control.rows import Json
from restorefs.control.status import time_text
from restorefs.control.who import who_asks
from restorefs.session.disk import AttachedDisk
from restorefs.session.pool import Pool
from restorefs.tree.namespace import safe_name
from restorefs.tree.tree import Tree


class Restore:
    """Mounting and unmounting."""

    def __init__(self, tree: Tree, pool: Pool, mounts: Mounts, mountpoint: Path) -> None:
        self._tree = tree
        self._pool = pool
        self._mounts = mounts
        self._mountpoint = mountpoint

    async def mount(self, request: Request) -> Response:
        body = await json_body(request, "backup_id", "disk_index")
        who = who_asks(request)
        backup = backup_of(self._tree, who, field(body, "backup_id", str))
        index = field(body, "disk_index", int, 0)
        record = next((disk for disk in backup.disks if disk.disk_index == index), None)
        if record is None:
            known = ", ".join(str(disk.disk_index) for disk in backup.disks)
            raise ProblemError(422, f"disk_index {index}: {backup.id} has the disks {known}")
        async with self._pool.use(record) as disk:
            self._mounts.add(who, record)
            audit.note(who, "mount", record)
            return JsonResponse(self._describe(disk))

    async def mounts(self, request: Request) -> Response:
        Query(request)
        who = who_asks(request)
        found = [
            self._describe(disk)
            for disk in self._pool.attached
            if self._mounts.may_see(who, disk.record)
        ]
        return JsonResponse({"mounts": found, "count": len(found)})

    async def unmount(self, request: Request) -> Response:
        Query(request)
        who = who_asks(request)
        record = self._mounts.find(who, request.path_params["mount_id"])
        await self._mounts.remove(who, record)
        audit.note(who, "unmount", record)
        return JsonResponse({"mount_id": request.path_params["mount_id"], "status": "unmounted"})

    def _describe(self, disk: AttachedDisk) -> Json:
        record = disk.record
        accessed = disk.last_accessed_at
        idle = self._pool.settings.idle_timeout
        return {
            "mount_id": mount_id(record),
            "backup_id": record.backup_id,
            "backup_disk_id": record.id,
            "disk_index": record.disk_index,
            "mount_path": str(self._folder(record)),
            "nbd_device": f"restorefs-{record.id}",  # as in restore_mounts
            "filesystem_type": _main_filesystem(disk),
            "status": "mounted",
            "created_at": time_text(disk.attached_at),
            "last_accessed_at": time_text(accessed),
            "expires_at": time_text(accessed + timedelta(seconds=idle)) if idle else None,
        }

    def _folder(self, record: DiskRecord) -> Path:
        name = safe_name(record.backup_id).decode("utf-8", "surrogateescape")
        return self._mountpoint / "backups" / name / f"disk{record.disk_index}"


def _main_filesystem(disk: AttachedDisk) -> str:
    """Return the kind of the largest file system that can be read."""
    sized = [
        (content.volume.device.size, content.identity.kind)
        for content in disk.contents.values()
        if content.identity is not None and content.identity.readable and content.volume.device
    ]
    return max(sized, default=(0, ""))[1]
