"""The images that everything is measured on, and the one of a Linux server.

Owns what is on it. Generated once, the same each time, and kept in a folder that git ignores:
a GPT disk as qcow2 with one ext4 partition holding

    tree/       files in a realistic tree: many small, few large, some links
    small/      small files to copy
    big         one large file of random bytes
"""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.processes import run

MIB = 1 << 20
PARTITION_START = MIB


@dataclass(frozen=True)
class Shape:
    """How much is on the image."""

    tree_files: int
    small_files: int
    big_mib: int
    compressed_mib: int = 0
    crowd: int = 0  # files in one folder


FULL = Shape(tree_files=60_000, small_files=8_000, big_mib=1024)
QUICK = Shape(tree_files=5_000, small_files=800, big_mib=128)


@dataclass(frozen=True)
class Facts:
    """entries: what `find -ls` lists below the root. start: where the volume begins on the disk."""

    partition_size: int
    entries: int
    small_bytes: int
    start: int = PARTITION_START


@dataclass(frozen=True)
class Image:
    """volume: the file system's folder below the disk's; empty where it is the disk's own."""

    path: Path
    shape: Shape
    volume: str
    facts: Facts


Generate = Callable[[Path, Shape, Callable[[str], None]], Facts]


def generated(folder: Path, shape: Shape, say: Callable[[str], None]) -> Image:
    """Return the Linux server's image of that shape, generated unless it is there already."""
    return once(folder / "linux", shape, "part1", _generate, say)


def once(
    folder: Path, shape: Shape, volume: str, generate: Generate, say: Callable[[str], None]
) -> Image:
    """Return the image of a shape, made by `generate` (as image.qcow2 in a folder that it is given)
    unless it is there already."""
    home = folder / f"{shape.tree_files}-{shape.small_files}-{shape.big_mib}"
    known = home / "facts.json"
    if not known.exists():
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        facts = generate(home, shape, say)
        known.write_text(json.dumps(asdict(facts)))
    return Image(home / "image.qcow2", shape, volume, Facts(**json.loads(known.read_text())))


def _generate(home: Path, shape: Shape, say: Callable[[str], None]) -> Facts:
    source, partition, disk = home / "source", home / "partition", home / "disk"
    say(f"generating the image, once: {shape.tree_files + shape.small_files:,} files")
    chance = random.Random(20251008)
    make_tree(source / "tree", shape.tree_files, chance)
    small_bytes = make_small(source / "small", shape.small_files, chance)
    say(f"generating the image, once: a file of {shape.big_mib:,} MiB")
    make_big(source / "big", shape.big_mib, chance)
    entries = sum(1 for _ in source.rglob("*")) + 1 + 1  # the root, and lost+found

    say("generating the image, once: mkfs.ext4 and qemu-img")
    content = int(run("du", "-sm", source).split()[0])
    size = int(content * 1.25 + 128) * MIB
    run("truncate", "-s", str(size), partition)
    run("mkfs.ext4", "-q", "-L", "bench", "-d", source, partition)
    shutil.rmtree(source)
    run("truncate", "-s", str(PARTITION_START + size + MIB), disk)
    script = f"label: gpt\nstart={PARTITION_START // 512}, size={size // 512}, type=L\n"
    (home / "table").write_text(script)
    run("sh", "-c", f"sfdisk --quiet --no-reread --no-tell-kernel '{disk}' < '{home}/table'")
    run("dd", f"if={partition}", f"of={disk}", "bs=1M", "seek=1", "conv=sparse,notrunc")
    partition.unlink()
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, home / "image.qcow2")
    disk.unlink()
    return Facts(size, entries, small_bytes)


def make_tree(root: Path, files: int, chance: random.Random) -> None:
    """Folders of very different sizes up to six deep; log-normal file sizes around 2 KiB."""
    root.mkdir(parents=True)
    folders = [root]
    made = 0
    while made < files:
        parent = chance.choice(folders)
        if len(parent.relative_to(root).parts) >= 6:
            continue
        folder = parent / f"{chance.choice(_WORDS)}-{len(folders)}"
        folder.mkdir()
        folders.append(folder)
        for _ in range(min(int(chance.lognormvariate(2.0, 1.2)) + 1, 2_000, files - made)):
            name = folder / f"{chance.choice(_WORDS)}_{made}.{chance.choice(_SUFFIXES)}"
            if chance.random() < 0.06:
                name.symlink_to(f"../{chance.choice(_WORDS)}/{made}")
            else:
                size = min(int(chance.lognormvariate(7.6, 1.5)), 4 * MIB)
                name.write_bytes(chance.randbytes(size))
            made += 1


def make_small(root: Path, files: int, chance: random.Random) -> int:
    """A hundred files of 1 to 8 KiB in each folder; returns their bytes."""
    total = 0
    for number in range(files):
        folder = root / f"{number // 100:03}"
        folder.mkdir(parents=True, exist_ok=True)
        content = chance.randbytes(chance.randint(1024, 8192))
        (folder / f"{number:05}.dat").write_bytes(content)
        total += len(content)
    return total


def make_big(path: Path, mib: int, chance: random.Random) -> None:
    """One file of random bytes."""
    with open(path, "wb") as big:
        for _ in range(mib):
            big.write(chance.randbytes(MIB))


_WORDS = ("data", "cache", "index", "lib", "share", "doc", "module", "report", "image", "backup")
_SUFFIXES = ("txt", "py", "so", "json", "html", "png", "conf", "gz", "dat")
