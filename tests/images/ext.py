"""Recipes for ext2, ext3 and ext4 images: one for each feature and each known wrong answer.

Owns how an image gets a feature: by mke2fs, the kernel, debugfs, or a patch where no program
would write such a thing. Knows nothing of the reader. Images are small and sparse; each is built
once per test session, when a test first asks for it.

Concurrency: none.
"""

# ruff: noqa: PTH108, PTH211 - many paths here are bytes, which pathlib does not take

import fcntl
import os
import re
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.images import tree
from tests.tools import fuse2fs_mount, loop_mount, require, require_root, run

MIB = 1 << 20
SUPERBLOCK, S_DESC_SIZE = 1024, 0xFE
I_MODE, I_UID, I_SIZE, I_CTIME, I_DTIME, I_GID, I_LINKS = 0x00, 0x02, 0x04, 0x0C, 0x14, 0x18, 0x1A
I_BLOCKS, I_FLAGS, I_BLOCK, I_FILE_ACL, I_SIZE_HIGH = 0x1C, 0x20, 0x28, 0x68, 0x6C
I_BLOCKS_HIGH, I_FILE_ACL_HIGH, I_UID_HIGH = 0x74, 0x76, 0x78
I_CTIME_EXTRA, I_CRTIME = 0x84, 0x90
"""Where fields lie in an inode (ext4's documentation, "Index Nodes")."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an image is built. kind: what the kernel mounts it as, or "fuse2fs" if it does not."""

    name: str
    kind: str
    build: Callable[[Path], None]

    def mounted(self, image: Path) -> AbstractContextManager[Path]:
        """Mount the image read-only, without journal replay, by the program to be believed."""
        if self.kind == "fuse2fs":
            return fuse2fs_mount(image)
        return loop_mount(image, self.kind, MOUNT_OPTIONS[self.kind])


MOUNT_OPTIONS = {
    "ext2": "ro,noatime",
    "ext3": "ro,noatime,noload",
    "ext4": "ro,noatime,noload",
}


RECIPES: dict[str, Recipe] = {}


def recipe(kind: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Enter a function that builds an image at a path into RECIPES, under its own name."""

    def enter(build: Callable[[Path], None]) -> Callable[[Path], None]:
        RECIPES[build.__name__] = Recipe(build.__name__, kind, build)
        return build

    return enter


class Images:
    """The images of one test session, built when first asked for. They must not be changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str) -> Path:
        """Return an image's path. Skips the test when a tool for it is missing."""
        require("mke2fs", "debugfs", "tune2fs", "resize2fs", "e2fsck", "setfacl", "fallocate")
        require_root()
        path = self._folder / f"{name}.img"
        if not path.exists():
            unfinished = self._folder / f"{name}.unfinished"
            unfinished.unlink(missing_ok=True)
            RECIPES[name].build(unfinished)
            unfinished.chmod(0o444)
            unfinished.rename(path)
        return path


@pytest.fixture(scope="session")
def ext_images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return Images(tmp_path_factory.mktemp("ext"))


# Programs


def mke2fs(image: Path, kind: str, size: int, *options: str, extended: str = "") -> None:
    """Make an empty file system of `size` bytes with a fixed UUID and hash seed.

    extended: more of mke2fs' extended options, each with a comma in front.
    """
    with image.open("wb") as file:
        file.truncate(size)
    run(
        "mke2fs", "-q", "-F", "-t", kind,
        "-U", "6f0d6c1e-1c2a-4f0e-9f0b-2f4b8f2f9a01",
        "-L", "a label",
        "-E", "hash_seed=11223344-5566-7788-99aa-bbccddeeff00,lazy_itable_init=1,"
        f"lazy_journal_init=1,nodiscard{extended}",
        *options, image,
    )  # fmt: skip


@contextmanager
def writable(image: Path, kind: str = "ext4", options: str = "") -> Iterator[Path]:
    """Mount an image to put files into it."""
    with loop_mount(image, kind, f"rw,noatime,noinit_itable{options}") as root:
        yield root


def debugfs(image: Path, *commands: str, write: bool = False) -> str:
    """Run debugfs commands and return what they printed. AssertionError if one complains."""
    done = subprocess.run(
        ["debugfs", *(["-w"] if write else []), "-f", "-", str(image)],
        input="".join(f"{command}\n" for command in commands),
        capture_output=True,
        text=True,
        errors="backslashreplace",
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("debugfs 1.")]
    assert (done.returncode, complaints[:9]) == (0, []), f"debugfs {commands[:9]}"
    lines = done.stdout.splitlines()
    return "\n".join(line for line in lines if not line.startswith("debugfs: "))


def e2fsck(image: Path, *options: str) -> None:
    """Let e2fsck mend an image; it must succeed in that (0: nothing to do, 1: mended)."""
    done = subprocess.run(["e2fsck", "-fy", *options, str(image)], capture_output=True, check=False)
    assert done.returncode in (0, 1), done


def inode_number(image: Path, path: str) -> int:
    """Return the inode of a path, as debugfs finds it."""
    return int(debugfs(image, f'stat "{path}"').split("Inode:")[1].split()[0])


