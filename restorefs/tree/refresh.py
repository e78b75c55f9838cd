"""Keeps the tree as the catalog is.

Owns when the catalog is asked, and what happens to disks that left it. What was known keeps being
served while the catalog is down. Must not know what kind of catalog it is.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import NamedTuple, TypeAlias

import trio

from restorefs.catalog.base import Catalog
from restorefs.catalog.records import BackupRecord
from restorefs.errors import CatalogError, RestoreError
from restorefs.session.pool import Pool
from restorefs.tree.namespace import Changes, Namespace
from restorefs.tree.tree import Tree

log = logging.getLogger(__name__)
_SECONDS = 30.0


Tell: TypeAlias = Callable[[Changes], Awaitable[None]]


class Difference(NamedTuple):
    """The ids of the backups that came, and of those that went."""

    added: Sequence[str]
    removed: Sequence[str]


class Refresher:
    """Loads the catalog into a tree, now and then."""

    def __init__(self, catalog: Catalog, tree: Tree, pool: Pool, vms: Sequence[str] = ()) -> None:
        """vms: show only backups of machines whose names match one of these; empty: all."""
        self.catalog_name = catalog.describe()
        self.error: str | None = None
        self.unread: Sequence[str] = ()
        """What in the catalog could not be read the last time."""
        self._catalog = catalog
        self._tree = tree
        self._pool = pool
        self._vms = vms
        self._known: Sequence[BackupRecord] | None = None
        self._started_ns = time.time_ns()
        self._woken = trio.Event()
        self._loading = trio.Lock()
        self.tell: Tell | None = None
        """Is told of every change, to take back what somebody keeps."""

    async def load(self) -> Difference:
        """Ask the catalog once and make the tree as it says; return what that changed. Logs when it
        goes and comes back. Raises CatalogError."""
        async with self._loading:
            try:
                difference = await self._load()
            except CatalogError as error:
                if self.error is None and self._known is not None:
                    log.warning("the catalog cannot be read; serving what was known: %s", error)
                self.error = str(error)
                raise
            if self.error is not None:
                log.warning("the catalog can be read again")
            self.error = None
            return difference

    async def _load(self) -> Difference:
        before = self._tree.namespace
        try:
            backups = await trio.to_thread.run_sync(self._catalog.backups, abandon_on_cancel=True)
            self.unread = self._catalog.unread
            if backups is self._known or backups == self._known:
                return Difference((), ())
            namespace, changes = await trio.to_thread.run_sync(self._compare, backups, before)
        except RestoreError:
            raise
        except Exception as error:  # whatever somebody wrote into a database must not end us
            log.exception("unexpected error in the catalog")
            raise CatalogError(f"{self.catalog_name} cannot be understood: {error!r}") from error
        self._known = backups
        self._tree.replace(namespace, changes)
        for disk_id in changes.gone:
            self._pool.withdraw(disk_id, "it left the catalog")
        if self.tell is not None:
            with trio.CancelScope(shield=True):  # whoever asked may leave; the tree is new already
                await self.tell(changes)
        return Difference(
            sorted(namespace.backups.keys() - before.backups.keys()),
            sorted(before.backups.keys() - namespace.backups.keys()),
        )

    def _compare(
        self, backups: Sequence[BackupRecord], before: Namespace
    ) -> tuple[Namespace, Changes]:
        shown = [backup for backup in backups if self._is_shown(backup)]
        namespace = Namespace(shown, self._started_ns)
        return namespace, namespace.changes_since(before)

    def _is_shown(self, backup: BackupRecord) -> bool:
        names = self._vms
        return not names or any(fnmatchcase(backup.vm_name, pattern) for pattern in names)

    def wake(self) -> None:
        """Ask the catalog at once."""
        self._woken.set()

    async def run(self) -> None:
        """Ask the catalog every half minute, and when woken."""
        while True:
            with trio.move_on_after(_SECONDS):
                await self._woken.wait()
            self._woken = trio.Event()
            with suppress(CatalogError):  # which is known, and said
                await self.load()
