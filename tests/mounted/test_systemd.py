"""The service: root at the start, an ordinary user for good once it is mounted; and its unit."""

# ruff: noqa: PTH208 - system calls

import grp
import json
import os
import pwd
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.mounted.conftest import Serve
from tests.mounted.daemon import (
    RESTOREFS,
    Daemon,
    Place,
    Process,
    is_mounted,
    mount_line,
    restorefs,
)
from tests.mounted.disks import Sample
from tests.mounted.reading import error_of
from tests.tools import require, require_root, run, wait_until

FOLDER = Path(__file__).parents[2] / "systemd"
UNIT = FOLDER / "restorefs@.service"
USER = pwd.getpwnam("nobody")
OTHER = pwd.getpwnam("daemon")
AS_USER = ("setpriv", f"--reuid={USER.pw_uid}", f"--regid={USER.pw_gid}", "--clear-groups")
AS_OTHER = ("setpriv", f"--reuid={OTHER.pw_uid}", f"--regid={OTHER.pw_gid}", "--clear-groups")
WEB0 = f"{Sample.full}/disk0"
WEB1 = f"{Sample.full}/disk1"


@pytest.fixture
def images(place: Place, sample: Sample) -> Path:
    """The sample, where every user can read it."""
    require_root()  # to become somebody else
    tried = subprocess.run(
        [*AS_USER, str(RESTOREFS), "--version"], capture_output=True, text=True, check=False
    )
    if tried.returncode != 0:
        pytest.skip(f"{USER.pw_name} cannot run {RESTOREFS}: {tried.stderr.strip()}")
    folder = place.folder / "images"
    run("cp", "--recursive", sample.repository, folder)
    return folder


@pytest.fixture
def daemon(serve: Serve, images: Path, place: Place) -> Daemon:
    return serve("--images", images, "--user", USER.pw_name, place=place)