def file_blocks(image: Path, path: str) -> list[int]:
    """Return a file's blocks, its map's own among them, as debugfs lists them."""
    return [int(number) for number in debugfs(image, f'blocks "{path}"').split()]


def data_blocks(image: Path, path: str) -> set[int]:
    """Return the blocks that hold the content of a file with extents, without its map's own."""
    extents = debugfs(image, f'stat "{path}"').partition("EXTENTS:")[2]
    blocks: set[int] = set()
    for first, last in re.findall(r"\([\d-]+\):(\d+)(?:-(\d+))?", extents):
        blocks |= set(range(int(first), int(last or first) + 1))
    return blocks


def block_of(image: Path, path: str, number: int) -> int:
    """Return the block that holds one of a file's or folder's blocks, counted from 0."""
    return int(debugfs(image, f'bmap "{path}" {number}'))


def inode_offset(image: Path, path: str) -> int:
    """Return where a path's inode lies in the image."""
    found = re.search(r"block (\d+), offset (0x\w+)", debugfs(image, f'imap "{path}"'))
    assert found
    return int(found[1]) * block_size(image) + int(found[2], 16)


def patch(image: Path, offset: int, data: bytes) -> None:
    """Overwrite bytes of an image."""
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def peek(image: Path, offset: int, length: int) -> bytes:
    with image.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def inode_size(image: Path) -> int:
    """Return s_inode_size (at 88)."""
    (size,) = struct.unpack("<H", peek(image, SUPERBLOCK + 88, 2))
    return int(size)


def block_size(image: Path) -> int:
    """Return the block size that the superblock's s_log_block_size (at 24) tells."""
    (log,) = struct.unpack("<I", peek(image, SUPERBLOCK + 24, 4))
    return 1024 << int(log)


# Every feature, as mke2fs and the kernel make it


def common_tree(image: Path, kind: str, block: int, entries: int = 400) -> None:
    """Fill an image with what every kind can hold, and one folder of so many entries."""
    with writable(image, kind) as root:
        tree.make_common(root, block, entries)
        base = os.fsencode(root)
        if block <= 2048:
            tree.make_indirect_holes(base, block)
        if kind == "ext4":
            tree.make_unwritten(base, block)


@recipe("ext4")
def ext4_default(image: Path) -> None:
    """What mke2fs makes today, in 4 KiB blocks."""
    mke2fs(image, "ext4", 64 * MIB, "-b", "4096", "-I", "256")
    common_tree(image, "ext4", 4096, entries=3000)


@recipe("ext4")
def ext4_1k_old_features(image: Path) -> None:
    """1 KiB blocks without 64bit, checksums and flexible groups; extent trees three levels deep."""
    mke2fs(
        image, "ext4", 128 * MIB, "-b", "1024", "-I", "256",
        "-O", "^64bit,^metadata_csum,^flex_bg,^uninit_bg",
    )  # fmt: skip
    common_tree(image, "ext4", 1024)
    with writable(image) as root:
        base = os.fsencode(root)
        # One inode holds 4 extents, one block of 1 KiB 84: this many need a third level.
        every_second = ((2 * n * 1024, b"%d" % n) for n in range(4 * 84 * 84 + 100))
        tree.write(base + b"/deep-extents", *every_second)
        tree.make_last_entry_at_block_end(base, 1024, tail=0)
    assert " 3/ 3 " in debugfs(image, "dump_extents /deep-extents")


@recipe("ext4")
def ext4_2k_inode_128(image: Path) -> None:
    """2 KiB blocks, and inodes without room for nanoseconds or attributes; checksums."""
    mke2fs(image, "ext4", 64 * MIB, "-b", "2048", "-I", "128", "-O", "metadata_csum,64bit")
    common_tree(image, "ext4", 2048)


@recipe("ext4")
def ext4_1k_checksums(image: Path) -> None:
    """1 KiB blocks with checksums, so that every kind of block has its tail."""
    mke2fs(image, "ext4", 64 * MIB, "-b", "1024", "-I", "256", "-O", "metadata_csum,64bit")
    common_tree(image, "ext4", 1024)
    with writable(image) as root:
        tree.make_last_entry_at_block_end(os.fsencode(root), 1024, tail=12)


@recipe("ext4")
def ext4_gdt_checksums(image: Path) -> None:
    """The older group checksums (uninit_bg) with uninitialised groups; no journal."""
    mke2fs(
        image, "ext4", 128 * MIB, "-b", "1024",
        "-O", "uninit_bg,^metadata_csum,^64bit,^has_journal",
    )  # fmt: skip
    common_tree(image, "ext4", 1024)


@recipe("ext4")
def ext4_bigalloc(image: Path) -> None:
    """Clusters of 16 blocks."""
    mke2fs(image, "ext4", 128 * MIB, "-b", "1024", "-C", "16384", "-O", "bigalloc")
    common_tree(image, "ext4", 1024)


@recipe("ext4")
def ext4_bigalloc_4k(image: Path) -> None:
    """Clusters of 64 KiB of 4 KiB blocks."""
    mke2fs(image, "ext4", 256 * MIB, "-b", "4096", "-C", "65536", "-O", "bigalloc")
    common_tree(image, "ext4", 4096)


