"""From start to end: what attaches and what does not, how disks are let go, how a daemon ends and
what it finds at its start."""

# ruff: noqa: PTH208 - system calls

import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.mariadb import MariaDb
from tests.mounted.conftest import Serve
from tests.mounted.daemon import (
    RESTOREFS,
    Place,
    Process,
    is_mounted,
    mount_line,
    restorefs,
    unmount_all,
)
from tests.mounted.disks import MIB, Sample, copy_of
from tests.mounted.handles import handle_of, open_handle
from tests.mounted.reading import digests, error_of, reading
from tests.tools import require_root, run, wait_until

WEB0 = f"{Sample.full}/disk0"
WEB1 = f"{Sample.full}/disk1"
OTHER = f"{Sample.other}/disk0"


def rows_of(catalog: Path) -> list[tuple[Any, ...]]:
    """Return the attach records of an SQLite catalog: backup, disk, socket, file systems, times."""
    with closing(sqlite3.connect(catalog)) as database:
        return database.execute(
            "SELECT backup_job_id || '/disk' || disk_index, mount_path, socket_path,"
            " filesystem_type, created_at, last_accessed_at, expires_at, pid"
            " FROM restore_mounts JOIN backup_disks ON backup_disks.id = backup_disk_id"
            " ORDER BY 1"
        ).fetchall()


# --- attaching -----------------------------------------------------------------------------------


def test_looking_at_1000_backups_attaches_nothing(serve: Serve, catalog: Path) -> None:
    with closing(sqlite3.connect(catalog)) as database, database:
        database.executemany(
            "INSERT INTO backup_jobs (id, vm_backup_context_id, status, created_at)"
            " SELECT ?, context_id, 'completed', ? FROM vm_backup_contexts WHERE vm_name = 'web'",
            [(f"made-up-{n}", f"2024-01-{n % 28 + 1:02} 03:00:{n % 60:02}") for n in range(997)],
        )
        database.executemany(
            "INSERT INTO backup_disks (backup_job_id, disk_index, qcow2_path, status)"
            " VALUES (?, 0, ?, 'completed')",
            [(f"made-up-{n}", f"/nowhere/made-up-{n}/disk0.qcow2") for n in range(997)],
        )
    daemon = serve("--catalog", f"sqlite:///{catalog}")
    assert daemon.status()["backups"] == 1000
    backups = sorted(os.listdir(daemon.backups))
    assert len(backups) == 1000
    found = run("find", daemon.mountpoint, "-maxdepth", "3", "-ls").splitlines()
    # mnt, backups, vms; 1000 backups; their disks; 2 VMs, each backup's link, 2 latest
    assert len(found) == 3 + 1000 + 1001 + 2 + 1000 + 2
    listed = run("sh", "-c", f"ls -lR {daemon.mountpoint}/vms; ls -l {daemon.backups}/*")
    assert listed.count("disk0") == 1000
    assert len(list(daemon.mountpoint.glob("vms/web/*"))) == 1000
    for link in daemon.mountpoint.glob("vms/*/*"):
        assert link.resolve(strict=True).parent == daemon.backups
    assert daemon.children() == []
    assert daemon.attached() == {}


def test_the_first_look_attaches_once(serve: Serve, sample: Sample) -> None:
    daemon = serve("--images", sample.repository)
    assert daemon.children() == []
    script = "for i in $(seq 20); do ls part3/etc & done; wait"
    listed = run("sh", "-c", script, cwd=daemon.backups / WEB0)
    assert listed.count("hostname") == 20
    assert len(daemon.children()) == 1
    assert daemon.attached().keys() == {WEB0}
    assert len(daemon.logged("attached ")) == 1


def test_links_by_machine_and_time(serve: Serve, sample: Sample) -> None:
    daemon = serve("--images", sample.repository)
    web = daemon.mountpoint / "vms" / "web"
    assert sorted(os.listdir(daemon.mountpoint / "vms")) == ["db", "web"]
    assert sorted(os.listdir(web)) == ["2023-11-14T221320Z", "2023-11-15T221320Z", "latest"]
    assert (web / "latest").readlink() == Path("../../backups") / sample.incremental
    assert (web / "latest" / "disk0/part3/etc/hostname").read_text() == "web-renamed\n"
    assert (web / "2023-11-14T221320Z/disk0/part3/etc/hostname").read_text() == "web\n"


