"""What else is on a mountpoint, or comes to be there: nobody's mount but its own is a daemon's to
unmount."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounted.conftest import Serve
from tests.mounted.daemon import RESTOREFS, Daemon, Place, is_mounted, mount_line, restorefs
from tests.mounted.disks import Sample
from tests.mounted.reading import error_of
from tests.tools import require_root, run, wait_until

WEB1 = f"{Sample.full}/disk1"


@pytest.fixture
def elsewhere(place: Place) -> Iterator[Place]:
    """The same mountpoint, for a daemon that has its sockets somewhere else."""
    require_root()  # to mount what is somebody else's
    other = Place()
    own = other.mountpoint
    other.mountpoint = place.mountpoint
    yield other
    other.mountpoint = own
    other.remove()


def mount_theirs(folder: Path) -> None:
    run("mount", "-t", "tmpfs", "theirs", folder)
    (folder / "precious").write_text("theirs\n")


def left_open(daemon: Daemon) -> int:
    """Unmount it while a file is open, and return that: the daemon goes on for it alone."""
    fd = os.open(daemon.backups / WEB1 / "big", os.O_RDONLY)
    run("umount", "--lazy", daemon.mountpoint)
    assert os.read(fd, 4096)
    return fd


# --- at the end ----------------------------------------------------------------------------------


def test_what_came_after_it_stays(serve: Serve, sample: Sample, place: Place) -> None:
    require_root()
    daemon = serve("--images", sample.repository, place=place)
    fd = left_open(daemon)
    mount_theirs(place.mountpoint)
    os.close(fd)  # the last one: the file system ends
    daemon.process.wait()
    assert (place.mountpoint / "precious").read_text() == "theirs\n"
    run("umount", place.mountpoint)
    daemon.check()


def test_a_daemon_that_came_after_it_stays(
    serve: Serve, sample: Sample, place: Place, elsewhere: Place
) -> None:
    daemon = serve("--images", sample.repository, place=place)
    fd = left_open(daemon)
    after = serve("--images", sample.repository, place=elsewhere)
    os.close(fd)
    daemon.process.wait()
    assert (after.backups / WEB1 / "small").read_text() == "small\n"
    after.check()
    daemon.check()


def test_what_lies_over_it_stays(serve: Serve, sample: Sample, place: Place) -> None:
    require_root()
    daemon = serve("--images", sample.repository, place=place)
    mount_theirs(place.mountpoint)
    daemon.expect(
        rf"WARNING not unmounting {place.mountpoint}: something else \(tmpfs\) is mounted there"
    )
    daemon.stop()
    assert (place.mountpoint / "precious").read_text() == "theirs\n"
    run("umount", place.mountpoint)
    assert error_of(os.listdir, place.mountpoint) == "ENOTCONN"  # as after any other end
    run("umount", place.mountpoint)
    daemon.check()


def test_a_mount_that_the_kernel_ends_stays_dead(
    serve: Serve, sample: Sample, place: Place
) -> None:
    require_root()
    daemon = serve("--images", sample.repository, place=place)
    line = mount_line(place.mountpoint)
    assert line is not None
    connection = Path("/sys/fs/fuse/connections", line.split()[2].partition(":")[2])
    daemon.expect(f"^Error: {place.mountpoint} is still mounted, and dead")
    (connection / "abort").write_text("1")
    daemon.process.wait()
    assert error_of(os.listdir, place.mountpoint) == "ENOTCONN"
    assert list(place.runtime_dir.iterdir()) == []
    daemon.kill()  # to the harness: an end that is not a clean one
    after = serve("--images", sample.repository, place=place)
    after.expect("WARNING cleaning up the dead mount")
    after.check()


# --- at the start --------------------------------------------------------------------------------


def test_only_one_daemon_cleans_up(
    serve: Serve, sample: Sample, place: Place, elsewhere: Place
) -> None:
    """Or the one that is slower would unmount what the other has mounted."""
    with socket.create_server(("127.0.0.1", 0)) as database:
        url = f"mysql+pymysql://u@127.0.0.1:{database.getsockname()[1]}/catalog"
        first = Daemon(place, "--catalog", url)
        try:
            asked, _ = database.accept()  # and answers nothing
            with asked, first.process.stopped():
                crashing = serve("--images", sample.repository, place=elsewhere)
                crashing.kill()
                second = Daemon(place, "--images", sample.repository)
                try:
                    second.wait_logged(f"waiting until process {first.pid} has let go of")
                    assert is_mounted(place.mountpoint)
                    assert second.logged("cleaning up") == []
                finally:
                    second.destroy()
        finally:
            first.destroy()


def test_a_folder_in_a_dead_mount(serve: Serve, sample: Sample, place: Place) -> None:
    daemon = serve("--images", sample.repository, place=place)
    daemon.kill()
    for below in (place.mountpoint / "backups", place.mountpoint / "a/b"):
        done = restorefs(
            *("--runtime-dir", place.runtime_dir, "mount", "--images", sample.repository, below)
        )
        assert done.code == 1
        assert done.err == (
            f"Error: cannot mount on {below}: the mount (fuse.restorefs) on {place.mountpoint} is"
            " dead: unmount it\n"
        )
    assert is_mounted(place.mountpoint)
    assert list(place.runtime_dir.iterdir()) != []  # of the one that was killed


def test_a_log_that_takes_nothing(sample: Sample, place: Place) -> None:
    command = ("--runtime-dir", place.runtime_dir, "mount", "--images", sample.repository)
    with Path("/dev/full").open("w") as full:
        daemon = subprocess.Popen(
            [RESTOREFS, *command, place.mountpoint], stdin=subprocess.DEVNULL, stderr=full
        )
    try:
        wait_until(lambda: is_mounted(place.mountpoint), "it is mounted")
        assert (place.mountpoint / "backups" / WEB1 / "small").read_text() == "small\n"
        wait_until(lambda: list(place.runtime_dir.glob("*/control.sock")), "it can be asked")
        asked = restorefs("--runtime-dir", place.runtime_dir, "status", "--json")
        assert asked.json["pid"] == daemon.pid
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait()
    assert not is_mounted(place.mountpoint)
    assert list(place.runtime_dir.iterdir()) == []
