"""The catalog in MariaDB: the contract on a real server, the migrations, and outages."""

import gc
import re
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import quote

import pytest
from sqlalchemy import create_engine

from restorefs.catalog.base import Catalog
from restorefs.catalog.migrate import migrate
from restorefs.catalog.open import open_catalog
from restorefs.errors import CatalogError
from tests.contracts.catalog import (
    SAMPLE,
    Database,
    Reopen,
    SqlCatalogContract,
    attach_record,
    first_disk,
)
from tests.mariadb import PASSWORD, PRODUCT_MOUNTS, USER, MariaDb

NAME = "sendense"
WIDENED = "let the table restore_mounts have a row for each daemon that has attached a disk"
MADE = ["made the table restore_mounts", WIDENED]


@pytest.fixture
def url(mariadb: MariaDb) -> Iterator[str]:
    """A database with the product's tables, empty."""
    with mariadb.database(NAME) as url:
        yield url


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    engine = create_engine(
        url,
        connect_args={
            "init_command": "SET SESSION time_zone = '+00:00'",
            "password": PASSWORD.encode(),
            "ssl_disabled": True,
        },
    )
    try:
        database = Database(engine)
        database.fill()
        yield database
    finally:
        engine.dispose()


@pytest.fixture
def reopen(url: str, database: Database) -> Iterator[Reopen]:
    migrate(url, down=False)
    opened: list[Catalog] = []

    def open_one() -> Catalog:
        opened.append(open_catalog(url))
        return opened[-1]

    yield open_one
    for catalog in opened:
        catalog.close()


def create_statement(mariadb: MariaDb) -> str:
    (row,) = mariadb.execute("SHOW CREATE TABLE restore_mounts", database=NAME)
    return str(row["Create Table"])


def tables(mariadb: MariaDb) -> set[str]:
    rows = mariadb.execute("SHOW TABLES", database=NAME)
    return {str(name) for row in rows for name in row.values()}


class TestMariaDbCatalog(SqlCatalogContract):
    pass


def test_the_unix_socket_serves_as_well(mariadb: MariaDb, reopen: Reopen) -> None:
    with closing(open_catalog(mariadb.socket_url(NAME))) as catalog:
        assert list(catalog.backups()) == list(reopen().backups())
        assert str(mariadb.socket) in catalog.describe()


def test_it_names_its_place_and_not_its_password(mariadb: MariaDb, reopen: Reopen) -> None:
    said = reopen().describe()
    assert said == f"MariaDB catalog {NAME} at 127.0.0.1:{mariadb.port} as user {USER}"


def test_times_do_not_depend_on_the_servers_zone(
    mariadb: MariaDb, reopen: Reopen, database: Database
) -> None:
    mariadb.execute("SET GLOBAL time_zone = '+05:00'")
    try:
        catalog = reopen()
        assert {b.id: b.created_at for b in catalog.backups()} == {
            name: created_at for name, (_, created_at, _) in SAMPLE.items()
        }
    finally:
        mariadb.execute("SET GLOBAL time_zone = 'SYSTEM'")


def test_a_date_of_zeros_is_no_date(mariadb: MariaDb, reopen: Reopen, database: Database) -> None:
    mariadb.execute(
        "SET STATEMENT sql_mode = '' FOR UPDATE backup_jobs SET created_at = '0000-00-00'",
        database=NAME,
    )
    assert {backup.created_at for backup in reopen().backups()} == {None}


def test_up_makes_the_table_as_the_product_describes_it(
    mariadb: MariaDb, url: str, database: Database
) -> None:
    assert migrate(url, down=False) == MADE
    columns = {
        row["COLUMN_NAME"]: (row["COLUMN_TYPE"].split("(")[0], row["CHARACTER_MAXIMUM_LENGTH"])
        for row in mariadb.execute(
            "SELECT * FROM information_schema.columns WHERE table_schema = %s AND "
            "table_name = 'restore_mounts'",
            NAME,
        )
    }
    assert columns == {
        "id": ("bigint", None),
        "backup_disk_id": ("bigint", None),
        "mount_path": ("varchar", 512),
        "nbd_device": ("varchar", 32),
        "filesystem_type": ("varchar", 255),
        "status": ("varchar", 32),
        "created_at": ("datetime", None),
        "last_accessed_at": ("datetime", None),
        "expires_at": ("datetime", None),
        "host": ("varchar", 255),
        "pid": ("int", None),
        "pid_start": ("varchar", 64),
        "socket_path": ("varchar", 512),
    }
    made = create_statement(mariadb)
    assert "PRIMARY KEY (`id`)" in made
    assert "`backup_disk_id` bigint(20) NOT NULL" in made
    assert "UNIQUE KEY `uk_restorefs_disk_daemon` (`backup_disk_id`,`host`,`pid`)" in made
    assert "uk_backup_disk" not in made
    assert re.search(r"FOREIGN KEY .*REFERENCES `backup_disks` \(`id`\) ON DELETE CASCADE", made)
    assert "restorefs_schema" in tables(mariadb)


