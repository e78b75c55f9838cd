"""ext2, ext3 and ext4 through the mount: the same as the kernel's own mount of the same image, for
every program that people use."""

# ruff: noqa: PTH208 - system calls

import fcntl
import hashlib
import itertools
import mmap
import os
import random
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.images import tree
from tests.images.ext import RECIPES, Images, mke2fs, writable
from tests.manifest import Manifest, assert_same_tree, manifest_of_path
from tests.mounted.conftest import Serve
from tests.mounted.daemon import Daemon, served
from tests.mounted.disks import LINUX, MIB, Sample, ext, gpt, incremental, mbr, qcow2
from tests.mounted.folders import OpenFolder
from tests.mounted.reading import digests, error_of, reading
from tests.tools import loop_mount, require, require_root, run, wait_until

FEATURES = (
    "ext4_default",
    "ext4_1k_old_features",
    "ext4_1k_checksums",
    "ext4_gdt_checksums",
    "ext4_bigalloc",
    "ext4_meta_bg",
    "ext4_inline_256",
    "ext4_inline_512",
    "ext4_ea_inode",
    "ext4_odd_inodes",
    "ext4_from_ext3",
    "ext4_indexed_folders_unsigned",
    "ext4_last_inode",
    "ext4_extra_isize",
    "ext4_times",
    "ext4_casefold",
    "ext4_blocks_beyond_32_bits",
    "ext3_1k",
    "ext3_times_inode_128",
    "ext3_journal_needs_recovery",
    "ext2_1k",
    "ext2_first_revision",
)
"""Recipes that together have every feature; tests/real compares all of them without the mount."""

LARGEST = 100 * MIB
"""Larger files are mostly one hole; how they are read has a test of its own."""


class Gallery:
    """A daemon that shows images as backups of their name, made when first asked for."""

    def __init__(self, daemon: Daemon, repository: Path, images: Images) -> None:
        self.daemon = daemon
        self._repository = repository
        self._images = images

    def show(self, name: str) -> Path:
        """Return the folder of the disk that is an image, with no partition table."""
        folder = self.daemon.backups / name / "disk0"
        image = self._repository / name / "disk0.qcow2"
        if not image.exists():
            qcow2(self._images(name), image)
            self.daemon.send(signal.SIGHUP)
        wait_until(folder.exists, f"{name} is shown")
        return folder


