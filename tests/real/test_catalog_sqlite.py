"""The catalog in SQLite: the contract, and what is SQLite's own."""

import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import Engine, create_engine, event

from restorefs.catalog.base import Catalog
from restorefs.catalog.engine import parse_url
from restorefs.catalog.migrate import migrate
from restorefs.catalog.open import open_catalog
from restorefs.catalog.scan import scan
from restorefs.errors import CatalogError, ConfigError
from tests.contracts.catalog import (
    SAMPLE,
    Database,
    Reopen,
    SqlCatalogContract,
    attach_record,
    first_disk,
)
from tests.tools import run, unmount


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An SQLite file with the four tables, empty, whose name needs care in a URI."""
    folder = tmp_path / "images"
    folder.mkdir()
    path = tmp_path / "cata log #1%20.db"
    scan(folder, f"sqlite:///{quote(str(path))}", lambda _done, _all: None)
    return path


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{quote(str(path))}"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(path))

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA foreign_keys = ON")

    try:
        database = Database(engine)
        database.fill()
        yield database
    finally:
        engine.dispose()


@pytest.fixture
def reopen(url: str, database: Database) -> Iterator[Reopen]:
    opened: list[Catalog] = []

    def open_one() -> Catalog:
        opened.append(open_catalog(url))
        return opened[-1]

    yield open_one
    for catalog in opened:
        catalog.close()


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Have a folder and what is in it read-only: for root, only a mount does that."""
    if os.geteuid() != 0:
        modes = {path: path.stat().st_mode for path in [*folder.iterdir(), folder]}
        for path in modes:
            path.chmod(0o555)
        yield
        for path, mode in modes.items():
            path.chmod(mode)
        return
    run("mount", "--bind", folder, folder)
    try:
        run("mount", "-o", "remount,bind,ro", folder)
        yield
    finally:
        unmount(folder)


class TestSqliteCatalog(SqlCatalogContract):
    pass


def test_a_backup_that_goes_takes_its_attach_record_along(
    reopen: Reopen, database: Database
) -> None:
    catalog = reopen()
    catalog.record_attach(attach_record(first_disk(catalog)))
    database("DELETE FROM vm_backup_contexts")
    assert database.mounts() == []
    assert list(catalog.backups()) == []


def test_a_date_that_is_none_costs_only_itself(reopen: Reopen, database: Database) -> None:
    database("UPDATE backup_jobs SET created_at = 'yesterday' WHERE id LIKE 'W%'")
    dates = {backup.id: backup.created_at for backup in reopen().backups()}
    assert dates.pop(next(name for name in SAMPLE if name.startswith("W"))) is None
    assert dates == {name: SAMPLE[name][1] for name in dates}


def test_a_catalog_that_cannot_be_written_can_be_read(
    path: Path, reopen: Reopen, database: Database
) -> None:
    with read_only(path.parent), closing(reopen()) as catalog:
        assert {backup.id for backup in catalog.backups()} == set(SAMPLE)
        assert catalog.recover() == 0
        catalog.forget_attach(first_disk(catalog).id)
        with pytest.raises(CatalogError, match="readonly"):
            catalog.record_attach(attach_record(first_disk(catalog)))
        assert {backup.id for backup in catalog.backups()} == set(SAMPLE)


def test_a_writer_waits_for_another(path: Path, reopen: Reopen, database: Database) -> None:
    catalog = reopen()
    record = attach_record(first_disk(catalog))
    waiting = threading.Event()

    def note(_conn: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement == "BEGIN IMMEDIATE":
            waiting.set()

    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        thread = threading.Thread(target=catalog.record_attach, args=(record,))
        event.listen(Engine, "before_cursor_execute", note)
        try:
            thread.start()
            assert waiting.wait(30)
        finally:
            event.remove(Engine, "before_cursor_execute", note)
            other.execute("COMMIT")
            thread.join()
    assert [row["backup_disk_id"] for row in database.mounts()] == [record.backup_disk_id]


def test_a_missing_file_is_named_and_not_made(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    with pytest.raises(CatalogError, match=r"catalog\.db: no such file.*restorefs scan"):
        open_catalog(f"sqlite:///{path}")
    with pytest.raises(CatalogError, match="no such file"):
        migrate(f"sqlite:///{path}", down=False)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    path.write_bytes(b"not a database, but long enough to be one" * 100)
    with pytest.raises(CatalogError, match="not a database"):
        open_catalog(f"sqlite:///{path}")


def test_missing_tables_are_named(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE backup_jobs (id)")
    expected = r"no table vm_backup_contexts, backup_disks; `restorefs scan`"
    with pytest.raises(CatalogError, match=expected):
        open_catalog(f"sqlite:///{path}")
    with pytest.raises(CatalogError, match=expected):
        migrate(f"sqlite:///{path}", down=False)


def test_migrations_can_be_run_in_any_order(url: str, reopen: Reopen, database: Database) -> None:
    made = [
        "made the table restore_mounts",
        "let the table restore_mounts have a row for each daemon that has attached a disk",
    ]
    undone = ["dropped the table restore_mounts"]
    (up_to_date,) = migrate(url, down=False)
    assert up_to_date.startswith("nothing to do")
    before = database("SELECT * FROM sqlite_master ORDER BY name")
    assert migrate(url, down=True) == undone
    assert migrate(url, down=True) == ["nothing to undo"]
    names = {row["name"] for row in database("SELECT name FROM sqlite_master")}
    assert not {name for name in names if name.startswith("restore")}
    with pytest.raises(CatalogError, match="no table restore_mounts; run `restorefs catalog mig"):
        reopen()
    assert migrate(url, down=False) == made
    after = database("SELECT * FROM sqlite_master ORDER BY name")

    def parts(rows: list[dict[str, Any]]) -> list[list[str]]:
        """The order of constraints is anybody's."""
        return [sorted(re.split(r",? *\n\s*", row["sql"] or "")) for row in rows]

    assert parts(after) == parts(before)
    # The two that belong together, lost one at a time.
    database("DROP TABLE restore_mounts")
    assert migrate(url, down=False) == made
    database("DROP TABLE restorefs_schema")
    assert migrate(url, down=True) == undone
    assert migrate(url, down=False) == made
    assert reopen().backups()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "not understood"),
        ("/var/lib/catalog.db", "not understood"),
        ("mysql+pymysql://u:sec:ret@host:port/db", "not understood"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("mysql+pymysql://u:secret@host", "names no database"),
        ("postgresql://u:secret@host/db", "known are sqlite and mysql"),
        ("mysql+mysqldb://u:secret@host/db", "known are sqlite and mysql"),
    ],
)
def test_urls_that_name_no_catalog_are_refused(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        open_catalog(url)
    assert "sec" not in str(caught.value)


def test_a_relative_path_becomes_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_url("sqlite:///catalog.db").database == str(tmp_path / "catalog.db")


@pytest.mark.parametrize("scheme", ["mysql", "mariadb", "mysql+pymysql", "mariadb+pymysql"])
def test_mariadb_urls_of_every_kind_mean_the_same(scheme: str) -> None:
    url = parse_url(f"{scheme}://u:p%40@host:3307/db")
    assert url.render_as_string(hide_password=False) == "mysql+pymysql://u:p%40@host:3307/db"
