"""What is measured inside a mounted guest.

Owns the workloads; each takes the guest's root and returns a rate or a time, and raises
BenchError when the answer was incomplete, since a fast wrong answer is no result.
"""

import multiprocessing
import os
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path

from bench.image import MIB, Image
from bench.processes import BenchError, run

RANDOM_READ = 4096


@dataclass(frozen=True)
class Measure:
    """`better`: +1 where more is better, -1 where less is."""

    name: str
    unit: str
    better: int
    take: Callable[[Path, Image], float]


def listing(root: Path, image: Image) -> float:
    """`find -ls`: every entry with its attributes."""
    with tempfile.TemporaryFile(dir=_memory()) as output:
        begin = time.perf_counter()
        run("find", root, "-ls", stdout=output.fileno())
        elapsed = time.perf_counter() - begin
        output.seek(0)
        entries = sum(chunk.count(b"\n") for chunk in iter(lambda: output.read(MIB), b""))
    if entries != image.facts.entries:
        raise BenchError(f"{root}: {entries} entries listed, {image.facts.entries} are there")
    return entries / elapsed


def sequential(root: Path, image: Image) -> float:
    """The big file from its beginning to its end, 1 MiB at a time."""
    return _read_whole(root / "big", image.shape.big_mib)


def compressed(root: Path, image: Image) -> float:
    """The same for the compressed file, in MiB of content."""
    return _read_whole(root / "compressed" / "log", image.shape.compressed_mib)


def _read_whole(path: Path, mib: int) -> float:
    total = 0
    begin = time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(MIB):
            total += len(chunk)
    elapsed = time.perf_counter() - begin
    if total != mib * MIB:
        raise BenchError(f"{path}: {total} bytes read")
    return mib / elapsed


def random_reads(readers: int) -> Callable[[Path, Image], float]:
    """4 KiB at random places of the big file, each place once, by so many processes at once."""

    def take(root: Path, image: Image) -> float:
        pages = image.shape.big_mib * MIB // RANDOM_READ
        places = random.Random(1).sample(range(pages), min(pages // 4, 16_000))
        context = multiprocessing.get_context("fork")
        barrier = context.Barrier(readers)
        times: multiprocessing.Queue[tuple[float, float]] = context.Queue()
        processes = [
            context.Process(
                target=_read_places, args=(root / "big", places[n::readers], barrier, times)
            )
            for n in range(readers)
        ]
        for process in processes:
            process.start()
        spans = [times.get() for _ in processes]
        for process in processes:
            process.join()
        if any(process.exitcode != 0 for process in processes):
            raise BenchError(f"{root}/big: a random read failed")
        return len(places) / (max(end for _, end in spans) - min(begin for begin, _ in spans))

    return take


def _read_places(
    path: Path,
    places: list[int],
    barrier: Barrier,
    times: "multiprocessing.Queue[tuple[float, float]]",
) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    barrier.wait()
    begin = time.perf_counter()
    complete = all(
        len(os.pread(fd, RANDOM_READ, place * RANDOM_READ)) == RANDOM_READ for place in places
    )
    times.put((begin, time.perf_counter()))
    os.close(fd)
    if not complete:
        raise SystemExit(1)


def copying(root: Path, image: Image) -> float:
    """`cp -a` of the folder of small files into memory."""
    with tempfile.TemporaryDirectory(dir=_memory()) as target:
        begin = time.perf_counter()
        run("cp", "-a", root / "small", target)
        elapsed = time.perf_counter() - begin
        copied = sum(path.stat().st_size for path in Path(target).rglob("*.dat"))
    if copied != image.facts.small_bytes:
        raise BenchError(f"{root}/small: {copied} of {image.facts.small_bytes} bytes copied")
    return image.shape.small_files / elapsed


def first_listing(root: Path) -> None:
    """`ls`, which must show something."""
    if not run("ls", root).strip():
        raise BenchError(f"{root} is empty")


def _memory() -> str:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()


LISTING = Measure("listing, find -ls", "entries/s", +1, listing)
SEQUENTIAL = Measure("one big file, sequential", "MiB/s", +1, sequential)
COMPRESSED = Measure("one compressed file", "MiB/s", +1, compressed)
COPYING = Measure("copying small files, cp -a", "files/s", +1, copying)

LINUX = (
    LISTING,
    SEQUENTIAL,
    Measure("random 4 KiB, 1 reader", "IOPS", +1, random_reads(1)),
    Measure("random 4 KiB, 8 readers", "IOPS", +1, random_reads(8)),
    COPYING,
)
WINDOWS = (LISTING, SEQUENTIAL, COMPRESSED, COPYING)
