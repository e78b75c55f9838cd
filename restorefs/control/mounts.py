"""The mounts of the API: disks that somebody asked for.

Owns their ids, and for whom they are valid: an id says which disk it is and which image that disk
is, so that it is the same in every daemon. It is valid for everybody who may see the disk, asked
for or not, until they unmount it: who goes on with a download after a restart need not mount first.
Letting an idle disk go ends no mount, and who unmounts ends nobody else's.
"""

import re

from restorefs.catalog.records import DiskRecord
from restorefs.control.who import Who
from restorefs.errors import GoneError, NotFoundError
from restorefs.session.pool import Pool
from restorefs.tree.tree import Tree


def mount_id(record: DiskRecord) -> str:
    """Return the id of a disk's mount."""
    return f"disk{record.id}-{record.generation:08x}"


class Mounts:
    """Which mounts there are."""

    def __init__(self, tree: Tree, pool: Pool) -> None:
        self._tree = tree
        self._pool = pool
        self._records: dict[str, DiskRecord] = {}  # of all that were ever asked for
        self._users: dict[str, set[str]] = {}  # who asked, by the mount
        self._ended: set[tuple[str, str]] = set()  # who unmounted what

    def add(self, who: Who, record: DiskRecord) -> str:
        """Have a mount of a disk for somebody; return its id."""
        found = mount_id(record)
        self._records[found] = record
        self._users.setdefault(found, set()).add(who.name)
        self._ended.discard((who.name, found))
        return found

    async def remove(self, who: Who, record: DiskRecord) -> None:
        """End somebody's mount. The disk is let go unless others asked for it, or for one that it
        shares volumes with, or somebody reads from it just now."""
        ended = mount_id(record)
        self._users.get(ended, set()).discard(who.name)
        self._ended.add((who.name, ended))
        disk = self._pool.find(record.id)
        if disk is None or any(self._users.get(mount_id(each.record)) for each in disk.unit):
            return
        if not any(each.in_use for each in disk.unit):
            await self._pool.detach(record.id, f"{who.name} unmounted it")

    def may_see(self, who: Who, record: DiskRecord) -> bool:
        """Whether somebody may see a disk, by the VM that it is of."""
        if who.sees_all:
            return True
        backup = self._tree.namespace.backups.get(record.backup_id)
        return backup is not None and who.may_see(backup.vm_name)

    def find(self, who: Who, wanted: str) -> DiskRecord:
        """Return the disk of a mount. Raises NotFoundError, and GoneError when its backup was
        deleted while it was mounted."""
        match = re.fullmatch(r"disk([0-9]{1,18})-[0-9a-f]{8}", wanted)
        record = self._tree.namespace.disks.get(int(match[1])) if match else None
        if record is not None and mount_id(record) == wanted:
            if (who.name, wanted) not in self._ended and self.may_see(who, record):
                return record
        elif wanted in self._records and who.sees_all:
            raise GoneError(f"{self._records[wanted].backup_id} is no longer in the catalog")
        raise NotFoundError(f"there is no mount {wanted!r}; POST /api/v1/restore/mount makes one")
