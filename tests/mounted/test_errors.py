"""What goes wrong, and what the user sees: the errno of the system call, the reason in the log
(once), in the attribute of the disk's folder, and from the command line."""

# ruff: noqa: PTH101, PTH102, PTH104, PTH106, PTH108, PTH115, PTH208, PTH211 - system calls

import os
import re
import signal
import sqlite3
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.images import tree
from tests.images.ext import file_blocks, inode_offset, patch, peek
from tests.images.signatures import SAMPLES
from tests.images.tables import Gpt, entry
from tests.mounted.conftest import Serve
from tests.mounted.daemon import SECONDS, Daemon, restorefs
from tests.mounted.disks import (
    LINUX,
    MIB,
    Sample,
    copy_of,
    ext,
    gpt,
    image_on_bad_storage,
    qcow2,
)
from tests.mounted.reading import digests, error_of, reading
from tests.tools import run, wait_until

WEB0 = f"{Sample.full}/disk0"
WEB1 = f"{Sample.full}/disk1"
OTHER = f"{Sample.other}/disk0"
XATTR = "user.restorefs.error"


def told(daemon: Daemon, disk: str, *words: str) -> str:
    """Return the reason of a disk's failure; it must be told in every place, once in the log."""
    assert os.listxattr(daemon.backups / disk) == [XATTR]
    reason = os.getxattr(daemon.backups / disk, XATTR).decode()
    backup, _, index = disk.rpartition("/disk")
    failures = daemon.status()["failures"]
    (failure,) = (
        each for each in failures if (each["backup_id"], str(each["disk_index"])) == (backup, index)
    )
    assert failure["reason"] == reason
    assert f"! {disk}: {reason}" in daemon.cli("status").out
    lines = [line for line in daemon.lines if line.endswith(f"{disk}: {reason}")]
    assert len(lines) == 1, lines
    for word in words:
        assert word in reason
    return reason


# --- what is not there ---------------------------------------------------------------------------


def test_what_is_not_there_attaches_nothing(serve: Serve, sample: Sample) -> None:
    daemon = serve("--images", sample.repository)
    for path in (
        "desktop.ini",
        "backups/.DS_Store",
        "backups/nobody-knows-me",
        "backups/nobody-knows-me/disk0/part1",
        f"backups/{sample.full}/disk7",
        f"backups/{sample.full}/desktop.ini",
        "vms/nobody",
        "vms/web/1970-01-01T000000Z",
    ):
        assert error_of(os.stat, daemon.mountpoint / path) == "ENOENT", path
        assert error_of(os.listdir, daemon.mountpoint / path) == "ENOENT", path
    assert daemon.children() == []
    assert daemon.attached() == {}


def test_a_name_that_a_disk_does_not_have(serve: Serve, sample: Sample) -> None:
    daemon = serve("--images", sample.repository)
    for path in ("part99", "part3/etc/nobody", "desktop.ini", "part3/desktop.ini"):
        for _ in range(2):
            assert error_of(os.stat, daemon.backups / WEB0 / path) == "ENOENT"
    assert error_of(os.getxattr, daemon.backups / WEB0, XATTR) == "ENODATA"
    assert daemon.status()["failures"] == []


# --- images that cannot be served ----------------------------------------------------------------


def test_a_missing_image(serve: Serve, sample: Sample, tmp_path: Path) -> None:
    repository = copy_of(sample.repository, tmp_path)
    daemon = serve("--images", repository)
    image = repository / f"{WEB0}.qcow2"
    image.rename(tmp_path / "away")
    folder = daemon.backups / WEB0
    daemon.expect("ERROR .*No such file")
    assert folder.is_dir()
    assert error_of(os.getxattr, folder, XATTR) == "ENODATA"
    for _ in range(3):
        assert error_of(os.listdir, folder) == "EIO"
        assert error_of(os.stat, folder / "part3") == "EIO"
    told(daemon, WEB0, str(image), "No such file")
    assert (daemon.backups / WEB1 / "small").read_text() == "small\n"
    done = daemon.cli("disks", sample.full)
    assert done.code == 1
    assert str(image) in done.out
    assert "part3" not in done.out
    assert "ext4" in done.out  # the other disk is shown all the same

    (tmp_path / "away").rename(image)
    assert (folder / "part3" / "etc" / "hostname").read_text() == "web\n"
    assert error_of(os.getxattr, folder, XATTR) == "ENODATA"
    assert daemon.status()["failures"] == []


