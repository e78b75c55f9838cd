"""The ways to read an image that are compared.

Owns how each of them is started and stopped. Each is a context manager that takes the image and
an empty folder, starts every process afresh (so that nothing of the guest is cached), and yields
the root of the guest's file system.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from bench.image import PARTITION_START, Image
from bench.processes import (
    missing_programs,
    run,
    started,
    started_until_ready,
    unmount,
    wait_until,
)


@dataclass(frozen=True)
class Daemon:
    """A running `restorefs mount`."""

    pid: int
    mountpoint: Path
    runtime: Path

    def reload(self) -> None:
        """Have it ask its catalog, by its API: the time of a command would be Python's start."""
        (control,) = self.runtime.glob("*/control.sock")
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(control)), timeout=60) as client:
            client.post("http://restorefs/api/v1/reload").raise_for_status()

    def listening(self) -> list[str]:
        """Return the URLs of its API over TCP."""
        (control,) = self.runtime.glob("*/control.sock")
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(control)), timeout=60) as client:
            status = client.get("http://restorefs/api/v1/status").raise_for_status().json()
        return [str(url) for url in status["listening"]]

    def disk(self, backup: str) -> Path:
        return self.mountpoint / "backups" / backup / "disk0"


@contextmanager
def restorefs_daemon(folder: Path, *arguments: str | Path) -> Iterator[Daemon]:
    """Run `restorefs mount` on `folder`/mnt."""
    mountpoint = folder / "mnt"
    mountpoint.mkdir()
    try:
        with (
            _sockets() as runtime,
            started_until_ready(
                "restorefs",
                "--runtime-dir",
                runtime,
                "mount",
                *arguments,
                mountpoint,
                log=folder / "restorefs.log",
            ) as process,
        ):
            yield Daemon(process.pid, mountpoint, runtime)
    finally:
        unmount(mountpoint)


@contextmanager
def _sockets() -> Iterator[Path]:
    """A folder whose path is short enough for a socket's."""
    with tempfile.TemporaryDirectory(prefix="restorefs-bench-") as folder:
        yield Path(folder)


def images_folder(folder: Path, image: Path, backups: int) -> Path:
    """Lay out hard links of an image as that many backups of one disk each."""
    root = folder / "images"
    for number in range(backups):
        backup = root / f"backup-vm{number}-{1_700_000_000 + number}"
        backup.mkdir(parents=True)
        os.link(image, backup / "disk0.qcow2")
    return root


@contextmanager
def restorefs(image: Image, folder: Path) -> Iterator[Path]:
    images = images_folder(folder, image.path, 1)
    with restorefs_daemon(folder, "--images", images) as daemon:
        yield daemon.disk("backup-vm0-1700000000") / image.volume


@contextmanager
def fuse2fs(image: Image, folder: Path) -> Iterator[Path]:
    """qemu-nbd, nbdfuse over it (several connections), fuse2fs on the file that nbdfuse shows."""
    with _shown_by_nbdfuse(image, folder) as disk, _mountpoint(folder) as mountpoint:
        run("fuse2fs", disk, mountpoint, "-o", f"ro,offset={PARTITION_START}")
        yield mountpoint


@contextmanager
def ntfs3g(image: Image, folder: Path) -> Iterator[Path]:
    """qemu-nbd, nbdfuse over it, ntfs-3g on the file that nbdfuse shows."""
    with _shown_by_nbdfuse(image, folder) as disk, _mountpoint(folder) as mountpoint:
        run("ntfs-3g", disk, mountpoint, "-o", "ro")
        yield mountpoint


@contextmanager
def _mountpoint(folder: Path) -> Iterator[Path]:
    mountpoint = folder / "mnt"
    mountpoint.mkdir()
    try:
        yield mountpoint
    finally:
        unmount(mountpoint)


@contextmanager
def _shown_by_nbdfuse(image: Image, folder: Path) -> Iterator[Path]:
    """The image's disk as a file."""
    shown = folder / "nbd"
    shown.mkdir()
    log = folder / "nbdfuse.log"
    server = ["qemu-nbd", "--read-only", "--format", "qcow2", "--persistent", "--shared", "8"]
    with ExitStack() as stack:
        sock = stack.enter_context(_sockets()) / "nbd.sock"
        stack.enter_context(started(*server, "--socket", sock, image.path, log=log))
        wait_until(sock.exists, "qemu-nbd")
        stack.enter_context(started("nbdfuse", "-r", shown / "disk", "--unix", sock, log=log))
        stack.callback(unmount, shown)
        wait_until(lambda: os.path.ismount(shown), "nbdfuse")
        yield shown / "disk"


@contextmanager
def kernel(image: Image, folder: Path) -> Iterator[Path]:
    """The kernel's own driver on a loop device over a FUSE export of qemu-storage-daemon."""
    shown, mountpoint = folder / "disk", folder / "mnt"
    shown.touch()
    mountpoint.mkdir()
    with ExitStack() as stack:
        stack.enter_context(
            started(
                "qemu-storage-daemon",
                "--blockdev",
                f"driver=file,filename={image.path},node-name=file,read-only=on",
                "--blockdev",
                "driver=qcow2,file=file,node-name=disk,read-only=on",
                "--export",
                f"type=fuse,id=export,node-name=disk,mountpoint={shown},writable=off",
                log=folder / "qemu.log",
            )
        )
        wait_until(lambda: shown.stat().st_size > 0, "qemu-storage-daemon")
        device = run(
            "losetup",
            "--find",
            "--show",
            "--read-only",
            "--offset",
            str(image.facts.start),
            "--sizelimit",
            str(image.facts.partition_size),
            shown,
        ).strip()
        stack.callback(run, "losetup", "--detach", device)
        run("mount", "-o", "ro", device, mountpoint)
        stack.callback(unmount, mountpoint)
        yield mountpoint


@dataclass(frozen=True)
class Stack:
    name: str
    start: Callable[[Image, Path], AbstractContextManager[Path]]
    programs: tuple[str, ...]
    needs_root: bool = False

    def lacks(self) -> str | None:
        """Say why this machine cannot run it."""
        if missing := missing_programs(*self.programs):
            return f"not installed: {', '.join(missing)}"
        if self.needs_root and os.geteuid() != 0:
            return "needs root"
        return None


OURS = Stack("restorefs", restorefs, ("restorefs", "qemu-nbd"))
FUSE2FS = Stack("nbdfuse+fuse2fs", fuse2fs, ("qemu-nbd", "nbdfuse", "fuse2fs", "fusermount3"))
KERNEL = Stack("kernel ext4", kernel, ("qemu-storage-daemon", "losetup", "mount"), needs_root=True)
KERNEL_XFS = replace(KERNEL, name="kernel XFS")
NTFS3G = Stack("nbdfuse+ntfs-3g", ntfs3g, ("qemu-nbd", "nbdfuse", "ntfs-3g", "fusermount3"))
