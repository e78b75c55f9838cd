"""Who looks: programs that may not, and what is said of those who may."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.mounted.conftest import Serve
from tests.mounted.daemon import restorefs
from tests.mounted.disks import Sample
from tests.tools import require, require_root, run

WEB0, WEB1 = f"{Sample.full}/disk0", f"{Sample.full}/disk1"
# What Explorer, Finder, thumbnailers and shells look for in every folder that they show.
PROBES = (
    "desktop.ini", "Desktop.ini", "Thumbs.db", "autorun.inf", "folder.jpg", "AlbumArtSmall.jpg",
    ".DS_Store", "._.DS_Store", ".hidden", ".Trash", ".Trash-0", ".localized", ".Spotlight-V100",
    ".metadata_never_index", ".directory", ".git", ".svn", ".nomedia", ".snapshot",
    "System Volume Information",
)  # fmt: skip


@pytest.fixture
def indexer(tmp_path: Path) -> Path:
    """A program that walks trees, by a name of its own."""
    path = tmp_path / "updatedb.mlocate-x"  # more than the 15 bytes that the kernel keeps
    shutil.copy("/usr/bin/find", path)
    return path


def walk(program: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program), str(folder)], capture_output=True, text=True, check=False)


def test_a_denied_program_sees_nothing_inside_disks(
    serve: Serve, sample: Sample, indexer: Path
) -> None:
    daemon = serve("--images", sample.repository, "--deny-comm", f"tracker,{indexer.name}")
    walked = walk(indexer, daemon.mountpoint)
    assert walked.returncode != 0
    assert walked.stderr.count("Permission denied") == 4, walked.stderr
    assert str(daemon.backups / WEB0) in walked.stdout, "above the disks it may look"
    assert f"{WEB0}/" not in walked.stdout
    assert daemon.attached() == {}
    assert daemon.children() == []


def test_nor_what_others_have_looked_at(serve: Serve, sample: Sample, indexer: Path) -> None:
    daemon = serve("--images", sample.repository, "--deny-comm", indexer.name)
    folder = daemon.backups / WEB0 / "part3"
    others = run("find", folder).splitlines()
    assert len(others) > 100
    walked = walk(indexer, folder)
    assert walked.returncode != 0
    assert walked.stdout.splitlines() in ([], [str(folder)])
    assert run("find", folder).splitlines() == others


def test_a_thread_of_a_denied_program_is_denied(serve: Serve, sample: Sample) -> None:
    """Threads may have names of their own."""
    script = (
        "import sys, os, threading\n"
        "def look():\n"
        "    open('/proc/self/task/%d/comm' % threading.get_native_id(), 'w').write('pool-1')\n"
        "    try:\n"
        "        os.listdir(sys.argv[1])\n"
        "    except PermissionError:\n"
        "        print('denied')\n"
        "thread = threading.Thread(target=look)\n"
        "thread.start()\n"
        "thread.join()\n"
    )
    python = Path(os.path.realpath("/usr/bin/python3"))
    daemon = serve("--images", sample.repository, "--deny-comm", python.name)
    folder = daemon.backups / WEB0
    assert run(python, "-c", script, folder) == "denied\n"
    assert run("ls", folder).split()


@pytest.mark.parametrize("given", ["", "a,,b", "a/b"])
def test_names_that_cannot_be(given: str, sample: Sample, tmp_path: Path) -> None:
    result = restorefs("mount", "--images", sample.repository, "--deny-comm", given, tmp_path)
    assert result.code == 2
    assert "is not a list of names such as updatedb,mlocate" in result.err


def test_probes_above_the_guests_attach_nothing(serve: Serve, sample: Sample) -> None:
    daemon = serve("--images", sample.repository)
    folders = [daemon.mountpoint, daemon.backups, daemon.mountpoint / "vms"]
    folders += [
        daemon.mountpoint / "vms/web",
        daemon.mountpoint / "vms/web/latest",
        daemon.backups / Sample.full,
    ]
    for folder in folders:
        for probe in PROBES:
            assert not (folder / probe).exists()
        assert os.listxattr(folder) == []
        folder.stat()
        os.statvfs(folder)
        list(folder.iterdir())
    for disk in (daemon.backups / Sample.full).iterdir():
        disk.stat()
        os.listxattr(disk)
        os.access(disk, os.R_OK)
    assert daemon.attached() == {}
    assert daemon.children() == []


def test_who_attached_what_is_known(serve: Serve, sample: Sample) -> None:
    require_root()
    require("setpriv")
    daemon = serve("--images", sample.repository, "--umask", "022")
    nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    run(*nobody, "ls", daemon.backups / WEB0)
    assert daemon.cli("attach", Sample.full, "1").code == 0
    attached = daemon.attached()
    told = attached[WEB0]["attached_for"]
    assert (told["uid"], told["program"]) == (65534, "ls")
    by_api = {"uid": None, "pid": None, "program": "", "client": "uid 0"}
    assert attached[WEB1]["attached_for"] == by_api
    (line,) = daemon.logged(f"attached {WEB0} ")
    assert f"for uid 65534, ls (pid {told['pid']})" in line
    (line,) = daemon.logged(f"attached {WEB1} ")
    assert "for uid 0, over the API" in line
    shown = daemon.cli("status").out
    assert "ls, uid 65534" in shown
    assert "uid 0, over the API" in shown
    daemon.cli("detach", Sample.full, "0")
    assert len(daemon.logged(f"detached {WEB0}: asked to")) == 1


def updatedb(folder: Path, database: Path, prune: str) -> None:
    """Index a folder as the nightly job does. `prune`: types of file systems to leave out."""
    require("updatedb.plocate")
    settings = ("--prunepaths", "", "--prunefs", prune, "--prune-bind-mounts", "no")
    run("updatedb.plocate", *settings, "--database-root", folder, "--output", database)


def indexed(database: Path) -> list[str]:
    return run("plocate", "--database", database, "--existing", "/").splitlines()


def test_updatedb_that_leaves_the_mount_out_attaches_nothing(
    serve: Serve, sample: Sample, tmp_path: Path
) -> None:
    require_root()
    daemon = serve("--images", sample.repository)
    database = tmp_path / "db"
    updatedb(daemon.place.folder, database, "fuse.restorefs")
    assert not [path for path in indexed(database) if "/backups/" in path]
    assert daemon.attached() == {}


def test_updatedb_that_is_denied_attaches_nothing(
    serve: Serve, sample: Sample, tmp_path: Path
) -> None:
    require_root()
    daemon = serve("--images", sample.repository, "--deny-comm", "updatedb.plocate")
    database = tmp_path / "db"
    updatedb(daemon.place.folder, database, "")
    found = indexed(database)
    assert str(daemon.backups / WEB0) in found
    assert not [path for path in found if f"{WEB0}/" in path]
    assert daemon.attached() == {}


def test_updatedb_that_is_not_told_attaches_everything(
    serve: Serve, sample: Sample, tmp_path: Path
) -> None:
    """Or the two tests above would show nothing."""
    require_root()
    daemon = serve("--images", sample.repository)
    database = tmp_path / "db"
    daemon.expect("LUKS")
    updatedb(daemon.place.folder, database, "")
    assert str(daemon.backups / WEB0 / "part3/etc/hostname") in indexed(database)
    assert len(daemon.attached()) == 4