def test_deleting_a_vm_takes_everything_along(
    mariadb: MariaDb, reopen: Reopen, database: Database
) -> None:
    catalog = reopen()
    for backup in catalog.backups():
        for disk in backup.disks:
            catalog.record_attach(attach_record(disk))
    before = len(database.mounts())
    mariadb.execute("DELETE FROM vm_backup_contexts WHERE vm_name = 'pgtest1'", database=NAME)
    assert before - len(database.mounts()) == 3
    assert {backup.vm_name for backup in catalog.backups()} == {
        vm_name for vm_name, _, _ in SAMPLE.values()
    } - {"pgtest1"}


def test_down_leaves_no_trace(mariadb: MariaDb, url: str, database: Database) -> None:
    before = tables(mariadb)
    assert migrate(url, down=True) == ["nothing to undo"]
    assert tables(mariadb) == before
    migrate(url, down=False)
    (again,) = migrate(url, down=False)
    assert again.startswith("nothing to do")
    assert migrate(url, down=True) == ["dropped the table restore_mounts"]
    assert tables(mariadb) == before
    assert migrate(url, down=False) == MADE


def test_a_table_of_the_first_revision_is_widened(
    mariadb: MariaDb, url: str, database: Database
) -> None:
    migrate(url, down=False)
    for change in (
        "ALTER TABLE restore_mounts ADD UNIQUE KEY uk_backup_disk (backup_disk_id)",
        "ALTER TABLE restore_mounts DROP KEY uk_restorefs_disk_daemon",
        "UPDATE restorefs_schema SET version_num = '0001'",
    ):
        mariadb.execute(change, database=NAME)
    with closing(open_catalog(url)) as ours, closing(open_catalog(url, "other")) as other:
        ours.record_attach(attach_record(1))
        other.record_attach(attach_record(1))  # not refused, and not recorded
        (row,) = database.mounts()
    assert migrate(url, down=False) == [WIDENED]
    with closing(open_catalog(url, "other")) as other:
        other.record_attach(attach_record(1))
        assert database.mounts()[0] == row
        assert [row["host"] for row in database.mounts()][1:] == ["other"]
        assert migrate(url, down=True) == ["dropped the table restore_mounts"]


def test_a_table_that_the_product_made_is_completed_and_given_back(
    mariadb: MariaDb, url: str, database: Database
) -> None:
    mariadb.execute(PRODUCT_MOUNTS, database=NAME)
    theirs, ours = database.add_disk("backup-pgtest1-1759947871", 5), 1
    database(
        "INSERT INTO restore_mounts (id, backup_disk_id, mount_path, nbd_device, status) "
        "VALUES ('a-uuid', :id, '/mnt/x', '/dev/nbd0', 'mounted')",
        id=theirs,
    )
    as_it_was = create_statement(mariadb)
    rows_as_they_were = database.mounts()
    with pytest.raises(CatalogError, match=r"no host, pid, .*run `restorefs catalog migrate`"):
        open_catalog(url)

    done = migrate(url, down=False)
    assert [line.split()[:4] for line in done] == [
        ["added", "the", "column", name] for name in ("host", "pid", "pid_start", "socket_path")
    ]
    with closing(open_catalog(url)) as catalog:
        assert catalog.recover() == 0
        for disk_id in (theirs, ours, ours + 1):
            catalog.record_attach(attach_record(disk_id, filesystem_type="ext4, vfat"))
        rows = {row["backup_disk_id"]: row for row in database.mounts()}
        assert rows[theirs] == rows_as_they_were[0] | {
            "host": None,
            "pid": None,
            "pid_start": None,
            "socket_path": None,
        }
        assert rows[ours]["filesystem_type"] == "ext4, vf"
        catalog.forget_attach(ours)
        assert {row["backup_disk_id"] for row in database.mounts()} == {theirs, ours + 1}

    assert len(migrate(url, down=True)) == 4
    assert create_statement(mariadb) == as_it_was
    assert database.mounts() == rows_as_they_were
    assert "restorefs_schema" not in tables(mariadb)


def test_up_goes_on_where_it_was_cut_short(mariadb: MariaDb, url: str, database: Database) -> None:
    mariadb.execute(PRODUCT_MOUNTS, database=NAME)
    mariadb.execute("ALTER TABLE restore_mounts ADD host VARCHAR(255)", database=NAME)
    assert len(migrate(url, down=False)) == 3
    open_catalog(url).close()
    mariadb.execute("ALTER TABLE restore_mounts DROP socket_path", database=NAME)
    assert len(migrate(url, down=False)) == 1
    open_catalog(url).close()


