"""The command line, with a daemon and without, as root and as anybody."""

# ruff: noqa: PTH208 - system calls

import json
import os
import pwd
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from restorefs.cli import main
from tests.mounted.conftest import Serve
from tests.mounted.daemon import RESTOREFS, Daemon, Place, is_mounted, restorefs, served
from tests.mounted.disks import Sample
from tests.mounted.reading import error_of
from tests.tools import require, require_root, run

WEB0 = f"{Sample.full}/disk0"
WEB1 = f"{Sample.full}/disk1"
COMMANDS = (
    ["mount"],
    ["scan"],
    ["catalog"],
    ["catalog", "migrate"],
    ["status"],
    ["disks"],
    ["attach"],
    ["detach"],
    ["check"],
)


@pytest.fixture(scope="module")
def shared(sample: Sample) -> Iterator[Daemon]:
    with served("--images", sample.repository) as daemon:
        yield daemon


@pytest.fixture
def daemon(shared: Daemon) -> Daemon:
    """A daemon without anything attached."""
    for name in shared.attached():
        backup, _, disk = name.rpartition("/")
        assert shared.cli("detach", backup, disk).code == 0
    return shared


# --- help and arguments --------------------------------------------------------------------------


def test_help() -> None:
    top = CliRunner().invoke(main, ["--help"], prog_name="restorefs")
    assert top.exit_code == 0
    for command in COMMANDS:
        done = CliRunner().invoke(main, [*command, "--help"], prog_name="restorefs")
        assert done.exit_code == 0
        assert done.output.startswith(f"Usage: restorefs {' '.join(command)} ")
        assert len(done.output.splitlines()) > 5
        assert max(map(len, done.output.splitlines())) <= 100
        if len(command) == 1:
            assert re.search(rf"^  {command[0]}  +\w", top.output, re.MULTILINE)
    assert restorefs("-h").out.startswith("Usage: restorefs [OPTIONS] COMMAND")
    assert re.fullmatch(r"restorefs, version \d+\.\d+\.\d+\n", restorefs("--version").out)


@pytest.mark.parametrize(
    "args",
    [
        ["nonsense"],
        ["mount"],
        ["mount", "--images"],
        ["mount", "--idle-timeout", "soon", "/mnt"],
        ["mount", "--cache-size", "much", "/mnt"],
        ["mount", "--umask", "9", "/mnt"],
        ["mount", "--max-attached", "0", "/mnt"],
        ["scan", "/nowhere", "--catalog", "sqlite:///c.db"],
        ["disks"],
        ["attach", "backup"],
        ["attach", "backup", "first"],
        ["status", "--xml"],
    ],
    ids=" ".join,
)
def test_wrong_arguments(args: list[str]) -> None:
    done = CliRunner().invoke(main, args, prog_name="restorefs")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "Usage: restorefs " in done.stderr or "Error: " in done.stderr


def test_no_daemon(place: Place) -> None:
    for command in (["status"], ["disks", "b"], ["attach", "b", "0"], ["detach", "b", "0"]):
        done = restorefs("--runtime-dir", place.runtime_dir, *command)
        assert done.code == 1
        assert str(place.runtime_dir) in done.err
        assert "restorefs mount" in done.err
        done = restorefs("--runtime-dir", place.runtime_dir, "--mount", "/nowhere", *command)
        assert done.code == 1
        assert done.err == "Error: no restorefs serves /nowhere\n"


# --- asking a daemon -----------------------------------------------------------------------------


def test_status(daemon: Daemon, sample: Sample) -> None:
    empty = daemon.cli("status", "--json").json
    assert empty["pid"] == daemon.pid
    assert empty["mountpoint"] == str(daemon.mountpoint)
    assert (empty["backups"], empty["disks"], empty["attached"]) == (3, 4, [])
    os.listdir(daemon.backups / WEB0)
    shown = daemon.cli("status", "--json").json
    (disk,) = shown["attached"]
    assert (disk["backup_id"], disk["disk_index"]) == (sample.full, 0)
    assert disk["filesystems"] == ["vfat", "ext4", "swap", "crypto_LUKS"]
    assert disk["qemu_nbd_pid"] in daemon.children()
    assert disk["attached_at"] <= disk["last_accessed_at"] < disk["expires_at"]
    assert disk["bytes_read"] > 0
    text = daemon.cli("status")
    assert text.code == 0
    assert f"at {daemon.mountpoint} (pid {daemon.pid})" in text.out
    assert str(sample.repository) in text.out
    assert re.search(rf"^{sample.full} +disk0 +vfat ext4 swap crypto_LUKS ", text.out, re.MULTILINE)
    assert text.err == ""


