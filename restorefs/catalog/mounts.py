"""The rows of restore_mounts: which disks are attached, and by whom.

Owns that table's content. A daemon touches only its own rows, known by host, process number and
start of the process, and those of a process of this host that has ended. Each daemon that has
attached a disk has a row of its own. Only the table that the product made allows one for a disk:
there another's stays, and tells the truth (the disk is attached there). Two machines of the same
name would take each other's processes for ended ones.

Must not know the product's tables. Concurrency: every function is part of the caller's transaction.
"""

import logging
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Self, TypeAlias

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Integer,
    MetaData,
    Row,
    Table,
    and_,
    delete,
    insert,
    inspect,
    select,
    update,
)

from restorefs.catalog.engine import describe
from restorefs.catalog.owner import Owner
from restorefs.catalog.records import AttachRecord
from restorefs.catalog.schema import MOUNTS, MOUNTS_OWN_COLUMNS, MOUNTS_PRODUCT_COLUMNS
from restorefs.errors import CatalogError

log = logging.getLogger(__name__)

_Row: TypeAlias = Row[*tuple[Any, ...]]

# The word for "attached" that the product's own restore_mounts knows.
_ATTACHED = "mounted"


class Mounts:
    """restore_mounts, as this process writes it."""

    def __init__(
        self, table: Table, host: str | None = None, *, one_for_each_disk: bool = False
    ) -> None:
        self._table = table
        self._one_for_each_disk = one_for_each_disk
        self._owner = Owner.of_this_process(host)

    @classmethod
    def find(cls, connection: Connection, url: URL, host: str | None = None) -> Self:
        """Look at the table as it is: the product may have made it, with types of its own.

        Raises CatalogError when the table or one of its columns is missing, saying what to do.
        """
        if MOUNTS not in inspect(connection).get_table_names():
            raise CatalogError(
                f"{describe(url)}: no table {MOUNTS}; run `restorefs catalog migrate`"
            )
        table = Table(MOUNTS, MetaData(), autoload_with=connection, resolve_fks=False)
        present = set(table.c.keys())
        wanted = (*MOUNTS_PRODUCT_COLUMNS, *MOUNTS_OWN_COLUMNS)
        missing = [name for name in wanted if name not in present]
        if missing:
            raise CatalogError(
                f"{describe(url)}: the table {MOUNTS} has no {', '.join(missing)}; run "
                "`restorefs catalog migrate`"
            )
        keys = [key["column_names"] for key in inspect(connection).get_unique_constraints(MOUNTS)]
        return cls(table, host, one_for_each_disk=["backup_disk_id"] in keys)

    def crashed(self, connection: Connection) -> list[Owner]:
        """Return the processes of this host that have rows and have ended."""
        columns = self._table.c
        owners = (
            select(columns.host, columns.pid, columns.pid_start)
            .where(columns.host == self._owner.host)
            .distinct()
        )
        found = [_owner(row) for row in connection.execute(owners)]
        # A database may take é for e.
        ours = [owner for owner in found if owner is not None and owner.host == self._owner.host]
        return [owner for owner in ours if owner.is_gone()]

    def drop_all(self, connection: Connection, owner: Owner) -> int:
        """Drop all rows of a process; return how many."""
        return connection.execute(delete(self._table).where(self._held_by(owner))).rowcount

    def put(self, connection: Connection, record: AttachRecord) -> None:
        """Write this process's row of a disk, unless only one is allowed and is another daemon's.

        An IntegrityError means that another daemon was faster, or that the disk is not in the
        catalog any more.
        """
        table = self._table
        rows = self.rows(connection, record.backup_disk_id)
        values = self._values(record)
        for row in rows:
            if self.is_own(row) or self._is_left(_owner(row)):
                connection.execute(update(table).where(table.c.id == row.id).values(values))
                return
        if rows and self._one_for_each_disk:
            leave(record.backup_disk_id)
            return
        if not isinstance(table.c.id.type, Integer):  # a table that the product made
            values["id"] = str(uuid.uuid4())
        connection.execute(insert(table).values(values))

    def rows(self, connection: Connection, backup_disk_id: int) -> Sequence[_Row]:
        """Return a disk's rows, our own first."""
        of_disk = select(self._table).where(self._table.c.backup_disk_id == backup_disk_id)
        found = connection.execute(of_disk.order_by(self._table.c.id)).all()
        return sorted(found, key=lambda row: not self.is_own(row))

    def is_own(self, row: _Row) -> bool:
        """Say whether a row is this process's."""
        return _owner(row) == self._owner

    def drop(self, connection: Connection, backup_disk_id: int) -> None:
        """Drop this process's row of a disk."""
        of_disk = self._table.c.backup_disk_id == backup_disk_id
        connection.execute(delete(self._table).where(of_disk, self._held_by(self._owner)))

    def _held_by(self, owner: Owner) -> ColumnElement[bool]:
        columns = self._table.c
        return and_(
            columns.host == owner.host,
            columns.pid == owner.pid,
            columns.pid_start == owner.pid_start,
        )

    def _is_left(self, owner: Owner | None) -> bool:
        """Say whether a row is of a process of this host that has ended."""
        return owner is not None and owner.host == self._owner.host and owner.is_gone()

    def _values(self, record: AttachRecord) -> dict[str, Any]:
        columns = self._table.c
        texts = {
            "mount_path": record.mount_path,
            "filesystem_type": record.filesystem_type,
            "socket_path": record.socket_path,
        }
        if not columns.nbd_device.nullable:
            # Our own table has NULL here: a disk served over a unix socket has no /dev/nbdN. The
            # product's may insist on a value, and on a different one in each row.
            texts["nbd_device"] = f"restorefs-{record.backup_disk_id}"
        return {
            # For people: better cut than not recorded.
            **{
                name: text[: getattr(columns[name].type, "length", None)]
                for name, text in texts.items()
            },
            "backup_disk_id": record.backup_disk_id,
            "status": _ATTACHED,
            "created_at": _naive(record.created_at),
            "last_accessed_at": _naive(record.last_accessed_at),
            "expires_at": None if record.expires_at is None else _naive(record.expires_at),
            "host": self._owner.host,
            "pid": self._owner.pid,
            "pid_start": self._owner.pid_start,
        }


def leave(backup_disk_id: int) -> None:
    """Say that another daemon's row stays."""
    log.info("disk %d is recorded as attached by another daemon: its row stays", backup_disk_id)


def _owner(row: _Row) -> Owner | None:
    """Return who holds a row; None for one that the product wrote."""
    if row.host is None or row.pid is None or row.pid_start is None:
        return None
    return Owner(row.host, row.pid, row.pid_start)


def _naive(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(tzinfo=None)