def status_of(pid: int) -> dict[str, str]:
    """Return the lines of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def assert_is_the_user(pid: int) -> None:
    about = status_of(pid)
    assert set(about["Uid"].split()) == {str(USER.pw_uid)}
    assert set(about["Gid"].split()) == {str(USER.pw_gid)}
    groups = {group.gr_gid for group in grp.getgrall() if USER.pw_name in group.gr_mem}
    assert set(map(int, about["Groups"].split())) == groups | {USER.pw_gid}
    for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(about[kind], 16) == 0, kind
    assert about["NoNewPrivs"] == "1"


def unmounting_child(daemon: Daemon) -> int:
    """Return the process that stays root."""
    (found,) = [pid for pid in daemon.children() if status_of(pid)["Uid"].split()[0] == "0"]
    return found


# --- the user ------------------------------------------------------------------------------------


def test_it_is_the_user_for_good(daemon: Daemon) -> None:
    os.listdir(daemon.backups / WEB0)
    os.listdir(daemon.backups / WEB1)
    assert_is_the_user(daemon.pid)
    assert int(status_of(daemon.pid)["CapBnd"], 16) == 0
    for thread in Path(f"/proc/{daemon.pid}/task").iterdir():
        assert_is_the_user(int(thread.name))
    servers = [disk["qemu_nbd_pid"] for disk in daemon.attached().values()]
    assert len(servers) == 2
    for pid in servers:
        assert_is_the_user(pid)
    root = unmounting_child(daemon)
    assert set(daemon.children()) == {*servers, root}
    # It can do little, too, and holds nothing of the mount's, which would not die with the daemon.
    capabilities = int(status_of(root)["CapEff"], 16)
    assert capabilities.bit_count() == 2
    held = {str(fd.readlink()) for fd in Path(f"/proc/{root}/fd").iterdir()}
    assert not [name for name in held if "fuse" in name]


def test_everybody_can_read(daemon: Daemon) -> None:
    file = daemon.backups / WEB0 / "part3/etc/hostname"
    assert file.read_text() == "web\n"
    for who in (AS_USER, AS_OTHER):
        assert run(*who, "cat", file) == "web\n"


def test_it_is_tuned(daemon: Daemon) -> None:
    line = mount_line(daemon.mountpoint)
    assert line is not None
    device = line.split()[2]
    assert Path(f"/sys/class/bdi/{device}/read_ahead_kb").read_text() == "4096\n"
    (options,) = re.findall(r" - fuse.restorefs restorefs (\S+)$", line)
    assert {"allow_other", "default_permissions", "user_id=0"} <= set(options.split(","))


def test_who_may_ask(daemon: Daemon) -> None:
    (folder,) = daemon.place.runtime_dir.iterdir()
    assert daemon.place.runtime_dir.stat().st_uid == 0
    os.listdir(daemon.backups / WEB1)
    for path in (folder, *folder.iterdir()):
        assert (path.stat().st_uid, path.stat().st_gid) == (USER.pw_uid, USER.pw_gid), path
    assert folder.stat().st_mode & 0o777 == 0o700
    how = ("--runtime-dir", daemon.place.runtime_dir)
    assert restorefs(*how, "status", "--json").json["pid"] == daemon.pid
    assert restorefs(*how, "status", "--json", prefix=AS_USER).json["pid"] == daemon.pid
    stranger = restorefs(*how, "status", prefix=AS_OTHER)
    assert stranger.code == 1
    assert "only the daemon's own user and root may ask it" in stranger.err


def test_a_user_finds_its_own_among_others(
    daemon: Daemon, serve: Serve, sample: Sample, place: Place
) -> None:
    other = Place()
    try:
        shutil.rmtree(other.runtime_dir)
        other.runtime_dir = place.runtime_dir
        roots = serve("--images", sample.repository, place=other)
        asked = restorefs("--runtime-dir", place.runtime_dir, "status", "--json", prefix=AS_USER)
        assert asked.json["pid"] == daemon.pid
        roots.stop()
        daemon.check()
        roots.check()
    finally:
        other.remove()


def test_the_runtime_folder_is_made(images: Path, serve: Serve, place: Place) -> None:
    place.runtime_dir.rmdir()
    daemon = serve("--images", images, "--user", USER.pw_name, place=place)
    assert place.runtime_dir.stat().st_mode & 0o777 == 0o755
    assert daemon.cli("status").code == 0
    daemon.check()


def test_it_still_reloads_and_writes_its_records(serve: Serve, images: Path, place: Place) -> None:
    """After root's rights are gone."""
    folder = place.folder / "catalog"
    folder.mkdir()
    url = f"sqlite:///{folder}/catalog.db"
    assert restorefs("scan", images, "--catalog", url).code == 0
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, USER.pw_name)
    daemon = serve("--catalog", url, "--repository", images, "--user", USER.pw_name, place=place)
    os.listdir(daemon.backups / WEB1)

    def records() -> int:
        with closing(sqlite3.connect(folder / "catalog.db")) as database:
            found: int = database.execute("SELECT COUNT(*) FROM restore_mounts").fetchone()[0]
            return found

    wait_until(lambda: records() == 1, "the attach record is written")
    with closing(sqlite3.connect(folder / "catalog.db")) as database, database:
        database.execute("DELETE FROM backup_disks WHERE backup_job_id = ?", [Sample.other])
        database.execute("DELETE FROM backup_jobs WHERE id = ?", [Sample.other])
    daemon.send(signal.SIGHUP)
    wait_until(lambda: Sample.other not in os.listdir(daemon.backups), "it has looked again")
    daemon.check()
    assert records() == 0