@recipe("ext4")
def ext4_meta_bg(image: Path) -> None:
    """Group descriptors spread over several meta block groups."""
    mke2fs(
        image, "ext4", 64 * MIB, "-b", "1024", "-g", "1024", "-N", "8192",
        "-O", "meta_bg,^resize_inode,64bit,^flex_bg",
    )  # fmt: skip
    common_tree(image, "ext4", 1024)


@recipe("ext4")
def ext4_meta_bg_32bit(image: Path) -> None:
    """The same with group descriptors of 32 bytes, behind a first part that is not spread."""
    mke2fs(
        image, "ext4", 64 * MIB, "-b", "1024", "-g", "512", "-N", "8192",
        "-O", "meta_bg,^resize_inode,^64bit,flex_bg,^metadata_csum",
    )  # fmt: skip
    common_tree(image, "ext4", 1024)


@recipe("ext4")
def ext4_large_descriptors(image: Path) -> None:
    """Group descriptors of 128 bytes, larger than anybody fills."""
    mke2fs(image, "ext4", 32 * MIB, "-b", "1024", "-g", "512", "-O", "64bit,^flex_bg",
           extended=",desc_size=128")  # fmt: skip
    assert peek(image, SUPERBLOCK + S_DESC_SIZE, 2) == b"\x80\0"
    common_tree(image, "ext4", 1024)


@recipe("ext4")
def ext4_far_offsets(image: Path) -> None:
    """A file of almost 16 TiB, nearly all of it holes, and one of 4 TiB with unwritten blocks."""
    mke2fs(image, "ext4", 16 * MIB, "-b", "4096")
    with writable(image) as root:
        end = (1 << 44) - 4096
        tree.write(
            os.fsencode(root / "far"),
            (0, b"first"),
            (1 << 43, b"middle"),
            (end - 3, b"end"),
        )
        unwritten = root / "unwritten"
        tree.write(os.fsencode(unwritten), size=1 << 42)
        run("fallocate", "-o", str(1 << 41), "-l", str(1 << 20), unwritten)


@recipe("ext4")
def ext4_sparse_super2(image: Path) -> None:
    mke2fs(image, "ext4", 64 * MIB, "-b", "1024", "-O", "sparse_super2,^resize_inode", "-G", "4")
    common_tree(image, "ext4", 1024)


@recipe("ext4")
def ext4_inline_256(image: Path) -> None:
    """Inline files and folders in inodes of 256 bytes, checksums on."""
    mke2fs(image, "ext4", 64 * MIB, "-b", "4096", "-I", "256", "-O", "inline_data")
    common_tree(image, "ext4", 4096)
    inline_tree(image, 200)


@recipe("ext4")
def ext4_inline_512(image: Path) -> None:
    """Inline files and folders in inodes of 512 bytes, checksums off."""
    mke2fs(
        image, "ext4", 64 * MIB, "-b", "1024", "-I", "512",
        "-O", "inline_data,^metadata_csum",
    )  # fmt: skip
    common_tree(image, "ext4", 1024)
    inline_tree(image, 450)


@recipe("ext4")
def ext4_inline_1024(image: Path) -> None:
    mke2fs(image, "ext4", 64 * MIB, "-b", "2048", "-I", "1024", "-O", "inline_data")
    common_tree(image, "ext4", 2048)
    inline_tree(image, 950)


def inline_tree(image: Path, longest: int) -> None:
    """Add inline files of every length, folders that just fit, and links as debugfs makes them."""
    with writable(image) as root:
        base = os.fsencode(root)
        files = tree.folder(base, b"inline-files")
        for length in range(1, longest, 1 if longest <= 256 else 7):
            tree.write(b"%s/%d" % (files, length), (0, tree.content(length, length)))
        tree.write(files + b"/hole-in-front", (50, b"x"))
        tree.write(files + b"/cut", (0, bytes(range(1, 121))), size=20)
        tree.write(files + b"/grown", (0, b"y" * 20), size=58)
        for length in (10, 60, 70, 100):
            path = b"%s/with-attributes-%d" % (files, length)
            tree.write(path, (0, tree.content(path, length)))
            os.setxattr(path, "user.a", b"value of a")
            os.setxattr(path, "user.large", tree.content("large", 600))
        folders = tree.folder(base, b"inline-folders")
        for count in (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 40, 60):
            inside = tree.folder(folders, b"with-%d" % count)
            for number in range(count):
                tree.write(b"%s/%03d" % (inside, number), (0, b"%d" % number))
        nested = folders
        for name in (
            b"a",
            b"bb",
            b"a-name-too-long-for-the-first-56-bytes-of-its-folder-xxxx",
            b"c",
        ):
            nested = tree.folder(nested, name)
        emptied = tree.folder(folders, b"emptied")
        stale = tree.folder(folders, b"stale")
        for number in range(5):
            tree.write(b"%s/%d" % (emptied, number))
            tree.write(b"%s/%d" % (stale, number))
        for number in range(5):
            os.unlink(b"%s/%d" % (emptied, number))
            if number % 2 == 0:
                os.unlink(b"%s/%d" % (stale, number))
    lengths = (1, 58, 59, 60, 61, 80, 100)
    names = {length: str(length) * 60 for length in lengths}
    debugfs(
        image,
        "mkdir /inline-symlinks",
        *(f"symlink /inline-symlinks/{n} {names[n][:n]}" for n in lengths),
        write=True,
    )
    for inline in ("inline-files/85", "inline-folders/with-5", "inline-symlinks/80"):
        assert "Flags: 0x10000000" in debugfs(image, f"stat /{inline}"), f"{inline} is not inline"