def test_disks(daemon: Daemon, sample: Sample) -> None:
    shown = daemon.cli("disks", sample.full, "--json").json
    assert shown["vm_name"] == "web"
    assert shown["created_at"] == "2023-11-14T22:13:20Z"
    first, second = shown["disks"]
    assert (first["table"], second["table"]) == ("gpt", "none")
    assert first["qcow2_path"] == str(sample.repository / f"{WEB0}.qcow2")
    image = json.loads(run("qemu-img", "info", "--output=json", first["qcow2_path"]))
    assert first["size"] == image["virtual-size"]
    found = {volume["index"]: volume for volume in first["volumes"]}
    assert [volume["filesystem"] for volume in first["volumes"]] == [
        *(None, "vfat", "ext4", "swap", "crypto_LUKS", None, None)
    ]
    assert [volume["name"] for volume in first["volumes"] if volume["folder"]] == [
        *("part2", "part3", "part5")
    ]
    assert found[2]["label"] == "EFI"
    assert found[3]["label"] == "root"
    assert found[3]["readable"]
    assert found[5]["encrypted"]
    assert second["volumes"][0]["filesystem"] == "ext4"
    text = daemon.cli("disks", sample.full)
    assert text.code == 0
    for words in ("EFI system", "vfat", "encrypted: needs a key", "(the disk)"):
        assert words in text.out
    mbr = daemon.cli("disks", sample.other, "--json").json["disks"][0]
    assert mbr["table"] == "mbr"
    assert [v["name"] for v in mbr["volumes"] if v["folder"]] == ["part1", "part5"]
    assert daemon.attached().keys() == {WEB0, WEB1, f"{sample.other}/disk0"}


def test_attach_and_detach(daemon: Daemon, sample: Sample) -> None:
    done = daemon.cli("attach", sample.full, "disk1")
    assert (done.code, done.out) == (0, f"attached {WEB1}: one file system\n")
    assert daemon.attached().keys() == {WEB1}
    done = daemon.cli("attach", sample.full, "0", "--json")
    assert done.json["disk_index"] == 0
    assert len(daemon.children()) == 2
    done = daemon.cli("attach", sample.full, "0")  # again
    assert (done.code, done.out) == (0, f"attached {WEB0}: part2 part3 part5\n")
    with (daemon.backups / WEB1 / "small").open() as file:
        done = daemon.cli("detach", sample.full, "1")
        assert (done.code, done.out) == (0, f"detached {WEB1}\n")
        assert daemon.attached().keys() == {WEB0}
        assert file.read() == "small\n"
    done = daemon.cli("detach", sample.full, "0", "--json")
    assert done.json == {"backup_id": sample.full, "disk_index": 0, "detached": True}
    done = daemon.cli("detach", sample.full, "0")
    assert (done.code, done.out) == (0, f"was not attached: {WEB0}\n")


def test_what_is_not_there(daemon: Daemon, sample: Sample) -> None:
    for args, words in (
        (["disks", "nobody"], "there is no backup 'nobody'"),
        (["disks", "a/../b%2F"], "there is no backup 'a/../b%2F'"),
        (["disks", ""], "there is no backup ''"),
        (["attach", "nobody", "0"], "there is no backup 'nobody'"),
        (["attach", sample.full, "7"], f"{sample.full} has no disk 7; it has 0, 1"),
        (["detach", sample.full, "7"], f"{sample.full} has no disk 7; it has 0, 1"),
    ):
        done = daemon.cli(*args, "--json")
        assert done.code == 1, args
        assert done.out == ""
        assert words in done.err
        assert done.err.startswith("Error: ")
        assert len(done.err.splitlines()) == 1
    assert daemon.children() == []


