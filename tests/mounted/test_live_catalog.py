"""A catalog that changes while it is served: what is new appears, what is gone goes at once, and no
name, handle or open file ever leads to another disk's data."""

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.mounted.conftest import Serve
from tests.mounted.daemon import Daemon, restorefs
from tests.mounted.disks import MIB, Sample, copy_of
from tests.mounted.handles import handle_of, open_handle
from tests.tools import require_root, wait_until

FULL = Sample.full
WEB0, WEB1 = f"{FULL}/disk0", f"{FULL}/disk1"


def change(catalog: Path, statement: str, *values: Any) -> None:
    """Change an SQLite catalog, as the backup product changes its database."""
    with closing(sqlite3.connect(catalog)) as database, database:
        assert database.execute(statement, values).rowcount > 0


def rows(catalog: Path) -> int:
    """Return how many attach records there are."""
    with closing(sqlite3.connect(catalog)) as database:
        count: int = database.execute("SELECT count(*) FROM restore_mounts").fetchone()[0]
        return count


def served(serve: Serve, catalog: Path, repository: Path | None = None) -> Daemon:
    where = () if repository is None else ("--repository", repository)
    return serve("--catalog", f"sqlite:///{catalog}", *where)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def errno_of(path: Path) -> int:
    try:
        path.read_bytes()
    except OSError as error:
        return error.errno or -1
    return 0


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def test_reload_says_what_is_new_and_what_has_gone(serve: Serve, catalog: Path) -> None:
    daemon = served(serve, catalog)
    assert daemon.cli("reload").out == "3 backups, 4 disks: 0 new, 0 gone\n"
    change(catalog, "DELETE FROM backup_jobs WHERE id = ?", Sample.other)
    change(
        catalog,
        "INSERT INTO backup_jobs (id, vm_backup_context_id, status)"
        " SELECT 'new', vm_backup_context_id, status FROM backup_jobs WHERE id = ?",
        FULL,
    )
    change(
        catalog,
        "INSERT INTO backup_disks (backup_job_id, disk_index, qcow2_path, status)"
        " SELECT 'new', disk_index, qcow2_path, status FROM backup_disks WHERE backup_job_id = ?",
        FULL,
    )
    told = daemon.cli("reload").out.splitlines()
    assert told == ["+ new", f"- {Sample.other}", "3 backups, 5 disks: 1 new, 1 gone"]
    assert names(daemon.backups) == sorted([FULL, Sample.incremental, "new"])
    assert (daemon.backups / "new/disk0/part3/etc/hostname").read_text() == "web\n"
    assert daemon.cli("reload", "--json").json == {
        "backups": 3, "disks": 5, "added": [], "removed": [],
    }  # fmt: skip


def test_reload_says_why_the_catalog_cannot_be_read(serve: Serve, catalog: Path) -> None:
    daemon = served(serve, catalog)
    assert (daemon.backups / WEB0 / "part3/etc/hostname").read_text() == "web\n"
    wait_until(lambda: rows(catalog), "its attach is written down")
    away = catalog.with_suffix(".away")
    catalog.rename(away)
    daemon.expect("WARNING the catalog cannot be read", "WARNING the catalog can be read again")
    result = daemon.cli("reload")
    assert result.code == 1
    assert "no such file" in result.err
    assert "no such file" in daemon.status()["catalog_error"]
    assert "CANNOT BE READ NOW" in daemon.cli("status").out
    assert (daemon.backups / WEB0 / "part3/etc/hostname").read_text() == "web\n"
    away.rename(catalog)
    assert daemon.cli("reload").code == 0
    assert daemon.status()["catalog_error"] is None


def test_a_backup_that_is_gone_goes_at_once(serve: Serve, catalog: Path) -> None:
    daemon = served(serve, catalog)
    hostname = daemon.backups / WEB0 / "part3/etc/hostname"
    assert hostname.read_text() == "web\n"
    with opened(daemon.backups / WEB1 / "big") as fd:
        assert len(os.pread(fd, 4096, 0)) == 4096
        change(catalog, "DELETE FROM backup_jobs WHERE id = ?", FULL)
        assert daemon.cli("reload").code == 0
        assert errno_of(hostname) == errno.ENOENT
        assert not (daemon.backups / FULL).exists()
        assert FULL not in names(daemon.backups)
        with pytest.raises(OSError, match="Stale file handle"):
            os.pread(fd, 4096, 20 * MIB)
    wait_until(lambda: not daemon.attached(), "its disks are let go")
    assert len(daemon.logged("detached .*: it left the catalog")) == 2


def test_a_disk_that_is_not_completed_any_more_is_withdrawn(serve: Serve, catalog: Path) -> None:
    daemon = served(serve, catalog)
    hostname = daemon.backups / WEB0 / "part3/etc/hostname"
    assert hostname.read_text() == "web\n"
    statement = "UPDATE backup_disks SET status = ? WHERE backup_job_id = ? AND disk_index = 0"
    change(catalog, statement, "deleting", FULL)
    assert daemon.cli("reload").code == 0
    assert errno_of(hostname) == errno.ENOENT
    assert names(daemon.backups / FULL) == ["disk1"]
    change(catalog, statement, "completed", FULL)
    assert daemon.cli("reload").code == 0
    assert hostname.read_text() == "web\n"