@recipe("ext4")
def ext4_checksum_seed(image: Path) -> None:
    """The checksums' seed is kept while the UUID has been changed."""
    mke2fs(image, "ext4", 64 * MIB, "-b", "1024", "-O", "metadata_csum,metadata_csum_seed")
    common_tree(image, "ext4", 1024)
    run("tune2fs", "-U", "11111111-2222-3333-4444-555555555555", image)


@recipe("ext4")
def ext4_ea_inode(image: Path) -> None:
    """Attribute values that have inodes of their own, shared ones among them."""
    mke2fs(image, "ext4", 64 * MIB, "-b", "1024", "-O", "ea_inode,metadata_csum")
    common_tree(image, "ext4", 1024)
    with writable(image) as root:
        base = tree.folder(os.fsencode(root), b"ea-inodes")
        for length in (1025, 4096, 20_000, 65_536):
            path = b"%s/%d" % (base, length)
            tree.write(path)
            os.setxattr(path, "user.large", tree.content(length, length))
            os.setxattr(path, "user.small", b"beside it")
        for name in (b"shared-1", b"shared-2"):
            tree.write(base + b"/" + name)
            os.setxattr(base + b"/" + name, "user.shared", tree.content("shared", 9000))
        tree.write(base + b"/several")
        for number in range(20):
            os.setxattr(base + b"/several", f"user.{number}", tree.content(number, 3000))
        os.setxattr(base, "trusted.large", tree.content("folder", 5000))


@recipe("ext4")
def ext4_many_features(image: Path) -> None:
    """Features that change nothing for a reader, or little."""
    mke2fs(
        image, "ext4", 64 * MIB, "-b", "1024", "-I", "256",
        "-O", "orphan_file,fast_commit,large_dir,stable_inodes,huge_file,encrypt",
    )  # fmt: skip
    common_tree(image, "ext4", 1024)
    # With these, a kernel may refuse to write, or wait long before it does.
    run("tune2fs", "-O", "verity,quota,project,mmp", image)


@recipe("ext4")
def ext4_odd_inodes(image: Path) -> None:
    """Inodes with values that are legal and rare, every high half in use."""
    mke2fs(image, "ext4", 16 * MIB, "-b", "4096", "-O", "^metadata_csum,huge_file,dir_nlink")
    odd_inodes(image, "ext4")


@recipe("ext2")
def ext2_odd_inodes(image: Path) -> None:
    """The same where the features are missing that give most of these values a meaning."""
    mke2fs(image, "ext2", 16 * MIB, "-b", "1024", "-I", "128")
    odd_inodes(image, "ext2")


def odd_inodes(image: Path, kind: str) -> None:
    patches = {
        "counted-in-blocks": ((I_BLOCKS, "<I", 7), (I_FLAGS, "<I", 0xC0000)),
        "many-blocks": ((I_BLOCKS, "<I", 0xFFFF_FFFF), (I_BLOCKS_HIGH, "<H", 0x1234)),
        "owners": ((I_UID, "<H", 1), (I_GID, "<H", 0xFFFE), (I_UID_HIGH, "<HH", 0x1234, 0xFFFF)),
        "attributes": ((I_FILE_ACL_HIGH, "<H", 0),),
        "folder": ((I_LINKS, "<H", 1), (I_SIZE_HIGH, "<I", 3)),
        "symlink": ((I_SIZE_HIGH, "<I", 3),),
        "deleted-once": ((I_DTIME, "<I", 12345),),
    }
    if kind == "ext2":
        patches["counted-in-blocks"] = ((I_BLOCKS, "<I", 7), (I_FLAGS, "<I", 0x40000))
        patches["attributes"] = ((I_FILE_ACL_HIGH, "<H", 0x77),)
    with writable(image, kind) as root:
        base = os.fsencode(root)
        for name in patches:
            if name == "folder":
                tree.folder(tree.folder(base, b"folder"), b"below")
            elif name == "symlink":
                os.symlink(b"target", base + b"/symlink")
            else:
                tree.write(os.fsencode(root / name), (0, tree.content(name, 5000)))
        os.setxattr(base + b"/attributes", "user.large", tree.content("large", 600))
        os.setxattr(base + b"/many-blocks", "gnu.translator", b"of the Hurd")
    for name, fields in patches.items():
        inode = inode_offset(image, f"/{name}")
        for offset, form, *values in fields:
            patch(image, inode + offset, struct.pack(form, *values))


@recipe("ext4")
def ext4_from_ext3(image: Path) -> None:
    """An ext3 that became an ext4: old files have block maps, new ones extents."""
    mke2fs(image, "ext3", 64 * MIB, "-b", "1024", "-I", "256")
    common_tree(image, "ext3", 1024)
    run("tune2fs", "-O", "extents,uninit_bg,huge_file,dir_nlink,extra_isize", image)
    e2fsck(image)
    with writable(image) as root:
        new = tree.folder(os.fsencode(root), b"new")
        tree.make_sizes(new, 1024)
        tree.make_unwritten(new, 1024)


