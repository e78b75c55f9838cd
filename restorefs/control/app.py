"""The API's calls.

Owns their paths, and that the application is made of its parts. Must not touch the mount through
the kernel: it asks the same tree and pool.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from restorefs.control import problems
from restorefs.control.archive import Archives
from restorefs.control.backups import Backups
from restorefs.control.files import Files
from restorefs.control.guard import Guard, Hosts
from restorefs.control.limits import Limits
from restorefs.control.metrics import MEDIA_TYPE, ApiFigures, Metrics
from restorefs.control.mounts import Mounts
from restorefs.control.pages import Pages
from restorefs.control.paths import Paths
from restorefs.control.problems import JsonResponse, ProblemError
from restorefs.control.query import Query, json_body
from restorefs.control.query import field as field_of
from restorefs.control.restore import Restore
from restorefs.control.search import Searches
from restorefs.control.sessions import COOKIE, SESSION_SECONDS, Doorkeeper
from restorefs.control.status import Status
from restorefs.control.versions import Versions
from restorefs.control.who import Who, address_of, require_all, who_asks
from restorefs.counters import FUSE
from restorefs.errors import RestoreError
from restorefs.session.pool import Pool
from restorefs.tree.tree import Tree

_BACKUP = "/api/v1/backups/{backup_id:name}"
_DISK = _BACKUP + "/disks/{disk_index:index}"
_MOUNT = "/api/v1/restore/{mount_id}"
_OPEN = ("/healthz", "/api/v1/openapi.json", "/api/v1/session")  # session(): says who one is


class _Name(Convertor[str]):
    """A backup's id, which may be anything."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _Index(Convertor[int]):
    """A disk's number; Python refuses to read one of thousands of digits."""

    regex = "[0-9]{1,18}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("name", _Name())
register_url_convertor("index", _Index())


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask, and by which names; the default is for a unix socket alone. `operations`: names
    of the kernel's requests, for the metrics."""

    doorkeeper: Doorkeeper = field(default_factory=lambda: Doorkeeper(None))
    hosts: Hosts = field(default_factory=Hosts)
    operations: Mapping[int, str] = field(default_factory=dict)


def make_app(status: Status, tree: Tree, pool: Pool, access: Access | None = None) -> ASGIApp:
    """Return the application."""
    access = access or Access()
    figures, limits = ApiFigures(), Limits()
    mounts, paths = Mounts(tree, pool), Paths(tree, pool)
    metrics = Metrics(pool, figures, FUSE, access.operations)
    daemon = _Daemon(status, tree, metrics, access.doorkeeper)
    backups = Backups(tree, pool)
    restore = Restore(tree, pool, mounts, status.mountpoint)
    files = Files(tree, paths, mounts, limits, figures)
    archives = Archives(tree, paths, mounts, limits, figures)
    searches = Searches(tree, paths, mounts, limits)
    versions = Versions(tree, paths, mounts, limits, pool.settings.max_attached)
    pages = Pages()
    app = Starlette(
        routes=[
            Route("/api/v1/openapi.json", daemon.openapi),
            Route("/api/v1/session", daemon.session, methods=["GET"]),
            Route("/api/v1/session", daemon.begin_session, methods=["POST"]),
            Route("/api/v1/session", daemon.end_session, methods=["DELETE"]),
            Route("/api/v1/status", daemon.status),
            Route("/api/v1/reload", daemon.reload, methods=["POST"]),
            Route("/api/v1/vms", backups.vms),
            Route("/api/v1/versions", versions.versions),
            Route("/api/v1/backups", backups.backups),
            Route(_BACKUP + "/volumes", backups.volumes),
            Route(_BACKUP + "/disks", backups.disks),
            Route(_DISK + "/attachment", backups.attach, methods=["PUT"]),
            Route(_DISK + "/attachment", backups.detach, methods=["DELETE"]),
            Route("/api/v1/restore/mount", restore.mount, methods=["POST"]),
            Route("/api/v1/restore/mounts", restore.mounts),
            Route(_MOUNT, restore.unmount, methods=["DELETE"]),
            Route(_MOUNT + "/files", files.files),
            Route(_MOUNT + "/download", files.download),
            Route(_MOUNT + "/preview", files.preview),
            Route(_MOUNT + "/archive", archives.archive, methods=["GET", "POST"]),
            Route(_MOUNT + "/search", searches.search),
            Route("/metrics", daemon.metrics),
            Route("/healthz", daemon.healthz),
            Route("/", pages.page),
            *(Route("/" + name, pages.page, name=name) for name in pages.names),
        ],
        exception_handlers={
            RestoreError: problems.answer,
            ProblemError: problems.answer,
            HTTPException: problems.answer,
            Exception: problems.bug,
        },
    )
    app.router.redirect_slashes = False
    open_paths = (*_OPEN, "/", *("/" + name for name in pages.names))
    return Guard(app, access.doorkeeper, access.hosts, figures, open_paths)


class _Daemon:
    """The calls about the daemon itself."""

    def __init__(
        self, status: Status, tree: Tree, metrics: Metrics, doorkeeper: Doorkeeper
    ) -> None:
        self._status = status
        self._tree = tree
        self._metrics = metrics
        self._doorkeeper = doorkeeper

    async def openapi(self, request: Request) -> Response:
        from restorefs.control.openapi import make_document  # a large one, which few ask for

        return JsonResponse(make_document())

    async def status(self, request: Request) -> Response:
        Query(request)
        return JsonResponse(self._status.describe(self._tree.namespace, who_asks(request)))

    async def reload(self, request: Request) -> Response:
        """Ask the catalog now, and say what is new and what has gone."""
        Query(request)
        require_all(request)
        changed = await self._status.refresher.load()
        namespace = self._tree.namespace
        counts = {"backups": len(namespace.backups), "disks": len(namespace.disks)}
        return JsonResponse(
            counts | {"added": list(changed.added), "removed": list(changed.removed)}
        )

    async def metrics(self, request: Request) -> Response:
        require_all(request)
        return Response(self._metrics.render(), headers={"Content-Type": MEDIA_TYPE})

    async def healthz(self, request: Request) -> Response:
        if self._status.refresher.error is not None:
            return JsonResponse({"status": "catalog"}, 503)
        return JsonResponse({"status": "ok"})

    async def session(self, request: Request) -> Response:
        Query(request)
        headers = request.headers
        who = self._doorkeeper.who(
            headers.get("authorization"), headers.get("cookie"), address_of(request.scope)
        )
        return JsonResponse(_describe_who(who))

    async def begin_session(self, request: Request) -> Response:
        token = field_of(await json_body(request, "token"), "token", str, "")
        session, who = self._doorkeeper.begin(token, address_of(request.scope))
        response = JsonResponse(_describe_who(who))
        response.set_cookie(
            COOKIE,
            session,
            max_age=SESSION_SECONDS,
            secure=request.scope["scheme"] == "https",
            httponly=True,
            samesite="strict",
        )
        return response

    async def end_session(self, request: Request) -> Response:
        Query(request)
        self._doorkeeper.end(request.headers.get("cookie"), address_of(request.scope))
        response = JsonResponse({"ended": True})
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response


def _describe_who(who: Who) -> dict[str, object]:
    vms = None if who.vms is None else list(who.vms)
    return {"name": who.name, "kind": who.kind, "vms": vms}
