"""The README's recipes to get files back: what they copy is what the guest's own kernel shows."""

import os
import re
import shlex
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from tests.images import ext as ext_recipes
from tests.images import xfs as xfs_recipes
from tests.manifest import Manifest, assert_same_tree, manifest_of_path
from tests.mounted.daemon import Daemon, served
from tests.mounted.disks import LINUX, MIB, gpt, qcow2
from tests.tools import require, require_root, run, wait_until

README = Path(__file__).parents[2] / "README.md"
NOT_COPIED = ("ctime_ns", "atime_ns", "blocks")
"""What no program can set; how blocks are counted is the other file system's own affair."""


def recipes(program: str) -> list[list[str]]:
    """Return the commands of a program in the README's section about getting files back."""
    text = README.read_text()
    section = text[text.index("### Getting files back") :]
    section = section[: section.index("\n### ", 1)]
    found = [shlex.split(line) for line in re.findall(r"^    (\w.*)$", section, re.MULTILINE)]
    return [command for command in found if command[0] == program]


def with_paths(command: list[str], source: str | Path, target: str | Path) -> list[str]:
    """Return a recipe that ends with where it copies from and to, with other places."""
    *options, documented, _ = command
    assert documented.startswith("/mnt/restore/")
    return [*options, f"{source}/" if documented.endswith("/") else str(source), str(target)]


@dataclass(frozen=True)
class Guest:
    """A guest's disk in a partition, and on the whole disk; `new` makes an empty file system of
    its kind, so that whatever the guest has also has room in the copy."""

    daemon: Daemon
    partition: Path
    whole: Path
    kernel: Manifest
    mounted: Callable[[], AbstractContextManager[Path]]
    new: Callable[[], AbstractContextManager[Path]]


@pytest.fixture(scope="module", params=["ext4_default", "xfs_default"])
def guest(
    request: pytest.FixtureRequest,
    ext_images: ext_recipes.Images,
    xfs_images: xfs_recipes.Images,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Guest]:
    require("rsync", "tar", "cp")
    require_root()
    name: str = request.param
    folder = tmp_path_factory.mktemp(name)
    blank = folder / "blank"

    @contextmanager
    def new_ext() -> Iterator[Path]:
        ext_recipes.mke2fs(blank, "ext4", 256 * MIB, "-b", "4096")
        with ext_recipes.writable(blank) as root:
            yield root

    @contextmanager
    def new_xfs() -> Iterator[Path]:
        xfs_recipes.mkfs(blank, size=512 * MIB)
        with xfs_recipes.writable(blank) as root:
            yield root

    is_ext = name.startswith("ext")
    image = ext_images(name) if is_ext else xfs_images(name)
    known = ext_recipes.RECIPES[name] if is_ext else xfs_recipes.RECIPES[name]
    with known.mounted(image) as root:
        kernel = manifest_of_path(root)
    # A guest's files are older than their copy; rsync leaves a time as it is in the same second.
    made = image.stat().st_mtime
    wait_until(lambda: time.time() > made + 2, "the image is old")
    qcow2(gpt(folder / "disk", (LINUX, image)), folder / "images" / "b1" / "disk0.qcow2")
    qcow2(image, folder / "images" / "b1" / "disk1.qcow2")
    with served("--images", folder / "images") as daemon:
        disks = daemon.backups / "b1"
        new = new_ext if is_ext else new_xfs
        yield Guest(
            daemon,
            disks / "disk0" / "part1",
            disks / "disk1",
            kernel,
            partial(known.mounted, image),
            new,
        )
    shutil.rmtree(folder)


def copied(guest: Guest, copy: Callable[[Path, Path], Path], source: Path) -> Manifest:
    """Return what a copy into an empty file system shows; folders without their size, which
    depends on the order in which they were filled."""
    with guest.new() as target:
        return _comparable(manifest_of_path(copy(source, target)))


def _comparable(manifest: Manifest) -> Manifest:
    return {
        path: replace(entry, size=0) if stat.S_ISDIR(entry.mode) else entry
        for path, entry in manifest.items()
    }