@recipe("ext4")
def ext4_grown(image: Path) -> None:
    """Grown after it was filled, into reserved group descriptors."""
    mke2fs(image, "ext4", 24 * MIB, "-b", "1024")
    with writable(image) as root:
        tree.make_sizes(os.fsencode(root), 1024)
    with image.open("r+b") as file:
        file.truncate(96 * MIB)
    e2fsck(image)
    run("resize2fs", image)
    with writable(image) as root:
        later = tree.folder(os.fsencode(root), b"later")
        for number in range(40):
            tree.make_sizes(tree.folder(later, b"%d" % number), 1024)


@recipe("ext4")
def ext4_blocks_beyond_32_bits(image: Path) -> None:
    """More than 2**32 blocks, with something of every kind behind the first 2**32."""
    mke2fs(
        image, "ext4", (9 << 39), "-b", "1024", "-C", "65536", "-N", "200000", "-O",
        "bigalloc,64bit,^has_journal,^flex_bg,sparse_super2,^resize_inode,^metadata_csum,uninit_bg",
    )  # fmt: skip
    with writable(image) as root:
        base = os.fsencode(root)
        # The kernel spreads folders of the root over all groups, and their attributes with them.
        for number in range(60):
            inside = tree.folder(base, b"folder-%d" % number)
            os.setxattr(inside, "user.large", tree.content(number, 500))
            tree.write(inside + b"/file", (0, tree.content(number, 3000)))
        tree.write(base + b"/moved", (0, tree.content("moved", 3000)))
    far = (1 << 32) + 9_876
    inode = inode_offset(image, "/moved")
    patch(image, far * 1024, peek(image, file_blocks(image, "/moved")[0] * 1024, 3072))
    patch(image, inode + I_BLOCK + 12 + 6, struct.pack("<HI", far >> 32, far & 0xFFFF_FFFF))
    assert file_blocks(image, "/moved")[0] == far
    farthest = max(range(60), key=lambda number: file_blocks(image, f"/folder-{number}"))
    assert file_blocks(image, f"/folder-{farthest}")[0] > 1 << 32
    assert inode_offset(image, f"/folder-{farthest}") > 1 << 42
    shown = debugfs(image, f"stat /folder-{farthest}")
    assert int(shown.split("File ACL:")[1].split()[0]) > 1 << 32


# ext2 and ext3


@recipe("ext2")
def ext2_1k(image: Path) -> None:
    mke2fs(image, "ext2", 64 * MIB, "-b", "1024", "-I", "128")
    common_tree(image, "ext2", 1024, entries=700)
    with writable(image, "ext2") as root:
        tree.make_last_entry_at_block_end(os.fsencode(root), 1024, tail=0)
    patch(image, 0, b"BOOT" * 256)


@recipe("ext2")
def ext2_4k_inode_256(image: Path) -> None:
    mke2fs(image, "ext2", 64 * MIB, "-b", "4096", "-I", "256")
    common_tree(image, "ext2", 4096)
    patch(image, 0, b"BOOT" * 256)


@recipe("ext2")
def ext2_first_revision(image: Path) -> None:
    """Revision 0, without file types in folders, as the first ext2 was."""
    mke2fs(image, "ext2", 32 * MIB, "-b", "1024", "-r", "0")
    with writable(image, "ext2") as root:
        base = os.fsencode(root)
        tree.make_sizes(base, 1024)
        tree.make_names(base)
        tree.make_symlinks(base, 1023)
        tree.make_special(base)
        tree.make_folders(base, 300)


@recipe("ext3")
def ext3_1k(image: Path) -> None:
    mke2fs(image, "ext3", 64 * MIB, "-b", "1024", "-I", "256")
    common_tree(image, "ext3", 1024)
    patch(image, 0, b"BOOT" * 256)


@recipe("ext3")
def ext3_2k(image: Path) -> None:
    mke2fs(image, "ext3", 64 * MIB, "-b", "2048", "-I", "128")
    common_tree(image, "ext3", 2048)


@recipe("ext3")
def ext3_4k_over_4_gib(image: Path) -> None:
    """A sparse file with a triple-indirect end behind 4 GiB."""
    mke2fs(image, "ext3", 64 * MIB, "-b", "4096", "-I", "128")
    with writable(image, "ext3") as root:
        base = os.fsencode(root)
        tree.make_indirect_holes(base, 4096)
        end = 1 << 32
        tree.write(base + b"/at-4-gib", (end - 3, b"before and after"), size=end + 100_000)
        tree.write(base + b"/hole-over-4-gib", size=end + 5)


# Folders with an index


@recipe("ext4")
def ext4_indexed_folders(image: Path) -> None:
    """One folder per hash function, each with bytes over 127 in names, and two index levels."""
    mke2fs(image, "ext4", 64 * MIB, "-b", "1024", "-N", "4096", "-O", "^metadata_csum")
    indexed_folders(image)


