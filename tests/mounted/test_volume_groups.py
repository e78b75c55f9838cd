"""A volume group that spans two disks of a backup, as people see it: which folder shows what, and
what happens when one of the disks is missing, comes back, or dies."""

import errno
import filecmp
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images import tree
from tests.images.volume_group import MIB, volume_group
from tests.mounted.conftest import Serve
from tests.mounted.daemon import Daemon, Place, restorefs
from tests.mounted.disks import LINUX, copy_of, empty, ext, gpt, qcow2
from tests.tools import loop_device, require, require_root, run, wait_until

LVM = "E6D6D379-F507-44C2-A23C-238F2A3DF928"
BACKUP = "backup-app-1700000000"
FIRST, SECOND = f"{BACKUP}/disk0", f"{BACKUP}/disk1"


class App:
    """A backup of three disks. The group app-1 has the volumes root, on disk 0; logs, on disk 1;
    and data-1: 8 MiB on disk 0, and the rest on disk 1. Disk 2 has nothing of it.

    root, logs, data: the folders that the volumes' file systems were made from; in data, `early`
    lies on disk 0 and `late` on disk 1.
    """

    def __init__(self, folder: Path) -> None:
        require("mke2fs")
        require_root()
        self.repository = folder / "repository"
        self.root, self.logs, self.data = (folder / name for name in ("root", "logs", "data"))
        for place in (self.root, self.logs, self.data):
            place.mkdir(parents=True)
        (self.root / "hostname").write_text("app\n")
        for number in range(100):
            (self.logs / f"{number}.log").write_text(f"line {number}\n" * number)
        (self.data / "early").write_bytes(tree.content("early", 3 * MIB))
        (self.data / "late").write_bytes(tree.content("late", 16 * MIB))
        root = ext(folder / "a", "ext4", self.root, 8 * MIB)
        logs = ext(folder / "b", "ext4", self.logs, 8 * MIB)
        # One group of blocks, and no journal: what is written first comes first.
        plain = ("-O", "^has_journal,^flex_bg,^resize_inode", "-m", "0", "-N", "64")
        data = ext(folder / "c", "ext4", self.data, 24 * MIB, *plain)
        boot = ext(folder / "d", "ext2", self.root, 4 * MIB)
        parts = [empty(folder / "pv0", 24 * MIB), empty(folder / "pv1", 32 * MIB)]
        layout = {
            "root": ([(0, 0, 8)], root),
            "logs": ([(1, 0, 8)], logs),
            "data-1": ([(0, 10, 8), (1, 10, 16)], data),
        }
        volume_group("app-1", parts, layout)
        disk = gpt(folder / "disk", (LINUX, boot), (LVM, parts[0]))
        qcow2(disk, self.repository / BACKUP / "disk0.qcow2")
        qcow2(parts[1], self.repository / BACKUP / "disk1.qcow2")
        qcow2(boot, self.repository / BACKUP / "disk2.qcow2")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    folder = tmp_path_factory.mktemp("app")
    yield App(folder)
    shutil.rmtree(folder)


@pytest.fixture
def copy(app: App, tmp_path: Path) -> Path:
    """A copy of the images that a test may change."""
    return copy_of(app.repository, tmp_path)


def same(source: Path, seen: Path) -> None:
    """Assert that a folder shows what it was made from."""
    names = sorted(path.name for path in source.iterdir())
    assert sorted(path.name for path in seen.iterdir()) == sorted([*names, "lost+found"])
    assert filecmp.cmpfiles(source, seen, names, shallow=False) == (names, [], [])


def names(daemon: Daemon, disk: str) -> list[str]:
    return sorted(path.name for path in (daemon.backups / disk).iterdir())


def errno_of(path: Path) -> int:
    try:
        path.read_bytes()
    except OSError as error:
        return error.errno or -1
    return 0


def notes(daemon: Daemon, number: int) -> str:
    told = daemon.cli("disks", BACKUP, "--json").json
    return "\n".join(told["disks"][number]["notes"])


