"""The image of a Windows server that is measured on.

Owns what is on it: an NTFS file system on the whole disk, as mkntfs makes it and ntfs-3g writes it,
holding what the Linux server's image holds, and

    compressed/log   one file that NTFS stores compressed
    crowd/           a folder of very many files

Making it needs root, for ntfs-3g.
"""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from bench.image import MIB, Facts, Image, Shape, make_big, make_small, make_tree, once
from bench.processes import BenchError, run, unmount

FULL = Shape(tree_files=42_000, small_files=8_000, big_mib=1024, compressed_mib=256, crowd=100_000)
QUICK = Shape(tree_files=4_000, small_files=800, big_mib=128, compressed_mib=32, crowd=10_000)
_COMPRESSED = b"\x00\x00\x08\x10"  # a compressed folder, big-endian as ntfs-3g takes it


def generated(folder: Path, shape: Shape, say: Callable[[str], None]) -> Image:
    """Return the Windows server's image of that shape, generated unless it is there already."""
    return once(folder / "windows", shape, "", _generate, say)


def _generate(home: Path, shape: Shape, say: Callable[[str], None]) -> Facts:
    if os.geteuid() != 0:
        raise BenchError("only root can make the image of a Windows server (ntfs-3g writes it)")
    volume, mountpoint = home / "volume", home / "mnt"
    mountpoint.mkdir()
    count = shape.tree_files + shape.small_files + shape.crowd
    size = (shape.big_mib + shape.compressed_mib + 1024 + count * 5 // 1024) * MIB
    run("truncate", "-s", str(size), volume)
    run("mkntfs", "--quiet", "--force", "--fast", "--label", "bench", volume)
    run("ntfs-3g", volume, mountpoint, "-o", "compression,big_writes")
    try:
        chance = random.Random(20251008)
        say(f"generating the Windows image, once: {shape.tree_files + shape.small_files:,} files")
        make_tree(mountpoint / "tree", shape.tree_files, chance)
        small_bytes = make_small(mountpoint / "small", shape.small_files, chance)
        say(f"generating the Windows image, once: {shape.crowd:,} files in one folder")
        (mountpoint / "crowd").mkdir()
        for number in range(shape.crowd):
            (mountpoint / "crowd" / f"file number {number:06}.txt").touch()
        say("generating the Windows image, once: a big file and a compressed one")
        make_big(mountpoint / "big", shape.big_mib, chance)
        _make_compressed(mountpoint / "compressed" / "log", shape.compressed_mib, chance)
        entries = sum(1 for _ in mountpoint.rglob("*")) + 1
    finally:
        unmount(mountpoint)
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", volume, home / "image.qcow2")
    volume.unlink()
    shutil.rmtree(mountpoint)
    return Facts(size, entries, small_bytes)


def _make_compressed(path: Path, mib: int, chance: random.Random) -> None:
    """Lines of a log: compressible, and not all the same."""
    words = [
        bytes(chance.choices(b"abcdefghijklmnopqrstuvwxyz", k=chance.randint(3, 9)))
        for _ in range(150)
    ]
    path.parent.mkdir()
    os.setxattr(path.parent, "system.ntfs_attrib_be", _COMPRESSED)  # for what is made in it
    with open(path, "wb") as file:
        for _ in range(mib):
            text = b" ".join(chance.choices(words, k=MIB // 4))
            file.write(text[:MIB])
    if path.stat().st_blocks * 512 > mib * MIB * 3 // 4:
        raise BenchError(f"{path} was not compressed")
