"""Make restore_mounts, or add restorefs' own columns to the one that the backup product made.

The name of the foreign key tells the two apart afterwards: a table of ours is dropped on the way
down; the product's table loses only what was added, and the rows that restorefs wrote.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from restorefs.catalog.schema import MOUNTS, MOUNTS_OWN_COLUMNS, MOUNTS_PRODUCT_COLUMNS
from restorefs.errors import CatalogError

revision = "0001"
down_revision = None

_OUR_KEY = "fk_restorefs_backup_disk"


def upgrade() -> None:
    """Make the table, or complete the product's."""
    if MOUNTS not in sa.inspect(op.get_bind()).get_table_names():
        _create()
        _say(f"made the table {MOUNTS}")
        return
    present = _columns()
    foreign = [name for name in MOUNTS_PRODUCT_COLUMNS if name not in present]
    if foreign:
        raise CatalogError(
            f"there is a table {MOUNTS} without {', '.join(foreign)}: not the one restorefs knows. "
            "Nothing was changed"
        )
    for column in _own_columns():
        if column.name not in present:
            op.add_column(MOUNTS, column)
            _say(f"added the column {column.name} to the table {MOUNTS}, which was there already")


def downgrade() -> None:
    """Drop the table, or what was added to the product's."""
    inspector = sa.inspect(op.get_bind())
    if MOUNTS not in inspector.get_table_names():
        return
    if any(key["name"] == _OUR_KEY for key in inspector.get_foreign_keys(MOUNTS)):
        op.drop_table(MOUNTS)
        _say(f"dropped the table {MOUNTS}")
        return
    present = _columns()
    if "host" in present:
        mounts = sa.table(MOUNTS, sa.column("host"))
        op.execute(mounts.delete().where(mounts.c.host.is_not(None)))
    for name in MOUNTS_OWN_COLUMNS:
        if name in present:
            op.drop_column(MOUNTS, name)
            _say(f"dropped the column {name} from the table {MOUNTS}, which stays")


def _create() -> None:
    op.create_table(
        MOUNTS,
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        sa.Column("backup_disk_id", sa.BigInteger(), nullable=False),
        sa.Column("mount_path", sa.String(512)),
        sa.Column("nbd_device", sa.String(32)),
        sa.Column("filesystem_type", sa.String(255)),
        sa.Column("status", sa.String(32)),
        sa.Column("created_at", sa.DateTime()),
        sa.Column("last_accessed_at", sa.DateTime()),
        sa.Column("expires_at", sa.DateTime()),
        *_own_columns(),
        sa.UniqueConstraint("backup_disk_id", name="uk_backup_disk"),
        sa.ForeignKeyConstraint(
            ["backup_disk_id"], ["backup_disks.id"], name=_OUR_KEY, ondelete="CASCADE"
        ),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
    )


def _own_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("host", sa.String(255)),
        sa.Column("pid", sa.Integer()),
        sa.Column("pid_start", sa.String(64)),
        sa.Column("socket_path", sa.String(512)),
    ]


def _columns() -> set[str]:
    return {column["name"] for column in sa.inspect(op.get_bind()).get_columns(MOUNTS)}


def _say(what: str) -> None:
    config = op.get_context().config
    assert config is not None  # migrations run through env.py alone
    config.attributes["done"].append(what)
