"""The unit under a real systemd, which runs as the first process of namespaces of its own.

It starts this one unit and nothing else of the machine's, sees a /run of its own, and can write
nowhere but there and in the test's folders.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import restorefs
from tests.mounted.daemon import RESTOREFS, SECONDS, Place, Process
from tests.mounted.disks import Sample
from tests.tools import require, require_root, run, unavailable, wait_until

UNIT = Path(__file__).parents[2] / "systemd" / "restorefs@.service"
USER = "nobody"
SYSTEMD = next(
    (
        each
        for each in map(Path, ("/lib/systemd/systemd", "/usr/lib/systemd/systemd"))
        if each.exists()
    ),
    None,
)
SERVICE = "restorefs@main"
_SCRIPT = """
set -e
folder=$1
mount --make-rprivate /
mount --bind "$folder" "$folder"
mount -o remount,bind,ro /
mount -t tmpfs tmpfs /run
mount -t proc proc /proc
umount --recursive --lazy /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/systemd/system/restorefs@main.service.d /run/restorefs
cp "$folder/unit" /run/systemd/system/restorefs@.service
cp "$folder/changes" /run/systemd/system/restorefs@main.service.d/test.conf
cp "$folder/target" /run/systemd/system/only.target
ln -s /dev/null /run/systemd/system/network-online.target
export container=lxc
exec "$2" --system --unit=only.target --log-target=console --log-level=warning --show-status=no
"""
_NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--cgroup", "--net", "--uts", "--ipc")
_SMALL = f"backups/{Sample.full}/disk1/small"


class Machine:
    """A systemd that runs, and this machine as its services see it."""

    def __init__(self, place: Place, process: Process) -> None:
        self.place = place
        self.process = process

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command in there."""
        inside = ("nsenter", "-t", str(self.process.pid), "-m", "-p", "-n", "-u", "-i", "-C", "--")
        return subprocess.run(
            [*inside, *map(str, command)],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def ctl(self, command: str) -> None:
        done = self.run("systemctl", command, SERVICE)
        assert done.returncode == 0, done.stderr + self.log

    def properties(self) -> Mapping[str, str]:
        names = "ActiveState,Result,MainPID,NRestarts,StatusText,ExecMainStatus"
        done = self.run("systemctl", "show", SERVICE, "-p", names)
        return dict(line.split("=", 1) for line in done.stdout.splitlines())

    def see(self, *command: str | Path) -> str:
        done = self.run(*command)
        assert done.returncode == 0, done.stderr + self.log
        return done.stdout

    @property
    def log(self) -> str:
        return (self.place.folder / "log").read_text()


@pytest.fixture
def machine(place: Place, sample: Sample) -> Iterator[Machine]:
    require_root()
    require("systemd-analyze", "systemctl", "unshare", "nsenter")
    if SYSTEMD is None:
        unavailable("not installed: systemd")
    tree = next(
        (
            each
            for each in map(Path, ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"))
            if (each / "cgroup.procs").exists() and (each / "cgroup.controllers").exists()
        ),
        None,
    )
    if tree is None or not os.access(tree, os.W_OK):
        unavailable("no cgroup2 that can be written")
    tried = subprocess.run([*_NAMESPACES, "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        unavailable(f"no namespaces: {tried.stderr.strip()}")
    folder = place.folder
    run("cp", "--recursive", sample.repository, folder / "images")
    (folder / "main.toml").write_text(
        f'mountpoint = "{place.mountpoint}"\nimages = "{folder}/images"\n'
    )
    text = UNIT.read_text()
    for ours, here in (
        ("/usr/bin/restorefs mount --user restorefs", f"{RESTOREFS} mount --user {USER}"),
        ("/etc/restorefs/%i.toml", f"{folder}/%i.toml"),
    ):
        assert ours in text
        text = text.replace(ours, here)
    (folder / "unit").write_text(text)
    (folder / "target").write_text("[Unit]\nDefaultDependencies=no\n")
    (folder / "log").touch()
    (folder / "changes").write_text(
        "[Unit]\nDefaultDependencies=no\n[Service]\n"
        f"Environment=PYTHONPATH={Path(restorefs.__file__).parents[1]}\n"
        f"StandardOutput=append:{folder}/log\nStandardError=append:{folder}/log\n"
        "RestartSec=100ms\n"
    )
    group = tree / f"restorefs-test-{os.getpid()}"
    group.mkdir()
    try:
        yield from _running(place, group)
    finally:
        for each in sorted(group.rglob("*/"), reverse=True):
            each.rmdir()
        group.rmdir()


def _running(place: Place, group: Path) -> Iterator[Machine]:
    said = place.folder / "said"
    with said.open("w") as output:
        outer = subprocess.Popen(
            [
                *("sh", "-c", f'echo $$ >"{group}/cgroup.procs"; exec "$@"', "sh"),
                *(*_NAMESPACES, "--kill-child"),
                *("sh", "-c", _SCRIPT, "sh", str(place.folder), str(SYSTEMD)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    process = None
    try:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")

        def first() -> str:
            assert outer.poll() is None, said.read_text()
            return children.read_text().strip()

        process = Process(int(wait_until(first, "its namespaces are there")))
        machine = Machine(place, process)

        def started() -> bool:
            assert outer.poll() is None, said.read_text()
            done = machine.run("systemctl", "is-active", "only.target")
            return done.stdout.strip() == "active"

        wait_until(started, "systemd runs")
        yield machine
        assert said.read_text() == ""
    finally:
        if process is not None:
            process.send(signal.SIGKILL)  # and with it all that it has started
            process.wait()
            process.close()
        outer.kill()
        outer.wait()
        wait_until(lambda: "populated 0" in (group / "cgroup.events").read_text(), "all are gone")


def test_the_service(machine: Machine) -> None:
    mountpoint = machine.place.mountpoint
    machine.ctl("start")
    # It is mounted when systemctl returns, and everybody in there sees it.
    assert machine.see("cat", mountpoint / _SMALL) == "small\n"
    first = machine.properties()
    assert (first["ActiveState"], first["StatusText"]) == ("active", f"3 backups at {mountpoint}")
    status = machine.see("cat", f"/proc/{first['MainPID']}/status")
    about = dict(line.split(":", 1) for line in status.splitlines())
    assert set(about["Uid"].split()) == {"65534"}
    assert int(about["CapEff"], 16) == int(about["CapPrm"], 16) == int(about["CapBnd"], 16) == 0
    assert about["Seccomp"].strip() == "2"
    number = machine.see("mountpoint", "--fs-devno", mountpoint).strip()
    assert machine.see("cat", f"/sys/class/bdi/{number}/read_ahead_kb") == "4096\n"

    shutil.rmtree(machine.place.folder / "images" / Sample.other)
    machine.ctl("reload")
    wait_until(
        lambda: Sample.other not in machine.see("ls", mountpoint / "backups"), "it has reloaded"
    )

    # A crash: systemd starts it again, and it cleans away what the first one has left.
    machine.see("kill", "-KILL", first["MainPID"])

    def again() -> bool:
        about = machine.properties()
        return about["ActiveState"] == "active" and about["MainPID"] != first["MainPID"]

    wait_until(again, "it was started again")
    assert machine.properties()["NRestarts"] == "1"
    assert "WARNING cleaning up the dead mount" in machine.log
    assert machine.see("cat", mountpoint / _SMALL) == "small\n"

    machine.ctl("restart")
    assert machine.see("cat", mountpoint / _SMALL) == "small\n"
    machine.ctl("stop")
    last = machine.properties()
    assert (last["ActiveState"], last["Result"]) == ("inactive", "success")
    assert machine.run("mountpoint", mountpoint).returncode != 0
    assert machine.see("ls", "/run/restorefs") == ""
    assert "ERROR" not in machine.log
    assert "Traceback" not in machine.log


def test_a_configuration_that_is_wrong_is_not_tried_again(machine: Machine) -> None:
    file = machine.place.folder / "main.toml"
    file.write_text("nonsense = 1\n")
    assert machine.run("systemctl", "start", SERVICE).returncode != 0
    found = machine.properties()
    assert (found["ActiveState"], found["Result"]) == ("failed", "exit-code")
    assert (found["ExecMainStatus"], found["NRestarts"]) == ("2", "0")
    assert f"{file}: nonsense: there is no such key" in machine.log


def test_a_catalog_that_is_not_there_yet(machine: Machine) -> None:
    """Is tried again until it is."""
    folder = machine.place.folder
    catalog = folder / "catalog.db"
    (folder / "main.toml").write_text(
        f'mountpoint = "{machine.place.mountpoint}"\ncatalog = "sqlite:///{catalog}"\n'
        f'repository = ["{folder}/images"]\n'
    )
    machine.run("systemctl", "start", "--no-block", SERVICE)
    wait_until(lambda: int(machine.properties()["NRestarts"]) >= 2, "it was tried again")
    made = folder / "made.db"
    run(RESTOREFS, "scan", folder / "images", "--catalog", f"sqlite:///{made}")
    shutil.chown(made, USER)
    shutil.chown(folder, USER)  # SQLite has its journal there
    made.rename(catalog)
    wait_until(lambda: machine.properties()["ActiveState"] == "active", "it has started")
    assert machine.see("cat", machine.place.mountpoint / _SMALL) == "small\n"
    machine.ctl("stop")
