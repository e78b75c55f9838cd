"""File systems that are damaged, or made to do harm.

Owns what is wrong with each: done with debugfs, or byte by byte. Knows nothing of restorefs.
"""

import os
from contextlib import ExitStack
from pathlib import Path

from tests.images.ext import debugfs, file_blocks, inode_offset, patch, peek
from tests.mounted.disks import MIB, ext

LEVELS = 40
LONG_LEVELS = 90


def damaged(folder: Path) -> Path:
    """An ext4 in which the inodes of a folder and of a file have wrong checksums."""
    source = folder / "damaged"
    for name in ("sound", "broken", "other"):
        (source / "nest" / name).mkdir(parents=True)
        (source / "nest" / name / "inside").write_text(f"{name}\n")
    (source / "nest" / "victim").write_text("victim\n")
    for name, target in (
        ("bad", "../nest/broken/inside"),
        ("none", "nothing"),
        ("good", "../nest"),
    ):
        (source / "links").mkdir(exist_ok=True)
        (source / "links" / name).symlink_to(target)
    (source / "long.txt").write_text("0123456789abcde\n" * 50_000)
    (source / "RESTOREFS-ERRORS.txt").write_text("the guest's own\n")
    volume = ext(folder / "damaged.img", "ext4", source, 8 * MIB, "-O", "metadata_csum")
    for path in ("/nest/broken", "/nest/victim"):
        patch(volume, inode_offset(volume, path) + 24, b"\xff\xff")  # its owners' group
    return volume


def looped(folder: Path) -> Path:
    """An ext4 in which a folder holds itself, twice, and others lie in two places each."""
    source = folder / "looped"
    (source / "loop").mkdir(parents=True)
    (source / "loop" / "file").write_text("in a loop\n")
    below = source / "ladder"
    below.mkdir()
    for _ in range(LEVELS):
        below /= "a"
        below.mkdir()
    (below / "file").write_text("at the end\n")
    volume = ext(folder / "looped.img", "ext4", source, 8 * MIB)
    changes = ["ln /loop /loop/again", "ln /loop /loop/and-again"]
    path = "/ladder"
    for _ in range(LEVELS):
        changes.append(f"ln {path}/a {path}/b")
        path += "/a"
    debugfs(volume, *changes, write=True)
    return volume


def twins(folder: Path) -> Path:
    """An ext4 with a link and a folder, and two files, of one name each; and a link whose target
    lies behind the volume's end."""
    source = folder / "twins"
    (source / "in").mkdir(parents=True)
    (source / "in" / "first").write_text("first\n")
    (source / "in" / "twin").symlink_to("/outside")
    (source / "links").mkdir()
    (source / "links" / "far").symlink_to("x" * 100)
    second = folder / "second"
    second.write_text("second\n")
    volume = ext(folder / "twins.img", "ext4", source, 8 * MIB, "-O", "^metadata_csum")
    debugfs(
        volume,
        *("mkdir /in/twi2", f"write {second} /in/twi2/passwd", f"write {second} /in/firs2"),
        write=True,
    )
    (block,) = file_blocks(volume, "/in")
    names = peek(volume, block * 1024, 1024)
    patch(volume, block * 1024, names.replace(b"twi2", b"twin").replace(b"firs2", b"first"))
    extent = inode_offset(volume, "/links/far") + 40 + 12
    patch(volume, extent + 8, b"\xff\xff\xff\x0f")  # ee_start_lo
    return volume


def long(folder: Path) -> Path:
    """An ext4 with folders in folders, whose names are not UTF-8: in a zip, a byte takes three."""
    source = folder / "long"
    source.mkdir()
    with ExitStack() as stack:
        here = os.open(source, os.O_RDONLY)
        stack.callback(os.close, here)
        for _ in range(LONG_LEVELS):
            os.mkdir(b"\xff" * 255, dir_fd=here)
            here = os.open(b"\xff" * 255, os.O_RDONLY, dir_fd=here)
            stack.callback(os.close, here)
    (source / "short").write_text("short\n")
    return ext(folder / "long.img", "ext4", source, 8 * MIB)
