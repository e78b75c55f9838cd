"""What every Catalog must do, and what every catalog in a database must do besides.

An implementation subclasses a suite in a test module and provides the fixture `reopen`, a function
that opens a fresh instance on one and the same sample. The databases' suite also needs `database`.
"""

import dataclasses
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from restorefs.catalog.base import Catalog
from restorefs.catalog.open import open_catalog
from restorefs.catalog.records import AttachRecord, DiskRecord
from restorefs.errors import CatalogError

# id -> (VM's name, time, disk_index of each disk)
SAMPLE = {
    "backup-pgtest1-1759947871": ("pgtest1", datetime(2025, 10, 8, 18, 24, 31, tzinfo=UTC), [0, 1]),
    "backup-pgtest1-1760034271": ("pgtest1", datetime(2025, 10, 9, 18, 24, 31, tzinfo=UTC), [0]),
    "backup-web-01.example-1760034271": (
        "web-01.example",
        datetime(2025, 10, 9, 18, 24, 31, tzinfo=UTC),
        [0],
    ),
    "Wöchentlich 100%;'\"\\ @#": (
        "Wöchentlich 100%;'\"\\ @#",
        datetime(2024, 2, 29, 23, 59, 58, tzinfo=UTC),
        [3, 12],
    ),
}

Reopen = Callable[[], Catalog]


def attach_record(disk: DiskRecord | int, **changes: Any) -> AttachRecord:
    """Return what a daemon records when it attaches a disk."""
    record = AttachRecord(
        backup_disk_id=disk if isinstance(disk, int) else disk.id,
        mount_path="/mnt/restore/backups/b/disk0",
        socket_path="/run/restorefs/b-0.sock",
        filesystem_type="ext4, vfat",
        created_at=datetime(2025, 10, 10, 8, 0, 0, tzinfo=UTC),
        last_accessed_at=datetime(2025, 10, 10, 8, 0, 1, tzinfo=UTC),
        expires_at=datetime(2025, 10, 10, 9, 0, 1, tzinfo=UTC),
    )
    return dataclasses.replace(record, **changes)


def first_disk(catalog: Catalog) -> DiskRecord:
    return catalog.backups()[0].disks[0]


class CatalogContract:
    """What the daemon relies on, whatever the catalog."""

    @pytest.fixture
    def catalog(self, reopen: Reopen) -> Catalog:
        return reopen()

    def test_every_backup_with_its_disks(self, catalog: Catalog) -> None:
        found = {
            backup.id: (backup.vm_name, backup.created_at, [d.disk_index for d in backup.disks])
            for backup in catalog.backups()
        }
        assert found == SAMPLE
        assert len(catalog.backups()) == len(SAMPLE)

    def test_times_are_in_utc(self, catalog: Catalog) -> None:
        for backup in catalog.backups():
            assert backup.created_at is not None
            assert backup.created_at.utcoffset() == timedelta(0)

    def test_disks_name_their_backup_and_an_absolute_path(self, catalog: Catalog) -> None:
        for backup in catalog.backups():
            for disk in backup.disks:
                assert disk.backup_id == backup.id
                assert disk.status == "completed"
                assert disk.path.is_absolute()
                assert disk.size_gb == 1

    def test_disk_ids_are_unique_and_more_than_zero(self, catalog: Catalog) -> None:
        ids = [disk.id for backup in catalog.backups() for disk in backup.disks]
        assert len(set(ids)) == len(ids)
        assert all(number > 0 for number in ids)

    def test_the_same_answer_again_and_from_a_fresh_instance(
        self, catalog: Catalog, reopen: Reopen
    ) -> None:
        assert list(catalog.backups()) == list(catalog.backups())
        assert list(catalog.backups()) == list(reopen().backups())

    def test_records_cannot_be_changed(self, catalog: Catalog) -> None:
        backup = catalog.backups()[0]
        with pytest.raises(dataclasses.FrozenInstanceError):
            backup.vm_name = "other"  # type: ignore[misc]
        with pytest.raises(AttributeError):
            backup.disks.append(backup.disks[0])  # type: ignore[attr-defined]

    def test_attaching_changes_nothing_that_is_listed(self, catalog: Catalog) -> None:
        before = list(catalog.backups())
        record = attach_record(first_disk(catalog))
        catalog.record_attach(record)
        catalog.record_attach(record)
        catalog.touch_attach(record)
        assert list(catalog.backups()) == before
        catalog.forget_attach(record.backup_disk_id)
        catalog.forget_attach(record.backup_disk_id)
        assert list(catalog.backups()) == before

    def test_recover_leaves_what_is_attached_now(self, catalog: Catalog, reopen: Reopen) -> None:
        catalog.record_attach(attach_record(first_disk(catalog)))
        assert catalog.recover() == 0
        assert reopen().recover() == 0

    def test_any_thread_may_call(self, catalog: Catalog) -> None:
        answers: list[object] = []

        def work() -> None:
            answers.append(list(catalog.backups()))
            catalog.record_attach(attach_record(first_disk(catalog)))
            catalog.forget_attach(first_disk(catalog).id)

        for _ in range(3):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        assert answers == [list(catalog.backups())] * 3

    def test_it_names_itself(self, catalog: Catalog) -> None:
        assert "catalog" in catalog.describe() or "folder" in catalog.describe()

    def test_closing_twice_does_no_harm(self, catalog: Catalog) -> None:
        catalog.backups()
        catalog.close()
        catalog.close()


