"""From a catalog URL to a database connection that never hangs and never lies about a failure.

Owns which URLs are understood, the driver's time limits, and how a database failure is told to
people. Must not know any table. Concurrency: an Engine may be used from any thread.

A server that no longer answers costs at most a few times the limits below: one for the check of
the pooled connection, one for the new connection. Every connection is checked before use, so that
a call after an outage connects anew by itself.
"""

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from restorefs.errors import CatalogError, ConfigError
from restorefs.users import our_name

CONNECT_SECONDS = 5
READ_SECONDS = 10
# Below READ_SECONDS, so that the server gives up a lock before we give up the server.
LOCK_SECONDS = 5

_MARIADB_DRIVERS = frozenset({"mysql", "mariadb", "mysql+pymysql", "mariadb+pymysql"})
_SQLITE_DRIVERS = frozenset({"sqlite", "sqlite+pysqlite"})

_WRITES = "restorefs_writes"


def parse_url(text: str) -> URL:
    """Turn a catalog URL into its normal form: mysql+pymysql:// or sqlite:// with a full path.

    Raises ConfigError for a URL that names no catalog we know. The message never repeats the URL,
    which may hold a password.
    """
    try:
        url = make_url(text)
    except (SQLAlchemyError, ValueError):
        raise ConfigError(
            "the catalog URL is not understood: expected sqlite:////path/to/catalog.db or "
            "mysql+pymysql://user:password@host/database (special characters of the password "
            "percent-encoded)"
        ) from None
    if url.drivername in _SQLITE_DRIVERS:
        if not url.database or url.database == ":memory:":
            raise ConfigError("the catalog URL names no file: expected sqlite:////path/to/file.db")
        return URL.create("sqlite", database=str(Path(url.database).absolute()))
    if url.drivername in _MARIADB_DRIVERS:
        if not url.database:
            raise ConfigError("the catalog URL names no database: expected .../database at its end")
        return url.set(drivername="mysql+pymysql")
    raise ConfigError(
        f"no catalog of kind {url.drivername!r}: known are sqlite and mysql+pymysql (MariaDB)"
    )


def is_sqlite(url: URL) -> bool:
    """Say whether a normal URL names an SQLite file."""
    return url.drivername == "sqlite"


def describe(url: URL) -> str:
    """Name the catalog for people, without its password."""
    if is_sqlite(url):
        return f"SQLite catalog {url.database}"
    socket_path = url.query.get("unix_socket")
    where = socket_path or f"{url.host or 'localhost'}:{url.port or 3306}"
    user = f" as user {url.username}" if url.username else ""
    return f"MariaDB catalog {url.database} at {where}{user}"


def make_engine(url: URL, *, create: bool = False) -> Engine:
    """Make an engine; connects at first use. `create` makes a missing SQLite file."""
    if is_sqlite(url):
        return _sqlite_engine(Path(str(url.database)), create=create)
    arguments: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "write_timeout": READ_SECONDS,
        # TIMESTAMP columns are handed out in the session's time zone.
        "init_command": (
            "SET SESSION time_zone = '+00:00', "
            f"lock_wait_timeout = {LOCK_SECONDS}, innodb_lock_wait_timeout = {LOCK_SECONDS}"
        ),
    }
    # What the URL itself sets stays.
    arguments = {name: value for name, value in arguments.items() if name not in url.query}
    if url.password is not None:
        # The driver would encode it as Latin-1, unlike every other client.
        arguments["password"] = url.password.encode()
    return create_engine(
        url,
        pool_pre_ping=True,
        pool_size=1,
        connect_args=arguments,
    )


def _sqlite_engine(path: Path, *, create: bool) -> Engine:
    # mode=rw falls back to reading alone where the file or its folder cannot be written.
    mode = "rwc" if create else "rw"
    engine = create_engine(
        URL.create(
            "sqlite",
            database=f"file:{quote(str(path))}",
            query={"mode": mode, "uri": "true"},
        ),
        # Opened anew each time: the file may have been replaced.
        poolclass=NullPool,
        connect_args={"timeout": LOCK_SECONDS},
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        # The driver would begin transactions late and not around CREATE TABLE: we begin them.
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")
        # MariaDB has it built in.
        connection.create_function("crc32", 1, zlib.crc32)  # of bytes

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # Taking the write lock first makes the busy timeout count: SQLite does not wait when a
        # transaction that has read wants to write.
        writes = connection.get_execution_options().get(_WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


@contextmanager
def reading(engine: Engine, url: URL) -> Iterator[Connection]:
    """Open a transaction that only reads. Raises CatalogError."""
    with _told_to_people(url), engine.begin() as connection:
        yield connection


@contextmanager
def writing(engine: Engine, url: URL) -> Iterator[Connection]:
    """Open a transaction that writes: all of it, or nothing (in MariaDB, tables aside). Raises
    CatalogError."""
    with _told_to_people(url), engine.execution_options(**{_WRITES: True}).begin() as connection:
        yield connection


@contextmanager
def _told_to_people(url: URL) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, RuntimeError) as error:
        # RuntimeError: PyMySQL says so that an authentication method needs another package.
        reason = _unreadable(url) or f"{_reason(error)}{_advice(error)}"
        raise CatalogError(f"{describe(url)}: {reason}") from error


def _unreadable(url: URL) -> str | None:
    """Say why an SQLite file cannot be opened: SQLite itself does not."""
    if not is_sqlite(url) or os.access(str(url.database), os.R_OK, effective_ids=True):
        return None
    try:
        os.stat(str(url.database))  # noqa: PTH116
    except FileNotFoundError:
        return "no such file; `restorefs scan` makes it"
    except OSError as error:
        return f"{our_name()} cannot reach it: {error.strerror}"
    return f"{our_name()} may not read it"


def _reason(error: Exception) -> str:
    cause = error.orig if isinstance(error, DBAPIError) else error
    if cause is None:
        return str(error)
    # PyMySQL's errors are (number, text).
    return str(cause.args[-1]) if cause.args else type(cause).__name__


def _advice(error: Exception) -> str:
    number = None
    if isinstance(error, DBAPIError) and error.orig is not None and error.orig.args:
        number = error.orig.args[0]
    match number:
        case 2002 | 2003 | 2005:
            return ". Check that the server runs and that host and port are right"
        case 2006 | 2013:
            return ". The connection was lost; the next access connects again"
        case 1044 | 1045 | 1130 | 1142 | 1698:
            return ". Check user, password and what the user may do"
        case 1049:
            return ". Check the database's name"
        case _:
            return ""