@recipe("ext4")
def ext4_indexed_folders_unsigned(image: Path) -> None:
    """The same hashed with unsigned characters, as on ARM, and with checksums."""
    mke2fs(image, "ext4", 64 * MIB, "-b", "1024", "-N", "4096", "-O", "metadata_csum")
    debugfs(image, "set_super_value flags 2", write=True)
    indexed_folders(image)
    for algorithm in HASH_ALGORITHMS:
        assert "Indirect levels: 1" in debugfs(image, f"htree /{algorithm}/long-names")
    # Names of one hash go on in the next block.
    assert "a45bb38b (**)" in debugfs(image, "htree /legacy/colliding-names")


HASH_ALGORITHMS = ("legacy", "half_md4", "tea")

COLLIDING_NAMES = tuple(
    b"p" * 247 + end
    for end in (b"00763ae1", b"010ef04b", b"016e2063", b"0357d73b", b"04aa05c5", b"0588e892")
)
"""Names whose legacy hash is 0xa45bb38a, too many for one block of 1 KiB (debugfs: dx_hash)."""


def indexed_folders(image: Path) -> None:
    for algorithm in HASH_ALGORITHMS:
        run("tune2fs", "-E", f"hash_alg={algorithm}", image)
        with writable(image) as root:
            base = tree.folder(os.fsencode(root), algorithm.encode())
            target = base + b"/target"
            tree.write(target, (0, b"all links"))
            short = tree.folder(base, b"short-names")
            for number in range(1200):
                os.link(target, b"%s/%d-\xe9\xff\x80" % (short, number))
            # Three of these fill a block of 1 KiB: one index block is not enough.
            long = tree.folder(base, b"long-names")
            for number in range(700):
                name = b"%d-\xf0" % number
                os.link(target, long + b"/" + name + b"n" * (255 - len(name)))
            if algorithm == "legacy":
                colliding = tree.folder(base, b"colliding-names")
                for number in range(60):
                    name = b"other-%d-" % number
                    os.link(target, colliding + b"/" + name + b"o" * (255 - len(name)))
                for name in COLLIDING_NAMES:
                    os.link(target, colliding + b"/" + name)


@recipe("ext4")
def ext4_three_index_levels(image: Path) -> None:
    """A folder of 16 MiB with three levels of index, which needs the feature large_dir."""
    mke2fs(
        image, "ext4", 64 * MIB, "-b", "1024", "-N", "64",
        "-O", "large_dir,^has_journal,metadata_csum",
    )  # fmt: skip
    with writable(image) as root:
        base = os.fsencode(root)
        tree.write(base + b"/target")
        large = tree.folder(base, b"large")
        for number in range(42_000):
            name = b"%d-" % number
            os.link(base + b"/target", large + b"/" + name + b"n" * (255 - len(name)))
    assert "Indirect levels: 2" in debugfs(image, "htree /large")


# Inodes


@recipe("ext4")
def ext4_last_inode(image: Path) -> None:
    """Every inode is in use, the last one by a file."""
    mke2fs(image, "ext4", 8 * MIB, "-b", "1024", "-N", "64")
    use_every_inode(image, "ext4")


@recipe("ext2")
def ext2_last_inode(image: Path) -> None:
    mke2fs(image, "ext2", 8 * MIB, "-b", "1024", "-N", "64")
    use_every_inode(image, "ext2")


def use_every_inode(image: Path, kind: str) -> None:
    with writable(image, kind) as root:
        last = os.statvfs(root).f_files
        number = 0
        while os.statvfs(root).f_ffree:
            tree.write(os.fsencode(root / f"file-{number}"), (0, b"%d" % number))
            number += 1
        assert any(each.stat().st_ino == last for each in root.iterdir())


EXTRA_SIZES = (0, 4, 8, 12, 16, 20, 24, 28, 32)


@recipe("ext4")
def ext4_extra_isize(image: Path) -> None:
    """Every i_extra_isize that older kernels wrote, with times and attributes behind it."""
    mke2fs(image, "ext4", 16 * MIB, "-b", "4096", "-I", "256", "-O", "^metadata_csum")
    extra_sizes(image, EXTRA_SIZES)


@recipe("ext4")
def ext4_extra_isize_512(image: Path) -> None:
    """The same with checksums, and with fields that no kernel knows yet."""
    mke2fs(image, "ext4", 16 * MIB, "-b", "1024", "-I", "512", "-O", "metadata_csum")
    extra_sizes(image, (*EXTRA_SIZES, 36, 64, 128))


def extra_sizes(image: Path, sizes: tuple[int, ...]) -> None:
    with writable(image) as root:
        for size in sizes:
            for name in (f"plain-{size}", f"attributes-{size}", f"block-{size}"):
                path = os.fsencode(root / name)
                tree.write(path, (0, name.encode()))
                os.utime(path, ns=(tree.TIMES_NS[b"2400"], tree.TIMES_NS[b"1960"]))
    commands = []
    for size in sizes:
        for name in ("plain", "attributes", "block"):
            commands += [f"set_inode_field /{name}-{size} extra_isize {size}"]
        for name in ("attributes", "block"):
            commands += [f"ea_set /{name}-{size} user.{key} value-{key}" for key in "ab"]
        commands.append(f"ea_set /block-{size} user.large {'L' * 300}")
    debugfs(image, *commands, write=True)