class Database:
    """The tests' own way into a catalog's database."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __call__(self, sql: str, **values: Any) -> list[dict[str, Any]]:
        with self.engine.begin() as connection:
            result = connection.execute(text(sql), values)
            return [dict(row) for row in result.mappings()] if result.returns_rows else []

    def fill(self) -> None:
        """Write the sample, as the backup product does."""
        for backup_id, (vm_name, created_at, indexes) in SAMPLE.items():
            known = self("SELECT * FROM vm_backup_contexts WHERE vm_name = :vm", vm=vm_name)
            if not known:
                self(
                    "INSERT INTO vm_backup_contexts VALUES (:id, :vm, 'repo-1')",
                    id=f"ctx-{vm_name}",
                    vm=vm_name,
                )
            self.add_job(backup_id, f"ctx-{vm_name}", f"{created_at:%Y-%m-%d %H:%M:%S}")
            for index in indexes:
                self.add_disk(backup_id, index)

    def add_job(self, backup_id: str, context_id: str | None, created_at: str | None) -> None:
        self(
            "INSERT INTO backup_jobs (id, vm_backup_context_id, status, created_at) "
            "VALUES (:id, :context, 'completed', :created_at)",
            id=backup_id,
            context=context_id,
            created_at=created_at,
        )

    def add_disk(
        self,
        backup_id: str,
        index: int,
        *,
        status: str = "completed",
        path: str | None = "/srv/backups/x.qcow2",
    ) -> int:
        self(
            "INSERT INTO backup_disks (backup_job_id, disk_index, vmware_disk_key, size_gb, "
            "qcow2_path, status) VALUES (:job, :index, 2000, 1, :path, :status)",
            job=backup_id,
            index=index,
            path=path,
            status=status,
        )
        return int(self("SELECT max(id) AS id FROM backup_disks")[0]["id"])

    def mounts(self) -> list[dict[str, Any]]:
        return self("SELECT * FROM restore_mounts ORDER BY backup_disk_id")


# A daemon of its own process: records a disk, says so, and goes on until its input ends.
_DAEMON = """
import sys
from datetime import UTC, datetime
from restorefs.catalog.open import open_catalog
from restorefs.catalog.records import AttachRecord
catalog = open_catalog(sys.argv[1])
now = datetime.now(UTC)
catalog.record_attach(AttachRecord(int(sys.argv[2]), "/other", "/s", "xfs", now, now, None))
print("recorded", flush=True)
sys.stdin.read()
"""


@contextmanager
def other_daemon(url: str, disk_id: int) -> Iterator[subprocess.Popen[str]]:
    """Run another daemon that has attached a disk."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", _DAEMON, url, str(disk_id)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "recorded\n"
        yield process
    finally:
        process.kill()
        process.communicate()


