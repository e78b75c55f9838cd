"""Keeps the tree as the catalog is.

Owns when the catalog is asked, and what happens to disks that left it. What was known keeps being
served while the catalog is down. Must not know what kind of catalog it is.
"""

import logging
import time

import trio

from restorefs.catalog.base import Catalog
from restorefs.catalog.records import BackupRecord
from restorefs.errors import CatalogError, RestoreError
from restorefs.session.pool import Pool
from restorefs.tree.namespace import Namespace
from restorefs.tree.tree import Tree

log = logging.getLogger(__name__)
_SECONDS = 30.0


class Refresher:
    """Loads the catalog into a tree, now and then."""

    def __init__(self, catalog: Catalog, tree: Tree, pool: Pool) -> None:
        self.catalog_name = catalog.describe()
        self.error: str | None = None
        self._catalog = catalog
        self._tree = tree
        self._pool = pool
        self._known: tuple[BackupRecord, ...] | None = None
        self._started_ns = time.time_ns()
        self._woken = trio.Event()

    async def load(self) -> None:
        """Ask the catalog once and make the tree as it says. Raises CatalogError."""
        try:
            backups = tuple(
                await trio.to_thread.run_sync(self._catalog.backups, abandon_on_cancel=True)
            )
            if backups == self._known:
                return
            namespace = await trio.to_thread.run_sync(Namespace, backups, self._started_ns)
        except RestoreError:
            raise
        except Exception as error:  # whatever somebody wrote into a database must not end us
            log.exception("unexpected error in the catalog")
            raise CatalogError(f"{self.catalog_name} cannot be understood: {error!r}") from error
        before = self._tree.namespace
        self._known = backups
        self._tree.namespace = namespace
        for disk_id, disk in before.disks.items():
            if namespace.disks.get(disk_id) != disk:
                self._pool.withdraw(disk_id, "it left the catalog")

    def wake(self) -> None:
        """Ask the catalog at once."""
        self._woken.set()

    async def run(self) -> None:
        """Ask the catalog every half minute, and when woken; log when it goes and comes back."""
        while True:
            with trio.move_on_after(_SECONDS):
                await self._woken.wait()
            self._woken = trio.Event()
            try:
                await self.load()
            except CatalogError as error:
                if self.error is None:
                    log.warning("the catalog cannot be read; serving what was known: %s", error)
                self.error = str(error)
            else:
                if self.error is not None:
                    log.warning("the catalog can be read again")
                self.error = None