def test_a_new_backup_appears(serve: Serve, sample: Sample, tmp_path: Path) -> None:
    repository = copy_of(sample.repository, tmp_path)
    away = tmp_path / "away"
    (repository / sample.other).rename(away)
    daemon = serve("--images", repository)
    assert error_of(os.stat, daemon.backups / OTHER) == "ENOENT"
    away.rename(repository / sample.other)
    daemon.send(signal.SIGHUP)
    wait_until((daemon.backups / OTHER).exists, "the backup is there")
    assert (daemon.backups / OTHER / "part1" / "note").read_text() == "an old disk\n"
    assert sample.other in os.listdir(daemon.backups)


# --- letting go ----------------------------------------------------------------------------------


def test_an_idle_disk_is_let_go_while_a_file_is_open(serve: Serve, sample: Sample) -> None:
    daemon = serve("--images", sample.repository, "--idle-timeout", "1s")
    with (daemon.backups / WEB1 / "big").open("rb", buffering=0) as file:
        assert file.read(4096)
        first = daemon.server(WEB1)
        first.wait()
        daemon.wait_logged(f"detached {WEB1}: not used for 1 s")
        assert daemon.children() == []
        # Not from the kernel's cache: behind what it may have read ahead.
        assert os.pread(file.fileno(), 65_536, 20 * MIB) == expected(sample, 20 * MIB)
        second = daemon.server(WEB1)
        assert second.pid != first.pid
        second.wait()
        first.close()
        second.close()


def expected(sample: Sample, offset: int, length: int = 65_536) -> bytes:
    return (sample.sources.data / "big").read_bytes()[offset : offset + length]


def test_idle_timeout_0_keeps_disks(serve: Serve, sample: Sample) -> None:
    daemon = serve("--images", sample.repository, "--idle-timeout", "0")
    assert (daemon.backups / WEB1 / "small").exists()
    assert daemon.attached()[WEB1]["expires_at"] is None
    assert "kept until the end" in daemon.cli("status").out


# --- the end -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(number: signal.Signals, serve: Serve, sample: Sample) -> None:
    daemon = serve("--images", sample.repository)
    fd = os.open(daemon.backups / WEB1 / "big", os.O_RDONLY)  # also while a file is open
    assert os.read(fd, 4096)
    os.listdir(daemon.backups / WEB0)
    assert len(daemon.children()) == 2
    # As the terminal sends it: to the whole process group.
    os.killpg(daemon.pid, number)
    daemon.process.wait()
    assert error_of(os.close, fd) == "ENOTCONN"
    daemon.wait_logged(f"{number.name}: ending")
    daemon.check()


def test_a_second_signal_hurries(serve: Serve, sample: Sample) -> None:
    daemon = serve("--images", sample.repository)
    big = daemon.backups / WEB1 / "big"
    assert (big.parent / "small").exists()
    server = daemon.server(WEB1)
    with server.stopped(), reading(big, 8 * MIB) as reader:
        daemon.wait_under_way(WEB1)
        daemon.send(signal.SIGTERM)
        daemon.wait_logged("SIGTERM: ending")
        assert reader.blocked
        daemon.expect("WARNING not waiting for the requests")
        daemon.send(signal.SIGTERM)
        daemon.process.wait()
        assert reader.results() != digests(sample.sources.data / "big", 8 * MIB)
    server.close()
    daemon.check()