@pytest.fixture(scope="module")
def gallery(ext_images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    require_root()
    folder = tmp_path_factory.mktemp("gallery")
    with served("--images", folder) as daemon:
        daemon.expect("WARNING there are no backups")  # they come one by one
        yield Gallery(daemon, folder, ext_images)
    shutil.rmtree(folder)


def kernels(image: Path, name: str) -> Manifest:
    """Return what the kernel's own mount shows."""
    with RECIPES[name].mounted(image) as root:
        found = manifest_of_path(root, largest=LARGEST)
    assert len(found) > 3
    return found


def without_root(manifest: Manifest) -> Manifest:
    """Leave the root out: a disk's own folder is not the guest's, and looking at it attaches
    nothing."""
    return {path: entry for path, entry in manifest.items() if path != b"."}


@pytest.mark.parametrize("name", FEATURES)
def test_a_disk_without_partitions(name: str, gallery: Gallery, ext_images: Images) -> None:
    found = manifest_of_path(gallery.show(name), largest=LARGEST)
    assert_same_tree(without_root(kernels(ext_images(name), name)), without_root(found))
    recovery = gallery.daemon.logged(f"{name}/disk0.*journal needs recovery")
    assert bool(recovery) is name.endswith("_needs_recovery")


def test_encrypted_folders(gallery: Gallery, ext_images: Images) -> None:
    name = "ext4_encrypted"
    expected = kernels(ext_images(name), name)
    gallery.daemon.expect(f"WARNING {name}/disk0: .*encrypted")
    folder = gallery.show(name)
    found = manifest_of_path(folder)
    # The kernel shows an encoding of a link's target, a path that leads nowhere, and refuses to
    # open even an empty file.
    hidden = ("target", "digest", "errors")
    assert_same_tree(without_root(expected), without_root(found), hidden)
    unread = [os.fsdecode(path) for path, entry in expected.items() if "content" in entry.errors]
    assert len(unread) > 800
    for path in unread:
        if found[os.fsencode(path)].size:
            assert error_of((folder / path).read_bytes) == "EOPNOTSUPP"
    links = [os.fsdecode(path) for path, entry in expected.items() if entry.target is not None]
    assert len(links) == 4
    for path in links:
        assert error_of(os.readlink, folder / path) == "EOPNOTSUPP"
    assert (folder / "plain").read_bytes() == b"not encrypted"


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("ext4_default", {"holes/far": 1 << 30}),
        ("ext4_1k_old_features", {"holes/far": 1 << 30, "deep-extents": 50 * MIB}),
        (
            "ext3_4k_over_4_gib",
            {"at-4-gib": 1 << 32, "hole-over-4-gib": 1 << 32, "indirect-holes": 4_299_210_752},
        ),
        ("ext2_1k", {"holes/far": 1 << 30, "indirect-holes": 67_383_296}),
    ],
)
def test_large_sparse_files(
    name: str, files: dict[str, int], gallery: Gallery, ext_images: Images
) -> None:
    """Around where their data lies, across holes, and behind their end."""
    folder = gallery.show(name)
    with RECIPES[name].mounted(ext_images(name)) as root:
        for file, place in files.items():
            size = (root / file).stat().st_size
            assert (folder / file).stat().st_size == size
            around = [place + step for step in (-70_000, -4096, -3, 0, 50_000, 99_990, 2 * MIB)]
            offsets = [0, size // 3, *around, max(size - 70_000, 0), size - 1, size, size + 4096]
            with reading(folder / file, *offsets) as reader:
                assert reader.results() == digests(root / file, *offsets)


def test_partitions(serve: Serve, ext_images: Images, tmp_path: Path) -> None:
    """GPT and MBR, logical partitions too; here the root is the guest's own."""
    names = ("ext4_last_inode", "ext3_times_inode_128", "ext2_small")
    images = [ext_images(name) for name in names]
    raw = gpt(tmp_path / "gpt", *((LINUX, image) for image in images))
    qcow2(raw, tmp_path / "repository" / "b1" / "disk0.qcow2")
    raw = mbr(tmp_path / "mbr", [("83", images[0])], [("83", image) for image in images[1:]])
    qcow2(raw, tmp_path / "repository" / "b1" / "disk1.qcow2", "-c")
    daemon = serve("--images", tmp_path / "repository")
    for position, (name, image) in enumerate(zip(names, images, strict=True)):
        expected = kernels(image, name)
        first, logical = f"part{position + 1}", f"part{position + 4 if position else 1}"
        for part in (f"disk0/{first}", f"disk1/{logical}"):
            assert_same_tree(expected, manifest_of_path(daemon.backups / "b1" / part))


def test_incrementals(serve: Serve, ext_images: Images, tmp_path: Path) -> None:
    """A chain of three images, each one a change that the kernel made."""
    require_root()
    states = [tmp_path / "state-0"]
    run("cp", "--sparse=always", ext_images("ext4_extra_isize_512"), states[0])
    states[0].chmod(0o644)
    repository = tmp_path / "repository"
    tops = [qcow2(states[0], repository / "b0" / "disk0.qcow2")]
    for number in (1, 2):
        state = tmp_path / f"state-{number}"
        run("cp", "--sparse=always", states[-1], state)
        with writable(state) as root:
            base = tree.folder(os.fsencode(root), b"day-%d" % number)
            tree.make_sizes(base, 1024)
            tree.make_xattrs(base, 1024)
            os.truncate(root / "plain-4", 3 * number)
            if number == 2:
                shutil.rmtree(root / "day-1" / "xattrs")
                tree.write(os.fsencode(root / "day-1" / "sizes" / "300000"), (70_000, b"changed"))
        top = repository / f"b{number}" / "disk0.qcow2"
        tops.append(incremental(tops[-1], states[-1], state, top))
        assert top.stat().st_blocks < tops[0].stat().st_blocks + state.stat().st_blocks
        states.append(state)
    daemon = serve("--images", repository)
    for number, state in enumerate(states):
        with loop_mount(state, "ext4") as root:
            expected = manifest_of_path(root)
        found = manifest_of_path(daemon.backups / f"b{number}" / "disk0")
        assert_same_tree(without_root(expected), without_root(found))


# --- what people use -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Sides:
    """The same file system, as the kernel mounts it and as the daemon shows it."""

    kernel: Path
    ours: Path
    daemon: Daemon

    def same(self, *command: str | Path, min_lines: int = 100) -> None:
        """Run a command in both; it must succeed, and say the same."""
        said = [run(*command, cwd=side).splitlines() for side in (self.kernel, self.ours)]
        assert len(said[0]) >= min_lines
        assert said[1] == said[0]


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    """A tree with everything but huge sparse files, which would take long to copy."""
    require("mke2fs", "setfacl", "find", "rsync", "tar", "getfacl", "getfattr")
    require_root()
    folder = tmp_path_factory.mktemp("sides")
    volume = folder / "volume"
    mke2fs(volume, "ext4", 64 * MIB, "-b", "4096")
    with writable(volume) as root:
        base = os.fsencode(root)
        tree.make_sizes(base, 4096)
        tree.make_unwritten(base, 4096)
        tree.make_names(base)
        tree.make_symlinks(base, 4095)
        tree.make_special(base)
        tree.make_times(base)
        tree.make_folders(base, 1500)
        tree.make_xattrs(base, 4096)
        tree.make_acls(base)
        tree.write(base + b"/holes", *((n * 70_000, b"data") for n in range(50)), size=4 * MIB)
        tree.write(base + b"/big", (0, tree.content("big", 16 * MIB)))
    image = qcow2(gpt(folder / "disk", (LINUX, volume)), folder / "images" / "b1" / "disk0.qcow2")
    with ExitStack() as stack:
        kernel = stack.enter_context(loop_mount(volume, "ext4"))
        daemon = stack.enter_context(served("--images", image.parent.parent))
        yield Sides(kernel, daemon.backups / "b1" / "disk0" / "part1", daemon)
    shutil.rmtree(folder)


def test_find(sides: Sides) -> None:
    shown = r"%p %y %m %U %G %n %s %b %k %T@ %C@ %A@ %l\0"
    sides.same("sh", "-c", f"find . -printf '{shown}' | sort -z | tr '\\0' '\\n'")
    sides.same("sh", "-c", "find . -links +1 -type f -size +0 | sort")
    sides.same("sh", "-c", "find . -newermt 2030-01-01 | sort", min_lines=5)
    sides.same("sh", "-c", "find . -perm /6000 | sort", min_lines=3)


def test_ls_and_stat(sides: Sides) -> None:
    sides.same("ls", "-lARb", "--time-style=full-iso")
    sides.same("ls", "-lanb", "--time-style=full-iso", "folders/many", "special", "names")
    sides.same("ls", "names/deep-0/deep-1/../../../folders/many/../../special", min_lines=20)
    shown = "%n %f %h %u %g %s %b %t %T %x %y %z"
    sides.same("sh", "-c", f"find . -print0 | sort -z | xargs -0 stat -c '{shown}'")


def test_du(sides: Sides) -> None:
    # Without -l only the first name of a file counts, and which is the first is nobody's promise.
    sides.same("sh", "-c", "du -alB 512 . | sort")
    sides.same("du", "-sB", "512", ".", min_lines=1)


def test_sha256sum(sides: Sides) -> None:
    sides.same("sh", "-c", "find . -type f -print0 | sort -z | xargs -0 sha256sum")


def test_acls_and_attributes(sides: Sides) -> None:
    every = "find . -not -type l -print0 | sort -z | xargs -0"
    sides.same("sh", "-c", f"{every} getfacl --numeric")
    sides.same("sh", "-c", f"{every} getfattr --dump --match=- --encoding=hex", min_lines=50)
    for side in (sides.kernel, sides.ours):
        assert error_of(os.getxattr, side / "big", "user.none") == "ENODATA"
        without = side / "acls" / "mask-only"
        assert error_of(os.getxattr, without, "system.posix_acl_default") == "ENODATA"


def test_who_may_read(sides: Sides) -> None:
    """Modes and ACLs are the guest's own, and count for whoever looks."""
    readable = "find . -type f -readable | sort"
    for user in ("1000", "3001", "65534"):
        who = ("setpriv", f"--reuid={user}", "--regid=65534", "--clear-groups")
        sides.same(*who, "sh", "-c", readable)


@pytest.mark.parametrize("ways", [["s"], [""], ["s", ""], ["", "s"]])
def test_a_root_that_only_its_owner_may_enter(
    serve: Serve, tmp_path: Path, ways: list[str]
) -> None:
    """Also for the access that attaches the disk, when nobody knows the root's mode yet."""
    require_root()
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "s").write_text("secret\n")
    disk = ext(tmp_path / "disk", "ext4", tmp_path / "source", 8 * MIB)
    run("debugfs", "-w", "-R", "set_inode_field <2> mode 040700", disk)
    qcow2(disk, tmp_path / "repository" / "b1" / "disk0.qcow2")
    daemon = serve("--images", tmp_path / "repository")
    folder = daemon.backups / "b1" / "disk0"
    stranger = ("setpriv", "--reuid=1234", "--regid=1234", "--clear-groups")
    for _ in range(3):
        for way in ways:
            command = (*stranger, "cat" if way else "ls", folder / way)
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.stdout == ""
            assert "Permission denied" in done.stderr
        assert (folder / "s").read_text() == "secret\n"
        assert sorted(os.listdir(folder)) == ["lost+found", "s"]
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        daemon.cli("detach", "b1", "0")
        assert daemon.attached() == {}
        assert (folder / "s").read_text() == "secret\n", "whoever may is let in as ever"
        daemon.cli("detach", "b1", "0")


