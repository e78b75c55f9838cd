"""The API's calls.

Owns paths, status codes and problem documents (RFC 9457). Must not touch the mount through the
kernel: it asks the same tree and pool.
"""

import errno
import json
import logging
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from restorefs.catalog.records import BackupRecord, DiskRecord
from restorefs.control.status import Status, describe_backup, describe_disk
from restorefs.errors import NotFoundError, RestoreError
from restorefs.session.pool import Failure, Pool
from restorefs.tree.tree import Tree

log = logging.getLogger(__name__)

STATUS_CODES = {
    errno.ENOENT: 404,
    errno.EBUSY: 409,
    errno.ESTALE: 410,
    errno.EINVAL: 422,
    errno.ENOKEY: 423,
    errno.EOPNOTSUPP: 501,
    errno.EIO: 502,
    errno.ETIMEDOUT: 504,
}


class _Json(JSONResponse):
    """JSON in ASCII: a name that is not UTF-8 becomes escapes, which give it back when read."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode()


def make_app(status: Status, tree: Tree, pool: Pool) -> Starlette:
    """Return the application."""
    calls = _Calls(status, tree, pool)
    # `path`, because a backup's id may hold a slash.
    disk = "/api/v1/backups/{backup_id:path}/disks/{disk_index:int}"
    return Starlette(
        routes=[
            Route("/api/v1/status", calls.status),
            Route("/api/v1/reload", calls.reload, methods=["POST"]),
            Route("/api/v1/backups", calls.backups),
            Route("/api/v1/backups/{backup_id:path}/volumes", calls.volumes),
            Route(disk + "/attachment", calls.attach, methods=["PUT"]),
            Route(disk + "/attachment", calls.detach, methods=["DELETE"]),
        ],
        exception_handlers={
            RestoreError: _problem,
            HTTPException: _http_problem,
            Exception: _bug,
        },
    )


class _Calls:
    def __init__(self, status: Status, tree: Tree, pool: Pool) -> None:
        self._status = status
        self._tree = tree
        self._pool = pool

    async def status(self, request: Request) -> Response:
        return _Json(self._status.describe(self._tree.namespace))

    async def reload(self, request: Request) -> Response:
        """Ask the catalog now, and say what is new and what has gone."""
        changed = await self._status.refresher.load()
        namespace = self._tree.namespace
        counts = {"backups": len(namespace.backups), "disks": len(namespace.disks)}
        return _Json(counts | {"added": list(changed.added), "removed": list(changed.removed)})

    async def backups(self, request: Request) -> Response:
        backups = self._tree.namespace.backups.values()
        return _Json({"backups": [describe_backup(backup) for backup in backups]})

    async def volumes(self, request: Request) -> Response:
        """Everything on every disk of a backup; attaches them. A disk that fails says why."""
        backup = self._backup(request)
        disks = []
        for record in backup.disks:
            try:
                async with self._pool.use(record) as attached:
                    disks.append(describe_disk(record, attached, self._failure(record)))
            except RestoreError:
                disks.append(describe_disk(record, None, self._failure(record)))
        return _Json(describe_backup(backup) | {"disks": disks})

    async def attach(self, request: Request) -> Response:
        record = self._disk(request)
        async with self._pool.use(record) as attached:
            return _Json(describe_disk(record, attached, self._failure(record)))

    async def detach(self, request: Request) -> Response:
        record = self._disk(request)
        detached = await self._pool.detach(record.id, "asked to")
        return _Json(
            {
                "backup_id": record.backup_id,
                "disk_index": record.disk_index,
                "detached": detached,
            }
        )

    def _failure(self, record: DiskRecord) -> Failure | None:
        return self._pool.failures.get(record.id)

    def _backup(self, request: Request) -> BackupRecord:
        backup_id = request.path_params["backup_id"]
        backup = self._tree.namespace.backups.get(backup_id)
        if backup is None:
            raise NotFoundError(f"there is no backup {backup_id!r}")
        return backup

    def _disk(self, request: Request) -> DiskRecord:
        backup = self._backup(request)
        index = request.path_params["disk_index"]
        for disk in backup.disks:
            if disk.disk_index == index:
                return disk
        known = ", ".join(str(disk.disk_index) for disk in backup.disks)
        raise NotFoundError(f"{backup.id} has no disk {index}; it has {known}")


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, RestoreError)
    return _document(STATUS_CODES.get(error.errno, 500), str(error), error.errno)


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _document(error.status_code, error.detail, None)


async def _bug(request: Request, error: Exception) -> Response:
    log.error("unexpected error in %s %s", request.method, request.url.path, exc_info=error)
    return _document(500, f"internal error: {error!r}", None)


def _document(status: int, detail: str, code: int | None) -> Response:
    content = {"status": status, "detail": detail, "errno": code and errno.errorcode.get(code)}
    return _Json(content, status, media_type="application/problem+json")
