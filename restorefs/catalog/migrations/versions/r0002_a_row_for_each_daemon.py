"""Let several daemons have a row for one disk: what is unique is no longer the disk, but the disk
of a daemon.

In our own table only. The one that the backup product made keeps its keys, as the product may rely
on them: there one daemon of several has the row of a disk.
"""

import sqlalchemy as sa
from alembic import op

from restorefs.catalog.schema import MOUNTS

revision = "0002"
down_revision = "0001"

_OUR_KEY = "fk_restorefs_backup_disk"
_OF_DISK = "uk_backup_disk"
_OF_DAEMON = "uk_restorefs_disk_daemon"


def upgrade() -> None:
    """Widen the key."""
    there = _unique()
    if _OF_DISK in there:
        # The new one first: MariaDB demands an index for the foreign key.
        if _OF_DAEMON not in there:
            with op.batch_alter_table(MOUNTS) as table:
                table.create_unique_constraint(_OF_DAEMON, ["backup_disk_id", "host", "pid"])
        with op.batch_alter_table(MOUNTS) as table:
            table.drop_constraint(_OF_DISK, type_="unique")
        _say(f"let the table {MOUNTS} have a row for each daemon that has attached a disk")


def downgrade() -> None:
    """Narrow the key; of several rows of a disk, the oldest stays."""
    if _OF_DAEMON not in _unique():
        return
    mounts = sa.table(MOUNTS, sa.column("id"), sa.column("backup_disk_id"))
    oldest = sa.select(sa.func.min(mounts.c.id).label("id")).group_by(mounts.c.backup_disk_id)
    kept = list(op.get_bind().execute(oldest).scalars())
    op.execute(mounts.delete().where(mounts.c.id.not_in(kept)))
    if _OF_DISK not in _unique():
        with op.batch_alter_table(MOUNTS) as table:
            table.create_unique_constraint(_OF_DISK, ["backup_disk_id"])
    with op.batch_alter_table(MOUNTS) as table:
        table.drop_constraint(_OF_DAEMON, type_="unique")


def _unique() -> set[str]:
    """Return which of the two keys our own table has; none where it is the product's."""
    inspector = sa.inspect(op.get_bind())
    if MOUNTS not in inspector.get_table_names():
        return set()
    if not any(key["name"] == _OUR_KEY for key in inspector.get_foreign_keys(MOUNTS)):
        return set()
    names = {str(key["name"]) for key in inspector.get_unique_constraints(MOUNTS)}
    return names & {_OF_DISK, _OF_DAEMON}


def _say(what: str) -> None:
    config = op.get_context().config
    assert config is not None  # migrations run through env.py alone
    config.attributes["done"].append(what)