def test_all_volumes_are_there_and_right(app: App, serve: Serve) -> None:
    daemon = serve("--images", app.repository)
    assert names(daemon, FIRST) == ["app--1-data--1", "app--1-root", "part1"]
    same(app.root, daemon.backups / FIRST / "app--1-root")
    same(app.data, daemon.backups / FIRST / "app--1-data--1")
    same(app.logs, daemon.backups / SECOND / "app--1-logs")
    same(app.root, daemon.backups / FIRST / "part1")


def test_a_volume_is_in_the_folder_of_its_first_disk_and_linked_from_the_others(
    app: App, serve: Serve
) -> None:
    daemon = serve("--images", app.repository)
    second = daemon.backups / SECOND
    assert names(daemon, SECOND) == ["app--1-data--1", "app--1-logs"]
    link = second / "app--1-data--1"
    assert str(link.readlink()) == "../disk0/app--1-data--1"
    same(app.data, link)
    assert link.lstat().st_size == len(str(link.readlink()))
    found = run("find", second, "-maxdepth", "1", "-type", "l", "-printf", "%f %l")
    assert found == "app--1-data--1 ../disk0/app--1-data--1"
    assert os.listxattr(link, follow_symlinks=False) == []


def test_the_disks_of_a_group_come_and_go_together(app: App, serve: Serve) -> None:
    daemon = serve("--images", app.repository, "--idle-timeout", "2s")
    names(daemon, SECOND)
    shares = {name: disk["shares_volumes_with"] for name, disk in daemon.attached().items()}
    assert {name: shares[name] for name in (FIRST, SECOND)} == {FIRST: [1], SECOND: [0]}
    wait_until(lambda: not daemon.attached(), "all are let go")
    first = daemon.wait_logged(f"detached {FIRST}: not used for 2 s")
    second = daemon.wait_logged(f"detached {SECOND}: not used for 2 s")
    assert abs(daemon.lines.index(first) - daemon.lines.index(second)) == 1


def test_detaching_one_detaches_what_shares_volumes_with_it(app: App, serve: Serve) -> None:
    daemon = serve("--images", app.repository)
    with (daemon.backups / FIRST / "app--1-data--1" / "late").open("rb") as file:
        before = file.read(1000)
        assert daemon.cli("detach", BACKUP, "1").code == 0
        assert not {FIRST, SECOND} & daemon.attached().keys()
        file.seek(8 * MIB)
        again = file.read(1000)
    late = (app.data / "late").read_bytes()
    assert (before, again) == (late[:1000], late[8 * MIB :][:1000])


def test_file_numbers_stay_the_same(app: App, serve: Serve, place: Place) -> None:
    def numbers(daemon: Daemon) -> list[int]:
        found = [path.lstat().st_ino for path in sorted((daemon.backups / FIRST).rglob("*"))]
        return [*found, *(p.lstat().st_ino for p in sorted((daemon.backups / SECOND).rglob("*")))]

    daemon = serve("--images", app.repository, place=place)
    before = numbers(daemon)
    assert len(set(before)) == len(before) > 100
    daemon.cli("detach", BACKUP, "0")
    assert numbers(daemon) == before
    daemon.check()
    assert numbers(serve("--images", app.repository, place=place)) == before


def test_a_disk_that_the_catalog_has_not_costs_only_what_lies_on_it(
    app: App, copy: Path, serve: Serve
) -> None:
    (copy / SECOND).with_suffix(".qcow2").unlink()
    daemon = serve("--images", copy)
    daemon.expect("1 of 2 members are missing .*: no disk of this backup in the catalog")
    daemon.expect("physical volume .* of volume group app-1 is missing")
    # What lies on the missing disk alone is named here, too, so that nobody takes it for deleted.
    assert names(daemon, FIRST) == ["app--1-data--1", "app--1-logs", "app--1-root", "part1"]
    same(app.root, daemon.backups / FIRST / "app--1-root")
    assert errno_of(daemon.backups / FIRST / "app--1-logs" / "1.log") == errno.EIO
    data = daemon.backups / FIRST / "app--1-data--1"
    assert (data / "early").read_bytes() == (app.data / "early").read_bytes()
    assert errno_of(data / "late") == errno.EIO
    assert b"of volume group app-1 is missing" in os.getxattr(
        daemon.backups / FIRST, "user.restorefs.error"
    )
    assert "no disk of this backup in the catalog has it" in notes(daemon, 0)
    shown = daemon.cli("disks", BACKUP, "--json").json["disks"][0]["volumes"]
    (told,) = [volume for volume in shown if volume["name"] == "app--1-data--1"]
    assert any("a part is missing" in note for note in told["notes"])