def test_nobody_reads_its_log(sample: Sample, place: Place) -> None:
    """A pager that stands still, a terminal that was stopped: neither the mount nor its end."""
    read, write = os.pipe()
    command = [
        *(str(RESTOREFS), "--runtime-dir", str(place.runtime_dir)),
        *("mount", "--images", str(sample.repository), str(place.mountpoint)),
    ]
    with ExitStack() as stack:
        stack.callback(os.close, read)
        process = subprocess.Popen(command, stderr=write)
        stack.callback(process.wait)
        stack.callback(process.kill)
        said = b""
        while b"restorefs: 3 backups at " not in said:
            said += os.read(read, 4096)
        assert b"attached" not in said
        # Fill the pipe, by an opening of its own: the daemon's must stay one that waits.
        filler = os.open(f"/proc/self/fd/{write}", os.O_WRONLY | os.O_NONBLOCK)
        with os.fdopen(filler, "wb", 0) as full:
            os.close(write)
            while full.write(b".") is not None:
                pass
        small = place.mountpoint / "backups" / WEB1 / "small"
        looked = subprocess.Popen(["cat", small], stdout=subprocess.PIPE, text=True)
        stack.callback(looked.wait)
        stack.callback(process.kill)  # first, as who waits for an answer cannot be ended
        assert looked.communicate(timeout=60)[0] == "small\n"
        process.terminate()
        assert process.wait(timeout=60) == 0
    assert not is_mounted(place.mountpoint)


