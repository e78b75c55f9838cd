"""The image of a RHEL server that is measured on.

Owns what is on it: a GPT disk with one LVM physical volume, in that one linear volume (so that the
kernel can be shown where it lies, without device-mapper), and on that XFS as the kernel writes it,
holding what the other Linux server's image holds.

Making it needs root, for loop devices.
"""

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.image import (
    MIB,
    PARTITION_START,
    Facts,
    Image,
    Shape,
    make_big,
    make_small,
    make_tree,
    once,
)
from bench.processes import BenchError, run, unmount

FULL = Shape(tree_files=42_000, small_files=8_000, big_mib=1024)
QUICK = Shape(tree_files=4_000, small_files=800, big_mib=128)
_VOLUME_START = MIB  # of the physical volume, whose metadata is before that
_LVM_TYPE = "E6D6D379-F507-44C2-A23C-238F2A3DF928"


def generated(folder: Path, shape: Shape, say: Callable[[str], None]) -> Image:
    """Return the RHEL server's image of that shape, generated unless it is there already."""
    return once(folder / "xfs", shape, "rhel-root", _generate, say)


def _generate(home: Path, shape: Shape, say: Callable[[str], None]) -> Facts:
    if os.geteuid() != 0:
        raise BenchError("only root can make the image of a RHEL server (loop devices)")
    disk, mountpoint = home / "disk", home / "mnt"
    mountpoint.mkdir()
    count = shape.tree_files + shape.small_files
    size = (shape.big_mib + 1024 + count * 12 // 1024) * MIB
    start = PARTITION_START + _VOLUME_START
    run("truncate", "-s", str(start + size + 2 * MIB), disk)
    table = f"label: gpt\nstart={PARTITION_START // 512}, type={_LVM_TYPE}\n"
    run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", disk, input=table)
    with _loop(disk, PARTITION_START, _VOLUME_START + size) as device:
        _make_volume(device)
    say(f"generating the RHEL image, once: {count:,} files")
    with _loop(disk, start, size) as device:
        run("mkfs.xfs", "-q", "-L", "bench", device)
        run("mount", device, mountpoint)
        try:
            chance = random.Random(20251008)
            make_tree(mountpoint / "tree", shape.tree_files, chance)
            small_bytes = make_small(mountpoint / "small", shape.small_files, chance)
            make_big(mountpoint / "big", shape.big_mib, chance)
            entries = sum(1 for _ in mountpoint.rglob("*")) + 1
        finally:
            unmount(mountpoint)
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, home / "image.qcow2")
    disk.unlink()
    shutil.rmtree(mountpoint)
    return Facts(size, entries, small_bytes, start)


@contextmanager
def _loop(disk: Path, start: int, size: int) -> Iterator[str]:
    where = ("--offset", str(start), "--sizelimit", str(size))
    device = run("losetup", "--find", "--show", *where, disk).strip()
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


def _make_volume(device: str) -> None:
    """Make a volume group of one linear volume, which begins at _VOLUME_START."""
    devices = f'devices{{filter=["a|^{device}$|","r|.*|"] use_devicesfile=0}}'
    settings = f"{devices} backup{{backup=0 archive=0}}"
    how = ("--quiet", "--driverloaded", "n", "--config", settings)
    unused = ("--activate", "n", "--wipesignatures", "n", "--zero", "n")
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "LVM_SYSTEM_DIR": folder, "LVM_SUPPRESS_FD_WARNINGS": "1"}
        for command in (
            ("pvcreate", "--dataalignment", f"{_VOLUME_START}b", device),
            ("vgcreate", "--physicalextentsize", "1m", "rhel", device),
            ("lvcreate", *unused, "--extents", "100%FREE", "--name", "root", "rhel"),
        ):
            run("lvm", command[0], *how, *command[1:], env=environment)
