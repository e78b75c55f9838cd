"""What is measured on restorefs alone: attaching, memory, and what lies above the guests."""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.image import Image
from bench.measures import first_listing, listing, sequential
from bench.processes import BenchError, children, memory_kib, run
from bench.stacks import images_folder, restorefs_daemon

CHAIN = 8
ATTACHES = 10


@dataclass(frozen=True)
class Memory:
    """Resident KiB of the daemon: after start, the listing, the big file, the first pass of
    lookups and the last one. None where lookups were not measured."""

    ready: int
    listed: int
    read: int
    first_pass: int | None
    last_pass: int | None
    lookups: int


def attach_seconds(image: Image, folder: Path) -> float:
    """The first `ls` inside a disk of a running daemon: the median over several disks."""
    images = images_folder(folder, image.path, ATTACHES)
    return _attach(folder, images, sorted(path.name for path in images.iterdir()))


def attach_chain_seconds(image: Image, folder: Path) -> float:
    """As attach_seconds(), for disks that are the top of a chain of CHAIN files."""
    images = folder / "images"
    base = images_folder(folder, image.path, 1) / "backup-vm0-1700000000" / "disk0.qcow2"
    for link in range(1, CHAIN - 1):
        base = _overlay(images / f"backup-vm0-{1_700_000_000 + link}", base)
    tops = [images / f"backup-top{number}-1800000000" for number in range(ATTACHES)]
    for top in tops:
        _overlay(top, base)
    return _attach(folder, images, [top.name for top in tops])


def _overlay(backup: Path, base: Path) -> Path:
    backup.mkdir()
    disk = backup / "disk0.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, disk)
    return disk


def _attach(folder: Path, images: Path, backups: list[str]) -> float:
    with restorefs_daemon(folder, "--images", images, "--repository", images) as daemon:
        times = []
        for backup in backups:
            begin = time.perf_counter()
            first_listing(daemon.disk(backup) / "part1")
            times.append(time.perf_counter() - begin)
    return statistics.median(times)


def thousand_backups(image: Image, folder: Path) -> tuple[float, float]:
    """Return the seconds to scan 1,000 backups, and to list everything above their guests.

    Raises BenchError when that attached a disk.
    """
    images = images_folder(folder, image.path, 1_000)
    catalog = f"sqlite:///{folder / 'catalog.db'}"
    begin = time.perf_counter()
    run("restorefs", "scan", images, "--catalog", catalog)
    scanned = time.perf_counter() - begin
    with restorefs_daemon(folder, "--catalog", catalog, "--repository", images) as daemon:
        # -R of what holds no guest; a level more would look into the disks
        backups = daemon.mountpoint / "backups"
        command = 'ls -l "$1" "$1"/backups "$1"/backups/* && ls -lR "$1"/vms'
        begin = time.perf_counter()
        shown = run("sh", "-c", command, "sh", daemon.mountpoint)
        elapsed = time.perf_counter() - begin
        if shown.count(" disk0") != 1_000:
            raise BenchError(f"{backups}: {shown.count(' disk0')} of 1,000 disks were listed")
        if children(daemon.pid):
            raise BenchError("listing what is above the guests attached a disk")
    return scanned, elapsed


def memory(image: Image, folder: Path, lookups: int, say: Callable[[str], None]) -> Memory:
    """Follow the daemon's memory over a listing, the big file, and so many lookups."""
    images = images_folder(folder, image.path, 1)
    with restorefs_daemon(folder, "--images", images) as daemon:
        root = daemon.disk("backup-vm0-1700000000") / "part1"
        ready = memory_kib(daemon.pid)
        listing(root, image)
        listed = memory_kib(daemon.pid)
        sequential(root, image)
        read = memory_kib(daemon.pid)
        if os.geteuid() != 0:
            say("lookups: left out, only root can make the kernel forget names")
            return Memory(ready, listed, read, None, None, 0)
        names = run("find", root).splitlines()
        first_pass, done = None, 0
        while done < lookups:
            # Names that the kernel remembers would not be asked again.
            Path("/proc/sys/vm/drop_caches").write_text("2\n")
            for name in names:
                os.lstat(name)
            done += len(names)
            first_pass = first_pass or memory_kib(daemon.pid)
            say(f"lookups: {done:,} of {lookups:,}")
        return Memory(ready, listed, read, first_pass, memory_kib(daemon.pid), done)
