"""Opens whichever catalog the user names.

Owns the choice. Concurrency: blocks, as every catalog call does. The database's module is imported
when it is needed: SQLAlchemy takes a third of the time that a daemon takes to start.
"""

from pathlib import Path

from restorefs.catalog.base import Catalog
from restorefs.catalog.folder import FolderCatalog


def open_catalog(url: str, host: str | None = None) -> Catalog:
    """Open sqlite:////path/to/catalog.db or mysql+pymysql://user:password@host/database.

    `host` is the name that our attach records have, if not this machine's. Raises ConfigError for
    a URL that is not understood; CatalogError when the database cannot be reached or its tables are
    missing, saying what to do.
    """
    from restorefs.catalog.sql import SqlCatalog

    return SqlCatalog.open(url, host)


def open_folder(root: Path) -> Catalog:
    """Open a folder of images as a catalog. Raises CatalogError when there is no such folder."""
    return FolderCatalog(root)
