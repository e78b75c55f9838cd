"""The catalog's tables.

Owns the names and types of the four tables. The first three belong to the backup product:
restorefs only reads them, and creates them in SQLite alone. `restore_mounts` is restorefs' own and
comes into being by migration (the `migrations` folder), never from here. Must not know how
anything is queried.

Times are stored without a zone and are UTC.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
)

# SQLite counts up only a key that is declared INTEGER.
_RowId = BigInteger().with_variant(Integer(), "sqlite")

COMPLETED = "completed"
MISSING = "missing"  # what `scan` puts in place of "completed" when the image has vanished

metadata = MetaData()

vm_backup_contexts = Table(
    "vm_backup_contexts",
    metadata,
    Column("context_id", String(64), primary_key=True),
    Column("vm_name", String(255), nullable=False),
    Column("repository_id", String(64)),
)

backup_jobs = Table(
    "backup_jobs",
    metadata,
    Column("id", String(255), primary_key=True),
    Column(
        "vm_backup_context_id",
        String(64),
        ForeignKey(vm_backup_contexts.c.context_id, ondelete="CASCADE"),
        index=True,
    ),
    Column("status", String(32), nullable=False),
    Column("created_at", DateTime),
)

backup_disks = Table(
    "backup_disks",
    metadata,
    Column("id", _RowId, primary_key=True),
    Column(
        "backup_job_id",
        String(255),
        ForeignKey(backup_jobs.c.id, ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("disk_index", Integer, nullable=False),
    Column("vmware_disk_key", Integer),
    Column("size_gb", BigInteger),
    Column("qcow2_path", String(4096)),
    Column("disk_change_id", String(255)),
    Column("status", String(32), nullable=False),
    # The number of a row that was deleted is never given to another disk: whoever still holds it
    # (an NFS client, an open file) must not be shown other content.
    sqlite_autoincrement=True,
)

PRODUCT_TABLES = (vm_backup_contexts, backup_jobs, backup_disks)

MOUNTS = "restore_mounts"
# The columns that the backup product's own restore_mounts has, and those that restorefs adds: who
# attached the disk (host, process, when that process began: process numbers are used again).
MOUNTS_PRODUCT_COLUMNS = (
    "id",
    "backup_disk_id",
    "mount_path",
    "nbd_device",
    "filesystem_type",
    "status",
    "created_at",
    "last_accessed_at",
    "expires_at",
)
MOUNTS_OWN_COLUMNS = ("host", "pid", "pid_start", "socket_path")
