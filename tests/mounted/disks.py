"""Disks of backups, as a backup system leaves them, from volumes and with the real tools.

Owns how volumes become a raw disk, a raw disk a qcow2 image, and a changed disk an incremental.
Knows nothing of restorefs. Concurrency: none.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.images import tree
from tests.mounted.daemon import Process
from tests.tools import require, run, wait_until

MIB = 1 << 20
CLUSTER = 64 << 10

LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
SWAP = "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"
ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
MSR = "E3C9E316-0B5C-4DB8-817D-F92DF00215AE"
BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"

Part = tuple[str, Path | int]
"""A partition: its type, and the image that fills it or the size of one that is left empty."""


def ext(image: Path, kind: str, source: Path, size: int, *options: str) -> Path:
    """Make an ext2, ext3 or ext4 that holds a folder's content; needs no root."""
    require("mke2fs")
    empty(image, size)
    run("mke2fs", "-q", "-F", "-t", kind, "-E", "root_owner=0:0", *options, "-d", source, image)
    return image


def empty(image: Path, size: int) -> Path:
    with image.open("wb") as file:
        file.truncate(size)
    return image


def gpt(disk: Path, *parts: Part) -> Path:
    """Put partitions on a disk with a GPT."""
    return _partitioned(disk, "gpt", [(kind, content, 0) for kind, content in parts])


def mbr(disk: Path, primary: Sequence[Part], logical: Sequence[Part]) -> Path:
    """Put partitions on a disk with an MBR; part5 and on lie in an extended partition."""
    inside = [(kind, content, 1) for kind, content in logical]
    sizes = [c.stat().st_size if isinstance(c, Path) else c for _, c in logical]
    room = sum(_whole_mib(size) + MIB for size in sizes)
    plain = [(kind, content, 0) for kind, content in primary]
    return _partitioned(disk, "dos", [*plain, ("5", room, 0), *inside])


def _partitioned(disk: Path, label: str, parts: Sequence[tuple[str, Path | int, int]]) -> Path:
    """Make the table; each part is (type, content, MiB left free in front of it)."""
    require("sfdisk")
    script = [f"label: {label}"]
    contents = []
    position = MIB
    for kind, content, gap in parts:
        start = position + gap * MIB
        size = content.stat().st_size if isinstance(content, Path) else content
        script.append(f"start={start // 512}, size={-(-size // 512)}, type={kind}")
        contents.append((start, content))
        position = start if kind == "5" else start + _whole_mib(size)
    empty(disk, position + MIB)
    run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", disk, input="\n".join(script))
    for start, content in contents:
        if isinstance(content, Path):
            put(disk, start, content)
    return disk


def _whole_mib(size: int) -> int:
    return -(-size // MIB) * MIB


def put(disk: Path, offset: int, content: Path) -> None:
    """Write an image into a disk, at a whole MiB."""
    where = (f"of={disk}", "bs=1M", f"seek={offset // MIB}", "conv=notrunc")
    run("dd", f"if={content}", *where, "status=none")


def qcow2(raw: Path, image: Path, *options: str) -> Path:
    """Convert a raw disk."""
    require("qemu-img")
    image.parent.mkdir(parents=True, exist_ok=True)
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, raw, image)
    return image


def incremental(base: Path, before: Path, after: Path, image: Path) -> Path:
    """Write what changed between two raw disks into an image with a backing file.

    The backing file is named relative to the image, as backup systems do.
    """
    require("qemu-img", "qemu-io")
    image.parent.mkdir(parents=True, exist_ok=True)
    name = os.path.relpath(base, image.parent)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", name, image)
    with tempfile.TemporaryDirectory() as folder, before.open("rb") as old, after.open("rb") as new:
        commands = []
        for number, data in enumerate(iter(lambda: new.read(CLUSTER), b"")):
            if old.read(CLUSTER) != data:
                piece = Path(folder, str(number))
                piece.write_bytes(data)
                commands += ["-c", f"write -q -s {piece} {number * CLUSTER} {len(data)}"]
        run("qemu-io", "-f", "qcow2", *commands, image)
    run("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", after, image)
    return image


def copy_of(repository: Path, folder: Path) -> Path:
    """Return a copy of a folder of images that a test may damage."""
    copy = folder / "repository"
    run("cp", "--recursive", "--sparse=always", repository, copy)
    return copy