@recipe("ext4")
def ext4_times(image: Path) -> None:
    """Times of every epoch."""
    mke2fs(image, "ext4", 16 * MIB, "-b", "4096", "-I", "256", "-O", "^metadata_csum")
    set_times(image)


@recipe("ext3")
def ext3_times_inode_128(image: Path) -> None:
    """Times where an inode has room for 32 bits of seconds alone."""
    mke2fs(image, "ext3", 16 * MIB, "-b", "4096", "-I", "128")
    set_times(image)


def set_times(image: Path) -> None:
    """Add to times that programs can set the change and creation times that only clocks do."""
    with writable(image) as root:
        tree.make_times(os.fsencode(root))
        for name in EDGE_TIMES:
            tree.write(os.fsencode(root / name))
    large = inode_size(image) > 128
    for name, (seconds, extra) in EDGE_TIMES.items():
        offset = inode_offset(image, f"/{name}")
        patch(image, offset + I_CTIME, struct.pack("<I", seconds))
        if large:
            patch(image, offset + I_CTIME_EXTRA, struct.pack("<I", extra))
            patch(image, offset + I_CRTIME, struct.pack("<II", seconds, extra))


EDGE_TIMES = {
    # The first and last second of each epoch, with as many nanoseconds as there are.
    f"edge-{epoch}-{seconds:08x}": (seconds, 999_999_999 << 2 | epoch)
    for epoch in range(4)
    for seconds in (0x8000_0000, 0xFFFF_FFFF, 0, 0x7FFF_FFFF)
}


# Journal


@recipe("ext4")
def ext4_journal_needs_recovery(image: Path) -> None:
    """A snapshot of a running machine: taken while mounted, after a sync."""
    mke2fs(image, "ext4", 32 * MIB, "-b", "1024")
    take_while_mounted(image, "ext4")


@recipe("ext3")
def ext3_journal_needs_recovery(image: Path) -> None:
    mke2fs(image, "ext3", 32 * MIB, "-b", "1024")
    take_while_mounted(image, "ext3")


def take_while_mounted(image: Path, kind: str) -> None:
    with writable(image, kind) as root:
        tree.make_sizes(os.fsencode(root), 1024)
        tree.make_folders(os.fsencode(root), 300)
    running = image.with_suffix(".running")
    try:
        run("cp", "--sparse=always", image, running)
        with writable(running, kind) as root:
            tree.make_xattrs(os.fsencode(root), 1024)
            os.unlink(root / "sizes" / "61")
            run("sync", "--file-system", root)
            run("cp", "--sparse=always", running, image)
    finally:
        running.unlink(missing_ok=True)
    assert "needs_recovery" in debugfs(image, "features")


# What the running kernel cannot mount; expected answers come from fuse2fs


@recipe("fuse2fs")
def ext4_casefold(image: Path) -> None:
    """Folders that fold case, small and indexed; names in any case, also ones that are no text."""
    mke2fs(image, "ext4", 16 * MIB, "-b", "1024", "-O", "casefold", extended=",encoding=utf8")
    hello = image.with_suffix(".hello")
    hello.write_text("hello\n")
    names = ["File", "file-2", "gr\u00f6\u00dfe", "GR\u00d6SSE-2", "\u0130stanbul", "with space"]
    many = [f"Entry-{number}-{'Xx' * 30}" for number in range(300)]
    try:
        debugfs(
            image,
            "mkdir /small",
            "mkdir /indexed",
            "set_inode_field /small flags 0x40080000",
            "set_inode_field /indexed flags 0x40080000",
            f"write {hello} /hello",
            *(f'write {hello} "/small/{name}"' for name in names),
            *["expand_dir /indexed"] * 40,
            *(f"ln /hello /indexed/{name}" for name in many),
            "mkdir /small/Inner",
            "set_inode_field /hello links_count 301",
            write=True,
        )
    finally:
        hello.unlink()
    e2fsck(image, "-D")


@recipe("fuse2fs")
def ext4_64k_blocks(image: Path) -> None:
    """Blocks of 64 KiB, where the length of a folder entry does not fit its 16 bits."""
    copy_in(image, "65536", 128 * MIB)


@recipe("fuse2fs")
def ext4_8k_blocks(image: Path) -> None:
    copy_in(image, "8192", 64 * MIB)


def copy_in(image: Path, block: str, size: int) -> None:
    """Let mke2fs itself copy a tree into a file system that the kernel would not mount."""
    source = image.with_suffix(".source")
    source.mkdir()
    try:
        base = os.fsencode(source)
        tree.make_sizes(base, int(block))
        tree.make_names(base)
        tree.make_symlinks(base, 4095)
        tree.make_special(base)
        many = tree.folder(base, b"many")
        for number in range(700):
            tree.write(many + b"/%d-" % number + b"n" * 240)
        mke2fs(image, "ext4", size, "-b", block, "-d", str(source), "-O", "^has_journal")
    finally:
        run("rm", "-r", source)
    debugfs(image, "mkdir /expanded", "expand_dir /expanded", write=True)


# Encryption