def test_completion_of_backups(daemon: Daemon, sample: Sample) -> None:
    def completed(*words: str, runtime_dir: Path = daemon.place.runtime_dir) -> list[str]:
        line = " ".join(["restorefs", "--runtime-dir", str(runtime_dir), *words])
        done = restorefs(
            env={
                "_RESTOREFS_COMPLETE": "bash_complete",
                "COMP_WORDS": line,
                "COMP_CWORD": str(line.count(" ")),
            }
        )
        return [each.partition(",")[2] for each in done.out.splitlines() if each]

    assert completed("disks", "backup-web") == [sample.full, sample.incremental]
    assert completed("attach", "backup-d") == [sample.other]
    assert completed("detach", "nobody") == []
    assert completed("disks", "backup-web", runtime_dir=Path("/nowhere")) == []
    assert completed("sta") == ["status"]
    by_variable = restorefs(
        env={
            "RESTOREFS_RUNTIME_DIR": str(daemon.place.runtime_dir),
            "_RESTOREFS_COMPLETE": "bash_complete",
            "COMP_WORDS": "restorefs disks backup-d",
            "COMP_CWORD": "2",
        }
    )
    assert by_variable.out == f"plain,{sample.other}\n"
    assert daemon.children() == []


def test_by_environment(daemon: Daemon) -> None:
    env = {
        "RESTOREFS_RUNTIME_DIR": str(daemon.place.runtime_dir),
        "RESTOREFS_MOUNT": str(daemon.mountpoint),
    }
    assert restorefs("status", "--json", env=env).json["pid"] == daemon.pid


def test_a_relative_mountpoint(serve: Serve, sample: Sample, place: Place) -> None:
    daemon = serve("--images", sample.repository, place=place)
    by_folder = restorefs(
        *("--runtime-dir", "run", "--mount", "mnt", "status", "--json"), cwd=place.folder
    )
    assert by_folder.json["pid"] == daemon.pid
    inside = ("--runtime-dir", "../run", "--mount", ".", "status", "--json")
    assert restorefs(*inside, cwd=place.mountpoint).json["pid"] == daemon.pid
    below = ("--runtime-dir", place.runtime_dir, "--mount", "..", "status", "--json")
    assert restorefs(*below, cwd=place.mountpoint / "vms").json["pid"] == daemon.pid


def test_odd_names(sample: Sample, place: Place, tmp_path: Path) -> None:
    """Of backups and of the mountpoint; nothing in them is taken for markup or for a command."""
    name = "[red]ba ckup\x1b[31m 'ü'%2F"
    folder = tmp_path / "repository" / name
    folder.mkdir(parents=True)
    os.link(sample.repository / f"{WEB1}.qcow2", folder / "disk0.qcow2")
    place.mountpoint.rmdir()
    place.mountpoint = place.folder / "mnt 'ü' \\040\t-"
    place.mountpoint.mkdir()
    with served("--images", folder.parent, place=place) as daemon:
        assert os.listdir(daemon.backups) == [name]
        assert (daemon.backups / name / "disk0" / "small").read_text() == "small\n"
        shown = daemon.cli("disks", name, "--json").json
        assert shown["backup_id"] == name
        text = daemon.cli("disks", name)
        assert "[red]ba ckup" in text.out
        assert "\x1b" not in text.out + daemon.cli("status").out
        assert daemon.cli("detach", name, "0").code == 0
        found = daemon.cli("--mount", place.mountpoint, "status", "--json")
        assert found.json["mountpoint"] == str(place.mountpoint)


