"""What is measured of the API over TCP, beside the mount that the same daemon serves.

Owns the workloads. The programs at the other end are those that people use, curl and tar.
"""

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.image import MIB, Image
from bench.measures import first_listing, sequential
from bench.processes import BenchError, run
from bench.stacks import Daemon, images_folder, restorefs_daemon

_BACKUP = "backup-vm0-1700000000"
_LISTINGS = 300
_ROUNDS = 3


@dataclass(frozen=True)
class ApiFigures:
    """MiB/s of the big file by a download, and by the mount; files/s of the folder of small ones as
    a tar.zst, and by tar over the mount; and the 99th percentile of the seconds that another
    client's listings took while both of the API's went on."""

    download: float
    mounted: float
    archive: float
    tar: float
    listing_p99_s: float


def api(image: Image, folder: Path) -> ApiFigures:
    """Measure each in turn, some rounds, in a daemon of its own; the medians count."""
    images = images_folder(folder, image.path, 1)
    taken: dict[str, list[float]] = {}
    for number in range(_ROUNDS):
        for name in ("mounted", "tar", "download", "archive"):
            with _started(folder / f"{number}-{name}", images) as (daemon, url, mount):
                root = daemon.disk(_BACKUP) / image.volume
                calls = f"{url}/api/v1/restore/{mount}"
                if name == "mounted":
                    first_listing(root)
                    value = sequential(root, image)
                elif name == "tar":
                    first_listing(root)
                    value = _tar(root, image)
                else:
                    value = (_download if name == "download" else _archive)(calls, image)
                taken.setdefault(name, []).append(value)
    with _started(folder / "listing", images) as (_, url, mount):
        p99 = _listings(f"{url}/api/v1/restore/{mount}")
    medians = {name: statistics.median(values) for name, values in taken.items()}
    return ApiFigures(**medians, listing_p99_s=p99)


@contextmanager
def _started(folder: Path, images: Path) -> Iterator[tuple[Daemon, str, str]]:
    """A daemon that listens, its URL, and the mount of its disk."""
    folder.mkdir()
    options = ("--images", images, "--listen", "127.0.0.1:0", "--listen-insecure")
    with restorefs_daemon(folder, *options) as daemon:
        (url,) = daemon.listening()
        body = {"backup_id": _BACKUP, "disk_index": 0}
        answer = httpx.post(f"{url}api/v1/restore/mount", json=body, timeout=60)
        yield daemon, url.rstrip("/"), answer.raise_for_status().json()["mount_id"]


def _download(calls: str, image: Image) -> float:
    size = image.shape.big_mib * MIB
    begin = time.perf_counter()
    got = _curl(f"{calls}/download?path=/big")
    elapsed = time.perf_counter() - begin
    if got != size:
        raise BenchError(f"{got} of {size} bytes were downloaded")
    return image.shape.big_mib / elapsed


def _archive(calls: str, image: Image) -> float:
    begin = time.perf_counter()
    _curl(f"{calls}/archive?path=/small&format=tar.zst")
    return image.shape.small_files / (time.perf_counter() - begin)


def _tar(root: Path, image: Image) -> float:
    begin = time.perf_counter()
    # To a pipe: tar reads no content for /dev/null.
    run("sh", "-c", 'tar -C "$1" -cf - small | cat >/dev/null', "sh", root)
    return image.shape.small_files / (time.perf_counter() - begin)


def _curl(url: str) -> int:
    """Fetch and throw away; return the number of bytes."""
    return int(run("curl", "-sS", "--fail", "-o", "/dev/null", "-w", "%{size_download}", url))


def _listings(calls: str) -> float:
    """List a folder again and again while a download and an archive go on."""
    ended = threading.Event()

    def again(path: str) -> None:
        while not ended.is_set():
            _curl(calls + path)

    paths = ("/download?path=/big", "/archive?path=/small&format=tar.zst")
    others = [threading.Thread(target=again, args=(path,)) for path in paths]
    for other in others:
        other.start()
    times = []
    try:
        with httpx.Client(timeout=60) as client:
            for _ in range(_LISTINGS):
                begin = time.perf_counter()
                client.get(f"{calls}/files?path=/&limit=100").raise_for_status()
                times.append(time.perf_counter() - begin)
    finally:
        ended.set()
        for other in others:
            other.join()
    return statistics.quantiles(times, n=100)[-1]