def test_an_unmount_from_outside_ends_it(serve: Serve, sample: Sample) -> None:
    daemon = serve("--images", sample.repository)
    assert (daemon.backups / WEB1 / "small").exists()
    run(*(["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]), daemon.mountpoint)
    daemon.process.wait()
    daemon.check()


def test_systemd_is_told(serve: Serve, sample: Sample, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.settimeout(60)
        address = tmp_path / "notify"
        notify.bind(str(address))
        daemon = serve("--images", sample.repository, env={"NOTIFY_SOCKET": str(address)})
        ready = notify.recv(4096).decode().splitlines()
        assert ready == ["READY=1", f"STATUS=3 backups at {daemon.mountpoint}"]
        daemon.stop()
        assert notify.recv(4096) == b"STOPPING=1"


def test_systemd_is_told_by_an_abstract_socket(serve: Serve, sample: Sample) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.settimeout(60)
        notify.bind(f"\0restorefs-test-{os.getpid()}")
        address = f"@restorefs-test-{os.getpid()}"
        daemon = serve("--images", sample.repository, env={"NOTIFY_SOCKET": address})
        assert notify.recv(4096).startswith(b"READY=1\n")
        daemon.check()


# --- crashes -------------------------------------------------------------------------------------


def test_a_crash(serve: Serve, sample: Sample, catalog: Path, place: Place) -> None:
    how = ("--catalog", f"sqlite:///{catalog}", "--repository", sample.repository)
    daemon = serve(*how, place=place)
    assert (daemon.backups / WEB1 / "small").exists()
    os.listdir(daemon.backups / WEB0)
    wait_until(lambda: len(rows_of(catalog)) == 2, "both attach records are written")
    servers = [Process(pid) for pid in daemon.children()]
    assert len(servers) == 2
    daemon.kill()
    for server in servers:  # they die with it
        server.wait()
        server.close()
    # Dead, and not an empty folder: rsync --delete must not find that everything was deleted.
    assert is_mounted(place.mountpoint)
    assert error_of(os.listdir, place.mountpoint) == "ENOTCONN"
    asked = daemon.cli("status")
    assert asked.code == 1
    assert "no restorefs is running" in asked.err

    after = serve(*how, place=place)
    after.expect(
        "WARNING cleaning up the dead mount", "WARNING removed 2 attach records .* crashed daemon"
    )
    assert rows_of(catalog) == []
    assert (after.backups / WEB1 / "small").read_text() == "small\n"
    after.check()
    assert os.listdir(place.mountpoint) == []


_CRASHING = """
import runpy, sys
from restorefs.tree.refresh import Refresher

async def crash(self):
    await self._woken.wait()
    raise RuntimeError("a service made to crash")

Refresher.run = crash
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_crash_of_a_service(serve: Serve, sample: Sample, place: Place) -> None:
    how = ("--images", sample.repository)
    daemon = serve(*how, place=place, prefix=(sys.executable, "-c", _CRASHING))
    os.listdir(daemon.backups / WEB0)
    servers = [Process(pid) for pid in daemon.children()]
    daemon.expect(r"^ +[|+]")  # a traceback
    daemon.process.send(signal.SIGHUP)
    daemon.wait_logged("RuntimeError: a service made to crash")
    daemon.process.wait()
    daemon.kill()  # to the harness: an end that is not a clean one
    for server in servers:
        server.wait()
        server.close()
    assert is_mounted(place.mountpoint)
    assert error_of(os.listdir, place.mountpoint) == "ENOTCONN"

    after = serve(*how, place=place)
    after.expect("WARNING cleaning up the dead mount")
    assert (after.backups / WEB1 / "small").read_text() == "small\n"
    after.check()


def test_what_a_mount_hides(serve: Serve, sample: Sample, place: Place, tmp_path: Path) -> None:
    (place.mountpoint / "forgotten").touch()
    daemon = serve("--images", tmp_path, place=place)
    daemon.expect("WARNING .* is not empty", "WARNING there are no backups in .*restorefs scan")
    assert os.listdir(daemon.backups) == []
    daemon.check()
    assert os.listdir(place.mountpoint) == ["forgotten"]
    (place.mountpoint / "forgotten").unlink()


def test_file_numbers_are_the_same_after_a_restart(
    serve: Serve, sample: Sample, place: Place
) -> None:
    seen = []
    for _ in range(2):
        daemon = serve("--images", sample.repository, place=place)
        found = []
        for folder in (f"{WEB0}/part3", WEB1, ""):
            depth = ("-maxdepth", "1") if not folder else ()
            shown = (*depth, "-name", "lost+found", "-prune", "-o", "-printf", "%i %p\n")
            found += run("find", daemon.backups / folder, *shown).splitlines()
        daemon.check()
        seen.append(sorted(found))
    assert len(seen[0]) > 100
    numbers = [line.split()[0] for line in seen[0]]
    assert len(set(numbers)) == len(numbers)
    assert seen[0] == seen[1]


def test_handles_outlive_detach_and_restart(serve: Serve, catalog: Path, place: Place) -> None:
    require_root()  # for open_by_handle_at
    paths = (f"{WEB0}/part3/etc/hostname", f"{WEB0}/part3/var/log", f"{WEB0}/part3", WEB1, OTHER)
    first = serve("--catalog", f"sqlite:///{catalog}", place=place)
    handles = {path: handle_of(first.backups / path) for path in paths}
    numbers = {path: (first.backups / path).stat().st_ino for path in paths}
    assert first.cli("detach", Sample.full, "0").code == 0

    def content(path: str) -> object:
        fd = open_handle(handles[path], place.mountpoint)
        try:
            assert os.fstat(fd).st_ino == numbers[path]
            return os.read(fd, 99) if path.endswith("hostname") else sorted(os.listdir(fd))
        finally:
            os.close(fd)

    before = {path: content(path) for path in paths}
    assert before[paths[0]] == b"web\n"
    first.check()
    second = serve("--catalog", f"sqlite:///{catalog}", place=place)
    # Nobody has looked any of them up in this daemon.
    assert {path: content(path) for path in paths} == before

    with closing(sqlite3.connect(catalog)) as database, database:
        database.execute("DELETE FROM backup_disks WHERE backup_job_id = ?", [Sample.full])
    second.send(signal.SIGHUP)
    second.wait_logged(f"detached {WEB1}: it left the catalog")
    for path in paths[:3]:
        assert error_of(open_handle, handles[path], place.mountpoint) == "ESTALE"
    assert content(OTHER) == before[OTHER]


# --- refused before anything is mounted ----------------------------------------------------------


Refused = Callable[..., str]


@pytest.fixture
def refused(place: Place) -> Refused:
    """Start a mount that must be refused; returns what it says."""

    def start(*args: str | Path, code: int, mountpoint: Path = place.mountpoint) -> str:
        real = mountpoint.resolve()
        try:
            done = restorefs("--runtime-dir", place.runtime_dir, "mount", *args, mountpoint)
            assert not is_mounted(real)
        finally:
            unmount_all(real)
        assert done.code == code, done
        assert done.out == ""
        assert list(place.runtime_dir.rglob("*")) == []
        assert "Error: " in done.err
        return done.err

    return start


def test_a_second_daemon_is_refused(serve: Serve, sample: Sample, place: Place) -> None:
    daemon = serve("--images", sample.repository, place=place)
    for runtime_dir in (place.runtime_dir, place.folder):
        again = ("mount", "--images", sample.repository, place.mountpoint)
        done = restorefs("--runtime-dir", runtime_dir, *again)
        assert done.code == 1
        assert f"mounted on {place.mountpoint} already" in done.err
    assert (daemon.backups / WEB1 / "small").read_text() == "small\n"


def test_a_second_daemon_elsewhere(serve: Serve, sample: Sample, place: Place) -> None:
    first = serve("--images", sample.repository, place=place)
    other = Place()
    try:
        other.runtime_dir.rmdir()
        other.runtime_dir = place.runtime_dir
        second = serve("--images", sample.repository, place=other)
        asked = first.cli("status")
        assert asked.code == 1
        assert str(first.mountpoint) in asked.err
        assert str(second.mountpoint) in asked.err
        for daemon in (first, second):
            asked = daemon.cli("--mount", daemon.mountpoint, "status", "--json")
            assert asked.json["pid"] == daemon.pid
        second.stop()
        assert (first.backups / WEB1 / "small").read_text() == "small\n"
        first.stop()
        second.check()
    finally:
        other.remove()


def test_the_mountpoint(refused: Refused, sample: Sample, place: Place) -> None:
    images = ("--images", sample.repository)
    missing = place.folder / "missing"
    said = refused(*images, code=2, mountpoint=missing)
    assert f"{missing}: No such file or directory" in said
    file = place.folder / "file"
    file.touch()
    assert "not a folder" in refused(*images, code=2, mountpoint=file)
    # An SQLite catalog has not been touched by then.
    absent = f"sqlite:///{place.folder}/absent.db"
    assert "No such file" in refused("--catalog", absent, code=2, mountpoint=missing)


def test_a_mountpoint_that_would_hide_the_images(
    refused: Refused, catalog: Path, sample: Sample, place: Place
) -> None:
    above, folder, url = sample.repository.parent, sample.repository, f"sqlite:///{catalog}"
    link = place.folder / "link"
    link.symlink_to(above)
    for how in (
        ("--images", folder),
        ("--catalog", url),
        ("--catalog", url, "--repository", folder),
    ):
        assert "would hide them" in refused(*how, code=2, mountpoint=above), how
    for mountpoint in (link, folder):
        assert "would hide them" in refused("--catalog", url, code=2, mountpoint=mountpoint)
    inside = folder / sample.full
    assert "inside the images folder" in refused("--images", folder, code=2, mountpoint=inside)
    assert "would hide them" in refused("--catalog", url, code=2, mountpoint=inside)


def test_a_mountpoint_that_is_a_link(serve: Serve, sample: Sample, place: Place) -> None:
    real = place.folder / "real"
    real.mkdir()
    place.mountpoint.rmdir()
    place.mountpoint.symlink_to(real)
    parent = place.folder / "parent"
    parent.symlink_to(place.folder)
    daemon = serve("--images", sample.repository, place=place)
    assert is_mounted(real)
    for named in (place.mountpoint, real, parent / "mnt", parent / "real"):
        asked = daemon.cli("--mount", named, "status", "--json")
        assert asked.code == 0, asked
        assert asked.json["pid"] == daemon.pid
        done = restorefs(
            *("--runtime-dir", place.folder, "mount", "--images", sample.repository, named)
        )
        assert done.code == 1
        assert "already" in done.err
    daemon.check()
    assert not is_mounted(real)


def test_a_catalog_that_cannot_be(refused: Refused, sample: Sample, place: Place) -> None:
    images = ("--images", sample.repository)
    assert "one of --catalog URL and --images FOLDER" in refused(code=2)
    both = ("--catalog", f"sqlite:///{place.folder}/c.db", *images)
    assert "one of --catalog URL and --images FOLDER" in refused(*both, code=2)
    for url in ("nonsense", "mysql+pymysql://u:secret@h"):
        said = refused("--catalog", url, code=2)
        assert "secret" not in said
    absent = place.folder / "absent.db"
    said = refused("--catalog", f"sqlite:///{absent}", code=1)
    assert f"{absent}: no such file; `restorefs scan` makes it" in said
    assert not absent.exists()
    empty = place.folder / "empty.db"
    empty.touch()
    assert "no table" in refused("--catalog", f"sqlite:///{empty}", code=1)
    noise = place.folder / "noise.db"
    noise.write_bytes(b"no database" * 1000)
    assert str(noise) in refused("--catalog", f"sqlite:///{noise}", code=1)
    with socket.socket() as nobody:  # has the port, and does not listen
        nobody.bind(("127.0.0.1", 0))
        down = f"mysql+pymysql://user:secret@127.0.0.1:{nobody.getsockname()[1]}/sendense"
        said = refused("--catalog", down, code=1)
    assert "Check that the server runs" in said
    assert "secret" not in said
    missing = place.folder / "missing"
    assert str(missing) in refused("--images", missing, code=2)


def test_the_runtime_folder(sample: Sample, place: Place) -> None:
    file = place.folder / "file"
    file.touch()
    for runtime_dir in (file, file / "below", place.folder / ("long" * 20)):
        done = restorefs(
            *("--runtime-dir", runtime_dir, "mount", "--images", sample.repository),
            place.mountpoint,
        )
        assert done.code == 2
        assert str(runtime_dir) in done.err
        assert not is_mounted(place.mountpoint)


def test_how_it_is_mounted(serve: Serve, sample: Sample) -> None:
    daemon = serve("--images", sample.repository)
    line = mount_line(daemon.mountpoint)
    assert line is not None
    options = {*line.split(" ")[5].split(","), *line.split(" ")[-1].split(",")}
    assert {"ro", "nosuid", "nodev", "default_permissions"} <= options
    assert ("allow_other" in options) is (os.geteuid() == 0)
    assert line.split(" - ")[1].split(" ")[:2] == ["fuse.restorefs", "restorefs"]


# --- attach records, and a catalog that goes down ------------------------------------------------


def test_attach_records_in_sqlite(serve: Serve, catalog: Path, sample: Sample) -> None:
    daemon = serve(
        *("--catalog", f"sqlite:///{catalog}", "--idle-timeout", "30m"),
        *("--repository", sample.repository),
    )
    assert rows_of(catalog) == []
    os.listdir(daemon.backups / WEB0)
    os.listdir(daemon.backups / WEB1)
    wait_until(lambda: len(rows_of(catalog)) == 2, "both attach records are written")
    attached = daemon.attached()
    for name, path, socket_path, kinds, created, accessed, expires, pid in rows_of(catalog):
        assert path == str(daemon.backups / name)
        assert socket_path == attached[name]["socket"]
        assert Path(socket_path).is_socket()
        assert kinds.split(",") == attached[name]["filesystems"]
        assert created <= accessed < expires
        assert pid == daemon.pid
    assert daemon.cli("detach", sample.full, "0").code == 0
    wait_until(lambda: len(rows_of(catalog)) == 1, "the record is gone")
    assert rows_of(catalog)[0][0] == WEB1
    daemon.check()
    assert rows_of(catalog) == []


def test_another_daemons_records_stay(serve: Serve, catalog: Path) -> None:
    how = ("--catalog", f"sqlite:///{catalog}")
    first = serve(*how)
    os.listdir(first.backups / WEB1)
    wait_until(lambda: rows_of(catalog), "the attach record is written")
    second = serve(*how)
    os.listdir(second.backups / WEB1)
    os.listdir(second.backups / OTHER)
    wait_until(lambda: len(rows_of(catalog)) == 3, "the other attach records are written")
    assert {(row[0], row[-1]) for row in rows_of(catalog)} == {
        (WEB1, first.pid),
        (WEB1, second.pid),
        (OTHER, second.pid),
    }
    second.check()
    assert [(row[0], row[-1]) for row in rows_of(catalog)] == [(WEB1, first.pid)]


def test_mariadb(
    serve: Serve, mariadb: MariaDb, mariadb_url: str, sample: Sample, place: Place
) -> None:
    def rows() -> list[dict[str, Any]]:
        return mariadb.execute(
            "SELECT backup_job_id, mount_path, socket_path FROM restore_mounts"
            " JOIN backup_disks ON backup_disks.id = backup_disk_id",
            database="mounted",
        )

    daemon = serve(
        *("--repository", sample.repository),
        place=place,
        env={"RESTOREFS_CATALOG": mariadb_url},
    )
    assert daemon.status()["backups"] == 3
    assert "p@ss" not in daemon.cli("status").out
    assert (daemon.backups / WEB1 / "small").read_text() == "small\n"
    assert (daemon.mountpoint / "vms/web/latest/disk0").is_dir()
    wait_until(rows, "the attach record is written")
    (row,) = rows()
    assert row["mount_path"] == str(daemon.backups / WEB1)

    with mariadb.stopped():
        daemon.expect(
            "WARNING the catalog cannot be read; serving what was known",
            "WARNING the attach record was not written",
            "WARNING the catalog can be read again",
        )
        daemon.send(signal.SIGHUP)
        daemon.wait_logged("the catalog cannot be read")
        assert daemon.status()["catalog_error"]
        assert "CANNOT BE READ NOW" in daemon.cli("status").out
        # What was known is served, what was attached and what was not.
        assert len(os.listdir(daemon.backups)) == 3
        assert (daemon.backups / WEB1 / "small").read_text() == "small\n"
        path = daemon.backups / sample.incremental / "disk0/part3/etc/hostname"
        assert path.read_text() == "web-renamed\n"
        assert daemon.cli("detach", sample.full, "1").code == 0
        assert (daemon.backups / OTHER / "part1/note").exists()
        daemon.wait_logged("the attach record was not written", 3)
    daemon.send(signal.SIGHUP)
    daemon.wait_logged("the catalog can be read again")
    assert daemon.status()["catalog_error"] is None
    assert "p@ss" not in daemon.log
    daemon.check()


def test_mariadb_that_hangs(serve: Serve, mariadb: MariaDb, mariadb_url: str) -> None:
    daemon = serve("--catalog", mariadb_url)
    with mariadb.hanging():
        daemon.send(signal.SIGHUP)
        # Nothing here waits for the catalog, which is being asked in the meantime.
        assert (daemon.backups / WEB1 / "small").read_text() == "small\n"
        assert (daemon.backups / OTHER / "part5" / "note").exists()
        assert daemon.attached().keys() == {WEB1, OTHER}
    wait_until(
        lambda: mariadb.execute("SELECT 1 FROM restore_mounts", database="mounted"),
        "the attach records are written",
    )
    daemon.check()


def test_signals_while_it_ends(serve: Serve, mariadb: MariaDb, mariadb_url: str) -> None:
    daemon = serve("--catalog", mariadb_url)
    os.listdir(daemon.backups / WEB1)
    wait_until(
        lambda: mariadb.execute("SELECT 1 FROM restore_mounts", database="mounted"),
        "the attach record is written",
    )
    with mariadb.hanging():
        daemon.send(signal.SIGINT)
        daemon.wait_logged(f"detached {WEB1}")
        # Now it waits for the catalog, to take the record back.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            daemon.send(number)
        assert not daemon.process.ended(0.1)
    wait_until(lambda: daemon.process.ended() or daemon.send(signal.SIGINT), "it ends")
    daemon.check()
    assert mariadb.execute("SELECT 1 FROM restore_mounts", database="mounted") == []


def test_records_of_a_crash_in_mariadb(
    serve: Serve, mariadb: MariaDb, mariadb_url: str, place: Place
) -> None:
    def rows() -> list[dict[str, Any]]:
        return mariadb.execute("SELECT pid FROM restore_mounts", database="mounted")

    daemon = serve("--catalog", mariadb_url, place=place)
    os.listdir(daemon.backups / WEB1)
    wait_until(rows, "the attach record is written")
    daemon.kill()
    assert rows() == [{"pid": daemon.pid}]
    after = serve("--catalog", mariadb_url, place=place)
    after.expect("WARNING cleaning up the dead mount", "WARNING removed 1 attach records")
    assert rows() == []