_WHO_SERVES = """
import logging, os, runpy, sys
from restorefs import daemon
serve = daemon.serve

async def telling(*args, **kwargs):
    logging.getLogger("test").info("serves as %s", os.getresuid())
    await serve(*args, **kwargs)

daemon.serve = telling
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_nobody_is_answered_while_it_could_be_root(
    serve: Serve, images: Path, place: Place
) -> None:
    daemon = serve(
        *("--images", images, "--user", USER.pw_name),
        *("--listen", "127.0.0.1:0", "--listen-insecure"),
        place=place,
        prefix=(sys.executable, "-c", _WHO_SERVES),
    )
    told = [line.partition("serves as ")[2] for line in daemon.logged("serves as")]
    assert told == [str((USER.pw_uid,) * 3)] * 2  # on its own socket, and over TCP


# --- the end -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts(number: signal.Signals, daemon: Daemon) -> None:
    fd = os.open(daemon.backups / WEB1 / "big", os.O_RDONLY)  # also while a file is open
    assert os.read(fd, 4096)
    with closing(Process(unmounting_child(daemon))) as child:
        # As the terminal does, and systemd without KillMode=mixed: to all that belong to it.
        child.send(number)
        os.killpg(daemon.pid, number)
        daemon.process.wait()
        child.wait()
    assert error_of(os.close, fd) == "ENOTCONN"
    daemon.check()


def test_an_unmount_from_outside_ends_it(
    daemon: Daemon, serve: Serve, images: Path, place: Place
) -> None:
    run("umount", daemon.mountpoint)
    # Mounted again at once: the first one may not have ended yet.
    again = serve("--images", images, "--user", USER.pw_name, place=place)
    assert (again.backups / WEB1 / "small").read_text() == "small\n"
    daemon.process.wait()
    again.stop()
    daemon.check()


def test_what_came_after_it_stays(daemon: Daemon) -> None:
    fd = os.open(daemon.backups / WEB1 / "big", os.O_RDONLY)
    run("umount", "--lazy", daemon.mountpoint)
    run("mount", "-t", "tmpfs", "theirs", daemon.mountpoint)
    (daemon.mountpoint / "precious").touch()
    os.close(fd)
    daemon.process.wait()
    assert os.listdir(daemon.mountpoint) == ["precious"]
    run("umount", daemon.mountpoint)
    daemon.check()


def test_what_lies_over_it_stays(daemon: Daemon) -> None:
    run("mount", "-t", "tmpfs", "theirs", daemon.mountpoint)
    (daemon.mountpoint / "precious").touch()
    daemon.expect(r"WARNING not unmounting .*: something else \(tmpfs\) is mounted there now")
    daemon.stop()
    assert os.listdir(daemon.mountpoint) == ["precious"]
    run("umount", daemon.mountpoint)
    assert error_of(os.listdir, daemon.mountpoint) == "ENOTCONN"
    run("umount", daemon.mountpoint)
    daemon.check()


@pytest.mark.parametrize("user", [("--user", OTHER.pw_name), ()], ids=["another", "root"])
def test_who_still_serves_a_file_keeps_its_folder(
    daemon: Daemon, images: Path, place: Place, user: tuple[str, ...]
) -> None:
    with (daemon.backups / WEB1 / "small").open() as file:
        run("umount", "--lazy", daemon.mountpoint)
        (folder,) = place.runtime_dir.iterdir()
        before = {path: path.stat().st_uid for path in (folder, *folder.iterdir())}
        command = ("mount", "--images", images, *user, place.mountpoint)
        done = restorefs("--runtime-dir", place.runtime_dir, *command)
        assert done.code == 1
        waiting, said = done.err.splitlines()
        assert f"waiting until process {daemon.pid} has let go of {place.mountpoint}" in waiting
        assert said == (
            f"Error: process {daemon.pid} has not let go of {place.mountpoint}, though nothing is"
            " mounted there: is a file of it still open? Close it, or end that process"
        )
        assert {path: path.stat().st_uid for path in (folder, *folder.iterdir())} == before
        assert daemon.cli("status", "--json").json["pid"] == daemon.pid
        assert file.read() == "small\n"
    daemon.process.wait()
    daemon.check()


def test_a_crash(daemon: Daemon, serve: Serve, images: Path, place: Place) -> None:
    os.listdir(daemon.backups / WEB0)
    children = [Process(pid) for pid in daemon.children()]
    assert len(children) == 2
    daemon.kill()
    for child in children:  # also the one that is root
        child.wait()
        child.close()
    assert is_mounted(place.mountpoint)
    for who in ((), AS_OTHER):
        looked = subprocess.run(
            [*who, "ls", str(place.mountpoint)], capture_output=True, text=True, check=False
        )
        assert "Transport endpoint is not connected" in looked.stderr
    after = serve("--images", images, "--user", USER.pw_name, place=place)
    after.expect("WARNING cleaning up the dead mount")
    assert (after.backups / WEB1 / "small").read_text() == "small\n"
    after.check()
    assert os.listdir(place.mountpoint) == []


@pytest.mark.parametrize("first", ["user", "root"])
def test_a_crash_before_the_user_was_changed(
    first: str, serve: Serve, images: Path, place: Place
) -> None:
    how: list[tuple[str, ...]] = [("--user", USER.pw_name), ()]
    if first == "root":
        how.reverse()
    crashing = serve("--images", images, *how[0], place=place)
    assert (crashing.backups / WEB1 / "small").exists()
    crashing.kill()
    after = serve("--images", images, *how[1], place=place)
    after.expect("WARNING cleaning up the dead mount")
    assert (after.backups / WEB1 / "small").read_text() == "small\n"
    after.check()


def test_when_nobody_can_unmount(daemon: Daemon, place: Place) -> None:
    with closing(Process(unmounting_child(daemon))) as child:
        child.send(signal.SIGKILL)
        child.wait()
    daemon.expect(f"Error: cannot unmount {place.mountpoint}: the process of root's .* has ended")
    daemon.send(signal.SIGTERM)
    daemon.process.wait()
    assert is_mounted(place.mountpoint)
    assert error_of(os.listdir, place.mountpoint) == "ENOTCONN"
    daemon.kill()  # to the harness: an end that is not a clean one


# --- what is refused -----------------------------------------------------------------------------


def refused(place: Place, *args: str | Path, prefix: tuple[str, ...] = (), code: int = 2) -> str:
    """Return what a mount says that is refused."""
    runtime_dir = ("--runtime-dir", place.runtime_dir)
    done = restorefs(*runtime_dir, "mount", *args, place.mountpoint, prefix=prefix)
    assert done.code == code, done
    assert not is_mounted(place.mountpoint)
    assert list(place.runtime_dir.rglob("*")) == []
    return done.err


def test_no_such_user(images: Path, place: Place) -> None:
    said = refused(place, "--images", images, "--user", "no-such-user")
    assert "--user: there is no user 'no-such-user' on this machine" in said


def test_only_root_can_become_somebody_else(images: Path, place: Place) -> None:
    shutil.chown(place.runtime_dir, USER.pw_name)
    said = refused(place, "--images", images, "--user", OTHER.pw_name, prefix=AS_USER)
    assert f"only root can become {OTHER.pw_name}" in said


def test_a_program_that_the_user_may_not_read(images: Path, place: Place, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    shutil.copytree(FOLDER.parent / "restorefs", hidden / "restorefs")
    hidden.chmod(0o700)
    done = restorefs(
        *("--runtime-dir", place.runtime_dir, "mount", "--images", images),
        *("--user", USER.pw_name, place.mountpoint),
        env={"PYTHONPATH": str(hidden)},
    )
    assert done.code == 2
    assert f"{USER.pw_name} cannot read {hidden}/restorefs/rights.py" in done.err
    assert not is_mounted(place.mountpoint)
    assert list(place.runtime_dir.rglob("*")) == []


def test_who_one_is_already(serve: Serve, sample: Sample) -> None:
    """Is no change: a user may start what root starts, and root may stay root."""
    daemon = serve("--images", sample.repository, "--user", pwd.getpwuid(os.geteuid()).pw_name)
    assert (daemon.backups / WEB1 / "small").exists()
    assert len(daemon.children()) == 1


def test_what_the_user_may_not_read(images: Path, place: Place) -> None:
    """Is known before anything is mounted, not at somebody's first look."""
    catalog = place.folder / "catalog.db"
    assert restorefs("scan", images, "--catalog", f"sqlite:///{catalog}").code == 0
    catalog.chmod(0o600)
    user = ("--user", USER.pw_name)
    said = refused(place, "--catalog", f"sqlite:///{catalog}", *user, code=1)
    assert f"{catalog}: {USER.pw_name} may not read it" in said
    private = place.folder / "private"
    private.mkdir(mode=0o700)
    catalog = catalog.rename(private / "catalog.db")
    said = refused(place, "--catalog", f"sqlite:///{catalog}", *user, code=1)
    assert f"{catalog}: {USER.pw_name} cannot reach it: Permission denied" in said
    images.chmod(0o700)
    said = refused(place, "--images", images, *user, code=1)
    assert f"{images}" in said
    assert "Permission denied" in said