def test_a_disk_whose_image_is_gone_costs_only_what_lies_on_it(
    app: App, copy: Path, serve: Serve, tmp_path: Path
) -> None:
    catalog = f"sqlite:///{tmp_path}/catalog.db"
    assert restorefs("scan", copy, "--catalog", catalog).code == 0
    image = (copy / FIRST).with_suffix(".qcow2")
    image.rename(tmp_path / "gone")
    daemon = serve("--catalog", catalog, "--repository", copy)
    daemon.expect(f"{image}: No such file", "1 of 2 members are missing", "app-1 is missing")
    assert names(daemon, SECOND) == ["app--1-data--1", "app--1-logs", "app--1-root"]
    same(app.logs, daemon.backups / SECOND / "app--1-logs")
    assert str(image) in notes(daemon, 1)
    # Its beginning is missing: nothing can be known of it, and that is said.
    assert errno_of(daemon.backups / SECOND / "app--1-data--1" / "late") == errno.EIO
    assert b"of volume group app-1 is missing" in os.getxattr(
        daemon.backups / SECOND / "app--1-data--1", "user.restorefs.error"
    )
    (tmp_path / "gone").rename(image)
    daemon.cli("detach", BACKUP, "1")
    same(app.data, daemon.backups / FIRST / "app--1-data--1")


def test_a_disk_whose_server_dies_comes_back_with_the_others(app: App, serve: Serve) -> None:
    daemon = serve("--images", app.repository)
    data = daemon.backups / FIRST / "app--1-data--1"
    assert (data / "early").read_bytes() == (app.data / "early").read_bytes()
    server = daemon.server(SECOND)
    daemon.expect(f"{SECOND}: ")
    server.send(signal.SIGKILL)
    server.wait()
    server.close()
    daemon.wait_logged(f"detached {FIRST}: its server ended")
    assert (data / "late").read_bytes() == (app.data / "late").read_bytes()


def test_with_one_slot_what_needs_two_disks_says_so(app: App, serve: Serve) -> None:
    daemon = serve("--images", app.repository, "--max-attached", "1")
    daemon.expect("all 1 disks that may be attached are in use", "1 of 2 members are missing")
    daemon.expect("app-1 is missing")
    same(app.root, daemon.backups / FIRST / "app--1-root")
    assert errno_of(daemon.backups / FIRST / "app--1-data--1" / "late") == errno.EIO
    assert "--max-attached" in notes(daemon, 0)


def test_groups_of_one_name_are_told_apart(app: App, serve: Serve, tmp_path: Path) -> None:
    images = tmp_path / "images"
    volume = ext(tmp_path / "volume", "ext4", app.root, 8 * MIB)
    parts = [empty(tmp_path / f"pv{number}", 12 * MIB) for number in range(2)]
    for part in parts:
        volume_group("vg", [part], {"root": ([(0, 0, 8)], volume)})
    qcow2(gpt(tmp_path / "disk", (LVM, parts[0]), (LVM, parts[1])), images / "b-1/disk0.qcow2")
    daemon = serve("--images", images)
    (backup,) = daemon.backups.iterdir()
    found = sorted(path.name for path in (backup / "disk0").iterdir())
    assert len(found) == 2
    assert all(name.startswith("vg-root~") for name in found)
    for name in found:
        same(app.root, backup / "disk0" / name)


def test_a_physical_volume_of_no_group_is_said_to_be_one(serve: Serve, tmp_path: Path) -> None:
    require_root()
    part = empty(tmp_path / "pv", 12 * MIB)
    with loop_device(part, writable=True) as device:
        run("pvcreate", "--quiet", "--driverloaded", "n", "--devices", device, device)
    qcow2(part, tmp_path / "images/b-1/disk0.qcow2")
    daemon = serve("--images", tmp_path / "images")
    (backup,) = daemon.backups.iterdir()
    assert list((backup / "disk0").iterdir()) == []
    told = daemon.cli("disks", backup.name).out
    assert "belongs to no volume group" in told


