"""Brings restore_mounts into a catalog's database, and takes it out again.

Owns running the revisions in `migrations`. Must not know the tables' columns. Concurrency: plain
blocking calls, meant for the command line.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, text

from restorefs.catalog.engine import describe, make_engine, parse_url, writing
from restorefs.catalog.mounts import Mounts
from restorefs.catalog.sql import check_product_tables
from restorefs.errors import CatalogError

VERSION_TABLE = "restorefs_schema"


def migrate(url: str, down: bool) -> list[str]:
    """Make restore_mounts, or undo that with `down`; return what was done, one line each.

    Running it again does no harm. A restore_mounts that the backup product made gets the columns
    that restorefs adds, and loses only those on the way down. Raises ConfigError for a URL that is
    not understood, CatalogError when the database refuses.
    """
    parsed = parse_url(url)
    engine = make_engine(parsed)
    try:
        with writing(engine, parsed) as connection:
            return migrate_connection(connection, parsed, down=down)
    finally:
        engine.dispose()


def migrate_connection(connection: Connection, url: URL, *, down: bool) -> list[str]:
    """As `migrate`, within a transaction of the caller's."""
    done: list[str] = []
    config = Config()
    config.set_main_option("script_location", _escaped(Path(__file__).parent / "migrations"))
    config.attributes.update(connection=connection, version_table=VERSION_TABLE, done=done)
    if down:
        # Whatever the version table says: revisions look at what is there.
        command.stamp(config, "head", purge=True)
        command.downgrade(config, "base")
        connection.execute(text(f"DROP TABLE {VERSION_TABLE}"))
        return done or ["nothing to undo"]
    check_product_tables(connection, url)
    try:
        Mounts.find(connection, url)
    except CatalogError:
        # Likewise: somebody has dropped the table, or a run was cut short.
        command.stamp(config, "base", purge=True)
    command.upgrade(config, "head")
    return done or [f"nothing to do: {describe(url)} is up to date"]


def _escaped(path: Path) -> str:
    return str(path).replace("%", "%%")
