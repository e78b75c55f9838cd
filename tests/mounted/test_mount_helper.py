"""`mount -t fuse.restorefs`, lines of fstab, and umount: by mount(8) itself."""

# ruff: noqa: PTH208 - system calls

import json
import os
import pwd
import re
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TypeAlias

import click
import pytest

from restorefs.cli.commands import mount as mount_command
from restorefs.cli.config_file import keys_of
from restorefs.cli.mount_helper import arguments
from tests.mounted.daemon import RESTOREFS, Place, Process, is_mounted, mount_line, restorefs
from tests.mounted.disks import Sample
from tests.mounted.reading import error_of
from tests.tools import require, require_root, run, wait_until

HELPER = Path(__file__).parents[2] / "systemd" / "mount.fuse.restorefs"
INSTALLED = Path("/sbin/mount.fuse.restorefs")  # where mount(8) looks, and nowhere else
USER = pwd.getpwnam("nobody")
SMALL = Path("backups", Sample.full, "disk1", "small")

Mount: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def _installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have the helper where mount(8) finds it, and the program that is tested where it does."""
    require_root()
    require("mount", "umount", "findmnt", "logger")
    text = HELPER.read_text()
    for words in ("command -v restorefs >", "exec restorefs mount-helper "):
        assert text.count(words) == 1
        text = text.replace(words, words.replace("restorefs", str(RESTOREFS)))
    kept = tmp_path_factory.mktemp("kept") / "helper"
    if INSTALLED.exists():
        shutil.move(INSTALLED, kept)
    try:
        INSTALLED.write_text(text)
        INSTALLED.chmod(0o755)
        yield
    finally:
        INSTALLED.unlink(missing_ok=True)
        if kept.exists():
            shutil.move(kept, INSTALLED)


def identity(pid: int) -> dict[str, list[str]]:
    """Return who a process is and may be, as proc_pid_status(5) says."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    return {name: found[name] for name in ("Uid", "Gid", "Groups", "CapPrm", "CapEff", "CapInh")}


