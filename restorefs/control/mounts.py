"""The mounts of the API: disks that somebody asked for.

Owns their ids, and which of them are valid: an id says which disk it is and which image that disk
is, so that it is the same in every daemon. A mount is there from when it is asked for, or as long
as its disk is attached, until it is taken away; letting an idle disk go does not end it.
"""

import re
from collections.abc import Iterator

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
        self._asked_for: dict[str, DiskRecord] = {}

    def add(self, record: DiskRecord) -> str:
        """Have a mount of a disk; return its id."""
        found = mount_id(record)
        self._asked_for[found] = record
        return found

    def remove(self, record: DiskRecord) -> None:
        self._asked_for.pop(mount_id(record), None)

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
        disk_id = int(match[1]) if match else 0
        record = self._tree.namespace.disks.get(disk_id)
        if record is not None and mount_id(record) == wanted:
            there = wanted in self._asked_for or self._pool.find(disk_id) is not None
            if there and self.may_see(who, record):
                return record
        elif wanted in self._asked_for and who.sees_all:
            raise GoneError(f"{self._asked_for[wanted].backup_id} is no longer in the catalog")
        raise NotFoundError(f"there is no mount {wanted!r}; POST /api/v1/restore/mount makes one")

    def attached(self, who: Who) -> Iterator[DiskRecord]:
        """Yield the disks that are attached and that somebody may see."""
        for disk in self._pool.attached:
            if self.may_see(who, disk.record):
                yield disk.record