def test_tar(sides: Sides) -> None:
    """Byte for byte the same archive."""
    archives = []
    for side in (sides.kernel, sides.ours):
        command = (
            *("tar", "--create", "--sort=name", "--format=posix", "--numeric-owner"),
            *("--pax-option=exthdr.name=%d/PaxHeaders/%f", "--xattrs", "--xattrs-include=*"),
            *("--acls", "--warning=no-file-ignored", "--warning=no-timestamp", "."),
        )
        with subprocess.Popen(command, cwd=side, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            archives.append(hashlib.file_digest(process.stdout, "sha256").hexdigest())
        assert process.returncode == 0
    assert archives[0] == archives[1]


def test_holes_are_where_the_kernel_has_them(sides: Sides) -> None:
    # Not of blocks that were never written: once they are in its cache, the kernel calls them data.
    for name in ("big", "holes", "sizes/300000", "sizes/1", "sizes/0"):
        with (sides.kernel / name).open("rb") as one, (sides.ours / name).open("rb") as other:
            size = os.fstat(one.fileno()).st_size
            offsets = [0, 1, 4095, 4096, 70_000, 140_001, size - 1, size, size + 1, 1 << 50, -1]
            for whence in (os.SEEK_DATA, os.SEEK_HOLE):
                for offset in offsets:
                    found = [_sought(file.fileno(), offset, whence) for file in (one, other)]
                    assert found[1] == found[0], (name, offset, whence)


def _sought(fd: int, offset: int, whence: int) -> int | str:
    return error_of(os.lseek, fd, offset, whence) or os.lseek(fd, offset, whence)


def test_a_file_of_terabytes_with_little_in_it(serve: Serve, tmp_path: Path) -> None:
    """What keeps holes does not read them: nobody would wait for that."""
    require_root()
    volume = tmp_path / "volume"
    mke2fs(volume, "ext4", 16 * MIB, "-b", "4096")
    pieces = [(place, tree.content(place, 9000)) for place in (5 << 40, 7 << 40)]
    with writable(volume) as root:
        tree.write(os.fsencode(root / "huge"), *pieces, size=10 << 40)
    qcow2(volume, tmp_path / "images" / "b1" / "disk0.qcow2")
    huge = serve("--images", tmp_path / "images").backups / "b1" / "disk0" / "huge"
    assert huge.stat().st_size == 10 << 40
    run("cp", "--archive", huge, tmp_path / "copy")
    run(
        "tar",
        "--create",
        "--sparse",
        "--file",
        tmp_path / "tar",
        "--directory",
        huge.parent,
        "huge",
    )
    assert (tmp_path / "tar").stat().st_size < MIB
    assert (tmp_path / "copy").stat().st_blocks == huge.stat().st_blocks < 100
    with (tmp_path / "copy").open("rb") as copy:
        for place, data in pieces:
            assert os.pread(copy.fileno(), len(data), place) == data


def test_mapped_into_memory(sides: Sides) -> None:
    for name in ("big", "holes", "sizes/300000", "unwritten/part"):
        with (sides.kernel / name).open("rb") as one, (sides.ours / name).open("rb") as other:
            expected = one.read()
            with mmap.mmap(other.fileno(), 0, prot=mmap.PROT_READ) as mapped:
                for offset in random.Random(name).sample(range(len(expected)), 200):
                    assert mapped[offset : offset + 9] == expected[offset : offset + 9]
                assert mapped[:] == expected


def test_past_the_cache(sides: Sides) -> None:
    for name in ("big", "holes", "sizes/300000", "unwritten/part", "sizes/1", "sizes/0"):
        size = (sides.ours / name).stat().st_size
        offsets = sorted({place // 4096 * 4096 for place in (0, size // 2, size, size + 4096)})
        with reading(sides.ours / name, *offsets, direct=True) as reader:
            assert reader.results() == digests(sides.kernel / name, *offsets)


def test_many_readers_at_random_places(sides: Sides) -> None:
    """Several processes, each with many reads at once, while others list and copy."""
    places = random.Random("places")
    offsets = [[places.randrange(16 * MIB) for _ in range(60)] for _ in range(4)]
    lengths = [1, 4096, 50_001, 300_000]
    script = "for i in 1 2 3 4 5; do ls -lR .; done | wc -l; cat sizes/* holes | sha256sum"
    command = ["sh", "-c", script]
    with ExitStack() as stack:
        lister = stack.enter_context(
            subprocess.Popen(command, cwd=sides.ours, stdout=subprocess.PIPE, text=True)
        )
        readers = [
            stack.enter_context(reading(sides.ours / "big", *some, length=length))
            for some, length in zip(offsets, lengths, strict=True)
        ]
        for reader, some, length in zip(readers, offsets, lengths, strict=True):
            assert reader.results() == digests(sides.kernel / "big", *some, length=length)
        listed, _ = lister.communicate()
    assert listed == run(*command, cwd=sides.kernel)


def test_a_folder_is_read_in_pieces(sides: Sides) -> None:
    """telldir(3) and seekdir(3): go on behind any entry, as an NFS server does."""
    with OpenFolder(sides.ours / "folders" / "many") as folder:
        entries = list(folder.entries())
        names = [name for name, _ in entries]
        assert sorted(names) == sorted([b".", b"..", *map(os.fsencode, os.listdir(folder.path))])
        assert len(names) == 1502
        for position in (0, 1, 2, 3, 50, 700, 1499, 1500, 1501):
            folder.seek(entries[position][1])
            assert [name for name, _ in folder.entries()] == names[position + 1 :]
        folder.rewind()
        assert [name for name, _ in folder.entries()] == names


def test_a_folder_is_read_across_a_detach(sides: Sides) -> None:
    with OpenFolder(sides.ours / "folders" / "many") as folder:
        entries = folder.entries()
        names = [name for name, _ in itertools.islice(entries, 10)]
        assert sides.daemon.cli("detach", "b1", "0").code == 0
        assert sides.daemon.children() == []
        names += [name for name, _ in entries]
        assert len(names) == len(set(names)) == 1502


def test_other_system_calls(sides: Sides, tmp_path: Path) -> None:
    """What programs do besides reading: none of it fails, or lies."""
    kernel, ours = (os.open(side / "big", os.O_RDONLY) for side in (sides.kernel, sides.ours))
    copy = os.open(tmp_path / "copy", os.O_RDWR | os.O_CREAT)
    folder = os.open(sides.ours, os.O_RDONLY)
    try:
        expected = os.pread(kernel, 16 * MIB, 0)
        os.fsync(ours)
        os.fdatasync(ours)
        os.fsync(folder)
        os.posix_fadvise(ours, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        fcntl.flock(ours, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.lockf(ours, fcntl.LOCK_SH | fcntl.LOCK_NB)
        assert os.lseek(ours, 0, os.SEEK_END) == len(expected)
        assert os.lseek(ours, 0, os.SEEK_HOLE) == len(expected)
        assert os.lseek(ours, 0, os.SEEK_DATA) == 0
        done = 0
        while done < len(expected):
            done += os.sendfile(copy, ours, done, len(expected) - done)
        assert os.pread(copy, len(expected) + 1, 0) == expected
        assert os.statvfs(ours).f_namemax == 255
        assert os.access(sides.ours / "big", os.R_OK)
        assert not os.access(sides.ours / "big", os.W_OK)
    finally:
        for fd in (kernel, ours, copy, folder):
            os.close(fd)


def test_a_small_cache(serve: Serve, sample: Sample, tmp_path: Path) -> None:
    """More is read at once than the daemon's memory holds: slots are used again and again."""
    names = [f"b{number}" for number in range(4)]
    for name in names:
        (tmp_path / name).mkdir()
        os.link(sample.repository / sample.full / "disk1.qcow2", tmp_path / name / "disk0.qcow2")
    daemon = serve("--images", tmp_path, "--cache-size", "1M")
    offsets = [number * 37 * 16_384 % (23 * MIB) for number in range(40)]
    expected = digests(sample.sources.data / "big", *offsets, length=200_000)
    with ExitStack() as stack:
        files = [daemon.backups / name / "disk0" / "big" for name in names]
        readers = [stack.enter_context(reading(f, *offsets, length=200_000)) for f in files]
        whole = run("sh", "-c", 'for f; do sha256sum <"$f" & done; wait', "sh", *files)
        for reader in readers:
            assert reader.results() == expected
    digest = hashlib.sha256((sample.sources.data / "big").read_bytes()).hexdigest()
    assert whole.split() == [digest, "-"] * len(names)


def test_owners_and_modes_by_wish(serve: Serve, sample: Sample) -> None:
    require_root()  # to see all of it nevertheless
    wish = ("--uid", "1234", "--gid", "4321", "--umask", "027")
    daemon = serve("--images", sample.repository, *wish)
    root = daemon.backups / sample.full / "disk0" / "part3"
    for path in (root, root / "etc", root / "etc/hostname", root / "link"):
        found = path.lstat()
        assert (found.st_uid, found.st_gid) == (1234, 4321)
        assert not found.st_mode & 0o027 or path.is_symlink()
    assert (root / "etc/hostname").lstat().st_mode == 0o100640
    assert (root / "link").lstat().st_mode == 0o120777
