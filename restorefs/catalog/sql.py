"""The catalog in a database: the backup product's MariaDB, or SQLite with the same tables.

Owns the queries. The product's tables are only read; restore_mounts is the one that is written.
Must not know who uses the records. Concurrency: calls block, from any thread; `backups` runs once
at a time, what writes attach records may overlap with it. Each call is a transaction or two on a
connection that was checked first, so that a call after an outage connects anew.
"""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import reduce
from typing import Any, Self, TypeAlias

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    LargeBinary,
    Row,
    String,
    cast,
    func,
    inspect,
    select,
    type_coerce,
)
from sqlalchemy.exc import IntegrityError

from restorefs.catalog.base import Catalog
from restorefs.catalog.engine import describe, is_sqlite, make_engine, parse_url, reading, writing
from restorefs.catalog.mounts import Mounts, leave
from restorefs.catalog.records import AttachRecord, BackupRecord, DiskRecord
from restorefs.catalog.schema import (
    COMPLETED,
    PRODUCT_TABLES,
    backup_disks,
    backup_jobs,
    vm_backup_contexts,
)
from restorefs.errors import CatalogError

log = logging.getLogger(__name__)

_Row: TypeAlias = Row[*tuple[Any, ...]]
_SEPARATOR = "\x1f"


def _joined(columns: Sequence[ColumnElement[Any]]) -> ColumnElement[str]:
    texts = [func.coalesce(cast(column, String), "") for column in columns]
    return reduce(lambda text, other: text + _SEPARATOR + other, texts)


_COLUMNS = (
    backup_jobs.c.id.label("backup_id"),
    vm_backup_contexts.c.vm_name,
    # As the driver hands it out: a single unreadable date must not cost the whole list.
    type_coerce(backup_jobs.c.created_at, String).label("created_at"),
    backup_disks.c.id,
    backup_disks.c.disk_index,
    backup_disks.c.qcow2_path,
    backup_disks.c.vmware_disk_key,
    backup_disks.c.size_gb,
)
_COMPLETED_DISKS = (
    select(*_COLUMNS)
    .select_from(backup_disks)
    .join(backup_jobs, backup_disks.c.backup_job_id == backup_jobs.c.id)
    # Outer: a backup whose VM is not known is still a backup.
    .join(
        vm_backup_contexts,
        backup_jobs.c.vm_backup_context_id == vm_backup_contexts.c.context_id,
        isouter=True,
    )
    .where(backup_disks.c.status == COMPLETED)
    .order_by(backup_disks.c.id)
)

_CHECKSUM = _COMPLETED_DISKS.order_by(None).with_only_columns(
    func.count(),
    func.sum(func.crc32(cast(_joined(_COLUMNS), LargeBinary))),
)
"""The number of those rows, and the sum of their CRC-32: what tells, without their being sent, that
none of them has changed."""