def test_a_backup_id_with_slashes(serve: Serve, sample: Sample, catalog: Path) -> None:
    name = "job/../of%2F today"
    with closing(sqlite3.connect(catalog)) as database, database:
        for table, column in (("backup_jobs", "id"), ("backup_disks", "backup_job_id")):
            sql = f"UPDATE {table} SET {column} = ? WHERE {column} = ?"
            database.execute(sql, [name, sample.full])
    daemon = serve("--catalog", f"sqlite:///{catalog}", "--repository", sample.repository)
    (folder,) = set(os.listdir(daemon.backups)) - {sample.other, sample.incremental}
    assert folder == "job%2F..%2Fof%252F today"
    assert (daemon.backups / folder / "disk1" / "small").read_text() == "small\n"
    assert daemon.cli("disks", name, "--json").json["backup_id"] == name
    assert daemon.cli("attach", name, "0").code == 0
    assert daemon.cli("detach", name, "0").out == f"detached {name}/disk0\n"


def test_a_backup_whose_name_is_no_text(sample: Sample, tmp_path: Path, serve: Serve) -> None:
    name = os.fsdecode(b"gr\xf6\xdfe")
    folder = tmp_path / "repository" / name
    folder.mkdir(parents=True)
    os.link(sample.repository / f"{WEB1}.qcow2", folder / "disk0.qcow2")
    daemon = serve("--images", tmp_path / "repository")
    daemon.expect("ERROR .*not UTF-8")
    assert os.listdir(daemon.backups) == [name]
    # qemu-nbd cannot be told of such a name; everything says so, and nothing falls over.
    assert error_of(os.listdir, daemon.backups / name / "disk0") == "EIO"
    assert b"UTF-8" in os.getxattr(daemon.backups / name / "disk0", "user.restorefs.error")
    assert "UTF-8" in daemon.cli("status").out
    assert len(daemon.cli("status", "--json").json["failures"]) == 1
    asked = daemon.cli("disks", name)
    assert asked.code == 1
    assert "not UTF-8" in asked.out


# --- without a daemon ----------------------------------------------------------------------------


def test_check(sample: Sample, place: Place, tmp_path: Path) -> None:
    how = ("--runtime-dir", place.runtime_dir, "check")
    machine = restorefs(*how)
    assert machine.code == 0, machine
    for subject in ("qemu-nbd", "setpriv", "fusermount3", "python nbd", "/dev/fuse"):
        assert f"ok   {subject}: " in machine.out
    whole = restorefs(*how, "--images", sample.repository, "--json")
    assert whole.code == 0
    findings = {finding["subject"]: finding for finding in whole.json}
    assert all(finding["ok"] for finding in findings.values())
    assert "2 images in its chain" in findings[f"{sample.incremental}/disk0"]["detail"]
    assert findings[WEB0]["detail"].startswith(str(sample.repository))
    catalog = tmp_path / "catalog.db"
    url = f"sqlite:///{catalog}"
    assert restorefs("scan", sample.repository, "--catalog", url).code == 0
    # The incremental's base lies in another backup's folder: that must be allowed.
    refused = restorefs(*how, "--catalog", url)
    assert refused.code == 1
    assert f"FAIL {sample.incremental}/disk0: " in refused.out
    assert "--repository" in refused.out
    allowed = restorefs(*how, "--catalog", url, "--repository", sample.repository)
    assert allowed.code == 0, allowed
    assert list(place.runtime_dir.iterdir()) == []


