"""What a request says of backups and disks, looked up as far as who asks may see it.

Must not know what is done with them.
"""

from collections.abc import Iterator

from starlette.requests import Request

from restorefs.catalog.records import BackupRecord, DiskRecord
from restorefs.control.who import Who, who_asks
from restorefs.errors import GoneError, NotFoundError
from restorefs.tree.tree import Tree


def visible(tree: Tree, who: Who) -> Iterator[BackupRecord]:
    """Yield the backups that somebody may see."""
    backups = tree.namespace.backups.values()
    return (backup for backup in backups if who.may_see(backup.vm_name))


def backup_of(tree: Tree, who: Who, backup_id: str) -> BackupRecord:
    """Return a backup; one that may not be seen is not there. Raises NotFoundError, and GoneError
    for one that was there."""
    backup = tree.namespace.backups.get(backup_id)
    if backup is None and backup_id in tree.deleted and who.may_see(tree.deleted[backup_id]):
        raise GoneError(f"the backup {backup_id!r} was deleted")
    if backup is None or not who.may_see(backup.vm_name):
        raise NotFoundError(f"there is no backup {backup_id!r}")
    return backup


def disk_of(backup: BackupRecord, index: int) -> DiskRecord:
    """Return a disk of a backup. Raises NotFoundError."""
    for disk in backup.disks:
        if disk.disk_index == index:
            return disk
    known = ", ".join(str(disk.disk_index) for disk in backup.disks)
    raise NotFoundError(f"{backup.id} has no disk {index}; it has {known}")


def backup_in_path(tree: Tree, request: Request) -> BackupRecord:
    return backup_of(tree, who_asks(request), request.path_params["backup_id"])