class SqlCatalogContract(CatalogContract):
    """What every catalog in a database does besides. Fixtures: `url`, `database`."""

    def test_only_completed_disks_appear(self, catalog: Catalog, database: Database) -> None:
        before = list(catalog.backups())
        backup_id = before[0].id
        for status in ("pending", "running", "failed"):
            database.add_disk(backup_id, 7, status=status)
        database.add_job("backup-none-1", None, None)
        database.add_disk("backup-none-1", 0, status="failed")
        assert list(catalog.backups()) == before

    def test_a_job_appears_whatever_its_own_status(
        self, catalog: Catalog, database: Database
    ) -> None:
        database("UPDATE backup_jobs SET status = 'failed'")
        assert {backup.id for backup in catalog.backups()} == set(SAMPLE)

    def test_the_highest_id_wins_and_it_is_said_once(
        self, catalog: Catalog, database: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        backup_id = "backup-pgtest1-1759947871"
        newer = database.add_disk(backup_id, 0, path="/srv/backups/newer.qcow2")
        for _ in range(2):
            backup = next(b for b in catalog.backups() if b.id == backup_id)
            assert [disk.disk_index for disk in backup.disks] == [0, 1]
            assert backup.disks[0].id == newer
            assert backup.disks[0].path == Path("/srv/backups/newer.qcow2")
        warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert len(warnings) == 1
        assert f"{backup_id} has disk 0 twice" in warnings[0]

    def test_what_changes_in_the_database_is_seen(
        self, catalog: Catalog, database: Database
    ) -> None:
        disk = first_disk(catalog)
        database(
            "UPDATE backup_disks SET qcow2_path = '/new.qcow2', size_gb = NULL WHERE id = :id",
            id=disk.id,
        )
        changed = first_disk(catalog)
        assert changed == dataclasses.replace(disk, qcow2_path="/new.qcow2", size_gb=None)

    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE backup_disks SET size_gb = 77 WHERE id = :id",
            "UPDATE backup_disks SET vmware_disk_key = 77 WHERE id = :id",
            "UPDATE backup_disks SET disk_index = 77 WHERE id = :id",
            "UPDATE backup_disks SET status = 'failed' WHERE id = :id",
            "UPDATE backup_jobs SET created_at = '2024-02-29 01:02:03' WHERE id = :backup",
            "UPDATE vm_backup_contexts SET vm_name = 'other' WHERE context_id ="
            " (SELECT vm_backup_context_id FROM backup_jobs WHERE id = :backup)",
            "DELETE FROM backup_disks WHERE id = :id",
            "DELETE FROM backup_jobs WHERE id = :backup",
        ],
    )
    def test_whatever_changes_is_seen(
        self, catalog: Catalog, database: Database, change: str
    ) -> None:
        before = list(catalog.backups())
        disk = before[0].disks[0]
        values = {"id": disk.id, "backup": disk.backup_id}
        database(change, **{name: values[name] for name in values if f":{name}" in change})
        assert list(catalog.backups()) != before

    def test_a_backup_of_an_unknown_vm_at_an_unknown_time_appears(
        self, catalog: Catalog, database: Database
    ) -> None:
        database.add_job("lost", None, None)
        database.add_disk("lost", 0)
        backup = next(b for b in catalog.backups() if b.id == "lost")
        assert (backup.vm_name, backup.created_at) == ("lost", None)

    def test_rows_that_make_no_sense_cost_only_themselves(
        self, catalog: Catalog, database: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        before = list(catalog.backups())
        database.add_job("odd", None, None)
        database.add_disk("odd", -1)
        assert list(catalog.backups()) == before
        assert "disk_index -1 left out" in caplog.text
        pathless = database.add_disk("odd", 1, path=None)
        odd = next(b for b in catalog.backups() if b.id == "odd")
        assert [disk.id for disk in odd.disks] == [pathless]
        assert "names no file for disk 1" in caplog.text

    def test_all_backups_are_one_query_and_a_check_whether_any_changed(
        self, catalog: Catalog
    ) -> None:
        statements: list[str] = []

        def note(_conn: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
            if not statement.startswith("BEGIN"):
                statements.append(statement)

        event.listen(Engine, "before_cursor_execute", note)
        try:
            found = catalog.backups()
            assert len(statements) == 2
            assert catalog.backups() is found
            assert len(statements) == 3
            assert "count(*)" in statements[2]
        finally:
            event.remove(Engine, "before_cursor_execute", note)

    def test_an_attach_has_its_row(self, catalog: Catalog, database: Database) -> None:
        disk = first_disk(catalog)
        catalog.record_attach(attach_record(disk))
        (row,) = database.mounts()
        assert row["backup_disk_id"] == disk.id
        assert row["mount_path"] == "/mnt/restore/backups/b/disk0"
        assert row["socket_path"] == "/run/restorefs/b-0.sock"
        assert row["filesystem_type"] == "ext4, vfat"
        assert row["nbd_device"] is None
        assert row["host"] == socket.gethostname()
        assert row["pid"] == os.getpid()
        assert str(row["created_at"])[:19] == "2025-10-10 08:00:00"
        assert str(row["last_accessed_at"])[:19] == "2025-10-10 08:00:01"
        assert str(row["expires_at"])[:19] == "2025-10-10 09:00:01"

        later = datetime(2025, 10, 10, 8, 30, tzinfo=UTC)
        catalog.touch_attach(attach_record(disk, last_accessed_at=later, expires_at=None))
        (touched,) = database.mounts()
        assert touched["id"] == row["id"]
        assert str(touched["last_accessed_at"])[:19] == "2025-10-10 08:30:00"
        assert touched["expires_at"] is None

        catalog.forget_attach(disk.id)
        assert database.mounts() == []

    def test_times_of_other_zones_are_stored_in_utc(
        self, catalog: Catalog, database: Database
    ) -> None:
        there = timezone(timedelta(hours=5, minutes=30))
        catalog.record_attach(
            attach_record(
                first_disk(catalog), created_at=datetime(2025, 1, 1, 1, 0, 0, tzinfo=there)
            )
        )
        (row,) = database.mounts()
        assert str(row["created_at"])[:19] == "2024-12-31 19:30:00"

    def test_texts_that_do_not_fit_are_cut(self, catalog: Catalog, database: Database) -> None:
        record = attach_record(
            first_disk(catalog), mount_path="/ä" * 600, filesystem_type="ext4, " * 200
        )
        catalog.record_attach(record)
        (row,) = database.mounts()
        assert row["mount_path"] == ("/ä" * 600)[:512]
        assert row["filesystem_type"] == ("ext4, " * 200)[:255]

    def test_a_row_that_is_missing_is_made_by_the_next_touch(
        self, catalog: Catalog, database: Database
    ) -> None:
        disk = first_disk(catalog)
        catalog.touch_attach(attach_record(disk))
        assert [row["backup_disk_id"] for row in database.mounts()] == [disk.id]

    def test_a_disk_that_left_the_catalog_cannot_be_recorded(self, catalog: Catalog) -> None:
        with pytest.raises(CatalogError, match=r"(?i)foreign key"):
            catalog.record_attach(attach_record(999_999))

    @pytest.mark.parametrize("reaped", [True, False], ids=["gone", "zombie"])
    def test_rows_of_a_crashed_daemon_go(
        self, catalog: Catalog, database: Database, url: str, reaped: bool
    ) -> None:
        disk = first_disk(catalog)
        with other_daemon(url, disk.id) as daemon:
            daemon.send_signal(signal.SIGKILL)
            os.waitid(os.P_PID, daemon.pid, os.WEXITED | os.WNOWAIT)
            if reaped:
                daemon.wait()
            assert len(database.mounts()) == 1
            assert catalog.recover() == 1
            assert database.mounts() == []
            assert catalog.recover() == 0

    def test_each_daemon_has_a_row_of_its_own(
        self, catalog: Catalog, database: Database, url: str
    ) -> None:
        disk = first_disk(catalog)
        with other_daemon(url, disk.id) as daemon:
            theirs = database.mounts()
            assert [row["pid"] for row in theirs] == [daemon.pid]
            assert catalog.recover() == 0
            catalog.record_attach(attach_record(disk))
            catalog.touch_attach(attach_record(disk))
            assert {row["pid"] for row in database.mounts()} == {daemon.pid, os.getpid()}
            catalog.forget_attach(disk.id)
            assert database.mounts() == theirs
            daemon.kill()
            daemon.wait()
            catalog.touch_attach(attach_record(disk))
            assert [row["pid"] for row in database.mounts()] == [os.getpid()]

    def test_each_host_has_a_row_and_cleans_its_own(
        self, catalog: Catalog, database: Database, url: str
    ) -> None:
        disk = first_disk(catalog)
        with closing(open_catalog(url, "other.example")) as other:
            for each in (catalog, other, catalog, other):
                each.record_attach(attach_record(disk))
            hosts = sorted(row["host"] for row in database.mounts())
            assert hosts == sorted([socket.gethostname(), "other.example"])
            # As after a crash: the processes of both are gone.
            database("UPDATE restore_mounts SET pid_start = 'another boot/17'")
            assert other.recover() == 1
            assert [row["host"] for row in database.mounts()] == [socket.gethostname()]
            assert other.recover() == 0
            other.record_attach(attach_record(disk))
            assert catalog.recover() == 1
            assert [row["host"] for row in database.mounts()] == ["other.example"]
            catalog.forget_attach(disk.id)
            assert [row["host"] for row in database.mounts()] == ["other.example"]

    def test_names_that_a_database_takes_for_ours_are_others(
        self, catalog: Catalog, database: Database, url: str
    ) -> None:
        with closing(open_catalog(url, "node-\u00e9")) as other:
            other.record_attach(attach_record(first_disk(catalog)))
        database("UPDATE restore_mounts SET pid_start = 'another boot/17'")
        with closing(open_catalog(url, "node-e")) as ours:
            assert ours.recover() == 0

    def test_a_process_number_that_is_used_again_is_not_the_crashed_daemon(
        self, catalog: Catalog, database: Database
    ) -> None:
        disk = first_disk(catalog)
        catalog.record_attach(attach_record(disk))
        database("UPDATE restore_mounts SET pid_start = 'another boot/17'")
        assert catalog.recover() == 1
        assert database.mounts() == []

    @pytest.mark.parametrize(
        "change",
        ["host = 'another.example'", "host = NULL, pid = NULL, pid_start = NULL"],
        ids=["another host", "the product"],
    )
    def test_rows_of_others_are_never_touched(
        self, catalog: Catalog, database: Database, change: str
    ) -> None:
        disk = first_disk(catalog)
        catalog.record_attach(attach_record(disk))
        database(f"UPDATE restore_mounts SET {change}")
        database("UPDATE restore_mounts SET pid = 999999999 WHERE pid IS NOT NULL")
        theirs = database.mounts()
        assert catalog.recover() == 0
        catalog.record_attach(attach_record(disk))
        assert [row for row in database.mounts() if row["pid"] != os.getpid()] == theirs
        catalog.forget_attach(disk.id)
        assert database.mounts() == theirs

    def test_rows_of_other_disks_stay(self, catalog: Catalog, database: Database) -> None:
        disks = [disk for backup in catalog.backups() for disk in backup.disks]
        for disk in disks:
            catalog.record_attach(attach_record(disk))
        catalog.forget_attach(disks[0].id)
        assert {row["backup_disk_id"] for row in database.mounts()} == {
            disk.id for disk in disks[1:]
        }