class Background:
    """The daemons that were left in the background, and their loggers."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.processes: list[Process] = []

    def look(self) -> Process:
        """Return the daemon that serves the mountpoint."""
        (instance,) = self.place.runtime_dir.glob("*/instance.json")
        pid = json.loads(instance.read_text())["pid"]
        pipe = Path(f"/proc/{pid}/fd/2").readlink()
        found = [pid]
        for fd in Path("/proc").glob("[0-9]*/fd/0"):
            try:
                if fd.readlink() == pipe:
                    found.append(int(fd.parts[2]))
            except OSError:
                continue  # it has ended
        self.processes += map(Process, found)
        assert len(found) == 2, "a daemon and a logger"
        assert identity(found[0]) == identity(found[1]), "the logger has no right of its own"
        return next(each for each in self.processes if each.pid == pid)

    def wait(self) -> None:
        """Wait until all of them have ended, and all is tidy."""
        for process in self.processes:
            process.wait()
        assert list(self.place.runtime_dir.rglob("*")) == []
        assert not is_mounted(self.place.mountpoint)

    def destroy(self) -> None:
        for process in self.processes:
            process.send(signal.SIGKILL)
            process.close()


@pytest.fixture
def background(place: Place) -> Iterator[Background]:
    found = Background(place)
    yield found
    with ExitStack() as stack:
        stack.callback(found.destroy)
        if is_mounted(place.mountpoint):
            run("umount", "--lazy", place.mountpoint)


@pytest.fixture
def mount(_installed: None, background: Background, place: Place) -> Mount:
    """Run mount(8) with these arguments."""

    def mounts(*args: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["mount", *map(str, args)],
            capture_output=True,  # waits for whoever has these open: the daemon must not
            text=True,
            env={**os.environ, "RESTOREFS_RUNTIME_DIR": str(place.runtime_dir)},
            timeout=60,
            check=False,
        )

    return mounts


KIND = ("-t", "fuse.restorefs")
DONE = (0, "", "")


def told(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


def test_a_folder_of_images(
    mount: Mount, background: Background, sample: Sample, place: Place
) -> None:
    options = "rw,nosuid,nodev,noexec,_netdev,nofail,x-systemd.automount,uid=1234,umask=077"
    assert told(mount(*KIND, "-o", options, sample.repository, place.mountpoint)) == DONE
    # It can be used as soon as mount returns.
    about = (place.mountpoint / SMALL).stat()
    assert (about.st_uid, about.st_mode & 0o777) == (1234, 0o600)
    line = mount_line(place.mountpoint)
    assert line is not None
    assert line.split()[-3:-1] == ["fuse.restorefs", str(sample.repository)]
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(line.split()[5].split(","))
    process = background.look()
    asked = restorefs("--runtime-dir", place.runtime_dir, "status", "--json")
    assert asked.json["pid"] == process.pid
    assert Path(f"/proc/{process.pid}/cwd").readlink() == Path("/")
    assert os.getsid(process.pid) == process.pid
    run("umount", place.mountpoint)
    background.wait()
    assert os.listdir(place.mountpoint) == []


def test_a_line_of_fstab(
    mount: Mount, background: Background, sample: Sample, place: Place
) -> None:
    config = place.folder / "main.toml"
    config.write_text(
        f'mountpoint = "/nowhere"\nimages = "{sample.repository}"\nuid = 5\ngid = 6\n'
    )
    fstab = place.folder / "fstab"
    fstab.write_text(f"{config} {place.mountpoint} fuse.restorefs ro,_netdev,nofail,gid=7 0 0\n")
    assert told(mount("-T", fstab, place.mountpoint)) == DONE
    about = (place.mountpoint / SMALL).stat()
    assert (about.st_uid, about.st_gid) == (5, 7)  # the option wins over the file
    background.look()
    # What is mounted is not mounted again.
    assert told(mount("-T", fstab, "-a")) == DONE
    assert run("findmnt", "-rno", "SOURCE", place.mountpoint).splitlines() == [str(config)]
    run("umount", place.mountpoint)
    # Again at once: the first one may not have ended yet.
    assert told(mount("-T", fstab, "-a")) == DONE
    assert (place.mountpoint / SMALL).read_text() == "small\n"
    background.look()
    run("umount", place.mountpoint)
    background.wait()


def test_a_catalog(
    mount: Mount, background: Background, catalog: Path, sample: Sample, place: Place
) -> None:
    options = f"repository={sample.repository},show-system-files"
    url = f"sqlite:///{catalog}"
    assert told(mount(*KIND, "-o", options, url, place.mountpoint)) == DONE
    assert (place.mountpoint / SMALL).read_text() == "small\n"
    process = background.look()
    with closing(sqlite3.connect(catalog)) as database, database:
        database.execute("DELETE FROM backup_disks WHERE backup_job_id = ?", [Sample.other])
        database.execute("DELETE FROM backup_jobs WHERE id = ?", [Sample.other])
    process.send(signal.SIGHUP)
    backups = place.mountpoint / "backups"
    wait_until(lambda: Sample.other not in os.listdir(backups), "it has looked again")
    process.send(signal.SIGTERM)
    background.wait()


def test_another_user(mount: Mount, background: Background, sample: Sample, place: Place) -> None:
    images = place.folder / "images"
    run("cp", "--recursive", sample.repository, images)
    assert told(mount(*KIND, "-o", f"setuid={USER.pw_name}", images, place.mountpoint)) == DONE
    assert (place.mountpoint / SMALL).read_text() == "small\n"
    process = background.look()
    assert set(identity(process.pid)["Uid"]) == {str(USER.pw_uid)}
    run("umount", place.mountpoint)
    background.wait()


def test_after_a_crash(mount: Mount, background: Background, sample: Sample, place: Place) -> None:
    assert told(mount(*KIND, sample.repository, place.mountpoint)) == DONE
    process = background.look()
    process.send(signal.SIGKILL)
    process.wait()
    assert error_of(os.listdir, place.mountpoint) == "ENOTCONN"
    again = mount(*KIND, sample.repository, place.mountpoint)
    assert (again.returncode, again.stdout) == (0, "")
    assert "cleaning up the dead mount" in again.stderr
    assert (place.mountpoint / SMALL).read_text() == "small\n"
    background.look()
    run("umount", place.mountpoint)
    background.wait()


def test_what_is_refused(mount: Mount, sample: Sample, place: Place) -> None:
    images = sample.repository
    for args, code, said in (
        (("-o", "nonsense=1", images), 2, "unknown mount option 'nonsense'; there are allow-"),
        (("-o", "nosymfollow", images), 2, "mount option 'nosymfollow': would take away `latest`"),
        (("-o", "images=/usr", "sqlite:////x.db"), 2, "the backups are in the source already"),
        (("-o", "umask=9", images), 2, "'9' is not an octal mask such as 022"),
        (("-o", "umask", images), 2, "mount option 'umask' takes a value"),
        (("-o", "setuid=no-such-user", images), 2, "there is no user 'no-such-user'"),
        ((place.folder / "none.toml",), 2, "none.toml: No such file or directory"),
        ((f"sqlite:///{place.folder}/none.db",), 1, "none.db: no such file"),
    ):
        done = mount(*KIND, *args, place.mountpoint)
        assert done.returncode == code, done
        assert said in done.stderr
        assert "Error: " in done.stderr
        assert not is_mounted(place.mountpoint)
        assert list(place.runtime_dir.rglob("*")) == []


def test_a_remount(mount: Mount, background: Background, sample: Sample, place: Place) -> None:
    assert told(mount(*KIND, sample.repository, place.mountpoint)) == DONE
    background.look()
    before = mount_line(place.mountpoint)
    done = mount("-o", "remount,ro", place.mountpoint)
    assert done.returncode == 2
    assert "'remount': what is mounted cannot be changed: unmount it" in done.stderr
    assert mount_line(place.mountpoint) == before
    assert (place.mountpoint / SMALL).read_text() == "small\n"
    run("umount", place.mountpoint)
    background.wait()


def test_where_restorefs_is_not_installed(tmp_path: Path) -> None:
    text = HELPER.read_text()
    (path,) = re.findall(r"^PATH=.*$", text, re.MULTILINE)
    helper = tmp_path / "helper"
    helper.write_text(text.replace(path, f"PATH={tmp_path}"))
    done = subprocess.run(
        ["/bin/sh", helper, "/srv/backups", "/mnt"], capture_output=True, text=True, check=False
    )
    assert told(done)[:2] == (2, "")
    assert done.stderr.startswith(f"Error: there is no restorefs in {tmp_path}: make a link")
    assert "/usr/bin/restorefs" in done.stderr


def test_all_but_mount(mount: Mount, sample: Sample, place: Place) -> None:
    assert told(mount(*KIND, "--fake", "-v", sample.repository, place.mountpoint))[0] == 0
    assert not is_mounted(place.mountpoint)


def test_what_it_says_goes_to_the_log(
    background: Background, sample: Sample, place: Place, tmp_path: Path
) -> None:
    """From when it is in the background on; before that, to whoever mounts."""
    written = tmp_path / "written"
    programs = tmp_path / "programs"
    programs.mkdir()
    logger = programs / "logger"
    logger.write_text(f'#!/bin/sh\necho "$@" >{written}\nexec cat >>{written}\n')
    logger.chmod(0o755)
    (place.mountpoint / "hidden").touch()
    done = subprocess.run(
        [
            *(str(RESTOREFS), "--runtime-dir", str(place.runtime_dir)),
            *("mount-helper", str(sample.repository), str(place.mountpoint)),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        timeout=60,
        check=True,
    )
    assert "is not empty" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert (place.mountpoint / SMALL).read_text() == "small\n"
    process = background.look()
    process.send(signal.SIGTERM)
    background.wait()
    (place.mountpoint / "hidden").unlink()
    first, *words = written.read_text().splitlines()
    assert first == "-t restorefs -p daemon.info"
    assert f"INFO attached {Sample.full}/disk1" in words[0]
    assert f"INFO unmounted {place.mountpoint}" in words[-1]


# --- what becomes of a source and of options ------------------------------------------------------


def test_arguments(tmp_path: Path) -> None:
    known = keys_of(mount_command)
    file = "/etc/x.toml"
    for key, option in known.items():
        if isinstance(option, click.Option):  # each is one here too
            name = {"user": "setuid"}.get(key, key)
            text, words = (name, f"--{key}") if option.is_flag else (f"{name}=v", f"--{key}=v")
            assert arguments(file, text, known)[0] == words
    folder = str(tmp_path)
    assert arguments(folder, "rw,relatime,setuid=a", known) == [
        *("--user=a", f"--source={folder}", f"--images={folder}"),
    ]
    # What mount(8) says of who mounts is not whom to become.
    assert arguments(file, "defaults,,user=a,x-mount.mkdir=0755,sync,user", known) == [
        *(f"--source={file}", f"--config={file}"),
    ]
    for options in ("source=x", "config=/x", "help", "mountpoint=/x", "show-system-files=1"):
        with pytest.raises(click.UsageError, match="mount option"):
            arguments("/x", options, known)
    with pytest.raises(click.UsageError, match=r"there are .*, setuid, ") as refused:
        arguments("/x", "nonsense", known)
    assert " user," not in str(refused.value)
    # As mount(8) would ask for it: with all that the mount has.
    with pytest.raises(click.UsageError, match="'remount': what is mounted cannot be changed"):
        arguments("/x", "rw,user_id=0,group_id=0,remount", known)


def test_only_one_source(tmp_path: Path) -> None:
    known = keys_of(mount_command)
    for source in (str(tmp_path), "sqlite:////c.db"):
        for options in ("images=/usr", "catalog=sqlite:////d.db"):
            with pytest.raises(click.UsageError, match="the backups are in the source already"):
                arguments(source, options, known)
    # But an option wins over a file.
    assert "--images=/usr" in arguments("/etc/x.toml", "images=/usr", known)


@pytest.mark.parametrize(
    "secret", ["mysql+pymysql://u:secret@host/d", "mysql://u@host/d?charset=x&password=secret"]
)
def test_where_a_password_is_not_to_be_seen(secret: str) -> None:
    known = keys_of(mount_command)
    # A catalog's URL is in no list of processes, and one with a password in no list of mounts.
    assert arguments("sqlite:////c.db", "ro", known) == ["--source=sqlite:////c.db"]
    assert arguments(secret, "ro", known) == []
    with pytest.raises(click.UsageError, match="'catalog': holds a password") as refused:
        arguments("/etc/x.toml", f"catalog={secret}", known)
    assert "secret" not in str(refused.value)