def test_a_runtime_folder_that_the_user_cannot_enter(images: Path, place: Place) -> None:
    place.runtime_dir.chmod(0o700)
    said = refused(place, "--images", images, "--user", USER.pw_name)
    assert (
        f"{USER.pw_name} cannot enter {place.runtime_dir}: `chmod 755 {place.runtime_dir}`" in said
    )


# --- systemd -------------------------------------------------------------------------------------


def test_systemd_is_told(serve: Serve, images: Path, place: Place) -> None:
    """By the process that it started, and by then that is the user already."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.settimeout(60)
        notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        notify.bind(f"\0restorefs-test-user-{os.getpid()}")
        env = {"NOTIFY_SOCKET": f"@restorefs-test-user-{os.getpid()}"}
        daemon = serve("--images", images, "--user", USER.pw_name, place=place, env=env)
        said, ((_, _, credentials),), _, _ = notify.recvmsg(4096, socket.CMSG_SPACE(12))
        assert said.decode().splitlines() == [
            "READY=1",
            f"STATUS=3 backups at {place.mountpoint}",
        ]
        pid, uid, _ = (int.from_bytes(credentials[at : at + 4], "little") for at in (0, 4, 8))
        assert (pid, uid) == (daemon.pid, USER.pw_uid)
        daemon.stop()
        assert notify.recv(4096) == b"STOPPING=1"


def directives() -> list[tuple[str, str]]:
    """Return the keys and values of the unit."""
    lines = UNIT.read_text().splitlines()
    pairs = [line.partition("=") for line in lines if re.match(r"[A-Z]\w+=", line)]
    return [(key, value) for key, _, value in pairs]


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, where the program that it starts is there."""
    require("systemd-analyze")
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text().replace("/usr/bin/restorefs", str(RESTOREFS)))
    return path