def test_a_table_of_that_name_with_another_purpose_is_left_alone(
    mariadb: MariaDb, url: str, database: Database
) -> None:
    mariadb.execute("CREATE TABLE restore_mounts (id INT PRIMARY KEY)", database=NAME)
    before = create_statement(mariadb)
    with pytest.raises(CatalogError, match="without backup_disk_id, mount_path"):
        migrate(url, down=False)
    assert create_statement(mariadb) == before


def test_only_restore_mounts_is_ever_written(mariadb: MariaDb, url: str, reopen: Reopen) -> None:
    mariadb.execute("CREATE USER 'careful'@'127.0.0.1' IDENTIFIED BY 'x'")
    try:
        for table in ("vm_backup_contexts", "backup_jobs", "backup_disks"):
            mariadb.execute(f"GRANT SELECT ON {NAME}.{table} TO 'careful'@'127.0.0.1'")
        mariadb.execute(f"GRANT ALL ON {NAME}.restore_mounts TO 'careful'@'127.0.0.1'")
        careful = url.replace(f"{USER}:{quote(PASSWORD, safe='')}", "careful:x")
        with closing(open_catalog(careful)) as catalog:
            record = attach_record(first_disk(catalog))
            catalog.recover()
            catalog.record_attach(record)
            catalog.touch_attach(record)
            catalog.forget_attach(record.backup_disk_id)
    finally:
        mariadb.execute("DROP USER 'careful'@'127.0.0.1'")


def assert_says(error: CatalogError, *parts: str) -> None:
    for part in parts:
        assert part in str(error)
    for secret in (PASSWORD, quote(PASSWORD, safe=""), "wörd"):
        assert secret not in str(error)


def test_a_server_that_is_down_at_start_is_named(mariadb: MariaDb, url: str) -> None:
    with mariadb.stopped():
        with pytest.raises(CatalogError) as caught:
            open_catalog(url)
        assert_says(caught.value, f"127.0.0.1:{mariadb.port}", "refused", "Check that the server")
        with pytest.raises(CatalogError) as caught:
            migrate(url, down=False)
        assert_says(caught.value, "Check that the server runs")


# PyMySQL leaves a unix socket that it could not connect to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_unix_socket_without_a_server_is_named(mariadb: MariaDb) -> None:
    with mariadb.stopped(), pytest.raises(CatalogError) as caught:
        open_catalog(mariadb.socket_url(NAME))
    assert_says(caught.value, str(mariadb.socket), "Check that the server runs")
    del caught
    gc.collect()


def test_what_is_wrong_at_start_is_named(mariadb: MariaDb, url: str) -> None:
    with pytest.raises(CatalogError) as caught:
        open_catalog(url.replace(f"{USER}:", "nobody:"))
    assert_says(caught.value, "Access denied", "Check user, password")
    with pytest.raises(CatalogError) as caught:
        open_catalog(url.replace(f"/{NAME}", "/nothing"))
    assert_says(caught.value, "Unknown database", "Check the database's name")
    with pytest.raises(CatalogError) as caught:
        open_catalog(url)
    assert_says(caught.value, "no table restore_mounts; run `restorefs catalog migrate`")
    with mariadb.database("empty", tables=False) as empty:
        for attempt in (open_catalog, lambda url: migrate(url, down=False)):
            with pytest.raises(CatalogError) as caught:
                attempt(empty)
            assert_says(
                caught.value, "no table vm_backup_contexts, backup_jobs, backup_disks", "product's"
            )


def test_an_outage_ends_by_itself(mariadb: MariaDb, reopen: Reopen) -> None:
    catalog = reopen()
    before = list(catalog.backups())
    record = attach_record(first_disk(catalog))
    with mariadb.stopped():
        for attempt in (
            catalog.backups,
            catalog.recover,
            lambda: catalog.record_attach(record),
            lambda: catalog.touch_attach(record),
            lambda: catalog.forget_attach(record.backup_disk_id),
        ):
            with pytest.raises(CatalogError) as caught:
                attempt()
            assert_says(caught.value, f"127.0.0.1:{mariadb.port}")
    assert list(catalog.backups()) == before
    catalog.touch_attach(record)
    catalog.forget_attach(record.backup_disk_id)


def test_a_restart_between_two_calls_is_not_noticed(mariadb: MariaDb, reopen: Reopen) -> None:
    catalog = reopen()
    before = list(catalog.backups())
    with mariadb.stopped():
        pass
    assert list(catalog.backups()) == before


def test_a_server_that_answers_nothing_is_given_up(
    mariadb: MariaDb, url: str, reopen: Reopen
) -> None:
    reopen()
    with closing(open_catalog(f"{url}?connect_timeout=1&read_timeout=1")) as catalog:
        before = list(catalog.backups())
        with mariadb.hanging():
            for _ in range(2):
                with pytest.raises(CatalogError, match="timed out"):
                    catalog.backups()
        assert list(catalog.backups()) == before