def test_a_physical_volume_whose_metadata_is_damaged_is_no_empty_folder(
    app: App, serve: Serve, tmp_path: Path
) -> None:
    part = empty(tmp_path / "pv", 12 * MIB)
    volume = ext(tmp_path / "volume", "ext4", app.root, 8 * MIB)
    volume_group("vg", [part], {"root": ([(0, 0, 8)], volume)})
    with part.open("r+b") as file:
        start = file.read(MIB)
        at = start.rindex(b'id = "')
        file.seek(start.index(b"vg {"))
        file.write(b"XX")
        file.seek(at)
        file.write(b"XX")
    qcow2(part, tmp_path / "images/b-1/disk0.qcow2")
    daemon = serve("--images", tmp_path / "images")
    daemon.expect("what it says of its volume group: metadata area 1 is damaged")
    (backup,) = daemon.backups.iterdir()
    assert errno_of(backup / "disk0" / "anything") == errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        list((backup / "disk0").iterdir())


def test_a_physical_volume_without_its_groups_metadata_is_no_empty_folder(
    app: App, serve: Serve, tmp_path: Path
) -> None:
    parts = [empty(tmp_path / f"pv{number}", 12 * MIB) for number in range(2)]
    volume = ext(tmp_path / "volume", "ext4", app.root, 8 * MIB)
    volume_group("vg", parts, {"root": ([(1, 0, 8)], volume)}, without_metadata=[1])
    for number, part in enumerate(parts):
        qcow2(part, tmp_path / f"images/b-1/disk{number}.qcow2")
    daemon = serve("--images", tmp_path / "images")
    (backup,) = daemon.backups.iterdir()
    same(app.root, backup / "disk1" / "vg-root")
    assert list((backup / "disk0").iterdir()) == []
    daemon.check()
    (tmp_path / "images/b-1/disk0.qcow2").unlink()
    daemon = serve("--images", tmp_path / "images")
    daemon.expect("its volume group is described on another disk, which is not in this backup")
    (backup,) = daemon.backups.iterdir()
    with pytest.raises(OSError, match="Input/output error"):
        list((backup / "disk1").iterdir())


def test_a_physical_volume_on_two_disks_is_an_error_of_what_touches_it(
    app: App, copy: Path, serve: Serve
) -> None:
    """Which of the two is right cannot be known."""
    shutil.copyfile((copy / SECOND).with_suffix(".qcow2"), copy / BACKUP / "disk3.qcow2")
    daemon = serve("--images", copy)
    daemon.expect(r"app--1-logs: the physical volume .* is on 2 devices", "app-1 is on 2 devices")
    same(app.root, daemon.backups / FIRST / "app--1-root")
    data = daemon.backups / FIRST / "app--1-data--1"
    assert (data / "early").read_bytes() == (app.data / "early").read_bytes()
    assert errno_of(data / "late") == errno.EIO
    assert names(daemon, SECOND) == ["app--1-data--1", "app--1-logs"]
    assert errno_of(daemon.backups / SECOND / "app--1-logs" / "1.log") == errno.EIO
    assert sorted(names(daemon, f"{BACKUP}/disk3")) == ["app--1-data--1", "app--1-logs"]


def test_a_partition_table_in_a_volume_is_named(app: App, serve: Serve, tmp_path: Path) -> None:
    """As a host of virtual machines has it."""
    inner = gpt(tmp_path / "inner", (LINUX, ext(tmp_path / "ext", "ext4", app.root, 8 * MIB)))
    part = empty(tmp_path / "pv", 24 * MIB)
    volume_group("host", [part], {"guest": ([(0, 0, inner.stat().st_size // MIB)], inner)})
    qcow2(part, tmp_path / "images/b-1/disk0.qcow2")
    daemon = serve("--images", tmp_path / "images")
    daemon.expect("host-guest: A GPT partition table in a volume is recognised but not read yet")
    (backup,) = daemon.backups.iterdir()
    assert errno_of(backup / "disk0" / "host-guest" / "part1") == errno.EOPNOTSUPP
    with pytest.raises(OSError, match="Operation not supported"):
        list((backup / "disk0" / "host-guest").iterdir())
