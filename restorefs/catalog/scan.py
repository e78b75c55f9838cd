"""Writes what a folder of images holds into an SQLite catalog.

Owns how the rows follow the folder. Must not know the layouts (`repository`), and never writes the
backup product's own database. Concurrency: plain blocking calls, meant for the command line; all
that one scan changes becomes visible at once.

A disk's row stands for its image for ever, so that what was shown under its id stays what it was:

- an image seen before keeps its row, also when its backup is called differently now (see
  "restore points" in `repository`) or the whole folder has been moved elsewhere;
- an image that has vanished keeps its row with the status "missing", and is shown again under
  the same id when it is back (a folder that was not mounted during a scan loses nothing);
- an image that is there but was skipped keeps its row and status: who opens it learns why it
  cannot be read.
"""

import uuid
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select, update

from restorefs.catalog.engine import describe, is_sqlite, make_engine, parse_url, writing
from restorefs.catalog.migrate import migrate_connection
from restorefs.catalog.repository import (
    FoundBackup,
    Image,
    Progress,
    Skipped,
    find_backups,
    is_gone,
)
from restorefs.catalog.schema import (
    COMPLETED,
    MISSING,
    PRODUCT_TABLES,
    backup_disks,
    backup_jobs,
    metadata,
    vm_backup_contexts,
)
from restorefs.errors import CatalogError, ConfigError


