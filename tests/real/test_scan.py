"""Scanning a folder of images into SQLite, with images that qemu-img made."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from restorefs.catalog.open import open_catalog, open_folder
from restorefs.catalog.scan import ScanReport, scan
from restorefs.errors import CatalogError, ConfigError
from tests.images.repository import Repository

Query = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "backups")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/state/catalog.db"


@pytest.fixture
def query(tmp_path: Path) -> Query:
    def run(sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(tmp_path / "state" / "catalog.db")) as db:
            return db.execute(sql).fetchall()

    return run


def scanned(repository: Repository, url: str) -> ScanReport:
    return scan(repository.root, url, lambda _done, _all: None)


def listed(url: str) -> dict[str, dict[int, tuple[int, Path]]]:
    """Return id and path of every disk, as the catalog shows them."""
    with closing(open_catalog(url)) as catalog:
        return {
            backup.id: {disk.disk_index: (disk.id, disk.path) for disk in backup.disks}
            for backup in catalog.backups()
        }


def test_it_writes_what_the_folder_catalog_shows(
    repository: Repository, url: str, query: Query
) -> None:
    repository.add("backup-pgtest1-1759947871/disk0.qcow2")
    repository.add("backup-pgtest1-1759947871/disk-1/x.qcow2")
    repository.add("backup-pgtest1-1760034271/disk0.qcow2")
    repository.add("weekly/disk-0/x-disk0-20251008-000000.qcow2")
    repository.add("weekly/disk-0/x-disk0-20251009-000000.qcow2")
    repository.file("weekly/notes.txt")
    report = scanned(repository, url)
    assert (report.backups, report.disks, report.known) == (4, 5, 0)
    assert len(report.added) == 5
    assert report.lines() == [
        f"{repository.root}: 4 backups, 5 disks (5 new, 0 changed, 0 vanished, 1 skipped)",
        f"skipped {repository.root}/weekly/notes.txt: neither disk<N>.qcow2 nor a folder disk-<N>",
        "weekly@20251008-000000: an older restore point (disk 0 is independent of "
        "x-disk0-20251009-000000.qcow2)",
    ]

    def content(catalog: Any) -> list[Any]:
        with closing(catalog):
            return [
                (
                    b.id,
                    b.vm_name,
                    b.created_at,
                    [(d.disk_index, d.path, d.size_gb) for d in b.disks],
                )
                for b in catalog.backups()
            ]

    assert content(open_catalog(url)) == sorted(content(open_folder(repository.root)))
    assert query("SELECT vm_name, count(*) FROM vm_backup_contexts GROUP BY 1 ORDER BY 1") == [
        ("pgtest1", 1),
        ("weekly", 1),
    ]
    assert query("SELECT DISTINCT status FROM backup_jobs") == [("completed",)]
    assert query("SELECT created_at FROM backup_jobs WHERE id = 'backup-pgtest1-1759947871'") == [
        ("2025-10-08 18:24:31.000000",)
    ]


def test_a_second_scan_changes_nothing(repository: Repository, url: str, tmp_path: Path) -> None:
    repository.add("a/disk0.qcow2")
    repository.add("a/disk1.qcow2")
    scanned(repository, url)
    before = (tmp_path / "state" / "catalog.db").read_bytes()
    report = scanned(repository, url)
    assert (report.known, report.added, report.changed, report.vanished) == (2, [], [], [])
    assert (tmp_path / "state" / "catalog.db").read_bytes() == before


def test_what_is_new_is_added_and_ids_stay(repository: Repository, url: str) -> None:
    repository.add("b/disk0.qcow2")
    scanned(repository, url)
    before = listed(url)
    new = [repository.add("a/disk0.qcow2"), repository.add("b/disk1.qcow2")]
    assert scanned(repository, url).added == new
    after = listed(url)
    assert after["b"][0] == before["b"][0]
    assert len({number for disks in after.values() for number, _ in disks.values()}) == 3


def test_what_has_vanished_is_marked_and_may_come_back(
    repository: Repository, url: str, query: Query
) -> None:
    path = repository.add("a/disk0.qcow2")
    repository.add("b/disk0.qcow2")
    scanned(repository, url)
    before = listed(url)
    away = repository.root.parent / "away.qcow2"
    path.rename(away)
    report = scanned(repository, url)
    assert report.vanished == [path]
    assert f"vanished {path}" in report.lines()
    assert set(listed(url)) == {"b"}
    assert query("SELECT status FROM backup_disks ORDER BY id") == [("missing",), ("completed",)]
    assert scanned(repository, url).vanished == []
    away.rename(path)
    assert scanned(repository, url).changed == [path]
    assert listed(url) == before


def test_the_id_of_a_row_that_was_deleted_is_not_given_to_another(
    repository: Repository, url: str
) -> None:
    path = repository.add("b/disk0.qcow2")
    scanned(repository, url)
    ((old, _),) = listed(url)["b"].values()
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db:
        db.execute("DELETE FROM backup_disks")
        db.commit()
    path.rename(path.with_name("disk1.qcow2"))
    scanned(repository, url)
    ((new, _),) = listed(url)["b"].values()
    assert new > old


def test_an_image_that_became_unreadable_stays_listed(repository: Repository, url: str) -> None:
    path = repository.add("a/disk0.qcow2")
    scanned(repository, url)
    before = listed(url)
    path.write_bytes(b"damaged")
    report = scanned(repository, url)
    assert f"{path}: not a qcow2 image" in [str(skipped) for skipped in report.skipped]
    assert report.vanished == []
    assert listed(url) == before


def test_a_newer_restore_point_leaves_the_older_its_id(repository: Repository, url: str) -> None:
    old = repository.add("pg/disk-0/x-disk0-20251008-000000.qcow2")
    scanned(repository, url)
    before = listed(url)
    new = repository.add("pg/disk-0/x-disk0-20251009-000000.qcow2", backing=old.name)
    report = scanned(repository, url)
    assert (report.added, report.changed) == ([new], [old])
    after = listed(url)
    assert after["pg@20251008-000000"] == before["pg"] == {0: (before["pg"][0][0], old)}
    assert after["pg"][0][1] == new
    with closing(open_catalog(url)) as catalog:
        newest, older = catalog.backups()
        assert newest.created_at is not None
        assert older.created_at is not None
        assert newest.created_at > older.created_at


def test_several_folders_share_a_catalog(repository: Repository, url: str) -> None:
    other = Repository(repository.root.with_name("other"))
    here = repository.add("a/disk0.qcow2")
    there = other.add("b/disk0.qcow2")
    scanned(repository, url)
    assert scanned(other, url).vanished == []
    assert {b: path for b, disks in listed(url).items() for _, path in disks.values()} == {
        "a": here,
        "b": there,
    }


def test_a_backup_that_is_catalogued_from_elsewhere_is_not_mixed(
    repository: Repository, url: str
) -> None:
    other = Repository(repository.root.with_name("other"))
    here = repository.add("a/disk0.qcow2")
    copy = other.add("a/disk0.qcow2")
    scanned(repository, url)
    before = listed(url)
    report = scanned(other, url)
    assert [str(skipped) for skipped in report.skipped] == [
        f"{copy}: backup a is catalogued already, from {here}"
    ]
    assert listed(url) == before


def test_what_cannot_be_read_has_not_vanished(repository: Repository, url: str) -> None:
    image = repository.add("a/disk0.qcow2")
    scanned(repository, url)
    before = listed(url)
    image.parent.chmod(0)
    database = Path(url.removeprefix("sqlite:///"))
    for path in (database, database.parent):
        os.chown(path, 65534, -1)
    with repository.as_nobody():
        report = scanned(repository, url)
    assert (report.vanished, [skipped.reason for skipped in report.skipped]) == (
        [],
        ["Permission denied"],
    )
    assert listed(url) == before


def test_a_folder_that_was_moved_keeps_its_ids(repository: Repository, url: str) -> None:
    repository.add("a/disk0.qcow2")
    repository.add("pg/disk-0/x-disk0-20251008-000000.qcow2")
    repository.add("pg/disk-0/x-disk0-20251009-000000.qcow2")
    scanned(repository, url)
    before = listed(url)
    moved = repository.root.rename(repository.root.with_name("moved"))
    report = scan(moved, url, lambda _done, _all: None)
    assert (len(report.added), len(report.changed)) == (0, 3)
    assert listed(url) == {
        backup: {
            index: (number, moved / path.relative_to(repository.root))
            for index, (number, path) in disks.items()
        }
        for backup, disks in before.items()
    }


def test_two_links_to_one_image_are_one_disk(repository: Repository, url: str) -> None:
    image = repository.add("a/disk0.qcow2")
    (repository.root / "b").mkdir()
    (repository.root / "b" / "disk0.qcow2").symlink_to("../a/disk0.qcow2")
    for _ in range(2):
        report = scanned(repository, url)
        assert [str(skipped) for skipped in report.skipped] == [
            f"{image}: disk 0 of b is a link to another's image"
        ]
        assert set(listed(url)) == {"a"}


def test_names_that_sqlite_cannot_hold_are_said(repository: Repository, url: str) -> None:
    repository.add("a/disk0.qcow2")
    repository.add(os.fsdecode(b"b\xe4ckup/disk0.qcow2"))
    report = scanned(repository, url)
    assert ["not UTF-8" in skipped.reason for skipped in report.skipped] == [True]
    assert set(listed(url)) == {"a"}


def test_attach_records_survive_a_scan(repository: Repository, url: str, query: Query) -> None:
    repository.add("a/disk0.qcow2")
    scanned(repository, url)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db:
        db.execute("INSERT INTO restore_mounts (backup_disk_id, status) VALUES (1, 'mounted')")
        db.commit()
    scanned(repository, url)
    assert query("SELECT backup_disk_id, status FROM restore_mounts") == [(1, "mounted")]


def test_progress_is_told(repository: Repository, url: str) -> None:
    for name in ("a", "b", "c"):
        repository.add(f"{name}/disk0.qcow2")
    told: list[tuple[int, int]] = []
    scan(repository.root, url, lambda done, every: told.append((done, every)))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("scheme", ["mysql", "mariadb+pymysql"])
def test_the_products_database_is_never_written(repository: Repository, scheme: str) -> None:
    with pytest.raises(ConfigError, match="belongs to the backup product") as caught:
        scanned(repository, f"{scheme}://u:secret@nowhere.invalid/db")
    assert "secret" not in str(caught.value)


def test_a_folder_that_is_not_there_makes_no_catalog(tmp_path: Path, url: str) -> None:
    with pytest.raises(CatalogError, match="nothing: No such file"):
        scan(tmp_path / "nothing", url, lambda _done, _all: None)
    assert list(tmp_path.iterdir()) == []


def test_a_catalog_that_cannot_be_made_is_named(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CatalogError, match=r"catalog\.db: .*"):
        scanned(repository, f"sqlite:///{tmp_path}/file/catalog.db")
    with pytest.raises(CatalogError, match="unable to open"):
        scanned(repository, f"sqlite:///{tmp_path}")