FS_IOC_ADD_ENCRYPTION_KEY = 0xC0506617
FS_IOC_SET_ENCRYPTION_POLICY = 0x800C6613
AES_256_XTS, AES_256_CTS, PAD_TO_32 = 1, 4, 3


@recipe("ext4")
def ext4_encrypted(image: Path) -> None:
    """Encrypted folders of both policy versions beside plain files."""
    mke2fs(image, "ext4", 32 * MIB, "-b", "4096", "-O", "encrypt")
    with writable(image) as root:
        tree.write(os.fsencode(root / "plain"), (0, b"not encrypted"))
        for version in (1, 2):
            base = tree.folder(os.fsencode(root), b"policy-%d" % version)
            encrypt(root, base, version)
            for size in (0, 1, 100, 4096, 10_000):
                tree.write(b"%s/size-%d" % (base, size), (0, tree.content(size, size)))
            tree.write(base + b"/" + b"n" * 255, (0, b"a long name"))
            tree.write(base + b"/" + b"m" * 140, (0, b"a middling name"))
            tree.write(base + b"/holes", (20_000, b"x"), size=50_000)
            os.symlink(b"target", base + b"/symlink")
            os.symlink(b"t" * 300, base + b"/long-symlink")
            os.link(base + b"/size-1", base + b"/link")
            os.mkfifo(base + b"/fifo")
            os.setxattr(base + b"/size-1", "user.plain", b"attributes are not encrypted")
            inside = tree.folder(base, b"inside")
            tree.write(inside + b"/below", (0, b"below"))
            many = tree.folder(base, b"many")
            for number in range(400):
                tree.write(b"%s/%d" % (many, number))


def encrypt(root: Path, folder: bytes, version: int) -> None:
    """Give an empty folder an encryption policy with a key made up here (fscrypt.rst)."""
    key = tree.content(f"key {version}", 64)
    descriptor = b"restored"
    specifier = struct.pack("<II32s", version, 0, descriptor if version == 1 else b"")
    argument = bytearray(specifier + struct.pack("<II32x", len(key), 0) + key)
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(top, FS_IOC_ADD_ENCRYPTION_KEY, argument)
    finally:
        os.close(top)
    if version == 1:
        policy = struct.pack("<4B8s", 0, AES_256_XTS, AES_256_CTS, PAD_TO_32, descriptor)
    else:
        policy = struct.pack("<8B", 2, AES_256_XTS, AES_256_CTS, PAD_TO_32, 0, 0, 0, 0)
        policy += argument[8:24]
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, FS_IOC_SET_ENCRYPTION_POLICY, policy)
    finally:
        os.close(fd)


# Small images to damage


@recipe("ext4")
def ext4_small_plain(image: Path) -> None:
    """A small tree without checksums: whatever is patched, nothing but its meaning is wrong."""
    mke2fs(
        image, "ext4", 4 * MIB, "-b", "1024", "-I", "256", "-N", "128",
        "-O", "^metadata_csum,^has_journal,^resize_inode,inline_data,ea_inode",
    )  # fmt: skip
    small_tree(image, "ext4")
    with writable(image) as root:
        base = os.fsencode(root)
        os.setxattr(base + b"/attributes", "user.apart", tree.content("apart", 3000))
        tree.write(base + b"/inline", (0, tree.content("inline", 120)))
        inside = tree.folder(base, b"inline-folder")
        for number in range(6):
            os.link(base + b"/sound", b"%s/link-%d" % (inside, number))


@recipe("ext4")
def ext4_small_checksums(image: Path) -> None:
    """The same tree with checksums."""
    mke2fs(
        image, "ext4", 4 * MIB, "-b", "1024", "-I", "256", "-N", "128",
        "-O", "metadata_csum,^has_journal,^resize_inode",
    )  # fmt: skip
    small_tree(image, "ext4")


@recipe("ext2")
def ext2_small(image: Path) -> None:
    mke2fs(image, "ext2", 4 * MIB, "-b", "1024", "-I", "128", "-N", "128", "-O", "^resize_inode")
    small_tree(image, "ext2")


def small_tree(image: Path, kind: str) -> None:
    """Add one of everything whose structure can be damaged."""
    with writable(image, kind) as root:
        base = os.fsencode(root)
        tree.write(base + b"/sound", (0, b"a sound file"))
        tree.write(base + b"/victim", (0, tree.content("victim", 3000)))
        tree.write(base + b"/mapped", *((2 * n * 1024, b"%d" % n) for n in range(300)))
        os.symlink(b"sound", base + b"/fast")
        os.symlink(b"s" * 200, base + b"/slow")
        inside = tree.folder(base, b"folder")
        for number in range(20):
            os.link(base + b"/sound", b"%s/link-%d" % (inside, number))
        indexed = tree.folder(base, b"indexed")
        for number in range(60):
            os.link(base + b"/sound", b"%s/%d-" % (indexed, number) + b"n" * 100)
        tree.write(base + b"/attributes", (0, b"with attributes"))
        os.setxattr(base + b"/attributes", "user.small", b"small")
        os.setxattr(base + b"/attributes", "user.large", tree.content("large", 500))
        run("setfacl", "-m", "u:1000:rw", os.fsdecode(base + b"/attributes"))
        os.mknod(base + b"/device", 0o020600, os.makedev(300, 70_000))
