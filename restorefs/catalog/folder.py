"""The catalog without a database: a folder of images.

Owns the numbers of its disks. Keeps no attach records: one daemon serves the folder, and after a
crash there is nothing to tidy up. Must not know the layouts (`repository`). Concurrency: calls
block, one at a time, from any thread.

**Numbers.** Node ids hold a disk's number in 21 bits, and a program (an NFS client, say) may come
back with one after a restart; so a number is computed from what the disk is (its backup's folder,
its index, its image's path), not counted. 21 bits are few: among 1,000 disks some two share a
number with a chance of one in five, among 10,000 surely. Then the later one takes the next free
number, "later" by the time in the backup's or the image's name, so that a new backup does not move
an old one. What remains: when the earlier of such a pair is deleted, the other has another number
in a daemon that starts afterwards. Within one process a number, once given, never means another
disk; an image put in another's place (its time of change tells) is another disk.
"""

import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from restorefs.catalog.base import Catalog
from restorefs.catalog.records import AttachRecord, BackupRecord, DiskRecord
from restorefs.catalog.repository import (
    Image,
    Known,
    Skipped,
    find_backups,
    real_folder,
    time_in_name,
)
from restorefs.errors import CatalogError

log = logging.getLogger(__name__)

_MOST = 2**21 - 1  # numbers are 1 to this
_EARLIEST = datetime.min.replace(tzinfo=UTC)


class _Key(NamedTuple):
    """What a disk is, however the backup it belongs to is called."""

    folder: str
    disk_index: int
    path: str  # from the root
    modified: datetime  # an image put in another's place is another disk


class FolderCatalog(Catalog):
    """Backups as a folder of images shows them."""

    def __init__(self, root: Path) -> None:
        """Raises CatalogError when there is no such folder."""
        self.root = real_folder(root)
        self._numbers: dict[_Key, int] = {}
        self._taken: set[int] = set()
        self._said: set[Skipped] = set()
        self._known: Known = {}

    def describe(self) -> str:
        return f"folder of images {self.root}"

    def backups(self) -> Sequence[BackupRecord]:
        """Look through the folder. Logs what it skips, once. Raises CatalogError."""
        found = find_backups(self.root, lambda _done, _all: None, self._known)
        self._known = found.known
        self._say(found.skipped)
        self.unread = [str(skipped) for skipped in found.skipped if skipped.unread]
        self._number(image for backup in found.backups for image in backup.images)
        return [
            BackupRecord(
                id=backup.id,
                vm_name=backup.vm_name,
                created_at=backup.created_at,
                disks=tuple(
                    DiskRecord(
                        id=self._numbers[self._key(image)],
                        backup_id=backup.id,
                        disk_index=image.disk_index,
                        qcow2_path=str(image.path),
                        size_gb=image.size_gb,
                    )
                    for image in backup.images
                ),
            )
            for backup in found.backups
        ]

    def recover(self) -> int:
        return 0

    def record_attach(self, record: AttachRecord) -> None:
        """Do nothing: see the module's docstring."""

    def touch_attach(self, record: AttachRecord) -> None:
        """Do nothing: see the module's docstring."""

    def forget_attach(self, backup_disk_id: int) -> None:
        """Do nothing: see the module's docstring."""

    def close(self) -> None:
        """Do nothing: nothing is open between calls."""

    def _number(self, images: Iterable[Image]) -> None:
        """Give each new image its number. Raises CatalogError when there are none left."""
        new = {self._key(image): image for image in images}
        for key in sorted(new.keys() - self._numbers.keys(), key=lambda key: _age(key, new[key])):
            if len(self._taken) == _MOST:
                raise CatalogError(f"{self.describe()}: more than {_MOST} disks")
            number = _hash(key)
            while number in self._taken:
                number = number % _MOST + 1
            self._taken.add(number)
            self._numbers[key] = number

    def _key(self, image: Image) -> _Key:
        path = str(image.path.relative_to(self.root))
        return _Key(image.folder, image.disk_index, path, image.modified)

    def _say(self, found: Sequence[Skipped]) -> None:
        # What can be read again is said again, should it be lost once more.
        self._said -= {each for each in self._said if each.unread} - set(found)
        for skipped in found:
            if skipped not in self._said:
                self._said.add(skipped)
                level = logging.WARNING if skipped.is_trouble else logging.INFO
                what = "cannot read" if skipped.unread else "skipped"
                log.log(level, "%s %s", what, skipped)


def _age(key: _Key, image: Image) -> tuple[datetime, datetime, _Key]:
    return time_in_name(key.folder) or _EARLIEST, image.dated or _EARLIEST, key


def _hash(key: _Key) -> int:
    name = b"\0".join((os.fsencode(key.folder), b"%d" % key.disk_index, os.fsencode(key.path)))
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest()) % _MOST + 1