def test_a_name_that_is_used_again_leads_to_the_new_backup(
    serve: Serve, catalog: Path, sample: Sample
) -> None:
    """The same name, other rows: another backup's disks."""
    daemon = served(serve, catalog, sample.repository)
    hostname = daemon.backups / WEB0 / "part3/etc/hostname"
    removed = hostname.with_name("removed-later")
    assert hostname.read_text() == "web\n"
    assert removed.exists()
    change(catalog, "DELETE FROM backup_disks WHERE backup_job_id = ? AND disk_index = 0", FULL)
    change(
        catalog,
        "INSERT INTO backup_disks (backup_job_id, disk_index, qcow2_path, status)"
        " VALUES (?, 0, ?, 'completed')",
        FULL,
        str(sample.repository / Sample.incremental / "disk0.qcow2"),
    )
    assert daemon.cli("reload").code == 0
    assert hostname.read_text() == "web-renamed\n"
    assert not removed.exists()
    assert names(hostname.parent) == names(sample.sources.changed / "etc")


def test_a_row_that_comes_to_mean_another_image(
    serve: Serve, catalog: Path, sample: Sample
) -> None:
    """The same row and so the same number of the disk, another image: nothing that the kernel or an
    NFS server kept may be of the old one, and nothing new be taken for the old."""
    require_root()
    daemon = served(serve, catalog, sample.repository)
    hostname = daemon.backups / WEB0 / "part3/etc/hostname"
    big = daemon.backups / WEB0 / "part3/var/log/app.99.log"
    assert hostname.read_text() == "web\n"
    handle = handle_of(hostname)
    before = hostname.stat().st_ino
    with opened(big) as fd:
        other = sample.repository / Sample.incremental / "disk0.qcow2"
        change(
            catalog,
            "UPDATE backup_disks SET qcow2_path = ? WHERE backup_job_id = ? AND disk_index = 0",
            str(other),
            FULL,
        )
        assert daemon.cli("reload").code == 0
        assert hostname.read_text() == "web-renamed\n"
        assert hostname.stat().st_ino != before
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        with pytest.raises(OSError, match="Stale file handle"):
            os.pread(fd, 100, 0)
    with pytest.raises(OSError, match="Stale file handle"):
        open_handle(handle, daemon.mountpoint)
    daemon.check()
    # Nor in another daemon, whose numbers are computed anew.
    again = served(serve, catalog, sample.repository)
    hostname = again.backups / WEB0 / "part3/etc/hostname"
    assert hostname.read_text() == "web-renamed\n"
    with pytest.raises(OSError, match="Stale file handle"):
        open_handle(handle, again.mountpoint)


def test_a_row_that_was_away_and_comes_back_as_another_image(
    serve: Serve, catalog: Path, sample: Sample
) -> None:
    daemon = served(serve, catalog, sample.repository)
    big = daemon.backups / WEB0 / "part3/var/log/app.99.log"
    assert big.read_bytes()
    status = "UPDATE backup_disks SET status = ? WHERE backup_job_id = ? AND disk_index = 0"
    path = "UPDATE backup_disks SET qcow2_path = ? WHERE backup_job_id = ? AND disk_index = 0"
    other = sample.repository / Sample.incremental / "disk0.qcow2"
    with opened(big) as fd, opened(big.parent) as folder:
        change(catalog, status, "running", FULL)
        assert daemon.cli("reload").code == 0
        assert not (daemon.backups / WEB0).exists()
        change(catalog, path, str(other), FULL)
        change(catalog, status, "completed", FULL)
        assert daemon.cli("reload").code == 0
        hostname = daemon.backups / WEB0 / "part3/etc/hostname"
        assert hostname.read_text() == "web-renamed\n"
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        with pytest.raises(OSError, match="Stale file handle"):
            os.pread(fd, 100, 0)
        with pytest.raises(OSError, match="Stale file handle"):
            os.stat("app.5.log", dir_fd=folder)


def test_latest_follows(serve: Serve, catalog: Path) -> None:
    daemon = served(serve, catalog)
    latest = daemon.mountpoint / "vms/web/latest"
    assert latest.readlink().name == Sample.incremental
    change(catalog, "DELETE FROM backup_jobs WHERE id = ?", Sample.incremental)
    assert daemon.cli("reload").code == 0
    assert latest.readlink().name == FULL
    assert len(names(latest.parent)) == 2


def test_a_reload_while_somebody_waits_in_a_folder(
    serve: Serve, catalog: Path, sample: Sample, tmp_path: Path
) -> None:
    """The kernel takes a lock of the folder to forget a name, which somebody may hold who waits for
    an answer of ours."""
    daemon = served(serve, catalog)
    assert (daemon.backups / WEB1 / "small").exists()
    server = daemon.server(WEB1)
    with server.stopped():
        pids = [
            os.posix_spawn(
                "/bin/ls", ["ls", "-l", str(daemon.backups / WEB1 / "lost+found")], os.environ
            )
        ]
        try:
            change(
                catalog, "DELETE FROM backup_disks WHERE backup_job_id = ? AND disk_index = 1", FULL
            )
            result = restorefs("--runtime-dir", daemon.place.runtime_dir, "reload")
            assert result.code == 0
            assert names(daemon.backups / FULL) == ["disk0"]
            assert (daemon.backups / WEB0 / "part3/etc/hostname").read_text() == "web\n"
        finally:
            os.kill(pids[0], 9)
            os.waitpid(pids[0], 0)
    server.close()


def test_images_of_a_folder_come_and_go(serve: Serve, sample: Sample, tmp_path: Path) -> None:
    repository = copy_of(sample.repository, tmp_path)
    daemon = serve("--images", repository)
    assert (daemon.backups / WEB0 / "part3/etc/hostname").read_text() == "web\n"
    shutil.rmtree(repository / FULL)
    assert daemon.cli("reload").out.startswith(f"- {FULL}\n")
    assert not (daemon.backups / FULL).exists()