def test_truncated_images(serve: Serve, sample: Sample, tmp_path: Path) -> None:
    whole = sample.repository / f"{WEB1}.qcow2"
    size = whole.stat().st_size
    lengths = (0, 40_000, size // 3, size - 65_536, size)
    images = {}
    for length in lengths:
        images[length] = tmp_path / "repository" / f"b{length}" / "disk0.qcow2"
        images[length].parent.mkdir(parents=True)
        run("cp", whole, images[length])
    daemon = serve("--images", tmp_path / "repository")
    for length, image in images.items():
        os.truncate(image, length)
    for length in lengths[:-1]:
        folder = daemon.backups / f"b{length}" / "disk0"
        daemon.expect(f"ERROR b{length}/disk0: ")
        assert error_of(os.listdir, folder) == "EIO"
        assert error_of((folder / "small").read_bytes) == "EIO"
        told(daemon, f"b{length}/disk0", str(images[length]))
    assert (daemon.backups / f"b{size}" / "disk0" / "small").read_text() == "small\n"
    checked = restorefs("check", "--images", tmp_path / "repository")
    assert checked.code == 1
    assert f"ok   b{size}/disk0" in checked.out
    for length in lengths[1:-1]:
        assert f"FAIL b{length}/disk0: {images[length]}" in checked.out
    # A file cut to nothing is no image any more: skipped, as `scan` skips it.
    assert str(images[0]) in checked.err


def test_a_folder_that_is_opened_as_a_file(serve: Serve, sample: Sample) -> None:
    """As NFS servers do to ask for attributes: only listing it gives the error."""
    daemon = serve("--images", sample.repository)
    daemon.expect(f"WARNING {WEB0}.*LUKS")
    folder = daemon.backups / WEB0 / "part5"
    assert error_of(os.open, folder, os.O_RDONLY | os.O_DIRECTORY) == "ENOKEY"
    for _ in range(2):
        fd = os.open(folder, os.O_RDONLY)
        try:
            assert stat.S_ISDIR(os.fstat(fd).st_mode)
            assert error_of(os.listdir, fd) == "ENOKEY"
            assert error_of(os.listdir, fd) == "ENOKEY"
        finally:
            os.close(fd)
    assert error_of(os.listdir, folder) == "ENOKEY"


def test_a_chain_that_leaves_the_repository(serve: Serve, sample: Sample, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    outside = tmp_path / "outside.qcow2"
    outside.write_bytes((sample.repository / f"{WEB1}.qcow2").read_bytes())
    image = repository / "b1" / "disk0.qcow2"
    image.parent.mkdir(parents=True)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", outside, image)
    daemon = serve("--images", repository)
    daemon.expect("ERROR .*outside of the repository")
    assert error_of(os.listdir, daemon.backups / "b1" / "disk0") == "EIO"
    told(daemon, "b1/disk0", str(outside), str(image), "--repository")
    assert daemon.children() == []


def test_a_chain_that_leaves_by_a_link(serve: Serve, sample: Sample, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    outside = tmp_path / "outside.qcow2"
    outside.write_bytes((sample.repository / f"{WEB1}.qcow2").read_bytes())
    image = repository / "b1" / "disk0.qcow2"
    image.parent.mkdir(parents=True)
    (image.parent / "base.qcow2").symlink_to(outside)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "base.qcow2", image)
    daemon = serve("--images", repository)
    daemon.expect("ERROR .*outside of the repository", "WARNING skipped .*base.qcow2")
    assert error_of(os.listdir, daemon.backups / "b1" / "disk0") == "EIO"
    told(daemon, "b1/disk0", str(outside))


def test_a_missing_backing_file(serve: Serve, sample: Sample, tmp_path: Path) -> None:
    repository = copy_of(sample.repository, tmp_path)
    daemon = serve("--images", repository)
    base = repository / f"{WEB0}.qcow2"
    base.rename(tmp_path / "away")
    daemon.expect("ERROR .*No such file")
    assert error_of(os.listdir, daemon.backups / sample.incremental / "disk0") == "EIO"
    told(daemon, f"{sample.incremental}/disk0", base.name)


def test_qemu_nbd_is_not_installed(serve: Serve, sample: Sample, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for folder in filter(os.path.isdir, os.environ["PATH"].split(os.pathsep)):
        for program in Path(folder).iterdir():
            if program.name != "qemu-nbd" and not (programs / program.name).exists():
                (programs / program.name).symlink_to(program)
    env = {"PATH": str(programs)}
    daemon = serve("--images", sample.repository, env=env)
    daemon.expect("ERROR .*qemu-nbd.* not installed")
    assert error_of(os.listdir, daemon.backups / WEB0) == "EIO"
    told(daemon, WEB0, "restorefs check")
    checked = restorefs("check", env=env)
    assert checked.code == 1
    assert "FAIL qemu-nbd" in checked.out


# --- attach slots --------------------------------------------------------------------------------


def test_every_slot_is_busy(serve: Serve, sample: Sample) -> None:
    daemon = serve("--images", sample.repository, "--max-attached", "1")
    big = daemon.backups / WEB1 / "big"
    os.listdir(big.parent)
    server = daemon.server(WEB1)
    daemon.expect("ERROR .*all 1 disks .* are in use")
    with server.stopped(), reading(big, 8 * MIB) as reader:
        daemon.wait_under_way(WEB1)
        assert error_of(os.listdir, daemon.backups / WEB0) == "EBUSY"
        told(daemon, WEB0, "--max-attached")
        attached = daemon.cli("attach", sample.full, "0")
        assert attached.code == 1
        assert "--max-attached" in attached.err
        assert daemon.children() == [server.pid]
        assert reader.blocked
        server.send(signal.SIGCONT)
        assert reader.results() == digests(sample.sources.data / "big", 8 * MIB)
    # Nothing is under way any more: its slot is given to the next.
    assert "part3" in os.listdir(daemon.backups / WEB0)
    server.wait()
    server.close()
    assert daemon.attached().keys() == {WEB0}
    assert daemon.status()["failures"] == []


def test_the_least_recently_used_disk_is_let_go(serve: Serve, sample: Sample) -> None:
    daemon = serve("--images", sample.repository, "--max-attached", "2")
    os.listdir(daemon.backups / WEB0)
    os.listdir(daemon.backups / WEB1)
    os.listdir(daemon.backups / WEB0)
    os.listdir(daemon.backups / OTHER)
    assert daemon.attached().keys() == {WEB0, OTHER}
    daemon.wait_logged(f"detached {WEB1}: its slot is needed")
    os.listdir(daemon.backups / WEB1)
    assert daemon.attached().keys() == {OTHER, WEB1}
    assert len(daemon.children()) == 2


# --- servers and storage that fail ---------------------------------------------------------------


def test_a_killed_qemu_nbd(serve: Serve, sample: Sample) -> None:
    daemon = serve("--images", sample.repository)
    big = daemon.backups / WEB1 / "big"
    offsets = [n * MIB for n in range(8)]
    os.listdir(big.parent)
    server = daemon.server(WEB1)
    daemon.expect(f"ERROR {WEB1}: .*server ended")
    with server.stopped(), reading(big, *offsets, direct=True) as reader:
        daemon.wait_under_way(WEB1, len(offsets))
        server.send(signal.SIGKILL)
        assert reader.results() == ["EIO"] * len(offsets)
    server.close()
    told(daemon, WEB1, "server ended")
    with reading(big, *offsets) as reader:
        assert reader.results() == digests(sample.sources.data / "big", *offsets)
    assert len(daemon.children()) == 1
    assert daemon.status()["failures"] == []


def test_a_qemu_nbd_that_is_killed_while_idle(serve: Serve, sample: Sample) -> None:
    daemon = serve("--images", sample.repository)
    assert (daemon.backups / WEB1 / "small").read_text() == "small\n"
    server = daemon.server(WEB1)
    daemon.expect(f"ERROR {WEB1}: .*server ended")
    server.send(signal.SIGKILL)
    wait_until(lambda: daemon.attached() == {}, "the disk is let go")
    server.close()
    with reading(daemon.backups / WEB1 / "big", 0) as reader:
        assert reader.results() == digests(sample.sources.data / "big", 0)


def test_storage_that_fails(serve: Serve, sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "repository" / "b1").mkdir(parents=True)
    shown = tmp_path / "repository" / "b1" / "disk0.qcow2"
    trouble = tmp_path / "trouble"
    image = sample.repository / f"{WEB1}.qcow2"
    with image_on_bad_storage(image, shown, trouble):
        daemon = serve("--images", tmp_path / "repository")
        folder = daemon.backups / "b1" / "disk0"
        assert (folder / "small").read_text() == "small\n"
        trouble.touch()
        daemon.expect("ERROR b1/disk0: .*image or its storage")
        offsets = [12 * MIB, 20 * MIB]
        with reading(folder / "big", *offsets) as reader:
            assert reader.results() == ["EIO", "EIO"]
        assert "storage has an error" in os.getxattr(folder, XATTR).decode()
        assert (folder / "small").read_text() == "small\n"  # this has been read before
        trouble.unlink()
        with reading(folder / "big", *offsets) as reader:
            assert reader.results() == digests(sample.sources.data / "big", *offsets)
        daemon.check()


def test_attaching_takes_too_long(serve: Serve, sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "repository" / "b1").mkdir(parents=True)
    shown = tmp_path / "repository" / "b1" / "disk0.qcow2"
    other = qcow2_link(sample, tmp_path / "repository")
    image = sample.repository / f"{WEB1}.qcow2"
    with image_on_bad_storage(image, shown, tmp_path / "trouble") as storage:
        daemon = serve("--images", tmp_path / "repository", "--attach-timeout", "1s")
        folder = daemon.backups / "b1" / "disk0"
        with storage.stopped():
            daemon.expect("ERROR b1/disk0: .*more than 1 s", "ERROR b1/disk0: .*earlier attempt")
            assert error_of(os.listdir, folder) == "ETIMEDOUT"
            told(daemon, "b1/disk0", str(shown), "storage is slow")
            # What hangs is left alone until it answers; nothing piles up, and nothing else waits.
            for _ in range(5):
                assert error_of(os.listdir, folder) == "ETIMEDOUT"
            assert (daemon.backups / other / "small").read_text() == "small\n"
        wait_until(lambda: error_of(os.listdir, folder) == "", "the storage answers again")
        assert (folder / "small").read_text() == "small\n"
        daemon.check()


def qcow2_link(sample: Sample, repository: Path) -> str:
    """Put a sound disk into a repository; return its name."""
    (repository / "sound").mkdir()
    os.link(sample.repository / f"{WEB1}.qcow2", repository / "sound" / "disk0.qcow2")
    return "sound/disk0"


def test_ending_while_attaching_hangs(serve: Serve, sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "repository" / "b1").mkdir(parents=True)
    shown = tmp_path / "repository" / "b1" / "disk0.qcow2"
    image = sample.repository / f"{WEB1}.qcow2"
    with image_on_bad_storage(image, shown, tmp_path / "trouble") as storage:
        daemon = serve("--images", tmp_path / "repository", "--attach-timeout", "1h")
        with storage.stopped(), reading(daemon.backups / "b1" / "disk0" / "big", 0) as reader:
            # Its open() waits, and the thread that looks at the image.
            wait_until(lambda: waits_for(daemon, shown), "the daemon waits for the storage")
            daemon.send(signal.SIGTERM)
            daemon.wait_logged("SIGTERM: ending")
            assert reader.blocked
            daemon.expect("WARNING not waiting for the requests")
            daemon.send(signal.SIGTERM)
            daemon.process.wait()
            assert reader.failed()
            daemon.check()


def waits_for(daemon: Daemon, image: Path) -> bool:
    """Say whether a thread of the daemon is in the middle of opening or reading an image."""
    for syscall in Path(f"/proc/{daemon.pid}/task").glob("*/wchan"):
        if "fuse" in syscall.read_text() or "request_wait" in syscall.read_text():
            return True
    return False


def test_a_read_takes_too_long(serve: Serve, sample: Sample) -> None:
    daemon = serve("--images", sample.repository, "--read-timeout", "1s")
    big = daemon.backups / WEB1 / "big"
    os.listdir(big.parent)
    server = daemon.server(WEB1)
    daemon.expect(f"ERROR {WEB1}: .*did not answer a read within 1 s")
    with server.stopped(), reading(big, 8 * MIB, direct=True) as reader:
        assert reader.results() == ["ETIMEDOUT"]
        told(daemon, WEB1, "did not answer")
        server.wait()
    server.close()
    with reading(big, 8 * MIB) as reader:
        assert reader.results() == digests(sample.sources.data / "big", 8 * MIB)


def test_a_disk_that_hangs_does_not_stop_another(serve: Serve, sample: Sample) -> None:
    daemon = serve("--images", sample.repository)
    big = daemon.backups / WEB1 / "big"
    offsets = [n * 512 * 1024 for n in range(40)]
    os.listdir(big.parent)
    server = daemon.server(WEB1)
    with server.stopped(), reading(big, *offsets, direct=True) as reader:
        daemon.wait_under_way(WEB1, len(offsets))
        for disk, source in (
            (f"{WEB0}/part3", sample.sources.web),
            (f"{sample.incremental}/disk0/part3", sample.sources.changed),
        ):
            run("diff", "-r", "--no-dereference", "-x", "lost+found", source, daemon.backups / disk)
        assert daemon.cli("status").code == 0
        assert server.state == "T"
        assert reader.blocked
        server.send(signal.SIGCONT)
        assert reader.results() == digests(sample.sources.data / "big", *offsets)
    server.close()


def test_signals_are_no_errors_where_nothing_hangs(serve: Serve, sample: Sample) -> None:
    """Programs get signals all the time (of a child, a timer, a window), and not all ask again."""
    daemon = serve("--images", sample.repository)
    script = """
import os, signal, sys
os.stat(sys.argv[1])
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, False)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
for folder, folders, files in os.walk(sys.argv[1], onerror=lambda error: sys.exit(str(error))):
    for number in range(50):
        try: os.stat(f"{folder}/absent-{number}")
        except FileNotFoundError: pass
signal.setitimer(signal.ITIMER_REAL, 0)
"""
    run(sys.executable, "-Ic", script, daemon.backups / WEB0 / "part3")


def test_who_waits_for_a_disk_that_hangs_can_be_ended(serve: Serve, sample: Sample) -> None:
    daemon = serve("--images", sample.repository)
    big = daemon.backups / WEB1 / "big"
    os.listdir(big.parent)
    server = daemon.server(WEB1)
    with server.stopped(), reading(big, 8 * MIB, direct=True) as reader:
        daemon.wait_under_way(WEB1, 1)
        reader.process.kill()
        assert reader.process.wait(SECONDS) == -signal.SIGKILL
        assert server.state == "T"
    with reading(big, 8 * MIB, direct=True) as reader:
        assert reader.results() == digests(sample.sources.data / "big", 8 * MIB)
    server.close()


# --- guests --------------------------------------------------------------------------------------


def test_damaged_inodes_beside_sound_ones(serve: Serve, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "folder").mkdir(parents=True)
    for name in ("sound", "victim", "folder/inside"):
        (source / name).write_text(f"{name}\n")
    volume = ext(tmp_path / "volume", "ext4", source, 8 * MIB, "-O", "metadata_csum")
    patch(volume, inode_offset(volume, "/victim") + 4, b"\xff\xff")  # its size
    patch(volume, inode_offset(volume, "/folder") + 40, bytes(60))  # its extents
    disk = gpt(tmp_path / "disk", (LINUX, volume))
    qcow2(disk, tmp_path / "repository" / "b1" / "disk0.qcow2")
    daemon = serve("--images", tmp_path / "repository")
    folder = daemon.backups / "b1" / "disk0" / "part1"
    daemon.expect("ERROR b1/disk0: .*checksum")
    for _ in range(2):
        assert set(os.listdir(folder)) == {"sound", "victim", "folder", "lost+found"}
        listed = subprocess.run(["ls", "-l", folder], capture_output=True, text=True, check=False)
        assert listed.returncode == 1
        assert "sound" in listed.stdout
        assert listed.stderr.count("Input/output error") == 2
        for name in ("victim", "folder"):
            assert error_of(os.stat, folder / name) == "EIO"
        assert error_of((folder / "victim").read_bytes) == "EIO"
        assert error_of(os.listdir, folder / "folder") == "EIO"
        assert (folder / "sound").read_text() == "sound\n"
    assert len(daemon.logged("ERROR")) == 2
    assert "checksum" in os.getxattr(daemon.backups / "b1" / "disk0", XATTR).decode()


def test_a_folder_that_is_damaged_in_the_middle(serve: Serve, tmp_path: Path) -> None:
    """Its listing ends with an error, and not as if there were no more."""
    source = tmp_path / "source"
    (source / "many").mkdir(parents=True)
    names = {f"{number}-{'n' * 100}" for number in range(500)}
    for name in names:
        (source / "many" / name).write_text(name)
    volume = ext(
        tmp_path / "volume", "ext4", source, 8 * MIB, "-b", "1024", "-O", "metadata_csum,^dir_index"
    )
    blocks = file_blocks(volume, "/many")
    assert len(blocks) > 50
    patch(volume, blocks[len(blocks) // 2] * 1024 + 20, b"\xff\xff")
    qcow2(volume, tmp_path / "repository" / "b1" / "disk0.qcow2")
    daemon = serve("--images", tmp_path / "repository")
    daemon.expect("ERROR b1/disk0: .*checksum")
    folder = daemon.backups / "b1" / "disk0" / "many"
    for _ in range(2):
        assert error_of(os.listdir, folder) == "EIO"
        listed = subprocess.run(["ls", folder], capture_output=True, text=True, check=False)
        assert listed.returncode != 0
        assert "Input/output error" in listed.stderr
        assert set(listed.stdout.split()) <= names
    (line,) = daemon.logged("ERROR")
    assert f"folder {folder.stat().st_ino & 0xFFFFFFFFF}: " in line, "the guest's own number"


def test_a_feature_that_is_not_known(serve: Serve, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    volume = ext(tmp_path / "volume", "ext4", source, 8 * MIB, "-O", "^metadata_csum")
    (present,) = struct.unpack("<I", peek(volume, 1024 + 96, 4))
    patch(volume, 1024 + 96, struct.pack("<I", present | 1 << 30))  # s_feature_incompat
    sound = ext(tmp_path / "sound", "ext4", source, 8 * MIB)
    raw = gpt(tmp_path / "disk", (LINUX, volume), (LINUX, sound))
    qcow2(raw, tmp_path / "repository" / "b1" / "disk0.qcow2")
    daemon = serve("--images", tmp_path / "repository")
    disk = daemon.backups / "b1" / "disk0"
    assert sorted(os.listdir(disk)) == ["part1", "part2"]
    daemon.expect("WARNING b1/disk0: part1: .*0x40000000")
    assert error_of(os.listdir, disk / "part1") == "EOPNOTSUPP"
    assert "0x40000000" in os.getxattr(disk / "part1", XATTR).decode()
    assert "0x40000000" in daemon.cli("disks", "b1").out
    assert os.listdir(disk / "part2") == ["lost+found"]


ENCRYPTED = ("crypto_LUKS", "BitLocker")


READ = ("ntfs", "vfat", "exfat", "xfs", "LVM2_member", "xfs_external_log")
"""Kinds that there are readers for, which want more than a signature."""


def test_partitions_that_hold_something_else(serve: Serve, tmp_path: Path) -> None:
    """What is not read says so by an error that names it; what never holds files is no folder."""
    kinds = {sample.kind: sample.content for sample in SAMPLES if sample.kind not in READ}
    parts = []
    for kind, content in kinds.items():
        parts.append((LINUX, tmp_path / kind))
        parts[-1][1].write_bytes(content)
    qcow2(gpt(tmp_path / "disk", *parts), tmp_path / "repository" / "b1" / "disk0.qcow2")
    daemon = serve("--images", tmp_path / "repository")
    disk = daemon.backups / "b1" / "disk0"
    told_of = daemon.cli("disks", "b1", "--json").json["disks"][0]["volumes"]
    assert [volume["filesystem"] for volume in told_of] == list(kinds)
    assert "recognised, not read yet" in daemon.cli("disks", "b1").out
    names = {kind: f"part{number}" for number, kind in enumerate(kinds, 1)}
    never_files = {names.pop("swap"), names.pop("swsuspend")}
    assert set(os.listdir(disk)) == set(names.values())
    assert all(error_of(os.stat, disk / name) == "ENOENT" for name in never_files)
    for kind, name in names.items():
        code = "ENOKEY" if kind in ENCRYPTED else "EOPNOTSUPP"
        assert (disk / name).is_dir()
        assert error_of(os.listdir, disk / name) == code
        assert error_of(os.stat, disk / name / "file") == code
        reason = os.getxattr(disk / name, XATTR).decode()
        daemon.expect(f"WARNING b1/disk0: {re.escape(reason)}$")
        assert reason.startswith(f"{name}: ")


def test_disks_that_hold_something_else(serve: Serve, tmp_path: Path) -> None:
    """The same of whole disks, and of what is nothing that anybody knows."""
    contents = {sample.kind: sample.content for sample in SAMPLES if sample.kind in ENCRYPTED}
    contents |= {
        s.kind: s.content for s in SAMPLES if s.kind in ("linux_raid_member", "jfs", "swap")
    }
    contents |= {"zeros": bytes(MIB), "noise": tree.content("noise", MIB)}
    broken = bytearray(Gpt(4096, [entry(100, 3000)]).build())
    for sector in (1, 4095):
        broken[512 * sector + 24] ^= 0xFF
    contents["gpt"] = bytes(broken)
    for name, content in contents.items():
        (tmp_path / "raw").write_bytes(content)
        qcow2(tmp_path / "raw", tmp_path / "repository" / name / "disk0.qcow2")
    daemon = serve("--images", tmp_path / "repository")
    daemon.expect("ERROR gpt/disk0: .*GPT")
    for name in contents:
        folder = daemon.backups / name / "disk0"
        code = "EIO" if name == "gpt" else "ENOKEY" if name in ENCRYPTED else "EOPNOTSUPP"
        assert error_of(os.listdir, folder) == code, name
        assert error_of(os.stat, folder / "file") == code, name
        if name != "gpt":
            daemon.expect(f"WARNING {name}/disk0: ")
        told(daemon, name + "/disk0")


def test_what_is_not_read_says_so(serve: Serve, sample: Sample) -> None:
    daemon = serve("--images", sample.repository)
    disk = daemon.backups / WEB0
    # BIOS boot, swap and MSR never hold files; part7 is not formatted.
    assert sorted(os.listdir(disk)) == ["part2", "part3", "part5"]
    for name in ("part1", "part4", "part6", "part7"):
        assert error_of(os.stat, disk / name) == "ENOENT"
    daemon.expect("WARNING .*part5: .*LUKS.* encrypted")
    assert (disk / "part5").is_dir()
    for _ in range(2):
        assert error_of(os.listdir, disk / "part5") == "ENOKEY"
        assert error_of(os.stat, disk / "part5" / "file") == "ENOKEY"
    assert "LUKS" in os.getxattr(disk / "part5", XATTR).decode()
    assert len(daemon.logged("WARNING .*part5: ")) == 1
    assert os.listdir(disk / "part2") == [], "an empty FAT"
    assert (disk / "part3" / "etc" / "hostname").read_text() == "web\n"
    assert error_of(os.getxattr, disk / "part3", XATTR) == "ENODATA"


WRITES: dict[str, Callable[[Path, Path], object]] = {
    "open for writing": lambda file, _: os.open(file, os.O_WRONLY),
    "open for both": lambda file, _: os.open(file, os.O_RDWR),
    "open to append": lambda file, _: os.open(file, os.O_WRONLY | os.O_APPEND),
    "truncate at open": lambda file, _: os.open(file, os.O_RDONLY | os.O_TRUNC),
    "create": lambda _, new: os.open(new, os.O_WRONLY | os.O_CREAT),
    "unnamed file": lambda file, _: os.open(file.parent, os.O_WRONLY | os.O_TMPFILE),
    "truncate": lambda file, _: os.truncate(file, 0),
    "mkdir": lambda _, new: os.mkdir(new),
    "mknod": lambda _, new: os.mknod(new),
    "mkfifo": lambda _, new: os.mkfifo(new),
    "symlink": lambda file, new: os.symlink(file, new),
    "link": lambda file, new: os.link(file, new),
    "rename": lambda file, new: os.rename(file, new),
    "unlink": lambda file, _: os.unlink(file),
    "rmdir": lambda file, _: os.rmdir(file.parent),
    "chmod": lambda file, _: os.chmod(file, 0o777),
    "chown": lambda file, _: os.chown(file, 1, 1),
    "utime": lambda file, _: os.utime(file),
    "setxattr": lambda file, _: os.setxattr(file, "user.a", b"b"),
    "removexattr": lambda file, _: os.removexattr(file, "user.a"),
}


def test_nothing_can_be_written(serve: Serve, sample: Sample) -> None:
    daemon = serve("--images", sample.repository)
    inside = daemon.backups / WEB0 / "part3" / "etc"
    for name, write in WRITES.items():
        assert error_of(write, inside / "hostname", inside / "new") == "EROFS", name
    for folder in (
        daemon.mountpoint,
        daemon.backups,
        daemon.backups / sample.full,
        daemon.backups / WEB0,
        daemon.backups / WEB0 / "part3",
        daemon.mountpoint / "vms" / "web",
    ):
        for name in ("create", "mkdir", "symlink"):
            assert error_of(WRITES[name], inside, folder / "new") == "EROFS", (folder, name)
        for name in ("chmod", "chown", "utime", "setxattr"):
            assert error_of(WRITES[name], folder, folder / "new") == "EROFS", (folder, name)
    assert error_of(os.rmdir, daemon.backups / sample.full) == "EROFS"
    assert error_of(os.unlink, daemon.mountpoint / "vms" / "web" / "latest") == "EROFS"


# --- backups that go -----------------------------------------------------------------------------


def test_a_backup_is_deleted_while_in_use(serve: Serve, sample: Sample, catalog: Path) -> None:
    daemon = serve("--catalog", f"sqlite:///{catalog}", "--repository", sample.repository)
    folder = daemon.backups / WEB1
    fd = os.open(folder / "big", os.O_RDONLY)
    inside = os.open(daemon.backups / WEB0 / "part3" / "var", os.O_RDONLY)
    try:
        assert os.pread(fd, 4096, 0)
        assert (daemon.backups / OTHER / "part5" / "note").exists()
        servers = [daemon.server(WEB0), daemon.server(WEB1)]
        with sqlite3.connect(catalog) as database:
            database.execute("PRAGMA foreign_keys = ON")
            database.execute("DELETE FROM backup_jobs WHERE id = ?", [sample.full])
        database.close()
        daemon.send(signal.SIGHUP)
        for server in servers:
            server.wait()
            server.close()
        assert error_of(os.pread, fd, 4096, 16 * MIB) == "ESTALE"
        assert error_of(os.listdir, inside) == "ESTALE"
        wait_until(
            lambda: error_of(os.stat, daemon.backups / sample.full) == "ENOENT",
            "the kernel forgets the folder",
        )
        assert error_of(os.stat, folder / "small") == "ENOENT"
    finally:
        os.close(fd)
        os.close(inside)
    assert sorted(os.listdir(daemon.backups)) == sorted([sample.other, sample.incremental])
    assert os.readlink(daemon.mountpoint / "vms" / "web" / "latest").endswith(sample.incremental)
    assert daemon.attached().keys() == {OTHER}
    assert daemon.cli("disks", sample.full).code == 1
    # The incremental's base is a file like any other.
    path = daemon.backups / sample.incremental / "disk0" / "part3" / "etc" / "hostname"
    assert path.read_text() == "web-renamed\n"