def test_systemd_understands_the_unit(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_unit_is_hardened(unit: Path) -> None:
    run("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=48", unit)


def test_the_unit_makes_no_mount_namespace() -> None:
    """In which the mount would be, and nobody would see it. See systemd.exec(5)."""
    makes_one = re.compile(
        r"(Protect(System|Home|Kernel\w+|ControlGroups|Proc|Hostname)|Private\w+"
        r"|ProcSubset|\w+Paths|Bind\w+|TemporaryFileSystem|Root\w+|Mount\w+|Extension\w+"
        r"|DynamicUser|LogNamespace)$"
    )
    assert [key for key, _ in directives() if makes_one.match(key)] == []


def test_each_line_of_the_hardening_has_its_reason() -> None:
    _, _, hardening = UNIT.read_text().partition("# --- hardening")
    lines = hardening.partition("[Install]")[0].splitlines()
    for number, line in enumerate(lines):
        if re.match(r"[A-Z]\w+=", line):
            before = lines[number - 1]
            assert before.startswith(("#", "DevicePolicy=")), f"why {line}?"


def test_the_unit_starts_what_there_is(images: Path, place: Place) -> None:
    """Its command line is one that the program takes."""
    ((_, start),) = [pair for pair in directives() if pair[0] == "ExecStart"]
    words = start.split()
    assert words[:2] == ["/usr/bin/restorefs", "mount"]
    words[words.index("restorefs", 2)] = "no-such-user"
    words[-1] = str(place.folder / "main.toml")
    Path(words[-1]).write_text(f'mountpoint = "{place.mountpoint}"\nimages = "{images}"\n')
    done = restorefs("--runtime-dir", place.runtime_dir, *words[1:])
    assert done.code == 2
    assert "no-such-user" in done.err


_RESTRICTED = """
import ctypes, os, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) != 0:  # PR_SET_MDWE, which few kernels lack by now
    print("this kernel cannot refuse memory that is written and run", file=sys.stderr)
os.umask(0o077)
os.execvp(sys.argv[1], sys.argv[1:])
"""


def test_the_daemon_can_do_with_what_the_unit_leaves(
    serve: Serve, images: Path, place: Place
) -> None:
    """Its capabilities, no new privileges, no memory that is written and run; and its umask."""
    kept = [
        name.removeprefix("CAP_").lower()
        for key, value in directives()
        if key == "CapabilityBoundingSet"
        for name in value.split()
    ]
    assert len(kept) == 6
    bounding = ",".join(["-all", *(f"+{name}" for name in kept)])
    prefix = (
        *("/usr/bin/python3", "-c", _RESTRICTED, "setpriv", "--no-new-privs"),
        *("--bounding-set", bounding),
    )
    how = ("--images", images, "--user", USER.pw_name)
    daemon = serve(*how, place=place, prefix=prefix)
    assert (daemon.backups / WEB0 / "part3/etc/hostname").read_text() == "web\n"
    assert_is_the_user(daemon.pid)
    daemon.kill()
    after = serve(*how, place=place, prefix=prefix)
    after.expect("WARNING cleaning up the dead mount")
    assert run(*AS_OTHER, "cat", after.backups / WEB1 / "small") == "small\n"
    after.check()
    # Also what a daemon that was root has left.
    crashing = serve("--images", images, place=place)
    assert (crashing.backups / WEB1 / "small").exists()
    crashing.kill()
    last = serve(*how, place=place, prefix=prefix)
    last.expect("WARNING cleaning up the dead mount")


def test_the_system_calls_are_those_that_the_unit_leaves(
    images: Path, place: Place, tmp_path: Path
) -> None:
    require("systemd-analyze", "strace")
    ((_, value),) = [pair for pair in directives() if pair[0] == "SystemCallFilter"]
    allowed = set()
    for name in value.split():
        allowed |= _calls(name)
    trace = tmp_path / "trace"
    words = ["strace", "-f", "-qq", "-e", "signal=none", "-o", str(trace), str(RESTOREFS)]
    words += ["--runtime-dir", str(place.runtime_dir), "mount", "--images", str(images)]
    words += ["--user", USER.pw_name, str(place.mountpoint)]
    with subprocess.Popen(
        words, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as traced:
        try:
            assert traced.stderr is not None
            assert traced.stderr.readline().startswith("restorefs: 3 backups at ")
            assert run("cat", place.mountpoint / "backups" / WEB1 / "small") == "small\n"
            (instance,) = place.runtime_dir.glob("*/instance.json")
            os.kill(json.loads(instance.read_text())["pid"], signal.SIGTERM)
            assert "unmounted" in traced.stderr.read()
            assert traced.wait() == 0
        finally:
            traced.kill()
    made = set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE))
    assert {"mount", "umount2", "setresuid", "capset", "execve"} <= made
    assert made - allowed == set()