def test_scan(sample: Sample, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new/catalog.db"
    first = restorefs("scan", sample.repository, "--catalog", url)
    assert first.code == 0
    assert f"{sample.repository}: 3 backups, 4 disks (4 new" in first.out
    again = restorefs("scan", sample.repository, "--catalog", url, "--json").json
    assert (again["backups"], again["disks"]) == (3, 4)
    assert again["added"] == again["skipped"] == []
    empty = tmp_path / "empty"
    empty.mkdir()
    assert restorefs("scan", empty, "--catalog", url).code == 0
    mariadb = restorefs("scan", sample.repository, "--catalog", "mysql+pymysql://u:secret@h/d")
    assert mariadb.code == 2
    assert "secret" not in mariadb.err


def test_output_that_nobody_reads(daemon: Daemon, sample: Sample) -> None:
    """`restorefs disks | head -1`: an end, not a traceback."""
    line = f"'{RESTOREFS}' --runtime-dir {daemon.place.runtime_dir} disks {sample.full} --json"
    done = subprocess.run(
        ["sh", "-c", f"{line} | head -c 1"], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("{", "")


# --- as anybody ----------------------------------------------------------------------------------


ANYBODY = pwd.getpwnam("nobody")
AS_ANYBODY = (
    *("setpriv", f"--reuid={ANYBODY.pw_uid}", f"--regid={ANYBODY.pw_gid}", "--clear-groups"),
)


@pytest.fixture
def anybody() -> Iterator[Place]:
    """A mountpoint and a runtime folder of an unprivileged user, who mounts by fusermount3."""
    require_root()  # to become somebody else
    require("setpriv", "fusermount3")
    tried = subprocess.run(
        [*AS_ANYBODY, str(RESTOREFS), "--version"], capture_output=True, text=True, check=False
    )
    if tried.returncode != 0:
        pytest.skip(f"{ANYBODY.pw_name} cannot run {RESTOREFS}: {tried.stderr.strip()}")
    place = Place(ANYBODY.pw_name)
    yield place
    place.remove()


def test_as_an_unprivileged_user(anybody: Place, sample: Sample) -> None:
    images = anybody.folder / "images"
    run("cp", "--recursive", sample.repository, images)
    with served("--images", images, place=anybody, prefix=AS_ANYBODY) as daemon:

        def seen(*command: str | Path) -> str:
            return run(*AS_ANYBODY, *command)

        assert is_mounted(daemon.mountpoint)
        assert error_of(os.listdir, daemon.mountpoint) == "EACCES"  # not even root, but its owner
        assert seen("ls", daemon.backups / WEB0) == "part2\npart3\npart5\n"
        assert seen("cat", daemon.backups / WEB0 / "part3/etc/hostname") == "web\n"
        (child,) = daemon.children()
        assert Path(f"/proc/{child}").stat().st_uid == ANYBODY.pw_uid
        assert daemon.cli("status", "--json").json["pid"] == daemon.pid
        # Root may ask it too.
        assert restorefs("--runtime-dir", anybody.runtime_dir, "status").code == 0
        daemon.check()


def test_a_stranger_may_not_ask(daemon: Daemon, anybody: Place) -> None:
    of_another, open_to_all = anybody.folder / "of-another", anybody.folder / "open-to-all"
    of_another.mkdir(mode=0o700)
    os.chown(of_another, 12_345, 12_345)
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    for runtime_dir, words in (
        (daemon.place.runtime_dir, "only the daemon's own user and root may ask it"),
        (anybody.runtime_dir, "no restorefs is running"),
        (of_another, "belongs to 12345: only that user and root may ask its daemons"),
        (open_to_all, "may be written by others: not trusted"),
    ):
        asked = restorefs("--runtime-dir", runtime_dir, "status", prefix=AS_ANYBODY)
        assert asked.code == 1
        assert words in asked.err


def test_an_unprivileged_crash_is_cleaned_up(anybody: Place, sample: Sample) -> None:
    images = anybody.folder / "images"
    run("cp", "--recursive", sample.repository, images)
    with served("--images", images, place=anybody, prefix=AS_ANYBODY) as daemon:
        run(*AS_ANYBODY, "ls", daemon.backups / WEB0)
        daemon.kill()
        assert is_mounted(daemon.mountpoint)
        with served("--images", images, place=anybody, prefix=AS_ANYBODY) as after:
            after.expect("WARNING cleaning up the dead mount")
            assert run(*AS_ANYBODY, "cat", after.backups / WEB1 / "small") == "small\n"


def test_a_mountpoint_that_is_not_ones_own(anybody: Place, sample: Sample) -> None:
    images = anybody.folder / "images"
    run("cp", "--recursive", sample.repository, images)
    mountpoint = anybody.folder / "of-root"
    mountpoint.mkdir()
    done = restorefs(
        *("--runtime-dir", anybody.runtime_dir, "mount", "--images", images, mountpoint),
        prefix=AS_ANYBODY,
    )
    assert not is_mounted(mountpoint)
    assert done.code == 1  # it may go well another time, and no argument is wrong
    assert done.err.startswith(f"Error: cannot mount on {mountpoint}: fusermount3: ")
    assert list(anybody.runtime_dir.iterdir()) == []


def test_a_mountpoint_that_one_cannot_read(anybody: Place, sample: Sample) -> None:
    images = anybody.folder / "images"
    run("cp", "--recursive", sample.repository, images)
    anybody.mountpoint.chmod(0o300)
    with served("--images", images, place=anybody, prefix=AS_ANYBODY) as daemon:
        assert run(*AS_ANYBODY, "cat", daemon.backups / WEB1 / "small") == "small\n"
        # Root is not let in either, and it is not for want of a folder.
        done = restorefs(
            *("--runtime-dir", anybody.folder, "mount", "--images", images, anybody.mountpoint)
        )
        assert done.code == 1
        assert done.err == (
            f"Error: something (fuse.restorefs) is mounted on {anybody.mountpoint} already\n"
        )
        daemon.check()


def test_images_that_are_not_ones_own(anybody: Place, sample: Sample) -> None:
    images = anybody.folder / "images"
    run("cp", "--recursive", sample.repository, images)
    (images / f"{WEB1}.qcow2").chmod(0o600)
    with served("--images", images, place=anybody, prefix=AS_ANYBODY) as daemon:
        daemon.expect("WARNING cannot read .*disk[01].qcow2: Permission denied")
        assert run(*AS_ANYBODY, "ls", daemon.backups / Sample.full) == "disk0\n"
        assert f"CANNOT READ {images / WEB1}.qcow2: Permission denied" in daemon.cli("status").out
        # What was there and cannot be read any more has not gone.
        (images / f"{WEB0}.qcow2").chmod(0o600)
        daemon.expect(f"ERROR {WEB0}: .*Permission denied")
        assert "0 gone" in daemon.cli("reload").out
        assert run(*AS_ANYBODY, "ls", daemon.backups / Sample.full) == "disk0\n"
        looked = subprocess.run(
            [*AS_ANYBODY, "ls", daemon.backups / WEB0], capture_output=True, text=True, check=False
        )
        assert looked.returncode != 0
        assert "Input/output error" in looked.stderr
        for name in (WEB0, WEB1):
            (images / f"{name}.qcow2").chmod(0o644)
        assert daemon.cli("reload").code == 0
        assert daemon.status()["catalog_unread"] == []
        assert run(*AS_ANYBODY, "ls", daemon.backups / Sample.full) == "disk0\ndisk1\n"


def test_a_backups_folder_that_cannot_be_read_any_more(anybody: Place, sample: Sample) -> None:
    """What is attached stays attached."""
    images = anybody.folder / "images"
    run("cp", "--recursive", sample.repository, images)
    with served("--images", images, place=anybody, prefix=AS_ANYBODY) as daemon:
        assert run(*AS_ANYBODY, "cat", daemon.backups / WEB0 / "part3/etc/hostname") == "web\n"
        folder = images / Sample.full
        folder.chmod(0o700)
        daemon.expect(f"WARNING cannot read {folder}: Permission denied")
        assert daemon.cli("reload").out == "3 backups, 4 disks: 0 new, 0 gone\n"
        assert daemon.status()["catalog_unread"] == [f"{folder}: Permission denied"]
        assert daemon.status()["catalog_error"] is None
        assert daemon.attached().keys() == {WEB0}
        assert "app.5.log\n" in run(*AS_ANYBODY, "ls", daemon.backups / WEB0 / "part3/var/log")
        command = ("--runtime-dir", anybody.runtime_dir, "check", "--images", images)
        checked = restorefs(*command, prefix=AS_ANYBODY)
        assert checked.code == 1
        assert f"FAIL {folder}: Permission denied" in checked.out
        folder.rename(images / ".away")
        daemon.expect(f"WARNING cannot read {images}/.away: Permission denied")
        assert daemon.cli("reload").out.startswith(f"- {Sample.full}\n")
        daemon.wait_logged(f"detached {WEB0}: it left the catalog")