@dataclass(slots=True)
class ScanReport:
    """What a scan found and did. Paths are images; `known` counts those whose rows stay as they
    were, `notes` say what was read into names."""

    root: Path
    backups: int = 0
    disks: int = 0
    known: int = 0
    added: list[Path] = field(default_factory=list)
    changed: list[Path] = field(default_factory=list)
    vanished: list[Path] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Tell it to people, one line each, the sum first."""
        return [
            f"{self.root}: {self.backups} backups, {self.disks} disks ({len(self.added)} new, "
            f"{len(self.changed)} changed, {len(self.vanished)} vanished, "
            f"{len(self.skipped)} skipped)",
            *(f"vanished {path}" for path in self.vanished),
            *(f"skipped {skipped}" for skipped in self.skipped),
            *self.notes,
        ]


def scan(folder: Path, url: str, progress: Progress) -> ScanReport:
    """Write the backups in a folder of images into an SQLite catalog, which is made if missing.

    Running it again adds what is new and marks what has vanished. Raises ConfigError for a URL that
    is not SQLite's, CatalogError when the folder cannot be read or the catalog cannot be written.
    """
    parsed = parse_url(url)
    if not is_sqlite(parsed):
        raise ConfigError(
            f"{describe(parsed)} belongs to the backup product, which fills it itself; scan writes "
            "into SQLite only: sqlite:////path/to/catalog.db"
        )
    found = find_backups(folder, progress)
    try:
        Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CatalogError(f"{describe(parsed)}: {error.strerror}") from error
    engine = make_engine(parsed, create=True)
    try:
        with writing(engine, parsed) as connection:
            metadata.create_all(connection, tables=PRODUCT_TABLES)
            migrate_connection(connection, parsed, down=False)
            writer = _Writer(connection, found.root)
            writer.report.skipped.extend(found.skipped)
            writer.report.notes.extend(found.notes)
            for backup in found.backups:
                writer.backup(backup)
            writer.finish()
            return writer.report
    finally:
        engine.dispose()


class _Writer:
    """One scan's changes, within one transaction."""

    def __init__(self, connection: Connection, root: Path) -> None:
        self.connection = connection
        self.report = ScanReport(root)
        self._contexts: dict[str, str] = {
            row.vm_name: row.context_id for row in connection.execute(select(vm_backup_contexts))
        }
        self._jobs = {row.id: row for row in connection.execute(select(backup_jobs))}
        disks = connection.execute(select(backup_disks)).mappings().all()
        self._by_path: dict[str, dict[str, Any]] = {
            row["qcow2_path"]: dict(row) for row in disks if row["qcow2_path"]
        }
        # Where the images of a backup lay that was catalogued from another folder.
        self._elsewhere: dict[str, list[dict[str, Any]]] = {}
        for row in self._by_path.values():
            if not Path(row["qcow2_path"]).is_relative_to(root):
                self._elsewhere.setdefault(row["backup_job_id"], []).append(row)
        self._found: set[str] = set()
        self._new_disks: list[dict[str, Any]] = []

    def backup(self, backup: FoundBackup) -> None:
        """Write one backup and its disks, as far as they are new or changed."""
        obstacle = self._obstacle(backup)
        if obstacle:
            self.report.skipped += [Skipped(image.path, obstacle) for image in backup.images]
            return
        self.report.backups += 1
        self._job(backup)
        for image in backup.images:
            if str(image.path) in self._found:
                reason = f"disk {image.disk_index} of {backup.id} is a link to another's image"
                self.report.skipped.append(Skipped(image.path, reason))
            else:
                self.report.disks += 1
                self._disk(backup.id, image)

    def finish(self) -> None:
        """Write the new disks, and mark those that have vanished."""
        if self._new_disks:
            self.connection.execute(insert(backup_disks), self._new_disks)
        for path, row in self._by_path.items():
            if (
                row["status"] == COMPLETED
                and path not in self._found
                and Path(path).is_relative_to(self.report.root)
                and is_gone(path)
            ):
                self._update(row, {"status": MISSING})
                self.report.vanished.append(Path(path))

    def _obstacle(self, backup: FoundBackup) -> str | None:
        """Say why a backup cannot be catalogued; None if it can."""
        names = [backup.id, backup.vm_name, *(str(image.path) for image in backup.images)]
        if any(not _is_utf8(name) for name in names):
            return "a name that is not UTF-8, which the catalog cannot hold; mount with --images"
        for row in self._elsewhere.get(backup.id, ()):
            if row["status"] == COMPLETED and not is_gone(row["qcow2_path"]):
                return f"backup {backup.id} is catalogued already, from {row['qcow2_path']}"
        return None

    def _job(self, backup: FoundBackup) -> None:
        created_at = backup.created_at.astimezone(UTC).replace(tzinfo=None)
        job = self._jobs.get(backup.id)
        if job is None:
            values = {
                "id": backup.id,
                "vm_backup_context_id": self._context(backup.vm_name),
                "status": COMPLETED,
                "created_at": created_at,
            }
            self.connection.execute(insert(backup_jobs).values(values))
        elif job.created_at != created_at:
            self.connection.execute(
                update(backup_jobs)
                .where(backup_jobs.c.id == backup.id)
                .values(created_at=created_at)
            )

    def _context(self, vm_name: str) -> str:
        if vm_name not in self._contexts:
            context_id = str(uuid.uuid4())
            self.connection.execute(
                insert(vm_backup_contexts).values(context_id=context_id, vm_name=vm_name)
            )
            self._contexts[vm_name] = context_id
        return self._contexts[vm_name]

    def _disk(self, backup_id: str, image: Image) -> None:
        path = str(image.path)
        self._found.add(path)
        values = {
            "backup_job_id": backup_id,
            "disk_index": image.disk_index,
            "size_gb": image.size_gb,
            "qcow2_path": path,
            "status": COMPLETED,
        }
        row = self._by_path.get(path) or self._moved(backup_id, image)
        if row is None:
            self._new_disks.append(values)
            self.report.added.append(image.path)
        elif any(row[name] != value for name, value in values.items()):
            self._update(row, values)
            self.report.changed.append(image.path)
        else:
            self.report.known += 1

    def _moved(self, backup_id: str, image: Image) -> dict[str, Any] | None:
        """Return the row of an image that now lies in another folder of images."""
        for row in self._elsewhere.get(backup_id, ()):
            path = Path(row["qcow2_path"])
            if row["disk_index"] == image.disk_index and path.name == image.path.name:
                return row
        return None

    def _update(self, row: dict[str, Any], values: dict[str, Any]) -> None:
        self.connection.execute(
            update(backup_disks).where(backup_disks.c.id == row["id"]).values(values)
        )


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are no UTF-8, as the file system hands them out
        return False
    return True
