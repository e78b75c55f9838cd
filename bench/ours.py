"""What is measured on restorefs alone: attaching, memory, and what lies above the guests."""

import multiprocessing
import multiprocessing.sharedctypes
import os
import random
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.image import Image
from bench.measures import RANDOM_READ, first_listing, listing, sequential
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


@dataclass(frozen=True)
class ManyBackups:
    """Seconds for a catalog of so many backups, with so many disks in each: from starting the
    daemon to its being ready; reloading when one backup has gone, and when nothing has changed; and
    `ls backups`."""

    backups: int
    disks: int
    start_s: float
    reload_s: float
    unchanged_s: float
    listed_s: float


def many_backups(folder: Path, backups: int, disks: int) -> ManyBackups:
    """Measure a large catalog. Its images need not exist: nothing is attached."""
    database = folder / "catalog.db"
    catalog = f"sqlite:///{database}"
    run("restorefs", "scan", _empty(folder / "images"), "--catalog", catalog)
    _fill(database, backups, disks)
    begin = time.perf_counter()
    with restorefs_daemon(folder, "--catalog", catalog) as daemon:
        start = time.perf_counter() - begin
        listed = _timed(lambda: run("ls", daemon.mountpoint / "backups"))
        shown = run("ls", daemon.mountpoint / "backups").count("\n")
        if shown != backups:
            raise BenchError(f"{shown} of {backups} backups were listed")
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("DELETE FROM backup_jobs WHERE id = 'backup-vm7-7'")
        return ManyBackups(
            backups,
            disks,
            start,
            _timed(daemon.reload),
            _timed(daemon.reload),
            listed,
        )


def _empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _timed(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def _fill(database: Path, backups: int, disks: int) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.executemany(
            "INSERT INTO vm_backup_contexts (context_id, vm_name) VALUES (?, ?)",
            [(f"context-{n}", f"vm{n}") for n in range(200)],
        )
        connection.executemany(
            "INSERT INTO backup_jobs (id, vm_backup_context_id, status, created_at)"
            " VALUES (?, ?, 'completed', datetime('2025-01-01', ? || ' hours'))",
            [(f"backup-vm{n % 200}-{n}", f"context-{n % 200}", n) for n in range(backups)],
        )
        connection.executemany(
            "INSERT INTO backup_disks (backup_job_id, disk_index, size_gb, qcow2_path, status)"
            " VALUES (?, ?, 100, ?, 'completed')",
            [
                (f"backup-vm{n % 200}-{n}", disk, f"/srv/backups/vm{n % 200}-{n}/disk{disk}.qcow2")
                for n in range(backups)
                for disk in range(disks)
            ],
        )


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


@dataclass(frozen=True)
class Crowd:
    """The first `ls` in a folder of very many files: its seconds, and the longest time that 4 KiB
    took a second reader meanwhile (`gap_s`, in another daemon) and before (`quiet_gap_s`)."""

    files: int
    listed_s: float
    gap_s: float
    quiet_gap_s: float


def crowd(image: Image, folder: Path) -> Crowd:
    """List the crowded folder, first alone, then while somebody else reads at random places."""
    images = images_folder(folder, image.path, 1)
    alone, together = folder / "alone", folder / "together"
    alone.mkdir()
    with restorefs_daemon(alone, "--images", images) as daemon:
        listed_s = _list_crowd(daemon.disk("backup-vm0-1700000000"), image)
    together.mkdir()
    with restorefs_daemon(together, "--images", images) as daemon:
        root = daemon.disk("backup-vm0-1700000000")
        first_listing(root)
        with _second_reader(root / "big", image.shape.big_mib) as reader:
            time.sleep(2)
            quiet_gap_s = reader.longest()
            _list_crowd(root, image)
            return Crowd(image.shape.crowd, listed_s, reader.longest(), quiet_gap_s)


def _list_crowd(root: Path, image: Image) -> float:
    first_listing(root)
    begin = time.perf_counter()
    listed = run("ls", "-U", root / "crowd").count("\n")
    elapsed = time.perf_counter() - begin
    if listed != image.shape.crowd:
        raise BenchError(f"{listed} of {image.shape.crowd} files were listed")
    return elapsed


class _Reader:
    """Another process that reads pages, and its longest wait since it was last asked."""

    def __init__(self, longest: "multiprocessing.sharedctypes.Synchronized[float]") -> None:
        self._longest = longest

    def longest(self) -> float:
        with self._longest.get_lock():
            value, self._longest.value = self._longest.value, 0.0
        return value


@contextmanager
def _second_reader(path: Path, mib: int) -> Iterator[_Reader]:
    context = multiprocessing.get_context("fork")
    longest = context.Value("d", 0.0)
    process = context.Process(target=_read_on, args=(path, mib, longest), daemon=True)
    process.start()
    try:
        yield _Reader(longest)
    finally:
        process.terminate()
        process.join()


def _read_on(
    path: Path, mib: int, longest: "multiprocessing.sharedctypes.Synchronized[float]"
) -> None:
    places = random.Random(2)
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    while True:
        begin = time.perf_counter()
        os.pread(fd, RANDOM_READ, places.randrange(mib * 256) * RANDOM_READ)
        waited = time.perf_counter() - begin
        with longest.get_lock():
            longest.value = max(longest.value, waited)