def _calls(name: str) -> set[str]:
    """Return the system calls of a group, such as @mount."""
    if not name.startswith("@"):
        return {name}
    found = set()
    for line in run("systemd-analyze", "--no-pager", "syscall-filter", name).splitlines()[1:]:
        if (word := line.strip()) and not word.startswith("#"):
            found |= _calls(word)
    return found


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A folder that stands for a machine."""
    require_root()
    require("systemd-sysusers", "systemd-tmpfiles")
    folder = tmp_path / "machine"
    (folder / "etc").mkdir(parents=True)
    yield folder
    shutil.rmtree(folder)


def test_the_user_and_the_folders_are_made(root: Path) -> None:
    run("systemd-sysusers", f"--root={root}", FOLDER / "restorefs.sysusers")
    (line,) = [
        line
        for line in (root / "etc/passwd").read_text().splitlines()
        if line.startswith("restorefs:")
    ]
    _, _, uid, gid, _, home, shell = line.split(":")
    assert (home, shell) == ("/var/lib/restorefs", "/usr/sbin/nologin")
    assert int(uid) < 1000
    run("systemd-tmpfiles", f"--root={root}", "--create", FOLDER / "restorefs.tmpfiles")
    made = {
        path: (about.st_mode & 0o7777, about.st_uid, about.st_gid)
        for path in ("run/restorefs", "var/lib/restorefs", "etc/restorefs")
        for about in [(root / path).stat()]
    }
    assert made == {
        "run/restorefs": (0o755, 0, 0),
        "var/lib/restorefs": (0o750, int(uid), int(gid)),
        "etc/restorefs": (0o750, 0, 0),
    }


def test_each_file_is_in_the_list_of_what_is_installed_where() -> None:
    listed = re.findall(r"^\| `([^`]+)` \| `/", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert sorted([*listed, "README.md"]) == sorted(os.listdir(FOLDER))
