"""The calls about backups, VMs, disks and volumes.

Owns how they are filtered and paged. Only what says so attaches anything.
"""

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from restorefs.catalog.records import BackupRecord, DiskRecord
from restorefs.control import audit
from restorefs.control.disks import backup_in_path, disk_of, visible
from restorefs.control.problems import JsonResponse
from restorefs.control.query import Query, paged
from restorefs.control.rows import Json
from restorefs.control.status import describe_backup, describe_disk, describe_record, time_text
from restorefs.control.who import who_asks
from restorefs.errors import RestoreError
from restorefs.session.pool import Pool
from restorefs.tree.tree import Tree

SORTS = ("created", "-created", "id", "-id")
_EARLIEST = datetime.min.replace(tzinfo=UTC)


class Backups:
    """What the catalog has, and what is on disks."""

    def __init__(self, tree: Tree, pool: Pool) -> None:
        self._tree = tree
        self._pool = pool

    async def backups(self, request: Request) -> Response:
        query = Query(request, "offset", "limit", "vm", "q", "since", "until", "sort")
        found = _filtered(list(visible(self._tree, who_asks(request))), query)
        sort = query.choice("sort", SORTS)
        if sort is not None:
            key = _id if sort.endswith("id") else _created
            found.sort(key=key, reverse=sort.startswith("-"))
        page, offset = paged(found, query)
        return JsonResponse(
            {
                "backups": [describe_backup(backup) for backup in page],
                "total_count": len(found),
                "offset": offset,
            }
        )

    async def vms(self, request: Request) -> Response:
        query = Query(request, "offset", "limit", "q")
        wanted = (query.text("q") or "").lower()
        by_vm: dict[str, list[BackupRecord]] = {}
        for backup in visible(self._tree, who_asks(request)):
            if wanted in backup.vm_name.lower():
                by_vm.setdefault(backup.vm_name, []).append(backup)
        page, offset = paged(sorted(by_vm), query)
        vms = [_describe_vm(name, by_vm[name]) for name in page]
        return JsonResponse({"vms": vms, "total_count": len(by_vm), "offset": offset})

    async def disks(self, request: Request) -> Response:
        Query(request)
        backup = backup_in_path(self._tree, request)
        disks = [describe_record(record) for record in backup.disks]
        return JsonResponse({"backup_id": backup.id, "disks": disks, "count": len(disks)})

    async def volumes(self, request: Request) -> Response:
        """Everything on every disk of a backup; attaches them. A disk that fails says why."""
        Query(request)
        backup = backup_in_path(self._tree, request)
        disks = []
        for record in backup.disks:
            try:
                async with self._pool.use(record) as attached:
                    audit.note(who_asks(request), "volumes", record)
                    disks.append(describe_disk(record, attached, self._failure(record)))
            except RestoreError as error:
                disks.append(describe_disk(record, None, str(error)))
        return JsonResponse(describe_backup(backup) | {"disks": disks})

    async def attach(self, request: Request) -> Response:
        record = self._disk(request)
        async with self._pool.use(record) as attached:
            audit.note(who_asks(request), "attach", record)
            return JsonResponse(describe_disk(record, attached, self._failure(record)))

    async def detach(self, request: Request) -> Response:
        record = self._disk(request)
        who = who_asks(request)
        detached = await self._pool.detach(record.id, "asked to")
        audit.note(who, "detach", record)
        return JsonResponse(
            {
                "backup_id": record.backup_id,
                "disk_index": record.disk_index,
                "detached": detached,
            }
        )

    def _failure(self, record: DiskRecord) -> str | None:
        failure = self._pool.failures.get(record.id)
        return failure.reason if failure is not None else None

    def _disk(self, request: Request) -> DiskRecord:
        Query(request)
        backup = backup_in_path(self._tree, request)
        return disk_of(backup, request.path_params["disk_index"])


def _filtered(backups: list[BackupRecord], query: Query) -> list[BackupRecord]:
    vm, wanted = query.text("vm"), (query.text("q") or "").lower()
    since, until = query.time("since"), query.time("until")
    return [
        backup
        for backup in backups
        if (vm is None or backup.vm_name == vm)
        and (wanted in backup.id.lower() or wanted in backup.vm_name.lower())
        and (since is None or (backup.created_at is not None and backup.created_at >= since))
        and (until is None or (backup.created_at is not None and backup.created_at <= until))
    ]


def _describe_vm(name: str, backups: list[BackupRecord]) -> Json:
    backups = sorted(backups, key=_created)
    times = [backup.created_at for backup in backups if backup.created_at is not None]
    return {
        "vm_name": name,
        "backups": len(backups),
        "first_at": time_text(times[0]) if times else None,
        "latest_at": time_text(times[-1]) if times else None,
        "latest_backup_id": backups[-1].id,
    }


def _created(backup: BackupRecord) -> tuple[datetime, str]:
    return backup.created_at or _EARLIEST, backup.id


def _id(backup: BackupRecord) -> str:
    return backup.id