def assert_same_copy(
    guest: Guest, copy: Callable[[Path, Path], Path], ignore: tuple[str, ...] = ()
) -> Manifest:
    """Copy from the kernel's mount and from ours: both must become the same, hole by hole."""
    with guest.mounted() as kernel:
        expected = copied(guest, copy, kernel)
    found = copied(guest, copy, guest.partition)
    assert_same_tree(expected, found, (*NOT_COPIED, *ignore))
    return found


def test_the_tree_has_everything(guest: Guest) -> None:
    """So that the tests below mean something."""
    entries = guest.kernel.values()
    kinds = {stat.S_IFMT(entry.mode) for entry in entries}
    assert len(kinds) == 7
    names = {name for entry in entries for name in entry.xattrs}
    for name in ("security.capability", "system.posix_acl_access", "system.posix_acl_default"):
        assert name.encode() in names
    assert any(name.startswith(b"trusted.") for name in names)
    assert any(name.startswith(b"user.") for name in names)
    assert any(entry.nlink > 1 and stat.S_ISREG(entry.mode) for entry in entries)
    assert any(entry.mtime_ns % 1000 for entry in entries)
    assert {entry.uid for entry in entries} > {0, 100_000}
    assert any(entry.size > 1000 * MIB and entry.blocks < 1000 for entry in entries)
    assert any(not _is_text(path) for path in guest.kernel)


def _is_text(path: bytes) -> bool:
    try:
        path.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_rsync(guest: Guest) -> None:
    (command,) = recipes("rsync")
    assert {"-aHAX", "--numeric-ids", "--sparse"} < set(command)

    def copy(source: Path, target: Path) -> Path:
        run(*with_paths(command, source, target))
        return target

    found = assert_same_copy(guest, copy)
    assert_same_tree(_comparable(guest.kernel), found, (*NOT_COPIED, "segments"))


def test_a_second_rsync_transfers_nothing(guest: Guest) -> None:
    (command,) = recipes("rsync")
    with guest.new() as target:
        again = with_paths(command, guest.partition, target)
        run(*again)
        told = run(*again, "--itemize-changes", "--stats")
        assert told.startswith("\nNumber of files: "), "something was changed"
        for what in ("regular files transferred: 0", "created files: 0", "deleted files: 0"):
            assert f"\nNumber of {what}\n" in told
        assert "\nLiteral data: 0 bytes\n" in told
        # Not even where every byte and every ns counts; nor from a disk without partitions.
        assert list(guest.whole.iterdir())  # before that nobody knows its root, says the README
        strict = ("--checksum", "--modify-window=-1", "--delete", "--itemize-changes")
        assert run(*with_paths(command, guest.whole, target), *strict) == ""


def test_cp(guest: Guest) -> None:
    (command,) = recipes("cp")

    def copy(source: Path, target: Path) -> Path:
        run(*with_paths(command, source, target))
        return target / source.name

    found = assert_same_copy(guest, copy)
    assert_same_tree(_comparable(guest.kernel), found, (*NOT_COPIED, "segments"))


def test_tar(guest: Guest, tmp_path: Path) -> None:
    create, extract = recipes("tar")
    archive = tmp_path / "etc.tar"

    def placed(command: list[str], folder: Path) -> list[str]:
        words = [str(archive) if word == "etc.tar" else word for word in command]
        words[words.index("-C") + 1] = str(folder)
        return words

    def copy(source: Path, target: Path) -> Path:
        assert create[-1] == "etc"
        run(*placed([*create[:-1], "."], source))
        assert archive.stat().st_size < 100 * MIB, "holes take no room in it"
        run(*placed(extract, target))
        return target

    found = assert_same_copy(guest, copy)
    expected = _comparable(guest.kernel)
    sockets = {path for path, entry in expected.items() if stat.S_ISSOCK(entry.mode)}
    assert sockets, "an archive has no way to hold them, and tar says so"
    for path in sockets:
        del expected[path]
    archive.unlink()
    # It does not see that two names are one pipe.
    assert_same_tree(expected, found, (*NOT_COPIED, "segments", "nlink", "link_group"))


def test_du_agrees_with_the_guest(guest: Guest) -> None:
    for path, entry in guest.kernel.items():
        found = os.lstat(os.fsencode(guest.partition) + b"/" + path)
        assert found.st_blocks == entry.blocks, path