@contextmanager
def image_on_bad_storage(image: Path, shown: Path, trouble: Path) -> Iterator[Process]:
    """Have an image appear as a file on storage that fails every read while `trouble` exists.

    `shown` must not exist; its folder must be empty. Yields the process that is the storage: when
    it is stopped, the storage hangs.
    """
    require("nbdfuse", "nbdkit", "fusermount3")
    pidfile = trouble.with_suffix(".pid")
    server = subprocess.Popen(
        [
            *("nbdfuse", "--readonly", "--pidfile", str(pidfile), str(shown), "["),
            *("nbdkit", "--exit-with-parent", "--filter=error", "file", str(image)),
            *("error-pread=EIO", "error-pread-rate=100%", f"error-pread-file={trouble}", "]"),
        ],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    process = Process(server.pid)
    try:
        wait_until(lambda: pidfile.exists() or server.poll() is not None, "nbdfuse serves")
        assert server.stderr is not None
        assert server.poll() is None, server.stderr.read()
        yield process
    finally:
        process.send(signal.SIGCONT)
        subprocess.run(["fusermount3", "-uz", str(shown.parent)], check=False, capture_output=True)
        if not process.ended(30):
            server.kill()
        server.wait()
        assert server.stderr is not None
        server.stderr.close()
        process.close()


class Sources:
    """The folders that the sample's file systems are made from, and so must show.

    web: a small server's root file system. changed: the same a day later. data: with one file of
    24 MiB, `big`. old: what an ext3 and an ext2 hold.
    """

    def __init__(self, folder: Path) -> None:
        self.web = folder / "web"
        self.changed = folder / "changed"
        self.data = folder / "data"
        self.old = folder / "old"
        (self.web / "etc").mkdir(parents=True)
        (self.web / "etc" / "hostname").write_text("web\n")
        (self.web / "etc" / "removed-later").write_text("here for a day\n")
        (self.web / "link").symlink_to("etc/hostname")
        logs = self.web / "var" / "log"
        logs.mkdir(parents=True)
        for number in range(100):
            (logs / f"app.{number}.log").write_text(f"line {number}\n" * (10 * number + 1))
        shutil.copytree(self.web, self.changed, symlinks=True)
        (self.changed / "etc" / "hostname").write_text("web-renamed\n")
        # Another content of the same size and time, as whoever hides a change leaves it.
        quiet = self.changed / "var" / "log" / "app.8.log"
        before = quiet.stat()
        quiet.write_bytes(quiet.read_bytes().replace(b"8", b"x"))
        os.utime(quiet, ns=(before.st_atime_ns, before.st_mtime_ns))
        os.utime(self.changed / "var" / "log" / "app.9.log", (1, 1))  # the same content
        (self.changed / "etc" / "removed-later").unlink()
        (self.changed / "etc" / "added").write_bytes(tree.content("added", 200_000))
        self.data.mkdir()
        (self.data / "big").write_bytes(tree.content("big", 24 * MIB))
        (self.data / "small").write_text("small\n")
        self.old.mkdir()
        (self.old / "note").write_text("an old disk\n")


class Sample:
    """A folder of images, and what they show. It must not be changed.

    backup-web-1700000000/disk0    GPT: BIOS boot, FAT, ext4, swap, LUKS, MSR, unformatted
                          disk1    an ext4 without any partition table
    backup-web-1700086400/disk0    an incremental of the first one's disk0
    backup-db-1700000500/disk0     MBR: ext3, and ext2 in an extended partition
    """

    full = "backup-web-1700000000"
    incremental = "backup-web-1700086400"
    other = "backup-db-1700000500"

    def __init__(self, folder: Path) -> None:
        require("mkfs.vfat", "mkswap", "cryptsetup")
        self.sources = Sources(folder / "sources")
        self.repository = folder / "repository"
        raw = folder / "raw"
        raw.mkdir()
        web = ext(raw / "web", "ext4", self.sources.web, 32 * MIB, "-L", "root")
        fat = empty(raw / "fat", 8 * MIB)
        run("mkfs.vfat", "-n", "EFI", fat)
        swap = empty(raw / "swap", 2 * MIB)
        run("mkswap", "--quiet", swap)
        luks = empty(raw / "luks", 20 * MIB)
        run(
            *("cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2"),
            *("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", luks, "-"),
            input="secret",
        )

        def system_disk(name: str, root: Path) -> Path:
            return gpt(
                raw / name,
                *((BIOS_BOOT, MIB), (ESP, fat), (LINUX, root), (SWAP, swap)),
                *((LINUX, luks), (MSR, MIB), (LINUX, MIB)),
            )

        first = system_disk("first", web)
        base = qcow2(first, self.repository / self.full / "disk0.qcow2")
        data = ext(raw / "data", "ext4", self.sources.data, 40 * MIB, "-L", "data", "-m", "0")
        qcow2(data, self.repository / self.full / "disk1.qcow2")
        changed = ext(raw / "changed", "ext4", self.sources.changed, 32 * MIB, "-L", "root")
        # Both trees are of the same second, and mke2fs copies no less.
        a_day_later = "set_inode_field /var/log/app.8.log ctime @1700086400"
        run("debugfs", "-w", "-R", a_day_later, changed)
        second = raw / "second"
        shutil.copyfile(first, second)
        put(second, 10 * MIB, changed)
        incremental(base, first, second, self.repository / self.incremental / "disk0.qcow2")
        ext3 = ext(raw / "ext3", "ext3", self.sources.old, 16 * MIB)
        ext2 = ext(raw / "ext2", "ext2", self.sources.old, 8 * MIB)
        old = mbr(raw / "old", [("83", ext3)], [("83", ext2), ("82", swap)])
        qcow2(old, self.repository / self.other / "disk0.qcow2")
        shutil.rmtree(raw)