class SqlCatalog(Catalog):
    """Backups as MariaDB or SQLite knows them."""

    def __init__(self, engine: Engine, url: URL, mounts: Mounts) -> None:
        """Use `open` instead, which checks the tables. Takes over the engine."""
        self._engine = engine
        self._url = url
        self._mounts = mounts
        self._said: set[str] = set()
        self._disks: dict[int, DiskRecord] = {}
        self._loaded: tuple[tuple[object, ...] | None, Sequence[BackupRecord]] = (None, ())

    @classmethod
    def open(cls, url: str, host: str | None = None) -> Self:
        """Connect and check that the tables are there. `host`: see Owner.

        Raises ConfigError for a URL that is not understood, CatalogError when the database cannot
        be reached or lacks a table or column, saying what to do.
        """
        parsed = parse_url(url)
        engine = make_engine(parsed)
        try:
            with reading(engine, parsed) as connection:
                check_product_tables(connection, parsed)
                mounts = Mounts.find(connection, parsed, host)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine, parsed, mounts)

    def describe(self) -> str:
        return describe(self._url)

    def backups(self) -> Sequence[BackupRecord]:
        """Return every backup that has a completed disk, by id: the same list as before where
        nothing has changed, which takes one small query. Raises CatalogError."""
        with reading(self._engine, self._url) as connection:
            checksum = tuple(connection.execute(_CHECKSUM).one())
            known, found = self._loaded
            if checksum == known:
                return found
            rows = connection.execute(_COMPLETED_DISKS).all()
        of_backup: dict[str, list[_Row]] = {}
        for row in rows:
            of_backup.setdefault(row[0], []).append(row)
        backups = [self._backup(str(key), of_backup[key]) for key in sorted(of_backup)]
        self._disks = {disk.id: disk for backup in backups for disk in backup.disks}
        found = [backup for backup in backups if backup.disks]
        self._loaded = checksum, found  # at once: a call that nobody waits for may still run
        return found

    def recover(self) -> int:
        """Drop attach records that a crashed daemon of this host left behind; return how many.

        Raises CatalogError.
        """
        with reading(self._engine, self._url) as connection:
            crashed = self._mounts.crashed(connection)
        if not crashed:
            return 0  # nothing is written: the catalog may be one that cannot be
        with writing(self._engine, self._url) as connection:
            return sum(self._mounts.drop_all(connection, owner) for owner in crashed)

    def record_attach(self, record: AttachRecord) -> None:
        """Note that a disk is attached; another daemon's row of this disk stays as it is.

        Raises CatalogError, also when the disk is no longer in the catalog.
        """
        try:
            with writing(self._engine, self._url) as connection:
                self._mounts.put(connection, record)
        except CatalogError as error:
            if not isinstance(error.__cause__, IntegrityError):
                raise
            with reading(self._engine, self._url) as connection:
                if not self._mounts.rows(connection, record.backup_disk_id):
                    raise
            leave(record.backup_disk_id)

    def touch_attach(self, record: AttachRecord) -> None:
        """Update an attached disk's times; makes the row where it is missing (the catalog was down
        at attach, or another daemon's row has gone since). Raises CatalogError."""
        self.record_attach(record)

    def forget_attach(self, backup_disk_id: int) -> None:
        """Note that a disk was let go; another daemon's row stays. Raises CatalogError."""
        with reading(self._engine, self._url) as connection:
            rows = self._mounts.rows(connection, backup_disk_id)
        if rows and self._mounts.is_own(rows[0]):
            with writing(self._engine, self._url) as connection:
                self._mounts.drop(connection, backup_disk_id)

    def close(self) -> None:
        self._engine.dispose()

    def _backup(self, backup_id: str, rows: Sequence[_Row]) -> BackupRecord:
        """Build a backup from its rows, which come in order of the disks' ids."""
        disks: dict[int, DiskRecord] = {}
        for _, _, _, number, index, path, key, size_gb in rows:
            if not isinstance(index, int) or number <= 0 or index < 0:
                self._warn(f"backup {backup_id}: disk {number} with disk_index {index} left out")
                continue
            if not isinstance(path, str | None) or "\0" in (path or ""):
                self._warn(f"backup {backup_id}: the file of disk {index} is no path; left out")
                continue
            if not path:
                self._warn(f"backup {backup_id}: the catalog names no file for disk {index}")
            if index in disks:
                self._warn(
                    f"backup {backup_id} has disk {index} twice, as backup_disks "
                    f"{disks[index].id} and {number}: the latter is shown"
                )
            disks[index] = self._disk(number, backup_id, index, path or "", key, size_gb)
        _, vm_name, created_at, *_ = rows[0]
        return BackupRecord(
            id=backup_id,
            vm_name=vm_name or backup_id,
            created_at=_utc(created_at),
            disks=tuple(disks[index] for index in sorted(disks)),
        )

    def _disk(
        self,
        number: int,
        backup_id: str,
        index: int,
        path: str,
        key: int | None,
        size_gb: int | None,
    ) -> DiskRecord:
        """Return the record of the last look where nothing has changed."""
        known = self._disks.get(number)
        if (
            known is not None
            and known.backup_id == backup_id
            and known.disk_index == index
            and known.qcow2_path == path
            and known.vmware_disk_key == key
            and known.size_gb == size_gb
        ):
            return known
        return DiskRecord(number, backup_id, index, path, key, size_gb)

    def _warn(self, message: str) -> None:
        """Log what is wrong in the catalog once, however often it is read."""
        if message not in self._said:
            self._said.add(message)
            log.warning("%s: %s", self.describe(), message)


def check_product_tables(connection: Connection, url: URL) -> None:
    """Check that the three tables of the backup product are there. Raises CatalogError."""
    present = set(inspect(connection).get_table_names())
    missing = [table.name for table in PRODUCT_TABLES if table.name not in present]
    if missing:
        hint = (
            "`restorefs scan` makes and fills them"
            if is_sqlite(url)
            else "is this the backup product's database, and may the user read it?"
        )
        raise CatalogError(f"{describe(url)}: no table {', '.join(missing)}; {hint}")


def _utc(value: object) -> datetime | None:
    """Read a stored time: MariaDB's driver gives datetimes, SQLite's text; without a zone it is
    UTC. None for what is no time, such as MariaDB's 0000-00-00."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:  # the year 10000, in UTC
        return None
