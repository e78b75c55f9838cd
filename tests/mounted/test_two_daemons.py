"""Two daemons, as on two machines: one MariaDB, one repository, a mount for each.

Both run on this machine and are told different host names; their runtime folders and mountpoints
are their own.
"""
# ruff: noqa: PTH208 - system calls

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mariadb import MariaDb
from tests.mounted.conftest import Serve
from tests.mounted.daemon import Daemon, Place
from tests.mounted.disks import Sample
from tests.mounted.handles import handle_of, open_handle
from tests.mounted.reading import error_of
from tests.tools import require_root, run, wait_until

WEB0, WEB1 = f"{Sample.full}/disk0", f"{Sample.full}/disk1"
DATABASE = "mounted"


class Node:
    """A machine: where its daemon mounts, and how it is called."""

    def __init__(self, serve: Serve, url: str, host: str, place: Place) -> None:
        self._serve, self._url = serve, url
        self.host = host
        self.place = place
        self.daemon = self.start()

    def start(self, *options: str) -> Daemon:
        env = {"RESTOREFS_CATALOG": self._url, "RESTOREFS_HOST_NAME": self.host}
        self.daemon = self._serve(*options, place=self.place, env=env)
        return self.daemon

    @property
    def backups(self) -> Path:
        return self.daemon.backups


@pytest.fixture
def places() -> Iterator[list[Place]]:
    places = [Place(), Place()]
    yield places
    for place in places:
        place.remove()


@pytest.fixture
def nodes(places: list[Place], mariadb_url: str, serve: Serve) -> list[Node]:
    return [Node(serve, mariadb_url, f"node{n}", place) for n, place in enumerate(places, 1)]


def rows(mariadb: MariaDb) -> set[tuple[str, str, int]]:
    """Return the attach records: which disk, of which host, in which process."""
    found: list[dict[str, Any]] = mariadb.execute(
        "SELECT backup_job_id, disk_index, host, pid, mount_path"
        " FROM restore_mounts JOIN backup_disks ON backup_disks.id = backup_disk_id",
        database=DATABASE,
    )
    return {(f"{r['backup_job_id']}/disk{r['disk_index']}", r["host"], r["pid"]) for r in found}


def expected(*held: tuple[str, Node]) -> set[tuple[str, str, int]]:
    return {(disk, node.host, node.daemon.pid) for disk, node in held}


def wait_rows(mariadb: MariaDb, *held: tuple[str, Node]) -> None:
    wait_until(lambda: rows(mariadb) == expected(*held), f"rows are {expected(*held)}")


def readable(backups: Path) -> list[Path]:
    return [backups / WEB0 / "part3", backups / WEB0 / "part2", backups / WEB1]


def test_both_attach_one_disk_and_rows_say_so(nodes: list[Node], mariadb: MariaDb) -> None:
    one, two = nodes
    for node in nodes:
        assert (node.backups / WEB1 / "small").read_text() == "small\n"
    wait_rows(mariadb, (WEB1, one), (WEB1, two))
    assert (two.backups / WEB0 / "part3/etc/hostname").read_text() == "web\n"
    wait_rows(mariadb, (WEB1, one), (WEB1, two), (WEB0, two))
    assert one.daemon.attached().keys() == {WEB1}
    assert one.daemon.cli("detach", Sample.full, "1").code == 0
    wait_rows(mariadb, (WEB1, two), (WEB0, two))
    assert one.daemon.cli("attach", Sample.full, "1").code == 0
    wait_rows(mariadb, (WEB1, one), (WEB1, two), (WEB0, two))
    two.daemon.check()
    assert rows(mariadb) == expected((WEB1, one))
    one.daemon.check()
    assert rows(mariadb) == set()


def test_neither_cleans_the_others_rows(nodes: list[Node], mariadb: MariaDb) -> None:
    one, two = nodes
    for node in nodes:
        os.listdir(node.backups / WEB1)
    wait_rows(mariadb, (WEB1, one), (WEB1, two))
    crashed = expected((WEB1, one))
    one.daemon.kill()
    assert (two.backups / WEB1 / "small").read_text() == "small\n", "the other goes on"
    two.daemon.check()
    assert rows(mariadb) == crashed
    two.start()
    os.listdir(two.backups / WEB1)
    wait_until(lambda: rows(mariadb) == crashed | expected((WEB1, two)), "its row is there")
    one.start().expect("removed 1 attach records", "cleaning up the dead mount")
    assert rows(mariadb) == expected((WEB1, two))
    os.listdir(one.backups / WEB1)
    wait_rows(mariadb, (WEB1, one), (WEB1, two))


def test_every_file_has_the_same_number_in_both(nodes: list[Node]) -> None:
    one, two = nodes
    for folder in reversed(readable(one.backups)):
        run("ls", "-lR", folder)
    for folder in readable(two.backups):
        run("ls", "-lR", folder)

    def inodes(node: Node) -> dict[str, int]:
        found = {}
        for top in (*readable(node.backups), node.backups.parent / "vms"):
            listed = run("find", top, "-printf", "%p\t%i\n")
            for line in listed.splitlines():
                path, number = line.split("\t")
                found[path.removeprefix(str(node.daemon.mountpoint))] = int(number)
        return found

    assert len(inodes(one)) > 100
    assert inodes(one) == inodes(two)
    assert one.backups.stat().st_ino == two.backups.stat().st_ino


def test_a_file_handle_of_one_opens_the_file_in_the_other(nodes: list[Node]) -> None:
    require_root()
    one, two = nodes
    names = (f"{WEB1}/big", f"{WEB0}/part3/etc/hostname", f"{WEB0}/part3/var/log/app.7.log")
    handles = {name: handle_of(one.backups / name) for name in names}
    folder = handle_of(one.backups / WEB0 / "part3/etc")
    one.daemon.kill()  # and its address moves to the other, which has never seen any of them
    assert two.daemon.attached() == {}
    for name, handle in handles.items():
        with open(open_handle(handle, two.daemon.mountpoint), "rb") as file:
            assert file.read() == (two.backups / name).read_bytes()
    fd = open_handle(folder, two.daemon.mountpoint)
    try:
        assert "hostname" in os.listdir(fd)
    finally:
        os.close(fd)
    assert all(handle_of(two.backups / name) == handle for name, handle in handles.items())


def test_split_by_machine(nodes: list[Node], mariadb: MariaDb, sample: Sample) -> None:
    """As several daemons of one machine share the work."""
    one, two = nodes
    one.daemon.check()
    two.daemon.check()
    one.start("--vm", "web*")
    two.start("--vm", "d?", "--vm", "nothing")
    assert sorted(os.listdir(one.backups)) == sorted([sample.full, sample.incremental])
    assert os.listdir(two.backups) == [sample.other]
    assert os.listdir(one.daemon.mountpoint / "vms") == ["web"]
    assert os.listdir(two.daemon.mountpoint / "vms") == ["db"]
    assert error_of(os.stat, one.backups / sample.other) == "ENOENT"
    assert one.daemon.cli("disks", sample.other).code == 1
    assert one.daemon.status()["backups"] == 2
    mariadb.execute(
        "UPDATE vm_backup_contexts SET vm_name = 'web2' WHERE vm_name = 'db'", database=DATABASE
    )
    for node in nodes:
        assert node.daemon.cli("reload").code == 0
    assert len(os.listdir(one.backups)) == 3
    assert os.listdir(two.backups) == []
